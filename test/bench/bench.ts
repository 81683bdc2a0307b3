// `npm run bench`: the companion beside squid, tinyproxy and a bare node:http proxy, in one run, in turns. Proxies have one core to themselves, load and
// origin the other. What is compared is CPU time per operation first: on a shared machine that holds still where rates do not.
// --quick: a taste in a minute. --json FILE: the figures. --only NAMES, --rounds N; --companion COMMAND, --node-options OPTIONS: for profiling.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { ensurePeers, findProgram, LOAD_GENERATOR, PEERS } from '../support/ensure-peers.ts';
import { LOAD_CORE, type Running, spawnPinned, startProxy, type Subject, subjects } from './proxies.ts';

const { values: options } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    json: { type: 'string' },
    rounds: { type: 'string' },
    only: { type: 'string' },
    measures: { type: 'string' },
    seconds: { type: 'string' },
    companion: { type: 'string' },
    'node-options': { type: 'string', default: '' },
  },
});
const { quick } = options;
const rounds = Number(options.rounds ?? (quick ? 1 : 5));
const scale = options.seconds === undefined ? (quick ? 0.5 : 1) : Number(options.seconds) / 3;
const STARTS = quick ? 2 : 7;
const IDLE_TUNNELS = quick ? 1000 : 2000;
const CONNECTIONS = 32;

interface Load {
  readonly operations: number;
  readonly seconds: number;
  readonly errors: number;
  /** Those of them that are connections closed by the proxy. */
  readonly closed?: number;
  /** Milliseconds, where the load knows them. */
  readonly p50?: number;
  readonly p99?: number;
}

interface Measure {
  readonly name: string;
  readonly unit: string;
  /** Of each round. */
  readonly seconds: number;
  /** CPU time is told per this. */
  readonly per: string;
  run(proxy: Running, seconds: number): Promise<Load>;
}

interface Sample extends Load {
  readonly rate: number;
  /** Microseconds of the proxy's CPU an operation. */
  readonly cpu: number;
  /** How much of the time the proxy was on its core. */
  readonly busy: number;
}

const ORIGIN = fileURLToPath(new URL('./origin.ts', import.meta.url));
const TUNNEL_LOAD = fileURLToPath(new URL('./tunnel-load.ts', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'detour-bench-'));
const stops: (() => unknown)[] = [];
const say = (text: string) => void process.stderr.write(text);
const pause = (milliseconds: number) => new Promise(resolve => setTimeout(resolve, milliseconds));

/** Runs a program on the load's core and gives back what it printed. */
async function runLoad(program: string, args: readonly string[]): Promise<string> {
  const child = spawnPinned(LOAD_CORE, program, args, ['ignore', 'pipe', 'inherit']);
  let text = '';
  child.stdout!.on('data', (chunk: Buffer) => (text += String(chunk)));
  const code = await new Promise(resolve => child.once('close', resolve));
  if (code !== 0) throw new Error(`${program} failed: ${text}`);
  return text;
}

async function main(): Promise<void> {
  if (availableParallelism() < 2) throw new Error('the bench needs two cores: one for the proxies, one for the load');
  await ensurePeers([LOAD_GENERATOR, ...PEERS.filter(peer => ['squid', 'tinyproxy'].includes(peer.debian))], 180_000);
  const tools = { wrk: 'wrk', taskset: 'util-linux', prlimit: 'util-linux', setpriv: 'util-linux' };
  for (const [tool, debian] of Object.entries(tools)) {
    if (findProgram(tool) === undefined)
      throw new Error(`${tool} is not installed (on Debian: apt-get install ${debian})`);
  }
  const only = options.only?.split(',');
  const all = subjects(options.companion?.split(' ') ?? null, options['node-options'].split(' ').filter(Boolean));
  for (const { name, missing } of all) if (missing !== null) say(`without ${name}: ${missing}\n`);
  const chosen = all.filter(one => one.missing === null && (only === undefined || only.includes(one.name)));

  const origin = await startOrigin();
  const wanted = options.measures?.split(',');
  const measures = measuresOf(origin).filter(one => wanted === undefined || wanted.includes(one.name));
  const results = new Map<string, Sample[]>();

  say(`starting ${chosen.map(one => one.name).join(', ')}\n`);
  const running = new Map<Subject, Running>();
  for (const subject of chosen) {
    const proxy = await startProxy(subject, folder);
    running.set(subject, proxy);
    stops.push(() => proxy.stop());
  }
  say('warming up');
  for (const measure of measures) {
    for (const proxy of running.values()) {
      say('.');
      await measure.run(proxy, quick ? 0.4 : 1.5 * scale);
    }
  }
  say('\n');
  for (let round = 0; round < rounds; round++) {
    for (const measure of measures) {
      // Nobody always comes first.
      const order = chosen.map((_, i) => chosen[(i + round) % chosen.length]!);
      say(`round ${round + 1} of ${rounds}, ${measure.name.padEnd(13)}`);
      for (const subject of order) {
        const sample = await sampleOf(measure, running.get(subject)!);
        const key = `${subject.name} ${measure.name}`;
        results.set(key, [...(results.get(key) ?? []), sample]);
        say(` ${subject.name} ${round3(sample.rate)}${sample.errors > 0 ? ` (${sample.errors} errors)` : ''}`);
      }
      say('\n');
    }
  }
  for (const proxy of running.values()) await proxy.stop();

  const starts = new Map<string, number[]>();
  const memory = new Map<string, { each: number; base: number }>();
  if (wanted === undefined || wanted.includes('start-up')) {
    for (let i = 0; i < STARTS; i++) {
      say(`start ${i + 1} of ${STARTS}           `);
      for (const subject of chosen) {
        const proxy = await startProxy(subject, folder);
        await proxy.stop();
        starts.set(subject.name, [...(starts.get(subject.name) ?? []), proxy.startedAfter]);
        say(` ${subject.name} ${round3(proxy.startedAfter)} ms`);
      }
      say('\n');
    }
  }
  if (wanted === undefined || wanted.includes('memory')) {
    say(`${IDLE_TUNNELS} idle tunnels      `);
    for (const subject of chosen) {
      const one = await memoryOfTunnels(subject, origin.echo);
      memory.set(subject.name, one);
      say(` ${subject.name} ${round3(one.each / 1024)} KiB`);
    }
    say('\n');
  }

  process.stdout.write(`\n${table(chosen, measures, results, starts, memory)}\n`);
  if (options.json !== undefined) {
    const figures = {
      at: new Date().toISOString(),
      machine: { cpu: cpus()[0]?.model, cores: cpus().length, node: process.version },
      rounds,
      samples: Object.fromEntries(results),
      startMilliseconds: Object.fromEntries(starts),
      tunnelBytes: Object.fromEntries(memory),
    };
    writeFileSync(options.json, `${JSON.stringify(figures, null, 2)}\n`);
    say(`figures: ${options.json}\n`);
  }
}

async function startOrigin(): Promise<{ http: number; bulk: number; echo: number }> {
  const child = spawnPinned(LOAD_CORE, process.execPath, [ORIGIN], ['ignore', 'pipe', 'inherit']);
  stops.push(() => child.kill());
  const line = await new Promise<string>((resolve, reject) => {
    child.stdout!.once('data', chunk => resolve(String(chunk)));
    child.once('exit', () => reject(new Error('the origin did not start')));
  });
  return JSON.parse(line) as { http: number; bulk: number; echo: number };
}

function measuresOf(origin: { http: number; bulk: number; echo: number }): Measure[] {
  const http = (path: string) => async (proxy: Running, seconds: number) => {
    const script = join(folder, 'wrk.lua');
    writeFileSync(script, wrkScript(origin.http, path));
    const args = ['-t1', `-c${CONNECTIONS}`, `-d${Math.max(1, Math.round(seconds))}s`, '-s', script];
    const load = loadOf(await runLoad('wrk', [...args, `http://127.0.0.1:${proxy.port}`]));
    return proxy.subject.keeps ? load : { ...load, errors: load.errors - load.closed! };
  };
  const tunnels = (mode: string, port: number) => async (proxy: Running, seconds: number) =>
    loadOf(await runLoad(process.execPath, [TUNNEL_LOAD, mode, String(proxy.port), String(port), String(seconds)]));
  return [
    { name: 'hit-1k', unit: 'requests/s', per: 'request', seconds: 3, run: http('/hit') },
    { name: 'miss-1k', unit: 'requests/s', per: 'request', seconds: 3, run: http('/miss/') },
    { name: 'tunnel-bulk', unit: 'MB/s', per: 'MB', seconds: 2, run: tunnels('bulk', origin.bulk) },
    { name: 'tunnel-setups', unit: 'tunnels/s', per: 'tunnel', seconds: 2, run: tunnels('setups', origin.echo) },
  ];
}

/** Requests in absolute-form; each with a URL of its own where the path ends in a slash. */
function wrkScript(port: number, path: string): string {
  return `
local n = 0
local start = tostring(os.time()) .. tostring(math.random(1000000)) .. "-"
local unique = ${path.endsWith('/')}
local url = "http://127.0.0.1:${port}${path}"
local headers = { Host = "127.0.0.1:${port}" }
local same = wrk.format("GET", url, headers)
request = function()
  if not unique then return same end
  n = n + 1
  return wrk.format("GET", url .. start .. n, headers)
end
done = function(summary, latency)
  local e = summary.errors
  print("RESULT " .. string.format('{"operations":%d,"seconds":%f,"errors":%d,"closed":%d,"p50":%f,"p99":%f}', summary.requests,
    summary.duration / 1e6, e.connect + e.read + e.write + e.status + e.timeout, e.read + e.write, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
`;
}

function loadOf(text: string): Load {
  return JSON.parse(/\{"operations".*\}/.exec(text)![0]) as Load;
}

async function sampleOf(measure: Measure, proxy: Running): Promise<Sample> {
  const before = proxy.cpu();
  const load = await measure.run(proxy, measure.seconds * scale);
  // The last connections close; that is part of the work.
  await pause(50);
  const cpu = proxy.cpu() - before;
  return {
    ...load,
    rate: load.operations / load.seconds,
    cpu: cpu / load.operations,
    busy: cpu / 1e6 / load.seconds,
  };
}

/** On a fresh process that has seen some tunnels come and go. */
async function memoryOfTunnels(subject: Subject, port: number): Promise<{ each: number; base: number }> {
  const proxy = await startProxy(subject, folder);
  try {
    const open = async (count: number) => {
      const args = [TUNNEL_LOAD, 'idle', String(proxy.port), String(port), String(count)];
      const child = spawnPinned(LOAD_CORE, process.execPath, args, ['pipe', 'pipe', 'inherit']);
      const ended = new Promise(resolve => child.once('exit', resolve));
      await Promise.race([new Promise(resolve => child.stdout!.once('data', resolve)), ended]);
      await pause(quick ? 700 : 1_500);
      return async () => {
        child.stdin!.end();
        await ended;
        await pause(500);
      };
    };
    await (
      await open(100)
    )();
    const base = proxy.memory();
    const close = await open(IDLE_TUNNELS);
    const each = (proxy.memory() - base) / IDLE_TUNNELS;
    await close();
    return { each, base };
  } finally {
    await proxy.stop();
  }
}

function median(numbers: readonly number[]): number {
  const sorted = [...numbers].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** Three significant digits, in full. */
function round3(value: number): string {
  return value >= 1000 ? Math.round(value).toLocaleString('en') : String(Number(value.toPrecision(3)));
}

function table(
  chosen: readonly Subject[],
  measures: readonly Measure[],
  results: ReadonlyMap<string, readonly Sample[]>,
  starts: ReadonlyMap<string, readonly number[]>,
  memory: ReadonlyMap<string, { each: number; base: number }>,
): string {
  const rows: string[][] = [['', ...chosen.map(one => one.name)]];
  /** A row of values, each beside its ratio to squid's. */
  const row = (
    name: string,
    valueOf: (subject: Subject) => number | undefined,
    mark: (s: Subject) => string = () => '',
  ) => {
    const squid = chosen.find(one => one.name === 'squid');
    const base = squid && valueOf(squid);
    rows.push([
      name,
      ...chosen.map(subject => {
        const value = valueOf(subject);
        if (value === undefined) return '–';
        const ratio = base !== undefined && subject !== squid ? ` ${(value / base).toFixed(2)}x` : '';
        return `${round3(value)}${ratio}${mark(subject)}`;
      }),
    ]);
  };
  for (const measure of measures) {
    const of = (pick: (sample: Sample) => number | undefined) => (subject: Subject) => {
      const found = (results.get(`${subject.name} ${measure.name}`) ?? []).map(pick);
      return found.length === 0 || found[0] === undefined ? undefined : median(found as number[]);
    };
    const errors = (subject: Subject) =>
      (results.get(`${subject.name} ${measure.name}`) ?? []).some(one => one.errors > 0) ? ' !' : '';
    row(
      `${measure.name}, ${measure.unit}`,
      of(one => one.rate),
      subject => (measure.name === 'hit-1k' && !subject.caches ? ' (no cache)' : errors(subject)),
    );
    row(
      `  own CPU µs a ${measure.per}`,
      of(one => one.cpu),
    );
    row(
      '  of its core, %',
      of(one => one.busy * 100),
    );
    if (measure.name.endsWith('-1k')) {
      row(
        '  latency p50, ms',
        of(one => one.p50),
      );
      row(
        '  latency p99, ms',
        of(one => one.p99),
      );
    }
  }
  if (memory.size > 0) {
    row('idle tunnel, KiB', subject => memory.get(subject.name)!.each / 1024);
    row('  process before, MiB', subject => memory.get(subject.name)!.base / 1024 / 1024);
  }
  if (starts.size > 0) row('start-up, ms', subject => median(starts.get(subject.name)!));
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map(cells => cells[column]!.length)));
  const text = rows.map(cells =>
    cells.map((cell, column) => (column === 0 ? cell.padEnd(widths[0]!) : cell.padStart(widths[column]! + 2))).join(''),
  );
  return `${text.join('\n')}\n\nMedians of ${rounds} round${rounds === 1 ? '' : 's'}; x: to squid's. "!": with errors. Node ${process.version}, ${cpus()[0]?.model}.`;
}

let ended = false;
async function end(): Promise<void> {
  if (ended) return;
  ended = true;
  for (const stop of stops.reverse()) await stop();
  rmSync(folder, { recursive: true, force: true });
}

for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.once(signal, () => void end().finally(() => process.exit(130)));
try {
  await main();
} catch (error) {
  say(`\nbench: ${(error as Error).message}\n`);
  process.exitCode = 1;
} finally {
  await end();
}
