// Our own parser over a stream of bytes, with the real pieces put together as downstream/connection.ts and upstream/upstream-connection.ts do it:
// HeadReader, the head's parser, a body taken whole where it is there whole, else IncomingBody; then the next message where the last one ended.
import { BodyReader } from '../../companion/message/body-reader.ts';
import { Fields } from '../../companion/message/headers.ts';
import {
  type HeadLimits,
  HeadReader,
  listHas,
  parseRequestHead,
  parseResponseHead,
} from '../../companion/message/http1-parser.ts';
import { type Carrier, IncomingBody } from '../../companion/message/incoming-body.ts';
import { Malformed } from '../../companion/message/malformed.ts';
import type { BodySink, Framing, ResponseHead } from '../../companion/message/message.ts';
import { rebuiltRequest, rebuiltResponse } from './rebuilt.ts';
import { type Case, type Message, type Outcome, piecesOf } from './outcome.ts';

/** Sizes must not decide here. */
const LIMITS: HeadLimits = { head: 1 << 20, fields: 100_000 };

/** What our parser makes of the bytes. Responses end with the connection. Anything thrown but Malformed is a crash, and is thrown. */
export function readByOurs(given: Case): Outcome {
  const stream = new Stream(given);
  if (given.cuts.length === 0) stream.feed(given.bytes);
  else for (const piece of piecesOf(given)) stream.feed(piece);
  if (given.side === 'response') stream.connectionEnded();
  return stream.outcome;
}

class Stream implements Carrier, BodySink {
  readonly outcome: Outcome = { messages: [], ending: 'open', why: '' };
  private readonly given: Case;
  private readonly reader: HeadReader;
  private answered = 0;
  private chunkEnd = 0;
  private body: IncomingBody | null = null;
  private current: Message | null = null;
  private rest: Buffer | null = null;

  constructor(given: Case) {
    this.given = given;
    this.reader = new HeadReader(given.side, LIMITS);
  }

  feed(chunk: Buffer): void {
    if (this.outcome.ending !== 'open') return;
    this.chunkEnd = chunk.byteOffset - this.given.bytes.byteOffset + chunk.length;
    if (this.body !== null) {
      this.body.feed(chunk);
      if (this.rest === null) return;
      chunk = this.rest;
      this.rest = null;
    }
    let next: Buffer | null = chunk;
    while (next !== null && this.outcome.ending === 'open') next = this.takeUp(next);
  }

  connectionEnded(): void {
    this.body?.connectionEnded(new Error('incomplete'), false);
  }

  /** One message, or as much of it as is there; what is behind it. */
  private takeUp(chunk: Buffer): Buffer | null {
    const { given, reader } = this;
    let framing: Framing;
    let at: number;
    try {
      at = reader.read(chunk, 0);
      if (at === -1) return null;
      framing = given.side === 'request' ? this.takeRequest() : this.takeResponse();
    } catch (error) {
      return this.refuse(error);
    }
    const message = this.current!;
    message.bodyAt = chunk.byteOffset - given.bytes.byteOffset + at;
    message.headAt = message.bodyAt - 2 - reader.text.length;
    const rest = at < chunk.length ? chunk.subarray(at) : null;
    if (this.outcome.ending !== 'open') {
      // A tunnel.
      message.complete = true;
      message.end = message.bodyAt;
      return null;
    }
    if (framing.kind === 'none') return this.completed(rest);
    if (framing.kind === 'length' && rest !== null && framing.length <= rest.length) {
      message.body = rest.toString('latin1', 0, framing.length);
      return this.completed(framing.length < rest.length ? rest.subarray(framing.length) : null);
    }
    let whole: string | null = null;
    if (framing.kind === 'chunked' && given.side === 'response') {
      // As wholeChunked in upstream-connection.ts; what it takes for whole must be what the stream reads.
      const all = new BodyReader(framing, 'response', LIMITS);
      let data = '';
      try {
        if (all.read(chunk, at, piece => (data += piece.toString('latin1', 0, piece.length))) === chunk.length)
          whole = data;
      } catch (error) {
        return this.refuse(error);
      }
    }
    const body = (this.body = new IncomingBody(framing, given.side, LIMITS, this, rest));
    body.start(this);
    if (whole !== null && (!message.complete || message.body !== whole)) throw new Error('a whole body differs');
    const behind = this.rest;
    this.rest = null;
    return behind;
  }

  private takeRequest(): Framing {
    const { text } = this.reader;
    const head = parseRequestHead(text, LIMITS);
    const space = text.indexOf(' ');
    const target = text.slice(space + 1, text.indexOf(' ', space + 1));
    this.begin(head.method, target, 0, '', head.version, head.fields, head.keepAlive);
    const message = this.current!;
    message.rebuild = () => rebuiltRequest(head, message.body, fieldsOf(message.trailers));
    const { form } = head.target;
    const said =
      form === 'authority'
        ? target
        : form === 'asterisk'
          ? '*'
          : form === 'origin'
            ? head.target.path
            : target.endsWith(head.target.path) || /^(?:\/|\*)$/.test(head.target.path)
              ? target
              : target.endsWith(head.target.path.slice(1))
                ? target
                : head.target.path;
    if (said !== target) throw new Error(`the target ${target} became ${said}`);
    if (form === 'authority') this.outcome.ending = 'tunnel';
    return head.framing;
  }

  private takeResponse(): Framing {
    const asked = this.given.methods[this.answered] ?? 'GET';
    const head = parseResponseHead(this.reader.text, LIMITS, asked);
    if (head.status === 101) switches(head);
    this.begin('', '', head.status, head.reason, head.version, head.fields, head.keepAlive);
    const message = this.current!;
    message.rebuild = () => rebuiltResponse(head, message.body, asked);
    if (head.status === 101 || (asked === 'CONNECT' && head.status >= 200 && head.status < 300)) {
      this.outcome.ending = 'tunnel';
    } else if (head.status >= 200) this.answered++;
    return head.framing;
  }

  private begin(
    method: string,
    target: string,
    status: number,
    reason: string,
    version: number,
    fields: Fields,
    keepAlive: boolean,
  ): void {
    this.current = {
      method,
      target,
      status,
      reason,
      version,
      fields: linesOf(fields),
      body: '',
      trailers: NO_LINES,
      complete: false,
      keepAlive,
      headAt: -1,
      bodyAt: -1,
      end: -1,
    };
    this.outcome.messages.push(this.current);
  }

  private completed(rest: Buffer | null): Buffer | null {
    const message = this.current!;
    message.complete = true;
    message.end = rest === null ? this.chunkEnd : rest.byteOffset - this.given.bytes.byteOffset;
    if (!message.keepAlive) this.outcome.ending = 'closed';
    return this.outcome.ending === 'open' ? rest : null;
  }

  private refuse(error: unknown): null {
    if (!(error instanceof Malformed)) throw error;
    this.outcome.ending = 'refused';
    this.outcome.why = error.detail ?? error.kind;
    return null;
  }

  // The body ------------------------------------------------------------------------------------------------------------------------------------

  write(data: Buffer): boolean {
    this.current!.body += data.toString('latin1', 0, data.length);
    return true;
  }

  end(trailers: Fields | null): void {
    if (trailers !== null) this.current!.trailers = linesOf(trailers);
    this.rest = this.completed(this.rest);
  }

  fail(error: Error): void {
    if (error instanceof Malformed) this.refuse(error);
    else if (error.message !== 'incomplete') throw error;
  }

  bodyEnded(rest: Buffer | null): void {
    this.body = null;
    this.rest = rest;
  }

  bodyBroken(): void {
    this.body = null;
  }

  pauseReading(): void {}
  resumeReading(): void {}
  bodyCancelled(): void {}
}

/** As UpstreamConnection.switched, for a request that asked for an upgrade. */
function switches(head: ResponseHead): void {
  const connection = head.fields.get('connection');
  if (
    connection === undefined ||
    !listHas(connection, 'upgrade') ||
    !/[^ \t,]/.test(head.fields.get('upgrade') ?? '')
  ) {
    throw new Malformed('http_upgrade_failed', 'its 101 does not say to what');
  }
}

function fieldsOf(lines: readonly string[]): Fields | null {
  return lines.length === 0 ? null : Fields.of(...lines);
}

const NO_LINES: readonly string[] = [];

function linesOf(fields: Fields): string[] {
  const { flat } = fields;
  const lines: string[] = [];
  for (let i = 0; i < flat.length; i += 3) lines.push(flat[i]!, flat[i + 2]!);
  return lines;
}
