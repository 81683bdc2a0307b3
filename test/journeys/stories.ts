// The main job, told once and run in both browsers: a person turns a site on in the popup, and their browser reaches it through the
// companion. Every story has its own companion, browser and web.
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { couldBeCached, isHit } from '../../shared/exchange.ts';
import { formatBytes } from '../../shared/units.ts';
import { startDante, startMicrosocks, startSquid } from '../support/peers.ts';
import type { BrowserOptions, TestBrowser, TestPage } from './browsers/browser.ts';
import { eventually } from './browsers/browser.ts';
import { type Journey, startJourney } from './journey.ts';
import { hostsBy } from './world.ts';

/** Fields that would tell the origin of a proxy. */
const TELLTALE = [
  'via',
  'forwarded',
  'x-forwarded-for',
  'x-forwarded-host',
  'x-forwarded-proto',
  'x-real-ip',
  'proxy-connection',
  'proxy-authorization',
];
const STORY = 120_000;

type Start = (options: BrowserOptions) => Promise<TestBrowser>;

const here = (page: TestPage) =>
  page.evaluate(() => document.querySelector('#here')?.textContent ?? document.body.innerText);

export function tellStories(start: Start): void {
  test('a site turned on in the popup loads through the companion, and no other', { timeout: STORY }, async () => {
    await using journey = await startJourney(start);
    const { world, browser, companion, pictures } = journey;
    const page = await browser.newPage();

    // Before anything is said, nothing is steered.
    expect(await page.goto(world.url('site.test'))).toBeNull();
    expect(world.seen.at(-1)?.way).toBe('direct');
    const first = await journey.popup(page);
    await first.page.screenshot(pictures('1-pairing'));
    await first.pair(companion);
    await first.page.screenshot(pictures('2-use-these'));
    await first.useThese();
    await first.linkIsUp();
    expect(await page.goto(world.url('site.test', '/still'))).toBeNull();
    expect(world.seen.at(-1)?.way).toBe('direct');

    await first.switchSite(true);
    await first.page.screenshot(pictures('3-on'));
    await first.page.close();
    expect(await page.goto(world.url('site.test', '/http'))).toBeNull();
    expect(await here(page)).toBe('site.test/http');
    expect(await page.goto(world.secureUrl('site.test', '/https'))).toBeNull();
    expect(await here(page)).toBe('site.test/https');
    for (const path of ['/http', '/https']) {
      const seen = world.seen.find(request => request.path === path)!;
      expect(seen.way, path).toBe('companion');
      for (const field of TELLTALE) expect(seen.headers, `${field} at ${path}`).not.toHaveProperty(field);
    }
    // A subdomain goes along; another site stays direct and the companion never hears of it.
    expect(await page.goto(world.url('www.site.test', '/sub'))).toBeNull();
    expect(world.seen.at(-1)?.way).toBe('companion');
    expect(await page.goto(world.url('other.test', '/direct'))).toBeNull();
    expect(world.seen.at(-1)?.way).toBe('direct');
    const exchanges = await companion.exchanges();
    expect(exchanges.map(exchange => exchange.host)).not.toContain('other.test');
    expect(exchanges.map(exchange => exchange.host)).toContain('www.site.test');
    expect(readFileSync(companion.configFile, 'utf8')).toContain('site.test: companion');

    // The second load is a hit, and the popup counts it.
    expect(await page.goto(world.url('site.test', '/cached'))).toBeNull();
    expect(await page.goto(world.url('site.test', '/cached'))).toBeNull();
    expect(world.seen.filter(request => request.path === '/cached')).toHaveLength(1);
    const counted = await journey.popup(page);
    await counted.page.screenshot(pictures('4-counts'));
    await eventually('the popup counts a cached answer', async () => (await counted.counts()).cached >= 1).catch(
      async (error: Error) => {
        throw new Error(`${error.message}\nThe popup says: ${await counted.text()}`);
      },
    );
    // What the cache has done for the site is what the log says.
    const ofSite = (await companion.exchanges()).filter(({ site }) => site === 'site.test');
    const lookups = ofSite.filter(({ cacheStatus }) => couldBeCached(cacheStatus)).length;
    const hits = ofSite.filter(({ cacheStatus }) => isHit(cacheStatus));
    const saved = hits.reduce((sum, { bytesDown }) => sum + bytesDown, 0);
    expect([hits.length, saved > 100]).toEqual([1, true]);
    const figures = `${Math.round(100 / lookups)} % of ${lookups} from the cache, ${formatBytes(saved)} saved.`;
    await eventually(`the popup says ${figures}`, async () => (await counted.cacheFigures()) === figures);
    await counted.page.screenshot(pictures('4-counts'));
    await counted.chooseCache('aggressive');
    await eventually('the file says so', () =>
      readFileSync(companion.configFile, 'utf8').includes('site.test: { route: companion, cache: aggressive }'),
    );
    await counted.clearCache();
    await eventually('it says what was cleared', async () => /cached cop.* cleared/.test(await counted.cacheFigures()));
    await counted.page.screenshot(pictures('4-cleared'));
    await counted.page.close();
    expect(await page.goto(world.url('site.test', '/cached'))).toBeNull();
    expect(world.seen.filter(request => request.path === '/cached')).toHaveLength(2);
    expect(await browser.iconTitle(page)).toMatch(/site\.test|steered|companion/i);
    const real = await browser.pictureRealPopup(page, pictures('5-real-popup'));
    expect(real.width).toBeGreaterThanOrEqual(300);

    // Site off: at once direct again.
    const last = await journey.popup(page);
    await last.switchSite(false);
    await last.page.close();
    expect(await page.goto(world.url('site.test', '/off'))).toBeNull();
    expect(world.seen.find(request => request.path === '/off')?.way).toBe('direct');
  });

  test('a blocked host shows who blocked it', { timeout: STORY }, async () => {
    await using journey = await startJourney(start, { rules: '  - { host: blocked.test, block: true }\n' });
    const { world, browser, pictures } = journey;
    const page = await browser.newPage();
    await journey.pairAndUse(page);
    await page.goto(world.url('blocked.test', '/x'));
    expect(await page.evaluate(() => document.body.innerText)).toMatch(/rules\[0\]/);
    await page.screenshot(pictures('blocked-http'));
    await page.goto(world.secureUrl('blocked.test', '/y'));
    await eventually('the icon names the rule', async () => /rules\[0\]/.test(await browser.iconTitle(page)));
    const popup = await journey.popup(page);
    await eventually('the popup names the rule', async () => /rules\[0\]/.test(await popup.text()));
    await popup.page.screenshot(pictures('blocked-popup'));
    expect(world.of('blocked.test')).toHaveLength(0);
  });

  test('a route through a SOCKS proxy with a password, and one of two hops', { timeout: STORY }, async () => {
    const credentials = { username: 'walker', password: 's3cret-walk' };
    const startSocks = process.getuid?.() === 0 ? startDante : startMicrosocks;
    await using socks = await startSocks({ credentials, hosts: hostsBy('dante') });
    await using squid = await startSquid({ hosts: hostsBy('squid') });
    await using journey = await startJourney(start, {
      hops: `  socks: ${socks.url}\n  squid: ${squid.url}\n`,
      routes: '  alone: [[socks]]\n  double: [[squid, socks]]\n',
      sites: '  third.test: alone\n',
    });
    const { world, browser, companion, pictures } = journey;
    const page = await browser.newPage();
    await journey.pairAndUse(page);
    expect(await page.goto(world.url('third.test', '/a'))).toBeNull();
    expect(await page.goto(world.secureUrl('third.test', '/b'))).toBeNull();
    expect(world.of('third.test').map(request => request.way)).toEqual(['dante', 'dante']);

    // Two hops, chosen in the popup's route selector.
    await page.goto(world.url('fourth.test', '/before'));
    const popup = await journey.popup(page);
    await popup.chooseRoute('double');
    await popup.switchSite(true);
    await popup.page.screenshot(pictures('route-double'));
    expect(await page.goto(world.url('fourth.test', '/c'))).toBeNull();
    expect(await page.goto(world.secureUrl('fourth.test', '/d'))).toBeNull();
    expect(
      world
        .of('fourth.test')
        .filter(request => request.path !== '/before')
        .map(request => request.way),
    ).toEqual(['dante', 'dante']);
    const last = (await companion.exchanges()).findLast(exchange => exchange.host === 'fourth.test')!;
    expect(last.attempts.at(-1)?.chain).toEqual(['squid', 'socks']);
  });

  test('with the companion killed nothing goes direct, and its return is enough', { timeout: STORY }, async () => {
    await using journey = await startJourney(start, { sites: '  site.test: companion\n' });
    const { world, browser, companion, pictures } = journey;
    const page = await browser.newPage();
    await journey.pairAndUse(page);
    expect(await page.goto(world.url('site.test', '/up'))).toBeNull();
    await companion.kill('SIGKILL');
    const before = world.seen.length;
    expect(await page.goto(world.url('site.test', '/down'))).toMatch(/PROXY/);
    expect(await page.goto(world.secureUrl('site.test', '/down'))).toMatch(/PROXY/);
    expect(world.seen).toHaveLength(before);
    const popup = await journey.popup(page);
    await eventually('the popup says the link is down', async () => (await popup.link()) !== 'up');
    await popup.page.screenshot(pictures('down'));
    await popup.page.close();
    await companion.startAgain();
    expect(await page.goto(world.url('site.test', '/back'))).toBeNull();
    await companion.kill('SIGKILL');
    await browser.sleepWorker();
    expect(await page.goto(world.url('site.test', '/down-again'))).toMatch(/PROXY/);
    await companion.startAgain();
    expect(await page.goto(world.url('site.test', '/back-asleep'))).toBeNull();
    expect(world.of('site.test').map(request => [request.path, request.way])).toEqual([
      ['/up', 'companion'],
      ['/back', 'companion'],
      ['/back-asleep', 'companion'],
    ]);
  });

  test('a WebSocket of a steered page goes by CONNECT, plain and over TLS', { timeout: STORY }, async () => {
    await using journey = await startJourney(start, { sites: '  site.test: companion\n' });
    const { world, browser, companion } = journey;
    const page = await browser.newPage();
    await journey.pairAndUse(page);
    const echo = (url: string) =>
      page.evaluate(
        at =>
          new Promise<string>(resolve => {
            const socket = new WebSocket(at);
            socket.onopen = () => socket.send(`${'x'.repeat(100_000)} there and back`);
            socket.onmessage = ({ data }) => {
              resolve(String(data).slice(-14));
              socket.close();
            };
            socket.onclose = () => resolve('closed');
          }),
        url.replace('http', 'ws'),
      );
    await page.goto(world.url('site.test'));
    expect(await echo(world.url('site.test', '/plain'))).toBe('there and back');
    await page.goto(world.secureUrl('site.test'));
    expect(await echo(world.secureUrl('site.test', '/tls'))).toBe('there and back');
    expect(world.of('site.test').filter(seen => seen.headers['upgrade'] === 'websocket')).toMatchObject([
      { path: '/plain', secure: false, way: 'companion' },
      { path: '/tls', secure: true, way: 'companion' },
    ]);
    const kinds = (await companion.exchanges())
      .filter(exchange => exchange.url === `site.test:${world.httpPort}`)
      .map(exchange => [exchange.kind, exchange.status]);
    expect(kinds).toContainEqual(['connect', 200]);
  });

  test('a browser started while the companion is down leaks nothing', { timeout: STORY }, async () => {
    await using journey = await startJourney(start, { sites: '  site.test: companion\n' });
    await startsWithoutLeak(journey);
  });

  test('the master switch works without the companion', { timeout: STORY }, async () => {
    await using journey = await startJourney(start, { sites: '  site.test: companion\n' });
    const { world, browser, companion } = journey;
    const page = await browser.newPage();
    await journey.pairAndUse(page);
    await page.goto(world.url('site.test', '/steered'));
    await companion.kill('SIGKILL');
    const popup = await journey.popup(page);
    await popup.master(false);
    expect(await page.goto(world.url('site.test', '/free'))).toBeNull();
    await companion.startAgain();
    await popup.master(true);
    await eventually('steered again', async () => {
      await page.goto(world.url('site.test', `/again-${world.seen.length}`));
      return world.seen.at(-1)?.way === 'companion';
    });
    expect(world.seen.find(request => request.path === '/steered')?.way).toBe('companion');
    expect(world.seen.find(request => request.path === '/free')?.way).toBe('direct');
    expect(await browser.newPage().then(other => other.goto(world.url('other.test', '/o')))).toBeNull();
    expect(world.of('other.test').every(request => request.way === 'direct')).toBe(true);
  });
}

/** Ends browser and companion, starts the browser alone, and asks for the steered site at once. */
export async function startsWithoutLeak(
  journey: Journey,
  furnish?: (journey: Journey) => Promise<void>,
): Promise<void> {
  const { world, browser, companion } = journey;
  const page = await browser.newPage();
  await journey.pairAndUse(page);
  await furnish?.(journey);
  expect(await page.goto(world.url('site.test', '/up'))).toBeNull();
  await browser.restart(() => companion.kill('SIGKILL'));
  const fresh = await browser.newPage();
  expect(await fresh.goto(world.url('site.test', '/early'))).not.toBeNull();
  expect(await fresh.goto(world.secureUrl('site.test', '/early'))).not.toBeNull();
  await new Promise(resolve => setTimeout(resolve, 1_500));
  expect(await fresh.goto(world.url('site.test', '/late'))).not.toBeNull();
  expect(world.of('site.test').map(request => request.path)).toEqual(['/up']);
  await companion.startAgain();
  await eventually(
    'it loads once the companion is back',
    async () => (await fresh.goto(world.url('site.test', '/after'))) === null,
  );
  expect(world.of('site.test').every(request => request.way === 'companion')).toBe(true);
}
