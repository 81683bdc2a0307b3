// The walk over real sockets, with real origins and real peers (curl, ws). What concerns single messages is in message/, connections in downstream/
// and upstream/.
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { Agent } from 'node:http';
import { connect } from 'node:net';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import { WebSocket, WebSocketServer } from 'ws';
import { Fault } from '../../shared/fault.ts';
import type { Chain } from '../../companion/rooms.ts';
import { startOrigin, startRawOrigin } from '../support/origin.ts';
import { hashOfStyle } from '../support/page-style.ts';
import { connectRaw } from '../support/raw-client.ts';
import { directDial, hopOf, startProxy } from '../support/with-proxy.ts';

const run = promisify(execFile);
const wait = (ms: number) => new Promise(resolve => setTimeout(resolve, ms));

async function until(ready: () => boolean, what: string): Promise<void> {
  for (let i = 0; i < 250; i++) {
    if (ready()) return;
    await wait(20);
  }
  throw new Error(`${what} did not happen`);
}

const get = (url: string, more = '') => `GET ${url} HTTP/1.1\r\nHost: ignored.test\r\n${more}\r\n`;
const post = (url: string, more: string, body: string) =>
  `POST ${url} HTTP/1.1\r\nHost: ignored.test\r\n${more}\r\n${body}`;

describe('a request in absolute-form', () => {
  test('reaches the origin in origin-form with the Host of its URL, and is recorded (A16, R32)', async () => {
    await using origin = await startOrigin();
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(get(origin.url('/a?b'), 'X-Mine: 1\r\nX-Mine: 2\r\nReferer: http://page.test/x\r\n'));
    const answer = await client.readAnswer();
    expect(answer).toMatchObject({ status: 200, text: 'hello' });
    expect(answer.headers['cache-status']).toBe('detour; fwd=bypass');
    expect(origin.requests[0]).toMatchObject({ method: 'GET', url: '/a?b' });
    expect(origin.requests[0]!.rawHeaders).toEqual([
      'Host', origin.authority, 'X-Mine', '1', 'X-Mine', '2', 'Referer', 'http://page.test/x',
    ]); // prettier-ignore
    expect(await proxy.exchange(0)).toMatchObject({
      kind: 'http',
      method: 'GET',
      url: origin.url('/a?b'),
      host: '127.0.0.1',
      fromSite: 'page.test',
      status: 200,
      cacheStatus: 'fwd=bypass',
      bytesUp: 0,
      bytesDown: answer.head.length + 5,
      attempts: [{ chain: [], outcome: 'ok', stage: 'response' }],
    });
  });

  test('says nothing of the browser, the way or the proxy to the origin (A60, A65, R6)', async () => {
    await using origin = await startOrigin();
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    const gone = [
      'Proxy-Authorization: Basic x', 'Proxy-Connection: keep-alive', 'Proxy: http://evil/', 'Forwarded: for=1', 'X-Forwarded-For: 1.2.3.4',
      'X-Forwarded-Host: h', 'X-Real-IP: 1', 'Via: 1.1 x', 'Keep-Alive: 5', 'Connection: X-Named, close', 'X-Named: 1', 'Upgrade: h2c',
    ]; // prettier-ignore
    client.write(get(origin.url('/'), `${gone.join('\r\n')}\r\nAuthorization: Basic keep\r\n`));
    await client.readAnswer();
    expect(origin.requests[0]!.rawHeaders).toEqual(['Host', origin.authority, 'Authorization', 'Basic keep']);
  });

  test('keeps both connections for the next one (R44)', async () => {
    await using origin = await startOrigin();
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    for (let i = 0; i < 5; i++) {
      client.write(get(origin.url(`/${i}`)));
      expect((await client.readAnswer()).text).toBe('hello');
    }
    expect(origin.accepted).toBe(1);
    expect(proxy.exchanges.map(one => one.attempts[0]!.stage)).toEqual([
      'response',
      'reused',
      'reused',
      'reused',
      'reused',
    ]);
  });

  test('in pipeline is answered in its turn (A15, R45)', async () => {
    await using origin = await startOrigin((request, response) => {
      // The first is the slowest.
      setTimeout(() => response.end(request.url), request.url === '/0' ? 80 : 1);
    });
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(
      [0, 1, 2, 3, 4].map(i => get(origin.url(`/${i}`))).join('') +
        post(origin.url('/p'), 'Content-Length: 3\r\n', 'abc') +
        get(origin.url('/last')),
    );
    const answers: string[] = [];
    for (let i = 0; i < 7; i++) answers.push((await client.readAnswer()).text);
    expect(answers).toEqual(['/0', '/1', '/2', '/3', '/4', '/p', '/last']);
  });

  test('goes through byte by byte', async () => {
    await using origin = await startOrigin((_, response, body) => response.end(body));
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    const bytes = post(origin.url('/'), 'Transfer-Encoding: chunked\r\n', '3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n');
    for (const byte of Buffer.from(bytes)) {
      client.write(Buffer.from([byte]));
      if (Math.random() < 0.2) await wait(0);
    }
    expect((await client.readAnswer()).text).toBe('abcde');
    client.write(get(origin.url('/')));
    expect((await client.readAnswer()).status).toBe(200);
  });

  test('of HTTP/1.0 gets an answer without chunks, and the end (R36, R44)', async () => {
    await using origin = await startOrigin((_, response) => {
      response.write('a');
      setTimeout(() => response.end('b'), 20);
    });
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(`GET ${origin.url('/')} HTTP/1.0\r\n\r\n`);
    const answer = await client.readAnswer();
    expect(answer.text).toBe('ab');
    expect(answer.headers['transfer-encoding']).toBeUndefined();
    expect(answer.headers['connection']).toBe('close');
    expect(await client.closed()).toBe('ended');
  });

  test('asking for the end gets it (R46)', async () => {
    await using origin = await startOrigin();
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(get(origin.url('/'), 'Connection: close\r\n') + get(origin.url('/not-this')));
    expect((await client.readAnswer()).headers['connection']).toBe('close');
    expect((await client.readAll()).length).toBe(0);
    expect(origin.requests.length).toBe(1);
  });
});

describe('bodies', () => {
  const big = Buffer.alloc(3 * 1024 * 1024, 'abcdefghij');
  const hash = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex');

  test('of any length go both ways, by length and in chunks', async () => {
    await using origin = await startOrigin((request, response, body) => {
      if (request.url === '/length') response.setHeader('Content-Length', body.length);
      response.write(body);
      response.end();
    });
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    for (const size of [0, 1, 1000, 70_000, big.length]) {
      const body = big.subarray(0, size);
      client.write(`POST ${origin.url('/length')} HTTP/1.1\r\nHost: x\r\nContent-Length: ${size}\r\n\r\n`);
      client.write(body);
      const byLength = await client.readAnswer();
      expect(byLength.headers['content-length']).toBe(String(size));
      expect(hash(byLength.body)).toBe(hash(body));
      client.write(`POST ${origin.url('/chunked')} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n`);
      for (let at = 0; at < size; at += 50_000) {
        const piece = body.subarray(at, Math.min(at + 50_000, size));
        client.write(`${piece.length.toString(16)}\r\n`);
        client.write(piece);
        client.write('\r\n');
      }
      client.write('0\r\n\r\n');
      const chunked = await client.readAnswer();
      expect(hash(chunked.body)).toBe(hash(body));
    }
    expect(origin.requests.map(one => one.body.length)).toEqual([
      0,
      0,
      1,
      1,
      1000,
      1000,
      70_000,
      70_000,
      big.length,
      big.length,
    ]);
    expect(origin.accepted).toBe(1);
    expect(await proxy.exchange(8)).toMatchObject({ bytesUp: big.length });
  });

  test('that end with the connection arrive whole', async () => {
    await using origin = await startRawOrigin(async peer => {
      await peer.readUntil('\r\n\r\n');
      peer.write('HTTP/1.1 200 OK\r\n\r\n');
      await wait(10);
      peer.write('abc');
      await wait(10);
      peer.write('def');
      peer.end();
    });
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(get(origin.url('/')));
    const answer = await client.readAnswer();
    expect(answer.headers['transfer-encoding']).toBe('chunked');
    expect(answer.text).toBe('abcdef');
    client.write(get(origin.url('/')));
    expect((await client.readAnswer()).text).toBe('abcdef');
  });

  test('that end with the connection at once arrive whole too', async () => {
    await using origin = await startRawOrigin(async peer => {
      await peer.readUntil('\r\n\r\n');
      peer.write('HTTP/1.0 200 OK\r\n\r\nabc');
      peer.end();
    });
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(get(origin.url('/')));
    expect((await client.readAnswer()).text).toBe('abc');
  });

  test('carry trailers to the origin, and to a client that takes them (A22, R19)', async () => {
    await using origin = await startOrigin((_, response) => {
      response.setHeader('Trailer', 'X-Sum');
      response.write('abc');
      response.addTrailers({ 'X-Sum': '1', 'Content-Length': '99', 'Set-Cookie': 'a=b' });
      response.end();
    });
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    const chunks = '3\r\nabc\r\n0\r\nX-Up: 1\r\nHost: evil.test\r\nAuthorization: x\r\n\r\n';
    client.write(post(origin.url('/'), 'TE: trailers\r\nConnection: TE\r\nTransfer-Encoding: chunked\r\n', chunks));
    expect(await client.readAnswer()).toMatchObject({ text: 'abc', trailers: { 'x-sum': '1' } });
    expect(origin.requests[0]!.trailers).toEqual({ 'x-up': '1' });
    expect(origin.requests[0]!.headers['te']).toBe('trailers');
    client.write(get(origin.url('/')));
    expect(await client.readAnswer()).toMatchObject({ text: 'abc', trailers: {} });
    expect(origin.requests[1]!.headers['te']).toBeUndefined();
  });

  test('that are none: HEAD, 204, 304 (R15, R38)', async () => {
    await using origin = await startRawOrigin(async peer => {
      while (true) {
        const head = await peer.readUntil('\r\n\r\n');
        if (head.startsWith('HEAD /chunked')) peer.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n');
        else if (head.startsWith('HEAD')) peer.write('HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n');
        else if (head.includes('/204')) peer.write('HTTP/1.1 204 No Content\r\nX: 1\r\n\r\n');
        else peer.write('HTTP/1.1 304 Not Modified\r\nETag: "a"\r\nContent-Length: 99\r\n\r\n');
      }
    });
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(`HEAD ${origin.url('/')} HTTP/1.1\r\nHost: x\r\n\r\n`);
    expect((await client.readAnswer('HEAD')).headers['content-length']).toBe('12345');
    client.write(`HEAD ${origin.url('/chunked')} HTTP/1.1\r\nHost: x\r\n\r\n`);
    expect((await client.readAnswer('HEAD')).headers['content-length']).toBeUndefined();
    client.write(get(origin.url('/204')));
    expect((await client.readAnswer()).headers['content-length']).toBeUndefined();
    client.write(get(origin.url('/304')));
    expect(await client.readAnswer()).toMatchObject({ status: 304, headers: { etag: '"a"' } });
    expect(origin.accepted).toBe(1);
  });

  test('wait for a slow reader in bounded memory', async () => {
    const total = 200 * 1024 * 1024;
    let sent = 0;
    await using origin = await startRawOrigin(async peer => {
      await peer.readUntil('\r\n\r\n');
      peer.write(`HTTP/1.1 200 OK\r\nContent-Length: ${total}\r\n\r\n`);
      const piece = Buffer.alloc(256 * 1024);
      while (sent < total && !peer.socket.destroyed) {
        sent += piece.length;
        if (!peer.socket.write(piece))
          await new Promise(resolve => peer.socket.once('drain', resolve).once('close', resolve));
      }
    });
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(get(origin.url('/')));
    await client.readUntil('\r\n\r\n');
    client.socket.pause();
    await wait(300);
    const then = sent;
    await wait(300);
    // What is under way fills the kernel's buffers of four sockets (some MiB each) and no more.
    expect(sent).toBe(then);
    expect(sent).toBeLessThan(60 * 1024 * 1024);
  });

  test('wait for a slow origin, too', async () => {
    let released: (() => void) | undefined;
    const total = 100 * 1024 * 1024;
    await using origin = await startRawOrigin(async peer => {
      await peer.readUntil('\r\n\r\n');
      peer.socket.pause();
      await new Promise<void>(resolve => (released = resolve));
    });
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(post(origin.url('/'), `Content-Length: ${total}\r\n`, ''));
    let written = 0;
    const piece = Buffer.alloc(256 * 1024);
    const pump = async () => {
      while (written < total && !client.socket.destroyed) {
        written += piece.length;
        if (!client.socket.write(piece))
          await new Promise(resolve => client.socket.once('drain', resolve).once('close', resolve));
      }
    };
    void pump();
    await until(() => released !== undefined, 'the request');
    await wait(300);
    const then = written;
    await wait(300);
    expect(written).toBe(then);
    expect(written).toBeLessThan(60 * 1024 * 1024);
    released!();
  });
});

describe('interim answers', () => {
  test('100-continue is the origin’s to say (R18)', async () => {
    await using origin = await startRawOrigin(async peer => {
      const head = await peer.readUntil('\r\n\r\n');
      expect(head.toLowerCase()).toContain('expect: 100-continue');
      peer.write('HTTP/1.1 100 Continue\r\n\r\n');
      const body = await peer.read(5);
      peer.write(`HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n${body.toString()}`);
    });
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(post(origin.url('/'), 'Expect: 100-continue\r\nContent-Length: 5\r\n', ''));
    expect((await client.readAnswer()).status).toBe(100);
    client.write('hello');
    expect((await client.readAnswer()).text).toBe('hello');
  });

  test('and so is its 417; what then comes of the body is not read as a request (A14)', async () => {
    await using origin = await startRawOrigin(async peer => {
      await peer.readUntil('\r\n\r\n');
      peer.write('HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno');
    });
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(post(origin.url('/'), 'Expect: 100-continue\r\nContent-Length: 500\r\n', ''));
    expect(await client.readAnswer()).toMatchObject({ status: 417, text: 'no', headers: { connection: 'close' } });
    client.write(get(origin.url('/smuggled')));
    expect((await client.readAll()).length).toBe(0);
    expect(origin.accepted).toBe(1);
  });

  test('103 comes through, with its fields (R26)', async () => {
    await using origin = await startOrigin((_, response) => {
      response.writeEarlyHints({ link: '</a.css>; rel=preload' }, () => response.end('done'));
    });
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(get(origin.url('/')));
    expect(await client.readAnswer()).toMatchObject({ status: 103, headers: { link: '</a.css>; rel=preload' } });
    expect((await client.readAnswer()).text).toBe('done');
    await using old = await connectRaw(proxy.port);
    old.write(`GET ${origin.url('/')} HTTP/1.0\r\n\r\n`);
    expect((await old.readAnswer()).text).toBe('done');
  });

  test('without end are a fault (A89)', async () => {
    await using origin = await startRawOrigin(async peer => {
      await peer.readUntil('\r\n\r\n');
      for (let i = 0; i < 500; i++) peer.write('HTTP/1.1 103 Early Hints\r\n\r\n');
    });
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(get(origin.url('/')));
    let answer = await client.readAnswer();
    while (answer.status === 103) answer = await client.readAnswer();
    expect(answer.status).toBe(502);
    expect(answer.headers['proxy-status']).toContain('error=http_protocol_error');
  });

  test('an unknown expectation fails here', async () => {
    await using origin = await startOrigin();
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(get(origin.url('/'), 'Expect: the-unexpected\r\n'));
    expect((await client.readAnswer()).status).toBe(417);
    expect(origin.requests.length).toBe(0);
  });

  test('TRACE and OPTIONS that may go no further end here (R8, R17)', async () => {
    await using origin = await startOrigin();
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(`TRACE ${origin.url('/')} HTTP/1.1\r\nHost: x\r\nMax-Forwards: 0\r\nCookie: secret\r\nX: 1\r\n\r\n`);
    const trace = await client.readAnswer();
    expect(trace.text).toContain('X: 1');
    expect(trace.text).not.toContain('secret');
    client.write(`OPTIONS ${origin.url('')} HTTP/1.1\r\nHost: x\r\nMax-Forwards: 3\r\n\r\n`);
    await client.readAnswer();
    expect(origin.requests[0]).toMatchObject({ method: 'OPTIONS', url: '*', headers: { 'max-forwards': '2' } });
  });
});

describe('faults', () => {
  test('a connection refused is a 502 with a sentence, and a page for a document', async () => {
    const gone = await startOrigin();
    await gone[Symbol.asyncDispose]();
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(get(gone.url('/')));
    const answer = await client.readAnswer();
    expect(answer.status).toBe(502);
    expect(answer.headers['content-type']).toBe('text/plain; charset=utf-8');
    expect(answer.headers['proxy-status']).toBe(
      `detour; error=connection_refused; details="${gone.authority} refused the connection. Is it running?"`,
    );
    expect(answer.text).toBe(`${gone.authority} refused the connection. Is it running?\n`);
    client.write(get(gone.url('/'), 'Accept: text/html\r\n'));
    const page = await client.readAnswer();
    expect(page.headers['content-security-policy']).toContain("default-src 'none'");
    expect(page.text).toContain(`<h1>${gone.authority} refused the connection. Is it running?</h1>`);
    expect(proxy.exchanges[0]).toMatchObject({
      status: 502,
      fault: 'connection_refused',
      sentence: expect.stringContaining('refused'),
    });
  });

  test('A59: what a fault says is escaped on its page, which runs no script and loads nothing', async () => {
    await using proxy = await startProxy({
      rooms: {
        dial: () => Promise.reject(new Fault('hop_refused', { hop: '<b>"&', detail: '<script>' })),
      },
    });
    await using client = await connectRaw(proxy.port);
    client.write(get('http://a.test/', 'Accept: text/html\r\n'));
    const page = await client.readAnswer();
    expect(page.text).not.toContain('<script>');
    expect(page.text).not.toContain('<b>');
    const policy = page.headers['content-security-policy']!;
    expect(policy).toContain("default-src 'none'");
    expect(policy).not.toContain('unsafe-inline');
    expect(policy).toContain(hashOfStyle(page.text));
    expect(page.headers['x-content-type-options']).toBe('nosniff');
    expect(page.headers['proxy-status']).toContain('error=http_request_denied; next-hop="<b>\\"&"');
  });

  test.each([
    [
      'conflicting lengths (A13)',
      'HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n',
      502,
      'http_protocol_error',
    ],
    ['a length that is none (R39)', 'HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n', 502, 'http_protocol_error'],
    ['an unknown coding', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n', 502, 'http_response_transfer_coding'],
    ['a head without end', `HTTP/1.1 200 OK\r\nX: ${'a'.repeat(70_000)}`, 502, 'http_response_header_section_size'],
    ['half a head', 'HTTP/1.1 200 OK\r\nX', 502, 'http_response_incomplete'],
    ['nothing', '', 502, 'connection_terminated'],
    [
      'a 101 nobody asked for (A31)',
      'HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n',
      502,
      'http_upgrade_failed',
    ],
    [
      'a 407 of its own',
      'HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm="x"\r\nContent-Length: 0\r\n\r\n',
      502,
      'http_protocol_error',
    ],
  ])('an origin that answers with %s is at fault', async (_, bytes, status, error) => {
    await using origin = await startRawOrigin(async peer => {
      await peer.readUntil('\r\n\r\n');
      peer.write(bytes);
      peer.end();
    });
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(get(origin.url('/')));
    const answer = await client.readAnswer();
    expect(answer.status).toBe(status);
    expect(answer.headers['proxy-status']).toContain(`error=${error};`);
    expect(answer.headers['proxy-authenticate']).toBeUndefined();
    client.write(get(origin.url('/')));
    expect((await client.readAnswer()).status).toBe(status);
  });

  test('an origin that says nothing is a 504 after a while', async () => {
    await using origin = await startRawOrigin(() => {});
    await using proxy = await startProxy({ limits: { responseTimeout: 0.1 } });
    await using client = await connectRaw(proxy.port);
    client.write(get(origin.url('/')));
    expect(await client.readAnswer()).toMatchObject({
      status: 504,
      headers: { 'proxy-status': expect.stringContaining('error=http_response_timeout') },
    });
    await until(() => origin.open.size === 0, 'the end of the connection');
  });

  test('an answer that breaks off is not taken for whole (R43)', async () => {
    await using origin = await startRawOrigin(async peer => {
      const head = await peer.readUntil('\r\n\r\n');
      peer.write(
        head.includes('/length')
          ? 'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc'
          : 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n',
      );
      peer.end();
    });
    await using proxy = await startProxy();
    for (const path of ['/length', '/chunked']) {
      await using client = await connectRaw(proxy.port);
      client.write(get(origin.url(path)));
      await expect(client.readAnswer()).rejects.toThrow('connection ended');
    }
    expect(proxy.exchanges.map(one => one.fault)).toEqual(['http_response_incomplete', 'http_response_incomplete']);
  });

  test('a chunk that is none, behind a good beginning, ends the answer (A11)', async () => {
    await using origin = await startRawOrigin(async peer => {
      await peer.readUntil('\r\n\r\n');
      peer.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n');
      await wait(30);
      peer.write('zz\r\n');
    });
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(get(origin.url('/')));
    await expect(client.readAnswer()).rejects.toThrow('connection ended');
    expect(await proxy.exchange(0)).toMatchObject({ fault: 'http_protocol_error', status: 200 });
    await until(() => origin.open.size === 0, 'the end of the connection');
  });

  test('bytes behind an answer are not the next one (A13, R40)', async () => {
    await using origin = await startRawOrigin(async peer => {
      await peer.readUntil('\r\n\r\n');
      peer.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil');
    });
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    for (let i = 0; i < 3; i++) {
      client.write(get(origin.url('/')));
      expect((await client.readAnswer()).text).toBe('ok');
    }
    expect(origin.accepted).toBe(3);
  });

  test('bytes on an idle connection are not the next answer either', async () => {
    await using origin = await startRawOrigin(async peer => {
      await peer.readUntil('\r\n\r\n');
      peer.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok');
      await wait(20);
      peer.write('HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil');
    });
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(get(origin.url('/')));
    expect((await client.readAnswer()).text).toBe('ok');
    await wait(80);
    client.write(get(origin.url('/')));
    expect((await client.readAnswer()).text).toBe('ok');
    expect(origin.accepted).toBe(2);
  });

  test('a bad chunk of a request never completes it at the origin (A11)', async () => {
    await using origin = await startOrigin();
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(post(origin.url('/'), 'Transfer-Encoding: chunked\r\n', '3\r\nabc\r\nzz\r\n'));
    expect(await client.readAnswer()).toMatchObject({ status: 400, headers: { connection: 'close' } });
    expect(await client.closed()).toBe('ended');
    expect(origin.requests.length).toBe(0);
  });
});

describe('a browser that leaves', () => {
  test('while the origin thinks ends the request there, and has a row (A88)', async () => {
    await using origin = await startRawOrigin(() => {});
    await using proxy = await startProxy({ limits: { halfClosedTimeout: 0.2 } });
    await using client = await connectRaw(proxy.port);
    client.write(get(origin.url('/')));
    await until(() => origin.open.size === 1, 'the request');
    client.close();
    await until(() => origin.open.size === 0, 'the end of the request');
    expect(await proxy.exchange(0)).toMatchObject({ fault: 'downstream_gone', status: null });
  });

  test('during the answer ends it at the origin', async () => {
    await using origin = await startOrigin((_, response) => {
      response.write('a');
    });
    await using proxy = await startProxy({ limits: { halfClosedTimeout: 0.2 } });
    await using client = await connectRaw(proxy.port);
    client.write(get(origin.url('/')));
    await client.readUntil('a');
    client.close();
    await until(() => origin.open.size === 0, 'the end of the answer');
    expect(await proxy.exchange(0)).toMatchObject({ fault: 'downstream_gone', status: 200 });
  });

  test('during its upload ends it at the origin', async () => {
    await using origin = await startRawOrigin(() => {});
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(post(origin.url('/'), 'Content-Length: 1000\r\n', 'abc'));
    await until(() => origin.open.size === 1, 'the request');
    client.close();
    await until(() => origin.open.size === 0, 'the end of the request');
    expect((await proxy.exchange(0)).fault).toBe('downstream_gone');
  });

  test('while a connection is made ends that', async () => {
    let aborted = false;
    await using proxy = await startProxy({
      limits: { halfClosedTimeout: 0.2 },
      rooms: {
        dial: ({ signal }) =>
          new Promise((_, reject) => {
            signal.addEventListener('abort', () => {
              aborted = true;
              reject(signal.reason as Error);
            });
          }),
      },
    });
    await using client = await connectRaw(proxy.port);
    client.write(get('http://a.test/'));
    await wait(50);
    client.close();
    expect((await proxy.exchange(0)).fault).toBe('downstream_gone');
    expect(aborted).toBe(true);
  });
});

describe('a pooled connection', () => {
  test('that died meanwhile is replaced without the browser noticing (R45)', async () => {
    await using origin = await startRawOrigin(async (peer, index) => {
      await peer.readUntil('\r\n\r\n');
      peer.write(`HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n${index}`);
      if (index > 0) return;
      // Takes the next request and dies of it.
      await peer.readUntil('\r\n\r\n');
      peer.socket.resetAndDestroy();
    });
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(get(origin.url('/')));
    expect((await client.readAnswer()).text).toBe('0');
    client.write(get(origin.url('/')));
    expect((await client.readAnswer()).text).toBe('1');
  });

  test('does not get a POST twice (R14)', async () => {
    let posts = 0;
    await using origin = await startRawOrigin(async peer => {
      while (true) {
        const head = await peer.readUntil('\r\n\r\n');
        if (head.startsWith('POST')) {
          posts++;
          peer.socket.resetAndDestroy();
          return;
        }
        peer.write('HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n0');
      }
    });
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(get(origin.url('/')));
    await client.readAnswer();
    client.write(post(origin.url('/'), 'Content-Length: 3\r\n', 'abc'));
    expect((await client.readAnswer()).status).toBe(502);
    expect(posts).toBe(1);
  });
});

describe('a connection that is logged in by itself (RFC 4559)', () => {
  test.each([
    ['by the request', 'Authorization: NTLM TlRMTVNT\r\n', {}],
    ['by the answer', '', { 'www-authenticate': 'Basic realm="a, b", Negotiate' }],
  ])('A60: serves the client who did so and nobody else: %s', async (_, line, headers) => {
    await using origin = await startOrigin((_request, response) => response.writeHead(200, headers).end('hello'));
    await using proxy = await startProxy();
    await using mine = await connectRaw(proxy.port);
    await using other = await connectRaw(proxy.port);
    mine.write(get(origin.url('/1'), line));
    await mine.readAnswer();
    other.write(get(origin.url('/2')));
    await other.readAnswer();
    mine.write(post(origin.url('/3'), 'Content-Length: 1\r\n', 'x'));
    await mine.readAnswer();
    const [first, second, third] = origin.requests.map(one => one.from);
    expect(second).not.toBe(first);
    expect(third).toBe(first);
  });

  test.each(['Basic bnRsbSxuZWdvdGlhdGU=', 'Bearer ntlm', 'Digest realm="x, ntlmish"'])(
    'one whose requests are logged in each for itself serves all: %s',
    async value => {
      await using origin = await startOrigin();
      await using proxy = await startProxy();
      await using mine = await connectRaw(proxy.port);
      await using other = await connectRaw(proxy.port);
      mine.write(get(origin.url('/1'), `Authorization: ${value}\r\n`));
      await mine.readAnswer();
      other.write(get(origin.url('/2')));
      await other.readAnswer();
      expect(origin.accepted).toBe(1);
    },
  );
});

describe('a chain whose last hop is http', () => {
  const through = (...chains: Chain[]) => ({ routeOf: () => ({ name: 'r', chains, behindHops: true, route: null }) });

  test('gets the request in absolute-form with its own credentials (A60)', async () => {
    await using hop = await startOrigin((_, response) => response.end('by hop'));
    const chain = { key: 'h', hops: [hopOf('h', hop.port, { username: 'me', password: 'p:ä' })] };
    await using proxy = await startProxy({ rooms: through(chain) });
    await using client = await connectRaw(proxy.port);
    for (const url of ['http://a.test/x', 'http://b.test:8080/']) {
      client.write(get(url, 'Proxy-Authorization: Basic browser\r\n'));
      expect((await client.readAnswer()).text).toBe('by hop');
    }
    expect(hop.requests.map(one => one.url)).toEqual(['http://a.test/x', 'http://b.test:8080/']);
    expect(hop.requests.map(one => one.headers['host'])).toEqual(['a.test', 'b.test:8080']);
    const basic = `Basic ${Buffer.from('me:p:ä').toString('base64')}`;
    expect(hop.requests.map(one => one.headers['proxy-authorization'])).toEqual([basic, basic]);
    expect(hop.accepted).toBe(1);
  });

  test('that refuses leads to the next chain, which has never seen the first one’s password (A62)', async () => {
    await using no = await startOrigin((_, response) =>
      response.writeHead(403, { 'X-Squid-Error': 'ERR_ACCESS_DENIED 0' }).end('no'),
    );
    await using yes = await startOrigin((_, response) => response.end('yes'));
    await using proxy = await startProxy({
      rooms: {
        ...through(
          { key: 'no', hops: [hopOf('no', no.port, { username: 'secret', password: 'x' })] },
          { key: 'yes', hops: [hopOf('yes', yes.port)] },
        ),
      },
    });
    await using client = await connectRaw(proxy.port);
    client.write(get('http://a.test/'));
    expect((await client.readAnswer()).text).toBe('yes');
    expect(yes.requests[0]!.headers['proxy-authorization']).toBeUndefined();
    expect(proxy.exchanges[0]!.attempts).toMatchObject([
      { chain: ['no'], outcome: 'hop_refused', stage: 'response' },
      { chain: ['yes'], outcome: 'ok' },
    ]);
  });

  test('that refuses a streamed body does not get the next chain half of it', async () => {
    await using no = await startRawOrigin(async peer => {
      await peer.readUntil('\r\n\r\n');
      peer.write('HTTP/1.1 403 No\r\nX-Squid-Error: x\r\nContent-Length: 0\r\n\r\n');
    });
    await using yes = await startOrigin();
    await using proxy = await startProxy({
      rooms: {
        ...through({ key: 'no', hops: [hopOf('no', no.port)] }, { key: 'yes', hops: [hopOf('yes', yes.port)] }),
        refusals: {
          ofAnswer: (_head, { hop }) => new Fault('hop_refused', { hop: hop!.name }),
          wasForwarded: () => false,
          learn: () => {},
        },
      },
    });
    await using client = await connectRaw(proxy.port);
    client.write(post('http://a.test/', 'Content-Length: 1000\r\n', 'abc'));
    expect((await client.readAnswer()).status).toBe(502);
    expect(yes.accepted).toBe(0);
  });
});

describe('CONNECT', () => {
  const connectTo = (authority: string) => `CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\n\r\n`;

  test('opens a blind tunnel that carries early bytes in order, and counts them (A29)', async () => {
    await using origin = await startRawOrigin(async peer => {
      peer.write('early ');
      const said = await peer.read(9);
      peer.write(`heard ${said.toString()}`);
      peer.end();
    });
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(`${connectTo(origin.authority)}first`);
    expect(await client.readUntil('\r\n\r\n')).toBe('HTTP/1.1 200 Connection established\r\n\r\n');
    await until(() => proxy.opened.length === 1, 'the record of the tunnel');
    expect(proxy.opened[0]).toMatchObject({ kind: 'connect', url: origin.authority, status: 200 });
    client.write(' two');
    expect((await client.readAll()).toString()).toBe('early heard first two');
    client.end();
    expect(await proxy.exchange(0)).toMatchObject({
      kind: 'connect',
      status: 200,
      bytesUp: 9,
      bytesDown: 21,
      fault: undefined,
    });
  });

  test('bytes that came glued to a hop’s yes come first (A27, A29)', async () => {
    await using origin = await startRawOrigin(peer => peer.write('B'));
    await using proxy = await startProxy({
      rooms: { dial: async (...all) => ({ ...(await directDial(...all)), rest: Buffer.from('A') }) },
    });
    await using client = await connectRaw(proxy.port);
    client.write(connectTo(origin.authority));
    await client.readUntil('\r\n\r\n');
    expect((await client.read(2)).toString()).toBe('AB');
  });

  test('half-closes either way, and drains (A30, R16)', async () => {
    await using origin = await startRawOrigin(async peer => {
      const all = await peer.readAll();
      await wait(30);
      peer.write(`got ${all.length}`);
      peer.end();
    });
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(connectTo(origin.authority));
    await client.readUntil('\r\n\r\n');
    client.write(Buffer.alloc(1_000_000));
    client.end();
    expect((await client.readAll()).toString()).toBe('got 1000000');
    await until(() => proxy.listener.connections === 0 && origin.open.size === 0, 'the end of both');
    expect(await proxy.exchange(0)).toMatchObject({ bytesUp: 1_000_000, bytesDown: 11 });

    await using other = await startRawOrigin(async peer => {
      peer.write('bye');
      peer.end();
      expect((await peer.readAll()).toString()).toBe('still here');
    });
    await using second = await connectRaw(proxy.port);
    second.write(connectTo(other.authority));
    await second.readUntil('\r\n\r\n');
    expect((await second.readAll()).toString()).toBe('bye');
    second.write('still here');
    second.end();
    await until(() => proxy.listener.connections === 0 && other.open.size === 0, 'the end of both');
  });

  test('passes a reset on, either way (A30)', async () => {
    await using origin = await startRawOrigin(async peer => {
      await peer.read(1);
      peer.socket.resetAndDestroy();
    });
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(connectTo(origin.authority));
    await client.readUntil('\r\n\r\n');
    client.write('x');
    expect(await client.closed()).toBe('reset');

    await using quiet = await startRawOrigin(() => {});
    await using second = await connectRaw(proxy.port);
    second.write(connectTo(quiet.authority));
    await second.readUntil('\r\n\r\n');
    await until(() => quiet.peers.length === 1, 'the connection');
    second.socket.resetAndDestroy();
    expect(await quiet.peers[0]!.closed()).toBe('reset');
  });

  test('carries much, both ways at once, unharmed', async () => {
    const bytes = Buffer.from(Array.from({ length: 8 * 1024 * 1024 }, (_, i) => (i * 7 + (i >> 8)) & 255));
    const hash = createHash('sha256').update(bytes).digest('hex');
    await using origin = await startRawOrigin(peer => {
      // An echo with back-pressure of its own.
      peer.socket.removeAllListeners('data');
      peer.socket.pipe(peer.socket);
    });
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(connectTo(origin.authority));
    await client.readUntil('\r\n\r\n');
    client.write(bytes);
    const back = await client.read(bytes.length, 20_000);
    expect(createHash('sha256').update(back).digest('hex')).toBe(hash);
  });

  test('that is refused ends the connection, and what follows is not read as a request (A26)', async () => {
    await using origin = await startOrigin();
    await using proxy = await startProxy({
      rooms: {
        dial: () => Promise.reject(new Fault('connection_timeout', { target: { host: 'a.test', port: 443 } })),
      },
    });
    await using client = await connectRaw(proxy.port);
    client.write(connectTo('a.test:443') + get(origin.url('/smuggled')));
    expect(await client.readAnswer()).toMatchObject({
      status: 504,
      headers: { connection: 'close', 'proxy-status': expect.stringContaining('error=connection_timeout') },
    });
    expect((await client.readAll()).length).toBe(0);
    expect(origin.requests.length).toBe(0);
    expect(await proxy.exchange(0)).toMatchObject({ status: 504, fault: 'connection_timeout' });
  });

  test('to a blocked host is a 403 that says so, and the record names the rule', async () => {
    const because = { rule: 'rules[0]', text: 'ads.test' };
    await using proxy = await startProxy({
      rooms: {
        decide: () => ({
          steered: true,
          route: 'block',
          filter: 'standard',
          cache: 'off',
          inspect: false,
          because,
          blockedBy: because,
        }),
      },
    });
    await using client = await connectRaw(proxy.port);
    client.write(connectTo('ads.test:443'));
    const answer = await client.readAnswer();
    expect(answer.status).toBe(403);
    expect(answer.headers['proxy-status']).toContain('detour; error=http_request_denied');
    expect(await proxy.exchange(0)).toMatchObject({ blockedBy: because, status: 403, fault: undefined });
    await using second = await connectRaw(proxy.port);
    second.write(get('http://ads.test/'));
    expect(await second.readAnswer()).toMatchObject({ status: 403, text: 'blocked ads.test' });
    expect(await proxy.exchange(1)).toMatchObject({ blockedBy: because, status: 403, fault: undefined });
  });

  test('with our own mark is a loop', async () => {
    await using proxy = await startProxy({ rooms: { comesFromUs: head => head.fields.has('via') } });
    await using client = await connectRaw(proxy.port);
    client.write('CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\r\nVia: 1.1 us\r\n\r\n');
    expect(await client.readAnswer()).toMatchObject({
      status: 502,
      headers: { 'proxy-status': expect.stringContaining('proxy_loop_detected') },
    });
  });

  test('without traffic is closed after a while', async () => {
    await using origin = await startRawOrigin(() => {});
    await using proxy = await startProxy({ limits: { tunnelIdleTimeout: 0.1 } });
    await using client = await connectRaw(proxy.port);
    client.write(connectTo(origin.authority));
    await client.readUntil('\r\n\r\n');
    await client.closed();
    await until(() => origin.open.size === 0, 'the end of the other side');
  });
});

describe('Upgrade', () => {
  test('leads to a blind pipe after the 101, early bytes first', async () => {
    await using origin = await startRawOrigin(async peer => {
      const head = await peer.readUntil('\r\n\r\n');
      expect(head).toContain('Connection: Upgrade\r\nUpgrade: x/1\r\n');
      peer.write('HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x/1\r\n\r\nhi ');
      peer.write(await peer.read(3));
      peer.end();
    });
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(`${get(origin.url('/'), 'Connection: keep-alive, Upgrade\r\nUpgrade: h2c, x/1\r\n')}abc`);
    expect(await client.readUntil('\r\n\r\n')).toContain('Connection: Upgrade\r\nUpgrade: x/1\r\n');
    expect((await client.readAll()).toString()).toBe('hi abc');
    client.end();
    expect(await proxy.exchange(0)).toMatchObject({ kind: 'upgrade', status: 101 });
  });

  test('that the origin does not take is a plain answer; h2c is never asked for (A32)', async () => {
    await using origin = await startOrigin();
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(get(origin.url('/'), 'Connection: Upgrade\r\nUpgrade: x/1\r\n'));
    expect((await client.readAnswer()).text).toBe('hello');
    client.write(get(origin.url('/'), 'Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n'));
    expect((await client.readAnswer()).text).toBe('hello');
    expect(origin.requests[1]!.headers).toEqual({ host: origin.authority });
  });

  test('without the fields of a 101 has failed (A31)', async () => {
    await using origin = await startRawOrigin(async peer => {
      await peer.readUntil('\r\n\r\n');
      peer.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: x/1\r\n\r\n');
    });
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(get(origin.url('/'), 'Connection: Upgrade\r\nUpgrade: x/1\r\n'));
    expect((await client.readAnswer()).status).toBe(502);
    await until(() => origin.open.size === 0, 'the end');
  });

  test('carries a real WebSocket', async () => {
    const server = new WebSocketServer({ port: 0, host: '127.0.0.1' });
    server.on('connection', socket => socket.on('message', data => socket.send(`echo ${String(data as Buffer)}`)));
    await new Promise(resolve => server.once('listening', resolve));
    const { port } = server.address() as { port: number };
    await using proxy = await startProxy();
    // A client that connects to the proxy and asks it in absolute-form, as no browser does for ws: but other programs do.
    const agent = new Agent();
    agent.createConnection = () => connect(proxy.port, '127.0.0.1');
    const url = `ws://127.0.0.1:${port}/chat`;
    const echo = await new Promise<string>((resolve, reject) => {
      const socket = new WebSocket(url, {
        agent,
        finishRequest: request => {
          request.path = url.replace('ws:', 'http:');
          request.end();
        },
      });
      socket.on('open', () => socket.send('x'.repeat(70_000)));
      socket.on('message', data => {
        resolve(String(data as Buffer));
        socket.close();
      });
      socket.on('error', reject);
    });
    expect(echo).toBe(`echo ${'x'.repeat(70_000)}`);
    expect(await proxy.exchange(0)).toMatchObject({ kind: 'upgrade', status: 101 });
    server.close();
  });
});

describe('curl', () => {
  test('gets, posts, and tunnels through it', async () => {
    await using origin = await startOrigin((request, response, body) =>
      response.end(`${request.method} ${body.length}`),
    );
    await using proxy = await startProxy();
    const at = `http://127.0.0.1:${proxy.port}`;
    const curl = async (...args: string[]) =>
      (await run('curl', ['-s', '-S', '--noproxy', '', '-x', at, ...args])).stdout;
    expect(await curl(origin.url('/'))).toBe('GET 0');
    expect(await curl('-d', 'x'.repeat(2_000), origin.url('/'))).toBe('POST 2000');
    expect(await curl('-H', 'Expect: 100-continue', '-d', 'x', origin.url('/'))).toBe('POST 1');
    expect(await curl('-H', 'Transfer-Encoding: chunked', '-d', 'xyz', origin.url('/'))).toBe('POST 3');
    expect(await curl('-p', origin.url('/'))).toBe('GET 0');
    expect(await curl('-0', origin.url('/'))).toBe('GET 0');
    expect(await curl('-I', origin.url('/'))).toContain('200 OK');
  });
});
