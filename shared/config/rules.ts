// What decides in the file: sites, rules by hand, list files.
import * as v from 'valibot';
import type { Action, Matcher } from '../decision/rule.ts';
import { parseMatcher } from '../decision/parse-matcher.ts';
import { described, localPath, strict } from './words.ts';

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

export const RuleSchema = v.pipe(
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
/** A list file and what it does. */
export interface ListSource {
  readonly file: string;
  readonly format: 'hosts';
  readonly action: Action;
  readonly rank?: number | undefined;
}

export const ListSchema = v.pipe(
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
