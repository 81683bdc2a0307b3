// Begins and ends the record of an exchange: its number, its times, its place in the log. The walk fills in what happened.
import type { Exchange } from '../../shared/exchange.ts';
import type { EpochMilliseconds, Milliseconds } from '../../shared/units.ts';
import type { ExchangeDraft, Recorder } from '../rooms.ts';

/** Longest URL that is remembered; what is longer ends in an ellipsis. */
const MAX_REMEMBERED_URL = 2_048;

export interface RecorderParts {
  /** The clock on the wall. */
  readonly now: () => EpochMilliseconds;
  /** A clock that never jumps, for durations. */
  readonly elapsed: () => Milliseconds;
  /** The registrable domain of a host, or the host itself. */
  readonly siteOf: (host: string) => string;
  /** Shows a standing tunnel. */
  readonly opened: (exchange: Exchange) => void;
  /** Takes what has ended. */
  readonly ended: (exchange: Exchange) => void;
}

const begunAt = Symbol('begunAt');
type Running = ExchangeDraft & { [begunAt]: Milliseconds };

/** A recorder. Its numbers count up from 1. */
export function makeRecorder(parts: RecorderParts): Recorder {
  let last = 0;

  const settle = (draft: ExchangeDraft) => {
    if (draft.site === '') draft.site = parts.siteOf(draft.host);
    if (draft.url.length > MAX_REMEMBERED_URL) draft.url = copied(draft.url.slice(0, MAX_REMEMBERED_URL)) + '…';
  };

  return {
    begin(kind, method) {
      const draft: Running = {
        id: ++last,
        startedAt: parts.now(),
        kind,
        method,
        url: '',
        host: '',
        site: '',
        fromSite: undefined,
        because: { rule: 'default' },
        route: 'companion',
        filter: 'standard',
        cache: 'off',
        blockedBy: undefined,
        cacheStatus: undefined,
        attempts: [],
        status: null,
        fault: undefined,
        sentence: undefined,
        bytesUp: 0,
        bytesDown: 0,
        firstByteAfter: undefined,
        took: undefined,
        [begunAt]: parts.elapsed(),
      };
      return draft;
    },
    firstByte(draft) {
      draft.firstByteAfter = parts.elapsed() - (draft as Running)[begunAt];
    },
    opened(draft) {
      settle(draft);
      parts.opened(draft);
    },
    finish(draft) {
      settle(draft);
      draft.took = Math.max(0, parts.elapsed() - (draft as Running)[begunAt]);
      parts.ended(draft);
    },
  };
}

/** The same text without the longer one it was cut from, which a slice would keep alive. */
function copied(text: string): string {
  return Buffer.from(text).toString();
}
