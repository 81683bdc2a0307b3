// Where the configuration file is, and what a path written in it means.
import { homedir } from 'node:os';
import { dirname, isAbsolute, join, resolve } from 'node:path';

/** The file: `--config`, else `$XDG_CONFIG_HOME/detour/detour.yaml`, else `~/.config/detour/detour.yaml` (Windows: `%APPDATA%`). */
export function locateConfig(given: string | undefined, env: NodeJS.ProcessEnv = process.env): string {
  if (given !== undefined) return given;
  const xdg = env['XDG_CONFIG_HOME'];
  // The XDG specification has relative paths ignored.
  if (xdg !== undefined && isAbsolute(xdg)) return join(xdg, 'detour', 'detour.yaml');
  if (process.platform === 'win32' && env['APPDATA']) return join(env['APPDATA'], 'detour', 'detour.yaml');
  return join(env['HOME'] || homedir(), '.config', 'detour', 'detour.yaml');
}

/** A path written in the file (`lists[].file`, `log.file`): relative to the file's folder; `~/` is the home folder. */
export function pathFromConfig(configPath: string, written: string, env: NodeJS.ProcessEnv = process.env): string {
  if (written.startsWith('~/')) return join(env['HOME'] || homedir(), written.slice(2));
  return resolve(dirname(configPath), written);
}
