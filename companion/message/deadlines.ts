// One sweep over everything that waits instead of a timer for each: setting a deadline is one number written.
import type { Milliseconds } from '../../shared/units.ts';

/** Something that may wait too long. */
export interface Waiting {
  /** On the clock of its Deadlines; Infinity while it waits for nothing. */
  deadline: Milliseconds;
  /** The deadline has passed; it is Infinity again. */
  onDeadline(): void;
}

/** A coarse clock and those who wait by it. A deadline is noticed never early, and up to two intervals late. */
export class Deadlines {
  /** Milliseconds of a clock that never jumps, as of the last sweep. */
  now: Milliseconds = performance.now();
  private readonly waiting = new Set<Waiting>();
  private readonly interval: Milliseconds;
  private readonly timer: NodeJS.Timeout;

  constructor(interval: Milliseconds = 250) {
    this.interval = interval;
    this.timer = setInterval(() => this.sweep(), interval);
    this.timer.unref();
  }

  add(one: Waiting): void {
    this.waiting.add(one);
  }

  remove(one: Waiting): void {
    this.waiting.delete(one);
  }

  /** The moment so far ahead. */
  in(span: Milliseconds): Milliseconds {
    return this.now + span + this.interval;
  }

  close(): void {
    clearInterval(this.timer);
  }

  private sweep(): void {
    this.now = performance.now();
    for (const one of this.waiting) {
      if (one.deadline > this.now) continue;
      one.deadline = Infinity;
      one.onDeadline();
    }
  }
}
