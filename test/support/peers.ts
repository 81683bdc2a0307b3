// Real proxies of other people as hops: squid, dante, microsocks, tinyproxy, each with a configuration of its own in a folder of its own.
// They see a hosts file (and dante an account) that nothing else on this machine sees: each runs in namespaces of its own, with those files laid
// over the real ones. Whatever happens to the test, they end with it: they live only as long as a pipe to it is open.
import { execFileSync, spawn } from 'node:child_process';
import { chmodSync, closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import type { Hop, HopKind } from '../../shared/config/hops.ts';
import { findProgram } from './ensure-peers.ts';
import { closedPort } from './hop.ts';

export type PeerName = 'squid' | 'danted' | 'microsocks' | 'tinyproxy';

export interface PeerOptions {
  /** Addresses for names, as this peer sees them: `{ 'origin.test': '127.0.0.1' }`. */
  readonly hosts?: Readonly<Record<string, string>>;
  /**
   * Names (with their subdomains for squid) that it refuses by its own rules. Not for microsocks, which has none. Dante looks a name up and
   * then refuses its address, under whatever name: give such a name an address of its own in `hosts` (127.0.0.9).
   */
  readonly deny?: readonly string[];
  readonly credentials?: { readonly username: string; readonly password: string };
  /** Squid only: it asks for Digest instead of Basic, and gives another nonce after so many uses of one. */
  readonly digestNonceUses?: number;
  /** Tinyproxy only: the port on this machine that it sends everything on to. */
  readonly upstream?: number;
  /** A fixed port instead of a free one: to start it again where it was. */
  readonly port?: number;
}

export interface Peer extends AsyncDisposable {
  readonly name: PeerName;
  readonly port: number;
  /** As it stands in the configuration, with the credentials that it takes. */
  readonly hop: Hop;
  /** The same as a one-line URL. */
  readonly url: string;
  /** Everything that it wrote so far (for squid and tinyproxy the requests too). */
  log(): string;
}

const PROGRAMS: Record<PeerName, { program: string; kind: HopKind; debian: string }> = {
  squid: { program: 'squid', kind: 'http', debian: 'squid' },
  danted: { program: 'danted', kind: 'socks5', debian: 'dante-server' },
  microsocks: { program: 'microsocks', kind: 'socks5', debian: 'microsocks' },
  tinyproxy: { program: 'tinyproxy', kind: 'http', debian: 'tinyproxy' },
};
const isRoot = process.getuid?.() === 0;
const UNSHARE = ['unshare', '--mount', '--pid', '--fork', ...(isRoot ? [] : ['--map-current-user', '--keep-caps'])];

let namespaces: boolean | undefined;
function hasNamespaces(): boolean {
  try {
    namespaces ??=
      (execFileSync(UNSHARE[0]!, [...UNSHARE.slice(1), 'mount', '-t', 'tmpfs', 'none', '/dev/shm'], {
        stdio: 'ignore',
      }),
      true);
  } catch {
    namespaces = false;
  }
  return namespaces;
}

/** Which peers can run here; for those that cannot, a sentence that says why. */
export function peersAvailable(): Record<PeerName, true | string> {
  const found = {} as Record<PeerName, true | string>;
  for (const [name, { program, debian }] of Object.entries(PROGRAMS) as [PeerName, (typeof PROGRAMS)[PeerName]][]) {
    if (findProgram(program) === undefined)
      found[name] = `${program} is not installed (on Debian: apt-get install ${debian})`;
    else if (!hasNamespaces())
      found[name] = `${program} needs a mount namespace of its own here, and the system gives none`;
    else found[name] = true;
  }
  return found;
}

/** True when all of these can run; otherwise says plainly what is not run, and with CI=true that is a failure. For `describe.runIf`. */
export function havePeers(...names: PeerName[]): boolean {
  const available = peersAvailable();
  const missing = names.flatMap(name => (available[name] === true ? [] : [available[name]]));
  if (missing.length === 0) return true;
  if (process.env.CI === 'true') throw new Error(`With CI=true every peer must be there: ${missing.join('; ')}`);
  console.warn(`Not run: tests with ${names.join(', ')}: ${missing.join('; ')}`);
  return false;
}

/** Squid: http, Basic credentials by a helper script, `http_access deny` for names. Caches nothing. */
export function startSquid(options: PeerOptions = {}): Promise<Peer> {
  return startPeer('squid', options, (folder, port) => {
    const { credentials, deny = [], digestNonceUses } = options;
    writeFileSync(join(folder, 'passwords'), `${credentials?.username}:${credentials?.password}\n`);
    writeFileSync(
      join(folder, 'login.sh'),
      `while read -r user word rest; do if [ "$user $word" = "${credentials?.username} ${credentials?.password}" ]; then echo OK; else echo ERR; fi; done\n`,
    );
    const configuration = [
      `http_port 127.0.0.1:${port}`,
      `pid_filename ${folder}/squid.pid`,
      `access_log stdio:${folder}/access.log`,
      `cache_log ${folder}/cache.log`,
      `hosts_file ${folder}/hosts`,
      `coredump_dir ${folder}`,
      'dns_nameservers 127.0.0.1',
      'dns_timeout 2 seconds',
      'connect_timeout 3 seconds',
      'visible_hostname squid.test',
      'netdb_filename none',
      'pinger_enable off',
      'shutdown_lifetime 0 seconds',
      'cache_mem 1 MB',
      'memory_pools off',
      'max_filedescriptors 1024',
      'cache deny all',
      ...(credentials && digestNonceUses !== undefined
        ? [
            `auth_param digest program /usr/lib/squid/digest_file_auth ${folder}/passwords`,
            'auth_param digest children 1 startup=1 idle=1',
            'auth_param digest realm squid',
            `auth_param digest nonce_max_count ${digestNonceUses}`,
            'acl users proxy_auth REQUIRED',
          ]
        : []),
      ...(credentials && digestNonceUses === undefined
        ? [
            `auth_param basic program /bin/sh ${folder}/login.sh`,
            'auth_param basic children 1 startup=1 idle=1',
            'auth_param basic realm squid',
            'acl users proxy_auth REQUIRED',
          ]
        : []),
      ...(deny.length > 0
        ? [`acl denied dstdomain -n ${deny.map(host => `.${host}`).join(' ')}`, 'http_access deny denied']
        : []),
      credentials ? 'http_access allow users' : 'http_access allow all',
      'http_access deny all',
    ];
    writeFileSync(join(folder, 'squid.conf'), `${configuration.join('\n')}\n`);
    return { arguments: ['-N', '-f', `${folder}/squid.conf`], logs: ['cache.log', 'access.log'] };
  });
}

/** Dante: socks5, user name and password of an account that only it sees, `socks block` for names. */
export function startDante(options: PeerOptions = {}): Promise<Peer> {
  return startPeer('danted', options, (folder, port) => {
    const { credentials, deny = [] } = options;
    const everywhere = 'from: 0.0.0.0/0 to: 0.0.0.0/0';
    const configuration = [
      'logoutput: stderr',
      `internal: 127.0.0.1 port = ${port}`,
      'external: 127.0.0.1',
      'clientmethod: none',
      `socksmethod: ${credentials ? 'username' : 'none'}`,
      `user.privileged: ${userInfo().username}`,
      `user.unprivileged: ${isRoot ? 'nobody' : userInfo().username}`,
      `client pass { ${everywhere} log: error }`,
      ...deny.map(host => `socks block { from: 0.0.0.0/0 to: ${host} log: connect error }`),
      `socks pass { ${everywhere} log: connect error }`,
    ];
    writeFileSync(join(folder, 'danted.conf'), `${configuration.join('\n')}\n`);
    const overlays: Record<string, string> = {};
    if (credentials) {
      const hash = execFileSync(
        'perl',
        ['-e', 'print crypt($ARGV[0], q($6$) . $ARGV[1] . q($))', credentials.password, 'detour'],
        { encoding: 'utf8' },
      );
      writeFileSync(
        join(folder, 'passwd'),
        `${readFileSync('/etc/passwd', 'utf8')}${credentials.username}:x:64000:64000::/nonexistent:/usr/sbin/nologin\n`,
      );
      writeFileSync(
        join(folder, 'shadow'),
        `root:*:19000:0:99999:7:::\n${credentials.username}:${hash}:19000:0:99999:7:::\n`,
        { mode: 0o600 },
      );
      overlays['/etc/passwd'] = 'passwd';
      overlays['/etc/shadow'] = 'shadow';
    }
    return { arguments: ['-N', '1', '-f', `${folder}/danted.conf`, '-p', `${folder}/danted.pid`], logs: [], overlays };
  });
}

/** Microsocks: the smallest socks5 server there is. It has no rules. */
export function startMicrosocks(options: PeerOptions = {}): Promise<Peer> {
  return startPeer('microsocks', options, (_folder, port) => {
    const { credentials } = options;
    return {
      arguments: [
        '-i',
        '127.0.0.1',
        '-p',
        String(port),
        ...(credentials ? ['-u', credentials.username, '-P', credentials.password] : []),
      ],
      logs: [],
    };
  });
}

/** Tinyproxy: http, Basic credentials, a filter file for names. */
export function startTinyproxy(options: PeerOptions = {}): Promise<Peer> {
  return startPeer('tinyproxy', options, (folder, port) => {
    const { credentials, upstream, deny = [] } = options;
    writeFileSync(join(folder, 'filter'), deny.map(host => `^${host.replaceAll('.', '\\.')}$\n`).join(''));
    const configuration = [
      `Port ${port}`,
      'Listen 127.0.0.1',
      'Timeout 30',
      'MaxClients 200',
      ...(upstream === undefined ? [] : [`Upstream http 127.0.0.1:${upstream}`]),
      'LogLevel Connect',
      `LogFile "${folder}/tinyproxy.log"`,
      `PidFile "${folder}/tinyproxy.pid"`,
      ...(credentials ? [`BasicAuth ${credentials.username} ${credentials.password}`] : []),
      ...(deny.length > 0 ? [`Filter "${folder}/filter"`, 'FilterExtended On'] : []),
    ];
    writeFileSync(join(folder, 'tinyproxy.conf'), `${configuration.join('\n')}\n`);
    return { arguments: ['-d', '-c', `${folder}/tinyproxy.conf`], logs: ['tinyproxy.log'] };
  });
}

interface Recipe {
  readonly arguments: readonly string[];
  /** Files in the folder to show beside what it prints. */
  readonly logs: readonly string[];
  /** System files that it sees otherwise: path → file in the folder. */
  readonly overlays?: Readonly<Record<string, string>>;
}

// The first process of the namespace waits for the daemon; a second shell ends the daemon when the pipe on descriptor 3 closes, which happens
// when the peer is disposed of or the test's process dies in any way. With its first process a process namespace ends, whoever is in it.
const LIFELINE = '"$@" 3<&- & daemon=$!; { read -r _ <&3; kill -KILL $daemon; } & exec 3<&-; wait $daemon';

async function startPeer(
  name: PeerName,
  options: PeerOptions,
  prepare: (folder: string, port: number) => Recipe,
  tries = 3,
): Promise<Peer> {
  const program = findProgram(PROGRAMS[name].program);
  if (program === undefined) throw new Error(`${name} is not installed`);
  const folder = mkdtempSync(join(tmpdir(), `detour-${name}-`));
  // The daemons drop their privileges and still write here.
  chmodSync(folder, 0o777);
  const hosts = Object.entries({ localhost: '127.0.0.1', ...options.hosts });
  writeFileSync(join(folder, 'hosts'), hosts.map(([host, address]) => `${address} ${host}\n`).join(''), {
    mode: 0o644,
  });
  const port = options.port ?? (await closedPort());
  const recipe = prepare(folder, port);
  const overlays = Object.entries({ '/etc/hosts': 'hosts', ...recipe.overlays });
  // Squid leaves shared memory behind when it is killed, under names that the next one trips over.
  const inNamespace = `${overlays.map(([path, file]) => `mount --bind '${folder}/${file}' ${path}`).join(' && ')} && mount -t tmpfs none /dev/shm && { ${LIFELINE}; }`;

  const output = openSync(join(folder, 'output'), 'a');
  const command = [...UNSHARE.slice(1), 'sh', '-c', inNamespace, name, program, ...recipe.arguments];
  const child = spawn(UNSHARE[0]!, command, { cwd: folder, stdio: ['ignore', output, output, 'pipe'] });
  closeSync(output);
  let ended: string | null = null;
  const exited = new Promise<void>(resolve => {
    child.once('error', error => resolve(void (ended = error.message)));
    child.once('exit', (code, signal) => resolve(void (ended = `it ended with ${signal ?? code}`)));
  });
  const log = () =>
    ['output', ...recipe.logs]
      .map(file => {
        try {
          return readFileSync(join(folder, file), 'utf8');
        } catch {
          return '';
        }
      })
      .join('');
  const stop = async () => {
    for (const stream of child.stdio) stream?.destroy();
    await exited;
    rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
  };

  const giveUpAt = Date.now() + 20_000;
  while (!(await accepts(port))) {
    if (ended === null && Date.now() < giveUpAt) continue;
    const said = log();
    await stop();
    // Another process may have taken the port in the meantime.
    if (options.port === undefined && tries > 1) return startPeer(name, options, prepare, tries - 1);
    throw new Error(`${name} did not start (${ended ?? 'it does not listen'}):\n${said}`);
  }
  const { kind } = PROGRAMS[name];
  const { credentials } = options;
  const login = credentials
    ? `${encodeURIComponent(credentials.username)}:${encodeURIComponent(credentials.password)}@`
    : '';
  return {
    name,
    port,
    hop: { kind, host: '127.0.0.1', port, ...credentials },
    url: `${kind}://${login}127.0.0.1:${port}`,
    log,
    [Symbol.asyncDispose]: stop,
  };
}

function accepts(port: number): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connect({ host: '127.0.0.1', port });
    socket.once('connect', () => (socket.destroy(), resolve(true)));
    socket.once('error', () => setTimeout(resolve, 25, false));
  });
}
