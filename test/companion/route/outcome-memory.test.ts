// What one site's failures by one chain are worth, on a clock of the test's.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  lifetimeOf,
  makeOutcomeMemory,
  MAX_OUTCOMES,
  RATE_AT_LEAST,
  RATE_AT_MOST,
  REFUSED_AT_MOST,
  REFUSED_FOR,
  UNREACHABLE_FOR,
} from '../../../companion/route/outcome-memory.ts';
import type { Sign } from '../../../shared/exchange.ts';
import { startClock } from '../../support/clock.ts';

const one = { key: 'one' };
const other = { key: 'other' };
const SIGNS: Sign[] = ['policy', 'rate', 'auth', 'unreachable', 'reset', 'tls', 'poisoned', 'portal', 'timeout'];

function start() {
  const clock = startClock();
  return { clock, memory: makeOutcomeMemory(clock.now) };
}

describe('how long a no counts', () => {
  test("a policy's ten minutes, twice as long each time it is said again after that, a day at the most", () => {
    const { clock, memory } = start();
    const lifetimes: number[] = [];
    for (let i = 0; i < 10; i++) {
      const outcome = memory.failed('a.test', one, 'policy');
      if (outcome.outcome === 'failed') lifetimes.push(outcome.lifetime);
      clock.advance(lifetimes.at(-1)!);
    }
    const minutes = [10, 20, 40, 80, 160, 320, 640, 1_280].map(count => count * 60_000);
    expect(lifetimes).toEqual([...minutes, REFUSED_AT_MOST, REFUSED_AT_MOST]);
  });

  test('the same no said to other requests within its time is one no', () => {
    const { clock, memory } = start();
    for (let i = 0; i < 5; i++) memory.failed('a.test', one, 'policy');
    clock.advance(REFUSED_FOR - 1);
    expect(memory.isLast('a.test', one)).toBe(true);
    clock.advance(1);
    expect(memory.isLast('a.test', one)).toBe(false);
  });

  test('who asks to be left alone is, within bounds; what cannot be reached may be back any moment', () => {
    expect(lifetimeOf('rate', 1, 90_000)).toBe(90_000);
    expect(lifetimeOf('rate', 1, 0)).toBe(RATE_AT_LEAST);
    expect(lifetimeOf('rate', 3, 1e9)).toBe(RATE_AT_MOST);
    expect(lifetimeOf('unreachable', 20)).toBe(UNREACHABLE_FOR);
    expect(lifetimeOf('timeout', 20)).toBe(UNREACHABLE_FOR);
  });

  test('another reason begins anew', () => {
    const { clock, memory } = start();
    memory.failed('a.test', one, 'policy');
    clock.advance(REFUSED_FOR);
    expect(memory.failed('a.test', one, 'unreachable')).toMatchObject({ strikes: 1, lifetime: UNREACHABLE_FOR });
    expect(memory.failed('a.test', one, 'policy')).toMatchObject({ strikes: 1, lifetime: REFUSED_FOR });
  });
});

describe('the next chance', () => {
  test('is one request at a time; the others keep to what works', () => {
    const { clock, memory } = start();
    memory.failed('a.test', one, 'policy');
    clock.advance(REFUSED_FOR);
    expect(memory.isLast('a.test', one)).toBe(false);
    memory.trying('a.test', one);
    expect(memory.isLast('a.test', one)).toBe(true);
    expect(memory.worked('a.test', one)).toBe(true);
    expect(memory.isLast('a.test', one)).toBe(false);
    expect(memory.worked('a.test', one)).toBe(false);
  });

  test('goes to another request where the first never says how it went', () => {
    const { clock, memory } = start();
    memory.failed('a.test', one, 'unreachable');
    clock.advance(UNREACHABLE_FOR);
    memory.trying('a.test', one);
    clock.advance(60_000);
    expect(memory.isLast('a.test', one)).toBe(false);
  });

  test('is not taken by trying a chain before its time is over', () => {
    const { clock, memory } = start();
    memory.failed('a.test', one, 'unreachable');
    clock.advance(UNREACHABLE_FOR - 1);
    memory.trying('a.test', one);
    clock.advance(1);
    expect(memory.isLast('a.test', one)).toBe(false);
  });
});

test('a failure that was over for long is forgotten: the next is a first one', () => {
  const { clock, memory } = start();
  memory.failed('a.test', one, 'policy');
  clock.advance(REFUSED_FOR + 60 * 60_000);
  expect(memory.failed('a.test', one, 'policy')).toMatchObject({ strikes: 1 });
});

test('another worker hears what counts here, and a new one is told it', () => {
  const { clock, memory } = start();
  const second = makeOutcomeMemory(clock.now);
  second.hear(memory.failed('a.test', one, 'policy'));
  clock.advance(1_000);
  expect(second.all()).toEqual([
    { outcome: 'failed', site: 'a.test', chain: 'one', reason: 'policy', strikes: 1, lifetime: REFUSED_FOR - 1_000 },
  ]);
  expect(second.isLast('a.test', one)).toBe(true);
  second.hear({ outcome: 'worked', site: 'a.test', chain: 'one' });
  expect(second.all()).toEqual([]);
});

test('it is bounded: the oldest goes', () => {
  const { memory } = start();
  for (let i = 0; i <= MAX_OUTCOMES; i++) memory.failed(`${i}.test`, one, 'policy');
  expect(memory.all()).toHaveLength(MAX_OUTCOMES);
  expect(memory.isLast('0.test', one)).toBe(false);
});

test('property: whatever one site hears by one chain, other sites and other chains stay as they were', () => {
  fc.assert(
    fc.property(
      fc.array(fc.record({ sign: fc.constantFrom(...SIGNS), wait: fc.nat(2_000_000) }), { maxLength: 20 }),
      said => {
        const { clock, memory } = start();
        for (const { sign, wait } of said) {
          memory.trying('a.test', one);
          memory.failed('a.test', one, sign);
          expect(memory.isLast('b.test', one)).toBe(false);
          expect(memory.isLast('a.test', other)).toBe(false);
          clock.advance(wait);
        }
        clock.advance(REFUSED_AT_MOST);
        expect(memory.isLast('a.test', one)).toBe(false);
      },
    ),
  );
});
