// To the browser a steered page is local, as its proxy is: it could call services on this machine without a prompt. This takes that away again.
// Measured in Chromium 156 and Firefox 153. What stays: navigating the whole tab to loopback (sign-in callbacks need it).
import type { Browser, WebRequest } from 'webextension-polyfill';
import { openTable, type SteeringTable } from '../../shared/decision/compile-table.ts';
import { formatHost } from '../../shared/endpoint.ts';

const RULE_ID = 1;
const MAX_GUARDED = 200_000;

/** As much of chrome.declarativeNetRequest as is used. */
export interface DynamicRules {
  updateDynamicRules(change: { removeRuleIds: number[]; addRules?: object[] }): Promise<void>;
}

/** What the rule below is for: hosts (each with its subdomains) and single addresses. A range of addresses has no form there. */
export function guardedHosts(table: SteeringTable): string[] {
  const addresses = Object.entries(table.addresses).filter(([, verdict]) => verdict !== 0);
  return [
    ...openTable(table).hosts(MAX_GUARDED - addresses.length),
    ...addresses.map(([address]) => formatHost(address)),
  ];
}

/** Chromium: documents, frames and scripts of these hosts (and their subdomains) are treated as public; null lifts it. */
export function makeLocalNetworkRule(rules: DynamicRules): (hosts: string[] | null) => Promise<void> {
  return hosts =>
    rules.updateDynamicRules({
      removeRuleIds: [RULE_ID],
      addRules:
        hosts === null || hosts.length === 0
          ? []
          : [
              {
                id: RULE_ID,
                action: {
                  type: 'modifyHeaders',
                  // `append` keeps the page's own policy; `set` would destroy it.
                  responseHeaders: [
                    { header: 'Content-Security-Policy', operation: 'append', value: 'treat-as-public-address' },
                  ],
                },
                condition: { requestDomains: hosts, resourceTypes: ['main_frame', 'sub_frame', 'script'] },
              },
            ],
    });
}

/** Firefox: cancels what steered pages ask of private addresses, by literal and by name. */
export function guardLocalNetwork(
  browser: Browser,
  isSteered: (host: string) => boolean,
  ready: () => Promise<void> | null,
): void {
  browser.webRequest.onBeforeRequest.addListener(
    // Until it is known what is steered, requests wait here as they do in the proxy listener.
    (details: WebRequest.OnBeforeRequestDetailsType) =>
      (ready()?.then(() => judge(browser, details, isSteered)) ?? judge(browser, details, isSteered)) as never,
    { urls: ['<all_urls>'] },
    ['blocking'],
  );
}

type Verdict = { cancel: boolean } | undefined;

function judge(
  browser: Browser,
  details: WebRequest.OnBeforeRequestDetailsType,
  isSteered: (host: string) => boolean,
): Verdict | Promise<Verdict> {
  if (details.type === 'main_frame') return undefined;
  const host = hostOf(details.url);
  const isPrivate = isPrivateHost(host);
  if (isPrivate === false || isSteered(host)) return undefined;
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
  if (who.some(isSteered)) return verdict();
  if (who.length > 0) return undefined;
  // A data: shared worker, or the browser itself.
  if (details.tabId < 0) return verdict(false);
  return browser.tabs.get(details.tabId).then(
    tab => {
      const top = hostOf(tab.url);
      return !top || isSteered(top) ? verdict() : undefined;
    },
    () => verdict(),
  );
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
  return /^(::1?$|f[cd]|fe[89ab]|ff)/i.test(bare);
}
