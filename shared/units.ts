// The units that numbers carry in signatures. HTTP counts in seconds, Node in milliseconds: parsers convert, once.
export type Milliseconds = number;
export type EpochMilliseconds = number;
export type Seconds = number;
export type Bytes = number;

export const KiB = 1024;
export const MiB = 1024 * KiB;
export const GiB = 1024 * MiB;

/** Bytes for people: 1.4 MB. */
export function formatBytes(bytes: Bytes): string {
  if (bytes < 1_000) return `${bytes} B`;
  const units = ['kB', 'MB', 'GB', 'TB'];
  let value = bytes / 1_000;
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1_000;
    unit++;
  }
  return `${value < 9.95 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}
