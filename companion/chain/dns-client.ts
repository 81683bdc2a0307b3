// Asks chosen DNS servers over UDP, and over TCP where an answer is too long for that. One socket a question, so that its port is a secret that a
// forger has to guess beside the id (RFC 5452 §9.2).
import { randomBytes } from 'node:crypto';
import { connect } from 'node:net';
import { type Endpoint, formatEndpoint, formatHost } from '../../shared/endpoint.ts';
import type { Milliseconds } from '../../shared/units.ts';
import { askBothFamilies } from './both-families.ts';
import { decodeAnswer, type DnsAnswer, encodeQuestion, type Question } from './dns-message.ts';
import { type AskDns, type FoundAddresses, LookupFailed } from './resolver.ts';

/** A question is sent at least so often before it fails: one lost packet is no reason. */
const LEAST_TRIES = 3;

/** Lookups by these servers, in order of who answered last; each ends within `timeout`. Every failure names the servers. */
export function makeDnsClient(servers: readonly Endpoint[], timeout: Milliseconds): AskDns {
  const tries = Math.max(LEAST_TRIES, servers.length * 2);
  /** Where the next question goes first. */
  let preferred = 0;

  async function ask(question: Question): Promise<FoundAddresses> {
    const giveUpAt = performance.now() + timeout;
    const said: string[] = [];
    const out = new Set<number>();
    for (let i = 0, at = preferred; i < tries && out.size < servers.length; i++, at = (at + 1) % servers.length) {
      if (out.has(at)) continue;
      const server = servers[at]!;
      const left = giveUpAt - performance.now();
      if (left <= 0) break;
      const answer = await askServer(server, question, Math.min(left, timeout / tries));
      if (answer === 'silent') {
        if (preferred === at) preferred = (at + 1) % servers.length;
        continue;
      }
      if (typeof answer === 'string') said.push(`${nameOf(server)} ${answer}`);
      else if (answer.kind === 'failure') said.push(`${nameOf(server)} says ${answer.rcode}`);
      else {
        preferred = at;
        return foundIn(answer, nameOf(server));
      }
      // It has answered, and would answer the same again.
      out.add(at);
      if (preferred === at) preferred = (at + 1) % servers.length;
    }
    if (said.length > 0) throw new LookupFailed('dns_error', said.join(', '));
    throw new LookupFailed('dns_timeout', `asked: ${servers.map(nameOf).join(', ')}`);
  }

  return askBothFamilies(ask);
}

/** Addresses, or a definite no in the words of whoever said it. */
export function foundIn(answer: Exclude<DnsAnswer, { kind: 'failure' }>, server: string): FoundAddresses {
  if (answer.kind === 'addresses') return answer;
  if (answer.kind === 'truncated') throw new LookupFailed('dns_error', `${server} says only half of it`);
  throw new LookupFailed('dns_error', `${server} says: ${answer.why}`, { definite: true, ttl: answer.ttl });
}

const nameOf = (server: Endpoint) => (server.port === 53 ? formatHost(server.host) : formatEndpoint(server));

/** What came of it: an answer, `silent`, or what is wrong with the server, to be read behind its name. */
type Outcome = DnsAnswer | 'silent' | 'refused the connection' | 'cannot be reached' | 'makes no sense';

async function askServer(server: Endpoint, question: Question, time: Milliseconds): Promise<Outcome> {
  const giveUpAt = performance.now() + time;
  const answer = await overUdp(server, question, time);
  if (typeof answer === 'string' || answer.kind !== 'truncated') return answer;
  return overTcp(server, question, Math.max(1, giveUpAt - performance.now()));
}

function overUdp(server: Endpoint, question: Question, time: Milliseconds): Promise<Outcome> {
  return new Promise(resolve => {
    const id = randomBytes(2).readUInt16BE();
    const socket = process.getBuiltinModule('node:dgram').createSocket(server.host.includes(':') ? 'udp6' : 'udp4');
    let over = false;
    const end = (outcome: Outcome) => {
      if (over) return;
      over = true;
      clearTimeout(timer);
      socket.close();
      resolve(outcome);
    };
    const timer = setTimeout(end, time, 'silent');
    socket.on('error', error => end(unreachable(error)));
    // Connected, it hears nobody but this server. What is no answer to this question is passed over: a forger must not end it either.
    socket.on('message', bytes => {
      const answer = decodeAnswer(bytes, question, id);
      if (answer !== null) end(answer);
    });
    // Not as a callback: that would be called with an error, too, and there would be no 'error' (a machine without a network).
    socket.on('connect', () => {
      if (!over) socket.send(encodeQuestion(question, id), error => error && end(unreachable(error)));
    });
    socket.connect(server.port, server.host);
  });
}

/** RFC 1035 §4.2.2: two bytes of length, then the message. */
function overTcp(server: Endpoint, question: Question, time: Milliseconds): Promise<Outcome> {
  return new Promise(resolve => {
    const id = randomBytes(2).readUInt16BE();
    const socket = connect({ host: server.host, port: server.port, noDelay: true });
    let got: Buffer = Buffer.alloc(0);
    let over = false;
    const end = (outcome: Outcome) => {
      if (over) return;
      over = true;
      clearTimeout(timer);
      socket.destroy();
      resolve(outcome);
    };
    const timer = setTimeout(end, time, 'silent');
    socket.on('error', error => end(unreachable(error)));
    socket.on('close', () => end('makes no sense'));
    socket.on('connect', () => {
      const bytes = encodeQuestion(question, id);
      const length = Buffer.alloc(2);
      length.writeUInt16BE(bytes.length);
      socket.write(Buffer.concat([length, bytes]));
    });
    socket.on('data', chunk => {
      got = got.length === 0 ? chunk : Buffer.concat([got, chunk]);
      if (got.length < 2 || got.length < 2 + got.readUInt16BE(0)) return;
      const answer = decodeAnswer(got.subarray(2, 2 + got.readUInt16BE(0)), question, id);
      end(answer === null || answer.kind === 'truncated' ? 'makes no sense' : answer);
    });
  });
}

function unreachable(error: Error): Outcome {
  return 'code' in error && error.code === 'ECONNREFUSED' ? 'refused the connection' : 'cannot be reached';
}
