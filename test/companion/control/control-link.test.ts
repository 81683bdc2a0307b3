// The open link over real sockets: versions, bounds, slow clients, revocation, steering.
import { connect } from 'node:net';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect, test } from 'vitest';
import { WebSocket } from 'ws';
import {
  CLOSE_GOING_AWAY,
  CLOSE_TOO_MANY,
  CLOSE_UNPAIRED,
  CLOSE_WRONG_VERSION,
  CODE_PREFIX,
  type CompanionMessage,
  CONTROL_PATH,
  MAX_CLIENT_MESSAGE,
  TOKEN_PREFIX,
} from '../../../shared/control.ts';
import { connectRaw } from '../../support/raw-client.ts';
import {
  cliToken,
  EXTENSION_ORIGIN,
  makePlace,
  startTestCompanion,
  TEST_CONFIG,
  TestLink,
} from '../../support/with-companion.ts';

/** Offers subprotocols and hears everything until the end. */
async function offer(port: number, protocols: string[], origin?: string) {
  const socket = new WebSocket(`ws://127.0.0.1:${port}${CONTROL_PATH}`, protocols, { origin });
  const heard: CompanionMessage[] = [];
  socket.on('message', data => heard.push(JSON.parse(String(data)) as CompanionMessage));
  const code = await new Promise<number>((resolve, reject) => {
    socket.once('close', resolve);
    socket.once('error', reject);
  });
  return { heard, code, protocol: socket.protocol };
}

test('a client of another version hears ours and is let go, and its code stays good', async () => {
  await using running = await startTestCompanion();
  const { code } = running.companion.newCode();
  const strange = await offer(running.port, ['detour.v2', CODE_PREFIX + code], EXTENSION_ORIGIN);
  expect(strange.code).toBe(CLOSE_WRONG_VERSION);
  expect(strange.protocol).toBe('detour.v2');
  expect(strange.heard).toMatchObject([{ type: 'hello', protocol: 1, version: '0.1.0' }]);
  expect(strange.heard[0]).not.toHaveProperty('token');
  await using link = await TestLink.open(running.port, CODE_PREFIX + code, EXTENSION_ORIGIN);
  expect(link.heard[0]).toMatchObject({ type: 'hello', token: expect.any(String) });
});

test('a stranger of another version gets the bare 400 like any other', async () => {
  await using running = await startTestCompanion();
  await expect(offer(running.port, ['detour.v2', TOKEN_PREFIX + 'A'.repeat(43)])).rejects.toThrow('400');
});

test('the reply names the protocol alone, and no extension of the WebSocket', async () => {
  await using running = await startTestCompanion();
  await using client = await connectRaw(running.port);
  client.write(
    `GET /control HTTP/1.1\r\nHost: localhost:${running.port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n` +
      `Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Protocol: ${TOKEN_PREFIX + cliToken(running)}, detour.v1\r\n\r\n`,
  );
  const head = String(await client.readUntil('\r\n\r\n'));
  expect(head).toMatch(/^HTTP\/1\.1 101 /);
  expect(head).toMatch(/\r\nSec-WebSocket-Protocol: detour\.v1\r\n/);
  expect(head).not.toContain('token.');
  expect(head).not.toContain('permessage');
});

test('a message that came glued to the handshake is heard', async () => {
  await using running = await startTestCompanion();
  const socket = connect(running.port, '127.0.0.1');
  const text = Buffer.from('{"type":"clients","id":7}');
  // A client's frame: final, text, masked with zeros (RFC 6455 §5.2).
  const frame = Buffer.concat([Buffer.from([0x81, 0x80 | text.length, 0, 0, 0, 0]), text]);
  const head = `GET /control HTTP/1.1\r\nHost: 127.0.0.1:${running.port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: detour.v1, ${TOKEN_PREFIX + cliToken(running)}\r\n\r\n`;
  socket.write(Buffer.concat([Buffer.from(head), frame]));
  let heard = '';
  await new Promise<void>(resolve =>
    socket.on('data', data => {
      heard += data.toString('latin1');
      if (heard.includes('"type":"clients"')) resolve();
    }),
  );
  expect(heard).toContain('"id":7');
  socket.destroy();
});

test('there are 32 links and no more; the next is told so', async () => {
  await using running = await startTestCompanion();
  await using links = new AsyncDisposableStack();
  for (let i = 0; i < 32; i++) links.use(await TestLink.open(running.port, TOKEN_PREFIX + cliToken(running)));
  expect((await offer(running.port, ['detour.v1', TOKEN_PREFIX + cliToken(running)])).code).toBe(CLOSE_TOO_MANY);
});

test('a message that is too large ends its link', async () => {
  await using running = await startTestCompanion();
  await using link = await TestLink.open(running.port, TOKEN_PREFIX + cliToken(running));
  link.socket.send(JSON.stringify({ type: 'explain', id: 1, url: 'x'.repeat(MAX_CLIENT_MESSAGE) }));
  await new Promise(resolve => link.socket.once('close', resolve));
  expect(link.closedWith).toBe(1009);
});

test('binary messages and unknown members are refused by a sentence', async () => {
  await using running = await startTestCompanion();
  await using link = await TestLink.open(running.port, TOKEN_PREFIX + cliToken(running));
  link.socket.send(Buffer.from('{"type":"alive","id":1}'));
  await link.until(message => message.type === 'refused' && message.message.includes('JSON text'));
  expect(await link.ask({ type: 'site', host: 'a.test', more: 1 })).toMatchObject({
    type: 'refused',
    message: expect.stringContaining('more'),
  });
});

test('what an unpaired client still sends is not obeyed', async () => {
  await using running = await startTestCompanion();
  const { link } = await TestLink.pair(running.companion);
  await using _link = link;
  await using terminal = await TestLink.open(running.port, TOKEN_PREFIX + cliToken(running));
  // Held back, so that its reading does not close the link from its side.
  link.socket.pause();
  expect(await terminal.ask({ type: 'unpair', name: 'Chromium' })).toMatchObject({ type: 'done' });
  link.socket.send(JSON.stringify({ type: 'set-site', id: 5, site: 'sneaky.test', route: 'companion' }));
  await new Promise(resolve => setTimeout(resolve, 100));
  link.socket.resume();
  for (let i = 0; i < 100 && link.closedWith === null; i++) await new Promise(resolve => setTimeout(resolve, 10));
  expect([CLOSE_UNPAIRED, 1006]).toContain(link.closedWith);
  expect(running.place.text).toBe(TEST_CONFIG);
});

test('steering comes when it differs from what the client has, and only then', async () => {
  await using running = await startTestCompanion(`${TEST_CONFIG}sites:\n  a.test: companion\n`);
  await using first = await TestLink.open(running.port, TOKEN_PREFIX + cliToken(running));
  await first.ask({ type: 'steer', dialect: 'pac' });
  const told = first.heard.find(message => message.type === 'steering')!;
  const { hash, pac } = told.steering;
  expect(pac).toContain('a.test'.split('.')[0]);
  expect(pac).toMatch(/^[\x00-\x7f]*$/);
  // Another with that hash is told nothing, until something changes that steers.
  await using second = await TestLink.open(running.port, TOKEN_PREFIX + cliToken(running));
  await second.ask({ type: 'steer', dialect: 'pac', hash });
  expect(second.heard.some(message => message.type === 'steering')).toBe(false);
  await first.ask({ type: 'set-site', site: 'b.test', route: 'companion' });
  await second.until(message => message.type === 'steering');
  const again = second.heard.findLast(message => message.type === 'steering')!;
  expect(again.steering.hash).not.toBe(hash);
  // A table has no PAC in it.
  await second.ask({ type: 'steer', dialect: 'table' });
  const table = second.heard.findLast(message => message.type === 'steering')!;
  expect(table.steering.pac).toBeUndefined();
  expect(table.steering.table.format).toBe(3);
});

test('asking to follow again begins anew instead of telling twice', async () => {
  await using origin = createServer((_request, response) => response.end('x'));
  await new Promise<void>(resolve => origin.listen(0, '127.0.0.1', resolve));
  const { port } = origin.address() as AddressInfo;
  await using running = await startTestCompanion();
  await using link = await TestLink.open(running.port, TOKEN_PREFIX + cliToken(running));
  await link.ask({ type: 'follow' });
  await link.ask({ type: 'follow', recent: 5 });
  await using client = await connectRaw(running.port);
  client.write(`GET http://origin.test:${port}/ HTTP/1.1\r\nHost: origin.test:${port}\r\nConnection: close\r\n\r\n`);
  await client.readAll();
  await link.until(message => message.type === 'exchange');
  await new Promise(resolve => setTimeout(resolve, 50));
  expect(link.heard.filter(message => message.type === 'exchange')).toHaveLength(1);
});

test('at the end every client is told, and the end does not wait for a deaf one', async () => {
  using place = makePlace();
  const running = await startTestCompanion(TEST_CONFIG, place);
  await using link = await TestLink.open(running.port, TOKEN_PREFIX + cliToken(running));
  await using deaf = await TestLink.open(running.port, TOKEN_PREFIX + cliToken(running));
  deaf.socket.pause();
  const begun = performance.now();
  await running[Symbol.asyncDispose]();
  expect(performance.now() - begun).toBeLessThan(5_000);
  for (let i = 0; i < 100 && link.closedWith === null; i++) await new Promise(resolve => setTimeout(resolve, 10));
  expect(link.closedWith).toBe(CLOSE_GOING_AWAY);
});
