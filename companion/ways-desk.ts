// Hops and routes for the control room: what the file says of them without its secrets, how they fare, tests of them, and edits of the file.
import * as v from 'valibot';
import { type Hop, parseHopUrl, type WrittenHop } from '../shared/config/hops.ts';
import { formatEndpoint } from '../shared/endpoint.ts';
import type { EpochMilliseconds, Milliseconds } from '../shared/units.ts';
import {
  type ChainHealth,
  type ChainTest,
  HopForm,
  type HopHealth,
  type HopState,
  type Pin,
  RouteForm,
  type RouteState,
  type SecretPlace,
  type SiteWay,
  type WaysTest,
} from '../shared/ways.ts';
import { ConfigError } from './config/config-error.ts';
import type { ParsedConfig } from './config/config-file.ts';
import {
  chainsOf,
  hopUsers,
  refusedAt,
  removeHop,
  removeRoute,
  renameHop,
  renameRoute,
  routeUsers,
  setHop,
  setRoute,
} from './config/edit-ways.ts';
import { EditError } from './config/editing.ts';
import type { WaysDesk } from './control/commands.ts';
import type { HopHealth as KnownHop } from './route/health.ts';
import type { Chain, NamedHop, ResolvedRoute } from './rooms.ts';
import { type Check, MAX_WAITING_TESTS, readCheck, testChain, type TestRooms, TESTS_AT_ONCE } from './way-test.ts';

/** All chains of a test together have so long; those that had no turn by then have failed. */
const TEST_TIME: Milliseconds = 25_000;

/** What is known of chains and sites beyond the file; each part is there once its room is. Asked of every worker where there are several. */
export interface Knowledge {
  health?(route: ResolvedRoute): readonly ChainHealth[];
  hops?(): readonly { readonly hop: string; readonly health: HopHealth }[];
  pinOf?(route: string): { readonly chain: string; readonly until: EpochMilliseconds | null } | null;
  /** `chain` null: none is first any more. */
  pin?(route: string, chain: string | null, until: EpochMilliseconds | null): void;
  siteWays?(): Promise<readonly SiteWay[]>;
  /** False: there was nothing to forget. */
  setSiteWay?(site: string, route: string | undefined, way: SiteWay['way'] | null): Promise<boolean>;
}

export interface WaysDeskParts {
  /** The file in force, and how its changes are counted. */
  readonly current: () => ParsedConfig;
  readonly revision: () => number;
  readonly routes: () => ReadonlyMap<string, ResolvedRoute>;
  /** The hops of the file with their secrets, as they are dialled. */
  readonly hops: () => Readonly<Record<string, Hop>>;
  readonly rooms: () => TestRooms;
  readonly edit: (change: (text: string, fileName: string) => string) => Promise<unknown>;
  readonly routeTimeout: () => Milliseconds;
  readonly knowledge: Knowledge;
  readonly now: () => EpochMilliseconds;
}

export function makeWaysDesk(parts: WaysDeskParts): WaysDesk {
  const { current, revision, routes, knowledge, now } = parts;
  const turns = makeTurns(TESTS_AT_ONCE, MAX_WAITING_TESTS);

  const routeOf = (name: string): ResolvedRoute => {
    const route = routes().get(name);
    if (route === undefined || name === 'block') throw new Error(`There is no route "${name}" to test or pin.`);
    return route;
  };
  const chainOf = (route: ResolvedRoute, wanted: readonly string[]): Chain => {
    const names = wanted.length === 1 && wanted[0] === 'companion' ? [] : wanted;
    const found =
      route.chains.find(chain => sameNames(chain, wanted)) ?? route.chains.find(chain => sameNames(chain, names));
    if (found === undefined)
      throw new Error(
        `The route "${route.name}" has no chain ${nameOf(wanted)}. It has ${route.chains.map(chain => nameOf(namesOf(chain))).join(', ')}.`,
      );
    return found;
  };

  async function test(
    chains: readonly Chain[],
    check: Check | null,
    privateAllowed: boolean,
    left: AbortSignal,
  ): Promise<WaysTest> {
    const began = performance.now();
    const one = async (chain: Chain): Promise<ChainTest> => {
      const done = await turns.take(left);
      try {
        const time = Math.min(parts.routeTimeout(), Math.max(1, TEST_TIME - (performance.now() - began)));
        return await testChain(chain, check, privateAllowed, parts.rooms(), time, left);
      } finally {
        done();
      }
    };
    return { url: check?.url ?? null, chains: await Promise.all(chains.map(one)) };
  }

  /** One edit after `edit`'s own manner; what is wrong is said of the fields of the entry. */
  async function edit(
    section: 'hops' | 'routes',
    name: string,
    known: number | undefined,
    change: (text: string, fileName: string) => string,
  ): Promise<void> {
    const stale = () =>
      new Error(
        'The file was changed meanwhile. What is shown now is what it says: look at it, and make the change again.',
      );
    if (known !== undefined && known !== revision()) throw stale();
    try {
      await parts.edit((text, fileName) => {
        if (known !== undefined && text !== current().text) throw stale();
        return change(text, fileName);
      });
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
      // Out of order before the edit: the place counts. By the edit: the field does.
      const isOurs = error.problems.every(({ message }) => message.startsWith(`${section}.${name}`));
      throw isOurs ? refusedAt(error, section, name) : new Error(error.summary, { cause: error });
    }
  }

  return {
    state() {
      const { config, document } = current();
      const root = mapOf(document.value);
      const raws = mapOf(root['hops']);
      const usersOfHop = hopUsers(root);
      const usersOfRoute = routeUsers(root);
      const fared = knowledge.hops?.() ?? [];
      const hops = Object.entries(config.hops).map(([name, hop]): HopState => ({
        ...hopState(name, hop, raws[name]),
        usedBy: usersOfHop.get(name) ?? [],
        health: fared.flatMap(one => (one.hop === name ? [one.health] : [])),
      }));
      const written = mapOf(root['routes']);
      const all = Object.keys(config.routes).map((name): RouteState => {
        const route = routes().get(name)!;
        return {
          name,
          form: routeForm(written[name]),
          chains: route.chains.map(namesOf),
          pin: pinOf(route),
          health: knowledge.health?.(route) ?? [],
          usedBy: usersOfRoute.get(name) ?? [],
        };
      });
      return { revision: revision(), hops, routes: all, kinds: KINDS };
    },

    async testRoute(name, url, wanted, signal) {
      const route = routeOf(name);
      const configured = routeForm(mapOf(mapOf(current().document.value)['routes'])[name]).check?.url;
      const check = checkOf(url ?? configured);
      const chains = wanted === undefined ? route.chains : [chainOf(route, wanted)];
      if (check === null && chains.every(({ hops }) => hops.length === 0))
        throw new Error(`The route "${name}" has no hop that could be tested without a check URL: name one.`);
      return test(chains, check, route.route?.private ?? false, signal);
    },

    async testHop(written, url, signal) {
      return test([{ key: `test ${written}`, hops: [hopOf(written)] }], checkOf(url), false, signal);
    },

    async pin(name, wanted, lifetime) {
      const route = routeOf(name);
      const chain = chainOf(route, wanted);
      if (route.chains.length < 2) throw new Error(`The route "${name}" has one chain only: there is nothing to pin.`);
      if (knowledge.pin === undefined) throw notThere('Pins');
      knowledge.pin(name, chain.key, lifetime === null ? null : now() + lifetime * 1000);
    },
    async unpin(name) {
      const route = routeOf(name);
      if (pinOf(route) === null) throw new Error(`Nothing is pinned on the route "${name}".`);
      knowledge.pin?.(name, null, null);
    },

    siteWays: async () => (await knowledge.siteWays?.()) ?? [],
    async setSiteWay(site, route, way) {
      if (route !== undefined) routeOf(route);
      const found = (await knowledge.setSiteWay?.(site, route, way)) ?? false;
      if (!found)
        throw new Error(way === null ? `Nothing is remembered of ${site}.` : 'No route of the file says pick: auto.');
    },

    setHop: (name, hop, isNew, known) =>
      edit('hops', name, known, (text, fileName) => setHop(text, name, hop, { isNew, fileName })),
    removeHop: (name, known) => edit('hops', name, known, (text, fileName) => removeHop(text, name, fileName)),
    renameHop: (name, to, known) => edit('hops', to, known, (text, fileName) => renameHop(text, name, to, fileName)),
    setRoute: (name, route, isNew, known) =>
      edit('routes', name, known, (text, fileName) => setRoute(text, name, route, { isNew, fileName })),
    removeRoute: (name, known) => edit('routes', name, known, (text, fileName) => removeRoute(text, name, fileName)),
    renameRoute: (name, to, known) =>
      edit('routes', to, known, (text, fileName) => renameRoute(text, name, to, fileName)),
  };

  function pinOf(route: ResolvedRoute): Pin | null {
    const pin = knowledge.pinOf?.(route.name) ?? null;
    const chain = pin === null ? undefined : route.chains.find(({ key }) => key === pin.chain);
    return chain === undefined || (pin!.until !== null && pin!.until <= now())
      ? null
      : { chain: namesOf(chain), until: pin!.until };
  }

  function hopOf(written: string): NamedHop {
    const hops = parts.hops();
    if (Object.hasOwn(hops, written)) return { ...hops[written]!, name: written };
    if (!written.includes('://')) throw new Error(`There is no hop "${written}" in the file, and it is no proxy URL.`);
    const read = parseHopUrl(written);
    if (typeof read === 'string') throw new Error(`The URL ${read}.`);
    return { ...read, name: `${read.kind}://${formatEndpoint(read)}` };
  }
}

const KINDS = ['http', 'https', 'socks4a', 'socks5', 'ssh', 'tor'].filter(
  kind => typeof parseHopUrl(`${kind}://proxy.example:1080`) !== 'string',
);

const mapOf = (value: unknown): Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : {};
const namesOf = ({ hops }: Chain): readonly string[] => hops.map(hop => hop.name);
const nameOf = (names: readonly string[]) => (names.length === 0 ? 'companion' : names.join(' > '));
const sameNames = (chain: Chain, names: readonly string[]) =>
  chain.hops.length === names.length && chain.hops.every((hop, i) => hop.name === names[i]);
const notThere = (what: string) => new Error(`${what} are not known to this companion.`);

function checkOf(url: string | undefined): Check | null {
  if (url === undefined) return null;
  const check = readCheck(url);
  if (typeof check === 'string') throw new EditError(check, undefined, [{ field: 'url', message: check }]);
  return check;
}

/** What of a plain map a form knows, as far as it is what the form says. */
function picked<T>(form: { readonly entries: Readonly<Record<string, v.GenericSchema>> }, raw: unknown): T {
  const known = Object.entries(mapOf(raw)).flatMap(([key, value]) => {
    const schema = Object.hasOwn(form.entries, key) ? form.entries[key]! : null;
    const read = schema === null ? null : v.safeParse(schema, value);
    return read?.success ? [[key, read.output]] : [];
  });
  return Object.fromEntries(known) as T;
}

function routeForm(raw: unknown): RouteForm {
  const form = picked<RouteForm>(RouteForm as never, raw);
  return { ...form, chains: chainsOf(raw).map(chain => (Array.isArray(chain) ? chain.map(String) : String(chain))) };
}

function hopState(name: string, hop: WrittenHop, raw: unknown): Omit<HopState, 'usedBy' | 'health'> {
  const long = mapOf(raw);
  const { password: _, ssh: sshRaw, headers, ...shown } = long;
  const { passphrase, ...ssh } = mapOf(sshRaw);
  const names = Object.keys(mapOf(headers));
  const { username } = hop;
  const form: HopForm = {
    ...picked<Partial<HopForm>>(HopForm as never, { ...shown, ...(sshRaw === undefined ? {} : { ssh }) }),
    kind: hop.kind,
    host: hop.host,
    ...(typeof raw === 'string' || long['port'] !== undefined ? { port: hop.port } : {}),
    ...(username === undefined || username === '' ? {} : { username }),
    ...(names.length === 0 ? {} : { headers: Object.fromEntries(names.map(header => [header, null])) }),
  };
  return {
    name,
    form,
    port: hop.port,
    password: secretPlace(raw, 'password'),
    passphrase: placeOf(passphrase),
  };
}

/** What the route room knows of a hop, as a person is told it. */
export function healthOfHop({ hop, circuit, latency, failures, history }: KnownHop): {
  hop: string;
  health: HopHealth;
} {
  const state = circuit === 'open' ? 'down' : circuit === 'half-open' ? 'probing' : 'up';
  return { hop: hop.at(-1)!, health: { behind: hop.slice(0, -1), state, latency, failures, history } };
}

function secretPlace(raw: unknown, key: string): SecretPlace | null {
  if (typeof raw !== 'string') return placeOf(mapOf(raw)[key]);
  return /^[a-z0-9+.-]+:\/\/[^@:]*:[^@]+@/i.test(raw.trim()) ? 'file' : null;
}

function placeOf(secret: unknown): SecretPlace | null {
  return secret === undefined || secret === null ? null : typeof secret === 'object' ? 'elsewhere' : 'file';
}

/** So many at once, the others in turn; `take` gives back what ends a turn. Rejects when too many wait. */
function makeTurns(atOnce: number, most: number) {
  let running = 0;
  const waiting: (() => void)[] = [];
  const end = () => {
    const next = waiting.shift();
    if (next === undefined) running--;
    else next();
  };
  return {
    async take(signal: AbortSignal): Promise<() => void> {
      if (signal.aborted) throw new Error('Nobody waits for it any more.');
      if (running < atOnce) running++;
      else {
        if (waiting.length >= most) throw new Error('Too many tests are under way: wait for them to end.');
        await new Promise<void>(resolve => waiting.push(resolve));
      }
      return end;
    },
  };
}
