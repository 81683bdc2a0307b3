// Under which name an answer is kept. The route is part of it, since another exit may see another web; so is the partition, since a page of one
// site must not be able to time what another has cached.
import type { CacheRequest } from '../rooms.ts';

/** The primary key (RFC 9111 §2) of a request. A newline stands in no part of it. */
export function cacheKey(request: Pick<CacheRequest, 'route' | 'partition' | 'url'>): string {
  return `${request.route}\n${request.partition}\n${request.url}`;
}
