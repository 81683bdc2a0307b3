// The one matcher: which rule decides for a host, and what follows from it. PAC and table are compiled from it, never beside it.
//
// Ranks. The smallest rank wins; of equal ranks the first in the file does (sites, then rules, then lists; within each in order).
// A rank given by hand is compared with what the others have by their matcher:
//   exact host, or one address   1000
//   suffix, subdomains           2000 - number of labels of its host, so that the longer one wins
//   address range                3000 - prefix in IPv6 terms (an IPv4 prefix counts 96 more), so that the narrower one wins
//
// Actions. `route` and `off` steer, `block` stops, `allow` cancels a block and says nothing of steering. With the best of each:
//   allow wins  → the best route or off decides, as though no block were there; none → not steered
//   block wins  → steered, so that the companion can refuse; blocks of a *list* do not count where the deciding route says `filter: off`
//   route, off  → as they say
import { isAddress } from '../endpoint.ts';
import { ADDRESS_BITS, type Family, boundsOf, familyOf, numberOf } from './address.ts';
import { formatMatcher } from './parse-matcher.ts';
import type { Action, Because, Decision, DecisionTarget, Matcher, RouteName, RuleSource } from './rule.ts';

const EXACT = 0;
const SUFFIX = 1;
const SUBDOMAINS = 2;
type Kind = typeof EXACT | typeof SUFFIX | typeof SUBDOMAINS;
const KINDS = ['exact', 'suffix', 'subdomains'] as const;

const ALLOW: Action = { do: 'allow' };
const UNNAMED: Because = { rule: 'default' };
const NOT_STEERED: Decision = { steered: false, because: UNNAMED };
/** Decisions remembered by host; a browser asks for few hosts many times. */
const REMEMBERED = 4096;
const NONE = -1;

/** Whoever an entry belongs to: a rule by hand, or a list (whose entries share it). */
interface Owner {
  readonly action: Action;
  readonly id: string;
  /** The list's name; absent for a rule by hand. */
  readonly list: string | undefined;
}

/** The address ranges of one family and prefix, by the bits that they fix; the value is the first entry of a chain. */
interface Ranges {
  readonly family: Family;
  readonly prefix: number;
  readonly byBits: Map<bigint, number>;
}

export type SteeredDecision = Extract<Decision, { steered: true }>;

/** A compiled rule source. What is in it is this folder's business; the entries stand in parallel arrays, in file order. */
export interface CompiledMatcher {
  /** Hosts that rules name, each with the first entry of its chain. */
  readonly byHost: ReadonlyMap<string, number>;
  readonly ranges: readonly Ranges[];
  /** Entries in all. */
  readonly size: number;
  readonly entries: Entries;
  readonly decided: Map<string, Decision>;
  readonly decidedForCompanion: { route: RouteName; byHost: Map<string, SteeredDecision> };
}

interface Entries {
  readonly owners: readonly Owner[];
  readonly owner: Uint32Array;
  readonly kind: Uint8Array;
  readonly rank: Float64Array;
  /** The matcher's host, or a range as text. */
  readonly subject: string[];
  /** Line of a list; 0 for a rule by hand. */
  readonly line: Uint32Array;
  /** 1 where an entry of a list is an exception. */
  readonly allows: Uint8Array;
  /** The next entry of the same host or range, or NONE. */
  readonly next: Int32Array;
}

/** Compiles rules and lists for `decide`. The source is not kept: of it only the hosts' text lives on. */
export function compileMatcher(source: RuleSource): CompiledMatcher {
  const size = source.lists.reduce((sum, list) => sum + list.entries.length, source.rules.length);
  const entries = {
    owners: [] as Owner[],
    owner: new Uint32Array(size),
    kind: new Uint8Array(size),
    rank: new Float64Array(size),
    subject: Array<string>(size),
    line: new Uint32Array(size),
    allows: new Uint8Array(size),
    next: new Int32Array(size).fill(NONE),
  };
  const byHost = new Map<string, number>();
  const ranges = new Map<string, Ranges>();
  let index = 0;

  const chain = <K>(map: Map<K, number>, key: K) => {
    const first = map.get(key);
    if (first === undefined) {
      map.set(key, index);
    } else {
      // Into second place: the order of a chain does not matter, ranks and indexes settle it.
      entries.next[index] = entries.next[first]!;
      entries.next[first] = index;
    }
  };
  const add = (matcher: Matcher, rank: number | undefined) => {
    entries.owner[index] = entries.owners.length - 1;
    entries.rank[index] = rank ?? defaultRank(matcher);
    if (matcher.kind === 'cidr') {
      entries.subject[index] = formatMatcher(matcher);
      const { family, first } = boundsOf(matcher.address, matcher.prefix);
      const name = `${family}/${matcher.prefix}`;
      let one = ranges.get(name);
      if (!one) ranges.set(name, (one = { family, prefix: matcher.prefix, byBits: new Map() }));
      chain(one.byBits, first >> freeBits(family, matcher.prefix));
    } else {
      entries.subject[index] = matcher.host;
      entries.kind[index] = KINDS.indexOf(matcher.kind);
      chain(byHost, matcher.host);
    }
    index++;
  };

  for (const rule of source.rules) {
    entries.owners.push({ action: plain(rule.action), id: rule.id, list: undefined });
    add(rule.matcher, rule.rank);
  }
  for (const list of source.lists) {
    entries.owners.push({ action: plain(list.action), id: list.id, list: list.name });
    for (const entry of list.entries) {
      entries.line[index] = entry.line;
      if (entry.allow) entries.allows[index] = 1;
      add(entry.matcher, list.rank);
    }
  }
  return {
    byHost,
    ranges: [...ranges.values()],
    size,
    entries,
    decided: new Map(),
    decidedForCompanion: { route: '', byHost: new Map() },
  };
}

/** The rank a matcher has where none is given by hand; see the top of this file. */
export function defaultRank(matcher: Matcher): number {
  switch (matcher.kind) {
    case 'exact':
      return 1000;
    case 'suffix':
    case 'subdomains':
      return 2000 - countLabels(matcher.host);
    case 'cidr':
      return 3000 - (matcher.address.includes(':') ? matcher.prefix : matcher.prefix + 96);
  }
}

/**
 * What becomes of a target: not steered, or steered with all that follows from the rule, and always why. The same decision object may come
 * back for the same host again. Today's rules look at the host alone.
 */
export function decide(matcher: CompiledMatcher, target: Pick<DecisionTarget, 'host'>): Decision {
  const { host } = target;
  return (
    matcher.decided.get(host) ?? remember(matcher.decided, host, decisionOf(matcher, bestFor(matcher, host, false)))
  );
}

/**
 * The same for what has reached the companion: it came here, so it is steered whatever a rule says, by the default route where no rule
 * names one; `because` stays the rule that would not have steered it, or `default`.
 */
export function decideForCompanion(
  matcher: CompiledMatcher,
  target: Pick<DecisionTarget, 'host'>,
  defaultRoute: RouteName,
): SteeredDecision {
  const memory = matcher.decidedForCompanion;
  if (memory.route !== defaultRoute) {
    memory.route = defaultRoute;
    memory.byHost.clear();
  }
  const { host } = target;
  return (
    memory.byHost.get(host) ??
    remember(memory.byHost, host, steeredDecisionOf(matcher, bestFor(matcher, host, false), defaultRoute))
  );
}

/** What a dialect keeps of a decision. */
export const DIRECT = 0;
export const STEERED = 1;
export const BLOCKED = 2;
/** Steered, and its pages may reach this machine and its network. */
export const OPEN = 3;
export type Verdict = typeof DIRECT | typeof STEERED | typeof BLOCKED | typeof OPEN;
/** How many there are: dialects count by it. */
export const VERDICTS = 4;

/** The verdict for a host or, with `below`, for its subdomains that no rule names more closely. */
export function verdictOf(matcher: CompiledMatcher, host: string, below: boolean): Verdict {
  return verdictOfBest(matcher, bestFor(matcher, host, below));
}

/** The verdict for an address that only ranges name. */
export function verdictOfNumber(matcher: CompiledMatcher, family: Family, number: bigint): Verdict {
  startAnew();
  considerRanges(matcher, family, number);
  return verdictOfBest(matcher, settled(matcher));
}

function verdictOfBest(matcher: CompiledMatcher, found: Best): Verdict {
  const winner = winnerOf(matcher, found);
  if (winner === NONE) return DIRECT;
  if (winner === found.blocking) return BLOCKED;
  const action = found.steering === NONE ? null : actionOf(matcher, found.steering);
  return action?.do !== 'route' ? DIRECT : action.local ? OPEN : STEERED;
}

/** The best entry of each sort, or NONE. */
interface Best {
  /** Of those that say route or off. */
  steering: number;
  /** Of those that block, less those that `filter: off` silences. */
  blocking: number;
  allowing: number;
}

// One object for all calls: nothing here calls back, so nobody else can be reading it.
const best = { steering: NONE, blocking: NONE, allowing: NONE, blockingByHand: NONE };

function bestFor(matcher: CompiledMatcher, host: string, below: boolean): Best {
  startAnew();
  const { byHost } = matcher;
  consider(matcher, byHost.get(host), below ? SUBDOMAINS : EXACT);
  if (!isAddress(host)) {
    for (let dot = host.indexOf('.'); dot >= 0; dot = host.indexOf('.', dot + 1)) {
      consider(matcher, byHost.get(host.slice(dot + 1)), SUBDOMAINS);
    }
  } else if (matcher.ranges.length > 0) considerRanges(matcher, familyOf(host), numberOf(host));
  return settled(matcher);
}

function startAnew(): void {
  best.steering = best.blocking = best.allowing = best.blockingByHand = NONE;
}

function settled(matcher: CompiledMatcher): Best {
  if (best.steering !== NONE) {
    const action = actionOf(matcher, best.steering);
    if (action.do === 'route' && action.filter === 'off') best.blocking = best.blockingByHand;
  }
  return best;
}

function considerRanges(matcher: CompiledMatcher, family: Family, number: bigint): void {
  for (const { family: theirs, prefix, byBits } of matcher.ranges) {
    if (theirs === family) consider(matcher, byBits.get(number >> freeBits(family, prefix)), EXACT);
  }
}

/** Takes the entries of one chain into account; a parent's (or `below`) only where they reach down. */
function consider(matcher: CompiledMatcher, first: number | undefined, as: Kind): void {
  if (first === undefined) return;
  const { entries } = matcher;
  for (let index = first; index !== NONE; index = entries.next[index]!) {
    const kind = entries.kind[index];
    if (as === SUBDOMAINS ? kind === EXACT : kind === SUBDOMAINS) continue;
    switch (actionOf(matcher, index).do) {
      case 'route':
      case 'off':
        if (isBetter(entries, index, best.steering)) best.steering = index;
        break;
      case 'allow':
        if (isBetter(entries, index, best.allowing)) best.allowing = index;
        break;
      case 'block':
        if (isBetter(entries, index, best.blocking)) best.blocking = index;
        if (ownerOf(entries, index).list === undefined && isBetter(entries, index, best.blockingByHand))
          best.blockingByHand = index;
        break;
    }
  }
}

function isBetter(entries: Entries, index: number, than: number): boolean {
  if (than === NONE) return true;
  const difference = entries.rank[index]! - entries.rank[than]!;
  return difference < 0 || (difference === 0 && index < than);
}

function winnerOf(matcher: CompiledMatcher, { steering, blocking, allowing }: Best): number {
  let winner = steering;
  if (blocking !== NONE && isBetter(matcher.entries, blocking, winner)) winner = blocking;
  if (allowing !== NONE && isBetter(matcher.entries, allowing, winner)) winner = allowing;
  return winner;
}

function decisionOf(matcher: CompiledMatcher, found: Best): Decision {
  if (verdictOfBest(matcher, found) !== DIRECT) return steeredDecisionOf(matcher, found, '');
  const { steering } = found;
  return steering === NONE ? NOT_STEERED : { steered: false, because: becauseOf(matcher, steering) };
}

function steeredDecisionOf(matcher: CompiledMatcher, found: Best, defaultRoute: RouteName): SteeredDecision {
  const { steering, blocking, allowing } = found;
  const winner = winnerOf(matcher, found);
  if (winner !== NONE && winner === blocking) return blocked(becauseOf(matcher, blocking));
  const overrules =
    winner !== NONE && winner === allowing && blocking !== NONE && isBetter(matcher.entries, blocking, steering);
  const allowedBy = overrules ? becauseOf(matcher, allowing) : undefined;
  const because = steering === NONE ? UNNAMED : becauseOf(matcher, steering);
  const action = steering === NONE ? null : actionOf(matcher, steering);
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

function becauseOf({ entries }: CompiledMatcher, index: number): Because {
  const { id, list } = ownerOf(entries, index);
  const subject = entries.subject[index]!;
  const kind = KINDS[entries.kind[index]!]!;
  const text = subject.includes('/') ? subject : formatMatcher({ kind, host: subject });
  return list === undefined ? { rule: id, text } : { rule: id, text, list, line: entries.line[index] };
}

function actionOf({ entries }: CompiledMatcher, index: number): Action {
  return entries.allows[index] === 1 ? ALLOW : ownerOf(entries, index).action;
}

function ownerOf(entries: Entries, index: number): Owner {
  return entries.owners[entries.owner[index]!]!;
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
