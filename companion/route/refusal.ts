// What becomes of a no: the fault that leads on to the next chain, and whether this request may be sent there too.
import { Fault, type FaultKind } from '../../shared/fault.ts';
import type { Sign } from '../../shared/exchange.ts';
import type { Endpoint } from '../../shared/endpoint.ts';
import type { Route } from '../../shared/config/routes.ts';
import type { OwnSignature } from '../../shared/config/signatures.ts';
import type { NamedHop, Question, Refusals, Sent } from '../rooms.ts';
import { type HopHabits, isNo, makeJudge, type Said, wasForwarded } from './provenance.ts';
import { areIndependent, MAX_ATTEMPTS } from './survive.ts';

/** Methods that change nothing: sent again without a second thought (RFC 9110 §9.2.1). */
const SAFE: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE']);
/** Methods that may be sent twice, once all of the request is here (RFC 9110 §9.2.2). */
const IDEMPOTENT: ReadonlySet<string> = new Set(['PUT', 'DELETE', 'QUERY', 'PROPFIND', 'REPORT']);

/** The refusals that a person's rows and the built-in ones tell. `habits` is what other rows have learned of hops before. */
export function makeRefusals(signatures: readonly OwnSignature[] = [], habits?: HopHabits): Refusals {
  const judge = makeJudge(signatures, habits);

  return {
    learn: judge.learn,
    wasForwarded: ({ fields }) => wasForwarded(fields),
    ofAnswer(head, question, page) {
      const { hop, target, one } = question;
      const { status } = head;
      if (status === 407 && hop === null) return misplacedLogin(question);
      const whence = { hop, host: target.host };
      let said = page === null ? judge.ofHead(head, whence) : judge.ofPage(head, whence, page);
      if (said === 'page') {
        if (question.route.chains.length > 1 && mayGoOn(ANYBODY, question.sent, 'relay')) return 'page';
        said = judge.ofPage(head, whence, '');
      }
      const fault = said === null ? null : what(said, status, question);
      if (fault !== null) return fault;
      if (said !== null) one.sign = said.sign;
      one.verdict ??= said === null ? (isNo(status) ? 'origin' : undefined) : said.who;
      return null;
    },
  };
}

const ANYBODY = { who: 'unknown', unprocessed: false } as const;

/** Null: it is passed on. */
function what(said: Said, status: number, question: Question): Fault | null {
  const { hop, target, route, sent, one, opinions, tried } = question;
  const isOnly = route.chains.length === 1;
  const exit = one.chain.hops.at(-1);
  const mayGo = mayGoOn(said, sent, route.route?.refused ?? 'next');
  if (said.who === 'unknown') {
    if (isOnly || route.route?.unknown !== 'proxy') return null;
    if (opinions.some(before => before.status === status && areIndependent(before.chain, one.chain))) {
      // Two that know nothing of each other say the same: it is what stands behind both.
      one.verdict = 'origin';
      return null;
    }
    if (!mayGo || tried >= Math.min(route.chains.length, MAX_ATTEMPTS)) return null;
    opinions.push({ status, chain: one.chain });
    return refusalOf(said, status, exit, target);
  }
  // A hop that could not is as good as an origin that is away: where there is no other way its own page tells it best.
  const isSurvived = isOnly ? SAFE.has(sent.method) && (said.sign === 'policy' || said.sign === 'auth') : mayGo;
  if (isSurvived && mayGo) return refusalOf(said, status, exit, target);
  if (status === 407 && hop !== null) return passwordOf(hop);
  one.refused = refusalOf(said, status, exit, target);
  return null;
}

/** A 407 of the origin, which the browser would take for ours and ask the person for a password (RFC 9110 §15.5.8). */
function misplacedLogin({ target, one }: Question): Fault {
  return new Fault('http_protocol_error', {
    target,
    hop: one.chain.hops.at(-1)?.name,
    detail: 'it asked for proxy credentials',
    receivedStatus: 407,
  });
}

/** Whether a request that was refused so may go out by another chain. */
export function mayGoOn(
  { who, unprocessed }: Pick<Said, 'who' | 'unprocessed'>,
  sent: Sent,
  refused: Route['refused'],
): boolean {
  if (!sent.isKept) return false;
  if (SAFE.has(sent.method)) return true;
  if (IDEMPOTENT.has(sent.method) && sent.isWhole) return true;
  // Whoever refuses before the body has refused it unread.
  if (sent.isUnsent) return true;
  return who === 'proxy' && unprocessed && refused === 'next';
}

/** The fault of a refusal: `exit` is the hop that gave it (or the last one, before which it was given), `target` what was asked for. */
function refusalOf(said: Said, status: number, exit: NamedHop | undefined, target: Endpoint): Fault {
  return new Fault(kindOf(said.sign), {
    hop: exit?.name,
    target: exit === undefined ? target : { host: exit.host, port: exit.port },
    detail: said.evidence,
    receivedStatus: status,
    verdict: said.who,
    sign: said.sign,
    retryAfter: said.retryAfter,
  });
}

function kindOf(sign: Sign): FaultKind {
  if (sign === 'auth') return 'hop_authentication_failed';
  return sign === 'policy' || sign === 'rate' || sign === 'portal' ? 'hop_refused' : 'hop_could_not_reach';
}

/** A 407 that goes no further, and that no route survives: the browser would ask the person for a password that is not theirs to give. */
function passwordOf(exit: NamedHop): Fault {
  return new Fault('proxy_configuration_error', {
    hop: exit.name,
    target: { host: exit.host, port: exit.port },
    receivedStatus: 407,
    detail: `the hop "${exit.name}" did not accept the user name and password`,
  });
}
