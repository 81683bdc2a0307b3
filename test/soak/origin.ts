// What the soaked companion talks to on its far side: an origin that behaves, one that does not, and an echo for tunnels, all on one loopback address.
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { type AddressInfo, createServer as createTcpServer, type Server, type Socket } from 'node:net';

export interface FarSide extends AsyncDisposable {
  readonly httpPort: number;
  readonly echoPort: number;
  /** Connections to the origin that are open now. */
  readonly open: number;
}

const KIB = 1024;
const BLOCK = Buffer.alloc(64 * KIB, 'soak');

/**
 * Paths: `/miss` 1 KiB, never stored · `/hit` stored for an hour · `/check` revalidated each time · `/big/N` so many bytes, with a length or (`?open`)
 * without · `/upload` says how many bytes came · `/later/N` after so many ms · `/broken` ends in the middle · `/reset` answers with a reset.
 */
export async function startFarSide(): Promise<FarSide> {
  const http = createServer({ keepAliveTimeout: 4_000 }, answer);
  const echo = createTcpServer({ allowHalfOpen: true }, socket => {
    socket.on('error', () => {});
    socket.pipe(socket);
  });
  const sockets = new Set<Socket>();
  let open = 0;
  http.on('connection', (socket: Socket) => {
    open++;
    socket.on('close', () => open--);
  });
  for (const server of [http, echo]) {
    server.on('connection', (socket: Socket) => {
      sockets.add(socket);
      socket.on('close', () => sockets.delete(socket));
    });
  }
  const httpPort = await listenOn(http);
  const echoPort = await listenOn(echo);
  return {
    httpPort,
    echoPort,
    get open() {
      return open;
    },
    async [Symbol.asyncDispose]() {
      const closed = [http, echo].map(server => new Promise(resolve => server.close(resolve)));
      for (const socket of sockets) socket.destroy();
      await Promise.all(closed);
    },
  };
}

function listenOn(server: Server): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, '127.0.0.1', 4_096, () => resolve((server.address() as AddressInfo).port));
  });
}

function answer(request: IncomingMessage, response: ServerResponse): void {
  request.on('error', () => {});
  response.on('error', () => {});
  const { pathname, search } = new URL(request.url!, 'http://x');
  const [, what, detail] = pathname.split('/');
  switch (what) {
    case 'hit':
      response.setHeader('Cache-Control', 'public, max-age=3600');
      response.end(BLOCK.subarray(0, 2 * KIB));
      return;
    case 'check':
      response.setHeader('Cache-Control', 'no-cache');
      response.setHeader('ETag', '"soak"');
      if (request.headers['if-none-match'] === '"soak"') response.writeHead(304).end();
      else response.end(BLOCK.subarray(0, 2 * KIB));
      return;
    case 'big':
      response.setHeader('Cache-Control', 'no-store');
      sendMuch(response, Number(detail), search === '?open');
      return;
    case 'upload': {
      let bytes = 0;
      request.on('data', (piece: Buffer) => (bytes += piece.length));
      request.on('end', () => response.end(String(bytes)));
      return;
    }
    case 'later':
      setTimeout(() => response.end('later'), Number(detail));
      return;
    case 'broken':
      response.setHeader('Content-Length', 100_000);
      response.write(BLOCK.subarray(0, 30_000));
      setTimeout(() => response.destroy(), Number(detail));
      return;
    case 'reset':
      request.socket.resetAndDestroy();
      return;
    default:
      response.setHeader('Cache-Control', 'no-store');
      response.end(BLOCK.subarray(0, KIB));
  }
}

function sendMuch(response: ServerResponse, bytes: number, open: boolean): void {
  if (!open) response.setHeader('Content-Length', bytes);
  let left = bytes;
  const more = () => {
    while (left > 0 && !response.destroyed) {
      const piece = left < BLOCK.length ? BLOCK.subarray(0, left) : BLOCK;
      left -= piece.length;
      if (!response.write(piece)) {
        response.once('drain', more);
        return;
      }
    }
    response.end();
  };
  more();
}
