// The bytes of a tunnel, by their hash: many at once, both ways, quick and slow readers, writes of every size.
import { createHash, randomBytes } from 'node:crypto';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { expect, test } from 'vitest';
import { startProxy } from '../../support/with-proxy.ts';

/** Writes random bytes in pieces of odd sizes with back-pressure; gives back their hash. */
async function send(socket: Socket, total: number, seed: number): Promise<string> {
  const hash = createHash('sha256');
  let state = seed;
  let left = total;
  while (left > 0) {
    state = (state * 1_103_515_245 + 12_345) & 0x7fffffff;
    // Mostly large pieces, and some of a few bytes.
    const size = Math.min(left, state % 5 === 0 ? 1 + (state % 700) : 20_000 + (state % 200_000));
    const piece = randomBytes(size);
    hash.update(piece);
    left -= size;
    if (!socket.write(piece)) await new Promise(resolve => socket.once('drain', resolve));
  }
  socket.end();
  return hash.digest('hex');
}

/** Reads to the end, with a pause now and then; gives back the hash. */
function receive(socket: Socket, slow: boolean): Promise<string> {
  const hash = createHash('sha256');
  return new Promise((resolve, reject) => {
    let reads = 0;
    socket.on('data', (chunk: Buffer) => {
      hash.update(chunk);
      if (slow && ++reads % 8 === 0) {
        socket.pause();
        setTimeout(() => socket.resume(), 2);
      }
    });
    socket.once('end', () => resolve(hash.digest('hex')));
    socket.once('error', reject);
  });
}

test('what goes into a tunnel comes out of it, whoever is slow', { timeout: 60_000 }, async () => {
  const TUNNELS = 24;
  const BYTES = 3_000_000;
  const sent: Promise<string>[] = [];
  const received: Promise<string>[] = [];
  let arrived = 0;
  await using origin = createServer({ allowHalfOpen: true }, socket => {
    const index = arrived++;
    // The first byte names the tunnel.
    socket.once('readable', () => {
      const [number] = socket.read(1) as Buffer;
      received[number!] = receive(socket, index % 2 === 0);
      sent[TUNNELS + number!] = send(socket, BYTES, index + 1);
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
      received[TUNNELS + number] = receive(socket, number % 3 === 0);
      sent[number] = send(socket, BYTES, number + 100);
      await received[TUNNELS + number];
    }),
  );
  expect(await Promise.all(received)).toEqual(await Promise.all(sent));
  const counts = await Promise.all(Array.from({ length: TUNNELS }, (_, index) => proxy.exchange(index)));
  expect(counts.map(exchange => [exchange.bytesUp, exchange.bytesDown])).toEqual(counts.map(() => [BYTES + 1, BYTES]));
});
