// A site of many parts, loaded twice by a browser that has forgotten it: the second time it comes out of Detour's cache, and also when its server is gone.
import { expect, test } from 'vitest';
import { couldBeCached, type Exchange, isFromCache, isHit } from '../../shared/exchange.ts';
import { formatBytes } from '../../shared/units.ts';
import { type BrowserOptions, eventually, type TestBrowser, type TestPage } from './browsers/browser.ts';
import { startJourney } from './journey.ts';
import { GALLERY_PARTS } from './world.ts';

const STORY = 120_000;
const SITE = 'site.test';

const sum = (exchanges: readonly Exchange[]) => exchanges.reduce((all, { bytesDown }) => all + bytesDown, 0);
/** How long the middle one took. */
const median = (exchanges: readonly Exchange[]) =>
  exchanges.map(({ took }) => took!).sort((a, b) => a - b)[Math.floor(exchanges.length / 2)]!;
/** How many of its pictures a page shows. */
const pictures = (page: TestPage) =>
  page.evaluate(() => [...document.images].filter(image => image.complete && image.naturalWidth > 0).length);

export function tellCachedSite(start: (options: BrowserOptions) => Promise<TestBrowser>): void {
  test(
    'a site of 200 parts comes out of the cache the second time, and without its server',
    { timeout: STORY },
    async () => {
      await using journey = await startJourney(start, { sites: `  ${SITE}: companion\n` });
      const { world, browser, companion } = journey;
      const page = await browser.newPage();
      await journey.pairAndUse(page);
      const log = async () =>
        (await companion.exchanges()).filter(({ site, kind }) => site === SITE && kind === 'http');

      /** Loads it as if for the first time; gives back the records of it. */
      const load = async (): Promise<Exchange[]> => {
        const before = (await log()).length;
        await browser.clearCache();
        expect(await page.goto(world.url(SITE, '/gallery'))).toBeNull();
        expect(await pictures(page)).toBe(GALLERY_PARTS);
        return (await log()).slice(before);
      };
      const first = await load();
      expect(first).toHaveLength(GALLERY_PARTS + 1);
      expect(world.of(SITE).every(({ way }) => way === 'companion')).toBe(true);
      const asked = world.of(SITE).length;

      const second = await load();
      const cached = second.filter(({ cacheStatus }) => isFromCache(cacheStatus));
      expect(sum(cached) / sum(second)).toBeGreaterThanOrEqual(0.9);
      // Not the clock on the wall: how fast the browser itself is depends on what else the machine does.
      expect(median(second)).toBeLessThan(median(first) / 2);
      expect(world.of(SITE).length - asked).toBeLessThan(GALLERY_PARTS / 10);

      // The server is gone, and the page, which was good for a second only, is old.
      await world.unplug();
      await new Promise(resolve => setTimeout(resolve, 1_500));
      const third = await load();
      expect(third.every(({ status }) => status === 200)).toBe(true);
      expect(third.find(({ url }) => url.endsWith('/gallery'))?.cacheStatus).toMatch(/^hit; ttl=-\d+; detail=offline/);

      // What the popup says is what the log says.
      const popup = await journey.popup(page);
      const all = await log();
      const lookups = all.filter(({ cacheStatus }) => couldBeCached(cacheStatus)).length;
      const hits = all.filter(({ cacheStatus }) => isHit(cacheStatus)).length;
      const saved = sum(all.filter(({ cacheStatus }) => isFromCache(cacheStatus)));
      const figures = `${Math.round((100 * hits) / lookups)} % of ${lookups} from the cache, ${formatBytes(saved)} saved.`;
      await eventually(`the popup says ${figures}`, async () => (await popup.cacheFigures()) === figures);
      await eventually('of the tab too', async () => {
        const counts = await popup.counts();
        return counts.requests === GALLERY_PARTS + 1 && counts.cached === third.length;
      });
      await popup.page.screenshot(journey.pictures('cached-site'));
    },
  );
}
