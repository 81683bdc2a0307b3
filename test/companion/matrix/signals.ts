// How hops say no when they are asked for a tunnel, and how tunnels break: the rows that several arms share.
import type { FaultKind } from '../../../shared/fault.ts';
import { answers, breaks, type Signal } from './cells.ts';

export const NOBODY_LISTENS: Signal = {
  name: 'nobody listens',
  stage: 'S0',
  misdeed: null,
  allows: 'unsent',
  outcomes: ['connection_refused'],
  sign: 'unreachable',
};

const unsent = (
  stage: Signal['stage'],
  name: string,
  misdeed: Signal['misdeed'],
  outcome: FaultKind,
  sign?: string,
  couldBeTarget = false,
): Signal => ({ name, stage, misdeed, allows: 'unsent', outcomes: [outcome], sign, couldBeTarget });

/** What an http hop may answer to CONNECT. */
export const CONNECT_ANSWERS: readonly Signal[] = [
  unsent('S0', 'resets when the connection stands', breaks('connect', 'reset'), 'connection_terminated', 'reset'),
  unsent('S1', '407', answers(407, 'Proxy-Authenticate: Basic realm="hop"'), 'hop_authentication_failed', 'auth'),
  ...[403, 405, 451, 501].map(status => unsent('S2', String(status), answers(status), 'hop_refused', 'policy')),
  unsent('S2', '429', answers(429, 'Retry-After: 60'), 'hop_refused', 'rate'),
  unsent('S2', 'closes', breaks('asked', 'close'), 'connection_terminated', 'reset'),
  unsent('S2', 'resets', breaks('asked', 'reset'), 'connection_terminated', 'reset'),
  unsent('S2', 'says nothing', breaks('asked', 'hang'), 'connection_timeout', 'timeout'),
  unsent('S2', 'something that is not HTTP', breaks('asked', Buffer.from('SSH-2.0-no\r\n')), 'hop_protocol_error'),
  ...[502, 503, 504].map(status =>
    unsent('S2′', String(status), answers(status), 'hop_could_not_reach', 'unreachable', true),
  ),
];

/** What an http hop may answer in the target's place, where it was asked for a page. */
export const ABSOLUTE_ANSWERS: readonly Signal[] = [
  {
    name: '407',
    stage: 'S4',
    misdeed: answers(407, 'Proxy-Authenticate: Basic realm="hop"'),
    allows: 'denied',
    outcomes: ['hop_authentication_failed', 'proxy_configuration_error'],
    verdict: 'proxy',
    sign: 'auth',
  },
  {
    name: '403 with X-Squid-Error',
    stage: 'S4',
    misdeed: answers(403, 'Server: squid/6.13', 'X-Squid-Error: ERR_ACCESS_DENIED 0', 'Cache-Control: max-age=600'),
    allows: 'denied',
    outcomes: ['hop_refused'],
    verdict: 'proxy',
    sign: 'policy',
  },
  {
    name: '403 with Proxy-Status: http_request_denied',
    stage: 'S4',
    misdeed: answers(403, 'Proxy-Status: corp; error=http_request_denied'),
    allows: 'denied',
    outcomes: ['hop_refused'],
    verdict: 'proxy',
    sign: 'policy',
  },
  {
    name: '502 with Proxy-Status: destination_ip_prohibited',
    stage: 'S4',
    misdeed: answers(502, 'Proxy-Status: corp; error=destination_ip_prohibited'),
    allows: 'denied',
    outcomes: ['hop_refused'],
    verdict: 'proxy',
    sign: 'policy',
  },
  {
    name: '429 with Proxy-Status: http_request_denied',
    stage: 'S4',
    misdeed: answers(429, 'Retry-After: 60', 'Proxy-Status: corp; error=http_request_denied'),
    allows: 'denied',
    outcomes: ['hop_refused'],
    verdict: 'proxy',
    sign: 'rate',
  },
  {
    name: '451 with Proxy-Status: http_request_denied',
    stage: 'S4',
    misdeed: answers(451, 'Proxy-Status: corp; error=http_request_denied'),
    allows: 'denied',
    outcomes: ['hop_refused'],
    verdict: 'proxy',
    sign: 'policy',
  },
  {
    name: '403 as the person has described it',
    stage: 'S4',
    misdeed: answers(403, 'X-Corp-Block: denied by corp'),
    allows: 'denied',
    outcomes: ['hop_refused'],
    verdict: 'proxy',
    sign: 'policy',
  },
  {
    name: '502 with Proxy-Status: connection_refused',
    stage: 'S4',
    misdeed: answers(502, 'Proxy-Status: corp; error=connection_refused'),
    allows: 'failed',
    outcomes: ['hop_could_not_reach'],
    verdict: 'proxy',
    sign: 'unreachable',
    couldBeTarget: true,
  },
  {
    name: '503 with X-Squid-Error: ERR_CONNECT_FAIL',
    stage: 'S4',
    misdeed: answers(503, 'Server: squid/6.13', 'X-Squid-Error: ERR_CONNECT_FAIL 111'),
    allows: 'failed',
    outcomes: ['hop_could_not_reach'],
    verdict: 'proxy',
    sign: 'unreachable',
    couldBeTarget: true,
  },
  {
    name: '504 with Proxy-Status: connection_timeout',
    stage: 'S4',
    misdeed: answers(504, 'Proxy-Status: corp; error=connection_timeout'),
    allows: 'failed',
    outcomes: ['hop_could_not_reach'],
    verdict: 'proxy',
    sign: 'timeout',
    couldBeTarget: true,
  },
  {
    name: '302 to a portal',
    stage: 'S4',
    misdeed: answers(302, 'Location: http://10.0.0.1/login?for=everything'),
    allows: 'failed',
    outcomes: ['hop_refused'],
    verdict: 'proxy',
    sign: 'portal',
  },
  {
    name: '511',
    stage: 'S4',
    misdeed: answers(511),
    allows: 'failed',
    outcomes: ['hop_refused'],
    verdict: 'proxy',
    sign: 'portal',
  },
  {
    name: '200 with a page that the person has described',
    stage: 'S4',
    misdeed: answers(200, 'Content-Type: text/html', 'Via: 1.1 filter'),
    byPage: true,
    allows: 'failed',
    outcomes: ['hop_refused'],
    verdict: 'proxy',
    sign: 'policy',
  },
  {
    name: 'closes without an answer',
    stage: 'S4',
    misdeed: breaks('asked', 'close'),
    allows: 'silence',
    outcomes: ['connection_terminated'],
    sign: 'reset',
  },
  {
    name: 'resets',
    stage: 'S4',
    misdeed: breaks('asked', 'reset'),
    allows: 'silence',
    outcomes: ['connection_terminated'],
    sign: 'reset',
  },
  {
    name: 'says nothing',
    stage: 'S4',
    misdeed: breaks('asked', 'hang'),
    allows: 'silence',
    outcomes: ['http_response_timeout', 'connection_read_timeout'],
    sign: 'timeout',
  },
  ...(
    [
      ['403 without a sign', 403],
      ['403 with what origins say', 403, 'Set-Cookie: a=b', 'ETag: "1"', 'Strict-Transport-Security: max-age=1'],
      ['403 that the hop passes on', 403, 'Proxy-Status: corp; received-status=403'],
      ['404 with Proxy-Status: http_request_denied', 404, 'Proxy-Status: corp; error=http_request_denied'],
      ['429 without a sign', 429, 'Retry-After: 60'],
      ['502 without a sign', 502],
      ['503 without a sign', 503, 'Retry-After: 1'],
      ['302 to the same host', 302, 'Location: /other'],
    ] as const
  ).map(([name, status, ...fields]): Signal => ({
    name,
    stage: 'S4',
    misdeed: answers(status, ...fields),
    allows: 'relayed',
    outcomes: [],
  })),
];

const reply = (code: number) => breaks('asked', Buffer.from([5, code, 0, 1, 0, 0, 0, 0, 0, 0]));

/** What a socks5 hop may answer. */
export const SOCKS5_ANSWERS: readonly Signal[] = [
  unsent('S0', 'resets when the connection stands', breaks('connect', 'reset'), 'connection_terminated', 'reset'),
  unsent('S1', 'no method is right', breaks('greeting', Buffer.from([5, 0xff])), 'hop_authentication_failed', 'auth'),
  unsent('S1', 'closes at the greeting', breaks('greeting', 'close'), 'connection_terminated', 'reset'),
  unsent('S1', 'says nothing to the greeting', breaks('greeting', 'hang'), 'connection_timeout', 'timeout'),
  unsent('S1', 'HTTP', breaks('greeting', Buffer.from('HTTP/1.1 400 Bad\r\n\r\n')), 'hop_protocol_error'),
  unsent('S1', 'the login is wrong', breaks('login', Buffer.from([1, 1])), 'hop_authentication_failed', 'auth'),
  unsent('S2', 'reply 2: by its rules', reply(2), 'hop_refused', 'policy'),
  unsent('S2', 'closes', breaks('asked', 'close'), 'connection_terminated', 'reset'),
  unsent('S2', 'resets', breaks('asked', 'reset'), 'connection_terminated', 'reset'),
  ...[1, 3, 4, 5, 6].map(code =>
    unsent('S2′', `reply ${code}`, reply(code), 'hop_could_not_reach', 'unreachable', true),
  ),
];

/** The tunnel stands, takes the client's first bytes, and then: */
export const BROKEN_FLIGHTS: readonly Signal[] = (['close', 'reset', 'hang'] as const).map(does => ({
  name: `${does} once the first bytes are there`,
  stage: 'S3',
  misdeed: breaks('flight', does),
  allows: 'flight',
  outcomes:
    does === 'hang'
      ? ['connection_timeout', 'connection_read_timeout', 'http_response_timeout']
      : ['connection_terminated'],
  sign: does === 'hang' ? 'timeout' : 'reset',
}));

/** The answer has begun. */
export const CUT_BODIES: readonly Signal[] = (['close', 'reset', 'hang'] as const).map(does => ({
  name: `${does} in the body`,
  stage: 'S5',
  misdeed: { at: 'body', does, afterBytes: 30_000 },
  allows: 'cut',
  outcomes: [],
}));
