// Whose no is it? Answers to absolute-form requests, with what real proxies and origins write into them.
import { describe, expect, test } from 'vitest';
import { Fields } from '../../../companion/message/headers.ts';
import type { ResponseHead } from '../../../companion/message/message.ts';
import { refusalOf } from '../../../companion/route/refusal.ts';

const hop = {
  name: 'squid',
  kind: 'http',
  host: 'proxy.test',
  port: 3128,
  username: 'me',
  password: 's3cret',
} as const;
const answer = (status: number, ...fields: string[]): ResponseHead => ({
  status,
  reason: '',
  version: 11,
  fields: Fields.of(...fields),
  framing: { kind: 'none' },
  keepAlive: true,
});
const kindOf = (status: number, method: string, ...fields: string[]) =>
  refusalOf(answer(status, ...fields), method, hop)?.kind ?? null;

describe('a no of the hop', () => {
  test.each([
    [407, 'hop_authentication_failed', ['Proxy-Authenticate', 'Basic realm="x"']],
    [403, 'hop_refused', ['X-Squid-Error', 'ERR_ACCESS_DENIED 0']],
    [403, 'hop_refused', ['Proxy-Status', 'squid.test; error=http_request_denied']],
    [403, 'hop_refused', ['Proxy-Status', 'inner, squid.test;details="a, b; c";error=destination_not_found']],
    [502, 'hop_refused', ['Proxy-Status', '"squid";error=destination_ip_prohibited']],
    [503, 'hop_refused', ['Proxy-Status', 'squid; error=connection_limit_reached']],
  ] as const)('%i → %s (%j)', (status, kind, fields) => {
    expect(kindOf(status, 'GET', ...fields)).toBe(kind);
    expect(kindOf(status, 'HEAD', ...fields)).toBe(kind);
  });

  test('says which hop, what it answered, and no password', () => {
    const fault = refusalOf(answer(403, 'X-Squid-Error', 'ERR_ACCESS_DENIED\t0\x01'), 'GET', hop)!;
    expect(fault).toMatchObject({ hop: 'squid', receivedStatus: 403, target: { host: 'proxy.test', port: 3128 } });
    expect(fault.message).toBe(
      'The hop "squid" (proxy.test:3128) refused to carry this request (403, ERR_ACCESS_DENIED 0).',
    );
  });
});

describe("the origin's answer, or nobody knows", () => {
  test.each([
    [403, []],
    [403, ['Server', 'squid']],
    [404, ['X-Squid-Error', 'ERR_X 0']],
    [503, ['X-Squid-Error', 'ERR_CONNECT_FAIL 111']],
    [200, ['Proxy-Status', 'squid; error=http_request_denied']],
    [403, ['Proxy-Status', 'squid']],
    [403, ['Proxy-Status', 'squid; received-status=403']],
    [403, ['Proxy-Status', 'squid; error=http_request_denied; received-status=403']],
    [403, ['Proxy-Status', 'origin-side; error=http_request_denied, squid']],
    [403, ['Proxy-Status', 'squid; details="; error=http_request_denied"']],
    [502, ['Proxy-Status', 'squid; error=connection_refused']],
    [451, []],
    [503, []],
  ] as const)('%i %j', (status, fields) => expect(kindOf(status, 'GET', ...fields)).toBeNull());

  test('a method that must not be sent twice is never tried again', () => {
    for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS'])
      expect(kindOf(403, method, 'X-Squid-Error', 'ERR_ACCESS_DENIED 0')).toBeNull();
  });

  test('but no 407 ever reaches the browser, and that one no route survives', () => {
    expect(refusalOf(answer(407), 'POST', hop)).toMatchObject({
      kind: 'proxy_configuration_error',
      row: { side: 'here' },
    });
  });
});
