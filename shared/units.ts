// The units that numbers carry in signatures. HTTP counts in seconds, Node in milliseconds: parsers convert, once.
export type Milliseconds = number;
export type EpochMilliseconds = number;
export type Seconds = number;
export type Bytes = number;

export const KiB = 1024;
export const MiB = 1024 * KiB;
export const GiB = 1024 * MiB;
