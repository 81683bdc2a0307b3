// Where steered traffic may go: which ports, and which addresses of this machine and its network stay closed.
// Names are judged by the address that is dialled (chain/dial.ts asks for each one); what can be known before is judged here at once.
import { networkInterfaces } from 'node:os';
import type { Cidr } from '../../shared/config/words.ts';
import type { Config, ConfigGuard } from '../../shared/config.ts';
import { type Endpoint, formatEndpoint, isAddress, normalizeHost } from '../../shared/endpoint.ts';
import { Fault } from '../../shared/fault.ts';
import type { Acl, AdmittedTarget } from '../rooms.ts';
import { addressRanges } from './address-ranges.ts';

/** What kind of place an address is; null = somewhere on the public net. */
export type AddressKind = 'loopback' | 'link-local' | 'metadata' | 'private' | 'reserved' | null;

// https://fetch.spec.whatwg.org/#port-blocking
const BAD_PORTS: ReadonlySet<number> = new Set([
  0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109, 110,
  111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526, 530, 531, 532,
  540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061,
  6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080,
]);

// IANA's special-purpose registries (RFC 6890), and the addresses at which clouds hand out credentials.
const RANGES: Record<Exclude<AddressKind, null>, readonly string[]> = {
  metadata: [
    '169.254.169.254/32',
    '169.254.170.2/32',
    '100.100.100.200/32',
    '168.63.129.16/32',
    '192.0.0.192/32',
    'fd00:ec2::254/128',
    'fd20:ce::254/128',
  ],
  loopback: ['127.0.0.0/8', '0.0.0.0/8', '::1/128', '::/128'],
  'link-local': ['169.254.0.0/16', 'fe80::/10'],
  private: [
    '10.0.0.0/8',
    '172.16.0.0/12',
    '192.168.0.0/16',
    '100.64.0.0/10',
    'fc00::/7',
    'fec0::/10',
    '64:ff9b:1::/48',
  ],
  reserved: [
    '192.0.0.0/24',
    '192.0.2.0/24',
    '198.18.0.0/15',
    '198.51.100.0/24',
    '203.0.113.0/24',
    '224.0.0.0/4',
    '240.0.0.0/4',
    '::/96',
    '100::/64',
    '2001::/32',
    '2001:db8::/32',
    'ff00::/8',
  ],
};
const KINDS = Object.keys(RANGES) as Exclude<AddressKind, null>[];
const LISTS = KINDS.map(kind => [kind, addressRanges(RANGES[kind], true)] as const);

/** The address without its zone and in normal form, so that `::ffff:127.0.0.1` is judged as what it reaches. */
export function plain(address: string): string {
  const zone = address.indexOf('%');
  const bare = zone < 0 ? address : address.slice(0, zone);
  return bare.includes(':') ? (normalizeHost(bare) ?? bare) : bare;
}

/** Addresses that were judged lately: the same few come again and again, and looking through the ranges takes longer than remembering. */
const MAX_JUDGED = 1_024;

/** The same answers as `judge`, remembered for so many addresses. */
export function remembering<T>(judge: (address: string) => T): (address: string) => T {
  const known = new Map<string, T>();
  return address => {
    let answer = known.get(address);
    if (answer === undefined) {
      answer = judge(address);
      if (known.size >= MAX_JUDGED) known.clear();
      known.set(address, answer);
    }
    return answer;
  };
}

/** What kind of place `address` (in normal form) is. */
export const kindOfAddress: (address: string) => AddressKind = remembering(address => {
  for (const [kind, ranges] of LISTS) if (ranges.has(address)) return kind;
  return null;
});

/** Names that mean this machine wherever they are resolved (RFC 6761 §6.3, and what Debian's hosts file adds). */
export function isLocalhostName(host: string): boolean {
  return (
    host === 'localhost' ||
    host.endsWith('.localhost') ||
    host === 'localhost.localdomain' ||
    host === 'ip6-localhost' ||
    host === 'ip6-loopback'
  );
}

/** Addresses of this machine's interfaces, in normal form. They change (a cable, a VPN), so they are read again after ten seconds. */
export function makeLocalAddresses(now: () => number = Date.now): () => ReadonlySet<string> {
  let readAt = -Infinity;
  let addresses: ReadonlySet<string> = new Set();
  return () => {
    if (now() - readAt > 10_000 || now() < readAt) {
      readAt = now();
      addresses = new Set(
        Object.values(networkInterfaces()).flatMap(list => (list ?? []).map(one => plain(one.address))),
      );
    }
    return addresses;
  };
}

export interface AclOptions {
  readonly guard: Pick<ConfigGuard, 'allow' | 'connectPorts'>;
  /** Where the companion itself listens now. */
  readonly listeners: () => readonly Endpoint[];
  readonly localAddresses?: () => ReadonlySet<string>;
}

/** The guard for one configuration. Own listeners stay closed whatever `guard.allow` says. */
export function makeAcl({ guard, listeners, localAddresses = makeLocalAddresses() }: AclOptions): Acl {
  const opened = addressRanges(
    guard.allow.map((range: Cidr) => `${range.address}/${range.prefix}`),
    false,
  );
  const isOpened = remembering(address => opened.has(address));

  function isOwnListener(address: string, port: number): boolean {
    for (const listener of listeners()) {
      if (listener.port !== port) continue;
      if (address === listener.host || kindOfAddress(address) === 'loopback' || localAddresses().has(address))
        return true;
    }
    return false;
  }
  const loop = (host: string, port: number) => new Fault('proxy_loop_detected', { target: { host, port } });
  const prohibited = (host: string, port: number, kind: string) =>
    new Fault('destination_ip_prohibited', { target: { host, port }, detail: kind });

  /** `private: true` of a route opens the private ranges behind its hops, and no other kind. */
  function judge(address: string, port: number, privateAllowed: boolean): Fault | null {
    if (isOwnListener(address, port)) return loop(address, port);
    const kind = kindOfAddress(address) ?? (localAddresses().has(address) ? 'loopback' : null);
    if (kind === null || isOpened(address) || (kind === 'private' && privateAllowed)) return null;
    return prohibited(address, port, kind);
  }

  return {
    admit(target, how, behindHops, privateAllowed) {
      const { host, port } = target;
      if (BAD_PORTS.has(port)) {
        throw new Fault('http_request_denied', {
          target,
          detail: `port ${port} belongs to another protocol and is closed, as in browsers`,
        });
      }
      if (how === 'connect' && !guard.connectPorts.some(range => port >= range.from && port <= range.to)) {
        throw new Fault('http_request_denied', { target, detail: `port ${port} is not among guard.connectPorts` });
      }
      if (isAddress(host)) {
        const fault = judge(host, port, behindHops && privateAllowed);
        if (fault) throw fault;
      } else if (isLocalhostName(host)) {
        if (isOwnListener('127.0.0.1', port)) throw loop(host, port);
        if (!isOpened('127.0.0.1') && !isOpened('::1')) throw prohibited(host, port, 'loopback');
      }
      return target as AdmittedTarget;
    },
    admitsAddress: (address, port) => judge(plain(address), port, false),
    admitsHopAddress: (address, port) => (isOwnListener(plain(address), port) ? loop(plain(address), port) : null),
  };
}

/** A complaint about the configuration: where, and a sentence. */
export interface ConfigComplaint {
  readonly path: (string | number)[];
  readonly message: string;
}

/**
 * Hops that lead straight back to the companion's own port, by address or by a `localhost` name, so that the file is refused before a loop runs.
 * `listen` is where the companion really listens (`--port` may differ from the file). Other names are judged when they are dialled.
 */
export function findOwnListenerHops(
  config: Pick<Config, 'hops'>,
  listen: Endpoint,
  localAddresses: ReadonlySet<string> = makeLocalAddresses()(),
): ConfigComplaint[] {
  const complaints: ConfigComplaint[] = [];
  for (const [name, hop] of Object.entries(config.hops)) {
    if (hop.port !== listen.port || listen.port === 0) continue;
    const local = isAddress(hop.host)
      ? hop.host === listen.host || kindOfAddress(hop.host) === 'loopback' || localAddresses.has(hop.host)
      : isLocalhostName(hop.host) || hop.host === listen.host;
    if (local)
      complaints.push({
        path: ['hops', name],
        message: `leads to ${formatEndpoint(hop)}, where Detour itself listens: a loop`,
      });
  }
  return complaints;
}
