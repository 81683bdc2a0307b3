// One question to the DNS and what an answer to it says (RFC 1035), as bytes. Sockets are dns-client.ts's and dns-over-https.ts's.
import dnsPacket from 'dns-packet';
import type { Bytes, Seconds } from '../../shared/units.ts';

export type Family = 'A' | 'AAAA';

export interface Question {
  readonly host: string;
  readonly family: Family;
}

/** `nothing`: the DNS says that there is none; `failure`: this server cannot tell; `truncated`: it has to be asked over TCP. */
export type DnsAnswer =
  | { readonly kind: 'addresses'; readonly addresses: readonly string[]; readonly ttl: Seconds }
  | { readonly kind: 'nothing'; readonly why: 'no such name' | 'no address'; readonly ttl: Seconds }
  | { readonly kind: 'failure'; readonly rcode: string }
  | { readonly kind: 'truncated' };

/** More addresses than this in one answer are not kept. */
const MAX_ADDRESSES = 32;
/** An alias may lead on so many times. */
const MAX_ALIASES = 16;
/** How long "there is none" holds where the zone does not say (it always should). */
const NEGATIVE_TTL: Seconds = 5;
/** RFC 2181 §8: a TTL with the highest bit set is none. */
const MAX_TTL: Seconds = 0x7fffffff;
/** RFC 8467 §4.1: over an encrypted channel questions are padded to multiples of this. */
const PADDED_TO: Bytes = 128;

/** Whether a name can be asked for: labels of 1 to 63 bytes (RFC 1035 §2.3.4). */
export function isAskable(host: string): boolean {
  return host.length <= 253 && host.split('.').every(label => label.length >= 1 && label.length <= 63);
}

/**
 * The question as bytes. Without EDNS, so that the oldest router understands it and an answer over UDP is never cut into fragments, which can be
 * forged; `padded` adds what hides the name's length.
 */
export function encodeQuestion({ host, family }: Question, id: number, padded = false): Buffer {
  const packet: dnsPacket.Packet = {
    type: 'query',
    id,
    flags: dnsPacket.RECURSION_DESIRED,
    questions: [{ type: family, name: host, class: 'IN' }],
  };
  if (!padded) return dnsPacket.encode(packet);
  const padding = (length: Bytes): dnsPacket.Packet => ({
    ...packet,
    additionals: [
      {
        type: 'OPT',
        name: '.',
        udpPayloadSize: 1_232,
        extendedRcode: 0,
        ednsVersion: 0,
        flags: 0,
        flag_do: false,
        options: [{ code: 12, length }],
      } as unknown as dnsPacket.OptAnswer,
    ],
  });
  const bare = dnsPacket.encodingLength(padding(0));
  return dnsPacket.encode(padding((PADDED_TO - (bare % PADDED_TO)) % PADDED_TO));
}

/** What a message says to a question; null where it is no answer to it at all (RFC 5452 §3: id and question must match). */
export function decodeAnswer(bytes: Buffer, question: Question, id: number): DnsAnswer | null {
  let message: dnsPacket.DecodedPacket;
  try {
    message = dnsPacket.decode(bytes);
  } catch {
    return null;
  }
  const asked = message.questions?.[0];
  if (message.type !== 'response' || message.id !== id) return null;
  const rcode = (message as { rcode?: string }).rcode ?? 'NOERROR';
  if (asked === undefined) return isFailure(rcode) ? { kind: 'failure', rcode } : null;
  if (asked.type !== question.family || asked.class !== 'IN' || plain(asked.name) !== question.host) return null;
  if (message.flag_tc) return { kind: 'truncated' };
  if (isFailure(rcode)) return { kind: 'failure', rcode };

  const answers = message.answers ?? [];
  let name = question.host;
  let ttl = MAX_TTL;
  for (let i = 0; i < MAX_ALIASES; i++) {
    const alias = answers.find(one => one.type === 'CNAME' && plain(one.name) === name);
    if (alias?.type !== 'CNAME') break;
    name = plain(alias.data);
    ttl = Math.min(ttl, timeOf(alias.ttl));
  }
  const addresses: string[] = [];
  for (const one of answers) {
    if (one.type !== question.family || plain(one.name) !== name) continue;
    if (addresses.length >= MAX_ADDRESSES) break;
    addresses.push(one.data);
    ttl = Math.min(ttl, timeOf(one.ttl));
  }
  if (addresses.length > 0) return { kind: 'addresses', addresses, ttl };
  return {
    kind: 'nothing',
    why: rcode === 'NXDOMAIN' ? 'no such name' : 'no address',
    ttl: negativeTtl(message.authorities ?? []),
  };
}

const isFailure = (rcode: string) => rcode !== 'NOERROR' && rcode !== 'NXDOMAIN';

const plain = (name: string) => name.toLowerCase().replace(/\.$/, '');

const timeOf = (ttl: number | undefined): Seconds => (ttl === undefined || ttl > MAX_TTL ? 0 : ttl);

/** RFC 2308 §5: the lesser of the SOA record's TTL and its minimum. */
function negativeTtl(authorities: readonly dnsPacket.Answer[]): Seconds {
  for (const one of authorities)
    if (one.type === 'SOA') return Math.min(timeOf(one.ttl), one.data.minimum ?? NEGATIVE_TTL);
  return NEGATIVE_TTL;
}
