// The memory in front of the DNS, with clocks that stand still until a test moves them. What asks is in dns-client.test.ts and dns-over-https.test.ts.
import { describe, expect, test } from 'vitest';
import {
  LookupFailed,
  makeResolver,
  MAX_ASKING,
  MAX_NAMES,
  type FoundAddresses,
  type ResolverOptions,
} from '../../../companion/chain/resolver.ts';
import { makeSystemAsk } from '../../../companion/chain/system-lookup.ts';
import { startClock } from '../../support/clock.ts';

const NO_NAME = new LookupFailed('dns_error', '192.0.2.53 says: no such name', { definite: true, ttl: 600 });
const DOWN = new LookupFailed('dns_timeout', 'asked: 192.0.2.53');

/** A resolver whose DNS says `answer`, with its clocks. */
function startResolver(options: Partial<ResolverOptions> = {}) {
  const clock = startClock(0);
  const wall = startClock();
  const asked: string[] = [];
  let answer: FoundAddresses | LookupFailed | (() => Promise<FoundAddresses>) = { addresses: ['192.0.2.1'], ttl: 60 };
  const resolver = makeResolver({
    async ask(host) {
      asked.push(host);
      if (typeof answer === 'function') return answer();
      if (answer instanceof LookupFailed) throw answer;
      return answer;
    },
    minTtl: 5,
    maxTtl: 3_600,
    serveStale: 3_600,
    now: clock.now,
    wallClock: wall.now,
    ...options,
  });
  return {
    resolver,
    asked,
    wall,
    lookup: (host = 'a.test') => resolver.lookup(host),
    says: (next: typeof answer) => void (answer = next),
    pass(seconds: number) {
      clock.advance(seconds * 1000);
      wall.advance(seconds * 1000);
    },
  };
}

const failureOf = (promise: Promise<unknown>) =>
  promise.then(
    () => expect.unreachable('it was found'),
    (error: LookupFailed) => error,
  );

describe('what is remembered', () => {
  test('an answer is kept for its TTL and no longer', async () => {
    const { lookup, asked, pass } = startResolver();
    expect(await lookup()).toEqual(['192.0.2.1']);
    pass(59);
    await lookup();
    expect(asked).toHaveLength(1);
    pass(1.1);
    await lookup();
    expect(asked).toHaveLength(2);
  });

  test.each([
    { ttl: 0, kept: 4.9, gone: 5.1 },
    { ttl: 86_400, kept: 3_599, gone: 3_601 },
  ])('a TTL of $ttl is clamped', async ({ ttl, kept, gone }) => {
    const { lookup, asked, pass, says } = startResolver();
    says({ addresses: ['192.0.2.1'], ttl });
    await lookup();
    pass(kept);
    await lookup();
    expect(asked).toHaveLength(1);
    pass(gone - kept);
    await lookup();
    expect(asked).toHaveLength(2);
  });

  test('with maxTtl 0 nothing is kept', async () => {
    const { lookup, asked, pass } = startResolver({ maxTtl: 0, serveStale: 0 });
    await lookup();
    await lookup();
    pass(1);
    await lookup();
    expect(asked).toHaveLength(3);
  });

  test('that there is no such name is believed for 5 seconds, whatever the zone says', async () => {
    const { lookup, asked, pass, says } = startResolver();
    says(NO_NAME);
    expect(await failureOf(lookup())).toBe(NO_NAME);
    pass(4.9);
    await failureOf(lookup());
    expect(asked).toHaveLength(1);
    says({ addresses: ['192.0.2.2'], ttl: 60 });
    pass(0.2);
    expect(await lookup()).toEqual(['192.0.2.2']);
  });

  test('A92: a DNS that is down is asked again after a second', async () => {
    const { lookup, asked, pass, says } = startResolver();
    says(DOWN);
    expect(await failureOf(lookup())).toBe(DOWN);
    await failureOf(lookup());
    expect(asked).toHaveLength(1);
    says({ addresses: ['192.0.2.2'], ttl: 60 });
    pass(1.1);
    expect(await lookup()).toEqual(['192.0.2.2']);
  });

  test('names are bounded; the one asked for longest ago goes first', async () => {
    const { resolver, lookup, asked } = startResolver();
    for (let i = 0; i < MAX_NAMES; i++) await lookup(`${i}.test`);
    await lookup('0.test');
    await lookup('one-more.test');
    expect(resolver.size).toBe(MAX_NAMES);
    asked.length = 0;
    await lookup('0.test');
    expect(asked).toEqual([]);
    await lookup('1.test');
    expect(asked).toEqual(['1.test']);
  });

  test('lookups of one name at the same time are one question', async () => {
    const { lookup, asked } = startResolver();
    await Promise.all(Array.from({ length: 50 }, () => lookup()));
    expect(asked).toEqual(['a.test']);
  });

  test('different names that are asked at once are bounded', async () => {
    const { lookup, says } = startResolver();
    let answer!: (found: FoundAddresses) => void;
    const later = new Promise<FoundAddresses>(resolve => (answer = resolve));
    says(() => later);
    const many = Array.from({ length: MAX_ASKING }, (_, i) => lookup(`${i}.test`));
    expect(await failureOf(lookup('one-more.test'))).toMatchObject({ kind: 'connection_limit_reached' });
    answer({ addresses: ['192.0.2.1'], ttl: 60 });
    await Promise.all(many);
    expect(await lookup('one-more.test')).toEqual(['192.0.2.1']);
  });
});

describe('while the DNS is down', () => {
  test('A92: an old answer is used (RFC 8767), and the new one as soon as there is one', async () => {
    const { lookup, asked, pass, says } = startResolver();
    await lookup();
    says(DOWN);
    pass(120);
    expect(await lookup()).toEqual(['192.0.2.1']);
    expect(asked).toHaveLength(2);
    // It is not asked again at every use.
    await lookup();
    expect(asked).toHaveLength(2);
    says({ addresses: ['192.0.2.2'], ttl: 60 });
    pass(5.1);
    expect(await lookup()).toEqual(['192.0.2.2']);
  });

  test('an old answer is used for a bounded time', async () => {
    const { lookup, pass, says } = startResolver({ serveStale: 600 });
    await lookup();
    says(DOWN);
    pass(660.1);
    expect(await failureOf(lookup())).toBe(DOWN);
  });

  test('an old answer does not outlive a clear no', async () => {
    const { lookup, pass, says } = startResolver();
    await lookup();
    says(NO_NAME);
    pass(61);
    expect(await failureOf(lookup())).toBe(NO_NAME);
  });

  test('whoever would wait long gets the old answer meanwhile', async () => {
    const { lookup, pass, says } = startResolver();
    await lookup();
    says(() => new Promise(() => {}));
    pass(61);
    const began = performance.now();
    expect(await lookup()).toEqual(['192.0.2.1']);
    expect(performance.now() - began).toBeGreaterThan(1_700);
  });
});

describe('forgetting', () => {
  test.each([3_600_000, -3_600_000])('A92: a clock that jumps by %i ms, as after sleep, empties it', async jump => {
    const { resolver, lookup, asked, wall } = startResolver();
    await lookup();
    await lookup('b.test');
    wall.advance(jump);
    await lookup();
    expect(asked).toEqual(['a.test', 'b.test', 'a.test']);
    expect(resolver.size).toBe(1);
  });

  test('A92: another network empties it, within 5 seconds', async () => {
    let network = '192.0.2.7';
    const { lookup, asked, pass } = startResolver({ network: () => network });
    await lookup();
    pass(6);
    await lookup();
    expect(asked).toHaveLength(1);
    network = '198.51.100.7';
    pass(5.1);
    await lookup();
    expect(asked).toHaveLength(2);
  });

  test('an answer to a question from before is given, not kept', async () => {
    const { resolver, lookup, says } = startResolver();
    let answer!: (found: FoundAddresses) => void;
    says(() => new Promise(resolve => (answer = resolve)));
    const early = lookup();
    resolver.clear();
    answer({ addresses: ['192.0.2.9'], ttl: 60 });
    expect(await early).toEqual(['192.0.2.9']);
    expect(resolver.size).toBe(0);
  });
});

describe("this system's resolver", () => {
  const failing = (code: string) => () => Promise.reject(Object.assign(new Error('lookup'), { code }));

  test.each([
    ['ENOTFOUND', 'dns_error', true],
    ['EAI_AGAIN', 'dns_timeout', false],
    ['EAI_FAIL', 'dns_error', false],
    ['EMFILE', 'connection_limit_reached', false],
  ])('%s is a %s', async (code, kind, definite) => {
    expect(await failureOf(makeSystemAsk(1_000, failing(code))('a.test'))).toMatchObject({ kind, definite });
  });

  test('answers without a TTL hold for 30 seconds; none is an error', async () => {
    expect(await makeSystemAsk(1_000, async () => ['192.0.2.1'])('a.test')).toEqual({
      addresses: ['192.0.2.1'],
      ttl: 30,
    });
    expect(await failureOf(makeSystemAsk(1_000, async () => [])('a.test'))).toMatchObject({
      kind: 'dns_error',
      definite: true,
    });
  });

  test('A92: while it hangs, everyone is told in time, and nobody stands in its line afterwards', async () => {
    const hanging: (() => void)[] = [];
    let hangs = true;
    const begun: string[] = [];
    const ask = makeSystemAsk(60, host => {
      begun.push(host);
      return hangs
        ? new Promise((_, reject) =>
            hanging.push(() => reject(Object.assign(new Error('late'), { code: 'EAI_AGAIN' }))),
          )
        : Promise.resolve(['192.0.2.1']);
    });
    const failures = await Promise.all(Array.from({ length: 20 }, (_, i) => failureOf(ask(`${i}.test`))));
    expect(failures.map(one => one.kind)).toEqual(Array(20).fill('dns_timeout'));
    expect(failures[19]!.detail).toBe("asked: this system's resolver");
    hangs = false;
    for (const fail of hanging) fail();
    expect((await ask('after.test')).addresses).toEqual(['192.0.2.1']);
    // The eighteen that gave up never reached it.
    expect(begun).toEqual(['0.test', '1.test', 'after.test']);
  });
});
