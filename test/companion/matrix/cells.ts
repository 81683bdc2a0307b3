// The cells of the matrix and what must come of each, written down from the rules for refusals: at which moment a hop said no, and so which requests may
// go on to the next chain. Nothing here asks the companion what it thinks.
import type { FaultKind } from '../../../shared/fault.ts';
import type { Misdeed } from '../../support/misbehaving-hop.ts';

/** How the client comes and what the misbehaving hop speaks. In the last two it stands behind another hop, which behaves. */
export type Arm = 'absolute' | 'connect' | 'socks5' | 'socks5, http' | 'two hops, absolute' | 'two hops, connect';

/**
 * What the moment allows (stages S0 to S5):
 * `unsent`: no byte reached a target, every request goes on · `denied`: the hop itself answered in the target's place, and proved it: all go on whose
 * body is still held, POST too · `failed`: the same, but not by policy: what is idempotent goes on, and what has asked first (Expect) · `silence`: it broke with the request in its
 * hands: what is idempotent and held goes on · `flight`: the tunnel broke before the target said a byte: a ClientHello goes on ·
 * `relayed`: may be the origin's: goes to the client as it came · `cut`: bytes of the answer have gone out: never again.
 */
export type Allows = 'unsent' | 'denied' | 'failed' | 'silence' | 'flight' | 'relayed' | 'cut';

export interface Signal {
  readonly name: string;
  readonly stage: 'S0' | 'S1' | 'S2' | 'S2′' | 'S3' | 'S4' | 'S5';
  /** Null: nobody listens where the hop should be. */
  readonly misdeed: Misdeed | null;
  readonly allows: Allows;
  /** What the first attempt's record says; empty where the answer was taken for the origin's. */
  readonly outcomes: readonly FaultKind[];
  readonly verdict?: 'proxy' | 'origin' | 'unknown';
  readonly sign?: string;
  /** It can be told by its page alone: not where there is none, and not of what could not go on anyhow. */
  readonly byPage?: boolean;
  /** Could be the target that is away: when two exits agree on it, no third is asked. */
  readonly couldBeTarget?: boolean;
}

export const METHODS = ['GET', 'HEAD', 'PUT', 'PUT, larger than the buffer', 'POST', 'POST with Expect'] as const;
export type Method = (typeof METHODS)[number];
export const NEXTS = ['next works', 'next refuses too, third works', 'all refuse'] as const;
export type Next = (typeof NEXTS)[number];

export interface Cell {
  readonly number: number;
  readonly arm: Arm;
  readonly signal: Signal;
  readonly method: Method;
  readonly next: Next;
  readonly direct: boolean;
  /** Of its own, so that nothing learned in one cell is known in another. */
  readonly host: string;
}

/** Every cell of an arm: all methods, all that may come next, open and closed. What takes its time is asked with two methods only. */
export function cellsOf(arm: Arm, signals: readonly Signal[]): Cell[] {
  let number = 0;
  return signals.flatMap(signal => {
    const waits = signal.misdeed?.does === 'hang';
    const methods = METHODS.filter(method => {
      if (waits) return method === 'GET' || method === 'POST';
      // Within a tunnel nobody sees what they do to each other.
      if (isTunnelled(arm)) return method === 'GET' || method === 'POST' || method === 'PUT, larger than the buffer';
      return signal.allows !== 'cut' || method !== 'HEAD';
    });
    // A server that says nothing to a ClientHello is waited for ten seconds.
    const isSlow = waits && signal.allows === 'flight' && isTunnelled(arm);
    return methods.flatMap(method =>
      (isSlow ? NEXTS.slice(0, 1) : NEXTS).flatMap(next =>
        [false, true].map((direct): Cell => {
          number++;
          return { number, arm, signal, method, next, direct, host: `cell${number}.test` };
        }),
      ),
    );
  });
}

export type Expected =
  | { readonly kind: 'served'; readonly by: 'first' | 'second' | 'third' | 'direct' }
  /** What the first hop said, as it said it. */
  | { readonly kind: 'relayed' }
  /** Our own answer, or a tunnel that never stood. */
  | { readonly kind: 'failed' }
  /** A beginning, and then the end. */
  | { readonly kind: 'cut' };

/** What must come of it. */
export function expectedOf({ arm, signal, method, next, direct }: Cell): Expected {
  const { allows } = signal;
  if (allows === 'relayed') return { kind: 'relayed' };
  if (allows === 'cut') return { kind: 'cut' };
  if (!goesOn(allows, method, arm) || (signal.byPage === true && (method === 'HEAD' || method === 'POST'))) {
    // The 407 of a hop never reaches a browser: it would ask the person for a password that is not theirs to give.
    const isRelayed = (allows === 'denied' || allows === 'failed') && signal.sign !== 'auth';
    return isRelayed ? { kind: 'relayed' } : { kind: 'failed' };
  }
  if (next === 'next works') return { kind: 'served', by: 'second' };
  if (signal.couldBeTarget === true) return { kind: 'failed' };
  if (next === 'next refuses too, third works') return { kind: 'served', by: 'third' };
  return direct ? { kind: 'served', by: 'direct' } : { kind: 'failed' };
}

const isTunnelled = (arm: Arm) => arm === 'connect' || arm === 'socks5' || arm === 'two hops, connect';

function goesOn(allows: Allows, method: Method, arm: Arm): boolean {
  // Whatever the client says within its tunnel, we have only carried its ClientHello.
  if (allows === 'unsent' || (allows === 'flight' && isTunnelled(arm))) return true;
  if (method === 'PUT, larger than the buffer') return false;
  // Who asked first whether to send a body, and was answered, has sent none.
  if (allows === 'failed' && method === 'POST with Expect') return true;
  return allows === 'denied' || !method.startsWith('POST');
}

/** An answer of a hop: its head, and a body that says whose it is. */
function says(status: number, ...fields: string[]): Buffer {
  const body = `the hop says ${status}`;
  const head = [`HTTP/1.1 ${status} Said by the hop`, ...fields, `Content-Length: ${body.length}`, 'Connection: close'];
  return Buffer.from(`${head.join('\r\n')}\r\n\r\n${body}`, 'latin1');
}

/** More than is ever kept of a body (256 KiB), with as much again for the buffers of sockets. */
const BEYOND_BUFFER = 400 * 1024;
export const answers = (status: number, ...fields: string[]): Misdeed => ({
  at: 'asked',
  does: says(status, ...fields),
  afterBody: BEYOND_BUFFER,
});
export const breaks = (at: Misdeed['at'], does: Misdeed['does']): Misdeed => ({ at, does, afterBody: BEYOND_BUFFER });
