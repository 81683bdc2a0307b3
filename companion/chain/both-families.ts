// IPv6 and IPv4 addresses of a name, asked for in parallel (RFC 8305 §3).
import type { Milliseconds, Seconds } from '../../shared/units.ts';
import { type Family, isAskable, type Question } from './dns-message.ts';
import { type AskDns, type FoundAddresses, LookupFailed } from './resolver.ts';

/** Asks one question; ends within a bounded time. Rejects with LookupFailed, a definite one where there is no address. */
export type AskFamily = (question: Question) => Promise<FoundAddresses>;

/** Once one family has addresses, the other may still take so long: IPv6 is a matter of speed (RFC 8305 §3), without IPv4 many could not connect. */
const PATIENCE: Record<Family, Milliseconds> = { AAAA: 50, A: 2_000 };
/** An answer without the family that was late is kept only so long. */
const HALF_TTL: Seconds = 30;

/** Both families as one question, IPv6 first; which of them stands first is for the dial to find out. `localhost` is never asked (RFC 6761 §6.3). */
export function askBothFamilies(ask: AskFamily): AskDns {
  return async host => {
    if (host === 'localhost' || host.endsWith('.localhost')) return { addresses: ['127.0.0.1', '::1'], ttl: HALF_TTL };
    if (!isAskable(host)) throw new LookupFailed('dns_error', 'no name can be so long', { definite: true });
    const outcomes: Partial<Record<Family, FoundAddresses | LookupFailed>> = {};
    await new Promise<void>(resolve => {
      let timer: NodeJS.Timeout | undefined;
      const settle = (family: Family, outcome: FoundAddresses | LookupFailed) => {
        outcomes[family] = outcome;
        const other = family === 'A' ? 'AAAA' : 'A';
        if (outcomes[other] !== undefined) {
          clearTimeout(timer);
          resolve();
        } else if (!(outcome instanceof LookupFailed)) timer = setTimeout(resolve, PATIENCE[other]);
      };
      for (const family of ['AAAA', 'A'] as const)
        ask({ host, family }).then(
          found => settle(family, found),
          (error: unknown) => settle(family, asFailure(error)),
        );
    });
    const { AAAA, A } = outcomes;
    const found = [AAAA, A].filter(one => one !== undefined && !(one instanceof LookupFailed)) as FoundAddresses[];
    if (found.length > 0) {
      const ttls = found.map(one => one.ttl);
      // A family that failed or was late is asked for again soon; one that is not there is not missed.
      const whole = [AAAA, A].every(one => one !== undefined && (!(one instanceof LookupFailed) || one.definite));
      if (!whole) ttls.push(HALF_TTL);
      return { addresses: found.flatMap(one => one.addresses), ttl: Math.min(...ttls) };
    }
    const failures = [A, AAAA] as LookupFailed[];
    throw failures.find(one => !one.definite) ?? failures[0]!;
  };
}

function asFailure(error: unknown): LookupFailed {
  return error instanceof LookupFailed ? error : new LookupFailed('dns_error', 'the lookup broke', { cause: error });
}
