// The memory tier: answers by URL, bounded by bytes. What is new comes into a window where the least recently used goes first; from there it comes into
// the rest only if it has been asked for more often than what would have to go for it (W-TinyLFU). docs/cache.md has the figures by which this was chosen.
// One map knows all URLs, and the answers themselves are linked to queues: a lookup is one question, whichever queue it is.
import type { Stored } from '../../shared/control.ts';
import type { Bytes } from '../../shared/units.ts';
import { FrequencySketch } from './frequency-sketch.ts';
import { Slabs } from './slabs.ts';
import { haveOnePlace, meaning, type Store, type StoreStats } from './store.ts';
import type { StoredResponse } from './stored-response.ts';

/** Variants kept of one URL in one space, and answers of one URL in all. */
const MAX_VARIANTS = 8;
const MAX_ANSWERS = 64;
/** The window's share, in hundredths. */
const WINDOW = 20;
/** What is kept for offline use may take so much of the whole, in hundredths; more of it can go as anything else. */
const PINNED = 50;

type Answers = readonly StoredResponse[];

/** Numbers of the queues; 0 is none. */
const WINDOW_QUEUE = 1;
const MAIN_QUEUE = 2;
const PINNED_QUEUE = 3;

/** Who has been asked for so often may take the place of one who has been asked for that often. */
export type Admission = (candidate: number, victim: number) => boolean;
const whoIsAskedForMore: Admission = (candidate, victim) => candidate > victim;

export class MemoryStore implements Store {
  private readonly limit: Bytes;
  private readonly windowLimit: Bytes;
  /** The first answer of each URL, which knows the others. */
  private readonly known = new Map<string, StoredResponse>();
  private readonly window = new Queue(WINDOW_QUEUE);
  private readonly main = new Queue(MAIN_QUEUE);
  /** What does not go by itself. */
  private readonly pinned = new Queue(PINNED_QUEUE);
  private readonly queues = [this.window, this.main, this.pinned] as const;
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
  }

  get(url: string): Answers | undefined {
    const first = this.known.get(url);
    if (first === undefined) return undefined;
    this.sketch.seen(first.hash);
    this.queues[first.queue - 1]!.use(first);
    return answersFrom(first);
  }

  peek(url: string): Answers | undefined {
    const first = this.known.get(url);
    return first === undefined ? undefined : answersFrom(first);
  }

  put(response: StoredResponse): boolean {
    if (response.size > this.limit) return false;
    response.hash = hashOf(response.url);
    this.sketch.seen(response.hash);
    const before = this.peek(response.url) ?? NONE;
    const others = before.filter(one => !haveOnePlace(one, response));
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
      for (let one = queue.newest; one !== null && found.length < limit; one = one.older) {
        if (isMeant(one.url)) found.push(...answersFrom(one));
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
    return { entries: this.entries, bytes: this.window.size + this.main.size + this.pinned.size, disk: null };
  }

  async close(): Promise<void> {
    this.purge({ all: true });
  }

  /** `answers` in the place of `before`: the newest first, that is the one that must be kept. False where nothing is kept. */
  private keep(url: string, before: Answers, answers: Answers): boolean {
    const wasInMain = this.takeOut(url);
    const kept: StoredResponse[] = [];
    let count = 0;
    let size = 0;
    let inSpace = 0;
    for (const one of answers) {
      if (one.space === answers[0]!.space && ++inSpace > MAX_VARIANTS) continue;
      if (count === MAX_ANSWERS) break;
      one.moveInto(this.slabs);
      if (count > 0 && size + one.size > this.limit) break;
      size += one.size;
      count = kept.push(one);
    }
    if (count > 1) kept.sort((a, b) => b.date - a.date);
    for (const one of before) if (!kept.includes(one)) one.moveOut();
    this.entries += kept.length - before.length;
    if (kept.length === 0) return false;
    const first = kept[0]!;
    first.all = count > 1 ? kept : null;
    if (kept.some(one => one.pinned) && this.pinned.size + size <= (this.limit / 100) * PINNED) {
      this.add(first, this.pinned);
      this.makeRoom(0);
      return true;
    }
    if (wasInMain) {
      if (size > this.mainLimit) return this.refuse(kept);
      this.makeRoom(size);
      this.add(first, this.main);
      return true;
    }
    if (size > this.windowLimit) return this.offer(first) || this.refuse(kept);
    this.add(first, this.window);
    while (this.window.size > this.windowLimit) {
      const next = this.window.oldest!;
      this.window.take(next);
      if (!this.offer(next)) this.lose(next);
    }
    return true;
  }

  private get mainLimit(): Bytes {
    return this.limit - this.windowLimit - this.pinned.size;
  }

  private add(first: StoredResponse, queue: Queue): void {
    this.known.set(first.url, first);
    queue.add(first);
  }

  /** Takes the URL from where it is; true where that was not the window. */
  private takeOut(url: string): boolean {
    const first = this.known.get(url);
    if (first === undefined) return false;
    const { queue } = first;
    this.queues[queue - 1]!.take(first);
    this.known.delete(url);
    first.all = null;
    return queue !== WINDOW_QUEUE;
  }

  /** Before the door of the main part; false where it stays closed. */
  private offer(first: StoredResponse): boolean {
    const size = sizeOf(first);
    if (size > this.mainLimit) return false;
    let room = this.mainLimit - this.main.size;
    if (room < size) {
      const frequency = this.sketch.estimate(first.hash);
      for (let victim = this.main.oldest; victim !== null && room < size; victim = victim.newer) {
        if (!this.admits(frequency, this.sketch.estimate(victim.hash))) return false;
        room += sizeOf(victim);
      }
      this.makeRoom(size);
    }
    this.add(first, this.main);
    return true;
  }

  /** In the main part, for so much. */
  private makeRoom(size: Bytes): void {
    while (this.main.size + size > this.mainLimit) {
      const victim = this.main.oldest;
      if (victim === null) return;
      this.main.take(victim);
      this.lose(victim);
    }
  }

  /** What has been taken from its queue already goes. */
  private lose(first: StoredResponse): void {
    this.known.delete(first.url);
    const answers = answersFrom(first);
    first.all = null;
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

/** Answers by their last use, each for all of its URL. */
class Queue {
  private readonly number: number;
  newest: StoredResponse | null = null;
  oldest: StoredResponse | null = null;
  size: Bytes = 0;

  constructor(number: number) {
    this.number = number;
  }

  /** As the newest. */
  add(first: StoredResponse): void {
    first.queue = this.number;
    this.link(first);
    this.size += sizeOf(first);
  }

  use(first: StoredResponse): void {
    if (first === this.newest) return;
    this.unlink(first);
    this.link(first);
  }

  take(first: StoredResponse): void {
    this.unlink(first);
    first.queue = 0;
    this.size -= sizeOf(first);
  }

  private link(first: StoredResponse): void {
    first.older = this.newest;
    if (this.newest === null) this.oldest = first;
    else this.newest.newer = first;
    this.newest = first;
  }

  private unlink(first: StoredResponse): void {
    const { older, newer } = first;
    if (older === null) this.oldest = newer;
    else older.newer = newer;
    if (newer === null) this.newest = older;
    else newer.older = older;
    first.older = null;
    first.newer = null;
  }
}

const NONE: Answers = [];

function answersFrom(first: StoredResponse): Answers {
  return first.all ?? [first];
}

function sizeOf({ all, size }: StoredResponse): Bytes {
  return all === null ? size : all.reduce((sum, one) => sum + one.size, 0);
}

/** FNV-1a, in 31 bits. */
function hashOf(text: string): number {
  let hash = 0x811c_9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x0100_0193);
  return (hash ^ (hash >>> 15)) & 0x7fff_ffff;
}
