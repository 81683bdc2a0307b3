// The proxies that are measured: how each is started on a free port in a folder of its own, pinned to the proxies' core, and what it costs.
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { type AddressInfo, connect, createServer } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { findProgram } from '../support/ensure-peers.ts';

/** The one core of the proxies, and the one of load and origin. */
export const PROXY_CORE = '0';
export const LOAD_CORE = '1';
const TICKS_PER_SECOND = 100;
const FILES = 16_384;

const FLOOR = fileURLToPath(new URL('./floor.ts', import.meta.url));
const root = fileURLToPath(new URL('../..', import.meta.url));

export interface Subject {
  readonly name: string;
  /** What has to be installed where it cannot run; null where it can. */
  readonly missing: string | null;
  /** Whether a hit is served from its own memory. */
  readonly caches: boolean;
  /** Whether it keeps connections. One that closes them unannounced makes the load count a read error for every request. */
  readonly keeps: boolean;
  /** Writes its configuration and gives the command. */
  command(port: number, folder: string): string[];
}

export interface Running {
  readonly subject: Subject;
  readonly port: number;
  readonly pid: number;
  /** From the start of the process to the first connection that it took. */
  readonly startedAfter: number;
  /** CPU time of the process and its children, in microseconds (to 10 ms). */
  cpu(): number;
  /** Its memory and its children's that is resident and not shared with others (Pss), in bytes. */
  memory(): number;
  stop(): Promise<void>;
}

const written = (folder: string, name: string, lines: readonly string[]): string => {
  const path = join(folder, name);
  writeFileSync(path, `${lines.join('\n')}\n`, { mode: 0o600 });
  return path;
};

/** All that can be measured. `companion`: the command that starts the companion, without its options; by itself the built one, else the source. */
export function subjects(companion: string[] | null, more: readonly string[]): Subject[] {
  const bundle = join(root, '.output/companion/detour.js');
  // As `npm start` runs it.
  const start = companion ?? [
    process.execPath,
    '--max-semi-space-size=4',
    existsSync(bundle) ? bundle : join(root, 'companion/main.ts'),
  ];
  const missing = (program: string, debian: string) =>
    findProgram(program) === undefined ? `${program} is not installed (on Debian: apt-get install ${debian})` : null;
  return [
    {
      name: 'detour',
      missing: companion !== null || existsSync(start.at(-1)!) ? null : 'the companion is not built',
      caches: true,
      keeps: true,
      command: (port, folder) => [
        ...start.slice(0, 1),
        ...more,
        ...start.slice(1),
        'start',
        '--config',
        written(folder, 'detour.yaml', [
          `listen: 127.0.0.1:${port}`,
          'guard: { allow: [127.0.0.0/8], connectPorts: [1-65535] }',
        ]),
      ],
    },
    {
      name: 'squid',
      missing: missing('squid', 'squid'),
      caches: true,
      keeps: true,
      command: (port, folder) => [
        findProgram('squid')!,
        '-N',
        '-f',
        written(folder, 'squid.conf', [
          `http_port 127.0.0.1:${port}`,
          'http_access allow all',
          'workers 1',
          'cache_mem 64 MB',
          'maximum_object_size_in_memory 8 MB',
          'access_log none',
          'cache_log /dev/null',
          'cache_store_log none',
          'pid_filename none',
          `coredump_dir ${folder}`,
          'pinger_enable off',
          'shutdown_lifetime 0 seconds',
          `max_filedescriptors ${FILES}`,
          'via off',
          'forwarded_for delete',
        ]),
      ],
    },
    {
      name: 'tinyproxy',
      missing: missing('tinyproxy', 'tinyproxy'),
      caches: false,
      keeps: false,
      command: (port, folder) => [
        findProgram('tinyproxy')!,
        '-d',
        '-c',
        written(folder, 'tinyproxy.conf', [
          'Listen 127.0.0.1',
          `Port ${port}`,
          'MaxClients 8192',
          'Timeout 600',
          'LogLevel Critical',
          `LogFile "${join(folder, 'log')}"`,
          'DisableViaHeader Yes',
        ]),
      ],
    },
    {
      name: 'node floor',
      missing: null,
      caches: true,
      keeps: true,
      command: port => [process.execPath, FLOOR, String(port)],
    },
  ];
}

/** Starts it and waits until it takes connections. */
export async function startProxy(subject: Subject, parent: string): Promise<Running> {
  const port = await freePort();
  const folder = join(parent, `${subject.name.replaceAll(' ', '-')}-${port}`);
  mkdirSync(folder);
  const log = join(folder, 'output');
  const output = openSync(log, 'w');
  const [program, ...args] = subject.command(port, folder);
  const began = performance.now();
  const child = spawnPinned(PROXY_CORE, program!, args, ['ignore', output, output], {
    DETOUR_STATE_DIR: join(folder, 'state'),
  });
  closeSync(output);
  const ended = new Promise<void>(resolve => child.once('exit', () => resolve()));
  const said = () => readFileSync(log, 'utf8').slice(-500);
  while (!(await accepts(port))) {
    if (child.exitCode !== null || child.signalCode !== null)
      throw new Error(`${subject.name} did not start: ${said()}`);
    if (performance.now() - began > 15_000) {
      child.kill('SIGKILL');
      throw new Error(`${subject.name} took no connection within 15 s: ${said()}`);
    }
    await new Promise(resolve => setTimeout(resolve, 2));
  }
  const startedAfter = performance.now() - began;
  const pid = child.pid!;
  return {
    subject,
    port,
    pid,
    startedAfter,
    cpu: () => cpuOf(pid),
    memory: () => [pid, ...childrenOf(pid)].reduce((sum, one) => sum + memoryOf(one), 0),
    stop: async () => {
      child.kill('SIGTERM');
      const late = setTimeout(() => child.kill('SIGKILL'), 3_000);
      await ended;
      clearTimeout(late);
    },
  };
}

/** A process on one core. taskset becomes the program, so the pid is the program's. It ends with this one, whatever happens. */
export function spawnPinned(
  core: string,
  program: string,
  args: readonly string[],
  stdio: ['ignore' | 'pipe', 'pipe' | number, 'inherit' | 'pipe' | number],
  env: Record<string, string> = {},
): ChildProcess {
  const limit = ['--nofile=16384:16384', '--', 'setpriv', '--pdeathsig', 'KILL', 'taskset', '-c', core, program];
  return spawn('prlimit', [...limit, ...args], { stdio, env: { ...process.env, ...env } });
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise(resolve => server.close(resolve));
  return port;
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

function memoryOf(pid: number): number {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, 'latin1');
  return Number(/^Pss: +(\d+) kB/m.exec(text)![1]) * 1024;
}
