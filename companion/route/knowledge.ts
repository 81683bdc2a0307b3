// What is known of chains and sites, put together for whoever puts chains in order, and what the walk finds out, taken apart again: hops (health.ts), one
// site by one chain (outcome-memory.ts).
import type { EpochMilliseconds, Milliseconds } from '../../shared/units.ts';
import type { Chain, ChainOutcomes } from '../rooms.ts';
import { type HealthReport, hopAway, type LinkNews, makeHealth } from './health.ts';
import { makeOutcomeMemory, type Outcome } from './outcome-memory.ts';

/** What one worker finds out of chains and the others should know. */
export type ChainNews = Outcome | LinkNews;

export interface Knowledge extends ChainOutcomes {
  /** The chains in the order to try them: all of them, always. */
  order(site: string, chains: readonly Chain[]): readonly Chain[];
  /** Another worker has found it out. */
  hear(news: ChainNews): void;
  /** What a new worker should know. */
  all(): ChainNews[];
  report(): HealthReport;
}

export interface KnowledgeParts {
  /** Tells spans. */
  readonly now: () => Milliseconds;
  readonly wallClock: () => EpochMilliseconds;
  /** Takes what is new to the others. */
  readonly tell?: ((news: ChainNews) => void) | undefined;
}

export function makeKnowledge({ now, wallClock, tell = () => {} }: KnowledgeParts): Knowledge {
  const outcomes = makeOutcomeMemory(now);
  const health = makeHealth(now, wallClock, tell);
  const isLast = (site: string, chain: Chain) => outcomes.isLast(site, chain);
  const isDown = (chain: Chain) => health.isDown(chain);

  return {
    isLast,
    isDown,
    latency: chain => health.latency(chain),
    preferred: () => null,
    trying(site, chain) {
      health.trying(chain);
      if (site !== null) outcomes.trying(site, chain);
    },
    worked(site, chain, _took, steps) {
      health.stood(chain, steps);
      if (site !== null && outcomes.worked(site, chain)) tell({ outcome: 'worked', site, chain: chain.key });
    },
    failed(site, chain, failed) {
      const away = hopAway(chain, failed);
      if (away !== null) return health.failed(chain, away, failed.fault.kind);
      if (site === null) return;
      const { sign = 'unreachable', retryAfter } = failed.fault;
      tell(outcomes.failed(site, chain, sign, retryAfter));
    },
    heard: () => {},
    order(site, chains) {
      if (chains.length < 2) return chains;
      const goesLast = (chain: Chain) => isLast(site, chain) || isDown(chain);
      const first = chains.filter(chain => !goesLast(chain));
      if (first.length === 0 || first.length === chains.length) return chains;
      const ordered = [...first, ...chains.filter(chain => !first.includes(chain))];
      return keepDirectBack(ordered, chains);
    },
    hear(news) {
      if (news.outcome === 'link-failed' || news.outcome === 'link-worked') health.hear(news);
      else outcomes.hear(news);
    },
    all: () => [...outcomes.all(), ...health.all()],
    report: () => health.report(),
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
