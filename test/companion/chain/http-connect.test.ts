// The words of a hop of kind http, without a socket: what we ask, and what its answers mean.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  decodeConnectReply,
  encodeConnect,
  faultKindOfStatus,
  makeLoopMark,
  MAX_REPLY_HEAD,
} from '../../../companion/chain/http-connect.ts';
import { basicAuthorization } from '../../../companion/message/basic-authorization.ts';
import { Fields } from '../../../companion/message/headers.ts';
import type { RequestHead } from '../../../companion/message/message.ts';

const decode = (text: string) => decodeConnectReply(Buffer.from(text, 'latin1'));

function headWith(...fields: string[]): RequestHead {
  return {
    method: 'CONNECT',
    target: { form: 'authority', host: 'a.test', port: 443 },
    version: 11,
    fields: Fields.of(...fields),
    framing: { kind: 'none' },
    keepAlive: true,
  };
}

describe('the request', () => {
  test('names the target twice, in brackets where it is IPv6', () => {
    expect(encodeConnect({ host: '2001:db8::1', port: 443 }, null, null).toString()).toBe(
      'CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: [2001:db8::1]:443\r\n\r\n',
    );
  });

  test('carries our mark and the credentials of this hop', () => {
    const text = encodeConnect(
      { host: 'a.test', port: 80 },
      basicAuthorization({ username: 'me', password: 'p:ü' }),
      '1.1 xyz',
    ).toString();
    expect(text).toContain('\r\nVia: 1.1 xyz\r\n');
    expect(text).toContain(`\r\nProxy-Authorization: Basic ${Buffer.from('me:p:ü').toString('base64')}\r\n`);
  });

  test('has no credentials where the hop has no user name', () => {
    expect(basicAuthorization({})).toBeNull();
    expect(basicAuthorization({ username: 'me' })).toBe(`Basic ${Buffer.from('me:').toString('base64')}`);
  });
});

describe('the reply', () => {
  test('A27: of a 200 with Content-Length and chunked, the tunnel begins behind the empty line', () => {
    const reply = decode('HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nfirst bytes');
    expect(reply).toMatchObject({ status: 200 });
    expect((reply as { rest: Buffer }).rest.toString()).toBe('first bytes');
  });

  test.each(['HTTP/1.0 200\r\n\r\n', 'HTTP/1.1 299 \r\n\r\n', 'HTTP/1.1 200 Connection established\r\n\r\n'])(
    'A28: %j is a yes',
    text => {
      const reply = decode(text);
      expect(faultKindOfStatus((reply as { status: number }).status)).toBeNull();
    },
  );

  test('A28: interim answers before the final one are passed over, and so many only', () => {
    expect(
      decode('HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\nx'),
    ).toMatchObject({ status: 200 });
    expect(decode('HTTP/1.1 100 Continue\r\n\r\n'.repeat(20))).toBe('malformed');
  });

  test.each([
    'SSH-2.0-OpenSSH_9.2\r\n',
    '\x05\xff',
    '<html>',
    'HTTP/2 200\r\n\r\n',
    'HTTP/1.1 2000 OK\r\n\r\n',
    'HTTP/1.1  200 OK\r\n\r\n',
    'HTTP/1.1 200 OK\nA: b\n\r\n\r\n',
    'http/1.1 200 OK\r\n\r\n',
  ])('%j is not HTTP', text => expect(decode(text)).toBe('malformed'));

  test('nonsense is known by its first byte, without waiting for more', () => {
    expect(decode('\x05')).toBe('malformed');
    expect(decode('HTT')).toBe('need-more');
  });

  test('A89: a head without end is given up at the bound', () => {
    expect(decode(`HTTP/1.1 200 OK\r\nA: ${'b'.repeat(MAX_REPLY_HEAD)}`)).toBe('too-large');
    expect(decode(`HTTP/1.1 200 OK\r\nA: ${'b'.repeat(MAX_REPLY_HEAD)}\r\n\r\n`)).toBe('too-large');
  });

  test('what the hop says of itself is quoted, shortened and without control bytes', () => {
    const reply = decode(
      `HTTP/1.1 403 Forbid\xffden\r\nX-Squid-Error: ERR_ACCESS_DENIED 0\r\nProxy-Status: a; error=http_request_denied\r\nX: ${'y'.repeat(500)}\r\n\r\n`,
    );
    expect(reply).toMatchObject({ said: '403 Forbid den, ERR_ACCESS_DENIED 0, a; error=http_request_denied' });
  });

  test('the same bytes mean the same however they are cut', () => {
    const text = 'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nA: b\r\n\r\nrest';
    const whole = decode(text);
    fc.assert(
      fc.property(fc.integer({ min: 0, max: text.length }), cut => {
        const part = decode(text.slice(0, cut));
        if (part !== 'need-more')
          expect((part as { rest: Buffer }).rest.toString() + text.slice(cut)).toBe(
            (whole as { rest: Buffer }).rest.toString(),
          );
      }),
    );
  });
});

describe('what a status means', () => {
  test.each([
    [407, 'hop_authentication_failed'],
    [401, 'hop_authentication_failed'],
    [403, 'hop_refused'],
    [405, 'hop_refused'],
    [429, 'hop_refused'],
    [451, 'hop_refused'],
    [501, 'hop_refused'],
    [302, 'hop_refused'],
    [502, 'hop_could_not_reach'],
    [503, 'hop_could_not_reach'],
    [504, 'hop_could_not_reach'],
  ])('%i is %s', (status, kind) => expect(faultKindOfStatus(status)).toBe(kind));
});

describe('the loop mark', () => {
  test('is another one in every run, and known among the members that others added', () => {
    const mine = makeLoopMark();
    const other = makeLoopMark();
    expect(mine.via).not.toBe(other.via);
    const head = headWith('Via', `${mine.via}, 1.1 squid.test (squid/5.7)`, 'Via', '1.0 another');
    expect(mine.comesFromUs(head)).toBe(true);
    expect(other.comesFromUs(head)).toBe(false);
  });

  test('is not found in a comment, in part, or where there is no Via', () => {
    const mine = makeLoopMark('abc');
    expect(mine.comesFromUs(headWith('Via', '1.1 proxy (abc)'))).toBe(false);
    expect(mine.comesFromUs(headWith('Via', '1.1 abcd'))).toBe(false);
    expect(mine.comesFromUs(headWith('Host', 'abc'))).toBe(false);
  });
});
