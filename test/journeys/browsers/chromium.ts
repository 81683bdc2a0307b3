// Real Chromium with the built extension, driven over the DevTools pipe. The profile is temporary and has its own trust store.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import puppeteer, { type Browser, type Page, type Target } from 'puppeteer-core';
import type { BrowserOptions, TestBrowser, TestPage } from './browser.ts';

export const CHROMIUM = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(existsSync);
export const CHROMIUM_EXTENSION = path.resolve('.output/chrome-mv3');

class ChromiumPage implements TestPage {
  readonly page: Page;
  /** Where it was sent last: an error page hides it. */
  asked = '';
  constructor(page: Page) {
    this.page = page;
  }
  async goto(url: string): Promise<string | null> {
    this.asked = url;
    try {
      await this.page.goto(url, { waitUntil: 'load', timeout: 15_000 });
      return null;
    } catch (error) {
      return (error as Error).message;
    }
  }
  evaluate<R, A extends unknown[]>(fn: (...args: A) => R | Promise<R>, ...args: A): Promise<R> {
    return this.page.evaluate(fn as never, ...(args as never)) as Promise<R>;
  }
  async click(selector: string): Promise<void> {
    // A tab in the background draws nothing, so nothing in it can be found to click on.
    await this.page.bringToFront();
    await (await this.page.waitForSelector(selector, { visible: true, timeout: 5_000 }))!.click();
  }
  async type(text: string): Promise<void> {
    await this.page.keyboard.type(text);
  }
  async press(key: string): Promise<void> {
    await this.page.keyboard.press(key as 'Enter');
  }
  async screenshot(file: string): Promise<void> {
    mkdirSync(path.dirname(file), { recursive: true });
    await this.page.screenshot({ path: file as `${string}.png` });
  }
  async prefer(scheme: 'light' | 'dark'): Promise<void> {
    await this.page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: scheme }]);
  }
  async run(script: string): Promise<void> {
    await this.page.evaluate(script);
  }
  async close(): Promise<void> {
    await this.page.close().catch(() => {});
  }
}

/** Starts Chromium with the extension from `.output/chrome-mv3`. */
export async function startChromium(options: BrowserOptions): Promise<TestBrowser> {
  if (!CHROMIUM) throw new Error('no Chromium on this machine');
  const home = mkdtempSync(path.join(tmpdir(), 'detour-chromium-'));
  const nss = path.join(home, '.pki/nssdb');
  mkdirSync(nss, { recursive: true });
  writeFileSync(path.join(home, 'ca.pem'), options.authority);
  execFileSync('certutil', ['-N', '-d', `sql:${nss}`, '--empty-password']);
  execFileSync('certutil', ['-A', '-d', `sql:${nss}`, '-n', 'test-ca', '-t', 'C,,', '-i', path.join(home, 'ca.pem')]);

  let program = CHROMIUM;
  if (options.within) {
    program = path.join(home, 'chromium');
    writeFileSync(program, `#!/bin/sh\nexec ${options.within.join(' ')} ${CHROMIUM} "$@"\n`, { mode: 0o700 });
  }
  let said = '';
  let browser!: Browser;
  let id = '';
  const isWorker = (t: Target) => t.type() === 'service_worker' && t.url().startsWith('chrome-extension://');
  const launch = async () => {
    browser = await puppeteer.launch({
      executablePath: program,
      headless: !options.visible,
      pipe: true,
      // A page that it opens as it starts may be one that does not load.
      waitForInitialPage: options.within === undefined,
      enableExtensions: true,
      userDataDir: path.join(home, 'profile'),
      env: { ...process.env, HOME: home },
      args: [
        '--no-sandbox',
        '--no-first-run',
        '--disable-quic',
        '--disable-background-networking',
        '--disable-component-update',
        '--disable-sync',
        '--disable-features=HttpsUpgrades',
        `--load-extension=${CHROMIUM_EXTENSION}`,
        `--host-resolver-rules=${options.directNames.map(name => `MAP ${name} 127.0.0.1`).join(', ')}`,
        ...(options.args ?? []),
      ],
    });
    browser.process()?.stderr?.on('data', (data: Buffer) => (said = (said + data.toString()).slice(-65_536)));
    const target = await browser.waitForTarget(isWorker, { timeout: 15_000 });
    id = new URL(target.url()).host;
    const worker = await target.worker();
    worker?.on('console', message => (said = `${said}worker: ${message.text()}\n`));
  };
  await launch();

  const inExtension = async <R, A extends unknown[]>(fn: (...args: A) => R | Promise<R>, ...args: A): Promise<R> => {
    const page = await browser.newPage();
    try {
      await page.goto(`chrome-extension://${id}/options.html`);
      return (await page.evaluate(fn as never, ...(args as never))) as R;
    } finally {
      await page.close();
    }
  };
  const tabIdOf = async (page: TestPage): Promise<number> => {
    const { page: tab, asked } = page as ChromiumPage;
    const url = tab.url().startsWith('chrome-error:') ? asked : tab.url();
    return inExtension(async wanted => {
      const chrome = (
        globalThis as never as {
          chrome: { tabs: { query(q: object): Promise<{ id: number; url: string; pendingUrl?: string }[]> } };
        }
      ).chrome;
      const tabs = await chrome.tabs.query({});
      const hit = tabs.find(t => t.url === wanted || t.pendingUrl === wanted);
      if (!hit) throw new Error(`no tab at ${wanted}: ${tabs.map(t => t.url).join(' ')}`);
      return hit.id;
    }, url);
  };

  return {
    name: 'chromium',
    get extensionOrigin() {
      return `chrome-extension://${id}`;
    },
    async newPage() {
      return new ChromiumPage(await browser.newPage());
    },
    async popupFor(page) {
      const tab = await tabIdOf(page);
      const popup = await browser.newPage();
      await popup.setViewport({ width: 380, height: 600 });
      await popup.goto(`chrome-extension://${id}/popup.html?tab=${tab}`);
      return new ChromiumPage(popup);
    },
    async pictureRealPopup(page, file) {
      const chromiumPage = (page as ChromiumPage).page;
      await chromiumPage.bringToFront();
      const extension = (await browser.extensions()).get(id)!;
      const opened = browser.waitForTarget(t => t.url().includes(`${id}/popup.html`), { timeout: 10_000 });
      await chromiumPage.triggerExtensionAction(extension);
      const popup = await (await opened).asPage();
      await popup.waitForSelector('[role=switch], form, main', { timeout: 5_000 });
      await new Promise(resolve => setTimeout(resolve, 400));
      mkdirSync(path.dirname(file), { recursive: true });
      await popup.screenshot({ path: file as `${string}.png` });
      const size = await popup.evaluate(() => ({ width: innerWidth, height: innerHeight }));
      await popup.close().catch(() => {});
      return size;
    },
    async iconTitle(page) {
      const tab = await tabIdOf(page);
      return inExtension(async tabId => {
        const chrome = (globalThis as never as { chrome: { action: { getTitle(q: object): Promise<string> } } }).chrome;
        return chrome.action.getTitle({ tabId });
      }, tab);
    },
    installOther: async folder => `chrome-extension://${await browser.installExtension(folder)}`,
    async sleepWorker() {
      const target = browser.targets().find(isWorker);
      await (await target?.worker())?.close();
      await new Promise(resolve => setTimeout(resolve, 200));
    },
    async clearCache() {
      const page = await browser.newPage();
      await (await page.createCDPSession()).send('Network.clearBrowserCache');
      await page.close();
    },
    log: () => said,
    async restart(whileDown) {
      await browser.close();
      await whileDown?.();
      await launch();
    },
    async [Symbol.asyncDispose]() {
      await browser.close().catch(() => {});
      browser.process()?.kill('SIGKILL');
      rmSync(home, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}
