// What a worker tells while the companion does not listen, and what comes of it in the log.
import { expect, test } from 'vitest';
import { makeIntakes } from '../../companion/record/intake.ts';
import { makeRecorder } from '../../companion/record/recorder.ts';
import { TrafficLog } from '../../companion/record/traffic-log.ts';
import { type DatedNews, type Happening, holdsUnder } from '../../companion/worker-messages.ts';
import { makeOutbox } from '../../companion/worker-outbox.ts';

/** An outbox with a companion that takes the first batch and no other, until it is told to. */
function stalled() {
  const sent: Happening[] = [];
  let missed = 0;
  let largest = 0;
  let held: (() => void) | null = null;
  let listens = false;
  const outbox = makeOutbox((batch, left, taken) => {
    sent.push(...batch);
    missed += left;
    largest = Math.max(largest, batch.length);
    if (listens) queueMicrotask(taken);
    else held = taken;
  });
  return {
    outbox,
    /** The companion listens again; all that was sent. */
    async goOn() {
      listens = true;
      const empty = outbox.empty();
      held?.();
      await empty;
      return { sent, missed, largest, news: sent.filter(one => one.what === 'news') as (Happening & DatedNews)[] };
    },
  };
}

function recorderOf(outbox: ReturnType<typeof makeOutbox>) {
  return makeRecorder({
    now: Date.now,
    elapsed: () => performance.now(),
    siteOf: host => host,
    opened: exchange => outbox.record({ what: 'opened', exchange: { ...exchange } }),
    moved: exchange => outbox.record({ what: 'moved', exchange: { ...exchange } }),
    ended: exchange => outbox.record({ what: 'ended', exchange }),
  });
}

test('with 20,000 records waiting, tunnels that were shown still end, news are told, and the rest is counted as missing', async () => {
  const { outbox, goOn } = stalled();
  const recorder = recorderOf(outbox);
  const begin = (host: string) => Object.assign(recorder.begin('connect', 'CONNECT'), { host });
  const early = Array.from({ length: 100 }, () => begin('early.test'));
  for (const draft of early) recorder.opened(draft);
  for (let i = 0; i < 21_000; i++) recorder.finish(begin('plain.test'));
  const late = begin('late.test');
  recorder.opened(late);
  for (const draft of early) recorder.finish(draft);
  recorder.finish(late);
  outbox.tell({ outcome: 'invalidated', url: 'http://a.test/' }, 1);
  outbox.tell({ outcome: 'guessed', address: '192.0.2.1', digest: Buffer.from('wrong') }, 1);
  outbox.tell({ outcome: 'worked', site: 'a.test', chain: 'one' }, 1);

  const { sent, news, missed, largest } = await goOn();
  expect(largest).toBeLessThanOrEqual(256);
  expect(news.map(one => one.news.outcome)).toEqual(['invalidated', 'guessed', 'worked']);
  const ended = sent.filter(one => one.what === 'ended');
  expect(ended.length + missed).toBe(21_101);
  expect(missed).toBeGreaterThan(500);
  expect(sent.length).toBe(20_000 + 100 + 3 + 256);

  // In the log no tunnel stands any more.
  const log = new TrafficLog(1_000);
  let added = 0;
  const intake = makeIntakes({
    opened: exchange => log.opened(exchange),
    moved: exchange => log.moved(exchange),
    ended(exchange) {
      added++;
      log.add(exchange);
    },
    now: Date.now,
  })();
  for (const one of sent) if (one.what !== 'news') intake[one.what](one.exchange);
  expect(log.counts('early.test').requests).toBe(100);
  expect(log.recent(1_000).filter(({ took }) => took === undefined)).toEqual([]);
  intake.gone();
  expect(added).toBe(ended.length);
});

test('news wait once for each thing, and too many invalid URLs become all of them', async () => {
  const { outbox, goOn } = stalled();
  outbox.tell({ outcome: 'worked', site: 'first.test', chain: 'one' }, 1);
  await new Promise(resolve => setTimeout(resolve, 40)); // The first batch is under way.
  for (let i = 0; i < 3; i++) outbox.tell({ outcome: 'invalidated', url: 'http://a.test/' }, 1);
  outbox.tell({ outcome: 'failed', site: 'a.test', chain: 'one', reason: 'timeout', strikes: 1, lifetime: 1_000 }, 1);
  outbox.tell({ outcome: 'worked', site: 'a.test', chain: 'one' }, 2);
  const few = await goOn();
  expect(few.news.slice(1)).toEqual([
    { what: 'news', revision: null, news: { outcome: 'invalidated', url: 'http://a.test/' } },
    { what: 'news', revision: 2, news: { outcome: 'worked', site: 'a.test', chain: 'one' } },
  ]);

  const again = stalled();
  for (let i = 0; i < 10_000; i++) {
    again.outbox.tell({ outcome: 'invalidated', url: `http://a.test/${i}` }, 1);
    again.outbox.tell({ outcome: 'worked', site: `${i}.test`, chain: 'one' }, 1);
  }
  const { news } = await again.goOn();
  expect(news.length).toBeLessThan(256 + 2 * 4_096 + 1);
  expect(news).toContainEqual({ what: 'news', revision: null, news: { outcome: 'invalidated', url: null } });
  expect(news.at(-1)!.news).toMatchObject({ site: '9999.test' });
});

test('what became invalid and wrong passwords hold under any file; how a chain fared under its own', async () => {
  const { outbox, goOn } = stalled();
  outbox.tell({ outcome: 'invalidated', url: 'http://a.test/' }, 1);
  outbox.tell({ outcome: 'guessed', address: '192.0.2.1', digest: Buffer.from('wrong') }, 1);
  outbox.tell({ outcome: 'worked', site: 'a.test', chain: 'one' }, 1);
  const { news } = await goOn();
  expect(news.map(one => [one.news.outcome, holdsUnder(one, 1), holdsUnder(one, 2)])).toEqual([
    ['invalidated', true, true],
    ['guessed', true, true],
    ['worked', true, false],
  ]);
});
