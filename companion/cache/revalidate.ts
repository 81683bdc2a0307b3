// What the origin confirms: a 304 to our own question (RFC 9111 §4.3.3, §4.3.4), and the answer to a HEAD (§4.3.5). What is stored takes its new fields
// (freshen.ts says how), or has to go.
import { Fields } from '../message/headers.ts';
import type { Answer, ResponseHead } from '../message/message.ts';
import type { ExchangeTimes } from '../rooms.ts';
import { hasItAlready } from './conditional.ts';
import { isStillTheSame, mergedLines, without } from './freshen.ts';
import type { RecentInvalidations } from './invalidation.ts';
import { askedFor, type Miss } from './miss.ts';
import { ageValue, hindranceOf, notKept, type Semantics, termsOf } from './policy.ts';
import { hasAll, rangeAnswer } from './range-answer.ts';
import type { Store } from './store.ts';
import { StoredResponse } from './stored-response.ts';
import { chosenBy, matches, sameSelection } from './vary.ts';

/** The way of confirmations into the store. */
export class Revalidating {
  private readonly store: Store;
  private readonly semantics: Semantics;
  private readonly invalidations: RecentInvalidations;

  constructor(store: Store, semantics: Semantics, invalidations: RecentInvalidations) {
    this.store = store;
    this.semantics = semantics;
    this.invalidations = invalidations;
  }

  /** Freshens what a 304 means, and answers the client; null where a part by its new fields does not do. */
  confirmed(miss: Miss, meant: StoredResponse, { fields }: ResponseHead, times: ExchangeTimes): Answer | null {
    const { asked, flight } = miss;
    const fresh = this.freshened(meant, fields, miss, times);
    const stored = fresh ?? meant;
    if (!hasAll(stored.entry, asked)) return null;
    const isStored = fresh !== null && this.put(meant, fresh, miss, times);
    if (!isStored && !times.personal) this.store.remove(meant);
    flight?.settled(isStored ? 'look' : 'alone');
    const hasIt = hasItAlready(asked, stored, times.respondedAt);
    const range = hasIt || asked.range === undefined ? null : rangeAnswer(stored.entry, asked, stored.initialAge);
    return range ?? stored.validated(fields.get('age'), hasIt);
  }

  /** What the answer to a HEAD says of the stored answers that a GET would have got. */
  byHead(miss: Miss, head: ResponseHead, times: ExchangeTimes): void {
    const { request } = miss;
    if (times.personal || (head.status !== 200 && head.status !== 404 && head.status !== 410)) return;
    for (const stored of this.store.peek(request.url) ?? []) {
      if (stored.route !== request.route || stored.partition !== request.partition) continue;
      if (stored.partial !== null || !matches(stored.selection, request.head.fields)) continue;
      stored.hold();
      const isSame = head.status === 200 && stored.status === 200 && isStillTheSame(stored, head.fields);
      // Unless it was asked whether it still is what we have: that would have been a 304.
      if (isSame === null && !miss.validation?.candidates.includes(stored)) continue;
      const fresh = isSame ? this.freshened(stored, head.fields, miss, times) : null;
      if (fresh === null || !this.put(stored, fresh, miss, times)) this.store.remove(stored);
    }
  }

  /** The stored answer with the fields that confirm it; null where what it has become cannot be kept. */
  private freshened(stored: StoredResponse, fields: Fields, miss: Miss, times: ExchangeTimes): StoredResponse | null {
    const merged = mergedLines(stored.entry.lines, fields, times.respondedAt);
    if (merged === null) return null;
    // By what is said now, or was said then and still stands.
    const terms = termsOf(stored.status, new Fields(merged as string[]), times, this.semantics);
    const lines = without(notKept(terms, this.semantics), merged);
    const selection = chosenBy(new Fields(lines as string[]), miss.request.head.fields);
    if (selection === 'never') return null;
    const { requestedAt, respondedAt } = times;
    const fresh = { lines, selection, requestedAt, respondedAt, ageValue: ageValue(fields), pinned: stored.pinned };
    return new StoredResponse({ ...stored.entry, ...fresh }, this.semantics, terms);
  }

  /** Keeps a freshened answer, where that may still be kept. */
  private put(meant: StoredResponse, fresh: StoredResponse, miss: Miss, times: ExchangeTimes): boolean {
    if (times.personal || this.invalidations.since(meant.url, miss.moment)) return false;
    const fields = new Fields(fresh.entry.lines as string[]);
    const terms = termsOf(fresh.status, fields, times, this.semantics);
    const asked = askedFor(miss, 'GET');
    // A fresh answer to a POST stays what it was.
    if (hindranceOf(asked, fresh.status, fields, terms, fresh.initialAge, this.semantics) !== null) return false;
    if (sameSelection(meant.selection, fresh.selection) && this.store.replace(meant, fresh)) return true;
    // A body that is elsewhere belongs to what is there.
    return fresh.entry.body.bytes !== null && this.store.put(fresh);
  }
}
