// What traffic and checks show of chains and sites, seen and changed over the control link, and from one run to the next.
import { statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { expect, test } from 'vitest';
import type { RouteState, SiteWay, WaysState } from '../../../shared/ways.ts';
import { closedPort, startHop } from '../../support/hop.ts';
import { startOrigin } from '../../support/origin.ts';
import { connectRaw } from '../../support/raw-client.ts';
import {
  makePlace,
  startTestCompanion,
  TEST_CONFIG,
  type TestCompanion,
  TestLink,
} from '../../support/with-companion.ts';

const get = async (running: TestCompanion, url: string): Promise<number> => {
  await using client = await connectRaw(running.port);
  client.write(`GET ${url} HTTP/1.1\r\nHost: ${new URL(url).host}\r\nConnection: close\r\n\r\n`);
  return (await client.readAnswer()).status;
};
const routeOf = async (link: TestLink, name: string): Promise<RouteState> =>
  ((await link.ask({ type: 'ways' })) as unknown as { ways: WaysState }).ways.routes.find(
    route => route.name === name,
  )!;
const sitesOf = async (link: TestLink): Promise<SiteWay[]> =>
  ((await link.ask({ type: 'site-ways' })) as unknown as { sites: SiteWay[] }).sites;
const waitFor = async <T>(ask: () => Promise<T>, is: (value: T) => boolean): Promise<T> => {
  for (;;) {
    const value = await ask();
    if (is(value)) return value;
    await new Promise(resolve => setTimeout(resolve, 20));
  }
};

test('what an auto route learns of a site, and what a person sets, is there in the next run, for the owner alone', async () => {
  await using origin = await startOrigin();
  await using hop = await startHop({
    kind: 'socks5',
    hosts: { 'blocked.test': '127.0.0.1', 'mine.test': '127.0.0.1' },
  });
  // Nobody listens at 127.0.0.2.
  using place = makePlace(
    `hops:\n  far: socks5://127.0.0.1:${hop.port}\nroutes:\n  smart: { chains: [[far]], pick: auto }\ndefault: smart\n${TEST_CONFIG}    blocked.test: 127.0.0.2\n    mine.test: 127.0.0.1\n`,
  );
  {
    await using running = await startTestCompanion(undefined, place);
    const { link } = await TestLink.pair(running.companion);
    await using _ = link;
    // On a slow machine the hop may win the race that the first request is.
    let tries = 0;
    await waitFor(
      async () => {
        expect(await get(running, `http://blocked.test:${origin.port}/${++tries}`)).toBe(200);
        return sitesOf(link);
      },
      sites => sites.length === 1 && sites[0]!.sign === 'unreachable',
    );
    expect(await link.ask({ type: 'set-site-way', site: 'www.mine.test', way: 'chains' })).toMatchObject({
      type: 'done',
    });
    expect(await sitesOf(link)).toMatchObject([
      { site: 'blocked.test', route: 'smart', way: 'chains', byHand: false, sign: 'unreachable' },
      { site: 'mine.test', route: 'smart', way: 'chains', byHand: true, until: null },
    ]);
  }
  expect(statSync(path.join(place.stateFolder, 'auto-sites.json')).mode & 0o777).toBe(0o600);
  {
    await using running = await startTestCompanion(undefined, place);
    const { link } = await TestLink.pair(running.companion);
    await using _ = link;
    expect((await sitesOf(link)).map(({ site }) => site)).toEqual(['blocked.test', 'mine.test']);
    const before = hop.requests.length;
    expect(await get(running, `http://mine.test:${origin.port}/`)).toBe(200);
    expect(hop.requests.length).toBe(before + 1);
    expect(await link.ask({ type: 'set-site-way', site: 'mine.test', way: null })).toMatchObject({ type: 'done' });
    expect((await sitesOf(link)).map(({ site }) => site)).toEqual(['blocked.test']);
  }
  writeFileSync(path.join(place.stateFolder, 'auto-sites.json'), '{"version":9}', { mode: 0o600 });
  await using running = await startTestCompanion(undefined, place);
  expect(running.said.join()).toContain('auto-sites.json cannot be read');
});

test('how chains fare by traffic is told, and what a hop that is another now did is forgotten', async () => {
  await using origin = await startOrigin();
  await using hop = await startHop({ kind: 'socks5', hosts: { 'origin.test': '127.0.0.1' } });
  const text = (away: number) =>
    `hops:\n  away: socks5://127.0.0.1:${away}\n  good: socks5://127.0.0.1:${hop.port}\nroutes:\n  work: [[away], [good]]\nsites:\n  origin.test: work\n${TEST_CONFIG}`;
  await using running = await startTestCompanion(text(await closedPort()));
  const { link } = await TestLink.pair(running.companion);
  await using _ = link;
  expect((await routeOf(link, 'work')).health).toEqual([]);
  expect(await get(running, `http://origin.test:${origin.port}/`)).toBe(200);
  expect((await routeOf(link, 'work')).health).toMatchObject([
    {
      chain: ['away'],
      state: 'down',
      failures: 1,
      latency: null,
      reason: expect.stringContaining('refused the connection'),
    },
    { chain: ['good'], state: 'up', failures: 0, latency: expect.any(Number) },
  ]);
  writeFileSync(running.place.configFile, text(await closedPort()));
  const after = await waitFor(
    () => routeOf(link, 'work'),
    ({ health }) => health.length === 1,
  );
  expect(after.health).toMatchObject([{ chain: ['good'], state: 'up' }]);
});

test('a route with a check is asked through: exit, status and what is wrong are told, and traffic goes by it', async () => {
  await using origin = await startOrigin((request, response) => {
    response.setHeader('Content-Type', 'text/plain');
    if (request.url === '/ip') response.end('192.0.2.44');
    else response.end('hello');
  });
  await using broken = await startHop({ kind: 'http', refuse: 503 });
  await using good = await startHop({ kind: 'socks5', hosts: { 'origin.test': '127.0.0.1' } });
  await using running = await startTestCompanion(
    `hops:\n  broken: http://127.0.0.1:${broken.port}\n  good: socks5://127.0.0.1:${good.port}\nroutes:\n  work:\n    chains: [[broken], [good]]\n    check: { url: "http://origin.test:${origin.port}/ip", status: 200, every: 5, jitter: 0 }\nsites:\n  origin.test: work\n${TEST_CONFIG}`,
  );
  const { link } = await TestLink.pair(running.companion);
  await using _ = link;
  const { health } = await waitFor(
    () => routeOf(link, 'work'),
    route => route.health.filter(({ check }) => check !== undefined).length === 2,
  );
  expect(health).toMatchObject([
    { chain: ['broken'], state: 'down', check: { ok: false } },
    { chain: ['good'], state: 'up', check: { ok: true, status: 200, exit: '192.0.2.44' } },
  ]);
  const asked = broken.requests.length;
  expect(await get(running, `http://origin.test:${origin.port}/page`)).toBe(200);
  expect(broken.requests.filter(request => request.includes('/page'))).toEqual([]);
  expect(broken.requests.length).toBeGreaterThanOrEqual(asked);
});
