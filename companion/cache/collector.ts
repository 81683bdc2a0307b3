// A body on its way to the client, copied as it passes. The client sets the pace: the copy holds what has passed, never more than its bound, and
// gives up rather than slow anybody. What breaks off, or is left by the client, is not kept.
import type { Bytes } from '../../shared/units.ts';
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

export interface CollectorOptions {
  /** The most that a body may have to be kept. */
  readonly limit: Bytes;
  /** The length that was announced, when one was. */
  readonly length: Bytes | null;
  readonly budget: Budget;
  /** Hears the whole body, once, if it became whole; exactly its bytes, the listener's to keep. */
  readonly complete: (body: Buffer) => void;
}

export class Collector implements BodySource, BodySink {
  private readonly source: BodySource;
  private readonly options: CollectorOptions;
  private sink: BodySink | null = null;
  private buffer: Buffer | null;
  private held: Bytes = 0;

  constructor(source: BodySource, options: CollectorOptions) {
    this.source = source;
    this.options = options;
    this.buffer = this.allocate(Math.min(options.length ?? FIRST_PIECE, FIRST_PIECE));
  }

  /** Whether a copy is being made: not where the budget is spent. */
  get keeps(): boolean {
    return this.buffer !== null;
  }

  start(sink: BodySink): void {
    this.sink = sink;
    this.source.start(this);
  }

  resume(): void {
    this.source.resume();
  }

  cancel(): void {
    this.giveUp();
    this.source.cancel();
  }

  write(chunk: Buffer): boolean {
    if (this.buffer !== null) this.keep(chunk);
    return this.sink!.write(chunk);
  }

  end(trailers: Fields | null): void {
    const { buffer, held } = this;
    const { length, complete } = this.options;
    this.giveUp();
    if (buffer !== null && (length === null || length === held)) {
      complete(buffer.length === held ? buffer : exactCopy(buffer.subarray(0, held)));
    }
    this.sink!.end(trailers);
  }

  fail(error: Error): void {
    this.giveUp();
    this.sink!.fail(error);
  }

  private keep(chunk: Buffer): void {
    const needed = this.held + chunk.length;
    const { limit, length } = this.options;
    if (needed > limit) return this.giveUp();
    let buffer = this.buffer!;
    if (needed > buffer.length) {
      const size = Math.min(Math.max(needed, buffer.length * 2), Math.max(needed, length ?? limit));
      const larger = this.allocate(size);
      if (larger === null) return this.giveUp();
      buffer.copy(larger, 0, 0, this.held);
      this.options.budget.giveBack(buffer.length);
      this.buffer = larger;
      buffer = larger;
    }
    chunk.copy(buffer, this.held);
    this.held = needed;
  }

  private allocate(size: Bytes): Buffer | null {
    // Not from Node's pool: a kept slice would keep the whole slab.
    return this.options.budget.take(size) ? Buffer.allocUnsafeSlow(size) : null;
  }

  private giveUp(): void {
    if (this.buffer === null) return;
    this.options.budget.giveBack(this.buffer.length);
    this.buffer = null;
  }
}

/** The bytes in a buffer of their own. */
export function exactCopy(bytes: Buffer): Buffer {
  const own = Buffer.allocUnsafeSlow(bytes.length);
  bytes.copy(own);
  return own;
}
