// `detour route …` and `detour hop …`: the ways out that the file has, tests of them, pins, and what the auto routes remember.
import type { ClientRequest, Reply } from '../../shared/control.ts';
import { chainText as nameOf } from '../../shared/ladder.ts';
import type { Seconds } from '../../shared/units.ts';
import type {
  ChainHealth,
  ChainTest,
  HopHealth,
  HopState,
  RouteState,
  SiteWay,
  WaysState,
  WaysTest,
} from '../../shared/ways.ts';
import { type ControlLink, once } from './ask.ts';
import { shown, style } from './style.ts';

/** What stands behind `detour route` or `detour hop`. */
export interface WaysArguments {
  readonly words: readonly string[];
  /** `--for`. */
  readonly span: string | undefined;
  readonly json: boolean;
}
type Run = (link: ControlLink) => Promise<number>;

/** Fewest and most words behind an action, and what it needs. */
type Takes = readonly [least: number, most: number, needs: string];
const ROUTE_ACTIONS: Readonly<Record<string, Takes>> = {
  ls: [0, 0, ''],
  test: [1, 2, 'the name of a route'],
  pin: [2, 2, 'the name of a route and a chain, as in `detour route pin work "squid > tor"`'],
  unpin: [1, 1, 'the name of a route'],
  memory: [0, 3, ''],
};
const HOP_ACTIONS: Readonly<Record<string, Takes>> = {
  ls: [0, 0, ''],
  test: [1, 2, 'the name of a hop, or its URL'],
  add: [2, 2, 'a name and a URL, as in `detour hop add office socks5://me:password@gw.example:1080`'],
};

/** What is to be asked, and how the reply is shown; or a sentence that says what is wrong with the arguments. */
export function routeCommand({ words, span, json }: WaysArguments): Run | string {
  const [action, name, more] = words;
  const wrong = wrongWords('route', ROUTE_ACTIONS, words);
  if (wrong !== null) return wrong;
  if (span !== undefined && action !== 'pin') return '--for goes with route pin.';
  switch (action) {
    case 'ls':
      return asked({ type: 'ways' }, reply => (reply.type === 'ways' ? list(reply.ways, json) : ''));
    case 'test':
      return tested({ type: 'test-route', route: name!, url: more }, json);
    case 'pin': {
      const lifetime = span === undefined ? null : readSpan(span);
      if (lifetime === 'unclear') return `--for ${span}: a time like 30m, 2h or 1d.`;
      const chain = readChain(more!);
      const said = `The route ${name} takes ${nameOf(chain)} and no other chain${span === undefined ? ' until it is unpinned' : ` for ${span}`}.`;
      return asked({ type: 'pin-route', route: name!, chain, for: lifetime }, done(json, said));
    }
    case 'unpin':
      return asked(
        { type: 'unpin-route', route: name! },
        done(json, `Nothing is pinned on the route ${name} any more.`),
      );
    default:
      return memory(words.slice(1), json);
  }
}

/** The same for `detour hop`. */
export function hopCommand({ words, span, json }: WaysArguments): Run | string {
  const [action, name, more] = words;
  const wrong = wrongWords('hop', HOP_ACTIONS, words);
  if (wrong !== null) return wrong;
  if (span !== undefined) return '--for goes with route pin.';
  switch (action) {
    case 'ls':
      return asked({ type: 'ways' }, reply => (reply.type === 'ways' ? listHops(reply.ways, json) : ''));
    case 'test':
      return tested({ type: 'test-hop', hop: name!, url: more }, json);
    default:
      return asked(
        { type: 'set-hop', name: name!, hop: more!, isNew: true },
        done(
          json,
          `The hop ${name} is in the file. A chain with it: \`detour hop test ${name}\`, then routes: in the file or the settings page.`,
        ),
      );
  }
}

function memory([action = 'ls', site, way, more]: readonly string[], json: boolean): Run | string {
  if (more !== undefined) return `\`detour route memory\` does not take "${more}".`;
  switch (action) {
    case 'ls':
      if (site !== undefined) return `\`detour route memory ls\` does not take "${site}".`;
      return asked({ type: 'site-ways' }, reply => (reply.type === 'site-ways' ? listSites(reply.sites, json) : ''));
    case 'forget':
      if (site === undefined) return '`detour route memory forget` needs a site.';
      if (way !== undefined) return `\`detour route memory forget\` does not take "${way}".`;
      return asked(
        { type: 'set-site-way', site, way: null },
        done(json, `What was remembered of ${site} is forgotten.`),
      );
    case 'set':
      if (site === undefined || (way !== 'direct' && way !== 'chains'))
        return '`detour route memory set` needs a site, and direct or chains.';
      return asked(
        { type: 'set-site-way', site, way },
        done(json, way === 'direct' ? `${site} goes direct first.` : `${site} goes by the chains first.`),
      );
    default:
      return `there is no \`detour route memory ${action}\`; there are ls, forget and set.`;
  }
}

function wrongWords(
  command: string,
  actions: Readonly<Record<string, Takes>>,
  words: readonly string[],
): string | null {
  const [action, ...rest] = words;
  const all = Object.keys(actions).join(', ');
  if (action === undefined) return `\`detour ${command}\` needs one of ${all}.`;
  if (!Object.hasOwn(actions, action)) return `there is no \`detour ${command} ${action}\`; there are ${all}.`;
  const [least, most, needs] = actions[action]!;
  if (rest.length < least) return `\`detour ${command} ${action}\` needs ${needs}.`;
  return rest.length > most ? `\`detour ${command} ${action}\` does not take "${rest[most]}".` : null;
}

function asked(message: ClientRequest, show: (reply: Reply) => string): Run {
  return link => once(link, message, show);
}

function done(json: boolean, sentence: string): (reply: Reply) => string {
  return () => (json ? '{"done":true}\n' : `${sentence}\n`);
}

/** A test of which nothing works is a fault. */
function tested(message: ClientRequest, json: boolean): Run {
  return async link => {
    let works = false;
    const code = await once(link, message, reply => {
      if (reply.type !== 'tested') return '';
      works = reply.test.chains.some(({ outcome }) => outcome === 'ok');
      return json ? `${JSON.stringify(reply.test)}\n` : testText(reply.test);
    });
    return Math.max(code, works ? 0 : 1);
  };
}

/** `squid > tor`, `squid,tor` or `companion`. */
function readChain(written: string): string[] {
  const names = written.split(/\s*(?:>|→|,)\s*/).map(name => name.trim());
  return names.length === 1 && (names[0] === 'companion' || names[0] === '') ? [] : names;
}

function readSpan(written: string): Seconds | 'unclear' {
  const match = /^(\d{1,6})\s*(s|m|min|h|d)?$/.exec(written.trim());
  const unit = { s: 1, m: 60, min: 60, h: 3_600, d: 86_400 }[match?.[2] ?? 's'];
  const seconds = match === null ? 0 : Number(match[1]) * unit!;
  return seconds >= 1 && seconds <= 31_536_000 ? seconds : 'unclear';
}

const lines = (objects: readonly unknown[]) => objects.map(one => `${JSON.stringify(one)}\n`).join('');

function list({ routes }: WaysState, json: boolean): string {
  if (json) return lines(routes);
  if (routes.length === 0)
    return 'The file has no routes. What is steered goes by `companion`, which connects itself.\n';
  return routes.map(routeText).join('');
}

function routeText({ name, form, chains, pin, health, usedBy }: RouteState): string {
  const { pick = 'order', floor } = form;
  const about = [
    pick,
    form.else === 'companion' ? 'open' : 'closed',
    form.isolate === 'site' && 'isolated by site',
    floor &&
      `floor ${[floor.privacy && `class ${floor.privacy}`, floor.hops && `${floor.hops} hops`].filter(Boolean).join(', ')}`,
    usedBy.length > 0 ? `used by ${usedBy.slice(0, 3).join(', ')}${usedBy.length > 3 ? '…' : ''}` : 'not used',
  ].filter(Boolean);
  const rows = chains.map((chain, i) => {
    const isPinned = pin !== null && nameOf(pin.chain) === nameOf(chain);
    const known = health.find(one => nameOf(one.chain) === nameOf(chain));
    const marks = [
      known === undefined ? '' : healthText(known),
      isPinned ? `pinned${pin.until === null ? '' : ` until ${clock(pin.until)}`}` : '',
    ].filter(Boolean);
    return `  ${i + 1}. ${shown(nameOf(chain))}${marks.length === 0 ? '' : ` ${style('dim', `(${marks.join(', ')})`)}`}\n`;
  });
  return `${style('bold', shown(name))} ${style('dim', `(${shown(about.join(', '))})`)}\n${rows.join('')}`;
}

function healthText({ state, latency, failures, reason, check }: ChainHealth): string {
  const ms = latency === null ? '' : `${Math.round(latency)} ms`;
  if (state === 'down') return `down${reason === undefined ? '' : `: ${reason}`}`;
  const exit = check?.ok && check.exit !== undefined ? `exit ${check.exit}` : '';
  return [ms, failures > 0 ? `failed ${failures} times` : '', exit].filter(Boolean).join(', ');
}

function listHops({ hops }: WaysState, json: boolean): string {
  if (json) return lines(hops);
  if (hops.length === 0) return 'The file has no hops. `detour hop add NAME URL` adds one.\n';
  const width = Math.min(24, Math.max(...hops.map(({ name }) => name.length)));
  return hops.map(hop => hopText(hop, width)).join('');
}

function hopText({ name, form, port, password, usedBy, health }: HopState, width: number): string {
  const host = form.host ?? '127.0.0.1';
  const at = `${form.kind}://${form.username === undefined ? '' : `${form.username}@`}${host.includes(':') ? `[${host}]` : host}:${port}`;
  const about = [
    password === 'file' ? 'with a password' : password === 'elsewhere' ? 'its password is kept elsewhere' : '',
    health[0] === undefined ? '' : hopHealthText(health[0]),
    usedBy.length === 0 ? 'in no route' : `in ${usedBy.join(', ')}`,
  ].filter(Boolean);
  return `${style('bold', shown(name).padEnd(width))} ${shown(at)} ${style('dim', `(${shown(about.join('; '))})`)}\n`;
}

function hopHealthText({ state, latency, failures, history }: HopHealth): string {
  if (state === 'down') return `down: ${history.findLast(({ took }) => took === null)?.outcome ?? 'it failed'}`;
  const failed = failures > 0 ? `failed ${failures} times` : '';
  return [latency === null ? '' : `${Math.round(latency)} ms`, failed].filter(Boolean).join(', ');
}

function testText({ url, chains }: WaysTest): string {
  const said =
    url === null ? 'No check URL: the chain was built as far as its last hop, and nobody beyond it was asked.\n' : '';
  return chains.map(testedText).join('') + style('dim', said);
}

function testedText({ chain, outcome, stage, reason, hops, took, status, exit }: ChainTest): string {
  const mark = outcome === 'ok' ? style('green', '✓') : style('red', '✗');
  const about = [
    outcome === 'ok' ? (status === undefined ? 'stands' : `answered ${status}`) : `${outcome} (${stage})`,
    `${Math.round(took)} ms`,
    exit !== undefined && `exit ${exit}`,
  ].filter(Boolean);
  const steps = hops.map(
    hop => `    ${shown(hop.hop ?? 'to')} ${style('dim', shown(hop.at))} ${hop.took.toFixed(1)} ms\n`,
  );
  const why = reason === undefined ? '' : `    ${shown(reason)}\n`;
  return `${mark} ${shown(nameOf(chain))}: ${about.join(', ')}\n${steps.join('')}${why}`;
}

function listSites(sites: readonly SiteWay[], json: boolean): string {
  if (json) return lines(sites);
  if (sites.length === 0)
    return 'Nothing is remembered. Routes with `pick: auto` learn which sites need their chains.\n';
  return sites
    .map(({ site, route, way, byHand, until, sign }) => {
      const about = [`route ${route}`, byHand ? 'set by hand' : sign, until !== null && `until ${clock(until)}`].filter(
        Boolean,
      );
      return `${shown(site).padEnd(30)} ${way === 'direct' ? 'direct' : 'chains'} ${style('dim', `(${shown(about.join(', '))})`)}\n`;
    })
    .join('');
}

function clock(at: number): string {
  return `${new Date(at).toISOString().slice(0, 16).replace('T', ' ')} UTC`;
}
