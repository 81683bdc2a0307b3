// How one hop of kind http or https is told who we are: Basic at once, or Digest once it has asked for that; and what follows from a 407. One for
// every hop of the file in force.
//
// A server may refuse a nonce whose count does not grow (squid does), and requests that run at once overtake each other. So a nonce belongs to one
// request at a time, and lies ready again when the hop has taken it; where none is ready the hop is asked for another.
import type { Hop } from '../../shared/config/hops.ts';
import { Fault } from '../../shared/fault.ts';
import { basicAuthorization } from './basic-authorization.ts';
import { type DigestChallenge, digestAuthorization, nextNonceOf, parseChallenges } from './digest-authorization.ts';

/** So many nonces lie ready for one hop. */
const MAX_NONCES = 64;

/** What the hop has given to be used in our words. */
export interface Nonce {
  readonly challenge: DigestChallenge;
  /** How often it was used. */
  count: number;
  /** Whether it, or the one that it comes after, has been taken. */
  isProven: boolean;
}

/** What a hop was told with one request. */
export interface Told {
  /** The value of Proxy-Authorization (latin1), or null. */
  readonly text: string | null;
  readonly nonce: Nonce | null;
}
const NOTHING: Told = { text: null, nonce: null };

/** The hop wants to be told otherwise: the same again will be, with this. Where it is not asked again, the login has failed. */
export class AskAgain extends Fault {
  readonly nonce: Nonce;

  constructor(hop: Pick<Hop, 'host' | 'port'> & { readonly name: string }, nonce: Nonce) {
    super('hop_authentication_failed', {
      hop: hop.name,
      target: { host: hop.host, port: hop.port },
      detail: '407, again and again',
      receivedStatus: 407,
    });
    this.nonce = nonce;
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
  private readonly basic: Told;
  private readonly mayDigest: boolean;
  private wantsDigest: boolean;
  private readonly ready: Nonce[] = [];

  constructor({ username, password = '', auth = 'auto' }: Pick<Hop, 'username' | 'password' | 'auth'>) {
    this.username = username;
    this.password = password;
    this.basic = username === undefined ? NOTHING : { text: basicAuthorization({ username, password }), nonce: null };
    this.mayDigest = username !== undefined && auth !== 'basic';
    this.wantsDigest = username !== undefined && auth === 'digest';
  }

  /** What to tell it with one request. `uri` is the request-target as it goes out; `given` is what it has just given for this very request. */
  tell(method: string, uri: () => string, given: Nonce | null = null): Told {
    const { username, password } = this;
    if (!this.wantsDigest || username === undefined) return this.basic;
    const nonce = given ?? this.ready.pop();
    if (nonce === undefined) return NOTHING;
    const { challenge } = nonce;
    const count = ++nonce.count;
    return { text: digestAuthorization(challenge, { username, password }, { method, uri: uri() }, count), nonce };
  }

  /** It has answered 407 to `told`, with these Proxy-Authenticate lines: what to ask it again with; null = not again. */
  challenged(lines: readonly string[], told: Told): Nonce | null {
    if (!this.mayDigest) return null;
    const { basic, digest } = parseChallenges(lines);
    if (digest === null) return null;
    if (told.nonce === null) {
      // It would have taken Basic: name or password are wrong.
      if (told.text !== null && basic) return null;
    } else if (!digest.stale && !told.nonce.isProven) {
      // So are they where a nonce is new, and not said to be too old.
      return null;
    }
    this.wantsDigest = true;
    return { challenge: digest, count: 0, isProven: false };
  }

  /** It has taken what it was told; `info` is its Proxy-Authentication-Info. */
  accepted({ nonce }: Told, info: string | undefined): void {
    if (nonce === null) return;
    const next = info === undefined ? null : nextNonceOf(info);
    nonce.isProven = true;
    this.keep(next === null ? nonce : { challenge: { ...nonce.challenge, nonce: next }, count: 0, isProven: true });
  }

  /** For the next request. */
  keep(nonce: Nonce): void {
    if (this.ready.length < MAX_NONCES) this.ready.push(nonce);
  }
}
