// TLS in front of a proxy that speaks none: with it, any proxy is one of kind https. What it decrypts goes on to a port of this machine.
import { connect, type AddressInfo, type Socket } from 'node:net';
import { createServer, type TlsOptions, type TLSSocket } from 'node:tls';

export interface TlsFront extends AsyncDisposable {
  readonly port: number;
  /** Names that were asked for (SNI); false = none was. */
  readonly names: (string | false | null)[];
  /** What ALPN chose. */
  readonly protocols: (string | false | null)[];
  /** Handshakes that took an old session up again. */
  readonly reused: number;
  /** Subjects of the client certificates that were shown. */
  readonly clients: string[];
}

export async function startTlsFront(to: number, options: TlsOptions): Promise<TlsFront> {
  const sockets = new Set<Socket>();
  const names: TlsFront['names'] = [];
  const protocols: TlsFront['protocols'] = [];
  const clients: string[] = [];
  let reused = 0;
  const keep = (socket: Socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket)).on('error', () => {});
  };
  const server = createServer({ ALPNProtocols: ['http/1.1'], ...options }, (secure: TLSSocket) => {
    keep(secure);
    names.push(secure.servername);
    protocols.push(secure.alpnProtocol);
    if (secure.isSessionReused()) reused++;
    const { subject } = secure.getPeerCertificate();
    if (subject) clients.push(String(subject.CN));
    const plain = connect(to, '127.0.0.1');
    keep(plain);
    secure.pipe(plain).pipe(secure);
    secure.on('close', () => plain.destroy());
    plain.on('close', () => secure.destroy());
  });
  server.on('connection', keep).on('tlsClientError', () => {});
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  return {
    port: (server.address() as AddressInfo).port,
    names,
    protocols,
    clients,
    get reused() {
      return reused;
    },
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise(resolve => server.close(resolve));
    },
  };
}
