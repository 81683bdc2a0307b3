// Real peers on both sides: curl and ws in front of the whole companion, squid and tinyproxy (with and without a login) behind it.
import { execFile } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { Agent, createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import { type AddressInfo, connect, type Server, type Socket } from 'node:net';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { WebSocket, WebSocketServer } from 'ws';
import { makeTestAuthority } from '../support/certificates.ts';
import { findProgram } from '../support/ensure-peers.ts';
import { havePeers, type Peer, startSquid, startTinyproxy } from '../support/peers.ts';
import { connectRaw } from '../support/raw-client.ts';
import { startTestCompanion, type TestCompanion } from '../support/with-companion.ts';

const run = promisify(execFile);
const hosts = { 'origin.test': '127.0.0.1', 'denied.test': '127.0.0.1' };
const credentials = { username: 'me', password: 's3cret' };
const NAMES = [
  'squid',
  'squid with login',
  'tinyproxy',
  'tinyproxy with login',
  'squid, then tinyproxy with login',
] as const;
const LONG = randomBytes(2 * 1024 * 1024);
const agentOver = (socket: () => Socket) => Object.assign(new Agent(), { createConnection: socket });
const hash = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex');

describe.runIf(havePeers('squid', 'tinyproxy') && findProgram('curl') !== undefined)(
  'curl and ws, through a parent',
  () => {
    const servers: Server[] = [];
    const peers: Peer[] = [];
    const companions = new Map<string, TestCompanion>();
    const seen: IncomingMessage[] = [];
    let http = 0;
    let https = 0;
    let authority: Awaited<ReturnType<typeof makeTestAuthority>>;
    let caFile = '';

    const serve = async (request: IncomingMessage, response: ServerResponse) => {
      seen.push(request);
      const pieces: Buffer[] = [];
      for await (const piece of request) pieces.push(piece as Buffer);
      if (request.url === '/long') return response.end(LONG);
      const body = Buffer.concat(pieces);
      response.setHeader('X-Method', request.method!);
      response.end(`${request.method} ${body.length} ${hash(body)}`);
    };

    async function started(server: Server): Promise<number> {
      const sockets = new WebSocketServer({ server: server as never });
      sockets.on('connection', socket =>
        socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary })),
      );
      servers.push(server);
      await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
      return (server.address() as AddressInfo).port;
    }

    beforeAll(async () => {
      authority = await makeTestAuthority();
      http = await started(createServer((request, response) => void serve(request, response)));
      https = await started(
        createHttpsServer(await authority.issue('origin.test'), (request, response) => void serve(request, response)),
      );
      peers.push(
        ...(await Promise.all([
          startSquid({ hosts, deny: ['denied.test'] }),
          startSquid({ hosts, credentials }),
          startTinyproxy({ hosts }),
          startTinyproxy({ hosts, credentials }),
        ])),
      );
      const [squid, squidLogin, tinyproxy, tinyproxyLogin] = peers.map(one => one.url);
      const chains: Record<string, string> = {
        squid: '[[squid]]',
        'squid with login': '[[squidLogin]]',
        tinyproxy: '[[tinyproxy]]',
        'tinyproxy with login': '[[tinyproxyLogin]]',
        'squid, then tinyproxy with login': '[[squid, tinyproxyLogin]]',
        'squid, or tinyproxy': '[[squid], [tinyproxy]]',
        'squid with a wrong login': '[[wrong]]',
      };
      for (const [name, chain] of Object.entries(chains)) {
        companions.set(
          name,
          await startTestCompanion(
            `hops:\n  squid: ${squid}\n  squidLogin: ${squidLogin}\n  tinyproxy: ${tinyproxy}\n  tinyproxyLogin: ${tinyproxyLogin}\n  wrong: ${squidLogin!.replace('s3cret', 'wr0ng')}\nroutes:\n  r: ${chain}\ndefault: r\nguard:\n  allow: [127.0.0.0/8]\n`,
          ),
        );
      }
      caFile = await authority.writeTo(path.join(companions.get('squid')!.place.folder, 'ca.pem'));
    }, 60_000);

    afterAll(async () => {
      for (const one of companions.values()) await one[Symbol.asyncDispose]();
      await Promise.all(peers.map(one => one[Symbol.asyncDispose]()));
      for (const server of servers) server.close();
    });

    const curl = async (name: string, ...args: string[]) => {
      const at = `http://127.0.0.1:${companions.get(name)!.port}`;
      const options = { encoding: 'buffer' as const, maxBuffer: 64 * 1024 * 1024 };
      const { stdout } = await run(
        'curl',
        ['-s', '-S', '--noproxy', '', '-x', at, '--cacert', caFile, ...args],
        options,
      );
      return stdout;
    };

    test.each(NAMES)('%s: curl gets, posts, asks for heads, and uses its connection again', async name => {
      const url = `http://origin.test:${http}/`;
      const nothing = hash(Buffer.alloc(0));
      expect((await curl(name, url)).toString()).toBe(`GET 0 ${nothing}`);
      expect((await curl(name, url, url, url)).toString()).toBe(`GET 0 ${nothing}`.repeat(3));
      expect(hash(await curl(name, `${url}long`))).toBe(hash(LONG));
      const form = Buffer.from('x'.repeat(300_000));
      for (const more of [[], ['-H', 'Transfer-Encoding: chunked'], ['-H', 'Expect: 100-continue']]) {
        expect((await curl(name, ...more, '--data-binary', form.toString().slice(0, 100_000), url)).toString()).toBe(
          `POST 100000 ${hash(form.subarray(0, 100_000))}`,
        );
      }
      expect((await curl(name, '-I', url)).toString()).toMatch(/^HTTP\/1\.1 200 OK\r\n[^]*X-Method: HEAD\r\n/);
      expect((await curl(name, '-0', url)).toString()).toBe(`GET 0 ${nothing}`);
      expect((await curl(name, '-X', 'DELETE', url)).toString()).toBe(`DELETE 0 ${nothing}`);
    });

    test.each(NAMES)('%s: curl by CONNECT, to http and to https', async name => {
      const nothing = hash(Buffer.alloc(0));
      expect((await curl(name, '-p', `http://origin.test:${http}/`)).toString()).toBe(`GET 0 ${nothing}`);
      expect((await curl(name, `https://origin.test:${https}/`)).toString()).toBe(`GET 0 ${nothing}`);
      expect(hash(await curl(name, `https://origin.test:${https}/long`))).toBe(hash(LONG));
      expect((await curl(name, '-d', 'abc', `https://origin.test:${https}/`)).toString()).toMatch(/^POST 3 /);
    });

    test.each(NAMES)('%s: a WebSocket, by Upgrade and by CONNECT', async name => {
      const { port } = companions.get(name)!;
      const byUpgrade = () =>
        new WebSocket(`ws://origin.test:${http}/`, {
          // ws has no proxy of its own: the request line in absolute-form, to the companion.
          agent: agentOver(() => connect({ host: '127.0.0.1', port })),
          finishRequest: request => {
            request.path = `http://origin.test:${http}/`;
            request.end();
          },
        });
      const byConnect = async () => {
        const client = await connectRaw(port);
        client.write(`CONNECT origin.test:${http} HTTP/1.1\r\nHost: origin.test:${http}\r\n\r\n`);
        expect(await client.readUntil('\r\n\r\n')).toMatch(/^HTTP\/1\.1 200 /);
        client.socket.removeAllListeners('data');
        return new WebSocket(`ws://origin.test:${http}/`, { agent: agentOver(() => client.socket) });
      };
      for (const open of [byUpgrade, byConnect]) {
        const socket = await open();
        const heard = await new Promise<string>((resolve, reject) => {
          socket.on('open', () => socket.send('x'.repeat(200_000)));
          socket.on('message', data => resolve(String((data as Buffer).length)));
          socket.on('error', reject);
        });
        expect(heard).toBe('200000');
        const closed = new Promise(resolve => socket.on('close', resolve));
        socket.close(1000);
        expect(await closed).toBe(1000);
      }
    });

    test('squid refuses, and tinyproxy serves the same request: curl sees nothing of it', async () => {
      const nothing = hash(Buffer.alloc(0));
      expect((await curl('squid, or tinyproxy', `http://denied.test:${http}/`)).toString()).toBe(`GET 0 ${nothing}`);
      expect((await curl('squid, or tinyproxy', '-p', `http://denied.test:${http}/`)).toString()).toBe(
        `GET 0 ${nothing}`,
      );
    });

    test('a login that squid does not take is a 502 with a sentence, not a 407 that curl would answer', async () => {
      const wrong = await curl('squid with a wrong login', '-i', `http://origin.test:${http}/`);
      expect(wrong.toString()).toMatch(/^HTTP\/1\.1 502 [^]*did not accept the user name and password/);
      await expect(curl('squid with a wrong login', `https://origin.test:${https}/`)).rejects.toThrow(/502/);
    });

    test('A60: the origin has heard of no credentials and of no Detour, by whatever way', () => {
      expect(seen.length).toBeGreaterThan(30);
      for (const { rawHeaders } of seen)
        expect(rawHeaders.join('\n').toLowerCase()).not.toMatch(/proxy-auth|detour|s3cret/);
    });
  },
);
