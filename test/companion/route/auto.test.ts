// pick: auto on the whole walk: a scripted network between the companion and its origins, and a hop that is beyond it. The clock of what is remembered is handed in.
import { createServer } from 'node:http';
import { expect, test } from 'vitest';
import { makeDial } from '../../../companion/chain/dial.ts';
import { LookupFailed } from '../../../companion/chain/resolver.ts';
import { makeAcl } from '../../../companion/guard/acl.ts';
import { claiming } from '../../../companion/route/race.ts';
import { resolveRoutes } from '../../../companion/route/resolve.ts';
import {
  AWAY_SITES,
  CONFIRMED_FOR,
  LOST_APART,
  LOST_IN_A_ROW,
  makeSiteMemory,
  SUSPECTED_FOR,
} from '../../../companion/route/site-memory.ts';
import { makeTryChains } from '../../../companion/route/try-chains.ts';
import { ROUTE_DEFAULTS } from '../../../shared/config/routes.ts';
import { closedPort, startHop } from '../../support/hop.ts';
import { knowledgeOf } from '../../support/knowledge.ts';
import { startOrigin, startRawOrigin } from '../../support/origin.ts';
import { connectRaw } from '../../support/raw-client.ts';
import { startProxy } from '../../support/with-proxy.ts';

/** What the network says of a name: an address, a lie, nothing, or that there is none. */
type Network = Record<string, string | 'silent' | 'nxdomain'>;
const HERE = '127.0.0.1';
/** Loopback, where nobody listens on the origin's port: refused. */
const NOBODY = '127.0.0.2';

/** A proxy whose route `auto` has one hop; the hop finds every name at 127.0.0.1. */
async function start({ pick = 'auto' as 'auto' | 'order', hopPort = 0, races = false } = {}) {
  const network: Network = {};
  let ahead = 0;
  const now = () => Date.now() + ahead;
  const hop = await startHop({ kind: 'socks5', hosts: new Proxy({}, { get: () => HERE }) });
  const acl = makeAcl({
    guard: { allow: [{ address: '127.0.0.0', prefix: 8 }], connectPorts: [] },
    listeners: () => [],
  });
  const chains = pick === 'auto' ? [['far']] : [[], ['far']];
  const route = resolveRoutes({
    hops: { far: { kind: 'socks5', host: HERE, port: hopPort || hop.port } },
    routes: { r: { ...ROUTE_DEFAULTS, pick, chains } },
  }).get('r')!;
  const sites = makeSiteMemory({ now, saved: [], changed: () => {} });
  const known = knowledgeOf(now, [route], undefined, sites);
  // Without a race a slow machine makes no difference.
  const knowledge = races ? known : { ...known, headStart: () => null };
  const hopTimeout = 20_000;
  const lookup = (name: string): Promise<readonly string[]> => {
    const found = network[name];
    if (found === 'silent') return new Promise(() => {});
    return found === undefined || found === 'nxdomain'
      ? Promise.reject(new LookupFailed('dns_error', 'no such name', { definite: true }))
      : Promise.resolve([found]);
  };
  const proxy = await startProxy({
    rooms: {
      acl: { ...acl, admit: target => target as never },
      routeOf: () => route,
      tryChains: makeTryChains({ now, routeTimeout: 60_000, hopTimeout, memory: knowledge, siteOf: host => host }),
      heard: knowledge.heard,
      broke: (site, chain, fault) => knowledge.failed(site, chain, { fault, stage: 'response', steps: [] }),
      dial: claiming(makeDial({ acl, hopTimeout, lookup })),
    },
  });
  /** Asks for a page; gives back its status and which chains were tried, with what came of them. */
  const get = async (authority: string): Promise<string> => {
    const index = proxy.exchanges.length;
    await using client = await connectRaw(proxy.port);
    client.write(`GET http://${authority}/ HTTP/1.1\r\nHost: ${authority}\r\nConnection: close\r\n\r\n`);
    const { status } = await client.readAnswer();
    const { attempts } = await proxy.exchange(index);
    return `${status}: ${attempts.map(one => `${one.chain[0] ?? 'own'} ${one.outcome}`).join(', ')}`;
  };
  return {
    network,
    sites,
    hop,
    proxy,
    get,
    advance: (time: number) => (ahead += time),
    known: () => sites.list().map(({ site, sign, confirmed }) => `${site} ${sign}${confirmed ? ' confirmed' : ''}`),
    async [Symbol.asyncDispose]() {
      await proxy[Symbol.asyncDispose]();
      await hop[Symbol.asyncDispose]();
    },
  };
}

test('a site that refuses the own connection is learned, confirmed, and un-learned when it works again', async () => {
  await using all = await start();
  await using origin = await startOrigin();
  const site = `blocked.test:${origin.port}`;
  all.network['blocked.test'] = NOBODY;

  expect(await all.get(site)).toBe('200: own connection_refused, far ok');
  expect(all.known()).toEqual(['blocked.test unreachable']);
  expect(await all.get(site)).toBe('200: far ok');

  all.advance(SUSPECTED_FOR);
  expect(await all.get(site)).toBe('200: own connection_refused, far ok');
  expect(all.known()).toEqual(['blocked.test unreachable confirmed']);
  all.advance(CONFIRMED_FOR - 1_000);
  expect(await all.get(site)).toBe('200: far ok');

  all.network['blocked.test'] = HERE;
  all.advance(1_000);
  expect(await all.get(site)).toBe('200: own ok');
  expect(all.known()).toHaveLength(1);
  expect(await all.get(site)).toBe('200: own ok');
  expect(all.known()).toEqual([]);
});

test('a name that the own DNS does not know, or gives a private address for, is taken for poisoned; the chains find it', async () => {
  await using all = await start();
  await using origin = await startOrigin();
  all.network['gone.test'] = 'nxdomain';
  all.network['lie.test'] = '10.66.0.1';
  expect(await all.get(`gone.test:${origin.port}`)).toBe('200: own dns_error, far ok');
  expect(await all.get(`lie.test:${origin.port}`)).toBe('200: own dns_error, far ok');
  expect(all.known()).toEqual(['gone.test poisoned', 'lie.test poisoned']);
  expect(all.proxy.exchanges[1]!.attempts[0]).toMatchObject({ sign: 'poisoned' });
});

test('a private address stays forbidden: written as one, for a name of this network, and on routes that are not auto', async () => {
  await using origin = await startOrigin();
  {
    await using all = await start();
    all.network['router'] = '10.66.0.1';
    expect(await all.get(`router:${origin.port}`)).toBe('502: own destination_ip_prohibited');
    expect(await all.get(`10.66.0.1:${origin.port}`)).toBe('502: own destination_ip_prohibited');
    expect(all.hop.requests).toEqual([]);
  }
  await using plain = await start({ pick: 'order' });
  plain.network['lie.test'] = '10.66.0.1';
  expect(await plain.get(`lie.test:${origin.port}`)).toBe('502: own destination_ip_prohibited');
  expect(plain.hop.requests).toEqual([]);
});

test('silence costs the head start, and several in a row are a sign', async () => {
  await using all = await start({ races: true });
  await using origin = await startOrigin();
  all.network['silent.test'] = 'silent';
  for (let i = 0; i < LOST_IN_A_ROW; i++) {
    expect(all.known()).toEqual([]);
    expect(await all.get(`silent.test:${origin.port}`)).toMatch(/^200: .*far ok$/);
    all.advance(LOST_APART);
  }
  expect(all.known()).toEqual(['silent.test timeout']);
  expect(await all.get(`silent.test:${origin.port}`)).toBe('200: far ok');
});

test('without a network nothing is learned of anybody', async () => {
  await using all = await start({ hopPort: await closedPort() });
  await using origin = await startOrigin();
  for (let i = 0; i < 2 * AWAY_SITES; i++) {
    all.network[`${i}.test`] = NOBODY;
    expect(await all.get(`${i}.test:${origin.port}`)).toMatch(/^50\d: /);
  }
  expect(all.known()).toEqual([]);
  expect(all.sites.way('other.test')).toBeNull();
});

test('many sites at once are the network: they go by the chains, and one that works again ends it', async () => {
  await using all = await start();
  await using origin = await startOrigin();
  for (let i = 0; i < AWAY_SITES; i++) {
    all.network[`${i}.test`] = NOBODY;
    expect(await all.get(`${i}.test:${origin.port}`)).toBe('200: own connection_refused, far ok');
  }
  expect(all.known()).toEqual([]);
  all.network['new.test'] = HERE;
  expect(await all.get(`new.test:${origin.port}`)).toBe('200: far ok');
  all.advance(60_000);
  expect(await all.get(`new.test:${origin.port}`)).toBe('200: own ok');
  all.network['0.test'] = HERE;
  expect(await all.get(`0.test:${origin.port}`)).toBe('200: own ok');
});

test('a tunnel teaches when its target is heard, not when it stands', async () => {
  await using all = await start();
  // Takes the first flight, and says nothing before it resets.
  let cuts = true;
  await using censor = await startRawOrigin(async peer => {
    await peer.read(5);
    if (cuts) peer.socket.resetAndDestroy();
    else peer.write('hello');
  });
  all.network['flight.test'] = HERE;
  all.sites.blocked('flight.test', 'reset');
  all.advance(SUSPECTED_FOR);
  const flight = async () => {
    const client = await connectRaw(all.proxy.port);
    client.write(`CONNECT flight.test:${censor.port} HTTP/1.1\r\nHost: flight.test\r\n\r\n`);
    await client.readUntil('\r\n\r\n');
    client.write('01234');
    return client;
  };
  await using cut = await flight();
  expect(await cut.closed()).toBe('reset');
  cuts = false;
  expect(all.known()).toEqual(['flight.test reset']);
  all.advance(SUSPECTED_FOR);
  await using heard = await flight();
  expect((await heard.read(5)).toString()).toBe('hello');
  expect(all.known()).toEqual([]);
});

test('a portal in front of everything teaches nothing: its page goes to nobody, and what it seemed to say of sites is taken back', async () => {
  await using all = await start();
  await using origin = await startOrigin();
  // At the same port of another address: what the network answers in everybody's name.
  const portal = createServer((_, response) => response.writeHead(511).end('log in first'));
  await using _ = portal;
  await new Promise<void>(resolve => portal.listen(origin.port, '127.0.0.3', resolve));
  for (let i = 0; i < AWAY_SITES; i++) {
    all.network[`${i}.test`] = '127.0.0.3';
    expect(await all.get(`${i}.test:${origin.port}`)).toBe('200: own hop_refused, far ok');
    if (i === 0) expect(all.known()).toEqual(['0.test portal']);
  }
  expect(all.known()).toEqual([]);
});

/** A ClientHello, as far as anybody looks who does not speak TLS. */
const HELLO = Buffer.from([0x16, 3, 1, 0, 12, 1, 0, 0, 8, ...Buffer.from('whatever')]);

test('a reset right behind the ClientHello is learned: the hello goes by the chain, and next time first', async () => {
  await using all = await start();
  const flights: string[] = [];
  await using censor = await startRawOrigin(async (peer, index) => {
    flights.push((await peer.read(HELLO.length)).toString('hex'));
    // The first one is the own connection's.
    if (index === 0) peer.socket.resetAndDestroy();
    else peer.write('hello');
  });
  all.network['flight.test'] = HERE;
  const fly = async () => {
    const index = all.proxy.exchanges.length;
    {
      await using client = await connectRaw(all.proxy.port);
      client.write(`CONNECT flight.test:${censor.port} HTTP/1.1\r\nHost: flight.test\r\n\r\n`);
      await client.readUntil('\r\n\r\n');
      client.write(HELLO);
      expect((await client.read(5)).toString()).toBe('hello');
    }
    const { attempts } = await all.proxy.exchange(index);
    return attempts.map(one => `${one.chain[0] ?? 'own'} ${one.sign ?? one.outcome}`).join();
  };
  expect(await fly()).toBe('own reset,far ok');
  expect(all.known()).toEqual(['flight.test reset']);
  expect(await fly()).toBe('far ok');
  expect(new Set(flights)).toEqual(new Set([HELLO.toString('hex')]));
  expect(flights).toHaveLength(3);
});
