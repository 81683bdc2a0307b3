// The wall: the least that a forwarding proxy on node:net can do. It parses the heads of both sides, rebuilds them, and forwards on kept connections;
// what says max-age it keeps in a Map as the bytes to send; tunnels read into memory that is used again. It checks nothing, limits nothing, records
// nothing, and serves only what the bench asks: GET without a body, answers with Content-Length, CONNECT. `node wall.ts PORT [PARENTPORT]`
import { connect, createServer, type Socket } from 'node:net';

const [portText, parentText] = process.argv.slice(2);
const parent = parentText === undefined ? null : Number(parentText);
const END = Buffer.from('\r\n\r\n');
const kept = new Map<string, { whole: Buffer; notModified: Buffer }>();
const idle = new Map<number, Upstream[]>();

type Fields = [name: string, lower: string, value: string][];

/** Start line and fields of a head, as text without its last empty line. */
function parseHead(head: string): { start: string; fields: Fields } {
  const fields: Fields = [];
  let at = head.indexOf('\r\n');
  const start = at === -1 ? head : head.slice(0, at);
  while (at !== -1) {
    const next = head.indexOf('\r\n', at + 2);
    const line = next === -1 ? head.slice(at + 2) : head.slice(at + 2, next);
    const colon = line.indexOf(':');
    const name = line.slice(0, colon);
    fields.push([name, name.toLowerCase(), line.slice(colon + 1).trim()]);
    at = next;
  }
  return { start, fields };
}

/** Without what is for one connection only. */
function writeHead(start: string, fields: Fields): string {
  let text = `${start}\r\n`;
  for (const [name, lower, value] of fields) {
    if (lower === 'connection' || lower === 'keep-alive' || lower === 'proxy-connection') continue;
    text += `${name}: ${value}\r\n`;
  }
  return `${text}\r\n`;
}

class Upstream {
  readonly socket: Socket;
  client: Client | null = null;
  private held: Buffer | null = null;
  private left = 0;
  private keeping: { url: string; pieces: Buffer[] } | null = null;

  constructor(port: number) {
    this.socket = connect({ port, host: '127.0.0.1', noDelay: true });
    this.socket.on('data', (chunk: Buffer) => this.take(chunk));
    this.socket.on('error', () => {});
    this.socket.on('close', () => {
      const list = idle.get(port)!;
      if (list.includes(this)) list.splice(list.indexOf(this), 1);
      this.client?.socket.destroy();
    });
  }

  private take(chunk: Buffer): void {
    const client = this.client!;
    if (this.left > 0) {
      this.left -= chunk.length;
      this.pass(client, chunk);
      return;
    }
    const bytes = this.held === null ? chunk : Buffer.concat([this.held, chunk]);
    const end = bytes.indexOf(END);
    this.held = end === -1 ? bytes : null;
    if (end === -1) return;
    const { start, fields } = parseHead(bytes.toString('latin1', 0, end));
    this.left = 0;
    for (const [, lower, value] of fields) {
      if (lower === 'content-length') this.left = Number(value);
      else if (lower === 'cache-control' && value.includes('max-age')) this.keeping = { url: client.url, pieces: [] };
    }
    const body = bytes.subarray(end + 4);
    this.left -= body.length;
    const head = writeHead(start, fields);
    // One write for a small answer.
    const whole = Buffer.allocUnsafe(head.length + body.length);
    whole.write(head, 0, 'latin1');
    body.copy(whole, head.length);
    this.pass(client, whole);
  }

  private pass(client: Client, bytes: Buffer): void {
    client.socket.write(bytes);
    this.keeping?.pieces.push(Buffer.from(bytes));
    if (this.left > 0) return;
    if (this.keeping !== null) {
      const whole = Buffer.concat(this.keeping.pieces);
      const head = whole.toString('latin1', 0, whole.indexOf(END) + 4);
      const fields = head.slice(head.indexOf('\n') + 1).replace(/^content-length:.*\r\n/im, '');
      kept.set(this.keeping.url, {
        whole,
        notModified: Buffer.from(`HTTP/1.1 304 Not Modified\r\n${fields}`, 'latin1'),
      });
    }
    this.keeping = null;
    this.client = null;
    client.answered(this);
  }
}

class Client {
  readonly socket: Socket;
  url = '';
  private held: Buffer | null = null;
  private waiting = false;
  private readonly onData = (chunk: Buffer) => {
    this.held = this.held === null ? chunk : Buffer.concat([this.held, chunk]);
    if (!this.waiting) this.next();
  };

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on('data', this.onData);
    socket.on('error', () => {});
    socket.on('end', () => void socket.end());
  }

  answered(upstream: Upstream): void {
    idle.get(this.port)!.push(upstream);
    this.waiting = false;
    if (this.held !== null) this.next();
  }

  private port = 0;

  private next(): void {
    while (this.held !== null) {
      const bytes = this.held;
      const end = bytes.indexOf(END);
      if (end === -1) return;
      this.held = end + 4 < bytes.length ? bytes.subarray(end + 4) : null;
      const { start, fields } = parseHead(bytes.toString('latin1', 0, end));
      const space = start.indexOf(' ');
      const target = start.slice(space + 1, start.lastIndexOf(' '));
      if (start.startsWith('CONNECT ')) return this.openTunnel(target);
      const answer = kept.get(target);
      if (answer !== undefined) {
        const isConditional = fields.some(([, lower]) => lower === 'if-none-match');
        this.socket.write(isConditional ? answer.notModified : answer.whole);
        continue;
      }
      this.forward(target, fields);
      return;
    }
  }

  private forward(url: string, fields: Fields): void {
    this.url = url;
    const slash = url.indexOf('/', 7);
    const authority = url.slice(7, slash);
    const port = Number(authority.slice(authority.indexOf(':') + 1));
    this.port = parent ?? port;
    let list = idle.get(this.port);
    if (list === undefined) idle.set(this.port, (list = []));
    const upstream = list.pop() ?? new Upstream(this.port);
    upstream.client = this;
    this.waiting = true;
    upstream.socket.write(writeHead(`GET ${parent === null ? url.slice(slash) : url} HTTP/1.1`, fields), 'latin1');
  }

  private openTunnel(target: string): void {
    const { socket } = this;
    socket.off('data', this.onData);
    const upstream = connect({ port: Number(target.slice(target.indexOf(':') + 1)), host: '127.0.0.1', noDelay: true });
    upstream.on('connect', () => {
      socket.write('HTTP/1.1 200 OK\r\n\r\n');
      if (this.held !== null) upstream.write(this.held);
      join(socket, upstream);
      join(upstream, socket);
    });
  }
}

const SIZE = 64 * 1024;
const BUSY = 16 * 1024;
const shared = Buffer.allocUnsafeSlow(SIZE);

/** All that one reads the other writes. A quiet socket reads into the memory of all and is copied; a busy one has two pieces of its own in turns. */
function join(from: Socket, to: Socket): void {
  from.on('error', () => to.destroy());
  from.on('end', () => to.end());
  from.on('close', () => to.destroy());
  to.on('drain', () => from.resume());
  const symbols = Object.getOwnPropertySymbols(from);
  const symbol = (name: string) => symbols.find(one => one.description === name);
  const [buffer, callback, next] = [symbol('kBuffer'), symbol('kBufferCb'), symbol('kBufferGen')];
  const inside = from as unknown as Record<symbol, unknown> & { _handle: { useUserBuffer?(buffer: Buffer): void } };
  if (!buffer || !callback || !next || inside._handle.useUserBuffer === undefined) {
    from.on('data', (chunk: Buffer) => {
      if (!to.write(chunk)) from.pause();
    });
    return;
  }
  let current: Buffer = shared;
  const spare: Buffer[] = [];
  inside[buffer] = shared;
  inside[callback] = (count: number, bytes: Buffer) => {
    if (bytes === shared) {
      if (count >= BUSY) current = Buffer.allocUnsafeSlow(SIZE);
      if (to.write(Buffer.from(shared.subarray(0, count)))) return true;
    } else {
      let written = false;
      const isFree = to.write(bytes.subarray(0, count), () => {
        written = true;
        if (current !== bytes) spare.push(bytes);
      });
      // Not with the system yet: the next read goes elsewhere.
      if (!written && to.writableLength > 0) current = spare.pop() ?? Buffer.allocUnsafeSlow(SIZE);
      if (isFree) return true;
    }
    from.pause();
    return false;
  };
  inside[next] = () => current;
  inside._handle.useUserBuffer(shared);
  from.resume();
}

const server = createServer({ noDelay: true, allowHalfOpen: true }, socket => void new Client(socket));
server.listen({ port: Number(portText), host: '127.0.0.1', backlog: 4096 });
