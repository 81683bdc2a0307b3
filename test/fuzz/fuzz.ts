// `npm run fuzz`: our HTTP/1.1 parser against llhttp in strict mode, then a sample through a running companion. A case is its seed and its number.
// --seed N --cases N --minutes M --side request|response|both: how much of what (by itself both, for ten minutes, a seed of the clock).
// --case K: this case of the seed alone, told in full. --live N: so many through the companion (by itself 500; 0 leaves it out).
import { parseArgs } from 'node:util';
import { Worker } from 'node:worker_threads';
import { keep, told } from './corpus.ts';
import { readByLlhttp } from './llhttp.ts';
import { runLive } from './live.ts';
import { minimise } from './minimise.ts';
import { readByOurs } from './ours.ts';
import type { Case, Side } from './outcome.ts';
import { caseAt, type Failure, type Figures, judged, noFigures, runCases } from './run.ts';

const { values: options } = parseArgs({
  options: {
    seed: { type: 'string' },
    cases: { type: 'string' },
    minutes: { type: 'string' },
    side: { type: 'string', default: 'both' },
    case: { type: 'string' },
    live: { type: 'string', default: '500' },
  },
});

const MANY_FAILURES = 10;
const seed = Number(options.seed ?? Date.now() % 1_000_000_007);
const cases = Number(options.cases ?? Infinity);
const minutes = Number(options.minutes ?? (options.cases === undefined ? 10 : Infinity));
const live = Number(options.live);
const sides: Side[] = options.side === 'both' ? ['request', 'response'] : [options.side as Side];
if (![seed, cases, minutes, live].every(number => number >= 0) || !/^(?:request|response|both)$/.test(options.side)) {
  process.stderr.write(
    'fuzz: --seed, --cases, --minutes and --live are numbers, --side is request, response or both\n',
  );
  process.exit(2);
}

let failures = 0;
/** Moves while the parsers come back. */
const progress = new Int32Array(new SharedArrayBuffer(4));
if (options.case !== undefined) for (const side of sides) tell(side, Number(options.case));
else {
  const stop = watch();
  process.stdout.write(`fuzz: seed ${seed}\n`);
  for (const side of sides) runSide(side);
  stop();
  if (live > 0 && failures < MANY_FAILURES) {
    for (const side of sides) {
      const result = await runLive(side, seed, Math.min(live, cases));
      process.stdout.write(`${side}s through a companion: ${result.said}\n`);
      for (const { given, verdict } of result.failures) report(side, `live-${failures}`, { given, verdict }, null);
    }
  }
}
process.exitCode = failures > 0 ? 1 : 0;

function runSide(side: Side): void {
  const figures = noFigures();
  const began = performance.now();
  const cpu = process.cpuUsage();
  const end = began + (minutes * 60_000) / sides.length;
  let next = 0;
  let said = 0;
  let last = began;
  while (next < cases && performance.now() < end && failures < MANY_FAILURES) {
    const { next: reached, failure } = runCases(side, seed, next, cases, Math.min(end, last + 1_000), figures);
    if (failure !== null) report(side, `${side}-${seed}-${reached - 1}`, failure, judged);
    next = reached;
    Atomics.add(progress, 0, 1);
    const now = performance.now();
    if (now - last < 1_000) continue;
    const rate = ((figures.cases - said) / (now - last)) * 1_000;
    process.stdout.write(`${process.stdout.isTTY ? '\r\x1b[K' : ''}${line(side, figures, rate)}${process.stdout.isTTY ? '' : '\n'}`); // prettier-ignore
    said = figures.cases;
    last = now;
  }
  const took = (performance.now() - began) / 1_000;
  const { user, system } = process.cpuUsage(cpu);
  process.stdout.write(`${process.stdout.isTTY ? '\r\x1b[K' : ''}${line(side, figures, figures.cases / took)}\n`);
  process.stdout.write(`  in ${took.toFixed(0)} s, ${((user + system) / 1e6).toFixed(0)} s of CPU\n`);
  for (const [kind, classes] of [
    ['stricter', figures.stricter],
    ['wider', figures.wider],
  ] as const) {
    for (const [say, count] of [...classes].sort((a, b) => b[1] - a[1])) {
      process.stdout.write(`  ${kind} ${String(count).padStart(9)}  ${say}\n`);
    }
  }
}

function line(side: Side, figures: Figures, rate: number): string {
  const { cases: count, accepted, refused, stricter, wider } = figures;
  const sum = (classes: Map<string, number>) => [...classes.values()].reduce((a, b) => a + b, 0);
  return (
    `${side}s ${count}, ${rate.toFixed(0)}/s: both accept ${accepted}, both refuse ${refused}, ` +
    `stricter ${sum(stricter)} in ${stricter.size} classes, wider ${sum(wider)}, disagreements ${failures}`
  );
}

function report(side: Side, name: string, { given, verdict }: Failure, again: typeof judged | null): void {
  failures++;
  const small = again === null ? given : minimise(given, smaller => again(smaller).kind === 'disagreement');
  const said = again === null ? verdict : again(small);
  process.stdout.write(`\nDISAGREEMENT on a ${side}: ${said.say}\n  ${shown(small)}\n  kept in ${keep(name, small)}\n`);
}

function tell(side: Side, index: number): void {
  const given = caseAt(side, seed, index);
  process.stdout.write(`${side} ${seed}/${index}: ${told(judged(given))}\n  ${shown(given)}\n`);
  for (const [who, outcome] of [
    ['ours', readByOurs(given)],
    ['llhttp', readByLlhttp(given)],
  ] as const) {
    process.stdout.write(`  ${who}: ${JSON.stringify(outcome, null, 2).replaceAll('\n', '\n  ')}\n`);
  }
}

function shown({ bytes, cuts, methods }: Case): string {
  const text = JSON.stringify(bytes.toString('latin1')).replace(
    /[\x7f-\xff]/g,
    c => `\\x${c.charCodeAt(0).toString(16)}`,
  );
  return `${text}${cuts.length > 0 ? ` cut at ${cuts.join(', ')}` : ''}${methods.length > 0 ? ` for ${methods.join(', ')}` : ''}`;
}

/** A parser that never comes back would take its thread with it: another one watches, and says so. */
function watch(): () => void {
  const worker = new Worker(
    `const { workerData } = require('node:worker_threads');
     const progress = new Int32Array(workerData.buffer);
     let seen = -1;
     setInterval(() => {
       const now = Atomics.load(progress, 0);
       if (now === seen) { require('node:fs').writeSync(2, '\\nfuzz: HANG, seed ' + workerData.seed + ': no progress for 30 s\\n'); process.kill(process.pid, 'SIGKILL'); }
       seen = now;
     }, 30_000);`,
    { eval: true, workerData: { buffer: progress.buffer, seed } },
  );
  worker.unref();
  return () => void worker.terminate();
}
