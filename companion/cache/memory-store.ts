// The memory tier: answers by URL, bounded by bytes, the least recently used go first.
import { LRUCache } from 'lru-cache';
import type { Stored } from '../../shared/control.ts';
import type { Bytes } from '../../shared/units.ts';
import { meaning, type Store, type StoreStats } from './store.ts';
import type { StoredResponse } from './stored-response.ts';
import { sameSelection } from './vary.ts';

/** Variants kept of one URL in one space, and answers of one URL in all. */
const MAX_VARIANTS = 8;
const MAX_ANSWERS = 64;

export class MemoryStore implements Store {
  private readonly limit: Bytes;
  private readonly resources: LRUCache<string, readonly StoredResponse[]> | null;

  /** `limit` 0: nothing is ever kept. */
  constructor(limit: Bytes) {
    this.limit = limit;
    this.resources = limit > 0 ? new LRUCache<string, readonly StoredResponse[]>({ maxSize: limit }) : null;
  }

  get(url: string): readonly StoredResponse[] | undefined {
    return this.resources?.get(url);
  }

  peek(url: string): readonly StoredResponse[] | undefined {
    return this.resources?.peek(url);
  }

  put(response: StoredResponse): boolean {
    if (this.resources === null || response.size > this.limit) return false;
    const before = this.resources.peek(response.url) ?? [];
    const others = before.filter(
      one => one.space !== response.space || !sameSelection(one.selection, response.selection),
    );
    // A slow body may be whole only after a later one of the same resource.
    const same = before.filter(one => !others.includes(one));
    if (same.some(one => one.respondedAt > response.respondedAt)) return false;
    // What is kept for offline use is the resource, as it is now.
    if (same.some(one => one.pinned)) response.pinned = true;
    this.keep(response.url, [response, ...others]);
    return true;
  }

  replace(old: StoredResponse, fresh: StoredResponse): boolean {
    const before = this.resources?.peek(old.url);
    if (before === undefined || !before.includes(old)) return false;
    if (old.pinned) fresh.pinned = true;
    if (fresh.size > this.limit) this.remove(old);
    else this.keep(old.url, [fresh, ...before.filter(one => one !== old)]);
    return fresh.size <= this.limit;
  }

  remove(response: StoredResponse): void {
    const before = this.resources?.peek(response.url);
    if (before?.includes(response))
      this.keep(
        response.url,
        before.filter(one => one !== response),
      );
  }

  drop(url: string): void {
    this.resources?.delete(url);
  }

  purge(which: Stored): number {
    const gone = this.list(which, Infinity);
    if ('all' in which) this.resources?.clear();
    else for (const one of gone) this.resources!.delete(one.url);
    return gone.length;
  }

  list(which: Stored, limit: number): readonly StoredResponse[] {
    if (this.resources === null) return [];
    if ('url' in which) return (this.peek(which.url) ?? []).slice(0, limit);
    const found: StoredResponse[] = [];
    const isMeant = meaning(which);
    for (const [url, answers] of this.resources.entries()) {
      if (found.length >= limit) break;
      if (isMeant(url)) found.push(...answers);
    }
    return found.slice(0, limit);
  }

  pin(which: Stored, pinned: boolean): number {
    const found = this.list(which, Infinity).filter(one => one.pinned !== pinned);
    for (const one of found) one.pinned = pinned;
    return found.length;
  }

  stats(): StoreStats {
    let entries = 0;
    for (const answers of this.resources?.values() ?? []) entries += answers.length;
    return { entries, bytes: this.resources?.calculatedSize ?? 0, disk: null };
  }

  async close(): Promise<void> {
    this.resources?.clear();
  }

  /** `answers`: the newest first, that is the one that must be kept. */
  private keep(url: string, answers: readonly StoredResponse[]): void {
    if (answers.length === 0) return void this.resources!.delete(url);
    const kept: StoredResponse[] = [];
    let size = 0;
    let inSpace = 0;
    const { space } = answers[0]!;
    for (const one of answers) {
      if (one.space === space && ++inSpace > MAX_VARIANTS) continue;
      if (kept.length === MAX_ANSWERS || (kept.length > 0 && size + one.size > this.limit)) break;
      size += one.size;
      kept.push(one);
    }
    kept.sort((a, b) => b.date - a.date);
    this.resources!.set(url, kept, { size });
  }
}
