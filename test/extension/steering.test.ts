import { expect, test, vi } from 'vitest';
import type { SavedSteering } from '../../extension/settings/settings.ts';
import { guardedHosts, isPrivateHost, makeLocalNetworkRule } from '../../extension/steering/local-network-guard.ts';
import { RequestSteering } from '../../extension/steering/on-request.ts';
import { makePacSteering } from '../../extension/steering/pac-settings.ts';
import { compileTable } from '../../shared/decision/compile-table.ts';
import { compileMatcher } from '../../shared/decision/decide.ts';
import type { Matcher } from '../../shared/decision/rule.ts';

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
    async hosts => void did.push(`guard ${hosts}`),
    () => ['a.test'],
  );
  await adapter.apply(saved);
  await adapter.apply(saved);
  expect(did).toEqual(['guard a.test', 'set mandatory=true']);
  await adapter.apply({ ...saved, pac: `${saved.pac} // 2` });
  expect(did).toHaveLength(4);
  await adapter.clear();
  expect(did.slice(4)).toEqual(['clear', 'guard null']);
});

test('who else holds the proxy setting is named', async () => {
  const adapter = (level: string) =>
    makePacSteering(
      fakeProxy(level).settings,
      fakeProxy().errors,
      async () => {},
      () => [],
    );
  expect(await adapter('controlled_by_other_extensions').takenBy()).toContain('Another extension');
  expect(await adapter('not_controllable').takenBy()).toContain('policy');
  expect(await adapter('controllable_by_this_extension').takenBy()).toBeNull();
});

test('the local network rule appends a policy to documents, frames and scripts of the steered hosts', async () => {
  const updateDynamicRules = vi.fn(async () => {});
  const protect = makeLocalNetworkRule({ updateDynamicRules });
  await protect(['a.test']);
  expect(updateDynamicRules).toHaveBeenLastCalledWith({
    removeRuleIds: [1],
    addRules: [
      {
        id: 1,
        action: {
          type: 'modifyHeaders',
          responseHeaders: [
            { header: 'Content-Security-Policy', operation: 'append', value: 'treat-as-public-address' },
          ],
        },
        condition: { requestDomains: ['a.test'], resourceTypes: ['main_frame', 'sub_frame', 'script'] },
      },
    ],
  });
  await protect(null);
  expect(updateDynamicRules).toHaveBeenLastCalledWith({ removeRuleIds: [1], addRules: [] });
});

test('the local network rule is for steered and blocked hosts and for single addresses', () => {
  const rule = (id: string, matcher: Matcher) => ({ id, matcher, action });
  const some = compileTable(
    compileMatcher({
      rules: [
        rule('sites.a.test', { kind: 'suffix', host: 'a.test' }),
        rule('sites.10.1.2.3', { kind: 'exact', host: '10.1.2.3' }),
        rule('sites.fd00::1', { kind: 'exact', host: 'fd00::1' }),
        { id: 'sites.b.test', matcher: { kind: 'exact', host: 'b.test' }, action: { do: 'off' } },
      ],
      lists: [],
    }),
  );
  expect(guardedHosts(some).sort()).toEqual(['10.1.2.3', '[fd00::1]', 'a.test']);
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
    'localhost',
    'x.localhost',
  ]) {
    expect(isPrivateHost(host), host).toBe(true);
  }
  for (const host of ['8.8.8.8', '172.32.0.1', '[2001:db8::1]', '[::ffff:808:808]'])
    expect(isPrivateHost(host), host).toBe(false);
  expect(isPrivateHost('example.com')).toBeNull();
});
