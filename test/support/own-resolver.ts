// A process whose system resolver (getaddrinfo) asks a DNS server of ours and nothing else: it runs in a mount namespace with a resolv.conf of its
// own. The server stands on port 53 of a loopback address that nobody else has, so whatever the process asks the DNS for, it hears.
import { execFileSync } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { existsSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { type DnsScript, type DnsServer, startDnsServer } from './dns-server.ts';

/** Whether there can be one here; says plainly when not, and with CI=true that is a failure. For `describe.runIf`. */
export function haveOwnResolvers(): boolean {
  try {
    if (process.getuid?.() !== 0) throw new Error('only root may listen on port 53');
    execFileSync('unshare', ['--mount', 'mount', '-t', 'tmpfs', 'none', '/dev/shm'], { stdio: 'pipe' });
    return true;
  } catch (error) {
    const reason = `a resolver of its own needs root and mount namespaces: ${(error as Error).message.split('\n', 1)[0]}`;
    if (process.env.CI === 'true') throw new Error(`With CI=true it must run: ${reason}`, { cause: error });
    console.warn(`Not run: tests that watch the system's resolver: ${reason}`);
    return false;
  }
}

export interface OwnResolver extends DnsServer {
  /** A command that runs the rest of its line so that the system's resolver asks this server. */
  readonly through: readonly string[];
}

/** Starts the server; the files of the resolver are written into `folder`. */
export async function startOwnResolver(folder: string, script: DnsScript = {}): Promise<OwnResolver> {
  const server = await startOn53(script);
  const files: Record<string, string> = {
    '/etc/resolv.conf': `nameserver ${server.host}\noptions timeout:1 attempts:1\n`,
    '/etc/nsswitch.conf': 'hosts: dns\n',
  };
  const mounts = Object.entries(files).flatMap(([file, text]) => {
    const own = path.join(folder, path.basename(file));
    writeFileSync(own, text);
    return existsSync(file) ? [`mount --bind '${own}' ${file}`] : [];
  });
  return Object.assign(server, {
    through: ['unshare', '--mount', 'sh', '-c', `${mounts.join(' && ')} && exec "$0" "$@"`],
  });
}

async function startOn53(script: DnsScript, tries = 5): Promise<DnsServer> {
  try {
    return await startDnsServer(script, { host: `127.94.${randomInt(1, 255)}.${randomInt(1, 255)}`, port: 53 });
  } catch (error) {
    if (tries === 1) throw error;
    return startOn53(script, tries - 1);
  }
}
