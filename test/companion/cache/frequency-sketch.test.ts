// The sketch against counting exactly.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { FrequencySketch } from '../../../companion/cache/frequency-sketch.ts';

describe('a frequency sketch', () => {
  test('never says less than there was, up to fifteen', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 300 }), { maxLength: 400 }), asked => {
        const sketch = new FrequencySketch(512);
        const exact = new Map<number, number>();
        for (const one of asked) {
          sketch.seen(one);
          exact.set(one, (exact.get(one) ?? 0) + 1);
        }
        for (const [one, count] of exact) expect(sketch.estimate(one)).toBeGreaterThanOrEqual(Math.min(15, count));
      }),
    );
  });

  test('seldom says more', () => {
    const sketch = new FrequencySketch(4_096);
    for (let i = 0; i < 4_096; i++) sketch.seen(Math.imul(i, 0x9e37_79b9));
    let more = 0;
    for (let i = 0; i < 4_096; i++) if (sketch.estimate(Math.imul(i, 0x9e37_79b9)) > 1) more++;
    expect(more).toBeLessThan(4_096 / 5);
  });

  test('forgets what was popular once', () => {
    const sketch = new FrequencySketch(64);
    for (let i = 0; i < 20; i++) sketch.seen(7);
    expect(sketch.estimate(7)).toBe(15);
    for (let i = 0; i < 5_000; i++) sketch.seen(1_000 + (i % 200));
    expect(sketch.estimate(7)).toBeLessThan(15);
  });
});
