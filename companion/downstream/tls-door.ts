// Where the listener has a certificate: other machines come by TLS, on the same port; this machine as it likes (told by the first byte).
import type { Socket } from 'node:net';
import type { SecureContext } from 'node:tls';
import type { Milliseconds } from '../../shared/units.ts';
import type { Deadlines, Waiting } from '../message/deadlines.ts';

/** RFC 8446 §5.1: the content type of a handshake record. */
const HANDSHAKE = 22;

export interface TlsDoorOptions {
  readonly context: SecureContext;
  /** Whether one who does not speak TLS may enter all the same. */
  readonly plainToo: boolean;
  readonly deadlines: Deadlines;
  /** For the first byte and the whole of the TLS handshake. */
  readonly within: Milliseconds;
  /** Hears of the socket to speak on. Of one that fails, or is late, nobody hears. */
  readonly enter: (socket: Socket) => void;
}

/** Opens TLS on an accepted socket. */
export function throughTlsDoor(socket: Socket, options: TlsDoorOptions): void {
  options.deadlines.add(new TlsDoor(socket, options));
}

class TlsDoor implements Waiting {
  deadline: Milliseconds;
  private readonly socket: Socket;
  private readonly options: TlsDoorOptions;

  constructor(socket: Socket, options: TlsDoorOptions) {
    this.socket = socket;
    this.options = options;
    this.deadline = options.deadlines.in(options.within);
    socket.once('data', this.onFirst);
    socket.on('end', this.leave).on('error', this.leave).on('close', this.leave);
  }

  onDeadline(): void {
    this.leave();
  }

  private readonly onFirst = (chunk: Buffer): void => {
    const { socket, options } = this;
    socket.pause();
    socket.unshift(chunk);
    if (chunk[0] !== HANDSHAKE) {
      if (!options.plainToo) return this.leave();
      this.passed(socket);
      socket.resume();
      return;
    }
    socket.off('end', this.leave);
    // Not by import: a start without a certificate need not load it.
    const { TLSSocket } = process.getBuiltinModule('node:tls');
    const secure = new TLSSocket(socket, { isServer: true, secureContext: options.context });
    // Node's own refuses where the handle is not the bare one.
    secure.resetAndDestroy = () => {
      socket.resetAndDestroy();
      return secure;
    };
    secure.on('error', this.leave).on('close', this.leave);
    secure.once('secure', () => {
      secure.off('error', this.leave).off('close', this.leave);
      this.passed(secure);
    });
  };

  private passed(socket: Socket): void {
    this.options.deadlines.remove(this);
    this.socket.off('end', this.leave).off('close', this.leave);
    // The raw socket's errors are told by the one above it.
    if (socket === this.socket) socket.off('error', this.leave);
    this.options.enter(socket);
  }

  private readonly leave = (): void => {
    this.options.deadlines.remove(this);
    this.socket.destroy();
  };
}
