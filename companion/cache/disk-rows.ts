// How stored answers lie on the disk, as both threads know it: folder, tables, and one row with its digest. Every row carries a digest over all that is
// served of it, its URL included, and a large body one for each block: whatever the disk gives back changed is told from what was put there.
import { createHash, hash } from 'node:crypto';
import { join } from 'node:path';
import type * as sqlite from 'node:sqlite';
import type { Bytes, EpochMilliseconds, Seconds } from '../../shared/units.ts';
import type { Stored } from '../../shared/control.ts';
import { KiB } from '../../shared/units.ts';
import type { Selection } from './vary.ts';

/** A larger body is a file of its own: a database takes many times as long to write it. */
export const MAX_INLINE: Bytes = 16 * KiB;
/** What is read and checked at once of a body that is a file. */
export const BLOCK: Bytes = 256 * KiB;
/** Says that a database file is ours ("Detr"). */
export const APPLICATION_ID = 0x44657472;
/** Of the tables; a store of another version is set aside. */
export const VERSION = 2;
/** Of the sha256 over a row so much is kept: it is against broken disks, since whoever can write in the folder can write a digest, too. */
const DIGEST: Bytes = 16;
export const BLOCK_DIGEST: Bytes = 32;

/** The places in the cache's folder. */
export function placesIn(folder: string): { index: string; bodies: string; unfinished: string } {
  return { index: join(folder, 'index.db'), bodies: join(folder, 'bodies'), unfinished: join(folder, 'unfinished') };
}

/** Where the body lies that has this name (hexadecimal). */
export function bodyPath(folder: string, name: string): string {
  return join(folder, 'bodies', name.slice(0, 2), name);
}

/**
 * Small columns first: what is counted, listed and evicted is read without the bodies. `choice` is the selection by Vary as text, `place` the
 * host backwards (`com.example.www.`), so that a site and its subdomains lie together; `wanted` is 1 once it was asked for again. In the totals `once` is
 * the bytes of all that were not. Pages of 8 KiB hold
 * five answers of 1 KiB; of 4 KiB two would fit, and a third of each would be empty.
 */
export const TABLES = `
  CREATE TABLE answers (
    id INTEGER PRIMARY KEY, url TEXT NOT NULL, space TEXT NOT NULL, choice TEXT NOT NULL, place TEXT NOT NULL, used INTEGER NOT NULL,
    wanted INTEGER NOT NULL, pinned INTEGER NOT NULL, size INTEGER NOT NULL, responded INTEGER NOT NULL, digest BLOB NOT NULL, head TEXT NOT NULL,
    file BLOB, blocks BLOB, body BLOB
  ) STRICT;
  CREATE INDEX by_url ON answers (url);
  CREATE INDEX by_place ON answers (place);
  CREATE INDEX by_use ON answers (wanted, used) WHERE pinned = 0;
  CREATE INDEX by_file ON answers (file) WHERE file IS NOT NULL;
  CREATE TABLE totals (one INTEGER PRIMARY KEY CHECK (one = 1), entries INTEGER NOT NULL, bytes INTEGER NOT NULL,
    once INTEGER NOT NULL, swept INTEGER NOT NULL) STRICT;
  INSERT INTO totals VALUES (1, 0, 0, 0, 0);
`;

/** Loads SQLite without Node's warning that it is young (Node 22; gone in 24.15 and later): a person can do nothing about it. */
export function loadSqlite(): typeof sqlite {
  const { emitWarning } = process;
  process.emitWarning = () => {};
  try {
    return process.getBuiltinModule('node:sqlite');
  } finally {
    process.emitWarning = emitWarning;
  }
}

/** Whether the database is one of ours and of this version. */
export function isOurs(database: sqlite.DatabaseSync): boolean {
  const { application_id } = database.prepare('PRAGMA application_id').get() as { application_id: number };
  const { user_version } = database.prepare('PRAGMA user_version').get() as { user_version: number };
  return application_id === APPLICATION_ID && user_version === VERSION;
}

/** SQLite's words for a database that is none, or no longer one: SQLITE_CORRUPT, SQLITE_NOTADB; a missing table is SQLITE_ERROR. */
export function isBroken(error: unknown): boolean {
  const { errcode } = error as { errcode?: number };
  return errcode !== undefined && ((errcode & 255) === 11 || (errcode & 255) === 26 || (errcode & 255) === 1);
}

/** Why the disk did not take something, in words for a person. */
export function reasonOf(error: unknown): string {
  const { code, errcode, message } = error as { code?: string; errcode?: number; message: string };
  const primary = (errcode ?? 0) & 255;
  if (code === 'ENOSPC' || code === 'EDQUOT' || primary === 13) return 'there is no space left';
  if (code === 'EROFS' || primary === 8) return 'it can only be read';
  if (code === 'EACCES' || code === 'EPERM') return 'permission is denied';
  if (code === 'EMFILE' || code === 'ENFILE') return 'too many files are open';
  if (primary === 5) return 'another process keeps it locked';
  if (isBroken(error)) return `its index is broken (${message})`;
  return message;
}

/** What is served of an answer beside its body. */
export interface RowHead {
  readonly url: string;
  readonly space: string;
  readonly choice: string;
  readonly responded: EpochMilliseconds;
  /** See `headText`. */
  readonly head: string;
}

/** The digest of a row. `body`: its bytes, or the name of its file. */
export function digestOf(row: RowHead, body: Uint8Array): Buffer {
  const text = `${row.url}\n${row.space}\n${row.choice}\n${row.responded}\n${row.head}\n`;
  return createHash('sha256').update(text).update(body).digest().subarray(0, DIGEST);
}

/** The name of a body by the digests of its blocks. */
export function nameOf(blocks: Uint8Array): Buffer {
  return hash('sha256', blocks, 'buffer');
}

/** What stands in `head`. */
export interface HeadFacts {
  readonly status: number;
  readonly reason: string;
  readonly site: string;
  readonly lines: readonly string[];
  readonly requestedAt: EpochMilliseconds;
  readonly ageValue: Seconds;
  /** Of the body, or of all its parts together. */
  readonly length: Bytes;
  /** Of an incomplete answer: the length of the whole (-1: unknown), then `from` and length of each part. */
  readonly parts: readonly number[] | null;
}

/** Facts as text; names of fields stand in it once, as they came. */
export function headText({ status, reason, site, lines, requestedAt, ageValue, length, parts }: HeadFacts): string {
  const all: unknown[] = [status, reason, site, requestedAt, ageValue, length, parts];
  for (let i = 0; i < lines.length; i += 3) all.push(lines[i], lines[i + 2]);
  return JSON.stringify(all);
}

/** The other way; only for a text whose digest is right. */
export function headFacts(text: string): HeadFacts {
  const all = JSON.parse(text) as [number, string, string, number, number, number, number[] | null, ...string[]];
  const lines: string[] = [];
  for (let i = 7; i < all.length; i += 2) {
    const name = all[i] as string;
    lines.push(name, name.toLowerCase(), all[i + 1] as string);
  }
  return {
    status: all[0],
    reason: all[1],
    site: all[2],
    requestedAt: all[3],
    ageValue: all[4],
    length: all[5],
    parts: all[6],
    lines,
  };
}

/**
 * A newer head for a stored body: `fresh`, whose `parts` say only the length of the whole, with the length and the parts of `stored`. Null where they are
 * not of one body: another process has put another answer there.
 */
export function freshHead(stored: string, fresh: string): string | null {
  const [old, now] = [headFacts(stored), headFacts(fresh)];
  const { length, parts } = old;
  const isOfBody = parts === null ? now.parts === null && now.length === length : now.parts?.[0] === parts[0];
  return isOfBody && haveSameValidator(old.lines, now.lines) ? headText({ ...now, length, parts }) : null;
}

/** Whether both have the same ETag or, without any, the same Last-Modified. */
export function haveSameValidator(a: readonly string[], b: readonly string[]): boolean {
  const [tagA, tagB] = [valueIn(a, 'etag'), valueIn(b, 'etag')];
  return tagA === tagB && (tagA !== undefined || valueIn(a, 'last-modified') === valueIn(b, 'last-modified'));
}

function valueIn(lines: readonly string[], lower: string): string | undefined {
  for (let i = 1; i < lines.length; i += 3) if (lines[i] === lower) return lines[i + 1];
  return undefined;
}

export function choiceText(selection: Selection | null): string {
  return selection === null ? '' : JSON.stringify([selection.names, selection.values.map(value => value ?? null)]);
}

export function choiceOf(text: string): Selection | null {
  if (text === '') return null;
  const [names, values] = JSON.parse(text) as [string[], (string | null)[]];
  return { names, values: values.map(value => value ?? undefined) };
}

/** Where a host lies among the others. */
export function placeOf(host: string): string {
  return `${host.split('.').reverse().join('.')}.`;
}

/** Which rows are meant, as the end of a query and its values. */
export function whereOf(which: Stored): [where: string, values: string[]] {
  if ('url' in which) return ['WHERE url = ?', [which.url]];
  if ('prefix' in which) return ['WHERE url >= ? AND url < ?', [which.prefix, `${which.prefix}\u{10ffff}`]];
  if (!('site' in which)) return ['', []];
  const place = placeOf(which.site);
  // The character behind the dot: what begins with the place comes before it.
  return ['WHERE place >= ? AND place < ?', [place, `${place.slice(0, -1)}/`]];
}

/** What a row is counted as: its text twice over the tables and indexes it stands in, and the body (as a file, in whole pages). */
export function sizeOf(row: RowHead, length: Bytes): Bytes {
  const body = length <= MAX_INLINE ? length : Math.ceil(length / 4096) * 4096;
  return body + row.head.length + 2 * row.url.length + row.space.length + row.choice.length + 200;
}
