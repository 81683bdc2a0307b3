// Who may enter: from which networks, and with which name and password. A password is compared by its digest in a time that says nothing of it, and
// whoever guesses is soon not listened to any more.
import { hash, randomBytes, timingSafeEqual } from 'node:crypto';
import type { ConfigGuard } from '../../shared/config.ts';
import { networkOf } from '../../shared/endpoint.ts';
import { Fault } from '../../shared/fault.ts';
import type { EpochMilliseconds, Milliseconds } from '../../shared/units.ts';
import type { RequestHead } from '../message/message.ts';
import type { Entrance } from '../rooms.ts';
import { kindOfAddress, plain, remembering } from './acl.ts';
import { addressRanges } from './address-ranges.ts';

/** So many different wrong passwords may come from one address within this time; then it is not listened to until the time is over. */
const MAX_WRONG = 20;
const WRONG_FOR: Milliseconds = 60_000;
/** Addresses whose wrong passwords are counted; the one that began first makes room. */
const MAX_COUNTED = 4_096;

interface Guesses {
  readonly since: EpochMilliseconds;
  wrong: number;
  /** A browser asks many times with the same wrong password; that is one guess. */
  last: Buffer;
}

/** Counts wrong passwords; it outlives a change of the file. */
export class LoginBound {
  private readonly byAddress = new Map<string, Guesses>();
  private readonly now: () => EpochMilliseconds;
  /** Hears which address is not listened to any more. */
  whenReached: ((address: string) => void) | null = null;
  private readonly tell: ((address: string, digest: Buffer) => void) | undefined;

  /** `tell` hears of every wrong password, for whoever counts elsewhere. */
  constructor(now: () => EpochMilliseconds, tell?: (address: string, digest: Buffer) => void) {
    this.now = now;
    this.tell = tell;
  }

  /** Whether too many have come from this address. */
  isReached(address: string): boolean {
    if (this.byAddress.size === 0) return false;
    return (this.guessesFrom(networkOf(address))?.wrong ?? 0) >= MAX_WRONG;
  }

  count(address: string, digest: Buffer): void {
    this.hear(address, digest);
    this.tell?.(address, digest);
  }

  /** Counts one that was given elsewhere. */
  hear(address: string, digest: Buffer): void {
    const place = networkOf(address);
    const guesses = this.guessesFrom(place);
    if (guesses !== undefined) {
      if (guesses.last.equals(digest)) return;
      guesses.wrong++;
      guesses.last = digest;
      if (guesses.wrong === MAX_WRONG) this.whenReached?.(address);
      return;
    }
    if (this.byAddress.size >= MAX_COUNTED) this.byAddress.delete(this.byAddress.keys().next().value!);
    this.byAddress.set(place, { since: this.now(), wrong: 1, last: digest });
  }

  /** What counts still. */
  private guessesFrom(place: string): Guesses | undefined {
    const guesses = this.byAddress.get(place);
    if (guesses === undefined) return undefined;
    const passed = this.now() - guesses.since;
    if (passed >= 0 && passed < WRONG_FOR) return guesses;
    this.byAddress.delete(place);
    return undefined;
  }
}

const digestOf = (text: string): Buffer => hash('sha256', text, 'buffer');
let nobodys: Buffer | undefined;

/** The entrance for one configuration. This machine may always enter, whatever `guard.clients` says; the password is asked of it too. */
export function makeEntrance(guard: Pick<ConfigGuard, 'users' | 'clients' | 'tls'>, bound: LoginBound): Entrance {
  const networks = addressRanges(
    guard.clients.map(range => `${range.address}/${range.prefix}`),
    false,
  );
  // With TLS and a password, no network needs to be named.
  const fromAnywhere = guard.tls !== null && guard.clients.length === 0;
  const isClient = remembering(address => {
    const bare = plain(address);
    return kindOfAddress(bare) === 'loopback' || fromAnywhere || networks.has(bare);
  });
  const passwords = new Map(Object.entries(guard.users ?? {}).map(([name, password]) => [name, digestOf(password)]));

  function logIn(username: string, password: string, from: string): boolean {
    if (bound.isReached(from)) return false;
    const known = passwords.get(username);
    const given = digestOf(password);
    if (timingSafeEqual(given, known ?? (nobodys ??= randomBytes(32))) && known !== undefined) return true;
    bound.count(from, digestOf(`${username}\0${password}`));
    return false;
  }

  const asksForLogin = passwords.size > 0;
  return {
    mayEnter({ remoteAddress, localAddress }) {
      if (remoteAddress === undefined) return false;
      // From one of this machine's addresses to the same: it has not left the machine.
      return isClient(remoteAddress) || remoteAddress === localAddress();
    },
    logIn: asksForLogin ? logIn : null,
    demand: asksForLogin
      ? (head, from) => {
          if (bound.isReached(from)) throw new Fault('too_many_logins');
          const given = readBasic(head);
          if (given === null || !logIn(given.username, given.password, from))
            throw new Fault('proxy_authentication_required');
        }
      : null,
  };
}

/** The name and password of Proxy-Authorization: Basic (RFC 7617 §2), or null. */
function readBasic(head: RequestHead): { username: string; password: string } | null {
  const encoded = /^basic +([A-Za-z0-9+/]+={0,2})$/i.exec(head.fields.get('proxy-authorization') ?? '')?.[1];
  if (encoded === undefined) return null;
  const text = Buffer.from(encoded, 'base64').toString('utf8');
  const colon = text.indexOf(':');
  return colon < 0 ? null : { username: text.slice(0, colon), password: text.slice(colon + 1) };
}
