// `npm run soak [-- --minutes N --crashes N --workers N --seed N]`: mixed load and attacks against a companion in a process of its own, for 20 minutes,
// and then the question what is left of it: memory, open files, handles. Prints what it sees, draws it into .artifacts/soak.html (the figures are in
// soak.json beside it), and ends with 1 where anything is wrong.
import { mkdirSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { runSoak } from './run-soak.ts';
import { drawSoak } from './draw-soak.ts';

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '20' },
    workers: { type: 'string', default: '1' },
    crashes: { type: 'string', default: '50' },
    seed: { type: 'string', default: String(Date.now() % 1e6) },
  },
});
const report = await runSoak({
  seconds: Number(values.minutes) * 60,
  seed: Number(values.seed),
  crashes: Number(values.crashes),
  workers: Number(values.workers),
  say: line => process.stdout.write(`${line}\n`),
});
mkdirSync('.artifacts', { recursive: true });
writeFileSync('.artifacts/soak.html', drawSoak(report));
writeFileSync('.artifacts/soak.json', JSON.stringify(report));
process.stdout.write(`\n${report.summary}\n\nDrawn in .artifacts/soak.html\n`);
process.exitCode = report.faults.length === 0 ? 0 : 1;
