// From samples to what people read: rows of medians, who is the best peer of each, and whether what was promised is met. Plain values in, text out.
import { TARGETS, type Target, TIE } from './targets.ts';

/** The figures of one load, by name (rate, cpu, p50, …), and what was wrong with it. */
export interface Sample {
  readonly broken: string | null;
  readonly figures: Readonly<Record<string, number>>;
}

/** By measure, then by subject: a sample of every round. `direct` is the subject without a proxy. */
export type Samples = ReadonlyMap<string, ReadonlyMap<string, readonly Sample[]>>;

export interface Competitor {
  readonly name: string;
  readonly kind: 'detour' | 'peer' | 'reference' | 'floor';
}

interface RowShape {
  readonly key: string;
  readonly measure: string;
  readonly label: string;
  readonly unit: string;
  readonly better: 'more' | 'less';
  of(figures: Sample['figures'], direct: Sample['figures'] | undefined): number | undefined;
}

export interface Verdict {
  readonly target: Target;
  /** Whom it was compared with, and ours divided by theirs. Null where it did not run; with a figure or a row of our own there is no other. */
  readonly with: string | null;
  readonly ratio: number | null;
  readonly outcome: 'met' | 'tie' | 'missed' | 'unknown';
}

export interface Row extends Omit<RowShape, 'of'> {
  /** Medians by subject. */
  readonly medians: ReadonlyMap<string, number>;
  /** The same of every round, in order. */
  readonly rounds: ReadonlyMap<string, readonly number[]>;
  /** What went wrong, by subject: such a subject is in no comparison of this row. */
  readonly broken: ReadonlyMap<string, string>;
  readonly best: string | null;
  readonly verdicts: readonly Verdict[];
}

/** Operations a second that its CPU time would give on a core of its own: what it could do, also where the load could not ask for more. */
const capacity = (figures: Sample['figures']) =>
  figures['cpu'] !== undefined && figures['cpu'] > 0 ? 1e6 / figures['cpu'] : undefined;
const figure = (name: string) => (figures: Sample['figures']) => figures[name];
const added: RowShape['of'] = (figures, direct) =>
  figures['p50'] === undefined || direct?.['p50'] === undefined ? undefined : figures['p50'] - direct['p50'];

const more = { better: 'more', of: capacity } as const;
const less = { better: 'less' } as const;
const ROWS: readonly RowShape[] = [
  { key: 'hit-1k', measure: 'hit-1k', label: 'hit, 32 connections', unit: 'requests/CPU s', ...more },
  { key: 'hit-many', measure: 'hit-many', label: 'hit, 1,000 URLs', unit: 'requests/CPU s', ...more },
  { key: 'hit-304', measure: 'hit-304', label: 'hit that is a 304', unit: 'requests/CPU s', ...more },
  { key: 'hit-1m', measure: 'hit-1m', label: 'hit of 1 MiB', unit: 'requests/CPU s', ...more },
  { key: 'miss-1k', measure: 'miss-1k', label: 'miss, 32 connections', unit: 'requests/CPU s', ...more },
  {
    key: 'parent-miss',
    measure: 'parent-miss',
    label: 'miss through one http parent',
    unit: 'requests/CPU s',
    ...more,
  },
  { key: 'parent-bulk', measure: 'parent-bulk', label: 'tunnel down, http parent', unit: 'MB/CPU s', ...more },
  { key: 'parent-setups', measure: 'parent-setups', label: 'set-ups, http parent', unit: 'tunnels/CPU s', ...more },
  { key: 'socks-miss', measure: 'socks-miss', label: 'miss, socks5 parent', unit: 'requests/CPU s', ...more },
  { key: 'socks-bulk', measure: 'socks-bulk', label: 'tunnel down, socks5 parent', unit: 'MB/CPU s', ...more },
  { key: 'socks-setups', measure: 'socks-setups', label: 'set-ups, socks5 parent', unit: 'tunnels/CPU s', ...more },
  {
    key: 'fallback',
    measure: 'fallback',
    label: 'refused request goes on, adds, p50',
    unit: 'ms',
    ...less,
    of: (figures, direct) => ms(added(figures, direct)),
  },
  {
    key: 'fallback-connect',
    measure: 'fallback-connect',
    label: 'refused CONNECT goes on, adds, p50',
    unit: 'ms',
    ...less,
    of: (figures, direct) => ms(added(figures, direct)),
  },
  { key: 'tunnel-down', measure: 'tunnel-down', label: 'tunnel down', unit: 'MB/CPU s', ...more },
  { key: 'tunnel-up', measure: 'tunnel-up', label: 'tunnel up', unit: 'MB/CPU s', ...more },
  { key: 'tunnel-setups', measure: 'tunnel-setups', label: 'tunnel set-ups', unit: 'tunnels/CPU s', ...more },
  { key: 'hit-1000', measure: 'hit-1000', label: 'hit, 1,000 connections', unit: 'requests/CPU s', ...more },
  {
    key: 'hit-1000-p99',
    measure: 'hit-1000',
    label: 'hit, 1,000 connections, p99',
    unit: 'ms',
    ...less,
    of: f => ms(f['p99']),
  },
  { key: 'hit-4000', measure: 'hit-4000', label: 'hit, 4,000 connections', unit: 'requests/CPU s', ...more },
  {
    key: 'hit-4000-p99',
    measure: 'hit-4000',
    label: 'hit, 4,000 connections, p99',
    unit: 'ms',
    ...less,
    of: f => ms(f['p99']),
  },
  {
    key: 'hit-latency',
    measure: 'hit-latency',
    label: 'one connection: hit adds, p50',
    unit: 'µs',
    ...less,
    of: added,
  },
  { key: 'hit-p99', measure: 'hit-latency', label: 'one connection: hit, p99', unit: 'µs', ...less, of: figure('p99') },
  {
    key: 'miss-latency',
    measure: 'miss-latency',
    label: 'one connection: miss adds, p50',
    unit: 'µs',
    ...less,
    of: added,
  },
  {
    key: 'miss-p99',
    measure: 'miss-latency',
    label: 'one connection: miss, p99',
    unit: 'µs',
    ...less,
    of: figure('p99'),
  },
  {
    key: 'tunnel-latency',
    measure: 'tunnel-latency',
    label: 'one tunnel: round trip adds, p50',
    unit: 'µs',
    ...less,
    of: added,
  },
  {
    key: 'tunnel-p99',
    measure: 'tunnel-latency',
    label: 'one tunnel: round trip, p99',
    unit: 'µs',
    ...less,
    of: figure('p99'),
  },
  {
    key: 'connect-latency',
    measure: 'connect-latency',
    label: 'one CONNECT to its first byte adds, p50',
    unit: 'µs',
    ...less,
    of: added,
  },
  {
    key: 'connect-p99',
    measure: 'connect-latency',
    label: 'one CONNECT to its first byte, p99',
    unit: 'µs',
    ...less,
    of: figure('p99'),
  },
  { key: 'idle-tunnel', measure: 'memory', label: 'an idle tunnel', unit: 'KiB', ...less, of: figure('tunnelKiB') },
  {
    key: 'idle-memory',
    measure: 'memory',
    label: 'memory after the first request',
    unit: 'MiB',
    ...less,
    of: figure('idleMiB'),
  },
  {
    key: 'kept-memory',
    measure: 'kept-memory',
    label: '100,000 kept answers of 1 KiB, each',
    unit: 'KiB',
    ...less,
    of: figure('keptKiB'),
  },
  {
    key: 'first-served',
    measure: 'start',
    label: 'start to first served request',
    unit: 'ms',
    ...less,
    of: figure('served'),
  },
];

function ms(microseconds: number | undefined): number | undefined {
  return microseconds === undefined ? undefined : microseconds / 1000;
}

/** The rows that there are samples for. */
export function rowsOf(samples: Samples, competitors: readonly Competitor[]): Row[] {
  const rows: Row[] = [];
  for (const shape of ROWS) {
    if (!samples.has(shape.measure)) continue;
    const bySubject = samples.get(shape.measure)!;
    const direct = bySubject.get('direct');
    const medians = new Map<string, number>();
    const rounds = new Map<string, number[]>();
    const broken = new Map<string, string>();
    for (const { name } of competitors) {
      const mine = bySubject.get(name) ?? [];
      const fault = mine.find(sample => sample.broken !== null)?.broken ?? null;
      if (fault !== null) broken.set(name, fault);
      const values = mine.flatMap((sample, round) => {
        const value = sample.broken === null ? shape.of(sample.figures, direct?.[round]?.figures) : undefined;
        return value === undefined ? [] : [value];
      });
      if (values.length === 0) continue;
      rounds.set(name, values);
      medians.set(name, median(values));
    }
    const candidates = competitors.filter(
      ({ name, kind }) => kind === 'peer' && medians.has(name) && !broken.has(name),
    );
    const sign = shape.better === 'more' ? -1 : 1;
    const best = candidates.sort((a, b) => sign * (medians.get(a.name)! - medians.get(b.name)!))[0]?.name ?? null;
    const { of: _, ...row } = shape;
    const verdicts = TARGETS.filter(target => target.row === shape.key).map(target => {
      if (broken.has('detour')) return verdictOf(target, null, null, shape.better);
      if (target.against === 'figure') return verdictOf(target, null, medians.get('detour') ?? null, shape.better);
      if (target.against === 'own') {
        const own = rows.find(({ key }) => key === target.own);
        const theirs = own === undefined || own.broken.has('detour') ? undefined : own.medians.get('detour');
        return verdictOf(target, null, quotient(medians.get('detour'), theirs), shape.better);
      }
      const other = target.against === 'best' ? best : broken.has(target.against) ? null : target.against;
      return verdictOf(target, other, other === null ? null : ratioOf(medians, 'detour', other), shape.better);
    });
    rows.push({ ...row, medians, rounds, broken, best, verdicts });
  }
  return rows;
}

function verdictOf(target: Target, other: string | null, ratio: number | null, better: Row['better']): Verdict {
  return { target, with: other, ratio, outcome: outcomeOf(ratio, target.ratio, better) };
}

/** `one` divided by `other`; null where either is missing or not above 0 (added latency in the noise). */
export function ratioOf(medians: ReadonlyMap<string, number>, one: string, other: string): number | null {
  return quotient(medians.get(one), medians.get(other));
}

function quotient(a: number | undefined, b: number | undefined): number | null {
  return a === undefined || b === undefined || a <= 0 || b <= 0 ? null : a / b;
}

function outcomeOf(ratio: number | null, wanted: number, better: Row['better']): Verdict['outcome'] {
  if (ratio === null) return 'unknown';
  const share = better === 'more' ? ratio / wanted : wanted / ratio;
  if (share >= 1) return 'met';
  return share > 1 - TIE ? 'tie' : 'missed';
}

export function median(numbers: readonly number[]): number {
  const sorted = [...numbers].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** Three significant digits, in full. */
export function round3(value: number): string {
  return value >= 1000 ? Math.round(value).toLocaleString('en') : String(Number(value.toPrecision(3)));
}

/** What a verdict says in a few words: `≥ 1.4x best: met`. */
export function verdictText({ target, ratio, outcome }: Verdict, better: Row['better']): string {
  const word = outcome === 'tie' ? 'just short' : outcome === 'unknown' ? 'not measured' : outcome;
  const sign = better === 'more' ? '≥' : '≤';
  if (target.against === 'figure') return `${sign} ${round3(target.ratio)}: ${word}`;
  // Where the table has no column for this comparison.
  const hasNone = target.against === 'trafficserver' || target.against === 'own';
  const shown = hasNone && ratio !== null ? ` (${ratio.toFixed(2)})` : '';
  return `${sign} ${target.ratio}x ${target.own ?? target.against}: ${word}${shown}`;
}

/** Each row beside its best peer, squid and the wall; then every figure; then what went wrong. */
export function reportText(rows: readonly Row[], samples: Samples, competitors: readonly Competitor[]): string {
  const parts = [comparison(rows), figures(rows, samples, competitors)];
  const owner = ownerCost(samples);
  if (owner !== null) parts.push(owner);
  const faults = rows.flatMap(row => [...row.broken].map(([name, fault]) => `  ${row.key}, ${name}: ${fault}`));
  if (faults.length > 0) parts.push(`BROKEN, and in no comparison:\n${faults.join('\n')}`);
  return parts.join('\n\n');
}

function comparison(rows: readonly Row[]): string {
  const head = ['', 'unit', 'detour', 'best peer', '', '÷ best', '÷ squid', '÷ wall', '  what it must show'];
  const times = (row: Row, other: string | null) => {
    const ratio = other === null ? null : ratioOf(row.medians, 'detour', other);
    return ratio === null ? '–' : ratio.toFixed(2);
  };
  const cells = rows.map(row => [
    row.label,
    row.unit,
    valueText(row, 'detour'),
    row.best === null ? '–' : valueText(row, row.best),
    row.best ?? '',
    times(row, row.best),
    times(row, 'squid'),
    times(row, 'wall'),
    `  ${row.verdicts.map(verdict => verdictText(verdict, row.better)).join(', ')}`,
  ]);
  return columns([head, ...cells], new Set([0, 1, 4, 8]));
}

function figures(rows: readonly Row[], samples: Samples, competitors: readonly Competitor[]): string {
  const head = ['', ...competitors.map(one => (one.kind === 'reference' ? `(${one.name})` : one.name)), 'direct'];
  const lines: string[][] = [];
  for (const row of rows) {
    lines.push([`${row.label}, ${row.unit}`, ...competitors.map(one => valueText(row, one.name)), '']);
    if (row.key !== row.measure || row.measure === 'memory' || row.measure === 'start') continue;
    const bySubject = samples.get(row.measure)!;
    const more = (label: string, name: string, factor: number) =>
      lines.push([
        `  ${label}`,
        ...[...competitors.map(one => one.name), 'direct'].map(subject => {
          const values = (bySubject.get(subject) ?? []).flatMap(({ figures: f }) =>
            f[name] === undefined ? [] : [f[name]],
          );
          return values.length === 0 ? '' : round3(median(values) * factor);
        }),
      ]);
    if (row.measure.endsWith('-latency') || row.measure.startsWith('fallback')) {
      more('p50 as measured, µs', 'p50', 1);
      continue;
    }
    more('a second, as measured', 'rate', 1);
    more('of its core, %', 'busy', 100);
  }
  return `${columns([head, ...lines], new Set([0]))}\n(…): a reference, no true peer. "–": does not do this. "!": broken, see below.`;
}

/** What `guard.owner` costs, where it was measured. */
function ownerCost(samples: Samples): string | null {
  const lines: string[] = [];
  for (const [measure, bySubject] of samples) {
    const cpu = (name: string) =>
      (bySubject.get(name) ?? []).flatMap(({ figures: f }) => (f['cpu'] === undefined ? [] : [f['cpu']]));
    const [off, on] = [cpu('detour'), cpu('detour+owner')];
    if (off.length === 0 || on.length === 0) continue;
    lines.push(`  ${measure}: ${round3(median(off))} µs of CPU an operation without, ${round3(median(on))} with`);
  }
  return lines.length === 0 ? null : `What guard.owner costs:\n${lines.join('\n')}`;
}

function valueText(row: Row, subject: string): string {
  const value = row.medians.get(subject);
  if (row.broken.has(subject)) return `${value === undefined ? '' : round3(value)}!`;
  return value === undefined ? '–' : round3(value);
}

function columns(lines: readonly (readonly string[])[], left: ReadonlySet<number>): string {
  const widths = lines[0]!.map((_, column) => Math.max(...lines.map(cells => cells[column]!.length)));
  return lines
    .map(cells =>
      cells
        .map((cell, column) => (left.has(column) ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!)))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}
