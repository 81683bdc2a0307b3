// The handshake of a hop of kind socks5: RFC 1928, with user name and password by RFC 1929.
// Names are sent as names, so that they are resolved at the hop and not here.
import { type Endpoint, formatEndpoint, isAddress } from '../../shared/endpoint.ts';
import type { FaultKind } from '../../shared/fault.ts';
import type { NamedHop } from '../rooms.ts';
import { type Handshake, type HandshakeStage, hopFault } from './handshake.ts';
import type { Login } from './isolation.ts';

const VERSION = 5;
const NO_AUTHENTICATION = 0x00;
const USERNAME_PASSWORD = 0x02;
const NONE_ACCEPTABLE = 0xff;
const LOGIN_VERSION = 1;
const CONNECT = 1;
const IPV4 = 1;
const NAME = 3;
const IPV6 = 4;

/** RFC 1928 §3: the methods that we offer. */
export function encodeGreeting(withLogin: boolean | 'only'): Buffer {
  if (withLogin === 'only') return Buffer.from([VERSION, 1, USERNAME_PASSWORD]);
  return withLogin
    ? Buffer.from([VERSION, 2, NO_AUTHENTICATION, USERNAME_PASSWORD])
    : Buffer.from([VERSION, 1, NO_AUTHENTICATION]);
}

/** RFC 1928 §3: the method that the hop chose. */
export function decodeMethod(bytes: Buffer): 'need-more' | 'malformed' | { method: number; rest: Buffer } {
  if (bytes.length > 0 && bytes[0] !== VERSION) return 'malformed';
  if (bytes.length < 2) return 'need-more';
  return { method: bytes[1]!, rest: bytes.subarray(2) };
}

/** RFC 1929 §2. Each part is at most 255 bytes (the configuration's schema sees to it). */
export function encodeLogin(username: string, password: string): Buffer {
  const name = Buffer.from(username, 'utf8');
  const word = Buffer.from(password, 'utf8');
  return Buffer.concat([Buffer.from([LOGIN_VERSION, name.length]), name, Buffer.from([word.length]), word]);
}

/** RFC 1929 §2: status 0 is a yes. Some servers answer with VER 5: the status alone counts. */
export function decodeLogin(bytes: Buffer): 'need-more' | 'malformed' | { status: number; rest: Buffer } {
  if (bytes.length > 0 && bytes[0] !== LOGIN_VERSION && bytes[0] !== VERSION) return 'malformed';
  if (bytes.length < 2) return 'need-more';
  return { status: bytes[1]!, rest: bytes.subarray(2) };
}

/** RFC 1928 §4, §5. `target.host` is in normal form. */
export function encodeRequest(target: Endpoint): Buffer {
  const { host, port } = target;
  let address: Buffer;
  if (host.includes(':')) address = Buffer.from([IPV6, ...ipv6Bytes(host)]);
  else if (isAddress(host)) address = Buffer.from([IPV4, ...host.split('.').map(Number)]);
  else address = Buffer.concat([Buffer.from([NAME, Buffer.byteLength(host, 'latin1')]), Buffer.from(host, 'latin1')]);
  return Buffer.concat([Buffer.from([VERSION, CONNECT, 0]), address, Buffer.from([port >> 8, port & 255])]);
}

/** The sixteen bytes of an IPv6 address. */
export function ipv6Bytes(address: string): number[] {
  // An address of the form ::1.2.3.4 carries its last two groups in decimal.
  const text = address.replace(
    /(\d+)\.(\d+)\.(\d+)\.(\d+)$/,
    (_, a, b, c, d) => `${((+a << 8) | +b).toString(16)}:${((+c << 8) | +d).toString(16)}`,
  );
  const [head, tail] = text.split('::') as [string, string | undefined];
  const before = head === '' ? [] : head.split(':');
  const after = tail === undefined || tail === '' ? [] : tail.split(':');
  const groups =
    tail === undefined ? before : [...before, ...Array<string>(8 - before.length - after.length).fill('0'), ...after];
  return groups.flatMap(group => {
    const value = parseInt(group, 16);
    return [value >> 8, value & 255];
  });
}

/**
 * RFC 1928 §6. A reply that says no is complete with its code, since some servers send no more than that; of a yes the bound address is
 * read over exactly, so that what comes behind it is the tunnel's.
 */
export function decodeReply(bytes: Buffer): 'need-more' | 'malformed' | { reply: number; rest: Buffer } {
  if (bytes.length > 0 && bytes[0] !== VERSION) return 'malformed';
  if (bytes.length < 2) return 'need-more';
  const reply = bytes[1]!;
  if (reply !== 0) return { reply, rest: bytes.subarray(2) };
  if (bytes.length < 5) return 'need-more';
  const type = bytes[3]!;
  const length = type === IPV4 ? 10 : type === IPV6 ? 22 : type === NAME ? 7 + bytes[4]! : 0;
  if (length === 0) return 'malformed';
  return bytes.length < length ? 'need-more' : { reply, rest: bytes.subarray(length) };
}

const REPLIES: Record<number, readonly [FaultKind, string]> = {
  1: ['hop_could_not_reach', 'general failure'],
  2: ['hop_refused', 'not allowed by its rules'],
  3: ['hop_could_not_reach', 'network unreachable'],
  4: ['hop_could_not_reach', 'host unreachable'],
  5: ['hop_could_not_reach', 'connection refused'],
  6: ['hop_could_not_reach', 'TTL expired'],
  7: ['hop_refused', 'command not supported'],
  8: ['hop_refused', 'address type not supported'],
};

/** Asks `hop` for a tunnel to `target`, logging in where it wants that; with the login of a site it has to take that. */
export function socks5Handshake(hop: NamedHop, target: Endpoint, siteLogin?: Login): Handshake {
  const { username, password = '' } = siteLogin ?? hop;
  let expecting: 'method' | 'login' | 'reply' = 'method';
  const wrongProtocol = (what: string) => hopFault('hop_protocol_error', hop, `its ${what} is not SOCKS5`);

  return {
    get stage(): HandshakeStage {
      return expecting === 'reply' ? 'tunnel' : 'greeting';
    },
    opening: encodeGreeting(siteLogin ? 'only' : username !== undefined),
    read(bytes) {
      if (expecting === 'method') {
        const chosen = decodeMethod(bytes);
        if (chosen === 'need-more') return chosen;
        if (chosen === 'malformed') throw wrongProtocol('greeting');
        if (chosen.method === NO_AUTHENTICATION && siteLogin === undefined) {
          expecting = 'reply';
          return { send: encodeRequest(target), rest: chosen.rest, stands: false };
        }
        if (chosen.method === USERNAME_PASSWORD && username !== undefined) {
          expecting = 'login';
          return { send: encodeLogin(username, password), rest: chosen.rest, stands: false };
        }
        if (siteLogin)
          throw hopFault(
            'hop_authentication_failed',
            hop,
            'it takes no user names, so that it cannot keep sites apart',
          );
        if (chosen.method !== NONE_ACCEPTABLE) throw wrongProtocol('choice of method');
        throw hopFault(
          'hop_authentication_failed',
          hop,
          username === undefined ? 'it asks for a user name and the file gives none' : 'it accepts no user names',
        );
      }
      if (expecting === 'login') {
        const login = decodeLogin(bytes);
        if (login === 'need-more') return login;
        if (login === 'malformed') throw wrongProtocol('answer to the login');
        if (login.status !== 0) throw hopFault('hop_authentication_failed', hop, `status ${login.status}`);
        expecting = 'reply';
        return { send: encodeRequest(target), rest: login.rest, stands: false };
      }
      const answer = decodeReply(bytes);
      if (answer === 'need-more') return answer;
      if (answer === 'malformed') throw wrongProtocol('reply');
      if (answer.reply === 0) return { rest: answer.rest, stands: true };
      const [kind, meaning] = REPLIES[answer.reply] ?? ['hop_could_not_reach', 'unassigned'];
      throw hopFault(kind, hop, `reply ${answer.reply}: ${meaning}, asked for ${formatEndpoint(target)}`);
    },
  };
}
