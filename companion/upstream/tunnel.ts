// The blind pipe after CONNECT or an upgrade: bytes both ways, as they come, with back-pressure; an end on one side is an end on the other, and a
// reset is a reset. It knows nothing of what it carries.
import type { Bytes, Milliseconds } from '../../shared/units.ts';
import type { Deadlines, Waiting } from '../message/deadlines.ts';
import type { Socket } from '../sockets/socket.ts';
import { joinReads } from './read-buffers.ts';

export interface TunnelOptions {
  /** Closed after so long without a byte either way. */
  readonly idle: Milliseconds;
  readonly deadlines: Deadlines;
  /** Counts along while the bytes move. */
  readonly running: { bytesUp: Bytes; bytesDown: Bytes };
  /** Called once, when upstream sends its first byte. */
  readonly heard?: (() => void) | null;
}

/**
 * Joins two sockets until both are closed; then resolves, and never rejects. `downstreamFirst` and `upstreamFirst` are bytes that have been read from
 * either side already and come first. Neither socket may have other readers (RFC 9110 §9.3.6).
 */
export function tunnel(
  downstream: Socket,
  downstreamFirst: Buffer | null,
  upstream: Socket,
  upstreamFirst: Buffer | null,
  options: TunnelOptions,
): Promise<void> {
  return new Promise(resolve => {
    new Tunnel(downstream, upstream, options, resolve).start(downstreamFirst, upstreamFirst);
  });
}

class Tunnel implements Waiting {
  deadline: Milliseconds;
  private readonly downstream: Socket;
  private readonly upstream: Socket;
  private readonly options: TunnelOptions;
  private readonly done: () => void;
  private open = 2;
  private unheard: (() => void) | null;

  constructor(downstream: Socket, upstream: Socket, options: TunnelOptions, done: () => void) {
    this.downstream = downstream;
    this.upstream = upstream;
    this.options = options;
    this.done = done;
    this.unheard = options.heard ?? null;
    this.deadline = options.deadlines.in(options.idle);
  }

  start(downstreamFirst: Buffer | null, upstreamFirst: Buffer | null): void {
    const { downstream, upstream } = this;
    const { running } = this.options;
    this.options.deadlines.add(this);
    // A side that says no more may still listen; Node looks at this when the end comes.
    downstream.allowHalfOpen = true;
    upstream.allowHalfOpen = true;
    if (downstreamFirst !== null && downstreamFirst.length > 0) {
      running.bytesUp += downstreamFirst.length;
      upstream.write(downstreamFirst);
    }
    if (upstreamFirst !== null && upstreamFirst.length > 0) {
      running.bytesDown += upstreamFirst.length;
      this.hear();
      downstream.write(upstreamFirst);
    }
    this.join(downstream, upstream, bytes => {
      running.bytesUp += bytes;
    });
    this.join(upstream, downstream, bytes => {
      running.bytesDown += bytes;
      if (this.unheard !== null) this.hear();
    });
  }

  private hear(): void {
    const { unheard } = this;
    this.unheard = null;
    unheard?.();
  }

  onDeadline(): void {
    this.downstream.destroy();
    this.upstream.destroy();
  }

  private join(from: Socket, to: Socket, count: (bytes: number) => void): void {
    const { idle, deadlines } = this.options;
    const moved = (bytes: number) => {
      count(bytes);
      this.deadline = deadlines.in(idle);
    };
    const pass = (chunk: Buffer) => {
      moved(chunk.length);
      if (!to.write(chunk)) from.pause();
    };
    if (!joinReads(from, to, moved)) from.on('data', pass);
    else {
      // What the socket had read before it was joined.
      const early = from.readableLength > 0 ? (from.read() as Buffer | null) : null;
      if (early !== null) pass(early);
    }
    to.on('drain', () => {
      this.deadline = deadlines.in(idle);
      from.resume();
    });
    from.on('end', () => to.end());
    from.on('error', (error: NodeJS.ErrnoException) => {
      if (to.destroyed) return;
      if (error.code === 'ECONNRESET') to.resetAndDestroy();
      else to.destroy();
    });
    from.on('close', () => this.closed(from, to));
    if (from.closed) this.closed(from, to);
    else if (from.readableEnded) to.end();
    else from.resume();
  }

  private closed(from: Socket, to: Socket): void {
    // Closed without an end of its own (destroyed): the other side must not wait for one.
    if (!from.readableEnded && !to.destroyed) to.destroy();
    if (--this.open > 0) return;
    this.options.deadlines.remove(this);
    this.done();
  }
}
