// Vectors of each list format: what a line becomes, and which lines are told as unread.
import { describe, expect, test } from 'vitest';
import { readerOf, unwrapped } from '../../../companion/filter/list-formats.ts';
import { parseList } from '../../../companion/filter/list-parser.ts';
import type { ListFormat } from '../../../shared/config/rules.ts';
import { formatCondition } from '../../../shared/decision/condition.ts';
import { formatMatcher } from '../../../shared/decision/parse-matcher.ts';
import { ALLOWS, matcherAt } from '../../../shared/decision/rule-table.ts';

/** `line: [except] matcher [condition]`, in the order of the lines; and the lines that were not read. */
function read(format: ListFormat, text: string | Buffer): { entries: string[]; unread: number[] } {
  const { table, faults } = parseList(unwrapped(format, Buffer.from(text)), readerOf(format));
  const entries = Array.from({ length: table.size }, (_, i) => {
    const when = table.conditions.get(i);
    const except = (table.kinds[i]! & ALLOWS) === 0 ? '' : 'except ';
    return `${table.lines[i]}: ${except}${formatMatcher(matcherAt(table, i))}${when ? ` ${formatCondition(when)}` : ''}`;
  });
  entries.sort((a, b) => parseInt(a, 10) - parseInt(b, 10));
  return { entries, unread: faults.map(({ line }) => line) };
}

describe('autoproxy', () => {
  const lines: [written: string, ...becomes: string[]][] = [
    ['[AutoProxy 0.2.9]'],
    ['! a comment'],
    ['||example.com', 'example.com'],
    ['||sub.example.com^', 'sub.example.com'],
    ['|http://one.example/', '=one.example'],
    ['|https://one.example/a/b*', '=one.example path /a/b'],
    ['|http://one.example:8080', '=one.example port 8080'],
    ['.dotted.example', 'dotted.example'],
    ['plain.example', 'plain.example'],
    ['plain.example/page', 'plain.example path /page'],
    ['*.stars.example', 'stars.example'],
    ['word', 'keyword word'],
    ['@@||good.example.com', 'except good.example.com'],
    ['@@|http://also.example.com', 'except =also.example.com'],
    ['/^https?:\\/\\/([^\\/]+\\.)*g(oo)?gle\\.(com|de)\\/.*/', 'regex ^(?:([^\\/]+\\.)*g(oo)?gle\\.(com|de)$)'],
    ['||cdn*.example.com', 'regex ^cdn.*\\.example\\.com$'],
    ['||10.1.2.3', '10.1.2.3'],
    ['/search\\?q=.*/', 'UNREAD'],
    ['|ftp://x.example', 'UNREAD'],
    ['x.example/a*b', 'UNREAD'],
    ['||', 'UNREAD'],
  ];
  const text = lines.map(([written]) => written).join('\n');
  const expected = {
    entries: lines.flatMap(([, becomes], i) => (becomes && becomes !== 'UNREAD' ? [`${i + 1}: ${becomes}`] : [])),
    unread: lines.flatMap(([, becomes], i) => (becomes === 'UNREAD' ? [i + 1] : [])),
  };

  test('each line becomes what it means, or is told', () => {
    expect(read('autoproxy', text)).toEqual(expected);
  });

  test('in base64, in lines or not, it says the same', () => {
    const encoded = Buffer.from(text).toString('base64');
    expect(read('autoproxy', encoded)).toEqual(expected);
    expect(read('autoproxy', `${encoded.replace(/.{64}/g, '$&\n')}\n`)).toEqual(expected);
  });
});

test('switchy: conditions by host are read, results of the list say what is an exception, the others are told', () => {
  const text = `[SwitchyOmega Conditions]
@with result
; a comment
*.example.com +proxy
**.below.example +proxy
one.example +proxy
*word* +proxy
a*.example.org +proxy
HostRegex: ^ad[0-9]+\\. +proxy
K: tracker +proxy
Ip: 10.0.0.0/8 +proxy
UrlWildcard: *://*.url.example/* +proxy
*.direct.example +direct
!*.not.example +proxy
Time: 8~17 +proxy
UrlRegex: q=1 +proxy
* +direct
`;
  expect(read('switchy', text)).toEqual({
    entries: [
      '4: example.com',
      '5: .below.example',
      '6: =one.example',
      '7: keyword word',
      '8: regex ^a.*\\.example\\.org$',
      '9: regex ^ad[0-9]+\\.',
      '10: keyword tracker',
      '11: 10.0.0.0/8',
      '12: url.example',
      '13: except direct.example',
      '14: except not.example',
    ],
    unread: [15, 16],
  });
});

test('clash: the payloads of all three behaviours, as YAML and as text', () => {
  const text = `# a comment
payload:
  - '+.example.com'
  - '.below.example'
  - '*.star.example'
  - 'one.example'
  - "two.example"
  - '10.0.0.0/8'
  - 2001:db8::/32
  - DOMAIN,one.more.example
  - DOMAIN-SUFFIX,suffix.example
  - DOMAIN-KEYWORD,word
  - DOMAIN-REGEX,^a{1,2}\\.example$
  - IP-CIDR,192.0.2.0/24,no-resolve
  - IP-CIDR6,2001:db8:1::/48
  - PROCESS-NAME,curl
  - GEOIP,DE
  - bad host
+.text.example
DOMAIN-SUFFIX,text.suffix.example
`;
  expect(read('clash', text)).toEqual({
    entries: [
      '3: example.com',
      '4: .below.example',
      '5: .star.example',
      '6: =one.example',
      '7: =two.example',
      '8: 10.0.0.0/8',
      '9: 2001:db8::/32',
      '10: =one.more.example',
      '11: suffix.example',
      '12: keyword word',
      '13: regex ^a{1,2}\\.example$',
      '14: 192.0.2.0/24',
      '15: 2001:db8:1::/48',
      '19: text.example',
      '20: text.suffix.example',
    ],
    unread: [16, 17, 18],
  });
});

test('v2fly: types and bare domains are read, attributes passed over, other lists told', () => {
  const text = `# a comment
example.com
domain:suffix.example @cn @ads
full:one.example # why
keyword:word
regexp:^ad[0-9]+\\.example\\.com$
include:google
other:x
regexp:(?=x)
`;
  expect(read('v2fly', text)).toEqual({
    entries: [
      '2: example.com',
      '3: suffix.example',
      '4: =one.example',
      '5: keyword word',
      '6: regex ^ad[0-9]+\\.example\\.com$',
    ],
    unread: [7, 8, 9],
  });
});

test('more expressions than are read are told line by line', () => {
  const { entries, unread } = read('v2fly', Array.from({ length: 205 }, (_, i) => `regexp:^a${i}$`).join('\n'));
  expect(entries).toHaveLength(200);
  expect(unread).toEqual([201, 202, 203, 204, 205]);
});
