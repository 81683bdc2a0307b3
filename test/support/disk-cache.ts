// A disk store in a folder of its own, and answers to put into it.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type DiskOptions, DiskStore } from '../../companion/cache/disk-store.ts';
import { type Entry, hostOf, MemoryBody } from '../../companion/cache/store.ts';
import { MiB } from '../../shared/units.ts';

/** A folder that goes with the test. */
export function tempFolder(): Disposable & { readonly path: string } {
  const folder = mkdtempSync(path.join(tmpdir(), 'detour-disk-'));
  return { path: folder, [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true }) };
}

export interface TestStore extends AsyncDisposable {
  readonly store: DiskStore;
  /** Where it lies. */
  readonly folder: string;
  /** What it has warned of. */
  readonly warnings: readonly string[];
}

/** A store under `place`, which is made when first written. */
export function diskIn(place: string, options: Partial<DiskOptions> = {}): TestStore {
  const folder = path.join(place, 'cache');
  const warnings: string[] = [];
  const store = new DiskStore({
    folder,
    limit: 64 * MiB,
    warn: message => warnings.push(message),
    ...options,
  });
  return { store, folder, warnings, [Symbol.asyncDispose]: () => store.close() };
}

/** An answer with this body. */
export function entryOf(url: string, body: Buffer | string = 'body', more: Partial<Entry> = {}): Entry {
  return {
    url,
    space: 'companion\n',
    site: hostOf(url),
    selection: null,
    status: 200,
    reason: 'OK',
    // prettier-ignore
    lines: [
      'Date', 'date', 'Tue, 24 Nov 2026 12:00:00 GMT',
      'Cache-Control', 'cache-control', 'max-age=86400',
      'ETag', 'etag', '"v1"',
    ],
    requestedAt: Date.UTC(2026, 10, 24, 12),
    respondedAt: Date.UTC(2026, 10, 24, 12),
    ageValue: 0,
    body: new MemoryBody(Buffer.from(body)),
    partial: null,
    pinned: false,
    ...more,
  };
}

/** A body of this length whose every byte tells where it stands, and for whom. */
export function bodyOf(length: number, seed = 0): Buffer {
  const body = Buffer.alloc(length);
  for (let at = 0; at + 4 <= length; at += 4) body.writeUInt32LE(((at + seed) * 2_654_435_761) >>> 0, at);
  return body;
}
