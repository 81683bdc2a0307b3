// Collapsed forwarding: who asks for what another is being sent already waits for that one's answer. Nobody waits for ever, and nobody gets what is
// not his: where the answer cannot be shared each asks for himself (A71); where the leader fails one of those who wait leads; where he stalls one of
// them asks too, and then all do (A72).
//
//   lead ──▶ Flight ──shared──▶ each gets the answer while its body comes, where its length is known; else goes on waiting for the whole
//              │  ▲
//   follow ────┘  ├──settled──▶ all: look into the store, or ask alone
//                 └──failed───▶ the first: lead; the others wait on
import type { Milliseconds } from '../../shared/units.ts';
import type { Fields } from '../message/headers.ts';

/** Who waits behind one request at the most; who comes then asks for himself. */
const MAX_FOLLOWERS = 1024;

/**
 * What one who waits is told: lead, he asks for himself and for those behind him; alone, for himself; look, it is stored now; error and cut-off, the origin
 * has no good answer or none, and the stale one may have to do.
 */
export type Word = 'lead' | 'alone' | 'look' | 'error' | 'cut-off';

/** One who waits. Each hears one word and no more, or takes what is shared. */
export interface Follower<Live> {
  tell(word: Word): void;
  /** An answer whose body is on its way. False: he has to wait for all of it. */
  take(live: Live): boolean;
}

/** The requests on their way out, by URL and space. `Live` is an answer whose body is on its way. */
export class InFlight<Live> {
  /** Those of one URL are linked: there is nearly always one. */
  private readonly flights = new Map<string, Flight<Live>>();

  /** What is being asked for there; with `accepts`, by somebody whose request's fields it accepts. */
  find(url: string, space: string, accepts: ((asked: Fields) => boolean) | null): Flight<Live> | null {
    for (let one = this.flights.get(url) ?? null; one !== null; one = one.next) {
      if (one.space === space && (accepts === null || accepts(one.asked))) return one;
    }
    return null;
  }

  /** Somebody asks for it now, and nobody did. So long anybody waits for him, and as long for a second. */
  lead(url: string, space: string, asked: Fields, wait: Milliseconds): Flight<Live> {
    const flight = new Flight<Live>(this, url, space, asked, wait, this.flights.get(url) ?? null);
    this.flights.set(url, flight);
    return flight;
  }

  /** Takes it out of the list; the flight calls it. */
  forget(flight: Flight<Live>): void {
    const { url, next } = flight;
    let before = this.flights.get(url);
    if (before === flight) {
      if (next === null) this.flights.delete(url);
      else this.flights.set(url, next);
      return;
    }
    while (before !== undefined && before.next !== flight) before = before.next ?? undefined;
    if (before !== undefined) before.next = next;
  }

  /** Whoever asks for the URL from now on gets nothing that was asked for before. Who waits already waits on. */
  drop(url: string): void {
    this.flights.delete(url);
  }

  /** The same for every URL. */
  clear(): void {
    this.flights.clear();
  }
}

/** One thing that is being asked for. */
export class Flight<Live> {
  readonly url: string;
  readonly space: string;
  /** The fields of the request that leads, or led first. */
  readonly asked: Fields;
  next: Flight<Live> | null;
  /** The answer, once its head has come and may be shared. */
  live: Live | null = null;
  private readonly list: InFlight<Live>;
  private readonly wait: Milliseconds;
  private followers: Follower<Live>[] = [];
  /** How many ask: one, or two after the first has stalled. */
  private leaders = 1;
  private stalled = false;
  private over = false;
  private clock: NodeJS.Timeout | null = null;

  constructor(
    list: InFlight<Live>,
    url: string,
    space: string,
    asked: Fields,
    wait: Milliseconds,
    next: Flight<Live> | null,
  ) {
    this.list = list;
    this.url = url;
    this.space = space;
    this.asked = asked;
    this.wait = wait;
    this.next = next;
  }

  /** Whether anybody waits. */
  get isAwaited(): boolean {
    return this.followers.length > 0;
  }

  /** Waits for what the leader gets. False where there is no waiting: it is over, or too many wait. */
  follow(follower: Follower<Live>): boolean {
    if (this.over || this.followers.length >= MAX_FOLLOWERS) return false;
    this.followers.push(follower);
    this.clock ??= setTimeout(this.tooLate, this.wait).unref();
    return true;
  }

  /** The head has come, and what it leads may be shared: those who can take it do, now and until it is settled. */
  shared(live: Live): void {
    if (this.over) return;
    this.live = live;
    const waiting = this.followers;
    if (waiting.length === 0) return;
    this.followers = waiting.filter(one => !one.take(live));
    if (this.followers.length === 0) this.stopClock();
  }

  /** It is over: what came is in the store (look), or may not be shared or kept (alone), or did not come (error, cut-off). */
  settled(word: Exclude<Word, 'lead'>): void {
    this.list.forget(this);
    this.release(word);
  }

  private release(word: Exclude<Word, 'lead'>): void {
    if (this.over) return;
    this.over = true;
    this.live = null;
    this.stopClock();
    const waiting = this.followers;
    this.followers = [];
    for (const one of waiting) one.tell(word);
  }

  /** A leader has got nothing that could be shared, and not because of what it is: it broke off, or he has left. */
  failed(): void {
    this.live = null;
    if (--this.leaders > 0) return;
    if (this.over) return this.list.forget(this);
    const next = this.followers.shift();
    if (next === undefined) return this.settled('alone');
    this.leaders = 1;
    if (this.followers.length === 0) this.stopClock();
    next.tell('lead');
  }

  private readonly tooLate = (): void => {
    this.clock = null;
    // The answer is there and long, or the second has stalled too. It stays in the list until its leaders are done: whoever comes meanwhile asks at once.
    if (this.live !== null || this.stalled) return this.release('alone');
    this.stalled = true;
    const next = this.followers.shift();
    if (next === undefined) return;
    this.leaders++;
    if (this.followers.length > 0) this.clock = setTimeout(this.tooLate, this.wait).unref();
    next.tell('lead');
  };

  private stopClock(): void {
    if (this.clock === null) return;
    clearTimeout(this.clock);
    this.clock = null;
  }
}
