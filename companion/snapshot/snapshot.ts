// `detour` as a V8 start-up snapshot: a start takes up a heap in which all modules have run and what a start and its first requests use is compiled already.
// This file runs when the snapshot is made (make.mjs), and lets a companion serve a request for that. Whatever a module finds out when it is loaded, it
// finds out then: what belongs to one run (secrets, the environment, this machine) must be asked for later. test/snapshot.test.ts holds to that.
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { startupSnapshot } from 'node:v8';
import { runProgram } from '../cli/program.ts';
import { run } from '../cli/run.ts';
import { start } from '../cli/start.ts';
import { startCompanion } from '../companion.ts';
import { locateConfig } from '../config/places.ts';
import { stateFolderOf } from '../config/state-dir.ts';

const BODY = 'x'.repeat(1_024);
const ANSWER = `HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: ${BODY.length}\r\nCache-Control: no-store\r\n\r\n${BODY}`;

/** The longest interval of a warm-up, in milliseconds. */
const SHORT = 20;

/** A companion from its start to its end, with some requests, in a folder that is gone afterwards. */
async function warmUp(): Promise<void> {
  // net loads it for every listener; the sooner the better.
  process.getBuiltinModule('node:cluster');
  // What reading the command line takes.
  parseArgs({ args: ['start', '--port', '0'], allowPositionals: true, options: { port: { type: 'string' } } });
  stateFolderOf(locateConfig(undefined));
  const folder = mkdtempSync(join(tmpdir(), 'detour-snapshot-'));
  const origin = createServer(socket => socket.on('data', () => socket.write(ANSWER)).on('error', () => {}));
  try {
    await once(origin.listen(0, '127.0.0.1'), 'listening');
    const { port } = origin.address() as AddressInfo;
    const configFile = join(folder, 'detour.yaml');
    writeFileSync(configFile, 'listen: 127.0.0.1:1\nguard: { allow: [127.0.0.0/8] }\ncache: { disk: 0 }\n', {
      mode: 0o600,
    });
    const stateFolder = join(folder, 'state');
    const companion = await startCompanion({ configFile, stateFolder, port: 0, version: '', say: () => {} });
    try {
      for (let i = 0; i < 3; i++) await ask(companion.at.port, port);
    } finally {
      await companion.close();
    }
  } finally {
    origin.close();
    rmSync(folder, { recursive: true });
  }
}

function ask(proxy: number, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const host = `127.0.0.1:${port}`;
    let text = '';
    const socket = connect(proxy, '127.0.0.1', () =>
      socket.write(`GET http://${host}/ HTTP/1.1\r\nHost: ${host}\r\n\r\n`),
    );
    socket.setEncoding('latin1').on('data', chunk => {
      text += chunk;
      if (text.endsWith(BODY)) socket.destroy();
    });
    socket.on('error', reject).on('close', () => (text.endsWith(BODY) ? resolve() : reject(new Error(text))));
  });
}

/**
 * Does the work, and leaves no timer behind. Node keeps lists of timers by how long they take, even of those that were cleared, until that time has passed;
 * who joins a list in the next process, by another clock, would wait for ever (seen in Node 24). So no interval is long here, and all are waited for.
 */
async function withShortTimers(work: () => Promise<void>): Promise<void> {
  const { setInterval } = globalThis;
  globalThis.setInterval = ((tick: () => void, delay?: number) =>
    setInterval(tick, Math.min(delay ?? 1, SHORT))) as typeof setInterval;
  try {
    await work();
  } finally {
    globalThis.setInterval = setInterval;
  }
  await new Promise(resolve => setTimeout(resolve, 2 * SHORT));
}

void withShortTimers(warmUp).then(() =>
  startupSnapshot.setDeserializeMainFunction(() => {
    // Should a list be left all the same: from its first timer that runs on, Node goes by the right clock.
    setTimeout(() => {}, 1);
    // Who started us may be gone without a word (bootstrap.mjs): the channel to it closes then.
    process.once('disconnect', () => process.kill(process.pid, 'SIGTERM'));
    process.channel?.unref();
    runProgram(() => Promise.resolve({ run }));
  }),
);
// Loaded now, rather than when it is asked for.
void start;
