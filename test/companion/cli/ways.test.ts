// `detour route` and `detour hop` as a person types them; good and bad input, and no companion.
import { spawnSync } from 'node:child_process';
import { createServer, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { hopCommand, routeCommand } from '../../../companion/cli/ways.ts';
import type { HopState, RouteState, WaysTest } from '../../../shared/ways.ts';
import { makeTestAuthority } from '../../support/certificates.ts';
import { startHop } from '../../support/hop.ts';
import { makePlace, runDetour, spawnDetour, TEST_CONFIG } from '../../support/with-companion.ts';

const listening = async (server: {
  listen(port: number, host: string, then: () => void): unknown;
  address(): unknown;
}) => {
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  return (server.address() as AddressInfo).port;
};

async function startAll() {
  const stack = new AsyncDisposableStack();
  const authority = await makeTestAuthority();
  const answer = (_request: unknown, response: ServerResponse) =>
    response.setHeader('Content-Type', 'application/json').end('{"ip":"192.0.2.44"}');
  const plain = stack.use(createServer(answer));
  const secure = stack.use(createTlsServer(await authority.issue('origin.test'), answer));
  const [http, https] = [await listening(plain), await listening(secure)];
  const hop = stack.use(
    await startHop({
      kind: 'socks5',
      credentials: { username: 'me', password: 's3cret' },
      hosts: { 'origin.test': '127.0.0.1' },
    }),
  );
  const place = stack.use(
    makePlace(`hops:
  office: socks5://me:s3cret@127.0.0.1:${hop.port}
  away: http://127.0.0.1:1
routes:
  work: [[away], [office]]
sites:
  origin.test: work
${TEST_CONFIG}`),
  );
  const authorityFile = await authority.writeTo(path.join(place.folder, 'ca.pem'));
  const running = stack.use(
    spawnDetour(['start', '--config', place.configFile, '--port', '0'], place, { NODE_EXTRA_CA_CERTS: authorityFile }),
  );
  await running.printed(/listens on 127\.0\.0\.1:\d+/);
  const detour = (...args: string[]) => runDetour([...args, '--config', place.configFile], place);
  return {
    place,
    hop,
    http,
    https,
    detour,
    async json<T>(...args: string[]): Promise<T[]> {
      const { code, out, err } = await detour(...args, '--json');
      expect([code, err]).toEqual([0, '']);
      return out
        .trim()
        .split('\n')
        .map(line => JSON.parse(line) as T);
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

// Every command is a process of its own, which a busy machine starts slowly.
const PATIENCE = { timeout: 90_000 };

describe('a running companion', PATIENCE, () => {
  test('lists routes and hops, without passwords', async () => {
    await using all = await startAll();
    const routes = await all.detour('route', 'ls');
    expect(routes).toMatchObject({ code: 0, err: '' });
    expect(routes.out).toBe('work (order, closed, used by sites.origin.test)\n  1. away\n  2. office\n');
    expect(await all.json<RouteState>('route', 'ls')).toMatchObject([{ name: 'work', chains: [['away'], ['office']] }]);
    const hops = await all.detour('hop', 'ls');
    expect(hops.out).toMatch(/^office socks5:\/\/me@127\.0\.0\.1:\d+ \(with a password; in work\)$/m);
    expect(await all.json<HopState>('hop', 'ls')).toMatchObject([
      { name: 'office', password: 'file' },
      { name: 'away' },
    ]);
    expect(hops.out + routes.out).not.toContain('s3cret');
  });

  test('tests a route and a hop, by http and https, and says where it comes out', async () => {
    await using all = await startAll();
    const url = `http://origin.test:${all.http}/`;
    const { code, out } = await all.detour('route', 'test', 'work', url);
    expect(code).toBe(0);
    expect(out).toMatch(/^✗ away: connection_refused \(connect\), \d+ ms$/m);
    expect(out).toMatch(/^✓ office: answered 200, \d+ ms, exit 192\.0\.2\.44$/m);
    expect(out).toMatch(/^ {4}office 127\.0\.0\.1:\d+ \d+\.\d ms$/m);
    const [tested] = await all.json<WaysTest>('hop', 'test', 'office', `https://origin.test:${all.https}/`);
    expect(tested).toMatchObject({ chains: [{ outcome: 'ok', status: 200, exit: '192.0.2.44' }] });
    const built = await all.detour('hop', 'test', `socks5://me:s3cret@127.0.0.1:${all.hop.port}`);
    expect(built.out).toContain('No check URL');
    expect(built.out).toMatch(/^✓ socks5:\/\/127\.0\.0\.1:\d+: stands, \d+ ms$/m);
    expect(await all.detour('hop', 'test', 'away')).toMatchObject({
      code: 1,
      out: expect.stringContaining('Is it running?'),
    });
  });

  test('adds a hop to the file, and refuses what makes no sense', async () => {
    await using all = await startAll();
    expect(await all.detour('hop', 'add', 'tor', 'socks5://127.0.0.1:9050')).toMatchObject({ code: 0, err: '' });
    expect(all.place.text).toContain('  away: http://127.0.0.1:1\n  tor: socks5://127.0.0.1:9050\n');
    // By standard input, where no other program sees the password.
    const args = ['companion/main.ts', 'hop', 'add', 'quiet', '-', '--config', all.place.configFile];
    const { status } = spawnSync(process.execPath, args, {
      input: 'socks5://me:s3cret-in@127.0.0.1:9051\n',
      env: { ...process.env, DETOUR_STATE_DIR: all.place.stateFolder },
    });
    expect([status, all.place.text.includes('  quiet: socks5://me:s3cret-in@127.0.0.1:9051\n')]).toEqual([0, true]);
    for (const [args, said] of [
      [['hop', 'add', 'tor', 'http://a.example'], 'There is a hop "tor" already.'],
      [['hop', 'add', 'x', 'nonsense'], 'is not a proxy URL'],
      [['hop', 'test', 'nobody'], 'There is no hop "nobody"'],
      [['route', 'pin', 'work', 'tor > office'], 'has no chain tor > office. It has away, office.'],
    ] as const)
      expect(await all.detour(...args), args.join(' ')).toMatchObject({
        code: 1,
        out: '',
        err: expect.stringContaining(said),
      });
    expect(await all.detour('route', 'memory')).toMatchObject({
      code: 0,
      out: expect.stringContaining('Nothing is remembered'),
    });
  });
});

test.each([
  [['route'], 'needs one of ls, test, pin, unpin, memory'],
  [['hop'], 'needs one of ls, test, add'],
  [['route', 'lst'], 'there is no `detour route lst`'],
  [['route', 'ls', 'x'], 'does not take "x"'],
  [['route', 'test'], 'needs the name of a route'],
  [['route', 'pin', 'work'], 'needs the name of a route and a chain'],
  [['route', 'pin', 'work', 'a', '--for', 'soon'], '--for soon: a time like 30m, 2h or 1d'],
  [['route', 'ls', '--for', '2h'], '--for goes with route pin'],
  [['hop', 'ls', '--for', '2h'], '--for goes with route pin'],
  [['route', 'memory', 'set', 'x.test'], 'needs a site, and direct or chains'],
  [['route', 'memory', 'set', 'x.test', 'sideways'], 'needs a site, and direct or chains'],
  [['route', 'memory', 'forget'], 'needs a site'],
  [['route', 'memory', 'drop'], 'there are ls, forget and set'],
  [['hop', 'add', 'x'], 'needs a name and a URL'],
])('detour %j is a mistake that is named', (given, said) => {
  const at = given.indexOf('--for');
  const [command, ...words] = at < 0 ? given : given.slice(0, at);
  const asked = command === 'route' ? routeCommand : hopCommand;
  expect(asked({ words, span: at < 0 ? undefined : given[at + 1], json: false })).toContain(said);
});

test('options of others are named, and a companion that does not run ends with 3', PATIENCE, async () => {
  using place = makePlace();
  const detour = (...args: string[]) => runDetour([...args, '--config', place.configFile], place);
  expect(await detour('log', '--for', '2h')).toMatchObject({
    code: 1,
    err: expect.stringContaining('--for goes with route pin'),
  });
  expect(await detour('hop', 'tst')).toMatchObject({
    code: 1,
    err: expect.stringContaining('there is no `detour hop tst`'),
  });
  for (const args of [
    ['route', 'ls'],
    ['hop', 'add', 'a', 'http://a:1'],
  ])
    expect(await detour(...args)).toMatchObject({
      code: 3,
      err: expect.stringContaining('the companion does not run; start it'),
    });
});
