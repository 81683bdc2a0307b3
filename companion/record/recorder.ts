// Begins and ends the record of an exchange: its number, its times, its place in the log. The walk fills in what happened.
import type { Exchange } from '../../shared/exchange.ts';
import type { Bytes, EpochMilliseconds, Milliseconds } from '../../shared/units.ts';
import type { ExchangeDraft, Recorder } from '../rooms.ts';

/** Longest URL that is remembered; what is longer ends in an ellipsis. */
const MAX_REMEMBERED_URL = 2_048;

/** How often standing tunnels are looked at. */
const LOOK_EVERY: Milliseconds = 3_000;

export interface RecorderParts {
  /** The clock on the wall. */
  readonly now: () => EpochMilliseconds;
  /** A clock that never jumps, for durations. */
  readonly elapsed: () => Milliseconds;
  /** The registrable domain of a host, or the host itself. */
  readonly siteOf: (host: string) => string;
  /** Shows a standing tunnel. */
  readonly opened: (exchange: Exchange) => void;
  /** Shows again, every few seconds, a standing tunnel through which bytes have gone. */
  readonly moved: (exchange: Exchange) => void;
  /** Takes what has ended. */
  readonly ended: (exchange: Exchange) => void;
  /** How often standing tunnels are looked at, where not every three seconds. */
  readonly lookEvery?: Milliseconds | undefined;
}

/** What a record begins with. When that was by the clock that never jumps is no part of what is shown. */
class Draft implements ExchangeDraft {
  readonly id: number;
  readonly startedAt: EpochMilliseconds;
  kind: ExchangeDraft['kind'];
  method: string;
  url = '';
  host = '';
  site = '';
  fromSite: ExchangeDraft['fromSite'] = undefined;
  because: ExchangeDraft['because'] = { rule: 'default' };
  route: ExchangeDraft['route'] = 'companion';
  filter: ExchangeDraft['filter'] = 'standard';
  cache: ExchangeDraft['cache'] = 'off';
  blockedBy: ExchangeDraft['blockedBy'] = undefined;
  cacheStatus: ExchangeDraft['cacheStatus'] = undefined;
  readonly attempts: ExchangeDraft['attempts'] = [];
  status: ExchangeDraft['status'] = null;
  fault: ExchangeDraft['fault'] = undefined;
  sentence: ExchangeDraft['sentence'] = undefined;
  bytesUp: Bytes = 0;
  bytesDown: Bytes = 0;
  firstByteAfter: ExchangeDraft['firstByteAfter'] = undefined;
  took?: Milliseconds;
  readonly #begunAt: Milliseconds;

  constructor(id: number, startedAt: EpochMilliseconds, begunAt: Milliseconds, kind: Draft['kind'], method: string) {
    this.id = id;
    this.startedAt = startedAt;
    this.kind = kind;
    this.method = method;
    this.#begunAt = begunAt;
  }

  since(elapsed: Milliseconds): Milliseconds {
    return elapsed - this.#begunAt;
  }
}

/** A recorder. Its numbers count up from 1. */
export function makeRecorder(parts: RecorderParts): Recorder {
  let last = 0;
  /** Standing tunnels, each with the bytes that were shown of it. One timer looks at all, while there are any. */
  const standing = new Map<ExchangeDraft, Bytes>();
  let timer: ReturnType<typeof setInterval> | null = null;

  const look = () => {
    for (const [draft, shown] of standing) {
      const bytes = draft.bytesUp + draft.bytesDown;
      if (bytes === shown) continue;
      standing.set(draft, bytes);
      parts.moved(draft);
    }
  };

  const settle = (draft: ExchangeDraft) => {
    if (draft.site === '') draft.site = parts.siteOf(draft.host);
    if (draft.url.length > MAX_REMEMBERED_URL) draft.url = copied(draft.url.slice(0, MAX_REMEMBERED_URL)) + '…';
  };

  return {
    begin(kind, method) {
      return new Draft(++last, parts.now(), parts.elapsed(), kind, method);
    },
    firstByte(draft) {
      draft.firstByteAfter = (draft as Draft).since(parts.elapsed());
    },
    opened(draft) {
      settle(draft);
      parts.opened(draft);
      standing.set(draft, draft.bytesUp + draft.bytesDown);
      timer ??= setInterval(look, parts.lookEvery ?? LOOK_EVERY).unref();
    },
    finish(draft) {
      if (standing.delete(draft) && standing.size === 0) {
        clearInterval(timer!);
        timer = null;
      }
      settle(draft);
      draft.took = Math.max(0, (draft as Draft).since(parts.elapsed()));
      parts.ended(draft);
    },
  };
}

/** The same text without the longer one it was cut from, which a slice would keep alive. */
function copied(text: string): string {
  return Buffer.from(text).toString();
}
