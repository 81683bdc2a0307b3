import * as fs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { setSite } from '../../../companion/config/config-edit.ts';
import { openConfigStore } from '../../../companion/config/config-store.ts';
import { followConfig, type LiveConfigOptions } from '../../../companion/config/config-watch.ts';

/** A file that is followed, and all that was told of it, in order. */
async function follow(text: string, options: Partial<LiveConfigOptions> = {}) {
  const folder = await fs.mkdtemp(join(tmpdir(), 'detour-watch-'));
  const file = join(folder, 'detour.yaml');
  await fs.writeFile(file, text, { mode: 0o600 });
  const store = await openConfigStore(file);
  const told: string[] = [];
  const live = followConfig(store, await store.read(), {
    settle: 20,
    // Tests of events are not helped by looking; tests of looking ask for it.
    pollInterval: 60_000,
    onConfig: ({ config }, change) => void told.push(`${change}: ${Object.keys(config.sites).join(' ')}`),
    onProblem: error => void told.push(error ? error.summary.replace(file, 'detour.yaml') : 'in order'),
    ...options,
  });
  await live.refresh();
  return {
    folder,
    file,
    live,
    told,
    async [Symbol.asyncDispose]() {
      await live.close();
      await fs.rm(folder, { recursive: true, force: true });
    },
  };
}

async function until(condition: () => boolean): Promise<void> {
  const end = Date.now() + 5_000;
  while (!condition()) {
    if (Date.now() > end) throw new Error('it has not come to that');
    await new Promise(resolve => setTimeout(resolve, 5));
  }
}

const pause = (ms: number) => new Promise(resolve => setTimeout(resolve, ms));

describe('a hand edit', () => {
  test('is in force soon after it is saved in place', async () => {
    await using at = await follow('sites:\n  a.example: off\n');
    await fs.writeFile(at.file, 'sites:\n  b.example: off\n');
    await until(() => at.told.length > 0);
    expect(at.told).toEqual(['file: b.example']);
    expect(Object.keys(at.live.current.config.sites)).toEqual(['b.example']);
  });

  test('is in force when an editor renames a new file into its place, again and again', async () => {
    await using at = await follow('');
    for (const site of ['b.example', 'c.example', 'd.example']) {
      await fs.writeFile(`${at.file}.new`, `sites:\n  ${site}: off\n`, { mode: 0o600 });
      await fs.rename(`${at.file}.new`, at.file);
      await until(() => at.told.at(-1) === `file: ${site}`);
    }
    expect(at.told).toHaveLength(3);
  });

  test('is in force where the file is a link into another folder', async () => {
    const folder = await fs.mkdtemp(join(tmpdir(), 'detour-real-'));
    await fs.writeFile(join(folder, 'real.yaml'), 'sites:\n  b.example: off\n', { mode: 0o600 });
    await using at = await follow('');
    await fs.rm(at.file);
    await fs.symlink(join(folder, 'real.yaml'), at.file);
    await until(() => at.told.at(-1) === 'file: b.example');
    await fs.rm(folder, { recursive: true });
  });

  test('that is out of order is told once, and the last good file stays in force', async () => {
    await using at = await follow('sites:\n  a.example: off\n');
    await fs.writeFile(at.file, 'sites:\n  a.example: wrok\n');
    await until(() => at.told.length > 0);
    await at.live.refresh();
    await at.live.refresh();
    const sentence = 'detour.yaml:2:14: sites.a.example: names the route "wrok", which does not exist';
    expect(at.told).toEqual([sentence]);
    expect(at.live.problem).toBe(sentence.replace('detour.yaml', at.file));
    expect(at.live.current.config.sites['a.example']?.action.do).toBe('off');
  });

  test('that puts it in order again takes the problem away', async () => {
    await using at = await follow('sites:\n  a.example: off\n');
    await fs.writeFile(at.file, 'hopz: 1\n');
    await until(() => at.told.length === 1);
    await fs.writeFile(at.file, 'sites:\n  a.example: off\n');
    await until(() => at.told.length === 2);
    await fs.writeFile(at.file, 'hopz: 1\n');
    await until(() => at.told.length === 3);
    await fs.writeFile(at.file, 'sites:\n  b.example: off\n');
    await until(() => at.told.length === 4);
    const problem = 'detour.yaml:1:1: unknown key "hopz" (did you mean hops?)';
    expect(at.told).toEqual([problem, 'in order', problem, 'file: b.example']);
    expect(at.live.problem).toBeUndefined();
  });

  test('that takes the file away keeps the last good one', async () => {
    await using at = await follow('sites:\n  a.example: off\n');
    await fs.rm(at.file);
    await until(() => at.told.length > 0);
    expect(at.told).toEqual(['detour.yaml: does not exist']);
    expect(Object.keys(at.live.current.config.sites)).toEqual(['a.example']);
    await fs.writeFile(at.file, 'sites:\n  b.example: off\n', { mode: 0o600 });
    await until(() => at.told.at(-1) === 'file: b.example');
  });

  test('that empties the file before it is written does not turn everything off', async () => {
    await using at = await follow('sites:\n  a.example: off\n', { settle: 150 });
    await fs.writeFile(at.file, '');
    await pause(250);
    await fs.writeFile(at.file, 'sites:\n  b.example: off\n');
    await until(() => at.told.length > 0);
    await at.live.refresh();
    expect(at.told).toEqual(['file: b.example']);
  });

  test('that cannot be put in force is a problem, and the last good file stays in force', async () => {
    await using at = await follow('sites:\n  a.example: off\n', {
      onConfig: () => {
        throw new Error('port 80 is taken');
      },
    });
    await fs.writeFile(at.file, 'listen: 127.0.0.1:80\n');
    await until(() => at.told.length > 0);
    expect(at.told).toEqual(['detour.yaml: port 80 is taken']);
    expect(at.live.problem).toBe(`${at.file}: port 80 is taken`);
    expect(Object.keys(at.live.current.config.sites)).toEqual(['a.example']);
    await expect(at.live.edit(text => setSite(text, 'b.example', 'off'))).rejects.toThrow('port 80 is taken');
  });

  test('is noticed without any event', async () => {
    await using at = await follow('', { settle: 60_000, pollInterval: 20 });
    await fs.writeFile(at.file, 'sites:\n  b.example: off\n');
    await until(() => at.told.length > 0);
    expect(at.told).toEqual(['file: b.example']);
  });
});

describe('an edit by the popup', () => {
  test('is in force when it resolves, and is told once', async () => {
    await using at = await follow('sites:\n');
    await at.live.edit(text => setSite(text, 'a.example', 'companion'));
    expect(at.told).toEqual(['edit: a.example']);
    await pause(100);
    await at.live.refresh();
    expect(at.told).toEqual(['edit: a.example']);
    expect(Object.keys(at.live.current.config.sites)).toEqual(['a.example']);
  });

  test('brings along what a hand has written just before', async () => {
    await using at = await follow('sites:\n', { settle: 60_000 });
    await fs.writeFile(at.file, 'sites:\n  hand.example: off\n');
    await at.live.edit(text => setSite(text, 'a.example', 'companion'));
    expect(at.told).toEqual(['edit: hand.example a.example']);
  });

  test('that is refused leaves all as it was', async () => {
    await using at = await follow('sites:\n');
    await expect(at.live.edit(text => setSite(text, 'a.example', 'wrok'))).rejects.toThrow('There is no route "wrok"');
    await at.live.edit(text => setSite(text, 'a.example', 'companion'));
    expect(at.told).toEqual(['edit: a.example']);
  });
});

describe('lists', () => {
  test('a list file that changes, goes or comes is told', async () => {
    await using at = await follow('lists:\n  - { file: hosts.txt, block: true }\n', { pollInterval: 20 });
    await fs.writeFile(join(at.folder, 'hosts.txt'), 'a.example\n');
    await until(() => at.told.length === 1);
    await fs.writeFile(join(at.folder, 'hosts.txt'), 'b.example\n');
    await until(() => at.told.length === 2);
    await fs.rm(join(at.folder, 'hosts.txt'));
    await until(() => at.told.length === 3);
    expect(at.told).toEqual(['lists: ', 'lists: ', 'lists: ']);
  });

  test('the lists of a new file are the ones that are followed', async () => {
    await using at = await follow('', { pollInterval: 20 });
    await fs.writeFile(at.file, 'lists:\n  - { file: hosts.txt, block: true }\n');
    await until(() => at.told.length === 1);
    await fs.writeFile(join(at.folder, 'hosts.txt'), 'a.example\n');
    await until(() => at.told.length === 2);
    expect(at.told).toEqual(['file: ', 'lists: ']);
  });
});

test('after close nothing is told any more', async () => {
  await using at = await follow('', { pollInterval: 20 });
  await at.live.close();
  await fs.writeFile(at.file, 'sites:\n  b.example: off\n');
  await pause(150);
  expect(at.told).toEqual([]);
});
