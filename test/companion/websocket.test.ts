// A WebSocket client of its own (no browser) through the whole companion: by Upgrade in absolute-form, and by CONNECT, plain and with TLS.
import { Agent, createServer } from 'node:http';
import { Agent as TlsAgent, createServer as createHttpsServer } from 'node:https';
import { type AddressInfo, connect, type Server } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { expect, test } from 'vitest';
import { type ClientOptions, WebSocket, WebSocketServer } from 'ws';
import { makeTestAuthority } from '../support/certificates.ts';
import { connectRaw } from '../support/raw-client.ts';
import { startTestCompanion } from '../support/with-companion.ts';

/** Says every message back. */
async function startEcho(server: Server) {
  const sockets = new WebSocketServer({ server: server as never });
  sockets.on('connection', socket => socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary })));
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  return {
    port: (server.address() as AddressInfo).port,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets.clients) socket.terminate();
      await new Promise(resolve => server.close(resolve));
    },
  };
}

/** Opens a WebSocket, sends text and bytes, and gives back what came. */
function echo(url: string, options: ClientOptions): Promise<string[]> {
  return new Promise((resolve, reject) => {
    const heard: string[] = [];
    const socket = new WebSocket(url, options);
    socket.on('open', () => {
      socket.send('x'.repeat(200_000));
      socket.send(Buffer.from([0, 1, 255]));
    });
    socket.on('message', (data, isBinary) => {
      heard.push(isBinary ? (data as Buffer).toString('hex') : `${(data as Buffer).length}`);
      if (heard.length === 2) socket.close(1000);
    });
    socket.on('close', code => resolve([...heard, String(code)]));
    socket.on('error', reject);
  });
}
const HEARD = ['200000', '0001ff', '1000'];

async function tunnelTo(proxyPort: number, host: string, port: number) {
  const client = await connectRaw(proxyPort);
  client.write(`CONNECT ${host}:${port} HTTP/1.1\r\nHost: ${host}:${port}\r\n\r\n`);
  expect(await client.readUntil('\r\n\r\n')).toMatch(/^HTTP\/1\.1 200 /);
  client.socket.removeAllListeners('data');
  return client.socket;
}

const over = (socket: () => unknown, agent: Agent = new Agent()): ClientOptions => {
  agent.createConnection = socket as never;
  return { agent };
};

test('a WebSocket goes through by Upgrade in absolute-form', async () => {
  await using origin = await startEcho(createServer());
  await using running = await startTestCompanion();
  const options = over(() => connect(running.port, '127.0.0.1'));
  options.finishRequest = request => {
    request.path = `http://origin.test:${origin.port}/chat`;
    request.end();
  };
  expect(await echo(`ws://origin.test:${origin.port}/chat`, options)).toEqual(HEARD);
});

test('a WebSocket goes through by CONNECT, as browsers do for ws:', async () => {
  await using origin = await startEcho(createServer());
  await using running = await startTestCompanion();
  const socket = await tunnelTo(running.port, 'origin.test', origin.port);
  expect(
    await echo(
      `ws://origin.test:${origin.port}/chat`,
      over(() => socket),
    ),
  ).toEqual(HEARD);
});

test('a WebSocket goes through by CONNECT with TLS inside', async () => {
  const authority = await makeTestAuthority();
  await using origin = await startEcho(createHttpsServer(await authority.issue('origin.test')));
  await using running = await startTestCompanion();
  const socket = await tunnelTo(running.port, 'origin.test', origin.port);
  const tls = () => connectTls({ socket, servername: 'origin.test', ca: authority.pem });
  expect(await echo(`wss://origin.test:${origin.port}/chat`, over(tls, new TlsAgent()))).toEqual(HEARD);
});
