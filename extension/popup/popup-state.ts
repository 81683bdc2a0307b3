// What the popup shows, from what is known: pure, so that each state can be looked at without a browser.
import type { ConfigState, SiteState } from '../../shared/control.ts';
import type { CacheMode } from '../../shared/decision/rule.ts';
import type { SiteCounts } from '../../shared/exchange.ts';
import { formatBytes } from '../../shared/units.ts';
import type { View } from '../control/messages.ts';
import { splitHost } from '../../shared/site.ts';

export type Screen =
  /** `closed`: sites that were on are still steered, and so closed, until it is paired again. */
  | { readonly screen: 'pair'; readonly found: boolean; readonly closed: boolean }
  | {
      readonly screen: 'use-these';
      readonly sites: readonly SiteState[];
      readonly routes: readonly string[];
      readonly rules: number;
      readonly lists: readonly { file: string; route: string }[];
    }
  | { readonly screen: 'wrong-version'; readonly version: string | null }
  | ({ readonly screen: 'main' } & Main);

export interface Main {
  readonly before: string;
  readonly site: string;
  /** What the switch changes in the file. */
  readonly entry: string;
  /** Why there is no switch for this page; null where there is one. */
  readonly notSteerable: string | null;
  readonly on: boolean;
  readonly blocked: boolean;
  /** Greyed: nobody could carry the wish out. */
  readonly disabled: boolean;
  readonly route: string;
  readonly routes: readonly string[];
  readonly hint: string;
  /** Whether its pages may reach this machine and its network; null where the file's entry is not what decides. */
  readonly local: boolean | null;
  /** How answers are cached and what came of it; null where the file's entry is not what decides. */
  readonly cache: { readonly mode: CacheMode; readonly figures: string | null } | null;
}

/** Modes in the order in which they are offered, with what they are called. */
export const CACHE_MODES: readonly (readonly [CacheMode, string])[] = [
  ['standard', 'Standard'],
  ['aggressive', 'Aggressive'],
  ['offline-first', 'Offline first'],
  ['off', 'Off'],
];

/** `wantedRoute`: chosen in the selector while the site is off. */
export function screenOf(view: View, wantedRoute: string | null): Screen {
  const { snapshot, tab } = view;
  const { settings, link, state } = snapshot;
  if (link === 'wrong-version') return { screen: 'wrong-version', version: snapshot.companionVersion };
  if (!settings.paired)
    return { screen: 'pair', found: link !== 'not-found', closed: settings.confirmed && settings.master };
  if (!settings.confirmed) {
    return {
      screen: 'use-these',
      sites: state?.sites ?? [],
      routes: state?.routes.filter(route => route !== 'companion') ?? [],
      rules: state?.rules ?? 0,
      lists: state?.lists ?? [],
    };
  }
  const notSteerable = reasonAgainst(tab.host);
  const { before, site } = splitHost(tab.host, tab.site);
  const on = tab.steered === true;
  const routes = state?.routes ?? ['companion'];
  const last = Object.hasOwn(snapshot.lastRoutes, tab.entry) ? snapshot.lastRoutes[tab.entry] : undefined;
  const again = last !== undefined && routes.includes(last) ? last : null;
  const route = (on ? tab.route : wantedRoute) ?? wantedRoute ?? again ?? state?.default ?? 'companion';
  return {
    screen: 'main',
    before,
    site,
    entry: tab.entry,
    notSteerable,
    on,
    blocked: tab.blocked,
    disabled: isAway(link) || !settings.master || notSteerable !== null || tab.blocked,
    route,
    routes: routes.includes(route) ? routes : [...routes, route],
    hint: hintOf(view, on),
    local: on && tab.because === `sites.${tab.entry}` ? tab.local : null,
    cache:
      on && tab.cache !== null && tab.because === `sites.${tab.entry}`
        ? { mode: tab.cache, figures: tab.siteCounts && figuresText(tab.siteCounts) }
        : null,
  };
}

/** What the cache has done for a site. */
export function figuresText({ lookups, cached, bytesSaved }: SiteCounts): string {
  if (lookups === 0) return 'Nothing of it could be cached yet. What comes by https cannot be.';
  // A number and its unit stay on one line.
  const together = (text: string) => text.replace(' ', '\u00a0');
  const rate = together(`${Math.round((100 * cached) / lookups)} %`);
  return `${rate} of ${lookups} from the cache, ${together(formatBytes(bytesSaved))} saved.`;
}

/** What is said of copies that were cleared. */
export function clearedText(count: number): string {
  if (count === 0) return 'There were no cached copies.';
  return count === 1 ? 'One cached copy cleared.' : `${count} cached copies cleared.`;
}

function hintOf({ snapshot: { link, settings }, tab }: View, on: boolean): string {
  if (!settings.master) return 'Detour is off. Every site goes direct.';
  if (tab.blocked) return `Blocked by ${tab.because ?? 'your rules'}.`;
  if (on) {
    if (isAway(link)) return 'On, but the companion is away: the site does not load until it is back.';
    return tab.because !== null && tab.because !== `sites.${tab.site}`
      ? `On, by ${tab.because}.`
      : 'On. Its subdomains go along.';
  }
  return isAway(link) ? 'The companion is away.' : 'Off. It goes the browser’s own way.';
}

/** A link that is just being made holds nobody up: what is wished waits for it. */
function isAway(link: View['snapshot']['link']): boolean {
  return link !== 'up' && link !== 'connecting';
}

/** The entry among the sites of the file that decides a host (shared/decision says it finally; this paints before it has). */
export function entryFor(host: string, state: ConfigState | null): SiteState | null {
  const bySite = new Map(state?.sites.map(one => [one.site, one]));
  const exact = bySite.get(`=${host}`) ?? bySite.get(host);
  if (exact) return exact;
  for (let dot = host.indexOf('.'); dot >= 0; dot = host.indexOf('.', dot + 1)) {
    const parent = host.slice(dot + 1);
    const found = bySite.get(parent) ?? bySite.get(`.${parent}`);
    if (found) return found;
  }
  return null;
}

/** What the switch changes for a host: the entry that decides it, unless that one is wider than the site; then the site. */
export function entryOf(host: string, site: string, because: string | null, state: ConfigState | null): string {
  const entry = because === null ? entryFor(host, state)?.site : /^sites\.(.+)$/.exec(because)?.[1];
  const named = entry?.replace(/^[=.]/, '');
  return entry !== undefined && (named === site || named!.endsWith(`.${site}`)) ? entry : site;
}

/** Why a page cannot be steered, or null. */
export function reasonAgainst(host: string): string | null {
  if (host === '') return 'This page is part of the browser. Only web pages can be steered.';
  if (host === 'localhost' || host.endsWith('.localhost') || host.startsWith('127.') || host === '[::1]') {
    return 'This page is on your own machine. Browsers never send those through a proxy.';
  }
  return null;
}

/** The link in words. */
export const LINK_WORDS: Record<View['snapshot']['link'], string> = {
  up: 'Connected',
  connecting: 'Connecting…',
  'not-found': 'Companion not found',
  'not-paired': 'Not paired',
  'wrong-version': 'Other version',
};
