// Answers out of the store: to a request that may have what is there, in the form that its conditions and ranges ask for; and, stale, in the place of an
// answer that upstream did not give.
import type { EpochMilliseconds, Milliseconds } from '../../shared/units.ts';
import type { Answer } from '../message/message.ts';
import type { CacheRequest, Hit } from '../rooms.ts';
import { type Asked, readRequest } from './asked.ts';
import { hasItAlready } from './conditional.ts';
import { askFor, type Miss, missOf } from './miss.ts';
import { currentAge, lifetimeIn, standsIn } from './policy.ts';
import { firstByte, hasAll, rangeAnswer } from './range-answer.ts';
import type { Refreshing } from './refreshing.ts';
import { type Chosen, modeOf } from './select.ts';
import type { StoredResponse } from './stored-response.ts';

/** An answer, and its Cache-Status parameters. */
export interface Instead {
  readonly answer: Answer;
  readonly status: string;
}

/** The chosen answer; with what is to be asked for behind it where it is stale. `moment`: the state of invalidations. */
export function hitOf(
  request: CacheRequest,
  asked: Asked,
  { stored, age, isStale }: Chosen,
  now: EpochMilliseconds,
  aggressive: Milliseconds,
  moment: number,
  refreshing: Refreshing,
): Hit {
  const hit = answerFrom(stored, age, asked, now);
  if (!isStale) {
    const lifetime = lifetimeIn(modeOf(request.decision), stored, aggressive);
    return lifetime === stored.lifetime ? hit : { ...hit, status: stored.hitStatus(age, lifetime) };
  }
  const status = `${hit.status}; detail=stale-while-revalidate`;
  if (asked.control.onlyIfCached || !refreshing.begins(stored, now)) return { ...hit, status };
  return { ...hit, status, refresh: askFor(refreshOf(request, stored, moment), '') };
}

/** Whether the body, where it is on the disk, is what was stored, as far as can be told before the head goes out: its first piece that is asked for. */
export function isSound(stored: StoredResponse, asked: Asked): boolean {
  const body = stored.elsewhere;
  return body?.isSound === undefined || body.isSound(firstByte(stored.entry, asked));
}

/** The request that makes a stale answer fresh again: without the client's own conditions. */
function refreshOf(request: CacheRequest, stored: StoredResponse, moment: number): Miss {
  const fields = request.head.fields.copy().delete('if-none-match').delete('if-modified-since');
  // A part must not take the place of a whole.
  if (stored.partial === null) fields.delete('range').delete('if-range');
  const own = { ...request, asked: undefined, head: { ...request.head, method: 'GET', fields, notes: undefined } };
  return missOf(own, readRequest(own.head), { why: 'stale', passedOver: stored, candidates: [stored] }, moment, stored);
}

/** A stored answer as this request is given it: a 304, a 206 or all of it. */
export function answerFrom(stored: StoredResponse, age: Milliseconds, asked: Asked, now: EpochMilliseconds): Hit {
  if ((asked.ifNoneMatch !== undefined || asked.ifModifiedSince !== undefined) && hasItAlready(asked, stored, now)) {
    return stored.notModified(age);
  }
  // RFC 9110 §13.2.2: Range comes behind the conditions.
  const answer = asked.range === undefined ? null : rangeAnswer(stored.entry, asked, age);
  if (answer !== null) return { kind: 'hit', answer, status: stored.hitStatus(age), refresh: null };
  return stored.hit(age);
}

/**
 * The stale answer in the place of an error (RFC 5861 §4), or of one that did not come (RFC 9111 §4.2.4); null where there is none, or it may not be.
 * `offline`: whether it may be for the only reason that upstream cannot be reached.
 */
export function staleInstead(
  { request, asked, passedOver }: Miss,
  now: EpochMilliseconds,
  why: 'error' | 'cut-off',
  offline: boolean,
): Instead | null {
  const mode = modeOf(request.decision);
  if (passedOver === null || (why === 'cut-off' && !offline && mode !== 'offline-first')) return null;
  if (!hasAll(passedOver.entry, asked)) return null;
  const age = currentAge(passedOver, now);
  if (!standsIn(passedOver, age, asked.control, mode, why)) return null;
  const { answer } = answerFrom(passedOver, age, asked, now);
  const detail = why === 'error' ? 'stale-if-error' : 'offline';
  return { answer, status: `${passedOver.hitStatus(age)}; detail=${detail}` };
}
