// What is kept of one exchange, exactly as the popup and `detour log` show it. Secret-free: URLs carry no user name or password.
import type { Because, CacheMode, FilterLevel, RouteName } from './decision/rule.ts';
import type { FaultKind } from './fault.ts';
import type { Bytes, EpochMilliseconds, Milliseconds } from './units.ts';

/** One hop (or, with hop null, the last leg to the target) of one attempt. */
export interface HopTrace {
  readonly hop: string | null;
  /** `host:port` of the hop, or of the target. */
  readonly at: string;
  /** From the previous step's end to this one's. */
  readonly took: Milliseconds;
}

/** Who said what came back; and, of a failure or a no, what it looks like. */
export type Verdict = 'proxy' | 'origin' | 'unknown';
export type Sign = 'policy' | 'rate' | 'auth' | 'unreachable' | 'reset' | 'tls' | 'poisoned' | 'portal' | 'timeout';

/** One chain tried for one exchange. */
export interface Attempt {
  /** Names of the hops in order; empty = the companion connects itself. */
  readonly chain: readonly string[];
  readonly outcome: 'ok' | FaultKind;
  /** Where it ended: connecting to a hop, greeting or logging in, asking for the tunnel, or the hop's answer to the request. */
  readonly stage: 'connect' | 'greeting' | 'tunnel' | 'response' | 'reused';
  /** Who said no, where that has been judged. */
  readonly verdict?: Verdict | undefined;
  /** What the failure or the no looks like, where that is known. */
  readonly sign?: Sign | undefined;
  /** The sentence of the fault, when there was one. */
  readonly reason?: string | undefined;
  readonly hops: readonly HopTrace[];
  readonly took: Milliseconds;
}

export interface Exchange {
  /** Counts up from 1 in one run of the companion. */
  readonly id: number;
  readonly startedAt: EpochMilliseconds;
  readonly kind: 'http' | 'connect' | 'upgrade' | 'socks';
  readonly method: string;
  /** Absolute URL without user information; `host:port` for a tunnel. */
  readonly url: string;
  readonly host: string;
  /** Registrable domain of the host (the host itself where there is none). */
  readonly site: string;
  /** Registrable domain of the page it was asked from (Referer or Origin), when known. */
  readonly fromSite?: string | undefined;
  readonly because: Because;
  readonly route: RouteName;
  readonly filter: FilterLevel;
  readonly cache: CacheMode;
  /** The rule that blocked it, when one did. */
  readonly blockedBy?: Because | undefined;
  /** The Cache-Status member's parameters: `hit; ttl=30`, `fwd=miss; stored`; absent for tunnels. */
  readonly cacheStatus?: string | undefined;
  readonly attempts: readonly Attempt[];
  /** Final status sent downstream (for SOCKS, the one that a CONNECT would have had); null when none was (browser gone, tunnel closed by reset). */
  readonly status: number | null;
  readonly fault?: FaultKind | undefined;
  /** The sentence for a person, when it failed. */
  readonly sentence?: string | undefined;
  readonly bytesUp: Bytes;
  readonly bytesDown: Bytes;
  /** To the first byte of the final answer (for a tunnel: to its 200). */
  readonly firstByteAfter?: Milliseconds | undefined;
  /** Whole duration; absent while it is still open (a live tunnel). */
  readonly took?: Milliseconds | undefined;
}

/** Counters since the companion's start, of a site or of all, for icon, popup and `detour cache stats`. */
export interface SiteCounts {
  requests: number;
  /** Of them those that the cache could have answered: tunnels, other methods and sites without a cache are not among them. */
  lookups: number;
  /** Of those, how many it did answer. */
  cached: number;
  blocked: number;
  failed: number;
  bytesUp: Bytes;
  bytesDown: Bytes;
  /** Of bytesDown, what came out of the cache. */
  bytesSaved: Bytes;
}

/** Whether the cache could have answered, by the parameters of its Cache-Status member (RFC 9211). */
export function couldBeCached(cacheStatus: string | undefined): boolean {
  return cacheStatus !== undefined && !cacheStatus.startsWith('fwd=bypass') && !cacheStatus.startsWith('fwd=method');
}

/** Whether it did answer. */
export function isHit(cacheStatus: string | undefined): boolean {
  return cacheStatus?.startsWith('hit') ?? false;
}

/** Whether the body came out of the cache: a hit, what the origin said still holds (304), what another was just being sent. */
export function isFromCache(cacheStatus: string | undefined): boolean {
  if (cacheStatus === undefined) return false;
  return isHit(cacheStatus) || /; (?:fwd-status=304|collapsed)(?:;|$)/.test(cacheStatus);
}
