// Which failures lead on to the next chain, when enough have been tried, and what is said when none works.
import type { Attempt } from '../../shared/exchange.ts';
import { Fault, type FaultKind } from '../../shared/fault.ts';
import type { Chain, Try } from '../rooms.ts';

/** More chains than this are not tried for one request: the next one finds what failed at the end. */
export const MAX_ATTEMPTS = 5;

/** A hop said no, rather than broke: the only faults that every route survives once the request has gone out. Whoever throws one has judged that. */
const REFUSALS: ReadonlySet<FaultKind> = new Set(['hop_refused', 'hop_authentication_failed', 'hop_could_not_reach']);
/** No answer came: survived after the request has gone out only where it may be sent twice (RFC 9110 §9.2.2). */
const SILENCES: ReadonlySet<FaultKind> = new Set([
  'connection_terminated',
  'connection_read_timeout',
  'http_response_timeout',
  // By TLS 1.3 a hop refuses a certificate of ours only when the request is on its way.
  'tls_alert_received',
]);

/** A chain that failed, and how. */
export interface Failure {
  readonly chain: Chain;
  readonly fault: Fault;
}

/** Whether the next chain may be tried: nothing of the request has been sent, or the hop itself said that it did not carry it. */
export function isSurvivable(fault: Fault, { stage, replayable }: Pick<Try, 'stage' | 'replayable'>): boolean {
  if (fault.row.side !== 'upstream') return false;
  if (stage !== 'response' && stage !== 'reused') return true;
  return REFUSALS.has(fault.kind) || (replayable === true && SILENCES.has(fault.kind));
}

/** Why no further chain is tried after these: two exits that know nothing of each other say the same of the target, or it is enough. Null = go on. */
export function stopAfter(failures: readonly Failure[]): 'agreed' | 'enough' | null {
  if (failures.length < 2) return null;
  const last = failures.at(-1)!;
  const opinion = opinionOf(last);
  if (opinion !== null) {
    for (let i = 0; i < failures.length - 1; i++) {
      const before = failures[i]!;
      if (opinionOf(before) === opinion && areIndependent(before.chain, last.chain)) return 'agreed';
    }
  }
  return failures.length >= MAX_ATTEMPTS ? 'enough' : null;
}

/** What the last hop says of the target, where it says anything: that it cannot be reached. A policy's no is the hop's own, and so is trouble on the way. */
function opinionOf({ chain, fault }: Failure): FaultKind | null {
  const exit = chain.hops.at(-1);
  return exit !== undefined && fault.hop === exit.name && fault.kind === 'hop_could_not_reach' ? fault.kind : null;
}

/** Whether two chains leave by different hops. */
export function areIndependent(one: Chain, other: Chain): boolean {
  const a = one.hops.at(-1);
  const b = other.hops.at(-1);
  if (a === undefined || b === undefined) return a !== b;
  return a.host !== b.host || a.port !== b.port;
}

/** How much a fault tells a person: a no by policy says more than a hop that is away. */
function tells(fault: Fault): number {
  if (fault.kind === 'hop_refused') return 3;
  if (
    fault.kind === 'hop_authentication_failed' ||
    fault.kind === 'hop_not_trusted' ||
    fault.kind === 'hop_login_unusable'
  )
    return 2;
  return fault.kind === 'hop_could_not_reach' ? 1 : 0;
}

/** When every chain failed, or enough did: the fault that tells most (the first of its rank), with every attempt in short. */
export function verdictOf(
  failures: readonly Failure[],
  attempts: readonly Attempt[],
  stop: ReturnType<typeof stopAfter> = null,
): Fault {
  let best = failures[0]!.fault;
  for (const { fault } of failures) if (tells(fault) > tells(best)) best = fault;
  const count = failures.length;
  const how =
    stop === 'agreed'
      ? `${count} chains tried, and two of them say the same`
      : stop === 'enough'
        ? `${count} chains failed, and no more were tried`
        : `all ${count} chains failed`;
  const all = `${how}: ${summaryOf(attempts, count)}`;
  return new Fault(best.kind, {
    hop: best.hop,
    target: best.target,
    detail: best.detail === undefined ? all : `${best.detail}; ${all}`,
    receivedStatus: best.receivedStatus,
    verdict: best.verdict,
    sign: best.sign,
    cause: best,
  });
}

/** `office: connection_refused, squid > dante: hop_refused`: the last `count` attempts. */
export function summaryOf(attempts: readonly Attempt[], count: number): string {
  return attempts
    .slice(-count)
    .map(({ chain, outcome }) => `${chain.length === 0 ? 'companion' : chain.join(' > ')}: ${outcome}`)
    .join(', ');
}
