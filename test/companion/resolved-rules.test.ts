// Rules for the addresses that names lead to: only where the companion would connect by itself.
import { Agent, request } from 'node:http';
import { expect, test } from 'vitest';
import { startHop } from '../support/hop.ts';
import { startOrigin } from '../support/origin.ts';
import { connectRaw } from '../support/raw-client.ts';
import { startTestCompanion } from '../support/with-companion.ts';

const configOf = (hopPort: number, more: string) => `guard:
  allow: [127.0.0.0/8]
dns:
  hosts:
    origin.test: 127.0.0.1
    other.test: 127.0.0.2
hops:
  hop: socks5://127.0.0.1:${hopPort}
routes:
  far: [[hop]]
${more}`;

function get(port: number, url: string): Promise<number> {
  return new Promise((resolve, reject) => {
    request(
      { host: '127.0.0.1', port, path: url, headers: { host: new URL(url).host }, agent: new Agent() },
      answer => void answer.resume().on('end', () => resolve(answer.statusCode!)),
    )
      .on('error', reject)
      .end();
  });
}

test('a name that leads into the range is blocked, over http and in a tunnel; a rule that names it goes before', async () => {
  await using origin = await startOrigin();
  await using hop = await startHop({ kind: 'socks5', hosts: { 'named.test': '127.0.0.1' } });
  await using running = await startTestCompanion(
    configOf(
      hop.port,
      'sites:\n  named.test: far\nrules:\n  - { host: 127.0.0.1/32, resolved: true, block: true }\n  - { keyword: spare, route: companion }\n',
    ),
  );
  expect(await get(running.port, `http://origin.test:${origin.port}/`)).toBe(403);
  await using client = await connectRaw(running.port);
  client.write(`CONNECT origin.test:${origin.port} HTTP/1.1\r\nHost: origin.test:${origin.port}\r\n\r\n`);
  expect((await client.readAnswer('CONNECT')).status).toBe(403);
  expect(origin.requests).toHaveLength(0);
  // Behind hops no name is looked up here, whatever the rule says.
  expect(await get(running.port, `http://named.test:${origin.port}/`)).toBe(200);
  expect(origin.requests).toHaveLength(1);
});

test('a name that leads into the range goes by the route of the rule, by its name', async () => {
  await using origin = await startOrigin();
  await using hop = await startHop({ kind: 'socks5', hosts: { 'origin.test': '127.0.0.1' } });
  await using running = await startTestCompanion(
    configOf(hop.port, 'rules:\n  - { host: 127.0.0.1/32, resolved: true, route: far }\n'),
  );
  expect(await get(running.port, `http://origin.test:${origin.port}/`)).toBe(200);
  expect(hop.requests.join()).toContain('origin.test');
});
