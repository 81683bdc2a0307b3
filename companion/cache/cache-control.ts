// Cache-Control of requests and answers, read once into a flat record. Where the text is odd, the record is on the safe side:
// less is stored, less is reused (RFC 9111 §5.2, §4.2.1).
import type { Seconds } from '../../shared/units.ts';
import type { Fields } from '../message/headers.ts';
import { parseDictionary } from '../message/structured-fields.ts';

/** Seconds, saturated at 2^31; `invalid` where the argument is missing, no number, or given twice with different values. */
export type DeltaSeconds = Seconds | 'invalid';

/** RFC 9111 §1.2.2: what a number of seconds saturates at. */
export const MAX_SECONDS: Seconds = 2 ** 31;

export interface CacheControl {
  readonly noStore: boolean;
  /** Unqualified, or qualified in a way that cannot be kept to. */
  readonly noCache: boolean;
  readonly private: boolean;
  /** The fields, in lower case, that a qualified no-cache or private names. */
  readonly noCacheFields: readonly string[];
  readonly privateFields: readonly string[];
  readonly public: boolean;
  readonly mustRevalidate: boolean;
  readonly proxyRevalidate: boolean;
  readonly mustUnderstand: boolean;
  readonly onlyIfCached: boolean;
  readonly maxAge: DeltaSeconds | null;
  readonly sharedMaxAge: DeltaSeconds | null;
  readonly minFresh: DeltaSeconds | null;
  /** `any`: without an argument. */
  readonly maxStale: DeltaSeconds | 'any' | null;
  /** RFC 5861. */
  readonly staleWhileRevalidate: DeltaSeconds | null;
  readonly staleIfError: DeltaSeconds | null;
}

type Draft = { -readonly [K in keyof CacheControl]: CacheControl[K] };

function emptyRecord(): Draft {
  return {
    noStore: false,
    noCache: false,
    private: false,
    noCacheFields: [],
    privateFields: [],
    public: false,
    mustRevalidate: false,
    proxyRevalidate: false,
    mustUnderstand: false,
    onlyIfCached: false,
    maxAge: null,
    sharedMaxAge: null,
    minFresh: null,
    maxStale: null,
    staleWhileRevalidate: null,
    staleIfError: null,
  };
}

export const NO_DIRECTIVES: CacheControl = emptyRecord();

/** Reads a combined field value. Unknown directives say nothing; a quote that never ends may hide anything, so it forbids storing. */
export function parseCacheControl(value: string): CacheControl {
  const record = emptyRecord();
  for (const member of members(value)) {
    if (member === null) record.noStore = true;
    else if (member !== '') readDirective(member, record);
  }
  return record;
}

/** The list members between commas outside of quotes; null for one whose quote does not end. */
function* members(value: string): Generator<string | null> {
  let start = 0;
  let quoted = false;
  for (let i = 0; i < value.length; i++) {
    const char = value[i];
    if (quoted) {
      if (char === '\\') i++;
      else if (char === '"') quoted = false;
    } else if (char === '"') quoted = true;
    else if (char === ',') {
      yield value.slice(start, i).trim();
      start = i + 1;
    }
  }
  yield quoted ? null : value.slice(start).trim();
}

const DIRECTIVE = /^([!#$%&'*+.^_`|~0-9a-z-]+)(\s*=\s*)?(.*)$/is;

function readDirective(member: string, record: Draft): void {
  const [, name = '', equals, rest = ''] = DIRECTIVE.exec(member) ?? [];
  if (name === '' || (equals === undefined && rest !== '')) return readMalformed(member, record);
  // Space around the equals sign is not allowed: the name still counts, the argument does not.
  const argument = equals === undefined ? null : equals === '=' ? unquote(rest) : '';
  // A list of names is quoted: where it is not, the whole is meant.
  const isList = name.length < 9 && argument !== null && !rest.startsWith('"');
  hear(name.toLowerCase(), isList && /^(?:private|no-cache)$/i.test(name) ? '' : argument, record);
}

function hear(name: string, argument: string | null, record: Draft): void {
  switch (name) {
    case 'no-store':
      record.noStore = true;
      break;
    case 'no-cache':
      hearQualified(argument, record, 'noCache', 'noCacheFields');
      break;
    case 'private':
      hearQualified(argument, record, 'private', 'privateFields');
      break;
    case 'public':
      record.public = true;
      break;
    case 'must-revalidate':
      record.mustRevalidate = true;
      break;
    case 'proxy-revalidate':
      record.proxyRevalidate = true;
      break;
    case 'must-understand':
      record.mustUnderstand = true;
      break;
    case 'only-if-cached':
      record.onlyIfCached = true;
      break;
    case 'max-age':
      record.maxAge = agreed(record.maxAge, argument);
      break;
    case 's-maxage':
      record.sharedMaxAge = agreed(record.sharedMaxAge, argument);
      break;
    case 'min-fresh':
      record.minFresh = agreed(record.minFresh, argument);
      break;
    case 'stale-while-revalidate':
      record.staleWhileRevalidate = agreed(record.staleWhileRevalidate, argument);
      break;
    case 'stale-if-error':
      record.staleIfError = agreed(record.staleIfError, argument);
      break;
    case 'max-stale': {
      const before = record.maxStale === 'any' ? 'invalid' : record.maxStale;
      record.maxStale = argument === null && before === null ? 'any' : agreed(before, argument);
    }
  }
}

/** Names in a qualified form beyond this are not told apart. */
const MAX_QUALIFIED = 16;
const TOKEN = /^[!#$%&'*+.^_`|~0-9a-z-]+$/;
/** Without these an answer would be another one, or be cached otherwise: where they are named, the whole answer is meant. */
const ESSENTIAL = /^(?:content-.*|vary|cache-control|etag|last-modified|date|expires|age|location|.*cache-control)$/;

/** RFC 9111 §5.2.2.4, §5.2.2.7: with field names only they are meant; what cannot be told apart means the whole answer. */
function hearQualified(
  argument: string | null,
  record: Draft,
  whole: 'noCache' | 'private',
  qualified: 'noCacheFields' | 'privateFields',
): void {
  const names = argument === null ? [] : argument.split(',').map(name => name.trim().toLowerCase());
  const isClear = names.length > 0 && names.every(name => TOKEN.test(name) && !ESSENTIAL.test(name));
  if (isClear && names.length + record[qualified].length <= MAX_QUALIFIED) {
    record[qualified] = [...record[qualified], ...names];
  } else record[whole] = true;
}

/** Directives whose value is a number. */
const NUMERIC: ReadonlySet<string> = new Set(['max-age', 's-maxage', 'stale-while-revalidate', 'stale-if-error']);

/**
 * What speaks to this cache (RFC 9213 §2.2): the first of the targeted fields, in lower case, that is there, valid and not empty, else Cache-Control.
 * `targeted`: it was one of them, so that Expires says nothing.
 */
export function controlOf(fields: Fields, targeted: readonly string[]): { control: CacheControl; targeted: boolean } {
  for (const name of targeted) {
    const value = fields.get(name);
    const members = value === undefined ? null : parseDictionary(value);
    if (members === null || members.size === 0) continue;
    const record = emptyRecord();
    for (const [key, { value: said }] of members) {
      if (said === false) continue;
      // §2.1: a value of another type than the directive has is as if it were not there.
      const isNumber = typeof said === 'number';
      if (NUMERIC.has(key) !== isNumber) continue;
      hear(key, said === true ? null : isNumber || typeof said === 'string' ? String(said) : '', record);
    }
    return { control: record, targeted: true };
  }
  const said = fields.get('cache-control');
  return { control: said === undefined ? NO_DIRECTIVES : parseCacheControl(said), targeted: false };
}

/** `no-store; max-age=60` and the like: what would restrict is heard, what would permit is not. */
function readMalformed(member: string, record: Draft): void {
  const text = member.toLowerCase();
  record.noStore ||= text.includes('no-store');
  record.noCache ||= text.includes('no-cache');
  record.private ||= text.includes('private');
  record.mustRevalidate ||= text.includes('must-revalidate');
  record.proxyRevalidate ||= text.includes('proxy-revalidate');
  if (text.includes('s-maxage')) record.sharedMaxAge = 'invalid';
  if (text.includes('max-age')) record.maxAge = 'invalid';
}

/** RFC 9111 §4.2.1: several values of one directive count as stale, unless they say the same. */
function agreed(before: DeltaSeconds | null, argument: string | null): DeltaSeconds {
  const seconds = argument === null ? null : parseDeltaSeconds(argument);
  return seconds === null || (before !== null && before !== seconds) ? 'invalid' : seconds;
}

/** Digits only, saturating at 2^31 (RFC 9111 §1.2.2); null where there is anything else. */
export function parseDeltaSeconds(text: string): Seconds | null {
  return /^\d+$/.test(text) ? Math.min(Number(text), MAX_SECONDS) : null;
}

/** The content of a quoted-string, or the text itself (RFC 9111 §5.2: recipients accept both forms). */
function unquote(text: string): string {
  if (!text.startsWith('"')) return text;
  return /^"(?:[^"\\]|\\.)*"$/s.test(text) ? text.slice(1, -1).replace(/\\(.)/gs, '$1') : '';
}
