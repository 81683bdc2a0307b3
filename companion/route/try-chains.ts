// In which order the chains of a route are tried; survive.ts says which failures lead on to the next one.
// Closed by default: when all chains fail the request fails. A chain of zero hops is tried only where the route lists it (`else: companion`).
import type { Attempt, HopTrace } from '../../shared/exchange.ts';
import { calledOff, Fault } from '../../shared/fault.ts';
import type { EpochMilliseconds, Milliseconds } from '../../shared/units.ts';
import type { Chain, ResolvedRoute, Try, TryChains } from '../rooms.ts';
import type { Knowledge } from './knowledge.ts';
import { type Failure, isSurvivable, stopAfter, summaryOf, verdictOf } from './survive.ts';

export interface TryChainsOptions {
  readonly now: () => EpochMilliseconds;
  /** For all chains together, until one stands. What the origin then takes to answer is not counted. */
  readonly routeTimeout: Milliseconds;
  /** What `dial` gives each hop: a route that cannot take longer than `routeTimeout` needs no clock of its own. */
  readonly hopTimeout: Milliseconds;
  /** What puts the chains in order, and is told how each of them fared. */
  readonly memory: Knowledge;
  /** The registrable domain: outcomes are remembered per site. */
  readonly siteOf: (host: string) => string;
}

export function makeTryChains({ now, routeTimeout, hopTimeout, memory, siteOf }: TryChainsOptions): TryChains {
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
    const one: Try = { chain, signal, steps: [], stage: 'connect', replayable: false };
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
    const order = site === null ? chains : memory.order(site, chains);
    const began = now();
    const failures: Failure[] = [];
    let current: Try | undefined;
    limit?.start(() => current?.stage === 'response' || current?.stage === 'reused');

    try {
      for (const chain of order) {
        const startedAt = now();
        const steps: HopTrace[] = [];
        const one: Try = { chain, signal: limit?.signal ?? signal, steps, stage: 'connect', replayable: false };
        current = one;
        const record = (error?: unknown) => attempts.push(attemptOf(one, startedAt, error));
        memory.trying(site, chain);
        try {
          const value = await attempt(one);
          record();
          memory.worked(site, chain, now() - startedAt, steps);
          return value;
        } catch (caught) {
          if (signal.aborted) {
            const gone = calledOff(signal.reason);
            record(gone);
            throw gone;
          }
          if (!(caught instanceof Fault)) {
            record(caught ?? 'unknown');
            throw caught;
          }
          const error = memory.seenThrough(caught, chain, route);
          record(error);
          if (!isSurvivable(error, one)) throw error;
          memory.failed(site, chain, { fault: error, stage: one.stage, steps });
          failures.push({ chain, fault: error });
        }
        if (limit?.isOver || now() - began >= routeTimeout) {
          // An answer was waited for: that is the origin's time, and its fault says so.
          const { fault } = failures.at(-1)!;
          if (one.stage === 'response') throw fault;
          throw new Fault('connection_timeout', {
            hop: fault.hop,
            target: fault.target,
            detail: `${routeTimeout / 1000} s over all chains of the route "${route.name}"; ${summaryOf(attempts, failures.length)}`,
            cause: fault,
          });
        }
        const stop = failures.length < order.length ? stopAfter(failures) : null;
        if (stop !== null) throw verdictOf(failures, attempts, stop);
      }
      throw chains.length === 1 ? failures[0]!.fault : verdictOf(failures, attempts);
    } finally {
      limit?.stop();
    }
  }

  return (route, host, attempts, signal, attempt) => {
    if (signal.aborted) throw calledOff(signal.reason);
    const { chains } = route;
    if (chains.length === 0)
      throw new Fault('proxy_configuration_error', { detail: `the route "${route.name}" has no chain` });
    const limit = longest(chains) > routeTimeout ? new RouteLimit(signal, routeTimeout) : null;
    return chains.length === 1 && limit === null
      ? tryOnly(chains[0]!, attempts, signal, attempt)
      : tryInOrder(route, host, limit, attempts, signal, attempt);
  };
}

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
