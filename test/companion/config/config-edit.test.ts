import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ConfigError } from '../../../companion/config/config-error.ts';
import { addAllowRule, routeOfSite, setCacheMode, setLocal, setSite } from '../../../companion/config/config-edit.ts';
import { EditError, formatScalar } from '../../../companion/config/editing.ts';
import { parseConfig } from '../../../companion/config/config-file.ts';
import type { CacheMode } from '../../../shared/decision/rule.ts';
import { compileMatcher, decide } from '../../../shared/decision/decide.ts';
import { DEFAULT_CONFIG_TEXT } from '../../../companion/config/default-text.ts';

/** Every site of a text with its route, in file order. */
const sitesOf = (text: string) =>
  Object.entries(parseConfig(text, 'x').config.sites).map(([site, value]): [string, string] => [
    site,
    routeOfSite(value),
  ]);

/** What differs between two texts, as lines: what was between the lines that both begin and end with, and what is now. */
function diff(before: string, after: string): { gone: string[]; come: string[] } {
  const gone = before.split(/\r?\n/);
  const come = after.split(/\r?\n/);
  while (gone.length > 0 && come.length > 0 && gone[0] === come[0]) {
    gone.shift();
    come.shift();
  }
  while (gone.length > 0 && come.length > 0 && gone.at(-1) === come.at(-1)) {
    gone.pop();
    come.pop();
  }
  return { gone, come };
}

const FILE = `# My file
routes:
  work: [[]] # straight
  home: [[]]

sites: # what is steered
  # the office
  example.com: work # since May
  'quoted.example': off
  long.example:
    # slow pages
    cache: off
    route: work # for now
  wiki.example: { route: home, filter: off } # flow
  # the end of the sites

# and then
rules:
  - { host: ads.test, block: true }
  # last words
`;

describe('one edit touches one place', () => {
  test.each<[string, string, string | null, string[], string[]]>([
    ['a short entry', 'example.com', 'home', ['  example.com: work # since May'], ['  example.com: home # since May']],
    [
      'a site turned off',
      'example.com',
      'off',
      ['  example.com: work # since May'],
      ['  example.com: off # since May'],
    ],
    ['a quoted key', 'quoted.example', 'work', ["  'quoted.example': off"], ["  'quoted.example': work"]],
    [
      'another spelling',
      'EXAMPLE.com',
      'home',
      ['  example.com: work # since May'],
      ['  example.com: home # since May'],
    ],
    ['the long form', 'long.example', 'home', ['    route: work # for now'], ['    route: home # for now']],
    [
      'the long form in braces',
      'wiki.example',
      'off',
      ['  wiki.example: { route: home, filter: off } # flow'],
      ['  wiki.example: { route: off, filter: off } # flow'],
    ],
    ['a new site', 'new.example', 'work', [], ['  new.example: work']],
    ['its subdomains only', '.example.com', 'work', [], ['  .example.com: work']],
    ['one host only', '=www.example.com', 'off', [], ['  =www.example.com: off']],
    ['an address', '2001:db8::1', 'work', [], ['  "2001:db8::1": work']],
    ['a number of an address', '127.1', 'work', [], ['  "127.1": work']],
    ['a name that every object has', 'constructor', 'work', [], ['  constructor: work']],
    ['a name that every function has', '=prototype', 'off', [], ['  =prototype: off']],
    ['a forgotten site', 'example.com', null, ['  example.com: work # since May'], []],
    [
      'a forgotten long site',
      'long.example',
      null,
      ['  long.example:', '    # slow pages', '    cache: off', '    route: work # for now'],
      [],
    ],
    ['a site that was not there', 'gone.example', null, [], []],
    ['what holds already', 'example.com', 'work', [], []],
  ])('%s', (_what, site, route, gone, come) => {
    expect(diff(FILE, setSite(FILE, site, route))).toEqual({ gone, come });
  });

  test('a new site stands after the last, before the comments that follow', () => {
    const lines = setSite(FILE, 'new.example', 'work').split('\n');
    expect(lines[lines.indexOf('  new.example: work') - 1]).toContain('wiki.example');
    expect(lines[lines.indexOf('  new.example: work') + 1]).toBe('  # the end of the sites');
  });

  test('sites called like parts of an object are sites: turned on, decided, turned off, forgotten', () => {
    for (const name of ['constructor', 'prototype', 'hasownproperty', 'tostring']) {
      const on = setSite(FILE, name, 'work');
      const { rules } = parseConfig(on, 'x');
      const matcher = compileMatcher({ rules, lists: [] });
      expect(decide(matcher, { host: name }), name).toMatchObject({ steered: true, route: 'work' });
      expect(decide(matcher, { host: `a.${name}` }), name).toMatchObject({ steered: true });
      expect(sitesOf(setSite(on, name, 'off'))).toContainEqual([name, 'off']);
      expect(setSite(on, name, null)).toBe(FILE);
    }
  });

  test('a rule that lets through stands after the last', () => {
    const { gone, come } = diff(FILE, addAllowRule(FILE, '=good.ads.test'));
    expect({ gone, come }).toEqual({ gone: [], come: ['  - { host: =good.ads.test, allow: true }'] });
    const twice = addAllowRule(addAllowRule(FILE, 'a.example'), 'a.example');
    expect(twice).toBe(addAllowRule(FILE, 'a.example'));
  });
});

describe('what pages may reach', () => {
  test.each<[string, string, boolean, string[], string[]]>([
    [
      'a short entry becomes a long one',
      'example.com',
      true,
      ['  example.com: work # since May'],
      ['  example.com: { route: work, local: true } # since May'],
    ],
    ['the long form', 'long.example', true, [], ['    local: true']],
    [
      'the long form in braces',
      'wiki.example',
      true,
      ['  wiki.example: { route: home, filter: off } # flow'],
      ['  wiki.example: { route: home, filter: off, local: true } # flow'],
    ],
    ['what holds already', 'example.com', false, [], []],
  ])('%s', (_what, site, local, gone, come) => {
    const after = setLocal(FILE, site, local);
    expect(diff(FILE, after)).toEqual({ gone, come });
    expect(parseConfig(after, 'x').config.sites[site]!.action).toMatchObject(local ? { local: true } : {});
  });

  test('taken back, the line says so; the route is changed beside it', () => {
    const there = setLocal(FILE, 'example.com', true);
    const back = setLocal(there, 'example.com', false);
    expect(diff(there, back)).toEqual({
      gone: ['  example.com: { route: work, local: true } # since May'],
      come: ['  example.com: { route: work, local: false } # since May'],
    });
    expect(parseConfig(back, 'x').config.sites['example.com']!.action).not.toHaveProperty('local');
    expect(setLocal(back, 'example.com', true)).toBe(there);
    expect(diff(there, setSite(there, 'example.com', 'home')).come).toEqual([
      '  example.com: { route: home, local: true } # since May',
    ]);
  });

  test('a site that is not steered has nothing to be given back, and an alias is a person’s to change', () => {
    for (const site of ['quoted.example', 'nobody.example'])
      expect(() => setLocal(FILE, site, true), site).toThrow('turn it on first');
    const alias = 'sites:\n  a.example: &it companion\n  b.example: *it\n';
    expect(() => setLocal(alias, 'b.example', true)).toThrow('by hand');
    expect(() => setLocal(alias, 'a.example', true)).toThrow('by hand');
  });
});

describe('how answers are cached', () => {
  test.each<[string, string, CacheMode, string[], string[]]>([
    [
      'a short entry becomes a long one',
      'example.com',
      'aggressive',
      ['  example.com: work # since May'],
      ['  example.com: { route: work, cache: aggressive } # since May'],
    ],
    [
      'the long form, which says it already',
      'long.example',
      'offline-first',
      ['    cache: off'],
      ['    cache: offline-first'],
    ],
    [
      'the long form in braces',
      'wiki.example',
      'off',
      ['  wiki.example: { route: home, filter: off } # flow'],
      ['  wiki.example: { route: home, filter: off, cache: off } # flow'],
    ],
    ['what holds already', 'example.com', 'standard', [], []],
  ])('%s', (_what, site, mode, gone, come) => {
    const after = setCacheMode(FILE, site, mode);
    expect(diff(FILE, after)).toEqual({ gone, come });
    expect(parseConfig(after, 'x').config.sites[site]!.action).toMatchObject({ cache: mode });
  });

  test('a site that is not steered is not cached either, and what its pages may reach stays', () => {
    for (const site of ['quoted.example', 'nobody.example'])
      expect(() => setCacheMode(FILE, site, 'aggressive'), site).toThrow('turn it on first');
    const local = setLocal(FILE, 'example.com', true);
    expect(diff(local, setCacheMode(local, 'example.com', 'off')).come).toEqual([
      '  example.com: { route: work, local: true, cache: off } # since May',
    ]);
  });
});

describe('the shapes a file may have', () => {
  const added: [string, string, string][] = [
    ['an empty file', '', 'sites:\n  a.example: companion\n'],
    ['comments alone', '# hello\n', '# hello\nsites:\n  a.example: companion\n'],
    ['no newline at the end', 'listen: 127.0.0.1:1', 'listen: 127.0.0.1:1\nsites:\n  a.example: companion'],
    ['an entry without newline', 'sites:\n  b.example: off', 'sites:\n  b.example: off\n  a.example: companion'],
    ['an empty section', 'sites: # none\nlists:\n', 'sites: # none\n  a.example: companion\nlists:\n'],
    ['empty braces', 'sites: {} # none\nlists:\n', 'sites: # none\n  a.example: companion\nlists:\n'],
    ['a null', 'sites: ~\n', 'sites:\n  a.example: companion\n'],
    ['four spaces', 'sites:\n    b.example: off\n', 'sites:\n    b.example: off\n    a.example: companion\n'],
    [
      'four spaces elsewhere',
      'hops:\n    b: http://b:1\n',
      'hops:\n    b: http://b:1\nsites:\n    a.example: companion\n',
    ],
    [
      'CR LF',
      '# c\r\nsites:\r\n  b.example: off\r\nlists:\r\n',
      '# c\r\nsites:\r\n  b.example: off\r\n  a.example: companion\r\nlists:\r\n',
    ],
    ['CR LF and no sites', 'lists:\r\n', 'lists:\r\nsites:\r\n  a.example: companion\r\n'],
    [
      'a byte order mark',
      '\uFEFFsites:\n  b.example: off\n',
      '\uFEFFsites:\n  b.example: off\n  a.example: companion\n',
    ],
    ['braces on a line', 'sites: { b.example: off }\n', 'sites: { b.example: off, a.example: companion }\n'],
    ['braces with a last comma', 'sites: { b.example: off, }\n', 'sites: { b.example: off, a.example: companion, }\n'],
    [
      'braces over lines',
      'sites: {\n  b.example: off # b\n}\n',
      'sites: {\n  b.example: off, # b\n  a.example: companion\n}\n',
    ],
    [
      'braces over lines with a last comma',
      'sites: {\n  b.example: off, # b\n}\n',
      'sites: {\n  b.example: off, # b\n  a.example: companion,\n}\n',
    ],
    ['JSON', '{"sites":{"b.example":"off"}}', '{"sites":{"b.example":"off", a.example: companion}}'],
    ['JSON without sites', '{"lists":[]}', '{"lists":[], sites: { a.example: companion }}'],
    ['empty JSON', '{}', '{ sites: { a.example: companion } }'],
    ['explicit keys', 'sites:\n  ? b.example\n  : off\n', 'sites:\n  ? b.example\n  : off\n  a.example: companion\n'],
    ['a document mark', '---\nsites:\n  b.example: off\n', '---\nsites:\n  b.example: off\n  a.example: companion\n'],
    [
      'the same indentation as the section',
      'lists:\nsites:\n b.example: off\n',
      'lists:\nsites:\n b.example: off\n a.example: companion\n',
    ],
  ];
  test.each(added)('a site is added to %s', (_what, text, expected) => {
    expect(setSite(text, 'a.example', 'companion')).toBe(expected);
    // A section that was made or emptied stays; where one was already, taking the site away gives the old text back.
    if (text.includes('b.example') && !text.includes('off # b\n'))
      expect(setSite(expected, 'a.example', null)).toBe(text);
  });

  test.each([
    ['the first in braces', 'sites: { a.example: off, b.example: off }\n', 'sites: { b.example: off }\n'],
    ['the last in braces', 'sites: { b.example: off, a.example: off }\n', 'sites: { b.example: off }\n'],
    ['the only one in braces', 'sites: { a.example: off }\n', 'sites: { }\n'],
    ['the only one', 'sites:\n  a.example: off # a\nlists:\n', 'sites:\nlists:\n'],
    [
      'the first line in braces',
      'sites: {\n  a.example: off, # a\n  b.example: off # b\n}\n',
      'sites: {\n  b.example: off # b\n}\n',
    ],
    [
      'the last line in braces',
      'sites: {\n  b.example: off, # b\n  a.example: off # a\n}\n',
      'sites: {\n  b.example: off, # b\n}\n',
    ],
    ['the last of a file without newline', 'sites:\n  b.example: off\n  a.example: off', 'sites:\n  b.example: off'],
    ['an explicit key', 'sites:\n  ? a.example\n  : off\n  b.example: off\n', 'sites:\n  b.example: off\n'],
    [
      'a value over lines',
      'sites:\n  a.example: { route: companion,\n    cache: off } # a\n  b.example: off\n',
      'sites:\n  b.example: off\n',
    ],
    ['a leading comma', 'sites: {\n  b.example: off\n  , a.example: off\n}\n', 'sites: {\n  b.example: off\n  \n}\n'],
  ])('a site is forgotten: %s', (_what, text, expected) => {
    expect(setSite(text, 'a.example', null)).toBe(expected);
  });

  test('the first file takes edits where its sections are', () => {
    const { gone, come } = diff(DEFAULT_CONFIG_TEXT, setSite(DEFAULT_CONFIG_TEXT, 'example.com', 'companion'));
    expect({ gone, come }).toEqual({ gone: [], come: ['  example.com: companion'] });
    expect(setSite(setSite(DEFAULT_CONFIG_TEXT, 'example.com', 'companion'), 'example.com', null)).toBe(
      DEFAULT_CONFIG_TEXT,
    );
  });

  test.each([
    ['an empty file', '', 'rules:\n  - { host: a.example, allow: true }\n'],
    ['an empty list', 'rules: [] # none\n', 'rules: # none\n  - { host: a.example, allow: true }\n'],
    [
      'dashes without indentation',
      'rules:\n- host: b.example\n  block: true\n# end\n',
      'rules:\n- host: b.example\n  block: true\n- { host: a.example, allow: true }\n# end\n',
    ],
    [
      'brackets',
      'rules: [{ host: b.example, block: true }]\n',
      'rules: [{ host: b.example, block: true }, { host: a.example, allow: true }]\n',
    ],
    [
      'brackets over lines',
      'rules: [\n  { host: b.example, block: true }\n]\n',
      'rules: [\n  { host: b.example, block: true },\n  { host: a.example, allow: true }\n]\n',
    ],
  ])('a rule is added to %s', (_what, text, expected) => {
    expect(addAllowRule(text, 'a.example')).toBe(expected);
  });
});

describe('an edit is refused', () => {
  test('for a route that is not there', () => {
    expect(() => setSite(FILE, 'a.example', 'wrok')).toThrow(new EditError('There is no route "wrok" in the file.'));
  });

  test('for what is no site', () => {
    expect(() => setSite(FILE, '*.example', 'work')).toThrow(EditError);
    expect(() => setSite(FILE, 'a b', 'work')).toThrow(EditError);
    expect(() => setSite(FILE, 'a.example: off\n  b.example', 'work')).toThrow(EditError);
    expect(() => addAllowRule(FILE, 'a.example, block: true }')).toThrow(EditError);
  });

  test('while the file is out of order', () => {
    expect(() => setSite('hopz: 1\n', 'a.example', 'companion')).toThrow(ConfigError);
  });

  test('when there would be more than five thousand by hand', () => {
    const text = `sites:\n${Array.from({ length: 5_000 }, (_, i) => `  h${i}.example: off\n`).join('')}`;
    expect(() => setSite(text, 'a.example', 'companion')).toThrow('more than 5000 sites and rules by hand');
  });

  test.each([
    ['an anchor that others repeat', 'routes: { work: [[]] }\nsites:\n  a.example: &r work\n  b.example: *r\n'],
    ['a document that ends', 'listen: 127.0.0.1:1\n...\n'],
    ['sites that are an alias', 'lists: &e\nsites: *e\n'],
  ])('where the file is written too cleverly: %s', (_what, text) => {
    expect(() => setSite(text, 'a.example', 'block')).toThrow(EditError);
  });
});

test.each([
  'null',
  'true',
  '~',
  '12',
  '1e3',
  '0x1f',
  '.5',
  '',
  'a: b',
  'a #b',
  '-a',
  'a b',
  '[a]',
  'a,b',
  '&a',
  "it's",
  'münchen.example',
  'a.example',
  '10.0.0.0/8',
  'off',
  '=a',
])('the word %j is read back as written, in block and in braces', word => {
  const scalar = formatScalar(word);
  const keyed = (text: string) => {
    try {
      return parseConfig(text, 'x').document.value;
    } catch {
      return null;
    }
  };
  // Read back as a list file's name, which takes any text but an empty one and a URL.
  if (word === '') return;
  for (const text of [
    `lists:\n  - file: ${scalar}\n    block: true\n`,
    `lists: [{ file: ${scalar}, block: true }]\n`,
  ]) {
    expect((keyed(text) as { lists: { file: string }[] } | null)?.lists[0]?.file).toBe(word);
  }
});

describe('any file, any edits', () => {
  const SITES = [
    'a.example',
    '.b.example',
    '=c.example',
    'd.example',
    '10.1.0.0/16',
    '2001:db8::1',
    'xn--bcher-kva.example',
    '1.2.3.4',
    'e.f.example',
  ];
  const ROUTES = ['work', 'home', 'off', 'block', 'companion', 'true', '12'];
  const entry = fc.record({
    site: fc.constantFrom(...SITES),
    route: fc.constantFrom(...ROUTES),
    form: fc.constantFrom('short', 'single', 'double', 'long', 'flow'),
    comment: fc.boolean(),
    above: fc.nat(2),
  });
  const file = fc.record({
    entries: fc.uniqueArray(entry, { selector: ({ site }) => site, maxLength: 6 }),
    style: fc.constantFrom('block', 'braces', 'lines'),
    indent: fc.constantFrom(' ', '  ', '    '),
    crlf: fc.boolean(),
    before: fc.boolean(),
    after: fc.boolean(),
    finalNewline: fc.boolean(),
  });
  const edits = fc.array(fc.tuple(fc.constantFrom(...SITES), fc.option(fc.constantFrom(...ROUTES))), {
    minLength: 1,
    maxLength: 8,
  });

  function write({
    entries,
    style,
    indent,
    crlf,
    before,
    after,
    finalNewline,
  }: typeof file extends fc.Arbitrary<infer T> ? T : never): string {
    let comments = 0;
    const comment = () => `# comment ${++comments}`;
    const routes = 'routes: { work: [[]], home: [[]], "true": [[]], "12": [[]] }';
    const lines = [comment(), routes, ''];
    if (before) lines.push('rules:', `- { host: z.example, block: true } ${comment()}`, comment());
    const value = (route: string) => formatScalar(route);
    if (style === 'block') {
      lines.push(`sites: ${comment()}`);
      for (const { site, route, form, comment: has, above } of entries) {
        for (let i = 0; i < above; i++) lines.push(indent + comment());
        const tail = has ? ` ${comment()}` : '';
        const key = form === 'single' ? `'${site}'` : form === 'double' ? JSON.stringify(site) : formatScalar(site);
        if (form === 'long')
          lines.push(
            `${indent}${key}:${tail}`,
            `${indent}  cache: off`,
            `${indent}  ${comment()}`,
            `${indent}  route: ${value(route)}${tail}`,
          );
        else if (form === 'flow') lines.push(`${indent}${key}: { route: ${value(route)}, filter: off }${tail}`);
        else lines.push(`${indent}${key}: ${form === 'single' ? `'${route}'` : value(route)}${tail}`);
      }
      if (entries.length > 0) lines.push(indent + comment());
    } else {
      const parts = entries.map(({ site, route }) => `${formatScalar(site)}: ${value(route)}`);
      if (style === 'braces') lines.push(`sites: { ${parts.join(', ')} } ${comment()}`);
      else
        lines.push(
          'sites: {',
          ...parts.map((part, i) => `${indent}${part}${i < parts.length - 1 ? ',' : ''} ${comment()}`),
          '}',
        );
    }
    if (after) lines.push('', comment(), 'lists:', `  - { file: x.txt, block: true } ${comment()}`);
    return lines.join(crlf ? '\r\n' : '\n') + (finalNewline ? (crlf ? '\r\n' : '\n') : '');
  }

  test('every other line is as it was, and the file says what the edits said', () => {
    fc.assert(
      fc.property(file, edits, (shape, sequence) => {
        let text = write(shape);
        const model = new Map(shape.entries.map(({ site, route }) => [site, route]));
        for (const [site, route] of sequence) {
          const next = setSite(text, site, route);
          const { gone, come } = diff(text, next);
          const was = model.get(site) ?? null;
          if (was === route) expect(next).toBe(text);
          else if (shape.style === 'block') {
            // In block style: a change is one line for one, an addition one line more, a removal the entry's lines less.
            if (was !== null && route !== null) expect([gone.length, come.length]).toEqual([1, 1]);
            else if (was === null) expect([gone.length, come.length]).toEqual([0, 1]);
            else {
              expect(come).toEqual([]);
              expect([1, 4]).toContain(gone.length);
            }
          } else {
            // Empty braces over two lines become a block.
            expect(gone.length).toBeLessThanOrEqual(model.size === 0 ? 2 : 1);
            expect(come.length).toBeLessThanOrEqual(2);
          }
          // Whatever comment is gone stood on a line of the entry.
          const comments = (lines: string) => lines.match(/# comment \d+/g) ?? [];
          if (route !== null) expect(comments(next)).toEqual(comments(text));
          expect(next.includes('\r\n')).toBe(shape.crlf);
          if (shape.crlf) expect(next.replaceAll('\r\n', '')).not.toContain('\n');
          expect(next.endsWith('\n')).toBe(shape.finalNewline);

          if (route === null) model.delete(site);
          else model.set(site, route);
          expect(sitesOf(next)).toEqual([...model]);
          const { sites: _then, ...others } = parseConfig(next, 'x').config;
          const { sites: _now, ...same } = parseConfig(text, 'x').config;
          expect(others).toEqual(same);
          text = next;
        }
      }),
      { numRuns: 400 },
    );
  });
});
