// The routes of the file, with their hops in place of names.
import type { Config } from '../../shared/config.ts';
import type { RouteName } from '../../shared/decision/rule.ts';
import type { Chain, NamedHop, ResolvedRoute } from '../rooms.ts';

/** The chain of zero hops: the companion connects itself. */
export const COMPANION_CHAIN: Chain = { key: 'companion', hops: [] };

/**
 * Every route by its name, the built-in ones too: `companion` is the chain of zero hops, `block` has none. An open route ends with the chain
 * of zero hops. The configuration's schema has checked that every hop exists.
 */
export function resolveRoutes(config: Pick<Config, 'hops' | 'routes'>): ReadonlyMap<RouteName, ResolvedRoute> {
  const routes = new Map<RouteName, ResolvedRoute>([
    ['companion', { name: 'companion', chains: [COMPANION_CHAIN], behindHops: false, route: null }],
    ['block', { name: 'block', chains: [], behindHops: false, route: null }],
  ]);
  const hops = new Map<string, NamedHop>(Object.entries(config.hops).map(([name, hop]) => [name, { ...hop, name }]));
  const chains = new Map<string, Chain>();
  const chainOf = (names: readonly string[]): Chain => {
    if (names.length === 0) return COMPANION_CHAIN;
    const key = keyOf(names);
    let chain = chains.get(key);
    if (!chain) chains.set(key, (chain = { key, hops: names.map(name => hops.get(name)!) }));
    return chain;
  };
  for (const [name, route] of Object.entries(config.routes)) {
    const list = new Set(route.chains.map(chainOf));
    if (route.else === 'companion') list.add(COMPANION_CHAIN);
    const behindHops = [...list].some(chain => chain.hops.length > 0);
    routes.set(name, { name, chains: [...list], behindHops, route });
  }
  return routes;
}

/** A hop may be called companion too; its connections must never be taken for those of the chain of zero hops. */
function keyOf(names: readonly string[]): string {
  const key = names.join('>');
  return key === COMPANION_CHAIN.key ? `>${key}` : key;
}
