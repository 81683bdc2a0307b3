// What RFC 9110 has a proxy see to itself, by the head of a request alone: expectations, changes of protocol, and what may go no further.
import { Fields } from '../message/headers.ts';
import { listHas } from '../message/http1-parser.ts';
import type { Answer, RequestHead } from '../message/message.ts';
import { ownAnswer } from '../message/own-answer.ts';

/** RFC 9110 §10.1.1: 100-continue is sent on with the rest; another expectation cannot be met. */
export function isExpectationKnown(head: RequestHead): boolean {
  const expected = head.fields.get('expect');
  return expected === undefined || head.version !== 11 || expected.toLowerCase() === '100-continue';
}

/** The protocols that the client would change to; null: none. h2c is not among them, and HTTP/1.0 changes to nothing (RFC 9110 §7.8). */
export function upgradeOf(head: RequestHead): string | null {
  const asked = head.fields.get('upgrade');
  if (asked === undefined || head.version === 10) return null;
  const connection = head.fields.get('connection');
  if (connection === undefined || !listHas(connection, 'upgrade')) return null;
  // With a body it would not be clear where the new protocol begins.
  if (head.framing.kind !== 'none') return null;
  const protocols = asked.split(',').map(one => one.trim());
  const kept = protocols.filter(one => one !== '' && !/^h2c?$/i.test(one));
  return kept.length > 0 ? kept.join(', ') : null;
}

const MAY_BE_SECRET = /cookie|auth|token|secret|session|password|credential|key/;

/** RFC 9110 §7.6.2: a TRACE or OPTIONS that may go no further ends here: the answer; null where it goes on. */
export function answeredHere(head: RequestHead, url: string): Answer | null {
  if (head.method !== 'TRACE' && head.method !== 'OPTIONS') return null;
  if (!/^0+$/.test(head.fields.get('max-forwards') ?? '')) return null;
  const fields = new Fields();
  let body: Buffer = Buffer.alloc(0);
  if (head.method === 'TRACE') {
    // §9.3.8: without what may be secret. The body is the request as it came to us.
    fields.append('Content-Type', 'message/http');
    let text = `TRACE ${url} HTTP/1.1\r\n`;
    for (let i = 0; i < head.fields.length; i++) {
      if (MAY_BE_SECRET.test(head.fields.lowerNameAt(i))) continue;
      text += `${head.fields.nameAt(i)}: ${head.fields.valueAt(i)}\r\n`;
    }
    body = Buffer.from(`${text}\r\n`, 'latin1');
  }
  return ownAnswer(200, 'OK', fields, body);
}
