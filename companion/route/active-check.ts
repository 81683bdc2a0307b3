// Asks through the chains of a route that says `check:` from time to time, so that one that is down is known before anybody needs it. Nobody is asked whom the
// file does not name, and nobody while the route is not in use. What asking is, is handed in.
import type { HealthCheck } from '../../shared/config/routes.ts';
import type { Milliseconds } from '../../shared/units.ts';
import type { Chain, ResolvedRoute } from '../rooms.ts';

/** A route that nobody has used for so many intervals is left alone until somebody does. */
export const PAUSED_AFTER = 10;
/** The first check of a route comes within so long. */
const FIRST_WITHIN: Milliseconds = 5_000;

export interface ActiveCheckParts {
  readonly now: () => Milliseconds;
  /** From 0 to 1. */
  readonly random: () => number;
  /** Asks once through one chain, and takes what came of it. Never rejects. */
  readonly ask: (chain: Chain, check: HealthCheck, route: ResolvedRoute, signal: AbortSignal) => Promise<void>;
}

export interface ActiveChecks {
  /** These routes, instead of those before; one that is as it was keeps its time. */
  follow(routes: Iterable<ResolvedRoute>): void;
  /** Somebody uses the route. */
  used(route: string): void;
  close(): void;
}

interface Watched {
  readonly route: ResolvedRoute;
  readonly check: HealthCheck;
  /** By what it is known again under another file. */
  readonly written: string;
  readonly controller: AbortController;
  usedAt: Milliseconds;
  timer: NodeJS.Timeout | null;
}

export function makeActiveChecks({ now, random, ask }: ActiveCheckParts): ActiveChecks {
  let watched = new Map<string, Watched>();
  /** The routes with a check that a route is made of, itself among them. */
  let within = new Map<string, readonly Watched[]>();

  const schedule = (one: Watched, delay: Milliseconds) => {
    if (!one.controller.signal.aborted) one.timer = setTimeout(() => void run(one), delay).unref();
  };
  const run = async (one: Watched): Promise<void> => {
    const { route, check, controller } = one;
    const { every, jitter } = check;
    if (now() - one.usedAt > PAUSED_AFTER * every * 1_000) {
      one.timer = null;
      return;
    }
    // One after the other: a check is no hurry, and hops are other people's.
    for (const chain of route.chains) {
      if (controller.signal.aborted) return;
      await ask(chain, check, route, controller.signal);
    }
    schedule(one, Math.max(0, every + (2 * random() - 1) * jitter) * 1_000);
  };
  const stop = ({ timer, controller }: Watched) => {
    if (timer !== null) clearTimeout(timer);
    controller.abort();
  };

  return {
    follow(routes) {
      const before = watched;
      watched = new Map();
      const all = [...routes];
      for (const route of all) {
        const check = route.route?.check;
        if (check === undefined) continue;
        const written = JSON.stringify([check, route.chains]);
        const known = before.get(route.name);
        if (known?.written === written) {
          watched.set(route.name, known);
          before.delete(route.name);
          continue;
        }
        const one = { route, check, written, controller: new AbortController(), usedAt: now(), timer: null };
        watched.set(route.name, one);
        schedule(one, random() * Math.min(FIRST_WITHIN, check.every * 1_000));
      }
      for (const gone of before.values()) stop(gone);
      within = new Map();
      if (watched.size === 0) return;
      const byName = new Map(all.map(route => [route.name, route]));
      for (const { name } of all) {
        const found = [...partsOf(name, byName)].flatMap(one => watched.get(one) ?? []);
        if (found.length > 0) within.set(name, found);
      }
    },
    used(route) {
      if (within.size === 0) return;
      for (const one of within.get(route) ?? []) {
        one.usedAt = now();
        if (one.timer === null) schedule(one, 0);
      }
    },
    close() {
      for (const one of watched.values()) stop(one);
      watched = new Map();
      within = new Map();
    },
  };
}

/** A route and those that it is made of, by name. */
function partsOf(name: string, routes: ReadonlyMap<string, ResolvedRoute>, parts = new Set<string>()): Set<string> {
  if (parts.has(name)) return parts;
  parts.add(name);
  for (const chain of routes.get(name)?.route?.chains ?? [])
    if (typeof chain === 'string') partsOf(chain, routes, parts);
  return parts;
}
