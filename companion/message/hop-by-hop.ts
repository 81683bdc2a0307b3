// Which fields are for this connection only and end here (RFC 9110 §7.6.1), and which may not come as trailers (§6.5.1).
import type { Fields } from './headers.ts';

/** Fields for one connection, whether or not Connection names them. */
const HOP_BY_HOP: ReadonlySet<string> = new Set([
  'connection',
  'proxy-connection',
  'keep-alive',
  'te',
  'transfer-encoding',
  'upgrade',
  'http2-settings',
  'proxy-authenticate',
  'proxy-authentication-info',
  'proxy-authorization',
]);

/** Fields that Connection cannot take away: without them the message would mean something else (as a class: CVE-2023-49606 and its kin). */
const NEVER_NOMINATED: ReadonlySet<string> = new Set([
  'host',
  'content-length',
  'content-type',
  'content-encoding',
  'content-range',
  'content-location',
  'cache-control',
  'authorization',
  'cookie',
  'set-cookie',
  'expect',
  'range',
  'date',
  'age',
  'expires',
  'vary',
  'etag',
  'last-modified',
  'location',
  'max-forwards',
]);

export function isHopByHop(lowerName: string): boolean {
  return HOP_BY_HOP.has(lowerName);
}

/** The further fields that a Connection value nominates, in lower case; null where there are none, as nearly always. */
export function nominatedBy(connection: string | undefined): ReadonlySet<string> | null {
  if (connection === undefined || connection === 'keep-alive' || connection === 'close') return null;
  let names: Set<string> | null = null;
  for (const part of connection.split(',')) {
    const name = part.trim().toLowerCase();
    if (name === '' || name === 'close' || HOP_BY_HOP.has(name) || NEVER_NOMINATED.has(name)) continue;
    names ??= new Set();
    names.add(name);
  }
  return names;
}

/** Removes every field that is for this connection only. */
export function dropHopByHop(fields: Fields): void {
  const nominated = nominatedBy(fields.get('connection'));
  const { flat } = fields;
  let found: string[] | null = null;
  for (let i = 1; i < flat.length; i += 3) {
    const lower = flat[i]!;
    if (HOP_BY_HOP.has(lower) || nominated?.has(lower)) (found ??= []).push(lower);
  }
  if (found !== null) for (const lower of found) fields.delete(lower);
}

/** Names that frame, route, authenticate or control: never as trailers. Prefixes end in a hyphen. */
const NO_TRAILERS: ReadonlySet<string> = new Set([
  ...HOP_BY_HOP,
  ...NEVER_NOMINATED,
  'trailer',
  'www-authenticate',
  'authentication-info',
  'pragma',
  'retry-after',
  'warning',
  'forwarded',
  'via',
  'proxy',
  'proxy-status',
  'cache-status',
  'if-match',
  'if-none-match',
  'if-modified-since',
  'if-unmodified-since',
  'if-range',
  'x-real-ip',
  'x-client-ip',
  'x-cluster-client-ip',
  'true-client-ip',
  'client-ip',
  'x-proxyuser-ip',
]);

/** Takes the trailers that may not be trailers out; null where none are left. */
export function allowedTrailers(trailers: Fields | null): Fields | null {
  if (trailers === null) return null;
  const { flat } = trailers;
  let found: string[] | null = null;
  for (let i = 1; i < flat.length; i += 3) {
    const lower = flat[i]!;
    if (NO_TRAILERS.has(lower) || lower.startsWith('x-forwarded-')) (found ??= []).push(lower);
  }
  if (found !== null) for (const lower of found) trailers.delete(lower);
  return trailers.length > 0 ? trailers : null;
}
