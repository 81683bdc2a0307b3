// `detour cache stats|ls|show|purge|pin|unpin`: what is stored, and to forget or keep it.
import type { CacheStats, ClientRequest, Holdings, Reply, Stored, StoredAnswer } from '../../shared/control.ts';
import { MAX_LISTED } from '../../shared/control.ts';
import { formatBytes, type Seconds } from '../../shared/units.ts';
import { type ControlLink, once } from './ask.ts';
import { shown, style } from './style.ts';

/** What stands behind `detour cache`. */
export interface CacheArguments {
  readonly words: readonly string[];
  readonly prefix: string | undefined;
  readonly site: string | undefined;
  readonly all: boolean;
  readonly limit: string | undefined;
  readonly json: boolean;
}

/** How many `ls` lists unless it is told. */
const LISTED = 100;

/** What is to be asked, and how the reply is shown; or a sentence that says what is wrong with the arguments. */
export function cacheCommand(given: CacheArguments): ((link: ControlLink) => Promise<number>) | string {
  const [action, word, more] = given.words;
  const { prefix, site, all, limit, json } = given;
  if (action === undefined) return `\`detour cache\` needs one of ${Object.keys(NAMES).join(', ')}.`;
  if (!Object.hasOwn(NAMES, action))
    return `there is no \`detour cache ${action}\`; there are ${Object.keys(NAMES).join(', ')}.`;
  if (more !== undefined || (word !== undefined && action === 'stats'))
    return `\`detour cache ${action}\` does not take "${more ?? word}".`;
  const picks = [prefix, site, all ? '' : undefined].filter(one => one !== undefined).length;
  const mayPick = action === 'purge' ? PURGE : action === 'pin' || action === 'unpin' ? PIN : '';
  if ((prefix !== undefined || all) && action !== 'purge') return '--prefix and --all go with cache purge.';
  if (site !== undefined && mayPick === '') return '--site goes with cache purge, pin and unpin.';
  if (limit !== undefined && action !== 'ls') return '--limit goes with cache ls.';
  if (mayPick !== '' && picks + (word === undefined ? 0 : 1) !== 1)
    return `\`detour cache ${action}\` needs ${mayPick}.`;
  const which: Stored =
    word !== undefined
      ? { url: word }
      : prefix !== undefined
        ? { prefix }
        : site !== undefined
          ? { site }
          : { all: true };
  const ask = (message: ClientRequest, show: (reply: Reply) => string) => (link: ControlLink) =>
    once(link, message, reply => (json ? jsonOf(reply) : show(reply)));
  switch (action) {
    case 'stats':
      return ask({ type: 'cache-stats' }, reply => (reply.type === 'cache-stats' ? statsText(reply.stats) : ''));
    case 'ls': {
      const most = limit === undefined ? LISTED : Number(limit);
      if (!Number.isInteger(most) || most < 1 || most > MAX_LISTED)
        return `--limit ${limit}: a number from 1 to ${MAX_LISTED}.`;
      return ask({ type: 'cache-list', which: listed(word), limit: most }, reply =>
        reply.type === 'cache-list' ? listText(reply.answers, reply.more) : '',
      );
    }
    case 'show':
      if (word === undefined) return '`detour cache show` needs a URL.';
      return ask({ type: 'cache-show', url: word }, reply =>
        reply.type === 'cache-list' ? showText(reply.answers) : '',
      );
    case 'purge':
      return ask({ type: 'cache-purge', which }, reply =>
        reply.type === 'cache-changed' ? countText(reply.count, 'forgotten', nothingText(which)) : '',
      );
    default:
      return link => pin(link, which, action === 'pin', json);
  }
}

/** Nothing to do is a fault where there is nothing that could be kept. */
async function pin(link: ControlLink, which: Stored, pinned: boolean, json: boolean): Promise<number> {
  let isStored = true;
  const asked = once(
    {
      ...link,
      async request(message) {
        const reply = await link.request(message);
        if (reply.type !== 'cache-changed' || reply.count > 0) return reply;
        const found = await link.request({ type: 'cache-list', which, limit: 1 });
        isStored = found.type !== 'cache-list' || found.answers.length > 0;
        return reply;
      },
    },
    { type: 'cache-pin', which, pinned },
    reply => {
      if (json || reply.type !== 'cache-changed') return jsonOf(reply);
      const none = pinned ? 'It is kept for offline use already.' : 'It was not kept for offline use.';
      return countText(reply.count, pinned ? 'kept for offline use' : 'no longer kept', isStored ? none : NOT_STORED);
    },
  );
  return Math.max(await asked, isStored ? 0 : 1);
}

const NOT_STORED = 'Nothing is stored of it.';
const NAMES = { stats: '', ls: '', show: '', purge: '', pin: '', unpin: '' };
const PURGE = 'a URL, or one of --prefix, --site and --all';
const PIN = 'a URL, or --site';

/** A site; with a slash or a port the beginning of a URL. */
function listed(word: string | undefined): Stored {
  if (word === undefined) return { all: true };
  return /[/:]/.test(word) ? { prefix: word } : { site: word };
}

function jsonOf(reply: Reply): string {
  if (reply.type === 'cache-stats') return `${JSON.stringify(reply.stats)}\n`;
  if (reply.type === 'cache-list') return reply.answers.map(one => `${JSON.stringify(one)}\n`).join('');
  return reply.type === 'cache-changed' ? `${JSON.stringify({ count: reply.count })}\n` : '';
}

function statsText({ since, memory, disk, counts }: CacheStats): string {
  const rate = counts.lookups === 0 ? '' : ` (${Math.round((100 * counts.cached) / counts.lookups)} %)`;
  const rows = [
    ['Since', new Date(since).toISOString().replace('T', ' ').slice(0, 16) + ' UTC'],
    ['Requests', `${counts.lookups} that it could answer; ${counts.cached} it did${rate}`],
    ['Saved', `${formatBytes(counts.bytesSaved)} of ${formatBytes(counts.bytesDown)} received`],
    ['Memory', holdingsText(memory)],
    ['Disk', disk === null ? 'none' : holdingsText(disk)],
  ];
  return rows.map(([name, text]) => `${name!.padEnd(10)} ${text}\n`).join('');
}

function holdingsText({ entries, bytes, limit }: Holdings): string {
  return `${answersText(entries)}, ${formatBytes(bytes)} of ${formatBytes(limit)}`;
}

function listText(answers: readonly StoredAnswer[], more: boolean): string {
  if (answers.length === 0) return 'Nothing is stored.\n';
  const lines = answers.map(one => {
    const fresh = one.freshFor > 0 ? `fresh ${spanText(one.freshFor)}` : `stale ${spanText(-one.freshFor)}`;
    const marks = [one.tier, one.pinned ? 'pinned' : '', one.parts === undefined ? '' : 'in parts'].filter(Boolean);
    return `${one.status} ${formatBytes(one.bytes).padStart(8)}  ${style('dim', fresh.padEnd(12))} ${shown(one.url)} ${style('dim', `(${marks.join(', ')})`)}\n`;
  });
  return `${lines.join('')}${more ? style('dim', 'There is more: name a site or the beginning of a URL, or give --limit.\n') : ''}`;
}

function showText(answers: readonly StoredAnswer[]): string {
  if (answers.length === 0) return `${NOT_STORED}\n`;
  return answers
    .map(one => {
      const freshness =
        one.freshFor > 0 ? `fresh for another ${spanText(one.freshFor)}` : `stale since ${spanText(-one.freshFor)}`;
      const lines = [
        `${one.status}, ${formatBytes(one.bytes)}${one.parts === undefined ? '' : `, of which bytes ${one.parts}`}, ${one.tier === 'disk' ? 'on disk' : 'in memory'}${one.pinned ? ', pinned' : ''}`,
        `Stored ${new Date(one.storedAt).toISOString().slice(0, 19).replace('T', ' ')} UTC; age ${spanText(one.age)}, ${freshness}`,
        `By the route ${one.route}, ${one.partition === '' ? 'for requests of no site in particular' : `for pages of ${one.partition}`}`,
        ...one.vary.map(([name, value]) => `Chosen by ${name}: ${value ?? '(absent)'}`),
        one.verdict ?? '',
        ...(one.fields ?? []).map(([name, value]) => `  ${name}: ${value}`),
      ];
      return `${style('bold', shown(one.url))}\n${lines
        .filter(Boolean)
        .map(line => `  ${shown(line)}\n`)
        .join('')}`;
    })
    .join('');
}

/** `none`: the sentence for a count of 0. */
function countText(count: number, done: string, none: string): string {
  return count === 0 ? `${none}\n` : `${answersText(count)} ${done}.\n`;
}

/** Why nothing was forgotten. */
function nothingText(which: Stored): string {
  return 'prefix' in which
    ? 'Nothing is stored whose URL begins so. (The host must be there whole: --site takes all hosts of a site.)'
    : 'url' in which
      ? NOT_STORED
      : 'There was nothing to do.';
}

function answersText(count: number): string {
  return `${count} ${count === 1 ? 'answer' : 'answers'}`;
}

/** A span for people: 45 s, 12 min, 3 h, 5 d. */
function spanText(seconds: Seconds): string {
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7_200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.round(seconds / 3_600)} h`;
  return `${Math.round(seconds / 86_400)} d`;
}
