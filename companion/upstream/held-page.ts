// The beginning of a body, held back for a moment so that somebody may look at it; then the body goes on as if nothing had been, byte for byte.
import type { Bytes, Milliseconds } from '../../shared/units.ts';
import type { Fields } from '../message/headers.ts';
import type { BodySink, BodySource } from '../message/message.ts';

/** Of a body so much is held back, and so long after its head, where its beginning may tell who speaks. */
export const PAGE_HELD: Bytes = 4 * 1024;
export const PAGE_WITHIN: Milliseconds = 300;

/** The first `most` bytes of a body, or what of it has come after `within`, or all of it; and the body, with these bytes still in it. Never rejects. */
export function holdPage(
  source: BodySource,
  most: Bytes,
  within: Milliseconds,
): Promise<{ readonly page: Buffer; readonly body: BodySource }> {
  return new Promise(resolve => new HeldPage(source, most, within, resolve).begin());
}

class HeldPage implements BodySource, BodySink {
  private readonly source: BodySource;
  private readonly most: Bytes;
  private readonly timer: NodeJS.Timeout;
  private readonly resolve: (held: { page: Buffer; body: BodySource }) => void;
  private held: Buffer[] = [];
  private length: Bytes = 0;
  private isShown = false;
  private isStopped = false;
  private sink: BodySink | null = null;
  private ended: { readonly trailers: Fields | null } | null = null;
  private failure: Error | null = null;

  constructor(source: BodySource, most: Bytes, within: Milliseconds, resolve: HeldPage['resolve']) {
    this.source = source;
    this.most = most;
    this.resolve = resolve;
    this.timer = setTimeout(() => this.show(), within);
  }

  begin(): void {
    this.source.start(this);
  }

  write(chunk: Buffer): boolean {
    if (this.sink !== null) return this.sink.write(chunk);
    this.held.push(chunk);
    this.length += chunk.length;
    if (this.length >= this.most) this.show();
    if (this.isShown) this.isStopped = true;
    return !this.isShown;
  }

  end(trailers: Fields | null): void {
    if (this.sink !== null) return this.sink.end(trailers);
    this.ended = { trailers };
    this.show();
  }

  fail(error: Error): void {
    if (this.sink !== null) return this.sink.fail(error);
    this.failure = error;
    this.show();
  }

  // Of whoever takes it then ---------------------------------------------------------------------------------------------------------------

  start(sink: BodySink): void {
    let isFree = true;
    const { held } = this;
    this.held = [];
    for (const chunk of held) isFree = sink.write(chunk) && isFree;
    this.sink = sink;
    if (this.failure !== null) sink.fail(this.failure);
    else if (this.ended !== null) sink.end(this.ended.trailers);
    else if (!isFree) {
      // It goes on when the sink says so. Nothing more comes until then: but what came without being stopped is stopped by its next chunk.
      this.isStopped = true;
    } else if (this.isStopped) this.go();
  }

  resume(): void {
    this.go();
  }

  cancel(): void {
    clearTimeout(this.timer);
    this.held = [];
    if (this.ended === null && this.failure === null) this.source.cancel();
  }

  private go(): void {
    this.isStopped = false;
    this.source.resume();
  }

  private show(): void {
    if (this.isShown) return;
    this.isShown = true;
    clearTimeout(this.timer);
    this.resolve({ page: Buffer.concat(this.held).subarray(0, this.most), body: this });
  }
}
