// The words of a hop of kind socks5, without a socket (RFC 1928, RFC 1929).
import { describe, expect, test } from 'vitest';
import {
  decodeLogin,
  decodeMethod,
  decodeReply,
  encodeGreeting,
  encodeLogin,
  encodeRequest,
  ipv6Bytes,
  socks5Handshake,
} from '../../../companion/chain/socks5.ts';
import type { Fault } from '../../../shared/fault.ts';

const bytes = (...values: number[]) => Buffer.from(values);
const plain = { name: 'office', kind: 'socks5', host: 'gw.test', port: 1080 } as const;
const withLogin = { ...plain, username: 'me', password: 's3cret' };
const target = { host: 'a.test', port: 443 };

describe('what is sent', () => {
  test('a login is offered only where the file has one', () => {
    expect([...encodeGreeting(false)]).toEqual([5, 1, 0]);
    expect([...encodeGreeting(true)]).toEqual([5, 2, 0, 2]);
  });

  test('user name and password go with their lengths in bytes', () => {
    expect([...encodeLogin('ü', 'pw')]).toEqual([1, 2, 0xc3, 0xbc, 2, 0x70, 0x77]);
    expect(encodeLogin('u'.repeat(255), '').length).toBe(258);
  });

  test('A45: a name is sent as a name, an address as an address', () => {
    expect([...encodeRequest(target)]).toEqual([5, 1, 0, 3, 6, ...Buffer.from('a.test'), 1, 187]);
    expect([...encodeRequest({ host: '192.0.2.7', port: 80 })]).toEqual([5, 1, 0, 1, 192, 0, 2, 7, 0, 80]);
    expect([...encodeRequest({ host: '2001:db8::7', port: 80 })]).toEqual([
      5, 1, 0, 4, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 80,
    ]);
  });

  test.each([
    ['::', '00000000000000000000000000000000'],
    ['::1', '00000000000000000000000000000001'],
    ['1::', '00010000000000000000000000000000'],
    ['1:2:3:4:5:6:7:8', '00010002000300040005000600070008'],
    ['fe80::a:b', 'fe8000000000000000000000000a000b'],
    ['::ffff:192.0.2.7', '00000000000000000000ffffc0000207'],
  ])('%s has the bytes %s', (address, hex) => expect(Buffer.from(ipv6Bytes(address)).toString('hex')).toBe(hex));
});

describe('what comes back', () => {
  test('A33: short answers wait, wrong versions do not', () => {
    expect(decodeMethod(bytes())).toBe('need-more');
    expect(decodeMethod(bytes(5))).toBe('need-more');
    expect(decodeMethod(bytes(4))).toBe('malformed');
    expect(decodeLogin(bytes(9, 0))).toBe('malformed');
    expect(decodeReply(bytes(0x48))).toBe('malformed');
  });

  test.each([
    ['IPv4', [1, 1, 2, 3, 4, 0, 80]],
    ['IPv6', [4, ...Array<number>(16).fill(0), 0, 80]],
    ['a name', [3, 3, 97, 98, 99, 0, 80]],
    ['an empty name', [3, 0, 0, 80]],
  ])('A34: a bound address that is %s is read over exactly, early bytes stay', (_what, bound) => {
    const whole = bytes(5, 0, 0, ...bound, 0xaa, 0xbb);
    for (let length = 0; length < whole.length - 2; length++)
      expect(decodeReply(whole.subarray(0, length))).toBe('need-more');
    expect(decodeReply(whole)).toEqual({ reply: 0, rest: bytes(0xaa, 0xbb) });
  });

  test('A34: an unknown address type in a yes is no SOCKS5; a no needs no address', () => {
    expect(decodeReply(bytes(5, 0, 0, 9, 0))).toBe('malformed');
    expect(decodeReply(bytes(5, 2))).toMatchObject({ reply: 2 });
  });
});

describe('the conversation', () => {
  const faultOf = (act: () => unknown): Fault => {
    try {
      act();
    } catch (error) {
      return error as Fault;
    }
    throw new Error('no fault');
  };

  test('logs in, asks, and hands on what came behind the yes', () => {
    const talk = socks5Handshake(withLogin, target);
    expect(talk.stage).toBe('greeting');
    expect(talk.read(bytes(5, 2))).toMatchObject({ send: encodeLogin('me', 's3cret'), stands: false });
    expect(talk.read(bytes(1, 0))).toMatchObject({ send: encodeRequest(target), stands: false });
    expect(talk.stage).toBe('tunnel');
    expect(talk.read(bytes(5, 0, 0, 1, 0, 0, 0, 0, 0, 0, 7))).toEqual({ rest: bytes(7), stands: true });
  });

  test('a hop that wants no login gets none', () => {
    expect(socks5Handshake(withLogin, target).read(bytes(5, 0))).toMatchObject({ send: encodeRequest(target) });
  });

  test.each([
    [2, 'hop_refused', 'reply 2: not allowed by its rules, asked for a.test:443'],
    [1, 'hop_could_not_reach', 'reply 1: general failure, asked for a.test:443'],
    [3, 'hop_could_not_reach', 'reply 3: network unreachable, asked for a.test:443'],
    [4, 'hop_could_not_reach', 'reply 4: host unreachable, asked for a.test:443'],
    [5, 'hop_could_not_reach', 'reply 5: connection refused, asked for a.test:443'],
    [6, 'hop_could_not_reach', 'reply 6: TTL expired, asked for a.test:443'],
    [7, 'hop_refused', 'reply 7: command not supported, asked for a.test:443'],
    [99, 'hop_could_not_reach', 'reply 99: unassigned, asked for a.test:443'],
  ])('reply %i is %s', (reply, kind, detail) => {
    const talk = socks5Handshake(plain, target);
    talk.read(bytes(5, 0));
    expect(faultOf(() => talk.read(bytes(5, reply)))).toMatchObject({ kind, detail, hop: 'office' });
  });

  test('a login that is not accepted, not asked for rightly, or missing is told apart from a refusal', () => {
    expect(faultOf(() => socks5Handshake(plain, target).read(bytes(5, 255)))).toMatchObject({
      kind: 'hop_authentication_failed',
      detail: expect.stringContaining('gives none'),
    });
    expect(faultOf(() => socks5Handshake(plain, target).read(bytes(5, 2)))).toMatchObject({
      kind: 'hop_protocol_error',
    });
    const talk = socks5Handshake(withLogin, target);
    talk.read(bytes(5, 2));
    const fault = faultOf(() => talk.read(bytes(1, 1)));
    expect(fault.kind).toBe('hop_authentication_failed');
    expect(fault.message).not.toContain('s3cret');
  });

  test('an http proxy in its place is named as what is wrong', () => {
    expect(
      faultOf(() => socks5Handshake(plain, target).read(Buffer.from('HTTP/1.1 400 Bad Request\r\n'))),
    ).toMatchObject({ kind: 'hop_protocol_error' });
  });
});
