// The origin of the bench, as light as Node allows: it reads nothing of a request but its first bytes, and counts. `node origin.ts` prints its ports as
// JSON. `http` answers 1 KiB (cacheable where the path begins with /hit; /hit-1m is 1 MiB, /hit-304 has an ETag); `parent` answers requests in absolute-form just so, as an http proxy that has
// every answer at hand would; `bulk` sends without end, `sink` takes what comes, `echo` sends it back; `counts` tells what reached the others.
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
const seen = { hits: 0, misses: 0, parent: 0, astray: 0, sunk: 0, tunnels: 0 } satisfies OriginCounts;
const beginsWith = (bytes: Buffer, begin: Buffer) =>
  bytes.length >= begin.length && bytes.compare(begin, 0, begin.length, 0, begin.length) === 0;

/** Answers every request on a connection with what `answerTo` gives for its bytes. */
function answering(answerTo: (bytes: Buffer) => Buffer): Server {
  return createServer({ noDelay: true }, socket => {
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
  });
}

const http = answering(bytes => {
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
const parent = answering(bytes => {
  if (beginsWith(bytes, THROUGH_PARENT)) seen.parent++;
  else seen.astray++;
  return uncacheable;
});

const PIECE = Buffer.alloc(256 * 1024, 'bulk');
const bulk = createServer(socket => {
  const send = () => {
    while (socket.writable && socket.write(PIECE));
  };
  seen.tunnels++;
  socket.on('error', () => {});
  socket.on('drain', send);
  socket.resume();
  send();
});

const sink = createServer((socket: Socket) => {
  seen.tunnels++;
  socket.on('error', () => {});
  socket.on('data', (chunk: Buffer) => void (seen.sunk += chunk.length));
});

const echo = createServer({ noDelay: true }, socket => {
  seen.tunnels++;
  socket.on('error', () => {});
  socket.on('data', (chunk: Buffer) => void socket.write(chunk));
});

const counts = createServer(socket => {
  socket.on('error', () => {});
  socket.end(JSON.stringify(seen));
});

const listening = (server: Server) =>
  new Promise<number>(resolve =>
    server.listen({ port: 0, host: '127.0.0.1', backlog: 4096 }, () => resolve((server.address() as AddressInfo).port)),
  );
const ports: OriginPorts = {
  http: await listening(http),
  parent: await listening(parent),
  bulk: await listening(bulk),
  sink: await listening(sink),
  echo: await listening(echo),
  counts: await listening(counts),
};
process.stdout.write(`${JSON.stringify(ports)}\n`);
