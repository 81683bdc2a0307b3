// What `detour check` says of a file, without running anything: every problem with its place, or what the file holds.
import { access, constants } from 'node:fs/promises';
import type { Config } from '../../shared/config.ts';
import { ConfigError, formatProblem } from './config-error.ts';
import { type Judge, parseConfig, type PathProblem, placed } from './config-file.ts';
import { readConfigText } from './config-store.ts';
import { pathFromConfig } from './places.ts';

export type ConfigReport =
  | { readonly ok: true; readonly summary: string; readonly warnings: readonly string[] }
  /** A line each, at most 20: `detour.yaml:12:5: …`. */
  | { readonly ok: false; readonly problems: readonly string[]; readonly warnings: readonly string[] };

/** What is wrong with the files that another room makes of a configuration. `pathOf` says what a path in it means. */
export type FilesOf = (
  config: Config,
  pathOf: (written: string) => string,
  warn: (message: string) => void,
) => Promise<readonly PathProblem[]>;

/** Checks a file on disk, and the files that it names. Never throws for what is wrong with them. */
export async function checkConfig(
  path: string,
  judges: readonly Judge[] = [],
  filesOf: FilesOf = async () => [],
): Promise<ConfigReport> {
  const warnings: string[] = [];
  try {
    const parsed = parseConfig(await readConfigText(path, message => warnings.push(message)), path, judges);
    const pathOf = (written: string) => pathFromConfig(path, written);
    const missing = [
      ...(await missingLists(path, parsed.config)),
      ...(await filesOf(parsed.config, pathOf, message => warnings.push(message))),
    ];
    if (missing.length > 0) throw placed(missing, path, parsed.document);
    return { ok: true, summary: `${path} is in order: ${summaryOf(parsed.config)}.`, warnings };
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return { ok: false, problems: error.problems.map(problem => formatProblem(path, problem)), warnings };
  }
}

async function missingLists(configPath: string, config: Config): Promise<PathProblem[]> {
  const found = await Promise.all(
    config.lists.map(async ({ file }, i): Promise<PathProblem | null> => {
      if (file === undefined) return null;
      try {
        await access(pathFromConfig(configPath, file), constants.R_OK);
        return null;
      } catch (error) {
        const missing = (error as NodeJS.ErrnoException).code === 'ENOENT';
        return { path: ['lists', i, 'file'], message: missing ? 'does not exist' : 'cannot be read' };
      }
    }),
  );
  return found.filter(problem => problem !== null);
}

function summaryOf({ sites, routes, hops, rules, lists }: Config): string {
  const count = (n: number, one: string) => `${n} ${one}${n === 1 ? '' : 's'}`;
  return [
    count(Object.keys(sites).length, 'site'),
    count(rules.length, 'rule'),
    count(lists.length, 'list'),
    count(Object.keys(routes).length, 'route'),
    count(Object.keys(hops).length, 'hop'),
  ].join(', ');
}
