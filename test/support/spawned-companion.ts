// The companion as a process of its own, running on a free port, with an eye on what it takes of the system: memory, files, processor (Linux).
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import type { Bytes, Milliseconds } from '../../shared/units.ts';
import { makePlace, type Place, type Running, spawnDetour, TEST_CONFIG } from './with-companion.ts';

export interface SpawnedCompanion extends AsyncDisposable {
  readonly port: number;
  readonly pid: number;
  readonly place: Place;
  readonly running: Running;
  /** Its resident memory now. */
  memory(): Bytes;
  /** What it holds of its memory now: after a full collection, without what V8 keeps for later. */
  held(): Promise<Bytes>;
  /** Its open files now. */
  files(): number;
  /** Processor time so far. */
  processorTime(): Milliseconds;
}

export interface SpawnOptions {
  /** Behind TEST_CONFIG. */
  readonly config?: string;
  /** Instead of a place of its own; it stays. */
  readonly place?: Place;
  /** The port that its file names, instead of a free one. */
  readonly fixedPort?: boolean;
  /** A command that runs it, and ends by becoming it. */
  readonly within?: readonly string[];
}

/** Starts it and waits until it listens. Its young generation is kept small, so that memory says what is held and not what could be collected. */
export async function spawnCompanion(options: SpawnOptions = {}): Promise<SpawnedCompanion> {
  const place = options.place ?? makePlace(TEST_CONFIG + (options.config ?? ''));
  const saysHeld = path.join(place.folder, 'held');
  const hook = pathToFileURL(path.resolve('test/support/say-held.ts')).href;
  const env = { NODE_OPTIONS: `--max-semi-space-size=8 --import ${hook}`, SAY_HELD_IN: saysHeld };
  const args = ['start', '--config', place.configFile, ...(options.fixedPort === true ? [] : ['--port', '0'])];
  const running = spawnDetour(args, place, env, options.within);
  const [, port] = await running.printed(/listens on \S+:(\d+)/);
  const pid = running.child.pid!;
  return {
    port: Number(port),
    pid,
    place,
    running,
    memory: () => Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) * 1024,
    async held() {
      rmSync(saysHeld, { force: true });
      process.kill(pid, 'SIGUSR2');
      for (let i = 0; i < 500 && !existsSync(saysHeld); i++) await new Promise(resolve => setTimeout(resolve, 20));
      return Number(readFileSync(saysHeld, 'utf8'));
    },
    files: () => readdirSync(`/proc/${pid}/fd`).length,
    processorTime() {
      // Fields 14 and 15 of proc(5), in hundredths of a second; the name before them may have spaces.
      const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ');
      return (Number(fields[11]) + Number(fields[12])) * 10;
    },
    async [Symbol.asyncDispose]() {
      await running[Symbol.asyncDispose]();
      if (!options.place) place[Symbol.dispose]();
    },
  };
}
