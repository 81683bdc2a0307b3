// What a client of the control link may ask of the cache, and what only the terminal may.
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect, test } from 'vitest';
import { TOKEN_PREFIX } from '../../../shared/control.ts';
import { connectRaw } from '../../support/raw-client.ts';
import { cliToken, startTestCompanion, TEST_CONFIG, TestLink } from '../../support/with-companion.ts';

async function startAll() {
  const stack = new AsyncDisposableStack();
  const server = stack.use(
    createServer((_request, response) => response.setHeader('Cache-Control', 'max-age=60').end('x'.repeat(500))),
  );
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  const origin = (server.address() as AddressInfo).port;
  const running = stack.use(await startTestCompanion(`${TEST_CONFIG}sites:\n  origin.test: companion # ours\n`));
  const { link: paired } = await TestLink.pair(running.companion);
  stack.use(paired);
  const terminal = stack.use(await TestLink.open(running.port, TOKEN_PREFIX + cliToken(running)));
  return {
    running,
    paired,
    terminal,
    origin,
    async get(path: string, host = 'origin.test'): Promise<string> {
      await using client = await connectRaw(running.port);
      client.write(
        `GET http://${host}:${origin}${path} HTTP/1.1\r\nHost: ${host}:${origin}\r\nConnection: close\r\n\r\n`,
      );
      return /Cache-Status: detour; (.*)\r\n/.exec((await client.readAll()).toString('latin1'))![1]!;
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

test('a paired browser sees what the cache did, and clears one site', async () => {
  await using all = await startAll();
  for (const path of ['/a', '/a', '/b']) await all.get(path);
  await all.get('/a', 'other.test');
  expect(await all.paired.ask({ type: 'site', host: 'www.origin.test' })).toMatchObject({
    answer: { site: 'origin.test', decision: { cache: 'standard' }, counts: { requests: 3, lookups: 3, cached: 1 } },
  });
  expect(await all.paired.ask({ type: 'cache-stats' })).toMatchObject({
    type: 'cache-stats',
    stats: { memory: { entries: 3 }, counts: { lookups: 4, cached: 1 } },
  });
  expect(await all.paired.ask({ type: 'cache-purge', which: { site: 'origin.test' } })).toMatchObject({
    type: 'cache-changed',
    count: 2,
  });
  expect(await all.get('/a')).toMatch(/^fwd=uri-miss/);
  expect(await all.get('/a', 'other.test')).toMatch(/^hit/);
});

test('what is stored, and what is no single site, is for the terminal alone', async () => {
  await using all = await startAll();
  await all.get('/a');
  const url = `http://origin.test:${all.origin}/a`;
  const asks = [
    { type: 'cache-list', which: { all: true }, limit: 10 },
    { type: 'cache-show', url },
    { type: 'cache-purge', which: { all: true } },
    { type: 'cache-purge', which: { url } },
    { type: 'cache-purge', which: { prefix: url } },
    { type: 'cache-pin', which: { site: 'origin.test' }, pinned: true },
  ];
  for (const message of asks) {
    expect(await all.paired.ask(message), JSON.stringify(message)).toMatchObject({
      type: 'refused',
      message: 'This can be asked for in the terminal only.',
    });
  }
  expect(await all.get('/a')).toMatch(/^hit/);
  const list = { type: 'cache-list', answers: [{ url, site: 'origin.test', tier: 'memory', pinned: false }] };
  expect(await all.terminal.ask({ type: 'cache-list', which: { all: true }, limit: 10 })).toMatchObject({
    ...list,
    more: false,
  });
  expect(await all.terminal.ask({ type: 'cache-show', url })).toMatchObject(list);
  expect(await all.terminal.ask({ type: 'cache-purge', which: { all: true } })).toMatchObject({ count: 1 });
});

test('a message that is not understood is refused, and nothing is forgotten', async () => {
  await using all = await startAll();
  await all.get('/a');
  const wrong = [
    { type: 'cache-purge', which: {} },
    { type: 'cache-purge', which: { site: 'origin.test', all: true } },
    { type: 'cache-purge', which: { all: false } },
    { type: 'cache-purge', which: { site: 'x'.repeat(300) } },
    { type: 'cache-purge' },
    { type: 'cache-list', which: { all: true }, limit: 0 },
    { type: 'cache-list', which: { all: true }, limit: 100_000 },
    { type: 'cache-show', url: 7 },
    { type: 'cache-pin', which: { all: true } },
    { type: 'set-cache', site: 'origin.test', mode: 'always' },
  ];
  for (const message of wrong) {
    const reply = await all.terminal.ask(message);
    expect(reply, JSON.stringify(message)).toMatchObject({ type: 'refused' });
    expect((reply as { message: string }).message).toContain('not understood');
  }
  expect(await all.terminal.ask({ type: 'cache-purge', which: { site: 'no site' } })).toMatchObject({
    type: 'refused',
    message: '"no site" is not a site.',
  });
  expect(await all.get('/a')).toMatch(/^hit/);
});

test('the mode of a site is a change of its line, in force at once', async () => {
  await using all = await startAll();
  expect(await all.paired.ask({ type: 'set-cache', site: 'origin.test', mode: 'off' })).toMatchObject({ type: 'done' });
  expect(all.running.place.text).toContain('  origin.test: { route: companion, cache: off } # ours\n');
  expect(await all.get('/a')).toBe('fwd=bypass');
  const state = await all.paired.until(
    heard => heard.type === 'state' && heard.state.sites.some(({ cache }) => cache === 'off'),
  );
  expect(state).toMatchObject({ state: { sites: [{ site: 'origin.test', route: 'companion', cache: 'off' }] } });
  expect(await all.paired.ask({ type: 'set-cache', site: 'other.test', mode: 'off' })).toMatchObject({
    type: 'refused',
    message: 'The file steers no site "other.test": turn it on first.',
  });
});
