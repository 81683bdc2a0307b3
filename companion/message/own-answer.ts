// Answers that the companion makes itself.
import type { Fields } from './headers.ts';
import type { Answer } from './message.ts';

/** An answer with all of its body; the connection may be used again. */
export function ownAnswer(status: number, reason: string, fields: Fields, body: Buffer): Answer {
  return {
    head: { status, reason, version: 11, fields, framing: { kind: 'length', length: body.length }, keepAlive: true },
    body,
  };
}
