// What lately failed for one site by one chain, and why, so that the next request of that site does not wait for it again. It orders chains and never rules
// one out, and says nothing of other sites: that is health.ts's. When its time is over a failure is not forgotten: one request tries the chain again while
// others keep to what works, and another no then counts for longer.
import type { Sign } from '../../shared/exchange.ts';
import type { EpochMilliseconds, Milliseconds } from '../../shared/units.ts';
import type { Chain } from '../rooms.ts';

const SECOND: Milliseconds = 1_000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;

/** A policy's no is a lasting opinion about one site; so long at first, twice as long when it is said again after that, and so on. */
export const REFUSED_FOR: Milliseconds = 10 * MINUTE;
export const REFUSED_AT_MOST: Milliseconds = 24 * HOUR;
/** What cannot be reached may be back any moment. */
export const UNREACHABLE_FOR: Milliseconds = 30 * SECOND;
/** Interference (a reset, a false certificate) comes and goes. */
export const INTERFERED_FOR: Milliseconds = 2 * MINUTE;
export const INTERFERED_AT_MOST: Milliseconds = HOUR;
/** Asked to wait, we wait as long as we are asked, within these. */
export const RATE_AT_LEAST: Milliseconds = 5 * SECOND;
export const RATE_AT_MOST: Milliseconds = HOUR;
/** Who is rate-limited and not told for how long. */
const RATE_FOR: Milliseconds = MINUTE;
/** One request has so long for the next chance; then another gets it. */
const CHANCE_FOR: Milliseconds = 20 * SECOND;
export const MAX_OUTCOMES = 10_000;

type ChainName = Pick<Chain, 'key'>;

/** What is remembered, or was found out, of one chain and one site. */
export type Outcome =
  | {
      readonly outcome: 'failed';
      readonly site: string;
      readonly chain: string;
      readonly reason: Sign;
      /** How often in a row, each time after the time of the one before was over. */
      readonly strikes: number;
      readonly lifetime: Milliseconds;
    }
  | { readonly outcome: 'worked'; readonly site: string; readonly chain: string };

interface Failed {
  reason: Sign;
  strikes: number;
  lifetime: Milliseconds;
  until: EpochMilliseconds;
  /** Until then one request is finding out whether it works again. */
  chanceUntil: EpochMilliseconds;
}

export interface OutcomeMemory {
  isLast(site: string, chain: ChainName): boolean;
  /** The chain is tried for this site now. */
  trying(site: string, chain: ChainName): void;
  /** It failed: what is remembered now, for others to hear. */
  failed(site: string, chain: ChainName, reason: Sign, retryAfter?: Milliseconds): Outcome;
  /** It works. True where something else was remembered until now. */
  worked(site: string, chain: ChainName): boolean;
  /** Another worker's outcome. */
  hear(outcome: Outcome): void;
  /** Hops that have these names now are others than before. */
  forget(hops: ReadonlySet<string>): void;
  /** All that is in force now. */
  all(): Outcome[];
}

/** For how long a failure counts the `strikes`th time in a row. */
export function lifetimeOf(reason: Sign, strikes: number, retryAfter?: Milliseconds): Milliseconds {
  const doubled = (first: Milliseconds, most: Milliseconds) => Math.min(most, first * 2 ** Math.min(strikes - 1, 30));
  switch (reason) {
    case 'policy':
      return doubled(REFUSED_FOR, REFUSED_AT_MOST);
    case 'rate':
      return Math.min(RATE_AT_MOST, Math.max(RATE_AT_LEAST, retryAfter ?? RATE_FOR));
    case 'reset':
    case 'tls':
    case 'poisoned':
      return doubled(INTERFERED_FOR, INTERFERED_AT_MOST);
    default:
      return UNREACHABLE_FOR;
  }
}

/** Whether a chain, by its key, has one of these hops. */
export function hasHop(chain: string, hops: ReadonlySet<string>): boolean {
  return chain.split('>').some(name => hops.has(name));
}

export function makeOutcomeMemory(now: () => EpochMilliseconds): OutcomeMemory {
  const failures = new Map<string, Failed>();
  const keyOf = (site: string, chain: ChainName) => `${site}\n${chain.key}`;

  /** What is known; what has been over for as long as it lasted, and an hour at the least, is forgotten. */
  const find = (key: string): Failed | undefined => {
    const known = failures.get(key);
    if (known === undefined || now() < known.until + Math.max(known.lifetime, HOUR)) return known;
    failures.delete(key);
    return undefined;
  };
  const keep = (key: string, failed: Failed) => {
    failures.delete(key);
    failures.set(key, failed);
    if (failures.size > MAX_OUTCOMES) failures.delete(failures.keys().next().value!);
  };

  return {
    isLast(site, chain) {
      if (failures.size === 0) return false;
      const known = find(keyOf(site, chain));
      if (known === undefined) return false;
      const time = now();
      return time < known.until || time < known.chanceUntil;
    },
    trying(site, chain) {
      if (failures.size === 0) return;
      const known = find(keyOf(site, chain));
      if (known === undefined) return;
      const time = now();
      if (time >= known.until && time >= known.chanceUntil) known.chanceUntil = time + CHANCE_FOR;
    },
    failed(site, chain, reason, retryAfter) {
      const key = keyOf(site, chain);
      const before = find(key);
      const again = before !== undefined && before.reason === reason;
      // Within its time it is the same no, said to another request.
      const strikes = again ? before.strikes + (now() >= before.until ? 1 : 0) : 1;
      const lifetime = lifetimeOf(reason, strikes, retryAfter);
      keep(key, { reason, strikes, lifetime, until: now() + lifetime, chanceUntil: 0 });
      return { outcome: 'failed', site, chain: chain.key, reason, strikes, lifetime };
    },
    worked(site, chain) {
      return failures.size > 0 && failures.delete(keyOf(site, chain));
    },
    hear(outcome) {
      const key = keyOf(outcome.site, { key: outcome.chain });
      if (outcome.outcome === 'worked') failures.delete(key);
      else {
        const { reason, strikes, lifetime } = outcome;
        keep(key, { reason, strikes, lifetime, until: now() + lifetime, chanceUntil: 0 });
      }
    },
    forget(hops) {
      for (const key of failures.keys()) if (hasHop(key.slice(key.indexOf('\n') + 1), hops)) failures.delete(key);
    },
    all() {
      const time = now();
      const outcomes: Outcome[] = [];
      for (const [key, { reason, strikes, until }] of failures) {
        if (until <= time) continue;
        const [site = '', chain = ''] = key.split('\n');
        outcomes.push({ outcome: 'failed', site, chain, reason, strikes, lifetime: until - time });
      }
      return outcomes;
    },
  };
}
