// What the file can say of a hop, in the whole companion: TLS from files, secrets from elsewhere, Digest, fields, the form, and the address it connects from.
import { execFile } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { TOKEN_PREFIX } from '../../shared/control.ts';
import { makeTestAuthority } from '../support/certificates.ts';
import { startEcho, startHop } from '../support/hop.ts';
import { type Origin, startOrigin, startRawOrigin } from '../support/origin.ts';
import { havePeers, startSquid, startTinyproxy } from '../support/peers.ts';
import { connectRaw, type RawAnswer } from '../support/raw-client.ts';
import { startTlsFront } from '../support/tls-front.ts';
import {
  cliToken,
  makePlace,
  type Place,
  startTestCompanion,
  type TestCompanion,
  TestLink,
} from '../support/with-companion.ts';

const hosts = { 'origin.test': '127.0.0.1', 'proxy.test': '127.0.0.1' };
const credentials = { username: 'me', password: 's3cret' };
const BODY = Buffer.alloc(300_000, 'detour ');

let origin: Origin;
beforeAll(async () => {
  origin = await startOrigin((request, response, body) => {
    response.setHeader('Cache-Control', 'no-store');
    response.end(request.url === '/long' ? BODY : `${request.method} ${body.length}`);
  });
});
afterAll(async () => origin[Symbol.asyncDispose]());

/** A file whose only route, and default, goes through these hops. */
function fileWith(hops: string, chain: string): string {
  return `guard: { allow: [127.0.0.0/8] }\ndns: { hosts: { proxy.test: 127.0.0.1 } }\nhops:\n${hops}\nroutes: { way: { chains: [${chain}], private: true } }\ndefault: way\n`;
}

async function ask(
  companion: TestCompanion,
  what = 'GET /',
  body = '',
  more = '',
  host = 'origin.test',
): Promise<RawAnswer> {
  await using client = await connectRaw(companion.port);
  const [method, target] = what.split(' ') as [string, string];
  const length = body === '' ? '' : `Content-Length: ${body.length}\r\n`;
  client.write(
    `${method} http://${host}:${origin.port}${target} HTTP/1.1\r\nHost: ${host}:${origin.port}\r\n${length}${more}\r\n${body}`,
  );
  return await client.readAnswer(method);
}

/** The status of a CONNECT; where it is 200, what the origin says through the tunnel. */
async function tunnel(companion: TestCompanion): Promise<string> {
  await using client = await connectRaw(companion.port);
  client.write(`CONNECT origin.test:${origin.port} HTTP/1.1\r\nHost: origin.test:${origin.port}\r\n\r\n`);
  const head = await client.readUntil('\r\n\r\n');
  if (!head.startsWith('HTTP/1.1 200')) return head;
  client.write(`GET /tunnel HTTP/1.1\r\nHost: origin.test:${origin.port}\r\n\r\n`);
  return (await client.readAnswer()).text;
}

const lastHeaders = () => JSON.stringify(origin.requests.at(-1)!.rawHeaders).toLowerCase();

describe.runIf(havePeers('squid', 'tinyproxy'))('real proxies', () => {
  test('squid asks for Digest: on absolute-form and CONNECT, with a nonce used on until squid wants another', async () => {
    await using squid = await startSquid({ hosts, credentials, digestNonceUses: 4 });
    const hop = `  squid: { kind: http, host: 127.0.0.1, port: ${squid.port}, username: me, password: s3cret, auth: digest }`;
    await using companion = await startTestCompanion(fileWith(hop, '[squid]'));
    for (let i = 0; i < 7; i++) {
      expect((await ask(companion)).text).toBe('GET 0');
      expect(lastHeaders()).not.toContain('proxy-authorization');
      expect(await tunnel(companion)).toBe('GET 0');
    }
    expect((await ask(companion, 'POST /', 'x'.repeat(1000))).text).toBe('POST 1000');
    const counts = squid.log().match(/TCP_DENIED\/407/g)!.length;
    // The first, and where squid does not say what the next nonce is, one for every nonce that has been used up.
    expect(counts).toBeLessThan(12);
  });

  test('squid asks for Digest of many requests at once, and all are served', async () => {
    await using squid = await startSquid({ hosts, credentials, digestNonceUses: 50 });
    const hop = `  squid: { kind: http, host: 127.0.0.1, port: ${squid.port}, username: me, password: s3cret, auth: digest }`;
    await using companion = await startTestCompanion(fileWith(hop, '[squid]'));
    for (let round = 0; round < 4; round++) {
      const asked = Array.from({ length: 24 }, (_, i) =>
        i % 2 === 0 ? ask(companion, `GET /${round}/${i}`).then(({ text }) => text) : tunnel(companion),
      );
      expect(new Set(await Promise.all(asked))).toEqual(new Set(['GET 0']));
    }
    // As many nonces as ran at once at the most, and they are used on.
    expect(squid.log().match(/TCP_DENIED\/407/g)!.length).toBeLessThanOrEqual(2 * 24);
  });

  test('squid asks for Digest and is told Basic first, where the file says nothing', async () => {
    await using squid = await startSquid({ hosts, credentials, digestNonceUses: 50 });
    await using companion = await startTestCompanion(fileWith(`  squid: ${squid.url}`, '[squid]'));
    expect(await tunnel(companion)).toBe('GET 0');
    expect((await ask(companion)).text).toBe('GET 0');
  });

  test('A62: a wrong password for Digest ends, and no challenge of the hop reaches the browser', async () => {
    await using squid = await startSquid({ hosts, credentials, digestNonceUses: 50 });
    await using companion = await startTestCompanion(
      fileWith(`  squid: http://me:wrong@127.0.0.1:${squid.port}`, '[squid]'),
    );
    const answer = await ask(companion);
    expect(answer.status).toBe(502);
    expect(answer.headers['proxy-authenticate']).toBeUndefined();
    const head = await tunnel(companion);
    expect(head).toMatch(/^HTTP\/1\.1 502 /);
    expect(head.toLowerCase()).not.toContain('proxy-authenticate');
    expect(squid.log().match(/TCP_DENIED\/407/g)!.length).toBeLessThanOrEqual(5);
  });

  test.each([
    ['squid', startSquid],
    ['tinyproxy', startTinyproxy],
  ] as const)('%s behind TLS: http and tunnels, a long body, and fields that end with it', async (_name, start) => {
    const authority = await makeTestAuthority();
    await using peer = await start({ hosts });
    await using front = await startTlsFront(peer.port, await authority.issue('proxy.test'));
    using place = makePlace();
    writeFileSync(path.join(place.folder, 'ca.pem'), authority.pem);
    const hop = `  sec: { kind: https, host: proxy.test, port: ${front.port}, tls: { ca: ca.pem }, headers: { X-Team: blue } }`;
    writeFileSync(place.configFile, fileWith(hop, '[sec]'), { mode: 0o600 });
    await using companion = await startTestCompanion(undefined, place);
    expect((await ask(companion, 'GET /long')).body.equals(BODY)).toBe(true);
    expect(lastHeaders()).not.toContain('x-team');
    expect((await ask(companion, 'POST /', 'y'.repeat(200_000), 'X-Team: mine\r\n')).text).toBe('POST 200000');
    expect(await tunnel(companion)).toBe('GET 0');
    expect(lastHeaders()).not.toContain('x-team');
    expect(front.names[0]).toBe('proxy.test');
  });

  test('http, then https, then http: the fields of one hop are sent to it and to no other', async () => {
    const authority = await makeTestAuthority();
    await using first = await startHop({ kind: 'http', hosts });
    await using second = await startHop({ kind: 'http', hosts });
    await using front = await startTlsFront(second.port, await authority.issue('proxy.test'));
    await using third = await startTinyproxy({ hosts });
    using place = makePlace();
    writeFileSync(path.join(place.folder, 'ca.pem'), authority.pem);
    const hops = [
      `  one: { kind: http, host: 127.0.0.1, port: ${first.port}, headers: { X-One: '1' } }`,
      `  two: { kind: https, host: proxy.test, port: ${front.port}, tls: { ca: ca.pem }, headers: { X-Two: '2' }, username: u, password: two }`,
      `  three: { kind: http, host: 127.0.0.1, port: ${third.port}, form: connect }`,
    ];
    writeFileSync(place.configFile, fileWith(hops.join('\n'), '[one, two, three]'), { mode: 0o600 });
    await using companion = await startTestCompanion(undefined, place);
    expect((await ask(companion, 'GET /long')).body.equals(BODY)).toBe(true);
    expect(first.requests.join()).toContain('X-One: 1');
    expect(first.requests.join()).not.toMatch(/X-Two|Authorization/i);
    expect(second.requests.join()).toContain('X-Two: 2');
    expect(second.requests.join()).not.toContain('X-One');
    expect(lastHeaders()).not.toMatch(/x-one|x-two|proxy-/);
    expect(third.log()).toContain('CONNECT origin.test');
  });
});

describe('Digest by a scripted hop', () => {
  const challenge = 'Proxy-Authenticate: Digest realm="r", nonce="n1", qop="auth"';
  const refused = (fields: string, body = '') => `HTTP/1.1 407 No\r\n${challenge}\r\n${fields}\r\n\r\n${body}`;

  test.each([
    ['on the same connection, behind a body', refused('Content-Length: 5', 'no no'), 1],
    ['on the same connection, behind none', refused('Content-Length: 0'), 1],
    ['on a new one, where it closes', refused('Connection: close\r\nContent-Length: 5', 'no no'), 2],
    ['on a new one, where the length is not known', refused('Transfer-Encoding: chunked', '0\r\n\r\n'), 2],
  ])('a CONNECT is asked again %s', async (_how, says, connections) => {
    const heads: string[] = [];
    await using hop = await startAsking([says], heads);
    await using companion = await startTestCompanion(fileWith(`  a: http://me:s3cret@127.0.0.1:${hop.port}`, '[a]'));
    await using client = await connectRaw(companion.port);
    client.write(`CONNECT far.test:443 HTTP/1.1\r\nHost: far.test:443\r\n\r\n`);
    expect(await client.readUntil('\r\n\r\n')).toMatch(/^HTTP\/1\.1 200 /);
    expect(heads.map(head => /^Proxy-Authorization: (\w+)/m.exec(head)![1])).toEqual(['Basic', 'Digest']);
    expect(heads[1]).toContain('uri="far.test:443"');
    expect(hop.accepted).toBe(connections);
  });

  test('a nonce that is too old is changed for the new one at once', async () => {
    const heads: string[] = [];
    const stale = refused('Content-Length: 0').replace('"n1"', '"n2", stale=true');
    await using hop = await startAsking([refused('Content-Length: 0'), stale], heads);
    await using companion = await startTestCompanion(fileWith(`  a: http://me:s3cret@127.0.0.1:${hop.port}`, '[a]'));
    await using client = await connectRaw(companion.port);
    client.write(`CONNECT far.test:443 HTTP/1.1\r\nHost: far.test:443\r\n\r\n`);
    expect(await client.readUntil('\r\n\r\n')).toMatch(/^HTTP\/1\.1 200 /);
    expect(heads.map(head => /nonce="(\w+)"/.exec(head)?.[1])).toEqual([undefined, 'n1', 'n2']);
    expect(hop.accepted).toBe(1);
  });

  test('a POST that a hop answers 407 is sent again with its body, and the origin sees it once', async () => {
    await using hop = await startRawOrigin(async client => {
      for (let i = 0; ; i++) {
        const head = await client.readUntil('\r\n\r\n');
        const body = (await client.read(4)).toString();
        if (!head.includes('Digest ')) client.write(refused('Content-Length: 5', 'no no'));
        else client.write(`HTTP/1.1 200 OK\r\nContent-Length: ${body.length + 1}\r\n\r\n${i}${body}`);
      }
    });
    await using companion = await startTestCompanion(fileWith(`  a: http://me:s3cret@127.0.0.1:${hop.port}`, '[a]'));
    expect((await ask(companion, 'POST /', 'body')).text).toBe('1body');
    expect(hop.accepted).toBe(1);
  });
});

/** Says these to the first requests, and yes to all others. */
function startAsking(says: readonly string[], heads: string[]) {
  return startRawOrigin(async client => {
    try {
      while (true) {
        heads.push(await client.readUntil('\r\n\r\n'));
        const said = says[heads.length - 1] ?? 'HTTP/1.1 200 Yes\r\n\r\n';
        client.write(said);
        if (said.includes('Connection: close')) return;
      }
    } finally {
      client.end();
    }
  });
}

describe('TLS in TLS, from the client to the target', () => {
  test('megabytes through a tunnel, both ways at once, with a client that dawdles', async () => {
    const authority = await makeTestAuthority();
    await using echo = await startEcho();
    await using first = await startHop({ kind: 'http', hosts });
    await using firstFront = await startTlsFront(first.port, await authority.issue('proxy.test'));
    await using second = await startHop({ kind: 'http', hosts });
    await using secondFront = await startTlsFront(second.port, await authority.issue('proxy.test'));
    using place = makePlace();
    writeFileSync(path.join(place.folder, 'ca.pem'), authority.pem);
    const hop = (port: number) => `{ kind: https, host: proxy.test, port: ${port}, tls: { ca: ca.pem } }`;
    const hops = `  one: ${hop(firstFront.port)}\n  two: ${hop(secondFront.port)}`;
    writeFileSync(place.configFile, fileWith(hops, '[one, two]'), { mode: 0o600 });
    await using companion = await startTestCompanion(undefined, place);
    await using client = await connectRaw(companion.port);
    client.write(`CONNECT origin.test:${echo.port} HTTP/1.1\r\nHost: origin.test:${echo.port}\r\n\r\n`);
    expect(await client.readUntil('\r\n\r\n')).toMatch(/^HTTP\/1\.1 200 /);
    const sent = randomBytes(8 << 20);
    client.write(sent);
    const heard = createHash('sha256');
    for (let at = 0; at < sent.length; at += 1 << 18) {
      client.socket.pause();
      await sleep(2);
      client.socket.resume();
      heard.update(await client.read(1 << 18, 20_000));
    }
    expect(heard.digest('hex')).toBe(createHash('sha256').update(sent).digest('hex'));
  });

  test('an upload that is refused in its middle gets the answer, and the next request is served', async () => {
    const authority = await makeTestAuthority();
    let refusals = 0;
    await using proxy = await startRawOrigin(async client => {
      while (true) {
        const head = await client.readUntil('\r\n\r\n');
        if (!head.startsWith('POST')) {
          client.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\nCache-Control: no-store\r\n\r\nok');
          continue;
        }
        refusals++;
        client.write('HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig');
        return client.end();
      }
    });
    await using front = await startTlsFront(proxy.port, await authority.issue('proxy.test'));
    using place = makePlace();
    writeFileSync(path.join(place.folder, 'ca.pem'), authority.pem);
    const hop = `  a: { kind: https, host: proxy.test, port: ${front.port}, tls: { ca: ca.pem } }`;
    writeFileSync(place.configFile, fileWith(hop, '[a]'), { mode: 0o600 });
    await using companion = await startTestCompanion(undefined, place);
    await using client = await connectRaw(companion.port);
    client.write(
      `POST http://origin.test:${origin.port}/ HTTP/1.1\r\nHost: origin.test:${origin.port}\r\nContent-Length: 50000000\r\n\r\n`,
    );
    client.write(Buffer.alloc(1 << 20));
    const answer = await client.readAnswer('POST');
    expect([answer.status, answer.text]).toEqual([413, 'big']);
    expect((await ask(companion)).text).toBe('ok');
    expect(refusals).toBe(1);
  });

  test.each(['TLSv1.2', 'TLSv1.3'] as const)(
    '%s: a hop that wants a client certificate says so on the page',
    async maxVersion => {
      const authority = await makeTestAuthority();
      await using plain = await startHop({ kind: 'http', hosts });
      const issued = await authority.issue('proxy.test');
      const asking = { ...issued, ca: authority.pem, requestCert: true, rejectUnauthorized: true, maxVersion };
      await using front = await startTlsFront(plain.port, asking);
      using place = makePlace();
      writeFileSync(path.join(place.folder, 'ca.pem'), authority.pem);
      const hop = `  a: { kind: https, host: proxy.test, port: ${front.port}, tls: { ca: ca.pem } }`;
      writeFileSync(place.configFile, fileWith(hop, '[a]'), { mode: 0o600 });
      await using companion = await startTestCompanion(undefined, place);
      const answer = await ask(companion);
      expect(answer.status).toBe(502);
      expect(answer.text).toContain('it may ask for a client certificate');
      expect(answer.headers['proxy-status']).toContain('tls_alert_received');
    },
  );
});

describe('secrets', () => {
  const hopWith = (port: number, password: string) =>
    fileWith(
      `  a:\n    kind: http\n    host: 127.0.0.1\n    port: ${port}\n    username: me\n    password: ${password}`,
      '[a]',
    );

  async function startWith(place: Place, config: string): Promise<TestCompanion> {
    writeFileSync(place.configFile, config, { mode: 0o600 });
    return startTestCompanion(undefined, place);
  }

  test('from the environment, a file, and a program: the first line of each', async () => {
    await using hop = await startHop({ kind: 'http', credentials, hosts });
    process.env['DETOUR_TEST_SECRET'] = 's3cret';
    for (const password of [
      '{ env: DETOUR_TEST_SECRET }',
      '{ file: secret.txt }',
      `{ command: [cat, secret.txt] }`,
      `{ command: [printf, '%s\\n%s', s3cret, more] }`,
    ]) {
      using place = makePlace();
      writeFileSync(path.join(place.folder, 'secret.txt'), 's3cret\r\nlogin: me\n', { mode: 0o600 });
      await using companion = await startWith(place, hopWith(hop.port, password));
      expect((await ask(companion)).text).toBe('GET 0');
      expect(companion.said.join()).not.toContain('can be read by others');
    }
    delete process.env['DETOUR_TEST_SECRET'];
  });

  test('a file that others can read is told', async () => {
    await using hop = await startHop({ kind: 'http', credentials, hosts });
    using place = makePlace();
    const file = path.join(place.folder, 'secret.txt');
    writeFileSync(file, 's3cret\n');
    chmodSync(file, 0o644);
    await using companion = await startWith(place, hopWith(hop.port, '{ file: secret.txt }'));
    expect(companion.said.join('\n')).toContain('can be read by others (hops.a.password.file): chmod 600 ends that.');
  });

  test.each([
    ['{ env: DETOUR_NO_SUCH }', 'hops.a.password.env: DETOUR_NO_SUCH is not set in the environment'],
    ['{ file: none.txt }', 'hops.a.password.file: does not exist'],
    ['{ file: . }', 'hops.a.password.file: is not a plain file'],
    ['{ file: empty.txt }', 'hops.a.password.file: tells an empty secret'],
    ['{ command: [sh, -c, "echo s3cret; exit 3"] }', 'hops.a.password.command: ended with exit code 3'],
    ['{ command: [detour-no-such-program] }', 'hops.a.password.command: names a program that does not exist'],
    ['{ command: [yes, s3cret] }', 'hops.a.password.command: prints more than 1 MiB'],
  ])('A63: %s stops the load at its place, and no secret is told', async (password, sentence) => {
    using place = makePlace();
    writeFileSync(path.join(place.folder, 'empty.txt'), '\n');
    const error = await startWith(place, hopWith(1, password)).then(
      running => running[Symbol.asyncDispose]().then(() => expect.unreachable('it started')),
      (fault: Error) => fault,
    );
    expect((error as Error).message).toContain(sentence);
    expect((error as Error).message).toMatch(/detour\.yaml:9:\d+: /);
    expect((error as Error).message).not.toContain('s3cret');
  });

  test('a program is asked at the start and when the file is changed by hand, not when a site is turned on or a list changes', async () => {
    await using hop = await startHop({ kind: 'http', hosts });
    using place = makePlace();
    const asked = path.join(place.folder, 'asked');
    const list = path.join(place.folder, 'list.txt');
    writeFileSync(list, 'a.example\n');
    const count = () => readFileSync(asked, 'utf8').length;
    const config = `${hopWith(hop.port, `{ command: [sh, -c, 'printf x >>asked; echo s3cret'] }`)}lists: [{ file: list.txt, block: true }]\n`;
    await using companion = await startWith(place, config);
    expect(count()).toBe(1);
    await using link = await TestLink.open(companion.port, TOKEN_PREFIX + cliToken(companion));
    await link.ask({ type: 'set-site', site: 'b.example', route: 'way' });
    writeFileSync(list, 'c.example\n');
    while ((await ask(companion, 'GET /', '', '', 'c.example')).status !== 403) await sleep(20);
    expect(count()).toBe(1);
    writeFileSync(place.configFile, `${place.text}# by hand\n`, { mode: 0o600 });
    while (count() < 2) await sleep(20);
    await ask(companion);
    expect(hop.logins.at(-1)).toBe('me:s3cret');
  });

  test('the file of a secret changes: the new one is used; it goes: the last good file stays in force', async () => {
    await using hop = await startHop({ kind: 'http', hosts });
    using place = makePlace();
    const file = path.join(place.folder, 'secret.txt');
    writeFileSync(file, 'one\n', { mode: 0o600 });
    await using companion = await startWith(place, hopWith(hop.port, '{ file: secret.txt }'));
    const asksWith = async (secret: string) => {
      while (true) {
        await ask(companion);
        if (hop.logins.at(-1) === `me:${secret}`) return;
        await sleep(20);
      }
    };
    await asksWith('one');
    writeFileSync(file, 'another\n', { mode: 0o600 });
    await asksWith('another');
    const config = hopWith(hop.port, '{ file: gone.txt }');
    writeFileSync(place.configFile, config, { mode: 0o600 });
    while (!companion.said.some(line => line.includes('hops.a.password.file: does not exist'))) await sleep(20);
    expect((await ask(companion)).text).toBe('GET 0');
    expect(hop.logins.at(-1)).toBe('me:another');
  });
});

test('certificates that cannot be read stop the load at their place', async () => {
  using place = makePlace();
  writeFileSync(path.join(place.folder, 'rubbish.pem'), 'no certificate');
  for (const [tls, sentence] of [
    ['{ ca: none.pem }', 'hops.a.tls.ca: does not exist'],
    ['{ ca: rubbish.pem }', 'hops.a.tls.ca: is no certificate (PEM)'],
    ['{ cert: rubbish.pem, key: rubbish.pem }', 'hops.a.tls.cert: is no certificate with its key'],
  ] as const) {
    writeFileSync(place.configFile, fileWith(`  a: { kind: https, host: proxy.test, tls: ${tls} }`, '[a]'));
    await expect(startTestCompanion(undefined, place)).rejects.toThrow(sentence);
  }
});

test('detour check looks at the files of hops, and runs nothing', async () => {
  using place = makePlace();
  const mark = path.join(place.folder, 'was run');
  const text = (rest: string) =>
    `hops:\n  a: { kind: https, host: proxy.test, username: me, password: ${rest} }\n  b: { kind: http, host: b.test, username: me, password: { env: DETOUR_NO_SUCH } }\n`;
  const run = promisify(execFile);
  const check = () => run(process.execPath, ['companion/main.ts', 'check', '--config', place.configFile]);
  writeFileSync(place.configFile, text(`{ command: [touch, '${mark}'] }`), { mode: 0o600 });
  expect((await check()).stdout).toContain('is in order');
  expect(existsSync(mark)).toBe(false);
  writeFileSync(place.configFile, text('{ file: gone.txt }, tls: { ca: gone.pem }'), { mode: 0o600 });
  const failed = (await check().catch((error: unknown) => error)) as { code: number; stderr: string };
  expect([failed.code, failed.stderr.match(/hops\.a\.(?:password\.file|tls\.ca): does not exist/g)]).toEqual([
    1,
    ['hops.a.password.file: does not exist', 'hops.a.tls.ca: does not exist'],
  ]);
});

describe('bind', () => {
  test('the first hop is connected to from this address', async () => {
    const from: (string | undefined)[] = [];
    await using hop = await startRawOrigin(async client => {
      from.push(client.socket.remoteAddress);
      await client.readUntil('\r\n\r\n');
      client.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\nCache-Control: no-store\r\n\r\nok');
    });
    const file = (bind: string) =>
      fileWith(`  a: { kind: http, host: 127.0.0.1, port: ${hop.port}, bind: '${bind}' }`, '[a]');
    {
      await using companion = await startTestCompanion(file('127.0.0.9'));
      expect((await ask(companion)).text).toBe('ok');
      expect(from).toEqual(['127.0.0.9']);
    }
    {
      await using companion = await startTestCompanion(file('192.0.2.1'));
      const answer = await ask(companion);
      expect([answer.status, answer.text.includes('192.0.2.1, is no address of this machine')]).toEqual([502, true]);
    }
    {
      await using companion = await startTestCompanion(file('::1'));
      expect((await ask(companion)).text).toContain('it has no address like ::1');
    }
  });
});
