// The door through which list files come in. What cannot be read keeps what was read last; every fault is told with file and line.
import { readFileSync, statSync } from 'node:fs';
import type { ListSource } from '../../shared/config/rules.ts';
import type { RuleList } from '../../shared/decision/rule.ts';
import { MAX_LIST_BYTES, type ParsedList, parseList } from './list-parser.ts';

export interface LoadedLists {
  readonly lists: readonly RuleList[];
  /** `work-hosts.txt:12: …`, one a fault, the first 20 of each file. */
  readonly problems: readonly string[];
  /**
   * Lists that route and have no content at all, by their place in the file: their hosts would go direct unsteered, so the configuration
   * cannot be in force.
   */
  readonly missing: readonly { readonly index: number; readonly message: string }[];
}

interface Kept {
  readonly stamp: string;
  readonly parsed: ParsedList;
}

export interface ListFiles {
  /** Reads what has changed since the last time. `pathOf` leads from the name in the configuration to the file. */
  load(sources: readonly ListSource[], pathOf: (file: string) => string): LoadedLists;
}

export function makeListFiles(): ListFiles {
  let kept = new Map<string, Kept>();
  return {
    load(sources, pathOf) {
      const next = new Map<string, Kept>();
      const lists: RuleList[] = [];
      const problems: string[] = [];
      const missing: { index: number; message: string }[] = [];
      sources.forEach((source, i) => {
        const path = pathOf(source.file);
        const before = next.get(path) ?? kept.get(path);
        let now = before;
        try {
          const stat = statSync(path);
          // A pipe or a device might never end.
          if (!stat.isFile())
            throw new Error(stat.isDirectory() ? 'is a folder, not a list file' : 'is not a plain file');
          const stamp = `${stat.mtimeMs} ${stat.size} ${stat.ino}`;
          if (stamp !== before?.stamp) now = read(path, stamp, stat.size, before, source.file, problems);
          else report(now!.parsed, source.file, problems);
        } catch (error) {
          const message = `${source.file}: ${whyUnreadable(error)}`;
          if (!before && source.action.do === 'route') missing.push({ index: i, message });
          else problems.push(`${message}${before ? '; the list as it was stays in force' : ''}`);
        }
        const [first] = now?.parsed.faults ?? [];
        if (first?.line === 0 && now!.parsed.entries.length === 0 && source.action.do === 'route') {
          missing.push({ index: i, message: `${source.file}: ${first.message}` });
        }
        if (now) next.set(path, now);
        lists.push({
          action: source.action,
          rank: source.rank,
          name: source.file,
          id: `lists[${i}]`,
          entries: now?.parsed.entries ?? [],
        });
      });
      kept = next;
      return { lists, problems, missing };
    },
  };
}

function read(
  path: string,
  stamp: string,
  size: number,
  before: Kept | undefined,
  name: string,
  problems: string[],
): Kept | undefined {
  // A file that is too large is refused before it is read.
  const parsed: ParsedList =
    size > MAX_LIST_BYTES
      ? { entries: [], faults: [{ line: 0, message: `is larger than ${MAX_LIST_BYTES / 1024 / 1024} MiB` }], faulty: 1 }
      : parseList(readFileSync(path, 'utf8'));
  report(parsed, name, problems);
  // A page or a broken download in place of the list keeps the old one, and so does a file that was emptied (as some editors do on the way).
  const isNoList = parsed.faults[0]?.line === 0 || (parsed.entries.length === 0 && (parsed.faulty > 0 || size === 0));
  return isNoList && before ? { stamp, parsed: { ...parsed, entries: before.parsed.entries } } : { stamp, parsed };
}

function report(parsed: ParsedList, name: string, problems: string[]): void {
  for (const fault of parsed.faults)
    problems.push(fault.line === 0 ? `${name}: ${fault.message}` : `${name}:${fault.line}: ${fault.message}`);
  if (parsed.faulty > parsed.faults.length)
    problems.push(`${name}: ${parsed.faulty - parsed.faults.length} more lines are faulty`);
}

function whyUnreadable(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException;
  if (code === 'ENOENT') return 'the list file does not exist';
  if (code === 'EACCES') return 'the list file may not be read';
  return message;
}
