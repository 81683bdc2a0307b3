// kill -9 at some moment while everything is being written: the file, the pairings, the log. Then every file must be whole, and the next start must
// find what it needs.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { CODE_PREFIX, TOKEN_PREFIX } from '../../shared/control.ts';
import { startOrigin } from '../support/origin.ts';
import { connectRaw } from '../support/raw-client.ts';
import { spawnCompanion } from '../support/spawned-companion.ts';
import { makePlace, TEST_CONFIG, TestLink } from '../support/with-companion.ts';

/** One life and its end; gives back what was wrong with what it left. `round` decides the moment. */
export async function crashRound(round: number): Promise<string[]> {
  await using origin = await startOrigin();
  using place = makePlace(`${TEST_CONFIG}log: { file: traffic.log, size: 64KiB, keep: 3 }\n`);
  const faults: string[] = [];
  {
    await using companion = await spawnCompanion({ place });
    const { token } = JSON.parse(readFileSync(path.join(place.stateFolder, 'running.json'), 'utf8')) as {
      token: string;
    };
    const life = new AbortController();
    const forever = async (once: (turn: number) => Promise<unknown>) => {
      for (let turn = 0; !life.signal.aborted; turn++)
        await once(turn).catch(() => new Promise(resolve => setTimeout(resolve, 5)));
    };
    const link = await TestLink.open(companion.port, TOKEN_PREFIX + token);
    const ask = (message: { type: string; [more: string]: unknown }) => {
      const asked = link.ask(message);
      asked.catch(() => {});
      return Promise.race([asked, companion.running.ended.then(() => Promise.reject(new Error('gone')))]);
    };
    const work = [
      forever(async turn =>
        ask({ type: 'set-site', site: `s${turn % 40}.test`, route: turn % 2 ? 'companion' : 'off' }),
      ),
      forever(async () => {
        const { code } = (await ask({ type: 'pair' })) as unknown as { code: string };
        const paired = await TestLink.open(companion.port, CODE_PREFIX + code, `chrome-extension://${'b'.repeat(32)}`);
        await paired[Symbol.asyncDispose]();
      }),
      forever(async turn => {
        await using client = await connectRaw(companion.port);
        for (let i = 0; i < 50 && !life.signal.aborted; i++) {
          client.write(`GET ${origin.url(`/${turn}/${i}/${'x'.repeat(500)}`)} HTTP/1.1\r\nHost: x\r\n\r\n`);
          await client.readAnswer();
        }
      }),
    ];
    await new Promise(resolve => setTimeout(resolve, 300 + ((round * 7919) % 900)));
    companion.running.child.kill('SIGKILL');
    life.abort();
    await companion.running.ended;
    await Promise.all(work);
    await link[Symbol.asyncDispose]();
  }

  const clients = path.join(place.stateFolder, 'clients.json');
  const before = existsSync(clients) ? readFileSync(clients, 'utf8') : null;
  try {
    if (before !== null) JSON.parse(before);
  } catch {
    faults.push('clients.json is half written');
  }
  // The next start reads everything, and says so where it cannot.
  await using again = await spawnCompanion({ place });
  await using client = await connectRaw(again.port);
  client.write(`GET ${origin.url('/after')} HTTP/1.1\r\nHost: x\r\n\r\n`);
  if ((await client.readAnswer()).status !== 200) faults.push('it does not serve after the crash');
  again.running.child.kill('SIGTERM');
  client.close();
  const { code, err } = await again.running.ended;
  if (code !== 0) faults.push(`it ended with ${code}`);
  if (err.replace(/Stopping.*/, '').trim() !== '') faults.push(`the next start complains: ${err}`);
  if (before !== null && readFileSync(clients, 'utf8') !== before) faults.push('pairings were lost');
  for (const file of readdirSync(place.folder).filter(name => name.startsWith('traffic.log'))) {
    const lines = readFileSync(path.join(place.folder, file), 'utf8').split('\n');
    if (lines.pop() !== '') faults.push(`${file} ends in the middle of a line`);
    for (const line of lines) {
      try {
        JSON.parse(line);
      } catch {
        faults.push(`${file} has half a line: ${line.slice(0, 80)}`);
      }
    }
  }
  return faults;
}
