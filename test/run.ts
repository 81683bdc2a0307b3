// `npm test`: peers, check, build, then the tests, each stage with its time. Arguments go to vitest (`npm test -- cache`) and leave
// the check out. The last line counts tests over all runs; no test at all is a failure.
import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import { ensurePeers, PEERS } from './support/ensure-peers.ts';
import { reportStage, runProgram, stopStages } from './support/stage.ts';

const MINUTE = 60_000;
const TOTAL_LIMIT = 15 * MINUTE;
const ARTIFACTS = '.artifacts';

const strict = process.env['CI'] === 'true' || process.env['CI'] === '1';
const passedOn = process.argv.slice(2);
const endsAt = performance.now() + TOTAL_LIMIT;
const left = () => Math.max(1, endsAt - performance.now());
const broken: string[] = [];
const count = { passed: 0, failed: 0, skipped: 0 };
let stopped = false;

/** Runs one stage under its heading and notes whether it held. */
async function stage(name: string, work: () => Promise<boolean>): Promise<boolean> {
  if (stopped) return false;
  process.stdout.write(`\n── ${name}\n`);
  const began = performance.now();
  const ok = await work();
  reportStage(name, ok, performance.now() - began);
  if (!ok) broken.push(name);
  return ok;
}

/** The part of vitest's JSON report that is counted. */
interface Report {
  numPassedTests: number;
  numFailedTests: number;
  numPendingTests: number;
  numTodoTests: number;
  testResults: { status: string; assertionResults: unknown[] }[];
}

/** Runs vitest over some projects and adds up its report; a file that does not load counts as one failed test. */
async function vitest(name: string, args: string[], limit: number): Promise<boolean> {
  const file = `${ARTIFACTS}/vitest-${name}.json`;
  rmSync(file, { force: true });
  const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${file}`];
  const filters = passedOn.length > 0 ? [...passedOn, '--passWithNoTests'] : ['--allowOnly=false'];
  const result = await runProgram('vitest', ['run', ...args, ...reporters, ...filters], {
    show: true,
    limit: Math.min(limit, left()),
  });
  try {
    const report = JSON.parse(readFileSync(file, 'utf8')) as Report;
    const unloaded = report.testResults.filter(
      one => one.status === 'failed' && one.assertionResults.length === 0,
    ).length;
    count.passed += report.numPassedTests;
    count.failed += report.numFailedTests + unloaded;
    count.skipped += report.numPendingTests + report.numTodoTests;
  } catch {
    count.failed += 1;
    process.stderr.write(`vitest left no report for ${name}\n`);
  }
  return result.ok;
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    if (stopped) process.exit(130);
    stopped = true;
    broken.push(`stopped by ${signal}`);
    stopStages();
  });
}

mkdirSync(ARTIFACTS, { recursive: true });

await stage('browsers and test servers', async () => {
  const missing = await ensurePeers(PEERS, left());
  for (const peer of missing)
    process.stdout.write(`not found: ${peer.programs.join(' or ')}; cannot run: ${peer.neededFor}\n`);
  return !strict || missing.length === 0;
});
if (passedOn.length === 0) {
  await stage(
    'check',
    async () => (await runProgram(process.execPath, ['test/check.ts'], { show: true, limit: left() })).ok,
  );
}
const built = await stage(
  'build',
  async () => (await runProgram(process.execPath, ['bootstrap.mjs', 'build'], { show: true, limit: left() })).ok,
);
await stage('unit and extension tests', () =>
  vitest(
    'unit',
    // Two files at a time: much of what tests do is waiting.
    [
      '--project',
      'unit',
      '--project',
      'node-sockets',
      '--project',
      'extension',
      '--project',
      'namespaces',
      '--maxWorkers',
      '2',
    ],
    9 * MINUTE,
  ),
);
if (built) await stage('journeys', () => vitest('journeys', ['--project', 'journeys'], 10 * MINUTE));

const { passed, failed, skipped } = count;
if (passed + failed === 0) broken.push('no test ran');
process.stdout.write(broken.length > 0 ? `\nNot in order: ${broken.join(', ')}\n` : '\nAll in order\n');
process.stdout.write(`${passed} passed, ${failed} failed, ${skipped} skipped\n`);
process.exitCode = broken.length > 0 || failed > 0 ? 1 : 0;
