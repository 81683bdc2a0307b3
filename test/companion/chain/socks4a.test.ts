import { createServer, type AddressInfo } from 'node:net';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { makeDial } from '../../../companion/chain/dial.ts';
import { decodeSocks4Reply, encodeSocks4Request, socks4aHandshake } from '../../../companion/chain/socks4a.ts';
import { makeAcl } from '../../../companion/guard/acl.ts';
import type { AdmittedTarget } from '../../../companion/rooms.ts';

const hop = { name: 'old', kind: 'socks4a', host: 'gw.test', port: 1080, username: 'me' } as const;
const target = { host: 'far.test', port: 443 };
const asked = (code: number) => socks4aHandshake(hop, target).read(Buffer.from([0, code, 0, 0, 0, 0, 0, 0]));

test('a name goes as a name, an IPv4 address as SOCKS4 says', () => {
  expect(encodeSocks4Request(target, 'me').toString('latin1')).toBe('\x04\x01\x01\xbb\0\0\0\x01me\0far.test\0');
  expect([...encodeSocks4Request({ host: '192.0.2.7', port: 80 }, '')]).toEqual([4, 1, 0, 80, 192, 0, 2, 7, 0]);
});

test('an IPv6 address cannot be said, and nothing is sent', () => {
  expect(() => socks4aHandshake(hop, { host: '2001:db8::7', port: 80 })).toThrow(
    expect.objectContaining({ kind: 'hop_could_not_reach', hop: 'old' }),
  );
});

test('a yes is its eight bytes, and what comes behind is the tunnel', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 40 }), fc.nat({ max: 8 }), fc.constantFrom(0, 4), (behind, cut, first) => {
      const yes = Buffer.from([first, 90, 1, 2, 3, 4, 5, 6, ...behind]);
      expect(decodeSocks4Reply(yes)).toEqual({ code: 90, rest: Buffer.from(behind) });
      if (cut < 8) expect(decodeSocks4Reply(yes.subarray(0, cut))).toBe('need-more');
    }),
  );
});

test.each([
  [91, 'hop_refused'],
  [92, 'hop_refused'],
  [93, 'hop_refused'],
  [94, 'hop_protocol_error'],
  [0, 'hop_protocol_error'],
])('reply %i is %s', (code, kind) => {
  expect(() => asked(code)).toThrow(expect.objectContaining({ kind, hop: 'old' }));
});

test('a no is known by its second byte; another protocol by its first', () => {
  const { read } = socks4aHandshake(hop, target);
  expect(() => read(Buffer.from([0, 91]))).toThrow(expect.objectContaining({ kind: 'hop_refused' }));
  expect(() => read(Buffer.from('HTTP'))).toThrow(expect.objectContaining({ kind: 'hop_protocol_error' }));
});

test.each([
  ['a byte at a time, with the tunnel behind it', [0, 90, 1, 2, 3, 4, 5, 6, 104, 105], null],
  ['cut off', [0, 90, 1], 'connection_terminated'],
  ['that is cut off after its no', [0, 91], 'hop_refused'],
  ['of nothing', [], 'connection_terminated'],
  ['of another kind', [5, 0], 'hop_protocol_error'],
] as const)('a reply %s', async (_what, bytes, kind) => {
  let asked = '';
  const server = createServer(socket => {
    socket.on('error', () => {}).setNoDelay();
    socket.once('data', async (chunk: Buffer) => {
      asked = chunk.toString('latin1');
      for (const byte of bytes) {
        socket.write(Buffer.from([byte]));
        await new Promise(resolve => setTimeout(resolve, 2));
      }
      socket.end();
    });
  });
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  const dial = makeDial({
    acl: makeAcl({ guard: { allow: [], connectPorts: [] }, listeners: () => [] }),
    hopTimeout: 5_000,
    lookup: host => Promise.reject(new Error(`${host} was looked up here`)),
  });
  const at = { ...hop, host: '127.0.0.1', port: (server.address() as AddressInfo).port };
  const chain = { key: 'old', hops: [at] };
  const { signal } = new AbortController();
  const dialling = dial({ chain, signal, steps: [], stage: 'connect' }, target as AdmittedTarget, false);
  if (kind !== null) await expect(dialling).rejects.toMatchObject({ kind, hop: 'old' });
  else {
    const { socket, rest } = await dialling;
    let got = rest.toString();
    socket.on('data', (chunk: Buffer) => (got += chunk.toString()));
    const ended = new Promise<void>(resolve => socket.once('end', () => resolve()));
    socket.resume();
    await ended;
    expect(got).toBe('hi');
    socket.destroy();
  }
  expect(asked).toBe('\x04\x01\x01\xbb\0\0\0\x01me\0far.test\0');
  server.close();
});
