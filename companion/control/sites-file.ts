// What `auto` routes know of sites, from one run to the next: a file of the state folder, read at the start and written some time after a change. Only sites
// that need another way than the companion's own, or that a person has set, stand in it.
import * as v from 'valibot';
import { type KnownSite, SavedSites } from '../../shared/known-site.ts';
import type { Milliseconds } from '../../shared/units.ts';
import { readStateFile, writeStateFile } from './state-folder.ts';

const FILE = 'auto-sites.json';
/** What changes waits so long for company. */
const WRITE_AFTER: Milliseconds = 2_000;

export interface SitesFile {
  readonly saved: readonly KnownSite[];
  /** Something has changed: it is written soon. */
  readonly changed: () => void;
  /** Writes what has not been written. */
  close(): void;
}

/** Reads the file; one that cannot be read is as good as none, which `warn` hears. */
export function openSitesFile(
  folder: string,
  list: () => readonly KnownSite[],
  warn: (message: string) => void,
): SitesFile {
  let timer: NodeJS.Timeout | undefined;
  let hasFailed = false;
  const write = () => {
    clearTimeout(timer);
    timer = undefined;
    try {
      const saved: SavedSites = { version: 1, sites: [...list()] };
      writeStateFile(folder, FILE, `${JSON.stringify(saved)}\n`, 'soon');
      hasFailed = false;
    } catch (error) {
      if (!hasFailed) warn(`What auto routes learned cannot be kept: ${(error as Error).message}`);
      hasFailed = true;
    }
  };
  return {
    saved: read(folder, warn),
    changed() {
      timer ??= setTimeout(write, WRITE_AFTER).unref();
    },
    close() {
      if (timer !== undefined) write();
    },
  };
}

function read(folder: string, warn: (message: string) => void): readonly KnownSite[] {
  try {
    const text = readStateFile(folder, FILE, warn);
    return text === null ? [] : v.parse(SavedSites, JSON.parse(text)).sites;
  } catch {
    warn(`${folder}/${FILE} cannot be read, so auto routes begin to learn anew.`);
    return [];
  }
}
