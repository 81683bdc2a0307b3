// What an unsafe method makes invalid (RFC 9111 §4.4), and what has been made so lately: an answer that was asked for before must not be stored after.
import type { Fields } from '../message/headers.ts';

/** Registered methods that change nothing (RFC 9110 §9.2.1). Unknown ones may. */
const SAFE: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE', 'QUERY', 'PROPFIND', 'REPORT', 'SEARCH']);

/** Whether the method may change what is stored (RFC 9111 §4.4). */
export function isUnsafe(method: string): boolean {
  return !SAFE.has(method);
}

/** The URLs that the answer to an unsafe request makes invalid: its own, and those of Location and Content-Location on the same origin. */
export function invalidatedBy(url: string, status: number, fields: Fields): readonly string[] {
  if (status < 200 || status > 399) return [];
  const urls = [url];
  for (const name of ['location', 'content-location']) {
    const reference = fields.get(name);
    if (reference === undefined || !URL.canParse(reference, url)) continue;
    const base = new URL(url);
    const other = new URL(reference, url);
    if (other.origin !== base.origin) continue;
    other.hash = '';
    other.username = '';
    other.password = '';
    urls.push(other.href);
  }
  return urls;
}

/** URLs remembered. */
const REMEMBERED = 1_000;

/** The recent invalidations, in the order in which they happened; bounded, erring to the safe side. */
export class RecentInvalidations {
  private count = 0;
  private forgotten = 0;
  private readonly last = new Map<string, number>();

  /** The present, to be asked about later. */
  get present(): number {
    return this.count;
  }

  add(url: string): void {
    this.last.delete(url);
    this.last.set(url, ++this.count);
    if (this.last.size > REMEMBERED) {
      const [oldest, at] = this.last.entries().next().value!;
      this.last.delete(oldest);
      this.forgotten = Math.max(this.forgotten, at);
    }
  }

  /** Whether the URL has, or may have, become invalid since. */
  since(url: string, moment: number): boolean {
    return this.forgotten > moment || (this.last.get(url) ?? 0) > moment;
  }

  /** Everything became invalid. */
  all(): void {
    this.last.clear();
    this.forgotten = Math.max(this.forgotten, ++this.count);
  }

  /** Everything, and for ever. */
  close(): void {
    this.forgotten = Infinity;
  }
}
