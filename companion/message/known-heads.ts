// Request heads that clients repeat byte for byte, parsed once: a browser that reloads, a page that polls. What a head says follows from its bytes alone,
// so whoever sends the same bytes may have the same parse; whatever else he sends is parsed anew. All bytes are compared: nobody can have another's.
import { sharedBytes, sharedWords } from '../sockets/socket-reads.ts';
import type { HeadLimits } from './http1-parser.ts';
import type { RequestHead } from './message.ts';

/** Heads that are known at once, two in each place. */
const MAX_HEADS = 4_096;
/** The largest head that is kept, in bytes. */
const MAX_KNOWN_HEAD = 1_024;

const PLACES = MAX_HEADS / 2;
/** Places for hashes of heads that came once: many, lest two that come in turns keep each other out. */
const SEEN = 16_384;
const WORDS_EACH = MAX_KNOWN_HEAD / 4;

/** The known heads of one listener. It looks at what has just been read into the memory that all sockets share, and takes memory of its own with the first head that it keeps. */
export class KnownHeads {
  /** By hash, two beside each other. */
  private readonly heads: (RequestHead | null)[] = [];
  private lengths = new Uint16Array(0);
  private words = new Int32Array(0);
  private bytes = new Uint8Array(0);
  /** Hashes of what was not known. What comes only once shall not take anybody's place. */
  private readonly seen = new Int32Array(SEEN);
  /** Which of the two was used last. */
  private readonly latest = new Uint8Array(PLACES);
  /** Where to keep the head that was just not found, and its length; -1: it is not worth it. */
  private vacancy = -1;
  private missed = 0;
  /** By which heads were parsed. With other limits others are known. */
  readonly limits: HeadLimits;

  constructor(limits: HeadLimits) {
    this.limits = limits;
  }

  /** The head that the first `length` bytes of the shared memory are, if it is known. They must be one whole head and nothing more. */
  find(length: number): RequestHead | null {
    this.vacancy = -1;
    if (length > MAX_KNOWN_HEAD) return null;
    const hash = hashOf(length);
    const place = hash & (PLACES - 1);
    const latest = this.latest[place]!;
    let slot = place * 2 + latest;
    if (this.lengths[slot] === length && this.isSame(slot, length)) return this.heads[slot]!;
    slot ^= 1;
    if (this.lengths[slot] === length && this.isSame(slot, length)) {
      this.latest[place] = latest ^ 1;
      return this.heads[slot]!;
    }
    const sign = hash & (SEEN - 1);
    if (this.seen[sign] === hash) {
      this.vacancy = slot;
      this.missed = length;
    } else this.seen[sign] = hash;
    return null;
  }

  /** Keeps what has come of a chunk that was not found, if its bytes have been seen before. It must still lie where it was read. */
  remember(chunk: Buffer, head: RequestHead): void {
    const slot = this.vacancy;
    const { length } = chunk;
    if (slot === -1 || length !== this.missed || chunk.buffer !== sharedBytes.buffer || chunk.byteOffset !== 0) return;
    this.vacancy = -1;
    if (this.words.length === 0) {
      this.words = new Int32Array(MAX_HEADS * WORDS_EACH);
      this.bytes = new Uint8Array(this.words.buffer);
      this.lengths = new Uint16Array(MAX_HEADS);
      for (let i = 0; i < MAX_HEADS; i++) this.heads.push(null);
    }
    const from = slot * WORDS_EACH;
    this.words.set(sharedWords.subarray(0, (length + 3) >> 2), from);
    this.lengths[slot] = length;
    this.heads[slot] = head;
    this.latest[slot >> 1] = slot & 1;
  }

  private isSame(slot: number, length: number): boolean {
    const { words } = this;
    const from = slot * WORDS_EACH;
    const whole = length >> 2;
    for (let i = 0; i < whole; i++) if (words[from + i] !== sharedWords[i]) return false;
    for (let i = whole * 4; i < length; i++) if (this.bytes[from * 4 + i] !== sharedBytes[i]) return false;
    return true;
  }
}

/** Of the shared memory's first bytes; 0 for none. */
function hashOf(length: number): number {
  let hash = length;
  const whole = length >> 2;
  for (let i = 0; i < whole; i++) hash = Math.imul(hash ^ sharedWords[i]!, 0x9e3779b1) ^ (hash >>> 15);
  for (let i = whole * 4; i < length; i++) hash = Math.imul(hash ^ sharedBytes[i]!, 0x85ebca6b);
  hash ^= hash >>> 16;
  return Math.imul(hash, 0x85ebca6b) ^ (hash >>> 13);
}
