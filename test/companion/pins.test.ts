// Pinned routes in a whole companion: set over the control link, kept in the state folder, gone with their chain.
import { chmodSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import type { Explanation } from '../../shared/control.ts';
import type { WaysState } from '../../shared/ways.ts';
import { startHop } from '../support/hop.ts';
import { startOrigin } from '../support/origin.ts';
import { connectRaw } from '../support/raw-client.ts';
import { makePlace, startTestCompanion, TEST_CONFIG, type TestCompanion, TestLink } from '../support/with-companion.ts';

async function get(running: TestCompanion, url: string): Promise<{ status: number; body: string }> {
  await using client = await connectRaw(running.port);
  client.write(`GET ${url} HTTP/1.1\r\nHost: ${new URL(url).host}\r\nAccept: text/html\r\nConnection: close\r\n\r\n`);
  const { status, body } = await client.readAnswer('GET');
  return { status, body: body.toString() };
}

const waysOf = async (link: TestLink) => ((await link.ask({ type: 'ways' })) as unknown as { ways: WaysState }).ways;
const pinOf = async (link: TestLink) => (await waysOf(link)).routes.find(({ name }) => name === 'work')!.pin;

describe('a pin', () => {
  test('holds at once, over a reload and a restart, in a file of its owner alone; it goes when its chain does', async () => {
    await using origin = await startOrigin((_, response) => response.end('hello'));
    await using good = await startHop({ kind: 'http', hosts: { 'origin.test': '127.0.0.1' } });
    await using bad = await startHop({ kind: 'socks5', refuse: 2 });
    const config = (chains: string) => `hops:
  good: http://127.0.0.1:${good.port}
  bad: socks5://127.0.0.1:${bad.port}
routes:
  work: ${chains}
sites:
  origin.test: { route: work, cache: off }
${TEST_CONFIG}`;
    using place = makePlace(config('[[good], [bad]]'));
    const url = `http://origin.test:${origin.port}/`;
    {
      await using running = await startTestCompanion(undefined, place);
      const { link } = await TestLink.pair(running.companion);
      await using _link = link;
      expect((await get(running, url)).body).toBe('hello');
      expect((await link.ask({ type: 'pin-route', route: 'work', chain: ['bad'], for: null })).type).toBe('done');
      expect(await pinOf(link)).toEqual({ chain: ['bad'], until: null });
      const pinned = await get(running, url);
      expect(pinned.status).toBeGreaterThanOrEqual(500);
      expect(pinned.body).toContain('pinned to bad until it is unpinned');
      const { explanation } = (await link.ask({ type: 'explain', url })) as unknown as { explanation: Explanation };
      expect(explanation.steps).toContain('Pinned: to bad until it is unpinned; the other chains are not tried.');
      writeFileSync(place.configFile, config('[[bad], [good]]'));
      await expect.poll(async () => (await waysOf(link)).routes[0]!.chains[0], { timeout: 10_000 }).toEqual(['bad']);
      expect((await get(running, url)).body).toContain('pinned to bad');
    }
    const file = `${place.stateFolder}/pins.json`;
    expect(JSON.parse(readFileSync(file, 'utf8')).pins).toEqual([{ route: 'work', chain: 'bad', until: null }]);
    if (process.platform !== 'win32') expect(statSync(file).mode & 0o777).toBe(0o600);
    {
      await using running = await startTestCompanion(undefined, place);
      const { link } = await TestLink.pair(running.companion);
      await using _link = link;
      expect(await pinOf(link)).toEqual({ chain: ['bad'], until: null });
      expect((await get(running, url)).body).toContain('pinned to bad');
      writeFileSync(place.configFile, config('[[good]]'));
      await expect.poll(() => pinOf(link), { timeout: 10_000 }).toBeNull();
      expect((await get(running, url)).body).toBe('hello');
    }
    expect(JSON.parse(readFileSync(file, 'utf8')).pins).toEqual([]);
  });

  test('a file of pins that cannot be read is told, and holds nothing', async () => {
    using place = makePlace();
    {
      await using _first = await startTestCompanion(undefined, place);
    }
    writeFileSync(`${place.stateFolder}/pins.json`, '{"version":1,"pins":[{"route":7}]}');
    chmodSync(`${place.stateFolder}/pins.json`, 0o600);
    await using running = await startTestCompanion(undefined, place);
    expect(running.said.join('\n')).toContain('pins.json cannot be read, so no route is pinned any more.');
  });
});
