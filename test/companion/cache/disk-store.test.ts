import { execFileSync, spawn } from 'node:child_process';
import * as fs from 'node:fs';
import path from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { describe, expect, test, vi } from 'vitest';
import type { DiskStore } from '../../../companion/cache/disk-store.ts';
import type { StoredBody } from '../../../companion/cache/store.ts';
import type { BodySink } from '../../../companion/message/message.ts';
import { KiB, MiB } from '../../../shared/units.ts';
import { bodyOf, diskIn, entryOf, tempFolder } from '../../support/disk-cache.ts';

const URL_A = 'http://a.test/page';

/** All bytes of a body; rejects where it breaks off. */
function bytesOf(body: StoredBody, from = 0, to = body.length): Promise<Buffer> {
  const opened = body.open(from, to);
  if (Buffer.isBuffer(opened)) return Promise.resolve(Buffer.from(opened));
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let turn = 0;
    const sink: BodySink = {
      write(chunk) {
        chunks.push(chunk);
        if (turn++ % 2 === 0) return true;
        setImmediate(() => opened.resume());
        return false;
      },
      end: () => resolve(Buffer.concat(chunks)),
      fail: reject,
    };
    opened.start(sink);
  });
}

function urlsOf(store: DiskStore, which: Parameters<DiskStore['list']>[0]): string[] {
  return store
    .list(which, 1_000)
    .map(({ entry }) => entry.url)
    .sort();
}

/** Damages the database where it lies: one bit of the first place that holds these bytes. */
function flipBit(file: string, near: string | Buffer): void {
  const bytes = fs.readFileSync(file);
  const at = bytes.indexOf(near);
  if (at < 0) throw new Error(`${file} does not hold what was looked for`);
  bytes[at + 1]! ^= 4;
  fs.writeFileSync(file, bytes);
}

function bodyFiles(folder: string): string[] {
  return fs
    .readdirSync(path.join(folder, 'bodies'), { recursive: true, withFileTypes: true })
    .filter(entry => entry.isFile())
    .map(entry => path.join(entry.parentPath, entry.name));
}

describe('what is put', () => {
  test('is found at once, and after a restart, with all that was said of it', async () => {
    using place = tempFolder();
    const selection = { names: ['accept', 'x'], values: ['a/b', undefined] };
    const entry = entryOf(URL_A, 'hello', { selection, space: 'work\na.test', ageValue: 7, status: 404, reason: 'No' });
    {
      await using disk = diskIn(place.path);
      disk.store.put(entry);
      expect(disk.store.get(URL_A, true).map(one => one.entry)).toEqual([entry]);
      await disk.store.settled();
      expect(disk.store.get(URL_A, true).map(one => one.entry)).toEqual([entry]);
    }
    await using again = diskIn(place.path);
    expect(again.store.get(URL_A, true).map(one => one.entry)).toEqual([entry]);
    expect(again.store.get('http://a.test/other', true)).toEqual([]);
    expect(again.warnings).toEqual([]);
  });

  test('is written by another thread when the first has ended for want of work', async () => {
    using place = tempFolder();
    await using disk = diskIn(place.path, { idleAfter: 30 });
    for (let i = 0; i < 4; i++) {
      disk.store.put(entryOf(`http://a.test/${i}`, bodyOf(i * 100 * KiB)));
      await disk.store.settled();
      await new Promise(resolve => setTimeout(resolve, 100));
    }
    for (let i = 0; i < 4; i++) expect(disk.store.get(`http://a.test/${i}`, false)).toHaveLength(1);
    expect(disk.warnings).toEqual([]);
  });

  test('lies in files that are the owner’s alone', async () => {
    using place = tempFolder();
    await using disk = diskIn(place.path);
    disk.store.put(entryOf(URL_A, bodyOf(100 * KiB)));
    await disk.store.settled();
    for (const entry of fs.readdirSync(disk.folder, { recursive: true, withFileTypes: true })) {
      const { mode } = fs.statSync(path.join(entry.parentPath, entry.name));
      expect([entry.name, mode & 0o077]).toEqual([entry.name, 0]);
    }
  });

  test('takes the place of what was there for the same space and selection, and of nothing else', async () => {
    using place = tempFolder();
    await using disk = diskIn(place.path);
    const { store } = disk;
    const at = Date.UTC(2026, 10, 24, 13);
    const choice = { names: ['accept'], values: ['x'] };
    const bodies = () =>
      store
        .get(URL_A, false)
        .map(({ entry }) => String(entry.body.bytes))
        .sort();
    store.put(entryOf(URL_A, 'old'));
    store.put(entryOf(URL_A, 'chosen', { selection: choice }));
    store.put(entryOf(URL_A, 'elsewhere', { space: 'other\n' }));
    await store.settled();
    store.put(entryOf(URL_A, 'new', { respondedAt: at }));
    expect(bodies()).toEqual(['chosen', 'elsewhere', 'new']);
    await store.settled();
    expect(bodies()).toEqual(['chosen', 'elsewhere', 'new']);
    // Whole only after a later one of the same resource.
    store.put(entryOf(URL_A, 'slow', { respondedAt: at - 1 }));
    await store.settled();
    expect(bodies()).toEqual(['chosen', 'elsewhere', 'new']);
    expect(store.stats().entries).toBe(3);
  });

  test('keeps the parts of an incomplete answer apart', async () => {
    using place = tempFolder();
    await using disk = diskIn(place.path);
    const parts = [
      { from: 10, bytes: bodyOf(20_000) },
      { from: 50_000, bytes: Buffer.from('end') },
    ];
    disk.store.put(entryOf(URL_A, '', { partial: { complete: 50_003, parts } }));
    await disk.store.settled();
    expect(disk.store.get(URL_A, false)[0]!.entry.partial).toEqual({ complete: 50_003, parts });
  });

  test('is given back whole and in ranges when it is large', async () => {
    using place = tempFolder();
    await using disk = diskIn(place.path);
    const body = bodyOf(1_000_003);
    disk.store.put(entryOf(URL_A, body));
    await disk.store.settled();
    const found = disk.store.get(URL_A, false)[0]!.entry.body;
    expect(found.bytes).toBeNull();
    expect((await bytesOf(found)).equals(body)).toBe(true);
    for (const [from, to] of [
      [0, 1],
      [262_143, 262_145],
      [600_000, 1_000_003],
    ] as const) {
      expect((await bytesOf(found, from, to)).equals(body.subarray(from, to))).toBe(true);
    }
  });

  test('shares the file of an equal body, which goes with the last that has it', async () => {
    using place = tempFolder();
    await using disk = diskIn(place.path);
    const { store, folder } = disk;
    store.put(entryOf(URL_A, bodyOf(300 * KiB)));
    store.put(entryOf('http://b.test/', bodyOf(300 * KiB)));
    await store.settled();
    expect(bodyFiles(folder)).toHaveLength(1);
    store.remove(store.get(URL_A, false)[0]!.id, URL_A);
    await store.settled();
    expect(bodyFiles(folder)).toHaveLength(1);
    store.remove(store.get('http://b.test/', false)[0]!.id, 'http://b.test/');
    await store.settled();
    expect(store.stats()).toEqual({ entries: 0, bytes: 0 });
    await vi.waitFor(() => expect(bodyFiles(folder)).toEqual([]), { timeout: 5_000 });
  });

  test('gets a new head without its body being written again', async () => {
    using place = tempFolder();
    await using disk = diskIn(place.path);
    const { store } = disk;
    store.put(entryOf(URL_A, 'same'));
    await store.settled();
    const { id, entry } = store.get(URL_A, false)[0]!;
    const fresh = { ...entry, lines: [...entry.lines, 'X', 'x', 'new'], respondedAt: entry.respondedAt + 1000 };
    store.freshen(id, fresh);
    expect(store.get(URL_A, false)[0]!.entry).toEqual(fresh);
    await store.settled();
    expect(store.get(URL_A, false)[0]).toEqual({ id, entry: fresh });
  });

  test('gets two new heads in one batch, and the later stays', async () => {
    using place = tempFolder();
    await using disk = diskIn(place.path);
    const { store } = disk;
    store.put(entryOf(URL_A, 'same'));
    await store.settled();
    const { id, entry } = store.get(URL_A, false)[0]!;
    for (const value of ['1', '2']) store.freshen(id, { ...entry, lines: [...entry.lines, 'X', 'x', value] });
    await store.settled();
    expect(store.get(URL_A, false)[0]!.entry.lines).toEqual([...entry.lines, 'X', 'x', '2']);
  });

  test('gets no head of another body, which another process has put in its place meanwhile', async () => {
    for (const isWritten of [false, true]) {
      using place = tempFolder();
      await using disk = diskIn(place.path);
      const { store } = disk;
      store.put(entryOf(URL_A, 'same'));
      await store.settled();
      const { id, entry } = store.get(URL_A, false)[0]!;
      store.freshen(id, { ...entry, lines: ['ETag', 'etag', '"v2"'] });
      if (isWritten) await store.settled();
      expect(store.get(URL_A, false).map(one => one.entry)).toEqual(isWritten ? [] : [entry]);
    }
  });
});

describe('a body that comes piece by piece', () => {
  test('is kept when it is whole', async () => {
    using place = tempFolder();
    await using disk = diskIn(place.path);
    const body = bodyOf(3 * MiB + 17);
    const filling = disk.store.begin(body.length)!;
    for (let at = 0; at < body.length; at += 100_000) {
      expect(filling.write(body.subarray(at, at + 100_000))).toBe(true);
    }
    const { body: _body, partial: _partial, ...head } = entryOf(URL_A);
    filling.commit(head);
    await disk.store.settled();
    const found = disk.store.get(URL_A, false)[0]!.entry;
    expect((await bytesOf(found.body)).equals(body)).toBe(true);
    expect(fs.readdirSync(path.join(disk.folder, 'unfinished'))).toEqual([]);
  });

  test('A76: is known of from its end on, so that what makes its URL invalid then takes it along', async () => {
    using place = tempFolder();
    await using disk = diskIn(place.path);
    const filling = disk.store.begin(4)!;
    filling.write(Buffer.from('body'));
    const { body: _body, partial: _partial, ...head } = entryOf(URL_A);
    filling.commit(head);
    expect(disk.store.has(URL_A)).toBe(true);
    disk.store.purge({ url: URL_A });
    await disk.store.settled();
    expect(disk.store.has(URL_A)).toBe(false);
    expect(disk.store.get(URL_A, false)).toEqual([]);
  });

  test('A75: leaves nothing when it broke off, or was longer or shorter than it said', async () => {
    using place = tempFolder();
    await using disk = diskIn(place.path);
    const { body: _body, partial: _partial, ...head } = entryOf(URL_A);
    const left = disk.store.begin(null)!;
    left.write(bodyOf(100_000));
    left.abort();
    const short = disk.store.begin(200_000)!;
    short.write(bodyOf(100_000));
    short.commit(head);
    await disk.store.settled();
    expect(disk.store.get(URL_A, false)).toEqual([]);
    expect(fs.readdirSync(path.join(disk.folder, 'unfinished'))).toEqual([]);
  });

  test('is given up when the disk does not keep up, and holds no more than its bound', async () => {
    using place = tempFolder();
    await using disk = diskIn(place.path, { limit: 1024 * MiB });
    const filling = disk.store.begin(null)!;
    const chunk = bodyOf(MiB);
    let taken = 0;
    while (taken < 100 && filling.write(chunk)) taken++;
    expect(taken).toBeGreaterThanOrEqual(15);
    expect(taken).toBeLessThanOrEqual(16);
    await disk.store.settled();
    expect(disk.store.put(entryOf(URL_A))).not.toBeNull();
  });
});

describe('what is removed', () => {
  test('is gone at once and after a restart: by URL, prefix, site and all of it', async () => {
    using place = tempFolder();
    const urls = ['http://a.test/x', 'http://a.test/y/1', 'http://a.test/y/2', 'http://www.a.test/', 'http://aa.test/'];
    {
      await using disk = diskIn(place.path);
      for (const url of urls) disk.store.put(entryOf(url));
      await disk.store.settled();
      expect(urlsOf(disk.store, { site: 'a.test' })).toEqual(urls.slice(0, 4));
      expect(disk.store.purge({ prefix: 'http://a.test/y/' })).toBe(2);
      expect(disk.store.get(urls[1]!, false)).toEqual([]);
      expect(urlsOf(disk.store, { all: true })).toEqual([urls[0], urls[4], urls[3]].sort());
      // What is put behind a removal stays.
      disk.store.put(entryOf(urls[2]!));
      await disk.store.settled();
      expect(urlsOf(disk.store, { prefix: 'http://a.test/y/' })).toEqual([urls[2]]);
      expect(disk.store.purge({ url: urls[2]! })).toBe(1);
      expect(disk.store.purge({ site: 'a.test' })).toBe(2);
    }
    {
      await using again = diskIn(place.path);
      expect(urlsOf(again.store, { all: true })).toEqual(['http://aa.test/']);
      expect(again.store.purge({ all: true })).toBe(1);
      expect(again.store.stats().entries).toBe(0);
    }
    await using last = diskIn(place.path);
    expect(urlsOf(last.store, { all: true })).toEqual([]);
  });

  test('A76, A93: is on its way to the disk at once, and not with the next batch, so that a kill does not bring it back', async () => {
    using place = tempFolder();
    await using disk = diskIn(place.path);
    const { store } = disk;
    store.put(entryOf(URL_A));
    await store.settled();
    using index = new DatabaseSync(path.join(disk.folder, 'index.db'), { readOnly: true });
    const left = index.prepare('SELECT count(*) AS count FROM answers');
    expect(left.get()).toEqual({ count: 1 });
    store.purge({ url: URL_A });
    // No timer of this thread runs meanwhile.
    for (let i = 0; i < 200 && left.get()!['count'] !== 0; i++) {
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 50);
    }
    expect(left.get()).toEqual({ count: 0 });
  });

  test('is what was used longest ago when there is no room; what is pinned stays', async () => {
    using place = tempFolder();
    let now = Date.UTC(2026, 10, 24, 12);
    await using disk = diskIn(place.path, { limit: 200 * KiB, now: () => now, touchAfter: 0 });
    const { store } = disk;
    const put = async (name: string, pinned = false) => {
      now += 1000;
      store.put(entryOf(`http://a.test/${name}`, bodyOf(10_000, name.length), { pinned }));
      await store.settled();
    };
    await put('pinned', true);
    await put('used');
    for (let i = 0; i < 30; i++) {
      await put(`n${i}`);
      store.get('http://a.test/used', true);
    }
    const left = urlsOf(store, { all: true });
    expect(left).toContain('http://a.test/pinned');
    expect(left).toContain('http://a.test/used');
    expect(left).toContain('http://a.test/n29');
    expect(left).not.toContain('http://a.test/n0');
    expect(store.stats().bytes).toBeLessThanOrEqual(200 * KiB);
    expect(store.stats().entries).toBe(left.length);
    store.setLimit(50 * KiB);
    await vi.waitFor(() => expect(store.stats().bytes).toBeLessThanOrEqual(50 * KiB), 20_000);
  });

  test('is not what was asked for again, however much passes that is wanted once; that keeps a fifth of the room', async () => {
    using place = tempFolder();
    let now = Date.UTC(2026, 10, 24, 12);
    await using disk = diskIn(place.path, { limit: 400 * KiB, now: () => now, touchAfter: 0 });
    const { store } = disk;
    const put = async (name: string) => {
      now += 1000;
      store.put(entryOf(`http://a.test/${name}`, bodyOf(10_000, name.length)));
      await store.settled();
    };
    for (let i = 0; i < 20; i++) await put(`wanted${i}`);
    now += 1000;
    for (let i = 0; i < 20; i++) store.get(`http://a.test/wanted${i}`, true);
    await store.settled();
    for (let i = 0; i < 60; i++) await put(`once${i}`);
    const left = urlsOf(store, { all: true });
    expect(left.filter(url => url.includes('wanted'))).toHaveLength(20);
    const once = left.filter(url => url.includes('once'));
    expect(once).toContain('http://a.test/once59');
    expect(once.length).toBeGreaterThanOrEqual(7);
    // Much that is wanted makes what is wanted once give way down to its share, and then the oldest of its own.
    for (let i = 20; i < 60; i++) {
      await put(`wanted${i}`);
      now += 1000;
      store.get(`http://a.test/wanted${i}`, true);
      await store.settled();
    }
    const later = urlsOf(store, { all: true });
    expect(later).toContain('http://a.test/wanted59');
    expect(later).not.toContain('http://a.test/wanted0');
    expect(later.filter(url => url.includes('once')).length).toBeGreaterThanOrEqual(4);
    expect(store.stats().bytes).toBeLessThanOrEqual(400 * KiB);
  });
});

describe('a disk that cannot be trusted', () => {
  test('A78: a flipped bit is a miss, in a body, in a head, in the name it was stored under and in a large body', async () => {
    const body = bodyOf(600 * KiB);
    const cases: [what: string, damage: (folder: string) => void][] = [
      ['body', folder => flipBit(path.join(folder, 'index.db'), 'the body of b')],
      ['head', folder => flipBit(path.join(folder, 'index.db'), 'a head of b')],
      ['first block', folder => flipBit(bodyFiles(folder)[0]!, body.subarray(1000, 1016))],
      ['last block', folder => flipBit(bodyFiles(folder)[0]!, body.subarray(550 * KiB, 550 * KiB + 16))],
    ];
    for (const [what, damage] of cases) {
      using place = tempFolder();
      {
        await using disk = diskIn(place.path);
        disk.store.put(entryOf('http://b.test/', 'the body of b', { lines: ['X', 'x', 'a head of b'] }));
        disk.store.put(entryOf('http://c.test/', body));
        disk.store.put(entryOf('http://d.test/', 'unharmed'));
      }
      damage(path.join(place.path, 'cache'));
      await using again = diskIn(place.path);
      const { store } = again;
      const url = what.includes('block') ? 'http://c.test/' : 'http://b.test/';
      const found = store.get(url, false)[0];
      if (what.includes('block')) {
        await expect(bytesOf(found!.entry.body), what).rejects.toThrow('damaged');
        if (what === 'last block') {
          // What is not damaged of it never went wrong.
          expect((await bytesOf(found!.entry.body, 0, 1000)).equals(body.subarray(0, 1000))).toBe(true);
        }
      } else expect(found, what).toBeUndefined();
      expect(store.get(url, false), what).toEqual([]);
      await store.settled();
      expect(store.stats().entries, what).toBe(2);
      expect(store.get('http://d.test/', false), what).toHaveLength(1);
    }
  });

  test('A78: a row is served under no other URL than its own, wherever the index points', async () => {
    using place = tempFolder();
    {
      await using disk = diskIn(place.path);
      disk.store.put(entryOf('http://a.test/1', 'one'));
    }
    const index = new DatabaseSync(path.join(place.path, 'cache', 'index.db'));
    index.exec("UPDATE answers SET url = 'http://a.test/2'");
    index.close();
    await using again = diskIn(place.path);
    expect(again.store.get('http://a.test/2', false)).toEqual([]);
  });

  test('A78: a file that is short, longer, gone or another’s is a miss, and its row goes', async () => {
    const cases: [what: string, damage: (file: string) => void][] = [
      ['short', file => fs.truncateSync(file, 1000)],
      ['empty', file => fs.truncateSync(file, 0)],
      ['longer', file => fs.appendFileSync(file, 'x')],
      ['gone', file => fs.rmSync(file)],
      ['a folder', file => (fs.rmSync(file), fs.mkdirSync(file))],
    ];
    for (const [what, damage] of cases) {
      for (const length of [20 * KiB, 600 * KiB]) {
        using place = tempFolder();
        await using disk = diskIn(place.path);
        disk.store.put(entryOf(URL_A, bodyOf(length)));
        await disk.store.settled();
        damage(bodyFiles(disk.folder)[0]!);
        // A small file that became longer begins with what was stored.
        if (what === 'longer' && length < 256 * KiB) continue;
        expect(disk.store.get(URL_A, false), what).toEqual([]);
        await disk.store.settled();
        expect(disk.store.stats().entries, what).toBe(0);
        disk.store.put(entryOf(URL_A, 'again'));
        expect(disk.store.get(URL_A, false), what).toHaveLength(1);
      }
    }
  });

  test.skipIf(process.platform === 'win32')('A78: a pipe in the place of a file holds up nobody', async () => {
    for (const which of ['body', 'index']) {
      using place = tempFolder();
      {
        await using disk = diskIn(place.path);
        disk.store.put(entryOf(URL_A, bodyOf(20 * KiB)));
      }
      const folder = path.join(place.path, 'cache');
      const file = which === 'body' ? bodyFiles(folder)[0]! : path.join(folder, 'index.db');
      fs.rmSync(file);
      execFileSync('sh', ['-c', 'mkfifo "$0"', file]);
      // Whoever waits for somebody at its other end waits so long.
      const other = spawn('sh', ['-c', 'sleep 3; : > "$0"', file], { stdio: 'ignore' });
      const began = Date.now();
      await using again = diskIn(place.path);
      expect(again.store.get(URL_A, false), which).toEqual([]);
      expect(Date.now() - began, which).toBeLessThan(2_500);
      again.store.put(entryOf(URL_A, 'again'));
      await again.store.settled();
      expect(again.store.get(URL_A, false), which).toHaveLength(1);
      other.kill();
    }
  });

  test('A78: an index that is none, of another version, half gone or a folder is set aside, and a new one begun', async () => {
    const cases: [what: string, damage: (index: string) => void][] = [
      ['text', index => fs.writeFileSync(index, 'This is no database. '.repeat(1000))],
      ['empty', index => fs.writeFileSync(index, '')],
      ['short', index => fs.truncateSync(index, 8192)],
      [
        'noise',
        index => fs.writeFileSync(index, Buffer.concat([fs.readFileSync(index).subarray(0, 100), bodyOf(90_000)])),
      ],
      ['folder', index => (fs.rmSync(index), fs.mkdirSync(path.join(index, 'x'), { recursive: true }))],
      [
        'version',
        index => {
          const other = new DatabaseSync(index);
          other.exec('PRAGMA user_version = 99');
          other.close();
        },
      ],
      [
        'another program',
        index => {
          fs.rmSync(index);
          const other = new DatabaseSync(index);
          other.exec('CREATE TABLE answers (url TEXT)');
          other.close();
        },
      ],
    ];
    for (const [what, damage] of cases) {
      using place = tempFolder();
      {
        await using disk = diskIn(place.path);
        for (let i = 0; i < 50; i++) disk.store.put(entryOf(`http://a.test/${i}`, bodyOf(1000)));
      }
      damage(path.join(place.path, 'cache', 'index.db'));
      await using again = diskIn(place.path);
      const { store, warnings } = again;
      for (let i = 0; i < 50; i++) store.get(`http://a.test/${i}`, false);
      store.put(entryOf('http://b.test/', 'new'));
      await store.settled();
      expect(store.get('http://b.test/', false), what).toHaveLength(1);
      expect(store.stats().entries, what).toBe(1);
      expect(warnings, what).toEqual([]);
    }
  });

  test('A78: a folder that vanishes while it is used is made again', async () => {
    using place = tempFolder();
    await using disk = diskIn(place.path);
    const { store } = disk;
    store.put(entryOf(URL_A));
    await store.settled();
    fs.rmSync(disk.folder, { recursive: true });
    store.put(entryOf('http://b.test/', bodyOf(100 * KiB)));
    await store.settled();
    expect(store.get(URL_A, false)).toEqual([]);
    expect(store.get('http://b.test/', false)).toHaveLength(1);
  });

  test('A78, A92: where the folder cannot be made or written there is one warning that names it, and it is used when it can be', async () => {
    using place = tempFolder();
    const folder = path.join(place.path, 'cache');
    fs.writeFileSync(folder, 'a file in its place');
    await using disk = diskIn(place.path, { retryAfter: 50 });
    const { store, warnings } = disk;
    for (let i = 0; i < 5; i++) {
      store.put(entryOf(`http://a.test/${i}`));
      await store.settled();
      expect(store.get(`http://a.test/${i}`, true)).toEqual([]);
      expect(store.begin(1000)).toBeNull();
    }
    expect(warnings).toEqual([expect.stringContaining(folder)]);
    fs.rmSync(folder);
    await vi.waitFor(async () => {
      store.put(entryOf(URL_A));
      await store.settled();
      expect(store.get(URL_A, false)).toHaveLength(1);
    }, 20_000);
    expect(warnings).toHaveLength(1);
  });
});

describe('several processes', () => {
  test('find what another has put, and share one bound', async () => {
    using place = tempFolder();
    await using a = diskIn(place.path, { limit: 300 * KiB });
    await using b = diskIn(place.path, { limit: 300 * KiB });
    for (let i = 0; i < 40; i++) {
      a.store.put(entryOf(`http://a.test/${i}`, bodyOf(10_000, i)));
      b.store.put(entryOf(`http://b.test/${i}`, bodyOf(10_000, i)));
      await Promise.all([a.store.settled(), b.store.settled()]);
    }
    expect(a.store.get('http://b.test/39', false)).toHaveLength(1);
    expect(b.store.get('http://a.test/39', false)).toHaveLength(1);
    expect(a.store.stats()).toEqual(b.store.stats());
    expect(a.store.stats().bytes).toBeLessThanOrEqual(300 * KiB);
    expect(a.store.list({ all: true }, 1_000)).toHaveLength(a.store.stats().entries);
    b.store.purge({ all: true });
    await b.store.settled();
    expect(a.store.get('http://a.test/39', false)).toEqual([]);
    expect([...a.warnings, ...b.warnings]).toEqual([]);
  });
});

describe('several processes that give their rows the same numbers', () => {
  /** Two stores that number alike: the first has put `mine`, the second has put `theirs` under its number. */
  async function twoAlike(place: string) {
    const now = () => Date.UTC(2026, 10, 24, 12);
    const [a, b] = [diskIn(place, { now }), diskIn(place, { now })];
    using random = vi.spyOn(Math, 'random').mockReturnValue(0.5);
    const mine = a.store.put(entryOf('http://a.test/', 'mine'))!;
    await a.store.settled();
    const theirs = b.store.put(entryOf('http://b.test/', 'theirs'))!;
    expect(random).toHaveBeenCalled();
    expect(theirs).toBe(mine);
    return { a, b, number: mine };
  }

  test('A78: keep both answers, count both, and find each under its own URL', async () => {
    using place = tempFolder();
    const { a, b } = await twoAlike(place.path);
    await using _a = a;
    await using _b = b;
    await b.store.settled();
    for (const { store } of [a, b]) {
      expect(store.get('http://a.test/', false).map(({ entry }) => String(entry.body.bytes))).toEqual(['mine']);
      expect(store.get('http://b.test/', false).map(({ entry }) => String(entry.body.bytes))).toEqual(['theirs']);
      expect(store.stats().entries).toBe(2);
    }
  });

  test('A78: a new head and a removal go to the row that was meant, under whatever number', async () => {
    using place = tempFolder();
    const { a, b, number } = await twoAlike(place.path);
    await using _a = a;
    await using _b = b;
    const head = [...entryOf('').lines, 'X', 'x', 'new'];
    // Before it is written, on its way, and behind it.
    b.store.freshen(number, entryOf('http://b.test/', 'theirs', { lines: head }));
    expect(b.store.get('http://b.test/', false)[0]!.entry.lines).toEqual(head);
    expect(b.store.get('http://a.test/', false)[0]!.entry.lines).not.toEqual(head);
    await b.store.settled();
    expect(b.store.get('http://b.test/', false)[0]!.entry.lines).toEqual(head);
    expect(b.store.get('http://a.test/', false)[0]!.entry.lines).not.toEqual(head);
    b.store.remove(number, 'http://b.test/');
    await b.store.settled();
    expect(b.store.get('http://a.test/', false)).toHaveLength(1);
    expect(b.store.get('http://b.test/', false)).toEqual([]);
    expect(b.store.stats().entries).toBe(1);
  });
});

describe('what died unfinished', () => {
  test('A93: is swept away, and what belongs to a row or to a living process stays', { timeout: 20_000 }, async () => {
    using place = tempFolder();
    const folder = path.join(place.path, 'cache');
    {
      await using disk = diskIn(place.path);
      disk.store.put(entryOf(URL_A, bodyOf(300 * KiB)));
    }
    const unfinished = path.join(folder, 'unfinished');
    const orphan = path.join(folder, 'bodies', 'ab', 'ab'.repeat(32));
    fs.mkdirSync(path.dirname(orphan), { recursive: true });
    fs.writeFileSync(orphan, 'nobody’s');
    const aside = path.join(folder, 'index.db.set-aside');
    fs.writeFileSync(aside, 'an index that was of no use eight days ago');
    fs.utimesSync(aside, new Date(), new Date(Date.now() - 8 * 24 * 3_600_000));
    fs.writeFileSync(path.join(unfinished, '999999999.dead-1'), 'half');
    fs.writeFileSync(path.join(unfinished, `${process.ppid}.alive-1`), 'half');
    await using again = diskIn(place.path);
    again.store.put(entryOf('http://b.test/'));
    await vi.waitFor(() => expect(fs.existsSync(orphan)).toBe(false), { timeout: 15_000, interval: 200 });
    expect(fs.readdirSync(unfinished)).toEqual([`${process.ppid}.alive-1`]);
    expect(fs.existsSync(aside)).toBe(false);
    expect(again.store.get(URL_A, false)).toHaveLength(1);
  });
});
