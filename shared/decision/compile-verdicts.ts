// What the browser's two dialects need of the matcher: for every host a rule names, what becomes of it and what becomes of its subdomains.
// Any other host shares all its matching rules with "a subdomain of its nearest named parent", so two verdicts a name say everything.
// Names are packed in strings: one string a top label, length and first character, names side by side without separators (each one
// character shorter, as the first is in the key). A look-up is a native search in one short string: nothing to split, nothing to keep.
// Address ranges are cut into stretches that have one verdict each, so ranks and nesting are settled here, once.
import { isAddress } from '../endpoint.ts';
import { allSteps } from '../steps.ts';
import { ADDRESS_BITS, type Family, hexOf } from './address.ts';
import { type CompiledMatcher, DIRECT, type Verdict, codeAt, verdictOf, verdictOfNumber } from './decide.ts';
import { compilePatterns, type Patterns } from './patterns.ts';
import { namesIn, NONE } from './rule-table.ts';

/** VERDICTS times the verdict of the host itself, plus that of its subdomains. */
export type Code = number;

/** JSON data; the PAC and the table both carry it. */
export interface Verdicts {
  /** Code → bucket (see bucketOf) → names. */
  readonly names: Readonly<Record<Code, Readonly<Record<string, string>>>>;
  /** Single addresses that rules name, in normal form. */
  readonly addresses: Readonly<Record<string, Verdict>>;
  readonly ipv4: Stretches;
  readonly ipv6: Stretches;
  /** Null where no rule is a keyword or an expression. */
  readonly patterns: Patterns | null;
}

/** The addresses of a family in order, from each start to before the next; before the first, direct. */
export interface Stretches {
  /** Hex digits of the starts side by side: 8 each for IPv4, 32 for IPv6. */
  readonly starts: string;
  /** One digit a start. */
  readonly verdicts: string;
}

/** A host cut into its last label and what stands before it ("@" where nothing does). */
export function splitTop(host: string): readonly [top: string, name: string] {
  const dot = host.lastIndexOf('.');
  return dot < 0 ? [host, '@'] : [host.slice(dot + 1), host.slice(0, dot)];
}

/** Key of the string that a name stands in. */
export function bucketOf(top: string, name: string): string {
  return `${top} ${name.length}${name[0]}`;
}

/** The verdict of the stretch that an address stands in, by its hex digits. */
export function verdictAmong({ starts, verdicts }: Stretches, hex: string): Verdict {
  let low = 0;
  let high = verdicts.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (starts.slice(middle * hex.length, (middle + 1) * hex.length) <= hex) low = middle + 1;
    else high = middle;
  }
  return low === 0 ? DIRECT : (Number(verdicts[low - 1]) as Verdict);
}

const compiled = new WeakMap<CompiledMatcher, Verdicts>();

/** Compiles the verdicts of every host and range that a rule names, once a matcher. Deterministic: the same rules give the same data. */
export function compileVerdicts(matcher: CompiledMatcher): Verdicts {
  return allSteps(verdictSteps(matcher));
}

/** The same in steps of about a millisecond, for who must not stand still meanwhile. */
export function* verdictSteps(matcher: CompiledMatcher): Generator<undefined, Verdicts> {
  let verdicts = compiled.get(matcher);
  if (!verdicts) {
    verdicts = {
      ...(yield* hostSteps(matcher)),
      ipv4: compileStretches(matcher, 4),
      ipv6: compileStretches(matcher, 6),
      patterns: compilePatterns(matcher),
    };
    compiled.set(matcher, verdicts);
  }
  return verdicts;
}

/** Hosts in one step. */
const STEP = 500;

function* hostSteps(matcher: CompiledMatcher): Generator<undefined, Pick<Verdicts, 'names' | 'addresses'>> {
  const addresses = new Map<string, Verdict>();
  const buckets = new Map<Code, Map<string, string[]>>();
  let done = 0;
  for (const [part, { table }] of matcher.parts.entries()) {
    const names = namesIn(table);
    for (let entry = 0; entry < table.names; entry++) {
      if (++done % STEP === 0) yield;
      const host = names.slice(table.starts[entry], table.starts[entry + 1]);
      if (isAddress(host)) {
        addresses.set(host, verdictOf(matcher, host));
        continue;
      }
      const code = codeAt(matcher, part, entry, host);
      if (code === NONE) continue;
      let group = buckets.get(code);
      if (!group) buckets.set(code, (group = new Map()));
      const [top, name] = splitTop(host);
      const bucket = bucketOf(top, name);
      const there = group.get(bucket);
      if (there) there.push(name.slice(1));
      else group.set(bucket, [name.slice(1)]);
    }
  }
  const names: Record<Code, Record<string, string>> = {};
  for (const code of [...buckets.keys()].sort((a, b) => a - b)) {
    const packed: [string, string][] = [];
    for (const [bucket, group] of buckets.get(code)!) {
      packed.push([bucket, group.sort().join('')]);
      done += group.length;
      if (done > STEP) {
        done = 0;
        yield;
      }
    }
    names[code] = Object.fromEntries(packed.sort(([a], [b]) => (a < b ? -1 : 1)));
  }
  return { names, addresses: Object.fromEntries([...addresses].sort(([a], [b]) => (a < b ? -1 : 1))) };
}

/** Between one start or end of a range and the next, all addresses match the same ranges: one of them speaks for all. */
function compileStretches(matcher: CompiledMatcher, family: Family): Stretches {
  const edges = new Set<bigint>();
  for (const range of matcher.parts.flatMap(({ index }) => index.ranges)) {
    if (range.family !== family) continue;
    const free = BigInt(ADDRESS_BITS[family] - range.prefix);
    for (const bits of range.byBits.keys()) edges.add(bits << free).add((bits + 1n) << free);
  }
  edges.delete(1n << BigInt(ADDRESS_BITS[family]));
  let starts = '';
  let verdicts = '';
  let last: Verdict = DIRECT;
  for (const edge of [...edges].sort((a, b) => (a < b ? -1 : 1))) {
    const verdict = verdictOfNumber(matcher, family, edge);
    if (verdict === last) continue;
    starts += hexOf(family, edge);
    verdicts += verdict;
    last = verdict;
  }
  return { starts, verdicts };
}
