// Runs many cases and counts what came of them. Shared by `npm run fuzz` and the bounded run of `npm test`.
import { judge, type Verdict } from './compare.ts';
import { readCorpus } from './corpus.ts';
import { generate } from './generate.ts';
import type { Case, Side } from './outcome.ts';
import { Random } from './random.ts';

export interface Figures {
  cases: number;
  accepted: number;
  refused: number;
  wider: Map<string, number>;
  stricter: Map<string, number>;
}

export interface Failure {
  readonly given: Case;
  readonly verdict: Verdict;
}

const random = new Random();
const splices: Partial<Record<Side, string[]>> = {};

/** The case of that seed and number: the same on every machine, for as long as generator and corpus are the same. */
export function caseAt(side: Side, seed: number, index: number): Case {
  splices[side] ??= readCorpus()
    .filter(entry => entry.side === side && !entry.name.startsWith('found'))
    .map(entry => entry.bytes);
  random.restart(seed, index);
  return generate(random, side, splices[side]);
}

/** The verdict; a crash is one, too. */
export function judged(given: Case): Verdict {
  try {
    return judge(given);
  } catch (error) {
    return { kind: 'disagreement', say: `crash: ${(error as Error).message}` };
  }
}

export function noFigures(): Figures {
  return { cases: 0, accepted: 0, refused: 0, wider: new Map(), stricter: new Map() };
}

/** Runs the cases from `from` to below `to`, or until `until` (a moment of performance.now()); stops at the first failure, which it gives back. */
export function runCases(
  side: Side,
  seed: number,
  from: number,
  to: number,
  until: number,
  figures: Figures,
): { readonly next: number; readonly failure: Failure | null } {
  // Both parsers refuse by an Error, most of the time; nobody reads where.
  const { stackTraceLimit } = Error;
  Error.stackTraceLimit = 0;
  try {
    for (let index = from; index < to; index++) {
      if (index % 256 === 0 && performance.now() > until) return { next: index, failure: null };
      const given = caseAt(side, seed, index);
      const verdict = judged(given);
      figures.cases++;
      if (verdict.kind === 'accepted') figures.accepted++;
      else if (verdict.kind === 'refused') figures.refused++;
      else if (verdict.kind === 'disagreement') return { next: index + 1, failure: { given, verdict } };
      else figures[verdict.kind].set(verdict.say, (figures[verdict.kind].get(verdict.say) ?? 0) + 1);
    }
    return { next: to, failure: null };
  } finally {
    Error.stackTraceLimit = stackTraceLimit;
  }
}
