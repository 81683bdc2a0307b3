// Judges one case: do we and llhttp agree? The rule: what llhttp refuses, we refuse, but for the exceptions of WIDER; where both accept, every
// boundary and every byte is the same; where only we refuse, the reason is one of STRICTER. docs/parser.md tells the same to people.
import { decodeConnectReply } from '../../companion/chain/http-connect.ts';
import { readByLlhttp, KNOWN_METHODS } from './llhttp.ts';
import { readByOurs } from './ours.ts';
import type { Case, Message, Outcome } from './outcome.ts';
import { wrongRebuilt } from './rebuilt.ts';

/** Reasons for which we refuse what llhttp takes, with where it is written. */
export const STRICTER: Readonly<Record<string, string>> = {
  // Requests
  'no Host': 'RFC 9112 §3.2',
  'more than one Host': 'RFC 9112 §3.2',
  'an empty Host': 'RFC 9112 §3.2.2, RFC 9110 §4.2.1: an http URL names a host',
  'the target has characters that must be escaped':
    'RFC 9112 §3.2, RFC 3986 §2: no fragment, nothing beyond visible ASCII',
  'the target is neither a path nor a URL': 'RFC 9112 §3.2',
  'the target has user information': 'RFC 9110 §4.2.4, A18',
  'the host is not a name or an address': 'RFC 3986 §3.2.2, A19',
  'the port is not from 1 to 65535': 'RFC 3986 §3.2.3, A19, A25',
  'the path has a backslash': 'RFC 3986 §3.3, A19: browsers read it as a slash',
  'only OPTIONS may ask for *': 'RFC 9112 §3.2.4',
  'https is carried in a tunnel: ask with CONNECT': 'RFC 9110 §7.1: an https URL is not asked for in the clear',
  'the scheme …': 'RFC 9110 §7.1, A43',
  'CONNECT needs host:port': 'RFC 9112 §3.2.3, A25',
  'CONNECT needs a port from 1 to 65535': 'RFC 9112 §3.2.3, A25',
  'CONNECT with a body': 'RFC 9110 §9.3.6: it has none, and what follows is the tunnel',
  'it does not begin with a method': 'RFC 9112 §2.2, R28: one empty line may come first, no other white space',
  'a CR without LF': 'RFC 9112 §2.2',
  'the request line has no version': 'RFC 9112 §3, R30: HTTP/0.9',
  http_version_not_supported: 'RFC 9110 §2.5, R29: HTTP/0.9 and HTTP/2.0 in this syntax',
  'chunked is not the last transfer coding': 'RFC 9112 §6.1, A4',
  // Both
  'the HTTP version is not valid': 'RFC 9112 §2.3, §3: RTSP and ICE are other protocols; one space before the version',
  'a line ends without CR': 'RFC 9112 §2.2: behind HTTP/0.9, and before a response',
  'a control character': 'RFC 9112 §4: in a reason',
  'an unknown transfer coding': 'RFC 9112 §6.1, A4',
  http_response_transfer_coding:
    'RFC 9112 §6.1, A4: a coding with a meaning, or like chunked; llhttp reads until the connection closes',
  'chunked twice': 'RFC 9112 §6.1',
  'an empty transfer coding': 'RFC 9112 §6.1, A4',
  'a tab behind the transfer coding':
    'RFC 9112 §6.1: with some white space llhttp no longer sees chunked, and reads a response until it closes',
  'Transfer-Encoding in HTTP/1.0': 'RFC 9112 §6.1, A10',
  'Content-Length is not a length': 'RFC 9110 §8.6: more than 15 digits',
  'a chunk size is too large': 'RFC 9112 §7.1: more than 13 digits, zeros in front too',
  'a chunk extension is not valid': 'RFC 9112 §7.1.1, RFC 9110 §5.6.4: ours are ASCII, tokens and quoted strings',
  'chunk extensions are too long': 'RFC 9112 §7.1.1: 256 bytes each, 16 KiB together, A12',
  // Responses
  'an interim answer ends the connection': 'RFC 9110 §15.2: it says close, and another answer is owed',
  'its 101 does not say to what': 'RFC 9110 §7.8, A31',
  'the status is below 100': 'RFC 9110 §15',
};

/** What we take and llhttp does not. In each case llhttp must agree with us once the one thing is put right in the bytes. */
export const WIDER = {
  'an unknown method': 'RFC 9110 §9.1, §16.1: methods are tokens and the registry is open; a proxy forwards them',
  'the same Content-Length again': 'RFC 9110 §8.6, A2: it counts as once',
  'a control field in the trailers': 'RFC 9110 §6.5.1, A22: it is dropped and frames nothing',
  'a space before the colon': 'RFC 9112 §5.1, R34: a proxy removes it from a response',
} as const;

/** `kind` sorts cases for the figures; only a disagreement is a failure. */
export interface Verdict {
  readonly kind: 'accepted' | 'refused' | 'stricter' | 'wider' | 'disagreement';
  /** The class, or what the two say. */
  readonly say: string;
}

const ACCEPTED: Verdict = { kind: 'accepted', say: '' };
const REFUSED: Verdict = { kind: 'refused', say: '' };

/** What may come behind a message that is not whole, to see whether anything could make it one. */
const FINISHES = [
  '\r\n\r\n',
  '\n\r\n',
  ': x\r\n\r\n',
  'x\r\n\r\n',
  '\r\n',
  '0\r\n\r\n',
  '\r\n0\r\n\r\n',
  '"\r\n\r\n',
].map(text => Buffer.from(text, 'latin1'));

/** Reads the case with both, and judges. Throws what is neither: a crash. */
export function judge(given: Case): Verdict {
  const ours = readByOurs(given);
  if (given.cuts.length > 0) {
    const difference = differenceOfCuts(ours, readByOurs({ ...given, cuts: [] }));
    if (difference !== null) return disagreement(`cut and whole differ: ${difference}`);
  }
  const theirs = readByLlhttp(given);
  const verdict = compare(given, ours, theirs, true);
  if (verdict.kind === 'disagreement') return verdict;
  if (given.methods[0] === 'CONNECT') {
    const wrong = wrongConnectReply(given, theirs);
    if (wrong !== null) return disagreement(wrong);
  }
  let answered = 0;
  for (const message of ours.messages) {
    const asked = given.methods[answered] ?? 'GET';
    if (message.status >= 200) answered++;
    if (!message.complete || message.status === 101 || asked === 'CONNECT') continue;
    const text = message.rebuild?.() ?? null;
    const wrong = text === null ? null : wrongRebuilt(text, message, asked);
    if (wrong !== null) return disagreement(wrong);
  }
  return verdict;
}

/** A hop's answer to CONNECT has a reader of its own: where llhttp takes the answer, too, both say the same status and the same begin of the tunnel. */
function wrongConnectReply(given: Case, theirs: Outcome): string | null {
  const reply = decodeConnectReply(given.bytes);
  if (typeof reply === 'string') return null;
  // A 101 is nothing that a hop may say here: we read on, llhttp takes it for the answer.
  const first = theirs.messages.find(({ status }) => status >= 200 || status === 101);
  if (first === undefined) return theirs.ending === 'open' ? `a hop answers ${reply.status}, llhttp waits` : null;
  if (first.status === 101) return null;
  if (first.status !== reply.status) return `a hop answers ${reply.status}, for llhttp ${first.status}`;
  const end = given.bytes.length - reply.rest.length;
  return first.end === -1 || first.end === end ? null : `a hop's tunnel begins at ${end}, for llhttp at ${first.end}`;
}

function disagreement(say: string): Verdict {
  return { kind: 'disagreement', say };
}

function compare(given: Case, ours: Outcome, theirs: Outcome, mayRepair: boolean): Verdict {
  let closesEarlier = false;
  for (let i = 0; ; i++) {
    const a = ours.messages[i];
    const b = theirs.messages[i];
    if (a === undefined) {
      if (b === undefined) break;
      // Whatever comes behind an interim answer that ends the connection, llhttp refuses.
      if (ours.why === 'an interim answer ends the connection' && !b.keepAlive) return REFUSED;
      if (ours.ending === 'refused') return stricter(ours.why);
      if (ours.ending === 'closed') return { kind: 'stricter', say: CLOSES };
      return disagreement(`llhttp has message ${i + 1}, we do not (${ours.ending})`);
    }
    if (b === undefined) return wider(given, ours, theirs, mayRepair, `we have message ${i + 1}, llhttp does not`);
    const difference = headDifference(a, b);
    if (difference !== null) return disagreement(`message ${i + 1}: ${difference}`);
    if (a.complete && !b.complete) {
      return wider(given, ours, theirs, mayRepair, `we have all of message ${i + 1}, llhttp does not`);
    }
    if (!a.complete && b.complete) {
      if (ours.ending === 'refused') return stricter(ours.why);
      return disagreement(`we wait for more of message ${i + 1}, llhttp does not`);
    }
    if (ours.ending !== 'refused' && theirs.ending !== 'refused' && a.body !== b.body) {
      return disagreement(`message ${i + 1}: bodies ${JSON.stringify(a.body)} and ${JSON.stringify(b.body)}`);
    }
    if (a.complete) {
      if (a.body !== b.body) {
        return disagreement(`message ${i + 1}: bodies ${JSON.stringify(a.body)} and ${JSON.stringify(b.body)}`);
      }
      if (!sameLines(a.trailers, b.trailers)) {
        return disagreement(`message ${i + 1}: trailers ${JSON.stringify(a.trailers)}, ${JSON.stringify(b.trailers)}`);
      }
      if (ours.ending === 'tunnel' && i === ours.messages.length - 1) {
        if (theirs.ending !== 'tunnel' || b.end === a.end) break;
        return disagreement(`the tunnel begins at ${a.end} and ${b.end}`);
      }
      if (a.keepAlive && !b.keepAlive) {
        return wider(given, ours, theirs, mayRepair, `message ${i + 1} ends the connection for llhttp, not for us`);
      }
      closesEarlier ||= !a.keepAlive && b.keepAlive;
    }
  }
  return compareEndings(given, ours, theirs, mayRepair, closesEarlier);
}

function compareEndings(
  given: Case,
  ours: Outcome,
  theirs: Outcome,
  mayRepair: boolean,
  closesEarlier: boolean,
): Verdict {
  if (closesEarlier && ours.ending === 'closed') return { kind: 'stricter', say: CLOSES };
  if (ours.ending === theirs.ending) return ours.ending === 'refused' ? REFUSED : ACCEPTED;
  if (ours.ending === 'refused') {
    // Not refused yet, or not at all?
    if (theirs.ending === 'closed' || FINISHES.every(end => readByLlhttp(extended(given, end)).ending === 'refused')) {
      return REFUSED;
    }
    return stricter(ours.why);
  }
  if (ours.ending === 'open' && theirs.ending === 'refused') {
    if (!mayRepair) return REFUSED;
    for (const end of FINISHES) {
      const longer = extended(given, end);
      const more = readByOurs(longer);
      if (more.messages.length === ours.messages.length && more.messages.at(-1)?.complete === ours.messages.at(-1)?.complete) continue; // prettier-ignore
      const verdict = compare(longer, more, readByLlhttp(longer), true);
      if (verdict.kind === 'disagreement') return disagreement(`with ${JSON.stringify(end.toString('latin1'))} behind it, ${verdict.say}`); // prettier-ignore
    }
    return REFUSED;
  }
  return wider(given, ours, theirs, mayRepair, `we end ${ours.ending}, llhttp ${theirs.ending} (${theirs.why})`);
}

/** A class by itself: no refusal, but no further message either. */
export const CLOSES = 'the connection ends behind it';

function stricter(why: string): Verdict {
  why = why.replace(/^the scheme .*/s, 'the scheme …');
  return why in STRICTER ? { kind: 'stricter', say: why } : disagreement(`we refuse what llhttp takes: ${why}`);
}

function extended(given: Case, end: Buffer): Case {
  return { ...given, bytes: Buffer.concat([given.bytes, end]) };
}

function headDifference(a: Message, b: Message): string | null {
  if (a.method !== b.method) return `methods ${a.method} and ${b.method}`;
  if (a.target !== b.target) return `targets ${a.target} and ${b.target}`;
  if (a.status !== b.status) return `statuses ${a.status} and ${b.status}`;
  if (a.reason !== b.reason) return `reasons ${JSON.stringify(a.reason)} and ${JSON.stringify(b.reason)}`;
  if (a.version !== b.version) return `versions ${a.version} and ${b.version}`;
  if (!sameLines(a.fields, b.fields)) return `fields ${JSON.stringify(a.fields)} and ${JSON.stringify(b.fields)}`;
  return null;
}

function sameLines(a: readonly string[], b: readonly string[]): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

/** Our own reading must not depend on where the bytes are cut. Why something is refused may. */
function differenceOfCuts(cut: Outcome, whole: Outcome): string | null {
  if (cut.ending !== whole.ending) return `${cut.ending} and ${whole.ending}`;
  if (cut.messages.length !== whole.messages.length) {
    // A whole chunked body that is malformed is refused with its head, one in pieces behind it.
    return cut.ending === 'refused' ? null : `${cut.messages.length} and ${whole.messages.length} messages`;
  }
  for (const [i, a] of cut.messages.entries()) {
    const b = whole.messages[i]!;
    const difference = headDifference(a, b);
    if (difference !== null) return difference;
    if (a.complete !== b.complete || !sameLines(a.trailers, b.trailers)) return 'the end of a message';
    if (a.body !== b.body && (a.complete || cut.ending !== 'refused')) return 'bodies';
    if (a.headAt !== b.headAt || a.bodyAt !== b.bodyAt) return 'places';
  }
  return null;
}

/** We take more than llhttp. Is it by an exception alone? Then llhttp agrees once it is put right. */
function wider(given: Case, ours: Outcome, theirs: Outcome, mayRepair: boolean, say: string): Verdict {
  const told = theirs.why === '' ? say : `${say}: ${theirs.why}`;
  if (!mayRepair) return disagreement(told);
  const repaired = repair(given, ours);
  if (repaired === null) return disagreement(told);
  const verdict = compare(repaired.given, readByOurs(repaired.given), readByLlhttp(repaired.given), false);
  if (verdict.kind === 'disagreement') return disagreement(`${told}; and without ${repaired.what}: ${verdict.say}`);
  return { kind: 'wider', say: repaired.what };
}

/** A field that frames or steers a connection; among trailers it does nothing here. */
const CONTROL_FIELD = /^(?:content-length|transfer-encoding|connection|proxy-connection|upgrade):/i;

/** The case with every exception put right in the heads that we took; null where there is none. */
export function repair(given: Case, ours: Outcome): { given: Case; what: string } | null {
  const text = given.bytes.toString('latin1');
  const found = new Set<keyof typeof WIDER>();
  let out = '';
  let at = 0;
  for (const message of ours.messages) {
    if (message.headAt < at) break;
    out += text.slice(at, message.headAt);
    at = message.bodyAt;
    const [start, ...lines] = text.slice(message.headAt, message.bodyAt).split('\r\n');
    let first = start!;
    if (given.side === 'request' && !KNOWN_METHODS.has(message.method)) {
      found.add('an unknown method');
      first = `POST${first.slice(first.indexOf(' '))}`;
    }
    const length = message.fields.find(
      (_, i) => i % 2 === 1 && message.fields[i - 1]!.toLowerCase() === 'content-length',
    );
    let seen = false;
    const kept: string[] = [];
    for (const line of lines) {
      const colon = line.indexOf(':');
      let name = line.slice(0, Math.max(0, colon));
      let fixed = line;
      if (given.side === 'response' && /[ \t]$/.test(name)) {
        found.add('a space before the colon');
        name = name.replace(/[ \t]+$/, '');
        fixed = name + line.slice(colon);
      }
      if (name.toLowerCase() === 'content-length') {
        if (seen || line.slice(colon).includes(',')) found.add('the same Content-Length again');
        if (seen) continue;
        seen = true;
        if (line.includes(',')) fixed = `${name}: ${length!.split(',')[0]!.trim()}`;
      }
      kept.push(fixed);
    }
    out += [first, ...kept].join('\r\n');
    if (message.trailers.length > 0) {
      const body = text.slice(at, message.end - 4).split('\r\n');
      at = message.end;
      const trailers = body.splice(-message.trailers.length / 2).map((line: string) => {
        const fixed = given.side === 'response' ? line.replace(/^([^ \t:]+)[ \t]+:/, '$1:') : line;
        if (fixed !== line) found.add('a space before the colon');
        if (!CONTROL_FIELD.test(fixed)) return fixed;
        found.add('a control field in the trailers');
        return 'X: y';
      });
      out += `${[...body, ...trailers].join('\r\n')}\r\n\r\n`;
    }
  }
  out += text.slice(at);
  if (found.size === 0) return null;
  return { given: { ...given, cuts: [], bytes: Buffer.from(out, 'latin1') }, what: [...found].sort().join(', ') };
}
