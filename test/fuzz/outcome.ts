// What a parser made of a stream of bytes, in one form for ours and for llhttp, so that the two can be compared.

export type Side = 'request' | 'response';

/** A stream of bytes, and what its reader knows beforehand. */
export interface Case {
  readonly side: Side;
  readonly bytes: Buffer;
  /** Where the bytes are cut, ascending. */
  readonly cuts: readonly number[];
  /** Responses: what they answer, in order; GET beyond the end. */
  readonly methods: readonly string[];
}

/** One message, as far as it came. */
export interface Message {
  /** '' for responses. */
  method: string;
  /** As on the wire; '' for responses. */
  target: string;
  /** 0 for requests. */
  status: number;
  reason: string;
  /** 10, 11, … */
  version: number;
  /** Name, value, name, value … */
  fields: readonly string[];
  body: string;
  trailers: readonly string[];
  complete: boolean;
  keepAlive: boolean;
  /** Where head, body and what follows begin; -1 where it is not known. */
  headAt: number;
  bodyAt: number;
  end: number;
  /** Ours: writes it anew, once it is complete; null where it goes nowhere. */
  rebuild?: () => string | null;
}

/**
 * How the stream ended. `open`: more bytes are needed, or none are left. `refused`: no message, whatever comes. `closed`: the last message ends the
 * connection. `tunnel`: what follows is another protocol.
 */
export type Ending = 'open' | 'refused' | 'closed' | 'tunnel';

export interface Outcome {
  readonly messages: Message[];
  ending: Ending;
  /** Of a refusal. */
  why: string;
}

/** The bytes, cut. */
export function piecesOf({ bytes, cuts }: Pick<Case, 'bytes' | 'cuts'>): Buffer[] {
  const pieces: Buffer[] = [];
  let from = 0;
  for (const to of cuts) {
    if (to > from && to < bytes.length) {
      pieces.push(bytes.subarray(from, to));
      from = to;
    }
  }
  if (from < bytes.length) pieces.push(bytes.subarray(from));
  return pieces;
}
