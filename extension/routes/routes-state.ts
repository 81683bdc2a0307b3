// The route editor without its drawing: what a click makes of a route, what a form makes of a hop, what a test looks like as bars. Pure.
import { chainText, outcomeText } from '../../shared/ladder.ts';
import type { ChainHealth, ChainTest, HopForm, HopState, Pin, RouteForm, RouteState } from '../../shared/ways.ts';
import type { Problems } from '../control/messages.ts';

type Member = RouteForm['chains'][number];

// Chains ------------------------------------------------------------------------------------------------------------------------------

/** The list with one item elsewhere; as it is where there is no such place. */
export function moved<T>(list: readonly T[], from: number, to: number): readonly T[] {
  if (from === to || to < 0 || to >= list.length || from < 0 || from >= list.length) return list;
  const others = list.filter((_, i) => i !== from);
  return [...others.slice(0, to), list[from]!, ...others.slice(to)];
}

/** A route with another list of chains. */
export function withChains(form: RouteForm, chains: readonly (string | readonly string[])[]): RouteForm {
  return { ...form, chains: chains.map(chain => (typeof chain === 'string' ? chain : [...chain])) };
}

/** A hop put behind the others of a chain. */
export function withHop(form: RouteForm, chain: number, hop: string): RouteForm {
  return withChains(
    form,
    form.chains.map((one, i) => (i === chain && typeof one !== 'string' ? [...one, hop] : one)),
  );
}

/** A hop out of a chain; a chain without hops would be the companion itself, so the last one takes the chain along. */
export function withoutHop(form: RouteForm, chain: number, hop: number): RouteForm {
  const chains = form.chains.map((one, i) =>
    i === chain && typeof one !== 'string' ? one.filter((_, j) => j !== hop) : one,
  );
  const one = chains[chain];
  return withChains(form, typeof one !== 'string' && one?.length === 0 ? chains.filter((_, i) => i !== chain) : chains);
}

/** A hop of a chain one place on or back. */
export function withHopMoved(form: RouteForm, chain: number, from: number, to: number): RouteForm {
  return withChains(
    form,
    form.chains.map((one, i) => (i === chain && typeof one !== 'string' ? moved(one, from, to) : one)),
  );
}

/** What a route may have as a member beside the hops: other routes that do not lead back to it. */
export function groupsFor(name: string, routes: readonly Pick<RouteState, 'name' | 'form'>[]): readonly string[] {
  const known = new Map(routes.map(route => [route.name, route.form]));
  const leadsTo = (from: string, seen: ReadonlySet<string>): boolean =>
    from === name ||
    (known.get(from)?.chains ?? []).some(
      one => typeof one === 'string' && !seen.has(one) && leadsTo(one, new Set([...seen, one])),
    );
  return routes.map(route => route.name).filter(other => !leadsTo(other, new Set([other])));
}

/** What is chosen in the list that adds to a chain or a route. */
export const COMPANION = 'companion';

/** A new member by what was chosen: `hop:NAME`, `route:NAME`, or `companion`. */
export function memberOf(chosen: string): Member {
  if (chosen === COMPANION) return [];
  return chosen.startsWith('route:') ? chosen.slice(6) : [chosen.slice(4)];
}

// A route's settings ------------------------------------------------------------------------------------------------------------------

/** Ways to pick, with what they do. */
export const PICKS: readonly (readonly [pick: string, says: string])[] = [
  ['order', 'In order: the first chain that works'],
  ['latency', 'Fastest: the chain with the lowest latency'],
  ['round-robin', 'By turns: each request the next chain'],
  ['sticky', 'Sticky: a site keeps its chain'],
  ['race', 'Race: the first two at once'],
  ['auto', 'Auto: direct, and the chains where a site is blocked'],
];

/** What stands under a route's name. */
export function aboutRoute({ form, usedBy }: Pick<RouteState, 'form' | 'usedBy'>): readonly string[] {
  const { floor } = form;
  const least = [floor?.privacy && `class ${floor.privacy}`, floor?.hops && `${floor.hops} hops`]
    .filter(Boolean)
    .join(', ');
  const pick = PICKS.find(([name]) => name === (form.pick ?? 'order'))?.[1].split(':')[0] ?? form.pick!;
  return [
    pick,
    form.else === 'companion' ? 'open: else the companion itself' : 'closed',
    ...(least === '' ? [] : [`at least ${least}`]),
    ...(form.isolate === 'site' ? ['every site apart'] : []),
    usedBy.length === 0
      ? 'not used yet'
      : `used by ${usedBy.slice(0, 2).map(placeText).join(', ')}${usedBy.length > 2 ? ` and ${usedBy.length - 2} more` : ''}`,
  ];
}

/** A place of the file as a person reads it. */
export function placeText(place: string): string {
  if (place === 'default') return 'the default';
  return place.replace(/^(?:sites|routes)\./, '');
}

/** A number out of a field: undefined where it is empty, NaN where it is none. */
export function numberIn(text: string): number | undefined {
  return text.trim() === '' ? undefined : Number(text.trim());
}

/** The settings of a route as they are typed. */
export interface RouteFields {
  readonly pick: string;
  readonly tolerance: string;
  readonly open: boolean;
  readonly isolate: boolean;
  readonly privacy: string;
  readonly hops: string;
  readonly checkUrl: string;
}

export function routeFields({ pick, tolerance, isolate, floor, check, ...form }: RouteForm): RouteFields {
  return {
    pick: pick ?? 'order',
    tolerance: textOf(tolerance),
    open: form.else === 'companion',
    isolate: isolate === 'site',
    privacy: textOf(floor?.privacy),
    hops: textOf(floor?.hops),
    checkUrl: check?.url ?? '',
  };
}

/** The route with these settings; what they do not speak of stays. */
export function withSettings(form: RouteForm, fields: RouteFields): RouteForm {
  const { pick: _p, tolerance: _t, else: _e, isolate: _i, floor: _f, check, ...rest } = form;
  const privacy = numberIn(fields.privacy) || undefined;
  const hops = numberIn(fields.hops) || undefined;
  const tolerance = fields.pick === 'latency' ? numberIn(fields.tolerance) : undefined;
  const url = fields.checkUrl.trim();
  return {
    ...rest,
    ...(fields.pick === 'order' ? {} : { pick: fields.pick }),
    ...(tolerance === undefined ? {} : { tolerance }),
    ...(fields.open ? { else: 'companion' } : {}),
    ...(fields.isolate ? { isolate: 'site' } : {}),
    ...(privacy === undefined && hops === undefined
      ? {}
      : { floor: { ...(privacy === undefined ? {} : { privacy }), ...(hops === undefined ? {} : { hops }) } }),
    ...(url === '' ? {} : { check: { ...check, url } }),
  };
}

// A hop's form ------------------------------------------------------------------------------------------------------------------------

/** One text field of a hop's form. */
export interface HopField {
  /** Its place in the form: `tls.ca`. */
  readonly name: string;
  readonly label: string;
  readonly hint?: string;
  readonly kind?: 'password' | 'number' | 'check' | 'choice';
  readonly choices?: readonly string[];
  /** Behind "More". */
  readonly more?: boolean;
}

const AUTHORITY: readonly HopField[] = [
  { name: 'host', label: 'Host', hint: 'proxy.example' },
  { name: 'port', label: 'Port', kind: 'number' },
];
const LOGIN: readonly HopField[] = [
  { name: 'username', label: 'User name' },
  { name: 'password', label: 'Password', kind: 'password' },
];
const HTTP: readonly HopField[] = [
  { name: 'auth', label: 'Log in by', kind: 'choice', choices: ['auto', 'basic', 'digest'], more: true },
  { name: 'form', label: 'Plain http', kind: 'choice', choices: ['absolute', 'connect'], more: true },
];
const TLS: readonly HopField[] = [
  { name: 'tls.ca', label: 'Authority (PEM file)', more: true },
  { name: 'tls.cert', label: 'Own certificate (PEM file)', more: true },
  { name: 'tls.key', label: 'Its key (PEM file)', more: true },
  { name: 'tls.servername', label: 'Server name', more: true },
  { name: 'tls.pin', label: 'Pin', hint: 'sha256/…', more: true },
];
const SSH: readonly HopField[] = [
  { name: 'ssh.key', label: 'Key file', hint: 'id_ed25519' },
  { name: 'ssh.passphrase', label: 'Its passphrase', kind: 'password' },
  { name: 'ssh.agent', label: 'Ask the SSH agent', kind: 'check' },
  { name: 'ssh.hostKey', label: 'Host key', hint: 'SHA256:…' },
  { name: 'ssh.knownHosts', label: 'known_hosts file', more: true },
];
const ALL: readonly HopField[] = [
  { name: 'bind', label: 'Local address', hint: '192.0.2.7', more: true },
  { name: 'privacy', label: 'Privacy class', kind: 'number', hint: '0 to 9', more: true },
];

/** The fields of a kind of hop, in order. */
export function fieldsFor(kind: string): readonly HopField[] {
  switch (kind) {
    case 'http':
      return [...AUTHORITY, ...LOGIN, ...HTTP, ...ALL];
    case 'https':
      return [...AUTHORITY, ...LOGIN, ...HTTP, ...TLS, ...ALL];
    case 'socks4a':
      return [...AUTHORITY, LOGIN[0]!, ...ALL];
    case 'ssh':
      return [...AUTHORITY, ...LOGIN, ...SSH, ...ALL];
    default:
      return [...AUTHORITY, ...LOGIN, ...ALL];
  }
}

/** What is typed into a hop's form, by the names of its fields. */
export type HopTyped = Readonly<Record<string, string | boolean>>;

/** How a hop of the file fills the form. Passwords stay empty: nobody is told them. */
export function typedOf({ form }: Pick<HopState, 'form'>): HopTyped {
  const typed: Record<string, string | boolean> = { kind: form.kind };
  for (const { name, kind } of fieldsFor(form.kind)) {
    const value = lookUp(form, name);
    if (kind === 'check') typed[name] = value === true;
    else typed[name] = kind === 'password' || value === undefined || value === null ? '' : String(value);
  }
  return typed;
}

/** The hop that a form says. An empty password field keeps what is written (`was`), unless it is to be cleared (`cleared`, by field). */
export function hopOf(typed: HopTyped, was: Pick<HopState, 'form'> | null, cleared: readonly string[] = []): HopForm {
  const kind = String(typed['kind'] ?? 'http');
  const form: Record<string, unknown> = { kind };
  const put = (name: string, value: unknown) => {
    const [outer, inner] = name.split('.') as [string, string | undefined];
    if (inner === undefined) form[outer] = value;
    else form[outer] = { ...(form[outer] as object | undefined), [inner]: value };
  };
  for (const field of fieldsFor(kind)) {
    const value = typed[field.name];
    if (cleared.includes(field.name) && (value ?? '') === '') put(field.name, null);
    else if (field.kind === 'check') {
      if (value === true) put(field.name, true);
    } else if (typeof value !== 'string' || value.trim() === '') continue;
    else if (field.kind === 'number') put(field.name, Number(value));
    else if (
      field.kind === 'choice' &&
      value === field.choices![0] &&
      lookUp(was?.form ?? {}, field.name) === undefined
    )
      continue;
    else put(field.name, field.kind === 'password' ? value : value.trim());
  }
  // What the form has no field for stays as it is.
  if ((kind === 'http' || kind === 'https') && was?.form.headers !== undefined) form['headers'] = was.form.headers;
  return form as HopForm;
}

/** `socks5 gw.example:1080`. */
export function addressOf({ form, port }: Pick<HopState, 'form' | 'port'>): string {
  const host = form.host ?? '127.0.0.1';
  return `${host.includes(':') ? `[${host}]` : host}:${port}`;
}

function lookUp(form: object, name: string): unknown {
  let value: unknown = form;
  for (const key of name.split('.')) value = (value as Record<string, unknown> | undefined)?.[key];
  return value;
}

const textOf = (value: number | undefined) => (value === undefined ? '' : String(value));

/** A name for a hop that a person has given none: the first label of its host, or its kind; with a number where that is taken. */
export function nameFor(url: string, taken: readonly string[]): string {
  const match = /^([a-z0-9]+)[a-z0-9+.-]*:\/\/(?:[^@/]*@)?\[?([^:/\]]*)/i.exec(url.trim());
  const host = match?.[2] ?? '';
  const label =
    /^[\d.]*$/.test(host) || host === 'localhost'
      ? (match?.[1] ?? 'hop')
      : host.replace(/^(?:www|proxy|gw)\./, '').split('.')[0]!;
  const base =
    label
      .replace(/[^\p{L}\p{N}_-]/gu, '')
      .slice(0, 40)
      .toLowerCase() || 'hop';
  for (let i = 1; ; i++) {
    const name = i === 1 ? base : `${base}${i}`;
    if (!taken.includes(name)) return name;
  }
}

// What is wrong -----------------------------------------------------------------------------------------------------------------------

/** What is to be said at a field; null = nothing is wrong with it. */
export function problemAt(problems: Problems | undefined, field: string): string | null {
  const found = problems?.find(
    one => one.field === field || one.field.startsWith(`${field}.`) || one.field.startsWith(`${field}[`),
  );
  return found === undefined ? null : sentence(found.message);
}

/** What is said of no field that is shown. */
export function otherProblems(problems: Problems | undefined, shown: readonly string[]): string | null {
  const left = (problems ?? []).filter(
    ({ field }) => !shown.some(name => field === name || field.startsWith(`${name}.`) || field.startsWith(`${name}[`)),
  );
  return left.length === 0
    ? null
    : left.map(({ field, message }) => sentence(field === '' ? message : `${field} ${message}`)).join(' ');
}

function sentence(text: string): string {
  const begun = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.?!]$/.test(begun) ? begun : `${begun}.`;
}

// A test as bars ----------------------------------------------------------------------------------------------------------------------

/** One chain of a test as it is drawn: a bar of one segment for each hop, all chains to one scale. */
export interface TestBar {
  readonly chain: string;
  readonly ok: boolean;
  readonly says: string;
  readonly exit: string | null;
  readonly reason: string | null;
  readonly segments: readonly TestSegment[];
}
export interface TestSegment {
  readonly label: string;
  readonly at: string;
  /** `12 ms`. */
  readonly took: string;
  /** In percent of the longest bar. */
  readonly width: number;
  /** What the origin took, rather than a hop. */
  readonly isAnswer: boolean;
}

export function barsOf(tests: readonly ChainTest[], says: (test: ChainTest) => string): readonly TestBar[] {
  const longest = Math.max(1, ...tests.map(({ took }) => took));
  return tests.map(test => {
    const built = test.hops.reduce((sum, hop) => sum + hop.took, 0);
    const steps = test.hops.map(({ hop, at, took }) => ({ label: hop ?? 'to the site', at, took, isAnswer: false }));
    const left = test.took - built;
    // What no hop accounts for is the wait for the answer, or for what never came.
    if (left >= 0.5 || steps.length === 0)
      steps.push({ label: test.outcome === 'ok' ? 'answer' : 'waited', at: '', took: left, isAnswer: true });
    return {
      chain: chainText(test.chain, ' → '),
      ok: test.outcome === 'ok',
      says: says(test),
      exit: test.exit ?? null,
      reason: test.reason ?? null,
      segments: steps.map(step => ({
        ...step,
        took: milliseconds(step.took),
        width: (100 * Math.max(0, step.took)) / longest,
      })),
    };
  });
}

/** What came of a test, in a few words. */
export function saysOf({ outcome, status, took }: ChainTest): string {
  const ms = `${Math.round(took)} ms`;
  if (outcome !== 'ok') return `${outcomeText({ outcome })}, ${ms}`;
  return status === undefined ? `stands, ${ms}` : `answered ${status}, ${ms}`;
}

export function milliseconds(took: number): string {
  return took < 10 ? `${Math.round(took * 10) / 10} ms` : `${Math.round(took)} ms`;
}

/** How a chain fares, in a word or two; null where nothing is known. */
export function healthText(health: ChainHealth | undefined): string | null {
  if (health === undefined || health.state === 'unknown') return null;
  if (health.state === 'down') return health.failures > 1 ? `down, failed ${health.failures} times` : 'down';
  if (health.state === 'probing') return 'being tried again';
  return health.latency === null ? 'up' : `up, ${milliseconds(health.latency)}`;
}

/** How a hop fares: by itself where that is known, else behind others. */
export function hopHealth({ health }: Pick<HopState, 'health'>): string | null {
  const known = health[0];
  return known === undefined ? null : healthText({ ...known, chain: [] });
}

/** The last connections to a hop as bars: how high in percent of the slowest; null = it failed. */
export function sparkOf({
  health,
}: Pick<HopState, 'health'>): { bars: readonly (number | null)[]; says: string } | null {
  const history = health[0]?.history ?? [];
  if (history.length < 2) return null;
  const slowest = Math.max(1, ...history.map(({ took }) => took ?? 0));
  const failed = history.filter(({ took }) => took === null).length;
  return {
    bars: history.map(({ took }) => (took === null ? null : Math.max(12, Math.round((100 * took) / slowest)))),
    says: `The last ${history.length} connections: ${failed === 0 ? 'all worked' : `${failed} failed`}, the slowest in ${milliseconds(slowest)}`,
  };
}

/** A pin in words, with its end. */
export function pinText({ until }: Pin): string {
  if (until === null) return 'pinned';
  return `pinned until ${new Date(until).toTimeString().slice(0, 5)}`;
}
