// What may be stored, how long it is fresh, how old it is, and whether a request may have it. Pure, in the order of RFC 9111.
import type { CacheMode } from '../../shared/decision/rule.ts';
import type { EpochMilliseconds, Milliseconds, Seconds } from '../../shared/units.ts';
import type { Fields } from '../message/headers.ts';
import type { ExchangeTimes } from '../rooms.ts';
import { type CacheControl, controlOf, type DeltaSeconds, MAX_SECONDS, parseDeltaSeconds } from './cache-control.ts';
import { parseHttpDate } from './dates.ts';

type Times = Pick<ExchangeTimes, 'requestedAt' | 'respondedAt'>;

/** What kind of cache this is. */
export interface Semantics {
  /** Or a private one (RFC 9111 §1). */
  readonly shared: boolean;
  /** RFC 9213 fields in lower case, the first that is there counts. */
  readonly targeted: readonly string[];
  /** The most that heuristic freshness may be; 0: there is none. */
  readonly heuristic: Milliseconds;
  /** In the mode `aggressive` an answer is fresh for no less. */
  readonly aggressive: Milliseconds;
  /** Whether answers with Set-Cookie are kept: not where the cache has several users. */
  readonly cookies: boolean;
}

/** What storing depends on, of the request. */
export interface AskedFor {
  readonly method: string;
  readonly url: string;
  readonly hasAuthorization: boolean;
  readonly noStore: boolean;
}

/** What an answer says of its use, read once. */
export interface Terms {
  readonly control: CacheControl;
  readonly lifetime: Milliseconds;
  /** Whether the answer itself says how long (RFC 9111 §4.2.1), or it is guessed, or 0. */
  readonly isExplicit: boolean;
}

/** Why an answer is not stored; null: it may be. */
export type Hindrance =
  | 'method'
  | 'status'
  | 'must-understand'
  | 'no-store'
  | 'private'
  | 'authorization'
  | 'not-cacheable'
  | 'cookie'
  | 'useless'
  | 'intermediary'
  | 'vary'
  | 'size'
  | null;

/** Final status codes whose rules for caches this cache keeps (RFC 9110 §15); 304 is for validation. */
const UNDERSTOOD: ReadonlySet<number> = new Set([
  200, 201, 202, 203, 204, 205, 206, 300, 301, 302, 303, 305, 307, 308, 400, 401, 402, 403, 404, 405, 406, 408, 409,
  410, 411, 412, 413, 414, 415, 416, 417, 421, 422, 426, 500, 501, 502, 503, 504, 505,
]);

/** RFC 9110 §15.1: status codes that are heuristically cacheable. */
const HEURISTIC: ReadonlySet<number> = new Set([200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501]);

// §3: storing ------------------------------------------------------------------------------------------------------------------------

/** Whether an answer may be stored, in the order of RFC 9111 §3. */
export function hindranceOf(
  asked: AskedFor,
  status: number,
  fields: Fields,
  { control, lifetime, isExplicit }: Terms,
  initialAge: Milliseconds,
  { shared, cookies }: Semantics,
): Hindrance {
  if (asked.method !== 'GET' && !(isExplicit && isPostForItself(asked, status, fields))) return 'method';
  if (status < 200 || status === 304) return 'status'; // A 206 is stored as the part that it is (§3.3)
  if (control.mustUnderstand && !UNDERSTOOD.has(status)) return 'must-understand'; // §5.2.2.3
  if (asked.noStore) return 'no-store'; // §5.2.1.5
  if (control.noStore && !control.mustUnderstand) return 'no-store'; // §5.2.2.5; §5.2.2.3 puts must-understand above it
  if (shared && control.private) return 'private'; // §5.2.2.7
  if (shared && asked.hasAuthorization && !allowsSharing(control)) return 'authorization'; // §3.5
  if (!isExplicit && !control.public && !(control.private && !shared) && !HEURISTIC.has(status)) return 'not-cacheable';
  if (fields.has('set-cookie') && !(cookies && isExplicit)) return 'cookie';
  if (madeByIntermediary(fields)) return 'intermediary';
  // What could be reused neither as it is nor after asking is not worth its place.
  const staleWindow = seconds(control.staleWhileRevalidate) + seconds(control.staleIfError);
  if (lifetime <= initialAge && !hasValidator(fields) && (staleWindow === 0 || control.noCache)) return 'useless';
  if (control.noCache && !hasValidator(fields)) return 'useless';
  return null;
}

/** RFC 9110 §9.3.3: the answer to a POST that is what a GET of the same URL would get. */
function isPostForItself({ method, url }: AskedFor, status: number, fields: Fields): boolean {
  if (method !== 'POST' || status < 200 || status > 299) return false;
  const location = fields.get('content-location');
  return location !== undefined && URL.canParse(location, url) && new URL(location, url).href === new URL(url).href;
}

function hasValidator(fields: Fields): boolean {
  return fields.has('etag') || fields.has('last-modified');
}

/** Names of the fields that this cache may not keep (RFC 9111 §5.2.2.7). */
export function notKept({ control }: Terms, { shared }: Semantics): readonly string[] {
  return shared ? control.privateFields : [];
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

// §4.2: freshness and age ----------------------------------------------------------------------------------------------------------------

/** Reads what the answer says. */
export function termsOf(status: number, fields: Fields, times: Times, semantics: Semantics): Terms {
  const { control, targeted } = controlOf(fields, semantics.targeted);
  const explicit = explicitLifetime(control, targeted, fields, times, semantics.shared);
  if (explicit !== null) return { control, lifetime: explicit, isExplicit: true };
  const isGuessed = HEURISTIC.has(status) || control.public;
  return {
    control,
    lifetime: isGuessed ? heuristicLifetime(fields, times, semantics.heuristic) : 0,
    isExplicit: false,
  };
}

/** RFC 9111 §4.2.1: how long from its generation the answer is fresh; null where it does not say. What is invalid or contradicts itself counts as stale: 0. */
function explicitLifetime(
  control: CacheControl,
  targeted: boolean,
  fields: Fields,
  times: Times,
  shared: boolean,
): Milliseconds | null {
  if (shared && control.sharedMaxAge !== null) return milliseconds(control.sharedMaxAge);
  if (control.maxAge !== null) return milliseconds(control.maxAge);
  if (targeted) return null; // RFC 9213 §2.2
  const expires = fields.all('expires');
  if (expires.length === 0) return null;
  // §4.2.1: several that differ; §5.3: an invalid date, `0` above all, is in the past.
  if (expires.some(one => one !== expires[0])) return 0;
  const until = parseHttpDate(expires[0]!, times.respondedAt);
  if (until === null) return 0;
  return Math.min(Math.max(0, until - dateValue(fields, times)), MAX_SECONDS * 1000);
}

/** RFC 9111 §4.2.2: a tenth of the time since it was modified, at most `maximum`; 0 where nothing is known. */
function heuristicLifetime(fields: Fields, times: Times, maximum: Milliseconds): Milliseconds {
  const modified = fields.get('last-modified');
  const modifiedAt = modified === undefined ? null : parseHttpDate(modified, times.respondedAt);
  if (modifiedAt === null) return 0;
  return Math.min(Math.max(0, Math.floor((dateValue(fields, times) - modifiedAt) / 10)), maximum);
}

function milliseconds(delta: DeltaSeconds): Milliseconds {
  return delta === 'invalid' ? 0 : delta * 1000;
}

function seconds(delta: DeltaSeconds | null): Seconds {
  return typeof delta === 'number' ? delta : 0;
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

// §4: reuse --------------------------------------------------------------------------------------------------------------------------

/** What of a stored answer decides on its reuse. */
export interface Reuse extends Aging {
  readonly status: number;
  /** §5.2.2.4. */
  readonly mustValidate: boolean;
  /** §4.2.4: whether nothing in the answer forbids its use when stale. */
  readonly permitsStale: boolean;
  /** RFC 5861: how long after its lifetime; null: it does not say. */
  readonly staleWhileRevalidate: Milliseconds;
  readonly staleIfError: Milliseconds | null;
  /** §3.5. */
  readonly allowsSharing: boolean;
}

/** The part of Reuse that is read from the directives. */
export function reuseOf(control: CacheControl, shared: boolean): Omit<Reuse, keyof Aging | 'status'> {
  return {
    mustValidate: control.noCache,
    permitsStale:
      !control.mustRevalidate &&
      !control.noCache &&
      !(shared && (control.proxyRevalidate || control.sharedMaxAge !== null)), // §5.2.2.8, §5.2.2.10
    staleWhileRevalidate: seconds(control.staleWhileRevalidate) * 1000,
    staleIfError: control.staleIfError === null ? null : seconds(control.staleIfError) * 1000,
    allowsSharing: allowsSharing(control),
  };
}

/** How long an answer is fresh where a site has this mode. An error is not made to last longer. */
export function lifetimeIn(mode: CacheMode, stored: Pick<Reuse, 'lifetime' | 'status'>, aggressive: Milliseconds) {
  return mode === 'aggressive' && stored.status < 400 ? Math.max(stored.lifetime, aggressive) : stored.lifetime;
}

/**
 * Whether a stored answer of that age may be used for a request with these directives (RFC 9111 §4, §5.2.1): yes; behind, if it is asked for again behind
 * it (RFC 5861 §3); or Cache-Status's word for why not. The modes go their own ways: aggressive does not hear a client that wants it anew, offline-first
 * takes what there is.
 */
export function reusability(
  stored: Reuse,
  age: Milliseconds,
  request: CacheControl,
  mode: CacheMode,
  aggressive: Milliseconds,
): 'yes' | 'behind' | 'stale' | 'request' {
  const remaining = lifetimeIn(mode, stored, aggressive) - age;
  if (mode === 'aggressive' && remaining > 0) return stored.mustValidate ? 'stale' : 'yes';
  if (request.noCache) return 'request'; // §5.2.1.4
  if (stored.mustValidate) return 'stale'; // §5.2.2.4
  const { maxAge, minFresh } = request;
  if (remaining <= 0 && !(stored.permitsStale && acceptsStale(request, -remaining))) {
    // §4.2.4, §5.2.1.2
    const mayWait = stored.permitsStale && maxAge === null && minFresh === null;
    return mayWait && (mode === 'offline-first' || -remaining < stored.staleWhileRevalidate) ? 'behind' : 'stale';
  }
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

/**
 * Whether the stored answer may stand in where upstream answered with an error (RFC 5861 §4; `error`) or not at all (RFC 9111 §4.2.4; `cut-off`).
 * Never where it forbids its use when stale, or always wants to be validated. In offline-first, which a person has chosen for a site, that does not hold
 * while the site cannot be reached; and where it can, an error is replaced however old the answer is.
 */
export function standsIn(
  stored: Reuse,
  age: Milliseconds,
  request: CacheControl,
  mode: CacheMode,
  why: 'error' | 'cut-off',
): boolean {
  if (mode === 'offline-first' && why === 'cut-off') return true;
  if (request.noCache || stored.mustValidate) return false;
  const staleFor = age - stored.lifetime;
  if (mode === 'offline-first') return staleFor < 0 || stored.permitsStale;
  // RFC 5861 §4: the client may say it, too.
  const window = stored.staleIfError ?? (request.staleIfError === null ? null : seconds(request.staleIfError) * 1000);
  if (staleFor < 0) return why === 'cut-off' || window !== null;
  if (!stored.permitsStale) return false;
  return window === null ? why === 'cut-off' : staleFor <= window;
}
