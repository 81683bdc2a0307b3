// A taste of the replayed traces: `npm run trace` prints them whole. What docs/cache.md argues from them holds here too.
import { describe, expect, test } from 'vitest';
import { MiB } from '../shared/units.ts';
import { lru, POLICIES, windowTinyLfu } from './trace/policies.ts';
import { replay } from './trace/replay.ts';
import { behindBrowsers, browsingTrace, scanTrace, type Trace, zipfTrace } from './trace/traces.ts';

const REQUESTS = 60_000;
const TRACES: readonly Trace[] = [
  zipfTrace(REQUESTS),
  scanTrace(REQUESTS),
  browsingTrace(REQUESTS),
  behindBrowsers(browsingTrace(4 * REQUESTS), lru, 3, 64 * MiB),
];

describe('a made trace', () => {
  test('is the same every time', () => {
    expect(zipfTrace(5_000)).toEqual(zipfTrace(5_000));
    expect(browsingTrace(5_000)).toEqual(browsingTrace(5_000));
  });

  test('has sizes as answers have: some KiB in the middle, some tens on average', () => {
    const sizes = TRACES[0]!.size.toSorted();
    expect(sizes[sizes.length >> 1]).toBeGreaterThan(4 * 1024);
    expect(sizes[sizes.length >> 1]).toBeLessThan(9 * 1024);
    const mean = sizes.reduce((sum, one) => sum + one, 0) / sizes.length;
    expect(mean).toBeGreaterThan(20 * 1024);
    expect(mean).toBeLessThan(60 * 1024);
  });
});

describe('a replay', () => {
  test.each(Object.entries(POLICIES))('%s keeps all where there is room, and never more than its room', (_, make) => {
    const trace = TRACES[0]!;
    const roomy = replay(trace, make, 2 ** 40);
    expect(roomy.hits).toBeCloseTo(replay(trace, lru, 2 ** 40).hits, 10);
    expect(replay(trace, make, 4 * MiB).hits).toBeLessThan(roomy.hits);
    const policy = make(1_000);
    policy.ask(1, 600);
    policy.ask(2, 600);
    expect([1, 2].filter(key => policy.ask(key, 600)).length).toBeLessThan(2);
  });

  test('a door behind a window of a fifth answers much more than the least recently used alone, and nowhere less by a hundredth', () => {
    const better = TRACES.map(trace =>
      [8 * MiB, 32 * MiB].map(
        capacity => replay(trace, windowTinyLfu(0.2), capacity).hits - replay(trace, lru, capacity).hits,
      ),
    );
    expect(Math.min(...better.flat())).toBeGreaterThan(-0.01);
    const [zipf, scans, , behind] = better;
    for (const [small, large] of [zipf!, scans!]) expect(Math.min(small!, large!)).toBeGreaterThan(0.05);
    expect(behind![1]).toBeGreaterThan(0.03);
  });

  test('a partition costs hits, and few', () => {
    const trace = TRACES[2]!;
    const [shared, apart] = [replay(trace, lru, 64 * MiB), replay(trace, lru, 64 * MiB, true)];
    expect(apart.hits).toBeLessThan(shared.hits);
    expect(shared.hits - apart.hits).toBeLessThan(0.06);
  });
});
