// Who may enter: passwords, networks, other machines, TLS. "Another machine" is played by this machine's own network address, from which a connection
// to 127.0.0.1 comes in as a stranger's.
import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { networkInterfaces } from 'node:os';
import path from 'node:path';
import { connect as connectTls } from 'node:tls';
import { promisify } from 'node:util';
import * as v from 'valibot';
import { describe, expect, test } from 'vitest';
import { LoginBound, makeEntrance } from '../../../companion/guard/entrance.ts';
import { findOpenListener, reachableAt } from '../../../companion/guard/listen-place.ts';
import { CONTROL_PATH } from '../../../shared/control.ts';
import { ConfigSchema } from '../../../shared/config.ts';
import { makeTestAuthority } from '../../support/certificates.ts';
import { startEcho } from '../../support/hop.ts';
import { startOrigin, startRawOrigin } from '../../support/origin.ts';
import { connectRaw, type RawClient, rawClientOn } from '../../support/raw-client.ts';
import { makePlace, startTestCompanion, TEST_CONFIG, TestLink } from '../../support/with-companion.ts';

const run = promisify(execFile);
const guardOf = (guard: object) => v.parse(ConfigSchema, { guard }).guard;
const basic = (user: string, password: string) =>
  `Proxy-Authorization: Basic ${Buffer.from(`${user}:${password}`).toString('base64')}\r\n`;
const withGuard = (guard: string) => TEST_CONFIG.replace('guard:\n', `guard:\n${guard}`);
const USERS = withGuard('  users: { ann: s3cret-word, "Bär": "pä:ss" }\n');

/** An address of this machine that is not loopback, if it has one. */
const lan = Object.values(networkInterfaces())
  .flatMap(list => list ?? [])
  .find(one => !one.internal && one.family === 'IPv4')?.address;
if (lan === undefined) console.warn('This machine has no network address: what other machines may do is not tested.');

/** Connects as another machine would. */
async function connectFromElsewhere(port: number): Promise<RawClient> {
  const socket = connect({ port, host: '127.0.0.1', localAddress: lan!, allowHalfOpen: true });
  await new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject));
  return rawClientOn(socket);
}

async function ask(client: RawClient, url: string, fields = ''): Promise<{ status: number; text: string }> {
  client.write(`GET ${url} HTTP/1.1\r\nHost: x\r\n${fields}\r\n`);
  return client.readAnswer();
}

describe('where a password is asked for', () => {
  test('R22, A60: http needs it, is told how, and it goes no further', async () => {
    await using origin = await startOrigin();
    await using companion = await startTestCompanion(USERS);
    await using client = await connectRaw(companion.port);
    client.write(`GET ${origin.url('/')} HTTP/1.1\r\nHost: x\r\n\r\n`);
    const refused = await client.readAnswer();
    expect(refused.status).toBe(407);
    expect(refused.headers['proxy-authenticate']).toBe('Basic realm="Detour", charset="UTF-8"');
    // The same connection goes on once it is known who asks.
    expect((await ask(client, origin.url('/'), basic('ann', 's3cret-word'))).text).toBe('hello');
    expect((await ask(client, origin.url('/'), basic('Bär', 'pä:ss'))).text).toBe('hello');
    expect((await ask(client, origin.url('/'))).status).toBe(407);
    expect(origin.requests).toHaveLength(2);
    for (const request of origin.requests) expect(request.headers).not.toHaveProperty('proxy-authorization');
  });

  test.each([
    ['another password', basic('ann', 's3cret-wore')],
    ['no password', basic('ann', '')],
    ['nobody’s name', basic('bob', 's3cret-word')],
    ['a name of every object', basic('constructor', 'x')],
    ['no colon', `Proxy-Authorization: Basic ${Buffer.from('ann').toString('base64')}\r\n`],
    ['no base64', 'Proxy-Authorization: Basic s3cret-word\r\n'],
    ['another scheme', 'Proxy-Authorization: Bearer s3cret-word\r\n'],
    ['two of them', basic('ann', 's3cret-word') + basic('ann', 's3cret-word')],
    ['the origin’s field', basic('ann', 's3cret-word').replace('Proxy-', '')],
  ])('R22: %s is not enough', async (_, field) => {
    await using origin = await startOrigin();
    await using companion = await startTestCompanion(USERS);
    await using client = await connectRaw(companion.port);
    expect((await ask(client, origin.url('/'), field)).status).toBe(407);
    expect(origin.requests).toEqual([]);
  });

  test('R22: CONNECT needs it, too', async () => {
    await using origin = await startOrigin();
    await using companion = await startTestCompanion(USERS);
    await using client = await connectRaw(companion.port);
    client.write(`CONNECT ${origin.authority} HTTP/1.1\r\nHost: x\r\n\r\n`);
    const refused = await client.readAnswer();
    expect([refused.status, refused.headers['proxy-authenticate']]).toEqual([407, expect.stringMatching(/^Basic /)]);
    await using second = await connectRaw(companion.port);
    second.write(`CONNECT ${origin.authority} HTTP/1.1\r\nHost: x\r\n${basic('ann', 's3cret-word')}\r\n`);
    expect(await second.readUntil('\r\n\r\n')).toMatch(/^HTTP\/1.1 200 /);
  });

  test('curl gets through with it over http, CONNECT and SOCKS5, and not without', async () => {
    await using origin = await startOrigin();
    await using companion = await startTestCompanion(USERS);
    const curl = (proxy: string, ...args: string[]) =>
      run('curl', ['-s', '-S', '-f', '--noproxy', '', '-x', proxy, origin.url('/'), ...args]);
    const at = `127.0.0.1:${companion.port}`;
    for (const [scheme, ...args] of [['http'], ['http', '-p'], ['socks5'], ['socks5h']] as const) {
      expect((await curl(`${scheme}://ann:s3cret-word@${at}`, ...args)).stdout).toBe('hello');
      await expect(curl(`${scheme}://ann:wrong@${at}`, ...args)).rejects.toThrow(/curl: /);
      await expect(curl(`${scheme}://${at}`, ...args)).rejects.toThrow(/curl: /);
    }
    // It has no passwords.
    await expect(curl(`socks4a://ann@${at}`)).rejects.toThrow(/curl: /);
  });

  test('A54: who guesses is not listened to any more for a minute, not even with the right one', async () => {
    const clock = { now: Date.now() };
    await using origin = await startOrigin();
    await using companion = await startTestCompanion(USERS, undefined, () => clock.now);
    await using client = await connectRaw(companion.port);
    for (let i = 0; i < 20; i++) {
      expect((await ask(client, origin.url('/'), basic('ann', `guess-${i}`))).status).toBe(407);
      // The same again, as a browser does, is no further guess.
      expect((await ask(client, origin.url('/'), basic('ann', `guess-${i}`))).status).not.toBe(200);
    }
    expect((await ask(client, origin.url('/'), basic('ann', 's3cret-word'))).status).toBe(429);
    expect(companion.said).toContain(
      '127.0.0.1 has given too many wrong passwords, and is not listened to for a minute.',
    );
    await using socks = await connectRaw(companion.port);
    socks.write('\x05\x01\x02\x01\x03ann\x0bs3cret-word');
    expect(await socks.readAll()).toEqual(Buffer.from([5, 2, 1, 1]));
    clock.now += 61_000;
    expect((await ask(client, origin.url('/'), basic('ann', 's3cret-word'))).text).toBe('hello');
  });

  test('a change of the file changes who may enter, at once', async () => {
    using place = makePlace(USERS);
    await using origin = await startOrigin();
    await using companion = await startTestCompanion(USERS, place);
    await using client = await connectRaw(companion.port);
    expect((await ask(client, origin.url('/'), basic('ann', 's3cret-word'))).status).toBe(200);
    writeFileSync(place.configFile, USERS.replace('s3cret-word', 'another'));
    await expect
      .poll(async () => (await ask(client, origin.url('/'), basic('ann', 's3cret-word'))).status, { timeout: 5_000 })
      .toBe(407);
    expect((await ask(client, origin.url('/'), basic('ann', 'another'))).status).toBe(200);
  });

  test('the control link asks for its own token, not for this', async () => {
    await using companion = await startTestCompanion(USERS);
    const { link } = await TestLink.pair(companion.companion);
    await link[Symbol.asyncDispose]();
  });

  test('A60: no password is in what it says, or in the log', async () => {
    using place = makePlace(`${USERS}log: { file: traffic.jsonl }\n`);
    await using origin = await startOrigin();
    await using companion = await startTestCompanion('', place);
    await using client = await connectRaw(companion.port);
    await ask(client, origin.url('/'), basic('ann', 's3cret-word'));
    await ask(client, origin.url('/'), basic('ann', 'wr0ng'));
    const { link } = await TestLink.pair(companion.companion);
    await link.ask({ type: 'follow', recent: 10 });
    await expect.poll(() => link.heard.filter(one => one.type === 'exchange').length).toBe(2);
    const said = JSON.stringify([link.heard, companion.said]);
    await link[Symbol.asyncDispose]();
    expect(said).not.toMatch(/s3cret|wr0ng|YW5u/);
  });
});

describe('the bound on wrong passwords', () => {
  test('A54: counts a whole IPv6 network of 64 bits as one, and mapped addresses as IPv4', () => {
    const bound = new LoginBound(() => 0);
    for (let i = 0; i < 20; i++) bound.count(`2001:db8::${i}`, Buffer.from([i]));
    expect(bound.isReached('2001:db8::ffff')).toBe(true);
    expect(bound.isReached('2001:db8:0:0:1:2:3:4')).toBe(true);
    expect(bound.isReached('2001:db8:0:1::1')).toBe(false);
    for (let i = 0; i < 20; i++) bound.count('::ffff:192.0.2.1', Buffer.from([i]));
    expect(bound.isReached('192.0.2.1')).toBe(true);
    expect(bound.isReached('192.0.2.2')).toBe(false);
  });

  test('remembers a bounded number of addresses', () => {
    const bound = new LoginBound(() => 0);
    for (let i = 0; i < 20; i++) bound.count('192.0.2.1', Buffer.from([i]));
    for (let i = 0; i < 5_000; i++) bound.count(`10.0.${i >> 8}.${i & 255}`, Buffer.from([1]));
    expect(bound.isReached('192.0.2.1')).toBe(false);
  });
});

describe('networks', () => {
  const may = (guard: object, remote: string | undefined, local = '127.0.0.1') =>
    makeEntrance(guardOf(guard), new LoginBound(() => 0)).mayEnter({
      remoteAddress: remote,
      localAddress: () => local,
    });

  test('A46: by itself only this machine may enter', () => {
    for (const here of ['127.0.0.1', '127.9.9.9', '::1', '::ffff:127.0.0.1']) expect(may({}, here)).toBe(true);
    expect(may({}, '192.168.1.5', '192.168.1.5')).toBe(true);
    for (const there of ['192.168.1.5', '::ffff:192.168.1.5', 'fe80::1%eth0', '2001:db8::1'])
      expect(may({}, there)).toBe(false);
    expect(may({}, undefined)).toBe(false);
  });

  test('those named in guard.clients may, and this machine', () => {
    const guard = { clients: ['192.168.1.0/24', 'fd00::/8', '198.51.100.7'] };
    for (const one of ['192.168.1.5', '::ffff:192.168.1.5', 'fd12::1', '198.51.100.7', '127.0.0.1'])
      expect(may(guard, one)).toBe(true);
    for (const one of ['192.168.2.5', '198.51.100.8', '2001:db8::1']) expect(may(guard, one)).toBe(false);
  });

  test('with TLS and no network named, anyone may try the password', () => {
    expect(may({ tls: { cert: 'c', key: 'k' } }, '198.51.100.8')).toBe(true);
    expect(may({ tls: { cert: 'c', key: 'k' }, clients: ['192.168.1.0/24'] }, '198.51.100.8')).toBe(false);
  });
});

describe('A46: a listener that other machines reach', () => {
  const complaint = (guard: object, host = '0.0.0.0') =>
    findOpenListener({ listen: { host, port: 8228 }, guard: guardOf(guard) })[0]?.message;
  const users = { ann: 'word' };
  const tls = { cert: 'c', key: 'k' };

  test('says exactly what is missing', () => {
    expect(complaint({})).toBe(
      '"0.0.0.0" opens the proxy to other machines, and for that the section guard also needs otherMachines: true, users: { NAME: PASSWORD }, clients: [192.168.1.0/24] (the networks that may enter); or listen on 127.0.0.1',
    );
    expect(complaint({ otherMachines: true, users })).toMatch(/needs clients: /);
    expect(complaint({ otherMachines: true, tls })).toMatch(/needs users: .*PASSWORD }; or/);
    expect(complaint({ otherMachines: true, clients: ['10.0.0.0/8'] }, '::')).toMatch(/^"\[::\]" .*needs users: /);
    expect(complaint({ users, clients: ['10.0.0.0/8'] })).toMatch(/needs otherMachines: true; or/);
  });

  test('is not let everyone in by a network that is everyone', () => {
    for (const wide of ['0.0.0.0/0', '0.0.0.0/1', '::/0'])
      expect(complaint({ otherMachines: true, users, clients: ['10.0.0.0/8', wide] })).toMatch(/smaller networks/);
  });

  test('may be, with all of it', () => {
    for (const more of [{ clients: ['10.0.0.0/8', 'fd00::/8'] }, { tls }, { tls, clients: ['0.0.0.0/0'] }])
      expect(complaint({ otherMachines: true, users, ...more })).toBeUndefined();
  });

  test('is judged by where it listens now, whatever the changed file says', () => {
    const listen = { host: '127.0.0.1', port: 8228 };
    const guard = guardOf({});
    expect(findOpenListener({ listen, guard }, { host: '192.168.1.5', port: 8228 })).toHaveLength(1);
    expect(findOpenListener({ listen, guard }, { host: '127.0.0.1', port: 8228 })).toEqual([]);
  });

  test('is reached from this machine by loopback', () => {
    expect(reachableAt({ host: '0.0.0.0', port: 1 })).toEqual({ host: '127.0.0.1', port: 1 });
    expect(reachableAt({ host: '::', port: 1 })).toEqual({ host: '::1', port: 1 });
    expect(reachableAt({ host: '192.168.1.5', port: 1 })).toEqual({ host: '192.168.1.5', port: 1 });
  });

  test('start fails without, with the place in the file', async () => {
    await expect(startTestCompanion('listen: 0.0.0.0:0\nguard: { otherMachines: true }\n')).rejects.toThrow(
      /detour\.yaml:1:9: listen: .*guard also needs users: .*, clients: /,
    );
  });
});

describe.runIf(lan !== undefined)('another machine', () => {
  test('A46: by itself it listens on loopback alone: at its other addresses nobody answers', async () => {
    await using companion = await startTestCompanion();
    const socket = connect({ port: companion.port, host: lan! });
    const ended = await new Promise(resolve =>
      socket
        .once('connect', () => resolve('connected'))
        .once('error', error => resolve((error as NodeJS.ErrnoException).code)),
    );
    socket.destroy();
    expect(ended).toBe('ECONNREFUSED');
  });

  const open = (more = '') =>
    `listen: 0.0.0.0:0\n${withGuard(`  otherMachines: true\n  users: { ann: s3cret-word }\n  clients: [${lan}/32]\n${more}`)}`;

  test('A46: gets not a byte where it is not named', async () => {
    await using companion = await startTestCompanion();
    for (const bytes of ['GET http://origin.test/ HTTP/1.1\r\nHost: x\r\n\r\n', '\x05\x01\x00', '\x04\x01']) {
      await using client = await connectFromElsewhere(companion.port);
      client.write(bytes);
      expect(await client.readAll()).toEqual(Buffer.alloc(0));
    }
    // Once, however many come.
    expect(companion.said.filter(one => one.includes('guard.clients'))).toEqual([
      `${lan} was kept out: its network is not among guard.clients.`,
    ]);
  });

  test('gets through with its password where it is named', async () => {
    await using origin = await startOrigin();
    await using companion = await startTestCompanion(open());
    await using client = await connectFromElsewhere(companion.port);
    expect((await ask(client, origin.url('/'))).status).toBe(407);
    expect((await ask(client, origin.url('/'), basic('ann', 's3cret-word'))).text).toBe('hello');
  });

  test('A46: never gets to the control room, whatever it knows', async () => {
    await using companion = await startTestCompanion(open());
    const { pacUrl, at } = companion.companion;
    expect(at.host).toBe('127.0.0.1');
    const { pathname } = new URL(pacUrl);
    await using here = await connectRaw(companion.port);
    here.write(`GET ${pathname} HTTP/1.1\r\nHost: 127.0.0.1:${companion.port}\r\n\r\n`);
    expect((await here.readAnswer()).status).toBe(200);
    for (const [target, fields] of [
      [pathname, ''],
      [
        CONTROL_PATH,
        'Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n',
      ],
    ]) {
      await using there = await connectFromElsewhere(companion.port);
      there.write(`GET ${target} HTTP/1.1\r\nHost: 127.0.0.1:${companion.port}\r\n${fields}\r\n`);
      expect((await there.readAll()).toString()).toBe(
        'HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n',
      );
    }
  });

  test('A40: its port is no target under any of its addresses', async () => {
    await using companion = await startTestCompanion(`${open()}`.replace('127.0.0.0/8', '0.0.0.0/0'));
    await using client = await connectFromElsewhere(companion.port);
    for (const host of [
      '127.0.0.1',
      lan,
      '0.0.0.0',
      'localhost',
      'origin.test',
      '[::ffff:127.0.0.1]',
      '[::1]',
      '[::]',
    ]) {
      const answer = await ask(client, `http://${host}:${companion.port}/`, basic('ann', 's3cret-word'));
      expect([host, answer.status, answer.text]).toEqual([
        host,
        502,
        expect.stringMatching(/came back to Detour itself/),
      ]);
    }
  });

  test('with a certificate it must come by TLS; this machine as it likes', async () => {
    const authority = await makeTestAuthority();
    const { key, cert } = await authority.issue('proxy.test');
    using place = makePlace(open('  tls: { cert: cert.pem, key: key.pem }\n'));
    writeFileSync(path.join(place.folder, 'cert.pem'), cert);
    writeFileSync(path.join(place.folder, 'key.pem'), key);
    await using origin = await startOrigin();
    await using companion = await startTestCompanion('', place);

    await using plain = await connectFromElsewhere(companion.port);
    plain.write(`GET ${origin.url('/')} HTTP/1.1\r\nHost: x\r\n${basic('ann', 's3cret-word')}\r\n`);
    expect(await plain.readAll()).toEqual(Buffer.alloc(0));
    await using here = await connectRaw(companion.port);
    expect((await ask(here, origin.url('/'), basic('ann', 's3cret-word'))).text).toBe('hello');

    const openTls = async () => {
      const { socket } = await connectFromElsewhere(companion.port);
      socket.removeAllListeners('data');
      const secure = connectTls({ socket, ca: authority.pem, servername: 'proxy.test' });
      await new Promise((resolve, reject) => secure.once('secureConnect', resolve).once('error', reject));
      return rawClientOn(secure);
    };
    await using secret = await openTls();
    expect((await ask(secret, origin.url('/'))).status).toBe(407);
    expect((await ask(secret, origin.url('/'), basic('ann', 's3cret-word'))).text).toBe('hello');

    const caFile = await authority.writeTo(path.join(place.folder, 'ca.pem'));
    const curl = async (...args: string[]) =>
      (
        await run('curl', [
          ...args,
          '-sS',
          '--noproxy',
          '',
          `--interface`,
          lan!,
          '--proxy-cacert',
          caFile,
          '--resolve',
          `proxy.test:${companion.port}:127.0.0.1`,
          '-x',
          `https://ann:s3cret-word@proxy.test:${companion.port}`,
          origin.url('/'),
        ])
      ).stdout;
    expect(await curl()).toBe('hello');
    expect(await curl('-p')).toBe('hello');
  });

  test('a tunnel through TLS carries much both ways, and a reset as a reset', async () => {
    const authority = await makeTestAuthority();
    const { key, cert } = await authority.issue('proxy.test');
    using place = makePlace(open('  tls: { cert: cert.pem, key: key.pem }\n'));
    writeFileSync(path.join(place.folder, 'cert.pem'), cert);
    writeFileSync(path.join(place.folder, 'key.pem'), key);
    await using echo = await startEcho();
    await using companion = await startTestCompanion('', place);
    const secure = connectTls({ port: companion.port, host: '127.0.0.1', ca: authority.pem, servername: 'proxy.test' });
    await new Promise((resolve, reject) => secure.once('secureConnect', resolve).once('error', reject));
    await using client = rawClientOn(secure);
    client.write(`CONNECT 127.0.0.1:${echo.port} HTTP/1.1\r\nHost: x\r\n${basic('ann', 's3cret-word')}\r\n`);
    await client.readUntil('\r\n\r\n');
    const much = Buffer.from(Array.from({ length: 3_000_000 }, (_, i) => (i * 7) % 251));
    client.write(much);
    expect((await client.read(much.length, 10_000)).equals(much)).toBe(true);

    await using rude = await startRawOrigin(async peer => {
      await peer.read(1);
      peer.socket.resetAndDestroy();
    });
    const again = connectTls({ port: companion.port, host: '127.0.0.1', ca: authority.pem, servername: 'proxy.test' });
    await new Promise((resolve, reject) => again.once('secureConnect', resolve).once('error', reject));
    await using other = rawClientOn(again);
    other.write(`CONNECT ${rude.authority} HTTP/1.1\r\nHost: x\r\n${basic('ann', 's3cret-word')}\r\n`);
    await other.readUntil('\r\n\r\n');
    other.write('x');
    expect(await other.closed()).toBe('reset');
  });

  test('A36: who is silent in TLS is closed in time', async () => {
    const authority = await makeTestAuthority();
    const { key, cert } = await authority.issue('proxy.test');
    using place = makePlace(`${open('  tls: { cert: cert.pem, key: key.pem }\n')}limits: { headTimeout: 0.2 }\n`);
    writeFileSync(path.join(place.folder, 'cert.pem'), cert);
    writeFileSync(path.join(place.folder, 'key.pem'), key);
    await using companion = await startTestCompanion('', place);
    for (const bytes of ['', '\x16', '\x16\x03\x01\x02\x00\x01', '\x16\x03\x01\x00\x05nonse']) {
      await using client = await connectFromElsewhere(companion.port);
      client.write(bytes);
      await client.readAll();
    }
  });
});

test('a certificate that is none is told with its place', async () => {
  using place = makePlace(withGuard('  tls: { cert: cert.pem, key: key.pem }\n'));
  await expect(startTestCompanion('', place)).rejects.toThrow(/detour\.yaml:\d+:\d+: guard\.tls\.cert: does not exist/);
  writeFileSync(path.join(place.folder, 'cert.pem'), 'no');
  writeFileSync(path.join(place.folder, 'key.pem'), 'no');
  await expect(startTestCompanion('', place)).rejects.toThrow(/detour\.yaml:\d+:\d+: guard\.tls: is no certificate/);
});
