// A taste of the bench on real sockets: the wall does what is measured, and a proxy that does something else is found out.
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { findProgram } from '../support/ensure-peers.ts';
import { measuresOf, type Way } from './measures.ts';
import { ask, LOAD_CORE, type OriginCounts, type OriginPorts, spawnPinned, parentOf, startProxy } from './proxies.ts';
import { subjects } from './subjects.ts';

const tools = ['taskset', 'prlimit', 'setpriv'];
const canRun = process.platform === 'linux' && availableParallelism() > 1 && tools.every(findProgram);
const NO_COUNTS: OriginCounts = { hits: 0, misses: 0, parent: 0, refused: 0, astray: 0, sunk: 0, tunnels: 0 };

/** The bench's origin with the wall before it. */
async function startWall(through: 'origin' | 'parent') {
  const folder = mkdtempSync(join(tmpdir(), 'detour-bench-test-'));
  chmodSync(folder, 0o755);
  const script = fileURLToPath(new URL('./origin.ts', import.meta.url));
  const child = spawnPinned(LOAD_CORE, process.execPath, [script], ['ignore', 'pipe', 'inherit']);
  const origin = JSON.parse(
    await new Promise<string>(resolve => child.stdout!.once('data', chunk => resolve(String(chunk)))),
  ) as OriginPorts;
  const wall = subjects({ companion: null, nodeOptions: [], withOwner: false }).find(one => one.name === 'wall')!;
  const proxy = await startProxy(wall, folder, origin, through === 'parent' ? parentOf('http', origin) : null);
  const way: Way = { ...proxy, keeps: true };
  return {
    way,
    origin,
    proxy,
    measures: new Map(measuresOf(origin, folder).map(one => [one.name, one])),
    counts: async () => JSON.parse(await ask(origin.counts, '')) as OriginCounts,
    get: (path: string) => ask(proxy.port, `GET ${proxy.targetOf(path)} HTTP/1.1\r\nHost: ${proxy.host}\r\n\r\n`),
    async [Symbol.asyncDispose]() {
      await proxy.stop();
      child.kill();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

describe.runIf(canRun)('the bench', () => {
  test('the wall answers a hit from memory and takes every miss to the origin', async () => {
    await using wall = await startWall('origin');
    const before = await wall.counts();
    for (const path of ['/hit', '/hit', '/hit', '/miss/a', '/miss/b']) {
      expect(await wall.get(path)).toMatch(/^HTTP\/1\.1 200 OK\r\n[^]*\r\n\r\nx{1024}$/);
    }
    const after = await wall.counts();
    expect([after.hits - before.hits, after.misses - before.misses, after.astray]).toEqual([1, 2, 0]);
    expect(wall.proxy.servedAfter).toBeGreaterThanOrEqual(wall.proxy.startedAfter);
    expect(wall.proxy.memory()).toBeGreaterThan(4 * 1024 * 1024);
  });

  test('behind a parent a request reaches only the parent, in absolute-form', async () => {
    await using wall = await startWall('parent');
    const before = await wall.counts();
    await wall.get('/miss/a');
    const after = await wall.counts();
    expect([after.parent - before.parent, after.misses, after.astray]).toEqual([1, 0, 0]);
  });

  test.each(['tunnel-down', 'tunnel-up', 'tunnel-setups', 'tunnel-latency', 'connect-latency'])(
    '%s goes through the wall, and the origin sees the tunnels',
    async name => {
      await using wall = await startWall('origin');
      const measure = wall.measures.get(name)!;
      const load = await measure.run(wall.way, 0.2);
      const reached = await wall.counts();
      expect(load).toMatchObject({ errors: 0 });
      expect(load.operations).toBeGreaterThan(0);
      expect(measure.fault(load, reached)).toBeNull();
      // A proxy that answers by itself.
      expect(measure.fault(load, NO_COUNTS)).toMatch(/^0 tunnels reached the origin/);
    },
  );

  test('CONNECT through the parent reaches the target, and what a refusal and the next proxy take is measured straight', async () => {
    await using wall = await startWall('origin');
    const { origin, measures } = wall;
    const parent: Way = { ...wall.way, tunnelTo: () => ({ port: origin.parent, ask: true, host: '127.0.0.2' }) };
    const setups = measures.get('parent-setups')!;
    const load = await setups.run(parent, 0.2);
    expect(load).toMatchObject({ errors: 0 });
    expect(setups.fault(load, await wall.counts())).toBeNull();
    const straight = await measures.get('fallback-connect')!.runDirect!(0.2);
    expect(straight).toMatchObject({ errors: 0 });
    expect(straight.p50).toBeGreaterThan(0);
    expect((await wall.counts()).refused).toBeGreaterThan(0);
  });

  test('the SOCKS5 parent is the origin that was asked for', async () => {
    await using wall = await startWall('origin');
    const { http, socks } = wall.origin;
    const greeting = '\x05\x01\x00';
    const connection = `\x05\x01\x00\x01\x7f\x00\x00\x02${String.fromCharCode(http >> 8, http & 255)}`;
    const before = await wall.counts();
    const answer = await ask(socks, Buffer.from(`${greeting}${connection}GET /miss/a HTTP/1.1\r\n\r\n`, 'latin1'));
    expect(answer.startsWith('\x05\x00\x05\x00\x00\x01')).toBe(true);
    expect(answer).toMatch(/HTTP\/1\.1 200 OK\r\n[^]*\r\n\r\nx{1024}$/);
    expect((await wall.counts()).misses - before.misses).toBe(1);
  });

  test('a fallback whose first proxy was not asked each time, or whose second was not, is a fault', () => {
    const measures = new Map(measuresOf({} as OriginPorts, '').map(one => [one.name, one]));
    const load = { operations: 1000, seconds: 1, errors: 0 };
    const { fault } = measures.get('fallback')!;
    expect(fault(load, { ...NO_COUNTS, refused: 1001, parent: 1000 })).toBeNull();
    expect(fault(load, { ...NO_COUNTS, refused: 1, parent: 1000 })).toMatch(/^1 refused requests/);
    expect(fault(load, { ...NO_COUNTS, refused: 1000, parent: 10 })).toMatch(/^10 requests/);
  });

  test('a hit that reached the origin, a miss that did not, and a short answer are faults', () => {
    const measures = new Map(measuresOf({} as OriginPorts, '').map(one => [one.name, one]));
    const load = { operations: 1000, seconds: 1, errors: 0, bytes: 1_200_000 };
    const miss = measures.get('miss-1k')!;
    expect(measures.get('hit-1k')!.fault(load, { ...NO_COUNTS, hits: 3 })).toBe('3 hits reached the origin');
    expect(miss.fault(load, { ...NO_COUNTS, misses: 990 })).toMatch(/^990 requests reached the origin/);
    expect(miss.fault(load, { ...NO_COUNTS, misses: 2000 })).toMatch(/^2000 requests/);
    expect(miss.fault(load, { ...NO_COUNTS, misses: 1020 })).toBeNull();
    expect(miss.fault({ ...load, bytes: 300_000 } as never, { ...NO_COUNTS, misses: 1000 })).toMatch(/300 bytes/);
  });
});
