// The schema of the one file: what may stand in it, what each key means, what holds where nothing is said.
// The YAML file, control messages and the extension's storage pass through it; types follow from it.
// Short and long forms are told apart before the schema of either runs, so that an error names the inner field.
import * as v from 'valibot';
import { HopSchema } from './config/hops.ts';
import { BUILT_IN_ROUTES, checkRoutes, type Route, RouteSchema } from './config/routes.ts';
import { SignaturesSchema } from './config/signatures.ts';
import { type ConfigRule, ListSchema, type ListSource, RuleSchema, type Site, SiteSchema } from './config/rules.ts';
import {
  bytes,
  cidr,
  type Complain,
  count,
  credential,
  described,
  endpoint,
  file,
  host,
  isMap,
  localPath,
  mapOf,
  MAX_HINTS,
  name,
  nearest,
  onOrOff,
  portRange,
  processes,
  seconds,
  strict,
  text,
  timeToLive,
} from './config/words.ts';
import type { Action } from './decision/rule.ts';
import { formatMatcher, parseMatcher } from './decision/parse-matcher.ts';
import { type Endpoint, isAddress, normalizeHost, parseEndpoint } from './endpoint.ts';
import { GiB, KiB, MiB } from './units.ts';

/** Hand-written sites and rules together; anything larger is a list file. */
export const MAX_HAND_WRITTEN = 5_000;

const userName = v.pipe(
  text(),
  v.regex(/^[^:\p{Cc}]+$/u, 'is not a user name: no colon, and not empty'),
  v.maxBytes(255, 'is longer than 255 bytes'),
);
const ListenTls = strict(
  {
    cert: described(file, 'The certificate with its chain (PEM), relative to this file.'),
    key: described(file, 'Its key (PEM).'),
  },
  'is not a map: write it like { cert: FILE, key: FILE }',
);

const Guard = strict({
  otherMachines: v.optional(
    described(
      v.boolean('is not true or false'),
      'Other machines may use this proxy, if listen, users, and clients or tls say so too.',
    ),
    false,
  ),
  owner: v.optional(
    described(onOrOff, 'Keeps other users of this machine out, on Linux: only programs of your own user may come.'),
    'off',
  ),
  users: v.nullish(
    described(
      mapOf(userName, v.pipe(credential, v.nonEmpty('is empty')) as v.GenericSchema<unknown, string>, 'users'),
      'Who may use this proxy: names and passwords. Nobody named: no password is asked for.',
    ),
    {},
  ),
  clients: v.optional(
    described(
      v.array(cidr, 'is not a list of address ranges'),
      'Networks that may use this proxy beside this machine.',
    ),
    [],
  ),
  tls: v.optional(described(v.nullable(ListenTls), 'Other machines come by TLS, with this certificate.'), null),
  allow: v.optional(
    described(
      v.array(cidr, 'is not a list of address ranges'),
      'Private ranges that may be reached, e.g. 127.0.0.0/8 in tests.',
    ),
    [],
  ),
  connectPorts: v.optional(
    described(
      v.array(portRange, 'is not a list of ports'),
      "Ports that CONNECT may reach, minus the Fetch standard's bad ports.",
    ),
    ['80', '443', '1024-65535'],
  ),
});

// RFC 9213 §2.1 lets a cache choose the fields it listens to. The names end alike, and are compared in small letters.
const targetedField = v.pipe(
  text('is not the name of a field'),
  v.regex(/^[A-Za-z0-9-]{1,40}-Cache-Control$/i, 'is not the name of a targeted field, such as CDN-Cache-Control'),
  v.toLowerCase(),
);

const CacheConfig = strict({
  memory: v.optional(described(bytes, 'Memory that cached answers may hold; 0 = none are kept there.'), 64 * MiB),
  disk: v.optional(
    described(
      bytes,
      'Disk that cached answers may hold, beside what the companion remembers; 0 = none, and what is there goes.',
    ),
    1 * GiB,
  ),
  entry: v.optional(described(bytes, 'The largest answer that is kept in memory.'), 8 * MiB),
  partition: v.optional(
    described(
      v.picklist(['site', 'none'], 'is not a partition: site or none'),
      'site: what one site has loaded is not there for another, which could tell by the time it takes. none: one cache for all.',
    ),
    'site',
  ),
  semantics: v.optional(
    described(
      v.picklist(['shared', 'private'], 'is not a kind of cache: shared or private'),
      'shared: private answers and those to Authorization are not kept (RFC 9111). private: they are, as in a browser; for one person only.',
    ),
    'shared',
  ),
  targeted: v.optional(
    described(
      v.pipe(
        v.array(targetedField, 'is not a list of fields: write [CDN-Cache-Control]'),
        v.maxLength(8, 'has more than 8 fields'),
      ),
      'Fields that speak to this cache before Cache-Control does, the first that is there (RFC 9213).',
    ),
    [],
  ),
  heuristic: v.optional(
    described(
      timeToLive,
      'An answer that says nothing of its lifetime is fresh for a tenth of its age, at most so many seconds; 0 = never.',
    ),
    86_400,
  ),
  offline: v.optional(
    described(
      onOrOff,
      'While a site cannot be reached, stale answers are served where RFC 9111 (§4.2.4) lets a cache.',
    ),
    'on',
  ),
  collapse: v.optional(
    described(onOrOff, 'Who asks for what another is just being sent waits for that one, and is sent the same.'),
    'on',
  ),
  collapseWait: v.optional(described(seconds, 'Such a one waits so many seconds; then it asks for itself.'), 5),
  finish: v.optional(
    described(
      bytes,
      'What a client leaves is fetched to its end for the cache, if so much or less is missing; 0 = never.',
    ),
    1 * MiB,
  ),
  aggressive: v.optional(
    described(
      timeToLive,
      'Where a site says cache: aggressive, answers that may be kept are fresh for at least so many seconds, reloads or not.',
    ),
    3_600,
  ),
});

const LogConfig = strict({
  file: v.optional(described(v.nullable(localPath), 'A path turns on a rotating JSON-lines log, redacted.'), null),
  size: v.optional(described(bytes, 'It rotates at this size.'), 8 * MiB),
  keep: v.optional(described(count(1, 100), 'Rotated files that are kept.'), 3),
  recent: v.optional(described(count(10, 100_000), 'Exchanges remembered in memory.'), 1_000),
});

const Limits = strict({
  connections: v.optional(described(count(1, 1_000_000), 'Connections open at once.'), 4_096),
  connectionsPerAddress: v.optional(
    described(count(1, 1_000_000), 'Connections open at once from one address of another machine.'),
    512,
  ),
  head: v.optional(described(bytes, 'The largest head of a message.'), 64 * KiB),
  fields: v.optional(described(count(1, 1_000_000), 'The most field lines of a message.'), 200),
  headTimeout: v.optional(described(seconds, 'A request head must arrive within so many seconds.'), 15),
  idleTimeout: v.optional(
    described(seconds, 'A kept connection without a request is closed after so many seconds.'),
    60,
  ),
  bodyTimeout: v.optional(described(seconds, 'A body may stand still for so many seconds.'), 120),
  bodyProgress: v.optional(
    described(bytes, 'So much more of a request body must come within every bodyTimeout; 0 = any byte will do.'),
    1 * KiB,
  ),
  halfClosedTimeout: v.optional(
    described(
      seconds,
      'A client that has closed its side and is owed an answer is taken for gone after so many seconds.',
    ),
    10,
  ),
  tunnelIdleTimeout: v.optional(described(seconds, 'A tunnel without traffic is closed after so many seconds.'), 3_600),
  hopTimeout: v.optional(described(seconds, 'One hop must stand within so many seconds.'), 5),
  routeTimeout: v.optional(described(seconds, 'All chains together must stand within so many seconds.'), 20),
  responseTimeout: v.optional(described(seconds, 'The head of an answer must come within so many seconds.'), 120),
  drainTimeout: v.optional(described(seconds, 'At the end, open exchanges have so many seconds.'), 10),
  pool: v.optional(described(count(0, 1_000_000), 'Idle connections kept toward origins and hops in all.'), 1_024),
  poolPerOrigin: v.optional(described(count(1, 1_000_000), 'Idle connections kept for one chain and origin.'), 64),
  poolIdleTimeout: v.optional(described(seconds, 'An idle connection is kept for so many seconds.'), 30),
  identical: v.optional(
    described(
      count(8, 1_000_000),
      'Requests with the very same head under way at once behind hops; one more is taken for a loop.',
    ),
    256,
  ),
});

const address = v.pipe(
  host,
  v.check(written => isAddress(written), 'is not an address like 192.0.2.7 or 2001:db8::7'),
);
const DNS_PORT = 53;
const dnsServer = v.pipe(
  v.string('is not the address of a server'),
  v.rawTransform<string, Endpoint>(({ dataset, addIssue, NEVER }) => {
    const whole = normalizeHost(dataset.value);
    const parsed = whole !== null && isAddress(whole) ? { host: whole, port: DNS_PORT } : parseEndpoint(dataset.value);
    if (parsed && isAddress(parsed.host)) return parsed;
    addIssue({ message: `"${dataset.value}" is not an address, with or without a port: write it like 192.0.2.53` });
    return NEVER;
  }),
);

/** A DNS-over-HTTPS server. `url` is in normal form. */
export interface DnsOverHttps extends Endpoint {
  readonly url: string;
  readonly path: string;
}

const dnsOverHttps = v.pipe(
  v.string('is not an https URL'),
  v.rawTransform<string, DnsOverHttps>(({ dataset, addIssue, NEVER }) => {
    // RFC 8484 §4.1 writes templates; we POST, so the variable is left out.
    const written = dataset.value.trim().replace(/(?:\{\?dns\}|#.*)$/, '');
    const url = urlOf(written);
    const host = url === null ? null : normalizeHost(url.hostname);
    if (url?.protocol !== 'https:' || host === null || url.username !== '' || url.password !== '') {
      addIssue({ message: 'is not an https URL like https://dns.example/dns-query' });
      return NEVER;
    }
    return { url: url.href, host, port: url.port === '' ? 443 : Number(url.port), path: url.pathname + url.search };
  }),
);

function urlOf(text: string): URL | null {
  try {
    return new URL(text);
  } catch {
    return null;
  }
}

const Dns = v.pipe(
  strict({
    hosts: v.nullish(
      described(
        mapOf(host, address, 'names and addresses'),
        'Addresses for names that the companion looks up itself. The guard judges them like any other.',
      ),
      {},
    ),
    servers: v.nullish(
      described(
        v.pipe(
          v.array(dnsServer, 'is not a list of addresses: write [192.0.2.53]'),
          v.maxLength(8, 'has more than 8 servers'),
        ),
        "DNS servers to ask (UDP, and TCP for long answers) instead of this system's resolver; the next one when one does not answer.",
      ),
      [],
    ),
    https: v.nullish(
      described(dnsOverHttps, "A DNS-over-HTTPS server (RFC 8484) to ask instead of this system's resolver."),
      null,
    ),
    route: v.optional(
      described(v.string('is not the name of a route'), 'The route on which the DNS-over-HTTPS server is reached.'),
      'companion',
    ),
    lies: v.nullish(
      described(
        v.pipe(
          v.array(address, 'is not a list of addresses: write [192.0.2.7]'),
          v.maxLength(1_000, 'has more than 1,000 addresses'),
        ),
        'Addresses that a DNS gives for sites that somebody wants blocked. They count as no answer, and an `auto` route takes the chains.',
      ),
      [],
    ),
    minTtl: v.optional(described(timeToLive, 'An answer is kept at least so many seconds.'), 5),
    maxTtl: v.optional(described(timeToLive, 'An answer is kept at most so many seconds; 0 = not at all.'), 3_600),
    serveStale: v.optional(
      described(
        timeToLive,
        'While the DNS cannot be asked, an old answer is used for so many seconds beyond its time; 0 = never.',
      ),
      3_600,
    ),
  }),
  v.check(
    dns => dns.servers.length === 0 || dns.https === null,
    'has both servers and https: names are asked of one or the other',
  ),
);

// A section whose entries are all commented out reads as null in YAML: it counts as absent.
const Shape = strict(
  {
    listen: v.optional(described(endpoint, 'Where the companion listens.'), '127.0.0.1:8228'),
    hops: v.nullish(described(mapOf(name, HopSchema, 'hops'), 'One proxy each.'), {}),
    routes: v.nullish(described(mapOf(name, RouteSchema, 'routes'), 'Named ways out.'), {}),
    signatures: v.nullish(
      described(SignaturesSchema, 'How the no of a proxy looks that Detour does not know. See docs/refusals.md.'),
      [],
    ),
    sites: v.nullish(described(mapOf(text(), SiteSchema, 'sites'), 'What the popup turns on.'), {}),
    rules: v.nullish(
      described(v.array(RuleSchema, 'is not a list of rules'), 'Rules by hand: block, allow, route.'),
      [],
    ),
    lists: v.nullish(described(v.array(ListSchema, 'is not a list of list files'), 'List files.'), []),
    default: v.optional(
      described(v.string('is not the name of a route'), 'Route of steered traffic that no rule names.'),
      'companion',
    ),
    guard: v.nullish(Guard, {}),
    dns: v.nullish(Dns, {}),
    cache: v.nullish(CacheConfig, {}),
    log: v.nullish(LogConfig, {}),
    limits: v.nullish(Limits, {}),
    workers: v.optional(
      described(processes, 'Processes that carry the traffic; auto: one for every processor. See docs/workers.md.'),
      1,
    ),
  },
  'is not a map of settings: write sections like hops:, routes: and sites:',
);

/**
 * The whole file. Every cross-reference is checked: names of hops, routes and sites, and the bound on hand-written entries.
 * An issue's path follows the long forms (`sites.example.com.route`), also where the short form was written.
 */
export const ConfigSchema = v.pipe(
  Shape,
  v.rawCheck(({ dataset, addIssue }) => {
    const complain: Complain = (message, origin, ...keys) => {
      let input: unknown = dataset.value;
      const path = keys.map(key => {
        const value = (input as Record<string | number, unknown> | undefined)?.[key];
        const item = { type: 'unknown' as const, origin, input, key, value };
        input = value;
        return item;
      });
      addIssue({ message, path: path as unknown as [v.IssuePathItem, ...v.IssuePathItem[]] });
    };
    if (isMap(dataset.value)) checkReferences(dataset.value, complain);
  }),
);

const mapOr = <T>(value: Record<string, T> | undefined): Record<string, T> => (isMap(value) ? value : {});
const listOr = <T>(value: readonly T[] | undefined): readonly T[] => (Array.isArray(value) ? value : []);

/** A configuration in which any value may be missing or of another kind, because another complaint already stands for it. */
interface Unfinished {
  readonly hops?: Record<string, unknown>;
  readonly routes?: Record<string, Partial<Route> | undefined>;
  readonly sites?: Record<string, Partial<Site> | undefined>;
  readonly rules?: readonly (Partial<ConfigRule> | undefined)[];
  readonly lists?: readonly (Partial<ListSource> | undefined)[];
  readonly default?: string;
  readonly dns?: { readonly route?: string };
  readonly guard?: { readonly otherMachines?: unknown; readonly users?: unknown };
  readonly cache?: { readonly semantics?: unknown };
}

function checkReferences(config: Unfinished, complain: Complain): void {
  const routes = mapOr(config.routes);
  const hops = mapOr(config.hops);
  const sites = mapOr(config.sites);
  const builtIn = (route: string) => (BUILT_IN_ROUTES as readonly string[]).includes(route);
  let hints = 0;
  const missing = (what: string, wanted: string, names: readonly string[]) => {
    const meant = ++hints > MAX_HINTS ? null : nearest(wanted, names);
    return `names the ${what} "${wanted}", which does not exist${meant === null ? '' : ` (did you mean ${meant}?)`}`;
  };
  const checkRoute = (route: string | undefined, ...keys: [string, ...(string | number)[]]) => {
    if (typeof route !== 'string' || Object.hasOwn(routes, route) || builtIn(route)) return;
    complain(missing('route', route, [...Object.keys(routes), ...BUILT_IN_ROUTES, 'off']), 'value', ...keys);
  };
  const routeOf = (entry: { action?: Action } | undefined) =>
    entry?.action?.do === 'route' ? entry.action.route : undefined;

  checkRoutes(routes, hops, complain, missing);
  const spelled = new Map<string, string>();
  for (const [site, written] of Object.entries(sites)) {
    const parsed = parseMatcher(site);
    if (typeof parsed === 'string') complain(parsed, 'key', 'sites', site);
    else {
      const normal = formatMatcher(parsed);
      const first = spelled.get(normal);
      if (first !== undefined) complain(`is the same site as "${first}", which stands above it`, 'key', 'sites', site);
      else spelled.set(normal, site);
    }
    checkRoute(routeOf(written), 'sites', site, 'route');
  }
  for (const [i, rule] of listOr(config.rules).entries()) checkRoute(routeOf(rule), 'rules', i, 'route');
  for (const [i, list] of listOr(config.lists).entries()) {
    checkRoute(routeOf(list), 'lists', i, 'route');
    checkRoute(list?.via, 'lists', i, 'via');
    if (list?.via === 'block') complain('leads nowhere: the list could not be fetched', 'value', 'lists', i, 'via');
  }
  checkRoute(config.default, 'default');
  checkRoute(config.dns?.route, 'dns', 'route');
  if (config.dns?.route === 'block') complain('leads nowhere: names could not be looked up', 'value', 'dns', 'route');
  if (config.cache?.semantics === 'private') {
    const { otherMachines, users } = config.guard ?? {};
    if (otherMachines === true || (isMap(users) && Object.keys(users).length > 1))
      complain('cannot be private where several people use this proxy', 'value', 'cache', 'semantics');
  }
  if (Object.keys(sites).length + listOr(config.rules).length > MAX_HAND_WRITTEN) {
    complain(`more than ${MAX_HAND_WRITTEN} sites and rules by hand; put them in a list file`, 'key', 'sites');
  }
}

export type Config = v.InferOutput<typeof ConfigSchema>;
export type ConfigLimits = Config['limits'];
export type ConfigGuard = Config['guard'];
export type ConfigDns = Config['dns'];
export type ConfigCache = Config['cache'];
