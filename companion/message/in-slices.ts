// Long work beside traffic: a slice of it, then whatever else waits, then the next.
import type { Milliseconds } from '../../shared/units.ts';

/** A slice ends after so long, or a step later. */
const SLICE: Milliseconds = 5;

/** What the steps give in the end. Throws what they throw. */
export async function inSlices<T>(steps: Generator<undefined, T>): Promise<T> {
  for (;;) {
    const began = performance.now();
    do {
      const step = steps.next();
      if (step.done) return step.value;
    } while (performance.now() - began < SLICE);
    await new Promise(resolve => setImmediate(resolve));
  }
}
