// Lists that are fetched: when, and what is kept of them. The last good copy of each is a file of the state folder, which list-files.ts reads like any
// other; a copy that is broken or empty never takes its place. How a list is fetched is handed in.
import { createHash, randomBytes } from 'node:crypto';
import * as fs from 'node:fs/promises';
import { join } from 'node:path';
import type { ListSource } from '../../shared/config/rules.ts';
import type { EpochMilliseconds, Milliseconds } from '../../shared/units.ts';
import { parseBytes } from './list-files.ts';

/** The first fetch of what has never been fetched comes within so long. */
const FIRST_WITHIN: Milliseconds = 1_000;
/** After a failure it is tried again after this, then twice this, and so on. */
const FIRST_RETRY: Milliseconds = 60_000;
const LAST_RETRY: Milliseconds = 3_600_000;
/** A fetch comes so much earlier or later, so that not all of them come at once. */
const JITTER = 0.1;
/** The longest wait that a timer takes. */
const MAX_WAIT: Milliseconds = 86_400_000;

/** What the server said of the copy that is there. */
export interface Validators {
  readonly etag?: string | undefined;
  readonly lastModified?: string | undefined;
}

/** What a fetch brings; null: what is there is as new as any. */
export type FetchList = (
  list: RemoteList,
  validators: Validators,
  signal: AbortSignal,
) => Promise<(Validators & { readonly bytes: Buffer }) | null>;

export type RemoteList = ListSource & { readonly url: string };

export interface RemoteListsParts {
  readonly stateFolder: string;
  /** Rejects with an error whose message is a sentence. */
  readonly fetch: FetchList;
  /** Another copy of one of them is there. */
  readonly changed: () => Promise<void>;
  readonly warn: (message: string) => void;
  readonly now: () => EpochMilliseconds;
  /** From 0 to 1. */
  readonly random?: () => number;
}

export interface RemoteState {
  /** When the server last said that this is its list. */
  readonly checkedAt: EpochMilliseconds | null;
  readonly error: string | null;
}

export interface RemoteLists {
  /** These lists from now on; what is kept of others goes. */
  follow(lists: readonly ListSource[]): Promise<void>;
  /** Asks for all of them now; fulfilled when all have answered or failed, and what is new is in force. */
  refresh(): Promise<void>;
  stateOf(url: string): RemoteState;
  close(): Promise<void>;
}

interface Known extends Validators {
  readonly url: string;
  readonly checkedAt: EpochMilliseconds;
}

interface Followed {
  list: RemoteList;
  known: Known | null;
  error: string | null;
  failures: number;
  timer: NodeJS.Timeout | null;
  running: Promise<boolean> | null;
}

/** The file of a list's last good copy. */
export function placeOfRemoteList(stateFolder: string, url: string): string {
  return join(stateFolder, 'lists', `${createHash('sha256').update(url).digest('hex').slice(0, 32)}.list`);
}

export function makeRemoteLists(parts: RemoteListsParts): RemoteLists {
  const { stateFolder, now, random = Math.random } = parts;
  const folder = join(stateFolder, 'lists');
  const controller = new AbortController();
  const { signal } = controller;
  let followed = new Map<string, Followed>();

  const schedule = (one: Followed, delay: Milliseconds) => {
    if (signal.aborted) return;
    if (one.timer !== null) clearTimeout(one.timer);
    one.timer = setTimeout(
      () => {
        one.timer = null;
        const left = dueIn(one);
        if (left > 0 && one.failures === 0) schedule(one, left);
        else void run(one).then(isNew => (isNew ? parts.changed() : undefined));
      },
      Math.min(MAX_WAIT, Math.max(0, delay)),
    ).unref();
  };
  const dueIn = ({ known, list }: Followed): Milliseconds =>
    known === null ? 0 : known.checkedAt + list.every * 1_000 - now();

  /** Whether another copy is there now. Never rejects. */
  const run = (one: Followed): Promise<boolean> => (one.running ??= attempt(one).finally(() => (one.running = null)));

  async function attempt(one: Followed): Promise<boolean> {
    const { list } = one;
    try {
      const place = placeOfRemoteList(stateFolder, list.url);
      const isThere = await fs.stat(place).then(
        stat => stat.isFile(),
        () => false,
      );
      const found = await parts.fetch(list, isThere ? (one.known ?? {}) : {}, signal);
      if (found !== null) await keep(place, found.bytes, list, isThere);
      const { etag, lastModified } = found ?? one.known ?? {};
      one.known = { url: list.url, etag, lastModified, checkedAt: now() };
      await write(metaOf(place), JSON.stringify(one.known));
      one.error = null;
      one.failures = 0;
      schedule(one, list.every * 1_000 * (1 + (2 * random() - 1) * JITTER));
      return found !== null;
    } catch (error) {
      if (signal.aborted) return false;
      one.error = error instanceof Error ? error.message : String(error);
      if (one.failures++ === 0)
        parts.warn(`${list.url}: ${one.error}${one.known === null ? '' : '; the list as it was stays in force'}`);
      const wait = Math.min(LAST_RETRY, list.every * 1_000, FIRST_RETRY * 2 ** Math.min(10, one.failures - 1));
      schedule(one, wait * (1 + (2 * random() - 1) * JITTER));
      return false;
    }
  }

  async function keep(place: string, bytes: Buffer, { format }: RemoteList, isThere: boolean): Promise<void> {
    const { table, faults } = await parseBytes(bytes, format);
    if (table.size === 0) {
      const [first] = faults;
      const why = first === undefined ? 'has no entries' : first.line === 0 ? first.message : 'has no line that is one';
      if (isThere || first !== undefined) throw new Error(`what came ${why}`);
    }
    await write(place, bytes);
  }

  async function write(path: string, content: string | Buffer): Promise<void> {
    await fs.mkdir(folder, { recursive: true, mode: 0o700 });
    const beside = `${path}.${randomBytes(4).toString('hex')}.tmp`;
    try {
      await fs.writeFile(beside, content, { mode: 0o600, flag: 'wx', flush: true });
      await fs.rename(beside, path);
    } catch (error) {
      await fs.rm(beside, { force: true });
      throw error;
    }
  }

  async function knownOf(list: RemoteList): Promise<Known | null> {
    try {
      const known = JSON.parse(await fs.readFile(metaOf(placeOfRemoteList(stateFolder, list.url)), 'utf8')) as Known;
      const isKnown = known.url === list.url && typeof known.checkedAt === 'number';
      return isKnown ? { ...known, checkedAt: Math.min(known.checkedAt, now()) } : null;
    } catch {
      return null;
    }
  }

  /** What is kept of lists that nobody has any more, and what a kill has left. */
  async function tidyUp(): Promise<void> {
    const kept = new Set<string>();
    for (const url of followed.keys()) {
      const place = placeOfRemoteList(stateFolder, url);
      kept.add(place).add(metaOf(place));
    }
    const names = await fs.readdir(folder).catch(() => []);
    // Of one that is being written the name is longer.
    for (const name of names) {
      const path = join(folder, name);
      if (![...kept].some(one => path.startsWith(one))) await fs.rm(path, { force: true });
    }
  }

  return {
    async follow(lists) {
      const before = followed;
      followed = new Map();
      const fresh: Followed[] = [];
      for (const list of lists) {
        if (!isRemote(list) || followed.has(list.url)) continue;
        const there = before.get(list.url);
        if (there) {
          const isOther = there.list.every !== list.every || there.list.via !== list.via;
          there.list = list;
          if (isOther) schedule(there, dueIn(there));
          followed.set(list.url, there);
          before.delete(list.url);
          continue;
        }
        const one: Followed = { list, known: null, error: null, failures: 0, timer: null, running: null };
        followed.set(list.url, one);
        fresh.push(one);
      }
      for (const { timer } of before.values()) if (timer !== null) clearTimeout(timer);
      if (before.size + fresh.length === 0) return;
      for (const one of fresh) {
        one.known = await knownOf(one.list);
        schedule(one, one.known === null ? random() * FIRST_WITHIN : dueIn(one));
      }
      await tidyUp();
    },
    async refresh() {
      const found = await Promise.all([...followed.values()].map(run));
      if (found.includes(true)) await parts.changed();
    },
    stateOf(url) {
      const one = followed.get(url);
      return { checkedAt: one?.known?.checkedAt ?? null, error: one?.error ?? null };
    },
    async close() {
      controller.abort(new Error('The companion ends.'));
      for (const { timer } of followed.values()) if (timer !== null) clearTimeout(timer);
      await Promise.all([...followed.values()].map(one => one.running));
    },
  };
}

const isRemote = (list: ListSource): list is RemoteList => list.url !== undefined;
const metaOf = (place: string) => `${place.slice(0, -'.list'.length)}.json`;
