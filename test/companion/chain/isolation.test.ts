// A login for every site: what it is made of, and what a last hop hears through the whole companion.
import { writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { makeIsolation } from '../../../companion/chain/isolation.ts';
import { encodeGreeting, socks5Handshake } from '../../../companion/chain/socks5.ts';
import { siteName } from '../../../companion/worker.ts';
import type { Fault } from '../../../shared/fault.ts';
import { startHop } from '../../support/hop.ts';
import { startOrigin } from '../../support/origin.ts';
import { connectRaw } from '../../support/raw-client.ts';
import { makePlace, startTestCompanion, type TestCompanion } from '../../support/with-companion.ts';

const tor = { name: 'tor', kind: 'tor', host: 'localhost', port: 9050 } as const;

describe('the login', () => {
  const isolation = makeIsolation('secret', siteName);

  test('is the same for all hosts of a site, and another one for every other site', () => {
    expect(isolation(tor, 'www.example.com')).toEqual(isolation(tor, 'example.com'));
    expect(isolation(tor, 'example.org')).not.toEqual(isolation(tor, 'example.com'));
    expect(isolation(tor, '192.0.2.1')).not.toEqual(isolation(tor, '192.0.2.2'));
  });

  test('says nothing of the site, and after another start it is another', () => {
    const { username, password } = isolation(tor, 'example.com');
    expect(`${username}${password}`).toMatch(/^[A-Za-z0-9_-]{44}$/);
    expect(makeIsolation('other', siteName)(tor, 'example.com').username).not.toBe(username);
  });

  test('stands where a user name of the file has a place for it, beside the password of the file', () => {
    const hop = { ...tor, kind: 'socks5', username: 'me-session-{site}', password: 'w0rd' } as const;
    const { username } = isolation(tor, 'example.com');
    expect(isolation(hop, 'example.com')).toEqual({ username: `me-session-${username}`, password: 'w0rd' });
  });
});

test('a login of a site is offered alone: a hop that takes none cannot keep sites apart', () => {
  const handshake = socks5Handshake(tor, { host: 'a.test', port: 80 }, { username: 'x', password: 'y' });
  expect(handshake.opening).toEqual(encodeGreeting('only'));
  for (const method of [0, 0xff]) {
    const again = socks5Handshake(tor, { host: 'a.test', port: 80 }, { username: 'x', password: 'y' });
    expect(() => again.read(Buffer.from([5, method]))).toThrow(
      expect.objectContaining({ kind: 'hop_authentication_failed', hop: 'tor' } satisfies Partial<Fault>),
    );
  }
});

describe('through the companion', () => {
  const names = { 'a.one.test': '127.0.0.1', 'b.one.test': '127.0.0.1', 'two.test': '127.0.0.1' };
  const get = async (companion: TestCompanion, url: string) => {
    await using client = await connectRaw(companion.port);
    client.write(`GET ${url} HTTP/1.1\r\nHost: ${new URL(url).host}\r\nConnection: close\r\n\r\n`);
    expect((await client.readAnswer()).status).toBe(200);
  };
  const tunnel = async (companion: TestCompanion, at: string) => {
    await using client = await connectRaw(companion.port);
    client.write(`CONNECT ${at} HTTP/1.1\r\nHost: ${at}\r\n\r\n`);
    expect((await client.readAnswer('HEAD')).status).toBe(200);
  };

  test('a tor hop hears a login for each site, of requests and of tunnels alike', async () => {
    await using origin = await startOrigin();
    await using hop = await startHop({ kind: 'socks5', anyLogin: true, hosts: names });
    await using companion = await startTestCompanion(
      `hops: { tor: "tor://127.0.0.1:${hop.port}" }\nroutes: { hidden: [[tor]] }\ndefault: hidden\ncache: { memory: 0, disk: 0 }\n`,
    );
    await get(companion, `http://a.one.test:${origin.port}/`);
    await tunnel(companion, `b.one.test:${origin.port}`);
    await get(companion, `http://two.test:${origin.port}/`);
    const [a, b, two] = hop.logins;
    expect(b).toBe(a);
    expect(two).not.toBe(a);
    expect(hop.logins.join()).not.toMatch(/one|two|test/);
    expect(hop.requests).toEqual(['a.one.test', 'b.one.test', 'two.test'].map(host => `socks5 ${host}:${origin.port}`));
  });

  test('a route that keeps sites apart does so in a group too, and uses no connection of one that does not', async () => {
    await using origin = await startOrigin();
    await using hop = await startHop({ kind: 'socks5', anyLogin: true, hosts: names });
    const fileWith = (route: string) => `hops: { far: "socks5://127.0.0.1:${hop.port}" }
routes: { plain: [[far]], apart: { chains: [[far]], isolate: site }, group: [apart] }
default: ${route}
cache: { memory: 0, disk: 0 }
`;
    using place = makePlace(fileWith('plain'));
    await using companion = await startTestCompanion('', place);
    const url = `http://a.one.test:${origin.port}/`;
    await get(companion, url);
    await get(companion, url);
    expect([hop.connections, hop.logins.length]).toEqual([1, 0]);
    // The pool outlives a change of rules; the connection in it is not that of the site.
    for (const route of ['apart', 'group']) {
      writeFileSync(place.configFile, fileWith(route));
      while (hop.logins.length === 0) await get(companion, url);
    }
    await get(companion, url);
    expect(new Set(hop.logins).size).toBe(1);
  });
});
