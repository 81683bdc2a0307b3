// Lists that are fetched: where the last good copy of each is kept.
import { createHash } from 'node:crypto';
import { join } from 'node:path';

/** The file of a list's last good copy. */
export function placeOfRemoteList(stateFolder: string, url: string): string {
  return join(stateFolder, 'lists', `${createHash('sha256').update(url).digest('hex').slice(0, 32)}.list`);
}
