// The half of the companion that carries traffic: furnishes the rooms from what is in force, opens the port, and walks every request. The other half
// (companion.ts) owns the file, the control room and the record. A changed file furnishes new rooms; an exchange keeps those it entered. Cache, pool
// and port outlive a change.
import { createSecureContext, type SecureContext } from 'node:tls';
import { getDomain } from 'tldts';
import type { Config } from '../shared/config.ts';
import { type CompiledMatcher, decideForCompanion } from '../shared/decision/decide.ts';
import { type Endpoint, isAddress } from '../shared/endpoint.ts';
import type { Exchange } from '../shared/exchange.ts';
import { siteOf } from '../shared/site.ts';
import type { EpochMilliseconds, Milliseconds } from '../shared/units.ts';
import { createCache } from './cache/cache.ts';
import { makeDial } from './chain/dial.ts';
import type { LoopMark } from './chain/http-connect.ts';
import { makeNameLookup } from './chain/name-lookup.ts';
import type { Resolver } from './chain/resolver.ts';
import { listen, type Listener } from './downstream/listener.ts';
import { blockAnswer } from './filter/block-page.ts';
import { makeAcl } from './guard/acl.ts';
import { LoginBound, makeEntrance } from './guard/entrance.ts';
import { openTunnel, proxyRequest, type Rooms } from './proxy.ts';
import { makeRecorder } from './record/recorder.ts';
import { makeOutcomeMemory } from './route/outcome-memory.ts';
import { refusalOf } from './route/refusal.ts';
import { resolveRoutes } from './route/resolve.ts';
import { makeTryChains } from './route/try-chains.ts';
import type { ControlDoor, ResolvedRoute } from './rooms.ts';
import { ConnectionPool } from './upstream/connection-pool.ts';
import { IdenticalHeads } from './upstream/identical-heads.ts';

/** A configuration with its list files, checked and compiled. */
export interface InForce {
  readonly config: Config;
  readonly matcher: CompiledMatcher;
  /** The listener's certificate and key as text (PEM); null = it has none. */
  readonly tls: { readonly cert: string; readonly key: string } | null;
}

/** What one configuration makes. */
export interface Furnished extends InForce {
  readonly routes: ReadonlyMap<string, ResolvedRoute>;
  readonly rooms: Rooms;
  readonly context: SecureContext | null;
}

/** What a worker needs of the other half. */
export interface WorkerParts {
  /** The companion's port, once it is known. */
  readonly at: () => Endpoint | null;
  readonly mark: LoopMark;
  readonly control: ControlDoor;
  /** A tunnel stands. */
  readonly opened: (exchange: Exchange) => void;
  readonly ended: (exchange: Exchange) => void;
  readonly warn: (message: string) => void;
  readonly now: () => EpochMilliseconds;
}

export interface Worker {
  readonly furnished: Furnished;
  /** The next request walks through rooms furnished by it. */
  putInForce(next: InForce): void;
  /** Opens the port (0 = any free one) and gives back the real one. Rejects with the system's error. */
  listen(at: Endpoint): Promise<number>;
  /** Accepts no more, lets exchanges end within `drain`, then closes everything. */
  close(drain: Milliseconds): Promise<void>;
}

/** The registrable domain of a host (ICANN's list and the private one, as browsers count sites), or null. */
const registrable = (host: string): string | null =>
  isAddress(host) ? null : getDomain(host, { allowPrivateDomains: true });
export const siteName = (host: string): string => siteOf(host, registrable);

const elapsed = () => performance.now();

/** A worker that walks by `first` and does not listen yet. */
export function makeWorker(first: InForce, parts: WorkerParts): Worker {
  const { now, mark } = parts;
  let listener: Listener | null = null;
  let furnished!: Furnished;
  let outcomes = makeOutcomeMemory(elapsed);
  let cache = createCache(first.config.cache);
  let names: { resolver: Resolver; madeFor: string } | null = null;
  const limits = () => furnished.config.limits;
  const pool = new ConnectionPool(limits);
  const loginBound = new LoginBound(now);
  const identical = new IdenticalHeads(() => limits().identical);
  const recorder = makeRecorder({ now, elapsed, siteOf: siteName, opened: parts.opened, ended: parts.ended });

  const furnish = ({ config, matcher, tls }: InForce): Furnished => {
    const routes = resolveRoutes(config);
    const acl = makeAcl({
      guard: config.guard,
      listeners: () => {
        const at = parts.at();
        return at === null ? [] : [at];
      },
    });
    const hopTimeout = config.limits.hopTimeout * 1000;
    const tryChains = makeTryChains({
      now: elapsed,
      routeTimeout: config.limits.routeTimeout * 1000,
      hopTimeout,
      memory: outcomes,
      siteOf: siteName,
    });
    // The addresses it knows outlive a change of anything else.
    const madeFor = `${judgedBy(config)} ${hopTimeout}`;
    if (names?.madeFor !== madeFor) {
      const resolver = makeNameLookup({
        dns: config.dns,
        acl,
        hopTimeout,
        via: mark.via,
        tryChains,
        routeOf: route => routes.get(route)!,
        connections: pool,
        wallClock: now,
      });
      names = { resolver, madeFor };
    }
    const rooms: Rooms = {
      entrance: makeEntrance(config.guard, loginBound),
      acl,
      decide: target => decideForCompanion(matcher, target, config.default),
      routeOf: decision => routes.get(decision.route)!,
      blockAnswer,
      cache,
      tryChains,
      dial: makeDial({ acl, hopTimeout, hosts: config.dns.hosts, lookup: names.resolver.lookup, via: mark.via }),
      refusalOf,
      pool,
      identical,
      recorder,
      limits: config.limits,
      registrableDomain: siteName,
      comesFromUs: head => mark.comesFromUs(head),
      now,
    };
    return { config, matcher, tls, routes, rooms, context: tls && createSecureContext(tls) };
  };
  furnished = furnish(first);

  return {
    get furnished() {
      return furnished;
    },
    putInForce(next) {
      const before = furnished.config;
      const rejudged = judgedBy(next.config) !== judgedBy(before);
      // What worked and what did not is known by the names of hops, which may now mean others.
      if (rejudged) outcomes = makeOutcomeMemory(elapsed);
      if (JSON.stringify(next.config.cache) !== JSON.stringify(before.cache)) cache = createCache(next.config.cache);
      furnished = furnish(next);
      // Kept connections were judged and named under the old file.
      if (rejudged) pool.retire();
    },
    async listen(at) {
      listener = await listen({
        host: at.host,
        port: at.port,
        limits,
        walk: {
          request: incoming => proxyRequest(incoming, furnished.rooms),
          tunnel: incoming => openTunnel(incoming, furnished.rooms),
        },
        warn: parts.warn,
        // Connections that nobody uses hold files that the next client needs.
        whenShort: () => pool.retire(),
        control: parts.control,
        entrance: () => furnished.rooms.entrance,
        tls: () => furnished.context,
      });
      return listener.port;
    },
    async close(drain) {
      await listener?.close(drain);
      pool.close();
    },
  };
}

/** Everything by which a connection upstream was judged and named. */
function judgedBy({ hops, routes, guard, dns }: Config): string {
  return JSON.stringify([hops, routes, guard, dns]);
}
