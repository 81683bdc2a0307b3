// What the companion asks the DNS of this machine: names that it dials itself, and no other. Seen by the server that its system's resolver asks.
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { startHop } from '../../support/hop.ts';
import { startOrigin } from '../../support/origin.ts';
import { haveOwnResolvers, startOwnResolver } from '../../support/own-resolver.ts';
import { connectRaw } from '../../support/raw-client.ts';
import { makePlace, runDetour, spawnDetour } from '../../support/with-companion.ts';

const LOOPBACK = '127.0.0.1';

/** A companion whose resolver is watched, between hops of each kind and an origin. */
async function startWatched(extra = '') {
  await using stack = new AsyncDisposableStack();
  const origin = stack.use(await startOrigin());
  const known = (...hosts: string[]) => Object.fromEntries(hosts.map(host => [host, LOOPBACK]));
  const names = ['web.test', 'socks.test', 'both.test', 'twice.test', 'listed.test', 'by-default.test'];
  const hosts = known(...names, ...names.map(name => `www.${name}`));
  const web = stack.use(await startHop({ kind: 'http', hosts }));
  const socks = stack.use(await startHop({ kind: 'socks5', hosts, refuse: 2, refuseHosts: ['refused.socks.test'] }));
  const place = stack.use(
    makePlace(`hops:
  web: http://127.0.0.1:${web.port}
  socks: socks5://127.0.0.1:${socks.port}
routes:
  web: [[web]]
  socks: [[socks]]
  both: [[web, socks]]
  twice: [[socks], [web]]
sites:
  web.test: web
  socks.test: socks
  both.test: both
  twice.test: twice
  direct.test: companion
  blocked.test: block
rules:
  - { host: 203.0.113.0/24, block: true }
  - { host: 198.51.100.0/24, route: web }
  - { host: 127.0.0.0/8, route: socks }
lists:
  - { file: hosts.txt, route: web }
  - { file: ads.txt, block: true }
default: socks
log: { file: requests.jsonl }
guard: { allow: [127.0.0.0/8] }
${extra}`),
  );
  writeFileSync(path.join(place.folder, 'hosts.txt'), 'listed.test\n');
  writeFileSync(path.join(place.folder, 'ads.txt'), 'ads.test\n');
  const dns = stack.use(
    await startOwnResolver(place.folder, { names: { 'direct.test': [LOOPBACK], 'www.direct.test': [LOOPBACK] } }),
  );
  const companion = stack.use(
    spawnDetour(['start', '--config', place.configFile, '--port', '0'], place, {}, dns.through),
  );
  const [, port] = await companion.printed(/127\.0\.0\.1:(\d+)/);
  const kept = stack.move();
  return {
    dns,
    origin,
    place,
    companion,
    port: Number(port),
    run: (...args: string[]) => runDetour(args, place, {}, dns.through),
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  };
}

/** A request as browsers send it for http; gives back the status. */
async function get(port: number, host: string, originPort: number): Promise<number> {
  await using client = await connectRaw(port);
  client.write(`GET http://${host}:${originPort}/ HTTP/1.1\r\nHost: ${host}:${originPort}\r\n\r\n`);
  return (await client.readAnswer('GET', 15_000)).status;
}

async function tunnelTo(port: number, host: string, originPort: number): Promise<number> {
  await using client = await connectRaw(port);
  client.write(`CONNECT ${host}:${originPort} HTTP/1.1\r\nHost: ${host}:${originPort}\r\n\r\n`);
  const status = Number((await client.readUntil('\r\n\r\n', 15_000)).split(' ', 2)[1]);
  if (status !== 200) return status;
  client.write(`GET / HTTP/1.1\r\nHost: ${host}\r\n\r\n`);
  return (await client.readAnswer('GET')).status;
}

/** A tunnel as SOCKS5 clients ask for one, by name; gives back the reply. */
async function socksTo(port: number, host: string, originPort: number): Promise<number> {
  await using client = await connectRaw(port);
  client.write(Buffer.from([5, 1, 0]));
  await client.read(2);
  const name = Buffer.from(host);
  client.write(
    Buffer.concat([Buffer.from([5, 1, 0, 3, name.length]), name, Buffer.from([originPort >> 8, originPort & 0xff])]),
  );
  return (await client.read(2, 15_000))[1]!;
}

describe.runIf(haveOwnResolvers())('with the resolver watched', () => {
  test('A45: a name that a chain resolves is never asked for here: plain, CONNECT and SOCKS, CIDR rules, log and explain', async () => {
    await using world = await startWatched();
    const { dns, port, origin } = world;
    for (const name of ['web.test', 'socks.test', 'both.test', 'twice.test', 'listed.test', 'by-default.test']) {
      for (const host of [name, `www.${name}`]) {
        expect([host, await get(port, host, origin.port)]).toEqual([host, 200]);
        expect([host, await tunnelTo(port, host, origin.port)]).toEqual([host, 200]);
        expect([host, await socksTo(port, host, origin.port)]).toEqual([host, 0]);
      }
    }
    // What fails or is blocked is not asked for either: not to explain it, not to try it otherwise.
    for (const host of ['refused.socks.test', 'unknown.web.test', 'unknown.both.test'])
      for (const way of [get, tunnelTo]) expect(await way(port, host, origin.port)).toBeGreaterThanOrEqual(500);
    for (const host of ['blocked.test', 'ads.test'])
      for (const way of [get, tunnelTo]) expect([host, await way(port, host, origin.port)]).toEqual([host, 403]);
    for (const url of ['https://www.both.test/page', 'http://nobody.test/', 'http://direct.test/'])
      expect(await world.run('explain', url)).toMatchObject({ code: 0 });
    expect((await world.run('explain', 'http://web.test/')).out).toContain(
      'DNS: the hop "web" finds the address; this machine does not ask for it.',
    );
    expect(await world.run('check', world.place.configFile)).toMatchObject({ code: 0 });
    await expect
      .poll(() => readFileSync(path.join(world.place.folder, 'requests.jsonl'), 'utf8'))
      .toContain('www.by-default.test');
    expect(dns.asked).toEqual([]);

    // And this watcher does see what is asked: a name that goes direct, in each way.
    expect(await get(port, 'direct.test', origin.port)).toBe(200);
    expect(dns.asked).toContain('A direct.test');
    expect(await tunnelTo(port, 'www.direct.test', origin.port)).toBe(200);
    expect(dns.asked).toContain('A www.direct.test');
    expect(dns.asked.every(one => one.endsWith('direct.test'))).toBe(true);
  }, 60_000);

  test('names are looked up side by side: eight slow ones take hardly longer than one', async () => {
    await using world = await startWatched();
    const { dns, port, origin } = world;
    const hosts = Array.from({ length: 8 }, (_, i) => `slow${i}.direct.test`);
    dns.become({ names: Object.fromEntries(hosts.map(host => [host, [LOOPBACK]])), delay: 500 });
    const began = performance.now();
    expect(await Promise.all(hosts.map(host => get(port, host, origin.port)))).toEqual(hosts.map(() => 200));
    expect(performance.now() - began).toBeLessThan(1_400);
  }, 60_000);

  test('A92: with the DNS down a direct site is a clear 504, the others work, and it recovers without a restart', async () => {
    await using world = await startWatched('dns: { serveStale: 0 }\nlimits: { hopTimeout: 2 }\n');
    const { dns, port, origin } = world;
    dns.become({ silent: true });
    await using client = await connectRaw(port);
    client.write(`GET http://direct.test:${origin.port}/ HTTP/1.1\r\nHost: direct.test:${origin.port}\r\n\r\n`);
    const answer = await client.readAnswer('GET', 15_000);
    expect(answer.status).toBe(504);
    expect(answer.headers['proxy-status']).toContain('error=dns_timeout');
    expect(answer.text).toContain(`looking up direct.test:${origin.port}`);
    expect(await get(port, 'web.test', origin.port)).toBe(200);
    dns.become({ silent: false });
    await expect.poll(() => get(port, 'direct.test', origin.port), { timeout: 8_000, interval: 300 }).toBe(200);

    dns.become({ names: {} });
    expect(await get(port, 'www.direct.test', origin.port)).toBe(502);
    dns.become({ names: { 'www.direct.test': [LOOPBACK] } });
    await expect.poll(() => get(port, 'www.direct.test', origin.port), { timeout: 10_000, interval: 300 }).toBe(200);
  }, 60_000);

  test('A92: an answer from before the DNS went down still serves, through new connections', async () => {
    await using world = await startWatched('dns: { minTtl: 0, maxTtl: 1 }\n');
    const { dns, port, origin } = world;
    expect(await tunnelTo(port, 'direct.test', origin.port)).toBe(200);
    dns.become({ silent: true });
    await new Promise(resolve => setTimeout(resolve, 1_100));
    const before = dns.asked.length;
    for (let i = 0; i < 3; i++) expect(await tunnelTo(port, 'direct.test', origin.port)).toBe(200);
    expect(dns.asked.length).toBeGreaterThan(before);
  }, 60_000);
});
