// The client against a real WebSocket server that speaks shared/control.
import type { AddressInfo } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import { WebSocketServer, type WebSocket as ServerSocket } from 'ws';
import { ControlClient, type LinkState } from '../../extension/control/control-client.ts';
import { CLOSE_GOING_AWAY, CLOSE_UNPAIRED, PROTOCOL_VERSION, SUBPROTOCOL } from '../../shared/control.ts';

const closing: (() => void)[] = [];
afterEach(() => {
  for (const close of closing.splice(0)) close();
});

interface ServerOptions {
  admit?: (secret: string) => boolean;
  protocol?: number;
  port?: number;
  /** Greets, and answers nothing. */
  deaf?: boolean;
}

async function startServer(options: ServerOptions = {}) {
  const secrets: string[] = [];
  const sockets: ServerSocket[] = [];
  const server = new WebSocketServer({
    host: '127.0.0.1',
    port: options.port ?? 0,
    handleProtocols: () => SUBPROTOCOL,
    verifyClient: ({ req }: { req: { headers: Record<string, string | string[] | undefined> } }) => {
      const secret = String(req.headers['sec-websocket-protocol']).split(', ')[1] ?? '';
      secrets.push(secret);
      return options.admit?.(secret) ?? true;
    },
  });
  await new Promise(resolve => server.once('listening', resolve));
  server.on('connection', socket => {
    sockets.push(socket);
    const paired = secrets.at(-1)?.startsWith('code.');
    socket.send(
      JSON.stringify({
        type: 'hello',
        protocol: options.protocol ?? PROTOCOL_VERSION,
        version: '0.1.0',
        client: 'Chromium',
        proxy: { host: '127.0.0.1', port: 8228 },
        pacUrl: 'http://127.0.0.1:8228/secret/proxy.pac',
        state: { revision: 1, sites: [], routes: ['companion'], default: 'companion', rules: 0, lists: [] },
        token: paired ? 'fresh' : undefined,
      }),
    );
    socket.on('message', data => {
      if (options.deaf) return;
      const { id, type } = JSON.parse(String(data)) as { id: number; type: string };
      if (type === 'set-site') socket.send(JSON.stringify({ type: 'refused', id, message: 'No such route.' }));
      else if (type === 'explain') socket.send('{"type":"alive"}');
      else if (type !== 'alive') socket.send(JSON.stringify({ type: 'done', id }));
    });
  });
  closing.push(() => {
    for (const socket of sockets) socket.terminate();
    server.close();
  });
  return { port: (server.address() as AddressInfo).port, secrets, sockets, server };
}

function startClient(port: number, token: string | null = 'abc') {
  const links: LinkState[] = [];
  const heard: string[] = [];
  const client = new ControlClient({
    where: () => ({ port, token }),
    onLink: link => links.push(link),
    onHello: hello => heard.push(`hello ${hello.token ?? ''}`.trim()),
    onEvent: event => heard.push(event.type),
    onWrongVersion: version => heard.push(`version ${version}`),
    onUnpaired: () => heard.push('unpaired'),
  });
  closing.push(() => client.drop());
  const until = async (what: string, is: () => boolean) => {
    for (let i = 0; i < 200 && !is(); i++) await new Promise(resolve => setTimeout(resolve, 20));
    expect(is(), `${what}; links: ${links.join(' ')}; heard: ${heard.join(' ')}`).toBe(true);
  };
  return { client, links, heard, until };
}

test('it connects by its token and asks; refusals come as sentences', async () => {
  const server = await startServer();
  const { client, until } = startClient(server.port);
  client.connect();
  await until('up', () => client.link === 'up');
  expect(server.secrets).toEqual(['token.abc']);
  expect(await client.ask({ type: 'follow', recent: 0 })).toMatchObject({ type: 'done' });
  await expect(client.ask({ type: 'set-site', site: 'a.test', route: 'nope' })).rejects.toThrow('No such route.');
});

test('it pairs by a code and is given the token once', async () => {
  const server = await startServer();
  const { client, heard } = startClient(server.port, null);
  await client.pair(server.port, '123456');
  expect(server.secrets).toEqual(['code.123456']);
  expect(heard).toContain('hello fresh');
});

test('a wrong code is told from a companion that is not there', async () => {
  const server = await startServer({ admit: () => false });
  const { client } = startClient(server.port, null);
  await expect(client.pair(server.port, '000000')).rejects.toThrow('code was not accepted');
  server.server.close();
  const { port } = server;
  await new Promise(resolve => setTimeout(resolve, 50));
  await expect(client.pair(port, '000000')).rejects.toThrow(`Nothing answers on port ${port}`);
});

test('it comes back by itself when the companion does', async () => {
  const server = await startServer();
  const { client, until } = startClient(server.port);
  client.connect();
  await until('up', () => client.link === 'up');
  for (const socket of server.sockets) socket.terminate();
  server.server.close();
  await until('gone', () => client.link === 'not-found');
  await startServer({ port: server.port });
  await until('up again', () => client.link === 'up');
});

test('an unpaired client stays away and says so', async () => {
  const server = await startServer();
  const { client, heard, until } = startClient(server.port);
  client.connect();
  await until('up', () => client.link === 'up');
  server.sockets[0]!.close(CLOSE_UNPAIRED);
  await until('unpaired', () => heard.includes('unpaired') && client.link === 'not-paired');
});

test('another version is told, no request goes out, and pairing with it says why', async () => {
  const server = await startServer({ protocol: PROTOCOL_VERSION + 1 });
  const { client, heard, until } = startClient(server.port);
  client.connect();
  await until('wrong version', () => client.link === 'wrong-version');
  expect(heard).toEqual(['version 0.1.0']);
  await expect(client.ask({ type: 'follow', recent: 0 })).rejects.toThrow('not connected');
  await expect(client.pair(server.port, '123456')).rejects.toThrow('another version');
});

test('while the companion is away the link says so once, however often it is tried', async () => {
  const server = await startServer();
  const { port } = server;
  server.server.close();
  const { client, links } = startClient(port);
  expect(await client.attempt()).toBe('not-found');
  expect(await client.attempt()).toBe('not-found');
  expect(links).toEqual(['not-found']);
});

test('what answers and does not know the token is told from nothing at all', async () => {
  const server = await startServer({ admit: () => false });
  const { client } = startClient(server.port);
  expect(await client.attempt()).toBe('not-paired');
});

test('a companion that is up but silent is taken for gone when a person looks', async () => {
  const server = await startServer({ deaf: true });
  const { client, links, until } = startClient(server.port);
  expect(await client.attempt()).toBe('up');
  server.server.close();
  client.check();
  await until('found silent', () => links.includes('not-found'));
});

test('a companion that says goodbye and comes back is not taken for a stranger', async () => {
  const server = await startServer();
  const { client, links, until } = startClient(server.port);
  expect(await client.attempt()).toBe('up');
  server.sockets[0]!.close(CLOSE_GOING_AWAY);
  await until('up again', () => server.sockets.length === 2 && client.link === 'up');
  expect(links).not.toContain('not-paired');
});

test('a request without a link fails at once, and one that the link outlives fails with it', async () => {
  const server = await startServer();
  const { client, until } = startClient(server.port);
  await expect(client.ask({ type: 'follow', recent: 0 })).rejects.toThrow('not connected');
  client.connect();
  await until('up', () => client.link === 'up');
  const asked = client.ask({ type: 'explain', url: 'http://a.test/' });
  server.sockets[0]!.terminate();
  await expect(asked).rejects.toThrow('gone');
});
