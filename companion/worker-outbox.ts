// What a worker's process has to tell the companion's, until that takes it: in batches, bounded, and so that nothing is left out which others rely on: the
// end of a tunnel that was shown, and news. Of news only the last word on each thing waits.
import { type DatedNews, type Happening, holdsAlways } from './worker-messages.ts';
import type { News } from './worker.ts';

/** What happened waits so long for company, in milliseconds … */
const BATCH_AGE = 20;
/** … unless there is so much of it. */
const BATCH = 256;
/** Records that may wait for a companion that does not keep up; beyond it, only tunnels that it was told of are ended. */
const MAX_WAITING = 20_000;
/** Invalid URLs that may wait, and as many other news. With one more, everything is invalid; of the others the oldest goes. */
const MAX_NEWS = 4_096;

type Recorded = Exclude<Happening, { readonly what: 'news' }>;

export interface Outbox {
  /** Takes a record of an exchange. */
  record(happening: Recorded): void;
  /** Takes what was found out while this revision was in force. */
  tell(news: News, revision: number): void;
  /** Fulfilled when everything has been sent. */
  empty(): Promise<void>;
}

/** Sends one batch; the next waits until `taken` is called. `missed`: exchanges that were left out before it. */
export type SendBatch = (batch: readonly Happening[], missed: number, taken: () => void) => void;

export function makeOutbox(sendBatch: SendBatch): Outbox {
  let waiting: Recorded[] = [];
  /** Tunnels whose end the companion waits for. */
  const shown = new Set<number>();
  const invalid = new Set<string>();
  const others = new Map<string, DatedNews>();
  let allInvalid = false;
  let missed = 0;
  let underway = false;
  let timer: NodeJS.Timeout | undefined;
  let whenEmpty: (() => void) | null = null;

  const count = () => waiting.length + invalid.size + others.size + (allInvalid ? 1 : 0);

  /** News go first: they are few, and others act by them. */
  const nextBatch = (): Happening[] => {
    const batch: Happening[] = [];
    if (allInvalid) batch.push({ what: 'news', revision: null, news: { outcome: 'invalidated', url: null } });
    allInvalid = false;
    for (const url of invalid) {
      if (batch.length >= BATCH) return batch;
      invalid.delete(url);
      batch.push({ what: 'news', revision: null, news: { outcome: 'invalidated', url } });
    }
    for (const [key, dated] of others) {
      if (batch.length >= BATCH) return batch;
      others.delete(key);
      batch.push({ what: 'news', ...dated });
    }
    const room = BATCH - batch.length;
    if (waiting.length <= room) {
      batch.push(...waiting);
      waiting = [];
    } else batch.push(...waiting.splice(0, room));
    return batch;
  };

  const send = () => {
    clearTimeout(timer);
    timer = undefined;
    if (underway) return;
    if (count() === 0) {
      whenEmpty?.();
      return;
    }
    underway = true;
    const left = missed;
    missed = 0;
    sendBatch(nextBatch(), left, () => {
      underway = false;
      const more = count();
      if (more >= BATCH || whenEmpty !== null || invalid.size > 0 || allInvalid) send();
      else if (more > 0) timer ??= setTimeout(send, BATCH_AGE);
    });
  };

  /** What is invalid goes at once: who has posted reads next, maybe from another worker. */
  const sendSoon = () => {
    if (count() >= BATCH || invalid.size > 0 || allInvalid) send();
    else timer ??= setTimeout(send, BATCH_AGE);
  };

  /** Whether it must be left out. */
  const isTooMuch = ({ what, exchange: { id } }: Recorded): boolean => {
    // There are no more of these than connections.
    if (what === 'ended' && shown.delete(id)) return false;
    if (waiting.length >= MAX_WAITING) {
      if (what === 'ended') missed++;
      return true;
    }
    if (what === 'opened') shown.add(id);
    return false;
  };

  return {
    record(happening) {
      if (isTooMuch(happening)) return;
      waiting.push(happening);
      sendSoon();
    },
    tell(news, revision) {
      if (news.outcome === 'invalidated') {
        if (news.url !== null && invalid.size < MAX_NEWS) {
          if (!allInvalid) invalid.add(news.url);
        } else {
          invalid.clear();
          allInvalid = true;
        }
      } else {
        const key = keyOf(news);
        others.delete(key);
        others.set(key, { revision: holdsAlways(news) ? null : revision, news });
        if (others.size > MAX_NEWS) others.delete(others.keys().next().value!);
      }
      sendSoon();
    },
    empty: () =>
      new Promise(resolve => {
        whenEmpty = resolve;
        send();
      }),
  };
}

/** By what later news replaces it. */
function keyOf(news: Exclude<News, { readonly outcome: 'invalidated' }>): string {
  if (news.outcome === 'guessed') return `${news.address} ${Buffer.from(news.digest).toString('latin1')}`;
  if (news.outcome === 'site') return `= ${news.site}`;
  if (news.outcome === 'pins') return '!';
  if (news.outcome === 'stuck') return `@ ${news.route} ${news.site}`;
  if (news.outcome === 'link-failed' || news.outcome === 'link-worked') return `> ${news.link}`;
  if (news.outcome === 'measured') return `~ ${news.chain}`;
  return `${news.site} ${news.chain}`;
}
