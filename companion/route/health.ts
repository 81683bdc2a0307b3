// How the hops fare, by what traffic shows (nobody is asked): whether one can be connected to at the moment, how long it takes, what came of it lately. A hop
// is known by the way to it ("office", "squid>tor"): what cannot be reached from one place may well be from another. What a hop says of one site is no
// matter of its health; that is outcome-memory.ts's.
import type { Attempt, HopTrace } from '../../shared/exchange.ts';
import type { Fault, FaultKind } from '../../shared/fault.ts';
import type { EpochMilliseconds, Milliseconds } from '../../shared/units.ts';
import type { Chain, FailedTry } from '../rooms.ts';
import { hasHop } from './outcome-memory.ts';

/** A hop that cannot be connected to goes last for so long; then one request tries it again. */
export const DOWN_FOR: Milliseconds = 30_000;
/** That request has so long; then another gets the chance. */
const CHANCE_FOR: Milliseconds = 20_000;
/** Outcomes kept of each hop. */
export const MAX_HISTORY = 32;
/** Ways to hops, and chains, that are kept account of. */
export const MAX_LINKS = 2_048;
/** Before the key of a chain: the chain as a whole. No hop begins with it. */
const WHOLE = '\n';
/** What one measurement weighs in the moving average. */
const WEIGHT = 0.25;

/** One connection to a hop. */
export interface HopOutcome {
  readonly at: EpochMilliseconds;
  readonly outcome: 'ok' | FaultKind;
  /** To connect and be let in; null = it failed. */
  readonly took: Milliseconds | null;
}

/** How a hop fares, as the CLI and the popup show it. */
export interface HopHealth {
  /** The names of the hops on the way to it; itself the last. */
  readonly hop: readonly string[];
  /** open: it goes last. half-open: the next request tries it. */
  readonly circuit: 'closed' | 'open' | 'half-open';
  /** Until when it is open; null = it is not. */
  readonly until: EpochMilliseconds | null;
  /** Failures in a row. */
  readonly failures: number;
  readonly latency: Milliseconds | null;
  readonly lastTook: Milliseconds | null;
  /** Oldest first. */
  readonly history: readonly HopOutcome[];
}

/** How a chain fares: as its worst hop. */
export interface ChainHealth {
  /** probing: a hop was down, and the next request tries it. */
  readonly state: 'up' | 'down' | 'probing' | 'unknown';
  /** From the first connection to the target. */
  readonly latency: Milliseconds | null;
  /** Failures in a row. */
  readonly failures: number;
  readonly failedAt?: EpochMilliseconds | undefined;
  /** The sentence of the last failure. */
  readonly reason?: string | undefined;
  readonly check?: CheckOutcome | undefined;
}

/** What asking through a chain found, the last time. */
export interface CheckOutcome {
  readonly at: EpochMilliseconds;
  /** Whether the answer was the one that is expected. */
  readonly ok: boolean;
  readonly took: Milliseconds;
  readonly status?: number | undefined;
  /** The address that the answer says it was asked from. */
  readonly exit?: string | undefined;
  /** What was wrong. */
  readonly reason?: string | undefined;
}

/** What asking through a chain found, as far as its hops are met. */
export interface CheckedSteps {
  readonly outcome: 'ok' | FaultKind;
  readonly stage: Attempt['stage'];
  readonly hops: readonly HopTrace[];
}

/** What other workers should know at once: their requests should not find it out again. */
export type LinkNews =
  | { readonly outcome: 'link-failed'; readonly link: string; readonly lifetime: Milliseconds }
  | { readonly outcome: 'link-worked'; readonly link: string }
  /** How long a chain took to stand when it was asked through; no worker's own traffic shows that. */
  | { readonly outcome: 'measured'; readonly chain: string; readonly took: Milliseconds };

interface Average {
  latency: Milliseconds | null;
  last: Milliseconds | null;
}

interface Link extends Average {
  downUntil: EpochMilliseconds;
  chanceUntil: EpochMilliseconds;
  failures: number;
  /** The last failure's. */
  failedAt: EpochMilliseconds;
  reason: string | undefined;
  history: HopOutcome[];
}

export interface Health {
  isDown(chain: Chain): boolean;
  latency(chain: Chain): Milliseconds | null;
  /** The chain is tried now. */
  trying(chain: Chain): void;
  /** So far it has come: with all its steps a chain stands. */
  stood(chain: Chain, steps: readonly HopTrace[]): void;
  /** The hop at this place of the chain could not be connected to, or did not let us in. */
  failed(chain: Chain, index: number, fault: Pick<Fault, 'kind' | 'message'>): void;
  /** What another worker's traffic shows: it goes into the account, while circuits are told of by themselves. */
  observe(chain: Chain, attempt: Attempt): void;
  /** What asking through the chain found; a no counts for so long, unless something else is found out before. */
  checked(chain: Chain, check: CheckOutcome, found: CheckedSteps, lifetime: Milliseconds): void;
  hear(news: LinkNews): void;
  /** Hops that have these names now are others than before. */
  forget(hops: ReadonlySet<string>): void;
  /** What a new worker should know. */
  all(): LinkNews[];
  of(chain: Chain): ChainHealth;
  /** Every hop that was met. */
  hops(): HopHealth[];
}

/** Which hop of the chain is away, for whatever site; null = none: it is this site that does not get through. */
export function hopAway(chain: Chain, { fault, stage, steps }: FailedTry): number | null {
  return awayOf(chain, fault.kind, stage, steps, fault.sign, fault.hop !== undefined);
}

function awayOf(
  { hops }: Chain,
  outcome: Attempt['outcome'],
  stage: Attempt['stage'],
  steps: readonly HopTrace[],
  sign: Attempt['sign'],
  isHops: boolean,
): number | null {
  if (hops.length === 0 || stage === 'response' || stage === 'reused' || sign === undefined) return null;
  const asked = Math.min(Math.max(0, steps.length - 1), hops.length - 1);
  if (outcome === 'hop_authentication_failed') return asked;
  // A policy's no is about what was asked for, be it the next hop.
  if (outcome === 'hop_refused' || sign === 'policy' || sign === 'rate') return null;
  if (stage === 'connect') return isHops ? 0 : null;
  if (stage === 'greeting') return asked;
  return steps.length < hops.length ? steps.length : null;
}

/** `now` tells spans, `wallClock` the time of day. `tell` takes on what changes. */
export function makeHealth(
  now: () => Milliseconds,
  wallClock: () => EpochMilliseconds,
  tell: (news: LinkNews) => void = () => {},
): Health {
  const links = new Map<string, Link>();
  const averages = new Map<string, Average>();
  const checks = new Map<string, CheckOutcome>();
  const namesOfLinks = new WeakMap<Chain, readonly string[]>();
  /** Links that are not closed: while there are none, nothing is asked. */
  let troubled = 0;

  const linksOf = (chain: Chain): readonly string[] => {
    let names = namesOfLinks.get(chain);
    if (names === undefined) {
      // The last one stands for the chain as a whole, which only a check has an opinion of.
      names = [
        ...chain.hops.map((_, i) =>
          chain.hops
            .slice(0, i + 1)
            .map(hop => hop.name)
            .join('>'),
        ),
        WHOLE + chain.key,
      ];
      namesOfLinks.set(chain, names);
    }
    return names;
  };
  const linkAt = (name: string): Link => {
    let link = links.get(name);
    if (link === undefined) {
      link = {
        latency: null,
        last: null,
        downUntil: 0,
        chanceUntil: 0,
        failures: 0,
        failedAt: 0,
        reason: undefined,
        history: [],
      };
      links.set(name, link);
      if (links.size > MAX_LINKS) {
        const [oldest, gone] = links.entries().next().value!;
        links.delete(oldest);
        if (gone.failures > 0) troubled--;
      }
    }
    return link;
  };
  const measure = (average: Average, took: Milliseconds) => {
    average.last = took;
    average.latency = average.latency === null ? took : average.latency + WEIGHT * (took - average.latency);
  };
  const note = (link: Link, outcome: HopOutcome) => {
    if (link.history.length >= MAX_HISTORY) link.history.shift();
    link.history.push(outcome);
  };
  const close = (link: Link): boolean => {
    if (link.failures === 0) return false;
    link.failures = 0;
    link.downUntil = 0;
    link.chanceUntil = 0;
    troubled--;
    return true;
  };
  const open = (name: string, lifetime: Milliseconds): Link => {
    const link = linkAt(name);
    if (link.failures++ === 0) troubled++;
    link.downUntil = now() + lifetime;
    link.chanceUntil = 0;
    return link;
  };
  const noteFailure = (link: Link, outcome: FaultKind, reason: string | undefined) => {
    link.failedAt = wallClock();
    link.reason = reason;
    note(link, { at: link.failedAt, outcome, took: null });
  };
  /** Measures every step, and the whole where the chain stands. Gives back the links that were met. */
  const measureAll = (chain: Chain, steps: readonly HopTrace[]): readonly string[] => {
    const names = linksOf(chain);
    let whole = 0;
    const hops = names.length - 1;
    for (let i = 0; i < steps.length && i <= hops; i++) {
      const { took } = steps[i]!;
      whole += took;
      if (i === hops) continue;
      const link = linkAt(names[i]!);
      // It stood already (the session of an SSH server): that is no measure of it.
      if (took === 0) continue;
      measure(link, took);
      note(link, { at: wallClock(), outcome: 'ok', took });
    }
    if (steps.length <= hops) return names.slice(0, steps.length);
    measureChain(chain.key, whole);
    return names;
  };
  const measureChain = (key: string, took: Milliseconds) => {
    let average = averages.get(key);
    if (average === undefined) {
      averages.set(key, (average = { latency: null, last: null }));
      if (averages.size > MAX_LINKS) averages.delete(averages.keys().next().value!);
    }
    measure(average, took);
  };
  const closeAll = (names: readonly string[]) => {
    if (troubled === 0) return;
    for (const name of names) {
      const link = links.get(name);
      if (link !== undefined && close(link)) tell({ outcome: 'link-worked', link: name });
    }
  };

  /** Where the last hop gets whole requests, the chain ends with it, and is never seen to stand any further. */
  const latencyOfHops = (chain: Chain): Milliseconds | null => {
    const names = linksOf(chain);
    let whole = 0;
    for (let i = 0; i < chain.hops.length; i++) {
      const latency = links.get(names[i]!)?.latency ?? null;
      if (latency === null) return null;
      whole += latency;
    }
    return chain.hops.length === 0 ? null : whole;
  };

  const health: Health = {
    isDown(chain) {
      if (troubled === 0) return false;
      const time = now();
      return linksOf(chain).some(name => {
        const link = links.get(name);
        return link !== undefined && (time < link.downUntil || time < link.chanceUntil);
      });
    },
    latency(chain) {
      const average = averages.get(chain.key);
      return average === undefined ? latencyOfHops(chain) : average.latency;
    },
    trying(chain) {
      if (troubled === 0) return;
      const time = now();
      for (const name of linksOf(chain)) {
        const link = links.get(name);
        if (link !== undefined && link.failures > 0 && time >= link.downUntil && time >= link.chanceUntil)
          link.chanceUntil = time + CHANCE_FOR;
      }
    },
    stood(chain, steps) {
      // Without steps by a connection that stood before: its hops are there.
      if (steps.length > 0) closeAll(measureAll(chain, steps));
      else if (troubled > 0) closeAll(linksOf(chain));
    },
    failed(chain, index, { kind, message }) {
      const name = linksOf(chain)[index];
      if (name === undefined) return;
      noteFailure(open(name, DOWN_FOR), kind, message);
      tell({ outcome: 'link-failed', link: name, lifetime: DOWN_FOR });
    },
    observe(chain, { outcome, stage, hops, sign, reason }) {
      if (outcome === 'ok') {
        if (hops.length > 0) measureAll(chain, hops);
        return;
      }
      const away = awayOf(chain, outcome, stage, hops, sign, true);
      const name = away === null ? undefined : linksOf(chain)[away];
      if (name !== undefined) noteFailure(linkAt(name), outcome as FaultKind, reason);
    },
    checked(chain, check, { outcome, stage, hops }, lifetime) {
      checks.delete(chain.key);
      checks.set(chain.key, check);
      if (checks.size > MAX_LINKS) checks.delete(checks.keys().next().value!);
      const names = linksOf(chain);
      if (check.ok) {
        measureAll(chain, hops);
        closeAll(names);
        // The last of these is TLS with the server that was asked.
        const steps = hops.slice(0, chain.hops.length + 1);
        if (steps.length > chain.hops.length)
          tell({ outcome: 'measured', chain: chain.key, took: steps.reduce((sum, { took }) => sum + took, 0) });
        return;
      }
      const kind = outcome === 'ok' ? 'http_response_incomplete' : outcome;
      const away = awayOf(chain, outcome, stage, hops, 'unreachable', hops.length === 0);
      const message = check.reason ?? '';
      if (away !== null) health.failed(chain, away, { kind, message });
      const whole = names.at(-1)!;
      noteFailure(open(whole, lifetime), kind, message);
      tell({ outcome: 'link-failed', link: whole, lifetime });
    },
    hear(news) {
      if (news.outcome === 'measured') measureChain(news.chain, news.took);
      else if (news.outcome === 'link-failed') open(news.link, news.lifetime);
      else {
        const link = links.get(news.link);
        if (link !== undefined) close(link);
      }
    },
    forget(hops) {
      for (const [name, link] of links) {
        if (!hasHop(name.startsWith(WHOLE) ? name.slice(WHOLE.length) : name, hops)) continue;
        close(link);
        links.delete(name);
      }
      for (const kept of [averages, checks]) for (const key of kept.keys()) if (hasHop(key, hops)) kept.delete(key);
    },
    all() {
      if (troubled === 0) return [];
      const time = now();
      return [...links]
        .filter(([, link]) => time < link.downUntil)
        .map(([link, { downUntil }]) => ({ outcome: 'link-failed', link, lifetime: downUntil - time }));
    },
    of(chain) {
      const time = now();
      const latency = health.latency(chain);
      let state: ChainHealth['state'] = latency === null ? 'unknown' : 'up';
      let failures = 0;
      let last: Link | undefined;
      for (const name of linksOf(chain)) {
        const link = links.get(name);
        if (link === undefined) continue;
        if (link.failedAt > (last?.failedAt ?? 0)) last = link;
        failures = Math.max(failures, link.failures);
        if (link.failures > 0 && state !== 'down') state = time < link.downUntil ? 'down' : 'probing';
      }
      return {
        state,
        latency,
        failures,
        failedAt: last?.failedAt,
        reason: last?.reason,
        check: checks.get(chain.key),
      };
    },
    hops() {
      const time = now();
      const clock = wallClock();
      const hops = [...links].filter(([name]) => !name.startsWith(WHOLE));
      return hops.map(([name, { downUntil, failures, latency, last, history }]) => ({
        hop: name.split('>'),
        circuit: failures === 0 ? 'closed' : time < downUntil ? 'open' : 'half-open',
        until: failures > 0 && time < downUntil ? clock + (downUntil - time) : null,
        failures,
        latency,
        lastTook: last,
        history: [...history],
      }));
    },
  };
  return health;
}
