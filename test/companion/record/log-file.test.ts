// The log on disk: whole lines, secrets out, rotation, and a disk that fails.
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { openLogFile, redactUrl } from '../../../companion/record/log-file.ts';
import type { Exchange } from '../../../shared/exchange.ts';
import { exchangeOf } from '../../support/exchange.ts';

function makeFolder() {
  const folder = mkdtempSync(path.join(tmpdir(), 'detour-log-'));
  return {
    file: path.join(folder, 'traffic.log'),
    folder,
    [Symbol.dispose]: () => rmSync(folder, { recursive: true }),
  };
}

const read = (file: string) =>
  readFileSync(file, 'utf8')
    .split('\n')
    .filter(line => line !== '')
    .map(line => JSON.parse(line) as Exchange);

test('an exchange is a line, and the file is its owner’s alone', async () => {
  using place = makeFolder();
  const log = openLogFile({ path: place.file, size: 1e6, keep: 3 }, () => {});
  for (let id = 1; id <= 100; id++) log.add(exchangeOf(id));
  await log.close();
  expect(read(place.file).map(one => one.id)).toEqual(Array.from({ length: 100 }, (_, i) => i + 1));
  expect(statSync(place.file).mode & 0o777).toBe(0o600);
});

test('lines reach the disk by themselves, soon', async () => {
  using place = makeFolder();
  const log = openLogFile({ path: place.file, size: 1e6, keep: 3 }, () => {});
  log.add(exchangeOf(1));
  for (let i = 0; i < 200 && !existsSync(place.file); i++) await new Promise(resolve => setTimeout(resolve, 10));
  for (let i = 0; i < 200 && read(place.file).length === 0; i++) await new Promise(resolve => setTimeout(resolve, 10));
  expect(read(place.file)).toHaveLength(1);
  await log.close();
});

test('it goes on where it was, and takes a wider mode back', async () => {
  using place = makeFolder();
  writeFileSync(place.file, `${JSON.stringify(exchangeOf(1))}\n`);
  chmodSync(place.file, 0o644);
  const log = openLogFile({ path: place.file, size: 1e6, keep: 3 }, () => {});
  log.add(exchangeOf(2));
  await log.close();
  expect(read(place.file).map(one => one.id)).toEqual([1, 2]);
  expect(statSync(place.file).mode & 0o777).toBe(0o600);
});

test('it rotates by size, keeps so many, and loses no line in between', async () => {
  using place = makeFolder();
  const line = JSON.stringify(exchangeOf(100)).length + 1;
  for (let id = 100; id < 110; id++) {
    // One batch each, so that each may rotate.
    const log = openLogFile({ path: place.file, size: line * 2, keep: 3 }, () => {});
    log.add(exchangeOf(id));
    await log.close();
  }
  expect(read(place.file).map(one => one.id)).toEqual([108, 109]);
  expect(read(`${place.file}.1`).map(one => one.id)).toEqual([106, 107]);
  expect(read(`${place.file}.3`).map(one => one.id)).toEqual([102, 103]);
  expect(existsSync(`${place.file}.4`)).toBe(false);
});

test('a disk that fails costs one warning, and the log goes on when it is back', async () => {
  using place = makeFolder();
  const said: string[] = [];
  mkdirSync(place.file); // In the way, as a full or read-only disk would be; root may write anywhere else.
  const log = openLogFile({ path: place.file, size: 1e6, keep: 3 }, message => said.push(message));
  const waitFor = async (times: number) => {
    for (let i = 0; i < 300 && said.length < times; i++) await new Promise(resolve => setTimeout(resolve, 10));
  };
  log.add(exchangeOf(1));
  await waitFor(1);
  log.add(exchangeOf(2));
  await new Promise(resolve => setTimeout(resolve, 400));
  expect(said).toEqual([expect.stringContaining(`${place.file} cannot be written`)]);
  rmSync(place.file, { recursive: true });
  log.add(exchangeOf(3));
  await waitFor(2);
  expect(said[1]).toContain('2 exchanges are missing');
  await log.close();
  expect(read(place.file).map(one => one.id)).toEqual([3]);
});

test.runIf(existsSync('/dev/full'))('A78 a full disk is a warning', async () => {
  const said: string[] = [];
  const log = openLogFile({ path: '/dev/full', size: 1e6, keep: 3 }, message => said.push(message));
  log.add(exchangeOf(1));
  await log.close();
  expect(said).toHaveLength(1);
});

test('A56 a link in its place is not followed', async () => {
  using place = makeFolder();
  writeFileSync(path.join(place.folder, 'other'), 'mine\n');
  symlinkSync('other', place.file);
  const said: string[] = [];
  const log = openLogFile({ path: place.file, size: 1e6, keep: 3 }, message => said.push(message));
  log.add(exchangeOf(1));
  await log.close();
  expect(said).toHaveLength(1);
  expect(readFileSync(path.join(place.folder, 'other'), 'utf8')).toBe('mine\n');
});

test('a disk slower than the traffic is bounded in memory', async () => {
  using place = makeFolder();
  const log = openLogFile({ path: place.file, size: 1e9, keep: 1 }, () => {});
  const long = `http://a.test/${'x'.repeat(2_000)}`;
  // All in one turn, so that the disk gets no chance.
  for (let id = 0; id < 10_000; id++) log.add(exchangeOf(id, { url: long }));
  await log.close();
  expect(statSync(place.file).size).toBeLessThan(5 * 1024 * 1024);
});

describe('A63 secrets in URLs', () => {
  test.each([
    ['http://me:s3cret@a.test/x', 'http://a.test/x'],
    ['http://a.test/x?token=abc&q=1', 'http://a.test/x?token=…&q=1'],
    ['http://a.test/x?q=1;api_key=abc', 'http://a.test/x?q=1;api_key=…'],
    ['http://a.test/x?PASSWORD=a=b', 'http://a.test/x?PASSWORD=…'],
    ['http://a.test/x?to%6ben=abc', 'http://a.test/x?to%6ben=…'],
    ['http://a.test/x?q=token', 'http://a.test/x?q=token'],
    ['http://a.test/x@y?z=a@b', 'http://a.test/x@y?z=a@b'],
    ['a.test:443', 'a.test:443'],
  ])('%s → %s', (url, redacted) => {
    expect(redactUrl(url)).toBe(redacted);
  });

  test('the longest query is looked through once, not once from each of its characters', () => {
    const url = `http://a.test/?${'a'.repeat(60_000)}`;
    const began = performance.now();
    expect(redactUrl(url)).toBe(url);
    expect(performance.now() - began).toBeLessThan(1_000);
  });
});
