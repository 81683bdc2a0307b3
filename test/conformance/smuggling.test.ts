// A1–A22: messages that two parsers might read differently. Each is sent in one piece and byte by byte, with a request glued behind it that must
// never be taken for one.
import { describe, expect, test } from 'vitest';
import { startOrigin, startRawOrigin } from '../support/origin.ts';
import { connectRaw } from '../support/raw-client.ts';
import { directDial, startProxy } from '../support/with-proxy.ts';
import { type Cut, CUTS, expectRefused, get, post, say, startListeningOrigin, until, wait } from './talk.ts';

/** Every one of these requests (made for a URL) is refused with one of these statuses. */
async function allRefused(attacks: readonly ((url: string) => string)[], statuses: readonly number[], cut: Cut) {
  await using origin = await startListeningOrigin();
  await using proxy = await startProxy();
  for (const attack of attacks) await expectRefused(proxy, origin, attack(origin.url('/')), statuses, cut);
  // The proxy is well, and so is the way to the origin.
  await using client = await connectRaw(proxy.port);
  client.write(get(origin.url('/after')));
  expect((await client.readAnswer()).text).toBe('ok');
}

/** An answer with these bytes, asked for by one client; then another asks on. The second must get the origin's second answer and nothing else. */
async function answered(bytes: string, cut: Cut = 'in one piece', method = 'GET') {
  let connections = 0;
  await using origin = await startRawOrigin(async peer => {
    const isFirst = connections++ === 0;
    await peer.readUntil('\r\n\r\n');
    if (isFirst) {
      await say(peer, bytes, cut);
      // Whoever sends a second request on this connection gets what must never be sent on.
      await peer.readUntil('\r\n\r\n').catch(() => {});
      if (!peer.socket.destroyed) peer.write('HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nREUSED');
    } else peer.write('HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond');
  });
  await using proxy = await startProxy();
  await using first = await connectRaw(proxy.port);
  first.write(`${method} ${origin.url('/')} HTTP/1.1\r\nHost: x\r\n\r\n`);
  const answer = await first.readAnswer(method).catch((error: Error) => error);
  await wait(20);
  await using second = await connectRaw(proxy.port);
  second.write(get(origin.url('/')));
  const other = await second.readAnswer();
  return {
    answer,
    status: answer instanceof Error ? 0 : answer.status,
    next: other.text,
    extra: first.peek().toString(),
  };
}

const chunkedPost = (url: string, more: string, body: string) =>
  post(url, `Transfer-Encoding: chunked\r\n${more}`, body);
const CHUNKED_BODY = '3\r\nabc\r\n0\r\n\r\n';

describe.each(CUTS)('requests that could be read in two ways, %s', cut => {
  test('A1, R37: Content-Length with Transfer-Encoding is refused, and the next hop never sees both', () =>
    allRefused(
      [
        url => chunkedPost(url, 'Content-Length: 13\r\n', CHUNKED_BODY),
        url => post(url, 'Content-Length: 5\r\nTransfer-Encoding: chunked\r\n', '0\r\n\r\nG'),
        url => chunkedPost(url, 'Content-Length: 0\r\n', CHUNKED_BODY),
        url => post(url, 'Content-Length: 3\r\nTransfer-Encoding: identity\r\n', 'abc'),
        url => post(url, 'Content-Length: 3\r\nTransfer-Encoding:\r\n', 'abc'),
        url => `GET ${url} HTTP/1.1\r\nHost: x\r\ncontent-length: 3\r\ntransfer-encoding: CHUNKED\r\n\r\nabc`,
      ],
      [400],
      cut,
    ));

  test('A2: Content-Lengths that differ are refused', () =>
    allRefused(
      [
        url => post(url, 'Content-Length: 5\r\nContent-Length: 6\r\n', 'abcdef'),
        url => post(url, 'Content-Length: 5, 6\r\n', 'abcdef'),
        url => post(url, 'Content-Length: 5,\r\n', 'abcde'),
        url => post(url, 'Content-Length: 5\r\nX: y\r\ncontent-length: 05\r\n', 'abcde'),
      ],
      [400],
      cut,
    ));

  test('A3, R39: a Content-Length that is no plain number is refused', () =>
    allRefused(
      [
        '+3',
        '-3',
        '3 3',
        '0x3',
        '3.0',
        '3e0',
        '',
        '12345678901234567890',
        '99999999999999999999',
        '３',
        '3;',
        '"3"',
        ' ,3',
      ].map(
        length => (url: string) => post(url, `Content-Length: ${Buffer.from(length).toString('latin1')}\r\n`, 'abc'),
      ),
      [400],
      cut,
    ));

  test('A4, R36: a Transfer-Encoding that does not end in one chunked is refused', () =>
    allRefused(
      [
        'chunked, gzip',
        'gzip, chunked',
        'xchunked',
        'chunked, chunked',
        'gzip',
        'identity',
        'chunked;q=1',
        'chunked,',
        '"chunked"',
        'chunk\x0bed',
      ]
        .map(coding => (url: string) => post(url, `Transfer-Encoding: ${coding}\r\n`, CHUNKED_BODY))
        .concat([url => post(url, 'Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n', CHUNKED_BODY)]),
      [400, 501],
      cut,
    ));

  test('A5, R34: white space before the colon is refused', () =>
    allRefused(
      [
        url => get(url, 'X : y\r\n'),
        url => get(url, 'X\t: y\r\n'),
        url => post(url, 'Transfer-Encoding : chunked\r\n', CHUNKED_BODY),
        url => post(url, 'Content-Length : 3\r\n', 'abc'),
        url => post(url, 'Content-Length\x0b: 3\r\n', 'abc'),
      ],
      [400],
      cut,
    ));

  test('A6: a field name with a byte that none may have is refused', () =>
    allRefused(
      [
        'X\x01Y: z',
        'X\x7fY: z',
        'Content\xadLength: 3',
        'Content\xe2\x80\x90Length: 3',
        'X(Y: z',
        'X@Y: z',
        ': z',
        'X Y: z',
        '"X": z',
        'X\xa0: z',
      ].map(line => (url: string) => get(url, `${line}\r\n`)),
      [400],
      cut,
    ));

  test('A7, R35: a folded line is refused', () =>
    allRefused(
      [
        url => get(url, 'X: a\r\n b\r\n'),
        url => get(url, 'X: a\r\n\tb\r\n'),
        url => post(url, 'Transfer-Encoding:\r\n chunked\r\n', CHUNKED_BODY),
        url => post(url, 'X: a\r\n Content-Length: 3\r\n', 'abc'),
      ],
      [400],
      cut,
    ));

  test('A8, R3, R28: a bare CR, a bare LF and a NUL are refused wherever they stand', () =>
    allRefused(
      [
        url => get(url, 'X: a\rb\r\n'),
        url => get(url, 'X: a\nY: b\r\n'),
        url => get(url, 'X: a\0b\r\n'),
        url => get(url, 'X: a\r\r\n'),
        url => `GET ${url} HTTP/1.1\nHost: x\n\n`,
        url => `GET ${url} HTTP/1.1\r\nHost: x\n\r\n`,
        url => `GET ${url} HTTP/1.1\rHost: x\r\n\r\n`,
        url => `GET ${url}\0 HTTP/1.1\r\nHost: x\r\n\r\n`,
        url => `GE\0T ${url} HTTP/1.1\r\nHost: x\r\n\r\n`,
        url => get(url, 'X: a\r\n\n'),
      ],
      [400],
      cut,
    ));

  test('A9, R28: white space before the first field is refused', () =>
    allRefused(
      [
        url => `GET ${url} HTTP/1.1\r\n Host: x\r\n\r\n`,
        url => `GET ${url} HTTP/1.1\r\n\tX: y\r\nHost: x\r\n\r\n`,
        url => `GET ${url} HTTP/1.1\r\n \r\nHost: x\r\n\r\n`,
      ],
      [400],
      cut,
    ));

  test('A10: Transfer-Encoding in HTTP/1.0 is refused', () =>
    allRefused(
      [
        url => `POST ${url} HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n${CHUNKED_BODY}`,
        url =>
          `POST ${url} HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n${CHUNKED_BODY}`,
      ],
      [400],
      cut,
    ));

  test('A17, R31: no Host, two, or one that is none, is refused', () =>
    allRefused(
      [
        url => `GET ${url} HTTP/1.1\r\n\r\n`,
        url => `GET ${url} HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n`,
        url => `GET ${url} HTTP/1.1\r\nHost: x, y\r\n\r\n`,
        url => `GET ${url} HTTP/1.1\r\nHost: x y\r\n\r\n`,
        url => `GET ${url} HTTP/1.1\r\nHost: u@x\r\n\r\n`,
        url => `GET ${url} HTTP/1.1\r\nHost: x/y\r\n\r\n`,
        url => `GET ${url} HTTP/1.1\r\nHost: x:99999\r\n\r\n`,
        url => `GET ${url} HTTP/1.1\r\nHost:\r\n\r\n`,
      ],
      [400],
      cut,
    ));

  test('R30: a request line that is none is refused, not put right', () =>
    allRefused(
      [
        url => `GET  ${url} HTTP/1.1\r\nHost: x\r\n\r\n`,
        url => `GET ${url}  HTTP/1.1\r\nHost: x\r\n\r\n`,
        url => `GET\t${url}\tHTTP/1.1\r\nHost: x\r\n\r\n`,
        url => `GET ${url} HTTP/1.1 \r\nHost: x\r\n\r\n`,
        url => `GET ${url} http/1.1\r\nHost: x\r\n\r\n`,
        url => `GET ${url} HTTP/1.01\r\nHost: x\r\n\r\n`,
        url => `GET ${url}a b HTTP/1.1\r\nHost: x\r\n\r\n`,
        url => `GET ${url}\r\nHost: x\r\n\r\n`,
      ],
      [400],
      cut,
    ));
});

describe('what is only unusual', () => {
  test('A2: equal Content-Lengths become one', async () => {
    await using origin = await startOrigin((_, response, body) => response.end(body));
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    for (const lengths of ['Content-Length: 3\r\nContent-Length: 3\r\n', 'Content-Length: 3, 3\r\n']) {
      client.write(post(origin.url('/'), lengths, 'abc'));
      expect((await client.readAnswer()).text).toBe('abc');
      const names = origin.requests.at(-1)!.rawHeaders.filter((_, i) => i % 2 === 0);
      expect(names.filter(name => name.toLowerCase() === 'content-length')).toHaveLength(1);
      expect(origin.requests.at(-1)!.headers['content-length']).toBe('3');
    }
  });

  test.each(['chunked', 'Chunked', 'CHUNKED', 'chunked ', '\tchunked'])(
    'A4: %j is chunked, whatever its case and the white space around it',
    async coding => {
      await using origin = await startOrigin((_, response, body) => response.end(body));
      await using proxy = await startProxy();
      await using client = await connectRaw(proxy.port);
      client.write(post(origin.url('/'), `Transfer-Encoding:${coding}\r\n`, CHUNKED_BODY) + get(origin.url('/next')));
      expect((await client.readAnswer()).text).toBe('abc');
      expect((await client.readAnswer()).status).toBe(200);
      expect(origin.requests.map(one => one.url)).toEqual(['/', '/next']);
      expect(origin.requests[0]!.headers['transfer-encoding'] ?? 'chunked').toBe('chunked');
    },
  );

  test('R28: one empty line before a request is let pass, two are not', async () => {
    await using origin = await startListeningOrigin();
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(`\r\n${get(origin.url('/'))}\r\n${get(origin.url('/'))}`);
    expect((await client.readAnswer()).status).toBe(200);
    expect((await client.readAnswer()).status).toBe(200);
    origin.forget();
    await using other = await connectRaw(proxy.port);
    other.write(`\r\n\r\n${get(origin.url('/'))}`);
    expect((await other.readAll()).toString()).toMatch(/^HTTP\/1\.1 400 /);
    expect(origin.heard).toBe('');
  });
});

describe.each(CUTS)('chunks that are none, %s', cut => {
  const bad: Record<string, string> = {
    'a size beyond 64 bits': 'FFFFFFFFFFFFFFFFF\r\nabc',
    'a size of 2^63': '8000000000000003\r\nabc\r\n0\r\n\r\n',
    'a size below zero': '-3\r\nabc\r\n0\r\n\r\n',
    'a plus': '+3\r\nabc\r\n0\r\n\r\n',
    'an underscore': '1_0\r\nabc\r\n0\r\n\r\n',
    'a 0x': '0x3\r\nabc\r\n0\r\n\r\n',
    'junk behind the size': '3 x\r\nabc\r\n0\r\n\r\n',
    'white space before the size': ' 3\r\nabc\r\n0\r\n\r\n',
    'no size': '\r\nabc\r\n0\r\n\r\n',
    'an LF for CRLF': '3\nabc\n0\n\n',
    'a size ended by a CR alone': '3\rabc\r\n0\r\n\r\n',
  };
  const badExtensions: Record<string, string> = {
    'an extension with an LF': '3;a\nb\r\nabc\r\n0\r\n\r\n',
    'an extension with a CR': '3;a\rb\r\nabc\r\n0\r\n\r\n',
    'an extension with a NUL': '3;a=\0\r\nabc\r\n0\r\n\r\n',
    'an extension that is too long': `3;a=${'b'.repeat(70_000)}\r\nabc\r\n0\r\n\r\n`,
    'a chunk longer than its size': '3\r\nabcdef\r\n0\r\n\r\n',
    'a chunk without its CRLF': '3\r\nabc0\r\n\r\n',
    'a chunk ended by an LF': '3\r\nabc\n0\r\n\r\n',
    'a last chunk behind which no line is empty': '3\r\nabc\r\n0\r\nG /x HTTP/1.1\r\n\r\n',
  };

  /** Whatever of it has gone on, it never became a whole request at the origin, and nothing behind it one either. */
  async function neverWhole(body: string) {
    let heard = '';
    await using origin = await startRawOrigin(peer => {
      peer.socket.on('data', (chunk: Buffer) => (heard += chunk.toString('latin1')));
    });
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    const long = body.length > 1000;
    await say(
      client,
      chunkedPost(origin.url('/'), '', body) + get(origin.url('/smuggled')),
      long ? 'in one piece' : cut,
    );
    const answer = await client.readAnswer();
    expect(answer.status).toBe(400);
    expect((await client.readAll()).toString()).toBe('');
    expect(heard).not.toContain('0\r\n\r\n');
    expect(heard).not.toContain('smuggled');
  }

  test.each(Object.entries(bad))('A11, R41: %s, in a request', (_, body) => neverWhole(body));
  test.each(Object.entries(badExtensions))('A12, R41: %s, in a request', (_, body) => neverWhole(body));

  test.each([...Object.entries(bad), ...Object.entries(badExtensions)])(
    'A11, A12: %s, in an answer: never whole, and the connection serves no other',
    async (_, body) => {
      const { answer, status, next } = await answered(
        `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n${body}`,
        body.length > 1000 ? 'in one piece' : cut,
      );
      // Cut off in the middle of a body where some of it was out already.
      expect(answer instanceof Error || status === 502, String(status)).toBe(true);
      expect(next).toBe('second');
    },
  );

  test('A12, R41: extensions nobody knows are not sent on', async () => {
    await using origin = await startRawOrigin(async peer => {
      const heard = await peer.readUntil('0\r\n\r\n');
      const body = heard.slice(heard.indexOf('\r\n\r\n') + 4);
      peer.write(`HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n\r\n${body}`);
    });
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    await say(client, chunkedPost(origin.url('/'), '', '3;a=b;c="d e"\r\nabc\r\n0;last\r\n\r\n'), cut);
    const answer = await client.readAnswer();
    expect(answer.text.replace(/[\r\n01]/g, '').replace('3', '')).toBe('abc');
  });
});

describe('answers that could be read in two ways', () => {
  const OK = 'HTTP/1.1 200 OK\r\n';
  const smuggled = 'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL';

  test.each([
    ['A1, A13, R37: both lengths', `${OK}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n${CHUNKED_BODY}`],
    ['A2, A13: two lengths', `${OK}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd`],
    ['A3, R39: a length with a sign', `${OK}Content-Length: +3\r\n\r\nabc`],
    ['A3, R39: a length of nothing', `${OK}Content-Length:\r\n\r\nabc`],
    ['A3, R39: a length of 20 digits', `${OK}Content-Length: 99999999999999999999\r\n\r\nabc`],
    ['A4, R36: an unknown coding', `${OK}Transfer-Encoding: gzip\r\n\r\nabc`],
    ['A4, R36: chunked that is not the last', `${OK}Transfer-Encoding: chunked, gzip\r\n\r\n${CHUNKED_BODY}`],
    ['A4, R36: chunked twice', `${OK}Transfer-Encoding: chunked, chunked\r\n\r\n${CHUNKED_BODY}`],
    ['A6: a control in a field name', `${OK}X\x01: y\r\nContent-Length: 0\r\n\r\n`],
    ['A7, R35: a folded line', `${OK}X: a\r\n b\r\nContent-Length: 0\r\n\r\n`],
    ['A8, R3: a bare CR', `${OK}X: a\rb\r\nContent-Length: 0\r\n\r\n`],
    ['A8, R3: a bare LF', `HTTP/1.1 200 OK\nContent-Length: 0\n\n`],
    ['A8, R3: a NUL', `${OK}X: a\0b\r\nContent-Length: 0\r\n\r\n`],
    ['A9: white space before the first field', `${OK} X: y\r\nContent-Length: 0\r\n\r\n`],
    ['A10: chunked in HTTP/1.0', `HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n${CHUNKED_BODY}`],
    ['R27: not HTTP at all', 'SSH-2.0-OpenSSH_9.9\r\n\r\n'],
    ['R27: HTTP/2 to a request in HTTP/1.1', 'HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n'],
    ['R27: a status of two digits', 'HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n'],
    ['R27: a status below 100', 'HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n'],
  ])('%s is a 502, and the connection serves no other', async (_, bytes) => {
    for (const cut of CUTS) {
      const { status, next, extra } = await answered(bytes, cut);
      expect(status, cut).toBe(502);
      expect(next, cut).toBe('second');
      expect(extra).toBe('');
    }
  });

  test('A5, R34: white space before the colon is taken out of an answer', async () => {
    const { answer, next } = await answered(`${OK}X-Odd \t: y\r\nContent-Length : 3\r\n\r\nabc`);
    expect(answer).toMatchObject({ text: 'abc', headers: { 'x-odd': 'y' } });
    expect((answer as { head: string }).head).toContain('X-Odd: y\r\n');
    expect(['second', 'REUSED']).toContain(next);
  });

  test.each([
    ['a length', `${OK}Content-Length: 3\r\n\r\nabc${smuggled}`, 'GET'],
    ['chunks', `${OK}Transfer-Encoding: chunked\r\n\r\n${CHUNKED_BODY}${smuggled}`, 'GET'],
    ['a length of 0', `${OK}Content-Length: 0\r\n\r\n${smuggled}`, 'GET'],
    ['204', `HTTP/1.1 204 No Content\r\n\r\n${smuggled}`, 'GET'],
    ['204 with a length', `HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nEVIL${smuggled}`, 'GET'],
    ['304', `HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\n${smuggled}`, 'GET'],
    ['HEAD', `${OK}Content-Length: 4\r\n\r\n${smuggled}`, 'HEAD'],
    ['one stray byte', `${OK}Content-Length: 3\r\n\r\nabc\n`, 'GET'],
  ])('A13, R40: bytes behind an answer framed by %s never become another answer', async (_, bytes, method) => {
    for (const cut of CUTS) {
      const { answer, next, extra } = await answered(bytes, cut, method);
      expect(answer, cut).not.toBeInstanceOf(Error);
      expect(extra, cut).toBe('');
      expect(next, cut).toBe('second');
    }
  });

  test('A13: bytes that come later, on the idle connection, cost it its place in the pool', async () => {
    let speak!: () => void;
    const spoken = new Promise<void>(resolve => (speak = resolve));
    await using origin = await startRawOrigin(async (peer, index) => {
      await peer.readUntil('\r\n\r\n');
      peer.write(`HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n${index}`);
      if (index > 0) return;
      await spoken;
      peer.write(smuggled);
    });
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(get(origin.url('/')));
    expect((await client.readAnswer()).text).toBe('0');
    expect(proxy.rooms.pool.counts.idle).toBe(1);
    speak();
    await until(() => proxy.rooms.pool.counts.open === 0, 'the end of the connection');
    client.write(get(origin.url('/')));
    expect((await client.readAnswer()).text).toBe('1');
  });
});

describe('one message after another', () => {
  test.each([
    'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno',
    'HTTP/1.1 401 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n',
  ])(
    'A14: an early answer (%j) to a body that is still coming ends the connection; the rest of the body is no request',
    async answer => {
      let heard = '';
      await using origin = await startRawOrigin(async peer => {
        heard += await peer.readUntil('\r\n\r\n');
        peer.write(answer);
        peer.socket.on('data', (chunk: Buffer) => (heard += chunk.toString('latin1')));
      });
      await using proxy = await startProxy();
      await using client = await connectRaw(proxy.port);
      client.write(post(origin.url('/'), 'Content-Length: 5000\r\n', 'x'.repeat(100)));
      expect(await client.readAnswer()).toMatchObject({ text: 'no', headers: { connection: 'close' } });
      client.write(get(origin.url('/smuggled')));
      expect((await client.readAll()).toString()).toBe('');
      expect(heard).not.toContain('GET');
      // Nor does the origin's connection take another request while half of this one is on it.
      await using other = await connectRaw(proxy.port);
      other.write(get(origin.url('/other')));
      await other.readAnswer();
      expect(origin.accepted).toBe(2);
    },
  );

  test('A15, R45: pipelined requests are answered in order, whatever they are', async () => {
    await using origin = await startOrigin((request, response, body) => {
      setTimeout(() => response.end(`${request.url} ${body.toString()}`), request.url!.endsWith('slow') ? 60 : 0);
    });
    await using proxy = await startProxy();
    for (const cut of CUTS) {
      await using client = await connectRaw(proxy.port);
      await say(
        client,
        get(origin.url('/1slow')) +
          `HEAD ${origin.url('/2')} HTTP/1.1\r\nHost: x\r\n\r\n` +
          post(origin.url('/3'), 'Content-Length: 3\r\n', 'abc') +
          post(origin.url('/4slow'), 'Transfer-Encoding: chunked\r\n', CHUNKED_BODY) +
          get('http://127.0.0.1:1/refused') +
          get(origin.url('/5')),
        cut,
      );
      expect((await client.readAnswer()).text).toBe('/1slow ');
      expect((await client.readAnswer('HEAD')).status).toBe(200);
      expect((await client.readAnswer()).text).toBe('/3 abc');
      expect((await client.readAnswer()).text).toBe('/4slow abc');
      expect((await client.readAnswer()).status).toBe(502);
      expect((await client.readAnswer()).text).toBe('/5 ');
    }
  });

  test('A16, R32: the URL wins over Host: at the origin, for the rules and in the log', async () => {
    await using origin = await startOrigin();
    const judged: string[] = [];
    await using proxy = await startProxy();
    const decide = proxy.rooms.decide;
    Object.assign(proxy.rooms, {
      decide: (target: Parameters<typeof decide>[0]) => {
        judged.push(target.host);
        return decide(target);
      },
    });
    await using client = await connectRaw(proxy.port);
    client.write(`GET ${origin.url('/')} HTTP/1.1\r\nHost: allowed.test\r\n\r\n`);
    await client.readAnswer();
    expect(origin.requests[0]!.headers['host']).toBe(origin.authority);
    expect(judged).toEqual(['127.0.0.1']);
    expect(await proxy.exchange(0)).toMatchObject({ host: '127.0.0.1', url: origin.url('/') });
  });

  test('A18: user information in a URL is refused, and is in no log', async () => {
    await using origin = await startListeningOrigin();
    await using proxy = await startProxy();
    for (const target of [
      'u:hunter2@127.0.0.1',
      'hunter2@127.0.0.1',
      ':hunter2@127.0.0.1',
      'u:hunter2%40x@127.0.0.1',
      'a@hunter2@127.0.0.1',
    ]) {
      await expectRefused(proxy, origin, get(`http://${target}:${origin.port}/`), [400], 'in one piece');
    }
    expect(JSON.stringify(proxy.exchanges)).not.toContain('hunter2');
  });
});

describe('hosts', () => {
  test('A19: a host is made normal once: what is judged, dialled, logged and sent is the same', async () => {
    await using origin = await startOrigin();
    const seen: string[][] = [];
    await using proxy = await startProxy({
      rooms: {
        dial: (one, target, absolute) => {
          seen.at(-1)!.push(target.host);
          return directDial(one, { ...target, host: '127.0.0.1' } as typeof target, absolute);
        },
      },
    });
    const decide = proxy.rooms.decide;
    Object.assign(proxy.rooms, {
      decide: (target: Parameters<typeof decide>[0]) => {
        seen.push([target.host]);
        return decide(target);
      },
    });
    await using client = await connectRaw(proxy.port);
    const spellings: [string, string][] = [
      ['EXAMPLE.test', 'example.test'],
      ['example.test.', 'example.test'],
      ['xn--bcher-kva.test', 'xn--bcher-kva.test'],
      ['0x7f.1', '127.0.0.1'],
      ['2130706433', '127.0.0.1'],
      ['127.1', '127.0.0.1'],
      ['0177.0.0.1', '127.0.0.1'],
      ['[::ffff:127.0.0.1]', '127.0.0.1'],
      ['[0:0::7F00:1]', '::7f00:1'],
    ];
    for (const [written, host] of spellings) {
      client.write(get(`HTTP://${written}:${origin.port}/`, 'Connection: keep-alive\r\n'));
      await client.readAnswer();
      // A pooled connection is dialled no more; then it was dialled for the same normal host.
      expect(new Set(seen.at(-1)), written).toEqual(new Set([host]));
      const shown = host.includes(':') ? `[${host}]` : host;
      expect(origin.requests.at(-1)!.headers['host'], written).toBe(`${shown}:${origin.port}`);
      expect(proxy.exchanges.at(-1)!.host, written).toBe(host);
    }
  });

  test.each(CUTS)('A19: a target that has no one reading is refused, %s', async cut => {
    await using origin = await startListeningOrigin();
    await using proxy = await startProxy();
    const at = `127.0.0.1:${origin.port}`;
    for (const target of [
      `http://127.0.0.1\\@evil.test/`,
      `http:\\\\${at}/`,
      `http://${at}\\x`,
      `http://${at}/a\\b`,
      `http://127.0.0.1%00.evil.test/`,
      `http://${at}/a b`,
      `http://${at}/a\tb`,
      `http://${at}/#fragment`,
      `http://b\xfccher.test/`,
      `http://[fe80::1%25eth0]/`,
      `http://[::1/`,
      `http://::1/`,
      `http://a..b/`,
      `http:///x`,
      `http:/${at}/`,
      `http://${at}:1/`,
      `http://127.0.0.1:0/`,
      `http://127.0.0.1:65536/`,
    ]) {
      await expectRefused(proxy, origin, get(target), [400], cut);
    }
  });
});

describe('fields', () => {
  test('A20: Connection cannot take away what frames, routes, authenticates or controls', async () => {
    await using origin = await startOrigin((_, response, body) => response.end(body));
    await using proxy = await startProxy();
    for (const named of [
      'close, host, content-length, authorization, connection',
      'Host, Content-Length, Content-Type, Cookie, Cache-Control, X-Secret',
      'connection, connection, Connection',
      'transfer-encoding, x-secret',
      ',,, x-secret,, content-length ,',
    ]) {
      await using client = await connectRaw(proxy.port);
      client.write(
        post(
          origin.url('/'),
          `Connection: ${named}\r\nContent-Length: 3\r\nAuthorization: Basic a\r\nCookie: c=1\r\nContent-Type: text/plain\r\nCache-Control: no-cache\r\nX-Secret: 1\r\n`,
          'abc',
        ),
      );
      expect((await client.readAnswer()).text).toBe('abc');
      const { headers } = origin.requests.at(-1)!;
      expect(headers).toMatchObject({
        host: origin.authority,
        'content-length': '3',
        authorization: 'Basic a',
        cookie: 'c=1',
        'content-type': 'text/plain',
        'cache-control': 'no-cache',
      });
      if (named.toLowerCase().includes('x-secret')) expect(headers['x-secret']).toBeUndefined();
    }
  });

  test('A20: nor can an answer’s Connection', async () => {
    const { answer, next } = await answered(
      'HTTP/1.1 200 OK\r\nConnection: content-length, set-cookie, cache-control, connection, x-hop\r\nContent-Length: 3\r\nSet-Cookie: a=b\r\nCache-Control: private\r\nX-Hop: 1\r\n\r\nabc',
    );
    expect(answer).toMatchObject({
      text: 'abc',
      headers: { 'set-cookie': 'a=b', 'cache-control': 'private', 'content-length': '3' },
    });
    expect((answer as { headers: Record<string, string> }).headers['x-hop']).toBeUndefined();
    expect(['second', 'REUSED']).toContain(next);
  });

  test('A21: heads beyond every measure are a 431 in constant memory, in both directions', async () => {
    await using origin = await startListeningOrigin();
    await using proxy = await startProxy();
    const many = Array.from({ length: 10_000 }, (_, i) => `X-${i}: y\r\n`).join('');
    const list = (name: string) => `${name}: ${'a,'.repeat(100_000)}\r\n`;
    for (const more of [
      `X: ${'y'.repeat(1_000_000)}\r\n`,
      many,
      list('Via'),
      list('X-Forwarded-For'),
      list('Connection'),
      'A: b\r\n'.repeat(201),
    ]) {
      await expectRefused(proxy, origin, get(origin.url('/'), more), [431], 'in one piece');
    }
    const before = process.memoryUsage().rss;
    for (let i = 0; i < 30; i++) {
      await using client = await connectRaw(proxy.port);
      client.socket.on('error', () => {});
      client.write(get(origin.url('/'), `X: ${'y'.repeat(1_000_000)}\r\n`));
      expect((await client.readAnswer()).status).toBe(431);
    }
    expect(process.memoryUsage().rss - before).toBeLessThan(150 * 1024 * 1024);
    for (const more of [`X: ${'y'.repeat(1_000_000)}\r\n`, many, list('Connection')]) {
      const { status, next } = await answered(`HTTP/1.1 200 OK\r\n${more}Content-Length: 0\r\n\r\n`);
      expect(status).toBe(502);
      expect(next).toBe('second');
    }
  });

  test('A21: a Connection list as long as a head may be costs little', async () => {
    await using origin = await startOrigin();
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    const started = performance.now();
    for (let i = 0; i < 10; i++) {
      client.write(get(origin.url('/'), `Connection: ${'a,'.repeat(30_000)}\r\n${'X: y\r\n'.repeat(150)}`));
      expect((await client.readAnswer()).status).toBe(200);
    }
    expect(performance.now() - started).toBeLessThan(5_000);
  });

  const bad =
    'Content-Length: 9\r\nHost: evil\r\nAuthorization: evil\r\nSet-Cookie: evil\r\nTransfer-Encoding: evil\r\nConnection: x-good\r\nCookie: evil\r\nX-Forwarded-For: evil\r\nTrue-Client-IP: evil\r\nProxy-Authorization: evil\r\nX-Good: kept\r\n';

  test('A22, R5, R19: trailers that would frame, route or authenticate are dropped on the way to the origin; none is merged', async () => {
    await using origin = await startOrigin((_, response) => response.end());
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(
      chunkedPost(origin.url('/'), 'Trailer: X-Good\r\n', `3\r\nabc\r\n0\r\n${bad}\r\n`) + get(origin.url('/next')),
    );
    await client.readAnswer();
    await client.readAnswer();
    expect(origin.requests[0]!.trailers).toEqual({ 'x-good': 'kept' });
    expect(origin.requests[0]!.headers).toMatchObject({ host: origin.authority, trailer: 'X-Good' });
    expect(JSON.stringify(origin.requests[0]!.headers)).not.toContain('evil');
    expect(origin.requests[1]!.url).toBe('/next');
  });

  test('A22, R5, R19: and on the way to the client, who gets them only if it said so', async () => {
    await using origin = await startRawOrigin(async peer => {
      while (true) {
        await peer.readUntil('\r\n\r\n');
        peer.write(`HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n${bad}\r\n`);
      }
    });
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(get(origin.url('/'), 'TE: trailers\r\nConnection: TE\r\n'));
    const wanted = await client.readAnswer();
    expect(wanted.trailers).toEqual({ 'x-good': 'kept' });
    expect(JSON.stringify(wanted.headers)).not.toMatch(/evil|kept/);
    client.write(get(origin.url('/')));
    const unwanted = await client.readAnswer();
    expect(unwanted.trailers).toEqual({});
    expect(unwanted.text).toBe('abc');
    expect(JSON.stringify(unwanted.headers)).not.toMatch(/evil|kept/);
  });
});

describe('HTTP/2', () => {
  test('A23, A24: its preface is refused: there is no h2 on either side', async () => {
    await using proxy = await startProxy();
    for (const cut of CUTS) {
      await using client = await connectRaw(proxy.port);
      await say(client, 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0', cut);
      expect((await client.readAll()).toString()).toMatch(/^HTTP\/1\.1 (400|505) [^\n]*\r\n(?:[^\n]+\r\n)*\r\n$/);
    }
  });
});
