// The store, as the office asks of it (office.ts): which of the stored answers are meant, and to forget or keep them.
import type { Stored } from '../../shared/control.ts';
import type { Bytes } from '../../shared/units.ts';
import type { MemoryStore } from './memory-store.ts';
import type { Keeper, Kept } from './office.ts';
import type { StoredResponse } from './stored-response.ts';

/** `forget` lets go of what is stored of a URL, and of what is on its way there; `forgetAll` of everything on its way. */
export function makeKeeper(
  memory: MemoryStore,
  limit: Bytes,
  forget: (url: string) => void,
  forgetAll: () => void,
): Keeper {
  const of = function* (which: Stored): Generator<[string, StoredResponse]> {
    const isMeant = meaning(which);
    for (const one of memory.all()) if (isMeant(one[1].url)) yield one;
  };
  return {
    holdings: () => ({ memory: { entries: memory.count, bytes: memory.size, limit }, disk: null }),
    get: url => [...of({ url })].map(kept),
    list(which, most) {
      const found: Kept[] = [];
      for (const one of of(which)) if (found.push(kept(one)) === most) break;
      return found;
    },
    purge(which) {
      const found = [...of(which)];
      if ('url' in which) forget(which.url);
      else {
        for (const [key, one] of found) memory.remove(key, one);
        forgetAll();
      }
      return found.length;
    },
    pin(which, pinned) {
      const found = [...of(which)].filter(([, one]) => one.pinned !== pinned);
      for (const [, one] of found) one.pinned = pinned;
      return found.length;
    },
  };
}

function kept([key, one]: [string, StoredResponse]): Kept {
  const [route = '', partition = ''] = key.split('\n');
  const { url, selection, status, lines, length, pinned, respondedAt, initialAge, lifetime } = one;
  const tale = { url, selection, status, lines, length, pinned, respondedAt, initialAge, lifetime };
  return { ...tale, route, partition, parts: null, tier: 'memory', noCache: false, staleWhileRevalidate: 0 };
}

/** A site takes its subdomains along. */
function meaning(which: Stored): (url: string) => boolean {
  if ('url' in which) return url => url === which.url;
  if ('prefix' in which) return url => url.startsWith(which.prefix);
  if (!('site' in which)) return () => true;
  const { site } = which;
  return url => {
    const host = hostOf(url);
    return host === site || host.endsWith(`.${site}`);
  };
}

/** The host of a URL in the walk's form. */
function hostOf(url: string): string {
  const end = url.indexOf('/', 7);
  const authority = url.slice(7, end < 0 ? undefined : end);
  const bracket = authority.indexOf(']');
  if (bracket > 0) return authority.slice(1, bracket);
  const colon = authority.indexOf(':');
  return colon < 0 ? authority : authority.slice(0, colon);
}
