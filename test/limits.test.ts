// Holds docs/limits.md to the code.
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import * as v from 'valibot';
import { ConfigSchema } from '../shared/config.ts';

const page = readFileSync('docs/limits.md', 'utf8');
const config = v.parse(ConfigSchema, {}) as unknown as Record<string, Record<string, unknown>>;
const UNITS: Record<string, number> = { KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3 };

test('every setting under limits:, and of cache: every one that is a number, stands in docs/limits.md', () => {
  const numbers = Object.entries(config['cache']!).filter(([, value]) => typeof value === 'number');
  const settings = [
    ...Object.keys(config['limits']!).map(key => `limits.${key}`),
    ...numbers.map(([key]) => `cache.${key}`),
  ];
  for (const setting of settings) expect(page).toContain(`| \`${setting}\` |`);
});

test('every setting in docs/limits.md is there, with that default', () => {
  const rows = [...page.matchAll(/^\| `(\w+)\.(\w+)` \| ([\d.]+)(?: (\w+))? \|/gm)];
  expect(rows.length).toBeGreaterThan(20);
  for (const [, section, key, number, unit] of rows) {
    expect([key, config[section!]![key!]]).toEqual([key, Number(number) * (unit === undefined ? 1 : UNITS[unit]!)]);
  }
});

test('every fixed bound in docs/limits.md stands where it says', () => {
  const rows = [...page.matchAll(/^\|.*\| ((?:`[A-Z_]+`(?:, )?)+) in (\S+\.ts) \|$/gm)];
  expect(rows.length).toBeGreaterThan(20);
  for (const [, names, file] of rows) {
    const source = readFileSync(file!, 'utf8');
    for (const [, name] of names!.matchAll(/`([A-Z_]+)`/g)) expect(source).toMatch(new RegExp(`const ${name}\\b`));
  }
});
