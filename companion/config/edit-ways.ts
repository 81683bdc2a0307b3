// Edits of hops and routes: each changes only what differs (editing.ts), so that comments, order and layout survive. What a person did not give of a hop's
// secrets stays as it is written. The text is then read again; what is not as it was meant, or not in order, refuses the edit.
import { isDeepStrictEqual } from 'node:util';
import * as v from 'valibot';
import { HopSchema, parseHopUrl, type WrittenHop } from '../../shared/config/hops.ts';
import { BUILT_IN_ROUTES } from '../../shared/config/routes.ts';
import { formatEndpoint, normalizeHost } from '../../shared/endpoint.ts';
import { HopForm, RouteForm } from '../../shared/ways.ts';
import { ConfigError } from './config-error.ts';
import { type ParsedConfig, parseConfig } from './config-file.ts';
import { byHand, EditError, Editing, type FieldProblem, type Plain } from './editing.ts';
import { formatPath, readYaml } from './yaml-source.ts';

type PlainMap = { readonly [key: string]: Plain };
const asMap = (value: unknown): PlainMap =>
  typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as PlainMap) : {};
const asList = (value: unknown): readonly Plain[] => (Array.isArray(value) ? value : []);

/** Changes that one wish may take. */
const MAX_STEPS = 200;
/** Names that are told of what still uses a hop or a route. */
export const MAX_USERS = 20;

interface Wanted {
  readonly isNew: boolean;
  readonly fileName?: string;
}

/**
 * Adds a hop, or makes the one of this name what `wanted` says: a one-line URL, or a form. Gives back the new text of the file. A password that is not given
 * stays, as long as the hop is still on the same host: nobody who cannot read it can have it sent elsewhere.
 * Throws ConfigError where the text is not in order before the edit, EditError where the edit is refused.
 */
export function setHop(text: string, name: string, wanted: string | HopForm, { isNew, fileName }: Wanted): string {
  const before = parseConfig(text, fileName ?? 'detour.yaml');
  const hops = asMap(asMap(before.document.value)['hops']);
  const known = Object.hasOwn(hops, name);
  if (isNew && known) throw refused('name', `There is a hop "${name}" already.`);
  const was = known ? { raw: hops[name]!, hop: before.config.hops[name]! } : null;
  const raw = typeof wanted === 'string' ? hopOfUrl(wanted.trim(), was) : hopOfForm(wanted, was);
  const judged = v.safeParse(HopSchema, raw);
  if (!judged.success) throw refusedBy(judged.issues);
  return setEntry(before, 'hops', name, raw, fileName);
}

/** Takes a hop out of the file. Refused while a route names it; for the rest as setHop. */
export function removeHop(text: string, name: string, fileName = 'detour.yaml'): string {
  const before = parseConfig(text, fileName);
  const root = asMap(before.document.value);
  if (!Object.hasOwn(asMap(root['hops']), name)) throw new EditError(`There is no hop "${name}" in the file.`);
  const users = hopUsers(root).get(name) ?? [];
  if (users.length > 0)
    throw new EditError(`The hop "${name}" is in ${listed('the route', users)}: take it out of there first.`);
  return removeEntry(before, 'hops', name, fileName);
}

/** Calls a hop by another name, in the routes as well; for the rest as setHop. */
export function renameHop(text: string, name: string, to: string, fileName = 'detour.yaml'): string {
  const isName = (path: readonly (string | number)[], word: string) =>
    path[0] === 'routes' && word === name && isInChain(path);
  return rename(text, 'hops', name, to, isName, fileName);
}

/** Adds a route, or makes the one of this name what `form` says; for the rest as setHop. */
export function setRoute(text: string, name: string, form: RouteForm, { isNew, fileName }: Wanted): string {
  const before = parseConfig(text, fileName ?? 'detour.yaml');
  const routes = asMap(asMap(before.document.value)['routes']);
  if (isBuiltIn(name)) throw refused('name', `The route "${name}" is built in: choose another name.`);
  const known = Object.hasOwn(routes, name);
  if (isNew && known) throw refused('name', `There is a route "${name}" already.`);
  const full = {
    ...unknownTo(RouteForm, known ? routes[name] : null),
    ...(JSON.parse(JSON.stringify(form)) as PlainMap),
  };
  const chains = asList(full['chains']);
  const isShort = Object.keys(full).length === 1 && (!known || Array.isArray(routes[name]));
  return setEntry(before, 'routes', name, isShort ? chains : full, fileName);
}

/** Takes a route out of the file. Refused while something names it; for the rest as setHop. */
export function removeRoute(text: string, name: string, fileName = 'detour.yaml'): string {
  const before = parseConfig(text, fileName);
  const root = asMap(before.document.value);
  if (!Object.hasOwn(asMap(root['routes']), name)) throw new EditError(`There is no route "${name}" in the file.`);
  const users = routeUsers(root).get(name) ?? [];
  if (users.length > 0)
    throw new EditError(`The route "${name}" is still used by ${listed('', users)}: choose another one there first.`);
  return removeEntry(before, 'routes', name, fileName);
}

/** Calls a route by another name, wherever it is named; for the rest as setHop. */
export function renameRoute(text: string, name: string, to: string, fileName = 'detour.yaml'): string {
  if (isBuiltIn(to)) throw refused('name', `The route "${to}" is built in: choose another name.`);
  const isName = (path: readonly (string | number)[], word: string) => word === name && isRouteName(path);
  return rename(text, 'routes', name, to, isName, fileName);
}

/** The routes whose chains name each hop. `root` is the file as plain values. */
export function hopUsers(root: unknown): ReadonlyMap<string, readonly string[]> {
  const users = new Map<string, string[]>();
  for (const [route, written] of Object.entries(asMap(asMap(root)['routes']))) {
    for (const hop of new Set(chainsOf(written).flatMap(asList))) add(users, String(hop), route);
  }
  return users;
}

/** What names each route, as it stands in the file: `sites.example.com`, `rules[3]`, `default`; at most MAX_USERS of each. */
export function routeUsers(root: unknown): ReadonlyMap<string, readonly string[]> {
  const users = new Map<string, string[]>();
  const walk = (value: unknown, path: readonly (string | number)[]): void => {
    if (typeof value === 'string') {
      if (!isRouteName(path)) return;
      // The entry is told, not the key or the chain within it.
      const whole = path[0] === 'sites' || path[0] === 'rules' || path[0] === 'lists' || path[0] === 'routes';
      add(users, value, formatPath(whole ? path.slice(0, 2) : path));
    } else if (Array.isArray(value)) value.forEach((one, i) => walk(one, [...path, i]));
    else if (typeof value === 'object' && value !== null)
      for (const [key, one] of Object.entries(value)) walk(one, [...path, key]);
  };
  for (const section of ['routes', 'sites', 'rules', 'lists', 'default', 'dns']) walk(asMap(root)[section], [section]);
  return users;
}

function add(users: Map<string, string[]>, name: string, user: string): void {
  const known = users.get(name);
  if (known === undefined) users.set(name, [user]);
  else if (known.length < MAX_USERS && known.at(-1) !== user) known.push(user);
}

/** A route of the file in its long form. */
export function chainsOf(route: unknown): readonly Plain[] {
  return Array.isArray(route) ? (route as readonly Plain[]) : asList(asMap(route)['chains']);
}

/** Whether a word at this place of the file is the name of a route: `sites.x`, `sites.x.route`, `rules[1].route`, `lists[0].via`, `routes.x.chains[2]`. */
function isRouteName(path: readonly (string | number)[]): boolean {
  const last = path.at(-1);
  switch (path[0]) {
    case 'sites':
      return path.length === 2 || (path.length === 3 && last === 'route');
    case 'rules':
    case 'lists':
      return path.length === 3 && (last === 'route' || last === 'via');
    case 'dns':
      return path.length === 2 && last === 'route';
    case 'default':
      return path.length === 1;
    case 'routes':
      return path.length === (path[2] === 'chains' ? 4 : 3) && typeof last === 'number';
    default:
      return false;
  }
}

/** `routes.x[0][1]` and `routes.x.chains[0][1]`. */
function isInChain(path: readonly (string | number)[]): boolean {
  return path.length === (path[2] === 'chains' ? 5 : 4) && typeof path.at(-1) === 'number';
}

const isBuiltIn = (route: string) => (BUILT_IN_ROUTES as readonly string[]).includes(route);

const NAME = /^[\p{L}\p{N}_][\p{L}\p{N}_.-]{0,63}$/u;

function rename(
  text: string,
  section: 'hops' | 'routes',
  name: string,
  to: string,
  isName: (path: readonly (string | number)[], word: string) => boolean,
  fileName: string,
): string {
  const before = parseConfig(text, fileName);
  const what = section === 'hops' ? 'hop' : 'route';
  const root = asMap(before.document.value);
  const entries = asMap(root[section]);
  if (!Object.hasOwn(entries, name)) throw new EditError(`There is no ${what} "${name}" in the file.`);
  if (to === name) return text;
  if (!NAME.test(to)) throw refused('name', `"${to}" is not a name: letters, digits, "_", "-" and ".", at most 64.`);
  if (Object.hasOwn(entries, to)) throw refused('name', `There is a ${what} "${to}" already.`);
  const editing = new Editing(before);
  editing.renameKey(section, name, to);
  editing.replaceWords(isName, to);
  const renamed = (value: unknown, path: readonly (string | number)[]): unknown => {
    if (typeof value === 'string') return isName(path, value) ? to : value;
    if (Array.isArray(value)) return value.map((one, i) => renamed(one, [...path, i]));
    if (typeof value !== 'object' || value === null) return value;
    const pairs = Object.entries(value).map(([key, one]) => [
      path.length === 1 && path[0] === section && key === name ? to : key,
      renamed(one, [...path, key]),
    ]);
    return Object.fromEntries(pairs);
  };
  return checked(withMark(text, editing.result()), renamed(root, []), section, to, fileName);
}

function setEntry(
  before: ParsedConfig,
  section: 'hops' | 'routes',
  name: string,
  wanted: Plain,
  fileName = 'detour.yaml',
): string {
  if (!NAME.test(name))
    throw refused('name', `"${name}" is not a name: letters, digits, "_", "-" and ".", at most 64.`);
  const root = asMap(before.document.value);
  const entries = asMap(root[section]);
  const expected = { ...root, [section]: { ...entries, [name]: wanted } };
  let { text } = before;
  if (Object.hasOwn(entries, name)) {
    let { document } = before;
    for (let step = 0; ; step++) {
      const editing = new Editing({ document });
      if (!editing.approach(section, name, wanted)) break;
      if (step >= MAX_STEPS) throw byHand();
      text = withMark(text, editing.result());
      document = readAgain(text, fileName);
    }
    if (text === before.text) return text;
  } else {
    const editing = new Editing(before);
    editing.addToMap(section, name, wanted);
    text = withMark(text, editing.result());
  }
  return checked(text, expected, section, name, fileName);
}

function removeEntry(before: ParsedConfig, section: 'hops' | 'routes', name: string, fileName: string): string {
  const root = asMap(before.document.value);
  const { [name]: _, ...others } = asMap(root[section]);
  const editing = new Editing(before);
  editing.removeFromMap(section, name);
  const isLast = Object.keys(others).length === 0;
  const text = withMark(before.text, editing.result());
  const after = parseAgain(text, section, name, fileName);
  // A section without entries may read as empty in more than one way.
  const left = asMap(after.document.value)[section];
  const expected = { ...root, [section]: isLast ? (left as Plain) : others };
  if (isLast && left !== undefined && left !== null && Object.keys(asMap(left)).length > 0) throw byHand();
  if (!saysTheSame(after.document.value, expected)) throw byHand();
  return text;
}

/** The text, where it says what is expected and is in order. */
function checked(text: string, expected: unknown, section: 'hops' | 'routes', name: string, fileName: string): string {
  if (!saysTheSame(parseAgain(text, section, name, fileName).document.value, expected)) throw byHand();
  return text;
}

/** The order of keys does not count, nor what kind of object they are on. */
function saysTheSame(a: unknown, b: unknown): boolean {
  const plain = (value: unknown): unknown => JSON.parse(JSON.stringify(value ?? null));
  return isDeepStrictEqual(plain(a), plain(b));
}

function readAgain(text: string, fileName: string) {
  try {
    return readYaml(text, fileName);
  } catch (error) {
    throw byHand(error);
  }
}

function parseAgain(text: string, section: 'hops' | 'routes', name: string, fileName: string): ParsedConfig {
  try {
    return parseConfig(text, fileName);
  } catch (error) {
    throw error instanceof ConfigError ? refusedAt(error, section, name) : error;
  }
}

/** What is wrong with a changed file, said of the fields of the entry that was changed. */
export function refusedAt(error: ConfigError, section: 'hops' | 'routes', name: string): EditError {
  const head = `${section}.${name}`;
  const problems = error.problems.map(({ message }): FieldProblem => {
    const rest = message.startsWith(head) ? message.slice(head.length) : null;
    const match = rest === null ? null : /^\.?([^:\s]*): (.*)$/s.exec(rest);
    return match === null ? { field: '', message } : { field: match[1]!, message: match[2]! };
  });
  const [first] = problems;
  const said =
    first === undefined
      ? 'It is not in order'
      : first.field === ''
        ? first.message
        : `${first.field}: ${first.message}`;
  const more = problems.length > 1 ? ` (and ${problems.length - 1} more)` : '';
  return new EditError(`${said}${more}.`.replace(/\.\.$/, '.'), error, problems);
}

function refused(field: string, message: string): EditError {
  return new EditError(message, undefined, [{ field, message }]);
}

function refusedBy(issues: readonly v.BaseIssue<unknown>[]): EditError {
  const problems = issues.slice(0, 20).map(issue => {
    const field = (issue.path ?? []).map(({ key }) => String(key)).join('.');
    const message = issue.message.startsWith('Invalid ') ? `is not ${issue.expected ?? 'valid'}` : issue.message;
    return { field, message };
  });
  const { field, message } = problems[0]!;
  return new EditError(`${field === '' ? 'The hop' : field} ${message}.`, undefined, problems);
}

function withMark(text: string, body: string): string {
  return text.startsWith('\uFEFF') && !body.startsWith('\uFEFF') ? `\uFEFF${body}` : body;
}

function listed(word: string, names: readonly string[]): string {
  const few = names.slice(0, 4).map(name => (word === '' ? name : `"${name}"`));
  const more = names.length > few.length ? ` and ${names.length - few.length} more` : '';
  const what = word === '' ? '' : names.length > 1 ? `${word}s ` : `${word} `;
  return `${what}${few.join(', ')}${more}`;
}

// Hops --------------------------------------------------------------------------------------------------------------------------------

interface WasHop {
  readonly raw: Plain;
  readonly hop: WrittenHop;
}

/** Of a URL as a person writes it; the password of the hop as it was goes on where the URL names the same user and none. */
function hopOfUrl(url: string, was: WasHop | null): Plain {
  const parsed = parseHopUrl(url);
  if (typeof parsed === 'string')
    throw new EditError(`The URL ${parsed}.`, undefined, [{ field: '', message: parsed }]);
  const given = parsed as { readonly username?: string | undefined; readonly password?: unknown };
  if (was === null || given.username === undefined || (given.password ?? '') !== '') return url;
  const kept = secretIn(was.raw, 'password');
  if (kept === undefined || nameIn(was) !== given.username) return url;
  demandSameHost(parsed.host, was);
  if (typeof kept !== 'string') {
    const { kind, host, port, username } = parsed as unknown as {
      kind: string;
      host: string;
      port: number;
      username: string;
    };
    return { kind, host, port, username, password: kept };
  }
  return url.replace(/^([a-z0-9+.-]+:\/\/[^:@]*):?@/i, (_, head: string) => `${head}:${encodeURIComponent(kept)}@`);
}

function hopOfForm(form: HopForm, was: WasHop | null): Plain {
  const { password, tls, ssh, headers, ...rest } = form;
  const old = was === null ? {} : asMap(was.raw);
  const wanted: Record<string, Plain> = {
    ...unknownTo(HopForm, old),
    ...(JSON.parse(JSON.stringify(rest)) as PlainMap),
  };
  const keep = (
    key: string,
    given: string | null | undefined,
    kept: Plain | undefined,
    into: Record<string, Plain>,
  ) => {
    if (given === null) return;
    if (given !== undefined) into[key] = given;
    else if (kept !== undefined) {
      demandSameHost(form.host ?? was!.hop.host, was!);
      into[key] = kept;
    }
  };
  keep('password', password, was === null ? undefined : secretIn(was.raw, 'password'), wanted);
  if (headers !== undefined && Object.keys(headers).length > 0) {
    const before = asMap(old['headers']);
    const all: Record<string, Plain> = {};
    for (const [name, value] of Object.entries(headers)) {
      if (value === null && before[name] === undefined) throw refused('headers', `The header "${name}" has no value.`);
      keep(name, value ?? undefined, before[name], all);
    }
    wanted['headers'] = all;
  }
  if (tls !== undefined && Object.keys(tls).length > 0) wanted['tls'] = { ...tls } as PlainMap;
  const { passphrase, ...shown } = ssh ?? {};
  const sshMap: Record<string, Plain> = { ...(shown as PlainMap) };
  keep('passphrase', passphrase, asMap(old['ssh'])['passphrase'], sshMap);
  if (Object.keys(sshMap).length > 0) wanted['ssh'] = sshMap;
  return was === null || typeof was.raw === 'string' ? (asUrl(wanted) ?? wanted) : wanted;
}

/** What a form does not speak of. */
function unknownTo(form: { readonly entries: Readonly<Record<string, unknown>> }, raw: Plain | undefined): PlainMap {
  return Object.fromEntries(Object.entries(asMap(raw)).filter(([key]) => !Object.hasOwn(form.entries, key)));
}

/** In one line, where that says it all. */
function asUrl(hop: Readonly<Record<string, Plain>>): string | null {
  const { kind, host, port, username, password, ...more } = hop;
  if (Object.keys(more).length > 0 || (password !== undefined && typeof password !== 'string')) return null;
  const asHost = host === undefined ? null : normalizeHost(String(host));
  if (typeof kind !== 'string' || asHost === null) return null;
  const at =
    typeof port === 'number'
      ? formatEndpoint({ host: asHost, port })
      : formatEndpoint({ host: asHost, port: 1 }).slice(0, -2);
  const login =
    username === undefined
      ? ''
      : `${encodeURIComponent(String(username))}${password === undefined ? '' : `:${encodeURIComponent(password)}`}@`;
  if (username === undefined && password !== undefined) return null;
  const url = `${kind}://${login}${at}`;
  const read = parseHopUrl(url);
  if (typeof read === 'string' || read.kind !== kind || (port !== undefined && read.port !== port)) return null;
  return url;
}

/** A secret as it stands in the file: text, or where else it comes from. */
function secretIn(raw: Plain, key: 'password'): Plain | undefined {
  if (typeof raw !== 'string') return asMap(raw)[key];
  const login = /^[a-z0-9+.-]+:\/\/([^@]*)@/i.exec(raw.trim())?.[1];
  const colon = login?.indexOf(':') ?? -1;
  const text = colon < 0 ? '' : decodeURIComponent(login!.slice(colon + 1));
  return text === '' ? undefined : text;
}

function nameIn(was: WasHop): string | undefined {
  return was.hop.username;
}

function demandSameHost(host: string, was: WasHop): void {
  if (normalizeHost(host) === was.hop.host) return;
  throw refused(
    'password',
    'The hop is on another host now, and a password that is kept is not sent to another host: type it again, or clear it.',
  );
}
