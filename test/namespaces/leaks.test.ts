// With a closed route nothing goes past the chain, whatever breaks: told by the packets that leave the client's namespace. Programs (curl) here, a
// browser in chromium.test.ts. DETOUR_LEAK_ROUNDS: how often what is done under load is done.
import { existsSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type SpawnedCompanion, spawnCompanion } from '../support/spawned-companion.ts';
import { runDetour } from '../support/with-companion.ts';
import { AT, haveNamespaces, makeNetwork, type Network, NOBODY, PROXIES, until } from './network.ts';

const ROUNDS = Number(process.env['DETOUR_LEAK_ROUNDS'] ?? 2);
const CONFIG = `limits: { hopTimeout: 1, routeTimeout: 3 }
hops:
  web: ${PROXIES.http}
  socks: ${PROXIES.socks5}
  gone: ${NOBODY}
routes:
  hidden: [[web], [socks]]
  far: [[gone], [web, socks]]
  free: { chains: [[socks]], pick: auto }
sites:
  site.test: hidden
  other.test: far
  auto1.test: free
  auto2.test: free
  auto3.test: free
rules:
  - { host: 93.184.215.0/24, route: hidden }
  - { host: 10.0.0.0/8, route: far }
  - { keyword: tracker, block: true }
default: hidden
`;

describe.runIf(haveNamespaces())('in a namespace of its own', () => {
  let network: Network;
  let companion: SpawnedCompanion;
  const http = () => `http://127.0.0.1:${companion.port}`;
  const socks = () => `socks5h://127.0.0.1:${companion.port}`;
  const start = (place?: SpawnedCompanion['place']) =>
    spawnCompanion({ config: CONFIG, within: network.inClient, ...(place && { place }) });
  /** Requests by every entrance for every site, over and over, until it is called off; gives back how many came through and how many did not. */
  const load = () => {
    const over = new AbortController();
    const done = { through: 0, failed: 0 };
    const urls = ['http://site.test/', 'https://www.site.test/', 'http://other.test/', 'http://unknown.test/'];
    const one = async (proxy: () => string, offset: number) => {
      for (let i = offset; !over.signal.aborted; i++) {
        const body = await network.curl(proxy(), urls[i % urls.length]!, '--max-time', '3');
        expect(body).not.toContain(`from ${AT.direct}`);
        if (body.includes(`from ${AT.viaExit}`)) done.through++;
        else done.failed++;
      }
    };
    const all = Promise.all([one(http, 0), one(socks, 1)]);
    return {
      done,
      async end() {
        over.abort();
        await all;
        return done;
      },
    };
  };

  beforeAll(async () => {
    network = await makeNetwork();
    companion = await start();
  }, 60_000);
  afterAll(async () => {
    await companion?.[Symbol.asyncDispose]();
    await network?.[Symbol.asyncDispose]();
  });
  beforeEach(async () => void (await network.leaks()));

  test('what goes past the exit is seen: a request without a proxy', async () => {
    expect(await network.curl(null, 'http://site.test/')).toContain(`from ${AT.direct}`);
    const leaks = await network.leaks();
    expect(leaks.some(line => /A\? site\.test/.test(line))).toBe(true);
    expect(leaks.some(line => line.includes('93.184.215.14.80'))).toBe(true);
  });

  test('A45: through the chain nothing is asked of a resolver here, and nothing goes past the exit', async () => {
    for (const proxy of [http(), socks()])
      for (const url of ['http://site.test/', 'https://site.test/', 'http://other.test/', 'https://other.test/'])
        expect(await network.curl(proxy, url), `${proxy} ${url}`).toContain(`from ${AT.viaExit}`);
    expect(await network.leaks()).toEqual([]);
  });

  test('A45: names that nobody knows, addresses under a rule for ranges, and what is explained and tested', async () => {
    for (const url of [
      'http://unknown.test/',
      'https://unknown.test/',
      'http://93.184.215.14/',
      'http://tracker.test/',
    ])
      await network.curl(http(), url);
    const detour = (...words: string[]) => runDetour(words, companion.place, {}, network.inClient);
    const explained = await detour('explain', 'http://site.test/page', '--config', companion.place.configFile);
    expect(explained.out).toContain('hidden');
    await detour('explain', 'http://unknown.test/');
    await detour('route', 'ls');
    await detour('route', 'test', 'hidden');
    expect(await network.leaks()).toEqual([]);
  });

  test('the chain is down: the requests fail, and nothing takes another way', async () => {
    await network.stopProxies();
    for (const url of ['http://site.test/', 'http://other.test/'])
      expect(await network.curl(http(), url)).not.toContain('id="here"');
    expect(await network.curl(http(), 'https://site.test/')).toMatch(/^curl: /);
    expect(await network.curl(socks(), 'http://site.test/')).toMatch(/^curl: /);
    expect(await network.leaks()).toEqual([]);
    await network.startProxies();
    await until(
      async () => (await network.curl(http(), 'http://site.test/')).includes(`from ${AT.viaExit}`),
      'the chain is up again',
      () => '',
    );
    expect(await network.leaks()).toEqual([]);
  });

  test.each(['prohibit', 'unreachable', 'blackhole'])('the way to the chain is closed (ip route add %s)', async how => {
    network.route('add', how, `${AT.exit}/32`);
    try {
      for (const url of ['http://site.test/', 'https://site.test/', 'http://other.test/'])
        expect(await network.curl(http(), url)).not.toContain('id="here"');
    } finally {
      network.route('del', how, `${AT.exit}/32`);
    }
    expect(await network.leaks()).toEqual([]);
  });

  test('A90: reloads under load, with files in order and not', { timeout: 600_000 }, async () => {
    const { configFile, text } = companion.place;
    const running = load();
    try {
      for (let round = 0; round < ROUNDS; round++) {
        for (const next of [
          `${text}\n# ${round}\n`,
          text.replace('  other.test: far\n', ''),
          text.replace('routes:', 'routes: ['),
          text.replace('hidden: [[web], [socks]]', 'hidden: [[socks], [web]]'),
          text,
        ]) {
          writeFileSync(configFile, next);
          const before = running.done.through + running.done.failed;
          await until(
            () => running.done.through + running.done.failed > before + 2,
            'the load goes on',
            () => '',
          );
        }
      }
    } finally {
      const { through } = await running.end();
      expect(through).toBeGreaterThan(0);
    }
    expect(await network.leaks()).toEqual([]);
  });

  test('A93: killed under load and started again', { timeout: 600_000 }, async () => {
    const running = load();
    try {
      for (let round = 0; round < ROUNDS; round++) {
        const { place, running: process_ } = companion;
        const before = running.done.through;
        await until(
          () => running.done.through > before,
          'the load goes through',
          () => '',
        );
        process.kill(companion.pid, 'SIGKILL');
        await process_.ended;
        const failed = running.done.failed;
        await until(
          () => running.done.failed > failed + 1,
          'the load fails',
          () => '',
        );
        expect(existsSync(path.join(place.stateFolder)), 'the state folder').toBe(true);
        companion = await start(place);
      }
    } finally {
      await running.end();
    }
    expect(await network.leaks()).toEqual([]);
  });

  describe('an auto route', () => {
    const memory = (...words: string[]) =>
      runDetour(['route', 'memory', ...words], companion.place, {}, network.inClient);
    const route = (how: string) => ({
      block: () => network.route('add', how, '93.184.215.15/32'),
      unblock: () => network.route('del', how, '93.184.215.15/32'),
    });
    const reset = {
      block: () => network.tellOrigin(`reset ${AT.direct}`),
      unblock: () => network.tellOrigin('serve'),
    };

    test.each([
      ['prohibited', 'auto1.test', route('prohibit')],
      ['thrown away', 'auto2.test', route('blackhole')],
      ['reset', 'auto3.test', reset],
    ] as const)(
      'learns that a site is blocked (%s), and forgets it',
      { timeout: 120_000 },
      async (_, site, { block, unblock }) => {
        const ask = () => network.curl(http(), `http://${site}/`);
        expect(await ask()).toContain(`from ${AT.direct}`);
        await block();
        try {
          expect(await ask()).toContain(`from ${AT.viaExit}`);
          expect((await memory('ls')).out).toContain(site);
          await network.leaks();
          // Known now: the direct way is not even tried.
          expect(await ask()).toContain(`from ${AT.viaExit}`);
          expect(await network.leaks()).toEqual([]);
        } finally {
          await unblock();
        }
        await memory('forget', site);
        expect((await memory('ls')).out).not.toContain(site);
        // What has just failed goes last for half a minute more.
        if (ROUNDS > 2)
          await until(
            async () => (await ask()).includes(`from ${AT.direct}`),
            'it is direct again',
            () => '',
            60_000,
          );
      },
    );
  });
});
