// Hops of kind ssh through a real OpenSSH server: one kept connection, many channels; logins; host keys that are never taken on trust.
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, readFileSync, writeFileSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type Socket as NodeSocket } from 'node:net';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { makeSshHops, type SshHops } from '../../../companion/chain/ssh-hop.ts';
import type { NamedHop } from '../../../companion/rooms.ts';
import type { HopSsh } from '../../../shared/config/hops.ts';
import type { Socket } from '../../../companion/sockets/socket.ts';
import { Fault } from '../../../shared/fault.ts';
import { haveSshd, makeKey, type Sshd, startSshd } from '../../support/sshd.ts';

/** A server that sends back what comes, and counts. */
async function startEcho() {
  const sockets = new Set<NodeSocket>();
  let connections = 0;
  const server = createServer({ allowHalfOpen: true }, socket => {
    connections++;
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket)).on('error', () => {});
    socket.pipe(socket);
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  return {
    at: { host: '127.0.0.1', port: (server.address() as AddressInfo).port },
    get connections() {
      return connections;
    },
    get open() {
      return sockets.size;
    },
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise(resolve => server.close(resolve));
    },
  };
}

const until = async (holds: () => boolean) => {
  while (!holds()) await new Promise(resolve => setTimeout(resolve, 5));
};

describe.runIf(haveSshd())('through a real sshd', { timeout: 30_000 }, () => {
  let sshd: Sshd;
  beforeAll(async () => void (sshd = await startSshd({ hosts: { 'echo.test': '127.0.0.1' } })));
  afterAll(async () => sshd[Symbol.asyncDispose]());

  const hopOf = (server: Sshd, ssh: HopSsh = {}, more: Partial<NamedHop> = {}): NamedHop => ({
    name: 'gate',
    kind: 'ssh',
    host: '127.0.0.1',
    port: server.port,
    username: server.username,
    ssh: { key: server.key, hostKey: server.fingerprints[0]!, ...ssh },
    ...more,
  });
  const closing = (hops: SshHops) => Object.assign(hops, { [Symbol.dispose]: () => hops.close() });
  let reached = 0;
  const open = (
    hops: SshHops,
    hop: NamedHop,
    wanted: { host: string; port: number },
    signal = new AbortController().signal,
    timeout = 10_000,
  ): Promise<Socket> =>
    hops.open({
      key: JSON.stringify(hop),
      hop,
      wanted,
      timeout,
      signal,
      one: { stage: 'connect', steps: [] },
      reach: async () => {
        reached++;
        const socket = connect({ host: hop.host, port: hop.port });
        await once(socket, 'connect');
        return { socket, rest: Buffer.alloc(0) };
      },
    });
  const say = async (socket: Socket, words: string) => {
    socket.end(words);
    return text(socket as unknown as NodeSocket);
  };
  const faultOf = async (work: Promise<unknown>): Promise<Fault> => {
    const error: unknown = await work.then(
      () => null,
      (reason: unknown) => reason,
    );
    if (!(error instanceof Fault)) throw error ?? new Error('it did not fail');
    return error;
  };

  test('many tunnels share one connection, and names are resolved at the hop', async () => {
    await using echo = await startEcho();
    using hops = closing(makeSshHops());
    reached = 0;
    const hop = hopOf(sshd);
    const target = { host: 'echo.test', port: echo.at.port };
    const said = await Promise.all(
      Array.from({ length: 20 }, async (_, i) => say(await open(hops, hop, target), `number ${i}`)),
    );
    expect(said).toEqual(Array.from({ length: 20 }, (_, i) => `number ${i}`));
    expect(reached).toBe(1);
    expect(hops.size).toBe(1);
    await until(() => echo.open === 0);
  });

  test('a megabyte and more goes both ways, past a reader who waits', async () => {
    await using echo = await startEcho();
    using hops = closing(makeSshHops());
    const socket = await open(hops, hopOf(sshd), echo.at);
    const sent = Buffer.alloc(6 * 1024 * 1024, 'detour ');
    socket.end(sent);
    // It is there and nobody takes it: no more than what is read ahead is taken from the channel.
    await once(socket as unknown as NodeSocket, 'readable');
    await until(() => socket.readableLength >= 64 * 1024);
    expect(socket.readableLength).toBeLessThan(1024 * 1024);
    const parts: Buffer[] = [];
    for await (const part of socket as unknown as NodeSocket) parts.push(part as Buffer);
    expect(Buffer.concat(parts).equals(sent)).toBe(true);
  });

  test('a connection that broke is an error for its tunnels, and the next tunnel makes a new one', async () => {
    await using echo = await startEcho();
    using hops = closing(makeSshHops());
    const socket = await open(hops, hopOf(sshd), echo.at);
    const before = sshd.logins;
    const broke = once(socket as unknown as NodeSocket, 'error');
    sshd.cutConnections();
    expect(((await broke)[0] as NodeJS.ErrnoException).code).toBe('ECONNRESET');
    expect(await say(await open(hops, hopOf(sshd), echo.at), 'again')).toBe('again');
    expect(sshd.logins).toBe(before + 1);
  });

  test('it is closed when it has been idle, and not while a tunnel is open', async () => {
    await using echo = await startEcho();
    using hops = closing(makeSshHops(process.env, 20));
    const socket = await open(hops, hopOf(sshd), echo.at);
    expect(hops.size).toBe(1);
    expect(await say(socket, 'bye')).toBe('bye');
    await until(() => hops.size === 0);
    expect(await say(await open(hops, hopOf(sshd), echo.at), 'back')).toBe('back');
  });

  test('who leaves takes only his own tunnel along', async () => {
    await using echo = await startEcho();
    using hops = closing(makeSshHops());
    const leaver = new AbortController();
    const first = open(hops, hopOf(sshd), echo.at, leaver.signal);
    const second = open(hops, hopOf(sshd), echo.at);
    leaver.abort();
    expect((await faultOf(first)).kind).toBe('downstream_gone');
    expect(await say(await second, 'stays')).toBe('stays');
  });

  test('with the last who waits for it the work ends', async () => {
    using hops = closing(makeSshHops());
    let accepted = 0;
    const silent = createServer(socket => {
      accepted++;
      socket
        .on('close', () => accepted--)
        .on('error', () => {})
        .resume();
    });
    await once(silent.listen(0, '127.0.0.1'), 'listening');
    const { port } = silent.address() as AddressInfo;
    const leaver = new AbortController();
    const only = faultOf(open(hops, { ...hopOf(sshd), port }, { host: 'a.test', port: 80 }, leaver.signal));
    await until(() => accepted === 1);
    leaver.abort();
    expect((await only).kind).toBe('downstream_gone');
    await until(() => accepted === 0 && hops.size === 0);
    silent.close();
  });

  test('a server that never says who it is costs the time of one hop', async () => {
    const quiet = createServer(() => {}).listen(0, '127.0.0.1');
    await once(quiet, 'listening');
    using hops = closing(makeSshHops());
    const { port } = quiet.address() as AddressInfo;
    const hop = { ...hopOf(sshd), port };
    const fault = await faultOf(open(hops, hop, { host: 'a.test', port: 80 }, undefined, 50));
    expect([fault.kind, fault.hop]).toEqual(['connection_timeout', 'gate']);
    expect(hops.size).toBe(0);
    quiet.close();
  });

  test('a server that speaks no SSH is told apart', async () => {
    const web = createServer(socket => void socket.on('error', () => {}).end('HTTP/1.1 400 Bad Request\r\n\r\n'));
    await once(web.listen(0, '127.0.0.1'), 'listening');
    using hops = closing(makeSshHops());
    const { port } = web.address() as AddressInfo;
    const fault = await faultOf(open(hops, { ...hopOf(sshd), port }, { host: 'a.test', port: 80 }));
    expect(fault.hop).toBe('gate');
    expect(['hop_protocol_error', 'connection_terminated']).toContain(fault.kind);
    web.close();
  });

  test('a target that is away is not a no by policy', async () => {
    using hops = closing(makeSshHops());
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    await new Promise(resolve => server.close(resolve));
    const refused = await faultOf(open(hops, hopOf(sshd), { host: '127.0.0.1', port }));
    expect([refused.kind, refused.hop]).toEqual(['hop_could_not_reach', 'gate']);
    const unknown = await faultOf(open(hops, hopOf(sshd), { host: 'nowhere.invalid', port: 80 }));
    expect(unknown.kind).toBe('hop_could_not_reach');
    expect(hops.size).toBe(1);
  });

  test('what its rules forbid is a refusal', async () => {
    await using echo = await startEcho();
    await using strict = await startSshd({ config: ['PermitOpen 127.0.0.1:1'] });
    using hops = closing(makeSshHops());
    const fault = await faultOf(open(hops, hopOf(strict), echo.at));
    expect([fault.kind, fault.hop]).toEqual(['hop_refused', 'gate']);
    expect(fault.message).toContain('not allowed by its rules');
    expect(echo.connections).toBe(0);
  });

  describe('the host key', () => {
    const other = `SHA256:${'A'.repeat(43)}`;
    const withKnownHosts = async (lines: string, hop = hopOf(sshd)) => {
      using hops = closing(makeSshHops());
      await using echo = await startEcho();
      const ssh = { key: sshd.key, knownHosts: lines };
      return await faultOf(open(hops, { ...hop, ssh }, echo.at));
    };

    test('A66: another one than the pinned is refused before anything is shown to it, with its fingerprint', async () => {
      using hops = closing(makeSshHops());
      const before = sshd.logins;
      const fault = await faultOf(open(hops, hopOf(sshd, { hostKey: other }), { host: 'a.test', port: 80 }));
      expect([fault.kind, fault.hop]).toEqual(['hop_not_trusted', 'gate']);
      expect(fault.message).toContain(`hostKey: "${sshd.fingerprints[0]}"`);
      expect(sshd.logins).toBe(before);
    });

    test('known_hosts as ssh writes it is enough, hashed too', async () => {
      await using echo = await startEcho();
      for (const hashed of [false, true]) {
        const file = join(sshd.folder, `known_hosts_${hashed}`);
        writeFileSync(file, readFileSync(sshd.knownHosts));
        if (hashed) execFileSync('ssh-keygen', ['-H', '-f', file], { stdio: 'ignore' });
        if (hashed) expect(readFileSync(file, 'utf8')).not.toContain('127.0.0.1');
        using hops = closing(makeSshHops());
        const hop = { ...hopOf(sshd), ssh: { key: sshd.key, knownHosts: readFileSync(file, 'utf8') } };
        expect(await say(await open(hops, hop, echo.at), 'yes')).toBe('yes');
      }
    });

    test('A66: a server that the file does not name is unknown, and the line to add is told', async () => {
      const fault = await withKnownHosts(`127.0.0.1 ${sshd.hostKeys[0]}\n`);
      expect(fault.kind).toBe('hop_not_trusted');
      expect(fault.message).toContain(`[127.0.0.1]:${sshd.port} ${sshd.hostKeys[0]}`);
      expect(fault.message).toContain(sshd.fingerprints[0]);
    });

    test('A66: a changed key is told with the line that has another', async () => {
      makeKey(join(sshd.folder, 'stranger'));
      const stranger = readFileSync(join(sshd.folder, 'stranger.pub'), 'utf8').split(' ').slice(0, 2).join(' ');
      const fault = await withKnownHosts(`# mine\n[127.0.0.1]:${sshd.port} ${stranger}\n`);
      expect(fault.kind).toBe('hop_not_trusted');
      expect(fault.message).toMatch(/ssh\.knownHosts:2 has another/);
    });

    test('a revoked key is refused, though another line has it', async () => {
      const name = `[127.0.0.1]:${sshd.port}`;
      const fault = await withKnownHosts(`${name} ${sshd.hostKeys[0]}\n@revoked * ${sshd.hostKeys[0]}\n`);
      expect(fault.kind).toBe('hop_not_trusted');
      expect(fault.message).toMatch(/ssh\.knownHosts:2 revokes/);
    });

    test('of several keys the server is asked for the one that is known', async () => {
      await using echo = await startEcho();
      await using many = await startSshd({ hostKeys: ['ed25519', 'ecdsa', 'rsa'] });
      for (const key of many.hostKeys) {
        using hops = closing(makeSshHops());
        const hop = { ...hopOf(many), ssh: { key: many.key, knownHosts: `[127.0.0.1]:${many.port} ${key}\n` } };
        expect(await say(await open(hops, hop, echo.at), 'yes')).toBe('yes');
      }
    });

    test('without hostKey and knownHosts the known_hosts of the user counts, and nothing else', async () => {
      using hops = closing(makeSshHops({ HOME: sshd.folder }));
      const hop = { ...hopOf(sshd), ssh: { key: sshd.key } };
      const fault = await faultOf(open(hops, hop, { host: 'a.test', port: 80 }));
      expect(fault.kind).toBe('hop_login_unusable');
      expect(fault.message).toContain('.ssh/known_hosts');
    });
  });

  describe('the login', () => {
    test('a key with a passphrase; a wrong or missing one is told apart, and never repeated', async () => {
      await using echo = await startEcho();
      await using locked = await startSshd({ passphrase: 'open sesame' });
      using hops = closing(makeSshHops());
      const hop = hopOf(locked, { passphrase: 'open sesame' });
      expect(await say(await open(hops, hop, echo.at), 'yes')).toBe('yes');
      const wrong = await faultOf(open(hops, hopOf(locked, { passphrase: 'wr0ng one' }), echo.at));
      expect(wrong.kind).toBe('hop_login_unusable');
      expect(wrong.message).toContain('ssh.passphrase does not open ssh.key');
      expect(wrong.message).not.toContain('wr0ng');
      const none = await faultOf(open(hops, hopOf(locked), echo.at));
      expect(none.message).toContain('the file has no ssh.passphrase');
    });

    test('a key that the server does not know', async () => {
      using hops = closing(makeSshHops());
      const file = join(sshd.folder, 'unknown_id');
      makeKey(file);
      const fault = await faultOf(
        open(hops, hopOf(sshd, { key: readFileSync(file, 'utf8') }), { host: 'a.test', port: 80 }),
      );
      expect([fault.kind, fault.hop]).toEqual(['hop_authentication_failed', 'gate']);
      expect(fault.message).toContain('tried the key; it takes publickey');
    });

    test('a key that is none names hop and field', async () => {
      using hops = closing(makeSshHops());
      const odd = { 'no private key': 'hello\n', 'the private one': readFileSync(`${sshd.keyFile}.pub`, 'utf8') };
      for (const [why, key] of Object.entries(odd)) {
        const fault = await faultOf(open(hops, hopOf(sshd, { key }), { host: 'a.test', port: 80 }));
        expect(fault.kind).toBe('hop_login_unusable');
        expect(fault.message).toMatch(/"gate".*ssh\.key/);
        expect(fault.message).toContain(why);
      }
    });

    test('by the agent', async () => {
      await using echo = await startEcho();
      const socketFile = join(sshd.folder, 'agent');
      const agent = spawn('ssh-agent', ['-D', '-a', socketFile], { stdio: ['ignore', 'pipe', 'ignore'] });
      try {
        await once(agent.stdout, 'data');
        const env = { SSH_AUTH_SOCK: socketFile };
        using hops = closing(makeSshHops(env));
        const byAgent = { ...hopOf(sshd), ssh: { agent: true, hostKey: sshd.fingerprints[0]! } };
        const empty = await faultOf(open(hops, byAgent, echo.at));
        expect(empty.kind).toBe('hop_authentication_failed');
        chmodSync(sshd.keyFile, 0o600);
        execFileSync('ssh-add', ['-q', sshd.keyFile], { env: { ...process.env, ...env } });
        expect(await say(await open(hops, byAgent, echo.at), 'yes')).toBe('yes');
      } finally {
        agent.kill();
      }
    });

    test('without a key and a password the agent is asked, and without one that is told', async () => {
      using hops = closing(makeSshHops({}));
      const hop = { ...hopOf(sshd), ssh: { hostKey: sshd.fingerprints[0]! } };
      const fault = await faultOf(open(hops, hop, { host: 'a.test', port: 80 }));
      expect(fault.kind).toBe('hop_login_unusable');
      expect(fault.message).toContain('SSH_AUTH_SOCK names no agent');
    });

    test('by password, also where the server asks for it in words of its own; a wrong one is told', async () => {
      await using echo = await startEcho();
      const account = { username: 'walker', password: 's3cret-walk' };
      await using strict = await startSshd({ account });
      using hops = closing(makeSshHops());
      const hop = hopOf(strict, { key: undefined }, account);
      expect(await say(await open(hops, hop, echo.at), 'yes')).toBe('yes');
      const wrong = await faultOf(open(hops, { ...hop, password: 'wr0ng' }, echo.at));
      expect(wrong.kind).toBe('hop_authentication_failed');
      expect(wrong.message).toContain('tried password; it takes');
      expect(wrong.message).not.toContain('wr0ng');
    });

    test('a password where the server takes none is not sent', async () => {
      using hops = closing(makeSshHops());
      const hop = hopOf(sshd, { key: undefined }, { password: 's3cret' });
      const fault = await faultOf(open(hops, hop, { host: 'a.test', port: 80 }));
      expect(fault.kind).toBe('hop_authentication_failed');
      expect(fault.message).toContain('nothing that the file gives is taken');
      expect(fault.message).not.toContain('s3cret');
    });
  });
});
