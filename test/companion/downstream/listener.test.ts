// Connections of browsers, and of whoever else finds the port: what they are told, how long they may wait, how many there may be.
import { connect } from 'node:net';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import * as v from 'valibot';
import { describe, expect, test } from 'vitest';
import { Fields } from '../../../companion/message/headers.ts';
import type { Answer, RequestHead } from '../../../companion/message/message.ts';
import { listen } from '../../../companion/downstream/listener.ts';
import type { Cache } from '../../../companion/rooms.ts';
import { leanSockets } from '../../../companion/sockets/lean-socket.ts';

import { respond } from '../../../companion/downstream/respond.ts';
import { ConfigSchema } from '../../../shared/config.ts';
import { startOrigin, startRawOrigin } from '../../support/origin.ts';
import { connectRaw } from '../../support/raw-client.ts';
import { NO_CONTROL, startProxy } from '../../support/with-proxy.ts';

const BARE = 'HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n';
const wait = (ms: number) => new Promise(resolve => setTimeout(resolve, ms));
async function until(ready: () => boolean): Promise<void> {
  while (!ready()) await wait(5);
}

const get = (url: string) => `GET ${url} HTTP/1.1\r\nHost: x\r\n\r\n`;

function textAnswer(text: string): Answer {
  const body = Buffer.from(text);
  return {
    head: {
      status: 200,
      reason: 'OK',
      version: 11,
      fields: Fields.of('Content-Type', 'text/plain'),
      framing: { kind: 'length', length: body.length },
      keepAlive: true,
    },
    body,
  };
}

/** A cache that has this answer for everybody. */
function alwaysHits(answer: Answer): Cache {
  return {
    lookup: () => ({ kind: 'hit', answer, status: 'hit', refresh: null }),
    store: (_, stored) => ({ answer: stored, status: '' }),
    failed: () => null,
    pass: () => {},
    peek: () => '',
    clear: () => {},
    close: async () => {},
  };
}

describe('whoever does not speak to a proxy', () => {
  test.each([
    ['a page that tries the port (A47)', 'GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://evil.test\r\n\r\n'],
    ['a rebound name (A48)', 'GET /control HTTP/1.1\r\nHost: evil.test\r\n\r\n'],
    ['a preflight (A51)', 'OPTIONS / HTTP/1.1\r\nHost: x\r\nAccess-Control-Request-Private-Network: true\r\n\r\n'],
    ['an OPTIONS of the server', 'OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n'],
    ['a form (A50)', 'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc'],
    ['a WebSocket', 'GET /control HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n'],
    ['a malformed path', 'GET /\x01 HTTP/1.1\r\nHost: x\r\n\r\n'],
    ['an endless path', `GET /${'a'.repeat(70_000)}`],
    ['no Host', 'GET / HTTP/1.1\r\n\r\n'],
    ['TLS', '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03'],
    ['HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'],
    ['noise', '\x00\x01\x02'],
  ])('gets a bare 400 and the end: %s', async (_, bytes) => {
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(bytes);
    expect((await client.readAll()).toString()).toBe(BARE);
    expect(proxy.exchanges).toEqual([]);
  });
});

describe('a proxy’s client with a malformed request', () => {
  test.each([
    ['GET http://a.test/ HTTP/1.1\r\n\r\n', 400, 'no Host'],
    ['GET http://a.test/ HTTP/3.0\r\nHost: x\r\n\r\n', 505, 'version'],
    ['GET ftp://a.test/ HTTP/1.1\r\nHost: x\r\n\r\n', 501, 'ftp'],
    ['GET https://a.test/ HTTP/1.1\r\nHost: x\r\n\r\n', 501, 'CONNECT'],
    [`GET http://a.test/${'a'.repeat(70_000)}`, 414, 'too long'],
    [`GET http://a.test/ HTTP/1.1\r\nHost: x\r\nX: ${'a'.repeat(70_000)}`, 431, 'larger'],
    ['CONNECT a.test:0 HTTP/1.1\r\nHost: x\r\n\r\n', 400, 'port'],
  ])('is told what is wrong, and that is the end: %j', async (bytes, status, words) => {
    await using origin = await startOrigin();
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(bytes + get(origin.url('/smuggled')));
    const answer = await client.readAnswer();
    expect(answer.status).toBe(status);
    expect(answer.text).toContain(words);
    expect(answer.headers['proxy-status']).toContain('detour; error=http_request_error; details="');
    expect(answer.headers['connection']).toBe('close');
    expect((await client.readAll()).length).toBe(0);
    expect(origin.requests).toEqual([]);
  });
});

describe('the control door', () => {
  test('answers plain requests that are its own, and goes on', async () => {
    const seen: RequestHead[] = [];
    await using proxy = await startProxy({
      control: {
        ...NO_CONTROL,
        answer: head => {
          seen.push(head);
          return head.target.form === 'origin' && head.target.path === '/pac' ? textAnswer('PAC') : null;
        },
      },
    });
    await using client = await connectRaw(proxy.port);
    client.write(get('/pac') + get('/pac'));
    expect((await client.readAnswer()).text).toBe('PAC');
    expect((await client.readAnswer()).text).toBe('PAC');
    client.write(get('/other'));
    expect((await client.readAll()).toString()).toBe(BARE);
    expect(seen.length).toBe(3);
  });

  test('takes a socket over, with what came behind its request', async () => {
    await using proxy = await startProxy({
      control: {
        ...NO_CONTROL,
        upgrade: (_head, take, rest) => {
          const socket = take().resume();
          socket.write(`took ${rest.toString()}`);
          socket.on('data', (chunk: Buffer) => socket.write(chunk));
          return true;
        },
      },
    });
    await using client = await connectRaw(proxy.port);
    client.write('GET /control HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nrest');
    expect((await client.read(9)).toString()).toBe('took rest');
    client.write(' more');
    expect((await client.read(5)).toString()).toBe(' more');
  });

  test('is not behind the proxy: an absolute URL is never asked of it (A55)', async () => {
    let asked = 0;
    await using proxy = await startProxy({
      control: {
        answer: () => {
          asked++;
          return null;
        },
        upgrade: () => false,
      },
      rooms: { dial: () => Promise.reject(new Error('nobody')) },
    });
    await using client = await connectRaw(proxy.port);
    client.write(get(`http://127.0.0.1:${proxy.port}/pac`));
    expect((await client.readAnswer()).status).toBe(500);
    expect(asked).toBe(0);
  });
});

describe('time and number', () => {
  test('a client that says nothing is closed without a word (A36)', async () => {
    await using proxy = await startProxy({ limits: { headTimeout: 0.1 } });
    await using client = await connectRaw(proxy.port);
    expect((await client.readAll(2_000)).length).toBe(0);
  });

  test('half a head gets a 408 in the end, however slowly it grows (A86)', async () => {
    await using proxy = await startProxy({ limits: { headTimeout: 0.15 } });
    await using client = await connectRaw(proxy.port);
    client.write('GET http://a.test/ HTTP/1.1\r\n');
    const drip = setInterval(() => client.write('x'), 20);
    const all = (await client.readAll(2_000)).toString();
    clearInterval(drip);
    expect(all).toMatch(/^HTTP\/1\.1 408 /);
  });

  test('an idle connection is closed after its time', async () => {
    await using origin = await startOrigin();
    await using proxy = await startProxy({ limits: { idleTimeout: 0.1 } });
    await using client = await connectRaw(proxy.port);
    client.write(get(origin.url('/')));
    await client.readAnswer();
    expect((await client.readAll(2_000)).length).toBe(0);
  });

  test('an upload that stands still is a 408 (A86)', async () => {
    await using origin = await startRawOrigin(() => {});
    await using proxy = await startProxy({ limits: { bodyTimeout: 0.1 } });
    await using client = await connectRaw(proxy.port);
    client.write(`POST ${origin.url('/')} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc`);
    expect((await client.readAnswer()).status).toBe(408);
    expect((await proxy.exchange(0)).fault).toBe('request_timeout');
  });

  test('an upload that stands still behind a 100 is a 408, too (A86)', async () => {
    await using origin = await startRawOrigin(socket => void socket.write('HTTP/1.1 100 Continue\r\n\r\n'));
    await using proxy = await startProxy({ limits: { bodyTimeout: 0.2, responseTimeout: 5 } });
    await using client = await connectRaw(proxy.port);
    client.write(`POST ${origin.url('/')} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\na`);
    expect((await client.readUntil('\r\n\r\n')).toString()).toContain('100 Continue');
    expect((await client.readAnswer()).status).toBe(408);
  });

  test('an answer that stands still is broken off', async () => {
    await using origin = await startOrigin((_, response) => void response.write('a'));
    await using proxy = await startProxy({ limits: { bodyTimeout: 0.1 } });
    await using client = await connectRaw(proxy.port);
    client.write(get(origin.url('/')));
    await expect(client.readAnswer()).rejects.toThrow('connection ended');
    expect((await proxy.exchange(0)).fault).toBe('connection_read_timeout');
  });

  test('a reader that has stopped is closed (A86)', async () => {
    const total = 100 * 1024 * 1024;
    await using origin = await startOrigin((_, response) => {
      response.writeHead(200, { 'Content-Length': total });
      response.end(Buffer.alloc(total));
    });
    await using proxy = await startProxy({ limits: { bodyTimeout: 0.2 } });
    await using client = await connectRaw(proxy.port);
    client.write(get(origin.url('/')));
    await client.readUntil('\r\n\r\n');
    client.socket.pause();
    expect((await proxy.exchange(0)).fault).toBe('downstream_gone');
  });

  test('the oldest idle connection makes room for a new one; busy ones stay (A87)', async () => {
    let release: (() => void) | undefined;
    await using origin = await startOrigin((request, response) => {
      if (request.url === '/slow') release = () => response.end('slow');
      else response.end('ok');
    });
    await using proxy = await startProxy({ limits: { connections: 2 } });
    await using busy = await connectRaw(proxy.port);
    busy.write(get(origin.url('/slow')));
    await using idle = await connectRaw(proxy.port);
    idle.write(get(origin.url('/')));
    await idle.readAnswer();
    await until(() => release !== undefined);
    await using third = await connectRaw(proxy.port);
    third.write(get(origin.url('/')));
    expect((await third.readAnswer()).text).toBe('ok');
    expect(await idle.closed()).toBe('ended');
    release!();
    expect((await busy.readAnswer()).text).toBe('slow');
  });
});

describe('an answer that its reader has not taken yet', () => {
  /** So much that no system takes it all at once. */
  const much = 'x'.repeat(16 * 1024 * 1024);
  const control = { ...NO_CONTROL, answer: () => textAnswer(much) };
  const asked = async (port: number, line = '') => {
    const client = await connectRaw(port);
    client.socket.pause();
    client.write(`GET /much HTTP/1.1\r\nHost: x\r\n${line}\r\n`);
    await wait(50);
    return client;
  };

  test('comes to its last byte when the listener closes (A91)', async () => {
    await using proxy = await startProxy({ control });
    await using client = await asked(proxy.port);
    const closed = proxy.listener.close(5_000);
    await wait(50);
    client.socket.resume();
    expect((await client.readAnswer()).text.length).toBe(much.length);
    client.close();
    await closed;
  });

  test('is not cut short to make room for another connection, not even the last of its own (A87)', async () => {
    await using proxy = await startProxy({ control, limits: { connections: 2 } });
    await using last = await asked(proxy.port, 'Connection: close\r\n');
    await using one = await asked(proxy.port);
    await using third = await connectRaw(proxy.port);
    expect(await third.closed()).not.toBe(null);
    for (const client of [last, one]) {
      client.socket.resume();
      expect((await client.readAnswer()).text.length).toBe(much.length);
    }
  });
});

describe('closing the listener', () => {
  test('ends idle connections at once and lets an exchange finish (A91)', async () => {
    let release: (() => void) | undefined;
    await using origin = await startOrigin((request, response) => {
      if (request.url === '/slow') release = () => response.end('done');
      else response.end('ok');
    });
    await using proxy = await startProxy();
    await using idle = await connectRaw(proxy.port);
    idle.write(get(origin.url('/')));
    await idle.readAnswer();
    await using busy = await connectRaw(proxy.port);
    busy.write(get(origin.url('/slow')));
    await until(() => release !== undefined);
    const closed = proxy.listener.close(5_000);
    await idle.closed();
    await expect(connectRaw(proxy.port)).rejects.toThrow('ECONNREFUSED');
    release!();
    const answer = await busy.readAnswer();
    expect(answer).toMatchObject({ text: 'done', headers: { connection: 'close' } });
    busy.close();
    await closed;
  });

  test('does not wait for ever', async () => {
    await using origin = await startRawOrigin(() => {});
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(`CONNECT ${origin.authority} HTTP/1.1\r\nHost: x\r\n\r\n`);
    await client.readUntil('\r\n\r\n');
    const began = performance.now();
    await proxy.listener.close(100);
    expect(performance.now() - began).toBeLessThan(1_500);
    await client.closed();
  });

  test('a taken port is the system’s error', async () => {
    await using proxy = await startProxy();
    await expect(
      listen({
        host: '127.0.0.1',
        port: proxy.port,
        limits: () => {
          throw new Error('unused');
        },
        walk: { request: async () => {}, tunnel: async () => {} },
        control: NO_CONTROL,
        entrance: () => {
          throw new Error('unused');
        },
      }),
    ).rejects.toMatchObject({ code: 'EADDRINUSE' });
  });
});

test('many pipelined requests are answered in order, without the stack growing', async () => {
  const answer = textAnswer('x');
  await using proxy = await startProxy({
    rooms: { cache: alwaysHits(answer) },
  });
  await using client = await connectRaw(proxy.port);
  const count = 20_000;
  client.write(get('http://a.test/').repeat(count));
  for (let i = 0; i < count; i++) expect((await client.readAnswer()).text).toBe('x');
}, 20_000);

test('A86: who asks on without reading the answers is not read either', async () => {
  const answer = textAnswer('x'.repeat(2_000));
  await using proxy = await startProxy({
    rooms: { cache: alwaysHits(answer) },
  });
  const socket = connect({ port: proxy.port, host: '127.0.0.1' }).pause();
  socket.on('error', () => {});
  const requests = Buffer.from(get('http://a.test/').repeat(5_000));
  const total = 64 * requests.length;
  const ask = () => {
    while (socket.bytesWritten < total && socket.write(requests)) {}
  };
  socket.on('drain', ask);
  ask();
  const taken = () => socket.bytesWritten - socket.writableLength;
  let before = -1;
  const end = performance.now() + 10_000;
  while (taken() > before && performance.now() < end) {
    before = taken();
    await wait(500);
  }
  expect(taken()).toBe(before);
  expect(taken()).toBeLessThan(total);
  socket.destroy();
}, 20_000);

test('an upload that waited behind another request goes on when its turn has come', async () => {
  const { promise: mayAnswer, resolve: answerNow } = Promise.withResolvers<void>();
  await using origin = await startOrigin((request, response, body) => {
    if (request.method === 'GET') void mayAnswer.then(() => response.end('first'));
    else response.end(String(body.length));
  });
  await using proxy = await startProxy({ limits: { head: 8_192 } });
  await using client = await connectRaw(proxy.port);
  client.write(get(`http://127.0.0.1:${origin.port}/`));
  await until(() => origin.requests.length === 1);
  client.write(`POST http://127.0.0.1:${origin.port}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 20000\r\n\r\n`);
  client.write(Buffer.alloc(10_000));
  await wait(100);
  client.write(Buffer.alloc(10_000));
  await wait(100);
  answerNow();
  expect((await client.readAnswer()).text).toBe('first');
  expect((await client.readAnswer()).text).toBe('20000');
});

test('a client that breaks off with a knock at the control door under way ends nothing but its connection', async () => {
  const { promise: mayAnswer, resolve: answerNow } = Promise.withResolvers<void>();
  await using origin = await startOrigin((_request, response) => void mayAnswer.then(() => response.end('late')));
  let given = 0;
  await using proxy = await startProxy({
    control: {
      answer: () => null,
      upgrade(_head, take) {
        given++;
        take();
        return true;
      },
    },
  });
  const errors: unknown[] = [];
  const onError = (error: unknown) => errors.push(error);
  process.on('uncaughtException', onError);
  await using client = await connectRaw(proxy.port);
  client.write(get(`http://127.0.0.1:${origin.port}/`));
  // So much that the socket is not read any more: the reset is noticed when the answer is written.
  client.write(`GET /control HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n${'x'.repeat(1_000_000)}`);
  await until(() => origin.requests.length === 1);
  await wait(200);
  client.socket.resetAndDestroy();
  await wait(100);
  answerNow();
  await until(() => proxy.listener.connections === 0);
  await wait(50);
  process.off('uncaughtException', onError);
  expect(errors).toEqual([]);
  // Node's own socket tells of a failed write too late for that.
  if (leanSockets) expect(given).toBe(0);
});

test('A87: a connection that waits for its next request does not hold the head of the last one', async () => {
  setFlagsFromString('--expose-gc');
  const collectGarbage = runInNewContext('gc') as () => void;
  await using origin = await startRawOrigin(async peer => {
    while (true) {
      await peer.readUntil('\r\n\r\n');
      peer.write(`HTTP/1.1 200 OK\r\nX: ${'a'.repeat(60_000)}\r\nContent-Length: 0\r\n\r\n`);
    }
  });
  await using proxy = await startProxy();
  await using waiting = new AsyncDisposableStack();
  const ask = async () => {
    const client = waiting.use(await connectRaw(proxy.port));
    client.write(`GET ${origin.url('/')} HTTP/1.1\r\nHost: x\r\nX: ${'a'.repeat(60_000)}\r\n\r\n`);
    await client.readUntil('\r\n\r\n');
  };
  await ask();
  collectGarbage();
  const before = process.memoryUsage().heapUsed;
  for (let i = 0; i < 200; i++) await ask();
  collectGarbage();
  expect(proxy.listener.connections).toBe(201);
  expect(process.memoryUsage().heapUsed - before).toBeLessThan(8_000_000);
});

test('a knock behind answers that are not sent yet stays here: none of their bytes is lost', async () => {
  const answer = textAnswer('a'.repeat(16_384));
  let moved = 0;
  let unsentOf = () => 0;
  let answered = 0;
  const listener = await listen({
    host: '127.0.0.1',
    port: 0,
    limits: () => v.parse(ConfigSchema, {}).limits,
    walk: {
      async request(incoming) {
        await respond(incoming, answer, {});
        unsentOf = () => incoming.connection.socket.writableLength;
        answered++;
      },
      tunnel: async () => {},
    },
    control: {
      mayEnter: () => true,
      // As in a worker: the socket goes on elsewhere, and what this process has not written is gone.
      handOver(socket) {
        moved++;
        socket.destroy();
      },
    },
    entrance: () => ({ mayEnter: () => true, logIn: null, demand: null }),
  });
  await using _listener = { [Symbol.asyncDispose]: () => listener.close(0) };
  await using client = await connectRaw(listener.port);
  client.socket.pause();
  let asked = 0;
  do {
    client.write(get('http://a.test/'));
    asked++;
    await until(() => answered === asked);
  } while (unsentOf() === 0);
  client.write(get('/control'));
  await wait(50);
  client.socket.resume();
  for (let i = 0; i < asked; i++) expect((await client.readAnswer()).body.length).toBe(16_384);
  expect((await client.readAll()).toString()).toBe(BARE);
  expect(moved).toBe(0);
});
