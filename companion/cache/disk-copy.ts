// A body too large for memory, copied to the disk as it passes. The client sets its pace. What breaks off, or is left by the client, is not kept.
import type { Fields } from '../message/headers.ts';
import type { BodySink, BodySource } from '../message/message.ts';
import type { DiskFilling } from './disk-store.ts';

export class DiskCopy implements BodySource, BodySink {
  private readonly source: BodySource;
  private readonly filling: DiskFilling;
  private readonly whole: () => void;
  private sink: BodySink | null = null;

  /** `whole` is called when all of it has come, before the end is passed on: it commits the filling, or aborts it. */
  constructor(source: BodySource, filling: DiskFilling, whole: () => void) {
    this.source = source;
    this.filling = filling;
    this.whole = whole;
  }

  start(sink: BodySink): void {
    this.sink = sink;
    this.source.start(this);
  }

  resume(): void {
    this.source.resume();
  }

  cancel(): void {
    this.filling.abort();
    this.source.cancel();
  }

  write(chunk: Buffer): boolean {
    this.filling.write(chunk);
    return this.sink!.write(chunk);
  }

  end(trailers: Fields | null): void {
    this.whole();
    this.sink!.end(trailers);
  }

  fail(error: Error): void {
    this.filling.abort();
    this.sink!.fail(error);
  }
}
