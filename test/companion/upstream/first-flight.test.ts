// Where a ClientHello ends, however it is cut into records and reads.
import { Duplex } from 'node:stream';
import { connect } from 'node:tls';
import { connect as connectTcp } from 'node:net';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Deadlines } from '../../../companion/message/deadlines.ts';
import { FirstFlight, readHello } from '../../../companion/upstream/first-flight.ts';
import { startRawOrigin } from '../../support/origin.ts';

/** A hello of so many bytes, cut into records of these sizes. */
function helloOf(size: number, cuts: readonly number[]): Buffer {
  const message = Buffer.alloc(4 + size, 9);
  message[0] = 1;
  message.writeUIntBE(size, 1, 3);
  const records: Buffer[] = [];
  let at = 0;
  for (const cut of [...cuts, message.length]) {
    const piece = message.subarray(at, Math.min(message.length, at + cut));
    at += piece.length;
    if (piece.length > 0)
      for (let i = 0; i < piece.length; i += 16_384) {
        const part = piece.subarray(i, i + 16_384);
        records.push(Buffer.from([0x16, 3, 1, part.length >> 8, part.length & 255]), part);
      }
  }
  return Buffer.concat(records);
}

test('property: it is whole with its last byte, and neither before nor behind it', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 3_000 }),
      fc.array(fc.integer({ min: 1, max: 2_000 }), { maxLength: 4 }),
      fc.nat(),
      (size, cuts, where) => {
        const hello = helloOf(size, cuts);
        expect(readHello(hello)).toBe('whole');
        expect(readHello(hello.subarray(0, where % hello.length))).toBe('more');
        expect(readHello(Buffer.concat([hello, Buffer.from([0x17])]))).toBe('no');
      },
    ),
  );
});

test.each([
  ['http', Buffer.from('GET / HTTP/1.1\r\n')],
  ['SSH', Buffer.from('SSH-2.0-x')],
  ['another message of the handshake', Buffer.from('160301000802000004aaaaaaaa', 'hex')],
  ['an empty record', Buffer.from('1603010000', 'hex')],
  ['a record that is too long', Buffer.from('160301ffff', 'hex')],
  ['a message that is too long', Buffer.from('160301000801ffffffaaaaaaaa', 'hex')],
  ['a message that ends within its record', Buffer.from('160301000801000002aaaaaaaa', 'hex')],
])('%s is none', (_, bytes) => {
  expect(readHello(bytes)).toBe('no');
});

test("that of Node's own TLS", async () => {
  const first = await new Promise<Buffer>(resolve => {
    const duplex = new Duplex({ read() {}, write: (chunk: Buffer, _, done) => (resolve(chunk), done()) });
    connect({ socket: duplex, servername: 'site.test' }).on('error', () => {});
  });
  expect(readHello(first)).toBe('whole');
});

describe('silence', () => {
  const connected = async (port: number) => {
    const socket = connectTcp({ port, host: '127.0.0.1' });
    await new Promise(resolve => socket.once('connect', resolve));
    return socket;
  };

  test('is a failure after the hello, which the next hears whole, and the silent one still stands; before it the client is waited for', async () => {
    const hello = helloOf(200, [50]);
    await using silent = await startRawOrigin(peer => peer.read(hello.length));
    await using speaks = await startRawOrigin(async peer => {
      expect((await peer.read(hello.length)).equals(hello)).toBe(true);
      peer.write('hello');
    });
    const deadlines = new Deadlines();
    await using clients = await startRawOrigin(() => {});
    const far = await connected(clients.port);
    const target = { host: 'site.test', port: 443 };
    const running = { bytesUp: 0 };
    const flight = new FirstFlight(far, hello, { target, deadlines, idle: 60_000, running });
    const first = await connected(silent.port);
    const going = flight.through(first, null);
    flight.onDeadline();
    expect(await going).toMatchObject({
      end: 'failed',
      said: null,
      fault: { kind: 'connection_timeout', sign: 'timeout' },
    });
    expect(first.destroyed).toBe(false);
    const second = await connected(speaks.port);
    const ended = await flight.through(second, null);
    expect(ended).toMatchObject({ end: 'stands', up: null });
    expect(ended.end === 'stands' && ended.down?.toString()).toBe('hello');
    expect(running.bytesUp).toBe(hello.length);
    flight.leave();
    for (const socket of [far, first, second]) socket.destroy();
    deadlines.close();
  });

  test('a client that leaves meanwhile ends it, and whoever asks next is told so', async () => {
    await using silent = await startRawOrigin(() => {});
    await using clients = await startRawOrigin(() => {});
    const deadlines = new Deadlines();
    const far = await connected(clients.port);
    const parts = { target: { host: 'site.test', port: 443 }, deadlines, idle: 60_000, running: { bytesUp: 0 } };
    const flight = new FirstFlight(far, helloOf(10, []), parts);
    const upstream = await connected(silent.port);
    const going = flight.through(upstream, null);
    far.destroy();
    expect(await going).toEqual({ end: 'gone' });
    expect(upstream.destroyed).toBe(true);
    expect(flight.gone).toBe(true);
    expect(await flight.through(upstream, null)).toEqual({ end: 'gone' });
    deadlines.close();
  });
});
