// Who is asked for addresses, as the file has it: this system, chosen servers, or a server over HTTPS; a memory in front of each.
import { networkInterfaces } from 'node:os';
import type { ConfigDns, DnsOverHttps } from '../../shared/config.ts';
import { formatEndpoint } from '../../shared/endpoint.ts';
import type { EpochMilliseconds, Milliseconds, Seconds } from '../../shared/units.ts';
import { nodeSocket } from '../sockets/socket.ts';
import type { Acl, AdmittedTarget, Dial, ResolvedRoute, TryChains } from '../rooms.ts';
import { makeDial } from './dial.ts';
import type { DnsOverHttpsOptions } from './dns-over-https.ts';
import type { Isolation } from './isolation.ts';
import { type AskDns, type Lookup, LookupFailed, makeResolver, type Resolver } from './resolver.ts';
import type { SshHops } from './ssh-hop.ts';
import { makeSystemAsk } from './system-lookup.ts';

export interface NameLookupOptions {
  readonly dns: ConfigDns;
  readonly acl: Acl;
  readonly hopTimeout: Milliseconds;
  readonly via: string | null;
  readonly tryChains: TryChains;
  readonly routeOf: (name: string) => ResolvedRoute;
  readonly connections: DnsOverHttpsOptions['connections'];
  /** For chains with ssh hops; absent: some of its own. */
  readonly ssh?: SshHops | undefined;
  readonly isolation?: Isolation | undefined;
  readonly wallClock: () => EpochMilliseconds;
}

/** Who did not answer is named only if he is heard of before the dial's own time is over. */
const SHARE = 0.9;
/** The way to the HTTPS server is asked of the system so seldom, and anew when it leads nowhere. */
const BOOTSTRAP_TTL: Seconds = 3_600;

/** The resolver of one configuration. Connects nowhere before the first lookup, and needs no closing: its questions end by themselves. */
export function makeNameLookup(options: NameLookupOptions): Resolver {
  const { dns, wallClock } = options;
  const timeout = options.hopTimeout * SHARE;
  const ask =
    dns.https !== null
      ? later(() => overHttps(dns.https!, timeout, options))
      : dns.servers.length > 0
        ? later(async () => (await import('./dns-client.ts')).makeDnsClient(dns.servers, timeout))
        : makeSystemAsk(timeout);
  return withoutLies(makeResolver({ ...dns, ask, wallClock, network: networkNow }), new Set(dns.lies));
}

/** The resolver without the answers that the file knows for lies. */
function withoutLies(resolver: Resolver, lies: ReadonlySet<string>): Resolver {
  if (lies.size === 0) return resolver;
  const lookup: Lookup = async host => {
    const found = await resolver.lookup(host);
    const honest = found.filter(address => !lies.has(address));
    if (honest.length > 0) return honest;
    throw new LookupFailed('dns_error', `the DNS says ${found[0]}, which dns.lies of the file has`, { definite: true });
  };
  return {
    lookup,
    get size() {
      return resolver.size;
    },
    clear: () => resolver.clear(),
  };
}

/** The addresses of this machine, as text. */
function networkNow(): string {
  return Object.values(networkInterfaces())
    .flatMap(addresses => addresses?.map(one => one.address) ?? [])
    .join();
}

/** What most files never need is loaded only for those that do, and tried again if that fails. */
function later(make: () => Promise<AskDns>): AskDns {
  let made: Promise<AskDns> | null = make();
  made.catch(() => (made = null));
  return async host => {
    made ??= make();
    try {
      return await (
        await made
      )(host);
    } catch (error) {
      if (!(error instanceof LookupFailed)) made = null;
      throw error;
    }
  };
}

async function overHttps(server: DnsOverHttps, timeout: Milliseconds, options: NameLookupOptions): Promise<AskDns> {
  const { dns, acl, hopTimeout, via, tryChains, routeOf, connections, ssh, isolation, wallClock } = options;
  const { makeDnsOverHttps } = await import('./dns-over-https.ts');
  // The server's own name, and that of a route's first hop, cannot be asked of the server.
  const bootstrap = makeResolver({
    ask: makeSystemAsk(timeout, undefined, BOOTSTRAP_TTL),
    minTtl: 0,
    maxTtl: BOOTSTRAP_TTL,
    serveStale: dns.serveStale,
    wallClock,
    network: networkNow,
  });
  const dial: Dial = makeDial({
    // A server that the file names may be private, as its hops may.
    acl: { ...acl, admitsAddress: acl.admitsHopAddress },
    hopTimeout,
    hosts: dns.hosts,
    lookup: bootstrap.lookup,
    via,
    ssh,
    isolation,
  });
  const target = { host: server.host, port: server.port } as AdmittedTarget;
  return makeDnsOverHttps({
    server,
    timeout,
    connections,
    key: `dns ${dns.route} ${formatEndpoint(server)}`,
    dial: (signal, secure) =>
      tryChains(routeOf(dns.route), server.host, [], signal, async one => {
        const { socket } = await dial(one, target, false);
        return secure(nodeSocket(socket), one.signal);
      }).catch((error: unknown) => {
        bootstrap.clear();
        throw error;
      }),
  });
}
