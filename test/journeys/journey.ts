// What every journey needs: the web, a companion of its own as a real process, a browser with the extension, and hands for the popup.
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { WebSocket } from 'ws';
import {
  type ClientInfo,
  CONTROL_PATH,
  type CompanionMessage,
  SUBPROTOCOL,
  TOKEN_PREFIX,
} from '../../shared/control.ts';
import type { CacheMode } from '../../shared/decision/rule.ts';
import type { Exchange } from '../../shared/exchange.ts';
import { type BrowserOptions, eventually, type TestBrowser, type TestPage } from './browsers/browser.ts';
import { hostsBy, NAMES, startWorld, type World } from './world.ts';

const COMPANION = path.resolve('.output/companion/detour.cjs');
/** Screenshots are kept here, by browser. */
const PICTURES = path.resolve('.artifacts/journeys');

/** Sections of the file, as indented YAML lines. */
export interface Sections {
  readonly hops?: string;
  readonly routes?: string;
  readonly sites?: string;
  readonly rules?: string;
  /** Names and where the companion finds them, beside those of the world. */
  readonly hosts?: Readonly<Record<string, string>>;
}

export interface Companion {
  readonly configFile: string;
  readonly port: number;
  /** A fresh pairing code. */
  code(): Promise<string>;
  /** Every exchange that it remembers of this run, open tunnels too. */
  exchanges(): Promise<Exchange[]>;
  /** Sends a signal and waits for its end. */
  kill(signal: NodeJS.Signals): Promise<void>;
  /** Sends a signal that does not end it. */
  signal(signal: NodeJS.Signals): void;
  /** Who is paired, and whether they have a link now. */
  clients(): Promise<readonly ClientInfo[]>;
  /** The key of the command line, as its file holds it. */
  cliToken(): string;
  /** Takes every pairing back. */
  unpairAll(): Promise<void>;
  /** On the same port, as after a crash. */
  startAgain(): Promise<void>;
}

export interface Journey extends AsyncDisposable {
  readonly world: World;
  readonly browser: TestBrowser;
  readonly companion: Companion;
  /** Where a picture of this browser is kept. */
  pictures(name: string): string;
  popup(page: TestPage): Promise<Popup>;
  /** Pairs in the popup and says "Use these". */
  pairAndUse(page: TestPage): Promise<void>;
}

/** Furnishes one journey. `options` go to the browser beside the names and the authority. */
export async function startJourney(
  start: (options: BrowserOptions) => Promise<TestBrowser>,
  sections: Sections = {},
  options: Partial<BrowserOptions> | ((world: World) => Partial<BrowserOptions>) = {},
): Promise<Journey> {
  await using opened = new AsyncDisposableStack();
  const world = opened.use(await startWorld());
  const companion = opened.use(await startCompanion(sections));
  const more = typeof options === 'function' ? options(world) : options;
  const browser = opened.use(await start({ directNames: NAMES, authority: world.authority.pem, ...more }));
  const kept = opened.move();
  const popup = async (page: TestPage) => new Popup(await browser.popupFor(page));
  return {
    world,
    browser,
    companion,
    pictures: name => path.join(PICTURES, browser.name, `${name}.png`),
    popup,
    async pairAndUse(page) {
      if ((await page.evaluate(() => location.href)) === 'about:blank')
        await page.goto(world.url('other.test', '/before-pairing'));
      const first = await popup(page);
      await first.pair(companion);
      await first.useThese();
      await first.linkIsUp();
      await first.page.close();
    },
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  };
}

async function startCompanion(sections: Sections): Promise<Companion & AsyncDisposable> {
  const folder = mkdtempSync(path.join(tmpdir(), 'detour-journey-'));
  const configFile = path.join(folder, 'detour.yaml');
  const section = (name: string, text: string | undefined) => (text === undefined ? '' : `${name}:\n${text}`);
  const hosts = Object.entries({ ...hostsBy('companion'), ...sections.hosts }).map(
    ([name, address]) => `    ${name}: ${address}\n`,
  );
  writeFileSync(
    configFile,
    `# The file of one journey.\n${section('hops', sections.hops)}${section('routes', sections.routes)}${section('sites', sections.sites)}` +
      `${section('rules', sections.rules)}guard:\n  allow: [127.0.0.0/8]\ndns:\n  hosts:\n${hosts.join('')}`,
    { mode: 0o600 },
  );
  const environment = { ...process.env, DETOUR_STATE_DIR: path.join(folder, 'state'), NO_COLOR: '1' };
  let child!: ChildProcess;
  let said = '';
  let port = 0;
  const launch = async () => {
    said = '';
    child = spawn(process.execPath, [COMPANION, 'start', '--config', configFile, '--port', String(port)], {
      env: environment,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    for (const stream of [child.stdout!, child.stderr!]) stream.on('data', (data: Buffer) => (said += data.toString()));
    port = Number(
      await eventually('the companion listens', () => {
        if (child.exitCode !== null) throw new Error(`the companion ended:\n${said}`);
        return /127\.0\.0\.1:(\d+)/.exec(said)?.[1];
      }),
    );
  };
  await launch();
  const kill = async (signal: NodeJS.Signals) => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise(resolve => child.once('exit', resolve));
    child.kill(signal);
    await gone;
  };
  return {
    configFile,
    get port() {
      return port;
    },
    async code() {
      const answers = await ask(folder, { type: 'pair', id: 1 }, message => message.type === 'code');
      const answer = answers.at(-1)!;
      if (answer.type !== 'code') throw new Error('no code');
      return answer.code;
    },
    async exchanges() {
      const answers = await ask(folder, { type: 'follow', id: 1, recent: 1_000 }, message => message.type === 'done');
      // What is remembered comes right behind the reply.
      const byId = new Map<number, Exchange>();
      for (const message of answers) if (message.type === 'exchange') byId.set(message.exchange.id, message.exchange);
      return [...byId.values()];
    },
    kill,
    signal: signal => void child.kill(signal),
    clients: () => clientsOf(folder),
    cliToken: () => runningIn(folder).token,
    async unpairAll() {
      for (const { name } of await clientsOf(folder))
        await ask(folder, { type: 'unpair', id: 2, name }, message => message.type === 'done');
    },
    startAgain: launch,
    async [Symbol.asyncDispose]() {
      await kill('SIGKILL');
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

async function clientsOf(folder: string): Promise<readonly ClientInfo[]> {
  const answer = (await ask(folder, { type: 'clients', id: 1 }, message => message.type === 'clients')).at(-1)!;
  if (answer.type !== 'clients') throw new Error('no clients');
  return answer.clients;
}

const runningIn = (folder: string) =>
  JSON.parse(readFileSync(path.join(folder, 'state', 'running.json'), 'utf8')) as { port: number; token: string };

/** Asks over the control link as the command line does; gives back all that came until (and shortly after) the answer. */
async function ask(
  folder: string,
  question: object,
  isAnswer: (message: CompanionMessage) => boolean,
): Promise<CompanionMessage[]> {
  const running = runningIn(folder);
  const ws = new WebSocket(`ws://127.0.0.1:${running.port}${CONTROL_PATH}`, [
    SUBPROTOCOL,
    `${TOKEN_PREFIX}${running.token}`,
  ]);
  const heard: CompanionMessage[] = [];
  try {
    ws.on('message', data => heard.push(JSON.parse(String(data)) as CompanionMessage));
    await new Promise((resolve, reject) => {
      ws.once('open', resolve);
      ws.once('error', reject);
    });
    ws.send(JSON.stringify(question));
    await eventually('the companion answers', () => heard.some(isAnswer));
    await new Promise(resolve => setTimeout(resolve, 150));
    return heard;
  } finally {
    ws.terminate();
  }
}

/** The popup as a person uses it. */
export class Popup {
  readonly page: TestPage;
  constructor(page: TestPage) {
    this.page = page;
  }

  async pair(companion: Companion): Promise<void> {
    const code = await companion.code();
    await this.has('code');
    await this.fill('port', String(companion.port));
    await this.fill('code', code);
    await this.click('pair');
    await this.has('use-these-button');
  }

  async useThese(): Promise<void> {
    await this.click('use-these-button');
    await this.has('site-switch');
  }

  async linkIsUp(): Promise<void> {
    await eventually('the link is up', async () => (await this.link()) === 'up');
  }

  /** not-found, not-paired, wrong-version, connecting or up. */
  link(): Promise<string> {
    return this.page.evaluate(() => document.querySelector('[data-testid=link]')?.getAttribute('data-state') ?? '');
  }

  async switchSite(on: boolean): Promise<void> {
    await this.flip('site-switch', on);
  }

  async master(on: boolean): Promise<void> {
    await this.flip('master', on);
  }

  /** Whether the site's pages may reach the local network. */
  async letLocal(on: boolean): Promise<void> {
    await this.flip('local-switch', on);
  }

  async chooseRoute(name: string): Promise<void> {
    await this.choose('route', name);
  }

  /** How the site's answers are cached. */
  async chooseCache(mode: CacheMode): Promise<void> {
    await this.choose('cache-mode', mode);
  }

  async clearCache(): Promise<void> {
    await this.click('clear-cache');
  }

  /** What it says of the site's cache. */
  cacheFigures(): Promise<string> {
    return this.page.evaluate(
      () => document.querySelector('[data-testid=cache-figures]')?.textContent.replaceAll(/\s+/g, ' ').trim() ?? '',
    );
  }

  private async choose(name: string, value: string): Promise<void> {
    await this.has(name);
    await eventually(`${value} is offered`, () =>
      this.page.evaluate(
        (which, wanted) => {
          const select = document.querySelector<HTMLSelectElement>(`[data-testid=${which}]`)!;
          if (![...select.options].some(option => option.value === wanted)) return false;
          select.value = wanted;
          select.dispatchEvent(new Event('change', { bubbles: true }));
          return true;
        },
        name,
        value,
      ),
    );
  }

  async counts(): Promise<{ requests: number; cached: number; blocked: number }> {
    return this.page.evaluate(() => {
      const read = (name: string) =>
        Number(document.querySelector(`[data-testid=count-${name}]`)?.textContent?.replace(/\D/g, '') ?? 0);
      return { requests: read('requests'), cached: read('cached'), blocked: read('blocked') };
    });
  }

  text(): Promise<string> {
    return this.page.evaluate(() => document.body.innerText);
  }

  private async has(name: string): Promise<void> {
    await eventually(`the popup shows ${name}`, () =>
      this.page.evaluate(wanted => document.querySelector(`[data-testid=${wanted}]`) !== null, name),
    ).catch(async (error: Error) => {
      throw new Error(`${error.message}\nThe popup says: ${await this.text()}`);
    });
  }

  private async click(name: string): Promise<void> {
    await this.has(name);
    await this.page.click(`[data-testid=${name}]`);
  }

  private async fill(name: string, text: string): Promise<void> {
    await this.page.evaluate(wanted => {
      const input = document.querySelector<HTMLInputElement>(`[data-testid=${wanted}]`)!;
      input.focus();
      input.select();
    }, name);
    await this.page.type(text);
  }

  private async flip(name: string, on: boolean): Promise<void> {
    await this.has(name);
    const is = () =>
      this.page.evaluate(
        wanted => document.querySelector(`[data-testid=${wanted}]`)?.getAttribute('aria-checked') === 'true',
        name,
      );
    await eventually(`${name} can be used`, () =>
      this.page.evaluate(
        wanted => !(document.querySelector(`[data-testid=${wanted}]`) as HTMLButtonElement).disabled,
        name,
      ),
    );
    if ((await is()) !== on) await this.page.click(`[data-testid=${name}]`);
    await eventually(`${name} is ${on ? 'on' : 'off'}`, async () => (await is()) === on);
    // On is only what the browser steers by already: the popup says so with aria-busy until then.
    await eventually(`${name} is in force`, () =>
      this.page.evaluate(
        wanted => document.querySelector(`[data-testid=${wanted}]`)?.getAttribute('aria-busy') !== 'true',
        name,
      ),
    );
  }
}

mkdirSync(PICTURES, { recursive: true });
