// The caches of all workers as one, for the control room: what a person writes is brought to the cache's own form, every worker is asked, and what they
// say is added up.
import type { Holdings, Stored, StoredAnswer } from '../shared/control.ts';
import { normalizeHost, parsePort } from '../shared/endpoint.ts';
import type { SiteCounts } from '../shared/exchange.ts';
import type { EpochMilliseconds } from '../shared/units.ts';
import type { CacheAnswers, CacheQuestion } from './cache/office.ts';
import type { CacheDesk } from './control/commands.ts';
import { urlOf } from './notes.ts';

export interface CacheDeskParts {
  /** Asks every worker. One that does not answer in time is left out; but where something is to be changed, it is ended: what it has in memory goes with it. */
  readonly ask: <A extends CacheQuestion['ask']>(
    question: Extract<CacheQuestion, { ask: A }>,
  ) => Promise<CacheAnswers[A][]>;
  readonly totals: () => SiteCounts;
  /** Whether there is a disk, which all workers share. */
  readonly isShared?: () => boolean;
  readonly since: EpochMilliseconds;
  /** The registrable domain of a host, or the host itself. */
  readonly siteOf: (host: string) => string;
}

/** The desk over all workers. Its functions throw a sentence where what is written means nothing that could be stored. */
export function makeCacheDesk({ ask, totals, since, siteOf, isShared = () => false }: CacheDeskParts): CacheDesk {
  const normal = (which: Stored): Stored => {
    if ('url' in which) return { url: normalUrl(which.url) };
    if ('prefix' in which) return { prefix: normalUrl(which.prefix) };
    return 'site' in which ? { site: normalSite(which.site, siteOf) } : which;
  };
  return {
    async stats() {
      const all = await ask<'holdings'>({ ask: 'holdings' });
      const memory = added(all.map(one => one.memory));
      return { since, memory, disk: shared(all), counts: totals() };
    },
    async list(which, limit) {
      const all = await ask<'list'>({ ask: 'list', which: normal(which), limit });
      const answers = distinct(all.flatMap(one => one.answers));
      return { answers: answers.slice(0, limit), more: answers.length > limit || all.some(({ more }) => more) };
    },
    async show(url) {
      return distinct((await ask<'show'>({ ask: 'show', url: normalUrl(url) })).flat());
    },
    purge: async which => counted(isShared(), await ask<'purge'>({ ask: 'purge', which: normal(which) })),
    pin: async (which, pinned) => counted(isShared(), await ask<'pin'>({ ask: 'pin', which: normal(which), pinned })),
  };
}

/** Each once, though several workers have it; by URL. */
function distinct(answers: readonly StoredAnswer[]): StoredAnswer[] {
  const known = new Map<string, StoredAnswer>();
  for (const one of answers) {
    const key = JSON.stringify([one.url, one.route, one.partition, one.vary]);
    const other = known.get(key);
    if (other === undefined || other.storedAt < one.storedAt) known.set(key, one);
  }
  return [...known.values()].sort((a, b) => (a.url < b.url ? -1 : a.url > b.url ? 1 : 0));
}

function added(all: readonly Holdings[]): Holdings {
  return {
    entries: sum(all.map(one => one.entries)),
    bytes: sum(all.map(one => one.bytes)),
    limit: sum(all.map(one => one.limit)),
  };
}

/** What is on the disk is everybody's; who has looked last knows the most of it. */
function shared(all: readonly CacheAnswers['holdings'][]): Holdings | null {
  return all.reduce<Holdings | null>(
    (most, { disk }) => (disk === null || (most !== null && most.entries >= disk.entries) ? most : disk),
    null,
  );
}

/** How many answers are now otherwise. What is on a disk that all share was counted by the first to come, if by all. */
function counted(isShared: boolean, counts: readonly number[]): number {
  return isShared ? Math.max(0, ...counts) : sum(counts);
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((a, b) => a + b, 0);
}

/** The site that a person means: a host of it will do. Throws a sentence. */
function normalSite(written: string, siteOf: (host: string) => string): string {
  const host = normalizeHost(written.replace(/^[=.]/, ''));
  if (host === null) throw new Error(`"${written}" is not a site.`);
  return siteOf(host);
}

/** As the walk writes it, or the beginning of such a one. Throws a sentence where nothing of the kind is ever stored. */
function normalUrl(written: string): string {
  const [, scheme = 'http', authority = '', rest = ''] =
    /^(?:([a-z][a-z0-9+.-]*):\/\/)?([^/?#]*)([^#]*)/i.exec(written.trim()) ?? [];
  const [, name = '', portText] = /^(\[[^\]]*\]|[^:]*)(?::(\d+))?$/.exec(authority) ?? [];
  const host = normalizeHost(name);
  const port = portText === undefined ? 80 : parsePort(portText);
  if (host === null || port === null) throw new Error(`"${written}" is not a URL.`);
  if (scheme.toLowerCase() !== 'http')
    throw new Error(`"${written}" is never stored: only plain http is, as everything else is a tunnel.`);
  // Browsers send no other letters.
  const path = rest.toWellFormed().replaceAll(/[^\u0021-\u007e]+/g, encodeURIComponent);
  return urlOf(host, port, path.startsWith('/') ? path : `/${path}`);
}
