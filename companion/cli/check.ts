// `detour check [FILE]`: reads the file as the companion would, and starts nothing.
import { existsSync } from 'node:fs';
import { checkConfig } from '../config/check-config.ts';
import { findOwnListenerHops } from '../guard/acl.ts';
import { findOpenListener } from '../guard/listen-place.ts';
import { findOwnerUnknown } from '../guard/owner.ts';
import { shown } from './style.ts';

export async function check(path: string): Promise<number> {
  if (!existsSync(path)) {
    process.stderr.write(`detour: ${path}: there is no such file\n`);
    return 1;
  }
  const report = await checkConfig(path, [
    config => findOpenListener(config),
    config => findOwnerUnknown(config),
    config => findOwnListenerHops(config, config.listen),
  ]);
  for (const warning of report.warnings) process.stderr.write(`${shown(warning)}\n`);
  if (report.ok) process.stdout.write(`${report.summary}\n`);
  else for (const problem of report.problems) process.stderr.write(`${shown(problem)}\n`);
  return report.ok ? 0 : 1;
}
