// Many rules in little memory: their names as bytes in a row, found by hash; what is no name (ranges, keywords, expressions) beside them. A table is made
// once for each list file and used by every configuration that has the file; all of it can be sent to another process.
//
//   bytes   adstesttrackertest…            starts  0 8 …  (one more than there are names)
//   slots   hash → first entry of a name   next    entry → another of the same name, or NONE
import { allSteps } from '../steps.ts';
import type { Condition, ListEntry, Matcher } from './rule.ts';

export const NONE = -1;
export const EXACT = 0;
export const SUFFIX = 1;
export const SUBDOMAINS = 2;
/** Added to a kind: the entry is an exception, or holds on a condition. */
export const ALLOWS = 4;
export const CONDITIONAL = 8;
/** What of `kinds` is the kind. */
export const KIND_BITS = 3;
export const KINDS = ['exact', 'suffix', 'subdomains'] as const;

/** Entries that name hosts come first, in order; then the others, in order. */
export interface RuleTable {
  /** Entries in all. */
  readonly size: number;
  /** Entries that name hosts. */
  readonly names: number;
  readonly bytes: Uint8Array;
  readonly starts: Uint32Array;
  readonly kinds: Uint8Array;
  /** Where an entry stands: the line of its file, from 1. */
  readonly lines: Uint32Array;
  readonly next: Int32Array;
  readonly slots: Int32Array;
  /** Matchers of the entries behind the names. */
  readonly others: readonly Exclude<Matcher, { host: string }>[];
  readonly conditions: ReadonlyMap<number, Condition>;
}

const SEED = 0x811c9dc5 | 0;
const PRIME = 0x01000193;
const DOT = 46;

/** A table while it is filled. */
export class RuleTableMaker {
  private bytes: Uint8Array;
  private starts: Uint32Array;
  private kinds: Uint8Array;
  private lines: Uint32Array;
  private names = 0;
  private length = 0;
  private readonly others: ListEntry[] = [];
  private readonly conditions = new Map<number, Condition>();

  /** Room for so many names is made at once. */
  constructor(expected = 64) {
    this.bytes = new Uint8Array(expected * 16);
    this.starts = new Uint32Array(expected + 1);
    this.kinds = new Uint8Array(expected);
    this.lines = new Uint32Array(expected);
  }

  get size(): number {
    return this.names + this.others.length;
  }

  add(entry: ListEntry): void {
    const { matcher, line, allow, when } = entry;
    if (!('host' in matcher)) {
      this.others.push(entry);
      return;
    }
    const { host } = matcher;
    this.reserve(host.length);
    const { bytes, length } = this;
    for (let i = 0; i < host.length; i++) bytes[length + i] = host.charCodeAt(i);
    if (when) this.conditions.set(this.names, when);
    this.endName(host.length, KINDS.indexOf(matcher.kind) | (allow ? ALLOWS : 0) | (when ? CONDITIONAL : 0), line);
  }

  /** A name in normal form that stands in a file. */
  addBytes(from: Uint8Array, start: number, end: number, kind: number, line: number): void {
    this.reserve(end - start);
    const { bytes, length } = this;
    for (let i = start, to = length; i < end; i++, to++) bytes[to] = from[i]!;
    this.endName(end - start, kind, line);
  }

  private endName(length: number, kind: number, line: number): void {
    this.kinds[this.names] = kind;
    this.lines[this.names] = line;
    this.length += length;
    this.starts[++this.names] = this.length;
  }

  private reserve(length: number): void {
    if (this.length + length > this.bytes.length) this.bytes = grown(this.bytes, Uint8Array);
    if (this.names === this.kinds.length) {
      this.kinds = grown(this.kinds, Uint8Array);
      this.lines = grown(this.lines, Uint32Array);
      const starts = new Uint32Array(this.kinds.length + 1);
      starts.set(this.starts);
      this.starts = starts;
    }
  }

  /** The table, in steps that take a few milliseconds at the most. */
  *steps(): Generator<undefined, RuleTable> {
    const { names, others } = this;
    const size = names + others.length;
    const bytes = this.bytes.slice(0, this.length);
    const starts = this.starts.slice(0, names + 1);
    const kinds = new Uint8Array(size);
    kinds.set(this.kinds.subarray(0, names));
    const lines = new Uint32Array(size);
    lines.set(this.lines.subarray(0, names));
    for (const [i, { line, allow, when }] of others.entries()) {
      kinds[names + i] = (allow ? ALLOWS : 0) | (when ? CONDITIONAL : 0);
      lines[names + i] = line;
      if (when) this.conditions.set(names + i, when);
    }
    const next = new Int32Array(names).fill(NONE);
    let room = 8;
    while (room < names * 2) room *= 2;
    const slots = new Int32Array(room).fill(NONE);
    const table: RuleTable = {
      size,
      names,
      bytes,
      starts,
      kinds,
      lines,
      next,
      slots,
      others: others.map(({ matcher }) => matcher as RuleTable['others'][number]),
      conditions: this.conditions,
    };
    const mask = room - 1;
    for (let entry = 0; entry < names; entry++) {
      if (entry % 16_384 === 16_383) yield;
      const start = starts[entry]!;
      const end = starts[entry + 1]!;
      let hash = SEED;
      for (let i = end - 1; i >= start; i--) hash = Math.imul(hash ^ bytes[i]!, PRIME);
      let slot = slotOf(hash) & mask;
      for (let there = slots[slot]!; there !== NONE; there = slots[(slot = (slot + 1) & mask)]!) {
        if (!areSameNames(table, there, entry)) continue;
        // Into second place: the order of a chain does not matter, ranks and lines settle it.
        next[entry] = next[there]!;
        next[there] = entry;
        break;
      }
      if (slots[slot] === NONE) slots[slot] = entry;
    }
    return table;
  }
}

/** The table of these entries. */
export function ruleTableOf(entries: readonly ListEntry[]): RuleTable {
  const maker = new RuleTableMaker(Math.max(4, entries.length));
  for (const entry of entries) maker.add(entry);
  return allSteps(maker.steps());
}

/** The name of an entry. */
export function nameAt({ bytes, starts }: RuleTable, entry: number): string {
  let name = '';
  for (let i = starts[entry]!, end = starts[entry + 1]!; i < end; i++) name += String.fromCharCode(bytes[i]!);
  return name;
}

/** All names side by side; `starts` says where each begins. */
export function namesIn({ bytes }: RuleTable): string {
  let names = '';
  // A spread would go one by one.
  for (let at = 0; at < bytes.length; at += 8_192)
    names += String.fromCharCode.apply(null, bytes.subarray(at, at + 8_192) as unknown as number[]);
  return names;
}

/** An entry's matcher, as it was added. */
export function matcherAt(table: RuleTable, entry: number): Matcher {
  if (entry >= table.names) return table.others[entry - table.names]!;
  return { kind: KINDS[table.kinds[entry]! & KIND_BITS]!, host: nameAt(table, entry) };
}

// Of the host that is asked about: the beginning and the hash of each of its parents, the nearest last; the host itself is the last of all. One for all
// calls, as nothing here calls back.
const MAX_LABELS = 256;
const beginnings = new Uint16Array(MAX_LABELS);
const hashes = new Int32Array(MAX_LABELS);
let asked = '';

/** Begins to ask about a host; with `whole` about it alone and none of its parents. How many names it has: the top label is 0, the host the last. */
export function askAbout(host: string, whole: boolean): number {
  asked = host;
  let hash = SEED;
  let labels = 0;
  for (let i = host.length - 1; i >= 0; i--) {
    const code = host.charCodeAt(i);
    if (code === DOT && !whole && labels < MAX_LABELS - 1) {
      beginnings[labels] = i + 1;
      hashes[labels++] = hash;
    }
    hash = Math.imul(hash ^ code, PRIME);
  }
  beginnings[labels] = 0;
  hashes[labels++] = hash;
  return labels;
}

/** The first entry of one of the names of the host that is asked about, or NONE. */
export function firstOf(table: RuleTable, label: number): number {
  const { slots, starts, bytes } = table;
  const mask = slots.length - 1;
  const from = beginnings[label]!;
  const length = asked.length - from;
  let slot = slotOf(hashes[label]!) & mask;
  search: for (let entry = slots[slot]!; entry !== NONE; entry = slots[(slot = (slot + 1) & mask)]!) {
    const start = starts[entry]!;
    if (starts[entry + 1]! - start !== length) continue;
    for (let i = 0; i < length; i++) if (bytes[start + i] !== asked.charCodeAt(from + i)) continue search;
    return entry;
  }
  return NONE;
}

/** Mixed, as the low bits alone choose the slot. */
function slotOf(hash: number): number {
  return Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d) >>> 8;
}

function areSameNames({ bytes, starts }: RuleTable, a: number, b: number): boolean {
  const start = starts[a]!;
  const other = starts[b]!;
  const length = starts[a + 1]! - start;
  if (starts[b + 1]! - other !== length) return false;
  for (let i = 0; i < length; i++) if (bytes[start + i] !== bytes[other + i]) return false;
  return true;
}

function grown<T extends Uint8Array | Uint32Array>(old: T, Kind: new (size: number) => T): T {
  const larger = new Kind(old.length * 2);
  larger.set(old);
  return larger;
}
