// Runs test/vectors/cache: scripts of requests, with what the origin would answer and what must come of it, over real sockets through the walk.
// The clock is handed in. In header values, {+60} is the HTTP date 60 seconds from the clock's present ({850:…}, {asctime:…}, {lower:…}: in those
// forms), {@0} the date at the start and {origin} the origin's URL. A vector with `numbers` says which of docs/conformance.md it shows.
import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { createCache } from '../../../companion/cache/cache.ts';
import type { Decision } from '../../../shared/decision/rule.ts';
import { diskIn, tempFolder } from '../../support/disk-cache.ts';
import { connectRaw, type RawAnswer } from '../../support/raw-client.ts';
import { startRawOrigin } from '../../support/origin.ts';
import { steered } from '../../support/steered.ts';
import { startProxy } from '../../support/with-proxy.ts';

type Headers = Record<string, string> | [string, string][];

interface OriginAnswer {
  readonly status?: number;
  readonly headers?: Headers;
  readonly body?: string | null;
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
  readonly request?: { readonly method?: string; readonly path?: string; readonly headers?: Headers };
  /** What the origin answers if it is asked. `date`: seconds from now, null for none. `cut`: the connection ends after so many bytes of the body. */
  readonly origin?: OriginAnswer & {
    /** One after the other, where it is asked so often. */
    readonly each?: readonly OriginAnswer[];
  };
  readonly expect: {
    /** behind: behind the answer, which does not wait for it. */
    readonly asked: boolean | 'behind';
    /** What the origin's request must have had; null: not had. */
    readonly sees?: Record<string, string | null>;
    /** The method the origin saw. */
    readonly seesMethod?: string;
    readonly interim?: readonly number[];
    readonly status?: number;
    readonly body?: string;
    /** Our Cache-Status member; `hit` for any hit. */
    readonly cacheStatus?: string;
    /** null: absent. */
    readonly headers?: Record<string, string | null>;
    readonly lines?: readonly string[];
    /** The answer breaks off. */
    readonly broken?: boolean;
  };
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
const LIMITS = { memory: 1024 * 1024, entry: 64 * 1024, finish: 0, collapse: 'off', collapseWait: 5 } as const;

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
  const seen: string[] = [];
  await using origin = await startRawOrigin(async peer => {
    while (true) {
      const head = await peer.readUntil('\r\n\r\n', 60_000);
      const length = /content-length: (\d+)/i.exec(head);
      if (length) await peer.read(Number(length[1]));
      const own = step.origin?.each?.[seen.length] ?? step.origin ?? {};
      const { gone, delay = 0 } = own;
      now += delay * 1000;
      seen.push(head);
      if (gone) return peer.end();
      const { text, end } = originAnswer(own, head.startsWith('HEAD '), now, origin.url(''));
      peer.write(text);
      if (end) return peer.end();
    }
  });
  using place = overDisk ? tempFolder() : null;
  await using disk = place && diskIn(place.path, { now: () => now });
  const cache = createCache({ ...LIMITS, ...vector.settings }, undefined, disk?.store);
  await using proxy = await startProxy({
    rooms: {
      cache,
      decide: () => steered(vector.mode ?? 'standard'),
      now: () => now,
    },
  });
  let recorded = 0;
  for (const [index, one] of vector.steps.entries()) {
    step = one;
    if (disk !== null) {
      await disk.store.settled();
      cache.clear();
    }
    now += (one.after ?? 0) * 1000;
    seen.length = 0;
    const { method = 'GET', path = '/r', headers = {} } = one.request ?? {};
    await using client = await connectRaw(proxy.port);
    const lines = pairs(headers).map(([name, value]) => `${name}: ${filled(value, now, origin.url(''))}\r\n`);
    const length = method === 'GET' || method === 'HEAD' || method === 'OPTIONS' ? '' : 'Content-Length: 0\r\n';
    client.write(
      `${method} ${origin.url(path)} HTTP/1.1\r\nHost: ${origin.authority}\r\n${lines.join('')}${length}\r\n`,
    );
    const at = `step ${index + 1}`;
    const { expect: wanted } = one;
    if (wanted.broken) {
      await expect(client.readAnswer(method), at).rejects.toThrow('ended before');
      recorded++;
      expect(seen.length > 0, `${at}: the origin was asked`).toBe(wanted.asked);
      continue;
    }
    const interim: number[] = [];
    let answer = await client.readAnswer(method);
    for (; answer.status < 200; answer = await client.readAnswer(method)) interim.push(answer.status);
    // The record ends behind the answer; a body is stored at its end. What is asked for behind an answer has a record of its own.
    await proxy.exchange(recorded++);
    if (wanted.asked === 'behind') await proxy.exchange(recorded++);
    expect(seen.length > 0, `${at}: the origin was asked`).toBe(wanted.asked !== false);
    expectAnswer(at, wanted, answer, value => filled(value, now, origin.url('')));
    if (wanted.interim !== undefined) expect(interim, at).toEqual(wanted.interim);
    if (wanted.seesMethod !== undefined) expect(seen.at(-1), at).toMatch(new RegExp(`^${wanted.seesMethod} `));
    for (const [name, value] of Object.entries(wanted.sees ?? {})) {
      const had = valuesOf(seen.at(-1)!, name);
      expect(had, `${at}: ${name} at the origin`).toBe(value === null ? null : filled(value, now, origin.url('')));
    }
  }
  expect(disk?.warnings ?? []).toEqual([]);
}

function expectAnswer(at: string, wanted: Step['expect'], answer: RawAnswer, fill: (value: string) => string): void {
  if (wanted.status !== undefined) expect(answer.status, at).toBe(wanted.status);
  if (wanted.body !== undefined) expect(answer.text, at).toBe(wanted.body);
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
  const { status = 200, headers = {}, body = 'an answer', framing = 'length', date = 0, cut } = own;
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
