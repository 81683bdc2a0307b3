// Our parser against llhttp (test/fuzz): the kept cases, fresh cases for a bounded time, and the proof that the oracle says what node:http says.
import { readFileSync } from 'node:fs';
import { createServer, type IncomingMessage, request } from 'node:http';
import { type AddressInfo, connect, createServer as createRawServer, type Socket } from 'node:net';
import { describe, expect, test } from 'vitest';
import { CLOSES, STRICTER, WIDER } from '../../fuzz/compare.ts';
import { caseOf, type Entry, readCorpus, told } from '../../fuzz/corpus.ts';
import { readByLlhttp } from '../../fuzz/llhttp.ts';
import { runLive } from '../../fuzz/live.ts';
import { minimise } from '../../fuzz/minimise.ts';
import type { Message, Side } from '../../fuzz/outcome.ts';
import { caseAt, judged, noFigures, runCases } from '../../fuzz/run.ts';

const corpus = readCorpus();
const SEED = Number(process.env['FUZZ_SEED'] ?? Date.now() % 1_000_000_007);
process.stdout.write(`fuzz: fresh cases of seed ${SEED}; FUZZ_SEED=${SEED} has them again\n`);

describe('the kept cases', () => {
  test.each(corpus.map(entry => [entry.side, entry.name, entry] as const))('%s: %s', (_side, _name, entry) => {
    const verdict = told(judged(caseOf(entry)));
    if (entry.expected === '') expect(verdict).not.toMatch(/^disagreement/);
    else expect(verdict).toBe(entry.expected);
  });
});

describe.each(['request', 'response'] as const)('fresh %ss', side => {
  test('agree with llhttp, or are refused for a listed reason', () => {
    const figures = noFigures();
    const { failure } = runCases(side, SEED, 0, Infinity, performance.now() + 5_000, figures);
    const small = failure && minimise(failure.given, smaller => judged(smaller).kind === 'disagreement');
    expect(small && `${told(judged(small))}: ${JSON.stringify(small.bytes.toString('latin1'))}`).toBeNull();
    // A generator that makes only noise, or only peace, would prove nothing.
    expect(figures.cases).toBeGreaterThan(256);
    expect(figures.accepted).toBeGreaterThan(figures.cases / 10);
    expect(figures.refused).toBeGreaterThan(figures.cases / 10);
  });

  test('pass a running companion as what they are, or not at all', async () => {
    const { failures, said } = await runLive(side, SEED, 60);
    expect(failures.map(({ given, verdict }) => `${verdict.say}: ${JSON.stringify(given.bytes.toString('latin1'))}`)).toEqual([]); // prettier-ignore
    expect(said).toMatch(/^60 in /);
  });
});

test('a case comes again from its seed and number', () => {
  for (const side of ['request', 'response'] as const) expect(caseAt(side, 42, 4711)).toEqual(caseAt(side, 42, 4711));
  expect(caseAt('request', 42, 4711)).not.toEqual(caseAt('request', 42, 4712));
});

test('a failing case is made small', () => {
  const given = caseAt('request', 1, 1);
  const noisy = { ...given, bytes: Buffer.concat([given.bytes, Buffer.from('needle'), given.bytes]), cuts: [1, 2] };
  const small = minimise(noisy, one => one.bytes.includes('needle'));
  expect({ bytes: small.bytes.toString(), cuts: small.cuts }).toEqual({ bytes: 'needle', cuts: [] });
});

test('docs/parser.md lists every class in which we differ from llhttp', () => {
  const text = readFileSync('docs/parser.md', 'utf8');
  for (const [name, section] of Object.entries({ ...STRICTER, ...WIDER })) {
    expect(text).toContain(name);
    for (const [part] of section.matchAll(/RFC \d+ §[\d.]+\d/g)) expect(text, name).toContain(part);
  }
  expect(text).toContain(CLOSES);
});

// The oracle drives llhttp without sockets. It must say what node:http says on them ------------------------------------------------------------

/** What counts of a message here. */
type Seen = Pick<Message, 'method' | 'target' | 'status' | 'reason' | 'fields' | 'body' | 'trailers'>;

const seenOf = ({ method, target, status, reason, fields, body, trailers }: Seen): Seen => ({
  method,
  target,
  status,
  reason,
  fields,
  body,
  trailers,
});

describe('the oracle says what node:http says on sockets', () => {
  const cases = corpus.map(entry => [entry.name, entry] as const);
  const ofSide = (side: Side) => cases.filter(([, entry]) => entry.side === side);

  test.each(ofSide('request'))('of the request %s', async (_, entry) => {
    const told_ = readByLlhttp(caseOf(entry));
    const wanted = told_.messages.filter(message => message.complete).map(seenOf);
    const { seen, error } = await asServer(entry);
    // Behind an upgrade that it declines, Node reads no further: what counts is what came before.
    const upgrade = told_.messages.findIndex(message => /upgrade/i.test(message.fields.join('\n')) && message.method !== 'CONNECT'); // prettier-ignore
    if (upgrade !== -1) return expect(seen.slice(0, upgrade + 1)).toEqual(wanted.slice(0, upgrade + 1));
    expect(seen).toEqual(wanted);
    if (told_.ending === 'refused') expect(error).toMatch(/^HPE_(?!INVALID_EOF_STATE|CLOSED)/);
    else expect(error).toMatch(/^(?:|HPE_INVALID_EOF_STATE|HPE_CLOSED_CONNECTION|ECONNRESET)$/);
  });

  test.each(ofSide('response'))('of the response %s', async (_, entry) => {
    const told_ = readByLlhttp(caseOf(entry));
    const wanted = told_.messages.find(({ status }) => status < 100 || status >= 200 || status === 101);
    const { seen, error } = await asClient(entry);
    // Bytes behind the answer that came with it make Node drop an answer that was whole.
    if (seen === null && told_.ending !== 'open') expect(error).not.toBe('');
    else if (wanted?.complete) expect(seen).toEqual(seenOf(wanted));
    else {
      expect(seen).toBeNull();
      expect(error).not.toBe('');
    }
  });
});

async function asServer(entry: Entry): Promise<{ seen: Seen[]; error: string }> {
  const seen: Seen[] = [];
  let arrived = 0;
  let error = '';
  const server = createServer({ maxHeaderSize: 1 << 20, requireHostHeader: false, insecureHTTPParser: false });
  server.on('request', async (incoming, outgoing) => {
    const place = arrived++;
    const message = await whole(incoming);
    if (message !== null) seen[place] = message;
    outgoing.end();
  });
  server.on('checkContinue', (incoming, outgoing) => server.emit('request', incoming, outgoing));
  server.on('checkExpectation', (incoming, outgoing) => server.emit('request', incoming, outgoing));
  server.on('connect', (incoming: IncomingMessage, socket: Socket) => {
    seen[arrived++] = { ...headOf(incoming), body: '', trailers: [] };
    socket.destroy();
  });
  server.on('clientError', (fault: NodeJS.ErrnoException, socket) => {
    error = fault.code ?? fault.message;
    socket.destroy();
  });
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  const client = connect((server.address() as AddressInfo).port, '127.0.0.1');
  client.on('error', () => {}).resume();
  client.end(Buffer.from(entry.bytes, 'latin1'));
  await new Promise(resolve => client.once('close', resolve));
  await new Promise(resolve => setImmediate(resolve));
  server.closeAllConnections();
  await new Promise(resolve => server.close(resolve));
  return { seen, error };
}

async function asClient(entry: Entry): Promise<{ seen: Seen | null; error: string }> {
  const server = createRawServer(socket => {
    socket.on('error', () => {});
    socket.once('data', () => socket.end(Buffer.from(entry.bytes, 'latin1')));
  });
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const result = await new Promise<{ seen: Seen | null; error: string }>(resolve => {
    const method = entry.methods?.[0] ?? 'GET';
    const asking = request({ port, host: '127.0.0.1', method, path: method === 'CONNECT' ? 'a:1' : '/', agent: false, maxHeaderSize: 1 << 20 }); // prettier-ignore
    asking.on('response', async incoming => {
      const message = await whole(incoming);
      resolve({ seen: message, error: message === null ? 'aborted' : '' });
    });
    const changed = (incoming: IncomingMessage, socket: Socket) => {
      socket.destroy();
      resolve({ seen: { ...headOf(incoming), body: '', trailers: [] }, error: '' });
    };
    asking.on('connect', (incoming, socket: Socket) => {
      // Node takes any answer to CONNECT for a tunnel; RFC 9110 §9.3.6 and the oracle only 2xx.
      if (incoming.statusCode! < 300) return changed(incoming, socket);
      socket.destroy();
      const message = readByLlhttp(caseOf(entry)).messages.at(-1)!;
      resolve({ seen: { ...headOf(incoming), body: message.body, trailers: message.trailers }, error: '' });
    });
    asking.on('upgrade', changed);
    asking.on('error', (fault: NodeJS.ErrnoException) => resolve({ seen: null, error: fault.code ?? fault.message }));
    asking.end();
  });
  await new Promise(resolve => server.close(resolve));
  return result;
}

function headOf(incoming: IncomingMessage): Omit<Seen, 'body' | 'trailers'> {
  const { method, url, statusCode, statusMessage, rawHeaders } = incoming;
  return {
    method: statusCode ? '' : method!,
    target: statusCode ? '' : url!,
    status: statusCode ?? 0,
    reason: statusMessage ?? '',
    fields: rawHeaders,
  };
}

/** The message with its body, or null when it broke off. */
async function whole(incoming: IncomingMessage): Promise<Seen | null> {
  let body = '';
  try {
    for await (const piece of incoming) body += (piece as Buffer).toString('latin1');
  } catch {
    return null;
  }
  return incoming.complete ? { ...headOf(incoming), body, trailers: incoming.rawTrailers } : null;
}
