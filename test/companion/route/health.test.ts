// How hops fare by what traffic shows, and what of a failure is a hop's and what one site's; on a clock of the test's.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { DOWN_FOR, MAX_HISTORY } from '../../../companion/route/health.ts';
import { REFUSED_FOR } from '../../../companion/route/outcome-memory.ts';
import { makePickMemory, orderOf } from '../../../companion/route/order.ts';
import { resolveRoutes } from '../../../companion/route/resolve.ts';
import { makeStickyMemory } from '../../../companion/route/sticky.ts';
import type { Chain, ChainKnowledge, ResolvedRoute } from '../../../companion/rooms.ts';
import { ROUTE_DEFAULTS } from '../../../shared/config/routes.ts';
import type { Attempt, HopTrace } from '../../../shared/exchange.ts';
import { Fault, type FaultKind, type FaultOptions } from '../../../shared/fault.ts';
import { startClock } from '../../support/clock.ts';
import { hopOf } from '../../support/with-proxy.ts';
import { knowledgeOf } from '../../support/knowledge.ts';

/** The order of a plain route of these chains. */
const orderBy = (knowledge: ChainKnowledge, site: string, chains: readonly Chain[]) =>
  orderOf({ name: 'r', chains, behindHops: true, route: null }, site, knowledge, 0, makePickMemory(makeStickyMemory()));

const chainOf = (...names: string[]): Chain => ({
  key: names.join('>'),
  hops: names.map((name, i) => hopOf(name, i + 1)),
});
const office = chainOf('office');
const far = chainOf('office', 'tor');
const squid = chainOf('squid');
const stepsOf = (...took: number[]): HopTrace[] => took.map(one => ({ hop: 'x', at: 'x:1', took: one }));

function start() {
  const clock = startClock();
  const knowledge = knowledgeOf(clock.now);
  const fail = (
    site: string | null,
    chain: Chain,
    kind: FaultKind,
    stage: Attempt['stage'],
    steps: HopTrace[] = [],
    options: FaultOptions = { hop: chain.hops[0]?.name },
  ) => knowledge.failed(site, chain, { fault: new Fault(kind, options), stage, steps });
  const down = () => [office, far, squid].filter(chain => knowledge.isDown(chain)).map(({ key }) => key);
  return { clock, knowledge, fail, down };
}

describe('a hop is down', () => {
  test('for every site and every chain that begins with it, when it cannot be connected to', () => {
    const { fail, down, knowledge, clock } = start();
    fail('a.test', office, 'connection_refused', 'connect');
    expect(down()).toEqual(['office', 'office>tor']);
    expect(knowledge.isLast('a.test', office)).toBe(false);
    clock.advance(DOWN_FOR);
    expect(down()).toEqual([]);
  });

  test('when it does not let us in, and when the hop before it cannot reach it', () => {
    const { fail, down } = start();
    fail('a.test', far, 'hop_could_not_reach', 'tunnel', stepsOf(1));
    expect(down()).toEqual(['office>tor']);
    fail('a.test', squid, 'hop_authentication_failed', 'tunnel', stepsOf(1));
    expect(down()).toEqual(['office>tor', 'squid']);
  });

  test('for nobody, when it says no, or cannot reach the target: that is a matter of the site', () => {
    const { fail, down, knowledge } = start();
    fail('a.test', office, 'hop_refused', 'tunnel', stepsOf(1));
    fail('a.test', far, 'hop_refused', 'tunnel', stepsOf(1));
    fail('a.test', squid, 'hop_could_not_reach', 'tunnel', stepsOf(1));
    expect(down()).toEqual([]);
    for (const chain of [office, far, squid]) {
      expect(knowledge.isLast('a.test', chain)).toBe(true);
      expect(knowledge.isLast('b.test', chain)).toBe(false);
    }
  });

  test('until it works: by a connection, or by one that stood before', () => {
    const { fail, down, knowledge } = start();
    fail('a.test', office, 'connection_refused', 'connect');
    knowledge.worked('b.test', office, 5, stepsOf(2, 3));
    expect(down()).toEqual([]);
    fail('a.test', office, 'connection_refused', 'connect');
    knowledge.worked('b.test', office, 5, []);
    expect(down()).toEqual([]);
  });

  test('until it says no to something, or leads to another that is down: whoever was met on the way is there', () => {
    const { fail, down } = start();
    fail('a.test', office, 'connection_refused', 'connect');
    fail('a.test', office, 'hop_refused', 'tunnel', stepsOf(1));
    expect(down()).toEqual([]);
    fail('a.test', office, 'connection_refused', 'connect');
    fail('a.test', far, 'hop_could_not_reach', 'tunnel', stepsOf(1));
    expect(down()).toEqual(['office>tor']);
  });

  test('and after its time one request tries it, while others keep to what works', () => {
    const { fail, down, knowledge, clock } = start();
    fail('a.test', office, 'connection_timeout', 'connect');
    clock.advance(DOWN_FOR);
    expect(knowledge.healthOf(office).state).toBe('probing');
    knowledge.trying('a.test', office);
    expect(down()).toEqual(['office', 'office>tor']);
    fail('a.test', office, 'connection_timeout', 'connect');
    expect(knowledge.healthOf(office)).toMatchObject({ state: 'down', failures: 2 });
    clock.advance(DOWN_FOR);
    expect(down()).toEqual([]);
  });
});

describe('the account of a hop', () => {
  test('holds what came of connections lately, and how long they took', () => {
    const { fail, knowledge, clock } = start();
    knowledge.worked(null, far, 9, stepsOf(10, 20, 30));
    knowledge.worked(null, far, 9, stepsOf(14, 20, 30));
    fail(null, far, 'connection_refused', 'connect');
    const at = clock.now();
    expect(knowledge.latency(far)).toBe(61);
    expect(knowledge.latency(office)).toBe(11);
    expect(knowledge.latency(squid)).toBeNull();
    expect(knowledge.healthOfHops()).toMatchObject([
      {
        hop: ['office'],
        circuit: 'open',
        until: at + DOWN_FOR,
        failures: 1,
        latency: 11,
        lastTook: 14,
        history: [
          { at, outcome: 'ok', took: 10 },
          { at, outcome: 'ok', took: 14 },
          { at, outcome: 'connection_refused', took: null },
        ],
      },
      { hop: ['office', 'tor'], circuit: 'closed', until: null, latency: 20 },
    ]);
    expect(knowledge.healthOf(far)).toMatchObject({ state: 'down', latency: 61, failures: 1, failedAt: at });
    expect(knowledge.healthOf(far).reason).toContain('refused the connection');
    expect(knowledge.healthOf(squid)).toMatchObject({ state: 'unknown', latency: null, failures: 0 });
  });

  test('tells the latency of a chain whose last hop gets whole requests, too', () => {
    const { knowledge } = start();
    knowledge.worked(null, far, 90, stepsOf(10));
    expect([knowledge.latency(far), knowledge.latency(office)]).toEqual([null, 10]);
    knowledge.worked(null, far, 90, stepsOf(10, 20));
    expect(knowledge.latency(far)).toBe(30);
    expect(knowledge.healthOf(office)).toMatchObject({ state: 'up', latency: 10 });
    knowledge.worked(null, far, 90, stepsOf(10, 20, 30));
    expect(knowledge.latency(far)).toBe(60);
  });

  test('is bounded', () => {
    const { knowledge } = start();
    for (let i = 0; i < MAX_HISTORY + 9; i++) knowledge.worked(null, office, 1, stepsOf(i, 1));
    const [{ history } = { history: [] }] = knowledge.healthOfHops();
    expect(history).toHaveLength(MAX_HISTORY);
    expect(history.at(-1)).toMatchObject({ took: MAX_HISTORY + 8 });
  });

  test('takes in what other workers have seen, and opens no circuit by it', () => {
    const { knowledge } = start();
    const attempt: Attempt = { chain: ['office'], outcome: 'ok', stage: 'tunnel', hops: stepsOf(7, 8), took: 15 };
    knowledge.observe(office, attempt);
    knowledge.observe(office, {
      ...attempt,
      outcome: 'connection_refused',
      stage: 'connect',
      sign: 'unreachable',
      hops: [],
    });
    expect(knowledge.healthOf(office)).toMatchObject({ state: 'up', latency: 15, failures: 0 });
    expect(knowledge.healthOfHops()[0]!.history.map(({ outcome }) => outcome)).toEqual(['ok', 'connection_refused']);
  });
});

test('what is known of a hop goes when its name means another; the rest stays', () => {
  const { knowledge, fail, down } = start();
  knowledge.worked(null, far, 3, stepsOf(1, 1, 1));
  fail('a.test', far, 'hop_refused', 'tunnel', stepsOf(1, 1));
  fail('a.test', squid, 'connection_refused', 'connect');
  knowledge.forget(new Set(['tor']));
  expect(knowledge.healthOfHops().map(({ hop }) => hop)).toEqual([['office'], ['squid']]);
  expect([knowledge.isLast('a.test', far), knowledge.latency(far), down()]).toEqual([false, null, ['squid']]);
  knowledge.forget(new Set(['squid']));
  expect(down()).toEqual([]);
});

test('what one worker finds out of a hop orders the chains of another', () => {
  const { clock } = start();
  const told: unknown[] = [];
  const second = knowledgeOf(clock.now);
  const first = knowledgeOf(clock.now, [], news => {
    told.push(news);
    second.hear(news);
  });
  const fault = new Fault('connection_refused', { hop: 'office' });
  first.failed('a.test', office, { fault, stage: 'connect', steps: [] });
  expect(second.isDown(far)).toBe(true);
  expect(second.all()).toEqual([{ outcome: 'link-failed', link: 'office', lifetime: DOWN_FOR }]);
  first.worked('a.test', office, 1, []);
  expect(second.isDown(far)).toBe(false);
  expect(told).toHaveLength(2);
});

describe('property', () => {
  const hops = Object.fromEntries(
    ['office', 'tor', 'squid'].map((name, i) => [name, { kind: 'http', host: '192.0.2.1', port: i + 1 } as const]),
  );
  const route: ResolvedRoute = resolveRoutes({
    hops,
    routes: { r: { ...ROUTE_DEFAULTS, chains: [['office'], ['office', 'tor'], ['squid'], []] } },
  }).get('r')!;
  const failure = fc.record({
    chain: fc.constantFrom(...route.chains),
    kind: fc.constantFrom<FaultKind>(
      'hop_refused',
      'hop_could_not_reach',
      'connection_refused',
      'connection_timeout',
      'tls_protocol_error',
    ),
    stage: fc.constantFrom<Attempt['stage']>('connect', 'greeting', 'tunnel', 'response', 'reused'),
    steps: fc.nat(3),
    worked: fc.boolean(),
    wait: fc.nat(REFUSED_FOR),
  });

  test('no order loses a chain or adds one, and after a while the file has its order back', () => {
    fc.assert(
      fc.property(fc.array(failure, { maxLength: 30 }), failures => {
        const { clock, knowledge, fail } = start();
        for (const { chain, kind, stage, steps, worked, wait } of failures) {
          knowledge.trying('a.test', chain);
          if (worked) knowledge.worked('a.test', chain, 1, stepsOf(1, 1, 1, 1).slice(0, chain.hops.length + 1));
          else fail('a.test', chain, kind, stage, stepsOf(1, 1, 1).slice(0, steps));
          const order = orderBy(knowledge, 'a.test', route.chains);
          expect(new Set(order)).toEqual(new Set(route.chains));
          expect(order).toHaveLength(route.chains.length);
          clock.advance(wait);
        }
        clock.advance(24 * 60 * 60_000);
        expect(orderBy(knowledge, 'a.test', route.chains)).toEqual(route.chains);
      }),
    );
  });

  test("a policy's no to one site leaves the order of all others alone", () => {
    fc.assert(
      fc.property(fc.array(failure, { maxLength: 30 }), failures => {
        const { clock, knowledge, fail } = start();
        for (const { chain, stage, steps, wait } of failures) {
          if (chain.hops.length > 0) fail('a.test', chain, 'hop_refused', stage, stepsOf(1, 1, 1).slice(0, steps));
          expect(orderBy(knowledge, 'b.test', route.chains)).toEqual(route.chains);
          clock.advance(wait);
        }
      }),
    );
  });
});
