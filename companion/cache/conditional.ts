// Conditions of a request that the cache may answer by itself (RFC 9111 §4.3.2): If-None-Match, else If-Modified-Since.
import type { EpochMilliseconds } from '../../shared/units.ts';
import { parseHttpDate } from './dates.ts';

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

const ENTITY_TAG = /(W\/)?"([\x21\x23-\x7e\x80-\xff]*)"/y;

/** Weak comparison (RFC 9110 §8.8.3.2) with a list of entity tags; a malformed list matches nothing from there on. */
function matchesAny(list: string, etag: string | undefined): boolean {
  if (list.trim() === '*') return true;
  if (etag === undefined) return false;
  const own = etag.startsWith('W/') ? etag.slice(2) : etag;
  let at = 0;
  while (at < list.length) {
    const char = list[at];
    if (char === ' ' || char === '\t' || char === ',') {
      at++;
      continue;
    }
    ENTITY_TAG.lastIndex = at;
    const found = ENTITY_TAG.exec(list);
    if (found === null) return false;
    if (`"${found[2]}"` === own) return true;
    at = ENTITY_TAG.lastIndex;
  }
  return false;
}
