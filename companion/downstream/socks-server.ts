// The handshake of a client that speaks SOCKS to us: SOCKS4 and 4a, SOCKS5 (RFC 1928) with user name and password (RFC 1929). Bytes in, bytes out;
// the socket is connection.ts's. Names stay names: they are resolved where the chain ends, as those of a CONNECT are.
import { type Endpoint, normalizeHost } from '../../shared/endpoint.ts';
import type { Fault, FaultKind } from '../../shared/fault.ts';

export type SocksVersion = 4 | 5;

/** Whether this name and password may enter. */
export type SocksLogin = (username: string, password: string) => boolean;

/** What came of the bytes so far. */
export interface SocksStep {
  /** To be sent now; empty where nothing is to be said. */
  readonly send: Buffer;
  /** What has not been read yet. Behind a target it is the tunnel's. */
  readonly rest: Buffer;
  /** Where the client wants to go; it waits for `socksYes` or `socksNo`. */
  readonly target?: Endpoint;
  /** The handshake has failed: send, then close. */
  readonly over?: true;
}

const CONNECT = 1;
const IPV4 = 1;
const NAME = 3;
const IPV6 = 4;
const NO_AUTHENTICATION = 0x00;
const USERNAME_PASSWORD = 0x02;
const NONE_ACCEPTABLE = 0xff;
const LOGIN_VERSION = 1;
/** The user id and the name of SOCKS4 end with a NUL; so many bytes before it at most. */
const MAX_TEXT = 255;
/** Replies of SOCKS5 (RFC 1928 §6). */
const GENERAL_FAILURE = 1;
const NOT_ALLOWED = 2;
const NETWORK_UNREACHABLE = 3;
const HOST_UNREACHABLE = 4;
const REFUSED = 5;
const EXPIRED = 6;
const COMMAND_NOT_SUPPORTED = 7;
const ADDRESS_TYPE_NOT_SUPPORTED = 8;

const NOTHING = Buffer.alloc(0);
const SOCKS4_YES = Buffer.from([0, 90, 0, 0, 0, 0, 0, 0]);
const SOCKS4_NO = Buffer.from([0, 91, 0, 0, 0, 0, 0, 0]);
const reply = (code: number) => Buffer.from([5, code, 0, IPV4, 0, 0, 0, 0, 0, 0]);
const SOCKS5_YES = reply(0);

/** Replies by what went wrong; a general failure for the others. */
const REPLY_OF: Partial<Record<FaultKind, number>> = {
  http_request_denied: NOT_ALLOWED,
  destination_ip_prohibited: NOT_ALLOWED,
  proxy_loop_detected: NOT_ALLOWED,
  hop_refused: NOT_ALLOWED,
  destination_ip_unroutable: NETWORK_UNREACHABLE,
  dns_error: HOST_UNREACHABLE,
  dns_timeout: HOST_UNREACHABLE,
  destination_not_found: HOST_UNREACHABLE,
  destination_unavailable: HOST_UNREACHABLE,
  hop_could_not_reach: HOST_UNREACHABLE,
  connection_refused: REFUSED,
  connection_timeout: EXPIRED,
};

/** The yes: from here on the connection is a tunnel. The bound address that it names is none of the client's business, and so it is zero. */
export function socksYes(version: SocksVersion): Buffer {
  return version === 5 ? SOCKS5_YES : SOCKS4_YES;
}

/** The no that fits a fault. SOCKS4 knows one only. */
export function socksNo(version: SocksVersion, fault: Fault): Buffer {
  return version === 5 ? reply(REPLY_OF[fault.kind] ?? GENERAL_FAILURE) : SOCKS4_NO;
}

/** One client's handshake, stage by stage. */
export class SocksServer {
  readonly version: SocksVersion;
  private readonly login: SocksLogin | null;
  private stage: 'greeting' | 'login' | 'request';

  /** `login` null: everyone may enter. */
  constructor(version: SocksVersion, login: SocksLogin | null) {
    this.version = version;
    this.login = login;
    this.stage = version === 5 ? 'greeting' : 'request';
  }

  /** Reads the next stage from what has come and was not `rest` of the step before; 'need-more' reads nothing. */
  read(bytes: Buffer): 'need-more' | SocksStep {
    if (this.version === 4) return readSocks4(bytes, this.login !== null);
    switch (this.stage) {
      case 'greeting':
        return this.greet(bytes);
      case 'login':
        return this.logIn(bytes);
      default:
        return readSocks5Request(bytes);
    }
  }

  /** RFC 1928 §3. Who offers nothing but a password is heard, though none is asked for. */
  private greet(bytes: Buffer): 'need-more' | SocksStep {
    if (bytes.length < 2) return 'need-more';
    const end = 2 + bytes[1]!;
    if (bytes.length < end) return 'need-more';
    const methods = bytes.subarray(2, end);
    const method =
      this.login === null && methods.includes(NO_AUTHENTICATION)
        ? NO_AUTHENTICATION
        : methods.includes(USERNAME_PASSWORD)
          ? USERNAME_PASSWORD
          : NONE_ACCEPTABLE;
    const send = Buffer.from([5, method]);
    if (method === NONE_ACCEPTABLE) return { send, rest: NOTHING, over: true };
    this.stage = method === USERNAME_PASSWORD ? 'login' : 'request';
    return { send, rest: bytes.subarray(end) };
  }

  /** RFC 1929 §2. */
  private logIn(bytes: Buffer): 'need-more' | SocksStep {
    if (bytes.length > 0 && bytes[0] !== LOGIN_VERSION) return ended(Buffer.from([LOGIN_VERSION, 1]));
    if (bytes.length < 2) return 'need-more';
    const nameEnd = 2 + bytes[1]!;
    if (bytes.length < nameEnd + 1) return 'need-more';
    const end = nameEnd + 1 + bytes[nameEnd]!;
    if (bytes.length < end) return 'need-more';
    const isRight =
      this.login === null || this.login(bytes.toString('utf8', 2, nameEnd), bytes.toString('utf8', nameEnd + 1, end));
    if (!isRight) return ended(Buffer.from([LOGIN_VERSION, 1]));
    this.stage = 'request';
    return { send: Buffer.from([LOGIN_VERSION, 0]), rest: bytes.subarray(end) };
  }
}

const ended = (send: Buffer): SocksStep => ({ send, rest: NOTHING, over: true });

/** RFC 1928 §4, §5. */
function readSocks5Request(bytes: Buffer): 'need-more' | SocksStep {
  if (bytes.length > 0 && bytes[0] !== 5) return ended(reply(GENERAL_FAILURE));
  // Of what we do not do no more is read than that it is asked for.
  if (bytes.length > 1 && bytes[1] !== CONNECT) return ended(reply(COMMAND_NOT_SUPPORTED));
  if (bytes.length < 5) return 'need-more';
  let host: string | null;
  let end: number;
  switch (bytes[3]) {
    case IPV4:
      end = 8;
      if (bytes.length < end + 2) return 'need-more';
      host = ipv4At(bytes, 4);
      break;
    case IPV6:
      end = 20;
      if (bytes.length < end + 2) return 'need-more';
      host = normalizeHost(ipv6At(bytes, 4));
      break;
    case NAME:
      end = 5 + bytes[4]!;
      if (bytes.length < end + 2) return 'need-more';
      host = nameIn(bytes.subarray(5, end));
      break;
    default:
      return ended(reply(ADDRESS_TYPE_NOT_SUPPORTED));
  }
  if (host === null) return ended(reply(HOST_UNREACHABLE));
  return { send: NOTHING, rest: bytes.subarray(end + 2), target: { host, port: bytes.readUInt16BE(end) } };
}

/** VN, CD, port, address, user id, NUL; of the form 0.0.0.x with x > 0 the address says that a name follows, and a NUL (SOCKS4a). */
function readSocks4(bytes: Buffer, needsLogin: boolean): 'need-more' | SocksStep {
  // Its user id proves nothing.
  if (needsLogin || (bytes.length > 1 && bytes[1] !== CONNECT)) return ended(SOCKS4_NO);
  if (bytes.length < 9) return 'need-more';
  const userEnd = bytes.indexOf(0, 8);
  if ((userEnd === -1 ? bytes.length : userEnd) - 8 > MAX_TEXT) return ended(SOCKS4_NO);
  if (userEnd === -1) return 'need-more';
  const port = bytes.readUInt16BE(2);
  const isNamed = bytes.readUInt32BE(4) >>> 8 === 0 && bytes[7] !== 0;
  if (!isNamed) return { send: NOTHING, rest: bytes.subarray(userEnd + 1), target: { host: ipv4At(bytes, 4), port } };
  const nameEnd = bytes.indexOf(0, userEnd + 1);
  if ((nameEnd === -1 ? bytes.length : nameEnd) - userEnd - 1 > MAX_TEXT) return ended(SOCKS4_NO);
  if (nameEnd === -1) return 'need-more';
  const host = nameIn(bytes.subarray(userEnd + 1, nameEnd));
  if (host === null) return ended(SOCKS4_NO);
  return { send: NOTHING, rest: bytes.subarray(nameEnd + 1), target: { host, port } };
}

function ipv4At(bytes: Buffer, at: number): string {
  return `${bytes[at]}.${bytes[at + 1]}.${bytes[at + 2]}.${bytes[at + 3]}`;
}

function ipv6At(bytes: Buffer, at: number): string {
  let text = '';
  for (let i = 0; i < 16; i += 2) text += `${i === 0 ? '' : ':'}${bytes.readUInt16BE(at + i).toString(16)}`;
  return text;
}

/** The name in normal form, which may turn out to be an address; null where it is none. Bytes beyond ASCII have no agreed meaning here. */
function nameIn(bytes: Buffer): string | null {
  for (const byte of bytes) if (byte <= 32 || byte >= 127) return null;
  return normalizeHost(bytes.toString('latin1'));
}
