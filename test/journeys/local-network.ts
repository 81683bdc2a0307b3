// Steering must not widen what a site may reach: to the browser a steered page is as local as its proxy. Every way there is is tried, from
// unsteered pages first, so that it is known to arrive.
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { attackFrom, FEW } from './attack.ts';
import { type BrowserOptions, eventually, type TestBrowser, type TestPage } from './browsers/browser.ts';
import { startJourney } from './journey.ts';
import { startVictim } from './victim.ts';

const STORY = 120_000;
/** What arrives at all has arrived by then: unsteered pages take a fraction of it. */
const LONG_ENOUGH = 2_500;
const wait = (time: number) => new Promise(resolve => setTimeout(resolve, time));

/** Ways that every browser has, from http pages; the rest differs. */
const CORE =
  'fetch fetch-cors websocket image frame script xhr beacon form redirect srcdoc sandboxed data-frame data-frame-ws ' +
  'worker worker-ws data-worker shared-worker shared-worker-ws fetch-named websocket-named image-named worker-named shared-worker-named spelt-0-fetch spelt-1-fetch spelt-7-image';
const SECURE = 'service-worker service-worker-ws service-worker-named';

export function tellLocalNetwork(start: (options: BrowserOptions) => Promise<TestBrowser>): void {
  test(
    'a steered page reaches no service of this machine, by any way, until its site is let',
    { timeout: STORY },
    async () => {
      await using journey = await startJourney(start, {
        sites: '  10.1.2.3: companion\n  "fd00::1": companion\n  10.9.0.0/16: companion\n  router.site.test: off\n',
      });
      const { world, browser, companion, pictures } = journey;
      await using victim = await startVictim(world.authority, ['plain.test']);
      let page = await browser.newPage();
      await journey.pairAndUse(page);
      const attack = async (url: string, tag: string, from: TestPage = page, few = false) => {
        expect(await from.goto(url), url).toBeNull();
        await attackFrom(from, victim, 'plain.test', tag, few);
      };
      const arrives = (tag: string, ways: string) =>
        eventually(`all ways arrive, of ${tag}`, () => {
          const reached = victim.reachedBy(tag);
          const missing = ways.split(' ').filter(way => !reached.includes(way));
          if (missing.length > 0) throw new Error(`missing: ${missing.join(' ')}`);
          return true;
        });

      // Unsteered pages keep what they have.
      await attack(world.url('other.test'), 'free', page);
      await arrives('free', CORE);
      await attack(world.secureUrl('other.test'), 'free-secure');
      await arrives('free-secure', `${CORE} ${SECURE}`);
      console.log(
        `${browser.name}: from unsteered pages ${victim.reachedBy('free').length} and ${victim.reachedBy('free-secure').length} arrive`,
      );

      await page.goto(world.url('site.test', '/before'));
      let popup = await journey.popup(page);
      await popup.switchSite(true);
      await popup.page.screenshot(pictures('local-network-off'));
      await attack(world.url('site.test', '/steered'), 'steered');
      const second = await browser.newPage();
      await attack(world.secureUrl('site.test', '/steered'), 'steered-secure', second);
      expect(
        world
          .of('site.test')
          .filter(seen => seen.path === '/steered')
          .map(seen => seen.way),
      ).toEqual(['companion', 'companion']);
      await wait(LONG_ENOUGH);
      expect(victim.reachedBy('steered')).toEqual([]);
      expect(victim.reachedBy('steered-secure')).toEqual([]);

      // The whole tab may go there still, as sign-in callbacks do.
      await second.evaluate(url => void (location.href = url), `http://127.0.0.1:${victim.port}/signed-in/callback`);
      await eventually('the tab went there', () => victim.reachedBy('signed-in').length > 0);
      await second.close();
      // So may pages that are not steered, below a steered site too, and pages of the machine itself.
      await attack(world.url('router.site.test', '/off'), 'below', page, true);
      await arrives('below', FEW);
      await attack(`http://127.0.0.1:${world.httpPort}/`, 'itself', page, true);
      await arrives('itself', FEW);

      // A browser that starts again guards before anything has been said.
      await browser.restart();
      page = await browser.newPage();
      await attack(world.url('site.test', '/early'), 'early');
      await wait(LONG_ENOUGH);
      expect(world.of('site.test').at(-1)).toMatchObject({ path: '/early', way: 'companion' });
      expect(victim.reachedBy('early')).toEqual([]);

      // Let, and taken back: from the next load on.
      popup = await journey.popup(page);
      await popup.letLocal(true);
      await popup.page.screenshot(pictures('local-network-on'));
      expect(readFileSync(companion.configFile, 'utf8')).toContain('site.test: { route: companion, local: true }');
      await attack(world.url('site.test', '/let'), 'let', page, true);
      await arrives('let', FEW);
      expect(world.of('site.test').at(-1)!.way).toBe('companion');
      await popup.letLocal(false);
      await attack(world.url('site.test', '/again'), 'again');
      // Nor does a page that is open gain by its site's going off.
      await popup.switchSite(false);
      await attackFrom(page, victim, 'plain.test', 'off-again');
      await wait(LONG_ENOUGH);
      // Once more for those of before: browsers hold WebSockets back for a while after some that failed.
      for (const tag of ['steered', 'steered-secure', 'early', 'again']) expect(victim.reachedBy(tag), tag).toEqual([]);
      // A new worker's script comes the direct way now, from what is this very machine here; in life it is public.
      expect(victim.reachedBy('off-again').filter(way => !way.includes('worker'))).toEqual([]);
    },
  );
}
