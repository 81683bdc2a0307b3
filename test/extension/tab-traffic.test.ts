import { expect, test } from 'vitest';
import { TabTraffic } from '../../extension/tabs/tab-traffic.ts';
import type { Exchange } from '../../shared/exchange.ts';

let lastId = 0;
function exchange(more: Partial<Exchange>): Exchange {
  return {
    id: ++lastId,
    startedAt: 1_000,
    kind: 'http',
    method: 'GET',
    url: 'http://a.test/x',
    host: 'a.test',
    site: 'a.test',
    because: { rule: 'sites.a.test' },
    route: 'companion',
    filter: 'standard',
    cache: 'standard',
    attempts: [],
    status: 200,
    bytesUp: 0,
    bytesDown: 100,
    took: 5,
    ...more,
  };
}
const asking = (): TabTraffic => {
  const tabs = new TabTraffic();
  tabs.navigated(1, 'a.test', 1_000);
  tabs.navigated(2, 'b.test', 1_000);
  return tabs;
};

test('plain http belongs to the tab that asked for that very URL, once', () => {
  const tabs = asking();
  tabs.asked(1, 'http://a.test/x#top', 'a.test', 1_000);
  expect(tabs.ended(exchange({ cacheStatus: 'hit; ttl=5' }), 1_001)).toEqual([1]);
  expect(tabs.ended(exchange({}), 1_002)).toEqual([]);
  expect(tabs.countsOf(1)).toMatchObject({ requests: 1, cached: 1, blocked: 0, bytes: 100 });
  expect(tabs.countsOf(2)).toMatchObject({ requests: 0, cached: 0 });
});

test('the bytes of a tunnel count while it stands, once; those of others push nothing out', () => {
  const tabs = asking();
  tabs.asked(1, 'https://a.test/', 'a.test', 1_000);
  const tunnel = { kind: 'connect', url: 'a.test:443', took: undefined } as const;
  const opened = exchange({ ...tunnel, bytesDown: 0 });
  expect(tabs.ended(opened, 1_001)).toEqual([1]);
  tabs.ended({ ...opened, bytesDown: 700 }, 4_000);
  tabs.ended({ ...opened, bytesDown: 900 }, 7_000);
  expect(tabs.countsOf(1)).toMatchObject({ requests: 1, bytes: 900 });
  tabs.ended({ ...opened, bytesDown: 950, took: 9 }, 8_000);
  expect(tabs.countsOf(1).bytes).toBe(950);
  tabs.ended(exchange({ url: 'http://a.test/early' }), 9_000);
  for (let i = 0; i < 100; i++) tabs.ended(exchange({ ...tunnel, host: 'other.test', bytesDown: 5 }), 9_001);
  expect(tabs.asked(1, 'http://a.test/early', 'a.test', 9_002)).toBe(true);
});

test('an answer that is told before its request waits for it, but not for ever', () => {
  const tabs = asking();
  expect(tabs.ended(exchange({ cacheStatus: 'hit' }), 1_000)).toEqual([]);
  expect(tabs.asked(1, 'http://a.test/x', 'a.test', 1_050)).toBe(true);
  expect(tabs.countsOf(1)).toMatchObject({ requests: 1, cached: 1 });
  tabs.ended(exchange({ url: 'http://a.test/late' }), 1_000);
  expect(tabs.asked(1, 'http://a.test/late', 'a.test', 9_000)).toBe(false);
});

test('a tunnel belongs to the tabs that asked its host, and is counted once though it is told twice', () => {
  const tabs = asking();
  tabs.asked(1, 'https://a.test/', 'a.test', 1_000);
  const open = exchange({ kind: 'connect', url: 'a.test:443', bytesDown: 0, took: undefined });
  tabs.ended(open, 1_001);
  tabs.ended({ ...open, bytesDown: 5_000, took: 9 }, 2_000);
  expect(tabs.countsOf(1)).toMatchObject({ requests: 1, bytes: 5_000 });
});

test('a tunnel that stood long before the document is not its own', () => {
  const tabs = asking();
  tabs.navigated(1, 'a.test', 60_000);
  tabs.asked(1, 'https://a.test/', 'a.test', 60_001);
  expect(tabs.ended(exchange({ kind: 'connect', url: 'a.test:443', startedAt: 1_000 }), 60_002)).toEqual([]);
});

test('what was blocked, failed or took several ways is kept to be shown, the latest first', () => {
  const tabs = asking();
  tabs.asked(1, 'https://ads.test/', 'ads.test', 1_000);
  tabs.asked(1, 'http://a.test/x', 'a.test', 1_000);
  tabs.ended(
    exchange({ kind: 'connect', host: 'ads.test', blockedBy: { rule: 'lists[0]', list: 'ads.txt', line: 3 } }),
    1_001,
  );
  tabs.ended(exchange({ sentence: 'It failed.', status: 502 }), 1_002);
  expect(tabs.countsOf(1).blocked).toBe(1);
  expect(tabs.countsOf(1).incidents.map(incident => incident.host)).toEqual(['a.test', 'ads.test']);
});

test('what is told again after the link was down does not count for the next document', () => {
  const tabs = asking();
  tabs.navigated(1, 'a.test', 2_000);
  tabs.asked(1, 'http://a.test/x', 'a.test', 2_000);
  expect(tabs.ended(exchange({ startedAt: 1_500 }), 2_010)).toEqual([]);
  expect(tabs.ended(exchange({ startedAt: 2_001 }), 2_020)).toEqual([1]);
});

test('a companion that was started anew counts anew, and its numbers are not taken for the old ones', () => {
  const tabs = asking();
  tabs.asked(1, 'https://a.test/', 'a.test', 1_000);
  tabs.ended(exchange({ id: 7, kind: 'connect', bytesDown: 10 }), 1_001);
  tabs.ended(exchange({ id: 7, kind: 'connect', bytesDown: 10, startedAt: 9_000 }), 9_001);
  expect(tabs.countsOf(1).bytes).toBe(20);
  expect(tabs.ended(exchange({ id: 7, kind: 'connect', host: 'b.test', startedAt: 9_500 }), 9_501)).toEqual([]);
});

test('a new document starts anew, and all of it survives a sleeping worker', () => {
  const tabs = asking();
  tabs.asked(1, 'http://a.test/x', 'a.test', 1_000);
  tabs.ended(exchange({}), 1_001);
  const woken = new TabTraffic(JSON.parse(JSON.stringify(tabs.save())));
  expect(woken.countsOf(1)).toMatchObject({ requests: 1, bytes: 100 });
  woken.navigated(1, 'a.test', 2_000);
  expect(woken.countsOf(1)).toMatchObject({ requests: 0, bytes: 0 });
  woken.closed(1);
  expect(woken.hostOf(1)).toBeNull();
});
