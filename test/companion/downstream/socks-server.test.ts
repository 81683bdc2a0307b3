// SOCKS from the client's side: the handshake as bytes, then over real sockets through the walk, then as curl speaks it.
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { SocksServer, socksNo } from '../../../companion/downstream/socks-server.ts';
import { normalizeHost } from '../../../shared/endpoint.ts';
import { Fault, type FaultKind } from '../../../shared/fault.ts';
import { closedPort, startEcho, startHop } from '../../support/hop.ts';
import { startOrigin } from '../../support/origin.ts';
import { connectRaw } from '../../support/raw-client.ts';
import { startTestCompanion } from '../../support/with-companion.ts';
import { startProxy } from '../../support/with-proxy.ts';

const run = promisify(execFile);
const port = (n: number) => [n >> 8, n & 255];
const name5 = (host: string, at: number) =>
  Buffer.from([5, 1, 0, 3, host.length, ...Buffer.from(host, 'latin1'), ...port(at)]);
const ip5 = (address: string, at: number) => Buffer.from([5, 1, 0, 1, ...address.split('.').map(Number), ...port(at)]);
const name4 = (host: string, at: number, user = '') =>
  Buffer.concat([Buffer.from([4, 1, ...port(at), 0, 0, 0, 1]), Buffer.from(`${user}\0${host}\0`, 'latin1')]);
const ip4 = (address: string, at: number) => Buffer.from([4, 1, ...port(at), ...address.split('.').map(Number), 0]);
const login = (name: string, password: string) =>
  Buffer.concat([
    Buffer.from([1, name.length]),
    Buffer.from(name),
    Buffer.from([password.length]),
    Buffer.from(password),
  ]);
const HELLO = Buffer.from([5, 1, 0]);
const no5 = (code: number) => Buffer.from([5, code, 0, 1, 0, 0, 0, 0, 0, 0]);
const YES5 = no5(0);
const YES4 = Buffer.from([0, 90, 0, 0, 0, 0, 0, 0]);
const NO4 = Buffer.from([0, 91, 0, 0, 0, 0, 0, 0]);
const onlyMe = (username: string, password: string) => username === 'me' && password === 'pass';

/** Feeds a handshake as it would come: all at once, or a byte at a time. */
function shake(version: 4 | 5, bytes: Buffer, isRight: typeof onlyMe | null, piece = bytes.length) {
  const socks = new SocksServer(version, isRight);
  const sent: Buffer[] = [];
  let held = Buffer.alloc(0);
  for (let at = 0; at < bytes.length; at += piece) {
    held = Buffer.concat([held, bytes.subarray(at, at + piece)]);
    while (held.length > 0) {
      const step = socks.read(held);
      if (step === 'need-more') break;
      sent.push(step.send);
      held = Buffer.from(step.rest);
      if (step.target || step.over) {
        const rest = Buffer.concat([held, bytes.subarray(at + piece)]).toString();
        return { sent: Buffer.concat(sent), target: step.target, over: step.over ?? false, rest };
      }
    }
  }
  return { sent: Buffer.concat(sent), target: undefined, over: false, rest: 'waits' };
}

describe.each([
  ['at once', undefined],
  ['a byte at a time', 1],
] as const)('the handshake, %s', (_, piece) => {
  const socks5 = (request: Buffer, isRight: typeof onlyMe | null = null) =>
    shake(5, Buffer.concat([HELLO, request]), isRight, piece);

  test.each([
    ['a name', name5('Example.COM.', 443), { host: 'example.com', port: 443 }],
    ['a name that is an address', name5('127.1', 80), { host: '127.0.0.1', port: 80 }],
    ['an IPv4 address', ip5('192.0.2.7', 8080), { host: '192.0.2.7', port: 8080 }],
    [
      'an IPv6 address',
      Buffer.from([5, 1, 0, 4, 0x20, 1, 0xd, 0xb8, ...Array<number>(11).fill(0), 7, ...port(443)]),
      { host: '2001:db8::7', port: 443 },
    ],
    [
      'an IPv4 address in IPv6',
      Buffer.from([5, 1, 0, 4, ...Array<number>(10).fill(0), 255, 255, 127, 0, 0, 1, ...port(443)]),
      { host: '127.0.0.1', port: 443 },
    ],
  ])('A33: SOCKS5 with %s gives the target in normal form, and what comes behind is kept', (__, request, target) => {
    const got = socks5(Buffer.concat([request, Buffer.from('early')]));
    expect(got).toEqual({ sent: Buffer.from([5, 0]), target, over: false, rest: 'early' });
  });

  test.each([
    ['a name', name4('Example.COM', 443, 'me'), { host: 'example.com', port: 443 }],
    ['an address', ip4('192.0.2.7', 8080), { host: '192.0.2.7', port: 8080 }],
    ['the address 0.0.0.0, which is no name', ip4('0.0.0.0', 8080), { host: '0.0.0.0', port: 8080 }],
    ['a user id of 255 bytes', name4('a.test', 80, 'u'.repeat(255)), { host: 'a.test', port: 80 }],
  ])('A33: SOCKS4 with %s gives the target, and what comes behind is kept', (__, request, target) => {
    const got = shake(4, Buffer.concat([request, Buffer.from('early')]), null, piece);
    expect(got).toEqual({ sent: Buffer.alloc(0), target, over: false, rest: 'early' });
  });

  test.each([
    ['a name of 0 bytes', name5('', 80), 4],
    ['a name of 255 bytes, which is longer than a name can be', name5('a'.repeat(255), 80), 4],
    ['a NUL in a name', name5('a\0b.test', 80), 4],
    ['a space in a name', name5('a b.test', 80), 4],
    ['a name beyond ASCII', name5('\xe4.test', 80), 4],
    ['a name with an @', name5('a@b.test', 80), 4],
    ['a wrong version', Buffer.from([4, 1, 0, 1, 1, 2, 3, 4, 0, 80]), 1],
    ['an unknown kind of address', Buffer.from([5, 1, 0, 9, 1, 2, 3, 4, 0, 80]), 8],
  ])('A33: SOCKS5 with %s is refused by its reply and closed', (__, request, code) => {
    expect(socks5(request)).toMatchObject({ sent: Buffer.concat([Buffer.from([5, 0]), no5(code)]), over: true });
  });

  test('A33: a SOCKS5 name of 253 bytes, the longest there is, passes', () => {
    const longest = `${'a.'.repeat(126)}b`;
    expect(socks5(name5(longest, 80)).target).toEqual({ host: longest, port: 80 });
  });

  test('A33: the 256th byte of a SOCKS5 name is not the name’s any more', () => {
    // One byte says the length: 256 is 0, so the name is empty and the rest is not looked at.
    const request = Buffer.concat([
      Buffer.from([5, 1, 0, 3, 256 & 255]),
      Buffer.from('a'.repeat(256)),
      Buffer.from([0, 80]),
    ]);
    expect(socks5(request)).toMatchObject({ target: undefined, over: true });
  });

  test.each([
    ['a user id of 256 bytes', name4('a.test', 80, 'u'.repeat(256))],
    ['a user id that never ends', Buffer.concat([ip4('0.0.0.1', 80).subarray(0, 8), Buffer.from('u'.repeat(300))])],
    ['a name of 256 bytes', name4('a'.repeat(256), 80)],
    ['a name that never ends', Buffer.from(`\x04\x01\x00\x50\x00\x00\x00\x01\x00${'a'.repeat(300)}`, 'latin1')],
    ['no name', name4('', 80)],
    ['a name with a slash', name4('a/b', 80)],
  ])('A33: SOCKS4 with %s is refused and closed', (__, request) => {
    expect(shake(4, request, null, piece)).toMatchObject({ sent: NO4, target: undefined, over: true });
  });

  test.each([
    ['none', [5, 0], 0xff],
    ['GSSAPI alone', [5, 1, 1], 0xff],
    ['255 without ours', [5, 255, ...Array<number>(255).fill(0x80)], 0xff],
  ])('A33: of methods, %s is refused', (__, greeting, method) => {
    expect(shake(5, Buffer.from(greeting), null, piece)).toMatchObject({ sent: Buffer.from([5, method]), over: true });
  });

  test('A33: 255 methods with ours among them pass', () => {
    const greeting = Buffer.from([5, 255, ...Array<number>(254).fill(0x80), 0]);
    expect(shake(5, Buffer.concat([greeting, name5('a.test', 80)]), null, piece).target?.host).toBe('a.test');
  });

  test('A33: where a password is asked for, the right one passes', () => {
    const bytes = Buffer.concat([Buffer.from([5, 2, 0, 2]), login('me', 'pass'), name5('a.test', 80)]);
    const got = shake(5, bytes, onlyMe, piece);
    expect(got.sent).toEqual(Buffer.from([5, 2, 1, 0]));
    expect(got.target?.host).toBe('a.test');
  });

  test.each([
    ['wrong', login('me', 'word')],
    ['empty', login('me', '')],
    ['255 bytes long', login('me', 'p'.repeat(255))],
    ['of nobody', login('', '')],
    ['in another version', Buffer.from([5, 2, 109, 101, 4])],
  ])('A33: a password %s is refused', (__, asked) => {
    const got = shake(5, Buffer.concat([Buffer.from([5, 1, 2]), asked, name5('a.test', 80)]), onlyMe, piece);
    expect(got).toMatchObject({ sent: Buffer.from([5, 2, 1, 1]), target: undefined, over: true });
  });

  test('A33: where a password is asked for, nobody passes without', () => {
    expect(socks5(name5('a.test', 80), onlyMe)).toMatchObject({ sent: Buffer.from([5, 0xff]), over: true });
    expect(shake(4, name4('a.test', 80), onlyMe, piece)).toMatchObject({ sent: NO4, over: true });
  });

  test('a client that offers only a password is heard where none is asked for', () => {
    const bytes = Buffer.concat([Buffer.from([5, 1, 2]), login('any', 'thing'), name5('a.test', 80)]);
    expect(shake(5, bytes, null, piece)).toMatchObject({ sent: Buffer.from([5, 2, 1, 0]), target: { host: 'a.test' } });
  });

  test.each([
    ['BIND', 2],
    ['UDP ASSOCIATE', 3],
    ['a command of nobody', 77],
  ])('A35: %s is refused by reply 7, in SOCKS4 by 91', (__, command) => {
    const request = ip5('192.0.2.7', 80);
    request[1] = command;
    expect(socks5(request)).toMatchObject({ sent: Buffer.concat([Buffer.from([5, 0]), no5(7)]), over: true });
    const old = ip4('192.0.2.7', 80);
    old[1] = command;
    expect(shake(4, old, null, piece)).toMatchObject({ sent: NO4, over: true });
  });
});

test('A33: whatever comes, it ends within what it may hold, and means the same in pieces as at once', () => {
  const anyHandshake = fc.tuple(
    fc.constantFrom<4 | 5>(4, 5),
    fc.array(
      fc.oneof(
        fc.constantFrom(
          HELLO,
          Buffer.from([5, 2, 0, 2]),
          login('me', 'pass'),
          name5('a.test', 80),
          ip5('1.2.3.4', 443),
        ),
        fc.constantFrom(name4('a.test', 80), ip4('1.2.3.4', 443), Buffer.from([4, 1]), Buffer.alloc(20)),
        fc.uint8Array({ maxLength: 300 }).map(bytes => Buffer.from(bytes)),
      ),
      { maxLength: 5 },
    ),
    fc.constantFrom(null, onlyMe),
    fc.integer({ min: 1, max: 7 }),
  );
  fc.assert(
    fc.property(anyHandshake, ([version, pieces, isRight, piece]) => {
      const bytes = Buffer.concat([Buffer.from([version]), Buffer.concat(pieces).subarray(1)]);
      const whole = shake(version, bytes, isRight);
      const cut = shake(version, bytes, isRight, piece);
      // Of what comes behind a no, nothing is read.
      expect(whole.over ? { ...cut, rest: whole.rest } : cut).toEqual(whole);
      // The longest there is: greeting, login, request.
      if (bytes.length > 257 + 513 + 262) expect(whole.rest).not.toBe('waits');
      if (whole.target !== undefined) expect(normalizeHost(whole.target.host)).toBe(whole.target.host);
    }),
    { numRuns: 2_000 },
  );
});

test.each([
  ['http_request_denied', 2],
  ['destination_ip_prohibited', 2],
  ['hop_refused', 2],
  ['destination_ip_unroutable', 3],
  ['dns_error', 4],
  ['hop_could_not_reach', 4],
  ['connection_refused', 5],
  ['connection_timeout', 6],
  ['proxy_internal_error', 1],
] satisfies [FaultKind, number][])('the fault %s is reply %i', (kind, code) => {
  expect(socksNo(5, new Fault(kind))).toEqual(no5(code));
  expect(socksNo(4, new Fault(kind))).toEqual(NO4);
});

describe('through the walk', () => {
  test('SOCKS5 becomes a tunnel, byte for byte, and a record of its own', async () => {
    await using echo = await startEcho({ greets: 'hi ' });
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(HELLO);
    expect(await client.read(2)).toEqual(Buffer.from([5, 0]));
    client.write(ip5('127.0.0.1', echo.port));
    expect(await client.read(10)).toEqual(YES5);
    client.write('there');
    expect((await client.read(8)).toString()).toBe('hi there');
    client.end();
    await client.readAll();
    expect(await proxy.exchange(0)).toMatchObject({
      kind: 'socks',
      method: 'CONNECT',
      url: `127.0.0.1:${echo.port}`,
      status: 200,
      bytesUp: 5,
      bytesDown: 8,
    });
  });

  test('SOCKS4a becomes a tunnel, and the name goes to the hop as a name', async () => {
    await using echo = await startEcho();
    await using hop = await startHop({ kind: 'socks5', hosts: { 'far.test': '127.0.0.1' } });
    await using companion = await startTestCompanion(
      `hops: { far: "socks5://127.0.0.1:${hop.port}" }\nroutes: { far: [[far]] }\ndefault: far\n`,
    );
    await using client = await connectRaw(companion.port);
    client.write(name4('far.test', echo.port, 'me'));
    expect(await client.read(8)).toEqual(YES4);
    client.write('through');
    expect((await client.read(7)).toString()).toBe('through');
    expect(hop.requests).toEqual([`socks5 far.test:${echo.port}`]);
  });

  test('data sent right behind the request arrives in order, however it was cut', async () => {
    const data = Buffer.from(Array.from({ length: 200_000 }, (_, i) => i % 251));
    await using echo = await startEcho();
    await using proxy = await startProxy();
    for (const piece of [1, 3, 1_000_000]) {
      await using client = await connectRaw(proxy.port);
      const bytes = Buffer.concat([HELLO, ip5('127.0.0.1', echo.port), data]);
      for (let at = 0; at < 60; at += piece) {
        client.write(bytes.subarray(at, Math.min(at + piece, 60)));
        if (piece === 1) await new Promise(resolve => setTimeout(resolve, 1));
      }
      client.write(bytes.subarray(60));
      expect(await client.read(12)).toEqual(Buffer.concat([Buffer.from([5, 0]), YES5]));
      expect((await client.read(data.length)).equals(data)).toBe(true);
    }
  });

  test('the yes waits for the whole chain, and a no has its reply', async () => {
    const nobody = await closedPort();
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(Buffer.concat([HELLO, ip5('127.0.0.1', nobody)]));
    expect(await client.readAll()).toEqual(Buffer.concat([Buffer.from([5, 0]), no5(5)]));
    expect(await proxy.exchange(0)).toMatchObject({ kind: 'socks', status: 502, fault: 'connection_refused' });
    await using old = await connectRaw(proxy.port);
    old.write(ip4('127.0.0.1', nobody));
    expect(await old.readAll()).toEqual(NO4);
  });

  test('the guard and the rules judge a SOCKS target as that of a CONNECT', async () => {
    await using companion = await startTestCompanion('rules: [{ host: ads.test, block: true }]\n');
    for (const request of [
      ip5('127.0.0.1', 8000),
      name5('localhost', 8000),
      ip5('1.2.3.4', 25),
      name5('ads.test', 443),
    ]) {
      await using client = await connectRaw(companion.port);
      client.write(Buffer.concat([HELLO, request]));
      expect(await client.readAll()).toEqual(Buffer.concat([Buffer.from([5, 0]), no5(2)]));
    }
  });

  test('A40: its own port is no target', async () => {
    await using companion = await startTestCompanion();
    for (const request of [ip5('127.0.0.1', companion.port), name5('origin.test', companion.port)]) {
      await using client = await connectRaw(companion.port);
      client.write(Buffer.concat([HELLO, request]));
      expect(await client.readAll()).toEqual(Buffer.concat([Buffer.from([5, 0]), no5(2)]));
    }
  });

  test('A35: what is not supported leaves no half-open connection', async () => {
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(Buffer.from([5, 1, 0, 5, 3, 0, 1, 0, 0, 0, 0, 0, 0]));
    expect(await client.readAll()).toEqual(Buffer.concat([Buffer.from([5, 0]), no5(7)]));
    client.end();
    await client.closed();
    await expect.poll(() => proxy.listener.connections).toBe(0);
    expect(proxy.exchanges).toEqual([]);
  });

  test.each([
    ['says nothing', Buffer.alloc(0)],
    ['stops after the version', Buffer.from([5])],
    ['stops after the greeting', HELLO],
    ['stops in the request', Buffer.concat([HELLO, name5('a.test', 80).subarray(0, 8)])],
    ['stops in a SOCKS4 user id', Buffer.from([4, 1, 0, 80, 1, 2, 3, 4, 65])],
  ])('A33, A36: a client that %s is closed when a head would be late', async (_, bytes) => {
    await using proxy = await startProxy({ limits: { headTimeout: 0.1 } });
    await using client = await connectRaw(proxy.port);
    client.write(bytes);
    await client.readAll(2_000);
    await expect.poll(() => proxy.listener.connections).toBe(0);
  });

  test('A36: a handshake that trickles gains no time', async () => {
    await using proxy = await startProxy({ limits: { headTimeout: 0.2 } });
    await using client = await connectRaw(proxy.port);
    client.write(Buffer.from([4, 1, 0, 80, 1, 2, 3, 4]));
    const trickle = setInterval(() => client.write('u'), 20);
    try {
      await client.readAll(2_000);
    } finally {
      clearInterval(trickle);
    }
  });

  test('a client that leaves while the chain is built stops it', async () => {
    await using hop = await startHop({ kind: 'socks5', silent: 'when-asked' });
    await using companion = await startTestCompanion(
      `hops: { far: "socks5://127.0.0.1:${hop.port}" }\nroutes: { far: [[far]] }\ndefault: far\n`,
    );
    const client = await connectRaw(companion.port);
    client.write(Buffer.concat([HELLO, name5('far.test', 443)]));
    await expect.poll(() => hop.open).toBe(1);
    client.close();
    await expect.poll(() => hop.open).toBe(0);
  });
});

describe('curl', () => {
  test.each(['socks4', 'socks4a', 'socks5', 'socks5h'])(
    'speaks %s through it, and plain http is carried as it is',
    async scheme => {
      await using origin = await startOrigin((request, response, body) =>
        response.end(`${request.method} ${request.url} ${body.length}`),
      );
      await using companion = await startTestCompanion();
      // Only these ask the companion for the name; the others look it up themselves.
      const host = scheme === 'socks4a' || scheme === 'socks5h' ? 'origin.test' : '127.0.0.1';
      const curl = async (...args: string[]) =>
        (await run('curl', ['-s', '-S', '--noproxy', '', '-x', `${scheme}://127.0.0.1:${companion.port}`, ...args]))
          .stdout;
      const url = `http://${host}:${origin.port}/page`;
      expect(await curl(url)).toBe('GET /page 0');
      expect(await curl('-d', 'x'.repeat(100_000), url)).toBe('POST /page 100000');
      expect(await curl('-H', 'Expect:', url, url)).toBe('GET /page 0GET /page 0');
      expect(origin.requests.every(request => request.headers['host'] === `${host}:${origin.port}`)).toBe(true);
    },
  );
});
