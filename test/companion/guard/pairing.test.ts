// Codes and tokens by themselves, under a clock in hand.
import * as v from 'valibot';
import { describe, expect, test } from 'vitest';
import {
  CODE_LIFETIME,
  CODE_TRIES,
  isExtensionOrigin,
  makePairing,
  newToken,
  sameSecret,
  type SavedClients,
} from '../../../companion/guard/pairing.ts';
import { findOpenListener } from '../../../companion/guard/listen-place.ts';
import { ConfigSchema } from '../../../shared/config.ts';

const CHROMIUM = `chrome-extension://${'a'.repeat(32)}`;
const FIREFOX = 'moz-extension://11111111-2222-4333-8444-555555555555';

function start(saved: SavedClients = { version: 1, clients: [] }) {
  const clock = { now: 1_000 };
  const kept: SavedClients[] = [];
  const pairing = makePairing({ saved, save: clients => void kept.push(clients), now: () => clock.now });
  return { clock, kept, pairing };
}

/** Any other code than this one. */
const not = (code: string) => (code === '123456' ? '654321' : '123456');

describe('a code', () => {
  test('has six digits, also when it begins with zeros', () => {
    const { pairing } = start();
    for (let i = 0; i < 2_000; i++) expect(pairing.newCode().code).toMatch(/^\d{6}$/);
  });

  test('is used up by pairing, and not by being looked at', () => {
    const { pairing } = start();
    const { code } = pairing.newCode();
    expect(pairing.isCode(code)).toBe(true);
    expect(pairing.isCode(code)).toBe(true);
    pairing.pair(CHROMIUM, 'Chromium');
    expect(pairing.isCode(code)).toBe(false);
    expect(pairing.codeIsOut).toBe(false);
  });

  test('ends with its fifth wrong try, and right tries are none', () => {
    const { pairing } = start();
    const { code } = pairing.newCode();
    for (let i = 1; i < CODE_TRIES; i++) expect(pairing.isCode(not(code))).toBe(false);
    expect(pairing.isCode(code)).toBe(true);
    expect(pairing.isCode(not(code))).toBe(false);
    expect(pairing.isCode(code)).toBe(false);
  });

  test('ends when its time is over, to the millisecond', () => {
    const { clock, pairing } = start();
    const { code, expiresAt } = pairing.newCode();
    expect(expiresAt).toBe(clock.now + CODE_LIFETIME);
    clock.now = expiresAt - 1;
    expect(pairing.isCode(code)).toBe(true);
    clock.now = expiresAt;
    expect(pairing.isCode(code)).toBe(false);
  });

  test('ends the one before it, and has tries of its own', () => {
    const { pairing } = start();
    const first = pairing.newCode().code;
    for (let i = 1; i < CODE_TRIES; i++) pairing.isCode(not(first));
    let second = pairing.newCode().code;
    while (second === first) second = pairing.newCode().code;
    expect(pairing.isCode(first)).toBe(false);
    expect(pairing.isCode(second)).toBe(true);
  });

  test('is none before one was asked for', () => {
    const { pairing } = start();
    expect(pairing.isCode('000000')).toBe(false);
    expect(pairing.isCode('')).toBe(false);
  });
});

describe('a token', () => {
  test('has 256 bits, is kept as a hash only, and belongs to its Origin', () => {
    const { pairing, kept } = start();
    pairing.newCode();
    const { token } = pairing.pair(FIREFOX, 'Firefox');
    expect(Buffer.from(token, 'base64url')).toHaveLength(32);
    expect(JSON.stringify(kept)).not.toContain(token);
    expect(pairing.clientOf(FIREFOX, token)?.name).toBe('Firefox');
    expect(pairing.clientOf(CHROMIUM, token)).toBeNull();
    expect(pairing.clientOf(FIREFOX, newToken())).toBeNull();
    expect(pairing.clientOf(FIREFOX.toUpperCase(), token)).toBeNull();
  });

  test('still lets in after a restart from what was kept', () => {
    const { pairing, kept } = start();
    const { token } = pairing.pair(FIREFOX, 'Firefox');
    const again = start(JSON.parse(JSON.stringify(kept.at(-1))) as SavedClients);
    expect(again.pairing.clientOf(FIREFOX, token)?.name).toBe('Firefox');
  });

  test('is not given away when it could not be kept', () => {
    const pairing = makePairing({
      saved: { version: 1, clients: [] },
      now: () => 0,
      save: () => {
        throw new Error('the disk is full');
      },
    });
    const { code } = pairing.newCode();
    expect(() => pairing.pair(FIREFOX, 'Firefox')).toThrow('full');
    expect(pairing.clients).toEqual([]);
    expect(pairing.isCode(code)).toBe(true);
  });

  test('is gone with its client, and no other is', () => {
    const { pairing, kept } = start();
    const one = pairing.pair(FIREFOX, 'Firefox');
    const two = pairing.pair(FIREFOX, 'Firefox');
    expect(pairing.clients.map(client => client.name)).toEqual(['Firefox', 'Firefox 2']);
    expect(pairing.unpair('Firefox')).toBe(true);
    expect(pairing.unpair('Firefox')).toBe(false);
    expect(pairing.clientOf(FIREFOX, one.token)).toBeNull();
    expect(pairing.clientOf(FIREFOX, two.token)?.name).toBe('Firefox 2');
    expect(kept.at(-1)!.clients).toHaveLength(1);
    expect(pairing.pair(CHROMIUM, 'Firefox').name).toBe('Firefox');
  });

  test('of the oldest client ends when there are too many', () => {
    const { pairing } = start();
    const first = pairing.pair(CHROMIUM, 'Chromium');
    for (let i = 0; i < 64; i++) pairing.pair(CHROMIUM, 'Chromium');
    expect(pairing.clients).toHaveLength(64);
    expect(pairing.clientOf(CHROMIUM, first.token)).toBeNull();
  });
});

test.each([
  [CHROMIUM, true],
  [FIREFOX, true],
  ['null', false],
  ['', false],
  ['http://127.0.0.1:8228', false],
  [`chrome-extension://${'a'.repeat(31)}z`, false],
  [`${CHROMIUM}/`, false],
  [`${CHROMIUM}.evil.test`, false],
  [`https://evil.test/${CHROMIUM}`, false],
  [`${CHROMIUM}\nx`, false],
  ['moz-extension://detour', false],
  ['safari-web-extension://11111111-2222-4333-8444-555555555555', false],
])('A53 %j may pair: %j', (origin, may) => {
  expect(isExtensionOrigin(origin)).toBe(may);
});

test('secrets are the same or not, whatever their lengths', () => {
  expect(sameSecret('abc', 'abc')).toBe(true);
  expect(sameSecret('abc', 'abd')).toBe(false);
  expect(sameSecret('abc', 'abcd')).toBe(false);
  expect(sameSecret('', '')).toBe(true);
});

test.each([
  ['127.0.0.1', true],
  ['127.8.8.8', true],
  ['::1', true],
  ['localhost', true],
  ['0.0.0.0', false],
  ['::', false],
  ['192.168.1.5', false],
  ['fd00::1', false],
  ['my-machine.test', false],
  ['127.example.test', false],
])('A46 listening on %s is allowed: %j', (host, allowed) => {
  const { guard } = v.parse(ConfigSchema, {});
  expect(findOpenListener({ listen: { host, port: 8228 }, guard }).length === 0).toBe(allowed);
});
