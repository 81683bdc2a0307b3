// Every way an exchange can fail: its status, the side it speaks of, and the sentence a person reads.
// Kinds are Proxy-Status error types (RFC 9209 §2.3) wherever there is one; ours begin where the RFC ends.
import { type Endpoint, formatEndpoint } from './endpoint.ts';
import type { Sign, Verdict } from './exchange.ts';
import type { Milliseconds } from './units.ts';

/** What a sentence may speak of. Endpoints have no place for a password. */
export interface FaultFacts {
  /** The endpoint that failed: a hop's, or the target's. */
  readonly at: string;
  /** The hop by its name in the file; absent when it was the target itself. */
  readonly hop?: string | undefined;
  readonly detail?: string | undefined;
}

interface FaultRow {
  /** Who is to blame: a place further up, this companion or its rules, or the browser. */
  readonly side: 'upstream' | 'here' | 'downstream';
  /** RFC 9209's recommended status; null where nobody is left to read one. */
  readonly status: number | null;
  /** The error type in Proxy-Status where the kind itself is not one of the RFC's. */
  readonly proxyStatus?: string;
  /** What such a failure looks like to whoever remembers it. */
  readonly sign?: Sign;
  readonly say: (f: FaultFacts) => string;
}

const atHop = (f: FaultFacts) => (f.hop ? `The hop "${f.hop}" (${f.at})` : f.at);
const because = (f: FaultFacts) => (f.detail ? ` (${f.detail})` : '');

export const FAULTS = {
  dns_timeout: {
    side: 'upstream',
    status: 504,
    sign: 'timeout',
    say: f => `No answer came in time when looking up ${f.at}${because(f)}. Is the network up?`,
  },
  dns_error: {
    side: 'upstream',
    status: 502,
    sign: 'unreachable',
    say: f =>
      `The name ${f.at} could not be found${because(f)}. Is it spelled right${f.detail ? ', and does the DNS work' : ''}?`,
  },
  destination_not_found: {
    side: 'upstream',
    status: 500,
    sign: 'unreachable',
    say: f => `${atHop(f)} does not know this destination.`,
  },
  destination_unavailable: {
    side: 'upstream',
    status: 503,
    sign: 'unreachable',
    say: f => `${atHop(f)} cannot be used at the moment${because(f)}. Try again.`,
  },
  destination_ip_prohibited: {
    side: 'here',
    status: 502,
    say: f =>
      `${f.at} leads to an address in this machine or its network${because(f)}, and those are closed to steered sites. Add its range to guard.allow to open it.`,
  },
  destination_ip_unroutable: {
    side: 'upstream',
    status: 502,
    sign: 'unreachable',
    say: f => `There is no way from here to ${atHop(f)}${because(f)}. Is the network up?`,
  },
  connection_refused: {
    side: 'upstream',
    status: 502,
    sign: 'unreachable',
    say: f => `${atHop(f)} refused the connection${because(f)}. Is it running?`,
  },
  connection_terminated: {
    side: 'upstream',
    status: 502,
    sign: 'reset',
    say: f => `${atHop(f)} closed the connection before it had answered${because(f)}.`,
  },
  connection_timeout: {
    side: 'upstream',
    status: 504,
    sign: 'timeout',
    say: f => `${atHop(f)} did not answer in time${because(f)}. Is it running and reachable?`,
  },
  connection_read_timeout: {
    side: 'upstream',
    status: 504,
    sign: 'timeout',
    say: f => `${atHop(f)} stopped sending${because(f)}.`,
  },
  connection_write_timeout: {
    side: 'upstream',
    status: 504,
    sign: 'timeout',
    say: f => `${atHop(f)} stopped taking data${because(f)}.`,
  },
  connection_limit_reached: {
    side: 'here',
    status: 503,
    say: f => `Too many connections are open${because(f)}. Try again in a moment.`,
  },
  tls_protocol_error: {
    side: 'upstream',
    status: 502,
    sign: 'tls',
    say: f => `No TLS connection to ${atHop(f)} could be made${because(f)}.`,
  },
  tls_certificate_error: {
    side: 'upstream',
    status: 502,
    sign: 'tls',
    say: f => `The certificate of ${atHop(f)} is not valid${because(f)}.`,
  },
  tls_alert_received: {
    side: 'upstream',
    status: 502,
    sign: 'tls',
    say: f => `${atHop(f)} ended the TLS handshake${because(f)}.`,
  },
  http_request_error: {
    side: 'downstream',
    status: 400,
    say: f => `The request was malformed and was not sent on${because(f)}.`,
  },
  http_request_denied: {
    side: 'here',
    status: 403,
    say: f => `Access to ${f.at} is blocked by your rules${because(f)}.`,
  },
  http_response_incomplete: {
    side: 'upstream',
    status: 502,
    sign: 'reset',
    say: f => `${atHop(f)} broke off in the middle of its answer.`,
  },
  http_response_header_section_size: {
    side: 'upstream',
    status: 502,
    say: f => `The answer of ${atHop(f)} has a larger head than is allowed.`,
  },
  http_response_transfer_coding: {
    side: 'upstream',
    status: 502,
    say: f => `The answer of ${atHop(f)} uses an unknown transfer coding.`,
  },
  http_response_timeout: {
    side: 'upstream',
    status: 504,
    sign: 'timeout',
    say: f => `${atHop(f)} took the request but did not answer in time.`,
  },
  http_upgrade_failed: {
    side: 'upstream',
    status: 502,
    say: f => `${atHop(f)} did not switch protocols as asked${because(f)}.`,
  },
  http_protocol_error: {
    side: 'upstream',
    status: 502,
    say: f => `The answer of ${atHop(f)} is not valid HTTP${because(f)}.`,
  },
  proxy_internal_error: {
    side: 'here',
    status: 500,
    say: f => `Detour failed${because(f)}. This is a bug; the log has the details.`,
  },
  proxy_configuration_error: {
    side: 'here',
    status: 500,
    say: f => `The configuration cannot serve this request${because(f)}.`,
  },
  proxy_loop_detected: {
    side: 'here',
    status: 502,
    say: f => `The request came back to Detour itself${because(f)}: a hop or name leads to its own port.`,
  },
  // A refusal: a hop said no by policy. Its route may survive it.
  hop_refused: {
    side: 'upstream',
    status: 502,
    proxyStatus: 'http_request_denied',
    sign: 'policy',
    say: f =>
      f.hop === undefined
        ? `Something on the way to ${f.at} answered in its place${because(f)}.`
        : `${atHop(f)} refused to carry this request${because(f)}.`,
  },
  hop_authentication_failed: {
    side: 'upstream',
    status: 502,
    proxyStatus: 'proxy_configuration_error',
    sign: 'auth',
    say: f => `${atHop(f)} did not accept the user name and password${because(f)}. Check them in the hops section.`,
  },
  // An ssh hop whose host key is not the pinned one: nothing of ours was shown to it.
  hop_not_trusted: {
    side: 'upstream',
    status: 502,
    sign: 'tls',
    proxyStatus: 'proxy_configuration_error',
    say: f => `${atHop(f)} did not prove to be the server that is meant${because(f)}.`,
  },
  // A key file, an agent or a file of host keys that cannot be used as it is.
  hop_login_unusable: {
    side: 'upstream',
    status: 502,
    sign: 'auth',
    proxyStatus: 'proxy_configuration_error',
    say: f => `There is no way to log in at ${f.hop ? `the hop "${f.hop}" (${f.at})` : f.at}${because(f)}.`,
  },
  // A hop that works, and says that the target (or the next hop) does not.
  hop_could_not_reach: {
    side: 'upstream',
    status: 502,
    proxyStatus: 'destination_unavailable',
    sign: 'unreachable',
    say: f => `${atHop(f)} could not reach the destination${because(f)}.`,
  },
  hop_protocol_error: {
    side: 'upstream',
    status: 502,
    proxyStatus: 'http_protocol_error',
    say: f => `${atHop(f)} does not speak as its kind should${because(f)}. Is its kind right in the hops section?`,
  },
  target_too_long: {
    side: 'downstream',
    status: 414,
    proxyStatus: 'http_request_error',
    say: () => 'The address of the request is too long.',
  },
  head_too_large: {
    side: 'downstream',
    status: 431,
    proxyStatus: 'http_request_error',
    say: () => 'The head of the request is larger than is allowed.',
  },
  not_implemented: {
    side: 'downstream',
    status: 501,
    proxyStatus: 'http_request_error',
    say: f => `Detour does not do this${because(f)}.`,
  },
  http_version_not_supported: {
    side: 'downstream',
    status: 505,
    proxyStatus: 'http_request_error',
    say: () => 'The request uses a version of HTTP that Detour does not speak.',
  },
  expectation_failed: {
    side: 'downstream',
    status: 417,
    proxyStatus: 'http_request_error',
    say: f => `The request expects something Detour does not know${because(f)}.`,
  },
  request_timeout: {
    side: 'downstream',
    status: 408,
    proxyStatus: 'http_request_error',
    say: () => 'The request did not arrive in time.',
  },
  // The entrance of this proxy itself; a hop's is hop_authentication_failed.
  proxy_authentication_required: {
    side: 'here',
    status: 407,
    proxyStatus: 'http_request_denied',
    say: () => 'This proxy asks for a user name and a password: those of guard.users in its file.',
  },
  too_many_logins: {
    side: 'here',
    status: 429,
    proxyStatus: 'http_request_denied',
    say: () => 'Too many wrong passwords have come from this address. Try again in a minute.',
  },
  only_if_cached: {
    side: 'here',
    status: 504,
    proxyStatus: 'http_request_denied',
    say: f => `${f.at} was asked for from the cache only, and is not in it.`,
  },
  not_validated: {
    side: 'here',
    status: 504,
    proxyStatus: 'destination_unavailable',
    say: f =>
      `What is stored of ${f.at} must be asked for before it is used, and that failed. ${f.detail ?? ''}`.trim(),
  },
  downstream_gone: { side: 'downstream', status: null, say: () => 'The browser closed the connection first.' },
} satisfies Record<string, FaultRow>;

export type FaultKind = keyof typeof FAULTS;

export interface FaultOptions {
  /** The hop's name when a hop is to blame. */
  hop?: string | undefined;
  /** The endpoint that failed. */
  target?: Endpoint | undefined;
  /** A short, secret-free addition: "reply 2: not allowed by ruleset". */
  detail?: string | undefined;
  /** The status a hop answered with (RFC 9209 §2.1.4 received-status). */
  receivedStatus?: number | undefined;
  /** Who said so, where that has been judged; by itself it is the hop where the kind is a hop's. */
  verdict?: Verdict | undefined;
  /** Absent: what the kind looks like. */
  sign?: Sign | undefined;
  /** How long a hop asks to be left alone (Retry-After). */
  retryAfter?: Milliseconds | undefined;
  cause?: unknown;
}

/** A failed step. Thrown where the fact is known, caught once in companion/proxy.ts. */
export class Fault extends Error {
  readonly kind: FaultKind;
  readonly hop: string | undefined;
  readonly target: Endpoint | undefined;
  readonly detail: string | undefined;
  readonly receivedStatus: number | undefined;
  readonly verdict: Verdict | undefined;
  readonly sign: Sign | undefined;
  readonly retryAfter: Milliseconds | undefined;

  constructor(kind: FaultKind, options: FaultOptions = {}) {
    super(sentenceOf(kind, options), options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'Fault';
    this.kind = kind;
    this.hop = options.hop;
    this.target = options.target;
    this.detail = options.detail;
    this.receivedStatus = options.receivedStatus;
    this.verdict = options.verdict ?? (kind.startsWith('hop_') ? 'proxy' : undefined);
    this.sign = options.sign ?? (kind === 'hop_refused' ? signOfRefusal(options.receivedStatus) : this.row.sign);
    this.retryAfter = options.retryAfter;
  }

  get row(): FaultRow {
    return FAULTS[this.kind];
  }

  /** The Proxy-Status error token (RFC 9209 §2.1.1). */
  get proxyStatusError(): string {
    return this.row.proxyStatus ?? this.kind;
  }
}

/** A no with this status (RFC 6585 §4, §6). */
function signOfRefusal(status: number | undefined): Sign {
  if (status === 429) return 'rate';
  return status === 511 || (status !== undefined && status >= 300 && status < 400) ? 'portal' : 'policy';
}

/** The sentence for a person: what happened, at which hop, what to do. */
export function sentenceOf(kind: FaultKind, options: FaultOptions): string {
  const row: FaultRow = FAULTS[kind];
  return row.say({
    at: options.target ? formatEndpoint(options.target) : 'the destination',
    hop: options.hop,
    detail: options.detail,
  });
}

/** Why work was called off: the fault that the caller gave as the reason of its signal, else that the browser left. */
export function calledOff(reason: unknown): Fault {
  return reason instanceof Fault ? reason : new Fault('downstream_gone', { cause: reason });
}
