// Those who are slow, those who are many, and those who leave: each against the companion as a process of its own, with its memory looked at.
import { connect, type Socket } from 'node:net';
import { readFileSync } from 'node:fs';
import { networkInterfaces } from 'node:os';
import { createSecureContext } from 'node:tls';
import { afterEach, describe, expect, test } from 'vitest';
import { ConfigSchema } from '../../../shared/config.ts';
import { MiB } from '../../../shared/units.ts';
import * as v from 'valibot';
import { listen } from '../../../companion/downstream/listener.ts';
import { startEcho } from '../../support/hop.ts';
import { startOrigin, startRawOrigin } from '../../support/origin.ts';
import { connectRaw, rawClientOn } from '../../support/raw-client.ts';
import { spawnCompanion } from '../../support/spawned-companion.ts';
import { NO_CONTROL, startProxy } from '../../support/with-proxy.ts';

const wait = (ms: number) => new Promise(resolve => setTimeout(resolve, ms));
async function until(ready: () => boolean, within = 10_000): Promise<void> {
  const end = performance.now() + within;
  while (!ready()) {
    if (performance.now() > end) throw new Error(`did not come to pass: ${ready}`);
    await wait(10);
  }
}
const get = (url: string) => `GET ${url} HTTP/1.1\r\nHost: x\r\n\r\n`;

/** Resolves when the socket takes more, or is gone. */
function drained(socket: Socket): Promise<void> {
  return new Promise(resolve => {
    const go = () => {
      socket.off('drain', go).off('close', go);
      resolve();
    };
    socket.on('drain', go).on('close', go);
  });
}

/** Sockets of a crowd, gone after the test. */
const crowd = new Set<Socket>();
afterEach(() => {
  for (const socket of crowd) socket.destroy();
  crowd.clear();
});

function join(port: number, host = '127.0.0.1', localAddress?: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host, localAddress, noDelay: true }, () => resolve(socket));
    socket.once('error', reject);
    socket.on('error', () => {});
    crowd.add(socket);
  });
}

/** What came on a socket until it was closed, and how long that took. */
function toTheEnd(socket: Socket): Promise<{ text: string; took: number }> {
  const began = performance.now();
  return new Promise(resolve => {
    let text = '';
    socket.on('data', (data: Buffer) => (text += data.toString('latin1')));
    socket.on('close', () => resolve({ text, took: performance.now() - began }));
    socket.on('end', () => socket.destroy());
  });
}

/** Writes a text byte by byte for as long as somebody listens. */
async function trickle(socket: Socket, text: string, pause: number): Promise<void> {
  for (let at = 0; !socket.destroyed && socket.writable; at++) {
    socket.write(text[at % text.length]!);
    await wait(pause);
  }
}

describe('A86: a slow client', () => {
  const SHORT = 'limits: { headTimeout: 1, bodyTimeout: 1, idleTimeout: 1 }\n';

  test('A86: a head that comes byte by byte is ended at its deadline, and takes no memory', async () => {
    await using origin = await startOrigin();
    await using companion = await spawnCompanion({ config: SHORT });
    const sockets = await Promise.all(Array.from({ length: 200 }, () => join(companion.port)));
    const before = await companion.held();
    const ends = sockets.map(socket => {
      void trickle(socket, `GET http://a.test/${'a'.repeat(10_000)}`, 50);
      return toTheEnd(socket);
    });
    await using other = await connectRaw(companion.port);
    other.write(get(origin.url('/')));
    expect((await other.readAnswer()).text).toBe('hello');
    for (const { text, took } of await Promise.all(ends)) {
      expect(text).toMatch(/^HTTP\/1\.1 408 /);
      expect(took).toBeLessThan(4_000);
    }
    expect((await companion.held()) - before).toBeLessThan(2 * MiB);
  });

  test('A86: bytes that trickle in do not buy a body time, with a length or in chunks', async () => {
    await using origin = await startRawOrigin(async peer => void (await peer.readAll(20_000)));
    await using companion = await spawnCompanion({ config: SHORT });
    const before = await companion.held();
    const heads = [
      `POST ${origin.url('/')} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n`,
      `POST ${origin.url('/')} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n`,
    ];
    const ends = await Promise.all(
      Array.from({ length: 100 }, async (_, i) => {
        const socket = await join(companion.port);
        socket.write(heads[i % 2]!);
        void trickle(socket, i % 2 === 0 ? 'x' : '1\r\nx\r\n', 40);
        return toTheEnd(socket);
      }),
    );
    for (const { text, took } of await Promise.all(ends)) {
      expect(text).toMatch(/^HTTP\/1\.1 408 /);
      expect(took).toBeLessThan(6_000);
    }
    await until(() => origin.open.size === 0);
    expect((await companion.held()) - before).toBeLessThan(2 * MiB);
  });

  test('A86: an upload that is slow but gets on is left alone', async () => {
    await using origin = await startOrigin((_, response, body) => response.end(String(body.length)));
    await using proxy = await startProxy({ limits: { bodyTimeout: 0.5, bodyProgress: 100 } });
    await using client = await connectRaw(proxy.port);
    client.write(`POST ${origin.url('/')} HTTP/1.1\r\nHost: x\r\nContent-Length: 3000\r\n\r\n`);
    for (let i = 0; i < 30; i++) {
      client.write('x'.repeat(100));
      await wait(50);
    }
    expect((await client.readAnswer()).text).toBe('3000');
  });

  test('A86: readers that do not read, or hardly, are ended, and cost a bounded piece of memory each', async () => {
    const piece = Buffer.alloc(1 * MiB, 'much');
    await using origin = await startRawOrigin(async peer => {
      await peer.readUntil('\r\n\r\n');
      peer.write(`HTTP/1.1 200 OK\r\nContent-Length: ${64 * MiB}\r\n\r\n`);
      for (let i = 0; i < 64 && !peer.socket.destroyed; i++) {
        if (peer.socket.write(piece)) continue;
        await drained(peer.socket);
      }
    });
    await using companion = await spawnCompanion({ config: SHORT });
    const before = companion.memory();
    let most = 0;
    const looking = setInterval(() => (most = Math.max(most, companion.memory())), 50);
    const sockets = await Promise.all(
      Array.from({ length: 60 }, async (_, i) => {
        const socket = await join(companion.port);
        socket.pause();
        socket.write(get(origin.url('/')));
        // Every other one takes a byte now and then.
        if (i % 2 === 0) return socket;
        const sip = setInterval(() => void socket.read(1), 100);
        socket.on('close', () => clearInterval(sip));
        return socket;
      }),
    );
    await until(() => origin.accepted === 60);
    // The origin sees them go one after the other; nothing is left of 4 GiB that were on their way.
    await until(() => origin.open.size === 0, 15_000);
    clearInterval(looking);
    expect(most - before).toBeLessThan(128 * MiB);
    for (const socket of sockets) socket.destroy();
  });

  test('A86: a SOCKS handshake that comes byte by byte is ended too', async () => {
    await using companion = await spawnCompanion({ config: SHORT });
    const socket = await join(companion.port);
    const end = toTheEnd(socket);
    socket.write(Buffer.from([5, 200]));
    void trickle(socket, '\x02', 50);
    expect((await end).took).toBeLessThan(4_000);
  });
});

describe('A87: a flood of connections', () => {
  const hard = Number(/^Max open files\s+\d+\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1] ?? 4_096);
  const many = Math.min(10_000, hard - 1_000);

  test(`A87: of ${many} idle connections the oldest make room, new ones are served, tunnels stay`, async () => {
    await using origin = await startOrigin();
    await using echo = await startEcho();
    await using companion = await spawnCompanion({ config: 'limits: { connections: 500 }\n' });
    await using tunnel = await connectRaw(companion.port);
    tunnel.write(`CONNECT 127.0.0.1:${echo.port} HTTP/1.1\r\nHost: x\r\n\r\n`);
    expect((await tunnel.readAnswer('HEAD')).status).toBe(200);
    let before = 0;
    let closed = 0;
    const sockets: Socket[] = [];
    for (let i = 0; i < many; i += 100) {
      // From several addresses, each with ports of its own: one alone may have given most of them to other tests.
      const from = `127.0.0.${2 + ((i / 100) % 50)}`;
      const hundred = await Promise.all(Array.from({ length: 100 }, () => join(companion.port, '127.0.0.1', from)));
      for (const socket of hundred) {
        socket.resume().on('close', () => closed++);
        sockets.push(socket);
      }
      // Whatever 500 connections take, they have taken it now.
      if (i === 1_000) before = await companion.held();
      if (i % 2_000 !== 0) continue;
      await using other = await connectRaw(companion.port);
      other.write(get(origin.url('/')));
      expect((await other.readAnswer()).text).toBe('hello');
    }
    await until(() => closed >= many - 500);
    expect((await companion.held()) - before).toBeLessThan(2 * MiB);
    expect(sockets.slice(0, 100).every(socket => socket.closed)).toBe(true);
    expect(sockets.slice(-400).some(socket => socket.closed)).toBe(false);
    expect(companion.files()).toBeLessThan(560);
    tunnel.write('still here');
    expect((await tunnel.read(10)).toString()).toBe('still here');
  });

  test('A87: the oldest is the one that has been without a request for longest', async () => {
    await using origin = await startOrigin();
    await using proxy = await startProxy({ limits: { connections: 3 } });
    const [first, second, third] = await Promise.all([1, 2, 3].map(() => connectRaw(proxy.port)));
    for (const client of [third!, second!, first!]) {
      client.write(get(origin.url('/')));
      await client.readAnswer();
    }
    await using fourth = await connectRaw(proxy.port);
    fourth.write(get(origin.url('/')));
    await fourth.readAnswer();
    await third!.closed();
    await using fifth = await connectRaw(proxy.port);
    await second!.closed();
    first!.write(get(origin.url('/')));
    expect((await first!.readAnswer()).status).toBe(200);
    expect(fifth.socket.closed).toBe(false);
    first!.close();
  });

  test('A87: when all are busy, one more is closed at once', async () => {
    await using origin = await startOrigin((_, response) => void setTimeout(() => response.end('late'), 500));
    await using proxy = await startProxy({ limits: { connections: 2 } });
    await using one = await connectRaw(proxy.port);
    await using two = await connectRaw(proxy.port);
    one.write(get(origin.url('/')));
    two.write(get(origin.url('/')));
    await until(() => origin.open.size === 2);
    await using three = await connectRaw(proxy.port);
    await three.closed();
    expect((await one.readAnswer()).text).toBe('late');
    expect((await two.readAnswer()).text).toBe('late');
  });

  const walk = { request: () => Promise.resolve(), tunnel: () => Promise.resolve() };
  const entrance = () => ({ mayEnter: () => true, logIn: null, demand: null });
  const limitsOf = (more: object) => ({ ...v.parse(ConfigSchema, {}).limits, ...more });

  test('A87: who still stands at the TLS door makes room before those who have entered', async () => {
    const limits = limitsOf({ connections: 2 });
    const tls = () => createSecureContext();
    const listener = await listen({
      host: '127.0.0.1',
      port: 0,
      limits: () => limits,
      walk,
      control: NO_CONTROL,
      entrance,
      tls,
    });
    try {
      const entered = await join(listener.port);
      entered.resume().write('GET http://a.test/');
      await wait(100);
      const stranger = (await join(listener.port)).resume();
      await until(() => listener.connections === 2);
      const next = (await join(listener.port)).resume();
      await until(() => stranger.closed);
      await wait(100);
      expect([entered.closed, next.closed]).toEqual([false, false]);
    } finally {
      await listener.close(0);
    }
  });

  const far = Object.values(networkInterfaces())
    .flat()
    .find(one => one?.family === 'IPv4' && !one.internal)?.address;

  test.runIf(far !== undefined)('A87: one address of another machine has so many connections and no more', async () => {
    const limits = limitsOf({ connectionsPerAddress: 3 });
    const listener = await listen({
      host: '0.0.0.0',
      port: 0,
      limits: () => limits,
      walk,
      control: NO_CONTROL,
      entrance,
    });
    try {
      const here = await Promise.all(Array.from({ length: 6 }, () => join(listener.port)));
      const there = await Promise.all(Array.from({ length: 6 }, () => join(listener.port, far!)));
      for (const socket of [...here, ...there]) socket.resume();
      await until(() => there.filter(socket => socket.closed).length === 3);
      expect(here.some(socket => socket.closed)).toBe(false);
      for (const socket of there) socket.destroy();
      await until(() => listener.connections === 6);
      const again = rawClientOn(await join(listener.port, far!));
      await wait(100);
      expect(again.socket.closed).toBe(false);
    } finally {
      await listener.close(0);
    }
  });

  test.runIf(far !== undefined)('A87: for one that is refused itself nobody makes room', async () => {
    const limits = limitsOf({ connections: 3, connectionsPerAddress: 1 });
    const listener = await listen({
      host: '0.0.0.0',
      port: 0,
      limits: () => limits,
      walk,
      control: NO_CONTROL,
      entrance,
    });
    try {
      const here = [await join(listener.port), await join(listener.port)];
      const there = [await join(listener.port, far!)];
      await until(() => listener.connections === 3);
      there.push(await join(listener.port, far!));
      for (const socket of [...here, ...there]) socket.resume();
      await until(() => there[1]!.closed);
      await wait(100);
      expect([...here, there[0]!].some(socket => socket.closed)).toBe(false);
    } finally {
      await listener.close(0);
    }
  });
});

describe('A88: a client that goes', () => {
  // An end of the client's side may be a half-close, whose answer is still wanted: for so long.
  const SOON = { halfClosedTimeout: 0.5 };
  const leaves: Record<string, (socket: Socket) => void> = {
    closes: socket => void socket.destroy(),
    resets: socket => void socket.resetAndDestroy(),
    'half-closes': socket => void socket.end(),
  };

  test.each(Object.keys(leaves))('A88: in the middle of its upload, the origin hears of it soon: it %s', async how => {
    await using origin = await startRawOrigin(async peer => void (await peer.readAll(20_000)));
    await using proxy = await startProxy({ limits: SOON });
    const socket = await join(proxy.port);
    socket.write(`POST ${origin.url('/')} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n${'x'.repeat(10_000)}`);
    await until(() => origin.open.size === 1 && origin.peers[0]!.peek().length > 5_000);
    leaves[how]!(socket);
    await until(() => origin.open.size === 0, 2_000);
    expect((await proxy.exchange(0)).fault).toBe('downstream_gone');
    expect(proxy.rooms.pool.counts.open).toBe(0);
  });

  test.each(Object.keys(leaves))(
    'A88: in the middle of its download, the origin hears of it soon: it %s',
    async how => {
      await using origin = await startRawOrigin(async peer => {
        await peer.readUntil('\r\n\r\n');
        peer.write('HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nsome');
        await peer.readAll(20_000);
      });
      await using proxy = await startProxy({ limits: SOON });
      const socket = await join(proxy.port);
      socket.resume().write(get(origin.url('/')));
      await new Promise(resolve => socket.once('data', resolve));
      leaves[how]!(socket);
      await until(() => origin.open.size === 0, 2_000);
      await until(() => proxy.rooms.pool.counts.open === 0, 2_000);
    },
  );

  test('A88: before the origin has answered, or a tunnel stands', async () => {
    await using origin = await startRawOrigin(async peer => void (await peer.readAll(20_000)));
    await using proxy = await startProxy({ limits: SOON });
    const asking = await join(proxy.port);
    asking.write(get(origin.url('/')));
    await until(() => origin.open.size === 1);
    asking.destroy();
    await until(() => origin.open.size === 0, 2_000);
    const tunnel = await join(proxy.port);
    tunnel.write(`CONNECT ${origin.authority} HTTP/1.1\r\nHost: x\r\n\r\n`);
    await until(() => origin.open.size === 1);
    tunnel.resetAndDestroy();
    await until(() => origin.open.size === 0, 2_000);
  });
});

describe('A89: an origin that never ends', () => {
  /** Writes for as long as the other side takes it. */
  async function forever(socket: Socket, text: string): Promise<void> {
    const piece = Buffer.from(text.repeat(Math.ceil(65_536 / text.length)), 'latin1');
    while (!socket.destroyed && socket.writable) {
      if (socket.write(piece)) await new Promise(resolve => setImmediate(resolve));
      else await drained(socket);
    }
  }

  /** Begins an answer so, and never ends it. */
  const startEndless = (begin: string, more: string) =>
    startRawOrigin(async peer => {
      await peer.readUntil('\r\n\r\n');
      peer.write(begin);
      await forever(peer.socket, more);
    });

  test.each([
    ['fields', 'HTTP/1.1 200 OK\r\n', 'X-More: and more\r\n', 502],
    ['one field', 'HTTP/1.1 200 OK\r\nX: ', 'endless', 502],
    ['a reason phrase', 'HTTP/1.1 200 ', 'endless', 502],
    ['interim answers', '', 'HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n', null],
    ['100s', '', 'HTTP/1.1 100 Continue\r\n\r\n', null],
    ['empty lines', '', '\r\n', 502],
  ])('A89: endless %s are cut short, in flat memory', async (_, begin, more, status) => {
    await using origin = await startEndless(begin, more);
    await using companion = await spawnCompanion();
    const before = await companion.held();
    for (let i = 0; i < 20; i++) {
      await using client = await connectRaw(companion.port);
      client.write(get(origin.url('/')));
      let answer = await client.readAnswer();
      while (answer.status < 200) answer = await client.readAnswer();
      expect(answer.status).toBe(status ?? 502);
    }
    await until(() => origin.open.size === 0);
    expect((await companion.held()) - before).toBeLessThan(2 * MiB);
  });

  test.each([
    ['chunk extensions', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;', 'a=b;'],
    ['trailers', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n', 'X-More: and more\r\n'],
  ])('A89: endless %s end the answer, in flat memory', async (_, begin, more) => {
    await using origin = await startEndless(begin, more);
    await using companion = await spawnCompanion();
    const before = await companion.held();
    for (let i = 0; i < 20; i++) {
      await using client = await connectRaw(companion.port);
      client.write(get(origin.url('/')));
      const all = (await client.readAll()).toString('latin1');
      expect(all.endsWith('0\r\n\r\n')).toBe(false);
    }
    await until(() => origin.open.size === 0);
    expect((await companion.held()) - before).toBeLessThan(2 * MiB);
  });

  test('A89: an endless body without a length waits for a slow reader, and takes no memory', async () => {
    let sent = 0;
    const piece = Buffer.alloc(256 * 1024, 'x');
    await using origin = await startRawOrigin(async peer => {
      await peer.readUntil('\r\n\r\n');
      peer.write('HTTP/1.1 200 OK\r\n\r\n');
      while (!peer.socket.destroyed) {
        sent += piece.length;
        if (!peer.socket.write(piece)) await drained(peer.socket);
      }
    });
    await using companion = await spawnCompanion();
    const before = companion.memory();
    const sockets = await Promise.all(Array.from({ length: 20 }, () => join(companion.port)));
    let read = 0;
    for (const socket of sockets) {
      socket.write(get(origin.url('/')));
      socket.on('data', (data: Buffer) => {
        read += data.length;
        socket.pause();
        setTimeout(() => socket.resume(), 50);
      });
    }
    await wait(3_000);
    const soon = companion.memory();
    await wait(4_000);
    // The kernel's buffers on both sides hold some MiB a connection; the companion does not.
    expect(sent - read).toBeLessThan(20 * 16 * MiB);
    expect(read).toBeGreaterThan(20 * 64 * 1024);
    // Garbage of the reads is collected by the system's own lights, some tens of MiB late; it does not grow.
    expect(soon - before).toBeLessThan(128 * MiB);
    expect(companion.memory() - soon).toBeLessThan(32 * MiB);
    for (const socket of sockets) socket.destroy();
    await until(() => origin.open.size === 0);
  });
});
