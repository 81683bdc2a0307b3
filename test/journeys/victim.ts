// A service of the machine that web pages should not reach: it listens on every loopback address and notes all that arrives.
import { createServer as createHttpServer, type RequestListener } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import type { AddressInfo, Server } from 'node:net';
import { WebSocketServer } from 'ws';
import type { TestAuthority } from '../support/certificates.ts';

export interface Victim extends AsyncDisposable {
  readonly port: number;
  readonly securePort: number;
  /** The ways by which it was reached under a tag, sorted; `/tag/way` is what attacks ask for. */
  reachedBy(tag: string): string[];
}

/** `names` stand in its certificate. */
export async function startVictim(authority: TestAuthority, names: readonly string[]): Promise<Victim> {
  const reached = new Set<string>();
  const answer: RequestListener = (request, response) => {
    reached.add(request.url ?? '');
    response.writeHead(200, { 'content-type': 'text/html', 'content-length': 2 }).end('ok');
  };
  // It answers the handshake: browsers hold WebSockets back for seconds after some that failed.
  const sockets = new WebSocketServer({ noServer: true });
  const servers = [createHttpServer(answer), createHttpsServer(await authority.issue(...names), answer)] as const;
  const ports: number[] = [];
  for (const server of servers) {
    server.on('upgrade', (request, socket, rest) => {
      reached.add(request.url ?? '');
      sockets.handleUpgrade(request, socket, rest, () => {});
    });
    // Both families: 127.0.0.0/8 and ::1.
    await new Promise<void>(resolve => (server as Server).listen(0, '::', resolve));
    ports.push(((server as Server).address() as AddressInfo).port);
  }
  return {
    port: ports[0]!,
    securePort: ports[1]!,
    reachedBy: tag =>
      [...reached]
        .filter(path => path.startsWith(`/${tag}/`))
        .map(path => path.slice(tag.length + 2))
        .sort(),
    async [Symbol.asyncDispose]() {
      for (const socket of sockets.clients) socket.terminate();
      for (const server of servers) {
        server.closeAllConnections();
        await new Promise(resolve => server.close(resolve));
      }
    },
  };
}
