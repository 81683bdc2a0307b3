// Digest (RFC 7616), the client's half: what a challenge says, and the words that answer it. MD5, SHA-256 and SHA-512/256 with qop=auth, and what
// servers of RFC 2069's days send, without any. State is hop-login.ts's.
import { hash, randomBytes } from 'node:crypto';

/** Of all challenges together so much is read. */
const MAX_CHALLENGE = 8 * 1024;

/** What one challenge of the scheme Digest says; texts as they stood between their quotes. */
export interface DigestChallenge {
  readonly realm: string;
  readonly nonce: string;
  readonly opaque: string | null;
  readonly algorithm: 'MD5' | 'SHA-256' | 'SHA-512-256';
  readonly qop: 'auth' | null;
  readonly stale: boolean;
  /** The name is told as a hash. */
  readonly userhash: boolean;
}

/** What a Proxy-Authenticate offers. */
export interface Offer {
  readonly basic: boolean;
  /** The first that we can answer. */
  readonly digest: DigestChallenge | null;
}

const HASHES = { MD5: 'md5', 'SHA-256': 'sha256', 'SHA-512-256': 'sha512-256' } as const;
const isAlgorithm = (name: string): name is DigestChallenge['algorithm'] => Object.hasOwn(HASHES, name);

const ITEM =
  /[\s,]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?:[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([!#$%&'*+.^_`|~0-9A-Za-z-]+)))?/y;

/** The challenges of these field lines (RFC 9110 §11.6.1). What cannot be read is passed over. */
export function parseChallenges(lines: readonly string[]): Offer {
  let basic = false;
  let digest: DigestChallenge | null = null;
  const schemes: { scheme: string; params: Map<string, string> }[] = [];
  const text = lines.join(', ').slice(0, MAX_CHALLENGE);
  for (let at = 0; at < text.length;) {
    ITEM.lastIndex = at;
    const item = ITEM.exec(text);
    if (item === null) {
      at++;
      continue;
    }
    at = ITEM.lastIndex;
    const [, word, quoted, token] = item;
    const value = quoted ?? token;
    if (value === undefined) schemes.push({ scheme: word!.toLowerCase(), params: new Map() });
    else schemes.at(-1)?.params.set(word!.toLowerCase(), value);
  }
  for (const { scheme, params } of schemes) {
    if (scheme === 'basic') basic = true;
    else if (scheme === 'digest') digest ??= readDigest(params);
  }
  return { basic, digest };
}

function readDigest(params: ReadonlyMap<string, string>): DigestChallenge | null {
  const realm = params.get('realm');
  const nonce = params.get('nonce');
  const algorithm = (params.get('algorithm') ?? 'MD5').toUpperCase();
  if (realm === undefined || nonce === undefined || !isAlgorithm(algorithm)) return null;
  const qops = params
    .get('qop')
    ?.toLowerCase()
    .split(/[ \t,]+/);
  if (qops !== undefined && !qops.includes('auth')) return null;
  return {
    realm,
    nonce,
    opaque: params.get('opaque') ?? null,
    algorithm,
    qop: qops === undefined ? null : 'auth',
    stale: params.get('stale')?.toLowerCase() === 'true',
    userhash: params.get('userhash')?.toLowerCase() === 'true',
  };
}

/** The nextnonce of a Proxy-Authentication-Info (RFC 7616 §3.5), or null. */
export function nextNonceOf(field: string): string | null {
  return /(?:^|[\s,])nextnonce[ \t]*=[ \t]*"((?:[^"\\]|\\.)+)"/i.exec(field.slice(0, MAX_CHALLENGE))?.[1] ?? null;
}

/** RFC 7616 §3.4: the value of Proxy-Authorization. `count` is how often the nonce has been used, this time included; latin1. */
export function digestAuthorization(
  challenge: DigestChallenge,
  login: { readonly username: string; readonly password: string },
  request: { readonly method: string; readonly uri: string },
  count: number,
  cnonce: string = randomBytes(12).toString('base64url'),
): string {
  const { realm, nonce, opaque, algorithm, qop, userhash } = challenge;
  const { username, password } = login;
  // A realm goes into the hash as it came, whatever its bytes meant.
  const digest = (text: string) => hash(HASHES[algorithm], Buffer.from(text, 'latin1'), 'hex');
  const raw = (text: string) => Buffer.from(text, 'utf8').toString('latin1');
  const first = digest(`${raw(username)}:${realm}:${raw(password)}`);
  const second = digest(`${request.method}:${request.uri}`);
  const nc = count.toString(16).padStart(8, '0');
  const response =
    qop === null ? digest(`${first}:${nonce}:${second}`) : digest(`${first}:${nonce}:${nc}:${cnonce}:${qop}:${second}`);
  const name = userhash ? digest(`${raw(username)}:${realm}`) : raw(username).replace(/["\\]/g, '\\$&');
  let text = `Digest username="${name}", realm="${realm}", nonce="${nonce}", uri="${request.uri}", response="${response}", algorithm=${algorithm}`;
  if (qop !== null) text += `, qop=${qop}, nc=${nc}, cnonce="${cnonce}"`;
  if (opaque !== null) text += `, opaque="${opaque}"`;
  if (userhash) text += ', userhash=true';
  return text;
}
