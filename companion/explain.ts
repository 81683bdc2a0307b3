// `detour explain`: asks each room in the order of the walk what it would do with a URL, and says it in sentences.
import type { ConfigDns } from '../shared/config.ts';
import type { Explanation } from '../shared/control.ts';
import { LOOKS_AT_ADDRESS, minuteOfWeek } from '../shared/decision/condition.ts';
import { decide } from '../shared/decision/decide.ts';
import type { Because } from '../shared/decision/rule.ts';
import { type Endpoint, formatEndpoint, formatHost, isAddress, normalizeHost, parsePort } from '../shared/endpoint.ts';
import { Fault } from '../shared/fault.ts';
import type { EpochMilliseconds } from '../shared/units.ts';
import { Fields } from './message/headers.ts';
import type { RequestHead } from './message/message.ts';
import type { SteeredDecision } from './notes.ts';
import { redactUrl } from './record/log-file.ts';
import type { Chain, Group, ResolvedRoute } from './rooms.ts';
import { sayPin } from './route/pin.ts';
import type { Furnished } from './worker.ts';

const DEFAULT_PORTS: Record<string, number> = { http: 80, https: 443, ws: 80, wss: 443 };

/** What would happen to a URL, room by room. Nothing is sent and nothing remembered. */
export function explain(
  written: string,
  { config, matcher, routes, rooms, pins }: Pick<Furnished, 'config' | 'matcher' | 'routes' | 'rooms' | 'pins'>,
  here: Endpoint,
  now: EpochMilliseconds,
): Explanation {
  const target = targetOf(written);
  const { host, port, scheme, path } = target;
  // Not as it was written: a user name or a token in it is nobody's to read again.
  const url = redactUrl(`${scheme}://${formatHost(host)}${port === DEFAULT_PORTS[scheme] ? '' : `:${port}`}${path}`);
  const isTunnel = scheme !== 'http';
  // In a tunnel nobody sees the path.
  const seen = { scheme, host, port, path: isTunnel ? undefined : path };
  const browserDecision = decide(matcher, { ...seen, minute: minuteOfWeek(new Date(now)) });
  const decision: SteeredDecision = rooms.decide(seen);
  const steps: string[] = [];
  steps.push(
    browserDecision.steered
      ? `Browser: steered to the companion (${formatEndpoint(here)}), because of ${sayBecause(browserDecision.because)}.`
      : browserDecision.because.rule === 'default'
        ? 'Browser: not steered; no rule names it, so the browser goes its own way.'
        : `Browser: not steered, because of ${sayBecause(browserDecision.because)}.`,
  );
  if (browserDecision.steered && browserDecision.local)
    steps.push('Browser: its pages may reach this machine and its network (local: true).');
  if ((matcher.looksAt & LOOKS_AT_ADDRESS) !== 0 && !isAddress(host) && !routes.get(decision.route)!.behindHops)
    steps.push(
      'A rule for resolved addresses may decide otherwise, once the address is found. Nobody is asked for it here.',
    );
  if (!browserDecision.steered)
    steps.push(`If it comes to the companion all the same, it goes by the default route "${decision.route}".`);
  const said = { url, decision: browserDecision, steps };
  if (decision.blockedBy) {
    steps.push(`Filter: blocked by ${sayBecause(decision.blockedBy)}.`);
    return { ...said, cache: 'fwd=bypass', chains: [] };
  }
  if (browserDecision.steered && browserDecision.allowedBy)
    steps.push(`Filter: let through by ${sayBecause(browserDecision.allowedBy)}.`);
  const route = routes.get(decision.route)!;
  const chains = route.chains.map(chain =>
    chain.hops.length === 0 ? ['companion'] : chain.hops.map(hop => `${hop.name} (${hop.kind} ${formatEndpoint(hop)})`),
  );
  let refused: string | undefined;
  try {
    const behindHops = route.chains.some(chain => chain.hops.length > 0);
    rooms.acl.admit({ host, port }, isTunnel ? 'connect' : 'http', behindHops, route.route?.private ?? false);
    steps.push('Guard: nothing against it by name and port; the address is judged when it is dialled.');
  } catch (error) {
    refused = error instanceof Fault ? error.message : String(error);
    steps.push(`Guard: ${refused}`);
  }
  const cache = isTunnel
    ? 'not cacheable: a tunnel'
    : rooms.cache.peek(
        {
          head: plainGet(host, port, path),
          url,
          site: rooms.registrableDomain(host),
          route: route.name,
          partition: rooms.partition === 'none' ? '' : rooms.registrableDomain(host),
          behindHops: route.behindHops,
          decision,
        },
        now,
      );
  steps.push(`Cache: ${cache}.`);
  steps.push(`Route: "${route.name}"${route.route ? (route.route.else ? ', open' : ', closed') : ''}.`);
  const pin = pins.of(route.name);
  const pinned = pin === null ? undefined : route.chains.find(({ key }) => key === pin.chain);
  if (pinned !== undefined) steps.push(`Pinned: to ${sayPin(pinned, pin!.until)}; the other chains are not tried.`);
  else if (route.chains.length > 1) steps.push(`Order: ${sayOrder(route)}`);
  chains.forEach((chain, i) => steps.push(`Chain ${i + 1}: ${chain.join(' → ')} → ${host}:${port}`));
  if (!isAddress(host))
    for (const line of new Set(route.chains.map(chain => sayLookup(host, chain, config.dns))))
      steps.push(`DNS: ${line}.`);
  return { ...said, refused, cache, chains };
}

/** How one of the chains is picked, by this route and by those that stand in it. */
function sayOrder({ group }: ResolvedRoute): string {
  if (group === undefined) return 'as they stand here, and what has failed lately last.';
  const picks: string[] = [];
  const walk = ({ name, pick, tolerance, members }: Group) => {
    picks.push(`${pick}${pick === 'latency' ? ` (${tolerance} ms)` : ''} in "${name}"`);
    for (const member of members) if (!('hops' in member)) walk(member);
  };
  walk(group);
  return `${picks.join(', ')}; what has failed lately last.`;
}

/** Who finds the address. Nobody is asked for it here. */
function sayLookup(host: string, chain: Chain, dns: ConfigDns): string {
  const last = chain.hops.at(-1);
  if (last !== undefined) return `the hop "${last.name}" finds the address; this machine does not ask for it`;
  if (Object.hasOwn(dns.hosts, host)) return `dns.hosts says ${dns.hosts[host]}`;
  if (dns.https !== null) return `the companion asks ${dns.https.url} on the route "${dns.route}"`;
  if (dns.servers.length === 0) return "the companion asks this system's resolver";
  return `the companion asks ${dns.servers.map(formatEndpoint).join(', then ')}`;
}

function sayBecause(because: Because): string {
  const text = because.text === undefined ? '' : ` (${because.text})`;
  return because.list === undefined
    ? `${because.rule}${text}`
    : `${because.rule}, ${because.list} line ${because.line}${text}`;
}

function targetOf(url: string): { scheme: string; host: string; port: number; path: string } {
  let parsed: URL;
  try {
    parsed = new URL(/^[a-z][a-z0-9+.-]*:\/\//i.test(url) ? url : `http://${url}`);
  } catch {
    throw new Error(`"${url}" is not a URL.`);
  }
  const scheme = parsed.protocol.slice(0, -1);
  const host = normalizeHost(parsed.hostname);
  if (host === null || !Object.hasOwn(DEFAULT_PORTS, scheme)) throw new Error(`"${url}" is not an http or https URL.`);
  const port = parsed.port === '' ? DEFAULT_PORTS[scheme]! : parsePort(parsed.port)!;
  return { scheme, host, port, path: parsed.pathname + parsed.search };
}

/** A request as little as one can be. */
export function plainGet(host: string, port: number, path: string): RequestHead {
  return {
    method: 'GET',
    target: { form: 'absolute', scheme: 'http', host, port, path },
    version: 11,
    fields: Fields.of('Host', formatHost(host)),
    framing: { kind: 'none' },
    keepAlive: true,
  };
}
