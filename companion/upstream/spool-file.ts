// Bytes on the disk for a while: in a temporary file that only its owner may read, and that has no name as soon as it is open, so that nothing is
// left of it whatever happens.
import { open, unlink, type FileHandle } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { randomBytes } from 'node:crypto';
import type { Bytes } from '../../shared/units.ts';

export class SpoolFile {
  /** The disk did not take it: what was to be kept is not. */
  broken = false;
  private readonly file: Promise<FileHandle | null>;
  private work: Promise<void> = Promise.resolve();
  private length: Bytes = 0;

  constructor() {
    this.file = this.make();
  }

  /** Puts bytes behind the others, in its own time. The buffer is kept until then. */
  append(chunk: Buffer): void {
    const at = this.length;
    this.length += chunk.length;
    this.work = this.work.then(async () => {
      if (this.broken) return;
      try {
        const file = await this.file;
        if (file === null) return;
        for (let written = 0; written < chunk.length;)
          written += (await file.write(chunk, written, chunk.length - written, at + written)).bytesWritten;
      } catch {
        this.broken = true;
      }
    });
  }

  /** Up to `length` bytes from `at`, once they are there. Throws where the disk did not take them or does not give them back. */
  async read(at: Bytes, length: Bytes): Promise<Buffer> {
    await this.work;
    const file = await this.file;
    if (this.broken || file === null) throw new Error('the disk did not keep the body');
    const { bytesRead, buffer } = await file.read(Buffer.allocUnsafe(length), 0, length, at);
    if (bytesRead === 0) throw new Error('the disk did not keep the body');
    return buffer.subarray(0, bytesRead);
  }

  /** Lets it go. */
  close(): void {
    this.broken = true;
    void this.work.then(async () => (await this.file)?.close()).catch(() => {});
  }

  private async make(): Promise<FileHandle | null> {
    const path = join(tmpdir(), `detour-${randomBytes(9).toString('base64url')}`);
    try {
      const file = await open(path, 'wx+', 0o600);
      // Where an open file cannot lose its name (Windows), it goes with the system's own clearing.
      await unlink(path).catch(() => {});
      return file;
    } catch {
      this.broken = true;
      return null;
    }
  }
}
