// Real Firefox with the built extension, driven over its native WebDriver BiDi. The profile is temporary and has its own trust store.
// The add-on is installed for good (as a zip), so that it is there from the first request when the browser starts again.
import { execFileSync, type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { WebSocket } from 'ws';
import type { BrowserOptions, TestBrowser, TestPage } from './browser.ts';
import { zipFolder } from './zip.ts';

export const FIREFOX = ['/usr/bin/firefox-esr', '/usr/bin/firefox'].find(existsSync);
export const FIREFOX_EXTENSION = path.resolve('.output/firefox-mv2');
const ADDON = 'detour@detour.example';
const UUID = '11111111-2222-4333-8444-555555555555';

const OTHER_UUID = '66666666-7777-4888-8999-aaaaaaaaaaaa';

type Send = (method: string, params?: object) => Promise<Record<string, never>>;

class FirefoxPage implements TestPage {
  readonly context: string;
  /** Where it was sent last: an error page hides it. */
  asked = '';
  private readonly send: Send;
  constructor(context: string, send: Send) {
    this.context = context;
    this.send = send;
  }
  async goto(url: string): Promise<string | null> {
    this.asked = url;
    const late = new Promise<string>(resolve => setTimeout(() => resolve('no load within 15 s'), 15_000).unref());
    try {
      const went = this.send('browsingContext.navigate', { context: this.context, url, wait: 'complete' }).then(
        () => null,
      );
      went.catch(() => {});
      return await Promise.race([went, late]);
    } catch (error) {
      return (error as Error).message;
    }
  }
  async evaluate<R, A extends unknown[]>(fn: (...args: A) => R | Promise<R>, ...args: A): Promise<R> {
    return evaluateIn(this.send, this.context, fn, args);
  }
  async click(selector: string): Promise<void> {
    const point = await this.evaluate(async wanted => {
      for (let tries = 0; tries < 100; tries++) {
        const found = document.querySelector(wanted);
        const box = found?.getBoundingClientRect();
        if (found && box && box.width > 0) {
          found.scrollIntoView({ block: 'center' });
          const at = found.getBoundingClientRect();
          // What is still being filled above it moves it away from under the pointer.
          await new Promise(resolve => setTimeout(resolve, 100));
          const then = found.getBoundingClientRect();
          if (!found.isConnected || then.x !== at.x || then.y !== at.y || then.width !== at.width) continue;
          return { x: Math.round(at.x + at.width / 2), y: Math.round(at.y + at.height / 2) };
        }
        await new Promise(resolve => setTimeout(resolve, 50));
      }
      throw new Error(`nothing visible at ${wanted}`);
    }, selector);
    await this.send('input.performActions', {
      context: this.context,
      actions: [
        {
          type: 'pointer',
          id: 'mouse',
          actions: [
            { type: 'pointerMove', ...point },
            { type: 'pointerDown', button: 0 },
            { type: 'pointerUp', button: 0 },
          ],
        },
      ],
    });
  }
  async type(text: string): Promise<void> {
    await this.keys([...text]);
  }
  async press(key: string): Promise<void> {
    await this.keys([{ Enter: '\uE007', Tab: '\uE004' }[key] ?? key]);
  }
  async screenshot(file: string): Promise<void> {
    mkdirSync(path.dirname(file), { recursive: true });
    const shot = (await this.send('browsingContext.captureScreenshot', { context: this.context })) as unknown as {
      data: string;
    };
    writeFileSync(file, Buffer.from(shot.data, 'base64'));
  }
  async close(): Promise<void> {
    await this.send('browsingContext.close', { context: this.context }).catch(() => {});
  }
  private async keys(values: string[]): Promise<void> {
    await this.send('input.performActions', {
      context: this.context,
      actions: [
        {
          type: 'key',
          id: 'keyboard',
          actions: values.flatMap(value => [
            { type: 'keyDown', value },
            { type: 'keyUp', value },
          ]),
        },
      ],
    });
  }
}

async function evaluateIn<R, A extends unknown[]>(
  send: Send,
  context: string,
  fn: (...args: A) => R | Promise<R>,
  args: A,
): Promise<R> {
  const answer = (await send('script.evaluate', {
    target: { context },
    awaitPromise: true,
    userActivation: true,
    expression: `(async () => JSON.stringify(await (${fn.toString()})(...${JSON.stringify(args)})))()`,
  })) as unknown as { type: string; result: { value?: string }; exceptionDetails?: { text: string } };
  if (answer.type === 'exception') throw new Error(answer.exceptionDetails?.text);
  return (answer.result.value === undefined ? undefined : JSON.parse(answer.result.value)) as R;
}

/** Starts Firefox with the extension from `.output/firefox-mv2`. */
export async function startFirefox(options: BrowserOptions): Promise<TestBrowser> {
  if (!FIREFOX) throw new Error('no Firefox on this machine');
  const home = mkdtempSync(path.join(tmpdir(), 'detour-firefox-'));
  const profile = path.join(home, 'profile');
  mkdirSync(profile);
  const prefs = {
    'extensions.webextensions.uuids': JSON.stringify({ [ADDON]: UUID, 'other@detour.example': OTHER_UUID }),
    'xpinstall.signatures.required': false,
    'devtools.console.stdout.content': true,
    'remote.prefs.recommended': true,
    'datareporting.policy.dataSubmissionEnabled': false,
    'app.normandy.enabled': false,
    'extensions.getAddons.cache.enabled': false,
    'network.captive-portal-service.enabled': false,
    'network.connectivity-service.enabled': false,
    'browser.aboutwelcome.enabled': false,
    'network.dns.localDomains': options.directNames.join(','),
    ...options.prefs,
  };
  writeFileSync(
    path.join(profile, 'user.js'),
    Object.entries(prefs)
      .map(([key, value]) => `user_pref(${JSON.stringify(key)}, ${JSON.stringify(value)});`)
      .join('\n'),
  );
  writeFileSync(path.join(home, 'ca.pem'), options.authority);
  execFileSync('certutil', ['-N', '-d', `sql:${profile}`, '--empty-password']);
  execFileSync('certutil', [
    '-A',
    '-d',
    `sql:${profile}`,
    '-n',
    'test-ca',
    '-t',
    'C,,',
    '-i',
    path.join(home, 'ca.pem'),
  ]);
  const xpi = path.join(home, 'detour.xpi');
  zipFolder(FIREFOX_EXTENSION, xpi);

  let said = '';
  let child!: ChildProcess;
  let send!: Send;
  const launch = async (...urls: string[]) => {
    child = spawn(
      FIREFOX,
      [
        ...(options.visible ? [] : ['--headless']),
        '--no-remote',
        '--profile',
        profile,
        '--remote-debugging-port=0',
        '--remote-allow-system-access',
        ...urls,
      ],
      {
        env: { ...process.env, HOME: home },
        stdio: ['ignore', 'pipe', 'pipe'],
      },
    );
    let heard = '';
    const url = await new Promise<string>((resolve, reject) => {
      const listen = (data: Buffer) => {
        heard += data.toString();
        said = (said + data.toString()).slice(-65_536);
        const match = /BiDi listening on (ws:\S+)/.exec(heard);
        if (match) resolve(match[1]!);
      };
      child.stdout!.on('data', listen);
      child.stderr!.on('data', listen);
      child.once('exit', code => reject(new Error(`firefox exited ${code}\n${heard}`)));
      setTimeout(() => reject(new Error(`firefox did not start within 30 s\n${heard}`)), 30_000).unref();
    });
    const ws = new WebSocket(`${url}/session`, { perMessageDeflate: false });
    await new Promise((resolve, reject) => {
      ws.once('open', resolve);
      ws.once('error', reject);
    });
    let count = 0;
    const waiting = new Map<number, { resolve: (value: never) => void; reject: (error: Error) => void }>();
    ws.on('message', data => {
      const message = JSON.parse(String(data)) as {
        id?: number;
        type: string;
        error?: string;
        message?: string;
        result?: never;
      };
      const asked = waiting.get(message.id ?? -1);
      if (!asked) return;
      waiting.delete(message.id!);
      if (message.type === 'error') asked.reject(new Error(`${message.error}: ${message.message}`));
      else asked.resolve(message.result!);
    });
    ws.on('close', () => {
      for (const { reject } of waiting.values()) reject(new Error('the browser is gone'));
    });
    send = (method, params = {}) =>
      new Promise((resolve, reject) => {
        waiting.set(++count, { resolve, reject });
        ws.send(JSON.stringify({ id: count, method, params }));
      });
    await send('session.new', { capabilities: {} });
  };
  const quit = async () => {
    const gone = new Promise(resolve => child.once('exit', resolve));
    await send('browser.close').catch(() => {});
    await Promise.race([gone, new Promise(resolve => setTimeout(resolve, 5_000))]);
    if (child.exitCode === null) child.kill('SIGKILL');
  };
  await launch('about:blank');
  await send('webExtension.install', {
    extensionData: { type: 'archivePath', path: xpi },
    'moz:permanent': true,
    'moz:allowPrivateBrowsing': options.privateWindows ?? false,
  });

  const origin = `moz-extension://${UUID}`;
  const open = async (url: string): Promise<FirefoxPage> => {
    const { context } = (await send('browsingContext.create', { type: 'tab' })) as unknown as { context: string };
    const page = new FirefoxPage(context, (method, params) => send(method, params));
    if (url !== 'about:blank') await page.goto(url);
    return page;
  };
  const inExtension = async <R, A extends unknown[]>(fn: (...args: A) => R | Promise<R>, ...args: A): Promise<R> => {
    const page = await open(`${origin}/options.html`);
    try {
      return await page.evaluate(fn, ...args);
    } finally {
      await page.close();
    }
  };
  const tabIdOf = async (page: TestPage): Promise<number> => {
    const wanted = await urlOf(page as FirefoxPage);
    return inExtension(async url => {
      const { browser } = globalThis as never as {
        browser: { tabs: { query(q: object): Promise<{ id: number; url: string }[]> } };
      };
      const tabs = await browser.tabs.query({});
      const hit = tabs.find(tab => tab.url === url);
      if (!hit) throw new Error(`no tab at ${url}: ${tabs.map(tab => tab.url).join(' ')}`);
      return hit.id;
    }, wanted);
  };
  const urlOf = async (page: FirefoxPage): Promise<string> => {
    const { contexts } = (await send('browsingContext.getTree', { root: page.context, maxDepth: 0 })) as unknown as {
      contexts: { url: string }[];
    };
    const { url } = contexts[0]!;
    return /^about:(neterror|certerror|proxy)/.test(url) || url === 'about:blank' ? page.asked || url : url;
  };

  return {
    name: 'firefox',
    extensionOrigin: origin,
    newPage: () => open('about:blank'),
    async popupFor(page) {
      const popup = await open(`${origin}/popup.html?tab=${await tabIdOf(page)}`);
      await send('browsingContext.setViewport', { context: popup.context, viewport: { width: 380, height: 600 } });
      return popup;
    },
    async pictureRealPopup(page, file) {
      const extension = await open(`${origin}/options.html`);
      await send('browsingContext.activate', { context: (page as FirefoxPage).context });
      await extension.evaluate(async () => {
        const { browser } = globalThis as never as { browser: { browserAction: { openPopup(): Promise<void> } } };
        await browser.browserAction.openPopup();
      });
      await new Promise(resolve => setTimeout(resolve, 900));
      const tree = (await send('browsingContext.getTree', { 'moz:scope': 'chrome' })) as unknown as {
        contexts: { context: string }[];
      };
      const shot = await evaluateIn(
        send,
        tree.contexts[0]!.context,
        async () => {
          const popup = document.querySelector('browser.webextension-popup-browser') as never as {
            clientWidth: number;
            clientHeight: number;
            browsingContext: {
              currentWindowGlobal: {
                drawSnapshot(rect: null, scale: number, background: string): Promise<ImageBitmap>;
              };
            };
          };
          const bitmap = await popup.browsingContext.currentWindowGlobal.drawSnapshot(null, 1, 'white');
          const canvas = document.createElementNS('http://www.w3.org/1999/xhtml', 'canvas') as HTMLCanvasElement;
          canvas.width = bitmap.width;
          canvas.height = bitmap.height;
          canvas.getContext('2d')!.drawImage(bitmap, 0, 0);
          return {
            width: popup.clientWidth,
            height: popup.clientHeight,
            png: canvas.toDataURL('image/png').split(',')[1]!,
          };
        },
        [],
      );
      mkdirSync(path.dirname(file), { recursive: true });
      writeFileSync(file, Buffer.from(shot.png, 'base64'));
      await extension.close();
      return { width: shot.width, height: shot.height };
    },
    async iconTitle(page) {
      return inExtension(
        async tabId => {
          const { browser } = globalThis as never as {
            browser: { browserAction: { getTitle(q: object): Promise<string> } };
          };
          return browser.browserAction.getTitle({ tabId });
        },
        await tabIdOf(page),
      );
    },
    async installOther(folder) {
      await send('webExtension.install', { extensionData: { type: 'path', path: folder } });
      return `moz-extension://${OTHER_UUID}`;
    },
    // An MV2 background page is persistent: there is nothing to put to sleep.
    sleepWorker: async () => {},
    async clearCache() {
      const tree = (await send('browsingContext.getTree', { 'moz:scope': 'chrome' })) as unknown as {
        contexts: { context: string }[];
      };
      await evaluateIn(
        send,
        tree.contexts[0]!.context,
        async () => {
          const { Services, Ci } = globalThis as never as {
            Services: { clearData: { deleteData(flags: number, done: { onDataDeleted(): void }): void } };
            Ci: { nsIClearDataService: { CLEAR_ALL_CACHES: number } };
          };
          await new Promise<void>(resolve =>
            Services.clearData.deleteData(Ci.nsIClearDataService.CLEAR_ALL_CACHES, { onDataDeleted: resolve }),
          );
        },
        [],
      );
    },
    log: () => said,
    async restart(whileDown) {
      await quit();
      await whileDown?.();
      await launch();
    },
    async [Symbol.asyncDispose]() {
      await quit();
      rmSync(home, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}
