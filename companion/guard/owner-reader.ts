// A thread of its own that looks up whose sockets these are. Linux lists every TCP socket of the machine in two text files, and walks through all its
// tables to do so: milliseconds, the more sockets the longer. So one reading serves all who wait, ends when the last one is found, and turns to the
// second file only for those who are not in the first. It imports nothing of ours, so that it stays a small file in the bundle, too.
import { closeSync, openSync, readSync } from 'node:fs';
import { parentPort } from 'node:worker_threads';

/** Sockets to look up, each by the texts it may be listed under: `local:port remote:port`, as in the files. */
export type OwnerQuestion = readonly (readonly string[])[];
/** For each the user id of its owner; null = it is not listed, or belongs to nobody (any more). */
export type OwnerAnswer = (number | null)[];

/** The files, each with the length of two addresses with their ports in it. */
const FILES = [
  { path: '/proc/net/tcp', width: 27 },
  { path: '/proc/net/tcp6', width: 75 },
] as const;
/** The kernel gives a page or so at a time. */
const piece = Buffer.allocUnsafe(64 * 1024);

/** Hands over the file line by line until `take` says false. */
function readLines(path: string, take: (line: string) => boolean): void {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch {
    // A machine without IPv6.
    return;
  }
  try {
    let rest = '';
    for (;;) {
      const count = readSync(fd, piece, 0, piece.length, null);
      if (count === 0) return;
      const text = rest + piece.toString('latin1', 0, count);
      let at = 0;
      for (let end = text.indexOf('\n'); end !== -1; end = text.indexOf('\n', at)) {
        if (!take(text.slice(at, end))) return;
        at = end + 1;
      }
      rest = text.slice(at);
    }
  } finally {
    closeSync(fd);
  }
}

/** `sl: local remote st tx:rx tr:when retrnsmt uid timeout inode …`. Without an inode the socket has no process, and its user id says nothing. */
function ownerOf(line: string): number | null {
  const fields = line.trim().split(/\s+/);
  return fields.length > 9 && fields[9] !== '0' ? Number(fields[7]) : null;
}

function look(question: OwnerQuestion): OwnerAnswer {
  const answer: OwnerAnswer = question.map(() => null);
  for (const { path, width } of FILES) {
    const places = new Map<string, number>();
    for (const [place, texts] of question.entries()) {
      const text = answer[place] === null ? texts.find(one => one.length === width) : undefined;
      if (text !== undefined) places.set(text, place);
    }
    if (places.size === 0) continue;
    readLines(path, line => {
      const begin = line.indexOf(': ') + 2;
      const text = line.slice(begin, begin + width);
      const place = places.get(text);
      if (place === undefined) return true;
      answer[place] = ownerOf(line);
      places.delete(text);
      return places.size > 0;
    });
  }
  return answer;
}

parentPort?.on('message', (question: OwnerQuestion) => parentPort!.postMessage(look(question)));
