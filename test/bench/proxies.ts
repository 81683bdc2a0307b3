// How a proxy is started for the bench: on a free port in a folder of its own, pinned to the proxies' core, unprivileged where it would become so anyway;
// and what it costs. Which there are stands in subjects.ts.
import { type ChildProcess, spawn } from 'node:child_process';
import { chmodSync, chownSync, closeSync, mkdirSync, openSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { type AddressInfo, connect, createServer } from 'node:net';
import { join } from 'node:path';

/** The one core of the proxies, and the one of load and origin. */
export const PROXY_CORE = '0';
export const LOAD_CORE = '1';
const TICKS_PER_SECOND = 100;
const FILES = 16_384;
/** Nobody, on every Linux. */
const NOBODY = 65_534;
const isRoot = process.getuid?.() === 0;

/** Where the origin listens; see origin.ts. */
export interface OriginPorts {
  readonly http: number;
  readonly parent: number;
  readonly socks: number;
  readonly refusing: number;
  readonly bulk: number;
  readonly sink: number;
  readonly echo: number;
  readonly counts: number;
}

/** What reached it: requests for /hit and /miss, at its parent's port, refused, and what was none of these; bytes into the sink; tunnels. */
export interface OriginCounts {
  readonly hits: number;
  readonly misses: number;
  readonly parent: number;
  readonly refused: number;
  readonly astray: number;
  readonly sunk: number;
  readonly tunnels: number;
}

export type TunnelTarget = 'bulk' | 'sink' | 'echo';

/**
 * What a subject can do through proxies of others: requests through an http parent, CONNECT through one, both through a SOCKS5 parent; and go on with a
 * second http parent when the first one refuses.
 */
export type Skill = 'http' | 'http-connect' | 'socks5' | 'fallback';

/** Where everything has to go. */
export interface Parent {
  readonly kind: 'http' | 'socks5' | 'fallback';
  readonly port: number;
  /** Of a fallback: the http proxy that comes first and refuses everything. */
  readonly refusing: number;
}

export function parentOf(kind: Parent['kind'], { parent, socks, refusing }: OriginPorts): Parent {
  return { kind, port: kind === 'socks5' ? socks : parent, refusing };
}

/** What a subject is told when it writes its configuration. */
export interface Place {
  readonly port: number;
  /** More free ports, for what it cannot do on one. */
  readonly tunnelPorts: Readonly<Record<TunnelTarget, number>>;
  readonly folder: string;
  readonly origin: OriginPorts;
  /** Everything goes through it; null = straight to the origin. */
  readonly parent: Parent | null;
  /** Room for answers. */
  readonly cacheMiB: number;
}

export interface Subject {
  readonly name: string;
  /** `peer`: does the same job; `reference`: does part of it in another way; `floor`: ours, for what Node itself costs. */
  readonly kind: 'detour' | 'peer' | 'reference' | 'floor';
  /** What has to be installed where it cannot run; null where it can. */
  readonly missing: string | null;
  /** Whether a hit is served from its own memory. */
  readonly caches: boolean;
  /** Whether it keeps connections. One that closes them unannounced makes the load count a read error for every request. */
  readonly keeps: boolean;
  /** A reverse proxy: it is asked in origin-form, and has a port of its own for every target of tunnels. */
  readonly reverse: boolean;
  readonly skills: readonly Skill[];
  /** Runs as nobody when the bench runs as root. */
  readonly unprivileged: boolean;
  /** Writes its configuration and gives the command. */
  command(place: Place): string[];
  /** Files outside its folder that it leaves behind when it is killed. */
  leaves?(place: Place): string[];
}

export interface Running {
  readonly subject: Subject;
  readonly port: number;
  /** The request-target that it takes for a path of the origin, and the host in it. */
  targetOf(path: string): string;
  readonly host: string;
  /** Where a tunnel to this target is opened, and whether by CONNECT. */
  tunnelTo(target: TunnelTarget): { port: number; ask: boolean; host: string };
  /** From the start of the process to the first connection that it took, and to the end of the first answer, in milliseconds. */
  readonly startedAfter: number;
  readonly servedAfter: number;
  /** CPU time of the process and its children, in microseconds (to 10 ms). */
  cpu(): number;
  /** Its memory and its children's that is resident and not shared with others (Pss), in bytes. */
  memory(): number;
  stop(): Promise<void>;
}

/** Starts it and waits until it has answered a request. */
export async function startProxy(
  subject: Subject,
  parentFolder: string,
  origin: OriginPorts,
  parent: Parent | null = null,
  cacheMiB = 64,
): Promise<Running> {
  const [port, bulk, sink, echo] = await freePorts(4);
  const folder = join(parentFolder, `${subject.name.replaceAll(/[^a-z]/g, '-')}-${port}`);
  mkdirSync(folder);
  const log = join(folder, 'output');
  const output = openSync(log, 'w');
  const tunnelPorts = { bulk: bulk!, sink: sink!, echo: echo! };
  const place: Place = { port: port!, tunnelPorts, folder, origin, parent, cacheMiB };
  const [program, ...args] = subject.command(place);
  const asNobody = isRoot && subject.unprivileged;
  if (asNobody) giveTo(folder, NOBODY);
  const began = performance.now();
  const child = spawnPinned(PROXY_CORE, program!, args, ['ignore', output, output], {
    env: { DETOUR_STATE_DIR: join(folder, 'state') },
    user: asNobody ? NOBODY : null,
  });
  closeSync(output);
  const ended = new Promise<void>(resolve => child.once('exit', () => resolve()));
  const said = () => readFileSync(log, 'utf8').trim().slice(-500);
  const stop = async () => {
    child.kill('SIGTERM');
    const late = setTimeout(() => child.kill('SIGKILL'), 1_000);
    await ended;
    clearTimeout(late);
    for (const file of subject.leaves?.(place) ?? []) rmSync(file, { force: true });
  };
  let startedAfter: number | null = null;
  // Behind a parent the origin has an address where nothing listens: who goes there directly fails. (And Traffic Server never asks a parent for 127.0.0.1.)
  const address = parent === null ? '127.0.0.1' : '127.0.0.2';
  const host = `${address}:${origin.http}`;
  const targetOf = (path: string) => (subject.reverse && parent === null ? path : `http://${host}${path}`);
  const request = requestText(targetOf('/miss/first'), host);
  let answer = '';
  for (;;) {
    if (startedAfter !== null || (await accepts(port!))) {
      startedAfter ??= performance.now() - began;
      answer = await ask(port!, request).catch((error: Error) => error.message);
      if (/^HTTP\/1\.[01] 200 /.test(answer)) break;
    }
    if (child.exitCode !== null || child.signalCode !== null)
      throw new Error(`${subject.name} did not start: ${said()}`);
    if (performance.now() - began > 15_000) {
      await stop();
      throw new Error(`${subject.name} answered no request within 15 s: ${answer.slice(0, 200)} ${said()}`);
    }
    await new Promise(resolve => setTimeout(resolve, 2));
  }
  const servedAfter = performance.now() - began;
  const pid = child.pid!;
  const elsewhere = [pid, ...childrenOf(pid)].flatMap(coresOf).find(cores => cores !== PROXY_CORE);
  if (elsewhere !== undefined) {
    await stop();
    throw new Error(`${subject.name} runs on the cores ${elsewhere}, not on ${PROXY_CORE} alone`);
  }
  return {
    subject,
    port: port!,
    targetOf,
    host,
    tunnelTo: target => ({
      host: address,
      ...(subject.reverse ? { port: tunnelPorts[target], ask: false } : { port: port!, ask: true }),
    }),
    startedAfter,
    servedAfter,
    cpu: () => cpuOf(pid),
    memory: () => [pid, ...childrenOf(pid)].reduce((sum, one) => sum + memoryOf(one), 0),
    stop,
  };
}

export function requestText(target: string, host: string): string {
  return `GET ${target} HTTP/1.1\r\nHost: ${host}\r\n\r\n`;
}

/** Sends this and gives back head and body of the one answer, told by its Content-Length or its end. Rejects after 5 s. */
export function ask(port: number, request: string | Buffer): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = '';
    const socket = connect({ port, host: '127.0.0.1' }, () => void socket.write(request));
    const finish = () => {
      socket.destroy();
      resolve(text);
    };
    socket.setTimeout(5_000, () => socket.destroy(new Error(`no whole answer within 5 s, but ${text.slice(0, 100)}`)));
    socket.on('data', chunk => {
      text += chunk.toString('latin1');
      const end = text.indexOf('\r\n\r\n');
      const length = /^content-length: *(\d+)/im.exec(end === -1 ? '' : text.slice(0, end));
      if (length !== null && text.length >= end + 4 + Number(length[1])) finish();
    });
    socket.on('end', finish);
    socket.on('error', reject);
  });
}

/**
 * A process on one core. The helpers become the program, so the pid is the program's. It ends with this one, whatever happens: the kernel forgets that when
 * a program changes its user, which is why the user is set here before.
 */
export function spawnPinned(
  core: string,
  program: string,
  args: readonly string[],
  stdio: ['ignore' | 'pipe', 'pipe' | number, 'inherit' | 'pipe' | number],
  { env = {}, user = null }: { env?: Record<string, string>; user?: number | null } = {},
): ChildProcess {
  const become = user === null ? [] : [`--reuid=${user}`, `--regid=${user}`, '--clear-groups'];
  const helpers = [`--nofile=${FILES}:${FILES}`, '--', 'setpriv', ...become, '--pdeathsig', 'KILL'];
  return spawn('prlimit', [...helpers, 'taskset', '-c', core, program, ...args], {
    stdio,
    env: { ...process.env, ...env },
  });
}

function giveTo(path: string, user: number): void {
  chownSync(path, user, user);
  for (const entry of readdirSync(path, { withFileTypes: true })) {
    const inner = join(path, entry.name);
    if (entry.isDirectory()) giveTo(inner, user);
    else chownSync(inner, user, user);
  }
  chmodSync(path, 0o755);
}

async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer());
  await Promise.all(servers.map(server => new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))));
  const ports = servers.map(server => (server.address() as AddressInfo).port);
  await Promise.all(servers.map(server => new Promise(resolve => server.close(resolve))));
  return ports;
}

function accepts(port: number): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connect({ port, host: '127.0.0.1' });
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

function childrenOf(pid: number): number[] {
  const found: number[] = [];
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    try {
      if (Number(statOf(Number(name))[1]) === pid) found.push(Number(name));
    } catch {
      // It has ended meanwhile.
    }
  }
  return found.flatMap(child => [child, ...childrenOf(child)]);
}

/** Where each thread of a process may run, as `0` or `0-1`. */
function coresOf(pid: number): string[] {
  return readdirSync(`/proc/${pid}/task`).flatMap(thread => {
    try {
      const text = readFileSync(`/proc/${pid}/task/${thread}/status`, 'latin1');
      return [/^Cpus_allowed_list:\s*(\S+)/m.exec(text)![1]!];
    } catch {
      // It has ended meanwhile.
      return [];
    }
  });
}

/** The fields of /proc/PID/stat behind the name, which may have spaces: state, ppid, … */
function statOf(pid: number): string[] {
  const text = readFileSync(`/proc/${pid}/stat`, 'latin1');
  return text.slice(text.lastIndexOf(')') + 2).split(' ');
}

/** utime, stime, and those of children that have been waited for, with those of children that live. */
function cpuOf(pid: number): number {
  const ticks = [pid, ...childrenOf(pid)].reduce((sum, one) => {
    const [utime, stime, cutime, cstime] = statOf(one).slice(11, 15).map(Number);
    return sum + utime! + stime! + (one === pid ? cutime! + cstime! : 0);
  }, 0);
  return (ticks / TICKS_PER_SECOND) * 1e6;
}

/** CPU time that programs took of the proxies' core since the machine started, and what the host took of it, in microseconds. */
export function takenOfProxyCore(): number {
  const line = new RegExp(`^cpu${PROXY_CORE} (.*)$`, 'm').exec(readFileSync('/proc/stat', 'latin1'))![1]!;
  const [user, nice, system, , , , , steal] = line.trim().split(' ').map(Number);
  return ((user! + nice! + system! + steal!) / TICKS_PER_SECOND) * 1e6;
}

function memoryOf(pid: number): number {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, 'latin1');
  return Number(/^Pss: +(\d+) kB/m.exec(text)![1]) * 1024;
}
