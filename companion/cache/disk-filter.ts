// Which URLs the disk certainly has nothing of: a Bloom filter over the index, so that a miss need not ask SQLite. It is filled from the index a few hundred
// URLs at a time, between requests, and is believed only once it is complete. It is for a process that has the folder to itself: what another one stores
// it would not hear of.
import type { Bytes, Milliseconds } from '../../shared/units.ts';

/** Of the index read at once, and how long until more is. A million URLs take some ten seconds, in a tenth of the time. */
const AT_ONCE = 500;
const BETWEEN: Milliseconds = 5;
/** Twelve bits and four questions a URL: one in two hundred of those it does not have is asked for all the same. */
const BITS = 12;
const LEAST = 4_096;
/** Larger it does not become; then it says no less often. */
const MOST: Bytes = 4 * 1024 * 1024;
/** An index that cannot be read is tried again after so long. */
const AGAIN_AFTER: Milliseconds = 1_000;

export interface FilterSource {
  /** The next URLs of the index in its order, from behind `after`; null where it cannot be read. */
  readonly urls: (after: string, limit: number) => readonly string[] | null;
  /** How many there may be. */
  readonly count: () => number;
  /** What is on its way to the index. */
  readonly queued: () => Iterable<string>;
}

export class DiskFilter {
  private readonly source: FilterSource;
  private bits: Uint32Array | null = null;
  private mask = 0;
  /** As many URLs as there is room for are in it before it is made anew, larger. */
  private room = 0;
  private complete = false;
  private notBefore = 0;
  private timer: NodeJS.Timeout | undefined;

  constructor(source: FilterSource) {
    this.source = source;
  }

  /** Whether the disk certainly has nothing of the URL. */
  lacks(url: string): boolean {
    if (!this.complete) {
      if (this.bits === null && performance.now() >= this.notBefore) this.start();
      return false;
    }
    const bits = this.bits!;
    let hash = hashOf(url);
    for (let i = 0; i < 4; i++) {
      const at = hash & this.mask;
      if ((bits[at >>> 5]! & (1 << (at & 31))) === 0) return true;
      hash = mixed(hash);
    }
    return false;
  }

  /** The disk is about to have it. */
  add(url: string): void {
    const { bits } = this;
    if (bits === null) return;
    let hash = hashOf(url);
    for (let i = 0; i < 4; i++) {
      const at = hash & this.mask;
      bits[at >>> 5]! |= 1 << (at & 31);
      hash = mixed(hash);
    }
    if (--this.room === 0 && this.mask < MOST * 8 - 1) this.forget();
  }

  /** The index may be another: what is known of it is found out anew when it is next asked, or not before then. */
  forget(notBefore: Milliseconds = 0): void {
    clearTimeout(this.timer);
    this.notBefore = notBefore;
    this.bits = null;
    this.complete = false;
  }

  private start(): void {
    const urls = Math.max(LEAST, this.source.count() * 2);
    const size = Math.min(MOST * 8, 2 ** Math.ceil(Math.log2(urls * BITS)));
    this.bits = new Uint32Array(size / 32);
    this.mask = size - 1;
    this.room = Math.floor(size / BITS);
    for (const url of this.source.queued()) this.add(url);
    this.goOn('');
  }

  private goOn(after: string): void {
    this.timer = setTimeout(() => {
      const { bits } = this;
      const urls = this.source.urls(after, AT_ONCE);
      // It has become another meanwhile, or was closed.
      if (bits === null || bits !== this.bits) return;
      if (urls === null) return this.forget(performance.now() + AGAIN_AFTER);
      for (const url of urls) {
        this.add(url);
        if (this.bits !== bits) return;
      }
      if (urls.length < AT_ONCE) this.complete = true;
      else this.goOn(urls.at(-1)!);
    }, BETWEEN).unref();
  }
}

/** FNV-1a over the UTF-16 units, and its bits well mixed. */
function hashOf(url: string): number {
  let hash = 0x811c_9dc5;
  for (let i = 0; i < url.length; i++) hash = Math.imul(hash ^ url.charCodeAt(i), 0x0100_0193);
  return mixed(hash);
}

function mixed(hash: number): number {
  let h = Math.imul(hash ^ (hash >>> 16), 0x85eb_ca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2_ae35);
  return (h ^ (h >>> 16)) >>> 0;
}
