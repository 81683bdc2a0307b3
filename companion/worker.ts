// The half of the companion that carries traffic: furnishes the rooms from what is in force, opens the port, and walks every request. The other half
// (companion.ts) owns the file, the control room and the record. A changed file furnishes new rooms; an exchange keeps those it entered. Cache, pool
// and port outlive a change.
import { rm } from 'node:fs';
import type { Socket } from 'node:net';
import type { SecureContext } from 'node:tls';
import { getDomain } from 'tldts';
import type { Config } from '../shared/config.ts';
import type { Hop } from '../shared/config/hops.ts';
import { LOOKS_AT_ADDRESS, LOOKS_AT_TIME, minuteOfWeek } from '../shared/decision/condition.ts';
import { type CompiledMatcher, compileMatcher, decideForCompanion } from '../shared/decision/decide.ts';
import type { RuleSource } from '../shared/decision/rule.ts';
import { type Endpoint, isAddress, normalizeHost } from '../shared/endpoint.ts';
import type { HealthCheck } from '../shared/config/routes.ts';
import type { ChainTest } from '../shared/ways.ts';
import type { Attempt, Exchange } from '../shared/exchange.ts';
import type { KnownSite } from '../shared/known-site.ts';
import { siteOf } from '../shared/site.ts';
import type { EpochMilliseconds, Milliseconds } from '../shared/units.ts';
import { createCache, type SharedCache } from './cache/cache.ts';
import { DiskStore } from './cache/disk-store.ts';
import { type CacheOffice, type Listed, makeCacheOffice } from './cache/office.ts';
import { makeDial } from './chain/dial.ts';
import type { LoopMark } from './chain/http-connect.ts';
import { makeIsolation } from './chain/isolation.ts';
import { makeNameLookup } from './chain/name-lookup.ts';
import type { Resolver } from './chain/resolver.ts';
import { makeSshHops } from './chain/ssh-hop.ts';
import { fitToOpenFiles, openFilesAllowed } from './config/open-files.ts';
import { plainGet } from './explain.ts';
import type { Incoming } from './downstream/connection.ts';
import { listen, type Listener, openReception, type Reception } from './downstream/listener.ts';
import { blockAnswer } from './filter/block-page.ts';
import { makeAcl } from './guard/acl.ts';
import { LoginBound, makeEntrance } from './guard/entrance.ts';
import { makeOwnerCheck } from './guard/owner.ts';
import { openTunnel, proxyRequest, type Rooms } from './proxy.ts';
import { makeRecorder } from './record/recorder.ts';
import type { ChainHealth, HopHealth } from './route/health.ts';
import { type ChainNews, makeKnowledge } from './route/knowledge.ts';
import { makePins, type PinNews, type Pins, type RoutePin } from './route/pin.ts';
import { claiming } from './route/race.ts';
import type { HopHabits } from './route/provenance.ts';
import { makeRefusals } from './route/refusal.ts';
import { resolveRoutes } from './route/resolve.ts';
import { type KnownSites, makeSiteMemory, type SiteNews } from './route/site-memory.ts';
import { makeStickyMemory, type StickyNews } from './route/sticky.ts';
import { makeTryChains } from './route/try-chains.ts';
import type { Chain, ControlDoor, ControlElsewhere, ResolvedRoute } from './rooms.ts';
import { Behind } from './upstream/behind.ts';
import { ConnectionPool } from './upstream/connection-pool.ts';
import { IdenticalHeads } from './upstream/identical-heads.ts';

/** A configuration that has been checked, with its list files, compiled. */
export interface InForce {
  readonly config: Config;
  readonly source: RuleSource;
  readonly matcher: CompiledMatcher;
  /** The listener's certificate and key as text (PEM); null = it has none. */
  readonly tls: { readonly cert: string; readonly key: string } | null;
  /** The hops of the file with all that it only points to. */
  readonly hops: Readonly<Record<string, Hop>>;
}

export function compile(config: Config, source: RuleSource, tls: InForce['tls'], hops: InForce['hops']): InForce {
  return { config, source, matcher: compileMatcher(source), tls, hops };
}

/** What one configuration makes. */
export interface Furnished extends InForce {
  readonly pins: Pins;
  readonly routes: ReadonlyMap<string, ResolvedRoute>;
  readonly rooms: Rooms;
  readonly context: SecureContext | null;
}

/** What one worker finds out and the others should know. */
export type News =
  | ChainNews
  | StickyNews
  | PinNews
  /** `url` null: whatever is cached may be out of date. */
  | { readonly outcome: 'invalidated'; readonly url: string | null }
  | { readonly outcome: 'guessed'; readonly address: string; readonly digest: Uint8Array };

/** What a worker needs of the other half. */
export interface WorkerParts {
  /** The companion's port, once it is known. */
  readonly at: () => Endpoint | null;
  readonly mark: LoopMark;
  /** What the logins of sites are made with (isolation.ts): the same in every worker, another one after every start. */
  readonly isolationSecret: string;
  readonly control: ControlDoor | ControlElsewhere;
  /** A tunnel stands. */
  readonly opened: (exchange: Exchange) => void;
  /** Bytes have gone through one that stands. */
  readonly moved: (exchange: Exchange) => void;
  readonly ended: (exchange: Exchange) => void;
  /** Where there are other workers: takes to them what this one has found out. */
  readonly tell?: ((news: News) => void) | undefined;
  readonly warn: (message: string) => void;
  readonly now: () => EpochMilliseconds;
  /** What `auto` routes knew of sites when the companion last ran. */
  readonly knownSites?: readonly KnownSite[] | undefined;
  /** They know something new, found out here or by a person's word. */
  readonly sitesChanged?: ((news: SiteNews) => void) | undefined;
  /** Where a person pins routes: what was pinned when the companion last ran, and who hears what is pinned now. */
  readonly savedPins?: readonly RoutePin[] | undefined;
  readonly pinsChanged?: ((pins: readonly RoutePin[]) => void) | undefined;
  /** Where the cache keeps what is to outlive it; without, it is in memory only. */
  readonly cacheFolder?: string | undefined;
}

export interface Worker {
  readonly furnished: Furnished;
  /** What may be asked of its cache. */
  readonly cacheOffice: CacheOffice;
  /** Routes that are held to one chain, for a person to see and to change. */
  readonly pins: Pins;
  /** What `auto` routes know of sites, for a person to see and to change. */
  readonly knownSites: KnownSites;
  /** How a chain fares, as far as this process knows. */
  healthOf(chain: Chain): ChainHealth;
  healthOfHops(): HopHealth[];
  /** What asking through a chain found. */
  checked(chain: Chain, check: HealthCheck, found: ChainTest): void;
  /** Another worker's exchange: what it shows of hops. */
  observe(exchange: Exchange): void;
  /** The next request walks through rooms furnished by it. */
  putInForce(next: InForce): void;
  /** Opens the port (0 = any free one) and gives back the real one. Rejects with the system's error. */
  listen(at: Endpoint): Promise<number>;
  /** Takes over a socket that another process has accepted, with what was read of it. */
  adopt(socket: Socket, read: Buffer): void;
  /** Another worker has found something out. */
  hear(news: News): void;
  /** The outcomes that a new worker should know. */
  remembered(): readonly News[];
  /** Accepts no more, lets exchanges end within `drain`, then closes everything. */
  close(drain: Milliseconds): Promise<void>;
}

/** The registrable domain of a host (ICANN's list and the private one, as browsers count sites), or null. */
const registrable = (host: string): string | null =>
  isAddress(host) ? null : getDomain(host, { allowPrivateDomains: true });
export const siteName = (host: string): string => siteOf(host, registrable);

const elapsed = () => performance.now();

/** The disk's index is opened so long after the port, or when the first request needs it. */
const WARM_UP_AFTER: Milliseconds = 100;

/** With `disk: 0` nothing stays on the disk: it would not hear of what becomes invalid meanwhile, and come back with the setting. */
async function forgetDisk(folder: string, store: DiskStore | null): Promise<void> {
  await store?.close();
  rm(folder, { recursive: true, force: true }, () => {});
}

/** A worker that walks by `first` and does not listen yet. */
export function makeWorker(first: InForce, parts: WorkerParts): Worker {
  const { now, mark, tell } = parts;
  let listener: Listener | null = null;
  let reception: Reception | null = null;
  let closed = false;
  let furnished!: Furnished;
  let disk: DiskStore | null = null;
  const newCache = (config: Config): SharedCache => {
    const { disk: limit } = config.cache;
    const { cacheFolder: folder } = parts;
    if (folder !== undefined && limit > 0) {
      if (disk === null) disk = new DiskStore({ folder, limit, warn: parts.warn, alone: tell === undefined, now });
      else disk.setLimit(limit);
    } else {
      const before = disk;
      disk = null;
      if (folder !== undefined) void forgetDisk(folder, before);
    }
    const made = createCache(
      { ...config.cache, cookies: config.cache.partition === 'site' && !hasSeveralUsers(config) },
      url => {
        // Exchanges keep the cache that they began with.
        if (made !== cache) cache.invalidate(url);
        tell?.({ outcome: 'invalidated', url });
      },
      disk,
    );
    return made;
  };
  const sites = makeSiteMemory({
    now,
    saved: parts.knownSites ?? [],
    changed(news) {
      tell?.(news);
      parts.sitesChanged?.(news);
    },
  });
  const routeOf = (name: string) => furnished.routes.get(name);
  const newKnowledge = () => makeKnowledge({ now: elapsed, wallClock: now, sites, routeOf, tell });
  let knowledge = newKnowledge();
  // Known by the names of chains, too, but a login that hops away is worse than one that stays with a name.
  const sticky = makeStickyMemory(tell);
  const { pinsChanged } = parts;
  const pins = makePins(
    now,
    parts.savedPins,
    pinsChanged &&
      (all => {
        tell?.({ outcome: 'pins', pins: all });
        pinsChanged(all);
      }),
  );
  let cache = newCache(first.config);
  let names: { resolver: Resolver; madeFor: string } | null = null;
  let limits = first.config.limits;
  const filesAllowed = openFilesAllowed();
  let shortAt = -Infinity;
  const pool = new ConnectionPool(() => limits);
  // The file is refused where the system has no user ids.
  const owner = makeOwnerCheck(process.getuid?.() ?? -1);
  const loginBound = new LoginBound(now, tell && ((address, digest) => tell({ outcome: 'guessed', address, digest })));
  loginBound.whenReached = address =>
    parts.warn(`${address} has given too many wrong passwords, and is not listened to for a minute.`);
  const identical = new IdenticalHeads(() => limits.identical);
  const ssh = makeSshHops();
  const isolation = makeIsolation(parts.isolationSecret, siteName);
  const behind = new Behind();
  const habits: HopHabits = new Map();
  const { opened, moved, ended } = parts;
  const recorder = makeRecorder({ now, elapsed, siteOf: siteName, opened, moved, ended });

  const furnish = ({ config, source, matcher, tls, hops }: InForce): Furnished => {
    const routes = resolveRoutes({ hops, routes: config.routes });
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
      memory: knowledge,
      sticky,
      pins,
      firstTurn: Math.trunc(Math.random() * 1_000),
      siteOf: siteName,
    });
    // The addresses it knows outlive a change of anything else.
    const madeFor = `${judgedBy({ config, hops })} ${hopTimeout}`;
    if (names?.madeFor !== madeFor) {
      const resolver = makeNameLookup({
        dns: config.dns,
        acl,
        hopTimeout,
        via: mark.via,
        tryChains,
        routeOf: route => routes.get(route)!,
        connections: pool,
        ssh,
        isolation,
        wallClock: now,
      });
      names = { resolver, madeFor };
    }
    const { lookup } = names.resolver;
    const dial = claiming(
      makeDial({ acl, hopTimeout, hosts: config.dns.hosts, lookup, via: mark.via, ssh, isolation }),
    );
    const looksAtTime = (matcher.looksAt & LOOKS_AT_TIME) !== 0;
    const rooms: Rooms = {
      entrance: makeEntrance(config.guard, loginBound),
      acl,
      decide: looksAtTime
        ? target => decideForCompanion(matcher, { ...target, minute: minuteOfWeek(new Date(now())) }, config.default)
        : target => decideForCompanion(matcher, target, config.default),
      decideByAddress:
        (matcher.looksAt & LOOKS_AT_ADDRESS) === 0
          ? null
          : async (target, byName) => {
              const { host } = target;
              const { behindHops } = routes.get(byName.route)!;
              // Behind hops nobody asks for the address here. Where it cannot be found, the dial will say so.
              if (isAddress(host) || behindHops || byName.blockedBy !== undefined) return byName;
              const written = Object.hasOwn(config.dns.hosts, host) ? [config.dns.hosts[host]!] : null;
              const addresses = written ?? (await lookup(host).catch(() => null));
              if (addresses === null) return byName;
              const minute = minuteOfWeek(new Date(now()));
              return decideForCompanion(matcher, { ...target, minute, addresses }, config.default);
            },
      routeOf: decision => routes.get(decision.route)!,
      blockAnswer,
      cache,
      tryChains,
      heard: (site, route, attempts) => knowledge.heard(site, route, attempts),
      broke: (site, chain, fault) => knowledge.failed(site, chain, { fault, stage: 'response', steps: [] }),
      isHeld: ({ name, chains }) => chains.some(({ key }) => key === pins.of(name)?.chain),
      dial: (one, target, absolute) => dial(one, target, absolute).catch(whenDialFailed),
      refusals: makeRefusals(config.signatures, habits),
      pool,
      identical,
      behind,
      recorder,
      limits: config.limits,
      partition: config.cache.partition,
      registrableDomain: siteName,
      comesFromUs: head => mark.comesFromUs(head),
      now,
      era: {},
    };
    if (looksAtTime) changeEveryMinute(rooms, now);
    return { config, source, matcher, tls, hops, routes, pins, rooms, context: tls && secureContext(tls) };
  };
  furnished = furnish(first);
  pins.keepTo(furnished.routes);
  const receives = {
    limits: () => limits,
    walk: {
      request: (incoming: Incoming) => proxyRequest(incoming, furnished.rooms),
      tunnel: (incoming: Incoming) => openTunnel(incoming, furnished.rooms),
    },
    warn: parts.warn,
    // Connections that nobody uses hold files that the next client needs.
    whenShort: () => pool.retire(),
    control: parts.control,
    entrance: () => furnished.rooms.entrance,
    tls: () => furnished.context,
    owner: () => (furnished.config.guard.owner === 'on' ? owner : null),
  };
  fitLimits(first.config);

  /** What the file says, as far as the system allows it. */
  function fitLimits(config: Config): void {
    const fitted = fitToOpenFiles(config.limits, filesAllowed);
    limits = fitted.limits;
    if (fitted.warning !== null) parts.warn(fitted.warning);
  }

  /** What worked and what did not is known by the names of hops, and some may now mean others. */
  function forgetKnowledge({ config, hops }: InForce): void {
    const { config: before, hops: known } = furnished;
    if (JSON.stringify([config.guard, config.dns]) !== JSON.stringify([before.guard, before.dns])) {
      knowledge = newKnowledge();
      return;
    }
    const names = new Set([...Object.keys(known), ...Object.keys(hops)]);
    for (const name of names) if (JSON.stringify(known[name]) === JSON.stringify(hops[name])) names.delete(name);
    if (names.size > 0) knowledge.forget(names);
  }

  /** What a request would get for which this was stored. */
  function judge({ url, site, route, partition, selection }: Listed, now: EpochMilliseconds) {
    const { hostname, port: written, pathname, search } = new URL(url);
    const host = normalizeHost(hostname) ?? hostname;
    const port = Number(written || 80);
    const path = pathname + search;
    const head = plainGet(host, port, path);
    selection?.names.forEach((name, i) => {
      const value = selection.values[i];
      if (value !== undefined && !head.fields.has(name)) head.fields.append(name, value);
    });
    const decision = furnished.rooms.decide({ scheme: 'http', host, port, path });
    const { behindHops } = furnished.rooms.routeOf(decision);
    const status = cache.peek({ head, url, site, route, partition, behindHops, decision }, now);
    return { mode: decision.cache, status };
  }

  /** Connections that nobody uses hold files that the next one needs. */
  function whenDialFailed(error: unknown): never {
    const { code } = ((error as Error).cause ?? {}) as NodeJS.ErrnoException;
    if (code === 'EMFILE' || code === 'ENFILE') {
      pool.retire();
      if (elapsed() - shortAt > 60_000) parts.warn('This system allows no more open files: connections fail.');
      shortAt = elapsed();
    }
    throw error;
  }

  return {
    get furnished() {
      return furnished;
    },
    pins,
    knownSites: sites,
    healthOf: chain => knowledge.healthOf(chain),
    healthOfHops: () => knowledge.healthOfHops(),
    checked(chain, { status: wanted, every, jitter }, { outcome, stage, hops, took, status, exit, reason }) {
      const ok = outcome === 'ok' && status === wanted;
      const wrong = ok ? undefined : (reason ?? `The answer was ${status}, and ${wanted} is expected.`);
      // Until two checks further on: then traffic itself finds out.
      const lifetime = 2 * (every + jitter) * 1_000;
      const check = { at: now(), ok, took, status, exit, reason: wrong };
      knowledge.checked(chain, check, { outcome, stage: stage as Attempt['stage'], hops }, lifetime);
    },
    observe({ route, attempts }) {
      const chains = furnished.routes.get(route)?.chains;
      if (chains === undefined) return;
      for (const attempt of attempts) {
        const { chain: names, outcome, hops } = attempt;
        if (outcome === 'ok' && hops.length === 0) continue;
        const chain = chains.find(
          one => one.hops.length === names.length && one.hops.every((hop, i) => hop.name === names[i]),
        );
        if (chain !== undefined) knowledge.observe(chain, attempt);
      }
    },
    cacheOffice: makeCacheOffice({ inventory: () => cache.inventory, judge }),
    putInForce(next) {
      const before = furnished.config;
      const rejudged = judgedBy(next) !== judgedBy(furnished);
      if (rejudged) forgetKnowledge(next);
      const isOtherCache =
        JSON.stringify(next.config.cache) !== JSON.stringify(before.cache) ||
        hasSeveralUsers(next.config) !== hasSeveralUsers(before);
      if (isOtherCache) {
        void cache.close();
        cache = newCache(next.config);
      }
      furnished = furnish(next);
      pins.keepTo(furnished.routes);
      if (JSON.stringify(next.config.limits) !== JSON.stringify(before.limits)) fitLimits(next.config);
      // Kept connections were judged and named under the old file.
      if (rejudged) pool.retire();
    },
    async listen(at) {
      listener = await listen({ ...receives, ...at });
      // Not before the first answer, where that is asked for at once.
      if (disk !== null) setTimeout(() => disk?.warmUp(), WARM_UP_AFTER).unref();
      return listener.port;
    },
    adopt(socket, read) {
      if (closed) return void socket.destroy();
      reception ??= openReception({ ...receives, host: (parts.at() ?? first.config.listen).host });
      socket.allowHalfOpen = true;
      socket.setNoDelay(true);
      reception.accept(socket, read);
    },
    hear(news) {
      if (news.outcome === 'invalidated') {
        if (news.url === null) cache.clear();
        else cache.invalidate(news.url);
      } else if (news.outcome === 'guessed') loginBound.hear(news.address, Buffer.from(news.digest));
      else if (news.outcome === 'stuck') sticky.hear(news);
      else if (news.outcome === 'pins') pins.hear(news);
      else if (news.outcome === 'site') {
        sites.hear(news);
        parts.sitesChanged?.(news);
      } else knowledge.hear(news);
    },
    remembered: () => [
      ...knowledge.all(),
      ...sites.list().map(known => ({ outcome: 'site', site: known.site, known }) as const),
      ...sticky.all(),
      { outcome: 'pins', pins: pins.all() },
    ],
    async close(drain) {
      closed = true;
      await Promise.all([listener?.close(drain), reception?.close(drain)]);
      await cache.close();
      await disk?.close();
      owner.close();
      behind.close();
      pool.close();
      ssh.close();
    },
  };
}

/** Where rules look at the time, what is known of a request holds for this minute. */
function changeEveryMinute(rooms: Rooms, now: () => EpochMilliseconds): void {
  let minute = -1;
  let era = {};
  Object.defineProperty(rooms, 'era', {
    get() {
      const current = Math.floor(now() / 60_000);
      if (current !== minute) era = {};
      minute = current;
      return era;
    },
  });
}

/** Whether what one has loaded may be sent to another. */
function hasSeveralUsers({ guard }: Config): boolean {
  return guard.otherMachines || Object.keys(guard.users ?? {}).length > 1;
}

/** Everything by which a connection upstream was judged and named. */
function judgedBy({ config, hops }: Pick<InForce, 'config' | 'hops'>): string {
  return JSON.stringify([hops, config.routes, config.guard, config.dns]);
}

/** Throws Node's error where they do not go together. Node's TLS is loaded where there is a certificate: it costs a start 3 ms. */
export function secureContext(pem: { readonly cert: string; readonly key: string }): SecureContext {
  return process.getBuiltinModule('node:tls').createSecureContext(pem);
}
