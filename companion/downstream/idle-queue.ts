// Connections that wait for a request, the longest waiting first. Joining, leaving and finding the oldest cost the same however many there are: a
// doubly linked list whose links are fields of the connections themselves.

/** What stands in an IdleQueue, with the links that are the queue's. */
export interface Idler<T> {
  idleBefore: T | null;
  idleAfter: T | null;
  isQueued: boolean;
}

export class IdleQueue<T extends Idler<T>> {
  /** The one that has waited longest. */
  oldest: T | null = null;
  private youngest: T | null = null;

  /** Begins to wait; one that stands here already moves to the end. */
  join(one: T): void {
    if (one.isQueued) this.leave(one);
    one.isQueued = true;
    one.idleBefore = this.youngest;
    if (this.youngest === null) this.oldest = one;
    else this.youngest.idleAfter = one;
    this.youngest = one;
  }

  /** Is counted as waiting longer than anyone: its work is done, and nothing is lost with it. */
  joinAsOldest(one: T): void {
    if (one.isQueued) this.leave(one);
    one.isQueued = true;
    one.idleAfter = this.oldest;
    if (this.oldest === null) this.youngest = one;
    else this.oldest.idleBefore = one;
    this.oldest = one;
  }

  /** Waits no longer; nothing where it did not. */
  leave(one: T): void {
    if (!one.isQueued) return;
    const { idleBefore, idleAfter } = one;
    if (idleBefore === null) this.oldest = idleAfter;
    else idleBefore.idleAfter = idleAfter;
    if (idleAfter === null) this.youngest = idleBefore;
    else idleAfter.idleBefore = idleBefore;
    one.idleBefore = null;
    one.idleAfter = null;
    one.isQueued = false;
  }
}
