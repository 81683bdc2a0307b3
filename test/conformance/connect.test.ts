// A25–A34, R12, R16: CONNECT, Upgrade and what comes back from hops, with the whole companion where hops and routes matter.
import { createHash, randomBytes } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { closedPort, type HopScript, startEcho, startHop } from '../support/hop.ts';
import { startOrigin, startRawOrigin } from '../support/origin.ts';
import { connectRaw, type RawClient } from '../support/raw-client.ts';
import { startTestCompanion } from '../support/with-companion.ts';
import { startProxy } from '../support/with-proxy.ts';
import { connectTo, CUTS, expectRefused, get, post, say, startListeningOrigin, until, wait } from './talk.ts';

/** A companion whose every request goes by these hops in turn: `h0`, then `h1`. */
function startBehind(hops: readonly { readonly port: number; readonly hop: { readonly kind: string } }[], limits = '') {
  const lines = hops.map(({ port, hop }, i) => `  h${i}: ${hop.kind}://127.0.0.1:${port}\n`).join('');
  const chains = hops.map((_, i) => `h${i}`).join(', ');
  return startTestCompanion(
    `hops:\n${lines}routes:\n  r: [[${chains}]]\ndefault: r\nguard:\n  allow: [127.0.0.0/8]\nlimits:\n  hopTimeout: 1\n  routeTimeout: 3\n${limits}`,
  );
}

describe('CONNECT', () => {
  test.each(CUTS)('A25, R16: a target that is not host:port is refused, %s', async cut => {
    await using origin = await startListeningOrigin();
    await using proxy = await startProxy();
    const { port } = origin;
    for (const target of [
      '127.0.0.1:0',
      '127.0.0.1:99999',
      '127.0.0.1:065536',
      `127.0.0.1:+${port}`,
      '127.0.0.1:',
      '127.0.0.1',
      `:${port}`,
      '/',
      '*',
      `/127.0.0.1:${port}`,
      `http://127.0.0.1:${port}/`,
      `u:p@127.0.0.1:${port}`,
      `127.0.0.1:${port}/`,
      `127.0.0.1:${port}?x`,
      `127.0.0.1:${port}#x`,
      `[127.0.0.1]:${port}`,
      `::1:${port}`,
      `[::1:${port}`,
      `127.0.0.1%00:${port}`,
      `127.0.0.1:${port}:${port}`,
    ]) {
      await expectRefused(proxy, origin, `CONNECT ${target} HTTP/1.1\r\nHost: x\r\n\r\n`, [400], cut);
    }
    await expectRefused(proxy, origin, `CONNECT  HTTP/1.1\r\nHost: x\r\n\r\n`, [400], cut);
    await expectRefused(proxy, origin, `GET 127.0.0.1:${port} HTTP/1.1\r\nHost: x\r\n\r\n`, [400, 501], cut);
    expect(origin.accepted).toBe(0);
  });

  test.each(CUTS)('A26: what follows a refused CONNECT is not read as a request, %s', async cut => {
    await using origin = await startListeningOrigin();
    await using companion = await startTestCompanion();
    const refused = await closedPort();
    // Blocked by its port; nobody there; with a body of its own, so that bytes and requests cannot be told apart.
    await expectRefused(companion, origin, connectTo('127.0.0.1:25'), [403], cut);
    await expectRefused(companion, origin, connectTo(`127.0.0.1:${refused}`), [502], cut);
    const withBody = (line: string) => connectTo(origin.authority).replace('\r\n\r\n', `\r\n${line}\r\n\r\n`);
    await expectRefused(companion, origin, withBody('Content-Length: 5'), [400], cut);
    await expectRefused(companion, origin, withBody('Transfer-Encoding: chunked'), [400], cut);
    expect(origin.accepted).toBe(0);
  });

  test('R16: the client has its 200 only once the whole chain stands, and no framing field in it', async () => {
    await using second = await startHop({ kind: 'http', refuse: 403 });
    await using first = await startHop({ kind: 'http' });
    await using echo = await startEcho();
    await using companion = await startBehind([first, second]);
    await using client = await connectRaw(companion.port);
    client.write(connectTo(`127.0.0.1:${echo.port}`));
    expect((await client.readAll()).toString()).toMatch(/^HTTP\/1\.1 502 /);
    second.become({ refuse: undefined, fields: ['Content-Length: 9', 'Transfer-Encoding: chunked', 'X-Hop: 1'] });
    await wait(0);
    await using again = await connectRaw(companion.port);
    again.write(connectTo(`127.0.0.1:${echo.port}`));
    expect(await again.readUntil('\r\n\r\n')).toBe('HTTP/1.1 200 Connection established\r\n\r\n');
  });

  const YES = 'HTTP/1.1 200 OK\r\n';
  const tunnels: Record<string, string> = {
    'A27: a length in it': `${YES}Content-Length: 5\r\n\r\n`,
    'A27: chunked in it': `${YES}Transfer-Encoding: chunked\r\n\r\n`,
    'A27: both in it': `${YES}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n`,
    'A28: another 2xx': 'HTTP/1.1 299 Fine\r\n\r\n',
    'A28: a 204': 'HTTP/1.1 204 No Content\r\n\r\n',
    'A28: interim answers first': `HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n${YES}\r\n`,
    'A28: HTTP/1.0 in it': 'HTTP/1.0 200 Connection established\r\nProxy-Agent: x\r\n\r\n',
    'A28: nothing but its status line': 'HTTP/1.1 200\r\n\r\n',
  };
  test.each(Object.entries(tunnels))(
    '%s: a hop’s yes is a tunnel, and the first bytes arrive untouched (A29)',
    async (_, yes) => {
      for (const cut of CUTS) {
        await using hop = await startRawOrigin(async peer => {
          await peer.readUntil('\r\n\r\n');
          // Glued to the yes: what looks like a chunk, or a body, is the target's.
          await say(peer, `${yes}5\r\nfirst`, cut);
          const heard = await peer.read(4);
          peer.write(`heard ${heard.toString()}`);
          peer.end();
        });
        await using companion = await startBehind([{ port: hop.port, hop: { kind: 'http' } }]);
        await using client = await connectRaw(companion.port);
        client.write(`${connectTo('origin.test:443')}ping`);
        expect(await client.readUntil('\r\n\r\n')).toBe('HTTP/1.1 200 Connection established\r\n\r\n');
        expect((await client.readAll()).toString(), cut).toBe('5\r\nfirstheard ping');
      }
    },
  );

  const huge = 'x'.repeat(4 * 1024 * 1024);
  const refusals: [string, Partial<HopScript>, number][] = [
    ['a 302', { refuse: 'HTTP/1.1 302 Found\r\nLocation: http://login.test/\r\nContent-Length: 4\r\n\r\nEVIL' }, 502],
    ['a 403 with a body without end', { refuse: `HTTP/1.1 403 No\r\n\r\n${huge}` }, 502],
    [
      'a 407 with a body',
      { refuse: `HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm="EVIL"\r\nContent-Length: 4\r\n\r\nEVIL` },
      502,
    ],
    ['a 503 in chunks', { refuse: 'HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nEVIL\r\n0\r\n\r\n' }, 502],
    ['a 101', { refuse: 'HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nEVIL' }, 502],
    ['a head without end', { refuse: `HTTP/1.1 200 OK\r\nX: ${huge}` }, 502],
    ['interim answers without end', { refuse: 'HTTP/1.1 100 Continue\r\n\r\n'.repeat(1_000) }, 502],
    ['a head that drips', { refuse: 'HTTP/1.1 200 OK\r\n\r\n', drip: 200 }, 504],
    ['silence', { silent: 'when-asked' }, 504],
    ['another protocol', { says: 'SSH-2.0-x\r\n' }, 502],
    ['a bare LF', { refuse: 'HTTP/1.1 200 OK\n\nEVIL' }, 502],
    ['its end', { closeAfter: 1 }, 502],
    ['a reset', { reset: true }, 502],
  ];
  test.each(refusals)(
    'A28: %s in place of a yes is a fault here; not a byte of it reaches the client',
    async (_, script, status) => {
      await using hop = await startHop({ kind: 'http', ...script });
      await using companion = await startBehind([hop]);
      await using client = await connectRaw(companion.port);
      client.write(`${connectTo('origin.test:443')}${get('http://origin.test/smuggled')}`);
      const answer = await client.readAnswer();
      expect(answer.status).toBe(status);
      expect(answer.headers['proxy-authenticate']).toBeUndefined();
      expect(answer.head + answer.text).not.toMatch(/EVIL|xxxx/);
      expect((await client.readAll()).toString()).toBe('');
      await until(() => hop.open === 0, 'the end of the connection to the hop');
      expect(hop.requests.join()).not.toContain('smuggled');
    },
  );
});

describe('a SOCKS hop', () => {
  test('A29, A34: data glued to its yes comes through whole, whatever kind of address it was bound to', async () => {
    const bounds = [
      [1, 1, 2, 3, 4, 0, 80],
      [3, 4, 97, 46, 98, 99, 0, 80],
      [3, 0, 0, 80],
      [4, ...Array.from({ length: 16 }, () => 7), 0, 80],
    ];
    await using echo = await startEcho();
    for (const bound of bounds) {
      for (const drip of [undefined, 2]) {
        await using hop = await startHop({ kind: 'socks5', bound, early: 'early!', drip });
        await using companion = await startBehind([hop]);
        await using client = await connectRaw(companion.port);
        client.write(`${connectTo(`127.0.0.1:${echo.port}`)}first`);
        await client.readUntil('\r\n\r\n');
        expect((await client.read(11)).toString()).toBe('early!first');
      }
    }
  });

  const bad: [string, Partial<HopScript>, number][] = [
    ['another version', { says: Buffer.from([4, 0]) }, 502],
    ['a method nobody offered', { says: Buffer.from([5, 0x80]) }, 502],
    ['no method at all', { says: Buffer.from([5, 0xff]) }, 502],
    ['half an answer', { says: Buffer.from([5]) }, 504],
    ['an address of a kind that is none', { bound: [9, 0, 0, 0, 0, 0, 0] }, 502],
    ['a refusal', { refuse: 2 }, 502],
    ['HTTP', { says: 'HTTP/1.1 200 OK\r\n\r\n' }, 502],
    ['its end', { closeAfter: 3 }, 502],
    ['silence', { silent: 'when-asked' }, 504],
  ];
  test.each(bad)('A34: %s in place of a yes is a fault, and its connection is closed', async (_, script, status) => {
    await using hop = await startHop({ kind: 'socks5', ...script });
    await using echo = await startEcho();
    await using companion = await startBehind([hop]);
    await using client = await connectRaw(companion.port);
    client.write(connectTo(`127.0.0.1:${echo.port}`));
    expect((await client.readAnswer()).status).toBe(status);
    await until(() => hop.open === 0, 'the end of the connection to the hop');
  });
});

describe('a tunnel', () => {
  /** A client in a tunnel to an origin that does as `script` says. */
  async function stands(proxy: { readonly port: number }, authority: string): Promise<RawClient> {
    const client = await connectRaw(proxy.port);
    client.write(connectTo(authority));
    await client.readUntil('\r\n\r\n');
    return client;
  }

  test('A30, R16: after the end of one side the other may go on, and then all is closed', async () => {
    const long = randomBytes(3 * 1024 * 1024);
    const hash = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex');
    let heard = '';
    await using origin = await startRawOrigin(async (peer, index) => {
      if (index === 0) {
        // The client has ended; the answer comes after that.
        heard = hash(await peer.readAll());
        await wait(30);
        peer.write(long);
        peer.end();
      } else {
        // The origin has ended; what the client says then still arrives.
        peer.write('all');
        peer.end();
        heard = (await peer.readAll()).toString();
      }
    });
    await using proxy = await startProxy();
    await using up = await stands(proxy, origin.authority);
    up.write(long);
    up.end();
    expect(hash(await up.readAll())).toBe(hash(long));
    expect(heard).toBe(hash(long));
    await using down = await stands(proxy, origin.authority);
    expect((await down.readAll()).toString()).toBe('all');
    await wait(20);
    down.write('and more');
    down.end();
    await until(() => heard === 'and more', 'the rest');
    await until(() => proxy.listener.connections === 0 && proxy.exchanges.length === 2, 'the end of both tunnels');
  });

  test('A30: a reset of one side is a reset of the other', async () => {
    let peer!: RawClient;
    await using origin = await startRawOrigin(one => void (peer = one));
    await using proxy = await startProxy();
    await using first = await stands(proxy, origin.authority);
    first.write('x');
    await peer.read(1);
    peer.socket.resetAndDestroy();
    expect(await first.closed()).toBe('reset');
    await using second = await stands(proxy, origin.authority);
    second.write('x');
    await peer.read(1);
    second.socket.resetAndDestroy();
    expect(await peer.closed()).toBe('reset');
    await until(() => proxy.exchanges.length === 2 && proxy.listener.connections === 0, 'the end of both tunnels');
  });

  test('A30: a reset after a half-close still ends both', async () => {
    let peer!: RawClient;
    await using origin = await startRawOrigin(one => void (peer = one));
    await using proxy = await startProxy();
    await using client = await stands(proxy, origin.authority);
    client.write('x');
    client.end();
    await peer.readAll();
    peer.socket.resetAndDestroy();
    expect(['reset', 'ended']).toContain(await client.closed());
    await until(() => proxy.exchanges.length === 1 && proxy.listener.connections === 0, 'the end of the tunnel');
  });

  test('A30: a client that has said all it wants behind its CONNECT, and ended, is served to the end', async () => {
    await using origin = await startRawOrigin(async peer => {
      const heard = await peer.readAll();
      peer.write(`heard ${heard.toString()}`);
      peer.end();
    });
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(`${connectTo(origin.authority)}everything`);
    client.end();
    await client.readUntil('\r\n\r\n');
    expect((await client.readAll()).toString()).toBe('heard everything');
  });
});

describe('Upgrade', () => {
  const SWITCH = 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n';
  const upgrade = (url: string, more = '') => get(url, `Connection: upgrade\r\nUpgrade: echo\r\n${more}`);

  test('R12: goes on only with Connection: upgrade, and never for HTTP/1.0', async () => {
    const heads: string[] = [];
    await using origin = await startRawOrigin(async peer => {
      while (true) {
        heads.push((await peer.readUntil('\r\n\r\n')).toLowerCase());
        peer.write('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n');
      }
    });
    await using proxy = await startProxy();
    const url = origin.url('/');
    for (const request of [
      get(url, 'Upgrade: echo\r\n'),
      get(url, 'Upgrade: echo\r\nConnection: keep-alive\r\n'),
      `GET ${url} HTTP/1.0\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n`,
    ]) {
      await using client = await connectRaw(proxy.port);
      client.write(request);
      expect((await client.readAnswer()).status).toBe(200);
      expect(heads.at(-1)).not.toMatch(/upgrade/);
    }
    await using client = await connectRaw(proxy.port);
    client.write(upgrade(url));
    await client.readAnswer();
    expect(heads.at(-1)).toMatch(/\r\nconnection: upgrade\r\nupgrade: echo\r\n/);
  });

  test.each(CUTS)('A32: h2c is never asked for, %s', async cut => {
    await using origin = await startOrigin();
    await using proxy = await startProxy();
    for (const protocols of ['h2c', 'H2C', 'h2c, h2', ' h2c ,']) {
      await using client = await connectRaw(proxy.port);
      await say(
        client,
        get(
          origin.url('/'),
          `Connection: Upgrade, HTTP2-Settings\r\nUpgrade: ${protocols}\r\nHTTP2-Settings: AAMAAABk\r\n`,
        ),
        cut,
      );
      expect((await client.readAnswer()).status).toBe(200);
      expect(JSON.stringify(origin.requests.at(-1)!.rawHeaders).toLowerCase()).not.toMatch(/upgrade|h2c|http2/);
    }
  });

  test('A32: beside another protocol, that one alone is asked for', async () => {
    const heads: string[] = [];
    await using origin = await startRawOrigin(async peer => {
      heads.push(await peer.readUntil('\r\n\r\n'));
      peer.write('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n');
    });
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(get(origin.url('/'), 'Connection: Upgrade\r\nUpgrade: h2c, echo\r\n'));
    await client.readAnswer();
    expect(heads[0]).toContain('Upgrade: echo\r\n');
    expect(heads[0]).not.toContain('h2c');
  });

  test('A31: a request to upgrade that has a body is an ordinary one, and the next request is read behind its body', async () => {
    const seen: string[] = [];
    await using origin = await startOrigin((request, response, body) => {
      seen.push(`${request.headers.upgrade} ${body.toString()}`);
      response.end('plain');
    });
    await using proxy = await startProxy();
    for (const cut of CUTS) {
      await using client = await connectRaw(proxy.port);
      const fields = 'Connection: upgrade\r\nUpgrade: echo\r\n';
      await say(
        client,
        post(origin.url('/'), `${fields}Content-Length: 3\r\n`, 'abc') +
          post(origin.url('/'), `${fields}Transfer-Encoding: chunked\r\n`, '3\r\ndef\r\n0\r\n\r\n') +
          get(origin.url('/next')),
        cut,
      );
      for (let i = 0; i < 3; i++) expect((await client.readAnswer()).text).toBe('plain');
      expect(seen.splice(0)).toEqual(['undefined abc', 'undefined def', 'undefined ']);
    }
  });

  test.each([
    ['without having been asked', get, SWITCH],
    ['without Connection: upgrade', upgrade, 'HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\n\r\n'],
    ['without Upgrade', upgrade, 'HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\r\n'],
    ['to another protocol', upgrade, SWITCH.replace('echo', 'h2c')],
    ['to one more protocol', upgrade, SWITCH.replace('echo', 'echo, h2c')],
    ['with nothing', upgrade, 'HTTP/1.1 101 Switching Protocols\r\n\r\n'],
    [
      'with Transfer-Encoding and a length',
      upgrade,
      SWITCH.replace('\r\n\r\n', '\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n'),
    ],
  ] as const)('A31: a 101 %s is a 502; nothing behind it reaches anyone', async (_, request, answer) => {
    for (const cut of CUTS) {
      await using origin = await startRawOrigin(async (peer, index) => {
        await peer.readUntil('\r\n\r\n');
        if (index > 0) return peer.write('HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond');
        await say(peer, `${answer}HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL`, cut);
      });
      await using proxy = await startProxy();
      await using client = await connectRaw(proxy.port);
      client.write(request(origin.url('/')));
      const first = await client.readAnswer();
      expect(first.status).toBe(502);
      expect(first.text).not.toContain('EVIL');
      client.write(get(origin.url('/')));
      expect((await client.readAnswer()).text).toBe('second');
    }
  });

  test('A31, R12: after the 101 it is a blind pipe: what looks like a request goes through as it is', async () => {
    await using origin = await startRawOrigin(async peer => {
      await peer.readUntil('\r\n\r\n');
      peer.write(`${SWITCH}early`);
      peer.socket.on('data', chunk => peer.write(chunk));
    });
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    const request = get('http://other.test/');
    client.write(upgrade(origin.url('/')) + request);
    const head = await client.readUntil('\r\n\r\n');
    expect(head).toMatch(/^HTTP\/1\.1 101 /);
    expect(head.toLowerCase()).toContain('upgrade: echo');
    expect((await client.read(5 + request.length)).toString()).toBe(`early${request}`);
  });
});
