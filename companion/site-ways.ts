// What `auto` routes know of sites, as the control room shows and changes it: what is known of a site holds for every such route.
import { normalizeHost } from '../shared/endpoint.ts';
import type { SiteWay } from '../shared/ways.ts';
import type { ResolvedRoute } from './rooms.ts';
import type { KnownSites } from './route/site-memory.ts';
import type { Knowledge } from './ways-desk.ts';

/** The ways of sites among what the control room asks for. */
export function makeSiteWays(
  known: KnownSites,
  routes: () => ReadonlyMap<string, ResolvedRoute>,
  siteOf: (host: string) => string,
): Required<Pick<Knowledge, 'siteWays' | 'setSiteWay'>> {
  const autoRoutes = () => [...routes().values()].filter(({ route }) => route?.pick === 'auto');
  return {
    async siteWays() {
      const sites = known.list();
      return autoRoutes().flatMap(({ name }) =>
        sites.map(({ site, way, by, sign, firstAt, until }): SiteWay => {
          const shown = { site, route: name, way, byHand: by === 'person', since: firstAt, until };
          return sign === null ? shown : { ...shown, sign };
        }),
      );
    },
    async setSiteWay(written, _route, way) {
      const host = normalizeHost(written);
      if (host === null) throw new Error(`"${written}" is not a host.`);
      const site = siteOf(host);
      if (way === null) return known.forget(site);
      if (autoRoutes().length === 0) return false;
      known.set(site, way);
      return true;
    },
  };
}
