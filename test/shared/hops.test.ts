// A hop in the file: what each kind may say, in one line and at length, and what is said when it says something else.
import { describe, expect, test } from 'vitest';
import * as v from 'valibot';
import { HopSchema, parseHopUrl } from '../../shared/config/hops.ts';

const read = (input: unknown) => v.parse(HopSchema, input);
/** `path: message` of everything that is wrong. */
const faults = (input: unknown): string[] =>
  (v.safeParse(HopSchema, input).issues ?? []).map(
    issue => `${issue.path?.map(item => String(item.key)).join('/') ?? ''}: ${issue.message}`,
  );
const PIN = `sha256/${'A'.repeat(43)}=`;

describe('one line', () => {
  test.each([
    [
      'https://me:pw@proxy.example',
      { kind: 'https', host: 'proxy.example', port: 443, username: 'me', password: 'pw' },
    ],
    ['socks4://gw.example', { kind: 'socks4a', host: 'gw.example', port: 1080 }],
    ['socks4a://me@gw.example:1081', { kind: 'socks4a', host: 'gw.example', port: 1081, username: 'me' }],
    ['socks://gw.example', { kind: 'socks5', host: 'gw.example', port: 1080 }],
    ['ssh://me@gw.example', { kind: 'ssh', host: 'gw.example', port: 22, username: 'me' }],
    ['ssh://me:pw@gw.example:2222', { kind: 'ssh', host: 'gw.example', port: 2222, username: 'me', password: 'pw' }],
    ['tor://', { kind: 'tor', host: '127.0.0.1', port: 9050 }],
    ['tor://[::1]:9150', { kind: 'tor', host: '::1', port: 9150 }],
  ])('%s is a hop', (url, hop) => {
    expect(parseHopUrl(url)).toEqual(hop);
  });

  test('SOCKS4 has no password', () => {
    expect(parseHopUrl('socks4a://me:pw@gw.example')).toBe('has a password: SOCKS4 knows user names only');
  });
});

describe('at length', () => {
  test('port, and for tor the host, need not be said', () => {
    expect(read({ kind: 'tor' })).toEqual({ kind: 'tor', host: '127.0.0.1', port: 9050 });
    expect(read({ kind: 'http', host: 'a.example' })).toEqual({ kind: 'http', host: 'a.example', port: 3128 });
    expect(faults({ kind: 'http' })).toEqual(['host: needs host']);
  });

  test('everything that may be said of an http hop', () => {
    const hop = {
      kind: 'http',
      host: 'proxy.example',
      port: 8080,
      username: 'me',
      password: { command: ['pass', 'show', 'office'] },
      auth: 'digest',
      form: 'connect',
      headers: { 'X-Team': 'blue sky' },
      bind: '192.0.2.7',
      privacy: 2,
    };
    expect(read(hop)).toEqual(hop);
  });

  test.each([
    [{ kind: 'socks5', tls: {} }, 'tls: a hop of kind socks5 has no tls: it is for https'],
    [{ kind: 'tor', form: 'connect' }, 'form: a hop of kind tor has no form: it is for http, https'],
    [{ kind: 'socks5', auth: 'basic' }, 'auth: a hop of kind socks5 has no auth: it is for http, https'],
    [{ kind: 'http', ssh: {} }, 'ssh: a hop of kind http has no ssh: it is for ssh'],
    [{ kind: 'ssh', form: 'connect' }, 'form: a hop of kind ssh has no form: it is for http, https'],
    [{ kind: 'ssh', headers: {} }, 'headers: a hop of kind ssh has no headers: it is for http, https'],
    [
      { kind: 'socks4a', username: 'me', password: 'x' },
      'password: a hop of kind socks4a has no password: it is for http, https, socks5, ssh, tor',
    ],
    [{ kind: 'socks4a', username: 'm\0e' }, 'username: has a character that ends it'],
    [{ kind: 'http', password: 'x' }, 'password: has no username beside it'],
    [
      { kind: 'http', username: 'me', password: {} },
      'password: is one of { env: NAME }, { file: FILE } and { command: [program, argument] }',
    ],
    [
      { kind: 'http', username: 'me', password: { env: 'A', file: 'b' } },
      'password: is one of { env: NAME }, { file: FILE } and { command: [program, argument] }',
    ],
    [
      { kind: 'http', username: 'me', password: { env: 'A B' } },
      'password/env: is not the name of an environment variable',
    ],
    [
      { kind: 'http', username: 'me', password: { command: 'pass' } },
      'password/command: is not a list: write [program, argument]',
    ],
    [{ kind: 'http', username: 'me', password: { command: [] } }, 'password/command: names no program'],
    [{ kind: 'http', auth: 'ntlm' }, 'auth: is not basic, digest or auto'],
    [{ kind: 'http', bind: 'eth0' }, 'bind: is not an address like 192.0.2.7 or 2001:db8::7'],
    [{ kind: 'http', privacy: 10 }, 'privacy: must be at most 9'],
    [{ kind: 'https', tls: { cert: 'a.pem' } }, 'tls: has only one of cert and key'],
    [{ kind: 'https', tls: { pin: 'sha256/AAAA' } }, 'tls/pin: is not a pin like sha256/BASE64 (44 characters)'],
    [{ kind: 'https', tls: { servername: '192.0.2.7' } }, 'tls/servername: is an address, not a name'],
    [{ kind: 'https', tls: { verify: false } }, 'tls/verify: unknown key "verify"'],
    [{ kind: 'ssh', ssh: { hostKey: 'MD5:aa' } }, 'ssh/hostKey: is not a fingerprint like SHA256:BASE64'],
    [{ kind: 'gopher' }, 'kind: is not a kind of hop: http, https, socks4a, socks5, ssh or tor'],
  ])('%j is refused at its place', (part, sentence) => {
    expect(faults({ host: 'a.example', ...part })).toContain(sentence);
  });

  test.each([
    ['Host', 'x', 'headers/Host: is not a field that can be set for a hop'],
    ['content-LENGTH', '1', 'headers/content-LENGTH: is not a field that can be set for a hop'],
    ['Connection', 'close', 'headers/Connection: is not a field that can be set for a hop'],
    ['Proxy-Authorization', 'x', 'headers/Proxy-Authorization: is not a field that can be set for a hop'],
    ['X Y', 'x', 'headers/X Y: is not the name of a field'],
    ['X-Y', 'a\r\nHost: b', 'headers/X-Y: is not the value of a field: printable ASCII, one line'],
    ['X-Y', ' a', 'headers/X-Y: is not the value of a field: printable ASCII, one line'],
  ])('the field %s: %j is refused', (name, value, sentence) => {
    expect(faults({ kind: 'http', host: 'a.example', headers: { [name]: value } })).toEqual([sentence]);
  });

  test('a field cannot be written twice in two spellings', () => {
    expect(faults({ kind: 'http', host: 'a.example', headers: { 'X-A': '1', 'x-a': '2' } })).toEqual([
      'headers: has the same field twice',
    ]);
  });

  test('a hop of kind ssh needs no more than its host', () => {
    expect(faults({ kind: 'ssh', host: 'a.example' })).toEqual([]);
    expect(faults('ssh://me@a.example')).toEqual([]);
    expect(faults({ kind: 'ssh', host: 'a.example', ssh: { hostKey: 'SHA256:x' } })[0]).toMatch(/not a fingerprint/);
    expect(faults({ kind: 'https', host: 'a.example', tls: { pin: PIN } })).toEqual([]);
  });
});
