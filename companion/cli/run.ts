// What the command line asks for, and where it goes. What a command does is in the file of its name; each is loaded only when it is asked for.
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { locateConfig } from '../config/places.ts';
import { stateFolderOf } from '../config/state-dir.ts';
import { CannotReach } from './cannot-reach.ts';
import { shown, style } from './style.ts';

const VERSION = '0.1.0';
const HELP = `detour: choose, site by site, how your browser reaches the web

  detour [start]         run the companion
  detour pair            print a new pairing code
  detour clients         list the paired browsers
  detour unpair NAME     take a browser's key away, at once
  detour log             follow the traffic         -n N: the last N first, --json
  detour explain URL     say what would happen to a URL, and why
  detour route ls        the routes of the file, with their chains
  detour route test      try each chain: NAME [URL]; times, exit address   --json
  detour route pin       a chain and no other: NAME "squid > tor" [--for 2h]; unpin NAME
  detour route memory    what auto routes have learnt: ls, forget SITE, set SITE direct|chains
  detour hop ls          the hops of the file, without passwords
  detour hop test        try one: its NAME or a proxy URL, [CHECK_URL]
  detour hop add         NAME and a proxy URL, socks5://me:pass@host:1080; - reads the URL
  detour cache stats     what the cache holds and has saved
  detour cache ls        what is stored             [SITE or URL prefix] --limit N
  detour cache show URL  all that is stored of it, and why it would be used or not
  detour cache purge     forget: URL, --prefix P, --site S or --all
  detour cache pin       keep for offline use: URL or --site S; unpin
  detour lists           the lists of the file, how large and how old; refresh fetches anew
  detour check [FILE]    read the file and name every fault by line and column
  detour env             variables for other programs, and the PAC's address
  detour version, help

  --config FILE          another file than ~/.config/detour/detour.yaml
  --port N               (start) another port than the file's; 0 = any free one
`;

/** Exit codes: 0 done, 1 a fault in what was given, 3 no companion runs, 70 a bug. */
export async function run(args: string[]): Promise<number> {
  // Not for people: how a companion with several workers starts one.
  if (args[0] === 'worker' && process.send !== undefined) return (await import('../worker-process.ts')).runWorker();
  let parsed;
  try {
    parsed = parseArgs({
      args,
      allowPositionals: true,
      options: {
        config: { type: 'string' },
        port: { type: 'string' },
        lines: { type: 'string', short: 'n' },
        json: { type: 'boolean' },
        prefix: { type: 'string' },
        site: { type: 'string' },
        all: { type: 'boolean' },
        limit: { type: 'string' },
        for: { type: 'string' },
        help: { type: 'boolean', short: 'h' },
        version: { type: 'boolean', short: 'v' },
      },
    });
  } catch (error) {
    return complain(
      `${(error as Error).message.split(/\.\s/)[0]!.replace(/\.$/, '')}. \`detour help\` lists what there is.`,
    );
  }
  const { values, positionals } = parsed;
  const [command = 'start', ...rest] = positionals;
  if (values.help || command === 'help') return print(HELP);
  if (values.version || command === 'version') return print(`detour ${VERSION}\n`);
  const takes = Object.hasOwn(ARGUMENTS, command) ? ARGUMENTS[command] : undefined;
  if (takes === undefined)
    return complain(`there is no command "${command}"${nearest(command)}. \`detour help\` lists what there is.`);
  if (rest.length < takes[0] || rest.length > takes[1]) {
    return complain(
      rest.length < takes[0]
        ? `\`detour ${command}\` needs ${takes[2]}.`
        : `\`detour ${command}\` does not take "${rest[takes[1]]}".`,
    );
  }
  if (values.config === '') return complain('--config needs the name of a file.');
  if (values.port !== undefined && command !== 'start') return complain('--port goes with start.');
  if (values.lines !== undefined && command !== 'log') return complain('-n goes with log.');
  if (values.json && !TELLS_JSON.has(command)) return complain('--json goes with log, cache, route, hop and lists.');
  if (values.for !== undefined && command !== 'route') return complain('--for goes with route pin.');
  const { prefix, site, all = false, limit, json = false } = values;
  if ((prefix !== undefined || site !== undefined || all || limit !== undefined) && command !== 'cache')
    return complain('--prefix, --site, --all and --limit go with cache.');
  const configFile = locateConfig(values.config);
  const stateFolder = stateFolderOf(configFile);
  const link = async () => (await import('./ask.ts')).ask(stateFolder, values.config);
  try {
    switch (command) {
      case 'start': {
        const port = values.port === undefined ? undefined : Number(values.port);
        if (port !== undefined && !(/^\d{1,5}$/.test(values.port!) && port <= 65_535)) {
          return complain(`--port ${values.port}: not a port; ports go from 0 (any free one) to 65535.`);
        }
        return await (await import('./start.ts')).start({ configFile, stateFolder, port, version: VERSION });
      }
      case 'check':
        return await (await import('./check.ts')).check(rest[0] ?? configFile);
      case 'pair':
        return await (await import('./pairing.ts')).pairCode(await link());
      case 'clients':
        return await (await import('./pairing.ts')).listClients(await link());
      case 'unpair':
        return await (await import('./pairing.ts')).unpairClient(await link(), rest[0]!);
      case 'log': {
        const lines = values.lines === undefined ? 10 : Number(values.lines);
        if (!Number.isInteger(lines) || lines < 0 || lines > 10_000)
          return complain(`-n ${values.lines}: a number from 0 to 10000.`);
        return await (await import('./log.ts')).followLog(await link(), lines, json);
      }
      case 'cache': {
        const { cacheCommand } = await import('./cache.ts');
        const asked = cacheCommand({ words: rest, prefix, site, all, limit, json });
        return typeof asked === 'string' ? complain(asked) : await asked(await link());
      }
      case 'route':
      case 'hop': {
        const { hopCommand, routeCommand } = await import('./ways.ts');
        // A password on a command line is for every other program to read: with - the URL comes by standard input.
        const words = rest.map(word => (word === '-' ? firstLineOfInput() : word));
        const given = { words, span: values.for, json };
        const asked = command === 'route' ? routeCommand(given) : hopCommand(given);
        return typeof asked === 'string' ? complain(asked) : await asked(await link());
      }
      case 'lists': {
        if (rest[0] !== undefined && rest[0] !== 'refresh')
          return complain('`detour lists` takes nothing but refresh.');
        return await (await import('./lists.ts')).listLists(await link(), rest[0] === 'refresh', json);
      }
      case 'explain':
        return await (await import('./explain.ts')).explainUrl(await link(), rest[0]!);
      default:
        return await (await import('./env.ts')).printEnv(await link());
    }
  } catch (error) {
    if (error instanceof CannotReach) {
      complain(error.message);
      return 3;
    }
    throw error;
  }
}

/** Fewest and most arguments, and what is missing where there are too few. */
const ARGUMENTS: Record<string, readonly [least: number, most: number, what: string]> = {
  start: [0, 0, ''],
  check: [0, 1, ''],
  pair: [0, 0, ''],
  clients: [0, 0, ''],
  unpair: [1, 1, 'the name of a client; `detour clients` lists them'],
  log: [0, 0, ''],
  explain: [1, 1, 'a URL'],
  cache: [0, 3, ''],
  route: [0, 4, ''],
  hop: [0, 4, ''],
  lists: [0, 1, ''],
  env: [0, 0, ''],
};

function firstLineOfInput(): string {
  return /^[^\r\n]*/.exec(readFileSync(0, 'utf8'))![0];
}

const TELLS_JSON = new Set(['log', 'cache', 'route', 'hop', 'lists']);

function nearest(word: string): string {
  const found = Object.keys(ARGUMENTS).find(name => name.startsWith(word.slice(0, 2)));
  return found === undefined ? '' : ` (did you mean ${found}?)`;
}

function print(text: string): number {
  process.stdout.write(text);
  return 0;
}

function complain(text: string): number {
  process.stderr.write(`${style('red', 'detour:')} ${shown(text)}\n`);
  return 1;
}
