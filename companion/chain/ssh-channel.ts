// A channel of an SSH connection, as a socket. ssh2's own stream has one form of end for everything: here an end is an end that the other side sent,
// and whatever else closes a channel is an error, so that a broken answer is not taken for a whole one.
import { Duplex } from 'node:stream';
import type { ClientChannel } from 'ssh2';

/** So much is read ahead here; behind it stands the window of the channel (2 MiB, ssh2's). */
const READ_AHEAD = 64 * 1024;

/** Where all channels of a connection write to: only its fullness is of interest here. */
export interface Transport {
  readonly writableNeedDrain: boolean;
  once(event: 'drain', listener: () => void): unknown;
  off(event: 'drain', listener: () => void): unknown;
}

const nothing = () => {};

export class ChannelSocket extends Duplex {
  readonly remoteAddress: string | undefined = undefined;
  readonly remotePort: number | undefined = undefined;
  readonly localAddress: string | undefined = undefined;
  readonly localPort: number | undefined = undefined;
  private readonly channel: ClientChannel;
  private readonly transport: Transport;
  private written: ((error?: Error | null) => void) | null = null;

  constructor(channel: ClientChannel, transport: Transport) {
    super({ allowHalfOpen: false, highWaterMark: READ_AHEAD });
    this.channel = channel;
    this.transport = transport;
    // Also while it has no owner who listens.
    this.on('error', nothing);
    channel.pause();
    channel.on('data', this.onData).on('end', this.onEnd).on('close', this.onClose).on('error', this.onError);
    channel.pause();
  }

  override _read(): void {
    this.channel.resume();
  }

  override _write(bytes: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.written = done;
    this.channel.write(bytes, this.onWritten);
  }

  override _writev(pieces: { chunk: Buffer; encoding: BufferEncoding }[], done: (error?: Error | null) => void): void {
    this._write(Buffer.concat(pieces.map(piece => piece.chunk)), 'binary', done);
  }

  override _final(done: (error?: Error | null) => void): void {
    this.channel.end();
    done();
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    const { channel } = this;
    this.written = null;
    this.transport.off('drain', this.onDrain);
    // What still comes is thrown away, or its close would never be heard of.
    channel.off('data', this.onData).off('end', this.onEnd).resume();
    channel.close();
    done(error);
  }

  setNoDelay(): this {
    return this;
  }

  resetAndDestroy(): this {
    return this.destroy();
  }

  private readonly onData = (bytes: Buffer): void => {
    if (!this.push(bytes)) this.channel.pause();
  };
  private readonly onEnd = (): void => {
    this.push(null);
  };
  private readonly onError = (error: Error): void => {
    this.destroy(error);
  };
  /** The server takes no more of it. What it sent before can still be read; an end has come by now. */
  private readonly onClose = (): void => {
    if (this.destroyed || this.writableEnded) return;
    if (this.readableEnded) this.destroy();
    else if (this.written !== null) this.finishWrite(closed());
    else this.end();
  };

  /** Taken over by the connection that carries it: the next bytes are not for everybody's window, but for the wire. */
  private readonly onWritten = (error?: Error | null): void => {
    if (error) this.finishWrite(error);
    else if (this.transport.writableNeedDrain) this.transport.once('drain', this.onDrain);
    else this.finishWrite();
  };
  private readonly onDrain = (): void => this.finishWrite();

  private finishWrite(error?: Error): void {
    const done = this.written;
    this.written = null;
    done?.(error);
  }
}

/** As the system would say it of a socket. */
function closed(): Error {
  return Object.assign(new Error('the SSH server closed the channel'), { code: 'EPIPE' });
}
