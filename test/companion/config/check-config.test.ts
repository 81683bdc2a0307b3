import * as fs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { checkConfig } from '../../../companion/config/check-config.ts';
import { findOwnListenerHops } from '../../../companion/guard/acl.ts';

async function check(text: string, ...judges: Parameters<typeof checkConfig>[1][]) {
  const folder = await fs.mkdtemp(join(tmpdir(), 'detour-check-'));
  const file = join(folder, 'detour.yaml');
  await fs.writeFile(file, text, { mode: 0o600 });
  await fs.writeFile(join(folder, 'hosts.txt'), 'a.example\n');
  try {
    const report = await checkConfig(file, judges[0]);
    return report.ok
      ? report.summary.replace(file, 'detour.yaml')
      : report.problems.map(line => line.replace(file, 'detour.yaml'));
  } finally {
    await fs.rm(folder, { recursive: true });
  }
}

test('a file in order is summed up', async () => {
  const text =
    'hops: { a: http://a:1 }\nsites:\n  a.example: off\n  b.example: off\nlists: [{ file: hosts.txt, block: true }]\n';
  expect(await check(text)).toBe('detour.yaml is in order: 2 sites, 0 rules, 1 list, 0 routes, 1 hop.');
});

test('a file out of order gives a line for each fault', async () => {
  expect(await check('hopz: 1\nlistn: 2\n')).toEqual([
    'detour.yaml:1:1: unknown key "hopz" (did you mean hops?)',
    'detour.yaml:2:1: unknown key "listn" (did you mean listen?)',
  ]);
});

test('a file that cannot be read gives one line', async () => {
  expect(await checkConfig('/nowhere/detour.yaml')).toEqual({
    ok: false,
    problems: ['/nowhere/detour.yaml: does not exist'],
    warnings: [],
  });
});

test('a list file that is not there is told at its place', async () => {
  expect(await check('lists:\n  - file: gone.txt\n    block: true\n')).toEqual([
    'detour.yaml:2:11: lists[0].file: does not exist',
  ]);
});

test('a hop that leads back to Detour is told at its place', async () => {
  const text = 'listen: 127.0.0.1:8228\nhops:\n  far: http://proxy.example:8228\n  self: http://localhost:8228\n';
  const lines = await check(text, [config => findOwnListenerHops(config, config.listen)]);
  expect(lines).toHaveLength(1);
  expect((lines as string[])[0]).toMatch(/^detour\.yaml:4:9: hops\.self: .*loop/);
});
