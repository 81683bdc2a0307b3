// `detour cache` as a person types it: what is stored, forgotten and kept, by one worker and by two; good and bad input.
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, expect, test } from 'vitest';
import type { CacheStats, StoredAnswer } from '../../../shared/control.ts';
import { connectRaw } from '../../support/raw-client.ts';
import { makePlace, type Running, runDetour, spawnDetour, TEST_CONFIG } from '../../support/with-companion.ts';

/** An origin that counts what it is asked for: `/a…` is fresh for a minute, `/old` for a second, and has an ETag, `/vary` is chosen by Accept-Language. */
async function startOrigin() {
  const asked: string[] = [];
  const server = createServer((request, response) => {
    asked.push(`${request.headers.host} ${request.url}`);
    response.setHeader('ETag', '"one"');
    response.setHeader('Cache-Control', request.url === '/old' ? 'max-age=1' : 'max-age=60');
    if (request.url === '/vary') response.setHeader('Vary', 'Accept-Language');
    response.end('x'.repeat(1_000));
  });
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  return Object.assign(server, { asked, port: (server.address() as AddressInfo).port });
}

/** A companion of `workers` processes with an origin behind it. */
async function startAll(more = '') {
  const stack = new AsyncDisposableStack();
  const place = stack.use(makePlace(`${TEST_CONFIG}${more}`));
  const origin = stack.use(await startOrigin());
  const launch = () => stack.use(spawnDetour(['start', '--config', place.configFile, '--port', '0'], place));
  const portOf = async (one: Running) => Number((await one.printed(/listens on 127\.0\.0\.1:(\d+)/))[1]);
  let running = launch();
  let port = await portOf(running);
  const detour = (...args: string[]) => runDetour([...args, '--config', place.configFile], place);
  return {
    place,
    origin,
    detour,
    /** Kills it without a word, and starts it again. */
    async crash(): Promise<void> {
      running.child.kill('SIGKILL');
      await running.ended;
      running = launch();
      port = await portOf(running);
    },
    at: (path: string, host = 'origin.test') => `http://${host}:${origin.port}${path}`,
    /** Asks on a connection of its own; gives back the Cache-Status. */
    async get(path: string, host = 'origin.test', fields = ''): Promise<string> {
      await using client = await connectRaw(port);
      const authority = `${host}:${origin.port}`;
      client.write(
        `GET http://${authority}${path} HTTP/1.1\r\nHost: ${authority}\r\nUpgrade-Insecure-Requests: 1\r\n${fields}Connection: close\r\n\r\n`,
      );
      return /Cache-Status: detour; (.*)\r\n/.exec((await client.readAll()).toString('latin1'))![1]!;
    },
    json: async <T>(...args: string[]): Promise<T> => {
      const { code, out, err } = await detour(...args, '--json');
      expect([code, err]).toEqual([0, '']);
      return JSON.parse(out) as T;
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

describe('a companion with something stored', () => {
  test('tells what it holds and has saved, lists and shows it', async () => {
    await using all = await startAll();
    for (const path of ['/a', '/a', '/a?b', '/old', '/vary']) await all.get(path);
    await all.get('/a', 'other.test');

    const stats = await all.json<CacheStats>('cache', 'stats');
    expect(stats.memory).toMatchObject({ entries: 5, limit: 64 * 1024 * 1024 });
    expect(stats.memory.bytes).toBeGreaterThan(5_000);
    expect(stats.counts).toMatchObject({ requests: 6, lookups: 6, cached: 1 });
    expect(stats.counts.bytesSaved).toBeGreaterThan(1_000);
    expect(stats.counts.bytesSaved).toBeLessThan(1_500);
    const { out } = await all.detour('cache', 'stats');
    expect(out).toMatch(/^Requests +6 that it could answer; 1 it did \(17 %\)$/m);
    expect(out).toMatch(/^Saved +1\.\d kB of \d\.\d kB received$/m);
    expect(out).toMatch(/^Memory +5 answers, \d+(?:\.\d)? kB of 67 MB$/m);

    const urls = async (...args: string[]) =>
      (await all.detour('cache', 'ls', ...args)).out.match(/http:\S+/g)?.map(url => url.replace(/:\d+\//, '/')) ?? [];
    expect(await urls()).toEqual([
      'http://origin.test/a',
      'http://origin.test/a?b',
      'http://origin.test/old',
      'http://origin.test/vary',
      'http://other.test/a',
    ]);
    expect(await urls('other.test')).toEqual(['http://other.test/a']);
    expect(await urls(all.at('/a'))).toEqual(['http://origin.test/a', 'http://origin.test/a?b']);
    expect(await urls('nobody.test')).toEqual([]);
    const few = await all.detour('cache', 'ls', '--limit', '2');
    expect(few.out).toContain('There is more');
    expect(few.out.match(/http:/g)).toHaveLength(2);

    const shown = await all.detour('cache', 'show', `origin.test:${all.origin.port}/a`);
    expect(shown.out).toMatch(/^ {2}200, 1\.0 kB, in memory$/m);
    expect(shown.out).toMatch(/age \d+ s, fresh for another \d+ s$/m);
    expect(shown.out).toContain('By the route companion, for pages of origin.test');
    expect(shown.out).toContain('Used as it is');
    expect(shown.out).toContain('ETag: "one"');
    await new Promise(resolve => setTimeout(resolve, 1_100));
    expect((await all.detour('cache', 'show', all.at('/old'))).out).toMatch(/stale: asked for with its ETag/);
    expect(await all.json<StoredAnswer>('cache', 'show', all.at('/vary'))).toMatchObject({
      status: 200,
      bytes: 1_000,
      vary: [['accept-language', null]],
      pinned: false,
      verdict: expect.stringMatching(/^Used as it is, for it is fresh\. \(hit; ttl=\d+\)$/),
    });
    expect(await all.detour('cache', 'show', all.at('/none'))).toMatchObject({
      code: 0,
      out: 'Nothing is stored of it.\n',
    });
  });

  test('forgets what it is told to, and only that', async () => {
    await using all = await startAll();
    const fill = async () => {
      for (const path of ['/a', '/a/b', '/c']) await all.get(path);
      await all.get('/a', 'other.test');
    };
    await fill();
    expect(await all.get('/c')).toMatch(/^hit/);
    expect((await all.detour('cache', 'purge', all.at('/c'))).out).toBe('1 answer forgotten.\n');
    expect(await all.get('/c')).toMatch(/^fwd=uri-miss/);
    expect(await all.json('cache', 'purge', '--prefix', all.at('/a'))).toEqual({ count: 2 });
    expect(await all.get('/c')).toMatch(/^hit/);
    expect(await all.detour('cache', 'purge', '--prefix', 'http://origin')).toMatchObject({
      code: 0,
      out: expect.stringContaining('The host must be there whole'),
    });
    await fill();
    expect(await all.json('cache', 'purge', '--site', 'www.origin.test')).toEqual({ count: 3 });
    expect(await all.get('/a', 'other.test')).toMatch(/^hit/);
    await fill();
    expect(await all.json('cache', 'purge', '--all')).toEqual({ count: 4 });
    expect((await all.detour('cache', 'purge', '--all')).out).toBe('There was nothing to do.\n');
    expect((await all.json<CacheStats>('cache', 'stats')).memory).toMatchObject({ entries: 0, bytes: 0 });
  });

  test('keeps what is pinned, and says so', async () => {
    await using all = await startAll();
    await all.get('/a');
    await all.get('/c');
    await all.get('/a', 'other.test');
    expect((await all.detour('cache', 'pin', all.at('/a'))).out).toBe('1 answer kept for offline use.\n');
    expect((await all.detour('cache', 'ls')).out).toMatch(/\/a \(memory, pinned\)/);
    expect(await all.get('/a')).toMatch(/^hit/);
    expect(await all.json('cache', 'pin', '--site', 'origin.test')).toEqual({ count: 1 });
    expect((await all.json<StoredAnswer>('cache', 'show', all.at('/c'))).pinned).toBe(true);
    expect((await all.json<StoredAnswer>('cache', 'show', all.at('/a', 'other.test'))).pinned).toBe(false);
    expect((await all.detour('cache', 'unpin', '--site', 'origin.test')).out).toBe('2 answers no longer kept.\n');
    expect(await all.json('cache', 'unpin', all.at('/c'))).toEqual({ count: 0 });
    expect(await all.detour('cache', 'unpin', all.at('/c'))).toMatchObject({
      code: 0,
      out: 'It was not kept for offline use.\n',
    });
    const nothing = { code: 1, out: 'Nothing is stored of it.\n' };
    expect(await all.detour('cache', 'pin', all.at('/none'))).toMatchObject(nothing);
    expect(await all.detour('cache', 'pin', '--site', 'nobody.test')).toMatchObject(nothing);
    expect(await all.detour('cache', 'pin', all.at('/none'), '--json')).toMatchObject({
      code: 1,
      out: '{"count":0}\n',
    });

    // It is the page that is kept: the answer that takes the place of the pinned one is pinned, too.
    await all.get('/old');
    await all.detour('cache', 'pin', all.at('/old'));
    expect(await all.detour('cache', 'pin', all.at('/old'))).toMatchObject({
      code: 0,
      out: 'It is kept for offline use already.\n',
    });
    const before = all.origin.asked.length;
    await new Promise(resolve => setTimeout(resolve, 1_100));
    expect(await all.get('/old')).toMatch(/^fwd=stale/);
    expect(all.origin.asked.length).toBe(before + 1);
    const old = await all.json<StoredAnswer>('cache', 'show', all.at('/old'));
    expect(old).toMatchObject({ pinned: true, age: 0 });
  });

  test('what is told to be forgotten or kept is so after a crash', async () => {
    await using all = await startAll();
    for (const path of ['/a', '/b', '/c', '/d']) await all.get(path);
    await all.get('/a', 'other.test');
    expect(await all.json('cache', 'pin', all.at('/d'))).toEqual({ count: 1 });
    expect(await all.json('cache', 'purge', all.at('/a'))).toEqual({ count: 1 });
    await all.crash();
    const stored = async () =>
      (await all.detour('cache', 'ls')).out
        .match(/[ao]\w+\.test:\d+\/\w \([^)]*\)/g)
        ?.map(one => one.replace(/:\d+/, ''));
    expect(await stored()).toEqual([
      'origin.test/b (disk)',
      'origin.test/c (disk)',
      'origin.test/d (disk, pinned)',
      'other.test/a (disk)',
    ]);
    expect(await all.json<CacheStats>('cache', 'stats')).toMatchObject({
      memory: { entries: 0 },
      disk: { entries: 4, limit: 1024 ** 3 },
      counts: { requests: 0 },
    });
    expect(await all.get('/b')).toMatch(/^hit/);
    expect(await all.json('cache', 'purge', '--site', 'origin.test')).toEqual({ count: 3 });
    await all.crash();
    expect(await stored()).toEqual(['other.test/a (disk)']);
    expect(await all.json('cache', 'purge', '--all')).toEqual({ count: 1 });
    await all.crash();
    expect(await all.detour('cache', 'ls')).toMatchObject({ code: 0, out: 'Nothing is stored.\n' });
  });

  test('tells of a site with a mode of its own what the mode makes of it', async () => {
    await using all = await startAll(
      'sites:\n  origin.test: { route: companion, cache: aggressive }\n  other.test: { route: companion, cache: off }\n',
    );
    await all.get('/old');
    await new Promise(resolve => setTimeout(resolve, 1_100));
    const old = await all.json<StoredAnswer>('cache', 'show', all.at('/old'));
    expect(old.verdict).toMatch(/^Used as it is, for it is fresh\. \(hit; ttl=359\d\)$/);
    expect(old.freshFor).toBeGreaterThan(3_500);
    expect(await all.get('/old')).toMatch(/^hit; ttl=359\d/);
    expect(await all.get('/a', 'other.test')).toBe('fwd=bypass');
    expect((await all.json<CacheStats>('cache', 'stats')).counts).toMatchObject({ requests: 3, lookups: 2, cached: 1 });
  });

  test('with two workers both are asked, and both forget', async () => {
    await using all = await startAll('workers: 2\ncache: { disk: 0 }\n');
    // A connection goes to either; after so many both have it.
    for (let i = 0; i < 24; i++) await all.get('/a');
    const { memory, counts } = await all.json<CacheStats>('cache', 'stats');
    expect(all.origin.asked.length).toBeGreaterThan(0);
    expect(memory.entries).toBe(all.origin.asked.length);
    expect(counts).toMatchObject({ lookups: 24, cached: 24 - all.origin.asked.length });
    expect((await all.detour('cache', 'ls')).out.match(/http:/g)).toHaveLength(1);
    expect(await all.json('cache', 'purge', '--site', 'origin.test')).toEqual({ count: memory.entries });
    const before = all.origin.asked.length;
    await all.get('/a');
    expect(all.origin.asked.length).toBe(before + 1);
    expect((await all.json<CacheStats>('cache', 'stats')).memory.entries).toBe(1);
  });

  test('says what cannot be stored, and exits with 1', async () => {
    await using all = await startAll();
    for (const [args, complaint] of [
      [['show', 'https://a.test/'], 'never stored: only plain http is'],
      [['show', 'a b'], '"a b" is not a URL'],
      [['purge', '--site', 'not a site'], '"not a site" is not a site'],
      [['ls', 'http://[::1/'], 'is not a URL'],
      [['pin', 'http://a.test:99999/'], 'is not a URL'],
    ] as const) {
      const { code, err } = await all.detour('cache', ...args);
      expect([code, err.trim().split('\n').length], args.join(' ')).toEqual([1, 1]);
      expect(err).toContain(complaint);
    }
  });
});

test.each([
  [['cache'], 'needs one of stats, ls, show, purge, pin, unpin'],
  [['cache', 'empty'], 'there is no `detour cache empty`'],
  [['cache', 'toString'], 'there is no `detour cache toString`'],
  [['cache', 'stats', 'a.test'], 'does not take "a.test"'],
  [['cache', 'ls', 'a.test', 'b.test'], 'does not take "b.test"'],
  [['cache', 'ls', '--limit', '0'], '--limit 0: a number from 1 to 1000'],
  [['cache', 'ls', '--limit', 'many'], '--limit many'],
  [['cache', 'ls', '--site', 'a.test'], '--site goes with cache purge, pin and unpin'],
  [['cache', 'show'], 'needs a URL'],
  [['cache', 'purge'], 'needs a URL, or one of --prefix, --site and --all'],
  [['cache', 'purge', 'http://a.test/', '--all'], 'needs a URL, or one of --prefix, --site and --all'],
  [['cache', 'purge', '--site', 'a.test', '--prefix', 'http://a.test'], 'needs a URL, or one of'],
  [['cache', 'purge', '--limit', '1'], '--limit goes with cache ls'],
  [['cache', 'pin', '--all'], '--prefix and --all go with cache purge'],
  [['cache', 'pin'], 'needs a URL, or --site'],
  [['log', '--all'], '--prefix, --site, --all and --limit go with cache'],
  [['clients', '--json'], '--json goes with log, cache, route, hop and lists'],
  [['cache', 'stats', '-n', '3'], '-n goes with log'],
])('detour %j is refused before anything is asked', async (args, complaint) => {
  using place = makePlace();
  const { code, err } = await runDetour([...args, '--config', place.configFile], place);
  expect(err).toContain(complaint);
  expect(err.trim().split('\n')).toHaveLength(1);
  expect(code).toBe(1);
});

test('every command about the cache needs a companion that runs: exit 3', async () => {
  using place = makePlace();
  const commands = [['stats'], ['ls'], ['show', 'a.test'], ['purge', '--all'], ['pin', 'a.test'], ['unpin', 'a.test']];
  const ends = await Promise.all(
    commands.map(args => runDetour(['cache', ...args, '--config', place.configFile], place)),
  );
  for (const { code, err } of ends) expect([code, err.includes('detour start')]).toEqual([3, true]);
});
