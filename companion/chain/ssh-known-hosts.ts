// Which key an SSH server must show: the fingerprints of the file, or the lines of a known_hosts file (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT).
// A key is never taken on trust. Pure: text and bytes in, verdicts out.
import { createHash, createHmac } from 'node:crypto';

/** What a known_hosts file says of one server. */
export interface KnownKeys {
  readonly known: readonly KnownKey[];
  readonly revoked: readonly KnownKey[];
  /** The line of an `@cert-authority` that names the server: certificates cannot be checked here. */
  readonly authorityLine: number | null;
}
interface KnownKey {
  readonly type: string;
  readonly key: Buffer;
  readonly line: number;
}

/** By what a host key is judged. */
export type HostKeyTrust =
  | { readonly pins: readonly string[] }
  | { readonly file: string; readonly keys: KnownKeys; readonly host: string; readonly port: number };

/** As OpenSSH shows it: `SHA256:` and the digest in base64 without padding. */
export function fingerprintOf(key: Buffer): string {
  return `SHA256:${createHash('sha256').update(key).digest('base64').replace(/=+$/, '')}`;
}

/** The type that a key's blob names itself (RFC 4253 §6.6): ssh-ed25519, ssh-rsa… */
export function keyTypeOf(key: Buffer): string {
  if (key.length < 4) return '';
  const length = key.readUInt32BE(0);
  return length <= 64 ? key.toString('latin1', 4, 4 + length) : '';
}

/** How a server is named in known_hosts. */
export function knownHostName(host: string, port: number): string {
  return port === 22 ? host : `[${host}]:${port}`;
}

/** The lines of a known_hosts file that speak of this server. What cannot be read is passed over, as ssh does. */
export function keysFor(text: string, host: string, port: number): KnownKeys {
  const name = knownHostName(host, port).toLowerCase();
  const known: KnownKey[] = [];
  const revoked: KnownKey[] = [];
  let authorityLine: number | null = null;
  let line = 0;
  for (const written of text.split('\n')) {
    line++;
    const words = written.trim().split(/\s+/);
    if (words[0] === '' || words[0]!.startsWith('#')) continue;
    const marker = words[0]!.startsWith('@') ? words.shift()! : null;
    const [hosts, type, base64] = words;
    if (hosts === undefined || type === undefined || base64 === undefined || !names(hosts, name)) continue;
    if (marker === '@cert-authority') authorityLine ??= line;
    else if (marker === null || marker === '@revoked') {
      const key = Buffer.from(base64, 'base64');
      // A line whose key is of another type than it says is broken.
      if (keyTypeOf(key) === type) (marker === null ? known : revoked).push({ type, key, line });
    }
  }
  return { known, revoked, authorityLine };
}

/** Whether the hosts field of a line names the server: hashed, or patterns with commas, of which one with ! forbids. */
function names(hosts: string, name: string): boolean {
  if (hosts.startsWith('|')) {
    const [, version, salt, hash] = hosts.split('|');
    if (version !== '1' || salt === undefined || hash === undefined) return false;
    return createHmac('sha1', Buffer.from(salt, 'base64')).update(name).digest('base64') === hash;
  }
  let found = false;
  for (const pattern of hosts.toLowerCase().split(',')) {
    if (pattern.startsWith('!')) {
      if (matches(pattern.slice(1), name)) return false;
    } else found ||= matches(pattern, name);
  }
  return found;
}

/** `*` and `?`, in a time that grows with the product of both lengths at most. */
function matches(pattern: string, name: string): boolean {
  let at = 0;
  let star = -1;
  let resume = 0;
  let i = 0;
  while (i < name.length) {
    if (pattern[at] === '*') {
      star = at++;
      resume = i;
    } else if (at < pattern.length && (pattern[at] === '?' || pattern[at] === name[i])) {
      at++;
      i++;
    } else if (star >= 0) {
      at = star + 1;
      i = ++resume;
    } else return false;
  }
  while (pattern[at] === '*') at++;
  return at === pattern.length;
}

/** Longer lines than this are not repeated in a sentence: an RSA key is better pinned by its fingerprint. */
const MAX_LINE = 200;

/** Null: the server is the one meant. Else why not, with the fingerprint seen and what to write if that key is right. */
export function hostKeyRefusal(key: Buffer, trust: HostKeyTrust): string | null {
  const seen = fingerprintOf(key);
  const type = keyTypeOf(key);
  const shown = `it showed a key of type ${type} with the fingerprint ${seen}`;
  if ('pins' in trust) {
    if (trust.pins.some(pin => pin.replace(/=+$/, '') === seen)) return null;
    return `${shown}, and the file pins ${trust.pins.join(', ')}; if the new key is right, write hostKey: "${seen}"`;
  }
  const { keys, file } = trust;
  const revoked = keys.revoked.find(one => one.key.equals(key));
  if (revoked) return `${shown}, which ${file}:${revoked.line} revokes`;
  if (keys.known.some(one => one.key.equals(key))) return null;
  const written = `${knownHostName(trust.host, trust.port)} ${type} ${key.toString('base64')}`;
  const remedy = written.length <= MAX_LINE ? `the line "${written}"` : `hostKey: "${seen}" in the hop's ssh section`;
  const changed = keys.known.find(one => one.type === type) ?? keys.known[0];
  if (changed) {
    return `${shown}, and ${file}:${changed.line} has another: it was set up anew, or somebody is in between; if the new key is right, put in its place ${remedy}`;
  }
  const why = keys.authorityLine === null ? '' : ` (the authority in line ${keys.authorityLine} cannot be asked here)`;
  return `${shown}, which is not in ${file}${why}; if it is right, add ${remedy}`;
}

/** What a client may ask a server to sign with, best first; SHA-1 and DSA are not among it. */
const SIGNATURES: Readonly<Record<string, readonly string[]>> = {
  'ssh-ed25519': ['ssh-ed25519'],
  'ecdsa-sha2-nistp256': ['ecdsa-sha2-nistp256'],
  'ecdsa-sha2-nistp384': ['ecdsa-sha2-nistp384'],
  'ecdsa-sha2-nistp521': ['ecdsa-sha2-nistp521'],
  'ssh-rsa': ['rsa-sha2-512', 'rsa-sha2-256'],
};

/** The host key algorithms to offer: first those of the keys that are known, so that a server with several shows the one we can check. */
export function algorithmsFor(trust: HostKeyTrust): string[] {
  const types = 'pins' in trust ? [] : trust.keys.known.map(one => one.type);
  return [...new Set([...types, ...Object.keys(SIGNATURES)].flatMap(type => SIGNATURES[type] ?? []))];
}
