// To the browser a steered page is local, as its proxy is: it could call services on this machine without a prompt. This takes that away again.
// A site may be given it back (`local: true`). Measured in Chromium 156 and Firefox 153. What stays: navigating the whole tab to loopback
// (sign-in callbacks need it).
import type { Browser, WebRequest } from 'webextension-polyfill';
import { openTable, type SteeringTable } from '../../shared/decision/compile-table.ts';
import { BLOCKED, OFF, OPEN, STEERED } from '../../shared/decision/decide.ts';
import { MAX_CONFINED } from '../../shared/decision/patterns.ts';
import { formatHost } from '../../shared/endpoint.ts';

/** More names than the browser's rules should hold: then everything but loopback is treated as though it were steered. */
const MAX_NAMES = 200_000;
/** Hosts that need a rule for themselves alone; what is beyond that stays guarded. */
const MAX_ALONE = 500;
/** Labels of a host name, at most. */
const MAX_DEPTH = 128;
/** First of the rules for one host alone; below it two for each depth. */
const FIRST_ALONE = 2 * MAX_DEPTH + 2;
/** Of the rules for keywords and expressions, below all others in rank. */
const FIRST_PATTERN = FIRST_ALONE + 2 * MAX_ALONE;
const LAST_ID = FIRST_PATTERN + MAX_CONFINED;
const ALL_IDS = Array.from({ length: LAST_ID }, (_, i) => i + 1);
const RESOURCE_TYPES = ['main_frame', 'sub_frame', 'script'];
/** Tabs of which it is remembered what was loaded confined, and hosts in each (Firefox). */
const MAX_TABS = 500;
const MAX_HOSTS = 200;
const LOOPBACK = ['localhost', '127.0.0.1', '[::1]'];
// `append` keeps the page's own policy; `set` would destroy it.
const CONFINE = {
  type: 'modifyHeaders',
  responseHeaders: [{ header: 'Content-Security-Policy', operation: 'append', value: 'treat-as-public-address' }],
};
/** Overrules the rules of lesser priority. */
const LET_BE = { type: 'allow' };

/** As much of chrome.declarativeNetRequest as is used. */
export interface DynamicRules {
  updateDynamicRules(change: { removeRuleIds: number[]; addRules?: object[] }): Promise<void>;
}

/** One rule of chrome.declarativeNetRequest, as far as is used. */
interface NetRule {
  readonly id: number;
  readonly priority: number;
  readonly action: object;
  readonly condition: { readonly resourceTypes: readonly string[] } & (
    | { readonly requestDomains: readonly string[]; readonly urlFilter?: string }
    | { readonly excludedRequestDomains: readonly string[] }
    | { readonly regexFilter: string }
  );
}

/**
 * The rules by which Chromium takes steered documents, frames and scripts for public ones. A rule names a host with its subdomains, and
 * the deeper name wins by its priority: what is not steered, or may reach the network, below a steered site is let be. A range of addresses has
 * no form there.
 */
export function localNetworkRules(table: SteeringTable): NetRule[] {
  const resourceTypes = RESOURCE_TYPES;
  const guarded: [host: string, depth: number][] = [];
  const free = new Map<string, number>();
  /** Of two minds: the host itself may what its subdomains may not, or the other way round. */
  const alone: [host: string, depth: number, action: object][] = [];
  const { patterns } = table;
  if (patterns !== null && patterns.confined === null) return confineAll();
  for (const [host, own, below] of openTable(table).names()) {
    const depth = host.split('.').length;
    if (isLoopback(host)) continue;
    const isGuarded = isConfined(below) || (isConfined(own) && below !== OPEN);
    if (isGuarded) guarded.push([host, depth]);
    // Keywords and expressions may steer what is below the others.
    else if (patterns === null || below === OFF || below === OPEN) free.set(host, depth);
    if (guarded.length > MAX_NAMES) return confineAll();
    if (own === OPEN && isGuarded) alone.push([host, depth, LET_BE]);
    if (isConfined(own) && !isGuarded) alone.push([host, depth, CONFINE]);
  }
  for (const [address, verdict] of Object.entries(table.addresses))
    if (isConfined(verdict) && !isLoopback(address)) guarded.push([formatHost(address), 0]);

  const layers = new Map<number, string[]>();
  const put = (id: number, host: string) => {
    const there = layers.get(id);
    if (there) there.push(host);
    else layers.set(id, [host]);
  };
  const guardedNames = new Set(free.size === 0 ? [] : guarded.map(([host]) => host));
  for (const [host, depth] of guarded) put(isBelow(host, free) ? 2 * depth + 1 : 1, host);
  for (const [host, depth] of free) if (patterns !== null || isBelow(host, guardedNames)) put(2 * depth, host);
  const rules: NetRule[] = [...layers].map(([id, requestDomains]) => ({
    id,
    // Where two rules speak of one name, the id tells which is the closer one.
    priority: id,
    action: id % 2 === 1 ? CONFINE : LET_BE,
    condition: { requestDomains, resourceTypes },
  }));
  // What guards comes first, should there be too many.
  alone.sort(([, , a], [, , b]) => Number(b === CONFINE) - Number(a === CONFINE));
  for (const [i, [host, depth, action]] of alone.slice(0, MAX_ALONE).entries()) {
    for (const [j, scheme] of ['http', 'https'].entries())
      rules.push({
        id: FIRST_ALONE + 2 * i + j,
        priority: 2 * depth + 2,
        action,
        condition: { requestDomains: [host], urlFilter: `|${scheme}://${host}^`, resourceTypes },
      });
  }
  for (const [i, regexFilter] of (patterns?.confined ?? []).entries())
    rules.push({ id: FIRST_PATTERN + i, priority: 1, action: CONFINE, condition: { regexFilter, resourceTypes } });
  return rules;
}

function confineAll(): NetRule[] {
  const condition = { excludedRequestDomains: LOOPBACK, resourceTypes: RESOURCE_TYPES };
  return [{ id: 1, priority: 1, action: CONFINE, condition }];
}

const isConfined = (verdict: number) => verdict === STEERED || verdict === BLOCKED;

/** Whether a host is a subdomain of one of these. */
function isBelow(host: string, names: { readonly size: number; has(name: string): boolean }): boolean {
  if (names.size === 0) return false;
  for (let dot = host.indexOf('.'); dot >= 0; dot = host.indexOf('.', dot + 1))
    if (names.has(host.slice(dot + 1))) return true;
  return false;
}

/** Browsers never send these through a proxy, so nothing steers them, whatever a rule says. */
export function isLoopback(host: string): boolean {
  return /^(?:(?:.+\.)?localhost|127(?:\.\d+){3}|\[?::1\]?|\[?::ffff:7f[0-9a-f]{2}:[0-9a-f]+\]?)$/.test(host);
}

/** Hosts that one table confines (or below which it does) and the other does not. */
export function noLongerConfined(before: SteeringTable, now: SteeringTable): string[] {
  const later = openTable(now);
  const names: string[] = [];
  for (const [host, own, below] of openTable(before).names(now))
    // No one name speaks for all subdomains, but one that nobody has comes near.
    if ((isConfined(own) && !later.confines(host)) || (isConfined(below) && !later.confines(`any-other.${host}`)))
      names.push(host);
  for (const [address, verdict] of Object.entries(before.addresses))
    if (isConfined(verdict) && !later.confines(address)) names.push(formatHost(address));
  return names.filter(host => !isLoopback(host));
}

/** Brings Chromium's rules to what the table says, `leaving` confined as well; null lifts them. */
export type LocalNetworkGuard = (table: SteeringTable | null, leaving?: readonly string[]) => Promise<void>;

export function makeLocalNetworkGuard(rules: DynamicRules): LocalNetworkGuard {
  return (table, leaving = []) => {
    const addRules = table === null ? [] : localNetworkRules(table);
    if (leaving.length > 0)
      addRules.push({
        id: LAST_ID,
        priority: LAST_ID,
        action: CONFINE,
        condition: { requestDomains: leaving, resourceTypes: RESOURCE_TYPES },
      });
    return rules.updateDynamicRules({ removeRuleIds: ALL_IDS, addRules });
  };
}

/** What Firefox's guard asks of the steering. */
export interface Steered {
  /** Pending while it is not yet known what is steered. */
  readonly ready: Promise<void> | null;
  /** Whether requests to a host leave for the companion. */
  steers(host: string): boolean;
  /** Whether pages of a host may not reach this machine and its network. */
  confines(host: string): boolean;
}

/** Firefox: cancels what steered pages ask of private addresses, by literal and by name. */
export function guardLocalNetwork(browser: Browser, steered: Steered): void {
  const judge = makeJudge(browser, steered);
  browser.webRequest.onBeforeRequest.addListener(
    // Until it is known what is steered, requests wait here as they do in the proxy listener.
    (details: WebRequest.OnBeforeRequestDetailsType) =>
      (steered.ready?.then(() => judge(details)) ?? judge(details)) as never,
    { urls: ['<all_urls>'] },
    ['blocking'],
  );
}

type Verdict = { cancel: boolean } | undefined;

function makeJudge(
  browser: Browser,
  steered: Steered,
): (details: WebRequest.OnBeforeRequestDetailsType) => Verdict | Promise<Verdict> {
  /** By tab, the hosts of documents that were loaded confined: those stay so, whatever is switched, until the tab goes elsewhere. */
  const loaded = new Map<number, Set<string>>();
  browser.tabs.onRemoved.addListener(id => void loaded.delete(id));
  const remember = (tab: number, host: string, isNew: boolean) => {
    if (isNew) loaded.delete(tab);
    if (host === '' || isLoopback(host) || !steered.confines(host)) return;
    const hosts = loaded.get(tab) ?? new Set();
    if (hosts.size < MAX_HOSTS) hosts.add(host);
    loaded.set(tab, hosts);
    if (loaded.size > MAX_TABS) loaded.delete(loaded.keys().next().value!);
  };
  /** A worker that several tabs share has none of its own. */
  const wasLoaded = (tab: number, host: string) =>
    tab >= 0 ? loaded.get(tab)?.has(host) === true : [...loaded.values()].some(hosts => hosts.has(host));

  return details => {
    const host = hostOf(details.url);
    if (details.type === 'main_frame' || details.type === 'sub_frame')
      remember(details.tabId, host, details.type === 'main_frame');
    const isConfined = (one: string) =>
      !isLoopback(one) && (steered.confines(one) || (loaded.size > 0 && wasLoaded(details.tabId, one)));
    // Links and sign-in callbacks stay.
    if (details.type === 'main_frame') return undefined;
    const isPrivate = isPrivateHost(host);
    if (isPrivate === false || (!isLoopback(host) && steered.steers(host))) return undefined;
    const verdict = (ifUnresolved = true): Verdict | Promise<Verdict> =>
      isPrivate
        ? { cancel: true }
        : browser.dns.resolve(host).then(
            record => ({ cancel: record.addresses.some(address => isPrivateHost(address) !== false) }),
            () => ({ cancel: ifUnresolved }),
          );
    const ancestors = (details as { frameAncestors?: { url: string }[] }).frameAncestors ?? [];
    const who = [details.documentUrl, details.originUrl, ...ancestors.map(frame => frame.url)]
      .map(hostOf)
      .filter(Boolean);
    if (who.some(isConfined)) return verdict();
    if (who.length > 0) return undefined;
    // A data: shared worker, or the browser itself.
    if (details.tabId < 0) return verdict(false);
    return browser.tabs.get(details.tabId).then(
      tab => {
        const top = hostOf(tab.url);
        return !top || isConfined(top) ? verdict() : undefined;
      },
      () => verdict(),
    );
  };
}

function hostOf(url: string | undefined): string {
  try {
    return new URL(url ?? '').hostname.replace(/\.$/, '');
  } catch {
    return '';
  }
}

function isPrivateFour(a: number, b: number): boolean {
  return (
    a === 0 ||
    a === 10 ||
    a === 127 ||
    a >= 224 ||
    (a === 169 && b === 254) ||
    (a === 172 && b >> 4 === 1) ||
    (a === 192 && b === 168) ||
    (a === 100 && b >> 6 === 1)
  );
}

/** True or false for an address, null for a name that only a look-up can tell. */
export function isPrivateHost(host: string): boolean | null {
  if (host === 'localhost' || host.endsWith('.localhost')) return true;
  const four = /^(\d+)\.(\d+)\.\d+\.\d+$/.exec(host);
  if (four) return isPrivateFour(Number(four[1]), Number(four[2]));
  const bare = host.replace(/^\[|\]$/g, '');
  if (!bare.includes(':')) return null;
  const mapped = /^::ffff:(?:(\d+)\.(\d+)\.|([0-9a-f]+):)/i.exec(bare);
  if (mapped) {
    const high = parseInt(mapped[3] ?? '0', 16);
    return mapped[1] ? isPrivateFour(Number(mapped[1]), Number(mapped[2])) : isPrivateFour(high >> 8, high & 255);
  }
  // ::7f00:1 spells an IPv4 address in the old way.
  return /^(::1?$|::[0-9a-f]{1,4}:[0-9a-f]{1,4}$|f[cd]|fe[89a-f]|ff)/i.test(bare);
}
