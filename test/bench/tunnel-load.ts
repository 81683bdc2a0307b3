// The load of tunnels. `node tunnel-load.ts '{"mode":…}'` prints one line of JSON when it has measured; `idle` then holds its tunnels until its input ends.
import { connect, type Socket } from 'node:net';
import type { OriginCounts } from './proxies.ts';

/** What it is told. */
export interface TunnelOrder {
  /**
   * setups: open, a byte there and back, close, 16 at a time · down, up: bytes through four tunnels · idle: holds tunnels · roundtrips: a byte there and
   * back through one tunnel · connects: open, a byte there and back; one after another · refusals: ask for tunnels that are
   * refused by 403, likewise.
   */
  readonly mode: 'setups' | 'down' | 'up' | 'idle' | 'roundtrips' | 'connects' | 'refusals';
  /** Where to connect. */
  readonly port: number;
  /** The target to ask for by CONNECT; null where the port leads there by itself. */
  readonly target: number | null;
  /** What CONNECT names beside that port; a `*` in it is another number each time. */
  readonly host: string;
  /** Seconds, or for `idle` the number of tunnels. */
  readonly amount: number;
  /** Where the origin tells its counts. */
  readonly counts: number;
}

const { mode, port, target, host, amount, counts } = JSON.parse(process.argv[2]!) as TunnelOrder;
let asked = 0;
const askText = () => {
  const authority = `${host.replace('*', String(++asked))}:${target}`;
  return `CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\n\r\n`;
};
const PARALLEL_SETUPS = 16;
const PARALLEL_BULK = 4;
const PATTERN = Buffer.from('bulk');

/** Opens a tunnel; then every byte that comes goes to `onBytes`. */
function openTunnel(onBytes: (count: number, bytes: Uint8Array) => void): Promise<Socket> {
  return new Promise((resolve, reject) => {
    let head: string | null = target === null ? null : '';
    const buffer = Buffer.allocUnsafeSlow(mode === 'down' ? 256 * 1024 : 1024);
    const socket: Socket = connect({
      port,
      host: '127.0.0.1',
      noDelay: true,
      onread: {
        buffer,
        callback: (count, bytes) => {
          if (head === null) {
            onBytes(count, bytes);
            return true;
          }
          head += Buffer.from(bytes.buffer, bytes.byteOffset, count).toString('latin1');
          const end = head.indexOf('\r\n\r\n');
          if (end === -1) return true;
          if (!/^HTTP\/1\.[01] 200/.test(head)) {
            reject(new Error(head.slice(0, 80)));
            socket.destroy();
            return true;
          }
          const early = Buffer.from(head.slice(end + 4), 'latin1');
          head = null;
          resolve(socket);
          if (early.length > 0) onBytes(early.length, early);
          return true;
        },
      },
    });
    socket.on('connect', () => {
      if (target === null) resolve(socket);
      else socket.write(askText());
    });
    socket.on('error', reject);
    socket.on('close', () => reject(new Error('closed before the tunnel stood')));
  });
}

const print = (result: object) => void process.stdout.write(`${JSON.stringify(result)}\n`);
const clock = () => performance.now() / 1000;

function originCounts(): Promise<OriginCounts> {
  return new Promise((resolve, reject) => {
    let text = '';
    const socket = connect({ port: counts, host: '127.0.0.1' });
    socket.on('data', chunk => (text += String(chunk)));
    socket.on('end', () => resolve(JSON.parse(text) as OriginCounts));
    socket.on('error', reject);
  });
}

async function setups(): Promise<void> {
  const began = clock();
  let operations = 0;
  let errors = 0;
  const worker = async () => {
    while (clock() - began < amount) {
      try {
        let echoed = () => {};
        const back = new Promise<void>(resolve => {
          echoed = resolve;
        });
        const socket = await openTunnel(() => echoed());
        socket.write('x');
        await back;
        socket.destroy();
        operations++;
      } catch {
        errors++;
        if (errors > 1000) return;
      }
    }
  };
  await Promise.all(Array.from({ length: PARALLEL_SETUPS }, worker));
  print({ operations, seconds: clock() - began, errors });
}

/** Takes what comes through several tunnels at once, and sees that nothing is lost between. */
async function down(): Promise<void> {
  let bytes = 0;
  let errors = 0;
  const sockets = await Promise.all(
    Array.from({ length: PARALLEL_BULK }, () => {
      let mine = 0;
      return openTunnel((count, read) => {
        if (read[0] !== PATTERN[mine % PATTERN.length]) errors++;
        mine += count;
        bytes += count;
      });
    }),
  );
  const began = clock();
  bytes = 0;
  await new Promise(resolve => setTimeout(resolve, amount * 1000));
  const result = { operations: bytes / 1e6, seconds: clock() - began, errors };
  for (const socket of sockets) socket.destroy();
  print(result);
}

/** Sends through several tunnels at once; what counts is what the origin took. */
async function up(): Promise<void> {
  const piece = Buffer.alloc(256 * 1024, 'bulk');
  const sockets = await Promise.all(Array.from({ length: PARALLEL_BULK }, () => openTunnel(() => {})));
  let errors = 0;
  for (const socket of sockets) {
    const send = () => {
      while (socket.writable && socket.write(piece));
    };
    socket.on('drain', send);
    socket.on('error', () => errors++);
    send();
  }
  await new Promise(resolve => setTimeout(resolve, 100));
  const before = await originCounts();
  const began = clock();
  await new Promise(resolve => setTimeout(resolve, amount * 1000));
  const after = await originCounts();
  const seconds = clock() - began;
  for (const socket of sockets) socket.destroy();
  print({ operations: (after.sunk - before.sunk) / 1e6, seconds, errors });
}

/** Opens so many tunnels, a few at a time, and keeps them. */
async function idle(): Promise<void> {
  const sockets: Socket[] = [];
  const worker = async () => {
    while (sockets.length < amount) {
      const socket = await openTunnel(() => {});
      sockets.push(socket);
    }
  };
  await Promise.all(Array.from({ length: 8 }, worker));
  print({ operations: sockets.length, seconds: 0, errors: 0 });
  process.stdin.resume();
  await new Promise(resolve => process.stdin.on('end', resolve));
  process.exit();
}

/** Does it again and again; prints the percentiles of how long it took, in microseconds, less the milliseconds that it gives back. */
async function timed(once: () => Promise<number>): Promise<void> {
  const took: number[] = [];
  let errors = 0;
  const began = clock();
  while (clock() - began < amount && errors < 100) {
    const at = performance.now();
    try {
      const idle = await once();
      took.push((performance.now() - at - idle) * 1000);
    } catch {
      errors++;
    }
  }
  const seconds = clock() - began;
  took.sort((a, b) => a - b);
  const at = (share: number) => took[Math.min(took.length - 1, Math.floor(took.length * share))] ?? null;
  print({ operations: took.length, seconds, errors, p50: at(0.5), p99: at(0.99) });
}

async function roundtrips(): Promise<void> {
  let echoed = () => {};
  const socket = await openTunnel(() => echoed());
  socket.on('error', () => {});
  await timed(
    () =>
      new Promise(resolve => {
        echoed = () => resolve(0);
        socket.write('x');
      }),
  );
}

async function connects(): Promise<void> {
  await timed(async () => {
    let echoed = () => {};
    const back = new Promise<void>(resolve => {
      echoed = resolve;
    });
    const socket = await openTunnel(() => echoed());
    socket.write('x');
    await back;
    const at = performance.now();
    socket.destroy();
    // That it closes everywhere is no part of the next one.
    await new Promise(resolve => setTimeout(resolve, 1));
    return performance.now() - at;
  });
}

/** The time from `connect` to the end of a refusal. */
async function refusals(): Promise<void> {
  await timed(
    () =>
      new Promise((resolve, reject) => {
        openTunnel(() => {}).then(
          () => reject(new Error('a tunnel instead of a refusal')),
          (error: Error) => (/^HTTP\/1\.[01] 403/.test(error.message) ? resolve(0) : reject(error)),
        );
      }),
  );
}

await { setups, down, up, idle, roundtrips, connects, refusals }[mode]();
process.exit();
