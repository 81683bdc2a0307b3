// The attacks on the control room as raw bytes (checklist A47 to A56): whoever is not let in gets the same bytes as any other, and nothing has changed.
// In a real browser they are told in test/journeys/control-plane.ts.
import { readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { sameSecret } from '../../../companion/guard/pairing.ts';
import { CODE_PREFIX, TOKEN_PREFIX } from '../../../shared/control.ts';
import { connectRaw } from '../../support/raw-client.ts';
import {
  cliToken,
  EXTENSION_ORIGIN,
  makePlace,
  startTestCompanion,
  TEST_CONFIG,
  type TestCompanion,
  TestLink,
} from '../../support/with-companion.ts';

const BARE_400 = 'HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n';

async function exchange(port: number, bytes: string | Buffer): Promise<string> {
  await using client = await connectRaw(port);
  client.write(bytes);
  return (await client.readAll()).toString('latin1');
}

/** A WebSocket's handshake as good as any, but for the lines that are given. */
function handshake(running: TestCompanion, protocols: string, ...more: string[]): string {
  const lines = [
    'Connection: Upgrade',
    'Upgrade: websocket',
    'Sec-WebSocket-Version: 13',
    'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==',
    `Sec-WebSocket-Protocol: ${protocols}`,
    ...more,
  ];
  if (!more.some(line => line.startsWith('Host:'))) lines.unshift(`Host: 127.0.0.1:${running.port}`);
  return `GET /control HTTP/1.1\r\n${lines.join('\r\n')}\r\n\r\n`;
}

/** What a companion keeps, to see whether anything changed. */
const kept = (running: TestCompanion) => ({ file: running.place.text, paired: running.companion.isPaired });

describe('A47: an origin-form request on the proxy port gets the bare 400: no banner, no CORS', () => {
  test.each<[string, string]>([
    ['a navigation', 'GET / HTTP/1.1\r\nHost: H\r\nSec-Fetch-Mode: navigate\r\nAccept: text/html\r\n\r\n'],
    ['a fetch of a page', 'GET / HTTP/1.1\r\nHost: H\r\nOrigin: https://evil.example\r\n\r\n'],
    ['a HEAD', 'HEAD / HTTP/1.1\r\nHost: H\r\n\r\n'],
    ['an icon', 'GET /favicon.ico HTTP/1.1\r\nHost: H\r\n\r\n'],
    ['an old client', 'GET / HTTP/1.0\r\n\r\n'],
    ['a well-known path', 'GET /.well-known/detour HTTP/1.1\r\nHost: H\r\n\r\n'],
    ['the control path without an upgrade', 'GET /control HTTP/1.1\r\nHost: H\r\n\r\n'],
    ['all options', 'OPTIONS * HTTP/1.1\r\nHost: H\r\n\r\n'],
    ['a TRACE', 'TRACE / HTTP/1.1\r\nHost: H\r\nMax-Forwards: 0\r\n\r\n'],
  ])('%s', async (_what, request) => {
    await using running = await startTestCompanion();
    const told = await exchange(running.port, request.replace('Host: H', `Host: 127.0.0.1:${running.port}`));
    expect(told).toBe(BARE_400);
  });
});

test('A47: what begins like TLS, or like nothing that is spoken here, hears no more than others', async () => {
  await using running = await startTestCompanion();
  const hello = Buffer.from('16030100a5010000a10303', 'hex');
  for (const bytes of [
    hello,
    Buffer.from([0]),
    Buffer.from([255, 255]),
    Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
  ]) {
    const told = await exchange(running.port, bytes);
    expect(['', BARE_400], bytes.toString('hex')).toContain(told);
  }
});

describe('A48: a Host that is not ours is refused before anything else is looked at', () => {
  test.each([
    'evil.example:PORT',
    'localhost.evil.example:PORT',
    '127.0.0.1.evil.example:PORT',
    '127.0.0.1',
    '127.0.0.1:1',
    '127.1:PORT',
    '2130706433:PORT',
    '0.0.0.0:PORT',
    '[::ffff:127.0.0.1]:PORT',
    '[::]:PORT',
    'x.localhost:PORT',
    '',
  ])('%s', async written => {
    await using running = await startTestCompanion();
    const host = `Host: ${written.replace('PORT', String(running.port))}`;
    // With the right key, and with the right path of the PAC.
    const { pathname } = new URL(running.companion.pacUrl);
    expect(await exchange(running.port, handshake(running, `detour.v1, token.${cliToken(running)}`, host))).toBe(
      BARE_400,
    );
    expect(await exchange(running.port, `GET ${pathname} HTTP/1.1\r\n${host}\r\n\r\n`)).toBe(BARE_400);
  });
});

describe('A49: the wrong key', () => {
  test('A49: of whatever shape gets the same bytes, and nothing happens', async () => {
    await using running = await startTestCompanion();
    const before = kept(running);
    const right = cliToken(running);
    const flipped = right.replace(/.$/, last => (last === 'A' ? 'E' : 'A'));
    const wrong = ['', 'A'.repeat(43), flipped, `${right}A`, right.slice(1), right.toLowerCase(), `${right}==`];
    for (const token of wrong.filter(one => one !== right))
      expect(await exchange(running.port, handshake(running, `detour.v1, token.${token}`)), token).toBe(BARE_400);
    expect(kept(running)).toEqual(before);
    // The right one opens, so it was the key that was refused.
    await using link = await TestLink.open(running.port, TOKEN_PREFIX + right);
    expect(link.heard[0]!.type).toBe('hello');
  });

  test('A49: takes the same time, however much of it is right', () => {
    const secret = 'k'.repeat(43);
    const early = `x${'k'.repeat(42)}`;
    const late = `${'k'.repeat(42)}x`;
    const times: [number[], number[]] = [[], []];
    for (let round = 0; round < 41; round++) {
      for (const [i, guess] of [early, late].entries()) {
        const begun = performance.now();
        for (let n = 0; n < 500; n++) sameSecret(guess, secret);
        times[i as 0 | 1].push(performance.now() - begun);
      }
    }
    // The least of many rounds is what noise cannot add to.
    const [a, b] = times.map(all => Math.min(...all)) as [number, number];
    expect(Math.max(a, b) / Math.min(a, b)).toBeLessThan(1.5);
  });
});

describe('A50: a simple request of another origin has no effect, with cookies or without', () => {
  test.each(['text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data; boundary=b', 'application/json'])(
    '%s',
    async type => {
      await using running = await startTestCompanion();
      const before = kept(running);
      const body = JSON.stringify({ type: 'set-site', id: 1, site: 'sneaky.test', route: 'companion' });
      for (const target of ['/control', '/', `/control?token=${cliToken(running)}`]) {
        const head = `POST ${target} HTTP/1.1\r\nHost: 127.0.0.1:${running.port}\r\nOrigin: https://evil.example\r\nSec-Fetch-Site: cross-site\r\n`;
        const cookies = `Cookie: token=${cliToken(running)}; session=1\r\nAuthorization: Bearer ${cliToken(running)}\r\n`;
        const sized = `Content-Type: ${type}\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
        const chunked = `Content-Type: ${type}\r\nTransfer-Encoding: chunked\r\n\r\n${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n`;
        expect(await exchange(running.port, head + cookies + sized)).toBe(BARE_400);
        expect(await exchange(running.port, head + cookies + chunked)).toBe(BARE_400);
      }
      expect(kept(running)).toEqual(before);
    },
  );
});

describe('A51: no preflight is answered', () => {
  test.each([
    ['of a web page', 'https://evil.example', 'Access-Control-Request-Method: PUT'],
    ['to a private network', 'https://evil.example', 'Access-Control-Request-Private-Network: true'],
    ['to the local network', 'https://evil.example', 'Access-Control-Request-Local-Network: true'],
    ['of an opaque origin', 'null', 'Access-Control-Request-Headers: authorization'],
    [
      'of an extension that is not paired',
      `chrome-extension://${'b'.repeat(32)}`,
      'Access-Control-Request-Method: PUT',
    ],
    ['of the paired extension, which needs none', EXTENSION_ORIGIN, 'Access-Control-Request-Method: PUT'],
  ])('%s', async (_what, origin, line) => {
    await using running = await startTestCompanion();
    const { link } = await TestLink.pair(running.companion);
    await using _link = link;
    for (const target of ['/control', '/', '*', new URL(running.companion.pacUrl).pathname]) {
      const request = `OPTIONS ${target} HTTP/1.1\r\nHost: 127.0.0.1:${running.port}\r\nOrigin: ${origin}\r\nAccess-Control-Request-Method: GET\r\n${line}\r\n\r\n`;
      expect(await exchange(running.port, request), target).toBe(BARE_400);
    }
  });
});

describe('A52: a key counts in the subprotocol alone, and for its own Origin alone', () => {
  test('A52: no foreign, opaque or missing Origin gets in with a key that is right elsewhere', async () => {
    await using running = await startTestCompanion();
    const { link, token } = await TestLink.pair(running.companion);
    await using _link = link;
    const cli = TOKEN_PREFIX + cliToken(running);
    const tries: [key: string, origin: string | null][] = [
      [token, 'https://evil.example'],
      [token, 'null'],
      [token, null],
      [token, `http://127.0.0.1:${running.port}`],
      [token, `${EXTENSION_ORIGIN}/`],
      [token, EXTENSION_ORIGIN.toUpperCase()],
      [token, `${EXTENSION_ORIGIN}, https://evil.example`],
      [cli, 'https://evil.example'],
      [cli, 'null'],
      [cli, EXTENSION_ORIGIN],
      [cli, 'file://'],
      [cli, ''],
    ];
    for (const [key, origin] of tries) {
      const lines = origin === null ? [] : [`Origin: ${origin}`];
      expect(await exchange(running.port, handshake(running, `detour.v1, ${key}`, ...lines)), `${origin}`).toBe(
        BARE_400,
      );
    }
  });

  test('A52: in the address, a cookie or another field it is none; there are no server-sent events', async () => {
    await using running = await startTestCompanion();
    const key = cliToken(running);
    const lead = handshake(running, 'detour.v1');
    const tries = [
      lead.replace('GET /control ', `GET /control?token=${key} `),
      lead.replace('GET /control ', `GET /control/${key} `),
      lead.replace('GET /control ', `GET /control?detour.v1,token.${key} `),
      lead.replace('\r\n\r\n', `\r\nCookie: token=${key}\r\n\r\n`),
      lead.replace('\r\n\r\n', `\r\nAuthorization: Bearer ${key}\r\n\r\n`),
      lead.replace('\r\n\r\n', `\r\nProxy-Authorization: Bearer ${key}\r\n\r\n`),
      `GET /control?token=${key} HTTP/1.1\r\nHost: 127.0.0.1:${running.port}\r\nAccept: text/event-stream\r\nAuthorization: Bearer ${key}\r\n\r\n`,
    ];
    for (const request of tries) expect(await exchange(running.port, request), request).toBe(BARE_400);
  });
});

test('A53: another extension gets in with nobody’s key, in either browser', async () => {
  await using running = await startTestCompanion();
  const firefox = 'moz-extension://11111111-2222-4333-8444-555555555555';
  const { link, token } = await TestLink.pair(running.companion, firefox);
  await using _link = link;
  for (const origin of [
    'moz-extension://11111111-2222-4333-8444-555555555556',
    `chrome-extension://${'a'.repeat(32)}`,
    'safari-web-extension://11111111-2222-4333-8444-555555555555',
  ])
    await expect(TestLink.open(running.port, token, origin), origin).rejects.toThrow('400');
  await using again = await TestLink.open(running.port, token, firefox);
  expect(again.heard[0]).toMatchObject({ client: 'Firefox' });
});

describe('A54: the pairing code', () => {
  test('A54: guesses that come all at once count like others', async () => {
    await using running = await startTestCompanion();
    const { code } = running.companion.newCode();
    const guesses = Array.from({ length: 40 }, (_, i) => String((Number(code) + 1 + i) % 1_000_000).padStart(6, '0'));
    const opened = await Promise.allSettled(
      guesses.map(guess => TestLink.open(running.port, CODE_PREFIX + guess, EXTENSION_ORIGIN)),
    );
    expect(opened.every(one => one.status === 'rejected')).toBe(true);
    // Five of them were its end.
    await expect(TestLink.open(running.port, CODE_PREFIX + code, EXTENSION_ORIGIN)).rejects.toThrow('400');
    expect(running.companion.isPaired).toBe(false);
  });

  test('A54: is told in the terminal alone', async () => {
    await using running = await startTestCompanion();
    const { link } = await TestLink.pair(running.companion);
    await using _link = link;
    const { code } = running.companion.newCode();
    await link.ask({ type: 'follow', recent: 100 });
    await link.ask({ type: 'site', host: 'a.test' });
    expect(await link.ask({ type: 'pair' })).toMatchObject({ type: 'refused' });
    expect(JSON.stringify(link.heard)).not.toContain(code);
    for (const name of ['clients.json', 'running.json'])
      expect(readFileSync(path.join(running.place.stateFolder, name), 'utf8')).not.toContain(`"${code}"`);
  });
});

test('A55: SOCKS does not lead to the control port either', async () => {
  await using running = await startTestCompanion();
  const port = Buffer.from([running.port >> 8, running.port & 255]);
  const name = Buffer.from('localhost');
  const five = Buffer.concat([Buffer.from([5, 1, 0, 5, 1, 0, 1, 127, 0, 0, 1]), port]);
  const fiveByName = Buffer.concat([Buffer.from([5, 1, 0, 5, 1, 0, 3, name.length]), name, port]);
  const four = Buffer.concat([Buffer.from([4, 1]), port, Buffer.from([127, 0, 0, 1, 0])]);
  const fourByName = Buffer.concat([Buffer.from([4, 1]), port, Buffer.from([0, 0, 0, 1, 0]), name, Buffer.from([0])]);
  for (const bytes of [five, fiveByName]) {
    const told = Buffer.from(await exchange(running.port, bytes), 'latin1');
    expect([...told.subarray(0, 3)]).toEqual([5, 0, 5]);
    expect(told[3]).not.toBe(0);
  }
  for (const bytes of [four, fourByName]) {
    const told = Buffer.from(await exchange(running.port, bytes), 'latin1');
    expect(told[1]).not.toBe(90);
  }
});

describe('A56: what only reads', () => {
  test('A56: no GET has an effect, and no path leads out of what there is', async () => {
    await using running = await startTestCompanion();
    const before = kept(running);
    const secret = new URL(running.companion.pacUrl).pathname.split('/')[1]!;
    for (const target of [
      '/control?type=set-site&site=sneaky.test&route=companion',
      '/set-site?site=sneaky.test',
      '/pair',
      `/${secret}`,
      `/${secret}/`,
      `/${secret}/proxy.pac/`,
      `/${secret}/../proxy.pac`,
      `/${secret}/%2e%2e/running.json`,
      `//${secret}/proxy.pac`,
      `/${secret}/..%2f..%2fclients.json`,
      '/..\\..\\running.json',
      '/%00',
    ]) {
      const told = await exchange(running.port, `GET ${target} HTTP/1.1\r\nHost: 127.0.0.1:${running.port}\r\n\r\n`);
      expect(told, target).toBe(BARE_400);
    }
    expect(kept(running)).toEqual(before);
  });

  test('A56: a link in the place of a state file stops the start', async () => {
    using place = makePlace();
    await (await startTestCompanion(TEST_CONFIG, place))[Symbol.asyncDispose]();
    const elsewhere = path.join(place.folder, 'elsewhere');
    for (const [name, text] of [
      ['clients.json', '{"version":1,"clients":[]}'],
      ['pac-secret', `${'A'.repeat(22)}\n`],
    ] as const) {
      const file = path.join(place.stateFolder, name);
      writeFileSync(elsewhere, text, { mode: 0o600 });
      rmSync(file, { force: true });
      symlinkSync(elsewhere, file);
      await expect(startTestCompanion(TEST_CONFIG, place), name).rejects.toThrow('is a link');
      rmSync(file);
    }
  });
});
