// A no on the way, from the client's side: what goes on to the next chain, what is passed on as it came, and what nobody sees twice. The whole walk over
// real sockets, with hops and origins that say what they are told.
import { request as ask } from 'node:http';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { makeDial } from '../../companion/chain/dial.ts';
import { makeAcl } from '../../companion/guard/acl.ts';
import type { Rooms } from '../../companion/proxy.ts';
import type { Cache, Chain, NamedHop, ResolvedRoute } from '../../companion/rooms.ts';
import { makeRefusals } from '../../companion/route/refusal.ts';
import { makeTryChains } from '../../companion/route/try-chains.ts';
import type { Fault } from '../../shared/fault.ts';
import { ROUTE_DEFAULTS, type Route } from '../../shared/config/routes.ts';
import { startHop } from '../support/hop.ts';
import { knowledgeOf } from '../support/knowledge.ts';
import { startOrigin, startRawOrigin } from '../support/origin.ts';
import { connectRaw, type RawClient } from '../support/raw-client.ts';
import { startTestCompanion, TEST_CONFIG } from '../support/with-companion.ts';
import { hopOf, startProxy, type TestProxy } from '../support/with-proxy.ts';

const GUARD = makeAcl({
  guard: { allow: [{ address: '127.0.0.0', prefix: 8 }], connectPorts: [] },
  listeners: () => [],
});
const dial = makeDial({ acl: GUARD, hopTimeout: 2_000, via: null });

/** A proxy whose one route has these hops, each a chain of its own, tried in this order every time. */
function startWith(
  hops: Record<string, { readonly port: number; readonly more?: Partial<NamedHop> }>,
  route: Partial<Route> = {},
  rooms: Partial<Rooms> = {},
): Promise<TestProxy> {
  const chains: Chain[] = Object.entries(hops).map(([name, { port, more }]) => ({
    key: name,
    hops: [hopOf(name, port, more)],
  }));
  const resolved: ResolvedRoute = {
    name: 'r',
    chains,
    behindHops: true,
    route: { ...ROUTE_DEFAULTS, chains: [], ...route },
  };
  const now = () => performance.now();
  return startProxy({
    rooms: {
      routeOf: () => resolved,
      dial,
      refusals: makeRefusals(),
      tryChains: makeTryChains({
        now,
        routeTimeout: 20_000,
        hopTimeout: 2_000,
        memory: { ...knowledgeOf(now), isLast: () => false, isDown: () => false },
        siteOf: host => host,
      }),
      ...rooms,
    },
  });
}

const ladder = (proxy: TestProxy, index = 0) =>
  proxy.exchanges[index]!.attempts.map(one => `${one.chain.join('>')}: ${one.outcome}`);
const page = (status: number, fields: string, body = 'the page') =>
  `HTTP/1.1 ${status} Said\r\n${fields}Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`;
const SQUID = 'X-Squid-Error: ERR_ACCESS_DENIED 0\r\nX-Cache-Lookup: NONE from sq:3128\r\nVia: 1.1 sq (squid/5.7)\r\n';
const request = (method: string, url: string, fields = '', body = '') => {
  const { host } = new URL(url);
  return `${method} ${url} HTTP/1.1\r\nHost: ${host}\r\n${fields}\r\n${body}`;
};
const withLength = (body: string) => `Content-Length: ${body.length}\r\n`;

describe('a hop that says no to a request in absolute-form', () => {
  test.each(['GET', 'HEAD', 'OPTIONS', 'DELETE'])(
    '%s goes on to the next chain, and the no is not seen',
    async method => {
      await using origin = await startOrigin();
      await using no = await startHop({ kind: 'http', refuse: page(403, `${SQUID}Set-Cookie: hop=1\r\n`) });
      await using yes = await startHop({ kind: 'http' });
      await using proxy = await startWith({ no, yes });
      await using client = await connectRaw(proxy.port);
      client.write(request(method, origin.url('/')));
      const answer = await client.readAnswer(method);
      expect(answer.status).toBe(200);
      expect(answer.headers['set-cookie']).toBeUndefined();
      expect(origin.requests).toHaveLength(1);
      expect(await proxy.exchange(0)).toMatchObject({
        attempts: [
          { chain: ['no'], outcome: 'hop_refused', stage: 'response', verdict: 'proxy', sign: 'policy' },
          { chain: ['yes'], outcome: 'ok' },
        ],
      });
    },
  );

  test('the page that tells is read, and one that tells nothing is passed on to its last byte', async () => {
    await using privoxy = await startHop({
      kind: 'http',
      refuse: page(503, 'Content-Type: text/html\r\n', '<title>503 (Privoxy@vm)</title>'),
    });
    await using yes = await startHop({ kind: 'http' });
    await using origin = await startOrigin();
    await using proxy = await startWith({ privoxy, yes });
    await using client = await connectRaw(proxy.port);
    client.write(request('GET', origin.url('/')));
    expect((await client.readAnswer()).text).toBe('hello');
    const mine = `<title>maintenance</title>${'x'.repeat(100_000)}`;
    privoxy.become({ refuse: page(503, 'Content-Type: text/html\r\n', mine) });
    client.write(request('GET', origin.url('/')));
    const answer = await client.readAnswer();
    expect(answer).toMatchObject({ status: 503, reason: 'Said' });
    expect(answer.text).toBe(mine);
    expect(ladder(proxy, 1)).toEqual(['privoxy: ok']);
  });

  test('a page that does not come is not waited for', async () => {
    await using slow = await startRawOrigin(async peer => {
      await peer.readUntil('\r\n\r\n');
      peer.write('HTTP/1.1 503 Slow\r\nContent-Type: text/html\r\nContent-Length: 8\r\n\r\n<b>');
      await peer.readUntil('never', 60_000).catch(() => {});
    });
    await using yes = await startHop({ kind: 'http' });
    await using proxy = await startWith({ slow, yes });
    await using client = await connectRaw(proxy.port);
    client.write(request('GET', 'http://origin.test/'));
    expect(await client.readUntil('<b>')).toContain('HTTP/1.1 503 Slow');
  });

  test('when every chain refuses, one page says what each of them said', async () => {
    await using a = await startHop({ kind: 'http', refuse: page(403, SQUID) });
    await using b = await startHop({ kind: 'http', refuse: page(407, 'Proxy-Authenticate: Basic realm="b"\r\n') });
    await using proxy = await startWith({ a, b });
    await using client = await connectRaw(proxy.port);
    client.write(request('GET', 'http://origin.test/'));
    const answer = await client.readAnswer();
    expect(answer.status).toBe(502);
    expect(answer.headers['proxy-status']).toMatch(
      /^detour; error=http_request_denied; next-hop="a"; received-status=403; details=".*all 2 chains failed: a: hop_refused, b: hop_authentication_failed/,
    );
  });

  test('the last answer that may be the origin’s own is passed on', async () => {
    await using a = await startHop({ kind: 'http', refuse: page(403, '', 'from a') });
    await using b = await startHop({ kind: 'http', refuse: page(403, '', 'from b') });
    await using c = await startHop({ kind: 'http' });
    await using proxy = await startWith({ a, b, c }, { unknown: 'proxy' });
    await using client = await connectRaw(proxy.port);
    client.write(request('GET', 'http://origin.test/'));
    const answer = await client.readAnswer();
    expect([answer.status, answer.text]).toEqual([403, 'from b']);
    expect(await proxy.exchange(0)).toMatchObject({
      attempts: [
        { chain: ['a'], verdict: 'unknown' },
        { chain: ['b'], outcome: 'ok', verdict: 'origin', sign: 'policy' },
      ],
    });
    expect(c.requests).toHaveLength(0);
  });
});

describe('R14: what must not be sent twice', () => {
  const body = 'pay=1';

  test('a POST that the hop refused before it sent it on goes to the next chain, once, with all of its body', async () => {
    await using origin = await startOrigin();
    await using no = await startHop({ kind: 'http', refuse: page(403, SQUID) });
    await using yes = await startHop({ kind: 'http' });
    await using proxy = await startWith({ no, yes });
    await using client = await connectRaw(proxy.port);
    // In one piece with its head, and in pieces behind it.
    client.write(request('POST', origin.url('/'), withLength(body), body));
    expect((await client.readAnswer()).status).toBe(200);
    client.write(request('POST', origin.url('/'), 'Transfer-Encoding: chunked\r\n', '3\r\npay\r\n'));
    client.write('2\r\n=2\r\n0\r\n\r\n');
    expect((await client.readAnswer()).status).toBe(200);
    expect(origin.requests.map(one => one.body.toString())).toEqual(['pay=1', 'pay=2']);
  });

  test('with refused: relay, or with a no that may have come through the hop, the answer is passed on byte for byte', async () => {
    await using yes = await startHop({ kind: 'http' });
    for (const [status, fields, refused] of [
      [403, SQUID, 'relay'],
      [403, 'X-Squid-Error: ERR_ACCESS_DENIED 0\r\nVia: 1.1 hop\r\n', 'next'],
      [503, 'X-Squid-Error: ERR_CONNECT_FAIL 111\r\n', 'next'],
    ] as const) {
      await using no = await startHop({ kind: 'http', refuse: page(status, fields, 'its own words') });
      await using proxy = await startWith({ no, yes }, { refused });
      await using client = await connectRaw(proxy.port);
      client.write(request('POST', 'http://origin.test/', withLength(body), body));
      const answer = await client.readAnswer();
      expect([answer.status, answer.reason, answer.text]).toEqual([status, 'Said', 'its own words']);
      expect(answer.head).toContain(fields.split('\r\n')[0]!);
      expect(await proxy.exchange(0)).toMatchObject({ attempts: [{ outcome: 'ok', verdict: 'proxy' }] });
    }
    expect(yes.requests).toHaveLength(0);
  });

  test('a connection that breaks after the POST went out is the end; after a PUT that is all here it is not', async () => {
    await using origin = await startOrigin();
    await using breaks = await startHop({ kind: 'http', reset: true });
    await using yes = await startHop({ kind: 'http' });
    await using proxy = await startWith({ breaks, yes });
    await using client = await connectRaw(proxy.port);
    client.write(request('POST', origin.url('/'), withLength(body), body));
    expect((await client.readAnswer()).status).toBe(502);
    expect(origin.requests).toHaveLength(0);
    client.write(request('PUT', origin.url('/'), withLength(body), body));
    expect((await client.readAnswer()).status).toBe(200);
    expect(origin.requests.map(one => `${one.method} ${one.body.toString()}`)).toEqual(['PUT pay=1']);
  });

  test('a body larger than the buffer of the route goes out once, and the no is passed on', async () => {
    await using no = await startRawOrigin(async peer => {
      await peer.readUntil('\r\n\r\n');
      await peer.read(500_000);
      peer.write(page(403, SQUID));
      peer.end();
    });
    await using yes = await startHop({ kind: 'http' });
    await using proxy = await startWith({ no, yes }, { buffer: 1_000 });
    await using client = await connectRaw(proxy.port);
    const large = 'x'.repeat(500_000);
    client.write(request('PUT', 'http://origin.test/', withLength(large)));
    client.write(large.slice(0, 200_000));
    client.write(large.slice(200_000));
    expect((await client.readAnswer()).text).toBe('the page');
    expect(yes.requests).toHaveLength(0);
  });

  test('a large body within the buffer comes whole by the next chain, from memory and from the disk', async () => {
    await using origin = await startOrigin();
    await using no = await startRawOrigin(async peer => {
      await peer.readUntil('\r\n\r\n');
      await peer.read(1_500_000);
      peer.write(page(403, SQUID));
      peer.end();
    });
    await using yes = await startHop({ kind: 'http' });
    await using proxy = await startWith({ no, yes }, { buffer: 8 * 1024 * 1024 });
    await using client = await connectRaw(proxy.port);
    const large = Buffer.from(Uint8Array.from({ length: 1_500_000 }, (_, i) => (i * 31) % 251));
    client.write(request('POST', origin.url('/'), `Content-Length: ${large.length}\r\n`));
    client.write(large);
    expect((await client.readAnswer()).status).toBe(200);
    expect(origin.requests[0]!.body.equals(large)).toBe(true);
  });

  test('Expect: 100-continue: who refuses before the body has refused it unread, and any chain may be next', async () => {
    await using origin = await startOrigin();
    // Not its policy, and it says so: a POST whose body had gone out would end here.
    await using away = await startHop({ kind: 'http', refuse: page(503, 'X-Squid-Error: ERR_CONNECT_FAIL 111\r\n') });
    await using yes = await startHop({ kind: 'http' });
    await using proxy = await startWith({ away, yes });
    await using client = await connectRaw(proxy.port);
    client.write(request('POST', origin.url('/'), `${withLength(body)}Expect: 100-continue\r\n`));
    expect(await client.readUntil('\r\n\r\n')).toMatch(/^HTTP\/1\.1 100 /);
    client.write(body);
    expect((await client.readAnswer()).status).toBe(200);
    expect(origin.requests.map(one => one.body.toString())).toEqual([body]);
  });

  test('an origin that fakes every sign gets another GET, and never a second POST', async () => {
    const signs: Record<string, string>[] = [
      { 'X-Squid-Error': 'ERR_ACCESS_DENIED 0', 'X-Cache-Lookup': 'NONE from sq:3128' },
      { 'Proxy-Status': 'hop; error=http_request_denied' },
      { Server: 'tinyproxy/1.11.1' },
      { 'Proxy-Agent': 'gost', 'X-Proxy-Error': 'no' },
      { 'Proxy-Authenticate': 'Basic realm="x"' },
      { 'X-Squid-Error': 'ERR_ACCESS_DENIED 0', Via: '1.1 sq (squid/5.7)', 'X-Cache-Lookup': 'NONE from sq:3128' },
    ];
    for (const fields of signs) {
      await using origin = await startOrigin((asked, response) => {
        if (asked.url === '/form') return response.end('form');
        return response.writeHead(403, fields).end('fake');
      });
      // As every proxy must (RFC 9110 §7.6.3), they say that they forwarded it; or they do not, and have been seen not to.
      for (const via of [true, false]) {
        await using one = await startForwarder(via);
        await using two = await startForwarder(via);
        await using proxy = await startWith({ one, two });
        await using client = await connectRaw(proxy.port);
        client.write(request('GET', origin.url('/form')));
        expect((await client.readAnswer()).status).toBe(200);
        const before = origin.requests.length;
        client.write(request('POST', origin.url('/'), withLength(body), body));
        expect((await client.readAnswer()).text).toBe('fake');
        expect(origin.requests.length - before).toBe(1);
        client.write(request('GET', origin.url('/')));
        expect([403, 502]).toContain((await client.readAnswer()).status);
        expect(origin.requests.length - before).toBeLessThanOrEqual(3);
      }
    }
  });
});

describe('the cache', () => {
  /** Says what it was told. */
  const telling = (told: string[]): Cache => ({
    lookup: asked => ({ kind: 'ask', request: asked.head, status: 'fwd=miss', token: null }),
    store: (ask, answer) => (told.push(`store ${answer.head.status}`), { answer, status: ask.status }),
    failed: (_, fault) => (told.push(`failed ${fault.kind}`), null),
    pass: () => void told.push('pass'),
    peek: () => '',
    clear: () => {},
    close: async () => {},
  });

  test('a hop’s no is neither kept nor taken for an origin that is away', async () => {
    await using no = await startHop({ kind: 'http', refuse: page(403, SQUID) });
    await using other = await startHop({ kind: 'http', refuse: page(403, SQUID) });
    const told: string[] = [];
    await using proxy = await startWith({ no, other }, { refused: 'relay' }, { cache: telling(told) });
    await using client = await connectRaw(proxy.port);
    client.write(request('GET', 'http://origin.test/'));
    expect((await client.readAnswer()).status).toBe(502);
    client.write(request('POST', 'http://origin.test/', withLength('x'), 'x'));
    expect((await client.readAnswer()).status).toBe(403);
    expect(told).toEqual(['pass', 'pass']);
  });

  test('a hop that cannot reach the origin, and an answer that may be the origin’s, are what they were', async () => {
    await using away = await startHop({ kind: 'http', refuse: page(503, 'X-Squid-Error: ERR_CONNECT_FAIL 111\r\n') });
    await using also = await startHop({ kind: 'http', refuse: page(503, 'X-Squid-Error: ERR_DNS_FAIL 0\r\n') });
    const told: string[] = [];
    await using proxy = await startWith({ away, also }, {}, { cache: telling(told) });
    await using client = await connectRaw(proxy.port);
    client.write(request('GET', 'http://origin.test/'));
    expect((await client.readAnswer()).status).toBe(502);
    away.become({ refuse: page(403, '') });
    client.write(request('GET', 'http://origin.test/'));
    expect((await client.readAnswer()).status).toBe(403);
    expect(told).toEqual(['failed hop_could_not_reach', 'store 403']);
  });
});

test('how long a hop asks to be left alone is known of a CONNECT, too', async () => {
  await using busy = await startHop({ kind: 'http', refuse: 'HTTP/1.1 429 Slow\r\nRetry-After: 90\r\n\r\n' });
  const failed: unknown[] = [];
  const now = () => performance.now();
  const memory = {
    ...knowledgeOf(now),
    failed: (_: unknown, __: unknown, one: { fault: Fault }) => void failed.push(one.fault),
  };
  const tryChains = makeTryChains({ now, routeTimeout: 20_000, hopTimeout: 2_000, memory, siteOf: host => host });
  await using yes = await startHop({ kind: 'http' });
  await using proxy = await startWith({ busy, yes }, {}, { tryChains });
  await using origin = await startOrigin();
  await using client = await connectRaw(proxy.port);
  client.write(`CONNECT ${origin.authority} HTTP/1.1\r\nHost: ${origin.authority}\r\n\r\n`);
  expect(await client.readUntil('\r\n\r\n')).toContain(' 200 ');
  expect(failed).toMatchObject([{ kind: 'hop_refused', sign: 'rate', retryAfter: 90_000 }]);
});

describe('what is learned', () => {
  const hello = Buffer.concat([Buffer.from('16030100ff010000fb', 'hex'), Buffer.alloc(251, 7)]);
  const configOf = (ports: Record<string, number>, more = '') =>
    `${TEST_CONFIG}hops:\n${Object.entries(ports)
      .map(([name, port]) => `  ${name}: http://127.0.0.1:${port}\n`)
      .join('')}routes:\n  r: { chains: [${Object.keys(ports)
      .map(name => `[${name}]`)
      .join(', ')}]${more} }\ndefault: r\n`;

  test('a chain that breaks at the first word goes last for that site', async () => {
    await using cuts = await startRawOrigin(async peer => {
      await peer.readUntil('\r\n\r\n');
      peer.write('HTTP/1.1 200 Connection established\r\n\r\n');
      await peer.read(hello.length);
      peer.socket.resetAndDestroy();
    });
    await using origin = await startRawOrigin(async peer => {
      await peer.read(hello.length);
      peer.write('server hello');
    });
    await using yes = await startHop({ kind: 'http', hosts: { 'origin.test': '127.0.0.1' } });
    await using companion = await startTestCompanion(configOf({ cuts: cuts.port, yes: yes.port }));
    for (let i = 0; i < 2; i++) {
      await using client = await connectRaw(companion.port);
      client.write(`CONNECT origin.test:${origin.port} HTTP/1.1\r\nHost: origin.test:${origin.port}\r\n\r\n`);
      await client.readUntil('\r\n\r\n');
      client.write(hello);
      expect((await client.read(12)).toString()).toBe('server hello');
    }
    expect(cuts.accepted).toBe(1);
    expect(yes.requests).toHaveLength(2);
  });

  test('a no that was passed on is one, too: the next request for the site takes another chain', async () => {
    await using origin = await startOrigin();
    await using no = await startHop({ kind: 'http', refuse: page(403, SQUID) });
    await using yes = await startHop({ kind: 'http', hosts: { 'origin.test': '127.0.0.1' } });
    await using companion = await startTestCompanion(configOf({ no: no.port, yes: yes.port }, ', refused: relay'));
    const url = `http://origin.test:${origin.port}/`;
    await using client = await connectRaw(companion.port);
    client.write(request('POST', url, withLength('x'), 'x'));
    expect((await client.readAnswer()).status).toBe(403);
    client.write(request('POST', url, withLength('x'), 'x'));
    expect((await client.readAnswer()).status).toBe(200);
    expect(no.requests).toHaveLength(1);
  });
});

test('R14: an origin that asks for a login as if it were the hop does not get a POST again, nor the password', async () => {
  await using origin = await startOrigin((_, response) =>
    response.writeHead(407, { 'Proxy-Authenticate': 'Digest realm="x", nonce="abc", qop="auth"' }).end('log in'),
  );
  await using one = await startForwarder(true);
  await using two = await startForwarder(true);
  const more = { username: 'me', password: 's3cret' };
  await using proxy = await startWith({ one: { port: one.port, more }, two: { port: two.port, more } });
  await using client = await connectRaw(proxy.port);
  client.write(request('POST', origin.url('/'), withLength('x'), 'x'));
  expect((await client.readAnswer()).status).toBe(500);
  expect(origin.requests).toHaveLength(1);
  expect(JSON.stringify(origin.requests.map(asked => asked.rawHeaders))).not.toMatch(/proxy-authorization/i);
});

test('a tunnel whose far end closes before the client has said anything is closed', async () => {
  await using closes = await startRawOrigin(peer => peer.end());
  await using a = await startHop({ kind: 'http' });
  await using b = await startHop({ kind: 'http' });
  await using proxy = await startWith({ a, b });
  await using client = await connectRaw(proxy.port);
  client.write(`CONNECT ${closes.authority} HTTP/1.1\r\nHost: ${closes.authority}\r\n\r\n`);
  await client.readUntil('\r\n\r\n');
  expect(await client.closed()).toBe('ended');
  client.end();
  expect((await proxy.exchange(0)).attempts).toMatchObject([{ chain: ['a'], outcome: 'ok' }]);
});

test('property: what is held back for a moment comes out as it went in', async () => {
  await using yes = await startHop({ kind: 'http' });
  let next: { head: string; pieces: readonly Buffer[] };
  await using says = await startRawOrigin(async peer => {
    await peer.readUntil('\r\n\r\n');
    peer.write(next.head);
    for (const piece of next.pieces) {
      peer.write(piece);
      await new Promise(resolve => setImmediate(resolve));
    }
    peer.end();
  });
  await using proxy = await startWith({ says, yes });
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(403, 429, 451, 502, 503, 504),
      fc.constantFrom('length', 'chunked', 'close'),
      fc.array(fc.uint8Array({ minLength: 1, maxLength: 6_000 }), { maxLength: 6 }),
      fc.constantFrom('text/html', 'application/json', 'text/plain; charset=utf-8'),
      async (status, framing, bytes, type) => {
        const pieces = bytes.map(piece => Buffer.from(piece));
        const body = Buffer.concat(pieces);
        const how =
          framing === 'length'
            ? `Content-Length: ${body.length}\r\n`
            : framing === 'chunked'
              ? 'Transfer-Encoding: chunked\r\n'
              : '';
        next = {
          head: `HTTP/1.1 ${status} As it is\r\nContent-Type: ${type}\r\nX-Odd:  a , "b" \r\n${how}Connection: close\r\n\r\n`,
          pieces:
            framing === 'chunked'
              ? [
                  ...pieces.map(piece =>
                    Buffer.concat([Buffer.from(`${piece.length.toString(16)}\r\n`), piece, Buffer.from('\r\n')]),
                  ),
                  Buffer.from('0\r\n\r\n'),
                ]
              : pieces,
        };
        await using client = await connectRaw(proxy.port);
        client.write(request('GET', 'http://origin.test/', 'Connection: close\r\n'));
        const answer = await client.readAnswer();
        expect([answer.status, answer.reason, answer.headers['x-odd']]).toEqual([status, 'As it is', 'a , "b"']);
        expect(answer.body.equals(body)).toBe(true);
      },
    ),
    { numRuns: 40 },
  );
}, 60_000);

describe('a tunnel that breaks at the first word', () => {
  /** A ClientHello as far as its lengths go. */
  const hello = Buffer.concat([Buffer.from('16030100ff010000fb', 'hex'), Buffer.alloc(251, 7)]);
  const connectTo = (authority: string) => `CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\n\r\n`;

  /** A hop that opens the tunnel, reads the first flight, and then does this. */
  const startCutting = (cut: (peer: RawClient) => void): ReturnType<typeof startRawOrigin> =>
    startRawOrigin(async peer => {
      await peer.readUntil('\r\n\r\n');
      peer.write('HTTP/1.1 200 Connection established\r\n\r\n');
      await peer.read(hello.length);
      cut(peer);
    });
  const startTalking = () =>
    startRawOrigin(async peer => {
      expect((await peer.read(hello.length)).equals(hello)).toBe(true);
      peer.write('server hello');
      await peer.readUntil('more');
      peer.write(' and more');
      peer.end();
    });

  test.each([
    ['a reset', (peer: RawClient): void => void peer.socket.resetAndDestroy(), 'connection_terminated', 'reset'],
    ['an end', (peer: RawClient) => peer.end(), 'connection_terminated', 'reset'],
    [
      'a fatal alert',
      (peer: RawClient) => peer.write(Buffer.from('15030300020228', 'hex')),
      'tls_alert_received',
      'tls',
    ],
  ] as const)('%s: the next chain hears the same, and the client nothing of it', async (_, cut, outcome, sign) => {
    await using origin = await startTalking();
    await using cuts = await startCutting(cut);
    await using yes = await startHop({ kind: 'http' });
    await using proxy = await startWith({ cuts, yes });
    await using client = await connectRaw(proxy.port);
    client.write(connectTo(origin.authority));
    await client.readUntil('\r\n\r\n');
    // In two pieces: it is whole when its lengths say so.
    client.write(hello.subarray(0, 100));
    await new Promise(resolve => setImmediate(resolve));
    client.write(hello.subarray(100));
    expect((await client.read(12)).toString()).toBe('server hello');
    client.write('more');
    expect((await client.readAll()).toString()).toBe(' and more');
    client.end();
    expect(await proxy.exchange(0)).toMatchObject({
      status: 200,
      attempts: [
        { chain: ['cuts'], outcome, stage: 'response', sign },
        { chain: ['yes'], outcome: 'ok' },
      ],
      bytesUp: hello.length + 4,
    });
  });

  test('with no chain left the client hears what the last one said', async () => {
    await using resets = await startCutting(peer => void peer.socket.resetAndDestroy());
    await using alerts = await startCutting(peer => peer.write(Buffer.from('15030300020228', 'hex')));
    await using proxy = await startWith({ resets, alerts });
    await using client = await connectRaw(proxy.port);
    client.write(connectTo('127.0.0.1:443'));
    await client.readUntil('\r\n\r\n');
    client.write(hello);
    expect((await client.readAll()).toString('hex')).toBe('15030300020228');
    expect(await proxy.exchange(0)).toMatchObject({ fault: 'tls_alert_received' });
    expect(ladder(proxy)).toEqual(['resets: connection_terminated', 'alerts: tls_alert_received']);
  });

  test('it is sent again twice, and no more', async () => {
    const cut = () => startCutting(peer => void peer.socket.resetAndDestroy());
    await using a = await cut();
    await using b = await cut();
    await using c = await cut();
    await using d = await cut();
    await using proxy = await startWith({ a, b, c, d });
    await using client = await connectRaw(proxy.port);
    client.write(connectTo('127.0.0.1:443'));
    await client.readUntil('\r\n\r\n');
    client.write(hello);
    expect(await client.closed()).toBe('reset');
    await proxy.exchange(0);
    expect(ladder(proxy)).toHaveLength(3);
    expect(d.accepted).toBe(0);
  });

  test.each([
    ['what is no ClientHello', Buffer.from('SSH-2.0-x\r\n')],
    ['a ClientHello with more behind it', Buffer.concat([hello, Buffer.from([0x17, 3, 3, 0, 1, 0])])],
  ])('%s is said once', async (_, first) => {
    await using cuts = await startRawOrigin(async peer => {
      await peer.readUntil('\r\n\r\n');
      peer.write('HTTP/1.1 200 Connection established\r\n\r\n');
      await peer.read(first.length);
      peer.socket.resetAndDestroy();
    });
    await using yes = await startHop({ kind: 'http' });
    await using proxy = await startWith({ cuts, yes });
    await using client = await connectRaw(proxy.port);
    client.write(connectTo('127.0.0.1:443'));
    await client.readUntil('\r\n\r\n');
    client.write(first);
    expect(await client.closed()).toBe('reset');
    await proxy.exchange(0);
    expect(ladder(proxy)).toEqual(['cuts: ok']);
    expect(yes.requests).toHaveLength(0);
  });

  test('a server that speaks first has a tunnel, and the client who leaves ends it', async () => {
    await using greets = await startRawOrigin(async peer => {
      peer.write('220 hello');
      await peer.closed(5_000).catch(() => {});
    });
    await using a = await startHop({ kind: 'http' });
    await using b = await startHop({ kind: 'http' });
    await using proxy = await startWith({ a, b });
    await using client = await connectRaw(proxy.port);
    client.write(connectTo(greets.authority));
    await client.readUntil('\r\n\r\n');
    expect((await client.read(9)).toString()).toBe('220 hello');
    client.socket.resetAndDestroy();
    expect((await proxy.exchange(0)).bytesDown).toBe(9);
  });
});

/** An http hop that forwards, with a Via on its answers or without. */
function startForwarder(via: boolean): ReturnType<typeof startOrigin> {
  return startOrigin((asked, response, body) => {
    const onward = ask(asked.url!, { method: asked.method!, agent: false }, answer => {
      const { connection: _, 'transfer-encoding': __, ...fields } = answer.headers;
      response.writeHead(answer.statusCode!, via ? { ...fields, via: '1.1 hop' } : fields);
      answer.pipe(response);
    });
    onward.on('error', () => response.writeHead(502).end());
    onward.end(body);
  });
}
