// What a process does around a command, however it was started (main.ts, snapshot.ts): its threads, its output, its bugs, its only exit.
import type { run } from './run.ts';

/** Runs what the command line asks for, and ends the process. */
export function runProgram(load: () => Promise<{ run: typeof run }>): void {
  // A name that the system looks up holds a thread for as long, and only half of Node's four may wait so: a page names more hosts than two. To be said
  // before the first thread is used; the others cost nothing that can be measured.
  process.env['UV_THREADPOOL_SIZE'] ??= '16';

  // Whoever reads our output may stop reading (`detour log | head`): that is an end, not a fault.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 70));
  process.on('uncaughtException', error => {
    process.stderr.write(`detour: a bug: ${error.stack ?? error.message}\n`);
    process.exit(70);
  });
  // No top-level await: the bundle is CommonJS, which starts sooner.
  void load()
    .then(({ run }) => run(process.argv.slice(2)))
    .then(code => {
      process.exitCode = code;
      // Timers of a finished command must not hold the terminal; what is printed goes out first.
      process.stdout.write('', () => process.exit());
    });
}
