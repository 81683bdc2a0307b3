// The bench as a page to look at: a panel for every row, a bar for every proxy, all in relation to the best peer, and a line where ours has to be.
import { type Competitor, type Row, round3, verdictText } from './report.ts';

const WIDTH = 400;
const LABEL = 92;
const BAR = 15;
const GAP = 5;
/** Bars longer than so many times the best peer's are cut. */
const LONGEST = 3.2;

/** A whole page, with nothing from elsewhere. */
export function plotPage(rows: readonly Row[], competitors: readonly Competitor[], about: string): string {
  const counts = new Map<string, number>();
  for (const { outcome } of rows.flatMap(row => row.verdicts)) counts.set(outcome, (counts.get(outcome) ?? 0) + 1);
  const said = [
    `${counts.get('met') ?? 0} met`,
    `${counts.get('tie') ?? 0} just short (within 15 %)`,
    `${counts.get('missed') ?? 0} missed`,
    ...(counts.has('unknown') ? [`${counts.get('unknown')} not measured`] : []),
  ];
  return `<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Detour beside others</title>
<style>
:root { color-scheme: light dark; --ink: light-dark(#1d2327, #e4e8ea); --soft: light-dark(#5d6970, #9aa6ad); --paper: light-dark(#fff, #15191c);
  --line: light-dark(#dde2e5, #2c3338); --ours: light-dark(#0b7a75, #38b2ac); --peer: light-dark(#a9b4ba, #55626a); --floor: light-dark(#e3e7e9, #30383d);
  --aim: light-dark(#c2410c, #fb923c) }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 2rem auto; max-width: 84rem; padding: 0 1rem }
h1 { font-size: 1.4rem; margin: 0 } p { color: var(--soft); margin: .3rem 0 1.5rem; max-width: 60rem }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(24rem, 1fr)); gap: 1.6rem 2rem }
h2 { font-size: .95rem; margin: 0 } small { color: var(--soft); display: block; min-height: 1.3em; font-size: .8rem }
small b { font-weight: 600 } .met { color: var(--ours) } .missed { color: var(--aim) }
svg { width: 100%; height: auto; display: block; margin-top: .3rem } text { font: 11px system-ui, sans-serif; fill: var(--ink); stroke: var(--paper); stroke-width: 3; paint-order: stroke }
.soft { fill: var(--soft) } .ours { fill: var(--ours) } .peer { fill: var(--peer) } .reference, .floor { fill: var(--floor) }
.aim { stroke: var(--aim); stroke-width: 1.5; stroke-dasharray: 3 2 } .one { stroke: var(--line) } .spread { stroke: var(--ink); stroke-width: 1 }
</style>
<h1>Detour beside others</h1>
<p>${said.join(', ')}. The thin line is whom Detour is compared with, mostly the best true peer of the row; the dashed line is where Detour has to be.
Pale bars: a reference and what Node itself costs. The thin stroke on Detour's bar runs from its least to its most over the rounds. ${escape(about)}</p>
<main>
${rows.map(row => panel(row, competitors)).join('\n')}
</main></html>
`;
}

function panel(row: Row, competitors: readonly Competitor[]): string {
  const present = competitors.filter(one => row.medians.has(one.name) || row.broken.has(one.name));
  const one = row.verdicts.find(verdict => verdict.with !== null)?.with ?? row.best ?? 'detour';
  const unit = row.medians.get(one);
  const base = unit === undefined || unit <= 0 ? 1 : unit;
  const step = (WIDTH - LABEL - 70) / LONGEST;
  const x = (value: number) => LABEL + Math.max(0, Math.min(value / base, LONGEST)) * step;
  const height = present.length * (BAR + GAP) + GAP;
  const bars: string[] = [];
  const texts: string[] = [];
  for (const [i, { name, kind }] of present.entries()) {
    const y = GAP + i * (BAR + GAP);
    const middle = y + BAR - 4;
    const ours = kind === 'detour';
    texts.push(
      `<text x="${LABEL - 6}" y="${middle}" text-anchor="end"${ours ? ' font-weight="600"' : ' class="soft"'}>${escape(name)}</text>`,
    );
    const value = row.medians.get(name);
    if (row.broken.has(name) || value === undefined) {
      texts.push(`<text x="${LABEL + 4}" y="${middle}" class="soft">broken</text>`);
      continue;
    }
    const width = Math.max(1, x(value) - LABEL).toFixed(1);
    bars.push(`<rect class="${ours ? 'ours' : kind}" x="${LABEL}" y="${y}" width="${width}" height="${BAR}" rx="2"/>`);
    const values = row.rounds.get(name)!;
    if (ours && values.length > 1) {
      const [least, most] = [x(Math.min(...values)), x(Math.max(...values))];
      bars.push(`<path class="spread" d="M${least.toFixed(1)} ${y + BAR / 2}H${most.toFixed(1)}"/>`);
    }
    const cut = value / base > LONGEST ? ' »' : '';
    texts.push(`<text x="${(x(value) + 5).toFixed(1)}" y="${middle}">${round3(value)}${cut}</text>`);
  }
  const aims = row.verdicts.flatMap(({ target, with: other }) => {
    const theirs = other === null ? undefined : row.medians.get(other);
    return theirs === undefined || theirs <= 0
      ? []
      : [`<path class="aim" d="M${x(target.ratio * theirs).toFixed(1)} 0V${height}"/>`];
  });
  const verdicts = row.verdicts.map(
    verdict =>
      `<b class="${verdict.outcome}" title="${escape(verdict.target.words)}">${escape(verdictText(verdict, row.better))}</b>`,
  );
  return `<section><h2>${escape(row.label)}</h2><small>${escape(row.unit)}, ${row.better === 'more' ? 'longer is better' : 'shorter is better'}</small><small>${verdicts.join(', ')}</small>
<svg viewBox="0 0 ${WIDTH} ${height}" role="img" aria-label="${escape(row.label)}"><path class="one" d="M${x(base).toFixed(1)} 0V${height}"/>${bars.join('')}${aims.join('')}${texts.join('')}</svg></section>`;
}

function escape(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');
}
