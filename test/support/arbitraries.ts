// Rule sets and URLs for property tests, drawn from few words so that rules and URLs meet, with the spellings that hosts come in.
import fc from 'fast-check';
import { normalizeHost } from '../../shared/endpoint.ts';
import { parseMatcher } from '../../shared/decision/parse-matcher.ts';
import type { Action, Condition, Matcher, Rule, RuleList, RuleSource } from '../../shared/decision/rule.ts';
import { ruleTableOf } from '../../shared/decision/rule-table.ts';

const label = fc.constantFrom('a', 'b', 'www', 'x-y', 'test', 'com', '9', 'bücher', 'toString', 'constructor', 'de');
const top = fc.constantFrom('test', 'com', 'de', 'xn--p1ai', 'intranet', 'constructor');
const name = fc.tuple(fc.array(label, { maxLength: 3 }), top).map(([labels, last]) => [...labels, last].join('.'));
const four = fc
  .tuple(fc.constantFrom(10, 127, 192), fc.constantFrom(0, 1, 168), fc.constantFrom(0, 1), fc.constantFrom(1, 2, 255))
  .map(parts => parts.join('.'));
const six = fc.constantFrom(
  '::',
  '::1',
  '1::',
  'fd00::1',
  'fd00::2',
  '2001:db8::1',
  '2001:db8:1::1',
  '::fffe:0:0',
  '1:2:3:4:5:6:7:8',
  '1::2:0:0:3:4',
);
const host = fc.oneof({ weight: 6, arbitrary: name }, { weight: 2, arbitrary: four }, { weight: 1, arbitrary: six });

const matcherText = fc.oneof(
  { weight: 5, arbitrary: host },
  { weight: 2, arbitrary: name.map(text => `.${text}`) },
  { weight: 2, arbitrary: name.map(text => `=${text}`) },
  {
    weight: 2,
    arbitrary: fc
      .tuple(four, fc.constantFrom(0, 1, 8, 16, 24, 31, 32))
      .map(([address, prefix]) => `${address}/${prefix}`),
  },
  {
    weight: 1,
    arbitrary: fc
      .tuple(six, fc.constantFrom(0, 1, 16, 48, 64, 81, 96, 127, 128))
      .map(([address, prefix]) => `${address}/${prefix}`),
  },
);
const matcher: fc.Arbitrary<Matcher> = matcherText.map(parseMatcher).filter(parsed => typeof parsed !== 'string');

const route: fc.Arbitrary<Action> = fc.constantFrom('work', 'companion').chain(name_ =>
  fc.constantFrom('off' as const, 'standard' as const).chain(filter =>
    fc.constantFrom(undefined, true as const).map(local => ({
      do: 'route' as const,
      route: name_,
      filter,
      cache: 'standard' as const,
      inspect: false,
      local,
    })),
  ),
);
const action: fc.Arbitrary<Action> = fc.oneof(
  { weight: 4, arbitrary: route },
  fc.constant({ do: 'off' as const }),
  fc.constant({ do: 'block' as const }),
  fc.constant({ do: 'allow' as const }),
);
const rank = fc.option(fc.constantFrom(1, 500, 1997, 2500, 2900), { nil: undefined, freq: 4 });

const pattern: fc.Arbitrary<Matcher> = fc.oneof(
  fc
    .constantFrom('a.', 'ww', 'te', 'est', 'b.t', 'com', '-y', 'structor', '.d')
    .map(text => ({ kind: 'keyword' as const, text })),
  fc
    .constantFrom(
      '^a',
      'b\\.',
      '^(www|b)\\.',
      'test$',
      '[^w]\\.com',
      '^[a-z]{1,3}\\.',
      '(a|b)*\\.de$',
      '\\d',
      'x-?y',
      '^$',
    )
    .map(source => ({ kind: 'regex' as const, source })),
);
const when: fc.Arbitrary<Condition> = fc
  .record({
    ports: fc.option(fc.constantFrom([{ from: 80, to: 80 }], [{ from: 1_024, to: 65_535 }]), { nil: undefined }),
    path: fc.option(fc.constantFrom('/', '/a', '/b'), { nil: undefined }),
    times: fc.option(fc.constantFrom([{ days: 127, from: 0, to: 720 }], [{ days: 62, from: 1_320, to: 360 }]), {
      nil: undefined,
    }),
    wholeHost: fc.boolean(),
  })
  .filter(({ ports, path, times }) => ports !== undefined || path !== undefined || times !== undefined);
const never = fc.constant(undefined);

function rulesFrom(parts: {
  matcher: fc.Arbitrary<Matcher>;
  rank: fc.Arbitrary<number | undefined>;
  when: fc.Arbitrary<Condition | undefined>;
}): fc.Arbitrary<RuleSource> {
  return fc.record({
    rules: fc
      .array(fc.record({ ...parts, action }), { maxLength: 10 })
      .map(rules => rules.map((rule, i): Rule => ({ ...rule, id: `rules[${i}]` }))),
    lists: fc
      .array(
        fc.record({
          action: fc.oneof(route, fc.constant({ do: 'block' as const })),
          rank: parts.rank,
          entries: fc.array(
            fc.record({
              matcher: parts.matcher,
              when: parts.when,
              allow: fc.option(fc.constant(true), { nil: undefined, freq: 5 }),
            }),
            { maxLength: 6 },
          ),
        }),
        { maxLength: 2 },
      )
      .map(lists =>
        lists.map((list, i): RuleList => ({
          action: list.action,
          rank: list.rank,
          id: `lists[${i}]`,
          name: `list-${i}.txt`,
          table: ruleTableOf(list.entries.map((entry, j) => ({ ...entry, line: j + 1 }))),
        })),
      ),
  });
}

/** Sites and rules, and up to two lists; all by host. */
export const anyRules: fc.Arbitrary<RuleSource> = rulesFrom({ matcher, rank, when: never });

const anyMatcher = fc.oneof({ weight: 2, arbitrary: matcher }, { weight: 1, arbitrary: pattern });
/** With keywords and expressions among them, ranked as they rank by themselves. */
export const anyRulesWithPatterns: fc.Arbitrary<RuleSource> = rulesFrom({
  matcher: anyMatcher,
  rank: never,
  when: never,
});

/** All that there is: ranks by hand, ports, paths and times. */
export const anyRulesWhatever: fc.Arbitrary<RuleSource> = rulesFrom({
  matcher: anyMatcher,
  rank: fc.option(fc.constantFrom(1, 500, 1997, 2500, 2900, 4000, 5000), { nil: undefined, freq: 4 }),
  when: fc.option(when, { nil: undefined, freq: 2 }),
});

/** All eight groups of an IPv6 address, four digits each. */
function expanded(written: string): string {
  const [before = [], after = []] = written.split('::').map(side => side.split(':').filter(Boolean));
  const gap = Array<string>(8 - before.length - after.length).fill('0');
  return [...before, ...gap, ...after].map(group => group.padStart(4, '0')).join(':');
}

/** The spellings in which one host may stand in a URL. */
const spelled = (written: string): fc.Arbitrary<string> => {
  if (written.includes(':'))
    return fc.constantFrom(`[${written}]`, `[${written.toUpperCase()}]`, `[${expanded(written)}]`);
  const parts = written.split('.').map(Number);
  if (parts.length === 4 && parts.every(part => Number.isInteger(part))) {
    const number = parts.reduce((sum, part) => sum * 256 + part, 0);
    return fc.constantFrom(
      written,
      String(number),
      `0x${number.toString(16)}`,
      parts.map(part => `0${part.toString(8)}`).join('.'),
      `0X${parts[0]!.toString(16)}.${number % 2 ** 24}`,
      `[::ffff:${written}]`,
      `${written}.`,
    );
  }
  return fc.constantFrom(written, written.toUpperCase(), `${written}.`);
};

/** A host as a person or a page may write it. */
export const anySpelledHost: fc.Arbitrary<string> = host.chain(spelled);

/** http, https and ws URLs in many spellings; all of them have a host in normal form. */
export const anyUrl: fc.Arbitrary<string> = fc
  .tuple(
    fc.constantFrom('http', 'https', 'ws', 'wss'),
    anySpelledHost,
    fc.constantFrom('', ':80', ':8080'),
    fc.constantFrom('/', '/a?b=c'),
  )
  .map(([scheme, written, port, path]) => `${scheme}://${written}${port}${path}`)
  .filter(url => URL.canParse(url) && normalizeHost(new URL(url).hostname) !== null);
