// What a client may ask for: one function per message. What they need of the other rooms comes as a Desk.
import type {
  CacheStats,
  ClientInfo,
  ClientMessage,
  CompanionMessage,
  ConfigState,
  Explanation,
  SiteAnswer,
  Steering,
  Stored,
  StoredAnswer,
  ListInfo,
} from '../../shared/control.ts';
import type { CacheMode } from '../../shared/decision/rule.ts';
import type { Exchange } from '../../shared/exchange.ts';
import type { EpochMilliseconds, Seconds } from '../../shared/units.ts';
import type { HopForm, RouteForm, SiteWay, WaysState, WaysTest } from '../../shared/ways.ts';

/** One link, as the commands see it. */
export interface Link {
  /** The name of the paired client; null = the CLI. */
  readonly client: string | null;
  /** False when the link is gone. */
  send(message: CompanionMessage): boolean;
  /** Fulfilled once the client has taken most of what it was sent. */
  caughtUp(): Promise<void>;
  /** What it steers by, and what it has. */
  steers: { dialect: 'pac' | 'table'; hash: string | undefined } | null;
  /** Called when the link ends. */
  readonly atEnd: (() => void)[];
}

/** The companion, as seen from the control link. */
export interface Desk {
  /** The protocol it speaks. */
  readonly protocol: number;
  state(): ConfigState;
  steering(dialect: 'pac' | 'table'): Steering;
  /** The PAC text for anything that takes one. */
  pac(): string;
  /** Edits the file; fulfilled when the change is in force. Rejects with an error whose message is a sentence for a person. */
  setSite(site: string, route: string | null): Promise<void>;
  /** The same for what the pages of a steered site may reach. */
  setLocal(site: string, local: boolean): Promise<void>;
  /** The same for how its answers are cached. */
  setCacheMode(site: string, mode: CacheMode): Promise<void>;
  site(host: string): SiteAnswer;
  readonly cache: CacheDesk;
  readonly ways: WaysDesk;
  explain(url: string): Promise<Explanation>;
  /** With `refresh`, after all that have a URL were fetched anew. */
  lists(refresh: boolean): Promise<readonly ListInfo[]>;
  /** The last `recent` exchanges, then all that follow; gives back how to stop. */
  follow(recent: number, deliver: (batch: readonly Exchange[]) => Promise<void>): () => void;
  newCode(): { code: string; expiresAt: EpochMilliseconds };
  clients(): readonly ClientInfo[];
  /** False when there is no such client. Its links end at once. */
  unpair(name: string): boolean;
  /** Sends steering to a link that steers, when it has another. */
  steer(link: Link): void;
  /** A link came or went. */
  linksChanged?(): void;
}

/** The caches of all workers as one. What is meant may be written as people write it; rejects with a sentence where it cannot be. */
export interface CacheDesk {
  stats(): Promise<CacheStats>;
  list(which: Stored, limit: number): Promise<{ answers: readonly StoredAnswer[]; more: boolean }>;
  /** With fields and verdicts. */
  show(url: string): Promise<readonly StoredAnswer[]>;
  /** Fulfilled when no worker has any of them left; gives back how many there were. */
  purge(which: Stored): Promise<number>;
  /** Gives back how many were not as they are now. */
  pin(which: Stored, pinned: boolean): Promise<number>;
}

/** Hops and routes. What cannot be done rejects with an error whose message is a sentence for a person, and which may name `problems`. */
export interface WaysDesk {
  state(): WaysState;
  /** `chain` by the names of its hops; absent: all of the route. */
  testRoute(route: string, url: string | undefined, chain: Names | undefined, signal: AbortSignal): Promise<WaysTest>;
  /** A hop of the file, or a one-line URL. */
  testHop(hop: string, url: string | undefined, signal: AbortSignal): Promise<WaysTest>;
  /** `lifetime` null: until it is unpinned. */
  pin(route: string, chain: Names, lifetime: Seconds | null): Promise<void>;
  unpin(route: string): Promise<void>;
  siteWays(): Promise<readonly SiteWay[]>;
  /** `route` undefined: every route that remembers; `way` null: forgets. */
  setSiteWay(site: string, route: string | undefined, way: SiteWay['way'] | null): Promise<void>;
  // Edits of the file; fulfilled when they are in force. `revision`: refused where the file has another by now.
  setHop(name: string, hop: string | HopForm, isNew: boolean, revision?: number): Promise<void>;
  removeHop(name: string, revision?: number): Promise<void>;
  renameHop(name: string, to: string, revision?: number): Promise<void>;
  setRoute(name: string, route: RouteForm, isNew: boolean, revision?: number): Promise<void>;
  removeRoute(name: string, revision?: number): Promise<void>;
  renameRoute(name: string, to: string, revision?: number): Promise<void>;
}
type Names = readonly string[];

/** What a refusal may say beyond its sentence. */
interface Refusal extends Error {
  readonly problems?: readonly { readonly field: string; readonly message: string }[];
}

/** Does what a client asks and replies. Never rejects. */
export async function obey(message: ClientMessage, link: Link, desk: Desk): Promise<void> {
  try {
    const reply = await (COMMANDS[message.type] as Command<ClientMessage>)(message, link, desk);
    if (reply) link.send(reply);
  } catch (error) {
    const { message: sentence, problems }: Refusal = error instanceof Error ? error : new Error(String(error));
    link.send({
      type: 'refused',
      id: message.id,
      message: sentence,
      problems: problems?.length ? problems : undefined,
    });
  }
}

type Command<M extends ClientMessage> = (
  message: M,
  link: Link,
  desk: Desk,
) => CompanionMessage | null | Promise<CompanionMessage | null>;
type Commands = { [T in ClientMessage['type']]: Command<Extract<ClientMessage, { type: T }>> };

const COMMANDS: Commands = {
  steer,
  'set-site': setSite,
  'set-local': setLocal,
  'set-cache': setCache,
  lists,
  'cache-stats': cacheStats,
  'cache-list': cacheList,
  'cache-show': cacheShow,
  'cache-purge': cachePurge,
  'cache-pin': cachePin,
  site,
  follow,
  explain,
  ways,
  'test-route': testRoute,
  'test-hop': testHop,
  'pin-route': pinRoute,
  'unpin-route': unpinRoute,
  'site-ways': siteWays,
  'set-site-way': setSiteWay,
  'set-hop': setHop,
  'remove-hop': removeHop,
  'rename-hop': renameHop,
  'set-route': setRoute,
  'remove-route': removeRoute,
  'rename-route': renameRoute,
  alive,
  pair,
  clients,
  unpair,
};

type Of<T extends ClientMessage['type']> = Extract<ClientMessage, { type: T }>;

function steer({ id, dialect, hash }: Of<'steer'>, link: Link, desk: Desk): CompanionMessage {
  link.steers = { dialect, hash };
  desk.steer(link);
  return { type: 'done', id };
}

async function setSite({ id, site, route }: Of<'set-site'>, _link: Link, desk: Desk): Promise<CompanionMessage> {
  await desk.setSite(site, route);
  return { type: 'done', id };
}

async function setLocal({ id, site, local }: Of<'set-local'>, _link: Link, desk: Desk): Promise<CompanionMessage> {
  await desk.setLocal(site, local);
  return { type: 'done', id };
}

async function setCache({ id, site, mode }: Of<'set-cache'>, _link: Link, desk: Desk): Promise<CompanionMessage> {
  await desk.setCacheMode(site, mode);
  return { type: 'done', id };
}

async function lists({ id, refresh }: Of<'lists'>, link: Link, desk: Desk): Promise<CompanionMessage> {
  if (link.client !== null) throw new Error('Lists are for the command line.');
  return { type: 'lists', id, lists: await desk.lists(refresh) };
}

async function cacheStats({ id }: Of<'cache-stats'>, _link: Link, desk: Desk): Promise<CompanionMessage> {
  return { type: 'cache-stats', id, stats: await desk.cache.stats() };
}

// What is stored is where a person has been: it is listed in the terminal only.
async function cacheList({ id, which, limit }: Of<'cache-list'>, link: Link, desk: Desk): Promise<CompanionMessage> {
  fromTerminal(link);
  return { type: 'cache-list', id, ...(await desk.cache.list(which, limit)) };
}

async function cacheShow({ id, url }: Of<'cache-show'>, link: Link, desk: Desk): Promise<CompanionMessage> {
  fromTerminal(link);
  return { type: 'cache-list', id, answers: await desk.cache.show(url), more: false };
}

async function cachePurge({ id, which }: Of<'cache-purge'>, link: Link, desk: Desk): Promise<CompanionMessage> {
  if (!('site' in which)) fromTerminal(link);
  return { type: 'cache-changed', id, count: await desk.cache.purge(which) };
}

async function cachePin({ id, which, pinned }: Of<'cache-pin'>, link: Link, desk: Desk): Promise<CompanionMessage> {
  fromTerminal(link);
  return { type: 'cache-changed', id, count: await desk.cache.pin(which, pinned) };
}

function ways({ id }: Of<'ways'>, _link: Link, desk: Desk): CompanionMessage {
  return { type: 'ways', id, ways: desk.ways.state() };
}

/** Nobody waits for a test whose link has ended. */
async function tested(
  link: Link,
  id: number,
  test: (signal: AbortSignal) => Promise<WaysTest>,
): Promise<CompanionMessage> {
  const controller = new AbortController();
  const end = () => controller.abort();
  link.atEnd.push(end);
  try {
    return { type: 'tested', id, test: await test(controller.signal) };
  } finally {
    const at = link.atEnd.indexOf(end);
    if (at >= 0) link.atEnd.splice(at, 1);
  }
}

function testRoute({ id, route, url, chain }: Of<'test-route'>, link: Link, desk: Desk): Promise<CompanionMessage> {
  return tested(link, id, signal => desk.ways.testRoute(route, url, chain, signal));
}

function testHop({ id, hop, url }: Of<'test-hop'>, link: Link, desk: Desk): Promise<CompanionMessage> {
  return tested(link, id, signal => desk.ways.testHop(hop, url, signal));
}

async function done(id: number, work: Promise<void>): Promise<CompanionMessage> {
  await work;
  return { type: 'done', id };
}

function pinRoute(message: Of<'pin-route'>, _link: Link, desk: Desk): Promise<CompanionMessage> {
  return done(message.id, desk.ways.pin(message.route, message.chain, message.for));
}

function unpinRoute({ id, route }: Of<'unpin-route'>, _link: Link, desk: Desk): Promise<CompanionMessage> {
  return done(id, desk.ways.unpin(route));
}

async function siteWays({ id }: Of<'site-ways'>, _link: Link, desk: Desk): Promise<CompanionMessage> {
  return { type: 'site-ways', id, sites: await desk.ways.siteWays() };
}

function setSiteWay({ id, site, route, way }: Of<'set-site-way'>, _link: Link, desk: Desk): Promise<CompanionMessage> {
  return done(id, desk.ways.setSiteWay(site, route, way));
}

function setHop({ id, name, hop, isNew, revision }: Of<'set-hop'>, _link: Link, desk: Desk): Promise<CompanionMessage> {
  return done(id, desk.ways.setHop(name, hop, isNew, revision));
}

function removeHop({ id, name, revision }: Of<'remove-hop'>, _link: Link, desk: Desk): Promise<CompanionMessage> {
  return done(id, desk.ways.removeHop(name, revision));
}

function renameHop({ id, name, to, revision }: Of<'rename-hop'>, _link: Link, desk: Desk): Promise<CompanionMessage> {
  return done(id, desk.ways.renameHop(name, to, revision));
}

function setRoute(message: Of<'set-route'>, _link: Link, desk: Desk): Promise<CompanionMessage> {
  return done(message.id, desk.ways.setRoute(message.name, message.route, message.isNew, message.revision));
}

function removeRoute({ id, name, revision }: Of<'remove-route'>, _link: Link, desk: Desk): Promise<CompanionMessage> {
  return done(id, desk.ways.removeRoute(name, revision));
}

function renameRoute(
  { id, name, to, revision }: Of<'rename-route'>,
  _link: Link,
  desk: Desk,
): Promise<CompanionMessage> {
  return done(id, desk.ways.renameRoute(name, to, revision));
}

function site({ id, host }: Of<'site'>, _link: Link, desk: Desk): CompanionMessage {
  return { type: 'site', id, answer: desk.site(host) };
}

async function explain({ id, url }: Of<'explain'>, _link: Link, desk: Desk): Promise<CompanionMessage> {
  return { type: 'explained', id, explanation: await desk.explain(url) };
}

/** The reply comes before the first exchange. One link follows once; asking again begins anew. */
function follow({ id, recent }: Of<'follow'>, link: Link, desk: Desk): null {
  for (const end of link.atEnd.splice(0)) end();
  link.send({ type: 'done', id });
  const stop = desk.follow(recent, async batch => {
    for (const exchange of batch) link.send({ type: 'exchange', exchange });
    await link.caughtUp();
  });
  link.atEnd.push(stop);
  return null;
}

function alive(): null {
  return null;
}

// A code may be had, and clients looked at and unpaired, from the terminal alone: an extension that is paired cannot let others in.
function fromTerminal(link: Link): void {
  if (link.client !== null) throw new Error('This can be asked for in the terminal only.');
}

function pair({ id }: Of<'pair'>, link: Link, desk: Desk): CompanionMessage {
  fromTerminal(link);
  return { type: 'code', id, ...desk.newCode() };
}

function clients({ id }: Of<'clients'>, link: Link, desk: Desk): CompanionMessage {
  fromTerminal(link);
  return { type: 'clients', id, clients: desk.clients() };
}

function unpair({ id, name }: Of<'unpair'>, link: Link, desk: Desk): CompanionMessage {
  // A client may take its own key back.
  if (name !== link.client) fromTerminal(link);
  if (!desk.unpair(name)) throw new Error(`No client is called "${name}". \`detour clients\` lists them.`);
  return { type: 'done', id };
}
