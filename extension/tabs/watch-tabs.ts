// The tabs: what each asked for, how its icon looks, and what the popup says of it. The browser's events come in here; what a host's
// decision is the companion tells (through what is handed in), and the steering table until it has.
import browser from 'webextension-polyfill';
import type { OpenTable } from '../../shared/decision/compile-table.ts';
import type { SiteAnswer } from '../../shared/control.ts';
import type { CacheMode } from '../../shared/decision/rule.ts';
import type { Exchange, SiteCounts } from '../../shared/exchange.ts';
import type { TabView } from '../control/messages.ts';
import { entryOf } from '../popup/popup-state.ts';
import { type Snapshot, writeTabs } from '../settings/settings.ts';
import { type Look, showBadge, showIcon, titleOf } from './icon.ts';
import { type SavedTabs, TabTraffic } from './tab-traffic.ts';
import { hostOf, isWeb } from './web-host.ts';

const MAX_KNOWN_SITES = 200;
const SAVE_AFTER = 300;
/** A view waits so long for the counters of its site; then it shows those of before. */
const COUNTS_WITHIN = 500;

/** What the tabs need to know of the rest, as it is now. */
export interface Surroundings {
  master(): boolean;
  table(): OpenTable | null;
  snapshot(): Snapshot;
  /** What the companion says of a host; null where it cannot be asked. May reject. */
  askSite(host: string): Promise<SiteAnswer | null>;
  /** What is to be said of a tab has changed. */
  changed(tabId: number): void;
}

export interface Tabs {
  /** Registrable domains by host, of hosts that were asked for lately. */
  readonly sites: Readonly<Record<string, string>>;
  restore(saved: SavedTabs, sites: Readonly<Record<string, string>> | undefined): void;
  /** An exchange has ended (or a tunnel opened). */
  ended(exchange: Exchange): void;
  /** The configuration is another: the companion has to be asked again. */
  forgetWays(): void;
  refreshIcons(): void;
  viewOf(tabId: number): Promise<TabView>;
}

/** What the companion said of a host. */
interface Way {
  readonly site: string;
  readonly steered: boolean;
  readonly blocked: boolean;
  readonly route: string;
  readonly local: boolean;
  readonly cache: CacheMode | null;
  readonly because: string;
}

/** Registers the browser's listeners at once; what they hear waits until `restored`. */
export function watchTabs(restored: Promise<void>, around: Surroundings): Tabs {
  let traffic = new TabTraffic();
  const sites = new Map<string, string>();
  /** Under the configuration of now. */
  const ways = new Map<string, Way>();

  browser.webRequest.onBeforeRequest.addListener(
    details => {
      if (details.tabId < 0) return;
      void restored.then(() => {
        const host = hostOf(details.url);
        if (details.type === 'main_frame') {
          traffic.navigated(details.tabId, host, details.timeStamp);
          void refreshIcon(details.tabId);
        }
        const table = around.table();
        const goesThere = table !== null && host !== '' && around.master() && table.lookup(host) !== 'direct';
        if (goesThere && traffic.asked(details.tabId, details.url, host, Date.now())) void refreshIcon(details.tabId);
        saveSoon();
        around.changed(details.tabId);
      });
    },
    { urls: ['<all_urls>'] },
  );
  browser.tabs.onRemoved.addListener(id => void restored.then(() => traffic.closed(id)));
  browser.tabs.onUpdated.addListener((id, change) => {
    if (change.status === undefined && change.url === undefined) return;
    void restored.then(() => {
      void refreshIcon(id);
      around.changed(id);
    });
  });

  let saving: ReturnType<typeof setTimeout> | undefined;
  const saveSoon = () => {
    saving ??= setTimeout(() => {
      saving = undefined;
      writeTabs(traffic.save()).catch((error: unknown) => console.error('tabs:', error));
    }, SAVE_AFTER);
  };

  const lookOf = (host: string, tabId: number): Look => {
    const table = around.table();
    if (!around.master()) return 'off';
    if (host === '' || table === null) return 'direct';
    const word = table.lookup(host);
    if (word === 'direct') return 'direct';
    if (
      word === 'blocked' ||
      traffic.countsOf(tabId).incidents.some(incident => incident.host === host && incident.blockedBy)
    )
      return 'blocked';
    const { taken, fault, link } = around.snapshot();
    if (taken !== null || fault !== null) return 'down';
    return link === 'up' || link === 'connecting' ? 'steered' : 'down';
  };
  const refreshIcon = async (tabId: number): Promise<void> => {
    const host = traffic.hostOf(tabId) ?? hostOf((await browser.tabs.get(tabId).catch(() => null))?.url);
    const look = lookOf(host, tabId);
    const counts = traffic.countsOf(tabId);
    let route: string | null = null;
    void showBadge(tabId, counts.blocked);
    if (look === 'steered' || look === 'blocked') {
      const way = await wayOf(host);
      route = way?.route ?? null;
      if (look === 'blocked' && way?.blocked && !counts.incidents.some(one => one.blockedBy)) {
        return showIcon(tabId, look, `${host} is blocked by ${way.because}`);
      }
    }
    const { taken, fault } = around.snapshot();
    const trouble = taken ?? fault;
    if (look === 'down' && trouble !== null) return showIcon(tabId, look, `${host} should be steered, but: ${trouble}`);
    return showIcon(tabId, look, titleOf(look, host, route, counts));
  };

  /** What the companion says of a host; from memory where it has been asked under the same configuration. */
  const wayOf = async (host: string): Promise<Way | null> => {
    const known = ways.get(host);
    if (known) return known;
    if (host === '') return null;
    try {
      const answer = await around.askSite(host);
      if (answer === null) return null;
      const { site, decision } = answer;
      const way = {
        site,
        steered: decision.steered,
        blocked: decision.steered && decision.blockedBy !== undefined,
        route: decision.steered ? decision.route : '',
        local: decision.steered && decision.local === true,
        cache: decision.steered ? decision.cache : null,
        because: decision.because.list
          ? `${decision.because.rule} (${decision.because.list}, line ${decision.because.line})`
          : decision.because.rule,
      };
      if (ways.size >= MAX_KNOWN_SITES) ways.clear();
      ways.set(host, way);
      sites.delete(host);
      sites.set(host, site);
      if (sites.size > MAX_KNOWN_SITES) sites.delete(sites.keys().next().value!);
      return way;
    } catch {
      return null;
    }
  };

  let lastCounts: { host: string; counts: SiteCounts } | null = null;
  const siteCountsOf = async (host: string): Promise<SiteCounts | null> => {
    const asking = around.askSite(host).then(answer => {
      if (answer !== null) lastCounts = { host, counts: answer.counts };
    });
    await Promise.race([asking.catch(() => undefined), new Promise(resolve => setTimeout(resolve, COUNTS_WITHIN))]);
    return lastCounts?.host === host ? lastCounts.counts : null;
  };

  return {
    get sites() {
      return Object.fromEntries(sites);
    },
    restore(saved, knownSites) {
      traffic = new TabTraffic(saved);
      for (const [host, site] of Object.entries(knownSites ?? {})) sites.set(host, site);
    },
    ended(exchange) {
      for (const tabId of traffic.ended(exchange, Date.now())) {
        around.changed(tabId);
        void refreshIcon(tabId);
      }
      saveSoon();
    },
    forgetWays: () => ways.clear(),
    refreshIcons() {
      void browser.tabs.query({}).then(all => {
        for (const tab of all) if (tab.id !== undefined) void refreshIcon(tab.id);
      });
    },
    async viewOf(tabId) {
      // The settings page speaks of no tab, and Firefox throws for a number that none can have.
      const tab = tabId < 0 ? null : await browser.tabs.get(tabId).catch(() => null);
      const host = hostOf(tab?.url) || (isWeb(tab?.url) ? '' : (traffic.hostOf(tabId) ?? ''));
      const way = await wayOf(host);
      const table = around.table();
      const word = table && host !== '' ? table.lookup(host) : null;
      const site = way?.site ?? sites.get(host) ?? host;
      return {
        host,
        site,
        entry: entryOf(host, site, way?.because ?? null, around.snapshot().state),
        steered: way ? way.steered && !way.blocked : word === null ? null : word === 'steered',
        blocked: way ? way.blocked : word === 'blocked',
        route: way?.steered ? way.route : null,
        local: way?.steered && !way.blocked ? way.local : null,
        cache: way?.steered && !way.blocked ? way.cache : null,
        siteCounts: way?.steered && !way.blocked ? await siteCountsOf(host) : null,
        because: way?.because ?? null,
        counts: traffic.countsOf(tabId),
      };
    },
  };
}
