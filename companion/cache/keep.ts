// Keeps answers: judges whether one may be stored (RFC 9111 §3), and brings it into the store, at once or when its body has passed; parts of it, too, and
// what there is of one that broke off (§3.3, §3.4).
import type { Bytes } from '../../shared/units.ts';
import type { Answer, BodySource, ResponseHead } from '../message/message.ts';
import type { ExchangeTimes } from '../rooms.ts';
import type { DiskFilling, DiskStore } from './disk-store.ts';
import { Budget, exactCopy, Filling } from './filling.ts';
import { storedLines } from './freshen.ts';
import type { RecentInvalidations } from './invalidation.ts';
import { askedFor, type Miss } from './miss.ts';
import { combine, type ContentRange, contentRangeOf, entryValidator, incompleteEntry, isOfSame } from './partial.ts';
import {
  ageValue,
  correctedInitialAge,
  type Hindrance,
  hindranceOf,
  notKept,
  type Semantics,
  type Terms,
  termsOf,
} from './policy.ts';
import type { Refreshing } from './refreshing.ts';
import { type Entry, haveOnePlace, MemoryBody, spaceOf, type Store } from './store.ts';
import { StoredResponse } from './stored-response.ts';
import type { Tiers } from './tiers.ts';
import { chosenBy, type Selection } from './vary.ts';

/** A buffer of its own costs one that is smaller more than the copy does. */
const SMALL: Bytes = 4_096;

export interface KeepingLimits {
  /** Memory that all unfinished bodies may take. */
  readonly memory: Bytes;
  /** The largest body that is kept in memory. */
  readonly entry: Bytes;
  /** With no more than this still to come, a body that nobody reads any more is fetched to its end. */
  readonly finish: Bytes;
}

/** An answer that will be stored when its body is there. */
interface Coming {
  /** Taken from the head now: that goes on to the client, who may change it. */
  readonly like: Omit<Entry, 'status' | 'reason' | 'body' | 'partial'>;
  readonly status: number;
  readonly reason: string;
  readonly terms: Terms;
  /** What its body is of the whole; null: all of it. */
  readonly part: ContentRange | null;
  /** Of its body, if it is known. */
  readonly length: Bytes | null;
  /** The state of invalidations when it was asked for. */
  readonly moment: number;
}

/** The way of an answer into the store. */
export class Keeping {
  private readonly store: Store;
  private readonly tiers: Tiers | null;
  private readonly disk: DiskStore | null;
  private readonly limits: KeepingLimits;
  private readonly semantics: Semantics;
  private readonly invalidations: RecentInvalidations;
  private readonly refreshing: Refreshing;
  private readonly unfinished: Budget;

  /** `tiers` is the store again, where it has a disk. */
  constructor(
    store: Store,
    tiers: Tiers | null,
    disk: DiskStore | null,
    limits: KeepingLimits,
    semantics: Semantics,
    invalidations: RecentInvalidations,
    refreshing: Refreshing,
  ) {
    this.store = store;
    this.tiers = tiers;
    this.disk = disk;
    this.limits = limits;
    this.semantics = semantics;
    this.invalidations = invalidations;
    this.refreshing = refreshing;
    this.unfinished = new Budget(limits.memory);
  }

  /** The answer to go on with, of which what passes is stored; null when it may not be stored. */
  keep(miss: Miss, answer: Answer, times: ExchangeTimes): Answer | null {
    const { head, body } = answer;
    const coming = this.coming(miss, head, times);
    if (coming === null) return null;
    if (body === null || Buffer.isBuffer(body)) return this.putWhole(coming, body) ? answer : null;
    const filling = this.fill(miss, coming, head.status, body);
    return filling.isKept ? { head, body: filling.leader } : null;
  }

  /** What the origin says now is newer than what it said then (RFC 9111 §4), also where it is not kept; an error tells nothing of the resource, and a 304 confirms it. */
  outdated({ passedOver }: Miss, status: number): void {
    if (passedOver !== null && status < 500 && ![206, 304, 416].includes(status)) this.store.remove(passedOver);
  }

  private coming(miss: Miss, head: ResponseHead, times: ExchangeTimes): Coming | null {
    const { request, moment } = miss;
    const judged = this.judge(miss, head, times);
    if (typeof judged === 'string') return null;
    const { selection, terms } = judged;
    const range = contentRangeOf(head);
    // One that nobody asked for is the origin's mistake.
    if (head.status === 206 && (range === null || miss.asked.range === undefined)) return null;
    // All of it in one part (`bytes=0-`, as media are asked for) is the whole.
    const isAll = range !== null && range.from === 0 && range.to === range.complete;
    const left = notKept(terms, this.semantics);
    return {
      like: {
        url: request.url,
        space: spaceOf(request.route, request.partition),
        site: request.site,
        selection,
        lines: storedLines(head.fields, times.respondedAt, isAll ? [...left, 'content-range'] : left),
        requestedAt: times.requestedAt,
        respondedAt: times.respondedAt,
        ageValue: ageValue(head.fields),
        pinned: false,
      },
      status: isAll ? 200 : head.status,
      reason: isAll ? 'OK' : head.reason,
      terms,
      part: isAll ? null : range,
      length: range !== null ? range.to - range.from : head.framing.kind === 'length' ? head.framing.length : null,
      moment,
    };
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
    const asking = askedFor(miss, request.head.method);
    const hindrance = hindranceOf(asking, status, fields, terms, initialAge, this.semantics);
    if (hindrance !== null) return hindrance;
    // That a range cannot be had says nothing of the rest.
    if (asked.range !== undefined && status === 416) return 'status';
    if (framing.kind === 'length' && framing.length > this.limits.entry && !this.disk?.takes(framing.length))
      return 'size';
    const selection = chosenBy(fields, request.head.fields);
    return selection === 'never' ? 'vary' : { terms, selection };
  }

  /** Stores what has come as a whole. */
  private putWhole(coming: Coming, body: Buffer | null): boolean {
    const came = body?.length ?? 0;
    if (coming.length !== null && coming.length !== came) return false;
    // A part is put together with others, in memory.
    if (came > this.limits.entry && (coming.part !== null || this.disk?.takes(came) !== true)) return false;
    // A small one is copied into a slab next, or onto the disk: memory that many share serves until then.
    const own = body === null ? Buffer.alloc(0) : came < SMALL ? Buffer.from(body) : exactCopy(body);
    return this.put(coming, entryOf(coming, own));
  }

  /** Stores it when its body has passed; who follows may have it while it does. `cameAs`: the status it has for the client. */
  private fill(miss: Miss, coming: Coming, cameAs: number, body: BodySource): Filling {
    const { like, status, reason, part, length, terms, moment } = coming;
    const { entry: limit, finish } = this.limits;
    const { flight } = miss;
    let toDisk: DiskFilling | null = null;
    /** What is too large for memory. Nobody can read it along, and to wait for the end of it is to wait long. */
    const large = (): DiskFilling | null => {
      toDisk = this.tiers?.begin(length) ?? null;
      if (toDisk !== null) flight?.settled('alone');
      return toDisk;
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
        if (miss.behind !== null) this.refreshing.ended(miss.behind);
        if (Buffer.isBuffer(whole)) {
          const isStored = this.put(coming, entryOf(coming, whole));
          if (!isStored) this.outdated(miss, cameAs);
          flight?.settled(isStored ? 'look' : 'alone');
        } else if (this.invalidations.since(like.url, moment)) toDisk!.abort();
        else toDisk!.commit({ ...like, status, reason });
      },
      lost: (why, soFar) => {
        if (soFar !== null) this.putBroken(coming, soFar);
        if (miss.behind !== null) this.refreshing.ended(miss.behind);
        if (why === 'much') {
          this.outdated(miss, cameAs);
          flight?.settled('alone');
        } else flight?.failed();
      },
    });
    if (part !== null || !filling.isShareable || !filling.isKept) return filling;
    let bare: StoredResponse | null = null;
    const stored = () => (bare ??= new StoredResponse(entryOf(coming, Buffer.alloc(0)), this.semantics, terms));
    flight?.shared({ stored, length, filling });
    return filling;
  }

  /** RFC 9111 §3.3: stores what there is of one that broke off, where the rest can be asked for. */
  private putBroken(coming: Coming, soFar: Buffer): void {
    const { like, status, part, length } = coming;
    const { from, complete } = part ?? { from: 0, complete: length };
    if (soFar.length === 0 || complete === null || (part === null && status !== 200)) return;
    const fresh = incompleteEntry(like, from, exactCopy(soFar), complete);
    if (entryValidator(fresh) === null) return;
    const before = this.inPlaceOf(fresh);
    // The whole of another time is worth more than a piece of now.
    if (before === undefined || before.partial !== null || isOfSame(before.entry, fresh)) this.put(coming, fresh);
  }

  /** False where it has become invalid since it was asked for, or the store does not take it. */
  private put({ moment }: Coming, entry: Entry): boolean {
    if (this.invalidations.since(entry.url, moment)) return false;
    return entry.partial === null ? this.store.put(new StoredResponse(entry, this.semantics)) : this.putPart(entry);
  }

  /** Puts a part into its place, together with what is stored already (RFC 9111 §3.4). Of a whole it only freshens the fields, wherever that one's body lies. */
  private putPart(fresh: Entry): boolean {
    const before = this.inPlaceOf(fresh);
    if (before === undefined) return this.store.put(new StoredResponse(fresh, this.semantics));
    const old = { ...before.entry, pinned: before.pinned };
    const entry = combine(old, fresh, this.limits.entry);
    const response = new StoredResponse(entry, this.semantics);
    return entry.body === old.body ? this.store.replace(before, response) : this.store.put(response);
  }

  /** What is stored already in the place of this one. */
  private inPlaceOf(entry: Entry): StoredResponse | undefined {
    return this.store.peek(entry.url)?.find(one => haveOnePlace(one, entry));
  }
}

/** `body` must be the cache's own. */
function entryOf({ like, status, reason, part }: Coming, body: Buffer): Entry {
  return part === null
    ? { ...like, status, reason, body: new MemoryBody(body), partial: null }
    : incompleteEntry(like, part.from, body, part.complete);
}
