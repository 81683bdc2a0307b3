// What lies in the state folder: the owner's alone, whole, no links, and one companion at a time.
import * as fs from 'node:fs';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect, test } from 'vitest';
import {
  claimStateFolder,
  openStateFolder,
  readStateFile,
  runningCompanion,
  StateFolderTaken,
  writeStateFile,
} from '../../../companion/control/state-folder.ts';

function makeFolder() {
  const folder = fs.mkdtempSync(path.join(tmpdir(), 'detour-state-'));
  const said: string[] = [];
  return {
    folder,
    said,
    warn: (message: string) => void said.push(message),
    at: (name: string) => path.join(folder, name),
    [Symbol.dispose]: () => fs.rmSync(folder, { recursive: true }),
  };
}

const MINE = { host: '127.0.0.1', port: 0, token: 'mine', configFile: '/x/detour.yaml' };

test('A58: folder and files are the owner’s, and wider modes are taken back with a warning', () => {
  using place = makeFolder();
  const folder = openStateFolder(place.at('deep/state'), place.warn);
  expect(fs.statSync(folder).mode & 0o777).toBe(0o700);
  writeStateFile(folder, 'a', 'secret');
  expect(fs.statSync(path.join(folder, 'a')).mode & 0o777).toBe(0o600);
  expect(place.said).toEqual([]);
  fs.chmodSync(folder, 0o755);
  fs.chmodSync(path.join(folder, 'a'), 0o644);
  openStateFolder(folder, place.warn);
  expect(readStateFile(folder, 'a', place.warn)).toBe('secret');
  expect(place.said).toHaveLength(2);
  expect(fs.statSync(folder).mode & 0o777).toBe(0o700);
  expect(fs.statSync(path.join(folder, 'a')).mode & 0o777).toBe(0o600);
});

test('a file is written whole: nothing else is left beside it', () => {
  using place = makeFolder();
  for (let i = 0; i < 20; i++) writeStateFile(place.folder, 'a', `text ${i}`);
  expect(fs.readdirSync(place.folder)).toEqual(['a']);
  expect(readStateFile(place.folder, 'a', place.warn)).toBe('text 19');
  expect(readStateFile(place.folder, 'b', place.warn)).toBeNull();
});

test('A56: links, folders and giants in the place of a file are refused', () => {
  using place = makeFolder();
  fs.writeFileSync(place.at('other'), 'other');
  fs.symlinkSync('other', place.at('link'));
  fs.mkdirSync(place.at('folder'));
  fs.writeFileSync(place.at('giant'), Buffer.alloc(2 * 1024 * 1024), { mode: 0o600 });
  for (const name of ['link', 'folder', 'giant'])
    expect(() => readStateFile(place.folder, name, place.warn), name).toThrow(name);
  expect(() => openStateFolder(place.at('other'), place.warn)).toThrow('other');
  // Written over, a link is replaced and what it led to is left alone.
  writeStateFile(place.folder, 'link', 'mine');
  expect(fs.readFileSync(place.at('other'), 'utf8')).toBe('other');
});

test('a claim is found until it is released', () => {
  using place = makeFolder();
  expect(runningCompanion(place.folder)).toBeNull();
  const claim = claimStateFolder(place.folder, MINE);
  claim.update({ port: 1234 });
  expect(runningCompanion(place.folder)).toMatchObject({ pid: process.pid, port: 1234, token: 'mine' });
  expect(fs.statSync(place.at('running.json')).mode & 0o777).toBe(0o600);
  claim.release();
  expect(runningCompanion(place.folder)).toBeNull();
  expect(fs.readdirSync(place.folder)).toEqual([]);
});

test('a folder that a living companion has claimed cannot be had; a dead one’s can', async () => {
  using place = makeFolder();
  const script = `
    import { claimStateFolder } from ${JSON.stringify(path.resolve('companion/control/state-folder.ts'))};
    claimStateFolder(${JSON.stringify(place.folder)}, ${JSON.stringify({ ...MINE, token: 'theirs' })}).update({ port: 77 });
    console.log('claimed');
    setInterval(() => {}, 1000);`;
  const other = spawn(process.execPath, ['--input-type=module', '--eval', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  try {
    await once(other.stdout, 'data');
    expect(() => claimStateFolder(place.folder, MINE)).toThrow(StateFolderTaken);
    expect(() => claimStateFolder(place.folder, MINE)).toThrow(`pid ${other.pid}`);
    expect(runningCompanion(place.folder)?.token).toBe('theirs');
  } finally {
    other.kill('SIGKILL');
    await once(other, 'close');
  }
  expect(runningCompanion(place.folder)).toBeNull();
  claimStateFolder(place.folder, MINE).release();
  expect(fs.readdirSync(place.folder)).toEqual([]);
});

test.runIf(process.platform === 'linux')('a number that another process has got meanwhile is no companion', () => {
  using place = makeFolder();
  writeStateFile(place.folder, 'running.json', JSON.stringify({ ...MINE, pid: 1, born: '12345', port: 80 }));
  expect(runningCompanion(place.folder)).toBeNull();
});

test.each(['', '{', 'null', '[]', '{"pid":"x"}'])('nonsense in the runtime file is nobody: %j', text => {
  using place = makeFolder();
  writeStateFile(place.folder, 'running.json', text);
  expect(runningCompanion(place.folder)).toBeNull();
  claimStateFolder(place.folder, MINE).release();
});

test('releasing leaves the claim of one who came after', () => {
  using place = makeFolder();
  const first = claimStateFolder(place.folder, MINE);
  fs.rmSync(place.at('running.json'));
  claimStateFolder(place.folder, { ...MINE, token: 'later' });
  first.release();
  expect(runningCompanion(place.folder)?.token).toBe('later');
});
