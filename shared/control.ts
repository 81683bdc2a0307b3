// The control link: one discriminated union each way, JSON text frames over a WebSocket. The protocol's version is the name of its
// subprotocol; the first message of the companion names it again, so that a client of another version can say so.
import * as v from 'valibot';
import type { SteeringTable } from './decision/compile-table.ts';
import type { CacheMode, Decision } from './decision/rule.ts';
import type { Exchange, SiteCounts } from './exchange.ts';
import type { Endpoint } from './endpoint.ts';
import type { Bytes, EpochMilliseconds, Seconds } from './units.ts';
import { HopForm, RouteForm, type SiteWay, type WaysState, type WaysTest } from './ways.ts';

export const PROTOCOL_VERSION = 1;
/** The subprotocol that both sides name; a token or a pairing code rides beside it and is never echoed. */
export const SUBPROTOCOL = `detour.v${PROTOCOL_VERSION}`;
/** `token.<base64url of 32 bytes>`: a paired client, or the CLI. */
export const TOKEN_PREFIX = 'token.';
/** `code.<six digits>`: a client that pairs now. Accepted only from an extension's Origin while a code is out. */
export const CODE_PREFIX = 'code.';
/** Path of the WebSocket. */
export const CONTROL_PATH = '/control';
/** Largest message of a client, in bytes. */
export const MAX_CLIENT_MESSAGE = 64 * 1024;
/** An application message at least this often keeps Chromium's worker awake (30 s idle limit). */
export const KEEPALIVE_INTERVAL = 20_000;

/** Close codes of the WebSocket. */
export const CLOSE_UNPAIRED = 4001;
/** The client offered only protocols that the companion does not speak: `hello` (whose `type`, `protocol` and `version` never change) and then this. */
export const CLOSE_WRONG_VERSION = 4002;
/** The client took too little of what it was sent. */
export const CLOSE_TOO_SLOW = 4003;
/** Too many control links are open. */
export const CLOSE_TOO_MANY = 1013;
export const CLOSE_GOING_AWAY = 1001;
/** Stored answers that are listed at once. */
export const MAX_LISTED = 1_000;

const id = v.pipe(v.number(), v.integer(), v.minValue(0));
const text = (bytes: number) => v.pipe(v.string(), v.maxLength(bytes));

const url = text(8192);
const name = text(64);
const names = v.pipe(v.array(name), v.maxLength(16));
/** Which stored answers are meant: those of a URL, of all that begin so, of a site with its subdomains, or all. */
const Stored = v.union([
  v.strictObject({ url }),
  v.strictObject({ prefix: url }),
  v.strictObject({ site: text(260) }),
  v.strictObject({ all: v.literal(true) }),
]);
export type Stored = v.InferOutput<typeof Stored>;

/** Every request of a client; `id` comes back in the reply. */
export const ClientMessage = v.variant('type', [
  /** What this client steers by; the companion then sends `steering` now and whenever it changes. */
  v.strictObject({ type: v.literal('steer'), id, dialect: v.picklist(['pac', 'table']), hash: v.optional(text(64)) }),
  /** Turn a site on by a route, off (`off`), or forget it (null). `site` in the notation of the file. Reply: `done`. */
  v.strictObject({ type: v.literal('set-site'), id, site: text(260), route: v.nullable(text(64)) }),
  /** Let the pages of a steered site reach this machine and its network, or no longer. Reply: `done`. */
  v.strictObject({ type: v.literal('set-local'), id, site: text(260), local: v.boolean() }),
  /** How the answers of a steered site are cached. Reply: `done`. */
  v.strictObject({
    type: v.literal('set-cache'),
    id,
    site: text(260),
    mode: v.picklist(['off', 'standard', 'aggressive', 'offline-first']),
  }),
  /** What the cache holds and has done. Reply: `cache-stats`. */
  v.strictObject({ type: v.literal('cache-stats'), id }),
  /** Forgets stored answers. Reply, when no worker has any of them left: `cache-changed`. A paired client may name a site only. */
  v.strictObject({ type: v.literal('cache-purge'), id, which: Stored }),
  /** What would happen to a host. Reply: `site`. */
  v.strictObject({ type: v.literal('site'), id, host: text(260) }),
  /** Exchanges as they end (and tunnels as they open), with so many of the past first. Replies: `done`, then `exchange` events. */
  v.strictObject({
    type: v.literal('follow'),
    id,
    recent: v.optional(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(10_000)), 0),
  }),
  /** What would happen to a URL and why. Reply: `explained`. */
  v.strictObject({ type: v.literal('explain'), id, url: text(8192) }),
  /** Keeps the link awake. No reply. */
  v.strictObject({ type: v.literal('alive'), id }),
  /** The hops and routes of the file, without secrets. Reply: `ways`. */
  v.strictObject({ type: v.literal('ways'), id }),
  /**
   * Tries the chains of a route, or one of them, past pins and what is remembered, and remembers nothing of it. With `url` that is asked for, by GET;
   * else `check.url` of the route; where there is none the chains are built, and nobody beyond them is spoken to. Reply: `tested`.
   */
  v.strictObject({
    type: v.literal('test-route'),
    id,
    route: name,
    url: v.optional(url),
    chain: v.optional(names),
  }),
  /** The same for the chain of one hop: one of the file by its name, or a one-line URL. Reply: `tested`. */
  v.strictObject({ type: v.literal('test-hop'), id, hop: text(2048), url: v.optional(url) }),
  /** This chain of the route and no other, for so many seconds (null: until it is unpinned). Reply: `done`. */
  v.strictObject({
    type: v.literal('pin-route'),
    id,
    route: name,
    chain: names,
    for: v.nullable(v.pipe(v.number(), v.minValue(1), v.maxValue(31_536_000))),
  }),
  v.strictObject({ type: v.literal('unpin-route'), id, route: name }),
  /** What the `pick: auto` routes have learnt of sites. Reply: `site-ways`. */
  v.strictObject({ type: v.literal('site-ways'), id }),
  /** Sets what is known of a site; null: forgets it. `route` absent: for every such route. Reply: `done`. */
  v.strictObject({
    type: v.literal('set-site-way'),
    id,
    site: text(260),
    route: v.optional(name),
    way: v.nullable(v.picklist(['direct', 'chains'])),
  }),
  // Edits of the file. Reply: `done`, once they are in force. `revision`: of the state that the change was made from; where the file has another by now
  // the change is refused.
  /** Adds a hop, or changes the one of this name. `isNew`: refused where there is one. */
  v.strictObject({
    type: v.literal('set-hop'),
    id,
    name,
    hop: v.lazy(input => (typeof input === 'string' ? text(2048) : HopForm)) as v.GenericSchema<string | HopForm>,
    isNew: v.optional(v.boolean(), false),
    revision: v.optional(v.number()),
  }),
  v.strictObject({ type: v.literal('remove-hop'), id, name, revision: v.optional(v.number()) }),
  /** The routes that name it go along. */
  v.strictObject({ type: v.literal('rename-hop'), id, name, to: name, revision: v.optional(v.number()) }),
  v.strictObject({
    type: v.literal('set-route'),
    id,
    name,
    route: RouteForm,
    isNew: v.optional(v.boolean(), false),
    revision: v.optional(v.number()),
  }),
  v.strictObject({ type: v.literal('remove-route'), id, name, revision: v.optional(v.number()) }),
  /** All that names it goes along. */
  v.strictObject({ type: v.literal('rename-route'), id, name, to: name, revision: v.optional(v.number()) }),
  // The CLI's own:
  /** The lists, after those that have a URL were fetched anew where `refresh` says so. Reply: `lists`. */
  v.strictObject({ type: v.literal('lists'), id, refresh: v.optional(v.boolean(), false) }),
  v.strictObject({ type: v.literal('pair'), id }),
  v.strictObject({ type: v.literal('clients'), id }),
  v.strictObject({ type: v.literal('unpair'), id, name: text(100) }),
  /** What is stored. Reply: `cache-list`. */
  v.strictObject({
    type: v.literal('cache-list'),
    id,
    which: Stored,
    limit: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(MAX_LISTED)),
  }),
  /** All that is stored of a URL. Reply: `cache-list`, with the fields and a verdict. */
  v.strictObject({ type: v.literal('cache-show'), id, url }),
  /** Keeps stored answers for offline use, or no longer. Reply: `cache-changed`. */
  v.strictObject({ type: v.literal('cache-pin'), id, which: Stored, pinned: v.boolean() }),
]);
export type ClientMessage = v.InferOutput<typeof ClientMessage>;

/** What the popup needs of the file. */
export interface SiteState {
  /** As written in the file: `example.com`, `.example.com`, `=www.example.com`. */
  readonly site: string;
  /** Route name, or `off`, or `block`. */
  readonly route: string;
  /** Its pages may reach this machine and its network. */
  readonly local?: boolean | undefined;
  /** How its answers are cached; absent where it is not steered. */
  readonly cache?: CacheMode | undefined;
}

export interface ConfigState {
  /** Goes up with every change that is in force. */
  readonly revision: number;
  readonly sites: readonly SiteState[];
  /** Names in file order, `companion` first, without `block`. */
  readonly routes: readonly string[];
  readonly default: string;
  /** How many rules by hand there are, which steer or block beside the sites. */
  readonly rules: number;
  /** List files, with the route (or `block`, or `off`) of their hosts. */
  readonly lists: readonly { readonly file: string; readonly route: string }[];
  /** The file was changed to something that is refused: `detour.yaml:3:5: …`. The last good one is in force. */
  readonly problem?: string | undefined;
}

export interface Steering {
  /** Hash of the content; the same hash needs no new setting. */
  readonly hash: string;
  /** Complete PAC text, ASCII. Present for dialect `pac`. */
  readonly pac?: string | undefined;
  /** Present for both dialects: icons, the local network guard and Firefox decide by it. */
  readonly table: SteeringTable;
}

export interface SiteAnswer {
  readonly host: string;
  /** Registrable domain, or the host itself where there is none. What the switch turns on. */
  readonly site: string;
  readonly decision: Decision;
  readonly counts: SiteCounts;
}

export interface ClientInfo {
  readonly name: string;
  readonly origin: string;
  readonly pairedAt: EpochMilliseconds;
  readonly connected: boolean;
}

/** What one tier of the cache holds. */
export interface Holdings {
  readonly entries: number;
  readonly bytes: Bytes;
  /** What it may hold. */
  readonly limit: Bytes;
}

export interface CacheStats {
  /** When the counting began. */
  readonly since: EpochMilliseconds;
  readonly memory: Holdings;
  /** Null: there is none. */
  readonly disk: Holdings | null;
  readonly counts: SiteCounts;
}

/** One stored answer. */
export interface StoredAnswer {
  readonly url: string;
  readonly site: string;
  readonly status: number;
  /** Of its body. */
  readonly bytes: Bytes;
  /** Of a body that is not complete, what is there (RFC 9111 §3.3): `0-99,200-299`. */
  readonly parts?: string | undefined;
  readonly tier: 'memory' | 'disk';
  readonly storedAt: EpochMilliseconds;
  readonly age: Seconds;
  /** How long it is fresh still; 0 or less: for how long it has been stale. */
  readonly freshFor: Seconds;
  /** Kept for offline use. */
  readonly pinned: boolean;
  /** The route by which it came, and the site whose pages may have it; '' = any. */
  readonly route: string;
  readonly partition: string;
  /** The request fields that it was chosen by (Vary), with their values; null = the field was absent. */
  readonly vary: readonly (readonly [name: string, value: string | null])[];
  /** Only where one URL is asked for: the fields as they are stored, name and value. */
  readonly fields?: readonly (readonly [name: string, value: string])[] | undefined;
  /** Only where one URL is asked for: what a plain request would get, as a sentence. */
  readonly verdict?: string | undefined;
}

/** How a list of the file stands. */
export interface ListInfo {
  /** Its file or URL. */
  readonly name: string;
  readonly format: string;
  /** Route name, or `off`, or `block`. */
  readonly does: string;
  readonly entries: number;
  /** Lines that could not be read. */
  readonly unread: number;
  /** It has a URL. */
  readonly fetched: boolean;
  /** When its server last said that this is the list; null: never. */
  readonly checkedAt: EpochMilliseconds | null;
  /** What went wrong at the last fetch. */
  readonly error?: string | undefined;
}

type ClientInput = v.InferInput<typeof ClientMessage>;
/** A request before the client has counted it. */
export type ClientRequest = ClientInput extends infer M ? (M extends ClientInput ? Omit<M, 'id'> : never) : never;

/** Events and replies of the companion. */
export type CompanionMessage =
  | {
      readonly type: 'hello';
      readonly protocol: number;
      /** The companion's own version. */
      readonly version: string;
      /** The name under which this client is paired. */
      readonly client: string;
      readonly proxy: Endpoint;
      /** The PAC for anything that takes one; the path is the secret. */
      readonly pacUrl: string;
      readonly state: ConfigState;
      /** Only to a client that has just paired with a code: keep it. */
      readonly token?: string | undefined;
    }
  | { readonly type: 'state'; readonly state: ConfigState }
  | { readonly type: 'steering'; readonly steering: Steering }
  | { readonly type: 'exchange'; readonly exchange: Exchange }
  | { readonly type: 'alive' }
  // Replies
  | { readonly type: 'done'; readonly id: number }
  /** `problems`: what is wrong with which field of what was asked for; '' = with all of it. */
  | {
      readonly type: 'refused';
      readonly id: number;
      readonly message: string;
      readonly problems?: readonly { readonly field: string; readonly message: string }[] | undefined;
    }
  | { readonly type: 'site'; readonly id: number; readonly answer: SiteAnswer }
  | { readonly type: 'explained'; readonly id: number; readonly explanation: Explanation }
  | { readonly type: 'code'; readonly id: number; readonly code: string; readonly expiresAt: EpochMilliseconds }
  | { readonly type: 'clients'; readonly id: number; readonly clients: readonly ClientInfo[] }
  | { readonly type: 'cache-stats'; readonly id: number; readonly stats: CacheStats }
  /** `more`: there are others beyond these. */
  | {
      readonly type: 'cache-list';
      readonly id: number;
      readonly answers: readonly StoredAnswer[];
      readonly more: boolean;
    }
  | { readonly type: 'ways'; readonly id: number; readonly ways: WaysState }
  | { readonly type: 'lists'; readonly id: number; readonly lists: readonly ListInfo[] }
  | { readonly type: 'tested'; readonly id: number; readonly test: WaysTest }
  | { readonly type: 'site-ways'; readonly id: number; readonly sites: readonly SiteWay[] }
  /** How many stored answers it concerned. */
  | { readonly type: 'cache-changed'; readonly id: number; readonly count: number };

export type Hello = Extract<CompanionMessage, { type: 'hello' }>;
/** What answers a request, by its id. */
export type Reply = Extract<CompanionMessage, { id: number }>;

/** What `detour explain URL` shows. */
export interface Explanation {
  readonly url: string;
  readonly decision: Decision;
  /** The guard's sentence, when it would refuse. */
  readonly refused?: string | undefined;
  /** What the cache would do now: `hit; ttl=30`, `fwd=uri-miss`, `not cacheable: method`. */
  readonly cache: string;
  /** Chains in the order they would be tried, hop by hop, `name (kind host:port)`; an empty chain is the companion itself. */
  readonly chains: readonly (readonly string[])[];
  /** Sentences, in the order of the way of a request. */
  readonly steps: readonly string[];
}
