// Which chain a site has been served by, so that a login stays with the exit it was made at. Who has none yet is spread over the chains by its name alone
// (rendezvous hashing): every worker comes to the same one without a word, and a chain that is new takes sites from others only where it is the best.
import type { Chain } from '../rooms.ts';

/** Sites, each with its chain for one route; with one more the one that was longest not asked for goes back to the chain that its name leads to. */
export const MAX_STICKY = 10_000;

/** A site has been served by a chain: the first one (`moves` 0), or another after that. */
export interface StickyNews {
  readonly outcome: 'stuck';
  readonly route: string;
  readonly site: string;
  readonly chain: string;
  readonly moves: number;
}

export interface StickyMemory {
  /** The key of the chain that serves the site on this route; null = none has yet. */
  chainOf(route: string, site: string): string | null;
  served(route: string, site: string, chain: string): void;
  /** Another worker's. The one that has moved more often is right, and of two that have moved as often the better by name: all workers come to the same. */
  hear(news: StickyNews): void;
  /** What a new worker should know. */
  all(): StickyNews[];
}

/** `tell` takes what is new to the other workers. */
export function makeStickyMemory(tell: (news: StickyNews) => void = () => {}): StickyMemory {
  const known = new Map<string, StickyNews>();
  const keyOf = (route: string, site: string) => `${route}\n${site}`;
  const set = (news: StickyNews) => {
    const key = keyOf(news.route, news.site);
    known.delete(key);
    known.set(key, news);
    if (known.size > MAX_STICKY) known.delete(known.keys().next().value!);
  };

  return {
    chainOf(route, site) {
      const own = known.get(keyOf(route, site));
      if (own === undefined) return null;
      set(own);
      return own.chain;
    },
    served(route, site, chain) {
      const before = known.get(keyOf(route, site));
      if (before?.chain === chain) return;
      const news: StickyNews = {
        outcome: 'stuck',
        route,
        site,
        chain,
        moves: before === undefined ? 0 : before.moves + 1,
      };
      set(news);
      tell(news);
    },
    hear(news) {
      const own = known.get(keyOf(news.route, news.site));
      if (own !== undefined) {
        if (news.moves < own.moves || (news.chain === own.chain && news.moves === own.moves)) return;
        if (news.moves === own.moves && rendezvous(news.site, news.chain) < rendezvous(news.site, own.chain)) return;
      }
      set(news);
    },
    all: () => [...known.values()],
  };
}

/** How well a chain suits a site, from 0 to 2^32 - 1: the same everywhere, as good as random, and of no other chain's concern (FNV-1a, with murmur3's last mix). */
export function rendezvous(site: string, chain: Chain['key']): number {
  let hash = 0x811c9dc5;
  const mix = (text: string) => {
    for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  };
  mix(site);
  mix('\n');
  mix(chain);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}
