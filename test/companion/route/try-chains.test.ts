// Which chain is tried when, over scripted hops and the real dial; the clock of the outcome memory is handed in.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { makeDial } from '../../../companion/chain/dial.ts';
import { makeAcl } from '../../../companion/guard/acl.ts';
import type { AdmittedTarget, Chain, ResolvedRoute, Try } from '../../../companion/rooms.ts';
import { REFUSED_FOR, UNREACHABLE_FOR } from '../../../companion/route/outcome-memory.ts';
import { HEAD_START, makePickMemory, orderOf } from '../../../companion/route/order.ts';
import { claiming } from '../../../companion/route/race.ts';
import { resolveRoutes } from '../../../companion/route/resolve.ts';
import { makeStickyMemory } from '../../../companion/route/sticky.ts';
import { isSurvivable } from '../../../companion/route/survive.ts';
import { makeTryChains } from '../../../companion/route/try-chains.ts';
import type { Hop } from '../../../shared/config/hops.ts';
import { type Route, ROUTE_DEFAULTS } from '../../../shared/config/routes.ts';
import type { Attempt } from '../../../shared/exchange.ts';
import { Fault, FAULTS, type FaultKind } from '../../../shared/fault.ts';
import { closedPort, startEcho, startHop } from '../../support/hop.ts';
import { knowledgeOf } from '../../support/knowledge.ts';

const guard = { allow: [{ address: '127.0.0.0', prefix: 8 }], connectPorts: [] };

function makeRooms({ routeTimeout = 5_000, hopTimeout = 1_000 } = {}) {
  const dial = claiming(makeDial({ acl: makeAcl({ guard, listeners: () => [] }), hopTimeout }));
  let ahead = 0;
  const now = () => Date.now() + ahead;
  const tryChains = makeTryChains({
    now,
    routeTimeout,
    hopTimeout,
    memory: knowledgeOf(now),
    siteOf: host => host.split('.').slice(-2).join('.'),
  });
  return { tryChains, dial, advance: (time: number) => (ahead += time) };
}

function routeOf(hops: Record<string, Hop>, route: Partial<Route> & Pick<Route, 'chains'>): ResolvedRoute {
  return resolveRoutes({ hops, routes: { r: { ...ROUTE_DEFAULTS, ...route } as Route } }).get('r')!;
}

/** Opens a tunnel by the first chain that stands, and closes it again. */
async function open(
  rooms: ReturnType<typeof makeRooms>,
  route: ResolvedRoute,
  host: string,
  port: number,
  signal = new AbortController().signal,
): Promise<{ attempts: Attempt[]; fault?: Fault; by?: string }> {
  const attempts: Attempt[] = [];
  try {
    const by = await rooms.tryChains(route, host, attempts, signal, async one => {
      one.mayRace = true;
      const { socket } = await rooms.dial(one, { host, port } as AdmittedTarget, false);
      socket.destroy();
      return one.chain.key;
    });
    return { attempts, by };
  } catch (error) {
    return { attempts, fault: error as Fault };
  }
}

const outcomes = (attempts: readonly Attempt[]) =>
  attempts.map(one => `${one.chain.join('>') || 'companion'}: ${one.outcome}`);
const hosts = { 'a.site.test': '127.0.0.1', 'b.site.test': '127.0.0.1', 'other.test': '127.0.0.1' };

describe('the order', () => {
  test('a chain that refuses leads to the next, and both are recorded', async () => {
    await using echo = await startEcho();
    await using refusing = await startHop({ kind: 'http', refuse: 403 });
    await using serving = await startHop({ kind: 'socks5', hosts });
    const route = routeOf({ refusing: refusing.hop, serving: serving.hop }, { chains: [['refusing'], ['serving']] });
    const { by, attempts } = await open(makeRooms(), route, 'a.site.test', echo.port);
    expect(by).toBe('serving');
    expect(outcomes(attempts)).toEqual(['refusing: hop_refused', 'serving: ok']);
    expect(attempts[0]).toMatchObject({
      stage: 'tunnel',
      reason: expect.stringContaining('403'),
      hops: [{ hop: 'refusing' }],
    });
    expect(attempts[1]!.hops.map(step => step.hop)).toEqual(['serving', null]);
  });

  test.each([
    ['http', { refuse: 407 }, 'hop_authentication_failed'],
    ['http', { refuse: 503 }, 'hop_could_not_reach'],
    ['http', { says: 'nonsense\r\n' }, 'hop_protocol_error'],
    ['http', { reset: true }, 'connection_terminated'],
    ['http', { silent: 'always' }, 'connection_timeout'],
    ['socks5', { refuse: 2 }, 'hop_refused'],
    ['socks5', { refuse: 1 }, 'hop_could_not_reach'],
    ['socks5', { credentials: { username: 'x', password: 'y' } }, 'hop_authentication_failed'],
    ['socks5', { closeAfter: 0 }, 'connection_terminated'],
  ] as const)('a hop of kind %s with %j leads on (%s)', async (kind, script, outcome) => {
    await using echo = await startEcho();
    await using bad = await startHop({ kind, ...script });
    await using good = await startHop({ kind: 'http', hosts });
    const { username: _username, password: _password, ...badHop } = bad.hop;
    const { by, attempts } = await open(
      makeRooms(),
      routeOf({ bad: badHop, good: good.hop }, { chains: [['bad'], ['good']] }),
      'a.site.test',
      echo.port,
    );
    expect(by).toBe('good');
    expect(outcomes(attempts)).toEqual([`bad: ${outcome}`, 'good: ok']);
  });

  test('what refused for one site goes last for that site, and for no other', async () => {
    await using echo = await startEcho();
    await using picky = await startHop({
      kind: 'http',
      refuse: 403,
      refuseHosts: ['a.site.test', 'b.site.test'],
      hosts,
    });
    await using second = await startHop({ kind: 'http', hosts });
    const rooms = makeRooms();
    const route = routeOf({ picky: picky.hop, second: second.hop }, { chains: [['picky'], ['second']] });
    await open(rooms, route, 'a.site.test', echo.port);
    expect(outcomes((await open(rooms, route, 'b.site.test', echo.port)).attempts)).toEqual(['second: ok']);
    expect(outcomes((await open(rooms, route, 'other.test', echo.port)).attempts)).toEqual(['picky: ok']);
    rooms.advance(REFUSED_FOR + 1_000);
    expect(outcomes((await open(rooms, route, 'a.site.test', echo.port)).attempts)).toEqual([
      'picky: hop_refused',
      'second: ok',
    ]);
  });

  test('a hop that is away goes last for every site, for half a minute', async () => {
    await using echo = await startEcho();
    await using second = await startHop({ kind: 'http', hosts });
    const rooms = makeRooms();
    const away: Hop = { kind: 'http', host: '127.0.0.1', port: await closedPort() };
    const route = routeOf({ away, second: second.hop }, { chains: [['away'], ['second']] });
    expect(outcomes((await open(rooms, route, 'a.site.test', echo.port)).attempts)).toEqual([
      'away: connection_refused',
      'second: ok',
    ]);
    expect(outcomes((await open(rooms, route, 'other.test', echo.port)).attempts)).toEqual(['second: ok']);
    rooms.advance(UNREACHABLE_FOR + 1_000);
    expect(outcomes((await open(rooms, route, 'other.test', echo.port)).attempts)).toEqual([
      'away: connection_refused',
      'second: ok',
    ]);
  });

  test('a hop that does not take our password is not asked again at once, for any site', async () => {
    await using echo = await startEcho();
    await using locked = await startHop({ kind: 'socks5', credentials: { username: 'x', password: 'y' } });
    await using second = await startHop({ kind: 'http', hosts });
    const rooms = makeRooms();
    const hops = { locked: { ...locked.hop, password: 'wrong' }, second: second.hop };
    const route = routeOf(hops, { chains: [['locked'], ['second']] });
    await open(rooms, route, 'a.site.test', echo.port);
    expect(outcomes((await open(rooms, route, 'other.test', echo.port)).attempts)).toEqual(['second: ok']);
  });

  test('a chain that works again is marked no longer', async () => {
    await using echo = await startEcho();
    await using first = await startHop({ kind: 'http', refuse: 403, hosts });
    await using second = await startHop({ kind: 'http', refuse: 403, hosts });
    const rooms = makeRooms();
    const route = routeOf({ first: first.hop, second: second.hop }, { chains: [['first'], ['second']] });
    await open(rooms, route, 'a.site.test', echo.port);
    second.become({ refuseHosts: [] });
    const again = await open(rooms, route, 'a.site.test', echo.port);
    expect(outcomes(again.attempts)).toEqual(['first: hop_refused', 'second: ok']);
    expect(outcomes((await open(rooms, route, 'a.site.test', echo.port)).attempts)).toEqual(['second: ok']);
  });

  test('when every chain is marked they are all tried in file order, and one that works is as good as new', async () => {
    await using echo = await startEcho();
    await using first = await startHop({ kind: 'http', refuse: 403, hosts });
    await using second = await startHop({ kind: 'http', refuse: 403, hosts });
    const rooms = makeRooms();
    const route = routeOf({ first: first.hop, second: second.hop }, { chains: [['first'], ['second']] });
    await open(rooms, route, 'a.site.test', echo.port);
    expect(outcomes((await open(rooms, route, 'a.site.test', echo.port)).attempts)).toEqual([
      'first: hop_refused',
      'second: hop_refused',
    ]);
    first.become({ refuseHosts: [] });
    second.become({ refuseHosts: [] });
    expect(outcomes((await open(rooms, route, 'a.site.test', echo.port)).attempts)).toEqual(['first: ok']);
    expect(outcomes((await open(rooms, route, 'a.site.test', echo.port)).attempts)).toEqual(['first: ok']);
  });
});

describe('closed and open', () => {
  test('A62: a closed route fails when all its chains fail, and nothing goes direct', async () => {
    await using echo = await startEcho();
    await using refusing = await startHop({ kind: 'http', refuse: 403 });
    const away: Hop = { kind: 'socks5', host: '127.0.0.1', port: await closedPort() };
    const route = routeOf({ away, refusing: refusing.hop }, { chains: [['away'], ['refusing']] });
    const { fault, attempts } = await open(makeRooms(), route, '127.0.0.1', echo.port);
    expect(echo.connections).toBe(0);
    expect(outcomes(attempts)).toEqual(['away: connection_refused', 'refusing: hop_refused']);
    // The no by policy tells more than the hop that is away.
    expect(fault).toMatchObject({ kind: 'hop_refused', hop: 'refusing', receivedStatus: 403 });
    expect(fault!.message).toContain('all 2 chains failed: away: connection_refused, refusing: hop_refused');
  });

  test('an open route ends with the chain of zero hops', async () => {
    await using echo = await startEcho();
    await using refusing = await startHop({ kind: 'http', refuse: 403 });
    const rooms = makeRooms();
    const route = routeOf({ refusing: refusing.hop }, { chains: [['refusing']], else: 'companion' });
    expect(outcomes((await open(rooms, route, '127.0.0.1', echo.port)).attempts)).toEqual([
      'refusing: hop_refused',
      'companion: ok',
    ]);
    // What failed before is still asked before we go direct again.
    expect(outcomes((await open(rooms, route, '127.0.0.1', echo.port)).attempts)).toEqual([
      'refusing: hop_refused',
      'companion: ok',
    ]);
  });

  test('a route of one chain throws its fault as it is; block has none to try', async () => {
    await using refusing = await startHop({ kind: 'http', refuse: 403 });
    const { fault } = await open(
      makeRooms(),
      routeOf({ refusing: refusing.hop }, { chains: [['refusing']] }),
      'a.test',
      443,
    );
    expect(fault!.message).toBe(
      `The hop "refusing" (127.0.0.1:${refusing.port}) refused to carry this request (403 Scripted, asked for a.test:443).`,
    );
    const block = resolveRoutes({ hops: {}, routes: {} }).get('block')!;
    expect((await open(makeRooms(), block, 'a.test', 443)).fault!.kind).toBe('proxy_configuration_error');
  });

  test('property: the chain of zero hops never overtakes a chain that stands before it, and no chain is lost', () => {
    const chain = (key: string): Chain => ({
      key,
      hops: key === 'zero' ? [] : [{ name: key, kind: 'http', host: key, port: 1 }],
    });
    fc.assert(
      fc.property(
        fc.shuffledSubarray(['zero', 'a', 'b', 'c', 'd'], { minLength: 1 }),
        fc.subarray(['zero', 'a', 'b', 'c', 'd']),
        (keys, failed) => {
          const memory = knowledgeOf(() => 0);
          const chains = keys.map(chain);
          const away = new Fault('connection_refused', { hop: 'a' });
          for (const key of failed)
            memory.failed('site', chain(key), { fault: away, stage: key === 'a' ? 'connect' : 'tunnel', steps: [] });
          const route = { name: 'r', chains, behindHops: true, route: null };
          const order = orderOf(route, 'site', memory, 0, makePickMemory(makeStickyMemory())).map(one => one.key);
          expect(order.toSorted()).toEqual(keys.toSorted());
          for (const before of keys.slice(0, Math.max(0, keys.indexOf('zero'))))
            expect(order.indexOf(before)).toBeLessThan(order.indexOf('zero'));
        },
      ),
    );
  });
});

describe('what a route does not survive', () => {
  const kinds = Object.keys(FAULTS) as FaultKind[];

  test('faults of the browser and of our own rules, at any stage', () => {
    for (const kind of kinds.filter(one => FAULTS[one].side !== 'upstream')) {
      for (const stage of ['connect', 'greeting', 'tunnel', 'response', 'reused'] as const)
        expect([kind, isSurvivable(new Fault(kind), { stage, replayable: true })]).toEqual([kind, false]);
    }
  });

  test('R14: once the request has gone out, anything but a no of the hop; where it may be sent twice, silence too', () => {
    const survived = (replayable: boolean) =>
      kinds.filter(kind => isSurvivable(new Fault(kind), { stage: 'response', replayable }));
    expect(survived(false)).toEqual(['hop_refused', 'hop_authentication_failed', 'hop_could_not_reach']);
    expect(survived(true)).toEqual([
      'connection_terminated',
      'connection_read_timeout',
      'tls_alert_received',
      'http_response_timeout',
      'hop_refused',
      'hop_authentication_failed',
      'hop_could_not_reach',
    ]);
  });

  test('a guard that says no stops the route: the second chain is not asked', async () => {
    await using first = await startHop({ kind: 'http' });
    const route = routeOf({ first: first.hop }, { chains: [[], ['first']] });
    const { fault, attempts } = await open(makeRooms(), route, '10.0.0.1', 443);
    expect(fault!.kind).toBe('destination_ip_prohibited');
    expect(attempts.length).toBe(1);
    expect(first.connections).toBe(0);
  });

  test('an error that is no fault is thrown as it is, and recorded as a bug', async () => {
    const attempts: Attempt[] = [];
    const route = routeOf({}, { chains: [[]] });
    const bug = new TypeError('a bug');
    await expect(
      makeRooms().tryChains(route, 'a.test', attempts, new AbortController().signal, () => Promise.reject(bug)),
    ).rejects.toBe(bug);
    expect(attempts[0]).toMatchObject({ outcome: 'proxy_internal_error', reason: 'a bug' });
  });
});

describe('time', () => {
  test('all chains together have the time of the route, then it is a 504', async () => {
    await using one = await startHop({ kind: 'http', silent: 'always' });
    await using two = await startHop({ kind: 'socks5', silent: 'always' });
    await using three = await startHop({ kind: 'http' });
    const hops = { one: one.hop, two: two.hop, three: three.hop };
    const begun = performance.now();
    const { fault, attempts } = await open(
      makeRooms({ routeTimeout: 1_300 }),
      routeOf(hops, { chains: [['one'], ['two'], ['three']] }),
      'a.test',
      443,
    );
    expect(performance.now() - begun).toBeLessThan(1_900);
    expect(fault).toMatchObject({ kind: 'connection_timeout', row: { status: 504 } });
    expect(fault!.detail).toContain(
      '1.3 s over all chains of the route "r"; one: connection_timeout, two: connection_timeout',
    );
    expect(attempts.length).toBe(2);
    expect(three.connections).toBe(0);
    await expect.poll(() => one.open + two.open).toBe(0);
  });

  test('an attempt that waits for the answer of the origin is not cut off by it', async () => {
    const route = routeOf(
      { a: { kind: 'http', host: 'a.test', port: 1 }, b: { kind: 'http', host: 'b.test', port: 1 } },
      { chains: [['a'], ['b']] },
    );
    const rooms = makeRooms({ routeTimeout: 60, hopTimeout: 50 });
    const answer = await rooms.tryChains(route, 'a.test', [], new AbortController().signal, async (one: Try) => {
      one.stage = 'response';
      await new Promise(resolve => setTimeout(resolve, 150));
      return one.signal.aborted ? 'cut off' : 'answered';
    });
    expect(answer).toBe('answered');
  });

  test('the browser leaves: the attempt ends as downstream_gone and no other is begun', async () => {
    await using silent = await startHop({ kind: 'http', silent: 'always' });
    await using next = await startHop({ kind: 'http' });
    for (const routeTimeout of [500, 5_000]) {
      const browser = new AbortController();
      const opening = open(
        makeRooms({ routeTimeout }),
        routeOf({ silent: silent.hop, next: next.hop }, { chains: [['silent'], ['next']] }),
        'a.test',
        443,
        browser.signal,
      );
      await expect.poll(() => silent.open).toBe(1);
      browser.abort();
      const { fault, attempts } = await opening;
      expect(fault!.kind).toBe('downstream_gone');
      expect(outcomes(attempts)).toEqual(['silent: downstream_gone']);
      expect(next.connections).toBe(0);
      await expect.poll(() => silent.open).toBe(0);
    }
  });
});

describe('how a chain is picked', () => {
  test('round-robin: every chain has its turn', async () => {
    await using echo = await startEcho();
    await using one = await startHop({ kind: 'http', hosts });
    await using two = await startHop({ kind: 'socks5', hosts });
    const rooms = makeRooms();
    const route = routeOf({ one: one.hop, two: two.hop }, { chains: [['one'], ['two']], pick: 'round-robin' });
    const by: (string | undefined)[] = [];
    for (let i = 0; i < 4; i++) by.push((await open(rooms, route, 'a.site.test', echo.port)).by);
    expect(by).toEqual(['one', 'two', 'one', 'two']);
  });

  test('sticky: a site leaves its exit only when that is away, and does not come back when it is back', async () => {
    await using echo = await startEcho();
    await using one = await startHop({ kind: 'http', hosts });
    await using two = await startHop({ kind: 'http', hosts });
    const hops = { one: one.hop, two: two.hop };
    const at = { one, two };
    const rooms = makeRooms();
    const route = routeOf(hops, { chains: [['one'], ['two']], pick: 'sticky' });
    const first = (await open(rooms, route, 'a.site.test', echo.port)).by as 'one' | 'two';
    const second = first === 'one' ? 'two' : 'one';
    expect((await open(rooms, route, 'b.site.test', echo.port)).by).toBe(first);
    at[first].become({ says: 'no proxy here' });
    expect((await open(rooms, route, 'a.site.test', echo.port)).by).toBe(second);
    at[first].become({ says: undefined as unknown as string });
    rooms.advance(24 * 3_600_000);
    expect((await open(rooms, route, 'b.site.test', echo.port)).by).toBe(second);
  });

  test('latency: the faster chain is in use once it has been measured', async () => {
    await using echo = await startEcho();
    await using slow = await startHop({ kind: 'socks5', hosts, drip: 40 });
    await using quick = await startHop({ kind: 'socks5', hosts });
    const rooms = makeRooms({ hopTimeout: 20_000, routeTimeout: 60_000 });
    const hops = { slow: slow.hop, quick: quick.hop };
    const route = routeOf(hops, { chains: [['slow'], ['quick']], pick: 'latency', tolerance: 10 });
    await open(rooms, route, 'a.site.test', echo.port);
    await open(rooms, route, 'a.site.test', echo.port);
    const later = [];
    for (let i = 0; i < 3; i++) later.push((await open(rooms, route, 'a.site.test', echo.port)).by);
    expect(later).toEqual(['quick', 'quick', 'quick']);
  });
});

describe('race', () => {
  const patient = { hopTimeout: 20_000, routeTimeout: 60_000 };
  const race = (hops: Record<string, Hop>, chains = [['one'], ['two']]) => routeOf(hops, { chains, pick: 'race' });

  test('the better chain is alone while it is quick', async () => {
    await using echo = await startEcho();
    await using one = await startHop({ kind: 'http', hosts });
    await using two = await startHop({ kind: 'http', hosts });
    const route = race({ one: one.hop, two: two.hop });
    expect((await open(makeRooms(patient), route, 'a.site.test', echo.port)).by).toBe('one');
    expect(two.connections).toBe(0);
  });

  test('the second joins in, carries the request, and the first is closed', async () => {
    await using echo = await startEcho();
    await using one = await startHop({ kind: 'http', silent: 'when-asked' });
    await using two = await startHop({ kind: 'http', hosts });
    const rooms = makeRooms(patient);
    const { by, attempts } = await open(rooms, race({ one: one.hop, two: two.hop }), 'a.site.test', echo.port);
    expect(by).toBe('two');
    expect(outcomes(attempts)).toEqual(['one: connection_timeout', 'two: ok']);
    expect(attempts[0]!.reason).toBe('Another chain stood first.');
    expect(one.connections).toBe(1);
    await expect.poll(() => one.open).toBe(0);
  });

  test('the second joins in at once when the first has failed', async () => {
    await using echo = await startEcho();
    await using one = await startHop({ kind: 'http', refuse: 403 });
    await using two = await startHop({ kind: 'http', hosts });
    const { by, attempts } = await open(
      makeRooms(patient),
      race({ one: one.hop, two: two.hop }),
      'a.site.test',
      echo.port,
    );
    expect(by).toBe('two');
    expect(outcomes(attempts)).toEqual(['one: hop_refused', 'two: ok']);
  });

  test('where both fail the third is tried, and where all do, all are told', async () => {
    await using echo = await startEcho();
    await using one = await startHop({ kind: 'socks5', drip: 60, refuse: 2 });
    await using two = await startHop({ kind: 'http', refuse: 403 });
    await using three = await startHop({ kind: 'http', refuse: 403, hosts });
    const hops = { one: one.hop, two: two.hop, three: three.hop };
    const route = race(hops, [['one'], ['two'], ['three']]);
    const all = await open(makeRooms(patient), route, 'a.site.test', echo.port);
    expect(outcomes(all.attempts).toSorted()).toEqual(['one: hop_refused', 'three: hop_refused', 'two: hop_refused']);
    expect(all.fault!.message).toContain('all 3 chains failed');
    three.become({ refuseHosts: [] });
    expect((await open(makeRooms(patient), route, 'a.site.test', echo.port)).by).toBe('three');
  });

  test('nothing goes out twice: of two chains that stand at once, one gives way', async () => {
    const route = race({ one: { kind: 'http', host: 'a', port: 1 }, two: { kind: 'http', host: 'b', port: 1 } });
    const { tryChains } = makeRooms(patient);
    const bothDial = Promise.withResolvers<void>();
    const sent: string[] = [];
    const closed: string[] = [];
    const dialBoth = claiming(async one => {
      if (one.chain.key === 'two') bothDial.resolve();
      await bothDial.promise;
      const socket = { destroy: () => closed.push(one.chain.key) };
      return { socket, rest: Buffer.alloc(0), hops: [] } as never;
    });
    const by = await tryChains(route, 'a.test', [], new AbortController().signal, async one => {
      one.mayRace = true;
      await dialBoth(one, { host: 'a.test', port: 1 } as AdmittedTarget, true);
      one.stage = 'response';
      sent.push(one.chain.key);
      await new Promise(resolve => setImmediate(resolve));
      return one.chain.key;
    });
    expect(sent).toEqual([by]);
    expect(closed).toEqual([by === 'one' ? 'two' : 'one']);
  });

  test('what may not race, and what has gone out on a connection that stood already, runs alone', async () => {
    const route = race({ one: { kind: 'http', host: 'a', port: 1 }, two: { kind: 'http', host: 'b', port: 1 } });
    for (const stage of ['connect', 'reused'] as const) {
      const begun: string[] = [];
      const by = await makeRooms(patient).tryChains(route, 'a.test', [], new AbortController().signal, async one => {
        begun.push(one.chain.key);
        one.mayRace = stage === 'reused';
        one.stage = stage;
        await new Promise(resolve => setTimeout(resolve, HEAD_START + 100));
        return one.chain.key;
      });
      expect([by, begun]).toEqual(['one', ['one']]);
    }
  });

  test('the winner fails after all: the loser, which has sent nothing, has its turn', async () => {
    const route = race({ one: { kind: 'http', host: 'a', port: 1 }, two: { kind: 'http', host: 'b', port: 1 } });
    const attempts: Attempt[] = [];
    const begun: string[] = [];
    const by = await makeRooms(patient).tryChains(
      route,
      'a.test',
      attempts,
      new AbortController().signal,
      async one => {
        begun.push(one.chain.key);
        one.mayRace = true;
        if (begun.length === 1)
          await new Promise((_, reject) => one.signal.addEventListener('abort', () => reject(new Error('closed'))));
        one.claim?.();
        one.stage = 'response';
        if (one.chain.key === 'two') throw new Fault('hop_refused', { hop: 'two' });
        return one.chain.key;
      },
    );
    expect([by, begun]).toEqual(['one', ['one', 'two', 'one']]);
    expect(outcomes(attempts)).toEqual(['two: hop_refused', 'one: ok']);
  });

  test('the browser leaves: both are closed, and it is nobody’s fault', async () => {
    await using one = await startHop({ kind: 'http', silent: 'always' });
    await using two = await startHop({ kind: 'http', silent: 'always' });
    const browser = new AbortController();
    const opening = open(makeRooms(patient), race({ one: one.hop, two: two.hop }), 'a.test', 443, browser.signal);
    await expect.poll(() => two.open).toBe(1);
    browser.abort();
    const { fault } = await opening;
    expect(fault!.kind).toBe('downstream_gone');
    await expect.poll(() => one.open + two.open).toBe(0);
  });

  test('A62: the companion’s own connection does not join in', async () => {
    await using echo = await startEcho();
    await using one = await startHop({ kind: 'socks5', hosts, drip: 60 });
    const route = routeOf({ one: one.hop }, { chains: [['one']], pick: 'race', else: 'companion' });
    expect((await open(makeRooms(patient), route, '127.0.0.1', echo.port)).by).toBe('one');
    expect(echo.connections).toBe(1);
  });
});
