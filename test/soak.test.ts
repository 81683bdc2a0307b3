// A taste of `npm run soak`: the same load and the same judgement, in seconds. Slopes need minutes; leaks of files and handles, and requests that
// nobody answers, show at once.
import { expect, test } from 'vitest';
import { runSoak } from './soak/run-soak.ts';

test('A86–A91: a little soak leaves no file, no handle and no request behind', { timeout: 150_000 }, async () => {
  const said: string[] = [];
  const report = await runSoak({ seconds: 20, seed: 86, say: line => said.push(line) });
  expect(report.faults, `${said.join('\n')}\n${report.summary}`).toEqual([]);
});
