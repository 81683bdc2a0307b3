// R1–R27 (RFC 9110), as far as they are not in the files of their attacks: what passes, what ends here, what is never made up.
import { describe, expect, test } from 'vitest';
import { FAULTS } from '../../shared/fault.ts';
import { startRawOrigin } from '../support/origin.ts';
import { connectRaw } from '../support/raw-client.ts';
import { startTestCompanion, TEST_CONFIG } from '../support/with-companion.ts';
import { hopOf, startProxy } from '../support/with-proxy.ts';
import { connectTo, get, post, until, wait } from './talk.ts';

/** An origin that gives this answer to every request, and keeps the heads. */
async function startAnswering(answer: string | ((head: string) => string)) {
  const heads: string[] = [];
  const origin = await startRawOrigin(async peer => {
    while (true) {
      const head = await peer.readUntil('\r\n\r\n');
      heads.push(head);
      peer.write(typeof answer === 'string' ? answer : answer(head));
    }
  });
  return { ...origin, heads, [Symbol.asyncDispose]: () => origin[Symbol.asyncDispose]() };
}

const OK = 'HTTP/1.1 200 OK\r\n';

describe('fields', () => {
  test('R1, R2, R20, R21: unknown fields, Referer and Authorization pass as they are, and lines of one name in their order', async () => {
    const answerLines = [
      'X-Unknown: \xe9 "q" , ,x', 'Set-Cookie: b=2', 'Set-Cookie: a=1; Secure', 'X-Same: 2', 'x-same: 1', 'X-SAME: 3', 'WWW-Authenticate: Basic realm="a, b", Digest x="y"',
      'WWW-Authenticate: Negotiate', 'Authentication-Info: nextnonce="x"', 'X-Empty:', 'Vary: X-A', 'Warning: 110 - "x"',
    ]; // prettier-ignore
    await using origin = await startAnswering(`${OK}${answerLines.join('\r\n')}\r\nContent-Length: 0\r\n\r\n`);
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    const lines = [
      'X-Unknown: \xe9 "q" , ,x', 'X-Same: 2', 'x-same: 1', 'X-SAME: 3', `Referer: http://127.0.0.1:${origin.port}/a?b=c`, 'Authorization: Digest a="b", c=d',
      'X-Empty: ', 'Accept: */*', 'Accept: text/html', 'Trailer: X-Later', 'DNT: 1',
    ]; // prettier-ignore
    client.write(get(origin.url('/'), `${lines.join('\r\n')}\r\n`));
    const answer = await client.readAnswer();
    const [, ...sent] = origin.heads[0]!.trimEnd().split('\r\n');
    expect(sent.map(line => line.trim())).toEqual([`Host: ${origin.authority}`, ...lines.map(line => line.trim())]);
    const [, ...got] = answer.head.trimEnd().split('\r\n');
    const ours = /^(?:Date|Content-Length|Cache-Status): /;
    expect(got.filter(line => !ours.test(line)).map(line => line.trim())).toEqual(answerLines);
  });

  test('R4: an answer without Date gets the time of now; one with a Date keeps it', async () => {
    await using origin = await startAnswering(head =>
      head.startsWith('GET /old')
        ? `${OK}Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 0\r\n\r\n`
        : `${OK}Content-Length: 0\r\n\r\n`,
    );
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(get(origin.url('/')));
    const { headers } = await client.readAnswer();
    expect(Math.abs(Date.parse(headers['date']!) - Date.now())).toBeLessThan(3_000);
    client.write(get(origin.url('/old')));
    expect((await client.readAnswer()).headers['date']).toBe('Sun, 06 Nov 1994 08:49:37 GMT');
  });

  test('R6: what Connection names, and what is for one connection anyway, ends here in both directions', async () => {
    await using origin = await startAnswering(
      `${OK}Connection: X-Hop, x-other\r\nConnection: X-Third\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nUpgrade: h2,h2c\r\nTE: x\r\nProxy-Authenticate: Basic\r\nX-Hop: 1\r\nX-Hop: 2\r\nX-Other: 3\r\nX-Third: 4\r\nX-End: 5\r\nContent-Length: 0\r\n\r\n`,
    );
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(
      get(
        origin.url('/'),
        'Connection: X-Hop,x-other\r\nConnection: X-Third\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: gzip\r\nUpgrade: echo\r\nX-Hop: 1\r\nX-Other: 2\r\nX-Third: 3\r\nX-End: 4\r\n',
      ),
    );
    const { headers } = await client.readAnswer();
    const wanted = /x-hop|x-other|x-third|keep-alive|proxy-|upgrade|^te$|^connection$/;
    expect(Object.keys(headers).filter(name => wanted.test(name))).toEqual([]);
    expect(headers['x-end']).toBe('5');
    expect(origin.heads[0]!.toLowerCase()).not.toMatch(
      /x-hop|x-other|x-third|keep-alive|proxy-|upgrade|\r\nte:|connection/,
    );
    expect(origin.heads[0]).toContain('X-End: 4\r\n');
  });

  test('R9: no Via goes out, and one that comes back stays', async () => {
    await using origin = await startAnswering(`${OK}Via: 1.1 cdn\r\nContent-Length: 0\r\n\r\n`);
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(get(origin.url('/'), 'Via: 1.0 mine\r\n'));
    expect((await client.readAnswer()).headers['via']).toBe('1.1 cdn');
    expect(origin.heads[0]!.toLowerCase()).not.toContain('via');
  });

  test('R10: path and query arrive byte for byte; an empty path becomes /', async () => {
    await using origin = await startAnswering(`${OK}Content-Length: 0\r\n\r\n`);
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    const paths = [
      '/a/../b',
      '/%7euser/%2F%2f',
      '//double//',
      '/a;p=1?x=%20&y=+&&=',
      '/?',
      '/a?b?c',
      "/!$&'()*+,;=:@-._~",
      '/{}|^`"<>',
      '/..',
      '/%00',
      '?q=\\',
      '',
    ];
    for (const path of paths) {
      client.write(get(`http://127.0.0.1:${origin.port}${path}`));
      expect((await client.readAnswer()).status, path).toBe(200);
      const sent = origin.heads.at(-1)!.split(' ')[1];
      expect(sent).toBe(path.startsWith('/') ? path : `/${path}`);
    }
  });

  test('R11: content passes byte for byte, whatever its coding and whatever the cache control says', async () => {
    const body = '\x1f\x8b\x08\0not really gzip\r\n\r\n0\r\n\r\n';
    await using origin = await startAnswering(
      `${OK}Content-Encoding: gzip\r\nCache-Control: no-transform\r\nContent-Type: text/html\r\nETag: "a"\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
    );
    await using companion = await startTestCompanion();
    await using client = await connectRaw(companion.port);
    client.write(get(`http://origin.test:${origin.port}/`, 'Accept-Encoding: gzip, br;q=0.1\r\n'));
    const answer = await client.readAnswer();
    expect(answer.body.toString('latin1')).toBe(body);
    expect(answer.headers).toMatchObject({ 'content-encoding': 'gzip', 'cache-control': 'no-transform', etag: '"a"' });
    expect(origin.heads[0]).toContain('Accept-Encoding: gzip, br;q=0.1\r\n');
  });

  test('R13, R38: a Content-Length is sent on only where it is right: of HEAD and 304 as it came, of 204 none', async () => {
    const answers: Record<string, string> = {
      '/200': `${OK}Content-Length: 3\r\n\r\nabc`,
      '/204': 'HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n',
      '/304': 'HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n',
      '/chunked': `${OK}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n`,
      '/head': `${OK}Content-Length: 3\r\n\r\n`,
    };
    await using origin = await startAnswering(head => answers[head.split(' ')[1]!]!);
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    const ask = async (path: string, method = 'GET') => {
      client.write(`${method} ${origin.url(path)} HTTP/1.1\r\nHost: x\r\n\r\n`);
      return client.readAnswer(method);
    };
    expect((await ask('/200')).headers['content-length']).toBe('3');
    expect((await ask('/204')).headers['content-length']).toBeUndefined();
    expect((await ask('/204')).headers['transfer-encoding']).toBeUndefined();
    expect((await ask('/304')).headers['content-length']).toBe('3');
    expect((await ask('/head', 'HEAD')).headers['content-length']).toBe('3');
    const chunked = await ask('/chunked');
    expect(chunked.text).toBe('abc');
    expect(
      [chunked.headers['content-length'], chunked.headers['transfer-encoding']].filter(one => one !== undefined),
    ).toHaveLength(1);
    // What is sent on of a request without a body says no length that it did not say.
    client.write(`POST ${origin.url('/200')} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n`);
    await client.readAnswer();
    expect(origin.heads.at(-1)).toContain('Content-Length: 0\r\n');
    expect(origin.heads[0]).not.toMatch(/content-length|transfer-encoding/i);
  });

  test('R15: HEAD has the fields of GET and no body, whatever the origin sends', async () => {
    await using origin = await startAnswering(head =>
      head.startsWith('HEAD')
        ? `${OK}Content-Type: text/plain\r\nX-A: 1\r\nContent-Length: 5\r\n\r\n`
        : `${OK}Content-Type: text/plain\r\nX-A: 1\r\nContent-Length: 5\r\n\r\nhello`,
    );
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(get(origin.url('/')));
    const got = await client.readAnswer();
    client.write(`HEAD ${origin.url('/')} HTTP/1.1\r\nHost: x\r\n\r\n${get(origin.url('/'))}`);
    const headed = await client.readAnswer('HEAD');
    expect({ ...headed.headers, date: '' }).toEqual({ ...got.headers, date: '' });
    expect((await client.readAnswer()).text).toBe('hello');
    // Faults and refusals to HEAD have no body either.
    client.write(`HEAD http://127.0.0.1:1/ HTTP/1.1\r\nHost: x\r\n\r\n${get(origin.url('/'))}`);
    expect((await client.readAnswer('HEAD')).status).toBe(502);
    expect((await client.readAnswer()).text).toBe('hello');
  });
});

describe('TRACE, OPTIONS and Max-Forwards', () => {
  test('R8: counted down for TRACE and OPTIONS, answered here at 0, never invented, left alone elsewhere', async () => {
    await using origin = await startAnswering(`${OK}Content-Length: 0\r\n\r\n`);
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    const sentWith = async (method: string, forwards: string | null) => {
      const before = origin.heads.length;
      client.write(
        `${method} ${origin.url('/')} HTTP/1.1\r\nHost: x\r\n${forwards === null ? '' : `Max-Forwards: ${forwards}\r\n`}\r\n`,
      );
      await client.readAnswer(method);
      return origin.heads.length === before ? 'here' : /Max-Forwards: (.*)\r/.exec(origin.heads.at(-1)!)?.[1];
    };
    expect(await sentWith('OPTIONS', '0')).toBe('here');
    expect(await sentWith('TRACE', '0')).toBe('here');
    expect(await sentWith('TRACE', '00')).toBe('here');
    expect(await sentWith('OPTIONS', '1')).toBe('0');
    expect(await sentWith('TRACE', '10')).toBe('9');
    expect(await sentWith('OPTIONS', null)).toBeUndefined();
    expect(await sentWith('TRACE', null)).toBeUndefined();
    expect(await sentWith('GET', '5')).toBe('5');
    expect(await sentWith('GET', '0')).toBe('0');
  });

  test('R17: a TRACE that is answered here reflects no credentials and no cookies', async () => {
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(
      'TRACE http://a.test/x HTTP/1.1\r\nHost: a.test\r\nMax-Forwards: 0\r\nX-A: kept\r\nCookie: secret\r\nCookie2: secret\r\nAuthorization: secret\r\nProxy-Authorization: secret\r\nX-Api-Key: secret\r\nX-Auth-Token: secret\r\n\r\n',
    );
    const answer = await client.readAnswer();
    expect(answer.headers['content-type']).toBe('message/http');
    expect(answer.text).toMatch(/^TRACE http:\/\/a\.test\/x HTTP\/1\.1\r\n/);
    expect(answer.text).toContain('X-A: kept\r\n');
    expect(answer.text).not.toContain('secret');
  });

  test('R33: OPTIONS of an empty path goes out as *, to a hop as it came; * itself is no proxy’s', async () => {
    await using origin = await startAnswering(`${OK}Content-Length: 0\r\n\r\n`);
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(`OPTIONS http://${origin.authority} HTTP/1.1\r\nHost: x\r\n\r\n`);
    await client.readAnswer();
    client.write(`OPTIONS http://${origin.authority}/ HTTP/1.1\r\nHost: x\r\n\r\n`);
    await client.readAnswer();
    expect(origin.heads.map(head => head.split('\r\n').slice(0, 2))).toEqual([
      ['OPTIONS * HTTP/1.1', `Host: ${origin.authority}`],
      ['OPTIONS / HTTP/1.1', `Host: ${origin.authority}`],
    ]);
    await using behind = await startProxy({
      rooms: {
        routeOf: () => ({
          name: 'r',
          chains: [{ key: 'h', hops: [hopOf('h', origin.port)] }],
          behindHops: true,
          route: null,
        }),
      },
    });
    await using other = await connectRaw(behind.port);
    other.write('OPTIONS http://a.test HTTP/1.1\r\nHost: x\r\n\r\n');
    await other.readAnswer();
    expect(origin.heads.at(-1)).toMatch(/^OPTIONS http:\/\/a\.test HTTP\/1\.1\r\n/);
    other.write('OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n');
    expect((await other.readAll()).toString()).toMatch(/^HTTP\/1\.1 400 /);
  });
});

describe('retries', () => {
  test('R14, R45: what a dead pooled connection took is sent again only where it may be', async () => {
    for (const [method, again] of [
      ['GET', true],
      ['PUT', true],
      ['DELETE', true],
      ['POST', false],
      ['PATCH', false],
      ['X-OWN', false],
    ] as const) {
      let times = 0;
      await using origin = await startRawOrigin(async (peer, index) => {
        while (true) {
          const head = await peer.readUntil('\r\n\r\n');
          if (head.startsWith('GET /first')) peer.write(`${OK}Content-Length: 0\r\n\r\n`);
          else {
            times++;
            if (index === 0) return peer.socket.resetAndDestroy();
            peer.write(`${OK}Content-Length: 2\r\n\r\nok`);
          }
        }
      });
      await using proxy = await startProxy();
      await using client = await connectRaw(proxy.port);
      client.write(get(origin.url('/first')));
      await client.readAnswer();
      const body = method === 'GET' || method === 'DELETE' ? '' : 'abc';
      client.write(
        `${method} ${origin.url('/')} HTTP/1.1\r\nHost: x\r\n${body && `Content-Length: ${body.length}\r\n`}\r\n${body}`,
      );
      expect((await client.readAnswer()).status, method).toBe(again ? 200 : 502);
      expect(times, method).toBe(again ? 2 : 1);
    }
  });

  test('R14: what a hop took and lost, or refused, is not tried again by the next chain where it may not be', async () => {
    const lost = 'lost';
    for (const [method, says, again] of [
      ['GET', lost, true],
      ['POST', lost, false],
      ['PATCH', lost, false],
      ['GET', 'HTTP/1.1 403 No\r\nX-Squid-Error: ERR_ACCESS_DENIED 0\r\nContent-Length: 2\r\n\r\nno', true],
      ['POST', 'HTTP/1.1 502 No\r\nContent-Length: 2\r\n\r\nno', false],
      ['POST', 'HTTP/1.1 504 No\r\nContent-Length: 2\r\n\r\nno', false],
    ] as const) {
      await using first = await startRawOrigin(async peer => {
        await peer.readUntil('\r\n\r\n');
        if (says === lost) peer.socket.resetAndDestroy();
        else peer.write(says);
      });
      await using second = await startAnswering(`${OK}Content-Length: 2\r\n\r\nok`);
      await using companion = await startTestCompanion(
        `${TEST_CONFIG}hops:\n  a: http://127.0.0.1:${first.port}\n  b: http://127.0.0.1:${second.port}\nroutes:\n  r: [[a], [b]]\ndefault: r\n`,
      );
      await using client = await connectRaw(companion.port);
      const body = method === 'GET' ? '' : 'abc';
      client.write(
        `${method} http://origin.test/ HTTP/1.1\r\nHost: x\r\n${body && 'Content-Length: 3\r\n'}\r\n${body}`,
      );
      const answer = await client.readAnswer();
      expect([method, says, answer.status === 200, second.heads.length]).toEqual([method, says, again, again ? 1 : 0]);
      // What is not tried again is told as it was.
      if (!again && says !== lost) expect(answer.text).toBe('no');
    }
  });

  test('R14: and not once a byte of the answer has come', async () => {
    let times = 0;
    await using origin = await startRawOrigin(async peer => {
      await peer.readUntil('\r\n\r\n');
      peer.write(`${OK}Content-Length: 0\r\n\r\n`);
      await peer.readUntil('\r\n\r\n');
      times++;
      peer.write('HTTP/1.1 2');
      await wait(20);
      peer.socket.resetAndDestroy();
    });
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(get(origin.url('/')));
    await client.readAnswer();
    client.write(get(origin.url('/')));
    expect((await client.readAnswer()).status).toBe(502);
    expect(times).toBe(1);
  });
});

describe('Expect', () => {
  const expecting = (url: string, more = '') => post(url, `Expect: 100-continue\r\nContent-Length: 5\r\n${more}`, '');

  test('R18: an origin that takes it: its 100 comes, then the body goes, then its answer', async () => {
    const order: string[] = [];
    await using origin = await startRawOrigin(async peer => {
      const head = await peer.readUntil('\r\n\r\n');
      order.push(/expect: 100-continue\r\n/i.test(head) ? 'expected' : 'not asked');
      peer.write('HTTP/1.1 100 Continue\r\n\r\n');
      order.push((await peer.read(5)).toString());
      peer.write(`${OK}Content-Length: 2\r\n\r\nok`);
    });
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(expecting(origin.url('/')));
    expect((await client.readAnswer()).status).toBe(100);
    client.write('hello');
    expect((await client.readAnswer()).text).toBe('ok');
    expect(order).toEqual(['expected', 'hello']);
  });

  test.each(['417 Expectation Failed', '413 Content Too Large', '401 Unauthorized'])(
    'R18: an origin that refuses with %s: the answer comes at once, the body is never asked for, the connection ends',
    async status => {
      let heard = '';
      await using origin = await startRawOrigin(async peer => {
        await peer.readUntil('\r\n\r\n');
        peer.socket.on('data', (chunk: Buffer) => (heard += chunk.toString()));
        peer.write(`HTTP/1.1 ${status}\r\nContent-Length: 2\r\n\r\nno`);
      });
      await using proxy = await startProxy();
      await using client = await connectRaw(proxy.port);
      client.write(expecting(origin.url('/')));
      const answer = await client.readAnswer();
      expect(answer.text).toBe('no');
      expect(answer.headers['connection']).toBe('close');
      client.write(`hello${get(origin.url('/smuggled'))}`);
      expect((await client.readAll()).toString()).toBe('');
      expect(heard).not.toContain('smuggled');
    },
  );

  test('R18: an origin that is silent: a client that waits no longer sends its body, and is answered', async () => {
    await using origin = await startRawOrigin(async peer => {
      await peer.readUntil('\r\n\r\n');
      const body = (await peer.read(5)).toString();
      peer.write(`${OK}Content-Length: ${body.length}\r\n\r\n${body}`);
    });
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(expecting(origin.url('/')));
    await wait(50);
    client.write('hello');
    expect((await client.readAnswer()).text).toBe('hello');
  });

  test('R18: what is known here is said at once: a refused port, a blocked place', async () => {
    await using companion = await startTestCompanion('');
    for (const [url, status] of [
      ['http://a.test:25/', 403],
      ['http://127.0.0.1/', 502],
    ] as const) {
      await using client = await connectRaw(companion.port);
      client.write(expecting(url));
      expect((await client.readAnswer()).status).toBe(status);
      expect((await client.readAll()).toString()).toBe('');
    }
  });

  test('R18: another expectation is a 417; one of HTTP/1.0 is nobody’s and goes no further', async () => {
    await using origin = await startAnswering(`${OK}Content-Length: 0\r\n\r\n`);
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(get(origin.url('/'), 'Expect: a-pony\r\n'));
    expect((await client.readAnswer()).status).toBe(417);
    expect(origin.heads).toEqual([]);
    await using old = await connectRaw(proxy.port);
    old.write(`POST ${origin.url('/')} HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi`);
    expect((await old.readAnswer()).status).toBe(200);
    expect(origin.heads[0]).not.toMatch(/expect/i);
  });

  test('R19: TE ends here; only trailers is asked for, and only where the client did', async () => {
    await using origin = await startAnswering(`${OK}Content-Length: 0\r\n\r\n`);
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    for (const [te, sent] of [
      ['gzip;q=1, trailers', 'trailers'],
      ['TRAILERS', 'trailers'],
      ['gzip', undefined],
      ['', undefined],
    ] as const) {
      client.write(get(origin.url('/'), `TE: ${te}\r\nConnection: TE\r\n`));
      await client.readAnswer();
      expect(/\r\nTE: (.*)\r/.exec(origin.heads.at(-1)!)?.[1], te).toBe(sent);
      expect(/\r\nConnection: (.*)\r/.exec(origin.heads.at(-1)!)?.[1], te).toBe(sent && 'TE');
    }
  });
});

describe('407', () => {
  test('R22, A28: an origin’s or a hop’s 407 never reaches the browser as one', async () => {
    await using origin = await startAnswering(
      'HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm="give"\r\nContent-Length: 0\r\n\r\n',
    );
    await using companion = await startTestCompanion();
    await using client = await connectRaw(companion.port);
    client.write(get(`http://origin.test:${origin.port}/`));
    const answer = await client.readAnswer();
    expect(answer.status).toBe(502);
    expect(answer.headers['proxy-authenticate']).toBeUndefined();
    expect(answer.headers['proxy-status']).toContain('received-status=407');
  });

  test('R22: our own 407 carries Proxy-Authenticate, and the credentials that it asks for end here', async () => {
    await using origin = await startAnswering(`${OK}Content-Length: 0\r\n\r\n`);
    await using companion = await startTestCompanion(
      TEST_CONFIG.replace('guard:\n', 'guard:\n  users:\n    me: s3cret\n'),
    );
    await using client = await connectRaw(companion.port);
    const url = `http://origin.test:${origin.port}/`;
    client.write(get(url));
    const asked = await client.readAnswer();
    expect(asked.status).toBe(407);
    expect(asked.headers['proxy-authenticate']).toMatch(/^Basic realm=/);
    client.write(get(url, `Proxy-Authorization: Basic ${Buffer.from('me:s3cret').toString('base64')}\r\n`));
    expect((await client.readAnswer()).status).toBe(200);
    expect(origin.heads).toHaveLength(1);
    expect(origin.heads[0]).not.toMatch(/proxy-auth/i);
    await using tunnel = await connectRaw(companion.port);
    tunnel.write(connectTo('origin.test:443'));
    expect(await tunnel.readAnswer()).toMatchObject({ status: 407 });
  });
});

describe('what is answered from here', () => {
  const withCache = `${TEST_CONFIG}default: d\nroutes:\n  d: [[]]\nsites:\n  origin.test: { route: d, cache: standard }\n`;

  test('R23: nothing that is made here says Vary: *', async () => {
    await using companion = await startTestCompanion(`${TEST_CONFIG}rules:\n  - { host: ads.test, block: true }\n`);
    for (const request of [
      get('http://ads.test/'),
      get('http://a.test:25/'),
      get('http://127.0.0.1:1/'),
      get('ftp://a.test/'),
      'GET x\r\n\r\n',
      get('http://a.test/', 'Expect: x\r\n'),
    ]) {
      await using client = await connectRaw(companion.port);
      client.write(request);
      expect((await client.readUntil('\r\n\r\n')).toLowerCase()).not.toMatch(/vary: *\*/);
    }
  });

  test('R24: preconditions and their answers pass where the answer is the origin’s', async () => {
    await using origin = await startAnswering(head =>
      head.includes('If-None-Match')
        ? 'HTTP/1.1 304 Not Modified\r\nETag: "b"\r\n\r\n'
        : 'HTTP/1.1 412 Precondition Failed\r\nContent-Length: 0\r\n\r\n',
    );
    await using companion = await startTestCompanion();
    await using client = await connectRaw(companion.port);
    const url = `http://origin.test:${origin.port}/`;
    const lines = 'If-None-Match: "a", W/"b"\r\nIf-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n';
    client.write(get(url, lines));
    expect(await client.readAnswer()).toMatchObject({ status: 304, headers: { etag: '"b"' } });
    expect(origin.heads[0]).toContain(lines);
    client.write(
      `PUT ${url} HTTP/1.1\r\nHost: x\r\nIf-Match: "x"\r\nIf-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 0\r\n\r\n`,
    );
    expect((await client.readAnswer()).status).toBe(412);
    expect(origin.heads[1]).toContain('If-Match: "x"\r\nIf-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n');
  });

  test('R24: from the cache, If-None-Match is judged before If-Modified-Since', async () => {
    await using origin = await startAnswering(
      `${OK}ETag: "a"\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\n\r\nok`,
    );
    await using companion = await startTestCompanion(withCache);
    await using client = await connectRaw(companion.port);
    const ask = async (more: string) => {
      client.write(get(`http://origin.test:${origin.port}/`, more));
      return client.readAnswer();
    };
    await ask('');
    const same = 'If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n';
    expect((await ask('If-None-Match: "a"\r\n')).status).toBe(304);
    expect((await ask('If-None-Match: "x", W/"a"\r\n')).status).toBe(304);
    expect((await ask(same)).status).toBe(304);
    expect((await ask(`If-None-Match: "other"\r\n${same}`)).status).toBe(200);
    expect(origin.heads).toHaveLength(1);
  });

  test('A16: the cache goes by the URL, not by Host', async () => {
    await using origin = await startAnswering(
      head => `${OK}Cache-Control: max-age=60\r\nContent-Length: 2\r\n\r\n${/\r\nHost: (..)/.exec(head)![1]}`,
    );
    await using companion = await startTestCompanion(`${withCache}  other.test: { route: d, cache: standard }\n`);
    await using client = await connectRaw(companion.port);
    for (const [host, said] of [
      ['origin.test', 'other.test'],
      ['other.test', 'origin.test'],
      ['origin.test', 'x.test'],
    ] as const) {
      client.write(`GET http://${host}:${origin.port}/ HTTP/1.1\r\nHost: ${said}:${origin.port}\r\n\r\n`);
      expect((await client.readAnswer()).text).toBe(host.slice(0, 2));
    }
    expect(origin.heads.map(head => head.split('\r\n')[1])).toEqual([
      `Host: origin.test:${origin.port}`,
      `Host: other.test:${origin.port}`,
    ]);
  });

  test('R25: Range and If-Range go to the origin, and its 206 and 416 come back as they are', async () => {
    await using origin = await startAnswering(head =>
      head.includes('bytes=0-1')
        ? 'HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-1/5\r\nETag: "a"\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\n\r\nhe'
        : head.includes('bytes=9-')
          ? 'HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */5\r\nContent-Length: 0\r\n\r\n'
          : `${OK}ETag: "a"\r\nCache-Control: max-age=60\r\nContent-Length: 5\r\n\r\nhello`,
    );
    await using companion = await startTestCompanion(withCache);
    await using client = await connectRaw(companion.port);
    const ask = async (more: string) => {
      client.write(get(`http://origin.test:${origin.port}/`, more));
      return client.readAnswer();
    };
    expect(await ask('Range: bytes=0-1\r\nIf-Range: "a"\r\n')).toMatchObject({
      status: 206,
      text: 'he',
      headers: { 'content-range': 'bytes 0-1/5' },
    });
    expect(origin.heads[0]).toContain('Range: bytes=0-1\r\nIf-Range: "a"\r\n');
    expect(await ask('Range: bytes=9-\r\n')).toMatchObject({ status: 416, headers: { 'content-range': 'bytes */5' } });
    // A part has not become the whole.
    expect(await ask('')).toMatchObject({ status: 200, text: 'hello' });
    expect((await ask('')).text).toBe('hello');
    const later = await ask('Range: bytes=0-1\r\n');
    expect(later).toMatchObject({ status: 206, text: 'he' });
  });
});

describe('interim answers', () => {
  const early =
    'HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\nHTTP/1.1 199 Odd\r\nX: y\r\n\r\n';

  test('R26: all 1xx pass, with their end-to-end fields, before the answer', async () => {
    await using origin = await startAnswering(`${early}${OK}Content-Length: 2\r\n\r\nok`);
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(get(origin.url('/')));
    expect((await client.readAnswer()).status).toBe(102);
    const hints = await client.readAnswer();
    expect(hints).toMatchObject({ status: 103, headers: { link: '</a.css>; rel=preload' } });
    expect(hints.headers['x-hop']).toBeUndefined();
    expect(await client.readAnswer()).toMatchObject({ status: 199, headers: { x: 'y' } });
    expect(await client.readAnswer()).toMatchObject({ status: 200, text: 'ok' });
  });

  test('R26: none goes to an HTTP/1.0 client, and none comes without having been sent', async () => {
    await using origin = await startAnswering(`${early}${OK}Content-Length: 2\r\n\r\nok`);
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(`GET ${origin.url('/')} HTTP/1.0\r\n\r\n`);
    expect((await client.readAll()).toString()).toMatch(/^HTTP\/1\.1 200 OK\r\n/);
  });

  test('R26, R36: an interim answer with framing fields passes without them', async () => {
    await using origin = await startAnswering(
      `HTTP/1.1 103 Early Hints\r\nContent-Length: 9\r\nLink: </a>\r\n\r\n${OK}Content-Length: 2\r\n\r\nok`,
    );
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(get(origin.url('/')));
    const hints = await client.readAnswer();
    expect(hints.headers).toEqual({ link: '</a>' });
    expect((await client.readAnswer()).text).toBe('ok');
  });

  test('R26: one that comes while the answer is out already does not come out of its place', async () => {
    await using origin = await startRawOrigin(async peer => {
      await peer.readUntil('\r\n\r\n');
      peer.write(`${OK}Content-Length: 4\r\n\r\nab`);
      await wait(20);
      peer.write('cdHTTP/1.1 103 Early Hints\r\n\r\n');
    });
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(get(origin.url('/')));
    expect((await client.readAnswer()).text).toBe('abcd');
    await wait(30);
    expect(client.peek()).toHaveLength(0);
  });
});

describe('our own faults', () => {
  test('R27: an origin that says nothing in time is a 504; one that says what is no answer is a 502; none is a 421', async () => {
    await using silent = await startRawOrigin(() => {});
    await using odd = await startAnswering('HELLO THERE\r\n\r\n');
    await using proxy = await startProxy({ limits: { responseTimeout: 0.2 } });
    await using client = await connectRaw(proxy.port);
    client.write(get(silent.url('/')) + get(odd.url('/')));
    expect((await client.readAnswer()).status).toBe(504);
    expect((await client.readAnswer()).status).toBe(502);
    await until(() => silent.open.size === 0, 'the end of the request');
    expect(Object.values(FAULTS).map(row => row.status)).not.toContain(421);
  });
});
