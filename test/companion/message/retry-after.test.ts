// How long whoever refuses asks to be left alone.
import { expect, test } from 'vitest';
import { readRetryAfter } from '../../../companion/message/retry-after.ts';

test('seconds and dates, within bounds; anything else says nothing', () => {
  const now = Date.UTC(2026, 10, 24);
  const wait = (text?: string) => readRetryAfter(text, now);
  expect([wait('60'), wait('0'), wait('999999')]).toEqual([60_000, 5_000, 3_600_000]);
  expect(wait(new Date(now + 120_000).toUTCString())).toBe(120_000);
  expect(wait(new Date(now - 120_000).toUTCString())).toBe(5_000);
  expect([wait('soon'), wait('-1x'), wait('9'.repeat(50)), wait()]).toEqual([
    undefined,
    undefined,
    undefined,
    undefined,
  ]);
});
