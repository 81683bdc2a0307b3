// What a 304, or the answer to a HEAD, says of a stored answer: which of them it means (RFC 9111 §4.3.4), and what its fields become (§3.2).
import type { EpochMilliseconds } from '../../shared/units.ts';
import type { Fields } from '../message/headers.ts';
import { isHopByHop } from '../message/hop-by-hop.ts';
import { opaque } from './conditional.ts';
import { formatHttpDate } from './dates.ts';
import type { StoredResponse } from './stored-response.ts';

/** The most characters and lines of fields that freshening may make of an answer; beyond it what was stored stays as it is (A74). */
const MAX_FRESHENED = 64 * 1024;
const MAX_FRESHENED_LINES = 400;

/** RFC 9111 §3.2: what tells of the stored bytes themselves stays as it was stored. Age is told anew. */
const NOT_MERGED: ReadonlySet<string> = new Set([
  'content-length',
  'content-encoding',
  'content-range',
  'content-md5',
  'content-digest',
  'repr-digest',
  'digest',
  'etag',
  'age',
  'trailer',
]);

/** The fields to keep of an answer: without Age, which is told anew, without the framing, which is ours, without `left`; with a Date where none came (RFC 9110 §6.6.1). */
export function storedLines(
  fields: Fields,
  respondedAt: EpochMilliseconds,
  left: readonly string[] = [],
): readonly string[] {
  const lines: string[] = [];
  let hasDate = false;
  for (let i = 0; i < fields.length; i++) {
    const lower = fields.lowerNameAt(i);
    if (lower === 'age' || lower === 'content-length' || lower === 'trailer' || isHopByHop(lower)) continue;
    if (left.includes(lower)) continue;
    if (lower === 'date') hasDate = true;
    lines.push(fields.nameAt(i), lower, fields.valueAt(i));
  }
  if (!hasDate) lines.push('Date', 'date', formatHttpDate(respondedAt));
  return lines;
}

/** The lines without those of these names. */
export function without(names: readonly string[], lines: readonly string[]): readonly string[] {
  if (names.length === 0) return lines;
  const kept: string[] = [];
  for (let i = 0; i < lines.length; i += 3) {
    if (!names.includes(lines[i + 1]!)) kept.push(lines[i]!, lines[i + 1]!, lines[i + 2]!);
  }
  return kept;
}

/** The lines with `fresh` in the place of what stood under the same names. */
export function replacedLines(stored: readonly string[], fresh: readonly string[]): readonly string[] {
  const names = new Set<string>();
  for (let i = 1; i < fresh.length; i += 3) names.add(fresh[i]!);
  const lines: string[] = [];
  for (let i = 0; i < stored.length; i += 3) {
    if (!names.has(stored[i + 1]!)) lines.push(stored[i]!, stored[i + 1]!, stored[i + 2]!);
  }
  return lines.concat(fresh);
}

/** The stored lines with every field of `fresh` in the place of what was stored under its name; null where that is too much. */
export function mergedLines(
  stored: readonly string[],
  fresh: Fields,
  respondedAt: EpochMilliseconds,
): readonly string[] | null {
  const added: string[] = [];
  const given = storedLines(fresh, respondedAt);
  for (let i = 0; i < given.length; i += 3) {
    if (!NOT_MERGED.has(given[i + 1]!)) added.push(given[i]!, given[i + 1]!, given[i + 2]!);
  }
  const lines = replacedLines(stored, added);
  const size = lines.reduce((sum, line) => sum + line.length, 0);
  return size > MAX_FRESHENED || lines.length > 3 * MAX_FRESHENED_LINES ? null : lines;
}

/**
 * The stored answer that a 304 means: by a strong validator, else by a weak one, else the only one there is. `alone`: it can only be about what we asked
 * by. Null where it means none of them.
 */
export function meantBy(fields: Fields, candidates: readonly StoredResponse[], alone: boolean): StoredResponse | null {
  const etag = fields.get('etag');
  if (etag !== undefined) {
    const own = opaque(etag);
    return (
      candidates.find(one => one.etag === etag) ??
      candidates.find(one => one.etag !== undefined && opaque(one.etag) === own) ??
      null
    );
  }
  const modified = fields.get('last-modified');
  const same = modified === undefined ? undefined : candidates.find(one => one.lastModified === modified);
  return same ?? (alone && candidates.length === 1 ? candidates[0]! : null);
}

/**
 * RFC 9111 §4.3.5: whether what a HEAD was answered with is what is stored; null where the validator that is stored is not in it.
 */
export function isStillTheSame(stored: StoredResponse, fields: Fields): boolean | null {
  const etag = fields.get('etag');
  const modified = fields.get('last-modified');
  const length = fields.get('content-length');
  if (etag !== undefined && etag !== stored.etag) return false;
  if (modified !== undefined && modified !== stored.lastModified) return false;
  if (length !== undefined && Number(length) !== stored.length) return false;
  if (etag !== undefined || (modified !== undefined && stored.etag === undefined)) return true;
  return stored.etag === undefined && stored.lastModified === undefined ? true : null;
}
