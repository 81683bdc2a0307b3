// What goes out again: a message that we took is written anew by the pieces that write it (request-head.ts, respond.ts, chunked-writer.ts), here into
// memory. llhttp must take what they wrote for that one message: same body, nothing before it and nothing behind.
import type { Incoming } from '../../companion/downstream/connection.ts';
import { respond, respondInterim } from '../../companion/downstream/respond.ts';
import { ChunkedWriter } from '../../companion/message/chunked-writer.ts';
import { Fields } from '../../companion/message/headers.ts';
import { allowedTrailers, dropHopByHop } from '../../companion/message/hop-by-hop.ts';
import type { RequestHead, ResponseHead } from '../../companion/message/message.ts';
import { requestHead } from '../../companion/upstream/request-head.ts';
import { KNOWN_METHODS, readByLlhttp } from './llhttp.ts';
import type { Message } from './outcome.ts';

/** How the request goes to its origin, or null where none does. */
export function rebuiltRequest(head: RequestHead, body: string, trailers: Fields | null): string | null {
  const { target, framing } = head;
  if (target.form !== 'absolute') return null;
  const known = KNOWN_METHODS.has(head.method) ? head : { ...head, method: 'POST' };
  let text = requestHead(
    { head: known, host: target.host, port: target.port, path: target.path, framing, upgrade: null },
    null,
  );
  if (framing.kind === 'length') text += body;
  else if (framing.kind === 'chunked') {
    const out = { cork: () => {}, uncork: () => {}, write: (bytes: Buffer | string) => ((text += bytes.toString('latin1')), true) }; // prettier-ignore
    const writer = new ChunkedWriter(out);
    if (body !== '') writer.write(Buffer.from(body, 'latin1'));
    writer.end(allowedTrailers(trailers));
  }
  return text;
}

/** How the response goes to a client that asked with that method. */
export function rebuiltResponse(head: ResponseHead, body: string, asked: string): string {
  let text = '';
  const incoming = {
    head: { method: asked, version: 11, keepAlive: true, fields: new Fields() },
    bodyUnread: false,
    responded: false,
    bytesDown: 0,
    connection: {
      gone: false,
      lastAnswer: false,
      socket: { cork() {}, uncork() {} },
      write: (bytes: Buffer | string) => ((text += bytes.toString('latin1')), true),
      answered() {},
    },
  } as unknown as Incoming;
  const copy = { ...head, fields: head.fields.copy() };
  if (head.status < 200) respondInterim(incoming, copy);
  else {
    dropHopByHop(copy.fields);
    const data = head.framing.kind === 'none' ? null : Buffer.from(body, 'latin1');
    void respond(incoming, { head: copy, body: data }, {});
  }
  return text;
}

/** What is wrong with a rebuilt message, or null. */
export function wrongRebuilt(text: string, of: Message, asked: string): string | null {
  const side = of.status === 0 ? 'request' : 'response';
  const interim = of.status > 0 && of.status < 200;
  const { messages, ending, why } = readByLlhttp({
    side,
    bytes: Buffer.from(text, 'latin1'),
    cuts: [],
    methods: [asked],
  });
  const shown = JSON.stringify(text);
  if (ending === 'refused') return `what goes out is refused: ${why}: ${shown}`;
  const [one] = messages;
  if (messages.length !== 1 || !one!.complete || (ending !== 'open' && !interim))
    return `what goes out is not one message: ${shown}`;
  if (one!.body !== of.body || one!.status !== of.status) return `what goes out is another message: ${shown}`;
  return null;
}
