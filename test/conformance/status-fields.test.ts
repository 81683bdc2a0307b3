// What Detour says of itself in Proxy-Status (RFC 9209) and Cache-Status (RFC 9211), to whom, and what it makes of the members of others.
import { describe, expect, test } from 'vitest';
import { parseList } from '../../companion/message/structured-fields.ts';
import { Fault, FAULTS, type FaultKind } from '../../shared/fault.ts';
import { proxyStatusOf } from '../../companion/downstream/fault-page.ts';
import { startOrigin, startRawOrigin } from '../support/origin.ts';
import { connectRaw, type RawAnswer } from '../support/raw-client.ts';
import { startTestCompanion, TEST_CONFIG } from '../support/with-companion.ts';
import { get } from './talk.ts';

const CACHED = 'HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\n';

/** An origin that answers every request with these bytes and a body of two, and keeps the heads it saw. */
async function startSaying(head: string) {
  const heads: string[] = [];
  const origin = await startRawOrigin(async peer => {
    while (true) {
      heads.push(await peer.readUntil('\r\n\r\n', 60_000));
      peer.write(`${head}\r\nok`);
    }
  });
  return { ...origin, heads, [Symbol.asyncDispose]: () => origin[Symbol.asyncDispose]() };
}

async function ask(port: number, url: string, more = ''): Promise<RawAnswer> {
  await using client = await connectRaw(port);
  client.write(get(url, more));
  return await client.readAnswer();
}

describe('Proxy-Status', () => {
  test('R79: members of others stay, and ours comes behind them as a member of the list', async () => {
    await using origin = await startSaying(
      `HTTP/1.1 407 No\r\nProxy-Status: inner; received-status=407, "an edge"\r\nContent-Length: 2\r\n`,
    );
    await using companion = await startTestCompanion();
    const refused = await ask(companion.port, origin.url('/'));
    const members = parseList(refused.headers['proxy-status']!)!;
    expect(members.at(-1)).toMatchObject({ value: { name: 'detour' } });
    await using passing = await startSaying(`HTTP/1.1 200 OK\r\nProxy-Status: inner\r\nContent-Length: 2\r\n`);
    const passed = await ask(companion.port, passing.url('/'));
    expect(passed.headers['proxy-status']).toBe('inner');
  });

  test('R80: every fault has an error type, and where it is one of RFC 9209 the status that goes with it', () => {
    const recommended: Record<number, RegExp> = {
      400: /^http_request_error$/,
      403: /^http_request_denied$/,
      500: /^(destination_not_found|proxy_internal_error|proxy_configuration_error)$/,
      502: /^(dns_error|destination_ip_(prohibited|unroutable)|connection_(refused|terminated)|tls_\w+|http_response_(incomplete|transfer_coding|header_section_size)|http_upgrade_failed|http_protocol_error|proxy_loop_detected)$/,
      503: /^(destination_unavailable|connection_limit_reached)$/,
      504: /^(dns_timeout|connection_(timeout|read_timeout|write_timeout)|http_response_timeout)$/,
    };
    for (const [kind, row] of Object.entries(FAULTS)) {
      if (row.status === null) continue;
      const fault = new Fault(kind as FaultKind, { target: { host: 'a.test', port: 80 } });
      const [member] = parseList(proxyStatusOf(fault))!;
      expect(member, kind).toMatchObject({ value: { name: 'detour' } });
      expect(proxyStatusOf(fault), kind).toMatch(/^detour; error=[a-z_]+; details=".+"$/);
      if (fault.proxyStatusError !== kind) continue;
      const known = Object.entries(recommended).find(([, types]) => types.test(kind));
      if (known !== undefined) expect(row.status, kind).toBe(Number(known[0]));
    }
  });

  test('R81: next-hop is the hop’s name in the file; its password is nobody’s business', async () => {
    await using companion = await startTestCompanion(
      `${TEST_CONFIG}hops: { office: "http://ann:s3cret@127.0.0.1:1" }\nroutes: { work: [[office]] }\ndefault: work\n`,
    );
    const answer = await ask(companion.port, 'http://origin.test/', 'Accept: text/html\r\n');
    expect(answer.status).toBe(502);
    expect(answer.headers['proxy-status']).toMatch(/^detour; error=\w+; next-hop="office"; details="/);
    expect(answer.head + answer.text).not.toContain('s3cret');
  });

  test('R82: it is nothing for trailers, and parameters that are not known say nothing', async () => {
    await using origin = await startRawOrigin(async peer => {
      while (true) {
        await peer.readUntil('\r\n\r\n', 60_000);
        peer.write(
          'HTTP/1.1 200 OK\r\nProxy-Status: x; zz=1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nProxy-Status: y; error=dns_error\r\nCache-Status: y; hit\r\n\r\n',
        );
      }
    });
    await using companion = await startTestCompanion();
    const answer = await ask(companion.port, origin.url('/'), 'TE: trailers\r\nConnection: TE\r\n');
    expect(answer.headers['proxy-status']).toBe('x; zz=1');
    expect(answer.trailers).toEqual({});
    expect(answer.status).toBe(200);
  });

  test('R83, A75: an origin that says proxies’ errors of itself gets no other route by it, and its page is not kept', async () => {
    await using origin = await startSaying(
      'HTTP/1.1 403 No\r\nProxy-Status: squid; error=http_request_denied\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\n',
    );
    await using companion = await startTestCompanion();
    for (let i = 1; i <= 2; i++) {
      const answer = await ask(companion.port, origin.url('/'));
      expect(answer.status).toBe(403);
      expect(answer.text).toBe('ok');
      expect(origin.heads).toHaveLength(i);
    }
  });
});

describe('Cache-Status', () => {
  test('R84: one member of ours, which says hit or fwd and never both', async () => {
    await using origin = await startSaying(CACHED);
    await using companion = await startTestCompanion();
    const said: string[] = [];
    for (let i = 0; i < 2; i++) said.push((await ask(companion.port, origin.url('/'))).headers['cache-status']!);
    const reload = await ask(companion.port, origin.url('/'), 'Cache-Control: no-cache\r\n');
    said.push(reload.headers['cache-status']!);
    for (const one of said) {
      const members = parseList(one)!;
      expect(members, one).toHaveLength(1);
      expect(members[0], one).toMatchObject({ value: { name: 'detour' } });
      expect(/; hit\b/.test(one) !== /; fwd=/.test(one), one).toBe(true);
    }
    expect(said[0]).toBe('detour; fwd=uri-miss; stored');
    expect(said[1]).toMatch(/^detour; hit; ttl=\d+$/);
    expect(said[2]).toMatch(/^detour; fwd=request/);
  });

  test('R84: what is made here has none', async () => {
    await using gone = await startOrigin();
    const url = gone.url('/');
    await gone[Symbol.asyncDispose]();
    await using companion = await startTestCompanion();
    for (const more of ['', 'Cache-Control: only-if-cached\r\n']) {
      const answer = await ask(companion.port, url, more);
      expect(answer.status).toBeGreaterThanOrEqual(500);
      expect(answer.headers['cache-status'], more).toBeUndefined();
      expect(answer.headers['proxy-status'], more).toContain('detour; error=');
    }
  });
});

test('R85: neither is ever said to an origin, nor what a client says of them', async () => {
  await using origin = await startSaying(CACHED);
  await using companion = await startTestCompanion(TEST_CONFIG);
  await ask(companion.port, origin.url('/'));
  await ask(companion.port, origin.url('/'), 'Cache-Control: no-cache\r\n');
  expect(origin.heads).toHaveLength(2);
  for (const head of origin.heads) expect(head).not.toMatch(/^(?:proxy|cache)-status:|detour/im);
});
