// A TCP connection without Node's stream layer, which costs a tunnel more than its bytes do: states, queues and ticks for each of its two sockets. Here the
// system's queue is the only one: a write goes to it at once, a pause stops the reading itself, and reads go into memory that is used again.
// It stands on names that Node has inside (seen in Node 22 to 24); where one is missing `leanSockets` says so, and Node's own sockets serve.
// Its events and methods are those of net.Socket (lean-socket.test.ts holds both to one contract), except that an error which nobody listens to is
// told to nobody, and that a reset does not wait for what is still to be written.
import { EventEmitter } from 'node:events';
import { type Server, Socket as NodeSocket } from 'node:net';
import { getSystemErrorName } from 'node:util';
import { canReadInto, type OnRead, readAsEver, shared } from './socket-reads.ts';
import type { Socket } from './socket.ts';

interface WriteRequest {
  oncomplete: (this: WriteRequest, status: number) => void;
  socket: LeanSocket | null;
  /** Keeps the bytes alive until the system has them. */
  bytes: unknown;
  size: number;
  done: (() => void) | undefined;
}
interface OtherRequest {
  oncomplete: (this: OtherRequest, status: number) => void;
  socket: LeanSocket;
}
interface Place {
  address?: string;
  port?: number;
}
interface Handle {
  socket: LeanSocket | null;
  onread: (this: Handle) => Buffer | undefined;
  useUserBuffer(buffer: Uint8Array): void;
  readStart(): number;
  readStop(): number;
  writeBuffer(request: WriteRequest, bytes: Uint8Array): number;
  writeLatin1String(request: WriteRequest, text: string): number;
  writev(request: WriteRequest, pieces: readonly Uint8Array[], areBuffers: true): number;
  shutdown(request: OtherRequest): number;
  close(closed: () => void): void;
  reset(closed: () => void): number;
  bind(address: string, port: number, flags: number): number;
  bind6(address: string, port: number, flags: number): number;
  connect(request: OtherRequest, address: string, port: number): number;
  connect6(request: OtherRequest, address: string, port: number): number;
  setNoDelay(on: boolean): void;
  setKeepAlive(on: boolean, seconds: number): void;
  getpeername(into: Place): number;
  getsockname(into: Place): number;
}
interface Inside {
  readonly TCP: new (kind: number) => Handle;
  readonly TCPConnectWrap: new () => OtherRequest;
  readonly SOCKET: number;
  readonly WriteWrap: new () => WriteRequest;
  readonly ShutdownWrap: new () => OtherRequest;
  readonly state: Int32Array;
  readonly BYTES_OR_ERROR: number;
  readonly WAS_ASYNC: number;
  readonly EOF: number;
  readonly NOT_CONNECTED: number;
}

/** What there is inside this Node; null where anything is missing. DETOUR_SOCKETS=node has it missing. */
const inside: Inside | null = lookInside();

function lookInside(): Inside | null {
  if (process.env['DETOUR_SOCKETS'] === 'node' || process.platform === 'win32') return null;
  try {
    // Node's own word for it is "deprecated in the documentation"; there is no other way to these.
    const { binding } = process as unknown as { binding: (name: string) => Record<string, unknown> };
    const { WriteWrap, ShutdownWrap, streamBaseState, kReadBytesOrError, kLastWriteWasAsync } = binding('stream_wrap');
    const { TCP, TCPConnectWrap, constants } = binding('tcp_wrap');
    const { UV_EOF, UV_ENOTCONN } = binding('uv');
    const found = {
      TCP,
      TCPConnectWrap,
      SOCKET: (constants as { SOCKET?: unknown }).SOCKET,
      WriteWrap,
      ShutdownWrap,
      state: streamBaseState,
      BYTES_OR_ERROR: kReadBytesOrError,
      WAS_ASYNC: kLastWriteWasAsync,
      EOF: UV_EOF,
      NOT_CONNECTED: UV_ENOTCONN,
    };
    if (Object.values(found).includes(undefined)) return null;
    const { prototype } = TCP as { prototype: object };
    const needed = ['useUserBuffer', 'readStart', 'readStop', 'writeBuffer', 'writeLatin1String', 'writev', 'shutdown'];
    needed.push(
      'close',
      'reset',
      'connect',
      'connect6',
      'bind',
      'bind6',
      'setNoDelay',
      'setKeepAlive',
      'getpeername',
      'getsockname',
    );
    return needed.every(name => name in prototype) && canReadInto() ? (found as Inside) : null;
  } catch {
    return null;
  }
}

/** Whether this Node lets us have lean sockets. */
export const leanSockets: boolean = inside !== null;

/** So many bytes may wait for the system before a writer is asked to wait for 'drain'; as with Node's. */
const HIGH_WATER = 64 * 1024;
/** What is corked and small goes out as one buffer, rather than as a list of them. */
const JOINED = 16 * 1024;

/** A request for a write that was not needed, because the system took the bytes at once: the next write may have it. */
let spare: WriteRequest | null = null;

const nothing = () => {};

function systemError(status: number, syscall: string): NodeJS.ErrnoException {
  const code = getSystemErrorName(status);
  return Object.assign(new Error(`${syscall} ${code}`), { code, errno: status, syscall });
}

class LeanSocket extends EventEmitter {
  /** Whether this side may go on when the other has ended. */
  allowHalfOpen: boolean;
  /** Whether a write that fails leaves the socket open, for what has come and is not read yet: then 'error' is told, and nothing more is written. */
  survivesWrites = false;
  destroyed = false;
  /** Whether 'close' has been told. */
  closed = false;
  readableEnded = false;
  writableLength = 0;
  writableNeedDrain = false;
  /** Nothing that was read waits here. */
  readonly readableLength = 0;
  private handle: Handle | null;
  private connecting: boolean;
  private ending = false;
  /** The end waits for the system. */
  private shutting = false;
  private ended = false;
  /** A write has failed, and has been survived. */
  private failed = false;
  /** Null: nobody has said yet whether to read. */
  private flowing: boolean | null = null;
  private reading = false;
  private corks = 0;
  private held: (Buffer | string)[] | null = null;
  private heldSize = 0;
  private heldDone: (() => void)[] | null = null;
  private into: Buffer = shared;
  private onRead: OnRead | null = null;
  private next: (() => Buffer) | null = null;
  private peer: Place | null = null;
  private successor: NodeSocket | null = null;

  constructor(handle: Handle, connecting: boolean, allowHalfOpen: boolean) {
    super();
    this.allowHalfOpen = allowHalfOpen;
    this.handle = handle;
    this.connecting = connecting;
    handle.socket = this;
    handle.onread = onHandleRead;
    handle.useUserBuffer(shared);
  }

  get writable(): boolean {
    return !this.destroyed && !this.ending;
  }

  get remoteAddress(): string | undefined {
    return this.peerName().address;
  }

  get remotePort(): number | undefined {
    return this.peerName().port;
  }

  get localAddress(): string | undefined {
    return this.ownName().address;
  }

  get localPort(): number | undefined {
    return this.ownName().port;
  }

  override on(event: string, listener: (...args: never[]) => void): this {
    super.on(event, listener as (...args: unknown[]) => void);
    if (event === 'data' && this.flowing === null) this.resume();
    return this;
  }

  // Reading ---------------------------------------------------------------------------------------------------------------------------------

  resume(): this {
    this.flowing = true;
    if (!this.reading && !this.connecting && !this.readableEnded && this.handle !== null) {
      this.reading = true;
      const status = this.handle.readStart();
      if (status !== 0) this.destroy(systemError(status, 'read'));
    }
    return this;
  }

  pause(): this {
    this.flowing = false;
    if (this.reading) {
      this.reading = false;
      this.handle?.readStop();
    }
    return this;
  }

  read(): null {
    return null;
  }

  /** `onRead` hears of what comes, instead of 'data'; null: 'data' again. See socket-reads.ts. */
  readWith(onRead: OnRead | null, next: (() => Buffer) | null): void {
    this.onRead = onRead;
    this.next = next;
  }

  /** @internal The handle has read. Gives back the buffer for the next read where it is another. */
  arrived(status: number): Buffer | undefined {
    if (status === 0 || this.destroyed) return undefined;
    if (status < 0) {
      this.stopped(status);
      return undefined;
    }
    const { into, onRead } = this;
    if (onRead === null) this.emit('data', Buffer.from(into.subarray(0, status)));
    else if (!onRead(status, into)) this.pause();
    // Given away or closed meanwhile: the handle's buffer is no longer ours to change.
    if (this.handle === null) return undefined;
    const next = this.next === null ? shared : this.next();
    if (next === into) return undefined;
    this.into = next;
    return next;
  }

  private stopped(status: number): void {
    this.reading = false;
    this.handle?.readStop();
    if (status !== inside!.EOF) {
      this.destroy(systemError(status, 'read'));
      return;
    }
    this.readableEnded = true;
    this.emit('end');
    if (this.ended || this.failed) this.destroy();
    else if (!this.allowHalfOpen) this.end();
  }

  // Writing ---------------------------------------------------------------------------------------------------------------------------------

  /** False asks to wait for 'drain'. Text is latin1. `done` hears when the socket has done with the bytes; not where it takes none any more. */
  write(bytes: Buffer | string, encoding?: unknown, done?: () => void): boolean {
    if (this.handle === null || this.ending) return false;
    if (typeof encoding === 'function') done = encoding as () => void;
    if (this.corks > 0 || this.connecting) {
      (this.held ??= []).push(bytes);
      this.heldSize += bytes.length;
      this.writableLength += bytes.length;
      if (done !== undefined) (this.heldDone ??= []).push(done);
      if (this.connecting && this.writableLength >= HIGH_WATER) this.writableNeedDrain = true;
      return !this.writableNeedDrain;
    }
    return this.send(bytes, done);
  }

  cork(): void {
    this.corks++;
  }

  uncork(): void {
    if (this.corks > 0 && --this.corks === 0) this.release();
  }

  /** What was held back goes out in one. */
  private release(): void {
    const { held, heldSize: size, heldDone } = this;
    if (held === null || this.connecting) return;
    this.held = this.heldDone = null;
    this.heldSize = 0;
    this.writableLength -= size;
    const done = heldDone === null ? undefined : () => heldDone.forEach(one => one());
    if (held.length === 1) this.send(held[0]!, done);
    else if (size <= JOINED) {
      const joined = Buffer.allocUnsafe(size);
      let at = 0;
      for (const piece of held)
        at += typeof piece === 'string' ? joined.write(piece, at, 'latin1') : piece.copy(joined, at);
      this.send(joined, done);
    } else {
      this.send(
        held.map(piece => (typeof piece === 'string' ? Buffer.from(piece, 'latin1') : piece)),
        done,
      );
    }
    // Whoever was asked to wait for the connection, and now need not.
    if (this.writableNeedDrain && this.writableLength === 0) process.nextTick(() => this.drained());
  }

  private send(bytes: Buffer | string | readonly Buffer[], done: (() => void) | undefined): boolean {
    const { handle } = this;
    if (handle === null) return false;
    const request = spare ?? new inside!.WriteWrap();
    spare = null;
    let status: number;
    if (typeof bytes === 'string') status = handle.writeLatin1String(request, bytes);
    else if (Buffer.isBuffer(bytes)) status = handle.writeBuffer(request, bytes);
    else status = handle.writev(request, bytes as readonly Buffer[], true);
    if (status !== 0) {
      this.writeFailed(status);
      return false;
    }
    if (inside!.state[inside!.WAS_ASYNC] === 0) {
      spare = request;
      done?.();
      return !this.writableNeedDrain;
    }
    let size = 0;
    if (typeof bytes === 'string' || Buffer.isBuffer(bytes)) size = bytes.length;
    else for (const piece of bytes) size += (piece as Buffer).length;
    request.oncomplete = onWritten;
    request.socket = this;
    request.bytes = bytes;
    request.size = size;
    request.done = done;
    this.writableLength += size;
    if (this.writableLength >= HIGH_WATER) this.writableNeedDrain = true;
    return !this.writableNeedDrain;
  }

  /** @internal A write that had to wait is with the system. */
  written(request: WriteRequest, status: number): void {
    this.writableLength -= request.size;
    request.done?.();
    if (this.destroyed || this.failed) return;
    if (status !== 0) this.writeFailed(status);
    else if (this.writableLength === 0) {
      if (this.ending) this.shutdown();
      else this.drained();
    }
  }

  private drained(): void {
    if (!this.writableNeedDrain || this.writableLength > 0) return;
    this.writableNeedDrain = false;
    this.emit('drain');
  }

  private writeFailed(status: number): void {
    const error = systemError(status, 'write');
    if (!this.survivesWrites || this.readableEnded) {
      this.destroy(error);
      return;
    }
    this.failed = this.ending = true;
    this.writableNeedDrain = false;
    process.nextTick(() => this.tellError(error));
  }

  end(bytes?: Buffer | string | (() => void)): this {
    if (this.ending || this.handle === null) return this;
    if (bytes !== undefined && typeof bytes !== 'function') this.write(bytes);
    this.corks = 0;
    this.release();
    this.ending = true;
    this.writableNeedDrain = false;
    if (!this.connecting && this.writableLength === 0) this.shutdown();
    return this;
  }

  /** Only when nothing waits to be written: while the system's queue holds an end, the connection cannot be reset. */
  private shutdown(): void {
    const { handle } = this;
    if (handle === null || this.shutting || this.ended || this.failed) return;
    const request = new inside!.ShutdownWrap();
    request.socket = this;
    request.oncomplete = onShutdown;
    const status = handle.shutdown(request);
    // 1: it was done at once.
    if (status === 0) this.shutting = true;
    else this.hasEnded(status === 1 ? 0 : status);
  }

  /** @internal All that was written, and the end, are with the system. */
  hasEnded(status: number): void {
    this.shutting = false;
    if (this.destroyed) return;
    if (status !== 0 && status !== inside!.NOT_CONNECTED) {
      this.destroy(systemError(status, 'shutdown'));
      return;
    }
    this.ended = true;
    this.emit('finish');
    if (this.readableEnded) this.destroy();
  }

  // The end ---------------------------------------------------------------------------------------------------------------------------------

  /** Closes it; 'error' (where there is one) and 'close' are told later. */
  destroy(error?: Error): this {
    this.successor?.destroy(error);
    const handle = this.abandon();
    handle?.close(() => this.close(error));
    return this;
  }

  /** Closes it by a reset. What waits to be written is not. */
  resetAndDestroy(): this {
    this.successor?.resetAndDestroy();
    // A handle whose end is on its way cannot be reset, and after the attempt Node would not close it either.
    if (this.connecting || this.shutting) return this.destroy();
    const handle = this.abandon();
    if (handle !== null && handle.reset(() => this.close(undefined)) !== 0) handle.close(() => this.close(undefined));
    return this;
  }

  /** The handle, which is nobody's now. */
  private abandon(): Handle | null {
    const { handle } = this;
    this.destroyed = true;
    this.handle = null;
    this.held = this.heldDone = null;
    this.reading = false;
    this.writableNeedDrain = false;
    if (handle !== null) handle.onread = nothing as unknown as Handle['onread'];
    return handle;
  }

  private close(error: Error | undefined): void {
    this.closed = true;
    this.onRead = null;
    this.next = null;
    if (error !== undefined && !this.failed) this.tellError(error);
    this.emit('close', error !== undefined);
  }

  /** An error that comes while the socket is on its way from one owner to the next must not bring the process down. */
  private tellError(error: Error): void {
    if (this.listenerCount('error') > 0) this.emit('error', error);
  }

  // The rest --------------------------------------------------------------------------------------------------------------------------------

  setNoDelay(on = true): this {
    this.handle?.setNoDelay(on);
    return this;
  }

  /** @internal */
  connected(status: number): void {
    if (this.destroyed) return;
    this.connecting = false;
    if (status !== 0) {
      this.destroy(systemError(status, 'connect'));
      return;
    }
    this.emit('connect');
    if (this.corks === 0) this.release();
    if (this.ending && this.writableLength === 0) this.shutdown();
    if (this.flowing === true) this.resume();
  }

  /** A socket of Node's over the same connection. This one is spent: it tells only of the close, and can be destroyed. */
  toNode(): NodeSocket {
    const { handle } = this;
    if (handle === null) {
      const gone = new NodeSocket();
      gone.destroy();
      return gone;
    }
    this.pause();
    this.corks = 0;
    this.release();
    // What was held has found the connection broken.
    if (this.destroyed) return this.toNode();
    const { ending } = this;
    this.abandon();
    handle.socket = null;
    const socket = new NodeSocket({
      handle,
      allowHalfOpen: this.allowHalfOpen,
      readable: true,
      writable: true,
      pauseOnCreate: true,
    } as object);
    this.successor = socket;
    socket.once('close', () => this.close(undefined));
    socket.on('error', nothing);
    // The handle goes on reading into the buffer that it has.
    readAsEver(socket, this.into);
    if (ending) socket.end();
    return socket;
  }

  private peerName(): Place {
    if (this.peer === null) {
      const place: Place = {};
      if (this.handle === null || this.handle.getpeername(place) !== 0) return {};
      this.peer = place;
    }
    return this.peer;
  }

  /** Where it is on this side. */
  private ownName(): Place {
    const place: Place = {};
    return this.handle !== null && this.handle.getsockname(place) === 0 ? place : {};
  }
}

function onHandleRead(this: Handle): Buffer | undefined {
  return this.socket?.arrived(inside!.state[inside!.BYTES_OR_ERROR]!);
}

function onWritten(this: WriteRequest, status: number): void {
  const { socket } = this;
  this.bytes = null;
  socket!.written(this, status);
  this.socket = null;
}

function onShutdown(this: OtherRequest, status: number): void {
  this.socket.hasEnded(status);
}

function onConnected(this: OtherRequest, status: number): void {
  this.socket.connected(status);
}

/** Connects to an address, from `from` where that is given; 'connect' or 'error' is told. Only where `leanSockets`. */
export function connectLean(address: string, port: number, keepAliveAfter: number, from?: string): Socket {
  const { TCP, SOCKET, TCPConnectWrap } = inside!;
  const handle = new TCP(SOCKET);
  const socket = new LeanSocket(handle, true, false);
  const request = new TCPConnectWrap();
  request.socket = socket;
  request.oncomplete = onConnected;
  handle.setNoDelay(true);
  handle.setKeepAlive(true, Math.round(keepAliveAfter / 1000));
  const isIPv6 = address.includes(':');
  const bound = from === undefined ? 0 : isIPv6 ? handle.bind6(from, 0, 0) : handle.bind(from, 0, 0);
  if (bound !== 0) {
    socket.destroy(systemError(bound, 'bind'));
    return socket as unknown as Socket;
  }
  const status = isIPv6 ? handle.connect6(request, address, port) : handle.connect(request, address, port);
  if (status !== 0) socket.destroy(systemError(status, 'connect'));
  return socket as unknown as Socket;
}

/**
 * The sockets that a listening server accepts come to `accept`, lean, but for those for which `plain` says that Node's own are wanted: these come as
 * 'connection', as ever. Where this Node does not let us, all do.
 */
export function acceptLean(server: Server, accept: (socket: Socket) => void, plain: () => boolean): void {
  const handle = (server as unknown as { _handle: { onconnection?: (...args: unknown[]) => void } | null })._handle;
  const asEver = handle?.onconnection;
  if (inside === null || typeof asEver !== 'function') return;
  handle!.onconnection = function onConnection(...args) {
    const [status, accepted] = args as [number, Handle | undefined];
    if (status !== 0 || accepted === undefined || plain()) {
      asEver.apply(this, args);
      return;
    }
    accepted.setNoDelay(true);
    accept(new LeanSocket(accepted, false, true) as unknown as Socket);
  };
}
