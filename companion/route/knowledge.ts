// What is known of chains and sites, put together for whoever puts chains in order, and what the walk finds out, taken apart again: hops (health.ts), one
// site by one chain (outcome-memory.ts), sites that the companion's own connection does not reach (site-memory.ts).
import { isAddress } from '../../shared/endpoint.ts';
import type { Attempt } from '../../shared/exchange.ts';
import { Fault } from '../../shared/fault.ts';
import type { EpochMilliseconds, Milliseconds } from '../../shared/units.ts';
import type { Chain, ChainOutcomes, Group, ResolvedRoute } from '../rooms.ts';
import { type ChainHealth, type Health, hopAway, type HopHealth, type LinkNews, makeHealth } from './health.ts';
import { makeOutcomeMemory, type Outcome } from './outcome-memory.ts';
import { LOST } from './race.ts';
import type { SiteMemory, SiteNews } from './site-memory.ts';

/** What one worker finds out of chains and sites and the others should know. */
export type ChainNews = Outcome | LinkNews | SiteNews;

export interface Knowledge extends ChainOutcomes {
  /** Another worker has found it out. */
  hear(news: Outcome | LinkNews): void;
  /** What a new worker should know. */
  all(): (Outcome | LinkNews)[];
  /** Hops that have these names now are others than before. */
  forget(hops: ReadonlySet<string>): void;
  /** How a chain fares for whatever site. */
  healthOf(chain: Chain): ChainHealth;
  healthOfHops(): HopHealth[];
  readonly checked: Health['checked'];
  /** What another worker's exchange shows of hops. */
  observe(chain: Chain, attempt: Attempt): void;
}

export interface KnowledgeParts {
  /** Tells spans. */
  readonly now: () => Milliseconds;
  readonly wallClock: () => EpochMilliseconds;
  readonly sites: SiteMemory;
  /** The route that has this name. */
  readonly routeOf: (name: string) => ResolvedRoute | undefined;
  /** Takes what is new to the others. */
  readonly tell?: ((news: Outcome | LinkNews) => void) | undefined;
}

export function makeKnowledge({ now, wallClock, sites, routeOf, tell = () => {} }: KnowledgeParts): Knowledge {
  const outcomes = makeOutcomeMemory(now);
  const health = makeHealth(now, wallClock, tell);
  const isLast = (site: string, chain: Chain) => outcomes.isLast(site, chain);
  const isDown = (chain: Chain) => health.isDown(chain);

  return {
    isLast,
    isDown,
    latency: chain => health.latency(chain),
    preferred(site, name) {
      const way = sites.way(site);
      if (way === null) return null;
      const chains = routeOf(name)?.chains ?? [];
      const isIts = (chain: Chain) => (chain.hops.length === 0) === (way === 'direct');
      const found =
        chains.find(chain => isIts(chain) && !isLast(site, chain) && !isDown(chain)) ??
        chains.find(chain => isIts(chain));
      return found?.key ?? null;
    },
    headStart: site => sites.headStart(site),
    trying(site, chain) {
      health.trying(chain);
      if (site === null) return;
      outcomes.trying(site, chain);
      if (chain.hops.length === 0) sites.trying(site);
    },
    worked(site, chain, _took, steps) {
      health.stood(chain, steps);
      if (site !== null && outcomes.worked(site, chain)) tell({ outcome: 'worked', site, chain: chain.key });
    },
    failed(site, chain, failed) {
      const away = hopAway(chain, failed);
      // Who says no is there, and so is everybody on the way to him.
      const passed = away === null ? failed.steps : failed.steps.slice(0, away);
      if (passed.length > 0) health.stood(chain, passed);
      if (away !== null) return health.failed(chain, away, failed.fault);
      if (site === null) return;
      const { sign = 'unreachable', retryAfter } = failed.fault;
      tell(outcomes.failed(site, chain, sign, retryAfter));
    },
    seenThrough(fault, chain, route) {
      if (chain.hops.length > 0 || fault.kind !== 'destination_ip_prohibited' || !isAuto(route)) return fault;
      const { target } = fault;
      // A name of one label is this network's own, and so may be its address.
      if (target === undefined || isAddress(target.host) || !target.host.includes('.')) return fault;
      const detail = `the DNS names an address of this machine or its network${fault.detail === undefined ? '' : `, ${fault.detail}`}`;
      return new Fault('dns_error', { target, detail, sign: 'poisoned', cause: fault });
    },
    heard(site, route, attempts) {
      const last = attempts.at(-1);
      // With a sign it is an answer that looks like a no.
      if (last === undefined || last.outcome !== 'ok' || last.sign !== undefined) return;
      const isOwn = last.chain.length === 0;
      if (!isAuto(route)) return isOwn ? sites.ownWorks(site) : undefined;
      if (isOwn) return sites.worked(site);
      const own = ownBefore(attempts);
      if (own === undefined) return;
      // The chains find the name that the own DNS does not know.
      if (own.reason === LOST) sites.slower(site);
      else sites.blocked(site, own.outcome === 'dns_error' ? 'poisoned' : own.sign!);
    },
    hear(news) {
      if (news.outcome === 'failed' || news.outcome === 'worked') outcomes.hear(news);
      else health.hear(news);
    },
    all: () => [...outcomes.all(), ...health.all()],
    forget(hops) {
      outcomes.forget(hops);
      health.forget(hops);
    },
    healthOf: chain => health.of(chain),
    healthOfHops: () => health.hops(),
    checked: health.checked,
    observe: (chain, attempt) => health.observe(chain, attempt),
  };
}

/** How the companion's own connection failed before another chain got through. */
function ownBefore(attempts: readonly Attempt[]): Attempt | undefined {
  return attempts.findLast(({ chain, sign }, i) => chain.length === 0 && sign !== undefined && i < attempts.length - 1);
}

const autoRoutes = new WeakMap<ResolvedRoute, boolean>();

/** Whether the companion's own connection is tried first, and its failing teaches something of the site. */
function isAuto(route: ResolvedRoute): boolean {
  if (route.group === undefined) return false;
  let known = autoRoutes.get(route);
  if (known === undefined) autoRoutes.set(route, (known = hasAuto(route.group)));
  return known;
}

function hasAuto({ pick, members }: Group): boolean {
  return pick === 'auto' || members.some(member => 'members' in member && hasAuto(member));
}
