// How one hop of kind http or https is told who we are: Basic at once, or Digest once it has asked for that; and what follows from a 407. One for
// every hop of the file in force. A nonce is used again, counted, as long as the hop takes it.
import type { Hop } from '../../shared/config/hops.ts';
import { Fault } from '../../shared/fault.ts';
import { basicAuthorization } from './basic-authorization.ts';
import { type DigestChallenge, digestAuthorization, nextNonceOf, parseChallenges } from './digest-authorization.ts';

/** The hop wants to be told otherwise: the same again will be. Where it is not asked again, the login has failed. */
export class AskAgain extends Fault {
  constructor(hop: Pick<Hop, 'host' | 'port'> & { readonly name: string }) {
    super('hop_authentication_failed', {
      hop: hop.name,
      target: { host: hop.host, port: hop.port },
      detail: '407, again and again',
      receivedStatus: 407,
    });
  }
}

const logins = new WeakMap<Pick<Hop, 'username'>, HopLogin>();

/** The login of a hop, as long as its file is in force. */
export function loginOf(hop: Pick<Hop, 'username' | 'password' | 'auth'>): HopLogin {
  let login = logins.get(hop);
  if (login === undefined) logins.set(hop, (login = new HopLogin(hop)));
  return login;
}

export class HopLogin {
  private readonly username: string | undefined;
  private readonly password: string;
  /** What is told while no Digest was asked for. */
  private readonly basic: string | null;
  private readonly mayDigest: boolean;
  private challenge: DigestChallenge | null = null;
  private count = 0;
  /** Whether the hop has taken the nonce in force. */
  private proven = false;

  constructor({ username, password = '', auth = 'auto' }: Pick<Hop, 'username' | 'password' | 'auth'>) {
    this.username = username;
    this.password = password;
    this.basic = auth === 'digest' ? null : basicAuthorization({ username, password });
    this.mayDigest = username !== undefined && auth !== 'basic';
  }

  /** The value of Proxy-Authorization for one request (latin1), or null. `uri` is the request-target as it goes out. */
  authorization(method: string, uri: () => string): string | null {
    const { challenge, username, password } = this;
    if (challenge === null || username === undefined) return this.basic;
    return digestAuthorization(challenge, { username, password }, { method, uri: uri() }, ++this.count);
  }

  /** It has answered 407 to `sent`, with these Proxy-Authenticate lines: whether it is to be asked again, with new words. */
  challenged(lines: readonly string[], sent: string | null): boolean {
    if (!this.mayDigest) return false;
    const { basic, digest } = parseChallenges(lines);
    if (digest === null) return false;
    const sentDigest = sent?.startsWith('Digest ') === true;
    if (sentDigest) {
      const usedNow = this.challenge !== null && sent.includes(` nonce="${this.challenge.nonce}"`);
      // Another request has a newer nonce by now: that one is to be tried.
      if (!usedNow && this.challenge !== null) return true;
      // A nonce that never was taken, and is not said to be too old: name or password are wrong.
      if (!digest.stale && !this.proven) return false;
    } else if (sent !== null && basic) return false;
    this.adopt(digest);
    return true;
  }

  /** It has taken what it was told; `info` is its Proxy-Authentication-Info. */
  accepted(info: string | undefined): void {
    if (this.challenge === null) return;
    this.proven = true;
    const nonce = info === undefined ? null : nextNonceOf(info);
    if (nonce !== null && nonce !== this.challenge.nonce) this.adopt({ ...this.challenge, nonce });
  }

  private adopt(challenge: DigestChallenge): void {
    this.challenge = challenge;
    this.count = 0;
    this.proven = false;
  }
}
