// When enough chains have been tried, and what is said of them.
import { describe, expect, test } from 'vitest';
import type { Chain } from '../../../companion/rooms.ts';
import { type Failure, MAX_ATTEMPTS, stopAfter, verdictOf } from '../../../companion/route/survive.ts';
import type { Attempt } from '../../../shared/exchange.ts';
import { Fault, type FaultKind } from '../../../shared/fault.ts';

const chain = (...names: string[]): Chain => ({
  key: names.join('>'),
  hops: names.map(name => ({ name, kind: 'http', host: `${name}.test`, port: 3128 })),
});
const failure = (one: Chain, kind: FaultKind, hop = one.hops.at(-1)?.name): Failure => ({
  chain: one,
  fault: new Fault(kind, { hop }),
});
const attempts = (failures: readonly Failure[]): Attempt[] =>
  failures.map(({ chain: { hops }, fault }) => ({
    chain: hops.map(hop => hop.name),
    outcome: fault.kind,
    stage: 'tunnel',
    hops: [],
    took: 0,
  }));

describe('when it is enough', () => {
  test('two exits that know nothing of each other and cannot reach the target: it is the target', () => {
    const one = failure(chain('a'), 'hop_could_not_reach');
    expect(stopAfter([one])).toBeNull();
    expect(stopAfter([one, failure(chain('b'), 'hop_could_not_reach')])).toBe('agreed');
    expect(
      stopAfter([one, failure(chain('c'), 'connection_refused'), failure(chain('b'), 'hop_could_not_reach')]),
    ).toBe('agreed');
  });

  test('the same exit behind another hop, and a hop that cannot reach the next, say nothing of the target', () => {
    const one = failure(chain('a'), 'hop_could_not_reach');
    expect(stopAfter([one, failure(chain('first', 'a'), 'hop_could_not_reach')])).toBeNull();
    expect(stopAfter([one, failure(chain('b', 'c'), 'hop_could_not_reach', 'b')])).toBeNull();
  });

  test('the policy of two hops is two policies', () => {
    expect(stopAfter([failure(chain('a'), 'hop_refused'), failure(chain('b'), 'hop_refused')])).toBeNull();
  });

  test('so many chains have failed', () => {
    const many = Array.from({ length: MAX_ATTEMPTS }, (_, i) => failure(chain(`hop-${i}`), 'connection_refused'));
    expect(stopAfter(many.slice(1))).toBeNull();
    expect(stopAfter(many)).toBe('enough');
  });
});

describe('what is said', () => {
  test('the fault that tells most, with who said it, what it looks like and every attempt', () => {
    const failures = [failure(chain('away'), 'connection_refused'), failure(chain('office', 'squid'), 'hop_refused')];
    const fault = verdictOf(failures, attempts(failures));
    expect(fault).toMatchObject({ kind: 'hop_refused', hop: 'squid', verdict: 'proxy', sign: 'policy' });
    expect(fault.detail).toBe('all 2 chains failed: away: connection_refused, office > squid: hop_refused');
  });

  test('why no more were tried', () => {
    const failures = [failure(chain('a'), 'hop_could_not_reach'), failure(chain('b'), 'hop_could_not_reach')];
    expect(verdictOf(failures, attempts(failures), 'agreed').detail).toMatch(
      /^2 chains tried, and two of them say the same: a: hop_could_not_reach, b:/,
    );
    expect(verdictOf(failures, attempts(failures), 'enough').detail).toMatch(
      /^2 chains failed, and no more were tried:/,
    );
  });
});

test.each([
  ['hop_refused', undefined, 'policy'],
  ['hop_refused', 403, 'policy'],
  ['hop_refused', 429, 'rate'],
  ['hop_refused', 511, 'portal'],
  ['hop_refused', 302, 'portal'],
  ['hop_authentication_failed', 407, 'auth'],
  ['hop_could_not_reach', 503, 'unreachable'],
  ['connection_terminated', undefined, 'reset'],
  ['connection_timeout', undefined, 'timeout'],
  ['tls_alert_received', undefined, 'tls'],
  ['downstream_gone', undefined, undefined],
] as const)('a %s with the status %s looks like: %s', (kind, receivedStatus, sign) => {
  expect(new Fault(kind, { receivedStatus }).sign).toBe(sign);
});
