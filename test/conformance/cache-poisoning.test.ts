// Attacks on the cache of a whole companion over sockets: an answer that was made for one must not be another's, and a page must not find out what
// others have loaded. How single answers are judged is in test/vectors/cache.
import { describe, expect, test } from 'vitest';
import { startOrigin } from '../support/origin.ts';
import { connectRaw, type RawAnswer } from '../support/raw-client.ts';
import { startTestCompanion, TEST_CONFIG, type TestCompanion } from '../support/with-companion.ts';
import { get } from './talk.ts';

/** An origin whose answers may be kept, and tell which request they are the answer to. */
async function startEchoing(headers: Record<string, string> = {}) {
  let count = 0;
  return await startOrigin((request, response) => {
    const said = ['x-forwarded-host', 'x-original-url', 'x-http-method-override', 'cookie', 'user-agent']
      .map(name => request.headers[name])
      .filter(value => value !== undefined);
    response.writeHead(200, { 'Cache-Control': 'max-age=600', ...headers });
    response.end(`${++count} ${request.url} ${said.join(' ')}`);
  });
}

async function ask(companion: TestCompanion, url: string, more = ''): Promise<RawAnswer> {
  await using client = await connectRaw(companion.port);
  client.write(get(url, more));
  return await client.readAnswer();
}

const isHit = (answer: RawAnswer) => /; hit\b/.test(answer.headers['cache-status'] ?? '');

describe('what an origin makes of fields that are not in the key', () => {
  test.each([
    'X-Original-URL: /admin',
    'X-Rewrite-URL: /admin',
    'X-HTTP-Method-Override: DELETE',
    'X-Method-Override: PUT',
    'X-Host: evil.test',
    'X-Forwarded-Host: evil.test',
    'x-forwarded-SCHEME: nothttps',
  ])('A69: an answer to a request with %s is for nobody else, and no other is for it', async line => {
    await using origin = await startEchoing();
    await using companion = await startTestCompanion();
    const url = origin.url('/page');
    expect((await ask(companion, url, `${line}\r\n`)).text).toContain('1 /page');
    expect((await ask(companion, url)).text).toBe('2 /page ');
    expect((await ask(companion, url, `${line}\r\n`)).text).toContain('3 /page');
    expect((await ask(companion, url)).text).toBe('2 /page ');
  });

  test('A69: X-Forwarded-Host does not even reach the origin', async () => {
    await using origin = await startEchoing();
    await using companion = await startTestCompanion();
    expect((await ask(companion, origin.url('/'), 'X-Forwarded-Host: evil.test\r\n')).text).not.toContain('evil');
  });

  test('A69: a request that wants another protocol is not answered from the cache', async () => {
    await using origin = await startEchoing();
    await using companion = await startTestCompanion();
    await ask(companion, origin.url('/'));
    const upgrade = await ask(companion, origin.url('/'), 'Connection: Upgrade\r\nUpgrade: websocket\r\n');
    expect(upgrade.text).toMatch(/^2 /);
    expect((await ask(companion, origin.url('/'))).text).toMatch(/^1 /);
  });

  test('A69: a fragment, another port and another scheme do not lead to another’s answer', async () => {
    await using origin = await startEchoing();
    await using other = await startEchoing();
    await using companion = await startTestCompanion();
    await ask(companion, origin.url('/a'));
    expect((await ask(companion, origin.url('/a%2f..%2fb'))).text).toMatch(/^2 /);
    expect((await ask(companion, origin.url('//a'))).text).toMatch(/^3 /);
    expect((await ask(companion, origin.url('/a?'))).text).toMatch(/^4 /);
    expect((await ask(companion, origin.url('/A'))).text).toMatch(/^5 /);
    expect((await ask(companion, other.url('/a'))).text).toMatch(/^1 /);
    expect(isHit(await ask(companion, origin.url('/a')))).toBe(true);
  });
});

describe('what is personal', () => {
  test('A67: where all sites share one cache no answer that sets a cookie is kept', async () => {
    await using origin = await startEchoing({ 'Set-Cookie': 'session=1' });
    await using companion = await startTestCompanion(`${TEST_CONFIG}cache: { partition: none }\n`);
    await ask(companion, origin.url('/'), 'Referer: http://a.test/\r\n');
    expect(isHit(await ask(companion, origin.url('/'), 'Referer: http://b.test/\r\n'))).toBe(false);
  });

  test('A67: on a listener with users no answer that sets a cookie is kept', async () => {
    await using origin = await startEchoing({ 'Set-Cookie': 'session=1' });
    const users = `${TEST_CONFIG}`.replace(
      'guard:\n',
      'guard:\n  users: { ann: a-long-password, bob: another-password }\n',
    );
    await using companion = await startTestCompanion(users);
    const login = (name: string) => `Proxy-Authorization: Basic ${Buffer.from(name).toString('base64')}\r\n`;
    const [ann, bob] = [login('ann:a-long-password'), login('bob:another-password')];
    expect((await ask(companion, origin.url('/'), ann)).text).toMatch(/^1 /);
    expect((await ask(companion, origin.url('/'), bob)).text).toMatch(/^2 /);
    expect((await ask(companion, origin.url('/'), ann)).text).toMatch(/^3 /);
  });

  test('A67: on a listener for one person it is, with its cookie', async () => {
    await using origin = await startEchoing({ 'Set-Cookie': 'session=1' });
    await using companion = await startTestCompanion();
    await ask(companion, origin.url('/'));
    const again = await ask(companion, origin.url('/'));
    expect(isHit(again)).toBe(true);
    expect(again.headers['set-cookie']).toBe('session=1');
  });

  test('A67: what was asked for with Authorization is not given to who has none, nor the other way round', async () => {
    await using origin = await startEchoing();
    await using companion = await startTestCompanion();
    const login = 'Authorization: Basic eDp5\r\n';
    expect((await ask(companion, origin.url('/'), login)).text).toMatch(/^1 /);
    expect((await ask(companion, origin.url('/'))).text).toMatch(/^2 /);
    expect((await ask(companion, origin.url('/'), login)).text).toMatch(/^3 /);
    expect((await ask(companion, origin.url('/'))).text).toMatch(/^2 /);
  });
});

describe('what a page can find out', () => {
  const from = (page: string) => `Referer: ${page}\r\n`;

  test('A79: what a page of one site has loaded is not there for a page of another, nor for one without a name', async () => {
    await using origin = await startEchoing();
    await using companion = await startTestCompanion();
    const pages = [
      from('http://evil.example/'),
      from('http://bank.example.evil.example/'),
      from('http://bank.example@evil.example/'),
      'Origin: http://evil.example\r\n',
      'Origin: null\r\n',
      '',
      from('about:blank'),
      from('http://bank.example\\@evil.example/'),
    ];
    for (const [i, page] of pages.entries()) {
      const url = origin.url(`/logo${i}`);
      await ask(companion, url, from('http://bank.example/'));
      expect(isHit(await ask(companion, url, from('http://www.bank.example/x')))).toBe(true);
      expect(isHit(await ask(companion, url, page)), page).toBe(false);
    }
  });

  test('A79: a page cannot ask for the name of another by a second Referer, or by its Origin', async () => {
    await using origin = await startEchoing();
    await using companion = await startTestCompanion();
    const attempts = [
      from('http://evil.example/') + from('http://bank.example/'),
      `${from('http://evil.example/')}Origin: http://bank.example\r\n`,
    ];
    for (const [i, more] of attempts.entries()) {
      const url = origin.url(`/logo${i}`);
      await ask(companion, url, from('http://bank.example/'));
      expect(isHit(await ask(companion, url, more)), more).toBe(false);
    }
  });

  test('A79: a navigation has what its own site has loaded, and pages that embed do not have what it loads', async () => {
    await using origin = await startEchoing();
    await using companion = await startTestCompanion();
    const url = `http://origin.test:${origin.port}/page`;
    await ask(companion, url, 'Upgrade-Insecure-Requests: 1\r\n');
    expect(isHit(await ask(companion, url, from(`http://origin.test:${origin.port}/`)))).toBe(true);
    expect(isHit(await ask(companion, url, from('http://evil.example/')))).toBe(false);
  });

  test('A79: who may not look, may not make out by only-if-cached either', async () => {
    await using origin = await startEchoing();
    await using companion = await startTestCompanion();
    const url = origin.url('/logo');
    await ask(companion, url, from('http://bank.example/'));
    const probe = await ask(companion, url, `${from('http://evil.example/')}Cache-Control: only-if-cached\r\n`);
    expect(probe.status).toBe(504);
  });
});

describe('Vary', () => {
  test('A68: a client that makes variants without end costs others little, and memory stays bounded', async () => {
    await using origin = await startEchoing({ Vary: 'User-Agent' });
    await using companion = await startTestCompanion();
    const url = origin.url('/');
    for (let i = 0; i < 100; i++) await ask(companion, url, `User-Agent: ${i}\r\n`);
    const last = await ask(companion, url, 'User-Agent: 99\r\n');
    expect(isHit(last)).toBe(true);
    expect(last.text).toMatch(/ 99$/);
    const other = await ask(companion, url, 'User-Agent: unseen\r\n');
    expect(other.text).toMatch(/ unseen$/);
  });

  test('A68: a Vary that names itself in every spelling is read, and one that cannot be is not trusted', async () => {
    for (const vary of ['*', ' , * ', 'user-agent,*', '"user-agent"', 'user agent', 'x'.repeat(5_000) + ' y']) {
      await using origin = await startEchoing({ Vary: vary });
      await using companion = await startTestCompanion();
      await ask(companion, origin.url('/'), 'User-Agent: a\r\n');
      expect((await ask(companion, origin.url('/'), 'User-Agent: b\r\n')).text, vary).toMatch(/ b$/);
    }
  });
});
