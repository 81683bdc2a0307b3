// The first thing that a client says in its tunnel, kept until the server has said something: where that is a TLS ClientHello and nothing else, and the
// tunnel breaks before its first byte back, the same can be said again through another chain, and the client does not notice.
//
//   client ──ClientHello──▶ kept ──▶ this chain:  reset, end, fatal alert, silence      ──▶ the next chain hears the same
//                                                 anything else, or a byte more of the client's ──▶ an ordinary tunnel, and nothing is kept
import { Fault } from '../../shared/fault.ts';
import type { Endpoint } from '../../shared/endpoint.ts';
import { type Bytes, KiB, type Milliseconds } from '../../shared/units.ts';
import type { Deadlines, Waiting } from '../message/deadlines.ts';
import { own } from '../sockets/socket-reads.ts';
import type { Socket } from '../sockets/socket.ts';

/** A longer flight is not kept. */
const MAX_FLIGHT: Bytes = 64 * KiB;
/** So long after the flight the first byte of the server may take before another chain is tried. */
const ANSWER_WITHIN: Milliseconds = 10_000;
/** It is sent again so many times. */
export const MAX_REPLAYS = 2;

/** How it went through one chain. */
export type FlightEnd =
  /** A tunnel from here on: `up` is what the client has said and upstream has not been sent, `down` what upstream has said. */
  | { readonly end: 'stands'; readonly up: Buffer | null; readonly down: Buffer | null }
  /** It broke before it said anything but the TLS alert in `said`. After a timeout it still stands, paused. */
  | { readonly end: 'failed'; readonly fault: Fault; readonly said: Buffer | null }
  | { readonly end: 'gone' };

export interface FlightParts {
  readonly target: Endpoint;
  readonly deadlines: Deadlines;
  /** A client that says nothing is waited for so long. */
  readonly idle: Milliseconds;
  /** Counts what goes up. */
  readonly running: { bytesUp: Bytes };
}

/** What is known of a client's first bytes: 'no' = no ClientHello, or more than that. */
export function readHello(bytes: Buffer): 'more' | 'whole' | 'no' {
  const { length } = bytes;
  let at = 0;
  /** Of the handshake message, what is still to come; -1 = its length is not known yet. */
  let missing = -1;
  let header = '';
  while (at < length) {
    // A record of the type handshake, of any version of TLS (RFC 8446 §5.1).
    if (bytes[at] !== 0x16 || (at + 1 < length && bytes[at + 1] !== 3)) return 'no';
    if (at + 5 > length) return 'more';
    const size = bytes.readUInt16BE(at + 3);
    if (size === 0 || size > 16_384) return 'no';
    let from = at + 5;
    at = from + size;
    const end = Math.min(at, length);
    // The head of the message: its type, and its length in three bytes (§4). It may itself be cut into records.
    while (missing < 0 && from < end) {
      header += String.fromCharCode(bytes[from++]!);
      if (header.charCodeAt(0) !== 1) return 'no';
      if (header.length === 4)
        missing = (header.charCodeAt(1) << 16) | (header.charCodeAt(2) << 8) | header.charCodeAt(3);
    }
    if (missing > MAX_FLIGHT) return 'no';
    if (missing >= 0) missing -= end - from;
    if (missing < 0 && header.length === 4) return 'no';
    if (at > length) return 'more';
    if (missing === 0) return at === length ? 'whole' : 'no';
  }
  return 'more';
}

/** A fatal alert and nothing else (RFC 8446 §6). */
function isFatalAlert(bytes: Buffer): boolean {
  return bytes.length >= 6 && bytes[0] === 0x15 && bytes[1] === 3 && bytes[5] === 2;
}

export class FirstFlight implements Waiting {
  deadline = Infinity;
  private readonly client: Socket;
  private readonly parts: FlightParts;
  /** All that the client has said. */
  private flight: Buffer;
  private isWhole = false;
  private upstream: Socket | null = null;
  private settle: ((end: FlightEnd) => void) | null = null;
  /** Upstream broke before the flight was whole. */
  private broken: Fault | null = null;
  private isGone = false;

  /** `first` is what the client has said already. The client's socket is paused, and nobody else reads it. */
  constructor(client: Socket, first: Buffer | null, parts: FlightParts) {
    this.client = client;
    this.parts = parts;
    this.flight = first ?? NOTHING;
    client.on('error', this.onClientGone).on('close', this.onClientGone);
  }

  /** Whether the client has left meanwhile. */
  get gone(): boolean {
    return this.isGone;
  }

  /** Called, at most once, when the client leaves. */
  whenGone: (() => void) | null = null;

  /** Through this chain, from the beginning. Never rejects. Both sockets are paused afterwards, and nobody reads them. */
  through(upstream: Socket, early: Buffer | null): Promise<FlightEnd> {
    return new Promise(resolve => {
      if (this.isGone) return resolve({ end: 'gone' });
      if (early !== null && early.length > 0) return resolve({ end: 'stands', up: this.taken(), down: early });
      const { deadlines, idle } = this.parts;
      this.upstream = upstream;
      this.broken = null;
      this.settle = resolve;
      this.deadline = deadlines.in(idle);
      deadlines.add(this);
      upstream.allowHalfOpen = true;
      upstream.on('data', this.onAnswer).on('end', this.onEnd).on('error', this.onError).on('close', this.onEnd);
      if (this.isWhole) {
        upstream.write(this.flight);
        this.deadline = deadlines.in(ANSWER_WITHIN);
      } else {
        this.client.on('data', this.onData).on('end', this.onClientEnd);
        if (this.flight.length > 0) {
          const first = this.flight;
          this.flight = NOTHING;
          this.take(first);
        }
      }
      if (this.settle === null) return;
      if (!this.isWhole) this.client.resume();
      if (upstream.destroyed || upstream.readableEnded) this.onEnd();
      else upstream.resume();
    });
  }

  /** No further chain: whoever joins the sockets listens from here on. */
  leave(): void {
    this.client.off('error', this.onClientGone).off('close', this.onClientGone);
    this.client.on('error', nothing);
    this.whenGone = null;
  }

  onDeadline(): void {
    if (this.isWhole)
      return this.fail(new Fault('connection_timeout', { ...this.blame, detail: 'after the ClientHello' }));
    this.client.destroy();
    this.upstream?.destroy();
  }

  // The client -----------------------------------------------------------------------------------------------------------------------------

  private readonly onData = (chunk: Buffer): void => this.take(own(chunk));

  private take(chunk: Buffer): void {
    this.flight = this.flight.length === 0 ? chunk : Buffer.concat([this.flight, chunk]);
    const hello = this.flight.length > MAX_FLIGHT ? 'no' : readHello(this.flight);
    if (hello === 'no') {
      // What has gone up already is not sent twice.
      if (this.broken === null) return this.stands(chunk, null);
      return this.stands(null, null);
    }
    if (this.broken === null) this.send(chunk);
    if (hello === 'more') return;
    this.isWhole = true;
    this.client.pause();
    this.client.off('data', this.onData).off('end', this.onClientEnd);
    if (this.broken !== null) this.fail(this.broken);
    else this.deadline = this.parts.deadlines.in(ANSWER_WITHIN);
  }

  private send(chunk: Buffer): void {
    this.parts.running.bytesUp += chunk.length;
    this.upstream!.write(chunk);
  }

  /** The client has no more to say: then it is no TLS. */
  private readonly onClientEnd = (): void => this.stands(null, null);

  private readonly onClientGone = (): void => {
    if (this.isGone) return;
    this.isGone = true;
    this.upstream?.destroy();
    this.finish({ end: 'gone' });
    this.whenGone?.();
  };

  // Upstream -------------------------------------------------------------------------------------------------------------------------------

  private readonly onAnswer = (chunk: Buffer): void => {
    const bytes = own(chunk);
    if (this.isWhole && isFatalAlert(bytes))
      this.fail(new Fault('tls_alert_received', { ...this.blame, detail: `alert ${bytes[6] ?? 0}` }), bytes);
    else this.stands(null, bytes);
  };

  private readonly onEnd = (): void => {
    this.brokeWith(new Fault('connection_terminated', { ...this.blame, detail: 'after the ClientHello' }));
  };

  private readonly onError = (error: NodeJS.ErrnoException): void => {
    // Before the client has said anything a reset is passed on as one.
    if (error.code === 'ECONNRESET' && this.flight.length === 0) return void this.client.resetAndDestroy();
    const detail = error.code === 'ECONNRESET' ? 'connection reset after the ClientHello' : error.code;
    this.brokeWith(new Fault('connection_terminated', { ...this.blame, detail, cause: error }));
  };

  private brokeWith(fault: Fault): void {
    if (this.isWhole) return this.fail(fault);
    // It ended before the client had said anything: that is no answer to a ClientHello.
    if (this.flight.length === 0) return this.stands(null, null);
    this.broken ??= fault;
    this.deadline = this.parts.deadlines.in(ANSWER_WITHIN);
  }

  private get blame() {
    return { target: this.parts.target };
  }

  private fail(fault: Fault, said: Buffer | null = null): void {
    this.finish({ end: 'failed', fault, said });
  }

  private stands(up: Buffer | null, down: Buffer | null): void {
    this.finish({ end: 'stands', up, down });
  }

  /** What has been said, if none of it has gone up. */
  private taken(): Buffer | null {
    return this.flight.length === 0 ? null : this.flight;
  }

  private finish(end: FlightEnd): void {
    const { settle, upstream, client } = this;
    if (settle === null) return;
    this.settle = this.upstream = null;
    this.deadline = Infinity;
    this.parts.deadlines.remove(this);
    client.pause();
    client.off('data', this.onData).off('end', this.onClientEnd);
    if (upstream !== null) {
      upstream.pause();
      upstream.off('data', this.onAnswer).off('end', this.onEnd).off('error', this.onError).off('close', this.onEnd);
      upstream.on('error', nothing);
    }
    settle(end);
  }
}

const NOTHING = Buffer.alloc(0);
const nothing = () => {};
