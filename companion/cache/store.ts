// What a place for answers is, and one stored answer as plain data. The store is organised by URL: one lookup finds all that is kept of it, of every
// route and partition and of every selection by Vary.
import type { Stored } from '../../shared/control.ts';
import type { Bytes, EpochMilliseconds, Seconds } from '../../shared/units.ts';
import type { BodySource } from '../message/message.ts';
import type { StoredResponse } from './stored-response.ts';
import { sameSelection, type Selection } from './vary.ts';

/** One stored answer as plain data: what memory, disk and tests share. */
export interface Entry {
  /** In normal form, without fragment. */
  readonly url: string;
  /** Whose it is: see spaceOf. */
  readonly space: string;
  /** Registrable domain of the URL's host. */
  readonly site: string;
  /** What it was chosen by (Vary); null: by nothing. */
  readonly selection: Selection | null;
  readonly status: number;
  readonly reason: string;
  /** Flat triples (name, lower-case name, value): the end-to-end fields, without Age and framing, with a Date. */
  readonly lines: readonly string[];
  /** Of the answer that was stored, or that freshened it last. */
  readonly requestedAt: EpochMilliseconds;
  readonly respondedAt: EpochMilliseconds;
  /** Its Age field then. */
  readonly ageValue: Seconds;
  readonly body: StoredBody;
  /** Null: `body` is all of it. Else the parts of an incomplete one (RFC 9111 §3.3); `lines` then have a strong validator. */
  readonly partial: PartialBody | null;
  /** Kept for offline use: not evicted. */
  readonly pinned: boolean;
}

export interface StoredBody {
  readonly length: Bytes;
  /** All of it, in memory; null: it is elsewhere. */
  readonly bytes: Buffer | null;
  /** The bytes from `from` up to but without `to`. */
  open(from: Bytes, to: Bytes): Buffer | BodySource;
  /** Whether what is there of it from this byte on, for a little way, is still what was stored; absent: it is. */
  isSound?(from: Bytes): boolean;
}

export interface PartialBody {
  /** The length of the whole, if it is known. */
  readonly complete: Bytes | null;
  readonly parts: readonly { readonly from: Bytes; readonly bytes: Buffer }[];
}

export interface StoreStats {
  readonly entries: number;
  readonly bytes: Bytes;
  readonly disk: { readonly entries: number; readonly bytes: Bytes } | null;
}

export interface Store {
  /** All answers kept of a URL, the most recent Date first (RFC 9111 §4). It counts as used. */
  get(url: string): readonly StoredResponse[] | undefined;
  /** The same, without counting as used. */
  peek(url: string): readonly StoredResponse[] | undefined;
  /** Keeps an answer, in the place of the one with the same space and selection. False when it is not kept: too large, or that one came later. */
  put(response: StoredResponse): boolean;
  /** Puts a freshened answer in the place of what it was made from; false when that one is gone. */
  replace(old: StoredResponse, fresh: StoredResponse): boolean;
  remove(response: StoredResponse): void;
  /** Drops everything of a URL, whatever its space. */
  drop(url: string): void;
  /** Drops what is meant, and says how many answers those were. */
  purge(which: Stored): number;
  list(which: Stored, limit: number): readonly StoredResponse[];
  /** Keeps what is meant for offline use, or no longer; says how many answers were not as they are now. */
  pin(which: Stored, pinned: boolean): number;
  stats(): StoreStats;
  /** Resolves when all that has been done until now would be found so after a crash; absent: nothing would be found. */
  settled?(): Promise<void>;
  close(): Promise<void>;
}

/** Whose an answer is: the route's, since another exit may see another web, and the partition's, since a page must not be able to time what another site cached. */
export function spaceOf(route: string, partition: string): string {
  return `${route}\n${partition}`;
}

type Place = Pick<Entry, 'space' | 'selection'>;

/** Whether, of two answers of one URL, one takes the place of the other. */
export function haveOnePlace(a: Place, b: Place): boolean {
  return a.space === b.space && sameSelection(a.selection, b.selection);
}

export class MemoryBody implements StoredBody {
  readonly bytes: Buffer;

  /** `bytes` must be the cache's own, of exactly their length. */
  constructor(bytes: Buffer) {
    this.bytes = bytes;
  }

  get length(): Bytes {
    return this.bytes.length;
  }

  open(from: Bytes, to: Bytes): Buffer {
    return this.bytes.subarray(from, to);
  }
}

/** Whether a URL is among those that are meant. A site takes its subdomains along. */
export function meaning(which: Stored): (url: string) => boolean {
  if ('url' in which) return url => url === which.url;
  if ('prefix' in which) return url => url.startsWith(which.prefix);
  if (!('site' in which)) return () => true;
  const { site } = which;
  return url => {
    const host = hostOf(url);
    return host === site || host.endsWith(`.${site}`);
  };
}

/** The host of a URL in the walk's form. */
export function hostOf(url: string): string {
  const end = url.indexOf('/', 7);
  const authority = url.slice(7, end < 0 ? undefined : end);
  const bracket = authority.indexOf(']');
  if (bracket > 0) return authority.slice(1, bracket);
  const colon = authority.indexOf(':');
  return colon < 0 ? authority : authority.slice(0, colon);
}
