// THE WALK: what happens to a request, a line or two for every room. Rooms do not know each other; they meet here.
import type { ConfigLimits } from '../shared/config.ts';
import type { Because, DecisionTarget } from '../shared/decision/rule.ts';
import { type Endpoint, formatEndpoint } from '../shared/endpoint.ts';
import type { Attempt } from '../shared/exchange.ts';
import { Fault } from '../shared/fault.ts';
import type { EpochMilliseconds, Milliseconds } from '../shared/units.ts';
import type { Incoming } from './downstream/connection.ts';
import { answeredHere } from './downstream/duties.ts';
import { proxyStatusOf } from './downstream/fault-page.ts';
import { respond, respondFault, respondInterim, switchProtocols, tunnelStands } from './downstream/respond.ts';
import type { Answer, Body, RequestHead } from './message/message.ts';
import { decidedAnew, type Era, type Notes, notesOf, type SteeredDecision } from './notes.ts';
import type {
  Acl,
  AdmittedTarget,
  Ask,
  BlockAnswer,
  Cache,
  Chain,
  ChainOutcomes,
  Dial,
  Entrance,
  Dialled,
  ExchangeDraft,
  Follow,
  Hit,
  Recorder,
  Refusals,
  ResolvedRoute,
  Try,
  TryChains,
} from './rooms.ts';
import { MAX_ATTEMPTS } from './route/survive.ts';
import type { Socket } from './sockets/socket.ts';
import { type Behind, drain, type Turn } from './upstream/behind.ts';
import type { ConnectionPool } from './upstream/connection-pool.ts';
import { FirstFlight, MAX_REPLAYS } from './upstream/first-flight.ts';
import { forward, type Forwarded, type Outgoing } from './upstream/forward.ts';
import type { IdenticalHeads } from './upstream/identical-heads.ts';
import { ReplayBody } from './upstream/replay-body.ts';
import { tunnel } from './upstream/tunnel.ts';

/** The furnished rooms. A changed configuration furnishes new ones; an exchange keeps those it entered. */
export interface Rooms extends Era {
  readonly entrance: Entrance;
  readonly acl: Acl;
  readonly blockAnswer: BlockAnswer;
  readonly cache: Cache;
  readonly tryChains: TryChains;
  readonly heard: ChainOutcomes['heard'];
  /** A tunnel by this chain stood, and broke at the client's first word. */
  readonly broke: (site: string, chain: Chain, fault: Fault) => void;
  /** Whether a person holds the route to one of its chains. */
  readonly isHeld: (route: ResolvedRoute) => boolean;
  readonly dial: Dial;
  readonly refusals: Refusals;
  readonly pool: ConnectionPool;
  readonly identical: IdenticalHeads;
  /** Decides anew by the addresses of a name, which only what would be dialled from here is looked up for. Null: no rule looks at them. */
  readonly decideByAddress: ((target: DecisionTarget, byName: SteeredDecision) => Promise<SteeredDecision>) | null;
  /** What is asked for though no client waits for it. */
  readonly behind: Behind;
  readonly recorder: Recorder;
  readonly limits: Pick<ConfigLimits, 'tunnelIdleTimeout'>;
  /** Whether a CONNECT carries our own loop mark. */
  readonly comesFromUs: (head: RequestHead) => boolean;
  readonly now: () => EpochMilliseconds;
}

// A request --------------------------------------------------------------------------------------------------------------------------

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
  const notes = notesOf(head, rooms);
  noteTarget(draft, notes);
  rooms.entrance.demand?.(head, incoming.from);
  if (!notes.isExpectationKnown) throw new Fault('expectation_failed');
  return rooms.decideByAddress === null
    ? walkOn(incoming, rooms, draft, notes)
    : walkByAddress(incoming, rooms, draft, notes, rooms.decideByAddress);
}

/** Where a rule looks at the addresses that a name leads to: they are found out first. */
async function walkByAddress(
  incoming: Incoming,
  rooms: Rooms,
  draft: ExchangeDraft,
  notes: Notes,
  decideByAddress: NonNullable<Rooms['decideByAddress']>,
): Promise<void> {
  const { host, port, path } = notes;
  const decision = await decideByAddress({ scheme: 'http', host, port, path }, notes.decision);
  if (incoming.connection.gone) throw new Fault('downstream_gone');
  const going = walkOn(incoming, rooms, draft, decidedAnew(notes, decision, rooms));
  if (going !== null) await going;
}

function walkOn(incoming: Incoming, rooms: Rooms, draft: ExchangeDraft, notes: Notes): Promise<void> | null {
  const { head } = incoming;
  const { host, port, decision } = notes;
  noteDecision(draft, decision);
  if (decision.blockedBy !== undefined) {
    const answer = rooms.blockAnswer(head, host, decision.blockedBy);
    return finishBlocked(incoming, draft, answer, blocked({ host, port }, decision.blockedBy));
  }
  const target = admit(host, port, 'http', notes.route, rooms);
  const own = answeredHere(head, notes.url);
  if (own !== null) return finish(incoming, draft, rooms, own, undefined);
  if (notes.upgrade !== null) return openUpgrade(incoming, rooms, draft, notes, target);

  const found = rooms.cache.lookup(notes.request, rooms.now());
  if (found.kind === 'hit') return answerHit(incoming, rooms, draft, notes, target, found);
  if (found.kind === 'ask') return goUpstream(incoming, rooms, draft, notes, target, found);
  return follow(incoming, rooms, draft, notes, target, found);
}

/** The answer out of the store; behind it, what is to make it fresh again. */
function answerHit(
  incoming: Incoming,
  rooms: Rooms,
  draft: ExchangeDraft,
  notes: Notes,
  target: AdmittedTarget,
  hit: Hit,
): Promise<void> | null {
  if (hit.refresh === null) return finish(incoming, draft, rooms, hit.answer, hit.status);
  try {
    return finish(incoming, draft, rooms, hit.answer, hit.status);
  } finally {
    void refreshBehind(rooms, notes, target, hit.refresh);
  }
}

/** Another is being sent the same: his answer, or what comes of asking for it here. */
async function follow(
  incoming: Incoming,
  rooms: Rooms,
  draft: ExchangeDraft,
  notes: Notes,
  target: AdmittedTarget,
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
      ? answerHit(incoming, rooms, draft, notes, target, own)
      : goUpstream(incoming, rooms, draft, notes, target, own);
  if (going !== null) await going;
}

/** From the cache's no to its store: out by the chains of the route, and back. */
async function goUpstream(
  incoming: Incoming,
  rooms: Rooms,
  draft: ExchangeDraft,
  notes: Notes,
  target: AdmittedTarget,
  ask: Ask,
): Promise<void> {
  const outgoing = outgoingOf(incoming, ask.request, target, notes);
  const requestedAt = rooms.now();
  let kept: ReturnType<Cache['store']>;
  let answer: Answer | null = null;
  try {
    ({ answer } = await send(outgoing, rooms, draft, notes.route, incoming.signal));
    rooms.heard(draft.site, notes.route, draft.attempts);
  } catch (error) {
    const stale = giveUp(rooms, ask, faultOf(error));
    if (stale === null) throw error;
    kept = stale;
  }
  if (answer !== null) kept = keep(rooms, ask, incoming.connection.pin, answer, requestedAt, draft);
  if (kept!.again) return goUpstream(incoming, rooms, draft, notes, target, kept!.again);
  const sending = finish(incoming, draft, rooms, kept!.answer, kept!.status);
  if (sending !== null) await sending;
}

/** What the cache makes of an answer. On a connection that is logged in itself (`pin`) it may be personal though its request says nothing of it. */
function keep(
  rooms: Rooms,
  ask: Ask,
  pin: string,
  answer: Answer,
  requestedAt: EpochMilliseconds,
  { attempts }: ExchangeDraft,
): ReturnType<Cache['store']> {
  const last = attempts.at(-1);
  if (last !== undefined && last.verdict === 'proxy' && isPolicy(last.sign)) {
    // A hop's own words say nothing of what the origin has there.
    rooms.cache.pass(ask);
    return { answer, status: ask.status };
  }
  return rooms.cache.store(ask, answer, { requestedAt, respondedAt: rooms.now(), personal: pin !== '' });
}

/** No answer came. What a hop would not carry is not what an origin that is away cannot give: nothing stale takes its place. */
function giveUp(rooms: Rooms, ask: Ask, fault: Fault): ReturnType<Cache['failed']> {
  if (fault.verdict !== 'proxy' || !isPolicy(fault.sign)) return rooms.cache.failed(ask, fault, rooms.now());
  rooms.cache.pass(ask);
  return null;
}

/** Whether it would not, rather than could not. */
function isPolicy(sign: Attempt['sign']): boolean {
  return sign === 'policy' || sign === 'auth' || sign === 'rate' || sign === 'portal';
}

// Behind an answer -------------------------------------------------------------------------------------------------------------------

/** Asks for what a stale answer has gone out in the place of, with nobody waiting for it; an exchange of its own in the record. Never rejects. */
async function refreshBehind(rooms: Rooms, notes: Notes, target: AdmittedTarget, ask: Ask): Promise<void> {
  const turn = rooms.behind.begin();
  if (turn === null) return rooms.cache.pass(ask);
  const draft = rooms.recorder.begin('http', ask.request.method);
  noteTarget(draft, notes);
  noteDecision(draft, notes.decision);
  try {
    await walkBehind(rooms, draft, notes, target, ask, turn);
  } catch (error) {
    const fault = faultOf(error);
    draft.fault = fault.kind;
    draft.sentence = fault.message;
  } finally {
    turn.end();
  }
  rooms.recorder.finish(draft);
}

async function walkBehind(
  rooms: Rooms,
  draft: ExchangeDraft,
  notes: Notes,
  target: AdmittedTarget,
  ask: Ask,
  turn: Turn,
): Promise<void> {
  const client = { pin: '' };
  const outgoing: Outgoing = {
    head: ask.request,
    target,
    path: notes.path,
    body: null,
    upgrade: null,
    interim: null,
    client,
    connection: null,
    route: notes.route,
    tried: 0,
    opinions: null,
    spent: null,
  };
  turn.whenOver = fault => outgoing.connection?.abort(fault);
  const requestedAt = rooms.now();
  let answer: Answer;
  try {
    ({ answer } = await send(outgoing, rooms, draft, notes.route, turn.signal));
  } catch (error) {
    giveUp(rooms, ask, faultOf(error));
    throw error;
  }
  rooms.recorder.firstByte(draft);
  draft.status = answer.head.status;
  const kept = keep(rooms, ask, client.pin, answer, requestedAt, draft);
  if (kept.again) rooms.cache.pass(kept.again);
  draft.cacheStatus = `${kept.status}; detail=stale-while-revalidate`;
  const { body } = kept.answer;
  if (answer.body !== null && Buffer.isBuffer(answer.body)) draft.bytesDown += answer.body.length;
  else if (body !== null && !Buffer.isBuffer(body)) {
    if (body === answer.body) body.cancel();
    else await drain(body, turn, draft);
  }
}

// A tunnel ---------------------------------------------------------------------------------------------------------------------------

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
  const byName = rooms.decide({ scheme, host, port });
  const decision =
    rooms.decideByAddress === null ? byName : await rooms.decideByAddress({ scheme, host, port }, byName);
  noteDecision(draft, decision);
  if (decision.blockedBy !== undefined) throw blocked(asked, decision.blockedBy);
  const route = rooms.routeOf(decision);
  const target = admit(host, port, 'connect', route, rooms);

  const heard = () => rooms.heard(draft.site, route, draft.attempts);
  if (route.chains.length > 1 && !rooms.isHeld(route))
    return pipeByChains(incoming, rooms, draft, route, target, heard);
  const { socket, rest } = await rooms.tryChains(route, host, draft.attempts, incoming.signal, one =>
    dialTunnel(one, target, rooms),
  );
  await pipe(incoming, rooms, draft, 200, () => tunnelStands(incoming), socket, rest, heard);
}

/** The same where there is another chain to go to if this one breaks at the client's first word. */
async function pipeByChains(
  incoming: Incoming,
  rooms: Rooms,
  draft: ExchangeDraft,
  route: ResolvedRoute,
  target: AdmittedTarget,
  heard: () => void,
): Promise<void> {
  const tried = new Set<Chain>();
  const open = (by: ResolvedRoute, signal: AbortSignal) =>
    rooms.tryChains(by, target.host, draft.attempts, signal, async one => {
      tried.add(one.chain);
      return { dialled: await dialTunnel(one, target, rooms), chain: one.chain };
    });
  let { dialled, chain } = await open(route, incoming.signal);
  tellOf(dialled.socket, () => tunnelStands(incoming));
  draft.status = 200;
  rooms.recorder.firstByte(draft);
  const { socket: downstream, rest } = incoming.takeOver();
  rooms.recorder.opened(draft);
  const { deadlines } = rooms.pool;
  const idle = rooms.limits.tunnelIdleTimeout * 1000;
  const flight = new FirstFlight(downstream, rest, { target, deadlines, idle, running: draft });
  const until = rooms.now() + FLIGHT_BUDGET;
  for (let replays = 0; ; replays++) {
    const { socket } = dialled;
    const ended = await flight.through(socket, dialled.rest);
    if (ended.end === 'gone') return flight.leave();
    if (ended.end === 'stands') {
      flight.leave();
      if (ended.down !== null) heard();
      const options = { idle, deadlines, running: draft, heard: ended.down === null ? heard : null };
      return await tunnel(downstream, ended.up, socket, ended.down, options);
    }
    // Silence is no end: where no other chain stands it is listened to further.
    const isSilent = ended.fault.kind === 'connection_timeout';
    noteBroken(draft, ended.fault);
    rooms.broke(draft.site, chain, ended.fault);
    const left = route.chains.filter(one => !tried.has(one));
    const mayGo = left.length > 0 && replays < MAX_REPLAYS && tried.size < MAX_ATTEMPTS && rooms.now() < until;
    const next = mayGo
      ? await again(flight, signal => open({ ...route, chains: left, group: undefined }, signal))
      : null;
    if (next !== null) {
      socket.destroy();
      ({ dialled, chain } = next);
    } else {
      flight.leave();
      if (isSilent && !flight.gone)
        return await tunnel(downstream, null, socket, null, { idle, deadlines, running: draft, heard });
      return passOnEnd(downstream, socket, ended.said, ended.fault, draft);
    }
  }
}

/** A flight that broke is not sent again later than this. */
const FLIGHT_BUDGET: Milliseconds = 20_000;

/** Opens by another chain, for as long as the client is there. Null where none stands. */
async function again<T>(flight: FirstFlight, open: (signal: AbortSignal) => Promise<T>): Promise<T | null> {
  const controller = new AbortController();
  flight.whenGone = () => controller.abort(new Fault('downstream_gone'));
  try {
    return flight.gone ? null : await open(controller.signal);
  } catch {
    return null;
  } finally {
    flight.whenGone = null;
  }
}

/** The tunnel stood, and broke at the first word: that is how this attempt ended. */
function noteBroken({ attempts }: ExchangeDraft, fault: Fault): void {
  const at = attempts.findLastIndex(({ outcome }) => outcome === 'ok');
  if (at < 0) return;
  const { kind, sign, verdict, message } = fault;
  attempts[at] = { ...attempts[at]!, outcome: kind, stage: 'response', sign, verdict, reason: message };
}

/** No chain is left: the client hears what the last one said, and how it ended. */
function passOnEnd(
  downstream: Socket,
  upstream: Socket,
  said: Buffer | null,
  fault: Fault,
  draft: ExchangeDraft,
): void {
  draft.fault = fault.kind;
  draft.sentence = fault.message;
  upstream.destroy();
  if (downstream.destroyed) return;
  if (said !== null) {
    draft.bytesDown += said.length;
    downstream.write(said);
    downstream.end();
    downstream.resume();
  } else if (fault.cause !== undefined) downstream.resetAndDestroy();
  else downstream.destroy();
}

/** WebSocket and the like on plain http: sent on, always by a tunnel of its own, and a blind pipe after the 101 (RFC 9110 §7.8). */
async function openUpgrade(
  incoming: Incoming,
  rooms: Rooms,
  draft: ExchangeDraft,
  notes: Notes,
  target: AdmittedTarget,
): Promise<void> {
  draft.kind = 'upgrade';
  const outgoing = outgoingOf(incoming, incoming.head, target, notes);
  const { answer, upgraded } = await send(outgoing, rooms, draft, notes.route, incoming.signal);
  if (upgraded === null) {
    const sending = finish(incoming, draft, rooms, answer, undefined);
    return sending === null ? undefined : await sending;
  }
  const change = () => switchProtocols(incoming, answer.head);
  await pipe(incoming, rooms, draft, 101, change, upgraded, answer.body as Buffer | null);
}

/** Joins both ends until either is done, once the client has been told (`tell`) that they are. `early` is what upstream has sent already; `heard` is called at its first byte. */
async function pipe(
  incoming: Incoming,
  rooms: Rooms,
  draft: ExchangeDraft,
  status: number,
  tell: () => void,
  upstream: Socket,
  early: Buffer | null,
  heard: (() => void) | null = null,
): Promise<void> {
  tellOf(upstream, tell);
  draft.status = status;
  rooms.recorder.firstByte(draft);
  const { socket: downstream, rest } = incoming.takeOver();
  rooms.recorder.opened(draft);
  await tunnel(downstream, rest, upstream, early, {
    idle: rooms.limits.tunnelIdleTimeout * 1000,
    deadlines: rooms.pool.deadlines,
    running: draft,
    heard,
  });
}

/** Tells the client that the tunnel stands. */
function tellOf(upstream: Socket, tell: () => void): void {
  try {
    tell();
  } catch (error) {
    upstream.destroy();
    throw error;
  }
}

// Steps of the walk that are too small for a room ------------------------------------------------------------------------------------

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

/** A request on its way out for a client, who ends it when he leaves. */
function outgoingOf(incoming: Incoming, head: RequestHead, target: AdmittedTarget, notes: Notes): Outgoing {
  const outgoing: Outgoing = {
    head,
    target,
    path: notes.path,
    body: bodyOf(incoming, notes.route),
    upgrade: notes.upgrade,
    interim: interim => respondInterim(incoming, interim),
    client: incoming.connection,
    connection: null,
    route: notes.route,
    tried: 0,
    opinions: null,
    spent: null,
  };
  incoming.whenGone = fault => outgoing.connection?.abort(fault);
  return outgoing;
}

/** A body that streams is kept, up to a bound, where there is another chain that it may have to go out by. */
function bodyOf({ body }: Incoming, { chains, route }: ResolvedRoute): Body {
  if (body === null || Buffer.isBuffer(body) || chains.length < 2) return body;
  return new ReplayBody(body, route?.buffer ?? 0);
}

/** Out by the chains of the route, and back with the head of the answer. */
function send(
  outgoing: Outgoing,
  rooms: Rooms,
  draft: ExchangeDraft,
  route: ResolvedRoute,
  signal: AbortSignal,
): Promise<Forwarded> {
  const going = rooms.tryChains(route, draft.host, draft.attempts, signal, one => forward(outgoing, one, rooms));
  const { body } = outgoing;
  return body instanceof ReplayBody ? going.finally(() => body.settle()) : going;
}

async function dialTunnel(one: Try, target: AdmittedTarget, rooms: Rooms): Promise<Dialled> {
  const head = one.chain.hops.length > 0 ? `CONNECT ${formatEndpoint(target)}` : null;
  if (head !== null) rooms.identical.enter(head, target);
  one.mayRace = true;
  try {
    return await rooms.dial(one, target, false);
  } finally {
    if (head !== null) rooms.identical.leave(head);
  }
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

function noteTarget(draft: ExchangeDraft, { url, host, site, fromSite }: Notes): void {
  draft.url = url;
  draft.host = host;
  draft.site = site;
  draft.fromSite = fromSite;
}

function noteDecision(draft: ExchangeDraft, decision: SteeredDecision): void {
  draft.because = decision.because;
  draft.route = decision.route;
  draft.filter = decision.filter;
  draft.cache = decision.cache;
  draft.blockedBy = decision.blockedBy;
}

function recordRequest(incoming: Incoming, rooms: Rooms, draft: ExchangeDraft): void {
  draft.bytesUp += incoming.bytesUp;
  draft.bytesDown += incoming.bytesDown;
  rooms.recorder.finish(draft);
}
