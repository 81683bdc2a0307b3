// Reads into memory that is used again. Node gives every read of a socket 64 KiB of its own, and clearing those away costs a request of a few hundred
// bytes more than parsing it. `onread` would avoid it, but only for sockets that we connect, and from their birth; so the same is set up here by the
// names that Node 22 to 24 have for it inside. Where they are missing the socket reads as ever. Can go once accepted sockets take `onread`.
//
//   whoever keeps few bytes ──▶ one buffer for all sockets; `own` copies what is kept beyond the call
//   a body that flows       ──▶ a buffer of its own at every read, given away with its bytes
import { Socket as NodeSocket } from 'node:net';
import type { Socket } from './socket.ts';

/** Bytes of one read at the most. */
export const READ_SIZE = 64 * 1024;
/** From so much in one read on, a socket is busy: its bytes are worth a buffer of their own rather than a copy. */
export const BUSY = 16 * 1024;

/** What all quiet sockets read into. Node reads and calls back in one go, so its bytes hold until the callback returns, and no longer. */
export const shared: Buffer = Buffer.allocUnsafeSlow(READ_SIZE);
const memory = shared.buffer;
/** The same memory, for whoever looks at it before it is a chunk. */
export const sharedBytes: Uint8Array = new Uint8Array(memory);
export const sharedWords: Int32Array = new Int32Array(memory);

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

/** A lean socket (lean-socket.ts) needs none of Node's names for this. */
interface ReadsByItself {
  readWith(onRead: OnRead | null, next: (() => Buffer) | null): void;
}

function readsByItself(socket: object): socket is ReadsByItself {
  return 'readWith' in socket;
}

/** Looked up at the first socket: null where this Node has other names. */
let names: InsideNames | null | undefined;

function insideNames(socket: NodeSocket): InsideNames | null {
  const symbols = Object.getOwnPropertySymbols(socket);
  const find = (name: string) => symbols.find(one => one.description === name);
  const buffer = find('kBuffer');
  const callback = find('kBufferCb');
  const next = find('kBufferGen');
  return buffer && callback && next ? { buffer, callback, next } : null;
}

/** Whether a socket of Node's can be made to read so. */
export function canReadInto(): boolean {
  return insideNames(new NodeSocket()) !== null;
}

/** Who hears of a read: so many bytes at the start of the buffer. False stops reading until `resume`. */
export type OnRead = (bytes: number, buffer: Buffer) => boolean;

/**
 * From now on `onRead` hears what the socket reads, and `next` says into which buffer the next read goes. May be called again for a socket that changes
 * hands. False where this Node does not let us; then nothing has changed. What the socket had read before still comes as 'data'. `already`: what the
 * system's side of it reads into now, where that is set up.
 */
export function readInto(socket: Socket, onRead: OnRead, next: () => Buffer, already?: Buffer): boolean {
  if (readsByItself(socket)) {
    socket.readWith(onRead, next);
    return true;
  }
  if (names === undefined) names = insideNames(socket as NodeSocket);
  const inside = socket as unknown as Inside;
  if (names === null || typeof inside._handle?.useUserBuffer !== 'function') return false;
  inside[names.callback] = onRead;
  inside[names.next] = next;
  if (inside[names.buffer] !== null) return true;
  inside[names.buffer] = already ?? shared;
  if (already === undefined) inside._handle.useUserBuffer(shared);
  return true;
}

/** What the socket reads comes as 'data' again, whoever else it read for. `already` as in `readInto`. */
export function readAsEver(socket: NodeSocket, already?: Buffer): void {
  readInto(
    socket,
    (bytes, buffer) => socket.push(Buffer.from(buffer.subarray(0, bytes))),
    () => shared,
    already,
  );
}

/** The bytes, the caller's to keep: copied where the next read of any socket would overwrite them. */
export function own(bytes: Buffer): Buffer {
  return bytes.buffer === memory ? Buffer.from(bytes) : bytes;
}

/** The reads of one connection that takes messages apart. What `take` is given holds until it returns, unless `own` says otherwise. */
export class MessageReads {
  private readonly take: (chunk: Buffer) => void;
  private readonly socket: Socket;
  /** Whether a body flows: its bytes are kept by others, so a busy one reads into buffers that are given away. */
  flows = false;
  /** Sees what was read before it becomes a chunk: so many bytes at the start of the shared memory. True: it is taken. */
  private readonly takeAtOnce: (bytes: number) => boolean;
  private following: Buffer = shared;

  /** Begins at once. The socket's 'data' stays the other way in: for what it had read before, and where Node has no such reads. */
  constructor(socket: Socket, take: (chunk: Buffer) => void, takeAtOnce: (bytes: number) => boolean = never) {
    this.socket = socket;
    this.take = take;
    this.takeAtOnce = takeAtOnce;
    readInto(this.socket, this.onRead, this.next);
  }

  /** Gives the socket back to whoever listens to its 'data'. */
  stop(): void {
    const { socket } = this;
    if (readsByItself(socket)) socket.readWith(null, null);
    else readAsEver(socket as NodeSocket);
  }

  private readonly onRead = (bytes: number, buffer: Buffer): boolean => {
    const isBusy = this.flows && bytes >= BUSY;
    this.following = isBusy ? Buffer.allocUnsafeSlow(READ_SIZE) : shared;
    if (buffer === shared && this.takeAtOnce(bytes)) return true;
    const chunk = buffer.subarray(0, bytes);
    // A buffer of its own goes with its bytes, unless they are too few for that.
    this.take(buffer === shared || isBusy ? chunk : Buffer.from(chunk));
    return true;
  };

  private readonly next = (): Buffer => this.following;
}

const never = () => false;
