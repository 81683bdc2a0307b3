// Reads the request-target in its four forms (RFC 9112 §3.2). The host is brought to its one normal form here, once, so that the guard, the
// rules, the log, the cache and the dialler all see the same; the path is not touched.
import { type Endpoint, normalizeHost, parsePort } from '../../shared/endpoint.ts';
import { Malformed } from './malformed.ts';
import type { RequestTarget } from './message.ts';

/** Visible ASCII without the number sign: a target has no fragment, no space, no control and nothing beyond ASCII (RFC 9112 §3.2). */
const VISIBLE = /^[!"$-~]+$/;
const SCHEME = /^([A-Za-z][A-Za-z0-9+.-]*):(\/\/)?/;

const bad = (detail: string) => new Malformed('http_request_error', detail);

/**
 * The target of a request with this method. Throws Malformed http_request_error for what is no target of that method, and not_implemented for
 * schemes that only a tunnel can carry, or that nobody speaks.
 */
export function parseRequestTarget(method: string, text: string): RequestTarget {
  if (!VISIBLE.test(text)) throw bad('the target has characters that must be escaped');
  if (method === 'CONNECT') return { form: 'authority', ...parseConnectAuthority(text) };
  const first = text.charCodeAt(0);
  if (first === 47 /* / */) return { form: 'origin', path: text };
  if (text === '*') {
    if (method !== 'OPTIONS') throw bad('only OPTIONS may ask for *');
    return { form: 'asterisk' };
  }
  let start = 7;
  if (!text.startsWith('http://')) {
    const scheme = SCHEME.exec(text);
    if (!scheme) throw bad('the target is neither a path nor a URL');
    if (!scheme[2]) throw bad('the target is not a URL with a host');
    const name = scheme[1]!.toLowerCase();
    if (name === 'https') throw new Malformed('not_implemented', 'https is carried in a tunnel: ask with CONNECT');
    if (name !== 'http') throw new Malformed('not_implemented', `the scheme ${name.slice(0, 20)}`);
    start = scheme[0].length;
  }
  let end = start;
  for (; end < text.length; end++) {
    const code = text.charCodeAt(end);
    if (code === 47 /* / */ || code === 63 /* ? */) break;
  }
  const { host, port } = parseAuthority(text.slice(start, end), 80);
  return { form: 'absolute', scheme: 'http', host, port, path: pathFrom(text, end, method) };
}

/** RFC 9112 §3.2.1 and §3.2.4: an empty path becomes `/`, or `*` for OPTIONS; anything else stays as it is. */
function pathFrom(text: string, from: number, method: string): string {
  if (from === text.length) return method === 'OPTIONS' ? '*' : '/';
  const path = text.slice(from);
  const backslash = path.indexOf('\\');
  if (backslash !== -1) {
    const query = path.indexOf('?');
    if (query === -1 || backslash < query) throw bad('the path has a backslash');
  }
  return path.charCodeAt(0) === 63 ? `/${path}` : path;
}

/** `host:port` of a CONNECT; both parts must be there (RFC 9110 §9.3.6). */
export function parseConnectAuthority(text: string): Endpoint {
  const colon = text.lastIndexOf(':');
  const portText = text.slice(colon + 1);
  if (colon < 1 || (text.charCodeAt(0) === 91 && text.charCodeAt(colon - 1) !== 93)) {
    throw bad('CONNECT needs host:port');
  }
  const port = parsePort(portText);
  if (port === null) throw bad('CONNECT needs a port from 1 to 65535');
  return { host: hostOf(text.slice(0, colon)), port };
}

// The same few authorities come again and again; the map is dropped whole when it is full.
const known = new Map<string, Endpoint>();
const MAX_KNOWN = 1_000;

/**
 * `host` or `host:port` (an empty port counts as none), as in a URL or a Host field. User information is refused, not removed: nothing that
 * asks a proxy sends any (RFC 9110 §4.2.4). Throws Malformed http_request_error.
 */
export function parseAuthority(text: string, defaultPort: number): Endpoint {
  const found = known.get(text);
  if (found !== undefined && defaultPort === 80) return found;
  if (text.includes('@')) throw bad('the target has user information');
  let hostText = text;
  let port = defaultPort;
  const colon = text.lastIndexOf(':');
  if (colon !== -1 && text.charCodeAt(text.length - 1) !== 93 /* ] */) {
    hostText = text.slice(0, colon);
    if (colon + 1 < text.length) {
      const parsed = parsePort(text.slice(colon + 1));
      if (parsed === null) throw bad('the port is not from 1 to 65535');
      port = parsed;
    }
  }
  const endpoint = { host: hostOf(hostText), port };
  if (defaultPort === 80) {
    if (known.size >= MAX_KNOWN) known.clear();
    // The text may be a slice of a whole head, which the map would keep alive.
    known.set(Buffer.from(text, 'latin1').toString('latin1'), endpoint);
  }
  return endpoint;
}

/** Visible ASCII that no host has (RFC 3986 §3.2.2), though URL parsers let some of it pass. */
const NO_HOST = /["<>^`{|}]/;

/** A host as it may stand in a URI: an IPv6 address only in brackets. */
function hostOf(text: string): string {
  const host = (text.includes(':') && text.charCodeAt(0) !== 91) || NO_HOST.test(text) ? null : normalizeHost(text);
  if (host === null) throw bad('the host is not a name or an address');
  return host;
}
