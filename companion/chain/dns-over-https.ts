// Asks a DNS server over HTTPS (RFC 8484). The way there is handed in: a route's chains for the connection, the pool with its strict parser for HTTP.
import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import type { DnsOverHttps } from '../../shared/config.ts';
import { formatEndpoint, formatHost, isAddress } from '../../shared/endpoint.ts';
import { Fault } from '../../shared/fault.ts';
import type { Bytes, Milliseconds, Seconds } from '../../shared/units.ts';
import { letGo, type Answer, type Body, type Framing } from '../message/message.ts';
import { askBothFamilies } from './both-families.ts';
import { foundIn } from './dns-client.ts';
import { decodeAnswer, encodeQuestion, type Question } from './dns-message.ts';
import { type AskDns, type FoundAddresses, LookupFailed } from './resolver.ts';

/** A connection that sends one request at a time; upstream's. */
interface HttpConnection {
  /** Whether a byte of the answer has come. */
  readonly answered: boolean;
  exchange(request: {
    readonly method: string;
    readonly headText: string;
    readonly framing: Framing;
    readonly body: Body;
    readonly upgrade: null;
    readonly blame: { readonly target: DnsOverHttps; readonly hop: undefined };
    readonly interim: null;
  }): Promise<Answer>;
  abort(fault: Fault): void;
}

/** Where connections wait for their next request; upstream's. */
interface HttpConnections {
  take(key: string, once: boolean): HttpConnection | null;
  adopt(key: string, socket: Socket, rest: Buffer): HttpConnection;
}

export interface DnsOverHttpsOptions {
  readonly server: DnsOverHttps;
  /** A socket to the server over its route; `secure` is called for the chain that stands. Throws faults. */
  readonly dial: (
    signal: AbortSignal,
    secure: (socket: Socket, signal: AbortSignal) => Promise<Socket>,
  ) => Promise<Socket>;
  readonly connections: HttpConnections;
  /** Names the server's connections among others. */
  readonly key: string;
  readonly timeout: Milliseconds;
  /** Authorities to trust instead of Node's. */
  readonly ca?: string;
}

const MEDIA_TYPE = 'application/dns-message';
/** RFC 8484 §6. */
const MAX_ANSWER: Bytes = 65_535;
/** Questions on their way at once, a connection each. */
const AT_ONCE = 8;
/** The part of the time that a connection which has waited may take before a fresh one is tried. */
const PATIENCE = 0.4;
const NOTHING = Buffer.alloc(0);

/** Lookups by this server; each ends within `timeout`. Every failure names the server. */
export function makeDnsOverHttps(options: DnsOverHttpsOptions): AskDns {
  const { server, connections, key } = options;
  const name = formatHost(server.host);
  const waiting = new Set<() => void>();
  let running = 0;

  /** Waits for its turn; false where the time was over first. */
  function turn(signal: AbortSignal): Promise<boolean> {
    if (running < AT_ONCE) {
      running++;
      return Promise.resolve(true);
    }
    return new Promise(resolve => {
      const go = () => {
        signal.removeEventListener('abort', leave);
        resolve(true);
      };
      const leave = () => {
        waiting.delete(go);
        resolve(false);
      };
      waiting.add(go);
      signal.addEventListener('abort', leave, { once: true });
    });
  }

  function ended(): void {
    const [next] = waiting;
    if (next === undefined) running--;
    else {
      waiting.delete(next);
      next();
    }
  }

  async function ask(question: Question): Promise<FoundAddresses> {
    const controller = new AbortController();
    const { signal } = controller;
    const late = new Fault('dns_timeout', { target: server });
    const timer = setTimeout(() => controller.abort(late), options.timeout);
    try {
      if (!(await turn(signal))) throw late;
      try {
        return await exchange(question, signal);
      } finally {
        ended();
      }
    } catch (error) {
      if (error instanceof LookupFailed) throw error;
      if (error === late) throw new LookupFailed('dns_timeout', `asked: ${name}`);
      const said = (error instanceof Error ? error.message : String(error)).replace(/\.$/, '');
      throw new LookupFailed('dns_error', said.includes(name) ? said : `${name}: ${said}`, { cause: error });
    } finally {
      clearTimeout(timer);
    }
  }

  /** On a connection that waits, else on a fresh one. One that turns out to be dead, or says nothing for long, is replaced once. */
  async function exchange(question: Question, signal: AbortSignal): Promise<FoundAddresses> {
    const waits = connections.take(key, false);
    if (waits !== null) {
      const patience = setTimeout(leaveWaiting, options.timeout * PATIENCE, waits);
      try {
        return await askOn(waits, question, signal);
      } catch (error) {
        if (waits.answered || !(error instanceof Fault) || error.kind !== 'connection_terminated') throw error;
      } finally {
        clearTimeout(patience);
      }
    }
    const socket = await options.dial(signal, secure);
    return askOn(connections.adopt(key, socket, NOTHING), question, signal);
  }

  /** The network may have changed under them: this one and all that wait. */
  function leaveWaiting(silent: HttpConnection): void {
    const gone = new Fault('connection_terminated', { target: server });
    for (let one: HttpConnection | null = silent; one !== null; one = connections.take(key, false)) one.abort(gone);
  }

  async function askOn(connection: HttpConnection, question: Question, signal: AbortSignal): Promise<FoundAddresses> {
    // RFC 8484 §4.1: the id is 0.
    const body = encodeQuestion(question, 0, true);
    const onAbort = () => connection.abort(signal.reason as Fault);
    if (signal.aborted) onAbort();
    else signal.addEventListener('abort', onAbort);
    try {
      const answer = await connection.exchange({
        method: 'POST',
        headText: headOf(server, body.length),
        framing: { kind: 'length', length: body.length },
        body,
        upgrade: null,
        blame: { target: server, hop: undefined },
        interim: null,
      });
      const { status, fields } = answer.head;
      const type = (fields.get('content-type') ?? 'nothing').split(';', 1)[0]!.trim().toLowerCase();
      if (status !== 200 || type !== MEDIA_TYPE) {
        letGo(answer.body);
        throw new LookupFailed(
          'dns_error',
          status === 200 ? `${name} does not answer in ${MEDIA_TYPE}` : `${name} answers ${status}`,
        );
      }
      const said = decodeAnswer(await wholeBody(answer.body), question, 0);
      if (said === null) throw new LookupFailed('dns_error', `${name} makes no sense`);
      if (said.kind === 'failure') throw new LookupFailed('dns_error', `${name} says ${said.rcode}`);
      const found = foundIn(said, name);
      return { ...found, ttl: Math.max(0, found.ttl - ageOf(fields.get('age'))) };
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  }

  /** TLS to the server: its certificate is verified, and HTTP/1.1 is what is spoken. */
  function secure(socket: Socket, signal: AbortSignal): Promise<Socket> {
    return new Promise((resolve, reject) => {
      const tls: TLSSocket = process.getBuiltinModule('node:tls').connect({
        socket,
        host: server.host,
        ...(isAddress(server.host) ? {} : { servername: server.host }),
        ALPNProtocols: ['http/1.1'],
        minVersion: 'TLSv1.2',
        ...(options.ca === undefined ? {} : { ca: options.ca }),
      });
      const stop = () => {
        signal.removeEventListener('abort', onAbort);
        tls.off('secureConnect', onSecure).off('close', onClose).off('error', onError);
      };
      const fail = (fault: Fault) => {
        stop();
        tls.on('error', () => {});
        tls.destroy();
        reject(fault);
      };
      const onAbort = () => fail(signal.reason as Fault);
      const onClose = () => fail(new Fault('connection_terminated', { target: server }));
      const onError = (error: NodeJS.ErrnoException) => fail(tlsFault(server, tls, error));
      const onSecure = () => {
        stop();
        tls.on('error', () => {});
        resolve(tls);
      };
      tls.on('secureConnect', onSecure).on('close', onClose).on('error', onError);
      signal.addEventListener('abort', onAbort);
      if (signal.aborted) onAbort();
    });
  }

  return askBothFamilies(ask);
}

function headOf(server: DnsOverHttps, length: Bytes): string {
  const host = server.port === 443 ? formatHost(server.host) : formatEndpoint(server);
  return [
    `POST ${server.path} HTTP/1.1`,
    `Host: ${host}`,
    `Accept: ${MEDIA_TYPE}`,
    `Content-Type: ${MEDIA_TYPE}`,
    `Content-Length: ${length}`,
    '',
    '',
  ].join('\r\n');
}

/** RFC 8484 §5.1: so old is the answer already. */
function ageOf(field: string | undefined): Seconds {
  return field !== undefined && /^\d{1,9}$/.test(field.trim()) ? Number(field) : 0;
}

function wholeBody(body: Body): Promise<Buffer> {
  if (body === null) return Promise.resolve(NOTHING);
  if (Buffer.isBuffer(body)) return Promise.resolve(body);
  return new Promise((resolve, reject) => {
    const pieces: Buffer[] = [];
    let length = 0;
    body.start({
      write(chunk) {
        length += chunk.length;
        if (length <= MAX_ANSWER) pieces.push(Buffer.from(chunk));
        else {
          body.cancel();
          reject(new Error(`its answer is larger than ${MAX_ANSWER} bytes`));
        }
        return true;
      },
      end: () => resolve(Buffer.concat(pieces)),
      fail: reject,
    });
  });
}

function tlsFault(target: DnsOverHttps, tls: TLSSocket, error: NodeJS.ErrnoException): Fault {
  const code = error.code ?? '';
  const detail = error.message.split('\n', 1)[0];
  if (tls.authorizationError || code.startsWith('ERR_TLS_CERT') || /CERT|SELF_SIGNED|UNABLE_TO/.test(code))
    return new Fault('tls_certificate_error', { target, detail, cause: error });
  if (code === 'ECONNRESET') return new Fault('connection_terminated', { target, detail, cause: error });
  return new Fault(/ALERT/.test(code) ? 'tls_alert_received' : 'tls_protocol_error', {
    target,
    detail: code || detail,
    cause: error,
  });
}
