// The control port as web pages and other extensions find it: they learn nothing, and nothing changes, whatever they have got hold of.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect, test } from 'vitest';
import { type BrowserOptions, eventually, type TestBrowser, type TestPage } from './browsers/browser.ts';
import { type Journey, startJourney } from './journey.ts';
import { isNothing, knock, type Loot } from './knock.ts';

const STORY = 120_000;

interface Storage {
  storage: { local: { get(key: string): Promise<{ settings: { token: string } }> } };
}

/** The paired extension's key, as only somebody who has broken into the browser could read it. */
const keyOf = async (journey: Journey): Promise<string> => {
  const page = await journey.browser.newPage();
  await page.goto(`${journey.browser.extensionOrigin}/options.html`);
  const token = await page.evaluate(async () => {
    const { storage } =
      (globalThis as never as { browser?: Storage }).browser ?? (globalThis as never as { chrome: Storage }).chrome;
    return (await storage.local.get('settings')).settings.token;
  });
  await page.close();
  return token;
};

const opens = (page: TestPage, base: string, secret: string) =>
  page.evaluate(
    (url, protocols) =>
      new Promise<boolean>(resolve => {
        const socket = new WebSocket(url, protocols);
        socket.onopen = () => {
          socket.close();
          resolve(true);
        };
        socket.onclose = () => resolve(false);
      }),
    `${base.replace('http', 'ws')}/control`,
    ['detour.v1', secret],
  );

export function tellControlPlane(start: (options: BrowserOptions) => Promise<TestBrowser>): void {
  test(
    'A47, A48, A49, A50, A51, A52, A53, A54, A55: no page and no other extension learns of the control port or moves it, whatever key it holds',
    { timeout: STORY },
    async () => {
      // own.test leads the companion to itself; hidden.test is steered and may reach this machine.
      await using journey = await startJourney(
        start,
        {
          sites: '  site.test: companion\n  hidden.test: { route: companion, local: true }\n  own.test: companion\n',
          hosts: { 'own.test': '127.0.0.1' },
        },
        { prefs: { 'network.websocket.delay-failed-reconnects': false } },
      );
      const { world, browser, companion } = journey;
      const page = await browser.newPage();
      await journey.pairAndUse(page);
      const token = await keyOf(journey);
      const before = { file: readFileSync(companion.configFile, 'utf8'), clients: await companion.clients() };
      expect(before.clients).toMatchObject([{ connected: true }]);
      const loot: Loot = {
        base: `http://127.0.0.1:${companion.port}`,
        token,
        cliToken: companion.cliToken(),
        code: await companion.code(),
        guesses: 0,
      };
      const learntNothing = async (what: string, from: TestPage, more: Partial<Loot> = {}) => {
        const words = await knock(from, { ...loot, ...more });
        expect(Object.keys(words).length).toBeGreaterThan(15);
        expect(
          Object.entries(words).filter(([, word]) => !isNothing(word)),
          what,
        ).toEqual([]);
        return words;
      };

      // A page that is not steered, over http and https; one that is; and one that is and may reach this machine: that door is the companion's alone.
      await page.goto(world.url('other.test'));
      expect(await learntNothing('an unsteered page', page, { guesses: 6 })).toMatchObject({
        'A47 fetch no-cors': 'opaque',
      });
      await page.goto(world.secureUrl('other.test'));
      await learntNothing('an unsteered https page', page);
      await page.goto(world.url('site.test'));
      expect(await learntNothing('a steered page', page)).toMatchObject({ 'A47 fetch no-cors': 'failed' });
      await page.goto(world.url('hidden.test'));
      expect(await learntNothing('a steered page that was let', page)).toMatchObject({ 'A47 fetch no-cors': 'opaque' });
      // A48: a page's own name, turned to this machine.
      await page.goto(world.url('evil.test'));
      await learntNothing('a rebound name', page, { base: `http://evil.test:${companion.port}` });
      await page.goto(`http://evil.test:${companion.port}/`);
      expect(await page.evaluate(() => document.documentElement.outerHTML)).not.toMatch(/detour/i);
      // A55: through the proxy itself, in absolute-form and by CONNECT.
      await page.goto(world.url('own.test'));
      const through = await knock(page, { ...loot, base: `http://own.test:${companion.port}` });
      expect(Object.entries(through).filter(([name, word]) => /^A5[24]/.test(name) && !isNothing(word))).toEqual([]);
      const asked = (await companion.exchanges()).filter(exchange =>
        exchange.url.includes(`own.test:${companion.port}`),
      );
      expect(new Set(asked.map(exchange => exchange.kind))).toEqual(new Set(['http', 'connect']));
      for (const exchange of asked) expect(exchange.fault, exchange.url).toMatch(/loop_detected|prohibited/);

      // A53: another extension, which may ask anything of this machine.
      const folder = mkdtempSync(path.join(tmpdir(), 'detour-other-extension-'));
      try {
        const manifest =
          browser.name === 'firefox'
            ? { manifest_version: 2, permissions: ['<all_urls>'] }
            : { manifest_version: 3, host_permissions: ['<all_urls>'] };
        const gecko = { browser_specific_settings: { gecko: { id: 'other@detour.example' } } };
        writeFileSync(
          path.join(folder, 'manifest.json'),
          JSON.stringify({ name: 'Other', version: '1', ...manifest, ...(browser.name === 'firefox' ? gecko : {}) }),
        );
        writeFileSync(path.join(folder, 'page.html'), '<!doctype html><title>other</title><body></body>');
        const other = await browser.newPage();
        await other.goto(`${await browser.installOther(folder)}/page.html`);
        await eventually('the page is there', () => other.evaluate(() => document.title === 'other'));
        // Its own code it could be told by the person: then it would be a browser like any other.
        const words = await knock(other, { ...loot, code: '000000' === loot.code ? '111111' : '000000' });
        const bare =
          /^read 400 \[\["connection","close"\],\["content-length","0"\]\] ""$|^read 400 \[\["content-length","0"\]\] ""$/;
        expect(Object.entries(words).filter(([, word]) => !isNothing(word) && !bare.test(word))).toEqual([]);
        expect(words['A47 fetch']).toMatch(bare);
      } finally {
        rmSync(folder, { recursive: true, force: true });
      }

      // Nothing has changed, and nobody's link has ended.
      expect(readFileSync(companion.configFile, 'utf8')).toBe(before.file);
      expect(await companion.clients()).toEqual(before.clients);
      expect((await companion.exchanges()).map(exchange => exchange.host)).not.toContain('127.0.0.1');
      // To the extension itself the same key opens, and the code is as good as it was.
      const own = await browser.newPage();
      await own.goto(`${browser.extensionOrigin}/options.html`);
      for (const secret of [`token.${token}`, `code.${loot.code}`])
        expect(await opens(own, loot.base, secret), secret).toBe(true);
    },
  );
}
