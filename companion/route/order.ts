// In which order the chains of a route are tried: what the file says (its order and how one is picked), bent by what is known. Pure but for the memory that
// is handed in. Every chain is in every order: what has failed goes last, and is tried when nothing else works.
import type { Milliseconds } from '../../shared/units.ts';
import type { Chain, ChainKnowledge, Group, ResolvedRoute } from '../rooms.ts';
import { type StickyMemory, rendezvous } from './sticky.ts';

/** `race`: so long the better chain is alone. */
export const HEAD_START: Milliseconds = 300;
/** A chain that nobody knows the latency of is tried once, by a request that needs a chain anyway; again after so long. */
export const MEASURE_EVERY: Milliseconds = 60_000;

/** What picking remembers of the requests before. It is bounded by the groups and chains of the file, but for sticky's, which bounds itself. */
export interface PickMemory {
  /** Whose turn it is, by the name of the group; at first `firstTurn`. */
  readonly firstTurn: number;
  readonly turns: Map<string, number>;
  /** The member that latency has picked, by the name of the group. */
  readonly inUse: Map<string, string>;
  /** When a chain of unknown latency was tried for it, by group and member. */
  readonly measuredAt: Map<string, Milliseconds>;
  readonly sticky: StickyMemory;
}

/** `sticky` outlives a change of the file; the rest begins anew with it. */
export function makePickMemory(sticky: StickyMemory, firstTurn = 0): PickMemory {
  return { firstTurn, turns: new Map(), inUse: new Map(), measuredAt: new Map(), sticky };
}

/** All chains of the route in the order to try them for this site, each once. Where nothing is known and nothing is to be picked, the very list of the route. */
export function orderOf(
  route: ResolvedRoute,
  site: string,
  knowledge: ChainKnowledge,
  now: Milliseconds,
  memory: PickMemory,
): readonly Chain[] {
  const { chains, group } = route;
  if (chains.length < 2) return chains;
  const isUp = (chain: Chain) => !knowledge.isLast(site, chain) && !knowledge.isDown(chain);
  const wished = group === undefined ? chains : wishedFor(route, group, { site, knowledge, now, memory, isUp });
  const ordered = upFirst(wished, isUp);
  return ordered === chains ? chains : keepDirectBack(ordered, chains);
}

/**
 * How long the first of these two is alone before the second is tried at the same time; null = until it has failed. Where a route says race, and where it says
 * auto and it is a question whether a site needs the chains. The companion's own connection is never the second: it only waits for others.
 */
export function headStartOf(
  { group }: ResolvedRoute,
  first: Chain,
  second: Chain,
  site: string,
  knowledge: ChainKnowledge,
): Milliseconds | null {
  if (group === undefined || second.hops.length === 0) return null;
  if (arePicked(group, 'race', first, second)) return HEAD_START;
  if (first.hops.length > 0 || !arePicked(group, 'auto', first, second)) return null;
  return knowledge.headStart?.(site) ?? null;
}

/** Tells the memory that a chain has served a site. */
export function noteServed(route: ResolvedRoute, site: string, chain: Chain, { sticky }: PickMemory): void {
  if (route.group !== undefined) noteIn(route.group, site, chain, sticky);
}

interface Moment {
  readonly site: string;
  readonly knowledge: ChainKnowledge;
  readonly now: Milliseconds;
  readonly memory: PickMemory;
  readonly isUp: (chain: Chain) => boolean;
}

/** A member of a group, with its chains in order. */
interface Unit {
  readonly id: string;
  readonly chains: readonly Chain[];
}

function wishedFor({ chains }: ResolvedRoute, group: Group, moment: Moment): readonly Chain[] {
  const { pick, name, members } = group;
  const isPlain = pick === 'race' || (pick === 'auto' && moment.knowledge.preferred(moment.site, name) === null);
  if (isPlain && members.every(member => 'hops' in member)) return chains;
  const wished = [...new Set(pickFrom(group, moment))];
  // What the floor of the route forbids may stand in a group of it.
  return wished.length === chains.length ? wished : wished.filter(chain => chains.includes(chain));
}

/** The chains of a group in the order in which its pick wants them; one may come twice. */
function pickFrom(group: Group, moment: Moment): readonly Chain[] {
  const units = group.members.map((member): Unit =>
    'hops' in member
      ? { id: member.key, chains: [member] }
      : // A group may have the name that a chain has.
        { id: `${member.name}\n`, chains: pickFrom(member, moment) },
  );
  switch (group.pick) {
    case 'latency':
      return chainsOf(byLatency(group, units, moment));
    case 'round-robin':
      return chainsOf(byTurn(group, units, moment));
    case 'sticky':
      return toFront(
        chainsOf(units.toSorted((a, b) => rendezvous(moment.site, b.id) - rendezvous(moment.site, a.id))),
        moment.memory.sticky.chainOf(group.name, moment.site),
      );
    case 'auto':
      return preferredFirst(chainsOf(units), moment.knowledge.preferred(moment.site, group.name));
    default:
      return chainsOf(units);
  }
}

/**
 * The member in use stays the first until another is faster by more than the tolerance; then that one is in use. Where it does not work for this site alone,
 * others keep to it. What nobody has measured is tried once before all others, for it could never show how fast it is.
 */
function byLatency({ name, tolerance }: Group, units: readonly Unit[], moment: Moment): readonly Unit[] {
  const { inUse, measuredAt } = moment.memory;
  const able = inTurn(units, moment.isUp);
  if (able.length < 2) return first(units, able[0]);
  const latencyOf = ({ chains }: Unit) => moment.knowledge.latency(chains.find(moment.isUp)!);
  const used = units.find(unit => unit.id === inUse.get(name));
  let best = used !== undefined && able.includes(used) ? used : able[0]!;
  const isForAll = used === undefined || used === best || used.chains.every(chain => moment.knowledge.isDown(chain));
  const least = latencyOf(best);
  if (least !== null) {
    let bar = least - tolerance;
    for (const unit of able) {
      const latency = latencyOf(unit);
      if (latency === null || latency >= bar) continue;
      best = unit;
      bar = latency;
    }
  }
  if (isForAll) inUse.set(name, best.id);
  const unknown = able.find(unit => unit !== best && latencyOf(unit) === null && isDue(unit));
  if (unknown === undefined) return first(units, best);
  measuredAt.set(`${name}\n${unknown.id}`, moment.now);
  return [unknown, best, ...units.filter(unit => unit !== unknown && unit !== best)];

  function isDue(unit: Unit): boolean {
    const at = measuredAt.get(`${name}\n${unit.id}`);
    return at === undefined || moment.now - at >= MEASURE_EVERY;
  }
}

/** One after the other: those that are up take turns, so that none of them gets the share of one that is down. */
function byTurn({ name }: Group, units: readonly Unit[], { memory, isUp }: Moment): readonly Unit[] {
  const turn = memory.turns.get(name) ?? memory.firstTurn;
  memory.turns.set(name, (turn + 1) % Number.MAX_SAFE_INTEGER);
  const up = inTurn(units, isUp);
  if (up.length < 2) return units;
  const start = turn % up.length;
  const rotated = [...up.slice(start), ...up.slice(0, start)];
  return [...rotated, ...units.filter(unit => !up.includes(unit))];
}

/** Who may be picked: what is up. The companion's own connection is only if it stands first: otherwise it waits for those before it. */
function inTurn(units: readonly Unit[], isUp: (chain: Chain) => boolean): readonly Unit[] {
  return units.filter(({ chains }, i) => (i === 0 || chains.some(chain => chain.hops.length > 0)) && chains.some(isUp));
}

const chainsOf = (units: readonly Unit[]) => units.flatMap(unit => unit.chains);
const first = (units: readonly Unit[], one: Unit | undefined) =>
  one === undefined || units[0] === one ? units : [one, ...units.filter(unit => unit !== one)];

function toFront(chains: readonly Chain[], key: string | null): readonly Chain[] {
  const chain = key === null ? undefined : chains.find(one => one.key === key);
  return chain === undefined ? chains : [chain, ...chains.filter(one => one !== chain)];
}

/** With a chain of hops in front, the companion's own connection is what the site is known not to be reached by: it comes last. */
function preferredFirst(chains: readonly Chain[], key: string | null): readonly Chain[] {
  const ordered = toFront(chains, key);
  if (key === null || ordered[0]?.key !== key || ordered[0].hops.length === 0) return ordered;
  return [...ordered.filter(({ hops }) => hops.length > 0), ...ordered.filter(({ hops }) => hops.length === 0)];
}

function upFirst(chains: readonly Chain[], isUp: (chain: Chain) => boolean): readonly Chain[] {
  let isSorted = true;
  let down = 0;
  for (const chain of chains) {
    if (!isUp(chain)) down++;
    else if (down > 0) isSorted = false;
  }
  return isSorted ? chains : [...chains.filter(isUp), ...chains.filter(chain => !isUp(chain))];
}

/** The chain of zero hops never overtakes a chain that the file puts before it: a failing hop must not quietly turn into going direct. */
function keepDirectBack(ordered: readonly Chain[], inFile: readonly Chain[]): readonly Chain[] {
  const direct = ordered.findIndex(chain => chain.hops.length === 0);
  if (direct < 0) return ordered;
  const zero = ordered[direct]!;
  const others = ordered.filter(chain => chain !== zero);
  const before = inFile.slice(0, inFile.indexOf(zero));
  let place = direct;
  for (const chain of before) place = Math.max(place, others.indexOf(chain) + 1);
  return [...others.slice(0, place), zero, ...others.slice(place)];
}

function holds(group: Group, chain: Chain): boolean {
  return group.members.some(member => ('hops' in member ? member === chain : holds(member, chain)));
}

/** Whether both are in one group that is picked from in this way. */
function arePicked(group: Group, pick: Group['pick'], first: Chain, second: Chain): boolean {
  if (group.pick === pick && holds(group, first) && holds(group, second)) return true;
  return group.members.some(member => !('hops' in member) && arePicked(member, pick, first, second));
}

function noteIn(group: Group, site: string, chain: Chain, sticky: StickyMemory): void {
  if (group.pick === 'sticky' && holds(group, chain)) sticky.served(group.name, site, chain.key);
  for (const member of group.members) if (!('hops' in member)) noteIn(member, site, chain, sticky);
}
