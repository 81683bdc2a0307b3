// One contract for the sockets of Node and the lean ones, connected and accepted; then what only the lean ones have.
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { connect, createServer, type Server, type Socket as NodeSocket } from 'node:net';
import { setTimeout as wait } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { acceptLean, connectLean, leanSockets } from '../../../companion/sockets/lean-socket.ts';
import { nodeSocket, type Socket } from '../../../companion/sockets/socket.ts';
import { readInto, shared } from '../../../companion/sockets/socket-reads.ts';

const KEEP_ALIVE_AFTER = 30_000;
const MiB = 1024 * 1024;

/** The socket under test, and a plain one at the other end. */
interface Pair extends AsyncDisposable {
  readonly socket: Socket;
  readonly peer: NodeSocket;
  /** What has been told, in order: 'end', 'finish', 'error CODE', 'close true'. */
  readonly told: string[];
  readonly closed: Promise<void>;
}

interface Kind {
  readonly name: string;
  readonly lean: boolean;
  readonly accepted: boolean;
}

const KINDS: readonly Kind[] = [true, false].flatMap(lean =>
  [true, false].map(accepted => ({
    name: `${lean ? 'a lean socket' : "a socket of Node's"}, ${accepted ? 'accepted' : 'connected'}`,
    lean,
    accepted,
  })),
);
const SERVED = KINDS.filter(({ lean }) => leanSockets || !lean);
const LEAN = SERVED.filter(({ lean }) => lean);

async function listening(server: Server): Promise<number> {
  await new Promise<void>(done => server.listen(0, '127.0.0.1', done));
  return (server.address() as { port: number }).port;
}

function connectAs(lean: boolean, port: number): Socket {
  return lean ? connectLean('127.0.0.1', port, KEEP_ALIVE_AFTER) : connect({ host: '127.0.0.1', port, noDelay: true });
}

function listenTo(socket: Socket): { told: string[]; closed: Promise<void> } {
  const told: string[] = [];
  socket.on('end', () => told.push('end'));
  socket.on('finish' as 'end', () => told.push('finish'));
  socket.on('error', (error: NodeJS.ErrnoException) => told.push(`error ${error.code ?? error.message}`));
  const closed = new Promise<void>(done => {
    socket.on('close', hadError => {
      told.push(`close ${String(hadError)}`);
      done();
    });
  });
  return { told, closed };
}

async function open({ lean, accepted }: Kind): Promise<Pair> {
  const server = createServer({ allowHalfOpen: true, noDelay: true, pauseOnConnect: !accepted });
  const port = await listening(server);
  const { promise: taken, resolve: take } = Promise.withResolvers<Socket>();
  server.on('connection', take);
  if (accepted && lean) acceptLean(server, take, () => false);
  let socket: Socket;
  let peer: NodeSocket;
  if (accepted) {
    peer = connect({ host: '127.0.0.1', port, allowHalfOpen: true, noDelay: true });
    await once(peer, 'connect');
    socket = await taken;
  } else {
    socket = connectAs(lean, port);
    await new Promise<void>(done => socket.once('connect', () => done()));
    peer = (await taken) as NodeSocket;
  }
  socket.allowHalfOpen = true;
  peer.on('error', () => {});
  return {
    socket,
    peer,
    ...listenTo(socket),
    async [Symbol.asyncDispose]() {
      socket.destroy();
      peer.destroy();
      await new Promise(done => server.close(done));
    },
  };
}

/** Bytes that no shift and no mix-up leaves as they were. */
const pattern = (length: number) => randomBytes(length);

const hash = (bytes: Buffer) => createHash('sha1').update(bytes).digest('hex');

/** All that comes until so many bytes have. */
function receive(socket: Socket, length: number): Promise<Buffer> {
  return new Promise(done => {
    const pieces: Buffer[] = [];
    let got = 0;
    const onData = (chunk: Buffer) => {
      pieces.push(chunk);
      got += chunk.length;
      if (got < length) return;
      socket.off('data', onData);
      done(Buffer.concat(pieces));
    };
    socket.on('data', onData);
    socket.resume();
  });
}

async function waitFor(what: () => boolean): Promise<void> {
  for (let i = 0; !what() && i < 1_000; i++) await wait(5);
  expect(what(), what.toString()).toBe(true);
}

/** Unlike Node's `once`, an error is nothing to it. */
function heard(socket: NodeSocket, event: 'end' | 'close'): Promise<void> {
  return new Promise(done => socket.once(event, () => done()));
}

/** What UpstreamConnection asks of its socket during an upload. */
function surviveWrites(socket: Socket): void {
  if ('survivesWrites' in socket) socket.survivesWrites = true;
  else {
    const inside = socket as unknown as Record<'_readableState' | '_writableState', { autoDestroy: boolean }>;
    inside._readableState.autoDestroy = inside._writableState.autoDestroy = false;
  }
}

/** So much that it cannot all be with the system while the other side does not read. */
const TOO_MUCH = 16 * MiB;

describe.each(SERVED)('$name', kind => {
  test('keeps every piece as it came, however many come after it', async () => {
    await using pair = await open(kind);
    const sent = pattern(3 * MiB);
    const received = receive(pair.socket, sent.length);
    for (let at = 0, size = 1; at < sent.length; at += size, size = (size * 7) % 90_001) {
      pair.peer.write(sent.subarray(at, at + size));
      if (size % 5 === 0) await wait(0);
    }
    expect(hash(await received)).toBe(hash(sent));
  });

  test('paused, it reads nothing and lets the other side wait; resumed, nothing is missing', async () => {
    await using pair = await open(kind);
    const { socket, peer } = pair;
    const sent = pattern(TOO_MUCH);
    const pieces: Buffer[] = [];
    let got = 0;
    let pausedAt = -1;
    socket.on('data', chunk => {
      pieces.push(chunk);
      got += chunk.length;
      if (got > MiB && pausedAt < 0) {
        socket.pause();
        pausedAt = got;
      }
    });
    peer.write(sent);
    await waitFor(() => pausedAt > 0);
    await wait(50);
    expect(got).toBe(pausedAt);
    expect(peer.writableLength).toBeGreaterThan(0);
    socket.resume();
    await waitFor(() => got === sent.length);
    expect(hash(Buffer.concat(pieces))).toBe(hash(sent));
  });

  test('paused before anything came, it does not tell of an end either', async () => {
    await using pair = await open(kind);
    const { socket, peer, told } = pair;
    socket.pause();
    socket.on('data', chunk => told.push(`data ${chunk.toString()}`));
    peer.end('all');
    await wait(30);
    expect(told).toEqual([]);
    socket.resume();
    await waitFor(() => told.length === 2);
    expect(told).toEqual(['data all', 'end']);
    expect(socket.readableEnded).toBe(true);
  });

  test('a writer that is told false hears of the drain, and a slow reader gets every byte', async () => {
    await using pair = await open(kind);
    const { socket, peer } = pair;
    const sent = pattern(TOO_MUCH);
    const sum = createHash('sha1');
    let got = 0;
    let waits = 0;
    peer.on('data', (chunk: Buffer) => {
      sum.update(chunk);
      got += chunk.length;
      if (got % 11 === 0) {
        peer.pause();
        setTimeout(() => peer.resume(), 1);
      }
    });
    peer.pause();
    setTimeout(() => peer.resume(), 50);
    for (let at = 0, size = 1; at < sent.length; at += size, size = (size * 13) % 200_003) {
      if (socket.write(sent.subarray(at, at + size))) continue;
      waits++;
      await new Promise<void>(done => socket.once('drain', () => done()));
      expect(socket.writableNeedDrain).toBe(false);
      expect(socket.writableLength).toBe(0);
    }
    expect(waits).toBeGreaterThan(0);
    await waitFor(() => got === sent.length);
    expect(sum.digest('hex')).toBe(hash(sent));
  });

  test('while bytes wait it says how many, and that a drain is to come', async () => {
    await using pair = await open(kind);
    const { socket, peer } = pair;
    let drains = 0;
    socket.on('drain', () => drains++);
    expect(socket.write(Buffer.alloc(TOO_MUCH))).toBe(false);
    expect(socket.writableNeedDrain).toBe(true);
    expect(socket.writableLength).toBeGreaterThan(0);
    expect(socket.write(Buffer.alloc(10))).toBe(false);
    peer.resume();
    await waitFor(() => drains > 0);
    expect([drains, socket.writableNeedDrain, socket.writableLength]).toEqual([1, false, 0]);
  });

  test('text is latin1, whichever way it is written', async () => {
    await using pair = await open(kind);
    const { socket, peer } = pair;
    let every = '';
    for (let i = 0; i < 256; i++) every += String.fromCharCode(i);
    const long = every.repeat(200);
    const received = receive(peer, 256 * (1 + 200 + 2 + 201) + 1);
    socket.write(every, 'latin1');
    socket.write(long, 'latin1');
    socket.cork();
    socket.write(every, 'latin1');
    socket.write(Buffer.from(every, 'latin1'));
    socket.uncork();
    socket.cork();
    socket.write(long, 'latin1');
    socket.write('', 'latin1');
    socket.write(Buffer.alloc(0));
    socket.write(every, 'latin1');
    socket.uncork();
    socket.end('\xff', 'latin1');
    expect(hash(await received)).toBe(
      hash(Buffer.from(`${every}${long}${every}${every}${long}${every}\xff`, 'latin1')),
    );
  });

  test('corked, nothing leaves until the last uncork, and then in order', async () => {
    await using pair = await open(kind);
    const { socket, peer } = pair;
    const heard: string[] = [];
    let came = '';
    peer.on('data', (chunk: Buffer) => (came += chunk.toString('latin1'))).resume();
    socket.cork();
    socket.write('1', 'latin1', () => heard.push('1'));
    socket.cork();
    socket.write(Buffer.from('2'), () => heard.push('2'));
    expect(socket.writableLength).toBe(2);
    socket.uncork();
    await wait(20);
    expect([came, heard]).toEqual(['', []]);
    socket.write('3', 'latin1', () => heard.push('3'));
    socket.uncork();
    socket.write('4', 'latin1', () => heard.push('4'));
    await waitFor(() => came.length === 4 && heard.length === 4);
    expect([came, heard, socket.writableLength]).toEqual(['1234', ['1', '2', '3', '4'], 0]);
  });

  test('an end says what is corked first', async () => {
    await using pair = await open(kind);
    const { socket, peer } = pair;
    const received = heard(peer, 'end');
    let came = '';
    peer.on('data', (chunk: Buffer) => (came += chunk.toString('latin1'))).resume();
    socket.cork();
    socket.cork();
    socket.write('last ', 'latin1');
    socket.end('words', 'latin1');
    await received;
    expect(came).toBe('last words');
    expect(socket.writable).toBe(false);
  });

  test("a write's callback comes when the bytes need nobody any more, and each once", async () => {
    await using pair = await open(kind);
    const { socket, peer } = pair;
    const heard: number[] = [];
    const bytes = Buffer.alloc(TOO_MUCH);
    socket.write(Buffer.alloc(1), () => heard.push(0));
    socket.write(bytes, () => heard.push(1));
    socket.write(Buffer.alloc(1), () => heard.push(2));
    await wait(20);
    expect(heard).toEqual([0]);
    peer.resume();
    await waitFor(() => heard.length === 3);
    expect(heard).toEqual([0, 1, 2]);
  });

  test('ends its own side behind all it has written, and reads on', async () => {
    await using pair = await open(kind);
    const { socket, peer, told, closed } = pair;
    const sent = pattern(TOO_MUCH);
    socket.write(sent);
    socket.end();
    expect(socket.writable).toBe(false);
    await wait(20);
    expect(told).toEqual([]);
    expect(hash(await receive(peer, sent.length))).toBe(hash(sent));
    await waitFor(() => told.length > 0);
    expect(told).toEqual(['finish']);
    let came = '';
    socket.on('data', chunk => (came += chunk.toString()));
    peer.write('still');
    await waitFor(() => came === 'still');
    peer.end(' here');
    await closed;
    expect([came, told]).toEqual(['still here', ['finish', 'end', 'close false']]);
    expect([socket.destroyed, socket.closed]).toEqual([true, true]);
  });

  test('goes on writing when the other side has ended', async () => {
    await using pair = await open(kind);
    const { socket, peer, told, closed } = pair;
    socket.resume();
    peer.end();
    await waitFor(() => told.length === 1);
    const sent = pattern(TOO_MUCH);
    const received = receive(peer, sent.length);
    socket.write(sent);
    socket.end();
    expect(hash(await received)).toBe(hash(sent));
    await closed;
    expect(told).toEqual(['end', 'finish', 'close false']);
  });

  test('without half-open ends, it ends with the other side, behind what it has written', async () => {
    await using pair = await open(kind);
    const { socket, peer, told, closed } = pair;
    socket.allowHalfOpen = false;
    const sent = pattern(TOO_MUCH);
    socket.write(sent);
    socket.resume();
    peer.end();
    await waitFor(() => told.includes('end'));
    expect(hash(await receive(peer, sent.length))).toBe(hash(sent));
    await closed;
    expect(told).toEqual(['end', 'finish', 'close false']);
  });

  test('a reset of the other side is ECONNRESET, told once', async () => {
    await using pair = await open(kind);
    const { socket, peer, told, closed } = pair;
    socket.resume();
    peer.resetAndDestroy();
    await closed;
    expect(told).toEqual(['error ECONNRESET', 'close true']);
    expect([socket.destroyed, socket.writable]).toEqual([true, false]);
  });

  test('resets, and tells of no error', async () => {
    await using pair = await open(kind);
    const { socket, peer, told, closed } = pair;
    peer.resume();
    const broken = heard(peer, 'close');
    const errors: unknown[] = [];
    peer.on('error', (error: NodeJS.ErrnoException) => errors.push(error.code));
    socket.resetAndDestroy();
    await closed;
    await broken;
    expect([told.at(-1), errors]).toEqual(['close false', ['ECONNRESET']]);
  });

  test('writing to one that is gone is an error, told once, and then the close', async () => {
    await using pair = await open(kind);
    const { socket, peer, told, closed } = pair;
    peer.resetAndDestroy();
    await wait(20);
    socket.write('into the void', 'latin1');
    socket.write('again', 'latin1');
    await closed;
    expect(told).toHaveLength(2);
    expect(told[0]).toMatch(/^error (?:ECONNRESET|EPIPE)$/);
    expect(told[1]).toBe('close true');
  });

  test('what waits to be written when the other side resets is given up, and its callbacks come', async () => {
    await using pair = await open(kind);
    const { socket, peer, told, closed } = pair;
    let heard = 0;
    socket.write(Buffer.alloc(TOO_MUCH), () => heard++);
    socket.write(Buffer.alloc(TOO_MUCH), () => heard++);
    peer.resetAndDestroy();
    await closed;
    await waitFor(() => heard === 2);
    expect(told).toHaveLength(2);
  });

  test.skipIf(process.platform !== 'linux')(
    'asked to survive a failing write, it still reads what had come before, and tells of one error',
    async () => {
      await using pair = await open(kind);
      const { socket, peer, told, closed } = pair;
      let came = '';
      readInto(
        socket,
        (count, buffer) => {
          came += buffer.toString('latin1', 0, count);
          return true;
        },
        () => shared,
      );
      socket.pause();
      surviveWrites(socket);
      peer.write('no, thanks');
      await wait(20);
      peer.resetAndDestroy();
      await wait(20);
      socket.write('body', 'latin1');
      await waitFor(() => told.length > 0);
      expect(told[0]).toMatch(/^error (?:ECONNRESET|EPIPE)$/);
      expect([socket.destroyed, socket.closed]).toEqual([false, false]);
      socket.resume();
      await waitFor(() => came === 'no, thanks');
      await wait(10);
      socket.destroy();
      await closed;
      expect(told.filter(one => one.startsWith('error'))).toHaveLength(1);
    },
  );

  test.each(['data', 'end', 'drain', 'callback'] as const)(
    'closed within %s it tells of nothing but the close',
    async when => {
      await using pair = await open(kind);
      const { socket, peer, told, closed } = pair;
      const close = () => {
        told.length = 0;
        socket.destroy();
        expect([socket.destroyed, socket.writable]).toEqual([true, false]);
      };
      if (when === 'data') {
        socket.on('data', () => {
          told.push('data');
          close();
        });
        peer.write(Buffer.alloc(MiB));
      } else if (when === 'end') {
        socket.on('end', close);
        socket.resume();
        peer.end();
      } else {
        peer.resume();
        if (when === 'drain') socket.on('drain', close);
        socket.write(Buffer.alloc(TOO_MUCH), when === 'callback' ? close : () => {});
      }
      await closed;
      await wait(20);
      expect(told).toEqual(['close false']);
    },
  );

  test('closed with an error it tells of it, then of the close, later and once', async () => {
    await using pair = await open(kind);
    const { socket, told, closed } = pair;
    socket.destroy(new Error('enough'));
    socket.destroy(new Error('more'));
    expect(told).toEqual([]);
    await closed;
    await wait(10);
    expect(told).toEqual(['error enough', 'close true']);
  });

  test('may be closed, ended, paused and resumed when it is closed', async () => {
    await using pair = await open(kind);
    const { socket, told, closed } = pair;
    socket.destroy();
    await closed;
    socket.cork();
    socket.uncork();
    socket.pause();
    socket.resume();
    socket.end();
    socket.setNoDelay(true);
    socket.destroy();
    await wait(10);
    expect(told).toEqual(['close false']);
  });

  test('knows both ends', async () => {
    await using pair = await open(kind);
    const { socket, peer } = pair;
    expect([socket.remoteAddress, socket.localAddress]).toEqual(['127.0.0.1', '127.0.0.1']);
    expect([socket.remotePort, socket.localPort]).toEqual([peer.localPort, peer.remotePort]);
  });

  test('both ways at once, nothing is lost', async () => {
    await using pair = await open(kind);
    const { socket, peer, closed } = pair;
    const [up, down] = [pattern(8 * MiB), pattern(8 * MiB)];
    const both = [receive(socket, up.length), receive(peer, down.length)];
    peer.end(up);
    for (let at = 0; at < down.length; at += 70_001) socket.write(down.subarray(at, at + 70_001));
    socket.end();
    const [gotUp, gotDown] = await Promise.all(both);
    expect([hash(gotUp!), hash(gotDown!)]).toEqual([hash(up), hash(down)]);
    await closed;
  });
});

describe.each(SERVED.filter(({ accepted }) => !accepted))('$name: connecting', ({ lean }) => {
  test('to nobody is ECONNREFUSED, told once, and then the close', async () => {
    const server = createServer();
    const port = await listening(server);
    await new Promise(done => server.close(done));
    const socket = connectAs(lean, port);
    const { told, closed } = listenTo(socket);
    socket.write('early', 'latin1');
    await closed;
    expect(told).toEqual(['error ECONNREFUSED', 'close true']);
    expect(socket.destroyed).toBe(true);
  });

  test('closed before it stands, it tells of the close alone', async () => {
    await using server = createServer(one => one.on('error', () => {}).resume());
    const port = await listening(server);
    const socket = connectAs(lean, port);
    const { told, closed } = listenTo(socket);
    socket.on('connect', () => told.push('connect'));
    socket.destroy();
    await closed;
    await wait(20);
    expect(told).toEqual(['close false']);
  });

  test('closed as soon as it stands, it tells of nothing more', async () => {
    await using server = createServer(one => one.on('error', () => {}).end('hello'));
    const port = await listening(server);
    const socket = connectAs(lean, port);
    const { told, closed } = listenTo(socket);
    socket.on('data', () => told.push('data'));
    socket.on('connect', () => socket.destroy());
    await closed;
    await wait(20);
    expect(told).toEqual(['close false']);
  });

  test('what is written, and the end, wait until it stands', async () => {
    await using server = createServer({ allowHalfOpen: true });
    const port = await listening(server);
    const sent = pattern(2 * MiB);
    const socket = connectAs(lean, port);
    const { told, closed } = listenTo(socket);
    let heard = 0;
    let drained = false;
    socket.on('drain', () => (drained = true));
    expect(socket.write('head', 'latin1', () => heard++)).toBe(true);
    expect(socket.write(sent, () => heard++)).toBe(false);
    const [peer] = (await once(server, 'connection')) as [NodeSocket];
    expect(hash(await receive(peer, 4 + sent.length))).toBe(hash(Buffer.concat([Buffer.from('head'), sent])));
    await waitFor(() => drained && heard === 2);
    socket.end('bye', 'latin1');
    expect((await receive(peer, 3)).toString()).toBe('bye');
    socket.resume();
    peer.end();
    await closed;
    expect(told).toEqual(expect.arrayContaining(['finish', 'end', 'close false']));
  });

  test('ended before it stands, it still says what was written', async () => {
    await using server = createServer({ allowHalfOpen: true });
    const port = await listening(server);
    const socket = connectAs(lean, port);
    const { closed } = listenTo(socket);
    socket.write('a', 'latin1');
    socket.end('b', 'latin1');
    const [peer] = (await once(server, 'connection')) as [NodeSocket];
    let came = '';
    peer.on('data', (chunk: Buffer) => (came += chunk.toString()));
    await heard(peer, 'end');
    expect(came).toBe('ab');
    socket.resume();
    peer.end();
    await closed;
  });
});

describe.each(LEAN)('$name: only there', kind => {
  test('an error that nobody listens to ends nothing but the socket', async () => {
    await using pair = await open(kind);
    const { socket, peer, closed } = pair;
    (socket as unknown as NodeJS.EventEmitter).removeAllListeners('error');
    socket.resume();
    peer.resetAndDestroy();
    await closed;
    expect(socket.closed).toBe(true);
  });

  test('a write behind the end is not taken, and breaks nothing', async () => {
    await using pair = await open(kind);
    const { socket, told } = pair;
    socket.end();
    expect(socket.write('too late', 'latin1')).toBe(false);
    await waitFor(() => told.length > 0);
    expect(told).toEqual(['finish']);
  });

  test.each(['before the end', 'with an end that waits', 'with the end said'])(
    'resets at once, though much waits to be written: %s',
    async when => {
      await using pair = await open(kind);
      const { socket, peer, told, closed } = pair;
      if (when !== 'with the end said') socket.write(Buffer.alloc(TOO_MUCH));
      if (when !== 'before the end') socket.end();
      await wait(10);
      socket.resetAndDestroy();
      await closed;
      expect(told.at(-1)).toBe('close false');
      // Behind an end nobody hears of a reset.
      if (when === 'with the end said') return;
      const errors: unknown[] = [];
      peer.on('error', (error: NodeJS.ErrnoException) => errors.push(error.code));
      peer.resume();
      await heard(peer, 'close');
      expect(errors).toEqual(['ECONNRESET']);
    },
  );

  test('resets in the very moment of its end', async () => {
    await using pair = await open(kind);
    const { socket, told, closed } = pair;
    socket.end();
    socket.resetAndDestroy();
    await closed;
    expect(told.at(-1)).toBe('close false');
  });

  test.each([false, true])(
    "becomes one of Node's in the middle of a stream, with nothing lost; read with a buffer of its own: %s",
    async ofItsOwn => {
      await using pair = await open(kind);
      const { socket, peer, closed } = pair;
      const sent = pattern(8 * MiB);
      const sum = createHash('sha1');
      let got = 0;
      const take = (bytes: Buffer) => {
        sum.update(bytes);
        got += bytes.length;
      };
      let after: NodeSocket | null = null;
      const change = () => {
        after = nodeSocket(socket);
        after.on('data', take);
        after.on('error', () => {});
        after.resume();
      };
      if (ofItsOwn) {
        const mine = Buffer.alloc(64 * 1024);
        const onRead = (count: number, buffer: Buffer) => {
          take(buffer.subarray(0, count));
          if (got > MiB && after === null) change();
          return true;
        };
        // By turns, so that the change comes between two buffers.
        let turn = 0;
        readInto(socket, onRead, () => (turn++ % 2 === 0 ? mine : shared));
        socket.resume();
      } else {
        socket.on('data', chunk => {
          take(chunk);
          if (got > MiB && after === null) change();
        });
      }
      for (let at = 0; at < sent.length; at += 50_021) {
        peer.write(sent.subarray(at, at + 50_021));
        if (at % 3 === 0) await wait(0);
      }
      await waitFor(() => got === sent.length);
      expect(sum.digest('hex')).toBe(hash(sent));
      expect(socket.closed).toBe(false);
      peer.end();
      after!.end();
      await closed;
    },
  );

  test("become one of Node's, what it had written and held comes first, and its end stays its end", async () => {
    await using pair = await open(kind);
    const { socket, peer, closed } = pair;
    const sent = pattern(TOO_MUCH);
    const received = receive(peer, sent.length + 2);
    socket.write(sent);
    socket.cork();
    socket.write('!', 'latin1');
    const after = nodeSocket(socket);
    after.end('?');
    const ended = heard(peer, 'end');
    expect(hash(await received)).toBe(hash(Buffer.concat([sent, Buffer.from('!?')])));
    peer.resume();
    await ended;
    after.resume();
    peer.end();
    await closed;
    expect([socket.destroyed, socket.closed]).toEqual([true, true]);
  });

  test("become one of Node's after both ends, it closes", async () => {
    await using pair = await open(kind);
    const { socket, peer, told, closed } = pair;
    socket.write(Buffer.alloc(TOO_MUCH));
    socket.end();
    socket.resume();
    peer.end();
    await waitFor(() => told.includes('end'));
    const after = nodeSocket(socket);
    after.resume();
    peer.resume();
    await closed;
  });

  test("become one of Node's, it is closed and reset through it", async () => {
    for (const how of ['destroy', 'resetAndDestroy'] as const) {
      await using pair = await open(kind);
      const { socket, peer, closed } = pair;
      const after = nodeSocket(socket);
      after.on('error', () => {});
      const errors: unknown[] = [];
      peer.on('error', (error: NodeJS.ErrnoException) => errors.push(error.code)).resume();
      const gone = heard(peer, how === 'destroy' ? 'end' : 'close');
      socket[how]();
      await closed;
      await gone;
      expect([after.destroyed, errors]).toEqual([true, how === 'destroy' ? [] : ['ECONNRESET']]);
    }
  });

  test('closed already, it becomes a closed one', async () => {
    await using pair = await open(kind);
    pair.socket.destroy();
    expect(nodeSocket(pair.socket).destroyed).toBe(true);
    await pair.closed;
  });
});

test.skipIf(!leanSockets)('lean sockets leave no handle behind, however they go', async () => {
  const open = () => process.getActiveResourcesInfo().filter(one => /^(?:TCP|Shutdown|Write)/.test(one)).length;
  const before = open();
  {
    const server = createServer({ allowHalfOpen: true });
    const port = await listening(server);
    const accepted: Socket[] = [];
    acceptLean(
      server,
      socket => {
        accepted.push(socket);
        socket.resume();
      },
      () => false,
    );
    const ways: ((socket: Socket) => unknown)[] = [
      socket => socket.destroy(),
      socket => socket.end().resume(),
      socket => socket.resetAndDestroy(),
      socket => socket.end(Buffer.alloc(4 * MiB)).resetAndDestroy(),
      socket => socket.end(Buffer.alloc(4 * MiB)).destroy(),
      socket => socket.destroy(new Error('enough')),
      socket =>
        nodeSocket(socket)
          .on('error', () => {})
          .destroy(),
    ];
    for (let round = 0; round < 70; round++) {
      const way = ways[round % ways.length]!;
      const socket = connectLean('127.0.0.1', port, KEEP_ALIVE_AFTER);
      if (round % 3 === 0) way(socket);
      else socket.once('connect', () => way(socket));
    }
    await wait(100);
    for (const socket of accepted) socket.destroy();
    await new Promise(done => server.close(done));
  }
  await waitFor(() => open() <= before);
});
