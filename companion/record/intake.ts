// Where exchanges that several processes have recorded come together: each process counts its own from 1, the log wants one row of numbers, and a tunnel
// must be known again when it ends.
import type { Exchange } from '../../shared/exchange.ts';
import type { EpochMilliseconds } from '../../shared/units.ts';

export interface IntakeParts {
  readonly opened: (exchange: Exchange) => void;
  readonly moved: (exchange: Exchange) => void;
  readonly ended: (exchange: Exchange) => void;
  readonly now: () => EpochMilliseconds;
}

/** The records of one process. */
export interface Intake {
  opened(exchange: Exchange): void;
  /** Bytes have gone through an open tunnel. */
  moved(exchange: Exchange): void;
  ended(exchange: Exchange): void;
  /** The process is gone: its tunnels have ended. */
  gone(): void;
}

/** Gives back how to open an intake for one more process. */
export function makeIntakes(parts: IntakeParts): () => Intake {
  let last = 0;
  return () => {
    /** Open tunnels, by the number that their process knows them by. */
    const open = new Map<number, Exchange>();
    return {
      opened(exchange) {
        const known = { ...exchange, id: ++last };
        open.set(exchange.id, known);
        parts.opened(known);
      },
      moved({ id, bytesUp, bytesDown }) {
        const known = open.get(id);
        if (known) parts.moved(Object.assign(known, { bytesUp, bytesDown }));
      },
      ended(exchange) {
        const known = open.get(exchange.id);
        open.delete(exchange.id);
        // The log has the record of an open tunnel already: what is new goes into that one.
        parts.ended(known ? Object.assign(known, exchange, { id: known.id }) : { ...exchange, id: ++last });
      },
      gone() {
        for (const exchange of open.values()) {
          parts.ended(
            Object.assign(exchange, {
              took: Math.max(0, parts.now() - exchange.startedAt),
              fault: 'proxy_internal_error',
              sentence: 'The worker that carried this tunnel has ended.',
            }),
          );
        }
        open.clear();
      },
    };
  };
}
