// `detour lists`: the lists of the file, how many rules each gives, and how the last fetch went.
import type { ListInfo } from '../../shared/control.ts';
import type { ControlLink } from './ask.ts';
import { shown } from './style.ts';

/** Prints them; with `refresh` after all that have a URL are fetched anew. */
export async function listLists(link: ControlLink, refresh: boolean, json: boolean): Promise<number> {
  const reply = await link.request({ type: 'lists', refresh });
  if (reply.type !== 'lists') return 1;
  process.stdout.write(json ? `${JSON.stringify(reply.lists)}\n` : textOf(reply.lists, Date.now()));
  return reply.lists.some(({ error }) => error !== undefined) ? 1 : 0;
}

/** A line a list, and below it what went wrong. */
export function textOf(lists: readonly ListInfo[], now: number): string {
  if (lists.length === 0) return 'The file has no lists.\n';
  return lists
    .map(({ name, format, does, entries, unread, fetched, checkedAt, error }) => {
      const lines = unread === 0 ? '' : `, ${unread} ${unread === 1 ? 'line' : 'lines'} unread`;
      const age = !fetched
        ? ''
        : checkedAt === null
          ? ', not fetched yet'
          : `, fetched ${ageText(now - checkedAt)} ago`;
      const failed = error === undefined ? '' : `    ${shown(error)}\n`;
      return `${shown(name)}  ${format}, ${does}: ${entries} ${entries === 1 ? 'entry' : 'entries'}${lines}${age}\n${failed}`;
    })
    .join('');
}

function ageText(age: number): string {
  const minutes = Math.max(0, Math.round(age / 60_000));
  if (minutes < 120) return `${minutes} min`;
  return minutes < 2_880 ? `${Math.round(minutes / 60)} h` : `${Math.round(minutes / 1_440)} days`;
}
