// Chains through other people's proxies: squid, dante, microsocks and tinyproxy, alone and through one another.
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { makeDial } from '../../../companion/chain/dial.ts';
import { makeLoopMark } from '../../../companion/chain/http-connect.ts';
import { basicAuthorization } from '../../../companion/message/basic-authorization.ts';
import { makeAcl } from '../../../companion/guard/acl.ts';
import { Fields } from '../../../companion/message/headers.ts';
import type { ResponseHead } from '../../../companion/message/message.ts';
import type { AdmittedTarget, Dialled, NamedHop } from '../../../companion/rooms.ts';
import { makeRefusals } from '../../../companion/route/refusal.ts';
import { resolveRoutes } from '../../../companion/route/resolve.ts';
import { makeTryChains } from '../../../companion/route/try-chains.ts';
import { ROUTE_DEFAULTS } from '../../../shared/config/routes.ts';
import type { Hop } from '../../../shared/config/hops.ts';
import type { Endpoint } from '../../../shared/endpoint.ts';
import type { Attempt } from '../../../shared/exchange.ts';
import type { Fault } from '../../../shared/fault.ts';
import { knowledgeOf } from '../../support/knowledge.ts';
import { havePeers, type Peer, startDante, startMicrosocks, startSquid, startTinyproxy } from '../../support/peers.ts';

const mark = makeLoopMark();
const dial = makeDial({
  acl: makeAcl({ guard: { allow: [], connectPorts: [] }, listeners: () => [] }),
  hopTimeout: 5_000,
  via: mark.via,
  // Whatever is asked here for a name of these tests is a leak (A45).
  lookup: host => Promise.reject(new Error(`${host} was looked up here`)),
});
// Dante judges a name by its address too: what it is to refuse needs an address of its own.
const hosts = { 'origin.test': '127.0.0.1', 'denied.test': '127.0.0.1', 'denied-by-address.test': '127.0.0.9' };
const credentials = { username: 'me', password: 's3cret' };

function refusalOf(head: ResponseHead, hop: NamedHop): Fault | null {
  const chain = { key: hop.name, hops: [hop] };
  const question = {
    one: { chain, signal: new AbortController().signal, steps: [], stage: 'response' as const },
    hop,
    target: { host: 'origin.test', port: 80 } as AdmittedTarget,
    route: { name: 'r', chains: [chain], behindHops: true, route: null },
    sent: { method: 'GET', isKept: true, isWhole: true, isUnsent: false },
    tried: 1,
    opinions: [],
  };
  return makeRefusals().ofAnswer(head, question, null) as Fault | null;
}

function chainOf(...hops: Hop[]) {
  const named = hops.map((hop, i) => ({ ...hop, name: `hop${i + 1}` }));
  return { key: named.map(hop => hop.name).join('>'), hops: named };
}

async function dialTo(hops: Hop[], target: Endpoint, absolute = false): Promise<Dialled> {
  const { signal } = new AbortController();
  return dial({ chain: chainOf(...hops), signal, steps: [], stage: 'connect' }, target as AdmittedTarget, absolute);
}

async function faultFrom(hops: Hop[], target: Endpoint): Promise<Fault> {
  return dialTo(hops, target).then(
    ({ socket }) => (socket.destroy(), expect.unreachable('it stood')),
    (error: Fault) => error,
  );
}

/** One request on a dialled socket, the whole answer as text. */
async function ask({ socket, rest }: Dialled, head: string): Promise<string> {
  socket.write(`${head}\r\nConnection: close\r\n\r\n`);
  let text = rest.toString();
  socket.on('data', (chunk: Buffer) => (text += chunk.toString()));
  socket.resume();
  await new Promise(resolve => socket.once('end', () => resolve(undefined)));
  socket.destroy();
  return text;
}

describe.runIf(havePeers('squid', 'danted', 'microsocks', 'tinyproxy'))('through real proxies', () => {
  let origin: Server;
  let port: number;
  const peers: Record<string, Peer> = {};
  const peer = (name: string) => peers[name]!.hop;
  const seen: string[] = [];

  beforeAll(async () => {
    origin = createServer((request, response) => {
      seen.push(JSON.stringify(request.headers));
      response.end(`served ${request.headers.host}`);
    });
    origin.listen(0, '127.0.0.1');
    await once(origin, 'listening');
    port = (origin.address() as AddressInfo).port;
    const started = await Promise.all([
      startSquid({ hosts, deny: ['denied.test'] }),
      startSquid({ hosts, credentials }),
      startDante({ hosts, deny: ['denied-by-address.test'] }),
      startDante({ hosts, credentials }),
      startMicrosocks({ hosts }),
      startMicrosocks({ hosts, credentials }),
      startTinyproxy({ hosts, deny: ['denied.test'] }),
      startTinyproxy({ hosts, credentials }),
    ]);
    const names = [
      'squid',
      'squid with login',
      'dante',
      'dante with login',
      'microsocks',
      'microsocks with login',
      'tinyproxy',
      'tinyproxy with login',
    ];
    names.forEach((name, i) => (peers[name] = started[i]!));
  }, 60_000);

  afterAll(async () => {
    await Promise.all(Object.values(peers).map(one => one[Symbol.asyncDispose]()));
    origin.closeAllConnections();
    origin.close();
  });

  const servedBy = async (...names: string[]) => {
    const dialled = await dialTo(names.map(peer), { host: 'origin.test', port });
    expect(await ask(dialled, `GET / HTTP/1.1\r\nHost: origin.test:${port}`)).toContain(`served origin.test:${port}`);
    return dialled;
  };

  test.each([
    'squid',
    'squid with login',
    'dante',
    'dante with login',
    'microsocks',
    'microsocks with login',
    'tinyproxy',
    'tinyproxy with login',
  ])('%s alone', async name => {
    const dialled = await servedBy(name);
    expect(dialled.hops.map(step => step.hop)).toEqual(['hop1', null]);
  });

  test.each([
    ['squid', 'dante with login'],
    ['squid with login', 'dante'],
    ['dante with login', 'squid with login'],
    ['dante', 'microsocks with login'],
    ['microsocks', 'dante with login'],
    ['tinyproxy with login', 'squid'],
    ['squid', 'tinyproxy'],
  ])('%s, then %s', async (...names) => {
    const dialled = await servedBy(...names);
    expect(dialled.hops.map(step => step.hop)).toEqual(['hop1', 'hop2', null]);
  });

  test.each([
    ['alone', []],
    ['behind squid', ['squid']],
  ])(
    'dante, which has SOCKS4 without names, %s: addresses go to it, and its no is a refusal',
    async (_where, before) => {
      const hop = `hop${before.length + 1}`;
      const chain: Hop[] = [...before.map(peer), { ...peer('dante'), kind: 'socks4a', username: 'me' }];
      const dialled = await dialTo(chain, { host: '127.0.0.1', port });
      expect(await ask(dialled, 'GET / HTTP/1.1\r\nHost: a')).toContain('served a');
      expect(await faultFrom(chain, { host: '127.0.0.9', port })).toMatchObject({ kind: 'hop_refused', hop });
      expect(await faultFrom(chain, { host: '::1', port })).toMatchObject({ kind: 'hop_could_not_reach', hop });
    },
  );

  test('four in a row', async () => {
    await servedBy('squid with login', 'dante with login', 'tinyproxy', 'microsocks with login');
  });

  test('the origin sees no mark and no credentials', () => {
    expect(seen.length).toBeGreaterThan(0);
    expect(seen.join()).not.toContain(mark.via.slice(4));
    expect(seen.join().toLowerCase()).not.toContain('proxy-authorization');
  });

  test.each(['squid with login', 'dante with login', 'microsocks with login', 'tinyproxy with login'])(
    '%s: a wrong password, and none',
    async name => {
      const wrong = await faultFrom([{ ...peer(name), password: 'wrong' }], { host: 'origin.test', port });
      expect(wrong).toMatchObject({ kind: 'hop_authentication_failed', hop: 'hop1' });
      const { username: _username, password: _password, ...none } = peer(name);
      expect(await faultFrom([none], { host: 'origin.test', port })).toMatchObject({
        kind: 'hop_authentication_failed',
        hop: 'hop1',
      });
    },
    20_000,
  );

  test.each([
    ['squid', 'denied.test', 403],
    ['dante', 'denied-by-address.test', undefined],
    ['tinyproxy', 'denied.test', 403],
  ] as const)('%s refuses %s by its rules', async (name, host, receivedStatus) => {
    expect(await faultFrom([peer(name)], { host, port })).toMatchObject({
      kind: 'hop_refused',
      hop: 'hop1',
      receivedStatus,
    });
  });

  test('the refusing hop is named where it is the second one', async () => {
    expect(await faultFrom([peer('microsocks'), peer('squid')], { host: 'denied.test', port })).toMatchObject({
      kind: 'hop_refused',
      hop: 'hop2',
    });
    expect(await faultFrom([peer('tinyproxy'), peer('dante')], { host: 'denied-by-address.test', port })).toMatchObject(
      { kind: 'hop_refused', hop: 'hop2' },
    );
  });

  test.each(['squid', 'dante', 'microsocks', 'tinyproxy'])('%s says that it cannot reach a closed port', async name => {
    expect(await faultFrom([peer(name)], { host: 'origin.test', port: 1 })).toMatchObject({
      kind: 'hop_could_not_reach',
      hop: 'hop1',
    });
  });

  test('absolute-form: squid answers, and its 403 and 407 are known as its own', async () => {
    const request = async (hop: Hop, host: string, ...lines: string[]) => {
      const text = await ask(
        await dialTo([hop], { host, port }, true),
        [`GET http://${host}:${port}/ HTTP/1.1`, `Host: ${host}:${port}`, ...lines].join('\r\n'),
      );
      const [statusLine, ...fieldLines] = text.slice(0, text.indexOf('\r\n\r\n')).split('\r\n');
      const fields = Fields.of(
        ...fieldLines.flatMap(line => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1).trim()]),
      );
      const head = {
        status: Number(statusLine!.split(' ')[1]),
        reason: '',
        version: 11,
        fields,
        framing: { kind: 'none' },
        keepAlive: false,
      } as const;
      return { text, refusal: refusalOf(head, { ...hop, name: 'squid' }) };
    };
    const served = await request(peer('squid'), 'origin.test');
    expect(served.text).toContain('served origin.test');
    expect(served.refusal).toBeNull();
    expect((await request(peer('squid'), 'denied.test')).refusal?.kind).toBe('hop_refused');
    expect((await request(peer('squid with login'), 'origin.test')).refusal?.kind).toBe('hop_authentication_failed');
    const loggedIn = await request(
      peer('squid with login'),
      'origin.test',
      `Proxy-Authorization: ${basicAuthorization(credentials)}`,
    );
    expect(loggedIn.text).toContain('served origin.test');
  });

  test('a route falls from squid, which refuses, to dante with a login, which serves', async () => {
    const route = resolveRoutes({
      hops: { squid: peer('squid'), dante: peer('dante with login') },
      routes: { work: { ...ROUTE_DEFAULTS, chains: [['squid'], ['dante']] } },
    }).get('work')!;
    const tryChains = makeTryChains({
      now: Date.now,
      routeTimeout: 20_000,
      hopTimeout: 5_000,
      memory: knowledgeOf(Date.now),
      siteOf: host => host,
    });
    const attempts: Attempt[] = [];
    const text = await tryChains(route, 'denied.test', attempts, new AbortController().signal, async one =>
      ask(
        await dial(one, { host: 'denied.test', port } as AdmittedTarget, false),
        `GET / HTTP/1.1\r\nHost: denied.test`,
      ),
    );
    expect(text).toContain('served denied.test');
    expect(attempts.map(one => one.outcome)).toEqual(['hop_refused', 'ok']);
  });
});
