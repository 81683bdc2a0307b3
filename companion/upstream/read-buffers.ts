// The reads of a tunnel go into buffers that are used again (sockets/socket-reads.ts): clearing new ones away costs a tunnel more than its bytes do.
//
//   quiet sockets ──▶ one buffer for all; what comes is copied        busy sockets ──▶ each its own, at most MAX_OWN of them
//
// A buffer of its own is read into again only when its write is with the system; until then the socket reads into another one.
import { BUSY, READ_SIZE, readInto, shared } from '../sockets/socket-reads.ts';
import type { Socket } from '../sockets/socket.ts';

/** Sockets that read into a buffer of their own; the one that has had it longest gives it up. Also the most buffers that are kept. */
const MAX_OWN = 64;

const spare: Buffer[] = [];
const busy = new Set<JoinedReads>();

/**
 * Writes all that `from` reads to `to`, with back-pressure: `from` pauses when `to` is full, and whoever calls has to resume it on `drain`.
 * `count` hears of the bytes. False where this Node does not let us; then nothing has changed.
 */
export function joinReads(from: Socket, to: Socket, count: (bytes: number) => void): boolean {
  return new JoinedReads(from, to, count).begin();
}

class JoinedReads {
  private readonly from: Socket;
  private readonly to: Socket;
  private readonly count: (bytes: number) => void;
  /** The buffer of its own that the next read goes into; null = the shared one. */
  private own: Buffer | null = null;

  constructor(from: Socket, to: Socket, count: (bytes: number) => void) {
    this.from = from;
    this.to = to;
    this.count = count;
  }

  begin(): boolean {
    if (!readInto(this.from, this.onRead, this.nextBuffer)) return false;
    this.from.once('close', this.leave);
    return true;
  }

  /** False stops reading until `resume`. */
  private readonly onRead = (bytes: number, buffer: Buffer): boolean => {
    this.count(bytes);
    const isFree = buffer === shared ? this.copyOn(bytes) : this.passOn(buffer, bytes);
    if (!isFree) this.from.pause();
    return isFree;
  };

  private copyOn(bytes: number): boolean {
    const isFree = this.to.write(Buffer.from(shared.subarray(0, bytes)));
    if (bytes >= BUSY) this.enter();
    return isFree;
  }

  private passOn(buffer: Buffer, bytes: number): boolean {
    let written = false;
    const isFree = this.to.write(buffer.subarray(0, bytes), () => {
      written = true;
      if (this.own !== buffer && spare.length < MAX_OWN) spare.push(buffer);
    });
    // Nothing waits in `to`: the system has the bytes, and the buffer may be read into again. Else it belongs to the write until its callback.
    if (this.to.writableLength > 0 && !written && this.own === buffer)
      this.own = spare.pop() ?? Buffer.allocUnsafeSlow(READ_SIZE);
    return isFree;
  }

  private readonly nextBuffer = (): Buffer => this.own ?? shared;

  private enter(): void {
    if (busy.size >= MAX_OWN) busy.values().next().value!.leave();
    busy.add(this);
    this.own = spare.pop() ?? Buffer.allocUnsafeSlow(READ_SIZE);
  }

  private readonly leave = (): void => {
    busy.delete(this);
    this.own = null;
  };
}
