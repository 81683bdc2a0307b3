// A client that writes exactly the bytes it is told to and reads with a deadline. Its little parser of answers is its own, not the product's.
import { connect, type Socket } from 'node:net';

const DEADLINE = 15_000;

/** An answer as it came. */
export interface RawAnswer {
  readonly status: number;
  readonly reason: string;
  /** Lower-case names; several lines of one name joined by `, `. */
  readonly headers: Record<string, string>;
  /** The head as it came, with its empty line. */
  readonly head: string;
  /** Decoded. */
  readonly body: Buffer;
  readonly text: string;
  readonly trailers: Record<string, string>;
}

export interface RawClient extends AsyncDisposable {
  readonly socket: Socket;
  /** Writes text as latin1. */
  write(bytes: string | Buffer): void;
  /** Half-closes. */
  end(): void;
  /** Everything that came and has not been read, now. */
  peek(): Buffer;
  /** Takes exactly so many bytes. */
  read(count: number, deadline?: number): Promise<Buffer>;
  /** Takes everything up to and with this text. */
  readUntil(text: string, deadline?: number): Promise<string>;
  /** Takes one answer; `method` tells how it is framed. */
  readAnswer(method?: string, deadline?: number): Promise<RawAnswer>;
  /** Takes everything until the other side has ended. */
  readAll(deadline?: number): Promise<Buffer>;
  /** Resolves when the connection is gone: how it went. */
  closed(deadline?: number): Promise<'ended' | 'reset'>;
  close(): void;
}

/** Connects to 127.0.0.1 on that port. */
export async function connectRaw(port: number): Promise<RawClient> {
  const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true, noDelay: true });
  await new Promise<void>((resolve, reject) => socket.once('connect', resolve).once('error', reject));
  return rawClientOn(socket);
}

/** The same on a socket that stands already. */
export function rawClientOn(socket: Socket): RawClient {
  // Room behind what is held grows twofold, so that 16 MiB in small reads are not copied again with each.
  let room = Buffer.alloc(0);
  let end = 0;
  let held = room;
  const keep = (chunk: Buffer) => {
    if (end + chunk.length > room.length) {
      room = Buffer.allocUnsafeSlow(2 * (held.length + chunk.length));
      end = held.copy(room);
    }
    const start = end - held.length;
    end += chunk.copy(room, end);
    held = room.subarray(start, end);
  };
  let ended = false;
  let reset = false;
  const waiting = new Set<() => void>();
  const wake = () => {
    for (const one of waiting) one();
  };
  socket.on('data', (chunk: Buffer) => {
    keep(chunk);
    wake();
  });
  socket.on('end', () => {
    ended = true;
    wake();
  });
  socket.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'ECONNRESET' || error.code === 'EPIPE') reset = true;
  });
  socket.on('close', () => {
    ended = true;
    wake();
  });

  /** Waits until `ready` gives something other than undefined. */
  function until<T>(ready: () => T | undefined, what: string, deadline: number): Promise<T> {
    return new Promise((resolve, reject) => {
      const look = () => {
        try {
          const found = ready();
          if (found === undefined) return;
          stop();
          resolve(found);
        } catch (error) {
          stop();
          reject(error as Error);
        }
      };
      const timer = setTimeout(() => {
        stop();
        reject(
          new Error(
            `${what} did not come within ${deadline} ms; so far: ${JSON.stringify(held.toString('latin1').slice(0, 500))}`,
          ),
        );
      }, deadline);
      const stop = () => {
        clearTimeout(timer);
        waiting.delete(look);
      };
      waiting.add(look);
      look();
    });
  }

  function take(count: number): Buffer {
    const taken = held.subarray(0, count);
    held = held.subarray(count);
    return taken;
  }

  const cutShort = (what: string) =>
    new Error(`the connection ended before ${what}; so far: ${JSON.stringify(held.toString('latin1').slice(0, 500))}`);

  const read = (count: number, deadline = DEADLINE) =>
    until(
      () => {
        if (held.length >= count) return take(count);
        if (ended) throw cutShort(`${count} bytes`);
        return undefined;
      },
      `${count} bytes`,
      deadline,
    );

  const readUntil = (text: string, deadline = DEADLINE) =>
    until(
      () => {
        const at = held.indexOf(text, 0, 'latin1');
        if (at !== -1) return take(at + text.length).toString('latin1');
        if (ended) throw cutShort(JSON.stringify(text));
        return undefined;
      },
      JSON.stringify(text),
      deadline,
    );

  const readAll = (deadline = DEADLINE) => until(() => (ended ? take(held.length) : undefined), 'the end', deadline);

  async function readAnswer(method = 'GET', deadline = DEADLINE): Promise<RawAnswer> {
    const head = await readUntil('\r\n\r\n', deadline);
    const [statusLine, ...lines] = head.slice(0, -4).split('\r\n');
    const [, code, reason] = /^HTTP\/1\.1 (\d{3}) (.*)$/.exec(statusLine!) ?? [];
    if (code === undefined) throw new Error(`no status line: ${JSON.stringify(statusLine)}`);
    const status = Number(code);
    const headers = fieldsOf(lines);
    const trailers: Record<string, string> = {};
    let body: Buffer = Buffer.alloc(0);
    if (method === 'HEAD' || status < 200 || status === 204 || status === 304) {
      // No body.
    } else if (headers['transfer-encoding'] === 'chunked') {
      const pieces: Buffer[] = [];
      while (true) {
        const size = parseInt(await readUntil('\r\n', deadline), 16);
        if (size === 0) break;
        pieces.push(await read(size, deadline));
        if ((await read(2, deadline)).toString() !== '\r\n') throw new Error('a chunk without its end');
      }
      body = Buffer.concat(pieces);
      while (true) {
        const line = await readUntil('\r\n', deadline);
        if (line === '\r\n') break;
        Object.assign(trailers, fieldsOf([line.slice(0, -2)]));
      }
    } else if (headers['content-length'] !== undefined) {
      body = await read(Number(headers['content-length']), deadline);
    } else body = await readAll(deadline);
    return { status, reason: reason!, headers, head, body, text: body.toString(), trailers };
  }

  return {
    socket,
    write: bytes => void socket.write(bytes as string, 'latin1'),
    end: () => void socket.end(),
    peek: () => held,
    read,
    readUntil,
    readAnswer,
    readAll,
    closed: async (deadline = DEADLINE) => {
      await until(() => (socket.closed || ended ? true : undefined), 'the end of the connection', deadline);
      return reset ? 'reset' : 'ended';
    },
    close: () => void socket.destroy(),
    async [Symbol.asyncDispose]() {
      socket.destroy();
    },
  };
}

function fieldsOf(lines: readonly string[]): Record<string, string> {
  const headers: Record<string, string> = {};
  for (const line of lines) {
    const colon = line.indexOf(':');
    const name = line.slice(0, colon).toLowerCase();
    const value = line.slice(colon + 1).trim();
    headers[name] = headers[name] === undefined ? value : `${headers[name]}, ${value}`;
  }
  return headers;
}
