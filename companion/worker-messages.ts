// What the companion and its workers say to each other where these are processes of their own. Both are the same version of this program: nothing here is
// validated, and what is sent is what structured clone can carry.
import type { Config } from '../shared/config.ts';
import type { Explanation } from '../shared/control.ts';
import type { Rule, RuleList, RuleSource } from '../shared/decision/rule.ts';
import type { RuleTable } from '../shared/decision/rule-table.ts';
import type { Endpoint } from '../shared/endpoint.ts';
import type { Exchange } from '../shared/exchange.ts';
import type { Milliseconds } from '../shared/units.ts';
import type { CacheAnswers, CacheQuestion } from './cache/office.ts';
import type { InForce, News } from './worker.ts';

/** What is to be in force, as it travels. Of a list that the worker has already, only its place among the lists it was sent before. */
export interface SentConfig {
  readonly revision: number;
  readonly config: Config;
  readonly tls: InForce['tls'];
  readonly hops: InForce['hops'];
  readonly rules: readonly Rule[];
  readonly lists: readonly (Omit<RuleList, 'table'> & { readonly table: RuleTable | number })[];
}

/** How a chain fared is of use only under the file that it was found out by; `revision` null: it holds under any. */
export interface DatedNews {
  readonly revision: number | null;
  readonly news: News;
}

const FOR_ALWAYS: ReadonlySet<News['outcome']> = new Set(['invalidated', 'guessed', 'site', 'stuck', 'pins']);

/**
 * Whether it is of use whatever file is in force: a way to a site, unlike a chain, has its name from no file, a login stays where it is, and a pin without a
 * chain holds nothing.
 */
export function holdsAlways({ outcome }: News): boolean {
  return FOR_ALWAYS.has(outcome);
}

/** Whether it is of use where `revision` is in force. */
export function holdsUnder(dated: DatedNews, revision: number): boolean {
  return dated.revision === null || dated.revision === revision;
}

/** What a worker is asked. */
export type Question = CacheQuestion | { readonly ask: 'explain'; readonly url: string };
/** What it answers. */
export interface Answers extends CacheAnswers {
  /** Null: the question makes no sense, as the companion finds, too. */
  explain: Explanation | null;
}

export type ToWorker =
  | {
      readonly type: 'begin';
      readonly sent: SentConfig;
      readonly at: Endpoint;
      readonly pseudonym: string;
      readonly isolationSecret: string;
      readonly cacheFolder: string;
      readonly remembered: readonly News[];
    }
  | { readonly type: 'put-in-force'; readonly sent: SentConfig }
  | { readonly type: 'news'; readonly all: readonly DatedNews[] }
  | { readonly type: 'ask'; readonly id: number; readonly question: Question }
  | { readonly type: 'close'; readonly drain: Milliseconds };

/** In the order in which it happened. */
export type Happening =
  | { readonly what: 'opened' | 'moved' | 'ended'; readonly exchange: Exchange }
  | ({ readonly what: 'news' } & DatedNews);

export type FromWorker =
  | { readonly type: 'listening' }
  | { readonly type: 'cannot-listen'; readonly message: string; readonly code: string | undefined }
  | { readonly type: 'in-force'; readonly revision: number }
  /** `missed`: exchanges dropped before this batch because the companion did not keep up. */
  | { readonly type: 'happened'; readonly batch: readonly Happening[]; readonly missed: number }
  | { readonly type: 'answer'; readonly id: number; readonly answer: Answers[Question['ask']] }
  | { readonly type: 'warning'; readonly message: string }
  /** Comes with the socket. */
  | { readonly type: 'knock'; readonly read: Uint8Array }
  /** All has been said. */
  | { readonly type: 'closed' };

/** How `next` travels to a worker that has `before`. */
export function pack(
  revision: number,
  { config, source, tls, hops }: Omit<InForce, 'matcher'>,
  before: RuleSource | null,
): SentConfig {
  const lists = source.lists.map(list => {
    const place = before === null ? -1 : before.lists.findIndex(({ table }) => table === list.table);
    return { ...list, table: place < 0 ? list.table : place };
  });
  return { revision, config, tls, hops, rules: source.rules, lists };
}

/** What has travelled, put together again with what was there before. */
export function unpack({ rules, lists }: SentConfig, before: RuleSource | null): RuleSource {
  return {
    rules,
    lists: lists.map(({ table, ...list }) => ({
      ...list,
      table: typeof table === 'number' ? before!.lists[table]!.table : table,
    })),
  };
}
