// Routes that a person holds to one chain: which are in force, and what a request then meets.
import { describe, expect, test } from 'vitest';
import { makeDial } from '../../../companion/chain/dial.ts';
import { makeAcl } from '../../../companion/guard/acl.ts';
import type { AdmittedTarget, ResolvedRoute } from '../../../companion/rooms.ts';
import { makePins, MAX_PINS, type RoutePin } from '../../../companion/route/pin.ts';
import { resolveRoutes } from '../../../companion/route/resolve.ts';
import { makeTryChains } from '../../../companion/route/try-chains.ts';
import type { Hop } from '../../../shared/config/hops.ts';
import { type Route, ROUTE_DEFAULTS } from '../../../shared/config/routes.ts';
import type { Attempt } from '../../../shared/exchange.ts';
import type { Fault } from '../../../shared/fault.ts';
import { startClock } from '../../support/clock.ts';
import { startEcho, startHop } from '../../support/hop.ts';
import { knowledgeOf } from '../../support/knowledge.ts';

const routesOf = (hops: Record<string, Hop>, route: Partial<Route> & Pick<Route, 'chains'>) =>
  resolveRoutes({ hops, routes: { r: { ...ROUTE_DEFAULTS, ...route } as Route } });

describe('pins', () => {
  test('hold until their time, or for good, and the last word counts', () => {
    const clock = startClock();
    const told: (readonly RoutePin[])[] = [];
    const pins = makePins(clock.now, [], all => told.push(all));
    expect(pins.of('r')).toBeNull();
    const until = clock.now() + 60_000;
    pins.pin('r', 'a', until);
    pins.pin('s', 'b', null);
    expect(pins.of('r')).toEqual({ route: 'r', chain: 'a', until });
    expect(told.at(-1)).toEqual(pins.all());
    clock.advance(59_999);
    expect(pins.of('r')).not.toBeNull();
    clock.advance(1);
    expect(pins.of('r')).toBeNull();
    clock.advance(1_000_000_000);
    expect(pins.all()).toEqual([{ route: 's', chain: 'b', until: null }]);
    pins.pin('s', 'c', null);
    expect(pins.of('s')!.chain).toBe('c');
    expect([pins.unpin('s'), pins.unpin('s'), pins.of('s')]).toEqual([true, false, null]);
    expect(told.at(-1)).toEqual([]);
  });

  test('what was kept is in force again, and what another worker knows is in place of what was known', () => {
    const clock = startClock();
    const saved = [
      { route: 'r', chain: 'a', until: null },
      { route: 's', chain: 'a', until: clock.now() - 1 },
    ];
    const pins = makePins(clock.now, saved);
    expect(pins.all()).toEqual([saved[0]]);
    pins.hear({ outcome: 'pins', pins: [{ route: 't', chain: 'b', until: null }] });
    expect([pins.of('r'), pins.of('t')!.chain]).toEqual([null, 'b']);
  });

  test('a pin goes with its route or chain', () => {
    const told: (readonly RoutePin[])[] = [];
    const pins = makePins(
      () => 0,
      [],
      all => told.push(all),
    );
    const hop = { kind: 'http', host: 'a.test', port: 1 } as const;
    pins.pin('r', 'a', null);
    pins.pin('gone', 'a', null);
    pins.keepTo(routesOf({ a: hop, b: hop }, { chains: [['a'], ['b']] }));
    expect(told.at(-1)!.map(({ route }) => route)).toEqual(['r']);
    const before = told.length;
    pins.keepTo(routesOf({ a: hop, b: hop }, { chains: [['b'], ['a']] }));
    expect(told.length).toBe(before);
    pins.keepTo(routesOf({ a: hop, b: hop }, { chains: [['b']] }));
    expect(told.at(-1)).toEqual([]);
  });

  test('there are not more than so many', () => {
    const pins = makePins(() => 0);
    for (let i = 0; i < MAX_PINS; i++) pins.pin(`r${i}`, 'a', null);
    pins.pin('r0', 'b', null);
    expect(() => pins.pin('more', 'a', null)).toThrow('More than 1000 routes cannot be pinned.');
  });
});

describe('a pinned route', () => {
  const guard = { allow: [{ address: '127.0.0.0', prefix: 8 }], connectPorts: [] };
  const dial = makeDial({ acl: makeAcl({ guard, listeners: () => [] }), hopTimeout: 20_000 });
  const hosts = { 'a.test': '127.0.0.1' };

  function start() {
    const clock = startClock();
    const pins = makePins(clock.now);
    const memory = knowledgeOf(clock.now);
    const tryChains = makeTryChains({
      now: clock.now,
      routeTimeout: 60_000,
      hopTimeout: 20_000,
      memory,
      siteOf: host => host,
      pins,
    });
    const open = async (route: ResolvedRoute, port: number) => {
      const attempts: Attempt[] = [];
      const target = { host: 'a.test', port } as AdmittedTarget;
      try {
        await tryChains(route, 'a.test', attempts, new AbortController().signal, async one =>
          (await dial(one, target, false)).socket.destroy(),
        );
        return { chains: attempts.map(({ chain }) => chain[0]), fault: null };
      } catch (error) {
        return { chains: attempts.map(({ chain }) => chain[0]), fault: error as Fault };
      }
    };
    return { clock, pins, open };
  }

  test('A62: tries its chain and no other, and says so when that fails; unpinned it is as before', async () => {
    await using echo = await startEcho();
    await using refusing = await startHop({ kind: 'http', refuse: 403 });
    await using good = await startHop({ kind: 'http', hosts });
    const { clock, pins, open } = start();
    const route = routesOf(
      { good: good.hop, refusing: refusing.hop },
      { chains: [['good'], ['refusing']], else: 'companion' },
    ).get('r')!;
    pins.pin('r', 'refusing', null);
    const pinned = await open(route, echo.port);
    expect(pinned.chains).toEqual(['refusing']);
    expect(pinned.fault!.kind).toBe('hop_refused');
    expect(pinned.fault!.message).toContain(
      'the route "r" is pinned to refusing until it is unpinned, and no other chain was tried',
    );
    expect([good.connections, echo.connections]).toEqual([0, 0]);
    pins.pin('r', 'refusing', clock.now() + 60_000);
    expect((await open(route, echo.port)).fault!.message).toMatch(
      /is pinned to refusing until \d{4}-\d\d-\d\d \d\d:\d\d, and/,
    );
    clock.advance(60_000);
    expect((await open(route, echo.port)).chains).toEqual(['good']);
    pins.pin('r', 'refusing', null);
    pins.unpin('r');
    expect((await open(route, echo.port)).chains).toEqual(['good']);
  });

  test('to a chain that it has no longer is not pinned', async () => {
    await using echo = await startEcho();
    await using good = await startHop({ kind: 'http', hosts });
    const { pins, open } = start();
    pins.pin('r', 'other', null);
    expect(await open(routesOf({ good: good.hop }, { chains: [['good']] }).get('r')!, echo.port)).toEqual({
      chains: ['good'],
      fault: null,
    });
  });
});
