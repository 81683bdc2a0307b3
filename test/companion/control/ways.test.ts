// Hops and routes over the control link: told without secrets, tested, and changed in the file.
import { readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, expect, test } from 'vitest';
import type { WaysState, WaysTest } from '../../../shared/ways.ts';
import { startHop } from '../../support/hop.ts';
import { connectRaw } from '../../support/raw-client.ts';
import { startTestCompanion, TEST_CONFIG, TestLink } from '../../support/with-companion.ts';

const DENIED = 'HTTP/1.1 403 Forbidden\r\nX-Squid-Error: ERR_ACCESS_DENIED 0\r\nContent-Length: 0\r\n\r\n';

/** An origin that says who asks, at /ip; and a companion with two hops, of which `bad` refuses. */
async function startAll() {
  const stack = new AsyncDisposableStack();
  const asked: string[] = [];
  const server = stack.use(
    createServer((request, response) => {
      asked.push(`${request.method} ${request.url}`);
      response.setHeader('Content-Type', 'text/plain');
      if (request.url === '/ip') response.end('192.0.2.44\n');
      else response.writeHead(404).end('no');
    }),
  );
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  const origin = (server.address() as AddressInfo).port;
  const good = stack.use(
    await startHop({
      kind: 'socks5',
      credentials: { username: 'me', password: 's3cret' },
      hosts: { 'origin.test': '127.0.0.1' },
    }),
  );
  const bad = stack.use(await startHop({ kind: 'http', refuse: DENIED }));
  const running = stack.use(
    await startTestCompanion(`hops:
  good: socks5://me:s3cret@127.0.0.1:${good.port} # mine
  bad: { kind: http, host: 127.0.0.1, port: ${bad.port} }
routes:
  work: [[bad], [good]]
  open: { chains: [[good]], else: companion }
sites:
  origin.test: work
${TEST_CONFIG}`),
  );
  const { link } = await TestLink.pair(running.companion);
  stack.use(link);
  return {
    running,
    link,
    asked,
    good,
    bad,
    url: `http://origin.test:${origin}/ip`,
    text: () => running.place.text,
    ways: async () => ((await link.ask({ type: 'ways' })) as unknown as { ways: WaysState }).ways,
    test: async (message: { type: string; [more: string]: unknown }) => {
      const reply = await link.ask(message);
      if (reply.type !== 'tested') throw new Error(JSON.stringify(reply));
      return reply.test as WaysTest;
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

describe('a paired client', () => {
  test('is told hops and routes, and no password', async () => {
    await using all = await startAll();
    const ways = await all.ways();
    expect(ways.hops).toMatchObject([
      {
        name: 'good',
        form: { kind: 'socks5', host: '127.0.0.1', username: 'me' },
        password: 'file',
        usedBy: ['work', 'open'],
      },
      { name: 'bad', form: { kind: 'http' }, password: null, usedBy: ['work'] },
    ]);
    expect(ways.routes).toMatchObject([
      {
        name: 'work',
        form: { chains: [['bad'], ['good']] },
        chains: [['bad'], ['good']],
        usedBy: ['sites.origin.test'],
      },
      { name: 'open', form: { chains: [['good']], else: 'companion' }, chains: [['good'], []], usedBy: [] },
    ]);
    expect(ways.kinds).toContain('socks5');
    expect(JSON.stringify(all.link.heard)).not.toContain('s3cret');
  });

  test('tests a route chain by chain: hops, times, status and the exit address', async () => {
    await using all = await startAll();
    const found = await all.test({ type: 'test-route', route: 'work', url: all.url });
    expect(found.url).toBe(all.url);
    expect(found.chains).toMatchObject([
      { chain: ['bad'], outcome: 'hop_refused' },
      {
        chain: ['good'],
        outcome: 'ok',
        status: 200,
        exit: '192.0.2.44',
        hops: [{ hop: 'good' }, { hop: null, at: new URL(all.url).host }],
      },
    ]);
    for (const { took, hops } of found.chains) {
      expect(took).toBeGreaterThan(0);
      expect(hops.reduce((sum, hop) => sum + hop.took, 0)).toBeLessThanOrEqual(took + 1);
    }
    expect(all.asked).toEqual(['GET /ip']);
    const one = await all.test({ type: 'test-route', route: 'work', url: all.url, chain: ['good'] });
    expect(one.chains).toHaveLength(1);
    const direct = await all.test({ type: 'test-route', route: 'companion', url: all.url });
    expect(direct.chains).toMatchObject([{ chain: [], outcome: 'ok', exit: '192.0.2.44' }]);
    // A check URL says its own no, too.
    const missing = await all.test({ type: 'test-route', route: 'companion', url: all.url.replace('/ip', '/no') });
    expect(missing.chains).toMatchObject([{ outcome: 'ok', status: 404 }]);
    expect(missing.chains[0]!.exit).toBeUndefined();
  });

  test('without a check URL has the chain built, and nobody beyond it asked', async () => {
    await using all = await startAll();
    const found = await all.test({ type: 'test-hop', hop: 'good' });
    expect(found).toMatchObject({ url: null, chains: [{ chain: ['good'], outcome: 'ok', hops: [{ hop: 'good' }] }] });
    expect(found.chains[0]!.status).toBeUndefined();
    expect(all.good.requests).toEqual([]);
    expect(all.asked).toEqual([]);
    expect(await all.link.ask({ type: 'test-route', route: 'companion' })).toMatchObject({
      type: 'refused',
      message: expect.stringContaining('check URL'),
    });
  });

  test('tests a hop by its URL before it is in the file', async () => {
    await using all = await startAll();
    const url = `socks5://me:s3cret@127.0.0.1:${all.good.port}`;
    const found = await all.test({ type: 'test-hop', hop: url, url: all.url });
    expect(found.chains).toMatchObject([
      { outcome: 'ok', status: 200, chain: [`socks5://127.0.0.1:${all.good.port}`] },
    ]);
    const wrong = await all.test({ type: 'test-hop', hop: url.replace('s3cret', 'wrong'), url: all.url });
    expect(wrong.chains).toMatchObject([{ outcome: 'hop_authentication_failed', stage: 'greeting' }]);
    expect(JSON.stringify([found, wrong])).not.toMatch(/s3cret|wrong/);
    for (const [hop, said] of [
      ['nobody', 'no hop "nobody"'],
      ['smtp://a:1', 'not a kind of hop'],
    ])
      expect(await all.link.ask({ type: 'test-hop', hop: hop! })).toMatchObject({
        type: 'refused',
        message: expect.stringContaining(said!),
      });
    for (const bad of ['ftp://x/', 'http://u:p@x/', 'http://[bad'])
      expect(await all.link.ask({ type: 'test-hop', hop: 'good', url: bad })).toMatchObject({
        type: 'refused',
        problems: [{ field: 'url' }],
      });
  });

  test('speaks TLS to an https check URL, and says so when the other end does not', async () => {
    await using all = await startAll();
    const found = await all.test({ type: 'test-hop', hop: 'good', url: all.url.replace('http:', 'https:') });
    expect(found.chains[0]).toMatchObject({
      stage: 'response',
      outcome: expect.stringMatching(/^tls_|connection_terminated/),
    });
  });

  test('is told what cannot be tested, pinned or forgotten', async () => {
    await using all = await startAll();
    for (const [message, said] of [
      [{ type: 'test-route', route: 'nobody' }, 'There is no route "nobody"'],
      [{ type: 'test-route', route: 'work', chain: ['good', 'bad'] }, 'has no chain good > bad. It has bad, good.'],
      [{ type: 'pin-route', route: 'work', chain: ['none'], for: 60 }, 'has no chain none'],
      [{ type: 'unpin-route', route: 'work' }, 'Nothing is pinned on the route "work"'],
      [{ type: 'set-site-way', site: 'nobody.test', way: null }, 'Nothing is remembered of nobody.test'],
    ] as const)
      expect(await all.link.ask(message)).toMatchObject({ type: 'refused', message: expect.stringContaining(said) });
    expect(await all.link.ask({ type: 'site-ways' })).toMatchObject({ type: 'site-ways', sites: [] });
  });

  test('learns nothing and remembers nothing by a test', async () => {
    await using all = await startAll();
    await all.link.ask({ type: 'follow', recent: 0 });
    await all.test({ type: 'test-route', route: 'work', url: all.url });
    await using client = await connectRaw(all.running.port);
    const { host } = new URL(all.url);
    client.write(`GET ${all.url} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`);
    await client.readAll();
    const event = await all.link.until(message => message.type === 'exchange');
    // Were the refusal remembered, `good` would have come first.
    expect(event).toMatchObject({ exchange: { attempts: [{ chain: ['bad'] }, { chain: ['good'], outcome: 'ok' }] } });
    expect(all.link.heard.filter(({ type }) => type === 'exchange')).toHaveLength(1);
    const { hops } = await all.ways();
    expect(hops[0]).toMatchObject({
      name: 'good',
      health: [{ behind: [], state: 'up', history: [{ outcome: 'ok' }] }],
    });
  });
});

test('a chain is pinned, shown as pinned and let go again', async () => {
  await using all = await startAll();
  expect(await all.link.ask({ type: 'pin-route', route: 'work', chain: ['good'], for: 3_600 })).toMatchObject({
    type: 'done',
  });
  const [work] = (await all.ways()).routes;
  expect(work!.pin).toMatchObject({ chain: ['good'] });
  expect(work!.pin!.until).toBeGreaterThan(Date.now());
  // A test goes past pins.
  const found = await all.test({ type: 'test-route', route: 'work', url: all.url });
  expect(found.chains.map(({ chain }) => chain)).toEqual([['bad'], ['good']]);
  expect(await all.link.ask({ type: 'unpin-route', route: 'work' })).toMatchObject({ type: 'done' });
  expect((await all.ways()).routes[0]!.pin).toBeNull();
});

test('what an auto route knows of a site is set, listed and forgotten', async () => {
  await using all = await startAll();
  const route = { chains: [['good']], pick: 'auto' };
  expect(await all.link.ask({ type: 'set-route', name: 'smart', route, isNew: true })).toMatchObject({ type: 'done' });
  const way = (site: string, wanted: string | null) => all.link.ask({ type: 'set-site-way', site, way: wanted });
  expect(await way('blocked.test', 'chains')).toMatchObject({ type: 'done' });
  expect(await all.link.ask({ type: 'site-ways' })).toMatchObject({
    sites: [{ site: 'blocked.test', route: 'smart', way: 'chains', byHand: true }],
  });
  expect(await way('blocked.test', null)).toMatchObject({ type: 'done' });
  expect(await all.link.ask({ type: 'site-ways' })).toMatchObject({ sites: [] });
});

describe('an edit', () => {
  test('is in force when it is done, and the file keeps its comments', async () => {
    await using all = await startAll();
    const { revision } = await all.ways();
    expect(
      await all.link.ask({ type: 'set-hop', name: 'third', hop: 'http://127.0.0.1:3128', isNew: true, revision }),
    ).toMatchObject({ type: 'done' });
    expect(all.text()).toContain('# mine\n');
    const form = { chains: [['good'], ['third', 'bad']], else: 'companion' };
    expect(await all.link.ask({ type: 'set-route', name: 'work', route: form })).toMatchObject({ type: 'done' });
    const after = await all.ways();
    expect(after.revision).toBeGreaterThan(revision);
    expect(after.routes[0]).toMatchObject({ name: 'work', form, chains: [['good'], ['third', 'bad'], []] });
    expect(await all.link.ask({ type: 'rename-hop', name: 'third', to: '3rd' })).toMatchObject({ type: 'done' });
    expect(await all.link.ask({ type: 'remove-route', name: 'open' })).toMatchObject({ type: 'done' });
    expect(await all.link.ask({ type: 'rename-route', name: 'work', to: 'job' })).toMatchObject({ type: 'done' });
    expect(all.text()).toContain('origin.test: job');
    expect((await all.ways()).routes).toMatchObject([{ name: 'job', usedBy: ['sites.origin.test'] }]);
  });

  test('of what is still used, or that makes no sense, is refused with a sentence at its field', async () => {
    await using all = await startAll();
    const before = all.text();
    const refused = async (message: { type: string; [more: string]: unknown }) => {
      const reply = await all.link.ask(message);
      expect(reply.type).toBe('refused');
      return reply as unknown as { message: string; problems?: { field: string; message: string }[] };
    };
    expect((await refused({ type: 'remove-hop', name: 'good' })).message).toContain('is in the routes "work", "open"');
    expect((await refused({ type: 'remove-route', name: 'work' })).message).toContain('sites.origin.test');
    const port = await refused({ type: 'set-hop', name: 'x', hop: { kind: 'http', host: 'a', port: 0 } });
    expect(port.problems).toMatchObject([{ field: 'port' }]);
    const chain = await refused({ type: 'set-route', name: 'x', route: { chains: [['none']] } });
    expect(chain.problems![0]!.message).toContain('none');
    // What the rooms find wrong is refused, too: a hop that leads back here.
    const own = await refused({ type: 'set-hop', name: 'x', hop: `http://127.0.0.1:${all.running.port}` });
    expect(own.problems).toHaveLength(1);
    // A command would run here with what a browser says: those are written by hand.
    const command = await refused({
      type: 'set-hop',
      name: 'x',
      hop: { kind: 'http', host: 'a', username: 'u', password: { command: ['id'] } },
    });
    expect(command.message).toContain('password');
    expect(all.text()).toBe(before);
  });

  test('made from an older state than the file has is refused', async () => {
    await using all = await startAll();
    const { revision } = await all.ways();
    const { configFile } = all.running.place;
    writeFileSync(configFile, readFileSync(configFile, 'utf8').replace('# mine', '# ours'));
    const reply = await all.link.ask({ type: 'set-hop', name: 'x', hop: 'http://a.example:1', revision });
    expect(reply).toMatchObject({ type: 'refused', message: expect.stringContaining('changed meanwhile') });
    expect(all.text()).toContain('# ours');
    expect(all.text()).not.toContain('a.example');
  });
});
