// Which sites the companion's own connection does not reach, as routes with `pick: auto` find out: one sign of blocking, where a chain then got through, makes
// a suspicion of minutes; a second sign in another request makes it known for hours. When that is over, one request tries the own connection again, and twice
// well is enough to forget. Where many sites show signs at once, it is the network and not the sites: then nothing is learned.
import { type KnownSite, MAX_KNOWN_SITES } from '../../shared/known-site.ts';
import type { Sign } from '../../shared/exchange.ts';
import type { EpochMilliseconds, Milliseconds } from '../../shared/units.ts';

const SECOND: Milliseconds = 1_000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** One sign: the chains lead for so long. */
export const SUSPECTED_FOR: Milliseconds = 2 * MINUTE;
/** A suspicion that is over is remembered for so long, waiting for its second sign. */
const SUSPICION_KEPT: Milliseconds = 2 * HOUR;
/** Signs within so long are of one page, and count as one. */
export const SEPARATE_AFTER: Milliseconds = 10 * SECOND;
/** Confirmed, the chains lead for so long; each time it is confirmed again, twice as long. */
export const CONFIRMED_FOR: Milliseconds = 4 * HOUR;
export const CONFIRMED_AT_MOST: Milliseconds = 7 * DAY;
/** What nobody asked for all the while is forgotten. */
const FORGOTTEN_AFTER: Milliseconds = 30 * DAY;
/** So often the own connection must work until it is taken for good again. */
const WORKS_AFTER = 2;
/** One request has so long to try the own connection again; then another gets the chance. */
const CHANCE_FOR: Milliseconds = 20 * SECOND;
/** So many sites with a first sign within so long, and none that worked: the network is away, or a portal is in front of it. */
export const AWAY_SITES = 4;
export const AWAY_WITHIN: Milliseconds = 2 * MINUTE;
/** Then one request tries the own connection so often. */
export const AWAY_FOR: Milliseconds = 30 * SECOND;
/** Sites known to work directly need no race. In memory only: a list of what somebody reads is nothing to keep. */
const MAX_WORKING = 1_000;
const WORKING_FOR: Milliseconds = 10 * MINUTE;
/** Where nothing is known, the own connection has so long before a chain joins in. */
export const HEAD_START: Milliseconds = 300;
/** So many lost races in a row, so far apart and no farther, are a sign. */
export const LOST_IN_A_ROW = 3;
export const LOST_APART: Milliseconds = SECOND;
const LOST_WITHIN: Milliseconds = HOUR;
/** Clocks are set by so much now and then. */
const CLOCK_SLACK: Milliseconds = 5 * MINUTE;
/** A person may set so many. */
const MAX_BY_PERSON = MAX_KNOWN_SITES / 2;

export type Way = KnownSite['way'];

/** `known` null: nothing is known of it any more. */
export interface SiteNews {
  readonly outcome: 'site';
  readonly site: string;
  readonly known: KnownSite | null;
}

/** What a person sees of the memory and does to it. */
export interface KnownSites {
  /** By name. */
  list(): KnownSite[];
  /** False where nothing was known. */
  forget(site: string): boolean;
  /** Holds whatever signs there are, until then (null: until it is changed). Throws an Error with a sentence where too many are set. */
  set(site: string, way: Way, until?: EpochMilliseconds | null): void;
}

export interface SiteMemory extends KnownSites {
  /** The way that leads now; null = nothing is known, or the own connection is due for another try. */
  way(site: string): Way | null;
  /** How long the own connection may try alone before a chain joins in; null = it is no question which way to take. */
  headStart(site: string): Milliseconds | null;
  /** A request begins to try the own connection. */
  trying(site: string): void;
  /** The own connection showed this sign, and then a chain got through. */
  blocked(site: string, sign: Sign): void;
  /** A chain that joined in later stood before the own connection did. That may be a slow site; so many times in a row it is a sign. */
  slower(site: string): void;
  /** The site was heard by the own connection. */
  worked(site: string): void;
  /** A site was heard by the own connection that no `auto` route asked for: the network is there. */
  ownWorks(site: string): void;
  hear(news: SiteNews): void;
}

export interface SiteMemoryParts {
  readonly now: () => EpochMilliseconds;
  readonly saved: readonly KnownSite[];
  /** Something is known that was not, or no longer. */
  readonly changed: (news: SiteNews) => void;
}

export function makeSiteMemory({ now, saved, changed }: SiteMemoryParts): SiteMemory {
  const sites = new Map<string, KnownSite>();
  /** Sites of which one request is trying the own connection, until when. */
  const chances = new Map<string, EpochMilliseconds>();
  const working = new Map<string, EpochMilliseconds>();
  /** Races that the own connection has lost in a row, and when the last. */
  const lost = new Map<string, { readonly times: number; readonly at: EpochMilliseconds }>();
  /** Sites that have shown a sign since the own connection last worked: when, and what was known before. */
  const signed = new Map<string, { readonly at: EpochMilliseconds; readonly before: KnownSite | null }>();
  let away = false;
  let awayUntil: EpochMilliseconds = 0;
  let workedAt: EpochMilliseconds = -Infinity;

  for (const known of saved) if (sites.size < MAX_KNOWN_SITES) sites.set(known.site, known);

  /** What is known and not too old to count. */
  const find = (site: string): KnownSite | undefined => {
    const known = sites.get(site);
    if (known === undefined || known.until === null) return known;
    // Found out when the clock was ahead: nobody knows how long ago that is.
    const isAhead = known.by === 'signs' && known.lastAt > now() + CLOCK_SLACK;
    const keptFor = isAhead
      ? -Infinity
      : known.by === 'person'
        ? 0
        : known.confirmed
          ? FORGOTTEN_AFTER
          : SUSPICION_KEPT;
    if (now() < known.until + keptFor) return known;
    keep(site, null);
    return undefined;
  };
  const put = (site: string, known: KnownSite | null) => {
    sites.delete(site);
    if (known === null) {
      chances.delete(site);
      return;
    }
    sites.set(site, known);
    if (sites.size <= MAX_KNOWN_SITES) return;
    // The oldest goes; what a person set last of all.
    for (const [oldest, { by }] of sites) {
      if (by === 'person') continue;
      sites.delete(oldest);
      chances.delete(oldest);
      return;
    }
    sites.delete(sites.keys().next().value!);
  };
  const keep = (site: string, known: KnownSite | null) => {
    put(site, known);
    changed({ outcome: 'site', site, known });
  };
  const mayTry = (until: EpochMilliseconds, site: string) => {
    const time = now();
    return time >= until && time >= (chances.get(site) ?? 0);
  };

  /** It is the network: what the last minutes seemed to say of sites is taken back. */
  const beAway = () => {
    away = true;
    awayUntil = now() + AWAY_FOR;
    for (const [site, { before }] of signed) if (sites.get(site)?.by !== 'person') keep(site, before);
    signed.clear();
  };
  /** Counts sites, not signs. True where there are too many. */
  const isNetwork = (site: string): boolean => {
    const time = now();
    for (const [other, { at }] of signed) if (time - at > AWAY_WITHIN) signed.delete(other);
    if (!signed.has(site)) signed.set(site, { at: time, before: sites.get(site) ?? null });
    return signed.size >= AWAY_SITES;
  };

  const noteNetwork = (time: EpochMilliseconds) => {
    workedAt = time;
    if (away) chances.delete('');
    away = false;
    if (signed.size > 0) signed.clear();
  };

  const ways: SiteMemory = {
    way(site) {
      if (sites.size === 0 && !away) return null;
      const known = find(site);
      if (known?.by === 'person') return known.way;
      if (away && !mayTry(awayUntil, '')) return 'chains';
      if (known === undefined || known.way === 'direct') return null;
      return mayTry(known.until ?? Infinity, site) ? null : 'chains';
    },
    headStart(site) {
      if (ways.way(site) !== null) return null;
      const worksUntil = working.get(site);
      return worksUntil !== undefined && now() < worksUntil && !sites.has(site) ? null : HEAD_START;
    },
    trying(site) {
      if (away && mayTry(awayUntil, '')) chances.set('', now() + CHANCE_FOR);
      if (sites.size === 0) return;
      const known = find(site);
      if (known?.by === 'signs' && mayTry(known.until ?? Infinity, site)) chances.set(site, now() + CHANCE_FOR);
    },
    blocked(site, sign) {
      const time = now();
      const known = find(site);
      working.delete(site);
      if (away) {
        if (time >= awayUntil) awayUntil = time + AWAY_FOR;
        chances.delete('');
        return;
      }
      chances.delete(site);
      if (known?.by === 'person') return;
      if (isNetwork(site)) return beAway();
      if (known === undefined) {
        const until = time + SUSPECTED_FOR;
        const first = { site, way: 'chains', by: 'signs', sign, confirmed: false, strikes: 0, worked: 0 } as const;
        return keep(site, { ...first, firstAt: time, lastAt: time, until });
      }
      if (time - known.lastAt < SEPARATE_AFTER) return;
      const next = { ...known, sign, worked: 0, lastAt: time };
      if (known.confirmed && time < known.until!) return;
      // A portal answers for everybody, so it alone proves nothing: something else must have worked meanwhile.
      if (sign === 'portal' && workedAt <= known.firstAt) return keep(site, { ...next, until: time + SUSPECTED_FOR });
      const lifetime = Math.min(CONFIRMED_AT_MOST, CONFIRMED_FOR * 2 ** Math.min(known.strikes, 30));
      keep(site, { ...next, confirmed: true, strikes: known.strikes + 1, until: time + lifetime });
    },
    slower(site) {
      const time = now();
      const before = lost.get(site);
      if (before !== undefined && time - before.at < LOST_APART) return;
      const times = before === undefined || time - before.at > LOST_WITHIN ? 1 : before.times + 1;
      lost.delete(site);
      if (times >= LOST_IN_A_ROW) return ways.blocked(site, 'timeout');
      lost.set(site, { times, at: time });
      if (lost.size > MAX_WORKING) lost.delete(lost.keys().next().value!);
    },
    worked(site) {
      const time = now();
      lost.delete(site);
      noteNetwork(time);
      chances.delete(site);
      working.delete(site);
      working.set(site, time + WORKING_FOR);
      if (working.size > MAX_WORKING) working.delete(working.keys().next().value!);
      if (sites.size === 0) return;
      const known = find(site);
      if (known?.by !== 'signs') return;
      const worked = known.worked + 1;
      if (!known.confirmed || worked >= WORKS_AFTER) return keep(site, null);
      keep(site, { ...known, worked, lastAt: time, until: Math.min(known.until ?? time, time) });
    },
    ownWorks(site) {
      if (sites.has(site)) ways.worked(site);
      else noteNetwork(now());
    },
    hear({ site, known }) {
      put(site, known);
    },
    list: () => [...sites.keys()].flatMap(site => find(site) ?? []).sort((a, b) => (a.site < b.site ? -1 : 1)),
    forget(site) {
      const isKnown = find(site) !== undefined;
      working.delete(site);
      if (isKnown) keep(site, null);
      return isKnown;
    },
    set(site, way, until = null) {
      let byPerson = 0;
      for (const known of sites.values()) if (known.by === 'person' && known.site !== site) byPerson++;
      if (byPerson >= MAX_BY_PERSON)
        throw new Error(`${MAX_BY_PERSON} sites have a way set by hand already: forget one first.`);
      const time = now();
      const told = { site, way, by: 'person', sign: null, confirmed: true, strikes: 0, worked: 0 } as const;
      keep(site, { ...told, firstAt: time, lastAt: time, until });
    },
  };
  return ways;
}
