// Edits of sites and rules by the popup: each changes only the lines it concerns (editing.ts). The text is then read again, and anything but the
// intended difference refuses the edit.
import { isDeepStrictEqual } from 'node:util';
import { BUILT_IN_ROUTES } from '../../shared/config/routes.ts';
import type { Config } from '../../shared/config.ts';
import type { ConfigRule, Site } from '../../shared/config/rules.ts';
import { formatMatcher, parseMatcher } from '../../shared/decision/parse-matcher.ts';
import type { Action, CacheMode } from '../../shared/decision/rule.ts';
import { parseConfig } from './config-file.ts';
import { byHand, EditError, Editing, formatScalar, reread } from './editing.ts';

/**
 * Turns a site on by a route (or `block`), off (`off`), or takes its entry away (null); gives back the new text of the file. `site` is
 * in the notation of the file; an entry of another spelling that means the same is the one that is changed.
 * Throws ConfigError where the text is not in order before the edit, EditError where the edit is refused.
 */
export function setSite(text: string, site: string, route: string | null, fileName = 'detour.yaml'): string {
  const before = parseConfig(text, fileName);
  const wanted = normalSite(site);
  const { routes } = before.config;
  const known = route === null || route === 'off' || isBuiltIn(route) || Object.hasOwn(routes, route);
  if (!known) throw new EditError(`There is no route "${route}" in the file.`);
  const written = Object.keys(before.config.sites).find(key => normalSite(key) === wanted);
  const was = written === undefined ? undefined : before.config.sites[written]!;
  if ((was === undefined ? null : routeOfSite(was)) === route) return text;

  const editing = new Editing(before);
  if (written === undefined) editing.addToMap('sites', site, route!);
  else if (route === null) editing.removeFromMap('sites', written);
  else editing.setInMap('sites', written, route);
  const after = reread(editing, text, fileName);

  const sites = Object.entries(before.config.sites);
  const expected =
    written === undefined
      ? [...sites, [site, after.config.sites[site]] as const]
      : route === null
        ? sites.filter(([key]) => key !== written)
        : sites.map(([key, value]) => [key, key === written ? after.config.sites[key] : value] as const);
  const changed = route === null ? undefined : after.config.sites[written ?? site];
  const took =
    route === null || (changed !== undefined && routeOfSite(changed) === route && changed.rank === was?.rank);
  // Keys are compared as sets: an object puts keys like "10" first.
  const asMeant = took && sameEntries(after.config.sites, expected) && sameBut('sites', before.config, after.config);
  if (!asMeant) throw byHand();
  return after.text;
}

/**
 * Lets the pages of a steered site reach this machine and its network, or no longer; gives back the new text of the file.
 * Throws ConfigError where the text is not in order before the edit, EditError where the edit is refused.
 */
export function setLocal(text: string, site: string, local: boolean, fileName = 'detour.yaml'): string {
  return setInSite(text, site, 'local', String(local), fileName, ({ local: _, ...action }) =>
    local ? { ...action, local } : action,
  );
}

/** How the answers of a steered site are cached; for the rest as setLocal. */
export function setCacheMode(text: string, site: string, cache: CacheMode, fileName = 'detour.yaml'): string {
  return setInSite(text, site, 'cache', cache, fileName, action => ({ ...action, cache }));
}

type Steered = Extract<Action, { do: 'route' }>;

/** Sets one key of a site that is steered, unless what it does would stay the same. */
function setInSite(
  text: string,
  site: string,
  key: string,
  value: string,
  fileName: string,
  change: (action: Steered) => Steered,
): string {
  const before = parseConfig(text, fileName);
  const wanted = normalSite(site);
  const written = Object.keys(before.config.sites).find(key => normalSite(key) === wanted);
  const was = written === undefined ? undefined : before.config.sites[written]!;
  if (written === undefined || was?.action.do !== 'route')
    throw new EditError(`The file steers no site "${site}": turn it on first.`);
  const action = change(was.action);
  if (isDeepStrictEqual(action, was.action)) return text;
  const editing = new Editing(before);
  editing.setInEntry('sites', written, 'route', key, value);
  const after = reread(editing, text, fileName);
  const changed = after.config.sites[written];
  const took = isDeepStrictEqual(changed?.action, action) && changed?.rank === was.rank;
  const expected = Object.entries(before.config.sites).map(
    ([key, value]) => [key, key === written ? changed : value] as const,
  );
  if (!took || !sameEntries(after.config.sites, expected) || !sameBut('sites', before.config, after.config))
    throw byHand();
  return after.text;
}

/**
 * Adds `{ host: …, allow: true }` at the end of the rules, unless such a rule stands there already; gives back the new text.
 * Throws ConfigError where the text is not in order before the edit, EditError where the edit is refused.
 */
export function addAllowRule(text: string, host: string, fileName = 'detour.yaml'): string {
  const before = parseConfig(text, fileName);
  const matcher = parseMatcher(host);
  if (typeof matcher === 'string') throw new EditError(`${matcher}.`);
  const rule: ConfigRule = { matcher, when: undefined, rank: undefined, action: { do: 'allow' } };
  if (before.config.rules.some(other => isDeepStrictEqual(other, rule))) return text;
  const editing = new Editing(before);
  editing.addToList('rules', `{ host: ${formatScalar(host)}, allow: true }`);
  const after = reread(editing, text, fileName);
  const asMeant =
    isDeepStrictEqual(after.config.rules, [...before.config.rules, rule]) &&
    sameBut('rules', before.config, after.config);
  if (!asMeant) throw byHand();
  return after.text;
}

/** The route that a site goes by, or `off` or `block`. */
export function routeOfSite({ action }: Site): string {
  return action.do === 'route' ? action.route : action.do;
}

const isBuiltIn = (route: string) => (BUILT_IN_ROUTES as readonly string[]).includes(route);

function normalSite(site: string): string {
  const matcher = parseMatcher(site);
  if (typeof matcher === 'string') throw new EditError(`${matcher}.`);
  return formatMatcher(matcher);
}

function sameEntries(sites: Config['sites'], expected: readonly (readonly [string, Site | undefined])[]): boolean {
  return isDeepStrictEqual(sites, Object.fromEntries(expected)) && Object.keys(sites).length === expected.length;
}

function sameBut(section: 'sites' | 'rules', before: Config, after: Config): boolean {
  return isDeepStrictEqual({ ...before, [section]: null }, { ...after, [section]: null });
}
