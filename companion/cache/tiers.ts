// Memory over disk, as one store. What is stored is written to both at once, the disk a moment later on a thread of its own: so a crash loses little, what
// leaves memory need not be written then, and what is in memory only is never more than what the disk does not take. Memory has all answers of a URL or
// none, so that a lookup asks the disk only for URLs that memory does not know, and then takes all of them along. A body too large for memory stays on
// the disk, and all of its URL with it.
import type { Stored } from '../../shared/control.ts';
import type { Bytes } from '../../shared/units.ts';
import { KiB } from '../../shared/units.ts';
import type { DiskEntry, DiskFilling, DiskStore } from './disk-store.ts';
import { Fields } from '../message/headers.ts';
import { isOfSame } from './partial.ts';
import { type Semantics, termsOf } from './policy.ts';
import { type Entry, haveOnePlace, MemoryBody, type Store, type StoredBody, type StoreStats } from './store.ts';
import { StoredResponse } from './stored-response.ts';

/** Of so many hits in memory one is told to the disk, which would else take what is used most for what nobody wants any more. */
const TOLD_HITS = 64;
/** Parts that have no more together are written again with each that comes. */
const WRITTEN_ANEW: Bytes = 4 * KiB;

export class Tiers implements Store {
  private readonly memory: Store;
  private readonly disk: DiskStore;
  /** The largest body that is kept in memory. */
  private readonly memoryEntry: Bytes;
  private readonly semantics: Semantics;
  private hits = 0;

  constructor(memory: Store, disk: DiskStore, memoryEntry: Bytes, semantics: Semantics) {
    this.semantics = semantics;
    this.memory = memory;
    this.disk = disk;
    this.memoryEntry = memoryEntry;
    disk.promoteUpTo = memoryEntry;
    disk.promote = (url, id, body) => this.promote(url, id, body);
  }

  get(url: string): readonly StoredResponse[] | undefined {
    const known = this.memory.get(url);
    if (known === undefined) return this.load(url, true);
    if (++this.hits % TOLD_HITS === 0) this.tell(known[0]!);
    return known;
  }

  /** The disk counts a use only once in a while, and need not hear of others. */
  private tell(used: StoredResponse): void {
    const now = this.disk.seconds;
    if (now - used.toldAt < this.disk.touchAfter) return;
    used.toldAt = now;
    this.disk.touch(used.url);
  }

  peek(url: string): readonly StoredResponse[] | undefined {
    return this.memory.peek(url) ?? this.responses(this.disk.get(url, false));
  }

  put(response: StoredResponse): boolean {
    const { entry, url } = response;
    const before = this.memory.peek(url) ?? this.load(url, false) ?? [];
    const same = before.find(one => haveOnePlace(one, entry));
    // A slow body may be whole only after a later one of the same resource.
    if (same !== undefined && same.respondedAt > response.respondedAt) return false;
    if (same?.pinned === true) response.pinned = true;
    // What lies on the disk already has only a new head.
    if (entry.partial === null && entry.body.bytes === null) return same !== undefined && this.replace(same, response);
    const length = entry.partial === null ? entry.body.length : partsLength(entry);
    const much = same === undefined ? [] : this.withMuchOf(same, entry, length);
    // RFC 9111 §3.4: the fields are the newer ones, for the older parts too.
    for (const id of much) this.disk.freshen(id, { ...entry, pinned: response.pinned });
    const isOnDisk =
      much.length > 0 || (this.disk.takes(length) && this.disk.put({ ...entry, pinned: response.pinned }) !== null);
    // What was there in its place must not come back.
    if (!isOnDisk && same !== undefined) this.disk.removeLike(entry);
    const isInMemory = length <= this.memoryEntry && this.memory.put(response);
    if (!isInMemory) this.memory.drop(url);
    return isInMemory || isOnDisk;
  }

  /** Rows on the disk with half or more of these parts. What grows part by part would else be written again with each: so it is twice in all. */
  private withMuchOf(before: StoredResponse, entry: Entry, length: Bytes): readonly number[] {
    if (length <= WRITTEN_ANEW || entry.partial === null || before.partial === null) return [];
    const old = before.entry;
    const lengthThen = partsLength(old);
    if (length < lengthThen || Math.clz32(length) !== Math.clz32(lengthThen)) return [];
    return old.partial!.complete === entry.partial.complete && isOfSame(old, entry) ? this.disk.idsLike(entry) : [];
  }

  replace(old: StoredResponse, fresh: StoredResponse): boolean {
    // In memory they may lie elsewhere from then on, or nowhere.
    const { entry } = fresh;
    const before = old.entry;
    const isKnown = this.memory.replace(old, fresh);
    const ids = this.disk.idsLike(before);
    if (ids.length === 0) return isKnown;
    if (entry.body === before.body && entry.partial === null && before.partial === null) {
      // Another answer that has come there keeps its own head.
      const same = this.disk.idsOf(before);
      for (const id of same) this.disk.freshen(id, { ...entry, pinned: fresh.pinned });
      return isKnown || same.length > 0;
    } else if (entry.partial !== null || entry.body.bytes !== null) {
      if (this.disk.put({ ...entry, pinned: fresh.pinned }) === null) this.disk.removeLike(before);
    } else this.disk.removeLike(before);
    return true;
  }

  remove(response: StoredResponse): void {
    this.memory.remove(response);
    this.disk.removeLike(response);
  }

  drop(url: string): void {
    this.memory.drop(url);
    if (this.disk.has(url)) this.disk.purge({ url });
  }

  purge(which: Stored): number {
    // All that memory has is on the disk, too, unless that takes nothing.
    return Math.max(this.memory.purge(which), this.disk.purge(which));
  }

  list(which: Stored, limit: number): readonly StoredResponse[] {
    const found = [...this.memory.list(which, limit)];
    const known = new Set(found.map(({ url }) => url));
    for (const { entry } of this.disk.list(which, limit)) {
      if (found.length >= limit) break;
      if (!known.has(entry.url)) found.push(new StoredResponse({ ...entry, body: lying(entry.body) }, this.semantics));
    }
    return found;
  }

  pin(which: Stored, pinned: boolean): number {
    return Math.max(this.memory.pin(which, pinned), this.disk.pin(which, pinned));
  }

  stats(): StoreStats {
    const { entries, bytes } = this.memory.stats();
    return { entries, bytes, disk: this.disk.stats() };
  }

  settled(): Promise<void> {
    return this.disk.settled();
  }

  /** Forgets what is in memory: it may be out of date, where the disk is not. */
  forget(): void {
    this.memory.purge({ all: true });
  }

  /** The disk outlives this. */
  async close(): Promise<void> {
    this.disk.promoteUpTo = 0;
    await this.memory.close();
  }

  /** Begins a body too large for memory; null where the disk does not take it. */
  begin(length: Bytes | null): DiskFilling | null {
    const filling = this.disk.begin(length);
    if (filling === null) return null;
    return {
      ...filling,
      commit: entry => {
        this.memory.drop(entry.url);
        filling.commit(entry);
      },
    };
  }

  /** What the disk has of a URL, into memory where all of it may stand there. */
  private load(url: string, touch: boolean): readonly StoredResponse[] | undefined {
    const found = this.responses(this.disk.get(url, touch));
    if (found === undefined || this.bringUp(url, found)) return found;
    return this.responses(this.disk.get(url, false));
  }

  /** The most recent Date first (RFC 9111 §4). */
  private responses(found: readonly DiskEntry[]): readonly StoredResponse[] | undefined {
    if (found.length === 0) return undefined;
    const responses: StoredResponse[] = [];
    for (const { entry } of found) {
      const response = this.response(entry);
      if (response !== null) responses.push(response);
    }
    return responses.length === 0 ? undefined : responses.sort((a, b) => b.date - a.date);
  }

  /** Null where this cache would not have stored it: the disk may have been that of one person, whose cache several use now (A67). */
  private response(entry: Entry): StoredResponse | null {
    const { shared, cookies } = this.semantics;
    const fields = new Fields(entry.lines as string[]);
    if (!cookies && fields.has('set-cookie')) return null;
    const terms = termsOf(entry.status, fields, entry, this.semantics);
    return shared && terms.control.private ? null : new StoredResponse(entry, this.semantics, terms);
  }

  /** False where memory does not take all of them: what was found can then not be used any more. */
  private bringUp(url: string, found: readonly StoredResponse[]): boolean {
    const mayStand = ({ entry: { body, partial } }: StoredResponse) =>
      (body.bytes !== null || partial !== null) && body.length <= this.memoryEntry;
    if (!found.every(mayStand)) return true;
    // There may be more on its way to the disk than memory keeps of one URL.
    if (found.every(one => this.memory.put(one)) && this.memory.peek(url)!.length === found.length) return true;
    this.memory.drop(url);
    return false;
  }

  private promote(url: string, id: number, bytes: Buffer): void {
    if (this.memory.peek(url) !== undefined) return;
    const found = this.responses(
      this.disk
        .get(url, false)
        .map(one => (one.id === id ? { id, entry: { ...one.entry, body: new MemoryBody(bytes) } } : one)),
    );
    if (found !== undefined) this.bringUp(url, found);
  }
}

function partsLength({ partial }: Entry): Bytes {
  return partial!.parts.reduce((sum, { bytes }) => sum + bytes.length, 0);
}

/** A body, as what it is while it lies on the disk. */
function lying(body: StoredBody): StoredBody {
  return { length: body.length, bytes: null, open: (from, to) => body.open(from, to) };
}
