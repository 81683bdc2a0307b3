// A proxy with a way out of its own (an address of 127/8 that nobody else uses) which fails at exactly one moment: the one place for every way in
// which a hop can say no, break, or fall silent. It keeps every byte that it was sent. Well-behaved until told otherwise; Linux only, for its address.
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { type Endpoint, parseEndpoint } from '../../shared/endpoint.ts';
import { Reader } from './hop.ts';

/** What it speaks. An http hop takes CONNECT and absolute-form. */
export type Tongue = 'http' | 'socks4a' | 'socks5';

/**
 * When: the connection stands · its first bytes are there (SOCKS5: in place of a method) · the login was said (SOCKS5) · it was asked for a tunnel or
 * a page, in place of an answer · the tunnel stands and its first bytes are there, none of which is passed on · the target's bytes are coming back.
 */
export type Moment = 'connect' | 'greeting' | 'login' | 'asked' | 'flight' | 'body';

export interface Misdeed {
  readonly at: Moment;
  /** Bytes are said, and then the connection is ended, while what still comes is read and thrown away. */
  readonly does: 'close' | 'reset' | 'hang' | Buffer;
  /** Asked with a body that is announced as longer: only once so many bytes of it have come. */
  readonly afterBody?: number;
  /** `body`: once so many bytes of the target have been passed on. */
  readonly afterBytes?: number;
}

export interface MisbehavingHop extends AsyncDisposable {
  /** The address it listens on and leaves from. */
  readonly address: string;
  readonly port: number;
  /** Connections so far. */
  readonly connections: number;
  /** Everything it was sent since this was last asked: for itself, until its tunnels stood, and through them. */
  takeHeard(): { readonly itself: Buffer; readonly through: Buffer };
  /** From the next connection on; null: it behaves. */
  become(misdeed: Misdeed | null): void;
}

/** Starts one that speaks `tongue` at `address`; every name that ends in .test is 127.0.0.1 to it. It takes any login, and asks for one where it can. */
export async function startMisbehavingHop(tongue: Tongue, address: string): Promise<MisbehavingHop> {
  let misdeed: Misdeed | null = null;
  let heard = { itself: [] as Buffer[], through: [] as Buffer[] };
  const tunnels = new WeakSet<Socket>();
  let connections = 0;
  const sockets = new Set<Socket>();

  const server = createServer({ allowHalfOpen: true, noDelay: true }, socket => {
    connections++;
    keep(socket);
    socket.on('data', (bytes: Buffer) => heard[tunnels.has(socket) ? 'through' : 'itself'].push(bytes));
    const doing = misdeed;
    if (is(doing, 'connect', socket)) return;
    const serve = { http: serveHttp, socks4a: serveSocks4a, socks5: serveSocks5 }[tongue];
    serve(new Reader(socket), socket, doing).catch(() => socket.destroy());
  });

  function keep(socket: Socket): void {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket)).on('error', () => {});
  }

  async function serveHttp(reader: Reader, socket: Socket, doing: Misdeed | null): Promise<void> {
    const head = await reader.until('\r\n\r\n');
    if (is(doing, 'greeting', socket)) return;
    const [method, target] = head.split(' ') as [string, string];
    if (doing?.at === 'asked') {
      const length = Number(/^content-length: (\d+)/im.exec(head)?.[1] ?? 0);
      if (doing.afterBody !== undefined && length > doing.afterBody) await reader.take(doing.afterBody);
    }
    if (is(doing, 'asked', socket)) return;
    if (method === 'CONNECT') {
      const yes = Buffer.from('HTTP/1.1 200 Connection established\r\n\r\n');
      const no = Buffer.from('HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n');
      return tunnel(socket, reader, parseEndpoint(target)!, yes, no, doing);
    }
    const url = new URL(target);
    const kept = head.split('\r\n').filter(line => line !== '' && !/^(?:proxy-|connection:)/i.test(line));
    kept[0] = `${method} ${url.pathname}${url.search} HTTP/1.1`;
    const onward = Buffer.from(`${kept.join('\r\n')}\r\nConnection: close\r\n\r\n`, 'latin1');
    const no = Buffer.from('HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\nContent-Length: 0\r\n\r\n');
    await tunnel(socket, reader, { host: url.hostname, port: Number(url.port || 80) }, onward, no, doing, true);
  }

  async function serveSocks5(reader: Reader, socket: Socket, doing: Misdeed | null): Promise<void> {
    const greeting = await reader.take(2);
    const methods = await reader.take(greeting[1]!);
    if (is(doing, 'greeting', socket)) return;
    const asksLogin = methods.includes(2);
    socket.write(Buffer.from([5, asksLogin ? 2 : 0]));
    if (asksLogin) {
      await reader.take((await reader.take(2))[1]!);
      await reader.take((await reader.take(1))[0]!);
      if (is(doing, 'login', socket)) return;
      socket.write(Buffer.from([1, 0]));
    }
    const type = (await reader.take(4))[3]!;
    const bytes = await reader.take(type === 1 ? 4 : type === 4 ? 16 : (await reader.take(1))[0]!);
    const host = type === 1 ? bytes.join('.') : bytes.toString('latin1');
    const port = (await reader.take(2)).readUInt16BE();
    if (is(doing, 'asked', socket)) return;
    const reply = (code: number) => Buffer.from([5, code, 0, 1, 0, 0, 0, 0, 0, 0]);
    await tunnel(socket, reader, { host, port }, reply(0), reply(5), doing);
  }

  async function serveSocks4a(reader: Reader, socket: Socket, doing: Misdeed | null): Promise<void> {
    const start = await reader.take(8);
    await reader.until('\0');
    const host = start.readUInt32BE(4) < 256 ? (await reader.until('\0')).slice(0, -1) : start.subarray(4).join('.');
    if (is(doing, 'asked', socket)) return;
    const reply = (code: number) => Buffer.from([0, code, 0, 0, 0, 0, 0, 0]);
    await tunnel(socket, reader, { host, port: start.readUInt16BE(2) }, reply(90), reply(91), doing);
  }

  /** On to the target: `first` goes back to the client once it stands, or (`onward`) to the target. */
  async function tunnel(
    socket: Socket,
    reader: Reader,
    to: Endpoint,
    first: Buffer,
    no: Buffer,
    doing: Misdeed | null,
    onward = false,
  ): Promise<void> {
    const host = to.host.endsWith('.test') ? '127.0.0.1' : to.host;
    const upstream = connect({ host, port: to.port, localAddress: address, noDelay: true, allowHalfOpen: true });
    keep(upstream);
    const stands = await new Promise<boolean>(resolve =>
      upstream.once('connect', () => resolve(true)).once('error', () => resolve(false)),
    );
    socket.on('close', () => upstream.destroy());
    if (!stands) return void socket.end(no);
    (onward ? upstream : socket).write(first);
    if (!onward) tunnels.add(socket);
    if (doing?.at === 'flight') {
      await reader.take(1);
      if (is(doing, 'flight', socket)) return;
    }
    const rest = reader.stop();
    if (rest.length > 0) upstream.write(rest);
    socket.pipe(upstream);
    if (doing?.at !== 'body') {
      upstream.pipe(socket);
      upstream.on('close', () => socket.end());
      return;
    }
    let left = doing.afterBytes ?? 1;
    upstream.on('data', (bytes: Buffer) => {
      if (left <= 0) return;
      const now = bytes.subarray(0, left);
      left -= now.length;
      socket.write(now, () => {
        if (left <= 0) is(doing, 'body', socket);
      });
    });
  }

  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(0, address, resolve));
  return {
    address,
    port: (server.address() as AddressInfo).port,
    get connections() {
      return connections;
    },
    takeHeard() {
      const all = { itself: Buffer.concat(heard.itself), through: Buffer.concat(heard.through) };
      heard = { itself: [], through: [] };
      return all;
    },
    become: next => void (misdeed = next),
    async [Symbol.asyncDispose]() {
      const closed = new Promise(resolve => server.close(resolve));
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}

/** Does the misdeed if its moment has come; whether it had. */
function is(doing: Misdeed | null, moment: Moment, socket: Socket): boolean {
  if (doing?.at !== moment) return false;
  const { does } = doing;
  socket.resume();
  if (does === 'reset') socket.resetAndDestroy();
  else if (does === 'close') socket.destroy();
  else if (does !== 'hang') socket.end(does);
  return true;
}
