// A route held to one of its chains by a person, until a time or until it is let go. Pinned means closed: that chain is tried and no other, and when it fails
// the request fails and says why. It is the route that a rule names which is pinned, not what stands in other routes as a group.
import { Fault } from '../../shared/fault.ts';
import type { EpochMilliseconds } from '../../shared/units.ts';
import type { Chain, ResolvedRoute } from '../rooms.ts';

export const MAX_PINS = 1_000;

export interface RoutePin {
  readonly route: string;
  /** The key of the chain. */
  readonly chain: string;
  /** Null: until it is taken away. */
  readonly until: EpochMilliseconds | null;
}

/** What one worker tells the others: all pins that there are. */
export interface PinNews {
  readonly outcome: 'pins';
  readonly pins: readonly RoutePin[];
}

export interface Pins {
  /** The pin of this route, while it is in force. */
  of(route: string): RoutePin | null;
  /** All that are in force. */
  all(): RoutePin[];
  /** In place of what the route was pinned to. Throws an Error with a sentence where there are too many. */
  pin(route: string, chain: string, until: EpochMilliseconds | null): void;
  /** False where nothing was pinned. */
  unpin(route: string): boolean;
  /** These are all, as another knows. */
  hear(news: PinNews): void;
  /** The file has changed: a pin whose route or chain is no more is gone. */
  keepTo(routes: ReadonlyMap<string, ResolvedRoute>): void;
}

/** `changed` hears all of them when a person or the file has changed them. */
export function makePins(
  now: () => EpochMilliseconds,
  saved: readonly RoutePin[] = [],
  changed: (pins: readonly RoutePin[]) => void = () => {},
): Pins {
  let pins = new Map(saved.map(pin => [pin.route, pin]));
  const isOver = ({ until }: RoutePin) => until !== null && until <= now();
  const all = () => [...pins.values()].filter(pin => !isOver(pin));

  return {
    of(route) {
      if (pins.size === 0) return null;
      const pin = pins.get(route);
      if (pin === undefined) return null;
      if (!isOver(pin)) return pin;
      pins.delete(route);
      return null;
    },
    all,
    pin(route, chain, until) {
      if (pins.size >= MAX_PINS && !pins.has(route)) throw new Error(`More than ${MAX_PINS} routes cannot be pinned.`);
      pins.set(route, { route, chain, until });
      changed(all());
    },
    unpin(route) {
      if (!pins.delete(route)) return false;
      changed(all());
      return true;
    },
    hear(news) {
      pins = new Map(news.pins.map(pin => [pin.route, pin]));
    },
    keepTo(routes) {
      const before = pins.size;
      for (const { route, chain } of pins.values())
        if (!routes.get(route)?.chains.some(({ key }) => key === chain)) pins.delete(route);
      if (pins.size < before) changed(all());
    },
  };
}

/** The route with nothing but the chain that it is pinned to; null where it is not pinned, or to a chain that it has no longer. */
export function pinnedTo(route: ResolvedRoute, pin: RoutePin): ResolvedRoute | null {
  const chain = route.chains.find(({ key }) => key === pin.chain);
  return chain === undefined ? null : { ...route, chains: [chain], group: undefined };
}

/** The fault of a pinned chain, which says that no other was tried. */
export function pinnedFault(fault: Fault, { name, chains }: ResolvedRoute, { until }: RoutePin): Fault {
  if (fault.row.side !== 'upstream') return fault;
  const pinned = `the route "${name}" is pinned to ${sayPin(chains[0]!, until)}, and no other chain was tried`;
  return new Fault(fault.kind, {
    hop: fault.hop,
    target: fault.target,
    detail: fault.detail === undefined ? pinned : `${fault.detail}; ${pinned}`,
    receivedStatus: fault.receivedStatus,
    verdict: fault.verdict,
    sign: fault.sign,
    cause: fault,
  });
}

/** `squid > tor until 2026-11-24 20:15`. */
export function sayPin({ hops }: Chain, until: RoutePin['until']): string {
  const chain = hops.map(hop => hop.name).join(' > ') || 'companion';
  return `${chain} until ${until === null ? 'it is unpinned' : localTime(until)}`;
}

/** `2026-11-24 20:15`, as the clock on the wall says. */
function localTime(time: EpochMilliseconds): string {
  const local = new Date(time - new Date(time).getTimezoneOffset() * 60_000);
  return local.toISOString().slice(0, 16).replace('T', ' ');
}
