// Accepts connections on the one port, knows them all, and bounds them in number and time. A connection itself is in connection.ts.
import { createServer, type Server, type Socket } from 'node:net';
import type { Milliseconds } from '../../shared/units.ts';
import { Deadlines } from '../message/deadlines.ts';
import type { ControlDoor } from '../rooms.ts';
import { type ConnectionHouse, DownstreamConnection, type DownstreamLimits, type Walk } from './connection.ts';

export interface ListenerOptions {
  readonly host: string;
  /** 0 = any free one. */
  readonly port: number;
  /** Asked for anew for every connection, so that a changed file takes effect. */
  readonly limits: () => DownstreamLimits;
  readonly walk: Walk;
  readonly control: ControlDoor;
  /** How often deadlines are looked at. */
  readonly interval?: Milliseconds | undefined;
}

export interface Listener {
  readonly host: string;
  /** The real port. */
  readonly port: number;
  /** Sockets open now, tunnels and control links too. */
  readonly connections: number;
  /** Accepts no more, ends idle connections at once and others with their answer; what is still open after `drain` is closed. */
  close(drain: Milliseconds): Promise<void>;
}

/** Starts to listen. Rejects with the system's error (`EADDRINUSE`, `EACCES`). */
export function listen(options: ListenerOptions): Promise<Listener> {
  const sockets = new Set<Socket>();
  const connections = new Set<DownstreamConnection>();
  const deadlines = new Deadlines(options.interval);
  let closing = false;

  const server: Server = createServer({ allowHalfOpen: true, noDelay: true }, socket => {
    const limits = options.limits();
    if (sockets.size >= limits.connections && !dropOldestIdle(connections)) {
      socket.destroy();
      return;
    }
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
    const house: ConnectionHouse = {
      limits,
      deadlines,
      walk: options.walk,
      control: options.control,
      get closing() {
        return closing;
      },
      forget: connection => connections.delete(connection),
    };
    connections.add(new DownstreamConnection(socket, house));
  });

  const close = (drain: Milliseconds) =>
    new Promise<void>(resolve => {
      closing = true;
      const late = setTimeout(() => {
        for (const socket of sockets) socket.destroy();
      }, drain);
      server.close(() => {
        clearTimeout(late);
        deadlines.close();
        resolve();
      });
      for (const connection of connections) connection.retire();
    });

  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host: options.host, port: options.port }, () => {
      server.off('error', reject);
      // Accepting can fail for a while (EMFILE); the sockets that are open go on.
      server.on('error', () => {});
      const { address, port } = server.address() as { address: string; port: number };
      resolve({
        host: address,
        port,
        get connections() {
          return sockets.size;
        },
        close,
      });
    });
  });
}

/** Room for one more: the connection that has been without a request for longest is closed. False when all are busy. */
function dropOldestIdle(connections: ReadonlySet<DownstreamConnection>): boolean {
  let oldest: DownstreamConnection | null = null;
  for (const connection of connections) {
    if (connection.isIdle && (oldest === null || connection.deadline < oldest.deadline)) oldest = connection;
  }
  oldest?.retire();
  return oldest !== null;
}
