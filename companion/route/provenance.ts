// Who said it: a proxy on the way, or the origin? Asked of answers on plain http, where both come by the same way. Evidence in the order of its weight.
// An origin can fake every sign read here, so "a proxy" leads to another try and to nothing else; and what must not be sent twice is not sent
// again on a sign that can have come through the hop.
import type { OwnSignature } from '../../shared/config/signatures.ts';
import type { Sign, Verdict } from '../../shared/exchange.ts';
import type { Milliseconds } from '../../shared/units.ts';
import type { Fields } from '../message/headers.ts';
import type { ResponseHead } from '../message/message.ts';
import { readRetryAfter } from '../message/retry-after.ts';
import { parseList, Token } from '../message/structured-fields.ts';
import type { NamedHop } from '../rooms.ts';
import { fits, leadsToPortal, ownSignature, type Signature, SIGNATURES } from './signatures.ts';

/** What was found out about an answer. */
export interface Said {
  readonly who: Verdict;
  readonly sign: Sign;
  /** The sign, in short and free of secrets: `403, squid: ERR_ACCESS_DENIED 0`. */
  readonly evidence: string;
  /** It would not, and it had not sent the request on when it said so. */
  readonly unprocessed: boolean;
  readonly retryAfter?: Milliseconds | undefined;
}

/** Where an answer came from. */
export interface Whence {
  /** The hop that was asked in absolute-form; null = the answer came through a tunnel, or from a leg of our own. */
  readonly hop: NamedHop | null;
  /** What was asked for. */
  readonly host: string;
}

export interface Judge {
  /** Who gave this answer; null = the origin, as far as anyone can tell. 'page' = the beginning of its body would tell more. */
  ofHead(head: ResponseHead, whence: Whence): Said | 'page' | null;
  /** The same with the beginning of the body, as latin1. */
  ofPage(head: ResponseHead, whence: Whence, page: string): Said | null;
  /** Learns how a hop forwards from an answer that is no refusal. */
  learn(head: ResponseHead, hop: NamedHop): void;
}

/** Hops of which it is remembered how they forward. */
const MAX_HOPS = 1_000;

/** A no with one of these may be a proxy's; any other would be the same everywhere, or is the origin's business. */
const NOES: ReadonlyMap<number, Sign> = new Map([
  [403, 'policy'],
  [407, 'auth'],
  [421, 'policy'],
  [429, 'rate'],
  [451, 'policy'],
  [501, 'policy'],
  [502, 'unreachable'],
  [503, 'unreachable'],
  [504, 'timeout'],
  [511, 'portal'],
]);

/** What another way would say as well: no refusal, whoever says it. */
const SAME_EVERYWHERE: ReadonlySet<number> = new Set([400, 404, 410, 413, 414, 431]);

/** Whether a status may be a proxy's no. */
export function isNo(status: number): boolean {
  return NOES.has(status);
}

/** What a proxy's own error (RFC 9209 §2.3) means for another way. Errors of the origin's answer (http_*) are not among them. */
const ERRORS: ReadonlyMap<string, Sign> = new Map([
  ['http_request_denied', 'policy'],
  ['destination_ip_prohibited', 'policy'],
  ['proxy_loop_detected', 'policy'],
  ['proxy_configuration_error', 'policy'],
  ['proxy_internal_error', 'policy'],
  ['proxy_internal_response', 'policy'],
  ['connection_limit_reached', 'rate'],
  ['dns_timeout', 'timeout'],
  ['dns_error', 'unreachable'],
  ['destination_not_found', 'unreachable'],
  ['destination_unavailable', 'unreachable'],
  ['destination_ip_unroutable', 'unreachable'],
  ['connection_refused', 'unreachable'],
  ['connection_terminated', 'reset'],
  ['connection_timeout', 'timeout'],
  ['connection_read_timeout', 'timeout'],
  ['connection_write_timeout', 'timeout'],
  ['tls_protocol_error', 'tls'],
  ['tls_certificate_error', 'tls'],
  ['tls_alert_received', 'tls'],
]);

/** Fields that origins (and what stands before them) put on their answers, and proxies on their own pages do not. */
const ORIGINS = ['set-cookie', 'strict-transport-security', 'etag', 'cf-ray', 'x-amz-cf-id', 'x-amz-request-id'];

/** Of each hop whether it left something without a Via that it had forwarded, against RFC 9110 §7.6.3: then the lack of one proves nothing. */
export type HopHabits = Map<string, boolean>;

export function makeJudge(rows: readonly OwnSignature[] = [], forwardsBare: HopHabits = new Map()): Judge {
  const own = rows.map(ownSignature);
  const ownStatuses = new Set(rows.flatMap(row => row.status));

  function judge(head: ResponseHead, { hop, host }: Whence, page: string | null): Said | 'page' | null {
    const { status, fields } = head;
    const byStatus = NOES.get(status);
    const isOwn = ownStatuses.has(status);
    if (status < 300 && !isOwn) return null;
    const isForwarded = hop !== null && wasForwarded(fields);
    const said = (who: Verdict, sign: Sign, evidence: string, isProof = true): Said => ({
      who,
      sign,
      evidence: `${status}, ${evidence}`,
      unprocessed:
        isProof &&
        hop !== null &&
        (sign === 'policy' || sign === 'auth' || sign === 'rate') &&
        !isForwarded &&
        forwardsBare.get(hop.name) !== true,
      retryAfter: sign === 'rate' || status === 503 ? readRetryAfter(fields.get('retry-after')) : undefined,
    });
    let wantsPage = false;
    const inTable = (table: readonly Signature[], isBuiltIn: boolean): Said | null | undefined => {
      for (const row of table) {
        if (isBuiltIn && row.status === undefined && byStatus === undefined) continue;
        if (hop === null && row.anywhere !== true) continue;
        const fit = fits(row, head, isForwarded, page);
        if (fit === 'page') wantsPage = true;
        else if (fit) {
          if (row.who === 'origin') return null;
          const text = row.field === undefined ? '' : `: ${quoted(fields.get(row.field) ?? '')}`;
          // A page can be anybody's, and what its own product would not have written behind a forwarded answer may be the origin's.
          return said('proxy', row.sign ?? byStatus ?? 'policy', `${row.name}${text}`, row.page === undefined);
        }
      }
      return undefined;
    };

    if (isOwn) {
      const found = inTable(own, false);
      if (found !== undefined) return found;
    }
    if (status >= 300 && status < 400) {
      const location = fields.get('location');
      if (location !== undefined && leadsToPortal(host, location))
        return said('proxy', 'portal', `to ${quoted(location.replace(/[?#].*$/, ''))}`, false);
    } else if (status === 511) return said('proxy', 'portal', 'it wants a login', false);
    else if (hop !== null && status >= 400) {
      if (status === 407) return said('proxy', 'auth', quoted(fields.get('proxy-authenticate') ?? 'no password'));
      const nearest = nearestProxyStatus(fields);
      if (nearest === 'relayed') return null;
      if (nearest !== null) {
        const sign = ERRORS.get(nearest) ?? (status === 403 ? 'policy' : undefined);
        // Too often, rather than never: it says how long to leave it alone.
        if (sign !== undefined && !SAME_EVERYWHERE.has(status))
          return said('proxy', status === 429 ? 'rate' : sign, nearest);
      }
      // Squid says itself whether it looked for the answer anywhere: an ACL's no that it did look for is from further on.
      const squid = fields.get('x-squid-error');
      if (squid !== undefined && isForwarded && saysLookedUp(fields) && /denied/i.test(squid))
        return said('unknown', byStatus ?? 'policy', 'squid had it from further on', false);
    }
    const found = inTable(SIGNATURES, true);
    if (found !== undefined) return found;
    if (byStatus === undefined) return wantsPage && page === null && isReadable(fields) ? 'page' : null;
    if (isOrigins(fields, hop)) return null;
    if (page === null && wantsPage && isReadable(fields)) return 'page';
    return said('unknown', byStatus, 'nobody says who', false);
  }

  return {
    ofHead: (head, whence) => judge(head, whence, null),
    ofPage: (head, whence, page) => judge(head, whence, page.toLowerCase()) as Said | null,
    learn({ status, fields }, hop) {
      if (status >= 400 || forwardsBare.get(hop.name) === true) return;
      const isBare = !fields.has('via');
      if (forwardsBare.get(hop.name) === isBare || (forwardsBare.size >= MAX_HOPS && !forwardsBare.has(hop.name)))
        return;
      forwardsBare.set(hop.name, isBare);
    },
  };
}

/** Whether the hop itself says that it had this answer from further on: it stands in Via, or it looked for it. Squid puts a Via on its own pages too, but says what it looked for. */
export function wasForwarded(fields: Fields): boolean {
  return fields.has('via') && !saysNotForwarded(fields);
}

/**
 * Whether the nearest hop is a squid and says that it looked nowhere: it is the last in Via, and the last to tell of its cache. Squid 3–5:
 * `X-Cache-Lookup: NONE from …`; squid 6: its Cache-Status has neither `hit` nor `fwd` (RFC 9211 §2).
 */
function saysNotForwarded(fields: Fields): boolean {
  const via = fields.all('via').at(-1);
  const squid =
    via === undefined || via.length > MAX_FIELD ? null : /(?:^|,)[ \t]*[\d.]+ ([^ \t,]+) \(squid[^,]*$/i.exec(via);
  if (squid === null) return false;
  const name = squid[1]!;
  const lookup = fields.all('x-cache-lookup').at(-1);
  if (lookup !== undefined) {
    const by = /(?:^|,)[ \t]*NONE from ([^ \t,]+)$/.exec(lookup)?.[1];
    return by !== undefined && (by === name || by.startsWith(`${name}:`));
  }
  const status = fields.get('cache-status');
  if (status === undefined || status.length > MAX_FIELD) return false;
  const nearest = parseList(status)?.at(-1);
  return (
    nearest !== undefined && String(nearest.value) === name && !nearest.params.has('hit') && !nearest.params.has('fwd')
  );
}

/** Whether it says what it found when it looked. */
function saysLookedUp(fields: Fields): boolean {
  return fields.has('x-cache-lookup') || fields.has('cache-status');
}

function isOrigins(fields: Fields, hop: NamedHop | null): boolean {
  for (const name of ORIGINS) if (fields.has(name)) return true;
  if (Number(fields.get('age') ?? 0) > 0) return true;
  // Behind a hop one member is the hop's; a further one is of somebody at the origin's side.
  const via = fields.get('via');
  return via !== undefined && (hop === null || via.includes(','));
}

/** A page that can be read without unpacking it. */
function isReadable(fields: Fields): boolean {
  const type = fields.get('content-type');
  return !fields.has('content-encoding') && (type === undefined || /^\s*text\/(?:html|plain)/i.test(type));
}

/** A longer field is not read. */
const MAX_FIELD = 4_096;

/** The error that the member nearest to us gives of itself; 'relayed' where it passes on what another said; null where it says nothing (RFC 9209 §2.1). */
function nearestProxyStatus(fields: Fields): string | 'relayed' | null {
  const text = fields.get('proxy-status');
  if (text === undefined || text.length > MAX_FIELD) return null;
  const nearest = parseList(text)?.at(-1)?.params;
  if (nearest === undefined) return null;
  if (nearest.has('received-status')) return 'relayed';
  const error = nearest.get('error');
  return error instanceof Token && /^[a-z_]+$/.test(error.name) ? error.name : null;
}

function quoted(text: string): string {
  return text
    .replace(/[^\x20-\x7e]+/g, ' ')
    .trim()
    .slice(0, 80);
}
