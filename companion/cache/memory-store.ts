// The memory tier: answers by URL, bounded by bytes. What is new comes into a window where the least recently used goes first; from there it comes into
// the rest only if it has been asked for more often than what would have to go for it (W-TinyLFU). docs/cache.md has the figures by which this was chosen.
import { LRUCache } from 'lru-cache';
import type { Stored } from '../../shared/control.ts';
import type { Bytes } from '../../shared/units.ts';
import { FrequencySketch } from './frequency-sketch.ts';
import { Slabs } from './slabs.ts';
import { meaning, type Store, type StoreStats } from './store.ts';
import type { StoredResponse } from './stored-response.ts';
import { sameSelection } from './vary.ts';

/** Variants kept of one URL in one space, and answers of one URL in all. */
const MAX_VARIANTS = 8;
const MAX_ANSWERS = 64;
/** The window's share, in hundredths. */
const WINDOW = 20;
/** What is kept for offline use may take so much of the whole, in hundredths; more of it can go as anything else. */
const PINNED = 50;

type Answers = readonly StoredResponse[];
type Queue = LRUCache<string, Answers>;

/** Who has been asked for so often may take the place of one who has been asked for that often. */
export type Admission = (candidate: number, victim: number) => boolean;
const whoIsAskedForMore: Admission = (candidate, victim) => candidate > victim;

export class MemoryStore implements Store {
  private readonly limit: Bytes;
  private readonly windowLimit: Bytes;
  private readonly window: Queue;
  private readonly main: Queue;
  /** What does not go by itself. */
  private readonly pinned = new Map<string, Answers>();
  private pinnedBytes: Bytes = 0;
  private readonly sketch: FrequencySketch;
  private readonly admits: Admission;
  private readonly slabs = new Slabs();
  private entries = 0;

  /** `limit` 0: nothing is ever kept. */
  constructor(limit: Bytes, admits: Admission = whoIsAskedForMore) {
    this.limit = limit;
    this.admits = admits;
    this.windowLimit = Math.ceil((limit / 100) * WINDOW);
    this.sketch = new FrequencySketch(Math.max(1_024, Math.ceil(limit / 4_096)));
    // It never comes to their own bound: what has to go is chosen here.
    const maxSize = Math.max(1, limit * 2);
    this.window = new LRUCache<string, Answers>({ maxSize });
    this.main = new LRUCache<string, Answers>({ maxSize });
  }

  get(url: string): Answers | undefined {
    const found = this.main.get(url) ?? this.window.get(url) ?? this.pinned.get(url);
    if (found !== undefined) this.sketch.seen(found[0]!.hash);
    return found;
  }

  peek(url: string): Answers | undefined {
    return this.main.peek(url) ?? this.window.peek(url) ?? this.pinned.get(url);
  }

  put(response: StoredResponse): boolean {
    if (response.size > this.limit) return false;
    response.hash = hashOf(response.url);
    this.sketch.seen(response.hash);
    const before = this.peek(response.url) ?? NONE;
    const others = before.filter(
      one => one.space !== response.space || !sameSelection(one.selection, response.selection),
    );
    // A slow body may be whole only after a later one of the same resource.
    const same = before.filter(one => !others.includes(one));
    if (same.some(one => one.respondedAt > response.respondedAt)) return false;
    // What is kept for offline use is the resource, as it is now.
    if (same.some(one => one.pinned)) response.pinned = true;
    return this.keep(response.url, before, [response, ...others]);
  }

  replace(old: StoredResponse, fresh: StoredResponse): boolean {
    const before = this.peek(old.url);
    if (before === undefined || !before.includes(old)) return false;
    if (old.pinned) fresh.pinned = true;
    fresh.hash = old.hash;
    if (fresh.size > this.limit) {
      this.remove(old);
      return false;
    }
    return this.keep(old.url, before, [fresh, ...before.filter(one => one !== old)]);
  }

  remove(response: StoredResponse): void {
    const before = this.peek(response.url);
    if (before === undefined || !before.includes(response)) return;
    this.keep(
      response.url,
      before,
      before.filter(one => one !== response),
    );
  }

  drop(url: string): void {
    const before = this.peek(url);
    if (before !== undefined) this.keep(url, before, NONE);
  }

  purge(which: Stored): number {
    const gone = this.list(which, Infinity);
    for (const url of new Set(gone.map(one => one.url))) this.drop(url);
    return gone.length;
  }

  list(which: Stored, limit: number): readonly StoredResponse[] {
    if ('url' in which) return (this.peek(which.url) ?? NONE).slice(0, limit);
    const found: StoredResponse[] = [];
    const isMeant = meaning(which);
    for (const queue of [this.pinned, this.window, this.main]) {
      for (const [url, answers] of queue.entries()) {
        if (found.length >= limit) break;
        if (isMeant(url)) found.push(...answers);
      }
    }
    return found.slice(0, limit);
  }

  pin(which: Stored, pinned: boolean): number {
    const found = this.list(which, Infinity).filter(one => one.pinned !== pinned);
    for (const one of found) one.pinned = pinned;
    for (const url of new Set(found.map(one => one.url))) {
      const answers = this.peek(url);
      if (answers !== undefined) this.keep(url, answers, answers);
    }
    return found.length;
  }

  stats(): StoreStats {
    const bytes = this.window.calculatedSize + this.main.calculatedSize + this.pinnedBytes;
    return { entries: this.entries, bytes, disk: null };
  }

  async close(): Promise<void> {
    this.purge({ all: true });
  }

  /** `answers` in the place of `before`: the newest first, that is the one that must be kept. False where nothing is kept. */
  private keep(url: string, before: Answers, answers: Answers): boolean {
    const wasInMain = this.takeOut(url);
    // An array that grows has room for more than the one that most have.
    const kept = answers.slice(0, Math.min(answers.length, MAX_ANSWERS)) as StoredResponse[];
    let count = 0;
    let size = 0;
    let inSpace = 0;
    for (const one of answers) {
      if (one.space === answers[0]!.space && ++inSpace > MAX_VARIANTS) continue;
      if (count === MAX_ANSWERS) break;
      one.moveInto(this.slabs);
      if (count > 0 && size + one.size > this.limit) break;
      size += one.size;
      kept[count++] = one;
    }
    kept.length = count;
    if (count > 1) kept.sort((a, b) => b.date - a.date);
    for (const one of before) if (!kept.includes(one)) one.moveOut();
    this.entries += kept.length - before.length;
    if (kept.length === 0) return false;
    if (kept.some(one => one.pinned) && this.pinnedBytes + size <= (this.limit / 100) * PINNED) {
      this.pinned.set(url, kept);
      this.pinnedBytes += size;
      this.makeRoom(0);
      return true;
    }
    if (wasInMain) {
      if (size > this.mainLimit) return this.refuse(kept);
      this.makeRoom(size);
      this.main.set(url, kept, { size });
      return true;
    }
    if (size > this.windowLimit) return this.offer(url, kept, size) || this.refuse(kept);
    this.window.set(url, kept, { size });
    while (this.window.calculatedSize > this.windowLimit) {
      const next = this.window.rentries().next().value as [string, Answers];
      const held = this.window.calculatedSize;
      this.window.delete(next[0]);
      if (!this.offer(next[0], next[1], held - this.window.calculatedSize)) this.lose(next[1]);
    }
    return true;
  }

  private get mainLimit(): Bytes {
    return this.limit - this.windowLimit - this.pinnedBytes;
  }

  /** Takes the URL from where it is; true where that was the main part. */
  private takeOut(url: string): boolean {
    const pinned = this.pinned.get(url);
    if (pinned !== undefined) {
      this.pinned.delete(url);
      for (const one of pinned) this.pinnedBytes -= one.size;
      return true;
    }
    return !this.window.delete(url) && this.main.delete(url);
  }

  /** Before the door of the main part; false where it stays closed. */
  private offer(url: string, answers: Answers, size: Bytes): boolean {
    if (size > this.mainLimit) return false;
    let room = this.mainLimit - this.main.calculatedSize;
    if (room < size) {
      const frequency = this.sketch.estimate(answers[0]!.hash);
      for (const [, victims] of this.main.rentries() as Iterable<[string, Answers]>) {
        if (!this.admits(frequency, this.sketch.estimate(victims[0]!.hash))) return false;
        for (const one of victims) room += one.size;
        if (room >= size) break;
      }
      this.makeRoom(size);
    }
    this.main.set(url, answers, { size });
    return true;
  }

  /** In the main part, for so much. */
  private makeRoom(size: Bytes): void {
    while (this.main.calculatedSize + size > this.mainLimit) {
      const victims = this.main.pop();
      if (victims === undefined) return;
      this.lose(victims);
    }
  }

  private lose(answers: Answers): void {
    this.entries -= answers.length;
    for (const one of answers) one.moveOut();
  }

  /** They are not kept, but who has offered them goes on with them. */
  private refuse(answers: Answers): false {
    this.entries -= answers.length;
    for (const one of answers) one.hold();
    return false;
  }
}

const NONE: Answers = [];

/** FNV-1a, in 31 bits. */
function hashOf(text: string): number {
  let hash = 0x811c_9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x0100_0193);
  return (hash ^ (hash >>> 15)) & 0x7fff_ffff;
}
