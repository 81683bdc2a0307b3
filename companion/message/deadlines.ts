// One sweep over everything that waits instead of a timer for each: setting a deadline is one number written. Time in which this process stood still
// (the machine slept, the process was stopped) is counted against nobody: what has come meanwhile has not been read yet.
import type { Milliseconds } from '../../shared/units.ts';

/** Something that may wait too long. */
export interface Waiting {
  /** On the clock of its Deadlines; Infinity while it waits for nothing. */
  deadline: Milliseconds;
  /** The deadline has passed; it is Infinity again. */
  onDeadline(): void;
}

/** A sweep that comes so late means that the process stood still. */
const STOOD_STILL: Milliseconds = 2_000;
/** The wall clock going so far ahead of the steady one means that the machine slept; where it was only set, little is lost. */
const SLEPT: Milliseconds = 15_000;

/** A coarse clock and those who wait by it. A deadline is noticed never early, and up to two intervals late. */
export class Deadlines {
  /** Milliseconds of a clock that never jumps, as of the last sweep. */
  now: Milliseconds = performance.now();
  /** Hears that the process or the machine stood still: what was open then may be dead. */
  whenAwake: (() => void) | null = null;
  private wall = Date.now();
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
    const before = this.now;
    this.now = performance.now();
    const wallBefore = this.wall;
    this.wall = Date.now();
    const stood = this.now - before - this.interval;
    const slept = this.wall - wallBefore - (this.now - before) > SLEPT;
    if (stood > STOOD_STILL) for (const one of this.waiting) one.deadline += stood;
    if (stood > STOOD_STILL || slept) this.whenAwake?.();
    for (const one of this.waiting) {
      if (one.deadline > this.now) continue;
      one.deadline = Infinity;
      one.onDeadline();
    }
  }
}
