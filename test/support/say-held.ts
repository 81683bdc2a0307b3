// Runs inside a companion that a test has started (`node --import`): on SIGUSR2 it collects all garbage and writes into a file what is left in use.
import { renameSync, writeFileSync } from 'node:fs';
import { collect } from './collect.ts';

const file = process.env.SAY_HELD_IN!;

process.on('SIGUSR2', () => {
  collect();
  const { heapUsed, external } = process.memoryUsage();
  writeFileSync(`${file}.new`, String(heapUsed + external));
  renameSync(`${file}.new`, file);
});
