// Chains over real sockets, with hops that misbehave in every way we know. The real proxies are in real-proxies.test.ts.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect } from 'node:net';
import { networkInterfaces } from 'node:os';
import { describe, expect, test } from 'vitest';
import { type ChainOptions, makeDial } from '../../../companion/chain/dial.ts';
import { LookupFailed } from '../../../companion/chain/resolver.ts';
import { makeAcl } from '../../../companion/guard/acl.ts';
import { nodeSocket, type Socket } from '../../../companion/sockets/socket.ts';
import type { AdmittedTarget, Chain, Dialled, NamedHop } from '../../../companion/rooms.ts';
import type { Cidr } from '../../../shared/config/words.ts';
import type { Hop } from '../../../shared/config/hops.ts';
import type { Endpoint } from '../../../shared/endpoint.ts';
import type { HopTrace } from '../../../shared/exchange.ts';
import type { Fault } from '../../../shared/fault.ts';
import { closedPort, startEcho, startHop } from '../../support/hop.ts';

const LOOPBACK: Cidr[] = [
  { address: '127.0.0.0', prefix: 8 },
  { address: '::1', prefix: 128 },
];

function aclWith(allow: readonly Cidr[] = LOOPBACK, listeners: Endpoint[] = []) {
  return makeAcl({ guard: { allow: [...allow], connectPorts: [{ from: 1, to: 65535 }] }, listeners: () => listeners });
}

function chainOf(...hops: Hop[]): Chain {
  const named: NamedHop[] = hops.map((hop, i) => ({ ...hop, name: `hop${i + 1}` }));
  return { key: named.map(hop => hop.name).join('>') || 'companion', hops: named };
}

interface DialTry extends Partial<ChainOptions> {
  absolute?: boolean;
  signal?: AbortSignal;
  steps?: HopTrace[];
  reached?: (stage: string) => void;
}

/** Dials; what comes back closes itself. */
async function dialTo(
  chain: Chain,
  target: Endpoint,
  { absolute = false, signal = new AbortController().signal, steps = [], reached, ...options }: DialTry = {},
): Promise<Dialled & Disposable> {
  const dial = makeDial({ acl: aclWith(), hopTimeout: 2_000, ...options });
  const one: Parameters<typeof dial>[0] = {
    chain,
    signal,
    steps,
    get stage() {
      return 'connect' as const;
    },
    set stage(stage) {
      reached?.(stage);
    },
  };
  const dialled = await dial(one, target as AdmittedTarget, absolute);
  return { ...dialled, [Symbol.dispose]: () => dialled.socket.destroy() };
}

async function faultFrom(promise: Promise<unknown>): Promise<Fault> {
  return promise.then(
    () => expect.unreachable('it stood'),
    (error: Fault) => error,
  );
}

/** What comes back on a socket, until it is as long as `expected`. */
async function heard(socket: Socket, rest: Buffer, length: number): Promise<string> {
  let got = rest;
  const node = nodeSocket(socket);
  node.resume();
  while (got.length < length) got = Buffer.concat([got, ((await once(node, 'data')) as [Buffer])[0]]);
  return got.toString();
}

async function echoes(dialled: Dialled, text = 'through the tunnel'): Promise<void> {
  dialled.socket.write(text);
  expect(await heard(dialled.socket, dialled.rest, text.length)).toBe(text);
}

const hasIPv6 = Object.values(networkInterfaces()).some(addresses => addresses?.some(one => one.address === '::1'));

/** An address that takes no connection and refuses none, as behind a firewall: a process that is stopped, with its queue full. */
async function startSilent(host: string, port: number): Promise<AsyncDisposable> {
  const program = `require('node:net').createServer().listen({ host: '${host}', port: ${port}, backlog: 1 }, () => console.log('up'))`;
  const child = spawn(process.execPath, ['-e', program], { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(child.stdout, 'data');
  child.kill('SIGSTOP');
  const queued: Socket[] = [];
  for (let full = false; !full;) {
    const socket = connect({ host, port }).on('error', () => {});
    queued.push(socket);
    full = await Promise.race([
      once(socket, 'connect').then(() => false),
      new Promise<boolean>(resolve => setTimeout(resolve, 150, true)),
    ]);
  }
  return {
    async [Symbol.asyncDispose]() {
      for (const socket of queued) socket.destroy();
      child.kill('SIGKILL');
      await once(child, 'exit');
    },
  };
}

describe('the chain of zero hops', () => {
  test('connects itself, and its trace has one step', async () => {
    await using echo = await startEcho();
    using dialled = await dialTo(chainOf(), { host: '127.0.0.1', port: echo.port });
    await echoes(dialled);
    expect(dialled.hops).toEqual([{ hop: null, at: `127.0.0.1:${echo.port}`, took: expect.any(Number) }]);
  });

  test('a name goes to the address that dns.hosts gives it', async () => {
    await using echo = await startEcho();
    using dialled = await dialTo(
      chainOf(),
      { host: 'origin.test', port: echo.port },
      { hosts: { 'Origin.TEST': '127.0.0.1' } },
    );
    await echoes(dialled);
  });

  test('A37: an address in this machine is not dialled, by address or by name', async () => {
    await using echo = await startEcho();
    const acl = aclWith([]);
    expect(await faultFrom(dialTo(chainOf(), { host: '127.0.0.1', port: echo.port }, { acl }))).toMatchObject({
      kind: 'destination_ip_prohibited',
    });
    const fault = await faultFrom(
      dialTo(chainOf(), { host: 'rebound.test', port: echo.port }, { acl, lookup: async () => ['::ffff:127.0.0.1'] }),
    );
    expect(fault).toMatchObject({ kind: 'destination_ip_prohibited', target: { host: 'rebound.test' } });
    expect(echo.connections).toBe(0);
  });

  test('A37: dns.hosts does not open what the guard closes', async () => {
    await using echo = await startEcho();
    const fault = await faultFrom(
      dialTo(chainOf(), { host: 'a.test', port: echo.port }, { acl: aclWith([]), hosts: { 'a.test': '127.0.0.1' } }),
    );
    expect(fault.kind).toBe('destination_ip_prohibited');
  });

  test('A38: the address that was checked is the one dialled; a name is looked up once', async () => {
    await using open = await startEcho();
    let lookups = 0;
    // Allowed the first time, closed ever after: whoever looks twice dials the second answer.
    const lookup = async () => (lookups++ === 0 ? ['127.0.0.1'] : ['127.0.0.2']);
    const acl = aclWith([{ address: '127.0.0.1', prefix: 32 }]);
    using dialled = await dialTo(chainOf(), { host: 'rebinding.test', port: open.port }, { acl, lookup });
    expect(dialled.socket.remoteAddress).toBe('127.0.0.1');
    expect(lookups).toBe(1);
    expect(
      (await faultFrom(dialTo(chainOf(), { host: 'rebinding.test', port: open.port }, { acl, lookup }))).kind,
    ).toBe('destination_ip_prohibited');
  });

  test('A39: of an answer that mixes allowed and closed addresses only the allowed ones are dialled', async () => {
    await using echo = await startEcho();
    const acl = aclWith([{ address: '127.0.0.1', prefix: 32 }]);
    const lookup = async () => ['127.0.0.2', '10.0.0.1', '::1', '127.0.0.1'];
    using dialled = await dialTo(chainOf(), { host: 'mixed.test', port: echo.port }, { acl, lookup });
    expect(dialled.socket.remoteAddress).toBe('127.0.0.1');
    await echoes(dialled);
  });

  test('an address that refuses leads to the next at once', async () => {
    await using echo = await startEcho({ host: '127.0.0.1' });
    const begun = performance.now();
    using dialled = await dialTo(
      chainOf(),
      { host: 'two.test', port: echo.port },
      { lookup: async () => ['::1', '127.0.0.3', '127.0.0.1'] },
    );
    expect(dialled.socket.remoteAddress).toBe('127.0.0.1');
    expect(performance.now() - begun).toBeLessThan(240);
  });

  test.runIf(hasIPv6).each([
    { silent: '::1', other: '127.0.0.1' },
    { silent: '127.0.0.1', other: '::1' },
  ])('RFC 8305: while $silent says nothing, $other is tried a quarter of a second later', async ({ silent, other }) => {
    await using echo = await startEcho({ host: other });
    await using _ = await startSilent(silent, echo.port);
    const begun = performance.now();
    using dialled = await dialTo(
      chainOf(),
      { host: 'two.test', port: echo.port },
      { lookup: async () => [silent, silent, silent, silent, other] },
    );
    const took = performance.now() - begun;
    expect(dialled.socket.remoteAddress).toBe(other);
    // The other family is next, not the second address of the first.
    expect(took).toBeGreaterThan(240);
    expect(took).toBeLessThan(900);
  });

  test('A40: an own listener is refused even where guard.allow opens its address', async () => {
    await using echo = await startEcho();
    const acl = aclWith(LOOPBACK, [{ host: '127.0.0.1', port: echo.port }]);
    expect((await faultFrom(dialTo(chainOf(), { host: '127.0.0.1', port: echo.port }, { acl }))).kind).toBe(
      'proxy_loop_detected',
    );
    expect(
      (
        await faultFrom(
          dialTo(chainOf(), { host: 'me.test', port: echo.port }, { acl, hosts: { 'me.test': '127.0.0.1' } }),
        )
      ).kind,
    ).toBe('proxy_loop_detected');
    expect(echo.connections).toBe(0);
  });

  test.each(['dns_error', 'dns_timeout'] as const)('a lookup that fails is a %s that names the name', async kind => {
    const lookup = () => Promise.reject(new LookupFailed(kind, 'asked: 192.0.2.53'));
    const fault = await faultFrom(dialTo(chainOf(), { host: 'nowhere.test', port: 80 }, { lookup }));
    expect(fault).toMatchObject({ kind, target: { host: 'nowhere.test' } });
    expect(fault.message).toContain('nowhere.test:80');
    expect(fault.message).toContain('(asked: 192.0.2.53)');
  });

  test('a lookup that never ends is a dns_timeout within the time of a hop', async () => {
    const fault = await faultFrom(
      dialTo(chainOf(), { host: 'slow.test', port: 80 }, { hopTimeout: 80, lookup: () => new Promise(() => {}) }),
    );
    expect(fault.kind).toBe('dns_timeout');
  });

  test('a name without an address, and a closed port, say so', async () => {
    expect(
      (await faultFrom(dialTo(chainOf(), { host: 'empty.test', port: 80 }, { lookup: async () => [] }))).kind,
    ).toBe('dns_error');
    const port = await closedPort();
    const fault = await faultFrom(dialTo(chainOf(), { host: '127.0.0.1', port }));
    expect(fault.message).toBe(`127.0.0.1:${port} refused the connection. Is it running?`);
  });
});

describe('hops', () => {
  test('A45: a name behind a hop is not looked up here', async () => {
    await using echo = await startEcho();
    await using hop = await startHop({ kind: 'socks5', hosts: { 'far.test': '127.0.0.1' } });
    const lookup = () => Promise.reject(new Error('asked here'));
    using dialled = await dialTo(chainOf(hop.hop), { host: 'far.test', port: echo.port }, { lookup });
    await echoes(dialled);
    expect(hop.requests).toEqual([`socks5 far.test:${echo.port}`]);
    expect(hop.addressTypes).toEqual([3]);
  });

  test('A61: each hop of a chain gets its own credentials and nobody else gets them', async () => {
    await using echo = await startEcho();
    await using first = await startHop({ kind: 'http', credentials: { username: 'first', password: 'one' } });
    await using second = await startHop({ kind: 'socks5', credentials: { username: 'second', password: 'two' } });
    await using third = await startHop({
      kind: 'http',
      credentials: { username: 'third', password: 'three' },
      hosts: { 'far.test': '127.0.0.1' },
    });
    const steps: HopTrace[] = [];
    const stages: string[] = [];
    using dialled = await dialTo(
      chainOf(first.hop, second.hop, third.hop),
      { host: 'far.test', port: echo.port },
      { steps, via: '1.1 mark', reached: stage => stages.push(stage) },
    );
    await echoes(dialled);
    expect([first.logins, second.logins, third.logins]).toEqual([['first:one'], ['second:two'], ['third:three']]);
    expect(first.requests[0]).toContain(`CONNECT 127.0.0.1:${second.port} HTTP/1.1\r\n`);
    expect(first.requests[0]).toContain('\r\nVia: 1.1 mark\r\n');
    expect(second.requests).toEqual([`socks5 127.0.0.1:${third.port}`]);
    expect(third.requests[0]).toContain(`CONNECT far.test:${echo.port} HTTP/1.1\r\n`);
    expect(steps.map(step => step.hop)).toEqual(['hop1', 'hop2', 'hop3', null]);
    expect(steps.at(-1)!.at).toBe(`far.test:${echo.port}`);
    expect(stages[0]).toBe('connect');
    expect(stages.at(-1)).toBe('tunnel');
  });

  test('absolute: the last hop is connected to and not asked', async () => {
    await using first = await startHop({ kind: 'socks5' });
    await using last = await startHop({ kind: 'http' });
    using dialled = await dialTo(chainOf(first.hop, last.hop), { host: 'far.test', port: 80 }, { absolute: true });
    expect(first.requests).toEqual([`socks5 127.0.0.1:${last.port}`]);
    expect(last.requests).toEqual([]);
    expect(dialled.hops.map(step => step.hop)).toEqual(['hop1', 'hop2']);
  });

  test('A29: bytes glued to the yes are handed on in order', async () => {
    await using echo = await startEcho();
    for (const kind of ['http', 'socks5'] as const) {
      await using hop = await startHop({ kind, early: 'early ' });
      using dialled = await dialTo(chainOf(hop.hop), { host: '127.0.0.1', port: echo.port });
      dialled.socket.write('late');
      expect(await heard(dialled.socket, dialled.rest, 10)).toBe('early late');
    }
  });

  test('a megabyte that came early loses nothing on its way', async () => {
    await using echo = await startEcho();
    const early = Buffer.from(Array.from({ length: 1 << 20 }, (_, i) => i % 251));
    await using hop = await startHop({ kind: 'http', early });
    using dialled = await dialTo(chainOf(hop.hop), { host: '127.0.0.1', port: echo.port });
    await new Promise(resolve => setTimeout(resolve, 30));
    let got = dialled.rest;
    for await (const chunk of nodeSocket(dialled.socket)) {
      got = Buffer.concat([got, chunk as Buffer]);
      if (got.length >= early.length) break;
    }
    expect(got.equals(early)).toBe(true);
  });

  test('what the second hop said too early, glued to the yes of the first, counts as its answer', async () => {
    await using first = await startHop({ kind: 'http', says: 'HTTP/1.1 200 OK\r\n\r\n\x05\x00' });
    const second: Hop = { kind: 'socks5', host: '127.0.0.1', port: 1 };
    const fault = await faultFrom(
      dialTo(chainOf(first.hop, second), { host: 'a.test', port: 443 }, { hopTimeout: 100 }),
    );
    // Its greeting is done with; what never comes is the reply.
    expect(fault).toMatchObject({ kind: 'connection_timeout', hop: 'hop2', detail: 'when asked for the tunnel' });
  });

  test('A27: a 200 with Content-Length and chunked is a plain tunnel', async () => {
    await using echo = await startEcho();
    await using hop = await startHop({ kind: 'http', fields: ['Content-Length: 100', 'Transfer-Encoding: chunked'] });
    using dialled = await dialTo(chainOf(hop.hop), { host: '127.0.0.1', port: echo.port });
    await echoes(dialled);
  });

  test('A33: answers that come byte by byte are understood', async () => {
    await using echo = await startEcho();
    for (const kind of ['http', 'socks5'] as const) {
      await using hop = await startHop({ kind, drip: 1, credentials: { username: 'me', password: 'pw' } });
      using dialled = await dialTo(chainOf(hop.hop), { host: '127.0.0.1', port: echo.port });
      await echoes(dialled);
    }
  });

  test('a hop may be private, its name is looked up here, and an own listener is refused', async () => {
    await using echo = await startEcho();
    await using hop = await startHop({ kind: 'http' });
    const closed = aclWith([]);
    const named = { ...hop.hop, host: 'gw.test' };
    using dialled = await dialTo(
      chainOf(named),
      { host: '127.0.0.1', port: echo.port },
      { acl: closed, lookup: async () => ['127.0.0.1'] },
    );
    await echoes(dialled);
    const own = aclWith([], [{ host: '127.0.0.1', port: hop.port }]);
    expect(
      await faultFrom(
        dialTo(chainOf(named), { host: 'a.test', port: 80 }, { acl: own, lookup: async () => ['127.0.0.1'] }),
      ),
    ).toMatchObject({ kind: 'proxy_loop_detected', hop: 'hop1' });
    expect(hop.connections).toBe(1);
  });
});

describe('hops that say no or make no sense', () => {
  test('A28: a refusal with a huge body is classified by its head and closed', async () => {
    const body = 'x'.repeat(8 << 20);
    await using hop = await startHop({
      kind: 'http',
      refuse: `HTTP/1.1 403 Forbidden\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
    });
    expect(await faultFrom(dialTo(chainOf(hop.hop), { host: 'a.test', port: 443 }))).toMatchObject({
      kind: 'hop_refused',
      hop: 'hop1',
      receivedStatus: 403,
      target: { host: '127.0.0.1', port: hop.port },
      detail: '403 Forbidden, asked for a.test:443',
    });
    await expect.poll(() => hop.open).toBe(0);
  });

  test.each([
    ['http', 'wrong', 'hop_authentication_failed'],
    ['socks5', 'wrong', 'hop_authentication_failed'],
    ['http', undefined, 'hop_authentication_failed'],
    ['socks5', undefined, 'hop_authentication_failed'],
  ] as const)('%s with the password %s: %s', async (kind, password, fault) => {
    await using hop = await startHop({ kind, credentials: { username: 'me', password: 'right' } });
    const { username, ...without } = hop.hop;
    const asked = password === undefined ? { ...without, password: undefined } : { ...without, username, password };
    const got = await faultFrom(dialTo(chainOf(asked), { host: 'a.test', port: 443 }));
    expect(got).toMatchObject({ kind: fault, hop: 'hop1' });
    expect(got.message).not.toContain('right');
  });

  test('the hop to blame is the one that spoke: the second of two', async () => {
    await using first = await startHop({ kind: 'http' });
    await using second = await startHop({ kind: 'socks5', refuse: 2 });
    const steps: HopTrace[] = [];
    const fault = await faultFrom(dialTo(chainOf(first.hop, second.hop), { host: 'a.test', port: 443 }, { steps }));
    expect(fault).toMatchObject({ kind: 'hop_refused', hop: 'hop2', target: { port: second.port } });
    expect(steps.map(step => step.hop)).toEqual(['hop1', 'hop2']);
  });

  test('a second hop that is down is told by the first', async () => {
    await using first = await startHop({ kind: 'socks5' });
    const port = await closedPort();
    const fault = await faultFrom(
      dialTo(chainOf(first.hop, { kind: 'http', host: '127.0.0.1', port }), { host: 'a.test', port: 443 }),
    );
    expect(fault).toMatchObject({
      kind: 'hop_could_not_reach',
      hop: 'hop1',
      detail: `reply 5: connection refused, asked for 127.0.0.1:${port}`,
    });
  });

  test.each([
    ['http', 'SSH-2.0-x\r\n'],
    ['http', Buffer.from([5, 255])],
    ['socks5', 'HTTP/1.1 400 Bad Request\r\n\r\n'],
  ] as const)('nonsense from a hop of kind %s: %j', async (kind, says) => {
    await using hop = await startHop({ kind, says });
    expect(await faultFrom(dialTo(chainOf(hop.hop), { host: 'a.test', port: 443 }))).toMatchObject({
      kind: 'hop_protocol_error',
      hop: 'hop1',
    });
  });

  test('A89: an endless head is given up', async () => {
    await using hop = await startHop({ kind: 'http', says: `HTTP/1.1 200 OK\r\nA: ${'b'.repeat(1 << 20)}` });
    expect(await faultFrom(dialTo(chainOf(hop.hop), { host: 'a.test', port: 443 }))).toMatchObject({
      kind: 'http_response_header_section_size',
    });
  });

  test.each(['http', 'socks5'] as const)('a hop of kind %s that hangs up at once, or resets', async kind => {
    await using hop = await startHop({ kind, closeAfter: 0 });
    expect(await faultFrom(dialTo(chainOf(hop.hop), { host: 'a.test', port: 443 }))).toMatchObject({
      kind: 'connection_terminated',
      hop: 'hop1',
    });
    await using resetting = await startHop({ kind, reset: true });
    expect(await faultFrom(dialTo(chainOf(resetting.hop), { host: 'a.test', port: 443 }))).toMatchObject({
      kind: 'connection_terminated',
      hop: 'hop1',
    });
  });

  test('a hop that is not there', async () => {
    const port = await closedPort();
    const fault = await faultFrom(
      dialTo(chainOf({ kind: 'http', host: '127.0.0.1', port }), { host: 'a.test', port: 443 }),
    );
    expect(fault.message).toBe(`The hop "hop1" (127.0.0.1:${port}) refused the connection. Is it running?`);
  });
});

describe('time', () => {
  test.each([
    ['http', { silent: 'always' }],
    ['socks5', { silent: 'always' }],
    ['socks5', { silent: 'when-asked' }],
    ['http', { says: 'HTTP/1.1 200 Connection established\r\nA: b\r\n\r\n', drip: 30 }],
  ] as const)('a hop of kind %s that is %j has its time and no more', async (kind, script) => {
    await using hop = await startHop({ kind, ...script });
    const begun = performance.now();
    const fault = await faultFrom(dialTo(chainOf(hop.hop), { host: 'a.test', port: 443 }, { hopTimeout: 150 }));
    expect(fault).toMatchObject({ kind: 'connection_timeout', hop: 'hop1' });
    const took = performance.now() - begun;
    expect(took).toBeGreaterThan(140);
    expect(took).toBeLessThan(600);
    await expect.poll(() => hop.open).toBe(0);
  });

  test('every hop has its own time: two that are slow each stand', async () => {
    await using echo = await startEcho();
    await using first = await startHop({ kind: 'socks5', drip: 10 });
    await using second = await startHop({ kind: 'socks5', drip: 10 });
    using dialled = await dialTo(
      chainOf(first.hop, second.hop),
      { host: '127.0.0.1', port: echo.port },
      { hopTimeout: 200 },
    );
    expect(dialled.hops[1]!.took + dialled.hops[2]!.took).toBeGreaterThan(200);
  });

  test('A88: when the browser leaves, the socket goes and the fault says so', async () => {
    await using hop = await startHop({ kind: 'http', silent: 'always' });
    const browser = new AbortController();
    const dialling = faultFrom(dialTo(chainOf(hop.hop), { host: 'a.test', port: 443 }, { signal: browser.signal }));
    await expect.poll(() => hop.open).toBe(1);
    browser.abort();
    expect((await dialling).kind).toBe('downstream_gone');
    await expect.poll(() => hop.open).toBe(0);
    expect(
      (await faultFrom(dialTo(chainOf(hop.hop), { host: 'a.test', port: 443 }, { signal: browser.signal }))).kind,
    ).toBe('downstream_gone');
  });
});
