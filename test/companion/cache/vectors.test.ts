// Runs test/vectors/cache: scripts of requests, with what the origin would answer and what must come of it, over real sockets through the walk.
// The clock is handed in. In header values, {+60} is the HTTP date 60 seconds from the clock's present ({850:…}, {asctime:…}, {lower:…}: in those
// forms), {@0} the date at the start and {origin} the origin's URL. A vector with `numbers` says which of docs/conformance.md it shows.
import { readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { describe, expect, test, vi } from 'vitest';
import { createCache } from '../../../companion/cache/cache.ts';
import type { Decision } from '../../../shared/decision/rule.ts';
import { connectRaw, type RawAnswer, type RawClient } from '../../support/raw-client.ts';
import { diskIn, tempFolder } from '../../support/disk-cache.ts';
import { cacheLimits } from '../../support/cache-limits.ts';
import { startRawOrigin } from '../../support/origin.ts';
import { steered } from '../../support/steered.ts';
import { DIRECT, startProxy } from '../../support/with-proxy.ts';

type Headers = Record<string, string> | [string, string][];

interface OriginAnswer {
  readonly status?: number;
  readonly headers?: Headers;
  readonly body?: string | null;
  /** Its body is a letter so often. */
  readonly long?: number;
  readonly framing?: 'length' | 'chunked' | 'close';
  readonly date?: number | null;
  readonly cut?: number;
  /** Interim answers in front: their status codes. */
  readonly interim?: readonly number[];
  /** It hangs up instead. */
  readonly gone?: boolean;
  /** Seconds until its head comes. */
  readonly delay?: number;
}

interface Step {
  /** Seconds that pass before. */
  readonly after?: number;
  readonly request?: {
    readonly method?: string;
    readonly path?: string;
    readonly headers?: Headers;
    /** Its client leaves: soon, when others wait behind it, or late, when they have their answers; the origin's first answer does not come before. */
    readonly leaves?: 'soon' | 'late';
  };
  /** Others who ask for the same while it waits for the origin, and what they get. */
  readonly others?: readonly { readonly headers?: Headers; readonly expect: Answered }[];
  /** The route from here on; else `companion`. */
  readonly route?: string;
  /** Before it the cache begins anew over the disk, where this has happened to what was stored. */
  readonly disk?: 'kept' | 'row' | 'file' | 'cut' | 'gone' | 'index';
  /** What the origin answers if it is asked. `date`: seconds from now, null for none. `cut`: the connection ends after so many bytes of the body. */
  readonly origin?: OriginAnswer & {
    /** One after the other, where it is asked so often. */
    readonly each?: readonly OriginAnswer[];
  };
  readonly expect: Answered & {
    /** behind: behind the answer, which does not wait for it. A number: so often. */
    readonly asked: boolean | 'behind' | number;
    /** What the origin's request must have had; null: not had. */
    readonly sees?: Record<string, string | null>;
    /** The method the origin saw. */
    readonly seesMethod?: string;
    readonly interim?: readonly number[];
    /** The answer breaks off. */
    readonly broken?: boolean;
  };
}

interface Answered {
  readonly status?: number;
  readonly body?: string;
  readonly length?: number;
  /** Our Cache-Status member; `hit` for any hit. */
  readonly cacheStatus?: string;
  /** null: absent. */
  readonly headers?: Record<string, string | null>;
  readonly lines?: readonly string[];
}

interface Vector {
  readonly id: string;
  /** Attacks and duties that it shows. */
  readonly numbers?: readonly string[];
  readonly says: string;
  readonly rfc: string;
  /** required: the RFC says must. optimal: it may, and a good cache does. check: our own choice, held fast. */
  readonly level: 'required' | 'optimal' | 'check';
  /** Other than the defaults. */
  readonly settings?: Record<string, unknown>;
  readonly mode?: Extract<Decision, { steered: true }>['cache'];
  readonly steps: readonly Step[];
}

const FOLDER = new URL('../../vectors/cache/', import.meta.url);
const START = Date.UTC(2026, 10, 24, 9, 0, 0);
const LIMITS = cacheLimits({ memory: 1024 * 1024, entry: 64 * 1024 });

/** Played a second time, with all that is stored on the disk and nothing in memory. */
const OVER_DISK = ['partial.json', 'storing.json', 'validation.json'];

for (const file of readdirSync(FOLDER).filter(name => name.endsWith('.json'))) {
  const vectors = JSON.parse(readFileSync(new URL(file, FOLDER), 'utf8')) as Vector[];
  describe(file.slice(0, -'.json'.length), () => {
    for (const vector of vectors) {
      const numbers = vector.numbers === undefined ? '' : `${vector.numbers.join(', ')}: `;
      test(`${numbers}${vector.says} (${vector.level}, RFC ${vector.rfc}, ${vector.id})`, () => run(vector));
    }
  });
}

describe('R58, R59, R67, A78: out of the disk alone', () => {
  for (const file of OVER_DISK) {
    const vectors = JSON.parse(readFileSync(new URL(file, FOLDER), 'utf8')) as Vector[];
    for (const vector of vectors) test(`${vector.says} (${vector.id})`, () => run(vector, true));
  }
});

/** Plays a vector; `overDisk`: what is stored is written to a disk, and memory forgets it before each step. */
async function run(vector: Vector, overDisk = false): Promise<void> {
  let now = START;
  let step: Step = vector.steps[0]!;
  let route = 'companion';
  const seen: string[] = [];
  /** Opens when the origin's first answer of a step may come. */
  let gate = Promise.withResolvers<void>();
  await using origin = await startRawOrigin(async peer => {
    while (true) {
      const head = await peer.readUntil('\r\n\r\n', 60_000);
      const length = /content-length: (\d+)/i.exec(head);
      if (length) await peer.read(Number(length[1]));
      const own = step.origin?.each?.[seen.length] ?? step.origin ?? {};
      const { gone, delay = 0 } = own;
      now += delay * 1000;
      if (seen.push(head) === 1) await gate.promise;
      if (gone) return peer.end();
      const { text, end } = originAnswer(own, head.startsWith('HEAD '), now, origin.url(''));
      peer.write(text);
      if (end) return peer.end();
    }
  });
  using place = overDisk || vector.steps.some(one => one.disk !== undefined) ? tempFolder() : null;
  const newDisk = () => (place === null ? null : diskIn(place.path, { now: () => now }));
  let disk = newDisk();
  const newCache = () => createCache({ ...LIMITS, ...vector.settings }, undefined, disk?.store);
  await using stack = new AsyncDisposableStack();
  stack.defer(async () => await disk?.[Symbol.asyncDispose]());
  await using proxy = await startProxy({
    rooms: {
      cache: newCache(),
      routeOf: () => ({ name: route, chains: [DIRECT], behindHops: false, route: null }),
      decide: () => steered(vector.mode ?? 'standard'),
      now: () => now,
    },
  });
  const send = async ({ method = 'GET', path = '/r', headers = {} }: NonNullable<Step['request']>) => {
    const client = stack.use(await connectRaw(proxy.port));
    const lines = pairs(headers).map(([name, value]) => `${name}: ${filled(value, now, origin.url(''))}\r\n`);
    const length = method === 'GET' || method === 'HEAD' || method === 'OPTIONS' ? '' : 'Content-Length: 0\r\n';
    client.write(
      `${method} ${origin.url(path)} HTTP/1.1\r\nHost: ${origin.authority}\r\n${lines.join('')}${length}\r\n`,
    );
    return client;
  };
  let recorded = 0;
  for (const [index, one] of vector.steps.entries()) {
    step = one;
    if (overDisk) {
      await disk!.store.settled();
      proxy.rooms.cache.clear();
    }
    now += (one.after ?? 0) * 1000;
    route = one.route ?? 'companion';
    seen.length = 0;
    gate = Promise.withResolvers<void>();
    if (one.disk !== undefined && disk !== null) {
      await disk[Symbol.asyncDispose]();
      damage(disk.folder, one.disk);
      disk = newDisk();
      Object.assign(proxy.rooms, { cache: newCache() });
    }
    const { request = {}, others = [], expect: wanted } = one;
    const { method = 'GET', leaves } = request;
    if (others.length === 0) gate.resolve();
    const client = await send(request);
    const at = `step ${index + 1}`;
    const fill = (value: string) => filled(value, now, origin.url(''));
    const behind: RawClient[] = [];
    if (others.length > 0) {
      await vi.waitFor(() => expect(seen).toHaveLength(1), 20_000);
      for (const { headers } of others) behind.push(await send({ ...request, ...(headers && { headers }) }));
      await setTimeout(60);
      if (leaves === 'soon') client.socket.resetAndDestroy();
      if (leaves === undefined) gate.resolve();
    }
    for (const [i, other] of behind.entries()) {
      expectAnswer(`${at}, other ${i + 1}`, others[i]!.expect, await other.readAnswer(method), fill);
    }
    if (leaves === 'late') client.socket.resetAndDestroy();
    gate.resolve();
    recorded += behind.length;
    if (wanted.broken || leaves !== undefined) {
      if (wanted.broken) await expect(client.readAnswer(method), at).rejects.toThrow('ended before');
      await proxy.exchange(recorded++);
      expectAsked(at, wanted, seen.length);
      continue;
    }
    const interim: number[] = [];
    let answer = await client.readAnswer(method);
    for (; answer.status < 200; answer = await client.readAnswer(method)) interim.push(answer.status);
    // The record ends behind the answer; a body is stored at its end. What is asked for behind an answer has a record of its own.
    await proxy.exchange(recorded++);
    if (wanted.asked === 'behind') await proxy.exchange(recorded++);
    expectAsked(at, wanted, seen.length);
    expectAnswer(at, wanted, answer, fill);
    if (wanted.interim !== undefined) expect(interim, at).toEqual(wanted.interim);
    if (wanted.seesMethod !== undefined) expect(seen.at(-1), at).toMatch(new RegExp(`^${wanted.seesMethod} `));
    for (const [name, value] of Object.entries(wanted.sees ?? {})) {
      const had = valuesOf(seen.at(-1)!, name);
      expect(had, `${at}: ${name} at the origin`).toBe(value === null ? null : fill(value));
    }
  }
  if (overDisk) expect(disk!.warnings).toEqual([]);
}

/** What happens to a store of one answer. */
function damage(folder: string, what: NonNullable<Step['disk']>): void {
  const index = join(folder, 'index.db');
  const file = readdirSync(join(folder, 'bodies'), { recursive: true, withFileTypes: true }).find(one => one.isFile());
  const body = file && join(file.parentPath, file.name);
  if (what === 'row') flip(index, 'the kept body');
  else if (what === 'file') flip(body!);
  else if (what === 'cut') truncateSync(body!, 10);
  else if (what === 'gone') rmSync(body!);
  else if (what === 'index') writeFileSync(index, 'this is no database');
}

/** Changes a bit of the text in the file, or of its last byte. */
function flip(file: string, text?: string): void {
  const bytes = readFileSync(file);
  const at = text === undefined ? bytes.length - 1 : bytes.indexOf(text);
  expect(at).toBeGreaterThan(-1);
  bytes[at]! ^= 4;
  writeFileSync(file, bytes);
}

function expectAsked(at: string, { asked }: Step['expect'], count: number): void {
  if (typeof asked === 'number') expect(count, `${at}: how often the origin was asked`).toBe(asked);
  else expect(count > 0, `${at}: the origin was asked`).toBe(asked !== false);
}

function expectAnswer(at: string, wanted: Answered, answer: RawAnswer, fill: (value: string) => string): void {
  if (wanted.status !== undefined) expect(answer.status, at).toBe(wanted.status);
  if (wanted.body !== undefined) expect(answer.text, at).toBe(wanted.body);
  if (wanted.length !== undefined) expect(answer.body.length, at).toBe(wanted.length);
  if (wanted.cacheStatus !== undefined) {
    const own = answer.headers['cache-status']?.split(', ').at(-1);
    if (wanted.cacheStatus === 'hit') expect(own, at).toMatch(/^detour; hit; ttl=-?\d+(?:; detail=[\w-]+)?$/);
    else expect(own, at).toBe(`detour; ${wanted.cacheStatus}`);
  }
  for (const [name, value] of Object.entries(wanted.headers ?? {})) {
    expect(answer.headers[name], `${at}: ${name}`).toBe(value === null ? undefined : fill(value));
  }
  for (const line of wanted.lines ?? []) expect(answer.head.split('\r\n'), at).toContain(line);
}

/** The field's lines in a head, joined; null: none. */
function valuesOf(head: string, name: string): string | null {
  const values = head
    .split('\r\n')
    .slice(1)
    .filter(line => line.toLowerCase().startsWith(`${name.toLowerCase()}:`))
    .map(line => line.slice(name.length + 1).trim());
  return values.length === 0 ? null : values.join(', ');
}

function originAnswer(own: OriginAnswer, isHead: boolean, now: number, origin: string): { text: string; end: boolean } {
  const { status = 200, headers = {}, long, framing = 'length', date = 0, cut } = own;
  const body = long === undefined ? (own.body === undefined ? 'an answer' : own.body) : 'x'.repeat(long);
  const early = (own.interim ?? []).map(code => `HTTP/1.1 ${code} Interim\r\nX-Interim: 1\r\n\r\n`);
  let text = `${early.join('')}HTTP/1.1 ${status} Status\r\n`;
  if (date !== null) text += `Date: ${filled(`{${date < 0 ? date : `+${date}`}}`, now, origin)}\r\n`;
  for (const [name, value] of pairs(headers)) text += `${name}: ${filled(value, now, origin)}\r\n`;
  if (body === null || status === 204 || status === 304) return { text: `${text}\r\n`, end: false };
  const sent = cut === undefined ? body : body.slice(0, cut);
  if (framing === 'length') text += `Content-Length: ${body.length}\r\n\r\n${isHead ? '' : sent}`;
  else if (framing === 'close') text += `Connection: close\r\n\r\n${sent}`;
  else
    text += `Transfer-Encoding: chunked\r\n\r\n${body.length.toString(16)}\r\n${sent}${cut === undefined ? '\r\n0\r\n\r\n' : ''}`;
  return { text, end: cut !== undefined || framing === 'close' };
}

function pairs(headers: Headers): [string, string][] {
  return Array.isArray(headers) ? headers : Object.entries(headers);
}

function filled(text: string, now: number, origin: string): string {
  return text
    .replace('{origin}', origin)
    .replace('{@0}', new Date(START).toUTCString())
    .replace(/\{(?:(850|asctime|lower):)?([+-]\d+)\}/g, (_, form: string | undefined, offset: string) => {
      const imf = new Date(now + Number(offset) * 1000).toUTCString();
      const [, day, date, month, year, time] = /^(\w+), (\d+) (\w+) (\d+) (\S+) GMT$/.exec(imf)!;
      if (form === 'lower') return imf.toLowerCase();
      if (form === 'asctime') return `${day} ${month} ${String(Number(date)).padStart(2)} ${time} ${year}`;
      if (form !== '850') return imf;
      const long = {
        Sun: 'Sunday',
        Mon: 'Monday',
        Tue: 'Tuesday',
        Wed: 'Wednesday',
        Thu: 'Thursday',
        Fri: 'Friday',
        Sat: 'Saturday',
      };
      return `${long[day as keyof typeof long]}, ${date}-${month}-${year!.slice(2)} ${time} GMT`;
    });
}
