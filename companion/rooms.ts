// What the rooms hand each other. Types only: a room knows these shapes and nothing of the room that fills them.
// They meet in proxy.ts (the walk) and are furnished in worker.ts.
import type { Socket as NodeSocket } from 'node:net';
import type { Because, Decision } from '../shared/decision/rule.ts';
import type { Endpoint } from '../shared/endpoint.ts';
import type { Attempt, Exchange, HopTrace } from '../shared/exchange.ts';
import type { Fault } from '../shared/fault.ts';
import type { EpochMilliseconds, Milliseconds } from '../shared/units.ts';
import type { Hop } from '../shared/config/hops.ts';
import type { Pick as PickOf, Route } from '../shared/config/routes.ts';
import type { Nonce, Told } from './message/hop-login.ts';
import type { Answer, RequestHead, ResponseHead } from './message/message.ts';
import type { Socket } from './sockets/socket.ts';

// guard ---------------------------------------------------------------------------------------------------------------------------

declare const admitted: unique symbol;
/** A target that the guard has let pass; `dial` takes no other. */
export type AdmittedTarget = Endpoint & { readonly [admitted]: true };

/** Who may enter, and where they may go. */
export interface Acl {
  /**
   * Judges what can be judged before a connection is made: the port policy, own listeners by literal address, and literals and
   * `localhost` names (loopback, link-local, metadata, private) by `behindHops`. Throws Fault http_request_denied (a port),
   * destination_ip_prohibited (an address), proxy_loop_detected (an own listener).
   */
  admit(target: Endpoint, how: 'connect' | 'http', behindHops: boolean, privateAllowed: boolean): AdmittedTarget;
  /** Judges an address that is about to be dialled on a zero-hop leg: the fault that forbids it, or null. */
  admitsAddress(address: string, port: number): Fault | null;
  /** Judges an address about to be dialled for the first hop: only own listeners are refused. */
  admitsHopAddress(address: string, port: number): Fault | null;
}

/** Who may enter. */
export interface Entrance {
  /** Whether a connection that has come in may stay. */
  mayEnter(socket: { readonly remoteAddress?: string | undefined; localAddress(): string | undefined }): boolean;
  /** Whether name and password are right (SOCKS); null = nobody is asked for them. `from` is the client's address. */
  readonly logIn: ((username: string, password: string, from: string) => boolean) | null;
  /** The same by Proxy-Authorization: throws Fault proxy_authentication_required, too_many_logins; null = nobody is asked. */
  readonly demand: ((head: RequestHead, from: string) => void) | null;
}

/** Both ends of a connection, as the socket names them. */
export interface SocketEnds {
  readonly remoteAddress: string;
  readonly remotePort: number;
  readonly localAddress: string;
  readonly localPort: number;
}

/** Says whether a program of our own user has the other end of a connection on this machine. */
export interface OwnerCheck {
  /** Tells exactly once, within seconds; what cannot be known is a no. */
  ask(ends: SocketEnds, tell: (isMine: boolean) => void): void;
}

// chain ---------------------------------------------------------------------------------------------------------------------------

/** A named hop. */
export interface NamedHop extends Hop {
  readonly name: string;
}

/** The ordered hops of one connection; empty = the companion connects itself. `key` names it in pools and partitions. */
export interface Chain {
  readonly key: string;
  /** Its last hop gets a login of its own for every site (`isolate: site`); one of kind tor does so anyway. */
  readonly isolate?: boolean;
  readonly hops: readonly NamedHop[];
}

export interface Dialled {
  readonly socket: Socket;
  /** Bytes that came behind the last handshake, already read. Usually empty. */
  readonly rest: Buffer;
  readonly hops: readonly HopTrace[];
}

/**
 * Folds the chain of a try into one socket to `target`. With `absolute`, the last hop (kind http) is only connected to, not asked for a tunnel: the request
 * goes to it in absolute-form. Resolves names only on a zero-hop leg (and for the first hop). Every address is judged by the guard before it is dialled.
 * Throws faults with `hop` set when a hop is to blame; the try's `steps` and `stage` say how far it got.
 */
export type Dial = (one: Omit<Try, 'replayable'>, target: AdmittedTarget, absolute: boolean) => Promise<Dialled>;

// route ---------------------------------------------------------------------------------------------------------------------------

/** Chains, and other groups of chains, of which one is picked. */
export interface Group {
  /** The route's that it is made of. */
  readonly name: string;
  readonly pick: PickOf;
  readonly tolerance: Milliseconds;
  readonly members: readonly (Chain | Group)[];
}

/** The route of a decision, resolved against the file. */
export interface ResolvedRoute {
  readonly name: string;
  /** Every chain of the route and its groups once, in file order. */
  readonly chains: readonly Chain[];
  /** How they are put in order; absent where they are tried as they stand. */
  readonly group?: Group | undefined;
  /** Whether any of them has hops. */
  readonly behindHops: boolean;
  readonly route: Route | null;
}

/** What is known of chains when one is to be picked. Asked on every request: cheap, and cheapest where nothing is known. */
export interface ChainKnowledge {
  /** Whether the chain lately failed for this site, or for every site. */
  isLast(site: string, chain: Chain): boolean;
  /** How long the chain takes to stand; null = not known. */
  latency(chain: Chain): Milliseconds | null;
  /** Whether the chain is down for every site. */
  isDown(chain: Chain): boolean;
  /** The key of the chain that an `auto` route has found out to be needed for this site; null = none. */
  preferred(site: string, route: string): string | null;
  /**
   * `auto`: how long the companion's own connection may try alone before a chain joins in, where it is a question which of them the site needs; null = it is
   * none, or `preferred` answers it.
   */
  headStart?(site: string): Milliseconds | null;
}

/** One try on one chain. Throws a Fault; resolves with what the walk goes on with. `stage` is set as the try gets on. */
export interface Try {
  readonly chain: Chain;
  readonly signal: AbortSignal;
  readonly steps: HopTrace[];
  stage: Attempt['stage'];
  /** What the last hop was told of who we are, where the request itself tells it; and what it has just given to be told with. */
  told?: Told;
  given?: Nonce | undefined;
  /** Set by the walk where the request may be sent twice: the route then also survives an answer that broke off before its first byte. */
  replayable?: boolean;
  /** Set by the walk where an answer that looks like a no is passed on: who said it, and what it looks like. */
  verdict?: Attempt['verdict'];
  sign?: Attempt['sign'];
  /** Set where a hop's own no is passed on, as this request must not be sent twice: to be remembered like one that was survived. */
  refused?: Fault;
  /** Set by an attempt before it dials, where another chain may be dialled at the same time: nothing of it goes out on a connection that it has not dialled. */
  mayRace?: boolean;
  /** Where another chain may be dialled at the same time: called when this one stands; false = it is too late, and is closed. */
  claim?: () => boolean;
}

/** What has become of a request by the time an answer to it comes. */
export interface Sent {
  readonly method: string;
  /** Every byte of its body that has gone out is still here, or it has none. */
  readonly isKept: boolean;
  /** Its body has come, all of it. */
  readonly isWhole: boolean;
  /** It has a body, of which no byte has gone out (Expect: 100-continue, RFC 9110 §10.1.1). */
  readonly isUnsent: boolean;
}

/** An answer that a chain gave, and that was taken for a no though nobody says whose. */
export interface Opinion {
  readonly status: number;
  readonly chain: Chain;
}

/** Whose no may an answer be, and what is to become of it? */
export interface Question {
  /** The verdict is noted here where the answer is passed on. */
  readonly one: Try;
  /** The hop that was asked in absolute-form; null = the answer came through a tunnel, or by a leg of our own. */
  readonly hop: NamedHop | null;
  readonly target: AdmittedTarget;
  readonly route: ResolvedRoute;
  readonly sent: Sent;
  /** How many chains have been tried, with this one. */
  readonly tried: number;
  /** What was said before, and taken for a no. This answer joins them where it is. */
  readonly opinions: Opinion[];
}

/** What an answer is taken for: null = it is passed on as it is; a fault = it is a no, and the route is to survive it; 'page' = its body would tell. */
export interface Refusals {
  ofAnswer(head: ResponseHead, question: Question, page: string | null): Fault | 'page' | null;
  /** Whether the hop says of an answer that it had it from further on. */
  wasForwarded(head: ResponseHead): boolean;
  /** Learns how a hop forwards from an answer below 400 that it gave. */
  learn(head: ResponseHead, hop: NamedHop): void;
}

/**
 * Tries the chains of a route in the order of its pick and of what is known until one works, or only the one that it is pinned to; appends every attempt to
 * `attempts`.
 * A fault that the route may survive (connect failure, refusal) leads to the next chain; any other, or the last, is thrown.
 * Never more than `routeTimeout` in all.
 */
export type TryChains = <T>(
  route: ResolvedRoute,
  host: string,
  attempts: Attempt[],
  signal: AbortSignal,
  attempt: (one: Try) => Promise<T>,
) => Promise<T>;

/** How a try failed, as far as its outcome is to be remembered. */
export interface FailedTry {
  readonly fault: Fault;
  readonly stage: Attempt['stage'];
  /** How far it got. */
  readonly steps: readonly HopTrace[];
}

/** The other half: what the walk finds out. `site` null: nothing was to be chosen, and only of the hops something is learned. */
export interface ChainOutcomes extends ChainKnowledge {
  /** A request begins to try it: where it was due for another chance, this is it, and other requests keep to what works meanwhile. */
  trying(site: string | null, chain: Chain): void;
  /** It stands, or has answered. `steps` empty: by a connection that stood before. */
  worked(site: string | null, chain: Chain, took: Milliseconds, steps: readonly HopTrace[]): void;
  failed(site: string | null, chain: Chain, failed: FailedTry): void;
  /**
   * The fault, or what it is for a route that is `auto`: where the DNS names a private address for a public name, the guard refuses it, and the chains,
   * which do not ask this DNS, may be tried.
   */
  seenThrough(fault: Fault, chain: Chain, route: ResolvedRoute): Fault;
  /**
   * The target itself has been heard by the last of these attempts: an answer's head, the first bytes of a tunnel that the client has spoken into.
   * Where the route is `auto`, this is when something is learned of the site. Once for each exchange.
   */
  heard(site: string, route: ResolvedRoute, attempts: readonly Attempt[]): void;
}

// filter --------------------------------------------------------------------------------------------------------------------------

/** The page that says which rule of which list blocked, and how to let it through; null for a subresource (a typed empty answer is made). */
export type BlockAnswer = (request: RequestHead, host: string, blockedBy: Because) => Answer;

// cache ---------------------------------------------------------------------------------------------------------------------------

/** A request as the cache sees it. */
export interface CacheRequest {
  readonly head: RequestHead;
  /** Absolute URL in normal form, without fragment or user information. */
  readonly url: string;
  /** Registrable domain of the URL's host. */
  readonly site: string;
  readonly route: string;
  /** Registrable domain of Referer or Origin; for a navigation the target's own; else ''. */
  readonly partition: string;
  /** Whether any chain of the route has hops. */
  readonly behindHops: boolean;
  readonly decision: Decision;
  /** The cache's own: what it has read of the head, for when the same request comes again. */
  asked?: unknown;
}

export type Found = Hit | Ask | Follow;

/** Answered from the store. */
export interface Hit {
  readonly kind: 'hit';
  readonly answer: Answer;
  /** Cache-Status parameters: `hit; ttl=30`. */
  readonly status: string;
  /** What is asked for behind the answer (RFC 5861 §3); null = nothing. */
  readonly refresh: Ask | null;
}

/** To be asked for upstream. Either `store` or `failed` or `pass` is told how it went, exactly once. */
export interface Ask {
  readonly kind: 'ask';
  /** The head to send: the client's, or with the validators of what is stored. */
  readonly request: RequestHead;
  /** Cache-Status parameters so far: `fwd=uri-miss`. */
  readonly status: string;
  /** The cache's own. */
  readonly token: unknown;
}

/** The same is being asked for by another. */
export interface Follow {
  readonly kind: 'follow';
  /** His answer, perhaps with its body still coming, or an Ask of one's own. Never rejects; within a bound of time. */
  readonly found: Promise<Hit | Ask>;
}

/** When a request went out and its answer's head came. */
export interface ExchangeTimes {
  readonly requestedAt: EpochMilliseconds;
  readonly respondedAt: EpochMilliseconds;
  /** The connection is logged in itself: the answer may be for this client alone, and is not kept. */
  readonly personal?: boolean;
}

export interface Cache {
  /** Throws Fault only_if_cached. */
  lookup(request: CacheRequest, now: EpochMilliseconds): Found;
  /**
   * Takes the final answer of upstream: stores it when it may (teeing its body without slowing it), freshens by it, invalidates after unsafe methods,
   * and gives back the answer to respond with. `status` are the final Cache-Status parameters (`fwd=uri-miss; stored`).
   * With `again`, once at the most, the answer is of no use and let go, and that is to be asked for instead.
   */
  store(ask: Ask, answer: Answer, times: ExchangeTimes): { answer: Answer; status: string; again?: Ask };
  /** Upstream gave no answer. The stale one where a cache may serve it then (RFC 9111 §4.2.4), else null. Throws Fault not_validated (§5.2.2.2). */
  failed(ask: Ask, fault: Fault, now: EpochMilliseconds): { answer: Answer; status: string } | null;
  /** What was asked for is no business of the cache. */
  pass(ask: Ask): void;
  /** What lookup would say, changing nothing: for explain. */
  peek(request: CacheRequest, now: EpochMilliseconds): string;
  clear(): void;
  close(): Promise<void>;
}

// record --------------------------------------------------------------------------------------------------------------------------

/** An exchange while it runs; the walk fills it in. Times are handed in by the recorder's clock. */
export interface ExchangeDraft extends Mutable<Omit<Exchange, 'attempts' | 'id' | 'startedAt' | 'took'>> {
  readonly id: number;
  readonly startedAt: EpochMilliseconds;
  readonly attempts: Attempt[];
  took?: Milliseconds;
}
type Mutable<T> = { -readonly [K in keyof T]: T[K] };

export interface Recorder {
  /** Begins the record of one exchange. */
  begin(kind: Exchange['kind'], method: string): ExchangeDraft;
  /** The first byte of an answer goes out, now. */
  firstByte(draft: ExchangeDraft): void;
  /** A tunnel stands: shows it as open in the log and to followers. */
  opened(draft: ExchangeDraft): void;
  /** Ends it: into the log, to followers, into the counters. Called exactly once. */
  finish(draft: ExchangeDraft): void;
}

// control -------------------------------------------------------------------------------------------------------------------------

/** What the downstream room does with an origin-form request: the control room's, or the bare 400. */
export interface ControlDoor {
  /** Answers a plain request (the PAC); null = not ours, the caller sends the bare 400. */
  answer(head: RequestHead): Answer | null;
  /** Takes the socket over for a WebSocket; false = not ours, the caller sends the bare 400. */
  upgrade(head: RequestHead, take: () => NodeSocket, rest: Buffer): boolean;
}

/** The same, where the control room is in another process. */
export interface ControlElsewhere {
  /** Judges by the head alone whether a request may be for the control room; any other gets the bare 400 here. A socket with TLS cannot be moved. */
  mayEnter(head: RequestHead, socket: Socket): boolean;
  /** Takes the paused socket there, with all that was read of it. */
  handOver(socket: Socket, read: Buffer): void;
}
