// `npm run leaks [-- --rounds N]`: the leak tests of test/namespaces at length, where `npm test` has a taste of them: so many reloads, crashes and browser
// starts under load, with every packet looked at that leaves the client's namespace.
import { parseArgs } from 'node:util';
import { ensurePeers, PEERS } from '../support/ensure-peers.ts';
import { runProgram } from '../support/stage.ts';

const MINUTE = 60_000;
const { values } = parseArgs({ options: { rounds: { type: 'string', default: '25' } } });
await ensurePeers(PEERS, 5 * MINUTE);
const result = await runProgram('vitest', ['run', '--project', 'namespaces'], {
  show: true,
  limit: 60 * MINUTE,
  env: { CI: 'true', DETOUR_LEAK_ROUNDS: values.rounds },
});
process.exitCode = result.ok ? 0 : 1;
