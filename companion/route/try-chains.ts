// In which order the chains of a route are tried; survive.ts says which failures lead on to the next one.
// Closed by default: when all chains fail the request fails. A chain of zero hops is tried only where the route lists it (`else: companion`).
import type { Attempt } from '../../shared/exchange.ts';
import { calledOff, Fault } from '../../shared/fault.ts';
import type { EpochMilliseconds, Milliseconds } from '../../shared/units.ts';
import type { Chain, ChainOutcomes, ResolvedRoute, Try, TryChains } from '../rooms.ts';
import { headStartOf, makePickMemory, noteServed, orderOf } from './order.ts';
import { pinnedFault, pinnedTo, type Pins } from './pin.ts';
import { LOST, raceTwo } from './race.ts';
import { makeStickyMemory, type StickyMemory } from './sticky.ts';
import { type Failure, isSurvivable, stopAfter, summaryOf, verdictOf } from './survive.ts';

export interface TryChainsOptions {
  readonly now: () => EpochMilliseconds;
  /** For all chains together, until one stands. What the origin then takes to answer is not counted. */
  readonly routeTimeout: Milliseconds;
  /** What `dial` gives each hop: a route that cannot take longer than `routeTimeout` needs no clock of its own. */
  readonly hopTimeout: Milliseconds;
  /** What is known of the chains, and is told how each of them fared. */
  readonly memory: ChainOutcomes;
  /** Which site has been served by which chain; absent: nobody else knows or needs to. */
  readonly sticky?: StickyMemory;
  /** Routes that a person holds to one chain. */
  readonly pins?: Pins;
  /** Where round-robin begins: workers should not all begin with the same chain. */
  readonly firstTurn?: number;
  /** The registrable domain: outcomes are remembered per site. */
  readonly siteOf: (host: string) => string;
}

export function makeTryChains(options: TryChainsOptions): TryChains {
  const { now, routeTimeout, hopTimeout, memory, siteOf } = options;
  const { sticky = makeStickyMemory(), firstTurn = 0, pins = null } = options;
  const picks = makePickMemory(sticky, firstTurn);
  const longest = (chains: readonly Chain[]) => {
    let hops = 0;
    for (const chain of chains) hops += Math.max(1, chain.hops.length);
    return hops * hopTimeout;
  };

  function attemptOf(one: Try, startedAt: EpochMilliseconds, error?: unknown): Attempt {
    const fault = error instanceof Fault ? error : undefined;
    return {
      chain: namesOf(one.chain),
      outcome: error === undefined ? 'ok' : error instanceof Fault ? error.kind : 'proxy_internal_error',
      stage: one.stage,
      verdict: fault === undefined ? one.verdict : fault.verdict,
      sign: fault === undefined ? one.sign : fault.sign,
      reason: error instanceof Error ? error.message : undefined,
      hops: one.steps,
      took: Math.max(0, now() - startedAt),
    };
  }

  /** The only chain, with time enough: nothing is to be weighed, and only its hops are to be learned of. */
  async function tryOnly<T>(
    chain: Chain,
    attempts: Attempt[],
    signal: AbortSignal,
    attempt: (one: Try) => Promise<T>,
  ): Promise<T> {
    const startedAt = now();
    const one: Try = { chain, signal, steps: [], stage: 'connect', replayable: false, mayRace: false };
    try {
      const value = await attempt(one);
      const done = attemptOf(one, startedAt);
      attempts.push(done);
      memory.worked(null, chain, done.took, one.steps);
      return value;
    } catch (error) {
      const reason = signal.aborted ? calledOff(signal.reason) : error;
      if (!signal.aborted && error instanceof Fault && isSurvivable(error, one)) {
        memory.failed(null, chain, { fault: error, stage: one.stage, steps: one.steps });
      }
      attempts.push(attemptOf(one, startedAt, reason ?? 'unknown'));
      throw reason;
    }
  }

  async function tryInOrder<T>(
    route: ResolvedRoute,
    host: string,
    limit: RouteLimit | null,
    attempts: Attempt[],
    signal: AbortSignal,
    attempt: (one: Try) => Promise<T>,
  ): Promise<T> {
    const { chains } = route;
    const site = chains.length > 1 ? siteOf(host) : null;
    const began = now();
    // Who loses a race is tried again if the winner fails.
    const order = site === null ? chains : orderOf(route, site, memory, began, picks);
    const left = [...order];
    const failures: Failure[] = [];
    const running = new Map<Try, EpochMilliseconds>();
    const outer = limit?.signal ?? signal;
    limit?.start(() => [...running.keys()].some(isThrough));

    const begin = (chain: Chain, trySignal: AbortSignal): Try => {
      const one: Try = { chain, signal: trySignal, steps: [], stage: 'connect', replayable: false, mayRace: false };
      running.set(one, now());
      memory.trying(site, chain);
      return one;
    };
    /** The end of a try that leads on to no other, for whatever reason, is thrown. */
    const failed = (one: Try, error: unknown): void => {
      const startedAt = running.get(one)!;
      running.delete(one);
      const reason = reasonOf(one, error);
      attempts.push(attemptOf(one, startedAt, reason ?? 'unknown'));
      if (!leadsOn(one, reason)) throw reason;
      memory.failed(site, one.chain, { fault: reason, stage: one.stage, steps: one.steps });
      failures.push({ chain: one.chain, fault: reason });
    };
    const worked = (one: Try): void => {
      const startedAt = running.get(one)!;
      attempts.push(attemptOf(one, startedAt));
      if (site !== null && one.refused !== undefined) {
        // Passed on for want of another chance, but a no all the same.
        return memory.failed(site, one.chain, { fault: one.refused, stage: one.stage, steps: one.steps });
      }
      memory.worked(site, one.chain, now() - startedAt, one.steps);
      if (site !== null) noteServed(route, site, one.chain, picks);
    };
    /** Whose place another has taken. */
    const lost = (one: Try): void => {
      const attempt = attemptOf(one, running.get(one)!);
      attempts.push({
        ...attempt,
        outcome: 'connection_timeout',
        sign: 'timeout',
        reason: LOST,
      });
    };
    const reasonOf = (one: Try, error: unknown): unknown => {
      if (signal.aborted) return calledOff(signal.reason);
      return error instanceof Fault ? memory.seenThrough(error, one.chain, route) : error;
    };
    const leadsOn = (one: Try, reason: unknown): reason is Fault =>
      !signal.aborted && reason instanceof Fault && isSurvivable(reason, one);
    const isLate = () => limit?.isOver || now() - began >= routeTimeout;

    /** Tries two chains at once; what is over is taken from those that are left. */
    const race = async (first: Chain, second: Chain, headStart: Milliseconds): Promise<{ value: T } | null> => {
      const ended = await raceTwo<T>(
        which => {
          const closing = new AbortController();
          const one = begin(which === 'first' ? first : second, AbortSignal.any([outer, closing.signal]));
          one.claim = () => true;
          const trying = attempt(one).then(
            value => ({ one, value }),
            (error: unknown) => ({ one, error }),
          );
          return { one, ended: trying, close: () => closing.abort() };
        },
        end => 'error' in end && leadsOn(end.one, reasonOf(end.one, end.error)),
        headStart,
      );
      for (const end of ended) {
        left.splice(left.indexOf(end.one.chain), 1);
        if ('error' in end) failed(end.one, end.error);
      }
      const last = ended.at(-1)!;
      if ('value' in last) {
        for (const one of running.keys()) if (one !== last.one) lost(one);
        worked(last.one);
      }
      running.clear();
      return 'value' in last ? last : null;
    };

    try {
      while (left.length > 0) {
        const [chain, next] = left as [Chain, Chain?];
        const headStart = site === null || next === undefined ? null : headStartOf(route, chain, next, site, memory);
        if (headStart !== null) {
          const won = await race(chain, next!, headStart);
          if (won !== null) return won.value;
        } else {
          left.shift();
          const one = begin(chain, outer);
          try {
            const value = await attempt(one);
            worked(one);
            return value;
          } catch (error) {
            failed(one, error);
          }
        }
        if (isLate()) {
          // An answer was waited for: that is the origin's time, and its fault says so.
          const { fault } = failures.at(-1)!;
          if (attempts.at(-1)!.stage === 'response') throw fault;
          throw new Fault('connection_timeout', {
            hop: fault.hop,
            target: fault.target,
            detail: `${routeTimeout / 1000} s over all chains of the route "${route.name}"; ${summaryOf(attempts, failures.length)}`,
            cause: fault,
          });
        }
        const stop = left.length > 0 ? stopAfter(failures) : null;
        if (stop !== null) throw verdictOf(failures, attempts, stop);
      }
      throw chains.length === 1 ? failures[0]!.fault : verdictOf(failures, attempts);
    } finally {
      limit?.stop();
    }
  }

  const tryAll: TryChains = (route, host, attempts, signal, attempt) => {
    const { chains } = route;
    const limit = longest(chains) > routeTimeout ? new RouteLimit(signal, routeTimeout) : null;
    return chains.length === 1 && limit === null
      ? tryOnly(chains[0]!, attempts, signal, attempt)
      : tryInOrder(route, host, limit, attempts, signal, attempt);
  };

  return (route, host, attempts, signal, attempt) => {
    if (signal.aborted) throw calledOff(signal.reason);
    if (route.chains.length === 0)
      throw new Fault('proxy_configuration_error', { detail: `the route "${route.name}" has no chain` });
    const pin = pins === null ? null : pins.of(route.name);
    const only = pin === null ? null : pinnedTo(route, pin);
    if (only === null) return tryAll(route, host, attempts, signal, attempt);
    return tryAll(only, host, attempts, signal, attempt).catch((error: unknown) => {
      throw error instanceof Fault ? pinnedFault(error, only, pin!) : error;
    });
  };
}

/** Whether its request may be on its way already. */
const isThrough = ({ stage }: Try) => stage === 'response' || stage === 'reused';

const NO_HOPS: readonly string[] = [];

/** The names of a chain's hops. */
function namesOf({ hops }: Chain): readonly string[] {
  return hops.length === 0 ? NO_HOPS : hops.map(hop => hop.name);
}

/**
 * The time for all chains together. It ends attempts that have not got through yet, and leaves alone those that have. Its signal goes on telling
 * of the browser's leaving afterwards, and holds no listener on the outer one that would pile up on a long connection.
 */
class RouteLimit {
  isOver = false;
  readonly signal: AbortSignal;
  private readonly controller = new AbortController();
  private readonly timeout: Milliseconds;
  private timer: NodeJS.Timeout | undefined;

  constructor(outer: AbortSignal, timeout: Milliseconds) {
    this.signal = AbortSignal.any([outer, this.controller.signal]);
    this.timeout = timeout;
  }

  start(isThrough: () => boolean): void {
    this.timer = setTimeout(() => {
      this.isOver = true;
      if (isThrough()) return;
      this.controller.abort(new Fault('connection_timeout', { detail: `${this.timeout / 1000} s over all chains` }));
    }, this.timeout);
  }

  stop(): void {
    clearTimeout(this.timer);
  }
}
