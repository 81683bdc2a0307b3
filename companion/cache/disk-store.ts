// The disk tier, as the traffic's thread sees it: it reads by itself (disk-index.ts), and leaves all writing to a thread of its own (disk-writer.ts),
// which gets batches. What is queued counts as stored already. The queue is bounded: beyond it answers are not kept. Whatever is wrong
// with the disk, an answer is only a miss; one sentence says so, and it is tried again every half minute.
//
//   get ──▶ queued ──▶ index.db (read only) ──▶ bodies/ab/abcd…      every row and block checked by its digest
//   put, touch, remove … ──▶ batch ──▶ thread ──▶ transaction
import * as fs from 'node:fs';
import { join } from 'node:path';
import type { DatabaseSync } from 'node:sqlite';
import type { Stored } from '../../shared/control.ts';
import type { Bytes, EpochMilliseconds, Milliseconds, Seconds } from '../../shared/units.ts';
import { KiB, MiB } from '../../shared/units.ts';
import { BatchMemory } from './disk-batch-memory.ts';
import {
  entryFrom,
  entryOf,
  type FileKeeper,
  hasSameBody,
  headOf,
  type KnownBody,
  knownBody,
  RowNumbers,
  rowOf,
} from './disk-entry.ts';
import { DiskFilter } from './disk-filter.ts';
import { DiskIndex } from './disk-index.ts';
import type { FromWriter, Op, PutRow, Renumbered } from './disk-messages.ts';
import { choiceText, haveSameValidator, headFacts, placesIn, reasonOf, whereOf } from './disk-rows.ts';
import { WriterThread } from './disk-thread.ts';
import { type Entry, meaning } from './store.ts';

/** What may wait to be written, all told; more is not kept. */
const QUEUE: Bytes = 16 * MiB;
const MAX_QUEUED_OPS = 20_000;
/** Removals that may wait while nothing can be written; beyond it all is removed. */
const MAX_OWED = 10_000;
/** A batch goes when so much waits, or so long. */
const BATCH: Bytes = 512 * KiB;
const BATCH_AFTER: Milliseconds = 20;
/** Use is noted again after so long only: the order of eviction need not be finer. */
const TOUCH_AFTER: Seconds = 600;
const RETRY_AFTER: Milliseconds = 30_000;
/** The same trouble is not told more often. */
const WARN_EVERY: Milliseconds = 3_600_000;
/** No body is larger than this part of the store. */
const LARGEST_SHARE = 8;

export interface DiskOptions {
  /** Made when first needed. */
  readonly folder: string;
  /** Bytes on the disk. */
  readonly limit: Bytes;
  readonly warn: (message: string) => void;
  /** Nobody else writes in the folder meanwhile: what the index lacks is remembered, and not asked for. */
  readonly alone?: boolean;
  readonly now?: () => EpochMilliseconds;
  readonly retryAfter?: Milliseconds;
  readonly touchAfter?: Seconds;
  readonly idleAfter?: Milliseconds;
}

/** A stored answer, and the number of its row. */
export interface DiskEntry {
  readonly id: number;
  readonly entry: Entry;
}

/** A body on its way to the disk. */
export interface DiskFilling {
  /** Takes the bytes, which must not change any more. False: it is given up, because the disk is too slow or does not take it. */
  write(chunk: Buffer): boolean;
  /** It is whole: `entry` without its body. The answer can be found as soon as all is written. */
  commit(entry: Omit<Entry, 'body' | 'partial'>): void;
  abort(): void;
}

/** What goes to the thread at once, or has gone and is not done yet. */
interface Batch {
  readonly ops: Op[];
  /** Bodies, one behind the other, in memory that both threads see; null = none yet. */
  bodies: Buffer | null;
  bytes: Bytes;
}

/** An answer that is queued: its row, and where its body stands until its batch is done. */
interface Queued {
  readonly row: PutRow;
  readonly bodies: Buffer;
  readonly at: Bytes;
  readonly length: Bytes;
  readonly batch: number;
}

const ALL: Stored = { all: true };
const EMPTY = Buffer.alloc(0);

export class DiskStore {
  /** A body that is read from a file and goes out whole is handed to `promote` up to this length. */
  promoteUpTo: Bytes = 0;
  promote: (url: string, id: number, body: Buffer) => void = () => {};
  private readonly options: DiskOptions;
  private readonly now: () => EpochMilliseconds;
  private readonly mark = `${process.pid}.${Math.random().toString(36).slice(2, 10)}`;
  private limit: Bytes;
  private readonly index: DiskIndex;
  private readonly filter: DiskFilter | null;
  private readonly thread: WriterThread;
  private isClosing = false;

  private batch: Batch = { ops: [], bodies: null, bytes: 0 };
  private readonly memory = new BatchMemory(BATCH);
  private number = 1;
  private readonly sent = new Map<number, Batch>();
  private waiting: Bytes = 0;
  private timer: NodeJS.Timeout | undefined;
  private fillings = new Map<number, number>();
  private lastFilling = 0;
  private readonly lostFillings = new Set<number>();

  private readonly queued = new Map<string, Queued[]>();
  /** What is to be removed, by `keyOf`, and the batch that does it. Numbers alone would not do: another process may have given the same. */
  private readonly gone = new Map<string, number>();
  private readonly fresh = new Map<string, { entry: Entry; batch: number }>();
  /** URLs of bodies that came piece by piece and are whole, and the batch that says so. */
  private readonly committing = new Map<string, number>();
  private purges: { which: Stored; isMeant: (url: string) => boolean; batch: number }[] = [];

  private failedAt: number | null = null;
  private warnedAt = -Infinity;
  private readonly numbers: RowNumbers;
  private readonly keeper: FileKeeper;

  constructor(options: DiskOptions) {
    this.options = options;
    this.limit = options.limit;
    this.now = options.now ?? Date.now;
    this.numbers = new RowNumbers(this.now);
    this.keeper = {
      folder: options.folder,
      keepUpTo: () => this.promoteUpTo,
      broken: (id, url) => this.remove(id, url),
      whole: (url, id, bytes) => this.promote(url, id, bytes),
    };
    this.thread = new WriterThread({
      start: () => ({ folder: options.folder, limit: this.limit, mark: this.mark }),
      idleAfter: options.idleAfter,
      isBusy: () => this.sent.size > 0 || this.fillings.size > 0,
      hear: message => this.hear(message),
      lost: why => this.lost(why),
    });
    this.index = new DiskIndex(options.folder, inode => {
      if (this.writes) this.thread.post({ type: 'broken', inode });
    });
    const { index, queued, committing } = this;
    this.filter = !options.alone
      ? null
      : new DiskFilter({
          urls: (after, limit) => index.urls(after, limit),
          count: () => index.totals()?.entries ?? 0,
          queued: () => [...queued.keys(), ...committing.keys()],
        });
  }

  /** Whether answers are written at present. */
  get writes(): boolean {
    return !this.isClosing && (this.failedAt === null || this.elapsed() - this.failedAt >= this.retryAfter);
  }

  setLimit(limit: Bytes): void {
    this.limit = limit;
    this.thread.setLimit(limit);
  }

  /** Opens what is there, so that the first who asks need not wait for that (2 ms). */
  warmUp(): void {
    this.index.ask(() => null);
  }

  // Reading -----------------------------------------------------------------------------------------------------------------------------------

  /** All that is kept of a URL, in no order; what is damaged is not among it, and is removed. */
  get(url: string, touch: boolean): DiskEntry[] {
    const found: DiskEntry[] = [];
    const queued = this.queued.get(url);
    if (queued !== undefined) {
      for (const one of queued) if (!this.isGone(one.row.id, url)) found.push(this.freshened(one.row.id, entryIn(one)));
    }
    if (this.filter?.lacks(url) === true) return found;
    for (const row of this.index.rows(url)) {
      const id = row[0];
      if (this.isGone(id, url) || this.isPurged(url)) continue;
      if (queued?.some(one => one.row.id === id || (one.row.choice === row[2] && one.row.space === row[1]))) continue;
      const entry = entryFrom(url, row, this.keeper);
      if (entry === undefined) continue;
      if (entry === null) {
        this.remove(id, url);
        continue;
      }
      found.push(this.freshened(id, entry));
      if (touch && this.seconds - row[3] >= this.touchAfter) this.touch(url);
    }
    return found;
  }

  /** Answers that are meant, at most so many, as they lie there. */
  list(which: Stored, limit: number): DiskEntry[] {
    const urls = new Set<string>();
    const isMeant = meaning(which);
    for (const url of this.queued.keys()) if (isMeant(url)) urls.add(url);
    const [where, values] = whereOf(which);
    const rows = this.index.ask(database =>
      database.prepare(`SELECT DISTINCT url FROM answers ${where} LIMIT ?`).all(...values, limit),
    );
    for (const row of rows ?? []) urls.add((row as { url: string }).url);
    const found: DiskEntry[] = [];
    for (const url of urls) {
      for (const one of this.get(url, false)) if (found.length < limit) found.push(one);
      if (found.length >= limit) break;
    }
    return found;
  }

  /** What the index counts, and what is queued. */
  stats(): { entries: number; bytes: Bytes } {
    let { entries, bytes } = this.index.totals() ?? { entries: 0, bytes: 0 };
    if (this.purges.some(({ which }) => 'all' in which)) entries = bytes = 0;
    for (const all of this.queued.values()) {
      entries += all.length;
      for (const { length } of all) bytes += length;
    }
    return { entries, bytes };
  }

  private freshened(id: number, entry: Entry): DiskEntry {
    const fresh = this.fresh.size === 0 ? undefined : this.fresh.get(keyOf(id, entry.url))?.entry;
    if (fresh === undefined || fresh.partial?.complete !== entry.partial?.complete) return { id, entry };
    if (!haveSameValidator(fresh.lines, entry.lines)) return { id, entry };
    return { id, entry: { ...fresh, body: entry.body, partial: entry.partial } };
  }

  private isGone(id: number, url: string): boolean {
    return this.gone.size > 0 && this.gone.has(keyOf(id, url));
  }

  private isPurged(url: string): boolean {
    return this.purges.some(({ isMeant }) => isMeant(url));
  }

  // Writing -----------------------------------------------------------------------------------------------------------------------------------

  /** Keeps an answer whose body is in memory; the number of its row, or null where it is not kept. */
  put(entry: Entry): number | null {
    const { bytes, row } = rowOf(entry, this.numbers.next(), this.seconds);
    if (!this.hasRoom(bytes.length + row.head.length)) return null;
    const at = this.stage(bytes);
    this.enqueue(row, at, bytes.length);
    this.add({ do: 'put', row, at, length: bytes.length }, bytes.length + row.head.length);
    return row.id;
  }

  /** Whether a body of this length may be kept; null: it is not known. */
  takes(length: Bytes | null): boolean {
    return this.writes && (length ?? 0) <= this.limit / LARGEST_SHARE;
  }

  /** Begins a body that comes piece by piece; null where it cannot be kept. */
  begin(length: Bytes | null): DiskFilling | null {
    if (!this.takes(length) || !this.hasRoom(0)) return null;
    const { unfinished } = placesIn(this.options.folder);
    const filling = ++this.lastFilling;
    const path = join(unfinished, `${this.mark}-${filling}`);
    let fd: number;
    try {
      fs.mkdirSync(unfinished, { recursive: true, mode: 0o700 });
      fd = fs.openSync(path, 'wx', 0o600);
    } catch (error) {
      this.failed(reasonOf(error));
      return null;
    }
    this.fillings.set(filling, fd);
    this.add({ do: 'begin', filling, fd, path });
    let held = 0;
    let open = true;
    const give = (op: Op) => {
      open = false;
      this.add(op);
    };
    return {
      write: chunk => {
        if (!open) return false;
        held += chunk.length;
        if (this.lostFillings.has(filling) || !this.hasRoom(chunk.length) || !this.takes(held)) {
          give({ do: 'abort', filling });
          return false;
        }
        this.add({ do: 'piece', filling, at: this.stage(chunk), length: chunk.length }, chunk.length);
        return true;
      },
      commit: entry => {
        if (!open) return;
        if (this.lostFillings.has(filling) || (length !== null && length !== held)) {
          return give({ do: 'abort', filling });
        }
        const { row } = rowOf(
          {
            ...entry,
            partial: null,
            body: { length: held, bytes: EMPTY, open: () => EMPTY },
          },
          this.numbers.next(),
          this.seconds,
        );
        this.committing.set(entry.url, this.number);
        this.filter?.add(entry.url);
        give({ do: 'commit', filling, row, length: held });
      },
      abort: () => {
        if (open) give({ do: 'abort', filling });
      },
    };
  }

  /** A use counts so long after the last one that did. */
  get touchAfter(): Seconds {
    return this.options.touchAfter ?? TOUCH_AFTER;
  }

  /** It has been used. */
  touch(url: string): void {
    if (!this.hasRoom(0)) return;
    const used = this.seconds;
    this.add({ do: 'touch', url, used, unless: used - this.touchAfter });
  }

  /** The numbers of what lies in this place: same URL, space and selection. */
  idsLike({ url, space, selection }: Pick<Entry, 'url' | 'space' | 'selection'>): number[] {
    const choice = choiceText(selection);
    const ids = (this.queued.get(url) ?? [])
      .filter(({ row }) => row.space === space && row.choice === choice && !this.isGone(row.id, url))
      .map(({ row }) => row.id);
    if (this.isPurged(url)) return ids;
    for (const [id, itsSpace, itsChoice] of this.index.places(url)) {
      if (itsSpace === space && itsChoice === choice && !this.isGone(id, url) && !ids.includes(id)) ids.push(id);
    }
    return ids;
  }

  /** Of those the ones with this body: another answer may have come into the place, from another process or by being later. */
  idsOf(entry: Entry): number[] {
    const ids = this.idsLike(entry);
    if (ids.length === 0) return ids;
    const bodies = new Map<number, KnownBody>();
    const rows = this.index.heads(entry.url, (id, respondedAt, head) => [id, respondedAt, headFacts(head)] as const);
    for (const [id, respondedAt, { parts, ...facts }] of rows) {
      bodies.set(id, { ...facts, respondedAt, isWhole: parts === null });
    }
    for (const { row } of this.queued.get(entry.url) ?? []) {
      const { parts, ...facts } = headFacts(row.head);
      bodies.set(row.id, { ...facts, respondedAt: row.responded, isWhole: parts === null });
    }
    return ids.filter(id => {
      const body = bodies.get(id);
      // It has been given another head since.
      const head = this.fresh.get(keyOf(id, entry.url))?.entry;
      return (
        body !== undefined && hasSameBody(head === undefined ? body : { ...body, ...headOf(head) }, knownBody(entry))
      );
    });
  }

  removeLike(entry: Pick<Entry, 'url' | 'space' | 'selection'>): void {
    for (const id of this.idsLike(entry)) this.remove(id, entry.url);
  }

  /** Whether there is anything of a URL. */
  has(url: string): boolean {
    if (this.queued.has(url) || this.committing.has(url)) return true;
    return this.index.places(url).length > 0;
  }

  /** Another head for the same body, or for the same parts or fewer: those of `entry` are not looked at. Another body there is removed. */
  freshen(id: number, entry: Entry): void {
    const { url } = entry;
    if (!this.hasRoom(0)) return this.remove(id, url);
    const { head, responded } = rowOf(
      { ...entry, partial: entry.partial && { ...entry.partial, parts: [] } },
      0,
      this.seconds,
    ).row;
    this.fresh.set(keyOf(id, url), { entry, batch: this.number });
    this.add({ do: 'freshen', id, url, head, responded }, head.length);
  }

  /** Keeps what is meant, or no longer; how many are now otherwise. */
  pin(which: Stored, pinned: boolean): number {
    this.flush();
    const [where, values] = whereOf(which);
    const count = this.index.ask(database =>
      database
        .prepare(`SELECT count(*) AS count FROM answers ${where} ${where === '' ? 'WHERE' : 'AND'} pinned != ?`)
        .get(...values, pinned ? 1 : 0),
    ) as { count: number } | null;
    this.add({ do: 'pin', which, pinned });
    this.flush();
    return count?.count ?? 0;
  }

  /** Removes the row of this number, if it is one of this URL. */
  remove(id: number, url: string): void {
    this.gone.set(keyOf(id, url), this.number);
    this.add({ do: 'remove', id, url });
  }

  /** Removes what is meant; how many answers that were. */
  purge(which: Stored): number {
    let count = 0;
    const isMeant = meaning(which);
    for (const [url, all] of this.queued) {
      if (!isMeant(url)) continue;
      count += all.filter(({ row }) => !this.isGone(row.id, url)).length;
      this.queued.delete(url);
    }
    count += this.index.ask(database => this.countIn(database, which)) ?? 0;
    this.purges.push({ which, isMeant, batch: this.number });
    this.add({ do: 'purge', which });
    // At once: a person waits, or what an unsafe method has made invalid must not come back after a crash.
    this.flush();
    return count;
  }

  /** How many answers of the index are meant that are not to be removed already. */
  private countIn(database: DatabaseSync, which: Stored): number {
    const [where, values] = whereOf(which);
    if (this.purges.length > 0 || this.gone.size > 0) {
      let count = 0;
      for (const row of database.prepare(`SELECT id, url FROM answers ${where}`).iterate(...values)) {
        const { id, url } = row as { id: number; url: string };
        if (!this.isGone(id, url) && !this.isPurged(url)) count++;
      }
      return count;
    }
    const query =
      'all' in which
        ? database.prepare('SELECT entries AS count FROM totals')
        : database.prepare(`SELECT count(*) AS count FROM answers ${where}`);
    return (query.get(...values) as { count: number }).count;
  }

  /** Resolves when all that was queued until now has been written, or could not be. */
  async settled(): Promise<void> {
    this.flush();
    const waiting = [...this.sent.keys()];
    while (waiting.some(number => this.sent.has(number))) await new Promise(resolve => setTimeout(resolve, 1));
  }

  /** Writes what is queued, then lets go of everything. */
  async close(): Promise<void> {
    if (this.isClosing) return;
    this.flush();
    this.isClosing = true;
    clearTimeout(this.timer);
    this.index.close();
    this.filter?.forget(Infinity);
    await this.thread.close();
    for (const fd of this.fillings.values()) fs.closeSync(fd);
    this.fillings.clear();
  }

  private enqueue(row: PutRow, at: Bytes, length: Bytes): void {
    this.filter?.add(row.url);
    const one: Queued = { row, bodies: this.batch.bodies ?? EMPTY, at, length, batch: this.number };
    const before = this.queued.get(row.url);
    const others = before?.filter(({ row: { choice, space } }) => choice !== row.choice || space !== row.space);
    this.queued.set(row.url, others === undefined ? [one] : [...others, one]);
  }

  /** Puts bytes into the memory of the batch; where they stand there. */
  private stage(bytes: Uint8Array): Bytes {
    if (bytes.length === 0 || this.isClosing) return 0;
    const { bodies, bytes: used } = this.batch;
    if (bodies !== null && used + bytes.length > bodies.length) this.flush();
    const { batch } = this;
    batch.bodies ??= this.memory.take(bytes.length);
    const at = batch.bytes;
    batch.bodies.set(bytes, at);
    batch.bytes += bytes.length;
    return at;
  }

  private hasRoom(bytes: Bytes): boolean {
    return this.writes && this.waiting + bytes <= QUEUE && this.batch.ops.length < MAX_QUEUED_OPS;
  }

  /** `waits`: bytes that wait with it. */
  private add(op: Op, waits: Bytes = 0): void {
    if (this.isClosing) return;
    const { batch } = this;
    batch.ops.push(op);
    this.waiting += waits;
    if (batch.bytes >= BATCH) this.flush();
    else if (this.timer === undefined) {
      this.timer = setTimeout(this.flush, this.failedAt === null ? BATCH_AFTER : this.retryAfter).unref();
    }
  }

  private readonly flush = (): void => {
    clearTimeout(this.timer);
    this.timer = undefined;
    const { batch } = this;
    if (batch.ops.length === 0 || this.isClosing) return;
    if (batch.ops.length > MAX_OWED && this.failedAt !== null) this.oweAll();
    const { number } = this;
    this.number++;
    this.batch = { ops: [], bodies: null, bytes: 0 };
    this.sent.set(number, batch);
    this.thread.post({
      type: 'batch',
      number,
      ops: batch.ops,
      bodies: batch.bodies?.buffer as SharedArrayBuffer | undefined,
    });
  };

  /** Of what was sent nobody says any more whether it was done. */
  private lost(why: string): void {
    for (const number of this.sent.keys()) {
      const lost = [...this.fillings.keys()];
      this.hear({ type: 'done', number, reopened: false, failed: why, lost, kept: [], renumbered: [] });
    }
  }

  private hear(message: Exclude<FromWriter, { type: 'closed' }>): void {
    if (message.type === 'reopened') return this.reopen();
    const { number, failed, lost, kept, renumbered } = message;
    const batch = this.sent.get(number);
    if (batch === undefined) return;
    this.sent.delete(number);
    for (const op of batch.ops) {
      if (op.do === 'put') this.waiting -= op.length + op.row.head.length;
      else if (op.do === 'piece') this.waiting -= op.length;
      else if (op.do === 'freshen') this.waiting -= op.head.length;
    }
    if (message.reopened) this.reopen();
    for (const one of lost) this.lostFillings.add(one);
    for (const one of [...kept, ...lost, ...batch.ops.flatMap(op => (op.do === 'abort' ? [op.filling] : []))]) {
      const fd = this.fillings.get(one);
      if (fd === undefined) continue;
      fs.close(fd, () => {});
      this.fillings.delete(one);
    }
    if (this.lostFillings.size > 1_000) this.lostFillings.clear();
    if (failed !== null) this.owe(batch);
    this.forgetQueued(number, batch);
    if (batch.bodies !== null) this.memory.give(batch.bodies);
    for (const one of renumbered) this.renumber(one);
    if (failed !== null) this.failed(failed);
    else if (batch.ops.some(op => op.do !== 'begin' && op.do !== 'piece' && op.do !== 'abort')) this.failedAt = null;
  }

  private reopen(): void {
    this.index.reopen();
    this.filter?.forget();
  }

  /** What is to be done with a row that got another number than was asked for: the thread knows, and here its row is found by the other. */
  private renumber({ url, id, instead }: Renumbered): void {
    const [before, after] = [keyOf(id, url), keyOf(instead, url)];
    const gone = this.gone.get(before);
    const fresh = this.fresh.get(before);
    if (gone !== undefined) this.gone.set(after, gone);
    if (fresh !== undefined) this.fresh.set(after, fresh);
    for (const { ops } of [...this.sent.values(), this.batch]) {
      for (const [i, op] of ops.entries()) {
        if ((op.do === 'remove' || op.do === 'freshen') && op.id === id && op.url === url) {
          ops[i] = { ...op, id: instead };
        }
      }
    }
    this.gone.delete(before);
    this.fresh.delete(before);
  }

  /** What was queued in a batch is in the index now, or lost. */
  private forgetQueued(number: number, { ops }: Pick<Batch, 'ops'>): void {
    for (const op of ops) {
      if (op.do === 'put') {
        const left = this.queued.get(op.row.url)?.filter(({ batch }) => batch > number);
        if (left?.length === 0) this.queued.delete(op.row.url);
        else if (left !== undefined) this.queued.set(op.row.url, left);
      } else if (op.do === 'remove' && this.gone.get(keyOf(op.id, op.url))! <= number) {
        this.gone.delete(keyOf(op.id, op.url));
      }
      // Of what one batch freshened twice the first took it.
      else if (op.do === 'freshen' && (this.fresh.get(keyOf(op.id, op.url))?.batch ?? Infinity) <= number) {
        this.fresh.delete(keyOf(op.id, op.url));
      } else if (op.do === 'commit' && this.committing.get(op.row.url)! <= number) this.committing.delete(op.row.url);
      else if (op.do === 'purge') this.purges = this.purges.filter(({ batch }) => batch > number);
    }
  }

  /** What was to be removed and could not be is tried again, and must not be found until then. */
  private owe({ ops }: Batch): void {
    for (const op of ops) {
      if (op.do === 'remove' || op.do === 'freshen') this.remove(op.id, op.url);
      else if (op.do === 'put' || op.do === 'commit') this.owePut(op.row);
      else if (op.do === 'purge') {
        this.purges.push({ which: op.which, isMeant: meaning(op.which), batch: this.number });
        this.add(op);
      }
    }
    if (this.batch.ops.length > MAX_OWED) this.oweAll();
  }

  /** An answer in whose place a newer one should have come. */
  private owePut(row: PutRow): void {
    for (const old of this.index.rows(row.url)) {
      if (old[1] === row.space && old[2] === row.choice) this.remove(old[0], row.url);
    }
  }

  /** More is owed than is worth remembering. */
  private oweAll(): void {
    const { ops } = this.batch;
    this.forgetQueued(this.number, { ops });
    for (const op of ops) {
      if (op.do === 'put') this.waiting -= op.length + op.row.head.length;
      else if (op.do === 'freshen') this.waiting -= op.head.length;
    }
    const pieces = ops.filter(op => op.do === 'begin' || op.do === 'piece' || op.do === 'abort');
    ops.splice(0, ops.length, ...pieces, { do: 'purge', which: ALL });
    this.purges.push({ which: ALL, isMeant: () => true, batch: this.number });
  }

  private failed(why: string): void {
    this.failedAt = this.elapsed();
    if (this.elapsed() - this.warnedAt < WARN_EVERY) return;
    this.warnedAt = this.elapsed();
    this.options.warn(
      `The cache on disk, ${this.options.folder}, cannot be written: ${why}. Answers are kept in memory only until that changes.`,
    );
  }

  private get retryAfter(): Milliseconds {
    return this.options.retryAfter ?? RETRY_AFTER;
  }

  private elapsed(): Milliseconds {
    return performance.now();
  }

  /** The present, by the clock that was handed in. */
  get seconds(): Seconds {
    return Math.floor(this.now() / 1000);
  }
}

function keyOf(id: number, url: string): string {
  return `${id} ${url}`;
}

/** A queued answer. Its body is copied: where it stands another will, when the batch is done. */
function entryIn({ row, bodies, at, length }: Queued): Entry {
  return entryOf(row, Buffer.from(bodies.subarray(at, at + length)));
}
