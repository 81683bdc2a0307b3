// How routes pick their chains, seen from both ends of a whole companion: what the client gets, and what hops and origin saw.
import { describe, expect, test } from 'vitest';
import type { Exchange } from '../../shared/exchange.ts';
import { type HopScript, type ScriptedHop, startHop } from '../support/hop.ts';
import { startOrigin } from '../support/origin.ts';
import { connectRaw } from '../support/raw-client.ts';
import { startTestCompanion, TEST_CONFIG, TestLink } from '../support/with-companion.ts';

const hosts = { 'origin.test': '127.0.0.1', 'other.test': '127.0.0.1' };
const DENIED = 'HTTP/1.1 403 Forbidden\r\nX-Squid-Error: ERR_ACCESS_DENIED 0\r\nContent-Length: 0\r\n\r\n';

/** An origin that says by which hop it was asked, and a companion with a route over two hops. */
async function start(pick: string, scripts: Record<'one' | 'two', HopScript>) {
  const stack = new AsyncDisposableStack();
  const origin = stack.use(
    await startOrigin((request, response) => void (request.url === '/never' || response.end('hello'))),
  );
  const one = stack.use(await startHop({ hosts, ...scripts.one }));
  const two = stack.use(await startHop({ hosts, ...scripts.two }));
  const line = ({ hop }: ScriptedHop) => `${hop.kind}://127.0.0.1:${hop.port}`;
  const running = stack.use(
    await startTestCompanion(`hops: { one: "${line(one)}", two: "${line(two)}" }
routes:
  work: { chains: [[one], [two]], pick: ${pick} }
default: work
limits: { hopTimeout: 60, routeTimeout: 120 }
cache: { memory: 0, disk: 0 }
${TEST_CONFIG}`),
  );
  const { link } = await TestLink.pair(running.companion);
  stack.use(link);
  await link.ask({ type: 'follow', recent: 0 });
  return {
    origin,
    one,
    two,
    companionPort: running.port,
    url: (host = 'origin.test') => `http://${host}:${origin.port}/`,
    async ask(url: string, method = 'GET', body = '') {
      await using client = await connectRaw(running.port);
      const length = body === '' ? '' : `Content-Length: ${body.length}\r\n`;
      client.write(
        `${method} ${url} HTTP/1.1\r\nHost: ${new URL(url).host}\r\n${length}Connection: close\r\n\r\n${body}`,
      );
      const answer = await client.readAnswer(method);
      return { status: answer.status, body: answer.body.toString() };
    },
    async ladder(): Promise<string[]> {
      const heard = await link.until(one => one.type === 'exchange' && one.exchange.took !== undefined);
      return (heard as { exchange: Exchange }).exchange.attempts.map(({ chain, outcome }) => `${chain[0]}: ${outcome}`);
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

describe('a race', () => {
  test('a GET goes out once, by the chain that stands first, and the record has both', async () => {
    await using all = await start('race', { one: { kind: 'socks5', silent: 'when-asked' }, two: { kind: 'socks5' } });
    expect(await all.ask(all.url())).toEqual({ status: 200, body: 'hello' });
    expect(all.origin.requests).toHaveLength(1);
    expect(await all.ladder()).toEqual(['one: connection_timeout', 'two: ok']);
    await expect.poll(() => all.one.open, { timeout: 10_000 }).toBe(0);
  });

  test('the chain that stands first refuses: the other has its turn again, and the origin is asked once', async () => {
    await using all = await start('race', {
      one: { kind: 'socks5', drip: 150 },
      two: { kind: 'http', refuse: DENIED },
    });
    expect(await all.ask(all.url())).toEqual({ status: 200, body: 'hello' });
    expect(all.origin.requests).toHaveLength(1);
    expect(await all.ladder()).toEqual(['two: hop_refused', 'one: ok']);
  });

  test('a POST is not raced', async () => {
    await using all = await start('race', { one: { kind: 'socks5', drip: 60 }, two: { kind: 'socks5' } });
    expect(await all.ask(all.url(), 'POST', 'once')).toEqual({ status: 200, body: 'hello' });
    expect(all.two.connections).toBe(0);
    expect(await all.ladder()).toEqual(['one: ok']);
  });

  test('the client leaves: the connection that won ends with it', async () => {
    await using all = await start('race', { one: { kind: 'socks5', silent: 'when-asked' }, two: { kind: 'socks5' } });
    {
      await using client = await connectRaw(all.companionPort);
      client.write(`GET ${all.url()}never HTTP/1.1\r\nHost: ${new URL(all.url()).host}\r\n\r\n`);
      await expect.poll(() => all.origin.requests.length, { timeout: 10_000 }).toBe(1);
      await expect.poll(() => all.one.open, { timeout: 10_000 }).toBe(0);
      client.socket.resetAndDestroy();
    }
    await expect.poll(() => all.origin.open.size, { timeout: 10_000 }).toBe(0);
  });

  test('a tunnel is built once, and stands', async () => {
    await using all = await start('race', { one: { kind: 'http', silent: 'when-asked' }, two: { kind: 'http' } });
    const [, port] = all.url().match(/:(\d+)\//)!;
    await using client = await connectRaw(all.companionPort);
    client.write(`CONNECT origin.test:${port} HTTP/1.1\r\nHost: origin.test:${port}\r\n\r\n`);
    expect(await client.readUntil('\r\n\r\n')).toMatch(/^HTTP\/1\.1 200 /);
    client.write(`GET / HTTP/1.1\r\nHost: origin.test\r\nConnection: close\r\n\r\n`);
    expect((await client.readAnswer('GET')).body.toString()).toBe('hello');
    expect(all.two.requests).toHaveLength(1);
    await expect.poll(() => all.one.open, { timeout: 10_000 }).toBe(0);
  });
});

describe('sticky', () => {
  test('whatever a site asks for goes by one exit, http and tunnels', async () => {
    await using all = await start('sticky', { one: { kind: 'socks5' }, two: { kind: 'socks5' } });
    for (let i = 0; i < 4; i++) await all.ask(all.url());
    for (let i = 0; i < 2; i++) {
      await using client = await connectRaw(all.companionPort);
      const at = new URL(all.url()).host;
      client.write(`CONNECT ${at} HTTP/1.1\r\nHost: ${at}\r\n\r\n`);
      expect(await client.readUntil('\r\n\r\n')).toMatch(/^HTTP\/1\.1 200 /);
    }
    expect([all.one.requests.length, all.two.requests.length]).toContain(0);
  });
});
