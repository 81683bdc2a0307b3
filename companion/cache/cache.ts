// The cache room, in short (RFC 9111): look up, and store what upstream says or make do where it says nothing. Each step has its file: select.ts chooses
// among what is stored, serve.ts answers from it, collapse.ts lets others share what is on its way, revalidate.ts takes a 304, keep.ts stores. What the
// RFC decides is in policy.ts. How it all went is told in Cache-Status parameters (RFC 9211).
import type { ConfigCache } from '../../shared/config.ts';
import { Fault } from '../../shared/fault.ts';
import type { EpochMilliseconds } from '../../shared/units.ts';
import { letGo, type Answer, type RequestHead } from '../message/message.ts';
import type { Ask, Cache, CacheRequest, ExchangeTimes, Found } from '../rooms.ts';
import { type Asked, readRequest } from './asked.ts';
import { Collapsing } from './collapse.ts';
import type { DiskStore } from './disk-store.ts';
import { meantBy } from './freshen.ts';
import { invalidatedBy, isUnsafe, RecentInvalidations } from './invalidation.ts';
import { makeInventory } from './inventory.ts';
import { Keeping } from './keep.ts';
import { MemoryStore } from './memory-store.ts';
import { anew, askFor, type Miss, missOf } from './miss.ts';
import type { Inventory } from './office.ts';
import { completedAnswer } from './partial.ts';
import { lifetimeIn, type Semantics } from './policy.ts';
import { Refreshing } from './refreshing.ts';
import { Revalidating } from './revalidate.ts';
import { isCached, modeOf, select } from './select.ts';
import { hitOf, isSound, staleInstead } from './serve.ts';
import type { Store } from './store.ts';
import type { StoredResponse } from './stored-response.ts';
import { Tiers } from './tiers.ts';

/** What the file says of the cache, and what follows from the rest of it. */
export type CacheLimits = ConfigCache & {
  /** Whether answers with Set-Cookie may be kept: not where several people use this, or all sites share it. */
  readonly cookies: boolean;
};

/** RFC 5861 §4. */
const ERRORS: ReadonlySet<number> = new Set([500, 502, 503, 504]);

type Stored = ReturnType<Cache['store']>;

/** A cache that others can tell what has become invalid. */
export interface SharedCache extends Cache {
  /** For who asks what is stored. */
  readonly inventory: Inventory;
  /** An unsafe method made the URL invalid (RFC 9111 §4.4), seen elsewhere. */
  invalidate(url: string): void;
}

/** The cache of one process, over the disk where there is one; `memory: 0` keeps nothing in memory. `invalidated` hears of the URLs that became invalid here. */
export function createCache(
  limits: CacheLimits,
  invalidated?: (url: string) => void,
  disk: DiskStore | null = null,
): SharedCache {
  return new OneCache(limits, invalidated, disk);
}

class OneCache implements SharedCache {
  private readonly semantics: Semantics;
  /** Whether stale answers are served while upstream cannot be reached. */
  private readonly offline: boolean;
  private readonly invalidated: ((url: string) => void) | undefined;
  /** All tiers as one. */
  private readonly answers: Store;
  private readonly tiers: Tiers | null;
  private readonly invalidations = new RecentInvalidations();
  private readonly refreshing = new Refreshing();
  private readonly collapsing: Collapsing | null;
  private readonly revalidating: Revalidating;
  private readonly keeping: Keeping;
  readonly inventory: Inventory;

  constructor(limits: CacheLimits, invalidated: ((url: string) => void) | undefined, disk: DiskStore | null) {
    const semantics = semanticsOf(limits);
    this.semantics = semantics;
    this.offline = limits.offline === 'on';
    this.invalidated = invalidated;
    const memory = new MemoryStore(limits.memory);
    this.tiers = disk && new Tiers(memory, disk, limits.memory > 0 ? limits.entry : 0, semantics);
    this.answers = this.tiers ?? memory;
    const { answers, tiers, invalidations, refreshing, offline } = this;
    const sharing = { wait: limits.collapseWait * 1000, aggressive: semantics.aggressive, offline };
    this.collapsing = limits.collapse === 'on' ? new Collapsing(answers, invalidations, refreshing, sharing) : null;
    this.revalidating = new Revalidating(answers, semantics, invalidations);
    this.keeping = new Keeping(answers, tiers, disk, limits, semantics, invalidations, refreshing);
    this.inventory = makeInventory(
      answers,
      limits,
      url => this.invalidate(url),
      () => this.nothingOnItsWayCounts(),
    );
  }

  lookup(request: CacheRequest, now: EpochMilliseconds): Found {
    const asked = ((request.asked as Asked | undefined) ??= readRequest(request.head));
    const { aggressive } = this.semantics;
    let selected = select(this.answers, request, asked, now, true, aggressive);
    // Damage is a miss as long as nothing has been said.
    while ('stored' in selected && request.head.method === 'GET' && !isSound(selected.stored, asked)) {
      this.answers.remove(selected.stored);
      selected = select(this.answers, request, asked, now, true, aggressive);
    }
    const moment = this.invalidations.present;
    if ('stored' in selected) return hitOf(request, asked, selected, now, aggressive, moment, this.refreshing);
    if (asked.control.onlyIfCached && selected.why !== 'method' && isCached(request.decision)) {
      throw new Fault('only_if_cached', { target: targetOf(request.head) });
    }
    const miss = missOf(request, asked, selected, moment);
    return this.collapsing === null ? askFor(miss, '') : this.collapsing.join(miss, now);
  }

  store(ask: Ask, came: Answer, times: ExchangeTimes): Stored {
    const miss = ask.token as Miss;
    const { completing } = miss;
    miss.completing = null;
    const { status } = came.head;
    if (completing === null || (status !== 206 && status !== 416)) return this.take(miss, ask, came, times);
    const { stored, gap } = completing;
    const whole = status === 206 ? completedAnswer(stored.entry, gap, came, times.respondedAt) : null;
    // The origin does not keep to If-Range: what we have may be of another time.
    if (whole === null) return this.again(miss, ask, came, [stored]);
    return this.take(miss, { ...ask, status: `${ask.status}; fwd-status=206` }, whole, times);
  }

  private take(miss: Miss, ask: Ask, answer: Answer, times: ExchangeTimes): Stored {
    const { request, why, behind } = miss;
    const { status } = answer.head;
    if (behind !== null) this.refreshing.ended(behind);
    if (isUnsafe(request.head.method)) return told(ask, answer, this.unsafe(miss, answer, times));
    if (why === 'method' || why === 'bypass') return { answer, status: ask.status };
    if (status === 304) {
      const confirmed = this.confirmed(miss, ask, answer, times);
      if (confirmed !== null) return confirmed;
    }
    if (ERRORS.has(status) && behind === null) {
      const stale = staleInstead(miss, times.respondedAt, 'error', this.offline);
      if (stale !== null) {
        letGo(answer.body);
        miss.flight?.settled('error');
        return stale;
      }
    }
    return told(ask, answer, this.kept(miss, answer, times));
  }

  /** Throws Fault not_validated (RFC 9111 §5.2.2.2). */
  failed(ask: Ask, fault: Fault, now: EpochMilliseconds): { answer: Answer; status: string } | null {
    const miss = ask.token as Miss;
    const { passedOver, behind, flight } = miss;
    if (behind !== null) this.refreshing.ended(behind);
    if (fault.row.side !== 'upstream' || passedOver === null || behind !== null) {
      flight?.failed();
      return null;
    }
    const stale = staleInstead(miss, now, 'cut-off', this.offline);
    // Who waits need not find out, each for himself, that the origin is away.
    if (stale === null) flight?.failed();
    else flight?.settled('cut-off');
    const isForbidden = passedOver.mustValidate || !passedOver.permitsStale;
    if (stale !== null || !isForbidden || miss.why !== 'stale') return stale;
    // RFC 9111 §5.2.2.2: an error, and it should be a 504.
    throw new Fault('not_validated', { target: fault.target, hop: fault.hop, detail: fault.message, cause: fault });
  }

  pass(ask: Ask): void {
    const miss = ask.token as Miss;
    miss.flight?.settled('alone');
    if (miss.behind !== null) this.refreshing.ended(miss.behind);
  }

  peek(request: CacheRequest, now: EpochMilliseconds): string {
    const { aggressive } = this.semantics;
    const selected = select(this.answers, request, readRequest(request.head), now, false, aggressive);
    if (!('stored' in selected)) return `fwd=${selected.why}`;
    const { stored, age, isStale } = selected;
    const lifetime = lifetimeIn(modeOf(request.decision), stored, aggressive);
    return `${stored.hitStatus(age, lifetime)}${isStale ? '; detail=stale-while-revalidate' : ''}`;
  }

  invalidate(url: string): void {
    this.answers.drop(url);
    this.invalidations.add(url);
    this.collapsing?.drop(url);
  }

  clear(): void {
    // Who found out that something is out of date has told the disk himself.
    if (this.tiers === null) this.answers.purge({ all: true });
    else this.tiers.forget();
    this.nothingOnItsWayCounts();
  }

  /** What is still on its way is not stored: a purge would not reach it here, and the disk may be another cache's by now. */
  async close(): Promise<void> {
    this.invalidations.close();
    this.collapsing?.clear();
    await this.answers.close();
  }

  /** What was asked for until now is neither stored nor shared. */
  private nothingOnItsWayCounts(): void {
    this.invalidations.all();
    this.collapsing?.clear();
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
    return this.keeping.keep({ ...miss, moment: this.invalidations.present }, answer, times);
  }

  /** A 304 to what we have asked by; null where it is an answer to the client's own question alone. */
  private confirmed(miss: Miss, ask: Ask, came: Answer, times: ExchangeTimes): Stored | null {
    if (miss.validation === null) return null;
    const { candidates, alone } = miss.validation;
    const meant = meantBy(came.head.fields, candidates, alone);
    // The client has named no tags: it can only be about what we asked by, and says that of none.
    if (meant === null) return alone ? this.again(miss, ask, came, candidates) : null;
    const answer = this.revalidating.confirmed(miss, meant, came.head, times);
    if (answer === null) return this.again(miss, ask, came, [meant]);
    return { answer, status: `${ask.status}; fwd-status=304` };
  }

  /** An answer that is for the client as it is: stored where it may be, and else perhaps the end of what was. Null where it is not stored. */
  private kept(miss: Miss, answer: Answer, times: ExchangeTimes): Answer | null {
    const { request, behind, flight } = miss;
    const { method } = request.head;
    const { status } = answer.head;
    if (method === 'HEAD') this.revalidating.byHead(miss, answer.head, times);
    const kept = times.personal ? null : this.keeping.keep(miss, answer, times);
    if (kept === null) flight?.settled('alone');
    else if (Buffer.isBuffer(kept.body) || kept.body === null) flight?.settled('look');
    else if (behind !== null) this.refreshing.goesOn(behind, times.respondedAt);
    if (kept === null && method === 'GET' && !times.personal) this.keeping.outdated(miss, status);
    return kept;
  }

  /** What has come is of no use, and neither is what it was asked for with. All of it is asked for, as the client did. */
  private again(miss: Miss, ask: Ask, came: Answer, useless: readonly StoredResponse[]): Stored {
    letGo(came.body);
    for (const one of useless) this.answers.remove(one);
    return { answer: came, status: ask.status, again: askFor(anew(miss), '') };
  }
}

function semanticsOf({ semantics, targeted, heuristic, aggressive, cookies }: CacheLimits): Semantics {
  return {
    shared: semantics === 'shared',
    targeted,
    heuristic: heuristic * 1000,
    aggressive: aggressive * 1000,
    cookies,
  };
}

/** What the client is answered: with what is being stored, else with what came. */
function told(ask: Ask, came: Answer, kept: Answer | null): Stored {
  return kept === null ? { answer: came, status: ask.status } : { answer: kept, status: `${ask.status}; stored` };
}

function targetOf(head: RequestHead): { host: string; port: number } | undefined {
  return head.target.form === 'absolute' ? { host: head.target.host, port: head.target.port } : undefined;
}
