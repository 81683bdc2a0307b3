// The routes of the file, with their hops in place of names.
import type { Hop } from '../../shared/config/hops.ts';
import type { RouteName } from '../../shared/decision/rule.ts';
import { isBelow, privacyOf, type Route } from '../../shared/config/routes.ts';
import type { Chain, Group, NamedHop, ResolvedRoute } from '../rooms.ts';

/** The chain of zero hops: the companion connects itself. */
export const COMPANION_CHAIN: Chain = { key: 'companion', hops: [] };

/**
 * Every route by its name, the built-in ones too: `companion` is the chain of zero hops, `block` has none. An open route ends with the chain
 * of zero hops, and `pick: auto` begins with it; a route that stands in another one brings its chains, and not its `else`. The configuration's
 * schema has checked that every hop and route exists, and that no route is within itself.
 */
export function resolveRoutes(config: RoutesOfFile): ReadonlyMap<RouteName, ResolvedRoute> {
  const routes = new Map<RouteName, ResolvedRoute>([
    ['companion', { name: 'companion', chains: [COMPANION_CHAIN], behindHops: false, route: null }],
    ['block', { name: 'block', chains: [], behindHops: false, route: null }],
  ]);
  const hops = new Map<string, NamedHop>(Object.entries(config.hops).map(([name, hop]) => [name, { ...hop, name }]));
  const chains = new Map<string, Chain>();
  const chainOf = (names: readonly string[], isolate: boolean): Chain => {
    if (names.length === 0) return COMPANION_CHAIN;
    const key = keyOf(names);
    // One that isolates is another chain of the same name: what is known of it is known of both, and they share no connection.
    const place = isolate ? `${key} by site` : key;
    let chain = chains.get(place);
    if (!chain) {
      chain = { key, hops: names.map(name => hops.get(name)!), ...(isolate ? { isolate } : {}) };
      chains.set(place, chain);
    }
    return chain;
  };
  const groups = new Map<string, Group>();
  const groupOf = (name: string, within = false): Group => {
    const isolate = within || config.routes[name]!.isolate === 'site';
    const place = isolate ? `${name} by site` : name;
    let group = groups.get(place);
    if (group) return group;
    const { pick, tolerance, chains: written } = config.routes[name]!;
    const members = new Set<Chain | Group>(pick === 'auto' ? [COMPANION_CHAIN] : []);
    for (const one of written)
      members.add(
        typeof one !== 'string' ? chainOf(one, isolate) : one === 'companion' ? COMPANION_CHAIN : groupOf(one, isolate),
      );
    groups.set(place, (group = { name, pick, tolerance, members: [...members] }));
    return group;
  };
  for (const [name, route] of Object.entries(config.routes)) {
    let group = groupOf(name);
    // Only the route that is asked for is open: as a group, an open one must not open what is closed.
    if (route.else === 'companion') group = { ...group, members: [...group.members, COMPANION_CHAIN] };
    const all = [...new Set(chainsOf(group))].filter(chain => !route.floor || !isBelow(standing(chain), route.floor));
    const behindHops = all.some(chain => chain.hops.length > 0);
    routes.set(name, { name, chains: all, group: isInOrder(group) ? undefined : group, behindHops, route });
  }
  return routes;
}

/** The part of the file that routes are made of. */
export interface RoutesOfFile {
  readonly hops: Readonly<Record<string, Hop>>;
  readonly routes: Readonly<Record<string, Route>>;
}

/** Every chain of the group and of those within it, in file order; one may come more than once. */
function chainsOf({ members }: Group): Chain[] {
  return members.flatMap(member => ('hops' in member ? [member] : chainsOf(member)));
}

/** Whether its chains are tried as they stand. */
function isInOrder({ pick, members }: Group): boolean {
  return pick === 'order' && members.every(member => 'hops' in member || isInOrder(member));
}

const standing = ({ hops }: Chain) => ({ privacy: privacyOf(hops), hops: hops.length });

/** A hop may be called companion too; its connections must never be taken for those of the chain of zero hops. */
function keyOf(names: readonly string[]): string {
  const key = names.join('>');
  return key === COMPANION_CHAIN.key ? `>${key}` : key;
}
