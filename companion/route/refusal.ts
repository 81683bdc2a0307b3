// Is this answer the origin's, or a hop's no? Asked only of answers to requests in absolute-form, where both come by the same way.
// An origin can fake every sign read here, so a refusal leads to another try and to nothing else.
import { Fault } from '../../shared/fault.ts';
import type { ResponseHead } from '../message/message.ts';
import { parseList, Token } from '../message/structured-fields.ts';
import type { NamedHop } from '../rooms.ts';

/** Errors by which a proxy says that it would not, rather than could not (RFC 9209 §2.3). */
const POLICY_ERRORS = new Set([
  'http_request_denied',
  'destination_ip_prohibited',
  'proxy_loop_detected',
  'proxy_configuration_error',
  'connection_limit_reached',
  'proxy_internal_error',
  'proxy_internal_response',
]);

/**
 * The fault, where `hop` itself answered a GET or HEAD with a no: 407; 403 with X-Squid-Error; a Proxy-Status whose last member (our hop's) has
 * an error. Null where it is, or may be, the origin's answer, and for methods that must not be sent twice: their answer goes to the browser as it
 * is. One exception: a 407 never does, since the browser would ask the person for a password that is not theirs to give.
 */
export function refusalOf(head: ResponseHead, method: string, hop: NamedHop): Fault | null {
  const { status, fields } = head;
  const canRetry = method === 'GET' || method === 'HEAD';
  const at = { hop: hop.name, target: { host: hop.host, port: hop.port }, receivedStatus: status };
  if (status === 407) {
    return canRetry
      ? new Fault('hop_authentication_failed', { ...at, detail: '407' })
      : new Fault('proxy_configuration_error', {
          ...at,
          detail: `the hop "${hop.name}" did not accept the user name and password`,
        });
  }
  if (!canRetry || status < 400) return null;
  if (status === 403 && fields.has('x-squid-error')) {
    return new Fault('hop_refused', { ...at, detail: `403, ${quoted(fields.all('x-squid-error')[0]!)}` });
  }
  const error = lastHopError(fields.get('proxy-status'));
  if (error !== null && (status === 403 || POLICY_ERRORS.has(error))) {
    return new Fault('hop_refused', { ...at, detail: `${status}, ${error}` });
  }
  return null;
}

function quoted(text: string): string {
  return text
    .replace(/[^\x20-\x7e]+/g, ' ')
    .trim()
    .slice(0, 80);
}

/** The error that the member nearest to us gives of itself; null where it has none or passes on what another said (received-status). */
function lastHopError(proxyStatus: string | undefined): string | null {
  if (proxyStatus === undefined || proxyStatus.length > 4096) return null;
  const nearest = parseList(proxyStatus)?.at(-1)?.params;
  if (nearest === undefined || nearest.has('received-status')) return null;
  const error = nearest.get('error');
  return error instanceof Token && /^[a-z_]+$/.test(error.name) ? error.name : null;
}
