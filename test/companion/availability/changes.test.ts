// What happens to a running companion: its file changes, it is told to stop, the system runs out of files, disk, names and time, the machine sleeps, the
// process is killed. Each against the companion as a process of its own.
import { createHash } from 'node:crypto';
import { execFileSync } from 'node:child_process';
import { createServer as createHttpServer } from 'node:http';
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { TOKEN_PREFIX } from '../../../shared/control.ts';
import { startClock } from '../../support/clock.ts';
import { closedPort, startEcho } from '../../support/hop.ts';
import { startOrigin } from '../../support/origin.ts';
import { havePeers, startTinyproxy } from '../../support/peers.ts';
import { connectRaw, type RawClient } from '../../support/raw-client.ts';
import { type SpawnedCompanion, spawnCompanion } from '../../support/spawned-companion.ts';
import { makePlace, startTestCompanion, TEST_CONFIG, TestLink } from '../../support/with-companion.ts';
import { crashRound } from '../../soak/crashes.ts';

const wait = (ms: number) => new Promise(resolve => setTimeout(resolve, ms));
async function until(ready: () => boolean | Promise<boolean>, within = 10_000): Promise<void> {
  const end = performance.now() + within;
  while (!(await ready())) {
    if (performance.now() > end) throw new Error(`did not come to pass: ${ready}`);
    await wait(20);
  }
}
const get = (url: string) => `GET ${url} HTTP/1.1\r\nHost: x\r\n\r\n`;
const MIB = 1024 * 1024;

async function openTunnel(port: number, to: number): Promise<RawClient> {
  const client = await connectRaw(port);
  client.write(`CONNECT 127.0.0.1:${to} HTTP/1.1\r\nHost: x\r\n\r\n`);
  expect((await client.readAnswer('HEAD')).status).toBe(200);
  return client;
}

async function ping(tunnel: RawClient, word = 'ping'): Promise<void> {
  tunnel.write(word);
  expect((await tunnel.read(word.length)).toString()).toBe(word);
}

async function ask(port: number, url: string, deadline?: number) {
  await using client = await connectRaw(port);
  client.write(get(url));
  return await client.readAnswer('GET', deadline);
}

async function linkTo(companion: SpawnedCompanion): Promise<TestLink> {
  const running = JSON.parse(readFileSync(path.join(companion.place.stateFolder, 'running.json'), 'utf8')) as {
    token: string;
  };
  return TestLink.open(companion.port, TOKEN_PREFIX + running.token);
}

/** An origin that sends, and one that takes, so many pieces slowly. */
async function startSlowOrigin(pieces: number, pause: number) {
  const piece = Buffer.alloc(100_000, 'piece');
  const server = createHttpServer((request, response) => {
    const hash = createHash('sha256');
    let bytes = 0;
    request.on('data', (data: Buffer) => (hash.update(data), (bytes += data.length)));
    request.on('end', async () => {
      if (request.method === 'POST') return response.end(`${bytes} ${hash.digest('hex')}`);
      response.setHeader('Content-Length', pieces * piece.length);
      for (let i = 0; i < pieces; i++) {
        response.write(piece);
        await wait(pause);
      }
      response.end();
    });
  });
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}/`,
    whole: pieces * piece.length,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise(resolve => server.close(resolve));
    },
  };
}

describe('A90: a reload', () => {
  test('A90: while much is on its way, good and bad, twice at once and by the popup too: nothing is dropped', async () => {
    await using origin = await startSlowOrigin(40, 50);
    await using echo = await startEcho();
    await using companion = await spawnCompanion();
    const { configFile } = companion.place;
    await using tunnel = await openTunnel(companion.port, echo.port);
    const download = ask(companion.port, origin.url, 20_000);
    await using uploader = await connectRaw(companion.port);
    const upload = Buffer.alloc(2 * MIB, 'upload');
    uploader.write(`POST ${origin.url} HTTP/1.1\r\nHost: x\r\nContent-Length: ${upload.length}\r\n\r\n`);
    const uploading = (async () => {
      for (let at = 0; at < upload.length; at += 65_536) {
        uploader.write(upload.subarray(at, at + 65_536));
        await wait(50);
      }
    })();
    await using link = await linkTo(companion);
    const edits: Promise<unknown>[] = [];
    for (let turn = 0; turn < 15; turn++) {
      // Two writers at once, then one that is not in order, and an edit by the control link between them.
      writeFileSync(configFile, `${TEST_CONFIG}sites: { a${turn}.test: companion }\n`);
      writeFileSync(
        configFile,
        `${TEST_CONFIG}hops: { spare: "http://192.0.2.${turn}:1" }\nrules: [{ host: no.test, block: true }]\n`,
      );
      edits.push(link.ask({ type: 'set-site', site: `b${turn}.test`, route: 'companion' }));
      await wait(60);
      await ping(tunnel, `turn ${turn}`);
      if (turn % 3 === 0) writeFileSync(configFile, 'hops: [\n');
      await wait(60);
    }
    writeFileSync(configFile, `${TEST_CONFIG}rules: [{ host: no.test, block: true }]\n`);
    await until(async () => (await ask(companion.port, 'http://no.test/')).status === 403);
    writeFileSync(configFile, 'hops: [\n');
    await companion.running.complained(/last good file stays in force/);
    await wait(300);
    // The last good one is in force.
    expect((await ask(companion.port, 'http://no.test/')).status).toBe(403);
    await Promise.all(edits);
    await uploading;
    const answer = await uploader.readAnswer('POST', 20_000);
    expect(answer.text).toBe(`${upload.length} ${createHash('sha256').update(upload).digest('hex')}`);
    expect((await download).body.length).toBe(origin.whole);
    await ping(tunnel);
  });
});

describe('A91: SIGTERM', () => {
  test('A91: no more are accepted, tunnels go on until the drain is over, and the exit code is 0', async () => {
    await using echo = await startEcho();
    await using companion = await spawnCompanion({ config: 'limits: { drainTimeout: 3 }\n' });
    await using tunnel = await openTunnel(companion.port, echo.port);
    await using link = await linkTo(companion);
    const began = performance.now();
    companion.running.child.kill('SIGTERM');
    await until(() => link.closedWith !== null);
    await until(
      async () =>
        connectRaw(companion.port).then(
          client => (client.close(), false),
          () => true,
        ),
      1_000,
    );
    await ping(tunnel);
    await wait(1_000);
    await ping(tunnel);
    expect((await companion.running.ended).code).toBe(0);
    expect(performance.now() - began).toBeGreaterThan(2_900);
    expect(performance.now() - began).toBeLessThan(6_000);
    await tunnel.closed();
  });

  test('A91: what is on its way ends whole, and then it does not wait any longer', async () => {
    await using origin = await startSlowOrigin(10, 100);
    await using companion = await spawnCompanion({ config: 'limits: { drainTimeout: 30 }\n' });
    await using idle = await connectRaw(companion.port);
    const download = ask(companion.port, origin.url, 10_000);
    await wait(300);
    companion.running.child.kill('SIGTERM');
    await idle.closed();
    expect((await download).body.length).toBe(origin.whole);
    expect((await companion.running.ended).code).toBe(0);
  });

  test('A91: a second signal ends it at once', async () => {
    await using echo = await startEcho();
    await using companion = await spawnCompanion({ config: 'limits: { drainTimeout: 60 }\n' });
    await using tunnel = await openTunnel(companion.port, echo.port);
    companion.running.child.kill('SIGTERM');
    await companion.running.printed(/second signal/);
    const began = performance.now();
    companion.running.child.kill('SIGTERM');
    expect((await companion.running.ended).code).toBe(143);
    expect(performance.now() - began).toBeLessThan(1_000);
    await tunnel.closed();
  });
});

const isRoot = process.getuid?.() === 0;
/** Runs a command in a mount namespace of its own, after these preparations. */
const withMounts = (...preparations: string[]) => [
  'unshare',
  '--mount',
  'sh',
  '-c',
  `${preparations.join(' && ')} && exec "$@"`,
  'sh',
];

describe('A92: the system runs short', () => {
  test('A92: of files: whoever comes is closed rather than left waiting, nothing spins, and it recovers by itself', async () => {
    await using origin = await startOrigin();
    await using echo = await startEcho();
    await using companion = await spawnCompanion();
    await using tunnel = await openTunnel(companion.port, echo.port);
    const bound = companion.files() + 20;
    execFileSync('prlimit', ['--pid', String(companion.pid), `--nofile=${bound}:${bound}`]);
    const idle = await Promise.all(Array.from({ length: 100 }, () => connectRaw(companion.port)));
    await until(() => idle.filter(client => client.socket.closed || client.socket.readableEnded).length >= 70);
    const before = companion.processorTime();
    await wait(2_000);
    expect(companion.processorTime() - before).toBeLessThan(500);
    await ping(tunnel);
    for (const client of idle) client.close();
    await until(async () => (await ask(companion.port, origin.url('/')).catch(() => null))?.status === 200);
    // Tunnels that use up everything, and are busy: nothing can make room, and still nobody hangs.
    const tunnels: RawClient[] = [];
    for (let i = 0; i < 30; i++) {
      const client = await connectRaw(companion.port);
      client.write(`CONNECT 127.0.0.1:${echo.port} HTTP/1.1\r\nHost: x\r\n\r\n`);
      const answer = await client.readAnswer('HEAD').catch(() => null);
      if (answer?.status === 200) tunnels.push(client);
    }
    expect(tunnels.length).toBeGreaterThan(3);
    const spun = companion.processorTime();
    await wait(1_000);
    expect(companion.processorTime() - spun).toBeLessThan(300);
    for (const one of tunnels) await ping(one);
    for (const one of tunnels) one.close();
    await until(async () => (await ask(companion.port, origin.url('/')).catch(() => null))?.status === 200);
    await ping(tunnel);
    companion.running.child.kill('SIGTERM');
    tunnel.close();
    const { err, code } = await companion.running.ended;
    expect(code).toBe(0);
    expect((err.match(/no more open files/g) ?? []).length).toBeLessThanOrEqual(1);
  });

  test('A92: of files from the start: there are only as many connections as fit, it says so, and everyone new is served', async () => {
    await using origin = await startOrigin();
    await using companion = await spawnCompanion({ within: ['prlimit', '--nofile=120:120'] });
    await companion.running.complained(/allows 120 open files, which is enough for 28 connections/);
    const idle: RawClient[] = [];
    for (let i = 0; i < 100; i++) {
      idle.push(await connectRaw(companion.port));
      expect((await ask(companion.port, origin.url('/'))).status).toBe(200);
    }
    expect(companion.files()).toBeLessThan(120);
    for (const client of idle) client.close();
  });

  test.runIf(isRoot)(
    'A92: of disk: proxying goes on, a warning comes once, files are whole, and it recovers',
    async () => {
      await using origin = await startOrigin();
      using place = makePlace(`${TEST_CONFIG}log: { file: small/traffic.log }\n`);
      execFileSync('mkdir', ['-p', path.join(place.folder, 'small'), place.stateFolder]);
      await using companion = await spawnCompanion({
        place,
        within: withMounts(
          `mount -t tmpfs -o size=128k none '${place.folder}/small'`,
          `mount -t tmpfs -o size=128k none '${place.stateFolder}'`,
        ),
      });
      // The folders as it sees them.
      const seen = (file: string) => `/proc/${companion.pid}/root${file}`;
      const log = seen(`${place.folder}/small/traffic.log`);
      const fill = (folder: string) => {
        const file = seen(`${folder}/ballast`);
        writeFileSync(file, '');
        for (const size of [4_096, 1]) {
          try {
            for (;;) writeFileSync(file, Buffer.alloc(size), { flag: 'a' });
          } catch {
            // Full.
          }
        }
        return file;
      };
      expect((await ask(companion.port, origin.url('/first'))).status).toBe(200);
      await until(() => statSync(log, { throwIfNoEntry: false }) !== undefined);
      const running = JSON.parse(readFileSync(seen(`${place.stateFolder}/running.json`), 'utf8')) as { token: string };
      const ballast = [fill(`${place.folder}/small`), fill(place.stateFolder)];

      for (let i = 0; i < 60; i++) expect((await ask(companion.port, origin.url(`/full/${i}`))).status).toBe(200);
      await companion.running.complained(/cannot be written/);
      // Who pairs now is told no, and is not half paired.
      await using cli = await TestLink.open(companion.port, TOKEN_PREFIX + running.token);
      const { code } = (await cli.ask({ type: 'pair' })) as unknown as { code: string };
      const refused = await TestLink.open(companion.port, `code.${code}`, `chrome-extension://${'a'.repeat(32)}`).then(
        link => link[Symbol.asyncDispose]().then(() => 'let in'),
        () => 'refused',
      );
      expect(refused).toBe('refused');
      expect((await ask(companion.port, origin.url('/still'))).status).toBe(200);

      for (const file of ballast) execFileSync('rm', [file]);
      await until(async () => {
        await ask(companion.port, origin.url('/again'));
        return readFileSync(log, 'utf8').includes('/again');
      });
      await companion.running.complained(/written again/);
      const lines = readFileSync(log, 'utf8').split('\n');
      expect(lines.pop()).toBe('');
      for (const line of lines) expect(JSON.parse(line)).toHaveProperty('url');
      companion.running.child.kill('SIGTERM');
      // The log says it once, and so does whatever else wanted to write just then.
      const complaints = (await companion.running.ended).err.split('\n').filter(line => /cannot be written/.test(line));
      expect(complaints.filter(line => line.includes('traffic.log'))).toHaveLength(1);
      expect(new Set(complaints).size).toBe(complaints.length);
    },
  );

  test.runIf(isRoot)(
    'A92: of names: with no resolver at all, addresses are served as fast as ever',
    async () => {
      await using origin = await startOrigin();
      using place = makePlace();
      writeFileSync(path.join(place.folder, 'resolv.conf'), 'nameserver 192.0.2.1\noptions timeout:2 attempts:1\n');
      await using companion = await spawnCompanion({
        place,
        within: withMounts(`mount --bind '${place.folder}/resolv.conf' /etc/resolv.conf`),
      });
      const names = Array.from({ length: 40 }, (_, i) => ask(companion.port, `http://name-${i}.example/`, 30_000));
      for (let i = 0; i < 20; i++) {
        const began = performance.now();
        expect((await ask(companion.port, origin.url('/'))).status).toBe(200);
        expect(performance.now() - began).toBeLessThan(1_000);
      }
      for (const answer of await Promise.all(names)) {
        expect(answer.status).toBeGreaterThanOrEqual(502);
        expect(answer.headers['proxy-status']).toMatch(/dns_|connection_timeout/);
      }
      expect((await ask(companion.port, origin.url('/'))).status).toBe(200);
    },
    60_000,
  );

  test('A92: of time: the clock jumps by a day, back and forth, and every deadline and record stays true', async () => {
    const clock = startClock();
    await using origin = await startOrigin((_, response) => {
      response.setHeader('Cache-Control', 'max-age=60');
      setTimeout(() => response.end('hello'), 50);
    });
    await using echo = await startEcho();
    await using companion = await startTestCompanion(TEST_CONFIG, undefined, clock.now);
    await using tunnel = await openTunnel(companion.port, echo.port);
    await using link = await TestLink.pair(companion.companion).then(paired => paired.link);
    await link.ask({ type: 'follow', recent: 10 });
    const day = 86_400_000;
    for (const jump of [day, -2 * day, 3 * day, -day, 1]) {
      const asking = ask(companion.port, origin.url(`/${jump}`));
      await wait(20);
      clock.jumpTo(clock.now() + jump);
      expect((await asking).text).toBe('hello');
      expect((await ask(companion.port, origin.url('/same'))).text).toBe('hello');
      await ping(tunnel);
    }
    const records = link.heard.filter(message => message.type === 'exchange');
    for (const { exchange } of records as unknown as { exchange: Record<string, number> }[]) {
      expect(exchange.took ?? 0).toBeGreaterThanOrEqual(0);
      expect(exchange.took ?? 0).toBeLessThan(10_000);
      expect(exchange.firstByteAfter ?? 0).toBeGreaterThanOrEqual(0);
    }
  });

  test('A92: asleep longer than every deadline, nobody who waited is closed for it, and what died meanwhile is replaced', async () => {
    await using origin = await startSlowOrigin(40, 100);
    // Closes its idle connections after a second, while the companion sleeps.
    const server = createHttpServer({ keepAliveTimeout: 500 }, (request, response) => {
      request.resume().on('end', () => response.end('hello'));
    });
    await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
    const kept = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
    await using echo = await startEcho();
    await using companion = await spawnCompanion({
      config: 'limits: { headTimeout: 2, idleTimeout: 2, bodyTimeout: 2, responseTimeout: 2, tunnelIdleTimeout: 2 }\n',
    });
    await using tunnel = await openTunnel(companion.port, echo.port);
    await using idle = await connectRaw(companion.port);
    idle.write(get(kept));
    expect((await idle.readAnswer()).text).toBe('hello');
    await using slow = await connectRaw(companion.port);
    slow.write('GET http://127.0.0.1');
    const download = ask(companion.port, origin.url, 20_000);
    await wait(300);
    companion.running.child.kill('SIGSTOP');
    await wait(6_000);
    companion.running.child.kill('SIGCONT');
    await ping(tunnel);
    idle.write(`POST ${kept} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi`);
    expect((await idle.readAnswer('POST')).text).toBe('hello');
    slow.write(`:1/ HTTP/1.1\r\nHost: x\r\n\r\n`);
    expect((await slow.readAnswer()).status).not.toBe(408);
    expect((await download).body.length).toBe(origin.whole);
    server.closeAllConnections();
    await new Promise(resolve => server.close(resolve));
  });
});

describe('A93: kill -9', () => {
  test.each([1, 2, 3])(
    'A93: in the middle of edits, pairing and the log leaves every file whole (round %i)',
    async round => {
      expect(await crashRound(round)).toEqual([]);
    },
  );
});

describe.runIf(havePeers('tinyproxy'))('a hop that leads back and hides it', () => {
  test.each(['GET http://loop.test:8000/ HTTP/1.1', 'CONNECT loop.test:8000 HTTP/1.1'])(
    'A41: a loop through tinyproxy ends by itself, and others are served meanwhile: %s',
    async line => {
      const port = await closedPort();
      await using hop = await startTinyproxy({ upstream: port });
      await using origin = await startOrigin();
      using place = makePlace(
        `listen: 127.0.0.1:${port}\nhops: { back: "${hop.url}" }\nroutes: { back: [[back]] }\nsites: { loop.test: back }\n` +
          `guard: { allow: [127.0.0.0/8] }\nlimits: { identical: 20 }\n`,
      );
      await using companion = await spawnCompanion({ place, fixedPort: true });
      await using client = await connectRaw(companion.port);
      client.write(`${line}\r\nHost: loop.test:8000\r\n\r\n`);
      const during = ask(companion.port, origin.url('/'));
      const answer = await client.readAnswer('GET', 15_000);
      expect(answer.status).toBeGreaterThanOrEqual(500);
      expect((await during).status).toBe(200);
      // It went round as often as it may and no more.
      expect(hop.log().match(/Request \(file descriptor \d+\)/g)!.length).toBeLessThanOrEqual(24);
      await until(() => companion.files() < 40);
    },
  );

  test('six requests that are the same, as a browser sends them, all get their answers', async () => {
    await using origin = await startOrigin((_, response) => void setTimeout(() => response.end('hello'), 200));
    await using hop = await startTinyproxy({ hosts: { 'same.test': '127.0.0.1' } });
    await using companion = await spawnCompanion({
      config: `hops: { tiny: "${hop.url}" }\nroutes: { tiny: [[tiny]] }\nsites: { same.test: tiny }\nlimits: { identical: 8 }\n`,
    });
    const url = `http://same.test:${origin.port}/`;
    const answers = await Promise.all(Array.from({ length: 6 }, () => ask(companion.port, url)));
    expect(answers.map(answer => answer.status)).toEqual(Array.from({ length: 6 }, () => 200));
  });
});
