// Collects all garbage, in a process that was not started with a flag for it.
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

setFlagsFromString('--expose-gc');
const gc = runInNewContext('gc') as () => void;

/** Full collections: the second one waits for what the first has found to be swept. */
export function collect(): void {
  gc();
  gc();
}
