// What the bench concludes from its samples, and that it shows it.
import { expect, test } from 'vitest';
import { plotPage } from './plot.ts';
import { type Competitor, reportText, type Row, rowsOf, type Sample } from './report.ts';
import { TARGETS } from './targets.ts';

const COMPETITORS: Competitor[] = [
  { name: 'detour', kind: 'detour' },
  { name: 'squid', kind: 'peer' },
  { name: 'trafficserver', kind: 'peer' },
  { name: 'haproxy', kind: 'reference' },
  { name: 'wall', kind: 'floor' },
];
const sample = (figures: Record<string, number>, broken: string | null = null): Sample => ({ broken, figures });
/** Samples of one measure: by subject the CPU time an operation of each round. */
const cpu = (bySubject: Record<string, number[]>) =>
  new Map(Object.entries(bySubject).map(([name, rounds]) => [name, rounds.map(one => sample({ cpu: one }))]));
const rowOf = (rows: readonly Row[], key: string) => rows.find(row => row.key === key)!;

test('every target is about a row that the bench has', () => {
  const hits = ['hit-many', 'hit-304', 'hit-1m', 'kept-memory'];
  const measures = [
    ...hits,
    'hit-1k',
    'miss-1k',
    'parent-miss',
    'tunnel-down',
    'tunnel-up',
    'tunnel-setups',
    'hit-1000',
  ];
  const parents = ['parent-bulk', 'parent-setups', 'socks-miss', 'socks-bulk', 'socks-setups', 'fallback'];
  const more = [
    'fallback-connect',
    'hit-4000',
    'hit-latency',
    'miss-latency',
    'tunnel-latency',
    'connect-latency',
    'memory',
    'start',
  ];
  const samples = new Map([...measures, ...parents, ...more].map(name => [name, new Map<string, Sample[]>()]));
  const keys = rowsOf(samples, COMPETITORS).map(row => row.key);
  expect(keys).toEqual(expect.arrayContaining(TARGETS.map(target => target.row)));
});

test('the best is a true peer by its median, never a reference, a floor or one that was broken', () => {
  const bySubject = cpu({ detour: [50, 40, 45], squid: [90, 100, 110], haproxy: [10], wall: [20] });
  bySubject.set('trafficserver', [sample({ cpu: 30 }), sample({ cpu: 30 }, '7 hits reached the origin')]);
  const row = rowOf(rowsOf(new Map([['miss-1k', bySubject]]), COMPETITORS), 'miss-1k');
  expect(row.best).toBe('squid');
  expect(row.medians.get('detour')).toBeCloseTo(1e6 / 45);
  expect(row.verdicts.map(({ with: other, outcome }) => [other, outcome])).toEqual([
    ['squid', 'met'],
    ['squid', 'tie'],
  ]);
  const text = reportText([row], new Map([['miss-1k', bySubject]]), COMPETITORS);
  expect(text).toMatch(/BROKEN.*\n.*miss-1k, trafficserver: 7 hits reached the origin/);
});

test('less than the promise is just short within 15 %, beyond that missed', () => {
  const outcome = (detour: number) => {
    const samples = new Map([['tunnel-setups', cpu({ detour: [detour], trafficserver: [80] })]]);
    return rowOf(rowsOf(samples, COMPETITORS), 'tunnel-setups').verdicts[0]!.outcome;
  };
  expect([outcome(100), outcome(117), outcome(118)]).toEqual(['met', 'tie', 'missed']);
});

test('a target whose peer did not run is not measured rather than met', () => {
  const row = rowOf(rowsOf(new Map([['miss-1k', cpu({ detour: [1] })]]), COMPETITORS), 'miss-1k');
  expect(row.verdicts.map(one => one.outcome)).toEqual(['unknown', 'unknown']);
});

test('a 304 is told against a 200 of ours, and a kept answer against a figure, whoever else ran', () => {
  const rows = rowsOf(
    new Map([
      ['hit-1k', cpu({ detour: [10] })],
      ['hit-304', cpu({ detour: [11] })],
      ['kept-memory', new Map([['detour', [sample({ keptKiB: 2.5 })]]])],
    ]),
    COMPETITORS,
  );
  expect(rowOf(rows, 'hit-304').verdicts.map(one => one.outcome)).toEqual(['tie']);
  const [, figure] = rowOf(rows, 'kept-memory').verdicts;
  expect(figure).toMatchObject({ target: { against: 'figure' }, outcome: 'met' });
  const [alone] = rowsOf(new Map([['hit-304', cpu({ detour: [11] })]]), COMPETITORS);
  expect(alone!.verdicts.map(one => one.outcome)).toEqual(['unknown']);
});

test('what a proxy adds is told against the direct way of the same round', () => {
  const samples = new Map([
    [
      'hit-latency',
      new Map([
        ['direct', [sample({ p50: 20 }), sample({ p50: 60 }), sample({ p50: 21 })]],
        ['detour', [sample({ p50: 40, p99: 90 }), sample({ p50: 81, p99: 300 }), sample({ p50: 40, p99: 80 })]],
        ['trafficserver', [sample({ p50: 45, p99: 60 }), sample({ p50: 85, p99: 60 }), sample({ p50: 46, p99: 60 })]],
      ]),
    ],
  ]);
  const rows = rowsOf(samples, COMPETITORS);
  expect(rowOf(rows, 'hit-latency').medians.get('detour')).toBe(20);
  expect(rowOf(rows, 'hit-latency').verdicts[0]).toMatchObject({ ratio: 0.8, outcome: 'met' });
  expect(rowOf(rows, 'hit-p99').verdicts[0]).toMatchObject({ ratio: 1.5, outcome: 'missed' });
});

test('what a fallback adds is in milliseconds, less the time of both proxies in the same round', () => {
  const samples = new Map([
    [
      'fallback',
      new Map([
        ['direct', [sample({ p50: 50 }), sample({ p50: 500 })]],
        ['detour', [sample({ p50: 850 }), sample({ p50: 1_500 })]],
      ]),
    ],
  ]);
  const row = rowOf(rowsOf(samples, COMPETITORS), 'fallback');
  expect(row.medians.get('detour')).toBeCloseTo(0.9);
  expect(row.verdicts.map(one => one.outcome)).toEqual(['met']);
});

test('the page has a panel for every row, a bar for all that ran, and nothing from elsewhere', () => {
  const samples = new Map([['miss-1k', cpu({ detour: [30, 40], squid: [90], wall: [20] })]]);
  const page = plotPage(rowsOf(samples, COMPETITORS), COMPETITORS, '<about>');
  expect(page.match(/<section>/g)).toHaveLength(1);
  expect(page.match(/<rect /g)).toHaveLength(3);
  expect(page.match(/class="aim"/g)).toHaveLength(2);
  expect(page).toContain('&lt;about&gt;');
  expect(page).not.toMatch(/https?:|src=|@import/);
});
