// kill -9 at some moment while the cache writes its disk: large and small answers, new versions of them, removals, eviction. Then every answer that comes
// out of what is left must be one that was given once, whole, and head and body of the same version; and the store must count right.
import { existsSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { startOrigin } from '../support/origin.ts';
import { connectRaw } from '../support/raw-client.ts';
import { spawnCompanion } from '../support/spawned-companion.ts';
import { makePlace, TEST_CONFIG } from '../support/with-companion.ts';

const URLS = 400;
/** Of these one. */
const INVALID = 7;
/** Mostly rows, some files, some too large for memory. */
const lengthOf = (number: number): number =>
  number % 40 === 0 ? 1_500_000 + number : number % 8 === 0 ? 300_000 + number : 200 + ((number * 97) % 12_000);

/** Tells of which URL and version it is, everywhere. */
function bodyOf(number: number, version: number): Buffer {
  return Buffer.alloc(lengthOf(number), `${number}.${version} `);
}

export interface CacheCrash {
  readonly faults: readonly string[];
  /** Answers that came out of what the killed one left. */
  readonly hits: number;
}

/** One life, its end, and what the next one makes of it. `round` decides the moment. */
export async function cacheCrashRound(round: number): Promise<CacheCrash> {
  const versions = new Map<number, number>();
  await using origin = await startOrigin((request, response) => {
    const number = Number(request.url!.slice(1));
    const version = (versions.get(number) ?? 0) + 1;
    versions.set(number, version);
    response.setHeader('Cache-Control', 'max-age=3600');
    response.setHeader('X-Version', `${number}.${version}`);
    response.end(request.method === 'POST' ? '' : bodyOf(number, version));
  });
  // Little room in memory, so that the disk is asked; now and then little on the disk, so that it evicts.
  const disk = round % 3 === 2 ? 8 : 64;
  using place = makePlace(
    `${TEST_CONFIG}cache: { memory: 2MiB, entry: 1MiB, disk: ${disk}MiB }\nworkers: ${(round % 2) + 1}\n`,
  );
  const isQuiet = round % 3 === 1;
  const faults: string[] = [];
  const seen = { answers: 0, hits: 0 };

  const ask = async (port: number, method: string, count: number, next: () => number, life?: AbortSignal) => {
    await using client = await connectRaw(port);
    for (let i = 0; i < count; i++) {
      if (life?.aborted) return;
      const number = next();
      client.write(
        `${method} ${origin.url(`/${number}`)} HTTP/1.1\r\nHost: x\r\n${method === 'POST' ? 'Content-Length: 0\r\n' : ''}\r\n`,
      );
      const { status, headers, body } = await client.readAnswer(method);
      seen.answers++;
      if (method === 'POST') continue;
      const version = Number((headers['x-version'] ?? '').split('.')[1]);
      if (status !== 200) faults.push(`/${number}: ${status}`);
      else if (headers['x-version'] !== `${number}.${version}` || !body.equals(bodyOf(number, version))) {
        faults.push(
          `/${number}: head ${headers['x-version']}, body ${body.toString('latin1', 0, 12)}… of ${body.length}`,
        );
      }
      if (/; hit/.test(headers['cache-status'] ?? '')) seen.hits++;
    }
  };

  {
    await using companion = await spawnCompanion({ place });
    const life = new AbortController();
    const forever = async (once: (turn: number) => Promise<unknown>) => {
      for (let turn = 0; !life.signal.aborted; turn++) {
        await once(turn).catch(() => new Promise(resolve => setTimeout(resolve, 5)));
      }
    };
    let seed = round + 1;
    const random = () => {
      seed = (seed * 48_271) % 2_147_483_647;
      return seed % URLS;
    };
    const work = [1, 2, 3].map(() => forever(() => ask(companion.port, 'GET', 50, random, life.signal)));
    work.push(forever(() => ask(companion.port, 'POST', 3, random, life.signal)));
    // A moment that comes by what was done, then by the clock: a busy machine gets there later.
    const late = performance.now() + 10_000;
    const index = path.join(place.stateFolder, 'cache', 'index.db');
    while (!existsSync(index) && performance.now() < late) await new Promise(resolve => setTimeout(resolve, 5));
    const enough = seen.answers + ((round * 7919) % 400);
    while (seen.answers < enough && performance.now() < late) await new Promise(resolve => setTimeout(resolve, 10));
    await new Promise(resolve => setTimeout(resolve, (round * 31) % 60));
    if (isQuiet) {
      // The last before the kill is an unsafe request, and nothing else has the disk written: what it has made invalid must not come back. Its answer does
      // not wait for the thread that writes, which has it a moment later (docs/cache.md).
      life.abort();
      await Promise.all(work);
      await ask(companion.port, 'GET', 1, () => INVALID);
      await new Promise(resolve => setTimeout(resolve, 200));
      await ask(companion.port, 'POST', 1, () => INVALID);
      await new Promise(resolve => setTimeout(resolve, 50));
    }
    companion.running.child.kill('SIGKILL');
    life.abort();
    await companion.running.ended;
    await Promise.all(work);
  }
  seen.hits = 0;

  const posted = versions.get(INVALID);
  await using again = await spawnCompanion({ place });
  if (isQuiet) await ask(again.port, 'GET', 1, () => INVALID);
  if (isQuiet && versions.get(INVALID) === posted) faults.push('what a POST had made invalid came back');
  let number = 0;
  await ask(again.port, 'GET', URLS, () => number++ % URLS);
  again.running.child.kill('SIGTERM');
  const { code, err } = await again.running.ended;
  if (code !== 0) faults.push(`it ended with ${code}`);
  if (err.replace(/Stopping.*/, '').trim() !== '') faults.push(`the next start complains: ${err}`);
  faults.push(...(await faultsOf(path.join(place.stateFolder, 'cache'))));
  return { faults, hits: seen.hits };
}

/** What is wrong with a store that nobody uses. */
export async function faultsOf(folder: string): Promise<string[]> {
  const faults: string[] = [];
  if (existsSync(path.join(folder, 'index.db.set-aside'))) faults.push('the index was set aside');
  using index = new DatabaseSync(path.join(folder, 'index.db'));
  const { integrity_check: check } = index.prepare('PRAGMA integrity_check').get() as { integrity_check: string };
  if (check !== 'ok') faults.push(`the index: ${check}`);
  const counted = index.prepare('SELECT count(*) AS entries, coalesce(sum(size), 0) AS bytes FROM answers').get();
  const totals = index.prepare('SELECT entries, bytes FROM totals').get();
  if (JSON.stringify(counted) !== JSON.stringify(totals)) {
    faults.push(`it counts ${JSON.stringify(totals)} where there are ${JSON.stringify(counted)}`);
  }
  const wanted = new Set(
    index
      .prepare('SELECT DISTINCT lower(hex(file)) AS name FROM answers WHERE file IS NOT NULL')
      .all()
      .map(row => (row as { name: string }).name),
  );
  const there = new Set(
    readdirSync(path.join(folder, 'bodies'), { recursive: true, withFileTypes: true })
      .filter(entry => entry.isFile())
      .map(entry => entry.name),
  );
  for (const name of wanted) if (!there.has(name)) faults.push(`a row without its file ${name}`);
  return faults;
}
