// The index of the disk store as the thread of the traffic reads it: by itself, read-only, one prepared statement a lookup. Whatever is wrong with it, an
// answer is only a miss; who writes hears that it is broken.
import * as fs from 'node:fs';
import type { DatabaseSync, StatementSync } from 'node:sqlite';
import type { EpochMilliseconds, Milliseconds } from '../../shared/units.ts';
import { isBroken, isOurs, loadSqlite, placesIn } from './disk-rows.ts';

/** An index that was not there is looked for again: another process may have made it. */
const LOOK_AGAIN: Milliseconds = 1_000;

interface Reader {
  readonly database: DatabaseSync;
  readonly inode: number;
  readonly byUrl: StatementSync;
  /** The same, without what is served. */
  readonly places: StatementSync;
  readonly heads: StatementSync;
  readonly urls: StatementSync;
}

/** As `byUrl` gives them. */
export type Row = [
  id: number,
  space: string,
  choice: string,
  used: number,
  pinned: number,
  responded: number,
  digest: Uint8Array,
  head: string,
  file: Uint8Array | null,
  blocks: Uint8Array | null,
  body: Uint8Array | null,
];

const COLUMNS = 'id, space, choice, used, pinned, responded, digest, head, file, blocks, body';

/** Opened when it is first asked, and again after `close`. */
export class DiskIndex {
  private readonly path: string;
  private readonly broken: (inode: number) => void;
  private reader: Reader | null = null;
  private lookedAt = -Infinity;

  /** `broken` hears of a file, by its inode, that cannot be read and should be made anew. */
  constructor(folder: string, broken: (inode: number) => void) {
    this.path = placesIn(folder).index;
    this.broken = broken;
  }

  /** What the index says; null where there is none that can be read. */
  ask<T>(question: (database: DatabaseSync) => T): T | null {
    return this.read(reader => question(reader.database));
  }

  /** All rows of a URL. */
  rows(url: string): readonly Row[] {
    return (this.read(({ byUrl }) => byUrl.all(url)) as unknown as Row[] | null) ?? [];
  }

  /** The same without what is served, which costs less. */
  places(url: string): readonly [id: number, space: string, choice: string][] {
    return (this.read(({ places }) => places.all(url)) as unknown as [number, string, string][] | null) ?? [];
  }

  /** The heads of a URL, as `read` understands them; none at all where it throws at one. */
  heads<T>(url: string, read: (id: number, responded: EpochMilliseconds, head: string) => T): readonly T[] {
    const found = this.read(({ heads }) =>
      (heads.all(url) as unknown as [number, number, string][]).map(row => read(...row)),
    );
    return found ?? [];
  }

  /** So many URLs in their order, from behind `after`; null where it cannot be read. */
  urls(after: string, limit: number): readonly string[] | null {
    return this.read(({ urls }) => (urls.all(after, limit) as unknown as [string][]).map(([url]) => url));
  }

  /** What it counts; null where it cannot be read. */
  totals(): { entries: number; bytes: number } | null {
    const query = 'SELECT entries, bytes FROM totals';
    return this.ask(database => database.prepare(query).get()) as { entries: number; bytes: number } | null;
  }

  /** Lets go of the file, which may be another by now; it is looked for when the next question comes. */
  reopen(): void {
    this.close();
    this.lookedAt = -Infinity;
  }

  close(): void {
    try {
      this.reader?.database.close();
    } catch {
      // It was broken.
    }
    this.reader = null;
  }

  private read<T>(question: (reader: Reader) => T): T | null {
    try {
      this.reader ??= this.open();
      return this.reader === null ? null : question(this.reader);
    } catch (error) {
      const inode = this.reader?.inode ?? inodeOf(this.path);
      this.close();
      // Whatever it says, it is a miss. Locked just now: by the process that makes or repairs it.
      if (isBroken(error) && inode !== null) this.broken(inode);
      return null;
    }
  }

  private open(): Reader | null {
    const at = performance.now();
    if (at - this.lookedAt < LOOK_AGAIN) return null;
    this.lookedAt = at;
    const inode = inodeOf(this.path);
    if (inode === null) return null;
    const { DatabaseSync: Database } = loadSqlite();
    const database = new Database(this.path, { readOnly: true, timeout: 50 });
    try {
      // It is being made just now, or is none of ours: the thread will know, when it writes.
      if (!isOurs(database)) {
        database.close();
        return null;
      }
      database.exec('PRAGMA cell_size_check = ON');
      const byUrl = database.prepare(`SELECT ${COLUMNS} FROM answers WHERE url = ?`);
      byUrl.setReturnArrays(true);
      const places = database.prepare('SELECT id, space, choice FROM answers WHERE url = ?');
      places.setReturnArrays(true);
      const heads = database.prepare('SELECT id, responded, head FROM answers WHERE url = ?');
      heads.setReturnArrays(true);
      const urls = database.prepare('SELECT DISTINCT url FROM answers WHERE url > ? ORDER BY url LIMIT ?');
      urls.setReturnArrays(true);
      return { database, inode, byUrl, places, heads, urls };
    } catch (error) {
      database.close();
      throw error;
    }
  }
}

/** Of a file; null where there is none. To open anything else (a pipe) might be to wait for ever. */
function inodeOf(path: string): number | null {
  try {
    const stat = fs.lstatSync(path, { throwIfNoEntry: false });
    return stat?.isFile() === true ? stat.ino : null;
  } catch {
    return null;
  }
}
