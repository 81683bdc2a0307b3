// Rule sets and URLs for property tests, drawn from few words so that rules and URLs meet, with the spellings that hosts come in.
import fc from 'fast-check';
import { normalizeHost } from '../../shared/endpoint.ts';
import { parseMatcher } from '../../shared/decision/parse-matcher.ts';
import type { Action, Matcher, Rule, RuleList, RuleSource } from '../../shared/decision/rule.ts';

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

/** Sites and rules, and up to two lists. */
export const anyRules: fc.Arbitrary<RuleSource> = fc.record({
  rules: fc
    .array(fc.record({ matcher, action, rank }), { maxLength: 10 })
    .map(rules => rules.map((rule, i): Rule => ({ ...rule, id: `rules[${i}]` }))),
  lists: fc
    .array(
      fc.record({
        action: fc.oneof(route, fc.constant({ do: 'block' as const })),
        rank,
        entries: fc.array(fc.record({ matcher, allow: fc.option(fc.constant(true), { nil: undefined, freq: 5 }) }), {
          maxLength: 6,
        }),
      }),
      { maxLength: 2 },
    )
    .map(lists =>
      lists.map((list, i): RuleList => ({
        ...list,
        id: `lists[${i}]`,
        name: `list-${i}.txt`,
        entries: list.entries.map((entry, j) => ({ ...entry, line: j + 1 })),
      })),
    ),
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
