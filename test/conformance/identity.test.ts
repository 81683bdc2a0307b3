// A60–A65: who learns what. Everything that a request could betray is looked for at origins, at hops, on pages, in logs and in explanations.
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { startEcho, startHop } from '../support/hop.ts';
import { startOrigin } from '../support/origin.ts';
import { connectRaw, type RawAnswer } from '../support/raw-client.ts';
import { makePlace, runDetour, startTestCompanion, TEST_CONFIG } from '../support/with-companion.ts';
import { connectTo, get, post, until } from './talk.ts';

async function ask(port: number, request: string): Promise<RawAnswer> {
  await using client = await connectRaw(port);
  client.write(request);
  return await client.readAnswer();
}

const basic = (text: string) => Buffer.from(text).toString('base64');
const TELLTALE = [
  'Proxy-Authorization: Basic ZXZpbDpldmls', 'Proxy-Connection: keep-alive', 'Forwarded: for=192.0.2.43;host=evil', 'X-Forwarded-For: 192.0.2.43',
  'X-Forwarded-Host: evil', 'X-Forwarded-Proto: https', 'X-Forwarded-Port: 1', 'X-Forwarded-Server: evil', 'X-Real-IP: 192.0.2.43', 'Via: 1.1 evil', 'Proxy: http://evil/',
  'Client-IP: 192.0.2.43', 'True-Client-IP: 192.0.2.43', 'x-forwarded-for: evil',
]; // prettier-ignore

describe('what tells who asks', () => {
  test('A60, A65: none of it reaches the origin, from GET, POST or an upgrade; nor does anything of Detour', async () => {
    await using origin = await startOrigin();
    await using companion = await startTestCompanion();
    const url = `http://origin.test:${origin.port}/`;
    const lines = `${TELLTALE.join('\r\n')}\r\n`;
    await ask(companion.port, get(url, lines));
    await ask(companion.port, post(url, `${lines}Content-Length: 1\r\n`, 'x'));
    await ask(companion.port, get(url, `${lines}Connection: upgrade\r\nUpgrade: echo\r\n`));
    expect(origin.requests).toHaveLength(3);
    for (const { rawHeaders } of origin.requests) {
      const all = rawHeaders.join('\n').toLowerCase();
      expect(all).not.toMatch(/evil|192\.0\.2\.43|forwarded|via|proxy|detour/);
      expect(all).toContain(`origin.test:${origin.port}`);
    }
  });

  test('A60, R22: an http hop gets its own credentials and not the client’s; no field of the way', async () => {
    await using hop = await startOrigin();
    await using companion = await startTestCompanion(
      `${TEST_CONFIG}hops:\n  h: http://me:s3cret@127.0.0.1:${hop.port}\nroutes:\n  r: [[h]]\ndefault: r\n`,
    );
    await ask(companion.port, get('http://a.test/', `${TELLTALE.join('\r\n')}\r\n`));
    const { headers, rawHeaders } = hop.requests[0]!;
    expect(headers['proxy-authorization']).toBe(`Basic ${basic('me:s3cret')}`);
    expect(rawHeaders.join('\n').toLowerCase()).not.toMatch(/evil|192\.0\.2\.43|forwarded|\nvia/);
  });

  test('A61: the credentials of the second hop go inside the tunnel only: the first never sees them', async () => {
    await using origin = await startOrigin();
    await using second = await startHop({ kind: 'http', credentials: { username: 'second', password: 'pw-of-b' } });
    await using first = await startHop({ kind: 'http', credentials: { username: 'first', password: 'pw-of-a' } });
    await using companion = await startTestCompanion(
      `${TEST_CONFIG}hops:\n  a: http://first:pw-of-a@127.0.0.1:${first.port}\n  b: http://second:pw-of-b@127.0.0.1:${second.port}\nroutes:\n  r: [[a, b]]\ndefault: r\n`,
    );
    expect((await ask(companion.port, get(`http://127.0.0.1:${origin.port}/`))).status).toBe(200);
    await ask(companion.port, connectTo(`127.0.0.1:${origin.port}`)).catch(() => {});
    expect(new Set(first.logins)).toEqual(new Set(['first:pw-of-a']));
    expect(new Set(second.logins)).toEqual(new Set(['second:pw-of-b']));
    expect(first.requests.every(head => head.startsWith('CONNECT ') && !head.includes(basic('second:pw-of-b')))).toBe(
      true,
    );
    expect(second.requests.join('\n')).not.toContain(basic('first:pw-of-a'));
  });

  test('A62: failover builds the head anew: the next hop gets neither the first one’s credentials nor its cookies', async () => {
    await using refusing = await startOrigin((_, response) =>
      response
        .writeHead(403, { 'X-Squid-Error': 'ERR_ACCESS_DENIED 0', Via: '1.1 squid', 'Set-Cookie': 'hop=1' })
        .end('no'),
    );
    await using serving = await startOrigin((_, response) => response.end('served'));
    await using companion = await startTestCompanion(
      `${TEST_CONFIG}hops:\n  a: http://one:pw-of-a@127.0.0.1:${refusing.port}\n  b: http://two:pw-of-b@127.0.0.1:${serving.port}\nroutes:\n  r: [[a], [b]]\ndefault: r\n`,
    );
    const answer = await ask(companion.port, get('http://a.test/', 'Cookie: mine=1\r\n'));
    expect(answer.text).toBe('served');
    expect(answer.headers['set-cookie']).toBeUndefined();
    expect(refusing.requests).toHaveLength(1);
    expect(serving.requests[0]!.headers['proxy-authorization']).toBe(`Basic ${basic('two:pw-of-b')}`);
    expect(serving.requests[0]!.headers['cookie']).toBe('mine=1');
  });

  test('A62: DIRECT only where the route says so', async () => {
    await using origin = await startOrigin();
    await using hop = await startHop({ kind: 'http', refuse: 403 });
    const config = (chains: string) =>
      `${TEST_CONFIG}hops:\n  a: http://me:pw@127.0.0.1:${hop.port}\nroutes:\n  r: ${chains}\ndefault: r\n`;
    const url = `http://origin.test:${origin.port}/`;
    await using never = await startTestCompanion(config('[[a]]'));
    // By CONNECT the hop's no is the hop's for certain.
    expect((await ask(never.port, connectTo(`origin.test:${origin.port}`))).status).toBe(502);
    hop.become({ reset: true });
    expect((await ask(never.port, get(url))).status).toBe(502);
    expect(origin.accepted).toBe(0);
    await using allowed = await startTestCompanion(config('[[a], []]'));
    expect((await ask(allowed.port, get(url))).status).toBe(200);
    expect(JSON.stringify(origin.requests[0]!.rawHeaders)).not.toMatch(/proxy-authorization/i);
  });

  test('A64: what is tunnelled goes by the chain of its route as well, and by nothing else', async () => {
    await using echo = await startEcho();
    await using hop = await startHop({ kind: 'http', hosts: { 'secure.test': '127.0.0.1' } });
    await using companion = await startTestCompanion(
      `${TEST_CONFIG}hops:\n  h: http://127.0.0.1:${hop.port}\nroutes:\n  r: [[h]]\nsites:\n  secure.test: r\n`,
    );
    await using client = await connectRaw(companion.port);
    // What looks like a ClientHello, with whatever in it.
    const hello = Buffer.from('16030100050100000100', 'hex');
    client.write(connectTo(`secure.test:${echo.port}`));
    await client.readUntil('\r\n\r\n');
    client.write(hello);
    expect(await client.read(hello.length)).toEqual(hello);
    expect(hop.requests).toHaveLength(1);
    expect(hop.requests[0]).toMatch(new RegExp(`^CONNECT secure\\.test:${echo.port} `));
    hop.become({ refuse: 403 });
    expect((await ask(companion.port, connectTo(`secure.test:${echo.port}`))).status).toBe(502);
    expect(echo.connections).toBe(1);
  });
});

describe('secrets', () => {
  test('A63: a hop’s password is on no page, in no log, file, explanation or terminal', async () => {
    await using origin = await startOrigin((_, response) => response.writeHead(500).end('oops'));
    await using hop = await startHop({ kind: 'http', credentials: { username: 'me', password: 'other' } });
    using place = makePlace(
      `${TEST_CONFIG}hops:\n  h: http://me:hunter2@127.0.0.1:${hop.port}\n  gone: socks5://you:hunter2@127.0.0.1:1\nroutes:\n  r: [[h], [gone]]\n  d: [[]]\ndefault: r\nsites:\n  origin.test: d\nlog:\n  file: traffic.jsonl\n`,
    );
    await using companion = await startTestCompanion('', place);
    const seen: string[] = [];
    for (const request of [
      get('http://a.test/', 'Sec-Fetch-Dest: document\r\nAccept: text/html\r\n'),
      connectTo('a.test:443'),
      get(
        `http://origin.test:${origin.port}/`,
        `Authorization: Basic ${basic('x:hunter2')}\r\nCookie: s=hunter2\r\nProxy-Authorization: Basic ${basic('hunter2:hunter2')}\r\n`,
      ),
      get(`http://u:hunter2@origin.test:${origin.port}/`, 'Sec-Fetch-Dest: document\r\nAccept: text/html\r\n'),
      `CONNECT u:hunter2@origin.test:443 HTTP/1.1\r\nHost: x\r\n\r\n`,
    ]) {
      const answer = await ask(companion.port, request);
      seen.push(answer.head, answer.text);
    }
    const logFile = path.join(place.folder, 'traffic.jsonl');
    await until(() => {
      try {
        return readFileSync(logFile, 'utf8').split('\n').length > 3;
      } catch {
        return false;
      }
    }, 'the log file');
    const explained = await runDetour(['explain', 'http://a.test/'], place);
    const logged = await runDetour(['check', '--config', place.configFile], place);
    seen.push(readFileSync(logFile, 'utf8'), explained.out, explained.err, logged.out, logged.err, ...companion.said);
    const all = seen.join('\n');
    expect(all.length).toBeGreaterThan(500);
    for (const secret of ['hunter2', basic('me:hunter2'), basic('x:hunter2'), 'pw-of'])
      expect(all).not.toContain(secret);
  });

  test('A63: an error in the file shows its place, not the password beside it', async () => {
    using place = makePlace(
      'hops:\n  h: http://me:hunter2@127.0.0.1:99999\n  i: htp://me:hunter2@127.0.0.1:1\n  j: http://me:hunter2 @127.0.0.1:1\n',
    );
    const ran = await runDetour(['check', '--config', place.configFile], place);
    expect(ran.code).not.toBe(0);
    expect(ran.out + ran.err).toMatch(/:2:\d+/);
    expect(ran.out + ran.err).not.toContain('hunter2');
  });
});
