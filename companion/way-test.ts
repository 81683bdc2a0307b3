// Tests one chain as a person asks for it: past the cache, the memory of outcomes and kept connections, and with nothing of it remembered or recorded. Only
// the hops are spoken to, and the check URL where one is given.
import type { TLSSocket } from 'node:tls';
import { type Endpoint, formatEndpoint, formatHost, isAddress, normalizeHost } from '../shared/endpoint.ts';
import { calledOff, Fault } from '../shared/fault.ts';
import { type Bytes, KiB, type Milliseconds } from '../shared/units.ts';
import type { ChainTest } from '../shared/ways.ts';
import { Fields } from './message/headers.ts';
import { type Answer, type Body, letGo, type RequestHead } from './message/message.ts';
import type { Rooms } from './proxy.ts';
import { redactUrl } from './record/log-file.ts';
import type { AdmittedTarget, Chain, Try } from './rooms.ts';
import { nodeSocket } from './sockets/socket.ts';
import { ConnectionPool } from './upstream/connection-pool.ts';
import { forward } from './upstream/forward.ts';

/** Chains tested at once, of all who ask. */
export const TESTS_AT_ONCE = 8;
/** Tests that may wait for their turn. */
export const MAX_WAITING_TESTS = 64;
/** Of the check URL's answer so much is looked through for the exit address. */
const MAX_ANSWER: Bytes = 4 * KiB;
const NOTHING = Buffer.alloc(0);
/** What is sent over TLS of the fields that there are. */
const SENT = ['Host', 'User-Agent', 'Accept', 'Accept-Encoding', 'If-None-Match', 'If-Modified-Since'];

/** What is asked of a check URL. */
export interface Check extends Endpoint {
  readonly scheme: 'http' | 'https';
  /** Without user name and password. */
  readonly url: string;
  readonly path: string;
}

/** A check URL as it is written, or a sentence that says what is wrong with it. */
export function readCheck(written: string): Check | string {
  let url: URL;
  try {
    url = new URL(/^[a-z][a-z0-9+.-]*:\/\//i.test(written) ? written : `http://${written}`);
  } catch {
    return 'The check URL is not a URL: write it like https://check.example/.';
  }
  const scheme = url.protocol.slice(0, -1);
  if (scheme !== 'http' && scheme !== 'https') return 'The check URL must begin with http:// or https://.';
  if (url.username !== '' || url.password !== '') return 'The check URL must not hold a user name or password.';
  const host = normalizeHost(url.hostname);
  if (host === null) return `"${url.hostname}" is not a host name or address.`;
  const port = url.port === '' ? (scheme === 'http' ? 80 : 443) : Number(url.port);
  return { scheme, host, port, path: url.pathname + url.search, url: redactUrl(url.href) };
}

/** What testing needs of the rooms in force. */
export type TestRooms = Pick<Rooms, 'acl' | 'dial' | 'refusals' | 'identical'>;

/** Tests a chain; `check` null: it is built as far as its last hop. Ends within `timeout`. Never rejects: what went wrong is the outcome. */
export async function testChain(
  chain: Chain,
  check: Check | null,
  privateAllowed: boolean,
  rooms: TestRooms,
  timeout: Milliseconds,
  left: AbortSignal,
): Promise<ChainTest> {
  const controller = new AbortController();
  const late = new Fault('connection_timeout', {
    target: check ?? undefined,
    detail: `${timeout / 1000} s for the test`,
  });
  const timer = setTimeout(() => controller.abort(late), timeout);
  const signal = AbortSignal.any([controller.signal, left]);
  const one: Try = { chain, signal, steps: [], stage: 'connect' };
  const began = performance.now();
  const found: { status?: number; exit?: string } = {};
  const told = (error?: unknown): ChainTest => ({
    chain: chain.hops.map(hop => hop.name),
    outcome: error === undefined ? 'ok' : error instanceof Fault ? error.kind : 'proxy_internal_error',
    stage: one.stage,
    ...(error === undefined ? {} : { reason: error instanceof Error ? error.message : String(error) }),
    hops: [...one.steps],
    took: took ?? performance.now() - began,
    ...found,
  });
  let took: Milliseconds | undefined;
  // Its own: nothing waits in it, and nothing stays.
  const pool = new ConnectionPool(() => ({ ...TEST_LIMITS, responseTimeout: timeout / 1000 }));
  try {
    if (check === null) {
      await build(one, rooms);
      return told();
    }
    const behindHops = chain.hops.length > 0;
    const target = rooms.acl.admit(check, check.scheme === 'http' ? 'http' : 'connect', behindHops, privateAllowed);
    const answer = await askThrough(one, check, target, rooms, pool);
    took = performance.now() - began;
    found.status = answer.head.status;
    const exit = exitIn(answer.head.fields.get('content-type'), await beginningOf(answer.body, signal));
    if (exit !== null) found.exit = exit;
    return told();
  } catch (error) {
    return told(signal.aborted ? (signal.reason === late ? late : calledOff(signal.reason)) : error);
  } finally {
    clearTimeout(timer);
    pool.close();
  }
}

/** As far as the last hop: that one is connected to, and asked for nothing. */
async function build(one: Try, { dial }: TestRooms): Promise<void> {
  const last = one.chain.hops.at(-1);
  if (last === undefined) return;
  const { socket } = await dial(one, { host: last.host, port: last.port } as AdmittedTarget, true);
  socket.destroy();
}

/** A GET through one chain, with these fields beside the few that it has. */
export function askThrough(
  one: Try,
  check: Check,
  target: AdmittedTarget,
  rooms: TestRooms,
  pool: ConnectionPool,
  more: readonly (readonly [name: string, value: string])[] = [],
): Promise<Answer> {
  return (check.scheme === 'http' ? askPlain : askSecure)(one, check, target, rooms, pool, headOf(check, more));
}

async function askPlain(
  one: Try,
  { path }: Check,
  target: AdmittedTarget,
  rooms: TestRooms,
  pool: ConnectionPool,
  head: RequestHead,
): Promise<Answer> {
  const outgoing = {
    head,
    target,
    path,
    body: null,
    upgrade: null,
    interim: null,
    client: { pin: '' },
    connection: null as { abort(fault: Fault): void } | null,
    route: { name: 'test', chains: [one.chain], behindHops: one.chain.hops.length > 0, route: null },
    tried: 0,
    opinions: null,
    spent: null,
  };
  const onAbort = () => outgoing.connection?.abort(calledOff(one.signal.reason));
  one.signal.addEventListener('abort', onAbort);
  const { answer } = await forward(outgoing as never, one, { ...rooms, pool });
  return answer;
}

async function askSecure(
  one: Try,
  check: Check,
  target: AdmittedTarget,
  rooms: TestRooms,
  pool: ConnectionPool,
  { fields }: RequestHead,
): Promise<Answer> {
  const { socket, rest } = await rooms.dial(one, target, false);
  one.stage = 'response';
  const since = performance.now();
  const tls = await secure(nodeSocket(socket), rest, check, one.signal);
  one.steps.push({ hop: null, at: `TLS ${formatEndpoint(check)}`, took: performance.now() - since });
  const connection = pool.adopt('test', tls, NOTHING);
  one.signal.addEventListener('abort', () => connection.abort(calledOff(one.signal.reason)));
  const lines = SENT.flatMap(name => {
    const value = fields.get(name.toLowerCase());
    return value === undefined ? [] : [`${name}: ${value}\r\n`];
  }).join('');
  return connection.exchange({
    method: 'GET',
    headText: `GET ${check.path} HTTP/1.1\r\n${lines}Connection: close\r\n\r\n`,
    framing: { kind: 'none' },
    body: null,
    upgrade: null,
    blame: { target: check, hop: undefined },
    interim: null,
  } as never);
}

/** Says as little of who asks as a check URL will take. */
function headOf(
  { scheme, host, port, path }: Check,
  more: readonly (readonly [name: string, value: string])[],
): RequestHead {
  const at = port === (scheme === 'http' ? 80 : 443) ? formatHost(host) : formatEndpoint({ host, port });
  return {
    method: 'GET',
    target: { form: 'absolute', scheme: 'http', host, port, path },
    version: 11,
    fields: Fields.of('Host', at, 'User-Agent', 'Mozilla/5.0', 'Accept', 'text/plain, */*;q=0.5', ...more.flat()),
    framing: { kind: 'none' },
    keepAlive: true,
  };
}

/** TLS to the check URL's server; its certificate is verified. */
function secure(
  socket: ReturnType<typeof nodeSocket>,
  early: Buffer,
  check: Check,
  signal: AbortSignal,
): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    if (early.length > 0) socket.unshift(early);
    const tls = process.getBuiltinModule('node:tls').connect({
      socket,
      host: check.host,
      ...(isAddress(check.host) ? {} : { servername: check.host }),
      ALPNProtocols: ['http/1.1'],
      minVersion: 'TLSv1.2',
    });
    const fail = (fault: Fault) => {
      signal.removeEventListener('abort', onAbort);
      tls.destroy();
      reject(fault);
    };
    const onAbort = () => fail(calledOff(signal.reason));
    tls.on('error', (error: NodeJS.ErrnoException) => fail(tlsFault(check, tls, error)));
    tls.on('close', () => fail(new Fault('connection_terminated', { target: check })));
    tls.once('secureConnect', () => {
      signal.removeEventListener('abort', onAbort);
      tls.removeAllListeners('close');
      resolve(tls);
    });
    signal.addEventListener('abort', onAbort);
    if (signal.aborted) onAbort();
  });
}

function tlsFault(target: Endpoint, tls: TLSSocket, error: NodeJS.ErrnoException): Fault {
  const code = error.code ?? '';
  const detail = error.message.split('\n', 1)[0];
  if (tls.authorizationError || /CERT|SELF_SIGNED|UNABLE_TO/.test(code))
    return new Fault('tls_certificate_error', { target, detail, cause: error });
  if (code === 'ECONNRESET') return new Fault('connection_terminated', { target, detail, cause: error });
  return new Fault(/ALERT/.test(code) ? 'tls_alert_received' : 'tls_protocol_error', {
    target,
    detail: code || detail,
    cause: error,
  });
}

/** What comes of the body within the bound; it is let go then. */
function beginningOf(body: Body, signal: AbortSignal): Promise<Buffer> {
  if (body === null) return Promise.resolve(NOTHING);
  if (Buffer.isBuffer(body)) return Promise.resolve(body.subarray(0, MAX_ANSWER));
  return new Promise(resolve => {
    const pieces: Buffer[] = [];
    let length = 0;
    const done = () => resolve(Buffer.concat(pieces).subarray(0, MAX_ANSWER));
    const stop = () => {
      letGo(body);
      done();
    };
    signal.addEventListener('abort', stop, { once: true });
    body.start({
      write(chunk) {
        pieces.push(Buffer.from(chunk));
        length += chunk.length;
        if (length >= MAX_ANSWER) stop();
        return true;
      },
      end: done,
      // The head has come: that is what was tested.
      fail: done,
    });
  });
}

/** The address that an answer names, where it is one of those that say who asked: plain text or JSON, or hardly more than the address. */
export function exitIn(type: string | undefined, body: Buffer): string | null {
  const isData = /^(?:text\/plain|application\/(?:[\w.+-]*\+)?json)\b/i.test(type ?? '');
  if (!isData && body.length > 100) return null;
  const words = body
    .toString('latin1')
    .match(/(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9a-f]*:[0-9a-f:.]*:[0-9a-f.]*)(?![\w.:])/gi);
  return words?.find(word => isAddress(word.toLowerCase()) && word.length > 3)?.toLowerCase() ?? null;
}

export const TEST_LIMITS = {
  responseTimeout: 20,
  head: 64 * KiB,
  fields: 200,
  bodyTimeout: 20,
  pool: 1,
  poolPerOrigin: 1,
  poolIdleTimeout: 1,
};
