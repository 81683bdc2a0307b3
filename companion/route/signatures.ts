// What the pages look like that proxies make themselves: the built-in rows of the refusal table, and how a row is compared with an answer.
import type { OwnSignature } from '../../shared/config/signatures.ts';
import type { Sign } from '../../shared/exchange.ts';
import type { Fields } from '../message/headers.ts';
import type { ResponseHead } from '../message/message.ts';

/** One row. Every condition that is there must hold; texts are in lower case. */
export interface Signature {
  readonly name: string;
  /** Absent: any that a proxy's no may have. */
  readonly status?: readonly number[] | undefined;
  /** A field that the answer has, and text within it; absent: whatever it says. */
  readonly field?: string | undefined;
  readonly match?: string | undefined;
  /** Text within the first 4 KiB of the page. */
  readonly page?: string | undefined;
  /** The beginning of the reason phrase. */
  readonly reason?: string | undefined;
  /** The product puts its Via on what it forwards, and not on its own pages: one with a Via is not its own. */
  readonly bare?: boolean | undefined;
  /** It says nothing at all. */
  readonly empty?: boolean | undefined;
  /** Not only of a hop that was asked in absolute-form: whatever stands on the way can say it. */
  readonly anywhere?: boolean | undefined;
  readonly who: 'proxy' | 'origin';
  /** Absent: what the status means. */
  readonly sign?: Sign | undefined;
}

/** Built-in rows, asked in this order. What could be the page of a reverse proxy at the origin's side (haproxy, nginx) is not among them. */
export const SIGNATURES: readonly Signature[] = [
  // Squid 3–6. The error's name says whether it would not or could not.
  { name: 'squid', field: 'x-squid-error', match: 'access_denied', who: 'proxy', sign: 'policy' },
  { name: 'squid', field: 'x-squid-error', match: 'err_too_big', who: 'proxy', sign: 'policy' },
  { name: 'squid', field: 'x-squid-error', match: 'forwarding_denied', who: 'proxy', sign: 'policy' },
  { name: 'squid', field: 'x-squid-error', match: 'timeout', who: 'proxy', sign: 'timeout' },
  { name: 'squid', field: 'x-squid-error', match: 'secure_', who: 'proxy', sign: 'tls' },
  { name: 'squid', field: 'x-squid-error', who: 'proxy' },
  // Tinyproxy 1.8–1.11: 401 for a wrong password, 500 for a host that it cannot reach.
  { name: 'tinyproxy', status: [401], field: 'server', match: 'tinyproxy', bare: true, who: 'proxy', sign: 'auth' },
  {
    name: 'tinyproxy',
    status: [500],
    field: 'server',
    match: 'tinyproxy',
    bare: true,
    who: 'proxy',
    sign: 'unreachable',
  },
  { name: 'tinyproxy', field: 'server', match: 'tinyproxy', bare: true, who: 'proxy' },
  // Products that name themselves in fields which only a proxy has.
  { name: 'Proxy-Agent', field: 'proxy-agent', bare: true, who: 'proxy' },
  { name: 'X-Proxy-Error', field: 'x-proxy-error', bare: true, who: 'proxy' },
  { name: 'Proxy-Authenticate', field: 'proxy-authenticate', bare: true, who: 'proxy', sign: 'auth' },
  { name: 'Privoxy', status: [403], reason: 'request blocked by privoxy', who: 'proxy', sign: 'policy' },
  { name: 'Privoxy', status: [403], reason: 'request for blocked url', who: 'proxy', sign: 'policy' },
  { name: 'Privoxy', page: '(privoxy@', who: 'proxy' },
  { name: 'Privoxy', status: [502, 503, 504], page: 'www.privoxy.org', who: 'proxy' },
  { name: 'polipo', field: 'server', match: 'polipo', bare: true, who: 'proxy' },
  { name: 'polipo', page: 'proxy error on ', who: 'proxy' },
  { name: '3proxy', status: [403], page: 'access control list denies you', who: 'proxy', sign: 'policy' },
  {
    name: '3proxy',
    status: [502, 503],
    page: '<h3>host not found or connection failed</h3>',
    who: 'proxy',
    sign: 'unreachable',
  },
  { name: 'CCProxy', field: 'server', match: 'ccproxy', bare: true, who: 'proxy' },
  { name: 'CCProxy', page: 'ccproxy', who: 'proxy' },
  { name: 'WinGate', field: 'server', match: 'wingate', bare: true, who: 'proxy' },
  // Mihomo and clash: a bare 502 without a word.
  {
    name: 'mihomo',
    status: [502],
    field: 'keep-alive',
    match: 'timeout=4',
    empty: true,
    bare: true,
    who: 'proxy',
    sign: 'unreachable',
  },
  // Pages of filters, wherever on the way they stand.
  { name: 'FortiGuard', status: [403, 503], page: 'fortiguard', anywhere: true, who: 'proxy', sign: 'policy' },
  {
    name: 'Zscaler',
    status: [307, 403],
    field: 'server',
    match: 'zscaler',
    anywhere: true,
    who: 'proxy',
    sign: 'policy',
  },
  { name: 'Blue Coat', page: 'blue coat', anywhere: true, who: 'proxy', sign: 'policy' },
  { name: 'Palo Alto', page: 'web page blocked', anywhere: true, who: 'proxy', sign: 'policy' },
  { name: 'Websense', page: 'websense', anywhere: true, who: 'proxy', sign: 'policy' },
  { name: 'Sophos', page: 'sophos web', anywhere: true, who: 'proxy', sign: 'policy' },
  { name: 'Umbrella', page: 'block.opendns.com', anywhere: true, who: 'proxy', sign: 'policy' },
  { name: 'McAfee Web Gateway', page: 'mcafee web gateway', anywhere: true, who: 'proxy', sign: 'policy' },
  { name: 'SquidGuard', page: 'squidguard', anywhere: true, who: 'proxy', sign: 'policy' },
  { name: 'e2guardian', page: 'e2guardian', anywhere: true, who: 'proxy', sign: 'policy' },
  { name: 'DansGuardian', page: 'dansguardian', anywhere: true, who: 'proxy', sign: 'policy' },
];

/** A row of the file. Its statuses are the person's choice; so is where the proxy stands. */
export function ownSignature(row: OwnSignature): Signature {
  return { ...row, anywhere: true };
}

/** Whether a row fits: 'page' where all but the page does, which is not there yet. */
export function fits(row: Signature, head: ResponseHead, isForwarded: boolean, page: string | null): boolean | 'page' {
  if (row.status !== undefined && !row.status.includes(head.status)) return false;
  if (row.bare === true && isForwarded) return false;
  if (row.reason !== undefined && !head.reason.toLowerCase().startsWith(row.reason)) return false;
  if (row.field !== undefined && !hasField(head.fields, row.field, row.match)) return false;
  if (
    row.empty === true &&
    head.framing.kind !== 'none' &&
    !(head.framing.kind === 'length' && head.framing.length === 0)
  )
    return false;
  if (row.page === undefined) return true;
  return page === null ? 'page' : page.includes(row.page);
}

function hasField({ flat }: Fields, lower: string, match: string | undefined): boolean {
  for (let i = 0; i < flat.length; i += 3) {
    if (flat[i + 1] === lower && (match === undefined || flat[i + 2]!.toLowerCase().includes(match))) return true;
  }
  return false;
}

/** Hosts that an http request is redirected to by whoever wants a login or an explanation first. */
const PORTAL_HOSTS =
  /(?:^|[.-])(?:captive|captiveportal|hotspot|walledgarden|wifi-?login|guest-?wifi|wlan-?login|blockpage|webblock)(?:[.-]|$)|(?:^|\.)(?:network-auth\.com|securelogin\.arubanetworks\.com|block\.opendns\.com|login\.nomadix\.com|notify\.bluecoat\.com|warning\.or\.kr)$/;
/** Names of no public domain: one label, or one that networks give themselves. */
const HOME_NAMES = /^[^.]+$|\.(?:lan|local|localdomain|internal|intranet|home|home\.arpa|wifi|hotspot|captive|corp)$/;
const HOME_ADDRESSES =
  /^(?:10\.|127\.|169\.254\.|192\.168\.|172\.(?:1[6-9]|2\d|3[01])\.|100\.(?:6[4-9]|[7-9]\d|1[01]\d|12[0-7])\.|1\.1\.1\.1$|192\.0\.2\.|\[?(?:fe80|f[cd][0-9a-f]{2}|::1\]?$))/;

/** Whether a redirection from `host` leads to a portal's page: known for one, or at home while what was asked for is not. `location` as received. */
export function leadsToPortal(host: string, location: string): boolean {
  const authority = /^[ \t]*https?:\/\/(?:[^/?#@]*@)?(\[[^\]]*\]|[^/?#:]*)/i.exec(location)?.[1]?.toLowerCase();
  if (authority === undefined || authority === '' || authority === host) return false;
  if (PORTAL_HOSTS.test(authority)) return !PORTAL_HOSTS.test(host);
  return isAtHome(authority) && !isAtHome(host);
}

function isAtHome(host: string): boolean {
  return HOME_ADDRESSES.test(host) || (!host.startsWith('[') && !host.includes(':') && HOME_NAMES.test(host));
}
