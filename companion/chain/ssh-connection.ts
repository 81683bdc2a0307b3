// One SSH connection to a hop, over a socket that stands: who the server is, who we are, and then any number of channels (RFC 4254 §7.2) through it.
// ssh2 does the protocol; here are what is asked of it, and its errors in our words.
import { extname } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { AnyAuthMethod, Client, ClientChannel } from 'ssh2';
import { type Endpoint, formatEndpoint } from '../../shared/endpoint.ts';
import { Fault, type FaultKind } from '../../shared/fault.ts';
import type { Milliseconds } from '../../shared/units.ts';
import { nodeSocket, type Socket } from '../sockets/socket.ts';
import { quotable } from './handshake.ts';
import { ChannelSocket } from './ssh-channel.ts';
import { algorithmsFor, type HostKeyTrust, hostKeyRefusal } from './ssh-known-hosts.ts';
import type * as Library from './ssh-library.ts';

/** Silence of so long is asked about; after three questions without an answer the connection is gone. */
const ASK_AFTER: Milliseconds = 15_000;
const MAX_UNANSWERED = 3;
/** Channels of one connection at a time: each may hold 2 MiB that its reader has not fetched yet. */
const MAX_CHANNELS = 128;

/** Who is asked: the hop by its name in the file, and where it is. */
export interface SshPlace extends Endpoint {
  readonly name: string;
}

/** How we log in. At least one of key, agent and password. */
export interface SshLogin {
  readonly username: string;
  readonly key: { readonly text: string; readonly passphrase: string | undefined } | null;
  /** The agent's socket. */
  readonly agent: string | null;
  readonly password: string | undefined;
}

const LIBRARY = new URL(`./ssh-library${extname(import.meta.url)}`, import.meta.url);
let library: typeof Library | null = null;
/** ssh2, loaded at the first call: 16 MB. By require, for from a start snapshot nothing is imported. */
export function sshLibrary(): typeof Library {
  library ??= process.getBuiltinModule('node:module').createRequire(LIBRARY)(fileURLToPath(LIBRARY)) as typeof Library;
  return library;
}

export interface SshConnection {
  readonly isOpen: boolean;
  /** Channels that are open or being opened. */
  readonly channels: number;
  /**
   * A channel to `target`, named as it is. Throws hop_refused (its rules), hop_could_not_reach (it tried), connection_timeout,
   * connection_terminated (the connection broke), destination_unavailable (too many channels), or why the signal called it off.
   */
  open(target: Endpoint, timeout: Milliseconds, signal: AbortSignal): Promise<Socket>;
  /** Heard once, when no channel is left, and when it is gone. */
  whenIdle: () => void;
  whenGone: () => void;
  close(): void;
}

/** A fault of the hop. */
export function sshFault(kind: FaultKind, at: SshPlace, detail?: string, cause?: unknown): Fault {
  return new Fault(kind, { hop: at.name, target: { host: at.host, port: at.port }, detail, cause });
}

/**
 * Speaks SSH over `socket` (`early` came on it already) until we are logged in. Throws hop_not_trusted, hop_authentication_failed,
 * hop_protocol_error, connection_terminated, connection_timeout, or why the signal called it off; the socket is closed then.
 */
export function logIn(
  socket: Socket,
  early: Buffer,
  at: SshPlace,
  login: SshLogin,
  trust: HostKeyTrust,
  timeout: Milliseconds,
  signal: AbortSignal,
): Promise<SshConnection> {
  const { Client } = sshLibrary();
  const client = new Client();
  const transport = nodeSocket(socket);
  return new Promise((resolve, reject) => {
    let refusal: string | null = null;
    let agentSaid: string | null = null;
    let taken: readonly string[] = [];
    const methods = methodsOf(login);
    const tried: string[] = [];

    const settle = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', onAbort);
      client.off('error', onError).off('close', onClose).off('ready', onReady);
    };
    const fail = (reason: unknown) => {
      settle();
      client.on('error', nothing);
      client.destroy();
      transport.destroy();
      reject(reason);
    };
    const onAbort = () => fail(signal.reason);
    const timer = setTimeout(() => fail(sshFault('connection_timeout', at, 'while logging in by SSH')), timeout);
    const onError = (error: Error & { level?: string; code?: unknown }) => {
      if (error.level === 'agent') return void (agentSaid = quotable(error.message));
      if (refusal !== null) return fail(sshFault('hop_not_trusted', at, refusal));
      fail(faultOfLogin(error));
    };
    const onClose = () => fail(sshFault('connection_terminated', at, 'while logging in by SSH'));
    const onReady = () => {
      settle();
      resolve(connectionOver(client, transport, at));
    };
    function faultOfLogin(error: Error & { level?: string; code?: unknown }): Fault {
      if (error.level === 'client-authentication' || tried.length > 0) {
        const words = [
          tried.length > 0 ? `tried ${tried.join(', ')}` : 'nothing that the file gives is taken',
          ...(taken.length > 0 ? [`it takes ${quotable(taken.join(', '))}`] : []),
          ...(agentSaid === null ? [] : [`the agent: ${agentSaid}`]),
          ...(error.level === 'client-authentication' ? [] : [quotable(error.message)]),
        ];
        return sshFault('hop_authentication_failed', at, words.join('; '), error);
      }
      if (error.level === 'client-socket' || error.message.startsWith('Connection lost'))
        return sshFault('connection_terminated', at, 'while logging in by SSH', error);
      return sshFault('hop_protocol_error', at, quotable(error.message), error);
    }

    client.on('error', onError).on('close', onClose).on('ready', onReady);
    signal.addEventListener('abort', onAbort);
    if (signal.aborted) return onAbort();
    // Also what came with the last handshake.
    if (early.length > 0) transport.unshift(early);
    try {
      client.connect({
        sock: transport,
        username: login.username,
        readyTimeout: 0,
        keepaliveInterval: ASK_AFTER,
        keepaliveCountMax: MAX_UNANSWERED,
        algorithms: { serverHostKey: algorithmsFor(trust) as never[] },
        hostVerifier: (key: Buffer) => (refusal = hostKeyRefusal(key, trust)) === null,
        // `none` first: its refusal tells what the server takes.
        authHandler: (
          left: readonly string[] | null,
          _partial: boolean | null,
          next: (method: AnyAuthMethod | false) => void,
        ) => {
          if (left === null) return next({ type: 'none', username: login.username });
          taken = left;
          for (let one = methods.shift(); one !== undefined; one = methods.shift()) {
            if (!left.includes(one.type === 'agent' ? 'publickey' : one.type)) continue;
            tried.push(one.type === 'publickey' ? 'the key' : one.type === 'agent' ? 'the agent' : one.type);
            return next(one);
          }
          next(false);
        },
      } as Parameters<Client['connect']>[0]);
    } catch (error) {
      fail(sshFault('hop_protocol_error', at, error instanceof Error ? quotable(error.message) : undefined, error));
    }
  });
}

const nothing = () => {};

function methodsOf({ username, key, agent, password }: SshLogin): AnyAuthMethod[] {
  const methods: AnyAuthMethod[] = [];
  if (key) {
    const passphrase = key.passphrase === undefined ? {} : { passphrase: key.passphrase };
    methods.push({ type: 'publickey', username, key: key.text, ...passphrase });
  }
  if (agent !== null) methods.push({ type: 'agent', username, agent });
  if (password !== undefined) {
    methods.push({ type: 'password', username, password });
    // The same password where a server asks for it in words of its own, and for nothing else.
    const prompt = (
      _name: string,
      _instructions: string,
      _language: string,
      prompts: { prompt: string; echo?: boolean }[],
      finish: (answers: string[]) => void,
    ) => finish(prompts.map(one => (prompts.length === 1 && one.echo !== true ? password : '')));
    methods.push({ type: 'keyboard-interactive', username, prompt } as AnyAuthMethod);
  }
  return methods;
}

/** Reason codes of RFC 4254 §5.1. */
const PROHIBITED = 1;
const CONNECT_FAILED = 2;
const RESOURCE_SHORTAGE = 4;

function connectionOver(client: Client, transport: ReturnType<typeof nodeSocket>, at: SshPlace): SshConnection {
  const open = new Set<ChannelSocket>();
  let pending = 0;
  let gone = false;
  let heard = 0;
  transport.setMaxListeners(0);
  transport.on('data', () => heard++);

  const over = (error?: Error) => {
    if (gone) return;
    gone = true;
    // Before ssh2 tells its channels, to whom it would look like an orderly end.
    const reset = Object.assign(new Error('the SSH connection broke', { cause: error }), { code: 'ECONNRESET' });
    for (const channel of open) channel.destroy(reset);
    client.destroy();
    transport.destroy();
    connection.whenGone();
  };
  transport.prependListener('end', over).prependListener('close', over);
  client.on('error', over).on('close', over);

  const left = () => {
    if (!gone && pending === 0 && open.size === 0) connection.whenIdle();
  };
  const ask = (target: Endpoint, timeout: Milliseconds, signal: AbortSignal) =>
    new Promise<Socket>((resolve, reject) => {
      const heardBefore = heard;
      let settled = false;
      pending++;
      const settle = () => {
        if (settled) return false;
        settled = true;
        clearTimeout(timer);
        signal.removeEventListener('abort', onAbort);
        return true;
      };
      const fail = (reason: unknown) => {
        if (settle()) reject(reason);
      };
      const onAbort = () => fail(signal.reason);
      const timer = setTimeout(() => {
        fail(sshFault('connection_timeout', at, `asked for ${formatEndpoint(target)}`));
        // Not a word on the whole connection: it is dead, as after a sleep, and keepalive would take longer to notice.
        if (heard === heardBefore) over();
      }, timeout);
      signal.addEventListener('abort', onAbort);
      const answered = (error: (Error & { reason?: number | string }) | undefined, channel: ClientChannel) => {
        pending--;
        if (error) {
          fail(
            gone ? sshFault('connection_terminated', at, 'its SSH connection broke') : faultOfOpen(error, target, at),
          );
          return left();
        }
        const socket = new ChannelSocket(channel, transport);
        open.add(socket);
        channel.once('close', () => {
          open.delete(socket);
          left();
        });
        if (settle()) resolve(socket as unknown as Socket);
        else socket.destroy();
      };
      try {
        client.forwardOut('127.0.0.1', 0, target.host, target.port, answered);
      } catch (error) {
        answered(error as Error, undefined as never);
        over();
      }
    });

  const connection: SshConnection = {
    get isOpen() {
      return !gone;
    },
    get channels() {
      return open.size + pending;
    },
    async open(target, timeout, signal) {
      if (signal.aborted) throw signal.reason;
      if (gone) throw sshFault('connection_terminated', at, 'its SSH connection broke');
      if (open.size + pending >= MAX_CHANNELS)
        throw sshFault('destination_unavailable', at, `${MAX_CHANNELS} channels are open on its SSH connection`);
      return ask(target, timeout, signal);
    },
    whenIdle: nothing,
    whenGone: nothing,
    close: () => over(),
  };
  return connection;
}

function faultOfOpen(error: Error & { reason?: number | string }, target: Endpoint, at: SshPlace): Fault {
  const said = quotable(error.message.replace(/^\(SSH\) Channel open failure: (open failed$)?/, ''));
  const detail = `${said === '' ? '' : `${said}, `}asked for ${formatEndpoint(target)}`;
  if (error.reason === PROHIBITED) return sshFault('hop_refused', at, `not allowed by its rules: ${detail}`, error);
  if (error.reason === CONNECT_FAILED) return sshFault('hop_could_not_reach', at, detail, error);
  if (error.reason === RESOURCE_SHORTAGE) return sshFault('destination_unavailable', at, detail, error);
  return sshFault('hop_refused', at, detail, error);
}
