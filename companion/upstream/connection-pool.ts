// Connections that wait for their next request, by chain and origin (or by chain alone, where an http hop takes requests for any origin).
import type { ConfigLimits } from '../../shared/config.ts';
import type { Milliseconds } from '../../shared/units.ts';
import { Deadlines } from '../message/deadlines.ts';
import type { Socket } from '../sockets/socket.ts';
import { UpstreamConnection } from './upstream-connection.ts';

/** A request that cannot be sent twice trusts an idle connection only so long. */
const FRESH_FOR: Milliseconds = 2_000;
/** A server that ends a connection within so long of its answer does so after each, whatever it says (tinyproxy 1.11 says nothing). */
const HASTY: Milliseconds = 500;
/** Servers remembered as such. */
const MAX_HASTY = 256;

export type PoolLimits = Pick<
  ConfigLimits,
  'head' | 'fields' | 'pool' | 'poolPerOrigin' | 'poolIdleTimeout' | 'responseTimeout' | 'bodyTimeout'
>;

export class ConnectionPool {
  /** The clock of everything that waits upstream. */
  readonly deadlines: Deadlines;
  private readonly limits: () => PoolLimits;
  private readonly idle = new Map<string, UpstreamConnection[]>();
  private readonly all = new Set<UpstreamConnection>();
  private readonly hasty = new Set<string>();
  private idleCount = 0;
  private retiring = false;
  private closed = false;

  /** The limits are asked for anew for every connection, so that a changed file takes effect. `interval`: how often deadlines are looked at. */
  constructor(limits: () => PoolLimits, interval?: Milliseconds) {
    this.limits = limits;
    this.deadlines = new Deadlines(interval);
    // The servers have given up on them, and what stands between has forgotten them.
    this.deadlines.whenAwake = () => this.retire();
  }

  /** Open connections, and how many of them wait. */
  get counts(): { readonly open: number; readonly idle: number } {
    return { open: this.all.size, idle: this.idleCount };
  }

  /** The connection that has waited least, or null. With `once`, only one that waited so little that it will not be closed just now. */
  take(key: string, once: boolean): UpstreamConnection | null {
    const waiting = this.idle.get(key);
    if (waiting === undefined || (once && this.hasty.has(key))) return null;
    while (true) {
      const connection = waiting.at(-1);
      if (connection === undefined) {
        this.idle.delete(key);
        return null;
      }
      if (once && this.deadlines.now - connection.idleSince > FRESH_FOR) return null;
      waiting.pop();
      this.idleCount--;
      connection.deadline = Infinity;
      if (connection.usable) return connection;
      connection.destroy();
    }
  }

  /** Takes a socket in that has just been dialled. */
  adopt(key: string, socket: Socket, rest: Buffer): UpstreamConnection {
    const limits = this.limits();
    socket.setNoDelay(true);
    const connection = new UpstreamConnection(socket, key, {
      limits,
      times: limits,
      deadlines: this.deadlines,
      onIdle: this.onIdle,
      onGone: this.onGone,
    });
    this.all.add(connection);
    // Bytes before any request: whoever sends those is not an HTTP server.
    if (rest.length > 0) connection.destroy();
    return connection;
  }

  /** Closes what waits; what runs ends as it will. For changed hops, and at the end. */
  retire(): void {
    this.retiring = true;
    for (const waiting of this.idle.values()) for (const connection of waiting.toReversed()) connection.destroy();
    this.retiring = false;
    this.idle.clear();
    this.idleCount = 0;
  }

  /** Closes everything. */
  close(): void {
    this.closed = true;
    for (const connection of this.all) connection.destroy();
    this.deadlines.close();
  }

  private readonly onIdle = (connection: UpstreamConnection): void => {
    const { pool, poolPerOrigin, poolIdleTimeout } = this.limits();
    if (this.closed || this.idleCount >= pool) return connection.destroy();
    let waiting = this.idle.get(connection.key);
    if (waiting === undefined) this.idle.set(connection.key, (waiting = []));
    if (waiting.length >= poolPerOrigin) {
      this.idleCount--;
      waiting.shift()!.destroy();
    }
    waiting.push(connection);
    this.idleCount++;
    connection.deadline = this.deadlines.in(poolIdleTimeout * 1000);
  };

  private readonly onGone = (connection: UpstreamConnection): void => {
    this.all.delete(connection);
    const waiting = this.idle.get(connection.key);
    if (waiting === undefined) return;
    const index = waiting.indexOf(connection);
    if (index === -1) return;
    waiting.splice(index, 1);
    if (!this.retiring && this.deadlines.now - connection.idleSince <= HASTY) {
      if (this.hasty.size >= MAX_HASTY) this.hasty.clear();
      this.hasty.add(connection.key);
    }
    this.idleCount--;
    if (waiting.length === 0) this.idle.delete(connection.key);
  };
}
