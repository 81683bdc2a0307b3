// What each tab asked for and what came of it. The companion knows no tabs, so its exchanges are matched to the tabs that asked: plain http by the
// exact URL, tunnels by the host. Pure; bounded; the whole of it fits JSON, so that a sleeping worker loses nothing.
import type { Because } from '../../shared/decision/rule.ts';
import { type Attempt, type Exchange, isHit } from '../../shared/exchange.ts';
import type { EpochMilliseconds, Milliseconds } from '../../shared/units.ts';

/** What the popup shows of one exchange that was blocked, failed, or took more than one chain. */
export interface Incident {
  readonly host: string;
  readonly blockedBy?: Because | undefined;
  readonly sentence?: string | undefined;
  readonly attempts: readonly Attempt[];
}

export interface TabCounts {
  readonly requests: number;
  readonly cached: number;
  readonly blocked: number;
  readonly bytes: number;
  readonly incidents: readonly Incident[];
}

interface Tab {
  /** Document host. */
  host: string;
  since: EpochMilliseconds;
  requests: number;
  /** Asked for by plain http and not yet answered. */
  urls: string[];
  hosts: string[];
  /** Key → what it contributed; a tunnel is told when it opens, while bytes go through it, and when it ends. */
  exchanges: [key: string, cached: boolean, blocked: boolean, bytes: number][];
  incidents: [key: string, incident: Incident][];
}

export type SavedTabs = [id: number, tab: Tab][];

const MAX_TABS = 200;
const MAX_URLS = 500;
const MAX_HOSTS = 200;
const MAX_EXCHANGES = 1_000;
const MAX_INCIDENTS = 12;
/** A quick answer may be told before the browser has told of the request: it waits so long for it, and so many do. */
const EARLY: Milliseconds = 3_000;
const MAX_EARLY = 64;
export const NO_COUNTS: TabCounts = { requests: 0, cached: 0, blocked: 0, bytes: 0, incidents: [] };

export class TabTraffic {
  private readonly tabs: Map<number, Tab>;
  private early: { exchange: Exchange; at: EpochMilliseconds }[] = [];

  constructor(saved: SavedTabs = []) {
    this.tabs = new Map(saved);
  }

  save(): SavedTabs {
    return [...this.tabs];
  }

  /** The tab goes to a new document. */
  navigated(id: number, host: string, now: EpochMilliseconds): void {
    this.tabs.delete(id);
    this.tabs.set(id, { host, since: now, requests: 0, urls: [], hosts: [], exchanges: [], incidents: [] });
    if (this.tabs.size > MAX_TABS) this.tabs.delete(this.tabs.keys().next().value!);
  }

  closed(id: number): void {
    this.tabs.delete(id);
  }

  /** A tab asked for a URL that goes to the companion. True when its answer has been told already. */
  asked(id: number, url: string, host: string, now: EpochMilliseconds): boolean {
    const tab = this.tabs.get(id);
    if (!tab) return false;
    tab.requests++;
    if (!tab.hosts.includes(host)) push(tab.hosts, host, MAX_HOSTS);
    if (url.startsWith('http:')) push(tab.urls, url.replace(/#.*/s, ''), MAX_URLS);
    const waiting = this.early.filter(one => now - one.at < EARLY);
    this.early = waiting.filter(({ exchange }) => !this.claim(tab, exchange));
    return this.early.length < waiting.length;
  }

  /** Gives back the tabs that it belongs to. */
  ended(exchange: Exchange, now: EpochMilliseconds): number[] {
    const owners: number[] = [];
    for (const [id, tab] of this.tabs) {
      if (!this.claim(tab, exchange)) continue;
      owners.push(id);
      // A request has one tab; a tunnel may carry the requests of several.
      if (exchange.kind === 'http') break;
    }
    // A standing tunnel with its bytes so far has been told of before: it must not push out what waits.
    const goesOn = exchange.took === undefined && exchange.bytesUp + exchange.bytesDown > 0;
    if (owners.length === 0 && !goesOn) push(this.early, { exchange, at: now }, MAX_EARLY);
    return owners;
  }

  private claim(tab: Tab, exchange: Exchange): boolean {
    const key = keyOf(exchange);
    if (exchange.kind === 'http') {
      // Told again after the link was down: it is of the document before this one.
      if (exchange.startedAt < Math.floor(tab.since)) return false;
      const at = tab.urls.indexOf(exchange.url);
      if (at < 0) return false;
      tab.urls.splice(at, 1);
    } else {
      const known = tab.exchanges.some(([other]) => other === key);
      // A tunnel that stood before this document belongs to the one that opened it.
      if (!known && (!tab.hosts.includes(exchange.host) || exchange.startedAt < tab.since - EARLY)) return false;
    }
    const cached = isHit(exchange.cacheStatus);
    put(tab.exchanges, [key, cached, exchange.blockedBy !== undefined, exchange.bytesDown], MAX_EXCHANGES);
    if (exchange.blockedBy || exchange.sentence || exchange.attempts.length > 1) {
      const { host, blockedBy, sentence, attempts } = exchange;
      put(tab.incidents, [key, { host, blockedBy, sentence, attempts }], MAX_INCIDENTS);
    }
    return true;
  }

  /** Host of the document, as it was asked for (also where it did not load). */
  hostOf(id: number): string | null {
    return this.tabs.get(id)?.host ?? null;
  }

  countsOf(id: number): TabCounts {
    const tab = this.tabs.get(id);
    if (!tab) return NO_COUNTS;
    const seen = new Set<string>();
    return {
      requests: tab.requests,
      cached: tab.exchanges.filter(([, cached]) => cached).length,
      blocked: tab.exchanges.filter(([, , blocked]) => blocked).length,
      bytes: tab.exchanges.reduce((sum, [, , , bytes]) => sum + bytes, 0),
      // A page that asks a host twice has one thing to say about it.
      incidents: tab.incidents
        .map(([, incident]) => incident)
        .reverse()
        .filter(incident => {
          const key = `${incident.host} ${incident.sentence} ${incident.blockedBy?.rule}`;
          return !seen.has(key) && seen.add(key);
        }),
    };
  }
}

function push<T>(list: T[], item: T, most: number): void {
  list.push(item);
  if (list.length > most) list.shift();
}

/** The companion counts its exchanges anew at each start. */
function keyOf({ id, startedAt }: Exchange): string {
  return `${id}@${startedAt}`;
}

/** Replaces what has the same key, or adds it. */
function put<T extends [key: string, ...unknown[]]>(list: T[], item: T, most: number): void {
  const at = list.findIndex(([key]) => key === item[0]);
  if (at >= 0) list[at] = item;
  else push(list, item, most);
}
