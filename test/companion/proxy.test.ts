// The walk over real sockets, with real origins and real peers (curl, ws). What concerns single messages is in message/, connections in downstream/
// and upstream/.
import { describe, expect, test } from 'vitest';
import { startOrigin } from '../support/origin.ts';
import { connectRaw } from '../support/raw-client.ts';
import { startProxy } from '../support/with-proxy.ts';

describe('a request in absolute-form', () => {
  test('reaches the origin in origin-form and its answer comes back', async () => {
    await using origin = await startOrigin();
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(`GET ${origin.url('/a?b')} HTTP/1.1\r\nHost: ${origin.authority}\r\nX-Mine: 1\r\n\r\n`);
    const answer = await client.readAnswer();
    expect(answer.status).toBe(200);
    expect(answer.text).toBe('hello');
    expect(answer.headers['cache-status']).toBe('detour; fwd=bypass');
    expect(origin.requests[0]).toMatchObject({ method: 'GET', url: '/a?b' });
    expect(origin.requests[0]!.headers['x-mine']).toBe('1');
  });
});
