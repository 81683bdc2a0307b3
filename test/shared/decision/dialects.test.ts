// One matcher, three dialects: the companion's look-up, the PAC in a real engine, the table; and a slow reference that reads the rules as written.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { compilePac } from '../../../shared/decision/compile-pac.ts';
import { compileTable, openTable } from '../../../shared/decision/compile-table.ts';
import {
  addressBits,
  compileMatcher,
  decide,
  decideForCompanion,
  defaultRank,
} from '../../../shared/decision/decide.ts';
import { hashOf } from '../../../shared/decision/hash.ts';
import { parseMatcher } from '../../../shared/decision/parse-matcher.ts';
import type { Action, Matcher, RuleSource } from '../../../shared/decision/rule.ts';
import { isAddress, normalizeHost } from '../../../shared/endpoint.ts';
import { anyRules, anyUrl } from '../../support/arbitraries.ts';
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

/** Reads every rule in turn, as the words of the rules say. */
function reference(source: RuleSource, host: string): string {
  const matches = (matcher: Matcher): boolean => {
    switch (matcher.kind) {
      case 'exact':
        return host === matcher.host;
      case 'suffix':
        return host === matcher.host || (!isAddress(host) && host.endsWith(`.${matcher.host}`));
      case 'subdomains':
        return !isAddress(host) && host.endsWith(`.${matcher.host}`);
      case 'cidr': {
        if (!isAddress(host) || host.includes(':') !== matcher.address.includes(':')) return false;
        const shift = BigInt((host.includes(':') ? 128 : 32) - matcher.prefix);
        return addressBits(host) >> shift === addressBits(matcher.address) >> shift;
      }
    }
  };
  const all = [
    ...source.rules.map(rule => ({ ...rule, listed: false })),
    ...source.lists.flatMap(list =>
      list.entries.map(entry => ({
        matcher: entry.matcher,
        action: entry.allow ? ({ do: 'allow' } as const) : list.action,
        rank: list.rank,
        listed: true,
      })),
    ),
  ].filter(rule => matches(rule.matcher));
  all.sort((a, b) => (a.rank ?? defaultRank(a.matcher)) - (b.rank ?? defaultRank(b.matcher)));
  const way = all.find(rule => rule.action.do === 'route' || rule.action.do === 'off')?.action;
  const first = all[0];
  if (first?.action.do === 'block' && !(first.listed && way?.do === 'route' && way.filter === 'off')) return 'block';
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

  test('the PAC never leaves a steered URL direct, and agrees with the matcher on names and IPv4', () => {
    fc.assert(
      fc.property(anyRules, fc.array(anyUrl, { minLength: 1, maxLength: 8 }), fc.boolean(), (source, urls, bare) => {
        const matcher = compileMatcher(source);
        const pac = openPac(compilePac(matcher, PROXY));
        for (const url of urls) {
          const host = hostOf(url);
          const { steered } = decide(matcher, { host });
          const answer = pac(url, bare);
          if (steered) expect(answer, url).toBe('PROXY 127.0.0.1:8228');
          // IPv6 is sent to the companion whenever a rule by address exists.
          else if (!new URL(url).hostname.startsWith('[')) expect(answer, url).toBe('DIRECT');
          else expect(answer, url).toMatch(/^(DIRECT|PROXY 127\.0\.0\.1:8228)$/);
        }
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
        const hosts = openTable(compileTable(matcher)).hosts();
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

  test('a list names its line', () => {
    const matcher = compileMatcher({
      rules: [],
      lists: [
        {
          id: 'lists[0]',
          name: 'ads.txt',
          action: { do: 'block' },
          entries: [{ matcher: { kind: 'suffix', host: 'ads.test' }, line: 7 }],
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
        entries: hosts.map((host, i) => ({ matcher: { kind: 'suffix' as const, host }, line: i + 1 })),
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
