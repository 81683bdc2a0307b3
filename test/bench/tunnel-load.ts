// The load of tunnels. `node tunnel-load.ts setups|bulk|idle PROXYPORT TARGETPORT SECONDS|COUNT` prints one line of JSON when it has measured;
// `idle` then holds its tunnels until its input ends.
import { connect, type Socket } from 'node:net';

const [mode, proxyText, targetText, amountText] = process.argv.slice(2);
const proxyPort = Number(proxyText);
const targetPort = Number(targetText);
const amount = Number(amountText);
const ASK = `CONNECT 127.0.0.1:${targetPort} HTTP/1.1\r\nHost: 127.0.0.1:${targetPort}\r\n\r\n`;
const PARALLEL_SETUPS = 16;
const PARALLEL_BULK = 4;

/** Opens a tunnel; then every byte that comes goes to `onBytes`. */
function openTunnel(onBytes: (count: number, socket: Socket) => void): Promise<Socket> {
  return new Promise((resolve, reject) => {
    let head: string | null = '';
    const buffer = Buffer.allocUnsafeSlow(mode === 'bulk' ? 256 * 1024 : 1024);
    const socket: Socket = connect({
      port: proxyPort,
      host: '127.0.0.1',
      noDelay: true,
      onread: {
        buffer,
        callback: (count, bytes) => {
          if (head === null) {
            onBytes(count, socket);
            return true;
          }
          head += Buffer.from(bytes.buffer, bytes.byteOffset, count).toString('latin1');
          const end = head.indexOf('\r\n\r\n');
          if (end === -1) return true;
          if (!/^HTTP\/1\.[01] 200/.test(head)) {
            reject(new Error(head.slice(0, 80)));
            socket.destroy();
            return true;
          }
          const early = head.length - end - 4;
          head = null;
          resolve(socket);
          if (early > 0) onBytes(early, socket);
          return true;
        },
      },
    });
    socket.on('connect', () => void socket.write(ASK));
    socket.on('error', reject);
    socket.on('close', () => reject(new Error('closed before the tunnel stood')));
  });
}

const print = (result: object) => void process.stdout.write(`${JSON.stringify(result)}\n`);
const clock = () => performance.now() / 1000;

/** Open, one byte there and back, close; again and again. */
async function setups(): Promise<void> {
  const began = clock();
  let done = 0;
  let errors = 0;
  const worker = async () => {
    while (clock() - began < amount) {
      try {
        let echoed = () => {};
        const back = new Promise<void>(resolve => {
          echoed = resolve;
        });
        const socket = await openTunnel(() => echoed());
        socket.write('x');
        await back;
        socket.destroy();
        done++;
      } catch {
        errors++;
        if (errors > 1000) return;
      }
    }
  };
  await Promise.all(Array.from({ length: PARALLEL_SETUPS }, worker));
  print({ operations: done, seconds: clock() - began, errors });
}

/** Takes what comes through several tunnels at once. */
async function bulk(): Promise<void> {
  let bytes = 0;
  const sockets = await Promise.all(
    Array.from({ length: PARALLEL_BULK }, () =>
      openTunnel(count => {
        bytes += count;
      }),
    ),
  );
  const began = clock();
  bytes = 0;
  await new Promise(resolve => setTimeout(resolve, amount * 1000));
  const result = { operations: bytes / 1e6, seconds: clock() - began, errors: 0 };
  for (const socket of sockets) socket.destroy();
  print(result);
}

/** Opens so many tunnels, a few at a time, and keeps them. */
async function idle(): Promise<void> {
  const sockets: Socket[] = [];
  const worker = async () => {
    while (sockets.length < amount) {
      const socket = await openTunnel(() => {});
      sockets.push(socket);
    }
  };
  await Promise.all(Array.from({ length: 8 }, worker));
  print({ operations: sockets.length, seconds: 0, errors: 0 });
  process.stdin.resume();
  await new Promise(resolve => process.stdin.on('end', resolve));
  process.exit();
}

await (mode === 'setups' ? setups() : mode === 'bulk' ? bulk() : idle());
process.exit();
