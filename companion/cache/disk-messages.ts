// What the store (disk-store.ts) and its writing thread (disk-writer.ts) say to each other.
import type { Stored } from '../../shared/control.ts';
import type { Bytes, EpochMilliseconds, Seconds } from '../../shared/units.ts';
import type { RowHead } from './disk-rows.ts';

/** With what a thread begins. */
export interface WriterStart {
  readonly folder: string;
  readonly limit: Bytes;
  /** In the names of its unfinished files. */
  readonly mark: string;
}

/** An answer to be kept; the body is elsewhere in the message. */
export interface PutRow extends RowHead {
  readonly id: number;
  /** See `placeOf`. */
  readonly place: string;
  readonly used: Seconds;
  readonly pinned: boolean;
}

/** Bodies stand behind each other in the memory of the batch: from `at`, `length` of them. It is the thread's to read until it has said `done`. */
export type Op =
  | { readonly do: 'put'; readonly row: PutRow; readonly at: Bytes; readonly length: Bytes }
  /** A body that comes piece by piece, into a file that is open as `fd`. */
  | { readonly do: 'begin'; readonly filling: number; readonly fd: number; readonly path: string }
  | { readonly do: 'piece'; readonly filling: number; readonly at: Bytes; readonly length: Bytes }
  | { readonly do: 'commit'; readonly filling: number; readonly row: PutRow; readonly length: Bytes }
  | { readonly do: 'abort'; readonly filling: number }
  /** Used, where its last use was before `unless`. */
  | { readonly do: 'touch'; readonly url: string; readonly used: Seconds; readonly unless: Seconds }
  | {
      readonly do: 'freshen';
      readonly id: number;
      readonly url: string;
      readonly head: string;
      readonly responded: EpochMilliseconds;
    }
  | { readonly do: 'pin'; readonly which: Stored; readonly pinned: boolean }
  | { readonly do: 'remove'; readonly id: number; readonly url: string }
  | { readonly do: 'purge'; readonly which: Stored };

export type ToWriter =
  | {
      readonly type: 'batch';
      readonly number: number;
      readonly ops: readonly Op[];
      readonly bodies?: SharedArrayBuffer | undefined;
    }
  | { readonly type: 'limit'; readonly limit: Bytes }
  /** The reader found the index unusable; `inode` is the one it had open. */
  | { readonly type: 'broken'; readonly inode: number }
  | { readonly type: 'close' };

/** A row for which the number that was asked for was another's already. */
export interface Renumbered {
  readonly url: string;
  readonly id: number;
  readonly instead: number;
}

export type FromWriter =
  /** `reopened`: the index is another file than before. `failed`: nothing of the batch was done but its pieces, and why. */
  | {
      readonly type: 'done';
      readonly number: number;
      readonly reopened: boolean;
      readonly failed: string | null;
      /** Fillings that could not be written. */
      readonly lost: readonly number[];
      /** Fillings that are whole and have a row, and their names. */
      readonly kept: readonly number[];
      readonly renumbered: readonly Renumbered[];
    }
  | { readonly type: 'reopened' }
  | { readonly type: 'closed' };
