// Ranges: what a request asks for, and the 206 or 416 that says it (RFC 9110 §14, §15.3.7). Where the bytes come from is the caller's: memory,
// disk, or parts of an answer. However a Range is put together, no byte of the answer is sent twice (CVE-2011-3192).
import { randomBytes } from 'node:crypto';
import type { Bytes, EpochMilliseconds, Milliseconds, Seconds } from '../../shared/units.ts';
import { Fields } from '../message/headers.ts';
import type { Answer, BodySink, BodySource } from '../message/message.ts';
import { parseHttpDate } from './dates.ts';

/** From `from` up to but without `to`. */
export interface ByteRange {
  readonly from: Bytes;
  readonly to: Bytes;
}

/** As it was asked for: `first-last`, `first-` (last null), `-last` (first null). */
export interface RangeSpec {
  readonly first: Bytes | null;
  readonly last: Bytes | null;
}

/** Beyond so many ranges a Range is ignored (RFC 9110 §14.2, §17.15). */
export const MAX_RANGES = 32;
/** A longer one is not looked at. */
const MAX_RANGE_TEXT: Bytes = 2048;
/** Ranges no further apart than the head of a part takes are sent as one (RFC 9110 §15.3.7.2). */
const WORTH_A_PART: Bytes = 80;
/** RFC 9110 §8.8.2.2: so much later than Last-Modified an answer must have been made for that date to be a strong validator, also where two clocks tell the dates. */
const STRONG_DATE: Milliseconds = 60_000;

const SPEC = /^(\d*)-(\d*)$/;

/** What a Range asks for; null where it is to be ignored: another unit, malformed, or more ranges than anyone needs (RFC 9110 §14.2). */
export function parseRange(value: string): readonly RangeSpec[] | null {
  if (value.length > MAX_RANGE_TEXT || value.slice(0, 6).toLowerCase() !== 'bytes=') return null;
  const specs: RangeSpec[] = [];
  for (const part of value.slice(6).split(',')) {
    const text = part.trim();
    if (text === '') continue;
    const found = SPEC.exec(text);
    if (found === null || text === '-') return null;
    const first = position(found[1]!);
    const last = position(found[2]!);
    if (first !== null && last !== null && last < first) return null;
    if (specs.push({ first, last }) > MAX_RANGES) return null;
  }
  return specs.length === 0 ? null : specs;
}

function position(digits: string): Bytes | null {
  return digits === '' ? null : Math.min(Number(digits), Number.MAX_SAFE_INTEGER - 1);
}

/**
 * The ranges of a representation of `length` bytes, in the order asked for, those that overlap or nearly touch made one; none: it cannot be satisfied
 * (RFC 9110 §14.1.2). `whole`: all of an empty representation is asked for, of which no range can be told.
 */
export function resolveRanges(specs: readonly RangeSpec[], length: Bytes): readonly ByteRange[] | 'whole' {
  const found: { from: Bytes; to: Bytes; order: number }[] = [];
  for (const [order, { first, last }] of specs.entries()) {
    if (first === null) {
      if (last === 0) continue;
      if (length === 0) return 'whole';
      found.push({ from: Math.max(0, length - last!), to: length, order });
    } else if (first < length) {
      found.push({ from: first, to: last === null ? length : Math.min(last + 1, length), order });
    }
  }
  if (found.length < 2) return found;
  found.sort((a, b) => a.from - b.from);
  const joined = [found[0]!];
  for (const one of found.slice(1)) {
    const before = joined.at(-1)!;
    if (one.from - before.to < WORTH_A_PART) {
      before.to = Math.max(before.to, one.to);
      before.order = Math.min(before.order, one.order);
    } else joined.push(one);
  }
  return joined.sort((a, b) => a.order - b.order);
}

/** What a validator is told from. `date`: when the answer was made. */
export interface Validators {
  readonly etag: string | undefined;
  readonly lastModified: string | undefined;
  readonly date: EpochMilliseconds;
}

const STRONG_TAG = /^"[\x21\x23-\x7e\x80-\xff]*"$/;

/** Whether this text is a strong entity tag (RFC 9110 §8.8.3). */
export function isStrongTag(etag: string): boolean {
  return STRONG_TAG.test(etag);
}

/** Whether Last-Modified is a strong validator of this answer (RFC 9110 §8.8.2.2). */
export function isStrongDate({ lastModified, date }: Validators): boolean {
  if (lastModified === undefined) return false;
  const modifiedAt = parseHttpDate(lastModified, date);
  return modifiedAt !== null && date - modifiedAt >= STRONG_DATE;
}

/** Whether the ranges may be taken from this answer: If-Range names it, by a strong tag or its very date (RFC 9110 §13.1.5), or is not there. */
export function ifRangeHolds(ifRange: string | undefined, stored: Validators): boolean {
  if (ifRange === undefined) return true;
  if (ifRange.startsWith('"')) return isStrongTag(ifRange) && ifRange === stored.etag;
  if (!isStrongDate(stored)) return false;
  const named = parseHttpDate(ifRange, stored.date);
  return named !== null && named === parseHttpDate(stored.lastModified!, stored.date);
}

/** What ranges are taken from. */
export interface RangeSource {
  /** Flat triples: the fields of the 200. */
  readonly lines: readonly string[];
  readonly age: Seconds;
  /** Of the whole representation. */
  readonly length: Bytes;
  /** The bytes of a range, in as many pieces as they lie in. */
  open(from: Bytes, to: Bytes): readonly Piece[];
}

/** Some bytes of a body: here, or to be opened when their turn has come. */
export type Piece = Buffer | LaterPiece;

export interface LaterPiece {
  readonly length: Bytes;
  open(): Buffer | BodySource;
  /** It will not be opened: what it holds is to be freed. */
  drop?(): void;
}

/** The 206 with these ranges (RFC 9110 §15.3.7): one as it is, several as multipart/byteranges. */
export function partialAnswer(source: RangeSource, ranges: readonly ByteRange[]): Answer {
  if (ranges.length !== 1) return multipartAnswer(source, ranges);
  const { from, to } = ranges[0]!;
  const flat = source.lines.slice();
  flat.push('Content-Range', 'content-range', contentRange(from, to, source.length), 'Age', 'age', String(source.age));
  return answer206(flat, source.open(from, to), to - from);
}

function multipartAnswer(source: RangeSource, ranges: readonly ByteRange[]): Answer {
  // Nobody can have put it into the content, for nobody knows it before.
  const boundary = randomBytes(18).toString('hex');
  const flat: string[] = [];
  let type = '';
  for (let i = 0; i < source.lines.length; i += 3) {
    if (source.lines[i + 1] === 'content-type') type = `Content-Type: ${source.lines[i + 2]!}\r\n`;
    else flat.push(source.lines[i]!, source.lines[i + 1]!, source.lines[i + 2]!);
  }
  flat.push('Content-Type', 'content-type', `multipart/byteranges; boundary=${boundary}`);
  flat.push('Age', 'age', String(source.age));
  const pieces: Piece[] = [];
  let length = 0;
  let delimiter = `--${boundary}`;
  const add = (text: string): void => {
    pieces.push(Buffer.from(text, 'latin1'));
    length += text.length;
  };
  for (const { from, to } of ranges) {
    add(`${delimiter}\r\n${type}Content-Range: ${contentRange(from, to, source.length)}\r\n\r\n`);
    pieces.push(...source.open(from, to));
    length += to - from;
    delimiter = `\r\n--${boundary}`;
  }
  add(`${delimiter}--\r\n`);
  return answer206(flat, pieces, length);
}

function contentRange(from: Bytes, to: Bytes, length: Bytes): string {
  return `bytes ${from}-${to - 1}/${length}`;
}

function answer206(flat: string[], pieces: readonly Piece[], length: Bytes): Answer {
  return {
    head: {
      status: 206,
      reason: 'Partial Content',
      version: 11,
      fields: new Fields(flat),
      framing: { kind: 'length', length },
      keepAlive: true,
    },
    body: bodyOf(pieces, length),
  };
}

/** The 416 that tells how long the representation is (RFC 9110 §15.5.17). */
export function unsatisfiableAnswer(length: Bytes): Answer {
  const fields = Fields.of('Content-Range', `bytes */${length}`);
  return {
    head: {
      status: 416,
      reason: 'Range Not Satisfiable',
      version: 11,
      fields,
      framing: { kind: 'length', length: 0 },
      keepAlive: true,
    },
    body: Buffer.alloc(0),
  };
}

/** Up to so many bytes in several pieces are copied into one. */
const ONE_BUFFER: Bytes = 16 * 1024;

/** These pieces as one body. */
export function bodyOf(pieces: readonly Piece[], length: Bytes): Buffer | BodySource {
  if (pieces.length === 1 && Buffer.isBuffer(pieces[0])) return pieces[0];
  if (length <= ONE_BUFFER && pieces.every(piece => Buffer.isBuffer(piece))) return Buffer.concat(pieces, length);
  return new PiecesInTurn(pieces);
}

/** Gives pieces out one after the other, each opened when its turn has come; one that breaks off, or has another length than it should, breaks all off. */
class PiecesInTurn implements BodySource {
  private readonly pieces: readonly Piece[];
  private next = 0;
  private open: BodySource | null = null;
  private sink: BodySink | null = null;
  private flowing = false;
  private paused = false;
  private over = false;

  constructor(pieces: readonly Piece[]) {
    this.pieces = pieces;
  }

  start(sink: BodySink): void {
    this.sink = sink;
    this.flow();
  }

  resume(): void {
    this.paused = false;
    if (this.open !== null) this.open.resume();
    else this.flow();
  }

  cancel(): void {
    if (this.over) return;
    this.open?.cancel();
    this.stop();
  }

  /** On, as far as it goes without waiting. Not entered twice, so a chain of pieces is no chain of calls. */
  private flow(): void {
    if (this.flowing) return;
    this.flowing = true;
    while (!this.over && !this.paused && this.open === null) {
      const piece = this.pieces[this.next++];
      if (piece === undefined) {
        this.over = true;
        this.sink!.end(null);
      } else if (!Buffer.isBuffer(piece)) this.take(piece);
      else if (piece.length > 0) this.paused = !this.sink!.write(piece);
    }
    this.flowing = false;
  }

  private take(piece: LaterPiece): void {
    const source = piece.open();
    let left = piece.length;
    if (Buffer.isBuffer(source)) {
      if (source.length !== left) this.fail(new Error('a piece of a body has another length than it said'));
      else this.paused = !this.sink!.write(source);
      return;
    }
    this.open = source;
    source.start({
      write: chunk => {
        if (this.over) return true;
        left -= chunk.length;
        if (left < 0) {
          source.cancel();
          this.fail(new Error('a piece of a body is longer than it said'));
          return true;
        }
        const more = this.sink!.write(chunk);
        this.paused = !more;
        return more;
      },
      end: () => {
        if (this.over) return;
        if (left !== 0) return this.fail(new Error('a piece of a body is shorter than it said'));
        this.open = null;
        this.flow();
      },
      fail: error => this.fail(error),
    });
  }

  private fail(error: Error): void {
    if (this.over) return;
    this.stop();
    this.sink!.fail(error);
  }

  private stop(): void {
    this.over = true;
    this.open = null;
    for (const piece of this.pieces.slice(this.next)) if (!Buffer.isBuffer(piece)) piece.drop?.();
  }
}
