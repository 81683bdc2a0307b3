// The recent past: bounded in every direction, and never in the way of the walk.
import { describe, expect, test } from 'vitest';
import { makeRecorder } from '../../../companion/record/recorder.ts';
import { TrafficLog } from '../../../companion/record/traffic-log.ts';
import type { Exchange } from '../../../shared/exchange.ts';
import { startClock } from '../../support/clock.ts';
import { exchangeOf } from '../../support/exchange.ts';

const ids = (exchanges: readonly Exchange[]) => exchanges.map(one => one.id);
const turn = () => new Promise(resolve => setTimeout(resolve, 5));
async function until(ready: () => boolean): Promise<void> {
  for (let i = 0; i < 500 && !ready(); i++) await turn();
  expect(ready()).toBe(true);
}

describe('the ring', () => {
  test('keeps the last so many, oldest first', () => {
    const log = new TrafficLog(3);
    expect(log.recent(10)).toEqual([]);
    for (let id = 1; id <= 5; id++) log.add(exchangeOf(id));
    expect(ids(log.recent(10))).toEqual([3, 4, 5]);
    expect(ids(log.recent(2))).toEqual([4, 5]);
    expect(log.recent(0)).toEqual([]);
  });

  test('shows a tunnel once, open and then ended', () => {
    const log = new TrafficLog(3);
    const tunnel = { ...exchangeOf(1, { kind: 'connect', took: undefined }) };
    log.opened(tunnel);
    log.add(exchangeOf(2));
    expect(ids(log.recent(10))).toEqual([1, 2]);
    log.add(Object.assign(tunnel, { took: 50 }));
    expect(ids(log.recent(10))).toEqual([1, 2]);
    expect(log.recent(10)[0]!.took).toBe(50);
  });

  test('shows a tunnel again at its end when it had been pushed out meanwhile', () => {
    const log = new TrafficLog(2);
    const tunnel = exchangeOf(1, { kind: 'connect', took: undefined });
    log.opened(tunnel);
    log.add(exchangeOf(2));
    log.add(exchangeOf(3));
    expect(ids(log.recent(10))).toEqual([2, 3]);
    log.add(tunnel);
    expect(ids(log.recent(10))).toEqual([3, 1]);
  });

  test('keeps the latest when its size changes, both ways, tunnels too', () => {
    const log = new TrafficLog(4);
    const early = exchangeOf(1, { kind: 'connect', took: undefined });
    log.opened(early);
    for (let id = 2; id <= 4; id++) log.add(exchangeOf(id));
    const late = exchangeOf(5, { kind: 'connect', took: undefined });
    log.opened(late);
    log.resize(2);
    expect(ids(log.recent(10))).toEqual([4, 5]);
    log.add(late);
    expect(ids(log.recent(10))).toEqual([4, 5]);
    log.resize(5);
    log.add(early);
    expect(ids(log.recent(10))).toEqual([4, 5, 1]);
  });
});

describe('the counters of a site', () => {
  test('tell requests, hits, blocks, faults and bytes apart', () => {
    const log = new TrafficLog(10);
    log.add(exchangeOf(1, { cacheStatus: 'hit; ttl=3' }));
    log.add(exchangeOf(2, { cacheStatus: 'fwd=miss; stored' }));
    log.add(exchangeOf(3, { blockedBy: { rule: 'rules[0]' }, fault: 'http_request_denied', status: 403 }));
    log.add(exchangeOf(4, { fault: 'connection_refused', status: 502 }));
    log.add(exchangeOf(5, { fault: 'downstream_gone', status: null }));
    log.add(exchangeOf(6, { site: 'b.test' }));
    expect(log.counts('a.test')).toEqual({
      requests: 5,
      lookups: 2,
      cached: 1,
      blocked: 1,
      failed: 1,
      bytesUp: 5,
      bytesDown: 50,
      bytesSaved: 10,
    });
    expect(log.counts('never.test').requests).toBe(0);
    expect(log.totals()).toMatchObject({ requests: 6, lookups: 2, cached: 1, bytesDown: 60, bytesSaved: 10 });
  });

  test('tell what the cache could answer, what it answered, and what came out of it', () => {
    const log = new TrafficLog(10);
    const statuses = [
      'hit; ttl=-3; detail=offline',
      'fwd=stale; fwd-status=304',
      'fwd=uri-miss; collapsed',
      'fwd=uri-miss; collapsed=?0; stored',
      'fwd=stale; fwd-status=200; stored',
      'fwd=vary-miss',
      'fwd=bypass',
      'fwd=method',
      undefined,
    ];
    statuses.forEach((cacheStatus, i) => log.add(exchangeOf(i, { cacheStatus, bytesDown: 10 ** i })));
    expect(log.counts('a.test')).toMatchObject({ requests: 9, lookups: 6, cached: 1, bytesSaved: 111 });
  });

  test('count an open tunnel once, as it grows', () => {
    const log = new TrafficLog(10);
    const tunnel = { ...exchangeOf(1, { kind: 'connect', took: undefined, bytesDown: 0 }) };
    log.opened(tunnel);
    tunnel.bytesDown = 700;
    expect(log.counts('a.test')).toMatchObject({ requests: 1, bytesDown: 700 });
    tunnel.bytesDown = 900;
    log.add(tunnel);
    expect(log.counts('a.test')).toMatchObject({ requests: 1, bytesDown: 900 });
  });

  test('stay bounded whatever the number of sites', () => {
    const log = new TrafficLog(10);
    for (let i = 0; i < 10_000; i++) log.add(exchangeOf(i, { site: `s${i}.test` }));
    expect(log.counts('s0.test').requests).toBe(0);
    expect(log.counts('s9999.test').requests).toBe(1);
  });
});

describe('a follower', () => {
  test('hears the past first, then all that follows, in order', async () => {
    const log = new TrafficLog(10);
    for (let id = 1; id <= 3; id++) log.add(exchangeOf(id));
    const heard: number[] = [];
    log.follow(2, batch => void heard.push(...ids(batch)));
    log.add(exchangeOf(4));
    await turn();
    log.add(exchangeOf(5));
    await turn();
    expect(heard).toEqual([2, 3, 4, 5]);
  });

  test('is told of a tunnel as it stood when it opened', async () => {
    const log = new TrafficLog(10);
    const heard: (number | undefined)[] = [];
    log.follow(0, batch => void heard.push(...batch.map(one => one.took)));
    const tunnel = { ...exchangeOf(1, { took: undefined }) };
    log.opened(tunnel);
    log.add(Object.assign(tunnel, { took: 9 }));
    await turn();
    expect(heard).toEqual([undefined, 9]);
  });

  test('is told of the bytes of a tunnel that stands, and of none that has ended', async () => {
    const log = new TrafficLog(10);
    const heard: number[] = [];
    log.follow(0, batch => void heard.push(...batch.map(one => one.bytesDown)));
    const tunnel = { ...exchangeOf(1, { took: undefined, bytesDown: 0 }) };
    log.opened(tunnel);
    log.moved(Object.assign(tunnel, { bytesDown: 7 }));
    log.add(Object.assign(tunnel, { bytesDown: 9, took: 1 }));
    log.moved(tunnel);
    await turn();
    expect(heard).toEqual([0, 7, 9]);
    expect(log.recent(10)).toHaveLength(1);
  });

  test('that is slow loses the oldest and hears how many; the walk never waits', async () => {
    const log = new TrafficLog(10);
    const heard: number[] = [];
    let missed = 0;
    let free = () => {};
    log.follow(0, async (batch, lost) => {
      heard.push(...ids(batch));
      missed += lost;
      if (heard.length === 1) await new Promise<void>(resolve => (free = resolve));
    });
    log.add(exchangeOf(0));
    await turn();
    for (let id = 1; id <= 50_000; id++) log.add(exchangeOf(id));
    expect(heard).toEqual([0]);
    free();
    await turn();
    expect(heard.length).toBeLessThanOrEqual(1_001);
    expect(heard.at(-1)).toBe(50_000);
    expect(heard.length + missed).toBe(50_001);
  });

  test('that stops or fails hears no more, and others do', async () => {
    const log = new TrafficLog(10);
    const heard: Record<string, number[]> = { stopped: [], failed: [], other: [] };
    const stop = log.follow(0, batch => void heard['stopped']!.push(...ids(batch)));
    log.follow(0, batch => {
      heard['failed']!.push(...ids(batch));
      throw new Error('gone');
    });
    log.follow(0, batch => void heard['other']!.push(...ids(batch)));
    log.add(exchangeOf(1));
    await turn();
    stop();
    log.add(exchangeOf(2));
    await turn();
    log.add(exchangeOf(3));
    await turn();
    expect(heard).toEqual({ stopped: [1], failed: [1], other: [1, 2, 3] });
  });
});

describe('the recorder', () => {
  function start() {
    const clock = startClock();
    let ticks = 0;
    const ended: Exchange[] = [];
    const moved: Exchange[] = [];
    const recorder = makeRecorder({
      now: clock.now,
      elapsed: () => ticks,
      siteOf: host => `site of ${host}`,
      opened: () => {},
      moved: exchange => void moved.push({ ...exchange }),
      ended: exchange => void ended.push(exchange),
      lookEvery: 10,
    });
    return { clock, ended, moved, recorder, tick: (by: number) => (ticks += by) };
  }

  test('numbers from one and measures by a clock that does not jump', () => {
    const { clock, ended, recorder, tick } = start();
    const draft = recorder.begin('http', 'GET');
    const at = clock.now();
    tick(250);
    clock.jumpTo(0);
    recorder.finish(draft);
    expect(ended[0]).toMatchObject({ id: 1, startedAt: at, took: 250 });
    expect(recorder.begin('connect', 'CONNECT').id).toBe(2);
  });

  test('shows a standing tunnel again when bytes have gone through it, and only then', async () => {
    const { moved, recorder } = start();
    const draft = recorder.begin('connect', 'CONNECT');
    const quiet = recorder.begin('connect', 'CONNECT');
    recorder.opened(draft);
    recorder.opened(quiet);
    draft.bytesDown += 5;
    await until(() => moved.length === 1);
    draft.bytesUp += 2;
    await until(() => moved.length === 2);
    await new Promise(resolve => setTimeout(resolve, 50));
    expect(moved.map(one => [one.id, one.bytesUp, one.bytesDown])).toEqual([
      [1, 0, 5],
      [1, 2, 5],
    ]);
    recorder.finish(draft);
    draft.bytesUp += 2;
    await new Promise(resolve => setTimeout(resolve, 50));
    expect(moved).toHaveLength(2);
    recorder.finish(quiet);
  });

  test('names the site where the walk did not get as far', () => {
    const { ended, recorder } = start();
    const draft = recorder.begin('http', 'GET');
    draft.host = 'www.a.test';
    recorder.finish(draft);
    expect(ended[0]!.site).toBe('site of www.a.test');
  });

  test('remembers no URL longer than 2 KiB', () => {
    const { ended, recorder } = start();
    const draft = recorder.begin('http', 'GET');
    draft.url = `http://a.test/${'x'.repeat(60_000)}`;
    recorder.finish(draft);
    expect(ended[0]!.url).toHaveLength(2_049);
    expect(ended[0]!.url.endsWith('x…')).toBe(true);
  });

  test('keeps nothing of its own in the JSON of an exchange', () => {
    const { ended, recorder } = start();
    recorder.finish(recorder.begin('http', 'GET'));
    expect(Object.keys(JSON.parse(JSON.stringify(ended[0])) as object).sort()).toEqual([
      'attempts',
      'because',
      'bytesDown',
      'bytesUp',
      'cache',
      'filter',
      'host',
      'id',
      'kind',
      'method',
      'route',
      'site',
      'startedAt',
      'status',
      'took',
      'url',
    ]);
  });
});
