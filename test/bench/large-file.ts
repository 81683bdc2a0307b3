// `node test/bench/large-file.ts [RULES] [CHAINS]`: what 100,000 rules in list files and 500 chains in the file cost: a reload (all of it, and of one changed site) from
// the writing of the file to the first answer by it, how long the event loop stood still, whether a connection was lost; a decision; memory. The companion is a
// process of its own, the traffic beside it comes from here.
import { type ChildProcess, fork } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, request, Agent, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { startCompanion } from '../../companion/companion.ts';
import { makeListFiles } from '../../companion/filter/list-files.ts';
import { compileMatcher, decideForCompanion } from '../../shared/decision/decide.ts';
import { largeConfig, writeLists } from '../support/large-file.ts';
import { makeHosts } from '../support/make-list.ts';

const HEAD = `guard:\n  allow: [127.0.0.0/8]\ndns:\n  hosts:\n    origin.test: 127.0.0.1\n`;
const ROUNDS = 5;
/** As `npm start` starts it, and with a way to see what is in use. */
const AS_STARTED = ['--max-semi-space-size=8', '--single-threaded-gc', '--expose-gc'];

if (process.argv[2] === 'subject') await beSubject(process.argv[3]!);
else await measure(Number(process.argv[2] ?? 100_000), Number(process.argv[3] ?? 500));

/** Runs a companion, and answers the questions of its parent about itself. */
async function beSubject(folder: string): Promise<void> {
  const companion = await startCompanion({
    configFile: path.join(folder, 'detour.yaml'),
    stateFolder: path.join(folder, 'state'),
    port: 0,
    version: 'bench',
    say: () => {},
  });
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  // The processor may be shared: the CPU that this thread took between two looks tells how long it would have stood still alone.
  let last = process.threadCpuUsage();
  let longest = 0;
  setInterval(() => {
    const now = process.threadCpuUsage();
    longest = Math.max(longest, (now.user - last.user + now.system - last.system) / 1e3);
    last = now;
  }, 1);
  process.on('message', (question: string) => {
    const { gc } = globalThis;
    const stood = delay.max / 1e6;
    const { user, system } = process.cpuUsage();
    const busy = longest;
    if (question === 'reset') {
      delay.reset();
      longest = 0;
    }
    if (question === 'memory') for (let i = 0; i < 4; i++) gc?.();
    const { rss, heapUsed, external } = process.memoryUsage();
    process.send!({ delay: stood, busy, cpu: (user + system) / 1e3, rss, used: heapUsed + external });
  });
  process.send!({ port: companion.at.port, pacUrl: companion.pacUrl });
}

interface Said {
  readonly port: number;
  readonly pacUrl: string;
  readonly delay: number;
  readonly busy: number;
  readonly cpu: number;
  readonly rss: number;
  readonly used: number;
}

function heard(child: ChildProcess): Promise<Said> {
  return new Promise((resolve, reject) => {
    const onExit = () => reject(new Error('it ended'));
    child.once('exit', onExit).once('message', message => {
      child.off('exit', onExit);
      resolve(message as Said);
    });
  });
}

async function ask(child: ChildProcess, question: string): Promise<Said> {
  const answer = heard(child);
  child.send(question);
  return answer;
}

function begin(folder: string): ChildProcess {
  return fork(import.meta.filename, ['subject', folder], { execArgv: AS_STARTED, stdio: 'inherit' });
}

/** The status of a GET by the proxy. */
function get(port: number, url: string, agent: Agent): Promise<number> {
  return new Promise((resolve, reject) => {
    const asked = request(
      { host: '127.0.0.1', port, path: url, agent, headers: { host: new URL(url).host } },
      answer => {
        answer.resume().on('end', () => resolve(answer.statusCode!));
      },
    );
    asked.on('error', reject).end();
  });
}

async function measure(rules: number, chains: number): Promise<void> {
  const folder = mkdtempSync(path.join(tmpdir(), 'detour-large-'));
  const origin: Server = createServer((_, response) => response.end('hello'));
  await new Promise<void>(resolve => origin.listen(0, '127.0.0.1', resolve));
  const url = `http://origin.test:${(origin.address() as AddressInfo).port}/`;
  const children: ChildProcess[] = [];
  try {
    const write = (head: string) =>
      writeFileSync(path.join(folder, 'detour.yaml'), largeConfig(chains, head), { mode: 0o600 });

    // Memory: against a companion that has next to nothing in its file, after the same requests.
    writeFileSync(path.join(folder, 'detour.yaml'), HEAD, { mode: 0o600 });
    const agent = new Agent({ keepAlive: true, maxSockets: 4 });
    const warmUp = async (child: ChildProcess): Promise<Said> => {
      const said = await heard(child);
      await (await fetch(said.pacUrl)).text();
      for (let i = 0; i < 2_000; i++) await get(said.port, `${url}${i}`, agent);
      return said;
    };
    const small = begin(folder);
    children.push(small);
    await warmUp(small);
    const before = await ask(small, 'memory');
    small.kill();

    writeLists(folder, rules);
    write(HEAD);
    const large = begin(folder);
    children.push(large);
    const { port } = await warmUp(large);
    const after = await ask(large, 'memory');

    // Reloads, with traffic beside them on connections that must stay.
    let failed = 0;
    let done = 0;
    const traffic = { running: true };
    const streams = Array.from({ length: 4 }, async () => {
      while (traffic.running) {
        await get(port, `${url}${done++ % 100}`, agent).then(
          status => status === 200 || failed++,
          () => failed++,
        );
        await new Promise(resolve => setTimeout(resolve, 5));
      }
    });
    const poll = new Agent({ keepAlive: true });
    const reload = async (change: () => void, host: string) => {
      const { cpu } = await ask(large, 'reset');
      change();
      const began = performance.now();
      while ((await get(port, `http://${host}/`, poll)) !== 403) {
        if (performance.now() - began > 20_000) throw new Error(`${host} is not blocked`);
        await new Promise(resolve => setTimeout(resolve, 2));
      }
      const time = performance.now() - began;
      const after = await ask(large, 'reset');
      return { time, delay: after.delay, busy: after.busy, cpu: after.cpu - cpu };
    };
    const rows: [string, { time: number; delay: number; busy: number; cpu: number }[]][] = [
      ['one site changed', []],
      ['all lists and the file changed', []],
    ];
    for (let round = 0; round < ROUNDS; round++) {
      const site = `one-${round}.test`;
      rows[0]![1].push(await reload(() => write(`${HEAD}sites:\n  ${site}: block\n`), site));
      const other = `all-${round}.test`;
      rows[1]![1].push(
        await reload(() => {
          writeLists(folder, rules, round + 2);
          write(`${HEAD}sites:\n  ${other}: block\n`);
        }, other),
      );
    }
    traffic.running = false;
    await Promise.all(streams);
    const later = await ask(large, 'memory');
    large.kill();

    const median = (values: number[]) => values.toSorted((a, b) => a - b)[values.length >> 1]!;
    const MiB = 1024 * 1024;
    for (const [name, all] of rows)
      console.log(
        `reload, ${name}: ${median(all.map(one => one.time)).toFixed(0)} ms (100 of them the file is let settle; ${median(all.map(one => one.cpu)).toFixed(0)} ms of CPU, with the traffic); the loop stood still for at most ${Math.max(...all.map(one => one.delay)).toFixed(0)} ms (${Math.max(...all.map(one => one.busy)).toFixed(0)} ms of CPU)`,
      );
    console.log(`traffic meanwhile: ${done} requests, ${failed} failed`);
    console.log(`a decision over cold hosts: ${(await decisionTime(folder, rules)).toFixed(2)} µs`);
    console.log(
      `memory: ${((after.rss - before.rss) / MiB).toFixed(1)} MiB more (${((after.used - before.used) / MiB).toFixed(1)} of it in use), after the reloads ${((later.rss - before.rss) / MiB).toFixed(1)} (${((later.used - before.used) / MiB).toFixed(1)})`,
    );
    agent.destroy();
    poll.destroy();
  } finally {
    for (const child of children) child.kill();
    origin.close();
    rmSync(folder, { recursive: true, force: true });
  }
}

/** CPU of this process for each host that is decided about for the first time: every other one is in a list. */
async function decisionTime(folder: string, rules: number): Promise<number> {
  const listed = writeLists(folder, rules);
  const action = { do: 'route', route: 'work', filter: 'standard', cache: 'standard', inspect: false } as const;
  const common = { every: 86_400, via: 'companion', action } as const;
  const { lists } = await makeListFiles().load(
    [
      { file: 'hosts.txt', format: 'hosts', ...common },
      { file: 'blocked.txt', format: 'hosts', ...common },
      { file: 'v2fly.txt', format: 'v2fly', ...common },
      { file: 'clash.yaml', format: 'clash', ...common },
    ],
    ({ file }) => path.join(folder, file!),
  );
  const cold = makeHosts(100_000, 77).flatMap((host, i) => [`www.${host}`, `a.b.${listed[i % listed.length]}`]);
  const matcher = compileMatcher({ rules: [], lists });
  for (let i = 0; i < 5_000; i++) decideForCompanion(matcher, { host: `warm-${i}.test` }, 'companion');
  const began = process.cpuUsage();
  for (const host of cold) decideForCompanion(matcher, { host }, 'companion');
  const { user, system } = process.cpuUsage(began);
  return (user + system) / cold.length;
}
