// The tunnel request of a hop of kind http (RFC 9110 §9.3.6), and the loop mark that it carries.
import { randomBytes } from 'node:crypto';
import { type Endpoint, formatEndpoint } from '../../shared/endpoint.ts';
import { Fault, type FaultKind } from '../../shared/fault.ts';
import type { Bytes } from '../../shared/units.ts';
import type { RequestHead } from '../message/message.ts';
import { AskAgain, loginOf, type Nonce, type Told } from '../message/hop-login.ts';
import { readRetryAfter } from '../message/retry-after.ts';
import type { NamedHop } from '../rooms.ts';
import { endpointOf, type Handshake, hopFault, quotable } from './handshake.ts';

/** A reply's head may be so large; what we read of it is three fields. */
export const MAX_REPLY_HEAD: Bytes = 16 * 1024;
/** Interim answers (1xx) before the final one. */
const MAX_INTERIM = 8;
/** The body of a 407 that is read over, so that the connection can be used again. */
const MAX_SKIPPED: Bytes = 64 * 1024;
/** So often a hop is asked on one connection: once, with Digest, and with a new nonce. */
const MAX_ASKED = 3;
const NOTHING = Buffer.alloc(0);
const KNOWN_FIELD =
  /^(retry-after|x-squid-error|proxy-status|proxy-authenticate|proxy-authentication-info|content-length|transfer-encoding|connection|proxy-connection)[ \t]*:(.*)$/i;

/** The CONNECT request. `via` marks it as ours, so that we know it when it comes back; `headers` are those of the file for this hop. */
export function encodeConnect(
  target: Endpoint,
  authorization: string | null,
  via: string | null,
  headers: Readonly<Record<string, string>> = {},
): Buffer {
  const at = formatEndpoint(target);
  const lines = [`CONNECT ${at} HTTP/1.1`, `Host: ${at}`];
  if (via !== null) lines.push(`Via: ${via}`);
  if (authorization !== null) lines.push(`Proxy-Authorization: ${authorization}`);
  for (const name in headers) lines.push(`${name}: ${headers[name]}`);
  return Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1');
}

export interface ConnectReply {
  readonly status: number;
  /** The reason phrase and, where the hop named one, its own error: `403 Forbidden, ERR_ACCESS_DENIED`. */
  readonly said: string;
  /** How long it asks to be left alone, as it says it. */
  readonly retryAfter: string | undefined;
  /** Its Proxy-Authenticate and Proxy-Authentication-Info. */
  readonly challenges: readonly string[];
  readonly info: string | undefined;
  /** Bytes of the body of a no, where the connection can be used again behind it; null: it cannot. */
  readonly body: Bytes | null;
  readonly rest: Buffer;
}

/**
 * The head of a reply to CONNECT, 1xx answers skipped. In a 2xx, Content-Length and Transfer-Encoding mean nothing (RFC 9110 §9.3.6): the
 * tunnel begins behind the empty line. 'malformed' and 'too-large' as soon as that is sure, not when the hop deigns to finish.
 */
export function decodeConnectReply(bytes: Buffer): 'need-more' | 'malformed' | 'too-large' | ConnectReply {
  let start = 0;
  for (let interim = 0; interim <= MAX_INTERIM; interim++) {
    if (!looksLikeHttp(bytes, start)) return 'malformed';
    const end = bytes.indexOf('\r\n\r\n', start, 'latin1');
    if (end < 0) return bytes.length - start > MAX_REPLY_HEAD ? 'too-large' : 'need-more';
    if (end - start > MAX_REPLY_HEAD) return 'too-large';
    const head = parseReplyHead(bytes.toString('latin1', start, end));
    if (head === null) return 'malformed';
    if (head.status >= 200) return { ...head, rest: bytes.subarray(end + 4) };
    start = end + 4;
  }
  return 'malformed';
}

const PROTOCOL = Buffer.from('HTTP/1.');

function looksLikeHttp(bytes: Buffer, start: number): boolean {
  const length = Math.min(PROTOCOL.length, bytes.length - start);
  return length <= 0 || PROTOCOL.compare(bytes, start, start + length, 0, length) === 0;
}

function parseReplyHead(text: string): Omit<ConnectReply, 'rest'> | null {
  const lines = text.split('\r\n');
  const statusLine = /^HTTP\/1\.([01]) ([1-9]\d\d)(?: ([\t\x20-\x7e\x80-\xff]*))?$/.exec(lines[0]!);
  if (!statusLine) return null;
  let retryAfter: string | undefined;
  let said = `${statusLine[2]!} ${statusLine[3] ?? ''}`.trim();
  const challenges: string[] = [];
  let info: string | undefined;
  let length: string | null = null;
  let keeps = statusLine[1] === '1';
  for (let i = 1; i < lines.length; i++) {
    const line = lines[i]!;
    // A field that cannot be read is passed over: only the framing matters here, and that is the empty line.
    if (/[\0\r\n]/.test(line)) return null;
    const field = KNOWN_FIELD.exec(line);
    if (field === null) continue;
    const value = field[2]!.trim();
    switch (field[1]!.toLowerCase()) {
      case 'proxy-authenticate':
        challenges.push(value);
        break;
      case 'proxy-authentication-info':
        info = value;
        break;
      case 'retry-after':
        retryAfter = value;
        break;
      case 'content-length':
        // Two that differ say that neither can be trusted.
        if (length !== null && length !== value) keeps = false;
        length = value;
        break;
      case 'transfer-encoding':
        keeps = false;
        break;
      case 'connection':
      case 'proxy-connection':
        if (/(?:^|[\s,])close(?:$|[\s,])/i.test(value)) keeps = false;
        break;
      default:
        said += `, ${value}`;
    }
  }
  const body = keeps && length !== null && /^\d{1,9}$/.test(length) ? Number(length) : null;
  return {
    status: Number(statusLine[2]!),
    said: quotable(said),
    challenges,
    info,
    retryAfter,
    body: body !== null && body <= MAX_SKIPPED ? body : null,
  };
}

/** Asks `hop` for a tunnel to `target`. Throws AskAgain where it wants to be told otherwise who we are, and not on this connection. */
export function connectHandshake(hop: NamedHop, target: Endpoint, via: string | null): Handshake {
  const login = loginOf(hop);
  let told: Told;
  const connectRequest = (nonce?: Nonce) => {
    told = login.tell('CONNECT', () => formatEndpoint(target), nonce);
    return encodeConnect(target, told.text, via, hop.headers);
  };
  let given: Nonce | undefined;
  let asked = 1;
  let skip: Bytes = 0;
  return {
    stage: 'tunnel',
    opening: connectRequest(),
    read(bytes) {
      if (skip > 0) {
        if (bytes.length === 0) return 'need-more';
        const skipped = Math.min(skip, bytes.length);
        skip -= skipped;
        return { send: skip === 0 ? connectRequest(given) : undefined, rest: bytes.subarray(skipped), stands: false };
      }
      const reply = decodeConnectReply(bytes);
      if (reply === 'need-more') return reply;
      if (reply === 'malformed') throw hopFault('hop_protocol_error', hop, 'its answer to CONNECT is not HTTP');
      if (reply === 'too-large') throw hopFault('http_response_header_section_size', hop);
      const kind = faultKindOfStatus(reply.status);
      if (kind === null) {
        login.accepted(told, reply.info);
        return { rest: reply.rest.length === 0 ? NOTHING : reply.rest, stands: true };
      }
      const nonce = reply.status === 407 && asked < MAX_ASKED ? login.challenged(reply.challenges, told) : null;
      if (nonce !== null) {
        if (reply.body === null) {
          login.keep(nonce);
          throw new AskAgain(hop, nonce);
        }
        asked++;
        given = nonce;
        skip = reply.body;
        return { send: skip === 0 ? connectRequest(given) : undefined, rest: reply.rest, stands: false };
      }
      throw new Fault(kind, {
        hop: hop.name,
        target: endpointOf(hop),
        detail: `${reply.said}, asked for ${formatEndpoint(target)}`,
        receivedStatus: reply.status,
        retryAfter: readRetryAfter(reply.retryAfter),
      });
    },
  };
}

/** What a status in reply to CONNECT means: null = the tunnel stands. No byte has gone to the target, so a route may survive them all. */
export function faultKindOfStatus(status: number): FaultKind | null {
  if (status >= 200 && status < 300) return null;
  // Tinyproxy 1.11 answers wrong credentials with 401; to a CONNECT only the hop can be the speaker.
  if (status === 407 || status === 401) return 'hop_authentication_failed';
  // Could be the target that is down as well as the hop's own view of it.
  if (status === 404 || status === 500 || status === 502 || status === 503 || status === 504)
    return 'hop_could_not_reach';
  return 'hop_refused';
}

/** How CONNECT requests of this run are marked toward hops, and known when they come back. */
export interface LoopMark {
  readonly pseudonym: string;
  /** The Via member: `1.1 <pseudonym>`. */
  readonly via: string;
  /** Whether a request that came in was sent by this very run: a chain leads back to us. */
  comesFromUs(head: RequestHead): boolean;
}

/** A fresh random pseudonym (RFC 9110 §7.6.3): it says nothing of this machine and is another one after every start. */
export function makeLoopMark(pseudonym: string = randomBytes(9).toString('base64url')): LoopMark {
  const via = `1.1 ${pseudonym}`;
  return {
    pseudonym,
    via,
    comesFromUs(head) {
      if (!head.fields.has('via')) return false;
      for (const line of head.fields.all('via')) {
        if (!line.includes(pseudonym)) continue;
        for (const member of line.split(',')) if (member.trim().split(/\s+/)[1] === pseudonym) return true;
      }
      return false;
    },
  };
}
