// Wiring of the popup: paints from the last snapshot, then follows the background.
import { render } from 'preact';
import browser from 'webextension-polyfill';
import { type Answer, type TabView, type View, WATCH_PORT, type Wish } from '../../control/messages.ts';
import { entryFor, entryOf } from '../../popup/popup-state.ts';
import { Popup } from '../../popup/popup-view.tsx';
import { readSnapshot, readTabs, type Snapshot } from '../../settings/settings.ts';
import { DEFAULT_SETTINGS } from '../../settings/migrations.ts';
import { TabTraffic } from '../../tabs/tab-traffic.ts';
import { hostOf } from '../../tabs/web-host.ts';

const ask = (wish: Wish): Promise<Answer> =>
  browser.runtime.sendMessage(wish).then(
    answer => answer as Answer,
    (error: Error): Answer => ({ ok: false, message: error.message }),
  );

const draw = (view: View) =>
  render(
    <Popup
      view={view}
      ask={ask}
      openOptions={() => {
        void browser.runtime.openOptionsPage();
        window.close();
      }}
      reload={() => {
        void browser.tabs.reload(tab.id);
        window.close();
      }}
    />,
    document.getElementById('app')!,
  );

async function watchedTab(): Promise<{ id: number; url: string }> {
  // `?tab=7` lets the popup speak of another tab than the active one, where it is opened as a page.
  const wanted = new URLSearchParams(location.search).get('tab');
  const tab =
    wanted === null
      ? (await browser.tabs.query({ active: true, currentWindow: true }))[0]
      : await browser.tabs.get(Number(wanted));
  return { id: tab?.id ?? -1, url: tab?.url ?? '' };
}

const blank: Snapshot = {
  link: 'connecting',
  state: null,
  settings: { ...DEFAULT_SETTINGS, paired: false },
  taken: null,
  fault: null,
  sites: {},
  lastRoutes: {},
  companionVersion: null,
};

const [snapshot, tab, tabs] = await Promise.all([readSnapshot(), watchedTab(), readTabs()]);
const host = hostOf(tab.url);
const known = { ...blank, ...snapshot };
const site = Object.hasOwn(known.sites, host) ? known.sites[host]! : host;
const entry = entryFor(host, known.state);
const first: TabView = {
  host,
  site,
  entry: entryOf(host, site, null, known.state),
  steered: entry ? entry.route !== 'off' && entry.route !== 'block' : null,
  blocked: entry?.route === 'block',
  route: entry?.route ?? null,
  local: entry && entry.route !== 'off' && entry.route !== 'block' ? entry.local === true : null,
  cache: entry?.cache ?? null,
  siteCounts: null,
  because: entry ? `sites.${entry.site}` : null,
  counts: new TabTraffic(tabs).countsOf(tab.id),
};
// What was true when it was last open is painted at once, but a link that nobody has looked at yet is not called up.
draw({ snapshot: { ...known, link: known.link === 'up' ? 'connecting' : known.link }, tab: first });

function follow(): void {
  const port = browser.runtime.connect({ name: `${WATCH_PORT}${tab.id}` });
  port.onMessage.addListener(message => draw(message as View));
  // The worker went to sleep or was replaced: ask it again.
  port.onDisconnect.addListener(() => setTimeout(follow, 200));
}
follow();
