// `npm run check`: everything that can be said about the code without running it, all at once: types, lint, format, unused code,
// and the arrows that imports must follow.
import { reportStage, runProgram, stopStages } from './support/stage.ts';

const LIMIT = 120_000;

const CHECKS: readonly [name: string, command: string, ...args: string[]][] = [
  ['types: companion and tests', 'tsc', '-p', 'tsconfig.json'],
  ['types: shared, with neither Node nor a browser', 'tsc', '-p', 'shared/tsconfig.json'],
  ['types: extension', 'tsc', '-p', 'extension/tsconfig.json'],
  ['types: journeys', 'tsc', '-p', 'test/journeys/tsconfig.json'],
  ['lint', 'oxlint', '--deny-warnings', '--report-unused-disable-directives'],
  ['format (npx oxfmt puts it right)', 'oxfmt', '--check'],
  ['unused code and dependencies', 'knip', '--no-progress'],
  ['imports follow the arrows', 'vitest', 'run', '--project', 'unit', 'test/house.test.ts'],
];

process.on('SIGINT', stopStages).on('SIGTERM', stopStages);

const failed = await Promise.all(
  CHECKS.map(async ([name, command, ...args]) => {
    const result = await runProgram(command, args, { show: false, limit: LIMIT });
    reportStage(name, result.ok, result.took);
    if (!result.ok) process.stdout.write(`${result.printed.trimEnd()}\n\n`);
    return !result.ok;
  }),
);
process.exitCode = failed.includes(true) ? 1 : 0;
