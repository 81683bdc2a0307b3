// Wiring: settings, the link, the steering of this browser, the tabs, the popup. Every listener is registered at once, at the top level, as
// a worker that is woken by an event hears it only then.
import browser, { type Runtime } from 'webextension-polyfill';
import { defineBackground } from 'wxt/utils/define-background';
import { openTable, type OpenTable } from '../../shared/decision/compile-table.ts';
import { ControlClient } from '../control/control-client.ts';
import { type Answer, type TabView, type View, WATCH_PORT, type Wish } from '../control/messages.ts';
import { DEFAULT_SETTINGS, type Settings } from '../settings/migrations.ts';
import {
  readSettings,
  readSnapshot,
  readSteering,
  type SavedSteering,
  type Snapshot,
  writeSettings,
  writeSnapshot,
  writeSteering,
} from '../settings/settings.ts';
import { guardLocalNetwork, makeLocalNetworkRule, type DynamicRules } from '../steering/local-network-guard.ts';
import { makeRequestSteering, RequestSteering } from '../steering/on-request.ts';
import { makePacSteering, type ProxySettings } from '../steering/pac-settings.ts';
import type { SteeringAdapter } from '../steering/steering.ts';
import { type Look, showIcon, titleOf } from '../tabs/icon.ts';
import { type SavedTabs, TabTraffic } from '../tabs/tab-traffic.ts';

const MAX_KNOWN_SITES = 200;
const RECONNECT = 'reconnect';

export default defineBackground(() => {
  let settings: Settings = DEFAULT_SETTINGS;
  let steering: SavedSteering | null = null;
  let table: OpenTable | null = null;
  let snapshot: Snapshot = emptySnapshot();
  let tabs = new TabTraffic();
  const sites = new Map<string, string>();
  /** Decisions by host, as the companion gave them under the configuration of now. */
  const ways = new Map<string, { site: string; steered: boolean; blocked: boolean; route: string; because: string }>();
  const watchers = new Map<Runtime.Port, number>();

  // Steering -----------------------------------------------------------------------------------------------------------------------------
  const requests = new RequestSteering();
  const adapter: SteeringAdapter = import.meta.env.FIREFOX
    ? makeRequestSteering(browser.proxy, requests, () => settings.pacMode)
    : makePacSteering(
        browser.proxy.settings as unknown as ProxySettings,
        makeLocalNetworkRule((browser as unknown as { declarativeNetRequest: DynamicRules }).declarativeNetRequest),
        saved => openTable(saved.table).hosts(),
      );
  if (import.meta.env.FIREFOX) guardLocalNetwork(browser, host => requests.steers(host));

  let applying: Promise<void> = Promise.resolve();
  /** Brings the browser to what settings and steering say, one change after the other. */
  const steer = (): Promise<void> => {
    applying = applying
      .then(async () => {
        if (settings.confirmed && settings.master && steering) await adapter.apply(steering);
        else await adapter.clear();
      })
      .catch((error: unknown) => console.error('steering:', error))
      .then(async () => {
        const taken = settings.confirmed && settings.master ? await adapter.takenBy().catch(() => null) : null;
        update({ taken });
      });
    return applying;
  };

  // What is remembered comes first; requests wait for it in Firefox, and the PAC is still in force in Chromium.
  const restored = (async () => {
    const [savedSettings, savedSteering, savedSnapshot] = await Promise.all([
      readSettings(),
      readSteering(),
      readSnapshot(),
    ]);
    settings = savedSettings;
    steering = savedSteering;
    if (steering) table = openTable(steering.table);
    if (savedSnapshot) {
      for (const [host, site] of Object.entries(savedSnapshot.sites ?? {})) sites.set(host, site);
      snapshot = { ...savedSnapshot, link: 'connecting' };
    }
    if (import.meta.env.FIREFOX) requests.use(settings.confirmed && settings.master ? steering : null);
    const session = (browser.storage as { session?: typeof browser.storage.local }).session;
    const saved = session ? ((await session.get('tabs').catch(() => ({}))) as { tabs?: SavedTabs }) : {};
    tabs = new TabTraffic(saved.tabs);
  })();
  requests.hold(restored);

  // The link -----------------------------------------------------------------------------------------------------------------------------
  const client = new ControlClient({
    where: () => ({ port: settings.port, token: settings.token }),
    onLink(link) {
      update({ link });
      refreshIcons();
    },
    onHello(hello) {
      if (hello.token !== undefined) {
        settings = { ...settings, token: hello.token };
        void writeSettings(settings);
      }
      ways.clear();
      update({ state: hello.state, companionVersion: hello.version });
      current = { proxy: hello.proxy, pacUrl: hello.pacUrl };
      void follow();
      if (settings.confirmed) void askSteering();
      refreshWatched();
    },
    onEvent(event) {
      if (event.type === 'state') {
        ways.clear();
        update({ state: event.state });
        refreshWatched();
      } else if (event.type === 'steering') {
        if (!settings.confirmed || !current) return;
        steering = { ...event.steering, ...current };
        table = openTable(steering.table);
        void writeSteering(steering);
        ways.clear();
        void steer();
        refreshWatched();
        refreshIcons();
      } else if (event.type === 'exchange') {
        for (const tabId of tabs.ended(event.exchange, Date.now())) {
          tell(tabId);
          void refreshIcon(tabId);
        }
        saveTabsSoon();
      }
    },
    onUnpaired() {
      void forget();
    },
  });
  let current: Pick<SavedSteering, 'proxy' | 'pacUrl'> | null = null;

  const follow = () => client.ask({ type: 'follow', recent: 0 }).catch(() => undefined);
  const askSteering = () =>
    client
      .ask({ type: 'steer', dialect: adapter.dialect, hash: sameProxy() ? steering?.hash : undefined })
      .catch(() => undefined);
  /** A hash is worth something only for the same companion at the same place. */
  const sameProxy = () =>
    steering !== null &&
    current !== null &&
    steering.proxy.port === current.proxy.port &&
    steering.pacUrl === current.pacUrl;

  const forget = async (): Promise<void> => {
    client.drop();
    settings = { ...settings, token: null, confirmed: false };
    steering = null;
    table = null;
    await Promise.all([writeSettings(settings), writeSteering(null)]);
    await steer();
    update({ state: null, link: 'not-paired' });
    refreshIcons();
  };

  // Tabs ---------------------------------------------------------------------------------------------------------------------------------
  browser.webRequest.onBeforeRequest.addListener(
    details => {
      if (details.tabId < 0) return;
      void restored.then(() => {
        const host = hostOf(details.url);
        if (details.type === 'main_frame') {
          tabs.navigated(details.tabId, host, details.timeStamp);
          void refreshIcon(details.tabId);
        }
        const goesThere = table !== null && settings.master && settings.confirmed && table.lookup(host) !== 'direct';
        if (goesThere && tabs.asked(details.tabId, details.url, host, Date.now())) void refreshIcon(details.tabId);
        saveTabsSoon();
        tell(details.tabId);
      });
    },
    { urls: ['<all_urls>'] },
  );
  browser.tabs.onRemoved.addListener(id => void restored.then(() => tabs.closed(id)));
  browser.tabs.onUpdated.addListener((id, change) => {
    if (change.status !== undefined || change.url !== undefined) void restored.then(() => refreshIcon(id));
  });

  let saving: ReturnType<typeof setTimeout> | undefined;
  const saveTabsSoon = () => {
    const session = (browser.storage as { session?: typeof browser.storage.local }).session;
    if (!session || saving !== undefined) return;
    saving = setTimeout(() => {
      saving = undefined;
      void session.set({ tabs: tabs.save() }).catch(() => {});
    }, 300);
  };

  const lookOf = (host: string, tabId: number): Look => {
    if (!settings.master) return 'off';
    if (host === '' || table === null || !settings.confirmed) return 'direct';
    const word = table.lookup(host);
    if (word === 'direct') return 'direct';
    if (
      word === 'blocked' ||
      tabs.countsOf(tabId).incidents.some(incident => incident.host === host && incident.blockedBy)
    )
      return 'blocked';
    return client.link === 'up' ? 'steered' : 'down';
  };
  const refreshIcon = async (tabId: number): Promise<void> => {
    const host = tabs.hostOf(tabId) ?? hostOf((await browser.tabs.get(tabId).catch(() => null))?.url);
    const look = lookOf(host, tabId);
    const counts = tabs.countsOf(tabId);
    let route: string | null = null;
    if (look === 'steered' || look === 'blocked') {
      const way = await wayOf(host);
      route = way?.route ?? null;
      if (look === 'blocked' && way?.blocked && !counts.incidents.some(one => one.blockedBy)) {
        return showIcon(tabId, look, `${host} is blocked by ${way.because}`);
      }
    }
    return showIcon(tabId, look, titleOf(look, host, route, counts));
  };
  const refreshIcons = () => {
    void browser.tabs.query({}).then(all => {
      for (const tab of all) if (tab.id !== undefined) void refreshIcon(tab.id);
    });
  };

  /** What the companion says of a host; from memory where it has been asked under the same configuration. */
  const wayOf = async (host: string) => {
    const known = ways.get(host);
    if (known) return known;
    if (client.link !== 'up' || host === '') return null;
    try {
      const reply = await client.ask({ type: 'site', host });
      if (reply.type !== 'site') return null;
      const { site, decision } = reply.answer;
      const way = {
        site,
        steered: decision.steered,
        blocked: decision.steered && decision.blockedBy !== undefined,
        route: decision.steered ? decision.route : '',
        because: decision.because.list
          ? `${decision.because.rule} (${decision.because.list}, line ${decision.because.line})`
          : decision.because.rule,
      };
      ways.set(host, way);
      sites.delete(host);
      sites.set(host, site);
      if (sites.size > MAX_KNOWN_SITES) sites.delete(sites.keys().next().value!);
      return way;
    } catch {
      return null;
    }
  };

  // The popup ----------------------------------------------------------------------------------------------------------------------------
  const viewOf = async (tabId: number): Promise<TabView> => {
    // The settings page speaks of no tab, and Firefox throws for a number that none can have.
    const tab = tabId < 0 ? null : await browser.tabs.get(tabId).catch(() => null);
    const host = hostOf(tab?.url) || (isWeb(tab?.url) ? '' : (tabs.hostOf(tabId) ?? ''));
    const way = await wayOf(host);
    const word = table && settings.confirmed && host !== '' ? table.lookup(host) : null;
    return {
      host,
      site: way?.site ?? sites.get(host) ?? host,
      steered: way ? way.steered && !way.blocked : word === null ? null : word === 'steered',
      blocked: way ? way.blocked : word === 'blocked',
      route: way?.steered ? way.route : null,
      because: way?.because ?? null,
      counts: tabs.countsOf(tabId),
    };
  };
  const tell = (tabId: number) => {
    for (const [port, watched] of watchers) {
      if (watched === tabId)
        void viewOf(tabId).then(
          tab => port.postMessage({ snapshot, tab } satisfies View),
          () => {},
        );
    }
  };
  const refreshWatched = () => {
    for (const tabId of new Set(watchers.values())) tell(tabId);
  };
  const update = (change: Partial<Snapshot>) => {
    const { token, ...rest } = settings;
    snapshot = {
      ...snapshot,
      ...change,
      settings: { ...rest, paired: token !== null },
      sites: Object.fromEntries(sites),
    };
    void writeSnapshot(snapshot);
    refreshWatched();
  };

  browser.runtime.onConnect.addListener(port => {
    if (!port.name.startsWith(WATCH_PORT)) return;
    const tabId = Number(port.name.slice(WATCH_PORT.length));
    watchers.set(port, tabId);
    port.onDisconnect.addListener(() => watchers.delete(port));
    void restored.then(() => {
      client.connect();
      void steerOwner();
      tell(tabId);
    });
  });
  const steerOwner = async () => {
    if (settings.confirmed && settings.master) update({ taken: await adapter.takenBy().catch(() => null) });
  };

  browser.runtime.onMessage.addListener((message: unknown) =>
    restored
      .then(() => grant(message as Wish))
      .then(
        (): Answer => ({ ok: true }),
        (error: Error): Answer => ({ ok: false, message: error.message }),
      ),
  );

  const change = async (part: Partial<Settings>) => {
    settings = { ...settings, ...part };
    await writeSettings(settings);
  };
  const grant = async (wish: Wish): Promise<void> => {
    switch (wish.wish) {
      case 'pair':
        await change({ port: wish.port });
        await client.pair(wish.port, wish.code);
        return update({});
      case 'use-these':
        await change({ confirmed: true });
        await askSteering();
        await steer();
        return update({});
      case 'set-site':
        await client.ask({ type: 'set-site', site: wish.site, route: wish.route });
        // The new steering came before the reply; the switch is on once the browser steers by it.
        await applying;
        return update({});
      case 'master':
        await change({ master: wish.on });
        await steer();
        update({});
        return refreshIcons();
      case 'pac-mode':
        await change({ pacMode: wish.on });
        await steer();
        return update({});
      case 'port':
        client.drop();
        await change({ port: wish.port });
        client.connect();
        return update({});
      case 'forget':
        return forget();
      case 'retry':
        client.connect();
        return;
    }
  };

  // Start --------------------------------------------------------------------------------------------------------------------------------
  void browser.alarms.create(RECONNECT, { periodInMinutes: 0.5 });
  browser.alarms.onAlarm.addListener(() => void restored.then(() => client.connect()));
  browser.runtime.onStartup.addListener(() => {});
  void restored.then(async () => {
    update({});
    await steer();
    client.connect();
    refreshIcons();
  });

  function emptySnapshot(): Snapshot {
    const { token, ...rest } = DEFAULT_SETTINGS;
    return {
      link: 'connecting',
      state: null,
      settings: { ...rest, paired: token !== null },
      taken: null,
      sites: {},
      companionVersion: null,
    };
  }
});

const isWeb = (url: string | undefined) => url !== undefined && /^(https?|wss?):/.test(url);

/** The host of a web page's URL; empty for any other. */
function hostOf(url: string | undefined): string {
  if (!isWeb(url)) return '';
  try {
    return new URL(url!).hostname.replace(/\.$/, '');
  } catch {
    return '';
  }
}
