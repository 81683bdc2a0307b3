// Three network namespaces, joined by pairs of virtual cables, and what is said on the client's two cables, packet by packet.
//
//   client ──exit── exit (tinyproxy, microsocks) ──out──┐
//      └───────────────out (nothing may go here)────────┴── origin: every site, and the only resolver
//
// The client could reach everything by its second cable, and so a leak has a way to go. Namespaces have names of one run, and those of runs that are
// no more are cleared away first; whoever is in one is ended with it.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { makeTestAuthority } from '../support/certificates.ts';
import { findProgram } from '../support/ensure-peers.ts';

/** Public addresses, so that no guard has anything against them; only these namespaces know them. */
export const TARGET = '93.184.215.14';
const OTHER_TARGET = '93.184.215.15';
const RESOLVER = '93.184.215.53';
/** The client's and the exit's ends of the cable between them, and the addresses from which each reaches the origin. */
export const AT = { exit: '10.101.0.2', viaExit: '10.103.0.1', direct: '10.102.0.1' } as const;
const CLIENT_TO_EXIT = '10.101.0.1';
const ORIGIN_TO_CLIENT = '10.102.0.2';
const ORIGIN_TO_EXIT = '10.103.0.2';
export const PROXIES = { http: `http://${AT.exit}:3128`, socks5: `socks5://${AT.exit}:1080` } as const;
const PROXY_PORTS = [3128, 1080];
/** A hop that nobody ever listens for. */
export const NOBODY = `socks5://${AT.exit}:1081`;
const HOP_PORTS = [...PROXY_PORTS, 1081];
const NAMES = {
  'site.test': TARGET,
  'www.site.test': TARGET,
  'auto1.test': OTHER_TARGET,
  'auto2.test': OTHER_TARGET,
  'auto3.test': OTHER_TARGET,
  'other.test': OTHER_TARGET,
};
const PREFIX = 'detour-leak';
/** The marker goes to this port of the origin, where nobody listens. */
const MARKER_PORT = 9;

/** Whether there can be namespaces here; says plainly when not, and with CI=true that is a failure. For `describe.runIf`. */
export function haveNamespaces(): boolean {
  try {
    if (process.platform !== 'linux' || process.getuid?.() !== 0) throw new Error('only root on Linux may make them');
    for (const program of ['ip', 'tcpdump', 'curl', 'microsocks', 'tinyproxy'])
      if (findProgram(program) === undefined) throw new Error(`${program} is not installed`);
    const name = `${PREFIX}-${process.pid}-try`;
    ip('netns', 'add', name);
    try {
      ip('-n', name, 'link', 'add', 'name', 'try1', 'type', 'veth', 'peer', 'name', 'try2');
    } finally {
      ip('netns', 'del', name);
    }
    return true;
  } catch (error) {
    const reason = `leaks are looked for in network namespaces: ${(error as Error).message.split('\n', 1)[0]}`;
    if (process.env['CI'] === 'true') throw new Error(`With CI=true it must run: ${reason}`, { cause: error });
    console.warn(`Not run: ${reason}`);
    return false;
  }
}

export interface Network extends AsyncDisposable {
  /** A command that runs the rest of its line in the client's namespace, and becomes it. */
  readonly inClient: readonly string[];
  /** PEM of the authority that the origin's certificate is from, and its file. */
  readonly authority: string;
  readonly authorityFile: string;
  /** Runs a program in the client's namespace to its end. */
  run(...command: string[]): Promise<{ code: number | null; out: string; err: string }>;
  /** curl through a proxy (a URL; null: none), with its arguments: the body, or the number of curl's error. */
  curl(proxy: string | null, url: string, ...more: string[]): Promise<string>;
  /** `ip route …` in the client's namespace. */
  route(...command: string[]): void;
  /** What the origin does to whom: `reset ADDRESS`, `silence ADDRESS`, or `serve` for all again. */
  tellOrigin(line: string): Promise<void>;
  /** What it was asked so far: `asked HOST/PATH FROM` lines. */
  asked(): string;
  /** Ends the proxies of the exit, or starts them again. */
  stopProxies(): Promise<void>;
  startProxies(): Promise<void>;
  /**
   * What has left the client since this was last asked and should not have: every IP packet on the cable past the exit, and on the other one what
   * goes neither to a port of the exit's proxies nor comes from one. Waits until all that was sent is heard.
   */
  leaks(): Promise<readonly string[]>;
}

/** Makes it; the proxies of the exit stand. */
export async function makeNetwork(): Promise<Network> {
  clearStale();
  const run = `${PREFIX}-${process.pid}-${Math.random().toString(36).slice(2, 6)}`;
  const [client, exit, origin] = [`${run}-c`, `${run}-e`, `${run}-o`] as const;
  const folder = mkdtempSync(path.join(tmpdir(), 'detour-leak-'));
  const children = new Set<ChildProcess>();
  const dispose = async () => {
    for (const child of children) child.kill('SIGKILL');
    for (const name of [client, exit, origin]) clear(name);
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    const authority = await makeTestAuthority();
    const identity = await authority.issue(...Object.keys(NAMES));
    writeFileSync(path.join(folder, 'origin.pem'), identity.key + identity.cert, { mode: 0o600 });
    const authorityFile = await authority.writeTo(path.join(folder, 'ca.pem'));
    for (const name of [client, exit, origin]) {
      ip('netns', 'add', name);
      ip('-n', name, 'link', 'set', 'lo', 'up');
      // `ip netns exec` lays this over the real one.
      mkdirSync(`/etc/netns/${name}`, { recursive: true });
      writeFileSync(`/etc/netns/${name}/resolv.conf`, `nameserver ${RESOLVER}\noptions timeout:1 attempts:1\n`);
    }
    cable(client, 'exit', CLIENT_TO_EXIT, exit, 'client', AT.exit);
    cable(client, 'out', AT.direct, origin, 'client', ORIGIN_TO_CLIENT);
    cable(exit, 'out', AT.viaExit, origin, 'exit', ORIGIN_TO_EXIT);
    ip('-n', client, 'route', 'add', 'default', 'via', ORIGIN_TO_CLIENT);
    ip('-n', exit, 'route', 'add', 'default', 'via', ORIGIN_TO_EXIT);
    for (const address of [TARGET, OTHER_TARGET, RESOLVER])
      ip('-n', origin, 'address', 'add', `${address}/32`, 'dev', 'lo');

    const start = (name: string, command: readonly string[], cwd = folder) => {
      const child = spawn('ip', ['netns', 'exec', name, ...command], { cwd, stdio: ['pipe', 'pipe', 'pipe'] });
      children.add(child);
      child.once('exit', () => children.delete(child)).once('error', () => children.delete(child));
      child.stdin!.on('error', () => {});
      const said = { text: '' };
      for (const stream of [child.stdout!, child.stderr!])
        stream.on('data', (data: Buffer) => (said.text += data.toString()));
      return { child, said };
    };

    const names = Object.entries(NAMES).map(([name, address]) => `${name}=${address}`);
    const inside = path.resolve('test/namespaces/inside.ts');
    const web = start(origin, [process.execPath, inside, RESOLVER, 'origin.pem', ...names]);
    await until(
      () => web.said.text.includes('ready'),
      'the origin',
      () => web.said.text,
    );

    const captures = ['out', 'exit'].map(cable => ({
      cable,
      heard: 0,
      ...start(client, ['tcpdump', '-i', cable, '-nn', '-l', '--immediate-mode', 'ip or (ip6 and not icmp6)']),
    }));
    for (const { said } of captures)
      await until(
        () => said.text.includes('listening on'),
        'tcpdump',
        () => said.text,
      );

    writeFileSync(
      path.join(folder, 'tinyproxy.conf'),
      `Port 3128\nListen ${AT.exit}\nTimeout 30\nMaxClients 200\nLogLevel Error\nPidFile "${folder}/tinyproxy.pid"\n`,
    );
    let proxies: ChildProcess[] = [];
    const startProxies = async () => {
      proxies = [
        start(exit, ['tinyproxy', '-d', '-c', 'tinyproxy.conf']).child,
        start(exit, ['microsocks', '-i', AT.exit, '-p', '1080']).child,
      ];
      for (const port of PROXY_PORTS) {
        const accepts = () => {
          try {
            execFileSync('ip', ['netns', 'exec', exit, 'bash', '-c', `exec 3<>/dev/tcp/${AT.exit}/${port}`], {
              stdio: 'ignore',
            });
            return true;
          } catch {
            return false;
          }
        };
        await until(accepts, `the proxy at ${port}`, () => '');
      }
    };
    await startProxies();

    const inClient = ['ip', 'netns', 'exec', client];
    const runInClient = (...command: string[]) =>
      new Promise<{ code: number | null; out: string; err: string }>((resolve, reject) => {
        const child = spawn(inClient[0]!, [...inClient.slice(1), ...command], { stdio: ['ignore', 'pipe', 'pipe'] });
        children.add(child);
        let out = '';
        let err = '';
        child.stdout.on('data', (data: Buffer) => (out += data.toString()));
        child.stderr.on('data', (data: Buffer) => (err += data.toString()));
        child.once('error', reject);
        child.once('close', code => (children.delete(child), resolve({ code, out, err })));
      });

    return {
      inClient,
      authority: authority.pem,
      authorityFile,
      run: runInClient,
      async curl(proxy, url, ...more) {
        const by = proxy === null ? ['--noproxy', '*'] : ['-x', proxy];
        const args = ['-sS', '--max-time', '12', '--cacert', authorityFile, ...by, ...more, url];
        const { code, out } = await runInClient('curl', ...args);
        return code === 0 ? out : `curl: ${code}`;
      },
      route: (...command) => void ip('-n', client, 'route', ...command),
      async tellOrigin(line) {
        const before = web.said.text.length;
        web.child.stdin!.write(`${line}\n`);
        await until(
          () => web.said.text.slice(before).includes(line),
          'the origin',
          () => web.said.text,
        );
      },
      asked: () => web.said.text,
      async stopProxies() {
        await Promise.all(
          proxies.map(proxy => {
            const gone = new Promise(resolve => proxy.once('exit', resolve));
            return proxy.kill('SIGKILL') ? gone : null;
          }),
        );
      },
      startProxies,
      async leaks() {
        const found: string[] = [];
        for (const capture of captures) {
          const to = capture.cable === 'out' ? ORIGIN_TO_CLIENT : AT.exit;
          const isMarker = (line: string) => line.includes(`> ${to}.${MARKER_PORT}:`) || /unreachable/.test(line);
          // Behind the marker nothing older is to come. Sent until it is heard: it is UDP.
          const from = capture.heard;
          const text = () => capture.said.text.slice(from);
          await until(
            async () => {
              await runInClient('bash', '-c', `echo > /dev/udp/${to}/${MARKER_PORT}`);
              return text().split('\n').slice(0, -1).some(isMarker);
            },
            'the marker',
            text,
          );
          const whole = text().slice(0, text().lastIndexOf('\n') + 1);
          capture.heard = from + whole.length;
          for (const line of whole.split('\n')) {
            const packet = /\bIP6? (\S+) > (\S+):/.exec(line);
            if (packet === null || isMarker(line)) continue;
            const isProxys = (at: string) => HOP_PORTS.some(port => at === `${AT.exit}.${port}`);
            if (capture.cable === 'exit' && (isProxys(packet[1]!) || isProxys(packet[2]!))) continue;
            found.push(`${capture.cable}: ${line}`);
          }
        }
        return found;
      },
      [Symbol.asyncDispose]: dispose,
    };
  } catch (error) {
    await dispose();
    throw error;
  }
}

/** Waits for a condition. */
export async function until(
  is: () => boolean | Promise<boolean>,
  what: string,
  said: () => string,
  within = 15_000,
): Promise<void> {
  for (const end = Date.now() + within; !(await is());) {
    if (Date.now() > end) throw new Error(`${what}: not within ${within} ms; ${said().slice(-2_000)}`);
    await new Promise(resolve => setTimeout(resolve, 25));
  }
}

function ip(...words: string[]): string {
  return execFileSync('ip', words, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}

/** A cable between two namespaces; both ends have an address of one network. */
function cable(one: string, end: string, at: string, other: string, otherEnd: string, otherAt: string): void {
  ip('-n', one, 'link', 'add', 'name', end, 'type', 'veth', 'peer', 'name', otherEnd, 'netns', other);
  for (const [name, device, address] of [
    [one, end, at],
    [other, otherEnd, otherAt],
  ] as const) {
    ip('-n', name, 'link', 'set', device, 'addrgenmode', 'none');
    ip('-n', name, 'address', 'add', `${address}/24`, 'dev', device);
    ip('-n', name, 'link', 'set', device, 'up');
  }
}

/** Ends whoever is in a namespace of ours, and removes it. */
function clear(name: string): void {
  try {
    for (const pid of ip('netns', 'pids', name).split('\n').filter(Boolean)) {
      try {
        process.kill(Number(pid), 'SIGKILL');
      } catch {
        // Gone meanwhile.
      }
    }
    ip('netns', 'del', name);
  } catch {
    // There is none.
  }
  rmSync(`/etc/netns/${name}`, { recursive: true, force: true });
}

/** Namespaces of runs whose process is no more. */
function clearStale(): void {
  let names: string[];
  try {
    names = readdirSync('/run/netns');
  } catch {
    return;
  }
  for (const name of names) {
    const pid = new RegExp(`^${PREFIX}-(\\d+)-`).exec(name)?.[1];
    if (pid === undefined) continue;
    try {
      process.kill(Number(pid), 0);
    } catch {
      clear(name);
    }
  }
}
