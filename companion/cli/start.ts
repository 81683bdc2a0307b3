// `detour start`: runs the companion until a signal, and says what to do next.
import { formatEndpoint } from '../../shared/endpoint.ts';
import { type Companion, startCompanion } from '../companion.ts';
import { ConfigError } from '../config/config-error.ts';
import { StateFolderTaken } from '../control/state-folder.ts';
import { codeText } from './code-text.ts';
import { holderOf } from './port-holder.ts';
import { shown, style } from './style.ts';

export interface StartOptions {
  readonly configFile: string;
  readonly stateFolder: string;
  readonly port: number | undefined;
  readonly version: string;
}

/** Resolves with the exit code once the companion has ended. */
export async function start(options: StartOptions): Promise<number> {
  let companion: Companion;
  try {
    companion = await startCompanion({
      ...options,
      say: (message, kind) =>
        process.stderr.write(`${style(kind === 'warning' ? 'yellow' : 'green', `${shown(message)}\n`)}`),
    });
  } catch (error) {
    return failed(error, options);
  }
  process.stdout.write(greeting(companion));
  return new Promise(resolve => {
    let stopping = false;
    const stop = (signal: NodeJS.Signals) => {
      if (stopping) process.exit(signal === 'SIGINT' ? 130 : 143);
      stopping = true;
      process.stdout.write('Stopping; open exchanges may end. A second signal stops at once.\n');
      companion.close().then(
        () => resolve(0),
        (error: Error) => {
          process.stderr.write(`detour: ${error.message}\n`);
          resolve(70);
        },
      );
    };
    process.on('SIGINT', stop);
    process.on('SIGTERM', stop);
  });
}

function failed(error: unknown, options: StartOptions): number {
  const say = (text: string) => (process.stderr.write(`${shown(text)}\n`), 1);
  if (error instanceof ConfigError) return say(error.message);
  if (error instanceof StateFolderTaken)
    return say(
      `detour: ${error.message} Two companions cannot share one file; give the second one its own with --config.`,
    );
  const { code, syscall, port, address } = error as NodeJS.ErrnoException & { port?: number; address?: string };
  if (syscall === 'listen' && port !== undefined) {
    const at = formatEndpoint({ host: address ?? '127.0.0.1', port });
    if (code === 'EADDRINUSE') {
      const holder = holderOf(port);
      return say(
        `detour: ${at} is taken${holder === null ? '' : ` by ${holder}`}. Stop it, or choose another port with --port N or listen: in ${options.configFile}.`,
      );
    }
    return say(`detour: cannot listen on ${at}: ${code}.`);
  }
  if (code !== undefined && syscall !== undefined)
    return say(`detour: ${(error as Error).message} (state folder: ${options.stateFolder})`);
  throw error;
}

function greeting(companion: Companion): string {
  const { DETOUR_CHROME_DIR: chrome, DETOUR_FIREFOX_DIR: firefox } = process.env;
  const lines = [
    `${style('bold', 'Detour')} listens on ${formatEndpoint(companion.at)}`,
    ...(companion.openAt === null
      ? []
      : [`              and for other machines on ${formatEndpoint(companion.openAt)}`]),
    `File          ${companion.configFile}`,
  ];
  if (chrome !== undefined || firefox !== undefined) {
    lines.push('', 'Next: load the extension');
    if (chrome !== undefined)
      lines.push(`  Chrome, Edge  chrome://extensions → Developer mode → Load unpacked → ${chrome}`);
    if (firefox !== undefined)
      lines.push(
        `  Firefox       about:debugging#/runtime/this-firefox → Load Temporary Add-on → ${firefox}/manifest.json`,
      );
  }
  if (companion.isPaired) lines.push('', 'A browser is paired. `detour pair` prints a code for another one.');
  else
    lines.push('', codeText(companion.newCode().code, companion.at.port), 'Type it into the popup of the extension.');
  lines.push('', 'Ctrl-C stops it.');
  return `${lines.join('\n')}\n`;
}
