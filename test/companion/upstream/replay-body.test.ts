// A body that is sent again: every sink gets all of it, in order, whenever the one before left, and the source is asked for it once.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Fields } from '../../../companion/message/headers.ts';
import type { BodySink, BodySource } from '../../../companion/message/message.ts';
import { ReplayBody } from '../../../companion/upstream/replay-body.ts';

/** A source that the test pushes through; like a socket's it may still come with a chunk after it was told to wait. */
class Pushed implements BodySource {
  sink: BodySink | null = null;
  waits = false;
  cancelled = 0;
  start(sink: BodySink): void {
    expect(this.sink).toBeNull();
    this.sink = sink;
  }
  resume(): void {
    this.waits = false;
  }
  cancel(): void {
    this.cancelled++;
  }
  push(chunk: Buffer): void {
    if (!this.sink!.write(chunk)) this.waits = true;
  }
}

/** Takes everything; asks to wait after every so many writes, and goes on a tick later. */
class Taking implements BodySink {
  readonly chunks: Buffer[] = [];
  ended: { trailers: Fields | null } | null = null;
  failed: Error | null = null;
  private readonly source: BodySource;
  private readonly everyWaits: number;
  constructor(source: BodySource, everyWaits = 0) {
    this.source = source;
    this.everyWaits = everyWaits;
  }
  get text(): string {
    return Buffer.concat(this.chunks).toString('latin1');
  }
  write(chunk: Buffer): boolean {
    this.chunks.push(chunk);
    if (this.everyWaits === 0 || this.chunks.length % this.everyWaits !== 0) return true;
    setImmediate(() => this.source.resume());
    return false;
  }
  end(trailers: Fields | null): void {
    this.ended = { trailers };
  }
  fail(error: Error): void {
    this.failed = error;
  }
}

const until = async (holds: () => boolean) => {
  while (!holds()) await new Promise(resolve => setImmediate(resolve));
};

describe('a body that is kept', () => {
  test('property: each sink gets all of it in order, from memory and from the disk, whenever the one before left', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.integer({ min: 1, max: 120_000 }), { minLength: 1, maxLength: 10 }),
        fc.array(fc.integer({ min: 0, max: 10 }), { maxLength: 3 }),
        fc.integer({ min: 0, max: 3 }),
        async (sizes, leaves, everyWaits) => {
          const source = new Pushed();
          const body = new ReplayBody(source, 8 * 1024 * 1024);
          let sink = new Taking(body, everyWaits);
          body.start(sink);
          let sent = '';
          for (const [i, size] of sizes.entries()) {
            const chunk = Buffer.alloc(size, 65 + i);
            sent += chunk.toString('latin1');
            source.push(chunk);
            if (leaves.includes(i)) {
              body.cancel();
              sink = new Taking(body, everyWaits);
              body.start(sink);
            }
            await until(() => !source.waits);
          }
          source.sink!.end(null);
          await until(() => sink.ended !== null);
          expect(body).toMatchObject({ isKept: true, isWhole: true, isUnsent: false });
          expect(sink.text === sent).toBe(true);
          body.cancel();
          const last = new Taking(body, everyWaits);
          body.start(last);
          // Settled while it is still being given: it gets all of it none the less.
          body.settle();
          await until(() => last.ended !== null);
          expect(last.text === sent).toBe(true);
          expect(source.cancelled).toBe(0);
        },
      ),
      { numRuns: 60 },
    );
  }, 60_000);

  test('beyond its bound it is lost, and goes on to its sink as any other', () => {
    const source = new Pushed();
    const body = new ReplayBody(source, 10);
    const sink = new Taking(body);
    expect(body).toMatchObject({ isKept: true, isUnsent: true });
    body.start(sink);
    source.push(Buffer.alloc(8, 'a'));
    expect(body).toMatchObject({ isKept: true, isUnsent: false });
    source.push(Buffer.alloc(8, 'b'));
    expect(body.isKept).toBe(false);
    expect(sink.text).toBe('aaaaaaaabbbbbbbb');
  });

  test('the source is let go when nobody will read it, and not before', () => {
    const source = new Pushed();
    const body = new ReplayBody(source, 100);
    body.start(new Taking(body));
    source.push(Buffer.from('x'));
    body.cancel();
    expect(source.cancelled).toBe(0);
    // Nobody listens: it is told to wait.
    source.push(Buffer.from('y'));
    expect(source.waits).toBe(true);
    body.settle();
    expect(source.cancelled).toBe(1);
  });

  test('after it is settled its sink is the last, and takes the source along when it goes', () => {
    const source = new Pushed();
    const body = new ReplayBody(source, 100);
    const sink = new Taking(body);
    body.start(sink);
    source.push(Buffer.from('x'));
    body.settle();
    source.push(Buffer.from('y'));
    expect(sink.text).toBe('xy');
    body.cancel();
    expect(source.cancelled).toBe(1);
  });

  test('a body that broke off breaks off for the next, too', async () => {
    const source = new Pushed();
    const body = new ReplayBody(source, 100);
    body.start(new Taking(body));
    source.push(Buffer.from('x'));
    body.cancel();
    source.sink!.fail(new Error('gone'));
    expect(body.isKept).toBe(false);
  });
});
