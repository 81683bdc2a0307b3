// One soak: starts the far side, real proxies as hops, and the companion; lets the load in; looks once a second; and judges what is left at the end.
import { spawn } from 'node:child_process';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import path from 'node:path';
import { createInterface } from 'node:readline';
import type { Milliseconds } from '../../shared/units.ts';
import { havePeers, type Peer, startMicrosocks, startSquid, startTinyproxy } from '../support/peers.ts';
import { makePlace } from '../support/with-companion.ts';
import { cacheCrashRound } from './cache-crashes.ts';
import { crashRound } from './crashes.ts';
import { Load, type Tally } from './load.ts';
import { startFarSide } from './origin.ts';

export interface SoakOptions {
  /** How long the load goes on. */
  readonly seconds: number;
  /** Of the visitors' dice. */
  readonly seed: number;
  readonly say: (line: string) => void;
  /** So many companions are killed in the middle of their work beside it, and their files looked at (A93). */
  readonly crashes?: number;
  /** Processes that carry the traffic. With more than one, the heap is the companion's own alone; memory and files are those of all. */
  readonly workers?: number;
}

/** One look, once a second. */
export interface Look {
  /** Seconds since the load began; negative before it. */
  readonly at: number;
  readonly rss: number;
  /** After a full collection, as all of these. */
  readonly heapUsed: number;
  readonly external: number;
  readonly handles: Record<string, number>;
  /** Milliseconds of processor time in this second. */
  readonly cpu: number;
  readonly files: number;
  /** Connections that the origin sees. */
  readonly upstream: number;
  /** Answered in this second. */
  readonly answered: number;
}

export interface SoakReport {
  readonly looks: readonly Look[];
  readonly tallies: Record<string, Tally>;
  /** KiB a minute over the last two thirds, with their standard errors. */
  readonly heapSlope: Slope;
  readonly rssSlope: Slope;
  /** What is wrong; empty when nothing is. */
  readonly faults: readonly string[];
  readonly summary: string;
}

export interface Slope {
  readonly perMinute: number;
  readonly error: number;
}

/**
 * KiB a minute that the heap may seem to grow by. What is under way at a look makes some noise even at its lowest, and V8 goes on making machine code
 * of functions for a long time: in the first ten minutes some 100 KiB a minute (two heap snapshots differ in little else). A leak of 16 bytes a
 * request would be 330 at the 350 requests a second that this load makes.
 */
const HEAP_BOUND = 128;
/** The system's view is coarser: freed memory goes back late and in large pieces. */
const RSS_BOUND = 256;
/** Below so many seconds a slope says nothing: memory that is freed and taken again moves in steps of some MiB, minutes apart. */
const SLOPE_AFTER = 480;
/** After the load: longer than any idle timeout of the configuration below. */
const REST: Milliseconds = 9_000;
const NAMES = ['direct.test', 'squid.test', 'tinyproxy.test', 'microsocks.test', 'winding.test'];
/** Hops that together could take longer than a route may: such a route has a clock of its own. */
const WINDING = '[[squid, tinyproxy], [squid, tinyproxy], [microsocks]]';

export async function runSoak({ seconds, seed, say, crashes = 0, workers = 1 }: SoakOptions): Promise<SoakReport> {
  await using stack = new AsyncDisposableStack();
  const far = stack.use(await startFarSide());
  const peers: Peer[] = [];
  const hosts = Object.fromEntries(NAMES.map(name => [name, '127.0.0.1']));
  for (const start of [startSquid, startTinyproxy, startMicrosocks]) {
    const name = start.name.slice('start'.length).toLowerCase() as 'squid' | 'tinyproxy' | 'microsocks';
    if (havePeers(name)) peers.push(stack.use(await start({ hosts })));
  }
  const configOf = (turn: number) => configText(turn, peers, workers);
  const place = stack.use(makePlace(configOf(0)));
  const companion = await startCompanion(place);
  stack.defer(() => companion.kill());
  say(`seed ${seed}; companion ${companion.pid} on ${companion.port}; hops: ${peers.map(one => one.name).join(', ')}`);

  const load = new Load({
    port: companion.port,
    place,
    far,
    hosts: ['direct.test', ...peers.map(one => `${one.name}.test`), ...(peers.length === 3 ? ['winding.test'] : [])],
    configOf,
    random: diceOf(seed),
  });
  const looks: Look[] = [];
  let began = 0;
  companion.onLook(inside => {
    const { total } = load;
    const before = looks.at(-1);
    const look: Look = {
      at: began === 0 ? -1 : (performance.now() - began) / 1000,
      ...inside,
      rss: companion.memory(),
      cpu: inside.cpu - cpuBefore,
      files: companion.files(),
      upstream: far.open,
      answered: total.answered - answeredBefore,
    };
    cpuBefore = inside.cpu;
    answeredBefore = total.answered;
    if (before !== undefined || began === 0) looks.push(look);
  });
  let cpuBefore = 0;
  let answeredBefore = 0;

  // Everything that is opened at its first use, like the log, is open before the first look that counts.
  await load.warmUp();
  await sleep(REST);
  await until(() => looks.length >= 4, 20_000, 'the first looks');
  const base = looks.at(-1)!;
  const filesBefore = companion.openFiles();
  began = performance.now();
  load.start();
  const faults: string[] = [];
  let said = 0;
  while (performance.now() - began < seconds * 1000) {
    await sleep(1_000);
    if (companion.exit() !== null) break;
    if (performance.now() - said < 10_000) continue;
    said = performance.now();
    say(lineOf(looks.at(-1)!, load));
  }
  const home = await Promise.race([load.stop().then(() => true), sleep(60_000).then(() => false)]);
  if (!home) faults.push('visitors did not come home');
  const loaded = looks.filter(look => look.at >= 0 && look.at <= seconds);
  say('the load has ended; waiting for idle timeouts');
  await sleep(REST);
  const count = looks.length;
  await until(() => looks.length >= count + 2 || companion.exit() !== null, 10_000, 'the last looks');
  const end = looks.at(-1)!;
  const filesLeft = companion
    .openFiles()
    .filter(file => !filesBefore.includes(file))
    .join(', ');
  const code = await companion.stop();

  for (let round = 1; round <= crashes; round++) {
    faults.push(...(await crashRound(seed + round)).map(fault => `crash ${round}: ${fault}`));
    faults.push(...(await cacheCrashRound(seed + round)).faults.map(fault => `crash ${round}, cache: ${fault}`));
    if (round % 10 === 0) say(`${round} of ${crashes} companions killed`);
  }

  const { total, tallies, complaints, retried } = load;
  const third = loaded.slice(Math.floor(loaded.length / 3));
  const heapSlope = slopeOf(lowsOf(third, look => look.heapUsed + look.external));
  const rssSlope = slopeOf(lowsOf(third, look => look.rss));
  const isWrong = (wrong: boolean, text: string) => {
    if (wrong) faults.push(text);
  };
  isWrong(total.unanswered > 0, `${total.unanswered} requests were not answered`);
  isWrong(total.wrong > 0, `${total.wrong} answers were not what they must be`);
  isWrong(total.answered === 0, 'nothing was answered');
  isWrong(end.files > base.files, `${end.files} files are open, ${base.files} were (${filesLeft})`);
  const handlesLeft = differences(base.handles, end.handles);
  isWrong(handlesLeft !== '', `handles are left: ${handlesLeft}`);
  isWrong(end.upstream > 0, `${end.upstream} connections to the origin are left`);
  if (seconds >= SLOPE_AFTER) {
    isWrong(heapSlope.perMinute - 2 * heapSlope.error > HEAP_BOUND, `the heap grows: ${textOf(heapSlope)}`);
    isWrong(rssSlope.perMinute - 2 * rssSlope.error > RSS_BOUND, `memory grows: ${textOf(rssSlope)}`);
  }
  isWrong(code !== 0, `the companion ended with ${code}`);
  isWrong(companion.complaints() !== '', `the companion complained: ${companion.complaints()}`);

  const rows = Object.entries(tallies).map(([kind, one]) =>
    [kind.padEnd(16), one.started, one.answered, one.brokenOff, one.unanswered, one.wrong].join('\t'),
  );
  const summary = [
    ['kind'.padEnd(16), 'started', 'answered', 'broken', 'unansw.', 'wrong'].join('\t'),
    ...rows,
    '',
    `retried on a fresh connection: ${retried}`,
    `files: ${base.files} before, ${end.files} after, ${Math.max(...looks.map(look => look.files))} at most`,
    `handles before: ${sayHandles(base.handles)}; after: ${sayHandles(end.handles)}`,
    `heap + external: ${mib(base.heapUsed + base.external)} before, ${mib(end.heapUsed + end.external)} after; slope ${textOf(heapSlope)}`,
    `memory (RSS): ${mib(base.rss)} before, ${mib(end.rss)} after; slope ${textOf(rssSlope)}`,
    `processor: ${Math.round(mean(loaded.map(look => look.cpu)) / 10)} % of one`,
    ...complaints.map(text => `  ! ${text}`),
    faults.length === 0 ? 'All is well.' : `NOT WELL: ${faults.join('; ')}`,
  ].join('\n');
  return { looks, tallies, heapSlope, rssSlope, faults, summary };
}

function configText(turn: number, peers: readonly Peer[], workers: number): string {
  // Every seventh is not in order, and the last good one stays in force.
  if (turn % 7 === 6) return 'hops: [\n';
  const hops = peers.map(peer => `  ${peer.name}: ${peer.url}\n`).join('');
  const routes = peers.map(peer => `  ${peer.name}: [[${peer.name}]]\n`).join('');
  const sites = peers.map(peer => `  ${peer.name}.test: ${peer.name}\n`).join('');
  const winding = peers.length === 3;
  // Every third changes what hops mean, so that kept connections are let go.
  const more = turn % 3 === 2 ? '  spare: http://192.0.2.1:3128\n' : '';
  return `# turn ${turn}
hops:
${hops}${more}routes:
${routes}${winding ? `  winding: ${WINDING}\n` : ''}sites:
  direct.test: companion
${sites}${winding ? '  winding.test: winding\n' : ''}rules:
  - { host: blocked-${turn % 50}.test, block: true }
guard:
  allow: [127.0.0.0/8]
dns:
  hosts: { direct.test: 127.0.0.1 }
cache: { memory: 4MiB }
log: { file: soak.log, size: 1MiB, keep: 2, recent: 500 }
workers: ${workers}
limits:
  connections: 400
  headTimeout: 5
  idleTimeout: 5
  bodyTimeout: 6
  poolIdleTimeout: 3
  tunnelIdleTimeout: 20
  drainTimeout: 3
`;
}

interface Inside {
  readonly rss: number;
  readonly heapUsed: number;
  readonly external: number;
  readonly handles: Record<string, number>;
  readonly cpu: number;
}

async function startCompanion(place: { readonly configFile: string; readonly stateFolder: string }) {
  const child = spawn(
    process.execPath,
    [
      '--max-semi-space-size=8',
      '--single-threaded-gc',
      '--import',
      path.resolve('test/soak/inside.ts'),
      path.resolve('companion/main.ts'),
      'start',
      '--config',
      place.configFile,
      '--port',
      '0',
    ],
    {
      env: { ...process.env, NO_COLOR: '1', DETOUR_STATE_DIR: place.stateFolder },
      stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
    },
  );
  let out = '';
  let err = '';
  child.stdout!.on('data', (data: Buffer) => (out += data.toString()));
  child.stderr!.on('data', (data: Buffer) => (err = (err + data.toString()).slice(-100_000)));
  const ended = new Promise<number | null>(resolve => child.once('close', code => resolve(code)));
  await until(() => /listens on/.test(out) || child.exitCode !== null, 20_000, 'the companion');
  const port = Number(/listens on [^ \n]*:(\d+)/.exec(out)?.[1]);
  if (!(port > 0)) throw new Error(`the companion did not start: ${out}${err}`);
  const looks = createInterface(child.stdio[3] as NodeJS.ReadableStream);
  return {
    pid: child.pid!,
    port,
    onLook: (hear: (inside: Inside) => void) => void looks.on('line', line => hear(JSON.parse(line) as Inside)),
    files: () => sumOf(child.pid!, pid => readdirSync(`/proc/${pid}/fd`).length),
    memory: () =>
      sumOf(child.pid!, pid => Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) * 1024),
    /** What they are: paths, `socket:[inode]` and the like. */
    openFiles: () =>
      readdirSync(`/proc/${child.pid}/fd`).map(fd => {
        try {
          return readlinkSync(`/proc/${child.pid}/fd/${fd}`);
        } catch {
          return 'gone';
        }
      }),
    exit: () => child.exitCode,
    /** What it said that it should not have had to: anything but the news of a bad file, of the bounds that are tried, and of its end. */
    complaints: () =>
      err
        .split('\n')
        .filter(
          line => line.includes('(node:') || line.includes('detour:') || /^\s+at |Error|Warning/.test(line.trimEnd()),
        )
        .join('\n'),
    async stop(): Promise<number | null> {
      child.kill('SIGTERM');
      return Promise.race([ended, sleep(10_000).then(() => null)]);
    },
    async kill() {
      child.kill('SIGKILL');
      await ended;
    },
  };
}

/** A figure of a process and of its children, if they are still there. */
function sumOf(pid: number, figure: (pid: number) => number): number {
  try {
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number);
    return [pid, ...children].reduce((sum, one) => sum + figure(one), 0);
  } catch {
    return 0;
  }
}

function lineOf(look: Look, load: Load): string {
  const { started, answered, brokenOff, unanswered, wrong } = load.total;
  return [
    `${look.at.toFixed(0).padStart(5)} s`,
    `rss ${mib(look.rss)}`,
    `heap ${mib(look.heapUsed)}`,
    `ext ${mib(look.external)}`,
    `files ${look.files}`,
    `up ${look.upstream}`,
    `cpu ${Math.round(look.cpu / 10)} %`,
    `${look.answered}/s`,
    `started ${started}, answered ${answered}, broken off ${brokenOff}, unanswered ${unanswered}, wrong ${wrong}`,
  ].join('  ');
}

/** What is under way at a look only ever adds to what is kept: of every ten looks the lowest is the truest. Minutes and KiB. */
function lowsOf(looks: readonly Look[], value: (look: Look) => number): [number, number][] {
  const lows: [number, number][] = [];
  for (let i = 0; i + 10 <= looks.length; i += 10) {
    let low = looks[i]!;
    for (const look of looks.slice(i, i + 10)) if (value(look) < value(low)) low = look;
    lows.push([low.at / 60, value(low) / 1024]);
  }
  return lows;
}

/** Least squares of y over x, and the standard error of the slope. */
function slopeOf(points: readonly (readonly [x: number, y: number])[]): Slope {
  const n = points.length;
  const meanX = mean(points.map(([x]) => x));
  const meanY = mean(points.map(([, y]) => y));
  let xx = 0;
  let xy = 0;
  for (const [x, y] of points) {
    xx += (x - meanX) ** 2;
    xy += (x - meanX) * (y - meanY);
  }
  if (n < 3 || xx === 0) return { perMinute: 0, error: Infinity };
  const perMinute = xy / xx;
  let rest = 0;
  for (const [x, y] of points) rest += (y - meanY - perMinute * (x - meanX)) ** 2;
  return { perMinute, error: Math.sqrt(rest / (n - 2) / xx) };
}

const mean = (values: readonly number[]) => values.reduce((sum, one) => sum + one, 0) / Math.max(1, values.length);
const mib = (bytes: number) => `${(bytes / 1024 / 1024).toFixed(1)} MiB`;
const textOf = ({ perMinute, error }: Slope) => `${perMinute.toFixed(1)} ± ${error.toFixed(1)} KiB/min`;
const sleep = (time: Milliseconds) => new Promise<void>(resolve => setTimeout(resolve, time));
const sayHandles = (handles: Record<string, number>) =>
  Object.entries(handles)
    .map(([kind, count]) => `${kind} ${count}`)
    .join(', ');

function differences(before: Record<string, number>, after: Record<string, number>): string {
  return Object.entries(after)
    .filter(([kind, count]) => count > (before[kind] ?? 0))
    .map(([kind, count]) => `${kind} ${before[kind] ?? 0} → ${count}`)
    .join(', ');
}

async function until(ready: () => boolean, within: Milliseconds, what: string): Promise<void> {
  const end = performance.now() + within;
  while (!ready()) {
    if (performance.now() > end) throw new Error(`${what} did not come`);
    await sleep(20);
  }
}

/** Dice that fall the same way for the same seed (mulberry32). */
function diceOf(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}
