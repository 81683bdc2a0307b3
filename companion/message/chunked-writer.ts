// Writes a body in chunks (RFC 9112 §7.1), one chunk for every piece that comes.
import type { Fields } from './headers.ts';

/** Pieces up to this size are copied into one write with their size line; copying is cheaper than three writes. */
const SMALL = 8 * 1024;

/** Where the chunks go: a connection. */
export interface ChunkOutlet {
  cork(): void;
  uncork(): void;
  /** Text is latin1. False asks to wait. */
  write(bytes: Buffer | string): boolean;
}

export class ChunkedWriter {
  private readonly outlet: ChunkOutlet;

  constructor(outlet: ChunkOutlet) {
    this.outlet = outlet;
  }

  /** False asks to wait until the outlet takes more. */
  write(data: Buffer): boolean {
    const { length } = data;
    if (length === 0) return true;
    const size = `${length.toString(16)}\r\n`;
    if (length <= SMALL) {
      const out = Buffer.allocUnsafe(size.length + length + 2);
      out.write(size, 0, 'latin1');
      data.copy(out, size.length);
      out[out.length - 2] = 13;
      out[out.length - 1] = 10;
      return this.outlet.write(out);
    }
    this.outlet.cork();
    this.outlet.write(size);
    this.outlet.write(data);
    const more = this.outlet.write('\r\n');
    this.outlet.uncork();
    return more;
  }

  /** The last chunk, with trailers where there are any. */
  end(trailers: Fields | null): void {
    let text = '0\r\n';
    if (trailers !== null) {
      for (let i = 0; i < trailers.length; i++) text += `${trailers.nameAt(i)}: ${trailers.valueAt(i)}\r\n`;
    }
    this.outlet.write(`${text}\r\n`);
  }
}
