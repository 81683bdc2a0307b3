// The command line as a person types it: good and bad input, exit codes, signals.
import { createServer } from 'node:http';
import { connect, createServer as createNetServer, type AddressInfo } from 'node:net';
import { chmodSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { makePlace, runDetour, spawnDetour, TEST_CONFIG } from '../../support/with-companion.ts';

/** Everything complained of, as lines. */
const lines = (text: string) => text.trim().split('\n');

describe('bad input is one line that names the place, and exit code 1', () => {
  test.each([
    ['broken YAML', 'sites:\n  a.test: [x\n', /detour\.yaml:\d+:\d+: /],
    ['an unknown key', 'hopz: {}\n', /detour\.yaml:1:1: .*hopz.*did you mean hops/],
    [
      'a duplicate hop name',
      'hops:\n  office: http://a.test:1\n  office: http://b.test:2\n',
      /detour\.yaml:3:3: .*office/,
    ],
    ['a bad port', 'hops:\n  office: http://a.test:70000\n', /detour\.yaml:2:11: .*70000.*port/],
    ['an unquoted *', 'sites:\n  *.example.com: companion\n', /detour\.yaml:2:3: .*\*/],
    ['a chain that names no hop', 'routes:\n  work: [[nope]]\n', /detour\.yaml:2:11: .*nope/],
    [
      'A46 an address that other machines reach',
      'listen: 0.0.0.0:8228\n',
      /detour\.yaml:1:9: listen: .*other machines/,
    ],
    [
      'a hop that is the companion itself',
      'listen: 127.0.0.1:18229\nhops:\n  me: http://localhost:18229\nroutes:\n  r: [[me]]\n',
      /detour\.yaml:3:7: .*loop/,
    ],
  ])('%s', async (_what, text, complaint) => {
    using place = makePlace(text);
    for (const command of [['start'], ['check', place.configFile]]) {
      const { code, err } = await runDetour([...command, '--config', place.configFile], place);
      expect(code).toBe(1);
      expect(lines(err)).toHaveLength(1);
      expect(err).toMatch(complaint);
    }
  });

  test('a folder, or nothing, in place of the file', async () => {
    using place = makePlace();
    mkdirSync(path.join(place.folder, 'folder.yaml'));
    const folder = await runDetour(['start', '--config', path.join(place.folder, 'folder.yaml')], place);
    expect([folder.code, lines(folder.err).length]).toEqual([1, 1]);
    const nothing = await runDetour(['check', path.join(place.folder, 'none.yaml')], place);
    expect(nothing).toMatchObject({ code: 1, err: expect.stringContaining('none.yaml: there is no such file') });
  });

  test('a taken port names its holder', async () => {
    using place = makePlace();
    await using server = createNetServer();
    await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    const { code, err } = await runDetour(['start', '--config', place.configFile, '--port', String(port)], place);
    expect(code).toBe(1);
    expect(lines(err)).toHaveLength(1);
    expect(err).toContain(`127.0.0.1:${port} is taken`);
    if (process.platform === 'linux') expect(err).toContain(`(pid ${process.pid})`);
  });

  test.each([
    [['strat'], 'did you mean start?'],
    [['start', 'now'], 'does not take "now"'],
    [['unpair'], 'needs the name'],
    [['--nope'], "Unknown option '--nope'"],
    [['constructor'], 'no command "constructor"'],
    [['start', '--port', '-1'], "Option '--port' argument is ambiguous"],
    [['start', '--port', 'abc'], '--port abc'],
    [['start', '--port', '99999'], '--port 99999'],
    [['clients', '--port', '1'], '--port goes with start'],
    [['log', '-n', 'x'], '-n x'],
    [['pair', '--json'], '--json goes with log, cache, route, hop and lists'],
  ])('detour %j', async (args, complaint) => {
    using place = makePlace();
    const { code, err } = await runDetour([...args, '--config', place.configFile], place);
    expect(err).toContain(complaint);
    expect(lines(err)).toHaveLength(1);
    expect(code).toBe(1);
  });
});

test('a command that needs a companion says how to start one, and exits with 3', async () => {
  using place = makePlace();
  for (const args of [['pair'], ['clients'], ['unpair', 'X'], ['log'], ['explain', 'http://a.test'], ['env']]) {
    const { code, err } = await runDetour([...args, '--config', place.configFile], place);
    expect(code, args.join(' ')).toBe(3);
    expect(err).toContain('detour start');
  }
});

test('help and version need nothing', async () => {
  using place = makePlace();
  expect(await runDetour(['help'], place)).toMatchObject({
    code: 0,
    out: expect.stringContaining('detour explain URL'),
  });
  expect(await runDetour(['--version'], place)).toMatchObject({ code: 0, out: 'detour 0.1.0\n' });
});

test('the first start makes a file with comments, for its owner alone', async () => {
  using place = makePlace();
  const file = path.join(place.folder, 'new', 'detour.yaml');
  await using running = spawnDetour(['start', '--config', file, '--port', '0'], place);
  await running.printed(/listens on 127\.0\.0\.1:\d+/);
  await running.printed(/Pairing code {2}\d{3} \d{3}/);
  expect(statSync(file).mode & 0o777).toBe(0o600);
  expect(readFileSync(file, 'utf8')).toContain('#');
  const { code, out } = await runDetour(['check', file], place);
  expect([code, out.length > 0]).toEqual([0, true]);
});

test('a companion at work can be asked about, and drains on SIGTERM', async () => {
  using place = makePlace(
    `${TEST_CONFIG}sites:\n  origin.test: companion\nrules:\n  - { host: ads.test, block: true }\n`,
  );
  await using origin = createServer((_request, response) => response.end('hello'));
  await new Promise<void>(resolve => origin.listen(0, '127.0.0.1', resolve));
  const { port: originPort } = origin.address() as AddressInfo;
  await using running = spawnDetour(['start', '--config', place.configFile, '--port', '0'], place);
  const port = Number((await running.printed(/listens on 127\.0\.0\.1:(\d+)/))[1]);
  const also = ['--config', place.configFile];

  const tunnel = connect(port, '127.0.0.1');
  tunnel.write(`CONNECT origin.test:${originPort} HTTP/1.1\r\nHost: origin.test:${originPort}\r\n\r\n`);
  await new Promise(resolve => tunnel.once('data', resolve));
  tunnel.on('error', () => {});

  expect(await runDetour(['explain', `http://origin.test:${originPort}/`, ...also], place)).toMatchObject({
    code: 0,
    out: expect.stringContaining('sites.origin.test'),
  });
  expect(await runDetour(['explain', 'https://x.ads.test/', ...also], place)).toMatchObject({
    code: 0,
    out: expect.stringContaining('blocked by rules[0]'),
  });
  expect(await runDetour(['explain', 'ftp://x/', ...also], place)).toMatchObject({
    code: 1,
    err: expect.stringContaining('not an http'),
  });
  expect(await runDetour(['env', ...also], place)).toMatchObject({
    code: 0,
    out: expect.stringContaining(`http_proxy=http://127.0.0.1:${port}`),
  });
  expect(await runDetour(['clients', ...also], place)).toMatchObject({
    code: 0,
    out: expect.stringContaining('No browser is paired'),
  });
  expect(await runDetour(['unpair', 'Nobody', ...also], place)).toMatchObject({
    code: 1,
    err: expect.stringContaining('"Nobody"'),
  });
  expect(await runDetour(['pair', ...also], place)).toMatchObject({
    code: 0,
    out: expect.stringMatching(/\d{3} \d{3}/),
  });
  await using log = spawnDetour(['log', '--json', ...also], place);
  expect(JSON.parse((await log.printed(/^\{.*\}$/m))[0])).toMatchObject({
    kind: 'connect',
    host: 'origin.test',
    status: 200,
  });
  expect(await runDetour(['start', '--port', '0', ...also], place)).toMatchObject({
    code: 1,
    err: expect.stringContaining('already runs'),
  });

  running.child.kill('SIGTERM');
  await running.printed(/Stopping/);
  // The tunnel may go on; a second signal does not wait for it.
  running.child.kill('SIGTERM');
  expect((await running.ended).code).toBe(143);
  tunnel.destroy();
});

/** A tunnel through a companion of its own process, to an origin that answers nothing. */
async function openTunnelThrough(port: number, originPort: number) {
  const tunnel = connect(port, '127.0.0.1');
  tunnel.on('error', () => {});
  tunnel.write(`CONNECT origin.test:${originPort} HTTP/1.1\r\nHost: origin.test:${originPort}\r\n\r\n`);
  await new Promise(resolve => tunnel.once('data', resolve));
  return tunnel;
}

test('A91 a signal lets a tunnel end, takes no new ones, and the end is 0', async () => {
  using place = makePlace();
  await using origin = createNetServer(socket => void socket.pipe(socket));
  await new Promise<void>(resolve => origin.listen(0, '127.0.0.1', resolve));
  const { port: originPort } = origin.address() as AddressInfo;
  await using running = spawnDetour(['start', '--config', place.configFile, '--port', '0'], place);
  const port = Number((await running.printed(/listens on 127\.0\.0\.1:(\d+)/))[1]);
  const tunnel = await openTunnelThrough(port, originPort);
  running.child.kill('SIGTERM');
  await running.printed(/Stopping/);
  const refused = connect(port, '127.0.0.1');
  expect(
    await new Promise(resolve => refused.once('error', error => resolve((error as NodeJS.ErrnoException).code))),
  ).toBe('ECONNREFUSED');
  tunnel.write('still here');
  expect(String(await new Promise(resolve => tunnel.once('data', resolve)))).toBe('still here');
  tunnel.end();
  expect((await running.ended).code).toBe(0);
});

test('A91 a tunnel that does not end is ended after drainTimeout, and the end is 0', async () => {
  using place = makePlace(`${TEST_CONFIG}limits:\n  drainTimeout: 0.3\n`);
  await using origin = createNetServer(socket => void socket.on('error', () => {}));
  await new Promise<void>(resolve => origin.listen(0, '127.0.0.1', resolve));
  const { port: originPort } = origin.address() as AddressInfo;
  await using running = spawnDetour(['start', '--config', place.configFile, '--port', '0'], place);
  const port = Number((await running.printed(/listens on 127\.0\.0\.1:(\d+)/))[1]);
  const tunnel = await openTunnelThrough(port, originPort);
  const closed = new Promise(resolve => tunnel.once('close', resolve));
  running.child.kill('SIGINT');
  expect((await running.ended).code).toBe(0);
  await closed;
});

test('a reader that stops reading ends `detour log` quietly', async () => {
  using place = makePlace();
  await using running = spawnDetour(['start', '--config', place.configFile, '--port', '0'], place);
  const port = Number((await running.printed(/listens on 127\.0\.0\.1:(\d+)/))[1]);
  await using log = spawnDetour(['log', '--config', place.configFile], place);
  const ask = () =>
    new Promise(resolve => {
      const client = connect(port, '127.0.0.1', () =>
        client.write('GET http://127.0.0.1:9/ HTTP/1.1\r\nHost: 127.0.0.1:9\r\n\r\n'),
      );
      client.once('data', () => client.destroy());
      client.once('close', resolve);
    });
  await ask();
  await log.printed(/127\.0\.0\.1:9/);
  log.child.stdout!.destroy();
  for (let i = 0; i < 100 && log.child.exitCode === null; i++) {
    await ask();
    await new Promise(resolve => setTimeout(resolve, 20));
  }
  expect(await log.ended).toMatchObject({ code: 0, err: '' });
});

test('without open exchanges a signal ends it at once, with 0, and the CLI token is gone', async () => {
  using place = makePlace();
  await using running = spawnDetour(['start', '--config', place.configFile, '--port', '0'], place);
  await running.printed(/listens on/);
  running.child.kill('SIGINT');
  expect((await running.ended).code).toBe(0);
  expect(() => statSync(path.join(place.stateFolder, 'running.json'))).toThrow('ENOENT');
});

test('a file that breaks while it runs is complained of, and the last good one holds', async () => {
  using place = makePlace(`${TEST_CONFIG}sites:\n  origin.test: companion\n`);
  await using running = spawnDetour(['start', '--config', place.configFile, '--port', '0'], place);
  await running.printed(/listens on/);
  writeFileSync(place.configFile, 'sites:\n  a.test: nowhere\n');
  await running.complained(/detour\.yaml:2:11: .*nowhere/);
  const { out } = await runDetour(['explain', 'http://origin.test/', '--config', place.configFile], place);
  expect(out).toContain('sites.origin.test');
  chmodSync(place.configFile, 0o600);
});

test('killed with -9 it loses nothing and starts again', async () => {
  using place = makePlace(`${TEST_CONFIG}sites:\n  origin.test: companion\n`);
  const before = place.text;
  for (let round = 0; round < 3; round++) {
    await using running = spawnDetour(['start', '--config', place.configFile, '--port', '0'], place);
    await running.printed(/listens on/);
    running.child.kill('SIGKILL');
    await running.ended;
    expect(place.text).toBe(before);
  }
});

test('what a list holds cannot speak to the terminal', async () => {
  using place = makePlace('lists:\n  - { file: l.txt, block: true }\n');
  writeFileSync(path.join(place.folder, 'l.txt'), 'good.test\n\x1b]0;mine now\x07\x1b[2J\u009b31m\u202e$$\n');
  await using running = spawnDetour(['start', '--config', place.configFile, '--port', '0'], place);
  const [said] = await running.complained(/l\.txt:2: .*\n/);
  expect(said).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202a-\u202e]/);
  expect(said).toContain('mine now');
});
