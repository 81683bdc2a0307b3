// Attacks on the cache at its interface: outdated answers that would come back, storms of questions, and answers that leave memory while they are used.
import { describe, expect, test } from 'vitest';
import { createCache } from '../../../companion/cache/cache.ts';
import { Fields } from '../../../companion/message/headers.ts';
import type { Answer, Body, BodySink, BodySource } from '../../../companion/message/message.ts';
import type { Cache, CacheRequest } from '../../../companion/rooms.ts';
import { cacheLimits } from '../../support/cache-limits.ts';
import { diskIn, tempFolder } from '../../support/disk-cache.ts';

const KiB = 1024;
const URL_X = 'http://origin.test/x';
const LIMITS = cacheLimits({ memory: 256 * KiB, entry: 32 * KiB });

function requestOf(fields: Fields = new Fields(), url = URL_X): CacheRequest {
  return {
    head: {
      method: 'GET',
      target: { form: 'absolute', scheme: 'http', host: 'origin.test', port: 80, path: url.slice(18) },
      version: 11,
      fields,
      framing: { kind: 'none' },
      keepAlive: true,
    },
    url,
    site: 'origin.test',
    route: 'companion',
    partition: '',
    behindHops: false,
    decision: {
      steered: true,
      route: 'companion',
      filter: 'off',
      cache: 'standard',
      inspect: false,
      because: { rule: 'default' },
    },
  };
}

function answerOf(body: Body, control: string, ...more: string[]): Answer {
  const framing = Buffer.isBuffer(body)
    ? ({ kind: 'length', length: body.length } as const)
    : ({ kind: 'chunked' } as const);
  const fields = Fields.of('Cache-Control', control, 'Date', new Date().toUTCString(), ...more);
  return { head: { status: 200, reason: 'OK', version: 11, fields, framing, keepAlive: true }, body };
}

/** A body that comes in these chunks. */
class Chunks implements BodySource {
  private readonly chunks: readonly Buffer[];
  constructor(chunks: readonly Buffer[]) {
    this.chunks = chunks;
  }
  start(sink: BodySink): void {
    for (const chunk of this.chunks) sink.write(chunk);
    sink.end(null);
  }
  resume(): void {}
  cancel(): void {}
}

/** Reads a body to its end. */
function textOf(body: Body): Promise<string> {
  if (body === null || Buffer.isBuffer(body)) return Promise.resolve(body?.toString() ?? '');
  return new Promise((resolve, reject) => {
    let text = '';
    body.start({
      write: chunk => {
        text += chunk.toString();
        return true;
      },
      end: () => resolve(text),
      fail: reject,
    });
  });
}

/** Asks, and has the origin say this where it is asked. */
async function get(cache: Cache, request: CacheRequest, answer: () => Answer, now = Date.now()) {
  const found = cache.lookup(request, now);
  if (found.kind === 'follow') throw new Error('a follower');
  const { answer: given, status } =
    found.kind === 'hit' ? found : cache.store(found, answer(), { requestedAt: now, respondedAt: now });
  return { text: await textOf(given.body), status, refresh: found.kind === 'hit' ? found.refresh : null };
}

const RELOAD = () => requestOf(Fields.of('Cache-Control', 'no-cache'));
const never = (): Answer => {
  throw new Error('the origin was asked');
};

describe('what the origin has replaced', () => {
  test('does not come back where the new answer turned out too large to be kept', async () => {
    const cache = createCache(LIMITS);
    await get(cache, requestOf(), () => answerOf(Buffer.from('old'), 'max-age=600'));
    const large = new Chunks([Buffer.alloc(20 * KiB), Buffer.alloc(20 * KiB)]);
    await get(cache, RELOAD(), () => answerOf(large, 'max-age=600'));
    const again = await get(cache, requestOf(), () => answerOf(Buffer.from('new'), 'max-age=600'));
    expect(again.text).toBe('new');
  });

  test('does not come back from the disk where the new answer turned out too large to be kept', async () => {
    using folder = tempFolder();
    await using disk = diskIn(folder.path, { limit: 1024 * KiB });
    const cache = createCache(LIMITS, undefined, disk.store);
    await get(cache, requestOf(), () => answerOf(Buffer.from('old'), 'max-age=600'));
    const large = new Chunks(Array.from({ length: 40 }, () => Buffer.alloc(64 * KiB)));
    await get(cache, RELOAD(), () => answerOf(large, 'max-age=600'));
    await disk.store.settled();
    const again = await get(cache, requestOf(), () => answerOf(Buffer.from('new'), 'max-age=600'));
    expect(again.text).toBe('new');
  });
});

describe('stale-while-revalidate', () => {
  test('a large body on the disk is asked for behind one hit and not behind each', async () => {
    using folder = tempFolder();
    await using disk = diskIn(folder.path);
    const cache = createCache(LIMITS, undefined, disk.store);
    const body = Array.from({ length: 8 }, () => Buffer.alloc(16 * KiB, 'x'));
    const then = Date.now();
    await get(cache, requestOf(), () => answerOf(new Chunks(body), 'max-age=1, stale-while-revalidate=600'), then);
    await disk.store.settled();
    const first = await get(cache, requestOf(), never, then + 10_000);
    const second = await get(cache, requestOf(), never, then + 10_001);
    expect([first.refresh !== null, second.refresh !== null]).toEqual([true, false]);
  });

  test('what came anew and is stale again is asked for again', async () => {
    const cache = createCache(LIMITS);
    const control = 'max-age=1, stale-while-revalidate=600';
    const then = Date.now();
    const answer = () => answerOf(new Chunks([Buffer.from('body')]), control);
    await get(cache, requestOf(), answer, then);
    const { refresh } = await get(cache, requestOf(), never, then + 5_000);
    const times = { requestedAt: then + 5_000, respondedAt: then + 5_000 };
    const fresh = answerOf(new Chunks([Buffer.from('fresh')]), control);
    fresh.head.fields.set('Date', new Date(then + 5_000).toUTCString());
    expect(await textOf(cache.store(refresh!, fresh, times).answer.body)).toBe('fresh');
    const again = await get(cache, requestOf(), never, then + 10_000);
    expect([again.text, again.refresh !== null]).toEqual(['fresh', true]);
  });
});

describe('answers that come up from the disk', () => {
  test('A68: can be used though there are more of them than are kept in memory', async () => {
    using folder = tempFolder();
    await using disk = diskIn(folder.path);
    const ask = (n: number) => requestOf(Fields.of('X-V', String(n)));
    const first = createCache(LIMITS, undefined, disk.store);
    for (let n = 0; n < 12; n++) {
      await get(
        first,
        ask(n),
        () => answerOf(Buffer.from(`variant ${n}`), 'max-age=600', 'Vary', 'X-V'),
        Date.now() + n,
      );
    }
    for (let n = 0; n < 12; n++) {
      const other = createCache(LIMITS, undefined, disk.store);
      const found = await get(other, ask(n), () => answerOf(Buffer.from(`variant ${n}`), 'no-store'));
      expect(found.text).toBe(`variant ${n}`);
    }
  });
});

describe('what lies on the disk of one person', () => {
  test.each([
    ['Set-Cookie', { cookies: true }, { cookies: false }, 'max-age=600', ['Set-Cookie', 'id=1']],
    ['private', { semantics: 'private' }, { semantics: 'shared' }, 'private, max-age=600', []],
  ] as const)('A67: is not for several: %s', async (_, then, now, control, more) => {
    using folder = tempFolder();
    await using disk = diskIn(folder.path);
    const one = createCache({ ...LIMITS, ...then }, undefined, disk.store);
    await get(one, requestOf(), () => answerOf(Buffer.from('mine'), control, ...more));
    await disk.store.settled();
    expect((await get(createCache({ ...LIMITS, ...then }, undefined, disk.store), requestOf(), never)).text).toBe(
      'mine',
    );
    const several = createCache({ ...LIMITS, ...now }, undefined, disk.store);
    expect((await get(several, requestOf(), () => answerOf(Buffer.from('yours'), 'no-store'))).text).toBe('yours');
  });
});

describe('what is larger than memory takes', () => {
  test.each([5, 20])('is kept on the disk, though its %d KiB come at once', async size => {
    using folder = tempFolder();
    await using disk = diskIn(folder.path);
    const cache = createCache({ ...LIMITS, entry: KiB }, undefined, disk.store);
    const body = Buffer.alloc(size * KiB, 'x');
    const first = await get(cache, requestOf(), () => answerOf(body, 'max-age=600'));
    expect(first.status).toBe('fwd=uri-miss; stored');
    expect((await get(cache, requestOf(), never)).text).toBe(body.toString());
    await disk.store.settled();
    expect((await get(cache, requestOf(), never)).text).toBe(body.toString());
  });
});

describe('a cache that has been closed', () => {
  test('A76: stores nothing on the disk any more, where a purge could not reach it', async () => {
    using folder = tempFolder();
    await using disk = diskIn(folder.path);
    const old = createCache(LIMITS, undefined, disk.store);
    const found = old.lookup(requestOf(), Date.now());
    if (found.kind !== 'ask') throw new Error('not asked');
    let sink!: BodySink;
    const source: BodySource = { start: given => void (sink = given), resume() {}, cancel() {} };
    const times = { requestedAt: Date.now(), respondedAt: Date.now() };
    const { answer } = old.store(found, answerOf(source, 'max-age=600'), times);
    const reading = textOf(answer.body);
    await old.close();
    const cache = createCache(LIMITS, undefined, disk.store);
    cache.invalidate(URL_X);
    sink.write(Buffer.from('old'));
    sink.end(null);
    expect(await reading).toBe('old');
    await disk.store.settled();
    expect((await get(cache, requestOf(), () => answerOf(Buffer.from('new'), 'max-age=600'))).text).toBe('new');
  });
});
