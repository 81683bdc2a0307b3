// Hops of kind ssh: one SSH connection is kept for each hop and each way to it, and every tunnel is a channel of it. It is made when it is first needed,
// shared by whoever asks meanwhile, closed when it has been idle, and made anew after it broke.
import { readFile, stat } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import type { Endpoint } from '../../shared/endpoint.ts';
import { calledOff, type Fault } from '../../shared/fault.ts';
import type { Milliseconds } from '../../shared/units.ts';
import type { Socket } from '../sockets/socket.ts';
import { logIn, type SshConnection, sshFault, sshLibrary, type SshLogin, type SshPlace } from './ssh-connection.ts';
import { type HostKeyTrust, keysFor } from './ssh-known-hosts.ts';

/** A connection without a channel is closed after so long. */
const IDLE_FOR: Milliseconds = 60_000;
/** Kept connections of all hops; when it is reached, the one that has been idle for longest goes. */
const MAX_CONNECTIONS = 64;
/** Larger key files and known_hosts files than this are not read. */
const MAX_KEY_FILE = 64 * 1024;
const MAX_KNOWN_HOSTS = 4 * 1024 * 1024;

/** What the file says of an ssh hop, with its secrets found and its paths absolute. */
export interface SshHop extends SshPlace {
  readonly username: string;
  readonly password?: string | undefined;
  readonly ssh?: SshSettings | undefined;
}
export interface SshSettings {
  /** A private key file. */
  readonly key?: string | undefined;
  readonly passphrase?: string | undefined;
  /** The agent at SSH_AUTH_SOCK. */
  readonly agent?: boolean | undefined;
  readonly knownHosts?: string | undefined;
  /** Fingerprints, `SHA256:…`. */
  readonly hostKey?: string | readonly string[] | undefined;
}

/** One tunnel, asked for. */
export interface SshAsk {
  /** Names the way to the hop, the hop and its login: who asks with the same key shares a connection. */
  readonly key: string;
  readonly hop: SshHop;
  readonly wanted: Endpoint;
  /** Makes a socket to the hop; called where no connection stands. Its signal is not that of one asker: others may wait for it too. */
  readonly reach: (signal: AbortSignal) => Promise<{ readonly socket: Socket; readonly rest: Buffer }>;
  /** For the login, and then for the channel. */
  readonly timeout: Milliseconds;
  readonly signal: AbortSignal;
}

export interface SshHops {
  /** A socket to `wanted` by way of the hop, not flowing. Throws what `reach` throws, and the faults of ssh-connection.ts. */
  open(ask: SshAsk): Promise<Socket>;
  /** Connections that stand or are being made. */
  readonly size: number;
  close(): void;
}

interface Kept {
  readonly made: Promise<SshConnection>;
  /** Those who wait for it to be made. */
  waiting: number;
  readonly controller: AbortController;
  connection: SshConnection | null;
  idleTimer: NodeJS.Timeout | undefined;
}

export function makeSshHops(env: NodeJS.ProcessEnv = process.env, idleFor: Milliseconds = IDLE_FOR): SshHops {
  /** The least recently used first. */
  const kept = new Map<string, Kept>();

  const forget = (key: string, one: Kept) => {
    clearTimeout(one.idleTimer);
    if (kept.get(key) === one) kept.delete(key);
  };
  const drop = (key: string, one: Kept) => {
    forget(key, one);
    one.controller.abort(calledOff('the companion closes'));
    one.connection?.close();
  };

  function make({ key, hop, reach, timeout }: SshAsk): Kept {
    if (kept.size >= MAX_CONNECTIONS)
      for (const [oldKey, old] of kept) {
        if (old.connection?.channels !== 0) continue;
        drop(oldKey, old);
        break;
      }
    if (kept.size >= MAX_CONNECTIONS)
      throw sshFault('destination_unavailable', hop, `${MAX_CONNECTIONS} SSH connections are open`);
    const controller = new AbortController();
    const { signal } = controller;
    const connect = async () => {
      const [login, trust] = await Promise.all([loginOf(hop, env), trustOf(hop, env)]);
      const { socket, rest } = await reach(signal);
      const connection = await logIn(socket, rest, hop, login, trust, timeout, signal);
      connection.whenGone = () => forget(key, one);
      connection.whenIdle = () => {
        clearTimeout(one.idleTimer);
        one.idleTimer = setTimeout(() => {
          if (connection.channels === 0) drop(key, one);
        }, idleFor).unref();
      };
      one.connection = connection;
      // Everybody who wanted it may have left.
      connection.whenIdle();
      return connection;
    };
    const one: Kept = { made: connect(), waiting: 0, controller, connection: null, idleTimer: undefined };
    one.made.catch(() => forget(key, one));
    kept.set(key, one);
    return one;
  }

  /** Waits for it as long as this asker does; with the last who leaves, the work ends. */
  function madeFor(one: Kept, signal: AbortSignal): Promise<SshConnection> {
    return new Promise((resolve, reject) => {
      one.waiting++;
      const left = () => {
        signal.removeEventListener('abort', onAbort);
        one.waiting--;
      };
      const onAbort = () => {
        left();
        if (one.waiting === 0 && one.connection === null) one.controller.abort(signal.reason);
        reject(calledOff(signal.reason));
      };
      signal.addEventListener('abort', onAbort);
      one.made.then(
        connection => (left(), resolve(connection)),
        error => (left(), reject(error)),
      );
    });
  }

  return {
    async open(ask) {
      const { key, wanted, timeout, signal } = ask;
      for (let again = false; ; again = true) {
        if (signal.aborted) throw calledOff(signal.reason);
        let one = kept.get(key);
        const stood = one?.connection != null;
        if (one === undefined || one.controller.signal.aborted || one.connection?.isOpen === false) one = make(ask);
        else {
          kept.delete(key);
          kept.set(key, one);
        }
        const connection = one.connection ?? (await madeFor(one, signal));
        clearTimeout(one.idleTimer);
        try {
          return await connection.open(wanted, timeout, signal);
        } catch (error) {
          if (signal.aborted) throw calledOff(signal.reason);
          // It broke since it was last used, and nothing of the tunnel was sent.
          if (stood && !again && !connection.isOpen && (error as Fault).kind === 'connection_terminated') continue;
          throw error;
        }
      }
    },
    get size() {
      return kept.size;
    },
    close() {
      for (const [key, one] of kept) drop(key, one);
    },
  };
}

/** The key, the agent and the password that the file names, ready for use; without a word in it, the agent. Throws hop_login_unusable. */
async function loginOf(hop: SshHop, env: NodeJS.ProcessEnv): Promise<SshLogin> {
  const { username, password, ssh = {} } = hop;
  let key: SshLogin['key'] = null;
  if (ssh.key !== undefined) {
    const text = await fileOf(hop, 'ssh.key', ssh.key, MAX_KEY_FILE);
    const passphrase = ssh.passphrase;
    const parsed = sshLibrary().utils.parseKey(text, passphrase);
    if (parsed instanceof Error) {
      const why = /encrypted|passphrase|integrity/i.test(parsed.message)
        ? passphrase === undefined
          ? 'it is encrypted, and the file gives no ssh.passphrase'
          : 'ssh.passphrase does not open it'
        : 'it is no private key that can be read here';
      throw sshFault('hop_login_unusable', hop, `ssh.key ${ssh.key}: ${why}`, parsed);
    }
    if (!(Array.isArray(parsed) ? parsed[0] : parsed)?.isPrivateKey())
      throw sshFault(
        'hop_login_unusable',
        hop,
        `ssh.key ${ssh.key}: it is a public key, and the private one is needed`,
      );
    key = { text, passphrase };
  }
  const wantsAgent = ssh.agent ?? (ssh.key === undefined && password === undefined);
  const agent = wantsAgent ? (env['SSH_AUTH_SOCK'] ?? '') : null;
  if (agent === '') {
    const what = ssh.agent ? 'ssh.agent is on' : 'it has no ssh.key and no password, so the agent is asked';
    throw sshFault('hop_login_unusable', hop, `${what}, and SSH_AUTH_SOCK names no agent`);
  }
  return { username, key, agent, password };
}

/** What the server has to show. Without a word in the file, the user's own known_hosts. Throws hop_login_unusable. */
async function trustOf(hop: SshHop, env: NodeJS.ProcessEnv): Promise<HostKeyTrust> {
  const { hostKey, knownHosts } = hop.ssh ?? {};
  if (hostKey !== undefined) return { pins: typeof hostKey === 'string' ? [hostKey] : hostKey };
  const file = knownHosts ?? join(env['HOME'] || homedir(), '.ssh', 'known_hosts');
  const text = await fileOf(hop, 'ssh.knownHosts', file, MAX_KNOWN_HOSTS);
  return { file, keys: keysFor(text.toString('utf8'), hop.host, hop.port), host: hop.host, port: hop.port };
}

async function fileOf(hop: SshHop, field: string, path: string, limit: number): Promise<Buffer> {
  try {
    const { size } = await stat(path);
    if (size > limit)
      throw sshFault('hop_login_unusable', hop, `${field} ${path}: it is larger than ${limit / 1024} KiB`);
    return await readFile(path);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === undefined) throw error;
    const why = code === 'ENOENT' ? 'there is no such file' : code === 'EACCES' ? 'it may not be read' : code;
    throw sshFault('hop_login_unusable', hop, `${field} ${path}: ${why}`, error);
  }
}
