// One connection toward an origin (or to the http hop that answers for it): sends one request at a time and reads its answer. What comes without
// having been asked for is never an answer (RFC 9112 §9.2): the connection is dropped.

import type { Endpoint } from '../../shared/endpoint.ts';
import { Fault, type FaultKind } from '../../shared/fault.ts';
import type { Milliseconds } from '../../shared/units.ts';
import { BodyReader } from '../message/body-reader.ts';
import { ChunkedWriter, type ChunkOutlet } from '../message/chunked-writer.ts';
import type { Deadlines, Waiting } from '../message/deadlines.ts';
import type { Fields } from '../message/headers.ts';
import { allowedTrailers } from '../message/hop-by-hop.ts';
import { type HeadLimits, HeadReader, listHas, parseResponseHead } from '../message/http1-parser.ts';
import { type Carrier, IncomingBody } from '../message/incoming-body.ts';
import { Malformed } from '../message/malformed.ts';
import type { Answer, Body, BodySink, BodySource, Framing, ResponseHead } from '../message/message.ts';
import type { Socket } from '../sockets/socket.ts';
import { MessageReads, own } from '../sockets/socket-reads.ts';
import { tlsFaultOf } from '../sockets/tls-fault.ts';

/** Whom a fault of this connection speaks of. */
export interface Blame {
  readonly target: Endpoint;
  readonly hop: string | undefined;
}

export interface UpstreamTimes {
  /** Seconds until the head of an answer must have come. */
  readonly responseTimeout: number;
  /** Seconds that a body may stand still. */
  readonly bodyTimeout: number;
}

/** What is sent. */
export interface SentRequest {
  readonly method: string;
  /** The whole head, latin1. */
  readonly headText: string;
  readonly framing: Framing;
  readonly body: Body;
  /** The protocols that a 101 was asked for; null = none was. */
  readonly upgrade: string | null;
  readonly blame: Blame;
  /** Hears 1xx answers other than 101. */
  readonly interim: ((head: ResponseHead) => void) | null;
  /** Who asks, where connections may have to be kept apart by that. */
  readonly client?: Client | undefined;
  /** Whether it logs the connection itself in (logsConnectionIn). */
  readonly logsIn?: boolean | undefined;
}

/** Whoever asks on one connection of his. */
export interface Client {
  /** Stands behind the keys of connections that are his alone; empty while there are none. */
  pin: string;
}

let pins = 0;

/**
 * Whether an Authorization or WWW-Authenticate is of the kinds that log in a connection instead of a request (RFC 4559 §5): what follows on it counts as
 * the same person's, whoever sends it.
 */
export function logsConnectionIn(field: string | undefined): boolean {
  return field !== undefined && /(?:^|,)[ \t]*(?:ntlm|negotiate)(?![^ \t,])/i.test(field);
}

/** More 1xx answers than this to one request are an attack. */
const MAX_INTERIM = 32;
/** A body this small that has come whole travels as one Buffer. */
const SMALL = 64 * 1024;
/** So long an answer is awaited that may have come just before the connection broke under an upload. */
const LAST_WORDS: Milliseconds = 500;

interface Running {
  readonly request: SentRequest;
  readonly resolve: (answer: Answer) => void;
  readonly reject: (fault: Fault) => void;
  interims: number;
}

export class UpstreamConnection implements Carrier, Waiting, BodySink {
  deadline = Infinity;
  readonly socket: Socket;
  /** What it may be taken for. It changes when the connection becomes one client's alone. */
  key: string;
  /** Since when it has been idle, on the clock of the deadlines. */
  idleSince = 0;
  /** Whether a byte of the answer to the running request has come. */
  answered = false;
  private readonly limits: HeadLimits;
  private readonly times: UpstreamTimes;
  private readonly deadlines: Deadlines;
  private readonly onIdle: (connection: UpstreamConnection) => void;
  private readonly onGone: (connection: UpstreamConnection) => void;
  private readonly reader: HeadReader;
  private readonly reads: MessageReads;
  private running: Running | null = null;
  private blame: Blame | null = null;
  private body: IncomingBody | null = null;
  /** The request's own body, while it flows. */
  private upload: BodySource | null = null;
  private chunked: ChunkedWriter | null = null;
  private reusable = false;
  private gone = false;
  /** What broke the connection under an upload, while its last words are awaited. */
  private broken: Fault | null = null;

  constructor(
    socket: Socket,
    key: string,
    parts: {
      limits: HeadLimits;
      times: UpstreamTimes;
      deadlines: Deadlines;
      onIdle: (connection: UpstreamConnection) => void;
      onGone: (connection: UpstreamConnection) => void;
    },
  ) {
    this.socket = socket;
    this.key = key;
    this.limits = parts.limits;
    this.times = parts.times;
    this.deadlines = parts.deadlines;
    this.onIdle = parts.onIdle;
    this.onGone = parts.onGone;
    this.reader = new HeadReader('response', parts.limits);
    this.deadlines.add(this);
    this.reads = new MessageReads(socket, this.onData);
    socket.on('data', this.onData);
    socket.on('end', this.onEnd);
    socket.on('error', this.onError);
    socket.on('close', this.onClose);
    socket.on('drain', this.onDrain);
    socket.resume();
  }

  /** Whether it can take a request. */
  get usable(): boolean {
    return !this.gone && this.running === null && this.body === null && this.socket.writable;
  }

  /**
   * Sends a request and resolves with its final answer, whose body may still be on its way. Throws Fault connection_terminated,
   * http_response_incomplete, http_response_timeout, http_protocol_error and its kin, http_upgrade_failed.
   */
  exchange(request: SentRequest): Promise<Answer> {
    return new Promise((resolve, reject) => {
      this.running = { request, resolve, reject, interims: 0 };
      this.blame = request.blame;
      this.answered = false;
      this.reusable = false;
      if (this.gone) return this.break(this.fault('connection_terminated'));
      const { body, headText, framing } = request;
      this.deadline = this.deadlines.in(this.times.responseTimeout * 1000);
      if (body === null) this.socket.write(headText, 'latin1');
      else if (Buffer.isBuffer(body)) {
        this.socket.cork();
        this.socket.write(headText, 'latin1');
        this.socket.write(body);
        this.socket.uncork();
      } else {
        this.upload = body;
        surviveWrites(this.socket);
        this.chunked = framing.kind === 'chunked' ? new ChunkedWriter(outletOf(this.socket)) : null;
        this.socket.cork();
        this.socket.write(headText, 'latin1');
        body.start(this);
        this.socket.uncork();
      }
    });
  }

  /** Stops whatever runs, with this fault as the reason. */
  abort(fault: Fault): void {
    this.break(fault);
  }

  /** Closes the connection. */
  destroy(): void {
    this.socket.destroy();
    this.leave();
  }

  /** Gives the socket away after a 101; it has no listener of ours any more. */
  takeOver(): Socket {
    const { socket } = this;
    socket.pause();
    socket.off('data', this.onData).off('end', this.onEnd).off('error', this.onError);
    socket.off('close', this.onClose).off('drain', this.onDrain);
    this.reads.stop();
    this.leave();
    return socket;
  }

  onDeadline(): void {
    if (this.running !== null) this.break(this.broken ?? this.fault('http_response_timeout'));
    else if (this.body === null) this.destroy();
    else if (this.body.waits) this.deadline = this.deadlines.in(this.times.bodyTimeout * 1000);
    else this.break(this.fault('connection_read_timeout'));
  }

  // The request's body ----------------------------------------------------------------------------------------------------------------------

  write(chunk: Buffer): boolean {
    if (this.gone) return true;
    if (this.running !== null) this.deadline = this.deadlines.in(this.times.responseTimeout * 1000);
    return this.chunked === null ? this.socket.write(chunk) : this.chunked.write(chunk);
  }

  end(trailers: Fields | null): void {
    this.upload = null;
    if (this.gone) return;
    this.chunked?.end(allowedTrailers(trailers));
    this.chunked = null;
  }

  fail(error: Error): void {
    this.upload = null;
    this.break(error instanceof Fault ? error : faultOf(error, null));
  }

  // What comes ------------------------------------------------------------------------------------------------------------------------------

  private readonly onData = (chunk: Buffer): void => {
    if (this.gone) return;
    if (this.body !== null) {
      this.deadline = this.deadlines.in(this.times.bodyTimeout * 1000);
      this.body.feed(chunk);
      return;
    }
    if (this.running === null) {
      // Nobody asked: an idle connection that speaks is not to be trusted with a request.
      this.destroy();
      return;
    }
    this.answered = true;
    try {
      this.readAnswer(chunk, this.running);
    } catch (error) {
      this.break(faultOf(error, this.blame));
    }
  };

  private readAnswer(chunk: Buffer, running: Running): void {
    const { request } = running;
    let at = 0;
    while (true) {
      at = this.reader.read(chunk, at);
      if (at === -1) return;
      const head = parseResponseHead(this.reader.text, this.limits, request.method);
      if (head.status === 101) return this.switched(head, chunk.subarray(at), running);
      if (head.status >= 200) return this.finalAnswer(head, chunk, at, running);
      if (++running.interims > MAX_INTERIM) throw new Malformed('http_protocol_error', 'endless interim answers');
      request.interim?.(head);
    }
  }

  /** RFC 9110 §7.8: only as asked, only with both fields, and only to what was asked for. */
  private switched(head: ResponseHead, rest: Buffer, running: Running): void {
    const { upgrade } = running.request;
    if (upgrade === null) throw new Malformed('http_upgrade_failed', 'it switched without being asked');
    const connection = head.fields.get('connection');
    const chosen = head.fields.get('upgrade') ?? '';
    if (connection === undefined || !listHas(connection, 'upgrade') || !/[^ \t,]/.test(chosen)) {
      throw new Malformed('http_upgrade_failed', 'its 101 does not say to what');
    }
    const protocols = chosen.toLowerCase().split(',');
    if (protocols.some(one => one.trim() !== '' && !listHas(upgrade, one.trim()))) {
      throw new Malformed('http_upgrade_failed', 'it switched to what was not asked for');
    }
    this.running = null;
    this.deadline = Infinity;
    running.resolve({ head, body: rest.length > 0 ? own(rest) : null });
  }

  private finalAnswer(head: ResponseHead, chunk: Buffer, at: number, running: Running): void {
    const { framing } = head;
    const available = chunk.length - at;
    // What is malformed is thrown while somebody still waits to hear of it.
    const whole =
      framing.kind === 'chunked' && available <= SMALL && endsLikeChunked(chunk)
        ? this.wholeChunked(chunk, at, framing)
        : null;
    this.running = null;
    this.reusable = head.keepAlive && running.request.upgrade === null && this.broken === null;
    this.becomeTheirs(head, running.request);
    if (framing.kind === 'none') {
      this.completed(at < chunk.length);
      return running.resolve({ head, body: null });
    }
    if (framing.kind === 'length' && framing.length <= available) {
      this.completed(framing.length < available);
      return running.resolve({ head, body: own(chunk.subarray(at, at + framing.length)) });
    }
    if (whole !== null) {
      this.completed(false);
      return running.resolve({ head: { ...head, framing: { kind: 'length', length: whole.length } }, body: whole });
    }
    this.deadline = this.deadlines.in(this.times.bodyTimeout * 1000);
    this.body = new IncomingBody(framing, 'response', this.limits, this, available > 0 ? chunk.subarray(at) : null);
    this.reads.flows = true;
    running.resolve({ head, body: this.body });
  }

  /** A connection that is being logged in serves the client who does so, and nobody else. */
  private becomeTheirs(head: ResponseHead, { client, logsIn }: SentRequest): void {
    if (client === undefined || (client.pin !== '' && this.key.endsWith(client.pin))) return;
    if (logsIn !== true && !logsConnectionIn(head.fields.get('www-authenticate'))) return;
    client.pin ||= ` #${++pins}`;
    this.key += client.pin;
  }

  /** A chunked body without trailers that ends where the bytes end; null where it is not so simple. */
  private wholeChunked(chunk: Buffer, at: number, framing: Framing): Buffer | null {
    const reader = new BodyReader(framing, 'response', this.limits);
    const pieces: Buffer[] = [];
    if (reader.read(chunk, at, piece => pieces.push(piece)) !== chunk.length || reader.trailers !== null) return null;
    return pieces.length === 1 ? own(pieces[0]!) : Buffer.concat(pieces);
  }

  /** The answer has come whole. With bytes behind it, or a request that is not all sent yet, the connection serves no other (RFC 9112 §9.3). */
  private completed(excess: boolean): void {
    this.reader.forget();
    this.body = null;
    this.reads.flows = false;
    this.deadline = Infinity;
    if (this.upload !== null) {
      const { upload } = this;
      this.upload = null;
      upload.cancel();
      this.destroy();
    } else if (excess || !this.reusable || this.broken !== null || this.gone) this.destroy();
    else {
      this.idleSince = this.deadlines.now;
      this.onIdle(this);
    }
  }

  private readonly onEnd = (): void => {
    if (this.gone) return;
    if (this.body !== null) {
      const { body } = this;
      this.leave();
      body.connectionEnded(this.fault('http_response_incomplete'), false);
    } else if (this.running !== null) {
      this.break(this.broken ?? this.fault(this.answered ? 'http_response_incomplete' : 'connection_terminated'));
    }
    this.destroy();
  };

  private readonly onError = (error: NodeJS.ErrnoException): void => {
    if (this.gone) return;
    const detail = error.code === 'ECONNRESET' ? 'connection reset' : error.code;
    const inAnswer = this.body !== null || this.answered;
    const kind = inAnswer ? 'http_response_incomplete' : 'connection_terminated';
    // By TLS 1.3 a server says only now that it does not like the client's certificate.
    const tls = inAnswer ? null : tlsFaultOf(error, { ...this.blame });
    const fault = tls ?? new Fault(kind, { ...this.blame, detail, cause: error });
    const { running, body, upload } = this;
    if (upload === null || (running === null && body === null) || this.socket.destroyed) return this.break(fault);
    // A write has failed: whoever refuses an upload says so, closes, and the system answers with a reset. What was said before that can still be read.
    this.broken = fault;
    this.upload = this.chunked = null;
    if (running !== null) this.deadline = this.deadlines.in(LAST_WORDS);
    upload.cancel();
  };

  private readonly onClose = (): void => {
    if (this.gone) return;
    this.break(this.broken ?? this.fault(this.body === null ? 'connection_terminated' : 'http_response_incomplete'));
  };

  private readonly onDrain = (): void => {
    this.upload?.resume();
  };

  /** Whatever runs fails with this fault, and the connection is closed. */
  private break(fault: Fault): void {
    const { running, body, upload } = this;
    this.leave();
    this.socket.destroy();
    upload?.cancel();
    running?.reject(fault);
    body?.connectionEnded(fault, true);
  }

  private leave(): void {
    if (this.gone) return;
    this.gone = true;
    this.deadline = Infinity;
    this.running = null;
    this.body = null;
    this.upload = null;
    this.deadlines.remove(this);
    this.onGone(this);
  }

  private fault(kind: FaultKind): Fault {
    return new Fault(kind, { ...this.blame });
  }

  // Carrier ---------------------------------------------------------------------------------------------------------------------------------

  pauseReading(): void {
    this.socket.pause();
  }

  resumeReading(): void {
    this.deadline = this.deadlines.in(this.times.bodyTimeout * 1000);
    this.socket.resume();
  }

  bodyEnded(rest: Buffer | null): void {
    this.completed(rest !== null);
  }

  bodyBroken(): void {
    this.body = null;
    this.destroy();
  }

  bodyCancelled(): void {
    this.body = null;
    const { upload } = this;
    this.upload = null;
    upload?.cancel();
    this.destroy();
  }
}

/**
 * A write that fails shall not close the socket over what has been read by nobody yet. By the names that Node has for it inside; where they are
 * others, it closes as ever.
 */
function surviveWrites(socket: Socket): void {
  if ('survivesWrites' in socket) {
    socket.survivesWrites = true;
    return;
  }
  const { _readableState: reads, _writableState: writes } = socket as unknown as Record<
    string,
    { autoDestroy?: boolean }
  >;
  if (reads?.autoDestroy === true) reads.autoDestroy = false;
  if (writes?.autoDestroy === true) writes.autoDestroy = false;
}

function outletOf(socket: Socket): ChunkOutlet {
  return {
    cork: () => socket.cork(),
    uncork: () => socket.uncork(),
    write: bytes => (typeof bytes === 'string' ? socket.write(bytes, 'latin1') : socket.write(bytes)),
  };
}

function endsLikeChunked(chunk: Buffer): boolean {
  const end = chunk.length;
  return end >= 5 && chunk[end - 1] === 10 && chunk[end - 3] === 10 && chunk[end - 5] === 48;
}

/** What a parser threw, with whom it speaks of. */
function faultOf(error: unknown, blame: Blame | null): Fault {
  if (error instanceof Fault) return error;
  if (error instanceof Malformed) return new Fault(error.kind, { ...blame, detail: error.detail, cause: error });
  return new Fault('proxy_internal_error', { cause: error });
}
