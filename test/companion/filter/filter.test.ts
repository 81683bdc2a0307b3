import { mkdtempSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect, test } from 'vitest';
import { parse } from 'yaml';
import { blockAnswer } from '../../../companion/filter/block-page.ts';
import { makeListFiles } from '../../../companion/filter/list-files.ts';
import { parseList } from '../../../companion/filter/list-parser.ts';
import { Fields } from '../../../companion/message/headers.ts';
import type { RequestHead } from '../../../companion/message/message.ts';
import { ALLOWS, matcherAt, type RuleTable } from '../../../shared/decision/rule-table.ts';
import type { ListSource } from '../../../shared/config/rules.ts';
import { hashOfStyle } from '../../support/page-style.ts';

const HOSTS = { format: 'hosts', action: { do: 'block' }, every: 86_400, via: 'companion' } as const;

function entriesOf(table: RuleTable) {
  return Array.from({ length: table.size }, (_, i) => ({
    matcher: matcherAt(table, i),
    line: table.lines[i],
    ...((table.kinds[i]! & ALLOWS) === 0 ? {} : { allow: true }),
  }));
}

function asked(...fields: string[]): RequestHead {
  return {
    method: 'GET',
    target: { form: 'absolute', scheme: 'http', host: 'ads.test', port: 80, path: '/' },
    version: 11,
    fields: Fields.of(...fields),
    framing: { kind: 'none' },
    keepAlive: true,
  };
}

test('a hosts file, bare hosts and the adblock forms by host become entries with their lines', () => {
  const { table, faults } = parseList(
    '\uFEFF# a list\r\n0.0.0.0 ads.test tracker.test # two\r\n127.0.0.1 localhost\n::1 ip6-localhost\nBÜCHER.test\n.sub.test\n=one.test\n10.0.0.0/8\n||third.test^\n@@||good.third.test^\n! comment\n\nlast.test',
  );
  expect(faults).toEqual([]);
  expect(entriesOf(table)).toEqual([
    { matcher: { kind: 'suffix', host: 'ads.test' }, line: 2 },
    { matcher: { kind: 'suffix', host: 'tracker.test' }, line: 2 },
    { matcher: { kind: 'suffix', host: 'xn--bcher-kva.test' }, line: 5 },
    { matcher: { kind: 'subdomains', host: 'sub.test' }, line: 6 },
    { matcher: { kind: 'exact', host: 'one.test' }, line: 7 },
    { matcher: { kind: 'suffix', host: 'third.test' }, line: 9 },
    { matcher: { kind: 'suffix', host: 'good.third.test' }, line: 10, allow: true },
    { matcher: { kind: 'suffix', host: 'last.test' }, line: 13 },
    { matcher: { kind: 'cidr', address: '10.0.0.0', prefix: 8 }, line: 8 },
  ]);
});

test('a faulty line is named and the others hold', () => {
  const { table, faults, faulty } = parseList('good.test\n*.bad.test\n||x.test/path^\nnot a host line\nfine.test\n');
  expect([...table.lines]).toEqual([1, 5]);
  expect(faults.map(fault => fault.line)).toEqual([2, 3, 4]);
  expect(faults[0]!.message).toContain('"*"');
  expect(faulty).toBe(3);
});

test('only the first twenty faults are told, all are counted', () => {
  const { faults, faulty } = parseList('*.x\n'.repeat(50));
  expect(faults).toHaveLength(20);
  expect(faulty).toBe(50);
});

test('a page in place of a list is no list', () => {
  expect(parseList('<!DOCTYPE html><html>Log in').faults).toEqual([{ line: 0, message: 'is a web page, not a list' }]);
});

test('list files are read again when they change, and the last good content stays', async () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'detour-lists-'));
  try {
    const file = path.join(folder, 'work.txt');
    const sources: ListSource[] = [
      { ...HOSTS, file: 'work.txt' },
      { ...HOSTS, file: 'gone.txt' },
    ];
    const files = makeListFiles();
    const load = () => files.load(sources, ({ file }) => path.join(folder, file!));
    writeFileSync(file, 'a.test\nb..test\n');
    let loaded = await load();
    expect(loaded.lists[0]).toMatchObject({ name: 'work.txt', id: 'lists[0]', table: { size: 1 } });
    expect(loaded.lists[1]!.table.size).toBe(0);
    expect(loaded.problems).toEqual([
      expect.stringMatching(/^work\.txt:2: .*b\.\.test/),
      'gone.txt: the list file does not exist',
    ]);
    writeFileSync(file, '<html>portal</html>');
    utimesSync(file, 1, 2);
    loaded = await load();
    expect(loaded.lists[0]!.table.size).toBe(1);
    expect(loaded.problems[0]).toContain('web page');
    // Asked again with nothing changed, it still says so.
    expect((await load()).problems[0]).toContain('web page');
    expect((await load()).lists[0]!.table.size).toBe(1);
    writeFileSync(file, 'c.test\nd.test\n');
    utimesSync(file, 1, 3);
    expect((await load()).lists[0]!.table.size).toBe(2);
    rmSync(file);
    loaded = await load();
    expect(loaded.lists[0]!.table.size).toBe(2);
    expect(loaded.problems[0]).toContain('stays in force');
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('a device or a folder in place of a list file is told and never read', async () => {
  const sources = ['/dev/zero', tmpdir()].map((file): ListSource => ({ ...HOSTS, file }));
  expect((await makeListFiles().load(sources, ({ file }) => file!)).problems).toEqual([
    '/dev/zero: is not a plain file',
    `${tmpdir()}: is a folder, not a list file`,
  ]);
});

test('a list of 2,000,001 lines or more than 64 MiB is refused whole', () => {
  expect(parseList('\n'.repeat(2_000_001)).faults).toEqual([{ line: 0, message: 'has more than 2000000 lines' }]);
  expect(parseList('#'.repeat(64 * 1024 * 1024 + 1)).faults).toEqual([{ line: 0, message: 'is larger than 64 MiB' }]);
});

test('the line that the page tells to add lets the host through', () => {
  for (const host of ['ads.test', 'no', '::1']) {
    const line = (rule: string) =>
      /<pre>\s*- (.*)<\/pre>/.exec(String(blockAnswer(asked('Accept', 'text/html'), host, { rule }).body))![1]!;
    const read = (text: string) => parse(text.replaceAll('&#34;', '"')) as unknown;
    expect(read(line('rules[0]'))).toEqual({ host, allow: true, rank: 1 });
    expect(read(line('default'))).toEqual({ host, route: 'companion', rank: 1 });
  }
});

test('A59: a blocked document gets a page that names list and line, with everything escaped', () => {
  const { head, body } = blockAnswer(asked('Accept', 'text/html,*/*'), '<b>.test', {
    rule: 'lists[0]',
    list: 'a&b.txt',
    line: 7,
    text: 'ads.test',
  });
  const page = String(body);
  expect(head.status).toBe(403);
  const policy = head.fields.get('content-security-policy')!;
  expect(policy).toContain("default-src 'none'");
  expect(policy).not.toContain('unsafe-inline');
  expect(policy).toContain(hashOfStyle(page));
  expect(page).toContain('Line 7 of the list <code>a&#38;b.txt</code>');
  expect(page).toContain('lists[0]');
  expect(page).not.toContain('<b>');
});

test('a blocked subresource gets an empty answer of its type', () => {
  const by = { rule: 'rules[0]', text: 'ads.test' };
  expect(blockAnswer(asked('Sec-Fetch-Dest', 'script'), 'ads.test', by).head.fields.get('content-type')).toBe(
    'text/javascript',
  );
  const image = blockAnswer(asked('Accept', 'image/avif,image/webp'), 'ads.test', by);
  expect(image.head.fields.get('content-type')).toBe('image/gif');
  expect(String((image.body as Buffer).subarray(0, 3))).toBe('GIF');
  const odd = blockAnswer(asked('Sec-Fetch-Dest', 'constructor'), 'ads.test', by);
  expect(odd.head.fields.get('content-type')).toBe('text/plain');
  expect((blockAnswer(asked('Accept', '*/*'), 'ads.test', by).body as Buffer).length).toBe(0);
});
