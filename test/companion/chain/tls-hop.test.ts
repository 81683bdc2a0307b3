// Hops of kind https over real TLS: what is verified, what is said when it does not hold, and TLS through TLS.
import { createHash, randomBytes, X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { createServer as createTlsServer, type TlsOptions } from 'node:tls';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { makeDial } from '../../../companion/chain/dial.ts';
import { makeAcl } from '../../../companion/guard/acl.ts';
import type { AdmittedTarget, Chain, Dialled } from '../../../companion/rooms.ts';
import type { Hop } from '../../../shared/config/hops.ts';
import type { HopTrace } from '../../../shared/exchange.ts';
import type { Fault } from '../../../shared/fault.ts';
import { makeTestAuthority } from '../../support/certificates.ts';
import { startEcho, startHop } from '../../support/hop.ts';
import { startTlsFront } from '../../support/tls-front.ts';

const dial = makeDial({
  acl: makeAcl({ guard: { allow: [{ address: '127.0.0.0', prefix: 8 }], connectPorts: [] }, listeners: () => [] }),
  hopTimeout: 5_000,
  hosts: { 'proxy.test': '127.0.0.1', 'second.test': '127.0.0.1', 'wrong.test': '127.0.0.1' },
  lookup: host => Promise.reject(new Error(`${host} was looked up here`)),
});
const authority = await makeTestAuthority();

function chainOf(...hops: Hop[]): Chain {
  const named = hops.map((hop, i) => ({ ...hop, name: `hop${i + 1}` }));
  return { key: named.map(hop => hop.name).join('>'), hops: named };
}

async function dialTo(
  chain: Chain,
  port: number,
  steps: HopTrace[] = [],
  absolute = false,
): Promise<Dialled & Disposable> {
  const { signal } = new AbortController();
  const target = { host: '127.0.0.1', port } as AdmittedTarget;
  const dialled = await dial({ chain, signal, steps, stage: 'connect' }, target, absolute);
  return { ...dialled, [Symbol.dispose]: () => dialled.socket.destroy() };
}

async function faultFrom(chain: Chain, port = 1): Promise<Fault> {
  return dialTo(chain, port).then(
    ({ socket }) => (socket.destroy(), expect.unreachable('it stood')),
    (error: Fault) => error,
  );
}

async function echoes({ socket, rest }: Dialled, text = 'through the tunnel'): Promise<void> {
  let got = rest.toString();
  socket.on('data', (chunk: Buffer) => (got += chunk.toString()));
  socket.write(text);
  socket.resume();
  while (got.length < text.length) await once(socket as never, 'data');
  expect(got).toBe(text);
}

const https = (port: number, tls: Hop['tls'] = { ca: authority.pem }, host = 'proxy.test'): Hop => ({
  kind: 'https',
  host,
  port,
  tls,
});

describe('TLS to the hop', () => {
  test('its certificate is verified for its name, the name is asked for, and it speaks http/1.1', async () => {
    await using echo = await startEcho();
    await using plain = await startHop({ kind: 'http', credentials: { username: 'me', password: 'pw' } });
    await using front = await startTlsFront(plain.port, await authority.issue('proxy.test'));
    const steps: HopTrace[] = [];
    const hop = { ...https(front.port), username: 'me', password: 'pw' };
    using dialled = await dialTo(chainOf(hop), echo.port, steps);
    await echoes(dialled);
    expect(steps.map(step => step.hop)).toEqual(['hop1', null]);
    expect([front.names, front.protocols, plain.logins]).toEqual([['proxy.test'], ['http/1.1'], ['me:pw']]);
  });

  test('by its address, where the certificate holds that; no name is asked for then', async () => {
    await using echo = await startEcho();
    await using plain = await startHop({ kind: 'http' });
    await using front = await startTlsFront(plain.port, await authority.issueAs({}, '127.0.0.1'));
    using dialled = await dialTo(chainOf(https(front.port, undefined, '127.0.0.1')), echo.port);
    await echoes(dialled);
    expect(front.names).toEqual([false]);
  });

  test('servername stands for the host in both', async () => {
    await using echo = await startEcho();
    await using plain = await startHop({ kind: 'http' });
    await using front = await startTlsFront(plain.port, await authority.issue('inner.test'));
    const tls = { ca: authority.pem, servername: 'inner.test' };
    using dialled = await dialTo(chainOf(https(front.port, tls, '127.0.0.1')), echo.port);
    await echoes(dialled);
    expect(front.names).toEqual(['inner.test']);
  });

  test.each([
    ['for another name', {}, 'wrong.test', { ca: authority.pem }, 'it is for another name'],
    ['that has expired', { expired: true }, 'proxy.test', { ca: authority.pem }, 'it has expired'],
    ['of an unknown authority', {}, 'proxy.test', {}, 'an unknown authority vouches for it'],
    ['for clients', { client: true }, 'proxy.test', { ca: authority.pem }, 'it is not for servers'],
    [
      'with another key than the pinned one',
      {},
      'proxy.test',
      { ca: authority.pem, pin: `sha256/${'A'.repeat(43)}=` },
      'its public key is not the one that the file pins',
    ],
  ] as const)('A66: a certificate %s is refused, and says why', async (_what, as, name, tls, why) => {
    await using plain = await startHop({ kind: 'http' });
    await using front = await startTlsFront(plain.port, await authority.issueAs(as, name));
    const fault = await faultFrom(chainOf({ ...https(front.port, tls), username: 'me', password: 'pw' }));
    expect(fault).toMatchObject({ kind: 'tls_certificate_error', hop: 'hop1' });
    expect(fault.message).toContain(why);
    expect(plain.requests).toEqual([]);
  });

  test('A66: ca: in the file are the only authorities, also for what the usual ones would vouch for', async () => {
    const other = await makeTestAuthority();
    await using plain = await startHop({ kind: 'http' });
    await using front = await startTlsFront(plain.port, await authority.issue('proxy.test'));
    expect(await faultFrom(chainOf(https(front.port, { ca: other.pem })))).toMatchObject({
      kind: 'tls_certificate_error',
    });
  });

  test('the pinned key is let pass', async () => {
    await using echo = await startEcho();
    await using plain = await startHop({ kind: 'http' });
    const issued = await authority.issue('proxy.test');
    const key = new X509Certificate(issued.cert).publicKey.export({ type: 'spki', format: 'der' });
    const pin = `sha256/${createHash('sha256').update(key).digest('base64')}`;
    await using front = await startTlsFront(plain.port, issued);
    using dialled = await dialTo(chainOf(https(front.port, { ca: authority.pem, pin })), echo.port);
    await echoes(dialled);
  });

  test('a client certificate is shown where it is asked for, and without one the alert is told', async () => {
    await using echo = await startEcho();
    await using plain = await startHop({ kind: 'http' });
    const issued = await authority.issue('proxy.test');
    const mine = await authority.issueAs({ client: true }, 'me.test');
    for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
      await using front = await startTlsFront(plain.port, {
        ...issued,
        ca: authority.pem,
        requestCert: true,
        rejectUnauthorized: true,
        maxVersion,
      });
      using dialled = await dialTo(chainOf(https(front.port, { ca: authority.pem, ...mine })), echo.port);
      await echoes(dialled);
      expect(front.clients).toEqual(['me.test']);
      const fault = await faultFrom(chainOf(https(front.port)));
      expect(fault).toMatchObject({ kind: 'tls_alert_received', hop: 'hop1' });
      expect(fault.detail).toContain('client certificate');
    }
  });

  test('a session is taken up again by the next connection of the same hop', async () => {
    await using echo = await startEcho();
    await using plain = await startHop({ kind: 'http' });
    await using front = await startTlsFront(plain.port, await authority.issue('proxy.test'));
    const chain = chainOf(https(front.port));
    for (let i = 0; i < 3; i++) {
      using dialled = await dialTo(chain, echo.port);
      await echoes(dialled);
    }
    expect(front.reused).toBe(2);
  });

  test('absolute: TLS is made, and nothing asked', async () => {
    await using plain = await startHop({ kind: 'http' });
    await using front = await startTlsFront(plain.port, await authority.issue('proxy.test'));
    const steps: HopTrace[] = [];
    using dialled = await dialTo(chainOf(https(front.port)), 80, steps, true);
    while (front.names.length === 0) await sleep(5);
    expect([dialled.rest.length, plain.requests, front.names]).toEqual([0, [], ['proxy.test']]);
    expect(steps.map(step => step.hop)).toEqual(['hop1']);
  });
});

describe('what a hop says through its TLS', () => {
  test.each([
    ['403', { refuse: 403 }, { kind: 'hop_refused', receivedStatus: 403 }],
    ['503', { refuse: 503 }, { kind: 'hop_could_not_reach' }],
    ['407', { credentials: { username: 'x', password: 'y' } }, { kind: 'hop_authentication_failed' }],
    ['what is no HTTP', { says: '\x05\x00' }, { kind: 'hop_protocol_error' }],
    ['nothing, and leaves', { closeAfter: 1 }, { kind: 'connection_terminated' }],
    ['nothing, and resets', { reset: true }, { kind: 'connection_terminated' }],
  ] as const)('%s', async (_what, script, fault) => {
    await using plain = await startHop({ kind: 'http', drip: 1, ...script });
    await using front = await startTlsFront(plain.port, await authority.issue('proxy.test'));
    expect(await faultFrom(chainOf(https(front.port)))).toMatchObject({ ...fault, hop: 'hop1' });
    while (plain.open > 0) await sleep(5);
  });

  test('a yes, a byte at a time, with the first bytes of the tunnel behind it', async () => {
    await using echo = await startEcho();
    await using plain = await startHop({ kind: 'http', drip: 1, early: 'early ' });
    await using front = await startTlsFront(plain.port, await authority.issue('proxy.test'));
    using dialled = await dialTo(chainOf(https(front.port)), echo.port);
    let got = dialled.rest.toString();
    dialled.socket.on('data', (chunk: Buffer) => (got += chunk.toString()));
    dialled.socket.write('late');
    dialled.socket.resume();
    while (got.length < 10) await once(dialled.socket as never, 'data');
    expect(got).toBe('early late');
  });
});

describe('what is no TLS', () => {
  test.each(['HTTP/1.1 400 Bad Request\r\n\r\n', '\x05\x00\x00\x00\x00\x00'])(
    '%j instead of a handshake',
    async says => {
      await using plain = await startHop({ kind: 'http', says });
      const fault = await faultFrom(chainOf(https(plain.port)));
      expect(fault.kind).toMatch(/^(?:tls_protocol_error|connection_terminated|connection_timeout)$/);
      expect(fault.hop).toBe('hop1');
    },
  );

  test('a plain HTTP proxy says so in words', async () => {
    await using plain = await startHop({ kind: 'http', says: 'HTTP/1.1 400 Bad Request\r\n\r\n' });
    const fault = await faultFrom(chainOf(https(plain.port)));
    expect(fault).toMatchObject({ kind: 'tls_protocol_error', detail: 'it does not speak TLS there' });
  });

  test('an end in the handshake, at once or after the first bytes', async () => {
    for (const closeAfter of [0, 1]) {
      await using plain = await startHop({ kind: 'http', closeAfter });
      expect(await faultFrom(chainOf(https(plain.port)))).toMatchObject({
        kind: 'connection_terminated',
        hop: 'hop1',
        detail: 'in the TLS handshake',
      });
    }
  });

  test('silence is bounded, and the connection gone', async () => {
    await using plain = await startHop({ kind: 'http', silent: 'always' });
    const hasty = makeDial({
      acl: makeAcl({ guard: { allow: [], connectPorts: [] }, listeners: () => [] }),
      hopTimeout: 200,
    });
    const one = { chain: chainOf(https(plain.port, {}, '127.0.0.1')), signal: new AbortController().signal, steps: [] };
    const fault = (await hasty(
      { ...one, stage: 'connect' },
      { host: 'a.test', port: 443 } as AdmittedTarget,
      false,
    ).catch((error: unknown) => error)) as Fault;
    expect(fault).toMatchObject({ kind: 'connection_timeout', hop: 'hop1', detail: 'in the TLS handshake' });
    while (plain.open > 0) await sleep(5);
  });

  test('bytes glued to the yes before TLS are none of it', async () => {
    await using echo = await startEcho();
    await using first = await startHop({ kind: 'http', early: 'x' });
    expect(await faultFrom(chainOf(first.hop, https(echo.port, {}, '127.0.0.1')))).toMatchObject({
      kind: 'tls_protocol_error',
      hop: 'hop2',
    });
  });
});

describe('TLS through what stands already', () => {
  test('http, then socks5, then https', async () => {
    await using echo = await startEcho();
    await using first = await startHop({ kind: 'http' });
    await using second = await startHop({ kind: 'socks5', hosts: { 'proxy.test': '127.0.0.1' } });
    await using third = await startHop({ kind: 'http' });
    await using front = await startTlsFront(third.port, await authority.issue('proxy.test'));
    using dialled = await dialTo(chainOf(first.hop, second.hop, https(front.port)), echo.port);
    await echoes(dialled);
    expect(second.requests).toEqual([`socks5 proxy.test:${front.port}`]);
    expect(third.requests[0]).toContain(`CONNECT 127.0.0.1:${echo.port} `);
  });

  test.each([2, 3])('%i times https: megabytes both ways arrive whole, with a reader that dawdles', async depth => {
    const size = 6 << 20;
    const digest = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex');
    let heard: string | null = null;
    const answer = randomBytes(size);
    const server = createServer(socket => {
      const pieces: Buffer[] = [];
      let length = 0;
      socket.on('error', () => {});
      socket.on('data', (chunk: Buffer) => {
        pieces.push(chunk);
        length += chunk.length;
        if (length < size) return;
        heard = digest(Buffer.concat(pieces));
        socket.end(answer);
      });
    });
    await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
    const names = ['proxy.test', 'second.test', 'wrong.test'].slice(0, depth);
    const hosts = Object.fromEntries(names.map(name => [name, '127.0.0.1']));
    await using stack = new AsyncDisposableStack();
    const hops: Hop[] = [];
    for (const name of names) {
      const plain = stack.use(await startHop({ kind: 'http', hosts }));
      hops.push(https(stack.use(await startTlsFront(plain.port, await authority.issue(name))).port, undefined, name));
    }
    using dialled = await dialTo(chainOf(...hops), (server.address() as AddressInfo).port);
    const { socket } = dialled;
    const question = randomBytes(size);
    const pieces: Buffer[] = [dialled.rest];
    let reads = 0;
    socket.on('data', (chunk: Buffer) => {
      pieces.push(chunk);
      // Now and then it reads nothing for a while.
      if (++reads % 16 !== 0) return;
      socket.pause();
      setTimeout(() => socket.resume(), 5);
    });
    const ended = new Promise<void>(resolve => socket.once('end', () => resolve()));
    socket.resume();
    for (let at = 0; at < size; at += 100_000) {
      if (!socket.write(question.subarray(at, at + 100_000))) await once(socket as never, 'drain');
    }
    await ended;
    expect(heard).toBe(digest(question));
    expect(digest(Buffer.concat(pieces))).toBe(digest(answer));
    server.close();
  });

  test('A61, A66: the second hop of kind https is verified too, and what the first would learn of it is its place alone', async () => {
    await using first = await startHop({ kind: 'http' });
    await using firstFront = await startTlsFront(first.port, await authority.issue('proxy.test'));
    await using second = await startHop({ kind: 'http' });
    await using secondFront = await startTlsFront(second.port, await authority.issue('second.test'));
    const secret = { username: 'only', password: 'second' };
    const fault = await faultFrom(
      chainOf(https(firstFront.port), { ...https(secondFront.port, undefined, '127.0.0.1'), ...secret }),
    );
    expect(fault).toMatchObject({ kind: 'tls_certificate_error', hop: 'hop2' });
    expect(first.requests.join()).not.toMatch(/authorization/i);
    expect(second.requests).toEqual([]);
  });

  test('an end on one side is an end on the other, and what comes back afterwards arrives', async () => {
    const server = createServer({ allowHalfOpen: true }, socket => {
      const pieces: Buffer[] = [];
      socket.on('data', (chunk: Buffer) => pieces.push(chunk)).on('error', () => {});
      socket.on('end', () => socket.end(`heard ${Buffer.concat(pieces).toString()}`));
    });
    await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    await using front = await startTlsTunnel(await authority.issue('proxy.test'));
    using dialled = await dialTo(chainOf(https(front.port)), port);
    const { socket } = dialled;
    socket.allowHalfOpen = true;
    let heard = '';
    socket.on('data', (chunk: Buffer) => (heard += chunk.toString()));
    const ended = new Promise<void>(resolve => socket.once('end', () => resolve()));
    socket.resume();
    socket.end(Buffer.from('all of it'));
    await ended;
    expect(heard).toBe('heard all of it');
    server.close();
  });

  test('destroyed above, it is gone below', async () => {
    await using echo = await startEcho();
    await using first = await startHop({ kind: 'http', hosts: { 'second.test': '127.0.0.1' } });
    await using firstFront = await startTlsFront(first.port, await authority.issue('proxy.test'));
    await using second = await startHop({ kind: 'http' });
    await using secondFront = await startTlsFront(second.port, await authority.issue('second.test'));
    for (const how of ['destroy', 'resetAndDestroy'] as const) {
      const dialled = await dialTo(
        chainOf(https(firstFront.port), https(secondFront.port, undefined, 'second.test')),
        echo.port,
      );
      await echoes(dialled);
      dialled.socket[how]();
      while (first.open > 0 || second.open > 0) await sleep(5);
    }
  });
});

/** A proxy of kind https whose tunnels may be open on one side only. */
async function startTlsTunnel(issued: { key: string; cert: string }): Promise<AsyncDisposable & { port: number }> {
  const sockets = new Set<Socket>();
  const server = createTlsServer({ ...issued, allowHalfOpen: true } as TlsOptions, async socket => {
    sockets.add(socket);
    socket.on('error', () => {});
    const [head] = (await once(socket, 'data')) as [Buffer];
    const to = /^CONNECT 127\.0\.0\.1:(\d+) /.exec(head.toString())!;
    const upstream = connect({ port: Number(to[1]), host: '127.0.0.1', allowHalfOpen: true });
    sockets.add(upstream);
    upstream.on('error', () => {});
    socket.write('HTTP/1.1 200 OK\r\n\r\n');
    socket.pipe(upstream).pipe(socket);
  });
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  return {
    port: (server.address() as AddressInfo).port,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise(resolve => server.close(resolve));
    },
  };
}
