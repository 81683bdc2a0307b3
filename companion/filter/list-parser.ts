// List files, line by line: what every format has in common, and the format of hosts files (bare hosts and the two adblock forms that are by host alone, too).
// Plain names, which most lines are, go from the file's bytes into the table's without becoming text.
import { isAddress, normalizeHost } from '../../shared/endpoint.ts';
import { parseMatcher } from '../../shared/decision/parse-matcher.ts';
import type { ListEntry, Matcher } from '../../shared/decision/rule.ts';
import { type EXACT, RuleTableMaker, type RuleTable, SUFFIX } from '../../shared/decision/rule-table.ts';
import { allSteps } from '../../shared/steps.ts';
import { MiB, type Bytes } from '../../shared/units.ts';

export const MAX_LIST_BYTES: Bytes = 64 * MiB;
export const MAX_LIST_LINES = 2_000_000;
/** Expressions are tried one after the other, keywords in a bunch: no list has more of them. */
export const MAX_LIST_REGEXES = 200;
export const MAX_LIST_KEYWORDS = 10_000;
/** Faults are told up to this many; the rest is counted. */
const MAX_TOLD = 20;
/** Lines in one step. */
const STEP = 2_000;

export interface LineFault {
  /** From 1; 0 for the whole file. */
  readonly line: number;
  readonly message: string;
}

export interface ParsedList {
  readonly table: RuleTable;
  /** The first faulty lines. Their entries are left out; the others hold. */
  readonly faults: readonly LineFault[];
  /** All faulty lines. */
  readonly faulty: number;
}

/** A format's way with a line. */
export interface LineReader {
  /** What a line is that holds a plain name and nothing else; null: `read` says. */
  readonly plain: typeof EXACT | typeof SUFFIX | null;
  /** What may stand before and behind a plain name, and what the line is then; the first that fits. */
  readonly wrappings: readonly (readonly [before: string, behind: string, kind: typeof EXACT | typeof SUFFIX])[];
  /** Adds the entries of a line (trimmed, not empty); a sentence where it has none and should. */
  read(line: string, add: AddEntry): string | null;
}
export type AddEntry = (entry: Omit<ListEntry, 'line'>) => void;

/** Names that hosts files carry for the machine itself. */
const LOCAL = new Set([
  'localhost',
  'localhost.localdomain',
  'local',
  'broadcasthost',
  'ip6-localhost',
  'ip6-loopback',
  'ip6-allnodes',
  'ip6-allrouters',
  'ip6-allhosts',
  'ip6-localnet',
  'ip6-mcastprefix',
]);
/** Addresses that stand before the names of a hosts file and mean nothing here. */
const NOWHERE = new Set([
  '0.0.0.0',
  '127.0.0.1',
  '::',
  '::1',
  '255.255.255.255',
  'fe80::1%lo0',
  'ff00::0',
  'ff02::1',
  'ff02::2',
  'ff02::3',
  'fe00::0',
]);

/**
 * Reads a list in steps of about a millisecond. A text that is no list (a page of HTML, say) or is too long gives no entries and one fault of line 0.
 */
export function* listSteps(bytes: Uint8Array, reader: LineReader): Generator<undefined, ParsedList> {
  const text = new TextDecoder('utf-8', { ignoreBOM: false });
  const whole = (message: string): ParsedList => ({ table: EMPTY, faults: [{ line: 0, message }], faulty: 1 });
  if (bytes.length > MAX_LIST_BYTES) return whole(`is larger than ${MAX_LIST_BYTES / MiB} MiB`);
  if (/^\uFEFF?\s*</.test(text.decode(bytes.subarray(0, 1_024)))) return whole('is a web page, not a list');
  const maker = new RuleTableMaker(Math.max(16, Math.min(bytes.length >> 4, 1 << 17)));
  const faults: LineFault[] = [];
  let faulty = 0;
  let line = 0;
  let regexes = 0;
  let keywords = 0;
  let tooMany: string | null = null;
  const add: AddEntry = entry => {
    const { kind } = entry.matcher;
    if (kind === 'regex' && ++regexes > MAX_LIST_REGEXES)
      tooMany = `is one expression more than the ${MAX_LIST_REGEXES} that are read`;
    else if (kind === 'keyword' && ++keywords > MAX_LIST_KEYWORDS)
      tooMany = `is one keyword more than the ${MAX_LIST_KEYWORDS} that are read`;
    else maker.add({ ...entry, line });
  };
  const wrappings = reader.wrappings.map(([before, behind, kind]): Wrapping => {
    const encoder = new TextEncoder();
    return { before: encoder.encode(before), behind: encoder.encode(behind), kind };
  });
  let at = bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf ? 3 : 0;
  while (at < bytes.length) {
    if (++line > MAX_LIST_LINES) return whole(`has more than ${MAX_LIST_LINES} lines`);
    if (line % STEP === 0) yield;
    let end = bytes.indexOf(10, at);
    if (end < 0) end = bytes.length;
    const next = end + 1;
    while (end > at && bytes[end - 1]! <= 32) end--;
    while (at < end && bytes[at]! <= 32) at++;
    if (at < end) {
      if (reader.plain !== null && isPlainName(bytes, at, end)) maker.addBytes(bytes, at, end, reader.plain, line);
      else if (!addWrapped(bytes, at, end, wrappings, maker, line)) {
        const message = reader.read(text.decode(bytes.subarray(at, end)), add) ?? tooMany;
        tooMany = null;
        if (message !== null) {
          faulty++;
          if (faults.length < MAX_TOLD) faults.push({ line, message });
        }
      }
    }
    at = next;
  }
  return { table: yield* maker.steps(), faults, faulty };
}

const EMPTY: RuleTable = allSteps(new RuleTableMaker(1).steps());

interface Wrapping {
  readonly before: Uint8Array;
  readonly behind: Uint8Array;
  readonly kind: number;
}

/** Adds a plain name with something around it; false where the line is none. */
function addWrapped(
  bytes: Uint8Array,
  from: number,
  end: number,
  wrappings: readonly Wrapping[],
  maker: RuleTableMaker,
  line: number,
): boolean {
  for (const { before, behind, kind } of wrappings) {
    const start = from + before.length;
    const stop = end - behind.length;
    if (start >= stop || !standsAt(before, bytes, from) || !standsAt(behind, bytes, stop)) continue;
    if (!isPlainName(bytes, start, stop)) return false;
    maker.addBytes(bytes, start, stop, kind, line);
    return true;
  }
  return false;
}

function standsAt(what: Uint8Array, bytes: Uint8Array, at: number): boolean {
  for (let i = 0; i < what.length; i++) if (bytes[at + i] !== what[i]) return false;
  return true;
}

/** The same at once. */
export function parseList(text: string | Uint8Array, reader: LineReader = hostsLines): ParsedList {
  return allSteps(listSteps(typeof text === 'string' ? new TextEncoder().encode(text) : text, reader));
}

/** Whether the bytes are a name in normal form: as endpoint.ts has it, but only where that is seen at once. */
function isPlainName(bytes: Uint8Array, from: number, end: number): boolean {
  if (end - from > 253) return false;
  let isStart = true;
  let first = 0;
  let dots = 0;
  let before = 0;
  for (let i = from; i < end; i++) {
    const code = bytes[i]!;
    if (code === 46) {
      if (isStart) return false;
      isStart = true;
      dots++;
    } else {
      const isLetter = (code >= 97 && code <= 122) || code === 95;
      if (isStart) {
        if (!isLetter && (code < 48 || code > 57)) return false;
        first = code;
        isStart = false;
      } else if (!isLetter && (code < 48 || code > 57) && (code !== 45 || before === 45)) return false;
    }
    before = code;
  }
  // One label alone may be the machine's own name; a last label that begins with a digit, an address; two hyphens, punycode.
  return !isStart && dots > 0 && (first > 57 || first < 48) && !(bytes[from] === 108 && bytes[from + 1] === 111);
}

/**
 * `0.0.0.0 host`, `host`, `.host`, `=host`, an address range, `||host^`, `@@||host^`; `#` and `!` begin comments.
 */
export const hostsLines: LineReader = {
  plain: SUFFIX,
  wrappings: [
    ['0.0.0.0 ', '', SUFFIX],
    ['127.0.0.1 ', '', SUFFIX],
    ['||', '^', SUFFIX],
  ],
  read(written, add) {
    const text = withoutComment(written);
    if (text === '' || text[0] === '!' || /^\[adblock/i.test(text)) return null;
    const adblock = /^(@@)?\|\|([^/^$|*]+)\^(?:\$(?:all|document|important|third-party))?$/.exec(text);
    if (adblock) return addHost(adblock[2]!, add, adblock[1] !== undefined);
    if (text.startsWith('||') || text.startsWith('@@') || text.includes('##'))
      return `"${shorten(text)}" is more than a host: lists are by host`;
    if (!/\s/.test(text)) return addHost(text, add);
    const [address, ...names] = text.split(/\s+/);
    const isHostsLine =
      NOWHERE.has(address!) || (normalizeHost(address!) !== null && isAddress(normalizeHost(address!)!));
    if (!isHostsLine) return `"${shorten(text)}" is neither a host nor a line of a hosts file`;
    for (const name of names) {
      if (NOWHERE.has(name)) continue;
      const message = addHost(name, add);
      if (message !== null) return message;
    }
    return null;
  },
};

/** Without what follows a `#` at the beginning or behind a space. */
export function withoutComment(written: string): string {
  const hash = written.indexOf('#');
  return hash === 0 || (hash > 0 && /\s/.test(written[hash - 1]!)) ? written.slice(0, hash).trim() : written;
}

/** Adds what the one notation of hosts says; a sentence where it is none. */
export function addHost(text: string, add: AddEntry, allow = false): string | null {
  if (LOCAL.has(text) || LOCAL.has(text.toLowerCase())) return null;
  const matcher = parseMatcher(text);
  if (typeof matcher === 'string') return shorten(matcher, 200);
  addMatcher(matcher, add, allow);
  return null;
}

export function addMatcher(matcher: Matcher, add: AddEntry, allow = false): void {
  add(allow ? { matcher, allow } : { matcher });
}

export const shorten = (text: string, most = 60) => (text.length > most ? `${text.slice(0, most)}…` : text);
