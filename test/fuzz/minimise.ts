// Makes a failing case small while it still fails: first without cuts, then with ever smaller spans of bytes taken out.
import type { Case } from './outcome.ts';

/** The smallest case found for which `fails` still holds, within a bounded number of tries. */
export function minimise(given: Case, fails: (smaller: Case) => boolean): Case {
  let best = given;
  let tries = 20_000;
  const attempt = (smaller: Case): boolean => {
    if (tries-- <= 0 || smaller.bytes.length === 0 || !fails(smaller)) return false;
    best = smaller;
    return true;
  };
  attempt({ ...best, cuts: [] });
  for (let cut = best.cuts.length - 1; cut >= 0; cut--)
    attempt({ ...best, cuts: best.cuts.filter((_, i) => i !== cut) });
  for (let span = Math.ceil(best.bytes.length / 2); span >= 1; span = span === 1 ? 0 : Math.ceil(span / 2)) {
    for (let at = 0; at < best.bytes.length;) {
      const { bytes, cuts } = best;
      const end = Math.min(bytes.length, at + span);
      const shorter = Buffer.concat([bytes.subarray(0, at), bytes.subarray(end)]);
      const moved = cuts.map(place => (place <= at ? place : Math.max(at, place - (end - at))));
      if (!attempt({ ...best, bytes: shorter, cuts: moved })) at += span;
    }
  }
  return best;
}
