// The handshake of a hop of kind socks4a: SOCKS4 (openssh.com/txt/socks4.protocol), with names by its extension 4A. An IPv4 address goes as SOCKS4
// says; a name goes as a name, so that it is resolved at the hop and not here. There is no way to say an IPv6 address.
import { type Endpoint, formatEndpoint, isAddress } from '../../shared/endpoint.ts';
import type { FaultKind } from '../../shared/fault.ts';
import type { NamedHop } from '../rooms.ts';
import { type Handshake, hopFault } from './handshake.ts';

const VERSION = 4;
const CONNECT = 1;
const REPLY_LENGTH = 8;
const GRANTED = 90;
/** 4A: an address that leads nowhere says that a name follows. */
const NAME_FOLLOWS = [0, 0, 0, 1];

/** `target.host` is in normal form and no IPv6 address; `userId` holds no NUL (the schema of the file sees to it). */
export function encodeSocks4Request({ host, port }: Endpoint, userId: string): Buffer {
  const isName = !isAddress(host);
  const address = isName ? NAME_FOLLOWS : host.split('.').map(Number);
  const name = isName ? Buffer.from(`${host}\0`, 'latin1') : Buffer.alloc(0);
  const head = Buffer.from([VERSION, CONNECT, port >> 8, port & 255, ...address]);
  return Buffer.concat([head, Buffer.from(`${userId}\0`, 'utf8'), name]);
}

/** The reply's first byte is 0; some servers send the version there. */
export function decodeSocks4Reply(bytes: Buffer): 'need-more' | 'malformed' | { code: number; rest: Buffer } {
  if (bytes.length > 0 && bytes[0] !== 0 && bytes[0] !== VERSION) return 'malformed';
  if (bytes.length < 2) return 'need-more';
  const code = bytes[1]!;
  // A no is complete with its code: some servers send no more than that.
  if (code !== GRANTED) return { code, rest: bytes.subarray(2) };
  return bytes.length < REPLY_LENGTH ? 'need-more' : { code, rest: bytes.subarray(REPLY_LENGTH) };
}

/** 91 says of itself that it is "rejected or failed", and stands for rules as well as for targets that are down. */
const REPLIES: Record<number, readonly [FaultKind, string]> = {
  91: ['hop_refused', 'rejected or failed'],
  92: ['hop_refused', 'it cannot ask identd who we are'],
  93: ['hop_refused', 'identd names somebody else'],
};

/** Asks `hop` for a tunnel to `target`. Throws Fault hop_could_not_reach for an IPv6 address. */
export function socks4aHandshake(hop: NamedHop, target: Endpoint): Handshake {
  if (target.host.includes(':'))
    throw hopFault('hop_could_not_reach', hop, `SOCKS4 has no IPv6 addresses, asked for ${formatEndpoint(target)}`);
  return {
    stage: 'tunnel',
    opening: encodeSocks4Request(target, hop.username ?? ''),
    read(bytes) {
      const answer = decodeSocks4Reply(bytes);
      if (answer === 'need-more') return answer;
      if (answer === 'malformed') throw hopFault('hop_protocol_error', hop, 'its reply is not SOCKS4');
      if (answer.code === GRANTED) return { rest: answer.rest, stands: true };
      const reply = REPLIES[answer.code];
      if (reply === undefined) throw hopFault('hop_protocol_error', hop, `its reply ${answer.code} is none of SOCKS4`);
      throw hopFault(reply[0], hop, `reply ${answer.code}: ${reply[1]}, asked for ${formatEndpoint(target)}`);
    },
  };
}
