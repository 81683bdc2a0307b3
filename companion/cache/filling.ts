// A body on its way: one source, one copy that grows, any number of readers, each at its own pace. While the copy stands the source is read as fast
// as it comes, so a slow client does not slow the store; where it cannot stand (too large for memory and no file, no memory left) the one reader's pace rules.
// Who has read all that is there gets what comes uncopied; who is behind gets it out of the copy.
//
//   source ──▶ Filling ──▶ copy ──▶ complete(body)     the store's, when it became whole
//                 ├──▶ reader (leader)
//                 └──▶ reader (follower) …
import type { Bytes, Milliseconds } from '../../shared/units.ts';
import type { Fields } from '../message/headers.ts';
import type { BodySink, BodySource } from '../message/message.ts';

/** Memory that unfinished copies share. */
export class Budget {
  private left: Bytes;

  constructor(bytes: Bytes) {
    this.left = bytes;
  }

  /** Whether so many bytes more may be held; if so they are taken. */
  take(bytes: Bytes): boolean {
    if (bytes > this.left) return false;
    this.left -= bytes;
    return true;
  }

  giveBack(bytes: Bytes): void {
    this.left += bytes;
  }
}

const FIRST_PIECE: Bytes = 16 * 1024;
/** A reader that is behind gets so much at once. */
const PIECE: Bytes = 64 * 1024;
/** So long a body that nobody reads any more may take to become whole. */
const FINISH_WITHIN: Milliseconds = 30_000;

/** A place where a body grows that is too large for memory: a file. */
export interface Growing {
  /** Takes the bytes, uncopied. False: it takes no more, and nothing will be kept. */
  write(chunk: Buffer): boolean;
  abort(): void;
}

export interface FillingOptions {
  /** The most that a body may have to be kept in memory. */
  readonly limit: Bytes;
  /** The length that was announced, when one was. */
  readonly length: Bytes | null;
  readonly budget: Budget;
  /** With no more than this still to come, a body whose last reader has left is fetched to its end. */
  readonly finish: Bytes;
  /** Whether it shall become whole though nobody reads it: others wait for that. */
  readonly awaited?: () => boolean;
  /** Makes a place for what is larger; null where there is none. */
  readonly large?: (() => Growing | null) | undefined;
  /** Hears the whole body, once, if it became whole: exactly its bytes, the listener's to keep, or where it has grown. */
  readonly complete: (body: Buffer | Growing, length: Bytes) => void;
  /** Hears instead, once, that it will not be kept: it is too much, or it broke off (or was left); then also what had come, where that is in memory, to be copied at once. */
  readonly lost?: (why: 'broke' | 'much', soFar: Buffer | null) => void;
}

/** How a body came to its end. */
interface Ending {
  readonly trailers: Fields | null;
  readonly error: Error | null;
}

/**
 * In memory first: `buffer` has all that came, and any number read it. When it is given up, or outgrown into a file, the body passes to its one reader,
 * and what he is behind waits in `late`.
 */
export class Filling implements BodySink {
  /** The reader of whoever asked first. */
  readonly leader: BodySource;
  private readonly source: BodySource;
  private readonly options: FillingOptions;
  private buffer: Buffer | null = null;
  private file: Growing | null = null;
  /** Bytes that have come. */
  private held: Bytes = 0;
  private late: Buffer[] = [];
  /** What `late` has of the budget. */
  private taken: Bytes = 0;
  private readers: Reader[] = [];
  private started = false;
  private ending: Ending | null = null;
  private clock: NodeJS.Timeout | null = null;

  constructor(source: BodySource, options: FillingOptions) {
    this.source = source;
    this.options = options;
    const leader = new Reader(this);
    this.readers.push(leader);
    this.leader = leader;
    const { length, limit } = options;
    if (length === null || length <= limit) this.buffer = this.allocate(Math.min(length ?? FIRST_PIECE, FIRST_PIECE));
    if (this.buffer === null) this.file = options.large?.() ?? null;
  }

  /** Whether a copy is being made: not where there is no room for one. */
  get isKept(): boolean {
    return this.buffer !== null || this.file !== null;
  }

  /** Whether others may read along, once there is enough of it: not what goes into a file. */
  get isShareable(): boolean {
    return this.buffer !== null;
  }

  /**
   * The body from its beginning, for one reader more; null where it cannot be promised whole: its length is not known, there is no memory for all of it,
   * or it is over. From then on the copy has all the memory it needs.
   */
  join(): BodySource | null {
    const { length } = this.options;
    if (this.buffer === null || this.ending !== null || length === null || !this.grow(length)) return null;
    const reader = new Reader(this);
    this.readers.push(reader);
    this.stopClock();
    return reader;
  }

  // What comes ------------------------------------------------------------------------------------------------------------------------------

  write(chunk: Buffer): boolean {
    const before = this.held;
    const { length } = this.options;
    if (length !== null && before + chunk.length > length) {
      this.source.cancel();
      this.fail(new Error('a body is longer than it said'));
      return true;
    }
    if (this.buffer !== null && !this.keep(chunk)) this.outgrow();
    this.held = before + chunk.length;
    if (this.buffer === null) return this.pass(chunk);
    const { readers } = this;
    if (readers.length === 1) readers[0]!.follow(chunk, before);
    else for (const reader of readers.slice()) reader.follow(chunk, before);
    return true;
  }

  end(trailers: Fields | null): void {
    this.finish({ trailers, error: null });
  }

  fail(error: Error): void {
    this.finish({ trailers: null, error });
  }

  /** On to the file and to the one reader. With a file he may be behind by as much as an answer in memory may have; without he sets the pace. */
  private pass(chunk: Buffer): boolean {
    if (this.file !== null && !this.file.write(chunk)) {
      this.file = null;
      this.options.lost?.('much', null);
      if (this.readers.length === 0) {
        this.abandon();
        return true;
      }
    }
    const reader = this.readers[0];
    if (reader === undefined) return true;
    if (this.late.length === 0 && !reader.paused) {
      reader.take(chunk);
      return !reader.paused || this.file !== null;
    }
    this.late.push(chunk);
    const { limit, budget } = this.options;
    if (this.file === null || this.taken + chunk.length > limit || !budget.take(chunk.length)) return false;
    this.taken += chunk.length;
    return true;
  }

  private finish(ending: Ending): void {
    if (this.ending !== null) return;
    this.ending = ending;
    this.stopClock();
    const { buffer, file, held } = this;
    const { length, complete, lost } = this.options;
    const isWhole = ending.error === null && (length === null || length === held);
    if (isWhole && buffer !== null) {
      complete(buffer.length === held ? buffer : exactCopy(buffer.subarray(0, held)), held);
    } else if (isWhole && file !== null) {
      this.file = null;
      complete(file, held);
    } else if (this.isKept) {
      lost?.('broke', buffer?.subarray(0, held) ?? null);
      this.file = null;
      file?.abort();
    }
    for (const reader of this.readers.slice()) this.pump(reader);
    if (this.readers.length === 0) this.release();
  }

  // What the readers say --------------------------------------------------------------------------------------------------------------------

  /** A reader wants to begin, or to go on. */
  pump(reader: Reader): void {
    while (this.buffer !== null && !reader.paused && !reader.left && reader.position < this.held) {
      reader.take(this.buffer.subarray(reader.position, Math.min(this.held, reader.position + PIECE)));
    }
    while (this.late.length > 0 && !reader.paused && !reader.left) reader.take(this.late.shift()!);
    if (reader.left || reader.sink === null || reader.position < this.held) return;
    this.giveBackLate();
    if (this.ending === null) {
      if (!this.started) this.start();
      else if (this.buffer === null && !reader.paused) this.source.resume();
      return;
    }
    this.forget(reader);
    if (this.readers.length === 0) this.release();
    if (this.ending.error === null) reader.sink.end(this.ending.trailers);
    else reader.sink.fail(this.ending.error);
  }

  /** A reader has left. The others read on; without any the rest is fetched where that is little, or awaited. */
  leave(reader: Reader): void {
    this.forget(reader);
    if (this.readers.length > 0) return;
    this.late = [];
    this.giveBackLate();
    if (this.ending !== null) return this.release();
    if (!this.isKept || !this.isWorthFinishing()) return this.abandon();
    this.clock = setTimeout(this.abandon, FINISH_WITHIN).unref();
    if (!this.started) this.start();
    else this.source.resume();
  }

  private isWorthFinishing(): boolean {
    const { length, finish, awaited } = this.options;
    if (length !== null && length - this.held <= finish) return true;
    return awaited?.() ?? false;
  }

  private start(): void {
    this.started = true;
    this.source.start(this);
  }

  private forget(reader: Reader): void {
    reader.left = true;
    this.readers.splice(this.readers.indexOf(reader), 1);
  }

  private readonly abandon = (): void => {
    if (this.ending !== null || this.readers.length > 0) return;
    this.ending = { trailers: null, error: null };
    this.stopClock();
    if (this.isKept) this.options.lost?.('broke', this.buffer?.subarray(0, this.held) ?? null);
    this.release();
    this.source.cancel();
  };

  // The copy --------------------------------------------------------------------------------------------------------------------------------

  /** Adds to the copy in memory; false where it would become too large. */
  private keep(chunk: Buffer): boolean {
    if (!this.grow(this.held + chunk.length)) return false;
    chunk.copy(this.buffer!, this.held);
    return true;
  }

  private grow(needed: Bytes): boolean {
    const { limit, length, budget } = this.options;
    if (needed > limit) return false;
    const buffer = this.buffer!;
    if (needed <= buffer.length) return true;
    // A length that was announced is believed as far as it has been kept: memory is not to be had by announcing.
    const size = length === null ? Math.min(limit, buffer.length * 2) : Math.min(length, buffer.length * 4);
    const larger = this.allocate(Math.max(needed, size));
    if (larger === null) return false;
    buffer.copy(larger, 0, 0, this.held);
    budget.giveBack(buffer.length);
    this.buffer = larger;
    return true;
  }

  /** The copy becomes a file, where there is a place for one, or none. What the reader has still to read of it waits for him. (Who joins has been promised the memory, so there is one reader.) */
  private outgrow(): void {
    const held = this.buffer!.subarray(0, this.held);
    const { budget, large, lost } = this.options;
    const file = large?.() ?? null;
    const reader = this.readers[0];
    for (let at = reader?.position ?? held.length; at < held.length; at += PIECE) {
      this.late.push(held.subarray(at, at + PIECE));
    }
    if (this.late.length > 0) this.taken = this.buffer!.length;
    else budget.giveBack(this.buffer!.length);
    this.buffer = null;
    if (file !== null && (held.length === 0 || file.write(held))) this.file = file;
    else {
      lost?.('much', null);
      // Without a copy there is nobody to fetch it for.
      if (reader === undefined) this.abandon();
    }
  }

  private allocate(size: Bytes): Buffer | null {
    // Not from Node's pool: a kept slice would keep the whole slab.
    return this.options.budget.take(size) ? Buffer.allocUnsafeSlow(size) : null;
  }

  private giveBackLate(): void {
    if (this.taken === 0) return;
    this.options.budget.giveBack(this.taken);
    this.taken = 0;
  }

  private release(): void {
    const { buffer, file } = this;
    this.buffer = null;
    this.file = null;
    if (buffer !== null) this.options.budget.giveBack(buffer.length);
    file?.abort();
  }

  private stopClock(): void {
    if (this.clock === null) return;
    clearTimeout(this.clock);
    this.clock = null;
  }
}

/** One who reads along. */
class Reader implements BodySource {
  sink: BodySink | null = null;
  /** How much it has got. */
  position: Bytes = 0;
  /** Its sink asked to wait; or it has not begun. */
  paused = true;
  left = false;
  private readonly filling: Filling;

  constructor(filling: Filling) {
    this.filling = filling;
  }

  start(sink: BodySink): void {
    this.sink = sink;
    this.paused = false;
    this.filling.pump(this);
  }

  resume(): void {
    if (!this.paused || this.left || this.sink === null) return;
    this.paused = false;
    this.filling.pump(this);
  }

  cancel(): void {
    if (!this.left) this.filling.leave(this);
  }

  /** Bytes that come at `at`, and are in the copy: who is behind, or waits, fetches them there. */
  follow(chunk: Buffer, at: Bytes): void {
    if (this.position === at && !this.paused && !this.left) this.take(chunk);
  }

  /** The next bytes. */
  take(chunk: Buffer): void {
    this.position += chunk.length;
    if (!this.sink!.write(chunk)) this.paused = true;
  }
}

/** The bytes in a buffer of their own. */
export function exactCopy(bytes: Buffer): Buffer {
  const own = Buffer.allocUnsafeSlow(bytes.length);
  bytes.copy(own);
  return own;
}
