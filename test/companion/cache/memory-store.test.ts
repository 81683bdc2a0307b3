// The memory tier: what lies in slabs reads as what was put in, is never another's, and goes by the rules.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { MemoryStore } from '../../../companion/cache/memory-store.ts';
import type { Semantics } from '../../../companion/cache/policy.ts';
import { type Entry, MemoryBody } from '../../../companion/cache/store.ts';
import { StoredResponse } from '../../../companion/cache/stored-response.ts';

const SEMANTICS: Semantics = { shared: true, targeted: [], heuristic: 0, aggressive: 0, cookies: true };
const NOW = 1_700_000_000_000;
const DATE = 'Tue, 14 Nov 2023 22:13:20 GMT';

function entryOf(url: string, body: string | Buffer, more: Partial<Entry> = {}): Entry {
  const date = ['Date', 'date', DATE, 'Cache-Control', 'cache-control', 'max-age=60'];
  const lines = ['Content-Type', 'content-type', 'text/plain', 'ETag', 'etag', '"1"', ...date];
  const bytes = Buffer.isBuffer(body) ? body : Buffer.from(body, 'latin1');
  return {
    url,
    space: 'route\nsite.example',
    site: 'a.example',
    selection: null,
    status: 200,
    reason: 'OK',
    lines,
    requestedAt: NOW - 5,
    respondedAt: NOW,
    ageValue: 7,
    body: new MemoryBody(bytes),
    partial: null,
    pinned: false,
    ...more,
  };
}
const stored = (entry: Entry) => new StoredResponse(entry, SEMANTICS);
const urlOf = (n: number) => `http://a.example/${n}`;

/** As it would be written now. */
function sent(response: StoredResponse, asNotModified = false): string {
  const { answer } = asNotModified ? response.notModified(12_345) : response.hit(12_345);
  const { ready } = answer;
  const out = Buffer.alloc(64 * 1024);
  let at = ready!.headInto(out);
  at += out.write(`${ready!.age}\r\n`, at, 'latin1');
  at = ready!.bodyInto(out, at);
  expect(at).toBeLessThanOrEqual(ready!.length + ready!.age.length + 2);
  return out.toString('latin1', 0, at);
}

describe('an answer in a slab', () => {
  test('is sent with head, age and body in one', () => {
    const store = new MemoryStore(1024 * 1024);
    store.put(stored(entryOf(urlOf(1), 'the body')));
    const [one] = store.get(urlOf(1))!;
    expect(sent(one!)).toBe(
      `HTTP/1.1 200 OK\r\nETag: "1"\r\nDate: ${DATE}\r\nCache-Control: max-age=60\r\nContent-Type: text/plain\r\nContent-Length: 8\r\nAge: 12\r\n\r\nthe body`,
    );
    expect(sent(one!, true)).toBe(
      `HTTP/1.1 304 Not Modified\r\nETag: "1"\r\nDate: ${DATE}\r\nCache-Control: max-age=60\r\nAge: 12\r\n\r\n`,
    );
  });

  test('has the same head and body for who asks for them, and the entry that was put in', () => {
    const name = fc
      .stringMatching(/^[A-Za-z-]{1,12}$/)
      .filter(one => !/^(?:date|etag|age|cache-control|content-length)$/i.test(one));
    const value = fc.string({
      unit: fc
        .integer({ min: 0x21, max: 0xff })
        .filter(code => code !== 0x7f)
        .map(code => String.fromCodePoint(code)),
    });
    const bytes = fc.uint8Array({ maxLength: 12_000 }).map(one => Buffer.from(one));
    fc.assert(
      fc.property(
        fc.array(fc.tuple(name, value), { maxLength: 8 }),
        bytes,
        fc.constantFrom('OK', '', 'So so'),
        (more, body, reason) => {
          const lines = ['Date', 'date', DATE, ...more.flatMap(([key, text]) => [key, key.toLowerCase(), text])];
          const entry = entryOf(urlOf(1), body, { lines, reason });
          const loose = stored(entry);
          const before = loose.hit(5_000).answer;
          const store = new MemoryStore(1024 * 1024);
          const one = stored(entry);
          store.put(one);
          const { answer } = one.hit(5_000);
          expect(answer.ready).toBeDefined();
          expect(Buffer.compare(answer.body as Buffer, before.body as Buffer)).toBe(0);
          expect(sorted(answer.head.fields.flat)).toEqual(sorted(before.head.fields.flat));
          const back = one.entry;
          expect({ ...back, lines: sorted(back.lines), body: 0 }).toEqual({ ...entry, lines: sorted(lines), body: 0 });
          expect([one.length, back.body.length]).toEqual([body.length, body.length]);
        },
      ),
      { numRuns: 100 },
    );
  });

  test("that has gone is nobody else's: who has it still gets an error, never other bytes", () => {
    const store = new MemoryStore(1024 * 1024);
    const one = stored(entryOf(urlOf(1), 'one'));
    store.put(one);
    const { answer } = one.hit(0);
    store.drop(urlOf(1));
    store.put(stored(entryOf(urlOf(2), 'two')));
    expect(answer.ready).toBeUndefined();
    expect(() => answer.body).toThrow('gone');
    expect(() => one.entry).toThrow('gone');
  });

  test('that somebody holds stays as it is, whatever becomes of its place', () => {
    const store = new MemoryStore(1024 * 1024);
    const one = stored(entryOf(urlOf(1), 'one'));
    store.put(one);
    const { answer } = one.hit(0);
    one.hold();
    store.drop(urlOf(1));
    store.put(stored(entryOf(urlOf(2), 'two')));
    expect(one.entry.body.bytes!.toString()).toBe('one');
    expect(String(answer.body)).toBe('one');
    // Also where another variant of it comes.
    const two = stored(entryOf(urlOf(3), 'other'));
    store.put(two);
    two.hold();
    store.put(stored(entryOf(urlOf(3), 'variant', { space: 'else\n' })));
    expect(two.page).toBeNull();
  });
});

/** Triples in an order of their own. */
function sorted(lines: readonly string[]): string[] {
  const triples = Array.from({ length: lines.length / 3 }, (_, i) => lines.slice(i * 3, i * 3 + 3).join('\n'));
  return triples.sort();
}

describe('what stays', () => {
  test('it never holds more than its bytes, whatever comes, and tells how much and how many truly', () => {
    const step = fc.record({
      n: fc.nat({ max: 40 }),
      size: fc.integer({ min: 0, max: 30_000 }),
      what: fc.nat({ max: 9 }),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 150 }), steps => {
        const limit = 100_000;
        const store = new MemoryStore(limit);
        for (const { n, size, what } of steps) {
          if (what === 0) store.drop(urlOf(n));
          else if (what === 1) store.pin({ url: urlOf(n) }, size % 2 === 0);
          else if (what < 5) store.get(urlOf(n));
          else store.put(stored(entryOf(urlOf(n), Buffer.alloc(size, n))));
        }
        const all = store.list({ all: true }, Infinity);
        const { bytes, entries } = store.stats();
        expect(entries).toBe(all.length);
        expect(bytes).toBe(all.reduce((sum, one) => sum + one.size, 0));
        expect(bytes).toBeLessThanOrEqual(limit);
        for (const { entry, url } of all)
          expect(entry.body.bytes!.every(byte => byte === Number(url.split('/').at(-1)))).toBe(true);
      }),
      { numRuns: 200 },
    );
  });

  test('what is asked for again and again outlasts a scan of what comes once', () => {
    const store = new MemoryStore(200 * 1024);
    const hot = Array.from({ length: 40 }, (_, n) => urlOf(n));
    for (let round = 0; round < 5; round++) {
      for (const url of hot) if (store.get(url) === undefined) store.put(stored(entryOf(url, 'x'.repeat(1_000))));
    }
    for (let n = 1_000; n < 3_000; n++) store.put(stored(entryOf(urlOf(n), 'x'.repeat(1_000))));
    expect(hot.filter(url => store.peek(url) !== undefined).length).toBeGreaterThan(30);
  });

  test('what is pinned does not go, up to half of the room', () => {
    const store = new MemoryStore(100 * 1024);
    store.put(stored(entryOf(urlOf(1), 'x'.repeat(10_000))));
    expect(store.pin({ url: urlOf(1) }, true)).toBe(1);
    for (let n = 2; n < 500; n++) {
      store.put(stored(entryOf(urlOf(n), 'x'.repeat(5_000))));
      store.get(urlOf(n));
    }
    expect(store.peek(urlOf(1))).toHaveLength(1);
    expect(store.stats().bytes).toBeLessThanOrEqual(100 * 1024);
    expect(store.pin({ all: true }, true)).toBeGreaterThan(0);
    expect(store.stats().bytes).toBeLessThanOrEqual(100 * 1024);
  });

  test('what is not kept stays with who has offered it', () => {
    const store = new MemoryStore(100_000);
    for (let n = 0; n < 100; n++)
      for (let i = 0; i < 3; i++) store.put(stored(entryOf(urlOf(n), Buffer.alloc(15_000, n))));
    let refused = 0;
    for (let n = 200; n < 300; n++) {
      const one = stored(entryOf(urlOf(n), Buffer.alloc(21_000, n)));
      if (!store.put(one)) refused++;
      expect((one.hit(0).answer.body as Buffer).every(byte => byte === n % 256)).toBe(true);
    }
    expect(refused).toBeGreaterThan(0);
  });

  test('nothing is kept by a store without room', () => {
    const store = new MemoryStore(0);
    expect([store.put(stored(entryOf(urlOf(1), ''))), store.get(urlOf(1)), store.stats().entries]).toEqual([
      false,
      undefined,
      0,
    ]);
  });
});
