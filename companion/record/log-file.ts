// The optional log on disk: one exchange a line as JSON, secrets taken out, written in batches, rotated by size, readable by its owner.
// A disk that is full or gone costs lines and one warning, never an exchange; what a full disk or a crash has cut in half is taken out again.
import { constants } from 'node:fs';
import { type FileHandle, open, rename, rm } from 'node:fs/promises';
import type { Exchange } from '../../shared/exchange.ts';
import { type Bytes, MiB } from '../../shared/units.ts';

/** A batch is written when it is this large … */
const BATCH: Bytes = 64 * 1024;
/** … or this old, in milliseconds. */
const BATCH_AGE = 250;
/** What may wait for a slow disk; beyond it lines are dropped. */
const MAX_WAITING: Bytes = 4 * MiB;

export interface LogFileSettings {
  readonly path: string;
  /** It rotates when a batch would take it past this size. */
  readonly size: Bytes;
  /** Rotated files kept: `path.1` is the youngest. */
  readonly keep: number;
}

export interface LogFile {
  add(exchange: Exchange): void;
  /** Writes what waits and closes the file. */
  close(): Promise<void>;
}

/** Looked through from the end for the last whole line, when a file is opened. */
const TAIL: Bytes = 64 * 1024;

const SECRET_KEY = /token|pass|pwd|secret|key|auth|sig|session|credential|code|jwt/i;

/** `key=value`, as it may be read; anything else as it is. Each piece is looked at once, however long it is. */
function redactPair(pair: string): string {
  const start = pair.search(/[^=]/);
  const equals = start === -1 ? -1 : pair.indexOf('=', start);
  return equals !== -1 && SECRET_KEY.test(decoded(pair.slice(start, equals))) ? `${pair.slice(0, equals)}=…` : pair;
}

/** The URL without user information, and with the values of telling query keys (token, password, key …) replaced by `…`. */
export function redactUrl(url: string): string {
  const bare = url.replace(/^([a-z][a-z0-9+.-]*:\/\/)[^/?#]*@/i, '$1');
  const question = bare.indexOf('?');
  if (question < 0) return bare;
  const query = bare
    .slice(question + 1)
    .split(/([&;])/)
    .map(redactPair)
    .join('');
  return bare.slice(0, question + 1) + query;
}

function decoded(key: string): string {
  try {
    return decodeURIComponent(key);
  } catch {
    return key;
  }
}

/** The exchange as it may stand in a file. */
export function redact(exchange: Exchange): Exchange {
  return { ...exchange, url: redactUrl(exchange.url) };
}

/** Opens (at the first batch) and keeps a log file. `warn` hears of trouble once, and again only after writing had worked in between. */
export function openLogFile(settings: LogFileSettings, warn: (message: string) => void): LogFile {
  let lines: string[] = [];
  let waiting = 0;
  let dropped = 0;
  let troubled = false;
  let handle: FileHandle | null = null;
  let size = 0;
  let timer: NodeJS.Timeout | undefined;
  let writing: Promise<void> = Promise.resolve();
  let busy = false;

  const reopen = async () => {
    const flags = constants.O_RDWR | constants.O_APPEND | constants.O_CREAT | (constants.O_NOFOLLOW ?? 0);
    const opened = await open(settings.path, flags, 0o600);
    const stat = await opened.stat();
    if (!stat.isFile()) {
      await opened.close();
      throw new Error('is not a regular file');
    }
    if ((stat.mode & 0o077) !== 0) await opened.chmod(0o600);
    size = await wholeLines(opened, stat.size);
    handle = opened;
  };

  const rotate = async () => {
    await handle?.close();
    handle = null;
    await rm(`${settings.path}.${settings.keep}`, { force: true });
    for (let i = settings.keep - 1; i >= 0; i--) {
      await rename(i === 0 ? settings.path : `${settings.path}.${i}`, `${settings.path}.${i + 1}`).catch(ignoreMissing);
    }
    await reopen();
  };

  const flush = async () => {
    const batch = lines;
    if (batch.length === 0) return;
    lines = [];
    const bytes = Buffer.from(batch.join(''));
    try {
      if (!handle) await reopen();
      if (size > 0 && size + bytes.length > settings.size) await rotate();
      await handle!.appendFile(bytes);
      size += bytes.length;
      if (troubled) warn(`The log is written again; ${dropped} exchanges are missing from it.`);
      troubled = false;
      dropped = 0;
    } catch (error) {
      dropped += batch.length;
      if (!troubled)
        warn(`The log ${settings.path} cannot be written: ${(error as Error).message}. Going on without it.`);
      troubled = true;
      // A full disk may have taken half of the batch.
      await handle?.truncate(size).catch(() => {});
      await handle?.close().catch(() => {});
      handle = null;
    } finally {
      waiting -= bytes.length;
    }
  };

  const begin = () => {
    clearTimeout(timer);
    timer = undefined;
    if (busy) return;
    busy = true;
    writing = (async () => {
      while (lines.length > 0) await flush();
      busy = false;
    })();
  };

  return {
    add(exchange) {
      if (waiting > MAX_WAITING) {
        dropped++;
        return;
      }
      const line = `${JSON.stringify(redact(exchange))}\n`;
      lines.push(line);
      waiting += Buffer.byteLength(line);
      if (waiting >= BATCH) begin();
      else timer ??= setTimeout(begin, BATCH_AGE).unref();
    },
    async close() {
      begin();
      await writing;
      await handle?.close().catch(() => {});
      handle = null;
    },
  };
}

/** Takes off what stands behind the last whole line: half a line that a crash has left. Gives back the length of the rest. */
async function wholeLines(file: FileHandle, size: Bytes): Promise<Bytes> {
  const tail = Buffer.alloc(Math.min(size, TAIL));
  const { bytesRead } = await file.read(tail, 0, tail.length, size - tail.length);
  const newline = tail.lastIndexOf(10, bytesRead - 1);
  if (bytesRead === 0 || newline === bytesRead - 1) return size;
  // With no end of a line in sight it is no log of ours: it is left as it is.
  if (newline === -1 && size > TAIL) return size;
  const whole = size - tail.length + newline + 1;
  await file.truncate(whole);
  return whole;
}

function ignoreMissing(error: NodeJS.ErrnoException): void {
  if (error.code !== 'ENOENT') throw error;
}
