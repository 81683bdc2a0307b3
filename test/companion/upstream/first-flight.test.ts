// Where a ClientHello ends, however it is cut into records and reads.
import { Duplex } from 'node:stream';
import { connect } from 'node:tls';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { readHello } from '../../../companion/upstream/first-flight.ts';

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
