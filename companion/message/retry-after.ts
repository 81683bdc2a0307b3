// How long whoever refuses asks to be left alone.
import type { Milliseconds } from '../../shared/units.ts';

/** What a Retry-After is taken for at least and at most. */
const SHORTEST: Milliseconds = 5_000;
const LONGEST: Milliseconds = 3_600_000;

/** A Retry-After (RFC 9110 §10.2.3) as a span within bounds; undefined where it says nothing that makes sense. */
export function readRetryAfter(text: string | undefined, now: Milliseconds = Date.now()): Milliseconds | undefined {
  if (text === undefined || text.length > 40) return undefined;
  const wait = /^\d{1,9}$/.test(text) ? Number(text) * 1000 : Date.parse(text) - now;
  return Number.isNaN(wait) ? undefined : Math.min(LONGEST, Math.max(SHORTEST, wait));
}
