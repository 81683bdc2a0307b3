// Which stored answer a request may have (RFC 9111 §4), or why it may have none, and what the origin can be asked about then (§4.3.1).
import type { CacheMode, Decision } from '../../shared/decision/rule.ts';
import type { EpochMilliseconds, Milliseconds } from '../../shared/units.ts';
import type { CacheRequest } from '../rooms.ts';
import type { Asked } from './asked.ts';
import { currentAge, reusability } from './policy.ts';
import { hasAll } from './range-answer.ts';
import type { Store } from './store.ts';
import type { StoredResponse } from './stored-response.ts';
import { matches } from './vary.ts';

/** Why the origin is asked: what stands behind `fwd=` (RFC 9211 §2.2). */
export type Why = 'uri-miss' | 'vary-miss' | 'stale' | 'partial' | 'request' | 'bypass' | 'method';

/** The answer to give. */
export interface Chosen {
  readonly stored: StoredResponse;
  readonly age: Milliseconds;
  /** Given all the same, and asked for behind it (RFC 5861 §3). */
  readonly isStale: boolean;
}

/** There is none to give. */
export interface NoneChosen {
  readonly why: Why;
  /** The one that could not be used. */
  readonly passedOver: StoredResponse | null;
  /** What may be validated. */
  readonly candidates: readonly StoredResponse[];
}

const NOTHING: readonly StoredResponse[] = [];
/** Stored answers that the origin is asked about at once. */
const MAX_CANDIDATES = 8;

/** What the store has for a request. `touch`: it counts as used. `aggressive`: how long answers last at least in the mode of that name. */
export function select(
  store: Store,
  request: CacheRequest,
  asked: Asked,
  now: EpochMilliseconds,
  touch: boolean,
  aggressive: Milliseconds,
): Chosen | NoneChosen {
  const { method, fields, framing } = request.head;
  if (method !== 'GET' && method !== 'HEAD') return none('method');
  if (!isCached(request.decision) || asked.originOnly || framing.kind !== 'none') return none('bypass');
  const answers = touch ? store.get(request.url) : store.peek(request.url);
  let why: Why = 'uri-miss';
  for (const stored of answers ?? NOTHING) {
    if (stored.partition !== request.partition || stored.route !== request.route) continue;
    why = 'vary-miss';
    if (!matches(stored.selection, fields)) continue;
    // Personal by the look of it: only what may be shared is given to a request with credentials.
    if (asked.hasAuthorization && !stored.allowsSharing) return none('request');
    if (stored.partial !== null && !(method === 'GET' && hasAll(stored.entry, asked))) {
      return { why: 'partial', passedOver: stored, candidates: NOTHING };
    }
    const age = currentAge(stored, now);
    const use = reusability(stored, age, asked.control, modeOf(request.decision), aggressive);
    if (use === 'yes' || use === 'behind') return { stored, age, isStale: use === 'behind' };
    return { why: use, passedOver: stored, candidates: candidatesIn(answers!, request, stored) };
  }
  return none(why);
}

function none(why: Why): NoneChosen {
  return { why, passedOver: null, candidates: NOTHING };
}

/** RFC 9111 §4.3.1: what the origin can be asked about: what the request selects. */
function candidatesIn(
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

/** How its site is cached; `off` where no rule steers it. */
export function modeOf(decision: Decision): CacheMode {
  return decision.steered ? decision.cache : 'off';
}

/** Whether the cache has to do with it at all. */
export function isCached(decision: Decision): boolean {
  return decision.steered && decision.cache !== 'off';
}
