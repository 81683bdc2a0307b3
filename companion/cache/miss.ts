// A request that the store does not answer: why, what is asked of the origin instead, and what the cache must know when its answer comes.
import type { Bytes } from '../../shared/units.ts';
import type { RequestHead } from '../message/message.ts';
import type { Ask, CacheRequest } from '../rooms.ts';
import type { Asked } from './asked.ts';
import { type Validation, validationOf } from './conditional.ts';
import type { Filling } from './filling.ts';
import type { Flight } from './in-flight.ts';
import { completingRequest } from './partial.ts';
import type { AskedFor } from './policy.ts';
import type { ByteRange } from './ranges.ts';
import type { NoneChosen, Why } from './select.ts';
import type { StoredResponse } from './stored-response.ts';

/** What the cache must know of a request that was not answered here; the token of its Ask. */
export interface Miss {
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
export interface Live {
  /** It without its body; made when the first asks. */
  readonly stored: () => StoredResponse;
  readonly length: Bytes | null;
  readonly filling: Filling;
}

/** What is stored of it stays readable until the origin has answered. */
export function missOf(
  request: CacheRequest,
  asked: Asked,
  { why, passedOver, candidates }: NoneChosen,
  moment: number,
  behind: StoredResponse | null = null,
): Miss {
  passedOver?.hold();
  for (const one of candidates) one.hold();
  const validation = asked.control.noStore ? null : validationOf(request.head, asked, candidates);
  const miss: Miss = { request, why, asked, passedOver, validation, behind, moment, flight: null, completing: null };
  if (why === 'partial') miss.completing = completing(miss);
  return miss;
}

/** What is to be asked for to make an incomplete answer whole; null where the client's own request is sent. */
function completing({ passedOver, asked, request }: Miss): Miss['completing'] {
  const { control, ifNoneMatch, ifModifiedSince, range } = asked;
  if (request.head.method !== 'GET' || control.noCache || passedOver === null) return null;
  if (ifNoneMatch !== undefined || ifModifiedSince !== undefined || range !== undefined) return null;
  const made = completingRequest(request.head, passedOver.entry);
  return made === null ? null : { stored: passedOver, ...made };
}

/** The same with nothing stored to ask by: all of it, as the client asks for it. */
export function anew(miss: Miss): Miss {
  return { ...miss, passedOver: null, validation: null, completing: null };
}

/** What goes upstream. `how`: more Cache-Status parameters, each with its `; ` in front. */
export function askFor(miss: Miss, how: string): Ask {
  return {
    kind: 'ask',
    request: miss.completing?.request ?? miss.validation?.request ?? miss.request.head,
    status: `fwd=${miss.why}${how}`,
    token: miss,
  };
}

/** What storing depends on, of the request, were it made with this method. */
export function askedFor({ request, asked }: Miss, method: string): AskedFor {
  return { method, url: request.url, hasAuthorization: asked.hasAuthorization, noStore: asked.control.noStore };
}
