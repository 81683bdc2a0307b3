// Request out, answer back: on a pooled connection where one waits, else on a fresh one that is dialled for it. Foreign errors become faults here.
import { takesAbsolute } from '../../shared/config/hops.ts';
import { Fault } from '../../shared/fault.ts';
import { dropHopByHop } from '../message/hop-by-hop.ts';
import { letGo, type Answer, type Body, type RequestHead, type ResponseHead } from '../message/message.ts';
import type { AdmittedTarget, Dial, NamedHop, Try } from '../rooms.ts';
import type { Socket } from '../sockets/socket.ts';
import type { ConnectionPool } from './connection-pool.ts';
import type { IdenticalHeads } from './identical-heads.ts';
import { requestHead } from './request-head.ts';
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
  /** Why its streamed body cannot be sent again, once a try has taken it. */
  spent: Fault | null;
}

/** Is this answer a hop's no? See route/refusal.ts. */
export type RefusalOf = (head: ResponseHead, method: string, hop: NamedHop) => Fault | null;

/** The skills of other rooms that forwarding needs. */
export interface Ways {
  readonly pool: ConnectionPool;
  readonly dial: Dial;
  readonly refusalOf: RefusalOf;
  readonly identical: IdenticalHeads;
}

export interface Forwarded {
  /** Without hop-by-hop fields, except after an upgrade. */
  readonly answer: Answer;
  /** The connection, after a 101. What came behind the 101 is the answer's body. */
  readonly upgraded: Socket | null;
}

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
export async function forward(outgoing: Outgoing, one: Try, ways: Ways): Promise<Forwarded> {
  if (outgoing.spent !== null) throw outgoing.spent;
  const { head, target, body, upgrade } = outgoing;
  const { chain } = one;
  const last = chain.hops.at(-1);
  const hop = last !== undefined && upgrade === null && takesAbsolute(last) ? last : null;
  const key = hop === null ? `${chain.key} ${target.host}:${target.port}` : chain.key;
  const streamed = body !== null && !Buffer.isBuffer(body);
  const replayable = !streamed && IDEMPOTENT.has(head.method);
  one.replayable = body === null && (head.method === 'GET' || head.method === 'HEAD');
  try {
    // His own first: whatever it has waited, only there he is logged in.
    const own =
      upgrade === null && outgoing.client.pin !== '' ? ways.pool.take(key + outgoing.client.pin, false) : null;
    const waiting = own ?? (upgrade === null ? ways.pool.take(key, !replayable) : null);
    if (waiting !== null) {
      one.stage = 'reused';
      try {
        return received(await ask(outgoing, waiting, hop, last, ways), outgoing, waiting, hop, last, ways);
      } catch (error) {
        // Dead since it was last used, and nothing of an answer came: the server has not seen it, or it may see it twice.
        if (!replayable || waiting.answered || !(error instanceof Fault) || error.kind !== 'connection_terminated')
          throw error;
      }
    }
    const dialled = await ways.dial(one, target, hop !== null);
    one.stage = 'response';
    const connection = ways.pool.adopt(key, dialled.socket, dialled.rest);
    return received(await ask(outgoing, connection, hop, last, ways), outgoing, connection, hop, last, ways);
  } catch (error) {
    if (streamed && outgoing.connection !== null) {
      outgoing.spent = error instanceof Fault ? error : new Fault('proxy_internal_error', { cause: error });
    }
    throw error;
  } finally {
    outgoing.connection = null;
  }
}

/** Sends the request on this connection. */
function ask(
  outgoing: Outgoing,
  connection: UpstreamConnection,
  hop: NamedHop | null,
  last: NamedHop | undefined,
  ways: Ways,
): Promise<Answer> {
  const { head, target, body, path, upgrade } = outgoing;
  const framing =
    body !== null && Buffer.isBuffer(body) ? ({ kind: 'length', length: body.length } as const) : head.framing;
  outgoing.connection = connection;
  const request: SentRequest = {
    method: head.method,
    headText: requestHead({ head, host: target.host, port: target.port, path, framing, upgrade }, hop),
    framing,
    body,
    upgrade,
    blame: hop === null ? { target, hop: undefined } : { target: { host: hop.host, port: hop.port }, hop: hop.name },
    interim: outgoing.interim,
    client: outgoing.client,
    logsIn: logsConnectionIn(head.fields.get('authorization')),
  };
  return last === undefined ? connection.exchange(request) : askHops(request, target, connection, ways);
}

/** The same behind hops, which may lead back here: counted, so that a loop ends. */
async function askHops(
  request: SentRequest,
  target: AdmittedTarget,
  connection: UpstreamConnection,
  ways: Ways,
): Promise<Answer> {
  const { headText } = request;
  try {
    ways.identical.enter(headText, target);
  } catch (fault) {
    connection.destroy();
    throw fault;
  }
  try {
    return await connection.exchange(request);
  } finally {
    ways.identical.leave(headText);
  }
}

/** What becomes of the answer: a tunnel, a refusal, or an answer without the fields that were for our connection only. */
function received(
  answer: Answer,
  outgoing: Outgoing,
  connection: UpstreamConnection,
  hop: NamedHop | null,
  last: NamedHop | undefined,
  ways: Ways,
): Forwarded {
  if (answer.head.status === 101) return { answer, upgraded: connection.takeOver() };
  const refusal = refusalIn(answer.head, outgoing.head.method, hop, last, outgoing.target, ways);
  if (refusal !== null) {
    letGo(answer.body);
    throw refusal;
  }
  dropHopByHop(answer.head.fields);
  return { answer, upgraded: null };
}

/** A hop's no; or a 407 of the origin, which the browser would take for ours and ask the person for a password (RFC 9110 §15.5.8). */
function refusalIn(
  head: ResponseHead,
  method: string,
  hop: NamedHop | null,
  last: NamedHop | undefined,
  target: AdmittedTarget,
  ways: Ways,
): Fault | null {
  if (head.status < 400) return null;
  const refusal = hop === null ? null : ways.refusalOf(head, method, hop);
  if (refusal !== null || head.status !== 407) return refusal;
  return new Fault('http_protocol_error', {
    target,
    hop: hop === null ? undefined : last?.name,
    detail: 'it asked for proxy credentials',
    receivedStatus: 407,
  });
}
