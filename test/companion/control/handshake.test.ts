// Who is taken for a client at all, head by head.
import { describe, expect, test } from 'vitest';
import { hostsOf, readHandshake } from '../../../companion/control/handshake.ts';
import { Fields } from '../../../companion/message/headers.ts';
import type { RequestHead } from '../../../companion/message/message.ts';

const HOSTS = hostsOf('127.0.0.1', 8228);
const TOKEN = 'A'.repeat(43);
const ORIGIN = `chrome-extension://${'a'.repeat(32)}`;
const GOOD: Record<string, string> = {
  Host: '127.0.0.1:8228',
  Connection: 'keep-alive, Upgrade',
  Upgrade: 'websocket',
  'Sec-WebSocket-Version': '13',
  'Sec-WebSocket-Key': 'AAAAAAAAAAAAAAAAAAAAAA==',
  Origin: ORIGIN,
  'Sec-WebSocket-Protocol': `detour.v1, token.${TOKEN}`,
};

function headOf(changes: Record<string, string | string[] | null> = {}, more: Partial<RequestHead> = {}): RequestHead {
  const fields = new Fields();
  for (const [name, value] of Object.entries({ ...GOOD, ...changes })) {
    for (const one of value === null ? [] : [value].flat()) fields.append(name, one);
  }
  return {
    method: 'GET',
    target: { form: 'origin', path: '/control' },
    version: 11,
    fields,
    framing: { kind: 'none' },
    keepAlive: true,
    ...more,
  };
}

test('a browser’s handshake is read', () => {
  expect(readHandshake(headOf(), HOSTS)).toEqual({
    origin: ORIGIN,
    secret: { kind: 'token', text: TOKEN },
    protocol: 'detour.v1',
    understood: true,
    userAgent: '',
  });
});

test.each(['localhost:8228', '[::1]:8228', '127.0.0.1:8228', 'LOCALHOST:8228'])('Host %s is ours', Host => {
  expect(readHandshake(headOf({ Host }), HOSTS)).not.toBeNull();
});

test('subprotocols may come as several lines, in any order', () => {
  const head = headOf({ 'Sec-WebSocket-Protocol': ['code.012345', 'detour.v1'] });
  expect(readHandshake(head, HOSTS)?.secret).toEqual({ kind: 'code', text: '012345' });
});

test('without an Origin it is the terminal, and with another version it is not understood', () => {
  expect(readHandshake(headOf({ Origin: null }), HOSTS)?.origin).toBeNull();
  expect(readHandshake(headOf({ 'Sec-WebSocket-Protocol': `detour.v2, token.${TOKEN}` }), HOSTS)).toMatchObject({
    protocol: 'detour.v2',
    understood: false,
  });
  expect(
    readHandshake(headOf({ 'Sec-WebSocket-Protocol': `detour.v2, detour.v1, token.${TOKEN}` }), HOSTS),
  ).toMatchObject({ protocol: 'detour.v1', understood: true });
});

describe('everything else is nobody', () => {
  test.each<[string, Record<string, string | string[] | null>, Partial<RequestHead>?]>([
    ['A48: another Host', { Host: 'evil.test:8228' }],
    ['A48: a Host with another port', { Host: '127.0.0.1:8229' }],
    ['A48: a Host without its port', { Host: '127.0.0.1' }],
    ['A48: a Host that only ends like ours', { Host: 'x127.0.0.1:8228' }],
    ['A48: a Host with a dot behind it', { Host: 'localhost.:8228' }],
    ['two Hosts', { Host: ['127.0.0.1:8228', '127.0.0.1:8228'] }],
    ['no Host', { Host: null }],
    ['A52: two Origins', { Origin: [ORIGIN, ORIGIN] }],
    ['A52: no subprotocol', { 'Sec-WebSocket-Protocol': null }],
    ['A52: no secret', { 'Sec-WebSocket-Protocol': 'detour.v1' }],
    ['no version', { 'Sec-WebSocket-Protocol': `token.${TOKEN}` }],
    ['two secrets', { 'Sec-WebSocket-Protocol': `detour.v1, token.${TOKEN}, code.000000` }],
    ['the same twice', { 'Sec-WebSocket-Protocol': `detour.v1, detour.v1, token.${TOKEN}` }],
    ['a word we do not know', { 'Sec-WebSocket-Protocol': `detour.v1, token.${TOKEN}, chat` }],
    ['a short token', { 'Sec-WebSocket-Protocol': 'detour.v1, token.AAAA' }],
    ['a code of seven digits', { 'Sec-WebSocket-Protocol': 'detour.v1, code.0000000' }],
    ['a code of letters', { 'Sec-WebSocket-Protocol': 'detour.v1, code.abcdef' }],
    [
      'many subprotocols',
      { 'Sec-WebSocket-Protocol': Array.from({ length: 500 }, (_, i) => `detour.v${i}`).join(', ') },
    ],
    ['no Upgrade', { Upgrade: null }],
    ['another Upgrade', { Upgrade: 'h2c' }],
    ['no Connection: upgrade', { Connection: 'keep-alive' }],
    ['a Connection that only contains it', { Connection: 'noupgrade' }],
    ['an old WebSocket', { 'Sec-WebSocket-Version': '8' }],
    ['a broken key', { 'Sec-WebSocket-Key': 'AAAA' }],
    ['two keys', { 'Sec-WebSocket-Key': [GOOD['Sec-WebSocket-Key']!, GOOD['Sec-WebSocket-Key']!] }],
    ['A52: a token in the URL', {}, { target: { form: 'origin', path: `/control?token=${TOKEN}` } }],
    ['another path', {}, { target: { form: 'origin', path: '/control/' } }],
    [
      'A55: absolute-form',
      {},
      { target: { form: 'absolute', scheme: 'http', host: '127.0.0.1', port: 8228, path: '/control' } },
    ],
    ['A56: a POST', {}, { method: 'POST' }],
    ['a body', {}, { framing: { kind: 'length', length: 2 } }],
    ['HTTP/1.0', {}, { version: 10 }],
  ])('%s', (_what, changes, more) => {
    expect(readHandshake(headOf(changes, more), HOSTS)).toBeNull();
  });
});
