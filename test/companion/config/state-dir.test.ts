import * as fs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { stateFolderOf } from '../../../companion/config/state-dir.ts';

const HOME = { HOME: '/h' };

test('the default file keeps its state in the usual place', () => {
  expect(stateFolderOf('/h/.config/detour/detour.yaml', HOME)).toBe('/h/.local/state/detour');
  expect(stateFolderOf('/h/.config/detour/detour.yaml', { ...HOME, XDG_STATE_HOME: '/s' })).toBe('/s/detour');
  expect(stateFolderOf('/h/.config/detour/detour.yaml', { ...HOME, XDG_STATE_HOME: 'relative' })).toBe(
    '/h/.local/state/detour',
  );
});

test('two files never share a folder, and one file always has the same', () => {
  const one = stateFolderOf('/etc/one.yaml', HOME);
  expect(one).toMatch(/^\/h\/\.local\/state\/detour\/at-[0-9a-f]{16}$/);
  expect(stateFolderOf('/etc/two.yaml', HOME)).not.toBe(one);
  expect(stateFolderOf('/etc/../etc/one.yaml', HOME)).toBe(one);
});

test('a link and the file it stands for have one folder', async () => {
  const folder = await fs.mkdtemp(join(tmpdir(), 'detour-state-'));
  await fs.writeFile(join(folder, 'real.yaml'), '');
  await fs.symlink('real.yaml', join(folder, 'link.yaml'));
  expect(stateFolderOf(join(folder, 'link.yaml'), HOME)).toBe(stateFolderOf(join(folder, 'real.yaml'), HOME));
  await fs.rm(folder, { recursive: true });
});

test('DETOUR_STATE_DIR is taken as it is', () => {
  expect(stateFolderOf('/etc/one.yaml', { ...HOME, DETOUR_STATE_DIR: '/tmp/mine' })).toBe('/tmp/mine');
});
