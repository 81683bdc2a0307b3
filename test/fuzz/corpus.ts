// The kept cases: test/vectors/fuzz/*.json, each with a name and what is expected of it. `npm test` replays them, the fuzzer splices from them and
// adds what it finds.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { Verdict } from './compare.ts';
import type { Case, Side } from './outcome.ts';

const FOLDER = path.resolve(import.meta.dirname, '../vectors/fuzz');

export interface Entry {
  readonly name: string;
  readonly side: Side;
  /** One character a byte. */
  readonly bytes: string;
  readonly cuts?: readonly number[];
  readonly methods?: readonly string[];
  /** A verdict as `told` writes it; '' for anything but a disagreement. */
  readonly expected: string;
}

/** All entries, in the order of files and lines. */
export function readCorpus(): Entry[] {
  const entries: Entry[] = [];
  for (const file of readdirSync(FOLDER).sort()) {
    if (file.endsWith('.json')) entries.push(...(JSON.parse(readFileSync(path.join(FOLDER, file), 'utf8')) as Entry[]));
  }
  return entries;
}

export function caseOf(entry: Entry): Case {
  return {
    side: entry.side,
    bytes: Buffer.from(entry.bytes, 'latin1'),
    cuts: entry.cuts ?? [],
    methods: entry.methods ?? [],
  };
}

export function told({ kind, say }: Verdict): string {
  return say === '' ? kind : `${kind}: ${say}`;
}

/** Keeps a case that failed, unless its bytes are kept already; gives back where. */
export function keep(name: string, given: Case): string {
  const text = given.bytes.toString('latin1');
  const same = readCorpus().find(entry => entry.side === given.side && entry.bytes === text);
  if (same !== undefined) return `the corpus as "${same.name}"`;
  const file = path.join(FOLDER, `found-${name}.json`);
  const { side, cuts, methods } = given;
  const entry: Entry = {
    name: `found by the fuzzer: ${name}`,
    side,
    bytes: text,
    cuts,
    methods,
    expected: '',
  };
  writeFileSync(file, `${asciiJson([entry])}\n`);
  return path.relative(process.cwd(), file);
}

/** JSON that shows every byte beyond ASCII. */
export function asciiJson(value: unknown): string {
  return JSON.stringify(value, null, 2).replace(
    /[\x7f-\uffff]/g,
    c => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}
