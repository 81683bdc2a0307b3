// Writes answers: head and small body in one write, larger bodies as they come, framed for this client (RFC 9112 §6.3). A fault becomes its status,
// its Proxy-Status, and its sentence.
import { ChunkedWriter } from '../message/chunked-writer.ts';
import type { Fields } from '../message/headers.ts';
import { allowedTrailers, dropHopByHop } from '../message/hop-by-hop.ts';
import { listHas } from '../message/http1-parser.ts';
import { Malformed } from '../message/malformed.ts';
import { letGo, type Answer, type BodySink, type BodySource, type ResponseHead } from '../message/message.ts';
import { MAX_TOGETHER, outgoing } from '../sockets/outgoing.ts';
import { Fault } from '../../shared/fault.ts';
import type { Incoming } from './connection.ts';
import { faultAnswer } from './fault-page.ts';
import { socksNo, socksYes } from './socks-server.ts';

export interface RespondOptions {
  /** Parameters of our Cache-Status member: `hit; ttl=30` (RFC 9211). */
  readonly cacheStatus?: string | undefined;
  /** Our Proxy-Status member (RFC 9209). */
  readonly proxyStatus?: string | undefined;
  /** The connection ends with this answer. */
  readonly close?: boolean | undefined;
}

/** Up to this size head and body are copied into one Buffer for one write. */
const ONE_WRITE = 16 * 1024;

let dateLine = '';
let dateUntil = 0;

/** The Date line of now, made once a second (RFC 9110 §6.6.1). */
function currentDate(): string {
  const now = Date.now();
  if (now >= dateUntil || now < dateUntil - 1000) {
    dateUntil = now - (now % 1000) + 1000;
    dateLine = `Date: ${new Date(now).toUTCString()}\r\n`;
  }
  return dateLine;
}

/** Status line and end-to-end fields; framing and the empty line are still to come. `keepLength`: the answer has no body but may say a length. */
function headText(head: ResponseHead, options: RespondOptions, keepLength: boolean): string {
  let text = `HTTP/1.1 ${head.status} ${head.reason}\r\n`;
  const { flat } = head.fields;
  let hasDate = false;
  for (let i = 0; i < flat.length; i += 3) {
    const lower = flat[i + 1]!;
    if (lower === 'content-length') {
      if (!keepLength) continue;
      keepLength = false;
    } else if (lower === 'transfer-encoding' || lower === 'connection') continue;
    else if (lower === 'date') hasDate = true;
    text += `${flat[i]!}: ${flat[i + 2]!}\r\n`;
  }
  if (!hasDate) text += currentDate();
  return text + addedText(options);
}

/** Our own members. A further line is a further member at the end of the list (RFC 9110 §5.3). */
function addedText(options: RespondOptions): string {
  let text = '';
  if (options.cacheStatus !== undefined) text += `Cache-Status: detour; ${options.cacheStatus}\r\n`;
  if (options.proxyStatus !== undefined) text += `Proxy-Status: ${options.proxyStatus}\r\n`;
  return text;
}

/** More than `lastLines` gives. */
const MOST_ADDED = 1_024;
let last = { age: '', cacheStatus: '' as string | undefined, ends: false, text: '' };

/** The end of the head of an answer that lies ready. It is the same for many answers within a second. */
function lastLines(age: string, cacheStatus: string | undefined, ends: boolean): string {
  if (last.age !== age || last.cacheStatus !== cacheStatus || last.ends !== ends) {
    const text = `${age}${addedText({ cacheStatus })}${ends ? 'Connection: close\r\n' : ''}\r\n`;
    last = { age, cacheStatus, ends, text };
  }
  return last.text;
}

/**
 * Answers a request. Gives back null when all of it has been handed to the socket, else a promise for the end of the body, which rejects with the
 * Fault that broke it off (the connection is then ended so that nobody takes the answer for whole). Throws Fault downstream_gone.
 */
export function respond(incoming: Incoming, answer: Answer, options: RespondOptions): Promise<void> | null {
  const { connection, head: request } = incoming;
  if (connection.gone || incoming.responded) {
    letGo(answer.body);
    throw new Fault('downstream_gone');
  }
  incoming.responded = true;
  const { ready } = answer;
  if (
    ready !== undefined &&
    request.method !== 'HEAD' &&
    options.proxyStatus === undefined &&
    ready.length < MAX_TOGETHER - MOST_ADDED
  ) {
    const ends = options.close === true || !request.keepAlive || incoming.bodyUnread || connection.lastAnswer;
    const out = outgoing();
    let at = ready.headInto(out);
    at += out.write(lastLines(ready.age, options.cacheStatus, ends), at, 'latin1');
    at = ready.bodyInto(out, at);
    incoming.bytesDown += at;
    connection.writeOutgoing(at);
    connection.answered(ends);
    return null;
  }
  const { head, body } = answer;
  const bodyless = request.method === 'HEAD' || head.status === 204 || head.status === 304;
  const close = options.close === true || !request.keepAlive || incoming.bodyUnread || connection.lastAnswer;
  const closeLine = close ? 'Connection: close\r\n' : '';

  if (body === null || Buffer.isBuffer(body) || bodyless) {
    letGo(body);
    const length = Buffer.isBuffer(body) ? body.length : head.framing.kind === 'length' ? head.framing.length : 0;
    const stated = bodyless && body === null;
    let text: string;
    if (answer.prepared !== undefined && !bodyless && body !== null) text = answer.prepared + addedText(options);
    else {
      text = headText(head, options, stated && head.status !== 204);
      if (!stated && head.status !== 204 && head.status !== 304) text += `Content-Length: ${length}\r\n`;
    }
    text += `${closeLine}\r\n`;
    writeAll(incoming, text, bodyless ? null : (body as Buffer | null));
    connection.answered(close);
    return null;
  }

  let text = headText(head, options, false);
  let framing: 'length' | 'chunked' | 'close';
  if (head.framing.kind === 'length') {
    framing = 'length';
    text += `Content-Length: ${head.framing.length}\r\n${closeLine}\r\n`;
  } else if (request.version === 11) {
    framing = 'chunked';
    text += `Transfer-Encoding: chunked\r\n${closeLine}\r\n`;
  } else {
    framing = 'close';
    text += `${closeLine}\r\n`;
  }
  return new Promise((resolve, reject) => {
    const { socket } = connection;
    const te = framing === 'chunked' ? request.fields.get('te') : undefined;
    const out = new OutgoingBody(
      incoming,
      body,
      framing,
      close,
      te !== undefined && listHas(te, 'trailers'),
      resolve,
      reject,
    );
    socket.cork();
    incoming.bytesDown += text.length;
    connection.write(text);
    out.start();
    socket.uncork();
  });
}

function writeAll(incoming: Incoming, text: string, body: Buffer | null): void {
  const { connection } = incoming;
  const { length } = text;
  incoming.bytesDown += length + (body === null ? 0 : body.length);
  if (body === null || body.length === 0) {
    connection.write(text);
  } else if (length + body.length <= ONE_WRITE) {
    const bytes = Buffer.allocUnsafe(length + body.length);
    bytes.write(text, 0, 'latin1');
    body.copy(bytes, length);
    connection.write(bytes);
  } else {
    connection.socket.cork();
    connection.write(text);
    connection.write(body);
    connection.socket.uncork();
  }
}

/** A body on its way to the browser. */
class OutgoingBody implements BodySink {
  private readonly incoming: Incoming;
  private readonly source: BodySource;
  private readonly framing: 'length' | 'chunked' | 'close';
  private readonly close: boolean;
  private readonly wantsTrailers: boolean;
  private readonly resolve: () => void;
  private readonly reject: (fault: Fault) => void;
  private readonly chunked: ChunkedWriter | null;
  private over = false;

  constructor(
    incoming: Incoming,
    source: BodySource,
    framing: 'length' | 'chunked' | 'close',
    close: boolean,
    wantsTrailers: boolean,
    resolve: () => void,
    reject: (fault: Fault) => void,
  ) {
    this.incoming = incoming;
    this.source = source;
    this.framing = framing;
    this.close = close;
    this.wantsTrailers = wantsTrailers;
    this.resolve = resolve;
    this.reject = reject;
    this.chunked = framing === 'chunked' ? new ChunkedWriter(incoming.connection) : null;
  }

  start(): void {
    const { connection } = this.incoming;
    connection.whenGone = fault => {
      if (this.over) return;
      this.over = true;
      this.source.cancel();
      this.reject(fault);
    };
    connection.whenDrained = () => this.source.resume();
    this.source.start(this);
  }

  write(chunk: Buffer): boolean {
    if (this.over) return true;
    this.incoming.bytesDown += chunk.length;
    return this.chunked === null ? this.incoming.connection.write(chunk) : this.chunked.write(chunk);
  }

  end(trailers: Fields | null): void {
    if (this.over) return;
    this.over = true;
    this.chunked?.end(this.wantsTrailers ? allowedTrailers(trailers) : null);
    this.incoming.connection.answered(this.close);
    this.resolve();
  }

  fail(error: Error): void {
    if (this.over) return;
    this.over = true;
    this.incoming.connection.breakOff(this.framing === 'close');
    this.reject(
      error instanceof Fault
        ? error
        : error instanceof Malformed
          ? new Fault(error.kind, { detail: error.detail })
          : new Fault('http_response_incomplete', { cause: error }),
    );
  }
}

/** A 1xx answer on its way (RFC 9110 §15.2): not to HTTP/1.0 clients, who do not know them, and not behind the final one. */
export function respondInterim(incoming: Incoming, head: ResponseHead): void {
  const { connection } = incoming;
  if (incoming.head.version === 10 || incoming.responded || connection.gone) return;
  dropHopByHop(head.fields);
  let text = `HTTP/1.1 ${head.status} ${head.reason}\r\n`;
  const { flat } = head.fields;
  for (let i = 0; i < flat.length; i += 3) {
    if (flat[i + 1] !== 'content-length') text += `${flat[i]!}: ${flat[i + 2]!}\r\n`;
  }
  incoming.bytesDown += text.length + 2;
  connection.write(`${text}\r\n`);
}

/** The head of a 101, with what the connection changes to; then the socket is a tunnel's. */
export function switchProtocols(incoming: Incoming, head: ResponseHead): void {
  const { connection } = incoming;
  if (connection.gone) throw new Fault('downstream_gone');
  incoming.responded = true;
  const upgrade = head.fields.get('upgrade') ?? '';
  dropHopByHop(head.fields);
  const text = `${headText(head, {}, false)}Connection: Upgrade\r\nUpgrade: ${upgrade}\r\n\r\n`;
  incoming.bytesDown += text.length;
  connection.write(text);
}

const ESTABLISHED = 'HTTP/1.1 200 Connection established\r\n\r\n';

/** The yes to a CONNECT or to SOCKS; then the socket is a tunnel's. No framing field belongs in it (RFC 9110 §9.3.6). Throws Fault downstream_gone. */
export function tunnelStands(incoming: Incoming): void {
  const { connection } = incoming;
  if (connection.gone) throw new Fault('downstream_gone');
  incoming.responded = true;
  connection.write(incoming.socks === null ? ESTABLISHED : socksYes(incoming.socks));
}

/**
 * Answers with a fault, if there is anyone to answer and nothing has been said yet. Gives back the status that went out, or null. SOCKS has replies
 * of its own: then it is the status that a CONNECT would have had.
 */
export function respondFault(incoming: Incoming, fault: Fault): number | null {
  const { connection, head, socks } = incoming;
  if (socks !== null) {
    if (connection.gone || incoming.responded) return null;
    incoming.responded = true;
    connection.finishWith(socksNo(socks, fault));
    return fault.row.status;
  }
  const answer = faultAnswer(fault, head);
  if (answer === null || connection.gone || incoming.responded) return null;
  // What follows a refused CONNECT, or a request that was not valid, is not to be read as a request.
  const close = head.method === 'CONNECT' || fault.row.side === 'downstream';
  void respond(incoming, answer.answer, { proxyStatus: answer.proxyStatus, close });
  return answer.answer.head.status;
}
