import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  formatEndpoint,
  isAddress,
  networkOf,
  normalizeHost,
  parseEndpoint,
  parsePort,
} from '../../shared/endpoint.ts';
import { splitHost, siteOf } from '../../shared/site.ts';

test.each([
  ['Example.COM', 'example.com'],
  ['example.com.', 'example.com'],
  ['bücher.de', 'xn--bcher-kva.de'],
  ['XN--BCHER-KVA.de', 'xn--bcher-kva.de'],
  ['127.1', '127.0.0.1'],
  ['0x7f.1', '127.0.0.1'],
  ['2130706433', '127.0.0.1'],
  ['0177.0.0.1', '127.0.0.1'],
  ['127.0.0.1.', '127.0.0.1'],
  ['[::1]', '::1'],
  ['::1', '::1'],
  ['[0:0:0:0:0:0:0:1]', '::1'],
  ['[::ffff:127.0.0.1]', '127.0.0.1'],
  ['[::ffff:7f00:1]', '127.0.0.1'],
  ['[FD00::1]', 'fd00::1'],
  ['intranet', 'intranet'],
  ['_dmarc.example.com', '_dmarc.example.com'],
  ['a-b.c-d.test', 'a-b.c-d.test'],
  ['%65xample.com', null],
  ['', null],
  ['.', null],
  ['..', null],
  ['a..b', null],
  ['.example.com', null],
  ['exa mple.com', null],
  ['user@example.com', null],
  ['example.com/x', null],
  ['example.com:80', null],
  ['exa\\mple.com', null],
  ['256.1.1.1', null],
  ['1.2.3.4.5', null],
  ['[::1', null],
  ['[fe80::1%25eth0]', null],
  ['a'.repeat(64) + '.' + 'b'.repeat(200), null],
])('normalizeHost(%j) is %j', (text, host) => {
  expect(normalizeHost(text)).toBe(host);
});

test('the quick way and the URL standard agree on every name, and a normal form is a normal form', () => {
  const part = fc.string({
    unit: fc.constantFrom('a', 'B', 'z', '0', '9', 'x', '-', '_', '.', 'n', 'é', '。'),
    maxLength: 12,
  });
  fc.assert(
    fc.property(part, fc.constantFrom('', 'xn--', '0x', '.', '.com'), (body, end) => {
      const text = body + end;
      let byUrl: string | null;
      try {
        byUrl = new URL(`http://${text}/`).hostname.replace(/\.$/, '');
      } catch {
        byUrl = null;
      }
      if (byUrl === '' || /^\.|\.\.|\.$/.test(byUrl ?? '')) byUrl = null;
      const host = normalizeHost(text);
      expect(host, text).toBe(byUrl);
      if (host !== null) expect(normalizeHost(host), host).toBe(host);
    }),
    { numRuns: 5_000 },
  );
});

test('no text gets through that a URL would read as more than a host', () => {
  fc.assert(
    fc.property(
      fc.string({ unit: fc.constantFrom('a', '1', ':', '[', ']', '.', 'f', '0', '@', '/', '%', '\\', '?', '#', ' ') }),
      text => {
        const host = normalizeHost(text);
        if (host === null) return;
        const url = new URL(`http://${formatEndpoint({ host, port: 81 })}/p`);
        expect([url.port, url.pathname, url.username]).toEqual(['81', '/p', '']);
        expect(normalizeHost(url.hostname)).toBe(host);
      },
    ),
    { numRuns: 5_000 },
  );
});

test('a normal form stays as it is', () => {
  for (const host of ['example.com', 'xn--bcher-kva.de', '127.0.0.1', '::1', 'fd00::1', 'intranet'])
    expect(normalizeHost(host)).toBe(host);
});

test('endpoints are read and written with brackets where they are needed', () => {
  expect(parseEndpoint('[::1]:80')).toEqual({ host: '::1', port: 80 });
  expect(formatEndpoint({ host: '::1', port: 80 })).toBe('[::1]:80');
  expect(parseEndpoint('EXAMPLE.com:443')).toEqual({ host: 'example.com', port: 443 });
  for (const bad of [
    'example.com',
    'example.com:',
    'example.com:0',
    'example.com:65536',
    '::1:80',
    ':80',
    'example.com:8x',
  ])
    expect(parseEndpoint(bad), bad).toBeNull();
});

test('ports are digits from 1 to 65535', () => {
  expect(parsePort('65535')).toBe(65_535);
  for (const bad of ['0', '65536', '-1', '+80', '8 0', '0x50', '080808', '']) expect(parsePort(bad), bad).toBeNull();
});

test('an address is told from a name', () => {
  expect(['127.0.0.1', '::1'].map(isAddress)).toEqual([true, true]);
  expect(['example.com', '1.2.3.test', '1.2.3', '1.2.3.4.5', '1..2.3', '1.2.3.', ''].some(isAddress)).toBe(false);
});

test('a host is cut where its site begins', () => {
  expect(splitHost('www.example.co.uk', 'example.co.uk')).toEqual({ before: 'www.', site: 'example.co.uk' });
  expect(splitHost('example.com', 'example.com')).toEqual({ before: '', site: 'example.com' });
  expect(splitHost('notexample.com', 'example.com')).toEqual({ before: '', site: 'notexample.com' });
  expect(siteOf('10.0.0.1', () => null)).toBe('10.0.0.1');
});

test('addresses of one IPv6 network of 64 bits count as one, and a mapped one as the IPv4 address that it is', () => {
  expect(networkOf('2001:db8:1:2:3:4:5:6')).toBe(networkOf('2001:db8:1:2::9'));
  expect(networkOf('2001:db8:1:2::9')).not.toBe(networkOf('2001:db8:1:3::9'));
  expect(networkOf('fe80::1%eth0')).toBe(networkOf('fe80::2'));
  expect(networkOf('::ffff:192.0.2.1')).toBe('192.0.2.1');
  expect(networkOf('192.0.2.1')).toBe('192.0.2.1');
});
