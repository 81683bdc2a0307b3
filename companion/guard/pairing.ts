// Who may speak on the control link: six-digit codes, the tokens they turn into, and the clients that hold them.
// Plain values in and out; the caller keeps what `save` is given in a file that only its owner reads. Tokens are stored hashed.
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import * as v from 'valibot';
import type { EpochMilliseconds, Milliseconds } from '../../shared/units.ts';

/** A pairing code holds for so long … */
export const CODE_LIFETIME: Milliseconds = 5 * 60_000;
/** … and for so many tries. */
export const CODE_TRIES = 5;
/** Clients that may be paired at once; with one more, the oldest is unpaired. */
const MAX_CLIENTS = 64;

const hexHash = v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/));

/** What is kept between runs. */
export const SavedClients = v.strictObject({
  version: v.literal(1),
  clients: v.pipe(
    v.array(v.strictObject({ name: v.string(), origin: v.string(), tokenHash: hexHash, pairedAt: v.number() })),
    v.maxLength(MAX_CLIENTS),
  ),
});
export type SavedClients = v.InferOutput<typeof SavedClients>;

/** A client that is paired. */
export interface PairedClient {
  readonly name: string;
  /** The exact Origin its token is bound to. */
  readonly origin: string;
  readonly pairedAt: EpochMilliseconds;
}

export interface PairingParts {
  readonly saved: SavedClients;
  /** Keeps the clients; throws when they could not be kept. */
  readonly save: (clients: SavedClients) => void;
  readonly now: () => EpochMilliseconds;
}

export interface Pairing {
  readonly clients: readonly PairedClient[];
  /** A new code, which ends any other. */
  newCode(): { code: string; expiresAt: EpochMilliseconds };
  /** Whether a code is out that could still be used. */
  readonly codeIsOut: boolean;
  /** Whether this is the code; a wrong one counts as a try, and the fifth wrong one ends the code. A right one stays until `pair`. */
  isCode(text: string): boolean;
  /** Pairs a client of this Origin: uses up the code and gives the token, which is not kept here. `family` leads to the name: "Firefox", "Firefox 2". */
  pair(origin: string, family: string): { name: string; token: string };
  /** The client that this token and this exact Origin belong to. */
  clientOf(origin: string, token: string): PairedClient | null;
  /** Forgets a client; false when there is none of that name. */
  unpair(name: string): boolean;
}

/** A token: 256 random bits in base64url. */
export function newToken(): string {
  return randomBytes(32).toString('base64url');
}

/** Every code as likely. Not by randomInt: it draws from a supply, which a start-up snapshot would hand to every start. */
function sixDigits(): string {
  for (;;) {
    const drawn = randomBytes(4).readUInt32BE();
    if (drawn < 4_294_000_000) return String(drawn % 1_000_000).padStart(6, '0');
  }
}

/** Whether two secrets are the same, in a time that tells nothing of either. */
export function sameSecret(a: string, b: string): boolean {
  return timingSafeEqual(sha256(a), sha256(b));
}

/** An Origin of an extension, exactly as Chromium and Firefox spell them; nothing else may pair. */
export function isExtensionOrigin(origin: string): boolean {
  return (
    /^chrome-extension:\/\/[a-p]{32}$/.test(origin) ||
    /^moz-extension:\/\/[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(origin)
  );
}

/** Codes and clients, beginning with those saved. */
export function makePairing(parts: PairingParts): Pairing {
  let saved = parts.saved;
  let out: { code: string; expiresAt: EpochMilliseconds; tries: number } | null = null;

  const keep = (clients: SavedClients['clients']) => {
    const next: SavedClients = { version: 1, clients };
    parts.save(next); // First the file: a token that would not survive is not given away.
    saved = next;
  };
  const current = () => {
    if (out && parts.now() >= out.expiresAt) out = null;
    return out;
  };

  return {
    get clients() {
      return saved.clients;
    },
    newCode() {
      out = { code: sixDigits(), expiresAt: parts.now() + CODE_LIFETIME, tries: 0 };
      return { code: out.code, expiresAt: out.expiresAt };
    },
    get codeIsOut() {
      return current() !== null;
    },
    isCode(text) {
      const code = current();
      if (!code) return false;
      if (sameSecret(text, code.code)) return true;
      if (++code.tries >= CODE_TRIES) out = null;
      return false;
    },
    pair(origin, family) {
      const token = newToken();
      // Every Chromium with this extension has the same Origin, so an Origin may have several clients, each with a token of its own.
      const name = freeName(
        family,
        saved.clients.map(one => one.name),
      );
      keep([
        ...saved.clients.slice(1 - MAX_CLIENTS),
        { name, origin, tokenHash: sha256(token).toString('hex'), pairedAt: parts.now() },
      ]);
      out = null;
      return { name, token };
    },
    clientOf(origin, token) {
      const hash = sha256(token);
      let found: PairedClient | null = null;
      for (const one of saved.clients) {
        const same = timingSafeEqual(hash, Buffer.from(one.tokenHash, 'hex'));
        if (same && one.origin === origin) found = one;
      }
      return found;
    },
    unpair(name) {
      const others = saved.clients.filter(one => one.name !== name);
      if (others.length === saved.clients.length) return false;
      keep(others);
      return true;
    },
  };
}

function freeName(family: string, taken: readonly string[]): string {
  let name = family;
  for (let n = 2; taken.includes(name); n++) name = `${family} ${n}`;
  return name;
}

function sha256(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
