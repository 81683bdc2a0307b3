// The slower mode: cases go over real sockets through a running companion, with a raw peer on the other side. Requests: what arrives at the origin must
// be messages that llhttp takes, no more of them and none other than the case holds. Responses: what arrives at the client must be messages that llhttp
// takes, and whole only where the case's answer is whole. Whatever comes, the companion answers or closes within a bound.
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { startTestCompanion } from '../support/with-companion.ts';
import { repair, type Verdict } from './compare.ts';
import { readByLlhttp } from './llhttp.ts';
import { readByOurs } from './ours.ts';
import { type Case, type Message, type Outcome, piecesOf, type Side } from './outcome.ts';
import { caseAt, type Failure } from './run.ts';

/** Milliseconds within which the companion must have answered, or closed. */
const BOUND = 5_000;
const ANSWER = 'HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: 2\r\n\r\nok';

export interface LiveResult {
  readonly failures: readonly Failure[];
  /** A line for people. */
  readonly said: string;
}

/** Runs that many cases of the seed. */
export async function runLive(side: Side, seed: number, count: number): Promise<LiveResult> {
  const failures: Failure[] = [];
  const figures = { forwarded: 0, refused: 0, open: 0 };
  const peer = new RawPeer(side);
  const port = await peer.listen();
  const companion = await startTestCompanion('guard:\n  allow: [127.0.0.0/8]\ndns:\n  hosts:\n    a.test: 127.0.0.1\n');
  const began = performance.now();
  try {
    for (let index = 0; index < count && failures.length < 10; index++) {
      const given = addressed(caseAt(side, seed, index), port);
      const say = side === 'request' ? await liveRequest(given, companion.port, peer, figures) : await liveResponse(given, companion.port, port, index, peer, figures); // prettier-ignore
      if (say !== null) failures.push({ given, verdict: { kind: 'disagreement', say } satisfies Verdict });
    }
  } finally {
    await companion[Symbol.asyncDispose]();
    await peer.close();
  }
  const { forwarded, refused, open } = figures;
  const took = (performance.now() - began) / 1_000;
  return {
    failures,
    said: `${count} in ${took.toFixed(0)} s: messages carried ${forwarded}, cases refused ${refused}, cases left open ${open}, failures ${failures.length}`,
  };
}

/** The case asks the origin on that port. Where bytes are gained, the cuts stay: they are any cuts. */
function addressed(given: Case, port: number): Case {
  if (given.side === 'response') return given;
  const text = given.bytes
    .toString('latin1')
    .replace(/http:\/\/a\.test(?::8080)?(?=[/? ])/gi, `http://a.test:${port}`)
    .replace(/CONNECT [^ :]*:\d+ /g, `CONNECT a.test:${port} `);
  return { ...given, bytes: Buffer.from(text, 'latin1') };
}

async function liveRequest(
  given: Case,
  port: number,
  peer: RawPeer,
  figures: { forwarded: number; refused: number; open: number },
): Promise<string | null> {
  // prettier-ignore
  const ours = readByOurs(given);
  const whole = ours.messages.filter(message => message.complete && message.target.toLowerCase().startsWith('http:'));
  peer.forget();
  const client = new Client(port);
  await client.send(given);
  const methods = ours.messages.map(message => message.method);
  const expected = ours.messages.filter(message => message.complete).length;
  const finals = () => readByLlhttp(asResponses(client.received, methods)).messages.filter(one => one.status >= 200 && one.complete).length; // prettier-ignore
  const settled = await client.until(
    () => (ours.ending === 'open' || ours.ending === 'tunnel') && finals() >= expected,
  );
  const answers = readByLlhttp(asResponses(client.received, methods));
  client.socket.destroy();
  // What is still on its way of a message cut short, or of a tunnel, must not be taken for the next case's.
  if (ours.ending !== 'open' || expected < ours.messages.length) await peer.reset();
  if (!settled) return `no answer and no close within ${BOUND} ms; ${expected} messages, ${finals()} answers`;
  if (answers.ending === 'refused') return `the answers are not valid: ${answers.why}`;
  if (ours.ending === 'refused') figures.refused++;
  else if (ours.ending === 'open') figures.open++;
  const arrived: Message[] = [];
  for (const bytes of peer.received) {
    const outcome = arrivedIn(bytes);
    if (outcome.ending === 'refused' && !ours.messages.some(message => message.method === 'CONNECT')) {
      return `the origin got what llhttp refuses: ${outcome.why}`;
    }
    arrived.push(...outcome.messages.filter(message => message.complete && message.method !== 'CONNECT'));
  }
  if (ours.messages.some(message => message.method === 'CONNECT')) return null;
  figures.forwarded += arrived.length;
  if (arrived.length > whole.length) return `the origin got ${arrived.length} messages of ${whole.length}`;
  for (const message of arrived) {
    if (
      !whole.some(
        one =>
          one.body === message.body &&
          (one.target.endsWith(message.target) || /^(?:\/|\*|\/\?.*)$/.test(message.target)),
      )
    ) {
      // prettier-ignore
      return `the origin got ${message.method} ${message.target} with ${JSON.stringify(message.body)}`;
    }
  }
  return null;
}

async function liveResponse(
  given: Case,
  port: number,
  originPort: number,
  index: number,
  peer: RawPeer,
  figures: { forwarded: number; refused: number; open: number },
): Promise<string | null> {
  // prettier-ignore
  const asked = given.methods[0] === 'HEAD' ? 'HEAD' : given.methods[0] === 'POST' ? 'POST' : 'GET';
  const told: Case = { ...given, methods: [asked] };
  const ours = readByOurs(told);
  peer.forget();
  peer.answer = told;
  const client = new Client(port);
  client.socket.write(`${asked} http://a.test:${originPort}/r/${index} HTTP/1.1\r\nHost: a.test\r\nTE: trailers\r\nConnection: close\r\n${asked === 'POST' ? 'Content-Length: 0\r\n' : ''}\r\n`); // prettier-ignore
  const settled = await client.until(() => false);
  client.socket.destroy();
  if (!settled) return `no answer and no close within ${BOUND} ms`;
  const got = readByLlhttp({ side: 'response', bytes: client.received, cuts: [], methods: [asked] });
  if (got.ending === 'refused') return `the client got what llhttp refuses: ${got.why}`;
  const final = finalOf(got);
  const sent = finalOf(ours);
  if (final === undefined) return 'the client got no answer';
  if (/detour; error=/i.test(final.fields.join('\n')) || final.status === 502) {
    figures.refused++;
    return null;
  }
  if (sent === undefined) return `the client got ${final.status}, and there was no answer`;
  if (final.status !== sent.status) return `the status ${sent.status} became ${final.status}`;
  if (final.complete && !sent.complete) return 'an answer that broke off came whole';
  if (final.complete && final.body !== sent.body) {
    return `the body ${JSON.stringify(sent.body)} became ${JSON.stringify(final.body)}`;
  }
  figures.forwarded++;
  return null;
}

function finalOf({ messages }: Outcome): Message | undefined {
  return messages.find(message => message.status >= 200);
}

function asResponses(bytes: Buffer, methods: readonly string[]): Case {
  return { side: 'response', bytes, cuts: [], methods };
}

/** What llhttp makes of what arrived at the origin. A method that it does not know is carried all the same; nothing else is excepted here. */
function arrivedIn(bytes: Buffer): Outcome {
  const given: Case = { side: 'request', bytes, cuts: [], methods: [] };
  const repaired = repair(given, readByOurs(given));
  return readByLlhttp(repaired?.what === 'an unknown method' ? repaired.given : given);
}

/** The client's side. */
class Client {
  readonly socket: Socket;
  received: Buffer = Buffer.alloc(0);
  private gone = false;
  private wake: () => void = () => {};

  constructor(port: number) {
    this.socket = connect({ port, host: '127.0.0.1', noDelay: true });
    this.socket.on('data', chunk => {
      this.received = Buffer.concat([this.received, chunk as Buffer]);
      this.wake();
    });
    this.socket.on('error', () => {});
    const end = () => {
      this.gone = true;
      this.wake();
    };
    this.socket.on('end', end).on('close', end);
  }

  /** Writes the pieces, each by itself. */
  async send(given: Case): Promise<void> {
    for (const piece of piecesOf(given).slice(0, 8)) {
      this.socket.write(piece);
      await new Promise(resolve => setImmediate(resolve));
    }
    const rest = piecesOf(given).slice(8);
    if (rest.length > 0) this.socket.write(Buffer.concat(rest));
  }

  /** Whether the connection has ended, or what was waited for has come, within the bound. */
  until(ready: () => boolean): Promise<boolean> {
    return new Promise(resolve => {
      const timer = setTimeout(() => done(false), BOUND);
      const done = (result: boolean) => {
        clearTimeout(timer);
        this.wake = () => {};
        resolve(result);
      };
      this.wake = () => {
        if (this.gone || ready()) done(true);
      };
      this.wake();
    });
  }
}

/** The origin's side: collects what comes, and answers each request head with 200, or the first with the bytes of a case. */
class RawPeer {
  received: Buffer[] = [];
  answer: Case | null = null;
  private readonly server: Server;
  private readonly sockets = new Set<Socket>();
  private generation = 0;

  constructor(side: Side) {
    this.server = createServer({ noDelay: true }, socket => {
      this.sockets.add(socket);
      socket.on('error', () => {});
      socket.on('close', () => this.sockets.delete(socket));
      let generation = this.generation;
      let slot = this.received.push(Buffer.alloc(0)) - 1;
      let answered = 0;
      socket.on('data', chunk => {
        if (generation !== this.generation) {
          // A connection that an earlier case used.
          generation = this.generation;
          slot = this.received.push(Buffer.alloc(0)) - 1;
          answered = 0;
        }
        const all = Buffer.concat([this.received[slot]!, chunk as Buffer]);
        this.received[slot] = all;
        if (side === 'response') {
          if (answered++ === 0) void this.tell(socket);
          return;
        }
        const { messages } = arrivedIn(all);
        const whole = messages.filter(message => message.complete);
        for (; answered < whole.length; answered++) {
          socket.write(whole[answered]!.method === 'HEAD' ? ANSWER.slice(0, -2) : ANSWER);
        }
      });
    });
  }

  private async tell(socket: Socket): Promise<void> {
    const pieces = piecesOf(this.answer!);
    for (const piece of pieces.slice(0, 8)) {
      socket.write(piece);
      await new Promise(resolve => setImmediate(resolve));
    }
    socket.end(Buffer.concat(pieces.slice(8)));
  }

  /** Connections and bytes of earlier cases do not count any more. */
  forget(): void {
    this.generation++;
    this.received = [];
  }

  /** Ends every connection, and gives the companion's pool the time to see it. */
  async reset(): Promise<void> {
    await new Promise(resolve => setTimeout(resolve, 2));
    for (const socket of this.sockets) socket.destroy();
    await new Promise(resolve => setTimeout(resolve, 3));
  }

  async listen(): Promise<number> {
    await new Promise<void>(resolve => this.server.listen(0, '127.0.0.1', resolve));
    return (this.server.address() as AddressInfo).port;
  }

  async close(): Promise<void> {
    for (const socket of this.sockets) socket.destroy();
    await new Promise(resolve => this.server.close(resolve));
  }
}
