// Lists that are fetched: by a route, kept over failures and restarts, told by `detour lists`.
import { readdirSync, statSync } from 'node:fs';
import path from 'node:path';
import { expect, test } from 'vitest';
import type { ListInfo } from '../../shared/control.ts';
import { TOKEN_PREFIX } from '../../shared/control.ts';
import { startHop } from '../support/hop.ts';
import { startOrigin } from '../support/origin.ts';
import {
  cliToken,
  makePlace,
  startTestCompanion,
  TEST_CONFIG,
  type TestCompanion,
  TestLink,
} from '../support/with-companion.ts';

const configOf = (port: number, more = 'block: true', above = '') =>
  `${TEST_CONFIG}${above}lists:\n  - { url: "http://origin.test:${port}/list.txt", ${more} }\n`;
const linkTo = (running: TestCompanion) => TestLink.open(running.port, TOKEN_PREFIX + cliToken(running));

async function refreshed(link: TestLink): Promise<readonly ListInfo[]> {
  const reply = await link.ask({ type: 'lists', refresh: true });
  if (reply.type !== 'lists') throw new Error(JSON.stringify(reply));
  return reply.lists;
}

async function routeOf(link: TestLink, url: string): Promise<string> {
  const reply = await link.ask({ type: 'explain', url });
  if (reply.type !== 'explained') throw new Error(JSON.stringify(reply));
  const { decision } = reply.explanation;
  return decision.steered ? decision.route : 'direct';
}

test('a list is fetched, asked for again with its validator, and in force in its newest form', async () => {
  let text = 'ads.test\n*.bad\n';
  await using origin = await startOrigin((request, response) => {
    const etag = `"${text.length}"`;
    if (request.headers['if-none-match'] === etag) response.writeHead(304, { ETag: etag }).end();
    else response.writeHead(200, { ETag: etag }).end(text);
  });
  await using running = await startTestCompanion(configOf(origin.port));
  await using link = await linkTo(running);
  expect(await refreshed(link)).toMatchObject([
    { format: 'hosts', does: 'block', entries: 1, unread: 1, fetched: true, checkedAt: expect.any(Number) },
  ]);
  expect(await routeOf(link, 'http://x.ads.test/')).toBe('block');
  expect(running.said.join('\n')).toContain('/list.txt:2: ');

  await refreshed(link);
  expect(origin.requests.at(-1)!.headers['if-none-match']).toBe('"15"');
  expect(await routeOf(link, 'http://ads.test/')).toBe('block');

  text = 'other.test\nmore.test\n';
  expect(await refreshed(link)).toMatchObject([{ entries: 2, unread: 0 }]);
  expect(await routeOf(link, 'http://other.test/')).toBe('block');
  expect(await routeOf(link, 'http://ads.test/')).toBe('direct');
  const folder = path.join(running.place.stateFolder, 'lists');
  const files = readdirSync(folder);
  expect(files).toHaveLength(2);
  for (const file of files) expect(statSync(path.join(folder, file)).mode & 0o777).toBe(0o600);
});

test('a broken, an empty and no answer keep the list as it was, with a warning; and so does a start without the server', async () => {
  let answer: [status: number, text: string] = [200, 'ads.test\n'];
  const origin = await startOrigin((_, response) => response.writeHead(answer[0]).end(answer[1]));
  using place = makePlace(configOf(origin.port));
  {
    await using running = await startTestCompanion(undefined, place);
    await using link = await linkTo(running);
    await refreshed(link);
    expect(await routeOf(link, 'http://ads.test/')).toBe('block');
    for (const [broken, words] of [
      [[200, '<html>Log in</html>'], 'web page'],
      [[200, ''], 'no entries'],
      [[200, '* * *\n'], 'what came'],
      [[503, 'ads.test'], 'answered with 503'],
      [[302, 'nowhere'], 'answered with 302'],
    ] as const) {
      answer = [...broken] as typeof answer;
      expect((await refreshed(link))[0]!.error).toContain(words);
      expect(await routeOf(link, 'http://ads.test/')).toBe('block');
    }
    expect(running.said.join('\n')).toContain('stays in force');
  }
  await origin[Symbol.asyncDispose]();
  await using again = await startTestCompanion(undefined, place);
  await using link = await linkTo(again);
  expect(await routeOf(link, 'http://ads.test/')).toBe('block');
  expect((await refreshed(link))[0]).toMatchObject({ entries: 1, error: expect.stringContaining('cannot be fetched') });
  expect(await routeOf(link, 'http://ads.test/')).toBe('block');
});

test('it is fetched by the route that it names, and by no other where that is closed and down', async () => {
  await using origin = await startOrigin((_, response) => response.end('||ads.test\n@@||good.ads.test\n'));
  await using hop = await startHop({ kind: 'socks5', hosts: { 'origin.test': '127.0.0.1' } });
  const above = (port: number) => `hops:\n  away: socks5://127.0.0.1:${port}\nroutes:\n  far: [[away]]\n`;
  const list = 'via: far, format: autoproxy, route: far';
  {
    await using running = await startTestCompanion(configOf(origin.port, list, above(1)));
    await using link = await linkTo(running);
    expect((await refreshed(link))[0]).toMatchObject({ entries: 0, error: expect.stringContaining('away') });
    expect(origin.requests).toHaveLength(0);
  }
  await using running = await startTestCompanion(configOf(origin.port, list, above(hop.port)));
  await using link = await linkTo(running);
  const [fetched] = await refreshed(link);
  expect(fetched).toMatchObject({ entries: 2 });
  expect(fetched!.error).toBeUndefined();
  expect(origin.requests.length).toBeGreaterThan(0);
  expect(await routeOf(link, 'https://x.ads.test/')).toBe('far');
  expect(await routeOf(link, 'https://good.ads.test/')).toBe('direct');
});
