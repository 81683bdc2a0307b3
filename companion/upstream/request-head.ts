// Writes the head of the request that goes out: from the parsed model alone, end-to-end fields only, with its own Host and its own framing.
import { formatHost } from '../../shared/endpoint.ts';
import { isHopByHop, nominatedBy } from '../message/hop-by-hop.ts';
import { listHas } from '../message/http1-parser.ts';
import type { Framing, RequestHead } from '../message/message.ts';
import type { NamedHop } from '../rooms.ts';
import { tellsIdentity } from './identity.ts';

/** What the head is written from. */
export interface RequestLine {
  readonly head: RequestHead;
  readonly host: string;
  readonly port: number;
  /** As received; `*` for an OPTIONS of the server itself. */
  readonly path: string;
  /** How the body goes out. */
  readonly framing: Framing;
  /** The protocols that were asked for, when the connection shall change to one. */
  readonly upgrade: string | null;
}

/** The request-target: in absolute-form where it goes to an http hop, else in origin-form (RFC 9112 §3.2). */
export function requestTarget({ host, port, path }: RequestLine, toHop: boolean, authority?: string): string {
  return toHop ? `http://${authority ?? authorityOf(host, port)}${path === '*' ? '' : path}` : path;
}

function authorityOf(host: string, port: number): string {
  return port === 80 ? formatHost(host) : `${formatHost(host)}:${port}`;
}

/**
 * The head as text, latin1, with its request-target. To a hop go its own credentials and the fields of the file for it, which are nominated in Connection:
 * it is not to send them on (RFC 9110 §7.6.1).
 */
export function requestHead(line: RequestLine, hop: NamedHop | null, authorization: string | null = null): string {
  const { head, framing, upgrade } = line;
  const { method } = head;
  const authority = authorityOf(line.host, line.port);
  let text = `${method} ${requestTarget(line, hop !== null, authority)} HTTP/1.1\r\nHost: ${authority}\r\n`;
  const own = hop?.headers === undefined ? null : ownFields(hop.headers);
  const nominated = nominatedBy(head.fields.get('connection'));
  const { flat } = head.fields;
  let acceptsTrailers = false;
  let hasLength = false;
  for (let i = 0; i < flat.length; i += 3) {
    const lower = flat[i + 1]!;
    if (lower === 'host') continue;
    if (lower === 'content-length') hasLength = true;
    else if (lower === 'te') acceptsTrailers ||= listHas(flat[i + 2]!, 'trailers');
    else if (lower === 'expect' && head.version === 10) continue;
    else if (lower === 'max-forwards') text += `Max-Forwards: ${fewer(method, flat[i + 2]!)}\r\n`;
    else if (own?.names.has(lower)) continue;
    else if (!isHopByHop(lower) && !tellsIdentity(lower) && (nominated === null || !nominated.has(lower))) {
      text += `${flat[i]!}: ${flat[i + 2]!}\r\n`;
    }
  }
  if (framing.kind === 'length') text += `Content-Length: ${framing.length}\r\n`;
  else if (framing.kind === 'chunked') text += 'Transfer-Encoding: chunked\r\n';
  else if (hasLength) text += 'Content-Length: 0\r\n';
  if (authorization !== null) text += `Proxy-Authorization: ${authorization}\r\n`;
  if (own !== null) text += own.text;
  if (upgrade !== null) text += `Connection: Upgrade\r\nUpgrade: ${upgrade}\r\n`;
  else if (acceptsTrailers) text += `TE: trailers\r\nConnection: TE${own === null ? '' : `, ${own.nominated}`}\r\n`;
  else if (own !== null) text += `Connection: ${own.nominated}\r\n`;
  return `${text}\r\n`;
}

/** The fields of the file for a hop, ready to be sent. */
interface OwnFields {
  /** In lower case. */
  readonly names: ReadonlySet<string>;
  readonly text: string;
  readonly nominated: string;
}
const madeOwn = new WeakMap<object, OwnFields>();

function ownFields(headers: Readonly<Record<string, string>>): OwnFields | null {
  let made = madeOwn.get(headers);
  if (made === undefined) {
    const names = Object.keys(headers);
    const text = names.map(name => `${name}: ${headers[name]}\r\n`).join('');
    made = { names: new Set(names.map(name => name.toLowerCase())), text, nominated: names.join(', ') };
    madeOwn.set(headers, made);
  }
  return made.text === '' ? null : made;
}

/** RFC 9110 §7.6.2: counted down for TRACE and OPTIONS, left alone for others. */
function fewer(method: string, value: string): string {
  if ((method !== 'TRACE' && method !== 'OPTIONS') || !/^\d{1,9}$/.test(value)) return value;
  return String(Math.max(0, Number(value) - 1));
}
