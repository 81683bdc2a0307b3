// The thread that writes the disk store: rows in batches, one transaction each, and bodies into files. Files are renamed into place and removed inside
// the transaction, under SQLite's write lock: of several processes one at a time changes anything, so what one evicts no other evicts, too. Nothing is
// forced to the platter on its way (synchronous=NORMAL, no fsync of bodies): a killed process loses nothing by that, a power failure loses the last
// moments or leaves a file short, and what is read is checked, so that such a file is a miss.
import { createHash, type Hash } from 'node:crypto';
import * as fs from 'node:fs';
import { dirname, join } from 'node:path';
import type { DatabaseSync, StatementSync } from 'node:sqlite';
import { parentPort, workerData } from 'node:worker_threads';
import type { Stored } from '../../shared/control.ts';
import type { Bytes, Milliseconds } from '../../shared/units.ts';
import type { FromWriter, Op, PutRow, Renumbered, ToWriter, WriterStart } from './disk-messages.ts';
import {
  APPLICATION_ID,
  BLOCK,
  bodyPath,
  digestOf,
  freshHead,
  isBroken,
  isOurs,
  loadSqlite,
  MAX_INLINE,
  nameOf,
  placesIn,
  reasonOf,
  type RowHead,
  sizeOf,
  TABLES,
  VERSION,
  whereOf,
} from './disk-rows.ts';

/** Answers kept of one URL in one space, and in all of them. */
const MAX_VARIANTS = 8;
const MAX_OF_URL = 32;
/** Rows removed in one transaction; the rest goes in the next. */
const EVICTED_AT_ONCE = 1_000;
/** A file stays so long after its row. */
const DOOMED_FOR: Milliseconds = 1_000;
const SWEEP_AFTER: Milliseconds = 5_000;
const SWEEP_EVERY: Milliseconds = 3_600_000;
/** An unfinished file of another process that lives has not been written for so long: it was given up. */
/** An index that was set aside stays so long, for a person to look at; there is one at the most. */
const SET_ASIDE_FOR: Milliseconds = 7 * 24 * 3_600_000;
const FORGOTTEN_AFTER: Milliseconds = 24 * 3_600_000;

const { folder, mark, ...start } = workerData as WriterStart;
const places = placesIn(folder);
let { limit } = start;

const NOTHING = new Uint8Array(0);

function say(message: FromWriter): void {
  parentPort!.postMessage(message);
}

// The index -----------------------------------------------------------------------------------------------------------------------------------

interface Index {
  readonly database: DatabaseSync;
  /** Of the file that is open. */
  readonly inode: number;
  /** By SQL, prepared once. */
  readonly statements: Map<string, StatementSync>;
}

let index: Index | null = null;

function sql(text: string): StatementSync {
  let statement = index!.statements.get(text);
  if (statement === undefined) {
    statement = index!.database.prepare(text);
    index!.statements.set(text, statement);
  }
  return statement;
}

function inodeOf(path: string): number | null {
  return fs.lstatSync(path, { throwIfNoEntry: false })?.ino ?? null;
}

/** Opens the index, or makes it; true where it is another file than before. Throws the system's error or SQLite's. */
function ready(): boolean {
  if (index !== null) {
    if (inodeOf(places.index) === index.inode) return false;
    // Somebody has removed it, or another process has set it aside.
    shut();
  }
  for (const path of [folder, places.bodies, places.unfinished]) makeFolder(path);
  const found = fs.lstatSync(places.index, { throwIfNoEntry: false });
  if (found !== undefined && !found.isFile()) setAside();
  for (let tries = 0; ; tries++) {
    try {
      index = open();
      return true;
    } catch (error) {
      if (tries === 3) throw error;
      if (isBroken(error)) setAside();
      // Another process makes it just now.
      else if (((error as { errcode?: number }).errcode ?? 0) % 256 === 5) pause(100);
      else throw error;
    }
  }
}

function makeFolder(path: string): void {
  fs.mkdirSync(path, { recursive: true, mode: 0o700 });
  const stat = fs.lstatSync(path);
  if (!stat.isDirectory()) throw Object.assign(new Error(`${path} is not a folder`), { code: 'ENOTDIR' });
  if (process.platform !== 'win32' && (stat.mode & 0o077) !== 0) fs.chmodSync(path, 0o700);
}

function open(): Index {
  // SQLite would make it readable by all; what stands beside it takes its mode.
  fs.closeSync(fs.openSync(places.index, 'a', 0o600));
  const inode = inodeOf(places.index)!;
  const { DatabaseSync } = loadSqlite();
  const database = new DatabaseSync(places.index, { timeout: 5_000 });
  try {
    database.exec('PRAGMA page_size = 8192; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA trusted_schema = OFF');
    database.exec('PRAGMA cell_size_check = ON; PRAGMA cache_size = -4096; PRAGMA temp_store = MEMORY');
    database.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA journal_size_limit = 16777216');
    database.exec('BEGIN IMMEDIATE');
    const { tables } = database.prepare('SELECT count(*) AS tables FROM sqlite_schema').get() as { tables: number };
    if (tables === 0) {
      database.exec(`${TABLES} PRAGMA application_id = ${APPLICATION_ID}; PRAGMA user_version = ${VERSION}`);
    } else if (!isOurs(database)) {
      throw Object.assign(new Error('the index is of another version, or of another program'), { errcode: 26 });
    }
    database.exec('COMMIT');
    return { database, inode, statements: new Map() };
  } catch (error) {
    database.close();
    throw error;
  }
}

/** An index that cannot be used goes out of the way, for a person to look at; the next one takes its place. Bodies without rows are swept. */
const aside = `${places.index}.set-aside`;

function setAside(): void {
  shut();
  fs.rmSync(aside, { recursive: true, force: true });
  if (fs.existsSync(places.index)) {
    fs.renameSync(places.index, aside);
    fs.utimesSync(aside, new Date(), new Date());
  }
  for (const suffix of ['-wal', '-shm']) fs.rmSync(`${places.index}${suffix}`, { recursive: true, force: true });
  sweepLater(true);
}

function shut(): void {
  try {
    index?.database.close();
  } catch {
    // It is broken.
  }
  index = null;
}

/** Does it in one transaction. Throws what it throws, with nothing done. */
function transaction(work: () => void): void {
  const { database } = index!;
  database.exec('BEGIN IMMEDIATE');
  try {
    work();
    database.exec('COMMIT');
  } catch (error) {
    try {
      if (database.isTransaction) database.exec('ROLLBACK');
    } catch {
      shut();
    }
    throw error;
  }
}

function pause(time: Milliseconds): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, time);
}

// Rows ----------------------------------------------------------------------------------------------------------------------------------------

interface Kept {
  readonly id: number;
  readonly size: Bytes;
  readonly wanted: number;
  readonly file: Uint8Array | null;
}

/** What the transaction has changed so far; `once` are the bytes of what was never asked for again. */
let entries = 0;
let bytes = 0;
let once = 0;

function remove({ id, size, wanted, file }: Kept): void {
  sql('DELETE FROM answers WHERE id = ?').run(id);
  entries--;
  bytes -= size;
  if (wanted === 0) once -= size;
  if (file !== null) doom(hex(file));
}

/** What got other numbers than were asked for, lately: what is to be done with it may be on its way under the old ones. */
let renumbered: Renumbered[] = [];
const MAX_RENUMBERED = 1_000;

function numberOf(id: number, url: string): number {
  return renumbered.find(one => one.id === id && one.url === url)?.instead ?? id;
}

function removeAll(found: readonly unknown[]): void {
  for (const one of found) remove(one as Kept);
}

/** Puts a row in the place of the one with its space and selection; false where that one came later. */
function place(
  row: PutRow,
  length: Bytes,
  body: Uint8Array | null,
  file: Uint8Array | null,
  blocks: Uint8Array | null,
): boolean {
  const others = sql('SELECT id, space, choice, responded, pinned, size, wanted, file FROM answers WHERE url = ?').all(
    row.url,
  ) as unknown as (Kept & { space: string; choice: string; responded: number; pinned: number })[];
  let pinned = row.pinned;
  const same = others.filter(one => one.space === row.space && one.choice === row.choice);
  if (same.some(one => one.responded > row.responded)) return false;
  for (const one of same) {
    pinned ||= one.pinned === 1;
    remove(one);
  }
  const rest = others.filter(one => !same.includes(one)).sort((a, b) => a.responded - b.responded);
  const ofSpace = rest.filter(one => one.space === row.space);
  if (ofSpace.length >= MAX_VARIANTS) remove(ofSpace[0]!);
  else if (rest.length >= MAX_OF_URL) remove(rest[0]!);
  const size = sizeOf(row, length);
  // What takes the place of another was asked for again.
  const wanted = same.length > 0 ? 1 : 0;
  const insert = sql(
    'INSERT INTO answers (id, url, space, choice, place, used, wanted, pinned, size, responded, digest, head, file, blocks, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING',
  );
  const values = [
    row.url,
    row.space,
    row.choice,
    row.place,
    row.used,
    wanted,
    pinned ? 1 : 0,
    size,
    row.responded,
    digestOf(row, file ?? body!),
    row.head,
    file,
    blocks,
    body,
  ];
  // Another process has given the number, too: SQLite takes one that is free.
  if (insert.run(row.id, ...values).changes === 0) {
    const instead = Number(insert.run(null, ...values).lastInsertRowid);
    renumbered.push({ url: row.url, id: row.id, instead });
  }
  entries++;
  bytes += size;
  if (wanted === 0) once += size;
  return true;
}

/** Everything of the URL that was last used no later than `unless` has been asked for again. */
function touch(url: string, used: number, unless: number): void {
  const { size } = sql('SELECT total(size) AS size FROM answers WHERE url = ? AND wanted = 0 AND used <= ?').get(
    url,
    unless,
  ) as { size: number };
  once -= size;
  sql('UPDATE answers SET used = ?, wanted = 1 WHERE url = ? AND used <= ?').run(used, url, unless);
}

function freshen(id: number, url: string, newer: string, responded: number): void {
  const row = sql(
    'SELECT id, url, space, choice, responded, digest, head, file, body, size, wanted FROM answers WHERE id = ? AND url = ?',
  ).get(id, url) as unknown as (RowHead & Kept & { digest: Uint8Array; body: Uint8Array | null }) | undefined;
  if (row === undefined) return;
  // What has been damaged does not become good by a new digest.
  if (!digestOf(row, row.file ?? row.body ?? NOTHING).equals(row.digest)) return remove(row);
  const head = freshHead(row.head, newer);
  if (head === null) return remove(row);
  const fresh = { ...row, head, responded };
  const size = row.size - row.head.length + head.length;
  bytes += size - row.size;
  if (row.wanted === 0) once += size - row.size;
  sql('UPDATE answers SET head = ?, responded = ?, digest = ?, size = ? WHERE id = ?').run(
    head,
    responded,
    digestOf(fresh, row.file ?? row.body ?? NOTHING),
    size,
    id,
  );
}

const FACTS = 'SELECT id, size, wanted, file FROM answers';

function purge(which: Stored): void {
  if (!('all' in which)) {
    const [where, values] = whereOf(which);
    return removeAll(sql(`${FACTS} ${where}`).all(...values));
  }
  sql('DELETE FROM answers').run();
  sql('UPDATE totals SET entries = 0, bytes = 0, once = 0').run();
  entries = 0;
  bytes = 0;
  once = 0;
  fs.rmSync(places.bodies, { recursive: true, force: true });
  makeFolder(places.bodies);
}

/** What was never asked for again may have this part of the room before the rest has to make any (docs/cache.md argues from a trace). */
const SHARE_OF_ONCE = 1 / 5;

/**
 * Makes room, down to a little below the limit: what was never asked for again goes first, the oldest of it, while it has more than its share; then what was
 * used longest ago; and whatever there is, if nothing else is. True where some are left for another time.
 */
function evict(total: Bytes, onceTotal: Bytes): boolean {
  if (total <= limit) return false;
  let over = total - limit + Math.floor(limit / 64);
  let surplus = onceTotal - limit * SHARE_OF_ONCE;
  let left = EVICTED_AT_ONCE;
  const evictFrom = (wanted: 0 | 1, isEnough: () => boolean): void => {
    if (left === 0 || isEnough()) return;
    const found = sql(`${FACTS} WHERE pinned = 0 AND wanted = ? ORDER BY used LIMIT ?`).all(wanted, left);
    for (const one of found as unknown as Kept[]) {
      if (isEnough()) return;
      remove(one);
      left--;
      over -= one.size;
      if (wanted === 0) surplus -= one.size;
    }
  };
  evictFrom(0, () => over <= 0 || surplus <= 0);
  evictFrom(1, () => over <= 0);
  evictFrom(0, () => over <= 0);
  return over > 0 && left === 0;
}

/** Brings the totals up to date and makes room. True where more is to be evicted. */
function settle(): boolean {
  const before = sql('SELECT entries, bytes, once FROM totals').get() as {
    entries: number;
    bytes: number;
    once: number;
  };
  const more = evict(before.bytes + bytes, before.once + once);
  const totals = [before.entries + entries, before.bytes + bytes, before.once + once];
  sql('UPDATE totals SET entries = ?, bytes = ?, once = ?').run(...totals.map(total => Math.max(0, total)));
  return more;
}

// Files that nobody needs any more: who has just looked one up may still open it ------------------------------------------------------------------

const doomed = new Set<string>();
let dooming: NodeJS.Timeout | undefined;

function doom(name: string): void {
  doomed.add(name);
  dooming ??= setTimeout(removeDoomed, DOOMED_FOR);
}

function removeDoomed(): void {
  clearTimeout(dooming);
  dooming = undefined;
  const names = [...doomed];
  doomed.clear();
  if (index === null || names.length === 0) return;
  try {
    transaction(() => {
      for (const name of names) {
        if (sql('SELECT 1 FROM answers WHERE file = ? LIMIT 1').get(Buffer.from(name, 'hex')) !== undefined) continue;
        fs.rmSync(bodyPath(folder, name), { recursive: true, force: true });
      }
    });
  } catch {
    // They are nobody's now, and swept another time.
  }
}

// Bodies that are files -----------------------------------------------------------------------------------------------------------------------

/** A body on its way into a file. */
class Unfinished {
  readonly path: string;
  length: Bytes = 0;
  private readonly fd: number;
  private readonly digests: Buffer[] = [];
  private block: Hash = createHash('sha256');
  private inBlock: Bytes = 0;

  constructor(path: string, fd: number) {
    this.path = path;
    this.fd = fd;
  }

  write(piece: Uint8Array): void {
    for (let at = 0; at < piece.length;) {
      at += fs.writeSync(this.fd, piece, at, piece.length - at, this.length + at);
    }
    this.length += piece.length;
    for (let at = 0; at < piece.length;) {
      const end = Math.min(piece.length, at + BLOCK - this.inBlock);
      this.block.update(piece.subarray(at, end));
      this.inBlock += end - at;
      at = end;
      if (this.inBlock === BLOCK) this.endBlock();
    }
  }

  private endBlock(): void {
    this.digests.push(this.block.digest());
    this.block = createHash('sha256');
    this.inBlock = 0;
  }

  /** The digests of all blocks. */
  end(): Buffer {
    if (this.inBlock > 0) this.endBlock();
    return Buffer.concat(this.digests);
  }

  /** Inside a transaction: into its place, with a row. */
  keep(row: PutRow): void {
    const blocks = this.end();
    const name = nameOf(blocks);
    const path = bodyPath(folder, hex(name));
    if (!place(row, this.length, null, name, blocks)) return this.drop();
    fs.mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    fs.renameSync(this.path, path);
  }

  drop(): void {
    fs.rmSync(this.path, { force: true });
  }
}

/** Those whose pieces still come; the store has opened them and closes them. */
const fillings = new Map<number, Unfinished>();
let ownFiles = 0;

function hex(name: Uint8Array): string {
  return Buffer.from(name.buffer, name.byteOffset, name.byteLength).toString('hex');
}

/** A whole body that came at once and is too large for a row. */
function writeWhole(row: PutRow, body: Uint8Array): void {
  const path = join(places.unfinished, `${mark}-w${++ownFiles}`);
  const fd = fs.openSync(path, 'wx', 0o600);
  const whole = new Unfinished(path, fd);
  try {
    whole.write(body);
    whole.keep(row);
  } catch (error) {
    whole.drop();
    throw error;
  } finally {
    fs.closeSync(fd);
  }
}

// Batches -------------------------------------------------------------------------------------------------------------------------------------

function take(number: number, ops: readonly Op[], bodies: SharedArrayBuffer | undefined): void {
  const part = (at: Bytes, length: Bytes) => (bodies === undefined ? NOTHING : new Uint8Array(bodies, at, length));
  const lost: number[] = [];
  const kept: number[] = [];
  let failed: string | null = null;
  let reopened = false;
  const known = renumbered.length;
  for (const op of ops) {
    if (op.do === 'begin') fillings.set(op.filling, new Unfinished(op.path, op.fd));
    else if (op.do === 'piece') {
      try {
        fillings.get(op.filling)?.write(part(op.at, op.length));
      } catch (error) {
        failed = reasonOf(error);
        lost.push(op.filling);
        forget(op.filling);
      }
    } else if (op.do === 'abort') forget(op.filling);
  }
  const rows = ops.filter(op => op.do !== 'begin' && op.do !== 'piece' && op.do !== 'abort');
  const commits = ops.filter(op => op.do === 'commit').map(op => op.filling);
  if (rows.length > 0) {
    try {
      reopened = write(rows, part);
      for (const one of commits) (fillings.delete(one) ? kept : lost).push(one);
    } catch (error) {
      failed = reasonOf(error);
      for (const one of commits) {
        lost.push(one);
        forget(one);
      }
    }
  }
  say({ type: 'done', number, reopened, failed, lost, kept, renumbered: renumbered.slice(known) });
  renumbered = renumbered.slice(-MAX_RENUMBERED);
}

/** Does what concerns rows; true where the index is another file than before. An index that turns out broken makes room for a new one, once. */
function write(rows: readonly Op[], part: (at: Bytes, length: Bytes) => Uint8Array, again = false): boolean {
  let more = false;
  const known = renumbered.length;
  try {
    const reopened = ready();
    entries = 0;
    bytes = 0;
    once = 0;
    transaction(() => {
      for (const op of rows) perform(op, part);
      more = settle();
    });
    if (more) evictLater();
    vacuum();
    return reopened || again;
  } catch (error) {
    renumbered.length = known;
    if (again || !isBroken(error)) throw error;
    setAside();
    return write(rows, part, true);
  }
}

function perform(op: Op, part: (at: Bytes, length: Bytes) => Uint8Array): void {
  switch (op.do) {
    case 'put': {
      const body = part(op.at, op.length);
      if (op.length <= MAX_INLINE) place(op.row, op.length, body, null, null);
      else writeWhole(op.row, body);
      return;
    }
    case 'commit': {
      const one = fillings.get(op.filling);
      // What is not as long as was said is no whole body.
      if (one !== undefined && one.length === op.length) one.keep(op.row);
      else forget(op.filling);
      return;
    }
    case 'touch':
      return touch(op.url, op.used, op.unless);
    case 'freshen':
      return freshen(numberOf(op.id, op.url), op.url, op.head, op.responded);
    case 'pin': {
      const [where, values] = whereOf(op.which);
      sql(`UPDATE answers SET pinned = ? ${where}`).run(op.pinned ? 1 : 0, ...values);
      return;
    }
    case 'remove':
      return removeAll(sql(`${FACTS} WHERE id = ? AND url = ?`).all(numberOf(op.id, op.url), op.url));
    case 'purge':
      return purge(op.which);
    default:
  }
}

function forget(filling: number): void {
  fillings.get(filling)?.drop();
  fillings.delete(filling);
}

// Behind the batches --------------------------------------------------------------------------------------------------------------------------

let evicting: NodeJS.Timeout | undefined;

function evictLater(): void {
  clearTimeout(evicting);
  evicting = setTimeout(() => {
    try {
      if (index === null) return;
      let more = false;
      entries = 0;
      bytes = 0;
      once = 0;
      transaction(() => {
        more = settle();
      });
      vacuum();
      if (more) evictLater();
    } catch {
      // The next batch tells what is wrong.
    }
  }, 10);
}

/** Gives pages back that are free, a few at a time, where a quarter of all is. */
function vacuum(): void {
  const { freelist_count: free } = sql('PRAGMA freelist_count').get() as { freelist_count: number };
  if (free < 2_048) return;
  const { page_count: pages } = sql('PRAGMA page_count').get() as { page_count: number };
  if (free * 4 > pages) index!.database.exec('PRAGMA incremental_vacuum(512)');
}

let sweeping: NodeJS.Timeout | undefined;

function sweepLater(now = false): void {
  clearTimeout(sweeping);
  sweeping = setTimeout(() => sweep(now), now ? 100 : SWEEP_AFTER);
}

/** Removes files that nobody knows: bodies without rows and what died unfinished. One process does it in an hour, a folder at a time. */
function sweep(atOnce: boolean): void {
  try {
    ready();
    let mine = false;
    transaction(() => {
      const { swept } = sql('SELECT swept FROM totals').get() as { swept: number };
      mine = atOnce || swept < Date.now() - SWEEP_EVERY || swept > Date.now();
      if (mine) sql('UPDATE totals SET swept = ?').run(Date.now());
    });
    if (!mine) return;
    for (const name of fs.readdirSync(places.unfinished)) {
      if (isForgotten(name)) fs.rmSync(join(places.unfinished, name), { recursive: true, force: true });
    }
    const old = fs.lstatSync(aside, { throwIfNoEntry: false });
    if (old !== undefined && old.mtimeMs < Date.now() - SET_ASIDE_FOR)
      fs.rmSync(aside, { recursive: true, force: true });
    sweepFolders(fs.readdirSync(places.bodies));
  } catch {
    // Another time.
  }
}

function sweepFolders(left: string[]): void {
  const name = left.pop();
  if (name === undefined) return;
  sweeping = setTimeout(() => {
    try {
      sweepFolder(name);
    } catch {
      // Another time.
    }
    sweepFolders(left);
  }, 5);
}

function sweepFolder(name: string): void {
  if (index === null) return;
  const path = join(places.bodies, name);
  if (!/^[0-9a-f]{2}$/.test(name)) return fs.rmSync(path, { recursive: true, force: true });
  const isKnown = (file: string) =>
    /^[0-9a-f]{64}$/.test(file) &&
    sql('SELECT 1 FROM answers WHERE file = ? LIMIT 1').get(Buffer.from(file, 'hex')) !== undefined;
  const strangers = fs.readdirSync(path).filter(file => !isKnown(file));
  if (strangers.length === 0) return;
  // Under the lock nobody puts one of them back into use.
  transaction(() => {
    for (const file of strangers) if (!isKnown(file)) fs.rmSync(join(path, file), { recursive: true, force: true });
  });
}

/** Whether nobody writes this file any more: its process has ended. */
function isForgotten(name: string): boolean {
  if (name.startsWith(mark)) return false;
  const pid = Number(/^(\d+)\./.exec(name)?.[1] ?? 0);
  if (pid === 0 || pid === process.pid) return true;
  try {
    process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ESRCH';
  }
  const stat = fs.statSync(join(places.unfinished, name), { throwIfNoEntry: false });
  return stat !== undefined && stat.mtimeMs < Date.now() - FORGOTTEN_AFTER;
}

parentPort!.on('message', (message: ToWriter) => {
  switch (message.type) {
    case 'batch':
      return take(message.number, message.ops, message.bodies);
    case 'limit':
      ({ limit } = message);
      if (index !== null) evictLater();
      return;
    case 'broken':
      try {
        if (inodeOf(places.index) === message.inode) setAside();
        ready();
      } catch {
        // The next batch tells what is wrong.
      }
      return say({ type: 'reopened' });
    case 'close':
      clearTimeout(sweeping);
      clearTimeout(evicting);
      for (const one of fillings.values()) one.drop();
      removeDoomed();
      shut();
      say({ type: 'closed' });
      return parentPort!.close();
    default:
  }
});
sweepLater();
