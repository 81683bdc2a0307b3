import fc from 'fast-check';
import { expect, test } from 'vitest';
import { decodeSocks4Reply, encodeSocks4Request, socks4aHandshake } from '../../../companion/chain/socks4a.ts';

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
