// What the conformance tests say and how they cut it: requests as text, in one piece or byte by byte, and an origin that keeps every byte it was sent.
import { expect } from 'vitest';
import { startRawOrigin } from '../support/origin.ts';
import { connectRaw, type RawClient } from '../support/raw-client.ts';

export const wait = (ms: number) => new Promise(resolve => setTimeout(resolve, ms));

/** Waits until it is so, five seconds at the most. */
export async function until(ready: () => boolean, what: string): Promise<void> {
  for (let i = 0; i < 500; i++) {
    if (ready()) return;
    await wait(10);
  }
  throw new Error(`${what} did not happen`);
}

/** A GET in absolute-form; `more` are whole field lines. */
export const get = (url: string, more = '') => `GET ${url} HTTP/1.1\r\nHost: ignored.test\r\n${more}\r\n`;
/** A POST in absolute-form. */
export const post = (url: string, more: string, body: string) =>
  `POST ${url} HTTP/1.1\r\nHost: ignored.test\r\n${more}\r\n${body}`;
export const connectTo = (authority: string) => `CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\n\r\n`;

/** How bytes are cut on their way: a parser must not care. */
export type Cut = 'in one piece' | 'byte by byte';
export const CUTS: readonly Cut[] = ['in one piece', 'byte by byte'];

/** Says it with that cut; stops where the other side has gone. */
export async function say(peer: RawClient, text: string, cut: Cut): Promise<void> {
  if (cut === 'in one piece') return peer.write(text);
  for (const byte of Buffer.from(text, 'latin1')) {
    if (peer.socket.destroyed || peer.socket.writableEnded) return;
    peer.write(Buffer.from([byte]));
    await new Promise(resolve => setImmediate(resolve));
  }
}

/** An origin that keeps every byte and says `answer` once for every empty line that it sees. */
export async function startListeningOrigin(answer = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok') {
  let heard = '';
  const origin = await startRawOrigin(peer => {
    peer.socket.on('data', (chunk: Buffer) => {
      const text = chunk.toString('latin1');
      heard += text;
      for (let i = text.split('\r\n\r\n').length; i > 1; i--) peer.write(answer);
    });
  });
  return {
    ...origin,
    get accepted() {
      return origin.accepted;
    },
    /** Everything that it has been sent, from all connections. */
    get heard() {
      return heard;
    },
    forget: () => {
      heard = '';
    },
    [Symbol.asyncDispose]: () => origin[Symbol.asyncDispose](),
  };
}

export type ListeningOrigin = Awaited<ReturnType<typeof startListeningOrigin>>;

/**
 * Sends what must be refused, with a second request glued behind it, and expects: one answer with one of these statuses, the end of the connection,
 * and that nothing at all has reached the origin.
 */
export async function expectRefused(
  proxy: { readonly port: number },
  origin: ListeningOrigin,
  attack: string,
  statuses: readonly number[],
  cut: Cut,
): Promise<void> {
  origin.forget();
  await using client = await connectRaw(proxy.port);
  await say(client, attack + get(origin.url('/smuggled')), cut);
  const answer = await client.readAnswer();
  const what = JSON.stringify(attack.slice(0, 300));
  expect(statuses, `${what} got ${answer.status}`).toContain(answer.status);
  expect((await client.readAll()).toString(), `behind the refusal of ${what}`).toBe('');
  expect(origin.heard, `sent on of ${what}`).toBe('');
}
