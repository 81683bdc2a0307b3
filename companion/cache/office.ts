// What a person may ask of the cache: how much it holds, what, why it would be used or not; and to forget or keep it.
// A worker answers for itself; what all of them answer is put together in cache-desk.ts.
import type { Holdings, Stored, StoredAnswer } from '../../shared/control.ts';
import type { CacheMode } from '../../shared/decision/rule.ts';
import type { Bytes, EpochMilliseconds, Milliseconds, Seconds } from '../../shared/units.ts';
import { type Aging, currentAge } from './policy.ts';
import type { Selection } from './vary.ts';

/** A disk that takes nothing holds up nobody for longer: what was to be forgotten is not used, but a crash could bring it back. */
const TIME_TO_SETTLE: Milliseconds = 5_000;

/** URLs are in the normal form of the walk, sites registrable domains. */
export type CacheQuestion =
  | { readonly ask: 'holdings' }
  | { readonly ask: 'list'; readonly which: Stored; readonly limit: number }
  | { readonly ask: 'show'; readonly url: string }
  | { readonly ask: 'purge'; readonly which: Stored }
  | { readonly ask: 'pin'; readonly which: Stored; readonly pinned: boolean };

export interface CacheAnswers {
  holdings: { readonly memory: Holdings; readonly disk: Holdings | null };
  list: { readonly answers: readonly StoredAnswer[]; readonly more: boolean };
  show: readonly StoredAnswer[];
  /** How many there were. */
  purge: number;
  /** How many were not as they are now. */
  pin: number;
}

export interface CacheOffice {
  /** What was to be changed is so on the disk, too, when it is answered. */
  answer<A extends CacheQuestion['ask']>(
    question: Extract<CacheQuestion, { ask: A }>,
    now: EpochMilliseconds,
  ): Promise<CacheAnswers[A]>;
}

/** A stored answer, as the office sees it. */
export interface Listed extends Aging {
  readonly url: string;
  readonly site: string;
  readonly route: string;
  readonly partition: string;
  readonly selection: Selection | null;
  readonly status: number;
  /** Flat triples: Name, name, value. */
  readonly lines: readonly string[];
  readonly length: Bytes;
  /** What is there of a body that is not complete, `[from, to)`; null = all of it. */
  readonly parts: readonly (readonly [from: Bytes, to: Bytes])[] | null;
  readonly tier: 'memory' | 'disk';
  readonly pinned: boolean;
}

/** What the office needs of the cache. */
export interface Inventory {
  holdings(): CacheAnswers['holdings'];
  get(url: string): readonly Listed[];
  list(which: Stored, limit: number): readonly Listed[];
  /** Forgets; also what is just on its way is not stored then. Gives back how many there were. */
  purge(which: Stored): number;
  /** Keeps, or no longer. Gives back how many are now otherwise. */
  pin(which: Stored, pinned: boolean): number;
  /** Resolves when a crash would no longer undo what was done until now. */
  settled(): Promise<void>;
}

export interface CacheOfficeParts {
  readonly inventory: () => Inventory;
  /** The cache mode by which the URL goes, and what the cache would say (Cache-Status) to a plain request for which the answer was stored. */
  readonly judge: (one: Listed, now: EpochMilliseconds) => { readonly mode: CacheMode; readonly status: string };
}

/** The office of one worker. Answers are what `inventory` has at the moment: a changed file may have furnished another cache. */
export function makeCacheOffice({ inventory, judge }: CacheOfficeParts): CacheOffice {
  const settled = () =>
    Promise.race([inventory().settled(), new Promise(resolve => setTimeout(resolve, TIME_TO_SETTLE).unref())]);
  const answers: { [A in CacheQuestion['ask']]: Answer<A> } = {
    holdings: () => inventory().holdings(),
    list({ which, limit }, now) {
      const found = inventory().list(which, limit + 1);
      return {
        answers: found.slice(0, limit).map(one => tell(one, now)),
        more: found.length > limit,
      };
    },
    show({ url }, now) {
      return inventory()
        .get(url)
        .map(one => {
          const { mode, status } = judge(one, now);
          const told = tell(one, now);
          // A mode may make it last longer than it says itself.
          const ttl = /^hit; ttl=(-?\d+)/.exec(status)?.[1];
          const freshFor = ttl === undefined ? told.freshFor : Number(ttl);
          return { ...told, freshFor, fields: fieldsOf(one), verdict: verdictOf(one, mode, status) };
        });
    },
    async purge({ which }) {
      const count = inventory().purge(which);
      await settled();
      return count;
    },
    async pin({ which, pinned }) {
      const count = inventory().pin(which, pinned);
      await settled();
      return count;
    },
  };
  return {
    answer: async <A extends CacheQuestion['ask']>(
      question: Extract<CacheQuestion, { ask: A }>,
      now: EpochMilliseconds,
    ) => (answers[question.ask] as unknown as Answer<A>)(question, now),
  };
}

type Answer<A extends CacheQuestion['ask']> = (
  question: Extract<CacheQuestion, { ask: A }>,
  now: EpochMilliseconds,
) => CacheAnswers[A] | Promise<CacheAnswers[A]>;

function tell(one: Listed, now: EpochMilliseconds): StoredAnswer {
  const age = currentAge(one, now);
  const { url, site, status, length, parts, tier, pinned, route, partition, selection } = one;
  return {
    url,
    site,
    status,
    bytes: length,
    parts: parts?.map(([from, to]) => `${from}-${to - 1}`).join(','),
    tier,
    storedAt: one.respondedAt,
    age: Math.floor(age / 1000),
    freshFor: freshFor(one, age),
    pinned,
    route,
    partition,
    vary: selection?.names.map((name, i) => [name, selection.values[i] ?? null] as const) ?? [],
  };
}

function freshFor({ lifetime }: Listed, age: number): Seconds {
  return Math.floor(lifetime / 1000) - Math.floor(age / 1000);
}

function fieldsOf({ lines }: Listed): [string, string][] {
  const fields: [string, string][] = [];
  for (let i = 0; i < lines.length; i += 3) fields.push([lines[i]!, lines[i + 2]!]);
  return fields;
}

/** What a plain request would get, in a sentence that ends with what the cache itself would say. */
function verdictOf(one: Listed, mode: CacheMode, status: string): string {
  return `${sayStatus(one, mode, status)} (${status})`;
}

function sayStatus(one: Listed, mode: CacheMode, status: string): string {
  if (mode === 'off') return 'Not used: the cache of this site is off.';
  const has = (lower: string) => one.lines.some((line, i) => i % 3 === 1 && line === lower);
  const anew = has('etag')
    ? 'with its ETag, so that a 304 will do'
    : has('last-modified')
      ? 'with its Last-Modified, so that a 304 will do'
      : 'anew, as it has nothing to compare by';
  if (status.startsWith('hit; ttl=-')) return `Used though stale, and asked for behind it, ${anew}.`;
  if (status.startsWith('hit')) return 'Used as it is, for it is fresh.';
  if (status.startsWith('fwd=stale')) return `Not used without asking, for it is stale: asked for ${anew}.`;
  if (status.startsWith('fwd=partial') || one.parts !== null)
    return 'Used for what is there of it; the rest is asked for.';
  return `Not used: asked for ${anew}.`;
}
