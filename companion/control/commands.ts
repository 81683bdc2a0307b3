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
} from '../../shared/control.ts';
import type { CacheMode } from '../../shared/decision/rule.ts';
import type { Exchange } from '../../shared/exchange.ts';
import type { EpochMilliseconds } from '../../shared/units.ts';

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
  explain(url: string): Promise<Explanation>;
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

/** Does what a client asks and replies. Never rejects. */
export async function obey(message: ClientMessage, link: Link, desk: Desk): Promise<void> {
  try {
    const reply = await (COMMANDS[message.type] as Command<ClientMessage>)(message, link, desk);
    if (reply) link.send(reply);
  } catch (error) {
    link.send({ type: 'refused', id: message.id, message: error instanceof Error ? error.message : String(error) });
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
  'cache-stats': cacheStats,
  'cache-list': cacheList,
  'cache-show': cacheShow,
  'cache-purge': cachePurge,
  'cache-pin': cachePin,
  site,
  follow,
  explain,
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
