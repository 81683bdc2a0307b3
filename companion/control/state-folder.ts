// The folder of what the companion keeps for itself between runs and while it runs: pairings, the PAC secret, the runtime file by which
// the CLI finds it. Files are the owner's alone, written whole or not at all; a link in their place is refused.
import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs';
import { join } from 'node:path';
import * as v from 'valibot';

const RUNTIME_FILE = 'running.json';
/** No file of this folder is larger. */
const MAX_STATE_FILE = 1024 * 1024;

/** What a running companion leaves for the CLI. */
const RunningCompanion = v.object({
  pid: v.number(),
  /** Tells this process from a later one of the same number, where the system says; else empty. */
  born: v.string(),
  /** 0 while it is still starting. */
  host: v.string(),
  port: v.number(),
  /** Lets the CLI in on the control link. */
  token: v.string(),
  configFile: v.string(),
});
export type RunningCompanion = v.InferOutput<typeof RunningCompanion>;

/** A state folder that another companion already uses. */
export class StateFolderTaken extends Error {
  readonly by: RunningCompanion;

  constructor(by: RunningCompanion) {
    super(`Detour already runs (pid ${by.pid}${by.port ? `, port ${by.port}` : ''}).`);
    this.name = 'StateFolderTaken';
    this.by = by;
  }
}

/** Makes the folder when it is missing (mode 0700); takes wider modes back and says so to `warn`. Throws when it is a link or no folder. */
export function openStateFolder(path: string, warn: (message: string) => void): string {
  fs.mkdirSync(path, { recursive: true, mode: 0o700 });
  const stat = fs.lstatSync(path);
  if (!stat.isDirectory()) throw new Error(`${path} is not a folder`);
  if (process.platform !== 'win32' && (stat.mode & 0o077) !== 0) {
    fs.chmodSync(path, 0o700);
    warn(`${path} could be read by others; its mode is 0700 again.`);
  }
  return path;
}

/**
 * The text of one state file, or null when there is none. A wider mode is taken back, with a word to `warn`.
 * Throws where it is a link, no regular file, or absurdly large.
 */
export function readStateFile(folder: string, name: string, warn: (message: string) => void): string | null {
  const path = join(folder, name);
  let fd: number;
  try {
    fd = fs.openSync(path, fs.constants.O_RDONLY | (fs.constants.O_NOFOLLOW ?? 0) | (fs.constants.O_NONBLOCK ?? 0));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return null;
    if (code === 'ELOOP')
      throw new Error(`${path} is a link; Detour keeps its state in plain files only`, { cause: error });
    throw error;
  }
  try {
    const stat = fs.fstatSync(fd);
    if (!stat.isFile()) throw new Error(`${path} is not a plain file`);
    if (stat.size > MAX_STATE_FILE) throw new Error(`${path} is larger than any file Detour writes there`);
    if (process.platform !== 'win32' && (stat.mode & 0o077) !== 0) {
      fs.fchmodSync(fd, 0o600);
      warn(`${path} could be read by others; its mode is 0600 again.`);
    }
    return fs.readFileSync(fd, 'utf8');
  } finally {
    fs.closeSync(fd);
  }
}

/**
 * Writes one state file whole: beside it first, then renamed into its place. Mode 0600. It is on the disk when this returns; `soon`: it will be, which is
 * enough for what can be made again, and does not keep a start waiting for the disk.
 */
export function writeStateFile(folder: string, name: string, text: string, when: 'now' | 'soon' = 'now'): void {
  const path = join(folder, name);
  const beside = `${path}.${process.pid}.${randomBytes(4).toString('hex')}`;
  const fd = fs.openSync(beside, 'wx', 0o600);
  try {
    fs.writeFileSync(fd, text);
    if (when === 'now') fs.fsyncSync(fd);
    fs.renameSync(beside, path);
  } catch (error) {
    fs.closeSync(fd);
    fs.rmSync(beside, { force: true });
    throw error;
  }
  if (when === 'now') fs.closeSync(fd);
  else fs.fsync(fd, () => fs.close(fd, () => {}));
}

/**
 * Claims the folder for this process, so that no two companions write the same files. Throws StateFolderTaken while another lives;
 * what a killed one left behind is taken over.
 */
export function claimStateFolder(folder: string, mine: Omit<RunningCompanion, 'pid' | 'born'>): Claim {
  const running: RunningCompanion = { ...mine, pid: process.pid, born: bornOf(process.pid) };
  const path = join(folder, RUNTIME_FILE);
  const beside = `${path}.${process.pid}.${randomBytes(4).toString('hex')}`;
  fs.writeFileSync(beside, JSON.stringify(running), { flag: 'wx', mode: 0o600 });
  try {
    for (let attempt = 0; ; attempt++) {
      try {
        fs.linkSync(beside, path); // Unlike a rename this fails when somebody else was faster.
        break;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EEXIST' || attempt >= 5) throw error;
        const other = runningCompanion(folder);
        if (other && other.pid !== process.pid) throw new StateFolderTaken(other);
        fs.rmSync(path, { force: true });
      }
    }
  } finally {
    fs.rmSync(beside, { force: true });
  }
  return {
    update(more) {
      Object.assign(running, more);
      // Of no use once this process has ended, by whatever.
      writeStateFile(folder, RUNTIME_FILE, JSON.stringify(running), 'soon');
    },
    release() {
      // Only our own: whoever took over in the meantime keeps theirs.
      if (readRunning(folder)?.token === running.token) fs.rmSync(path, { force: true });
    },
  };
}

export interface Claim {
  /** Writes what has become known, such as the port. */
  update(more: Partial<Pick<RunningCompanion, 'host' | 'port'>>): void;
  release(): void;
}

/** The companion that runs with this state folder, or null. */
export function runningCompanion(folder: string): RunningCompanion | null {
  const running = readRunning(folder);
  return running && isAlive(running) ? running : null;
}

function readRunning(folder: string): RunningCompanion | null {
  try {
    const text = readStateFile(folder, RUNTIME_FILE, () => {});
    const parsed = v.safeParse(RunningCompanion, JSON.parse(text ?? 'null'));
    return parsed.success ? parsed.output : null;
  } catch {
    return null;
  }
}

function isAlive({ pid, born }: RunningCompanion): boolean {
  try {
    process.kill(pid, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EPERM') return false;
  }
  return bornOf(pid) === born;
}

/** When a process began, in the kernel's own count (Linux: field 22 of /proc/PID/stat); empty where that cannot be known. */
function bornOf(pid: number): string {
  try {
    const stat = fs.readFileSync(`/proc/${pid}/stat`, 'latin1');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return fields[0] === 'Z' ? '' : (fields[19] ?? ''); // A zombie has ended; only its parent has not looked yet.
  } catch {
    return '';
  }
}
