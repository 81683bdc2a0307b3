// What a route with `pick: auto` has found out of one site, or was told of it: which way it works. Kept in the state folder, shown and edited by a person.
import * as v from 'valibot';

const time = v.pipe(v.number(), v.finite());

/** Sites that are kept. */
export const MAX_KNOWN_SITES = 2_000;

export const KnownSite = v.object({
  /** The registrable domain. */
  site: v.pipe(v.string(), v.minLength(1), v.maxLength(253)),
  /** direct: the companion's own connection leads. chains: the chains with hops do. */
  way: v.picklist(['direct', 'chains']),
  /** Who says so: a person, whom nothing overrules, or signs of blocking. */
  by: v.picklist(['person', 'signs']),
  /** What blocking looked like, the last time. */
  sign: v.nullable(
    v.picklist(['policy', 'rate', 'auth', 'unreachable', 'reset', 'tls', 'poisoned', 'portal', 'timeout']),
  ),
  /** A second sign, of another request, has shown that the first was no accident. */
  confirmed: v.boolean(),
  /** How often it was confirmed; each time it holds for longer. */
  strikes: v.pipe(v.number(), v.integer(), v.minValue(0)),
  /** How often the companion's own connection has worked since it is tried again. */
  worked: v.pipe(v.number(), v.integer(), v.minValue(0)),
  firstAt: time,
  lastAt: time,
  /** After that the companion's own connection is tried again; null = it holds until somebody changes it. */
  until: v.nullable(time),
});
export type KnownSite = v.InferOutput<typeof KnownSite>;

/** The file in the state folder. */
export const SavedSites = v.object({
  version: v.literal(1),
  sites: v.pipe(v.array(KnownSite), v.maxLength(MAX_KNOWN_SITES)),
});
export type SavedSites = v.InferOutput<typeof SavedSites>;
