// A companion with two workers, as the processes that a person would have. To know which worker does a thing, the other one is stopped meanwhile: the
// port is shared, so the one that runs accepts.
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { connect as connectTls } from 'node:tls';
import { describe, expect, test } from 'vitest';
import { CODE_PREFIX } from '../../shared/control.ts';
import type { Exchange } from '../../shared/exchange.ts';
import { makeTestAuthority } from '../support/certificates.ts';
import { startHop } from '../support/hop.ts';
import { startOrigin } from '../support/origin.ts';
import { startTlsFront } from '../support/tls-front.ts';
import { connectRaw, type RawAnswer, type RawClient, rawClientOn } from '../support/raw-client.ts';
import {
  EXTENSION_ORIGIN,
  makePlace,
  type Place,
  type Running,
  spawnDetour,
  TestLink,
} from '../support/with-companion.ts';

const CONFIG = `workers: 2
guard:
  allow: [127.0.0.0/8]
dns:
  hosts:
    origin.test: 127.0.0.1
    other.test: 127.0.0.1
`;

const BARE_400 = 'HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n';

interface Fleet extends AsyncDisposable {
  readonly running: Running;
  readonly place: Place;
  readonly port: number;
  readonly code: string;
  /** Process ids of the workers that live. */
  workers(): number[];
  /** Does it while only this worker runs. */
  by<T>(worker: number, work: () => Promise<T>): Promise<T>;
}

async function startFleet(config = CONFIG, files: Record<string, string> = {}): Promise<Fleet> {
  const place = makePlace(config);
  for (const [name, text] of Object.entries(files)) writeFileSync(`${place.folder}/${name}`, text, { mode: 0o600 });
  const running = spawnDetour(['start', '--config', place.configFile, '--port', '0'], place);
  const [, first, second, port] = await running.printed(/Pairing code {2}(\d{3}) (\d{3}) {3}\(port (\d+);/);
  const pid = running.child.pid!;
  const workers = () =>
    readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').filter(Boolean).map(Number);
  return {
    running,
    place,
    port: Number(port),
    code: `${first}${second}`,
    workers,
    async by(worker, work) {
      const others = workers().filter(one => one !== worker);
      for (const other of others) process.kill(other, 'SIGSTOP');
      try {
        await until('the others stand still', () => others.every(other => /^State:\s*T/m.test(statusOf(other))));
        return await work();
      } finally {
        for (const other of others) process.kill(other, 'SIGCONT');
      }
    },
    async [Symbol.asyncDispose]() {
      await running[Symbol.asyncDispose]();
      place[Symbol.dispose]();
    },
  };
}

const request = (method: string, url: string, more = '') =>
  `${method} ${url} HTTP/1.1\r\nHost: ${new URL(url).host}\r\n${more}Connection: close\r\n\r\n`;

/** Asks through the companion, on a connection of its own. */
async function ask(port: number, url: string, method = 'GET', more = ''): Promise<RawAnswer> {
  await using client = await connectRaw(port);
  client.write(request(method, url, more));
  return await client.readAnswer(method);
}

async function raw(port: number, text: string): Promise<string> {
  await using client = await connectRaw(port);
  client.write(text);
  return (await client.readAll()).toString('latin1');
}

const until = async (what: string, is: () => boolean | Promise<boolean>) => {
  for (let i = 0; i < 500; i++) {
    if (await is()) return;
    await new Promise(resolve => setTimeout(resolve, 20));
  }
  throw new Error(`not within ten seconds: ${what}`);
};

const statusOf = (pid: number): string => {
  try {
    return readFileSync(`/proc/${pid}/status`, 'utf8');
  } catch {
    return 'State: X (gone)';
  }
};
/** Killed and not yet waited for is not alive either. */
const isAlive = (pid: number) => !/^State:\s*[ZX]/m.test(statusOf(pid));

const paired = (fleet: Fleet) => TestLink.open(fleet.port, CODE_PREFIX + fleet.code, EXTENSION_ORIGIN);
const exchangesOf = (link: TestLink): Exchange[] =>
  link.heard.flatMap(one => (one.type === 'exchange' ? [one.exchange] : []));

describe.skipIf(process.platform !== 'linux')('two workers', () => {
  test('both have the secrets and certificates of hops, and the new ones once their files change', async () => {
    await using origin = await startOrigin((_, response) =>
      response.setHeader('Cache-Control', 'no-store').end('hello'),
    );
    await using hop = await startHop({ kind: 'http', hosts: { 'origin.test': '127.0.0.1' } });
    const authority = await makeTestAuthority();
    await using front = await startTlsFront(hop.port, await authority.issueAs({}, '127.0.0.1'));
    const login = 'username: me, password: { file: secret }';
    const sec = `{ kind: https, host: 127.0.0.1, port: ${front.port}, tls: { ca: ca.pem }, ${login} }`;
    const config = `workers: 2\nhops: { sec: ${sec} }\nroutes: { far: [[sec]] }\ndefault: far\n`;
    await using fleet = await startFleet(config, { 'ca.pem': authority.pem, secret: 'one\n' });
    const url = `http://origin.test:${origin.port}/`;
    for (const secret of ['one', 'another']) {
      writeFileSync(`${fleet.place.folder}/secret`, secret);
      for (const worker of fleet.workers()) {
        await until(`worker ${worker} says ${secret}`, async () => {
          const answer = await fleet.by(worker, () => ask(fleet.port, url));
          return answer.text === 'hello' && hop.logins.at(-1) === `me:${secret}`;
        });
      }
    }
  });

  test('share the port, cache each for itself, and the log has every exchange once', async () => {
    await using origin = await startOrigin((_, response) =>
      response.setHeader('Cache-Control', 'max-age=60').end('hello'),
    );
    await using fleet = await startFleet();
    await using link = await paired(fleet);
    await link.ask({ type: 'follow', recent: 0 });
    const url = `http://origin.test:${origin.port}/page`;
    const [one, two] = fleet.workers();
    expect(fleet.workers()).toHaveLength(2);
    for (const worker of [one!, two!]) {
      const answers = await fleet.by(worker, async () => [await ask(fleet.port, url), await ask(fleet.port, url)]);
      expect(answers.map(({ headers }) => headers['cache-status'])).toEqual([
        'detour; fwd=uri-miss; stored',
        expect.stringContaining('detour; hit'),
      ]);
    }
    await Promise.all(Array.from({ length: 40 }, () => ask(fleet.port, url)));
    await until('44 exchanges', () => exchangesOf(link).length >= 44);
    const ids = exchangesOf(link).map(({ id }) => id);
    expect(ids.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 44 }, (_, i) => i + 1));
    expect(origin.requests).toHaveLength(2);
    const { answer } = (await link.ask({ type: 'site', host: 'origin.test' })) as {
      answer: { counts: object };
    } & object;
    expect(answer.counts).toMatchObject({ requests: 44, cached: 42 });

    // `detour explain` speaks of the worker that has it, whichever that is.
    const visited = `http://origin.test:${origin.port}/visited`;
    await fleet.by(two!, () => ask(fleet.port, visited, 'GET', 'Upgrade-Insecure-Requests: 1\r\n'));
    expect(await link.ask({ type: 'explain', url: visited })).toMatchObject({
      explanation: { cache: expect.stringMatching(/^hit/) },
    });

    // What an unsafe request makes invalid is invalid in both.
    const status = async (worker: number) =>
      (await fleet.by(worker, () => ask(fleet.port, url))).headers['cache-status'];
    await fleet.by(one!, () => ask(fleet.port, url, 'POST', 'Content-Length: 0\r\n'));
    expect(await status(one!)).toContain('fwd=uri-miss');
    await until('the other has heard', async () => !(await status(two!))!.includes('hit'));
  });

  test('A47, A49, A56: pairing, the PAC and the bare 400 are the same through whichever worker accepts', async () => {
    await using origin = await startOrigin();
    await using fleet = await startFleet();
    const [one, two] = fleet.workers() as [number, number];
    const link = await fleet.by(one, () => paired(fleet));
    await using _link = link;
    const hello = link.heard[0]!;
    if (hello.type !== 'hello') throw new Error('no hello');
    // The code is used up, whoever asks.
    await expect(fleet.by(two, () => paired(fleet))).rejects.toThrow('400');
    const again = await fleet.by(two, () => TestLink.open(fleet.port, `token.${hello.token}`, EXTENSION_ORIGIN));
    await using _again = again;
    expect(again.heard[0]).toMatchObject({ type: 'hello', client: 'Chromium' });

    const { pathname, host } = new URL(hello.pacUrl);
    const upgrade = `Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n`;
    for (const worker of [one, two]) {
      await fleet.by(worker, async () => {
        const pac = await raw(fleet.port, `GET ${pathname} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`);
        expect(pac).toMatch(/^HTTP\/1\.1 200 OK\r\n[\s\S]*FindProxyForURL/);
        const strangers = [
          `GET / HTTP/1.1\r\nHost: ${host}\r\nOrigin: http://evil.test\r\n\r\n`,
          `GET /${'A'.repeat(22)}/proxy.pac HTTP/1.1\r\nHost: ${host}\r\n\r\n`,
          `GET ${pathname} HTTP/1.1\r\nHost: evil.test:${fleet.port}\r\n\r\n`,
          `GET /control HTTP/1.1\r\nHost: ${host}\r\n${upgrade}Sec-WebSocket-Protocol: detour.v1, token.${'A'.repeat(43)}\r\n\r\n`,
          `GET /control HTTP/1.1\r\nHost: ${host}\r\n${upgrade}Origin: http://evil.test\r\nSec-WebSocket-Protocol: detour.v1, token.${hello.token}\r\n\r\n`,
        ];
        // What is read behind the request comes along with the socket.
        await using client = await connectRaw(fleet.port);
        const behind = request('GET', `http://origin.test:${origin.port}/behind`);
        client.write(`GET ${pathname} HTTP/1.1\r\nHost: ${host}\r\n\r\n${behind}`);
        expect((await client.readAnswer()).text).toContain('FindProxyForURL');
        expect((await client.readAnswer()).text).toBe('hello');
        for (const stranger of strangers) {
          expect(await raw(fleet.port, stranger), stranger).toBe(BARE_400);
        }
      });
    }
  });

  test('a changed site is in force in both before the popup hears so', async () => {
    await using origin = await startOrigin();
    await using fleet = await startFleet();
    await using link = await paired(fleet);
    const url = `http://origin.test:${origin.port}/`;
    const statuses = async () =>
      (await Promise.all(Array.from({ length: 16 }, () => ask(fleet.port, url)))).map(({ status }) => status);
    for (let i = 0; i < 5; i++) {
      expect(await link.ask({ type: 'set-site', site: 'origin.test', route: 'block' })).toMatchObject({ type: 'done' });
      expect(new Set(await statuses())).toEqual(new Set([403]));
      expect(await link.ask({ type: 'set-site', site: 'origin.test', route: null })).toMatchObject({ type: 'done' });
      expect(new Set(await statuses())).toEqual(new Set([200]));
    }
    // A list file counts as well, and so does a list that is no longer named.
    writeFileSync(`${fleet.place.folder}/blocked.txt`, 'other.test\n');
    for (const worker of fleet.workers()) await fleet.by(worker, () => ask(fleet.port, url));
    writeFileSync(fleet.place.configFile, `${CONFIG}lists:\n  - { file: blocked.txt, block: true }\n`);
    const other = `http://other.test:${origin.port}/`;
    await until('the list blocks', async () => (await ask(fleet.port, other)).status === 403);
    for (const worker of fleet.workers())
      expect((await fleet.by(worker, () => ask(fleet.port, other))).status).toBe(403);
    expect(await link.ask({ type: 'set-site', site: 'origin.test', route: 'block' })).toMatchObject({ type: 'done' });
    for (const worker of fleet.workers())
      expect((await fleet.by(worker, () => ask(fleet.port, other))).status).toBe(403);
  });

  test('what an unsafe request makes invalid during a change of the file is invalid in both', async () => {
    await using origin = await startOrigin((_, response) =>
      response.setHeader('Cache-Control', 'max-age=60').end('hello'),
    );
    await using fleet = await startFleet();
    await using link = await paired(fleet);
    const [one, two] = fleet.workers() as [number, number];
    const url = `http://origin.test:${origin.port}/page`;
    const status = async () => (await fleet.by(two, () => ask(fleet.port, url))).headers['cache-status'];
    expect(await status()).toContain('stored');
    expect(await status()).toContain('hit');
    // It stands still before it has told, for that takes 20 ms; the companion is at the next revision when it does.
    process.kill(two, 'SIGSTOP');
    await until('it stands still', () => /^State:\s*T/m.test(statusOf(two)));
    await ask(fleet.port, url, 'POST', 'Content-Length: 0\r\n');
    process.kill(one, 'SIGSTOP');
    process.kill(two, 'SIGCONT');
    try {
      link.socket.send(JSON.stringify({ type: 'set-site', id: 99, site: 'other.test', route: 'block' }));
      await until(
        'the change has come to the other',
        async () => (await ask(fleet.port, `http://other.test:${origin.port}/`)).status === 403,
      );
    } finally {
      process.kill(one, 'SIGCONT');
    }
    await until('the other has heard', async () => !(await status())!.includes('hit'));
  });

  test('A90: a changed file leaves running transfers of both alone', async () => {
    await using origin = await startOrigin((_, response) => {
      response.writeHead(200, { 'Content-Length': 100_000 });
      response.write('a'.repeat(50_000));
      setTimeout(() => response.end('b'.repeat(50_000)), 1_000);
    });
    await using fleet = await startFleet();
    await using link = await paired(fleet);
    const clients: RawClient[] = [];
    for (const worker of fleet.workers()) {
      await fleet.by(worker, async () => {
        const client = await connectRaw(fleet.port);
        clients.push(client);
        client.write(request('GET', `http://origin.test:${origin.port}/`));
        await client.readUntil('aaaa');
      });
    }
    writeFileSync(fleet.place.configFile, `${CONFIG}sites:\n  origin.test: block\n`);
    await link.until(one => one.type === 'state' && one.state.sites.length === 1);
    expect((await ask(fleet.port, `http://origin.test:${origin.port}/`)).status).toBe(403);
    for (const client of clients) {
      const body = (await client.readAll()).toString();
      expect(body.length).toBe(100_000 - 'aaaa'.length);
      client.close();
    }
  });

  test('a worker that is killed is replaced, and the rest goes on', async () => {
    await using origin = await startOrigin();
    await using fleet = await startFleet();
    await using link = await paired(fleet);
    await link.ask({ type: 'follow', recent: 0 });
    const [one, two] = fleet.workers() as [number, number];
    const openTunnel = async () => {
      const client = await connectRaw(fleet.port);
      client.write(`CONNECT origin.test:${origin.port} HTTP/1.1\r\nHost: origin.test:${origin.port}\r\n\r\n`);
      expect(await client.readUntil('\r\n\r\n')).toContain('200');
      return client;
    };
    await using lost = await fleet.by(one, openTunnel);
    await using kept = await fleet.by(two, openTunnel);
    await until('both tunnels are shown', () => exchangesOf(link).length === 2);
    process.kill(one, 'SIGKILL');
    await lost.closed();
    await fleet.running.complained(new RegExp(`Worker ${one} has ended \\(SIGKILL\\); another takes its place`));
    const [, three] = await fleet.running.complained(/Worker (\d+) listens/);
    expect(new Set(fleet.workers())).toEqual(new Set([two, Number(three)]));

    // The tunnel that went with it has ended in the log, too; the other one lives.
    await until('its tunnel has ended', () => exchangesOf(link).length === 3);
    expect(exchangesOf(link)[2]).toMatchObject({ fault: 'proxy_internal_error', took: expect.any(Number) });
    kept.write(request('GET', `http://origin.test:${origin.port}/through`));
    expect((await kept.readAnswer()).status).toBe(200);
    // The new one goes by what is in force, and is told what changes.
    await link.ask({ type: 'set-site', site: 'other.test', route: 'block' });
    const blocked = await fleet.by(Number(three), () => ask(fleet.port, `http://other.test:${origin.port}/`));
    expect(blocked.status).toBe(403);
    // One that ends again and again is not started as fast as it ends.
    for (let i = 0; i < 3; i++) {
      await until('both are there', () => fleet.workers().length === 2);
      const [next] = fleet.workers() as [number];
      process.kill(next, 'SIGKILL');
      await until('one has ended', () => !fleet.workers().includes(next));
    }
    await fleet.running.complained(/another takes its place in 1 s/);
  });

  test(
    'a worker that hears neither a change nor a purge is ended: what is done is done everywhere',
    { timeout: 40_000 },
    async () => {
      await using origin = await startOrigin();
      await using fleet = await startFleet();
      await using link = await paired(fleet);
      const [one] = fleet.workers() as [number];
      process.kill(one, 'SIGSTOP');
      link.socket.send(JSON.stringify({ type: 'cache-purge', id: 98, which: { site: 'origin.test' } }));
      await link.until(heard => heard.type === 'cache-changed' && heard.id === 98, 15_000);
      expect(isAlive(one)).toBe(false);
      const [, next] = await fleet.running.complained(/Worker (\d+) listens/);
      process.kill(Number(next), 'SIGSTOP');
      link.socket.send(JSON.stringify({ type: 'set-site', id: 99, site: 'origin.test', route: 'block' }));
      await link.until(heard => heard.type === 'done' && heard.id === 99, 15_000);
      expect(isAlive(Number(next))).toBe(false);
      expect((await ask(fleet.port, `http://origin.test:${origin.port}/`)).status).toBe(403);
      const [, three] = await fleet.running.complained(/Worker \d+ listens[^]*Worker (\d+) listens/);
      const blocked = await fleet.by(Number(three), () => ask(fleet.port, `http://origin.test:${origin.port}/`));
      expect(blocked.status).toBe(403);
    },
  );

  test('a chain that failed for one goes last for the other as well', async () => {
    await using origin = await startOrigin();
    await using hop = await startHop({ kind: 'http', hosts: { 'origin.test': '127.0.0.1' } });
    await using fleet = await startFleet(
      `${CONFIG}hops:\n  away: http://127.0.0.1:1\n  good: http://127.0.0.1:${hop.port}\nroutes:\n  two: [[away], [good]]\nsites:\n  origin.test: two\n`,
    );
    await using link = await paired(fleet);
    await link.ask({ type: 'follow', recent: 0 });
    const [one, two] = fleet.workers() as [number, number];
    const attempts = async (worker: number) => {
      const before = exchangesOf(link).length;
      await fleet.by(worker, () => ask(fleet.port, `http://origin.test:${origin.port}/${Math.random()}`));
      await until('its record', () => exchangesOf(link).length > before);
      return exchangesOf(link)
        .at(-1)!
        .attempts.map(({ chain }) => chain[0]);
    };
    expect(await attempts(one)).toEqual(['away', 'good']);
    await until('the other has heard', async () => (await attempts(two)).join() === 'good');
  });

  test('a pinned route is pinned for all of them, and for one that comes later', async () => {
    await using origin = await startOrigin();
    await using hop = await startHop({ kind: 'http', hosts: { 'origin.test': '127.0.0.1' } });
    await using fleet = await startFleet(
      `${CONFIG}hops:\n  away: http://127.0.0.1:1\n  good: http://127.0.0.1:${hop.port}\nroutes:\n  two: [[good], [away]]\nsites:\n  origin.test: two\n`,
    );
    await using link = await paired(fleet);
    const by = async (worker: number) =>
      (await fleet.by(worker, () => ask(fleet.port, `http://origin.test:${origin.port}/${Math.random()}`))).status;
    const [one, two] = fleet.workers() as [number, number];
    expect([await by(one), await by(two)]).toEqual([200, 200]);
    expect((await link.ask({ type: 'pin-route', route: 'two', chain: ['away'], for: 3_600 })).type).toBe('done');
    for (const worker of [one, two]) await until('it has heard', async () => (await by(worker)) >= 500);
    process.kill(two, 'SIGKILL');
    const [, third] = await fleet.running.complained(/Worker (\d+) listens/);
    const later = Number(third);
    expect(await by(later)).toBeGreaterThanOrEqual(500);
    expect((await link.ask({ type: 'unpin-route', route: 'two' })).type).toBe('done');
    for (const worker of [one, later]) await until('it has heard', async () => (await by(worker)) === 200);
  });

  test('what one learns of a site, or a person sets, all go by', async () => {
    await using origin = await startOrigin();
    await using hop = await startHop({
      kind: 'socks5',
      hosts: { 'blocked.test': '127.0.0.1', 'origin.test': '127.0.0.1' },
    });
    // Nobody listens at 127.0.0.2.
    await using fleet = await startFleet(
      `${CONFIG}    blocked.test: 127.0.0.2\nhops:\n  far: socks5://127.0.0.1:${hop.port}\nroutes:\n  smart: { chains: [[far]], pick: auto }\ndefault: smart\n`,
    );
    await using link = await paired(fleet);
    await link.ask({ type: 'follow', recent: 0 });
    const [one, two] = fleet.workers() as [number, number];
    const tried = async (worker: number, host: string) => {
      const before = exchangesOf(link).length;
      await fleet.by(worker, () => ask(fleet.port, `http://${host}:${origin.port}/${Math.random()}`));
      await until('its record', () => exchangesOf(link).length > before);
      return exchangesOf(link)
        .at(-1)!
        .attempts.map(({ chain }) => chain[0] ?? 'own')
        .join();
    };
    await until('it learns', async () => (await tried(one, 'blocked.test')) === 'far');
    await until('the other has heard', async () => (await tried(two, 'blocked.test')) === 'far');
    await until('it goes by itself', async () => (await tried(one, 'origin.test')) === 'own');
    await link.ask({ type: 'set-site-way', site: 'origin.test', way: 'chains' });
    for (const worker of [one, two])
      await until('they have heard', async () => (await tried(worker, 'origin.test')) === 'far');
  });

  test('A46: wrong passwords count together, whichever worker hears them', async () => {
    await using origin = await startOrigin();
    await using fleet = await startFleet(CONFIG.replace('guard:\n', 'guard:\n  users: { me: right }\n'));
    const [one, two] = fleet.workers() as [number, number];
    const url = `http://origin.test:${origin.port}/`;
    const logIn = async (password: string) => {
      const basic = Buffer.from(`me:${password}`).toString('base64');
      return (await ask(fleet.port, url, 'GET', `Proxy-Authorization: Basic ${basic}\r\n`)).status;
    };
    expect(await fleet.by(one, () => logIn('right'))).toBe(200);
    await fleet.by(one, async () => {
      for (let i = 0; i < 20; i++) expect(await logIn(`wrong${i}`)).toBe(407);
    });
    await until('the other has heard', async () => (await fleet.by(two, () => logIn('right'))) === 429);
  });

  test('TLS is spoken by every worker; the control room is reached in the clear only', async () => {
    await using origin = await startOrigin();
    const certificate = await (await makeTestAuthority()).issue('proxy.test');
    await using fleet = await startFleet(
      CONFIG.replace('guard:\n', 'guard:\n  tls: { cert: cert.pem, key: key.pem }\n'),
      {
        'cert.pem': certificate.cert,
        'key.pem': certificate.key,
      },
    );
    await using link = await paired(fleet);
    const hello = link.heard[0]!;
    if (hello.type !== 'hello') throw new Error('no hello');
    const { pathname, host } = new URL(hello.pacUrl);
    const secure = async (text: string) => {
      const socket = connectTls({ port: fleet.port, host: '127.0.0.1', rejectUnauthorized: false });
      await once(socket, 'secureConnect');
      await using client = rawClientOn(socket);
      client.write(text);
      return (await client.readAll()).toString('latin1');
    };
    for (const worker of fleet.workers()) {
      await fleet.by(worker, async () => {
        expect(await secure(request('GET', `http://origin.test:${origin.port}/`))).toContain('hello');
        expect((await ask(fleet.port, `http://origin.test:${origin.port}/`)).text).toBe('hello');
        const pac = `GET ${pathname} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`;
        expect(await secure(pac)).toBe(BARE_400);
        expect(await raw(fleet.port, pac)).toContain('FindProxyForURL');
      });
    }
  });

  test('A91: a signal lets the transfers of both end, and the end is 0', async () => {
    await using origin = await startOrigin((_, response) => {
      response.write('first');
      setTimeout(() => response.end('last'), 800);
    });
    await using fleet = await startFleet();
    const workers = fleet.workers();
    const clients: RawClient[] = [];
    for (const worker of workers) {
      await fleet.by(worker, async () => {
        const client = await connectRaw(fleet.port);
        clients.push(client);
        client.write(request('GET', `http://origin.test:${origin.port}/`));
        await client.readUntil('first');
      });
    }
    fleet.running.child.kill('SIGTERM');
    for (const worker of workers) process.kill(worker, 'SIGTERM'); // As a service manager would: the companion's process decides.
    for (const client of clients) {
      expect((await client.readAll()).toString()).toContain('last');
      client.close();
    }
    expect((await fleet.running.ended).code).toBe(0);
    expect(workers.filter(isAlive)).toEqual([]);
  });

  test('the companion killed with -9 takes its workers along', async () => {
    await using fleet = await startFleet();
    const workers = fleet.workers();
    expect(workers.every(isAlive)).toBe(true);
    fleet.running.child.kill('SIGKILL');
    await until('they are gone', () => !workers.some(isAlive));
  });

  test('a port that is taken is said as ever, and a changed number of workers waits for the next start', async () => {
    await using fleet = await startFleet();
    using place = makePlace(CONFIG);
    const second = spawnDetour(['start', '--config', place.configFile, '--port', String(fleet.port)], place);
    await using _second = second;
    const { code, err } = await second.ended;
    expect(code).toBe(1);
    expect(err).toContain(`127.0.0.1:${fleet.port} is taken`);
    writeFileSync(fleet.place.configFile, CONFIG.replace('workers: 2', 'workers: 3'));
    await fleet.running.complained(/workers is now 3; that takes effect at the next start/);
    expect(fleet.workers()).toHaveLength(2);
  });
});
