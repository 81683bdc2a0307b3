// Makes docs/conformance.md out of the numbers in the tests' names: `npm run conformance` writes it, table.test.ts holds it to the tests.
import { globSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { ATTACKS, CACHE_DUTIES, type Demand, DUTIES } from './demands.ts';

/** A test that says it shows a number. */
export interface Shown {
  readonly name: string;
  /** From the root. */
  readonly file: string;
  /** It stands there, and does not run. */
  readonly asleep: boolean;
}

const ROOT = path.resolve(import.meta.dirname, '../..');
export const DOCUMENT = path.join(ROOT, 'docs/conformance.md');

const NUMBERS = String.raw`[AR]\d+(?:[–-][AR]?\d+)?`;
const LIST = String.raw`${NUMBERS}(?:(?:, | and )${NUMBERS})*`;
/** `A1, R37: …` or `… (A1, R37) …`. */
const IN_NAME = new RegExp(String.raw`^(${LIST}): |\((${LIST})\)`, 'g');
const LITERAL = /(['"`])((?:\\.|(?!\1)[^\\])*)\1/g;

/** Every test of the repository by the numbers in its name. A name that a table of cases fills in stands as it is written. */
export function shownByTests(): Map<string, Shown[]> {
  const shown = new Map<string, Shown[]>();
  // What both browsers are told stands beside their tests.
  for (const file of globSync(['test/**/*.test.{ts,tsx}', 'test/journeys/*.ts'], { cwd: ROOT }).sort()) {
    // The table's own test speaks of numbers, and shows none.
    if (file.endsWith('table.test.ts')) continue;
    for (const line of readFileSync(path.join(ROOT, file), 'utf8').split('\n')) {
      if (/^\s*(?:\/\/|\*|\/\*)/.test(line)) continue;
      for (const [, , written] of line.matchAll(LITERAL)) {
        const name = written!.replace(/\\(.)/g, '$1');
        const asleep = /\.(?:skip|todo|fails)\b/.test(line);
        for (const found of name.matchAll(IN_NAME)) {
          for (const number of numbersIn(found[1] ?? found[2]!)) add(shown, number, { name, file, asleep });
        }
      }
    }
  }
  // The vectors of the cache are tests too: their runner takes the names from there.
  for (const file of globSync('test/vectors/cache/*.json', { cwd: ROOT }).sort()) {
    const vectors = JSON.parse(readFileSync(path.join(ROOT, file), 'utf8')) as { says: string; numbers?: string[] }[];
    for (const { says, numbers = [] } of vectors) {
      for (const number of numbers) add(shown, number, { name: says, file, asleep: false });
    }
  }
  return shown;
}

function add(shown: Map<string, Shown[]>, number: string, one: Shown): void {
  const all = shown.get(number) ?? [];
  if (!all.some(({ name, file }) => name === one.name && file === one.file)) all.push(one);
  shown.set(number, all);
}

/** `A1, A3–A5` one by one. */
function numbersIn(list: string): string[] {
  return list.split(/, | and /).flatMap(part => {
    const [, letter, from, to] = /^([AR])(\d+)(?:[–-][AR]?(\d+))?$/.exec(part)!;
    const first = Number(from);
    return Array.from({ length: Number(to ?? from) - first + 1 }, (_, i) => `${letter}${first + i}`);
  });
}

/** What is wrong with a number: neither test nor reason, or tests that only sleep. */
export function openNumbers(shown = shownByTests()): string[] {
  return [...ATTACKS, ...DUTIES, ...CACHE_DUTIES].filter(one => resultOf(one, shown) === 'open').map(one => one.number);
}

function resultOf({ number, reason, inPart }: Demand, shown: Map<string, Shown[]>): string {
  if (reason !== undefined && inPart === undefined) return 'does not apply';
  const awake = (shown.get(number) ?? []).some(one => !one.asleep);
  return !awake ? 'open' : inPart ? 'held, in part' : 'held';
}

function rowOf(demand: Demand, shown: Map<string, Shown[]>): string {
  const tests = shown.get(demand.number) ?? [];
  const byFile = new Map<string, string[]>();
  for (const { name, file } of tests) byFile.set(file, [...(byFile.get(file) ?? []), name]);
  const cells = [...byFile].map(
    ([file, names]) => `${names.map(cell).join(' · ')} ([${path.basename(file)}](../${file}))`,
  );
  if (demand.reason !== undefined) cells.push(cell(demand.reason));
  return `| ${demand.number} | ${cell(demand.demands)} | ${cells.join('<br>')} | ${resultOf(demand, shown)} |`;
}

const cell = (text: string) => text.replace(/[|<>*_`\\[\]]/g, '\\$&').replaceAll('\n', ' ');

/** The whole document. */
export function conformanceDocument(shown = shownByTests()): string {
  const table = (demands: readonly Demand[]) =>
    ['| | demands | shown by | |', '| --- | --- | --- | --- |', ...demands.map(one => rowOf(one, shown))].join('\n');
  return `# Conformance

What Detour withstands (A) and what it owes as a proxy (R), number by number, with the tests that show it. All of them are part of \`npm test\`, over real
sockets, and it fails where one of them does. This file is made from the tests' names: \`npm run conformance\` writes it anew, and a test fails
when it does not say what the tests say. A name with \`%s\` stands for a table of cases.

Held: the tests pass. Where a number does not apply, or not whole, its row says why.

## Where Detour is stricter, and where it repairs

- What llhttp's strict mode refuses is refused, with the exceptions that [parser.md](parser.md) lists beside everything in which Detour is stricter.
  One thing a *response* may get wrong is put right, as RFC 9112 asks: white space before a colon is removed (§5.1).
- A folded line in a response is refused, not unfolded (§5.2 leaves the choice).
- Content-Length beside Transfer-Encoding is refused in both directions, not repaired (§6.3 leaves the choice).
- User information in a URL is refused, not removed. A host loses its trailing dot; path and query stay as they came.
- A client that closes its side behind a whole request is answered, within \`limits.halfClosedTimeout\`; behind half a request it is gone.
- Origins and http targets get no Via (RFC 9110 §7.6.3 asks for one): it would give the browser away. Loops are found otherwise (A40, A44).

## Attacks and faults

${table(ATTACKS)}

## Duties of RFC 9110 and RFC 9112

${table(DUTIES)}

## Duties of the cache: RFC 9111, RFC 5861, RFC 9209, RFC 9211

${table(CACHE_DUTIES)}
`;
}

if (process.argv[1] === import.meta.filename) {
  writeFileSync(DOCUMENT, conformanceDocument());
  const open = openNumbers();
  process.stdout.write(
    open.length === 0 ? 'docs/conformance.md: every number is held or has a reason\n' : `open: ${open.join(', ')}\n`,
  );
}
