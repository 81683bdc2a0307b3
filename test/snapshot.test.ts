// The start-up snapshot (companion/snapshot), made once for all of these: what starts from it is the companion, and each start its own.
import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { TASKS } from '../bootstrap.mjs';
import { couldNotLoad, hasSnapshots, makeSnapshot, withoutCodeOfNode } from '../companion/snapshot/make.mjs';
import { makeTestAuthority } from './support/certificates.ts';
import { startDnsServer } from './support/dns-server.ts';
import { startOrigin, startRawOrigin } from './support/origin.ts';
import { connectRaw } from './support/raw-client.ts';
import { haveSshd, startSshd } from './support/sshd.ts';
import { startTlsFront } from './support/tls-front.ts';
import { makePlace, type Place, runDetour, type Running, spawnDetour } from './support/with-companion.ts';

const ROOT = path.resolve(import.meta.dirname, '..');
const run = promisify(execFile);
const options = TASKS['start']!.run!.filter(word => word.startsWith('--'));

/** So many modules as Node's list at the end of a snapshot has at least. */
const listOf = (count: number) => {
  const number = (value: number) => {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(BigInt(value));
    return bytes;
  };
  const one = (name: string, code: Buffer) => [number(name.length), Buffer.from(name), number(code.length), code];
  const pairs = Array.from({ length: count }, (_, i) => one(`internal/module-${i}`, Buffer.alloc(i * 7, i)));
  return Buffer.concat([number(count), ...pairs.flat()]);
};

test('of a snapshot the list of compiled modules that ends it is taken out, and nothing of any other file', () => {
  const heap = Buffer.from(Array.from({ length: 5_000 }, (_, i) => (i * i) % 251));
  const stripped = withoutCodeOfNode(Buffer.concat([heap, listOf(60)]));
  expect(stripped.subarray(0, heap.length).equals(heap)).toBe(true);
  expect(stripped.subarray(heap.length)).toEqual(Buffer.alloc(8));
  const other = Buffer.concat([heap, listOf(60), Buffer.of(1)]);
  expect(withoutCodeOfNode(other)).toBe(other);
  expect(withoutCodeOfNode(heap)).toBe(heap);
  expect(withoutCodeOfNode(Buffer.alloc(0)).length).toBe(0);
});

describe.runIf(hasSnapshots(process.platform))('from a snapshot', { timeout: 30_000 }, () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'detour snapshot '));
  const blob = path.join(folder, 'detour.blob');
  const program = [process.execPath, ...options, `--snapshot-blob=${blob}`, path.join(folder, 'detour.cjs')];

  beforeAll(async () => {
    const bundle = path.join(ROOT, 'node_modules/rolldown/bin/cli.mjs');
    await run(process.execPath, [bundle, '-c', path.join(ROOT, 'rolldown.config.ts'), '-d', folder], { cwd: ROOT });
    const runThere = (file: string, args: string[]) => run(file, args, { cwd: ROOT });
    await makeSnapshot(runThere, process.execPath, options, ROOT, folder);
  }, 60_000);
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  const startThere = (place: Place, ...more: string[]) =>
    spawnDetour(['start', '--config', place.configFile, '--port', '0', ...more], place, {}, [], program);
  const listening = async (running: Running) => {
    const [, code, port] = await running.printed(/Pairing code {2}(\d{3} \d{3}) {3}\(port (\d+);/);
    return { code: code!, port: Number(port) };
  };
  const ask = async (port: number, url: string) => {
    await using client = await connectRaw(port);
    client.write(`GET ${url} HTTP/1.1\r\nHost: ${new URL(url).host}\r\nConnection: close\r\n\r\n`);
    return await client.readAnswer();
  };

  test('a companion serves, its control room opens to the CLI, and a signal ends it in order', async () => {
    await using origin = await startOrigin();
    using place = makePlace();
    await using running = startThere(place);
    const { port, code } = await listening(running);
    expect((await ask(port, `http://127.0.0.1:${origin.port}/`)).status).toBe(200);
    // What may not be answered is answered by a page of ours.
    expect((await ask(port, 'http://10.0.0.1:22/')).status).toBe(403);
    const paired = await runDetour(['pair', '--config', place.configFile], place);
    expect(paired.code).toBe(0);
    expect(paired.out).toMatch(/\d{3} \d{3}/);
    expect(paired.out).not.toContain(code);
    running.child.kill('SIGTERM');
    expect((await running.ended).code).toBe(0);
  });

  test('no list of timers is left in it: who joins one in the next process would wait for ever', async () => {
    const look = path.join(folder, 'look.cjs');
    const lists = `process.on('exit', () => console.log(JSON.stringify(Object.keys(require('internal/timers').timerListMap))))`;
    writeFileSync(look, lists);
    const builder = path.join(folder, 'snapshot.cjs');
    // It ends with a word of Node's: no snapshot is being made.
    const failed = await run(process.execPath, ['--expose-internals', '-r', look, builder]).catch(
      (error: { stdout: string; stderr: string }) => error,
    );
    expect(failed.stderr).toContain('ERR_NOT_BUILDING_SNAPSHOT');
    expect(failed.stdout.trim()).toBe('[]');
  });

  test('timers run: a changed file is noticed, and draining has an end', async () => {
    using place = makePlace('limits: { drainTimeout: 0.2 }\n');
    await using running = startThere(place);
    const { port } = await listening(running);
    writeFileSync(place.configFile, 'limits: { drainTimeout: 0.2 }\nworkers: 2\n');
    await running.complained(/workers is now 2/);
    await using client = await connectRaw(port);
    client.write('GET http://unfinished.test/ HTTP/1.1\r\n');
    running.child.kill('SIGTERM');
    expect((await running.ended).code).toBe(0);
  });

  test('two starts share no secret: neither code, nor token, nor the path of the PAC', async () => {
    const secrets = async () => {
      using place = makePlace();
      await using running = startThere(place);
      const { code } = await listening(running);
      const pac = readFileSync(path.join(place.stateFolder, 'pac-secret'), 'utf8');
      const claim = readFileSync(path.join(place.stateFolder, 'running.json'), 'utf8');
      return [code, pac, (JSON.parse(claim) as { token: string }).token];
    };
    const [one, other, third] = [await secrets(), await secrets(), await secrets()];
    for (const i of one.keys()) expect(new Set([one[i], other[i], third[i]]).size).toBe(3);
  });

  test('names are asked of the servers that the file names', async () => {
    await using origin = await startOrigin();
    await using dns = await startDnsServer({ names: { 'named.test': ['127.0.0.1'] } });
    using place = makePlace(`guard: { allow: [127.0.0.0/8] }\ndns: { servers: ["127.0.0.1:${dns.port}"] }\n`);
    await using running = startThere(place);
    const { port } = await listening(running);
    expect((await ask(port, `http://named.test:${origin.port}/`)).status).toBe(200);
  });

  test.runIf(haveSshd())('an ssh hop: what it needs is loaded from a file beside it', async () => {
    await using origin = await startOrigin();
    await using sshd = await startSshd();
    using place = makePlace();
    const ssh = `{ key: ${sshd.keyFile}, hostKey: "${sshd.fingerprints[0]}" }`;
    const hop = `{ kind: ssh, host: 127.0.0.1, port: ${sshd.port}, username: ${sshd.username}, ssh: ${ssh} }`;
    const route = '{ chains: [[gate]], private: true }';
    writeFileSync(
      place.configFile,
      `hops: { gate: ${hop} }\nroutes: { far: ${route} }\ndefault: far\nguard: { allow: [127.0.0.0/8] }\n`,
      { mode: 0o600 },
    );
    await using running = startThere(place);
    const { port } = await listening(running);
    expect((await ask(port, `http://127.0.0.1:${origin.port}/`)).status).toBe(200);
  });

  test('an https hop that asks for Digest, with its password from a program', async () => {
    await using origin = await startOrigin();
    const authority = await makeTestAuthority();
    const challenge = 'Proxy-Authenticate: Digest realm="r", nonce="n", qop="auth", algorithm=SHA-256';
    await using proxy = await startRawOrigin(async client => {
      while (true) {
        const head = await client.readUntil('\r\n\r\n');
        const isDigest = /^Proxy-Authorization: Digest username="me"/m.test(head);
        const said = isDigest ? 'HTTP/1.1 200 OK' : `HTTP/1.1 407 No\r\n${challenge}`;
        client.write(`${said}\r\nContent-Length: 0\r\n\r\n`);
      }
    });
    await using front = await startTlsFront(proxy.port, await authority.issueAs({}, '127.0.0.1'));
    using place = makePlace();
    await authority.writeTo(path.join(place.folder, 'ca.pem'));
    const login = 'username: me, password: { command: [echo, s3cret] }, auth: digest';
    const hop = `{ kind: https, host: 127.0.0.1, port: ${front.port}, tls: { ca: ca.pem }, ${login} }`;
    writeFileSync(
      place.configFile,
      `hops: { sec: ${hop} }\nroutes: { far: { chains: [[sec]], private: true } }\ndefault: far\nguard: { allow: [127.0.0.0/8] }\n`,
      { mode: 0o600 },
    );
    await using running = startThere(place);
    const { port } = await listening(running);
    expect((await ask(port, `http://127.0.0.1:${origin.port}/`)).status).toBe(200);
  });

  test('the owner of a connection is read on a thread', async () => {
    await using origin = await startOrigin();
    using place = makePlace('guard: { allow: [127.0.0.0/8], owner: on }\n');
    await using running = startThere(place);
    const { port } = await listening(running);
    expect((await ask(port, `http://127.0.0.1:${origin.port}/`)).status).toBe(200);
  });

  test('what is cached outlives it on the disk', async () => {
    await using origin = await startOrigin((_request, response) =>
      response.writeHead(200, { 'Cache-Control': 'max-age=600', 'Content-Length': 5 }).end('hello'),
    );
    using place = makePlace('guard: { allow: [127.0.0.0/8] }\n');
    const url = `http://127.0.0.1:${origin.port}/kept`;
    for (const status of ['fwd=uri-miss', 'hit']) {
      await using running = startThere(place);
      const { port } = await listening(running);
      expect((await ask(port, url)).headers['cache-status']).toContain(status);
      running.child.kill('SIGTERM');
      expect((await running.ended).code).toBe(0);
    }
    expect(origin.requests.length).toBe(1);
  });

  test('workers are processes that start from the files', async () => {
    await using origin = await startOrigin();
    using place = makePlace('workers: 2\nguard: { allow: [127.0.0.0/8] }\n');
    await using running = startThere(place);
    const { port } = await listening(running);
    for (let i = 0; i < 4; i++) expect((await ask(port, `http://127.0.0.1:${origin.port}/`)).status).toBe(200);
  });

  test('a fault of the file is named by its line', async () => {
    using place = makePlace();
    writeFileSync(place.configFile, 'listen: 127.0.0.1:0\nnonsense: 1\n', { mode: 0o600 });
    await using running = startThere(place);
    const { code, err } = await running.ended;
    expect(code).toBe(1);
    expect(err).toContain(`${place.configFile}:2:1`);
  });

  test('a file that is no snapshot of this Node is told by how Node ends', async () => {
    writeFileSync(`${blob}.bad`, readFileSync(blob).subarray(0, 50));
    using place = makePlace();
    const broken = [process.execPath, ...options, `--snapshot-blob=${blob}.bad`, 'detour.cjs'];
    await using running = spawnDetour(['version'], place, {}, [], broken);
    const [code, signal] = [(await running.ended).code, running.child.signalCode];
    expect(couldNotLoad(code, signal)).toBe(true);
    expect([0, 1, 3, 70, null].some(one => couldNotLoad(one, null))).toBe(false);
    expect(['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGKILL'].some(one => couldNotLoad(null, one))).toBe(false);
  });
});
