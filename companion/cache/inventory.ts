// The store, as the office asks of it (office.ts): which of the stored answers are meant, and to forget or keep them.
import type { ConfigCache } from '../../shared/config.ts';
import type { Inventory, Listed } from './office.ts';
import type { Store } from './store.ts';
import type { StoredResponse } from './stored-response.ts';

/** `forget` lets go of what is stored of a URL, and of what is on its way there; `forgetAll` of everything on its way. */
export function makeInventory(
  store: Store,
  limits: Pick<ConfigCache, 'memory' | 'disk'>,
  forget: (url: string) => void,
  forgetAll: () => void,
): Inventory {
  return {
    holdings() {
      const { entries, bytes, disk } = store.stats();
      return { memory: { entries, bytes, limit: limits.memory }, disk: disk && { ...disk, limit: limits.disk } };
    },
    get: url => (store.peek(url) ?? []).map(listed),
    list: (which, most) => store.list(which, most).map(listed),
    purge(which) {
      const count = store.purge(which);
      if ('url' in which) forget(which.url);
      else forgetAll();
      return count;
    },
    pin: (which, pinned) => store.pin(which, pinned),
    settled: () => store.settled?.() ?? Promise.resolve(),
  };
}

function listed(one: StoredResponse): Listed {
  const { url, site, route, partition, selection, status, entry, pinned, respondedAt, initialAge, lifetime } = one;
  return {
    url,
    site,
    route,
    partition,
    selection,
    status,
    lines: entry.lines,
    length: entry.body.length,
    pinned,
    respondedAt,
    initialAge,
    lifetime,
    parts: entry.partial && entry.partial.parts.map(({ from, bytes }) => [from, from + bytes.length] as const),
    tier: entry.body.bytes === null && entry.partial === null ? 'disk' : 'memory',
  };
}
