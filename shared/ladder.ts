// The attempts of one exchange in words: what the log prints and the popup shows of each chain that was tried.
import type { Attempt } from './exchange.ts';

const SIGNS: Readonly<Record<string, string>> = {
  policy: 'refused (policy)',
  rate: 'refused (too many requests)',
  auth: 'refused (login)',
  unreachable: 'could not be reached',
  reset: 'broke off',
  tls: 'failed (TLS)',
  poisoned: 'led astray (DNS)',
  portal: 'stopped by a sign-in page',
  timeout: 'timed out',
};
/** Outcomes that say more than their sign. */
const TELLING: Readonly<Record<string, string>> = {
  hop_not_trusted: 'is not the server that is meant',
  hop_login_unusable: 'no way to log in',
};
const OUTCOMES: Readonly<Record<string, string>> = {
  hop_refused: 'refused (policy)',
  hop_authentication_failed: 'refused (login)',
  hop_could_not_reach: 'could not reach it',
  connection_refused: 'not running',
  connection_terminated: 'broke off',
  connection_timeout: 'timed out',
  connection_read_timeout: 'timed out',
  http_response_timeout: 'timed out',
  dns_timeout: 'timed out (DNS)',
  dns_error: 'name not found',
};
/** Where a try ended. */
export const STAGES: Readonly<Record<string, string>> = {
  connect: 'connecting',
  greeting: 'logging in',
  tunnel: 'asking for the tunnel',
  response: 'waiting for the answer',
  reused: 'on a kept connection',
};

/** `squid > tor`; the chain of zero hops is the companion itself. */
export function chainText(chain: readonly string[], arrow = ' > '): string {
  return chain.length === 0 ? 'companion' : chain.join(arrow);
}

/** How one attempt went, in a few words: `ok`, `refused (policy)`, `timed out`. An answer that was passed on though it looks like a no says so. */
export function outcomeText({ outcome, sign, verdict }: Pick<Attempt, 'outcome' | 'sign' | 'verdict'>): string {
  if (outcome === 'ok') return sign !== undefined && verdict !== undefined ? `a no, ${whoText(verdict)}` : 'ok';
  const known = TELLING[outcome] ?? (sign === undefined ? undefined : SIGNS[sign]);
  return known ?? OUTCOMES[outcome] ?? outcome.replaceAll('_', ' ');
}

/** Whose no it was. */
export function whoText(verdict: NonNullable<Attempt['verdict']>): string {
  return verdict === 'proxy' ? 'said by the proxy' : verdict === 'origin' ? 'said by the site' : 'nobody knows by whom';
}

/** All of them on one line: `office: refused (policy) → squid > tor: ok, 132 ms`. */
export function ladderText(attempts: readonly Attempt[]): string {
  return attempts
    .map((attempt, i) => {
      const took = i === attempts.length - 1 ? `, ${Math.round(attempt.took)} ms` : '';
      return `${chainText(attempt.chain)}: ${outcomeText(attempt)}${took}`;
    })
    .join(' → ');
}
