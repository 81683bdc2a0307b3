// A stored answer and its row on the disk, each made of the other; and what tells two bodies apart without reading them.
import * as fs from 'node:fs';
import type { Bytes, EpochMilliseconds, Seconds } from '../../shared/units.ts';
import { FileBody, readChecked } from './disk-body.ts';
import type { Row } from './disk-index.ts';
import type { PutRow } from './disk-messages.ts';
import {
  BLOCK,
  BLOCK_DIGEST,
  bodyPath,
  choiceOf,
  choiceText,
  digestOf,
  type HeadFacts,
  headFacts,
  headText,
  nameOf,
  placeOf,
} from './disk-rows.ts';
import { isOfSame, PartsBody } from './partial.ts';
import { type Entry, hostOf, MemoryBody, type StoredBody } from './store.ts';

/** Numbers of rows grow with time, so that what comes together lies together: milliseconds since this moment, and a count. */
const FIRST_MOMENT: EpochMilliseconds = Date.UTC(2025, 0, 1);
const IDS_A_MILLISECOND = 4_096;
const EMPTY = Buffer.alloc(0);

/** What a body that lies in a file needs of the store. */
export interface FileKeeper {
  readonly folder: string;
  /** A body that is read and goes out whole is handed to `whole` up to this length. */
  readonly keepUpTo: () => Bytes;
  readonly broken: (id: number, url: string) => void;
  readonly whole: (url: string, id: number, bytes: Buffer) => void;
}

/** A row as an answer; null where it is not what was stored, undefined where that cannot be told now. */
export function entryFrom(url: string, row: Row, keeper: FileKeeper): Entry | null | undefined {
  const [id, space, choice, , pinned, responded, digest, head, file, blocks, inline] = row;
  const content = file ?? inline ?? EMPTY;
  if (!digestOf({ url, space, choice, responded, head }, content).equals(digest)) return null;
  const { length, parts, ...facts } = headFacts(head);
  let body: StoredBody;
  if (file === null) {
    if (content.length !== length) return null;
    body = new MemoryBody(exact(content));
  } else {
    if (blocks === null || blocks.length !== Math.ceil(length / BLOCK) * BLOCK_DIGEST) return null;
    const digests = exact(blocks);
    const name = exact(file);
    if (!nameOf(digests).equals(name)) return null;
    const path = bodyPath(keeper.folder, name.toString('hex'));
    if (length <= BLOCK || parts !== null) {
      const bytes = readChecked({ path, length, blocks: digests });
      if (bytes === null || bytes === undefined) return bytes;
      body = new MemoryBody(bytes);
    } else {
      if (sizeOfFile(path) !== length) return null;
      body = new FileBody({
        path,
        length,
        blocks: digests,
        broken: () => keeper.broken(id, url),
        keepUpTo: keeper.keepUpTo(),
        whole: bytes => keeper.whole(url, id, bytes),
      });
    }
  }
  return assembled({ url, space, choice, responded, pinned: pinned === 1 }, facts, parts, body);
}

/** The answer of a row that nothing can have happened to, with its body or its parts. */
export function entryOf(row: PutRow, bytes: Buffer): Entry {
  const { parts, ...facts } = headFacts(row.head);
  return assembled(row, facts, parts, new MemoryBody(bytes));
}

function assembled(
  { url, space, choice, responded, pinned }: Pick<PutRow, 'url' | 'space' | 'choice' | 'responded' | 'pinned'>,
  { status, reason, site, lines, requestedAt, ageValue }: Omit<HeadFacts, 'parts' | 'length'>,
  parts: readonly number[] | null,
  body: StoredBody,
): Entry {
  const partial = parts === null ? null : partsOf(parts, body.bytes!);
  return {
    url,
    space,
    site,
    selection: choiceOf(choice),
    respondedAt: responded,
    pinned,
    status,
    reason,
    lines,
    requestedAt,
    ageValue,
    partial,
    body: partial === null ? body : new PartsBody(partial.parts),
  };
}

/** An answer, its body in memory, as a row with this number, last used then. */
export function rowOf(entry: Entry, id: number, used: Seconds): { row: PutRow; bytes: Buffer } {
  const { partial } = entry;
  const bytes = partial === null ? entry.body.bytes! : Buffer.concat(partial.parts.map(part => part.bytes));
  const head = headText({
    status: entry.status,
    reason: entry.reason,
    site: entry.site,
    lines: entry.lines,
    requestedAt: entry.requestedAt,
    ageValue: entry.ageValue,
    length: partial === null ? entry.body.length : bytes.length,
    parts:
      partial === null
        ? null
        : [partial.complete ?? -1, ...partial.parts.flatMap(part => [part.from, part.bytes.length])],
  });
  return {
    bytes,
    row: {
      id,
      url: entry.url,
      space: entry.space,
      choice: choiceText(entry.selection),
      place: placeOf(hostOf(entry.url)),
      responded: entry.respondedAt,
      head,
      used,
      pinned: entry.pinned,
    },
  };
}

/** Gives the rows of one process their numbers. */
export class RowNumbers {
  private readonly now: () => EpochMilliseconds;
  private lastMoment = 0;
  private countInMoment = 0;

  constructor(now: () => EpochMilliseconds) {
    this.now = now;
  }

  next(): number {
    const moment = Math.max(this.now() - FIRST_MOMENT, this.lastMoment);
    if (moment > this.lastMoment || this.countInMoment === IDS_A_MILLISECOND - 1) {
      this.lastMoment = moment > this.lastMoment ? moment : moment + 1;
      // Not from 0: other processes number, too. Where two give the same, the thread that comes later takes another.
      this.countInMoment = Math.floor((Math.random() * IDS_A_MILLISECOND) / 2);
    } else this.countInMoment++;
    return this.lastMoment * IDS_A_MILLISECOND + this.countInMoment;
  }
}

/** What tells bodies apart without reading them. */
export interface KnownBody extends Pick<Entry, 'lines' | 'requestedAt' | 'respondedAt'> {
  readonly length: Bytes;
  readonly isWhole: boolean;
}

export function headOf({
  lines,
  requestedAt,
  respondedAt,
}: Entry): Pick<Entry, 'lines' | 'requestedAt' | 'respondedAt'> {
  return { lines, requestedAt, respondedAt };
}

export function knownBody(entry: Entry): KnownBody {
  return { ...headOf(entry), length: entry.body.length, isWhole: entry.partial === null };
}

/** Whether both are whole and of one exchange, or of one representation. */
export function hasSameBody(a: KnownBody, b: KnownBody): boolean {
  if (!a.isWhole || !b.isWhole || a.length !== b.length) return false;
  return (a.respondedAt === b.respondedAt && a.requestedAt === b.requestedAt) || isOfSame(a, b);
}

function exact(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function partsOf([complete, ...places]: readonly number[], bytes: Buffer): NonNullable<Entry['partial']> {
  const parts = [];
  for (let i = 0, at = 0; i < places.length; i += 2) {
    parts.push({ from: places[i]!, bytes: bytes.subarray(at, at + places[i + 1]!) });
    at += places[i + 1]!;
  }
  return { complete: complete === -1 ? null : complete!, parts };
}

function sizeOfFile(path: string): Bytes | null {
  try {
    return fs.statSync(path, { throwIfNoEntry: false })?.size ?? null;
  } catch {
    return null;
  }
}
