// Wiring: settings, the link, the steering of this browser, the tabs, the popup. Every listener is registered at once, at the top level, as
// a worker that is woken by an event hears it only then.
import browser, { type Runtime } from 'webextension-polyfill';
import { defineBackground } from 'wxt/utils/define-background';
import { openTable, type OpenTable } from '../../shared/decision/compile-table.ts';
import type { Reply } from '../../shared/control.ts';
import { ControlClient, Refused } from '../control/control-client.ts';
import { type Answer, type View, WATCH_PORT, type Wish } from '../control/messages.ts';
import { DEFAULT_SETTINGS, type Settings } from '../settings/migrations.ts';
import {
  readSettings,
  readSnapshot,
  readSteering,
  readTabs,
  type SavedSteering,
  type Snapshot,
  writeSettings,
  writeSnapshot,
  writeSteering,
} from '../settings/settings.ts';
import { guardLocalNetwork, makeLocalNetworkGuard, type DynamicRules } from '../steering/local-network-guard.ts';
import { makeRequestSteering, RequestSteering } from '../steering/on-request.ts';
import { makePacSteering, type ProxyErrors, type ProxySettings } from '../steering/pac-settings.ts';
import type { SteeringAdapter } from '../steering/steering.ts';
import { clearedText } from '../popup/popup-state.ts';
import { watchTabs } from '../tabs/watch-tabs.ts';

const MAX_KNOWN_ROUTES = 200;
const RECONNECT = 'reconnect';
/** A test has all the time that the companion gives it. */
const TEST_WITHIN = 40_000;
/** Exchanges that may have ended while the link was down or the worker asleep. */
const MISSED_AT_MOST = 200;

export default defineBackground(() => {
  let settings: Settings = DEFAULT_SETTINGS;
  let steering: SavedSteering | null = null;
  let table: OpenTable | null = null;
  let snapshot: Snapshot = emptySnapshot();
  const watchers = new Map<Runtime.Port, number>();
  /** What was saved cannot be read: what was steered stays closed until the companion has told it again, or the master switch lets go. */
  let isDamaged = false;

  // Steering -----------------------------------------------------------------------------------------------------------------------------
  const requests = new RequestSteering();
  const adapter: SteeringAdapter = import.meta.env.FIREFOX
    ? makeRequestSteering(browser.proxy, requests, () => settings.pacMode)
    : makePacSteering(
        browser.proxy.settings as unknown as ProxySettings,
        (browser.proxy as unknown as { onProxyError: ProxyErrors }).onProxyError,
        makeLocalNetworkGuard((browser as unknown as { declarativeNetRequest: DynamicRules }).declarativeNetRequest),
      );
  if (import.meta.env.FIREFOX) guardLocalNetwork(browser, requests);
  adapter.watch({
    changed: () => void restored.then(() => steerOwner()),
    failed: problem => void restored.then(() => proxyFailed(problem)),
  });

  let applying: Promise<void> = Promise.resolve();
  let saveFault: string | null = null;
  /** Brings the browser to what settings and steering say, one change after the other. */
  const steer = (): Promise<void> => {
    applying = applying.then(async () => {
      let fault = saveFault;
      try {
        if (settings.master && steering) await adapter.apply(steering);
        else if (settings.master && isDamaged)
          fault =
            'What was saved of the sites cannot be read. What was steered stays closed until the companion answers.';
        else {
          isDamaged = false;
          await adapter.clear();
        }
      } catch (error) {
        fault = `The browser refused the setting: ${(error as Error).message}`;
      }
      update({ fault, taken: await whoHolds() });
    });
    return applying;
  };

  // What is remembered comes first; requests wait for it in Firefox, and the PAC is still in force in Chromium.
  const restore = async () => {
    const [savedSettings, savedSteering, savedSnapshot, savedTabs] = await Promise.all([
      readSettings(),
      readSteering(),
      // Less than these two is lost without them.
      readSnapshot().catch(() => null),
      readTabs().catch(() => []),
    ]);
    settings = savedSettings;
    if (savedSteering) {
      table = openTable(savedSteering.table);
      steering = savedSteering;
    }
    if (savedSnapshot) {
      snapshot = { ...emptySnapshot(), ...savedSnapshot, link: 'connecting' };
    }
    if (import.meta.env.FIREFOX) requests.use(settings.master ? steering : null);
    tabs.restore(savedTabs, snapshot.sites);
  };
  const restored = restore().catch((error: unknown) => {
    console.error('restoring:', error);
    isDamaged = true;
    requests.close();
  });
  requests.hold(restored);

  // The link -----------------------------------------------------------------------------------------------------------------------------
  const client = new ControlClient({
    where: () => ({ port: settings.port, token: settings.token }),
    onLink(link) {
      update({ link });
      tabs.refreshIcons();
    },
    onHello(hello) {
      // Paired anew: whatever this companion's file says is not used before the person says so.
      if (hello.token !== undefined) {
        change({ token: hello.token, port: pairingPort, confirmed: false }).catch((error: Error) =>
          update({ fault: `The pairing cannot be saved: ${error.message}` }),
        );
      }
      tabs.forgetWays();
      update({ state: hello.state, companionVersion: hello.version });
      current = { proxy: hello.proxy, pacUrl: hello.pacUrl };
      clientName = hello.client;
      void client.ask({ type: 'follow', recent: MISSED_AT_MOST }).catch(() => undefined);
      if (settings.confirmed) void askSteering();
      // What the browser said of the proxy while it was away is over.
      if (snapshot.fault !== null) void steer();
      refreshWatched();
    },
    onEvent(event) {
      if (event.type === 'state') {
        tabs.forgetWays();
        update({ state: event.state });
        refreshWatched();
      } else if (event.type === 'steering') {
        if (!settings.confirmed || !current) return;
        const told: SavedSteering = { ...event.steering, ...current };
        table = openTable(told.table);
        steering = told;
        isDamaged = false;
        tabs.forgetWays();
        // Saved before it is in force: what a browser that starts again steers by is never older than what it steered by.
        applying = applying.then(async () => {
          try {
            await writeSteering(told);
            saveFault = null;
          } catch (error) {
            saveFault = `The sites cannot be saved, so they hold only until the browser ends: ${(error as Error).message}`;
          }
        });
        void steer();
        refreshWatched();
        tabs.refreshIcons();
      } else if (event.type === 'exchange') {
        tabs.ended(event.exchange);
      }
    },
    onWrongVersion(version) {
      update({ companionVersion: version });
    },
    onUnpaired() {
      // What was steered stays so, and closed where the companion no longer carries it: only a person lets it go direct.
      change({ token: null }).then(
        () => update({}),
        (error: Error) => update({ fault: error.message }),
      );
    },
  });
  let current: Pick<SavedSteering, 'proxy' | 'pacUrl'> | null = null;
  let pairingPort = settings.port;
  let clientName: string | null = null;

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
    // The companion forgets the key, too, where it is there to be told; the link ends with it.
    if (client.link === 'up' && clientName !== null)
      client.ask({ type: 'unpair', name: clientName }).catch(() => undefined);
    client.drop();
    steering = null;
    table = null;
    isDamaged = false;
    await Promise.all([change({ token: null, confirmed: false }), writeSteering(null)]);
    await steer();
    update({ state: null });
    client.connect();
    tabs.refreshIcons();
  };

  // Tabs ---------------------------------------------------------------------------------------------------------------------------------
  const tabs = watchTabs(restored, {
    master: () => settings.master,
    table: () => table,
    snapshot: () => snapshot,
    async askSite(host) {
      if (client.link !== 'up') return null;
      const reply = await client.ask({ type: 'site', host });
      return reply.type === 'site' ? reply.answer : null;
    },
    changed: tabId => tell(tabId),
  });

  // The popup ----------------------------------------------------------------------------------------------------------------------------
  /** Tabs whose view is being made; true: with another change meanwhile. */
  const telling = new Map<number, boolean>();
  const tell = (tabId: number) => {
    const ports = () => [...watchers].flatMap(([port, watched]) => (watched === tabId ? [port] : []));
    if (telling.has(tabId)) return void telling.set(tabId, true);
    if (ports().length === 0) return;
    telling.set(tabId, false);
    void tabs
      .viewOf(tabId)
      .then(
        tab => {
          for (const port of ports()) port.postMessage({ snapshot, tab } satisfies View);
        },
        () => {},
      )
      .then(() => {
        const again = telling.get(tabId);
        telling.delete(tabId);
        if (again) tell(tabId);
      });
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
      sites: tabs.sites,
    };
    writeSnapshot(snapshot).catch((error: unknown) => console.error('snapshot:', error));
    refreshWatched();
  };

  browser.runtime.onConnect.addListener(port => {
    if (!port.name.startsWith(WATCH_PORT)) return;
    const tabId = Number(port.name.slice(WATCH_PORT.length));
    watchers.set(port, tabId);
    port.onDisconnect.addListener(() => watchers.delete(port));
    void restored.then(() => {
      client.connect();
      client.check();
      void steerOwner();
      tell(tabId);
    });
  });
  const proxyFailed = (problem: string) => {
    // A proxy that does not answer is the link's to tell; whatever else it is, a person should read it.
    if (/PROXY_CONNECTION_FAILED|TUNNEL_CONNECTION_FAILED/.test(problem)) client.check();
    else update({ fault: `The browser could not use the proxy: ${problem}.` });
  };
  const whoHolds = async () => (settings.master && steering ? adapter.takenBy().catch(() => null) : null);
  const steerOwner = async () => {
    const taken = await whoHolds();
    if (taken === snapshot.taken) return;
    update({ taken });
    tabs.refreshIcons();
  };

  browser.runtime.onMessage.addListener((message: unknown) =>
    restored
      .then(() => grant(message as Wish))
      .then(
        (said): Answer =>
          typeof said === 'object' ? { ok: true, reply: said } : { ok: true, said: said ?? undefined },
        (error: Error): Answer => ({
          ok: false,
          message: error.message,
          problems: error instanceof Refused ? error.problems : undefined,
        }),
      ),
  );

  const change = async (part: Partial<Settings>) => {
    settings = { ...settings, ...part };
    await writeSettings(settings);
  };
  const rememberRoute = (site: string) => {
    const route = snapshot.state?.sites.find(one => one.site === site)?.route;
    if (route === undefined || route === 'off' || route === 'block') return;
    const { [site]: _, ...others } = snapshot.lastRoutes;
    const kept = Object.entries(others).slice(1 - MAX_KNOWN_ROUTES);
    update({ lastRoutes: Object.fromEntries([...kept, [site, route]]) });
  };
  /** Gives back what is to be said of it, if anything; or the companion's reply. */
  const grant = async (wish: Wish): Promise<string | Reply | void> => {
    switch (wish.wish) {
      case 'ways':
        await client.attempt();
        return client.ask(wish.request, wish.request.type.startsWith('test-') ? TEST_WITHIN : undefined);
      case 'pair':
        pairingPort = wish.port;
        await client.pair(wish.port, wish.code);
        return update({});
      case 'use-these':
        await change({ confirmed: true });
        await askSteering();
        await steer();
        return update({});
      case 'set-site':
        await client.attempt();
        if (wish.route === 'off') rememberRoute(wish.site);
        await client.ask({ type: 'set-site', site: wish.site, route: wish.route });
        // The new steering came before the reply; the switch is on once the browser steers by it.
        await applying;
        return update({});
      case 'set-local':
        await client.attempt();
        await client.ask({ type: 'set-local', site: wish.site, local: wish.local });
        await applying;
        return update({});
      case 'set-cache':
        await client.attempt();
        await client.ask({ type: 'set-cache', site: wish.site, mode: wish.mode });
        return update({});
      case 'clear-cache': {
        await client.attempt();
        const reply = await client.ask({ type: 'cache-purge', which: { site: wish.site } });
        update({});
        return reply.type === 'cache-changed' ? clearedText(reply.count) : undefined;
      }
      case 'master': {
        // The switch does what it says also where it cannot be saved; then it says so.
        const saved = change({ master: wish.on });
        saved.catch(() => {});
        await steer();
        update({});
        tabs.refreshIcons();
        return saved;
      }
      case 'pac-mode':
        await change({ pacMode: wish.on });
        await steer();
        return update({});
      case 'port':
        client.drop();
        await change({ port: wish.port });
        client.connect();
        return update({});
      case 'pair-again':
        client.drop();
        await change({ token: null });
        client.connect();
        return update({});
      case 'forget':
        return forget();
      case 'retry':
        await client.attempt();
        return;
    }
  };

  // Start --------------------------------------------------------------------------------------------------------------------------------
  void browser.alarms.create(RECONNECT, { periodInMinutes: 0.5 });
  browser.alarms.onAlarm.addListener(() => void restored.then(() => client.connect()));
  // What an older version set stays until a newer one sets its own.
  browser.runtime.onInstalled.addListener(() => {
    adapter.anew?.();
    void restored.then(() => steer());
  });
  // Wakes the worker when the browser starts.
  browser.runtime.onStartup.addListener(() => {});
  void restored.then(async () => {
    update({});
    await steer();
    client.connect();
    tabs.refreshIcons();
  });

  function emptySnapshot(): Snapshot {
    const { token, ...rest } = DEFAULT_SETTINGS;
    return {
      link: 'connecting',
      state: null,
      settings: { ...rest, paired: token !== null },
      taken: null,
      fault: null,
      sites: {},
      lastRoutes: {},
      companionVersion: null,
    };
  }
});
