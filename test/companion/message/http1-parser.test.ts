// The parser refuses what is ambiguous and takes the rest apart as RFC 9112 says; however the bytes are cut.
import fc from 'fast-check';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { describe, expect, test } from 'vitest';
import { parseRequestHead, parseResponseHead } from '../../../companion/message/http1-parser.ts';
import type { RequestHead, ResponseHead } from '../../../companion/message/message.ts';
import { linesOf, parseAll, parseRequest, parseResponse } from './parse-all.ts';

const GET = 'GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n';
const POST = 'POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\n';
const CHUNKED = `${POST}Transfer-Encoding: chunked\r\n\r\n`;

const refusedRequest = (text: string) => {
  const { messages, refused } = parseRequest(text);
  return messages.length === 0 ? refused : `accepted ${messages.length}`;
};
const requestOf = (text: string) => {
  const parsed = parseRequest(text);
  expect(parsed).toMatchObject({ refused: null });
  return parsed.messages[0]!.head as RequestHead;
};
const refusedResponse = (text: string, method?: string) => {
  const { messages, refused } = parseResponse(text, method);
  return messages.length === 0 ? refused : 'accepted';
};
const responseOf = (text: string, method?: string) => {
  const parsed = parseResponse(text, method);
  expect(parsed).toMatchObject({ refused: null });
  return parsed.messages[0]!.head as ResponseHead;
};

describe('a request head', () => {
  test('comes apart into method, target, version and fields in order', () => {
    const head = requestOf(
      'GET http://Example.TEST:8080/a/../b?c HTTP/1.1\r\nHost: example.test:8080\r\nX-B: 1\r\nx-a:2 \t\r\nX-B: \xe4\r\n\r\n',
    );
    expect(head).toMatchObject({
      method: 'GET',
      version: 11,
      keepAlive: true,
      framing: { kind: 'none' },
      target: { form: 'absolute', scheme: 'http', host: 'example.test', port: 8080, path: '/a/../b?c' },
    });
    expect(linesOf(head.fields)).toEqual([
      ['Host', 'example.test:8080'],
      ['X-B', '1'],
      ['x-a', '2'],
      ['X-B', '\xe4'],
    ]);
    expect(head.fields.get('x-b')).toBe('1, \xe4');
  });

  test.each([
    ['A1 length and coding', `${POST}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n`],
    ['A1 coding and length', `${POST}Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n`],
    ['A2 two lengths', `${POST}Content-Length: 3\r\nContent-Length: 4\r\n\r\n`],
    ['A2 a list of lengths', `${POST}Content-Length: 5, 6\r\n\r\n`],
    ['A3 a sign', `${POST}Content-Length: +3\r\n\r\n`],
    ['A3 a negative length', `${POST}Content-Length: -3\r\n\r\n`],
    ['A3 a space inside', `${POST}Content-Length: 3 3\r\n\r\n`],
    ['A3 hex', `${POST}Content-Length: 0x3\r\n\r\n`],
    ['A3 twenty digits', `${POST}Content-Length: 18446744073709551616\r\n\r\n`],
    ['A3 an empty length', `${POST}Content-Length:\r\n\r\n`],
    ['A3 a length with a comma', `${POST}Content-Length: 3,\r\n\r\n`],
    ['A3 a fraction', `${POST}Content-Length: 3.0\r\n\r\n`],
    ['A4 chunked not last', `${POST}Transfer-Encoding: chunked, gzip\r\n\r\n`],
    ['A4 chunked twice', `${POST}Transfer-Encoding: chunked, chunked\r\n\r\n`],
    ['A4 chunked twice in two lines', `${POST}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n`],
    ['A4 an empty coding', `${POST}Transfer-Encoding:\r\n\r\n`],
    ['A4 a tab behind chunked', `${POST}Transfer-Encoding: chunked\t\r\n\r\n`],
    ['A4 a tab and a space behind chunked', `${POST}Transfer-Encoding: chunked\t \r\n\r\n`],
    ['A2 a no-break space in a list of lengths', `${POST}Content-Length: 3,\xa03\r\n\r\n`],
    ['A5 a space before the colon', `${GET}X : 1\r\n\r\n`],
    ['A5 a tab before the colon', `${GET}X\t: 1\r\n\r\n`],
    ['A6 a control in a name', `${GET}X\x01: 1\r\n\r\n`],
    ['A6 a name beyond ASCII', `${GET}X\xe4: 1\r\n\r\n`],
    ['A6 an empty name', `${GET}: 1\r\n\r\n`],
    ['A6 no colon', `${GET}X 1\r\n\r\n`],
    ['A7 obs-fold', `${GET}X: 1\r\n 2\r\n\r\n`],
    ['A7 obs-fold by tab', `${GET}X: 1\r\n\t2\r\n\r\n`],
    ['A8 a bare CR in a value', `${GET}X: 1\r2\r\n\r\n`],
    ['A8 two CRs', `${GET}X: 1\r\r\n\r\n`],
    ['A8 a bare LF', `${GET}X: 1\nY: 2\r\n\r\n`],
    ['A8 a bare LF at the end', `${GET}X: 1\n\r\n\r\n`],
    ['A8 LFs alone', 'GET http://a.test/ HTTP/1.1\nHost: a.test\n\n'],
    ['A8 a NUL', `${GET}X: 1\x002\r\n\r\n`],
    ['A8 a control in a value', `${GET}X: 1\x0b2\r\n\r\n`],
    ['A8 DEL in a value', `${GET}X: 1\x7f\r\n\r\n`],
    ['A9 white space before the first field', 'GET http://a.test/ HTTP/1.1\r\n Host: a.test\r\n\r\n'],
    ['A9 white space before the request line', ` ${GET}\r\n`],
    ['A10 coding in HTTP/1.0', 'POST http://a.test/ HTTP/1.0\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n'],
    ['A17 two Hosts', `${GET}Host: a.test\r\n\r\n`],
    ['A17 no Host', 'GET http://a.test/ HTTP/1.1\r\nX: 1\r\n\r\n'],
    ['A17 no field at all', 'GET http://a.test/ HTTP/1.1\r\n\r\n'],
    ['A17 an empty Host', 'GET http://a.test/ HTTP/1.1\r\nHost:\r\n\r\n'],
    ['A17 a Host that is none', 'GET http://a.test/ HTTP/1.1\r\nHost: a b\r\n\r\n'],
    ['A17 a Host with a path', 'GET http://a.test/ HTTP/1.1\r\nHost: a.test/\r\n\r\n'],
    ['A17 a Host with user information', 'GET http://a.test/ HTTP/1.1\r\nHost: u@a.test\r\n\r\n'],
    ['A17 a list of hosts', 'GET http://a.test/ HTTP/1.1\r\nHost: a.test, b.test\r\n\r\n'],
    ['A18 user information', 'GET http://u:p@a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n'],
    ['A19 a backslash in the authority', 'GET http://a.test\\@b.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n'],
    ['A19 a backslash in the path', 'GET http://a.test/\\b HTTP/1.1\r\nHost: a.test\r\n\r\n'],
    ['A19 a quote in the host', 'GET http://a."test/ HTTP/1.1\r\nHost: a.test\r\n\r\n'],
    ['A19 braces in the host', 'GET http://{a}.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n'],
    ['A19 an escaped host', 'GET http://a%00.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n'],
    ['A19 a zone', 'GET http://[fe80::1%25eth0]/ HTTP/1.1\r\nHost: a.test\r\n\r\n'],
    ['A19 a tab in the target', 'GET http://a.test/\tb HTTP/1.1\r\nHost: a.test\r\n\r\n'],
    ['A19 a fragment', 'GET http://a.test/#b HTTP/1.1\r\nHost: a.test\r\n\r\n'],
    ['A19 a target beyond ASCII', 'GET http://a.test/\xe4 HTTP/1.1\r\nHost: a.test\r\n\r\n'],
    ['A19 an IPv6 address without brackets', 'GET http://::1/ HTTP/1.1\r\nHost: a.test\r\n\r\n'],
    ['A19 no host', 'GET http:///b HTTP/1.1\r\nHost: a.test\r\n\r\n'],
    ['A19 port 0', 'GET http://a.test:0/ HTTP/1.1\r\nHost: a.test\r\n\r\n'],
    ['A19 port 65536', 'GET http://a.test:65536/ HTTP/1.1\r\nHost: a.test\r\n\r\n'],
    ['A25 CONNECT to port 0', 'CONNECT a.test:0 HTTP/1.1\r\nHost: a.test\r\n\r\n'],
    ['A25 CONNECT to port 99999', 'CONNECT a.test:99999 HTTP/1.1\r\nHost: a.test\r\n\r\n'],
    ['A25 CONNECT without port', 'CONNECT a.test HTTP/1.1\r\nHost: a.test\r\n\r\n'],
    ['A25 CONNECT with an empty port', 'CONNECT a.test: HTTP/1.1\r\nHost: a.test\r\n\r\n'],
    ['A25 CONNECT of an URL', 'CONNECT http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n'],
    ['A25 CONNECT of a path', 'CONNECT / HTTP/1.1\r\nHost: a.test\r\n\r\n'],
    ['A25 CONNECT with user information', 'CONNECT u@a.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\n'],
    ['A25 CONNECT to an IPv6 address without brackets', 'CONNECT ::1:443 HTTP/1.1\r\nHost: a.test\r\n\r\n'],
    ['A25 CONNECT of nothing', 'CONNECT  HTTP/1.1\r\nHost: a.test\r\n\r\n'],
    ['A25 CONNECT with a body', 'CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\n'],
    ['R28 two empty lines first', `\r\n\r\n${GET}\r\n`],
    ['R28 a CR first', `\r${GET}\r\n`],
    ['R30 two spaces', 'GET  http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n'],
    ['R30 a space more', 'GET http://a.test/ HTTP/1.1 \r\nHost: a.test\r\n\r\n'],
    ['R30 no version', 'GET http://a.test/\r\nHost: a.test\r\n\r\n'],
    ['R30 a wrong version', 'GET http://a.test/ HTTP/11\r\nHost: a.test\r\n\r\n'],
    ['R30 a version in lower case', 'GET http://a.test/ http/1.1\r\nHost: a.test\r\n\r\n'],
    ['R30 a method that is no token', 'G@T http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n'],
    ['R33 authority-form for GET', 'GET a.test:80 HTTP/1.1\r\nHost: a.test\r\n\r\n'],
    ['R33 asterisk-form for GET', 'GET * HTTP/1.1\r\nHost: a.test\r\n\r\n'],
    ['A43 a URL without a host', 'GET urn:isbn:1 HTTP/1.1\r\nHost: a.test\r\n\r\n'],
  ])('with %s is malformed', (_, text) => {
    expect(refusedRequest(text)).toBe('http_request_error');
  });

  test.each([
    ['A4 an unknown coding', `${POST}Transfer-Encoding: gzip, chunked\r\n\r\n`],
    ['A4 a no-break space before chunked', `${POST}Transfer-Encoding: \xa0chunked\r\n\r\n`],
    ['A4 a no-break space behind chunked', `${POST}Transfer-Encoding: chunked\xa0\r\n\r\n`],
    ['A4 an unknown coding alone', `${POST}Transfer-Encoding: xchunked\r\n\r\n`],
    ['A4 a coding with a parameter', `${POST}Transfer-Encoding: chunked;a=b\r\n\r\n`],
    ['A43 ftp', 'GET ftp://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n'],
    ['A43 file', 'GET file:///etc/passwd HTTP/1.1\r\nHost: a.test\r\n\r\n'],
    ['https in absolute-form', 'GET https://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n'],
  ])('with %s asks for what is not done', (_, text) => {
    expect(refusedRequest(text)).toBe('not_implemented');
  });

  test('of another HTTP version is refused as such (R29)', () => {
    expect(refusedRequest('GET http://a.test/ HTTP/2.0\r\nHost: a.test\r\n\r\n')).toBe('http_version_not_supported');
    expect(refusedRequest('PRI http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n')).toBe('http_version_not_supported');
    expect(refusedRequest('GET http://a.test/ HTTP/1.2\r\nHost: a.test\r\n\r\n')).toBe('http_version_not_supported');
  });

  test('with the same length twice has that length (A2)', () => {
    expect(requestOf(`${POST}Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc`).framing).toEqual({
      kind: 'length',
      length: 3,
    });
    expect(requestOf(`${POST}Content-Length: 3, 3\r\n\r\nabc`).framing).toEqual({ kind: 'length', length: 3 });
    // Whoever reads the fields later, as for the answer to a HEAD, finds one number.
    const several = 'content-length: 3 , 3\r\nX: 1\r\nContent-Length: 3\r\ncontent-length: 3\r\nY: 2\r\n\r\n';
    expect(linesOf(responseOf(`HTTP/1.1 200 OK\r\n${several}`, 'HEAD').fields)).toEqual([
      ['content-length', '3'],
      ['X', '1'],
      ['Y', '2'],
    ]);
  });

  test.each(['chunked', 'Chunked', 'CHUNKED', 'chunked ', '\tchunked'])('knows the coding %j (A4)', coding => {
    expect(requestOf(`${POST}Transfer-Encoding: ${coding}\r\n\r\n0\r\n\r\n`).framing).toEqual({ kind: 'chunked' });
  });

  test('has one host whatever its spelling (A19)', () => {
    const host = (text: string) => {
      const { target } = requestOf(`GET http://${text}/ HTTP/1.1\r\nHost: x\r\n\r\n`);
      return target.form === 'absolute' ? target.host : null;
    };
    expect(host('EXAMPLE.test.')).toBe('example.test');
    expect(host('0x7f.1')).toBe('127.0.0.1');
    expect(host('2130706433')).toBe('127.0.0.1');
    expect(host('[::ffff:127.0.0.1]')).toBe('127.0.0.1');
    expect(host('[0:0::1]')).toBe('::1');
    expect(requestOf('GET HTTP://A.test/ HTTP/1.1\r\nHost: x\r\n\r\n').target).toMatchObject({ host: 'a.test' });
  });

  test('keeps the path as it is, and has one where the URL has none (R10, R33)', () => {
    const path = (method: string, url: string) => {
      const { target } = requestOf(`${method} ${url} HTTP/1.1\r\nHost: x\r\n\r\n`);
      return target.form === 'absolute' ? target.path : null;
    };
    expect(path('GET', 'http://a.test')).toBe('/');
    expect(path('GET', 'http://a.test?q=\\')).toBe('/?q=\\');
    expect(path('OPTIONS', 'http://a.test')).toBe('*');
    expect(path('GET', 'http://a.test/%7e//./..%2f?a|b{}^`"<>')).toBe('/%7e//./..%2f?a|b{}^`"<>');
  });

  test('tells whether the connection goes on (R44, R46)', () => {
    expect(requestOf(`${GET}\r\n`).keepAlive).toBe(true);
    expect(requestOf(`${GET}Connection: Close\r\n\r\n`).keepAlive).toBe(false);
    expect(requestOf(`${GET}Connection: x, close\r\n\r\n`).keepAlive).toBe(false);
    expect(requestOf(`${GET}Connection: x,\xa0close\r\n\r\n`).keepAlive).toBe(true);
    expect(requestOf(`${GET}Proxy-Connection: close\r\n\r\n`).keepAlive).toBe(false);
    expect(requestOf('GET http://a.test/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n').keepAlive).toBe(false);
  });

  test('may follow one empty line (R28)', () => {
    expect(requestOf(`\r\n${GET}\r\n`).method).toBe('GET');
  });

  test('beyond its bounds is refused as what it is too much of (A21, R30)', () => {
    expect(refusedRequest(`${GET}X: ${'a'.repeat(5000)}\r\n\r\n`)).toBe('head_too_large');
    expect(refusedRequest(`${GET}${'X: 1\r\n'.repeat(60)}\r\n`)).toBe('head_too_large');
    expect(refusedRequest(`GET http://a.test/${'a'.repeat(5000)} HTTP/1.1\r\nHost: a\r\n\r\n`)).toBe('target_too_long');
    expect(refusedRequest(`GET http://a.test/${'a'.repeat(5000)}`)).toBe('target_too_long');
  });
});

describe('a request body', () => {
  const bodyOf = (text: string) => parseRequest(text).messages[0]!;

  test('in chunks comes together, with its trailers', () => {
    expect(
      bodyOf(`${CHUNKED}3\r\nabc\r\n00A;x=y;z="1\\"2"\r\n0123456789\r\n0\r\nX-T: 1\r\nX-U: 2\r\n\r\n`),
    ).toMatchObject({
      body: 'abc0123456789',
      ended: 'done',
      trailers: [
        ['X-T', '1'],
        ['X-U', '2'],
      ],
    });
  });

  test.each([
    ['A11 an overflowing size', 'FFFFFFFFFFFFFFFFF\r\n'],
    ['A11 a size of 2^52 and more', '10000000000000\r\n'],
    ['A11 a negative size', '-1\r\na'],
    ['A11 an underscore', '1_0\r\n'],
    ['A11 a prefix', '0x3\r\nabc\r\n'],
    ['A11 junk behind the size', '3 junk\r\nabc\r\n'],
    ['A11 a space behind the size', '3 \r\nabc\r\n'],
    ['A11 an empty size', '\r\nabc\r\n'],
    ['A12 a bare LF behind the size', '3\nabc\r\n'],
    ['A12 a bare CR behind the size', '3\r\r\nabc\r\n'],
    ['A12 an LF in the extension', '3;a\nb\r\nabc\r\n'],
    ['A12 a CR in the extension', '3;a\rb\r\nabc\r\n'],
    ['A12 an extension that is none', '3;\r\nabc\r\n'],
    ['A12 an extension with a control', '3;a="\x01"\r\nabc\r\n'],
    ['A12 a long extension', `3;a=${'b'.repeat(300)}\r\nabc\r\n`],
    ['A12 many extensions', '1;abcdefghijklmnopqrstuvwxyz=abcdefghijklmnopqrstuvwxyz\r\na\r\n'.repeat(400)],
    ['A12 a chunk longer than its size', '3\r\nabcd\r\n0\r\n\r\n'],
    ['A12 a chunk without its end', '3\r\nabc0\r\n\r\n'],
    ['A12 a chunk ending in LF', '3\r\nabc\n0\r\n\r\n'],
    ['A8 a bare LF among the trailers', '0\r\nX: 1\n\r\n\r\n'],
    ['A7 obs-fold among the trailers', '0\r\nX: 1\r\n 2\r\n\r\n'],
    ['A22 trailers beyond their bound', `0\r\nX: ${'a'.repeat(5000)}\r\n\r\n`],
  ])('with %s is malformed', (_, chunks) => {
    expect(bodyOf(CHUNKED + chunks).ended).toBe('http_request_error');
  });

  test('by length ends where it says, and the next request begins there (A15)', () => {
    const { messages } = parseRequest(`${POST}Content-Length: 3\r\n\r\nabc${GET}\r\n`);
    expect(messages.map(one => [one.head, one.body])).toMatchObject([
      [{ method: 'POST' }, 'abc'],
      [{ method: 'GET' }, ''],
    ]);
  });
});

describe('a response head', () => {
  test('comes apart, with or without a reason', () => {
    expect(responseOf('HTTP/1.1 404 Not \xe4 Found\r\nX: 1\r\n\r\n')).toMatchObject({
      status: 404,
      reason: 'Not \xe4 Found',
      version: 11,
    });
    expect(responseOf('HTTP/1.1 200 \r\n\r\n').reason).toBe('');
    expect(responseOf('HTTP/1.1 200\r\n\r\n').reason).toBe('');
  });

  test.each([
    ['A1 length and coding', 'HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n'],
    ['A2 two lengths', 'HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n'],
    ['A3 a length that is none', 'HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n'],
    ['A7 obs-fold', 'HTTP/1.1 200 OK\r\nX: 1\r\n 2\r\n\r\n'],
    ['A8 a bare CR', 'HTTP/1.1 200 OK\r\nX: 1\r2\r\n\r\n'],
    ['A8 LFs alone', 'HTTP/1.1 200 OK\nX: 1\n\n'],
    ['A8 a NUL', 'HTTP/1.1 200 OK\r\nX: 1\x00\r\n\r\n'],
    ['A10 coding in HTTP/1.0', 'HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n'],
    ['no version', 'ICY 200 OK\r\n\r\n'],
    ['another version', 'HTTP/2.0 200 OK\r\n\r\n'],
    ['a status of two digits', 'HTTP/1.1 20 OK\r\n\r\n'],
    ['a status of four digits', 'HTTP/1.1 2000 OK\r\n\r\n'],
    ['a status below 100', 'HTTP/1.1 099 OK\r\n\r\n'],
    ['a status with letters', 'HTTP/1.1 2x0 OK\r\n\r\n'],
    ['an interim answer that closes (R38)', 'HTTP/1.1 100 Continue\r\nConnection: close\r\n\r\n'],
    ['a field name that is none', 'HTTP/1.1 200 OK\r\nX Y: 1\r\n\r\n'],
    ['an empty line first', '\r\nHTTP/1.1 200 OK\r\n\r\n'],
  ])('with %s is malformed', (_, text) => {
    expect(refusedResponse(text)).toBe('http_protocol_error');
  });

  test.each(['gzip, chunked', 'gzip', 'x-thing, gzip', 'xchunked', 'Chunk', 'thing, chunked', 'deflate', '"thing"'])(
    'with the coding %s, which we do not undo, says so (A4)',
    coding => {
      expect(refusedResponse(`HTTP/1.1 200 OK\r\nTransfer-Encoding: ${coding}\r\n\r\n`)).toBe(
        'http_response_transfer_coding',
      );
    },
  );

  test('with a coding that nobody knows ends with its connection (A4, R36, RFC 9112 §6.3)', () => {
    const head = responseOf('HTTP/1.1 200 OK\r\nTransfer-Encoding: a-thing\r\n\r\n');
    expect([head.framing, head.keepAlive]).toEqual([{ kind: 'close' }, false]);
    expect(refusedResponse('HTTP/1.1 200 OK\r\nTransfer-Encoding: a-thing\r\nContent-Length: 3\r\n\r\n')).toBe(
      'http_protocol_error',
    );
  });

  test('loses the white space before a colon (A5, R34)', () => {
    const { fields } = responseOf('HTTP/1.1 200 OK\r\nContent-Length : 0\r\nX\t : 1\r\n\r\n');
    expect(linesOf(fields)).toEqual([
      ['Content-Length', '0'],
      ['X', '1'],
    ]);
  });

  test('is framed by what it answers (R38)', () => {
    const kind = (text: string, method?: string) => responseOf(text, method).framing.kind;
    const sized = 'Content-Length: 5\r\n\r\n';
    expect(kind(`HTTP/1.1 200 OK\r\n${sized}`)).toBe('length');
    expect(kind(`HTTP/1.1 200 OK\r\n${sized}`, 'HEAD')).toBe('none');
    expect(kind(`HTTP/1.1 304 Not Modified\r\n${sized}`)).toBe('none');
    expect(kind('HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n')).toBe('none');
    expect(kind(`HTTP/1.1 200 OK\r\n${sized}`, 'CONNECT')).toBe('none');
    expect(kind(`HTTP/1.1 403 No\r\n${sized}`, 'CONNECT')).toBe('length');
    expect(kind('HTTP/1.1 200 OK\r\n\r\n')).toBe('close');
    expect(kind('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n')).toBe('chunked');
  });

  test('tells whether the connection goes on (R44, R46)', () => {
    const keeps = (text: string) => responseOf(text).keepAlive;
    expect(keeps('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n')).toBe(true);
    expect(keeps('HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n')).toBe(false);
    expect(keeps('HTTP/1.1 200 OK\r\n\r\n')).toBe(false);
    expect(keeps('HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n')).toBe(false);
    expect(keeps('HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 0\r\n\r\n')).toBe(true);
  });

  test('beyond its bounds is refused (A89)', () => {
    expect(refusedResponse(`HTTP/1.1 200 OK\r\nX: ${'a'.repeat(5000)}`)).toBe('http_response_header_section_size');
    expect(refusedResponse(`HTTP/1.1 200 OK\r\n${'X: 1\r\n'.repeat(60)}\r\n`)).toBe(
      'http_response_header_section_size',
    );
  });
});

// Any cutting of the bytes parses alike -----------------------------------------------------------------------------------------------------------

const line = fc.constantFrom(
  'X-A: 1\r\n', 'Content-Length: 5\r\n', 'Content-Length: 12\r\n', 'Transfer-Encoding: chunked\r\n', 'transfer-encoding: gzip, chunked\r\n',
  'Host: a.test\r\n', 'Connection: close\r\n', 'X-Long: ' + 'b'.repeat(700) + '\r\n', ' folded\r\n', 'Space : 1\r\n', 'no colon\r\n', 'X: \r\n',
  'Bare: 1\n', 'Cr: 1\r2\r\n', 'Nul: \0\r\n', 'X-Obs: \xff\r\n',
); // prettier-ignore
const startLine = {
  request: fc.constantFrom(
    'GET http://a.test/ HTTP/1.1\r\n', 'POST http://a.test/p?q HTTP/1.1\r\n', 'CONNECT a.test:443 HTTP/1.1\r\n', 'GET / HTTP/1.1\r\n',
    '\r\nGET http://a.test/ HTTP/1.1\r\n', '\r\n\r\nGET http://a.test/ HTTP/1.1\r\n', 'GET http://a.test/ HTTP/3.0\r\n', 'GET  / HTTP/1.1\r\n',
    'GET http://a.test/ HTTP/1.0\r\n', 'bogus\r\n', `GET http://a.test/${'x'.repeat(3000)} HTTP/1.1\r\n`,
  ), // prettier-ignore
  response: fc.constantFrom(
    'HTTP/1.1 200 OK\r\n', 'HTTP/1.1 100 Continue\r\n', 'HTTP/1.1 204 \r\n', 'HTTP/1.0 200\r\n', 'HTTP/1.1 304 x\r\n', 'bogus\r\n', '\r\nHTTP/1.1 200 OK\r\n',
  ), // prettier-ignore
};
const body = fc.constantFrom(
  '', 'hello', 'hello world!', '5\r\nhello\r\n0\r\n\r\n', '5;a=b\r\nhello\r\n1\r\nx\r\n0\r\nT: 1\r\nU: 2\r\n\r\n', '5\r\nhello!\r\n0\r\n\r\n', '0\r\n\r\n',
  '5\r\nhel', 'zz\r\n', '0\r\nT: 1\n\r\n\r\n', '2;\x01\r\nab\r\n0\r\n\r\n',
); // prettier-ignore

describe.each(['request', 'response'] as const)('a %s', direction => {
  const message = fc
    .tuple(
      startLine[direction],
      fc.array(line, { maxLength: 9 }),
      fc.constantFrom('\r\n', '\r\n', '\r\n', '\n', ''),
      body,
    )
    .map(
      ([start, lines, end, rest]) =>
        start +
        (direction === 'request' && lines.length % 4 > 0 ? 'Host: a.test\r\n' : '') +
        lines.join('') +
        end +
        rest,
    );
  const stream = fc.array(message, { minLength: 1, maxLength: 3 }).map(all => Buffer.from(all.join(''), 'latin1'));
  const cuts = fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 12 });

  test('parses alike however its bytes are cut', () => {
    fc.assert(
      fc.property(stream, cuts, fc.boolean(), (bytes, places, byByte) => {
        const at = byByte
          ? Array.from(bytes.keys())
          : [...new Set(places.map(place => Math.floor(place * bytes.length)))].toSorted((a, b) => a - b);
        const pieces: Buffer[] = [];
        let from = 0;
        for (const to of [...at, bytes.length]) {
          pieces.push(bytes.subarray(from, to));
          from = to;
        }
        const cut = parseAll(direction, pieces);
        const whole = parseAll(direction, [bytes]);
        expect({ ...cut, detail: undefined }).toEqual({ ...whole, detail: undefined });
      }),
      { numRuns: 1_500 },
    );
  });

  test('is never read past its end, nor taken for whole before', () => {
    fc.assert(
      fc.property(stream, bytes => {
        const { messages } = parseAll(direction, [bytes]);
        for (const { head, body: data, ended } of messages) {
          if (ended === 'done' && head.framing.kind === 'length') expect(data.length).toBe(head.framing.length);
        }
      }),
      { numRuns: 300 },
    );
  });
});

test('A21: what is remembered of a large head does not keep the rest of it alive', () => {
  setFlagsFromString('--expose-gc');
  const collectGarbage = runInNewContext('gc') as () => void;
  const limits = { head: 65_536, fields: 100 };
  const filler = 'f'.repeat(60_000);
  const kept: unknown[] = [];
  collectGarbage();
  const before = process.memoryUsage().heapUsed;
  for (let i = 0; i < 1_000; i++) {
    // From bytes, as it comes: a text in one piece.
    const textOf = (line: string) =>
      Buffer.from(
        `${line}\r\nHost: x\r\nX-Long-Name-${i}: its own value ${i}\r\nContent-Type: text/html; x=${i}\r\nF: ${filler}\r\n`,
      ).toString('latin1');
    const asked = parseRequestHead(
      textOf(`METHOD-OF-ITS-OWN-${i} http://host-${i}.of.its.own.test/path/of/its/own HTTP/1.1`),
      limits,
    );
    const answered = parseResponseHead(textOf(`HTTP/1.1 200 A reason of its own ${i}`), limits, 'GET');
    kept.push(asked.method, asked.target, answered.reason);
    for (const { fields } of [asked, answered])
      for (let at = 0; at < fields.length - 1; at++)
        kept.push(fields.nameAt(at), fields.lowerNameAt(at), fields.valueAt(at));
  }
  collectGarbage();
  expect(process.memoryUsage().heapUsed - before).toBeLessThan(10_000_000);
  expect(kept.length).toBeGreaterThan(10_000);
});
