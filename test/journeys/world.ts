// The web as the journeys see it: one origin for every *.test name, over http and https, listening on several loopback addresses.
// Each way there resolves the names to an address of its own, so the address a request arrives at tells by which way it came,
// and a leak cannot hide: the browser itself could reach every site directly.
import { createServer as createHttpServer, type IncomingMessage, type RequestListener } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import type { AddressInfo, Server } from 'node:net';
import type { Duplex } from 'node:stream';
import { WebSocketServer } from 'ws';
import { makeTestAuthority, type TestAuthority } from '../support/certificates.ts';

/** Ways to the origin, and the address that each resolves *.test to. */
export const WAYS = { direct: '127.0.0.1', companion: '127.0.0.2', squid: '127.0.0.3', dante: '127.0.0.4' } as const;
export type Way = keyof typeof WAYS;

export const NAMES = [
  'site.test',
  'www.site.test',
  'plain.test',
  'blocked.test',
  'ads.site.test',
  'other.test',
  'secret.test',
  'hidden.test',
  'third.test',
  'fourth.test',
  'router.site.test',
  'evil.test',
  'own.test',
];

/** Every name at the address that this way resolves it to, for a peer's hosts file or the companion's. */
export function hostsBy(way: Way): Record<string, string> {
  return Object.fromEntries(NAMES.map(name => [name, WAYS[way]]));
}

/** Pictures of the page `/gallery`, of some 20 kB each, good for ten minutes; the page is for a second. */
export const GALLERY_PARTS = 200;
/** How long the origin takes over a part of it, in milliseconds. */
const GALLERY_DELAY = 40;

export interface Seen {
  readonly way: Way;
  readonly host: string;
  readonly secure: boolean;
  readonly method: string;
  readonly path: string;
  readonly headers: Record<string, string | string[] | undefined>;
}

export interface World extends AsyncDisposable {
  readonly authority: TestAuthority;
  readonly httpPort: number;
  readonly httpsPort: number;
  /** Every request that reached the origin, in order; browsers' own favicon requests left out. */
  readonly seen: Seen[];
  url(host: string, path?: string): string;
  secureUrl(host: string, path?: string): string;
  /** What was seen of a host. */
  of(host: string): Seen[];
  /** Ends the origin: nothing answers any more. */
  unplug(): Promise<void>;
}

export async function startWorld(): Promise<World> {
  const authority = await makeTestAuthority();
  const identity = await authority.issue(...NAMES);
  const seen: Seen[] = [];
  const wayOf = (request: IncomingMessage): Way =>
    (Object.keys(WAYS) as Way[]).find(way => WAYS[way] === request.socket.localAddress) ?? 'direct';
  const answer =
    (secure: boolean): RequestListener =>
    (request, response) => {
      const path = request.url ?? '/';
      if (path === '/favicon.ico') return void response.writeHead(404, { 'content-length': 0 }).end();
      // `/script.js?CODE` is that code, `/redirect?URL` leads there.
      const [page, query = ''] = path.split('?');
      if (page === '/script.js')
        return void response.writeHead(200, { 'content-type': 'text/javascript' }).end(decodeURIComponent(query));
      if (page === '/redirect')
        return void response.writeHead(302, { location: decodeURIComponent(query), 'content-length': 0 }).end();
      const host = (request.headers.host ?? '').replace(/:\d+$/, '');
      seen.push({ way: wayOf(request), host, secure, method: request.method ?? '', path, headers: request.headers });
      if (page === '/gallery') {
        const images = Array.from(
          { length: GALLERY_PARTS },
          (_, i) => `<img src="/part/${i}.svg" width="9" height="9">`,
        );
        const html = `<!doctype html><title>Gallery</title><link rel="icon" href="data:,">${images.join('')}`;
        const fields = { 'content-type': 'text/html', 'cache-control': 'max-age=1', etag: '"gallery"' };
        return void response.writeHead(200, { ...fields, 'content-length': html.length }).end(html);
      }
      if (page?.startsWith('/part/')) {
        const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><!-- ${page.padEnd(20_000)} --></svg>`;
        response.writeHead(200, {
          'content-type': 'image/svg+xml',
          'cache-control': 'max-age=600',
          'content-length': svg.length,
        });
        return void setTimeout(() => response.end(svg), GALLERY_DELAY);
      }
      const body = `<!doctype html><title>${host}</title><link rel="icon" href="data:,"><h1 id="here">${host}${path}</h1>`;
      response.writeHead(200, {
        'content-type': 'text/html; charset=utf-8',
        'content-length': Buffer.byteLength(body),
        'cache-control': path.startsWith('/cached') ? 's-maxage=600, max-age=0' : 'no-store',
      });
      response.end(body);
    };
  const opened: Server[] = [];
  // A WebSocket says everything back.
  const echo = new WebSocketServer({ noServer: true });
  echo.on('connection', socket => socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary })));
  const speakingWebSocket = <S extends Server>(server: S, secure: boolean): S =>
    server.on('upgrade', (request: IncomingMessage, socket: Duplex, rest: Buffer) => {
      seen.push({
        way: wayOf(request),
        host: (request.headers.host ?? '').replace(/:\d+$/, ''),
        secure,
        method: 'GET',
        path: request.url ?? '/',
        headers: request.headers,
      });
      echo.handleUpgrade(request, socket, rest, one => echo.emit('connection', one, request));
    });
  const listen = (make: () => Server, host: string, port: number) =>
    new Promise<number>((resolve, reject) => {
      const server = make();
      server.once('error', reject);
      server.listen(port, host, () => {
        opened.push(server);
        resolve((server.address() as AddressInfo).port);
      });
    });
  const listenEverywhere = async (make: () => Server) => {
    // A port that is free on one loopback address may be taken on another, so try a few.
    for (let tries = 0; ; tries++) {
      const port = await listen(make, WAYS.direct, 0);
      try {
        for (const address of Object.values(WAYS)) if (address !== WAYS.direct) await listen(make, address, port);
        return port;
      } catch (error) {
        if (tries === 5) throw error;
      }
    }
  };
  const httpPort = await listenEverywhere(() => speakingWebSocket(createHttpServer(answer(false)), false));
  const httpsPort = await listenEverywhere(() => speakingWebSocket(createHttpsServer(identity, answer(true)), true));
  const unplug = async () => {
    for (const socket of echo.clients) socket.terminate();
    await Promise.all(
      opened.splice(0).map(
        server =>
          new Promise(resolve => {
            server.close(resolve);
            (server as unknown as { closeAllConnections?(): void }).closeAllConnections?.();
          }),
      ),
    );
  };
  return {
    authority,
    httpPort,
    httpsPort,
    seen,
    url: (host, path = '/') => `http://${host}:${httpPort}${path}`,
    secureUrl: (host, path = '/') => `https://${host}:${httpsPort}${path}`,
    of: host => seen.filter(request => request.host === host),
    unplug,
    [Symbol.asyncDispose]: unplug,
  };
}
