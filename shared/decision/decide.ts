// The one matcher: which rule decides for a target, and what follows from it. PAC and table are compiled from it, never beside it.
//
// Ranks. The smallest rank wins; of equal ranks the first in the file does (sites, then rules, then lists; within each in order).
// A rank given by hand is compared with what the others have by their matcher:
//   exact host, or one address   1000
//   suffix, subdomains           2000 - number of labels of its host, so that the longer one wins
//   address range                3000 - prefix in IPv6 terms (an IPv4 prefix counts 96 more), so that the narrower one wins
//   keyword, expression          4000
// A port, a path or a time makes it smaller by less than 1 (condition.ts), so that such a rule goes before its like.
//
// Actions. `route` and `off` steer, `block` stops, `allow` cancels a block and says nothing of steering. With the best of each:
//   allow wins  → the best route or off decides, as though no block were there; none → not steered
//   block wins  → steered, so that the companion can refuse; blocks of a *list* do not count where the deciding route says `filter: off`
//   route, off  → as they say
import { isAddress } from '../endpoint.ts';
import { allSteps } from '../steps.ts';
import { ADDRESS_BITS, type Family, boundsOf, familyOf, numberOf } from './address.ts';
import { formatCondition, holds, looksAt, precedenceOf } from './condition.ts';
import { compileNameRegex, isFoundIn, type NameRegex } from './name-regex.ts';
import { formatMatcher } from './parse-matcher.ts';
import type { Action, Because, Condition, Decision, DecisionTarget, Matcher, RouteName, RuleSource } from './rule.ts';
import {
  ALLOWS,
  askAbout,
  CONDITIONAL,
  EXACT,
  firstOf,
  KIND_BITS,
  matcherAt,
  NONE,
  RuleTableMaker,
  type RuleTable,
  SUBDOMAINS,
  SUFFIX,
} from './rule-table.ts';

const ALLOW: Action = { do: 'allow' };
const OFF_ACTION: Action = { do: 'off' };
const UNNAMED: Because = { rule: 'default' };
const NOT_STEERED: Decision = { steered: false, because: UNNAMED };
/** Decisions remembered by host; a browser asks for few hosts many times. */
const REMEMBERED = 4096;
export const PATTERN_RANK = 4000;

/** Whoever an entry belongs to: a rule by hand, or a list (whose entries share it). */
interface Owner {
  readonly action: Action;
  readonly rank: number | undefined;
  readonly id: string;
  /** The list's name; absent for a rule by hand. */
  readonly list: string | undefined;
}

/** The address ranges of one family and prefix, by the bits that they fix. */
interface Ranges {
  readonly family: Family;
  readonly prefix: number;
  readonly byBits: ReadonlyMap<bigint, readonly number[]>;
}

/** What of a table is looked up otherwise than by name; made once for each table. */
interface Index {
  readonly ranges: readonly Ranges[];
  /** By the first two characters. */
  readonly keywords: ReadonlyMap<number, readonly { readonly text: string; readonly entry: number }[]> | null;
  readonly regexes: readonly { readonly regex: NameRegex; readonly entry: number }[];
  /** What conditions look at, as bits. */
  readonly looksAt: number;
}

/** The rules by hand, or a list. */
interface Part {
  readonly table: RuleTable;
  readonly index: Index;
  /** The number of its first entry among all. */
  readonly first: number;
  /** Of a list, the one; of rules by hand, each has its own, by its line. */
  readonly owner: Owner | null;
  readonly owners: readonly Owner[];
}

export type SteeredDecision = Extract<Decision, { steered: true }>;

/** A compiled rule source. What is in it is this folder's business. */
export interface CompiledMatcher {
  readonly parts: readonly Part[];
  /** Entries in all. */
  readonly size: number;
  /** What any condition looks at, as bits. */
  readonly looksAt: number;
  /** Whether there are keywords or expressions. */
  readonly hasPatterns: boolean;
  readonly decided: Map<string, Decision>;
  readonly decidedForCompanion: { route: RouteName; byHost: Map<string, SteeredDecision> };
}

/** Compiles rules and lists for `decide`. Of a list its table is used as it is. */
export function compileMatcher(source: RuleSource): CompiledMatcher {
  const parts: Part[] = [];
  let size = 0;
  let bits = 0;
  const add = (table: RuleTable, owner: Owner | null, owners: readonly Owner[]) => {
    const index = indexOf(table);
    parts.push({ table, index, first: size, owner, owners });
    size += table.size;
    bits |= index.looksAt;
  };
  if (source.rules.length > 0) {
    const byHand = new RuleTableMaker(source.rules.length);
    const owners = source.rules.map(({ matcher, when, action, rank, id }, i): Owner => {
      byHand.add({ matcher, when, line: i + 1 });
      return { action: plain(action), rank, id, list: undefined };
    });
    add(allSteps(byHand.steps()), null, owners);
  }
  for (const { table, action, rank, id, name } of source.lists)
    add(table, { action: plain(action), rank, id, list: name }, []);
  return {
    parts,
    size,
    looksAt: bits,
    hasPatterns: parts.some(({ index }) => index.keywords !== null || index.regexes.length > 0),
    decided: new Map(),
    decidedForCompanion: { route: '', byHost: new Map() },
  };
}

const indexes = new WeakMap<RuleTable, Index>();

function indexOf(table: RuleTable): Index {
  let index = indexes.get(table);
  if (index) return index;
  const ranges = new Map<string, { family: Family; prefix: number; byBits: Map<bigint, number[]> }>();
  const keywords = new Map<number, { text: string; entry: number }[]>();
  const regexes: { regex: NameRegex; entry: number }[] = [];
  for (const [i, matcher] of table.others.entries()) {
    const entry = table.names + i;
    switch (matcher.kind) {
      case 'cidr': {
        const { family, first } = boundsOf(matcher.address, matcher.prefix);
        const name = `${family}/${matcher.prefix}`;
        let one = ranges.get(name);
        if (!one) ranges.set(name, (one = { family, prefix: matcher.prefix, byBits: new Map() }));
        push(one.byBits, first >> freeBits(family, matcher.prefix), entry);
        break;
      }
      case 'keyword':
        push(keywords, pairAt(matcher.text, 0), { text: matcher.text, entry });
        break;
      case 'regex': {
        const regex = compileNameRegex(matcher.source);
        if (typeof regex !== 'string') regexes.push({ regex, entry });
        break;
      }
    }
  }
  let bits = 0;
  for (const condition of table.conditions.values()) bits |= looksAt(condition);
  index = { ranges: [...ranges.values()], keywords: keywords.size === 0 ? null : keywords, regexes, looksAt: bits };
  indexes.set(table, index);
  return index;
}

function push<K, T>(map: Map<K, T[]>, key: K, value: T): void {
  const there = map.get(key);
  if (there) there.push(value);
  else map.set(key, [value]);
}

const pairAt = (text: string, at: number) => (text.charCodeAt(at) << 16) | text.charCodeAt(at + 1);

/** The rank a matcher has where none is given by hand; see the top of this file. */
export function defaultRank(matcher: Matcher, when?: Condition): number {
  return rankByKind(matcher) - (when ? precedenceOf(when) : 0);
}

function rankByKind(matcher: Matcher): number {
  switch (matcher.kind) {
    case 'exact':
      return 1000;
    case 'suffix':
    case 'subdomains':
      return 2000 - countLabels(matcher.host);
    case 'cidr':
      return 3000 - (matcher.address.includes(':') ? matcher.prefix : matcher.prefix + 96);
    case 'keyword':
    case 'regex':
      return PATTERN_RANK;
  }
}

type Target = Pick<DecisionTarget, 'host'> & Partial<DecisionTarget>;

/**
 * What becomes of a target: not steered, or steered with all that follows from the rule, and always why. The same decision object may come
 * back for the same host again, unless a rule that looks at more than the host concerns it.
 */
export function decide(matcher: CompiledMatcher, target: Target): Decision {
  const { host } = target;
  const known = target.addresses === undefined ? matcher.decided.get(host) : undefined;
  if (known !== undefined) return known;
  const found = bestFor(matcher, host, target);
  const { isConditional } = found;
  const decision = decisionOf(matcher, found);
  return isConditional ? decision : remember(matcher.decided, host, decision);
}

/**
 * The same for what has reached the companion: it came here, so it is steered whatever a rule says, by the default route where no rule
 * names one; `because` stays the rule that would not have steered it, or `default`.
 */
export function decideForCompanion(matcher: CompiledMatcher, target: Target, defaultRoute: RouteName): SteeredDecision {
  const memory = matcher.decidedForCompanion;
  if (memory.route !== defaultRoute) {
    memory.route = defaultRoute;
    memory.byHost.clear();
  }
  const { host } = target;
  const known = target.addresses === undefined ? memory.byHost.get(host) : undefined;
  if (known !== undefined) return known;
  const found = bestFor(matcher, host, target);
  const { isConditional } = found;
  const decision = steeredDecisionOf(matcher, found, defaultRoute);
  return isConditional ? decision : remember(memory.byHost, host, decision);
}

/** What a dialect keeps of a decision. */
export const DIRECT = 0;
export const STEERED = 1;
export const BLOCKED = 2;
/** Steered, and its pages may reach this machine and its network. */
export const OPEN = 3;
/** Direct; yet keywords and expressions may steer it, though not block it. Only where there are some. */
export const ALLOWED = 4;
/** Direct, whatever keywords and expressions say. Only where there are some. */
export const OFF = 5;
export type Verdict = typeof DIRECT | typeof STEERED | typeof BLOCKED | typeof OPEN | typeof ALLOWED | typeof OFF;
/** How many there are: dialects count by it. */
export const VERDICTS = 6;

/** The verdict for a host that a rule names. Where it depends on more than the host: the one that sends it. */
export function verdictOf(matcher: CompiledMatcher, host: string): Verdict {
  return ownVerdict(matcher, host, bestFor(matcher, host, null));
}

function ownVerdict(matcher: CompiledMatcher, host: string, found: Best): Verdict {
  const verdict = verdictOfBest(matcher, found);
  return verdict === DIRECT && matcher.hasPatterns && !isAddress(host) ? OFF : verdict;
}

/** The verdict for its subdomains that no rule names more closely, by everything but keywords and expressions. */
function verdictBelow(matcher: CompiledMatcher, host: string): Verdict {
  const found = settled(considerNames(matcher, host, true, null));
  const verdict = verdictOfBest(matcher, found);
  if (verdict !== DIRECT || !matcher.hasPatterns) return verdict;
  return found.steering !== NONE ? OFF : found.allowing !== NONE ? ALLOWED : DIRECT;
}

/**
 * VERDICTS times the verdict of a name that stands in a part, plus that of its subdomains; NONE where an earlier entry stands for the name, or the
 * nearest parent that is named says the same of both.
 */
export function codeAt(matcher: CompiledMatcher, part: number, entry: number, host: string): number {
  const found = bestFor(matcher, host, null);
  if (found.ownPart !== part || found.ownEntry !== entry) return NONE;
  const { isWhole, parent } = found;
  const own = ownVerdict(matcher, host, found);
  const below = isWhole && !matcher.hasPatterns ? own : verdictBelow(matcher, host);
  const above = parent === NONE ? DIRECT : verdictBelow(matcher, lastLabels(host, parent + 1));
  return own === above && below === above ? NONE : VERDICTS * own + below;
}

function lastLabels(host: string, labels: number): string {
  let dot = host.length;
  for (let i = 0; i < labels; i++) dot = host.lastIndexOf('.', dot - 1);
  return host.slice(dot + 1);
}

/** The verdict for an address that only ranges name. */
export function verdictOfNumber(matcher: CompiledMatcher, family: Family, number: bigint): Verdict {
  startAnew();
  considerRanges(matcher, family, number, null);
  return verdictOfBest(matcher, settled(best));
}

/** A keyword or expression with what it does. */
export interface OrderedPattern {
  readonly pattern: Extract<Matcher, { kind: 'keyword' | 'regex' }>;
  readonly action: Action;
  readonly byHand: boolean;
  readonly conditional: boolean;
}

/** All of them, the one that goes first at the beginning; and whether ranks by hand mix them with the rules by host. */
export function patternsOf(matcher: CompiledMatcher): { patterns: readonly OrderedPattern[]; mixed: boolean } {
  const found: (OrderedPattern & { index: number; rank: number })[] = [];
  let mixed = false;
  for (const part of matcher.parts) {
    const { table, owner, owners } = part;
    const others = table.others.entries();
    for (const [i, pattern] of others) {
      if (pattern.kind === 'cidr') continue;
      const entry = table.names + i;
      const { action, rank, list } = ownerAt(part, entry);
      const kind = table.kinds[entry]!;
      const when = table.conditions.get(entry);
      found.push({
        pattern,
        action: (kind & ALLOWS) === 0 ? action : exceptionOf(action),
        byHand: list === undefined,
        conditional: when !== undefined,
        index: part.first + entry,
        rank: rank ?? defaultRank(pattern, when),
      });
      mixed ||= rank !== undefined && rank < PATTERN_RANK - 1;
    }
    mixed ||= (owner?.rank ?? 0) >= PATTERN_RANK - 1 || owners.some(({ rank }) => (rank ?? 0) >= PATTERN_RANK - 1);
  }
  found.sort((a, b) => a.rank - b.rank || (isEarlier(matcher, a.index, b.index) ? -1 : 1));
  return { patterns: found, mixed };
}

function verdictOfBest(matcher: CompiledMatcher, found: Best): Verdict {
  const winner = winnerOf(matcher, found);
  const { steeringAction } = found;
  const verdict =
    winner === NONE
      ? DIRECT
      : winner === found.blocking
        ? BLOCKED
        : steeringAction?.do !== 'route'
          ? DIRECT
          : steeringAction.local
            ? OPEN
            : STEERED;
  return verdict === DIRECT && found.isMaybe ? STEERED : verdict;
}

/** The best entry of each sort with its rank, or NONE. */
interface Best {
  /** Of those that say route or off. */
  steering: number;
  steeringRank: number;
  steeringAction: Action | null;
  /** Of those that block, less those that `filter: off` silences. */
  blocking: number;
  blockingRank: number;
  allowing: number;
  allowingRank: number;
  blockingByHand: number;
  blockingByHandRank: number;
  /** A dialect cannot see whether its condition holds: the best that may send it. */
  maybe: number;
  maybeRank: number;
  isMaybe: boolean;
  /** Whether any entry for this host has a condition. */
  isConditional: boolean;
  /** The first part that names the very host, and the entry there; NONE: none does. */
  ownPart: number;
  ownEntry: number;
  /** Whether all that names the very host means its subdomains, too. */
  isWhole: boolean;
  /** The nearest parent that is named, by its labels less one; NONE: none is. */
  parent: number;
}

// One object for all calls: nothing here calls back, so nobody else can be reading it.
const best: Best = {
  steering: NONE,
  steeringRank: 0,
  steeringAction: null,
  blocking: NONE,
  blockingRank: 0,
  allowing: NONE,
  allowingRank: 0,
  blockingByHand: NONE,
  blockingByHandRank: 0,
  maybe: NONE,
  maybeRank: 0,
  isMaybe: false,
  isConditional: false,
  ownPart: NONE,
  ownEntry: NONE,
  isWhole: true,
  parent: NONE,
};

/** `target` null: for a dialect, which knows the host alone. */
function bestFor(matcher: CompiledMatcher, host: string, target: Target | null): Best {
  considerNames(matcher, host, false, target);
  if (matcher.hasPatterns && !isAddress(host)) considerPatterns(matcher, host, target);
  if (target?.addresses) considerResolved(matcher, host, target);
  return settled(best);
}

function considerNames(matcher: CompiledMatcher, host: string, below: boolean, target: Target | null): Best {
  startAnew();
  const { parts } = matcher;
  const whole = isAddress(host);
  const labels = askAbout(host, whole);
  for (let p = 0; p < parts.length; p++) {
    const part = parts[p]!;
    if (part.table.names === 0) continue;
    for (let label = labels - 1; label >= 0; label--) {
      const first = firstOf(part.table, label);
      if (first === NONE) continue;
      if (label < labels - 1) best.parent = Math.max(best.parent, label);
      else if (best.ownPart === NONE) {
        best.ownPart = p;
        best.ownEntry = first;
      }
      // A parent's (or `below`) only where they reach down.
      const unfit = below || label < labels - 1 ? EXACT : SUBDOMAINS;
      const { next, kinds } = part.table;
      for (let entry = first; entry !== NONE; entry = next[entry]!) {
        const kind = kinds[entry]! & KIND_BITS;
        if (kind !== SUFFIX && label === labels - 1) best.isWhole = false;
        if (kind !== unfit) consider(matcher, part, entry, kind === EXACT ? 1000 : 1999 - label, target);
      }
    }
  }
  if (whole) considerRanges(matcher, familyOf(host), null, target, host);
  return best;
}

function startAnew(): void {
  best.steering = best.blocking = best.allowing = best.blockingByHand = best.maybe = NONE;
  best.ownPart = best.ownEntry = best.parent = NONE;
  best.isWhole = true;
  best.steeringAction = null;
  best.isMaybe = best.isConditional = false;
}

function settled(found: Best): Best {
  const action = found.steeringAction;
  if (action?.do === 'route' && action.filter === 'off') {
    found.blocking = found.blockingByHand;
    found.blockingRank = found.blockingByHandRank;
  }
  // It might win only where nothing that surely holds steers before it.
  found.isMaybe = found.maybe !== NONE && (found.steering === NONE || found.maybeRank <= found.steeringRank);
  return found;
}

function considerRanges(
  matcher: CompiledMatcher,
  family: Family,
  number: bigint | null,
  target: Target | null,
  host = '',
  onlyResolved = false,
): void {
  let asked = number;
  for (const part of matcher.parts) {
    for (const { family: theirs, prefix, byBits } of part.index.ranges) {
      if (theirs !== family) continue;
      asked ??= numberOf(host);
      const entries = byBits.get(asked >> freeBits(family, prefix));
      if (entries === undefined) continue;
      const rank = 3000 - (family === 6 ? prefix : prefix + 96);
      for (const entry of entries)
        if (!onlyResolved || part.table.conditions.get(entry)?.resolved) consider(matcher, part, entry, rank, target);
    }
  }
}

/** The ranges that count for names, by the addresses of one. */
function considerResolved(matcher: CompiledMatcher, host: string, target: Target): void {
  best.isConditional = true;
  if (isAddress(host)) return;
  for (const address of target.addresses!)
    considerRanges(matcher, familyOf(address), numberOf(address), target, address, true);
}

function considerPatterns(matcher: CompiledMatcher, host: string, target: Target | null): void {
  for (const part of matcher.parts) {
    const { keywords, regexes } = part.index;
    if (keywords !== null) {
      for (let at = 0; at < host.length - 1; at++) {
        const there = keywords.get(pairAt(host, at));
        if (there === undefined) continue;
        for (const { text, entry } of there)
          if (host.startsWith(text, at)) consider(matcher, part, entry, PATTERN_RANK, target);
      }
    }
    for (const { regex, entry } of regexes)
      if (isFoundIn(regex, host)) consider(matcher, part, entry, PATTERN_RANK, target);
  }
}

/** Takes an entry into account that fits the host. */
function consider(matcher: CompiledMatcher, part: Part, entry: number, byKind: number, target: Target | null): void {
  const { table } = part;
  const kind = table.kinds[entry]!;
  const owner = ownerAt(part, entry);
  const action = (kind & ALLOWS) === 0 ? owner.action : exceptionOf(owner.action);
  const index = part.first + entry;
  let rank = owner.rank ?? byKind;
  if ((kind & CONDITIONAL) !== 0) {
    const condition = table.conditions.get(entry)!;
    if (owner.rank === undefined) rank -= precedenceOf(condition);
    best.isConditional = true;
    if (target === null) {
      const sends = action.do === 'route' || action.do === 'block';
      if (sends && (best.maybe === NONE || rank < best.maybeRank)) {
        best.maybe = index;
        best.maybeRank = rank;
      }
      return;
    }
    if (!holds(condition, target, action.do === 'route')) return;
  }
  switch (action.do) {
    case 'route':
    case 'off':
      if (isBetter(matcher, index, rank, best.steering, best.steeringRank)) {
        best.steering = index;
        best.steeringRank = rank;
        best.steeringAction = action;
      }
      break;
    case 'allow':
      if (isBetter(matcher, index, rank, best.allowing, best.allowingRank)) {
        best.allowing = index;
        best.allowingRank = rank;
      }
      break;
    case 'block':
      if (isBetter(matcher, index, rank, best.blocking, best.blockingRank)) {
        best.blocking = index;
        best.blockingRank = rank;
      }
      if (owner.list === undefined && isBetter(matcher, index, rank, best.blockingByHand, best.blockingByHandRank)) {
        best.blockingByHand = index;
        best.blockingByHandRank = rank;
      }
      break;
  }
}

function isBetter(matcher: CompiledMatcher, index: number, rank: number, than: number, thanRank: number): boolean {
  if (than === NONE || rank < thanRank) return true;
  return rank === thanRank && isEarlier(matcher, index, than);
}

/** In the order of the file. Within a table names and others are numbered apart, so the line says. */
function isEarlier(matcher: CompiledMatcher, index: number, than: number): boolean {
  const a = partOf(matcher, index);
  const b = partOf(matcher, than);
  if (a !== b) return a.first < b.first;
  const line = a.table.lines[index - a.first]!;
  const other = a.table.lines[than - a.first]!;
  return line < other || (line === other && index < than);
}

function partOf({ parts }: CompiledMatcher, index: number): Part {
  for (let p = parts.length - 1; p > 0; p--) if (parts[p]!.first <= index && parts[p]!.table.size > 0) return parts[p]!;
  return parts[0]!;
}

function ownerAt({ owner, owners, table }: Part, entry: number): Owner {
  return owner ?? owners[table.lines[entry]! - 1]!;
}

function winnerOf(matcher: CompiledMatcher, found: Best): number {
  const { steering, blocking, blockingRank, allowing, allowingRank } = found;
  let winner = steering;
  let rank = found.steeringRank;
  if (blocking !== NONE && isBetter(matcher, blocking, blockingRank, winner, rank)) {
    winner = blocking;
    rank = blockingRank;
  }
  if (allowing !== NONE && isBetter(matcher, allowing, allowingRank, winner, rank)) winner = allowing;
  return winner;
}

function decisionOf(matcher: CompiledMatcher, found: Best): Decision {
  const winner = winnerOf(matcher, found);
  const isSteered = winner !== NONE && (winner === found.blocking || found.steeringAction?.do === 'route');
  if (isSteered) return steeredDecisionOf(matcher, found, '');
  const { steering } = found;
  return steering === NONE ? NOT_STEERED : { steered: false, because: becauseOf(matcher, steering) };
}

function steeredDecisionOf(matcher: CompiledMatcher, found: Best, defaultRoute: RouteName): SteeredDecision {
  const { steering, blocking, allowing } = found;
  const winner = winnerOf(matcher, found);
  if (winner !== NONE && winner === blocking) return blocked(becauseOf(matcher, blocking));
  const overrules =
    winner !== NONE &&
    winner === allowing &&
    blocking !== NONE &&
    isBetter(matcher, blocking, found.blockingRank, steering, found.steeringRank);
  const allowedBy = overrules ? becauseOf(matcher, allowing) : undefined;
  const because = steering === NONE ? UNNAMED : becauseOf(matcher, steering);
  const action = found.steeringAction;
  if (action?.do === 'route') {
    const { route, filter, cache, inspect, local } = action;
    return { steered: true, route, filter, cache, inspect, local, because, allowedBy };
  }
  if (defaultRoute === 'block') return blocked(because);
  return {
    steered: true,
    route: defaultRoute,
    filter: 'standard',
    cache: 'standard',
    inspect: false,
    because,
    allowedBy,
  };
}

function blocked(blockedBy: Because): SteeredDecision {
  return {
    steered: true,
    route: 'block',
    filter: 'standard',
    cache: 'off',
    inspect: false,
    because: blockedBy,
    blockedBy,
  };
}

function becauseOf(matcher: CompiledMatcher, index: number): Because {
  const part = partOf(matcher, index);
  const { table } = part;
  const entry = index - part.first;
  const { id, list } = ownerAt(part, entry);
  const when = table.conditions.get(entry);
  const text = formatMatcher(matcherAt(table, entry)) + (when ? ` ${formatCondition(when)}` : '');
  return list === undefined ? { rule: id, text } : { rule: id, text, list, line: table.lines[entry]! };
}

/** What an exception of a list does: the host is not what the list makes of others. */
function exceptionOf(action: Action): Action {
  return action.do === 'route' ? OFF_ACTION : ALLOW;
}

/** `block` is a route by name and an action by nature. */
function plain(action: Action): Action {
  return action.do === 'route' && action.route === 'block' ? { do: 'block' } : action;
}

function remember<T extends Decision>(memory: Map<string, T>, host: string, decision: T): T {
  if (memory.size >= REMEMBERED) memory.clear();
  memory.set(host, decision);
  return decision;
}

function freeBits(family: Family, prefix: number): bigint {
  return BigInt(ADDRESS_BITS[family] - prefix);
}

function countLabels(host: string): number {
  let labels = 1;
  for (let dot = host.indexOf('.'); dot >= 0; dot = host.indexOf('.', dot + 1)) labels++;
  return labels;
}
