// The origin of the bench, as light as Node allows: it reads nothing of a request but its first bytes, and counts. `node origin.ts` prints its ports as
// JSON. `http` answers 1 KiB (cacheable where the path begins with /hit; /hit-1m is 1 MiB, /hit-304 has an ETag); `parent` answers requests in absolute-form just so, as an http proxy that has
// every answer at hand would, and is the target of a CONNECT itself; `socks` does the same as a SOCKS5 proxy, `refusing` says no to everything as squid's ACL does; `bulk` sends without end, `sink` takes what comes, `echo` sends it back; `counts` tells what reached the others.
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import type { OriginCounts, OriginPorts } from './proxies.ts';

const BODY = 'x'.repeat(1024);
const MEBIBYTE = 'x'.repeat(1024 * 1024);
const answer = (cacheControl: string, body = BODY) =>
  Buffer.from(
    `HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nCache-Control: ${cacheControl}\r\nDate: ${new Date().toUTCString()}\r\n` +
      `Content-Length: ${body.length}\r\n\r\n${body}`,
    'latin1',
  );
let cacheable = answer('max-age=3600');
let uncacheable = answer('no-store');
setInterval(() => {
  cacheable = answer('max-age=3600');
  uncacheable = answer('no-store');
}, 1000);

const HIT = Buffer.from('GET /hit');
const LARGE_HIT = Buffer.from('GET /hit-1m');
const TAGGED_HIT = Buffer.from('GET /hit-304');
const MISS = Buffer.from('GET /miss');
const THROUGH_PARENT = Buffer.from('GET http://');
const END = Buffer.from('\r\n\r\n');
const REFUSAL = Buffer.from(
  `HTTP/1.1 403 Forbidden\r\nServer: squid/6.13\r\nX-Squid-Error: ERR_ACCESS_DENIED 0\r\nContent-Type: text/html\r\n` +
    `Content-Length: ${BODY.length}\r\n\r\n${BODY}`,
  'latin1',
);
const seen = { hits: 0, misses: 0, parent: 0, refused: 0, astray: 0, sunk: 0, tunnels: 0 } satisfies OriginCounts;
const beginsWith = (bytes: Buffer, begin: Buffer) =>
  bytes.length >= begin.length && bytes.compare(begin, 0, begin.length, 0, begin.length) === 0;

/** Answers every request on a connection with what `answerTo` gives for its bytes. */
const answering = (answerTo: (bytes: Buffer) => Buffer) => (socket: Socket) => {
  let held: Buffer | null = null;
  socket.on('error', () => {});
  socket.on('data', (chunk: Buffer) => {
    let bytes = held === null ? chunk : Buffer.concat([held, chunk]);
    held = null;
    while (bytes.length > 0) {
      const end = bytes.indexOf(END);
      if (end === -1) {
        held = bytes;
        return;
      }
      socket.write(answerTo(bytes));
      bytes = bytes.subarray(end + END.length);
    }
  });
};

const answerAsOrigin = answering(bytes => {
  if (beginsWith(bytes, HIT)) {
    seen.hits++;
    if (beginsWith(bytes, LARGE_HIT)) return answer('max-age=3600', MEBIBYTE);
    if (beginsWith(bytes, TAGGED_HIT)) return answer('max-age=3600\r\nETag: "bench"');
    return cacheable;
  }
  if (beginsWith(bytes, MISS)) seen.misses++;
  else seen.astray++;
  return uncacheable;
});
const answerAsParent = answering(bytes => {
  if (beginsWith(bytes, THROUGH_PARENT)) seen.parent++;
  else seen.astray++;
  return uncacheable;
});
const refuse = answering(() => {
  seen.refused++;
  return REFUSAL;
});

const PIECE = Buffer.alloc(256 * 1024, 'bulk');
const sendBulk = (socket: Socket) => {
  const send = () => {
    while (socket.writable && socket.write(PIECE));
  };
  seen.tunnels++;
  socket.on('error', () => {});
  socket.on('drain', send);
  socket.resume();
  send();
};

const takeAll = (socket: Socket) => {
  seen.tunnels++;
  socket.on('error', () => {});
  socket.on('data', (chunk: Buffer) => void (seen.sunk += chunk.length));
};

const sendBack = (socket: Socket) => {
  seen.tunnels++;
  socket.on('error', () => {});
  socket.on('data', (chunk: Buffer) => void socket.write(chunk));
};

/** What is behind each port: the parents are it themselves, instead of connecting to it. */
const behind = new Map<number, (socket: Socket) => void>();

/** Hands a connection over; `early` came with what asked for it. */
function become(socket: Socket, port: number, early: Buffer): void {
  const serve = behind.get(port);
  if (serve === undefined) {
    seen.astray++;
    socket.destroy();
    return;
  }
  serve(socket);
  if (early.length > 0) socket.emit('data', early);
}

/** CONNECT is told from requests by its first bytes. Some proxies write its head piece by piece. */
function beParent(socket: Socket): void {
  let held = Buffer.alloc(0);
  const take = (chunk: Buffer) => {
    held = Buffer.concat([held, chunk]);
    const end = held.indexOf(END);
    if (end === -1) return;
    socket.off('data', take);
    const port = /^CONNECT \S+:(\d+) /.exec(held.toString('latin1', 0, end))?.[1];
    if (port === undefined) {
      answerAsParent(socket);
      socket.emit('data', held);
      return;
    }
    socket.write('HTTP/1.1 200 OK\r\n\r\n');
    become(socket, Number(port), held.subarray(end + END.length));
  };
  socket.on('error', () => {});
  socket.on('data', take);
}

/** SOCKS5 without a password (RFC 1928), CONNECT only. */
function beSocks(socket: Socket): void {
  let held = Buffer.alloc(0);
  let greeted = false;
  const take = (chunk: Buffer) => {
    held = Buffer.concat([held, chunk]);
    if (!greeted) {
      if (held.length < 2 || held.length < 2 + held[1]!) return;
      held = held.subarray(2 + held[1]!);
      greeted = true;
      socket.write(Buffer.of(5, 0));
    }
    if (held.length < 5) return;
    const address = held[3] === 1 ? 4 : held[3] === 4 ? 16 : 1 + held[4]!;
    const end = 4 + address + 2;
    if (held.length < end) return;
    socket.off('data', take);
    socket.write(Buffer.of(5, 0, 0, 1, 0, 0, 0, 0, 0, 0));
    become(socket, held.readUInt16BE(end - 2), held.subarray(end));
  };
  socket.on('error', () => {});
  socket.on('data', take);
}

const counts = createServer(socket => {
  socket.on('error', () => {});
  socket.end(JSON.stringify(seen));
});

const listening = (server: Server) =>
  new Promise<number>(resolve =>
    server.listen({ port: 0, host: '127.0.0.1', backlog: 4096 }, () => resolve((server.address() as AddressInfo).port)),
  );
const serving = (serve: (socket: Socket) => void) => listening(createServer({ noDelay: true }, serve));
const ports: OriginPorts = {
  http: await serving(answerAsOrigin),
  parent: await serving(beParent),
  socks: await serving(beSocks),
  refusing: await serving(refuse),
  bulk: await serving(sendBulk),
  sink: await serving(takeAll),
  echo: await serving(sendBack),
  counts: await listening(counts),
};
behind.set(ports.http, answerAsOrigin);
// Not in one piece with the answer to CONNECT: what came so through proxy-chain was not whole.
behind.set(ports.bulk, socket => void setTimeout(sendBulk, 20, socket));
behind.set(ports.sink, takeAll);
behind.set(ports.echo, sendBack);
process.stdout.write(`${JSON.stringify(ports)}\n`);
