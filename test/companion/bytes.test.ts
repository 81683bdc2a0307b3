// Every way that bytes take through the whole companion, all at once, each byte checked. Reads go into memory that all sockets share, so what must
// never happen is that one exchange gets the bytes of another: each body says in every block whose it is, and where in it.
// Runs twice: with lean sockets, and (vitest.config.ts) with Node's own.
import { createServer as createHttpServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { setTimeout as wait } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { connectRaw, type RawClient } from '../support/raw-client.ts';
import { startTestCompanion } from '../support/with-companion.ts';

/** Around what a read, a write and a chunk hold; and far beyond. */
const SIZES = [0, 1, 17, 1_023, 4_097, 8_192, 8_193, 16_383, 16_385, 65_535, 65_537, 131_072, 300_007, 1_000_003];
const DEADLINE = 20_000;
/** Pieces that a body is written in. */
const PIECES = [1, 700, 20_000, 65_536, 3, 120_001, 16_384, 9_000];

let lastId = 0;
const newId = () => ++lastId;

/** The body of that number: blocks of sixteen bytes, each with the number and its own. */
function bodyOf(id: number, size: number): Buffer {
  const body = Buffer.allocUnsafe(size);
  for (let at = 0; at < size; at += 16) {
    body.write(`${String(id).padStart(6, '0')}:${String(at / 16).padStart(8, '0')}\n`, at, 'latin1');
  }
  return body;
}

/** '' where it is the body of that number, else where it is not and whose it is there. */
function difference(body: Buffer, id: number, size: number): string {
  const expected = bodyOf(id, size);
  if (body.equals(expected)) return '';
  let at = 0;
  while (at < body.length && body[at] === expected[at]) at++;
  return `body ${id}: ${body.length} of ${size} bytes, other at ${at}: ${JSON.stringify(body.toString('latin1', at, at + 40))}`;
}

function* piecesOf(body: Buffer, seed: number): Generator<Buffer> {
  for (let at = 0, turn = seed; at < body.length; turn++) {
    const end = at + PIECES[turn % PIECES.length]!;
    yield body.subarray(at, end);
    at = end;
  }
}

/** Writes in pieces, with back-pressure; some of them late. */
async function writePieces(to: Socket | ServerResponse, body: Buffer, seed: number): Promise<void> {
  let turn = 0;
  for (const piece of piecesOf(body, seed)) {
    if (to.destroyed) return;
    if (!to.write(piece)) await new Promise<void>(done => to.once('drain', () => done()).once('close', () => done()));
    if (++turn % 4 === seed % 4) await wait(1);
  }
}

async function collect(from: AsyncIterable<unknown>): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of from) pieces.push(piece as Buffer);
  return Buffer.concat(pieces);
}

/** GET /id/size/framing gives that body; POST /id/size says whether that body came; POST /echo gives back what comes, as it comes. */
async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const url = new URL(request.url!, 'http://origin');
  const [first, second, framing] = url.pathname.split('/').slice(1) as [string, string, string];
  const [id, size] = [Number(first), Number(second)];
  response.setHeader('Cache-Control', url.search === '?kept' ? 'max-age=600' : 'no-store');
  if (request.method === 'GET') {
    const body = bodyOf(id, size);
    response.setHeader('X-Id', id);
    if (framing === 'length') response.setHeader('Content-Length', size);
    if (framing === 'close') response.useChunkedEncodingByDefault = response.shouldKeepAlive = false;
    if (framing === 'whole') return void response.end(body);
    await writePieces(response, body, id);
    response.end();
  } else if (first === 'echo') {
    for await (const piece of request) {
      if (!response.write(piece)) await new Promise<void>(done => response.once('drain', done).once('close', done));
    }
    response.end();
  } else response.end(difference(await collect(request), id, size));
}

async function startOrigin() {
  const failures: unknown[] = [];
  const server = createHttpServer((request, response) => {
    answer(request, response).catch((error: unknown) => failures.push(error));
  });
  server.on('upgrade', (request, socket, head) => {
    socket.on('error', () => {});
    const id = Number(request.url!.slice(1));
    const early = bodyOf(id, 1_000);
    socket.write(`HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n`);
    socket.write(early);
    if (head.length > 0) socket.write(head);
    socket.pipe(socket);
  });
  await new Promise<void>(done => server.listen(0, '127.0.0.1', done));
  return {
    port: (server.address() as AddressInfo).port,
    failures,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise(done => server.close(done));
    },
  };
}

async function startEcho() {
  const open = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, socket => {
    open.add(socket);
    socket.on('error', () => {});
    socket.pipe(socket);
  });
  await new Promise<void>(done => server.listen(0, '127.0.0.1', done));
  return {
    port: (server.address() as AddressInfo).port,
    async [Symbol.asyncDispose]() {
      for (const socket of open) socket.destroy();
      await new Promise(done => server.close(done));
    },
  };
}

/** Asked for a number, it gives that body in drops too small for a buffer of their own, until nothing goes any more, and then some; then it ends. */
async function startDripping() {
  const open = new Set<Socket>();
  /** By number: how long the body is, once nothing goes any more. */
  const full = new Map<number, number>();
  const drip = async (socket: Socket, id: number) => {
    const body = bodyOf(id, 24_000_000);
    let end = body.length;
    for (let at = 0; at < end && !socket.destroyed; at += 4_096) {
      if (!socket.write(body.subarray(at, Math.min(end, at + 4_096)))) {
        if (!full.has(id)) full.set(id, (end = at + 200_000));
        await new Promise<void>(done => socket.once('drain', done).once('close', done));
      }
      await new Promise(done => setImmediate(done));
    }
    // A system that takes all of it.
    if (!full.has(id)) full.set(id, end);
    socket.end();
  };
  const server = createServer({ noDelay: true }, socket => {
    open.add(socket);
    socket.on('error', () => {});
    socket.once('data', (asked: Buffer) => void drip(socket, Number(asked.toString())));
  });
  await new Promise<void>(done => server.listen(0, '127.0.0.1', done));
  return {
    port: (server.address() as AddressInfo).port,
    full,
    async [Symbol.asyncDispose]() {
      for (const socket of open) socket.destroy();
      await new Promise(done => server.close(done));
    },
  };
}

/** Reads with pauses, so that what is on its way fills up. */
function readSlowly(client: RawClient): void {
  let pauses = 0;
  client.socket.on('data', () => {
    if (pauses++ % 8 !== 0 || pauses > 60) return;
    client.socket.pause();
    setTimeout(() => client.socket.resume(), 5);
  });
}

/** Sends a body over a connection that gives all of it back, and says how what came differs. */
async function echoed(client: RawClient, id: number, size: number, already = 0): Promise<string> {
  const body = bodyOf(id, size);
  const [, back] = await Promise.all([
    writePieces(client.socket, body.subarray(already), id).then(() => client.end()),
    client.readAll(DEADLINE),
  ]);
  return difference(back, id, size);
}

test(
  'whatever comes through, and however much of it at once, comes as it was sent and to whom it was meant',
  {
    timeout: 60_000,
  },
  async () => {
    await using origin = await startOrigin();
    await using echo = await startEcho();
    await using dripping = await startDripping();
    await using companion = await startTestCompanion();
    const { port } = companion;
    const base = `http://127.0.0.1:${origin.port}`;
    const host = `Host: 127.0.0.1:${origin.port}\r\n`;

    const download = async (client: RawClient, id: number, size: number, framing: string) => {
      client.write(`GET ${base}/${id}/${size}/${framing} HTTP/1.1\r\n${host}\r\n`);
      const { status, headers, body } = await client.readAnswer('GET', DEADLINE);
      return status === 200 && headers['x-id'] === String(id) ? difference(body, id, size) : `${id}: ${status}`;
    };
    const upload = async (client: RawClient, id: number, size: number, framing: string) => {
      const body = bodyOf(id, size);
      const head = `POST ${base}/${id}/${size} HTTP/1.1\r\n${host}`;
      if (framing === 'length') {
        client.write(`${head}Content-Length: ${size}\r\n\r\n`);
        await writePieces(client.socket, body, id);
      } else {
        client.write(`${head}Transfer-Encoding: chunked\r\n\r\n`);
        for (const piece of piecesOf(body, id)) {
          client.write(`${piece.length.toString(16)}\r\n`);
          client.write(piece);
          client.write('\r\n');
          if (piece.length < 100) await wait(1);
        }
        client.write('0\r\n\r\n');
      }
      const { status, text } = await client.readAnswer('POST', DEADLINE);
      return status === 200 ? text : `${id}: ${status} ${text}`;
    };

    /** One connection, many requests, one after the other. */
    const talk = async (number: number): Promise<string[]> => {
      await using client = await connectRaw(port);
      if (number % 3 === 0) readSlowly(client);
      const found: string[] = [];
      for (let turn = 0; turn < 8; turn++) {
        const size = SIZES[(number * 5 + turn * 3) % SIZES.length]!;
        const framing = ['length', 'chunked', 'close', 'whole'][(number + turn) % 4]!;
        if ((number + turn) % 2 === 0) found.push(await download(client, newId(), size, framing));
        else found.push(await upload(client, newId(), size, number % 4 < 2 ? 'length' : 'chunked'));
      }
      return found;
    };

    /** A body that goes up and comes down at the same time. */
    const goRound = async (number: number): Promise<string> => {
      await using client = await connectRaw(port);
      if (number % 2 === 0) readSlowly(client);
      const [id, size] = [newId(), 600_000 + number];
      client.write(`POST ${base}/echo HTTP/1.1\r\n${host}Content-Length: ${size}\r\n\r\n`);
      const [answered] = await Promise.all([
        client.readAnswer('POST', DEADLINE),
        writePieces(client.socket, bodyOf(id, size), id),
      ]);
      return difference(answered.body, id, size);
    };

    /** Many requests in one go, cut anywhere; their answers in the same order. */
    const pipeline = async (number: number): Promise<string[]> => {
      await using client = await connectRaw(port);
      const wanted: { id: number; size: number; up: boolean }[] = [];
      let all = Buffer.alloc(0);
      for (let turn = 0; turn < 14; turn++) {
        const one = { id: newId(), size: SIZES[(number + turn * 3) % 10]!, up: (number + turn) % 3 === 0 };
        wanted.push(one);
        const { id, size, up } = one;
        const head = up
          ? `POST ${base}/${id}/${size} HTTP/1.1\r\n${host}Content-Length: ${size}\r\n\r\n`
          : `GET ${base}/${id}/${size}/${turn % 2 === 0 ? 'length' : 'chunked'} HTTP/1.1\r\n${host}\r\n`;
        all = Buffer.concat([all, Buffer.from(head), up ? bodyOf(id, size) : Buffer.alloc(0)]);
      }
      const cut = [97, 1_461, 40_000, 66_000][number % 4]!;
      const writing = (async () => {
        for (let at = 0, turn = 0; at < all.length; at += cut, turn++) {
          client.write(all.subarray(at, at + cut));
          if (turn % 20 === 19) await wait(1);
        }
      })();
      const found: string[] = [];
      for (const { id, size, up } of wanted) {
        const { status, body, text } = await client.readAnswer('GET', DEADLINE);
        found.push(status !== 200 ? `${id}: ${status}` : up ? text : difference(body, id, size));
      }
      await writing;
      return found;
    };

    const echoPort = Buffer.from([echo.port >> 8, echo.port & 255]);
    /** What a client says for a tunnel, and how long the yes is. */
    const WAYS: readonly [name: string, hello: Buffer, yes: RegExp, length: number][] = [
      ['CONNECT', Buffer.from(`CONNECT 127.0.0.1:${echo.port} HTTP/1.1\r\nHost: x\r\n\r\n`), /^HTTP\/1\.1 200 /, 0],
      ['SOCKS5', Buffer.from([5, 1, 0, 5, 1, 0, 1, 127, 0, 0, 1, ...echoPort]), /^\x05\x00\x05\x00/, 12],
      ['SOCKS4', Buffer.from([4, 1, ...echoPort, 127, 0, 0, 1, 65, 0]), /^\0Z/, 8],
      [
        'SOCKS4a',
        Buffer.concat([Buffer.from([4, 1, ...echoPort, 0, 0, 0, 1, 0]), Buffer.from('origin.test\0')]),
        /^\0Z/,
        8,
      ],
    ];
    /** A tunnel, with its first bytes right behind the asking for it, and all of that cut anywhere. */
    const dig = async (number: number): Promise<string> => {
      const [name, hello, yes, length] = WAYS[number % WAYS.length]!;
      await using client = await connectRaw(port);
      if (number % 3 === 0) readSlowly(client);
      const [id, size] = [newId(), 900_000 + number];
      const early = number % 2 === 0 ? 5_000 : 0;
      const first = Buffer.concat([hello, bodyOf(id, size).subarray(0, early)]);
      const cut = [3, 7, 1_000_000][number % 3]!;
      for (let at = 0; at < first.length; at += at < 60 ? cut : 1_000_000) {
        client.write(first.subarray(at, at < 60 ? at + cut : undefined));
        if (at < 60) await wait(1);
      }
      const said =
        name === 'CONNECT' ? await client.readUntil('\r\n\r\n') : (await client.read(length)).toString('latin1');
      if (!yes.test(said)) return `${name}: ${JSON.stringify(said)}`;
      return await echoed(client, id, size, early);
    };

    const upgrade = async (number: number): Promise<string> => {
      await using client = await connectRaw(port);
      const [greeting, id, size] = [newId(), newId(), 400_000 + number];
      client.write(`GET ${base}/${greeting} HTTP/1.1\r\n${host}Connection: Upgrade\r\nUpgrade: echo\r\n\r\n`);
      const early = number % 2 === 0 ? 3_000 : 0;
      if (early > 0) client.write(bodyOf(id, size).subarray(0, early));
      const head = await client.readUntil('\r\n\r\n');
      if (!head.startsWith('HTTP/1.1 101 ')) return head;
      const greeted = difference(await client.read(1_000), greeting, 1_000);
      return greeted === '' ? await echoed(client, id, size, early) : greeted;
    };

    /** A reader that stands still while drops come, so that the last of them waits in the companion. */
    const standStill = async (): Promise<string> => {
      await using client = await connectRaw(port);
      client.write(`CONNECT 127.0.0.1:${dripping.port} HTTP/1.1\r\nHost: x\r\n\r\n`);
      await client.readUntil('\r\n\r\n');
      const id = newId();
      client.socket.pause();
      client.write(`${id}`);
      const until = Date.now() + DEADLINE;
      while (!dripping.full.has(id) && Date.now() < until) await wait(5);
      const { socket } = client;
      socket.removeAllListeners('data');
      return difference(await collect(socket), id, dripping.full.get(id)!);
    };

    /** What the cache has kept is still what it was when much else has been read. */
    const kept = SIZES.map(size => ({ id: newId(), size }));
    const fetchKept = async (status: string): Promise<string[]> =>
      Promise.all(
        kept.map(async ({ id, size }) => {
          await using client = await connectRaw(port);
          client.write(`GET ${base}/${id}/${size}/chunked?kept HTTP/1.1\r\n${host}\r\n`);
          const { body, headers } = await client.readAnswer('GET', DEADLINE);
          if (!headers['cache-status']?.includes(status)) return `${id}: ${headers['cache-status']}`;
          return difference(body, id, size);
        }),
      );

    const times = (count: number, work: (number: number) => Promise<string | string[]>) =>
      Array.from({ length: count }, async (_, number) => {
        try {
          return await work(number);
        } catch (error) {
          return `${work.name} ${number}: ${(error as Error).message}`;
        }
      });
    const found = await fetchKept('stored');
    const rounds = await Promise.all([
      ...times(24, talk),
      ...times(8, pipeline),
      ...times(6, goRound),
      ...times(12, dig),
      ...times(6, upgrade),
      ...times(4, standStill),
    ]);
    found.push(...rounds.flat(), ...(await fetchKept('hit')));
    expect(found.filter(one => one !== '')).toEqual([]);
    expect(found).toHaveLength(2 * SIZES.length + 24 * 8 + 8 * 14 + 6 + 12 + 6 + 4);
    expect(origin.failures).toEqual([]);
  },
);

test('what a client sends behind a request that is still worked on is read on, however much it is', async () => {
  const { promise: released, resolve: release } = Promise.withResolvers<void>();
  const lengths: number[] = [];
  await using companion = await startTestCompanion();
  const server = createHttpServer((request, response) => {
    void (async () => {
      lengths.push((await collect(request)).length);
      if (request.method === 'GET') await released;
      response.end('done');
    })();
  });
  await new Promise<void>(done => server.listen(0, '127.0.0.1', done));
  try {
    const { port } = server.address() as AddressInfo;
    const size = 300_000;
    await using client = await connectRaw(companion.port);
    client.write(`GET http://127.0.0.1:${port}/ HTTP/1.1\r\nHost: x\r\n\r\n`);
    client.write(`POST http://127.0.0.1:${port}/ HTTP/1.1\r\nHost: x\r\nContent-Length: ${size}\r\n\r\n`);
    client.write(bodyOf(1, size));
    await wait(100);
    release();
    expect((await client.readAnswer()).text).toBe('done');
    expect((await client.readAnswer()).text).toBe('done');
    expect(lengths).toEqual([0, size]);
  } finally {
    server.closeAllConnections();
    server.close();
  }
});

test.skipIf(process.platform !== 'linux')(
  'a server that refuses an upload half-way and resets is heard, on a socket that the companion has dialled',
  async () => {
    await using companion = await startTestCompanion();
    const server = createServer(socket => {
      socket.on('error', () => {});
      socket.once('data', () => {
        socket.pause();
        // Bytes that it has not read make its close a reset.
        setTimeout(() => {
          socket.write('HTTP/1.1 413 Too Much\r\nContent-Length: 4\r\nConnection: close\r\n\r\nstop', () =>
            socket.destroy(),
          );
        }, 20);
      });
    });
    await new Promise<void>(done => server.listen(0, '127.0.0.1', done));
    try {
      const { port } = server.address() as AddressInfo;
      for (let turn = 0; turn < 10; turn++) {
        await using client = await connectRaw(companion.port);
        client.write(`POST http://127.0.0.1:${port}/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n`);
        const chunk = Buffer.concat([Buffer.from('10000\r\n'), Buffer.alloc(65_536), Buffer.from('\r\n')]);
        const writing = setInterval(() => client.socket.destroyed || client.write(chunk), 1);
        try {
          const answer = await client.readAnswer('POST');
          expect([answer.status, answer.text]).toEqual([413, 'stop']);
        } finally {
          clearInterval(writing);
        }
      }
    } finally {
      server.close();
    }
  },
);
