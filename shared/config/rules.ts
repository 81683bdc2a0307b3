// What decides in the file: sites, rules by hand, list files.
import * as v from 'valibot';
import { parseTimes } from '../decision/condition.ts';
import { compileNameRegex } from '../decision/name-regex.ts';
import { type HostMatcher, parseMatcher } from '../decision/parse-matcher.ts';
import type { Action, Condition, Matcher, TimeSpan } from '../decision/rule.ts';
import type { Seconds } from '../units.ts';
import { described, localPath, portRange, strict } from './words.ts';

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
export const SiteSchema = v.lazy(input =>
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
  v.rawTransform<string, HostMatcher>(({ dataset, addIssue, NEVER }) => {
    const parsed = parseMatcher(dataset.value);
    if (typeof parsed === 'string') {
      addIssue({ message: parsed });
      return NEVER;
    }
    return parsed;
  }),
);

/** A single address stands among the hosts, so it is written with /32 or /128. */
const isRange = ({ kind }: HostMatcher) => kind === 'cidr';

const keyword = v.pipe(
  v.string('is not text: put it in quotes'),
  v.toLowerCase(),
  v.regex(/^[a-z0-9_.-]{2,100}$/, 'is not a part of a host name: two or more letters, digits, ".", "-" and "_"'),
);
const regex = v.pipe(
  v.string('is not an expression: put it in quotes'),
  v.rawCheck(({ dataset, addIssue }) => {
    if (!dataset.typed) return;
    const compiled = compileNameRegex(dataset.value);
    if (typeof compiled === 'string') addIssue({ message: compiled });
  }),
);
const time = v.pipe(
  v.string('is not a time: write it like "Mon-Fri 08:00-18:00"'),
  v.rawTransform<string, readonly TimeSpan[]>(({ dataset, addIssue, NEVER }) => {
    const parsed = parseTimes(dataset.value);
    if (typeof parsed !== 'string') return parsed;
    addIssue({ message: parsed });
    return NEVER;
  }),
);

/** One of rules:. */
export interface ConfigRule {
  readonly matcher: Matcher;
  readonly when?: Condition | undefined;
  readonly action: Action;
  readonly rank?: number | undefined;
}

export const RuleSchema = v.pipe(
  strict(
    {
      host: v.optional(
        described(
          matcher,
          'example.com (with its subdomains), .example.com (its subdomains only), =example.com (this host only), or an address range.',
        ),
      ),
      keyword: v.optional(described(keyword, 'Instead of host: every host name with this text in it.')),
      regex: v.optional(
        described(regex, 'Instead of host: every host name in which this expression is found (docs/rules.md).'),
      ),
      resolved: v.optional(
        described(
          v.literal(true, 'can only be true'),
          'With an address range: also for names that lead there, where the companion would connect by itself.',
        ),
      ),
      port: v.optional(
        described(
          v.lazy(input =>
            Array.isArray(input)
              ? v.pipe(v.array(portRange), v.minLength(1, 'is empty'), v.maxLength(32, 'has more than 32 ports'))
              : v.pipe(
                  portRange,
                  v.transform(range => [range]),
                ),
          ),
          'Only these ports: 8080, 1024-65535, or several in brackets.',
        ),
      ),
      path: v.optional(
        described(
          v.pipe(
            v.string('is not text: put it in quotes'),
            v.startsWith('/', 'does not begin with /'),
            v.maxLength(1_000, 'is longer than 1000 characters'),
          ),
          'Only paths that begin with this; seen on http. In a tunnel a closed route counts for the whole host, any other action not at all.',
        ),
      ),
      time: v.optional(
        described(time, 'Only then, local time: "Mon-Fri 08:00-18:00", "22:00-06:00"; several with ";" between.'),
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
    rule => [rule.host, rule.keyword, rule.regex].filter(x => x !== undefined).length === 1,
    'needs exactly one of host, keyword and regex',
  ),
  v.check(
    rule => rule.resolved === undefined || (rule.host !== undefined && isRange(rule.host)),
    'has resolved, which goes with an address range',
  ),
  v.check(
    rule => [rule.route, rule.block, rule.allow].filter(x => x !== undefined).length === 1,
    'needs exactly one of route, block and allow',
  ),
  v.transform((rule): ConfigRule => ({
    matcher:
      rule.host ??
      (rule.keyword === undefined ? { kind: 'regex', source: rule.regex! } : { kind: 'keyword', text: rule.keyword }),
    when:
      rule.port === undefined && rule.path === undefined && rule.time === undefined && rule.resolved === undefined
        ? undefined
        : { ports: rule.port, path: rule.path, times: rule.time, resolved: rule.resolved },
    rank: rule.rank,
    action: rule.block
      ? { do: 'block' }
      : rule.allow
        ? { do: 'allow' }
        : actionOf({ route: rule.route!, filter: rule.filter, cache: rule.cache, inspect: false }),
  })),
);

const LIST_FORMATS = ['hosts', 'autoproxy', 'switchy', 'clash', 'v2fly'] as const;
export type ListFormat = (typeof LIST_FORMATS)[number];

/** A list and what it does: a file, or what is fetched from a URL. */
export interface ListSource {
  /** Absent where it is fetched. */
  readonly file?: string | undefined;
  readonly url?: string | undefined;
  /** Between two fetches. */
  readonly every: Seconds;
  /** The route by which it is fetched. */
  readonly via: string;
  readonly format: ListFormat;
  readonly action: Action;
  readonly rank?: number | undefined;
}

/** What a list is called: its file or its URL, as written. */
export function nameOfList({ file, url }: Pick<ListSource, 'file' | 'url'>): string {
  return file ?? url!;
}

const listUrl = v.pipe(
  v.string('is not an http or https URL'),
  v.maxLength(2_000, 'is longer than 2000 characters'),
  v.check(written => {
    try {
      const { protocol, username, password } = new URL(written);
      return (protocol === 'https:' || protocol === 'http:') && username === '' && password === '';
    } catch {
      return false;
    }
  }, 'is not an http or https URL without a password'),
);

export const ListSchema = v.pipe(
  strict(
    {
      file: v.optional(described(localPath, 'Path, relative to this file.')),
      url: v.optional(described(listUrl, 'Instead of file: where it is fetched.')),
      every: v.optional(
        described(
          v.pipe(
            v.number('is not a number of seconds'),
            v.minValue(300, 'is less than 300 seconds'),
            v.maxValue(2_592_000, 'is longer than 30 days'),
          ),
          'With url: it is fetched again after so many seconds.',
        ),
        86_400,
      ),
      via: v.optional(
        described(v.string('is not the name of a route'), 'With url: the route by which it is fetched.'),
        'companion',
      ),
      format: v.optional(
        described(
          v.picklist(LIST_FORMATS, 'is not a list format: hosts, autoproxy, switchy, clash or v2fly'),
          'hosts: one host a line. autoproxy (gfwlist), switchy, clash and v2fly: as those write them (docs/rules.md).',
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
    'is not a list: write it like { file: hosts.txt, route: work }',
  ),
  v.check(list => (list.file === undefined) !== (list.url === undefined), 'needs either file or url'),
  v.check(list => (list.route === undefined) !== (list.block === undefined), 'needs either route or block'),
  v.transform((list): ListSource => ({
    file: list.file,
    url: list.url,
    every: list.every,
    via: list.via,
    format: list.format,
    rank: list.rank,
    action: list.block
      ? { do: 'block' }
      : actionOf({ route: list.route!, filter: list.filter, cache: list.cache, inspect: false }),
  })),
);
