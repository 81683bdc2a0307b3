// The door to the file on disk: where it is, its first text, reading, and edits that are written whole or not at all.
// The file holds passwords, so its mode stays 0600. A kill at any moment leaves the old text or the new one, nothing between.
import { randomBytes } from 'node:crypto';
import { constants, type Stats } from 'node:fs';
import * as fs from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { inSlices } from '../message/in-slices.ts';
import { EditError } from './editing.ts';
import { ConfigError } from './config-error.ts';
import { type Judge, judgeConfig, type ParsedConfig, configSteps } from './config-file.ts';
import { DEFAULT_CONFIG_TEXT } from './default-text.ts';
import { MAX_CONFIG_SIZE } from './yaml-source.ts';

/** The file, and the only hand that writes it. */
export interface ConfigStore {
  /** As given, or the default place; it stands at the head of every problem. */
  readonly path: string;
  /** Reads and parses; where the text is still that of `known`, gives that back, judged again. Throws ConfigError, also where the file cannot be read. */
  read(known?: ParsedConfig): Promise<ParsedConfig>;
  /**
   * Changes the text that is on disk now and writes the result, one edit after the other. `change` is called again when somebody else
   * writes in between. Gives back what is then in the file; throws what `change` and `parseConfig` throw, EditError where writing fails.
   */
  edit(change: (text: string, fileName: string) => string): Promise<ParsedConfig>;
}

/** Told of things that were put right, and of the file's making: sentences for the terminal. */
export type Warn = (message: string) => void;

/**
 * Opens the file, making it (mode 0600, with comments, in folders of mode 0700) when there is none. What a judge finds wrong is
 * refused like any other fault of the file. Throws ConfigError where the file cannot be made.
 */
export async function openConfigStore(
  path: string,
  warn: Warn = () => {},
  judges: readonly Judge[] = [],
): Promise<ConfigStore> {
  const parse = (text: string) => inSlices(configSteps(text, path, judges));
  await createIfMissing(path, warn);
  await removeLeftovers(path);
  let queue: Promise<unknown> = Promise.resolve();
  return {
    path,
    async read(known) {
      const text = await readConfigText(path, warn);
      if (known?.text !== text) return parse(text);
      judgeConfig(known, path, judges);
      return known;
    },
    edit(change) {
      const done = queue.then(() => editFile(path, change, parse, warn));
      queue = done.catch(() => {});
      return done;
    },
  };
}

/** The file's text. A mode wider than the owner is taken back, with a word to `warn`. Throws ConfigError where it is no readable text file. */
export async function readConfigText(path: string, warn: Warn = () => {}): Promise<string> {
  const fail = (message: string, cause?: unknown) => new ConfigError(path, [{ message }], cause);
  let file: fs.FileHandle;
  try {
    // Non-blocking, so that a pipe in its place does not hang the start.
    file = await fs.open(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0));
  } catch (error) {
    throw fail(sentenceOf(error, 'read'), error);
  }
  try {
    const stat = await file.stat();
    if (stat.isDirectory()) throw fail('is a folder, not a file');
    if (!stat.isFile()) throw fail('is not a plain file');
    if (stat.size > MAX_CONFIG_SIZE) throw fail('is larger than 4 MiB; put many hosts in a list file');
    await takeBackMode(path, file, stat, warn);
    const bytes = await file.readFile();
    try {
      return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
    } catch (error) {
      throw fail('is not UTF-8 text', error);
    }
  } catch (error) {
    throw error instanceof ConfigError ? error : fail(sentenceOf(error, 'read'), error);
  } finally {
    await file.close();
  }
}

async function takeBackMode(path: string, file: fs.FileHandle, stat: Stats, warn: Warn): Promise<void> {
  if (process.platform === 'win32' || (stat.mode & 0o077) === 0) return;
  try {
    await file.chmod(0o600);
    warn(`${path} could be read by others; its mode is 0600 again.`);
  } catch {
    warn(`${path} can be read by others, and its mode cannot be changed: it is not yours.`);
  }
}

async function createIfMissing(path: string, warn: Warn): Promise<void> {
  try {
    await fs.stat(path);
    return;
  } catch (error) {
    // What else may be wrong is told when it is read.
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') return;
  }
  try {
    await fs.mkdir(dirname(path), { recursive: true, mode: 0o700 });
    await writeWhole(await realTarget(path), DEFAULT_CONFIG_TEXT, async temporary => {
      const target = await realTarget(path);
      try {
        await fs.link(temporary, target); // unlike a rename, never over a file that has come meanwhile
        await fs.rm(temporary);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'EEXIST') throw error;
        await fs.rename(temporary, target); // a file system without links
      }
    });
    warn(`${path} is new: it explains itself.`);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return;
    throw new ConfigError(path, [{ message: sentenceOf(error, 'made') }], error);
  }
}

async function editFile(
  path: string,
  change: (text: string, fileName: string) => string,
  parse: (text: string) => Promise<ParsedConfig>,
  warn: Warn,
): Promise<ParsedConfig> {
  for (let attempt = 0; attempt < 5; attempt++) {
    const text = await readConfigText(path, warn);
    const next = change(text, path);
    const parsed = await parse(next);
    if (next === text) return parsed;
    try {
      const target = await realTarget(path);
      let kept = true;
      await writeWhole(target, next, async temporary => {
        kept = (await readConfigText(path, warn)) === text;
        if (kept) await fs.rename(temporary, target);
        else await fs.rm(temporary);
      });
      if (kept) return parsed;
    } catch (error) {
      if (error instanceof ConfigError) throw error;
      throw new EditError(`${path} ${sentenceOf(error, 'written')}.`, error);
    }
  }
  throw new EditError(`${path} changes faster than it can be edited.`);
}

/** Writes `text` beside the target and has `place` put it there; what is on disk is on disk before and after. */
async function writeWhole(target: string, text: string, place: (temporary: string) => Promise<void>): Promise<void> {
  const folder = dirname(target);
  const temporary = join(folder, `.${basename(target)}.${process.pid}.${randomBytes(4).toString('hex')}.tmp`);
  const file = await fs.open(temporary, 'wx', 0o600);
  try {
    try {
      await file.writeFile(text);
      await file.sync();
    } finally {
      await file.close();
    }
    await place(temporary);
  } catch (error) {
    await fs.rm(temporary, { force: true });
    throw error;
  }
  await syncFolder(folder);
}

async function syncFolder(folder: string): Promise<void> {
  try {
    const handle = await fs.open(folder, 'r');
    await handle.sync().finally(() => handle.close());
  } catch {
    // Some file systems cannot; then the rename is as durable as it gets.
  }
}

/** The file that a link (even one to nothing yet) stands for, so that a write goes through it. */
async function realTarget(path: string): Promise<string> {
  let target = resolve(path);
  for (let links = 0; links < 40; links++) {
    let written: string;
    try {
      written = await fs.readlink(target);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code !== 'EINVAL' && code !== 'ENOENT' && code !== 'UNKNOWN') throw error;
      return join(await fs.realpath(dirname(target)), basename(target));
    }
    target = resolve(dirname(target), written);
  }
  throw new EditError(`${path} is a link that leads nowhere.`);
}

/** Takes away what writers that were killed have left beside the file. */
async function removeLeftovers(path: string): Promise<void> {
  try {
    const target = await realTarget(path);
    const folder = dirname(target);
    const prefix = `.${basename(target)}.`;
    for (const name of await fs.readdir(folder)) {
      if (!name.startsWith(prefix)) continue;
      const pid = /^(\d+)\.[0-9a-f]{8}\.tmp$/.exec(name.slice(prefix.length))?.[1];
      if (pid !== undefined && !isAlive(Number(pid))) await fs.rm(join(folder, name), { force: true });
    }
  } catch {
    // They do no harm.
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

function sentenceOf(error: unknown, done: 'read' | 'made' | 'written'): string {
  const { code } = error as NodeJS.ErrnoException;
  switch (code) {
    case 'ENOENT':
      return done === 'read' ? 'does not exist' : `cannot be ${done}: its folder does not exist`;
    case 'EACCES':
    case 'EPERM':
      return `cannot be ${done}: permission denied`;
    case 'EROFS':
      return `cannot be ${done}: the disk is read-only`;
    case 'ENOSPC':
    case 'EDQUOT':
      return `cannot be ${done}: the disk is full`;
    case 'ENOTDIR':
      return `cannot be ${done}: a part of its path is not a folder`;
    case 'ELOOP':
      return `cannot be ${done}: it is a link that leads nowhere`;
    case 'EISDIR':
      return 'is a folder, not a file';
    default:
      return `cannot be ${done}${code ? ` (${code})` : ''}`;
  }
}
