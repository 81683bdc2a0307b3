// Heads that come again byte for byte: nobody gets another's, however alike they are and however the bytes are cut.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type HeadLimits, parseRequestHead } from '../../../companion/message/http1-parser.ts';
import { KnownHeads } from '../../../companion/message/known-heads.ts';
import { shared } from '../../../companion/sockets/socket-reads.ts';
import { startOrigin } from '../../support/origin.ts';
import { connectRaw } from '../../support/raw-client.ts';
import { startProxy } from '../../support/with-proxy.ts';

const LIMITS: HeadLimits = { head: 64 * 1024, fields: 200 };
const headText = (path: string, field = 'a') =>
  `GET http://a.example/${path} HTTP/1.1\r\nHost: x\r\nX: ${field}\r\n\r\n`;

/** As a connection does it: the head of these bytes, and whether it was known. */
function come(heads: KnownHeads, text: string) {
  const length = shared.write(text, 0, 'latin1');
  const known = heads.find(length);
  if (known !== null) return { head: known, isKnown: true };
  const head = parseRequestHead(text.slice(0, -2), LIMITS);
  heads.remember(shared.subarray(0, length), head);
  return { head, isKnown: false };
}

test('a head is known from its third time on, for what comes only once takes no place', () => {
  const heads = new KnownHeads(LIMITS);
  const known = [1, 2, 3, 4].map(() => come(heads, headText('x')));
  expect(known.map(one => one.isKnown)).toEqual([false, false, true, true]);
  expect(known[2]!.head).toBe(known[1]!.head);
});

test('whatever comes in whatever order, each gets the parse of its own bytes', () => {
  const few = fc.array(
    fc.tuple(fc.constantFrom('a', 'b', 'ab', 'ba', 'aaaa'), fc.constantFrom('1', '2', '12', '21', '123')),
    {
      minLength: 20,
      maxLength: 200,
    },
  );
  fc.assert(
    fc.property(few, requests => {
      const heads = new KnownHeads(LIMITS);
      for (const [path, field] of requests) {
        const { head } = come(heads, headText(path, field));
        expect([head.target, head.fields.get('x')]).toMatchObject([{ path: `/${path}` }, field]);
      }
    }),
  );
});

test('more heads than there is room for are parsed anew, and none is mistaken', () => {
  const heads = new KnownHeads(LIMITS);
  let known = 0;
  for (let round = 0; round < 4; round++) {
    for (let i = 0; i < 6_000; i++) {
      const { head, isKnown } = come(heads, headText(String(i)));
      if (isKnown) known++;
      expect(head.target).toMatchObject({ path: `/${i}` });
    }
  }
  expect(known).toBeGreaterThan(1_000);
});

test('a large head is never kept, and neither is a chunk that does not lie where it was read', () => {
  const heads = new KnownHeads(LIMITS);
  const large = headText('x', 'y'.repeat(1_024));
  for (let i = 0; i < 4; i++) expect(come(heads, large).isKnown).toBe(false);
  const text = headText('z');
  const length = shared.write(text, 0, 'latin1');
  for (let i = 0; i < 4; i++) {
    expect(heads.find(length)).toBeNull();
    heads.remember(Buffer.from(text, 'latin1'), parseRequestHead(text.slice(0, -2), LIMITS));
  }
});

test('over one connection: the same request, its twins, pieces and pipelined ones all get their own answers', async () => {
  await using origin = await startOrigin(
    (request, response) => void response.end(`${request.url} ${request.headers['x']}`),
  );
  await using proxy = await startProxy();
  await using client = await connectRaw(proxy.port);
  const text = (path: string, field: string) => `GET ${origin.url(path)} HTTP/1.1\r\nHost: x\r\nX: ${field}\r\n\r\n`;
  const order = ['/a 1', '/a 1', '/a 1', '/b 1', '/a 2', '/a 1', '/b 1', '/b 1', '/b 1', '/a 2', '/a 2', '/a 1'];
  for (const one of order) {
    const [path, field] = one.split(' ') as [string, string];
    client.write(text(path, field));
    expect((await client.readAnswer()).text).toBe(one);
  }
  // Cut in two, the second half alone is not what it was.
  const whole = text('/a', '1');
  client.write(whole.slice(0, 30));
  await new Promise(resolve => setTimeout(resolve, 20));
  client.write(whole.slice(30));
  expect((await client.readAnswer()).text).toBe('/a 1');
  // Behind an empty line, and two in one piece.
  client.write(`\r\n${whole}`);
  expect((await client.readAnswer()).text).toBe('/a 1');
  client.write(whole + text('/b', '1'));
  expect((await client.readAnswer()).text).toBe('/a 1');
  expect((await client.readAnswer()).text).toBe('/b 1');
  client.write(whole);
  expect((await client.readAnswer()).text).toBe('/a 1');
});
