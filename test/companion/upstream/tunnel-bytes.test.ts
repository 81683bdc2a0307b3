// The bytes of a tunnel, by their hash: many at once, both ways, quick and slow readers, writes of every size.
import { createHash, randomBytes } from 'node:crypto';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { expect, test } from 'vitest';
import { startProxy } from '../../support/with-proxy.ts';

/** Writes random bytes in pieces of odd sizes; gives back their hash. In drops, pieces of 16 to 40 KB come one by one, a millisecond apart. */
async function send(socket: Socket, total: number, seed: number, inDrops: boolean): Promise<string> {
  const hash = createHash('sha256');
  let state = seed;
  let left = total;
  while (left > 0) {
    state = (state * 1_103_515_245 + 12_345) & 0x7fffffff;
    // Mostly large pieces, and some of a few bytes.
    const large = inDrops ? 16_400 + (state % 24_000) : 20_000 + (state % 200_000);
    const size = Math.min(left, state % 5 === 0 ? 1 + (state % 700) : large);
    const piece = randomBytes(size);
    hash.update(piece);
    left -= size;
    if (!socket.write(piece)) await new Promise(resolve => socket.once('drain', resolve));
    if (inDrops) await new Promise(resolve => setTimeout(resolve, 1));
  }
  socket.end();
  return hash.digest('hex');
}

/** Reads to the end, with a pause now and then that fills what the system holds on the way; gives back the hash. */
function receive(socket: Socket, slow: boolean): Promise<string> {
  const hash = createHash('sha256');
  return new Promise((resolve, reject) => {
    let reads = 0;
    socket.on('data', (chunk: Buffer) => {
      hash.update(chunk);
      if (slow && ++reads % 64 === 1) {
        socket.pause();
        setTimeout(() => socket.resume(), 60);
      }
    });
    socket.once('end', () => resolve(hash.digest('hex')));
    socket.once('error', reject);
  });
}

test('what goes into a tunnel comes out of it, whoever is slow', { timeout: 60_000 }, async () => {
  const TUNNELS = 8;
  const BYTES = 6_000_000;
  const sent: Promise<string>[] = [];
  const received: Promise<string>[] = [];
  let arrived = 0;
  await using origin = createServer({ allowHalfOpen: true }, socket => {
    const index = arrived++;
    // The first byte names the tunnel.
    socket.once('readable', () => {
      const [number] = socket.read(1) as Buffer;
      received[number!] = receive(socket, index % 2 === 0);
      sent[TUNNELS + number!] = send(socket, BYTES, index + 1, false);
    });
  });
  await new Promise<void>(resolve => origin.listen(0, '127.0.0.1', resolve));
  const { port } = origin.address() as AddressInfo;
  await using proxy = await startProxy();
  await Promise.all(
    Array.from({ length: TUNNELS }, async (_, number) => {
      const socket = connect({ port: proxy.port, host: '127.0.0.1', allowHalfOpen: true });
      socket.write(`CONNECT 127.0.0.1:${port} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\n\r\n`);
      await new Promise(resolve => socket.once('readable', resolve));
      let head = '';
      while (!head.endsWith('\r\n\r\n')) head += String(socket.read(1) ?? '');
      expect(head).toMatch(/^HTTP\/1\.1 200 /);
      socket.write(Buffer.from([number]));
      received[TUNNELS + number] = receive(socket, number % 2 === 0);
      sent[number] = send(socket, BYTES, number + 100, false);
      await received[TUNNELS + number];
    }),
  );
  expect(await Promise.all(received)).toEqual(await Promise.all(sent));
  const counts = await Promise.all(Array.from({ length: TUNNELS }, (_, index) => proxy.exchange(index)));
  expect(counts.map(exchange => [exchange.bytesUp, exchange.bytesDown])).toEqual(counts.map(() => [BYTES + 1, BYTES]));
});

/** Reads a little every millisecond, slower than it is sent to: what the system holds on the way stays full. */
function sip(socket: Socket): Promise<string> {
  const hash = createHash('sha256');
  return new Promise(resolve => {
    const timer = setInterval(() => {
      const some = (socket.read(16 * 1024) ?? socket.read()) as Buffer | null;
      if (some !== null) hash.update(some);
    }, 1);
    socket.once('end', () => {
      clearInterval(timer);
      resolve(hash.digest('hex'));
    });
  });
}

// Pieces smaller than what a socket will queue, while the system holds all that it can: then a write says that there is room though its bytes still wait,
// and a buffer that was read into again too soon shows here.
test('a reader that is always behind gets every drop as it was', { timeout: 60_000 }, async () => {
  const BYTES = 24_000_000;
  let received: Promise<string>;
  await using origin = createServer(socket => {
    received = sip(socket);
  });
  await new Promise<void>(resolve => origin.listen(0, '127.0.0.1', resolve));
  const { port } = origin.address() as AddressInfo;
  await using proxy = await startProxy();
  const socket = connect({ port: proxy.port, host: '127.0.0.1' });
  socket.write(`CONNECT 127.0.0.1:${port} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\n\r\n`);
  await new Promise(resolve => socket.once('data', resolve));
  const sent = await send(socket, BYTES, 7, true);
  expect(await received!).toBe(sent);
  socket.destroy();
});
