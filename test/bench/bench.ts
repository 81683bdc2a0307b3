// `npm run bench`: the companion beside the proxies of others and beside what Node itself costs, in one run, in turns. Proxies have one core to
// themselves, load and origin the other. What is compared is CPU time per operation first: on a shared machine that holds still where rates do not.
// What the options do and the rows mean: docs/bench.md.
import { execFileSync } from 'node:child_process';
import { Agent, request } from 'node:http';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { BENCH_PEERS, ensurePeers, findProgram } from '../support/ensure-peers.ts';
import { directWay, type Load, type Measure, measuresOf, tunnelOrder, type Way } from './measures.ts';
import { plotPage } from './plot.ts';
import {
  ask,
  LOAD_CORE,
  type OriginCounts,
  type OriginPorts,
  type Parent,
  parentOf,
  type Running,
  spawnPinned,
  startProxy,
  type Subject,
  takenOfProxyCore,
} from './proxies.ts';
import { median, reportText, round3, rowsOf, type Sample } from './report.ts';
import { subjects } from './subjects.ts';

const { values: options } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    json: { type: 'string' },
    plot: { type: 'string' },
    rounds: { type: 'string' },
    only: { type: 'string' },
    measures: { type: 'string' },
    seconds: { type: 'string' },
    companion: { type: 'string' },
    'node-options': { type: 'string', default: '' },
    'with-owner': { type: 'boolean', default: false },
  },
});
const { quick } = options;
const rounds = Number(options.rounds ?? (quick ? 1 : 9));
/** How long a sample of two seconds takes. */
const scale = Number(options.seconds ?? (quick ? 0.5 : 2)) / 2;
/** What guard.owner costs is seen where connections are made; elsewhere it does nothing. */
const OWNER_MEASURE = 'connect-latency';
const QUICK_SUBJECTS = ['detour', 'squid', 'trafficserver', 'wall'];
const MEMORY_ROUNDS = Math.ceil(rounds / 3);
const IDLE_TUNNELS = 2000;
/** Answers of 1 KiB that are kept at once, and the room for them. */
const KEPT = 100_000;
const KEPT_MIB = 1_024;
const CONNECTIONS = 16;
const MOST_MINUTES = 30;
/** Of the time for all, what parents, memory and starts need; and what the last two alone do. */
const MINUTES_FOR_REST = 10;
const MINUTES_FOR_LAST = 3;
/** More than this share of the proxies' core for others, and the run says so. */
const MOST_OF_OTHERS = 0.05;
/** So few errors are the load's own: connections cut at its end. */
const ERRORS_ALLOWED = 0.001;

const ORIGIN = fileURLToPath(new URL('./origin.ts', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'detour-bench-'));
const running = new Set<{ stop(): unknown }>();
const began = performance.now();
const minutes = () => (performance.now() - began) / 60_000;
const say = (text: string) => void process.stderr.write(text);
const pause = (milliseconds: number) => new Promise(resolve => setTimeout(resolve, milliseconds));
const samples = new Map<string, Map<string, Sample[]>>();
let ended = false;

function keep(measure: string, subject: string, sample: Sample): void {
  let bySubject = samples.get(measure);
  if (bySubject === undefined) samples.set(measure, (bySubject = new Map<string, Sample[]>()));
  bySubject.set(subject, [...(bySubject.get(subject) ?? []), sample]);
}

async function main(): Promise<void> {
  const chosen = await chooseSubjects();
  const wanted = options.measures?.split(',');
  const isWanted = (name: string) => wanted === undefined || wanted.includes(name);
  chmodSync(folder, 0o755);
  execFileSync('taskset', ['-a', '-p', '-c', LOAD_CORE, String(process.pid)], { stdio: 'ignore' });
  const origin = await startOrigin();
  const measures = measuresOf(origin, folder).filter(one => isWanted(one.name));

  say(`${chosen.map(one => one.name).join(', ')}\n${rounds} rounds\n`);
  for (const kind of [null, 'http', 'socks5', 'fallback'] as const) {
    const now = measures.filter(({ through }) => (through === 'http-connect' ? 'http' : through) === kind);
    const able = chosen.filter(one => now.some(measure => canDo(one, measure)));
    if (able.length > 0) await sampleInTurns(able, now, origin, kind === null ? null : parentOf(kind, origin));
  }
  const others = chosen.filter(takesPartInAll);
  if (isWanted('start')) await sampleStarts(others, origin);
  if (isWanted('memory')) await sampleMemory(others, origin);
  if (isWanted('kept-memory') && !quick) await sampleKept(others, origin);

  const rows = rowsOf(samples, chosen);
  const about = aboutRun();
  process.stdout.write(`\n${reportText(rows, samples, chosen)}\n\n${about} It took ${minutes().toFixed(1)} minutes.\n`);
  if (options.json !== undefined) {
    const figures = {
      at: new Date().toISOString(),
      machine: { cpu: cpus()[0]?.model, cores: cpus().length, node: process.version },
      rounds,
      minutes: minutes(),
      rows: rows.map(row => ({
        ...row,
        medians: Object.fromEntries(row.medians),
        rounds: Object.fromEntries(row.rounds),
        broken: Object.fromEntries(row.broken),
      })),
      samples: Object.fromEntries([...samples].map(([measure, bySubject]) => [measure, Object.fromEntries(bySubject)])),
    };
    writeFileSync(options.json, `${JSON.stringify(figures, null, 2)}\n`);
    say(`figures: ${options.json}\n`);
  }
  if (options.plot !== undefined) {
    writeFileSync(options.plot, plotPage(rows, chosen, about));
    say(`plot: ${options.plot}\n`);
  }
  if (rows.some(row => row.broken.size > 0)) process.exitCode = 1;
}

/** What these figures are, and whether the machine was quiet enough for them. */
function aboutRun(): string {
  const others = [...samples.values()].flatMap(bySubject =>
    [...bySubject.values()]
      .flat()
      .flatMap(({ figures }) => (figures['others'] === undefined ? [] : [figures['others']])),
  );
  const share = others.length === 0 ? 0 : median(others);
  const loud =
    share > MOST_OF_OTHERS
      ? ` NOT TO BE RELIED ON: other programs took ${Math.round(share * 100)} % of the proxies' core meanwhile.`
      : '';
  return `Medians of ${rounds} round${rounds === 1 ? '' : 's'}. Node ${process.version}, ${cpus()[0]?.model}, ${new Date().toISOString().slice(0, 16)}Z.${loud}`;
}

async function chooseSubjects(): Promise<Subject[]> {
  if (availableParallelism() < 2) throw new Error('the bench needs two cores: one for the proxies, one for the load');
  await ensurePeers(BENCH_PEERS, 300_000);
  const tools = { wrk: 'wrk', taskset: 'util-linux', prlimit: 'util-linux', setpriv: 'util-linux' };
  for (const [tool, debian] of Object.entries(tools)) {
    if (findProgram(tool) === undefined)
      throw new Error(`${tool} is not installed (on Debian: apt-get install ${debian})`);
  }
  const all = subjects({
    companion: options.companion?.split(' ') ?? null,
    nodeOptions: options['node-options'].split(' ').filter(Boolean),
    withOwner: options['with-owner'] || (!quick && options.only === undefined),
  });
  const only = options.only?.split(',') ?? (quick ? QUICK_SUBJECTS : undefined);
  const unknown = only?.find(name => !all.some(one => one.name === name));
  if (unknown !== undefined)
    throw new Error(`there is no "${unknown}" to measure; there are ${all.map(one => one.name).join(', ')}`);
  for (const { name, missing } of all) if (missing !== null) say(`without ${name}: ${missing}\n`);
  return all.filter(one => one.missing === null && (only === undefined || only.includes(one.name)));
}

const canDo = ({ skills }: Subject, { through }: Measure) => through === null || skills.includes(through);
const takesPartInAll = ({ name }: Subject) => name !== 'detour+owner' || options['with-owner'];

async function startOrigin(): Promise<OriginPorts> {
  const child = spawnPinned(LOAD_CORE, process.execPath, [ORIGIN], ['ignore', 'pipe', 'inherit']);
  running.add({ stop: () => child.kill() });
  const line = await new Promise<string>((resolve, reject) => {
    child.stdout!.once('data', chunk => resolve(String(chunk)));
    child.once('exit', () => reject(new Error('the origin did not start')));
  });
  return JSON.parse(line) as OriginPorts;
}

async function start(
  subject: Subject,
  origin: OriginPorts,
  parent: Parent | null = null,
  cacheMiB?: number,
): Promise<Running> {
  const proxy = await startProxy(subject, folder, origin, parent, cacheMiB);
  running.add(proxy);
  if (ended) throw new Error('stopped');
  return proxy;
}

async function stop(proxy: Running): Promise<void> {
  running.delete(proxy);
  await proxy.stop();
}

/** All subjects at once, one loaded at a time; every measure of a round in turn. */
async function sampleInTurns(
  chosen: readonly Subject[],
  measures: readonly Measure[],
  origin: OriginPorts,
  parent: Parent | null,
): Promise<void> {
  const proxies = new Map<string, Running>();
  for (const subject of chosen) proxies.set(subject.name, await start(subject, origin, parent));
  const takesPart = (measure: Measure) => [
    ...(measure.direct ? ['direct'] : []),
    ...chosen
      .filter(
        one =>
          canDo(one, measure) &&
          (one.caches || !measure.caching) &&
          (takesPartInAll(one) || measure.name === OWNER_MEASURE),
      )
      .map(one => one.name),
  ];
  const direct = directWay(origin);

  say('warming up');
  for (const measure of measures) {
    for (const name of takesPart(measure)) {
      const proxy = proxies.get(name);
      if (proxy === undefined) continue;
      say('.');
      if (measure.caching) await settleHit(proxy, measure.path!, measure.urls!);
      if (!quick) await measure.run(wayOf(proxy), measure.seconds * scale * 0.5).catch(() => {});
    }
  }
  say('\n');
  const firstRoundAt = minutes();
  for (let round = 0; round < rounds; round++) {
    const each = (minutes() - firstRoundAt) / Math.max(1, round);
    if (minutes() + each > MOST_MINUTES - (parent === null ? MINUTES_FOR_REST : MINUTES_FOR_LAST)) {
      say(`stopped after ${round} rounds: more would take over ${MOST_MINUTES} minutes\n`);
      break;
    }
    for (const measure of measures) {
      say(`round ${round + 1} of ${rounds}, ${measure.name.padEnd(15)}`);
      const names = takesPart(measure);
      // Nobody always comes first.
      for (let i = 0; i < names.length; i++) {
        const name = names[(i + round) % names.length]!;
        const proxy = proxies.get(name) ?? null;
        const sample = await sampleOf(measure, proxy === null ? direct : wayOf(proxy), proxy, origin);
        keep(measure.name, name, sample);
        const value = measure.direct ? sample.figures['p50'] : sample.figures['rate'];
        say(
          ` ${name} ${value === undefined ? '' : round3(value)}${sample.broken === null ? '' : ` BROKEN: ${sample.broken};`}`,
        );
      }
      say('\n');
    }
  }
  for (const proxy of proxies.values()) await stop(proxy);
}

const wayOf = (proxy: Running): Way => ({ ...proxy, keeps: proxy.subject.keeps });

/** Until the answers are kept: some write them to disk first. */
async function settleHit(proxy: Running, path: string, urls: number): Promise<void> {
  const paths = urls === 1 ? [path] : pathsOf(path, urls);
  for (let i = 0; i < (urls === 1 ? 5 : 2); i++) {
    await askAll(proxy, paths);
    await pause(50);
  }
}

const pathsOf = (path: string, urls: number) => Array.from({ length: urls }, (_, i) => `${path}${i + 1}`);

/** Asks for all of them, on a few kept connections. Rejects where one is not answered by 200. */
async function askAll(proxy: Running, paths: readonly string[]): Promise<void> {
  const agent = new Agent({ keepAlive: true, maxSockets: CONNECTIONS });
  const one = (path: string) =>
    new Promise<void>((resolve, reject) => {
      const to = {
        agent,
        host: '127.0.0.1',
        port: proxy.port,
        path: proxy.targetOf(path),
        headers: { host: proxy.host },
      };
      request(to, response => {
        response.resume();
        response.on('end', () =>
          response.statusCode === 200 ? resolve() : reject(new Error(`${response.statusCode} for ${path}`)),
        );
        response.on('error', reject);
      })
        .on('error', reject)
        .end();
    });
  let next = 0;
  const work = async () => {
    while (next < paths.length) await one(paths[next++]!);
  };
  await Promise.all(Array.from({ length: CONNECTIONS }, work));
  agent.destroy();
}

async function sampleOf(measure: Measure, way: Way, proxy: Running | null, origin: OriginPorts): Promise<Sample> {
  const reachedBefore = await countsOf(origin);
  const cpuBefore = proxy?.cpu() ?? 0;
  const takenBefore = takenOfProxyCore();
  const at = performance.now();
  try {
    const seconds = measure.seconds * scale;
    const load = await (proxy === null && measure.runDirect !== undefined
      ? measure.runDirect(seconds)
      : measure.run(way, seconds));
    // The last connections close; that is part of the work.
    await pause(50);
    const cpu = (proxy?.cpu() ?? 0) - cpuBefore;
    const others = (takenOfProxyCore() - takenBefore - cpu) / 1000 / (performance.now() - at);
    const reached = differenceOf(await countsOf(origin), reachedBefore);
    const figures: Record<string, number> = {
      operations: load.operations,
      seconds: load.seconds,
      errors: load.errors,
      rate: load.operations / load.seconds,
    };
    if (proxy !== null) {
      figures['cpu'] = cpu / load.operations;
      figures['busy'] = cpu / 1e6 / load.seconds;
      figures['others'] = Math.max(0, others);
    }
    if (typeof load.p50 === 'number') figures['p50'] = load.p50;
    if (typeof load.p99 === 'number') figures['p99'] = load.p99;
    return { broken: faultOf(measure, load, proxy === null ? null : reached), figures };
  } catch (error) {
    return { broken: (error as Error).message, figures: {} };
  }
}

function faultOf(measure: Measure, load: Load, reached: OriginCounts | null): string | null {
  if (load.errors > load.operations * ERRORS_ALLOWED) return `${load.errors} errors in ${load.operations} operations`;
  if (reached === null) return null;
  if (reached.astray > 0) return `${reached.astray} requests came where they should not`;
  return measure.fault(load, reached);
}

async function countsOf(origin: OriginPorts): Promise<OriginCounts> {
  return JSON.parse(await ask(origin.counts, '')) as OriginCounts;
}

function differenceOf(after: OriginCounts, before: OriginCounts): OriginCounts {
  const difference = Object.entries(after).map(([name, count]) => [name, count - before[name as keyof OriginCounts]]);
  return Object.fromEntries(difference) as OriginCounts;
}

async function sampleStarts(chosen: readonly Subject[], origin: OriginPorts): Promise<void> {
  for (let round = 0; round < rounds; round++) {
    say(`start ${round + 1} of ${rounds}            `);
    for (let i = 0; i < chosen.length; i++) {
      const subject = chosen[(i + round) % chosen.length]!;
      const proxy = await start(subject, origin);
      await stop(proxy);
      keep('start', subject.name, {
        broken: null,
        figures: { accepted: proxy.startedAfter, served: proxy.servedAfter },
      });
      say(` ${subject.name} ${round3(proxy.servedAfter)} ms`);
    }
    say('\n');
  }
}

async function sampleMemory(chosen: readonly Subject[], origin: OriginPorts): Promise<void> {
  for (let round = 0; round < MEMORY_ROUNDS; round++) {
    say(`${IDLE_TUNNELS} idle tunnels, ${round + 1} of ${MEMORY_ROUNDS} `);
    for (const subject of chosen) {
      const sample = await memoryOf(subject, origin);
      keep('memory', subject.name, sample);
      say(` ${subject.name} ${sample.broken ?? `${round3(sample.figures['tunnelKiB']!)} KiB`}`);
    }
    say('\n');
  }
}

/** Of a fresh process: after its first request, and with so many idle tunnels against what it held when some tunnels had come and gone. */
async function memoryOf(subject: Subject, origin: OriginPorts): Promise<Sample> {
  const proxy = await start(subject, origin);
  try {
    await pause(1_000);
    const idle = proxy.memory();
    const open = async (count: number) => {
      const args = tunnelOrder(proxy, 'idle', 'echo', origin, count);
      const before = await countsOf(origin);
      const child = spawnPinned(LOAD_CORE, process.execPath, args, ['pipe', 'pipe', 'pipe']);
      const ended = new Promise(resolve => child.once('exit', resolve));
      await Promise.race([new Promise(resolve => child.stdout!.once('data', resolve)), ended]);
      await pause(1_000);
      const { tunnels } = differenceOf(await countsOf(origin), before);
      const close = async () => {
        child.stdin!.end();
        await ended;
        await pause(300);
      };
      if (child.exitCode !== null || tunnels < count) {
        child.kill('SIGKILL');
        throw new Error(`${tunnels} of ${count} tunnels stood`);
      }
      return close;
    };
    const closeSome = await open(100);
    await closeSome();
    const base = proxy.memory();
    const close = await open(IDLE_TUNNELS);
    const tunnelKiB = (proxy.memory() - base) / IDLE_TUNNELS / 1024;
    await close();
    return { broken: null, figures: { tunnelKiB, idleMiB: idle / 1024 / 1024, baseMiB: base / 1024 / 1024 } };
  } catch (error) {
    return { broken: (error as Error).message, figures: {} };
  } finally {
    await stop(proxy);
  }
}

/** Of a fresh process: all of its memory by the answers that it keeps. */
async function sampleKept(chosen: readonly Subject[], origin: OriginPorts): Promise<void> {
  say(`${KEPT} kept answers    `);
  for (const subject of chosen.filter(one => one.caches)) {
    const sample = await keptMemoryOf(subject, origin);
    keep('kept-memory', subject.name, sample);
    say(` ${subject.name} ${sample.broken ?? `${round3(sample.figures['keptKiB']!)} KiB`}`);
  }
  say('\n');
}

async function keptMemoryOf(subject: Subject, origin: OriginPorts): Promise<Sample> {
  const proxy = await start(subject, origin, null, KEPT_MIB);
  try {
    const paths = pathsOf('/hit/', KEPT);
    await askAll(proxy, paths);
    await pause(5_000);
    const memory = proxy.memory();
    const before = await countsOf(origin);
    await askAll(proxy, paths);
    const { hits } = differenceOf(await countsOf(origin), before);
    const broken = hits > 0 ? `${hits} of ${KEPT} were not kept` : null;
    return { broken, figures: { keptKiB: memory / 1024 / KEPT } };
  } catch (error) {
    return { broken: (error as Error).message, figures: {} };
  } finally {
    await stop(proxy);
  }
}

async function end(): Promise<void> {
  if (ended) return;
  ended = true;
  await Promise.all([...running].map(one => one.stop()));
  rmSync(folder, { recursive: true, force: true });
}

for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.once(signal, () => void end().finally(() => process.exit(130)));
try {
  await main();
} catch (error) {
  if (!ended) say(`\nbench: ${(error as Error).message}\n`);
  process.exitCode = 1;
} finally {
  await end();
}
