// Time that stands still until a test moves it. Hand `clock.now` to whatever asks for the time.

export interface Clock {
  /** The time on the wall, in milliseconds since 1970; a function that may be handed on alone. */
  readonly now: () => number;
  advance(milliseconds: number): void;
  /** Sets the clock, forward or back, as people and time servers do. */
  jumpTo(time: number): void;
}

export function startClock(time = Date.UTC(2026, 0, 1)): Clock {
  let now = time;
  return {
    now: () => now,
    advance(milliseconds) {
      now += milliseconds;
    },
    jumpTo(moment) {
      now = moment;
    },
  };
}
