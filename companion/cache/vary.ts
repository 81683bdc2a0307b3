// Vary: which request fields chose an answer, and whether another request would choose the same (RFC 9111 §4.1).
import type { Fields } from '../message/headers.ts';
import { trimmed } from '../message/http1-parser.ts';

/** More names than this are not worth keeping apart. */
const MAX_NAMES = 16;
const MAX_VALUE = 4096;
const TOKEN = /^[!#$%&'*+.^_`|~0-9a-z-]+$/;

/** Fields whose members mean the same in any case. */
const CASELESS: ReadonlySet<string> = new Set(['accept', 'accept-encoding', 'accept-language', 'accept-charset']);

/** What an answer was chosen by: names in lower case, in order, and the request's values in the form that is compared. */
export interface Selection {
  readonly names: readonly string[];
  readonly values: readonly (string | undefined)[];
}

/** The names in Vary, sorted; null where there are none; `never` where no other request could be matched (`*`, malformed or huge). */
export function varyNames(answer: Fields): readonly string[] | null | 'never' {
  const value = answer.get('vary');
  if (value === undefined) return null;
  const names = new Set<string>();
  for (const part of value.split(',')) {
    const name = part.trim().toLowerCase();
    if (name === '') continue;
    if (name === '*' || !TOKEN.test(name)) return 'never';
    names.add(name);
  }
  if (names.size > MAX_NAMES) return 'never';
  return names.size === 0 ? null : [...names].sort();
}

/** What the request says for these names; null where it is too large to be kept. */
export function selectionOf(names: readonly string[], request: Fields): Selection | null {
  const values = names.map(name => normalValue(name, request));
  const size = values.reduce((sum, value) => sum + (value?.length ?? 0), 0);
  return size > MAX_VALUE ? null : { names, values };
}

/** What the request chose the answer by; null: by nothing. `never` where no other request could be matched, or what it says is too large. */
export function chosenBy(answer: Fields, request: Fields): Selection | null | 'never' {
  const names = varyNames(answer);
  return names === null || names === 'never' ? names : (selectionOf(names, request) ?? 'never');
}

/** Whether the request would have chosen the same answer. A field that is absent matches only where it was absent too. */
export function matches(selection: Selection | null, request: Fields): boolean {
  if (selection === null) return true;
  const { names, values } = selection;
  for (let i = 0; i < names.length; i++) if (normalValue(names[i]!, request) !== values[i]) return false;
  return true;
}

/** Whether two answers were chosen by the same values of the same fields. */
export function sameSelection(a: Selection | null, b: Selection | null): boolean {
  if (a === null || b === null) return a === b;
  return (
    a.names.length === b.names.length && a.names.every((name, i) => name === b.names[i] && a.values[i] === b.values[i])
  );
}

/** Lines combined, white space around commas dropped: what may differ without meaning anything else. */
function normalValue(name: string, request: Fields): string | undefined {
  const value = request.get(name);
  if (value === undefined) return undefined;
  // Not by a pattern: white space in front of a comma that never comes would be looked through again from each of its characters.
  const spaced = value.includes(',') ? value.split(',').map(trimmed).join(',') : value;
  return CASELESS.has(name) ? spaced.toLowerCase() : spaced;
}
