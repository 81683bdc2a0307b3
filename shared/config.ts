// The schema of the one file: what may stand in it, what each key means, what holds where nothing is said.
// The YAML file, control messages and the extension's storage pass through it; types follow from it.
// Short and long forms are told apart before the schema of either runs, so that an error names the inner field.
import * as v from 'valibot';
import { type Action, type Matcher } from './decision/rule.ts';
import { parseMatcher } from './decision/parse-matcher.ts';
import { type Endpoint, isAddress, normalizeHost, parseEndpoint, parsePort } from './endpoint.ts';
import { type Bytes, GiB, KiB, MiB } from './units.ts';

/** Hand-written sites and rules together; anything larger is a list file. */
export const MAX_HAND_WRITTEN = 5_000;
/** Routes that every configuration has. */
export const BUILT_IN_ROUTES = ['companion', 'block'] as const;

const described = <T extends v.GenericSchema>(schema: T, text: string) => v.pipe(schema, v.description(text));

const bytes = v.lazy(input =>
  typeof input === 'number'
    ? v.pipe(v.number(), v.integer('is not a whole number of bytes'), v.minValue(0, 'is negative'))
    : v.pipe(
        v.string('is not a size: write a number of bytes or, for example, 64MiB'),
        v.rawTransform<string, Bytes>(({ dataset, addIssue, NEVER }) => {
          const match = /^(\d+(?:\.\d+)?)\s*(B|KiB|MiB|GiB|kB|KB|MB|GB)?$/.exec(dataset.value.trim());
          if (!match) {
            addIssue({ message: `"${dataset.value}" is not a size: write a number of bytes or, for example, 64MiB` });
            return NEVER;
          }
          const unit = { B: 1, KiB, MiB, GiB, kB: 1e3, KB: 1e3, MB: 1e6, GB: 1e9 }[match[2] ?? 'B']!;
          return Math.round(Number(match[1]) * unit);
        }),
      ),
);

const name = v.pipe(
  v.string(),
  v.regex(/^[\p{L}\p{N}_][\p{L}\p{N}_.-]{0,63}$/u, 'is not a name: letters, digits, "_", "-" and ".", at most 64'),
);

const seconds = v.pipe(v.number('is not a number of seconds'), v.minValue(0.05, 'is too short'), v.maxValue(86_400, 'is longer than a day'));
const port = v.pipe(v.number('is not a port number'), v.integer('is not a port number'), v.minValue(1, 'is not a port: ports go from 1 to 65535'), v.maxValue(65_535, 'is not a port: ports go from 1 to 65535'));
const host = v.pipe(
  v.string('is not a host name or address'),
  v.rawTransform<string, string>(({ dataset, addIssue, NEVER }) => {
    const normal = normalizeHost(dataset.value);
    if (normal === null) {
      addIssue({ message: `"${dataset.value}" is not a host name or address` });
      return NEVER;
    }
    return normal;
  }),
);

const endpoint = v.pipe(
  v.string('is not host:port'),
  v.rawTransform<string, Endpoint>(({ dataset, addIssue, NEVER }) => {
    const colon = dataset.value.lastIndexOf(':');
    const portText = dataset.value.slice(colon + 1);
    if (colon > 0 && portText === '0' && normalizeHost(dataset.value.slice(0, colon)) !== null) {
      return { host: normalizeHost(dataset.value.slice(0, colon))!, port: 0 };
    }
    const parsed = parseEndpoint(dataset.value);
    if (!parsed) {
      const what = colon > 0 && parsePort(portText) === null ? `"${portText}" is not a port: ports go from 1 to 65535` : `"${dataset.value}" is not host:port`;
      addIssue({ message: what });
      return NEVER;
    }
    return parsed;
  }),
);

// Hops ---------------------------------------------------------------------------------------------------------------------------------

const HOP_KINDS = ['http', 'socks5'] as const;
export type HopKind = (typeof HOP_KINDS)[number];

/** One upstream proxy. The password stays on this machine: never log a Hop. */
export interface Hop {
  readonly kind: HopKind;
  readonly host: string;
  readonly port: number;
  readonly username?: string | undefined;
  readonly password?: string | undefined;
}

const LongHop = v.strictObject({
  kind: described(v.picklist(HOP_KINDS, 'is not a kind of hop: http or socks5'), 'How to speak to the proxy.'),
  host: described(host, 'Its name or address.'),
  port: described(port, 'Its port.'),
  username: v.optional(described(v.pipe(v.string(), v.maxBytes(255, 'is longer than 255 bytes')), 'User name, if it asks for one.')),
  password: v.optional(described(v.pipe(v.string(), v.maxBytes(255, 'is longer than 255 bytes')), 'Password, if it asks for one.')),
});

const HopUrl = v.pipe(
  v.string(),
  v.rawTransform<string, Hop>(({ dataset, addIssue, NEVER }) => {
    const parsed = parseHopUrl(dataset.value);
    if (typeof parsed === 'string') {
      addIssue({ message: parsed });
      return NEVER;
    }
    return parsed;
  }),
);

/** A one-line proxy URL, `socks5://user:pass@host:port`, or a sentence that says what is wrong with it (never repeating the password). */
export function parseHopUrl(text: string): Hop | string {
  const match = /^([a-z0-9+.-]+):\/\/(?:([^@]*)@)?([^/@]*)\/?$/i.exec(text.trim());
  if (!match) return 'is not a proxy URL: write it like socks5://user:password@host:1080';
  const scheme = match[1]!.toLowerCase();
  const kind = scheme === 'socks5h' || scheme === 'socks' ? 'socks5' : scheme;
  if (!(HOP_KINDS as readonly string[]).includes(kind)) return `"${scheme}" is not a kind of hop: http or socks5`;
  const where = match[3]!;
  const written = /:\d*$/.test(where) ? where : `${where}:${kind === 'http' ? 3128 : 1080}`;
  const portText = written.slice(written.lastIndexOf(':') + 1);
  if (parsePort(portText) === null) return `"${portText}" is not a port: ports go from 1 to 65535`;
  const at = parseEndpoint(written);
  if (!at) return `"${where}" is not host:port`;
  if (match[2] === undefined) return { kind: kind as HopKind, ...at };
  const colon = match[2].indexOf(':');
  try {
    const username = decodeURIComponent(colon < 0 ? match[2] : match[2].slice(0, colon));
    const password = colon < 0 ? '' : decodeURIComponent(match[2].slice(colon + 1));
    return { kind: kind as HopKind, ...at, username, password };
  } catch {
    return 'has a user name or password with a broken % escape';
  }
}

const HopSchema = v.lazy(input => (typeof input === 'string' ? HopUrl : (LongHop as v.GenericSchema<unknown, Hop>))) as v.GenericSchema<unknown, Hop>;

// Routes -------------------------------------------------------------------------------------------------------------------------------

/** A named way out. `chains` are tried in order; `else` absent = closed. */
export interface Route {
  readonly chains: readonly (readonly string[])[];
  readonly else?: 'companion' | undefined;
  readonly isolate?: 'site' | undefined;
  /** Behind hops, private ranges may be asked for by address. */
  readonly private: boolean;
}

const chain = v.pipe(v.array(v.string('is not the name of a hop'), 'is not a chain: write the names of its hops in brackets, as in [office, squid]'), v.maxLength(8, 'has more than 8 hops'));
const chains = v.pipe(v.array(chain, 'is not a list of chains: write [[hop], [hop, hop]]'), v.minLength(1, 'has no chain'), v.maxLength(32, 'has more than 32 chains'));
const LongRoute = v.strictObject({
  chains: described(chains, 'The chains in the order they are tried; a chain lists its hops in order.'),
  else: v.optional(described(v.literal('companion', 'can only be companion'), 'companion: an open route. Absent: closed, it fails when all its chains fail.')),
  isolate: v.optional(described(v.literal('site', 'can only be site'), 'site: every site gets its own credentials toward the last hop (reserved).')),
  private: v.optional(described(v.boolean(), 'Private addresses may be asked for behind the hops.'), false),
});
const ShortRoute = v.pipe(chains, v.transform((list): Route => ({ chains: list, private: false })));
const RouteSchema = v.lazy(input => (Array.isArray(input) ? ShortRoute : (LongRoute as v.GenericSchema<unknown, Route>))) as v.GenericSchema<unknown, Route>;

// Sites and rules ----------------------------------------------------------------------------------------------------------------------

const rank = described(v.pipe(v.number(), v.integer('is not a whole number')), 'Smaller wins. Absent: the more specific rule wins.');
const filterLevel = described(v.picklist(['off', 'standard', 'strict'], 'is not a filter level: off, standard or strict'), 'Whether block lists apply.');
const cacheMode = described(v.picklist(['off', 'standard', 'aggressive', 'offline-first'], 'is not a cache mode: off, standard, aggressive or offline-first'), 'How answers are cached.');

/** What a site does. */
export interface Site {
  readonly action: Action;
  readonly rank?: number | undefined;
}

const LongSite = v.pipe(
  v.strictObject({
    route: described(v.string('is not the name of a route'), 'The route, or off.'),
    filter: v.optional(filterLevel, 'standard'),
    cache: v.optional(cacheMode, 'standard'),
    inspect: v.optional(v.literal(false, 'is not available yet'), false),
    rank: v.optional(rank),
  }),
  v.transform((site): Site => ({ action: actionOf(site), rank: site.rank })),
);
const ShortSite = v.pipe(
  v.string('is not the name of a route, or off'),
  v.transform((route): Site => ({ action: actionOf({ route, filter: 'standard', cache: 'standard', inspect: false }) })),
);
// An unquoted `off` or `no` is a string in YAML 1.2; a real boolean here means someone wrote false.
const SiteSchema = v.lazy(input =>
  input === false ? v.pipe(v.literal(false), v.transform((): Site => ({ action: { do: 'off' } }))) : typeof input === 'string' ? ShortSite : (LongSite as v.GenericSchema<unknown, Site>),
) as v.GenericSchema<unknown, Site>;

function actionOf(site: { route: string; filter: 'off' | 'standard' | 'strict'; cache: 'off' | 'standard' | 'aggressive' | 'offline-first'; inspect: boolean }): Action {
  if (site.route === 'off') return { do: 'off' };
  if (site.route === 'block') return { do: 'block' };
  return { do: 'route', route: site.route, filter: site.filter, cache: site.cache, inspect: site.inspect };
}

const matcher = v.pipe(
  v.string('is not a host, .host, =host or address range'),
  v.rawTransform<string, Matcher>(({ dataset, addIssue, NEVER }) => {
    const parsed = parseMatcher(dataset.value);
    if (typeof parsed === 'string') {
      addIssue({ message: parsed });
      return NEVER;
    }
    return parsed;
  }),
);

/** One of rules:. */
export interface ConfigRule {
  readonly matcher: Matcher;
  readonly action: Action;
  readonly rank?: number | undefined;
}

const RuleSchema = v.pipe(
  v.strictObject({
    host: described(matcher, 'example.com (with its subdomains), .example.com (its subdomains only), =example.com (this host only), or an address range.'),
    route: v.optional(described(v.string('is not the name of a route'), 'Send it by this route; off = not steered.')),
    block: v.optional(described(v.literal(true, 'can only be true'), 'Block it.')),
    allow: v.optional(described(v.literal(true, 'can only be true'), 'Let it through where a list would block it.')),
    filter: v.optional(filterLevel, 'standard'),
    cache: v.optional(cacheMode, 'standard'),
    rank: v.optional(rank),
  }),
  v.check(rule => [rule.route, rule.block, rule.allow].filter(x => x !== undefined).length === 1, 'needs exactly one of route, block and allow'),
  v.transform((rule): ConfigRule => ({
    matcher: rule.host,
    rank: rule.rank,
    action: rule.block ? { do: 'block' } : rule.allow ? { do: 'allow' } : actionOf({ route: rule.route!, filter: rule.filter, cache: rule.cache, inspect: false }),
  })),
);

/** A list file and what it does. */
export interface ListSource {
  readonly file: string;
  readonly format: 'hosts';
  readonly action: Action;
  readonly rank?: number | undefined;
}

const ListSchema = v.pipe(
  v.strictObject({
    file: described(v.pipe(v.string(), v.nonEmpty('is empty'), v.check(path => !/^(\\\\|[a-z][a-z0-9+.-]+:)/i.test(path), 'is not a path on this machine')), 'Path, relative to this file.'),
    format: v.optional(described(v.literal('hosts', 'is not a list format: hosts'), 'One host a line, with an optional address before it and an optional # comment.'), 'hosts'),
    route: v.optional(described(v.string('is not the name of a route'), 'Send its hosts by this route; off = not steered.')),
    block: v.optional(described(v.literal(true, 'can only be true'), 'Block its hosts.')),
    filter: v.optional(filterLevel, 'standard'),
    cache: v.optional(cacheMode, 'standard'),
    rank: v.optional(rank),
  }),
  v.check(list => (list.route === undefined) !== (list.block === undefined), 'needs either route or block'),
  v.transform((list): ListSource => ({
    file: list.file,
    format: list.format,
    rank: list.rank,
    action: list.block ? { do: 'block' } : actionOf({ route: list.route!, filter: list.filter, cache: list.cache, inspect: false }),
  })),
);

// Settings -----------------------------------------------------------------------------------------------------------------------------

/** Inclusive. */
export interface PortRange {
  readonly from: number;
  readonly to: number;
}

const portRange = v.lazy(input =>
  typeof input === 'number'
    ? v.pipe(port, v.transform((n): PortRange => ({ from: n, to: n })))
    : v.pipe(
        v.string('is not a port or a range like 1024-65535'),
        v.rawTransform<string, PortRange>(({ dataset, addIssue, NEVER }) => {
          const [a, b, more] = dataset.value.split('-').map(part => parsePort(part.trim()));
          const from = a ?? null;
          const to = b === undefined ? from : b;
          if (from === null || to === null || more !== undefined || from > to) {
            addIssue({ message: `"${dataset.value}" is not a port or a range like 1024-65535` });
            return NEVER;
          }
          return { from, to };
        }),
      ),
) as v.GenericSchema<unknown, PortRange>;

/** An address range in normal form. */
export interface Cidr {
  readonly address: string;
  readonly prefix: number;
}

const cidr = v.pipe(
  v.string('is not an address range'),
  v.rawTransform<string, Cidr>(({ dataset, addIssue, NEVER }) => {
    const parsed = parseMatcher(dataset.value);
    if (typeof parsed === 'string' || (parsed.kind !== 'cidr' && !(isAddress(parsed.host)))) {
      addIssue({ message: `"${dataset.value}" is not an address range like 127.0.0.0/8` });
      return NEVER;
    }
    return parsed.kind === 'cidr' ? { address: parsed.address, prefix: parsed.prefix } : { address: parsed.host, prefix: parsed.host.includes(':') ? 128 : 32 };
  }),
);

const Guard = v.strictObject({
  allow: v.optional(described(v.array(cidr), 'Private ranges that may be reached, e.g. 127.0.0.0/8 in tests.'), []),
  connectPorts: v.optional(described(v.array(portRange), "Ports that CONNECT may reach, minus the Fetch standard's bad ports."), ['80', '443', '1024-65535']),
});

const CacheConfig = v.strictObject({
  memory: v.optional(described(bytes, 'Memory that cached answers may hold.'), 64 * MiB),
  disk: v.optional(described(bytes, 'Disk that cached answers may hold (reserved; nothing is written to disk yet).'), 1 * GiB),
  entry: v.optional(described(bytes, 'The largest answer that is kept.'), 8 * MiB),
});

const LogConfig = v.strictObject({
  file: v.optional(described(v.nullable(v.pipe(v.string(), v.nonEmpty('is empty'))), 'A path turns on a rotating JSON-lines log, redacted.'), null),
  size: v.optional(described(bytes, 'It rotates at this size.'), 8 * MiB),
  keep: v.optional(described(v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(100)), 'Rotated files that are kept.'), 3),
  recent: v.optional(described(v.pipe(v.number(), v.integer(), v.minValue(10), v.maxValue(100_000)), 'Exchanges remembered in memory.'), 1_000),
});

const Limits = v.strictObject({
  connections: v.optional(described(v.pipe(v.number(), v.integer(), v.minValue(1)), 'Connections open at once.'), 4_096),
  head: v.optional(described(bytes, 'The largest head of a message.'), 64 * KiB),
  fields: v.optional(described(v.pipe(v.number(), v.integer(), v.minValue(1)), 'The most field lines of a message.'), 200),
  headTimeout: v.optional(described(seconds, 'A request head must arrive within so many seconds.'), 15),
  idleTimeout: v.optional(described(seconds, 'A kept connection without a request is closed after so many seconds.'), 60),
  bodyTimeout: v.optional(described(seconds, 'A body may stand still for so many seconds.'), 120),
  tunnelIdleTimeout: v.optional(described(seconds, 'A tunnel without traffic is closed after so many seconds.'), 3_600),
  hopTimeout: v.optional(described(seconds, 'One hop must stand within so many seconds.'), 5),
  routeTimeout: v.optional(described(seconds, 'All chains together must stand within so many seconds.'), 20),
  responseTimeout: v.optional(described(seconds, 'The head of an answer must come within so many seconds.'), 120),
  drainTimeout: v.optional(described(seconds, 'At the end, open exchanges have so many seconds.'), 10),
  poolPerOrigin: v.optional(described(v.pipe(v.number(), v.integer(), v.minValue(1)), 'Idle connections kept for one chain and origin.'), 64),
});

/** Records with checked keys, in file order. */
const named = <T>(value: v.GenericSchema<unknown, T>, what: string) =>
  v.record(name, value, `is not a map of ${what}`) as unknown as v.GenericSchema<unknown, Record<string, T>>;

const Shape = v.strictObject({
  listen: v.optional(described(endpoint, 'Where the companion listens.'), '127.0.0.1:8228'),
  hops: v.optional(described(named(HopSchema, 'hops'), 'One proxy each.'), {}),
  routes: v.optional(described(named(RouteSchema, 'routes'), 'Named ways out.'), {}),
  sites: v.optional(described(v.record(v.string(), SiteSchema, 'is not a map of sites') as unknown as v.GenericSchema<unknown, Record<string, Site>>, 'What the popup turns on.'), {}),
  rules: v.optional(described(v.array(RuleSchema, 'is not a list of rules'), 'Rules by hand: block, allow, route.'), []),
  lists: v.optional(described(v.array(ListSchema, 'is not a list of list files'), 'List files.'), []),
  default: v.optional(described(v.string('is not the name of a route'), 'Route of steered traffic that no rule names.'), 'companion'),
  guard: v.optional(Guard, {}),
  cache: v.optional(CacheConfig, {}),
  log: v.optional(LogConfig, {}),
  limits: v.optional(Limits, {}),
});

/** The whole file. Every cross-reference is checked: names of hops, routes and sites, and the bound on hand-written entries. */
export const ConfigSchema = v.pipe(
  Shape,
  v.rawCheck(({ dataset, addIssue }) => {
    if (!dataset.typed) return;
    const config = dataset.value;
    const complain = (message: string, ...keys: (string | number)[]) => {
      let input: unknown = config;
      const path = keys.map(key => {
        const item = { type: 'unknown' as const, origin: 'value' as const, input, key, value: (input as Record<string | number, unknown> | undefined)?.[key] };
        input = item.value;
        return item;
      });
      addIssue({ message, path: path as unknown as [v.IssuePathItem, ...v.IssuePathItem[]] });
    };
    const routeKnown = (route: string) => Object.hasOwn(config.routes, route) || (BUILT_IN_ROUTES as readonly string[]).includes(route);
    const unknownRoute = (route: string) => `names the route "${route}", which does not exist`;
    for (const [route, { chains: list }] of Object.entries(config.routes)) {
      if ((BUILT_IN_ROUTES as readonly string[]).includes(route) || route === 'off') complain(`the name "${route}" is built in; choose another`, 'routes', route);
      list.forEach((hops, i) =>
        hops.forEach((hop, j) => {
          if (!Object.hasOwn(config.hops, hop)) complain(`names the hop "${hop}", which does not exist`, 'routes', route, i, j);
        }),
      );
    }
    for (const [site, { action }] of Object.entries(config.sites)) {
      const parsed = parseMatcher(site);
      if (typeof parsed === 'string') complain(parsed, 'sites', site);
      if (action.do === 'route' && !routeKnown(action.route)) complain(unknownRoute(action.route), 'sites', site);
    }
    config.rules.forEach(({ action }, i) => {
      if (action.do === 'route' && !routeKnown(action.route)) complain(unknownRoute(action.route), 'rules', i);
    });
    config.lists.forEach(({ action }, i) => {
      if (action.do === 'route' && !routeKnown(action.route)) complain(unknownRoute(action.route), 'lists', i);
    });
    if (!routeKnown(config.default)) complain(unknownRoute(config.default), 'default');
    if (Object.keys(config.sites).length + config.rules.length > MAX_HAND_WRITTEN) {
      complain(`more than ${MAX_HAND_WRITTEN} sites and rules by hand; put them in a list file`, 'sites');
    }
  }),
);

export type Config = v.InferOutput<typeof ConfigSchema>;
export type ConfigLimits = Config['limits'];
export type ConfigGuard = Config['guard'];
