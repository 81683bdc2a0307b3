// The origin of the bench, as light as Node allows: it reads nothing of a request but its first bytes. `node origin.ts` prints its ports as JSON:
// `http` answers 1 KiB (cacheable where the path begins with /hit), `bulk` sends without end, `echo` sends back what comes.
import { type AddressInfo, createServer, type Server } from 'node:net';

const BODY = 'x'.repeat(1024);
const answer = (cacheControl: string) =>
  Buffer.from(
    `HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nCache-Control: ${cacheControl}\r\nDate: ${new Date().toUTCString()}\r\n` +
      `Content-Length: ${BODY.length}\r\n\r\n${BODY}`,
    'latin1',
  );
let cacheable = answer('max-age=3600');
let uncacheable = answer('no-store');
setInterval(() => {
  cacheable = answer('max-age=3600');
  uncacheable = answer('no-store');
}, 1000);

const HIT = Buffer.from('GET /hit');
const END = Buffer.from('\r\n\r\n');

const http = createServer({ noDelay: true }, socket => {
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
      socket.write(bytes.subarray(0, HIT.length).equals(HIT) ? cacheable : uncacheable);
      bytes = bytes.subarray(end + END.length);
    }
  });
});

const PIECE = Buffer.alloc(256 * 1024, 'bulk');
const bulk = createServer(socket => {
  const send = () => {
    while (socket.writable && socket.write(PIECE));
  };
  socket.on('error', () => {});
  socket.on('drain', send);
  socket.resume();
  send();
});

const echo = createServer({ noDelay: true }, socket => {
  socket.on('error', () => {});
  socket.on('data', (chunk: Buffer) => void socket.write(chunk));
});

const listening = (server: Server) =>
  new Promise<number>(resolve =>
    server.listen({ port: 0, host: '127.0.0.1', backlog: 4096 }, () => resolve((server.address() as AddressInfo).port)),
  );
const ports = { http: await listening(http), bulk: await listening(bulk), echo: await listening(echo) };
process.stdout.write(`${JSON.stringify(ports)}\n`);
