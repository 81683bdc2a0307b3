// The cache against a model of what it may do: whatever a client asks, and whatever the origin does, says and fails to say, an answer is of the version that
// it says it is, of the present one where the origin was asked, and otherwise no older than the origin allows.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Fault } from '../../../shared/fault.ts';
import { createCache } from '../../../companion/cache/cache.ts';
import { Fields } from '../../../companion/message/headers.ts';
import type { Answer, RequestHead } from '../../../companion/message/message.ts';
import type { Ask, CacheRequest } from '../../../companion/rooms.ts';
import { cacheLimits } from '../../support/cache-limits.ts';

const START = Date.UTC(2026, 10, 24, 9, 0, 0);

const anyTerms = fc.record({
  maxAge: fc.constantFrom(null, 0, 10, 60),
  mustRevalidate: fc.constantFrom(false, false, true),
  noCache: fc.constantFrom(false, false, false, true),
  noStore: fc.constantFrom(false, false, false, false, true),
  revalidate: fc.constantFrom(null, null, 30),
  error: fc.constantFrom(null, null, 30),
  tag: fc.constantFrom('strong', 'weak', 'none'),
  dated: fc.boolean(),
  varies: fc.boolean(),
});
type Terms = typeof anyTerms extends fc.Arbitrary<infer T> ? T : never;

const anyStep = fc.record({
  after: fc.constantFrom(0, 1, 5, 9, 20, 50, 100),
  /** The origin has a new version, on these terms. */
  changes: fc.oneof({ weight: 3, arbitrary: fc.constant(null) }, { weight: 1, arbitrary: anyTerms }),
  kind: fc.constantFrom('a', 'b'),
  method: fc.constantFrom('GET', 'GET', 'GET', 'HEAD', 'POST'),
  control: fc.constantFrom(
    '',
    '',
    '',
    '',
    'no-cache',
    'max-age=0',
    'max-age=5',
    'max-stale=15',
    'min-fresh=5',
    'no-store',
  ),
  /** The versions, back from the present one, whose tags the client names. */
  has: fc.constantFrom<readonly number[]>([], [], [], [0], [1], [0, 1], [2]),
  upstream: fc.constantFrom('answers', 'answers', 'answers', 'answers', 'answers', '503', 'fails'),
});

test('R67, R68, R69, R70, R74, R77: whatever is asked and answered, what comes out is of one version, and not older than it may be', () => {
  const seen = { hits: 0, confirmed: 0, stale: 0, instead: 0 };
  fc.assert(
    fc.property(anyTerms, fc.array(anyStep, { minLength: 5, maxLength: 25 }), (first, steps) => {
      const cache = createCache(cacheLimits({ memory: 1e6, entry: 1e5, heuristic: 0 }));
      const history: Terms[] = [first];
      /** When the origin last said so of a version, by kind. */
      const saidAt = new Map<string, number>();
      let now = START;
      const tagOf = (kind: string, version: number): string | null => {
        const { tag } = history[version]!;
        return tag === 'none' ? null : `${tag === 'weak' ? 'W/' : ''}"${kind}${version}"`;
      };
      const fieldsOf = (kind: string, version: number): Fields => {
        const terms = history[version]!;
        const said: string[] = [];
        if (terms.maxAge !== null) said.push(`max-age=${terms.maxAge}`);
        if (terms.mustRevalidate) said.push('must-revalidate');
        if (terms.noCache) said.push('no-cache');
        if (terms.noStore) said.push('no-store');
        if (terms.revalidate !== null) said.push(`stale-while-revalidate=${terms.revalidate}`);
        if (terms.error !== null) said.push(`stale-if-error=${terms.error}`);
        const fields = Fields.of('Date', new Date(now).toUTCString(), 'X-Version', `${kind}${version}`);
        if (said.length > 0) fields.append('Cache-Control', said.join(', '));
        const tag = tagOf(kind, version);
        if (tag !== null) fields.append('ETag', tag);
        if (terms.dated) fields.append('Last-Modified', new Date(START - 1e9 + version * 1000).toUTCString());
        fields.append('Vary', 'X-Kind');
        return fields;
      };
      const answerTo = (head: RequestHead, kind: string): Answer => {
        const version = history.length - 1;
        const fields = fieldsOf(kind, version);
        const match = head.fields.get('if-none-match');
        const since = head.fields.get('if-modified-since');
        const tag = tagOf(kind, version)?.replace('W/', '');
        const modified = fields.get('last-modified');
        const isSame =
          match !== undefined
            ? tag !== undefined && match.split(', ').some(one => one.replace('W/', '') === tag)
            : since !== undefined && modified !== undefined && Date.parse(modified) <= Date.parse(since);
        const safe = head.method !== 'POST';
        saidAt.set(`${kind}${version}`, now);
        // Each version has its own length, so that a HEAD tells them apart where nothing else does.
        const body = Buffer.from(`${kind}${version}`.padEnd(20 + version));
        if (safe && isSame) {
          return {
            head: { status: 304, reason: '', version: 11, fields, framing: { kind: 'none' }, keepAlive: true },
            body: null,
          };
        }
        const isHead = head.method === 'HEAD';
        if (isHead) fields.append('Content-Length', String(body.length));
        const framing = isHead ? ({ kind: 'none' } as const) : ({ kind: 'length', length: body.length } as const);
        return {
          head: { status: 200, reason: '', version: 11, fields, framing, keepAlive: true },
          body: isHead ? null : body,
        };
      };

      for (const step of steps) {
        now += step.after * 1000;
        if (step.changes !== null) history.push(step.changes);
        const present = history.length - 1;
        const { kind, method } = step;
        const fields = Fields.of('X-Kind', kind);
        if (step.control !== '') fields.append('Cache-Control', step.control);
        const tags = step.has
          .map(back => (present < back ? null : tagOf(kind, present - back)))
          .filter(tag => tag !== null);
        if (tags.length > 0) fields.append('If-None-Match', tags.join(', '));
        const head: RequestHead = {
          method,
          target: { form: 'absolute', scheme: 'http', host: 'a.test', port: 80, path: '/' },
          version: 11,
          fields,
          framing: { kind: 'none' },
          keepAlive: true,
        };
        const decision = { steered: true, route: 'r', filter: 'off', cache: 'standard', inspect: false } as const;
        const request: CacheRequest = {
          head,
          url: 'http://a.test/',
          site: 'a.test',
          route: 'r',
          partition: '',
          behindHops: false,
          decision: { ...decision, because: { rule: 'default' } },
        };
        const found = cache.lookup(request, now);
        if (found.kind === 'follow') throw new Error('a follower');
        let asked = false;
        const ask = (one: Ask): { answer: Answer; status: string } | null => {
          if (step.upstream === 'fails') {
            try {
              return cache.failed(one, new Fault('connection_refused'), now);
            } catch (fault) {
              expect((fault as Fault).kind).toBe('not_validated');
              return null;
            }
          }
          if (step.upstream === '503') {
            const reply: Answer = {
              head: {
                status: 503,
                reason: '',
                version: 11,
                fields: new Fields(),
                framing: { kind: 'length', length: 4 },
                keepAlive: true,
              },
              body: Buffer.from('down'),
            };
            return cache.store(one, reply, { requestedAt: now, respondedAt: now });
          }
          asked = true;
          const kept = cache.store(one, answerTo(one.request, kind), { requestedAt: now, respondedAt: now });
          return kept.again === undefined ? kept : ask(kept.again);
        };
        const kept = found.kind === 'hit' ? found : ask(found);
        if (kept === null || kept.answer.head.status === 503) continue;
        const { answer, status } = kept;
        const is = answer.head.fields.get('x-version')!;
        const version = Number(is.slice(1));
        const terms = history[version]!;
        // It is one, and for this client.
        expect(is[0]).toBe(kind);
        expect(answer.head.fields.get('etag') ?? null).toBe(tagOf(kind, version));
        if (answer.head.status === 304) {
          const named = tags.map(tag => tag.replace('W/', ''));
          expect(named).toContain(tagOf(kind, version)?.replace('W/', ''));
        } else if (answer.body !== null) expect(String(answer.body)).toBe(is.padEnd(20 + version));
        if (asked) {
          // The origin has said what is; nothing else goes out.
          expect(version).toBe(present);
          if (status.includes('fwd-status=304')) seen.confirmed++;
        } else {
          seen.hits++;
          expect(terms.noStore || terms.noCache).toBe(false);
          expect(method).not.toBe('POST');
          const age = (now - saidAt.get(is)!) / 1000;
          const staleFor = age - (terms.maxAge ?? 0);
          expect(['no-cache'].includes(step.control)).toBe(false);
          const isInstead =
            step.upstream !== 'answers' && !/^hit; ttl=-?\d+(; detail=stale-while-revalidate)?$/.test(status);
          if (staleFor < 0) {
            if (!isInstead && step.control === 'max-age=5') expect(age).toBeLessThanOrEqual(5);
            if (!isInstead && step.control === 'min-fresh=5') expect(-staleFor).toBeGreaterThanOrEqual(5);
          } else {
            seen.stale++;
            expect(terms.mustRevalidate).toBe(false);
            const window = Math.max(
              step.control === 'max-stale=15' ? 15 : -1,
              (terms.revalidate ?? 0) - 1,
              isInstead ? (terms.error ?? (step.upstream === 'fails' ? Infinity : -1)) : -1,
            );
            expect(staleFor).toBeLessThanOrEqual(window);
          }
          if (isInstead) seen.instead++;
        }
        // What is asked for behind it.
        if (found.kind === 'hit' && found.refresh !== null) {
          if (step.upstream === 'answers') {
            const again = cache.store(found.refresh, answerTo(found.refresh.request, kind), {
              requestedAt: now,
              respondedAt: now,
            });
            if (again.again !== undefined)
              cache.store(again.again, answerTo(again.again.request, kind), { requestedAt: now, respondedAt: now });
          } else cache.failed(found.refresh, new Fault('connection_refused'), now);
        }
      }
    }),
    { numRuns: 1_500 },
  );
  // Otherwise all of this says nothing.
  expect(Math.min(...Object.values(seen)), JSON.stringify(seen)).toBeGreaterThan(50);
});
