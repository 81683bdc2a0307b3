// Names to addresses for the legs that the companion connects by itself, remembered for a bounded time. What asks the DNS is handed in.
// It judges no address: the guard does, at every dial, remembered addresses too.
import type { FaultKind } from '../../shared/fault.ts';
import type { EpochMilliseconds, Milliseconds, Seconds } from '../../shared/units.ts';

/** All addresses of a name, the preferred ones first; never none. Rejects with LookupFailed. */
export type Lookup = (host: string) => Promise<readonly string[]>;

/** What the DNS said of a name. */
export interface FoundAddresses {
  readonly addresses: readonly string[];
  /** How long they hold. */
  readonly ttl: Seconds;
}

/** Asks once, without a memory. Ends within a bounded time; rejects with LookupFailed. */
export type AskDns = (host: string) => Promise<FoundAddresses>;

/** Why a name has no address. dial.ts makes a fault of it, which then says for whom. */
export class LookupFailed extends Error {
  readonly kind: FaultKind;
  /** A short addition that names the server. */
  readonly detail: string | undefined;
  /** The DNS itself said so: there is no such name or no address. Otherwise it could not be asked. */
  readonly definite: boolean;
  /** How long a definite no holds, if the DNS said. */
  readonly ttl: Seconds;

  constructor(
    kind: FaultKind,
    detail: string | undefined,
    more: { readonly definite?: boolean; readonly ttl?: Seconds; readonly cause?: unknown } = {},
  ) {
    super(detail ?? kind, more.cause === undefined ? undefined : { cause: more.cause });
    this.name = 'LookupFailed';
    this.kind = kind;
    this.detail = detail;
    this.definite = more.definite ?? false;
    this.ttl = more.ttl ?? NEGATIVE_FOR;
  }
}

export interface ResolverOptions {
  readonly ask: AskDns;
  /** An answer is kept at least and at most so long, whatever its TTL says; the most wins. */
  readonly minTtl: Seconds;
  readonly maxTtl: Seconds;
  /** So long beyond its time an answer is still used while the DNS cannot be asked; 0 = not at all. */
  readonly serveStale: Seconds;
  /** A clock that never jumps. */
  readonly now?: () => Milliseconds;
  /** The clock on the wall: where it and the other part ways, the machine slept or its clock was set. */
  readonly wallClock?: () => EpochMilliseconds;
  /** Which network the machine is in, as text that changes with it. Looked at now and then. */
  readonly network?: () => string;
}

export interface Resolver {
  readonly lookup: Lookup;
  /** Names that are kept. */
  readonly size: number;
  /** Forgets everything; what is being asked is not kept either. */
  clear(): void;
}

/** Names that are kept; the one asked for longest ago goes first. */
export const MAX_NAMES = 4_096;
/** Different names that may be asked for at once. */
export const MAX_ASKING = 512;
/** The longest that "there is no such name" is believed. */
const NEGATIVE_FOR: Seconds = 5;
/** RFC 9520 §3.2: a failure to ask is remembered for at least a second. */
const FAILURE_FOR: Milliseconds = 1_000;
/** RFC 8767 §5: who waits for the DNS longer than this gets the stale answer. */
const STALE_AFTER: Milliseconds = 1_800;
/** A stale answer is used so long before the DNS is asked again. (RFC 8767 §5 suggests 30 s; a person who has just found the cable waits less.) */
const STALE_FOR: Milliseconds = 5_000;
/** The clocks have parted by more than this: the machine slept, and may have woken in another network. */
const JUMP: Milliseconds = 2_000;
/** How often the network is looked at: it costs more than a lookup that is remembered. */
const LOOK_AROUND_AFTER: Milliseconds = 5_000;

interface Kept {
  readonly answer: readonly string[] | LookupFailed;
  freshUntil: Milliseconds;
  /** Of use until then if nothing better can be had. */
  readonly staleUntil: Milliseconds;
}

/** A bounded memory in front of the DNS. Lookups of one name at the same time are one question. */
export function makeResolver(options: ResolverOptions): Resolver {
  const { ask, now = () => performance.now(), wallClock = Date.now, network = () => '' } = options;
  const kept = new Map<string, Kept>();
  const asking = new Map<string, Promise<readonly string[]>>();
  let apart = wallClock() - now();
  let place: string | null = null;
  let lookAroundAt = -Infinity;
  /** Counts how often all was forgotten: an answer to an older question is not kept. */
  let age = 0;

  function clear(): void {
    kept.clear();
    asking.clear();
    age++;
  }

  /** After sleep or in another network the same names may have other addresses. */
  function noticeMove(at: Milliseconds): void {
    const before = apart;
    apart = wallClock() - at;
    if (Math.abs(apart - before) > JUMP) clear();
    if (at < lookAroundAt) return;
    lookAroundAt = at + LOOK_AROUND_AFTER;
    const here = network();
    if (place !== null && place !== here) clear();
    place = here;
  }

  function keep(host: string, one: Kept): void {
    kept.delete(host);
    if (kept.size >= MAX_NAMES) kept.delete(kept.keys().next().value!);
    kept.set(host, one);
  }

  function start(host: string): Promise<readonly string[]> {
    if (asking.size >= MAX_ASKING)
      return Promise.reject(new LookupFailed('connection_limit_reached', 'too many names are being looked up'));
    const mine = age;
    const answer = ask(host)
      .then(
        found => {
          const lifetime = Math.min(options.maxTtl, Math.max(options.minTtl, found.ttl)) * 1000;
          const until = now() + lifetime;
          if (mine === age)
            keep(host, {
              answer: found.addresses,
              freshUntil: until,
              staleUntil: until + options.serveStale * 1000,
            });
          return found.addresses;
        },
        (error: unknown) => {
          const failed =
            error instanceof LookupFailed ? error : new LookupFailed('dns_error', 'the lookup broke', { cause: error });
          if (mine !== age) throw failed;
          const at = now();
          const old = kept.get(host);
          if (!failed.definite && old && !(old.answer instanceof LookupFailed) && at < old.staleUntil) {
            old.freshUntil = at + STALE_FOR;
            return old.answer;
          }
          const until = at + (failed.definite ? Math.min(failed.ttl, NEGATIVE_FOR) * 1000 : FAILURE_FOR);
          keep(host, { answer: failed, freshUntil: until, staleUntil: 0 });
          throw failed;
        },
      )
      .finally(() => {
        if (asking.get(host) === answer) asking.delete(host);
      });
    asking.set(host, answer);
    return answer;
  }

  /** RFC 8767 §5: the new answer if it comes soon, else the old one, while the question goes on. */
  function soon(fresh: Promise<readonly string[]>, stale: readonly string[]): Promise<readonly string[]> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(resolve, STALE_AFTER, stale);
      fresh.then(resolve, reject).finally(() => clearTimeout(timer));
    });
  }

  return {
    async lookup(host) {
      const at = now();
      noticeMove(at);
      const one = kept.get(host);
      if (one !== undefined && at < one.freshUntil) {
        kept.delete(host);
        kept.set(host, one);
        if (one.answer instanceof LookupFailed) throw one.answer;
        return one.answer;
      }
      const fresh = asking.get(host) ?? start(host);
      if (one === undefined || one.answer instanceof LookupFailed || at >= one.staleUntil) return fresh;
      return soon(fresh, one.answer);
    },
    get size() {
      return kept.size;
    },
    clear,
  };
}
