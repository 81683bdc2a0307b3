// The memory tier: answers by key, bounded by bytes, the least recently used go first. Several answers of one key are its variants by Vary.
import { LRUCache } from 'lru-cache';
import type { Bytes } from '../../shared/units.ts';
import type { StoredResponse } from './stored-response.ts';
import { sameSelection } from './vary.ts';

/** Variants kept of one key. */
const MAX_VARIANTS = 8;

/** What one key holds: variants, the most recent Date first (RFC 9111 §4.1). */
interface Resource {
  readonly url: string;
  readonly variants: readonly StoredResponse[];
}

export class MemoryStore {
  private readonly limit: Bytes;
  private readonly resources: LRUCache<string, Resource> | null;
  /** The keys of each URL: invalidation knows no route and no partition. */
  private readonly keysOf = new Map<string, string | Set<string>>();

  /** `limit` 0: nothing is ever kept. */
  constructor(limit: Bytes) {
    this.limit = limit;
    this.resources =
      limit > 0
        ? new LRUCache<string, Resource>({
            maxSize: limit,
            dispose: (resource, key, reason) => {
              if (reason !== 'set') this.unlist(resource.url, key);
            },
          })
        : null;
  }

  get size(): Bytes {
    return this.resources?.calculatedSize ?? 0;
  }

  get count(): number {
    return this.resources?.size ?? 0;
  }

  /** Everything with its key. */
  *all(): Generator<[key: string, response: StoredResponse]> {
    for (const [key, { variants }] of this.resources?.entries() ?? []) for (const one of variants) yield [key, one];
  }

  /** The variants of a key; `touch` makes it the most recently used. */
  get(key: string, touch: boolean): readonly StoredResponse[] | undefined {
    if (this.resources === null) return undefined;
    return (touch ? this.resources.get(key) : this.resources.peek(key))?.variants;
  }

  /** Keeps an answer, in the place of the one with the same selection. False when it is larger than the whole store, or that one came later. */
  put(key: string, response: StoredResponse): boolean {
    if (this.resources === null || response.size > this.limit) return false;
    const before = this.resources.peek(key)?.variants ?? [];
    const others = before.filter(one => !sameSelection(one.selection, response.selection));
    // A slow body may be whole only after a later one of the same resource.
    if (before.some(one => one.respondedAt > response.respondedAt && !others.includes(one))) return false;
    let size = response.size;
    const kept = [response];
    for (const other of others) {
      if (kept.length === MAX_VARIANTS || size + other.size > this.limit) break;
      size += other.size;
      kept.push(other);
    }
    kept.sort((a, b) => b.date - a.date);
    this.resources.set(key, { url: response.url, variants: kept }, { size });
    this.list(response.url, key);
    return true;
  }

  /** Drops one variant of a key. */
  remove(key: string, response: StoredResponse): void {
    const variants = this.resources?.peek(key)?.variants;
    if (variants === undefined || !variants.includes(response)) return;
    const kept = variants.filter(one => one !== response);
    if (kept.length === 0) this.resources!.delete(key);
    else {
      const size = kept.reduce((sum, one) => sum + one.size, 0);
      this.resources!.set(key, { url: response.url, variants: kept }, { size });
    }
  }

  /** Drops everything of a URL, whatever its route and partition. */
  drop(url: string): void {
    const keys = this.keysOf.get(url);
    if (keys === undefined) return;
    for (const key of typeof keys === 'string' ? [keys] : [...keys]) this.resources!.delete(key);
  }

  clear(): void {
    this.resources?.clear();
  }

  private list(url: string, key: string): void {
    const keys = this.keysOf.get(url);
    if (keys === undefined) this.keysOf.set(url, key);
    else if (typeof keys !== 'string') keys.add(key);
    else if (keys !== key) this.keysOf.set(url, new Set([keys, key]));
  }

  private unlist(url: string, key: string): void {
    const keys = this.keysOf.get(url);
    if (keys === undefined) return;
    if (typeof keys === 'string') this.keysOf.delete(url);
    else {
      keys.delete(key);
      if (keys.size === 0) this.keysOf.delete(url);
    }
  }
}
