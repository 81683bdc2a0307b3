// The caches of several workers as one: what a person writes, and what is added up.
import { describe, expect, test } from 'vitest';
import { makeCacheDesk } from '../../companion/cache-desk.ts';
import type { CacheQuestion } from '../../companion/cache/office.ts';
import { noCounts } from '../../companion/record/traffic-log.ts';
import { siteName } from '../../companion/worker.ts';
import type { Stored, StoredAnswer } from '../../shared/control.ts';

/** A desk over workers that answer so; `asked` are the questions. */
function deskOf(...answers: unknown[]) {
  const asked: CacheQuestion[] = [];
  const desk = makeCacheDesk({
    ask: question => {
      asked.push(question);
      return Promise.resolve(answers as never);
    },
    totals: noCounts,
    since: 7,
    siteOf: siteName,
  });
  return { desk, asked };
}

const stored = (url: string, more: Partial<StoredAnswer> = {}): StoredAnswer => ({
  url,
  site: 'a.test',
  status: 200,
  bytes: 1,
  tier: 'memory',
  storedAt: 1,
  age: 0,
  freshFor: 1,
  pinned: false,
  route: 'companion',
  partition: '',
  vary: [],
  ...more,
});

describe('what a person writes', () => {
  test.each<[string, string]>([
    ['a.test', 'http://a.test/'],
    ['A.Test:80/X', 'http://a.test/X'],
    ['http://a.test', 'http://a.test/'],
    ['HTTP://a.test:8080/a/../b?c#d', 'http://a.test:8080/a/../b?c'],
    ['a.test?q', 'http://a.test/?q'],
    ['[::1]:81/x', 'http://[::1]:81/x'],
    ['http://bücher.test/ä', 'http://xn--bcher-kva.test/%C3%A4'],
    [' 192.0.2.1/x ', 'http://192.0.2.1/x'],
  ])('the URL %j is %s', async (written, url) => {
    const { desk, asked } = deskOf([]);
    await desk.show(written);
    await desk.purge({ prefix: written });
    expect(asked).toEqual([
      { ask: 'show', url },
      { ask: 'purge', which: { prefix: url } },
    ]);
  });

  test.each([
    '',
    'https://a.test/',
    'a b',
    'http://',
    'http://[::1',
    'a.test:x/',
    'a.test:0',
    'http://me@a.test/',
    '/x',
  ])('the URL %j is none that is stored', async written => {
    const { desk, asked } = deskOf(0);
    await expect(desk.purge({ url: written })).rejects.toThrow(JSON.stringify(written).slice(0, -1));
    expect(asked).toEqual([]);
  });

  test.each<[string, Stored]>([
    ['www.Example.co.uk', { site: 'example.co.uk' }],
    ['.a.test', { site: 'a.test' }],
    ['=b.a.test', { site: 'a.test' }],
    ['192.0.2.1', { site: '192.0.2.1' }],
  ])('the site %s', async (written, which) => {
    const { desk, asked } = deskOf(1);
    await desk.purge({ site: written });
    expect(asked).toEqual([{ ask: 'purge', which }]);
  });
});

test('what workers hold, forget and keep is added up', async () => {
  const memory = { entries: 2, bytes: 10, limit: 100 };
  expect(await deskOf({ memory, disk: null }, { memory, disk: null }).desk.stats()).toEqual({
    since: 7,
    memory: { entries: 4, bytes: 20, limit: 200 },
    disk: null,
    counts: noCounts(),
  });
  expect(await deskOf(2, 0, 3).desk.purge({ all: true })).toBe(5);
  expect(await deskOf(2, 0, 3).desk.pin({ site: 'a.test' }, true)).toBe(5);
});

test('what all workers share on the disk is counted once', async () => {
  const memory = { entries: 2, bytes: 10, limit: 100 };
  const disk = { entries: 5, bytes: 50, limit: 500 };
  const late = { ...disk, entries: 6, bytes: 60 };
  expect((await deskOf({ memory, disk }, { memory, disk: late }).desk.stats()).disk).toEqual(late);
  const sharing = makeCacheDesk({
    ask: () => Promise.resolve([0, 6, 2] as never),
    totals: noCounts,
    since: 7,
    siteOf: siteName,
    isShared: () => true,
  });
  expect(await sharing.purge({ all: true })).toBe(6);
});

test('an answer that several workers have is listed once, by URL, and the younger one', async () => {
  const one = { answers: [stored('http://b.test/'), stored('http://a.test/', { storedAt: 5 })], more: false };
  const two = { answers: [stored('http://a.test/'), stored('http://a.test/', { partition: 'c.test' })], more: false };
  const { answers, more } = await deskOf(one, two).desk.list({ all: true }, 10);
  expect(answers.map(({ url, partition, storedAt }) => [url, partition, storedAt])).toEqual([
    ['http://a.test/', '', 5],
    ['http://a.test/', 'c.test', 1],
    ['http://b.test/', '', 1],
  ]);
  expect(more).toBe(false);
  expect(await deskOf(one, two).desk.list({ all: true }, 2)).toMatchObject({ more: true, answers: { length: 2 } });
  expect((await deskOf({ ...one, more: true }).desk.list({ all: true }, 2)).more).toBe(true);
});
