// The door through which list files come in. What cannot be read keeps what was read last; every fault is told with file and line. Only what has changed is
// read again, beside traffic.
import * as fs from 'node:fs/promises';
import { type ListSource, nameOfList } from '../../shared/config/rules.ts';
import type { RuleList } from '../../shared/decision/rule.ts';
import { ruleTableOf } from '../../shared/decision/rule-table.ts';
import { inSlices } from '../message/in-slices.ts';
import { readerOf, unwrapped } from './list-formats.ts';
import { listSteps, MAX_LIST_BYTES, type ParsedList } from './list-parser.ts';

export interface LoadedLists {
  readonly lists: readonly RuleList[];
  /** `work-hosts.txt:12: …`, one a fault, the first 20 of each file. */
  readonly problems: readonly string[];
  /**
   * List files that route and have no content at all, by their place in the file: their hosts would go direct unsteered, so the configuration
   * cannot be in force.
   */
  readonly missing: readonly { readonly index: number; readonly message: string }[];
  /** Of each list, in order. */
  readonly states: readonly ListState[];
}

/** How a list stands. */
export interface ListState {
  readonly entries: number;
  /** Lines that could not be read. */
  readonly unread: number;
}

interface Kept {
  readonly stamp: string;
  readonly parsed: ParsedList;
}

export interface ListFiles {
  /** Reads what has changed since the last time. `pathOf` leads from a list to its file. One call after the other. */
  load(sources: readonly ListSource[], pathOf: (list: ListSource) => string): Promise<LoadedLists>;
}

const NOTHING: ParsedList = { table: ruleTableOf([]), faults: [], faulty: 0 };

export function makeListFiles(): ListFiles {
  let kept = new Map<string, Kept>();
  return {
    async load(sources, pathOf) {
      const next = new Map<string, Kept>();
      const lists: RuleList[] = [];
      const problems: string[] = [];
      const missing: { index: number; message: string }[] = [];
      const states: ListState[] = [];
      for (const [i, source] of sources.entries()) {
        const path = pathOf(source);
        const name = nameOfList(source);
        // The same file may stand in two lists of different formats.
        const key = `${source.format} ${path}`;
        const before = next.get(key) ?? kept.get(key);
        let now = before;
        try {
          const stat = await fs.stat(path);
          // A pipe or a device might never end.
          if (!stat.isFile())
            throw new Error(stat.isDirectory() ? 'is a folder, not a list file' : 'is not a plain file');
          const stamp = `${stat.mtimeMs} ${stat.size} ${stat.ino}`;
          if (stamp !== before?.stamp) now = await read(path, stamp, stat.size, before, source);
          report(now!.parsed, name, problems);
        } catch (error) {
          const message = `${name}: ${whyUnreadable(error, source)}`;
          if (!before && source.action.do === 'route' && source.url === undefined) missing.push({ index: i, message });
          else problems.push(`${message}${before ? '; the list as it was stays in force' : ''}`);
        }
        const [first] = now?.parsed.faults ?? [];
        if (
          first?.line === 0 &&
          now!.parsed.table.size === 0 &&
          source.action.do === 'route' &&
          source.url === undefined
        ) {
          missing.push({ index: i, message: `${name}: ${first.message}` });
        }
        if (now) next.set(key, now);
        const { table, faulty } = now?.parsed ?? NOTHING;
        lists.push({ action: source.action, rank: source.rank, name, id: `lists[${i}]`, table });
        states.push({ entries: table.size, unread: faulty });
      }
      kept = next;
      return { lists, problems, missing, states };
    },
  };
}

async function read(
  path: string,
  stamp: string,
  size: number,
  before: Kept | undefined,
  source: ListSource,
): Promise<Kept> {
  // A file that is too large is refused before it is read.
  const parsed: ParsedList =
    size > MAX_LIST_BYTES
      ? {
          table: NOTHING.table,
          faults: [{ line: 0, message: `is larger than ${MAX_LIST_BYTES / 1024 / 1024} MiB` }],
          faulty: 1,
        }
      : await parseBytes(await fs.readFile(path), source.format);
  // A page or a broken download in place of the list keeps the old one, and so does a file that was emptied (as some editors do on the way).
  const isNoList = parsed.faults[0]?.line === 0 || (parsed.table.size === 0 && (parsed.faulty > 0 || size === 0));
  return isNoList && before ? { stamp, parsed: { ...parsed, table: before.parsed.table } } : { stamp, parsed };
}

/** Reads a list beside traffic. */
export function parseBytes(bytes: Uint8Array, format: ListSource['format']): Promise<ParsedList> {
  return inSlices(listSteps(unwrapped(format, bytes), readerOf(format)));
}

function report(parsed: ParsedList, name: string, problems: string[]): void {
  for (const fault of parsed.faults)
    problems.push(fault.line === 0 ? `${name}: ${fault.message}` : `${name}:${fault.line}: ${fault.message}`);
  if (parsed.faulty > parsed.faults.length)
    problems.push(`${name}: ${parsed.faulty - parsed.faults.length} more lines are faulty`);
}

function whyUnreadable(error: unknown, { url }: ListSource): string {
  const { code, message } = error as NodeJS.ErrnoException;
  if (code === 'ENOENT') return url === undefined ? 'the list file does not exist' : 'has not been fetched yet';
  if (code === 'EACCES') return 'the list file may not be read';
  return message;
}
