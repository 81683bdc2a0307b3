// Whose no is it, and what becomes of it? Answers with what real proxies and origins write into them.
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { Fields } from '../../../companion/message/headers.ts';
import type { ResponseHead } from '../../../companion/message/message.ts';
import type { AdmittedTarget, Chain, NamedHop, Opinion, Question, Sent } from '../../../companion/rooms.ts';
import { makeRefusals, mayGoOn } from '../../../companion/route/refusal.ts';
import { leadsToPortal, SIGNATURES } from '../../../companion/route/signatures.ts';
import type { OwnSignature } from '../../../shared/config/signatures.ts';
import { ROUTE_DEFAULTS, type Route } from '../../../shared/config/routes.ts';
import { Fault } from '../../../shared/fault.ts';

const hopNamed = (name: string): NamedHop => ({
  name,
  kind: 'http',
  host: `${name}.test`,
  port: 3128,
  username: 'me',
  password: 's3cret',
});
const chainOf = (name: string): Chain => ({ key: name, hops: [hopNamed(name)] });
const answer = (status: number, ...fields: string[]): ResponseHead => ({
  status,
  reason: '',
  version: 11,
  fields: Fields.of(...fields),
  framing: { kind: 'none' },
  keepAlive: true,
});

interface Asked {
  readonly method?: string;
  readonly chains?: readonly string[];
  /** Which of them answered. */
  readonly by?: string;
  readonly absolute?: boolean;
  readonly tried?: number;
  readonly route?: Partial<Route>;
  readonly sent?: Partial<Sent>;
  readonly opinions?: Opinion[];
  readonly page?: string | null;
  readonly host?: string;
  readonly rows?: readonly OwnSignature[];
  readonly refusals?: ReturnType<typeof makeRefusals>;
}

/** What becomes of an answer; the question with what was noted in it. */
function ask(head: ResponseHead, asked: Asked = {}) {
  const { method = 'GET', chains = ['squid', 'other'], by = chains[0]!, absolute = true, tried = 1 } = asked;
  const chain = chainOf(by);
  const question: Question = {
    one: { chain, signal: new AbortController().signal, steps: [], stage: 'response' },
    hop: absolute ? chain.hops[0]! : null,
    target: { host: asked.host ?? 'site.test', port: 80 } as AdmittedTarget,
    route: {
      name: 'r',
      chains: chains.map(chainOf),
      behindHops: true,
      route: { ...ROUTE_DEFAULTS, chains: [], ...asked.route },
    },
    sent: { method, isKept: true, isWhole: true, isUnsent: false, ...asked.sent },
    tried,
    opinions: asked.opinions ?? [],
  };
  const said = (asked.refusals ?? makeRefusals(asked.rows)).ofAnswer(head, question, asked.page ?? null);
  return { said, fault: said instanceof Fault ? said : null, one: question.one, opinions: question.opinions };
}
const kindOf = (head: ResponseHead, asked?: Asked) => ask(head, asked).fault?.kind ?? null;

const SQUID_DENIES = [
  'X-Squid-Error',
  'ERR_ACCESS_DENIED 0',
  'Via',
  '1.1 sq (squid/5.7)',
  'X-Cache-Lookup',
  'NONE from sq:3128',
];
const SQUID_HAD_IT = [
  'X-Squid-Error',
  'ERR_ACCESS_DENIED 0',
  'X-Cache-Lookup',
  'NONE from x:1',
  'X-Cache-Lookup',
  'MISS from sq:3128',
  'Via',
  '1.1 sq (squid/5.7)',
];

describe('a no of the hop', () => {
  test.each([
    [407, 'hop_authentication_failed', 'auth', ['Proxy-Authenticate', 'Basic realm="x"']],
    [403, 'hop_refused', 'policy', SQUID_DENIES],
    [403, 'hop_refused', 'policy', ['Proxy-Status', 'squid.test; error=http_request_denied']],
    [403, 'hop_refused', 'policy', ['Proxy-Status', 'squid.test; error=something_new']],
    [502, 'hop_refused', 'policy', ['Proxy-Status', '"squid";error=destination_ip_prohibited']],
    [503, 'hop_refused', 'rate', ['Proxy-Status', 'squid; error=connection_limit_reached']],
    [502, 'hop_could_not_reach', 'unreachable', ['Proxy-Status', 'squid; error=connection_refused']],
    [
      403,
      'hop_could_not_reach',
      'unreachable',
      ['Proxy-Status', 'inner, squid.test;details="a, b; c";error=destination_not_found'],
    ],
    [503, 'hop_could_not_reach', 'unreachable', ['X-Squid-Error', 'ERR_CONNECT_FAIL 111', 'Via', '1.1 sq']],
    [504, 'hop_could_not_reach', 'timeout', ['X-Squid-Error', 'ERR_READ_TIMEOUT 0']],
    [403, 'hop_refused', 'policy', ['Server', 'tinyproxy/1.11.1']],
    [500, 'hop_could_not_reach', 'unreachable', ['Server', 'tinyproxy/1.11.1']],
    [401, 'hop_authentication_failed', 'auth', ['Server', 'tinyproxy/1.11.1']],
    [403, 'hop_refused', 'policy', ['Proxy-Agent', 'gost/2.11']],
    [429, 'hop_refused', 'rate', ['X-Proxy-Error', 'slow down']],
    [511, 'hop_refused', 'portal', []],
  ] as const)('%i → %s, %s (%j)', (status, kind, sign, fields) => {
    expect(ask(answer(status, ...fields)).fault).toMatchObject({ kind, sign, verdict: 'proxy', hop: 'squid' });
    expect(kindOf(answer(status, ...fields), { method: 'HEAD' })).toBe(kind);
  });

  test('says which hop, what it answered, and no password', () => {
    const { fault } = ask(answer(403, 'X-Squid-Error', 'ERR_ACCESS_DENIED\t0\x01'));
    expect(fault).toMatchObject({ hop: 'squid', receivedStatus: 403, target: { host: 'squid.test', port: 3128 } });
    expect(fault!.message).toBe(
      'The hop "squid" (squid.test:3128) refused to carry this request (403, squid: ERR_ACCESS_DENIED 0).',
    );
  });

  test('a reason phrase, and the beginning of a page', () => {
    expect(kindOf({ ...answer(403), reason: 'Request blocked by Privoxy' })).toBe('hop_refused');
    const html = answer(503, 'Content-Type', 'text/html');
    expect(ask(html).said).toBe('page');
    expect(kindOf(html, { page: '<title>503 (Privoxy@VM)</title>' })).toBe('hop_could_not_reach');
    expect(kindOf(html, { page: '<title>down</title>' })).toBeNull();
    // What cannot be read without unpacking is not held back.
    expect(ask(answer(503, 'Content-Type', 'text/html', 'Content-Encoding', 'gzip')).said).toBeNull();
  });

  test('how long it asks to be left alone is kept', () => {
    expect(ask(answer(429, 'Proxy-Agent', 'x', 'Retry-After', '30')).fault!.retryAfter).toBe(30_000);
  });
});

describe("the origin's answer, or nobody knows", () => {
  test.each([
    [403, []],
    [403, ['Server', 'squid']],
    [404, ['X-Squid-Error', 'ERR_X 0']],
    [200, ['Proxy-Status', 'squid; error=http_request_denied']],
    [403, ['Proxy-Status', 'squid']],
    [403, ['Proxy-Status', 'squid; received-status=403']],
    [403, ['Proxy-Status', 'squid; error=http_request_denied; received-status=403']],
    [403, ['Proxy-Status', 'origin-side; error=http_request_denied, squid']],
    [403, ['Proxy-Status', 'squid; details="; error=http_request_denied"']],
    [502, ['Proxy-Status', 'squid; error=http_response_incomplete']],
    [403, ['Server', 'tinyproxy/1.11.1', 'Via', '1.1 vm (tinyproxy/1.11.1)']],
    [403, SQUID_HAD_IT],
    [451, []],
    [503, []],
    [400, ['Proxy-Agent', 'x']],
    [431, ['Proxy-Agent', 'x']],
  ] as const)('%i %j', (status, fields) => expect(kindOf(answer(status, ...fields))).toBeNull());

  test('what only an origin writes is noted as its own', () => {
    for (const field of [
      ['Set-Cookie', 'a=b'],
      ['ETag', '"x"'],
      ['CF-Ray', '1'],
      ['Age', '7'],
      ['Via', '1.1 cdn, 1.1 sq'],
    ])
      expect(ask(answer(403, ...field), { route: { unknown: 'proxy' } })).toMatchObject({
        said: null,
        one: { verdict: 'origin' },
      });
  });

  test('no 407 ever reaches the browser, and one of a request that must not be sent twice no route survives', () => {
    expect(ask(answer(407), { method: 'POST', route: { refused: 'relay' } }).fault).toMatchObject({
      kind: 'proxy_configuration_error',
      row: { side: 'here' },
    });
    expect(kindOf(answer(407), { absolute: false })).toBe('http_protocol_error');
  });

  test('through a tunnel the signs of a hop are those of somebody at the other end', () => {
    for (const fields of [SQUID_DENIES, ['Proxy-Agent', 'x'], ['Proxy-Status', 'squid; error=http_request_denied']])
      expect(kindOf(answer(403, ...fields), { absolute: false })).toBeNull();
    // But a filter or a portal on the way can speak there, too.
    expect(kindOf(answer(511), { absolute: false })).toBe('hop_refused');
    expect(kindOf(answer(403, 'Content-Type', 'text/html'), { absolute: false, page: 'FortiGuard' })).toBe(
      'hop_refused',
    );
  });
});

describe('unknown: proxy', () => {
  const route = { unknown: 'proxy' } as const;
  const plain = (status: number) => answer(status, 'Content-Type', 'application/json');

  test('takes it for a no, until two exits that know nothing of each other say the same', () => {
    const first = ask(plain(403), { route, chains: ['a', 'b', 'c'] });
    expect(first.fault).toMatchObject({ kind: 'hop_refused', verdict: 'unknown', hop: 'a' });
    const { opinions } = first;
    const second = ask(plain(403), { route, chains: ['a', 'b', 'c'], by: 'b', tried: 2, opinions });
    expect(second).toMatchObject({ said: null, one: { verdict: 'origin', sign: 'policy' } });
    const other = ask(plain(451), { route, chains: ['a', 'b', 'c'], by: 'b', tried: 2, opinions });
    expect(other.fault).toMatchObject({ kind: 'hop_refused', verdict: 'unknown' });
  });

  test('the last one is passed on: it says more than we could', () => {
    expect(ask(plain(403), { route, tried: 2 })).toMatchObject({ said: null, one: { verdict: 'unknown' } });
    expect(ask(plain(403), { route, chains: ['only'] }).said).toBeNull();
  });

  test('a request that must not be sent twice is not', () => {
    expect(ask(plain(403), { route, method: 'POST' })).toMatchObject({ said: null, one: { verdict: 'unknown' } });
  });
});

describe('what may be sent again', () => {
  const policy = { who: 'proxy', unprocessed: true } as const;
  const away = { who: 'proxy', unprocessed: false } as const;
  const kept = { isKept: true, isWhole: true, isUnsent: false };

  test('R14: what changes nothing; what may be done twice, once all of it is here; anything else only where it was provably not done', () => {
    for (const method of ['GET', 'HEAD', 'OPTIONS', 'TRACE'])
      expect(mayGoOn(away, { method, ...kept }, 'relay')).toBe(true);
    for (const method of ['PUT', 'DELETE']) {
      expect(mayGoOn(away, { method, ...kept }, 'relay')).toBe(true);
      expect(mayGoOn(away, { method, ...kept, isWhole: false }, 'relay')).toBe(false);
    }
    for (const method of ['POST', 'PATCH', 'BREW']) {
      expect(mayGoOn(away, { method, ...kept }, 'next')).toBe(false);
      expect(mayGoOn(policy, { method, ...kept }, 'next')).toBe(true);
      expect(mayGoOn(policy, { method, ...kept }, 'relay')).toBe(false);
      expect(mayGoOn(away, { method, ...kept, isWhole: false, isUnsent: true }, 'relay')).toBe(true);
    }
  });

  test('nothing of which a byte is gone', () => {
    for (const method of ['GET', 'PUT', 'POST'])
      expect(mayGoOn(policy, { method, ...kept, isKept: false }, 'next')).toBe(false);
  });

  test.each([
    ['407', answer(407)],
    ['Proxy-Status', answer(403, 'Proxy-Status', 'p; error=http_request_denied')],
    ['squid', answer(403, ...SQUID_DENIES)],
    ['tinyproxy', answer(403, 'Server', 'tinyproxy/1.11.1')],
  ])("a POST that a hop's own policy refused goes on: %s", (_, head) => {
    expect(ask(head, { method: 'POST' }).fault).toMatchObject({ verdict: 'proxy' });
    const kept = ask(head, { method: 'POST', route: { refused: 'relay' } });
    expect(kept.fault?.kind ?? kept.one.verdict).toBe(head.status === 407 ? 'proxy_configuration_error' : 'proxy');
  });

  test.each([
    [
      'through squid, which says that it had it from further on',
      [
        'X-Squid-Error',
        'ERR_ACCESS_DENIED 0',
        'X-Cache-Lookup',
        'NONE from x:1',
        'X-Cache-Lookup',
        'MISS from sq:3128',
        'Via',
        '1.1 sq',
      ],
    ],
    ['with the Via of the hop', ['Proxy-Status', 'p; error=http_request_denied', 'Via', '1.1 hop']],
    ['with a Via, another product', ['X-Squid-Error', 'ERR_ACCESS_DENIED 0', 'Via', '1.1 hop']],
  ])('a POST that an origin refused with the signs of a hop is not sent again: %s', (_, fields) => {
    expect(ask(answer(403, ...fields), { method: 'POST' }).fault).toBeNull();
  });

  test('a hop that forwards without a Via cannot prove by the lack of one that it did not', () => {
    const refusals = makeRefusals();
    const forged = answer(403, 'Proxy-Status', 'p; error=http_request_denied');
    refusals.learn(answer(200, 'Via', '1.1 cdn'), hopNamed('squid'));
    expect(ask(forged, { method: 'POST', refusals }).fault).not.toBeNull();
    refusals.learn(answer(200), hopNamed('squid'));
    refusals.learn(answer(200, 'Via', '1.1 cdn'), hopNamed('squid'));
    expect(ask(forged, { method: 'POST', refusals }).fault).toBeNull();
    expect(ask(forged, { method: 'GET', refusals }).fault).not.toBeNull();
    // Another hop is another.
    expect(ask(forged, { method: 'POST', refusals, by: 'other' }).fault).not.toBeNull();
  });

  test('could not is not would not', () => {
    expect(ask(answer(503, 'X-Squid-Error', 'ERR_CONNECT_FAIL 111'), { method: 'POST' })).toMatchObject({
      said: null,
      one: { verdict: 'proxy', sign: 'unreachable' },
    });
  });
});

describe('a route of one chain', () => {
  const chains = ['only'];

  test('the policy of the hop is told in our words, and what it could not do in its own', () => {
    expect(kindOf(answer(403, ...SQUID_DENIES), { chains })).toBe('hop_refused');
    expect(ask(answer(503, 'X-Squid-Error', 'ERR_CONNECT_FAIL 111'), { chains })).toMatchObject({
      said: null,
      one: { verdict: 'proxy', sign: 'unreachable' },
    });
  });

  test('a POST gets the hop’s own answer', () => {
    expect(kindOf(answer(403, ...SQUID_DENIES), { chains, method: 'POST' })).toBeNull();
  });

  test('nothing is held back', () => {
    expect(ask(answer(403, 'Content-Type', 'text/html'), { chains }).said).toBeNull();
  });
});

describe('rows of the file', () => {
  const row: OwnSignature = { name: 'corp', status: [200, 403], field: 'x-corp-block', match: 'denied', who: 'proxy' };

  test('are asked first, by tunnels too, and with any status that they name', () => {
    const head = answer(200, 'X-Corp-Block', 'Access DENIED (ads)');
    expect(ask(head, { rows: [row], absolute: false }).fault).toMatchObject({ kind: 'hop_refused', sign: 'policy' });
    expect(kindOf(head)).toBeNull();
    expect(kindOf(answer(200, 'X-Corp-Block', 'no'), { rows: [row] })).toBeNull();
  });

  test('can say that it is the origin’s', () => {
    expect(
      ask(answer(403, ...SQUID_DENIES, 'X-Mine', '1'), {
        rows: [{ name: 'o', status: [403], field: 'x-mine', who: 'origin' }],
      }).said,
    ).toBeNull();
  });

  test('with a page wait for it', () => {
    const rows: OwnSignature[] = [{ name: 'p', status: [200], page: 'blocked by corp', who: 'proxy', sign: 'portal' }];
    const html = answer(200, 'Content-Type', 'text/html; charset=utf-8');
    expect(ask(html, { rows }).said).toBe('page');
    expect(ask(html, { rows, page: '<h1>Blocked by CORP' }).fault).toMatchObject({ sign: 'portal' });
    expect(ask(answer(200, 'Content-Type', 'image/png'), { rows }).said).toBeNull();
  });
});

test.each([
  ['site.test', 'http://192.168.1.1/login?to=http://site.test', true],
  ['site.test', 'http://router/', true],
  ['site.test', 'https://captive.example.com/', true],
  ['site.test', 'http://n123.network-auth.com/splash', true],
  ['site.test', 'http://login.hotspot/', true],
  ['site.test', 'http://[fe80::1]/', true],
  ['site.test', 'https://site.test/', false],
  ['site.test', 'https://login.other.test/sso', false],
  ['site.test', '/login', false],
  ['site.test', '//router/', false],
  ['192.168.1.1', 'http://192.168.1.2/', false],
  ['wiki.lan', 'http://login.lan/', false],
  ['site.test', 'ftp://192.168.1.1/', false],
])('a redirection from %s to %s leads to a portal: %s', (host, location, portal) => {
  expect(leadsToPortal(host, location)).toBe(portal);
  expect(kindOf(answer(302, 'Location', location), { host })).toBe(portal ? 'hop_refused' : null);
});

test('docs/refusals.md names every product of the table', () => {
  const page = readFileSync('docs/refusals.md', 'utf8');
  for (const { name } of SIGNATURES) expect(page).toContain(name);
});
