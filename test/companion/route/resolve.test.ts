import { describe, expect, test } from 'vitest';
import { COMPANION_CHAIN, resolveRoutes } from '../../../companion/route/resolve.ts';

const hop = { kind: 'http', host: 'proxy.test', port: 3128 } as const;
const hops = { a: hop, b: { ...hop, port: 1, username: 'u', password: 'p' }, companion: hop };

describe('the routes of a file', () => {
  const routes = resolveRoutes({
    hops,
    routes: {
      work: { chains: [['a'], ['a', 'b']], private: false },
      open: { chains: [['b']], else: 'companion', private: true },
      direct: { chains: [[], ['a']], else: 'companion', private: false },
      twice: { chains: [['a'], ['a']], private: false },
      odd: { chains: [['companion']], private: false },
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
