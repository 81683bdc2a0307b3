// Hosts and ports as both sides spell them: one normal form, brackets only where text needs them.
// An endpoint has no place for a user name or a password, so nothing made from one can leak them.

/** Where a connection goes. `host` is in normal form (see normalizeHost): no brackets, no trailing dot, lower case, ASCII. */
export interface Endpoint {
  readonly host: string;
  readonly port: number;
}

/** `host:port`, IPv6 literals in brackets. */
export function formatEndpoint(endpoint: Endpoint): string {
  return `${formatHost(endpoint.host)}:${endpoint.port}`;
}

/** The host as it stands in a URL or a Host field: IPv6 literals in brackets. */
export function formatHost(host: string): string {
  return host.includes(':') ? `[${host}]` : host;
}

/** Whether a host in normal form is an address rather than a name. */
export function isAddress(host: string): boolean {
  // Not by a pattern: every exchange asks. Most names are told from an address by their first character.
  let dots = 0;
  let digits = 0;
  for (let i = 0; i < host.length; i++) {
    const code = host.charCodeAt(i);
    if (code === 0x2e && digits > 0) {
      dots++;
      digits = 0;
    } else if (code >= 0x30 && code <= 0x39) digits++;
    else return host.includes(':');
  }
  return dots === 3 && digits > 0;
}

// A name in normal form already: its last label begins with a letter, so it is no IPv4 address in any spelling.
const PLAIN_NAME = /^(?:[a-z0-9_][a-z0-9_-]*\.)*[a-z_][a-z0-9_-]*$/;

/**
 * The one normal form of a host, as the WHATWG URL standard makes it for http: lower case, IDN as punycode, IPv4 in dotted decimal
 * whatever the spelling (`127.1`, `0x7f.1`, `2130706433`), IPv6 compressed; then the trailing dot and the brackets are dropped, and an
 * IPv4-mapped IPv6 address becomes the IPv4 address that it reaches. Null where the text is no host.
 */
export function normalizeHost(text: string): string | null {
  if (text.length === 0 || text.length > 255) return null;
  if (PLAIN_NAME.test(text) && !text.includes('xn--')) return text.length > 253 ? null : text;
  if (/[\s/?#@\\%]/.test(text)) return null;
  const bracketed = text.includes(':') && !text.startsWith('[') ? `[${text}]` : text;
  if (!bracketed.startsWith('[') && bracketed.includes(':')) return null;
  if (bracketed.startsWith('[') && !bracketed.endsWith(']')) return null;
  let host: string;
  try {
    host = new URL(`http://${bracketed}/`).hostname;
  } catch {
    return null;
  }
  if (host.startsWith('[')) return unmapIPv4(host.slice(1, -1));
  if (host.endsWith('.')) host = host.slice(0, -1);
  return host === '' || host.endsWith('.') || host.startsWith('.') || host.includes('..') || host.length > 253
    ? null
    : host;
}

function unmapIPv4(address: string): string {
  const mapped = /^::ffff:([0-9a-f]{1,4}):([0-9a-f]{1,4})$/.exec(address);
  if (!mapped) return address;
  const high = parseInt(mapped[1]!, 16);
  const low = parseInt(mapped[2]!, 16);
  return `${high >> 8}.${high & 255}.${low >> 8}.${low & 255}`;
}

/** Whom an address stands for, to be counted by: of IPv6 a network of 64 bits belongs to one machine, which may choose from it as it likes. */
export function networkOf(address: string): string {
  if (!address.includes(':')) return address;
  const zone = address.indexOf('%');
  const bare = normalizeHost(zone < 0 ? address : address.slice(0, zone)) ?? address;
  if (!bare.includes(':')) return bare;
  const [before = '', after] = bare.split('::');
  const groups = before === '' ? [] : before.split(':');
  if (after !== undefined) {
    const behind = after === '' ? 0 : after.split(':').length;
    while (groups.length < 8 - behind) groups.push('0');
    if (after !== '') groups.push(...after.split(':'));
  }
  return groups.slice(0, 4).join(':');
}

/** A port as text, strictly: 1 to 65535 in at most five digits, or null. */
export function parsePort(text: string): number | null {
  if (!/^\d{1,5}$/.test(text)) return null;
  const port = Number(text);
  return port >= 1 && port <= 65535 ? port : null;
}

/** `host:port`, `[v6]:port`; null where either part is missing or malformed. */
export function parseEndpoint(text: string): Endpoint | null {
  const colon = text.lastIndexOf(':');
  if (colon < 1) return null;
  const written = text.slice(0, colon);
  if (written.includes(':') && !written.startsWith('[')) return null;
  const host = normalizeHost(written);
  const port = parsePort(text.slice(colon + 1));
  return host === null || port === null ? null : { host, port };
}
