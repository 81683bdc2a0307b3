// Holds the code to the arrows of ARCHITECTURE.md: who may import whom. Also how files are called.
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { parseSync } from 'rolldown/utils';
import { describe, expect, test } from 'vitest';

const ROOT = path.resolve(import.meta.dirname, '..');

interface Import {
  from: string;
  /** A path from the root for one of our files, else the specifier as written. */
  to: string;
  typeOnly: boolean;
}

/** The floors of the companion, top to bottom; a file imports from its own room or from a lower floor. */
const FLOORS = ['main', 'cli', 'companion', 'proxy', 'room', 'shapes', 'message', 'sockets'] as const;
/** Where everything is put together, in more than one file. */
const COMPANION_FILES = new Set([
  'companion.ts',
  'cache-desk.ts',
  'explain.ts',
  'fetch-list.ts',
  'steering.ts',
  'site-ways.ts',
  'way-test.ts',
  'ways-desk.ts',
  'worker.ts',
  'workers.ts',
  'worker-process.ts',
  'worker-messages.ts',
  'worker-outbox.ts',
]);
type Floor = (typeof FLOORS)[number];

function floorOf(file: string): Floor {
  const [, first = '', inner] = file.split('/');
  if (inner === undefined) {
    if (first === 'main.ts') return 'main';
    if (COMPANION_FILES.has(first)) return 'companion';
    if (first === 'proxy.ts' || first === 'notes.ts') return 'proxy';
    if (first === 'rooms.ts') return 'shapes';
    throw new Error(`${file}: a new file beside the rooms needs its floor named here`);
  }
  if (first === 'snapshot') return 'main';
  if (first === 'cli') return 'cli';
  return first === 'message' || first === 'sockets' ? first : 'room';
}

const SHARED_PACKAGES = new Set(['valibot']);
const COMPANION_ONLY_PACKAGES = new Set(['dns-packet', 'tldts', 'ws', 'yaml', 'lru-cache']);

/** What is wrong with an import, or undefined. */
export function wrongWith({ from, to, typeOnly }: Import): string | undefined {
  const side = from.split('/')[0];
  const target = to.split('/')[0];
  const isFile = target === 'shared' || target === 'companion' || target === 'extension' || target === 'test';
  if (target === 'test') return 'the product does not import its tests';
  if (side === 'shared') {
    if (isFile) return target === 'shared' ? undefined : 'shared imports only shared';
    return SHARED_PACKAGES.has(to) ? undefined : `shared knows no ${to}`;
  }
  if (side === 'extension') {
    if (target === 'companion') return 'the extension does not import the companion';
    if (to.startsWith('node:')) return 'the extension has no Node';
    return COMPANION_ONLY_PACKAGES.has(to) ? `${to} stays in the companion` : undefined;
  }
  if (target === 'extension') return 'the companion does not import the extension';
  if (target !== 'companion') return undefined;
  const sameRoom = path.dirname(from) === path.dirname(to) || from.split('/')[1] === to.split('/')[1];
  const [above, below] = [floorOf(from), floorOf(to)];
  if (below === 'shapes' && !typeOnly) return 'rooms.ts holds types: import them as types';
  if (above === below && above !== 'main')
    return sameRoom ? undefined : 'rooms meet in proxy.ts, they do not import each other';
  return FLOORS.indexOf(above) < FLOORS.indexOf(below) ? undefined : `${above} does not import ${below}`;
}

/** Every import of a source text, dynamic ones and re-exports too. */
export function importsOf(file: string, source: string): Import[] {
  const { module, errors } = parseSync(file, source, { lang: file.endsWith('x') ? 'tsx' : 'ts' });
  if (errors.length > 0) throw new Error(`${file} does not parse: ${errors[0]?.message}`);
  const found: { specifier: string; typeOnly: boolean }[] = [];
  for (const { moduleRequest, entries } of module.staticImports) {
    found.push({
      specifier: moduleRequest.value,
      typeOnly: entries.length > 0 && entries.every(entry => entry.isType),
    });
  }
  for (const { entries } of module.staticExports) {
    for (const { moduleRequest, isType } of entries)
      if (moduleRequest) found.push({ specifier: moduleRequest.value, typeOnly: isType });
  }
  for (const { moduleRequest } of module.dynamicImports) {
    const text = source.slice(moduleRequest.start, moduleRequest.end);
    const literal = /^(['"`])(.*)\1$/.exec(text)?.[2];
    if (literal === undefined) throw new Error(`${file}: import(${text}) cannot be followed`);
    found.push({ specifier: literal, typeOnly: false });
  }
  return found.map(({ specifier, typeOnly }) => {
    const to = specifier.startsWith('.') ? path.posix.join(path.posix.dirname(file), specifier) : packageOf(specifier);
    return { from: file, to, typeOnly };
  });
}

function packageOf(specifier: string): string {
  if (specifier.startsWith('node:')) return specifier;
  const [scope = '', name] = specifier.split('/');
  return specifier.startsWith('@') ? `${scope}/${name}` : scope;
}

function filesUnder(folder: string): string[] {
  return readdirSync(path.join(ROOT, folder), { recursive: true, withFileTypes: true })
    .filter(entry => entry.isFile())
    .map(entry => path.relative(ROOT, path.join(entry.parentPath, entry.name)).split(path.sep).join('/'));
}

const sources = ['shared', 'companion', 'extension'].flatMap(filesUnder).filter(file => /(?<!\.d)\.tsx?$/.test(file));

describe('the house', () => {
  test('imports follow the arrows', () => {
    const wrong = sources
      .flatMap(file => importsOf(file, readFileSync(path.join(ROOT, file), 'utf8')))
      .map(one => ({ ...one, because: wrongWith(one) }))
      .filter(one => one.because !== undefined)
      .map(one => `${one.from} → ${one.to}: ${one.because}`);
    expect(sources.length).toBeGreaterThan(0);
    expect(wrong).toEqual([]);
  });

  test('files are kebab-case and none is called utils', () => {
    const names = [...sources, ...filesUnder('test').filter(file => file.endsWith('.ts'))];
    const odd = names.filter(file => {
      const name = path.posix.basename(file);
      return (
        !/^[a-z0-9]+(-[a-z0-9]+)*(\.[a-z0-9-]+)*\.tsx?$/.test(name) || /^(utils?|helpers?|misc|common)\b/.test(name)
      );
    });
    expect(odd).toEqual([]);
  });

  test('a wrong import is seen in each of its forms', () => {
    const see = (from: string, source: string) => importsOf(from, source).map(wrongWith);
    expect(see('shared/a.ts', `import { join } from 'node:path';`)).toEqual(['shared knows no node:path']);
    expect(see('shared/a.ts', `export * from '../companion/proxy.ts';`)).toEqual(['shared imports only shared']);
    expect(see('shared/a.ts', `import type { B } from './decision/b.ts'; import * as v from 'valibot';`)).toEqual([
      undefined,
      undefined,
    ]);
    expect(see('extension/a.ts', `await import('../companion/rooms.ts');`)).toEqual([
      'the extension does not import the companion',
    ]);
    expect(see('companion/chain/a.ts', `import '../route/b.ts';`)).toEqual([
      'rooms meet in proxy.ts, they do not import each other',
    ]);
    expect(see('companion/chain/a.ts', `import { C } from '../rooms.ts';`)).toEqual([
      'rooms.ts holds types: import them as types',
    ]);
    expect(see('companion/chain/a.ts', `import type { C } from '../rooms.ts';`)).toEqual([undefined]);
    expect(see('companion/chain/a.ts', `import { d } from '../message/d.ts'; import { e } from './e.ts';`)).toEqual([
      undefined,
      undefined,
    ]);
    expect(see('companion/message/a.ts', `import '../chain/b.ts';`)).toEqual(['message does not import room']);
    expect(see('companion/proxy.ts', `import '../companion/companion.ts';`)).toEqual([
      'proxy does not import companion',
    ]);
  });
});

// Node draws these from a supply in the heap, and a start-up snapshot would hand the same one to every start (seen in Node 24).
test('the companion draws no random numbers that could be in its snapshot', () => {
  for (const file of sources.filter(one => one.startsWith('companion/'))) {
    const used = /\brandom(?:Int|UUID)\b(?!:)/.exec(
      readFileSync(path.join(ROOT, file), 'utf8').replaceAll(/\/\/.*|^ *\/?\*.*$/gm, ''),
    );
    expect([file, used?.[0]]).toEqual([file, undefined]);
  }
});
