// The stories in real Firefox, and its other way to steer: the companion's PAC in the proxy settings, with the listener as guard.
import { describe, expect, test } from 'vitest';
import { eventually } from './browsers/browser.ts';
import { FIREFOX, startFirefox } from './browsers/firefox.ts';
import { tellChains } from './chains.ts';
import { tellControlPlane } from './control-plane.ts';
import { tellCachedSite } from './cached-site.ts';
import { tellEdges } from './edges.ts';
import { tellLocalNetwork } from './local-network.ts';
import { type Journey, startJourney } from './journey.ts';
import { tellRouteEditor } from './route-editor.ts';
import { startsWithoutLeak, tellStories } from './stories.ts';

interface ProxySettingsApi {
  browser: {
    proxy: {
      settings: {
        get(details: object): Promise<{ value: { proxyType: string; autoConfigUrl?: string }; levelOfControl: string }>;
      };
    };
  };
}

const proxySetting = (page: { evaluate<R>(fn: () => R | Promise<R>): Promise<R> }) =>
  page.evaluate(async () => (await (globalThis as unknown as ProxySettingsApi).browser.proxy.settings.get({})).value);

async function choosePacMode(journey: Journey): Promise<void> {
  const options = await journey.browser.newPage();
  await options.goto(`${journey.browser.extensionOrigin}/options.html`);
  await eventually('PAC mode is offered', () =>
    options.evaluate(() => document.querySelector<HTMLButtonElement>('[data-testid=pac-mode]')?.disabled === false),
  );
  await options.click('[data-testid=pac-mode]');
  await eventually('PAC mode is on', () =>
    options.evaluate(() => document.querySelector('[data-testid=pac-mode]')?.getAttribute('aria-checked') === 'true'),
  );
  await eventually('the PAC is set', async () => (await proxySetting(options)).proxyType === 'autoConfig');
  await options.close();
}

describe.skipIf(!FIREFOX)('in Firefox', () => {
  tellStories(startFirefox);
  tellChains(startFirefox);
  tellEdges(startFirefox);
  tellCachedSite(startFirefox);
  tellControlPlane(startFirefox);
  tellLocalNetwork(startFirefox);
  tellRouteEditor(startFirefox);

  test('a browser started in PAC mode while the companion is down leaks nothing', { timeout: 120_000 }, async () => {
    await using journey = await startJourney(
      startFirefox,
      { sites: '  site.test: companion\n' },
      { privateWindows: true },
    );
    await startsWithoutLeak(journey, choosePacMode);
  });

  test('the master switch takes the PAC out of the proxy settings', { timeout: 120_000 }, async () => {
    await using journey = await startJourney(
      startFirefox,
      { sites: '  site.test: companion\n' },
      { privateWindows: true },
    );
    const page = await journey.browser.newPage();
    await journey.pairAndUse(page);
    await choosePacMode(journey);
    await page.goto(journey.world.url('site.test', '/steered'));
    const popup = await journey.popup(page);
    await popup.master(false);
    expect((await proxySetting(popup.page)).proxyType).not.toBe('autoConfig');
    await page.goto(journey.world.url('site.test', '/free'));
    expect(journey.world.of('site.test').map(seen => [seen.path, seen.way])).toEqual([
      ['/steered', 'companion'],
      ['/free', 'direct'],
    ]);
  });
});
