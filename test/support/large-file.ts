// A large configuration: so many chains in the file and so many rules in list files of several formats.
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { makeHosts } from './make-list.ts';

const LISTS = [
  { file: 'hosts.txt', format: 'hosts', line: (host: string) => host },
  { file: 'blocked.txt', format: 'hosts', line: (host: string) => `0.0.0.0 ${host}` },
  { file: 'v2fly.txt', format: 'v2fly', line: (host: string) => `domain:${host}` },
  { file: 'clash.yaml', format: 'clash', line: (host: string) => `  - '+.${host}'` },
] as const;

/** The text of a file with `chains` chains over as many hops, and `head` above; the lists are files beside it (see writeLists). */
export function largeConfig(chains: number, head: string): string {
  const lines = [head.trimEnd(), 'hops:'];
  for (let i = 0; i < chains; i++) lines.push(`  hop${i}: socks5://user${i}:pass${i}@hop${i}.example:1080`);
  lines.push('routes:');
  for (let route = 0; route < chains / 10; route++) {
    const list = Array.from({ length: 10 }, (_, i) => `[hop${route * 10 + i}, hop${(route * 10 + i + 7) % chains}]`);
    lines.push(`  route${route}: [${list.join(', ')}]`);
  }
  lines.push('lists:');
  for (const [i, { file, format }] of LISTS.entries())
    lines.push(`  - { file: ${file}, format: ${format}, ${i === 1 ? 'block: true' : `route: route${i}`} }`);
  return `${lines.join('\n')}\n`;
}

/** So many rules, shared out among the files of the lists. Gives back the hosts. */
export function writeLists(folder: string, rules: number, seed = 1): string[] {
  const hosts = makeHosts(rules, seed);
  const share = Math.ceil(rules / LISTS.length);
  for (const [i, { file, line }] of LISTS.entries()) {
    const own = hosts.slice(i * share, (i + 1) * share).map(line);
    if (file === 'clash.yaml') own.unshift('payload:');
    writeFileSync(path.join(folder, file), `${own.join('\n')}\n`);
  }
  return hosts;
}
