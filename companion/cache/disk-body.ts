// A stored body that is a file, on its way out: block by block, each checked before any of it goes. The first one is checked before the head goes out,
// so that damage there is a miss; a later block that is not what was stored breaks the answer off, so that nothing false is ever served and nothing short
// looks whole; the store then forgets it, and the next request is a miss. (To check the whole file before its first byte would read all of it for every
// range.)
import * as fs from 'node:fs';
import { hash } from 'node:crypto';
import type { Bytes } from '../../shared/units.ts';
import type { BodySink, BodySource } from '../message/message.ts';
import { BLOCK, BLOCK_DIGEST } from './disk-rows.ts';
import type { StoredBody } from './store.ts';

export interface FileFacts {
  readonly path: string;
  readonly length: Bytes;
  /** The digests of its blocks, one behind the other. */
  readonly blocks: Buffer;
  /** It is not, or no longer, what was stored. */
  readonly broken: () => void;
  /** Up to this length, bytes that went out whole are handed to `whole`. */
  readonly keepUpTo: Bytes;
  readonly whole: (bytes: Buffer) => void;
}

export class FileBody implements StoredBody {
  readonly bytes = null;
  private readonly facts: FileFacts;
  /** Read already; what is opened next may take it. */
  private checked: Block | null = null;

  constructor(facts: FileFacts) {
    this.facts = facts;
  }

  /** Reads the block with this byte and checks it. True also where the file cannot be opened just now. */
  isSound(from: Bytes): boolean {
    const index = Math.min(Math.floor(from / BLOCK), Math.ceil(this.facts.length / BLOCK) - 1);
    const bytes = readBlock(this.facts, index);
    this.checked = Buffer.isBuffer(bytes) ? { index, bytes } : null;
    return bytes !== null;
  }

  get length(): Bytes {
    return this.facts.length;
  }

  open(from: Bytes, to: Bytes): BodySource {
    const { checked } = this;
    this.checked = null;
    return new FileSource(this.facts, from, to, checked);
  }
}

interface Block {
  readonly index: number;
  readonly bytes: Buffer;
}

/** Neither where a link leads, nor waiting for who writes into a pipe: a body is a file. */
const READ = fs.constants.O_RDONLY | (fs.constants.O_NOFOLLOW ?? 0) | (fs.constants.O_NONBLOCK ?? 0);

/** Too many open files say nothing of this one. */
function isShort(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return code === 'EMFILE' || code === 'ENFILE';
}

/** The whole of a file in one reading, if it is what was stored, else null; undefined where it cannot be opened now. For small ones. */
export function readChecked(facts: Pick<FileFacts, 'path' | 'length' | 'blocks'>): Buffer | null | undefined {
  let fd: number;
  try {
    fd = fs.openSync(facts.path, READ);
  } catch (error) {
    return isShort(error) ? undefined : null;
  }
  try {
    const bytes = Buffer.allocUnsafeSlow(facts.length);
    if (fs.readSync(fd, bytes, 0, facts.length, 0) !== facts.length) return null;
    for (let i = 0; i * BLOCK < facts.length; i++) {
      if (!isBlock(bytes.subarray(i * BLOCK, (i + 1) * BLOCK), i, facts.blocks)) return null;
    }
    return bytes;
  } catch {
    return null;
  } finally {
    fs.closeSync(fd);
  }
}

/** One block, null where it is not what was stored; undefined where the file cannot be opened now. */
function readBlock({ path, length, blocks }: FileFacts, index: number): Buffer | null | undefined {
  let fd: number;
  try {
    fd = fs.openSync(path, READ);
  } catch (error) {
    return isShort(error) ? undefined : null;
  }
  try {
    const bytes = Buffer.allocUnsafeSlow(Math.min(BLOCK, length - index * BLOCK));
    const count = fs.readSync(fd, bytes, 0, bytes.length, index * BLOCK);
    return count === bytes.length && isBlock(bytes, index, blocks) ? bytes : null;
  } catch {
    return null;
  } finally {
    fs.closeSync(fd);
  }
}

function isBlock(bytes: Buffer, index: number, blocks: Buffer): boolean {
  return hash('sha256', bytes, 'buffer').equals(blocks.subarray(index * BLOCK_DIGEST, (index + 1) * BLOCK_DIGEST));
}

class FileSource implements BodySource {
  private readonly facts: FileFacts;
  private readonly from: Bytes;
  private readonly to: Bytes;
  private readonly kept: Buffer[] | null;
  private sink: BodySink | null = null;
  private fd: number | null = null;
  /** The next block. */
  private index: number;
  private paused = false;
  private reading = false;
  private over = false;
  private readonly checked: Block | null;

  constructor(facts: FileFacts, from: Bytes, to: Bytes, checked: Block | null) {
    this.checked = checked;
    this.facts = facts;
    this.from = from;
    this.to = to;
    this.index = Math.floor(from / BLOCK);
    this.kept = from === 0 && to === facts.length && facts.length <= facts.keepUpTo ? [] : null;
  }

  start(sink: BodySink): void {
    this.sink = sink;
    // At once, not by way of Node's pool: what has been looked up may be evicted soon.
    try {
      this.fd = fs.openSync(this.facts.path, READ);
    } catch (error) {
      return this.breakOff(error as Error, !isShort(error));
    }
    this.next();
  }

  resume(): void {
    if (!this.paused) return;
    this.paused = false;
    this.next();
  }

  cancel(): void {
    this.over = true;
    this.shut();
  }

  private next(): void {
    if (this.over || this.paused || this.reading) return;
    const begin = this.index * BLOCK;
    if (begin >= this.to) return this.finish();
    if (this.checked?.index === this.index) {
      this.give(this.checked.bytes);
      return this.next();
    }
    const length = Math.min(BLOCK, this.facts.length - begin);
    const block = Buffer.allocUnsafeSlow(length);
    this.reading = true;
    fs.read(this.fd!, block, 0, length, begin, (error, count) => {
      this.reading = false;
      if (this.over) return this.shut();
      if (error !== null || count !== length || !isBlock(block, this.index, this.facts.blocks)) {
        return this.breakOff(error ?? new Error('a stored body is damaged'), true);
      }
      this.give(block);
      this.next();
    });
  }

  /** What is wanted of the next block. */
  private give(block: Buffer): void {
    const begin = this.index * BLOCK;
    this.index++;
    this.kept?.push(block);
    this.paused = !this.sink!.write(
      block.subarray(Math.max(0, this.from - begin), Math.min(block.length, this.to - begin)),
    );
  }

  private finish(): void {
    this.over = true;
    this.shut();
    if (this.kept !== null) this.facts.whole(Buffer.concat(this.kept));
    this.sink!.end(null);
  }

  private breakOff(error: Error, isBroken: boolean): void {
    this.over = true;
    this.shut();
    if (isBroken) this.facts.broken();
    this.sink!.fail(error);
  }

  private shut(): void {
    if (this.fd === null || this.reading) return;
    fs.close(this.fd, () => {});
    this.fd = null;
  }
}
