// One request of the origin for many clients, over real sockets: who waits for whom, what is shared, and what happens when somebody leaves, stalls or fails.
import type { ServerResponse } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import fc from 'fast-check';
import { describe, expect, test, vi } from 'vitest';
import { type CacheLimits, createCache, type SharedCache } from '../../../companion/cache/cache.ts';
import type { DiskStore } from '../../../companion/cache/disk-store.ts';
import { type Flight, InFlight, type Word } from '../../../companion/cache/in-flight.ts';
import { Fields } from '../../../companion/message/headers.ts';
import { cacheLimits } from '../../support/cache-limits.ts';
import { diskIn, tempFolder } from '../../support/disk-cache.ts';
import { startOrigin, startRawOrigin } from '../../support/origin.ts';
import { connectRaw, type RawClient } from '../../support/raw-client.ts';
import { steered } from '../../support/steered.ts';
import { startProxy } from '../../support/with-proxy.ts';

const KiB = 1024;
const LIMITS = cacheLimits({
  memory: 8192 * KiB,
  entry: 2048 * KiB,
  finish: 64 * KiB,
  collapse: 'on',
  collapseWait: 5,
});

/** How many answers its cache has. */
function countIn({ rooms }: { readonly rooms: { readonly cache: object } }): number {
  return (rooms.cache as SharedCache).inventory.holdings().memory.entries;
}

function startCaching(more: Partial<CacheLimits> = {}, now = Date.now, disk: DiskStore | null = null) {
  return startProxy({
    rooms: {
      now,
      cache: createCache({ ...LIMITS, ...more }, undefined, disk),
      decide: () => steered(),
    },
  });
}

/** Asks on a connection of its own. */
async function ask(port: number, url: string, fields = ''): Promise<RawClient> {
  const client = await connectRaw(port);
  client.write(`GET ${url} HTTP/1.1\r\nHost: x\r\n${fields}\r\n`);
  return client;
}

/** So many who ask, all of them heard by the proxy. */
async function askMany(count: number, port: number, url: string, fields: (i: number) => string = () => '') {
  const clients = [];
  for (let i = 0; i < count; i++) clients.push(await ask(port, url, fields(i)));
  await sleep(60);
  return clients;
}

async function until(holds: () => boolean, deadline = 4_000): Promise<void> {
  for (const end = Date.now() + deadline; !holds(); await sleep(5)) {
    if (Date.now() > end) throw new Error('it did not come to that');
  }
}

const close = (clients: readonly RawClient[]) => {
  for (const one of clients) one.close();
};

/** A client that is gone for good: one that only closes could be listening still. */
const leave = (client: RawClient) => void client.socket.resetAndDestroy();

/** An origin whose answers are the test's to give. */
async function startHeldOrigin() {
  const held: ServerResponse[] = [];
  const origin = await startOrigin((_, response) => void held.push(response));
  return { origin, held, [Symbol.asyncDispose]: () => origin[Symbol.asyncDispose]() };
}

/** Numbers from 0 to 1, the same in every run. */
function seeded(state: number): () => number {
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

const FRESH = { 'Cache-Control': 'max-age=60' };

describe('many ask for the same', () => {
  test('A71: fifty followers are one request of the origin, and get the same', async () => {
    await using held = await startHeldOrigin();
    await using proxy = await startCaching();
    const clients = await askMany(51, proxy.port, held.origin.url('/x'));
    expect(held.origin.requests).toHaveLength(1);
    held.held[0]!.writeHead(200, FRESH).end('one for all');
    const answers = await Promise.all(clients.map(client => client.readAnswer()));
    for (const answer of answers) expect(answer.text).toBe('one for all');
    expect(answers[0]!.headers['cache-status']).toBe('detour; fwd=uri-miss; stored');
    for (const answer of answers.slice(1)) {
      expect(answer.headers['cache-status']).toBe('detour; fwd=uri-miss; collapsed');
      // The time that their question took counts into it (RFC 9111 §4.2.3).
      expect(answer.headers['age']).toMatch(/^\d{1,2}$/);
    }
    expect(held.origin.requests).toHaveLength(1);
    close(clients);
  });

  test('A71: they get a body while it comes, where its length is known', async () => {
    await using held = await startHeldOrigin();
    await using proxy = await startCaching();
    const clients = await askMany(4, proxy.port, held.origin.url('/x'));
    const [response] = held.held;
    response!.writeHead(200, { ...FRESH, 'Content-Length': '10' }).write('12345');
    for (const client of clients) expect((await client.readUntil('12345')).startsWith('HTTP/1.1 200')).toBe(true);
    const late = await ask(proxy.port, held.origin.url('/x'));
    expect(await late.readUntil('12345')).toContain('fwd=uri-miss; collapsed');
    response!.end('67890');
    for (const client of [...clients, late]) expect(String(await client.read(5))).toBe('67890');
    expect(held.origin.requests).toHaveLength(1);
    close([...clients, late]);
  });

  test('A71: where it is not, they get it when it is whole', async () => {
    await using held = await startHeldOrigin();
    await using proxy = await startCaching();
    const clients = await askMany(3, proxy.port, held.origin.url('/x'));
    const [response] = held.held;
    response!.writeHead(200, FRESH).write('12345');
    await clients[0]!.readUntil('12345');
    expect(clients[1]!.peek()).toHaveLength(0);
    response!.end('67890');
    for (const client of clients.slice(1)) expect((await client.readAnswer()).text).toBe('1234567890');
    expect(held.origin.requests).toHaveLength(1);
    close(clients);
  });

  test('A71: a leader that leaves behind a body of unknown length does not take it from them', async () => {
    await using held = await startHeldOrigin();
    await using proxy = await startCaching();
    const clients = await askMany(3, proxy.port, held.origin.url('/x'));
    const [response] = held.held;
    response!.writeHead(200, FRESH).write('12345');
    await clients[0]!.readUntil('12345');
    leave(clients[0]!);
    await sleep(50);
    response!.end('67890');
    for (const client of clients.slice(1)) expect((await client.readAnswer()).text).toBe('1234567890');
    expect(held.origin.requests).toHaveLength(1);
    close(clients);
  });

  test('the 304 that a follower has a condition for is made here', async () => {
    await using held = await startHeldOrigin();
    await using proxy = await startCaching();
    const clients = await askMany(2, proxy.port, held.origin.url('/x'), i => (i === 0 ? '' : 'If-None-Match: "a"\r\n'));
    held.held[0]!.writeHead(200, { ...FRESH, ETag: '"a"' }).end('body');
    expect((await clients[0]!.readAnswer()).status).toBe(200);
    expect((await clients[1]!.readAnswer()).status).toBe(304);
    expect(held.origin.requests).toHaveLength(1);
    close(clients);
  });
});

describe('what is not shared', () => {
  test.each([
    ['private', 200, { 'Cache-Control': 'private, max-age=60' }],
    ['no-store', 200, { 'Cache-Control': 'no-store' }],
    ['an error without freshness', 503, {}],
    ['Vary: *', 200, { ...FRESH, Vary: '*' }],
    ['no-cache without a validator', 200, { 'Cache-Control': 'no-cache' }],
  ])('A71: %s: each asks for itself', async (_, status, fields) => {
    await using held = await startHeldOrigin();
    await using proxy = await startCaching();
    const clients = await askMany(4, proxy.port, held.origin.url('/x'));
    held.held[0]!.writeHead(status, fields as Record<string, string>).end('0');
    await until(() => held.held.length === 4);
    for (let i = 1; i < 4; i++) held.held[i]!.writeHead(status, fields as Record<string, string>).end(String(i));
    const texts = await Promise.all(clients.map(async client => (await client.readAnswer()).text));
    expect(texts.toSorted()).toEqual(['0', '1', '2', '3']);
    expect(texts[0]).toBe('0');
    close(clients);
  });

  test('A71, A68: with another Vary each gets its own, with the same they share', async () => {
    await using origin = await startOrigin(async (request, response) => {
      await sleep(80);
      response.writeHead(200, { ...FRESH, Vary: 'Accept-Language' }).end(request.headers['accept-language']);
    });
    await using proxy = await startCaching();
    const clients = await askMany(6, proxy.port, origin.url('/x'), i => `Accept-Language: ${i % 2 ? 'de' : 'en'}\r\n`);
    const texts = await Promise.all(clients.map(async client => (await client.readAnswer()).text));
    expect(texts).toEqual(['en', 'de', 'en', 'de', 'en', 'de']);
    expect(origin.requests.filter(one => one.headers['accept-language'] === 'en')).toHaveLength(1);
    close(clients);
  });

  test('A71: where variants are known, who asks for another of them waits for whoever asks for that one', async () => {
    await using held = await startHeldOrigin();
    await using proxy = await startCaching();
    const url = held.origin.url('/x');
    const say = (i: number) =>
      held.held[i]!.writeHead(200, { ...FRESH, Vary: 'Accept-Language' }).end(
        held.origin.requests[i]!.headers['accept-language'],
      );
    const first = await ask(proxy.port, url, 'Accept-Language: en\r\n');
    await until(() => held.held.length === 1);
    say(0);
    await first.readAnswer();
    const clients = await askMany(6, proxy.port, url, i => `Accept-Language: ${i % 2 ? 'de' : 'fr'}\r\n`);
    expect(held.held).toHaveLength(3);
    say(2);
    say(1);
    const texts = await Promise.all(clients.map(async client => (await client.readAnswer()).text));
    expect(texts).toEqual(['fr', 'de', 'fr', 'de', 'fr', 'de']);
    expect(held.origin.requests).toHaveLength(3);
    close([first, ...clients]);
  });

  test.each([
    ['credentials', 'Authorization: Basic eDp5\r\n'],
    ['a range', 'Range: bytes=0-1\r\n'],
    ['no-store', 'Cache-Control: no-store\r\n'],
    ['no-cache', 'Cache-Control: no-cache\r\n'],
    ['a condition for the origin', 'If-Match: "x"\r\n'],
  ])('who asks with %s waits for nobody', async (_, fields) => {
    await using held = await startHeldOrigin();
    await using proxy = await startCaching();
    const first = await ask(proxy.port, held.origin.url('/x'));
    await until(() => held.held.length === 1);
    const second = await ask(proxy.port, held.origin.url('/x'), fields);
    await until(() => held.held.length === 2);
    held.held[1]!.end('second');
    expect((await second.readAnswer()).text).toBe('second');
    close([first, second]);
  });

  test('another method, another URL and another site wait for nobody', async () => {
    await using held = await startHeldOrigin();
    await using proxy = await startCaching();
    const clients = [await ask(proxy.port, held.origin.url('/x'))];
    await until(() => held.held.length === 1);
    clients.push(await ask(proxy.port, held.origin.url('/y')));
    clients.push(await ask(proxy.port, held.origin.url('/x'), 'Referer: http://other.test/\r\n'));
    const post = await connectRaw(proxy.port);
    post.write(`POST ${held.origin.url('/x')} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n`);
    await until(() => held.held.length === 4);
    close([...clients, post]);
  });

  test('A76: who asks after an unsafe method does not get what was asked for before it', async () => {
    await using held = await startHeldOrigin();
    await using proxy = await startCaching();
    const before = await ask(proxy.port, held.origin.url('/x'));
    await until(() => held.held.length === 1);
    const post = await connectRaw(proxy.port);
    post.write(`POST ${held.origin.url('/x')} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n`);
    await until(() => held.held.length === 2);
    held.held[1]!.end('done');
    await post.readAnswer();
    const after = await ask(proxy.port, held.origin.url('/x'));
    await until(() => held.held.length === 3);
    held.held[0]!.writeHead(200, FRESH).end('old');
    held.held[2]!.writeHead(200, FRESH).end('new');
    expect((await before.readAnswer()).text).toBe('old');
    expect((await after.readAnswer()).text).toBe('new');
    const later = await ask(proxy.port, held.origin.url('/x'));
    expect((await later.readAnswer()).text).toBe('new');
    close([before, post, after, later]);
  });
});

describe('a leader that does not get there', () => {
  test('A72: when its client leaves before the head, one of the others leads', async () => {
    await using held = await startHeldOrigin();
    await using proxy = await startCaching();
    const clients = await askMany(5, proxy.port, held.origin.url('/x'));
    leave(clients[0]!);
    await until(() => held.held.length === 2);
    await sleep(50);
    expect(held.held).toHaveLength(2);
    held.held[1]!.writeHead(200, FRESH).end('second');
    for (const client of clients.slice(1)) expect((await client.readAnswer()).text).toBe('second');
    expect(held.origin.requests).toHaveLength(2);
    close(clients);
  });

  test('A72: when several leave, the first that is still there leads', async () => {
    await using held = await startHeldOrigin();
    await using proxy = await startCaching();
    const clients = await askMany(5, proxy.port, held.origin.url('/x'));
    for (const i of [1, 2, 0]) {
      leave(clients[i]!);
      await sleep(30);
    }
    await until(() => held.held.length === 2);
    held.held[1]!.writeHead(200, FRESH).end('second');
    for (const client of clients.slice(3)) expect((await client.readAnswer()).text).toBe('second');
    expect(held.origin.requests).toHaveLength(2);
    close(clients);
  });

  test('A72: when its client leaves in the middle of the body, the others get all of it', async () => {
    await using held = await startHeldOrigin();
    await using proxy = await startCaching();
    const clients = await askMany(3, proxy.port, held.origin.url('/x'));
    const body = 'x'.repeat(1024 * KiB);
    held.held[0]!.writeHead(200, { ...FRESH, 'Content-Length': String(body.length) }).write(body.slice(0, 1000));
    for (const client of clients) await client.readUntil('xxx');
    leave(clients[0]!);
    await sleep(50);
    held.held[0]!.end(body.slice(1000));
    for (const client of clients.slice(1)) expect(await client.read(body.length - 3)).toHaveLength(body.length - 3);
    const next = await ask(proxy.port, held.origin.url('/x'));
    expect((await next.readAnswer()).headers['cache-status']).toContain('hit');
    expect(held.origin.requests).toHaveLength(1);
    close([...clients, next]);
  });

  test('A72: when the origin breaks off before the head, the next one asks, and not all', async () => {
    await using origin = await startRawOrigin(async (peer, index) => {
      await peer.readUntil('\r\n\r\n');
      await sleep(80);
      if (index < 2) return peer.socket.resetAndDestroy();
      peer.write('HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 5\r\n\r\nthird');
    });
    await using proxy = await startCaching();
    const clients = await askMany(10, proxy.port, origin.url('/x'));
    const answers = await Promise.all(clients.map(client => client.readAnswer()));
    expect(answers.map(one => one.status)).toEqual([502, 502, ...Array.from({ length: 8 }, () => 200)]);
    expect(origin.accepted).toBe(3);
    close(clients);
  });

  test('A72, A73: when the body breaks off, who had begun to get it hears so, and nothing is stored', async () => {
    await using origin = await startRawOrigin(async (peer, index) => {
      await peer.readUntil('\r\n\r\n');
      await sleep(80);
      peer.write('HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 10\r\n\r\n12345');
      if (index === 0) {
        await sleep(50);
        peer.socket.resetAndDestroy();
      } else peer.write('67890');
    });
    await using proxy = await startCaching();
    const clients = await askMany(3, proxy.port, origin.url('/x'));
    for (const client of clients) {
      await client.readUntil('12345');
      expect(await client.readAll()).toHaveLength(0);
    }
    expect(countIn(proxy)).toBe(0);
    const next = await ask(proxy.port, origin.url('/x'));
    expect((await next.readAnswer()).text).toBe('1234567890');
    close([...clients, next]);
  });

  test('A72, R43: a chunked body that breaks off leads to the next leader for those who waited for the whole', async () => {
    await using origin = await startRawOrigin(async (peer, index) => {
      await peer.readUntil('\r\n\r\n');
      await sleep(80);
      peer.write('HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n');
      await sleep(50);
      if (index === 0) peer.socket.destroy();
      else peer.write('5\r\n67890\r\n0\r\n\r\n');
    });
    await using proxy = await startCaching();
    const clients = await askMany(4, proxy.port, origin.url('/x'));
    await expect(clients[0]!.readAnswer()).rejects.toThrow('ended before');
    for (const client of clients.slice(1)) expect((await client.readAnswer()).text).toBe('1234567890');
    expect(origin.accepted).toBe(2);
    close(clients);
  });

  test('A72: when it stalls, another asks, and then all do; whoever comes first is there for all', async () => {
    await using held = await startHeldOrigin();
    await using proxy = await startCaching({ collapseWait: 0.3 });
    const clients = await askMany(5, proxy.port, held.origin.url('/x'));
    await until(() => held.held.length === 2, 1_000);
    expect(held.held).toHaveLength(2);
    held.held[1]!.writeHead(200, FRESH).end('second');
    for (const client of clients.slice(1)) expect((await client.readAnswer()).text).toBe('second');
    expect(held.origin.requests).toHaveLength(2);
    close(clients);

    const stalled = await askMany(4, proxy.port, held.origin.url('/y'));
    await until(() => held.held.length === 6, 2_000);
    close(stalled);
  });
});

test('A72, A73, R43: whoever leaves and whatever breaks off, at any moment, all others get a whole answer or hear that it is none', async () => {
  const random = seeded(20_261_124);
  const body = Buffer.alloc(300 * KiB, 'abcdefghijk');
  await using origin = await startRawOrigin(async peer => {
    for (;;) {
      await peer.readUntil('\r\n\r\n');
      await sleep(random() * 40);
      if (random() < 0.15) return peer.socket.resetAndDestroy();
      const chunked = random() < 0.4;
      const fields = random() < 0.2 ? 'Cache-Control: no-store\r\n' : 'Cache-Control: max-age=60\r\n';
      peer.write(
        `HTTP/1.1 200 OK\r\n${fields}${chunked ? 'Transfer-Encoding: chunked' : `Content-Length: ${body.length}`}\r\n\r\n`,
      );
      const breaksAt = random() < 0.3 ? random() * body.length : Infinity;
      for (let at = 0; at < body.length; at += 50 * KiB) {
        if (at > breaksAt) return random() < 0.5 ? peer.socket.resetAndDestroy() : peer.end();
        const piece = body.subarray(at, at + 50 * KiB);
        if (chunked) peer.write(`${piece.length.toString(16)}\r\n`);
        peer.write(piece);
        if (chunked) peer.write('\r\n');
        if (random() < 0.5) await sleep(random() * 10);
      }
      if (chunked) peer.write('0\r\n\r\n');
    }
  });
  await using proxy = await startCaching({ collapseWait: 0.3 });
  let whole = 0;
  for (let round = 0; round < 25; round++) {
    const url = origin.url(`/${round % 20}`);
    await Promise.all(
      Array.from({ length: 8 }, async () => {
        await sleep(random() * 60);
        await using client = await ask(proxy.port, url);
        if (random() < 0.3) {
          await sleep(random() * 80);
          return leave(client);
        }
        if (random() < 0.2) {
          client.socket.pause();
          setTimeout(() => client.socket.resume(), 100);
        }
        let answer;
        try {
          answer = await client.readAnswer();
        } catch (error) {
          expect(String(error)).toContain('the connection ended before');
          return;
        }
        if (answer.status === 502) return;
        expect(answer.status).toBe(200);
        expect(answer.body.equals(body)).toBe(true);
        whole++;
      }),
    );
  }
  expect(whole).toBeGreaterThan(25);
}, 30_000);

describe('at its own pace', () => {
  test('A72: a leader that reads nothing holds up neither the store nor those who wait', async () => {
    const body = Buffer.alloc(1536 * KiB, 'abcdefghij');
    await using origin = await startOrigin(async (_, response) => {
      await sleep(80);
      response.writeHead(200, { ...FRESH, 'Content-Length': String(body.length) }).end(body);
    });
    await using proxy = await startCaching();
    const leader = await ask(proxy.port, origin.url('/x'));
    leader.socket.pause();
    const followers = await askMany(5, proxy.port, origin.url('/x'));
    for (const client of followers) expect((await client.readAnswer()).body.equals(body)).toBe(true);
    const next = await ask(proxy.port, origin.url('/x'));
    const answer = await next.readAnswer();
    expect(answer.headers['cache-status']).toContain('hit');
    expect(answer.body.equals(body)).toBe(true);
    leader.socket.resume();
    expect((await leader.readAnswer()).body.equals(body)).toBe(true);
    expect(origin.requests).toHaveLength(1);
    close([leader, ...followers, next]);
  });

  test('a hundred slow followers share one copy of the body', async () => {
    const body = Buffer.alloc(2048 * KiB, 'abcdefghij');
    await using origin = await startOrigin(async (_, response) => {
      await sleep(400);
      response.writeHead(200, { ...FRESH, 'Content-Length': String(body.length) }).end(body);
    });
    await using proxy = await startCaching();
    const clients = await askMany(101, proxy.port, origin.url('/x'));
    for (const client of clients) client.socket.pause();
    const before = process.memoryUsage().arrayBuffers;
    await until(() => countIn(proxy) === 1);
    await sleep(50);
    // A copy for each would be 200 MiB.
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(48 * 1024 * KiB);
    for (const client of clients.slice(0, 5)) {
      client.socket.resume();
      expect((await client.readAnswer()).body.equals(body)).toBe(true);
    }
    expect(origin.requests).toHaveLength(1);
    close(clients);
  });

  test('what a client leaves is fetched to its end when little is missing, and the next gets a hit', async () => {
    await using held = await startHeldOrigin();
    await using proxy = await startCaching();
    const client = await ask(proxy.port, held.origin.url('/x'));
    await until(() => held.held.length === 1);
    held.held[0]!.writeHead(200, { ...FRESH, 'Content-Length': String(40 * KiB) }).write('a'.repeat(10 * KiB));
    await client.readUntil('aaa');
    leave(client);
    await sleep(50);
    held.held[0]!.end('a'.repeat(30 * KiB));
    await until(() => countIn(proxy) === 1);
    const next = await ask(proxy.port, held.origin.url('/x'));
    const answer = await next.readAnswer();
    expect(answer.headers['cache-status']).toMatch(/^detour; hit; ttl=/);
    expect(answer.body).toHaveLength(40 * KiB);
    close([next]);
  });

  test('and not when much is: the origin is told', async () => {
    await using held = await startHeldOrigin();
    await using proxy = await startCaching();
    const client = await ask(proxy.port, held.origin.url('/x'));
    await until(() => held.held.length === 1);
    held.held[0]!.writeHead(200, { ...FRESH, 'Content-Length': String(400 * KiB) }).write('a');
    await client.readUntil('\r\n\r\na');
    leave(client);
    await until(() => held.origin.open.size === 0);
    expect(countIn(proxy)).toBe(0);
  });
});

describe('too large for memory', () => {
  const body = Buffer.alloc(3072 * KiB, 'abcdefghijklm');

  test.each([
    ['of known length', { 'Content-Length': String(body.length) }],
    ['of unknown length', {}],
  ])('a body %s goes to the disk while it passes, and comes from there', async (_, fields) => {
    using place = tempFolder();
    await using disk = diskIn(place.path);
    await using origin = await startOrigin((_request, response) =>
      response.writeHead(200, { ...FRESH, ...fields }).end(body),
    );
    await using proxy = await startCaching({}, Date.now, disk.store);
    await using client = await ask(proxy.port, origin.url('/x'));
    const first = await client.readAnswer();
    expect(first.headers['cache-status']).toBe('detour; fwd=uri-miss; stored');
    expect(first.body.equals(body)).toBe(true);
    await disk.store.settled();
    client.write(`GET ${origin.url('/x')} HTTP/1.1\r\nHost: x\r\n\r\n`);
    const second = await client.readAnswer();
    expect(second.headers['cache-status']).toMatch(/^detour; hit; ttl=\d+$/);
    expect(second.body.equals(body)).toBe(true);
    expect(origin.requests).toHaveLength(1);
  });

  test('a slow client gets all of it, and so does the disk; nobody waits for it (A71)', async () => {
    using place = tempFolder();
    await using disk = diskIn(place.path);
    await using origin = await startOrigin(async (_, response) => {
      await sleep(80);
      response.writeHead(200, { ...FRESH, 'Content-Length': String(body.length) }).end(body);
    });
    await using proxy = await startCaching({ collapseWait: 60 }, Date.now, disk.store);
    const clients = await askMany(3, proxy.port, origin.url('/x'));
    clients[0]!.socket.pause();
    for (const client of clients.slice(1)) expect((await client.readAnswer()).body.equals(body)).toBe(true);
    expect(origin.requests).toHaveLength(3);
    clients[0]!.socket.resume();
    expect((await clients[0]!.readAnswer()).body.equals(body)).toBe(true);
    await disk.store.settled();
    await using next = await ask(proxy.port, origin.url('/x'));
    expect((await next.readAnswer()).headers['cache-status']).toContain('hit');
    close(clients);
  });

  test('A73: what breaks off or is left leaves nothing; with little missing it is fetched to its end', async () => {
    using place = tempFolder();
    await using disk = diskIn(place.path);
    await using held = await startHeldOrigin();
    await using proxy = await startCaching({}, Date.now, disk.store);
    const head = { ...FRESH, 'Content-Length': String(body.length) };
    const got = async (path: string, bytes: number) => {
      const client = await ask(proxy.port, held.origin.url(path));
      await until(() => held.origin.requests.at(-1)?.url === path);
      const response = held.held.at(-1)!;
      response.writeHead(200, head).write(body.subarray(0, bytes));
      await client.readUntil('\r\n\r\n');
      await client.read(bytes);
      return { client, response };
    };
    const broken = await got('/broken', 2048 * KiB);
    broken.response.destroy();
    expect(await broken.client.readAll()).toHaveLength(0);
    const left = await got('/left', 1024 * KiB);
    leave(left.client);
    await until(() => left.response.destroyed);
    const nearly = await got('/nearly', body.length - 10);
    leave(nearly.client);
    await sleep(50);
    nearly.response.end(body.subarray(-10));
    await sleep(50);
    await disk.store.settled();
    for (const path of ['/broken', '/left']) expect(disk.store.get(held.origin.url(path), false)).toEqual([]);
    expect(disk.store.get(held.origin.url('/nearly'), false)).toHaveLength(1);
    close([broken.client]);
  });
});

describe('behind a stale answer', () => {
  const SWR = { 'Cache-Control': 'max-age=10, stale-while-revalidate=60', ETag: '"1"' };
  /** Of the proxy's time. */
  const dated = (now: number, fields: Record<string, string> = SWR) => ({
    ...fields,
    Date: new Date(now).toUTCString(),
  });

  /** A proxy that has the answer stored, and stale by now. */
  async function startStale(more: Partial<CacheLimits> = {}) {
    const held = await startHeldOrigin();
    let later = 0;
    const proxy = await startCaching(more, () => Date.now() + later);
    const url = held.origin.url('/x');
    const first = await ask(proxy.port, url);
    await until(() => held.held.length === 1);
    held.held[0]!.writeHead(200, dated(Date.now())).end('old');
    await first.readAnswer();
    first.close();
    later = 15_000;
    return {
      ...held,
      proxy,
      url,
      pass: (ms: number) => void (later += ms),
      now: () => Date.now() + later,
      async [Symbol.asyncDispose]() {
        await proxy[Symbol.asyncDispose]();
        await held[Symbol.asyncDispose]();
      },
    };
  }

  test('many who ask get it at once, and the origin is asked exactly once (RFC 5861 §3)', async () => {
    await using stale = await startStale();
    const { proxy, url, held } = stale;
    const clients = await askMany(20, proxy.port, url);
    for (const client of clients) {
      const answer = await client.readAnswer();
      expect(answer.text).toBe('old');
      expect(answer.headers['cache-status']).toMatch(/^detour; hit; ttl=-\d+; detail=stale-while-revalidate$/);
    }
    await until(() => held.length === 2);
    await sleep(50);
    expect(stale.origin.requests).toHaveLength(2);
    expect(stale.origin.requests[1]!.headers['if-none-match']).toBe('"1"');
    held[1]!.writeHead(200, dated(stale.now(), { ...SWR, ETag: '"2"' })).end('new');
    const behind = await proxy.exchange(21);
    expect(behind).toMatchObject({ status: 200, url, bytesDown: 3 });
    expect(behind.cacheStatus).toContain('detail=stale-while-revalidate');
    const next = await ask(proxy.port, url);
    const answer = await next.readAnswer();
    expect(answer.text).toBe('new');
    expect(answer.headers['cache-status']).toMatch(/^detour; hit; ttl=\d+$/);
    expect(stale.origin.requests).toHaveLength(2);
    close([...clients, next]);
  });

  test('a 304 makes it fresh again; a failure leaves it as it is, and the next one has it tried again', async () => {
    await using stale = await startStale();
    const { proxy, url, held } = stale;
    const client = await ask(proxy.port, url);
    expect((await client.readAnswer()).text).toBe('old');
    await until(() => held.length === 2);
    held[1]!.writeHead(503).end();
    await proxy.exchange(2);
    client.write(`GET ${url} HTTP/1.1\r\nHost: x\r\n\r\n`);
    expect((await client.readAnswer()).headers['cache-status']).toContain('stale-while-revalidate');
    await until(() => held.length === 3);
    held[2]!.writeHead(304, dated(stale.now())).end();
    await proxy.exchange(4);
    client.write(`GET ${url} HTTP/1.1\r\nHost: x\r\n\r\n`);
    const fresh = await client.readAnswer();
    expect(fresh.text).toBe('old');
    expect(fresh.headers['cache-status']).toMatch(/^detour; hit; ttl=\d+$/);
    expect(stale.origin.requests).toHaveLength(3);
    client.close();
  });

  test('is not asked for a second time while its body comes', async () => {
    await using stale = await startStale();
    const { proxy, url, held } = stale;
    const client = await ask(proxy.port, url);
    await client.readAnswer();
    await until(() => held.length === 2);
    held[1]!.writeHead(200, dated(stale.now(), { ...SWR, 'Content-Length': '6' })).write('123');
    await sleep(50);
    client.write(`GET ${url} HTTP/1.1\r\nHost: x\r\n\r\n`);
    expect((await client.readAnswer()).text).toBe('old');
    await sleep(50);
    expect(held).toHaveLength(2);
    held[1]!.end('456');
    await proxy.exchange(3);
    client.write(`GET ${url} HTTP/1.1\r\nHost: x\r\n\r\n`);
    expect((await client.readAnswer()).text).toBe('123456');
    client.close();
  });

  test('A72: where the origin has gone, one finds out, and all get the stale answer', async () => {
    await using stale = await startStale();
    const { proxy, url, held } = stale;
    stale.pass(100_000);
    const clients = await askMany(10, proxy.port, url);
    expect(held).toHaveLength(2);
    await stale.origin[Symbol.asyncDispose]();
    for (const client of clients) {
      const answer = await client.readAnswer();
      expect([answer.status, answer.text]).toEqual([200, 'old']);
      expect(answer.headers['cache-status']).toMatch(/^detour; hit; ttl=-\d+; detail=offline$/);
    }
    close(clients);
  });

  test('what may only be used once it is confirmed is not shared: the others ask by its validator (A71)', async () => {
    await using held = await startHeldOrigin();
    await using proxy = await startCaching();
    const clients = await askMany(4, proxy.port, held.origin.url('/x'));
    const fields = { 'Cache-Control': 'no-cache', ETag: '"1"' };
    held.held[0]!.writeHead(200, fields).end('body');
    await until(() => held.held.length === 4);
    for (const response of held.held.slice(1)) response.writeHead(304, fields).end();
    for (const client of clients) expect((await client.readAnswer()).text).toBe('body');
    for (const request of held.origin.requests.slice(1)) expect(request.headers['if-none-match']).toBe('"1"');
    close(clients);
  });

  test('beyond its window many who ask are one validation, and share its 304', async () => {
    await using stale = await startStale();
    const { proxy, url, held } = stale;
    stale.pass(100_000);
    const clients = await askMany(10, proxy.port, url);
    expect(held).toHaveLength(2);
    held[1]!.writeHead(304, dated(stale.now())).end();
    const answers = await Promise.all(clients.map(client => client.readAnswer()));
    for (const answer of answers) expect([answer.status, answer.text]).toEqual([200, 'old']);
    expect(answers[0]!.headers['cache-status']).toContain('fwd=stale; fwd-status=304');
    for (const answer of answers.slice(1)) expect(answer.headers['cache-status']).toContain('collapsed');
    expect(stale.origin.requests).toHaveLength(2);
    close(clients);
  });
});

describe('through the cache', () => {
  test.each([
    ['at once', 0],
    ['a moment later', 60],
  ])(
    'R40: what comes behind its length (%s) is no part of the answer, which is whole; its connection is not used again',
    async (_, later) => {
      await using origin = await startRawOrigin(async (peer, index) => {
        await peer.readUntil('\r\n\r\n');
        const head = 'HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 5\r\n\r\n';
        if (later === 0) return peer.write(`${head}12345HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil`);
        peer.write(`${head}${index}`);
        await sleep(later);
        peer.write('2345HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil');
      });
      await using proxy = await startCaching();
      const client = await ask(proxy.port, origin.url('/x'));
      expect((await client.readAnswer()).text).toMatch(/^.2345$/);
      client.write(`GET ${origin.url('/x')} HTTP/1.1\r\nHost: x\r\n\r\n`);
      const hit = await client.readAnswer();
      expect(hit.headers['cache-status']).toContain('hit');
      expect(hit.body).toHaveLength(5);
      client.write(`GET ${origin.url('/y')} HTTP/1.1\r\nHost: x\r\n\r\n`);
      expect((await client.readAnswer()).text).toMatch(/^.2345$/);
      expect(origin.accepted).toBe(2);
      client.close();
    },
  );

  test('A73: a body shorter than its length is passed on as broken and not stored', async () => {
    await using origin = await startRawOrigin(async peer => {
      await peer.readUntil('\r\n\r\n');
      peer.write('HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 10\r\n\r\n12345');
      peer.end();
    });
    await using proxy = await startCaching();
    const client = await ask(proxy.port, origin.url('/x'));
    await client.readUntil('12345');
    expect(await client.readAll()).toHaveLength(0);
    expect(countIn(proxy)).toBe(0);
  });

  test('interim answers pass on to who asked, and are not stored', async () => {
    await using origin = await startRawOrigin(async peer => {
      await peer.readUntil('\r\n\r\n');
      peer.write('HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nCache-Control: max-age=60\r\n\r\n');
      await sleep(50);
      peer.write('HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 5\r\n\r\nfinal');
    });
    await using proxy = await startCaching();
    const client = await ask(proxy.port, origin.url('/x'));
    expect((await client.readAnswer()).status).toBe(103);
    expect(countIn(proxy)).toBe(0);
    expect((await client.readAnswer()).text).toBe('final');
    client.write(`GET ${origin.url('/x')} HTTP/1.1\r\nHost: x\r\n\r\n`);
    const hit = await client.readAnswer();
    expect(hit.status).toBe(200);
    expect(hit.headers['link']).toBeUndefined();
    client.close();
  });
});

describe('who waits', () => {
  test('A72: is told exactly one word, within twice the wait, whatever the leaders do', () => {
    const step = fc.oneof(
      fc.record({ do: fc.constantFrom('follow', 'failed', 'shared', 'look', 'alone', 'drop') }),
      fc.record({ do: fc.constant('wait'), by: fc.integer({ min: 1, max: 700 }) }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), steps => {
        vi.useFakeTimers();
        try {
          const list = new InFlight<string>();
          const words: (Word | 'taken' | null)[] = [];
          const joined: number[] = [];
          const told: number[] = [];
          let flight: Flight<string> = list.lead('u', 's', new Fields(), 1000);
          let leading = 1;
          for (const each of steps) {
            if (each.do === 'wait') vi.advanceTimersByTime((each as { by: number }).by);
            else if (each.do === 'follow') {
              const i = words.push(null) - 1;
              joined.push(Date.now());
              const tell = (word: Word | 'taken') => {
                expect(words[i]).toBeNull();
                words[i] = word;
                told[i] = Date.now();
                if (word === 'lead') leading++;
              };
              const waits = flight.follow({
                tell,
                take: () => {
                  if (i % 2 === 0) return false;
                  tell('taken');
                  return true;
                },
              });
              if (!waits) {
                tell('alone');
                if (list.find('u', 's', null) === null) {
                  flight = list.lead('u', 's', new Fields(), 1000);
                  leading = 1;
                }
              }
            } else if (each.do === 'failed') {
              if (leading > 0) {
                leading--;
                flight.failed();
              }
            } else if (each.do === 'shared') flight.shared('live');
            else if (each.do === 'drop') list.drop('u');
            else flight.settled(each.do as 'look' | 'alone');
          }
          vi.advanceTimersByTime(2001);
          expect(words).not.toContain(null);
          for (const [i, at] of told.entries()) expect(at - joined[i]!).toBeLessThanOrEqual(2000);
          expect(vi.getTimerCount()).toBe(0);
        } finally {
          vi.useRealTimers();
        }
      }),
      { numRuns: 300 },
    );
  });

  test('is no more than a thousand for one request, and of one URL in one space', () => {
    const list = new InFlight<null>();
    const one = list.lead('u', 'a', new Fields(), 1000);
    const two = list.lead('u', 'b', new Fields(), 1000);
    expect(list.find('u', 'a', null)).toBe(one);
    expect(list.find('u', 'b', null)).toBe(two);
    expect(list.find('v', 'a', null)).toBeNull();
    const follower = { tell: () => {}, take: () => true };
    for (let i = 0; i < 1024; i++) expect(one.follow(follower)).toBe(true);
    expect(one.follow(follower)).toBe(false);
    one.settled('alone');
    expect(list.find('u', 'a', null)).toBeNull();
    expect(list.find('u', 'b', null)).toBe(two);
    two.settled('look');
    expect(list.find('u', 'b', null)).toBeNull();
  });
});
