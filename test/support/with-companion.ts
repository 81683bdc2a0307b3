// The whole companion: in this process, or as the process that a person starts. Each has a file and a state folder of its own, and is gone afterwards.
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { WebSocket } from 'ws';
import { type Companion, startCompanion } from '../../companion/companion.ts';
import { runningCompanion } from '../../companion/control/state-folder.ts';
import { CODE_PREFIX, CONTROL_PATH, type CompanionMessage, SUBPROTOCOL, TOKEN_PREFIX } from '../../shared/control.ts';

/** Loopback may be reached, and *.test names lead there. */
export const TEST_CONFIG = `guard:
  allow: [127.0.0.0/8]
dns:
  hosts:
    origin.test: 127.0.0.1
    other.test: 127.0.0.1
`;
export const EXTENSION_ORIGIN = `chrome-extension://${'a'.repeat(32)}`;

export interface Place extends Disposable {
  readonly folder: string;
  readonly configFile: string;
  readonly stateFolder: string;
  readonly text: string;
}

/** A folder with a configuration file. */
export function makePlace(config = TEST_CONFIG): Place {
  const folder = mkdtempSync(path.join(tmpdir(), 'detour-companion-'));
  const configFile = path.join(folder, 'detour.yaml');
  writeFileSync(configFile, config, { mode: 0o600 });
  return {
    folder,
    configFile,
    stateFolder: path.join(folder, 'state'),
    get text() {
      return readFileSync(configFile, 'utf8');
    },
    [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true }),
  };
}

export interface TestCompanion extends AsyncDisposable {
  readonly companion: Companion;
  readonly place: Place;
  readonly port: number;
  /** What it said in the terminal. */
  readonly said: string[];
}

/** In this process, on a free port. With a place of its own unless one is given. */
export async function startTestCompanion(
  config = TEST_CONFIG,
  given?: Place,
  now?: () => number,
): Promise<TestCompanion> {
  const place = given ?? makePlace(config);
  const said: string[] = [];
  const companion = await startCompanion({
    configFile: place.configFile,
    stateFolder: place.stateFolder,
    port: 0,
    version: '0.1.0',
    say: message => said.push(message),
    now,
  });
  return {
    companion,
    place,
    port: companion.at.port,
    said,
    async [Symbol.asyncDispose]() {
      await companion.close();
      if (!given) place[Symbol.dispose]();
    },
  };
}

/** The token that the companion has left for the command line. */
export const cliToken = (running: TestCompanion): string => runningCompanion(running.place.stateFolder)!.token;

/** A client of the control link. */
export class TestLink implements AsyncDisposable {
  readonly heard: CompanionMessage[] = [];
  readonly socket: WebSocket;
  closedWith: number | null = null;
  private lastId = 0;

  private constructor(socket: WebSocket) {
    this.socket = socket;
    socket.on('message', data => this.heard.push(JSON.parse(String(data)) as CompanionMessage));
    socket.on('close', code => (this.closedWith = code));
    socket.on('error', () => {});
  }

  /** Resolves once the companion has said hello; rejects when it does not let in. */
  static async open(
    port: number,
    secret: string,
    origin?: string,
    headers: Record<string, string> = {},
  ): Promise<TestLink> {
    const socket = new WebSocket(`ws://127.0.0.1:${port}${CONTROL_PATH}`, [SUBPROTOCOL, secret], { origin, headers });
    const link = new TestLink(socket);
    await new Promise((resolve, reject) => {
      socket.once('message', resolve);
      socket.once('error', reject);
      // Between its opening and the hello the companion may be gone without an error.
      socket.once('close', code => reject(new Error(`closed (${code}) before the hello`)));
    });
    return link;
  }

  /** Pairs as an extension; gives back the link and its token. */
  static async pair(companion: Companion, origin = EXTENSION_ORIGIN): Promise<{ link: TestLink; token: string }> {
    const link = await TestLink.open(companion.at.port, CODE_PREFIX + companion.newCode().code, origin);
    const hello = link.heard[0]!;
    if (hello.type !== 'hello' || hello.token === undefined) throw new Error('no token');
    return { link, token: TOKEN_PREFIX + hello.token };
  }

  /** Asks and waits for the reply with its id. */
  async ask(message: { type: string; [more: string]: unknown }): Promise<CompanionMessage & { id: number }> {
    const id = ++this.lastId;
    this.socket.send(JSON.stringify({ ...message, id }));
    return (await this.until(heard => 'id' in heard && heard.id === id)) as CompanionMessage & { id: number };
  }

  /** The first message, heard already or still to come, that is meant. */
  async until(is: (message: CompanionMessage) => boolean, within = 5_000): Promise<CompanionMessage> {
    const end = Date.now() + within;
    for (;;) {
      const found = this.heard.find(is);
      if (found) return found;
      if (Date.now() > end)
        throw new Error(`not heard within ${within} ms: ${is}; heard ${JSON.stringify(this.heard).slice(0, 2_000)}`);
      await new Promise(resolve => setTimeout(resolve, 10));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.socket.readyState === WebSocket.CLOSED) return;
    const closed = new Promise(resolve => this.socket.once('close', resolve));
    this.socket.terminate();
    await closed;
  }
}

export interface Ran {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

/** Runs `detour` to its end. */
export function runDetour(
  args: readonly string[],
  place: Pick<Place, 'stateFolder'>,
  env: Record<string, string> = {},
  through: readonly string[] = [],
): Promise<Ran> {
  const running = spawnDetour(args, place, env, through);
  return running.ended;
}

export interface Running extends AsyncDisposable {
  readonly child: ChildProcess;
  readonly ended: Promise<Ran>;
  /** Waits until it printed something like this; gives back the match. */
  printed(pattern: RegExp): Promise<RegExpExecArray>;
  /** Waits until it complained like this. */
  complained(pattern: RegExp): Promise<RegExpExecArray>;
}

/** Runs `detour`, from its sources unless `program` says otherwise, as a process of its own; `through` is a command that runs the rest of its line. */
export function spawnDetour(
  args: readonly string[],
  place: Pick<Place, 'stateFolder'>,
  env: Record<string, string> = {},
  through: readonly string[] = [],
  program: readonly string[] = [process.execPath, path.resolve('companion/main.ts')],
): Running {
  const [first, ...line] = [...through, ...program, ...args];
  const child = spawn(first!, line, {
    env: { ...process.env, NO_COLOR: '1', DETOUR_STATE_DIR: place.stateFolder, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let out = '';
  let err = '';
  child.stdout!.on('data', (data: Buffer) => (out += data.toString()));
  child.stderr!.on('data', (data: Buffer) => (err += data.toString()));
  const ended = new Promise<Ran>(resolve => child.once('close', code => resolve({ code, out, err })));
  const waitFor = async (read: () => string, pattern: RegExp) => {
    for (let i = 0; i < 500; i++) {
      const found = pattern.exec(read());
      if (found) return found;
      if (child.exitCode !== null) break;
      await new Promise(resolve => setTimeout(resolve, 20));
    }
    const found = pattern.exec(read());
    if (found) return found;
    throw new Error(`detour ${args.join(' ')} never said ${pattern}:\n${out}\n${err}`);
  };
  return {
    child,
    ended,
    printed: pattern => waitFor(() => out, pattern),
    complained: pattern => waitFor(() => err, pattern),
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL');
      await ended;
    },
  };
}
