// Makes the fuzzer's cases: one to four messages (rarely twelve) by a grammar that mostly keeps to RFC 9112, then (three times in four) damage: bytes, spans, lines and
// tokens that have fooled parsers before. Everything comes from the Random that is handed in.
import type { Case, Side } from './outcome.ts';
import type { Random } from './random.ts';

const METHODS = [
  'GET', 'GET', 'GET', 'GET', 'POST', 'POST', 'POST', 'HEAD', 'PUT', 'OPTIONS', 'DELETE', 'PATCH', 'CONNECT', 'TRACE', 'QUERY', 'PROPFIND', 'M-SEARCH',
  'PURGE',
]; // prettier-ignore
const ODD_METHODS = [
  'SOURCE', 'FOO', 'get', 'PRI', 'DESCRIBE', 'GE', 'GETT', '!#$%&\'*+-.^_`|~',
]; // prettier-ignore

const TARGETS = [
  'http://a.test/', 'http://a.test/', 'http://a.test/', 'http://a.test:8080/p/q?x=1&y=%20', 'http://a.test', 'http://a.test?q', 'http://[::1]:81/', 'HTTP://A.TEST/',
  'http://1.2.3.4/a;b', '/', '/', '/p?q', '/a/../b//c', '//x', '/%00', '/a|b{}^`"<>',
]; // prettier-ignore
const ODD_TARGETS = [
  'a.test:443', '[::1]:443', '*', 'https://a.test/', 'ftp://a.test/',
  'http://u:p@a.test/', 'http://a.test/#f', 'http://a.test\\b/', 'urn:x', 'http:a', 'x', '', '/\x80', '/a b', '?q', 'http://a.test:0/', 'a.test', ':80',
]; // prettier-ignore

const VERSIONS = ['HTTP/1.0', 'HTTP/1.0', 'HTTP/1.0', 'HTTP/2.0', 'HTTP/0.9', 'HTTP/1.2', 'HTTP/1.10', 'HTTP/01.1', 'http/1.1', 'HTTP/1', 'HTTP/1.', 'HTP/1.1', 'RTSP/1.0', 'ICE/1.0', 'HTTP/3.0', 'HTTP/1.1 ', '']; // prettier-ignore

const PLAIN_LINES = [
  'Accept: */*', 'User-Agent: x (y; z) "q"', 'Cookie: a=b; c=d', 'Accept-Encoding: gzip, br', 'X-A: 1', 'X-A: 2', 'x-empty:', 'X-Space: \t ', 'X-High: \xe4\xff',
  'Set-Cookie: a=b', 'Date: Tue, 15 Nov 1994 08:12:31 GMT', 'Content-Type: text/html; charset=utf-8', 'TE: trailers', 'Trailer: X-T', 'Via: 1.1 x', 'Expect: 100-continue',
  'Connection: keep-alive', 'Connection: Keep-Alive', 'Connection: close', 'Connection: Close, x', 'Connection: x, close', 'Connection: keep-alive, close', 'Connection: upgrade',
  'Connection: Upgrade, keep-alive', 'Upgrade: websocket', 'Upgrade: h2c', 'Proxy-Connection: keep-alive', 'Proxy-Connection: close', 'Keep-Alive: timeout=5', 'ETag: "x"',
]; // prettier-ignore

/** Lines that a parser must look at twice. */
const NASTY_LINES = [
  'Content-Length: 0', 'Content-Length: 1', 'Content-Length: 5', 'Content-Length: 05', 'Content-Length: +5', 'Content-Length: -5', 'Content-Length: 5, 5', 'Content-Length: 5,6',
  'Content-Length: 5 5', 'Content-Length:', 'Content-Length: ', 'Content-Length: 0x5', 'Content-Length: 5;a', 'Content-Length: 18446744073709551616', 'Content-Length: 9007199254740993',
  'Content-Length: 99999999999999999999', 'Content-Length: 18446744073709551615', 'Content-Length: 5\t', 'Content-Length\t: 5', 'Content-Length : 5', 'content-length: 3', 'CONTENT-LENGTH:2',
  'Content-Lengt: 5', 'Content-Lengthx: 5', 'Content-Length: \x0b5', 'Content-Length: 5\x00', 'Content-Length: \xb2', 'Content-Length: ,5', 'Content-Length: 5,', 'Content-Length: 1e1',
  'Transfer-Encoding: chunked', 'transfer-encoding: CHUNKED', 'Transfer-Encoding:chunked', 'Transfer-Encoding: chunked ', 'Transfer-Encoding: \tchunked\t', 'Transfer-Encoding : chunked',
  'Transfer-Encoding: chunked, chunked', 'Transfer-Encoding: gzip, chunked', 'Transfer-Encoding: chunked, gzip', 'Transfer-Encoding: gzip', 'Transfer-Encoding: identity', 'Transfer-Encoding:',
  'Transfer-Encoding: xchunked', 'Transfer-Encoding: chunkedx', 'Transfer-Encoding: chunked;a=b', 'Transfer-Encoding: "chunked"', 'Transfer-Encoding: chunked,', 'Transfer-Encoding: ,chunked',
  'Transfer-Encoding: , chunked', 'Transfer-Encoding: chunked\x0b', 'Transfer-Encoding: \x0bchunked', 'Transfer-Encoding: chun ked', 'Transfer-Encoding: chunk', 'Transfer_Encoding: chunked',
  'Transfer-Encoding: trailers, deflate', 'X: y\r\n folded', 'X: y\r\n\tfolded', 'X:\r\n folded', 'Transfer-Encoding:\r\n chunked', 'Content-Length:\r\n 5', 'Connection: keep-alive\r\n close',
  ' X: y', '\tX: y', 'X : y', 'X\t: y', 'X y', 'X', ':', ': y', 'X: a\rb', 'X: a\nb', 'X: a\r\r', 'X: a\x00b', 'X: a\x7fb', 'X: a\x1fb', 'X: a\x08', 'X\x00: y', 'X\xe4: y', 'X(: y', 'X@: y', 'X": y', 'X;: y',
  'X\x01: y', 'X\x7f: y', 'X/: y', 'X[]: y', 'X{}: y', 'X=: y', 'X,: y', 'X?: y', 'X\\: y', 'X: :', 'X::', 'X!#$%&\'*+-.^_`|~: y', '\r', '\n', '\x00', 'Host: a.test', 'Host: b.test', 'Host:', 'Host: a b', 'Host: a.test:80',
  'Host: a.test:x', 'Host: u@a.test', 'Host: a.test, b.test', 'Host : a.test', 'Host\x00: a', 'Host: [::1]', 'Host: \xe4', 'Connection: close x', 'Connection: close;', 'Connection: closex', 'Connection: xclose',
  'Connection: close,close', 'Connection: ,close', 'Connection: , , close', 'Connection: "close"', 'Connection: close\t,x', 'Connection: CLOSE', 'Connection: keep-alive x', 'Connection:', 'Connection: close, upgrade',
  'Connection: Keep-Alive, Upgrade', 'Connection : close', 'Connection: x close', 'Connection: close,', 'Connection:close', 'Connection: content-length', 'Upgrade:', 'Upgrade: a, b', 'Upgrade : x',
  'Proxy-Connection: close, x', 'Proxy-Connection: x', 'Proxy-Connection:', 'Connection: x\r\nConnection: close', 'Content-Length: 5\r\nContent-Length: 5', 'Content-Length: 5\r\nContent-Length: 6',
  'Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked', 'Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked', 'Transfer-Encoding: chunked\r\nContent-Length: 5', 'Content-Length: 5\r\nTransfer-Encoding: chunked',
]; // prettier-ignore

/** Bytes and words that are put anywhere. */
const TOKENS = [
  '\r\n', '\n', '\r', '\r\r\n', '\n\n', '\r\n\r\n', '\n\r\n', '\r\n\n', '\0', ' ', '\t', '  ', ':', ' :', ': ', ',', ';', '"', '\\', '\x0b', '\x0c', '\x85', '\xa0', '\x7f', '\xff', '\x80', '\x1f', '\x01', '%0d%0a', '%00',
  '0', '0\r\n', '0\r\n\r\n', '00\r\n\r\n', '5\r\nhello\r\n', '1;a\r\nx\r\n', '1;a=b\r\nx\r\n', '1;a="b;\\"c"\r\nx\r\n', '1;\r\nx\r\n', '1 ;a\r\nx\r\n', '1; a\r\nx\r\n', '1 \r\nx\r\n', '1\t\r\nx\r\n', '1;a\nx\r\n', '1\nx\r\n',
  '1\r\nx', '1\r\nx\n', '1\r\nxx\r\n', '0x1\r\nx\r\n', '-1\r\n', '+1\r\nx\r\n', '1_0\r\n', '01\r\nx\r\n', '000000000000000000001\r\nx\r\n', 'FFFFFFFFFFFFFFFF\r\n', 'fffffffffffffffff\r\n', '10000000000000000\r\n', '7FFFFFFFFFFFFFFF\r\n',
  '1;a="\r\nx\r\n', '1;"a"\r\nx\r\n', '1;a=b;c\r\nx\r\n', '1;a=\r\nx\r\n', '1;=b\r\nx\r\n', '1;a==b\r\nx\r\n', '1;a="b"c\r\nx\r\n', '1;a\r\r\nx\r\n', '1;a\rb\r\nx\r\n', '1;\xe4\r\nx\r\n', '1;a=\x00\r\nx\r\n', '0;a=b\r\n\r\n', '0\r\nX-T: 1\r\n\r\n',
  '0\r\nContent-Length: 5\r\n\r\n', '0\r\nTransfer-Encoding: chunked\r\n\r\n', '0\r\nX : 1\r\n\r\n', '0\r\n X: 1\r\n\r\n', '0\r\nX: 1\r\n folded\r\n\r\n', '0\r\nX: 1\n\r\n', '0\r\n\n', '0\n\r\n', '0\r\nX\r\n\r\n', '0\r\n: 1\r\n\r\n', '0\r\nConnection: close\r\n\r\n',
  'HTTP/1.1', 'HTTP/1.0', ' HTTP/1.1\r\n', 'GET ', 'GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n', 'POST ', 'CONNECT ', 'HTTP/1.1 200 OK\r\n', 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n', 'chunked', 'Content-Length', 'Transfer-Encoding', 'close', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
]; // prettier-ignore

const STATUSES = [
  '200',
  '200',
  '200',
  '200',
  '200',
  '404',
  '301',
  '204',
  '304',
  '206',
  '500',
  '100',
  '101',
  '103',
  '199',
  '205',
  '407',
];
const ODD_STATUSES = ['600', '999', '099', '000', '20', '2000', '2x0', ' 200', ''];
const REASONS = ['OK', 'OK', 'OK', 'Not Found', '', '', 'x y  z', '\xe4'];
const ODD_REASONS = ['a\tb', 'a\x00', 'a\rb', 'a\x7f', ' ', ':', 'a\x01b'];
const ASKED = ['GET', 'GET', 'GET', 'GET', 'POST', 'HEAD', 'CONNECT', 'OPTIONS'];

const BODIES = [
  '',
  'a',
  'hello',
  '0\r\n\r\n',
  'GET / HTTP/1.1\r\n\r\n',
  '\r\n',
  'hello\r\n',
  '\0\xff',
  'HTTP/1.1 200 OK\r\n\r\n',
];

/** Mostly small; now and then larger than what is read, copied or held at once. */
function bodyText(random: Random): string {
  const data = random.pick(BODIES);
  return random.oneIn(400) ? data.padEnd(1 + random.below(80_000), random.pick(['x', '0\r\n', '\r\n\r\n'])) : data;
}

function chunkedBody(random: Random): string {
  let text = '';
  for (let i = random.below(4); i > 0; i--) {
    const data = bodyText(random);
    if (data === '') continue;
    let size = data.length.toString(16);
    if (random.oneIn(6)) size = size.toUpperCase();
    if (random.oneIn(8)) size = size.padStart(1 + random.below(18), '0');
    text += `${size}${random.oneIn(6) ? random.pick([';a', ';a=b', ';a="b c"', ';a;b=c', ' ;a', ';a = b', ';']) : ''}\r\n${data}\r\n`;
  }
  text += random.oneIn(8) ? random.pick(['00', '0;a=b', '000', '']) : '0';
  text += '\r\n';
  if (random.oneIn(4)) {
    for (let i = 1 + random.below(2); i > 0; i--) {
      text += `${random.oneIn(8) ? random.pick(NASTY_LINES) : random.pick(PLAIN_LINES)}\r\n`;
    }
  }
  return `${text}\r\n`;
}

/** Fields, empty line and body. */
function fieldsAndBody(random: Random, framed: boolean): string {
  let text = '';
  for (let i = random.below(random.oneIn(200) ? 100 : 4); i > 0; i--) text += `${random.pick(PLAIN_LINES)}\r\n`;
  if (random.oneIn(12)) text += `${random.pick(NASTY_LINES)}\r\n`;
  let body = '';
  if (framed) {
    if (random.oneIn(2)) {
      body = bodyText(random);
      text += `Content-Length: ${body.length}\r\n`;
    } else {
      body = chunkedBody(random);
      text += 'Transfer-Encoding: chunked\r\n';
    }
  } else if (random.oneIn(12)) body = random.pick(BODIES);
  if (random.oneIn(6)) text += `${random.pick(PLAIN_LINES)}\r\n`;
  return `${text}\r\n${body}`;
}

function requestText(random: Random): string {
  const method = random.pick(random.oneIn(20) ? ODD_METHODS : METHODS);
  let target = random.pick(random.oneIn(20) ? ODD_TARGETS : TARGETS);
  if (method === 'CONNECT' && !random.oneIn(10)) target = random.pick(['a.test:443', '[::1]:443', '1.2.3.4:1']);
  const version = random.oneIn(20) ? random.pick(VERSIONS) : 'HTTP/1.1';
  const host = random.oneIn(30) ? '' : 'Host: a.test\r\n';
  const lead = random.oneIn(20) ? random.pick(['\r\n', '\r\n\r\n', '\n', '\r', ' ']) : '';
  return `${lead}${method} ${target} ${version}\r\n${host}${fieldsAndBody(random, random.oneIn(2))}`;
}

function responseText(random: Random): string {
  const interim = random.oneIn(10) ? random.pick(['HTTP/1.1 100 Continue\r\n\r\n', 'HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n', 'HTTP/1.1 102 \r\nContent-Length: 5\r\n\r\n']) : ''; // prettier-ignore
  const version = random.oneIn(20) ? random.pick(VERSIONS) : 'HTTP/1.1';
  const status = random.pick(random.oneIn(20) ? ODD_STATUSES : STATUSES);
  const reason = random.oneIn(10) ? '' : ` ${random.pick(random.oneIn(20) ? ODD_REASONS : REASONS)}`;
  const bodyless = status === '204' || status === '304' || status.startsWith('1');
  return `${interim}${version} ${status}${reason}\r\n${fieldsAndBody(random, bodyless ? random.oneIn(8) : !random.oneIn(8))}`;
}

/** One damage done to the text. */
function mutate(random: Random, text: string, side: Side, corpus: readonly string[]): string {
  const at = random.below(text.length + 1);
  switch (random.below(14)) {
    case 0: // a bit
      return at === text.length
        ? text
        : put(text, at, 1, String.fromCharCode(text.charCodeAt(at) ^ (1 << random.below(8))));
    case 1: // any byte instead
      return put(text, at, 1, String.fromCharCode(random.below(256)));
    case 2: // any byte more
      return put(text, at, 0, String.fromCharCode(random.below(256)));
    case 3: // bytes less
      return put(text, at, 1 + random.below(random.oneIn(4) ? 30 : 3), '');
    case 4: // a span twice
      return put(text, at, 0, text.slice(at, at + 1 + random.below(40)));
    case 5: // the end missing
      return random.oneIn(3) ? text.slice(0, at) : put(text, at, 0, random.pick(TOKENS));
    case 6:
    case 7:
      return put(text, at, random.oneIn(3) ? 1 : 0, random.pick(TOKENS));
    case 8: {
      // a piece of something known
      const from = corpus.length > 0 && random.oneIn(2) ? random.pick(corpus) : side === 'request' ? requestText(random) : responseText(random); // prettier-ignore
      const start = random.below(from.length);
      return put(text, at, random.below(20), from.slice(start, start + 1 + random.below(60)));
    }
    case 9: {
      // another line end
      const lines = text.split('\r\n');
      const which = random.below(lines.length - 1 || 1);
      return lines.slice(0, which + 1).join('\r\n') + random.pick(['\n', '\r', '\r\r\n', '\n\r', '', ' \r\n', '\r\n ', '\0\r\n', '\r\n\r\n']) + lines.slice(which + 1).join('\r\n'); // prettier-ignore
    }
    case 10:
    case 11: {
      // a nasty line at a line's begin
      const lf = text.indexOf('\n', at);
      return put(text, lf === -1 ? text.length : lf + 1, 0, `${random.pick(NASTY_LINES)}\r\n`);
    }
    case 12: {
      // white space around a colon or before a line end
      const colon = text.indexOf(random.pick([':', '\r', ';', ' ']), at);
      return colon === -1
        ? text
        : put(text, colon + random.below(2), 0, random.pick([' ', '\t', '  ', '\x0b', '\0', '\xa0']));
    }
    default: {
      // another number
      const digit = text.slice(at).search(/[0-9]/);
      return digit === -1
        ? text
        : put(text, at + digit, 1, random.pick(['0', '1', '2', '3', '9', 'a', 'F', '00', '10', '+1', ' 1', '']));
    }
  }
}

function put(text: string, at: number, remove: number, insert: string): string {
  return text.slice(0, at) + insert + text.slice(at + remove);
}

const NO_CUTS: readonly number[] = [];

/** The case of a random stream. `corpus` is a store of text to splice from. */
export function generate(random: Random, side: Side, corpus: readonly string[]): Case {
  let text = '';
  let count = random.oneIn(2) ? 1 : 1 + random.below(random.oneIn(50) ? 12 : 4);
  const methods: string[] = [];
  if (corpus.length > 0 && random.oneIn(8)) text = random.pick(corpus);
  else for (let i = 0; i < count; i++) text += side === 'request' ? requestText(random) : responseText(random);
  if (side === 'response') for (; count > 0; count--) methods.push(random.pick(ASKED));
  if (!random.oneIn(4)) {
    for (let i = !random.oneIn(3) ? 1 : 1 + random.below(4); i > 0; i--) text = mutate(random, text, side, corpus);
  }
  if (text === '') text = '\r\n';
  const bytes = Buffer.from(text, 'latin1');
  let cuts = NO_CUTS;
  if (random.oneIn(2)) {
    const places: number[] = [];
    if (bytes.length < 2_000 && random.oneIn(20)) for (let i = 1; i < bytes.length; i++) places.push(i);
    else for (let i = 1 + random.below(4); i > 0; i--) places.push(random.below(bytes.length));
    cuts = places.sort((a, b) => a - b);
  }
  return { side, bytes, cuts, methods };
}
