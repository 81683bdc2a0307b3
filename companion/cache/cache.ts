// The cache room: looks up, validates, stores, freshens, invalidates, by RFC 9111. What the RFC says is in policy.ts; here it is put to work on what is
// stored and on what is on its way. How it all went is told in Cache-Status parameters (RFC 9211).
import type { CacheMode, Decision } from '../../shared/decision/rule.ts';
import { Fault } from '../../shared/fault.ts';
import type { Bytes, EpochMilliseconds, Milliseconds, Seconds } from '../../shared/units.ts';
import { Fields } from '../message/headers.ts';
import type { Answer, RequestHead, ResponseHead } from '../message/message.ts';
import type { Ask, Cache, CacheRequest, ExchangeTimes, Follow, Found, Hit } from '../rooms.ts';
import { type Asked, readRequest } from './asked.ts';
import { hasItAlready, type Validation, validationOf } from './conditional.ts';
import type { DiskFilling, DiskStore } from './disk-store.ts';
import { Budget, exactCopy, Filling } from './filling.ts';
import { isStillTheSame, meantBy, mergedLines, storedLines, without } from './freshen.ts';
import { type Flight, InFlight } from './in-flight.ts';
import { invalidatedBy, isUnsafe, RecentInvalidations } from './invalidation.ts';
import { makeKeeper } from './keeper.ts';
import { MemoryStore } from './memory-store.ts';
import type { Keeper } from './office.ts';
import {
  ageValue,
  correctedInitialAge,
  currentAge,
  type Hindrance,
  hindranceOf,
  lifetimeIn,
  reusability,
  type Semantics,
  standsIn,
  type Terms,
  termsOf,
} from './policy.ts';
import {
  combine,
  completedAnswer,
  completingRequest,
  contentRangeOf,
  entryValidator,
  incompleteEntry,
  isOfSame,
} from './partial.ts';
import { hasAll, rangeAnswer } from './range-answer.ts';
import type { ByteRange } from './ranges.ts';
import { type Entry, MemoryBody, spaceOf, type Store } from './store.ts';
import { StoredResponse } from './stored-response.ts';
import { Tiers } from './tiers.ts';
import { matches, sameSelection, type Selection, selectionOf, varyNames } from './vary.ts';

export interface CacheLimits {
  /** Memory that stored answers may take, all told. */
  readonly memory: Bytes;
  /** Disk that they may take. */
  readonly disk?: Bytes | undefined;
  /** The largest body that is kept. */
  readonly entry: Bytes;
  /** With no more than this still to come, a body that nobody reads any more is fetched to its end. */
  readonly finish: Bytes;
  /** Whether who asks for what another is being sent waits for that. */
  readonly collapse: 'on' | 'off';
  /** How many seconds he waits for one leader. */
  readonly collapseWait: Seconds;
  readonly semantics?: 'shared' | 'private';
  /** Fields that speak to this cache before Cache-Control does (RFC 9213). */
  readonly targeted?: readonly string[];
  /** The most that heuristic freshness may be. */
  readonly heuristic?: Seconds;
  /** Whether stale answers are served while upstream cannot be reached. */
  readonly offline?: 'on' | 'off';
  /** How long answers are fresh at least where a site's mode is aggressive. */
  readonly aggressive?: Seconds;
  /** Whether answers with Set-Cookie may be kept: not where several people use this. */
  readonly cookies?: boolean;
}

/** What `store` must know of a request that was not answered here. */
interface Miss {
  readonly request: CacheRequest;
  /** Its Cache-Status so far. */
  readonly why: Why;
  readonly asked: Asked;
  /** The stored answer that could not be used. */
  readonly passedOver: StoredResponse | null;
  /** What the origin is asked by; null: by the client's request as it is. */
  readonly validation: Validation | null;
  /** An incomplete answer and what is asked for of it, to make it whole. */
  completing: { readonly stored: StoredResponse; readonly gap: ByteRange; readonly request: RequestHead } | null;
  /** What went out stale while this is asked for; null: somebody waits for it. */
  readonly behind: StoredResponse | null;
  /** The state of invalidations when it was asked for. */
  readonly moment: number;
  /** What others follow; null: nobody can. */
  flight: Flight<Live> | null;
}

/** An answer that may be shared while its body comes. */
interface Live {
  /** It without its body; made when the first asks. */
  readonly stored: () => StoredResponse;
  readonly length: Bytes | null;
  readonly filling: Filling;
}

type Why = 'uri-miss' | 'vary-miss' | 'stale' | 'partial' | 'request' | 'bypass' | 'method';

/** What a lookup found: an answer and its age, or why there is none. */
type Selected =
  | { readonly stored: StoredResponse; readonly age: number; readonly isStale: boolean }
  /** `candidates`: what may be validated. */
  | {
      readonly why: Why;
      readonly passedOver: StoredResponse | null;
      readonly candidates: readonly StoredResponse[];
    };

/** A buffer of its own costs one that is smaller more than the copy does. */
const SMALL: Bytes = 4_096;
const NOTHING: readonly StoredResponse[] = [];
/** Stored answers that the origin is asked about at once. */
const MAX_CANDIDATES = 8;
/** What is asked for behind a hit is not asked for again for so long. */
const REFRESH_AGAIN: Milliseconds = 30_000;
/** RFC 5861 §4. */
const ERRORS: ReadonlySet<number> = new Set([500, 502, 503, 504]);

/** A cache that others can tell what has become invalid. */
export interface SharedCache extends Cache {
  /** For who asks what is stored. */
  readonly keeper: Keeper;
  /** An unsafe method made the URL invalid (RFC 9111 §4.4), seen elsewhere. */
  invalidate(url: string): void;
}

/** The cache of one process, over the disk where there is one; `memory: 0` keeps nothing in memory. `invalidated` hears of the URLs that became invalid here. */
export function createCache(
  limits: CacheLimits,
  invalidated?: (url: string) => void,
  disk: DiskStore | null = null,
): SharedCache {
  return new MemoryCache(limits, invalidated, disk);
}

/** Behind hops whoever waits may be who is waited for: a chain that leads back here asks us for the same. It shall not take long to be found out (A44). */
const MAY_BE_A_LOOP: Milliseconds = 1_000;

class MemoryCache implements SharedCache {
  private readonly limits: CacheLimits;
  private readonly semantics: Semantics;
  private readonly invalidated: ((url: string) => void) | undefined;
  /** All tiers as one. */
  private readonly memory: Store;
  private readonly tiers: Tiers | null;
  private readonly disk: DiskStore | null;
  private readonly unfinished: Budget;
  private readonly invalidations = new RecentInvalidations();
  readonly keeper: Keeper;
  private readonly inFlight: InFlight<Live> | null;

  constructor(limits: CacheLimits, invalidated: ((url: string) => void) | undefined, disk: DiskStore | null) {
    this.limits = limits;
    this.semantics = {
      shared: limits.semantics !== 'private',
      targeted: (limits.targeted ?? []).map(name => name.toLowerCase()),
      heuristic: (limits.heuristic ?? 86_400) * 1000,
      aggressive: (limits.aggressive ?? 3_600) * 1000,
      cookies: limits.cookies ?? true,
    };
    this.invalidated = invalidated;
    this.disk = disk;
    const memory = new MemoryStore(limits.memory);
    this.tiers = disk && new Tiers(memory, disk, limits.memory > 0 ? limits.entry : 0, this.semantics);
    this.memory = this.tiers ?? memory;
    this.unfinished = new Budget(limits.memory);
    this.keeper = makeKeeper(
      this.memory,
      limits,
      url => this.invalidate(url),
      () => {
        this.invalidations.all();
        this.inFlight?.clear();
      },
    );
    this.inFlight = limits.collapse === 'on' ? new InFlight() : null;
  }

  get size(): Bytes {
    return this.memory.stats().bytes;
  }

  get count(): number {
    return this.memory.stats().entries;
  }

  lookup(request: CacheRequest, now: EpochMilliseconds): Found {
    const asked = ((request.asked as Asked | undefined) ??= readRequest(request.head));
    const selected = this.select(request, asked, now, true);
    if ('stored' in selected) return this.hit(request, asked, selected, now);
    const { why } = selected;
    if (asked.control.onlyIfCached && why !== 'method' && isCached(request.decision)) {
      throw new Fault('only_if_cached', { target: targetOf(request.head) });
    }
    const miss = this.missed(request, asked, selected);
    if (this.inFlight === null || !mayCollapse(miss)) return askFor(miss, '');
    const space = spaceOf(request.route, request.partition);
    const flight = this.inFlight.find(request.url, space, why === 'vary-miss' ? this.sameChoice(request) : null);
    if (flight !== null) return insists(miss) ? askFor(miss, '') : this.follow(miss, flight, now);
    // An answer to conditions of its own is nobody else's.
    if (asked.ifNoneMatch === undefined && asked.ifModifiedSince === undefined) {
      const wait = this.limits.collapseWait * 1000;
      const bound = request.behindHops ? Math.min(wait, MAY_BE_A_LOOP) : wait;
      miss.flight = this.inFlight.lead(request.url, space, request.head.fields, bound);
    }
    return askFor(miss, '');
  }

  /** The answer out of the store, in the form that the request's conditions ask for. */
  private hit(
    request: CacheRequest,
    asked: Asked,
    { stored, age, isStale }: Extract<Selected, { stored: unknown }>,
    now: EpochMilliseconds,
  ): Hit {
    const hit = answerFrom(stored, age, asked, now);
    const mode = modeOf(request.decision);
    if (!isStale) {
      const lifetime = lifetimeIn(mode, stored, this.semantics.aggressive);
      return lifetime === stored.lifetime ? hit : { ...hit, status: stored.hitStatus(age, lifetime) };
    }
    const status = `${hit.status}; detail=stale-while-revalidate`;
    if (asked.control.onlyIfCached || now - stored.refreshingSince < REFRESH_AGAIN) return { ...hit, status };
    stored.refreshingSince = now;
    const fields = request.head.fields.copy().delete('if-none-match').delete('if-modified-since');
    // A part must not take the place of a whole.
    if (stored.partial === null) fields.delete('range').delete('if-range');
    const own = { ...request, asked: undefined, head: { ...request.head, method: 'GET', fields, notes: undefined } };
    const refresh = this.missed(
      own,
      readRequest(own.head),
      { why: 'stale', passedOver: stored, candidates: [stored] },
      stored,
    );
    return { ...hit, status, refresh: askFor(refresh, '') };
  }

  private missed(
    request: CacheRequest,
    asked: Asked,
    { why, passedOver, candidates }: Extract<Selected, { why: unknown }>,
    behind: StoredResponse | null = null,
  ): Miss {
    passedOver?.hold();
    for (const one of candidates) one.hold();
    const validation = asked.control.noStore ? null : validationOf(request.head, asked, candidates);
    const moment = this.invalidations.present;
    const miss: Miss = { request, why, asked, passedOver, validation, behind, moment, flight: null, completing: null };
    if (why === 'partial') miss.completing = completing(miss);
    return miss;
  }

  /** Throws Fault not_validated (RFC 9111 §5.2.2.2). */
  failed(ask: Ask, fault: Fault, now: EpochMilliseconds): { answer: Answer; status: string } | null {
    const miss = ask.token as Miss;
    const { passedOver, behind, flight } = miss;
    if (behind !== null) behind.refreshingSince = 0;
    if (fault.row.side !== 'upstream' || passedOver === null || behind !== null) {
      flight?.failed();
      return null;
    }
    const stale = this.instead(miss, passedOver, now, 'cut-off');
    // Who waits need not find out, each for himself, that the origin is away.
    if (stale === null) flight?.failed();
    else flight?.settled('cut-off');
    const isForbidden = passedOver.mustValidate || !passedOver.permitsStale;
    if (stale !== null || !isForbidden || miss.why !== 'stale') return stale;
    // RFC 9111 §5.2.2.2: an error, and it should be a 504.
    throw new Fault('not_validated', { target: fault.target, hop: fault.hop, detail: fault.message, cause: fault });
  }

  /** The stored answer in the place of the one that upstream did not give; null where it may not be. */
  private instead(miss: Miss, stored: StoredResponse, now: EpochMilliseconds, why: 'error' | 'cut-off') {
    const { request, asked } = miss;
    const mode = modeOf(request.decision);
    if (why === 'cut-off' && this.limits.offline === 'off' && mode !== 'offline-first') return null;
    if (!hasAll(stored.entry, asked)) return null;
    const age = currentAge(stored, now);
    if (!standsIn(stored, age, asked.control, mode, why)) return null;
    const { answer } = answerFrom(stored, age, asked, now);
    return { answer, status: `${stored.hitStatus(age)}; detail=${why === 'error' ? 'stale-if-error' : 'offline'}` };
  }

  pass(ask: Ask): void {
    const miss = ask.token as Miss;
    miss.flight?.settled('alone');
    if (miss.behind !== null) miss.behind.refreshingSince = 0;
  }

  /** Whether another would, by what is stored of the URL, be sent the same variant (RFC 9111 §4.1). */
  private sameChoice({ url, route, partition, head }: CacheRequest): ((asked: Fields) => boolean) | null {
    const variant = this.memory.peek(url)?.find(one => one.route === route && one.partition === partition);
    const names = variant?.selection?.names;
    if (names === undefined) return null;
    return asked => {
      const chosen = selectionOf(names, asked);
      return chosen !== null && matches(chosen, head.fields);
    };
  }

  /** Another is asking for the same: what he has already, or what he will get. */
  private follow(miss: Miss, flight: Flight<Live>, now: EpochMilliseconds): Hit | Ask | Follow {
    const clock = now - performance.now();
    const at = () => clock + performance.now();
    if (flight.live !== null) {
      const taken = this.takeLive(miss, flight.live, now);
      if (taken !== null) return taken;
    }
    let tell!: (found: Hit | Ask) => void;
    const found = new Promise<Hit | Ask>(resolve => {
      tell = resolve;
    });
    const isWaiting = flight.follow({
      tell: word => {
        if (word === 'lead') {
          miss.flight = flight;
          tell(askFor(miss, ''));
        } else if (word === 'alone') tell(askFor(miss, '; collapsed=?0'));
        else if (word === 'look') tell(this.look(miss, at()));
        else tell(this.sameInstead(miss, at(), word));
      },
      take: live => {
        const taken = this.takeLive(miss, live, at());
        if (taken !== null) tell(taken);
        return taken !== null;
      },
    });
    return isWaiting ? { kind: 'follow', found } : askFor(miss, '');
  }

  /** What there is in the store for one who has waited. */
  private look(miss: Miss, now: EpochMilliseconds): Hit | Ask {
    const { request, asked } = miss;
    const selected = this.select(request, asked, now, true);
    // What may only be used once the origin has confirmed it (no-cache) is asked about by what it is now.
    if (!('stored' in selected)) return askFor(this.missed(request, asked, selected), '; collapsed=?0');
    const { answer, refresh } = this.hit(request, asked, selected, now);
    // Who has waited takes it later than at once: made now, it is his whatever becomes of what is stored.
    const { head, body } = answer;
    return { kind: 'hit', answer: { head, body }, status: `fwd=${miss.why}; collapsed`, refresh };
  }

  /** The stale answer for one who has waited for an origin that has none. */
  private sameInstead(miss: Miss, now: EpochMilliseconds, why: 'error' | 'cut-off'): Hit | Ask {
    const { passedOver } = miss;
    const stale = passedOver === null ? null : this.instead(miss, passedOver, now, why);
    return stale === null ? askFor(miss, '; collapsed=?0') : { kind: 'hit', ...stale, refresh: null };
  }

  /** An answer whose body is on its way; an Ask where it is not for this request; null where it must be whole first. */
  private takeLive(miss: Miss, live: Live, now: EpochMilliseconds): Hit | Ask | null {
    const { request, asked, why } = miss;
    const { filling, length } = live;
    const stored = live.stored();
    const age = currentAge(stored, now);
    if (!matches(stored.selection, request.head.fields) || this.useOf(stored, age, request, asked) !== 'yes') {
      return askFor(miss, '; collapsed=?0');
    }
    const { answer } = answerFrom(stored, age, asked, now);
    const status = `fwd=${why}; collapsed`;
    if (answer.head.status === 304) return { kind: 'hit', answer, status, refresh: null };
    const body = filling.join();
    if (body === null || length === null) return null;
    const head: ResponseHead = { ...answer.head, framing: { kind: 'length', length } };
    return { kind: 'hit', answer: { head, body }, status, refresh: null };
  }

  peek(request: CacheRequest, now: EpochMilliseconds): string {
    const selected = this.select(request, readRequest(request.head), now, false);
    if (!('stored' in selected)) return `fwd=${selected.why}`;
    const { stored, age, isStale } = selected;
    const lifetime = lifetimeIn(modeOf(request.decision), stored, this.semantics.aggressive);
    return `${stored.hitStatus(age, lifetime)}${isStale ? '; detail=stale-while-revalidate' : ''}`;
  }

  store(ask: Ask, came: Answer, times: ExchangeTimes): ReturnType<Cache['store']> {
    const miss = ask.token as Miss;
    const { request, why, passedOver, behind, flight } = miss;
    const { method } = request.head;
    let answer = came;
    if (miss.completing !== null) {
      const { stored, gap } = miss.completing;
      miss.completing = null;
      const { status } = came.head;
      if (status === 206 || status === 416) {
        const whole = status === 206 ? completedAnswer(stored.entry, gap, came, times.respondedAt) : null;
        // The origin does not keep to If-Range: what we have may be of another time.
        if (whole === null) return this.again(miss, ask, came, [stored]);
        answer = whole;
        ask = { ...ask, status: `${ask.status}; fwd-status=206` };
      }
    }
    const { status } = answer.head;
    if (behind !== null) behind.refreshingSince = 0;
    if (isUnsafe(method)) {
      const kept = this.unsafe(miss, answer, times);
      return kept === null ? { answer, status: ask.status } : { answer: kept, status: `${ask.status}; stored` };
    }
    if (why === 'method' || why === 'bypass') return { answer, status: ask.status };
    if (status === 304 && miss.validation !== null) {
      const { candidates, alone } = miss.validation;
      const meant = meantBy(answer.head.fields, candidates, alone);
      if (meant !== null) {
        const validated = this.validated(miss, meant, answer, times);
        if (validated === null) return this.again(miss, ask, came, [meant]);
        return { answer: validated, status: `${ask.status}; fwd-status=304` };
      }
      // The client has named no tags: it can only be about what we asked by, and says that of none.
      if (alone) return this.again(miss, ask, came, candidates);
    }
    if (ERRORS.has(status) && passedOver !== null && behind === null) {
      const stale = this.instead(miss, passedOver, times.respondedAt, 'error');
      if (stale !== null) {
        if (answer.body !== null && !Buffer.isBuffer(answer.body)) answer.body.cancel();
        flight?.settled('error');
        return stale;
      }
    }
    if (method === 'HEAD') this.byHead(miss, answer.head, times);
    const kept = times.personal ? null : this.keep(miss, answer, times);
    if (kept === null) flight?.settled('alone');
    else if (Buffer.isBuffer(kept.body) || kept.body === null) flight?.settled('look');
    else if (behind !== null) behind.refreshingSince = times.respondedAt;
    if (kept !== null) return { answer: kept, status: `${ask.status}; stored` };
    // What the origin says now is newer than what it said then (RFC 9111 §4); an error tells nothing of the resource, and a 304 confirms it.
    if (
      passedOver !== null &&
      status < 500 &&
      ![206, 304, 416].includes(status) &&
      method === 'GET' &&
      !times.personal
    ) {
      this.memory.remove(passedOver);
    }
    return { answer, status: ask.status };
  }

  /** RFC 9111 §4.4: what an unsafe method makes invalid; and what the answer to a POST may be stored as (RFC 9110 §9.3.3). */
  private unsafe(miss: Miss, answer: Answer, times: ExchangeTimes): Answer | null {
    const { request, asked } = miss;
    const { head } = answer;
    for (const url of invalidatedBy(request.url, head.status, head.fields)) {
      this.invalidate(url);
      this.invalidated?.(url);
    }
    if (request.head.method !== 'POST' || !isCached(request.decision) || asked.originOnly || times.personal)
      return null;
    return this.keep({ ...miss, moment: this.invalidations.present }, answer, times);
  }

  /** What has come is of no use, and neither is what it was asked for with. All of it is asked for, as the client did. */
  private again(miss: Miss, ask: Ask, came: Answer, useless: readonly StoredResponse[]): ReturnType<Cache['store']> {
    if (came.body !== null && !Buffer.isBuffer(came.body)) came.body.cancel();
    for (const one of useless) this.memory.remove(one);
    const anew: Miss = { ...miss, passedOver: null, validation: null, completing: null };
    return { answer: came, status: ask.status, again: askFor(anew, '') };
  }

  /** RFC 9111 §4.3.3, §4.3.4: a 304 to our own question. Freshens what it means, and answers the client; null where a part by its new fields does not do. */
  private validated(miss: Miss, meant: StoredResponse, { head }: Answer, times: ExchangeTimes): Answer | null {
    const { asked, flight } = miss;
    const fresh = this.freshened(meant, head.fields, miss, times);
    if (!hasAll((fresh ?? meant).entry, asked)) return null;
    const isStored = fresh !== null && this.putFresh(meant, fresh, miss, times);
    if (!isStored && !times.personal) this.memory.remove(meant);
    flight?.settled(isStored ? 'look' : 'alone');
    const stored = fresh ?? meant;
    const hasIt = hasItAlready(asked, stored, times.respondedAt);
    const range = hasIt || asked.range === undefined ? null : rangeAnswer(stored.entry, asked, stored.initialAge);
    return range ?? stored.validated(head.fields.get('age'), hasIt);
  }

  /** The stored answer with the fields that confirm it; null where what it has become cannot be kept. */
  private freshened(stored: StoredResponse, fields: Fields, miss: Miss, times: ExchangeTimes): StoredResponse | null {
    const { request } = miss;
    const merged = mergedLines(stored.entry.lines, fields, times.respondedAt);
    if (merged === null) return null;
    // By what is said now, or was said then and still stands.
    const terms = termsOf(stored.status, new Fields(merged as string[]), times, this.semantics);
    const lines = without(this.leftOut(terms), merged);
    const names = varyNames(new Fields(lines as string[]));
    const selection = names === null ? null : names === 'never' ? null : selectionOf(names, request.head.fields);
    if (names !== null && selection === null) return null;
    const { requestedAt, respondedAt } = times;
    const fresh = { lines, selection, requestedAt, respondedAt, ageValue: ageValue(fields), pinned: stored.pinned };
    return new StoredResponse({ ...stored.entry, ...fresh }, this.semantics, terms);
  }

  /** Keeps a freshened answer, where that may still be kept. */
  private putFresh(meant: StoredResponse, fresh: StoredResponse, miss: Miss, times: ExchangeTimes): boolean {
    if (times.personal || this.invalidations.since(meant.url, miss.moment)) return false;
    const fields = new Fields(fresh.entry.lines as string[]);
    const terms = termsOf(fresh.status, fields, times, this.semantics);
    const asked = this.askedFor(miss, 'GET');
    // A fresh answer to a POST stays what it was.
    if (hindranceOf(asked, fresh.status, fields, terms, fresh.initialAge, this.semantics) !== null) return false;
    if (sameSelection(meant.selection, fresh.selection) && this.memory.replace(meant, fresh)) return true;
    // A body that is elsewhere belongs to what is there.
    return fresh.entry.body.bytes !== null && this.memory.put(fresh);
  }

  /** RFC 9111 §4.3.5: what the answer to a HEAD says of the stored answers that a GET would have got. */
  private byHead(miss: Miss, head: ResponseHead, times: ExchangeTimes): void {
    const { request } = miss;
    if (times.personal || (head.status !== 200 && head.status !== 404 && head.status !== 410)) return;
    for (const stored of this.memory.peek(request.url) ?? NOTHING) {
      if (stored.route !== request.route || stored.partition !== request.partition) continue;
      if (stored.partial !== null || !matches(stored.selection, request.head.fields)) continue;
      stored.hold();
      const isSame = head.status === 200 && stored.status === 200 && isStillTheSame(stored, head.fields);
      // Unless it was asked whether it still is what we have: that would have been a 304.
      if (isSame === null && !miss.validation?.candidates.includes(stored)) continue;
      const fresh = isSame ? this.freshened(stored, head.fields, miss, times) : null;
      if (fresh === null || !this.putFresh(stored, fresh, miss, times)) this.memory.remove(stored);
    }
  }

  invalidate(url: string): void {
    this.memory.drop(url);
    this.invalidations.add(url);
    this.inFlight?.drop(url);
  }

  clear(): void {
    // Who found out that something is out of date has told the disk himself.
    if (this.tiers === null) this.memory.purge({ all: true });
    else this.tiers.forget();
    this.invalidations.all();
    this.inFlight?.clear();
  }

  async close(): Promise<void> {
    await this.memory.close();
  }

  /** RFC 9111 §4: the stored answer that this request may have. */
  private select(request: CacheRequest, asked: Asked, now: EpochMilliseconds, touch: boolean): Selected {
    const { method, fields, framing } = request.head;
    if (method !== 'GET' && method !== 'HEAD') return { why: 'method', passedOver: null, candidates: NOTHING };
    if (!isCached(request.decision) || asked.originOnly || framing.kind !== 'none') {
      return { why: 'bypass', passedOver: null, candidates: NOTHING };
    }
    const answers = touch ? this.memory.get(request.url) : this.memory.peek(request.url);
    let why: Why = 'uri-miss';
    for (const stored of answers ?? NOTHING) {
      if (stored.partition !== request.partition || stored.route !== request.route) continue;
      why = 'vary-miss';
      if (!matches(stored.selection, fields)) continue;
      // Personal by the look of it: only what may be shared is given to a request with credentials.
      if (asked.hasAuthorization && !stored.allowsSharing)
        return { why: 'request', passedOver: null, candidates: NOTHING };
      if (stored.partial !== null && !(method === 'GET' && hasAll(stored.entry, asked))) {
        return { why: 'partial', passedOver: stored, candidates: NOTHING };
      }
      const age = currentAge(stored, now);
      const use = this.useOf(stored, age, request, asked);
      if (use === 'yes' || use === 'behind') return { stored, age, isStale: use === 'behind' };
      return { why: use, passedOver: stored, candidates: this.candidates(answers!, request, stored) };
    }
    return { why, passedOver: null, candidates: NOTHING };
  }

  /** RFC 9111 §4.3.1: what the origin can be asked about: what the request selects. */
  private candidates(
    answers: readonly StoredResponse[],
    request: CacheRequest,
    passedOver: StoredResponse,
  ): readonly StoredResponse[] {
    const found: StoredResponse[] = [];
    for (const one of answers) {
      if (found.length === MAX_CANDIDATES) break;
      if (one.partition !== request.partition || one.route !== request.route) continue;
      if (one.partial !== null && one !== passedOver) continue;
      if (matches(one.selection, request.head.fields)) found.push(one);
    }
    return found;
  }

  private useOf(stored: StoredResponse, age: number, { decision }: CacheRequest, asked: Asked) {
    return reusability(stored, age, asked.control, modeOf(decision), this.semantics.aggressive);
  }

  private askedFor({ request, asked }: Miss, method: string) {
    return { method, url: request.url, hasAuthorization: asked.hasAuthorization, noStore: asked.control.noStore };
  }

  /** Names of the fields that this cache may not keep (RFC 9111 §5.2.2.7). */
  private leftOut({ control }: Terms): readonly string[] {
    return this.semantics.shared ? control.privateFields : [];
  }

  /** Stores the answer if it may be stored: at once, or when its body has passed. Null when it may not. */
  private keep(miss: Miss, answer: Answer, times: ExchangeTimes): Answer | null {
    const { request, moment } = miss;
    const { head, body } = answer;
    const judged = this.judge(miss, head, times);
    if (typeof judged === 'string') return null;
    const { selection, terms } = judged;
    const range = contentRangeOf(head);
    // One that nobody asked for is the origin's mistake.
    if (head.status === 206 && (range === null || miss.asked.range === undefined)) return null;
    // All of it in one part (`bytes=0-`, as media are asked for) is the whole.
    const isAll = range !== null && range.from === 0 && range.to === range.complete;
    const part = isAll ? null : range;
    // The head goes on to the client, who may change it; what is stored is taken from it now.
    const like = {
      url: request.url,
      space: spaceOf(request.route, request.partition),
      site: request.site,
      selection,
      lines: storedLines(
        head.fields,
        times.respondedAt,
        isAll ? [...this.leftOut(terms), 'content-range'] : this.leftOut(terms),
      ),
      requestedAt: times.requestedAt,
      respondedAt: times.respondedAt,
      ageValue: ageValue(head.fields),
      pinned: false,
    };
    const { status, reason } = isAll ? { status: 200, reason: 'OK' } : head;
    const made = (whole: Buffer): Entry =>
      part === null
        ? { ...like, status, reason, body: new MemoryBody(whole), partial: null }
        : incompleteEntry(like, part.from, whole, part.complete);
    const put = (entry: Entry): boolean =>
      !this.invalidations.since(request.url, moment) &&
      (entry.partial !== null ? this.putPart(entry) : this.memory.put(new StoredResponse(entry, this.semantics)));
    const length = range !== null ? range.to - range.from : head.framing.kind === 'length' ? head.framing.length : null;
    if (body === null || Buffer.isBuffer(body)) {
      const came = body?.length ?? 0;
      if (length !== null && length !== came) return null;
      if (came > this.limits.entry) return null;
      // A small one is copied into a slab next, or onto the disk: memory that many share serves until then.
      return put(made(body === null ? Buffer.alloc(0) : came < SMALL ? Buffer.from(body) : exactCopy(body)))
        ? answer
        : null;
    }
    const { entry: limit, finish } = this.limits;
    const { flight } = miss;
    let toDisk: DiskFilling | null = null;
    /** What is too large for memory. Nobody can read it along, and to wait for the end of it is to wait long. */
    const large = (): DiskFilling | null => {
      toDisk = this.tiers?.begin(length) ?? null;
      if (toDisk !== null) flight?.settled('alone');
      return toDisk;
    };
    /** RFC 9111 §3.3: what there is of one that broke off, where the rest can be asked for. */
    const broken = (soFar: Buffer): void => {
      const { from, complete } = part ?? { from: 0, complete: length };
      if (soFar.length === 0 || complete === null || (part === null && status !== 200)) return;
      const fresh = incompleteEntry(like, from, exactCopy(soFar), complete);
      if (entryValidator(fresh) === null) return;
      const before = this.sameKind(fresh);
      // The whole of another time is worth more than a piece of now.
      if (before === undefined || before.partial !== null || isOfSame(before.entry, fresh)) put(fresh);
    };
    const filling = new Filling(body, {
      limit,
      length,
      budget: this.unfinished,
      finish,
      awaited: () => flight?.isAwaited ?? false,
      // A part is put together with others, in memory.
      large: part === null ? large : undefined,
      complete: whole => {
        if (Buffer.isBuffer(whole)) {
          const isStored = put(made(whole));
          flight?.settled(isStored ? 'look' : 'alone');
        } else if (this.invalidations.since(request.url, moment)) toDisk!.abort();
        else toDisk!.commit({ ...like, status, reason });
      },
      lost: (why, soFar) => {
        if (soFar !== null) broken(soFar);
        if (miss.behind !== null) miss.behind.refreshingSince = 0;
        if (why === 'much') flight?.settled('alone');
        else flight?.failed();
      },
    });
    if (!filling.isKept) return null;
    let bare: StoredResponse | null = null;
    if (part === null && filling.isShareable)
      flight?.shared({
        stored: () => (bare ??= new StoredResponse(made(Buffer.alloc(0)), this.semantics, terms)),
        length,
        filling,
      });
    return { head, body: filling.leader };
  }

  /** What is stored already in the place of this one. */
  private sameKind({ url, space, selection }: Entry): StoredResponse | undefined {
    return this.memory.peek(url)?.find(one => one.space === space && sameSelection(one.selection, selection));
  }

  /** Puts a part into its place, together with what is stored already (RFC 9111 §3.4). Of a whole it only freshens the fields, wherever that one's body lies. */
  private putPart(fresh: Entry): boolean {
    const before = this.sameKind(fresh);
    if (before === undefined) return this.memory.put(new StoredResponse(fresh, this.semantics));
    const old = { ...before.entry, pinned: before.pinned };
    const entry = combine(old, fresh, this.limits.entry);
    const response = new StoredResponse(entry, this.semantics);
    return entry.body === old.body ? this.memory.replace(before, response) : this.memory.put(response);
  }

  private judge(
    miss: Miss,
    head: ResponseHead,
    times: ExchangeTimes,
  ): Exclude<Hindrance, null> | { terms: Terms; selection: Selection | null } {
    const { request, asked } = miss;
    const { status, fields, framing } = head;
    const terms = termsOf(status, fields, times, this.semantics);
    const initialAge = correctedInitialAge(fields, ageValue(fields), times);
    const hindrance = hindranceOf(
      this.askedFor(miss, request.head.method),
      status,
      fields,
      terms,
      initialAge,
      this.semantics,
    );
    if (hindrance !== null) return hindrance;
    // That a range cannot be had says nothing of the rest.
    if (asked.range !== undefined && status === 416) return 'status';
    if (framing.kind === 'length' && framing.length > this.limits.entry && !this.disk?.takes(framing.length))
      return 'size';
    const names = varyNames(fields);
    if (names === 'never') return 'vary';
    const selection = names === null ? null : selectionOf(names, request.head.fields);
    if (names !== null && selection === null) return 'vary';
    return { terms, selection };
  }
}

function answerFrom(stored: StoredResponse, age: number, asked: Asked, now: EpochMilliseconds): Hit {
  if ((asked.ifNoneMatch !== undefined || asked.ifModifiedSince !== undefined) && hasItAlready(asked, stored, now)) {
    return stored.notModified(age);
  }
  // RFC 9110 §13.2.2: Range comes behind the conditions.
  const answer = asked.range === undefined ? null : rangeAnswer(stored.entry, asked, age);
  if (answer !== null) return { kind: 'hit', answer, status: stored.hitStatus(age), refresh: null };
  return stored.hit(age);
}

/** What is to be asked for to make an incomplete answer whole; null where the client's own request is sent. */
function completing({ passedOver, asked, request }: Miss): Miss['completing'] {
  const { control, ifNoneMatch, ifModifiedSince, range } = asked;
  if (request.head.method !== 'GET' || control.noCache || passedOver === null) return null;
  if (ifNoneMatch !== undefined || ifModifiedSince !== undefined || range !== undefined) return null;
  const made = completingRequest(request.head, passedOver.entry);
  return made === null ? null : { stored: passedOver, ...made };
}

function askFor(miss: Miss, how: string): Ask {
  return {
    kind: 'ask',
    request: miss.completing?.request ?? miss.validation?.request ?? miss.request.head,
    status: `fwd=${miss.why}${how}`,
    token: miss,
  };
}

/** Whether the origin itself is to be asked, and now (RFC 9111 §5.2.1.1, §5.2.1.4). */
function insists({ why, asked }: Miss): boolean {
  return why === 'request' || asked.control.noCache || asked.control.maxAge === 0;
}

/** Whether the answer to this request may be another's too, as far as can be told before it is there. */
function mayCollapse({ request, why, asked }: Miss): boolean {
  if (request.head.method !== 'GET' || asked.hasAuthorization || asked.control.noStore) return false;
  if (asked.range !== undefined) return false;
  return why !== 'bypass' && why !== 'method';
}

function modeOf(decision: Decision): CacheMode {
  return decision.steered ? decision.cache : 'off';
}

function isCached(decision: Decision): boolean {
  return decision.steered && decision.cache !== 'off';
}

function targetOf(head: RequestHead): { host: string; port: number } | undefined {
  return head.target.form === 'absolute' ? { host: head.target.host, port: head.target.port } : undefined;
}
