import fc from 'fast-check';
import { expect, test, vi } from 'vitest';
import type { SavedSteering } from '../../extension/settings/settings.ts';
import {
  isLoopback,
  isPrivateHost,
  localNetworkRules,
  makeLocalNetworkGuard,
  noLongerConfined,
} from '../../extension/steering/local-network-guard.ts';
import { RequestSteering } from '../../extension/steering/on-request.ts';
import { makePacSteering } from '../../extension/steering/pac-settings.ts';
import { compileTable, openTable } from '../../shared/decision/compile-table.ts';
import { compileMatcher } from '../../shared/decision/decide.ts';
import { parseMatcher } from '../../shared/decision/parse-matcher.ts';
import type { Action, Matcher } from '../../shared/decision/rule.ts';
import { ruleTableOf } from '../../shared/decision/rule-table.ts';
import { anyRules, anyRulesWithPatterns, anyUrl } from '../support/arbitraries.ts';
import { makeHosts } from '../support/make-list.ts';

const action = { do: 'route', route: 'companion', filter: 'standard', cache: 'standard', inspect: false } as const;
const table = compileTable(
  compileMatcher({ rules: [{ id: 'sites.a.test', matcher: { kind: 'suffix', host: 'a.test' }, action }], lists: [] }),
);
const saved: SavedSteering = {
  hash: '1',
  pac: 'function FindProxyForURL(){}',
  table,
  proxy: { host: '127.0.0.1', port: 8228 },
  pacUrl: 'http://127.0.0.1:8228/x/proxy.pac',
};
const CLOSED = { type: 'http', host: '127.0.0.1', port: 9 };

test('in Firefox a steered host goes to the companion, at once, and no other does', () => {
  const steering = new RequestSteering();
  steering.use(saved);
  expect(steering.answer('https://www.a.test/path?q')).toEqual({ type: 'http', host: '127.0.0.1', port: 8228 });
  expect(steering.answer('http://b.test/')).toBeUndefined();
  steering.use(null);
  expect(steering.answer('https://www.a.test/')).toBeUndefined();
});

test('requests wait until the table is restored', async () => {
  const steering = new RequestSteering();
  let restore!: () => void;
  steering.hold(new Promise<void>(resolve => (restore = resolve)));
  const early = steering.answer('http://a.test/');
  expect(early).toBeInstanceOf(Promise);
  steering.use(saved);
  restore();
  expect(await early).toEqual({ type: 'http', host: '127.0.0.1', port: 8228 });
});

test('requests do not wait for ever: then nothing goes direct until there is a table', async () => {
  const steering = new RequestSteering();
  steering.hold(new Promise(() => {}), 20);
  expect(await steering.answer('http://b.test/')).toEqual(CLOSED);
  steering.use(saved);
  expect(steering.answer('http://b.test/')).toBeUndefined();
});

test('when the table cannot be restored, or a URL cannot be read, nothing goes direct', async () => {
  const steering = new RequestSteering();
  steering.hold(Promise.reject(new Error('storage is broken')));
  expect(await steering.answer('http://b.test/')).toEqual(CLOSED);
  expect(steering.answer('http://b.test/')).toEqual(CLOSED);
  const other = new RequestSteering();
  other.use(saved);
  expect(other.answer('no url')).toEqual(CLOSED);
});

function fakeProxy(levelOfControl = 'controllable_by_this_extension') {
  let data: string | undefined;
  const did: string[] = [];
  return {
    did,
    errors: { addListener: () => {} },
    settings: {
      onChange: { addListener: () => {} },
      get: async () =>
        data === undefined
          ? { levelOfControl }
          : { levelOfControl: 'controlled_by_this_extension', value: { pacScript: { data } } },
      set: async ({ value }: { value: object }) => {
        const { pacScript } = value as { pacScript: { data: string; mandatory: boolean } };
        did.push(`set mandatory=${pacScript.mandatory}`);
        data = pacScript.data;
      },
      clear: async () => {
        did.push('clear');
        data = undefined;
      },
    },
  };
}

test('in Chromium the guard is in force before the PAC, and the same PAC is set once', async () => {
  const { settings, errors, did } = fakeProxy();
  const adapter = makePacSteering(
    settings,
    errors,
    async guarded => void did.push(`guard ${guarded && [...openTable(guarded).names()].map(([host]) => host)}`),
  );
  await adapter.apply(saved);
  await adapter.apply(saved);
  expect(did).toEqual(['guard a.test', 'set mandatory=true']);
  await adapter.apply({ ...saved, pac: `${saved.pac} // 2` });
  expect(did).toHaveLength(4);
  await adapter.clear();
  expect(did.slice(4)).toEqual(['clear', 'guard null']);
});

test('what is steered no longer is guarded until the PAC has let it go; another version guards anew', async () => {
  const { settings, errors, did } = fakeProxy();
  const adapter = makePacSteering(settings, errors, async (_table, leaving = []) => void did.push(`guard +${leaving}`));
  const tableOf = (...sites: [site: string, action: Action][]) =>
    compileTable(
      compileMatcher({
        rules: sites.map(([site, does]) => ({ id: site, matcher: parseMatcher(site) as Matcher, action: does })),
        lists: [],
      }),
    );
  await adapter.apply({
    ...saved,
    pac: '1',
    table: tableOf(['a.test', action], ['b.test', action], ['10.1.2.3', action]),
  });
  await adapter.apply({ ...saved, pac: '2', table: tableOf(['a.test', open], ['b.test', action]) });
  expect(did).toEqual(['guard +', 'set mandatory=true', 'guard +a.test,10.1.2.3', 'set mandatory=true', 'guard +']);
  did.length = 0;
  await adapter.apply({ ...saved, pac: '2', table: tableOf(['a.test', open], ['b.test', action]) });
  expect(did).toEqual([]);
  adapter.anew!();
  await adapter.apply({ ...saved, pac: '2', table: tableOf(['a.test', open], ['b.test', action]) });
  expect(did).toEqual(['guard +']);
});

test('what leaves is found among a hundred thousand, and confined by a rule above all others', async () => {
  const entries = makeHosts(100_000).map((host, i) => ({ matcher: { kind: 'suffix' as const, host }, line: i + 1 }));
  const list = { id: 'lists[0]', name: 'big.txt', action, table: ruleTableOf(entries) };
  const rule = { id: 'sites.a.test', matcher: { kind: 'suffix' as const, host: 'a.test' }, action };
  const before = compileTable(compileMatcher({ rules: [rule], lists: [list] }));
  const now = compileTable(compileMatcher({ rules: [], lists: [list] }));
  const begun = performance.now();
  expect(noLongerConfined(before, now)).toEqual(['a.test']);
  console.log(`found in ${(performance.now() - begun).toFixed(0)} ms`);
  const updateDynamicRules = vi.fn(async (_change: { removeRuleIds: number[]; addRules?: object[] }) => {});
  await makeLocalNetworkGuard({ updateDynamicRules })(compileTable(compileMatcher({ rules: [], lists: [] })), [
    'a.test',
  ]);
  const { addRules, removeRuleIds } = updateDynamicRules.mock.lastCall![0];
  expect(addRules).toHaveLength(1);
  expect(removeRuleIds).toContain((addRules![0] as { id: number }).id);
  expect(isConfinedBy(addRules as never, 'https://x.a.test/')).toBe(true);
});

test('who else holds the proxy setting is named', async () => {
  const adapter = (level: string) => makePacSteering(fakeProxy(level).settings, fakeProxy().errors, async () => {});
  expect(await adapter('controlled_by_other_extensions').takenBy()).toContain('Another extension');
  expect(await adapter('not_controllable').takenBy()).toContain('policy');
  expect(await adapter('controllable_by_this_extension').takenBy()).toBeNull();
});

/** What chrome.declarativeNetRequest makes of a URL: of the rules that match it, the highest priority counts. */
function isConfinedBy(rules: ReturnType<typeof localNetworkRules>, url: string): boolean {
  const host = new URL(url).hostname;
  const names = (domains: readonly string[]) => domains.some(one => host === one || host.endsWith(`.${one}`));
  const matching = rules.filter(({ condition }) => {
    if ('excludedRequestDomains' in condition) return !names(condition.excludedRequestDomains);
    if ('regexFilter' in condition) return new RegExp(condition.regexFilter).test(url);
    const { urlFilter } = condition;
    if (!names(condition.requestDomains)) return false;
    return urlFilter === undefined || new RegExp(`^${urlFilter.slice(1, -1).replaceAll('.', '\\.')}[:/?]`).test(url);
  });
  const best = Math.max(...matching.map(rule => rule.priority));
  const actions = matching.filter(rule => rule.priority === best).map(rule => (rule.action as { type: string }).type);
  expect(new Set(actions).size, `one winner for ${url}`).toBeLessThanOrEqual(1);
  return actions[0] === 'modifyHeaders';
}

const rulesFor = (...sites: [site: string, action: Action][]) =>
  localNetworkRules(
    compileTable(
      compileMatcher({
        rules: sites.map(([site, does]) => ({
          id: `sites.${site}`,
          matcher: parseMatcher(site) as Matcher,
          action: does,
        })),
        lists: [],
      }),
    ),
  );
const open: Action = { ...action, local: true };
const off: Action = { do: 'off' };

test('the local network rule appends a policy to documents, frames and scripts of the steered hosts', async () => {
  const updateDynamicRules = vi.fn(async (_change: { removeRuleIds: number[]; addRules?: object[] }) => {});
  const protect = makeLocalNetworkGuard({ updateDynamicRules });
  await protect(table);
  const { addRules, removeRuleIds } = updateDynamicRules.mock.lastCall![0];
  expect(addRules).toEqual([
    {
      id: 1,
      priority: 1,
      action: {
        type: 'modifyHeaders',
        responseHeaders: [{ header: 'Content-Security-Policy', operation: 'append', value: 'treat-as-public-address' }],
      },
      condition: { requestDomains: ['a.test'], resourceTypes: ['main_frame', 'sub_frame', 'script'] },
    },
  ]);
  const ids = rulesFor(
    ['a.test', action],
    ['b.a.test', open],
    ['=c.b.a.test', action],
    ['d.b.a.test', action],
    ['.e.test', open],
    ['=e.test', action],
  ).map(rule => rule.id);
  expect(new Set(ids).size).toBe(ids.length);
  expect(removeRuleIds).toEqual(expect.arrayContaining(ids));
  await protect(null);
  expect(updateDynamicRules.mock.lastCall![0].addRules).toEqual([]);
});

test('the local network rules are for steered and blocked hosts and for single addresses, never for this machine', () => {
  const rules = rulesFor(
    ['a.test', action],
    ['10.1.2.3', action],
    ['fd00::1', action],
    ['=b.test', off],
    ['127.0.0.1', action],
    ['localhost', action],
    ['::1', action],
  );
  expect(rules).toHaveLength(1);
  expect((rules[0]!.condition as unknown as { requestDomains: string[] }).requestDomains.sort()).toEqual([
    '10.1.2.3',
    '[fd00::1]',
    'a.test',
  ]);
});

test('the closer name decides: what is off or may reach the network is let be, and what is below that is not', () => {
  const rules = rulesFor(
    ['a.test', action],
    ['router.a.test', off],
    ['open.a.test', open],
    ['shut.open.a.test', action],
    ['=www.a.test', open],
    ['.b.test', open],
    ['=b.test', action],
    ['10.1.2.3', open],
  );
  const confined = [
    'http://a.test/',
    'http://x.a.test/',
    'https://shut.open.a.test:8443/',
    'http://x.shut.open.a.test/',
    'http://x.www.a.test/?u=http://www.a.test/',
    'http://b.test/',
  ];
  const free = [
    'http://router.a.test/',
    'http://x.router.a.test/',
    'http://open.a.test/',
    'https://www.a.test:8443/x',
    'http://x.b.test/',
    'http://other.test/',
    'http://10.1.2.3/',
  ];
  for (const url of confined) expect(isConfinedBy(rules, url), url).toBe(true);
  for (const url of free) expect(isConfinedBy(rules, url), url).toBe(false);
});

test('whatever the rules of the file: what is confined is confined, and what may reach the network is not', () => {
  fc.assert(
    fc.property(anyRules, fc.array(anyUrl, { minLength: 1, maxLength: 6 }), (source, urls) => {
      const some = compileTable(compileMatcher(source));
      const rules = localNetworkRules(some);
      const opened = openTable(some);
      for (const written of urls) {
        const url = new URL(written);
        const host = url.hostname;
        // A range of addresses has no form there, and a name with a dot behind it or with other letters has another.
        if (!/^https?:$/.test(url.protocol) || /[.\]]$|\.\d+$|[^\w.-]/.test(host) || isLoopback(host)) continue;
        if (opened.confines(host)) expect(isConfinedBy(rules, url.href), url.href).toBe(true);
        else if (opened.lookup(host) === 'steered') expect(isConfinedBy(rules, url.href), url.href).toBe(false);
      }
    }),
    { numRuns: 300 },
  );
});

test('with keywords and expressions among the rules, what is confined by the table is confined by the browser', () => {
  fc.assert(
    fc.property(anyRulesWithPatterns, fc.array(anyUrl, { minLength: 1, maxLength: 6 }), (source, urls) => {
      const some = compileTable(compileMatcher(source));
      const rules = localNetworkRules(some);
      const opened = openTable(some);
      for (const written of urls) {
        const url = new URL(written);
        const host = url.hostname;
        if (!/^https?:$/.test(url.protocol) || /[.\]]$|\.\d+$|[^\w.-]/.test(host) || isLoopback(host)) continue;
        if (opened.confines(host)) expect(isConfinedBy(rules, url.href), url.href).toBe(true);
      }
    }),
    { numRuns: 300 },
  );
});

test('with more names than rules should hold, everything but this machine is confined', () => {
  const entries = Array.from({ length: 200_001 }, (_, i) => ({
    matcher: { kind: 'suffix' as const, host: `h${i}.test` },
    line: i + 1,
  }));
  const list = { id: 'lists[0]', name: 'x', action, table: ruleTableOf(entries) };
  const rules = localNetworkRules(compileTable(compileMatcher({ rules: [], lists: [list] })));
  expect(isConfinedBy(rules, 'http://h7.test/')).toBe(true);
  expect(isConfinedBy(rules, 'http://localhost/')).toBe(false);
});

test('loopback is told however it is spelt', () => {
  for (const host of ['localhost', 'a.localhost', '127.0.0.1', '127.9.9.9', '[::1]', '::1', '[::ffff:7f00:1]'])
    expect(isLoopback(host), host).toBe(true);
  for (const host of ['10.0.0.1', '128.0.0.1', '[::2]', 'localhost.test', 'notlocalhost', '0.0.0.0'])
    expect(isLoopback(host), host).toBe(false);
});

test('private addresses are told from public ones, and names from both', () => {
  for (const host of [
    '127.0.0.1',
    '10.1.2.3',
    '192.168.0.1',
    '172.16.0.1',
    '169.254.1.1',
    '0.0.0.0',
    '[::1]',
    '[::ffff:7f00:1]',
    '[fd00::1]',
    '[fec0::1]',
    '[::7f00:1]',
    'localhost',
    'x.localhost',
  ]) {
    expect(isPrivateHost(host), host).toBe(true);
  }
  for (const host of ['8.8.8.8', '172.32.0.1', '[2001:db8::1]', '[::ffff:808:808]'])
    expect(isPrivateHost(host), host).toBe(false);
  expect(isPrivateHost('example.com')).toBeNull();
});
