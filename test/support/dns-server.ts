// A DNS server of our own, over UDP and TCP on one port, that does as it is told and keeps what it was asked. For a real resolver's view it can
// stand on port 53 of an address that only it has.
import { createSocket } from 'node:dgram';
import { createServer as createHttpsServer } from 'node:https';
import { createServer, type AddressInfo, type Socket } from 'node:net';
import dnsPacket from 'dns-packet';

/** Addresses of a name, or where it leads as an alias; a function is asked anew every time. */
export type DnsRecords = readonly string[] | { readonly alias: string };

export interface DnsScript {
  readonly names?: Readonly<Record<string, DnsRecords | (() => DnsRecords)>>;
  readonly ttl?: number;
  /** Seconds of the SOA record under which a no is said; absent: no SOA. */
  readonly negativeTtl?: number;
  /** An rcode for everything. */
  readonly rcode?: number;
  /** Hears and says nothing; or only to one kind of question. */
  readonly silent?: boolean | 'A' | 'AAAA';
  /** Over UDP every answer is cut off: it has to be asked over TCP. */
  readonly truncates?: boolean;
  /** Sent before the true answer: what a forger would, who knows neither the id nor the question. */
  readonly forges?: readonly ('id' | 'question' | 'garbage')[];
  /** Milliseconds before each answer. */
  readonly delay?: number;
}

export interface DnsServer extends AsyncDisposable {
  readonly host: string;
  readonly port: number;
  /** `host:port`, as it stands in dns.servers. */
  readonly at: string;
  /** Every question, as `A origin.test`; over TCP with `tcp ` before it, over HTTPS with `https `. */
  readonly asked: string[];
  become(script: Partial<DnsScript>): void;
}

const FORGED = '203.0.113.66';

function answerTo(query: dnsPacket.DecodedPacket, script: DnsScript): dnsPacket.Packet {
  const question = query.questions![0]!;
  const { ttl = 60 } = script;
  const answers: dnsPacket.Answer[] = [];
  let name = question.name.toLowerCase();
  let known = false;
  for (let i = 0; i < 8; i++) {
    const written = script.names?.[name];
    const records = typeof written === 'function' ? written() : written;
    known = records !== undefined;
    if (records === undefined) break;
    if ('alias' in records) {
      answers.push({ type: 'CNAME', name, ttl, data: records.alias });
      name = records.alias;
      continue;
    }
    for (const address of records)
      if (question.type === (address.includes(':') ? 'AAAA' : 'A'))
        answers.push({ type: question.type, name, ttl, data: address });
    break;
  }
  const soa: dnsPacket.Answer[] =
    script.negativeTtl === undefined
      ? []
      : [
          {
            type: 'SOA',
            name: 'test',
            ttl: script.negativeTtl,
            data: {
              mname: 'a.test',
              rname: 'b.test',
              serial: 1,
              refresh: 1,
              retry: 1,
              expire: 1,
              minimum: script.negativeTtl,
            },
          },
        ];
  return {
    type: 'response',
    id: query.id,
    flags: dnsPacket.RECURSION_DESIRED | dnsPacket.RECURSION_AVAILABLE | (script.rcode ?? (known ? 0 : 3)),
    questions: query.questions,
    answers: script.rcode === undefined ? answers : [],
    authorities: answers.length === 0 ? soa : [],
  } as dnsPacket.Packet;
}

const isSilent = ({ silent = false }: DnsScript, type: string) => silent === true || silent === type;

/** Starts on a free port of loopback, or where it is told. */
export async function startDnsServer(
  initial: DnsScript = {},
  where: { readonly host?: string; readonly port?: number } = {},
): Promise<DnsServer> {
  let script = initial;
  const { host = '127.0.0.1' } = where;
  const asked: string[] = [];
  const sockets = new Set<Socket>();

  const tcp = createServer(socket => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket)).on('error', () => {});
    let got = Buffer.alloc(0);
    socket.on('data', (chunk: Buffer) => {
      got = Buffer.concat([got, chunk]);
      if (got.length < 2 || got.length < 2 + got.readUInt16BE()) return;
      const query = dnsPacket.streamDecode(got) as dnsPacket.DecodedPacket;
      asked.push(`tcp ${query.questions![0]!.type} ${query.questions![0]!.name}`);
      if (!isSilent(script, query.questions![0]!.type)) socket.end(dnsPacket.streamEncode(answerTo(query, script)));
    });
  });
  await new Promise<void>((resolve, reject) =>
    tcp.once('error', reject).listen(where.port ?? 0, host, () => resolve()),
  );
  const { port } = tcp.address() as AddressInfo;

  const udp = createSocket('udp4');
  udp.on('message', (bytes, from) => {
    const query = dnsPacket.decode(bytes);
    const question = query.questions![0]!;
    asked.push(`${question.type} ${question.name}`);
    if (isSilent(script, question.type)) return;
    const say = (packet: dnsPacket.Packet | Buffer) =>
      udp.send(Buffer.isBuffer(packet) ? packet : dnsPacket.encode(packet), from.port, from.address);
    for (const forgery of script.forges ?? []) {
      if (forgery === 'garbage') {
        say(bytes.subarray(0, 13));
        continue;
      }
      const lie = answerTo(query, { names: { [question.name]: [FORGED] } });
      if (forgery === 'id') say({ ...lie, id: (query.id! + 1) & 0xffff });
      else say({ ...lie, questions: [{ type: question.type, name: 'other.test' }] });
    }
    const truth = answerTo(query, script);
    if (script.truncates) say({ ...truth, flags: truth.flags! | dnsPacket.TRUNCATED_RESPONSE, answers: [] });
    else if (script.delay === undefined) say(truth);
    else setTimeout(say, script.delay, truth);
  });
  await new Promise<void>((resolve, reject) => udp.once('error', reject).bind(port, host, resolve));

  return {
    host,
    port,
    at: `${host}:${port}`,
    asked,
    become(next) {
      script = { ...script, ...next };
    },
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise<void>(resolve => udp.close(() => resolve()));
      await new Promise(resolve => tcp.close(resolve));
    },
  };
}

export interface HttpsDnsScript extends DnsScript {
  /** Instead of 200. */
  readonly status?: number;
  readonly contentType?: string;
  readonly age?: number;
  /** So many bytes instead of an answer. */
  readonly bytes?: number;
}

export interface HttpsDnsServer extends DnsServer {
  /** Connections accepted so far, and open now. */
  readonly connections: { readonly accepted: number; readonly open: number };
  /** Heads of the requests, a line each: method, path, host, content type, and the question's length. */
  readonly requests: string[];
  /** Closes the connections that wait. */
  hangUp(): void;
  /** The connections that stand say nothing any more, as after a change of network; new ones are served. */
  freeze(): void;
}

/** A DNS-over-HTTPS server (RFC 8484, POST) with this key and certificate. */
export async function startHttpsDnsServer(
  tls: { readonly key: string; readonly cert: string },
  initial: HttpsDnsScript = {},
): Promise<HttpsDnsServer> {
  let script = initial;
  const asked: string[] = [];
  const requests: string[] = [];
  const sockets = new Set<Socket>();
  const served = new Set<Socket>();
  const frozen = new Set<Socket>();
  let accepted = 0;
  const server = createHttpsServer(tls, (request, response) => {
    const pieces: Buffer[] = [];
    request.on('data', (piece: Buffer) => pieces.push(piece));
    request.on('end', () => {
      const bytes = Buffer.concat(pieces);
      const query = dnsPacket.decode(bytes);
      const question = query.questions![0]!;
      served.add(request.socket);
      asked.push(`https ${question.type} ${question.name}`);
      requests.push(
        `${request.method} ${request.url} ${request.headers.host} ${request.headers['content-type']} ${query.id} ${bytes.length}`,
      );
      if (isSilent(script, question.type) || frozen.has(request.socket)) return;
      const body = script.bytes === undefined ? dnsPacket.encode(answerTo(query, script)) : Buffer.alloc(script.bytes);
      response.writeHead(script.status ?? 200, {
        'content-type': script.contentType ?? 'application/dns-message',
        age: String(script.age ?? 0),
      });
      response.end(body);
    });
  });
  server.on('connection', (socket: Socket) => {
    accepted++;
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket)).on('error', () => {});
  });
  server.on('tlsClientError', () => {});
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return {
    host: '127.0.0.1',
    port,
    at: `127.0.0.1:${port}`,
    asked,
    requests,
    connections: {
      get accepted() {
        return accepted;
      },
      get open() {
        return sockets.size;
      },
    },
    become(next) {
      script = { ...script, ...next };
    },
    hangUp: () => server.closeIdleConnections(),
    freeze() {
      for (const socket of served) frozen.add(socket);
    },
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise(resolve => server.close(resolve));
    },
  };
}
