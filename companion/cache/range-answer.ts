// What a stored answer, whole or not, has for a request with Range (RFC 9110 §14.2; RFC 9111 §3.3).
import type { Bytes, Milliseconds } from '../../shared/units.ts';
import type { Answer } from '../message/message.ts';
import { piecesWithin, validatorsOf } from './partial.ts';
import {
  type ByteRange,
  ifRangeHolds,
  parseRange,
  partialAnswer,
  type Piece,
  resolveRanges,
  unsatisfiableAnswer,
} from './ranges.ts';
import type { Entry } from './store.ts';

/** The part of a GET that ranges are told by. */
export interface RangeRequest {
  readonly range: string | undefined;
  readonly ifRange: string | undefined;
}

/** What of the entry is asked for; `whole`: all of it, since there is no Range or it does not count. */
function wanted(
  { lines, respondedAt, status, body, partial }: Entry,
  asked: RangeRequest,
): readonly ByteRange[] | 'whole' {
  if (asked.range === undefined || status !== 200) return 'whole';
  const specs = parseRange(asked.range);
  if (specs === null || !ifRangeHolds(asked.ifRange, validatorsOf(lines, respondedAt))) return 'whole';
  return resolveRanges(specs, partial === null ? body.length : partial.complete!);
}

/** Whether the entry has all that is asked for: a whole one always, an incomplete one only ranges within its parts. */
export function hasAll(entry: Entry, asked: RangeRequest): boolean {
  if (entry.partial === null) return true;
  const ranges = wanted(entry, asked);
  if (ranges === 'whole' || ranges.length === 0) return false;
  return ranges.every(({ from, to }) => piecesWithin(entry.partial!.parts, from, to) !== null);
}

/** The first byte of the body that the answer will have. */
export function firstByte(entry: Entry, asked: RangeRequest): Bytes {
  const ranges = wanted(entry, asked);
  return ranges === 'whole' || ranges.length === 0 ? 0 : ranges[0]!.from;
}

/** The 206 or 416 for the request; null where all of the entry is to be sent. To be asked only where it `hasAll`. */
export function rangeAnswer(entry: Entry, asked: RangeRequest, age: Milliseconds): Answer | null {
  const ranges = wanted(entry, asked);
  if (ranges === 'whole') return null;
  const { body, partial, lines } = entry;
  const length = partial === null ? body.length : partial.complete!;
  if (ranges.length === 0) return unsatisfiableAnswer(length);
  const open = (from: number, to: number): readonly Piece[] => {
    if (partial !== null) return piecesWithin(partial.parts, from, to)!;
    const { bytes } = body;
    return [bytes === null ? { length: to - from, open: () => body.open(from, to) } : bytes.subarray(from, to)];
  };
  return partialAnswer({ lines, age: Math.floor(age / 1000), length, open }, ranges);
}
