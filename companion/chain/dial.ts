// Folds a chain of hops into one socket: connect to the first, then ask each in turn for a tunnel to the next, through what stands already.
// Here are the sockets and the clocks of that; what is said to a hop is in the file of its kind, names are resolver.ts's. Foreign errors become faults here.
import { randomBytes } from 'node:crypto';
import { connect as connectNode } from 'node:net';
import type { HopKind } from '../../shared/config/hops.ts';
import { type Endpoint, formatEndpoint, isAddress, normalizeHost } from '../../shared/endpoint.ts';
import { calledOff, Fault, type FaultKind, type FaultOptions } from '../../shared/fault.ts';
import type { Milliseconds } from '../../shared/units.ts';
import { connectLean, leanSockets } from '../sockets/lean-socket.ts';
import type { Socket } from '../sockets/socket.ts';
import { tlsFaultOf } from '../sockets/tls-fault.ts';
import { AskAgain } from '../message/hop-login.ts';
import type { Acl, Dial, Dialled, NamedHop } from '../rooms.ts';
import { endpointOf, type Handshake, hopFault } from './handshake.ts';
import { connectHandshake } from './http-connect.ts';
import type { Layer, LayerWork, Standing } from './layer.ts';
import { type Lookup, LookupFailed } from './resolver.ts';
import { socks4aHandshake } from './socks4a.ts';
import { socks5Handshake } from './socks5.ts';
import { type Isolation, makeIsolation } from './isolation.ts';
import { makeSshHops, type SshHops, sshLayer } from './ssh-hop.ts';
import { makeSystemAsk } from './system-lookup.ts';
import { beginTls } from './tls-hop.ts';

export interface ChainOptions {
  readonly acl: Acl;
  /** For connecting to one hop (or, without hops, to the target) and hearing its yes. */
  readonly hopTimeout: Milliseconds;
  /** Absent: the system's resolver, with no memory. */
  readonly lookup?: Lookup;
  /** dns.hosts of the file: addresses for names, before any lookup. The guard judges them like any other. */
  readonly hosts?: Readonly<Record<string, string>>;
  /** The Via member of our CONNECT requests (LoopMark); null = none. */
  readonly via?: string | null;
  /** Absent: every host is a site of its own, with a login by a secret of its own. */
  readonly isolation?: Isolation | undefined;
  /** The SSH connections that are kept; absent: some of its own. */
  readonly ssh?: SshHops | undefined;
  readonly now?: () => Milliseconds;
}

/** RFC 8305 §5: how long one address may try alone before the next joins in. */
const NEXT_ADDRESS_AFTER: Milliseconds = 250;
/** More addresses than this for one name are not tried. */
const MAX_ADDRESSES = 16;
/** So many addresses are named in a sentence. */
const MAX_NAMED = 4;
const KEEP_ALIVE_AFTER: Milliseconds = 30_000;
const NOTHING = Buffer.alloc(0);
// Also the ear of a socket that is on its way from one owner to the next: it must not bring the process down when it breaks just then.
const nothing = () => {};

/** Puts chains together; see Dial in rooms.ts for what it throws. The socket comes with no listener that reads, and not flowing. */
export function makeDial(options: ChainOptions): Dial {
  const { acl, hopTimeout, lookup = systemLookup(hopTimeout), via = null, now = () => performance.now() } = options;
  const { isolation = makeIsolation(randomBytes(32).toString('base64url'), host => host) } = options;
  const layers: Readonly<Record<HopKind, Layer>> = { ...LAYERS, ssh: sshLayer(options.ssh ?? makeSshHops()) };
  const hosts = new Map<string, string>();
  for (const [name, address] of Object.entries(options.hosts ?? {})) {
    const host = normalizeHost(name);
    if (host !== null) hosts.set(host, address);
  }

  async function resolve(host: string): Promise<readonly string[]> {
    const written = hosts.get(host);
    return written === undefined ? lookup(host) : [written];
  }

  /** One TCP connection to the first of the endpoint's admitted addresses that answers. */
  async function connectTo(
    at: Endpoint,
    hop: NamedHop | undefined,
    deadline: Milliseconds,
    signal: AbortSignal,
  ): Promise<Socket> {
    const blame: FaultOptions = { hop: hop?.name, target: at };
    const bind = hop?.bind;
    const late = (kind: FaultKind) => () => new Fault(kind, blame);
    const found = isAddress(at.host)
      ? [at.host]
      : await bounded<readonly string[]>(deadline - now(), signal, late('dns_timeout'), (succeed, fail) => {
          resolve(at.host).then(succeed, (error: unknown) => fail(faultOf(error, blame)));
          return nothing;
        });
    const judge = hop ? acl.admitsHopAddress : acl.admitsAddress;
    const addresses: string[] = [];
    let forbidden: Fault | null = null;
    for (const address of found) {
      const no = judge(address, at.port);
      if (no) forbidden ??= no;
      // From an address of one family no other can be reached.
      else if (bind !== undefined && bind.includes(':') !== address.includes(':')) continue;
      else if (addresses.length < MAX_ADDRESSES) addresses.push(address);
    }
    if (addresses.length === 0) {
      if (forbidden)
        throw isAddress(at.host) && !hop
          ? forbidden
          : new Fault(forbidden.kind, { ...blame, detail: found.slice(0, MAX_NAMED).join(', '), cause: forbidden });
      throw new Fault('dns_error', {
        ...blame,
        detail: `it has no address${bind === undefined ? '' : ` like ${bind}, its bind`}`,
      });
    }
    return bounded(deadline - now(), signal, late('connection_timeout'), (succeed, fail) =>
      race(alternate(addresses), at.port, bind, blame, succeed, fail),
    );
  }

  /** The conversation with one hop; what came behind its yes is the rest. */
  function converse(
    { socket, rest: early }: Standing,
    handshake: Handshake,
    { hop, deadline, signal }: Pick<LayerWork, 'hop' | 'deadline' | 'signal'>,
  ): Promise<Standing> {
    const late = () =>
      hopFault(
        'connection_timeout',
        hop,
        handshake.stage === 'greeting' ? 'while logging in' : 'when asked for the tunnel',
      );
    return bounded(deadline - now(), signal, late, (succeed, fail) => {
      let pending = early;
      const advance = () => {
        try {
          while (true) {
            const step = handshake.read(pending);
            if (step === 'need-more') return;
            pending = step.rest;
            if (step.send) socket.write(step.send);
            if (!step.stands) continue;
            stop();
            return succeed({ socket, rest: pending });
          }
        } catch (error) {
          fail(faultOf(error, { hop: hop.name, target: endpointOf(hop) }));
        }
      };
      const onData = (chunk: Buffer) => {
        pending = pending.length === 0 ? chunk : Buffer.concat([pending, chunk]);
        advance();
      };
      const onEnd = () =>
        fail(
          hopFault(
            'connection_terminated',
            hop,
            handshake.stage === 'greeting' ? 'while logging in' : 'when asked for the tunnel',
          ),
        );
      const onError = (error: Error) => fail(faultOf(error, { hop: hop.name, target: endpointOf(hop) }));
      const stop = () => {
        // Paused, so that nothing is lost on the way to the next listener.
        socket.pause();
        socket.off('data', onData).off('end', onEnd).off('close', onEnd).off('error', onError);
      };
      socket.on('data', onData).on('end', onEnd).on('close', onEnd).on('error', onError);
      socket.resume();
      if (socket.destroyed) onEnd();
      else socket.write(handshake.opening);
      if (early.length > 0) advance();
      return stop;
    });
  }

  async function fold(
    one: Parameters<Dial>[0],
    target: Endpoint,
    absolute: boolean,
    startedAt: Milliseconds,
  ): Promise<Dialled> {
    const { signal, steps, chain } = one;
    const { hops } = chain;
    let since = startedAt;
    const stood = (place: number) => {
      // Who has left learns nothing more, though others may wait for the same.
      if (signal.aborted) return;
      const hop = hops[place];
      const at = now();
      const took = Math.round((at - since) * 1000) / 1000;
      steps.push({ hop: hop?.name ?? null, at: formatEndpoint(hop ?? target), took });
      since = at;
    };
    const workAt = (place: number, deadline: Milliseconds, signal: AbortSignal): LayerWork => {
      const isolates = place === hops.length - 1 && (chain.isolate || hops[place]!.kind === 'tor');
      const work: LayerWork = {
        hop: hops[place]!,
        chain,
        place,
        deadline,
        now,
        signal,
        via,
        siteLogin: isolates ? isolation(hops[place]!, target.host) : undefined,
        one,
        stood: () => stood(place),
        way: shared => connectionTo(place, shared),
        async converse(over, handshake) {
          one.stage = handshake.stage;
          try {
            return await converse(over, handshake, work);
          } finally {
            one.stage = handshake.stage;
          }
        },
      };
      return work;
    };

    /** A connection to the hop at this place, or behind the last one to the target, through all hops before. */
    async function connectionTo(place: number, signal: AbortSignal): Promise<Standing> {
      const wanted = place < hops.length ? endpointOf(hops[place]!) : target;
      let from = place - 1;
      while (from >= 0 && layers[hops[from]!.kind].shared === undefined) from--;
      let deadline = now() + hopTimeout;
      let standing: Standing;
      if (from >= 0) {
        const next = from + 1 === place ? wanted : endpointOf(hops[from + 1]!);
        standing = await layers[hops[from]!.kind].shared!(next, workAt(from, deadline, signal));
      } else {
        const first = hops[0];
        standing = {
          socket: await connectTo(first ? endpointOf(first) : wanted, first, deadline, signal),
          rest: NOTHING,
        };
      }
      const { socket } = standing;
      try {
        for (let i = from + 1; i < place; i++) {
          if (i > 0) deadline = now() + hopTimeout;
          const work = workAt(i, deadline, signal);
          const layer = layers[work.hop.kind];
          if (layer.enter) standing = await layer.enter(standing, work);
          stood(i);
          standing = await layer.reach!(standing, i + 1 === place ? wanted : endpointOf(hops[i + 1]!), work);
        }
        return standing;
      } catch (error) {
        socket.destroy();
        standing.socket.destroy();
        throw error;
      }
    }

    one.stage = 'connect';
    // In absolute-form the last hop is not asked for anything.
    const last = absolute ? hops.length - 1 : hops.length;
    let standing = await connectionTo(last, signal);
    if (last < hops.length) {
      const work = workAt(last, now() + hopTimeout, signal);
      const { enter } = layers[work.hop.kind];
      const below = standing.socket;
      try {
        if (enter) standing = await enter(standing, work);
      } catch (error) {
        below.destroy();
        throw error;
      }
    }
    stood(last);
    return { ...standing, hops: steps };
  }

  return async function dial(one, target, absolute) {
    const since = now();
    for (let again = 0; ; again++) {
      try {
        return await fold(one, target, absolute, since);
      } catch (error) {
        // Every hop may want to be told otherwise who we are, and one of them twice.
        if (!(error instanceof AskAgain) || again > one.chain.hops.length) throw error;
        one.steps.length = 0;
      }
    }
  };
}

const httpLayer: Layer = {
  reach: (over, wanted, work) => work.converse(over, connectHandshake(work.hop, wanted, work.via)),
};

/** TLS to the hop, by its deadline. */
async function secured(
  { socket, rest }: Standing,
  { hop, place, deadline, now, signal, one }: LayerWork,
): Promise<Standing> {
  one.stage = place === 0 ? 'connect' : 'greeting';
  // Whoever speaks first here does not speak TLS.
  if (rest.length > 0) throw hopFault('tls_protocol_error', hop, 'it does not speak TLS there');
  const late = () => hopFault('connection_timeout', hop, 'in the TLS handshake');
  const secure = await bounded<Socket>(deadline - now(), signal, late, (succeed, fail) =>
    beginTls(socket, hop, now(), succeed, fail),
  );
  return { socket: secure, rest: NOTHING };
}

const socks5Layer: Layer = {
  reach: (over, wanted, work) => work.converse(over, socks5Handshake(work.hop, wanted, work.siteLogin)),
};
/** What is done with a hop of each kind. */
const LAYERS: Readonly<Record<Exclude<HopKind, 'ssh'>, Layer>> = {
  http: httpLayer,
  https: { ...httpLayer, enter: secured },
  socks4a: { reach: async (over, wanted, work) => work.converse(over, socks4aHandshake(work.hop, wanted)) },
  socks5: socks5Layer,
  tor: socks5Layer,
};

function systemLookup(timeout: Milliseconds): Lookup {
  const ask = makeSystemAsk(timeout);
  return async host => (await ask(host)).addresses;
}

/** IPv6 and IPv4 by turns, each family in the order it came (RFC 8305 §4), so that a broken family costs one turn only. */
function alternate(addresses: readonly string[]): readonly string[] {
  if (addresses.length < 2) return addresses;
  const leads = (address: string) => address.includes(':') === addresses[0]!.includes(':');
  const queues = [addresses.filter(leads), addresses.filter(address => !leads(address))] as const;
  const turns: string[] = [];
  for (let i = 0; turns.length < addresses.length; i++)
    for (const queue of queues) if (i < queue.length) turns.push(queue[i]!);
  return turns;
}

function connect(host: string, port: number, from: string | undefined): Socket {
  if (leanSockets) return connectLean(host, port, KEEP_ALIVE_AFTER, from);
  return connectNode({
    host,
    port,
    localAddress: from,
    noDelay: true,
    keepAlive: true,
    keepAliveInitialDelay: KEEP_ALIVE_AFTER,
  });
}

/** Tries the addresses in turn, the next one 250 ms later or as soon as one fails; the first to stand wins. Gives back how to break off. */
function race(
  addresses: readonly string[],
  port: number,
  bind: string | undefined,
  blame: FaultOptions,
  succeed: (socket: Socket) => void,
  fail: (fault: Fault) => void,
): () => void {
  const trying = new Set<Socket>();
  let next = 0;
  let timer: NodeJS.Timeout | undefined;
  let firstError: unknown;

  const stop = () => {
    clearTimeout(timer);
    next = addresses.length;
    for (const socket of trying) socket.destroy();
    trying.clear();
  };
  const tryNext = () => {
    clearTimeout(timer);
    const socket = connect(addresses[next++]!, port, bind);
    trying.add(socket);
    socket.on('error', nothing);
    const onError = (error: Error) => {
      if (!trying.delete(socket)) return;
      firstError ??= error;
      if (next < addresses.length) tryNext();
      else if (trying.size === 0) fail(bindFault(firstError, bind, blame) ?? faultOf(firstError, blame));
    };
    socket.once('error', onError);
    socket.once('connect', () => {
      socket.off('error', onError);
      if (!trying.delete(socket)) return;
      stop();
      succeed(socket);
    });
    if (next < addresses.length) timer = setTimeout(tryNext, NEXT_ADDRESS_AFTER);
  };
  tryNext();
  return stop;
}

/** Where it is the address to connect from that is wrong. */
function bindFault(error: unknown, bind: string | undefined, blame: FaultOptions): Fault | null {
  const { syscall, code } = error as NodeJS.ErrnoException;
  if (bind === undefined || (syscall !== 'bind' && code !== 'EADDRNOTAVAIL')) return null;
  return new Fault('destination_ip_unroutable', {
    ...blame,
    detail: `its bind, ${bind}, is no address of this machine`,
    cause: error,
  });
}

/** One piece of socket work: until it is done, fails, is out of time, or nobody wants it any more. `start` gives back how to break it off. */
function bounded<T>(
  left: Milliseconds,
  signal: AbortSignal,
  late: () => Fault,
  start: (succeed: (value: T) => void, fail: (fault: Fault) => void) => () => void,
): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    if (signal.aborted) return reject(calledOff(signal.reason));
    let settled = false;
    let stop = nothing;
    const settle = () => {
      if (settled) return false;
      settled = true;
      clearTimeout(timer);
      signal.removeEventListener('abort', onAbort);
      return true;
    };
    const fail = (fault: Fault) => {
      if (!settle()) return;
      stop();
      reject(fault);
    };
    const onAbort = () => fail(calledOff(signal.reason));
    const timer = setTimeout(() => fail(late()), Math.max(0, left));
    signal.addEventListener('abort', onAbort);
    stop = start(value => {
      if (settle()) resolve(value);
    }, fail);
  });
}

/** What the system says, in our words. Details only where they add something to the sentence of the kind. */
const SYSTEM_ERRORS: Record<string, readonly [FaultKind, string?]> = {
  ECONNREFUSED: ['connection_refused'],
  ETIMEDOUT: ['connection_timeout'],
  ECONNRESET: ['connection_terminated', 'connection reset'],
  ECONNABORTED: ['connection_terminated', 'connection aborted'],
  EPIPE: ['connection_terminated', 'broken pipe'],
  EHOSTUNREACH: ['destination_ip_unroutable', 'host unreachable'],
  ENETUNREACH: ['destination_ip_unroutable', 'network unreachable'],
  EADDRNOTAVAIL: ['destination_ip_unroutable', 'no local address for it'],
  ENETDOWN: ['destination_ip_unroutable', 'network down'],
  EACCES: ['destination_ip_unroutable', 'forbidden by this system'],
  EPERM: ['destination_ip_unroutable', 'forbidden by this system'],
  EMFILE: ['connection_limit_reached', 'this system allows no more open files'],
  ENFILE: ['connection_limit_reached', 'this system allows no more open files'],
};

/** A foreign error as a fault; a fault stays what it is. */
export function faultOf(error: unknown, blame: FaultOptions): Fault {
  if (error instanceof Fault) return error;
  if (error instanceof LookupFailed) return new Fault(error.kind, { ...blame, detail: error.detail, cause: error });
  const code = error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
  const known = code === undefined ? undefined : SYSTEM_ERRORS[code];
  if (known) return new Fault(known[0], { ...blame, detail: known[1], cause: error });
  const tls = tlsFaultOf(error, blame);
  if (tls !== null) return tls;
  return new Fault('destination_unavailable', { ...blame, detail: code, cause: error });
}
