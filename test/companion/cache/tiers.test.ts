// Memory over a disk that another process writes to as well.
import { describe, expect, test } from 'vitest';
import { DatabaseSync } from 'node:sqlite';
import path from 'node:path';
import { digestOf, type RowHead } from '../../../companion/cache/disk-rows.ts';
import { MemoryStore } from '../../../companion/cache/memory-store.ts';
import { incompleteEntry } from '../../../companion/cache/partial.ts';
import type { Semantics } from '../../../companion/cache/policy.ts';
import type { Entry } from '../../../companion/cache/store.ts';
import { StoredResponse } from '../../../companion/cache/stored-response.ts';
import { Tiers } from '../../../companion/cache/tiers.ts';
import type { DiskStore } from '../../../companion/cache/disk-store.ts';
import { KiB } from '../../../shared/units.ts';
import { diskIn, entryOf, tempFolder } from '../../support/disk-cache.ts';

const SEMANTICS: Semantics = { shared: true, targeted: [], heuristic: 0, aggressive: 0, cookies: true };
const URL_A = 'http://a.test/page';
const MINUTE = 60_000;

/** What the origin has just confirmed. */
function confirmed(old: StoredResponse): StoredResponse {
  old.hold();
  const { entry } = old;
  const [requestedAt, respondedAt] = [entry.requestedAt + MINUTE, entry.respondedAt + MINUTE];
  return new StoredResponse({ ...entry, requestedAt, respondedAt }, SEMANTICS);
}

function version(letter: string, length: number, later = 0): Entry {
  const entry = entryOf(URL_A, letter.repeat(length));
  const lines = [...entry.lines.slice(0, 6), 'ETag', 'etag', `"${letter}"`];
  return { ...entry, lines, requestedAt: entry.requestedAt + later, respondedAt: entry.respondedAt + later };
}

function tiersOver(store: DiskStore): Tiers {
  return new Tiers(new MemoryStore(1024 * KiB), store, 64 * KiB, SEMANTICS);
}

describe('what is confirmed', () => {
  const part = (of: Entry) => incompleteEntry(of, 1, Buffer.alloc(50, 'v'), 5_000);
  test.each<[what: string, length: number, other: (of: Entry) => Entry]>([
    ['a part', 5_000, part],
    ['another version', 5_000, () => version('w', 5_000, 1_000)],
    ['another version as a file', 40 * KiB, () => version('w', 40 * KiB, 1_000)],
    ['another version of what is too large for memory', 300 * KiB, () => version('w', 300 * KiB, 1_000)],
  ])(
    'A73: does not lend its head to %s that another process has put into its place meanwhile',
    async (_, length, other) => {
      using place = tempFolder();
      {
        await using a = diskIn(place.path);
        await using b = diskIn(place.path);
        const [one, two] = [tiersOver(a.store), tiersOver(b.store)];
        const body = version('v', length);
        if (length <= 64 * KiB) one.put(new StoredResponse(body, SEMANTICS));
        else a.store.put(body);
        await a.store.settled();
        const old = one.get(URL_A)![0]!;
        const fresh = confirmed(old);
        b.store.put(other(body));
        await b.store.settled();
        one.replace(old, fresh);
        await a.store.settled();
        expect(two.get(URL_A)).toBeDefined();
      }
      await using again = diskIn(place.path);
      const [found] = again.store.get(URL_A, false);
      const put = other(version('v', length));
      expect(found!.entry.partial === null).toBe(put.partial === null);
      expect(found!.entry.lines).toEqual(put.lines);
      expect(found!.entry.body.length).toBe(put.body.length);
      expect(found!.entry.respondedAt).toBe(put.respondedAt);
    },
  );

  test('lends its head to the same that another process has put there, or freshened', async () => {
    using place = tempFolder();
    await using a = diskIn(place.path);
    await using b = diskIn(place.path);
    const one = tiersOver(a.store);
    one.put(new StoredResponse(version('v', 5_000), SEMANTICS));
    await a.store.settled();
    b.store.put(version('v', 5_000, 1_000));
    await b.store.settled();
    const old = one.get(URL_A)![0]!;
    expect(one.replace(old, confirmed(old))).toBe(true);
    await a.store.settled();
    expect(b.store.get(URL_A, false)[0]!.entry.respondedAt).toBe(version('v', 1).respondedAt + MINUTE);
    const later = one.get(URL_A)![0]!;
    expect(one.replace(later, confirmed(later))).toBe(true);
    // Queued, it counts as written.
    expect(a.store.get(URL_A, false)[0]!.entry.respondedAt).toBe(version('v', 1).respondedAt + 2 * MINUTE);
  });
});

test('A78: a row whose body has another length than its head says is a miss', async () => {
  using place = tempFolder();
  await using disk = diskIn(place.path);
  disk.store.put(version('v', 5_000));
  await disk.store.settled();
  const index = new DatabaseSync(path.join(disk.folder, 'index.db'));
  const row = index.prepare('SELECT * FROM answers').get() as unknown as RowHead & { body: Uint8Array };
  const head = row.head.replace(',5000,', ',4000,');
  expect(head).not.toBe(row.head);
  index.prepare('UPDATE answers SET head = ?, digest = ?').run(head, digestOf({ ...row, head }, row.body));
  index.close();
  expect(disk.store.get(URL_A, false)).toHaveLength(0);
});
