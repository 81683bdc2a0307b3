// A body on its way: one source, one copy that grows, any number of readers, each at its own pace. While the copy stands the source is read as fast
// as it comes, so a slow client does not slow the store; where it cannot stand (too large, no memory left) the one reader's pace rules.
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
  /** Takes the bytes on, uncopied. False: it is behind with writing, and will say when it is not. */
  write(chunk: Buffer): boolean;
  /** Of what it has taken, so many bytes from there, at once. Works until `close`, whatever became of the file. */
  read(from: Bytes, length: Bytes): Buffer;
  /** Nobody reads from it any more. What is not whole by then is dropped. */
  close(): void;
}

/** What becomes of it, told between writes and never within one. */
export interface GrowingEvents {
  drained(): void;
  /** It takes no more, and will not be kept. */
  lost(): void;
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
  readonly large?: ((events: GrowingEvents) => Growing | null) | undefined;
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

export class Filling implements BodySink {
  /** The reader of whoever asked first. */
  readonly leader: BodySource;
  private readonly source: BodySource;
  private readonly options: FillingOptions;
  /** All that has come, while `keeps`; afterwards what somebody has still to read. */
  private buffer: Buffer | null;
  private held: Bytes = 0;
  private keeps: boolean;
  /** In the place of `buffer`, where the body has outgrown it. */
  private file: Growing | null = null;
  private fileIsBehind = false;
  /** What came for a reader that is behind, after the copy was given up: no more than the source has at hand when it is told to wait. */
  private late: Buffer[] = [];
  private readers: Reader[] = [];
  private started = false;
  private ending: Ending | null = null;
  private clock: NodeJS.Timeout | null = null;

  constructor(source: BodySource, options: FillingOptions) {
    this.source = source;
    this.options = options;
    const { length, limit } = options;
    const fits = length === null || length <= limit;
    this.buffer = fits ? this.allocate(Math.min(length ?? FIRST_PIECE, FIRST_PIECE)) : null;
    this.keeps = this.buffer !== null || this.outgrow();
    const leader = new Reader(this);
    this.readers.push(leader);
    this.leader = leader;
  }

  /** Whether a copy is being made: not where the budget is spent. */
  get isKept(): boolean {
    return this.keeps;
  }

  /**
   * The body from its beginning, for one reader more; null where it cannot be promised whole: its length is not known, there is no memory for all of it,
   * or it is over. From then on the copy has all the memory it needs.
   */
  join(): BodySource | null {
    const { length } = this.options;
    if (!this.keeps || this.ending !== null || length === null || this.file !== null) return null;
    if (!this.grow(length)) return null;
    const reader = new Reader(this);
    this.readers.push(reader);
    this.stopClock();
    return reader;
  }

  // What comes ------------------------------------------------------------------------------------------------------------------------------

  write(chunk: Buffer): boolean {
    const { readers } = this;
    const before = this.held;
    const { length } = this.options;
    if (length !== null && before + chunk.length > length) {
      this.source.cancel();
      this.fail(new Error('a body is longer than it said'));
      return true;
    }
    if (this.keeps && !this.keep(chunk)) this.giveUp('much');
    if (this.keeps) {
      if (readers.length === 1) readers[0]!.come(chunk, before);
      else for (const reader of readers.slice()) reader.come(chunk, before);
      return !this.fileIsBehind;
    }
    const reader = readers[0];
    if (reader === undefined) return true;
    if (reader.position < before || this.late.length > 0) {
      this.late.push(chunk);
      return false;
    }
    this.held = before + chunk.length;
    reader.come(chunk, before);
    return !reader.paused;
  }

  end(trailers: Fields | null): void {
    this.finish({ trailers, error: null });
  }

  fail(error: Error): void {
    this.finish({ trailers: null, error });
  }

  private finish(ending: Ending): void {
    if (this.ending !== null) return;
    this.ending = ending;
    this.stopClock();
    const { buffer, held, keeps } = this;
    const { length } = this.options;
    this.keeps = false;
    if (keeps && ending.error === null && (length === null || length === held)) {
      if (buffer === null) this.options.complete(this.file!, held);
      else this.options.complete(buffer.length === held ? buffer : exactCopy(buffer.subarray(0, held)), held);
    } else if (keeps) this.options.lost?.('broke', buffer?.subarray(0, held) ?? null);
    for (const reader of this.readers.slice()) this.pump(reader);
    if (this.readers.length === 0) this.release();
  }

  // What the readers say --------------------------------------------------------------------------------------------------------------------

  /** A reader wants to begin, or to go on. */
  pump(reader: Reader): void {
    while (!reader.paused && !reader.left && reader.position < this.held) {
      const { position } = reader;
      const to = Math.min(this.held, position + PIECE);
      reader.come(this.buffer?.subarray(position, to) ?? this.file!.read(position, to - position), position);
    }
    if (reader.left || reader.sink === null || reader.position < this.held) return;
    if (!this.keeps && this.ending === null) this.release();
    while (this.late.length > 0) {
      if (reader.paused) return;
      const chunk = this.late.shift()!;
      this.held += chunk.length;
      reader.come(chunk, reader.position);
      if (reader.left) return;
    }
    if (this.ending === null) {
      if (!this.started) this.start();
      else if (!this.keeps && !reader.paused) this.source.resume();
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
    if (this.ending !== null) return this.release();
    if (this.keeps && this.isWorthFinishing()) {
      this.clock = setTimeout(this.abandon, FINISH_WITHIN).unref();
      if (!this.started) this.start();
    } else this.abandon();
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
    this.giveUp('broke');
    this.release();
    this.source.cancel();
  };

  // The copy --------------------------------------------------------------------------------------------------------------------------------

  /** Adds to the copy; false where it would become too large. */
  private keep(chunk: Buffer): boolean {
    const needed = this.held + chunk.length;
    if (this.file === null && !this.grow(needed) && !this.outgrow()) return false;
    if (this.file !== null) {
      if (!this.file.write(chunk)) this.fileIsBehind = true;
      this.held = needed;
      return true;
    }
    chunk.copy(this.buffer!, this.held);
    this.held = needed;
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

  /** The copy becomes a file, where there is a place for one. */
  private outgrow(): boolean {
    // Others have been promised what is in memory.
    if (this.readers.length > 1) return false;
    const file = this.options.large?.({
      drained: () => {
        if (!this.fileIsBehind) return;
        this.fileIsBehind = false;
        if (this.keeps && this.ending === null) this.source.resume();
      },
      lost: () => {
        if (this.ending === null) this.giveUp('much');
      },
    });
    if (file === null || file === undefined) return false;
    const { buffer, held } = this;
    this.release();
    this.file = file;
    if (buffer !== null && held > 0 && !file.write(buffer.subarray(0, held))) this.fileIsBehind = true;
    return true;
  }

  /** No copy any more. What the reader has still to read of it stays until it is read. */
  private giveUp(why: 'broke' | 'much'): void {
    if (!this.keeps) return;
    this.keeps = false;
    this.options.lost?.(why, why === 'broke' ? (this.buffer?.subarray(0, this.held) ?? null) : null);
    const reader = this.readers[0];
    if (reader === undefined || reader.position === this.held) this.release();
    if (this.fileIsBehind) {
      this.fileIsBehind = false;
      if (reader !== undefined && !reader.paused && reader.position === this.held) this.source.resume();
    }
    // Without a copy there is nobody to fetch it for.
    if (this.clock !== null) this.abandon();
  }

  private allocate(size: Bytes): Buffer | null {
    // Not from Node's pool: a kept slice would keep the whole slab.
    return this.options.budget.take(size) ? Buffer.allocUnsafeSlow(size) : null;
  }

  private release(): void {
    const { buffer, file } = this;
    this.buffer = null;
    this.file = null;
    if (buffer !== null) this.options.budget.giveBack(buffer.length);
    file?.close();
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

  /** Bytes that begin at `at`. Who is behind will fetch them. */
  come(chunk: Buffer, at: Bytes): void {
    if (this.position !== at || this.left || this.sink === null) return;
    // In a copy that stands there is no need to take what was not waited for.
    if (this.paused && this.filling.isKept) return;
    this.position = at + chunk.length;
    if (!this.sink.write(chunk)) this.paused = true;
  }
}

/** The bytes in a buffer of their own. */
export function exactCopy(bytes: Buffer): Buffer {
  const own = Buffer.allocUnsafeSlow(bytes.length);
  bytes.copy(own);
  return own;
}
