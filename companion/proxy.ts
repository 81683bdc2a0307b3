// THE WALK: what happens to a request, a line or two for every room. Rooms do not know each other; they meet here.
import type { ConfigCache, ConfigLimits } from '../shared/config.ts';
import type { Because, Decision, DecisionTarget } from '../shared/decision/rule.ts';
import { type Endpoint, formatEndpoint, formatHost } from '../shared/endpoint.ts';
import { Fault } from '../shared/fault.ts';
import type { EpochMilliseconds } from '../shared/units.ts';
import type { Incoming } from './downstream/connection.ts';
import { proxyStatusOf } from './downstream/fault-page.ts';
import { respond, respondFault, respondInterim, switchProtocols, tunnelStands } from './downstream/respond.ts';
import { Fields } from './message/headers.ts';
import { listHas } from './message/http1-parser.ts';
import type { Answer, RequestHead } from './message/message.ts';
import type {
  Acl,
  AdmittedTarget,
  Ask,
  BlockAnswer,
  Cache,
  CacheRequest,
  Dial,
  Entrance,
  Dialled,
  ExchangeDraft,
  Follow,
  Hit,
  Recorder,
  ResolvedRoute,
  Try,
  TryChains,
} from './rooms.ts';
import { type Behind, drain } from './upstream/behind.ts';
import type { ConnectionPool } from './upstream/connection-pool.ts';
import { forward, type Outgoing, type RefusalOf } from './upstream/forward.ts';
import type { IdenticalHeads } from './upstream/identical-heads.ts';
import { tunnel } from './upstream/tunnel.ts';

/** A decision for what has come to the companion: always with a route, the default one where no rule steers. */
export type SteeredDecision = Decision & { readonly steered: true };

/** The furnished rooms. A changed configuration furnishes new ones; an exchange keeps those it entered. */
export interface Rooms {
  readonly entrance: Entrance;
  readonly acl: Acl;
  /** The one matcher; what no rule names gets the default route, because `default`. */
  readonly decide: (target: DecisionTarget) => SteeredDecision;
  readonly routeOf: (decision: SteeredDecision) => ResolvedRoute;
  readonly blockAnswer: BlockAnswer;
  readonly cache: Cache;
  readonly tryChains: TryChains;
  readonly dial: Dial;
  readonly refusalOf: RefusalOf;
  readonly pool: ConnectionPool;
  readonly identical: IdenticalHeads;
  /** What is asked for though no client waits for it. */
  readonly behind: Behind;
  readonly recorder: Recorder;
  readonly limits: Pick<ConfigLimits, 'tunnelIdleTimeout'>;
  /** Whether the cache keeps sites apart. */
  readonly partition: ConfigCache['partition'];
  /** The registrable domain of a host, or the host itself. */
  readonly registrableDomain: (host: string) => string;
  /** Whether a CONNECT carries our own loop mark. */
  readonly comesFromUs: (head: RequestHead) => boolean;
  readonly now: () => EpochMilliseconds;
  /** Whatever is known of a request by these rooms holds for no others. */
  readonly era: object;
}

/** What follows from a head alone, in the rooms of one era. The same head has the same notes again, so the cache may know the request by itself. */
interface Notes {
  readonly era: object;
  readonly url: string;
  readonly host: string;
  readonly port: number;
  readonly path: string;
  readonly site: string;
  readonly fromSite: string | undefined;
  readonly decision: SteeredDecision;
  readonly route: ResolvedRoute;
  readonly isExpectationKnown: boolean;
  readonly upgrade: string | null;
  readonly request: CacheRequest;
}

/** A request in absolute-form, from its head to its record. Null when all of it is done: what is answered here waits for nobody. Never throws or rejects. */
export function proxyRequest(incoming: Incoming, rooms: Rooms): Promise<void> | null {
  const draft = rooms.recorder.begin('http', incoming.head.method);
  let ending: Promise<void> | null = null;
  try {
    ending = walkRequest(incoming, rooms, draft);
  } catch (error) {
    failed(incoming, draft, error);
  }
  if (ending !== null) return finished(ending, incoming, rooms, draft);
  recordRequest(incoming, rooms, draft);
  return null;
}

async function finished(ending: Promise<void>, incoming: Incoming, rooms: Rooms, draft: ExchangeDraft): Promise<void> {
  try {
    await ending;
  } catch (error) {
    failed(incoming, draft, error);
  }
  recordRequest(incoming, rooms, draft);
}

function walkRequest(incoming: Incoming, rooms: Rooms, draft: ExchangeDraft): Promise<void> | null {
  const { head } = incoming;
  let notes = head.notes as Notes | undefined;
  if (notes?.era !== rooms.era) head.notes = notes = notesOf(head, rooms);
  const { host, port, path, decision, route, upgrade } = notes;
  draft.url = notes.url;
  draft.host = host;
  draft.site = notes.site;
  draft.fromSite = notes.fromSite;
  rooms.entrance.demand?.(head, incoming.from);
  if (!notes.isExpectationKnown) throw new Fault('expectation_failed');

  note(draft, decision);
  if (decision.blockedBy !== undefined) {
    const answer = rooms.blockAnswer(head, host, decision.blockedBy);
    return finishBlocked(incoming, draft, answer, blocked({ host, port }, decision.blockedBy));
  }
  const target = admit(host, port, 'http', route, rooms);
  const own = answeredHere(head);
  if (own !== null) return finish(incoming, draft, rooms, own, undefined);
  if (upgrade !== null) return openUpgrade(incoming, rooms, draft, route, target, path, upgrade);

  const found = rooms.cache.lookup(notes.request, rooms.now());
  if (found.kind === 'hit') return answerHit(incoming, rooms, draft, route, target, path, found);
  if (found.kind === 'ask') return goUpstream(incoming, rooms, draft, route, target, path, found);
  return follow(incoming, rooms, draft, route, target, path, found);
}

function notesOf(head: RequestHead, rooms: Rooms): Notes {
  const { host, port, path } = httpTarget(head);
  const url = urlOf(host, port, path);
  const site = rooms.registrableDomain(host);
  const fromSite = pageSite(head, rooms);
  const decision = rooms.decide({ scheme: 'http', host, port, path });
  const route = rooms.routeOf(decision);
  const partition = rooms.partition === 'none' ? '' : partitionOf(head, site, fromSite);
  return {
    era: rooms.era,
    url,
    host,
    port,
    path,
    site,
    fromSite,
    decision,
    route,
    isExpectationKnown: isExpectationKnown(head),
    upgrade: upgradeOf(head),
    request: {
      head,
      url,
      site,
      route: decision.blockedBy === undefined ? route.name : '',
      partition,
      behindHops: route.behindHops,
      decision,
    },
  };
}

/** The answer out of the store; behind it, what is to make it fresh again. */
function answerHit(
  incoming: Incoming,
  rooms: Rooms,
  draft: ExchangeDraft,
  route: ResolvedRoute,
  target: AdmittedTarget,
  path: string,
  hit: Hit,
): Promise<void> | null {
  if (hit.refresh === null) return finish(incoming, draft, rooms, hit.answer, hit.status);
  try {
    return finish(incoming, draft, rooms, hit.answer, hit.status);
  } finally {
    void refreshBehind(rooms, draft, route, target, path, hit.refresh);
  }
}

/** Another is being sent the same: his answer, or what comes of asking for it here. */
async function follow(
  incoming: Incoming,
  rooms: Rooms,
  draft: ExchangeDraft,
  route: ResolvedRoute,
  target: AdmittedTarget,
  path: string,
  { found }: Follow,
): Promise<void> {
  const own = await found;
  if (own.kind === 'ask' && incoming.connection.gone) {
    const gone = new Fault('downstream_gone');
    rooms.cache.failed(own, gone, rooms.now());
    throw gone;
  }
  const going =
    own.kind === 'hit'
      ? answerHit(incoming, rooms, draft, route, target, path, own)
      : goUpstream(incoming, rooms, draft, route, target, path, own);
  if (going !== null) await going;
}

/** From the cache's no to its store: out by the chains of the route, and back. */
async function goUpstream(
  incoming: Incoming,
  rooms: Rooms,
  draft: ExchangeDraft,
  route: ResolvedRoute,
  target: AdmittedTarget,
  path: string,
  ask: Ask,
): Promise<void> {
  const outgoing = outgoingOf(incoming, ask.request, target, path, null);
  const requestedAt = rooms.now();
  let kept: ReturnType<typeof keep>;
  let answer: Answer | null = null;
  try {
    ({ answer } = await rooms.tryChains(route, draft.host, draft.attempts, incoming.signal, one =>
      forward(outgoing, one, rooms),
    ));
  } catch (error) {
    const stale = rooms.cache.failed(ask, faultOf(error), rooms.now());
    if (stale === null) throw error;
    kept = stale;
  }
  if (answer !== null) kept = keep(rooms, ask, incoming.connection.pin, answer, requestedAt);
  if (kept!.again) return goUpstream(incoming, rooms, draft, route, target, path, kept!.again);
  const sending = finish(incoming, draft, rooms, kept!.answer, kept!.status);
  if (sending !== null) await sending;
}

/** What the cache makes of an answer. On a connection that is logged in itself (`pin`) it may be personal though its request says nothing of it. */
function keep(rooms: Rooms, ask: Ask, pin: string, answer: Answer, requestedAt: EpochMilliseconds) {
  return rooms.cache.store(ask, answer, { requestedAt, respondedAt: rooms.now(), personal: pin !== '' });
}

/** Asks for what a stale answer has gone out in the place of, with nobody waiting for it; an exchange of its own in the record. Never rejects. */
async function refreshBehind(
  rooms: Rooms,
  before: ExchangeDraft,
  route: ResolvedRoute,
  target: AdmittedTarget,
  path: string,
  ask: Ask,
): Promise<void> {
  const turn = rooms.behind.begin();
  if (turn === null) return rooms.cache.pass(ask);
  const draft = rooms.recorder.begin('http', ask.request.method);
  const { url, host, site, fromSite, because, filter, cache } = before;
  Object.assign(draft, { url, host, site, fromSite, because, route: before.route, filter, cache });
  const client = { pin: '' };
  const outgoing: Outgoing = {
    head: ask.request,
    target,
    path,
    body: null,
    upgrade: null,
    interim: null,
    client,
    connection: null,
    spent: null,
  };
  turn.whenOver = fault => outgoing.connection?.abort(fault);
  let isAnswered = false;
  try {
    const requestedAt = rooms.now();
    const { answer } = await rooms.tryChains(route, host, draft.attempts, turn.signal, one =>
      forward(outgoing, one, rooms),
    );
    isAnswered = true;
    rooms.recorder.firstByte(draft);
    draft.status = answer.head.status;
    const kept = keep(rooms, ask, client.pin, answer, requestedAt);
    if (kept.again) rooms.cache.pass(kept.again);
    draft.cacheStatus = `${kept.status}; detail=stale-while-revalidate`;
    const { body } = kept.answer;
    if (answer.body !== null && Buffer.isBuffer(answer.body)) draft.bytesDown += answer.body.length;
    else if (body !== null && !Buffer.isBuffer(body)) {
      if (body === answer.body) body.cancel();
      else await drain(body, turn, draft);
    }
  } catch (error) {
    const fault = faultOf(error);
    if (!isAnswered) rooms.cache.failed(ask, fault, rooms.now());
    draft.fault = fault.kind;
    draft.sentence = fault.message;
  } finally {
    turn.end();
  }
  rooms.recorder.finish(draft);
}

/** A CONNECT, or what SOCKS calls so, from its head to the record of its tunnel. Never rejects. */
export async function openTunnel(incoming: Incoming, rooms: Rooms): Promise<void> {
  const draft = rooms.recorder.begin(incoming.socks === null ? 'connect' : 'socks', 'CONNECT');
  try {
    await walkTunnel(incoming, rooms, draft);
  } catch (error) {
    failed(incoming, draft, error);
  }
  rooms.recorder.finish(draft);
}

async function walkTunnel(incoming: Incoming, rooms: Rooms, draft: ExchangeDraft): Promise<void> {
  const { target: asked } = incoming.head;
  if (asked.form !== 'authority') throw new Fault('proxy_internal_error');
  const { host, port } = asked;
  draft.url = formatEndpoint(asked);
  draft.host = host;
  draft.site = rooms.registrableDomain(host);
  // SOCKS has a login of its own, before it says where to.
  if (incoming.socks === null) rooms.entrance.demand?.(incoming.head, incoming.from);
  if (rooms.comesFromUs(incoming.head)) throw new Fault('proxy_loop_detected', { target: asked });

  const scheme = incoming.socks !== null && port === 80 ? 'http' : 'https';
  const decision = rooms.decide({ scheme, host, port });
  note(draft, decision);
  if (decision.blockedBy !== undefined) throw blocked(asked, decision.blockedBy);
  const route = rooms.routeOf(decision);
  const target = admit(host, port, 'connect', route, rooms);

  const { socket: upstream, rest: early } = await rooms.tryChains(route, host, draft.attempts, incoming.signal, one =>
    dialTunnel(one, target, rooms),
  );
  try {
    tunnelStands(incoming);
  } catch (error) {
    upstream.destroy();
    throw error;
  }
  draft.status = 200;
  rooms.recorder.firstByte(draft);
  const { socket: downstream, rest } = incoming.takeOver();
  rooms.recorder.opened(draft);
  await pipe(rooms, draft, downstream, rest, upstream, early);
}

/** WebSocket and the like on plain http: sent on, always by a tunnel of its own, and a blind pipe after the 101 (RFC 9110 §7.8). */
async function openUpgrade(
  incoming: Incoming,
  rooms: Rooms,
  draft: ExchangeDraft,
  route: ResolvedRoute,
  target: AdmittedTarget,
  path: string,
  upgrade: string,
): Promise<void> {
  draft.kind = 'upgrade';
  const outgoing = outgoingOf(incoming, incoming.head, target, path, upgrade);
  const { answer, upgraded } = await rooms.tryChains(route, target.host, draft.attempts, incoming.signal, one =>
    forward(outgoing, one, rooms),
  );
  if (upgraded === null) {
    const sending = finish(incoming, draft, rooms, answer, undefined);
    return sending === null ? undefined : await sending;
  }
  try {
    switchProtocols(incoming, answer.head);
  } catch (error) {
    upgraded.destroy();
    throw error;
  }
  draft.status = 101;
  rooms.recorder.firstByte(draft);
  const { socket: downstream, rest } = incoming.takeOver();
  rooms.recorder.opened(draft);
  await pipe(rooms, draft, downstream, rest, upgraded, answer.body as Buffer | null);
}

// Steps of the walk that are too small for a room ------------------------------------------------------------------------------------------------

async function dialTunnel(one: Try, target: AdmittedTarget, rooms: Rooms): Promise<Dialled> {
  const head = one.chain.hops.length > 0 ? `CONNECT ${formatEndpoint(target)}` : null;
  if (head !== null) rooms.identical.enter(head, target);
  try {
    return await rooms.dial(one, target, false);
  } finally {
    if (head !== null) rooms.identical.leave(head);
  }
}

async function pipe(
  rooms: Rooms,
  draft: ExchangeDraft,
  downstream: Parameters<typeof tunnel>[0],
  rest: Buffer | null,
  upstream: Parameters<typeof tunnel>[2],
  early: Buffer | null,
): Promise<void> {
  await tunnel(downstream, rest, upstream, early, {
    idle: rooms.limits.tunnelIdleTimeout * 1000,
    deadlines: rooms.pool.deadlines,
    running: draft,
  });
}

/** Sends the answer. Null when all of it is on its way, else a promise for the end of its body. */
function finish(
  incoming: Incoming,
  draft: ExchangeDraft,
  rooms: Rooms,
  answer: Answer,
  cacheStatus: string | undefined,
): Promise<void> | null {
  draft.cacheStatus = cacheStatus;
  const sending = respond(incoming, answer, { cacheStatus });
  draft.status = answer.ready?.status ?? answer.head.status;
  rooms.recorder.firstByte(draft);
  return sending;
}

function finishBlocked(incoming: Incoming, draft: ExchangeDraft, answer: Answer, fault: Fault): null {
  draft.status = answer.head.status;
  draft.sentence = fault.message;
  void respond(incoming, answer, { proxyStatus: proxyStatusOf(fault) });
  return null;
}

function recordRequest(incoming: Incoming, rooms: Rooms, draft: ExchangeDraft): void {
  draft.bytesUp += incoming.bytesUp;
  draft.bytesDown += incoming.bytesDown;
  rooms.recorder.finish(draft);
}

/** The fault that names who blocked: the rule, or the line of the list. */
function blocked(target: Endpoint, by: Because): Fault {
  return new Fault('http_request_denied', {
    target,
    detail: by.list === undefined ? by.rule : `${by.rule}, ${by.list} line ${by.line}`,
  });
}

/** The one place where faults end: into the answer, where there is still somebody to read it, and into the record. */
function failed(incoming: Incoming, draft: ExchangeDraft, error: unknown): void {
  const fault = faultOf(error);
  // What a rule blocks has not failed: the record says which rule instead.
  if (draft.blockedBy === undefined) draft.fault = fault.kind;
  draft.sentence = fault.message;
  try {
    const status = respondFault(incoming, fault);
    if (status !== null) draft.status = status;
    else if (fault.kind === 'downstream_gone' && !incoming.responded) draft.status = null;
  } catch {
    draft.status = null;
  }
}

function faultOf(error: unknown): Fault {
  return error instanceof Fault ? error : new Fault('proxy_internal_error', { cause: error, detail: String(error) });
}

function note(draft: ExchangeDraft, decision: SteeredDecision): void {
  draft.because = decision.because;
  draft.route = decision.route;
  draft.filter = decision.filter;
  draft.cache = decision.cache;
  draft.blockedBy = decision.blockedBy;
}

/** What can be judged of the target before anything is dialled. Where any chain has hops the target may be theirs to reach; a leg of our own is judged again at the dial. */
function admit(
  host: string,
  port: number,
  how: 'connect' | 'http',
  route: ResolvedRoute,
  rooms: Rooms,
): AdmittedTarget {
  return rooms.acl.admit({ host, port }, how, route.behindHops, route.route?.private ?? false);
}

function httpTarget(head: RequestHead): { host: string; port: number; path: string } {
  if (head.target.form !== 'absolute') throw new Fault('proxy_internal_error');
  return head.target;
}

function urlOf(host: string, port: number, path: string): string {
  return `http://${formatHost(host)}${port === 80 ? '' : `:${port}`}${path === '*' ? '' : path}`;
}

/** RFC 9110 §10.1.1: 100-continue is sent on with the rest; another expectation cannot be met. */
function isExpectationKnown(head: RequestHead): boolean {
  const expected = head.fields.get('expect');
  return expected === undefined || head.version !== 11 || expected.toLowerCase() === '100-continue';
}

/** The protocols that the client would change to. h2c is not among them, and HTTP/1.0 changes to nothing (RFC 9110 §7.8). */
function upgradeOf(head: RequestHead): string | null {
  const asked = head.fields.get('upgrade');
  if (asked === undefined || head.version === 10) return null;
  const connection = head.fields.get('connection');
  if (connection === undefined || !listHas(connection, 'upgrade')) return null;
  // With a body it would not be clear where the new protocol begins.
  if (head.framing.kind !== 'none') return null;
  const protocols = asked.split(',').map(one => one.trim());
  const kept = protocols.filter(one => one !== '' && !/^h2c?$/i.test(one));
  return kept.length > 0 ? kept.join(', ') : null;
}

const MAY_BE_SECRET = /cookie|auth|token|secret|session|password|credential|key/;

/** RFC 9110 §7.6.2: a TRACE or OPTIONS that may go no further ends here. */
function answeredHere(head: RequestHead): Answer | null {
  if (head.method !== 'TRACE' && head.method !== 'OPTIONS') return null;
  if (!/^0+$/.test(head.fields.get('max-forwards') ?? '')) return null;
  const fields = new Fields();
  let body: Buffer = Buffer.alloc(0);
  if (head.method === 'TRACE') {
    // §9.3.8: without what may be secret. The body is the request as it came to us.
    fields.append('Content-Type', 'message/http');
    const { host, port, path } = httpTarget(head);
    let text = `TRACE ${urlOf(host, port, path)} HTTP/1.1\r\n`;
    for (let i = 0; i < head.fields.length; i++) {
      if (MAY_BE_SECRET.test(head.fields.lowerNameAt(i))) continue;
      text += `${head.fields.nameAt(i)}: ${head.fields.valueAt(i)}\r\n`;
    }
    body = Buffer.from(`${text}\r\n`, 'latin1');
  }
  return {
    head: {
      status: 200,
      reason: 'OK',
      version: 11,
      fields,
      framing: { kind: 'length', length: body.length },
      keepAlive: true,
    },
    body,
  };
}

function outgoingOf(
  incoming: Incoming,
  head: RequestHead,
  target: AdmittedTarget,
  path: string,
  upgrade: string | null,
): Outgoing {
  const outgoing: Outgoing = {
    head,
    target,
    path,
    body: incoming.body,
    upgrade,
    interim: interim => respondInterim(incoming, interim),
    client: incoming.connection,
    connection: null,
    spent: null,
  };
  incoming.whenGone = fault => outgoing.connection?.abort(fault);
  return outgoing;
}

/** The registrable domain of the page that asked, by Referer or Origin. */
function pageSite(head: RequestHead, rooms: Rooms): string | undefined {
  const page = head.fields.get('referer') ?? head.fields.get('origin');
  if (page === undefined) return undefined;
  const host = /^https?:\/\/(?:[^/?#@]*@)?(\[[0-9a-f:.]+\]|[^/?#:@]+)/i.exec(page)?.[1];
  if (host === undefined) return undefined;
  return rooms.registrableDomain(host.startsWith('[') ? host.slice(1, -1) : host.toLowerCase());
}

/** Whose cache: the page's; for a navigation the target's own; else nobody's in particular. */
function partitionOf(head: RequestHead, site: string, fromSite: string | undefined): string {
  const mode = head.fields.get('sec-fetch-mode');
  // Browsers send Sec-Fetch-* only to https and localhost; over plain http a navigation shows by this.
  const navigates = mode === undefined ? head.fields.has('upgrade-insecure-requests') : mode === 'navigate';
  return navigates ? site : (fromSite ?? '');
}
