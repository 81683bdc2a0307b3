// A11: a chunked answer that is malformed, whole in one read. Somebody waits for it, and must hear.
import { createServer, type AddressInfo } from 'node:net';
import { expect, test } from 'vitest';
import { connectRaw } from '../../support/raw-client.ts';
import { startProxy } from '../../support/with-proxy.ts';

test.each(['-2', 'FFFFFFFFFFFFFFFFF', '2 x', '0x2', ''])(
  'A11 chunk size %j in one read is a 502 at once',
  async size => {
    await using origin = createServer(socket => {
      socket.once('data', () =>
        socket.write(`HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n${size}\r\nok\r\n0\r\n\r\n`),
      );
      socket.on('error', () => {});
    });
    await new Promise<void>(resolve => origin.listen(0, '127.0.0.1', resolve));
    const { port } = origin.address() as AddressInfo;
    await using proxy = await startProxy();
    await using client = await connectRaw(proxy.port);
    client.write(`GET http://127.0.0.1:${port}/ HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\n\r\n`);
    const answer = await client.readAnswer('GET', 3_000);
    expect(answer.status).toBe(502);
    expect(answer.headers['proxy-status']).toContain('error=http_protocol_error');
  },
);
