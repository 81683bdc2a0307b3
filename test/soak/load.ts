// The near side of a soak: everything that comes to a companion in years, in minutes. Kinds of visitors run side by side until they are stopped; each
// visit counts itself, and a request that is well-formed and not broken off by its own side must have been answered.
import { Agent, request as httpRequest } from 'node:http';
import { connect, type Socket } from 'node:net';
import { readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { TOKEN_PREFIX } from '../../shared/control.ts';
import type { Milliseconds } from '../../shared/units.ts';
import { connectRaw, type RawClient } from '../support/raw-client.ts';
import { type Place, TestLink } from '../support/with-companion.ts';
import type { FarSide } from './origin.ts';

export interface Tally {
  started: number;
  /** Answered as it must be. */
  answered: number;
  /** Broken off by the visitor or by the origin, as was meant. */
  brokenOff: number;
  /** Well-formed, and never answered. */
  unanswered: number;
  /** Answered otherwise than it must be. */
  wrong: number;
}

export interface World {
  readonly port: number;
  readonly place: Place;
  readonly far: FarSide;
  /** Names of hosts, by the route they take: `direct.test`, `squid.test` … */
  readonly hosts: readonly string[];
  /** The configuration's text for one turn of the reloads. */
  readonly configOf: (turn: number) => string;
  readonly random: () => number;
}

/** How long a visitor waits for its answer before it counts as unanswered. */
const PATIENCE: Milliseconds = 30_000;
const MIB = 1024 * 1024;
const UPLOAD = Buffer.alloc(256 * 1024, 'up');

const sleep = (time: Milliseconds) => new Promise<void>(resolve => setTimeout(resolve, time));

/** An index that another thread has just made is looked for once a second. */
const INDEX_IS_LOOKED_FOR = 1_500;

export class Load {
  readonly tallies: Record<string, Tally> = {};
  /** What surprised, bounded. */
  readonly complaints: string[] = [];
  /** Requests sent again, because the connection that was kept had been closed. */
  retried = 0;
  private readonly world: World;
  private readonly agent = new Agent({ keepAlive: true, maxSockets: 64 });
  private readonly running: Promise<void>[] = [];
  private stopped = false;

  constructor(world: World) {
    this.world = world;
  }

  /** Sends in the visitors. */
  start(): void {
    const { random } = this.world;
    const chance = (one: number) => random() < one;
    const upTo = (most: number) => Math.floor(random() * most);
    this.visit('miss', 6, 4, async tally => this.ask(tally, `/miss?${upTo(1e6)}`, 1024));
    this.visit('hit', 4, 4, async tally => this.ask(tally, `/hit/${upTo(200)}`, 2048));
    this.visit('revalidated', 2, 20, async tally => this.ask(tally, `/check/${upTo(50)}`, 2048));
    this.visit('big body', 2, 100, async tally => {
      const bytes = 100_000 + upTo(8 * MIB);
      await this.ask(tally, `/big/${bytes}${chance(0.3) ? '?open' : ''}`, bytes);
    });
    this.visit('slow answer', 2, 20, async tally => this.ask(tally, `/later/${upTo(400)}`, 5));
    this.visit('upload', 2, 100, async tally => this.upload(tally, upTo(12)));
    this.visit('broken origin', 1, 100, async tally => this.askBroken(tally, `/broken/${upTo(30)}`));
    this.visit('reset origin', 1, 100, async tally => this.askBroken(tally, '/reset'));
    this.visit('short tunnel', 3, 30, async tally => this.tunnel(tally, 1, 0));
    this.visit('SOCKS tunnel', 2, 60, async tally => this.tunnel(tally, 2, 50, true));
    this.visit('long tunnel', 4, 500, async tally => this.tunnel(tally, 40, 200));
    this.visit('idle tunnel', 6, 500, async tally => this.tunnel(tally, 2, 5_000));
    this.visit('client leaves', 3, 15, async tally => this.leave(tally));
    this.visit('malformed', 2, 30, async tally => this.malformed(tally));
    this.visit('slow reader', 3, 100, async tally => this.readSlowly(tally));
    this.visit('slow head', 2, 300, async tally => this.sendSlowly(tally));
    this.visit('flood', 1, 4_000, async tally => this.flood(tally));
    this.visit('control link', 2, 700, async tally => this.control(tally));
    this.visit('reload', 1, 3_000, async (tally, turn) => this.reload(tally, turn));
  }

  /** One request by every route; and then one that asks the disk, which is read once there is something on it. */
  async warmUp(): Promise<void> {
    const ask = (host: string, path: string) =>
      this.send('GET', `http://${host}:${this.world.far.httpPort}${path}`, null);
    for (const host of this.world.hosts) await ask(host, '/hit/0');
    await new Promise(resolve => setTimeout(resolve, INDEX_IS_LOOKED_FOR));
    await ask(this.world.hosts[0]!, '/miss/0');
  }

  /** Lets nobody else in, and waits for those who are there. */
  async stop(): Promise<void> {
    this.stopped = true;
    await Promise.all(this.running);
    this.agent.destroy();
    await writeFile(this.world.place.configFile, this.world.configOf(0));
  }

  get total(): Tally {
    const total: Tally = { started: 0, answered: 0, brokenOff: 0, unanswered: 0, wrong: 0 };
    for (const tally of Object.values(this.tallies)) {
      for (const key of Object.keys(total) as (keyof Tally)[]) total[key] += tally[key];
    }
    return total;
  }

  private visit(
    kind: string,
    visitors: number,
    pause: Milliseconds,
    once: (tally: Tally, turn: number) => Promise<void>,
  ): void {
    const tally: Tally = { started: 0, answered: 0, brokenOff: 0, unanswered: 0, wrong: 0 };
    this.tallies[kind] = tally;
    for (let i = 0; i < visitors; i++) {
      this.running.push(
        (async () => {
          while (!this.stopped) {
            tally.started++;
            try {
              await once(tally, tally.started);
            } catch (error) {
              tally.unanswered++;
              this.complain(`${kind}: ${(error as Error).message}`);
            }
            await sleep(pause * (0.5 + this.world.random()));
          }
        })(),
      );
    }
  }

  private complain(text: string): void {
    if (this.complaints.length < 40) this.complaints.push(text);
  }

  private url(path: string): string {
    const { hosts, random, far } = this.world;
    // Half of it goes direct.
    const host = random() < 0.5 ? hosts[0]! : hosts[Math.floor(random() * hosts.length)]!;
    return `http://${host}:${far.httpPort}${path}`;
  }

  /** One request whose whole answer must come. A kept connection may be closed under it: then it is asked again, as browsers do. */
  private async ask(tally: Tally, path: string, bytes: number): Promise<void> {
    const url = this.url(path);
    const came = await this.send('GET', url, null);
    this.judge(tally, url, came, came.bytes === bytes);
  }

  private async upload(tally: Tally, pieces: number): Promise<void> {
    const url = this.url('/upload');
    const came = await this.send('POST', url, pieces);
    this.judge(tally, url, came, came.text === String(pieces * UPLOAD.length));
  }

  private judge(tally: Tally, url: string, came: Came, whole: boolean): void {
    if (came.status === 200 && whole) tally.answered++;
    // A hop's own page (ours are plain text for whoever is no browser): squid too meets connections that the origin is just closing.
    else if (came.status >= 502 && came.text.startsWith('<')) tally.brokenOff++;
    else {
      tally.wrong++;
      this.complain(`${url}: ${came.status}, ${came.bytes} bytes, ${came.text.slice(0, 200)}`);
    }
  }

  private async askBroken(tally: Tally, path: string): Promise<void> {
    const url = this.url(path);
    try {
      const { status } = await this.send('GET', url, null);
      // Direct, it is our own page; a hop may have one of its own.
      if (status >= 500) tally.answered++;
      else {
        tally.wrong++;
        this.complain(`${url}: ${status}`);
      }
    } catch (error) {
      if (error instanceof Impatient) throw error;
      tally.brokenOff++;
    }
  }

  private async send(method: string, url: string, pieces: number | null): Promise<Came> {
    for (let tries = 1; ; tries++) {
      try {
        return await this.sendOnce(method, url, pieces, tries === 1);
      } catch (error) {
        if (tries === 4 || !(error instanceof ClosedUnheard)) throw error;
        this.retried++;
      }
    }
  }

  private sendOnce(method: string, url: string, pieces: number | null, kept: boolean): Promise<Came> {
    return new Promise((resolve, reject) => {
      const request = httpRequest({
        host: '127.0.0.1',
        port: this.world.port,
        method,
        path: url,
        headers: { Host: new URL(url).host },
        agent: kept ? this.agent : false,
      });
      let begun = false;
      const timer = setTimeout(() => {
        request.destroy();
        reject(new Impatient(`${method} ${url} was not answered`));
      }, PATIENCE);
      request.on('error', error => {
        clearTimeout(timer);
        reject(begun ? error : new ClosedUnheard(error.message));
      });
      request.on('response', response => {
        begun = true;
        let bytes = 0;
        let text = '';
        response.on('data', (piece: Buffer) => {
          bytes += piece.length;
          if (text.length < 1_000) text += piece.toString('latin1', 0, 1_000);
        });
        response.on('error', reject);
        response.on('close', () => {
          clearTimeout(timer);
          if (response.complete) resolve({ status: response.statusCode!, bytes, text });
          else reject(new Error(`${url} broke off after ${bytes} bytes`));
        });
      });
      if (pieces === null) request.end();
      else {
        let left = pieces;
        const more = () => {
          while (left > 0) {
            left--;
            if (!request.write(UPLOAD)) return void request.once('drain', more);
          }
          request.end();
        };
        more();
      }
    });
  }

  /** A tunnel: so many pings, with so much time between. */
  private async tunnel(tally: Tally, pings: number, pause: Milliseconds, bySocks = false): Promise<void> {
    const { hosts, far, random, port } = this.world;
    const host = hosts[Math.floor(random() * hosts.length)]!;
    await using client = await this.connected(async raw => {
      if (bySocks) return shakeHands(raw, host, far.echoPort);
      raw.write(`CONNECT ${host}:${far.echoPort} HTTP/1.1\r\nHost: ${host}:${far.echoPort}\r\n\r\n`);
      const { status } = await raw.readAnswer('HEAD', PATIENCE);
      if (status !== 200) throw new Error(`CONNECT to ${host} by ${port}: ${status}`);
    });
    for (let ping = 0; ping < pings; ping++) {
      const bytes = Buffer.alloc(1 + Math.floor(random() * 60_000), ping + 1);
      client.write(bytes);
      const back = await client.read(bytes.length, PATIENCE);
      if (!back.equals(bytes)) {
        tally.wrong++;
        this.complain(`a tunnel to ${host} changed its bytes`);
        return;
      }
      if (pause > 0 && !this.stopped) await sleep(pause * random());
    }
    if (random() < 0.5) {
      client.end();
      await client.readAll(PATIENCE);
    }
    tally.answered++;
  }

  /** A fresh connection on which `begin` gets through; in a flood it may be closed before it is heard, and is opened again. */
  private async connected(begin: (client: RawClient) => Promise<void>): Promise<RawClient> {
    for (let tries = 1; ; tries++) {
      const client = await connectRaw(this.world.port);
      try {
        await begin(client);
        return client;
      } catch (error) {
        const heard = client.peek().length > 0 || !/ended before/.test((error as Error).message);
        client.close();
        if (heard || tries === 4) throw error;
        this.retried++;
      }
    }
  }

  /** Leaves at some moment: in the head, in the upload, before the answer, in the answer, in a tunnel. */
  private async leave(tally: Tally): Promise<void> {
    const { random, far } = this.world;
    const socket = await this.open();
    const url = this.url(random() < 0.5 ? `/big/${2 * MIB}` : '/later/50');
    const kinds = [
      `GET ${url} HTTP/1.1\r\nHost: x\r\n\r\n`,
      `GET ${url} HTTP/1.1\r\nHost`,
      `POST ${this.url('/upload')} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n${'x'.repeat(50_000)}`,
      `POST ${this.url('/upload')} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n100\r\nabc`,
      `CONNECT ${this.world.hosts[0]}:${far.echoPort} HTTP/1.1\r\nHost: x\r\n\r\nearly bytes`,
    ];
    socket.write(kinds[Math.floor(random() * kinds.length)]!);
    await sleep(random() * 40);
    const how = random();
    if (how < 0.3) socket.end();
    else if (how < 0.5) socket.resetAndDestroy();
    if (random() < 0.5) await sleep(random() * 20);
    socket.destroy();
    tally.brokenOff++;
  }

  private async malformed(tally: Tally): Promise<void> {
    const { random } = this.world;
    const client = await connectRaw(this.world.port);
    const url = this.url('/miss');
    const kinds = [
      `GET ${url} HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc`,
      `GET ${url} HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n`,
      `GET ${url} HTTP/1.1\nHost: x\n\n`,
      `GET ${url} HTTP/9.9\r\nHost: x\r\n\r\n`,
      `POST ${url} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n`,
      `GET ${url} HTTP/1.1\r\nHost: x\r\n${'X: y\r\n'.repeat(2_000)}\r\n`,
      `GET ${url}${'a'.repeat(80_000)} HTTP/1.1\r\n`,
      'GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n',
      '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03',
      '\x00\x00\x00',
      'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
    ];
    client.write(kinds[Math.floor(random() * kinds.length)]!);
    client.end();
    await client.readAll(PATIENCE);
    client.close();
    tally.answered++;
  }

  private async readSlowly(tally: Tally): Promise<void> {
    const { random } = this.world;
    const socket = await this.open();
    socket.write(`GET ${this.url(`/big/${8 * MIB}`)} HTTP/1.1\r\nHost: x\r\n\r\n`);
    for (let turn = 0; turn < 20 && !this.stopped && !socket.destroyed; turn++) {
      socket.pause();
      await sleep(100 * random());
      socket.resume();
      await sleep(1);
    }
    socket.destroy();
    tally.brokenOff++;
  }

  /** A head, or a body, byte by byte: the companion ends it. */
  private async sendSlowly(tally: Tally): Promise<void> {
    const socket = await this.open();
    socket.resume();
    const body = this.world.random() < 0.5;
    if (body) socket.write(`POST ${this.url('/upload')} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n`);
    const text = 'GET http://direct.test/ HTTP/1.1\r\nX: '.padEnd(4_000, 'x');
    for (let at = 0; at < text.length && !this.stopped; at++) {
      if (socket.destroyed || socket.readableEnded) break;
      socket.write(text[at]!);
      await sleep(250);
    }
    if (!this.stopped && !socket.readableEnded && !socket.destroyed) {
      tally.wrong++;
      this.complain(`a slow ${body ? 'body' : 'head'} was let go on`);
    } else tally.answered++;
    socket.destroy();
  }

  /** More connections than may be open; the companion closes the oldest idle ones. */
  private async flood(tally: Tally): Promise<void> {
    const sockets: Socket[] = [];
    for (let i = 0; i < 500; i++) {
      const socket = connect(this.world.port, '127.0.0.1');
      socket.on('error', () => {});
      sockets.push(socket);
      if (i % 50 === 49) await sleep(5);
    }
    await sleep(300);
    for (const socket of sockets) socket.destroy();
    tally.brokenOff++;
  }

  private async control(tally: Tally): Promise<void> {
    const { place, port, random } = this.world;
    const running = JSON.parse(readFileSync(path.join(place.stateFolder, 'running.json'), 'utf8')) as { token: string };
    for (let tries = 1; ; tries++) {
      try {
        await using link = await TestLink.open(port, TOKEN_PREFIX + running.token);
        await link.ask({ type: 'follow', recent: 20 });
        await link.ask({ type: 'explain', url: 'http://direct.test/' });
        await sleep(random() * 500);
        tally.answered++;
        return;
      } catch (error) {
        if (tries === 4) throw error;
        this.retried++;
      }
    }
  }

  private async reload(tally: Tally, turn: number): Promise<void> {
    await writeFile(this.world.place.configFile, this.world.configOf(turn));
    tally.answered++;
  }

  private open(): Promise<Socket> {
    return new Promise((resolve, reject) => {
      const socket = connect(this.world.port, '127.0.0.1', () => resolve(socket));
      socket.once('error', reject);
      socket.on('error', () => {});
    });
  }
}

/** SOCKS5 without a password, to a name (RFC 1928). */
async function shakeHands(client: RawClient, host: string, to: number): Promise<void> {
  client.write(Buffer.from([5, 1, 0]));
  await client.read(2, PATIENCE);
  const name = Buffer.from(host);
  client.write(Buffer.concat([Buffer.from([5, 1, 0, 3, name.length]), name, Buffer.from([to >> 8, to & 255])]));
  const reply = await client.read(10, PATIENCE);
  if (reply[1] !== 0) throw new Error(`SOCKS to ${host}: ${reply[1]}`);
}

interface Came {
  readonly status: number;
  readonly bytes: number;
  readonly text: string;
}

/** The connection was closed before anything of an answer came. */
class ClosedUnheard extends Error {}
/** Nothing came for too long. */
class Impatient extends Error {}
