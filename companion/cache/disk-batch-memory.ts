// The memory in which bodies go to the writing thread: both see it, so nothing is copied on the way, and it is used again, so that nothing is left behind
// for the collector, who comes late to memory outside the heap.
import type { Bytes } from '../../shared/units.ts';

/** So many pieces are kept for the next batches; more are in use only while the disk is behind. */
const KEPT = 4;

export class BatchMemory {
  private readonly size: Bytes;
  private readonly free: Buffer[] = [];

  /** In pieces of this size. */
  constructor(size: Bytes) {
    this.size = size;
  }

  /** At least so much. What stands in it is of another time. */
  take(least: Bytes): Buffer {
    if (least > this.size) return Buffer.from(new SharedArrayBuffer(least));
    return this.free.pop() ?? Buffer.from(new SharedArrayBuffer(this.size));
  }

  /** Nobody reads it any more. */
  give(piece: Buffer): void {
    if (piece.length === this.size && this.free.length < KEPT) this.free.push(piece);
  }
}
