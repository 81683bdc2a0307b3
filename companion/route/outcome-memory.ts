// What lately failed, so that the next request of the same site does not wait for it again. It orders chains and never rules one out.
import { LRUCache } from 'lru-cache';
import type { EpochMilliseconds, Milliseconds } from '../../shared/units.ts';
import type { Chain } from '../rooms.ts';

/** A policy's no is a lasting opinion about one site. */
export const REFUSED_FOR: Milliseconds = 10 * 60_000;
/** A hop that cannot be reached, or a site that it cannot reach, may be back any moment. */
export const UNREACHABLE_FOR: Milliseconds = 30_000;
/** Stands in a site's place for what concerns every site: the hop itself is away. */
const EVERY_SITE = '*';
const MAX_OUTCOMES = 10_000;

type ChainName = Pick<Chain, 'key'>;

/** What is remembered, or was found out, of one chain. */
export type Outcome =
  | {
      readonly outcome: 'failed';
      readonly site: string | null;
      readonly chain: string;
      readonly lifetime: Milliseconds;
    }
  | { readonly outcome: 'worked'; readonly site: string; readonly chain: string };

export interface OutcomeMemory {
  /** The chain failed for this site (null: for every site), and goes last for so long. */
  failed(site: string | null, chain: ChainName, lifetime: Milliseconds): void;
  /** The chain works for this site, and so its hops work for every site. True where something else was remembered until now. */
  worked(site: string, chain: ChainName): boolean;
  /** All that is remembered now. */
  all(): Outcome[];
  /** The chains in the order to try them: all of them, always. */
  order(site: string, chains: readonly Chain[]): readonly Chain[];
}

export function makeOutcomeMemory(now: () => EpochMilliseconds): OutcomeMemory {
  // Made with the first failure: it takes its place, a third of a megabyte, at once.
  let failures: LRUCache<string, true> | null = null;
  const newMemory = () =>
    new LRUCache<string, true>({ max: MAX_OUTCOMES, ttl: UNREACHABLE_FOR, perf: { now }, ttlResolution: 0 });
  const key = (site: string, chain: ChainName) => `${site}\n${chain.key}`;
  const isLast = (known: LRUCache<string, true>, site: string, chain: Chain) =>
    known.has(key(site, chain)) || known.has(key(EVERY_SITE, chain));

  return {
    failed(site, chain, lifetime) {
      failures ??= newMemory();
      failures.set(key(site ?? EVERY_SITE, chain), true, { ttl: lifetime });
    },
    worked(site, chain) {
      if (failures === null || failures.size === 0) return false;
      const here = failures.delete(key(site, chain));
      return failures.delete(key(EVERY_SITE, chain)) || here;
    },
    all() {
      const known = failures;
      if (known === null) return [];
      return [...known.keys()].map(kept => {
        const [site = '', chain = ''] = kept.split('\n');
        const lifetime = known.getRemainingTTL(kept);
        return { outcome: 'failed', site: site === EVERY_SITE ? null : site, chain, lifetime };
      });
    },
    order(site, chains) {
      const known = failures;
      if (known === null || known.size === 0 || chains.length < 2) return chains;
      const first = chains.filter(chain => !isLast(known, site, chain));
      if (first.length === 0 || first.length === chains.length) return chains;
      const ordered = [...first, ...chains.filter(chain => !first.includes(chain))];
      return keepDirectBack(ordered, chains);
    },
  };
}

/** The chain of zero hops never overtakes a chain that the file puts before it: a failing hop must not quietly turn into going direct. */
function keepDirectBack(ordered: readonly Chain[], inFile: readonly Chain[]): readonly Chain[] {
  const direct = ordered.findIndex(chain => chain.hops.length === 0);
  if (direct < 0) return ordered;
  const zero = ordered[direct]!;
  const others = ordered.filter(chain => chain !== zero);
  const before = inFile.slice(0, inFile.indexOf(zero));
  let place = direct;
  for (const chain of before) place = Math.max(place, others.indexOf(chain) + 1);
  return [...others.slice(0, place), zero, ...others.slice(place)];
}
