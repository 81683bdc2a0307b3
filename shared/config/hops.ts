// One upstream proxy in the file: a line like socks5://user:password@host:1080, or a map.
import * as v from 'valibot';
import { parseEndpoint, parsePort } from '../endpoint.ts';
import { credential, described, host, port, strict, text } from './words.ts';

const HOP_KINDS = ['http', 'socks5'] as const;
export type HopKind = (typeof HOP_KINDS)[number];
const DEFAULT_HOP_PORT: Record<HopKind, number> = { http: 3128, socks5: 1080 };
const isHopKind = (kind: string): kind is HopKind => (HOP_KINDS as readonly string[]).includes(kind);

/** One upstream proxy. The password stays on this machine: never log a Hop. */
export interface Hop {
  readonly kind: HopKind;
  readonly host: string;
  readonly port: number;
  readonly username?: string | undefined;
  readonly password?: string | undefined;
}

const LongHop = strict(
  {
    kind: described(v.picklist(HOP_KINDS, 'is not a kind of hop: http or socks5'), 'How to speak to the proxy.'),
    host: described(host, 'Its name or address.'),
    port: described(port, 'Its port.'),
    username: v.optional(described(credential, 'User name, if it asks for one.')),
    password: v.optional(described(credential, 'Password, if it asks for one.')),
  },
  'is not a hop: write socks5://host:1080, or a map of kind, host and port',
);

const HopUrl = v.pipe(
  text(),
  v.rawTransform<string, Hop>(({ dataset, addIssue, NEVER }) => {
    const parsed = parseHopUrl(dataset.value);
    if (typeof parsed === 'string') {
      addIssue({ message: parsed });
      return NEVER;
    }
    return parsed;
  }),
);

/** A one-line proxy URL, `socks5://user:pass@host:port`, or a sentence that says what is wrong with it (never repeating the password). */
export function parseHopUrl(text: string): Hop | string {
  const match = /^([a-z0-9+.-]+):\/\/(?:([^@]*)@)?([^/@]*)\/?$/i.exec(text.trim());
  if (!match) {
    return text.split('@').length > 2
      ? 'has more than one @: write %40 for an @ in a user name or password'
      : 'is not a proxy URL: write it like socks5://user:password@host:1080';
  }
  const scheme = match[1]!.toLowerCase();
  const kind = scheme === 'socks5h' || scheme === 'socks' ? 'socks5' : scheme;
  if (!isHopKind(kind)) return `"${scheme}" is not a kind of hop: ${HOP_KINDS.join(' or ')}`;
  const where = match[3]!;
  const written = /:\d*$/.test(where) ? where : `${where}:${DEFAULT_HOP_PORT[kind]}`;
  const portText = written.slice(written.lastIndexOf(':') + 1);
  if (portText === '') return 'has no port after the colon';
  if (parsePort(portText) === null) return `"${portText}" is not a port: ports go from 1 to 65535`;
  const at = parseEndpoint(written);
  // What stands here may be a user name and password whose @host was forgotten: it is not repeated.
  if (!at)
    return `has no host:port where one should be: write it like ${kind}://user:password@host:${DEFAULT_HOP_PORT[kind]}`;
  if (match[2] === undefined) return { kind, ...at };
  const colon = match[2].indexOf(':');
  try {
    const username = decodeURIComponent(colon < 0 ? match[2] : match[2].slice(0, colon));
    const password = colon < 0 ? '' : decodeURIComponent(match[2].slice(colon + 1));
    if (!v.is(credential, username) || !v.is(credential, password))
      return 'has a user name or password longer than 255 bytes';
    return { kind, ...at, username, password };
  } catch {
    return 'has a user name or password with a broken % escape';
  }
}

export const HopSchema = v.lazy(input =>
  typeof input === 'string' ? HopUrl : (LongHop as v.GenericSchema<unknown, Hop>),
) as v.GenericSchema<unknown, Hop>;
