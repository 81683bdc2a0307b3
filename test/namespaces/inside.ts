// What runs in the namespace of the origin: a web server over http and https that says where it was asked from, and the only DNS server there is. It
// is told by lines on its input what to do to whom; it ends with its input.
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { readFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { startDnsServer } from '../support/dns-server.ts';

const [resolver, pemFile, ...names] = process.argv.slice(2) as [string, string, ...string[]];
const pem = readFileSync(pemFile, 'utf8');
/** Connections from these addresses are reset, or never answered. */
const resets = new Set<string>();
const silent = new Set<string>();

const serve = (request: IncomingMessage, response: ServerResponse) => {
  const from = request.socket.remoteAddress!;
  process.stdout.write(`asked ${request.headers.host}${request.url} ${from}\n`);
  if (silent.has(from)) return;
  // Kept connections of before.
  if (resets.has(from)) return void request.socket.resetAndDestroy();
  const body = `<!doctype html><title>here</title><link rel="icon" href="data:,"><p id="here">from ${from}</p>`;
  response.writeHead(200, {
    'content-type': 'text/html',
    'cache-control': 'no-store',
    'content-length': body.length,
    connection: 'close',
  });
  response.end(body);
};
const resetting = (socket: Socket) => {
  socket.on('error', () => {});
  if (resets.has(socket.remoteAddress!)) socket.once('data', () => socket.resetAndDestroy());
};
createServer(serve).on('connection', resetting).listen(80, '0.0.0.0');
createTlsServer({ key: pem, cert: pem }, serve).on('connection', resetting).listen(443, '0.0.0.0');
const records = Object.fromEntries(names.map(name => name.split('=') as [string, string]));
await startDnsServer(
  { names: Object.fromEntries(Object.entries(records).map(([name, address]) => [name, [address]])) },
  { host: resolver, port: 53 },
);

createInterface({ input: process.stdin })
  .on('line', line => {
    const [what, from] = line.split(' ') as [string, string];
    if (what === 'reset') resets.add(from);
    else if (what === 'silence') silent.add(from);
    else {
      resets.clear();
      silent.clear();
    }
    process.stdout.write(`${line}\n`);
  })
  .on('close', () => process.exit(0));
process.stdout.write('ready\n');
