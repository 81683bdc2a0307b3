// Requests for which no client waits: how many there may be at once, and how long each may take. Nobody leaves who could end them.
import { Fault } from '../../shared/fault.ts';
import type { Bytes, Milliseconds } from '../../shared/units.ts';
import type { BodySource } from '../message/message.ts';

/** Requests without a client at once; one more is not made. */
const MAX_BEHIND = 64;
/** So long one may take, its body included. */
const WITHIN: Milliseconds = 60_000;

/** One such request, from its beginning to `end`. */
export interface Turn {
  readonly signal: AbortSignal;
  /** Hears, once, that its time is over. */
  whenOver: ((fault: Fault) => void) | null;
  end(): void;
}

export class Behind {
  private readonly turns = new Set<AbortController>();

  /** Null when there are too many. */
  begin(): Turn | null {
    if (this.turns.size >= MAX_BEHIND) return null;
    const controller = new AbortController();
    const { signal } = controller;
    const clock = setTimeout(() => controller.abort(new Fault('connection_timeout', { detail: TOO_LONG })), WITHIN);
    clock.unref();
    this.turns.add(controller);
    const turn: Turn = {
      signal,
      whenOver: null,
      end: () => {
        clearTimeout(clock);
        turn.whenOver = null;
        this.turns.delete(controller);
      },
    };
    signal.addEventListener('abort', () => turn.whenOver?.(signal.reason as Fault), { once: true });
    return turn;
  }

  /** Ends all of them. */
  close(): void {
    for (const one of this.turns) one.abort(new Fault('downstream_gone'));
  }
}

const TOO_LONG = `${WITHIN / 1000} s for what nobody waits for`;

/** Reads a body to its end for whoever reads along. Throws what broke it off. */
export function drain(body: BodySource, turn: Turn, counts: { bytesDown: Bytes }): Promise<void> {
  return new Promise((resolve, reject) => {
    turn.whenOver = fault => {
      body.cancel();
      reject(fault);
    };
    body.start({
      write(chunk) {
        counts.bytesDown += chunk.length;
        return true;
      },
      end: () => resolve(),
      fail: error => reject(error instanceof Fault ? error : new Fault('http_response_incomplete', { cause: error })),
    });
  });
}
