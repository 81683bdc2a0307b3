// Text to matcher: the one notation of sites, rules and list files.
import { isAddress, normalizeHost } from '../endpoint.ts';
import type { Matcher } from './rule.ts';

/** What the one notation writes. */
export type HostMatcher = Exclude<Matcher, { kind: 'keyword' | 'regex' }>;

/**
 * `example.com` (with its subdomains), `.example.com` (subdomains only), `=example.com` (this host only), an address, or an address
 * range `10.0.0.0/8`. Answers with a sentence where the text is none of them.
 */
export function parseMatcher(text: string): HostMatcher | string {
  if (text.includes('*')) {
    return `"${text}" has a "*": write .example.com for subdomains only, or example.com for the domain with its subdomains`;
  }
  const slash = text.indexOf('/');
  if (slash >= 0) return parseCidr(text, slash);
  const mark = text[0];
  const host = normalizeHost(mark === '.' || mark === '=' ? text.slice(1) : text);
  if (host === null) return `"${text}" is not a host name, an address or an address range`;
  if (isAddress(host)) return mark === '.' ? `"${text}": an address has no subdomains` : { kind: 'exact', host };
  return { kind: mark === '.' ? 'subdomains' : mark === '=' ? 'exact' : 'suffix', host };
}

function parseCidr(text: string, slash: number): HostMatcher | string {
  const written = text.slice(0, slash);
  const address = normalizeHost(written);
  const digits = text.slice(slash + 1);
  if (address === null || !isAddress(address) || !/^\d{1,3}$/.test(digits))
    return `"${text}" is not an address range like 10.0.0.0/8`;
  const widest = written.includes(':') ? 128 : 32;
  if (Number(digits) > widest) return `"${text}": the prefix goes to ${widest}`;
  // A range written in IPv4-mapped form is the IPv4 range that it reaches.
  const prefix = widest === 128 && !address.includes(':') ? Number(digits) - 96 : Number(digits);
  return prefix < 0
    ? `"${text}" is wider than all of IPv4: write an IPv4 or an IPv6 range`
    : { kind: 'cidr', address, prefix };
}

/** The text that `parseMatcher` reads as this matcher; of keywords and expressions, what a person is told. */
export function formatMatcher(matcher: Matcher): string {
  switch (matcher.kind) {
    case 'exact':
      return isAddress(matcher.host) ? matcher.host : `=${matcher.host}`;
    case 'suffix':
      return matcher.host;
    case 'subdomains':
      return `.${matcher.host}`;
    case 'cidr':
      return `${matcher.address}/${matcher.prefix}`;
    case 'keyword':
      return `keyword ${matcher.text}`;
    case 'regex':
      return `regex ${matcher.source}`;
  }
}
