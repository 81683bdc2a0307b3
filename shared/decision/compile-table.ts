// The matcher as data for the browser side: Firefox steers by it request by request, and both browsers' icons read it.
import { isAddress, normalizeHost } from '../endpoint.ts';
import { familyOf, hexOf, numberOf } from './address.ts';
import { bucketOf, compileVerdicts, splitTop, verdictAmong, type Verdicts } from './compile-verdicts.ts';
import { BLOCKED, type CompiledMatcher, DIRECT, STEERED, type Verdict, VERDICTS } from './decide.ts';
import { verdictWith } from './patterns.ts';

/** JSON data; read it with `openTable`. */
export interface SteeringTable extends Verdicts {
  readonly format: 3;
}

export interface OpenTable {
  /** What becomes of a request to this host (as a URL spells it). What is no host is steered: the companion then says what is wrong with it. */
  lookup(host: string): 'direct' | 'steered' | 'blocked';
  /** Whether pages of this host are steered (or blocked) and may not reach this machine and its network. */
  confines(host: string): boolean;
  /**
   * Every host that a rule names, with its own verdict and that of its subdomains, unless the named parent says the same of both. Only
   * those that browsers' own rule lists take: names of letters, digits, "-" and "_", which are all that DNS has. `but` leaves out what stands
   * in that table just so (most of it, at least).
   */
  names(but?: SteeringTable): Generator<readonly [host: string, own: Verdict, below: Verdict]>;
}

/** Says what decide() says, for rules by host and address. */
export function compileTable(matcher: CompiledMatcher): SteeringTable {
  return { format: 3, ...compileVerdicts(matcher) };
}

const WORDS = ['direct', 'steered', 'blocked', 'steered', 'direct', 'direct'] as const;

export function openTable(table: SteeringTable): OpenTable {
  if ((table.format as number) !== 3) throw new Error('The table is of another version.');
  const groups = Object.entries(table.names).map(([code, buckets]) => ({ code: Number(code), buckets }));
  const isEmpty =
    groups.length === 0 &&
    table.ipv4.starts === '' &&
    table.ipv6.starts === '' &&
    table.patterns === null &&
    Object.keys(table.addresses).length === 0;

  const codeOf = (host: string): number | null => {
    const [top, name] = splitTop(host);
    const bucket = bucketOf(top, name);
    for (const { code, buckets } of groups) {
      const names = Object.hasOwn(buckets, bucket) ? buckets[bucket]! : null;
      if (names !== null && hasName(names, name.slice(1))) return code;
    }
    return null;
  };
  const ofAddress = (host: string): Verdict => {
    if (Object.hasOwn(table.addresses, host)) return table.addresses[host]!;
    const family = familyOf(host);
    const stretches = family === 4 ? table.ipv4 : table.ipv6;
    return stretches.starts === '' ? 0 : verdictAmong(stretches, hexOf(family, numberOf(host)));
  };
  const verdictOf = (written: string): Verdict => {
    if (isEmpty) return DIRECT;
    const host = normalizeHost(written);
    if (host === null) return STEERED;
    if (isAddress(host)) return ofAddress(host);
    const named = ofName(host);
    return table.patterns === null ? named : verdictWith(table.patterns, host, named);
  };
  const ofName = (host: string): Verdict => {
    const own = codeOf(host);
    if (own !== null) return Math.floor(own / VERDICTS) as Verdict;
    for (let dot = host.indexOf('.'); dot >= 0; dot = host.indexOf('.', dot + 1)) {
      const parent = codeOf(host.slice(dot + 1));
      if (parent !== null) return (parent % VERDICTS) as Verdict;
    }
    return DIRECT;
  };
  return {
    lookup: host => WORDS[verdictOf(host)],
    confines(host) {
      const verdict = verdictOf(host);
      return verdict === STEERED || verdict === BLOCKED;
    },
    *names(but) {
      for (const { code, buckets } of groups) {
        const own = Math.floor(code / VERDICTS) as Verdict;
        const below = (code % VERDICTS) as Verdict;
        for (const [bucket, names] of Object.entries(buckets)) {
          const space = bucket.indexOf(' ');
          const top = bucket.slice(0, space);
          const length = Number(bucket.slice(space + 1, -1));
          const first = bucket.at(-1)!;
          if (but?.names[code]?.[bucket] === names) continue;
          for (let at = 0; at < Math.max(1, names.length); at += length - 1 || 1) {
            const host = first === '@' ? top : `${first}${names.slice(at, at + length - 1)}.${top}`;
            if (/^[\w.-]+$/.test(host)) yield [host, own, below];
          }
        }
      }
    },
  };
}

/** Whether `rest` stands in a string of names of its length, at a place where one begins. A name of one character has no rest. */
function hasName(names: string, rest: string): boolean {
  const { length } = rest;
  if (length === 0) return true;
  for (let at = names.indexOf(rest); at >= 0; at = names.indexOf(rest, at + 1)) if (at % length === 0) return true;
  return false;
}
