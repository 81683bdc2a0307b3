// Digest by the examples of its RFC, and what a hop's 407 leads to.
import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  type DigestChallenge,
  digestAuthorization,
  nextNonceOf,
  parseChallenges,
} from '../../../companion/message/digest-authorization.ts';
import { loginOf } from '../../../companion/message/hop-login.ts';

const RFC_CHALLENGE: DigestChallenge = {
  realm: 'http-auth@example.org',
  nonce: '7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v',
  opaque: 'FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS',
  algorithm: 'MD5',
  qop: 'auth',
  stale: false,
  userhash: false,
};
const MUFASA = { username: 'Mufasa', password: 'Circle of Life' };
const REQUEST = { method: 'GET', uri: '/dir/index.html' };

describe('RFC 7616 §3.9.1', () => {
  test.each([
    ['MD5', '8ca523f5e9506fed4657c9700eebdbec'],
    ['SHA-256', '753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1'],
  ] as const)('its example with %s', (algorithm, response) => {
    const text = digestAuthorization(
      { ...RFC_CHALLENGE, algorithm },
      MUFASA,
      REQUEST,
      1,
      'f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ',
    );
    expect(text).toContain(`response="${response}"`);
    expect(text).toContain('qop=auth, nc=00000001, cnonce="f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"');
    expect(text).toContain('username="Mufasa", realm="http-auth@example.org"');
  });

  test('a name told as a hash (§3.4.4)', () => {
    const text = digestAuthorization({ ...RFC_CHALLENGE, userhash: true }, MUFASA, REQUEST, 1);
    const name = createHash('md5').update('Mufasa:http-auth@example.org').digest('hex');
    expect(text).toContain(`username="${name}"`);
    expect(text).toContain('userhash=true');
    expect(text).not.toContain('Mufasa');
  });
});

describe('challenges', () => {
  test('several in one line, in several lines, and the first that can be answered', () => {
    expect(
      parseChallenges([
        'Negotiate, Basic realm="a, Digest b"',
        'Digest realm="r", nonce="n1", algorithm=SHA-512, qop="auth", Digest realm="r2", nonce="n2", algorithm=sha-256, qop="auth-int, auth", stale=TRUE',
        'Digest realm="r", nonce="n3"',
      ]),
    ).toEqual({
      basic: true,
      digest: {
        realm: 'r2',
        nonce: 'n2',
        opaque: null,
        algorithm: 'SHA-256',
        qop: 'auth',
        stale: true,
        userhash: false,
      },
    });
  });

  test('what we cannot answer is none: no nonce, another algorithm, auth-int alone', () => {
    for (const params of ['realm="r"', 'realm="r", nonce="n", algorithm=X', 'realm="r", nonce="n", qop="auth-int"'])
      expect(parseChallenges([`Digest ${params}`]).digest).toBeNull();
  });

  test('any text is read, and in little time', () => {
    fc.assert(
      fc.property(fc.array(fc.string(), { maxLength: 5 }), lines => {
        parseChallenges(lines);
      }),
    );
    parseChallenges([`Digest ${'a="'.repeat(1_000_000)}`]);
    parseChallenges([`${'\\"'.repeat(1_000_000)}`]);
  });

  test('nextnonce', () => {
    expect(nextNonceOf('rspauth="x", nextnonce="abc/=", qop=auth')).toBe('abc/=');
    expect(nextNonceOf('nonextnonce="abc"')).toBeNull();
  });
});

describe('the login of a hop', () => {
  const of = (auth?: 'auto' | 'basic' | 'digest') => loginOf({ username: 'me', password: 's3cret', auth });
  const digest = (nonce: string, more = '') => [`Digest realm="r", nonce="${nonce}", qop="auth"${more}`];
  const uri = () => 'far.test:443';
  const basic = `Basic ${Buffer.from('me:s3cret').toString('base64')}`;

  test('auto: Basic at once, Digest once it is asked for, counted', () => {
    const login = of();
    const first = login.tell('CONNECT', uri);
    expect(first.text).toBe(basic);
    const second = login.tell('CONNECT', uri, login.challenged(digest('n1'), first));
    expect(second.text).toMatch(/^Digest username="me", realm="r", nonce="n1", uri="far\.test:443".* nc=00000001,/);
    expect(second.text).not.toContain('s3cret');
    login.accepted(second, undefined);
    expect(login.tell('CONNECT', uri).text).toMatch(/nonce="n1".* nc=00000002/);
  });

  test('digest: nothing is told before it is asked for; basic: never Digest', () => {
    const login = of('digest');
    const first = login.tell('GET', uri);
    expect(first.text).toBeNull();
    expect(login.challenged(['Basic realm="r"'], first)).toBeNull();
    expect(login.tell('GET', uri).text).toBeNull();
    const other = of('basic');
    expect(other.challenged(digest('n'), other.tell('GET', uri))).toBeNull();
  });

  test('Basic that is refused where it would do is a wrong password', () => {
    const login = of();
    expect(login.challenged([...digest('n'), 'Basic realm="r"'], login.tell('GET', uri))).toBeNull();
  });

  test('a wrong password is told once, an old nonce is changed for a new one', () => {
    const login = of('digest');
    const told = login.tell('GET', uri, login.challenged(digest('n1'), login.tell('GET', uri)));
    expect(login.challenged(digest('n2'), told)).toBeNull();
    expect(login.challenged(digest('n2', ', stale=true'), told)?.challenge.nonce).toBe('n2');
  });

  test('a nonce that was taken once and is refused without a word is changed, once', () => {
    const login = of('digest');
    login.accepted(login.tell('GET', uri, login.challenged(digest('n1'), login.tell('GET', uri))), undefined);
    const next = login.challenged(digest('n2'), login.tell('GET', uri));
    expect(next?.challenge.nonce).toBe('n2');
    expect(login.challenged(digest('n3'), login.tell('GET', uri, next))).toBeNull();
  });

  test('requests that run at once have a nonce each, so that no count arrives before a smaller one', () => {
    const login = of('digest');
    const ask = (nonce: string) => login.tell('GET', uri, login.challenged(digest(nonce), login.tell('GET', uri)));
    const [a, b] = [ask('n1'), ask('n2')];
    login.accepted(b, undefined);
    login.accepted(a, undefined);
    const nonces = [1, 2, 3].map(() => /nonce="(\w+)".* nc=(\d+)/.exec(login.tell('GET', uri).text ?? '')?.slice(1, 3));
    expect(nonces).toEqual([['n1', '00000002'], ['n2', '00000002'], undefined]);
  });

  test('nextnonce is the next nonce', () => {
    const login = of('digest');
    login.accepted(login.tell('GET', uri, login.challenged(digest('n1'), login.tell('GET', uri))), 'nextnonce="n2"');
    expect(login.tell('GET', uri).text).toMatch(/nonce="n2".* nc=00000001/);
  });

  test('without a user name nothing is ever told', () => {
    const login = loginOf({});
    const told = login.tell('GET', uri);
    expect([told.text, login.challenged(digest('n1'), told)]).toEqual([null, null]);
  });
});
