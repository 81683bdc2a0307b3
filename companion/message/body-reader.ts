// Takes the body out of a stream of bytes: by length, by chunks (RFC 9112 §7.1) or until the connection closes. Holds no data, only where it is.
import type { Fields } from './headers.ts';
import { type HeadLimits, HeadReader, parseTrailers } from './http1-parser.ts';
import { Malformed } from './malformed.ts';
import type { Framing } from './message.ts';

/** The longest extension of one chunk, and of all chunks of a message together. Nobody uses them, except to attack. */
const MAX_EXTENSION = 256;
const MAX_EXTENSIONS = 16 * 1024;
/** 2^52 and more is no size. */
const MAX_SIZE_DIGITS = 13;

/** chunk-ext without the white space that RFC 9112 §7.1.1 only tolerates. */
const EXTENSION =
  /^(?:;[!#$%&'*+\-.^_`|~0-9A-Za-z]+(?:=(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+|"(?:[\t !#-[\]-~]|\\[\t -~])*"))?)*$/;

// Where the reader is. CHUNK_SIZE is before the first digit, CHUNK_DIGITS behind it.
const DATA = 0;
const UNTIL_END = 1;
const CHUNK_SIZE = 2;
const CHUNK_DIGITS = 3;
const CHUNK_EXTENSION = 4;
const CHUNK_SIZE_LF = 5;
const CHUNK_DATA = 6;
const CHUNK_DATA_CR = 7;
const CHUNK_DATA_LF = 8;
const TRAILERS = 9;
const DONE = 10;

/** Reads one body. */
export class BodyReader {
  /** The trailers, once the body has ended with some. */
  trailers: Fields | null = null;
  private readonly direction: 'request' | 'response';
  private readonly limits: HeadLimits;
  private state: number;
  private remaining = 0;
  private digits = 0;
  private extension = '';
  private extensions = 0;
  private trailerReader: HeadReader | null = null;

  /** `framing` is not none. */
  constructor(framing: Framing, direction: 'request' | 'response', limits: HeadLimits) {
    this.direction = direction;
    this.limits = limits;
    this.state = framing.kind === 'length' ? DATA : framing.kind === 'chunked' ? CHUNK_SIZE : UNTIL_END;
    if (framing.kind === 'length') this.remaining = framing.length;
  }

  get done(): boolean {
    return this.state === DONE;
  }

  /** Whether the end of the connection is the end of the body. */
  get endsWithConnection(): boolean {
    return this.state === UNTIL_END;
  }

  /**
   * Takes bytes of `chunk` from `at` and hands data on, uncopied. Gives back where the body ends, or -1 when all was taken and it has not ended.
   * Throws Malformed http_request_error or http_protocol_error.
   */
  read(chunk: Buffer, at: number, take: (data: Buffer) => void): number {
    const { length } = chunk;
    while (at < length) {
      switch (this.state) {
        case UNTIL_END:
          take(at === 0 ? chunk : chunk.subarray(at));
          return -1;
        case DATA:
        case CHUNK_DATA: {
          const end = Math.min(length, at + this.remaining);
          this.remaining -= end - at;
          take(at === 0 && end === length ? chunk : chunk.subarray(at, end));
          at = end;
          if (this.remaining > 0) return -1;
          if (this.state === DATA) {
            this.state = DONE;
            return at;
          }
          this.state = CHUNK_DATA_CR;
          break;
        }
        case CHUNK_DATA_CR:
          if (chunk[at++] !== 13) throw this.malformed('a chunk is longer than its size');
          this.state = CHUNK_DATA_LF;
          break;
        case CHUNK_DATA_LF:
          if (chunk[at++] !== 10) throw this.malformed('a chunk ends with a bare CR');
          this.state = CHUNK_SIZE;
          break;
        case CHUNK_SIZE:
        case CHUNK_DIGITS:
          this.readSize(chunk[at++]!);
          break;
        case CHUNK_EXTENSION:
          this.readExtension(chunk[at++]!);
          break;
        case CHUNK_SIZE_LF:
          if (chunk[at++] !== 10) throw this.malformed('a chunk size ends with a bare CR');
          this.digits = 0;
          this.state = this.remaining > 0 ? CHUNK_DATA : TRAILERS;
          break;
        case TRAILERS:
          return this.readTrailers(chunk, at);
        default:
          return at;
      }
    }
    return this.state === DONE ? at : -1;
  }

  private readSize(byte: number): void {
    const digit = hexValue(byte);
    if (digit !== -1) {
      if (++this.digits > MAX_SIZE_DIGITS) throw this.malformed('a chunk size is too large');
      this.remaining = this.remaining * 16 + digit;
      this.state = CHUNK_DIGITS;
    } else if (this.state === CHUNK_DIGITS && byte === 13) this.state = CHUNK_SIZE_LF;
    else if (this.state === CHUNK_DIGITS && byte === 59 /* ; */) {
      this.extension = ';';
      this.state = CHUNK_EXTENSION;
    } else throw this.malformed('a chunk size is not a number');
  }

  private readExtension(byte: number): void {
    if (byte === 13) {
      if (!EXTENSION.test(this.extension)) throw this.malformed('a chunk extension is not valid');
      this.extension = '';
      this.state = CHUNK_SIZE_LF;
      return;
    }
    this.extension += String.fromCharCode(byte);
    if (this.extension.length > MAX_EXTENSION || ++this.extensions > MAX_EXTENSIONS) {
      throw this.malformed('chunk extensions are too long');
    }
  }

  /** An empty line, or field lines and then an empty line. */
  private readTrailers(chunk: Buffer, at: number): number {
    // Two bytes decide; a CRLF in front makes "no trailers" look like any other head's end.
    if (this.trailerReader === null) {
      this.trailerReader = new HeadReader('response', { head: this.limits.head + 2, fields: this.limits.fields });
      this.trailerReader.read(CRLF, 0);
    }
    let end: number;
    try {
      end = this.trailerReader.read(chunk, at);
    } catch (error) {
      // The reader speaks of a response's head; here it is the trailers of either direction.
      throw this.malformed(error instanceof Malformed && error.detail ? error.detail : 'the trailers are too large');
    }
    if (end === -1) return -1;
    const text = this.trailerReader.text.slice(2);
    if (text !== '') this.trailers = parseTrailers(text, this.limits, this.direction);
    this.trailerReader = null;
    this.state = DONE;
    return end;
  }

  private malformed(detail: string): Malformed {
    return new Malformed(this.direction === 'request' ? 'http_request_error' : 'http_protocol_error', detail);
  }
}

const CRLF = Buffer.from('\r\n', 'latin1');

function hexValue(byte: number): number {
  if (byte >= 48 && byte <= 57) return byte - 48;
  const lower = byte | 32;
  return lower >= 97 && lower <= 102 ? lower - 87 : -1;
}
