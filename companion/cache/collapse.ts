// Who shares what another is being sent (in-flight.ts tells when): whether a request may wait for another's answer, and what it then gets of it.
import type { EpochMilliseconds, Milliseconds } from '../../shared/units.ts';
import type { Fields } from '../message/headers.ts';
import type { ResponseHead } from '../message/message.ts';
import type { Ask, CacheRequest, Follow, Hit } from '../rooms.ts';
import { type Flight, InFlight } from './in-flight.ts';
import type { RecentInvalidations } from './invalidation.ts';
import { askFor, type Live, type Miss, missOf } from './miss.ts';
import { currentAge, reusability } from './policy.ts';
import type { Refreshing } from './refreshing.ts';
import { modeOf, select } from './select.ts';
import { answerFrom, hitOf, staleInstead } from './serve.ts';
import { spaceOf, type Store } from './store.ts';
import { matches, selectionOf } from './vary.ts';

/** Behind hops whoever waits may be who is waited for: a chain that leads back here asks us for the same. It shall not take long to be found out (A44). */
const MAY_BE_A_LOOP: Milliseconds = 1_000;

export interface CollapsingOptions {
  /** How long anybody waits for one leader. */
  readonly wait: Milliseconds;
  /** How long answers last at least in the mode `aggressive`. */
  readonly aggressive: Milliseconds;
  /** Whether stale answers are served while upstream cannot be reached. */
  readonly offline: boolean;
}

/** The requests on their way out, as those see them that could wait for one. */
export class Collapsing {
  private readonly inFlight = new InFlight<Live>();
  private readonly store: Store;
  private readonly invalidations: RecentInvalidations;
  private readonly refreshing: Refreshing;
  private readonly options: CollapsingOptions;

  constructor(store: Store, invalidations: RecentInvalidations, refreshing: Refreshing, options: CollapsingOptions) {
    this.store = store;
    this.invalidations = invalidations;
    this.refreshing = refreshing;
    this.options = options;
  }

  /** Behind another who asks for the same; else out, and others may follow. */
  join(miss: Miss, now: EpochMilliseconds): Hit | Ask | Follow {
    if (!mayCollapse(miss)) return askFor(miss, '');
    const { request, asked } = miss;
    const space = spaceOf(request.route, request.partition);
    const accepts = miss.why === 'vary-miss' ? this.sameChoice(request) : null;
    const flight = this.inFlight.find(request.url, space, accepts);
    if (flight !== null) return insists(miss) ? askFor(miss, '') : this.follow(miss, flight, now);
    // An answer to conditions of its own is nobody else's.
    if (asked.ifNoneMatch === undefined && asked.ifModifiedSince === undefined) {
      const { wait } = this.options;
      const bound = request.behindHops ? Math.min(wait, MAY_BE_A_LOOP) : wait;
      miss.flight = this.inFlight.lead(request.url, space, request.head.fields, bound);
    }
    return askFor(miss, '');
  }

  /** Whoever asks for the URL from now on gets nothing that was asked for before. */
  drop(url: string): void {
    this.inFlight.drop(url);
  }

  /** The same for every URL. */
  clear(): void {
    this.inFlight.clear();
  }

  /** Whether another would, by what is stored of the URL, be sent the same variant (RFC 9111 §4.1). */
  private sameChoice({ url, route, partition, head }: CacheRequest): ((asked: Fields) => boolean) | null {
    const variant = this.store.peek(url)?.find(one => one.route === route && one.partition === partition);
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
        } else if (word === 'alone') tell(alone(miss));
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
  private look({ request, asked, why }: Miss, now: EpochMilliseconds): Hit | Ask {
    const { aggressive } = this.options;
    const moment = this.invalidations.present;
    const selected = select(this.store, request, asked, now, true, aggressive);
    // What may only be used once the origin has confirmed it (no-cache) is asked about by what it is now.
    if (!('stored' in selected)) return alone(missOf(request, asked, selected, moment));
    const { answer, refresh } = hitOf(request, asked, selected, now, aggressive, moment, this.refreshing);
    // Who has waited takes it later than at once: made now, it is his whatever becomes of what is stored.
    const { head, body } = answer;
    return { kind: 'hit', answer: { head, body }, status: `fwd=${why}; collapsed`, refresh };
  }

  /** The stale answer for one who has waited for an origin that has none. */
  private sameInstead(miss: Miss, now: EpochMilliseconds, why: 'error' | 'cut-off'): Hit | Ask {
    const stale = staleInstead(miss, now, why, this.options.offline);
    return stale === null ? alone(miss) : { kind: 'hit', ...stale, refresh: null };
  }

  /** An answer whose body is on its way; an Ask where it is not for this request; null where it must be whole first. */
  private takeLive(miss: Miss, live: Live, now: EpochMilliseconds): Hit | Ask | null {
    const { request, asked, why } = miss;
    const { filling, length } = live;
    const stored = live.stored();
    const age = currentAge(stored, now);
    if (!matches(stored.selection, request.head.fields)) return alone(miss);
    const use = reusability(stored, age, asked.control, modeOf(request.decision), this.options.aggressive);
    if (use !== 'yes') return alone(miss);
    const { answer } = answerFrom(stored, age, asked, now);
    const status = `fwd=${why}; collapsed`;
    if (answer.head.status === 304) return { kind: 'hit', answer, status, refresh: null };
    const body = filling.join();
    if (body === null || length === null) return null;
    const head: ResponseHead = { ...answer.head, framing: { kind: 'length', length } };
    return { kind: 'hit', answer: { head, body }, status, refresh: null };
  }
}

/** It has waited for nothing (RFC 9211 §2.6). */
function alone(miss: Miss): Ask {
  return askFor(miss, '; collapsed=?0');
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
