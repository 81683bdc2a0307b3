// A host seen as a site: what a person turns on. The list of registrable domains is the companion's; here is what both sides do with it.

/** The registrable domain of a host, or the host itself where it has none (an address, a single label, a public suffix). */
export function siteOf(host: string, registrable: (host: string) => string | null): string {
  return registrable(host) ?? host;
}

/** A host cut for showing: what stands before the site, and the site. */
export function splitHost(host: string, site: string): { before: string; site: string } {
  return host.length > site.length && host.endsWith(`.${site}`)
    ? { before: host.slice(0, -site.length), site }
    : { before: '', site: host };
}
