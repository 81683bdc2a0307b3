import { describe, expect, test } from 'vitest';
import type { Chain, Group } from '../../../companion/rooms.ts';
import { COMPANION_CHAIN, resolveRoutes } from '../../../companion/route/resolve.ts';
import { ROUTE_DEFAULTS } from '../../../shared/config/routes.ts';

const hop = { kind: 'http', host: 'proxy.test', port: 3128 } as const;
const hops = { a: hop, b: { ...hop, port: 1, username: 'u', password: 'p' }, companion: hop };

describe('the routes of a file', () => {
  const routes = resolveRoutes({
    hops,
    routes: {
      work: { ...ROUTE_DEFAULTS, chains: [['a'], ['a', 'b']] },
      open: { ...ROUTE_DEFAULTS, chains: [['b']], else: 'companion', private: true },
      direct: { ...ROUTE_DEFAULTS, chains: [[], ['a']], else: 'companion' },
      twice: { ...ROUTE_DEFAULTS, chains: [['a'], ['a']] },
      odd: { ...ROUTE_DEFAULTS, chains: [['companion']] },
    },
  });

  test('companion and block are always there', () => {
    expect(routes.get('companion')).toEqual({
      name: 'companion',
      chains: [COMPANION_CHAIN],
      behindHops: false,
      route: null,
    });
    expect(routes.get('block')!.chains).toEqual([]);
  });

  test('hops stand in place of their names, in order, and name the chain', () => {
    const work = routes.get('work')!;
    expect(work.chains.map(chain => chain.key)).toEqual(['a', 'a>b']);
    expect(work.chains[1]!.hops).toEqual([
      { ...hop, name: 'a' },
      { ...hops.b, name: 'b' },
    ]);
    expect(work.route!.private).toBe(false);
  });

  test('a closed route has no chain of zero hops, an open one ends with it', () => {
    expect(routes.get('work')!.chains).not.toContain(COMPANION_CHAIN);
    expect(routes.get('open')!.chains.map(chain => chain.key)).toEqual(['b', 'companion']);
  });

  test('no chain is tried twice', () => {
    expect(routes.get('direct')!.chains.map(chain => chain.key)).toEqual(['companion', 'a']);
    expect(routes.get('twice')!.chains.map(chain => chain.key)).toEqual(['a']);
  });

  test('a hop that is called companion is not taken for the chain of zero hops', () => {
    expect(routes.get('odd')!.chains[0]!.key).not.toBe(COMPANION_CHAIN.key);
    expect(routes.get('odd')!.chains[0]!.hops.length).toBe(1);
  });
});

describe('groups', () => {
  const routes = resolveRoutes({
    hops,
    routes: {
      both: { ...ROUTE_DEFAULTS, chains: [['a'], 'inner', ['a', 'b']] },
      inner: { ...ROUTE_DEFAULTS, chains: [['b'], ['a']], pick: 'latency', tolerance: 7, else: 'companion' },
      flat: { ...ROUTE_DEFAULTS, chains: ['work', ['a']] },
      work: { ...ROUTE_DEFAULTS, chains: [['b']] },
      auto: { ...ROUTE_DEFAULTS, chains: [['a'], []], pick: 'auto' },
      direct: { ...ROUTE_DEFAULTS, chains: [['a'], 'companion'] },
      low: { ...ROUTE_DEFAULTS, chains: [[], ['a'], ['a', 'b']], floor: { privacy: 0, hops: 2 } },
    },
  });
  const keys = (name: string) => routes.get(name)!.chains.map(chain => chain.key);
  const shape = (member: Chain | Group): unknown =>
    'hops' in member ? member.key : [member.name, member.pick, member.tolerance, ...member.members.map(shape)];

  test('bring their chains, every one once, and not what they do when these fail', () => {
    expect(keys('both')).toEqual(['a', 'b', 'a>b']);
    expect(keys('inner')).toEqual(['b', 'a', 'companion']);
    expect(shape(routes.get('both')!.group!)).toEqual([
      'both',
      'order',
      50,
      'a',
      ['inner', 'latency', 7, 'b', 'a'],
      'a>b',
    ]);
    expect(shape(routes.get('inner')!.group!)).toEqual(['inner', 'latency', 7, 'b', 'a', 'companion']);
  });

  test('are nothing to keep where all of it is tried as it stands', () => {
    expect(routes.get('flat')!.group).toBeUndefined();
    expect(keys('flat')).toEqual(['b', 'a']);
  });

  test('auto begins with the companion’s own connection', () => {
    expect(keys('auto')).toEqual(['companion', 'a']);
  });

  test('companion is the chain of zero hops, where it stands', () => {
    expect(keys('direct')).toEqual(['a', 'companion']);
  });

  test('what is below the floor is not there', () => {
    expect(keys('low')).toEqual(['a>b']);
  });
});
