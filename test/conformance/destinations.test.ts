// A37, A40–A44: where steered traffic may go, against the whole companion. Names and their addresses (A38, A39, A45) are in companion/chain/.
import { networkInterfaces } from 'node:os';
import { describe, expect, test } from 'vitest';
import { startHop } from '../support/hop.ts';
import { startOrigin, startRawOrigin } from '../support/origin.ts';
import { connectRaw, type RawAnswer } from '../support/raw-client.ts';
import { makePlace, runDetour, startTestCompanion, TestLink } from '../support/with-companion.ts';
import { connectTo, get } from './talk.ts';

async function ask(port: number, request: string): Promise<RawAnswer> {
  await using client = await connectRaw(port);
  client.write(request);
  return await client.readAnswer();
}

const errorOf = (answer: RawAnswer) => /error=([a-z_]+)/.exec(answer.headers['proxy-status'] ?? '')?.[1];

/** Every spelling of places that a page must not reach. */
const INSIDE = [
  '127.0.0.1', '127.1', '127.255.255.254', '0x7f.1', '0177.0.0.1', '2130706433', '[::1]', '[0:0:0:0:0:0:0:1]', '0.0.0.0', '0', '[::]',
  '[::ffff:127.0.0.1]', '[::ffff:7f00:1]', '[64:ff9b::7f00:1]', '[2002:7f00:1::]', '[::127.0.0.1]', 'localhost', 'LOCALHOST.', 'a.localhost', '169.254.169.254', '169.254.1.1',
  '[fe80::1]', '[fd00:ec2::254]', '100.100.100.200', '10.0.0.1', '172.16.0.1', '192.168.1.1', '100.64.0.1', '[fc00::1]', '[fd12::1]', '192.0.2.1',
  '224.0.0.1', '255.255.255.255', '[ff02::1]',
]; // prettier-ignore

describe('a place inside', () => {
  test('A37: is refused in every spelling, for requests and tunnels, by the address that it is', async () => {
    await using companion = await startTestCompanion('');
    for (const host of INSIDE) {
      const http = await ask(companion.port, get(`http://${host}:8080/`));
      expect([http.status, errorOf(http)], host).toEqual([502, 'destination_ip_prohibited']);
      const tunnel = await ask(companion.port, connectTo(`${host}:443`));
      expect([tunnel.status, errorOf(tunnel)], host).toEqual([502, 'destination_ip_prohibited']);
    }
  });

  test('A37: is refused where a name leads to it, before a byte is sent', async () => {
    await using origin = await startOrigin();
    await using companion = await startTestCompanion(
      'dns:\n  hosts:\n    inside.test: 127.0.0.1\n    meta.test: 169.254.169.254\n',
    );
    for (const host of ['inside.test', 'meta.test']) {
      const http = await ask(companion.port, get(`http://${host}:${origin.port}/`));
      expect([http.status, errorOf(http)], host).toEqual([502, 'destination_ip_prohibited']);
      expect(errorOf(await ask(companion.port, connectTo(`${host}:${origin.port}`)))).toBe('destination_ip_prohibited');
    }
    expect(origin.accepted).toBe(0);
  });

  test('A37: a name that a rule blocks is a 403 and http_request_denied instead', async () => {
    await using companion = await startTestCompanion('rules:\n  - { host: ads.test, block: true }\n');
    const http = await ask(companion.port, get('http://x.ads.test/'));
    expect([http.status, errorOf(http)]).toEqual([403, 'http_request_denied']);
    const tunnel = await ask(companion.port, connectTo('ads.test:443'));
    expect([tunnel.status, errorOf(tunnel)]).toEqual([403, 'http_request_denied']);
  });

  test('A41: a redirect there is passed on as it is, and not followed', async () => {
    await using inside = await startOrigin();
    await using origin = await startOrigin((_, response) =>
      response.writeHead(302, { Location: `http://127.0.0.1:${inside.port}/secret`, 'Content-Location': '/x' }).end(),
    );
    await using companion = await startTestCompanion();
    const answer = await ask(companion.port, get(`http://origin.test:${origin.port}/`));
    expect(answer.status).toBe(302);
    expect(answer.headers['location']).toBe(`http://127.0.0.1:${inside.port}/secret`);
    expect(inside.accepted).toBe(0);
  });
});

describe('Detour itself', () => {
  const allOpen = 'guard:\n  allow: [0.0.0.0/0, "::/0"]\n';

  test('A40: is refused as a target by every address and name of it, whatever guard.allow says', async () => {
    await using companion = await startTestCompanion(
      `${allOpen}dns:\n  hosts:\n    me.test: 127.0.0.1\n    me6.test: "::1"\n`,
    );
    const own = Object.values(networkInterfaces()).flatMap(list =>
      (list ?? []).filter(one => !one.scopeid).map(one => one.address),
    );
    const hosts = [
      '127.0.0.1',
      '127.0.0.9',
      '0.0.0.0',
      '[::1]',
      '[::]',
      '[::ffff:127.0.0.1]',
      '2130706433',
      'localhost',
      'x.localhost',
      'me.test',
      'me6.test',
    ];
    for (const host of [...hosts, ...own.map(one => (one.includes(':') ? `[${one}]` : one))]) {
      const at = `${host}:${companion.port}`;
      for (const request of [
        get(`http://${at}/`),
        connectTo(at),
        get(`http://${at}/`, 'Connection: upgrade\r\nUpgrade: websocket\r\n'),
      ]) {
        const answer = await ask(companion.port, request);
        expect([answer.status, errorOf(answer)], request).toEqual([502, 'proxy_loop_detected']);
      }
    }
  });

  test('A40: is refused with a valid token too: no request in absolute-form is the control room’s', async () => {
    await using companion = await startTestCompanion(allOpen);
    const at = `127.0.0.1:${companion.port}`;
    const code = companion.companion.newCode().code;
    const answer = await ask(
      companion.port,
      `GET http://${at}/control HTTP/1.1\r\nHost: ${at}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: detour.v1, code.${code}\r\n\r\n`,
    );
    expect(errorOf(answer)).toBe('proxy_loop_detected');
  });

  test('A44: a hop that is its own port is refused when the file is read', async () => {
    for (const host of ['127.0.0.1', 'localhost', '127.0.0.2', '[::1]', '0.0.0.0']) {
      using place = makePlace(`listen: 127.0.0.1:8228\nhops:\n  me: http://${host}:8228\nroutes:\n  r: [[me]]\n`);
      const ran = await runDetour(['check', '--config', place.configFile], place);
      expect(ran.code, host).not.toBe(0);
      expect(ran.out + ran.err).toMatch(/loop/);
    }
  });

  test('A44, A40, R7: a chain that leads back is found when it runs, by CONNECT and by absolute-form', async () => {
    // The hop is an honest proxy that sends everything to Detour again: its own rules say so, not the request.
    let back = 0;
    await using hop = await startRawOrigin(async peer => {
      const head = await peer.readUntil('\r\n\r\n');
      const again = await connectRaw(back);
      again.write(head);
      again.socket.pipe(peer.socket).pipe(again.socket);
      peer.socket.on('close', () => again.close());
    });
    await using companion = await startTestCompanion(
      `hops:\n  h: http://127.0.0.1:${hop.port}\nroutes:\n  r: [[h]]\ndefault: r\nguard:\n  allow: [127.0.0.0/8]\nlimits:\n  identical: 8\n`,
    );
    back = companion.port;
    const tunnel = await ask(companion.port, connectTo('origin.test:443'));
    expect(tunnel.status).toBe(502);
    expect(hop.accepted).toBe(1);
    const http = await ask(companion.port, get('http://origin.test/'));
    expect(http.status).toBe(502);
    expect(hop.accepted).toBeLessThan(40);
  });

  test('A44: two hops in a circle end, too', async () => {
    let port = 0;
    await using first = await startHop({ kind: 'socks5', hosts: { 'origin.test': '127.0.0.1' } });
    await using companion = await startTestCompanion(
      `hops:\n  s: socks5://127.0.0.1:${first.port}\nroutes:\n  r: [[s]]\ndefault: r\nguard:\n  allow: [127.0.0.0/8]\nlimits:\n  identical: 8\n`,
    );
    port = companion.port;
    // The hop resolves the name to us: an opaque tunnel back into the proxy, that asks it for the same again.
    const at = `origin.test:${port}`;
    const answer = await ask(companion.port, get(`http://${at}/`));
    // What comes back to us speaks origin-form: nobody's, and nothing of it is a proxy's banner.
    expect(answer.status).toBe(400);
    expect(answer.text).toBe('');
  });
});

describe('ports and schemes', () => {
  test('A42: CONNECT to a port of another protocol is a 403 that says so, and is in the log', async () => {
    await using companion = await startTestCompanion();
    for (const port of [22, 25, 110, 143, 465, 587, 993, 6000, 6667, 81, 1]) {
      const answer = await ask(companion.port, connectTo(`origin.test:${port}`));
      expect([answer.status, errorOf(answer)], String(port)).toEqual([403, 'http_request_denied']);
      expect(answer.headers['content-type'] === undefined || answer.text.includes(String(port))).toBe(true);
    }
    const { link } = await TestLink.pair(companion.companion);
    await using _link = link;
    await link.ask({ type: 'follow', recent: 20 });
    const logged = await link.until(one => one.type === 'exchange' && one.exchange.url === 'origin.test:25');
    expect(logged).toMatchObject({ exchange: { kind: 'connect', fault: 'http_request_denied', status: 403 } });
  });

  test('A42: requests to those ports are refused as well', async () => {
    await using companion = await startTestCompanion();
    for (const port of [22, 25, 6667]) {
      const answer = await ask(companion.port, get(`http://origin.test:${port}/`));
      expect([answer.status, errorOf(answer)]).toEqual([403, 'http_request_denied']);
    }
  });

  test('A43: schemes that no proxy speaks here are a 400 or 501, and end the connection', async () => {
    await using origin = await startOrigin();
    await using companion = await startTestCompanion();
    const at = `origin.test:${origin.port}`;
    for (const [target, status] of [
      [`ftp://${at}/x`, 501],
      [`https://${at}/`, 501],
      [`ws://${at}/`, 501],
      [`gopher://${at}/`, 501],
      [`file://${at}/etc/passwd`, 501],
      ['file:///etc/passwd', 501],
      ['urn:isbn:1', 400],
      ['data:text/plain,x', 400],
      ['javascript:alert(1)', 400],
      ['mailto:a@b.test', 400],
      ['about:blank', 400],
      [`http+unix://${at}/`, 501],
      [`1http://${at}/`, 400],
    ] as const) {
      await using client = await connectRaw(companion.port);
      client.write(get(target));
      expect((await client.readAnswer()).status, target).toBe(status);
      expect((await client.readAll()).toString()).toBe('');
    }
    expect(origin.accepted).toBe(0);
  });
});
