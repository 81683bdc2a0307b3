// The steps of bootstrap.mjs that can be tried without a network: stamps, the lock, which packages are missing, signals.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { expect, test, vi } from 'vitest';
import { alone, hashOf, missingPackages, stamped, stampFits } from '../bootstrap.mjs';

const BOOTSTRAP = path.resolve(import.meta.dirname, '../bootstrap.mjs');
const LINUX = { os: 'linux', cpu: 'x64', libc: 'glibc' };

/** A folder with a space in its name, gone at the end. */
function temporaryFolder(): { path: string; [Symbol.dispose](): void } {
  const folder = mkdtempSync(path.join(tmpdir(), 'detour bootstrap '));
  return { path: folder, [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true }) };
}

function installed(folder: string, ...names: string[]): void {
  for (const name of names) {
    mkdirSync(path.join(folder, 'node_modules', name), { recursive: true });
    writeFileSync(path.join(folder, 'node_modules', name, 'package.json'), '{}');
  }
}

test('a stamped step runs once, and again when what it depends on changes', async () => {
  using folder = temporaryFolder();
  const stamp = path.join(folder.path, 'deep', 'stamp');
  expect(await stamped(stamp, 'one', () => {})).toBe(true);
  expect(await stamped(stamp, 'one', () => expect.unreachable('the stamp fits'))).toBe(false);
  expect(await stamped(stamp, 'two', () => {})).toBe(true);
  expect(stampFits(stamp, 'two')).toBe(true);
});

test('a step that fails leaves no stamp, not even the old one', async () => {
  using folder = temporaryFolder();
  const stamp = path.join(folder.path, 'stamp');
  await stamped(stamp, 'one', () => {});
  await expect(stamped(stamp, 'two', () => Promise.reject(new Error('cut off')))).rejects.toThrow('cut off');
  expect(existsSync(stamp)).toBe(false);
  expect(await stamped(stamp, 'one', () => {})).toBe(true);
});

test('the hash follows contents and names, in folders too, and takes what is not there as empty', () => {
  using folder = temporaryFolder();
  const hash = () => hashOf(folder.path, ['src', 'lock.json', 'absent']);
  const empty = hash();
  mkdirSync(path.join(folder.path, 'src'));
  writeFileSync(path.join(folder.path, 'src', 'a.ts'), 'a');
  const withA = hash();
  expect(withA).not.toBe(empty);
  writeFileSync(path.join(folder.path, 'src', 'a.ts'), 'b');
  expect(hash()).not.toBe(withA);
  writeFileSync(path.join(folder.path, 'src', 'a.ts'), 'a');
  expect(hash()).toBe(withA);
});

test('a native binding that npm left out is named; those of other platforms are not missed', () => {
  using folder = temporaryFolder();
  const lock = {
    packages: {
      '': { devDependencies: { bundler: '1.0.0' } },
      'node_modules/bundler': {
        dependencies: { helper: '1.0.0' },
        optionalDependencies: { 'binding-gnu': '1', 'binding-musl': '1', 'binding-mac': '1', 'binding-wasm': '1' },
      },
      'node_modules/bundler/node_modules/helper': {},
      'node_modules/binding-gnu': { os: ['linux'], cpu: ['x64'], libc: ['glibc'] },
      'node_modules/binding-musl': { os: ['linux'], cpu: ['x64'], libc: ['musl'] },
      'node_modules/binding-mac': { os: ['darwin'], cpu: ['arm64'] },
      'node_modules/binding-wasm': { cpu: ['wasm32'], dependencies: { 'wasm-runtime': '1' } },
      'node_modules/wasm-runtime': {},
    },
  };
  installed(folder.path, 'bundler');
  expect(missingPackages(lock, LINUX, folder.path)).toEqual([
    'node_modules/binding-gnu',
    'node_modules/bundler/node_modules/helper',
  ]);
  installed(folder.path, 'bundler/node_modules/helper', 'binding-gnu');
  expect(missingPackages(lock, LINUX, folder.path)).toEqual([]);
  expect(missingPackages(lock, { os: 'darwin', cpu: 'arm64', libc: null }, folder.path)).toEqual([
    'node_modules/binding-mac',
  ]);
});

test('the real lockfile names nothing that is missing here', () => {
  const root = path.dirname(BOOTSTRAP);
  const lock = JSON.parse(readFileSync(path.join(root, 'package-lock.json'), 'utf8'));
  expect(missingPackages(lock, { ...LINUX, os: process.platform, cpu: process.arch }, root)).toEqual([]);
});

test('two set-ups of one folder take turns', async () => {
  using folder = temporaryFolder();
  const lock = path.join(folder.path, 'lock');
  const order: string[] = [];
  using told = vi.spyOn(process.stderr, 'write').mockReturnValue(true);
  const work = (name: string) => () =>
    new Promise<void>(resolve => {
      order.push(`${name} in`);
      setTimeout(() => resolve(void order.push(`${name} out`)), 50);
    });
  await Promise.all([alone(lock, work('first')), alone(lock, work('second'))]);
  expect(order).toEqual(['first in', 'first out', 'second in', 'second out']);
  expect(told.mock.calls.join()).toContain('waiting for another set-up');
  expect(existsSync(lock)).toBe(false);
});

test('the lock of a process that is gone, or was never written, is taken over', async () => {
  using folder = temporaryFolder();
  const lock = path.join(folder.path, 'lock');
  const gone = spawn(process.execPath, ['--version'], { stdio: 'ignore' });
  await once(gone, 'exit');
  writeFileSync(lock, String(gone.pid));
  expect(await alone(lock, () => Promise.resolve('mine'))).toBe('mine');
  writeFileSync(lock, '');
  const longAgo = new Date(Date.now() - 60_000);
  utimesSync(lock, longAgo, longAgo);
  expect(await alone(lock, () => Promise.resolve('mine'))).toBe('mine');
});

const ON_POSIX = process.platform !== 'win32';

/** Hands over, as bootstrap does, to a task that counts signals and prints `ready` first. */
function startTask(folder: string, task: string) {
  const file = path.join(folder, 'task.mjs');
  writeFileSync(file, task);
  const script = `
    import { handOver } from ${JSON.stringify(pathToFileURL(BOOTSTRAP).href)};
    process.exitCode = (await handOver(process.execPath, [${JSON.stringify(file)}], process.env)).code;`;
  return spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
}

test.runIf(ON_POSIX)(
  'a signal that arrives twice in a row reaches the task once, and its exit code comes back',
  async () => {
    using folder = temporaryFolder();
    const child = startTask(
      folder.path,
      `let seen = 0;
     process.on('SIGINT', () => { if (++seen === 1) setTimeout(() => process.exit(40 + seen), 150); });
     setInterval(() => {}, 1000);
     console.log('ready');`,
    );
    await once(child.stdout, 'data');
    child.kill('SIGINT');
    setTimeout(() => child.kill('SIGINT'), 30);
    expect(await once(child, 'exit')).toEqual([41, null]);
  },
);

test.runIf(ON_POSIX)('a task ends when the bootstrap is killed', async () => {
  using folder = temporaryFolder();
  const child = startTask(folder.path, `setInterval(() => {}, 1000); console.log(process.pid);`);
  const [printed] = await once(child.stdout, 'data');
  const pid = Number(printed);
  child.kill('SIGKILL');
  await expect.poll(() => isAlive(pid), { timeout: 4_000 }).toBe(false);
});

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
