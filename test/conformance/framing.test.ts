// R28–R47 (RFC 9112), as far as they are not in smuggling.test.ts: versions, lengths, truncated messages, persistence, half-closed clients.
import { createHash, randomBytes } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { startOrigin, startRawOrigin } from '../support/origin.ts';
import { connectRaw } from '../support/raw-client.ts';
import { startProxy } from '../support/with-proxy.ts';
import { connectTo, CUTS, get, post, say, until, wait } from './talk.ts';

const OK = 'HTTP/1.1 200 OK\r\n';
const CHUNKED = 'Transfer-Encoding: chunked\r\n';
const hash = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex');

describe('versions', () => {
  test('R29: our own version is sent on, whatever came: to the origin and to the client', async () => {
    const lines: string[] = [];
    await using origin = await startRawOrigin(async peer => {
      lines.push((await peer.readUntil('\r\n\r\n')).split('\r\n')[0]!);
      peer.write('HTTP/1.0 200 Fine\r\nContent-Length: 2\r\n\r\nok');
    });
    await using proxy = await startProxy();
    for (const version of ['1.0', '1.1']) {
      await using client = await connectRaw(proxy.port);
      client.write(`GET ${origin.url('/')} HTTP/${version}\r\nHost: x\r\n\r\n`);
      expect((await client.readUntil('\r\n')).trim()).toBe('HTTP/1.1 200 Fine');
    }
    expect(lines).toEqual(['GET / HTTP/1.1', 'GET / HTTP/1.1']);
  });

  test('R29: versions that are not spoken are a 505', async () => {
    await using proxy = await startProxy();
    for (const version of ['0.9', '1.2', '2.0', '3.0']) {
      await using client = await connectRaw(proxy.port);
      client.write(`GET http://a.test/ HTTP/${version}\r\nHost: x\r\n\r\n`);
      expect((await client.readAnswer()).status, version).toBe(505);
    }
  });

  test('R30: a target beyond the measure of a head is a 414, and a head beyond it a 431', async () => {
    await using proxy = await startProxy();
    for (const [request, status] of [
      [get(`http://a.test/${'x'.repeat(100_000)}`), 414],
      [get('http://a.test/', `X: ${'x'.repeat(100_000)}\r\n`), 431],
    ] as const) {
      await using client = await connectRaw(proxy.port);
      client.write(request);
      expect((await client.readAnswer()).status).toBe(status);
      expect((await client.readAll()).toString()).toBe('');
    }
  });

  test('R33: authority-form is for CONNECT alone, and CONNECT takes no other', async () => {
    await using proxy = await startProxy();
    for (const request of [
      'GET a.test:80',
      'OPTIONS a.test:80',
      'CONNECT http://a.test:80/',
      'CONNECT /',
      'CONNECT *',
      'GET *',
    ]) {
      await using client = await connectRaw(proxy.port);
      client.write(`${request} HTTP/1.1\r\nHost: x\r\n\r\n`);
      expect((await client.readAll()).toString(), request).toMatch(/^HTTP\/1\.1 (?:400|501) /);
    }
  });
});

describe('how long a body is', () => {
  test.each(CUTS)(
    'R38: HEAD, 1xx, 204, 304 have none; then chunks, then length, then the end of the connection, %s',
    async cut => {
      const answers: Record<string, string> = {
        '/head': `${OK}Content-Length: 5\r\n\r\n`,
        '/head-chunked': `${OK}${CHUNKED}\r\n`,
        '/100': `HTTP/1.1 100 Continue\r\n\r\n${OK}Content-Length: 2\r\n\r\nok`,
        '/204': 'HTTP/1.1 204 No Content\r\n\r\n',
        '/304': 'HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\n\r\n',
        '/chunks': `${OK}${CHUNKED}\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n`,
        '/length': `${OK}Content-Length: 2\r\n\r\nok`,
        '/zero': `${OK}Content-Length: 0\r\n\r\n`,
      };
      await using origin = await startRawOrigin(async peer => {
        while (true) {
          const path = (await peer.readUntil('\r\n\r\n')).split(' ')[1]!;
          if (path === '/close') {
            await say(peer, `${OK}\r\nok`, cut);
            return peer.end();
          }
          await say(peer, answers[path]!, cut);
        }
      });
      await using proxy = await startProxy();
      await using client = await connectRaw(proxy.port);
      const bodies: Record<string, string> = {};
      for (const path of [...Object.keys(answers), '/close', '/length']) {
        const method = path.startsWith('/head') ? 'HEAD' : 'GET';
        client.write(`${method} ${origin.url(path)} HTTP/1.1\r\nHost: x\r\n\r\n`);
        let answer = await client.readAnswer(method);
        if (answer.status === 100) answer = await client.readAnswer(method);
        bodies[path] = `${answer.status} ${answer.text}`;
      }
      expect(bodies).toEqual({
        '/head': '200 ',
        '/head-chunked': '200 ',
        '/100': '200 ok',
        '/204': '204 ',
        '/304': '304 ',
        '/chunks': '200 ok',
        '/length': '200 ok',
        '/zero': '200 ',
        '/close': '200 ok',
      });
      // All of it on one connection each way, but for the one that ended.
      expect(origin.accepted).toBe(2);
    },
  );

  test('R38: a request without a length has no body, whatever its method', async () => {
    await using origin = await startOrigin();
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    for (const method of ['POST', 'PUT', 'PATCH', 'DELETE', 'X-OWN'])
      client.write(`${method} ${origin.url('/')} HTTP/1.1\r\nHost: x\r\n\r\n`);
    for (let i = 0; i < 5; i++) expect((await client.readAnswer()).status).toBeLessThan(500);
  });

  test('R36: no Transfer-Encoding to an HTTP/1.0 client, nor in 204 and 304', async () => {
    await using origin = await startOrigin((request, response) => {
      if (request.url === '/204') return void response.writeHead(204).end();
      if (request.url === '/304') return void response.writeHead(304).end();
      response.write('a');
      setTimeout(() => response.end('b'), 10);
    });
    await using proxy = await startProxy();
    for (const path of ['/204', '/304', '/body']) {
      await using client = await connectRaw(proxy.port);
      client.write(`GET ${origin.url(path)} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n`);
      const all = (await client.readAll()).toString();
      expect(all.toLowerCase()).not.toContain('transfer-encoding');
      expect(all.endsWith(path === '/body' ? '\r\n\r\nab' : '\r\n\r\n')).toBe(true);
    }
  });

  test('R42: chunks are for one connection: they end here and are made anew', async () => {
    await using origin = await startRawOrigin(async peer => {
      const heard = await peer.readUntil('0\r\n\r\n');
      expect(heard.toLowerCase()).toContain('transfer-encoding: chunked\r\n');
      expect(heard).not.toContain('000003');
      peer.write(`${OK}${CHUNKED}\r\n000003;x=y\r\nabc\r\n`);
      await wait(20);
      peer.write('02\r\nde\r\n000;z\r\n\r\n');
    });
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(post(origin.url('/'), CHUNKED, '000003;a=b\r\nabc\r\n000\r\n\r\n'));
    const all = await client.readUntil('0\r\n\r\n');
    expect(all).toContain('Transfer-Encoding: chunked\r\n');
    expect(all).not.toMatch(/000003|x=y|;z/);
    await using old = await connectRaw(proxy.port);
    await using lengthy = await startOrigin((_, response) => response.end('whole'));
    old.write(get(lengthy.url('/')));
    expect((await old.readAnswer()).headers).toMatchObject({ 'content-length': '5' });
  });
});

describe('what breaks off', () => {
  const cases: [string, string, boolean][] = [
    ['a length, by its end', `${OK}Content-Length: 10\r\n\r\nabc`, false],
    ['a length, by a reset', `${OK}Content-Length: 10\r\n\r\nabc`, true],
    ['chunks, between two', `${OK}${CHUNKED}\r\n3\r\nabc\r\n`, false],
    ['chunks, in one', `${OK}${CHUNKED}\r\n5\r\nabc`, false],
    ['chunks, before the last line', `${OK}${CHUNKED}\r\n3\r\nabc\r\n0\r\n`, false],
    ['chunks, by a reset', `${OK}${CHUNKED}\r\n3\r\nabc\r\n`, true],
    ['the end of the connection, by a reset', `${OK}\r\nabc`, true],
  ];
  test.each(cases)(
    'R43: an answer framed by %s is never whole for the client, and the log says so',
    async (_, bytes, byReset) => {
      for (const version of ['1.1', '1.0']) {
        await using origin = await startRawOrigin(async peer => {
          await peer.readUntil('\r\n\r\n');
          peer.write(bytes);
          await wait(30);
          if (byReset) peer.socket.resetAndDestroy();
          else peer.socket.end();
        });
        await using proxy = await startProxy();
        await using client = await connectRaw(proxy.port);
        client.write(`GET ${origin.url('/')} HTTP/${version}\r\nHost: x\r\n\r\n`);
        const head = await client.readUntil('\r\n\r\n');
        const how = await client.closed();
        const body = client.peek().toString();
        if (/transfer-encoding: chunked/i.test(head)) expect(body).not.toContain('0\r\n\r\n');
        else if (/content-length: 10/i.test(head)) expect(body.length).toBeLessThan(10);
        else expect(how).toBe('reset');
        expect(await proxy.exchange(0)).toMatchObject({ fault: 'http_response_incomplete' });
        expect(proxy.rooms.pool.counts.idle).toBe(0);
      }
    },
  );

  test('R43: a head that breaks off is a 502', async () => {
    for (const bytes of ['', 'HTTP/1.1 200', `${OK}Content-Le`, `${OK}Content-Length: 0\r\n`]) {
      await using origin = await startRawOrigin(async peer => {
        await peer.readUntil('\r\n\r\n');
        peer.write(bytes);
        peer.end();
      });
      await using proxy = await startProxy();
      await using client = await connectRaw(proxy.port);
      client.write(get(origin.url('/')));
      expect((await client.readAnswer()).status).toBe(502);
    }
  });

  test.each([
    ['by length', 'Content-Length: 10\r\n', 'abc'],
    ['in chunks', CHUNKED, '3\r\nabc\r\n'],
    ['in a chunk', CHUNKED, '5\r\nabc'],
  ])('R43: a request whose body breaks off %s is never whole for the origin', async (_, more, body) => {
    let heard = '';
    let ended = false;
    await using origin = await startRawOrigin(peer => {
      peer.socket.on('data', (chunk: Buffer) => (heard += chunk.toString()));
      peer.socket.on('close', () => (ended = true)).on('end', () => (ended = true));
    });
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(post(origin.url('/'), more, body));
    await until(() => heard.includes('abc'), 'the beginning');
    client.end();
    await until(() => ended, 'the end');
    expect(heard).not.toContain('\r\n0\r\n\r\n');
    expect((await proxy.exchange(0)).fault).toBe('downstream_gone');
  });
});

describe('connections', () => {
  test('R44: an HTTP/1.0 client gets no second answer, whatever it asks for', async () => {
    await using origin = await startOrigin();
    await using proxy = await startProxy();
    for (const connection of ['', 'Connection: keep-alive\r\n', 'Proxy-Connection: keep-alive\r\n']) {
      await using client = await connectRaw(proxy.port);
      const request = `GET ${origin.url('/')} HTTP/1.0\r\n${connection}\r\n`;
      client.write(request + request);
      const answer = await client.readAnswer();
      expect(answer.headers['connection']).toBe('close');
      expect((await client.readAll()).toString()).toBe('');
    }
    expect(origin.requests).toHaveLength(3);
  });

  test.each([
    ['HTTP/1.0', 'HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok', 3],
    ['HTTP/1.0 with keep-alive', 'HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok', 1],
    ['HTTP/1.1', `${OK}Content-Length: 2\r\n\r\nok`, 1],
    ['close', `${OK}Connection: close\r\nContent-Length: 2\r\n\r\nok`, 3],
    ['Close among others', `${OK}Connection: x, Close\r\nContent-Length: 2\r\n\r\nok`, 3],
  ])('R44, R46: an origin that says %s keeps its connection, or does not', async (_, answer, connections) => {
    await using origin = await startRawOrigin(async peer => {
      while (true) {
        await peer.readUntil('\r\n\r\n');
        peer.write(answer);
      }
    });
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    for (let i = 0; i < 3; i++) {
      client.write(get(origin.url('/')));
      // What one side says of its connection, the other does not hear.
      expect(await client.readAnswer()).toMatchObject({
        text: 'ok',
        headers: expect.not.objectContaining({ connection: 'close' }) as object,
      });
    }
    expect(origin.accepted).toBe(connections);
  });

  test.each(['close', 'Close', 'keep-alive, close', 'x,CLOSE ,y'])(
    'R46: Connection: %s ends it behind the answer; what follows is not read',
    async connection => {
      await using origin = await startOrigin();
      await using proxy = await startProxy();
      await using client = await connectRaw(proxy.port);
      client.write(get(origin.url('/1'), `Connection: ${connection}\r\n`) + get(origin.url('/2')));
      const answer = await client.readAnswer();
      expect(answer.headers['connection']).toBe('close');
      expect((await client.readAll()).toString()).toBe('');
      expect(origin.requests.map(one => one.url)).toEqual(['/1']);
    },
  );

  test('R46: a slow reader gets the whole of an answer that ends its connection', async () => {
    const long = randomBytes(24 * 1024 * 1024);
    await using origin = await startOrigin((_, response) => response.end(long));
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.socket.pause();
    client.write(get(origin.url('/'), 'Connection: close\r\n'));
    // Longer than the time in which a client may linger that has been sent everything.
    await wait(2_600);
    client.socket.resume();
    const answer = await client.readAnswer('GET', 15_000);
    expect(hash(answer.body)).toBe(hash(long));
  });
});

describe('a client that closes its side', () => {
  const SLOW = 150;

  test('R44, R46: is answered still, behind a GET, a body and a pipeline', async () => {
    await using origin = await startOrigin((request, response, body) =>
      setTimeout(() => response.end(`${request.url} ${body.toString()}`), SLOW),
    );
    await using proxy = await startProxy();
    const url = origin.url('/');
    for (const [request, texts] of [
      [get(url), ['/ ']],
      [post(url, 'Content-Length: 3\r\n', 'abc'), ['/ abc']],
      [post(url, CHUNKED, '3\r\nabc\r\n0\r\n\r\n'), ['/ abc']],
      [`GET ${url} HTTP/1.0\r\n\r\n`, ['/ ']],
      [
        get(origin.url('/1')) + post(origin.url('/2'), 'Content-Length: 3\r\n', 'abc') + get(origin.url('/3')),
        ['/1 ', '/2 abc', '/3 '],
      ],
    ] as const) {
      for (const cut of CUTS) {
        await using client = await connectRaw(proxy.port);
        await say(client, request, cut);
        client.end();
        for (const text of texts) expect((await client.readAnswer()).text).toBe(text);
        expect((await client.readAll()).toString()).toBe('');
        await until(() => client.socket.destroyed, 'the end');
      }
    }
    await until(() => proxy.listener.connections === 0, 'the end of all connections');
  });

  test('R44: gets the whole of a long answer, and of one that it reads slowly', async () => {
    const long = randomBytes(8 * 1024 * 1024);
    await using origin = await startOrigin((request, response) => {
      if (request.url === '/chunks') response.write(long);
      setTimeout(() => response.end(long), 20);
    });
    await using proxy = await startProxy();
    for (const path of ['/length', '/chunks']) {
      await using client = await connectRaw(proxy.port);
      client.write(get(origin.url(path)));
      client.end();
      client.socket.pause();
      await wait(200);
      client.socket.resume();
      const answer = await client.readAnswer('GET', 15_000);
      expect(answer.body.length).toBe(path === '/chunks' ? 2 * long.length : long.length);
      expect(hash(answer.body.subarray(-long.length))).toBe(hash(long));
    }
  });

  test('R45: is answered behind a thousand requests in pipeline, in order, however late it reads', async () => {
    await using origin = await startOrigin((request, response) => response.end(request.url!.padEnd(3_000, '.')));
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.socket.pause();
    client.write(Array.from({ length: 1_000 }, (_, i) => get(origin.url(`/${i}.`))).join(''));
    client.end();
    await wait(300);
    client.socket.resume();
    for (let i = 0; i < 1_000; i++) expect((await client.readAnswer()).text.startsWith(`/${i}.`)).toBe(true);
    expect((await client.readAll()).toString()).toBe('');
  });

  test('R12, A30: may ask for another protocol first, and is half of it', async () => {
    await using origin = await startRawOrigin(async peer => {
      await peer.readUntil('\r\n\r\n');
      peer.write('HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n');
      peer.write(`heard ${(await peer.readAll()).toString()}`);
      peer.end();
    });
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(`${get(origin.url('/'), 'Connection: upgrade\r\nUpgrade: echo\r\n')}more`);
    client.end();
    expect((await client.readAll()).toString()).toMatch(/\r\n\r\nheard more$/);
  });

  test('R43: behind half of a second request gets the first answer, and no second', async () => {
    await using origin = await startOrigin((_, response) => setTimeout(() => response.end('ok'), SLOW));
    await using proxy = await startProxy();
    for (const half of [
      get(origin.url('/half')).slice(0, -3),
      post(origin.url('/half'), 'Content-Length: 9\r\n', 'abc'),
    ]) {
      await using client = await connectRaw(proxy.port);
      client.write(get(origin.url('/')) + half);
      client.end();
      expect((await client.readAnswer()).text).toBe('ok');
      expect((await client.readAll()).toString()).toMatch(/^(?:HTTP\/1\.1 400 [^]*)?$/);
    }
    expect(origin.requests.map(one => one.url)).toEqual(['/', '/']);
  });

  test('A88: is taken for gone after limits.halfClosedTimeout, and the origin’s work ends', async () => {
    await using origin = await startRawOrigin(() => {});
    await using proxy = await startProxy({ limits: { halfClosedTimeout: 0.3 } });
    await using client = await connectRaw(proxy.port);
    client.write(get(origin.url('/')));
    await until(() => origin.open.size === 1, 'the request');
    client.end();
    await wait(100);
    expect(origin.open.size).toBe(1);
    await until(() => origin.open.size === 0, 'the end of the request');
    expect(await proxy.exchange(0)).toMatchObject({ fault: 'downstream_gone', status: null });
  });

  test('A88: and is found out at once when it has gone altogether: by a reset, or by the second write', async () => {
    await using origin = await startOrigin((_, response) => {
      const timer = setInterval(() => response.write('tick'), 20);
      response.on('close', () => clearInterval(timer));
    });
    await using proxy = await startProxy();
    for (const leave of ['reset', 'close']) {
      await using client = await connectRaw(proxy.port);
      client.write(get(origin.url('/')));
      await client.readUntil('tick');
      if (leave === 'reset') client.socket.resetAndDestroy();
      else client.close();
      await until(() => origin.open.size === 0, `the end of the answer after a ${leave}`);
    }
    expect(proxy.exchanges.map(one => one.fault)).toEqual(['downstream_gone', 'downstream_gone']);
  });

  test('A88: a tunnel that its client has closed before it stood is not made', async () => {
    await using proxy = await startProxy({
      rooms: {
        dial: ({ signal }) =>
          new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason as Error))),
      },
    });
    await using client = await connectRaw(proxy.port);
    client.write(connectTo('a.test:443'));
    await wait(50);
    client.end();
    expect((await proxy.exchange(0)).fault).toBe('downstream_gone');
  });
});

describe('an origin that resets under an upload', () => {
  /** The answers of so many uploads to an origin that says this when it has `read` so many bytes of each, and then resets. */
  async function uploads(times: number, says: string, read: number) {
    await using origin = await startRawOrigin(async peer => {
      await peer.readUntil('\r\n\r\n');
      await peer.read(read);
      peer.socket.pause();
      peer.write(says);
      peer.socket.resetAndDestroy();
    });
    await using proxy = await startProxy();
    const answers: string[] = [];
    const piece = Buffer.alloc(256 * 1024);
    for (let i = 0; i < times; i++) {
      await using client = await connectRaw(proxy.port);
      client.write(post(origin.url('/'), 'Content-Length: 50000000\r\n', ''));
      const timer = setInterval(
        () => client.socket.writable && client.socket.writableLength < 1e6 && client.write(piece),
        1,
      );
      const answer = await client.readAnswer();
      clearInterval(timer);
      answers.push(`${answer.status} ${answer.headers['connection']}`);
    }
    await until(() => proxy.rooms.pool.counts.open === 0, 'the end of the connections to the origin');
    return new Set(answers);
  }

  test.each([0, 2_000_000])('A14: and has answered before, is heard, behind %d bytes of it', async read => {
    const answer = 'HTTP/1.1 413 Content Too Large\r\nContent-Length: 8\r\nConnection: close\r\n\r\ntoo much';
    expect(await uploads(15, answer, read)).toEqual(new Set(['413 close']));
    expect(await uploads(15, 'HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n', read)).toEqual(new Set(['401 close']));
  });

  test('A14: and has begun to answer, is heard to the end of what it said', async () => {
    const body = 'x'.repeat(30_000);
    await using origin = await startRawOrigin(async peer => {
      await peer.readUntil('\r\n\r\n');
      peer.write(`HTTP/1.1 413 Content Too Large\r\nContent-Length: ${body.length}\r\n\r\nx`);
      await wait(20);
      peer.socket.pause();
      peer.write(body.slice(1));
      peer.socket.resetAndDestroy();
    });
    await using proxy = await startProxy();
    for (let i = 0; i < 15; i++) {
      await using client = await connectRaw(proxy.port);
      client.write(post(origin.url('/'), 'Content-Length: 50000000\r\n', ''));
      const piece = Buffer.alloc(256 * 1024);
      const timer = setInterval(
        () => client.socket.writable && client.socket.writableLength < 1e6 && client.write(piece),
        1,
      );
      try {
        expect((await client.readAnswer()).text).toBe(body);
      } finally {
        clearInterval(timer);
      }
    }
    await until(() => proxy.rooms.pool.counts.open === 0, 'the end of the connections to the origin');
  });

  test('A14, R27: and has not, is a 502', async () => {
    expect(await uploads(3, '', 2_000_000)).toEqual(new Set(['502 close']));
    expect(await uploads(3, 'HTTP/1.1 4', 2_000_000)).toEqual(new Set(['502 close']));
  });
});
