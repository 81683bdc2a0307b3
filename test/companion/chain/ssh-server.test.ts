// What a real sshd cannot be made to do: a server of ssh2's that asks in its own words, falls silent, refuses for want of resources.
import { once } from 'node:events';

import { type AddressInfo, connect, type Socket as NodeSocket } from 'node:net';
import { text } from 'node:stream/consumers';
import ssh2, { type AuthContext, type Connection, type ServerChannel } from 'ssh2';
import { beforeAll, describe, expect, test } from 'vitest';
import { fingerprintOf } from '../../../companion/chain/ssh-known-hosts.ts';
import { makeSshHops } from '../../../companion/chain/ssh-hop.ts';
import type { NamedHop } from '../../../companion/rooms.ts';
import type { Fault } from '../../../shared/fault.ts';

interface Script {
  /** Absent: whoever comes may enter. */
  readonly authenticate?: (context: AuthContext) => void;
  /** What becomes of a tunnel that is asked for. */
  readonly tunnel?: (accept: () => ServerChannel, reject: () => void, connection: Connection) => void;
}

let hostKey = '';
let fingerprint = '';
beforeAll(() => {
  const made = ssh2.utils.generateKeyPairSync('ed25519');
  hostKey = made.private;
  const parsed = ssh2.utils.parseKey(made.public);
  if (parsed instanceof Error) throw parsed;
  fingerprint = fingerprintOf((Array.isArray(parsed) ? parsed[0]! : parsed).getPublicSSH());
});

async function startServer(script: Script, hops = makeSshHops({})) {
  const connections = new Set<Connection>();
  let logins = 0;
  const server = new ssh2.Server({ hostKeys: [hostKey] }, connection => {
    connections.add(connection);
    connection.on('error', () => {}).on('close', () => connections.delete(connection));
    connection.on('authentication', context => (script.authenticate ?? (one => one.accept()))(context));
    connection.on('ready', () => logins++);
    connection.on('tcpip', (accept, reject) => {
      if (script.tunnel) return script.tunnel(accept, reject, connection);
      const channel = accept();
      channel.pipe(channel);
    });
  });
  await once(server.listen(0, '127.0.0.1') as never, 'listening');
  const port = (server.address() as AddressInfo).port;
  const hop: NamedHop = {
    name: 'gate',
    kind: 'ssh',
    host: '127.0.0.1',
    port,
    username: 'me',
    password: 's3cret',
    ssh: { hostKey: fingerprint },
  };
  return {
    hops,
    get logins() {
      return logins;
    },
    get connections() {
      return connections.size;
    },
    async open(timeout = 10_000, key = 'gate') {
      const socket = await hops.open({
        key,
        hop,
        wanted: { host: 'a.test', port: 80 },
        one: { stage: 'connect', steps: [] },
        timeout,
        signal: new AbortController().signal,
        async reach() {
          const transport = connect(port, '127.0.0.1');
          await once(transport, 'connect');
          return { socket: transport, rest: Buffer.alloc(0) };
        },
      });
      return socket as unknown as NodeSocket;
    },
    async [Symbol.asyncDispose]() {
      hops.close();
      for (const connection of connections) connection.end();
      await new Promise<void>(resolve => server.close(() => resolve()));
    },
  };
}

const faultOf = async (work: Promise<unknown>): Promise<Fault> =>
  work.then(
    () => expect.unreachable('it did not fail'),
    (fault: Fault) => fault,
  );

describe('a server', { timeout: 20_000 }, () => {
  test('that asks for the password in words of its own gets it where nothing is shown, and for nothing else', async () => {
    const answers: string[][] = [];
    await using server = await startServer({
      authenticate(context) {
        if (context.method !== 'keyboard-interactive') return context.reject(['keyboard-interactive']);
        context.prompt([{ prompt: 'Name of your first pet?', echo: true }], first => {
          answers.push(first);
          context.prompt([{ prompt: 'Password: ', echo: false }], second => {
            answers.push(second);
            context.accept();
          });
        });
      },
    });
    const socket = await server.open();
    socket.end('hello');
    expect(await text(socket)).toBe('hello');
    expect(answers).toEqual([[''], ['s3cret']]);
  });

  test('that wants both a password and an answer is logged in to step by step', async () => {
    const passed = new Set<string>();
    await using server = await startServer({
      authenticate(context) {
        if (context.method === 'password' && context.password === 's3cret') {
          passed.add('password');
          return context.reject(['keyboard-interactive'], true);
        }
        if (context.method === 'keyboard-interactive' && passed.has('password'))
          return context.prompt([{ prompt: 'Again: ', echo: false }], () => context.accept());
        context.reject(['password']);
      },
    });
    (await server.open()).destroy();
    expect(server.logins).toBe(1);
  });

  test('that falls silent when asked for a tunnel costs one time-out, and its connection is not asked again', async () => {
    let silent = true;
    await using server = await startServer({
      tunnel(accept) {
        if (silent) return;
        const channel = accept();
        channel.pipe(channel);
      },
    });
    const fault = await faultOf(server.open(150));
    expect([fault.kind, fault.hop]).toEqual(['connection_timeout', 'gate']);
    expect(server.hops.size).toBe(0);
    silent = false;
    const socket = await server.open();
    socket.end('again');
    expect(await text(socket)).toBe('again');
    expect(server.logins).toBe(2);
  });

  test('that breaks off when asked on a kept connection is asked again on a new one, once', async () => {
    let asked = 0;
    await using server = await startServer({
      tunnel(accept, _reject, connection) {
        asked++;
        if (asked === 2) return void connection.end();
        const channel = accept();
        channel.pipe(channel);
      },
    });
    (await server.open()).destroy();
    const socket = await server.open();
    socket.end('again');
    expect(await text(socket)).toBe('again');
    expect([asked, server.logins]).toEqual([3, 2]);
  });

  test('that closes a tunnel without a word ends it', async () => {
    await using server = await startServer({
      tunnel(accept) {
        const channel = accept();
        channel.write('half');
        channel.on('data', () => channel.close());
      },
    });
    const socket = await server.open();
    expect((await once(socket, 'data'))[0].toString()).toBe('half');
    socket.write('enough');
    await once(socket, 'close');
    expect(socket.destroyed).toBe(true);
  });

  test('is asked for so many tunnels at a time and no more', async () => {
    await using server = await startServer({});
    const sockets = await Promise.all(Array.from({ length: 128 }, () => server.open()));
    const fault = await faultOf(server.open());
    expect([fault.kind, fault.hop]).toEqual(['destination_unavailable', 'gate']);
    expect(fault.message).toContain('128 channels are open');
    sockets[0]!.destroy();
    let again: NodeSocket | null = null;
    // The place is free when the server has said so too.
    while (again === null) {
      await new Promise(resolve => setTimeout(resolve, 5));
      again = await server.open().catch(() => null);
    }
    again.end('a place is free');
    expect(await text(again)).toBe('a place is free');
    expect(server.logins).toBe(1);
  });

  test('for one connection more than are kept, the one that was used least recently goes, and none that has tunnels', async () => {
    await using server = await startServer({}, makeSshHops({}, 60_000, 2));
    const busy = await server.open(10_000, 'a');
    (await server.open(10_000, 'b')).destroy();
    let busyToo: NodeSocket | null = null;
    // Idle is who has heard the end of its tunnel.
    while (busyToo === null) {
      busyToo = await server.open(10_000, 'c').catch(() => null);
      await new Promise(resolve => setTimeout(resolve, 5));
    }
    expect(server.hops.size).toBe(2);
    const fault = await faultOf(server.open(10_000, 'd'));
    expect(fault.message).toContain('2 SSH connections are open');
    for (const socket of [busy, busyToo]) {
      socket.end('still there');
      expect(await text(socket)).toBe('still there');
    }
  });

  test('that reaches nothing keeps its connection', async () => {
    await using server = await startServer({ tunnel: (_accept, reject) => void reject() });
    for (let i = 0; i < 2; i++) expect((await faultOf(server.open())).kind).toBe('hop_could_not_reach');
    expect([server.logins, server.hops.size]).toEqual([1, 1]);
  });
});
