// A body that comes in on a connection: the BodySource of both directions. Nothing is parsed before somebody wants it; what came early waits,
// and the connection is told to stop reading, so a body never takes more memory than two reads of the socket.
import { BodyReader } from './body-reader.ts';
import type { HeadLimits } from './http1-parser.ts';
import type { BodySink, BodySource, Framing } from './message.ts';
import { own } from '../sockets/socket-reads.ts';

/** The connection that a body comes in on. */
export interface Carrier {
  pauseReading(): void;
  resumeReading(): void;
  /** The body has ended; `rest` came behind it. Told before the sink is. */
  bodyEnded(rest: Buffer | null): void;
  /** The body is not valid. The sink has been told. */
  bodyBroken(error: Error): void;
  /** Nobody wants the rest of the body. */
  bodyCancelled(): void;
}

export class IncomingBody implements BodySource {
  /** Bytes of data so far. */
  received = 0;
  private readonly reader: BodyReader;
  private readonly carrier: Carrier;
  private sink: BodySink | null = null;
  private held: Buffer | null;
  /** How the connection ended, when that came before the body's own end. */
  private failure: Error | null = null;
  private connectionIsGone = false;
  /** Complete, broken or cancelled: nothing more is said to anyone. */
  private over = false;
  /** The sink asked to wait. */
  private paused = false;
  /** The connection was asked to stop reading. */
  private stopped = false;

  /** `first` is what came behind the head, if anything. */
  constructor(
    framing: Framing,
    direction: 'request' | 'response',
    limits: HeadLimits,
    carrier: Carrier,
    first: Buffer | null,
  ) {
    this.reader = new BodyReader(framing, direction, limits);
    this.carrier = carrier;
    this.held = first === null ? null : own(first);
  }

  /** Whether the body has come to its end. */
  get done(): boolean {
    return this.reader.done;
  }

  /** Whether it is the sink that things wait for. */
  get waits(): boolean {
    return this.paused || this.sink === null;
  }

  start(sink: BodySink): void {
    this.sink = sink;
    const { held } = this;
    this.held = null;
    if (held !== null) this.feed(held);
    if (this.over) return;
    if (this.connectionIsGone) this.finish();
    else if (!this.paused) this.go();
  }

  resume(): void {
    if (!this.paused) return;
    this.paused = false;
    this.go();
  }

  cancel(): void {
    if (this.over) return;
    this.over = true;
    this.held = null;
    this.carrier.bodyCancelled();
  }

  /** The connection's bytes, while the body has not ended. */
  feed(chunk: Buffer): void {
    if (this.over) return;
    if (this.sink === null) {
      this.held = this.held === null ? own(chunk) : Buffer.concat([this.held, chunk]);
      this.stop();
      return;
    }
    let end: number;
    try {
      end = this.reader.read(chunk, 0, this.take);
    } catch (error) {
      if (this.over) return;
      this.over = true;
      this.sink.fail(error as Error);
      this.carrier.bodyBroken(error as Error);
      return;
    }
    if (end === -1 || this.over) return;
    this.over = true;
    if (this.stopped) this.carrier.resumeReading();
    this.carrier.bodyEnded(end < chunk.length ? own(chunk.subarray(end)) : null);
    this.sink.end(this.reader.trailers);
  }

  /** The connection has ended or, with `broke`, broken. That is the end of a body framed so; of any other it is a failure, which the sink hears. */
  connectionEnded(error: Error, broke: boolean): void {
    if (this.over || this.connectionIsGone) return;
    this.connectionIsGone = true;
    this.failure = this.reader.endsWithConnection && !broke ? null : error;
    if (this.sink !== null) this.finish();
  }

  private stop(): void {
    if (this.stopped) return;
    this.stopped = true;
    this.carrier.pauseReading();
  }

  private go(): void {
    if (!this.stopped || this.over) return;
    this.stopped = false;
    this.carrier.resumeReading();
  }

  private finish(): void {
    this.over = true;
    if (this.failure === null) this.sink!.end(null);
    else this.sink!.fail(this.failure);
  }

  private readonly take = (data: Buffer): void => {
    if (this.over) return;
    this.received += data.length;
    if (!this.sink!.write(own(data)) && !this.paused) {
      this.paused = true;
      this.stop();
    }
  };
}
