// What is measured: each makes a load, on the load's core, through one proxy or straight to the origin, and says whether what was asked for really happened.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  LOAD_CORE,
  type OriginCounts,
  type OriginPorts,
  type Running,
  type Skill,
  spawnPinned,
  type TunnelTarget,
} from './proxies.ts';
import type { TunnelOrder } from './tunnel-load.ts';

const TUNNEL_LOAD = fileURLToPath(new URL('./tunnel-load.ts', import.meta.url));
const BODY = 1024;
const MEBIBYTE = 1024 * 1024;
/** More than any proxy adds to the 1 KiB. */
const MOST_HEAD = 1024;

/** The way of a load: a proxy, or none. */
export type Way = Pick<Running, 'port' | 'targetOf' | 'host' | 'tunnelTo'> & { readonly keeps: boolean };

export interface Load {
  /** Answers, tunnels, round trips; for bulk MB. */
  readonly operations: number;
  readonly seconds: number;
  readonly errors: number;
  /** Microseconds, where the load knows them. */
  readonly p50?: number;
  readonly p99?: number;
}

export interface Measure {
  readonly name: string;
  /** Of each round. */
  readonly seconds: number;
  /** Only proxies that keep answers. */
  readonly caching: boolean;
  /** Also without a proxy: what it adds is what counts. */
  readonly direct: boolean;
  /** What a proxy must be able to do; all that can are configured to send everything through such a parent. Null: straight to the origin. */
  readonly through: Skill | null;
  run(way: Way, seconds: number): Promise<Load>;
  /** The load without the proxy, where that is more than `run` straight to the origin. */
  runDirect?(seconds: number): Promise<Load>;
  /** What is asked for, and how many there are of it, where hits are measured. */
  readonly path?: string;
  readonly urls?: number;
  /** What is wrong with it, seen from the origin; null where the load did what its name says. */
  fault(load: Load, reached: OriginCounts): string | null;
}

/** Straight to the origin. */
export function directWay(origin: OriginPorts): Way {
  return {
    port: origin.http,
    host: `127.0.0.1:${origin.http}`,
    keeps: true,
    targetOf: path => path,
    tunnelTo: target => ({ port: origin[target], ask: false, host: '127.0.0.1' }),
  };
}

/** All of them. Loads leave their scripts in `folder`. */
export function measuresOf(origin: OriginPorts, folder: string): Measure[] {
  const usual = { seconds: 2, caching: false, direct: false, through: null };
  const wrk = (path: string, connections: number, { body = BODY, urls = 1, fields = '' } = {}) => ({
    path,
    urls,
    run: (way: Way, seconds: number) => runWrk(folder, way, { path, urls, fields, sites: false }, connections, seconds),
    fault: (load: Load & { bytes?: number }, reached: OriginCounts) => {
      const each = load.bytes! / load.operations;
      if (load.operations === 0) return 'no answer at all';
      // What was under way at the end was counted by its bytes alone.
      const most = body + MOST_HEAD + (body * connections) / load.operations;
      if (each < body || each > most) return `answers of ${Math.round(each)} bytes for a body of ${body}`;
      if (path.startsWith('/hit')) return reached.hits === 0 ? null : `${reached.hits} hits reached the origin`;
      // What was under way at the end reached the origin and was not counted.
      return amiss('requests', reached.misses + reached.parent, load.operations, connections + load.errors);
    },
  });
  const tunnels = (mode: TunnelOrder['mode'], target: TunnelTarget, parallel: number) => ({
    run: (way: Way, seconds: number) => runTunnels(way, mode, target, origin, seconds),
    fault: (load: Load, reached: OriginCounts) => {
      if (load.operations === 0) return 'nothing came through';
      const opened = mode === 'setups' || mode === 'connects' ? load.operations : parallel;
      return amiss(
        'tunnels',
        reached.tunnels,
        opened,
        mode === 'connects' || mode === 'setups' ? parallel + load.errors : 0,
      );
    },
  });
  return [
    { ...usual, name: 'hit-1k', caching: true, ...wrk('/hit', 32) },
    { ...usual, name: 'hit-many', seconds: 1, caching: true, ...wrk('/hit/', 32, { urls: 1_000 }) },
    {
      ...usual,
      name: 'hit-304',
      seconds: 1,
      caching: true,
      ...wrk('/hit-304', 32, { body: 0, fields: '["If-None-Match"] = \'"bench"\'' }),
    },
    { ...usual, name: 'hit-1m', caching: true, ...wrk('/hit-1m', 8, { body: MEBIBYTE }) },
    { ...usual, name: 'miss-1k', ...wrk('/miss/', 32) },
    { ...usual, name: 'tunnel-down', seconds: 1, ...tunnels('down', 'bulk', 4) },
    { ...usual, name: 'tunnel-up', seconds: 1, ...tunnels('up', 'sink', 4) },
    { ...usual, name: 'tunnel-setups', seconds: 1.2, ...tunnels('setups', 'echo', 16) },
    { ...usual, name: 'hit-latency', seconds: 1, caching: true, direct: true, ...wrk('/hit', 1) },
    { ...usual, name: 'miss-latency', seconds: 1, direct: true, ...wrk('/miss/', 1) },
    { ...usual, name: 'tunnel-latency', seconds: 0.6, direct: true, ...tunnels('roundtrips', 'echo', 1) },
    { ...usual, name: 'connect-latency', seconds: 0.6, direct: true, ...tunnels('connects', 'echo', 1) },
    { ...usual, name: 'hit-1000', caching: true, ...wrk('/hit', 1000) },
    { ...usual, name: 'hit-4000', seconds: 3, caching: true, ...wrk('/hit', 4000) },
    { ...usual, name: 'parent-miss', seconds: 1, through: 'http', ...wrk('/miss/', 32) },
    { ...usual, name: 'parent-bulk', seconds: 0.6, through: 'http-connect', ...tunnels('down', 'bulk', 4) },
    { ...usual, name: 'parent-setups', seconds: 0.8, through: 'http-connect', ...tunnels('setups', 'echo', 16) },
    { ...usual, name: 'socks-miss', seconds: 1, through: 'socks5', ...wrk('/miss/', 32) },
    { ...usual, name: 'socks-bulk', seconds: 0.6, through: 'socks5', ...tunnels('down', 'bulk', 4) },
    { ...usual, name: 'socks-setups', seconds: 0.8, through: 'socks5', ...tunnels('setups', 'echo', 16) },
    { ...usual, name: 'fallback', seconds: 1, direct: true, through: 'fallback', ...refusedRequests(origin, folder) },
    { ...usual, name: 'fallback-connect', seconds: 0.6, direct: true, through: 'fallback', ...refusedTunnels(origin) },
  ];
}

/** What both ways say no to and serve in the end: each must have been refused once and served once. */
const faultOfFallback = (served: 'parent' | 'tunnels') => (load: Load, reached: OriginCounts) =>
  load.operations === 0
    ? 'no answer at all'
    : (amiss('refused requests', reached.refused, load.operations, 1 + load.errors) ??
      amiss('requests', reached[served], load.operations, 1 + load.errors));

/** The time for both proxies, one after the other: the refusal of the first and the answer of the second. */
function sumOf(refusal: Load, answer: Load): Load {
  return {
    operations: answer.operations,
    seconds: answer.seconds,
    errors: answer.errors,
    p50: refusal.p50! + answer.p50!,
    p99: refusal.p99! + answer.p99!,
  };
}

/** A site of its own for each request, as no site is refused twice where outcomes are remembered; the names are nobody's but the parents'. */
function refusedRequests(origin: OriginPorts, folder: string): Pick<Measure, 'run' | 'runDirect' | 'fault'> {
  const asks = { path: '/miss/', urls: 1, fields: '', sites: true };
  const straight = (port: number): Way => ({ ...directWay(origin), port });
  return {
    run: (way, seconds) => runWrk(folder, way, asks, 1, seconds),
    runDirect: async seconds => {
      const refusal = await runWrk(folder, straight(origin.refusing), asks, 1, seconds);
      if (refusal.errors !== refusal.operations) throw new Error('the refusing proxy did not refuse everything');
      return sumOf(refusal, await runWrk(folder, straight(origin.parent), asks, 1, seconds));
    },
    fault: faultOfFallback('parent'),
  };
}

/** The same by CONNECT. */
function refusedTunnels(origin: OriginPorts): Pick<Measure, 'run' | 'runDirect' | 'fault'> {
  const to = (port: number): Pick<Way, 'tunnelTo'> => ({
    tunnelTo: () => ({ port, ask: true, host: `s*-${newRun()}.example` }),
  });
  return {
    run: (way, seconds) => runTunnels(to(way.port), 'connects', 'echo', origin, seconds),
    runDirect: async seconds =>
      sumOf(
        await runTunnels(to(origin.refusing), 'refusals', 'echo', origin, seconds),
        await runTunnels(to(origin.parent), 'connects', 'echo', origin, seconds),
      ),
    fault: faultOfFallback('tunnels'),
  };
}

const newRun = () => Math.floor(Math.random() * 2 ** 40).toString(36);

function amiss(what: string, reached: number, wanted: number, slack: number): string | null {
  if (reached >= wanted && reached <= wanted + slack) return null;
  return `${reached} ${what} reached the origin for ${wanted} that were answered`;
}

/** What wrk asks for. */
interface Asks {
  /** A URL of its own for each request where it ends in a slash. */
  readonly path: string;
  /** How many of these there are; 1: no end of them. */
  readonly urls: number;
  /** More fields, as Lua writes them. */
  readonly fields: string;
  /** A host of its own for each request, in absolute-form. */
  readonly sites: boolean;
}

async function runWrk(folder: string, way: Way, asks: Asks, connections: number, seconds: number): Promise<Load> {
  const script = join(folder, 'wrk.lua');
  writeFileSync(script, wrkScript(way, asks));
  const args = ['-t1', `-c${connections}`, `-d${Math.max(1, Math.round(seconds))}s`, '--timeout', '20s', '-s', script];
  const text = await runLoad('wrk', [...args, `http://127.0.0.1:${way.port}`]);
  const load = JSON.parse(/\{"operations".*\}/.exec(text)![0]) as Load & { closed: number };
  return way.keeps ? load : { ...load, errors: load.errors - load.closed };
}

function wrkScript(way: Way, { path, urls, fields, sites }: Asks): string {
  const run = newRun();
  return `
local n = 0
local url = "${way.targetOf(path)}"
local headers = { Host = "${way.host}"${fields && `, ${fields}`} }
local same = wrk.format("GET", url, headers)
local many = {}
for i = 1, ${urls > 1 ? urls : 0} do many[i] = wrk.format("GET", url .. i, headers) end
request = function()
  if ${urls} > 1 then
    n = n % ${urls} + 1
    return many[n]
  end
  if not ${path.endsWith('/')} then return same end
  n = n + 1
  if ${sites} then
    local host = "s" .. n .. "-${run}.example"
    return wrk.format("GET", "http://" .. host .. "${path}", { Host = host })
  end
  return wrk.format("GET", url .. "${run}-" .. n, headers)
end
done = function(summary, latency)
  local e = summary.errors
  print("RESULT " .. string.format('{"operations":%d,"bytes":%d,"seconds":%f,"errors":%d,"closed":%d,"p50":%f,"p99":%f}', summary.requests,
    summary.bytes, summary.duration / 1e6, e.connect + e.read + e.write + e.status + e.timeout, e.read + e.write,
    latency:percentile(50), latency:percentile(99)))
end
`;
}

/** An order for the load of tunnels on this way. */
export function tunnelOrder(
  way: Pick<Way, 'tunnelTo'>,
  mode: TunnelOrder['mode'],
  target: TunnelTarget,
  origin: OriginPorts,
  amount: number,
): string[] {
  const { port, ask, host } = way.tunnelTo(target);
  const order: TunnelOrder = { mode, port, host, target: ask ? origin[target] : null, amount, counts: origin.counts };
  return [TUNNEL_LOAD, JSON.stringify(order)];
}

async function runTunnels(
  way: Pick<Way, 'tunnelTo'>,
  mode: TunnelOrder['mode'],
  target: TunnelTarget,
  origin: OriginPorts,
  seconds: number,
): Promise<Load> {
  return JSON.parse(await runLoad(process.execPath, tunnelOrder(way, mode, target, origin, seconds))) as Load;
}

/** Runs a program on the load's core and gives back what it printed. */
async function runLoad(program: string, args: readonly string[]): Promise<string> {
  const child = spawnPinned(LOAD_CORE, program, args, ['ignore', 'pipe', 'pipe']);
  let text = '';
  child.stdout!.on('data', (chunk: Buffer) => (text += String(chunk)));
  child.stderr!.on('data', (chunk: Buffer) => (text += String(chunk)));
  const code = await new Promise(resolve => child.once('close', resolve));
  if (code !== 0) throw new Error(`the load failed: ${text.trim().slice(-300)}`);
  return text;
}
