// DNS over HTTPS against a real HTTPS server, over the dial, the route and the pool that the companion uses.
import { beforeAll, describe, expect, test } from 'vitest';
import { makeDnsOverHttps } from '../../../companion/chain/dns-over-https.ts';
import { makeDial } from '../../../companion/chain/dial.ts';
import type { LookupFailed } from '../../../companion/chain/resolver.ts';
import { makeAcl } from '../../../companion/guard/acl.ts';
import { nodeSocket } from '../../../companion/sockets/socket.ts';
import type { AdmittedTarget, Chain } from '../../../companion/rooms.ts';
import { ConnectionPool } from '../../../companion/upstream/connection-pool.ts';
import { ConfigSchema } from '../../../shared/config.ts';
import type { Hop } from '../../../shared/config/hops.ts';
import { makeTestAuthority, type TestAuthority } from '../../support/certificates.ts';
import { type HttpsDnsScript, startHttpsDnsServer } from '../../support/dns-server.ts';
import { startHop } from '../../support/hop.ts';
import * as v from 'valibot';

let authority: TestAuthority;
let tls: { key: string; cert: string };
beforeAll(async () => {
  authority = await makeTestAuthority();
  tls = await authority.issue('dns.test');
});

const failureOf = (promise: Promise<unknown>): Promise<LookupFailed> =>
  promise.then(
    () => expect.unreachable('it was found'),
    (error: LookupFailed) => error,
  );

interface Setting extends HttpsDnsScript {
  readonly certificate?: { key: string; cert: string };
  readonly ca?: string;
  readonly hop?: Hop;
  readonly timeout?: number;
}

/** A server called dns.test, and what asks it. */
async function start({ certificate = tls, ca = authority.pem, hop, timeout = 1_500, ...script }: Setting = {}) {
  const server = await startHttpsDnsServer(certificate, {
    names: { 'a.test': ['192.0.2.1', '2001:db8::1'] },
    ...script,
  });
  const { limits } = v.parse(ConfigSchema, {});
  const pool = new ConnectionPool(() => limits, 20);
  const dial = makeDial({
    acl: { ...makeAcl({ guard: { allow: [], connectPorts: [] }, listeners: () => [] }), admitsAddress: () => null },
    hopTimeout: 1_000,
    hosts: { 'dns.test': '127.0.0.1' },
    lookup: host => Promise.reject(new Error(`${host} was looked up here`)),
  });
  const chain: Chain = { key: 'dns', hops: hop === undefined ? [] : [{ ...hop, name: 'hop' }] };
  const { port } = server;
  const ask = makeDnsOverHttps({
    server: { url: `https://dns.test:${port}/dns-query`, host: 'dns.test', port, path: '/dns-query' },
    connections: pool,
    key: 'dns',
    timeout,
    ca,
    async dial(signal, secure) {
      const target = { host: 'dns.test', port } as AdmittedTarget;
      const { socket } = await dial({ chain, signal, steps: [], stage: 'connect' }, target, false);
      return secure(nodeSocket(socket), signal);
    },
  });
  return {
    server,
    pool,
    ask,
    async [Symbol.asyncDispose]() {
      pool.close();
      await server[Symbol.asyncDispose]();
    },
  };
}

test('both families are POSTed as RFC 8484 says, padded, with the id 0', async () => {
  await using world = await start({ ttl: 90, age: 30 });
  expect(await world.ask('a.test')).toEqual({ addresses: ['2001:db8::1', '192.0.2.1'], ttl: 60 });
  expect(world.server.asked.toSorted()).toEqual(['https A a.test', 'https AAAA a.test']);
  const { port } = world.server;
  expect(world.server.requests[0]).toBe(`POST /dns-query dns.test:${port} application/dns-message 0 128`);
});

test('connections are used again, and one that the server closed is replaced', async () => {
  await using world = await start();
  await world.ask('a.test');
  expect(world.pool.counts).toEqual({ open: 2, idle: 2 });
  for (let i = 0; i < 5; i++) await world.ask('a.test');
  expect(world.server.connections.accepted).toBe(2);
  world.server.hangUp();
  expect((await world.ask('a.test')).addresses).toHaveLength(2);
});

test('A92: connections that a change of network has killed cost one question some time, and no more', async () => {
  await using world = await start();
  await world.ask('a.test');
  world.server.freeze();
  expect((await world.ask('a.test')).addresses).toHaveLength(2);
  const began = performance.now();
  expect((await world.ask('a.test')).addresses).toHaveLength(2);
  expect(performance.now() - began).toBeLessThan(500);
});

test('questions on their way at once are bounded', async () => {
  await using world = await start({
    names: Object.fromEntries(Array.from({ length: 40 }, (_, i) => [`${i}.test`, ['192.0.2.1']])),
  });
  const found = await Promise.all(Array.from({ length: 40 }, (_, i) => world.ask(`${i}.test`)));
  expect(found).toHaveLength(40);
  expect(world.server.connections.accepted).toBeLessThanOrEqual(8);
});

test('the server is reached through a hop, which looks its name up', async () => {
  await using hop = await startHop({ kind: 'socks5', hosts: { 'dns.test': '127.0.0.1' } });
  await using world = await start({ hop: hop.hop });
  expect((await world.ask('a.test')).addresses).toHaveLength(2);
  expect(new Set(hop.requests)).toEqual(new Set([`socks5 dns.test:${world.server.port}`]));
  expect(hop.addressTypes).toEqual([3, 3]);
});

describe('what does not hold', () => {
  test('a certificate that nobody vouches for, or of another name, is not accepted', async () => {
    const stranger = await makeTestAuthority();
    await using unknown = await start({ ca: stranger.pem });
    expect((await failureOf(unknown.ask('a.test'))).detail).toContain('The certificate of dns.test');
    await using other = await start({ certificate: await authority.issue('other.test') });
    expect((await failureOf(other.ask('a.test'))).detail).toContain('The certificate of dns.test');
    expect([unknown.server.asked, other.server.asked]).toEqual([[], []]);
    await expect.poll(() => other.server.connections.open).toBe(0);
  });

  test.each([
    [{ status: 503 }, 'dns.test answers 503'],
    [{ contentType: 'text/html' }, 'dns.test does not answer in application/dns-message'],
    [{ bytes: 40 }, 'dns.test makes no sense'],
    [{ bytes: 70_000 }, 'dns.test: its answer is larger than 65535 bytes'],
    [{ rcode: 2 }, 'dns.test says SERVFAIL'],
  ])('%j is a dns_error that names the server', async (script, detail) => {
    await using world = await start(script);
    expect(await failureOf(world.ask('a.test'))).toMatchObject({ kind: 'dns_error', definite: false, detail });
  });

  test('there is no such name: that is definite', async () => {
    await using world = await start();
    expect(await failureOf(world.ask('nowhere.test'))).toMatchObject({
      definite: true,
      detail: 'dns.test says: no such name',
    });
  });

  test('A92: a silent server is a dns_timeout in bounded time, and its connections are not kept', async () => {
    await using world = await start({ silent: true, timeout: 200 });
    const began = performance.now();
    const failures = await Promise.all(Array.from({ length: 12 }, (_, i) => failureOf(world.ask(`${i}.test`))));
    expect(performance.now() - began).toBeLessThan(1_500);
    for (const one of failures) expect(one).toMatchObject({ kind: 'dns_timeout', detail: 'asked: dns.test' });
    await expect.poll(() => world.server.connections.open).toBe(0);
    world.server.become({ silent: false });
    expect((await world.ask('a.test')).addresses).toHaveLength(2);
  });
});
