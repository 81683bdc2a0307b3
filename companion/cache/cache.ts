// The cache room: looks up, stores, invalidates. A shared cache by RFC 9111 in what it stores, which is GET answers with explicit freshness; it
// does not validate or keep anything on disk yet. How it all went is told in Cache-Status parameters (RFC 9211).
import type { Decision } from '../../shared/decision/rule.ts';
import { Fault } from '../../shared/fault.ts';
import type { Bytes, EpochMilliseconds, Milliseconds, Seconds } from '../../shared/units.ts';
import type { Answer, RequestHead, ResponseHead } from '../message/message.ts';
import type { Ask, Cache, CacheRequest, ExchangeTimes, Follow, Found, Hit } from '../rooms.ts';
import { type CacheControl, NO_DIRECTIVES, parseCacheControl } from './cache-control.ts';
import { hasItAlready } from './conditional.ts';
import { Budget, exactCopy, Filling } from './filling.ts';
import { type Flight, InFlight } from './in-flight.ts';
import { invalidatedBy, isUnsafe, RecentInvalidations } from './invalidation.ts';
import { makeKeeper } from './keeper.ts';
import { MemoryStore } from './memory-store.ts';
import type { Keeper } from './office.ts';
import {
  ageValue,
  correctedInitialAge,
  currentAge,
  freshnessLifetime,
  type Hindrance,
  hindranceOf,
  reusability,
} from './policy.ts';
import {
  combine,
  completedAnswer,
  completingRequest,
  contentRangeOf,
  entryValidator,
  incompleteEntry,
} from './partial.ts';
import { hasAll, rangeAnswer, type RangeRequest } from './range-answer.ts';
import type { ByteRange } from './ranges.ts';
import { type Entry, MemoryBody, spaceOf } from './store.ts';
import { StoredResponse, storedLines } from './stored-response.ts';
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
}

/** What `store` must know of a request that was not answered here. */
interface Miss {
  readonly request: CacheRequest;
  /** Its Cache-Status so far. */
  readonly why: Why;
  readonly asked: Asked;
  /** The stored answer that could not be used. */
  readonly passedOver: StoredResponse | null;
  /** The state of invalidations when it was asked for. */
  readonly moment: number;
  /** What others follow; null: nobody can. */
  flight: Flight<Live> | null;
  /** An incomplete answer and what is asked for of it, to make it whole. */
  completing: { readonly stored: StoredResponse; readonly gap: ByteRange; readonly request: RequestHead } | null;
}

/** An answer that may be shared while its body comes. */
interface Live {
  /** It without its body; made when the first asks. */
  readonly stored: () => StoredResponse;
  readonly length: Bytes | null;
  readonly filling: Filling;
}

type Why = 'uri-miss' | 'vary-miss' | 'stale' | 'partial' | 'request' | 'bypass' | 'method';

/** What the cache reads of a request, in one pass over its fields. */
interface Asked extends RangeRequest {
  control: CacheControl;
  hasAuthorization: boolean;
  /** A condition that only the origin may judge. */
  originOnly: boolean;
  /** Of a GET; to other methods Range says nothing (RFC 9110 §14.2). */
  range: string | undefined;
  ifRange: string | undefined;
  ifNoneMatch: string | undefined;
  ifModifiedSince: string | undefined;
}

/** What a lookup found: an answer and its age, or why there is none. */
type Selected =
  | { readonly stored: StoredResponse; readonly age: number }
  | { readonly why: Why; readonly passedOver: StoredResponse | null };

/** A cache that others can tell what has become invalid. */
export interface SharedCache extends Cache {
  /** For who asks what is stored. */
  readonly keeper: Keeper;
  /** An unsafe method made the URL invalid (RFC 9111 §4.4), seen elsewhere. */
  invalidate(url: string): void;
}

/** The cache of one process. `memory: 0` keeps nothing. `invalidated` hears of the URLs that became invalid here. */
export function createCache(limits: CacheLimits, invalidated?: (url: string) => void): SharedCache {
  return new MemoryCache(limits, invalidated);
}

/** Behind hops whoever waits may be who is waited for: a chain that leads back here asks us for the same. It shall not take long to be found out (A44). */
const MAY_BE_A_LOOP: Milliseconds = 1_000;

class MemoryCache implements SharedCache {
  private readonly limits: CacheLimits;
  private readonly invalidated: ((url: string) => void) | undefined;
  private readonly memory: MemoryStore;
  private readonly unfinished: Budget;
  private readonly invalidations = new RecentInvalidations();
  readonly keeper: Keeper;
  private readonly inFlight: InFlight<Live> | null;

  constructor(limits: CacheLimits, invalidated: ((url: string) => void) | undefined) {
    this.limits = limits;
    this.invalidated = invalidated;
    this.memory = new MemoryStore(limits.memory);
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

  /** Throws Fault only_if_cached (RFC 9111 §5.2.1.7). */
  lookup(request: CacheRequest, now: EpochMilliseconds): Found {
    const asked = readRequest(request.head);
    const selected = this.select(request, asked, now, true);
    if ('stored' in selected) return answerFrom(selected.stored, selected.age, asked, now);
    const { why, passedOver } = selected;
    if (asked.control.onlyIfCached && why !== 'method' && isCached(request.decision)) {
      throw new Fault('only_if_cached', { target: targetOf(request.head) });
    }
    const miss: Miss = {
      request,
      why,
      asked,
      passedOver,
      moment: this.invalidations.present,
      flight: null,
      completing: null,
    };
    if (why === 'partial') miss.completing = completing(miss);
    if (this.inFlight === null || !mayCollapse(miss)) return askFor(miss, '');
    const space = spaceOf(request.route, request.partition);
    const flight = this.inFlight.find(request.url, space);
    if (flight !== null) return insists(miss) ? askFor(miss, '') : this.follow(miss, flight, now);
    // An answer to conditions of its own is nobody else's.
    if (asked.ifNoneMatch === undefined && asked.ifModifiedSince === undefined) {
      const wait = this.limits.collapseWait * 1000;
      miss.flight = this.inFlight.lead(request.url, space, request.behindHops ? Math.min(wait, MAY_BE_A_LOOP) : wait);
    }
    return askFor(miss, '');
  }

  failed(ask: Ask): null {
    (ask.token as Miss).flight?.failed();
    return null;
  }

  pass(ask: Ask): void {
    (ask.token as Miss).flight?.settled('alone');
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
        else tell(this.look(miss, at()));
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
    if (!('stored' in selected)) return askFor(miss, '; collapsed=?0');
    return { ...answerFrom(selected.stored, selected.age, asked, now), status: `fwd=${miss.why}; collapsed` };
  }

  /** An answer whose body is on its way; an Ask where it is not for this request; null where it must be whole first. */
  private takeLive(miss: Miss, live: Live, now: EpochMilliseconds): Hit | Ask | null {
    const { request, asked, why } = miss;
    const { filling, length } = live;
    const stored = live.stored();
    const age = currentAge(stored, now);
    if (!matches(stored.selection, request.head.fields) || reusability(stored, age, asked.control) !== 'yes') {
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
    return 'stored' in selected ? selected.stored.hitStatus(selected.age) : `fwd=${selected.why}`;
  }

  store(found: Ask, came: Answer, times: ExchangeTimes): ReturnType<Cache['store']> {
    const miss = found.token as Miss;
    const { request, why } = miss;
    let answer = came;
    if (miss.completing !== null) {
      const { stored, gap } = miss.completing;
      miss.completing = null;
      const { status } = came.head;
      if (status === 206 || status === 416) {
        const whole = status === 206 ? completedAnswer(stored.entry, gap, came, times.respondedAt) : null;
        if (whole === null) {
          // The origin does not keep to If-Range: what we have may be of another time. All of it is asked for, as the client did.
          if (came.body !== null && !Buffer.isBuffer(came.body)) came.body.cancel();
          this.memory.remove(stored);
          return { answer: came, status: found.status, again: askFor(miss, '') };
        }
        answer = whole;
        found = { ...found, status: `${found.status}; fwd-status=206` };
      }
    }
    const { head } = answer;
    if (isUnsafe(request.head.method)) {
      for (const url of invalidatedBy(request.url, head.status, head.fields)) {
        this.invalidate(url);
        this.invalidated?.(url);
      }
    }
    if (why === 'method' || why === 'bypass') return { answer, status: found.status };
    if (times.personal) {
      miss.flight?.settled('alone');
      return { answer, status: found.status };
    }
    const kept = this.keep(miss, answer, times);
    if (kept === null) miss.flight?.settled('alone');
    else if (Buffer.isBuffer(kept.body) || kept.body === null) miss.flight?.settled('look');
    if (kept !== null) return { answer: kept, status: `${found.status}; stored` };
    // What the origin says now is newer than what it said then (RFC 9111 §4); an error tells nothing of the resource, and a 304 confirms it.
    if (
      miss.passedOver !== null &&
      head.status < 500 &&
      ![206, 304, 416].includes(head.status) &&
      request.head.method === 'GET'
    ) {
      this.memory.remove(miss.passedOver);
    }
    return { answer, status: found.status };
  }

  invalidate(url: string): void {
    this.memory.drop(url);
    this.invalidations.add(url);
    this.inFlight?.drop(url);
  }

  clear(): void {
    this.memory.purge({ all: true });
    this.invalidations.all();
    this.inFlight?.clear();
  }

  async close(): Promise<void> {
    await this.memory.close();
  }

  /** RFC 9111 §4: the stored answer that this request may have. */
  private select(request: CacheRequest, asked: Asked, now: EpochMilliseconds, touch: boolean): Selected {
    const { method, fields } = request.head;
    if (method !== 'GET' && method !== 'HEAD') return { why: 'method', passedOver: null };
    if (!isCached(request.decision)) return { why: 'bypass', passedOver: null };
    if (asked.originOnly || request.head.framing.kind !== 'none') return { why: 'bypass', passedOver: null };
    const answers = touch ? this.memory.get(request.url) : this.memory.peek(request.url);
    let why: Why = 'uri-miss';
    for (const stored of answers ?? []) {
      if (stored.partition !== request.partition || stored.route !== request.route) continue;
      why = 'vary-miss';
      if (!matches(stored.selection, fields)) continue;
      // Personal by the look of it: only what may be shared is given to a request with credentials.
      if (asked.hasAuthorization && !stored.allowsSharing) return { why: 'request', passedOver: null };
      if (stored.entry.partial !== null && !(method === 'GET' && hasAll(stored.entry, asked))) {
        return { why: 'partial', passedOver: stored };
      }
      const age = currentAge(stored, now);
      const use = reusability(stored, age, asked.control);
      return use === 'yes' ? { stored, age } : { why: use, passedOver: stored };
    }
    return { why, passedOver: null };
  }

  /** Stores the answer if it may be stored: at once, or when its body has passed. Null when it may not. */
  private keep(miss: Miss, answer: Answer, times: ExchangeTimes): Answer | null {
    const { request, moment } = miss;
    const { head, body } = answer;
    const judged = this.judge(miss, head, times);
    if (typeof judged === 'string') return null;
    const { selection } = judged;
    const part = contentRangeOf(head);
    // One that nobody asked for is the origin's mistake.
    if (head.status === 206 && (part === null || miss.asked.range === undefined)) return null;
    // The head goes on to the client, who may change it; what is stored is taken from it now.
    const like = {
      url: request.url,
      space: spaceOf(request.route, request.partition),
      site: request.site,
      selection,
      lines: storedLines(head.fields, times.respondedAt),
      requestedAt: times.requestedAt,
      respondedAt: times.respondedAt,
      ageValue: ageValue(head.fields),
      pinned: false,
    };
    const { status, reason } = head;
    const made = (whole: Buffer): Entry =>
      part === null
        ? { ...like, status, reason, body: new MemoryBody(whole), partial: null }
        : this.combined(incompleteEntry(like, part.from, whole, part.complete));
    const put = (entry: Entry): boolean =>
      !this.invalidations.since(request.url, moment) && this.memory.put(new StoredResponse(entry));
    const length = part !== null ? part.to - part.from : head.framing.kind === 'length' ? head.framing.length : null;
    if (body === null || Buffer.isBuffer(body)) {
      const came = body?.length ?? 0;
      if (length !== null && length !== came) return null;
      if (came > this.limits.entry) return null;
      return put(made(body === null ? Buffer.alloc(0) : exactCopy(body))) ? answer : null;
    }
    const { entry: limit, finish } = this.limits;
    const { flight } = miss;
    /** RFC 9111 §3.3: what there is of one that broke off, where the rest can be asked for. */
    const broken = (soFar: Buffer): void => {
      const { from, complete } = part ?? { from: 0, complete: length };
      if (soFar.length === 0 || complete === null || (part === null && status !== 200)) return;
      const fresh = incompleteEntry(like, from, exactCopy(soFar), complete);
      if (entryValidator(fresh) === null) return;
      const entry = this.combined(fresh);
      const before = entry === fresh ? this.sameKind(fresh) : undefined;
      // The whole of another time is worth more than a piece of now.
      if (before === undefined || before.entry.partial !== null) put(entry);
    };
    const filling = new Filling(body, {
      limit,
      length,
      budget: this.unfinished,
      finish,
      awaited: () => flight?.isAwaited ?? false,
      complete: whole => {
        const isStored = put(made(whole as Buffer));
        flight?.settled(isStored ? 'look' : 'alone');
      },
      lost: (why, soFar) => {
        if (soFar !== null) broken(soFar);
        if (why === 'much') flight?.settled('alone');
        else flight?.failed();
      },
    });
    if (!filling.isKept) return null;
    let bare: StoredResponse | null = null;
    if (part === null)
      flight?.shared({ stored: () => (bare ??= new StoredResponse(made(Buffer.alloc(0)))), length, filling });
    return { head, body: filling.leader };
  }

  /** What is stored already in the place of this one. */
  private sameKind({ url, space, selection }: Entry): StoredResponse | undefined {
    return this.memory.peek(url)?.find(one => one.space === space && sameSelection(one.selection, selection));
  }

  /** A part that has come, together with what is stored already (RFC 9111 §3.4). */
  private combined(fresh: Entry): Entry {
    const before = this.sameKind(fresh);
    return before === undefined ? fresh : combine({ ...before.entry, pinned: before.pinned }, fresh, this.limits.entry);
  }

  private judge(
    { request, asked }: Miss,
    head: ResponseHead,
    times: ExchangeTimes,
  ): Exclude<Hindrance, null> | { selection: Selection | null } {
    const { fields, framing } = head;
    const said = fields.get('cache-control');
    const control = said === undefined ? NO_DIRECTIVES : parseCacheControl(said);
    const hindrance = hindranceOf(
      { method: request.head.method, hasAuthorization: asked.hasAuthorization, noStore: asked.control.noStore },
      head,
      control,
    );
    if (hindrance !== null) return hindrance;
    // That a range cannot be had says nothing of the rest.
    if (asked.range !== undefined && head.status === 416) return 'status';
    const lifetime = freshnessLifetime(control, fields, times);
    if (lifetime === null) return 'no-freshness';
    if (lifetime <= correctedInitialAge(fields, ageValue(fields), times)) return 'stale';
    if (framing.kind === 'length' && framing.length > this.limits.entry) return 'size';
    const names = varyNames(fields);
    if (names === 'never') return 'vary';
    const selection = names === null ? null : selectionOf(names, request.head.fields);
    if (names !== null && selection === null) return 'vary';
    return { selection };
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
    request: miss.completing?.request ?? miss.request.head,
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
  return why === 'uri-miss' || why === 'stale' || why === 'partial' || why === 'request';
}

function isCached(decision: Decision): boolean {
  return decision.steered && decision.cache !== 'off';
}

function targetOf(head: RequestHead): { host: string; port: number } | undefined {
  return head.target.form === 'absolute' ? { host: head.target.host, port: head.target.port } : undefined;
}

const NO_CACHE: CacheControl = { ...NO_DIRECTIVES, noCache: true };

function readRequest(head: RequestHead): Asked {
  const asked: Asked = {
    control: NO_DIRECTIVES,
    hasAuthorization: false,
    originOnly: false,
    range: undefined,
    ifRange: undefined,
    ifNoneMatch: undefined,
    ifModifiedSince: undefined,
  };
  let pragma = false;
  let controlled = false;
  const { fields } = head;
  const { flat } = fields;
  for (let i = 1; i < flat.length; i += 3) {
    switch (flat[i]) {
      case 'cache-control':
        controlled = true;
        break;
      case 'pragma':
        pragma = true;
        break;
      case 'authorization':
        asked.hasAuthorization = true;
        break;
      case 'range':
        if (head.method === 'GET') asked.range = fields.get('range');
        break;
      case 'if-range':
        asked.ifRange = fields.get('if-range');
        break;
      // Conditions that only an origin may judge (RFC 9111 §4.3.2).
      case 'if-match':
      case 'if-unmodified-since':
        asked.originOnly = true;
        break;
      case 'if-none-match':
        asked.ifNoneMatch = fields.get('if-none-match');
        break;
      case 'if-modified-since':
        asked.ifModifiedSince = fields.get('if-modified-since');
    }
  }
  if (controlled) asked.control = parseCacheControl(fields.get('cache-control')!);
  // RFC 9111 §5.4: only where there is no Cache-Control.
  else if (pragma && /(?:^|,)\s*no-cache\s*(?:,|$)/i.test(fields.get('pragma')!)) asked.control = NO_CACHE;
  return asked;
}
