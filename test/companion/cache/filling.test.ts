// A body on its way, at its interface: readers by hand, then readers of random pace. Over sockets see in-flight.test.ts.
import fc from 'fast-check';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { Budget, Filling, type FillingOptions, type Growing } from '../../../companion/cache/filling.ts';
import { Fields } from '../../../companion/message/headers.ts';
import type { BodySink, BodySource } from '../../../companion/message/message.ts';

const KiB = 1024;

/** A body that is handed on by hand. It heeds a no as a connection does: what is at hand still comes. */
class HandSource implements BodySource {
  sink: BodySink | null = null;
  cancelled = 0;
  resumed = 0;
  start(sink: BodySink): void {
    if (this.sink !== null) throw new Error('started twice');
    this.sink = sink;
  }
  resume(): void {
    this.resumed++;
  }
  cancel(): void {
    this.cancelled++;
  }
}

class HandSink implements BodySink {
  readonly chunks: Buffer[] = [];
  trailers: Fields | null = null;
  ended = 0;
  failed: Error | null = null;
  takes = true;
  get bytes(): Buffer {
    return Buffer.concat(this.chunks);
  }
  write(chunk: Buffer): boolean {
    if (this.ended > 0 || this.failed !== null) throw new Error('a write behind the end');
    this.chunks.push(chunk);
    return this.takes;
  }
  end(trailers: Fields | null): void {
    this.ended++;
    this.trailers = trailers;
  }
  fail(error: Error): void {
    if (this.ended > 0) throw new Error('failed behind the end');
    this.failed = error;
  }
}

/** A file that takes bytes for as long as the test says. */
class HandFile implements Growing {
  readonly chunks: Buffer[] = [];
  takes = true;
  refused = false;
  aborted = 0;
  write(chunk: Buffer): boolean {
    if (this.refused || this.aborted > 0) throw new Error('a write behind the end');
    this.refused = !this.takes;
    if (this.takes) this.chunks.push(chunk);
    return this.takes;
  }
  abort(): void {
    this.aborted++;
  }
}

function fill(more: Partial<FillingOptions> = {}) {
  const source = new HandSource();
  const kept: Buffer[] = [];
  let lost = 0;
  const filling = new Filling(source, {
    limit: 64 * KiB,
    length: null,
    budget: new Budget(1024 * KiB),
    finish: 0,
    complete: body =>
      void kept.push(
        Buffer.isBuffer(body) ? body : body instanceof HandFile ? Buffer.concat(body.chunks) : Buffer.alloc(0),
      ),
    lost: () => void lost++,
    ...more,
  });
  return {
    source,
    filling,
    kept,
    get lost() {
      return lost;
    },
  };
}

/** Bytes of which no two places look alike. */
function pattern(length: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let i = 0; i + 4 <= length; i += 4)
    bytes.writeUInt32LE(i * 2_654_435_761 > 0 ? (i * 2_654_435_761) % 2 ** 32 : 0, i);
  return bytes;
}

function read(source: BodySource, takes = true): HandSink {
  const sink = new HandSink();
  sink.takes = takes;
  source.start(sink);
  return sink;
}

afterEach(() => void vi.useRealTimers());

describe('one reader', () => {
  test('who keeps up gets what comes uncopied, and the store an exact copy', () => {
    const one = fill();
    const sink = read(one.filling.leader);
    const chunk = Buffer.from('abc');
    expect(one.source.sink!.write(chunk)).toBe(true);
    expect(sink.chunks[0]).toBe(chunk);
    const trailers = Fields.of('X-Sum', '1');
    one.source.sink!.end(trailers);
    expect(sink.ended).toBe(1);
    expect(sink.trailers).toBe(trailers);
    expect(String(one.kept[0])).toBe('abc');
    expect(one.kept[0]!.buffer.byteLength).toBe(3);
  });

  test('who is slow does not slow the store', () => {
    const bytes = pattern(60 * KiB);
    const one = fill({ length: bytes.length });
    const sink = read(one.filling.leader, false);
    for (let at = 0; at < bytes.length; at += 1000) {
      expect(one.source.sink!.write(bytes.subarray(at, Math.min(bytes.length, at + 1000)))).toBe(true);
    }
    one.source.sink!.end(null);
    expect(one.kept[0]!.equals(bytes)).toBe(true);
    expect(sink.bytes).toHaveLength(1000);
    sink.takes = true;
    one.filling.leader.resume();
    expect(sink.bytes.equals(bytes)).toBe(true);
    expect(sink.ended).toBe(1);
  });

  test('beyond the bound the copy is given up, the pace of the client rules, and no byte is lost', () => {
    const one = fill({ limit: 4 * KiB });
    const sink = read(one.filling.leader, false);
    const bytes = pattern(10 * KiB);
    const results = [];
    for (let at = 0; at < bytes.length; at += KiB) results.push(one.source.sink!.write(bytes.subarray(at, at + KiB)));
    expect(results.slice(0, 4)).toEqual([true, true, true, true]);
    expect(results.slice(4)).toEqual([false, false, false, false, false, false]);
    expect(one.lost).toBe(1);
    sink.takes = true;
    one.filling.leader.resume();
    expect(one.source.resumed).toBe(1);
    one.source.sink!.end(null);
    expect(sink.bytes.equals(bytes)).toBe(true);
    expect(sink.ended).toBe(1);
    expect(one.kept).toHaveLength(0);
  });

  test('A73: what breaks off, or is shorter or longer than it said, is never whole', () => {
    const broken = fill({ length: 10 });
    const hearsIt = read(broken.filling.leader);
    broken.source.sink!.write(Buffer.from('12345'));
    broken.source.sink!.fail(new Error('reset'));
    expect(hearsIt.failed?.message).toBe('reset');
    const short = fill({ length: 10 });
    read(short.filling.leader);
    short.source.sink!.write(Buffer.from('12345'));
    short.source.sink!.end(null);
    const long = fill({ length: 10 });
    const cutOff = read(long.filling.leader);
    long.source.sink!.write(Buffer.from('12345'));
    long.source.sink!.write(Buffer.from('123456'));
    expect(cutOff.failed).not.toBeNull();
    expect(long.source.cancelled).toBe(1);
    for (const one of [broken, short, long]) {
      expect(one.kept).toHaveLength(0);
      expect(one.lost).toBe(1);
    }
  });

  test('R43: who is behind when the source breaks off gets what there is, and then hears of it', () => {
    const one = fill({ length: 10 });
    const sink = read(one.filling.leader, false);
    one.source.sink!.write(Buffer.from('123'));
    one.source.sink!.write(Buffer.from('456'));
    one.source.sink!.fail(new Error('reset'));
    expect(sink.failed).toBeNull();
    one.filling.leader.resume();
    expect(String(sink.bytes)).toBe('123456');
    expect(sink.failed?.message).toBe('reset');
  });
});

describe('a reader that leaves', () => {
  test('ends the fetch when much is still to come', () => {
    const one = fill({ length: 50, finish: 10 });
    read(one.filling.leader);
    one.source.sink!.write(Buffer.from('1234'));
    one.filling.leader.cancel();
    one.filling.leader.cancel();
    expect(one.source.cancelled).toBe(1);
    expect(one.lost).toBe(1);
  });

  test('does not end it when little is, and its length is known', () => {
    const one = fill({ length: 10, finish: 8 });
    read(one.filling.leader);
    one.source.sink!.write(Buffer.from('1234'));
    one.filling.leader.cancel();
    expect(one.source.cancelled).toBe(0);
    one.source.sink!.write(Buffer.from('567890'));
    one.source.sink!.end(null);
    expect(String(one.kept[0])).toBe('1234567890');
  });

  test('that left before it began has it fetched all the same', () => {
    const one = fill({ length: 4, finish: 8 });
    one.filling.leader.cancel();
    one.source.sink!.write(Buffer.from('1234'));
    one.source.sink!.end(null);
    expect(String(one.kept[0])).toBe('1234');
  });

  test('and what trickles in afterwards is given up in time', () => {
    vi.useFakeTimers();
    const budget = new Budget(32 * KiB);
    const one = fill({ length: 10, finish: 8, budget });
    read(one.filling.leader);
    one.source.sink!.write(Buffer.from('1234'));
    one.filling.leader.cancel();
    vi.advanceTimersByTime(29_000);
    expect(one.source.cancelled).toBe(0);
    vi.advanceTimersByTime(2_000);
    expect(one.source.cancelled).toBe(1);
    expect(one.lost).toBe(1);
    expect(budget.take(32 * KiB)).toBe(true);
  });

  test('leaves the others reading; where others wait for the whole, it becomes whole', () => {
    const shared = fill({ length: 6 });
    read(shared.filling.leader);
    const follower = read(shared.filling.join()!);
    shared.source.sink!.write(Buffer.from('123'));
    shared.filling.leader.cancel();
    shared.source.sink!.write(Buffer.from('456'));
    shared.source.sink!.end(null);
    expect(String(follower.bytes)).toBe('123456');
    expect(shared.kept).toHaveLength(1);

    const awaited = fill({ awaited: () => true });
    read(awaited.filling.leader);
    awaited.filling.leader.cancel();
    awaited.source.sink!.write(Buffer.from('123'));
    awaited.source.sink!.end(null);
    expect(awaited.kept).toHaveLength(1);
  });
});

describe('followers', () => {
  test('read from the beginning, whenever they come', () => {
    const one = fill({ length: 9 });
    read(one.filling.leader);
    one.source.sink!.write(Buffer.from('123'));
    const second = read(one.filling.join()!);
    one.source.sink!.write(Buffer.from('456'));
    const third = one.filling.join()!;
    one.source.sink!.write(Buffer.from('789'));
    one.source.sink!.end(null);
    expect(String(second.bytes)).toBe('123456789');
    expect(String(read(third).bytes)).toBe('123456789');
    expect(one.filling.join()).toBeNull();
  });

  test('none is taken where the length is not known, or the memory for all of it is not there', () => {
    expect(fill().filling.join()).toBeNull();
    const small = fill({ length: 60 * KiB, budget: new Budget(32 * KiB) });
    expect(small.filling.join()).toBeNull();
    expect(small.filling.isKept).toBe(true);
  });

  test('A73: all hear that the source broke off', () => {
    const one = fill({ length: 9 });
    const sinks = [read(one.filling.leader), read(one.filling.join()!), read(one.filling.join()!)];
    one.source.sink!.write(Buffer.from('123'));
    one.source.sink!.fail(new Error('reset'));
    for (const sink of sinks) expect(sink.failed?.message).toBe('reset');
  });

  test('a hundred slow ones share one copy, and its memory is back when the last has left', () => {
    const bytes = pattern(48 * KiB);
    const budget = new Budget(96 * KiB);
    const one = fill({ length: bytes.length, budget });
    read(one.filling.leader, false);
    const followers = Array.from({ length: 100 }, () => one.filling.join()!);
    const sinks = followers.map(follower => read(follower, false));
    for (let at = 0; at < bytes.length; at += KiB) one.source.sink!.write(bytes.subarray(at, at + KiB));
    one.source.sink!.end(null);
    expect(budget.take(49 * KiB)).toBe(false);
    for (const [i, follower] of followers.entries()) {
      if (i % 2 === 0) follower.cancel();
      else {
        sinks[i]!.takes = true;
        follower.resume();
        expect(sinks[i]!.bytes.equals(bytes)).toBe(true);
      }
    }
    expect(budget.take(96 * KiB)).toBe(false);
    one.filling.leader.cancel();
    expect(budget.take(96 * KiB)).toBe(true);
  });
});

describe('what is too large for memory', () => {
  function fillFile(more: Partial<FillingOptions> = {}) {
    const files: HandFile[] = [];
    const one = fill({
      limit: 4 * KiB,
      large: () => {
        const file = new HandFile();
        files.push(file);
        return file;
      },
      ...more,
    });
    return { one, files };
  }
  const bytes = pattern(30 * KiB);
  const piece = (i: number) => bytes.subarray(i * KiB, (i + 1) * KiB);

  test('goes into a file at once where it says so, else when it has outgrown memory', () => {
    for (const length of [null, bytes.length]) {
      const { one, files } = fillFile({ length });
      expect(files).toHaveLength(length === null ? 0 : 1);
      expect(one.filling.isShareable).toBe(length === null);
      const sink = read(one.filling.leader);
      for (let i = 0; i < 30; i++) expect(one.source.sink!.write(piece(i))).toBe(true);
      expect(files).toHaveLength(1);
      expect(one.filling.isShareable).toBe(false);
      one.source.sink!.end(null);
      expect(sink.bytes.equals(bytes)).toBe(true);
      expect(sink.ended).toBe(1);
      expect(one.kept[0]!.equals(bytes)).toBe(true);
      expect(files[0]!.aborted).toBe(0);
    }
  });

  test('a slow reader may be behind by as much as memory takes; then his pace rules', () => {
    for (const length of [null, bytes.length]) {
      const budget = new Budget(100 * KiB);
      const { one } = fillFile({ length, budget });
      const sink = read(one.filling.leader, false);
      let sent = 0;
      while (one.source.sink!.write(piece(sent++)) && sent < 29) {
        // On.
      }
      expect(sent).toBeGreaterThan(4);
      expect(sent).toBeLessThan(8);
      sink.takes = true;
      one.filling.leader.resume();
      expect(one.source.resumed).toBe(1);
      expect(budget.take(100 * KiB)).toBe(true);
      while (sent < 30) expect(one.source.sink!.write(piece(sent++))).toBe(true);
      one.source.sink!.end(null);
      expect(sink.bytes.equals(bytes)).toBe(true);
      expect(one.kept[0]!.equals(bytes)).toBe(true);
    }
  });

  test('goes on without a file that takes no more', () => {
    const { one, files } = fillFile({ length: bytes.length });
    const sink = read(one.filling.leader);
    one.source.sink!.write(piece(0));
    files[0]!.takes = false;
    for (let i = 1; i < 30; i++) expect(one.source.sink!.write(piece(i))).toBe(true);
    expect(one.lost).toBe(1);
    one.source.sink!.end(null);
    expect(sink.bytes.equals(bytes)).toBe(true);
    expect(one.kept).toHaveLength(0);
    expect(one.lost).toBe(1);
  });

  test('whom nobody reads is not fetched for a file that takes no more', () => {
    const { one, files } = fillFile({ length: bytes.length, finish: 40 * KiB });
    read(one.filling.leader);
    one.source.sink!.write(piece(0));
    one.filling.leader.cancel();
    expect(one.source.cancelled).toBe(0);
    one.source.sink!.write(piece(1));
    files[0]!.takes = false;
    one.source.sink!.write(piece(2));
    expect(one.source.cancelled).toBe(1);
    expect(one.lost).toBe(1);
  });

  test('A73: a file is dropped with what broke off or was left', () => {
    const broken = fillFile({ length: bytes.length });
    read(broken.one.filling.leader);
    broken.one.source.sink!.write(piece(0));
    broken.one.source.sink!.fail(new Error('reset'));
    const left = fillFile({ length: bytes.length });
    read(left.one.filling.leader);
    left.one.filling.leader.cancel();
    for (const { one, files } of [broken, left]) {
      expect(files[0]!.aborted).toBe(1);
      expect(one.kept).toHaveLength(0);
      expect(one.lost).toBe(1);
    }
    expect(left.one.source.cancelled).toBe(1);
  });

  test('passes unkept where there is no place for it', () => {
    const one = fill({ limit: 4 * KiB, length: 20 * KiB, large: () => null });
    expect(one.filling.isKept).toBe(false);
  });
});

test('whatever the pace and the bounds, every reader gets a beginning of the body, whole exactly when it ended well, and all memory comes back', () => {
  const step = fc.oneof(
    { weight: 6, arbitrary: fc.record({ do: fc.constant('chunk' as const), size: fc.integer({ min: 1, max: 9000 }) }) },
    { weight: 3, arbitrary: fc.record({ do: fc.constant('join' as const), takes: fc.boolean() }) },
    { weight: 4, arbitrary: fc.record({ do: fc.constantFrom('stall', 'resume'), who: fc.nat(9) }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('leave' as const), who: fc.nat(9) }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('file lost' as const) }) },
  );
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 100_000 }),
      fc.boolean(),
      fc.integer({ min: 1, max: 120_000 }),
      fc.integer({ min: 20_000, max: 300_000 }),
      fc.integer({ min: 0, max: 50_000 }),
      fc.array(step, { maxLength: 60 }),
      fc.boolean(),
      fc.boolean(),
      (length, announced, limit, memory, finish, steps, breaks, onDisk) => {
        const bytes = pattern(length);
        const budget = new Budget(memory);
        const files: HandFile[] = [];
        const large = () => {
          const made = new HandFile();
          files.push(made);
          return made;
        };
        const one = fill({
          length: announced ? length : null,
          limit,
          budget,
          finish,
          large: onDisk ? large : undefined,
        });
        if (!one.filling.isKept) return;
        const readers = [{ body: one.filling.leader, sink: read(one.filling.leader), left: false }];
        let at = 0;
        let over = false;
        let waits = false;
        const send = (size: number) => {
          if (over || at >= length || one.source.cancelled > 0) return;
          const to = Math.min(length, at + size);
          const more = one.source.sink!.write(bytes.subarray(at, to));
          at = to;
          if (!more) waits = true;
        };
        let resumed = 0;
        for (const each of steps) {
          if (one.source.resumed > resumed) {
            resumed = one.source.resumed;
            waits = false;
          }
          if (each.do === 'chunk') {
            // What is at hand comes though it was asked to wait.
            if (!waits || each.size % 3 === 0) send(each.size);
          } else if (each.do === 'join') {
            const body = one.filling.join();
            if (body !== null) readers.push({ body, sink: read(body, each.takes), left: false });
          } else if (!('who' in each)) {
            const file = files[0];
            if (file !== undefined) file.takes = false;
          } else {
            const reader = readers[each.who % readers.length]!;
            if (each.do === 'stall') reader.sink.takes = false;
            else if (each.do === 'resume') {
              reader.sink.takes = true;
              reader.body.resume();
            } else {
              reader.left = true;
              reader.body.cancel();
            }
          }
        }
        for (const reader of readers) {
          reader.sink.takes = true;
          reader.body.resume();
        }
        if (!breaks) for (let i = 0; i <= length / 5000; i++) send(5000);
        if (one.source.cancelled === 0) {
          over = true;
          if (breaks) one.source.sink!.fail(new Error('reset'));
          else one.source.sink!.end(null);
        } else expect(readers.every(reader => reader.left)).toBe(true);
        for (const reader of readers) {
          reader.body.resume();
          expect(reader.sink.bytes.equals(bytes.subarray(0, reader.sink.bytes.length))).toBe(true);
          if (reader.left) continue;
          expect(reader.sink.ended).toBe(breaks ? 0 : 1);
          expect(reader.sink.failed === null).toBe(!breaks);
          expect(reader.sink.bytes).toHaveLength(at);
        }
        expect(one.kept.length + one.lost).toBe(1);
        if (one.kept.length > 0) {
          expect(one.kept[0]!.equals(bytes)).toBe(true);
          expect(breaks).toBe(false);
        }
        expect(budget.take(memory)).toBe(true);
        for (const file of files) expect(file.aborted).toBe(one.kept.length > 0 || file.refused ? 0 : 1);
      },
    ),
    { numRuns: 500 },
  );
});
