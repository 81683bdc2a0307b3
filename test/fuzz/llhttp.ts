// The oracle: llhttp as Node runs it, strict (no lenient flag), in this process and without sockets. Its callbacks answer as node:http's server and
// client answer. test/companion/message/fuzz.test.ts proves on sockets that node:http says the same.
import { createRequire } from 'node:module';
import { type Case, type Message, type Outcome, piecesOf, type Side } from './outcome.ts';

/** Node's binding, as far as it is used here; it has no types of its own. */
interface NodeParser {
  [callback: number]: unknown;
  initialize(type: number, resource: object, maxHeaderSize: number, lenientFlags: number): void;
  execute(bytes: Buffer): number | (Error & { code: string; reason: string; bytesParsed: number });
  finish(): undefined | Error;
}
interface NodeParserClass {
  new (): NodeParser;
  readonly REQUEST: number;
  readonly RESPONSE: number;
  readonly kOnHeaders: number;
  readonly kOnHeadersComplete: number;
  readonly kOnBody: number;
  readonly kOnMessageComplete: number;
  readonly kLenientNone: number;
}

const { HTTPParser, methods: METHODS } = createRequire(import.meta.url)('_http_common') as {
  HTTPParser: NodeParserClass;
  methods: readonly string[];
};
const ALL_METHODS = METHODS_BY_NUMBER();

/** llhttp numbers methods in the order of its list, of which node:http shows the part that is HTTP's; so the list is asked for, one by one. */
function METHODS_BY_NUMBER(): Map<number, string> {
  const byNumber = new Map<number, string>();
  const parser = new HTTPParser();
  for (const method of METHODS) {
    parser.initialize(HTTPParser.REQUEST, {}, 1 << 20, HTTPParser.kLenientNone);
    parser[HTTPParser.kOnHeadersComplete] = (_major: number, _minor: number, _lines: string[], number: number) => {
      byNumber.set(number, method);
      return 0;
    };
    parser.execute(Buffer.from(`${method} ${method === 'CONNECT' ? 'a:1' : '/'} HTTP/1.1\r\n\r\n`, 'latin1'));
  }
  return byNumber;
}

/** Methods that llhttp takes. It refuses all others. */
export const KNOWN_METHODS: ReadonlySet<string> = new Set(METHODS);

const resource = {};
const parser = new HTTPParser();
let side: Side = 'request';
let messages: Message[] = [];
let current: Message | null = null;
let fields: string[] = [];
let target = '';
let tunnel = false;
let upgrading = false;
let methods: readonly string[] = [];
let answered = 0;

parser[HTTPParser.kOnHeaders] = (lines: string[], url: string): void => {
  fields.push(...lines);
  target += url;
};

parser[HTTPParser.kOnHeadersComplete] = (
  major: number,
  minor: number,
  lines: string[] | undefined,
  method: number | undefined,
  url: string | undefined,
  status: number | undefined,
  reason: string | undefined,
  upgrade: boolean,
  keepAlive: boolean,
): number => {
  current = {
    method: side === 'request' ? (ALL_METHODS.get(method!) ?? `method ${method}`) : '',
    target: side === 'request' ? (url ?? target) : '',
    status: status ?? 0,
    reason: reason ?? '',
    version: major * 10 + minor,
    fields: lines ?? fields,
    body: '',
    trailers: [],
    complete: false,
    keepAlive,
    headAt: -1,
    bodyAt: -1,
    end: -1,
  };
  fields = [];
  target = '';
  // What it says of keeping the connection it says before it knows of HEAD and 304; going on is what counts.
  if (messages.length > 0) messages.at(-1)!.keepAlive = true;
  messages.push(current);
  if (side === 'request') {
    // parserOnIncoming of lib/_http_server.js. Nobody here listens to 'upgrade', so an Upgrade is declined.
    tunnel = current.method === 'CONNECT';
    upgrading = upgrade;
    return tunnel ? 2 : 0;
  }
  // parserOnIncomingClient of lib/_http_client.js.
  const asked = methods[answered] ?? 'GET';
  if (upgrade || (asked === 'CONNECT' && status! >= 200 && status! < 300)) {
    tunnel = true;
    return 2;
  }
  if (status! >= 100 && status! < 200 && status !== 101) return 1;
  answered++;
  return asked === 'HEAD' || status === 304 ? 1 : 0;
};

parser[HTTPParser.kOnBody] = (bytes: Buffer): void => {
  current!.body += bytes.toString('latin1');
};

parser[HTTPParser.kOnMessageComplete] = (): void => {
  current!.trailers = fields;
  fields = [];
  target = '';
  current!.complete = true;
};

const ANY_BYTE = Buffer.from('H', 'latin1');

function begin(): void {
  const type = side === 'request' ? HTTPParser.REQUEST : HTTPParser.RESPONSE;
  // Sizes must not decide here.
  parser.initialize(type, resource, 1 << 30, HTTPParser.kLenientNone);
}

/** What llhttp makes of the bytes. Responses end with the connection. */
export function readByLlhttp(given: Case): Outcome {
  side = given.side;
  messages = [];
  current = null;
  fields = [];
  target = '';
  tunnel = false;
  upgrading = false;
  methods = given.methods;
  answered = 0;
  const outcome: Outcome = { messages, ending: 'open', why: '' };
  begin();
  let at = 0;
  for (const piece of given.cuts.length === 0 ? [given.bytes] : piecesOf(given)) {
    let rest = piece;
    while (rest.length > 0) {
      const result = parser.execute(rest);
      if (typeof result !== 'number') {
        outcome.ending = result.code === 'HPE_CLOSED_CONNECTION' ? 'closed' : 'refused';
        const before = messages.at(-1);
        if (outcome.ending === 'refused' && before?.complete) before.keepAlive = true;
        outcome.why = result.reason;
        return outcome;
      }
      at += result;
      if (tunnel) {
        outcome.ending = 'tunnel';
        current!.end = at;
        return outcome;
      }
      rest = rest.subarray(result);
      const last = messages.at(-1);
      if (!upgrading || last === undefined || !last.complete) {
        if (rest.length === 0) break;
        // Node takes an error for the upgrade where one was asked for.
        outcome.ending = 'refused';
        outcome.why = 'an error behind an upgrade';
        return outcome;
      }
      // It stops behind a message that asks for an upgrade, and stays there. Declined, what follows is the next message.
      upgrading = false;
      if (!last.keepAlive) {
        outcome.ending = 'closed';
        return outcome;
      }
      begin();
    }
  }
  const last = messages.at(-1);
  if (last === undefined) return outcome;
  if (!last.complete) {
    if (side === 'response') parser.finish();
  } else if (!last.keepAlive) {
    const more = parser.execute(ANY_BYTE);
    last.keepAlive = typeof more === 'number' || more.code !== 'HPE_CLOSED_CONNECTION';
  }
  if (last.complete && !last.keepAlive) outcome.ending = 'closed';
  return outcome;
}
