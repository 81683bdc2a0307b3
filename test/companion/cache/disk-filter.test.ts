import * as fs from 'node:fs';
import path from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { describe, expect, test, vi } from 'vitest';
import { DiskFilter } from '../../../companion/cache/disk-filter.ts';
import { diskIn, entryOf, tempFolder } from '../../support/disk-cache.ts';

const urlsOf = (count: number, name = 'a') => Array.from({ length: count }, (_, i) => `http://${name}.test/${i}`);

/** A filter over an index that is a list. */
function filterOver(index: string[], queued: string[] = []) {
  let readable = true;
  const filter = new DiskFilter({
    urls: (after, limit) =>
      readable
        ? index
            .filter(url => url > after)
            .sort()
            .slice(0, limit)
        : null,
    count: () => index.length,
    queued: () => queued,
  });
  return { filter, breakIndex: () => (readable = false) };
}

const believed = (filter: DiskFilter) =>
  vi.waitFor(() => expect(filter.lacks('http://nobody.test/')).toBe(true), 20_000);

describe('what the disk lacks', () => {
  test('is known once the index has been read, and nothing that is there is among it', async () => {
    const there = urlsOf(3_000);
    const queued = urlsOf(20, 'queued');
    const { filter } = filterOver(there, queued);
    expect(filter.lacks('http://nobody.test/')).toBe(false);
    // While it is being read, too, something comes that lies before what was read already.
    filter.add('http://a.aaa/');
    await believed(filter);
    for (const url of [...there, ...queued, 'http://a.aaa/']) expect(filter.lacks(url)).toBe(false);
    const strangers = urlsOf(10_000, 'strange');
    expect(strangers.filter(url => !filter.lacks(url)).length).toBeLessThan(500);
    filter.forget(Infinity);
  });

  test('is not known where the index cannot be read', async () => {
    const { filter, breakIndex } = filterOver(urlsOf(10));
    breakIndex();
    filter.lacks('http://nobody.test/');
    await new Promise(resolve => setTimeout(resolve, 50));
    expect(filter.lacks('http://nobody.test/')).toBe(false);
    filter.forget(Infinity);
  });

  test('is found out anew when more has come than there was room for', async () => {
    const index: string[] = [];
    const { filter } = filterOver(index);
    filter.lacks('http://nobody.test/');
    await believed(filter);
    for (const url of urlsOf(30_000, 'later')) {
      index.push(url);
      filter.add(url);
    }
    expect(filter.lacks('http://nobody.test/')).toBe(false);
    await believed(filter);
    for (const url of index) expect(filter.lacks(url)).toBe(false);
    expect(urlsOf(10_000, 'strange').filter(url => !filter.lacks(url)).length).toBeLessThan(500);
    filter.forget(Infinity);
  });
});

describe('a store that has its folder to itself', () => {
  test('finds what was put, before and after it is written, after a restart and in a new index', async () => {
    using place = tempFolder();
    const urls = urlsOf(800);
    {
      await using disk = diskIn(place.path, { alone: true });
      expect(disk.store.get(urls[0]!, true)).toEqual([]);
      for (const url of urls) {
        disk.store.put(entryOf(url));
        expect(disk.store.get(url, true)).toHaveLength(1);
      }
      await disk.store.settled();
      for (const url of urls) expect(disk.store.get(url, true)).toHaveLength(1);
    }
    await using disk = diskIn(place.path, { alone: true });
    disk.store.get('http://nobody.test/', true);
    // Read meanwhile or not.
    for (let round = 0; round < 8; round++) {
      for (const url of urls) expect(disk.store.get(url, true)).toHaveLength(1);
      await new Promise(resolve => setTimeout(resolve, 2));
    }
    fs.writeFileSync(path.join(disk.folder, 'index.db'), 'not a database');
    disk.store.put(entryOf('http://a.test/new'));
    await disk.store.settled();
    disk.store.put(entryOf('http://a.test/newer'));
    await disk.store.settled();
    expect(disk.store.get('http://a.test/newer', true)).toHaveLength(1);
  });

  test('finds a large body that came piece by piece', async () => {
    using place = tempFolder();
    await using disk = diskIn(place.path, { alone: true });
    disk.store.put(entryOf('http://a.test/first'));
    await disk.store.settled();
    await vi.waitFor(() => expect(asksFor(disk.store, 'http://nobody.test/')).toBe(false), 20_000);
    const filling = disk.store.begin(null)!;
    filling.write(Buffer.alloc(100_000, 'x'));
    const { body: _, partial: __, ...entry } = entryOf('http://a.test/large');
    filling.commit(entry);
    await disk.store.settled();
    expect(disk.store.get('http://a.test/large', true)).toHaveLength(1);
  });

  test('does not ask the index for what is not there', async () => {
    using place = tempFolder();
    await using disk = diskIn(place.path, { alone: true });
    disk.store.put(entryOf('http://a.test/'));
    await disk.store.settled();
    disk.store.get('http://nobody.test/', true);
    await vi.waitFor(() => expect(asksFor(disk.store, 'http://nobody.test/')).toBe(false), 20_000);
    expect(asksFor(disk.store, 'http://a.test/')).toBe(true);
    // Another process has not been heard of: that is what the option promises not to happen.
    using database = open(path.join(disk.folder, 'index.db'));
    database.database.exec("UPDATE answers SET url = 'http://b.test/'");
    expect(disk.store.has('http://b.test/')).toBe(true);
    expect(asksFor(disk.store, 'http://b.test/')).toBe(false);
  });
});

/** Whether the store asks its index to find this. */
function asksFor(store: { get(url: string, touch: boolean): unknown }, url: string): boolean {
  const index = (store as unknown as { index: { rows(url: string): unknown } }).index;
  const spy = vi.spyOn(index, 'rows');
  try {
    store.get(url, false);
    return spy.mock.calls.length > 0;
  } finally {
    spy.mockRestore();
  }
}

function open(file: string): Disposable & { readonly database: DatabaseSync } {
  const database = new DatabaseSync(file);
  return { database, [Symbol.dispose]: () => database.close() };
}
