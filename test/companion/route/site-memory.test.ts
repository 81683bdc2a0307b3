// What auto routes learn of sites and forget again, on a clock of the test's.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  AWAY_FOR,
  AWAY_SITES,
  CONFIRMED_AT_MOST,
  CONFIRMED_FOR,
  HEAD_START,
  LOST_APART,
  LOST_IN_A_ROW,
  makeSiteMemory,
  SEPARATE_AFTER,
  type SiteMemory,
  type SiteNews,
  SUSPECTED_FOR,
} from '../../../companion/route/site-memory.ts';
import { type KnownSite, MAX_KNOWN_SITES } from '../../../shared/known-site.ts';
import { startClock } from '../../support/clock.ts';

function start(saved: readonly KnownSite[] = []) {
  const clock = startClock();
  const told: SiteNews[] = [];
  const memory = makeSiteMemory({ now: clock.now, saved, changed: news => told.push(news) });
  /** Two signs, as two pages some minutes apart show them. */
  const confirm = (site: string) => {
    memory.blocked(site, 'reset');
    clock.advance(SUSPECTED_FOR);
    memory.blocked(site, 'reset');
  };
  return { clock, memory, told, confirm };
}

describe('a sign of blocking', () => {
  test('makes the chains lead for minutes; then the own connection is tried again', () => {
    const { clock, memory } = start();
    expect(memory.way('a.test')).toBeNull();
    memory.blocked('a.test', 'reset');
    expect(memory.way('a.test')).toBe('chains');
    expect(memory.way('b.test')).toBeNull();
    clock.advance(SUSPECTED_FOR);
    expect(memory.way('a.test')).toBeNull();
    expect(memory.list()).toMatchObject([
      { site: 'a.test', way: 'chains', by: 'signs', sign: 'reset', confirmed: false },
    ]);
  });

  test('of the same page, seconds later, is the same sign', () => {
    const { clock, memory } = start();
    memory.blocked('a.test', 'reset');
    clock.advance(SEPARATE_AFTER - 1);
    memory.blocked('a.test', 'timeout');
    expect(memory.list()).toMatchObject([{ confirmed: false, sign: 'reset' }]);
  });

  test('a second one in another request is believed for hours, and each time it shows again for longer', () => {
    const { clock, memory, confirm } = start();
    confirm('a.test');
    const lifetimes: number[] = [];
    for (let i = 0; i < 12; i++) {
      const [known] = memory.list();
      expect(known).toMatchObject({ confirmed: true });
      lifetimes.push(known!.until! - clock.now());
      clock.advance(lifetimes.at(-1)! - 1);
      expect(memory.way('a.test')).toBe('chains');
      clock.advance(1);
      expect(memory.way('a.test')).toBeNull();
      memory.blocked('a.test', 'timeout');
    }
    expect(lifetimes.slice(0, 3)).toEqual([CONFIRMED_FOR, 2 * CONFIRMED_FOR, 4 * CONFIRMED_FOR]);
    expect(lifetimes.at(-1)).toBe(CONFIRMED_AT_MOST);
  });

  test('a suspicion whose second sign never comes is forgotten', () => {
    const { clock, memory } = start();
    memory.blocked('a.test', 'reset');
    clock.advance(24 * 60 * 60_000);
    expect(memory.list()).toEqual([]);
  });
});

test('what was found out by a clock that was ahead is not believed for years', () => {
  const { clock, memory, confirm } = start();
  const right = clock.now();
  clock.advance(365 * 24 * 60 * 60_000);
  confirm('a.test');
  memory.set('b.test', 'chains');
  clock.jumpTo(right);
  expect(memory.list().map(({ site }) => site)).toEqual(['b.test']);
});

describe('un-learning', () => {
  test('one request at a time tries the own connection again; twice well is enough', () => {
    const { clock, memory, confirm } = start();
    confirm('a.test');
    clock.advance(CONFIRMED_FOR);
    memory.trying('a.test');
    expect(memory.way('a.test')).toBe('chains');
    memory.worked('a.test');
    expect(memory.way('a.test')).toBeNull();
    expect(memory.list()).toHaveLength(1);
    memory.trying('a.test');
    memory.worked('a.test');
    expect(memory.list()).toEqual([]);
    expect(memory.way('a.test')).toBeNull();
  });

  test('a site that works once and then shows a sign is believed blocked on', () => {
    const { clock, memory, confirm } = start();
    confirm('a.test');
    clock.advance(CONFIRMED_FOR);
    memory.worked('a.test');
    clock.advance(SEPARATE_AFTER);
    memory.blocked('a.test', 'reset');
    expect(memory.list()).toMatchObject([{ confirmed: true, worked: 0, strikes: 2 }]);
    expect(memory.way('a.test')).toBe('chains');
  });

  test('a suspicion goes at the first success', () => {
    const { memory } = start();
    memory.blocked('a.test', 'reset');
    memory.worked('a.test');
    expect(memory.list()).toEqual([]);
  });
});

describe('the network, and not the sites', () => {
  const sites = Array.from({ length: AWAY_SITES }, (_, i) => `${i}.test`);

  test('many sites at once teach nothing, and what they seemed to say is taken back', () => {
    const { memory, told } = start();
    for (const site of sites) memory.blocked(site, 'portal');
    expect(memory.list()).toEqual([]);
    expect(told.slice(-2).map(({ known }) => known)).toEqual([null, null]);
    expect(memory.way('other.test')).toBe('chains');
  });

  test('the own connection is tried by one request now and then, and its success ends it', () => {
    const { clock, memory } = start();
    for (const site of sites) memory.blocked(site, 'timeout');
    clock.advance(AWAY_FOR);
    expect(memory.way('a.test')).toBeNull();
    memory.trying('a.test');
    expect(memory.way('a.test')).toBe('chains');
    memory.blocked('a.test', 'timeout');
    expect(memory.way('b.test')).toBe('chains');
    clock.advance(AWAY_FOR);
    memory.ownWorks('b.test');
    expect(memory.way('a.test')).toBeNull();
    expect(memory.list()).toEqual([]);
  });

  test('what was known before stays known', () => {
    const { clock, memory, confirm } = start();
    confirm('a.test');
    memory.ownWorks('b.test');
    clock.advance(CONFIRMED_FOR);
    for (const site of ['a.test', ...sites]) memory.blocked(site, 'timeout');
    expect(memory.list()).toMatchObject([{ site: 'a.test', strikes: 1 }]);
  });

  test('a site that works in between means that the others are blocked indeed', () => {
    const { memory } = start();
    for (const site of sites) {
      memory.blocked(site, 'reset');
      memory.worked('works.test');
    }
    expect(memory.list()).toHaveLength(AWAY_SITES);
  });

  test('a portal alone confirms nothing, until something else has worked meanwhile', () => {
    const { clock, memory } = start();
    for (let i = 0; i < 3; i++) {
      memory.blocked('a.test', 'portal');
      clock.advance(SUSPECTED_FOR);
    }
    expect(memory.list()).toMatchObject([{ confirmed: false }]);
    memory.worked('b.test');
    memory.blocked('a.test', 'portal');
    expect(memory.list()).toMatchObject([{ confirmed: true }]);
  });
});

describe('a race', () => {
  test('is run where it is a question which way to take', () => {
    const { clock, memory } = start();
    expect(memory.headStart('a.test')).toBe(HEAD_START);
    memory.worked('a.test');
    expect(memory.headStart('a.test')).toBeNull();
    memory.blocked('a.test', 'reset');
    expect(memory.headStart('a.test')).toBeNull();
    clock.advance(SUSPECTED_FOR);
    expect(memory.headStart('a.test')).toBe(HEAD_START);
  });
});

describe('a lost race', () => {
  test('may be a slow site; three in a row, of different pages, are a sign', () => {
    const { clock, memory } = start();
    for (let i = 1; i < LOST_IN_A_ROW; i++) {
      memory.slower('a.test');
      memory.slower('a.test');
      clock.advance(LOST_APART);
    }
    expect(memory.list()).toEqual([]);
    memory.slower('a.test');
    expect(memory.list()).toMatchObject([{ site: 'a.test', sign: 'timeout', confirmed: false }]);
  });

  test('is forgotten when the own connection wins one', () => {
    const { clock, memory } = start();
    for (let i = 0; i < 2 * LOST_IN_A_ROW; i++) {
      memory.slower('a.test');
      clock.advance(LOST_APART);
      if (i % 2 === 1) memory.worked('a.test');
    }
    expect(memory.list()).toEqual([]);
  });
});

describe('a person', () => {
  test('has the last word, until then or for good', () => {
    const { clock, memory } = start();
    memory.set('a.test', 'direct');
    memory.set('b.test', 'chains', clock.now() + 1_000);
    memory.blocked('a.test', 'reset');
    memory.worked('b.test');
    expect([memory.way('a.test'), memory.way('b.test')]).toEqual(['direct', 'chains']);
    expect(memory.list().map(({ site, by }) => `${site} ${by}`)).toEqual(['a.test person', 'b.test person']);
    clock.advance(1_000);
    expect(memory.way('b.test')).toBeNull();
    expect(memory.list()).toHaveLength(1);
    expect(memory.forget('a.test')).toBe(true);
    expect(memory.forget('a.test')).toBe(false);
    expect(memory.way('a.test')).toBeNull();
  });

  test('may not set more than half of what can be known', () => {
    const { memory } = start();
    for (let i = 0; i < MAX_KNOWN_SITES / 2; i++) memory.set(`${i}.test`, 'chains');
    expect(() => memory.set('more.test', 'chains')).toThrow('forget one first');
    memory.set('0.test', 'direct');
    expect(memory.way('0.test')).toBe('direct');
  });
});

test('what is known outlives the run, and other workers hear of it', () => {
  const first = start();
  first.confirm('a.test');
  first.memory.set('b.test', 'direct');
  const second = start(first.memory.list());
  second.clock.jumpTo(first.clock.now());
  expect(second.memory.list()).toEqual(first.memory.list());
  const third = start();
  for (const news of first.told) third.memory.hear(news);
  third.clock.jumpTo(first.clock.now());
  expect(third.memory.list()).toEqual(first.memory.list());
  expect(third.told).toEqual([]);
});

test('it is bounded: the oldest goes, but not what a person has set', () => {
  const { clock, memory } = start();
  memory.set('mine.test', 'chains');
  for (let i = 0; i < MAX_KNOWN_SITES + 5; i++) {
    memory.blocked(`${i}.test`, 'reset');
    memory.worked('works.test');
    clock.advance(1);
  }
  const known = memory.list().map(({ site }) => site);
  expect(known).toHaveLength(MAX_KNOWN_SITES);
  expect(known).toContain('mine.test');
  expect(known).not.toContain('0.test');
});

test('property: whatever happens, the own connection gets another chance when time has passed', () => {
  type Step = (memory: SiteMemory, site: string) => void;
  const steps: Step[] = [
    (memory, site) => memory.blocked(site, 'reset'),
    (memory, site) => memory.blocked(site, 'portal'),
    (memory, site) => memory.worked(site),
    (memory, site) => memory.ownWorks(site),
    (memory, site) => memory.trying(site),
    (memory, site) => void memory.forget(site),
    (memory, site) => void memory.way(site),
  ];
  const sites = ['a.test', 'b.test', 'c.test', 'd.test', 'e.test'];
  fc.assert(
    fc.property(
      fc.array(
        fc.record({ step: fc.constantFrom(...steps), site: fc.constantFrom(...sites), wait: fc.nat(8 * 3_600_000) }),
        {
          maxLength: 60,
        },
      ),
      happening => {
        const { clock, memory } = start();
        for (const { step, site, wait } of happening) {
          step(memory, site);
          clock.advance(wait);
        }
        clock.advance(CONFIRMED_AT_MOST);
        for (const site of sites) expect(memory.way(site)).toBeNull();
      },
    ),
  );
});
