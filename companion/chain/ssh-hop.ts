// Hops of kind ssh: one SSH connection is kept for each hop and each way to it, and every tunnel is a channel of it. It is made when it is first needed,
// shared by whoever asks meanwhile, closed when it has been idle, and made anew after it broke.
import { createHash } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import { homedir, userInfo } from 'node:os';
import { join } from 'node:path';
import { type Endpoint, formatEndpoint } from '../../shared/endpoint.ts';
import { calledOff, type Fault } from '../../shared/fault.ts';
import type { Bytes, Milliseconds } from '../../shared/units.ts';
import type { Chain, NamedHop, Try } from '../rooms.ts';
import type { Socket } from '../sockets/socket.ts';
import type { Layer } from './layer.ts';
import { logIn, type SshConnection, sshFault, sshLibrary, type SshLogin } from './ssh-connection.ts';
import { type HostKeyTrust, keysFor } from './ssh-known-hosts.ts';

/** A connection without a channel is closed after so long. */
const IDLE_FOR: Milliseconds = 60_000;
/** Kept connections of all hops; when it is reached, the one that has been idle for longest goes. */
const MAX_CONNECTIONS = 64;
/** A larger known_hosts file of the user is not read. */
const MAX_KNOWN_HOSTS: Bytes = 1024 * 1024;

/** One tunnel, asked for. */
export interface SshAsk {
  /** Names the way to the hop, the hop and its login: who asks with the same key shares a connection. */
  readonly key: string;
  readonly hop: NamedHop;
  readonly wanted: Endpoint;
  /** Makes a socket to the hop; called where no connection stands. Its signal is not that of one asker: others may wait for it too. */
  readonly reach: (signal: AbortSignal) => Promise<{ readonly socket: Socket; readonly rest: Buffer }>;
  /** The try: who waits for a connection that is not made fails where it failed. */
  readonly one: Pick<Try, 'stage' | 'steps'>;
  /** Heard when the hop is asked for the tunnel. */
  readonly asks?: () => void;
  /** For the login, and then for the channel. */
  readonly timeout: Milliseconds;
  readonly signal: AbortSignal;
}

export interface SshHops {
  /** A socket to `wanted` by way of the hop, not flowing. Throws what `reach` throws, and the faults of ssh-connection.ts. */
  open(ask: SshAsk): Promise<Socket>;
  /** Logs in over this socket, and out again: it is closed then. Throws as `open` does. */
  tryLogin(hop: NamedHop, socket: Socket, early: Buffer, timeout: Milliseconds, signal: AbortSignal): Promise<void>;
  /** Connections that stand or are being made. */
  readonly size: number;
  close(): void;
}

/** Names the hops up to a place of a chain with all that the file says of them, the same for every chain that begins so. */
const keys = new WeakMap<Chain, string[]>();
function keyOf(chain: Chain, place: number): string {
  let known = keys.get(chain);
  if (!known) keys.set(chain, (known = []));
  known[place] ??= createHash('sha256')
    .update(JSON.stringify(chain.hops.slice(0, place + 1)))
    .digest('base64');
  return known[place];
}

/** Hops of kind ssh, for `dial`. */
export function sshLayer(hops: SshHops): Layer {
  return {
    // Nothing is asked of the hop: whoever tries it out wants to know whether we get in.
    async enter({ socket, rest }, { hop, one, deadline, now, signal }) {
      one.stage = 'greeting';
      await hops.tryLogin(hop, socket, rest, deadline - now(), signal);
      return { socket, rest: Buffer.alloc(0) };
    },
    async shared(wanted, { chain, place, hop, one, deadline, now, signal, way, stood }) {
      one.stage = 'connect';
      const socket = await hops.open({
        key: keyOf(chain, place),
        hop,
        wanted,
        timeout: deadline - now(),
        signal,
        reach: async shared => {
          const standing = await way(shared);
          stood();
          one.stage = 'greeting';
          return standing;
        },
        one,
        asks() {
          // What stood already took no time.
          for (const { name, ...at } of chain.hops.slice(one.steps.length, place + 1))
            one.steps.push({ hop: name, at: formatEndpoint(at), took: 0 });
          one.stage = 'tunnel';
        },
      });
      return { socket, rest: Buffer.alloc(0) };
    },
  };
}

interface Kept {
  readonly made: Promise<SshConnection>;
  /** The try for which it is made. */
  readonly leader: Pick<Try, 'stage' | 'steps'>;
  /** Those who wait for it to be made. */
  waiting: number;
  readonly controller: AbortController;
  connection: SshConnection | null;
  idleTimer: NodeJS.Timeout | undefined;
}

export function makeSshHops(
  env: NodeJS.ProcessEnv = process.env,
  idleFor: Milliseconds = IDLE_FOR,
  most = MAX_CONNECTIONS,
): SshHops {
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

  function make({ key, hop, one: leader, reach, timeout }: SshAsk): Kept {
    if (kept.size >= most)
      for (const [oldKey, old] of kept) {
        if (old.connection?.channels !== 0) continue;
        drop(oldKey, old);
        break;
      }
    if (kept.size >= most) throw sshFault('destination_unavailable', hop, `${most} SSH connections are open`);
    const controller = new AbortController();
    const { signal } = controller;
    const connect = async () => {
      const login = loginOf(hop, env);
      const trust = await trustOf(hop, env);
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
    const one: Kept = { made: connect(), leader, waiting: 0, controller, connection: null, idleTimer: undefined };
    one.made.catch(() => forget(key, one));
    kept.set(key, one);
    return one;
  }

  /** Waits for it as long as this asker does; with the last who leaves, the work ends. */
  function madeFor(one: Kept, { one: asker, signal }: SshAsk): Promise<SshConnection> {
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
        error => {
          left();
          if (asker !== one.leader) {
            asker.stage = one.leader.stage;
            asker.steps.push(...one.leader.steps);
          }
          reject(error);
        },
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
        const connection = one.connection ?? (await madeFor(one, ask));
        clearTimeout(one.idleTimer);
        ask.asks?.();
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
    async tryLogin(hop, socket, early, timeout, signal) {
      const login = loginOf(hop, env);
      (await logIn(socket, early, hop, login, await trustOf(hop, env), timeout, signal)).close();
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
function loginOf(hop: NamedHop, env: NodeJS.ProcessEnv): SshLogin {
  const { username = userInfo().username, password, ssh = {} } = hop;
  const unusable = (what: string, cause?: unknown) => sshFault('hop_login_unusable', hop, what, cause);
  let key: SshLogin['key'] = null;
  if (ssh.key !== undefined) {
    const { passphrase } = ssh;
    const parsed = sshLibrary().utils.parseKey(ssh.key, passphrase);
    if (parsed instanceof Error) {
      const isLocked = /encrypted|passphrase|integrity/i.test(parsed.message);
      if (!isLocked) throw unusable('ssh.key is no private key that can be read here', parsed);
      if (passphrase === undefined) throw unusable('ssh.key is locked, and the file has no ssh.passphrase', parsed);
      throw unusable('ssh.passphrase does not open ssh.key', parsed);
    }
    if (!(Array.isArray(parsed) ? parsed[0] : parsed)?.isPrivateKey())
      throw unusable('ssh.key is a public key, and the private one is needed');
    key = { text: ssh.key, passphrase };
  }
  const asksAgent = ssh.agent ?? (ssh.key === undefined && password === undefined);
  const agent = asksAgent ? (env['SSH_AUTH_SOCK'] ?? '') : null;
  if (agent === '') {
    const why = ssh.agent ? 'ssh.agent is on' : 'it has neither ssh.key nor password, so that the agent is asked';
    throw unusable(`${why}, and SSH_AUTH_SOCK names no agent`);
  }
  return { username, key, agent, password };
}

/** What the server has to show. Without a word in the file, the user's own known_hosts counts. Throws hop_login_unusable. */
async function trustOf(hop: NamedHop, env: NodeJS.ProcessEnv): Promise<HostKeyTrust> {
  const { host, port } = hop;
  const { hostKey, knownHosts } = hop.ssh ?? {};
  if (hostKey !== undefined) return { pins: [hostKey] };
  if (knownHosts !== undefined) return { file: 'ssh.knownHosts', keys: keysFor(knownHosts, host, port), host, port };
  const file = join(env['HOME'] || homedir(), '.ssh', 'known_hosts');
  try {
    if ((await stat(file)).size > MAX_KNOWN_HOSTS) throw new Error('it is larger than 1 MiB');
    return { file, keys: keysFor(await readFile(file, 'utf8'), host, port), host, port };
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const why = code === 'ENOENT' ? 'there is none' : (code ?? message);
    const what = `it has neither ssh.hostKey nor ssh.knownHosts, so that ${file} counts, and that cannot be read: ${why}`;
    throw sshFault('hop_login_unusable', hop, what, error);
  }
}
