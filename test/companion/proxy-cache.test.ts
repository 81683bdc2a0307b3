// The walk and its cache, over real sockets: what is asked for behind an answer, what comes in the place of an answer, and what the cache is told.
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { Fields } from '../../companion/message/headers.ts';
import type { Answer, BodySink, BodySource } from '../../companion/message/message.ts';
import type { Ask, Cache, CacheRequest, Found } from '../../companion/rooms.ts';
import { Behind } from '../../companion/upstream/behind.ts';
import type { Fault } from '../../shared/fault.ts';
import { startOrigin, startRawOrigin } from '../support/origin.ts';
import { connectRaw } from '../support/raw-client.ts';
import { startProxy } from '../support/with-proxy.ts';

const GET = (url: string, fields = '') => `GET ${url} HTTP/1.1\r\nHost: x\r\n${fields}\r\n`;

function wholeAnswer(text: string): Answer {
  const body = Buffer.from(text);
  const framing = { kind: 'length', length: body.length } as const;
  return { head: { status: 200, reason: 'OK', version: 11, fields: new Fields(), framing, keepAlive: true }, body };
}

/** A cache that does as it is told and writes down what it hears. */
function scripted(lookup: (request: CacheRequest, ask: Ask) => Found, more: Partial<Cache> = {}) {
  const heard: string[] = [];
  const cache: Cache = {
    lookup: request =>
      lookup(request, { kind: 'ask', request: request.head, status: 'fwd=stale', token: request.url.slice(-2) }),
    store: (ask, answer, { personal = false }) => {
      heard.push(`store ${String(ask.token)} ${answer.head.status}${personal ? ' personal' : ''}`);
      return { answer, status: `${ask.status}; stored` };
    },
    failed: (ask, fault) => {
      heard.push(`failed ${String(ask.token)} ${fault.kind}`);
      return null;
    },
    pass: ask => void heard.push(`pass ${String(ask.token)}`),
    peek: () => '',
    clear: () => {},
    close: async () => {},
    ...more,
  };
  return { cache, heard };
}

const STALE = (_: CacheRequest, ask: Ask): Found => ({
  kind: 'hit',
  answer: wholeAnswer('stale'),
  status: 'hit; ttl=-5; detail=stale-while-revalidate',
  refresh: ask,
});

describe('stale-while-revalidate', () => {
  test('the stale answer goes out at once, and the request behind it is an exchange of its own', async () => {
    await using origin = await startOrigin((_, response) => void setTimeout(() => response.end('fresh'), 150));
    const { cache, heard } = scripted(STALE);
    await using proxy = await startProxy({ rooms: { cache } });
    await using client = await connectRaw(proxy.port);
    const began = Date.now();
    client.write(GET(origin.url('/x')));
    const answer = await client.readAnswer();
    expect(answer.text).toBe('stale');
    expect(Date.now() - began).toBeLessThan(140);
    const first = await proxy.exchange(0);
    expect(first.attempts).toHaveLength(0);
    const behind = await proxy.exchange(1);
    expect(heard).toEqual(['store /x 200']);
    expect(behind).toMatchObject({
      url: origin.url('/x'),
      method: 'GET',
      status: 200,
      cacheStatus: 'fwd=stale; stored; detail=stale-while-revalidate',
      bytesDown: 5,
      bytesUp: 0,
    });
    expect(behind.attempts).toHaveLength(1);
    expect(behind.id).not.toBe(first.id);
  });

  test('it goes on when the client has left, and its body is read to the end only where somebody keeps it', async () => {
    const long = 1024 * 1024;
    await using origin = await startOrigin((request, response) => {
      response.writeHead(200, { 'Content-Length': String(long) });
      if (request.url === '/a') setTimeout(() => response.end(Buffer.alloc(long)), 100);
      else response.write('x');
    });
    let kept = 0;
    const { cache } = scripted(STALE, {
      store: (ask, answer) => {
        if (ask.token !== '/a') return { answer, status: ask.status };
        const source = answer.body as BodySource;
        const counting: BodySource = {
          start: (sink: BodySink) =>
            source.start({
              write: chunk => {
                kept += chunk.length;
                return sink.write(chunk);
              },
              end: trailers => sink.end(trailers),
              fail: error => sink.fail(error),
            }),
          resume: () => source.resume(),
          cancel: () => source.cancel(),
        };
        return { answer: { head: answer.head, body: counting }, status: `${ask.status}; stored` };
      },
    });
    await using proxy = await startProxy({ rooms: { cache } });
    const client = await connectRaw(proxy.port);
    client.write(GET(origin.url('/a')));
    await client.readAnswer();
    client.socket.resetAndDestroy();
    const behind = await proxy.exchange(1);
    expect(behind.fault).toBeUndefined();
    expect(behind.bytesDown).toBe(long);
    expect(kept).toBe(long);

    await using other = await connectRaw(proxy.port);
    other.write(GET(origin.url('/b')));
    await other.readAnswer();
    expect((await proxy.exchange(3)).bytesDown).toBe(0);
    for (let i = 0; i < 50 && origin.open.size > 1; i++) await sleep(20);
    expect(origin.open.size).toBe(1);
  });

  test('R43: when it fails the cache hears so once, and the record says why', async () => {
    await using origin = await startRawOrigin(async (peer, index) => {
      await peer.readUntil('\r\n\r\n');
      if (index > 0) peer.write('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n1234');
      peer.end();
    });
    const { cache, heard } = scripted(STALE);
    const kept: Cache = {
      ...cache,
      store: (ask, answer) => {
        const { status } = cache.store(ask, answer, { requestedAt: 0, respondedAt: 0 });
        const source = answer.body as BodySource;
        const passing = { start: (sink: BodySink) => source.start(sink), resume() {}, cancel: () => source.cancel() };
        return { answer: { head: answer.head, body: passing }, status };
      },
    };
    await using proxy = await startProxy({ rooms: { cache: kept } });
    await using client = await connectRaw(proxy.port);
    client.write(GET(origin.url('/x')));
    expect((await client.readAnswer()).text).toBe('stale');
    expect(await proxy.exchange(1)).toMatchObject({ status: null, fault: 'connection_terminated' });
    expect(heard).toEqual(['failed /x connection_terminated']);
    client.write(GET(origin.url('/y')));
    await client.readAnswer();
    expect(await proxy.exchange(3)).toMatchObject({ status: 200, fault: 'http_response_incomplete' });
    expect(heard).toEqual(['failed /x connection_terminated', 'store /y 200']);
  });

  test('there are no more than 64 at once, and all end with the companion', async () => {
    await using origin = await startOrigin(() => {});
    const { cache, heard } = scripted(STALE);
    const behind = new Behind();
    await using proxy = await startProxy({ rooms: { cache, behind } });
    await using client = await connectRaw(proxy.port);
    for (let i = 10; i < 80; i++) {
      client.write(GET(origin.url(`/${i}`)));
      expect((await client.readAnswer()).text).toBe('stale');
    }
    expect(heard).toHaveLength(6);
    expect(heard.every(one => one.startsWith('pass'))).toBe(true);
    behind.close();
    await proxy.exchange(70 + 64 - 1);
    expect(heard.filter(one => one.endsWith('downstream_gone'))).toHaveLength(64);
  });

  test('what comes on a connection that was logged in for it is told to the cache as personal', async () => {
    await using origin = await startRawOrigin(async peer => {
      await peer.readUntil('\r\n\r\n');
      peer.write('HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: NTLM\r\nContent-Length: 0\r\n\r\n');
    });
    const { cache, heard } = scripted(STALE);
    await using proxy = await startProxy({ rooms: { cache } });
    await using client = await connectRaw(proxy.port);
    client.write(GET(origin.url('/x')));
    await client.readAnswer();
    await proxy.exchange(1);
    expect(heard).toEqual(['store /x 401 personal']);
  });
});

describe('when upstream has no answer', () => {
  test('the cache hears of it, and what it has instead goes out; the record shows both', async () => {
    await using origin = await startRawOrigin(async peer => {
      await peer.readUntil('\r\n\r\n');
      peer.socket.resetAndDestroy();
    });
    const faults: Fault[] = [];
    const { cache } = scripted((_, ask) => ask, {
      failed: (_, fault) => {
        faults.push(fault);
        return { answer: wholeAnswer('old'), status: 'hit; ttl=-9; detail=stale-if-error' };
      },
    });
    await using proxy = await startProxy({ rooms: { cache } });
    await using client = await connectRaw(proxy.port);
    client.write(GET(origin.url('/x')));
    const answer = await client.readAnswer();
    expect(answer.text).toBe('old');
    expect(answer.headers['cache-status']).toBe('detour; hit; ttl=-9; detail=stale-if-error');
    expect(faults.map(one => one.kind)).toEqual(['connection_terminated']);
    const exchange = await proxy.exchange(0);
    expect(exchange).toMatchObject({ status: 200, fault: undefined });
    expect(exchange.attempts[0]!.outcome).toBe('connection_terminated');
  });

  test('A72: a client that leaves is told to the cache, too', async () => {
    await using origin = await startOrigin(() => {});
    const { cache, heard } = scripted((_, ask) => ask);
    await using proxy = await startProxy({ rooms: { cache } });
    const client = await connectRaw(proxy.port);
    client.write(GET(origin.url('/x')));
    while (origin.requests.length === 0) await sleep(5);
    client.socket.resetAndDestroy();
    await proxy.exchange(0);
    expect(heard).toEqual(['failed /x downstream_gone']);
  });

  test('A72: one that has left while it waited for another is told as soon as it would lead', async () => {
    await using origin = await startOrigin();
    let lead!: () => void;
    const { cache, heard } = scripted((_, ask) => ({
      kind: 'follow',
      found: new Promise(resolve => {
        lead = () => resolve(ask);
      }),
    }));
    await using proxy = await startProxy({ rooms: { cache } });
    const client = await connectRaw(proxy.port);
    client.write(GET(origin.url('/x')));
    await sleep(50);
    client.socket.resetAndDestroy();
    await sleep(50);
    lead();
    await proxy.exchange(0);
    expect(heard).toEqual(['failed /x downstream_gone']);
    expect(origin.requests).toHaveLength(0);
  });
});
