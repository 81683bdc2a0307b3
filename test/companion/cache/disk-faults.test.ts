// The cache on a disk that fills up, can only be read, breaks or ends with its process: the whole companion.
import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import path from 'node:path';
import { describe, expect, test, vi } from 'vitest';
import { KiB, MiB } from '../../../shared/units.ts';
import { cacheCrashRound, faultsOf } from '../../soak/cache-crashes.ts';
import { bodyOf, diskIn, entryOf, tempFolder } from '../../support/disk-cache.ts';
import { startOrigin } from '../../support/origin.ts';
import { connectRaw } from '../../support/raw-client.ts';
import { spawnCompanion } from '../../support/spawned-companion.ts';
import { makePlace, type Place, startTestCompanion, TEST_CONFIG } from '../../support/with-companion.ts';

/** A small file system of its own at the folder; null where nobody may mount one. */
function mounted(folder: string, size: string): (Disposable & { remount(how: string): void }) | null {
  fs.mkdirSync(folder, { recursive: true });
  const mount = (...args: string[]) => execFileSync('mount', args, { stdio: 'ignore' });
  try {
    mount('-t', 'tmpfs', '-o', `size=${size},mode=0700`, 'detour-test', folder);
  } catch {
    return null;
  }
  return {
    remount: how => mount('-o', `remount,${how}`, folder),
    [Symbol.dispose]: () => execFileSync('umount', ['-l', folder]),
  };
}

const mayMount = (() => {
  using place = tempFolder();
  using small = mounted(path.join(place.path, 'x'), '1m');
  return small !== null;
})();

/** An origin whose answers are all worth keeping, of the length that their path ends in. */
const startFiles = () =>
  startOrigin((request, response) => {
    const length = Number(/(\d+)$/.exec(request.url!)![1]);
    response.setHeader('Cache-Control', 'max-age=3600');
    response.setHeader('ETag', `"${request.url!}"`);
    response.end(bodyOf(length, length));
  });

type Files = Awaited<ReturnType<typeof startFiles>>;

async function get(port: number, origin: Files, at: string) {
  await using client = await connectRaw(port);
  client.write(`GET ${origin.url(at)} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);
  const { status, headers, body } = await client.readAnswer();
  const length = Number(/(\d+)$/.exec(at)![1]);
  expect([status, body.equals(bodyOf(length, length))], at).toEqual([200, true]);
  return (headers['cache-status'] ?? '').replace('detour; ', '').replace(/ttl=\d+/, 'ttl');
}

/** A busy machine writes late, and a new index is looked for once in a second. */
const SOON = { timeout: 10_000, interval: 200 };

describe('what is on the disk', () => {
  test('is there after a restart: small, large, and larger than memory takes', async () => {
    await using origin = await startFiles();
    using place = makePlace(`${TEST_CONFIG}cache: { entry: 1MiB }\n`);
    const paths = ['/0', '/1000', '/20000', '/400000', `/${3 * MiB}`];
    {
      await using first = await startTestCompanion(undefined, place);
      for (const at of paths) expect(await get(first.port, origin, at)).toBe('fwd=uri-miss; stored');
      for (const at of paths) {
        await vi.waitFor(async () => expect(await get(first.port, origin, at)).toBe('hit; ttl'), SOON);
      }
    }
    const asked = origin.requests.length;
    await using again = await startTestCompanion(undefined, place);
    // Twice: what came from the disk the first time may come from memory the second.
    for (const at of [...paths, ...paths]) expect(await get(again.port, origin, at)).toBe('hit; ttl');
    expect(origin.requests.length).toBe(asked);
    expect(again.said).toEqual([]);
  });

  test(
    'A78: is a miss where a large file is damaged in what goes out first; damage behind that breaks the answer off, and then it is a miss',
    { timeout: 60_000 },
    async () => {
      await using origin = await startFiles();
      await using companion = await startTestCompanion(`${TEST_CONFIG}cache: { entry: 1MiB }\n`);
      const at = `/${3 * MiB}`;
      await get(companion.port, origin, at);
      const bodies = path.join(companion.place.stateFolder, 'cache', 'bodies');
      const damage = (where: number) => {
        const [file] = fs.readdirSync(bodies, { recursive: true, withFileTypes: true }).filter(entry => entry.isFile());
        const fd = fs.openSync(path.join(file!.parentPath, file!.name), 'r+');
        fs.writeSync(fd, Buffer.from('damaged'), 0, 7, where);
        fs.closeSync(fd);
      };
      const isHit = () => vi.waitFor(async () => expect(await get(companion.port, origin, at)).toBe('hit; ttl'), SOON);
      await isHit();
      damage(1000);
      expect(await get(companion.port, origin, at)).toBe('fwd=uri-miss; stored');
      await isHit();
      damage(2 * MiB);
      await expect(get(companion.port, origin, at)).rejects.toThrow('ended before');
      expect(await get(companion.port, origin, at)).toBe('fwd=uri-miss; stored');
      await isHit();
      // What a range asks for first need not be the first there is.
      damage(2 * MiB);
      await using client = await connectRaw(companion.port);
      client.write(`GET ${origin.url(at)} HTTP/1.1\r\nHost: x\r\nRange: bytes=${2 * MiB}-${2 * MiB + 9}\r\n\r\n`);
      const { headers } = await client.readAnswer();
      expect(headers['cache-status']).toMatch(/^detour; fwd=uri-miss/);
    },
  );

  test('is invalidated by an unsafe method for good', async () => {
    await using origin = await startFiles();
    using place = makePlace(TEST_CONFIG);
    {
      await using first = await startTestCompanion(undefined, place);
      await get(first.port, origin, '/1000');
      await using client = await connectRaw(first.port);
      client.write(`POST ${origin.url('/1000')} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n`);
      expect((await client.readAnswer('POST')).status).toBe(200);
    }
    await using again = await startTestCompanion(undefined, place);
    expect(await get(again.port, origin, '/1000')).toBe('fwd=uri-miss; stored');
  });

  test('is shared by all workers', async () => {
    await using origin = await startFiles();
    await using companion = await spawnCompanion({ config: 'workers: 2\n' });
    await get(companion.port, origin, '/1000');
    // A worker that has not looked yet, or a moment ago, finds it within a second or two.
    await new Promise(resolve => setTimeout(resolve, 1_500));
    for (let i = 0; i < 12; i++) expect(await get(companion.port, origin, '/1000')).toBe('hit; ttl');
    expect(origin.requests).toHaveLength(1);
  });

  test('is nothing with `disk: 0`, and no folder is made', async () => {
    await using origin = await startFiles();
    using place = makePlace(`${TEST_CONFIG}cache: { disk: 0 }\n`);
    await using companion = await startTestCompanion(undefined, place);
    await get(companion.port, origin, '/1000');
    expect(await get(companion.port, origin, '/1000')).toBe('hit; ttl');
    expect(fs.existsSync(path.join(place.stateFolder, 'cache'))).toBe(false);
  });

  test('R72: goes with `disk: 0`, for it would not hear of what becomes invalid meanwhile', async () => {
    await using origin = await startFiles();
    using place = makePlace(TEST_CONFIG);
    const folder = path.join(place.stateFolder, 'cache');
    const setDisk = (text: string) => fs.writeFileSync(place.configFile, `${TEST_CONFIG}${text}`);
    await using companion = await startTestCompanion(undefined, place);
    await get(companion.port, origin, '/1000');
    await vi.waitFor(() => expect(fs.existsSync(folder)).toBe(true), SOON);
    setDisk('cache: { disk: 0, memory: 0 }\n');
    await vi.waitFor(() => expect(fs.existsSync(folder)).toBe(false), SOON);
    setDisk('');
    await vi.waitFor(async () => {
      const said = await get(companion.port, origin, '/2000');
      expect(said).toBe('hit; ttl');
    }, SOON);
    expect(await get(companion.port, origin, '/1000')).toBe('fwd=uri-miss; stored');
  });
});

describe.skipIf(!mayMount)('a disk', () => {
  const cacheOf = (place: Place) => path.join(place.stateFolder, 'cache');
  const complaints = (said: readonly string[]) => said.filter(line => line.includes('cache on disk'));

  test(
    'A78, A92: that is full costs one warning, answers are kept in memory, and it is used again when there is room',
    { timeout: 60_000 },
    async () => {
      using place = tempFolder();
      using disk = mounted(path.join(place.path, 'cache'), '1m')!;
      await using cache = diskIn(place.path, { retryAfter: 100, limit: 64 * MiB });
      const { store, warnings } = cache;
      for (let i = 0; i < 300; i++) {
        store.put(entryOf(`http://a.test/${i}`, bodyOf(i % 3 === 0 ? 40 * KiB : 5_000, i)));
        if (i % 10 === 0) await store.settled();
      }
      const filling = store.begin(null);
      for (let i = 0; i < 30; i++) filling?.write(bodyOf(100 * KiB));
      await store.settled();
      expect(warnings).toEqual([expect.stringContaining('there is no space left')]);
      // What is there is whole.
      for (let i = 0; i < 300; i++) {
        for (const { entry } of store.get(`http://a.test/${i}`, false)) {
          expect(entry.body.bytes!.equals(bodyOf(i % 3 === 0 ? 40 * KiB : 5_000, i))).toBe(true);
        }
      }
      disk.remount('size=64m');
      await vi.waitFor(
        async () => {
          store.put(entryOf('http://a.test/after', bodyOf(5_000)));
          await store.settled();
          expect(store.get('http://a.test/after', false)).toHaveLength(1);
        },
        { timeout: 5_000, interval: 100 },
      );
      expect(warnings).toHaveLength(1);
      await store.close();
      expect(await faultsOf(cache.folder)).toEqual([]);
    },
  );

  test(
    'A78, A92: that can only be read costs one warning that names the folder, and nothing else',
    { timeout: 60_000 },
    async () => {
      await using origin = await startFiles();
      using place = makePlace(TEST_CONFIG);
      fs.mkdirSync(place.stateFolder, { mode: 0o700 });
      using disk = mounted(cacheOf(place), '8m')!;
      {
        await using first = await startTestCompanion(undefined, place);
        expect(await get(first.port, origin, '/1000')).toBe('fwd=uri-miss; stored');
      }
      disk.remount('ro');
      await using again = await startTestCompanion(undefined, place);
      for (const at of ['/2000', '/30000', '/2000', '/30000']) await get(again.port, origin, at);
      await vi.waitFor(() => expect(complaints(again.said)).toHaveLength(1), 20_000);
      expect(complaints(again.said)[0]).toContain(cacheOf(place));
      expect(await get(again.port, origin, '/2000')).toBe('hit; ttl');
      expect(complaints(again.said)).toHaveLength(1);
      disk.remount('rw');
    },
  );
});

describe('kill -9 while it is written', () => {
  test.each([1, 2, 3, 4])(
    'A78, A93: leaves a store that is consistent, and serves nothing that is not whole (%i)',
    { timeout: 60_000 },
    async round => {
      const { faults } = await cacheCrashRound(round);
      expect(faults).toEqual([]);
    },
  );
});
