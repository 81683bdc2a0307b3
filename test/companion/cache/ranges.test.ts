// Ranges against a model: a body is a string of bytes, and what is sent of it must be what the Range names.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  bodyOf,
  ifRangeHolds,
  MAX_RANGES,
  parseRange,
  partialAnswer,
  resolveRanges,
} from '../../../companion/cache/ranges.ts';
import type { Piece, RangeSpec } from '../../../companion/cache/ranges.ts';
import { type Answer, type BodySink, type BodySource } from '../../../companion/message/message.ts';

const DATE = Date.UTC(2026, 10, 24, 9, 0, 0);
const TEXT = Buffer.from(Array.from({ length: 1000 }, (_, i) => String.fromCharCode(33 + (i % 90))).join(''));

/** A source that gives its bytes in chunks of `size`, one a turn of the loop, and stops when told to. */
function trickling(bytes: Buffer, size: number, promised = bytes.length): BodySource & { cancelled: boolean } {
  let at = 0;
  let sink: BodySink | null = null;
  const source = {
    cancelled: false,
    start(to: BodySink): void {
      sink = to;
      setImmediate(step);
    },
    resume: () => void setImmediate(step),
    cancel: () => void (source.cancelled = true),
  };
  function step(): void {
    if (source.cancelled) return;
    if (at >= Math.min(bytes.length, promised)) return sink!.end(null);
    const more = sink!.write(bytes.subarray(at, (at += size)));
    if (more) setImmediate(step);
  }
  return source;
}

/** All of a body; pauses it after every `every`th chunk. */
function read(body: Answer['body'], every = 3): Promise<Buffer> {
  if (body === null || Buffer.isBuffer(body)) return Promise.resolve(body ?? Buffer.alloc(0));
  const chunks: Buffer[] = [];
  return new Promise((resolve, reject) => {
    body.start({
      write(chunk) {
        chunks.push(chunk);
        if (chunks.length % every !== 0) return true;
        setImmediate(() => body.resume());
        return false;
      },
      end: () => resolve(Buffer.concat(chunks)),
      fail: reject,
    });
  });
}

function rangesOf(text: string, length: number): [number, number][] | 'ignored' | 'whole' {
  const specs = parseRange(text);
  if (specs === null) return 'ignored';
  const ranges = resolveRanges(specs, length);
  return ranges === 'whole' ? 'whole' : ranges.map(({ from, to }) => [from, to]);
}

describe('Range', () => {
  test.each([
    ['bytes=0-4', [[0, 5]]],
    ['bytes=5-', [[5, 1000]]],
    ['bytes=-5', [[995, 1000]]],
    ['bytes=-5000', [[0, 1000]]],
    ['bytes=990-5000', [[990, 1000]]],
    ['BYTES=0-0', [[0, 1]]],
    [
      'bytes= 0-0 , ,500-501,',
      [
        [0, 1],
        [500, 502],
      ],
    ],
    ['bytes=0-99999999999999999999999', [[0, 1000]]],
    [
      'bytes=500-501,0-0',
      [
        [500, 502],
        [0, 1],
      ],
    ],
    [
      'bytes=0-0,1000-,600-600',
      [
        [0, 1],
        [600, 601],
      ],
    ],
    ['bytes=1000-', []],
    ['bytes=-0', []],
    ['bytes=99999999999999999999999-', []],
  ])('R25: %s names %j of 1000 bytes (RFC 9110 §14.1.2)', (text, ranges) => {
    expect(rangesOf(text, 1000)).toEqual(ranges);
  });

  test.each([
    '',
    'bytes',
    'bytes=',
    'bytes=-',
    'bytes=,',
    'bytes=5-4',
    'bytes=a-b',
    'bytes=0-4;',
    'bytes=0 -4',
    'bytes =0-4',
    'items=0-4',
    'bytes=0-4, bytes=5-6',
    'bytes=--5',
    'bytes=+1-4',
    'bytes=0x0-4',
    'bytes=1.0-4',
    'bytes=0-4,x',
  ])('R25: %j is ignored (RFC 9110 §14.2)', text => {
    expect(rangesOf(text, 1000)).toBe('ignored');
  });

  test('R25: an empty representation has no ranges; its last bytes are all of it', () => {
    expect(rangesOf('bytes=0-', 0)).toEqual([]);
    expect(rangesOf('bytes=-1', 0)).toBe('whole');
  });

  test('R25: overlapping and neighbouring ranges are sent once (CVE-2011-3192)', () => {
    expect(rangesOf('bytes=0-,1-,2-,3-,4-', 1000)).toEqual([[0, 1000]]);
    expect(rangesOf('bytes=0-9,20-29,110-119', 1000)).toEqual([
      [0, 30],
      [110, 120],
    ]);
    expect(rangesOf('bytes=500-,0-9,490-505', 1000)).toEqual([
      [490, 1000],
      [0, 10],
    ]);
  });

  test('R25: too many ranges are ignored, and are no work (CVE-2011-3192)', () => {
    const many = (count: number): string =>
      `bytes=${Array.from({ length: count }, (_, i) => `${i * 100}-${i * 100}`).join(',')}`;
    expect(rangesOf(many(MAX_RANGES), 100_000)).toHaveLength(MAX_RANGES);
    expect(rangesOf(many(MAX_RANGES + 1), 100_000)).toBe('ignored');
    expect(rangesOf(`bytes=${'0-,'.repeat(100_000)}`, 1000)).toBe('ignored');
  });
});

const anySpec: fc.Arbitrary<RangeSpec> = fc
  .tuple(fc.option(fc.nat(1200)), fc.option(fc.nat(1200)))
  .filter(([first, last]) => (first !== null || last !== null) && (first === null || last === null || first <= last))
  .map(([first, last]) => ({ first, last }));
const asText = (specs: readonly RangeSpec[]): string =>
  `bytes=${specs.map(({ first, last }) => `${first ?? ''}-${last ?? ''}`).join(',')}`;

describe('a 206', () => {
  test('R25: has every byte that was asked for, once, where it says (RFC 9110 §15.3.7)', async () => {
    const anyCase = fc.asyncProperty(
      fc.array(anySpec, { minLength: 1, maxLength: 8 }),
      fc.nat(1000),
      fc.integer({ min: 1, max: 400 }),
      async (specs, length, cut) => {
        const body = TEXT.subarray(0, length);
        const parsed = parseRange(asText(specs));
        expect(parsed).toEqual(specs);
        const ranges = resolveRanges(parsed!, length);
        if (ranges === 'whole') return void expect(length).toBe(0);
        const asked = new Set<number>();
        for (const { first, last } of specs) {
          const from = first ?? Math.max(0, length - last!);
          const to = first === null || last === null ? length : Math.min(length, last + 1);
          for (let at = from; at < to; at++) asked.add(at);
        }
        expect(ranges.length === 0).toBe(asked.size === 0);
        if (ranges.length === 0) return;
        // From a body that lies in two pieces, the second elsewhere.
        const open = (from: number, to: number): Piece[] => {
          const middle = Math.min(to, Math.max(from, cut));
          const later: Piece = { length: to - middle, open: () => trickling(body.subarray(middle, to), 7) };
          return middle === to ? [body.subarray(from, to)] : [body.subarray(from, middle), later];
        };
        const answer = partialAnswer(
          { lines: ['Content-Type', 'content-type', 'text/x', 'ETag', 'etag', '"a"'], age: 3, length, open },
          ranges,
        );
        const { head } = answer;
        const sent = await read(answer.body);
        expect(head.status).toBe(206);
        expect(head.framing).toEqual({ kind: 'length', length: sent.length });
        expect(head.fields.get('etag')).toBe('"a"');
        expect(head.fields.get('age')).toBe('3');
        const seen = new Map<number, string>();
        const take = (range: string, bytes: Buffer): void => {
          const [, from, to, whole] = /^bytes (\d+)-(\d+)\/(\d+)$/.exec(range)!;
          expect(Number(whole)).toBe(length);
          expect(bytes.length).toBe(Number(to) - Number(from) + 1);
          expect(bytes.equals(body.subarray(Number(from), Number(to) + 1))).toBe(true);
          for (let at = Number(from); at <= Number(to); at++) {
            expect(seen.has(at)).toBe(false);
            seen.set(at, '');
          }
        };
        if (ranges.length === 1) {
          expect(head.fields.get('content-type')).toBe('text/x');
          take(head.fields.get('content-range')!, sent);
        } else {
          expect(head.fields.has('content-range')).toBe(false);
          const boundary = /^multipart\/byteranges; boundary=([0-9a-f]{36})$/.exec(
            head.fields.get('content-type')!,
          )![1]!;
          const text = sent.toString('latin1');
          expect(text.endsWith(`\r\n--${boundary}--\r\n`)).toBe(true);
          const parts = text.slice(0, -`\r\n--${boundary}--\r\n`.length).split(`--${boundary}\r\n`).slice(1);
          expect(parts).toHaveLength(ranges.length);
          for (const [i, part] of parts.entries()) {
            const [partHead = '', ...rest] = part.split('\r\n\r\n');
            const content = rest.join('\r\n\r\n');
            expect(partHead).toMatch(/^Content-Type: text\/x\r\nContent-Range: /);
            take(
              partHead.split('Content-Range: ')[1]!,
              Buffer.from(i < parts.length - 1 ? content.slice(0, -2) : content, 'latin1'),
            );
          }
        }
        for (const at of asked) expect(seen.has(at)).toBe(true);
        // Beside what was asked for only what is cheaper sent than left out.
        expect(seen.size - asked.size).toBeLessThan(80 * specs.length);
      },
    );
    await fc.assert(anyCase, { numRuns: 200 });
  });

  test('R25: no two have the same boundary', () => {
    const type = (): string => {
      const source = { lines: [], age: 0, length: 1000, open: (from: number, to: number) => [TEXT.subarray(from, to)] };
      return partialAnswer(source, [
        { from: 0, to: 1 },
        { from: 500, to: 501 },
      ]).head.fields.get('content-type')!;
    };
    expect(type()).not.toBe(type());
  });

  test('R25: a slice of a body in memory is not copied', () => {
    const source = { lines: [], age: 0, length: 1000, open: (from: number, to: number) => [TEXT.subarray(from, to)] };
    const { body } = partialAnswer(source, [{ from: 10, to: 900 }]);
    expect((body as Buffer).buffer).toBe(TEXT.buffer);
  });
});

describe('If-Range', () => {
  const modified = new Date(DATE - 3600_000).toUTCString();
  const stored = { etag: '"a"', lastModified: modified, date: DATE };
  test.each([
    [undefined, true],
    ['"a"', true],
    ['"b"', false],
    ['W/"a"', false],
    ['"a", "b"', false],
    ['*', false],
    [modified, true],
    [new Date(DATE - 3599_000).toUTCString(), false],
    [new Date(DATE - 3601_000).toUTCString(), false],
    ['Tuesday, 24-Nov-26 08:00:00 GMT', true],
    ['nonsense', false],
    ['', false],
  ])('R25: %j holds for a strong tag and date: %s (RFC 9110 §13.1.5)', (value, holds) => {
    expect(ifRangeHolds(value, stored)).toBe(holds);
  });

  test('R25: a weak tag, a date too young and none at all never hold (RFC 9110 §8.8.2.2)', () => {
    expect(ifRangeHolds('W/"a"', { ...stored, etag: 'W/"a"' })).toBe(false);
    expect(ifRangeHolds('"a"', { ...stored, etag: 'W/"a"' })).toBe(false);
    expect(ifRangeHolds(modified, { ...stored, date: DATE - 3600_000 + 5000 })).toBe(false);
    expect(ifRangeHolds(modified, { ...stored, lastModified: undefined })).toBe(false);
  });
});

describe('a body of several pieces', () => {
  const large = Buffer.alloc(20_000, 'x');

  test('R25: is opened piece by piece, and what is not needed any more is let go', async () => {
    const [first, second] = [trickling(large, 5000), trickling(large, 5000)];
    const opened: string[] = [];
    const dropped: string[] = [];
    const later = (name: string, source: BodySource): Piece => ({
      length: large.length,
      open: () => (opened.push(name), source),
      drop: () => void dropped.push(name),
    });
    const body = bodyOf([large, later('first', first), later('second', second)], 60_000) as BodySource;
    body.start({
      write(chunk) {
        if (chunk.length === 5000) body.cancel();
        return true;
      },
      end: () => expect.unreachable(),
      fail: () => expect.unreachable(),
    });
    await expect.poll(() => first.cancelled).toBe(true);
    expect({ opened, dropped }).toEqual({ opened: ['first'], dropped: ['second'] });
  });

  test('A73: breaks off where a piece is shorter or longer than it said', async () => {
    for (const promised of [19_999, 20_001]) {
      const body = bodyOf([large, { length: promised, open: () => trickling(large, 5000) }], 20_000 + promised);
      await expect(read(body)).rejects.toThrow('than it said');
    }
  });

  test('R25: thousands of pieces are no deep chain of calls', async () => {
    const pieces = Array.from({ length: 30_000 }, (): Piece => Buffer.from('xy'));
    expect((await read(bodyOf(pieces, 60_000), 1_000_000)).length).toBe(60_000);
  });
});
