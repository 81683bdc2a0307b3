// Asks this system's resolver (getaddrinfo): its hosts file, its servers, its search domains. It tells no TTL, cannot be called off, and runs
// only a few questions at a time, so what waits for it is bounded here: when the DNS hangs, those who have waited long enough are told so.
import { promises as dns } from 'node:dns';
import type { Milliseconds, Seconds } from '../../shared/units.ts';
import { type AskDns, LookupFailed } from './resolver.ts';

/** getaddrinfo says no TTL; an answer is believed so long. */
export const SYSTEM_TTL: Seconds = 30;
/**
 * Of Node's threads (4, or as many as the environment said at the start) half may wait in getaddrinfo. More handed to it would only stand in a line that
 * nobody can leave.
 */
const atOnce = () => Math.ceil(Math.min(1_024, Math.max(1, Number(process.env['UV_THREADPOOL_SIZE'] ?? 4) || 1)) / 2);

/** The addresses of a name in the system's order, or its error. */
export type SystemLookup = (host: string) => Promise<readonly string[]>;

const getAddresses: SystemLookup = async host =>
  (await dns.lookup(host, { all: true, order: 'verbatim' })).map(one => one.address);

/** Lookups by the system; each is answered within `timeout`, also while an earlier one hangs. */
export function makeSystemAsk(timeout: Milliseconds, lookup: SystemLookup = getAddresses, ttl = SYSTEM_TTL): AskDns {
  const most = atOnce();
  const waiting = new Set<() => void>();
  let running = 0;

  function ended(): void {
    running--;
    const [next] = waiting;
    if (next === undefined) return;
    waiting.delete(next);
    next();
  }

  return host =>
    new Promise((resolve, reject) => {
      const run = () => {
        running++;
        lookup(host)
          .then(
            addresses =>
              addresses.length > 0
                ? resolve({ addresses, ttl })
                : reject(new LookupFailed('dns_error', 'it has no address', { definite: true })),
            (error: unknown) => reject(failureOf(error)),
          )
          .finally(() => {
            clearTimeout(timer);
            ended();
          });
      };
      const timer = setTimeout(() => {
        waiting.delete(run);
        reject(new LookupFailed('dns_timeout', ASKED));
      }, timeout);
      if (running < most) run();
      else waiting.add(run);
    });
}

const ASKED = "asked: this system's resolver";

function failureOf(error: unknown): LookupFailed {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  switch (code) {
    case 'ENOTFOUND':
      return new LookupFailed('dns_error', undefined, { definite: true, cause: error });
    case 'ENODATA':
      return new LookupFailed('dns_error', 'it has no address', { definite: true, cause: error });
    case 'EAI_AGAIN':
    case 'ETIMEOUT':
      return new LookupFailed('dns_timeout', ASKED, { cause: error });
    case 'EMFILE':
    case 'ENFILE':
      return new LookupFailed('connection_limit_reached', 'this system allows no more open files', { cause: error });
    default:
      return new LookupFailed('dns_error', `this system's resolver says ${String(code ?? error)}`, { cause: error });
  }
}
