// Draws a soak as one HTML page with no script: a curve a row, over the seconds of the load.
import type { Look, SoakReport } from './run-soak.ts';

const WIDTH = 1_000;
const HEIGHT = 120;
const LEFT = 80;

const ROWS: readonly [name: string, unit: string, value: (look: Look) => number][] = [
  ['memory (RSS)', 'MiB', look => look.rss / 2 ** 20],
  ['heap after collection', 'MiB', look => look.heapUsed / 2 ** 20],
  ['external (buffers)', 'MiB', look => look.external / 2 ** 20],
  ['open files', '', look => look.files],
  ['connections to the origin', '', look => look.upstream],
  ['answered', 'a second', look => look.answered],
  ['processor', '% of one', look => look.cpu / 10],
];

/** The page. */
export function drawSoak(report: SoakReport): string {
  const looks = report.looks.filter(look => look.at >= 0);
  return `<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Detour: soak</title>
<style>body{font:14px system-ui;margin:2rem;max-width:${WIDTH + LEFT}px}h2{font-size:1rem;margin:1.2rem 0 .2rem}
svg{display:block}polyline{fill:none;stroke:#06c;stroke-width:1.2}line{stroke:#ccc}text{font:11px system-ui;fill:#555}pre{overflow:auto}</style>
<h1>Soak, ${Math.round(looks.at(-1)?.at ?? 0)} seconds</h1>
${ROWS.map(([name, unit, value]) => `<h2>${name}${unit === '' ? '' : `, ${unit}`}</h2>\n${curve(looks, value)}`).join('\n')}
<h2>Summary</h2><pre>${escapeText(report.summary)}</pre></html>
`;
}

function curve(looks: readonly Look[], value: (look: Look) => number): string {
  const values = looks.map(value);
  const top = Math.max(1e-9, ...values) * 1.05;
  const end = Math.max(1, looks.at(-1)?.at ?? 1);
  const points = looks.map((look, i) => {
    const x = LEFT + (look.at / end) * WIDTH;
    const y = HEIGHT - (values[i]! / top) * HEIGHT;
    return `${x.toFixed(1)},${y.toFixed(1)}`;
  });
  const marks = [0, 0.5, 1].map(part => {
    const y = HEIGHT - part * HEIGHT;
    const text = (top * part).toFixed(top < 10 ? 1 : 0);
    return `<line x1="${LEFT}" x2="${LEFT + WIDTH}" y1="${y}" y2="${y}"/><text x="${LEFT - 6}" y="${Math.max(10, y)}" text-anchor="end">${text}</text>`;
  });
  return `<svg width="${LEFT + WIDTH}" height="${HEIGHT + 4}" role="img">${marks.join('')}<polyline points="${points.join(' ')}"/></svg>`;
}

function escapeText(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
}
