// Runs the parser over bytes in the pieces given and tells everything that came of it, in a form that can be compared.
import { BodyReader } from '../../../companion/message/body-reader.ts';
import {
  type HeadLimits,
  HeadReader,
  parseRequestHead,
  parseResponseHead,
} from '../../../companion/message/http1-parser.ts';
import { Malformed } from '../../../companion/message/malformed.ts';
import type { Fields } from '../../../companion/message/headers.ts';
import type { RequestHead, ResponseHead } from '../../../companion/message/message.ts';

export const LIMITS: HeadLimits = { head: 4096, fields: 50 };

export interface Parsed {
  head: RequestHead | ResponseHead;
  body: string;
  trailers: string[][] | null;
  /** 'done', or 'open' when more is needed, or the kind of fault the body ended in. */
  ended: string;
}

export interface ParsedStream {
  messages: Parsed[];
  /** The kind of fault that a head ended in; null where all bytes were taken. */
  refused: string | null;
  detail?: string | undefined;
}

/** Messages of one direction, one behind the other, until the bytes or their sense end. `method` frames responses. */
export function parseAll(
  direction: 'request' | 'response',
  pieces: readonly Buffer[],
  method = 'GET',
  limits: HeadLimits = LIMITS,
): ParsedStream {
  const reader = new HeadReader(direction, limits);
  const out: ParsedStream = { messages: [], refused: null };
  let body: BodyReader | null = null;
  let taken: Buffer[] = [];
  for (const piece of pieces) {
    let at = 0;
    while (at !== -1 && at < piece.length) {
      if (body === null) {
        let head: RequestHead | ResponseHead;
        try {
          at = reader.read(piece, at);
          if (at === -1) break;
          head =
            direction === 'request'
              ? parseRequestHead(reader.text, limits)
              : parseResponseHead(reader.text, limits, method);
        } catch (error) {
          if (!(error instanceof Malformed)) throw error;
          out.refused = error.kind;
          out.detail = error.detail;
          return out;
        }
        out.messages.push({ head, body: '', trailers: null, ended: 'done' });
        if (head.framing.kind === 'none') continue;
        body = new BodyReader(head.framing, direction, limits);
        taken = [];
        out.messages.at(-1)!.ended = 'open';
      } else {
        const message = out.messages.at(-1)!;
        try {
          at = body.read(piece, at, data => taken.push(data));
        } catch (error) {
          if (!(error instanceof Malformed)) throw error;
          message.body = Buffer.concat(taken).toString('latin1');
          message.ended = error.kind;
          out.detail = error.detail;
          return out;
        }
        message.body = Buffer.concat(taken).toString('latin1');
        if (at === -1) break;
        message.ended = 'done';
        message.trailers = linesOf(body.trailers);
        body = null;
      }
    }
  }
  return out;
}

export function linesOf(fields: Fields | null): string[][] | null {
  if (fields === null) return null;
  const lines: string[][] = [];
  for (let i = 0; i < fields.length; i++) lines.push([fields.nameAt(i), fields.valueAt(i)]);
  return lines;
}

/** One request from text. */
export function parseRequest(text: string): ParsedStream {
  return parseAll('request', [Buffer.from(text, 'latin1')]);
}

/** One response from text. */
export function parseResponse(text: string, method?: string): ParsedStream {
  return parseAll('response', [Buffer.from(text, 'latin1')], method);
}
