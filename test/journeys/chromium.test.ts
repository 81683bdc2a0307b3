// The stories in real Chromium, and what only Chromium has: a PAC to set.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { describe, expect, test } from 'vitest';
import { compilePac } from '../../shared/decision/compile-pac.ts';
import { compileMatcher } from '../../shared/decision/decide.ts';
import { ruleTableOf } from '../../shared/decision/rule-table.ts';
import { makeHosts } from '../support/make-list.ts';
import { eventually } from './browsers/browser.ts';
import { CHROMIUM, startChromium } from './browsers/chromium.ts';
import { tellChains } from './chains.ts';
import { tellControlPlane } from './control-plane.ts';
import { tellCachedSite } from './cached-site.ts';
import { tellEdges } from './edges.ts';
import { attackFrom } from './attack.ts';
import { tellLocalNetwork } from './local-network.ts';
import { startJourney } from './journey.ts';
import { startVictim } from './victim.ts';
import { tellRouteEditor } from './route-editor.ts';
import { tellStories } from './stories.ts';

interface Axe {
  run(): Promise<{ violations: { id: string; impact: string; nodes: { html: string }[] }[] }>;
}
interface ProxyApi {
  proxy: { settings: { set(details: object): Promise<void>; clear(details: object): Promise<void> } };
}

describe.skipIf(!CHROMIUM)('in Chromium', () => {
  tellStories(startChromium);
  tellChains(startChromium);
  tellEdges(startChromium);
  tellCachedSite(startChromium);
  tellControlPlane(startChromium);
  tellLocalNetwork(startChromium);
  tellRouteEditor(startChromium);

  test('what was there before a site was steered reaches no further than it did: an open page, a stored service worker, a page whose site goes off', async () => {
    // The web counts as public, as it does in life; so the browser itself guards what is not steered.
    await using journey = await startJourney(startChromium, {}, world => ({
      args: [`--ip-address-space-overrides=127.0.0.1:${world.httpPort}=public,127.0.0.1:${world.httpsPort}=public`],
    }));
    const { world, browser } = journey;
    await using victim = await startVictim(world.authority, ['plain.test']);
    const page = await browser.newPage();
    await journey.pairAndUse(page);
    expect(await page.goto(world.secureUrl('site.test', '/unsteered'))).toBeNull();
    await attackFrom(page, victim, 'plain.test', 'unsteered');
    const script = 'onmessage=({data})=>{fetch(data,{mode:"no-cors"});new WebSocket(data.replace("http","ws")+"-ws")}';
    await page.evaluate(
      async code =>
        void (await navigator.serviceWorker.register(`/script.js?${encodeURIComponent(code)}`, { scope: '/stored/' })),
      script,
    );
    const askWorker = async (tag: string) =>
      eventually('the worker is asked', () =>
        page.evaluate(async url => {
          const worker = (await navigator.serviceWorker.getRegistration('/stored/'))?.active;
          worker?.postMessage(url);
          return worker !== null && worker !== undefined;
        }, `http://127.0.0.1:${victim.port}/${tag}/stored-worker`),
      );
    await askWorker('unsteered');
    const popup = await journey.popup(page);
    await popup.switchSite(true);
    await attackFrom(page, victim, 'plain.test', 'open');
    await askWorker('open');
    const second = await browser.newPage();
    expect(await second.goto(world.secureUrl('site.test', '/steered'))).toBeNull();
    expect(world.of('site.test').at(-1)?.way).toBe('companion');
    await attackFrom(second, victim, 'plain.test', 'steered');
    await askWorker('steered');
    await new Promise(resolve => setTimeout(resolve, 2_500));
    await popup.switchSite(false);
    await attackFrom(second, victim, 'plain.test', 'off-again');
    await new Promise(resolve => setTimeout(resolve, 1_500));
    for (const tag of ['unsteered', 'open', 'steered', 'off-again']) expect(victim.reachedBy(tag), tag).toEqual([]);
  });

  test('a PAC of 100,000 hosts is set in at most 200 ms', async () => {
    await using journey = await startJourney(startChromium);
    const action = { do: 'route', route: 'companion', filter: 'standard', cache: 'standard', inspect: false } as const;
    const entries = makeHosts(100_000).map((host, i) => ({ matcher: { kind: 'suffix' as const, host }, line: i + 1 }));
    const list = { id: 'lists[0]', name: 'big.txt', action, table: ruleTableOf(entries) };
    const pac = compilePac(compileMatcher({ rules: [], lists: [list] }), {
      host: '127.0.0.1',
      port: journey.companion.port,
    });
    const page = await journey.browser.newPage();
    await page.goto(`${journey.browser.extensionOrigin}/options.html`);
    const times = await page.evaluate(async data => {
      const { settings } = (globalThis as unknown as { chrome: ProxyApi }).chrome.proxy;
      const taken: number[] = [];
      for (let round = 0; round < 5; round++) {
        const before = performance.now();
        await settings.set({
          scope: 'regular',
          value: { mode: 'pac_script', pacScript: { data: `${data}// ${round}`, mandatory: true } },
        });
        taken.push(performance.now() - before);
      }
      return taken.sort((a, b) => a - b);
    }, pac);
    console.log(`PAC of ${pac.length} bytes set in ${times.map(time => time.toFixed(0)).join(', ')} ms`);
    expect(times[2]).toBeLessThanOrEqual(200);
    // It is the one that steers now.
    const steered = await journey.browser.newPage();
    expect(await steered.goto(`http://${entries[77_777]!.matcher.host}/`)).toBeNull();
    expect(await steered.evaluate(() => document.body.innerText)).toContain('could not be found');
  });

  test('the popup and the settings page have no fault that axe finds, in light and dark', async () => {
    await using journey = await startJourney(startChromium, {
      hops: '  office: socks5://me:secret@127.0.0.1:1\n  sec: { kind: https, host: sec.test, username: me }\n',
      routes: '  work: [[office, sec], [sec]]\n  smart: { chains: [work], pick: auto }\n',
      sites: '  site.test: companion\n',
    });
    const page = await journey.browser.newPage();
    await page.goto(journey.world.url('site.test'));
    const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
    const check = async (looked: typeof page, name: string) => {
      for (const scheme of ['light', 'dark'] as const) {
        await looked.prefer?.(scheme);
        await looked.run?.(axe);
        const { violations } = await looked.evaluate(() => (globalThis as unknown as { axe: Axe }).axe.run());
        expect(
          violations.map(found => [found.id, found.nodes.map(node => node.html)]),
          `${name}, ${scheme}`,
        ).toEqual([]);
        await looked.screenshot(journey.pictures(`${name}-${scheme}`));
      }
    };
    const popup = await journey.popup(page);
    await check(popup.page, 'axe-pair');
    await popup.pair(journey.companion);
    await check(popup.page, 'axe-use-these');
    await popup.useThese();
    await popup.linkIsUp();
    await check(popup.page, 'axe-main');
    const options = await journey.browser.newPage();
    await options.goto(`${journey.browser.extensionOrigin}/options.html`);
    const shown = (selector: string) =>
      eventually(`${selector} is shown`, () => options.evaluate(at => document.querySelector(at) !== null, selector));
    await shown('[data-testid=route-work]');
    await check(options, 'axe-options');
    // Open to be edited, with what a test found.
    await options.click('[data-testid=test-work]');
    await shown('[data-testid=bars]');
    await options.click('[data-testid=edit-work]');
    await options.click('[data-testid=hop-sec] header [aria-expanded]');
    await shown('[data-testid=hop-sec] form');
    await check(options, 'axe-editing');
    await options.click('[data-testid=by-form]');
    await shown('#new-hop-host');
    await check(options, 'axe-new-hop');
  });
});
