// Runs the programs that a check or a test run is made of: each in a process group of its own, so that it can be stopped with all
// its children, and none longer than it may.
import { spawn } from 'node:child_process';
import { styleText } from 'node:util';
import type { Milliseconds } from '../../shared/units.ts';

/** What came of one program. `printed` is empty when its output went straight to the terminal. */
export interface StageResult {
  ok: boolean;
  took: Milliseconds;
  printed: string;
}

const GRACE = 5_000;
const running = new Set<(signal: NodeJS.Signals) => void>();

/** Stops every program that runs now, with its children; those still there 5 s later are killed. */
export function stopStages(): void {
  for (const stop of running) stop('SIGTERM');
  setTimeout(() => {
    for (const stop of running) stop('SIGKILL');
  }, GRACE).unref();
}

/**
 * Runs a command of `node_modules/.bin` (first in PATH) or any other to its end, or kills it when `limit` has passed. `show` says
 * whether it prints to the terminal; otherwise what it prints comes back.
 */
export function runProgram(
  command: string,
  args: readonly string[],
  options: { show: boolean; limit: Milliseconds; env?: NodeJS.ProcessEnv },
): Promise<StageResult> {
  const began = performance.now();
  const windows = process.platform === 'win32';
  return new Promise(resolve => {
    const child = spawn(command, args, {
      env: { ...process.env, ...options.env },
      detached: !windows,
      shell: windows,
      stdio: ['ignore', options.show ? 'inherit' : 'pipe', options.show ? 'inherit' : 'pipe'],
    });
    let printed = '';
    const keep = (chunk: string) => {
      if (printed.length < 1_000_000) printed += chunk;
    };
    child.stdout?.setEncoding('utf8').on('data', keep);
    child.stderr?.setEncoding('utf8').on('data', keep);
    const stop = (signal: NodeJS.Signals) => {
      try {
        if (windows || child.pid === undefined) child.kill(signal);
        else process.kill(-child.pid, signal);
      } catch {
        // Already gone.
      }
    };
    running.add(stop);
    let late = false;
    const deadline = setTimeout(() => {
      late = true;
      stop('SIGTERM');
      setTimeout(() => stop('SIGKILL'), GRACE).unref();
    }, options.limit);
    const finish = (ok: boolean, extra = '') => {
      clearTimeout(deadline);
      running.delete(stop);
      if (late) extra += `${command} was stopped: it took longer than ${options.limit / 1000} s\n`;
      if (options.show && extra) process.stderr.write(extra);
      resolve({ ok: ok && !late, took: performance.now() - began, printed: printed + extra });
    };
    child.on('error', error => finish(false, `${command} did not start: ${error.message}\n`));
    child.on('close', (code, signal) =>
      finish(code === 0, code === 0 ? '' : `${command} ended with ${signal ?? code}\n`),
    );
  });
}

/** One line on the terminal: a tick or a cross, what it was, how long it took. */
export function reportStage(name: string, ok: boolean, took: Milliseconds): void {
  const mark = ok ? styleText('green', '✓') : styleText('red', '✗');
  process.stdout.write(`${mark} ${name} (${(took / 1000).toFixed(1)} s)\n`);
}
