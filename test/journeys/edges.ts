// What the main stories pass by: a pairing taken back, storage that cannot be read, entries of other widths, a page that turns on this machine.
import { expect, test } from 'vitest';
import type { BrowserOptions, TestBrowser, TestPage } from './browsers/browser.ts';
import { eventually } from './browsers/browser.ts';
import { startJourney } from './journey.ts';

const STORY = 120_000;
type Start = (options: BrowserOptions) => Promise<TestBrowser>;

const shown = (page: TestPage, name: string) =>
  page.evaluate(wanted => document.querySelector(`[data-testid=${wanted}]`)?.textContent ?? null, name);

interface Extension {
  storage: { local: { get(key: string): Promise<Record<string, unknown>>; set(items: object): Promise<void> } };
}

export function tellEdges(start: Start): void {
  test(
    'a pairing taken back leaves what was steered closed, until the person pairs again or lets go',
    { timeout: STORY },
    async () => {
      await using journey = await startJourney(start, { sites: '  site.test: companion\n' });
      const { world, browser, companion, pictures } = journey;
      const page = await browser.newPage();
      await journey.pairAndUse(page);
      await page.goto(world.url('site.test', '/before'));
      const popup = await journey.popup(page);
      await companion.unpairAll();
      await eventually('the pairing screen', async () => (await shown(popup.page, 'closed')) !== null);
      await popup.page.screenshot(pictures('unpaired'));
      await page.goto(world.url('site.test', '/unpaired'));
      await popup.pair(companion);
      await page.goto(world.url('site.test', '/not-yet-used'));
      await popup.useThese();
      await page.goto(world.url('site.test', '/used'));
      expect(
        world.of('site.test').every(seen => seen.way === 'companion'),
        JSON.stringify(world.of('site.test').map(s => [s.path, s.way])),
      ).toBe(true);
    },
  );

  test('steering that cannot be read again stays closed and says so', { timeout: STORY }, async () => {
    await using journey = await startJourney(start, { sites: '  site.test: companion\n' });
    const { world, browser, companion, pictures } = journey;
    const page = await browser.newPage();
    await journey.pairAndUse(page);
    await page.goto(world.url('site.test', '/before'));
    const popup = await journey.popup(page);
    await popup.page.evaluate(async () => {
      const { storage } =
        (globalThis as never as { browser?: Extension }).browser ??
        (globalThis as never as { chrome: Extension }).chrome;
      const { steering } = await storage.local.get('steering');
      await storage.local.set({ steering: { ...(steering as object), table: { format: 1 } } });
    });
    await popup.page.close();
    await browser.restart(() => companion.kill('SIGKILL'));
    const fresh = await browser.newPage();
    expect(await fresh.goto(world.url('site.test', '/damaged'))).not.toBeNull();
    const second = await journey.popup(fresh);
    await eventually('the fault is said', async () => /cannot be read/.test((await shown(second.page, 'fault')) ?? ''));
    await second.page.screenshot(pictures('damaged'));
    await companion.startAgain();
    await eventually(
      'it loads again',
      async () => (await fresh.goto(world.url('site.test', '/after'))) === null,
      35_000,
    );
    await eventually('the fault is gone', async () => (await shown(second.page, 'fault')) === null);
    expect(world.of('site.test').every(seen => seen.way === 'companion')).toBe(true);
  });

  test(
    'the switch changes the narrow entry that decides, and never one wider than the site',
    { timeout: STORY },
    async () => {
      await using journey = await startJourney(start, { sites: '  test: companion\n  www.site.test: companion\n' });
      const { world, browser } = journey;
      const page = await browser.newPage();
      await journey.pairAndUse(page);
      await page.goto(world.url('www.site.test', '/1'));
      let popup = await journey.popup(page);
      await popup.switchSite(false);
      await popup.page.close();
      await page.goto(world.url('www.site.test', '/2'));
      await page.goto(world.url('site.test', '/3'));
      popup = await journey.popup(page);
      await popup.switchSite(false);
      await page.goto(world.url('site.test', '/4'));
      await page.goto(world.url('other.test', '/5'));
      expect(world.seen.filter(seen => /^\/\d$/.test(seen.path)).map(seen => `${seen.path} ${seen.way}`)).toEqual([
        '/1 companion',
        '/2 direct',
        '/3 companion',
        '/4 direct',
        '/5 companion',
      ]);
    },
  );

  test('a companion that hangs is told within two seconds of looking', { timeout: STORY }, async () => {
    await using journey = await startJourney(start, { sites: '  site.test: companion\n' });
    const page = await journey.browser.newPage();
    await journey.pairAndUse(page);
    journey.companion.signal('SIGSTOP');
    const before = Date.now();
    const popup = await journey.popup(page);
    await eventually('not up', async () => !['up', 'connecting'].includes(await popup.link()), 5_000);
    console.log('told after', Date.now() - before, 'ms');
    journey.companion.signal('SIGCONT');
    await popup.linkIsUp();
  });
}
