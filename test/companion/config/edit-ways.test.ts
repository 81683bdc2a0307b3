// Edits of hops and routes: what changes is what was asked for, and all else of the text stays.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parseConfig } from '../../../companion/config/config-file.ts';
import {
  removeHop,
  removeRoute,
  renameHop,
  renameRoute,
  setHop,
  setRoute,
} from '../../../companion/config/edit-ways.ts';
import { EditError } from '../../../companion/config/editing.ts';
import type { HopForm, RouteForm } from '../../../shared/ways.ts';

const FILE = `# my proxies
hops: # one each
  # the office
  office: socks5://me:s3cret@gw.example:1080 # till May
  squid:
    # plain
    kind: http
    host: proxy.example # near
    port: 3128
    username: us
    password: pa55
  flow: { kind: http, host: flow.example, port: 8080 } # one line

routes:
  work: [[office], [squid, flow]] # both
  # long
  long:
    chains:
      # the first
      - [office] # best
      - [squid] # then
      # the last
      - - flow
    else: companion # open
sites:
  example.com: work
  other.example: { route: long, cache: off }
rules:
  - { host: x.example, route: work }
default: long
# the end
`;

/** The lines that are gone and those that have come, where the texts differ. */
function diff(before: string, after: string): [gone: string[], come: string[]] {
  const gone = before.split('\n');
  const come = after.split('\n');
  while (gone.length > 0 && gone[0] === come[0]) [gone, come].forEach(lines => lines.shift());
  while (gone.length > 0 && gone.at(-1) === come.at(-1)) [gone, come].forEach(lines => lines.pop());
  return [gone, come];
}

const hop = (name: string, wanted: string | HopForm, text = FILE, isNew = false) =>
  setHop(text, name, wanted, { isNew });
const route = (name: string, form: RouteForm, text = FILE, isNew = false) => setRoute(text, name, form, { isNew });
const refusal = (edit: () => unknown): EditError => {
  try {
    edit();
  } catch (error) {
    if (error instanceof EditError) return error;
    throw error;
  }
  throw new Error('it was not refused');
};

describe('a hop', () => {
  test('is added in one line, by its URL or by a form that one line can say', () => {
    expect(diff(FILE, hop('tor', 'socks5://127.0.0.1:9050'))).toEqual([[], ['  tor: socks5://127.0.0.1:9050']]);
    const form = { kind: 'http', host: 'a.example', port: 3128, username: 'u@x', password: 'p:w' };
    expect(diff(FILE, hop('a', form))[1]).toEqual(['  a: http://u%40x:p%3Aw@a.example:3128']);
    expect(parseConfig(hop('a', form), 'x').config.hops['a']).toMatchObject(form);
    expect(setHop('', 'a', 'http://a.example:1', { isNew: true })).toBe('hops:\n  a: http://a.example:1\n');
    expect(setHop('hops:\n', 'a', 'http://[::1]:1', { isNew: true })).toContain('  a: "http://[::1]:1"\n');
  });

  test('is changed where it is written, in its own manner, with its comments', () => {
    expect(diff(FILE, hop('office', { kind: 'socks5', host: 'gw.example', port: 1081, username: 'me' }))).toEqual([
      ['  office: socks5://me:s3cret@gw.example:1080 # till May'],
      ['  office: socks5://me:s3cret@gw.example:1081 # till May'],
    ]);
    const squid = { kind: 'http', host: 'proxy.example', port: 3129, username: 'us' };
    expect(diff(FILE, hop('squid', squid))).toEqual([['    port: 3128'], ['    port: 3129']]);
    expect(
      diff(FILE, hop('flow', { kind: 'http', host: 'flow.example', port: 8080, username: 'a', password: 'b' })),
    ).toEqual([
      ['  flow: { kind: http, host: flow.example, port: 8080 } # one line'],
      ['  flow: { kind: http, host: flow.example, port: 8080, username: a, password: b } # one line'],
    ]);
    expect(hop('squid', { ...squid, port: 3128 })).toBe(FILE);
  });

  test('keeps its password unless another is given or it is cleared', () => {
    const squid = { kind: 'http', host: 'proxy.example', port: 3128, username: 'them' };
    expect(parseConfig(hop('squid', squid), 'x').config.hops['squid']).toMatchObject({
      username: 'them',
      password: 'pa55',
    });
    expect(diff(FILE, hop('squid', { ...squid, username: 'us', password: null }))).toEqual([
      ['    password: pa55'],
      [],
    ]);
    expect(diff(FILE, hop('office', 'socks5://me@gw.example:1'))[1]).toEqual([
      '  office: socks5://me:s3cret@gw.example:1 # till May',
    ]);
    expect(diff(FILE, hop('office', 'socks5://you@gw.example:1'))[1]).toEqual([
      '  office: socks5://you@gw.example:1 # till May',
    ]);
  });

  test('does not take a kept password to another host', () => {
    const moved = { kind: 'http', host: 'evil.example', port: 3128, username: 'us' };
    expect(refusal(() => hop('squid', moved))).toMatchObject({ problems: [{ field: 'password' }] });
    expect(refusal(() => hop('office', 'socks5://me@evil.example:1')).message).toContain('another host');
    expect(parseConfig(hop('squid', { ...moved, password: 'new' }), 'x').config.hops['squid']).toMatchObject({
      host: 'evil.example',
      password: 'new',
    });
    expect(hop('squid', { ...moved, password: null })).not.toContain('pa55');
  });

  test('that makes no sense is refused at its field', () => {
    expect(refusal(() => hop('a', { kind: 'http', host: 'a b' })).problems[0]).toMatchObject({ field: 'host' });
    expect(refusal(() => hop('a', { kind: 'smtp', host: 'a' })).problems[0]).toMatchObject({ field: 'kind' });
    expect(refusal(() => hop('a', { kind: 'http', host: 'a', port: 70_000 })).problems[0]).toMatchObject({
      field: 'port',
    });
    expect(refusal(() => hop('a b', 'http://a:1')).problems[0]).toMatchObject({ field: 'name' });
    expect(refusal(() => hop('office', 'http://a:1', FILE, true)).problems[0]).toMatchObject({ field: 'name' });
    expect(refusal(() => hop('a', 'socks5://me:top:secret@x@y:1')).message).not.toContain('secret');
  });

  test('leaves when no route names it', () => {
    expect(refusal(() => removeHop(FILE, 'office')).message).toBe(
      'The hop "office" is in the routes "work", "long": take it out of there first.',
    );
    const more = hop('tor', 'socks5://127.0.0.1:9050');
    expect(removeHop(more, 'tor')).toBe(FILE);
    expect(refusal(() => removeHop(FILE, 'none')).message).toBe('There is no hop "none" in the file.');
    expect(parseConfig(removeHop('hops:\n  a: http://a:1 # x\n', 'a'), 'x').config.hops).toEqual({});
  });

  test('gets another name, and the routes know it by that', () => {
    const after = renameHop(FILE, 'office', 'gate');
    expect(after).toBe(FILE.replace('  office: ', '  gate: ').replaceAll('[office]', '[gate]'));
    expect(refusal(() => renameHop(FILE, 'office', 'squid')).message).toBe('There is a hop "squid" already.');
    expect(refusal(() => renameHop(FILE, 'office', 'a b')).problems[0]).toMatchObject({ field: 'name' });
  });
});

describe('a route', () => {
  test('is added, short where chains are all it has', () => {
    expect(diff(FILE, route('new', { chains: [['office', 'squid'], []] }))[1]).toEqual([
      '  new: [[office, squid], []]',
    ]);
    expect(diff(FILE, route('new', { chains: [['office']], else: 'companion' }))[1]).toEqual([
      '  new: { chains: [[office]], else: companion }',
    ]);
  });

  test('is changed where it is written: the order of chains, with their comments', () => {
    expect(diff(FILE, route('work', { chains: [['squid', 'flow'], ['office']] }))).toEqual([
      ['  work: [[office], [squid, flow]] # both'],
      ['  work: [[squid, flow], [office]] # both'],
    ]);
    expect(diff(FILE, route('work', { chains: [['office'], ['squid']] }))[1]).toEqual([
      '  work: [[office], [squid]] # both',
    ]);
    const long = (chains: string[][]) => diff(FILE, route('long', { chains, else: 'companion' }));
    expect(long([['squid'], ['office'], ['flow']])).toEqual([
      ['      - [office] # best', '      - [squid] # then'],
      ['      - [squid] # then', '      - [office] # best'],
    ]);
    expect(long([['office'], ['squid'], ['flow'], ['flow', 'squid']])).toEqual([[], ['      - [flow, squid]']]);
    expect(long([['office', 'flow'], ['squid'], ['flow']])).toEqual([
      ['      - [office] # best'],
      ['      - [office, flow] # best'],
    ]);
    expect(long([['office'], ['flow']])).toEqual([['      - [squid] # then'], []]);
    expect(long([['office'], ['squid']])[1]).toEqual([]);
  });

  test('becomes long when it has more to say, and loses what is not said again', () => {
    expect(diff(FILE, route('work', { chains: [['office'], ['squid', 'flow']], else: 'companion' }))[1]).toEqual([
      '  work: { chains: [[office], [squid, flow]], else: companion } # both',
    ]);
    const closed = route('long', { chains: [['office'], ['squid'], ['flow']] });
    expect(diff(FILE, closed)).toEqual([['    else: companion # open'], []]);
  });

  test('that makes no sense is refused at its field', () => {
    const problems = (form: RouteForm) => refusal(() => route('work', form)).problems;
    expect(problems({ chains: [['office'], ['none']] })[0]).toMatchObject({
      field: expect.stringMatching(/^(chains)?\[1\]\[0\]$/),
      message: expect.stringContaining('none'),
    });
    expect(problems({ chains: [['office']], else: 'nowhere' })[0]).toMatchObject({ field: 'else' });
    expect(problems({ chains: [] }).length).toBeGreaterThan(0);
    expect(refusal(() => route('companion', { chains: [[]] })).message).toContain('built in');
    expect(refusal(() => route('work', { chains: [[]] }, FILE, true)).message).toContain('already');
  });

  test('leaves when nothing names it', () => {
    expect(refusal(() => removeRoute(FILE, 'work')).message).toBe(
      'The route "work" is still used by sites.example.com, rules[0]: choose another one there first.',
    );
    expect(refusal(() => removeRoute(FILE, 'long')).message).toContain('sites.other.example, default');
    expect(removeRoute(route('new', { chains: [['office']] }), 'new')).toBe(FILE);
  });

  test('gets another name wherever it is named', () => {
    const after = renameRoute(FILE, 'work', 'job');
    expect(after).toBe(
      FILE.replace('  work: ', '  job: ')
        .replace('example.com: work', 'example.com: job')
        .replace('route: work', 'route: job'),
    );
    expect(renameRoute(FILE, 'long', 'far')).toContain('default: far');
    expect(renameRoute(FILE, 'long', 'far')).toContain('{ route: far, cache: off }');
  });
});

test('line ends and a byte order mark stay as they are', () => {
  const text = `\uFEFF${FILE.replaceAll('\n', '\r\n')}`;
  const expected = (after: string) => `\uFEFF${after.replaceAll('\n', '\r\n')}`;
  expect(hop('tor', 'socks5://127.0.0.1:9050', text)).toBe(expected(hop('tor', 'socks5://127.0.0.1:9050')));
  const form = { chains: [['squid'], ['office'], ['flow']], else: 'companion' };
  expect(route('long', form, text)).toBe(expected(route('long', form)));
  expect(renameHop(text, 'office', 'gate')).toBe(expected(renameHop(FILE, 'office', 'gate')));
});

test('a file out of order is not edited, and an alias is no place for an edit', () => {
  expect(() => hop('a', 'http://a:1', 'hops:\n  b: nonsense\n')).toThrow('hops.b');
  const text = 'hops:\n  a: &a { kind: http, host: a.example, port: 1 }\n  b: *a\n';
  expect(hop('b', { kind: 'http', host: 'b.example', port: 1 }, text)).toContain(
    'a: &a { kind: http, host: a.example, port: 1 }',
  );
});

const name = fc.constantFrom('a', 'b', 'c', 'd');
const chain = fc.oneof(
  { weight: 5, arbitrary: fc.array(name, { minLength: 1, maxLength: 3 }) },
  { weight: 1, arbitrary: fc.constant('other') },
);
const chains = fc.array(chain, { minLength: 1, maxLength: 5 });
const settings = fc.record(
  {
    else: fc.constant('companion'),
    pick: fc.constantFrom('latency', 'sticky'),
    check: fc.record(
      { url: fc.constant('http://c.example/'), every: fc.constantFrom(60, 90) },
      { requiredKeys: ['url'] },
    ),
  },
  { requiredKeys: [] },
);
const form = fc.tuple(chains, settings).map(([list, more]): RouteForm => ({ chains: list, ...more }));
/** One route in each of the manners in which people write them. */
const written = fc.tuple(form, fc.constantFrom('flow', 'block', 'nested', 'lines')).map(([value, manner]) => {
  const flow = (one: unknown): string =>
    typeof one === 'object' && one !== null && !Array.isArray(one)
      ? `{ ${Object.entries(one)
          .map(([key, inner]) => `${key}: ${flow(inner)}`)
          .join(', ')} }`
      : Array.isArray(one)
        ? `[${one.map(flow).join(', ')}]`
        : String(one);
  const { chains: list, ...more } = value;
  if (manner === 'flow') return flow(value);
  const rest = Object.entries(more).map(([key, inner]) => `    ${key}: ${flow(inner)} # of ${key}\n`);
  const items = list.map((one, i) => ({ one, i }));
  if (manner === 'lines')
    return `\n    chains: [\n${items.map(({ one }) => `      ${flow(one)},\n`).join('')}    ]\n${rest.join('')}`.trimEnd();
  const block = items.map(({ one, i }) =>
    manner === 'nested' && Array.isArray(one)
      ? `      # above ${i}\n      - - ${one.join('\n        - ')}\n`
      : `      # above ${i}\n      - ${flow(one)} # beside ${i}\n`,
  );
  return `\n    # first\n    chains: # all of them\n${block.join('')}${rest.join('')}`.trimEnd();
});

test('however a route is written, an edit makes it what was asked for, and touches nothing else', () => {
  let made = 0;
  const head = `hops: { a: http://a:1, b: http://b:1, c: http://c:1, d: http://d:1 }
routes: # r
  # before
  other: [[a]]
`;
  const tail = '\n  # behind\n  last: [[b]] # l\nsites:\n  x.test: it\n';
  fc.assert(
    fc.property(written, form, (text, wanted) => {
      let after: string;
      try {
        after = route('it', wanted, `${head}  it: ${text}${tail}`);
      } catch (error) {
        // It may be refused, but not for what it is: the form is good.
        expect((error as EditError).message).toContain('by hand');
        return;
      }
      expect(after.startsWith(head)).toBe(true);
      expect(after.endsWith(tail.slice(1))).toBe(true);
      const { it } = (parseConfig(after, 'x').document.value as { routes: { it: unknown } }).routes;
      expect(JSON.parse(JSON.stringify(Array.isArray(it) ? { chains: it } : it))).toEqual(wanted);
      expect(route('it', wanted, after)).toBe(after);
      made++;
    }),
    { numRuns: 200 },
  );
  expect(made).toBeGreaterThan(180);
});
