// Incomplete answers (RFC 9111 §3.3, §3.4): parts of one representation, told by one strong validator. They answer ranges that lie within them,
// grow by what comes later, and become whole when nothing is missing; nothing else is ever answered from them, and what has another validator replaces them.
import type { Bytes, EpochMilliseconds } from '../../shared/units.ts';
import { Fields } from '../message/headers.ts';
import type { Answer, Body, RequestHead, ResponseHead } from '../message/message.ts';
import { parseHttpDate } from './dates.ts';
import { replacedLines } from './freshen.ts';
import { bodyOf, type ByteRange, isStrongDate, isStrongTag, type Piece, type Validators } from './ranges.ts';
import { type Entry, MemoryBody, type PartialBody, type StoredBody } from './store.ts';

type Part = PartialBody['parts'][number];

/** More parts than this are not kept apart. */
export const MAX_PARTS = 32;

/** What a 206 brings. */
export interface ContentRange extends ByteRange {
  /** Length of the whole. */
  readonly complete: Bytes;
}

const CONTENT_RANGE = /^bytes (\d{1,15})-(\d{1,15})\/(\d{1,15})$/i;

/** The one range that a 206 brings; null for several (multipart), for a whole of unknown length, and where anything contradicts anything (A73). */
export function contentRangeOf({ status, fields, framing }: ResponseHead): ContentRange | null {
  const value = status === 206 ? fields.get('content-range') : undefined;
  if (value === undefined) return null;
  const found = CONTENT_RANGE.exec(value);
  if (found === null || /^multipart\/byteranges/i.test(fields.get('content-type') ?? '')) return null;
  const [from, to, complete] = [Number(found[1]), Number(found[2]) + 1, Number(found[3])];
  if (from >= to || to > complete) return null;
  if (framing.kind === 'close' || (framing.kind === 'length' && framing.length !== to - from)) return null;
  return { from, to, complete };
}

/** The parts of an incomplete answer as its body: `length` is what there is of it. */
export class PartsBody implements StoredBody {
  readonly bytes = null;
  readonly length: Bytes;
  private readonly parts: readonly Part[];

  constructor(parts: readonly Part[]) {
    this.parts = parts;
    this.length = parts.reduce((sum, { bytes }) => sum + bytes.length, 0);
  }

  /** Throws where the range does not lie within the parts. */
  open(from: Bytes, to: Bytes): Buffer {
    const pieces = piecesWithin(this.parts, from, to);
    if (pieces === null) throw new Error('a range that is not there');
    return pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces);
  }
}

/** The bytes of a range out of these parts; null where any is missing. */
export function piecesWithin(parts: readonly Part[], from: Bytes, to: Bytes): Buffer[] | null {
  const pieces: Buffer[] = [];
  let at = from;
  for (const part of parts) {
    const end = part.from + part.bytes.length;
    if (end <= at) continue;
    if (part.from > at) return null;
    pieces.push(part.bytes.subarray(at - part.from, Math.min(end, to) - part.from));
    at = Math.min(end, to);
    if (at === to) return pieces;
  }
  return null;
}

/** From the first missing byte up to behind the last; null where none is. */
export function gapOf({ complete, parts }: PartialBody): ByteRange | null {
  if (complete === null) return null;
  let from = 0;
  for (const part of parts) {
    if (part.from > from) break;
    from = part.from + part.bytes.length;
  }
  if (from >= complete) return null;
  let to = complete;
  for (let i = parts.length - 1; i >= 0; i--) {
    const { from: start, bytes } = parts[i]!;
    if (start + bytes.length < to || start < from) break;
    to = start;
  }
  return { from, to };
}

/** The validator that parts are combined by: a strong tag, or without any tag a strong date (RFC 9110 §8.8); null where there is none. */
export function strongValidator(validators: Validators): string | null {
  const { etag, lastModified } = validators;
  if (etag !== undefined) return isStrongTag(etag) ? etag : null;
  return isStrongDate(validators) ? lastModified! : null;
}

/** The validators of an entry, of which `lines` has a Date. */
export function validatorsOf(lines: readonly string[], respondedAt: EpochMilliseconds): Validators {
  const fields = new Fields(lines as string[]);
  const date = fields.get('date');
  return {
    etag: fields.get('etag'),
    lastModified: fields.get('last-modified'),
    date: (date === undefined ? null : parseHttpDate(date, respondedAt)) ?? respondedAt,
  };
}

/** The strong validator of an entry. */
export function entryValidator({ lines, respondedAt }: Pick<Entry, 'lines' | 'respondedAt'>): string | null {
  return strongValidator(validatorsOf(lines, respondedAt));
}

/** One part of a whole as an entry: its head is that of the 200 it is a part of. `bytes` must be the cache's own. */
export function incompleteEntry(
  like: Omit<Entry, 'status' | 'reason' | 'body' | 'partial'>,
  from: Bytes,
  bytes: Buffer,
  complete: Bytes,
): Entry {
  const lines: string[] = [];
  for (let i = 0; i < like.lines.length; i += 3) {
    if (like.lines[i + 1] !== 'content-range') lines.push(like.lines[i]!, like.lines[i + 1]!, like.lines[i + 2]!);
  }
  return withParts({ ...like, lines, status: 200, reason: 'OK' }, [{ from, bytes }], complete);
}

function withParts(entry: Omit<Entry, 'body' | 'partial'>, parts: readonly Part[], complete: Bytes): Entry {
  if (gapOf({ complete, parts }) !== null)
    return { ...entry, body: new PartsBody(parts), partial: { complete, parts } };
  const whole = parts.length === 1 ? parts[0]!.bytes : Buffer.concat(parts.map(({ bytes }) => bytes));
  return { ...entry, body: new MemoryBody(whole), partial: null };
}

/** Whether both are of one representation, by the same strong validator (RFC 9111 §3.4). */
export function isOfSame(a: Pick<Entry, 'lines' | 'respondedAt'>, b: Pick<Entry, 'lines' | 'respondedAt'>): boolean {
  const validator = entryValidator(a);
  return validator !== null && validator === entryValidator(b);
}

/**
 * What is to be stored now that `fresh`, an incomplete entry, has come where `stored` is (RFC 9111 §3.4). With the same strong validator both together,
 * with the newer fields; else only what is newer. `limit`: the most bytes that the parts may have together.
 */
export function combine(stored: Entry, fresh: Entry, limit: Bytes): Entry {
  if (fresh.partial === null || stored.status !== 200) return fresh;
  if (!isOfSame(stored, fresh)) return fresh;
  const complete = fresh.partial.complete!;
  // RFC 9111 §3.4: each field of the newer answer replaces all lines of that name.
  const lines = replacedLines(stored.lines, fresh.lines);
  const { pinned, selection } = stored;
  if (stored.partial === null) {
    if (stored.body.length !== complete) return fresh;
    return { ...fresh, lines, selection, pinned, body: stored.body, partial: null };
  }
  if (stored.partial.complete !== complete) return fresh;
  const parts = bounded(fresh.partial.parts.reduce(added, stored.partial.parts));
  if (parts.reduce((sum, { bytes }) => sum + bytes.length, 0) > limit) return { ...fresh, lines, pinned };
  return withParts({ ...fresh, lines, pinned }, parts, complete);
}

/** With what is new of a part, in order; what is there already stays. */
function added(parts: readonly Part[], { from, bytes }: Part): readonly Part[] {
  const joined: Part[] = [];
  const end = from + bytes.length;
  let at = from;
  const fill = (to: Bytes): void => {
    if (to <= at) return;
    // A slice would keep all of the buffer.
    const piece = at === from && to === end ? bytes : Buffer.from(bytes.subarray(at - from, to - from));
    joined.push({ from: at, bytes: piece });
    at = to;
  };
  for (const part of parts) {
    fill(Math.min(part.from, end));
    joined.push(part);
    at = Math.max(at, part.from + part.bytes.length);
  }
  fill(end);
  return joined;
}

/** No more parts than allowed: those that touch become one, and of the rest the smallest go. */
function bounded(parts: readonly Part[]): readonly Part[] {
  if (parts.length <= MAX_PARTS) return parts;
  const joined: Part[] = [];
  for (let i = 0; i < parts.length;) {
    const { from } = parts[i]!;
    const run: Buffer[] = [];
    let end = from;
    for (; i < parts.length && parts[i]!.from === end; i++) {
      run.push(parts[i]!.bytes);
      end += parts[i]!.bytes.length;
    }
    joined.push({ from, bytes: run.length === 1 ? run[0]! : Buffer.concat(run) });
  }
  while (joined.length > MAX_PARTS) {
    let smallest = 0;
    for (let i = 1; i < joined.length; i++) if (joined[i]!.bytes.length < joined[smallest]!.bytes.length) smallest = i;
    joined.splice(smallest, 1);
  }
  return joined;
}

/** The request for what is missing of an incomplete entry, bound to its validator (RFC 9110 §13.1.5); null where that could not be combined. */
export function completingRequest(head: RequestHead, entry: Entry): { request: RequestHead; gap: ByteRange } | null {
  const { partial } = entry;
  const gap = partial === null ? null : gapOf(partial);
  const validator = entryValidator(entry);
  if (gap === null || validator === null) return null;
  const fields = head.fields.copy();
  fields.set('Range', gap.to === partial!.complete ? `bytes=${gap.from}-` : `bytes=${gap.from}-${gap.to - 1}`);
  fields.set('If-Range', validator);
  return { request: { ...head, fields }, gap };
}

/**
 * The whole answer, made of the entry and the 206 that brings what was missing; its head has the newer fields. Null when the 206 is not that: of another
 * validator or range, so that nothing can be made of it (A73).
 */
export function completedAnswer(
  entry: Entry,
  gap: ByteRange,
  answer: Answer,
  respondedAt: EpochMilliseconds,
): Answer | null {
  const { head, body } = answer;
  const range = contentRangeOf(head);
  const { complete, parts } = entry.partial!;
  if (range === null || range.from !== gap.from || range.to !== gap.to || range.complete !== complete) return null;
  const validator = strongValidator(validatorsOf(head.fields.flat, respondedAt));
  if (validator === null || validator !== entryValidator(entry)) return null;
  const incoming = incomingPiece(body, gap.to - gap.from);
  const before = piecesWithin(parts, 0, gap.from);
  const after = piecesWithin(parts, gap.to, complete);
  if (incoming === null || (before === null && gap.from > 0) || (after === null && gap.to < complete)) return null;
  const fields = new Fields(replacedLines(entry.lines, head.fields.flat) as string[]);
  fields.delete('content-range').delete('content-length').delete('transfer-encoding');
  return {
    head: { ...head, status: 200, reason: 'OK', fields, framing: { kind: 'length', length: complete } },
    body: bodyOf([...(before ?? []), incoming, ...(after ?? [])], complete),
  };
}

function incomingPiece(body: Body, length: Bytes): Piece | null {
  if (body === null) return null;
  if (Buffer.isBuffer(body)) return body.length === length ? body : null;
  return { length, open: () => body, drop: () => body.cancel() };
}
