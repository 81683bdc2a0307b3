// Who holds a port: for the one sentence that a person needs when it is taken. Linux only; elsewhere nobody is named.
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

/** `squid (pid 123)`, or null where it cannot be known. */
export function holderOf(port: number): string | null {
  try {
    const inodes = new Set<string>();
    for (const file of ['/proc/net/tcp', '/proc/net/tcp6']) {
      for (const line of readFileSync(file, 'latin1').split('\n').slice(1)) {
        const [, local, , state, , , , , , inode] = line.trim().split(/\s+/);
        // State 0A is LISTEN.
        if (state === '0A' && parseInt(local!.split(':')[1]!, 16) === port) inodes.add(`socket:[${inode}]`);
      }
    }
    for (const pid of readdirSync('/proc').filter(name => /^\d+$/.test(name))) {
      let descriptors: string[];
      try {
        descriptors = readdirSync(`/proc/${pid}/fd`);
      } catch {
        continue;
      }
      for (const fd of descriptors) {
        try {
          if (inodes.has(readlinkSync(`/proc/${pid}/fd/${fd}`)))
            return `${readFileSync(`/proc/${pid}/comm`, 'utf8').trim()} (pid ${pid})`;
        } catch {
          // It was closed meanwhile.
        }
      }
    }
  } catch {
    // No /proc.
  }
  return null;
}
