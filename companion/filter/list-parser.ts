// List files, line by line: hosts files, bare hosts and the two adblock forms that are by host alone. Whole and quick: a long list is one string.
import { isAddress, normalizeHost } from '../../shared/endpoint.ts';
import { parseMatcher } from '../../shared/decision/parse-matcher.ts';
import type { ListEntry } from '../../shared/decision/rule.ts';
import { MiB, type Bytes } from '../../shared/units.ts';

export const MAX_LIST_BYTES: Bytes = 64 * MiB;
export const MAX_LIST_LINES = 2_000_000;
/** Faults are told up to this many; the rest is counted. */
const MAX_TOLD = 20;

export interface LineFault {
  /** From 1; 0 for the whole file. */
  readonly line: number;
  readonly message: string;
}

export interface ParsedList {
  readonly entries: readonly ListEntry[];
  /** The first faulty lines. Their entries are left out; the others hold. */
  readonly faults: readonly LineFault[];
  /** All faulty lines. */
  readonly faulty: number;
}

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
 * `0.0.0.0 host`, `host`, `.host`, `=host`, an address range, `||host^`, `@@||host^`; `#` and `!` begin comments. A text that is no list
 * (a page of HTML, say) or is too long gives no entries and one fault of line 0.
 */
export function parseList(text: string): ParsedList {
  const whole = (message: string): ParsedList => ({ entries: [], faults: [{ line: 0, message }], faulty: 1 });
  if (text.length > MAX_LIST_BYTES) return whole(`is larger than ${MAX_LIST_BYTES / MiB} MiB`);
  if (/^\uFEFF?\s*</.test(text)) return whole('is a web page, not a list');
  const entries: ListEntry[] = [];
  const faults: LineFault[] = [];
  let faulty = 0;
  let line = 0;
  let at = text.charCodeAt(0) === 0xfeff ? 1 : 0;
  while (at < text.length) {
    if (++line > MAX_LIST_LINES) return whole(`has more than ${MAX_LIST_LINES} lines`);
    let end = text.indexOf('\n', at);
    if (end < 0) end = text.length;
    const written = text.slice(at, end);
    at = end + 1;
    const message = readLine(written, line, entries);
    if (message === null) continue;
    faulty++;
    if (faults.length < MAX_TOLD) faults.push({ line, message });
  }
  return { entries, faults, faulty };
}

/** Adds the line's entries; a sentence where it has none and should. */
function readLine(written: string, line: number, entries: ListEntry[]): string | null {
  let text = written;
  const hash = text.indexOf('#');
  if (hash === 0 || (hash > 0 && /\s/.test(text[hash - 1]!))) text = text.slice(0, hash);
  text = text.trim();
  if (text === '' || text[0] === '!' || /^\[adblock/i.test(text)) return null;
  const adblock = /^(@@)?\|\|([^/^$|*]+)\^(?:\$(?:all|document|important|third-party))?$/.exec(text);
  if (adblock) return add(adblock[2]!, line, entries, adblock[1] !== undefined);
  if (text.startsWith('||') || text.startsWith('@@') || text.includes('##'))
    return `"${shorten(text)}" is more than a host: lists are by host`;
  if (!/\s/.test(text)) return add(text, line, entries);
  const [address, ...names] = text.split(/\s+/);
  const isHostsLine =
    NOWHERE.has(address!) || (normalizeHost(address!) !== null && isAddress(normalizeHost(address!)!));
  if (!isHostsLine) return `"${shorten(text)}" is neither a host nor a line of a hosts file`;
  for (const name of names) {
    if (NOWHERE.has(name)) continue;
    const message = add(name, line, entries);
    if (message !== null) return message;
  }
  return null;
}

function add(text: string, line: number, entries: ListEntry[], allow = false): string | null {
  if (LOCAL.has(text) || LOCAL.has(text.toLowerCase())) return null;
  const matcher = parseMatcher(text);
  if (typeof matcher === 'string') return shorten(matcher, 200);
  entries.push(allow ? { matcher, line, allow } : { matcher, line });
  return null;
}

const shorten = (text: string, most = 60) => (text.length > most ? `${text.slice(0, most)}…` : text);
