// One upstream proxy in the file: a line like socks5://user:password@host:1080, or a map.
import * as v from 'valibot';
import { isAddress, parseEndpoint, parsePort } from '../endpoint.ts';
import { count, credential, described, file, host, isMap, mapOf, port, strict, text } from './words.ts';

const HOP_KINDS = ['http', 'https', 'socks4a', 'socks5', 'ssh', 'tor'] as const;
export type HopKind = (typeof HOP_KINDS)[number];
const KINDS_IN_WORDS = 'http, https, socks4a, socks5, ssh or tor';
const DEFAULT_HOP_PORT: Record<HopKind, number> = {
  http: 3128,
  https: 443,
  socks4a: 1080,
  socks5: 1080,
  ssh: 22,
  tor: 9050,
};
/** The schemes of one-line URLs, as people write them. */
const SCHEMES: Readonly<Record<string, HopKind>> = {
  http: 'http',
  https: 'https',
  socks4: 'socks4a',
  socks4a: 'socks4a',
  socks: 'socks5',
  socks5: 'socks5',
  socks5h: 'socks5',
  ssh: 'ssh',
  tor: 'tor',
};
const TOR_HOST = '127.0.0.1';

/** A secret in the file: the text itself, or where it is kept. */
export type Secret =
  | string
  | { readonly env: string }
  | { readonly file: string }
  | { readonly command: readonly string[] };

/** How TLS to a hop of kind https is made; always verified. */
export interface HopTls {
  /** The only authorities that may vouch for it (PEM); absent = the usual ones. In the file a path, as are `cert` and `key`. */
  readonly ca?: string | undefined;
  readonly cert?: string | undefined;
  readonly key?: string | undefined;
  /** The name that is asked for, and must stand in the certificate; absent = the hop's host. */
  readonly servername?: string | undefined;
  /** `sha256/…`: the hash of the public key that it must have besides. */
  readonly pin?: string | undefined;
}

/** How a hop of kind ssh is logged in to, and known again. */
export interface HopSsh<S = string> {
  /** Private key (OpenSSH or PEM). In the file a path, as is `knownHosts`. */
  readonly key?: string | undefined;
  readonly passphrase?: S | undefined;
  /** Ask the agent of SSH_AUTH_SOCK. */
  readonly agent?: boolean | undefined;
  readonly knownHosts?: string | undefined;
  /** `SHA256:…`, as ssh-keygen -l prints it. */
  readonly hostKey?: string | undefined;
}

interface AnyHop {
  readonly kind: HopKind;
  readonly host: string;
  readonly port: number;
  readonly username?: string | undefined;
  /** http, https; absent = auto. */
  readonly auth?: 'basic' | 'digest' | 'auto' | undefined;
  /** http, https, for http targets; absent = absolute. */
  readonly form?: 'absolute' | 'connect' | undefined;
  /** http, https: fields for this hop alone. */
  readonly headers?: Readonly<Record<string, string>> | undefined;
  /** The local address of the connection to it, where it is the first of a chain. */
  readonly bind?: string | undefined;
  readonly tls?: HopTls | undefined;
  /** 0 to 9; absent = 1, of tor 3 (privacyOf in routes.ts). */
  readonly privacy?: number | undefined;
}

/** One upstream proxy as it stands in the file: files by their paths, secrets by where they are kept. */
export interface WrittenHop extends AnyHop {
  readonly password?: Secret | undefined;
  readonly ssh?: HopSsh<Secret> | undefined;
}

/** The same with the text of its files and its secrets, as `dial` takes it. They stay on this machine: never log a Hop. */
export interface Hop extends AnyHop {
  readonly password?: string | undefined;
  readonly ssh?: HopSsh | undefined;
}

/** Whether requests for http targets go to it in absolute-form, rather than through a tunnel. */
export function takesAbsolute(hop: Pick<WrittenHop, 'kind' | 'form'>): boolean {
  return (hop.kind === 'http' || hop.kind === 'https') && hop.form !== 'connect';
}

const secret = v.lazy(input => (isMap(input) ? SecretPlace : credential)) as v.GenericSchema<unknown, Secret>;
const SecretPlace = v.pipe(
  strict({
    env: v.optional(
      described(
        v.pipe(text(), v.regex(/^[A-Za-z_][A-Za-z0-9_]{0,99}$/, 'is not the name of an environment variable')),
        'The environment variable that holds it.',
      ),
    ),
    file: v.optional(described(file, 'The file whose first line it is, relative to this one.')),
    command: v.optional(
      described(
        v.pipe(
          v.array(v.pipe(text(), v.maxLength(4096, 'is too long')), 'is not a list: write [program, argument]'),
          v.minLength(1, 'names no program'),
          v.maxLength(32, 'has more than 32 words'),
          v.check(([program]) => program !== '', 'names no program'),
        ),
        'The program, with its arguments, that prints it in its first line. No shell reads this.',
      ),
    ),
  }),
  v.check(
    place => Object.values(place).filter(value => value !== undefined).length === 1,
    'is one of { env: NAME }, { file: FILE } and { command: [program, argument] }',
  ),
);

/** Fields that say where a message ends or goes, who asks, or what for: a hop has no say in them. */
const NOT_FOR_HOPS = new Set(
  (
    'host connection proxy-connection keep-alive te trailer transfer-encoding upgrade content-length content-type content-encoding ' +
    'expect via max-forwards http2-settings proxy-authorization proxy-authenticate proxy-authentication-info authorization cookie ' +
    'cookie2 range if-range if-match if-none-match if-modified-since if-unmodified-since cache-control pragma date age forwarded'
  ).split(' '),
);
const fieldName = v.pipe(
  text(),
  v.regex(/^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,80}$/, 'is not the name of a field'),
  v.check(written => !NOT_FOR_HOPS.has(written.toLowerCase()), 'is not a field that can be set for a hop'),
);
const fieldValue = v.pipe(
  text(),
  v.regex(/^(?:[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?)?$/, 'is not the value of a field: printable ASCII, one line'),
  v.maxLength(1024, 'is longer than 1024 characters'),
);
const headers = v.pipe(
  mapOf(fieldName, fieldValue, 'fields'),
  v.check(fields => Object.keys(fields).length <= 16, 'has more than 16 fields'),
  v.check(
    fields => new Set(Object.keys(fields).map(key => key.toLowerCase())).size === Object.keys(fields).length,
    'has the same field twice',
  ),
);

const Tls = v.pipe(
  strict({
    ca: v.optional(
      described(file, 'Certificates (PEM) of the only authorities that may vouch for it, relative to this file.'),
    ),
    cert: v.optional(described(file, 'A certificate of ours to show it (PEM).')),
    key: v.optional(described(file, 'The key of that certificate (PEM).')),
    servername: v.optional(
      described(
        v.pipe(
          host,
          v.check(written => !isAddress(written), 'is an address, not a name'),
        ),
        'The name to ask for, which its certificate must hold; without, its host.',
      ),
    ),
    pin: v.optional(
      described(
        v.pipe(text(), v.regex(/^sha256\/[A-Za-z0-9+/]{43}=$/, 'is not a pin like sha256/BASE64 (44 characters)')),
        'The hash of the public key (SPKI) that its certificate must have besides.',
      ),
    ),
  }),
  v.check(tls => (tls.cert === undefined) === (tls.key === undefined), 'has only one of cert and key'),
);

const Ssh = strict({
  key: v.optional(described(file, 'The private key to log in with, relative to this file.')),
  passphrase: v.optional(described(secret, 'What that key is locked with.')),
  agent: v.optional(described(v.boolean('is not true or false'), 'Ask the agent (SSH_AUTH_SOCK) for keys.')),
  knownHosts: v.optional(described(file, 'The file that has its host key, as of ssh.')),
  hostKey: v.optional(
    described(
      v.pipe(text(), v.regex(/^SHA256:[A-Za-z0-9+/]{43}=?$/, 'is not a fingerprint like SHA256:BASE64')),
      'The fingerprint of its host key, as ssh-keygen -l prints it.',
    ),
  ),
});

const HTTP_ALONE: readonly HopKind[] = ['http', 'https'];
/** What not every kind has. */
const ONLY_FOR: Readonly<Record<string, readonly HopKind[]>> = {
  password: ['http', 'https', 'socks5', 'ssh', 'tor'],
  auth: HTTP_ALONE,
  form: HTTP_ALONE,
  headers: HTTP_ALONE,
  tls: ['https'],
  ssh: ['ssh'],
};

const LongHop = v.pipe(
  strict(
    {
      kind: described(v.picklist(HOP_KINDS, `is not a kind of hop: ${KINDS_IN_WORDS}`), 'How to speak to the proxy.'),
      host: v.optional(described(host, 'Its name or address.')),
      port: v.optional(described(port, 'Its port; without, the usual one of its kind.')),
      username: v.optional(described(credential, 'User name, if it asks for one.')),
      password: v.optional(
        described(
          secret,
          'Password, if it asks for one: text, or { env: NAME }, { file: FILE }, { command: [program, argument] }.',
        ),
      ),
      auth: v.optional(
        described(
          v.picklist(['basic', 'digest', 'auto'], 'is not basic, digest or auto'),
          'How name and password are told: basic, digest, or auto: basic, and digest once it asks for that.',
        ),
      ),
      form: v.optional(
        described(
          v.picklist(['absolute', 'connect'], 'is not absolute or connect'),
          'connect: http targets go through a tunnel too, and it sees no URL.',
        ),
      ),
      headers: v.optional(described(headers, 'Fields that it is sent, and nobody else.')),
      bind: v.optional(
        described(
          v.pipe(
            host,
            v.check(written => isAddress(written), 'is not an address like 192.0.2.7 or 2001:db8::7'),
          ),
          'The address of this machine to connect from, where it is the first hop of a chain.',
        ),
      ),
      tls: v.optional(described(Tls, 'TLS to it.')),
      ssh: v.optional(described(Ssh, 'Login to it, and its host key.')),
      privacy: v.optional(
        described(count(0, 9), 'Its privacy class, 0 to 9, for the floor of routes; without, 1 (tor 3).'),
      ),
    },
    'is not a hop: write socks5://host:1080, or a map of kind, host and port',
  ),
  v.rawCheck(({ dataset, addIssue }) => {
    const hop = dataset.value as Partial<WrittenHop>;
    if (!isMap(hop)) return;
    const complain = (key: string, message: string) =>
      addIssue({ message, path: [{ type: 'object', origin: 'value', input: hop, key, value: hop[key as never] }] });
    const { kind } = hop;
    if (kind === undefined || !HOP_KINDS.includes(kind)) return;
    for (const [key, kinds] of Object.entries(ONLY_FOR)) {
      if (hop[key as never] === undefined || kinds.includes(kind)) continue;
      complain(key, `a hop of kind ${kind} has no ${key}: it is for ${kinds.join(', ')}`);
    }
    if (hop.host === undefined && kind !== 'tor') complain('host', 'needs host');
    if (hop.password !== undefined && hop.username === undefined && kind !== 'socks4a')
      complain('password', 'has no username beside it');
    if (kind === 'socks4a' && hop.username?.includes('\0')) complain('username', 'has a character that ends it');
  }),
  v.transform((written): WrittenHop => ({
    ...written,
    host: written.host ?? TOR_HOST,
    port: written.port ?? DEFAULT_HOP_PORT[written.kind],
  })),
);

const HopUrl = v.pipe(
  text(),
  v.rawTransform<string, WrittenHop>(({ dataset, addIssue, NEVER }) => {
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
  if (!Object.hasOwn(SCHEMES, scheme)) return `"${scheme}" is not a kind of hop: ${KINDS_IN_WORDS}`;
  const kind = SCHEMES[scheme]!;
  const where = match[3] === '' && kind === 'tor' ? TOR_HOST : match[3]!;
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
  if (colon >= 0 && kind === 'socks4a') return 'has a password: SOCKS4 knows user names only';
  try {
    const username = decodeURIComponent(colon < 0 ? match[2] : match[2].slice(0, colon));
    const password = colon < 0 ? '' : decodeURIComponent(match[2].slice(colon + 1));
    if (!v.is(credential, username) || !v.is(credential, password))
      return 'has a user name or password longer than 255 bytes';
    if (kind === 'socks4a' && username.includes('\0')) return 'has a user name with a character that ends it';
    // Without a password SSH logs in by keys.
    if (colon < 0 && (kind === 'socks4a' || kind === 'ssh')) return { kind, ...at, username };
    return { kind, ...at, username, password };
  } catch {
    return 'has a user name or password with a broken % escape';
  }
}

export const HopSchema = v.lazy(input =>
  typeof input === 'string' ? HopUrl : (LongHop as v.GenericSchema<unknown, WrittenHop>),
) as v.GenericSchema<unknown, WrittenHop>;
