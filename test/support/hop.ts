// A proxy that does as it is told: tunnels like a good one, or refuses, drips, talks nonsense, leaves early. It keeps what it was asked.
// Real proxies are in peers.ts; this one is for what they cannot be made to do.
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import type { Hop, HopKind } from '../../shared/config/hops.ts';
import { type Endpoint, formatEndpoint, parseEndpoint } from '../../shared/endpoint.ts';

export interface HopScript {
  readonly kind: HopKind;
  /** Asked for; a connection without them is refused. */
  readonly credentials?: { readonly username: string; readonly password: string };
  /** socks5: takes any login that is offered. */
  readonly anyLogin?: boolean;
  /** http: a status, or a whole reply as it goes over the wire. socks5: a reply code. Instead of a tunnel or an answer. */
  readonly refuse?: number | string;
  /** Only these are refused, by host; absent: all. */
  readonly refuseHosts?: readonly string[];
  /** Said at once to whatever comes first, instead of the protocol. */
  readonly says?: string | Buffer;
  /** Never says anything: from the first byte on, or once it was asked for the tunnel. */
  readonly silent?: 'always' | 'when-asked';
  /** Milliseconds between the bytes of all it says until the tunnel stands. */
  readonly drip?: number;
  /** Ends the connection after so many bytes came in. */
  readonly closeAfter?: number;
  /** Resets the connection instead of answering a request for a tunnel or a page. */
  readonly reset?: boolean;
  /** Glued behind the yes, as if the target had been quick. */
  readonly early?: string | Buffer;
  /** Field lines added to a 2xx to CONNECT. */
  readonly fields?: readonly string[];
  /** The socks5 reply's bound address, as bytes from ATYP on. */
  readonly bound?: readonly number[];
  /** Addresses for names; others are looked up by the system. */
  readonly hosts?: Readonly<Record<string, string>>;
}

export interface ScriptedHop extends AsyncDisposable {
  readonly port: number;
  /** As it stands in the configuration, with the credentials that it takes. */
  readonly hop: Hop;
  /** Every request: a CONNECT or absolute-form head as it came, or `socks5 host:port`. */
  readonly requests: string[];
  /** `user:password` of every login. */
  readonly logins: string[];
  /** ATYP of every socks5 request. */
  readonly addressTypes: number[];
  /** Connections accepted so far. */
  readonly connections: number;
  /** Connections open now. */
  readonly open: number;
  /** What it does from the next request on. */
  become(script: Partial<HopScript>): void;
}

/** Starts a scripted hop on a free loopback port. */
export async function startHop(initial: HopScript): Promise<ScriptedHop> {
  let script = initial;
  const sockets = new Set<Socket>();
  const requests: string[] = [];
  const logins: string[] = [];
  const addressTypes: number[] = [];
  let connections = 0;

  const server = createServer(socket => {
    connections++;
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket)).on('error', () => {});
    socket.setNoDelay(true);
    const { closeAfter } = script;
    if (closeAfter !== undefined) {
      let seen = 0;
      socket.on('data', (chunk: Buffer) => {
        seen += chunk.length;
        if (seen >= closeAfter) socket.end();
      });
      if (closeAfter === 0) return socket.end();
    }
    if (script.says !== undefined) {
      socket.once('data', () => void say(socket, Buffer.from(script.says!), script.drip));
      return;
    }
    if (script.silent === 'always') return void socket.resume();
    const take = script.kind === 'http' ? serveHttp : serveSocks5;
    take(new Reader(socket), socket).catch(() => socket.destroy());
  });

  const address = (host: string) => script.hosts?.[host] ?? host;
  const isRefused = (host: string) => script.refuse !== undefined && (script.refuseHosts?.includes(host) ?? true);

  async function tunnel(socket: Socket, to: Endpoint, yes: Buffer, reader: Reader, no: () => Buffer): Promise<void> {
    const upstream = connect({ host: address(to.host), port: to.port });
    sockets.add(upstream);
    upstream.on('close', () => (sockets.delete(upstream), socket.destroy()));
    socket.on('close', () => upstream.destroy());
    const stands = await new Promise<boolean>(resolve =>
      upstream.once('connect', () => resolve(true)).once('error', () => resolve(false)),
    );
    if (!stands) return void socket.end(no());
    upstream.on('error', () => {});
    await say(socket, Buffer.concat([yes, Buffer.from(script.early ?? '')]), script.drip);
    const rest = reader.stop();
    if (rest.length > 0) upstream.write(rest);
    socket.pipe(upstream).pipe(socket);
  }

  async function serveHttp(reader: Reader, socket: Socket): Promise<void> {
    const head = await reader.until('\r\n\r\n');
    requests.push(head);
    const [method, target] = head.split(' ') as [string, string];
    const login = /^proxy-authorization: basic (\S+)/im.exec(head)?.[1];
    if (login !== undefined) logins.push(Buffer.from(login, 'base64').toString());
    const { credentials } = script;
    if (credentials && logins.at(-1) !== `${credentials.username}:${credentials.password}`) {
      return say(socket, httpReply(407, 'Proxy-Authenticate: Basic realm="hop"'), script.drip, true);
    }
    if (script.silent === 'when-asked') return;
    if (script.reset) return void socket.resetAndDestroy();
    const to = method === 'CONNECT' ? parseEndpoint(target)! : hostOf(target);
    if (isRefused(to.host))
      return say(
        socket,
        typeof script.refuse === 'string' ? Buffer.from(script.refuse) : httpReply(script.refuse!),
        script.drip,
        true,
      );
    if (method === 'CONNECT') {
      const yes = Buffer.from(['HTTP/1.1 200 Connection established', ...(script.fields ?? []), '', ''].join('\r\n'));
      return tunnel(socket, to, yes, reader, () => httpReply(503));
    }
    // Absolute-form: one exchange, then the connection ends.
    const url = new URL(target);
    const lines = head.split('\r\n').filter(line => !/^(proxy-|connection:)/i.test(line));
    lines[0] = `${method} ${url.pathname}${url.search} HTTP/1.1`;
    const rest = reader.stop();
    const upstream = connect({ host: address(to.host), port: to.port });
    sockets.add(upstream);
    upstream.on('close', () => sockets.delete(upstream)).on('error', () => socket.end(httpReply(502)));
    upstream.write(
      Buffer.concat([Buffer.from(`${lines.filter(Boolean).join('\r\n')}\r\nConnection: close\r\n\r\n`), rest]),
    );
    socket.on('close', () => upstream.destroy());
    socket.pipe(upstream).pipe(socket);
  }

  async function serveSocks5(reader: Reader, socket: Socket): Promise<void> {
    const { credentials, drip } = script;
    const greeting = await reader.take(2);
    const methods = await reader.take(greeting[1]!);
    const method = credentials || (script.anyLogin && methods.includes(2)) ? 2 : 0;
    if (!methods.includes(method)) return say(socket, Buffer.from([5, 255]), drip, true);
    await say(socket, Buffer.from([5, method]), drip);
    if (method === 2) {
      const name = (await reader.take((await reader.take(2))[1]!)).toString();
      const word = (await reader.take((await reader.take(1))[0]!)).toString();
      logins.push(`${name}:${word}`);
      const good = !credentials || (name === credentials.username && word === credentials.password);
      await say(socket, Buffer.from([1, good ? 0 : 1]), drip, !good);
      if (!good) return;
    }
    const type = (await reader.take(4))[3]!;
    addressTypes.push(type);
    const bytes = await reader.take(type === 1 ? 4 : type === 4 ? 16 : (await reader.take(1))[0]!);
    const host = type === 1 ? bytes.join('.') : type === 4 ? groupsOf(bytes) : bytes.toString('latin1');
    const port = (await reader.take(2)).readUInt16BE();
    requests.push(`socks5 ${formatEndpoint({ host, port })}`);
    if (script.silent === 'when-asked') return;
    if (script.reset) return void socket.resetAndDestroy();
    const bound = script.bound ?? [1, 0, 0, 0, 0, 0, 0];
    if (isRefused(host)) return say(socket, Buffer.from([5, Number(script.refuse), 0, ...bound]), drip, true);
    return tunnel(socket, { host, port }, Buffer.from([5, 0, 0, ...bound]), reader, () =>
      Buffer.from([5, 5, 0, ...bound]),
    );
  }

  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return {
    port,
    hop: { kind: script.kind, host: '127.0.0.1', port, ...script.credentials },
    requests,
    logins,
    addressTypes,
    get connections() {
      return connections;
    },
    get open() {
      return sockets.size;
    },
    become(next) {
      script = { ...script, ...next };
    },
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise(resolve => server.close(resolve));
    },
  };
}

/** A TCP server on a free loopback port that sends back what it gets, and keeps how many came. `greets` is said first. */
export async function startEcho(
  options: { readonly host?: string; readonly port?: number; readonly greets?: string } = {},
): Promise<AsyncDisposable & { readonly port: number; readonly connections: number }> {
  const sockets = new Set<Socket>();
  let connections = 0;
  const server = createServer(socket => {
    connections++;
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket)).on('error', () => {});
    if (options.greets !== undefined) socket.write(options.greets);
    socket.pipe(socket);
  });
  await new Promise<void>(resolve => server.listen(options.port ?? 0, options.host ?? '127.0.0.1', resolve));
  return {
    port: (server.address() as AddressInfo).port,
    get connections() {
      return connections;
    },
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise(resolve => server.close(resolve));
    },
  };
}

/** A loopback port that nobody listens on (for the moment). */
export async function closedPort(): Promise<number> {
  const server = createServer();
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise(resolve => server.close(resolve));
  return port;
}

function httpReply(status: number, ...fields: string[]): Buffer {
  const body = `the hop says ${status}`;
  return Buffer.from(
    [`HTTP/1.1 ${status} Scripted`, ...fields, `Content-Length: ${body.length}`, 'Connection: close', '', body].join(
      '\r\n',
    ),
  );
}

function hostOf(url: string): Endpoint {
  const { hostname, port } = new URL(url);
  return { host: hostname, port: Number(port || 80) };
}

function groupsOf(bytes: Buffer): string {
  return new URL(
    `http://[${Array.from({ length: 8 }, (_, i) => bytes.readUInt16BE(i * 2).toString(16)).join(':')}]/`,
  ).hostname.slice(1, -1);
}

async function say(socket: Socket, bytes: Buffer, drip: number | undefined, last = false): Promise<void> {
  if (drip === undefined) socket.write(bytes);
  else {
    for (const byte of bytes) {
      if (socket.destroyed) return;
      socket.write(Buffer.from([byte]));
      await new Promise(resolve => setTimeout(resolve, drip));
    }
  }
  if (last) socket.end();
}

/** Takes bytes off a socket in portions. */
export class Reader {
  private pending = Buffer.alloc(0);
  private wake: (() => void) | null = null;
  private ended = false;
  private readonly socket: Socket;
  private readonly onData = (chunk: Buffer) => {
    this.pending = Buffer.concat([this.pending, chunk]);
    this.wake?.();
  };
  private readonly onEnd = () => {
    this.ended = true;
    this.wake?.();
  };

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on('data', this.onData).on('end', this.onEnd).on('close', this.onEnd);
  }

  async take(length: number): Promise<Buffer> {
    while (this.pending.length < length) await this.more();
    const bytes = this.pending.subarray(0, length);
    this.pending = this.pending.subarray(length);
    return bytes;
  }

  async until(mark: string): Promise<string> {
    let at: number;
    while ((at = this.pending.indexOf(mark)) < 0) await this.more();
    return (await this.take(at + mark.length)).toString('latin1');
  }

  /** Gives the socket back, with what was read too much. */
  stop(): Buffer {
    this.socket.off('data', this.onData).off('end', this.onEnd).off('close', this.onEnd).pause();
    return this.pending;
  }

  private more(): Promise<void> {
    if (this.ended) throw new Error('the connection ended');
    return new Promise(resolve => {
      this.wake = resolve;
    });
  }
}
