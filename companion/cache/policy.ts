// What may be stored, how long it is fresh, how old it is, and whether a request may have it. Pure, in the order of RFC 9111.
// A shared cache that keeps only answers with explicit freshness and does not validate (yet): what could not be reused without asking is not stored.
import type { EpochMilliseconds, Milliseconds, Seconds } from '../../shared/units.ts';
import type { Fields } from '../message/headers.ts';
import type { ExchangeTimes } from '../rooms.ts';
import type { ResponseHead } from '../message/message.ts';
import { type CacheControl, type DeltaSeconds, MAX_SECONDS, parseDeltaSeconds } from './cache-control.ts';
import { parseHttpDate } from './dates.ts';

type Times = ExchangeTimes;

/** What storing depends on, of the request. */
export interface AskedFor {
  readonly method: string;
  readonly hasAuthorization: boolean;
  readonly noStore: boolean;
}

/** Why an answer is not stored; null: it may be. */
export type Hindrance =
  | 'method'
  | 'status'
  | 'must-understand'
  | 'no-store'
  | 'private'
  | 'authorization'
  | 'no-cache'
  | 'no-freshness'
  | 'stale'
  | 'intermediary'
  | 'vary'
  | 'size'
  | null;

/** Final status codes whose rules for caches this cache keeps (RFC 9110 §15). 206 and 304 are for validation and ranges. */
const UNDERSTOOD: ReadonlySet<number> = new Set([
  200, 201, 202, 203, 204, 205, 206, 300, 301, 302, 303, 305, 307, 308, 400, 401, 402, 403, 404, 405, 406, 408, 409,
  410, 411, 412, 413, 414, 415, 416, 417, 421, 422, 426, 500, 501, 502, 503, 504, 505,
]);

/** Whether an answer may be stored, in the order of RFC 9111 §3. */
export function hindranceOf(asked: AskedFor, head: ResponseHead, control: CacheControl): Hindrance {
  if (asked.method !== 'GET') return 'method';
  const { status } = head;
  if (status < 200 || status === 304) return 'status'; // A 206 is stored as the part that it is (§3.3)
  if (control.mustUnderstand && !UNDERSTOOD.has(status)) return 'must-understand'; // §5.2.2.3
  if (asked.noStore) return 'no-store'; // §5.2.1.5
  if (control.noStore && !control.mustUnderstand) return 'no-store'; // §5.2.2.5; §5.2.2.3 puts must-understand above it
  if (control.private) return 'private'; // §5.2.2.7, qualified forms too
  if (asked.hasAuthorization && !allowsSharing(control)) return 'authorization'; // §3.5
  if (control.noCache) return 'no-cache'; // §5.2.2.4: never reused without validation
  if (madeByIntermediary(head.fields)) return 'intermediary';
  return null;
}

/** RFC 9111 §3.5: what lets a shared cache reuse the answer to a request with Authorization. */
export function allowsSharing(control: CacheControl): boolean {
  return control.public || control.mustRevalidate || typeof control.sharedMaxAge === 'number';
}

/** A hop's own error page is not the resource's. */
function madeByIntermediary(fields: Fields): boolean {
  if (fields.has('x-squid-error')) return true;
  const status = fields.get('proxy-status');
  return status !== undefined && /;\s*error\s*=/i.test(status);
}

/** RFC 9111 §4.2.1: how long from its generation the answer is fresh; null where it does not say. What is invalid or contradicts itself counts as stale: 0. */
export function freshnessLifetime(control: CacheControl, fields: Fields, times: Times): Milliseconds | null {
  if (control.sharedMaxAge !== null) return milliseconds(control.sharedMaxAge);
  if (control.maxAge !== null) return milliseconds(control.maxAge);
  const expires = fields.all('expires');
  if (expires.length === 0) return null;
  // §4.2.1: several that differ; §5.3: an invalid date, `0` above all, is in the past.
  if (expires.some(one => one !== expires[0])) return 0;
  const until = parseHttpDate(expires[0]!, times.respondedAt);
  if (until === null) return 0;
  return Math.min(Math.max(0, until - dateValue(fields, times)), MAX_SECONDS * 1000);
}

function milliseconds(seconds: DeltaSeconds): Milliseconds {
  return seconds === 'invalid' ? 0 : seconds * 1000;
}

/** RFC 9111 §4.2.3 date_value; an answer without a valid Date counts as made when it came. */
export function dateValue(fields: Fields, times: Times): EpochMilliseconds {
  const date = fields.get('date');
  return (date === undefined ? null : parseHttpDate(date, times.respondedAt)) ?? wholeSeconds(times.respondedAt);
}

/** RFC 9111 §5.1: the first list member if it is digits only, else nothing. */
export function ageValue(fields: Fields): Seconds {
  const age = fields.get('age');
  return age === undefined ? 0 : (parseDeltaSeconds(age.split(',', 1)[0]!.trim()) ?? 0);
}

/** RFC 9111 §4.2.3 corrected_initial_age. Date has whole seconds, so the clock is compared with it in whole seconds. */
export function correctedInitialAge(fields: Fields, age: Seconds, times: Times): Milliseconds {
  const apparentAge = Math.max(0, wholeSeconds(times.respondedAt) - dateValue(fields, times));
  const responseDelay = Math.max(0, times.respondedAt - times.requestedAt);
  const correctedAge = age * 1000 + responseDelay;
  return Math.min(Math.max(apparentAge, correctedAge), MAX_SECONDS * 1000);
}

function wholeSeconds(at: EpochMilliseconds): EpochMilliseconds {
  return at - (at % 1000);
}

/** What age and freshness are told from once an answer is stored. */
export interface Aging {
  readonly respondedAt: EpochMilliseconds;
  readonly initialAge: Milliseconds;
  readonly lifetime: Milliseconds;
}

/** RFC 9111 §4.2.3 current_age, saturating. A clock that has been set back tells nothing, so the answer then counts as old as can be. */
export function currentAge(stored: Aging, now: EpochMilliseconds): Milliseconds {
  const residentTime = now - stored.respondedAt;
  if (residentTime < -1000) return MAX_SECONDS * 1000;
  return Math.min(stored.initialAge + Math.max(0, residentTime), MAX_SECONDS * 1000);
}

/** RFC 9111 §4.2.4: whether nothing in the answer forbids its use when stale. */
export function permitsStale(control: CacheControl): boolean {
  return !control.mustRevalidate && !control.proxyRevalidate && control.sharedMaxAge === null && !control.noCache;
}

/** Whether a stored answer of that age may be used for a request with these directives (RFC 9111 §4, §5.2.1): yes, or Cache-Status's word for why not. */
export function reusability(
  stored: Aging & { readonly permitsStale: boolean },
  age: Milliseconds,
  request: CacheControl,
): 'yes' | 'stale' | 'request' {
  if (request.noCache) return 'request'; // §5.2.1.4
  const { maxAge, minFresh } = request;
  const remaining = stored.lifetime - age;
  if (remaining <= 0 && !(stored.permitsStale && acceptsStale(request, -remaining))) return 'stale'; // §4.2.4, §5.2.1.2
  if (maxAge !== null) {
    // §5.2.1.1. A browser that says 0 wants the origin to be asked, however young the answer is.
    const allowed = milliseconds(maxAge);
    if ((allowed === 0 || age > allowed) && !acceptsStale(request, age - allowed)) return 'request';
  }
  if (minFresh !== null && (minFresh === 'invalid' || remaining < minFresh * 1000)) return 'request'; // §5.2.1.3
  return 'yes';
}

function acceptsStale({ maxStale }: CacheControl, staleFor: Milliseconds): boolean {
  if (maxStale === null || maxStale === 'invalid') return false;
  return maxStale === 'any' || staleFor <= maxStale * 1000;
}
