// guard.owner: who may come is seen by whose the other end of the connection is. Another user is played by the same machine's `nobody`, which needs root.
import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { connect, createServer, type AddressInfo } from 'node:net';
import { promisify } from 'node:util';
import * as v from 'valibot';
import { describe, expect, test } from 'vitest';
import { findOwnerUnknown, listedAs, makeOwnerCheck } from '../../../companion/guard/owner.ts';
import { ConfigSchema } from '../../../shared/config.ts';
import { startOrigin } from '../../support/origin.ts';
import { connectRaw } from '../../support/raw-client.ts';
import { makePlace, startTestCompanion, TEST_CONFIG, TestLink } from '../../support/with-companion.ts';

const run = promisify(execFile);
const isLinux = process.platform === 'linux';
const isRoot = process.getuid?.() === 0;
const ON = TEST_CONFIG.replace('guard:\n', 'guard:\n  owner: on\n');
const NOBODY = 65_534;
if (!isLinux) console.warn('guard.owner is for Linux: it is not tested here.');
else if (!isRoot) console.warn('Only root can play another user: that guard.owner keeps one out is not tested.');

/** A connection to a server of ours, both of its ends open; `from` is how the server sees it. */
async function makeConnection(serverHost: string, clientHost: string) {
  const server = createServer(socket => socket.on('error', () => {}));
  await new Promise<void>(resolve => server.listen(0, serverHost, resolve));
  const accepted = new Promise<{ remoteAddress: string; remotePort: number; localAddress: string; localPort: number }>(
    resolve =>
      server.once('connection', ({ remoteAddress, remotePort, localAddress, localPort }) =>
        resolve({
          remoteAddress: remoteAddress!,
          remotePort: remotePort!,
          localAddress: localAddress!,
          localPort: localPort!,
        }),
      ),
  );
  const client = connect({ port: (server.address() as AddressInfo).port, host: clientHost });
  client.on('error', () => {});
  const ends = await accepted;
  return {
    ends,
    client,
    async [Symbol.asyncDispose]() {
      client.destroy();
      await new Promise(resolve => server.close(resolve));
    },
  };
}

const asked = (check: ReturnType<typeof makeOwnerCheck>, ends: Parameters<typeof check.ask>[0]) =>
  new Promise<boolean>(resolve => check.ask(ends, resolve));

test('a connection is looked for as Linux lists its other end', () => {
  const ends = { remoteAddress: '127.0.0.1', remotePort: 0x9c40, localAddress: '127.0.0.1', localPort: 0x2024 };
  const four = [
    '0100007F:9C40 0100007F:2024',
    '0000000000000000FFFF00000100007F:9C40 0000000000000000FFFF00000100007F:2024',
  ];
  expect(listedAs(ends)).toEqual(four);
  expect(listedAs({ ...ends, remoteAddress: '::ffff:127.0.0.1', localAddress: '::ffff:127.0.0.1' })).toEqual(four);
  expect(listedAs({ ...ends, remoteAddress: '::1', localAddress: '::1' })).toEqual([
    '00000000000000000000000001000000:9C40 00000000000000000000000001000000:2024',
  ]);
  expect(listedAs({ ...ends, remoteAddress: 'fe80::1:2%lo', localAddress: '2001:db8::7' })).toEqual([
    '000080FE000000000000000002000100:9C40 B80D0120000000000000000007000000:2024',
  ]);
});

test('where the system does not tell whose a connection is, it cannot be turned on', () => {
  const config = v.parse(ConfigSchema, { guard: { owner: 'on' } });
  expect(findOwnerUnknown(config, 'darwin')).toEqual([
    { path: ['guard', 'owner'], message: expect.stringMatching(/darwin.*users: /) },
  ]);
  expect(findOwnerUnknown(v.parse(ConfigSchema, {}), 'win32')).toEqual([]);
  if (isLinux) expect(findOwnerUnknown(config)).toEqual([]);
});

describe.runIf(isLinux)('the look-up', () => {
  test.each([
    ['127.0.0.1', '127.0.0.1'],
    ['::1', '::1'],
    ['::', '127.0.0.1'],
    ['::', '::1'],
    ['127.0.0.1', '::ffff:127.0.0.1'],
  ])('knows ours on %s from %s, and only for our user id', async (server, client) => {
    await using connection = await makeConnection(server, client);
    const mine = makeOwnerCheck(process.getuid!());
    const other = makeOwnerCheck(NOBODY);
    expect(await asked(mine, connection.ends)).toBe(true);
    expect(await asked(other, connection.ends)).toBe(false);
    mine.close();
    other.close();
  });

  test('of a connection that is gone, or never was, says no', async () => {
    const check = makeOwnerCheck(process.getuid!());
    await using connection = await makeConnection('127.0.0.1', '127.0.0.1');
    connection.client.resetAndDestroy();
    await new Promise(resolve => connection.client.once('close', resolve));
    expect(await asked(check, connection.ends)).toBe(false);
    expect(await asked(check, { ...connection.ends, remotePort: 1 })).toBe(false);
    check.close();
  });

  test('says no when the answer is late, and when it is closed', async () => {
    await using connection = await makeConnection('127.0.0.1', '127.0.0.1');
    const check = makeOwnerCheck(process.getuid!(), 1);
    expect(await asked(check, connection.ends)).toBe(false);
    const closing = makeOwnerCheck(process.getuid!());
    const answer = asked(closing, connection.ends);
    closing.close();
    expect(await answer).toBe(false);
  });
});

describe.runIf(isLinux)('guard.owner: on', () => {
  test('lets our own programs in, also many at once, and loses no byte that came early', async () => {
    await using origin = await startOrigin();
    await using companion = await startTestCompanion(ON);
    const answers = await Promise.all(
      Array.from({ length: 100 }, async () => {
        await using client = await connectRaw(companion.port);
        client.write(`GET ${origin.url('/')} HTTP/1.1\r\nHost: x\r\n\r\n`);
        return (await client.readAnswer()).text;
      }),
    );
    expect(new Set(answers)).toEqual(new Set(['hello']));
    const { link } = await TestLink.pair(companion.companion);
    await link[Symbol.asyncDispose]();
    const curl = await run('curl', [
      '-sS',
      '--noproxy',
      '',
      '-x',
      `socks5h://127.0.0.1:${companion.port}`,
      origin.url('/'),
    ]);
    expect(curl.stdout).toBe('hello');
  });

  test.runIf(isRoot)('closes the connection of another user without a byte, whatever it speaks', async () => {
    await using origin = await startOrigin();
    await using companion = await startTestCompanion(ON);
    const as = (uid: number, ...args: string[]) =>
      run('setpriv', [
        '--reuid',
        `${uid}`,
        '--regid',
        `${uid}`,
        '--clear-groups',
        'curl',
        '-sS',
        '-m',
        '5',
        '--noproxy',
        '',
        ...args,
      ]);
    const at = `127.0.0.1:${companion.port}`;
    expect((await as(0, '-x', `http://${at}`, origin.url('/'))).stdout).toBe('hello');
    for (const args of [
      ['-x', `http://${at}`, origin.url('/')],
      ['-p', '-x', `http://${at}`, origin.url('/')],
      ['-x', `socks5h://${at}`, origin.url('/')],
      [companion.companion.pacUrl],
    ]) {
      // 52: nothing came. 56: reset. 97: no SOCKS. None of them is an answer.
      await expect(as(NOBODY, ...args)).rejects.toMatchObject({ code: expect.toBeOneOf([52, 56, 97]), stdout: '' });
    }
    expect(origin.requests).toHaveLength(1);
    expect(companion.said.filter(one => one.includes('guard.owner'))).toHaveLength(1);
  });

  test.runIf(isRoot)('is off by itself, and can be turned on in the running companion', async () => {
    using place = makePlace(TEST_CONFIG);
    await using origin = await startOrigin();
    await using companion = await startTestCompanion('', place);
    const asNobody = () =>
      run(
        'setpriv',
        ['--reuid', `${NOBODY}`, '--clear-groups', 'curl', '-sS', '-m', '5', '--noproxy', ''].concat([
          '-x',
          `http://127.0.0.1:${companion.port}`,
          origin.url('/'),
        ]),
      ).then(
        ({ stdout }) => stdout,
        () => 'refused',
      );
    expect(await asNobody()).toBe('hello');
    writeFileSync(place.configFile, ON);
    await expect.poll(asNobody, { timeout: 5_000 }).toBe('refused');
  });
});
