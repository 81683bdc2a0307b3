// One connection of a browser: parse, walk, respond, next. Requests are walked one at a time; what is pipelined behind one waits, bounded, with the
// socket paused, so answers leave in the order of their requests (RFC 9112 §9.3.2).

import type { Socket as NodeSocket } from 'node:net';
import type { ConfigLimits } from '../../shared/config.ts';
import { Fault } from '../../shared/fault.ts';
import type { Bytes, Milliseconds } from '../../shared/units.ts';
import type { ChunkOutlet } from '../message/chunked-writer.ts';
import type { Deadlines, Waiting } from '../message/deadlines.ts';
import { Fields } from '../message/headers.ts';
import { HeadReader, parseRequestHead } from '../message/http1-parser.ts';
import type { KnownHeads } from '../message/known-heads.ts';
import { type Carrier, IncomingBody } from '../message/incoming-body.ts';
import { Malformed } from '../message/malformed.ts';
import type { Body, RequestHead } from '../message/message.ts';
import { writeOutgoing } from '../sockets/outgoing.ts';
import { nodeSocket, type Socket } from '../sockets/socket.ts';
import { MessageReads, own } from '../sockets/socket-reads.ts';
import type { ControlDoor, ControlElsewhere, Entrance } from '../rooms.ts';
import { BARE_400, protocolOf } from './first-bytes.ts';
import type { Idler, IdleQueue } from './idle-queue.ts';
import { respond, respondFault } from './respond.ts';
import { type SocksLogin, SocksServer, type SocksVersion } from './socks-server.ts';
import { isFromHere } from './this-machine.ts';

export type DownstreamLimits = Pick<
  ConfigLimits,
  | 'connections'
  | 'connectionsPerAddress'
  | 'head'
  | 'fields'
  | 'headTimeout'
  | 'idleTimeout'
  | 'bodyTimeout'
  | 'bodyProgress'
  | 'halfClosedTimeout'
  | 'drainTimeout'
>;

/** Where requests go. Both answer `incoming` in every case, and neither throws or rejects. */
export interface Walk {
  /** Null when the exchange has ended already. */
  readonly request: (incoming: Incoming) => Promise<void> | null;
  readonly tunnel: (incoming: Incoming) => Promise<void>;
}

/** What a connection needs of its listener. */
export interface ConnectionHouse {
  readonly limits: DownstreamLimits;
  readonly deadlines: Deadlines;
  readonly knownHeads: KnownHeads;
  /** Those that may be closed when there are too many. */
  readonly idle: IdleQueue<DownstreamConnection>;
  readonly walk: Walk;
  readonly control: ControlDoor | ControlElsewhere;
  readonly entrance: Entrance;
  /** The listener is going: no further request. */
  readonly closing: boolean;
  forget(connection: DownstreamConnection): void;
}

/** After an answer that ends the connection, the client may still be sending: so long and so much is read and thrown away, lest it gets a reset
 * instead of the answer (RFC 9112 §9.6). */
const LINGER: Milliseconds = 2_000;
const LINGER_BYTES = 1024 * 1024;

/** A request that came in, and the way back. */
export class Incoming {
  readonly head: RequestHead;
  readonly body: Body;
  readonly connection: DownstreamConnection;
  /** The version of SOCKS in which a tunnel was asked for, and in which it is answered; null = HTTP. */
  readonly socks: SocksVersion | null;
  /** Bytes of the answers so far, heads included. */
  bytesDown: Bytes = 0;
  /** Whether the final head is out. */
  responded = false;

  constructor(head: RequestHead, body: Body, connection: DownstreamConnection, socks: SocksVersion | null = null) {
    this.head = head;
    this.body = body;
    this.connection = connection;
    this.socks = socks;
  }

  /** Fires when the browser leaves. */
  get signal(): AbortSignal {
    return this.connection.signal;
  }

  /** The client's address. */
  get from(): string {
    return this.connection.from;
  }

  /** Bytes of the body that have come. */
  get bytesUp(): Bytes {
    const { body } = this;
    return body === null ? 0 : Buffer.isBuffer(body) ? body.length : (body as IncomingBody).received;
  }

  /** Whether the request has not come to its end. */
  get bodyUnread(): boolean {
    return this.body instanceof IncomingBody && !this.body.done;
  }

  /** The one who hears of it, once, when the browser leaves during this exchange. */
  set whenGone(listener: ((fault: Fault) => void) | null) {
    this.connection.whenGone = listener;
  }

  /** Takes the socket over, with what came behind the request. It has no listeners of ours any more. */
  takeOver(): { readonly socket: Socket; readonly rest: Buffer | null } {
    return this.connection.takeOver();
  }
}

export class DownstreamConnection implements Carrier, Waiting, ChunkOutlet, Idler<DownstreamConnection> {
  deadline: Milliseconds;
  idleBefore: DownstreamConnection | null = null;
  idleAfter: DownstreamConnection | null = null;
  isQueued = false;
  /** The upstream room's: see Client there. */
  pin = '';
  readonly socket: Socket;
  whenGone: ((fault: Fault) => void) | null = null;
  /** Hears that the socket takes more. */
  whenDrained: (() => void) | null = null;
  private readonly house: ConnectionHouse;
  private readonly reader: HeadReader;
  private readonly reads: MessageReads;
  private phase: 'first' | 'head' | 'socks' | 'exchange' | 'closing' | 'left' = 'first';
  private socks: SocksServer | null = null;
  /** Bytes behind the request that runs. */
  private pending: Buffer | null = null;
  private paused = false;
  private body: IncomingBody | null = null;
  private advancing = false;
  /** The client has said its last word. It may listen on, if it is owed something. */
  private ended = false;
  /** What runs is a tunnel to be. */
  private tunnels = false;
  private lingered = 0;
  /** The deadline of the body moves on when so much of it has come. */
  private progressAt: Bytes = 0;
  private controller: AbortController | null = null;

  constructor(socket: Socket, house: ConnectionHouse) {
    this.socket = socket;
    this.house = house;
    this.reader = new HeadReader('request', house.limits);
    this.deadline = house.deadlines.in(house.limits.headTimeout * 1000);
    house.deadlines.add(this);
    this.reads = new MessageReads(socket, this.onData, this.takeKnown);
    house.idle.join(this);
    socket.on('data', this.onData);
    socket.on('end', this.onEnd);
    socket.on('error', this.onError);
    socket.on('close', this.onClose);
    socket.on('drain', this.onDrain);
    socket.resume();
  }

  /** Whether the browser has left. */
  get gone(): boolean {
    return this.phase === 'left' || this.phase === 'closing';
  }

  /** Whether no request runs. */
  get isIdle(): boolean {
    return this.phase === 'first' || this.phase === 'head' || this.phase === 'socks';
  }

  /** Whether an answer must end the connection. */
  get lastAnswer(): boolean {
    return this.house.closing;
  }

  /** The client's address; empty once it has left. */
  get from(): string {
    return this.socket.remoteAddress ?? '';
  }

  get signal(): AbortSignal {
    if (this.controller === null) {
      this.controller = new AbortController();
      if (this.gone) this.controller.abort(new Fault('downstream_gone'));
    }
    return this.controller.signal;
  }

  // What comes ------------------------------------------------------------------------------------------------------------------------------

  private readonly onData = (chunk: Buffer): void => {
    if (this.phase === 'first') {
      if (!this.greet(chunk)) return;
      this.phase = this.socks === null ? 'head' : 'socks';
    }
    switch (this.phase) {
      case 'head':
        if (this.pending !== null) this.pending = Buffer.concat([this.pending, chunk]);
        else if (this.advancing || this.socket.writableNeedDrain) this.pending = own(chunk);
        else this.pending = chunk;
        this.advance();
        return;
      case 'exchange':
        if (this.body !== null) {
          if (!this.body.waits && this.body.received >= this.progressAt) this.bodyMoved(this.body.received);
          this.body.feed(chunk);
          return;
        }
        this.pending = this.pending === null ? own(chunk) : Buffer.concat([this.pending, chunk]);
        if (this.pending.length >= this.house.limits.head) this.pauseReading();
        return;
      case 'socks':
        return this.shakeHands(this.pending === null ? chunk : Buffer.concat([this.pending, chunk]));
      case 'closing':
        this.lingered += chunk.length;
        if (this.lingered > LINGER_BYTES) this.socket.destroy();
        return;
      default:
    }
  };

  /** A request that has come before, byte for byte, and nothing behind it. */
  private readonly takeKnown = (bytes: number): boolean => {
    if (this.phase !== 'head' || this.pending !== null || this.advancing) return false;
    if (this.socket.writableNeedDrain || !this.reader.isFresh) return false;
    const head = this.house.knownHeads.find(bytes);
    if (head === null) return false;
    this.deadline = this.patience;
    this.phase = 'exchange';
    this.house.idle.leave(this);
    this.house.walk.request(new Incoming(head, null, this))?.catch(this.onBug);
    return true;
  };

  /** The very first bytes; false where they are nothing that is served here. */
  private greet(chunk: Buffer): boolean {
    switch (protocolOf(chunk[0]!)) {
      case 'http':
        return true;
      case 'socks5':
        this.socks = new SocksServer(5, this.socksLogin());
        return true;
      case 'socks4':
        this.socks = new SocksServer(4, this.socksLogin());
        return true;
      default:
        this.finishWith(BARE_400);
        return false;
    }
  }

  private socksLogin(): SocksLogin | null {
    const { logIn } = this.house.entrance;
    return logIn && ((username, password) => logIn(username, password, this.from));
  }

  /** Goes on with the handshake of a SOCKS client, all of it within the time that a head has. The tunnel it asks for is walked as a CONNECT's. */
  private shakeHands(bytes: Buffer): void {
    const socks = this.socks!;
    this.pending = null;
    while (bytes.length > 0) {
      const step = socks.read(bytes);
      if (step === 'need-more') {
        this.pending = own(bytes);
        return;
      }
      if (step.over) return this.finishWith(step.send);
      if (step.send.length > 0) this.socket.write(step.send);
      bytes = step.rest;
      if (step.target === undefined) continue;
      this.deadline = Infinity;
      this.phase = 'exchange';
      this.tunnels = true;
      this.pending = bytes.length > 0 ? own(bytes) : null;
      this.house.idle.leave(this);
      const head: RequestHead = {
        method: 'CONNECT',
        target: { form: 'authority', ...step.target },
        version: 11,
        fields: new Fields(),
        framing: { kind: 'none' },
        keepAlive: false,
      };
      this.house.walk.tunnel(new Incoming(head, null, this, socks.version)).catch(this.onBug);
      return;
    }
  }

  /** Takes up requests for as long as whole ones wait and none runs. */
  private advance(): void {
    if (this.advancing) return;
    this.advancing = true;
    while (this.phase === 'head' && this.pending !== null && !this.socket.writableNeedDrain) {
      const chunk = this.pending;
      this.pending = null;
      this.takeUp(chunk);
    }
    this.advancing = false;
    if (this.phase !== 'head') return;
    if (this.pending !== null) {
      // Who asks on without reading the answers is not read either.
      if (this.pending.length >= this.house.limits.head) this.pauseReading();
      return;
    }
    if (this.ended) this.finishWith(null);
    else this.resumeReading();
  }

  private takeUp(chunk: Buffer): void {
    const { house, reader } = this;
    let head: RequestHead;
    let at: number;
    const wasBegun = reader.begun;
    try {
      at = reader.read(chunk, 0);
      if (at === -1) {
        if (!wasBegun) this.deadline = house.deadlines.in(house.limits.headTimeout * 1000);
        return;
      }
      head = parseRequestHead(reader.text, house.limits);
    } catch (error) {
      return this.refuse(error);
    }
    this.deadline = this.patience;
    this.phase = 'exchange';
    house.idle.leave(this);
    const rest = at < chunk.length ? own(chunk.subarray(at)) : null;
    const { target, framing } = head;
    if (target.form === 'origin' || target.form === 'asterisk') {
      try {
        return this.knockAtControl(head, rest);
      } catch (error) {
        this.leave();
        return this.onBug(error as Error);
      }
    }
    if (target.form === 'authority') {
      this.pending = rest;
      this.tunnels = true;
      house.walk.tunnel(new Incoming(head, null, this)).catch(this.onBug);
      return;
    }
    let body: Body = null;
    if (framing.kind === 'none') {
      this.pending = rest;
      if (rest === null && !wasBegun) house.knownHeads.remember(chunk, head);
    } else if (framing.kind === 'length' && rest !== null && framing.length <= rest.length) {
      body = rest.subarray(0, framing.length);
      this.pending = framing.length < rest.length ? rest.subarray(framing.length) : null;
    } else {
      body = this.body = new IncomingBody(framing, 'request', house.limits, this, rest);
      this.reads.flows = true;
      this.bodyMoved(0);
      // What came before its turn may have stopped the reading.
      this.resumeReading();
      if (this.ended)
        this.body.connectionEnded(new Fault('http_request_error', { detail: 'its body is cut off' }), true);
    }
    house.walk.request(new Incoming(head, body, this))?.catch(this.onBug);
  }

  /** The walk catches what can fail; this is what cannot. One exchange ends, not the companion. */
  private readonly onBug = (error: Error): void => {
    process.emitWarning(error);
    this.socket.destroy();
  };

  /** A request for this server itself: the control room's, or nobody's. From other machines there is no way in, whoever asks. */
  private knockAtControl(head: RequestHead, rest: Buffer | null): void {
    const { control } = this.house;
    // An answer before this one could not be written: the close is on its way, and nobody is to be given a socket that breaks in his hands.
    if (this.socket.destroyed) return;
    if (this.mayKnock && head.framing.kind === 'none' && head.target.form === 'origin') {
      if ('handOver' in control) {
        // What the system has not taken yet of the answers before would be lost with this process's side of the socket.
        if (this.socket.writableLength === 0 && control.mayEnter(head, this.socket)) return this.moveTo(control, rest);
      } else if (head.fields.has('upgrade')) {
        if (control.upgrade(head, this.giveAway, rest ?? NOTHING)) return;
      } else {
        const answer = control.answer(head);
        if (answer !== null) {
          this.pending = rest;
          void respond(new Incoming(head, null, this), answer, {});
          return;
        }
      }
    }
    this.finishWith(BARE_400);
  }

  /** The socket, for somebody who speaks another language on it. */
  private readonly giveAway = (): NodeSocket => {
    const { socket } = this;
    this.detach();
    this.leave();
    const given = nodeSocket(socket);
    // What was written before may fail before the new owner listens.
    given.on('error', () => {});
    return given;
  };

  /** From this machine, and not by TLS, whose socket no other process could take over. */
  private get mayKnock(): boolean {
    return !('encrypted' in this.socket) && isFromHere(this.socket);
  }

  /** The control room is in another process, which reads anew what was read here. */
  private moveTo(control: ControlElsewhere, rest: Buffer | null): void {
    const { socket } = this;
    const read = [Buffer.from(`${this.reader.text}\r\n`, 'latin1'), rest ?? NOTHING];
    socket.pause();
    this.detach();
    for (let more: Buffer | null; (more = socket.read() as Buffer | null) !== null;) read.push(more);
    this.leave();
    control.handOver(socket, Buffer.concat(read));
  }

  /** A request that is not valid. Whoever did not speak to a proxy learns nothing. */
  private refuse(error: unknown): void {
    const toProxy = /^(?:CONNECT|[^ ]+ [A-Za-z][A-Za-z0-9+.-]*:) ?/.test(this.reader.beginning);
    if (!toProxy || !(error instanceof Malformed)) return this.finishWith(BARE_400);
    this.phase = 'exchange';
    this.house.idle.leave(this);
    const head: RequestHead = {
      method: 'GET',
      target: { form: 'origin', path: '/' },
      version: 11,
      fields: new Fields(),
      framing: { kind: 'none' },
      keepAlive: false,
    };
    respondFault(new Incoming(head, null, this), new Fault(error.kind, { detail: error.detail }));
  }

  private readonly onEnd = (): void => {
    if (this.phase === 'closing') return;
    if (!this.isOwed) return this.browserLeft();
    this.ended = true;
    if (this.phase === 'exchange') this.deadline = Math.min(this.deadline, this.patience);
    else if (this.pending === null) this.finishWith(null);
  };

  /**
   * Whether a client that has ended its side may be listening still (RFC 9112 §9.6): it has asked for something whole, or has not read all of it.
   * A closed browser looks the same until something is written to it. A tunnel into which nothing has been said is nobody's.
   */
  private get isOwed(): boolean {
    if (this.phase === 'exchange') return this.body === null && (!this.tunnels || this.pending !== null);
    return this.phase === 'head' && this.socket.writableLength > 0;
  }

  /** Until when a request that is being worked on may take, as far as its client goes. */
  private get patience(): Milliseconds {
    return this.ended ? this.house.deadlines.in(this.house.limits.halfClosedTimeout * 1000) : Infinity;
  }

  private readonly onError = (): void => this.browserLeft();
  private readonly onClose = (): void => this.browserLeft();

  private readonly onDrain = (): void => {
    if (this.phase === 'exchange') this.whenDrained?.();
    else if (this.phase === 'head') {
      this.deadline = this.house.deadlines.in(this.house.limits.idleTimeout * 1000);
      this.house.idle.join(this);
      this.advance();
    }
  };

  onDeadline(): void {
    const { phase } = this;
    if (phase === 'exchange' && this.body !== null && this.body.waits) {
      // It is not the client that things wait for; but it may be, the next time.
      this.bodyMoved(this.body.received);
      return;
    }
    if (phase === 'exchange' && this.body !== null && !this.socket.writableNeedDrain) {
      // The upload stands still. The walk hears of it as the body's failure, and can say so.
      const { body } = this;
      this.body = null;
      body.connectionEnded(new Fault('request_timeout'), true);
      return;
    }
    if (phase === 'head' && this.reader.begun) {
      return this.finishWith('HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n');
    }
    this.socket.destroy();
    this.browserLeft();
  }

  private browserLeft(): void {
    if (this.phase === 'left') return;
    const { body, whenGone, controller } = this;
    this.leave();
    this.socket.destroy();
    const fault = new Fault('downstream_gone');
    this.whenGone = null;
    body?.connectionEnded(fault, true);
    whenGone?.(fault);
    controller?.abort(fault);
  }

  private leave(): void {
    this.phase = 'left';
    this.deadline = Infinity;
    this.body = null;
    this.pending = null;
    this.whenDrained = null;
    this.house.deadlines.remove(this);
    this.house.idle.leave(this);
    this.house.forget(this);
  }

  // What respond.ts and the walk do -----------------------------------------------------------------------------------------------------------

  /** Writes; false asks to wait for whenDrained, and starts the clock of a reader that has stopped reading. */
  write(bytes: Buffer | string): boolean {
    const more = typeof bytes === 'string' ? this.socket.write(bytes, 'latin1') : this.socket.write(bytes);
    this.hasWritten(more);
    return more;
  }

  /** The same for the first bytes of `outgoing()`. */
  writeOutgoing(length: number): boolean {
    const more = writeOutgoing(this.socket, length);
    this.hasWritten(more);
    return more;
  }

  private hasWritten(more: boolean): void {
    if (!more) this.deadline = this.house.deadlines.in(this.house.limits.bodyTimeout * 1000);
    // What is written beside an upload (a 100, an early answer) buys the upload no time (A86).
    else if (this.body === null || this.body.waits) this.deadline = this.patience;
  }

  cork(): void {
    this.socket.cork();
  }

  uncork(): void {
    this.socket.uncork();
  }

  /** The answer is out. The next request, or the end. */
  answered(close: boolean): void {
    if (this.phase !== 'exchange') return;
    this.whenGone = null;
    this.whenDrained = null;
    if (close || this.house.closing) return this.finishWith(null);
    this.reader.forget();
    this.body = null;
    this.phase = 'head';
    const { deadlines, limits, idle } = this.house;
    // Until the client has read its answer, it is no idle one.
    const unread = this.socket.writableNeedDrain;
    if (!unread) idle.join(this);
    this.deadline = deadlines.in((unread ? limits.bodyTimeout : limits.idleTimeout) * 1000);
    this.advance();
  }

  /** Last words. The rest of what the client still sends is read and thrown away, bounded. */
  finishWith(bytes: Buffer | string | null): void {
    if (this.phase === 'left') return;
    this.phase = 'closing';
    this.house.idle.leave(this);
    this.pending = null;
    this.body?.cancel();
    this.body = null;
    this.whenGone = null;
    this.whenDrained = null;
    if (bytes === null) this.socket.end();
    else if (typeof bytes === 'string') this.socket.end(bytes, 'latin1');
    else this.socket.end(bytes);
    if (this.socket.writableLength > 0) {
      // A slow reader has the time for its last bytes that it had for those before.
      this.deadline = this.house.deadlines.in(this.house.limits.bodyTimeout * 1000);
      this.socket.once('finish', this.linger);
    } else this.linger();
    this.socket.resume();
  }

  private readonly linger = (): void => {
    if (this.phase !== 'closing') return;
    // All that it was owed is with the system: nothing is lost with it any more.
    this.house.idle.joinAsOldest(this);
    this.deadline = this.house.deadlines.in(LINGER);
  };

  /** The answer broke off: the client must not take it for whole. A body that ends with the connection can only be told so by a reset. */
  breakOff(byReset: boolean): void {
    if (this.phase !== 'exchange') return;
    if (byReset) {
      this.leave();
      this.socket.resetAndDestroy();
    } else this.finishWith(null);
  }

  takeOver(): { socket: Socket; rest: Buffer | null } {
    const { socket, pending } = this;
    socket.pause();
    this.detach();
    this.leave();
    return { socket, rest: pending };
  }

  /** The listener closes: an idle connection ends now, another after its answer, to the last byte of it. */
  retire(): void {
    if (!this.isIdle) return;
    if (this.socket.writableLength > 0) this.finishWith(null);
    else this.drop();
  }

  /** Ends now. */
  drop(): void {
    this.leave();
    this.socket.destroy();
  }

  /** The body has come a step further: it has the whole time again for the next one. Bytes that trickle in do not buy time (A86). */
  private bodyMoved(received: Bytes): void {
    const { deadlines, limits } = this.house;
    this.deadline = deadlines.in(limits.bodyTimeout * 1000);
    this.progressAt = received + limits.bodyProgress;
  }

  private detach(): void {
    const { socket } = this;
    this.reads.stop();
    socket.off('data', this.onData).off('end', this.onEnd).off('error', this.onError);
    socket.off('close', this.onClose).off('drain', this.onDrain);
    // A write may have failed already, and Node's socket tells of it later: the next owner may not be listening yet.
    socket.on('error', nothing);
  }

  // Carrier: the request's body -------------------------------------------------------------------------------------------------------------

  pauseReading(): void {
    if (this.paused) return;
    this.paused = true;
    this.socket.pause();
  }

  resumeReading(): void {
    if (!this.paused) return;
    this.paused = false;
    if (this.body !== null) this.bodyMoved(this.body.received);
    this.socket.resume();
  }

  bodyEnded(rest: Buffer | null): void {
    this.body = null;
    this.reads.flows = false;
    this.deadline = this.patience;
    this.pending = rest;
  }

  bodyBroken(): void {
    this.body = null;
  }

  bodyCancelled(): void {
    this.body = null;
    // What still comes of it is nobody's: it is not parsed as a request, for the answer ends the connection.
  }
}

const NOTHING = Buffer.alloc(0);
const nothing = () => {};
