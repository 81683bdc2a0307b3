// Accepts connections on the one port, knows them all, and bounds them in number and time. A connection itself is in connection.ts.
import { createServer, type Server } from 'node:net';
import type { SecureContext } from 'node:tls';
import { networkOf } from '../../shared/endpoint.ts';
import type { Milliseconds } from '../../shared/units.ts';
import { Deadlines } from '../message/deadlines.ts';
import { KnownHeads } from '../message/known-heads.ts';
import { acceptLean } from '../sockets/lean-socket.ts';
import { nodeSocket, type Socket } from '../sockets/socket.ts';
import type { ControlDoor, ControlElsewhere, Entrance, OwnerCheck } from '../rooms.ts';
import { type ConnectionHouse, DownstreamConnection, type DownstreamLimits, type Walk } from './connection.ts';
import { IdleQueue } from './idle-queue.ts';
import { throughOwnerDoor } from './owner-door.ts';
import { isFromHere, isThisMachine } from './this-machine.ts';
import { throughTlsDoor } from './tls-door.ts';

export interface ReceptionOptions {
  /** Where the sockets come in. */
  readonly host: string;
  /** Asked for anew for every connection, so that a changed file takes effect. */
  readonly limits: () => DownstreamLimits;
  readonly walk: Walk;
  readonly control: ControlDoor | ControlElsewhere;
  /** Asked for anew for every connection, too. */
  readonly entrance: () => Entrance;
  /** The listener's own certificate, for other machines; absent or null = it has none. */
  readonly tls?: (() => SecureContext | null) | undefined;
  /** Keeps other users of this machine out; absent or null = they may enter. */
  readonly owner?: (() => OwnerCheck | null) | undefined;
  /** How often deadlines are looked at. */
  readonly interval?: Milliseconds | undefined;
  /** Hears, now and then, of what a person could change. */
  readonly warn?: ((message: string) => void) | undefined;
  /** The system gives no more open files: whoever holds idle ones gives them back. */
  readonly whenShort?: (() => void) | undefined;
}

export interface ListenerOptions extends ReceptionOptions {
  /** 0 = any free one. */
  readonly port: number;
}

/** Where sockets are received, wherever they were accepted. */
export interface Reception {
  /** Sockets open now, tunnels and control links too. */
  readonly connections: number;
  /** Takes a socket in: from now on it is a connection of ours. `read`: what another process has read of it, in the clear. */
  accept(socket: Socket, read?: Buffer): void;
  /** The system gives no more open files: idle connections make room. */
  makeRoom(): void;
  /** Takes no more, ends idle connections at once and others with their answer; what is still open after `drain` is closed. */
  close(drain: Milliseconds): Promise<void>;
}

export interface Listener {
  readonly host: string;
  /** The real port. */
  readonly port: number;
  readonly connections: number;
  /** Accepts no more, and closes its reception. */
  close(drain: Milliseconds): Promise<void>;
}

/** So many idle connections make room at once where the system has no more open files. */
const ROOM = 8;
/** A person hears of the same trouble so often at most. */
const WARNED_AGAIN_AFTER: Milliseconds = 60_000;

/** A reception without a port of its own. */
export function openReception(options: ReceptionOptions): Reception {
  const sockets = new Set<Socket>();
  const connections = new Set<DownstreamConnection>();
  /** Those of whom it is not known yet whether they may enter, the longest waiting first: they make room before anybody who has. */
  const atDoor = new Set<Socket>();
  /** How many there are from each address of another machine (of IPv6: from each network of 64 bits). */
  const perAddress = new Map<string, number>();
  const onlyThisMachine = options.host === 'localhost' || isThisMachine(options.host);
  const idle = new IdleQueue<DownstreamConnection>();
  const deadlines = new Deadlines(options.interval);
  let knownHeads: KnownHeads | null = null;
  let closing = false;
  const warnOf = new Map<string, Milliseconds>();

  const warn = (about: string, message: string) => {
    const last = warnOf.get(about);
    if (last !== undefined && deadlines.now - last < WARNED_AGAIN_AFTER) return;
    warnOf.set(about, deadlines.now);
    options.warn?.(message);
  };

  /** Counts it where it comes from another machine; false when that has too many. */
  const countAddress = (socket: Socket, most: number): boolean => {
    if (onlyThisMachine) return true;
    const { remoteAddress } = socket;
    if (remoteAddress === undefined || isThisMachine(remoteAddress)) return true;
    const network = networkOf(remoteAddress);
    const count = perAddress.get(network) ?? 0;
    if (count >= most) return false;
    perAddress.set(network, count + 1);
    socket.once('close', () => {
      const left = perAddress.get(network)! - 1;
      if (left === 0) perAddress.delete(network);
      else perAddress.set(network, left);
    });
    return true;
  };

  const accept = (socket: Socket, read?: Buffer) => {
    const entrance = options.entrance();
    const { remoteAddress } = socket;
    if (closing || !entrance.mayEnter({ remoteAddress, localAddress: () => socket.localAddress })) {
      if (!closing && remoteAddress !== undefined)
        warn('clients', `${remoteAddress} was kept out: its network is not among guard.clients.`);
      socket.destroy();
      return;
    }
    const limits = options.limits();
    // Before anybody has to make room for it.
    if (!countAddress(socket, limits.connectionsPerAddress)) {
      socket.destroy();
      return;
    }
    if (sockets.size >= limits.connections) {
      warn('connections', `${sockets.size} connections are open, which is limits.connections: idle ones are closed.`);
      const [stranger] = atDoor;
      if (stranger !== undefined) stranger.destroy();
      else if (idle.oldest !== null) idle.oldest.drop();
      else {
        socket.destroy();
        return;
      }
    }
    sockets.add(socket);
    socket.once('close', () => {
      sockets.delete(socket);
      atDoor.delete(socket);
      if (closing && sockets.size === 0) whenEmpty();
    });
    if (knownHeads?.limits !== limits) knownHeads = new KnownHeads(limits);
    const house: ConnectionHouse = {
      limits,
      deadlines,
      knownHeads,
      idle,
      walk: options.walk,
      control: options.control,
      entrance,
      get closing() {
        return closing;
      },
      forget: connection => connections.delete(connection),
    };
    const context = options.tls?.() ?? null;
    const owner = options.owner?.() ?? null;
    if (read !== undefined) nodeSocket(socket).unshift(read);
    // With bytes read it has come through these doors in another process.
    if (read !== undefined || (context === null && owner === null)) {
      connections.add(new DownstreamConnection(socket, house));
      return;
    }
    const isNear = isFromHere(socket);
    atDoor.add(socket);
    const enter = (speaking: Socket) => {
      atDoor.delete(socket);
      if (closing) speaking.destroy();
      else connections.add(new DownstreamConnection(speaking, house));
    };
    const openTls = () => {
      const within = limits.headTimeout * 1000;
      if (context === null) enter(socket);
      else throughTlsDoor(nodeSocket(socket), { context, plainToo: isNear, deadlines, within, enter });
    };
    if (owner === null || !isNear) openTls();
    else
      throughOwnerDoor(socket, owner, isMine => {
        if (isMine) return openTls();
        warn('owner', 'A connection was kept out (guard.owner): it was not made by a program of your own user.');
      });
  };

  const makeRoom = () => {
    warn('files', 'This system allows no more open files: new connections are closed. Raise the limit (ulimit -n).');
    options.whenShort?.();
    for (let i = 0; i < ROOM && idle.oldest !== null; i++) idle.oldest.drop();
  };

  const { promise: empty, resolve: whenEmpty } = Promise.withResolvers<void>();
  const close = async (drain: Milliseconds) => {
    closing = true;
    const late = setTimeout(() => {
      for (const socket of sockets) socket.destroy();
    }, drain);
    for (const connection of connections) connection.retire();
    if (sockets.size === 0) whenEmpty();
    await empty;
    clearTimeout(late);
    deadlines.close();
  };

  return {
    get connections() {
      return sockets.size;
    },
    accept,
    makeRoom,
    close,
  };
}

/** Starts to listen. Rejects with the system's error (`EADDRINUSE`, `EACCES`). */
export function listen(options: ListenerOptions): Promise<Listener> {
  const reception = openReception(options);
  const server: Server = createServer({ allowHalfOpen: true, noDelay: true }, socket => reception.accept(socket));
  return new Promise((resolve, reject) => {
    server.once('error', error => {
      void reception.close(0);
      reject(error);
    });
    server.listen({ host: options.host, port: options.port }, () => {
      server.removeAllListeners('error');
      // TLS is laid over sockets of Node's.
      const hasTls = () => (options.tls?.() ?? null) !== null;
      acceptLean(server, socket => reception.accept(socket), hasTls);
      // Accepting failed; those that are open go on, and those that are idle make room. (Where there are no more files, libuv closes whoever comes,
      // so that nobody hangs, and mostly says nothing of it: the bound on connections keeps that from happening.)
      server.on('error', (error: NodeJS.ErrnoException) => {
        if (error.code === 'EMFILE' || error.code === 'ENFILE') reception.makeRoom();
      });
      const { address, port } = server.address() as { address: string; port: number };
      resolve({
        host: address,
        port,
        get connections() {
          return reception.connections;
        },
        async close(drain) {
          const closed = new Promise<void>(done => server.close(() => done()));
          await Promise.all([closed, reception.close(drain)]);
        },
      });
    });
  });
}
