// A request body that may have to be sent again: what goes out is kept, up to a bound, until it is known that once was enough. It slows nothing: the
// stream goes on while its copy is put away, and beyond the bound the copy is dropped and the body is as any other.
//
//   source ──▶ sink of this try                up to 256 KiB in memory, more of it in a file that has no name
//         └──▶ kept ──▶ sink of the next try
import type { Fields } from '../message/headers.ts';
import type { BodySink, BodySource } from '../message/message.ts';
import { KiB, MiB, type Bytes } from '../../shared/units.ts';
import { SpoolFile } from './spool-file.ts';

/** So much is kept in memory. */
const IN_MEMORY: Bytes = 256 * KiB;
/** And so much at the most, whatever the route says. */
const MAX_KEPT: Bytes = 8 * MiB;
/** Read from the file at a time. */
const PIECE: Bytes = 64 * KiB;

export class ReplayBody implements BodySource, BodySink {
  private readonly source: BodySource;
  private readonly limit: Bytes;
  private sink: BodySink | null = null;
  private begun = false;
  private pieces: Buffer[] = [];
  private inMemory: Bytes = 0;
  private spool: SpoolFile | null = null;
  private kept: Bytes = 0;
  private isLost = false;
  private settled = false;
  private ended = false;
  private trailers: Fields | null = null;
  private failure: Error | null = null;
  /** The sink hears the source itself; else what is kept is on its way to it, or there is none. */
  private live = false;
  /** The source waits to be told to go on. */
  private waits = false;
  /** What the sink that is being caught up asked: to wait. */
  private paused = false;
  private wake: (() => void) | null = null;

  constructor(source: BodySource, limit: Bytes) {
    this.source = source;
    this.limit = Math.min(limit, MAX_KEPT);
  }

  /** Whether all that has come of it can still be sent. */
  get isKept(): boolean {
    return !this.isLost && this.failure === null && this.spool?.broken !== true;
  }

  /** Whether all of it has come. */
  get isWhole(): boolean {
    return this.ended;
  }

  /** Whether nothing of it has come. */
  get isUnsent(): boolean {
    return this.kept === 0 && !this.isLost && !this.ended;
  }

  /** From its beginning, to this sink. Only while it `isKept`. */
  start(sink: BodySink): void {
    this.sink = sink;
    this.paused = this.live = false;
    if (!this.begun) {
      this.begun = this.live = true;
      this.source.start(this);
    } else if (this.kept === 0) this.goLive(sink);
    else void this.catchUp(sink);
  }

  resume(): void {
    if (this.live) {
      this.waits = false;
      this.source.resume();
      return;
    }
    this.paused = false;
    this.wake?.();
  }

  /** The sink is gone. The source is not, while another may come. */
  cancel(): void {
    this.sink = null;
    this.live = false;
    this.wake?.();
    if (this.settled) this.drop();
  }

  /** Nothing will be sent again. What nobody reads is let go. */
  settle(): void {
    this.settled = true;
    if (this.sink === null) this.drop();
    // A sink that is being caught up still needs what is kept.
    else if (this.live) this.forget();
  }

  // What comes -----------------------------------------------------------------------------------------------------------------------------

  write(chunk: Buffer): boolean {
    if (!this.settled || !this.live) this.keep(chunk);
    if (this.live && this.sink !== null) {
      const isFree = this.sink.write(chunk);
      // The sink may have gone with this very chunk.
      if (!isFree || !this.live) this.waits = true;
      return isFree && this.live;
    }
    this.waits = true;
    return false;
  }

  end(trailers: Fields | null): void {
    this.ended = true;
    this.trailers = trailers;
    if (this.live) this.sink?.end(trailers);
  }

  fail(error: Error): void {
    this.failure = error;
    if (this.live) this.sink?.fail(error);
    this.forget();
  }

  private keep(chunk: Buffer): void {
    if (this.isLost) return;
    this.kept += chunk.length;
    // While nobody hears it, it is all there is of it: the source stops at once.
    if (this.kept > this.limit && this.live) {
      this.isLost = true;
      this.forget();
      return;
    }
    if (this.spool === null && (!this.live || this.inMemory + chunk.length <= IN_MEMORY)) {
      this.pieces.push(chunk);
      this.inMemory += chunk.length;
    } else {
      this.spool ??= new SpoolFile();
      this.spool.append(chunk);
    }
  }

  private async catchUp(sink: BodySink): Promise<void> {
    let at = 0;
    for (let i = 0; i < this.pieces.length; i++) {
      const piece = this.pieces[i]!;
      at += piece.length;
      if (!(await this.give(sink, piece))) return;
    }
    try {
      while (at < this.kept) {
        const piece = await this.spool!.read(at - this.inMemory, Math.min(PIECE, this.kept - at));
        at += piece.length;
        if (this.sink !== sink || !(await this.give(sink, piece))) return;
      }
    } catch (error) {
      if (this.sink === sink) sink.fail(error as Error);
      return;
    }
    this.goLive(sink);
  }

  /** Whether the sink is still the one. */
  private async give(sink: BodySink, piece: Buffer): Promise<boolean> {
    if (this.sink !== sink) return false;
    if (sink.write(piece)) return this.sink === sink;
    this.paused = true;
    while (this.paused && this.sink === sink) await new Promise<void>(resolve => (this.wake = resolve));
    this.wake = null;
    return this.sink === sink;
  }

  /** All that was kept is with the sink. */
  private goLive(sink: BodySink): void {
    this.live = true;
    if (this.failure !== null) sink.fail(this.failure);
    else if (this.ended) sink.end(this.trailers);
    else if (this.waits) {
      this.waits = false;
      this.source.resume();
    }
    if (this.settled) this.forget();
  }

  private drop(): void {
    this.forget();
    if (!this.ended && this.failure === null) this.source.cancel();
  }

  private forget(): void {
    this.pieces = [];
    this.spool?.close();
    this.spool = null;
    if (this.kept > 0) this.isLost = true;
  }
}
