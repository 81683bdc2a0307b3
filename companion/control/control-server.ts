// The control door: lets paired extensions and the CLI in on the loopback port, keeps their links, and tells them what changes.
// What they may ask for is in commands.ts; who may come in is decided by handshake.ts and by the pairing that is handed in.
import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import * as v from 'valibot';
import type { WebSocket, WebSocketServer } from 'ws';
import {
  ClientMessage,
  CLOSE_GOING_AWAY,
  CLOSE_TOO_MANY,
  CLOSE_TOO_SLOW,
  CLOSE_UNPAIRED,
  CLOSE_WRONG_VERSION,
  type CompanionMessage,
  KEEPALIVE_INTERVAL,
  MAX_CLIENT_MESSAGE,
} from '../../shared/control.ts';
import type { Endpoint } from '../../shared/endpoint.ts';
import { type Bytes, MiB } from '../../shared/units.ts';
import { Fields } from '../message/headers.ts';
import type { Answer, RequestHead } from '../message/message.ts';
import { ownAnswer } from '../message/own-answer.ts';
import type { ControlDoor } from '../rooms.ts';
import { type Desk, type Link, obey } from './commands.ts';
import { type Claimant, hostsOf, readHandshake, readPacSecret } from './handshake.ts';

/** Control links open at once. */
export const MAX_LINKS = 32;
/** What may wait for a slow client; beyond it the link is ended. The largest message is the steering of some 100,000 hosts. */
const MAX_UNSENT: Bytes = 16 * MiB;
/** Followers hold back beyond this until the client has caught up. */
const CAUGHT_UP: Bytes = 256 * 1024;
/** Requests of one client that may be under way. */
const MAX_UNDERWAY = 64;
/** How long a client may take over the closing handshake, in milliseconds. */
const CLOSING_TIME = 500;

/** What the door needs to know of who may come in (the guard's pairing, with the CLI's token beside it). */
export interface Visitors {
  isCli(token: string): boolean;
  clientOf(origin: string, token: string): { readonly name: string } | null;
  isExtensionOrigin(origin: string): boolean;
  isCode(code: string): boolean;
  /** Null when the pairing could not be kept. */
  pair(origin: string, family: string): { readonly name: string; readonly token: string } | null;
  isPacSecret(text: string): boolean;
}

export interface ControlServerParts {
  /** Where the companion listens; the real port. */
  readonly at: Endpoint;
  readonly version: string;
  readonly pacUrl: string;
  readonly visitors: Visitors;
  readonly desk: Desk;
}

export interface ControlServer extends ControlDoor {
  /** The configuration changed: tells everyone the state, and new steering to those whose steering it changes. */
  changed(): void;
  /** Ends the links of a client that was unpaired. */
  unpaired(name: string): void;
  /** Whether a client of this name has a link. */
  isConnected(name: string): boolean;
  /** Says goodbye to everyone. */
  close(): Promise<void>;
}

/** Opens the room. Nothing listens here: the downstream room brings the requests. */
export function makeControlServer(parts: ControlServerParts): ControlServer {
  const { at, visitors, desk } = parts;
  const hosts = hostsOf(at.host, at.port);
  const links = new Map<WebSocket, Link>();
  // The reply's protocol is chosen before ws sees the request, so each upgrade brings its own.
  let replyProtocol = '';
  // ws, and Node's http and TLS that it stands on, cost a start more than all that is ours: they are loaded for the first who is let in.
  let server: WebSocketServer | null = null;
  /** Let in, and waiting for that. */
  const coming = new Set<{ readonly client: string | null; readonly socket: Socket }>();
  let closed = false;
  const loadServer = async (): Promise<WebSocketServer> => {
    const { WebSocketServer } = await import('ws');
    return (server ??= new WebSocketServer({
      noServer: true,
      clientTracking: false,
      maxPayload: MAX_CLIENT_MESSAGE,
      perMessageDeflate: false,
      handleProtocols: () => replyProtocol,
    }));
  };
  const keepalive = setInterval(() => {
    for (const link of links.values()) link.send({ type: 'alive' });
  }, KEEPALIVE_INTERVAL).unref();

  /** Lets in, or null. A code is used up here. */
  const admit = (claimant: Claimant): { client: string | null; token?: string } | null => {
    const { origin, secret } = claimant;
    if (origin === null) return secret.kind === 'token' && visitors.isCli(secret.text) ? { client: null } : null;
    if (secret.kind === 'token') {
      const known = visitors.clientOf(origin, secret.text);
      return known && { client: known.name };
    }
    if (!visitors.isExtensionOrigin(origin) || !visitors.isCode(secret.text)) return null;
    // Of another version: it only learns that, and its code stays good for the right one.
    if (!claimant.understood) return { client: '' };
    const paired = visitors.pair(origin, familyOf(origin, claimant.userAgent));
    return paired && { client: paired.name, token: paired.token };
  };

  /** Goes on once ws is there, unless the visitor has left, was unpaired, or the room has closed meanwhile. */
  const whenLoaded = async (socket: Socket, client: string | null, shake: (by: WebSocketServer) => void) => {
    const one = { client, socket };
    const gone = () => void coming.delete(one);
    coming.add(one);
    socket.pause().on('error', gone).on('close', gone);
    const loaded = await loadServer();
    socket.off('error', gone).off('close', gone);
    if (!coming.delete(one) || closed) socket.on('error', () => {}).destroy();
    else shake(loaded);
  };

  const hello = (client: string | null, token?: string): CompanionMessage => ({
    type: 'hello',
    protocol: desk.protocol,
    version: parts.version,
    client: client ?? 'cli',
    proxy: at,
    pacUrl: parts.pacUrl,
    state: desk.state(),
    token,
  });

  const welcome = (socket: WebSocket, claimant: Claimant, client: string | null, token?: string) => {
    socket.on('error', () => socket.terminate());
    const text = JSON.stringify(hello(client, token));
    if (!claimant.understood || links.size >= MAX_LINKS) {
      socket.send(text); // With the token of one who has just paired: it can come back with it.
      void closeSoon(socket, claimant.understood ? CLOSE_TOO_MANY : CLOSE_WRONG_VERSION);
      return;
    }
    const link = makeLink(socket, client);
    links.set(socket, link);
    let underway = 0;
    socket.on('close', () => {
      links.delete(socket);
      for (const end of link.atEnd.splice(0)) end();
      desk.linksChanged?.();
    });
    socket.on('message', (data, isBinary) => {
      if (socket.readyState !== socket.OPEN) return; // Revoked or leaving: what still comes in is not obeyed.
      const message = isBinary ? null : readMessage(data as Buffer);
      if (message === null || 'complaint' in message) {
        link.send({ type: 'refused', id: message?.id ?? 0, message: message?.complaint ?? 'Messages are JSON text.' });
        return;
      }
      if (underway >= MAX_UNDERWAY) {
        link.send({ type: 'refused', id: message.id, message: 'Too many requests at once.' });
        return;
      }
      underway++;
      void obey(message, link, desk).finally(() => underway--);
    });
    socket.send(text);
    desk.linksChanged?.();
  };

  return {
    answer(head) {
      const secret = readPacSecret(head, hosts);
      if (secret === null || !visitors.isPacSecret(secret)) return null;
      return pacAnswer(desk.pac(), head.method === 'HEAD', head.keepAlive);
    },
    upgrade(head: RequestHead, take: () => Socket, rest: Buffer) {
      const claimant = readHandshake(head, hosts);
      const visitor = claimant && admit(claimant);
      if (!claimant || !visitor) return false;
      const socket = take();
      // ws reads these few things of a request; readHandshake has checked them, so that ws never answers a stranger in words of its own.
      const request = {
        method: 'GET',
        url: '/',
        socket,
        headers: {
          upgrade: 'websocket',
          'sec-websocket-key': head.fields.get('sec-websocket-key'),
          'sec-websocket-version': '13',
          'sec-websocket-protocol': claimant.protocol,
        },
      } as unknown as IncomingMessage;
      const shake = (by: WebSocketServer) => {
        replyProtocol = claimant.protocol;
        by.handleUpgrade(request, socket, rest, ws => welcome(ws, claimant, visitor.client, visitor.token));
        socket.resume(); // The downstream room may have paused it.
      };
      if (server !== null) shake(server);
      else void whenLoaded(socket, visitor.client, shake);
      return true;
    },
    changed() {
      for (const link of links.values()) {
        link.send({ type: 'state', state: desk.state() });
        desk.steer(link);
      }
    },
    unpaired(name) {
      for (const one of coming) if (one.client === name) coming.delete(one);
      for (const [socket, link] of links) if (link.client === name) void closeSoon(socket, CLOSE_UNPAIRED);
    },
    isConnected(name) {
      for (const link of links.values()) if (link.client === name) return true;
      return false;
    },
    async close() {
      closed = true;
      clearInterval(keepalive);
      const open = [...links.keys()];
      await Promise.all(open.map(socket => closeSoon(socket, CLOSE_GOING_AWAY)));
    },
  };
}

function makeLink(socket: WebSocket, client: string | null): Link {
  return {
    client,
    steers: null,
    atEnd: [],
    send(message) {
      if (socket.readyState !== socket.OPEN) return false;
      if (socket.bufferedAmount > MAX_UNSENT) {
        socket.close(CLOSE_TOO_SLOW);
        socket.terminate();
        return false;
      }
      socket.send(JSON.stringify(message));
      return true;
    },
    async caughtUp() {
      while (socket.readyState === socket.OPEN && socket.bufferedAmount > CAUGHT_UP)
        await new Promise(resolve => setTimeout(resolve, 20));
      if (socket.readyState !== socket.OPEN) throw new Error('The link has ended.');
    },
  };
}

/** Closes politely, and then for good. Fulfilled when it is closed. */
function closeSoon(socket: WebSocket, code: number): Promise<void> {
  return new Promise(resolve => {
    const timer = setTimeout(() => socket.terminate(), CLOSING_TIME);
    socket.once('close', () => {
      clearTimeout(timer);
      resolve();
    });
    socket.close(code);
    if (socket.readyState === socket.CLOSED) resolve();
  });
}

/** The message, or what is wrong with it and (where it has one) its id. */
function readMessage(data: Buffer): ClientMessage | { complaint: string; id: number } {
  let value: unknown;
  try {
    value = JSON.parse(data.toString());
  } catch {
    return { complaint: 'The message is not JSON.', id: 0 };
  }
  const parsed = v.safeParse(ClientMessage, value);
  if (parsed.success) return parsed.output;
  const id = (value as { id?: unknown } | null)?.id;
  const [issue] = parsed.issues;
  const where = v.getDotPath(issue);
  return {
    complaint: `The message is not understood: ${where === null ? '' : `${where}: `}${issue.message}`,
    id: typeof id === 'number' && Number.isSafeInteger(id) && id >= 0 ? id : 0,
  };
}

/** The PAC, for whoever knows its path. Never cached, never readable by a page of another origin. */
function pacAnswer(pac: string, headOnly: boolean, keepAlive: boolean): Answer {
  const body = Buffer.from(pac, 'latin1');
  const fields = Fields.of(
    'Content-Type',
    'application/x-ns-proxy-autoconfig',
    'Cache-Control',
    'no-store',
    'X-Content-Type-Options',
    'nosniff',
    'Cross-Origin-Resource-Policy',
    'same-origin',
  );
  const { head } = ownAnswer(200, 'OK', fields, body);
  return { head: { ...head, keepAlive }, body: headOnly ? null : body };
}

/** What a client is called: by its browser, as far as its Origin and User-Agent tell. */
function familyOf(origin: string, userAgent: string): string {
  if (origin.startsWith('moz-extension:')) return 'Firefox';
  return /\bEdg\//.test(userAgent) ? 'Edge' : 'Chromium';
}
