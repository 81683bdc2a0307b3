// Live reload: the file as it is in force. Hand edits and list files are noticed by the system's events and, where those fail, by
// looking every two seconds. What is not in order is reported once; the last good configuration stays.
import { type FSWatcher, watch } from 'node:fs';
import * as fs from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Config } from '../../shared/config.ts';
import type { ListSource } from '../../shared/config/rules.ts';
import type { Milliseconds } from '../../shared/units.ts';
import { ConfigError } from './config-error.ts';
import type { ParsedConfig } from './config-file.ts';
import type { ConfigStore } from './config-store.ts';
import { pathFromConfig } from './places.ts';

/** What has changed when a configuration is handed on. */
export type ConfigChange = 'file' | 'edit' | 'lists';

export interface LiveConfigOptions {
  /**
   * A configuration that is to be in force from now on; `lists`: the same file, another list. Awaited before the next is read.
   * Where it throws, the last one is taken to be in force still, and what it threw is the problem.
   */
  readonly onConfig: (parsed: ParsedConfig, change: ConfigChange) => void | Promise<void>;
  /** The file is not in order (once for each state of it), or in order again (null) with what is in force already. */
  readonly onProblem: (error: ConfigError | null) => void;
  /** Files beside the lists that a configuration is made from, as written: a change of one counts as one of a list. */
  readonly otherFiles?: (config: Config) => readonly string[];
  /** The stamp of the lists' files and then the others, from before the first configuration was made of them; absent: they have not changed since. */
  readonly filesSeen?: string;
  /** Where the file of a list is; without: where the configuration says. */
  readonly placeOfList?: (list: ListSource) => string;
  /** Events come in bunches: so long after the last one the file is read. */
  readonly settle?: Milliseconds;
  /** How often is looked without an event. */
  readonly pollInterval?: Milliseconds;
}

/** The configuration in force, kept up with the disk until `close`. */
export interface LiveConfig {
  readonly current: ParsedConfig;
  /** One line about what is wrong with the file on disk, when something is. */
  readonly problem: string | undefined;
  /** Edits the file; resolves once the result is in force (`onConfig` has run). Throws as ConfigStore.edit does, and what `onConfig` throws as ConfigError. */
  edit(change: (text: string, fileName: string) => string): Promise<ParsedConfig>;
  /** Looks at the disk now, and resolves once what is there is in force. */
  refresh(): Promise<void>;
  close(): Promise<void>;
}

/** Follows a file that was read as `initial`. */
export function followConfig(store: ConfigStore, initial: ParsedConfig, options: LiveConfigOptions): LiveConfig {
  const { onConfig, onProblem, otherFiles = () => [], settle = 100, pollInterval = 2_000 } = options;
  const placeOfList = options.placeOfList ?? (({ file }: ListSource) => pathFromConfig(store.path, file!));
  let current = initial;
  let problem: ConfigError | null = null;
  let closed = false;
  let configSeen: string | undefined;
  let listsSeen: string | undefined;
  let timer: NodeJS.Timeout | undefined;
  let queue: Promise<void> = Promise.resolve();
  const watchers: FSWatcher[] = [];

  const inTurn = <T>(work: () => Promise<T>): Promise<T> => {
    const done = queue.then(work);
    queue = done.then(
      () => {},
      () => {},
    );
    return done;
  };

  const listPaths = () => [
    ...current.config.lists.map(placeOfList),
    ...otherFiles(current.config).map(file => pathFromConfig(store.path, file)),
  ];

  const report = (error: ConfigError | null) => {
    if (error?.message === problem?.message) return;
    problem = error;
    onProblem(error);
  };

  /** Puts a configuration in force; where that fails, the last good one stays, and the failure is the problem. */
  const apply = async (parsed: ParsedConfig, change: ConfigChange): Promise<void> => {
    const before = { current, problem };
    current = parsed;
    problem = null;
    listsSeen = await stampOf(listPaths());
    try {
      await onConfig(parsed, change);
    } catch (error) {
      current = before.current;
      problem = before.problem;
      const sentence = error instanceof Error ? error.message : String(error);
      const refused =
        error instanceof ConfigError ? error : new ConfigError(store.path, [{ message: sentence }], error);
      report(refused);
      throw refused;
    }
  };

  const look = async () => {
    if (closed) return;
    const configNow = await stampOf([store.path]);
    if (configNow !== configSeen) {
      let parsed: ParsedConfig;
      try {
        parsed = await store.read(current);
        // An editor that empties the file before it writes is given the time to.
        if (parsed.text.trim() === '' && current.text.trim() !== '' && !closed) {
          await new Promise(resolve => setTimeout(resolve, settle * 3));
          parsed = await store.read();
        }
      } catch (error) {
        configSeen = configNow;
        if (!(error instanceof ConfigError)) throw error;
        return report(error);
      }
      configSeen = configNow;
      if (parsed.text !== current.text) return apply(parsed, 'file').catch(() => {});
      report(null);
    }
    const lists = await stampOf(listPaths());
    if (lists !== listsSeen) {
      await apply(current, 'lists').catch(() => {});
    }
  };

  const refresh = () => inTurn(look);
  const soon = () => {
    if (closed) return;
    clearTimeout(timer);
    timer = setTimeout(() => void refresh().catch(() => {}), settle);
  };

  // Editors rename, which ends the watch on a file but not on its folder. A linked file is watched where it is, too.
  const watchFolder = (folder: string) => {
    try {
      watchers.push(watch(folder, { persistent: false }, soon).on('error', () => {}));
    } catch {
      // Polling does.
    }
  };
  const started = inTurn(async () => {
    const folders = new Set([dirname(store.path)]);
    try {
      folders.add(dirname(await fs.realpath(store.path)));
    } catch {
      // Gone already; the first look says so.
    }
    if (!closed) for (const folder of folders) watchFolder(folder);
    listsSeen = options.filesSeen ?? (await stampOf(listPaths()));
    await look();
  });
  started.catch(() => {});
  const poll = setInterval(() => void refresh().catch(() => {}), pollInterval);
  poll.unref();

  return {
    get current() {
      return current;
    },
    get problem() {
      return problem?.summary;
    },
    edit: change =>
      inTurn(async () => {
        const parsed = await store.edit(change);
        if (parsed.text !== current.text) await apply(parsed, 'edit');
        return parsed;
      }),
    refresh,
    async close() {
      closed = true;
      clearTimeout(timer);
      clearInterval(poll);
      for (const watcher of watchers) watcher.close();
      await queue;
    },
  };
}

/** Changes whenever one of the files does. */
export async function stampOf(paths: readonly string[]): Promise<string> {
  const stamps = await Promise.all(
    paths.map(async path => {
      try {
        const { mtimeNs, ctimeNs, size, ino } = await fs.stat(path, { bigint: true });
        return `${mtimeNs}.${ctimeNs}.${size}.${ino}`;
      } catch (error) {
        return (error as NodeJS.ErrnoException).code ?? 'gone';
      }
    }),
  );
  return stamps.join(' ');
}
