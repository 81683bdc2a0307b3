import { spawn } from 'node:child_process';
import { once } from 'node:events';
import * as fs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { describe, expect, test } from 'vitest';
import { setSite } from '../../../companion/config/config-edit.ts';
import { EditError } from '../../../companion/config/editing.ts';
import { ConfigError } from '../../../companion/config/config-error.ts';
import { parseConfig } from '../../../companion/config/config-file.ts';
import { openConfigStore, readConfigText } from '../../../companion/config/config-store.ts';
import { locateConfig, pathFromConfig } from '../../../companion/config/places.ts';
import { DEFAULT_CONFIG_TEXT } from '../../../companion/config/default-text.ts';

async function makeFolder() {
  const path = await fs.mkdtemp(join(tmpdir(), 'detour-config-'));
  return {
    path,
    file: join(path, 'detour.yaml'),
    [Symbol.asyncDispose]: () => fs.rm(path, { recursive: true, force: true }),
  };
}

const modeOf = async (path: string) => ((await fs.stat(path)).mode & 0o777).toString(8);
const turnOn = (site: string) => (text: string) => setSite(text, site, 'companion');

async function faultOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
  } catch (error) {
    if (error instanceof ConfigError || error instanceof EditError) return error.message;
    throw error;
  }
  throw new Error('no fault');
}

describe('where the file is', () => {
  test('--config first, then XDG, then the home folder', () => {
    expect(locateConfig('mine.yaml', { XDG_CONFIG_HOME: '/x', HOME: '/h' })).toBe('mine.yaml');
    expect(locateConfig(undefined, { XDG_CONFIG_HOME: '/x', HOME: '/h' })).toBe('/x/detour/detour.yaml');
    expect(locateConfig(undefined, { XDG_CONFIG_HOME: 'relative', HOME: '/h' })).toBe('/h/.config/detour/detour.yaml');
    expect(locateConfig(undefined, { HOME: '/h' })).toBe('/h/.config/detour/detour.yaml');
  });

  test('paths in the file start from its folder', () => {
    expect(pathFromConfig('/etc/detour/detour.yaml', 'hosts.txt')).toBe('/etc/detour/hosts.txt');
    expect(pathFromConfig('/etc/detour/detour.yaml', '/srv/hosts.txt')).toBe('/srv/hosts.txt');
    expect(pathFromConfig('/etc/detour/detour.yaml', '~/hosts.txt', { HOME: '/h' })).toBe('/h/hosts.txt');
  });
});

describe('the first start', () => {
  test('makes a file that explains itself, readable by its owner only', async () => {
    await using folder = await makeFolder();
    const file = join(folder.path, 'a', 'b', 'detour.yaml');
    const told: string[] = [];
    const store = await openConfigStore(file, message => told.push(message));
    expect((await store.read()).text).toBe(DEFAULT_CONFIG_TEXT);
    expect([
      await modeOf(file),
      await modeOf(join(folder.path, 'a')),
      await modeOf(join(folder.path, 'a', 'b')),
    ]).toEqual(['600', '700', '700']);
    expect(told).toEqual([`${file} is new: it explains itself.`]);
    expect(await fs.readdir(join(folder.path, 'a', 'b'))).toEqual(['detour.yaml']);
  });

  test('leaves a file alone that is there', async () => {
    await using folder = await makeFolder();
    await fs.writeFile(folder.file, '# mine\n', { mode: 0o600 });
    const store = await openConfigStore(folder.file);
    expect((await store.read()).text).toBe('# mine\n');
  });

  test('goes through a link to a file that is not there yet', async () => {
    await using folder = await makeFolder();
    await fs.symlink('elsewhere.yaml', folder.file);
    await openConfigStore(folder.file);
    expect((await fs.lstat(folder.file)).isSymbolicLink()).toBe(true);
    expect(await fs.readFile(join(folder.path, 'elsewhere.yaml'), 'utf8')).toBe(DEFAULT_CONFIG_TEXT);
  });

  test('says where it cannot be made', async () => {
    await using folder = await makeFolder();
    await fs.writeFile(join(folder.path, 'file'), '');
    const file = join(folder.path, 'file', 'detour.yaml');
    expect(await faultOf(openConfigStore(file).then(store => store.read()))).toBe(
      `${file}: cannot be read: a part of its path is not a folder`,
    );
  });
});

describe('reading', () => {
  test.each<[string, (file: string) => Promise<unknown>, string]>([
    ['a folder', file => fs.mkdir(file), 'is a folder, not a file'],
    ['nothing', async () => {}, 'does not exist'],
    ['Latin-1', file => fs.writeFile(file, Buffer.from('# caf\xe9\n', 'latin1')), 'is not UTF-8 text'],
    ['UTF-16', file => fs.writeFile(file, Buffer.from('\uFEFFlisten: x\n', 'utf16le')), 'is not UTF-8 text'],
    [
      'five MiB',
      file => fs.writeFile(file, '#'.repeat(5 * 1024 * 1024)),
      'is larger than 4 MiB; put many hosts in a list file',
    ],
    ['a link to itself', file => fs.symlink(file, file), 'cannot be read: it is a link that leads nowhere'],
    ['a device', file => fs.symlink('/dev/zero', file), 'is not a plain file'],
  ])('%s is refused in a sentence', async (_what, make, sentence) => {
    await using folder = await makeFolder();
    await make(folder.file);
    expect(await faultOf(readConfigText(folder.file))).toBe(`${folder.file}: ${sentence}`);
  });

  test('a file without permission is refused in a sentence', async () => {
    await using folder = await makeFolder();
    await fs.writeFile(folder.file, '', { mode: 0 });
    await fs.chmod(folder.path, 0o755);
    // Nothing is forbidden to root, so root is somebody else for a moment.
    const isRoot = process.geteuid?.() === 0;
    if (isRoot) process.seteuid!(65534);
    try {
      expect(await faultOf(readConfigText(folder.file))).toBe(`${folder.file}: cannot be read: permission denied`);
    } finally {
      if (isRoot) process.seteuid!(0);
    }
  });

  test('A58: a mode that lets others read is taken back, with a word', async () => {
    await using folder = await makeFolder();
    await fs.writeFile(folder.file, 'hops: { a: "http://me:s3cret@a:1" }\n');
    await fs.chmod(folder.file, 0o644);
    const told: string[] = [];
    await readConfigText(folder.file, message => told.push(message));
    await readConfigText(folder.file, message => told.push(message));
    expect(await modeOf(folder.file)).toBe('600');
    expect(told).toEqual([`${folder.file} could be read by others; its mode is 0600 again.`]);
  });

  test('a byte order mark stays where it is', async () => {
    await using folder = await makeFolder();
    await fs.writeFile(folder.file, '\uFEFF# mine\n', { mode: 0o600 });
    const store = await openConfigStore(folder.file);
    await store.edit(turnOn('a.example'));
    expect(await fs.readFile(folder.file, 'utf8')).toBe('\uFEFF# mine\nsites:\n  a.example: companion\n');
  });
});

describe('editing', () => {
  test('writes the new text whole, at mode 0600, and leaves nothing beside it', async () => {
    await using folder = await makeFolder();
    const store = await openConfigStore(folder.file);
    const before = (await fs.stat(folder.file)).ino;
    const parsed = await store.edit(turnOn('a.example'));
    expect(parsed.rules.map(({ id }) => id)).toEqual(['sites.a.example']);
    expect(await fs.readFile(folder.file, 'utf8')).toBe(parsed.text);
    expect([await modeOf(folder.file), await fs.readdir(folder.path)]).toEqual(['600', ['detour.yaml']]);
    expect((await fs.stat(folder.file)).ino).not.toBe(before);
  });

  test('many at once are made one after the other, and none is lost', async () => {
    await using folder = await makeFolder();
    const store = await openConfigStore(folder.file);
    const sites = Array.from({ length: 25 }, (_, i) => `h${i}.example`);
    await Promise.all(sites.map(site => store.edit(turnOn(site))));
    expect(Object.keys((await store.read()).config.sites)).toEqual(sites);
  });

  test('a hand edit made meanwhile is kept', async () => {
    await using folder = await makeFolder();
    await fs.writeFile(folder.file, 'sites:\n', { mode: 0o600 });
    const store = await openConfigStore(folder.file);
    let turns = 0;
    await store.edit(text => {
      // Somebody saves between our reading and our writing, once.
      if (++turns === 1) writeNow(folder.file, `${text}# by hand\n`);
      return setSite(text, 'a.example', 'companion');
    });
    expect(turns).toBe(2);
    expect(await fs.readFile(folder.file, 'utf8')).toBe('sites:\n  a.example: companion\n# by hand\n');
  });

  test('goes through a link to the file itself', async () => {
    await using folder = await makeFolder();
    const real = join(folder.path, 'dotfiles', 'real.yaml');
    await fs.mkdir(join(folder.path, 'dotfiles'));
    await fs.writeFile(real, '# mine\n', { mode: 0o600 });
    await fs.symlink(join('dotfiles', 'real.yaml'), folder.file);
    const store = await openConfigStore(folder.file);
    await store.edit(turnOn('a.example'));
    expect((await fs.lstat(folder.file)).isSymbolicLink()).toBe(true);
    expect(await fs.readFile(real, 'utf8')).toContain('a.example: companion');
  });

  test('is refused while the file is out of order, and changes nothing', async () => {
    await using folder = await makeFolder();
    await fs.writeFile(folder.file, 'hopz: 1\n', { mode: 0o600 });
    const store = await openConfigStore(folder.file);
    expect(await faultOf(store.edit(turnOn('a.example')))).toContain(':1:1: unknown key "hopz"');
    expect(await fs.readFile(folder.file, 'utf8')).toBe('hopz: 1\n');
  });

  test('is refused by a judge, and changes nothing', async () => {
    await using folder = await makeFolder();
    await fs.writeFile(folder.file, 'sites:\n', { mode: 0o600 });
    const store = await openConfigStore(folder.file, () => {}, [
      ({ sites }) => (sites['a.example'] ? [{ path: ['sites', 'a.example'], message: 'is not liked' }] : []),
    ]);
    expect(await faultOf(store.edit(turnOn('a.example')))).toBe(`${folder.file}:2:14: sites.a.example: is not liked`);
    expect(await fs.readFile(folder.file, 'utf8')).toBe('sites:\n');
    await store.edit(turnOn('b.example'));
  });

  test('that fails on the disk says so, and the next one works', async () => {
    await using folder = await makeFolder();
    await fs.mkdir(join(folder.path, 'in'));
    const file = join(folder.path, 'in', 'detour.yaml');
    const store = await openConfigStore(file);
    const text = await fs.readFile(file, 'utf8');
    await fs.rename(join(folder.path, 'in'), join(folder.path, 'away'));
    expect(await faultOf(store.edit(turnOn('a.example')))).toBe(`${file}: does not exist`);
    await fs.rename(join(folder.path, 'away'), join(folder.path, 'in'));
    expect(await fs.readFile(file, 'utf8')).toBe(text);
    expect((await store.edit(turnOn('a.example'))).rules).toHaveLength(1);
  });
});

test('kill -9 at any moment leaves the old text or the new one, and no litter for long', async () => {
  await using folder = await makeFolder();
  const comments = Array.from({ length: 300 }, (_, i) => `# line ${i} of what the owner wrote`);
  await fs.writeFile(folder.file, `${comments.join('\n')}\nsites:\n  first.example: off\n`, { mode: 0o600 });
  const from = (name: string) =>
    JSON.stringify(pathToFileURL(join(import.meta.dirname, '../../../companion/config', name)).href);
  const writer = `
    import { openConfigStore } from ${from('config-store.ts')};
    import { setSite } from ${from('config-edit.ts')};
    const store = await openConfigStore(process.argv[1]);
    for (let i = 0; ; i++) {
      const site = 'h' + Math.floor(Math.random() * 20) + '.example';
      await store.edit(text => setSite(text, site, text.includes(' ' + site) ? null : 'companion'));
      if (i === 0) process.stdout.write('writing');
    }`;
  let changed = 0;
  let last = '';
  for (let round = 0; round < 30; round++) {
    const child = spawn(process.execPath, ['--input-type=module', '-e', writer, folder.file], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    try {
      await once(child.stdout, 'data');
      await new Promise(resolve => setTimeout(resolve, Math.random() * 40));
    } finally {
      child.kill('SIGKILL');
    }
    await once(child, 'exit');
    const text = await fs.readFile(folder.file, 'utf8');
    const { config } = parseConfig(text, 'detour.yaml');
    expect(text.split('\n').slice(0, comments.length)).toEqual(comments);
    expect(config.sites['first.example']?.action.do).toBe('off');
    expect(text.split('\n').length).toBe(comments.length + 2 + Object.keys(config.sites).length);
    expect(await modeOf(folder.file)).toBe('600');
    if (text !== last) changed++;
    last = text;
  }
  expect(changed).toBeGreaterThan(5);
  await openConfigStore(folder.file);
  expect(await fs.readdir(folder.path)).toEqual(['detour.yaml']);
}, 60_000);

function writeNow(file: string, text: string): void {
  // Synchronously, as another process would, inside the reader's own turn.
  process.getBuiltinModule('node:fs').writeFileSync(file, text);
}
