// The one matcher: which rule decides for a host. Every rule has a rank and the smallest matching one wins; where two are equal, the first in the
// file (sites, then rules, then lists). Without a rank by hand the more specific rule wins:
//   exact host 1000 · suffix and strict subdomains 2000 − number of labels · address range 3000 − prefix (an IPv4 prefix counts 96 more)
// The companion asks it for every request; compile-pac.ts and compile-table.ts tell the browser the same.
import { isAddress } from '../endpoint.ts';
import { formatMatcher } from './parse-matcher.ts';
import type {
  Action,
  Because,
  CacheMode,
  Decision,
  DecisionTarget,
  FilterLevel,
  Matcher,
  Rule,
  RuleList,
  RuleSource,
} from './rule.ts';

/** The rank of a matcher that was given none by hand. */
export function defaultRank(matcher: Matcher): number {
  switch (matcher.kind) {
    case 'exact':
      return 1000;
    case 'suffix':
    case 'subdomains':
      return 2000 - matcher.host.split('.').length;
    case 'cidr':
      return 3000 - (matcher.prefix + (matcher.address.includes(':') ? 0 : 96));
  }
}

/** An address range. Ranges nest or are apart, so the longest one that holds an address settles which rules match it. */
export interface Range {
  readonly matcher: Matcher & { kind: 'cidr' };
  readonly index: number;
  readonly bits: bigint;
  readonly shift: bigint;
}

/** The rules by what they match. A rule's number is its place in the file: hand-written ones first, then the entries of every list. */
export interface CompiledMatcher {
  readonly source: RuleSource;
  readonly exact: ReadonlyMap<string, number | number[]>;
  readonly suffix: ReadonlyMap<string, number | number[]>;
  readonly subdomains: ReadonlyMap<string, number | number[]>;
  readonly ranges: readonly Range[];
  /** Rank of every rule, by number. */
  readonly ranks: Int32Array;
  /** Number of the first entry of each list. */
  readonly listStarts: readonly number[];
}

/** Compiles sites, rules and lists; about a microsecond an entry. */
export function compileMatcher(source: RuleSource): CompiledMatcher {
  const exact = new Map<string, number | number[]>();
  const suffix = new Map<string, number | number[]>();
  const subdomains = new Map<string, number | number[]>();
  const ranges: Range[] = [];
  const count = source.rules.length + source.lists.reduce((sum, list) => sum + list.entries.length, 0);
  const ranks = new Int32Array(count);
  const listStarts: number[] = [];
  let next = 0;
  const add = (matcher: Matcher, rank: number | undefined) => {
    const index = next++;
    ranks[index] = rank ?? defaultRank(matcher);
    if (matcher.kind === 'cidr') {
      const shift = BigInt((matcher.address.includes(':') ? 128 : 32) - matcher.prefix);
      ranges.push({ matcher, index, shift, bits: addressBits(matcher.address) >> shift });
      return;
    }
    const map = matcher.kind === 'exact' ? exact : matcher.kind === 'suffix' ? suffix : subdomains;
    const there = map.get(matcher.host);
    if (there === undefined) map.set(matcher.host, index);
    else if (typeof there === 'number') map.set(matcher.host, [there, index]);
    else there.push(index);
  };
  for (const rule of source.rules) add(rule.matcher, rule.rank);
  for (const list of source.lists) {
    listStarts.push(next);
    for (const entry of list.entries) add(entry.matcher, list.rank);
  }
  return { source, exact, suffix, subdomains, ranges, ranks, listStarts };
}

/** What stands behind a rule's number. */
interface Ref {
  readonly action: Action;
  readonly rule: Rule | null;
  readonly list: RuleList | null;
  readonly entry: number;
}

function refOf({ source, listStarts }: CompiledMatcher, index: number): Ref {
  if (index < source.rules.length) {
    const rule = source.rules[index]!;
    return { action: rule.action, rule, list: null, entry: 0 };
  }
  let at = listStarts.length - 1;
  while (listStarts[at]! > index) at--;
  const list = source.lists[at]!;
  const entry = index - listStarts[at]!;
  return { action: list.entries[entry]!.allow ? ALLOW : list.action, rule: null, list, entry };
}
const ALLOW: Action = { do: 'allow' };

function because(ref: Ref): Because {
  if (ref.rule) return { rule: ref.rule.id, text: formatMatcher(ref.rule.matcher) };
  const entry = ref.list!.entries[ref.entry]!;
  return { rule: ref.list!.id, list: ref.list!.name, line: entry.line, text: formatMatcher(entry.matcher) };
}

const DEFAULT: Because = { rule: 'default' };
const NOT_NAMED: Decision = { steered: false, because: DEFAULT };

/** The numbers of all rules that match, in no order. */
function matching(matcher: CompiledMatcher, host: string): number[] {
  const found: number[] = [];
  const put = (there: number | number[] | undefined) => {
    if (there === undefined) return;
    if (typeof there === 'number') found.push(there);
    else found.push(...there);
  };
  put(matcher.exact.get(host));
  put(matcher.suffix.get(host));
  if (isAddress(host)) {
    if (matcher.ranges.length > 0) {
      const bits = addressBits(host);
      const six = host.includes(':');
      for (const range of matcher.ranges) {
        if (range.matcher.address.includes(':') === six && bits >> range.shift === range.bits) found.push(range.index);
      }
    }
    return found;
  }
  for (let dot = host.indexOf('.'); dot >= 0; dot = host.indexOf('.', dot + 1)) {
    const parent = host.slice(dot + 1);
    put(matcher.suffix.get(parent));
    put(matcher.subdomains.get(parent));
  }
  return found;
}

/** What becomes of a target. `host` must be in normal form (shared/endpoint.ts). */
export function decide(matcher: CompiledMatcher, target: Pick<DecisionTarget, 'host'>): Decision {
  return decideAmong(matcher, matching(matcher, target.host));
}

/** What becomes of a target that exactly these rules match, by their numbers. */
export function decideAmong(matcher: CompiledMatcher, found: readonly number[]): Decision {
  if (found.length === 0) return NOT_NAMED;
  let best = -1;
  let bestWay = -1;
  let way: Ref | null = null;
  const wins = (index: number, over: number) =>
    over < 0 ||
    matcher.ranks[index]! < matcher.ranks[over]! ||
    (matcher.ranks[index] === matcher.ranks[over] && index < over);
  for (const index of found) {
    if (wins(index, best)) best = index;
    if (!wins(index, bestWay)) continue;
    const ref = refOf(matcher, index);
    if (ref.action.do === 'route' || ref.action.do === 'off') {
      bestWay = index;
      way = ref;
    }
  }
  const winner = refOf(matcher, best);
  let allowedBy: Because | undefined;
  // A rule by hand always blocks; a list does not where the site it would block in says `filter: off`.
  if (winner.action.do === 'block') {
    const spared = winner.list !== null && way?.action.do === 'route' && way.action.filter === 'off';
    if (!spared) {
      const by = because(winner);
      return {
        steered: true,
        route: 'block',
        filter: 'standard',
        cache: 'off',
        inspect: false,
        because: by,
        blockedBy: by,
      };
    }
  } else if (winner.action.do === 'allow') allowedBy = because(winner);
  if (way === null) return NOT_NAMED;
  if (way.action.do !== 'route') return { steered: false, because: because(way) };
  const { route, filter, cache, inspect } = way.action;
  return { steered: true, route, filter, cache, inspect, because: because(way), allowedBy };
}

/** What the companion does with a target that reached it: one that is not steered takes the default route, and says so. */
export function decideForCompanion(
  matcher: CompiledMatcher,
  target: Pick<DecisionTarget, 'host'>,
  defaultRoute: string,
): Decision & { steered: true } {
  const decision = decide(matcher, target);
  if (decision.steered) return decision;
  return {
    steered: true,
    route: defaultRoute,
    filter: 'standard' as FilterLevel,
    cache: 'standard' as CacheMode,
    inspect: false,
    because: decision.because,
  };
}

/** An address in normal form as a number. */
export function addressBits(address: string): bigint {
  if (!address.includes(':')) return address.split('.').reduce((bits, part) => (bits << 8n) | BigInt(part), 0n);
  const [head = '', tail] = address.split('::');
  const front = head === '' ? [] : head.split(':');
  const back = tail === undefined || tail === '' ? [] : tail.split(':');
  const middle = tail === undefined ? [] : Array.from({ length: 8 - front.length - back.length }, () => '0');
  return [...front, ...middle, ...back].reduce((bits, part) => (bits << 16n) | BigInt(parseInt(part, 16)), 0n);
}
