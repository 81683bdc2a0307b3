// The whole companion over real sockets: the control door, pairing, edits, reload, the PAC's address, and the proxy under a changed file.
import { createServer } from 'node:http';
import { type AddressInfo, createServer as createNetServer } from 'node:net';
import { existsSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { CLOSE_UNPAIRED, CODE_PREFIX, TOKEN_PREFIX } from '../../shared/control.ts';
import { openTable } from '../../shared/decision/compile-table.ts';
import { startEcho } from '../support/hop.ts';
import { connectRaw } from '../support/raw-client.ts';
import { EXTENSION_ORIGIN, makePlace, startTestCompanion, TEST_CONFIG, TestLink } from '../support/with-companion.ts';

const BARE_400 = 'HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n';

/** Sends bytes and reads until the other side closes. */
async function exchange(port: number, text: string): Promise<string> {
  await using client = await connectRaw(port);
  client.write(text);
  return (await client.readAll()).toString('latin1');
}

async function startOrigin() {
  const paths: string[] = [];
  const server = createServer((request, response) => {
    paths.push(request.url ?? '');
    response.end(`you asked for ${request.url}`);
  });
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  return Object.assign(server, { paths, port: (server.address() as AddressInfo).port });
}

const get = (host: string, port: number, path = '/') =>
  `GET http://${host}:${port}${path} HTTP/1.1\r\nHost: ${host}:${port}\r\nConnection: close\r\n\r\n`;

describe('the control door', () => {
  const upgrade = (more: string) =>
    `GET /control HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n${more}\r\n`;

  test.each([
    [
      'A47: an origin-form request of a page',
      'GET / HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nOrigin: http://evil.test\r\n\r\n',
    ],
    ['A48: a rebound name', 'GET /control HTTP/1.1\r\nHost: evil.test:PORT\r\n\r\n'],
    ['A49: no token', upgrade('Sec-WebSocket-Protocol: detour.v1\r\n')],
    ['A49: a wrong token', upgrade(`Sec-WebSocket-Protocol: detour.v1, token.${'A'.repeat(43)}\r\n`)],
    [
      'A50: a simple POST',
      'POST /control HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}',
    ],
    [
      'A51: a preflight',
      'OPTIONS /control HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nOrigin: http://evil.test\r\nAccess-Control-Request-Method: GET\r\nAccess-Control-Request-Private-Network: true\r\n\r\n',
    ],
    [
      'A52: a token in the URL',
      `GET /control?token=${'A'.repeat(43)} HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n`,
    ],
    ['A52: Origin null', upgrade('Origin: null\r\nSec-WebSocket-Protocol: detour.v1, code.000000\r\n')],
    ['A56: a guessed PAC', 'GET /proxy.pac HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\n\r\n'],
    ['A56: a path that climbs', 'GET /../../etc/passwd HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\n\r\n'],
  ])('%s gets the bare 400 and nothing else', async (_number, request) => {
    await using running = await startTestCompanion();
    expect(await exchange(running.port, request.replaceAll('PORT', String(running.port)))).toBe(BARE_400);
  });

  test('A53: a code is for extensions: a web page cannot pair, and does not use it up', async () => {
    await using running = await startTestCompanion();
    const { code } = running.companion.newCode();
    for (const origin of ['http://evil.test', 'https://chrome-extension.evil.test', undefined]) {
      await expect(TestLink.open(running.port, CODE_PREFIX + code, origin)).rejects.toThrow('400');
    }
    await using link = await TestLink.open(running.port, CODE_PREFIX + code, EXTENSION_ORIGIN);
    expect(link.heard[0]).toMatchObject({ type: 'hello', token: expect.stringMatching(/^[\w-]{43}$/) });
    expect(link.socket.protocol).toBe('detour.v1');
  });

  test('A53: a token is bound to its Origin', async () => {
    await using running = await startTestCompanion();
    const { link, token } = await TestLink.pair(running.companion);
    await using _link = link;
    for (const origin of [`chrome-extension://${'b'.repeat(32)}`, undefined, 'http://evil.test']) {
      await expect(TestLink.open(running.port, token, origin)).rejects.toThrow('400');
    }
    await using again = await TestLink.open(running.port, token, EXTENSION_ORIGIN);
    expect(again.heard[0]).toMatchObject({ type: 'hello', client: 'Chromium' });
  });

  test('A54: a code is good once, for five tries and five minutes', async () => {
    let now = 1_000_000;
    await using running = await startTestCompanion(TEST_CONFIG, undefined, () => now);
    const wrong = async () =>
      expect(TestLink.open(running.port, `${CODE_PREFIX}000000`, EXTENSION_ORIGIN)).rejects.toThrow('400');
    const first = await TestLink.pair(running.companion);
    await first.link[Symbol.asyncDispose]();

    let { code } = running.companion.newCode();
    while (code === '000000') ({ code } = running.companion.newCode());
    for (let i = 0; i < 5; i++) await wrong();
    await expect(TestLink.open(running.port, CODE_PREFIX + code, EXTENSION_ORIGIN)).rejects.toThrow('400');

    const late = running.companion.newCode();
    now += 5 * 60_000;
    await expect(TestLink.open(running.port, CODE_PREFIX + late.code, EXTENSION_ORIGIN)).rejects.toThrow('400');

    const used = running.companion.newCode();
    await using link = await TestLink.open(running.port, CODE_PREFIX + used.code, EXTENSION_ORIGIN);
    expect(link.heard[0]!.type).toBe('hello');
    await expect(TestLink.open(running.port, CODE_PREFIX + used.code, EXTENSION_ORIGIN)).rejects.toThrow('400');
  });

  test('A55: the control port cannot be reached through the proxy', async () => {
    await using running = await startTestCompanion(
      `${TEST_CONFIG}sites:\n  me.test: companion\n`.replace('  hosts:', '  hosts:\n    me.test: 127.0.0.1'),
    );
    for (const host of ['127.0.0.1', 'localhost', 'me.test', '[::1]', '[::ffff:127.0.0.1]']) {
      expect(await exchange(running.port, get(host, running.port, '/control')), host).toMatch(/^HTTP\/1\.1 50\d /);
      const connected = await exchange(
        running.port,
        `CONNECT ${host}:${running.port} HTTP/1.1\r\nHost: ${host}:${running.port}\r\n\r\n`,
      );
      expect(connected, host).toMatch(
        /^HTTP\/1\.1 50\d [\s\S]*Proxy-Status: detour; error=(proxy_loop_detected|destination_ip_prohibited)/,
      );
    }
  });
});

describe('paired clients', () => {
  test('a site that is turned on changes one line of the file, and is in force when the reply comes', async () => {
    const config = `# mine\n${TEST_CONFIG}sites: # all of them\n  a.test: companion   # keep me\n`;
    await using running = await startTestCompanion(config);
    const { link } = await TestLink.pair(running.companion);
    await using _link = link;
    expect(await link.ask({ type: 'steer', dialect: 'pac' })).toMatchObject({ type: 'done' });
    await link.until(message => message.type === 'steering');
    link.heard.length = 0;
    expect(await link.ask({ type: 'set-site', site: 'b.test', route: 'companion' })).toMatchObject({ type: 'done' });
    expect(running.place.text).toBe(`${config}  b.test: companion\n`);
    // State and steering are there before the reply is.
    expect(link.heard.map(message => message.type)).toEqual(['state', 'steering', 'done']);
    expect(await link.ask({ type: 'site', host: 'www.b.test' })).toMatchObject({
      type: 'site',
      answer: { site: 'b.test', decision: { steered: true, because: { rule: 'sites.b.test' } } },
    });
    expect(await link.ask({ type: 'set-site', site: 'b.test', route: null })).toMatchObject({ type: 'done' });
    expect(running.place.text).toBe(config);
  });

  test('a site is given its local network back by one line, and everyone who steers is told', async () => {
    const config = `${TEST_CONFIG}sites:\n  a.test: companion # mine\n`;
    await using running = await startTestCompanion(config);
    const { link } = await TestLink.pair(running.companion);
    await using _link = link;
    await link.ask({ type: 'steer', dialect: 'pac' });
    const steerings = () => link.heard.filter(message => message.type === 'steering');
    expect(openTable(steerings().at(-1)!.steering.table).confines('www.a.test')).toBe(true);
    expect(await link.ask({ type: 'set-local', site: 'a.test', local: true })).toMatchObject({ type: 'done' });
    expect(running.place.text).toBe(config.replace('a.test: companion', 'a.test: { route: companion, local: true }'));
    await link.until(() => steerings().length === 2);
    expect(openTable(steerings().at(-1)!.steering.table).confines('www.a.test')).toBe(false);
    expect(steerings()[1]!.steering.pac).not.toBe(steerings()[0]!.steering.pac);
    expect(link.heard.findLast(message => message.type === 'state')).toMatchObject({
      state: { sites: [{ site: 'a.test', route: 'companion', local: true }] },
    });
    expect(await link.ask({ type: 'site', host: 'a.test' })).toMatchObject({ answer: { decision: { local: true } } });
    expect(await link.ask({ type: 'set-local', site: 'b.test', local: true })).toMatchObject({
      type: 'refused',
      message: expect.stringContaining('turn it on first'),
    });
  });

  test('what the file would not bear is refused, and the file stays', async () => {
    await using running = await startTestCompanion();
    const { link } = await TestLink.pair(running.companion);
    await using _link = link;
    for (const [site, route] of [
      ['a.test', 'nowhere'],
      ['*.a.test', 'companion'],
      ['a b', 'companion'],
      ['a.test\nlisten: 0.0.0.0:1', 'companion'],
      ['', 'companion'],
      ['a.test', 'x: y'],
    ]) {
      expect(await link.ask({ type: 'set-site', site: site!, route: route! }), `${site} ${route}`).toMatchObject({
        type: 'refused',
        message: expect.any(String),
      });
    }
    expect(running.place.text).toBe(TEST_CONFIG);
  });

  test('edits at the same time all arrive', async () => {
    await using running = await startTestCompanion();
    const { link } = await TestLink.pair(running.companion);
    await using _link = link;
    const names = Array.from({ length: 12 }, (_, i) => `s${i}.test`);
    await Promise.all(names.map(site => link.ask({ type: 'set-site', site, route: 'companion' })));
    for (const site of names) expect(running.place.text).toContain(`  ${site}: companion\n`);
  });

  test('what is for the terminal alone is refused', async () => {
    await using running = await startTestCompanion();
    const { link } = await TestLink.pair(running.companion);
    await using _link = link;
    for (const message of [{ type: 'pair' }, { type: 'clients' }, { type: 'unpair', name: 'Firefox' }]) {
      expect(await link.ask(message)).toMatchObject({ type: 'refused', message: expect.stringContaining('terminal') });
    }
  });

  test('nonsense is refused and the link goes on', async () => {
    await using running = await startTestCompanion();
    const { link } = await TestLink.pair(running.companion);
    await using _link = link;
    link.socket.send('{');
    link.socket.send('{"type":"nope","id":3}');
    await link.until(message => message.type === 'refused' && message.id === 3);
    expect(await link.ask({ type: 'site', host: 'a.test' })).toMatchObject({ type: 'site' });
  });

  test('two browsers of one Origin are two clients, and one may take its own key back', async () => {
    await using running = await startTestCompanion();
    const first = await TestLink.pair(running.companion);
    await using _first = first.link;
    const second = await TestLink.pair(running.companion);
    await using _second = second.link;
    expect(second.link.heard[0]).toMatchObject({ client: 'Chromium 2' });
    expect(await first.link.ask({ type: 'site', host: 'a.test' })).toMatchObject({ type: 'site' });
    expect(await first.link.ask({ type: 'unpair', name: 'Chromium 2' })).toMatchObject({ type: 'refused' });
    second.link.socket.send(JSON.stringify({ type: 'unpair', id: 9, name: 'Chromium 2' }));
    await new Promise(resolve => second.link.socket.once('close', resolve));
    expect(second.link.closedWith).toBe(CLOSE_UNPAIRED);
    await expect(TestLink.open(running.port, second.token, EXTENSION_ORIGIN)).rejects.toThrow('400');
    await using again = await TestLink.open(running.port, first.token, EXTENSION_ORIGIN);
    expect(again.heard[0]!.type).toBe('hello');
  });

  test('unpairing ends the link at once, and the token is worth nothing', async () => {
    using place = makePlace();
    await using running = await startTestCompanion(TEST_CONFIG, place);
    const { link, token } = await TestLink.pair(running.companion);
    await using _link = link;
    const cli = await import('../../companion/control/state-folder.ts').then(state =>
      state.runningCompanion(place.stateFolder)!,
    );
    await using terminal = await TestLink.open(running.port, TOKEN_PREFIX + cli.token);
    expect(await terminal.ask({ type: 'clients' })).toMatchObject({
      clients: [{ name: 'Chromium', origin: EXTENSION_ORIGIN, connected: true }],
    });
    expect(await terminal.ask({ type: 'unpair', name: 'Chromium' })).toMatchObject({ type: 'done' });
    for (let i = 0; i < 100 && link.closedWith === null; i++) await new Promise(resolve => setTimeout(resolve, 10));
    expect(link.closedWith).toBe(CLOSE_UNPAIRED);
    await expect(TestLink.open(running.port, token, EXTENSION_ORIGIN)).rejects.toThrow('400');
  });

  test('pairings and the address of the PAC survive a restart', async () => {
    using place = makePlace(`${TEST_CONFIG}sites:\n  a.test: companion\n`);
    let token: string;
    let path: string;
    {
      await using running = await startTestCompanion(TEST_CONFIG, place);
      const paired = await TestLink.pair(running.companion);
      token = paired.token;
      path = new URL(running.companion.pacUrl).pathname;
      await paired.link[Symbol.asyncDispose]();
    }
    await using running = await startTestCompanion(TEST_CONFIG, place);
    await using link = await TestLink.open(running.port, token, EXTENSION_ORIGIN);
    expect(link.heard[0]).toMatchObject({ type: 'hello', client: 'Chromium' });
    expect(link.heard[0]).not.toHaveProperty('token');
    const pac = await exchange(
      running.port,
      `GET ${path} HTTP/1.1\r\nHost: 127.0.0.1:${running.port}\r\nConnection: close\r\n\r\n`,
    );
    expect(pac).toMatch(/^HTTP\/1\.1 200 [\s\S]*application\/x-ns-proxy-autoconfig/);
    expect(pac).toContain(`PROXY 127.0.0.1:${running.port}`);
    expect(pac.toLowerCase()).not.toContain('access-control');
  });
});

describe('the walk with everything furnished', () => {
  test('shows the bytes of a tunnel while it stands', async () => {
    await using echo = await startEcho();
    await using running = await startTestCompanion();
    const { link } = await TestLink.pair(running.companion);
    await using _link = link;
    await link.ask({ type: 'follow', recent: 0 });
    await using client = await connectRaw(running.port);
    client.write(`CONNECT origin.test:${echo.port} HTTP/1.1\r\nHost: origin.test\r\n\r\n`);
    await client.readUntil('\r\n\r\n');
    await link.until(one => one.type === 'exchange' && one.exchange.kind === 'connect');
    client.write('hello');
    await client.read(5);
    const moved = await link.until(one => one.type === 'exchange' && one.exchange.bytesDown > 0, 10_000);
    expect(moved).toMatchObject({ exchange: { bytesUp: 5, bytesDown: 5, status: 200 } });
    expect((moved as unknown as { exchange: { took?: number } }).exchange.took).toBeUndefined();
    expect(client.socket.destroyed).toBe(false);
  });

  test('what no rule names is carried by the default route and recorded as such', async () => {
    await using origin = await startOrigin();
    await using running = await startTestCompanion();
    const { link } = await TestLink.pair(running.companion);
    await using _link = link;
    await link.ask({ type: 'follow', recent: 0 });
    expect(await exchange(running.port, get('origin.test', origin.port, '/x'))).toMatch(
      /^HTTP\/1\.1 200 [\s\S]*you asked for \/x/,
    );
    const told = await link.until(message => message.type === 'exchange');
    expect(told).toMatchObject({
      exchange: {
        host: 'origin.test',
        status: 200,
        because: { rule: 'default' },
        route: 'companion',
        attempts: [{ chain: [], outcome: 'ok' }],
      },
    });
  });

  test('a changed file is in force at once, and a transfer under way is not disturbed', async () => {
    let finish = () => {};
    await using origin = createServer((request, response) => {
      if (request.url !== '/slow') return void response.end('quick');
      response.write('begun ');
      finish = () => response.end('ended');
    });
    await new Promise<void>(resolve => origin.listen(0, '127.0.0.1', resolve));
    const { port } = origin.address() as AddressInfo;
    await using running = await startTestCompanion();
    await using client = await connectRaw(running.port);
    client.write(get('origin.test', port, '/slow'));
    await client.readUntil('begun');
    writeFileSync(running.place.configFile, `${TEST_CONFIG}rules:\n  - { host: origin.test, block: true }\n`);
    for (let i = 0; i < 200; i++) {
      if ((await exchange(running.port, get('origin.test', port))).startsWith('HTTP/1.1 403')) break;
      await new Promise(resolve => setTimeout(resolve, 25));
    }
    expect(await exchange(running.port, get('origin.test', port))).toMatch(
      /^HTTP\/1\.1 403 [\s\S]*Proxy-Status: detour; error=http_request_denied/,
    );
    finish();
    expect(String(await client.readAll())).toContain('ended');
  });

  test.each(['memory: 8MiB', 'disk: 0', 'disk: 8MiB'])(
    'R72, A76: a POST that was under way while the cache changed (%s) makes invalid what the new one has',
    async change => {
      const asked: string[] = [];
      let finish = () => {};
      await using origin = createServer((request, response) => {
        asked.push(request.method!);
        if (request.method === 'POST') finish = () => response.end('changed');
        else response.setHeader('Cache-Control', 'max-age=600').end(`as of ${asked.length}`);
      });
      await new Promise<void>(resolve => origin.listen(0, '127.0.0.1', resolve));
      const { port } = origin.address() as AddressInfo;
      await using running = await startTestCompanion();
      const ask = () => exchange(running.port, get('origin.test', port));
      expect(await ask()).toMatch(/fwd=uri-miss; stored/);
      await using client = await connectRaw(running.port);
      client.write(
        `POST http://origin.test:${port}/ HTTP/1.1\r\nHost: origin.test:${port}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`,
      );
      for (let i = 0; i < 200 && !asked.includes('POST'); i++) await new Promise(resolve => setTimeout(resolve, 10));
      writeFileSync(
        running.place.configFile,
        `${TEST_CONFIG}cache: { ${change} }\nrules:\n  - { host: other.test, block: true }\n`,
      );
      for (let i = 0; i < 200; i++) {
        if ((await exchange(running.port, get('other.test', port))).startsWith('HTTP/1.1 403')) break;
        await new Promise(resolve => setTimeout(resolve, 25));
      }
      // Now in the new cache's memory too: from the disk, or else anew.
      await ask();
      expect(await ask()).toMatch(/Cache-Status: detour; hit/);
      finish();
      expect(String(await client.readAll())).toContain('changed');
      expect(await ask()).toMatch(/fwd=uri-miss/);
    },
  );

  test('A90 a tunnel lives on through reloads, good and bad', async () => {
    await using origin = createNetServer(socket => void socket.pipe(socket));
    await new Promise<void>(resolve => origin.listen(0, '127.0.0.1', resolve));
    const { port } = origin.address() as AddressInfo;
    await using running = await startTestCompanion();
    const { link } = await TestLink.pair(running.companion);
    await using _link = link;
    await using client = await connectRaw(running.port);
    client.write(`CONNECT origin.test:${port} HTTP/1.1\r\nHost: origin.test:${port}\r\n\r\n`);
    await client.readUntil('\r\n\r\n');
    for (const [n, text] of [
      `${TEST_CONFIG}rules:\n  - { host: origin.test, block: true }\n`,
      'sites: [broken',
      'listen: 0.0.0.0:1\n',
      'hops:\n  away: http://192.0.2.1:1\nroutes:\n  r: [[away]]\ndefault: r\n',
    ].entries()) {
      link.heard.length = 0;
      writeFileSync(running.place.configFile, text);
      await link.until(message => message.type === 'state');
      client.write(`echo ${n}.`);
      await client.readUntil(`echo ${n}.`);
    }
    expect(running.said.join('\n')).toMatch(/detour\.yaml:1:8: [\s\S]*detour\.yaml:1:9: listen: /);
  });

  test('the log file follows the setting, without secrets', async () => {
    await using origin = await startOrigin();
    await using running = await startTestCompanion(`${TEST_CONFIG}log:\n  file: traffic.log\n`);
    await exchange(running.port, get('origin.test', origin.port, '/x?token=s3cret&q=1'));
    const file = `${running.place.folder}/traffic.log`;
    for (let i = 0; i < 200 && !(existsSync(file) && statSync(file).size > 0); i++) {
      await new Promise(resolve => setTimeout(resolve, 10));
    }
    expect(JSON.parse(readFileSync(file, 'utf8'))).toMatchObject({
      url: `http://origin.test:${origin.port}/x?token=…&q=1`,
      status: 200,
    });
    expect(statSync(file).mode & 0o777).toBe(0o600);
  });

  test('a list file blocks by line, and its faults are told', async () => {
    using place = makePlace(
      `${TEST_CONFIG}lists:\n  - { file: ads.txt, block: true }\n  - { file: gone.txt, block: true }\n`,
    );
    writeFileSync(`${place.folder}/ads.txt`, '# ads\n0.0.0.0 ads.test\nnot a host line\n');
    await using running = await startTestCompanion(TEST_CONFIG, place);
    expect(running.said).toEqual(
      expect.arrayContaining([expect.stringMatching(/^ads\.txt:3: /), 'gone.txt: the list file does not exist']),
    );
    const answer = await exchange(
      running.port,
      'GET http://x.ads.test/ HTTP/1.1\r\nHost: x.ads.test\r\nAccept: text/html\r\nConnection: close\r\n\r\n',
    );
    expect(answer).toMatch(/^HTTP\/1\.1 403 /);
    expect(answer).toContain('Line 2 of the list <code>ads.txt</code>');
    expect(await exchange(running.port, 'CONNECT x.ads.test:443 HTTP/1.1\r\nHost: x.ads.test:443\r\n\r\n')).toMatch(
      /^HTTP\/1\.1 403 [\s\S]*error=http_request_denied/,
    );
  });

  test('A37 a guard that is tightened holds for kept connections too', async () => {
    await using origin = await startOrigin();
    await using running = await startTestCompanion();
    const keepAlive = `GET http://origin.test:${origin.port}/ HTTP/1.1\r\nHost: origin.test:${origin.port}\r\n\r\n`;
    await using client = await connectRaw(running.port);
    client.write(keepAlive);
    expect((await client.readAnswer()).status).toBe(200);
    writeFileSync(running.place.configFile, 'dns:\n  hosts:\n    origin.test: 127.0.0.1\n');
    let status = 200;
    for (let i = 0; i < 200 && status === 200; i++) {
      await new Promise(resolve => setTimeout(resolve, 25));
      client.write(keepAlive);
      ({ status } = await client.readAnswer());
    }
    expect(status).toBe(502);
  });

  test('a routed list that is not there stops the start: its hosts would go direct', async () => {
    using place = makePlace(`${TEST_CONFIG}lists:\n  - { file: gone.txt, route: companion }\n`);
    await expect(startTestCompanion(TEST_CONFIG, place)).rejects.toThrow(
      /detour\.yaml:\d+:\d+: lists\[0\]: gone\.txt: the list file does not exist/,
    );
  });

  test('a routed list that goes away or is emptied while it runs stays as it was', async () => {
    using place = makePlace(`${TEST_CONFIG}lists:\n  - { file: work.txt, route: companion }\n`);
    writeFileSync(`${place.folder}/work.txt`, 'a.test\n');
    await using running = await startTestCompanion(TEST_CONFIG, place);
    const { link } = await TestLink.pair(running.companion);
    await using _link = link;
    for (const damage of [
      () => writeFileSync(`${place.folder}/work.txt`, ''),
      () => rmSync(`${place.folder}/work.txt`),
    ]) {
      const before = running.said.length;
      damage();
      for (let i = 0; i < 300 && running.said.length === before; i++)
        await new Promise(resolve => setTimeout(resolve, 20));
      expect(await link.ask({ type: 'site', host: 'a.test' })).toMatchObject({
        answer: { decision: { steered: true, because: { list: 'work.txt' } } },
      });
    }
  });

  test('A63 explain repeats no user name, password or token', async () => {
    await using running = await startTestCompanion();
    const { link } = await TestLink.pair(running.companion);
    await using _link = link;
    const reply = await link.ask({ type: 'explain', url: 'http://me:s3cret@origin.test/x?token=abcdef&q=1' });
    expect(reply).toMatchObject({
      type: 'explained',
      explanation: { url: expect.stringContaining('http://origin.test/x?token=') },
    });
    expect(JSON.stringify(reply)).not.toMatch(/s3cret|abcdef/);
  });

  test('loopback is closed unless the file opens it', async () => {
    await using origin = await startOrigin();
    await using running = await startTestCompanion('dns:\n  hosts:\n    origin.test: 127.0.0.1\n');
    for (const host of ['127.0.0.1', '127.1', '2130706433', '0.0.0.0', '[::1]', 'localhost', 'origin.test']) {
      expect(await exchange(running.port, get(host, origin.port)), host).toMatch(
        /^HTTP\/1\.1 502 [\s\S]*error=destination_ip_prohibited/,
      );
    }
    expect(origin.paths).toEqual([]);
  });
});

test('A67: what comes on a connection that is logged in itself is kept for nobody else', async () => {
  const asked: string[] = [];
  await using origin = createServer((request, response) => {
    asked.push(request.url!);
    response.writeHead(200, { 'Cache-Control': 'max-age=60' }).end('hello');
  });
  await new Promise<void>(resolve => origin.listen(0, '127.0.0.1', resolve));
  const { port } = origin.address() as AddressInfo;
  await using running = await startTestCompanion();
  await using mine = await connectRaw(running.port);
  await using other = await connectRaw(running.port);
  const ask = async (client: typeof mine, path: string, line = '') => {
    client.write(`GET http://127.0.0.1:${port}${path} HTTP/1.1\r\nHost: x\r\n${line}\r\n`);
    await client.readAnswer();
  };
  await ask(mine, '/before');
  await ask(mine, '/login', 'Authorization: NTLM TlRMTVNT\r\n');
  await ask(mine, '/personal');
  await ask(other, '/before');
  await ask(other, '/personal');
  expect(asked).toEqual(['/before', '/login', '/personal', '/personal']);
});
