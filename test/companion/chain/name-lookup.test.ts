// Who is asked for addresses, as the file has it, in the whole companion.
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { expect, test } from 'vitest';
import { makeTestAuthority } from '../../support/certificates.ts';
import { startDnsServer, startHttpsDnsServer } from '../../support/dns-server.ts';
import { startHop } from '../../support/hop.ts';
import { startOrigin } from '../../support/origin.ts';
import { connectRaw, type RawAnswer } from '../../support/raw-client.ts';
import { makePlace, spawnDetour, startTestCompanion, TestLink } from '../../support/with-companion.ts';

const LOOPBACK = 'guard: { allow: [127.0.0.0/8] }\n';
const names = { 'a.test': ['127.0.0.1'] };

async function get(port: number, host: string): Promise<RawAnswer> {
  await using client = await connectRaw(port);
  client.write(`GET http://${host}/ HTTP/1.1\r\nHost: ${host}\r\n\r\n`);
  return await client.readAnswer('GET', 15_000);
}

test('dns.servers are asked instead of the system, once; after a change of dns the new ones are', async () => {
  await using origin = await startOrigin();
  await using first = await startDnsServer({ names });
  await using second = await startDnsServer({ names });
  await using running = await startTestCompanion(`${LOOPBACK}dns: { servers: ["${first.at}"] }\n`);
  const host = `a.test:${origin.port}`;
  for (let i = 0; i < 3; i++) expect((await get(running.port, host)).status).toBe(200);
  expect(first.asked.filter(one => one === 'A a.test')).toHaveLength(1);

  writeFileSync(running.place.configFile, `${LOOPBACK}dns: { servers: ["${second.at}"] }\n`);
  await expect.poll(async () => (await get(running.port, host), second.asked)).toContain('A a.test');
  expect(first.asked.filter(one => one === 'A a.test')).toHaveLength(1);

  // Another change leaves what is known alone.
  writeFileSync(
    running.place.configFile,
    `${LOOPBACK}dns: { servers: ["${second.at}"] }\nsites: { b.test: companion }\n`,
  );
  await using link = (await TestLink.pair(running.companion)).link;
  await expect
    .poll(async () => JSON.stringify(await link.ask({ type: 'explain', url: 'http://b.test/' })))
    .toContain('steered to');
  expect((await get(running.port, host)).status).toBe(200);
  expect(second.asked.filter(one => one === 'A a.test')).toHaveLength(1);
});

test('A92: the page says which name and which server; nothing is asked of the next one in secret', async () => {
  await using dns = await startDnsServer({ names, rcode: 5 });
  await using running = await startTestCompanion(`${LOOPBACK}dns: { servers: ["${dns.at}"] }\n`);
  const answer = await get(running.port, 'a.test:8080');
  expect(answer.status).toBe(502);
  expect(answer.headers['proxy-status']).toContain('error=dns_error');
  expect(answer.text).toContain(`${dns.at} says REFUSED`);
  expect(answer.text).toContain('a.test:8080');
});

test('what dns.lies of the file has is no answer; the rest of an answer is, and an auto route takes the chains', async () => {
  await using origin = await startOrigin();
  await using dns = await startDnsServer({
    names: { 'a.test': ['127.0.0.1', '127.0.0.66'], 'lied.test': ['127.0.0.66'] },
  });
  await using hop = await startHop({ kind: 'socks5', hosts: { 'lied.test': '127.0.0.1' } });
  await using running = await startTestCompanion(`${LOOPBACK}dns: { servers: ["${dns.at}"], lies: [127.0.0.66] }
hops: { far: "socks5://127.0.0.1:${hop.port}" }
routes: { smart: { chains: [[far]], pick: auto } }
sites: { lied.test: smart }
`);
  expect((await get(running.port, `a.test:${origin.port}`)).status).toBe(200);
  const { link } = await TestLink.pair(running.companion);
  await using _ = link;
  // On a slow machine the hop may win the race that the first request is.
  await expect
    .poll(async () => {
      expect((await get(running.port, `lied.test:${origin.port}`)).status).toBe(200);
      return link.ask({ type: 'site-ways' });
    })
    .toMatchObject({ sites: [{ site: 'lied.test', sign: 'poisoned' }] });
  expect(hop.requests[0]).toBe(`socks5 lied.test:${origin.port}`);
  writeFileSync(
    running.place.configFile,
    `${LOOPBACK}dns: { servers: ["${dns.at}"], lies: [127.0.0.66] }\nsites: { lied.test: companion }\n`,
  );
  await expect.poll(async () => (await get(running.port, `lied.test:${origin.port}`)).text).toContain('dns.lies');
});

test('explain says who is asked, and asks nobody', async () => {
  await using dns = await startDnsServer({ names });
  const config = `${LOOPBACK}hops: { far: "socks5://127.0.0.1:1080" }
routes: { far: [[far]], open: { chains: [[far]], else: companion } }
sites: { far.test: far, open.test: open }
dns: { hosts: { written.test: 127.0.0.1 }, servers: ["${dns.at}"] }
`;
  await using running = await startTestCompanion(config);
  await using link = (await TestLink.pair(running.companion)).link;
  const said = async (host: string) => {
    const { explanation } = (await link.ask({ type: 'explain', url: `http://${host}/` })) as unknown as {
      explanation: { steps: string[] };
    };
    return explanation.steps.filter(step => step.startsWith('DNS: '));
  };
  expect(await said('a.test')).toEqual([`DNS: the companion asks ${dns.at}.`]);
  expect(await said('written.test')).toEqual(['DNS: dns.hosts says 127.0.0.1.']);
  expect(await said('far.test')).toEqual(['DNS: the hop "far" finds the address; this machine does not ask for it.']);
  expect(await said('open.test')).toHaveLength(2);
  expect(await said('192.0.2.1')).toEqual([]);
  expect(dns.asked).toEqual([]);
});

test('DNS over HTTPS goes by its route, certificate verified; when the route is down, no other way is tried', async () => {
  const authority = await makeTestAuthority();
  await using origin = await startOrigin();
  await using dns = await startHttpsDnsServer(await authority.issue('dns.test'), { names });
  await using hop = await startHop({ kind: 'socks5', hosts: { 'dns.test': '127.0.0.1' } });
  using place = makePlace(`${LOOPBACK}hops: { far: "socks5://127.0.0.1:${hop.port}" }
routes: { far: [[far]] }
dns: { https: "https://dns.test:${dns.port}/dns-query", route: far, serveStale: 0 }
limits: { hopTimeout: 2 }
`);
  const ca = await authority.writeTo(path.join(place.folder, 'ca.pem'));
  await using running = spawnDetour(['start', '--config', place.configFile, '--port', '0'], place, {
    NODE_EXTRA_CA_CERTS: ca,
  });
  const port = Number((await running.printed(/127\.0\.0\.1:(\d+)/))[1]);
  expect((await get(port, `a.test:${origin.port}`)).status).toBe(200);
  expect(dns.asked.toSorted()).toEqual(['https A a.test', 'https AAAA a.test']);
  expect(new Set(hop.requests)).toEqual(new Set([`socks5 dns.test:${dns.port}`]));

  hop.become({ refuse: 2 });
  dns.hangUp();
  const answer = await get(port, `b.test:${origin.port}`);
  expect(answer.status).toBe(502);
  expect(answer.text).toContain('dns.test');
  expect(answer.text).toContain('refused');
  expect(dns.asked).toHaveLength(2);
});
