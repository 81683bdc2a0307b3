// Chosen DNS servers, over real UDP and TCP, from the bytes to the address that is dialled.
import dnsPacket from 'dns-packet';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { makeDial } from '../../../companion/chain/dial.ts';
import { makeDnsClient } from '../../../companion/chain/dns-client.ts';
import { decodeAnswer, encodeQuestion, isAskable } from '../../../companion/chain/dns-message.ts';
import { type LookupFailed, makeResolver } from '../../../companion/chain/resolver.ts';
import { makeAcl } from '../../../companion/guard/acl.ts';
import type { AdmittedTarget } from '../../../companion/rooms.ts';
import type { Cidr } from '../../../shared/config/words.ts';
import type { Fault } from '../../../shared/fault.ts';
import { type DnsServer, startDnsServer } from '../../support/dns-server.ts';
import { closedPort, startEcho } from '../../support/hop.ts';

const TIMEOUT = 600;
const ask = (servers: readonly Pick<DnsServer, 'host' | 'port'>[], host: string) =>
  makeDnsClient(servers, TIMEOUT)(host);
const failureOf = <E = LookupFailed>(promise: Promise<unknown>): Promise<E> =>
  promise.then(
    () => expect.unreachable('it was found'),
    (error: E) => error,
  );

describe('asking servers', () => {
  test('both families are asked at the same time, IPv6 comes first, the lesser TTL counts', async () => {
    await using dns = await startDnsServer({ names: { 'a.test': ['192.0.2.1', '2001:db8::1', '192.0.2.2'] }, ttl: 77 });
    expect(await ask([dns], 'a.test')).toEqual({ addresses: ['2001:db8::1', '192.0.2.1', '192.0.2.2'], ttl: 77 });
    expect(dns.asked.toSorted()).toEqual(['A a.test', 'AAAA a.test']);
  });

  test('an alias is followed', async () => {
    await using dns = await startDnsServer({
      names: { 'a.test': { alias: 'b.test' }, 'b.test': { alias: 'c.test' }, 'c.test': ['192.0.2.3'] },
    });
    expect((await ask([dns], 'a.test')).addresses).toEqual(['192.0.2.3']);
  });

  test('an alias that leads back to itself ends', async () => {
    await using dns = await startDnsServer({ names: { 'a.test': { alias: 'b.test' }, 'b.test': { alias: 'a.test' } } });
    expect(await failureOf(ask([dns], 'a.test'))).toMatchObject({ kind: 'dns_error' });
  });

  test('an answer that is too long for UDP is asked for over TCP', async () => {
    const many = Array.from({ length: 200 }, (_, i) => `192.0.2.${i}`);
    await using dns = await startDnsServer({ names: { 'a.test': many }, truncates: true });
    const { addresses } = await ask([dns], 'a.test');
    expect(addresses).toEqual(many.slice(0, 32));
    expect(dns.asked).toContain('tcp A a.test');
  });

  test('a forged answer with another id or another question is passed over', async () => {
    await using dns = await startDnsServer({
      names: { 'a.test': ['192.0.2.1'] },
      forges: ['garbage', 'id', 'question'],
    });
    expect((await ask([dns], 'a.test')).addresses).toEqual(['192.0.2.1']);
  });

  test('there is no such name: that is definite, names the server and says for how long', async () => {
    await using dns = await startDnsServer({ negativeTtl: 3 });
    expect(await failureOf(ask([dns], 'nowhere.test'))).toMatchObject({
      kind: 'dns_error',
      definite: true,
      ttl: 3,
      detail: `${dns.at} says: no such name`,
    });
  });

  test('A92: a server to which this system cannot send is one that cannot be reached', async () => {
    // The system refuses it before a packet is sent, as it does where there is no network.
    const failure = await failureOf(ask([{ host: '255.255.255.255', port: 53 }], 'a.test'));
    expect(failure).toMatchObject({ kind: 'dns_error', detail: expect.stringContaining('cannot be reached') });
  });

  test('a name without an address says so', async () => {
    await using dns = await startDnsServer({ names: { 'empty.test': [] } });
    expect(await failureOf(ask([dns], 'empty.test'))).toMatchObject({ detail: `${dns.at} says: no address` });
  });

  test('a family that is not answered is not waited for once the other is there', async () => {
    await using dns = await startDnsServer({ names: { 'a.test': ['192.0.2.1', '2001:db8::1'] }, silent: 'AAAA' });
    const began = performance.now();
    expect(await ask([dns], 'a.test')).toEqual({ addresses: ['192.0.2.1'], ttl: 30 });
    expect(performance.now() - began).toBeLessThan(TIMEOUT / 2);
  });

  test('a lost packet is sent again', async () => {
    let seen = 0;
    await using dns = await startDnsServer({ names: { 'a.test': ['192.0.2.1'] }, silent: true });
    const timer = setInterval(() => {
      if (dns.asked.length > seen) dns.become({ silent: (seen = dns.asked.length) < 2 });
    }, 5);
    expect((await ask([dns], 'a.test')).addresses).toEqual(['192.0.2.1']);
    clearInterval(timer);
  });

  test('A92: the next server is asked when one is silent, refuses or cannot tell, and first from then on', async () => {
    const closed = { host: '127.0.0.1', port: await closedPort() };
    await using silent = await startDnsServer({ silent: true });
    await using broken = await startDnsServer({ rcode: 2 });
    await using good = await startDnsServer({ names: { 'a.test': ['192.0.2.1'], 'b.test': ['192.0.2.2'] } });
    const client = makeDnsClient([closed, silent, broken, good], 4_000);
    expect((await client('a.test')).addresses).toEqual(['192.0.2.1']);
    const began = performance.now();
    expect((await client('b.test')).addresses).toEqual(['192.0.2.2']);
    expect(performance.now() - began).toBeLessThan(300);
    expect(silent.asked.join()).not.toContain('b.test');
  });

  test('A92: nobody answers: in bounded time, with every server named', async () => {
    await using silent = await startDnsServer({ silent: true });
    const began = performance.now();
    expect(await failureOf(ask([silent], 'a.test'))).toMatchObject({
      kind: 'dns_timeout',
      definite: false,
      detail: `asked: ${silent.at}`,
    });
    expect(performance.now() - began).toBeLessThan(TIMEOUT + 300);
    const port = await closedPort();
    expect(await failureOf(ask([{ host: '127.0.0.1', port }], 'a.test'))).toMatchObject({
      kind: 'dns_error',
      detail: `127.0.0.1:${port} refused the connection`,
    });
    await using broken = await startDnsServer({ rcode: 2 });
    expect(await failureOf(ask([broken], 'a.test'))).toMatchObject({
      kind: 'dns_error',
      definite: false,
      detail: `${broken.at} says SERVFAIL`,
    });
  });

  test('localhost is never asked for, nor what cannot be a name', async () => {
    await using dns = await startDnsServer();
    expect((await ask([dns], 'a.localhost')).addresses).toEqual(['127.0.0.1', '::1']);
    expect(await failureOf(ask([dns], `${'a'.repeat(64)}.test`))).toMatchObject({ kind: 'dns_error' });
    expect(dns.asked).toEqual([]);
    expect([isAskable('a.test'), isAskable('a..test'), isAskable('')]).toEqual([true, false, false]);
  });
});

describe('the bytes', () => {
  const question = { host: 'a.test', family: 'A' } as const;

  test('a record that the question does not lead to is not believed', () => {
    const bytes = dnsPacket.encode({
      type: 'response',
      id: 7,
      questions: [{ type: 'A', name: 'a.test' }],
      answers: [
        { type: 'A', name: 'other.test', ttl: 60, data: '192.0.2.66' },
        { type: 'CNAME', name: 'A.Test', ttl: 9, data: 'b.test' },
        { type: 'A', name: 'a.test', ttl: 60, data: '192.0.2.67' },
        { type: 'A', name: 'B.test', ttl: 60, data: '192.0.2.1' },
      ],
    });
    expect(decodeAnswer(bytes, question, 7)).toEqual({ kind: 'addresses', addresses: ['192.0.2.1'], ttl: 9 });
    expect(decodeAnswer(bytes, { ...question, family: 'AAAA' }, 7)).toBeNull();
    expect(decodeAnswer(bytes, question, 8)).toBeNull();
  });

  test('a padded question hides how long the name is (RFC 8467)', () => {
    const lengths = ['a.test', 'a-name-that-is-longer.test', `${'a'.repeat(60)}.test`].map(
      host => encodeQuestion({ host, family: 'AAAA' }, 0, true).length,
    );
    expect(lengths).toEqual([128, 128, 128]);
    expect(encodeQuestion(question, 7)).toHaveLength(24);
  });

  test('no bytes whatever bring it down', () => {
    const bytes = encodeQuestion(question, 7);
    bytes[2]! |= 0x80;
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 80 }), fc.nat(bytes.length), (noise, cut) => {
        const answer = decodeAnswer(Buffer.concat([bytes.subarray(0, cut), noise]), question, 7);
        expect(answer === null || answer.kind !== 'addresses' || answer.addresses.length > 0).toBe(true);
      }),
      { numRuns: 2_000 },
    );
  });
});

describe('from the DNS to the dial', () => {
  const openTo = (...allow: Cidr[]) =>
    makeAcl({ guard: { allow, connectPorts: [{ from: 1, to: 65535 }] }, listeners: () => [] });
  const only127001 = openTo({ address: '127.0.0.1', prefix: 32 });

  /** Dials through a resolver that asks this server; the name is looked up, judged and dialled as in the companion. */
  function dialThrough(dns: DnsServer, minTtl = 0) {
    const { lookup } = makeResolver({
      ask: makeDnsClient([dns], TIMEOUT),
      minTtl,
      maxTtl: 3_600,
      serveStale: 0,
    });
    return async (host: string, port: number, acl = only127001): Promise<string> => {
      const dial = makeDial({ acl, hopTimeout: 2_000, lookup });
      const { signal } = new AbortController();
      const target = { host, port } as AdmittedTarget;
      const { socket } = await dial(
        { chain: { key: '', hops: [] }, signal, steps: [], stage: 'connect' },
        target,
        false,
      );
      const address = socket.remoteAddress!;
      socket.destroy();
      return address;
    };
  }

  test('A38: a name that leads elsewhere at every question is dialled where it was checked, once per question', async () => {
    await using echo = await startEcho();
    let turn = 0;
    await using dns = await startDnsServer({
      names: { 'rebinding.test': () => (turn++ === 0 ? ['127.0.0.1'] : ['127.0.0.2']) },
      ttl: 0,
    });
    dns.become({ silent: 'AAAA' });
    const dial = dialThrough(dns);
    expect(await dial('rebinding.test', echo.port)).toBe('127.0.0.1');
    expect(turn).toBe(1);
    // The second answer is closed: it is refused, whatever the first was.
    expect(await failureOf<Fault>(dial('rebinding.test', echo.port))).toMatchObject({
      kind: 'destination_ip_prohibited',
      detail: '127.0.0.2',
    });
    expect(echo.connections).toBe(1);
  });

  test('A38: a remembered address is judged again at every dial', async () => {
    await using echo = await startEcho();
    await using dns = await startDnsServer({ names: { 'a.test': ['127.0.0.1'] } });
    const dial = dialThrough(dns, 60);
    expect(await dial('a.test', echo.port)).toBe('127.0.0.1');
    expect(await failureOf<Fault>(dial('a.test', echo.port, openTo()))).toMatchObject({
      kind: 'destination_ip_prohibited',
    });
    expect(dns.asked.filter(one => one === 'A a.test')).toHaveLength(1);
    expect(echo.connections).toBe(1);
  });

  test('A39: of public and private answers only what may be reached is dialled', async () => {
    await using echo = await startEcho();
    await using dns = await startDnsServer({
      names: {
        'mixed.test': ['10.0.0.1', '192.168.0.1', '169.254.169.254', '127.0.0.2', '::1', 'fd00::1', '127.0.0.1'],
        'closed.test': ['10.0.0.1', '::ffff:127.0.0.2', 'fe80::1'],
      },
    });
    const dial = dialThrough(dns);
    // A private one that would have answered.
    await using tempting = await startEcho({ host: '127.0.0.2', port: echo.port });
    expect(await dial('mixed.test', echo.port)).toBe('127.0.0.1');
    expect(tempting.connections).toBe(0);
    expect(await failureOf<Fault>(dial('closed.test', echo.port))).toMatchObject({ kind: 'destination_ip_prohibited' });
    expect(echo.connections).toBe(1);
  });

  test('A92: with the DNS down the fault names name and server; back up, it works without a restart', async () => {
    await using echo = await startEcho();
    await using dns = await startDnsServer({ names: { 'a.test': ['127.0.0.1'] }, silent: true });
    const dial = dialThrough(dns);
    const fault = await failureOf<Fault>(dial('a.test', echo.port));
    expect(fault.kind).toBe('dns_timeout');
    expect(fault.message).toBe(
      `No answer came in time when looking up a.test:${echo.port} (asked: ${dns.at}). Is the network up?`,
    );
    dns.become({ silent: false });
    await new Promise(resolve => setTimeout(resolve, 1_050));
    expect(await dial('a.test', echo.port)).toBe('127.0.0.1');
  });
});
