// Which ports and addresses are closed, as a table, and what opens them.
import { describe, expect, test } from 'vitest';
import { findOwnListenerHops, kindOfAddress, makeAcl, makeLocalAddresses } from '../../../companion/guard/acl.ts';
import { type Endpoint, normalizeHost } from '../../../shared/endpoint.ts';
import type { FaultKind } from '../../../shared/fault.ts';

const PORTS = [
  { from: 80, to: 80 },
  { from: 443, to: 443 },
  { from: 1024, to: 65535 },
];
const nowhere: ReadonlySet<string> = new Set(['203.0.114.9', 'fd12::9']);

function acl({ allow = [] as string[], listeners = [] as Endpoint[] } = {}) {
  const guard = {
    allow: allow.map(range => ({ address: range.split('/')[0]!, prefix: Number(range.split('/')[1]) })),
    connectPorts: PORTS,
  };
  return makeAcl({ guard, listeners: () => listeners, localAddresses: () => nowhere });
}

function verdict(act: () => unknown): FaultKind | 'ok' {
  try {
    act();
    return 'ok';
  } catch (error) {
    return (error as { kind: FaultKind }).kind;
  }
}

describe('addresses (A37)', () => {
  test.each([
    ['127.0.0.1', 'loopback'],
    ['127.255.255.254', 'loopback'],
    ['0.0.0.0', 'loopback'],
    ['0.1.2.3', 'loopback'],
    ['::1', 'loopback'],
    ['::', 'loopback'],
    ['169.254.0.1', 'link-local'],
    ['fe80::1', 'link-local'],
    ['febf::1', 'link-local'],
    ['169.254.169.254', 'metadata'],
    ['fd00:ec2::254', 'metadata'],
    ['100.100.100.200', 'metadata'],
    ['168.63.129.16', 'metadata'],
    ['10.0.0.1', 'private'],
    ['172.16.0.1', 'private'],
    ['172.31.255.255', 'private'],
    ['192.168.1.1', 'private'],
    ['100.64.0.1', 'private'],
    ['fd12:3456::1', 'private'],
    ['fec0::1', 'private'],
    ['224.0.0.1', 'reserved'],
    ['255.255.255.255', 'reserved'],
    ['240.0.0.1', 'reserved'],
    ['ff02::1', 'reserved'],
    ['192.0.2.1', 'reserved'],
    ['2001:db8::1', 'reserved'],
    ['198.18.0.1', 'reserved'],
    ['64:ff9b::7f00:1', 'loopback'],
    ['::ffff:0:7f00:1', 'loopback'],
    ['::ffff:0:a9fe:a9fe', 'metadata'],
    ['64:ff9b::a9fe:a9fe', 'metadata'],
    ['2002:7f00:1::', 'loopback'],
    ['2002:c0a8:101::1', 'private'],
    ['64:ff9b::c0a8:101', 'private'],
    ['93.184.216.34', null],
    ['172.32.0.1', null],
    ['172.15.255.255', null],
    ['192.169.0.1', null],
    ['100.128.0.1', null],
    ['2606:4700::1', null],
    ['64:ff9b::5db8:d822', null],
    ['2002:5db8:d822::1', null],
  ] as const)('%s is %s', (address, kind) => expect(kindOfAddress(address)).toBe(kind));

  test.each([
    '127.0.0.1',
    '::ffff:127.0.0.1',
    '::ffff:7f00:1',
    'fe80::1%eth0',
    '10.1.2.3',
    '169.254.169.254',
    '203.0.114.9',
  ])('%s is not dialled', address => expect(acl().admitsAddress(address, 80)?.kind).toBe('destination_ip_prohibited'));

  test('a public address is dialled', () => {
    expect(acl().admitsAddress('93.184.216.34', 80)).toBeNull();
    expect(acl().admitsAddress('2606:4700::1', 443)).toBeNull();
  });

  test.each(['127.1', '0x7f.1', '2130706433', '017700000001', '[::ffff:127.0.0.1]', '127.0.0.1.'])(
    'A19: the spelling %s comes normalised and is refused',
    text => {
      const host = normalizeHost(text)!;
      expect(host).toBe('127.0.0.1');
      expect(verdict(() => acl().admit({ host, port: 80 }, 'http', false, false))).toBe('destination_ip_prohibited');
    },
  );

  test('guard.allow opens a range and nothing beside it, IPv4 carried in IPv6 included', () => {
    const guard = acl({ allow: ['10.1.0.0/16', 'fd12::/32'] });
    expect(guard.admitsAddress('10.1.2.3', 80)).toBeNull();
    expect(guard.admitsAddress('::ffff:10.1.2.3', 80)).toBeNull();
    expect(guard.admitsAddress('fd12::1', 80)).toBeNull();
    expect(guard.admitsAddress('10.2.0.1', 80)?.kind).toBe('destination_ip_prohibited');
    expect(guard.admitsAddress('fd13::1', 80)?.kind).toBe('destination_ip_prohibited');
  });
});

describe('ports (A42)', () => {
  test.each([
    ['connect', 443, 'ok'],
    ['connect', 80, 'ok'],
    ['connect', 8443, 'ok'],
    ['connect', 25, 'http_request_denied'],
    ['connect', 22, 'http_request_denied'],
    ['connect', 81, 'http_request_denied'],
    ['connect', 6667, 'http_request_denied'],
    ['connect', 10080, 'http_request_denied'],
    ['http', 80, 'ok'],
    ['http', 81, 'ok'],
    ['http', 25, 'http_request_denied'],
    ['http', 6000, 'http_request_denied'],
  ] as const)('%s to port %i: %s', (how, port, kind) =>
    expect(verdict(() => acl().admit({ host: 'a.test', port }, how, true, false))).toBe(kind),
  );
});

describe('behind hops', () => {
  test.each([
    ['127.0.0.1', false, 'destination_ip_prohibited'],
    ['127.0.0.1', true, 'destination_ip_prohibited'],
    ['169.254.169.254', true, 'destination_ip_prohibited'],
    ['fe80::1', true, 'destination_ip_prohibited'],
    ['100.100.100.200', true, 'destination_ip_prohibited'],
    ['10.0.0.1', false, 'destination_ip_prohibited'],
    ['10.0.0.1', true, 'ok'],
    ['fd12::1', true, 'ok'],
    ['localhost', true, 'destination_ip_prohibited'],
    ['app.localhost', true, 'destination_ip_prohibited'],
    ['notlocalhost', false, 'ok'],
    ['93.184.216.34', false, 'ok'],
  ] as const)('%s with private: %s is %s', (host, privateAllowed, kind) =>
    expect(verdict(() => acl().admit({ host, port: 443 }, 'connect', true, privateAllowed))).toBe(kind),
  );

  test('private: true opens nothing on the chain of zero hops', () => {
    expect(verdict(() => acl().admit({ host: '10.0.0.1', port: 443 }, 'connect', false, true))).toBe(
      'destination_ip_prohibited',
    );
  });

  test('a hop may stand in any range', () => {
    expect(acl().admitsHopAddress('127.0.0.1', 3128)).toBeNull();
    expect(acl().admitsHopAddress('10.0.0.1', 3128)).toBeNull();
  });
});

describe('own listeners (A40)', () => {
  const guard = acl({ allow: ['0.0.0.0/0', '::/0'], listeners: [{ host: '127.0.0.1', port: 8228 }] });

  test.each(['127.0.0.1', '127.0.0.2', '::1', '0.0.0.0', '::', '::ffff:127.0.0.1', '203.0.114.9', 'fd12::9'])(
    '%s with our port is refused, allowed or not, also as a hop',
    address => {
      expect(guard.admitsAddress(address, 8228)?.kind).toBe('proxy_loop_detected');
      expect(guard.admitsHopAddress(address, 8228)?.kind).toBe('proxy_loop_detected');
      expect(guard.admitsAddress(address, 8229)).toBeNull();
    },
  );

  test.each(['127.0.0.1', 'localhost', 'x.localhost'])(
    '%s is refused before anything is dialled, on either side of a hop',
    host => {
      for (const behindHops of [true, false])
        expect(verdict(() => guard.admit({ host, port: 8228 }, 'connect', behindHops, true))).toBe(
          'proxy_loop_detected',
        );
      expect(verdict(() => guard.admit({ host, port: 8229 }, 'connect', false, true))).toBe('ok');
    },
  );

  test('the listeners are asked for each time: they change with the port', () => {
    const listeners: Endpoint[] = [];
    const changing = acl({ allow: ['127.0.0.0/8'], listeners });
    expect(changing.admitsAddress('127.0.0.1', 9000)).toBeNull();
    listeners.push({ host: '127.0.0.1', port: 9000 });
    expect(changing.admitsAddress('127.0.0.1', 9000)?.kind).toBe('proxy_loop_detected');
  });
});

describe('hops of the file that lead to ourselves (A44)', () => {
  const hops = {
    self: { kind: 'http', host: '127.0.0.1', port: 8228 },
    named: { kind: 'socks5', host: 'localhost', port: 8228 },
    byInterface: { kind: 'http', host: '203.0.114.9', port: 8228 },
    other: { kind: 'http', host: '127.0.0.1', port: 3128 },
    far: { kind: 'http', host: 'proxy.example', port: 8228 },
  } as const;

  test('are named with their place in the file', () => {
    const complaints = findOwnListenerHops({ hops }, { host: '127.0.0.1', port: 8228 }, nowhere);
    expect(complaints.map(one => one.path)).toEqual([
      ['hops', 'self'],
      ['hops', 'named'],
      ['hops', 'byInterface'],
    ]);
    expect(complaints[0]!.message).toBe('leads to 127.0.0.1:8228, where Detour itself listens: a loop');
  });

  test('none while the port is not known', () =>
    expect(findOwnListenerHops({ hops }, { host: '127.0.0.1', port: 0 }, nowhere)).toEqual([]));
});

test('the addresses of this machine are read again after a while, not every time', () => {
  let now = 0;
  const local = makeLocalAddresses(() => now);
  const first = local();
  expect(first.has('127.0.0.1')).toBe(true);
  now = 9_000;
  expect(local()).toBe(first);
  now = 11_000;
  expect(local()).not.toBe(first);
});
