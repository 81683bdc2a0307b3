// The order of chains: what every pick promises, and what holds whatever is known.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Chain, ChainKnowledge, ResolvedRoute } from '../../../companion/rooms.ts';
import {
  HEAD_START,
  headStartOf,
  makePickMemory,
  MEASURE_EVERY,
  noteServed,
  orderOf,
} from '../../../companion/route/order.ts';
import { resolveRoutes } from '../../../companion/route/resolve.ts';
import { makeStickyMemory, MAX_STICKY, rendezvous, type StickyNews } from '../../../companion/route/sticky.ts';
import { type Pick as PickOf, type Route, ROUTE_DEFAULTS } from '../../../shared/config/routes.ts';

const NAMES = ['a', 'b', 'c', 'd', 'e'] as const;
const hops = Object.fromEntries(
  NAMES.map((name, i) => [name, { kind: 'http', host: `${name}.test`, port: i + 1 } as const]),
);

type Written = Partial<Route> & Pick<Route, 'chains'>;
function routesOf(routes: Record<string, Written>): (name: string) => ResolvedRoute {
  const filled = Object.entries(routes).map(([name, route]) => [name, { ...ROUTE_DEFAULTS, ...route } as Route]);
  const resolved = resolveRoutes({ hops, routes: Object.fromEntries(filled) });
  return name => resolved.get(name)!;
}
const routeOf = (route: Written) => routesOf({ r: route })('r');

/** What is known, as a test says it. */
class Known implements ChainKnowledge {
  readonly last = new Set<string>();
  readonly down = new Set<string>();
  readonly latencies = new Map<string, number>();
  needed: string | null = null;
  isLast(site: string, chain: Chain) {
    return this.last.has(`${site} ${chain.key}`);
  }
  isDown(chain: Chain) {
    return this.down.has(chain.key);
  }
  latency(chain: Chain) {
    return this.latencies.get(chain.key) ?? null;
  }
  preferred() {
    return this.needed;
  }
}

/** One worker: its picks, at a time that the test sets. */
function worker(route: ResolvedRoute, known = new Known(), tell?: (news: StickyNews) => void) {
  const memory = makePickMemory(makeStickyMemory(tell));
  let time = 0;
  return {
    known,
    memory,
    wait: (span: number) => (time += span),
    keys: (site = 'site.test') => orderOf(route, site, known, time, memory).map(chain => chain.key),
    /** A request that is served by the first chain that is not down. */
    ask(site = 'site.test') {
      const chain = orderOf(route, site, known, time, memory).find(
        one => !known.isDown(one) && !known.isLast(site, one),
      );
      if (chain) noteServed(route, site, chain, memory);
      return chain?.key;
    },
  };
}

const three: Written['chains'] = [['a'], ['b'], ['c']];

describe('order', () => {
  test('is the file’s, with what failed behind', () => {
    const one = worker(routeOf({ chains: three }));
    expect(one.keys()).toEqual(['a', 'b', 'c']);
    one.known.last.add('site.test a');
    expect(one.keys()).toEqual(['b', 'c', 'a']);
    expect(one.keys('other.test')).toEqual(['a', 'b', 'c']);
    one.known.down.add('b');
    expect(one.keys()).toEqual(['c', 'a', 'b']);
    one.known.down.add('c');
    expect(one.keys()).toEqual(['a', 'b', 'c']);
  });

  test('is the very list of the route where nothing is known', () => {
    for (const pick of ['order', 'race', 'auto'] as const) {
      const route = routeOf({ chains: three, pick });
      expect(orderOf(route, 's', new Known(), 0, makePickMemory(makeStickyMemory()))).toBe(route.chains);
    }
  });
});

describe('latency', () => {
  const chains = three;
  test('the fastest overtakes when it is faster by more than the tolerance, and not before', () => {
    const one = worker(routeOf({ chains, pick: 'latency', tolerance: 50 }));
    for (const [key, latency] of [
      ['a', 100],
      ['b', 60],
      ['c', 55],
    ] as const)
      one.known.latencies.set(key, latency);
    expect(one.ask()).toBe('a');
    one.known.latencies.set('c', 50);
    expect(one.ask()).toBe('a');
    one.known.latencies.set('c', 49);
    expect(one.ask()).toBe('c');
  });

  test('the one in use stays until another is that much faster: no to and fro', () => {
    const one = worker(routeOf({ chains, pick: 'latency', tolerance: 50 }));
    for (const [key, latency] of [
      ['a', 200],
      ['b', 100],
      ['c', 300],
    ] as const)
      one.known.latencies.set(key, latency);
    expect(one.ask()).toBe('b');
    one.known.latencies.set('a', 51);
    expect(one.ask()).toBe('b');
    one.known.latencies.set('b', 90);
    expect(one.ask()).toBe('b');
    one.known.latencies.set('b', 102);
    expect(one.ask()).toBe('a');
  });

  test('whatever the latencies do, the first changes only by more than the tolerance or when it is down', () => {
    const step = fc.record({
      latencies: fc.tuple(fc.nat(300), fc.nat(300), fc.nat(300)),
      down: fc.subarray(['a', 'b', 'c']),
      tolerance: fc.constant(40),
    });
    fc.assert(
      fc.property(fc.array(step, { minLength: 2, maxLength: 30 }), steps => {
        const one = worker(routeOf({ chains, pick: 'latency', tolerance: 40 }));
        let before: string | undefined;
        for (const { latencies, down } of steps) {
          one.known.down.clear();
          for (const key of down) one.known.down.add(key);
          latencies.forEach((latency, i) => one.known.latencies.set(['a', 'b', 'c'][i]!, latency));
          const first = one.keys()[0]!;
          const isUp = (key: string) => !one.known.down.has(key);
          if (before !== undefined && first !== before && isUp(before))
            expect(one.known.latencies.get(before)! - one.known.latencies.get(first)!).toBeGreaterThan(40);
          for (const key of ['a', 'b', 'c'].filter(isUp))
            if (isUp(first))
              expect(one.known.latencies.get(first)! - one.known.latencies.get(key)!).toBeLessThanOrEqual(40);
          if (down.length < 2) before = first;
          else before = undefined;
        }
      }),
    );
  });

  test('what fails for one site alone changes nothing for others', () => {
    const one = worker(routeOf({ chains, pick: 'latency' }));
    for (const [key, latency] of [
      ['a', 200],
      ['b', 20],
      ['c', 100],
    ] as const)
      one.known.latencies.set(key, latency);
    expect(one.ask()).toBe('b');
    one.known.last.add('site.test b');
    expect(one.ask()).toBe('c');
    expect(one.ask('other.test')).toBe('b');
    expect(one.keys().at(-1)).toBe('b');
  });

  test('what nobody has measured gets one request, and another much later', () => {
    const one = worker(routeOf({ chains, pick: 'latency' }));
    one.known.latencies.set('a', 20);
    expect([one.keys()[0], one.keys()[0], one.keys()[0]]).toEqual(['b', 'c', 'a']);
    one.wait(MEASURE_EVERY);
    one.known.latencies.set('b', 20);
    expect([one.keys()[0], one.keys()[0]]).toEqual(['c', 'a']);
  });

  test('A62: the companion’s own connection, how fast ever, does not come before a chain that the file puts before it', () => {
    const one = worker(routeOf({ chains: [['a'], ['b']], pick: 'latency', else: 'companion' }));
    for (const [key, latency] of [
      ['a', 2000],
      ['b', 1000],
      ['companion', 1],
    ] as const)
      one.known.latencies.set(key, latency);
    expect(one.keys()).toEqual(['b', 'a', 'companion']);
    one.known.down.add('b');
    expect(one.keys()).toEqual(['a', 'b', 'companion']);
  });
});

describe('round-robin', () => {
  test('every chain has its turn', () => {
    const one = worker(routeOf({ chains: three, pick: 'round-robin' }));
    expect(Array.from({ length: 6 }, () => one.ask())).toEqual(['a', 'b', 'c', 'a', 'b', 'c']);
  });

  test('those that are up share evenly what one would have got that is down', () => {
    const one = worker(routeOf({ chains: three, pick: 'round-robin' }));
    one.known.down.add('b');
    expect(Array.from({ length: 6 }, () => one.ask())).toEqual(['a', 'c', 'a', 'c', 'a', 'c']);
  });

  test('however many workers there are, and whoever is asked, no chain gets more than one request a worker more than another', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(3), { maxLength: 200 }), asked => {
        const route = routeOf({ chains: three, pick: 'round-robin' });
        const workers = Array.from({ length: 4 }, () => worker(route));
        const counts = new Map(['a', 'b', 'c'].map(key => [key, 0]));
        for (const i of asked) {
          const key = workers[i]!.ask()!;
          counts.set(key, counts.get(key)! + 1);
        }
        expect(Math.max(...counts.values()) - Math.min(...counts.values())).toBeLessThanOrEqual(workers.length);
      }),
    );
  });

  test('A62: the companion’s own connection has no turn', () => {
    const one = worker(routeOf({ chains: [['a'], ['b']], pick: 'round-robin', else: 'companion' }));
    expect(Array.from({ length: 4 }, () => one.keys().indexOf('companion'))).toEqual([2, 2, 2, 2]);
  });
});

describe('sticky', () => {
  const route = routeOf({ chains: three, pick: 'sticky' });
  const sites = Array.from({ length: 3_000 }, (_, i) => `site${i}.test`);

  test('spreads sites evenly, and every worker comes to the same chain without a word', () => {
    const [one, two] = [worker(route), worker(route)];
    const counts = new Map<string, number>();
    for (const site of sites) {
      const key = one.ask(site)!;
      expect(two.ask(site)).toBe(key);
      counts.set(key, (counts.get(key) ?? 0) + 1);
    }
    for (const key of ['a', 'b', 'c']) expect(counts.get(key)).toBeGreaterThan(sites.length / 3.5);
  });

  test('a chain more takes only its own share, and no chain but that', () => {
    for (const site of sites) {
      const best = (keys: string[]) => keys.toSorted((x, y) => rendezvous(site, y) - rendezvous(site, x))[0]!;
      const [before, after] = [best(['a', 'b', 'c']), best(['a', 'b', 'c', 'd'])];
      expect([before, 'd']).toContain(after);
    }
  });

  test('a site leaves its chain only when that is down, and then stays where it is', () => {
    const events = fc.array(fc.tuple(fc.constantFrom(...sites.slice(0, 5)), fc.subarray(['a', 'b', 'c'])), {
      maxLength: 60,
    });
    fc.assert(
      fc.property(events, list => {
        const one = worker(route);
        const own = new Map<string, string>();
        for (const [site, down] of list) {
          one.known.down.clear();
          for (const key of down) one.known.down.add(key);
          const key = one.ask(site);
          const before = own.get(site);
          if (before !== undefined && !down.includes(before)) expect(key).toBe(before);
          if (key !== undefined) own.set(site, key);
        }
      }),
    );
  });

  test('where two workers move a site at once they come to the same chain, in whatever order they hear of it', () => {
    const told: StickyNews[][] = [[], []];
    const [one, two] = [
      worker(route, new Known(), news => told[0]!.push(news)),
      worker(route, new Known(), news => told[1]!.push(news)),
    ];
    const start = one.ask()!;
    two.ask();
    const [left, right] = ['a', 'b', 'c'].filter(key => key !== start);
    one.known.down.add(start).add(left!);
    two.known.down.add(start).add(right!);
    expect([one.ask(), two.ask()]).toEqual([right, left]);
    for (const news of told[0]!.splice(0)) two.memory.sticky.hear(news);
    for (const news of told[1]!.splice(0)) one.memory.sticky.hear(news);
    one.known.down.clear();
    two.known.down.clear();
    const key = one.ask();
    expect(two.ask()).toBe(key);
    expect([left, right]).toContain(key);
    // What is no news is not told, and what is old is not believed.
    expect(told).toEqual([[], []]);
    one.memory.sticky.hear({ outcome: 'stuck', route: 'r', site: 'site.test', chain: start, moves: 0 });
    expect(one.ask()).toBe(key);
  });

  test('a new worker is told what the others know', () => {
    const one = worker(route);
    one.known.down.add('a').add('b');
    for (const site of sites.slice(0, 20)) one.ask(site);
    const two = worker(route);
    for (const news of one.memory.sticky.all()) two.memory.sticky.hear(news);
    for (const site of sites.slice(0, 20)) expect(two.ask(site)).toBe('c');
  });

  test('what is remembered is bounded, and who is asked for longest ago goes first', () => {
    const memory = makeStickyMemory();
    for (let i = 0; i < MAX_STICKY; i++) memory.served('r', `s${i}`, 'a');
    memory.chainOf('r', 's0');
    memory.served('r', 'more', 'a');
    expect(memory.all().length).toBe(MAX_STICKY);
    expect([memory.chainOf('r', 's0'), memory.chainOf('r', 's1')]).toEqual(['a', null]);
  });
});

describe('race', () => {
  const start = (route: ResolvedRoute, i: number, j: number, known: ChainKnowledge = new Known()) =>
    headStartOf(route, route.chains[i]!, route.chains[j]!, 's.test', known);

  test('any two of a group that says so, also deep within; the companion’s own connection only waits', () => {
    const get = routesOf({
      top: { chains: [['a'], 'inner'] },
      inner: { chains: [['b'], ['c']], pick: 'race' },
      open: { chains: [['a'], ['b']], pick: 'race', else: 'companion' },
    });
    expect([start(get('top'), 0, 1), start(get('top'), 1, 2), start(get('top'), 2, 1)]).toEqual([
      null,
      HEAD_START,
      HEAD_START,
    ]);
    expect([start(get('open'), 0, 1), start(get('open'), 1, 2)]).toEqual([HEAD_START, null]);
    expect(start(routeOf({ chains: three }), 0, 1)).toBeNull();
  });

  test('auto: a chain with the companion’s own connection, where it is a question; chains with each other, never', () => {
    const route = routeOf({ chains: three, pick: 'auto' });
    const unsure = Object.assign(new Known(), { headStart: () => 123 });
    const sure = Object.assign(new Known(), { headStart: () => null });
    expect([start(route, 0, 1, unsure), start(route, 0, 1, sure), start(route, 0, 1)]).toEqual([123, null, null]);
    expect([start(route, 1, 2, unsure), start(route, 1, 0, unsure)]).toEqual([null, null]);
  });
});

describe('auto', () => {
  test('begins with the companion’s own connection, unless another is known to be needed', () => {
    const one = worker(routeOf({ chains: three, pick: 'auto' }));
    expect(one.keys()).toEqual(['companion', 'a', 'b', 'c']);
    one.known.needed = 'b';
    expect(one.keys()).toEqual(['b', 'a', 'c', 'companion']);
    one.known.down.add('b');
    expect(one.keys()).toEqual(['a', 'c', 'companion', 'b']);
    one.known.needed = null;
    one.known.last.add('site.test companion');
    expect(one.keys()).toEqual(['a', 'c', 'companion', 'b']);
  });
});

describe('groups', () => {
  test('pick for themselves, where the group around them has its turn', () => {
    const get = routesOf({ top: { chains: ['inner', ['a']] }, inner: { chains: [['b'], ['c']], pick: 'round-robin' } });
    const one = worker(get('top'));
    expect([one.keys(), one.keys()]).toEqual([
      ['b', 'c', 'a'],
      ['c', 'b', 'a'],
    ]);
    one.known.down.add('b').add('c');
    expect(one.keys()).toEqual(['a', 'b', 'c']);
  });

  test('a group is one among others', () => {
    const get = routesOf({ top: { chains: [['a'], 'inner'], pick: 'round-robin' }, inner: { chains: [['b'], ['c']] } });
    const one = worker(get('top'));
    expect([one.ask(), one.ask(), one.ask(), one.ask()]).toEqual(['a', 'b', 'a', 'b']);
    one.known.down.add('b');
    expect([one.ask(), one.ask()]).toEqual(['a', 'c']);
  });

  test('within sticky, a site keeps to the chain, not only to the group', () => {
    const get = routesOf({
      top: { chains: ['inner', ['a']], pick: 'sticky' },
      inner: { chains: [['b'], ['c']], pick: 'round-robin' },
    });
    const one = worker(get('top'));
    const key = one.ask('s.test');
    for (let i = 0; i < 5; i++) expect(one.ask('s.test')).toBe(key);
  });
});

describe('whatever is known', () => {
  const picks: PickOf[] = ['order', 'latency', 'round-robin', 'sticky', 'race', 'auto'];
  const chain = fc.oneof(fc.subarray([...NAMES], { minLength: 0, maxLength: 2 }));
  const written = (groups: string[]) =>
    fc.record({
      chains: fc.array(groups.length === 0 ? chain : fc.oneof(chain, fc.constantFrom(...groups)), {
        minLength: 1,
        maxLength: 4,
      }),
      pick: fc.constantFrom(...picks),
      else: fc.constantFrom('companion' as const, undefined),
    });
  const world = fc.record({
    routes: fc.record({ top: written(['mid', 'low', 'companion']), mid: written(['low']), low: written([]) }),
    asks: fc.array(
      fc.record({
        site: fc.constantFrom('s.test', 't.test'),
        last: fc.array(fc.nat(9), { maxLength: 4 }),
        down: fc.array(fc.nat(9), { maxLength: 4 }),
        latencies: fc.array(fc.tuple(fc.nat(9), fc.nat(500)), { maxLength: 6 }),
        needed: fc.option(fc.nat(9)),
        wait: fc.nat(100_000),
      }),
      { minLength: 1, maxLength: 12 },
    ),
  });

  test('every chain is in the order exactly once, what is up before what is not, and the companion’s own connection behind all before it', () => {
    fc.assert(
      fc.property(world, ({ routes, asks }) => {
        const route = routesOf(routes as Record<string, Written>)('top');
        const one = worker(route);
        const { known } = one;
        const keyAt = (i: number) => route.chains[i % route.chains.length]!.key;
        for (const ask of asks) {
          known.last.clear();
          known.down.clear();
          for (const i of ask.last) known.last.add(`${ask.site} ${keyAt(i)}`);
          for (const i of ask.down) known.down.add(keyAt(i));
          for (const [i, latency] of ask.latencies) known.latencies.set(keyAt(i), latency);
          known.needed = ask.needed === null ? null : keyAt(ask.needed);
          one.wait(ask.wait);
          const keys = one.keys(ask.site);
          const inFile = route.chains.map(({ key }) => key);
          expect(keys.toSorted()).toEqual(inFile.toSorted());
          const direct = inFile.indexOf('companion');
          for (const key of inFile.slice(0, Math.max(0, direct)))
            expect(keys.indexOf(key)).toBeLessThan(keys.indexOf('companion'));
          const isUp = (key: string) => !known.down.has(key) && !known.last.has(`${ask.site} ${key}`);
          const hopsOnly = keys.filter(key => key !== 'companion');
          expect(hopsOnly.map(isUp)).toEqual(hopsOnly.map(isUp).toSorted((x, y) => Number(y) - Number(x)));
          one.ask(ask.site);
        }
      }),
    );
  });
});
