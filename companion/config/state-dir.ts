// Where the companion keeps what is not configuration: pairings, the PAC's secret, the CLI's token. Each configuration file has its
// own folder, so that two companions with two files share no tokens, and a CLI command finds its companion by the same --config.
import { createHash } from 'node:crypto';
import { realpathSync } from 'node:fs';
import { homedir } from 'node:os';
import { isAbsolute, join, resolve } from 'node:path';
import { locateConfig } from './places.ts';

/**
 * The state folder of a configuration file: `$DETOUR_STATE_DIR` as it is when set; else `$XDG_STATE_HOME/detour` or
 * `~/.local/state/detour` (Windows: `%LOCALAPPDATA%\detour`) for the file at its default place; for any other, `at-<hash of its real
 * path>` in there. Nothing is made.
 */
export function stateFolderOf(configPath: string, env: NodeJS.ProcessEnv = process.env): string {
  if (env['DETOUR_STATE_DIR']) return resolve(env['DETOUR_STATE_DIR']);
  const base = stateBase(env);
  const real = realPath(configPath);
  if (real === realPath(locateConfig(undefined, env))) return base;
  return join(base, `at-${createHash('sha256').update(real).digest('hex').slice(0, 16)}`);
}

function stateBase(env: NodeJS.ProcessEnv): string {
  const xdg = env['XDG_STATE_HOME'];
  if (xdg !== undefined && isAbsolute(xdg)) return join(xdg, 'detour');
  if (process.platform === 'win32' && env['LOCALAPPDATA']) return join(env['LOCALAPPDATA'], 'detour');
  return join(env['HOME'] || homedir(), '.local', 'state', 'detour');
}

function realPath(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return resolve(path); // not made yet
  }
}
