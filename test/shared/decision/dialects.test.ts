// One matcher, three dialects: the companion's look-up, the PAC in a real engine, the table; and a slow reference that reads the rules as written.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { compilePac } from '../../../shared/decision/compile-pac.ts';
import { compileTable, openTable } from '../../../shared/decision/compile-table.ts';
import { compileMatcher, decide, decideForCompanion } from '../../../shared/decision/decide.ts';
import { hashOf } from '../../../shared/decision/hash.ts';
import { parseMatcher } from '../../../shared/decision/parse-matcher.ts';
import type { Action, Condition, DecisionTarget, Matcher, RuleSource } from '../../../shared/decision/rule.ts';
import { ALLOWS, matcherAt, ruleTableOf, type RuleTable } from '../../../shared/decision/rule-table.ts';
import { isAddress, normalizeHost } from '../../../shared/endpoint.ts';
import { anyRules, anyRulesWhatever, anyRulesWithPatterns, anySpelledHost, anyUrl } from '../../support/arbitraries.ts';
import { makeHosts } from '../../support/make-list.ts';
import { openPac } from '../../support/run-pac.ts';

const PROXY = { host: '127.0.0.1', port: 8228 };
const RUNS = { numRuns: 2_000 };
const hostOf = (url: string) => normalizeHost(new URL(url).hostname)!;
const routed = (route: string): Action => ({
  do: 'route',
  route,
  filter: 'standard',
  cache: 'standard',
  inspect: false,
});
const rulesOf = (...pairs: [string, Action, number?][]): RuleSource => ({
  rules: pairs.map(([text, action, rank], i) => ({
    matcher: parseMatcher(text) as Matcher,
    action,
    rank,
    id: `rules[${i}]`,
  })),
  lists: [],
});

/** The bits of an address as text, so that a prefix is the beginning of a string. */
function bitsOf(address: string): string {
  if (!address.includes(':'))
    return address
      .split('.')
      .map(part => Number(part).toString(2).padStart(8, '0'))
      .join('');
  const [before, after] = address.split('::').map(side => side.split(':').filter(Boolean)) as [string[], string[]?];
  const gap = after ? Array<string>(8 - before.length - after.length).fill('0') : [];
  return [...before, ...gap, ...(after ?? [])].map(group => parseInt(group, 16).toString(2).padStart(16, '0')).join('');
}

function rankAsWritten(matcher: Matcher, when?: Condition): number {
  if (when) {
    const { ports, path, times } = when;
    const more = (ports ? 0.2 : 0) + (times ? 0.2 : 0) + (path === undefined ? 0 : 0.2 + path.length / 5_000);
    return rankAsWritten(matcher) - more;
  }
  if (matcher.kind === 'exact') return 1000;
  if (matcher.kind === 'keyword' || matcher.kind === 'regex') return 4000;
  if (matcher.kind !== 'cidr') return 2000 - matcher.host.split('.').length;
  return 3000 - (matcher.address.includes(':') ? matcher.prefix : 96 + matcher.prefix);
}

/** In the order of their lines. */
function entriesOf(table: RuleTable) {
  return Array.from({ length: table.size }, (_, i) => ({
    matcher: matcherAt(table, i),
    allow: (table.kinds[i]! & ALLOWS) !== 0,
    line: table.lines[i]!,
    when: table.conditions.get(i),
  })).sort((a, b) => a.line - b.line);
}

/** Reads every rule in turn, as the words of the rules say. */
function reference(source: RuleSource, host: string, target: Partial<DecisionTarget> = {}): string {
  const holds = ({ ports, path, times, wholeHost }: Condition, routes: boolean): boolean => {
    const { port = 0, path: asked, minute = 0 } = target;
    if (ports && !ports.some(({ from, to }) => from <= port && port <= to)) return false;
    if (path !== undefined && !(asked === undefined ? routes && wholeHost : asked.startsWith(path))) return false;
    return (
      !times ||
      times.some(({ days, from, to }) =>
        Array.from({ length: 7 }, (_, day) => day).some(day => {
          if ((days & (1 << day)) === 0) return false;
          const begin = day * 1_440 + from;
          const end = day * 1_440 + to + (to <= from ? 1_440 : 0);
          return [minute, minute + 10_080].some(one => one >= begin && one < end);
        }),
      )
    );
  };
  const matches = (matcher: Matcher): boolean => {
    switch (matcher.kind) {
      case 'exact':
        return host === matcher.host;
      case 'suffix':
        return host === matcher.host || (!isAddress(host) && host.endsWith(`.${matcher.host}`));
      case 'subdomains':
        return !isAddress(host) && host.endsWith(`.${matcher.host}`);
      case 'cidr':
        if (!isAddress(host) || host.includes(':') !== matcher.address.includes(':')) return false;
        return bitsOf(host).startsWith(bitsOf(matcher.address).slice(0, matcher.prefix));
      case 'keyword':
        return !isAddress(host) && host.includes(matcher.text);
      case 'regex':
        return !isAddress(host) && new RegExp(matcher.source, 'i').test(host);
    }
  };
  const all = [
    ...source.rules.map(rule => ({ ...rule, listed: false })),
    ...source.lists.flatMap(list =>
      entriesOf(list.table).map(entry => ({
        matcher: entry.matcher,
        action: !entry.allow
          ? list.action
          : list.action.do === 'route'
            ? ({ do: 'off' } as const)
            : ({ do: 'allow' } as const),
        rank: list.rank,
        when: entry.when,
        listed: true,
      })),
    ),
  ].filter(rule => matches(rule.matcher) && (rule.when === undefined || holds(rule.when, rule.action.do === 'route')));
  all.sort((a, b) => (a.rank ?? rankAsWritten(a.matcher, a.when)) - (b.rank ?? rankAsWritten(b.matcher, b.when)));
  const way = all.find(rule => rule.action.do === 'route' || rule.action.do === 'off')?.action;
  const isSpared = way?.do === 'route' && way.filter === 'off';
  const first = all.find(rule => !(rule.action.do === 'block' && rule.listed && isSpared));
  if (first?.action.do === 'block') return 'block';
  return way?.do === 'route' ? way.route : 'direct';
}

describe('properties', () => {
  test('the matcher decides as the rules read', () => {
    fc.assert(
      fc.property(anyRules, anyUrl, (source, url) => {
        const host = hostOf(url);
        const decision = decide(compileMatcher(source), { host });
        expect(decision.steered ? decision.route : 'direct').toBe(reference(source, host));
      }),
      RUNS,
    );
  });

  test(
    'with keywords and expressions the matcher decides as the rules read, and PAC and table agree with it',
    { timeout: 120_000 },
    () => {
      fc.assert(
        fc.property(anyRulesWithPatterns, fc.array(anyUrl, { minLength: 1, maxLength: 4 }), (source, urls) => {
          const matcher = compileMatcher(source);
          const pac = openPac(compilePac(matcher, PROXY));
          const table = openTable(JSON.parse(JSON.stringify(compileTable(matcher))));
          for (const url of urls) {
            const host = hostOf(url);
            const decision = decide(matcher, { host });
            expect(decision.steered ? decision.route : 'direct', url).toBe(reference(source, host));
            expect(pac(url), url).toBe(decision.steered ? 'PROXY 127.0.0.1:8228' : 'DIRECT');
            expect(table.lookup(host) === 'direct', url).toBe(!decision.steered);
          }
        }),
        { numRuns: 500 },
      );
    },
  );

  test('whatever the rules look at, neither PAC nor table leaves direct what is steered', { timeout: 120_000 }, () => {
    fc.assert(
      fc.property(anyRulesWhatever, anyUrl, fc.integer({ min: 0, max: 10_079 }), (source, url, minute) => {
        const matcher = compileMatcher(source);
        const { protocol, port, pathname } = new URL(url);
        const host = hostOf(url);
        const scheme = protocol.slice(0, -1);
        const isTunnel = scheme !== 'http';
        const target = {
          scheme,
          host,
          port: port === '' ? (protocol.endsWith('s:') ? 443 : 80) : Number(port),
          path: isTunnel ? undefined : pathname,
          minute,
        };
        const decision = decide(matcher, target);
        expect(decision.steered ? decision.route : 'direct').toBe(reference(source, host, target));
        if (!decision.steered) return;
        expect(openPac(compilePac(matcher, PROXY))(url)).toBe('PROXY 127.0.0.1:8228');
        expect(openTable(compileTable(matcher)).lookup(host)).not.toBe('direct');
      }),
      { numRuns: 1_000 },
    );
  });

  test(
    'the PAC never leaves a steered URL direct, and agrees with the matcher on every host',
    { timeout: 120_000 },
    () => {
      fc.assert(
        fc.property(anyRules, fc.array(anyUrl, { minLength: 1, maxLength: 8 }), fc.boolean(), (source, urls, bare) => {
          const matcher = compileMatcher(source);
          const pac = openPac(compilePac(matcher, PROXY));
          for (const url of urls) {
            const { steered } = decide(matcher, { host: hostOf(url) });
            expect(pac(url, bare), url).toBe(steered ? 'PROXY 127.0.0.1:8228' : 'DIRECT');
          }
        }),
        RUNS,
      );
    },
  );

  test(
    'so it does where the host comes as typed; where it is not ASCII, it goes to the companion',
    { timeout: 120_000 },
    () => {
      fc.assert(
        fc.property(anyRules, anySpelledHost, fc.boolean(), (source, typed, bare) => {
          const host = normalizeHost(typed);
          if (host === null) return;
          const matcher = compileMatcher(source);
          const answer = openPac(compilePac(matcher, PROXY))(`http://${typed}/`, bare, typed);
          const { steered } = decide(matcher, { host });
          if (steered || /^[\x00-\x7f]*$/.test(typed))
            expect(answer, typed).toBe(steered ? 'PROXY 127.0.0.1:8228' : 'DIRECT');
        }),
        RUNS,
      );
    },
  );

  test('whatever the host argument is, the PAC answers with one of its two words', () => {
    const pac = openPac(compilePac(compileMatcher(rulesOf(['a.test', routed('work')])), PROXY));
    fc.assert(
      fc.property(fc.oneof(fc.anything(), fc.string(), fc.string({ unit: 'grapheme' })), host => {
        expect(pac('http://x/', false, host as string)).toMatch(/^(PROXY 127\.0\.0\.1:8228|DIRECT)$/);
      }),
      RUNS,
    );
  });

  test('the table says what the matcher says, after a trip through JSON', () => {
    fc.assert(
      fc.property(anyRules, fc.array(anyUrl, { minLength: 1, maxLength: 8 }), (source, urls) => {
        const matcher = compileMatcher(source);
        const table = openTable(JSON.parse(JSON.stringify(compileTable(matcher))));
        for (const url of urls) {
          const decision = decide(matcher, { host: hostOf(url) });
          const word = !decision.steered ? 'direct' : decision.blockedBy ? 'blocked' : 'steered';
          expect(table.lookup(new URL(url).hostname), url).toBe(word);
          expect(table.confines(new URL(url).hostname), url).toBe(decision.steered && !decision.local);
        }
      }),
      RUNS,
    );
  });

  test('the guard of the local network covers every steered name', () => {
    fc.assert(
      fc.property(anyRules, anyUrl, (source, url) => {
        const matcher = compileMatcher(source);
        const host = hostOf(url);
        if (isAddress(host) || !decide(matcher, { host }).steered) return;
        const hosts = [...openTable(compileTable(matcher)).names()].map(([name]) => name);
        expect(
          hosts.some(one => host === one || host.endsWith(`.${one}`)),
          `${host} in ${hosts.join(' ')}`,
        ).toBe(true);
      }),
      RUNS,
    );
  });
});

describe('the rules of ranks', () => {
  test('the more specific rule wins, whatever the order', () => {
    const matcher = compileMatcher(
      rulesOf(
        ['example.com', routed('a')],
        ['static.example.com', { do: 'off' }],
        ['=www.static.example.com', routed('b')],
      ),
    );
    expect(decide(matcher, { host: 'example.com' })).toMatchObject({
      steered: true,
      route: 'a',
      because: { rule: 'rules[0]', text: 'example.com' },
    });
    expect(decide(matcher, { host: 'x.static.example.com' })).toMatchObject({
      steered: false,
      because: { rule: 'rules[1]' },
    });
    expect(decide(matcher, { host: 'www.static.example.com' })).toMatchObject({ steered: true, route: 'b' });
    expect(decide(matcher, { host: 'notexample.com' })).toEqual({ steered: false, because: { rule: 'default' } });
  });

  test('a rank by hand beats them', () => {
    const matcher = compileMatcher(rulesOf(['a.example.com', routed('a')], ['example.com', routed('b'), 1]));
    expect(decide(matcher, { host: 'a.example.com' })).toMatchObject({ route: 'b' });
  });

  test('equal ranks go by the order of the file', () => {
    const matcher = compileMatcher(rulesOf(['example.com', routed('a')], ['example.com', routed('b')]));
    expect(decide(matcher, { host: 'example.com' })).toMatchObject({ route: 'a' });
  });

  test('strict subdomains leave the domain itself alone', () => {
    const matcher = compileMatcher(rulesOf(['.intranet.example', routed('a')]));
    expect(decide(matcher, { host: 'intranet.example' }).steered).toBe(false);
    expect(decide(matcher, { host: 'x.intranet.example' }).steered).toBe(true);
  });

  test('what arrives unnamed takes the default route and says so', () => {
    const matcher = compileMatcher(rulesOf(['off.example', { do: 'off' }]));
    expect(decideForCompanion(matcher, { host: 'other.example' }, 'work')).toMatchObject({
      route: 'work',
      because: { rule: 'default' },
    });
    expect(decideForCompanion(matcher, { host: 'off.example' }, 'work')).toMatchObject({
      route: 'work',
      because: { rule: 'rules[0]' },
    });
  });

  test('a rank by hand may be any whole number', () => {
    const matcher = compileMatcher(rulesOf(['example.com', routed('a'), 2 ** 31], ['example.com', routed('b')]));
    expect(decide(matcher, { host: 'example.com' })).toMatchObject({ route: 'b' });
  });

  test('the narrower range wins, and a single address beats every range', () => {
    const matcher = compileMatcher(
      rulesOf(['10.0.0.0/8', routed('wide')], ['10.1.0.0/16', { do: 'off' }], ['10.1.2.3', routed('one')]),
    );
    expect(decide(matcher, { host: '10.2.0.1' })).toMatchObject({ route: 'wide', because: { text: '10.0.0.0/8' } });
    expect(decide(matcher, { host: '10.1.0.1' }).steered).toBe(false);
    expect(decide(matcher, { host: '10.1.2.3' })).toMatchObject({ route: 'one' });
  });

  test('filter: off spares from lists only: a block by hand below the list still holds', () => {
    const { rules } = rulesOf(
      ['example.com', { do: 'route', route: 'a', filter: 'off', cache: 'standard', inspect: false }],
      ['b.example.com', { do: 'block' }],
    );
    const entries = ['a.b.example.com', 'c.example.com'].map((text, i) => ({
      matcher: parseMatcher(text) as Matcher,
      line: i + 1,
    }));
    const matcher = compileMatcher({
      rules,
      lists: [{ id: 'lists[0]', name: 'x', action: { do: 'block' }, table: ruleTableOf(entries) }],
    });
    expect(decide(matcher, { host: 'c.example.com' })).toMatchObject({ route: 'a' });
    expect(decide(matcher, { host: 'a.b.example.com' })).toMatchObject({
      route: 'block',
      blockedBy: { rule: 'rules[1]' },
    });
  });

  test('allow names itself only where it overruled a block, also on the default route', () => {
    const matcher = compileMatcher(
      rulesOf(
        ['example.com', routed('a')],
        ['ads.example.com', { do: 'block' }],
        ['=ads.example.com', { do: 'allow' }],
        ['=www.example.com', { do: 'allow' }],
        ['other.test', { do: 'block' }, 2],
        ['other.test', { do: 'allow' }, 1],
      ),
    );
    expect(decide(matcher, { host: 'ads.example.com' })).toMatchObject({ route: 'a', allowedBy: { rule: 'rules[2]' } });
    expect(decide(matcher, { host: 'www.example.com' })).toMatchObject({ route: 'a', allowedBy: undefined });
    expect(decide(matcher, { host: 'other.test' })).toEqual({ steered: false, because: { rule: 'default' } });
    expect(decideForCompanion(matcher, { host: 'other.test' }, 'work')).toMatchObject({
      route: 'work',
      allowedBy: { rule: 'rules[5]' },
    });
  });

  test('a default of block blocks what no rule names', () => {
    const matcher = compileMatcher(rulesOf(['example.com', routed('a')]));
    expect(decideForCompanion(matcher, { host: 'other.test' }, 'block')).toMatchObject({
      route: 'block',
      blockedBy: { rule: 'default' },
    });
    expect(decideForCompanion(matcher, { host: 'other.test' }, 'companion').route).toBe('companion');
  });

  test('an IPv4 prefix ranks as the IPv6 prefix that reaches the same addresses', () => {
    const matcher = compileMatcher(rulesOf(['10.0.0.0/8', routed('narrow')], ['10.0.0.0/7', routed('wide'), 2897]));
    expect(decide(matcher, { host: '10.0.0.1' })).toMatchObject({ route: 'narrow' });
  });

  test('a name is found only where a packed name begins', () => {
    const matcher = compileMatcher(rulesOf(['xab.com', routed('a')], ['xca.com', routed('a')]));
    const pac = openPac(compilePac(matcher, PROXY));
    const table = openTable(compileTable(matcher));
    expect(['xab.com', 'xca.com', 'xbc.com'].map(host => pac(`http://${host}/`).slice(0, 5))).toEqual([
      'PROXY',
      'PROXY',
      'DIREC',
    ]);
    expect(['xab.com', 'xca.com', 'xbc.com'].map(table.lookup)).toEqual(['steered', 'steered', 'direct']);
  });

  test('ten thousand address ranges compile at once and cost a look-up little', { timeout: 20_000 }, () => {
    const entries = Array.from({ length: 10_000 }, (_, i) => ({
      matcher: { kind: 'cidr' as const, address: `${i >> 8}.${i & 255}.0.0`, prefix: 16 + (i % 9) },
      line: i + 1,
    }));
    const list = { id: 'lists[0]', name: 'x', action: routed('a'), table: ruleTableOf(entries) };
    const began = performance.now();
    const matcher = compileMatcher({ rules: [], lists: [list] });
    const pac = openPac(compilePac(matcher, PROXY));
    expect(performance.now() - began).toBeLessThan(2_000);
    expect(pac('http://20.9.0.1/')).toContain('PROXY');
    expect(pac('http://99.9.0.1/')).toBe('DIRECT');
    expect(decide(matcher, { host: '20.9.0.1' })).toMatchObject({ because: { list: 'x', line: 20 * 256 + 10 } });
  });

  test('an address range in IPv4-mapped form is the IPv4 range', () => {
    expect(parseMatcher('[::ffff:10.0.0.0]/104')).toEqual({ kind: 'cidr', address: '10.0.0.0', prefix: 8 });
    expect(parseMatcher('::ffff:10.0.0.0/8')).toMatch(/wider/);
    expect(parseMatcher('10.0.0.0/33')).toMatch(/goes to 32/);
  });

  test('a list names its line', () => {
    const matcher = compileMatcher({
      rules: [],
      lists: [
        {
          id: 'lists[0]',
          name: 'ads.txt',
          action: { do: 'block' },
          table: ruleTableOf([{ matcher: { kind: 'suffix', host: 'ads.test' }, line: 7 }]),
        },
      ],
    });
    expect(decide(matcher, { host: 'x.ads.test' })).toMatchObject({
      route: 'block',
      blockedBy: { rule: 'lists[0]', list: 'ads.txt', line: 7, text: 'ads.test' },
    });
  });
});

describe('a list of 100,000 hosts', () => {
  const hosts = makeHosts(100_000);
  const matcher = compileMatcher({
    rules: [],
    lists: [
      {
        id: 'lists[0]',
        name: 'big.txt',
        action: routed('work'),
        table: ruleTableOf(hosts.map((host, i) => ({ matcher: { kind: 'suffix' as const, host }, line: i + 1 }))),
      },
    ],
  });
  const pac = compilePac(matcher, PROXY);

  test('its mean host is 14 characters long, and its PAC is ASCII, at most 1 MiB, and the same each time', () => {
    const mean = hosts.reduce((sum, host) => sum + host.length, 0) / hosts.length;
    expect(mean).toBeGreaterThan(13.5);
    expect(Buffer.byteLength(pac)).toBeLessThanOrEqual(1024 * 1024);
    expect(/^[\x00-\x7f]*$/.test(pac)).toBe(true);
    expect(hashOf(compilePac(matcher, PROXY))).toBe(hashOf(pac));
  });

  test('every host of it is steered by all three, and its neighbour by none', () => {
    const run = openPac(pac);
    const table = openTable(compileTable(matcher));
    for (let i = 0; i < hosts.length; i += 97) {
      const host = hosts[i]!;
      expect(run(`https://${host}/`)).toContain('PROXY');
      expect(table.lookup(`www.${host}`)).toBe('steered');
      expect(run(`https://q${host}/`), host).toBe(
        decide(matcher, { host: `q${host}` }).steered ? 'PROXY 127.0.0.1:8228' : 'DIRECT',
      );
    }
  });

  test('a call takes at most 10 µs without a JIT', { timeout: 60_000 }, () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'detour-pac-'));
    try {
      const names = [...hosts.filter((_, i) => i % 50 === 0), ...makeHosts(2_000, 99)];
      const script =
        `${pac}\nvar names=${JSON.stringify(names)};function all(){for(var i=0;i<names.length;i++)FindProxyForURL("https://"+names[i]+"/","www."+names[i])}` +
        'all();var best=1e9;for(var r=0;r<7;r++){var t=process.hrtime.bigint();all();best=Math.min(best,Number(process.hrtime.bigint()-t)/names.length)}console.log(best);';
      writeFileSync(path.join(folder, 'run.cjs'), script);
      const nanoseconds = Number(
        execFileSync(process.execPath, ['--jitless', path.join(folder, 'run.cjs')], { encoding: 'utf8' }),
      );
      expect(nanoseconds).toBeLessThan(10_000);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
