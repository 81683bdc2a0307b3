// Conditions: those of a request that the cache may answer by itself (RFC 9111 §4.3.2: If-None-Match, else If-Modified-Since), and those that it asks
// the origin by when it has something to validate (§4.3.1).
import type { EpochMilliseconds } from '../../shared/units.ts';
import type { RequestHead } from '../message/message.ts';
import { parseHttpDate } from './dates.ts';
import type { StoredResponse } from './stored-response.ts';

export interface Conditions {
  readonly ifNoneMatch: string | undefined;
  readonly ifModifiedSince: string | undefined;
}

/** Whether the client already has this answer, so that 304 says it all. Only a 2xx is evaluated (RFC 9110 §13.2.1). */
export function hasItAlready(
  { ifNoneMatch, ifModifiedSince }: Conditions,
  stored: { readonly status: number; readonly etag: string | undefined; readonly modifiedAt: EpochMilliseconds },
  now: EpochMilliseconds,
): boolean {
  if (stored.status < 200 || stored.status > 299) return false;
  // RFC 9110 §13.1.2, §13.1.3: with If-None-Match, If-Modified-Since says nothing.
  if (ifNoneMatch !== undefined) return matchesAny(ifNoneMatch, stored.etag);
  if (ifModifiedSince === undefined) return false;
  const since = parseHttpDate(ifModifiedSince, now);
  return since !== null && stored.modifiedAt <= since;
}

const ONE_ENTITY_TAG = /^(?:W\/)?"[\x21\x23-\x7e\x80-\xff]*"$/;
const ENTITY_TAG = /(W\/)?"([\x21\x23-\x7e\x80-\xff]*)"/y;

/** Weak comparison (RFC 9110 §8.8.3.2) with a list of entity tags; a malformed list matches nothing from there on. */
function matchesAny(list: string, etag: string | undefined): boolean {
  if (list.trim() === '*') return true;
  if (etag === undefined) return false;
  const own = opaque(etag);
  for (const tag of tagsOf(list)) if (tag === own) return true;
  return false;
}

/** The tags of a list without their weakness; null for what is none, which is then the last. */
function* tagsOf(list: string): Generator<string | null> {
  let at = 0;
  while (at < list.length) {
    const char = list[at];
    if (char === ' ' || char === '\t' || char === ',') {
      at++;
      continue;
    }
    ENTITY_TAG.lastIndex = at;
    const found = ENTITY_TAG.exec(list);
    yield found === null ? null : `"${found[2]}"`;
    if (found === null) return;
    at = ENTITY_TAG.lastIndex;
  }
}

/** A tag without its weakness: weak comparison is by this (RFC 9110 §8.8.3.2). */
export function opaque(etag: string): string {
  return etag.startsWith('W/') ? etag.slice(2) : etag;
}

/** What the origin is asked by. */
export interface Validation {
  readonly request: RequestHead;
  /** The stored answers that a 304 may be about. */
  readonly candidates: readonly StoredResponse[];
  /** Whether a 304 can be about nothing else: the client names no tags but those. */
  readonly alone: boolean;
}

/**
 * The request with the validators of what is stored: all their tags beside the client's own, or the one Last-Modified. The client's If-Modified-Since
 * gives way to ours; it is judged when the answer is there. Null where there is nothing to ask by: the client's request then goes as it is.
 */
export function validationOf(
  head: RequestHead,
  { ifNoneMatch }: Conditions,
  stored: readonly StoredResponse[],
): Validation | null {
  if (stored.length === 0 || ifNoneMatch?.trim() === '*') return null;
  const tagged = stored.filter(one => one.etag !== undefined && ONE_ENTITY_TAG.test(one.etag));
  const modified = stored.length === 1 ? stored[0]!.lastModified : undefined;
  if (tagged.length === 0 && (modified === undefined || ifNoneMatch !== undefined)) return null;
  const fields = head.fields.copy();
  const tags = [...new Set(tagged.map(one => one.etag!))];
  const own = tags.map(opaque);
  if (tags.length > 0) {
    const more = tags.filter(tag => !matchesAny(ifNoneMatch ?? '', tag));
    fields.set('If-None-Match', (ifNoneMatch ? [ifNoneMatch, ...more] : more).join(', '));
  }
  if (modified === undefined) fields.delete('if-modified-since');
  else fields.set('If-Modified-Since', modified);
  return {
    request: { ...head, fields },
    candidates: tags.length > 0 ? tagged : stored,
    alone: [...tagsOf(ifNoneMatch ?? '')].every(tag => tag !== null && own.includes(tag)),
  };
}
