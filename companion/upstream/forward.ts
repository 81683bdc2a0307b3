// Request out, answer back: on a pooled connection where one waits, else on a fresh one that is dialled for it. Foreign errors become faults here.
import { takesAbsolute } from '../../shared/config/hops.ts';
import { Fault } from '../../shared/fault.ts';
import { dropHopByHop } from '../message/hop-by-hop.ts';
import { AskAgain, loginOf } from '../message/hop-login.ts';
import { letGo, type Answer, type Body, type RequestHead, type ResponseHead } from '../message/message.ts';
import type {
  AdmittedTarget,
  Dial,
  NamedHop,
  Opinion,
  Question,
  Refusals,
  ResolvedRoute,
  Sent,
  Try,
} from '../rooms.ts';
import type { Socket } from '../sockets/socket.ts';
import type { ConnectionPool } from './connection-pool.ts';
import { holdPage, PAGE_HELD, PAGE_WITHIN } from './held-page.ts';
import type { IdenticalHeads } from './identical-heads.ts';
import { ReplayBody } from './replay-body.ts';
import { requestHead, requestTarget } from './request-head.ts';
import { type Client, logsConnectionIn, type SentRequest, type UpstreamConnection } from './upstream-connection.ts';

/** A request on its way out. One object for all tries of an exchange. */
export interface Outgoing {
  readonly head: RequestHead;
  readonly target: AdmittedTarget;
  readonly path: string;
  readonly body: Body;
  /** The protocols asked for, when the connection shall change to one. */
  readonly upgrade: string | null;
  /** Hears 1xx answers other than 101. */
  readonly interim: ((head: ResponseHead) => void) | null;
  readonly client: Client;
  /** The connection that works on it, while one does. */
  connection: UpstreamConnection | null;
  /** By which it goes out. */
  readonly route: ResolvedRoute;
  /** Chains that it has been tried on. */
  tried: number;
  /** What was taken for a no though nobody says whose; null = nothing. */
  opinions: Opinion[] | null;
  /** Why its streamed body cannot be sent again, once a try has taken it. */
  spent: Fault | null;
}

/** The skills of other rooms that forwarding needs. */
export interface Ways {
  readonly pool: ConnectionPool;
  readonly dial: Dial;
  readonly refusals: Refusals;
  readonly identical: IdenticalHeads;
}

export interface Forwarded {
  /** Without hop-by-hop fields, except after an upgrade. */
  readonly answer: Answer;
  /** The connection, after a 101. What came behind the 101 is the answer's body. */
  readonly upgraded: Socket | null;
}

/** So often a hop that answers 407 is told otherwise who we are: by Digest, and with a new nonce. */
const MAX_LOGINS = 2;
/** RFC 9110 §9.2.2. */
const IDEMPOTENT: ReadonlySet<string> = new Set([
  'GET',
  'HEAD',
  'OPTIONS',
  'TRACE',
  'PUT',
  'DELETE',
  'QUERY',
  'PROPFIND',
  'REPORT',
]);

/**
 * Sends a request by one chain. A pooled connection that turns out to be dead is replaced by a fresh one, once, where the request may be sent twice
 * (RFC 9112 §9.3.1). Throws what `dial` throws, what UpstreamConnection.exchange throws, and the fault of a refusal.
 */
export async function forward(outgoing: Outgoing, one: Try, ways: Ways, logins = MAX_LOGINS): Promise<Forwarded> {
  if (outgoing.spent !== null) throw outgoing.spent;
  const { head, target, body, upgrade } = outgoing;
  const { chain } = one;
  const last = chain.hops.at(-1);
  const hop = last !== undefined && upgrade === null && takesAbsolute(last) ? last : null;
  const way = chain.isolate ? `${chain.key} by site` : chain.key;
  const key = hop === null ? `${way} ${target.host}:${target.port}` : way;
  const streamed = body !== null && !Buffer.isBuffer(body);
  const replayable = !streamed && IDEMPOTENT.has(head.method);
  one.replayable = replayable;
  one.mayRace = body === null && (head.method === 'GET' || head.method === 'HEAD');
  outgoing.tried++;
  let used: UpstreamConnection | null = null;
  try {
    // His own first: whatever it has waited, only there he is logged in.
    const own =
      upgrade === null && outgoing.client.pin !== '' ? ways.pool.take(key + outgoing.client.pin, false) : null;
    const waiting = own ?? (upgrade === null ? ways.pool.take(key, !replayable) : null);
    if (waiting !== null) {
      used = waiting;
      one.stage = 'reused';
      try {
        const reused = received(await ask(outgoing, waiting, hop, one, ways), outgoing, waiting, hop, one, ways);
        return reused instanceof Promise ? await reused : reused;
      } catch (error) {
        // Dead since it was last used, and nothing of an answer came: the server has not seen it, or it may see it twice.
        if (!replayable || waiting.answered || !(error instanceof Fault) || error.kind !== 'connection_terminated')
          throw error;
      }
    }
    const dialled = await ways.dial(one, target, hop !== null);
    one.stage = 'response';
    const connection = ways.pool.adopt(key, dialled.socket, dialled.rest);
    used = connection;
    const fresh = received(await ask(outgoing, connection, hop, one, ways), outgoing, connection, hop, one, ways);
    return fresh instanceof Promise ? await fresh : fresh;
  } catch (error) {
    // Another chain stood first: this one may still be tried.
    if (used === null && one.signal.aborted) outgoing.tried--;
    // The hop has not sent it on: whatever the method, it may be asked again.
    const isKept = !streamed || (body instanceof ReplayBody && body.isKept);
    if (error instanceof AskAgain && isKept && logins > 0) {
      one.steps.length = 0;
      one.given = error.nonce;
      outgoing.tried--;
      return forward(outgoing, one, ways, logins - 1);
    }
    if (streamed && outgoing.connection !== null) {
      if (body instanceof ReplayBody && body.isKept) one.replayable = body.isWhole && IDEMPOTENT.has(head.method);
      else outgoing.spent = error instanceof Fault ? error : new Fault('proxy_internal_error', { cause: error });
    }
    throw error;
  } finally {
    if (outgoing.connection === used) outgoing.connection = null;
  }
}

/** Sends the request on this connection. */
function ask(
  outgoing: Outgoing,
  connection: UpstreamConnection,
  hop: NamedHop | null,
  one: Try,
  ways: Ways,
): Promise<Answer> {
  const { head, target, body, path, upgrade } = outgoing;
  const framing =
    body !== null && Buffer.isBuffer(body) ? ({ kind: 'length', length: body.length } as const) : head.framing;
  outgoing.connection = connection;
  const line = { head, host: target.host, port: target.port, path, framing, upgrade };
  let told: string | null = null;
  if (hop !== null) {
    one.told = loginOf(hop).tell(head.method, () => requestTarget(line, true), one.given);
    one.given = undefined;
    told = one.told.text;
  }
  const headText = requestHead(line, hop, told);
  const request: SentRequest = {
    method: head.method,
    headText,
    framing,
    body,
    upgrade,
    blame: hop === null ? { target, hop: undefined } : { target: { host: hop.host, port: hop.port }, hop: hop.name },
    interim: outgoing.interim,
    client: outgoing.client,
    logsIn: logsConnectionIn(head.fields.get('authorization')),
  };
  if (one.chain.hops.length === 0) return connection.exchange(request);
  // Digest has other words each time, of a request that is the same.
  const counted = told?.startsWith('Digest ') ? headText.replace(told, '') : headText;
  return askHops(request, counted, target, connection, ways);
}

/** The same behind hops, which may lead back here: counted, so that a loop ends. */
async function askHops(
  request: SentRequest,
  counted: string,
  target: AdmittedTarget,
  connection: UpstreamConnection,
  ways: Ways,
): Promise<Answer> {
  try {
    ways.identical.enter(counted, target);
  } catch (fault) {
    connection.destroy();
    throw fault;
  }
  try {
    return await connection.exchange(request);
  } finally {
    ways.identical.leave(counted);
  }
}

/** What becomes of the answer: a tunnel, a refusal, or an answer without the fields that were for our connection only. */
function received(
  answer: Answer,
  outgoing: Outgoing,
  connection: UpstreamConnection,
  hop: NamedHop | null,
  one: Try,
  ways: Ways,
): Forwarded | Promise<Forwarded> {
  const { status } = answer.head;
  if (status === 101) return { answer, upgraded: connection.takeOver() };
  if (hop !== null) heardOfLogin(answer, outgoing.head.method, hop, one, ways);
  const isOnly = outgoing.route.chains.length === 1;
  if (status < 400) {
    if (isOnly) return passedOn(answer);
    if (hop !== null) ways.refusals.learn(answer.head, hop);
  } else if (isOnly && hop === null && status !== 407) return passedOn(answer);
  return judged(answer, outgoing, hop, one, ways);
}

/**
 * What the hop says to the login that it was told. Throws AskAgain where it wants another; not for what must not be sent twice where the 407 may be the
 * origin's.
 */
function heardOfLogin({ head, body }: Answer, method: string, hop: NamedHop, one: Try, ways: Ways): void {
  const login = loginOf(hop);
  const { told } = one;
  if (told === undefined) return;
  if (head.status !== 407) return login.accepted(told, head.fields.get('proxy-authentication-info'));
  if (!IDEMPOTENT.has(method) && ways.refusals.wasForwarded(head)) return;
  const nonce = login.challenged(head.fields.all('proxy-authenticate'), told);
  if (nonce === null) return;
  letGo(body);
  throw new AskAgain(hop, nonce);
}

/** The beginning of the body is looked at where it may tell who speaks, and only there. */
function judged(
  answer: Answer,
  outgoing: Outgoing,
  hop: NamedHop | null,
  one: Try,
  ways: Ways,
): Forwarded | Promise<Forwarded> {
  const { route, target, tried } = outgoing;
  const question: Question = {
    one,
    hop,
    target,
    route,
    tried,
    sent: sentOf(outgoing),
    opinions: (outgoing.opinions ??= []),
  };
  const { head, body } = answer;
  const verdict = ways.refusals.ofAnswer(head, question, null);
  if (verdict !== 'page') return concluded(answer, verdict);
  const read = (page: Buffer) => ways.refusals.ofAnswer(head, question, page.toString('latin1')) as Fault | null;
  if (body === null || Buffer.isBuffer(body)) return concluded(answer, read((body ?? NOTHING).subarray(0, PAGE_HELD)));
  return holdPage(body, PAGE_HELD, PAGE_WITHIN).then(held => concluded({ head, body: held.body }, read(held.page)));
}

function concluded(answer: Answer, refusal: Fault | null): Forwarded {
  if (refusal === null) return passedOn(answer);
  letGo(answer.body);
  throw refusal;
}

function passedOn(answer: Answer): Forwarded {
  dropHopByHop(answer.head.fields);
  return { answer, upgraded: null };
}

function sentOf({ head, body }: Outgoing): Sent {
  const { method } = head;
  if (body instanceof ReplayBody)
    return { method, isKept: body.isKept, isWhole: body.isWhole, isUnsent: body.isUnsent };
  const isKept = body === null || Buffer.isBuffer(body);
  return { method, isKept, isWhole: isKept, isUnsent: false };
}

const NOTHING = Buffer.alloc(0);
