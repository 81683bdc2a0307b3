import { describe, expect, test } from 'vitest';
import { Fields } from '../../../companion/message/headers.ts';
import { allowedTrailers, dropHopByHop } from '../../../companion/message/hop-by-hop.ts';
import { linesOf } from './parse-all.ts';

describe('fields for one connection', () => {
  test('go, with all that Connection names (R6)', () => {
    const fields = Fields.of(
      'A', '1', 'Connection', 'X-Gone, keep-alive', 'connection', 'x-too', 'X-Gone', '1', 'Keep-Alive', 'timeout=5', 'Proxy-Connection', 'close',
      'TE', 'trailers', 'Upgrade', 'h2c', 'Proxy-Authenticate', 'Basic', 'X-Too', '2', 'x-gone', '3', 'B', '2',
    ); // prettier-ignore
    dropHopByHop(fields);
    expect(linesOf(fields)).toEqual([
      ['A', '1'],
      ['B', '2'],
    ]);
  });

  test('are never those that frame or control (A20)', () => {
    const fields = Fields.of(
      'Connection', 'close, host, content-length, authorization, connection, , cache-control',
      'Host', 'a', 'Content-Length', '3', 'Authorization', 'Basic x', 'Cache-Control', 'no-store',
    ); // prettier-ignore
    dropHopByHop(fields);
    expect(linesOf(fields)!.map(([name]) => name)).toEqual([
      'Host',
      'Content-Length',
      'Authorization',
      'Cache-Control',
    ]);
  });

  test('named a hundred thousand times cost no more than their bytes (A21)', () => {
    const fields = Fields.of(
      'Connection',
      Array.from({ length: 10_000 }, (_, i) => `x${i}`).join(','),
      'X9999',
      '1',
      'A',
      '1',
    );
    const before = performance.now();
    dropHopByHop(fields);
    expect(performance.now() - before).toBeLessThan(200);
    expect(linesOf(fields)).toEqual([['A', '1']]);
  });
});

test('trailers that frame, route or authenticate are dropped (A22)', () => {
  const trailers = Fields.of(
    'Content-Length', '3', 'Host', 'x', 'Authorization', 'x', 'Set-Cookie', 'a=b', 'X-Checksum', '1', 'Transfer-Encoding', 'chunked',
    'X-Forwarded-For', '1.2.3.4',
  ); // prettier-ignore
  expect(linesOf(allowedTrailers(trailers))).toEqual([['X-Checksum', '1']]);
  expect(allowedTrailers(Fields.of('Host', 'x'))).toBeNull();
});
