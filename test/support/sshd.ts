// A real sshd with a folder of its own: host keys, users' keys, configuration. It lets in the user who runs the tests, by key or (in namespaces of its
// own, as root) by password, and ends with the test's process.
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { chmodSync, closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { findProgram } from './ensure-peers.ts';
import { closedPort } from './hop.ts';

export interface SshdOptions {
  readonly port?: number;
  /** Lines of sshd_config, before ours (the first of a kind counts). */
  readonly config?: readonly string[];
  /** Kinds of host keys; ed25519 alone when absent. */
  readonly hostKeys?: readonly ('ed25519' | 'ecdsa' | 'rsa')[];
  /** The passphrase of the client's key. */
  readonly passphrase?: string;
  /** Lets this account in too, by password: only it sees the account. */
  readonly account?: { readonly username: string; readonly password: string };
  /** Addresses for names, as it sees them. */
  readonly hosts?: Readonly<Record<string, string>>;
}

export interface Sshd extends AsyncDisposable {
  readonly port: number;
  readonly username: string;
  /** The private key that it lets in, as a file and as text. */
  readonly keyFile: string;
  readonly key: string;
  /** `TYPE BASE64` of its host keys, and their fingerprints as OpenSSH writes them. */
  readonly hostKeys: readonly string[];
  readonly fingerprints: readonly string[];
  /** A known_hosts file that names it. */
  readonly knownHosts: string;
  readonly folder: string;
  log(): string;
  /** How many clients have logged in. */
  readonly logins: number;
  /** Ends every connection and goes on listening. */
  cutConnections(): void;
}

/** True when a real sshd can run here; with CI=true it has to. */
export function haveSshd(): boolean {
  const ok = findProgram('sshd') !== undefined && findProgram('ssh-keygen') !== undefined && process.getuid?.() === 0;
  if (!ok && process.env.CI === 'true') throw new Error('With CI=true sshd must be there (openssh-server), and root');
  if (!ok) console.warn('Not run: tests with sshd (on Debian, as root: apt-get install openssh-server)');
  return ok;
}

export function makeKey(file: string, type = 'ed25519', passphrase = ''): void {
  execFileSync('ssh-keygen', [
    '-q',
    '-t',
    type,
    ...(type === 'rsa' ? ['-b', '2048'] : []),
    '-N',
    passphrase,
    '-f',
    file,
  ]);
}

// As in peers.ts: it lives as long as the pipe on descriptor 3 is open.
const LIFELINE = '"$@" 3<&- & daemon=$!; { read -r _ <&3; kill -KILL $daemon; } & exec 3<&-; wait $daemon';

export async function startSshd(options: SshdOptions = {}): Promise<Sshd> {
  const folder = mkdtempSync(join(tmpdir(), 'detour-sshd-'));
  chmodSync(folder, 0o755);
  const kinds = options.hostKeys ?? ['ed25519'];
  const hostKeys: string[] = [];
  for (const kind of kinds) {
    makeKey(join(folder, `host_${kind}`), kind);
    hostKeys.push(
      readFileSync(join(folder, `host_${kind}.pub`), 'utf8')
        .split(' ')
        .slice(0, 2)
        .join(' '),
    );
  }
  const keyFile = join(folder, 'id');
  makeKey(keyFile, 'ed25519', options.passphrase);
  writeFileSync(join(folder, 'authorized_keys'), readFileSync(`${keyFile}.pub`), { mode: 0o644 });
  const { username } = userInfo();
  mkdirSync('/run/sshd', { recursive: true, mode: 0o755 });
  const hosts = Object.entries({ localhost: '127.0.0.1', ...options.hosts });
  writeFileSync(join(folder, 'hosts'), hosts.map(([host, address]) => `${address} ${host}\n`).join(''));

  if (options.account) {
    const { username, password } = options.account;
    const hash = execFileSync('perl', ['-e', 'print crypt($ARGV[0], q($6$detour$))', password], { encoding: 'utf8' });
    const known = readFileSync('/etc/passwd', 'utf8');
    writeFileSync(join(folder, 'passwd'), `${known}${username}:x:64000:64000::/:/bin/sh\n`, { mode: 0o644 });
    writeFileSync(join(folder, 'shadow'), `root:*:19000:0:99999:7:::\n${username}:${hash}:19000:0:99999:7:::\n`, {
      mode: 0o600,
    });
  }

  for (let tries = 3; ; tries--) {
    const port = options.port ?? (await closedPort());
    const lines = [
      ...(options.config ?? []),
      `Port ${port}`,
      'ListenAddress 127.0.0.1',
      ...kinds.map(kind => `HostKey ${folder}/host_${kind}`),
      `PidFile ${folder}/pid`,
      `AuthorizedKeysFile ${folder}/authorized_keys`,
      'StrictModes no',
      'PermitRootLogin yes',
      `PasswordAuthentication ${options.account ? 'yes' : 'no'}`,
      'KbdInteractiveAuthentication no',
      'UsePAM no',
      'UseDNS no',
      'LogLevel VERBOSE',
      'MaxStartups 200',
      ...(hasPenalties() ? ['PerSourcePenalties no'] : []),
    ];
    writeFileSync(join(folder, 'sshd_config'), `${lines.join('\n')}\n`);
    const output = openSync(join(folder, 'output'), 'a');
    const files = {
      '/etc/hosts': 'hosts',
      ...(options.account ? { '/etc/passwd': 'passwd', '/etc/shadow': 'shadow' } : {}),
    };
    const overlays = Object.entries(files).map(([file, own]) => `mount --bind '${folder}/${own}' ${file}`);
    const command = `${overlays.join(' && ')} && { ${LIFELINE}; }`;
    const sshd = [findProgram('sshd')!, '-D', '-e', '-f', join(folder, 'sshd_config')];
    const child = spawn(
      'unshare',
      ['--mount', '--pid', '--fork', '--mount-proc', 'sh', '-c', command, 'sshd', ...sshd],
      {
        stdio: ['ignore', output, output, 'pipe'],
      },
    );
    closeSync(output);
    let ended: string | null = null;
    const exited = new Promise<void>(resolve => {
      child.once('error', error => resolve(void (ended = error.message)));
      child.once('exit', (code, signal) => resolve(void (ended = `it ended with ${signal ?? code}`)));
    });
    const log = () => readFileSync(join(folder, 'output'), 'utf8');
    const stop = async () => {
      for (const stream of child.stdio) stream?.destroy();
      await exited;
    };
    const giveUpAt = Date.now() + 20_000;
    let listens = await accepts(port);
    while (!listens && child.exitCode === null && Date.now() < giveUpAt) listens = await accepts(port);
    if (!listens || child.exitCode !== null) {
      const said = log();
      await stop();
      if (options.port === undefined && tries > 1) continue;
      rmSync(folder, { recursive: true, force: true });
      throw new Error(`sshd did not start (${ended ?? 'it does not listen'}):\n${said}`);
    }
    const knownHosts = join(folder, 'known_hosts');
    writeFileSync(knownHosts, hostKeys.map(key => `[127.0.0.1]:${port} ${key}\n`).join(''));
    return {
      port,
      username,
      keyFile,
      key: readFileSync(keyFile, 'utf8'),
      hostKeys,
      fingerprints: kinds.map(kind => fingerprintOf(join(folder, `host_${kind}.pub`))),
      knownHosts,
      folder,
      log,
      get logins() {
        return log().match(/^Accepted publickey/gm)?.length ?? 0;
      },
      cutConnections() {
        // Its children are the connections; in its own process namespace they have other numbers, so they are found by their parent.
        const master = Number(
          execFileSync('pgrep', ['-P', String(shellOf(child.pid!))], { encoding: 'utf8' }).split('\n')[0],
        );
        const connections = execFileSync('sh', ['-c', `pgrep -P ${master} || true`], { encoding: 'utf8' }).trim();
        for (const pid of connections.split('\n').filter(one => one !== '')) process.kill(Number(pid), 'SIGKILL');
      },
      async [Symbol.asyncDispose]() {
        await stop();
        rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
      },
    };
  }
}

/** The shell inside the namespace: unshare forks it. */
const shellOf = (unshare: number) =>
  Number(execFileSync('pgrep', ['-P', String(unshare)], { encoding: 'utf8' }).split('\n')[0]);

/** Since OpenSSH 9.8 an address with failed logins is not listened to for a while. */
function hasPenalties(): boolean {
  const said = spawnSync(findProgram('sshd')!, ['-V'], { encoding: 'utf8' }).stderr;
  const [, major, minor] = /OpenSSH_(\d+)\.(\d+)/.exec(said) ?? [];
  return Number(major) * 100 + Number(minor) >= 908;
}

/** OpenSSH's own word for it, so that ours is not compared with itself. */
function fingerprintOf(publicKeyFile: string): string {
  return execFileSync('ssh-keygen', ['-lf', publicKeyFile], { encoding: 'utf8' }).split(' ')[1]!;
}

function accepts(port: number): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connect({ host: '127.0.0.1', port });
    socket.once('connect', () => (socket.destroy(), resolve(true)));
    socket.once('error', () => setTimeout(resolve, 25, false));
  });
}
