// Stands for node:crypto in the start-up snapshot (rolldown.snapshot.config.ts), which must not have loaded it: a thread of a process that begins with a heap in which
// it was loaded cannot load it any more, and ends the process (seen in Node 24). So it is loaded when it is first needed. A start needs random numbers only,
// and these the system has as well.
import type * as Crypto from 'node:crypto';
import { closeSync, openSync, readSync } from 'node:fs';

const real = (): typeof Crypto => process.getBuiltinModule('node:crypto');

/** Drawn from the system at each call. */
export function randomBytes(count: number): Buffer {
  const bytes = Buffer.alloc(count);
  let file: number;
  try {
    file = openSync('/dev/urandom', 'r');
  } catch {
    return real().randomBytes(count);
  }
  try {
    for (let got = 0; got < count;) {
      const read = readSync(file, bytes, got, count - got, null);
      if (read === 0) throw new Error('/dev/urandom has an end');
      got += read;
    }
  } finally {
    closeSync(file);
  }
  return bytes;
}

export const createHash: typeof Crypto.createHash = (...args) => real().createHash(...args);
export const createHmac: typeof Crypto.createHmac = (...args) => real().createHmac(...args);
export const hash = ((...args: Parameters<typeof Crypto.hash>) => real().hash(...args)) as typeof Crypto.hash;
export const timingSafeEqual: typeof Crypto.timingSafeEqual = (...args) => real().timingSafeEqual(...args);
