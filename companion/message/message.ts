// The parsed model of a message: what the parser gives and what is written again. Nothing is ever relayed raw.
import type { Fields } from './headers.ts';

/** How a body is delimited (RFC 9112 §6.3): no body, so many bytes, chunked, or until the connection closes. */
export type Framing = { kind: 'none' } | { kind: 'length'; length: number } | { kind: 'chunked' } | { kind: 'close' };

/** The request-target, told apart by form (RFC 9112 §3.2). Hosts are in normal form (shared/endpoint.ts). */
export type RequestTarget =
  | {
      readonly form: 'absolute';
      readonly scheme: 'http' | 'https';
      readonly host: string;
      readonly port: number;
      readonly path: string;
    }
  | { readonly form: 'authority'; readonly host: string; readonly port: number }
  | { readonly form: 'origin'; readonly path: string }
  | { readonly form: 'asterisk' };

export interface RequestHead {
  readonly method: string;
  readonly target: RequestTarget;
  /** 10 or 11. */
  readonly version: number;
  readonly fields: Fields;
  readonly framing: Framing;
  /** Whether the connection may carry another request after this one (RFC 9112 §9.3). */
  readonly keepAlive: boolean;
  /** What the walk has found out about it, for when the same comes again. A head that clients repeat is parsed once, so nobody may change the rest. */
  notes?: unknown;
}

export interface ResponseHead {
  readonly status: number;
  readonly reason: string;
  readonly version: number;
  readonly fields: Fields;
  readonly framing: Framing;
  readonly keepAlive: boolean;
}

/** Where body bytes go. One sink a source. */
export interface BodySink {
  /** Takes the bytes; false asks the source to pause until its `resume` is called. The sink may keep the buffer. */
  write(chunk: Buffer): boolean;
  /** The body is complete (RFC 9112 §8); trailers where there were any. */
  end(trailers: Fields | null): void;
  /** The body broke off and is incomplete. */
  fail(error: Error): void;
}

/** A body on its way. Nothing flows before `start`; bytes that came early wait, bounded, with the socket paused. */
export interface BodySource {
  start(sink: BodySink): void;
  /** After a write that returned false: go on. */
  resume(): void;
  /** The sink's side is gone; the source frees what it holds (its connection is not reused unless the body was complete). */
  cancel(): void;
}

/** A whole small body, a stream, or none. */
export type Body = Buffer | BodySource | null;

/** Nobody will read it. */
export function letGo(body: Body): void {
  if (body !== null && !Buffer.isBuffer(body)) body.cancel();
}

/** A response as it walks down the rooms. */
export interface Answer {
  readonly head: ResponseHead;
  readonly body: Body;
  /**
   * The head as text, made once for many answers: status line and every field line with Date and the Content-Length of `body`, without Cache-Status and
   * Connection and without the empty line. It says what `head` says.
   */
  readonly prepared?: string | undefined;
  /** The same as bytes that lie ready elsewhere. */
  readonly ready?: ReadyAnswer | undefined;
}

/** A whole answer as bytes that lie where they are stored, for whoever writes it at once: after that it may be gone, and then its methods throw. */
export interface ReadyAnswer {
  readonly status: number;
  /** Bytes of head and body, without what is added to the head. */
  readonly length: number;
  /** The Age line. */
  readonly age: string;
  /** Status line and field lines but for Age, from the beginning of `into`; gives back where they end. */
  headInto(into: Buffer): number;
  /** The body from `at`; gives back where it ends. */
  bodyInto(into: Buffer, at: number): number;
}
