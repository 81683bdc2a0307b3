// A named way out in the file: its chains, groups of chains, and how one of them is chosen.
import * as v from 'valibot';
import { type Bytes, KiB, type Milliseconds, MiB } from '../units.ts';
import { bytes, type Complain, count, credential, described, isMap, strict, text } from './words.ts';

/** Routes that every configuration has. */
export const BUILT_IN_ROUTES = ['companion', 'block'] as const;

const PICKS = ['order', 'latency', 'round-robin', 'sticky', 'race', 'auto'] as const;
/** How one of the chains is chosen. */
export type Pick = (typeof PICKS)[number];

/** A route may stand in a route that stands in a route …, so many times. */
const MAX_DEPTH = 4;
/** Chains of a route, with those of its groups; one that stands in several places is counted in each. */
const MAX_CHAINS = 64;
/** The class of the companion's own connection, of a hop that says nothing, and of a Tor hop that says nothing. */
const PRIVACY = { companion: 0, hop: 1, tor: 3 } as const;

/** What every chain of a route has at least. */
export interface Floor {
  readonly privacy: number;
  readonly hops: number;
}

/** Asked for through every chain from time to time, to know of one that is down before anybody needs it. */
export interface HealthCheck {
  /** In normal form, http or https. */
  readonly url: string;
  readonly status: number;
  /** In seconds, and give or take so many. */
  readonly every: number;
  readonly jitter: number;
}

/** A named way out. Of `chains` the names of hops are a chain, and a name alone is another route as a group; `else` absent = closed. */
export interface Route {
  readonly chains: readonly (readonly string[] | string)[];
  readonly pick: Pick;
  /** By so much a later chain must be faster to overtake (`latency`). */
  readonly tolerance: Milliseconds;
  readonly else?: 'companion' | undefined;
  readonly isolate?: 'site' | undefined;
  /** Behind hops, private ranges may be asked for by address. */
  readonly private: boolean;
  /** No chain below it is ever tried. */
  readonly floor?: Floor | undefined;
  /** Absent: nothing is asked for that nobody asked for. */
  readonly check?: HealthCheck | undefined;
  /** Whose no it is taken for when nobody can tell. */
  readonly unknown: 'origin' | 'proxy';
  /** What becomes of a request that must not be sent twice, and that a hop's own policy has provably refused. */
  readonly refused: 'next' | 'relay';
  /** So much of a request body is kept until it is known that it need not be sent again. */
  readonly buffer: Bytes;
}

/** What a route says that says nothing. */
export const ROUTE_DEFAULTS = {
  pick: 'order',
  tolerance: 50,
  private: false,
  unknown: 'origin',
  refused: 'next',
  buffer: 256 * KiB,
} as const satisfies Omit<Route, 'chains'>;

const hopsOfChain = v.pipe(
  v.array(
    v.string('is not the name of a hop'),
    'is not a chain: write the names of its hops in brackets, as in [office, squid], or the name of another route',
  ),
  v.maxLength(8, 'has more than 8 hops'),
);
const chain = v.lazy(input => (typeof input === 'string' ? text() : hopsOfChain)) as v.GenericSchema<
  unknown,
  readonly string[] | string
>;
const chains = v.pipe(
  v.array(chain, 'is not a list of chains: write [[hop], [hop, hop]]'),
  v.minLength(1, 'has no chain'),
  v.maxLength(32, 'has more than 32 chains'),
);

const floor = strict(
  {
    privacy: v.optional(described(count(0, 9), 'The class of its highest hop is at least this.'), 0),
    hops: v.optional(described(count(0, 8), 'It has at least so many hops.'), 0),
  },
  'is not a floor: write it like { privacy: 1, hops: 2 }',
);

const checkUrl = v.pipe(
  v.string('is not a URL'),
  v.rawTransform<string, string>(({ dataset, addIssue, NEVER }) => {
    try {
      const url = new URL(dataset.value);
      if (/^https?:$/.test(url.protocol) && url.username === '' && url.password === '') return url.href.split('#')[0]!;
    } catch {}
    addIssue({ message: 'is not an http or https URL like http://example.com/generate_204' });
    return NEVER;
  }),
);
const check = v.pipe(
  strict(
    {
      url: described(checkUrl, 'What is asked for through every chain.'),
      status: v.optional(described(count(100, 599), 'The status that means that the chain is up.'), 204),
      every: v.optional(described(count(5, 86_400), 'In seconds.'), 300),
      jitter: v.optional(described(count(0, 86_400), 'Give or take so many seconds.'), 30),
    },
    'is not a check: write it like { url: http://example.com/generate_204 }',
  ),
  v.check(({ every, jitter }) => jitter < every, 'has a jitter that is not smaller than every'),
);

const LongRoute = strict(
  {
    chains: described(
      chains,
      'The chains in the order they are tried; a chain lists its hops in order, and the name of another route stands for all of its chains.',
    ),
    pick: v.optional(
      described(
        v.picklist(PICKS, `is not a way to choose a chain: ${PICKS.slice(0, -1).join(', ')} or ${PICKS.at(-1)}`),
        'How a chain is chosen. See docs/routes.md.',
      ),
      ROUTE_DEFAULTS.pick,
    ),
    tolerance: v.optional(
      described(count(0, 60_000), 'latency: by so many milliseconds a later chain must be faster to overtake.'),
      ROUTE_DEFAULTS.tolerance,
    ),
    else: v.optional(
      described(
        v.literal('companion', 'can only be companion'),
        'companion: an open route. Absent: closed, it fails when all its chains fail.',
      ),
    ),
    isolate: v.optional(
      described(
        v.literal('site', 'can only be site'),
        'site: toward a last hop of kind socks5 or tor every site gets a login of its own (tor does so anyway).',
      ),
    ),
    private: v.optional(
      described(v.boolean('is not true or false'), 'Private addresses may be asked for behind the hops.'),
      ROUTE_DEFAULTS.private,
    ),
    floor: v.optional(described(floor, 'No chain below it is ever tried; none may stand here.')),
    check: v.optional(described(check, 'Asks for a URL through every chain from time to time. Absent: never.')),
    unknown: v.optional(
      described(
        v.picklist(['origin', 'proxy'], 'is neither origin nor proxy'),
        'Whose a no is that may be anybody’s. origin: it is the answer. proxy: the next chain is tried.',
      ),
      ROUTE_DEFAULTS.unknown,
    ),
    refused: v.optional(
      described(
        v.picklist(['next', 'relay'], 'is neither next nor relay'),
        'A POST that a proxy’s own policy has provably refused goes to the next chain, or the refusal is its answer.',
      ),
      ROUTE_DEFAULTS.refused,
    ),
    buffer: v.optional(
      described(
        v.pipe(bytes, v.maxValue(16 * MiB, 'is more than 16MiB')),
        'So much of a request body is kept to be sent again by the next chain; 0 = none.',
      ),
      ROUTE_DEFAULTS.buffer,
    ),
  },
  'is not a route: write its chains like [[office], [squid, tor]], or a map with chains',
);
const ShortRoute = v.pipe(
  chains,
  v.transform((list): Route => ({ ...ROUTE_DEFAULTS, chains: list })),
);
export const RouteSchema = v.lazy(input =>
  Array.isArray(input) ? ShortRoute : (LongRoute as v.GenericSchema<unknown, Route>),
) as v.GenericSchema<unknown, Route>;

/** The privacy class of a chain: that of its highest hop; the companion's own connection has none. */
export function privacyOf(hops: readonly unknown[]): number {
  let highest: number = PRIVACY.companion;
  for (const hop of hops) {
    const { privacy, kind } = isMap(hop) ? hop : {};
    highest = Math.max(highest, typeof privacy === 'number' ? privacy : kind === 'tor' ? PRIVACY.tor : PRIVACY.hop);
  }
  return highest;
}

// What only the whole file can tell ------------------------------------------------------------------------------------------------

/** A route in which any value may be missing or of another kind, because another complaint already stands for it. */
type Unfinished = Partial<Route> | undefined;
type Missing = (what: string, wanted: string, names: readonly string[]) => string;

/** Every hop and route that a route names is there; groups have an end; no chain is below the floor. */
export function checkRoutes(
  routes: Readonly<Record<string, Unfinished>>,
  hops: Readonly<Record<string, unknown>>,
  complain: Complain,
  missing: Missing,
): void {
  for (const [name, written] of Object.entries(routes)) {
    if (name === 'off' || (BUILT_IN_ROUTES as readonly string[]).includes(name))
      complain(`the name "${name}" is built in; choose another`, 'key', 'routes', name);
    for (const [i, member] of chainsOf(written).entries()) {
      if (typeof member === 'string') checkGroupName(name, i, member);
      else for (const [j, hop] of Array.isArray(member) ? member.entries() : []) checkHopName(name, i, j, hop);
    }
  }
  const known = new Map<string, Whole>();
  for (const name of fromTheInside(routes, complain))
    known.set(name, checkWhole(name, routes[name], hops, known, complain));

  function checkHopName(route: string, i: number, j: number, hop: unknown): void {
    if (typeof hop !== 'string' || Object.hasOwn(hops, hop)) return;
    complain(missing('hop', hop, Object.keys(hops)), 'value', 'routes', route, 'chains', i, j);
  }

  function checkGroupName(route: string, i: number, group: string): void {
    if (Object.hasOwn(routes, group) || group === 'companion') return;
    const message =
      group === 'block' || group === 'off'
        ? `cannot have "${group}" for a group: it has no chains`
        : Object.hasOwn(hops, group)
          ? `names the route "${group}", which does not exist (a chain of the hop is written [${group}])`
          : missing('route', group, [...Object.keys(routes), 'companion']);
    complain(message, 'value', 'routes', route, 'chains', i);
  }
}

const chainsOf = (written: Unfinished): readonly unknown[] => (Array.isArray(written?.chains) ? written.chains : []);

/** The chains of a route with those of its groups. */
interface Whole {
  /** What a chain is to a floor, and why its last hop cannot keep sites apart (null: it can); by the names of its hops. */
  readonly chains: ReadonlyMap<string, Floor & { readonly mixes: string | null }>;
  /** In how many places they stand: each is looked at when a chain is picked. */
  readonly places: number;
}
const NO_CHAINS: Whole = { chains: new Map(), places: 0 };
const COMPANION: Whole = {
  chains: new Map([
    ['', { privacy: PRIVACY.companion, hops: 0, mixes: 'the companion’s own connection has no login' }],
  ]),
  places: 1,
};

/** Why this last hop cannot have a login for each site; null where it can, and of one that is not there. */
function whyMixed(name: unknown, hop: unknown): string | null {
  if (!isMap(hop) || hop['kind'] === undefined || hop['kind'] === 'tor') return null;
  const { kind, username } = hop;
  const its = `its last hop "${String(name)}"`;
  if (kind !== 'socks5') return `${its} is ${String(kind)}, and only socks5 and tor take a login for each`;
  if (typeof username !== 'string') return null;
  if (!username.includes('{site}'))
    return `${its} has a user name of its own; write {site} in it where the name of each site goes`;
  const longest = username.replace('{site}', 'x'.repeat(22));
  return v.is(credential, longest) ? null : `${its} has a user name that is too long with the name of a site in it`;
}

/** Complains of a route by its chains and those of its groups, which are known already. Gives back all of them. */
function checkWhole(
  name: string,
  written: Unfinished,
  hops: Readonly<Record<string, unknown>>,
  known: ReadonlyMap<string, Whole>,
  complain: Complain,
): Whole {
  const { pick, floor } = written ?? {};
  const asks = isMap(floor) && (floor.privacy > 0 || floor.hops > 0) ? floor : null;
  const chains = new Map(pick === 'auto' ? COMPANION.chains : []);
  let places = chains.size;
  if (asks && pick === 'auto')
    complain(
      'cannot be auto with a floor: the companion’s own connection is below it',
      'value',
      'routes',
      name,
      'pick',
    );
  if (asks && written?.else === 'companion')
    complain('cannot go with a floor: the companion’s own connection is below it', 'value', 'routes', name, 'else');
  const isolates = written?.isolate === 'site';
  for (const [i, member] of chainsOf(written).entries()) {
    let inside = COMPANION;
    if (typeof member === 'string') inside = member === 'companion' ? COMPANION : (known.get(member) ?? NO_CHAINS);
    else if (Array.isArray(member) && member.length > 0) {
      const found = member.map(hop => (typeof hop === 'string' && Object.hasOwn(hops, hop) ? hops[hop] : null));
      const mixes = whyMixed(member.at(-1), found.at(-1));
      const chain = { privacy: privacyOf(found), hops: member.length, mixes };
      inside = { chains: new Map([[member.join('>'), chain]]), places: 1 };
    }
    const mixed = isolates && [...inside.chains.values()].find(({ mixes }) => mixes !== null);
    if (mixed) complain(`cannot be told apart by site: ${mixed.mixes}`, 'value', 'routes', name, 'chains', i);
    const low = asks && [...inside.chains].find(([, chain]) => isBelow(chain, asks));
    if (low) {
      const chain =
        typeof member === 'string' ? `holds the chain [${low[0].replaceAll('>', ', ')}], which` : 'is a chain that';
      complain(`${chain} is below the floor: ${sayBelow(low[1], asks)}`, 'value', 'routes', name, 'chains', i);
    }
    for (const [key, chain] of inside.chains) chains.set(key, chain);
    places += inside.places;
    if (places <= MAX_CHAINS) continue;
    complain(`has more than ${MAX_CHAINS} chains with those of its groups`, 'value', 'routes', name, 'chains', i);
    return NO_CHAINS;
  }
  return { chains, places };
}

/** Whether a chain is one that the floor forbids. */
export function isBelow(chain: Floor, { privacy, hops }: Floor): boolean {
  return chain.privacy < privacy || chain.hops < hops;
}

function sayBelow(chain: Floor, asks: Floor): string {
  return chain.hops < asks.hops
    ? `it has ${chain.hops} hop${chain.hops === 1 ? '' : 's'}, and at least ${asks.hops} are asked for`
    : `its privacy class is ${chain.privacy}, and at least ${asks.privacy} is asked for`;
}

/** The names of routes, each after its groups. Complains of those that have no end, or too late a one; they are left out. */
function fromTheInside(routes: Readonly<Record<string, Unfinished>>, complain: Complain): string[] {
  const groupsOf = (name: string) =>
    chainsOf(routes[name]).filter(
      (member): member is string => typeof member === 'string' && Object.hasOwn(routes, member),
    );
  const depth = new Map<string, number>();
  const open = new Map<string, number>();
  const usedBy = new Map<string, string[]>();
  const ready: string[] = [];
  for (const name of Object.keys(routes)) {
    const groups = groupsOf(name);
    open.set(name, groups.length);
    if (groups.length === 0) ready.push(name);
    for (const group of groups) {
      const users = usedBy.get(group);
      if (users) users.push(name);
      else usedBy.set(group, [name]);
    }
  }
  for (const name of ready) {
    open.delete(name);
    const below = groupsOf(name).map(group => depth.get(group)!);
    const own = below.length === 0 ? 0 : Math.max(...below) + 1;
    depth.set(name, own);
    if (own === MAX_DEPTH + 1) {
      const place = chainsOf(routes[name]).findIndex(one => typeof one === 'string' && depth.get(one) === MAX_DEPTH);
      complain(
        `leads through more than ${MAX_DEPTH} routes within each other`,
        'value',
        'routes',
        name,
        'chains',
        place,
      );
    }
    for (const user of usedBy.get(name) ?? []) {
      const left = open.get(user)! - 1;
      open.set(user, left);
      if (left === 0) ready.push(user);
    }
  }
  // What is left leads in a circle, or to one.
  const walked = new Set<string>();
  for (const start of open.keys()) {
    const way: string[] = [];
    let at = start;
    for (; !walked.has(at); at = groupsOf(at).find(group => open.has(group))!) {
      walked.add(at);
      way.push(at);
    }
    const circle = way.includes(at) ? way.slice(way.indexOf(at)) : [];
    if (circle.length === 0) continue;
    const last = circle.at(-1)!;
    const said = circle.length > 8 ? [...circle.slice(0, 7), '…', last] : circle;
    const place = chainsOf(routes[last]).indexOf(at);
    complain(`leads in a circle: ${[...said, at].join(' → ')}`, 'value', 'routes', last, 'chains', place);
  }
  return ready.filter(name => depth.get(name)! <= MAX_DEPTH);
}
