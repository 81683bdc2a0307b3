// `node test/bench/disk-million.ts [COUNT]`: a disk store of so many answers of 1 KiB (a million), and then: what it takes on the disk, how long it takes to
// open, how long a lookup takes that memory does not know, and whether a second pass finds all of them. Each life is a process of its own.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { DiskStore } from '../../companion/cache/disk-store.ts';
import { hostOf, MemoryBody } from '../../companion/cache/store.ts';
import { GiB, KiB } from '../../shared/units.ts';

const [what = '1000000', place = '', many = '0'] = process.argv.slice(2);

const urlOf = (i: number): string => `http://static${i % 50}.example.com/assets/2026/module-${i}/main.css?v=${i % 7}`;
const lines = ([name, value]: readonly [string, string]) => [name, name.toLowerCase(), value];
const FIELDS = (
  [
    ['Date', 'Tue, 24 Nov 2026 12:00:00 GMT'],
    ['Content-Type', 'text/css; charset=utf-8'],
    ['Cache-Control', 'public, max-age=86400'],
    ['ETag', '"5f3c-61b2a7d0c4e80"'],
    ['Last-Modified', 'Mon, 23 Nov 2026 09:15:00 GMT'],
    ['Vary', 'Accept-Encoding'],
  ] as const
).flatMap(lines);

function open(): DiskStore {
  const warn = (message: string) => process.stderr.write(`${message}\n`);
  return new DiskStore({ folder: path.join(place, 'cache'), limit: 16 * GiB, warn });
}

async function fill(count: number): Promise<void> {
  const store = open();
  const begin = performance.now();
  for (let i = 0; i < count; i++) {
    const url = urlOf(i);
    const body = Buffer.alloc(KiB, `${i} `);
    const selection = { names: ['accept-encoding'], values: ['gzip, deflate, br, zstd'] };
    const entry = { url, space: 'companion\nexample.com', site: hostOf(url), selection, lines: FIELDS, partial: null };
    const times = { requestedAt: Date.now(), respondedAt: Date.now(), ageValue: 0 };
    const put = () =>
      store.put({ ...entry, ...times, status: 200, reason: 'OK', body: new MemoryBody(body), pinned: false });
    if (put() === null) {
      await store.settled();
      put();
    }
    if (i % 500 === 499) await store.settled();
  }
  await store.close();
  process.stdout.write(`filled in ${((performance.now() - begin) / 1000).toFixed(0)} s\n`);
}

async function look(count: number): Promise<void> {
  const begin = performance.now();
  const store = open();
  let found = store.get(urlOf(0), false).length;
  process.stdout.write(`first lookup, with opening: ${(performance.now() - begin).toFixed(1)} ms\n`);
  const times: number[] = [];
  for (const [name, url] of [
    ['found', (i: number) => urlOf((i * 7919) % count)],
    ['not found', (i: number) => `${urlOf(i)}.none`],
  ] as const) {
    times.length = 0;
    for (let i = 0; i < Math.min(count, 100_000); i++) {
      const from = performance.now();
      store.get(url(i), false);
      times.push(performance.now() - from);
    }
    times.sort((a, b) => a - b);
    const at = (part: number) => `${(times[Math.floor(times.length * part)]! * 1000).toFixed(0)} µs`;
    process.stdout.write(
      `lookups, ${name}: p50 ${at(0.5)}, p99 ${at(0.99)}, p99.9 ${at(0.999)}, most ${at(1 - 1e-9)}\n`,
    );
  }
  found = 0;
  for (let i = 0; i < count; i++) found += store.get(urlOf(i), false).length;
  process.stdout.write(`second pass: ${found} of ${count} found\n`);
  await store.close();
}

function sizeOf(folder: string): number {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter(entry => entry.isFile())
    .reduce((sum, entry) => sum + statSync(path.join(entry.parentPath, entry.name)).blocks * 512, 0);
}

if (what === 'fill') await fill(Number(many));
else if (what === 'look') await look(Number(many));
else {
  const count = Number(what);
  const folder = mkdtempSync(path.join(tmpdir(), 'detour-million-'));
  const run = (step: string) =>
    execFileSync(process.execPath, [import.meta.filename, step, folder, String(count)], { stdio: 'inherit' });
  try {
    run('fill');
    const bytes = sizeOf(folder);
    process.stdout.write(
      `${(bytes / count).toFixed(0)} bytes each on the disk, ${(bytes / 1e6).toFixed(0)} MB in all\n`,
    );
    run('look');
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
