// Incomplete answers against a model: bytes that come in any order and of any time must add up to what the origin has, or to nothing.
import fc from 'fast-check';
import { describe, expect, test, vi } from 'vitest';
import { createCache } from '../../../companion/cache/cache.ts';
import { combine, gapOf, incompleteEntry, MAX_PARTS, piecesWithin } from '../../../companion/cache/partial.ts';
import { hasAll, rangeAnswer } from '../../../companion/cache/range-answer.ts';
import type { Entry } from '../../../companion/cache/store.ts';
import type { BodySource } from '../../../companion/message/message.ts';
import { KiB, MiB } from '../../../shared/units.ts';
import { cacheLimits } from '../../support/cache-limits.ts';
import { diskIn, tempFolder } from '../../support/disk-cache.ts';
import { type Origin, startOrigin, startRawOrigin } from '../../support/origin.ts';
import { connectRaw, type RawAnswer } from '../../support/raw-client.ts';
import { steered } from '../../support/steered.ts';
import { startProxy } from '../../support/with-proxy.ts';

const START = Date.UTC(2026, 10, 24, 9, 0, 0);

/** The body of a version: no byte is the same in another. */
function bodyOf(version: number, length: number): Buffer {
  return Buffer.from(Array.from({ length }, (_, i) => 33 + ((i * 7 + version * 13) % 90)));
}

function partOf(version: number, length: number, from: number, to: number, at = START): Entry {
  const lines = ['ETag', 'etag', `"${version}"`, 'X-At', 'x-at', String(at), 'Content-Range', 'content-range', 'x'];
  lines.push('Date', 'date', new Date(at).toUTCString());
  const like = { url: 'http://a/', space: '\n', site: 'a', selection: null, lines, pinned: false };
  const times = { requestedAt: at, respondedAt: at, ageValue: 0 };
  return incompleteEntry({ ...like, ...times }, from, Buffer.from(bodyOf(version, length).subarray(from, to)), length);
}

describe('parts that come together', () => {
  const LENGTH = 300;
  const anyPart = fc
    .tuple(fc.nat(LENGTH - 1), fc.integer({ min: 1, max: 60 }), fc.boolean())
    .map(([from, size, changed]) => ({ from, to: Math.min(LENGTH, from + size), changed: changed && size % 7 === 0 }));

  test('R59, A73: are always bytes of one version, know what is missing, and are whole when nothing is', () => {
    fc.assert(
      fc.property(fc.array(anyPart, { minLength: 1, maxLength: 60 }), parts => {
        let version = 1;
        let entry: Entry | null = null;
        let there = new Set<number>();
        for (const [i, { from, to, changed }] of parts.entries()) {
          if (changed) {
            version++;
            there = new Set();
          }
          const fresh = partOf(version, LENGTH, from, to, START + i * 1000);
          entry = entry === null ? fresh : combine(entry, fresh, LENGTH);
          for (let at = from; at < to; at++) there.add(at);
          const body = bodyOf(version, LENGTH);
          expect(entry.lines).toContain(String(START + i * 1000));
          expect(entry.lines).not.toContain('content-range');
          expect(entry.partial === null).toBe(there.size === LENGTH);
          if (entry.partial === null) {
            expect(entry.body.bytes!.equals(body)).toBe(true);
            continue;
          }
          expect(entry.body.length).toBe(there.size);
          const missing = Array.from({ length: LENGTH }, (_, at) => at).filter(at => !there.has(at));
          expect(gapOf(entry.partial)).toEqual({ from: missing[0], to: missing.at(-1)! + 1 });
          for (let at = 0; at < LENGTH; at += 11) {
            const end = Math.min(LENGTH, at + 20);
            const isThere = Array.from({ length: end - at }, (_, n) => at + n).every(one => there.has(one));
            expect(hasAll(entry, { range: `bytes=${at}-${end - 1}`, ifRange: undefined })).toBe(isThere);
            const pieces = piecesWithin(entry.partial.parts, at, end);
            if (isThere) expect(Buffer.concat(pieces!).equals(body.subarray(at, end))).toBe(true);
            else expect(pieces).toBe(null);
          }
        }
      }),
    );
  });

  test('R59: are bounded in number and bytes', () => {
    const length = 10_000;
    let entry = partOf(1, length, 0, 1);
    // With gaps: the smallest goes. Without: those that touch become one.
    for (let i = 1; i < 200; i++) entry = combine(entry, partOf(1, length, i * 20, i * 20 + 10), length);
    expect(entry.partial!.parts).toHaveLength(MAX_PARTS);
    expect(hasAll(entry, { range: 'bytes=0-0', ifRange: undefined })).toBe(false);
    let run = partOf(1, length, 0, 5);
    for (let i = 1; i < 200; i++) run = combine(run, partOf(1, length, i * 5, i * 5 + 5), length);
    expect(run.partial!.parts.length).toBeLessThanOrEqual(MAX_PARTS);
    expect(hasAll(run, { range: 'bytes=0-999', ifRange: undefined })).toBe(true);
    const tooMuch = combine(run, partOf(1, length, 5000, 5100), 1050);
    expect(tooMuch.body.length).toBe(100);
    expect((tooMuch.body.open(5000, 5100) as Buffer).equals(bodyOf(1, length).subarray(5000, 5100))).toBe(true);
  });
});

test('R25: of a body that is not in memory only the ranges asked for are opened, each when its turn has come', () => {
  const opened: [number, number][] = [];
  const open = (from: number, to: number): Buffer => {
    opened.push([from, to]);
    return bodyOf(1, 1000).subarray(from, to);
  };
  const { lines, ...like } = partOf(1, 1000, 0, 1);
  const entry: Entry = { ...like, lines, partial: null, body: { length: 1000, bytes: null, open } };
  const answer = rangeAnswer(entry, { range: 'bytes=0-99,-100', ifRange: '"1"' }, 1500)!;
  expect(answer.head.status).toBe(206);
  expect(answer.head.fields.get('age')).toBe('1');
  expect(opened).toEqual([]);
  const source = answer.body as BodySource;
  const chunks: Buffer[] = [];
  const ended = { yes: false };
  source.start({
    write: chunk => {
      chunks.push(chunk);
      return false;
    },
    end: () => {
      ended.yes = true;
    },
    fail: () => expect.unreachable(),
  });
  for (let turn = 0; turn < 100 && !ended.yes; turn++) {
    const before = chunks.length;
    source.resume();
    expect(ended.yes || chunks.length === before + 1).toBe(true);
  }
  expect(opened).toEqual([
    [0, 100],
    [900, 1000],
  ]);
  const all = Buffer.concat(chunks);
  expect({ kind: 'length', length: all.length }).toEqual(answer.head.framing);
  expect(all.includes(bodyOf(1, 1000).subarray(900))).toBe(true);
});

describe('through the walk', () => {
  const LENGTH = 100;
  const text = (version: number): string => bodyOf(version, LENGTH).toString('latin1');
  const anyRange = fc.oneof(
    fc.constant(null),
    fc.tuple(fc.nat(LENGTH + 9), fc.nat(60)).map(([from, size]) => `bytes=${from}-${from + size}`),
    fc.nat(LENGTH).map(from => `bytes=${from}-`),
    fc.nat(LENGTH).map(last => `bytes=-${last}`),
  );
  const rarely = (one: fc.Arbitrary<number>): fc.Arbitrary<number | null> =>
    fc.oneof({ weight: 5, arbitrary: fc.constant(null) }, { weight: 1, arbitrary: one });
  const anyStep = fc.record({
    range: anyRange,
    path: fc.constantFrom('/a', '/b'),
    ifRange: rarely(fc.integer({ min: 1, max: 3 })),
    ifNoneMatch: rarely(fc.integer({ min: 1, max: 3 })),
    after: fc.constantFrom(0, 0, 0, 5, 30),
    /** The origin changes. */
    changes: fc.constantFrom(false, false, false, false, true),
    /** Its answer breaks off there. */
    cut: rarely(fc.nat(LENGTH)),
    /** It ignores Range, or If-Range. */
    ignores: fc.constantFrom('', '', '', '', 'range', 'if-range'),
    chunked: fc.boolean(),
  });

  test('R25, R59, A73: whatever breaks off, changes and comes in parts, what is served is bytes of one version where they belong', async () => {
    let served = 0;
    let completed = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(anyStep, { minLength: 8, maxLength: 20 }), async steps => {
        let now = START;
        let version = 1;
        let step = steps[0]!;
        let asked = 0;
        await using origin = await startRawOrigin(async peer => {
          const head = await peer.readUntil('\r\n\r\n', 60_000);
          asked++;
          peer.write(originAnswer(head));
          peer.end();
        });
        /** A server that knows ranges; what it says is right but for what `step` makes it leave out. */
        function originAnswer(head: string): string {
          const field = (name: string): string | undefined => new RegExp(`^${name}: (.*)\r$`, 'im').exec(head)?.[1];
          const [range, ifRange] = [field('range'), field('if-range')];
          const common = `Date: ${new Date(now).toUTCString()}\r\nETag: "${version}"\r\nCache-Control: max-age=20\r\nConnection: close\r\n`;
          if (field('if-none-match')?.includes(`"${version}"`)) return `HTTP/1.1 304 Not Modified\r\n${common}\r\n`;
          let [from, to, line] = [0, LENGTH, 'HTTP/1.1 200 OK\r\n'];
          const holds = ifRange === undefined || step.ignores === 'if-range' || ifRange === `"${version}"`;
          if (range !== undefined && step.ignores !== 'range' && holds) {
            const [, first = '', last = ''] = /^bytes=(\d*)-(\d*)$/.exec(range)!;
            if (first === '') from = Math.max(0, LENGTH - Number(last));
            else [from, to] = [Number(first), last === '' ? LENGTH : Math.min(LENGTH, Number(last) + 1)];
            if (from >= LENGTH)
              return `HTTP/1.1 416 No\r\n${common}Content-Range: bytes */${LENGTH}\r\nContent-Length: 0\r\n\r\n`;
            line = `HTTP/1.1 206 Partial Content\r\nContent-Range: bytes ${from}-${to - 1}/${LENGTH}\r\n`;
          }
          const body = text(version).slice(from, to);
          const sent = step.cut === null ? body : body.slice(0, step.cut);
          const isWhole = sent.length === body.length;
          if (!step.chunked) return `${line}${common}Content-Length: ${body.length}\r\n\r\n${sent}`;
          const chunk = sent === '' ? '' : `${sent.length.toString(16)}\r\n${sent}\r\n`;
          return `${line}${common}Transfer-Encoding: chunked\r\n\r\n${chunk}${isWhole ? '0\r\n\r\n' : ''}`;
        }
        const limits = cacheLimits({ memory: 1024 * 1024, entry: 64 * 1024 });
        const decide = () => steered();
        await using proxy = await startProxy({ rooms: { cache: createCache(limits), decide, now: () => now } });
        for (step of steps) {
          now += step.after * 1000;
          if (step.changes) version++;
          asked = 0;
          let fields = '';
          if (step.range !== null) fields += `Range: ${step.range}\r\n`;
          if (step.ifRange !== null) fields += `If-Range: "${step.ifRange}"\r\n`;
          if (step.ifNoneMatch !== null) fields += `If-None-Match: "${step.ifNoneMatch}"\r\n`;
          await using client = await connectRaw(proxy.port);
          client.write(`GET ${origin.url(step.path)} HTTP/1.1\r\nHost: ${origin.authority}\r\n${fields}\r\n`);
          const answer = await client.readAnswer('GET').catch(() => null);
          // Broken off: that may only be where the origin broke off.
          if (answer === null) {
            expect(step.cut).not.toBe(null);
            continue;
          }
          if (answer.status === 502) {
            expect(step.cut).not.toBe(null);
            continue;
          }
          if (asked === 0) served++;
          if (answer.headers['cache-status']!.includes('fwd-status=206')) completed++;
          if (answer.status === 416) {
            expect(step.range).not.toBe(null);
            continue;
          }
          const is = Number(/^"(\d+)"$/.exec(answer.headers.etag!)![1]);
          if (asked > 0) expect(is).toBe(version);
          const length = Number(answer.headers['content-length'] ?? answer.text.length);
          if (answer.status === 200) {
            expect(answer.text).toBe(text(is));
            expect(length).toBe(LENGTH);
            expect(answer.headers['content-range']).toBe(undefined);
          } else if (answer.status === 206) {
            expect(step.range).not.toBe(null);
            if (step.ignores !== 'if-range' && step.ifRange !== null) expect(is).toBe(step.ifRange);
            const [, from, to] = /^bytes (\d+)-(\d+)\/100$/.exec(answer.headers['content-range']!)!;
            expect(answer.text).toBe(text(is).slice(Number(from), Number(to) + 1));
          } else {
            expect(answer.status).toBe(304);
            expect(step.ifNoneMatch).toBe(is);
          }
        }
      }),
      { numRuns: 50 },
    );
    // Otherwise all of this says nothing.
    expect(served).toBeGreaterThan(20);
    expect(completed).toBeGreaterThan(2);
  }, 60_000);
});

test('R59: what a client has left behind is a part, and the next one gets the rest of it asked for alone', async () => {
  const whole = bodyOf(1, 50_000);
  const asked: (string | undefined)[] = [];
  await using origin = await startOrigin((request, response) => {
    const { range } = request.headers;
    asked.push(range);
    const fields = { ETag: '"1"', 'Cache-Control': 'max-age=60' };
    const from = Number(/^bytes=(\d+)-$/.exec(range ?? '')?.[1] ?? 0);
    const place = { 'Content-Range': `bytes ${from}-49999/50000` };
    response.writeHead(from > 0 ? 206 : 200, {
      ...fields,
      ...(from > 0 ? place : {}),
      'Content-Length': 50_000 - from,
    });
    if (from > 0) response.end(whole.subarray(from));
    // The rest never comes.
    else response.write(whole.subarray(0, 30_000));
  });
  const limits = cacheLimits({ memory: MiB, entry: 64 * KiB });
  const decide = () => steered();
  await using proxy = await startProxy({ rooms: { cache: createCache(limits), decide } });
  {
    await using client = await connectRaw(proxy.port);
    client.write(`GET ${origin.url('/r')} HTTP/1.1\r\nHost: ${origin.authority}\r\n\r\n`);
    await client.readUntil('\r\n\r\n');
    await client.read(30_000);
    client.socket.resetAndDestroy();
  }
  await proxy.exchange(0);
  const part = await getThrough(proxy.port, origin, '/r', 'Range: bytes=20000-29999\r\n');
  expect(part.headers['cache-status']).toMatch(/^detour; hit; /);
  expect(part.body.equals(whole.subarray(20_000, 30_000))).toBe(true);
  const rest = await getThrough(proxy.port, origin, '/r', '');
  expect(rest.headers['cache-status']).toBe('detour; fwd=partial; fwd-status=206; stored');
  expect(rest.body.equals(whole)).toBe(true);
  expect(asked).toEqual([undefined, 'bytes=30000-']);
});

test('R58, R67: a newer part brings its fields to the older ones on the disk, which are stale with it and not fresh again for having been forgotten', async () => {
  const LENGTH = 40_000;
  let now = START;
  await using origin = await startOrigin((request, response) => {
    const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range!)!;
    const part = bodyOf(1, LENGTH).subarray(Number(from), Number(to) + 1);
    const isFirst = origin.requests.length === 1;
    response.writeHead(206, {
      ETag: '"1"',
      Date: new Date(now).toUTCString(),
      'Cache-Control': `max-age=${isFirst ? 3600 : 5}`,
      'Content-Range': `bytes ${from}-${to}/${LENGTH}`,
      'Content-Length': part.length,
    });
    response.end(part);
  });
  using place = tempFolder();
  await using disk = diskIn(place.path, { now: () => now });
  const cache = createCache(cacheLimits({ memory: 4 * MiB, entry: 64 * KiB }), undefined, disk.store);
  await using proxy = await startProxy({ rooms: { cache, decide: () => steered(), now: () => now } });
  const written = vi.spyOn(disk.store, 'put');
  await getThrough(proxy.port, origin, '/r', 'Range: bytes=0-19999\r\n');
  await getThrough(proxy.port, origin, '/r', 'Range: bytes=20000-20999\r\n');
  await disk.store.settled();
  expect(written).toHaveBeenCalledTimes(1);
  cache.clear();
  const fresh = await getThrough(proxy.port, origin, '/r', 'Range: bytes=0-19999\r\n');
  expect(fresh.headers['cache-status']).toBe('detour; hit; ttl=5');
  expect(fresh.headers['cache-control']).toBe('max-age=5');
  now += 10_000;
  cache.clear();
  const stale = await getThrough(proxy.port, origin, '/r', 'Range: bytes=0-19999\r\n');
  expect(stale.headers['cache-status']).toMatch(/^detour; fwd=stale/);
});

test('R25, R59: ranges come out of a whole on the disk, and parts outlive a restart, are not written again with each, and become whole there', async () => {
  const whole = bodyOf(1, 1024 * 1024);
  const asked: (string | undefined)[] = [];
  await using origin = await startOrigin((request, response) => {
    const { range } = request.headers;
    asked.push(range);
    const fields = { ETag: '"1"', 'Cache-Control': 'max-age=60', 'X-Asked': String(asked.length) };
    const [, from, to] = /^bytes=(\d+)-(\d*)$/.exec(range ?? '') ?? [];
    if (from === undefined)
      return void response.writeHead(200, { ...fields, 'Content-Length': whole.length }).end(whole);
    const part = whole.subarray(Number(from), to === '' ? whole.length : Number(to) + 1);
    const place = `bytes ${from}-${Number(from) + part.length - 1}/${whole.length}`;
    response.writeHead(206, { ...fields, 'Content-Range': place, 'Content-Length': part.length }).end(part);
  });
  const limits = cacheLimits({ memory: 4 * MiB, entry: 64 * KiB });
  const decide = () => steered();
  using place = tempFolder();
  {
    await using disk = diskIn(place.path);
    await using proxy = await startProxy({ rooms: { cache: createCache(limits, undefined, disk.store), decide } });
    const get = (path: string, fields = ''): Promise<RawAnswer> => getThrough(proxy.port, origin, path, fields);
    expect((await get('/whole')).body.equals(whole)).toBe(true);
    await proxy.exchange(0);
    await disk.store.settled();
    for (let round = 0; round < 2; round++) {
      const some = await get('/whole', 'Range: bytes=500000-599999\r\n');
      expect(some.headers['cache-status']).toMatch(/^detour; hit; /);
      expect(some.body.equals(whole.subarray(500_000, 600_000))).toBe(true);
      const several = await get('/whole', 'Range: bytes=-100000,0-99999\r\n');
      expect(several.status).toBe(206);
      expect(several.body.includes(whole.subarray(0, 100_000))).toBe(true);
      expect(several.body.includes(whole.subarray(-100_000))).toBe(true);
    }
    // A part of the same tag freshens what lies on the disk.
    await get('/whole', 'Range: bytes=0-9\r\nCache-Control: no-cache\r\n');
    const freshened = await get('/whole');
    expect(freshened.body.equals(whole)).toBe(true);
    expect(freshened.headers['x-asked']).toBe('2');
    // All of it as a part is the whole, though it is too large for memory.
    expect((await get('/media', 'Range: bytes=0-\r\n')).status).toBe(206);
    await disk.store.settled();
    const media = await get('/media');
    expect(media.headers['cache-status']).toMatch(/^detour; hit; /);
    expect(media.headers['content-range']).toBe(undefined);
    expect(media.body.equals(whole)).toBe(true);
    await get('/parts', 'Range: bytes=0-9999\r\n');
    await get('/parts', 'Range: bytes=30000-49999\r\n');
    await disk.store.settled();
  }
  expect(asked).toEqual([undefined, 'bytes=0-9', 'bytes=0-', 'bytes=0-9999', 'bytes=30000-49999']);
  await using disk = diskIn(place.path);
  await using proxy = await startProxy({ rooms: { cache: createCache(limits, undefined, disk.store), decide } });
  const get = (path: string, fields = ''): Promise<RawAnswer> => getThrough(proxy.port, origin, path, fields);
  const written = vi.spyOn(disk.store, 'put');
  for (let at = 0; at < 40_000; at += 1000) await get('/many', `Range: bytes=${at}-${at + 999}\r\n`);
  expect(written.mock.calls.length).toBeGreaterThan(2);
  expect(written.mock.calls.length).toBeLessThan(10);
  expect((await get('/many', 'Range: bytes=0-39999\r\n')).headers['cache-status']).toMatch(/^detour; hit; /);
  asked.length = 5;
  expect((await get('/whole', 'Range: bytes=7-8\r\n')).body.equals(whole.subarray(7, 9))).toBe(true);
  const part = await get('/parts', 'Range: bytes=35000-36000\r\n');
  expect(part.headers['cache-status']).toMatch(/^detour; hit; /);
  expect(part.body.equals(whole.subarray(35_000, 36_001))).toBe(true);
  const completed = await get('/parts');
  expect(completed.headers['cache-status']).toBe('detour; fwd=partial; fwd-status=206; stored');
  expect(completed.body.equals(whole)).toBe(true);
  await proxy.exchange(43);
  await disk.store.settled();
  const hit = await get('/parts');
  expect(hit.headers['cache-status']).toMatch(/^detour; hit; /);
  expect(hit.body.equals(whole)).toBe(true);
  expect(asked.slice(5)).toEqual(['bytes=10000-']);
});

async function getThrough(port: number, origin: Origin, path: string, fields: string): Promise<RawAnswer> {
  await using client = await connectRaw(port);
  client.write(`GET ${origin.url(path)} HTTP/1.1\r\nHost: ${origin.authority}\r\n${fields}\r\n`);
  return await client.readAnswer('GET');
}
