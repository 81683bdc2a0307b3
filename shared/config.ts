// The schema of the one file: what may stand in it, what each key means, what holds where nothing is said.
// The YAML file, control messages and the extension's storage pass through it; types follow from it.
// Short and long forms are told apart before the schema of either runs, so that an error names the inner field.
import * as v from 'valibot';
import { type Action, type Matcher } from './decision/rule.ts';
import { formatMatcher, parseMatcher } from './decision/parse-matcher.ts';
import { type Endpoint, isAddress, normalizeHost, parseEndpoint, parsePort } from './endpoint.ts';
import { type Bytes, GiB, KiB, MiB } from './units.ts';

/** Hand-written sites and rules together; anything larger is a list file. */
export const MAX_HAND_WRITTEN = 5_000;
/** So many times a sentence asks "did you mean", which costs more than to say no. */
const MAX_HINTS = 20;
/** Routes that every configuration has. */
export const BUILT_IN_ROUTES = ['companion', 'block'] as const;

const described = <T extends v.GenericSchema>(schema: T, text: string) => v.pipe(schema, v.description(text));

const isMap = (input: unknown): input is Record<string, unknown> =>
  typeof input === 'object' && input !== null && !Array.isArray(input);

/** A map of exactly these keys. (valibot's strictObject tells of one unknown key only, and takes a list for a map.) */
const strict = <E extends v.ObjectEntries>(
  entries: E,
  otherwise = 'is not a map: write its keys below it, one a line',
) =>
  v.pipe(
    v.custom<Record<string, unknown>>(isMap, otherwise),
    v.looseObject(entries, issue => `needs ${String(issue.path?.at(-1)?.key)}`),
    v.rawCheck(({ dataset, addIssue }) => {
      const input = dataset.value as Record<string, unknown>;
      let unknown = 0;
      for (const key in input) {
        if (Object.hasOwn(entries, key)) continue;
        if (++unknown > MAX_HINTS) break;
        const meant = nearest(key, Object.keys(entries));
        addIssue({
          message: `unknown key "${key}"${meant === null ? '' : ` (did you mean ${meant}?)`}`,
          path: [{ type: 'object', origin: 'key', input, key, value: input[key] }],
        });
      }
    }),
  ) as unknown as v.GenericSchema<unknown, v.InferOutput<v.ObjectSchema<E, undefined>>>;

/** The candidate that differs from `word` by a slip of the fingers, or null. */
export function nearest(word: string, candidates: readonly string[]): string | null {
  if (word.length < 3 || word.length > 40) return null;
  let best: string | null = null;
  let least = Math.max(1, Math.floor(word.length / 3)) + 1;
  for (const candidate of candidates) {
    const distance = editDistance(word.toLowerCase(), candidate.toLowerCase());
    if (distance < least) [best, least] = [candidate, distance];
  }
  return best;
}

// Levenshtein's, with two neighbours swapped counted as one slip.
function editDistance(a: string, b: string): number {
  let before: number[] = [];
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      let cost = Math.min(next[j - 1]! + 1, row[j]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1));
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) cost = Math.min(cost, before[j - 2]! + 1);
      next.push(cost);
    }
    [before, row] = [row, next];
  }
  return row[b.length]!;
}

const text = (otherwise = 'is not text: put it in quotes') => v.string(otherwise);
const count = (least: number, most: number) =>
  v.pipe(
    v.number('is not a whole number'),
    v.safeInteger('is not a whole number'),
    v.minValue(least, `must be at least ${least}`),
    v.maxValue(most, `must be at most ${most}`),
  );

const bytes = v.lazy(input =>
  typeof input === 'number'
    ? v.pipe(v.number(), v.safeInteger('is not a whole number of bytes'), v.minValue(0, 'is negative'))
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

const processes = v.lazy(input =>
  typeof input === 'number' ? count(1, 64) : v.literal('auto', 'is neither a number of processes nor auto'),
) as v.GenericSchema<unknown, number | 'auto'>;

const name = v.pipe(
  text(),
  v.regex(/^[\p{L}\p{N}_][\p{L}\p{N}_.-]{0,63}$/u, 'is not a name: letters, digits, "_", "-" and ".", at most 64'),
);

const seconds = v.pipe(
  v.number('is not a number of seconds'),
  v.minValue(0.05, 'is too short'),
  v.maxValue(86_400, 'is longer than a day'),
);
const port = v.pipe(
  v.number('is not a port number'),
  v.integer('is not a port number'),
  v.minValue(1, 'is not a port: ports go from 1 to 65535'),
  v.maxValue(65_535, 'is not a port: ports go from 1 to 65535'),
);
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
      const what =
        colon > 0 && parsePort(portText) === null
          ? `"${portText}" is not a port: ports go from 1 to 65535`
          : `"${dataset.value}" is not host:port`;
      addIssue({ message: what });
      return NEVER;
    }
    return parsed;
  }),
);

// Hops ---------------------------------------------------------------------------------------------------------------------------------

const HOP_KINDS = ['http', 'socks5'] as const;
export type HopKind = (typeof HOP_KINDS)[number];
const DEFAULT_HOP_PORT: Record<HopKind, number> = { http: 3128, socks5: 1080 };
const isHopKind = (kind: string): kind is HopKind => (HOP_KINDS as readonly string[]).includes(kind);

/** One upstream proxy. The password stays on this machine: never log a Hop. */
export interface Hop {
  readonly kind: HopKind;
  readonly host: string;
  readonly port: number;
  readonly username?: string | undefined;
  readonly password?: string | undefined;
}

const credential = v.pipe(text(), v.maxBytes(255, 'is longer than 255 bytes'));

const LongHop = strict(
  {
    kind: described(v.picklist(HOP_KINDS, 'is not a kind of hop: http or socks5'), 'How to speak to the proxy.'),
    host: described(host, 'Its name or address.'),
    port: described(port, 'Its port.'),
    username: v.optional(described(credential, 'User name, if it asks for one.')),
    password: v.optional(described(credential, 'Password, if it asks for one.')),
  },
  'is not a hop: write socks5://host:1080, or a map of kind, host and port',
);

const HopUrl = v.pipe(
  text(),
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
  if (!match) {
    return text.split('@').length > 2
      ? 'has more than one @: write %40 for an @ in a user name or password'
      : 'is not a proxy URL: write it like socks5://user:password@host:1080';
  }
  const scheme = match[1]!.toLowerCase();
  const kind = scheme === 'socks5h' || scheme === 'socks' ? 'socks5' : scheme;
  if (!isHopKind(kind)) return `"${scheme}" is not a kind of hop: ${HOP_KINDS.join(' or ')}`;
  const where = match[3]!;
  const written = /:\d*$/.test(where) ? where : `${where}:${DEFAULT_HOP_PORT[kind]}`;
  const portText = written.slice(written.lastIndexOf(':') + 1);
  if (portText === '') return 'has no port after the colon';
  if (parsePort(portText) === null) return `"${portText}" is not a port: ports go from 1 to 65535`;
  const at = parseEndpoint(written);
  // What stands here may be a user name and password whose @host was forgotten: it is not repeated.
  if (!at)
    return `has no host:port where one should be: write it like ${kind}://user:password@host:${DEFAULT_HOP_PORT[kind]}`;
  if (match[2] === undefined) return { kind, ...at };
  const colon = match[2].indexOf(':');
  try {
    const username = decodeURIComponent(colon < 0 ? match[2] : match[2].slice(0, colon));
    const password = colon < 0 ? '' : decodeURIComponent(match[2].slice(colon + 1));
    if (!v.is(credential, username) || !v.is(credential, password))
      return 'has a user name or password longer than 255 bytes';
    return { kind, ...at, username, password };
  } catch {
    return 'has a user name or password with a broken % escape';
  }
}

const HopSchema = v.lazy(input =>
  typeof input === 'string' ? HopUrl : (LongHop as v.GenericSchema<unknown, Hop>),
) as v.GenericSchema<unknown, Hop>;

// Routes -------------------------------------------------------------------------------------------------------------------------------

/** A named way out. `chains` are tried in order; `else` absent = closed. */
export interface Route {
  readonly chains: readonly (readonly string[])[];
  readonly else?: 'companion' | undefined;
  readonly isolate?: 'site' | undefined;
  /** Behind hops, private ranges may be asked for by address. */
  readonly private: boolean;
}

const chain = v.pipe(
  v.array(
    v.string('is not the name of a hop'),
    'is not a chain: write the names of its hops in brackets, as in [office, squid]',
  ),
  v.maxLength(8, 'has more than 8 hops'),
);
const chains = v.pipe(
  v.array(chain, 'is not a list of chains: write [[hop], [hop, hop]]'),
  v.minLength(1, 'has no chain'),
  v.maxLength(32, 'has more than 32 chains'),
);
const LongRoute = strict(
  {
    chains: described(chains, 'The chains in the order they are tried; a chain lists its hops in order.'),
    else: v.optional(
      described(
        v.literal('companion', 'can only be companion'),
        'companion: an open route. Absent: closed, it fails when all its chains fail.',
      ),
    ),
    isolate: v.optional(
      described(
        v.literal('site', 'can only be site'),
        'site: every site gets its own credentials toward the last hop (reserved).',
      ),
    ),
    private: v.optional(
      described(v.boolean('is not true or false'), 'Private addresses may be asked for behind the hops.'),
      false,
    ),
  },
  'is not a route: write its chains like [[office], [squid, tor]], or a map with chains',
);
const ShortRoute = v.pipe(
  chains,
  v.transform((list): Route => ({ chains: list, private: false })),
);
const RouteSchema = v.lazy(input =>
  Array.isArray(input) ? ShortRoute : (LongRoute as v.GenericSchema<unknown, Route>),
) as v.GenericSchema<unknown, Route>;

// Sites and rules ----------------------------------------------------------------------------------------------------------------------

const rank = described(
  v.pipe(v.number('is not a whole number'), v.safeInteger('is not a whole number')),
  'Smaller wins. Absent: the more specific rule wins.',
);
const filterLevel = described(
  v.picklist(['off', 'standard', 'strict'], 'is not a filter level: off, standard or strict'),
  'Whether block lists apply.',
);
const cacheMode = described(
  v.picklist(
    ['off', 'standard', 'aggressive', 'offline-first'],
    'is not a cache mode: off, standard, aggressive or offline-first',
  ),
  'How answers are cached.',
);

/** What a site does. */
export interface Site {
  readonly action: Action;
  readonly rank?: number | undefined;
}

const LongSite = v.pipe(
  strict(
    {
      route: described(v.string('is not the name of a route'), 'The route, or off.'),
      filter: v.optional(filterLevel, 'standard'),
      cache: v.optional(cacheMode, 'standard'),
      inspect: v.optional(
        described(v.literal(false, 'is not available yet'), 'Whether TLS is opened (reserved).'),
        false,
      ),
      local: v.optional(
        described(
          v.boolean('is not true or false'),
          'Its pages may reach programs on this machine and devices on its network.',
        ),
        false,
      ),
      rank: v.optional(rank),
    },
    'is not the name of a route, off, or a map with route',
  ),
  v.transform((site): Site => ({ action: actionOf(site), rank: site.rank })),
);
const ShortSite = v.pipe(
  v.string('is not the name of a route, or off'),
  v.transform((route): Site => ({
    action: actionOf({ route, filter: 'standard', cache: 'standard', inspect: false }),
  })),
);
// An unquoted `off` or `no` is a string in YAML 1.2; a real boolean here means someone wrote false.
const SiteSchema = v.lazy(input =>
  input === false
    ? v.pipe(
        v.literal(false),
        v.transform((): Site => ({ action: { do: 'off' } })),
      )
    : typeof input === 'string'
      ? ShortSite
      : (LongSite as v.GenericSchema<unknown, Site>),
) as v.GenericSchema<unknown, Site>;

function actionOf(site: {
  route: string;
  filter: 'off' | 'standard' | 'strict';
  cache: 'off' | 'standard' | 'aggressive' | 'offline-first';
  inspect: boolean;
  local?: boolean;
}): Action {
  if (site.route === 'off') return { do: 'off' };
  if (site.route === 'block') return { do: 'block' };
  const { route, filter, cache, inspect } = site;
  return { do: 'route', route, filter, cache, inspect, ...(site.local ? { local: true } : {}) };
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
  strict(
    {
      host: described(
        matcher,
        'example.com (with its subdomains), .example.com (its subdomains only), =example.com (this host only), or an address range.',
      ),
      route: v.optional(described(v.string('is not the name of a route'), 'Send it by this route; off = not steered.')),
      block: v.optional(described(v.literal(true, 'can only be true'), 'Block it.')),
      allow: v.optional(described(v.literal(true, 'can only be true'), 'Let it through where a list would block it.')),
      filter: v.optional(filterLevel, 'standard'),
      cache: v.optional(cacheMode, 'standard'),
      rank: v.optional(rank),
    },
    'is not a rule: write it like { host: ads.test, block: true }',
  ),
  v.check(
    rule => [rule.route, rule.block, rule.allow].filter(x => x !== undefined).length === 1,
    'needs exactly one of route, block and allow',
  ),
  v.transform((rule): ConfigRule => ({
    matcher: rule.host,
    rank: rule.rank,
    action: rule.block
      ? { do: 'block' }
      : rule.allow
        ? { do: 'allow' }
        : actionOf({ route: rule.route!, filter: rule.filter, cache: rule.cache, inspect: false }),
  })),
);

/** Neither a share of another machine nor a URL; a drive letter is no scheme. */
const localPath = v.pipe(
  text(),
  v.nonEmpty('is empty'),
  v.check(path => !/^([\\/]{2}|[a-z][a-z0-9+.-]+:)/i.test(path), 'is not a path on this machine'),
);

/** A list file and what it does. */
export interface ListSource {
  readonly file: string;
  readonly format: 'hosts';
  readonly action: Action;
  readonly rank?: number | undefined;
}

const ListSchema = v.pipe(
  strict(
    {
      file: described(localPath, 'Path, relative to this file.'),
      format: v.optional(
        described(
          v.literal('hosts', 'is not a list format: hosts'),
          'One host a line, with an optional address before it and an optional # comment.',
        ),
        'hosts',
      ),
      route: v.optional(
        described(v.string('is not the name of a route'), 'Send its hosts by this route; off = not steered.'),
      ),
      block: v.optional(described(v.literal(true, 'can only be true'), 'Block its hosts.')),
      filter: v.optional(filterLevel, 'standard'),
      cache: v.optional(cacheMode, 'standard'),
      rank: v.optional(rank),
    },
    'is not a list file: write it like { file: hosts.txt, route: work }',
  ),
  v.check(list => (list.route === undefined) !== (list.block === undefined), 'needs either route or block'),
  v.transform((list): ListSource => ({
    file: list.file,
    format: list.format,
    rank: list.rank,
    action: list.block
      ? { do: 'block' }
      : actionOf({ route: list.route!, filter: list.filter, cache: list.cache, inspect: false }),
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
    ? v.pipe(
        port,
        v.transform((n): PortRange => ({ from: n, to: n })),
      )
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
    if (typeof parsed === 'string' || (parsed.kind !== 'cidr' && !isAddress(parsed.host))) {
      addIssue({ message: `"${dataset.value}" is not an address range like 127.0.0.0/8` });
      return NEVER;
    }
    return parsed.kind === 'cidr'
      ? { address: parsed.address, prefix: parsed.prefix }
      : { address: parsed.host, prefix: parsed.host.includes(':') ? 128 : 32 };
  }),
);

/** A map of freely named entries, in file order. valibot's own record would drop the hosts `constructor` and `prototype` without a word. */
const mapOf = <T>(key: v.GenericSchema<string, string>, value: v.GenericSchema<unknown, T>, what: string) => {
  const entry = v.record(key, value as v.GenericSchema<never, T>);
  const readEntries: (typeof entry)['~run'] = (dataset, config) => {
    const input = dataset.value as Record<string, unknown>;
    const entries: [string, unknown][] = [];
    const issues: v.BaseIssue<unknown>[] = [];
    let typed = true;
    for (const [written, inside] of Object.entries(input)) {
      const results = [key['~run']({ value: written }, config), value['~run']({ value: inside }, config)] as const;
      for (const [i, result] of results.entries()) {
        const item = { type: 'object', origin: i === 0 ? 'key' : 'value', input, key: written, value: inside } as const;
        for (const issue of result.issues ?? [])
          issues.push({ ...issue, path: [item, ...(i === 0 ? [] : (issue.path ?? []))] } as v.BaseIssue<unknown>);
        if (!result.typed) typed = false;
      }
      if (results[0].typed) entries.push([results[0].value, results[1].value]);
    }
    const read = { typed, value: Object.fromEntries(entries), issues: issues.length > 0 ? issues : undefined };
    return read as ReturnType<(typeof entry)['~run']>;
  };
  return v.pipe(v.custom<Record<string, unknown>>(isMap, `is not a map of ${what}`), {
    ...entry,
    '~run': readEntries,
  }) as unknown as v.GenericSchema<Record<string, unknown>, Record<string, T>>;
};

const onOrOff = v.picklist(['on', 'off'], 'is not on or off');

const userName = v.pipe(
  text(),
  v.regex(/^[^:\p{Cc}]+$/u, 'is not a user name: no colon, and not empty'),
  v.maxBytes(255, 'is longer than 255 bytes'),
);
const file = v.pipe(text('is not a path'), v.nonEmpty('is empty'));
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

const timeToLive = v.pipe(
  v.number('is not a number of seconds'),
  v.minValue(0, 'is negative'),
  v.maxValue(604_800, 'is longer than a week'),
);

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

type Complain = (message: string, origin: 'key' | 'value', ...keys: [string, ...(string | number)[]]) => void;

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

  for (const [route, written] of Object.entries(routes)) {
    if (builtIn(route) || route === 'off') {
      complain(`the name "${route}" is built in; choose another`, 'key', 'routes', route);
    }
    if (!Array.isArray(written?.chains)) continue;
    for (const [i, chain] of (written.chains as unknown[]).entries()) {
      for (const [j, hop] of Array.isArray(chain) ? chain.entries() : []) {
        if (typeof hop !== 'string' || Object.hasOwn(hops, hop)) continue;
        complain(missing('hop', hop, Object.keys(hops)), 'value', 'routes', route, 'chains', i, j);
      }
    }
  }
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
  for (const [i, list] of listOr(config.lists).entries()) checkRoute(routeOf(list), 'lists', i, 'route');
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
