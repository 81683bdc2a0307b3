// `detour check [FILE]`: reads the file as the companion would, and starts nothing.
import { existsSync } from 'node:fs';
import { readHops } from '../chain/secrets.ts';
import { checkConfig, type FilesOf } from '../config/check-config.ts';
import { findOwnListenerHops } from '../guard/acl.ts';
import { findOpenListener } from '../guard/listen-place.ts';
import { findOwnerUnknown } from '../guard/owner.ts';
import { shown } from './style.ts';

export async function check(path: string): Promise<number> {
  if (!existsSync(path)) {
    process.stderr.write(`detour: ${path}: there is no such file\n`);
    return 1;
  }
  const read: FilesOf = async ({ hops }, pathOf, warn) =>
    (await readHops(hops, { pathOf, folder: null, env: process.env, warn })).problems;
  const report = await checkConfig(
    path,
    [
      config => findOpenListener(config),
      config => findOwnerUnknown(config),
      config => findOwnListenerHops(config, config.listen),
    ],
    read,
  );
  for (const warning of report.warnings) process.stderr.write(`${shown(warning)}\n`);
  if (report.ok) process.stdout.write(`${report.summary}\n`);
  else for (const problem of report.problems) process.stderr.write(`${shown(problem)}\n`);
  return report.ok ? 0 : 1;
}
