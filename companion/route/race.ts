// Two chains at once: the second joins in after a head start, and whichever stands first carries the request; the other is closed. Nothing of a request goes
// out on a chain before it has claimed it, so nothing is ever sent twice.
import { calledOff } from '../../shared/fault.ts';
import type { Milliseconds } from '../../shared/units.ts';
import type { Dial, Dialled, Try } from '../rooms.ts';

/** What is written of a try that was closed because the other stood first: it is no failure. */
export const LOST = 'Another chain stood first.';

/** How a try ended. */
export type Ended<T> = { readonly one: Try; readonly value: T } | { readonly one: Try; readonly error: unknown };

/** A try that runs. */
export interface Racer<T> {
  readonly one: Try;
  /** Never rejects. */
  readonly ended: Promise<Ended<T>>;
  /** Ends it, if it has not ended. */
  readonly close: () => void;
}

/**
 * Starts the better chain, and the other when that has had its head start: only where the attempt says that it may (Try.mayRace), and where the first has
 * not got through by a connection that stood already. Fulfilled with those that ended by themselves, in that order: whatever came of the last one is
 * what came of the race. `leadsOn` says whether the other may still run when one has failed. Who has lost is closed, and not among them.
 */
export async function raceTwo<T>(
  start: (which: 'first' | 'second') => Racer<T>,
  leadsOn: (ended: Ended<T>) => boolean,
  headStart: Milliseconds,
): Promise<Ended<T>[]> {
  const first = start('first');
  if (first.one.mayRace !== true || isThrough(first.one)) return [await first.ended];
  const early = await within(headStart, first.ended);
  if (early !== null) return [early];
  if (isThrough(first.one)) return [await first.ended];

  let winner: Racer<T> | null = null;
  const wins = (racer: Racer<T>, other: Racer<T>) => {
    if (winner === null) {
      winner = racer;
      other.close();
    }
    return winner === racer;
  };
  const second = start('second');
  first.one.claim = () => wins(first, second);
  second.one.claim = () => wins(second, first);
  if (isThrough(second.one)) wins(second, first);

  const ended: Ended<T>[] = [];
  let open = [first, second];
  while (open.length > 0) {
    const next = await Promise.race(open.map(racer => racer.ended));
    const racer = next.one === first.one ? first : second;
    open = open.filter(other => other !== racer);
    if (winner !== null && racer !== winner) continue;
    ended.push(next);
    if ('value' in next || winner !== null || !leadsOn(next)) {
      for (const other of open) other.close();
      break;
    }
  }
  return ended;
}

/** Whether its request may be on its way already. */
const isThrough = ({ stage }: Try) => stage === 'response' || stage === 'reused';

/** What comes of it in time, or null. */
async function within<T>(time: Milliseconds, promise: Promise<T>): Promise<T | null> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<null>(resolve => (timer = setTimeout(resolve, time, null)));
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** A dial by which a try claims the request when its chain stands. Who comes too late is closed. */
export function claiming(dial: Dial): Dial {
  return (one, target, absolute) => {
    const dialling = dial(one, target, absolute);
    return one.claim === undefined ? dialling : dialling.then(dialled => claimed(one, dialled));
  };
}

function claimed(one: Pick<Try, 'claim' | 'signal'>, dialled: Dialled): Dialled {
  if (one.claim!()) return dialled;
  dialled.socket.destroy();
  throw calledOff(one.signal.reason);
}
