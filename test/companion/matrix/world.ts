// Where the cells of one arm happen: an origin, two hops that misbehave alike, two that do not, each with an address and a login of its own, and one
// companion whose file has a route for every cell.
import { createHash, randomBytes } from 'node:crypto';
import { Agent, createServer, request as httpRequest, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { type AddressInfo, connect, type Server, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Exchange } from '../../../shared/exchange.ts';
import { makeTestAuthority } from '../../support/certificates.ts';
import { closedPort } from '../../support/hop.ts';
import { type MisbehavingHop, startMisbehavingHop, type Tongue } from '../../support/misbehaving-hop.ts';
import { cliToken, startTestCompanion, type TestCompanion, TestLink } from '../../support/with-companion.ts';
import { TOKEN_PREFIX } from '../../../shared/control.ts';
import { type Arm, type Cell, cellsOf, expectedOf, type Method, type Signal } from './cells.ts';

/** The hops of a chain by the place they stand at; `front` goes before each where there are two. */
const PLACES = ['a', 'b', 'good', 'front'] as const;
type Place = (typeof PLACES)[number];
type Heard = Record<Place, ReturnType<MisbehavingHop['takeHeard']>>;

/** So many seconds for a hop, all hops of a route, and an answer. Generous to a slow machine, and far from what they are by themselves. */
const LIMITS = 'limits: { hopTimeout: 1.5, routeTimeout: 8, responseTimeout: 1.5, bodyTimeout: 1.5 }\n';
/** The person's own rows of the refusal table. */
const SIGNATURES = `signatures:
  - { name: corp, status: [403], field: X-Corp-Block, match: denied, who: proxy }
  - { name: filter, status: [200], page: the hop says 200, who: proxy }
`;
/** A client waits so long: well beyond LIMITS, well before what these would be by themselves (20 and 120 seconds). */
const PATIENCE = 18_000;
const SMALL = randomBytes(700);
const LARGE = randomBytes(600 * 1024);
/** What the origin says: long enough to be cut. */
const PAGE = 'x'.repeat(60 * 1024);
/** So many cells at once. */
const TOGETHER = 12;

export interface Seen {
  readonly method: string;
  readonly from: string;
  readonly fields: readonly string[];
  readonly body: Buffer;
}

/** What the client got. */
interface Got {
  /** Null: its tunnel never stood. */
  readonly status: number | null;
  readonly fields: IncomingMessage['headers'];
  readonly body: string;
  /** The answer broke off. */
  readonly cut: boolean;
}

interface Result {
  readonly got: Got;
  readonly exchange: Exchange;
  readonly seen: readonly Seen[];
}

const TONGUES: Record<Arm, { hop: Tongue; front: Tongue | null; client: 'http' | 'connect' | 'socks5' }> = {
  absolute: { hop: 'http', front: null, client: 'http' },
  connect: { hop: 'http', front: null, client: 'connect' },
  socks5: { hop: 'socks5', front: null, client: 'socks5' },
  'socks5, http': { hop: 'socks5', front: null, client: 'http' },
  'two hops, absolute': { hop: 'http', front: 'socks5', client: 'http' },
  'two hops, connect': { hop: 'socks5', front: 'http', client: 'connect' },
};
const NETWORK: Record<Arm, number> = {
  absolute: 1,
  connect: 2,
  socks5: 3,
  'socks5, http': 4,
  'two hops, absolute': 5,
  'two hops, connect': 6,
};

/** Declares the tests of an arm: every signal's cells run together, and each is then judged by itself. */
export function describeArm(arm: Arm, signals: readonly Signal[]): void {
  const cells = cellsOf(arm, signals);
  describe.runIf(process.platform === 'linux')(`${arm}: a hop says no, and what comes of the request`, () => {
    let world: World;
    beforeAll(async () => {
      world = await startWorld(arm, cells);
    }, 60_000);
    afterAll(() => world[Symbol.asyncDispose]());

    describe.each(signals.map(signal => [`${signal.stage} ${signal.name}`, signal] as const))('%s', (_, signal) => {
      const results = new Map<number, Result>();
      const own = cells.filter(cell => cell.signal === signal);
      let heard: Heard;
      /** What one hears who asks the same once the hops behave again. */
      let again: Got | null = null;
      const refused = own.find(
        ({ method, next, direct }) => method === 'GET' && next === 'all refuse' && !direct && signal.misdeed !== null,
      );
      beforeAll(async () => {
        world.become(signal);
        for (let i = 0; i < own.length; i += TOGETHER)
          await Promise.all(
            own.slice(i, i + TOGETHER).map(async cell => results.set(cell.number, await world.run(cell))),
          );
        heard = world.takeHeard();
        if (refused !== undefined && signal.allows === 'denied') {
          world.behave();
          again = await world.ask(refused);
        }
      }, 60_000);

      test.each(own.map(cell => [cell.method, cell.next, cell.direct ? 'open' : 'closed', cell] as const))(
        '%s, %s, %s',
        (_method, _next, _direct, cell) => judge(cell, results.get(cell.number)!, world),
      );
      test.runIf(signal.allows === 'denied')('A75: asked for again, it is the origin that answers', () => {
        expect(again?.status, JSON.stringify(again)).toBe(200);
        expect(again?.body).toBe(pageOf('GET'));
      });
      test('A61, A62: no hop heard the login of another, and no origin any', () => {
        for (const place of PLACES) {
          const { itself, through } = heard[place];
          // What goes through the first hop to the second is the second's.
          const places = loginsIn(place === 'front' ? itself : Buffer.concat([itself, through]));
          expect([...new Set(places)].filter(found => found !== place)).toEqual([]);
        }
        for (const { seen } of results.values())
          for (const one of seen) expect(loginsIn(Buffer.from(one.fields.join('\n')))).toEqual([]);
      });
    });
  });
}

function judge(cell: Cell, { got, exchange, seen }: Result, world: World): void {
  const expected = expectedOf(cell);
  const { signal } = cell;
  const why = JSON.stringify({ expected, got: { ...got, body: got.body.slice(0, 200) }, attempts: exchange.attempts });

  // Whatever comes of it.
  const tries = exchange.attempts.length;
  expect(tries, why).toBeGreaterThan(0);
  expect(tries, why).toBeLessThanOrEqual(5);
  if (cell.method.startsWith('POST')) expect(seen.length, why).toBeLessThanOrEqual(1);
  expect(seen.length, why).toBeLessThanOrEqual(tries);
  const direct = seen.filter(one => one.from === '127.0.0.1');
  if (!cell.direct) expect(direct, why).toEqual([]);

  // The record of the first attempt.
  const first = exchange.attempts[0]!;
  expect(first.chain.at(-1), why).toBe(`${cell.number}${signal.misdeed === null ? 'shut1' : 'a'}`);
  if (signal.outcomes.length > 0 && expected.kind !== 'relayed' && tries > 1)
    expect(signal.outcomes, why).toContain(first.outcome);
  const isSeen = expected.kind !== 'failed' && (expected.kind !== 'relayed' || signal.byPage !== true);
  if (signal.verdict !== undefined && isSeen) expect(first.verdict, why).toBe(signal.verdict);
  if (signal.sign !== undefined && tries > 1) expect(first.sign, why).toBe(signal.sign);

  switch (expected.kind) {
    case 'served': {
      expect(got.status, why).toBe(200);
      expect(got.body).toBe(cell.method === 'HEAD' ? '' : pageOf(cell.method));
      const at = { first: 'a', second: 'good', third: 'good', direct: null }[expected.by] as Place | null;
      expect(
        seen.map(one => one.from),
        why,
      ).toEqual([at === null ? '127.0.0.1' : world.address(at)]);
      expect(seen[0]!.body.equals(bodyOf(cell.method)), 'the whole body came to the origin').toBe(true);
      expect(exchange.attempts.at(-1)!.outcome, why).toBe('ok');
      break;
    }
    case 'relayed': {
      const said = signal.misdeed!.does.toString('latin1');
      expect(got.status, why).toBe(Number(said.slice(9, 12)));
      const [head, body] = said.split('\r\n\r\n') as [string, string];
      expect(got.body).toBe(cell.method === 'HEAD' ? '' : body);
      for (const line of head.split('\r\n').slice(1)) {
        const [name, value] = line.split(': ') as [string, string];
        if (/^(?:connection|proxy-|x-squid)/i.test(name)) continue;
        expect([got.fields[name.toLowerCase()]].flat().join(', '), line).toBe(value);
      }
      expect(seen, why).toEqual([]);
      expect(tries, why).toBe(1);
      break;
    }
    case 'failed':
      if (got.status !== null) {
        expect(got.status, why).toBeGreaterThanOrEqual(400);
        expect(got.status, why).not.toBe(407);
        expect(got.body, why).not.toContain('the hop says');
      }
      if (signal.allows !== 'silence' && signal.allows !== 'flight') expect(seen, why).toEqual([]);
      expect(exchange.attempts.every(one => one.outcome !== 'ok') || signal.allows === 'flight', why).toBe(true);
      break;
    case 'cut':
      // A reset may overtake all that was said before it.
      expect(got.cut || got.status === null, why).toBe(true);
      expect(pageOf(cell.method).startsWith(got.body), why).toBe(true);
      expect(
        seen.map(one => one.from),
        why,
      ).toEqual([world.address('a')]);
      expect(tries, why).toBe(1);
      break;
  }
}

/** What is sent. */
export const bodyOf = (method: Method): Buffer =>
  method === 'GET' || method === 'HEAD' ? Buffer.alloc(0) : method === 'PUT, larger than the buffer' ? LARGE : SMALL;
const hash = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex');
/** What the origin says to it. */
export const pageOf = (method: Method, body = bodyOf(method)) => `${method.split(/[, ]/)[0]} ${hash(body)} ${PAGE}`;
const loginOf = (number: number, place: Place) => ({ user: `u${number}`, password: `pw-${number}-${place}-end` });

/** The places whose logins stand somewhere in these bytes, as they are or in Basic's coding. */
function loginsIn(bytes: Buffer): string[] {
  const text = bytes.toString('latin1');
  const coded = [...text.matchAll(/\bBasic ([\w+/=]+)/gi)].map(([, token]) => Buffer.from(token!, 'base64').toString());
  return [text, ...coded].flatMap(one => [...one.matchAll(/pw-\d+-(\w+)-end/g)].map(([, place]) => place!));
}

interface World extends AsyncDisposable {
  become(signal: Signal): void;
  behave(): void;
  run(cell: Cell): Promise<Result>;
  /** What the client gets, and no more. */
  ask(cell: Cell): Promise<Got>;
  takeHeard(): Heard;
  address(place: Place): string;
}

async function startWorld(arm: Arm, cells: readonly Cell[]): Promise<World> {
  const { hop: tongue, front, client } = TONGUES[arm];
  const authority = await makeTestAuthority();
  const seen = new Map<string, Seen[]>();
  const serve = (request: IncomingMessage, response: ServerResponse) => {
    const host = request.headers.host!.split(':')[0]!;
    const pieces: Buffer[] = [];
    request.on('error', () => {}).on('data', (piece: Buffer) => pieces.push(piece));
    request.on('end', () => {
      const body = Buffer.concat(pieces);
      const from = request.socket.remoteAddress!;
      seen.set(host, [...(seen.get(host) ?? []), { method: request.method!, from, fields: request.rawHeaders, body }]);
      response.setHeader('Cache-Control', 'no-store');
      response.end(pageOf(request.method as Method, body));
    });
  };
  const isTls = client !== 'http';
  const origin: Server = isTls ? createTlsServer(await authority.issue('origin.test'), serve) : createServer(serve);
  const open = new Set<Socket>();
  origin.on('connection', (socket: Socket) => {
    open.add(socket);
    socket.on('close', () => open.delete(socket)).on('error', () => {});
  });
  await new Promise<void>(resolve => origin.listen(0, '127.0.0.1', resolve));
  const port = (origin.address() as AddressInfo).port;

  const address = (place: Place) => `127.77.${NETWORK[arm]}.${PLACES.indexOf(place) + 2}`;
  const hops = Object.fromEntries(
    await Promise.all(
      PLACES.map(async place => [
        place,
        await startMisbehavingHop(place === 'front' ? (front ?? tongue) : tongue, address(place)),
      ]),
    ),
  ) as Record<Place, MisbehavingHop>;
  const shut = [await closedPort(), await closedPort()];

  const lines = { hops: [] as string[], routes: [] as string[], sites: [] as string[], hosts: [] as string[] };
  for (const { number, signal, next, direct, host } of cells) {
    const url = (kind: string, place: Place, at: string) => {
      const { user, password } = loginOf(number, place);
      return `${kind}://${user}:${password}@${at}`;
    };
    const at = (place: Place) => `${hops[place].address}:${hops[place].port}`;
    const name = (place: string) => `"${number}${place}"`;
    for (const place of PLACES) {
      if (place === 'front' && front === null) continue;
      lines.hops.push(`  ${name(place)}: ${url(place === 'front' ? front! : tongue, place, at(place))}`);
    }
    shut.forEach((closed, i) =>
      lines.hops.push(`  ${name(`shut${i + 1}`)}: ${url(tongue, i === 0 ? 'a' : 'b', `127.0.0.1:${closed}`)}`),
    );
    const [a, b] = signal.misdeed === null ? ['shut1', 'shut2'] : ['a', 'b'];
    const ends = { 'next works': [a, 'good'], 'next refuses too, third works': [a, b, 'good'], 'all refuse': [a, b] };
    const chains = ends[next].map(end => `[${front === null ? '' : `${name('front')}, `}${name(end)}]`);
    lines.routes.push(`  r${number}: { chains: [${chains.join(', ')}]${direct ? ', else: companion' : ''} }`);
    lines.sites.push(`  ${host}: r${number}`);
    lines.hosts.push(`    ${host}: 127.0.0.1`);
  }
  const config = [
    LIMITS,
    SIGNATURES,
    'guard: { allow: [127.0.0.0/8] }\n',
    `dns:\n  hosts:\n${lines.hosts.join('\n')}\n`,
    `hops:\n${lines.hops.join('\n')}\n`,
    `routes:\n${lines.routes.join('\n')}\n`,
    `sites:\n${lines.sites.join('\n')}\n`,
  ].join('');
  const companion: TestCompanion = await startTestCompanion(config);
  const link = await TestLink.open(companion.port, TOKEN_PREFIX + cliToken(companion));
  await link.ask({ type: 'follow' });

  const exchangeOf = async (cell: Cell): Promise<Exchange> => {
    const message = await link.until(
      heard => heard.type === 'exchange' && heard.exchange.host === cell.host && heard.exchange.took !== undefined,
      PATIENCE,
    );
    return (message as { exchange: Exchange }).exchange;
  };

  return {
    address,
    become(signal) {
      hops.a.become(signal.misdeed);
      hops.b.become(signal.misdeed);
    },
    behave() {
      hops.a.become(null);
      hops.b.become(null);
    },
    ask: cell => askFor(cell, client, companion.port, port, authority.pem),
    async run(cell) {
      const got = await askFor(cell, client, companion.port, port, authority.pem);
      return { got, exchange: await exchangeOf(cell), seen: seen.get(cell.host) ?? [] };
    },
    takeHeard: () => Object.fromEntries(PLACES.map(place => [place, hops[place].takeHeard()])) as Heard,
    async [Symbol.asyncDispose]() {
      await link[Symbol.asyncDispose]();
      await companion[Symbol.asyncDispose]();
      await Promise.all(Object.values(hops).map(hop => hop[Symbol.asyncDispose]()));
      for (const socket of open) socket.destroy();
      await new Promise(resolve => origin.close(resolve));
    },
  };
}

/** One request as a browser would make it, to its end. */
export async function askFor(
  cell: Pick<Cell, 'host' | 'method'>,
  client: 'http' | 'connect' | 'socks5',
  proxy: number,
  port: number,
  ca: string,
): Promise<Got> {
  const body = bodyOf(cell.method);
  const headers: Record<string, string> = { host: `${cell.host}:${port}`, connection: 'close' };
  if (body.length > 0) headers['content-length'] = String(body.length);
  const expects = cell.method === 'POST with Expect';
  if (expects) headers['expect'] = '100-continue';
  const nothing = (status: number | null, text = ''): Got => ({ status, fields: {}, body: text, cut: false });

  let socket: Socket | undefined;
  if (client !== 'http') {
    const way = client === 'connect' ? await byConnect(proxy, cell.host, port) : await bySocks(proxy, cell.host, port);
    if (!('socket' in way)) return nothing(way.status);
    const stands = way.socket;
    // One certificate serves all cells; its names are not what is tried here.
    const tls = connectTls({ socket: stands, servername: cell.host, ca, checkServerIdentity: () => undefined });
    socket = tls;
    const ok = await new Promise<boolean>(resolve => {
      tls.once('secureConnect', () => resolve(true)).once('error', () => resolve(false));
      tls.once('close', () => resolve(false));
      tls.setTimeout(PATIENCE, () => tls.destroy());
    });
    if (!ok) return nothing(null);
  }
  return new Promise(resolve => {
    const request = httpRequest({
      host: '127.0.0.1',
      port: proxy,
      method: cell.method.split(/[, ]/)[0],
      path: client === 'http' ? `http://${cell.host}:${port}/page` : '/page',
      headers,
      agent: socket === undefined ? false : Object.assign(new Agent(), { createConnection: () => socket }),
    });
    request.setTimeout(PATIENCE, () => request.destroy());
    request.once('error', () => resolve(nothing(null)));
    request.once('response', response => {
      const pieces: Buffer[] = [];
      const end = (cut: boolean) =>
        resolve({
          status: response.statusCode!,
          fields: response.headers,
          body: Buffer.concat(pieces).toString('latin1'),
          cut,
        });
      response.on('data', (piece: Buffer) => pieces.push(piece));
      response.once('end', () => end(false)).once('error', () => end(true));
    });
    if (expects) request.once('continue', () => request.end(body));
    else request.end(body);
    if (expects) request.flushHeaders();
  });
}

type Way = { readonly socket: Socket } | { readonly status: number | null };

async function opened(proxy: number): Promise<Socket> {
  const socket = connect({ host: '127.0.0.1', port: proxy, noDelay: true });
  await new Promise<void>((resolve, reject) => socket.once('connect', resolve).once('error', reject));
  return socket.on('error', () => {});
}

/** What is said until `enough` finds it enough, or it ends. */
function heardFrom(socket: Socket, enough: (bytes: Buffer) => boolean): Promise<Buffer> {
  return new Promise(resolve => {
    let all = Buffer.alloc(0);
    const timer = setTimeout(() => socket.destroy(), PATIENCE);
    const stop = () => {
      clearTimeout(timer);
      socket.off('data', take).off('close', stop).pause();
      resolve(all);
    };
    const take = (bytes: Buffer) => {
      all = Buffer.concat([all, bytes]);
      if (enough(all)) stop();
    };
    socket.on('data', take).on('close', stop).resume();
  });
}

async function byConnect(proxy: number, host: string, port: number): Promise<Way> {
  const socket = await opened(proxy);
  socket.write(`CONNECT ${host}:${port} HTTP/1.1\r\nHost: ${host}:${port}\r\n\r\n`);
  const head = (await heardFrom(socket, bytes => bytes.includes('\r\n\r\n'))).toString('latin1');
  const status = Number(/^HTTP\/1\.1 (\d{3})/.exec(head)?.[1] ?? 0) || null;
  if (status === 200) return { socket };
  socket.destroy();
  return { status };
}

async function bySocks(proxy: number, host: string, port: number): Promise<Way> {
  const socket = await opened(proxy);
  socket.write(Buffer.from([5, 1, 0]));
  await heardFrom(socket, bytes => bytes.length >= 2);
  const name = Buffer.from(host);
  socket.write(Buffer.concat([Buffer.from([5, 1, 0, 3, name.length]), name, Buffer.from([port >> 8, port & 255])]));
  const reply = await heardFrom(socket, bytes => bytes.length >= 10);
  if (reply[1] === 0) return { socket };
  socket.destroy();
  return { status: null };
}
