// Real origins on port 0: one on node:http that records what it was asked, and one that says exactly the bytes it is told to.
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createRawServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { type RawClient, rawClientOn } from './raw-client.ts';

/** A request as the origin saw it. */
export interface SeenRequest {
  readonly method: string;
  /** The request-target as it came. */
  readonly url: string;
  readonly headers: Record<string, string | string[] | undefined>;
  /** Names and values as they came, flat. */
  readonly rawHeaders: readonly string[];
  readonly body: Buffer;
  readonly trailers: Record<string, string | undefined>;
  /** The address and port it came from: one per connection. */
  readonly from: string;
}

export interface Origin extends AsyncDisposable {
  readonly port: number;
  /** `127.0.0.1:port`. */
  readonly authority: string;
  url(path: string): string;
  /** In the order in which they were complete. */
  readonly requests: readonly SeenRequest[];
  /** Sockets whose other side is there now. */
  readonly open: ReadonlySet<Socket>;
  /** How many connections have been accepted. */
  readonly accepted: number;
}

export type OriginHandler = (request: IncomingMessage, response: ServerResponse, body: Buffer) => void;

const HELLO: OriginHandler = (_, response) => response.end('hello');

/** An origin that answers by `handler` (by itself: 200 `hello`), once it has read the request's body. */
export async function startOrigin(handler: OriginHandler = HELLO): Promise<Origin> {
  const requests: SeenRequest[] = [];
  const server = createServer(async (request, response) => {
    const pieces: Buffer[] = [];
    try {
      for await (const piece of request) pieces.push(piece as Buffer);
    } catch {
      return;
    }
    const body = Buffer.concat(pieces);
    requests.push({
      method: request.method!,
      url: request.url!,
      headers: request.headers,
      rawHeaders: request.rawHeaders,
      body,
      trailers: request.trailers,
      from: `${request.socket.remoteAddress}:${request.socket.remotePort}`,
    });
    handler(request, response, body);
  });
  const origin = await listening(server);
  return {
    ...origin,
    get accepted() {
      return origin.accepted;
    },
    requests,
  };
}

/** An origin that does with each connection as `script` says. Errors of the script are thrown at disposal. */
export async function startRawOrigin(
  script: (peer: RawClient, index: number) => unknown,
): Promise<Omit<Origin, 'requests'> & { readonly peers: readonly RawClient[] }> {
  const peers: RawClient[] = [];
  let failure: unknown;
  const server = createRawServer({ allowHalfOpen: true, noDelay: true }, socket => {
    const peer = rawClientOn(socket);
    peers.push(peer);
    Promise.resolve(script(peer, peers.length - 1)).catch(error => {
      if (!(error instanceof Error && /connection ended/.test(error.message))) failure ??= error;
    });
  });
  const origin = await listening(server);
  return {
    ...origin,
    get accepted() {
      return origin.accepted;
    },
    peers,
    async [Symbol.asyncDispose]() {
      await origin[Symbol.asyncDispose]();
      if (failure !== undefined) throw failure;
    },
  };
}

async function listening(server: Server): Promise<Omit<Origin, 'requests'>> {
  const open = new Set<Socket>();
  const sockets = new Set<Socket>();
  let accepted = 0;
  server.on('connection', (socket: Socket) => {
    accepted++;
    open.add(socket);
    sockets.add(socket);
    socket.on('error', () => {});
    socket.on('end', () => open.delete(socket));
    socket.on('close', () => {
      open.delete(socket);
      sockets.delete(socket);
    });
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, '127.0.0.1', resolve);
  });
  const { port } = server.address() as AddressInfo;
  return {
    port,
    authority: `127.0.0.1:${port}`,
    url: path => `http://127.0.0.1:${port}${path}`,
    open,
    get accepted() {
      return accepted;
    },
    async [Symbol.asyncDispose]() {
      const closed = new Promise(resolve => server.close(resolve));
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}
