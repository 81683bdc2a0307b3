// Furnishes the rooms from a configuration, opens the port, and keeps both true to the file. A changed file furnishes new rooms; an exchange keeps
// those it entered. Cache, pool, pairing, log and port outlive a change.
import { randomBytes } from 'node:crypto';
import { getDomain } from 'tldts';
import type { Config } from '../shared/config.ts';
import { type Explanation, PROTOCOL_VERSION, type SiteAnswer, type Steering } from '../shared/control.ts';
import { compilePac } from '../shared/decision/compile-pac.ts';
import { compileTable } from '../shared/decision/compile-table.ts';
import { type CompiledMatcher, compileMatcher, decide, decideForCompanion } from '../shared/decision/decide.ts';
import { hashOf } from '../shared/decision/hash.ts';
import type { Because } from '../shared/decision/rule.ts';
import { formatEndpoint, formatHost, isAddress, normalizeHost, parsePort, type Endpoint } from '../shared/endpoint.ts';
import { Fault } from '../shared/fault.ts';
import { siteOf } from '../shared/site.ts';
import { createCache } from './cache/cache.ts';
import { makeDial } from './chain/dial.ts';
import { makeLoopMark } from './chain/http-connect.ts';
import { type EditError, setSite } from './config/config-edit.ts';
import { ConfigError } from './config/config-error.ts';
import { type Judge, type ParsedConfig, placed } from './config/config-file.ts';
import { openConfigStore, pathFromConfig } from './config/config-store.ts';
import { followConfig, type LiveConfig } from './config/config-watch.ts';
import { makeControlServer } from './control/control-server.ts';
import { claimStateFolder, openStateFolder, readStateFile, writeStateFile } from './control/state-folder.ts';
import { listen } from './downstream/listener.ts';
import { blockAnswer } from './filter/block-page.ts';
import { makeListFiles } from './filter/list-files.ts';
import { findOwnListenerHops, makeAcl } from './guard/acl.ts';
import { findOpenListener } from './guard/listen-place.ts';
import { isExtensionOrigin, makePairing, newToken, sameSecret, SavedClients } from './guard/pairing.ts';
import type { RequestHead } from './message/message.ts';
import { Fields } from './message/headers.ts';
import { openTunnel, proxyRequest, type Rooms, type SteeredDecision } from './proxy.ts';
import { type LogFile, openLogFile, redactUrl } from './record/log-file.ts';
import { makeRecorder } from './record/recorder.ts';
import { TrafficLog } from './record/traffic-log.ts';
import { makeOutcomeMemory } from './route/outcome-memory.ts';
import { refusalOf } from './route/refusal.ts';
import { resolveRoutes } from './route/resolve.ts';
import { makeTryChains } from './route/try-chains.ts';
import type { ResolvedRoute } from './rooms.ts';
import { ConnectionPool } from './upstream/connection-pool.ts';
import { IdenticalHeads } from './upstream/identical-heads.ts';
import * as v from 'valibot';

export interface CompanionOptions {
  /** The configuration file; made with comments when there is none. */
  readonly configFile: string;
  /** Where pairings and secrets are kept. */
  readonly stateFolder: string;
  /** Instead of the file's port; 0 = any free one. */
  readonly port?: number | undefined;
  readonly version: string;
  /** Sentences for the terminal: repairs, faults of the file, faults of lists. */
  readonly say: (message: string, kind: 'warning' | 'news') => void;
  readonly now?: (() => number) | undefined;
}

export interface Companion {
  readonly at: Endpoint;
  readonly pacUrl: string;
  readonly configFile: string;
  readonly isPaired: boolean;
  /** A new pairing code. */
  newCode(): { code: string; expiresAt: number };
  /** Lets exchanges end within the file's drainTimeout, then closes everything. */
  close(): Promise<void>;
}

/** The registrable domain of a host (ICANN's list and the private one, as browsers count sites), or null. */
const registrable = (host: string): string | null =>
  isAddress(host) ? null : getDomain(host, { allowPrivateDomains: true });
const siteName = (host: string) => siteOf(host, registrable);

/** What one configuration makes. */
interface Furnished {
  readonly parsed: ParsedConfig;
  readonly matcher: CompiledMatcher;
  readonly routes: ReadonlyMap<string, ResolvedRoute>;
  readonly rooms: Rooms;
  /** Compiled when first asked for. */
  steering?: { pac: Steering; table: Steering };
}

/** Starts the companion. Throws ConfigError, StateFolderTaken, and the system's error when the port cannot be had. */
export async function startCompanion(options: CompanionOptions): Promise<Companion> {
  const { configFile, say, now = Date.now } = options;
  await using opened = new AsyncDisposableStack();
  let at: Endpoint | null = null;
  const judge: Judge = config =>
    findOwnListenerHops(
      config,
      at ?? (options.port === undefined ? config.listen : { ...config.listen, port: options.port }),
    );
  const warn = (message: string) => say(message, 'warning');
  const store = await openConfigStore(configFile, warn, [findOpenListener, judge]);
  const initial = await store.read();
  const folder = openStateFolder(options.stateFolder, warn);
  const cliToken = newToken();
  const claim = claimStateFolder(folder, { host: '127.0.0.1', port: 0, token: cliToken, configFile });
  opened.defer(() => claim.release());

  // What outlives a change of the file.
  const pairing = makePairing({
    saved: readClients(folder, warn),
    save: clients => writeStateFile(folder, 'clients.json', `${JSON.stringify(clients, null, 2)}\n`),
    now,
  });
  const pacSecret = readPacSecret(folder, warn);
  const lists = makeListFiles();
  const mark = makeLoopMark();
  let outcomes = makeOutcomeMemory(() => performance.now());
  const log = new TrafficLog(initial.config.log.recent);
  let logFile: LogFile | null = null;
  const recorder = makeRecorder({
    now,
    elapsed: () => performance.now(),
    siteOf: siteName,
    opened: exchange => log.opened(exchange),
    ended: exchange => {
      log.add(exchange);
      logFile?.add(exchange);
    },
  });
  let furnished!: Furnished;
  const pool = new ConnectionPool(() => furnished.parsed.config.limits);
  opened.defer(() => pool.close());
  const identical = new IdenticalHeads(() => furnished.parsed.config.limits.identical);
  let cache = createCache(initial.config.cache);

  const furnish = (parsed: ParsedConfig): Furnished => {
    const { config } = parsed;
    const loaded = lists.load(config.lists, file => pathFromConfig(configFile, file));
    for (const problem of loaded.problems) warn(problem);
    if (loaded.missing.length > 0) {
      const faults = loaded.missing.map(({ index, message }) => ({ path: ['lists', index], message }));
      throw placed(faults, configFile, parsed.document);
    }
    const matcher = compileMatcher({ rules: parsed.rules, lists: loaded.lists });
    const routes = resolveRoutes(config);
    const acl = makeAcl({ guard: config.guard, listeners: () => (at ? [at] : []) });
    const hopTimeout = config.limits.hopTimeout * 1000;
    const rooms: Rooms = {
      acl,
      decide: target => decideForCompanion(matcher, target, config.default),
      routeOf: decision => routes.get(decision.route)!,
      blockAnswer,
      cache,
      tryChains: makeTryChains({
        now: () => performance.now(),
        routeTimeout: config.limits.routeTimeout * 1000,
        hopTimeout,
        memory: outcomes,
        siteOf: siteName,
      }),
      dial: makeDial({ acl, hopTimeout, hosts: config.dns.hosts, via: mark.via }),
      refusalOf,
      pool,
      identical,
      recorder,
      limits: config.limits,
      registrableDomain: siteName,
      comesFromUs: head => mark.comesFromUs(head),
      now,
    };
    return { parsed, matcher, routes, rooms };
  };
  furnished = furnish(initial);
  openLog(initial.config);

  function openLog(config: Config): void {
    const path = config.log.file === null ? null : pathFromConfig(configFile, config.log.file);
    logFile = path === null ? null : openLogFile({ path, size: config.log.size, keep: config.log.keep }, warn);
  }

  // The port.
  const wanted = options.port === undefined ? initial.config.listen : { ...initial.config.listen, port: options.port };
  const control = () => door;
  const listener = await listen({
    host: wanted.host,
    port: wanted.port,
    limits: () => furnished.parsed.config.limits,
    walk: {
      request: incoming => proxyRequest(incoming, furnished.rooms),
      tunnel: incoming => openTunnel(incoming, furnished.rooms),
    },
    warn,
    // Connections that nobody uses hold files that the next client needs.
    whenShort: () => pool.retire(),
    control: {
      answer: head => control().answer(head),
      upgrade: (head, socket, rest) => control().upgrade(head, socket, rest),
    },
  });
  opened.defer(() => listener.close(0));
  const here: Endpoint = { host: wanted.host, port: listener.port };
  at = here;
  const pacUrl = `http://${formatEndpoint(here)}/${pacSecret}/proxy.pac`;
  let revision = 1;

  // The file, live.
  const live: LiveConfig = followConfig(store, initial, {
    async onConfig(parsed) {
      const before = furnished.parsed.config;
      const judged = ({ hops, routes, guard, dns }: Config) => JSON.stringify([hops, routes, guard, dns]);
      const rejudged = judged(parsed.config) !== judged(before);
      // What worked and what did not is known by the names of hops, which may now mean others.
      if (rejudged) outcomes = makeOutcomeMemory(() => performance.now());
      const next = furnish(parsed);
      if (JSON.stringify(parsed.config.cache) !== JSON.stringify(before.cache))
        cache = createCache(parsed.config.cache);
      // Kept connections were judged and named under the old file.
      if (rejudged) pool.retire();
      furnished = { ...next, rooms: { ...next.rooms, cache } };
      log.resize(parsed.config.log.recent);
      if (JSON.stringify(parsed.config.log) !== JSON.stringify(before.log)) {
        const old = logFile;
        openLog(parsed.config);
        await old?.close();
      }
      if (options.port === undefined && formatEndpoint(parsed.config.listen) !== formatEndpoint(before.listen)) {
        warn(`listen is now ${formatEndpoint(parsed.config.listen)}; that takes effect at the next start.`);
      }
      revision++;
      door.changed();
    },
    onProblem(error) {
      if (error) warn(`${error.message}\nThe last good file stays in force.`);
      else say('The file is in order again.', 'news');
      revision++;
      door.changed();
    },
  });
  opened.defer(() => live.close());

  const steeringOf = (dialect: 'pac' | 'table'): Steering => {
    if (!furnished.steering) {
      const table = compileTable(furnished.matcher);
      const pac = compilePac(furnished.matcher, here);
      furnished.steering = {
        pac: { hash: hashOf(pac), pac, table },
        table: { hash: hashOf(JSON.stringify([table, here])), table },
      };
    }
    return furnished.steering[dialect];
  };

  const door = makeControlServer({
    at: here,
    version: options.version,
    pacUrl,
    visitors: {
      isCli: token => sameSecret(token, cliToken),
      clientOf: (origin, token) => pairing.clientOf(origin, token),
      isExtensionOrigin,
      isCode: code => pairing.isCode(code),
      pair: (origin, family) => pairing.pair(origin, family),
      isPacSecret: text => sameSecret(text, pacSecret),
    },
    desk: {
      protocol: PROTOCOL_VERSION,
      state() {
        const { config } = furnished.parsed;
        return {
          revision,
          sites: Object.entries(config.sites).map(([site, { action }]) => ({
            site,
            route: action.do === 'route' ? action.route : action.do,
          })),
          routes: ['companion', ...Object.keys(config.routes)],
          default: config.default,
          rules: config.rules.length,
          lists: config.lists.map(({ file, action }) => ({
            file,
            route: action.do === 'route' ? action.route : action.do,
          })),
          problem: live.problem,
        };
      },
      steering: steeringOf,
      pac: () => steeringOf('pac').pac!,
      async setSite(site, route) {
        try {
          await live.edit((text, fileName) => setSite(text, site, route, fileName));
        } catch (error) {
          throw new Error(error instanceof ConfigError ? error.summary : (error as EditError).message, {
            cause: error,
          });
        }
      },
      site(written): SiteAnswer {
        const host = normalizeHost(written);
        if (host === null) throw new Error(`"${written}" is not a host.`);
        const site = siteName(host);
        return { host, site, decision: decide(furnished.matcher, { host }), counts: log.counts(site) };
      },
      explain: url => explain(url, furnished, here, now()),
      follow: (recent, deliver) => log.follow(recent, deliver),
      newCode: () => pairing.newCode(),
      clients: () => pairing.clients.map(client => ({ ...client, connected: door.isConnected(client.name) })),
      unpair(name) {
        if (!pairing.unpair(name)) return false;
        door.unpaired(name);
        return true;
      },
      steer(link) {
        if (!link.steers) return;
        const steering = steeringOf(link.steers.dialect);
        if (steering.hash === link.steers.hash) return;
        link.steers.hash = steering.hash;
        link.send({ type: 'steering', steering });
      },
    },
  });
  opened.defer(() => door.close());
  claim.update({ host: here.host, port: here.port });

  const kept = opened.move();
  return {
    at: here,
    pacUrl,
    configFile,
    get isPaired() {
      return pairing.clients.length > 0;
    },
    newCode: () => pairing.newCode(),
    async close() {
      try {
        // From now on nobody new comes in; the control links, which are connections too, end meanwhile.
        const drained = listener.close(furnished.parsed.config.limits.drainTimeout * 1000);
        await live.close();
        await door.close();
        await drained;
      } finally {
        await kept.disposeAsync();
        await logFile?.close();
      }
    },
  };
}

function readClients(folder: string, warn: (message: string) => void): SavedClients {
  const text = readStateFile(folder, 'clients.json', warn);
  const nobody: SavedClients = { version: 1, clients: [] };
  if (text === null) return nobody;
  try {
    return v.parse(SavedClients, JSON.parse(text));
  } catch {
    warn(`${folder}/clients.json cannot be read, so every browser has to pair again.`);
    return nobody;
  }
}

/** The unguessable part of the PAC's address; the same in every run. */
function readPacSecret(folder: string, warn: (message: string) => void): string {
  const kept = readStateFile(folder, 'pac-secret', warn)?.trim();
  if (kept !== undefined && /^[A-Za-z0-9_-]{22}$/.test(kept)) return kept;
  const secret = randomBytes(16).toString('base64url');
  writeStateFile(folder, 'pac-secret', `${secret}\n`);
  return secret;
}

const DEFAULT_PORTS: Record<string, number> = { http: 80, https: 443, ws: 80, wss: 443 };

/** What would happen to a URL, room by room. Nothing is sent and nothing remembered. */
function explain(written: string, { matcher, routes, rooms }: Furnished, here: Endpoint, now: number): Explanation {
  const target = targetOf(written);
  const { host, port, scheme, path } = target;
  // Not as it was written: a user name or a token in it is nobody's to read again.
  const url = redactUrl(`${scheme}://${formatHost(host)}${port === DEFAULT_PORTS[scheme] ? '' : `:${port}`}${path}`);
  const browserDecision = decide(matcher, { host });
  const decision: SteeredDecision = rooms.decide(target);
  const steps: string[] = [];
  steps.push(
    browserDecision.steered
      ? `Browser: steered to the companion (${formatEndpoint(here)}), because of ${sayBecause(browserDecision.because)}.`
      : browserDecision.because.rule === 'default'
        ? 'Browser: not steered; no rule names it, so the browser goes its own way.'
        : `Browser: not steered, because of ${sayBecause(browserDecision.because)}.`,
  );
  if (!browserDecision.steered)
    steps.push(`If it comes to the companion all the same, it goes by the default route "${decision.route}".`);
  const said = { url, decision: browserDecision, steps };
  if (decision.blockedBy) {
    steps.push(`Filter: blocked by ${sayBecause(decision.blockedBy)}.`);
    return { ...said, cache: 'fwd=bypass', chains: [] };
  }
  if (browserDecision.steered && browserDecision.allowedBy)
    steps.push(`Filter: let through by ${sayBecause(browserDecision.allowedBy)}.`);
  const route = routes.get(decision.route)!;
  const chains = route.chains.map(chain =>
    chain.hops.length === 0 ? ['companion'] : chain.hops.map(hop => `${hop.name} (${hop.kind} ${formatEndpoint(hop)})`),
  );
  let refused: string | undefined;
  const isTunnel = scheme === 'https' || scheme === 'wss' || scheme === 'ws';
  try {
    const behindHops = route.chains.some(chain => chain.hops.length > 0);
    rooms.acl.admit({ host, port }, isTunnel ? 'connect' : 'http', behindHops, route.route?.private ?? false);
    steps.push('Guard: nothing against it by name and port; the address is judged when it is dialled.');
  } catch (error) {
    refused = error instanceof Fault ? error.message : String(error);
    steps.push(`Guard: ${refused}`);
  }
  const cache = isTunnel
    ? 'not cacheable: a tunnel'
    : rooms.cache.peek(
        { head: plainGet(host, port, path), url, route: route.name, partition: siteName(host), decision },
        now,
      );
  steps.push(`Cache: ${cache}.`);
  steps.push(`Route: "${route.name}"${route.route ? (route.route.else ? ', open' : ', closed') : ''}.`);
  chains.forEach((chain, i) => steps.push(`Chain ${i + 1}: ${chain.join(' → ')} → ${host}:${port}`));
  return { ...said, refused, cache, chains };
}

function sayBecause(because: Because): string {
  const text = because.text === undefined ? '' : ` (${because.text})`;
  return because.list === undefined
    ? `${because.rule}${text}`
    : `${because.rule}, ${because.list} line ${because.line}${text}`;
}

function targetOf(url: string): { scheme: string; host: string; port: number; path: string } {
  let parsed: URL;
  try {
    parsed = new URL(/^[a-z][a-z0-9+.-]*:\/\//i.test(url) ? url : `http://${url}`);
  } catch {
    throw new Error(`"${url}" is not a URL.`);
  }
  const scheme = parsed.protocol.slice(0, -1);
  const host = normalizeHost(parsed.hostname);
  if (host === null || !Object.hasOwn(DEFAULT_PORTS, scheme)) throw new Error(`"${url}" is not an http or https URL.`);
  const port = parsed.port === '' ? DEFAULT_PORTS[scheme]! : parsePort(parsed.port)!;
  return { scheme, host, port, path: parsed.pathname + parsed.search };
}

function plainGet(host: string, port: number, path: string): RequestHead {
  return {
    method: 'GET',
    target: { form: 'absolute', scheme: 'http', host, port, path },
    version: 11,
    fields: Fields.of('Host', formatHost(host)),
    framing: { kind: 'none' },
    keepAlive: true,
  };
}
