// How many files this process may have open (`ulimit -n`), and how many connections fit into that: every exchange takes two. What does not fit is never
// begun, for the system's own way of saying no is to close whoever comes.
import { readFileSync } from 'node:fs';
import type { ConfigLimits } from '../../shared/config.ts';

/** Files that are no connections: the program, its libraries, lists, the log, links of extensions; and a reserve. */
const OWN = 48;
/** A process this small could do nothing: it is tried all the same. */
const LEAST = 16;

/** The number that the system allows, or Infinity where it does not say (read once, where there is /proc). */
export function openFilesAllowed(): number {
  try {
    const soft = /^Max open files\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'latin1'))?.[1];
    return soft === undefined ? Infinity : Number(soft);
  } catch {
    return Infinity;
  }
}

/** The limits with `connections` and `pool` no larger than the system allows, and a sentence where that is less than the file says. */
export function fitToOpenFiles(
  limits: ConfigLimits,
  allowed: number,
): { limits: ConfigLimits; warning: string | null } {
  if (allowed === Infinity) return { limits, warning: null };
  const forPool = Math.floor(allowed / 8);
  const forConnections = Math.max(LEAST, Math.floor((allowed - OWN - forPool) / 2));
  if (forConnections >= limits.connections && forPool >= limits.pool) return { limits, warning: null };
  const connections = Math.min(limits.connections, forConnections);
  return {
    limits: { ...limits, connections, pool: Math.min(limits.pool, forPool) },
    warning:
      connections === limits.connections
        ? null
        : `This system allows ${allowed} open files, which is enough for ${connections} connections, not for the ${limits.connections} of limits.connections (ulimit -n raises it).`,
  };
}
