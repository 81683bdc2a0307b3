// What each tab asked for and what came of it. The companion knows no tabs, so its exchanges are matched to the tabs that asked: plain http by the
// exact URL, tunnels by the host. Pure; bounded; the whole of it fits JSON, so that a sleeping worker loses nothing.
import type { Because } from '../../shared/decision/rule.ts';
import type { Attempt, Exchange } from '../../shared/exchange.ts';

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
  requests: number;
  urls: string[];
  hosts: string[];
  /** Id → what it contributed; a tunnel is told twice, when it opens and when it ends. */
  exchanges: [id: number, cached: boolean, blocked: boolean, bytes: number][];
  incidents: [id: number, incident: Incident][];
}

export type SavedTabs = [id: number, tab: Tab][];

const MAX_TABS = 200;
const MAX_URLS = 500;
const MAX_HOSTS = 200;
const MAX_EXCHANGES = 1_000;
const MAX_INCIDENTS = 12;
export const NO_COUNTS: TabCounts = { requests: 0, cached: 0, blocked: 0, bytes: 0, incidents: [] };

export class TabTraffic {
  private readonly tabs = new Map<number, Tab>();

  constructor(saved: SavedTabs = []) {
    this.tabs = new Map(saved);
  }

  save(): SavedTabs {
    return [...this.tabs];
  }

  /** The tab goes to a new document. */
  navigated(id: number, host: string): void {
    this.tabs.delete(id);
    this.tabs.set(id, { host, requests: 0, urls: [], hosts: [], exchanges: [], incidents: [] });
    if (this.tabs.size > MAX_TABS) this.tabs.delete(this.tabs.keys().next().value!);
  }

  closed(id: number): void {
    this.tabs.delete(id);
  }

  /** A tab asked for a URL that goes to the companion. */
  asked(id: number, url: string, host: string): void {
    const tab = this.tabs.get(id);
    if (!tab) return;
    tab.requests++;
    push(tab.urls, url.replace(/#.*/s, ''), MAX_URLS);
    if (!tab.hosts.includes(host)) push(tab.hosts, host, MAX_HOSTS);
  }

  /** Gives back the tabs that it belongs to. */
  ended(exchange: Exchange): number[] {
    const owners: number[] = [];
    for (const [id, tab] of this.tabs) {
      const isOurs = exchange.kind === 'http' ? tab.urls.includes(exchange.url) : tab.hosts.includes(exchange.host);
      if (!isOurs) continue;
      owners.push(id);
      const cached = exchange.cacheStatus?.startsWith('hit') ?? false;
      put(tab.exchanges, [exchange.id, cached, exchange.blockedBy !== undefined, exchange.bytesDown], MAX_EXCHANGES);
      if (exchange.blockedBy || exchange.sentence || exchange.attempts.length > 1) {
        const { host, blockedBy, sentence, attempts } = exchange;
        put(tab.incidents, [exchange.id, { host, blockedBy, sentence, attempts }], MAX_INCIDENTS);
      }
    }
    return owners;
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

/** Replaces what has the same id, or adds it. */
function put<T extends [id: number, ...unknown[]]>(list: T[], item: T, most: number): void {
  const at = list.findIndex(([id]) => id === item[0]);
  if (at >= 0) list[at] = item;
  else push(list, item, most);
}
