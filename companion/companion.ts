// The whole companion: the file and what it says, the control room, pairing and the record; and the worker (worker.ts) that carries the traffic by it.
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import type { Config } from '../shared/config.ts';
import { type ListSource, nameOfList } from '../shared/config/rules.ts';
import { PROTOCOL_VERSION, type SiteAnswer, type Steering } from '../shared/control.ts';
import { decide } from '../shared/decision/decide.ts';
import { formatEndpoint, normalizeHost, type Endpoint } from '../shared/endpoint.ts';
import { makeCacheDesk } from './cache-desk.ts';
import type { CacheAnswers, CacheQuestion } from './cache/office.ts';
import { makeLoopMark } from './chain/http-connect.ts';
import { filesOfHops, type HopsRead, readHops } from './chain/secrets.ts';
import { setCacheMode, setLocal, setSite } from './config/config-edit.ts';
import { ConfigError } from './config/config-error.ts';
import { type Judge, type ParsedConfig, type PathProblem, placed } from './config/config-file.ts';
import { openConfigStore } from './config/config-store.ts';
import { type ConfigChange, followConfig, type LiveConfig, stampOf } from './config/config-watch.ts';
import type { EditError } from './config/editing.ts';
import { pathFromConfig } from './config/places.ts';
import { type ControlServer, makeControlServer } from './control/control-server.ts';
import { claimStateFolder, openStateFolder, readStateFile, writeStateFile } from './control/state-folder.ts';
import { readPins, writePins } from './control/pins-file.ts';
import { openSitesFile } from './control/sites-file.ts';
import { explain } from './explain.ts';
import { type ListState, makeListFiles } from './filter/list-files.ts';
import { makeRemoteLists, placeOfRemoteList } from './filter/remote-lists.ts';
import { findOwnListenerHops } from './guard/acl.ts';
import { findOpenListener, isOpen, reachableAt } from './guard/listen-place.ts';
import { findOwnerUnknown } from './guard/owner.ts';
import { isExtensionOrigin, makePairing, newToken, sameSecret, SavedClients } from './guard/pairing.ts';
import { makeIntakes } from './record/intake.ts';
import { type LogFile, openLogFile } from './record/log-file.ts';
import { TrafficLog } from './record/traffic-log.ts';
import { makeSteering } from './steering.ts';
import { compile, type InForce, makeWorker, secureContext, siteName, type Worker, type WorkerParts } from './worker.ts';
import { makeActiveChecks } from './route/active-check.ts';
import { makeSiteWays } from './site-ways.ts';
import { readCheck, testChain } from './way-test.ts';
import { healthOfHop, makeWaysDesk } from './ways-desk.ts';
import type { Workers } from './workers.ts';
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
  /** Where this machine's programs reach it. */
  readonly at: Endpoint;
  /** Where other machines reach it; null = nowhere. */
  readonly openAt: Endpoint | null;
  readonly pacUrl: string;
  readonly configFile: string;
  readonly isPaired: boolean;
  /** A new pairing code. */
  newCode(): { code: string; expiresAt: number };
  /** Lets exchanges end within the file's drainTimeout, then closes everything. */
  close(): Promise<void>;
}

/** Starts the companion. Throws ConfigError, StateFolderTaken, and the system's error when the port cannot be had. */
export async function startCompanion(options: CompanionOptions): Promise<Companion> {
  const { configFile, say, now = Date.now } = options;
  const startedAt = now();
  await using opened = new Opened();
  let at: Endpoint | null = null;
  const judge: Judge = config =>
    findOwnListenerHops(
      config,
      at ?? (options.port === undefined ? config.listen : { ...config.listen, port: options.port }),
    );
  const warn = (message: string) => say(message, 'warning');
  const store = await openConfigStore(configFile, warn, [
    config => findOpenListener(config, at ?? undefined),
    config => findOwnerUnknown(config),
    judge,
  ]);
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
  let listStates: readonly ListState[] = [];
  const log = new TrafficLog(initial.config.log.recent);
  let logFile: LogFile | null = null;
  const placeOfList = ({ file, url }: ListSource) =>
    url === undefined ? pathFromConfig(configFile, file!) : placeOfRemoteList(folder, url);
  // From before they are read, so that no change is missed.
  const filesSeen = await stampOf([
    ...initial.config.lists.map(placeOfList),
    ...filesOfHops(initial.config.hops).map(file => pathFromConfig(configFile, file)),
  ]);
  let told: HopsRead['told'] = new Map();
  const warnedOf = new Set<string>();
  const load = async ({ config, rules, document }: ParsedConfig, change: ConfigChange): Promise<InForce> => {
    const loaded = await lists.load(config.lists, placeOfList);
    for (const problem of loaded.problems) warn(problem);
    if (loaded.missing.length > 0) {
      const faults = loaded.missing.map(({ index, message }) => ({ path: ['lists', index], message }));
      throw placed(faults, configFile, document);
    }
    const tls = readTls(config, configFile);
    if ('path' in tls) throw placed([tls], configFile, document);
    const read = await readHops(config.hops, {
      pathOf: file => pathFromConfig(configFile, file),
      folder: dirname(resolve(configFile)),
      env: process.env,
      // A program that tells a secret may ask the person for something: not for every site that is turned on, and every list that changes.
      told: change === 'file' ? undefined : told,
      warn(message) {
        if (!warnedOf.has(message)) warn(message);
        warnedOf.add(message);
      },
    });
    if (read.problems.length > 0) throw placed(read.problems, configFile, document);
    ({ told } = read);
    listStates = loaded.states;
    return compile(config, { rules, lists: loaded.lists }, tls.pem, read.hops);
  };
  let door: ControlServer | null = null;
  const record: Pick<WorkerParts, 'opened' | 'moved' | 'ended'> = {
    opened(exchange) {
      checks.used(exchange.route);
      log.opened(exchange);
    },
    moved: exchange => log.moved(exchange),
    ended: exchange => {
      checks.used(exchange.route);
      log.add(exchange);
      logFile?.add(exchange);
    },
  };
  // Asked from here alone, however many workers there are.
  const checks = makeActiveChecks({
    now: () => performance.now(),
    random: Math.random,
    async ask(chain, check, route, signal) {
      const { rooms, config } = worker.furnished;
      const time = config.limits.routeTimeout * 1000;
      const asked = readCheck(check.url);
      if (typeof asked === 'string') return;
      const found = await testChain(chain, asked, route.route?.private ?? false, rooms, time, signal);
      if (!signal.aborted) worker.checked(chain, check, found);
    },
  });
  // One worker is at home here. With more, each is a process, and the one at home walks what they hand over.
  const count = initial.config.workers === 'auto' ? availableParallelism() : initial.config.workers;
  const openIntake = makeIntakes({
    opened(exchange) {
      worker.observe(exchange);
      record.opened(exchange);
    },
    moved: record.moved,
    ended(exchange) {
      // A tunnel that stood has been told of when it opened.
      if (exchange.kind === 'http' || exchange.attempts.at(-1)?.outcome !== 'ok') worker.observe(exchange);
      record.ended(exchange);
    },
    now,
  });
  const mark = makeLoopMark();
  const isolationSecret = randomBytes(32).toString('base64url');
  const cacheFolder = join(folder, 'cache');
  const sitesFile = openSitesFile(folder, () => worker.knownSites.list(), warn);
  opened.defer(() => sitesFile.close());
  let workers: Workers | null = null;
  const worker: Worker = makeWorker(await load(initial, 'file'), {
    ...(count === 1 ? record : openIntake()),
    at: () => at,
    mark,
    isolationSecret,
    control: {
      answer: head => door?.answer(head) ?? null,
      upgrade: (head, take, rest) => door?.upgrade(head, take, rest) ?? false,
    },
    warn,
    now,
    cacheFolder,
    savedPins: readPins(folder, warn),
    pinsChanged: pins => writePins(folder, pins, warn),
    knownSites: sitesFile.saved,
    sitesChanged: sitesFile.changed,
    // What is found out here, by a person's word or by asking a hop, and not by a worker.
    tell: count === 1 ? undefined : news => workers?.tell(news),
  });
  opened.defer(() => worker.close(0));
  opened.defer(() => checks.close());
  openLog(initial.config);

  function openLog(config: Config): void {
    const path = config.log.file === null ? null : pathFromConfig(configFile, config.log.file);
    logFile = path === null ? null : openLogFile({ path, size: config.log.size, keep: config.log.keep }, warn);
  }

  // The port, and the address at which this machine's own programs reach it.
  const wanted = options.port === undefined ? initial.config.listen : { ...initial.config.listen, port: options.port };
  const processes = count === 1 ? null : await import('./workers.ts');
  const port = await (processes === null ? worker.listen(wanted) : processes.findPort(wanted));
  const listening: Endpoint = { host: wanted.host, port };
  at = listening;
  const here = reachableAt(listening);
  const open = Promise.withResolvers<void>();
  if (processes !== null) {
    workers = await processes.startWorkers(worker.furnished, {
      count,
      at: listening,
      pseudonym: mark.pseudonym,
      isolationSecret,
      cacheFolder,
      openIntake,
      adopt: (socket, read) => void open.promise.then(() => worker.adopt(socket, read)),
      hear: news => worker.hear(news),
      remembered: worker.remembered,
      say,
    });
    opened.defer(() => workers!.close(0));
  }
  const pacUrl = `http://${formatEndpoint(here)}/${pacSecret}/proxy.pac`;
  let revision = 1;

  const steering = makeSteering(here);

  // The file, live.
  const live: LiveConfig = followConfig(store, initial, {
    placeOfList,
    async onConfig(parsed, change) {
      const before = worker.furnished.config;
      const next = await load(parsed, change);
      await steering.prepare(next.matcher);
      await workers?.putInForce(next);
      worker.putInForce(next);
      await remote.follow(parsed.config.lists);
      checks.follow(worker.furnished.routes.values());
      log.resize(parsed.config.log.recent);
      if (JSON.stringify(parsed.config.log) !== JSON.stringify(before.log)) {
        const old = logFile;
        openLog(parsed.config);
        await old?.close();
      }
      if (options.port === undefined && formatEndpoint(parsed.config.listen) !== formatEndpoint(before.listen)) {
        warn(`listen is now ${formatEndpoint(parsed.config.listen)}; that takes effect at the next start.`);
      }
      if (parsed.config.workers !== before.workers)
        warn(`workers is now ${parsed.config.workers}; that takes effect at the next start.`);
      revision++;
      door?.changed();
    },
    otherFiles: config => filesOfHops(config.hops),
    filesSeen,
    onProblem(error) {
      if (error) warn(`${error.message}\nThe last good file stays in force.`);
      else say('The file is in order again.', 'news');
      revision++;
      door?.changed();
    },
  });
  opened.defer(() => live.close());
  const remote = makeRemoteLists({
    stateFolder: folder,
    async fetch(list, validators, signal) {
      const { fetchList } = await import('./fetch-list.ts');
      const { routes, rooms } = worker.furnished;
      return fetchList(list, validators, routes.get(list.via)!, rooms, signal);
    },
    changed: () => live.refresh(),
    warn,
    now,
  });
  opened.defer(() => remote.close());
  await remote.follow(initial.config.lists);

  /** Changes the file; what is wrong with that is one sentence for a person. */
  const edit = async (change: (text: string, fileName: string) => string): Promise<void> => {
    try {
      await live.edit(change);
    } catch (error) {
      throw new Error(error instanceof ConfigError ? error.summary : (error as EditError).message, { cause: error });
    }
  };

  const steeringOf = (dialect: 'pac' | 'table'): Steering => steering.of(worker.furnished.matcher, dialect);

  const control = makeControlServer({
    at: here,
    version: options.version,
    pacUrl,
    visitors: {
      isCli: token => sameSecret(token, cliToken),
      clientOf: (origin, token) => pairing.clientOf(origin, token),
      isExtensionOrigin,
      isCode: code => pairing.isCode(code),
      pair(origin, family) {
        try {
          return pairing.pair(origin, family);
        } catch (error) {
          warn(`A browser could not be paired: ${(error as Error).message}`);
          return null;
        }
      },
      isPacSecret: text => sameSecret(text, pacSecret),
    },
    desk: {
      protocol: PROTOCOL_VERSION,
      state() {
        const { config } = worker.furnished;
        return {
          revision,
          sites: Object.entries(config.sites).map(([site, { action }]) => ({
            site,
            route: action.do === 'route' ? action.route : action.do,
            local: action.do === 'route' ? action.local : undefined,
            cache: action.do === 'route' ? action.cache : undefined,
          })),
          routes: ['companion', ...Object.keys(config.routes)],
          default: config.default,
          rules: config.rules.length,
          lists: config.lists.map(({ file, url, action }) => ({
            file: nameOfList({ file, url }),
            route: action.do === 'route' ? action.route : action.do,
          })),
          problem: live.problem,
        };
      },
      steering: steeringOf,
      pac: () => steeringOf('pac').pac!,
      setSite: (site, route) => edit((text, fileName) => setSite(text, site, route, fileName)),
      setLocal: (site, local) => edit((text, fileName) => setLocal(text, site, local, fileName)),
      setCacheMode: (site, mode) => edit((text, fileName) => setCacheMode(text, site, mode, fileName)),
      site(written): SiteAnswer {
        const host = normalizeHost(written);
        if (host === null) throw new Error(`"${written}" is not a host.`);
        const site = siteName(host);
        return { host, site, decision: decide(worker.furnished.matcher, { host }), counts: log.counts(site) };
      },
      async lists(refresh) {
        if (refresh) await remote.refresh();
        return worker.furnished.config.lists.map(({ file, url, format, action }, i) => {
          const { checkedAt, error } = url === undefined ? { checkedAt: null, error: null } : remote.stateOf(url);
          return {
            name: nameOfList({ file, url }),
            format,
            does: action.do === 'route' ? action.route : action.do,
            entries: listStates[i]?.entries ?? 0,
            unread: listStates[i]?.unread ?? 0,
            fetched: url !== undefined,
            checkedAt,
            error: error ?? undefined,
          };
        });
      },
      async explain(url) {
        const explanation = explain(url, worker.furnished, here, now());
        // By the worker that has it cached, if one has.
        const given = ((await workers?.ask<'explain'>({ ask: 'explain', url })) ?? []).filter(one => one !== null);
        return given.find(({ cache }) => cache.startsWith('hit')) ?? given[0] ?? explanation;
      },
      cache: makeCacheDesk({
        async ask<A extends CacheQuestion['ask']>(question: Extract<CacheQuestion, { ask: A }>) {
          const own = worker.cacheOffice.answer(question, now());
          const others = workers?.ask(question as never) as Promise<CacheAnswers[A][]> | undefined;
          return (await Promise.all([own.then(one => [one]), others ?? []])).flat() as CacheAnswers[A][];
        },
        totals: () => log.totals(),
        since: startedAt,
        siteOf: siteName,
        isShared: () => worker.furnished.config.cache.disk > 0,
      }),
      ways: makeWaysDesk({
        current: () => live.current,
        revision: () => revision,
        routes: () => worker.furnished.routes,
        hops: () => worker.furnished.hops,
        rooms: () => worker.furnished.rooms,
        edit: change => live.edit(change),
        routeTimeout: () => worker.furnished.config.limits.routeTimeout * 1000,
        knowledge: {
          health: route =>
            route.chains
              .map(chain => ({ chain: chain.hops.map(hop => hop.name), ...worker.healthOf(chain) }))
              .filter(({ state }) => state !== 'unknown'),
          hops: () =>
            worker
              .healthOfHops()
              .map(healthOfHop)
              .sort((a, b) => a.health.behind.length - b.health.behind.length),
          pinOf: route => worker.pins.of(route),
          pin(route, chain, until) {
            if (chain === null) worker.pins.unpin(route);
            else worker.pins.pin(route, chain, until);
          },
          ...makeSiteWays(worker.knownSites, () => worker.furnished.routes, siteName),
        },
        now,
      }),
      follow: (recent, deliver) => log.follow(recent, deliver),
      newCode: () => pairing.newCode(),
      clients: () => pairing.clients.map(client => ({ ...client, connected: control.isConnected(client.name) })),
      unpair(name) {
        if (!pairing.unpair(name)) return false;
        control.unpaired(name);
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
  door = control;
  opened.defer(() => control.close());
  open.resolve();
  checks.follow(worker.furnished.routes.values());
  claim.update({ host: here.host, port: here.port });

  const kept = opened.move();
  return {
    at: here,
    openAt: isOpen(listening) ? listening : null,
    pacUrl,
    configFile,
    get isPaired() {
      return pairing.clients.length > 0;
    },
    newCode: () => pairing.newCode(),
    async close() {
      try {
        // From now on nobody new comes in; the control links, which are connections too, end meanwhile.
        const drain = worker.furnished.config.limits.drainTimeout * 1000;
        const drained = Promise.all([workers?.close(drain), worker.close(drain)]);
        await live.close();
        await control.close();
        await drained;
      } finally {
        await kept[Symbol.asyncDispose]();
        await logFile?.close();
      }
    },
  };
}

/** What a start has opened, closed the other way round; as AsyncDisposableStack, which Node lacks while it makes a snapshot (seen in Node 24). */
class Opened {
  private closes: (() => void | Promise<void>)[] = [];

  defer(close: () => void | Promise<void>): void {
    this.closes.push(close);
  }

  /** All of it, for someone else to close. */
  move(): Opened {
    const kept = new Opened();
    kept.closes = this.closes;
    this.closes = [];
    return kept;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const close = this.closes.pop();
    if (close === undefined) return;
    try {
      await close();
    } finally {
      await this[Symbol.asyncDispose]();
    }
  }
}

/** The listener's certificate and key, tried together; or what is wrong with them. */
function readTls({ guard }: Config, configFile: string): { pem: InForce['tls'] } | PathProblem {
  if (guard.tls === null) return { pem: null };
  const read = (key: 'cert' | 'key'): string | PathProblem => {
    try {
      return readFileSync(pathFromConfig(configFile, guard.tls![key]), 'utf8');
    } catch (error) {
      const missing = (error as NodeJS.ErrnoException).code === 'ENOENT';
      return { path: ['guard', 'tls', key], message: missing ? 'does not exist' : 'cannot be read' };
    }
  };
  const [cert, key] = [read('cert'), read('key')];
  if (typeof cert !== 'string') return cert;
  if (typeof key !== 'string') return key;
  try {
    secureContext({ cert, key });
  } catch (error) {
    const message = `is no certificate with its key (${(error as Error).message})`;
    return { path: ['guard', 'tls'], message };
  }
  return { pem: { cert, key } };
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
  writeStateFile(folder, 'pac-secret', `${secret}\n`, 'soon');
  return secret;
}
