// Reads into buffers that are used again. Node gives every read 64 KiB of its own, and clearing those away costs a tunnel more than its bytes do.
// `onread` would avoid it, but only for sockets that we connect, and from their birth; so the same is set up here by the names that Node 22 to 24
// have for it inside. Where they are missing, `joinReads` says false and the socket reads as ever. Can go once accepted sockets take `onread`.
//
//   quiet sockets ──▶ one buffer for all; what comes is copied        busy sockets ──▶ each its own, at most MAX_OWN of them
//
// A buffer of its own is read into again only when its write is with the system; until then the socket reads into another one.
import type { Socket } from 'node:net';

const SIZE = 64 * 1024;
/** Sockets that read into a buffer of their own; the one that has had it longest gives it up. Also the most buffers that are kept. */
const MAX_OWN = 64;
/** From so much in one read on, a socket counts as busy. */
const BUSY = 16 * 1024;

interface Handle {
  useUserBuffer?(buffer: Uint8Array): void;
}
interface Inside {
  [key: symbol]: unknown;
  _handle: Handle | null;
}
interface InsideNames {
  readonly buffer: symbol;
  readonly callback: symbol;
  readonly next: symbol;
}

const shared = Buffer.allocUnsafeSlow(SIZE);
const spare: Buffer[] = [];
const busy = new Set<JoinedReads>();
/** Looked up at the first socket: null where this Node has other names. */
let names: InsideNames | null | undefined;

function insideNames(socket: Socket): InsideNames | null {
  const symbols = Object.getOwnPropertySymbols(socket);
  const find = (name: string) => symbols.find(one => one.description === name);
  const buffer = find('kBuffer');
  const callback = find('kBufferCb');
  const next = find('kBufferGen');
  return buffer && callback && next ? { buffer, callback, next } : null;
}

/**
 * Writes all that `from` reads to `to`, with back-pressure: `from` pauses when `to` is full, and whoever calls has to resume it on `drain`.
 * `count` hears of the bytes. False where this Node does not let us; then nothing has changed.
 */
export function joinReads(from: Socket, to: Socket, count: (bytes: number) => void): boolean {
  if (names === undefined) names = insideNames(from);
  const handle = (from as unknown as Inside)._handle;
  if (names === null || typeof handle?.useUserBuffer !== 'function') return false;
  new JoinedReads(from, to, count).begin(names);
  return true;
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

  begin({ buffer, callback, next }: InsideNames): void {
    const inside = this.from as unknown as Inside;
    inside[buffer] = shared;
    inside[callback] = this.onRead;
    inside[next] = this.nextBuffer;
    inside._handle!.useUserBuffer!(shared);
    this.from.once('close', this.leave);
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
      this.own = spare.pop() ?? Buffer.allocUnsafeSlow(SIZE);
    return isFree;
  }

  private readonly nextBuffer = (): Buffer => this.own ?? shared;

  private enter(): void {
    if (busy.size >= MAX_OWN) busy.values().next().value!.leave();
    busy.add(this);
    this.own = spare.pop() ?? Buffer.allocUnsafeSlow(SIZE);
  }

  private readonly leave = (): void => {
    busy.delete(this);
    this.own = null;
  };
}
