// Memory in which small answers are put together before they are written, used again as long as the system takes each at once: a buffer of its own for
// every answer would cost more than its bytes do.
import type { Socket } from './socket.ts';

/** The longest answer that is put together. */
export const MAX_TOGETHER = 32 * 1024;

let memory: Buffer = Buffer.allocUnsafeSlow(MAX_TOGETHER);
/** Views of its beginning, by their length: answers of a few lengths come again and again. */
const views: (Buffer | undefined)[] = Array.from({ length: 64 }, () => undefined);

/** Where to put the bytes; to be asked for anew each time. */
export function outgoing(): Buffer {
  return memory;
}

/** Writes what has been put into the first `length` bytes. False asks to wait for 'drain', as `write` does. */
export function writeOutgoing(socket: Socket, length: number): boolean {
  let bytes = views[length & 63];
  if (bytes?.length !== length) views[length & 63] = bytes = memory.subarray(0, length);
  // Node's own sockets do not say when they have done with it.
  if (!('readWith' in socket)) return socket.write(Buffer.from(bytes));
  const before = socket.writableLength;
  const isFree = socket.write(bytes);
  if (socket.writableLength !== before) {
    // It waits there: the next answer is put together elsewhere.
    memory = Buffer.allocUnsafeSlow(MAX_TOGETHER);
    views.fill(undefined);
  }
  return isFree;
}
