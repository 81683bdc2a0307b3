import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ConfigError } from '../../../companion/config/config-error.ts';
import { parseConfig } from '../../../companion/config/config-file.ts';
import { DEFAULT_CONFIG_TEXT } from '../../../companion/config/default-text.ts';

function problemsOf(text: string): string[] {
  try {
    parseConfig(text, 'detour.yaml');
    return [];
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return error.message.split('\n');
  }
}

const FULL = `
listen: 127.0.0.1:8228
hops: # one proxy each
  office: socks5://me:s3cret@gw.example:1080
  squid: { kind: http, host: proxy.example, port: 3128 }
routes:
  work: [[office], [squid, office]]
  fast: { chains: [[squid]], else: companion }
sites:
  example.com: work
  static.example.com: off
  .intranet.example: fast
  "=quoted.example": block
  wiki.example.org: { route: companion, cache: off, filter: strict, rank: 3 }
rules:
  - { host: ads.test, block: true }
  - host: 198.51.100.0/24
    route: work
lists:
  - { file: work-hosts.txt, format: hosts, route: work }
guard: { allow: [127.0.0.0/8, "::1"], connectPorts: [443, 1024-65535] }
`;

describe('a file in order', () => {
  test('comes back as configuration and as rules that name their places', () => {
    const { config, rules } = parseConfig(FULL, 'detour.yaml');
    expect(config.hops['office']).toEqual({
      kind: 'socks5',
      host: 'gw.example',
      port: 1080,
      username: 'me',
      password: 's3cret',
    });
    expect(rules.map(({ id, action }) => [id, action.do])).toEqual([
      ['sites.example.com', 'route'],
      ['sites.static.example.com', 'off'],
      ['sites..intranet.example', 'route'],
      ['sites.=quoted.example', 'block'],
      ['sites.wiki.example.org', 'route'],
      ['rules[0]', 'block'],
      ['rules[1]', 'route'],
    ]);
    expect(rules[4]?.rank).toBe(3);
    expect(rules[6]?.matcher).toEqual({ kind: 'cidr', address: '198.51.100.0', prefix: 24 });
  });

  test.each(['', '# nothing yet\n', '---\n', '\uFEFF', '\r\n\r\n', '{}', DEFAULT_CONFIG_TEXT])(
    '%j means all defaults',
    text => {
      const { config, rules } = parseConfig(text, 'detour.yaml');
      expect(config).toEqual(parseConfig('', 'detour.yaml').config);
      expect(rules).toEqual([]);
    },
  );

  test('the examples in the first file are in order once their marks are taken away', () => {
    const text = DEFAULT_CONFIG_TEXT.replaceAll(/^ {2}# /gm, '  ').replaceAll(
      /^# (listen: |default: |cache: |log: |limits: |guard:|dns: | {2}allow: | {2}connectPorts: )/gm,
      '$1',
    );
    const { config } = parseConfig(text, 'detour.yaml');
    expect(Object.keys(config.hops)).toEqual(['office', 'squid', 'tor', 'sec']);
    expect(Object.keys(config.routes)).toEqual(['work', 'fast', 'all']);
    expect(Object.keys(config.sites)).toEqual(['example.com', 'static.example.com', 'wiki.example.org', 'nas.example']);
    expect([config.rules.length, config.lists.length, config.guard.allow.length]).toEqual([4, 3, 1]);
    expect(config.dns.https?.host).toBe('dns.example');
  });

  test('keys stay as they are written, though YAML takes some for numbers', () => {
    expect(parseConfig('sites:\n  127.1: off\n  0x10.example: off\n', 'x').rules.map(({ id }) => id)).toEqual([
      'sites.127.1',
      'sites.0x10.example',
    ]);
  });

  test('off, no and yes are words, as YAML 1.2 has it', () => {
    const { config } = parseConfig('routes: { no: [[]] }\nsites:\n  a.example: off\n  b.example: no\n', 'x');
    expect(config.sites['a.example']?.action.do).toBe('off');
    expect(config.sites['b.example']?.action).toMatchObject({ do: 'route', route: 'no' });
  });

  test('an anchor may be used again', () => {
    const text = 'hops: { a: http://a:1 }\nroutes:\n  one: &chains [[a]]\n  two: *chains\n';
    expect(parseConfig(text, 'x').config.routes['two']).toEqual(parseConfig(text, 'x').config.routes['one']);
  });

  test('a place is found by the path of the long form', () => {
    const { document } = parseConfig(FULL, 'detour.yaml');
    expect(document.locate(['sites', 'example.com', 'route'], 'value')).toMatchObject({ line: 10, column: 16 });
    expect(document.locate(['sites', 'wiki.example.org', 'route'], 'value')).toMatchObject({ line: 14, column: 30 });
    expect(document.locate(['routes', 'work', 'chains', 1, 0], 'value')).toMatchObject({ line: 7, column: 21 });
    expect(document.locate(['hops', 'office'], 'key')).toMatchObject({ line: 4, column: 3 });
  });
});

describe('a file out of order is told by line and column', () => {
  test.each<[string, string, string[]]>([
    [
      'a list that is not closed',
      'listen: 127.0.0.1:1\nroutes: { work: [[a], [b }\nsites:\n',
      ['2:17: is not valid YAML: this [ is never closed, or what it holds is not indented'],
    ],
    [
      'a quote that is not closed',
      'listen: 127.0.0.1:1\ndefault: "work\nsites:\n',
      ['2:10: is not valid YAML: this quote is never closed'],
    ],
    ['a tab that indents', 'sites:\n\ta.example: off\n', ['2:1: is not valid YAML: a tab cannot indent; use spaces']],
    [
      'two values on one line',
      'sites:\n  a.example: b: off\n',
      [
        '2:14: is not valid YAML: a second "key: value" on one line; start a new line, or quote a value that has ": " in it',
      ],
    ],
    ['a missing colon', 'hops:\n  office\nlisten: 127.0.0.1:1\n', ['2:3: hops: is not a map of hops']],
    [
      'a missing space',
      'sites:\n  a.example:off\n  b.example: off\n',
      ['2:3: is not valid YAML: a key must stand on one line, with its colon'],
    ],
    ['a second document', 'sites:\n---\nsites:\n', ['2:1: is a second document; the file holds one']],
    [
      'not a map at all',
      '- a\n- b\n',
      ['1:1: is not a map of settings: write sections like hops:, routes: and sites:'],
    ],
    [
      'an unknown key',
      'hops:\n  a: http://a:1\nhopz:\n  b: http://b:1\n',
      ['3:1: unknown key "hopz" (did you mean hops?)'],
    ],
    [
      'an unknown key within',
      'hops:\n  a:\n    kind: http\n    host: a\n    prot: 3\n',
      ['5:5: hops.a: unknown key "prot" (did you mean port?)'],
    ],
    [
      'a duplicate hop name',
      'hops:\n  office: http://a:1\n\n  office: http://b:1\n',
      ['4:3: hops.office: duplicate key, first at line 2'],
    ],
    [
      'a duplicate section',
      'sites:\n  a.example: off\nsites:\n  b.example: off\n',
      ['3:1: sites: duplicate key, first at line 1'],
    ],
    [
      'a bad port',
      'hops:\n  # the way out\n  office: socks5://me:s3cret@gw.example:70000\n',
      ['3:11: hops.office: "70000" is not a port: ports go from 1 to 65535'],
    ],
    [
      'a bad port to listen on',
      'listen: 127.0.0.1:99999\n',
      ['1:9: listen: "99999" is not a port: ports go from 1 to 65535'],
    ],
    [
      'a bare star as a site',
      'sites:\n  a.example: off\n  *: companion\n',
      [
        '3:3: * is an alias in YAML, not a wildcard: write .example.com for subdomains only, example.com for all of it, or quote a * that is meant',
      ],
    ],
    [
      'a star before a domain',
      'sites:\n  *.shop.example: companion\n',
      [
        '2:3: *.shop.example is an alias in YAML, not a wildcard: write .shop.example for subdomains only, shop.example for all of it, or quote a * that is meant',
      ],
    ],
    [
      'a star as a value',
      'rules:\n  - { host: *.shop.example, block: true }\n  - { host: *, block: true }\n',
      [
        '2:13: *.shop.example is an alias in YAML, not a wildcard: write .shop.example for subdomains only, shop.example for all of it, or quote a * that is meant',
        '3:13: * is an alias in YAML, not a wildcard: write .example.com for subdomains only, example.com for all of it, or quote a * that is meant',
      ],
    ],
    [
      'a quoted star',
      'sites:\n  "*.shop.example": off\n',
      [
        '2:3: sites.*.shop.example: "*.shop.example" has a "*": write .example.com for subdomains only, or example.com for the domain with its subdomains',
      ],
    ],
    [
      'a missing value',
      'hops:\n  office:\nsites:\n  a.example:\nlisten:\n',
      [
        '2:3: hops.office: has no value: write socks5://host:1080, or a map of kind, host and port',
        '4:3: sites.a.example: has no value',
        '5:1: listen: has no value',
      ],
    ],
    [
      'a hop that is not there',
      'hops: { office: http://a:1 }\nroutes:\n  work: [[office, offise]]\n',
      ['3:19: routes.work[0][1]: names the hop "offise", which does not exist (did you mean office?)'],
    ],
    [
      'a chain without brackets',
      'hops: { office: http://a:1 }\nroutes: { work: [office] }\n',
      ['2:18: routes.work[0]: names the route "office", which does not exist (a chain of the hop is written [office])'],
    ],
    [
      'a route that is not there',
      'sites:\n  a.example: wrok\n  b.example: { cache: off, route: wrok }\n',
      [
        '2:14: sites.a.example: names the route "wrok", which does not exist',
        '3:35: sites.b.example.route: names the route "wrok", which does not exist',
      ],
    ],
    ['a key that is none', 'sites:\n  ? [a, b]\n  : off\n', ['2:5: has an entry without a plain key']],
    ['a key of every object', 'hops:\n  __proto__: http://a:1\n', ['2:3: "__proto__" cannot be a key']],
    [
      'lines that end in CR LF',
      '# one\r\nhops:\r\n  a: http://a:0\r\n',
      ['3:6: hops.a: "0" is not a port: ports go from 1 to 65535'],
    ],
    ['a byte order mark', '\uFEFFlistn: 5\n', ['1:1: unknown key "listn" (did you mean listen?)']],
    [
      'a backslash in quotes',
      'hops:\n  a: "http://me:\\pass@a:1"\n',
      ['2:17: is not valid YAML: a backslash in double quotes begins no known escape; use single quotes'],
    ],
  ])('%s', (_what, text, expected) => {
    expect(problemsOf(text)).toEqual(expected.map(line => `detour.yaml:${line}`));
  });

  test('everything wrong is told, in the order of the file, twenty at most', () => {
    expect(
      problemsOf('default: nope\nhops:\n  a: http://a:0\nsites:\n  x y: off\nzzzz: 1\n').map(
        line => line.split(':')[1],
      ),
    ).toEqual(['1', '3', '5', '6']);
    const many = `hops:\n${Array.from({ length: 500 }, (_, i) => `  h${i}: http://a:0\n`).join('')}`;
    expect(problemsOf(many)).toHaveLength(20);
    expect(problemsOf(many)[19]).toBe('detour.yaml:21:8: hops.h19: "0" is not a port: ports go from 1 to 65535');
  });

  test('another room may judge what reads well, and gets lines for its paths', () => {
    const loops = () => [{ path: ['hops', 'self'], message: 'leads to Detour itself' }];
    expect(() => parseConfig('hops:\n  self: http://127.0.0.1:8228\n', 'detour.yaml', [loops])).toThrow(
      'detour.yaml:2:9: hops.self: leads to Detour itself',
    );
  });

  test('the summary is one line', () => {
    expect.assertions(1);
    try {
      parseConfig('a: 1\nb: 2\nc: 3\n', 'detour.yaml');
    } catch (error) {
      expect((error as ConfigError).summary).toBe('detour.yaml:1:1: unknown key "a" (and 2 more)');
    }
  });
});

describe('a file made to hurt', () => {
  const aliases = `a: &a [${'x,'.repeat(9)}x]\n${'bcdefghi'
    .split('')
    .map((key, i) => `${key}: &${key} [${`*${'abcdefgh'[i]},`.repeat(9)}x]\n`)
    .join('')}`;
  test.each([
    ['a billion laughs', aliases, 'holds too much: aliases repeat it beyond measure'],
    ['an alias to what holds it', 'sites: &s\n  a.example: *s\n', 'holds too much: aliases repeat it beyond measure'],
    ['brackets a million deep', '['.repeat(1_000_000), 'is nested more than 32 levels deep'],
    ['dashes a hundred thousand deep', '- '.repeat(100_000), 'is nested more than 32 levels deep'],
    ['more than 4 MiB', `# ${'x'.repeat(4 * 1024 * 1024)}`, 'is larger than 4 MiB; put many hosts in a list file'],
    ['twenty thousand times one key', 'a: 1\n'.repeat(20_000), 'a: duplicate key, first at line 1'],
    [
      'ten thousand unknown keys',
      Array.from({ length: 10_000 }, (_, i) => `hop${i}: 1\n`).join(''),
      'unknown key "hop0" (did you mean hops?)',
    ],
  ])('%s is refused at once', (_what, text, sentence) => {
    // Of processor time: what else this machine does is not its fault.
    const before = process.cpuUsage();
    const problems = problemsOf(text);
    expect(process.cpuUsage(before).user).toBeLessThan(5_000_000);
    expect(problems.some(line => line.includes(sentence))).toBe(true);
    expect(problems.length).toBeLessThanOrEqual(20);
  });

  test('five thousand sites are read in well under a second of work', () => {
    const text = `sites:\n${Array.from({ length: 5_000 }, (_, i) => `  host-${i}.example.com: companion # ${i}\n`).join('')}`;
    const start = process.cpuUsage();
    expect(parseConfig(text, 'x').rules).toHaveLength(5_000);
    const { user, system } = process.cpuUsage(start);
    expect((user + system) / 1_000).toBeLessThan(2_000);
  });

  test('however a file is damaged, it is read or refused with places, and no password is repeated', () => {
    const text = FULL.replaceAll('s3cret', 'Geh3im').replace('port: 3128', 'port: 3128, username: u, password: Geh3im');
    const piece = fc.constantFrom(
      ' ',
      '\n',
      ':',
      '"',
      "'",
      '@',
      '*',
      '&',
      '[',
      '{',
      '}',
      '- ',
      '#',
      '\t',
      '\\',
      '!',
      '|',
      '%',
      '/',
      'x',
      '0',
    );
    const damage = fc.record({ at: fc.nat(text.length), remove: fc.nat(12), put: fc.array(piece, { maxLength: 3 }) });
    fc.assert(
      fc.property(fc.array(damage, { minLength: 1, maxLength: 4 }), damages => {
        let damaged = text;
        for (const { at, remove, put } of damages)
          damaged = damaged.slice(0, at) + put.join('') + damaged.slice(at + remove);
        // A password that was cut in two is no longer the password; one moved into a name may be repeated as the name it now is.
        for (const problem of problemsOf(damaged)) {
          expect(problem).toMatch(/^detour\.yaml:\d+:\d+: \S/);
          if (damaged.includes('me:Geh3im@gw.example')) expect(problem).not.toContain('me:Geh3im');
        }
      }),
      { numRuns: 1_500 },
    );
  });
});
