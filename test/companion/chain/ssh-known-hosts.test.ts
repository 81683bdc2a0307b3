// known_hosts without a file and without a server: names, patterns, hashes, markers.
import { createHmac } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import {
  algorithmsFor,
  fingerprintOf,
  hostKeyRefusal,
  keysFor,
  keyTypeOf,
} from '../../../companion/chain/ssh-known-hosts.ts';

const keyOf = (type: string, fill: number) => {
  const name = Buffer.alloc(4 + type.length);
  name.writeUInt32BE(type.length);
  name.write(type, 4, 'latin1');
  return Buffer.concat([name, Buffer.alloc(36, fill)]);
};
const key = keyOf('ssh-ed25519', 1);
const other = keyOf('ssh-ed25519', 2);
const rsa = keyOf('ssh-rsa', 3);
const line = (hosts: string, blob = key) => `${hosts} ${keyTypeOf(blob)} ${blob.toString('base64')} a comment`;
const hashed = (name: string) => {
  const salt = Buffer.alloc(20, 7);
  return `|1|${salt.toString('base64')}|${createHmac('sha1', salt).update(name).digest('base64')}`;
};
const trust = (text: string, host = 'gw.test', port = 22) => ({
  file: 'known',
  keys: keysFor(text, host, port),
  host,
  port,
});

describe('which lines speak of a server', () => {
  test.each([
    ['gw.test', 'gw.test', 22, true],
    ['GW.Test', 'gw.test', 22, true],
    ['a.test,gw.test', 'gw.test', 22, true],
    ['*.test', 'gw.test', 22, true],
    ['g?.test', 'gw.test', 22, true],
    ['*.test,!gw.test', 'gw.test', 22, false],
    ['gw.test', 'gw.test', 2222, false],
    ['[gw.test]:2222', 'gw.test', 2222, true],
    ['[gw.test]:2222', 'gw.test', 22, false],
    ['gw.test.evil', 'gw.test', 22, false],
    ['2001:db8::7', '2001:db8::7', 22, true],
    [hashed('gw.test'), 'gw.test', 22, true],
    [hashed('gw.test'), 'gw.test', 2222, false],
    [hashed('[gw.test]:2222'), 'gw.test', 2222, true],
    ['|1|broken', 'gw.test', 22, false],
    ['|2|x|y', 'gw.test', 22, false],
  ])('%s for %s port %i: %s', (hosts, host, port, speaks) => {
    expect(keysFor(line(hosts), host, port).known.length).toBe(speaks ? 1 : 0);
  });

  test('comments, empty lines and broken ones are passed over, and lines keep their numbers', () => {
    const found = keysFor(
      `# one\n\ngw.test\ngw.test ssh-rsa ${key.toString('base64')}\r\n${line('gw.test')}\r\n`,
      'gw.test',
      22,
    );
    expect(found.known.map(one => one.line)).toEqual([5]);
  });

  test('a pattern full of stars is judged at once', () => {
    const pattern = `${'*a'.repeat(500)}b`;
    expect(keysFor(line(pattern), 'a'.repeat(250), 22).known).toEqual([]);
  });
});

describe('the verdict', () => {
  test('a known key, of one or of several', () => {
    expect(hostKeyRefusal(key, trust(line('gw.test')))).toBeNull();
    expect(hostKeyRefusal(key, trust(`${line('gw.test', other)}\n${line('*.test')}`))).toBeNull();
  });

  test('an unknown one: its fingerprint, and the line to add', () => {
    const no = hostKeyRefusal(key, trust('', 'gw.test', 2222))!;
    expect(no).toContain(fingerprintOf(key));
    expect(no).toContain(`add the line "[gw.test]:2222 ssh-ed25519 ${key.toString('base64')}"`);
  });

  test('a changed one names the line', () => {
    expect(hostKeyRefusal(key, trust(line('gw.test', other)))).toMatch(/known:1 has another/);
  });

  test('a key of another type than the known one is not trusted for that', () => {
    expect(hostKeyRefusal(rsa, trust(line('gw.test')))).toMatch(/known:1 has another/);
  });

  test('revoked wins over known', () => {
    expect(hostKeyRefusal(key, trust(`${line('gw.test')}\n@revoked ${line('*')}`))).toMatch(/known:2 revokes/);
  });

  test('an authority is no key, and that it was passed over is told', () => {
    const no = hostKeyRefusal(key, trust(`@cert-authority ${line('*.test')}`))!;
    expect(no).toContain('the authority in line 1 cannot be asked here');
  });

  test('a pin with padding is the same pin', () => {
    expect(hostKeyRefusal(key, { pins: [`${fingerprintOf(key)}=`] })).toBeNull();
    expect(hostKeyRefusal(key, { pins: [fingerprintOf(other)] })).toContain(`hostKey: "${fingerprintOf(key)}"`);
  });
});

test('what is known is asked for first, and neither SHA-1 nor DSA ever', () => {
  const asked = algorithmsFor(trust(line('gw.test', rsa)));
  expect(asked.slice(0, 2)).toEqual(['rsa-sha2-512', 'rsa-sha2-256']);
  expect(asked).toContain('ssh-ed25519');
  for (const bad of ['ssh-rsa', 'ssh-dss']) expect(asked).not.toContain(bad);
});
