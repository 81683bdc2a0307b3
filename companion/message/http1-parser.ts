// The strict HTTP/1.1 parser of both directions (RFC 9112): heads here, bodies in body-reader.ts. What is ambiguous is refused, never guessed.
// A head is parsed once and whole: its bytes wait, bounded, until the empty line has come, so any cutting of the bytes parses alike.
import type { FaultKind } from '../../shared/fault.ts';
import { Fields } from './headers.ts';
import { Malformed } from './malformed.ts';
import type { Framing, RequestHead, ResponseHead } from './message.ts';
import { parseAuthority, parseRequestTarget } from './request-target.ts';

/** Bounds of one message's head (and of its trailers). */
export interface HeadLimits {
  /** Bytes, with the empty line. */
  readonly head: number;
  /** Field lines. */
  readonly fields: number;
}

type Direction = 'request' | 'response';

/** Octets that a token may have (RFC 9110 §5.6.2). */
const TOKEN = new Uint8Array(256);
for (const char of "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") {
  TOKEN[char.charCodeAt(0)] = 1;
}

/** Whether the text is a token, and not empty. */
export function isToken(text: string): boolean {
  for (let i = 0; i < text.length; i++) if (TOKEN[text.charCodeAt(i)] !== 1) return false;
  return text.length > 0;
}

// Field names by which a message is framed or routed.
const PLAIN = 0;
const HOST = 1;
const CONTENT_LENGTH = 2;
const TRANSFER_ENCODING = 3;
const CONNECTION = 4;

interface KnownName {
  /** As it is written most. */
  readonly name: string;
  readonly lower: string;
  readonly role: number;
}

const KNOWN = new Map<string, KnownName>();
const COMMON_NAMES =
  'Accept Accept-Charset Accept-Encoding Accept-Language Accept-Ranges Access-Control-Allow-Credentials Access-Control-Allow-Headers ' +
  'Access-Control-Allow-Methods Access-Control-Allow-Origin Access-Control-Expose-Headers Access-Control-Max-Age Access-Control-Request-Headers ' +
  'Access-Control-Request-Method Age Allow Alt-Svc Authorization Cache-Control Cache-Status Connection Content-Disposition Content-Encoding ' +
  'Content-Language Content-Length Content-Location Content-Range Content-Security-Policy Content-Type Cookie DNT Date ETag Expect Expires ' +
  'Forwarded From Host If-Match If-Modified-Since If-None-Match If-Range If-Unmodified-Since Keep-Alive Last-Modified Link Location Max-Forwards ' +
  'Origin P3P Permissions-Policy Pragma Priority Proxy-Authenticate Proxy-Authorization Proxy-Connection Proxy-Status Range Referer ' +
  'Referrer-Policy Refresh Retry-After Sec-CH-UA Sec-CH-UA-Mobile Sec-CH-UA-Platform Sec-Fetch-Dest Sec-Fetch-Mode Sec-Fetch-Site Sec-Fetch-User ' +
  'Sec-GPC Sec-WebSocket-Accept Sec-WebSocket-Extensions Sec-WebSocket-Key Sec-WebSocket-Protocol Sec-WebSocket-Version Server Server-Timing ' +
  'Set-Cookie Strict-Transport-Security TE Timing-Allow-Origin Trailer Transfer-Encoding Upgrade Upgrade-Insecure-Requests User-Agent Vary Via ' +
  'WWW-Authenticate X-Cache X-Content-Type-Options X-Forwarded-For X-Forwarded-Host X-Forwarded-Proto X-Frame-Options X-Powered-By X-Real-IP ' +
  'X-Requested-With X-XSS-Protection';
const ROLES: Record<string, number> = {
  host: HOST,
  'content-length': CONTENT_LENGTH,
  'transfer-encoding': TRANSFER_ENCODING,
  connection: CONNECTION,
  // What it says counts as Connection's: old clients and hops mean it so (RFC 9112 Appendix C.2.2), and so does llhttp.
  'proxy-connection': CONNECTION,
};
for (const name of COMMON_NAMES.split(' ')) {
  const lower = name.toLowerCase();
  const role = ROLES[lower] ?? PLAIN;
  KNOWN.set(name, { name, lower, role });
  KNOWN.set(lower, { name: lower, lower, role });
}

// What the field lines of one head said about framing. One parse runs at a time, so one record serves all.
const said = {
  hosts: 0,
  host: '',
  contentLength: null as string | null,
  transferEncoding: null as string | null,
  connection: null as string | null,
};

/** Controls other than HTAB, CR and LF; a CR that no LF follows. LFs without a CR are found where lines are cut. */
const STRAY = /[\0-\x08\x0b\x0c\x0e-\x1f\x7f]|\r[^\n]/;

/**
 * What is cut from a text keeps the whole of it alive. Much of a head is remembered (hosts, URLs, stored answers), so that what is cut from a large one
 * is copied: else a host of a few bytes would hold tens of thousands.
 */
const LARGE = 2_048;

/** The same text, by itself. */
function byItself(text: string): string {
  return Buffer.from(text, 'latin1').toString('latin1');
}

/** Field lines from `at` to the end of the text, which ends with the CRLF of the last one. Fills `said`. */
function parseFieldLines(text: string, at: number, direction: Direction, maxFields: number): string[] {
  said.hosts = 0;
  said.contentLength = said.transferEncoding = said.connection = null;
  const lines: string[] = [];
  const malformed = malformedIn(direction);
  const isLarge = text.length > LARGE;
  while (at < text.length) {
    const lf = text.indexOf('\n', at);
    const colon = text.indexOf(':', at);
    if (lf === -1 || text.charCodeAt(lf - 1) !== 13) throw malformed('a line ends without CR');
    const first = text.charCodeAt(at);
    if (first === 32 || first === 9) throw malformed('a field line begins with white space');
    if (colon === -1 || colon >= lf) throw malformed('a field line has no colon');
    let name = text.slice(at, colon);
    let known = KNOWN.get(name);
    if (known === undefined) {
      // RFC 9112 §5.1: white space before the colon is refused in requests and removed from responses.
      if (direction === 'response') name = trimEnd(name);
      if (!isToken(name)) throw malformed('a field name has characters that none may have');
      known = KNOWN.get(name) ?? KNOWN.get(name.toLowerCase());
    }
    let start = colon + 1;
    let end = lf - 1;
    let code;
    while (start < end && ((code = text.charCodeAt(start)) === 32 || code === 9)) start++;
    while (end > start && ((code = text.charCodeAt(end - 1)) === 32 || code === 9)) end--;
    let value = text.slice(start, end);
    if (isLarge) {
      value = byItself(value);
      name = name === known?.name ? known.name : byItself(name);
    }
    if (known === undefined) lines.push(name, name.toLowerCase(), value);
    else {
      lines.push(name, known.lower, value);
      if (known.role !== PLAIN) {
        if (known.role === CONNECTION) said.connection = joined(said.connection, value);
        else if (known.role === HOST) {
          said.hosts++;
          said.host = value;
        } else if (known.role === CONTENT_LENGTH) said.contentLength = joined(said.contentLength, value);
        else {
          // No recipient agrees with another on what a tab means here.
          if (text.slice(end, lf).includes('\t')) throw malformed('a tab behind the transfer coding');
          said.transferEncoding = joined(said.transferEncoding, value);
        }
      }
    }
    at = lf + 1;
  }
  if (lines.length > maxFields * 3) throw new Malformed(tooLarge(direction), 'too many field lines');
  return lines;
}

/** RFC 9110 §8.6: Content-Length said several times becomes one line with one number, so that nobody is told a list. `list` is valid. */
function oneLength(lines: string[], list: string): void {
  let seen = false;
  for (let i = 1; i < lines.length; i += 3) {
    if (lines[i] !== 'content-length') continue;
    if (seen) {
      lines.splice(i - 1, 3);
      i -= 3;
    } else lines[i + 1] = trimmed(list.slice(0, list.indexOf(',')));
    seen = true;
  }
}

function joined(before: string | null, value: string): string {
  return before === null ? value : `${before},${value}`;
}

function trimEnd(text: string): string {
  let end = text.length;
  while (end > 0 && (text.charCodeAt(end - 1) === 32 || text.charCodeAt(end - 1) === 9)) end--;
  return text.slice(0, end);
}

/** Without the spaces and tabs around it, and only those: String.trim would take a no-break space, and more, for one. */
export function trimmed(text: string): string {
  let start = 0;
  while (start < text.length && (text.charCodeAt(start) === 32 || text.charCodeAt(start) === 9)) start++;
  return trimEnd(text.slice(start));
}

function malformedIn(direction: Direction): (detail: string) => Malformed {
  return direction === 'request' ? malformedRequest : malformedResponse;
}
const malformedRequest = (detail: string) => new Malformed('http_request_error', detail);
const malformedResponse = (detail: string) => new Malformed('http_protocol_error', detail);

function tooLarge(direction: Direction): FaultKind {
  return direction === 'request' ? 'head_too_large' : 'http_response_header_section_size';
}

/** Whether a comma-separated list of tokens has this one (lower case), whatever its case. */
export function listHas(list: string, token: string): boolean {
  if (list.length === token.length) return list === token || list.toLowerCase() === token;
  for (const part of list.split(',')) if (trimmed(part).toLowerCase() === token) return true;
  return false;
}

const NO_BODY: Framing = { kind: 'none' };
const CHUNKED: Framing = { kind: 'chunked' };
const UNTIL_CLOSE: Framing = { kind: 'close' };

/** RFC 9112 §6.3, what the fields say: null where neither Content-Length nor Transfer-Encoding is there. A repeated length is made one in `lines`. */
function framingSaid(version: number, direction: Direction, lines: string[]): Framing | null {
  const { contentLength, transferEncoding } = said;
  const malformed = malformedIn(direction);
  if (transferEncoding !== null) {
    if (contentLength !== null) throw malformed('Content-Length and Transfer-Encoding together');
    if (version === 10) throw malformed('Transfer-Encoding in HTTP/1.0');
    if (transferEncoding === 'chunked') return CHUNKED;
    const codings = transferEncoding.split(',').map(coding => trimmed(coding).toLowerCase());
    if (codings.includes('')) throw malformed('an empty transfer coding');
    const unknown = codings.find(coding => coding !== 'chunked');
    if (unknown !== undefined) {
      if (codings.at(-1) !== 'chunked') {
        if (codings.includes('chunked')) throw malformed('chunked is not the last transfer coding');
        if (direction === 'response' && codings.every(isNobodysCoding)) return UNTIL_CLOSE;
      }
      throw direction === 'request'
        ? new Malformed('not_implemented', 'an unknown transfer coding')
        : new Malformed('http_response_transfer_coding');
    }
    if (codings.length > 1) throw malformed('chunked twice');
    return CHUNKED;
  }
  if (contentLength === null) return null;
  const length = parseContentLength(contentLength, malformed);
  if (contentLength.includes(',')) oneLength(lines, contentLength);
  return { kind: 'length', length };
}

/** Codings that have a meaning (RFC 9112 §7, and what came before it): what is coded so and not decoded is nothing that a browser could read. */
const CODINGS: ReadonlySet<string> = new Set(['compress', 'deflate', 'gzip', 'identity', 'x-compress', 'x-gzip']);
const CODING = /^[!#$%&'*+\-.^_`|~0-9a-z]+$/;

/** A word that nobody has given a meaning, and that nobody could take for chunked: such an answer ends with its connection (RFC 9112 §6.3, 4). */
function isNobodysCoding(coding: string): boolean {
  return CODING.test(coding) && !CODINGS.has(coding) && !coding.includes('chunk');
}

/** RFC 9110 §8.6: digits only; the same number several times counts as once. */
function parseContentLength(text: string, malformed: (detail: string) => Malformed): number {
  let one = text;
  if (text.includes(',')) {
    const all = text.split(',').map(trimmed);
    one = all[0]!;
    if (all.some(other => other !== one)) throw malformed('Content-Length says different lengths');
  }
  // 15 digits are a petabyte, and exact in a double.
  if (one.length === 0 || one.length > 15) throw malformed('Content-Length is not a length');
  let length = 0;
  for (let i = 0; i < one.length; i++) {
    const digit = one.charCodeAt(i) - 48;
    if (digit < 0 || digit > 9) throw malformed('Content-Length is not a length');
    length = length * 10 + digit;
  }
  return length;
}

/** `HTTP/1.0` and `HTTP/1.1` as 10 and 11. */
function parseVersion(text: string, direction: Direction): number {
  if (text === 'HTTP/1.1') return 11;
  if (text === 'HTTP/1.0') return 10;
  if (direction === 'request' && /^HTTP\/\d\.\d$/.test(text)) throw new Malformed('http_version_not_supported');
  throw malformedIn(direction)('the HTTP version is not valid');
}

/**
 * A request head from its text: everything from the request line to the CRLF of the last field, without the empty line. Throws Malformed
 * http_request_error, not_implemented, http_version_not_supported, head_too_large (RFC 9112 §3, §5, §6).
 */
export function parseRequestHead(text: string, limits: HeadLimits): RequestHead {
  try {
    return readRequestHead(text, limits);
  } catch (error) {
    throw foremost(error, text, 'request');
  }
}

function readRequestHead(text: string, limits: HeadLimits): RequestHead {
  if (STRAY.test(text)) throw malformedRequest('a control character');
  const lf = text.indexOf('\n');
  const space = text.indexOf(' ');
  if (text.charCodeAt(lf - 1) !== 13) throw malformedRequest('a line ends without CR');
  if (space < 1 || space > lf) throw malformedRequest('the request line has no target');
  const second = text.indexOf(' ', space + 1);
  if (second === -1 || second > lf) throw malformedRequest('the request line has no version');
  const method = text.slice(0, space);
  if (!isToken(method)) throw malformedRequest('the method is not a token');
  // The beginning of HTTP/2 (RFC 9113 §3.4), and of nothing else.
  if (method === 'PRI') throw new Malformed('http_version_not_supported');
  const version = parseVersion(text.slice(second + 1, lf - 1), 'request');
  const isLarge = text.length > LARGE;
  const written = text.slice(space + 1, second);
  const target = parseRequestTarget(method, isLarge ? byItself(written) : written);
  const lines = parseFieldLines(text, lf + 1, 'request', limits.fields);

  // RFC 9112 §3.2: exactly one valid Host in HTTP/1.1. What it says counts only in origin-form (§3.2.2).
  if (said.hosts > 1) throw malformedRequest('more than one Host');
  if (said.hosts === 0) {
    if (version === 11) throw malformedRequest('no Host');
  } else if (said.host !== '') parseAuthority(said.host, 80);
  else if (target.form === 'absolute' || target.form === 'authority') throw malformedRequest('an empty Host');

  const framing = framingSaid(version, 'request', lines) ?? NO_BODY;
  if (method === 'CONNECT' && (framing.kind === 'chunked' || (framing.kind === 'length' && framing.length > 0))) {
    throw malformedRequest('CONNECT with a body');
  }
  return {
    method: isLarge ? byItself(method) : method,
    target,
    version,
    fields: new Fields(lines),
    framing: framing.kind === 'length' && framing.length === 0 ? NO_BODY : framing,
    // RFC 9112 §9.3: a proxy keeps no connection with an HTTP/1.0 client.
    keepAlive: version === 11 && (said.connection === null || !listHas(said.connection, 'close')),
  };
}

/**
 * A response head from its text (as parseRequestHead), framed as the answer to a request of that method (RFC 9112 §6.3). Throws Malformed
 * http_protocol_error, http_response_transfer_coding, http_response_header_section_size.
 */
export function parseResponseHead(text: string, limits: HeadLimits, method: string): ResponseHead {
  try {
    return readResponseHead(text, limits, method);
  } catch (error) {
    throw foremost(error, text, 'response');
  }
}

function readResponseHead(text: string, limits: HeadLimits, method: string): ResponseHead {
  if (STRAY.test(text)) throw malformedResponse('a control character');
  const lf = text.indexOf('\n');
  if (text.charCodeAt(lf - 1) !== 13) throw malformedResponse('a line ends without CR');
  const version = parseVersion(text.slice(0, 8), 'response');
  let status = 0;
  for (let i = 9; i < 12; i++) {
    const digit = text.charCodeAt(i) - 48;
    if (!(digit >= 0 && digit <= 9)) throw malformedResponse('the status is not three digits');
    status = status * 10 + digit;
  }
  // The space behind the status may be missing with the reason (RFC 9112 §4 asks for it; many leave it out).
  if (text.charCodeAt(8) !== 32 || (lf > 13 && text.charCodeAt(12) !== 32)) throw malformedResponse('the status line');
  if (status < 100) throw malformedResponse('the status is below 100');
  const reason = lf > 14 ? text.slice(13, lf - 1) : '';
  const lines = parseFieldLines(text, lf + 1, 'response', limits.fields);

  const bodyless =
    method === 'HEAD' || status < 200 || status === 204 || status === 304 || (method === 'CONNECT' && status < 300);
  // An answer without a body may say how long it would have been, in words that must be valid all the same.
  const stated = framingSaid(version, 'response', lines);
  const framing = bodyless ? NO_BODY : (stated ?? UNTIL_CLOSE);
  const { connection } = said;
  const keepAlive =
    framing !== UNTIL_CLOSE &&
    (version === 11
      ? connection === null || !listHas(connection, 'close')
      : connection !== null && listHas(connection, 'keep-alive') && !listHas(connection, 'close'));
  // Another answer is owed, so the connection cannot end here (RFC 9110 §15.2).
  if (!keepAlive && status < 200 && status !== 101) throw malformedResponse('an interim answer ends the connection');
  return {
    status,
    reason: text.length > LARGE ? byItself(reason) : reason,
    version,
    fields: new Fields(lines),
    framing: framing.kind === 'length' && framing.length === 0 ? NO_BODY : framing,
    keepAlive,
  };
}

/** A head in pieces is refused at its first bare LF, whatever else is wrong with it; so a head that came whole is, too. */
function foremost(error: unknown, text: string, direction: Direction): unknown {
  return /(?:^|[^\r])\n/.test(text) ? malformedIn(direction)('a line ends without CR') : error;
}

/** The fields of a trailer section, from its text without the empty line. */
export function parseTrailers(text: string, limits: HeadLimits, direction: Direction): Fields {
  if (STRAY.test(text)) throw malformedIn(direction)('a control character');
  return new Fields(parseFieldLines(text, 0, direction, limits.fields));
}

const HEAD_END = Buffer.from('\r\n\r\n', 'latin1');
const NOTHING = Buffer.alloc(0);

/** Cuts heads out of a stream of bytes. One for the life of a connection. */
export class HeadReader {
  /** The text of the head that `read` has just found, with the CRLF of its last line and without the empty line. */
  text = '';
  private readonly direction: Direction;
  private readonly limits: HeadLimits;
  private store: Buffer = NOTHING;
  private stored = 0;
  /** Before the first byte: 0 nothing, 1 a CR, 2 one empty line, 3 in the head. */
  private lead: 0 | 1 | 2 | 3;

  constructor(direction: Direction, limits: HeadLimits) {
    this.direction = direction;
    this.limits = limits;
    this.lead = direction === 'request' ? 0 : 3;
  }

  /** Whether a head has begun and not ended. */
  get begun(): boolean {
    return this.stored > 0 || this.lead === 1;
  }

  /** Whether nothing at all has come since the last head. */
  get isFresh(): boolean {
    return this.stored === 0 && this.lead === 0;
  }

  /**
   * Takes bytes of `chunk` from `at`. Gives back where the head ends, its text in `text`; or -1 when all was taken and more is needed.
   * Throws Malformed as soon as no more bytes could make it a head.
   */
  read(chunk: Buffer, at: number): number {
    if (this.stored === 0) {
      this.text = '';
      if (this.lead < 3) {
        at = this.skipLead(chunk, at);
        if (at === -1) return -1;
      }
      const end = chunk.indexOf(HEAD_END, at);
      if (end !== -1 && end + 4 - at <= this.limits.head) {
        this.found(chunk.toString('latin1', at, end + 2));
        return end + 4;
      }
    }
    return this.gather(chunk, at);
  }

  /** What has come of a head so far, for one that is refused: enough to tell whom it was meant for. */
  get beginning(): string {
    return this.text !== '' ? this.text.slice(0, 40) : this.store.toString('latin1', 0, Math.min(this.stored, 40));
  }

  /** The head has served: a connection that waits for the next one holds no text. */
  forget(): void {
    this.text = '';
  }

  private found(text: string): void {
    this.text = text;
    this.stored = 0;
    this.store = NOTHING;
    if (this.direction === 'request') this.lead = 0;
  }

  /** RFC 9112 §2.2: one empty line before a request is let pass, and no other white space. -1 when all was taken. */
  private skipLead(chunk: Buffer, at: number): number {
    while (at < chunk.length) {
      const byte = chunk[at]!;
      if (this.lead === 1) {
        if (byte !== 10) throw malformedRequest('a CR without LF');
        this.lead = 2;
      } else if (byte === 13 && this.lead === 0) this.lead = 1;
      else {
        if (TOKEN[byte] !== 1) throw malformedRequest('it does not begin with a method');
        this.lead = 3;
        return at;
      }
      at++;
    }
    return -1;
  }

  /** The slow way: a head in pieces, or one too large. */
  private gather(chunk: Buffer, at: number): number {
    const { head: limit } = this.limits;
    const before = this.stored;
    const taken = Math.min(chunk.length - at, limit - before);
    const needed = before + taken;
    if (this.store.length < needed) {
      const larger = Buffer.allocUnsafe(Math.min(limit, Math.max(needed, this.store.length * 2, 1024)));
      this.store.copy(larger, 0, 0, before);
      this.store = larger;
    }
    chunk.copy(this.store, before, at, at + taken);
    this.stored = needed;
    const bytes = this.store.subarray(0, needed);
    const end = bytes.indexOf(HEAD_END, Math.max(0, before - 3));
    if (end !== -1) {
      this.found(bytes.toString('latin1', 0, end + 2));
      return at + end + 4 - before;
    }
    for (let lf = bytes.indexOf(10, before); lf !== -1; lf = bytes.indexOf(10, lf + 1)) {
      if (bytes[lf - 1] !== 13) throw malformedIn(this.direction)('a line ends without CR');
    }
    if (needed < limit) return -1;
    if (this.direction === 'request' && !bytes.includes('\r\n')) throw new Malformed('target_too_long');
    throw new Malformed(tooLarge(this.direction));
  }
}
