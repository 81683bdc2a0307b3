// http-cache-semantics as a second opinion: the same answer, the same two requests and the same clock go to both, and where they do not agree on
// whether the second request may have the answer, one of the differences below must be there. docs/cache.md tells who is right and why.
import fc from 'fast-check';
// @ts-expect-error: it comes without types; see Oracle below.
import CachePolicy from 'http-cache-semantics';
import { describe, expect, test } from 'vitest';
import { createCache } from '../../../companion/cache/cache.ts';
import { Fields } from '../../../companion/message/headers.ts';
import type { CacheRequest } from '../../../companion/rooms.ts';
import { cacheLimits } from '../../support/cache-limits.ts';
import { steered } from '../../support/steered.ts';

/** What is used of it. */
interface Oracle {
  now(): number;
  storable(): boolean;
  evaluateRequest(request: object): { response?: object; revalidation?: { synchronous: boolean } };
  age(): number;
}

type Pairs = readonly (readonly [string, string])[];

interface Case {
  readonly status: number;
  /** Directives of the answer. */
  readonly control: readonly string[];
  readonly fields: Pairs;
  /** Seconds that the clock of the answer's Date is behind. */
  readonly dateBehind: number;
  /** Seconds that the answer took. */
  readonly took: number;
  readonly first: Pairs;
  readonly second: Pairs;
  readonly method: 'GET' | 'HEAD';
  /** Seconds until the second request. */
  readonly later: number;
}

type Verdict = 'hit' | 'behind' | 'ask';

const NOW = Date.UTC(2026, 10, 24, 9, 0, 0);
const URL_ASKED = 'http://a.test/x';
const LIMITS = cacheLimits({ memory: 1024 * 1024, entry: 64 * 1024 });
const httpDate = (at: number) => new Date(at).toUTCString();

function requestOf(fields: Pairs, method = 'GET'): CacheRequest {
  return {
    head: {
      method,
      target: { form: 'absolute', scheme: 'http', host: 'a.test', port: 80, path: '/x' },
      version: 11,
      fields: Fields.of(...fields.flat()),
      framing: { kind: 'none' },
      keepAlive: true,
    },
    url: URL_ASKED,
    site: 'a.test',
    route: 'companion',
    partition: '',
    behindHops: false,
    decision: steered(),
  };
}

function answerFields(one: Case): Pairs {
  const control = one.control.length === 0 ? [] : [['Cache-Control', one.control.join(', ')] as const];
  return [...control, ['Date', httpDate(NOW - one.dateBehind * 1000)] as const, ...one.fields];
}

const joined = (pairs: Pairs): Record<string, string> => {
  const record: Record<string, string> = {};
  for (const [name, value] of pairs) {
    const lower = name.toLowerCase();
    record[lower] = lower in record ? `${record[lower]}, ${value}` : value;
  }
  return record;
};

function ours(one: Case): { verdict: Verdict; age: number } {
  const cache = createCache(LIMITS);
  const ask = cache.lookup(requestOf(one.first), NOW - one.took * 1000);
  if (ask.kind !== 'ask') throw new Error('an empty cache had something');
  const body = Buffer.from('body');
  const { answer } = cache.store(
    ask,
    {
      head: {
        status: one.status,
        reason: 'X',
        version: 11,
        fields: Fields.of(...answerFields(one).flat()),
        framing: { kind: 'length', length: body.length },
        keepAlive: true,
      },
      body,
    },
    { requestedAt: NOW - one.took * 1000, respondedAt: NOW },
  );
  // A body that is no buffer any more is on its way into the store.
  if (answer.body !== null && !Buffer.isBuffer(answer.body)) {
    answer.body.start({ write: () => true, end: () => {}, fail: () => {} });
  }
  const found = cache.lookup(requestOf(one.second, one.method), NOW + one.later * 1000);
  if (found.kind !== 'hit') return { verdict: 'ask', age: 0 };
  const age = Number(found.answer.head.fields.get('age'));
  return { verdict: found.refresh === null ? 'hit' : 'behind', age };
}

function theirs(one: Case): { verdict: Verdict; age: number } {
  let now = NOW;
  // Its constructor asks the time, before a field could be set.
  class Clocked extends (CachePolicy as new (...rest: unknown[]) => Oracle) {
    override now() {
      return now;
    }
  }
  const request = (fields: Pairs, method: string) => ({
    url: '/x',
    method,
    headers: { host: 'a.test', ...joined(fields) },
  });
  const policy = new Clocked(request(one.first, 'GET'), { status: one.status, headers: joined(answerFields(one)) });
  if (!policy.storable()) return { verdict: 'ask', age: 0 };
  now = NOW + one.later * 1000;
  const { response, revalidation } = policy.evaluateRequest(request(one.second, one.method));
  const verdict = response === undefined ? 'ask' : revalidation === undefined ? 'hit' : 'behind';
  return { verdict, age: policy.age() };
}

const says = (one: Case, pattern: RegExp) => one.control.some(directive => pattern.test(directive));
const has = (pairs: Pairs, name: string, pattern = /(?:)/) =>
  pairs.some(([field, value]) => field.toLowerCase() === name && pattern.test(value));
const asks = (one: Case, pattern: RegExp) => has(one.second, 'cache-control', pattern);

/** What the two do not agree on: where it can be, and which of them then reuses the answer. */
const DIFFERENCES: Record<string, { readonly reuses: 'we' | 'it'; readonly where: (one: Case) => boolean }> = {
  'a status that it does not know': {
    reuses: 'we',
    where: one => ![200, 203, 204, 300, 301, 302, 303, 307, 308, 404, 405, 410, 414, 501].includes(one.status),
  },
  'must-revalidate while fresh': { reuses: 'we', where: one => says(one, /^must-revalidate$/i) },
  'proxy-revalidate while fresh': { reuses: 'we', where: one => says(one, /^proxy-revalidate$/) },
  'Set-Cookie with explicit freshness': { reuses: 'we', where: one => has(one.fields, 'set-cookie') },
  'must-understand beside no-store': { reuses: 'we', where: one => says(one, /^must-understand$/) },
  'a forbidding word inside an argument': { reuses: 'we', where: one => says(one, /^\w+=".*,/) },
  'white space and case in what Vary names': { reuses: 'we', where: one => has(one.fields, 'vary') },
  'HEAD from a stored GET': { reuses: 'we', where: one => one.method === 'HEAD' },
  'Pragma in an answer': { reuses: 'we', where: one => has(one.fields, 'pragma') },
  'Pragma beside Cache-Control': {
    reuses: 'we',
    where: one => has(one.second, 'pragma') && has(one.second, 'cache-control'),
  },
  'an Age that is no number': { reuses: 'we', where: one => has(one.fields, 'age', /[^\d]/) },
  'directives in capitals that allow': { reuses: 'we', where: one => says(one, /[A-Z]/) },
  'max-stale to the second': { reuses: 'we', where: one => asks(one, /max-stale=\d/) },
  'the age by Date and the time it took': { reuses: 'it', where: one => one.dateBehind > 0 || one.took > 0 },
  'directives in capitals that forbid': { reuses: 'it', where: one => says(one, /[A-Z]/) },
  'a number with something behind it': {
    reuses: 'it',
    where: one => says(one, /=\d+[^\d]/) || asks(one, /=\d+[^\d, ]/) || has(one.fields, 'age', /\d\D/),
  },
  'a negative Age that makes younger': { reuses: 'it', where: one => has(one.fields, 'age', /^-/) },
  'directives that contradict each other': {
    reuses: 'it',
    where: one =>
      [/^max-age=/i, /^s-maxage=/, /^stale-while/].some(name => one.control.filter(one => name.test(one)).length > 1),
  },
  'a semicolon for a comma': { reuses: 'it', where: one => says(one, /;/) },
  'a directive in quotes': { reuses: 'it', where: one => says(one, /^"/) },
  'dates that are none': { reuses: 'it', where: one => has(one.fields, 'expires', /^\d{4}-|UTC$|\+\d/) },
  'max-stale against s-maxage, no-cache and proxy-revalidate': {
    reuses: 'it',
    where: one => asks(one, /max-stale/) && says(one, /^(?:s-maxage|no-cache|proxy-revalidate)/i),
  },
  'max-stale for what was stale on arrival': { reuses: 'it', where: one => asks(one, /max-stale/) },
  'stale-while-revalidate against s-maxage and proxy-revalidate': {
    reuses: 'it',
    where: one => says(one, /^stale-while/) && says(one, /^(?:s-maxage|proxy-revalidate|no-cache)/i),
  },
  'stale-while-revalidate for a client that limits the age': {
    reuses: 'it',
    where: one => says(one, /^stale-while/) && asks(one, /max-age|min-fresh|max-stale/),
  },
  'stale-while-revalidate for what was stale on arrival or has no freshness': {
    reuses: 'it',
    where: one => says(one, /^stale-while/),
  },
  'immutable as a day of freshness': { reuses: 'it', where: one => says(one, /^immutable$/) },
  'a request with credentials': { reuses: 'it', where: one => has(one.second, 'authorization') },
  'max-age=0 in a request, in the same second': { reuses: 'it', where: one => asks(one, /max-age=0/) },
  'the bounds of heuristic freshness': {
    reuses: 'it',
    where: one => has(one.fields, 'last-modified') && !says(one, /^(?:max-age|s-maxage)=/i),
  },
  'a proxy’s error page': { reuses: 'it', where: one => has(one.fields, 'proxy-status', /error/) },
};

/** The differences that explain this disagreement. */
function explained(one: Case, we: Verdict, it: Verdict): string[] {
  const rank = { ask: 0, behind: 1, hit: 2 };
  const more = rank[we] > rank[it] ? 'we' : 'it';
  return Object.entries(DIFFERENCES)
    .filter(([, { reuses, where }]) => reuses === more && where(one))
    .map(([name]) => name);
}

const usual = <T>(usually: T, ...others: T[]) =>
  fc.oneof({ weight: 6, arbitrary: fc.constant(usually) }, { weight: 1, arbitrary: fc.constantFrom(...others) });
const seconds = fc.constantFrom(0, 1, 10, 59, 60, 61, 300, 100_000);
const directive = fc.oneof(
  { weight: 6, arbitrary: seconds.map(n => `max-age=${n}`) },
  { weight: 2, arbitrary: seconds.map(n => `s-maxage=${n}`) },
  { weight: 2, arbitrary: seconds.map(n => `stale-while-revalidate=${n}`) },
  {
    weight: 3,
    arbitrary: fc.constantFrom(
      'public',
      'no-cache',
      'must-revalidate',
      'proxy-revalidate',
      'immutable',
      'private',
      'no-store',
    ),
  },
  {
    weight: 1,
    arbitrary: fc.constantFrom(
      'Max-Age=60',
      'No-Store',
      'PRIVATE',
      'x="a, no-store"',
      'max-age=60s',
      'max-age=60.5',
      'max-age="60"',
      'max-age=60; no-store',
      '"no-store"',
      'must-understand',
      'foo',
      'foo=1',
      'no-transform',
      'stale-if-error=60',
    ),
  },
);
const ofAnswer: fc.Arbitrary<readonly [string, string]> = fc.oneof(
  seconds.map(n => ['Expires', httpDate(NOW + n * 1000)] as const),
  seconds.map(n => ['Last-Modified', httpDate(NOW - n * 1000)] as const),
  fc.constantFrom<readonly [string, string]>(
    ['ETag', '"v1"'],
    ['ETag', 'W/"v1"'],
    ['Expires', '0'],
    ['Expires', '2126-11-24T00:00:00Z'],
    ['Expires', 'Sun, 24 Nov 2126 10:00:00 UTC'],
    ['Age', '0'],
    ['Age', '30'],
    ['Age', '70'],
    ['Age', '70.0'],
    ['Age', '-70'],
    ['Age', 'x'],
    ['Vary', 'X-A'],
    ['Vary', 'X-A, Accept-Language'],
    ['Vary', '*'],
    ['Vary', 'X-A, *'],
    ['Set-Cookie', 'a=1'],
    ['Pragma', 'no-cache'],
    ['Proxy-Status', 'edge; error=dns_error'],
  ),
);
const ofRequest = fc.constantFrom<readonly [string, string]>(
  ['X-A', '1'],
  ['X-A', '1,2'],
  ['X-A', '1, 2'],
  ['Accept-Language', 'de'],
  ['Accept-Language', 'DE'],
  ['Authorization', 'Basic eDp5'],
  ['Cookie', 'a=1'],
  ['X-B', '1'],
);
const demand = fc.constantFrom<readonly [string, string]>(
  ['Cache-Control', 'no-cache'],
  ['Cache-Control', 'max-age=0'],
  ['Cache-Control', 'max-age=30'],
  ['Cache-Control', 'min-fresh=30'],
  ['Cache-Control', 'max-stale'],
  ['Cache-Control', 'max-stale=60'],
  ['Cache-Control', 'max-age=60x'],
  ['Cache-Control', 'foo'],
  ['Cache-Control', 'no-store'],
  ['Pragma', 'no-cache'],
);
const byName = (pair: readonly [string, string]) => pair[0];
const cases: fc.Arbitrary<Case> = fc.record({
  status: usual(200, 203, 204, 299, 301, 302, 307, 400, 403, 404, 410, 500, 501, 503),
  control: fc.array(directive, { maxLength: 4 }),
  fields: fc.uniqueArray(ofAnswer, { maxLength: 3, selector: byName }),
  dateBehind: usual(0, 5, 70),
  took: usual(0, 2, 70),
  first: fc.uniqueArray(ofRequest, { maxLength: 2, selector: byName }),
  second: fc
    .tuple(
      fc.uniqueArray(ofRequest, { maxLength: 2, selector: byName }),
      fc.uniqueArray(demand, { maxLength: 2, selector: byName }),
    )
    .map(([said, wanted]) => [...said, ...wanted]),
  method: usual<'GET' | 'HEAD'>('GET', 'HEAD'),
  later: fc.constantFrom(0, 1, 30, 59, 60, 61, 120, 400),
});

describe('beside http-cache-semantics', () => {
  test('they agree on what may be reused, but for the differences that are known', () => {
    fc.assert(
      fc.property(cases, one => {
        const we = ours(one);
        const it = theirs(one);
        if (we.verdict !== it.verdict) {
          expect(explained(one, we.verdict, it.verdict), `we: ${we.verdict}, it: ${it.verdict}`).not.toEqual([]);
        } else if (we.verdict === 'hit' && !has(one.fields, 'age', /\D/)) {
          // It counts neither Date nor the time that the answer took.
          expect(we.age).toBeGreaterThanOrEqual(Math.floor(it.age));
        }
      }),
      { numRuns: 3_000 },
    );
  });

  test('they agree mostly, and every difference that is known is seen', () => {
    const seen = new Map<string, number>();
    let agreed = 0;
    const sample = fc.sample(cases, { numRuns: 6_000, seed: 9111 });
    for (const one of sample) {
      const we = ours(one).verdict;
      const it = theirs(one).verdict;
      if (we === it) agreed++;
      else for (const name of explained(one, we, it)) seen.set(name, (seen.get(name) ?? 0) + 1);
    }
    expect(agreed / sample.length).toBeGreaterThan(0.7);
    expect(Object.keys(DIFFERENCES).filter(name => !seen.has(name))).toEqual([]);
  });
});
