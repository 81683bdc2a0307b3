// The floor: the least that a proxy on node:http and node:net does. It forwards with kept connections, keeps what says max-age in a Map for ever,
// and pipes tunnels. It checks nothing, limits nothing, records nothing. `node floor.ts PORT [PARENTPORT]`
import { Agent, createServer, type IncomingHttpHeaders, request as askOrigin } from 'node:http';
import { connect } from 'node:net';

const parent = process.argv[3] === undefined ? null : Number(process.argv[3]);
const agent = new Agent({ keepAlive: true, maxSockets: 256 });
const kept = new Map<string, { status: number; headers: IncomingHttpHeaders; body: Buffer }>();

const server = createServer((incoming, outgoing) => {
  const url = incoming.url!;
  const found = kept.get(url);
  if (found !== undefined) {
    outgoing.writeHead(found.status, found.headers);
    outgoing.end(found.body);
    return;
  }
  const { hostname, port, pathname } = new URL(url);
  const headers = { ...incoming.headers };
  delete headers['proxy-connection'];
  const way = parent === null ? { hostname, port, path: pathname } : { hostname: '127.0.0.1', port: parent, path: url };
  const upstream = askOrigin({ ...way, method: incoming.method, headers, agent }, answer => {
    outgoing.writeHead(answer.statusCode!, answer.headers);
    if (!answer.headers['cache-control']?.includes('max-age')) {
      answer.pipe(outgoing);
      return;
    }
    const pieces: Buffer[] = [];
    answer.on('data', (piece: Buffer) => pieces.push(piece));
    answer.on('end', () => {
      const body = Buffer.concat(pieces);
      kept.set(url, { status: answer.statusCode!, headers: answer.headers, body });
      outgoing.end(body);
    });
  });
  upstream.on('error', () => outgoing.destroy());
  incoming.pipe(upstream);
});

server.on('connect', (incoming, downstream, head) => {
  const [host, port] = incoming.url!.split(':');
  const upstream = connect({ host: host!, port: Number(port), noDelay: true, allowHalfOpen: true });
  upstream.on('connect', () => {
    downstream.write('HTTP/1.1 200 OK\r\n\r\n');
    if (head.length > 0) upstream.write(head);
    downstream.pipe(upstream);
    upstream.pipe(downstream);
  });
  upstream.on('error', () => downstream.destroy());
  downstream.on('error', () => upstream.destroy());
  upstream.on('close', () => downstream.destroy());
  downstream.on('close', () => upstream.destroy());
});

server.listen(Number(process.argv[2]), '127.0.0.1');
