// Who stands at the control door? Judges the head of a request and nothing else: path, Host, Origin, subprotocols, secret.
// Every no looks the same from outside: the caller sends the bare 400 of any origin-form request.
import { CODE_PREFIX, CONTROL_PATH, SUBPROTOCOL, TOKEN_PREFIX } from '../../shared/control.ts';
import type { RequestHead } from '../message/message.ts';

/** What a head claims, when it could be a client's at all. */
export interface Claimant {
  /** The extension's; null where there was none (the CLI). */
  readonly origin: string | null;
  readonly secret: { readonly kind: 'token' | 'code'; readonly text: string };
  /** The subprotocol to name in the reply: ours where it was offered. */
  readonly protocol: string;
  /** Whether that is a protocol we speak. */
  readonly understood: boolean;
  readonly userAgent: string;
}

/** The names under which the control room may be addressed (a page that rebinds its own name to 127.0.0.1 sends another). */
export function hostsOf(host: string, port: number): ReadonlySet<string> {
  const names = ['127.0.0.1', 'localhost', '[::1]', host.includes(':') ? `[${host}]` : host];
  return new Set([...names.map(name => `${name}:${port}`), ...(port === 80 ? names : [])]);
}

/** Whether the request is addressed to this machine by a name of ours. */
function isAddressedToUs(head: RequestHead, hosts: ReadonlySet<string>): boolean {
  const host = onlyOne(head, 'host');
  return host !== null && hosts.has(host.toLowerCase());
}

/** The unguessable part of the PAC's address, where a request could be for the PAC; else null. */
export function readPacSecret(head: RequestHead, hosts: ReadonlySet<string>): string | null {
  const { target, method } = head;
  if (target.form !== 'origin' || (method !== 'GET' && method !== 'HEAD') || !isAddressedToUs(head, hosts)) return null;
  return /^\/([A-Za-z0-9_-]{22})\/proxy\.pac$/.exec(target.path)?.[1] ?? null;
}

/** Whether the door would look at the request at all; a secret is not judged here. */
export function mayEnter(head: RequestHead, hosts: ReadonlySet<string>): boolean {
  return head.fields.has('upgrade') ? readHandshake(head, hosts) !== null : readPacSecret(head, hosts) !== null;
}

/** Reads the WebSocket handshake (RFC 6455 §4.2.1) of one who may be a client; null for everything else. */
export function readHandshake(head: RequestHead, hosts: ReadonlySet<string>): Claimant | null {
  const { target, fields } = head;
  if (head.method !== 'GET' || target.form !== 'origin' || target.path !== CONTROL_PATH) return null;
  if (head.version !== 11 || head.framing.kind !== 'none' || !isAddressedToUs(head, hosts)) return null;
  if (
    onlyOne(head, 'upgrade')?.toLowerCase() !== 'websocket' ||
    !/(?:^|,)\s*upgrade\s*(?:,|$)/i.test(fields.get('connection') ?? '')
  )
    return null;
  if (
    onlyOne(head, 'sec-websocket-version') !== '13' ||
    !/^[A-Za-z0-9+/]{22}==$/.test(onlyOne(head, 'sec-websocket-key') ?? '')
  )
    return null;
  if (fields.all('origin').length > 1) return null;
  const offered = (fields.get('sec-websocket-protocol') ?? '').split(',').map(one => one.trim());
  if (offered.length < 2 || offered.length > 8 || new Set(offered).size !== offered.length) return null;
  let secret: Claimant['secret'] | null = null;
  const protocols: string[] = [];
  for (const one of offered) {
    if (/^detour\.v\d{1,4}$/.test(one)) {
      protocols.push(one);
      continue;
    }
    const kind = one.startsWith(TOKEN_PREFIX) ? 'token' : one.startsWith(CODE_PREFIX) ? 'code' : null;
    if (kind === null || secret !== null) return null;
    const text = one.slice((kind === 'token' ? TOKEN_PREFIX : CODE_PREFIX).length);
    if (!(kind === 'token' ? /^[A-Za-z0-9_-]{43}$/ : /^\d{6}$/).test(text)) return null;
    secret = { kind, text };
  }
  const understood = protocols.includes(SUBPROTOCOL);
  const protocol = understood ? SUBPROTOCOL : protocols[0];
  if (secret === null || protocol === undefined) return null;
  return {
    origin: fields.get('origin') ?? null,
    secret,
    protocol,
    understood,
    userAgent: fields.get('user-agent') ?? '',
  };
}

function onlyOne(head: RequestHead, lower: string): string | null {
  const values = head.fields.all(lower);
  return values.length === 1 ? values[0]! : null;
}
