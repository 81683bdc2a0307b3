// The engine alone over real sockets: listener, walk and upstream, with the smallest furniture in the other rooms (everything is steered by the
// route `companion`, dialled directly, never cached). For the whole companion see with-companion.ts.
import { connect } from 'node:net';
import { ConfigSchema } from '../../shared/config.ts';
import type { Exchange } from '../../shared/exchange.ts';
import { Fault } from '../../shared/fault.ts';
import * as v from 'valibot';
import { listen, type Listener } from '../../companion/downstream/listener.ts';
import { Fields } from '../../companion/message/headers.ts';
import type { Answer } from '../../companion/message/message.ts';
import { openTunnel, proxyRequest, type Rooms } from '../../companion/proxy.ts';
import type {
  AdmittedTarget,
  Chain,
  ControlDoor,
  Dial,
  ExchangeDraft,
  NamedHop,
  TryChains,
} from '../../companion/rooms.ts';
import { makeRefusals } from '../../companion/route/refusal.ts';
import { steered } from './steered.ts';
import { Behind } from '../../companion/upstream/behind.ts';
import { ConnectionPool } from '../../companion/upstream/connection-pool.ts';
import { IdenticalHeads } from '../../companion/upstream/identical-heads.ts';

export interface ProxyOptions {
  /** Overrides of the file's limits, in its units (seconds). */
  readonly limits?: Partial<v.InferOutput<typeof ConfigSchema>['limits']>;
  /** Overrides of single rooms. */
  readonly rooms?: Partial<Rooms>;
  readonly control?: ControlDoor;
}

export interface TestProxy extends AsyncDisposable {
  readonly port: number;
  readonly rooms: Rooms;
  readonly listener: Listener;
  /** Records that have ended, in the order of their ends. */
  readonly exchanges: readonly Exchange[];
  /** Records of tunnels that have opened. */
  readonly opened: readonly Exchange[];
  /** Resolves with the exchange that ends next, or with the one at `index`. */
  exchange(index?: number): Promise<Exchange>;
}

export const NO_CONTROL: ControlDoor = { answer: () => null, upgrade: () => false };
export const DIRECT: Chain = { key: '', hops: [] };

/** Connects directly, or to the last hop in absolute-form; the target's name is not resolved beyond what the system does. */
export const directDial: Dial = ({ chain, signal }, target, absolute) =>
  new Promise((resolve, reject) => {
    const hop = chain.hops.at(-1);
    const at = absolute && hop ? hop : target;
    const socket = connect({ host: at.host, port: at.port, noDelay: true });
    const onAbort = () => {
      socket.destroy();
      reject(signal.reason as Error);
    };
    signal.addEventListener('abort', onAbort);
    const onError = (error: NodeJS.ErrnoException) => {
      signal.removeEventListener('abort', onAbort);
      const kind = error.code === 'ECONNREFUSED' ? 'connection_refused' : 'destination_unavailable';
      reject(new Fault(kind, { target: at, hop: absolute ? hop?.name : undefined, cause: error }));
    };
    socket.on('error', () => {});
    socket.once('error', onError);
    socket.once('connect', () => {
      socket.off('error', onError);
      signal.removeEventListener('abort', onAbort);
      resolve({ socket, rest: Buffer.alloc(0), hops: [] });
    });
  });

/** Each chain once, in order; any fault leads to the next. */
export const inOrder: TryChains = async (route, _host, attempts, signal, attempt) => {
  for (const [index, chain] of route.chains.entries()) {
    const one = { chain, signal, steps: [], stage: 'connect' as const };
    const chainNames = chain.hops.map(hop => hop.name);
    try {
      const result = await attempt(one);
      attempts.push({ chain: chainNames, outcome: 'ok', stage: one.stage, hops: one.steps, took: 0 });
      return result;
    } catch (error) {
      const fault = error as Fault;
      attempts.push({
        chain: chainNames,
        outcome: fault.kind,
        stage: one.stage,
        reason: fault.message,
        hops: one.steps,
        took: 0,
      });
      if (index === route.chains.length - 1) throw error;
    }
  }
  throw new Fault('proxy_configuration_error');
};

/** A hop by name, for chains in tests. */
export function hopOf(name: string, port: number, more: Partial<NamedHop> = {}): NamedHop {
  return { name, kind: 'http', host: '127.0.0.1', port, ...more };
}

export async function startProxy(options: ProxyOptions = {}): Promise<TestProxy> {
  const limits = { ...v.parse(ConfigSchema, {}).limits, ...options.limits };
  const exchanges: Exchange[] = [];
  const opened: Exchange[] = [];
  const waiting = new Set<() => void>();
  let last = 0;
  const interval = 20;
  const pool = new ConnectionPool(() => limits, interval);
  const rooms: Rooms = {
    entrance: { mayEnter: () => true, logIn: null, demand: null },
    heard: () => {},
    broke: () => {},
    isHeld: () => false,
    acl: { admit: target => target as AdmittedTarget, admitsAddress: () => null, admitsHopAddress: () => null },
    decide: () => steered('off'),
    decideByAddress: null,
    routeOf: () => ({ name: 'companion', chains: [DIRECT], behindHops: false, route: null }),
    blockAnswer: (_head, host): Answer => {
      const body = Buffer.from(`blocked ${host}`);
      return {
        head: {
          status: 403,
          reason: 'Forbidden',
          version: 11,
          fields: new Fields(),
          framing: { kind: 'length', length: body.length },
          keepAlive: true,
        },
        body,
      };
    },
    cache: {
      lookup: request => ({ kind: 'ask', request: request.head, status: 'fwd=bypass', token: null }),
      store: (ask, answer) => ({ answer, status: ask.status }),
      failed: () => null,
      pass: () => {},
      peek: () => 'fwd=bypass',
      clear: () => {},
      close: async () => {},
    },
    tryChains: inOrder,
    dial: directDial,
    refusals: makeRefusals(),
    pool,
    identical: new IdenticalHeads(() => limits.identical),
    behind: new Behind(),
    recorder: {
      begin: (kind, method) =>
        ({
          id: ++last,
          startedAt: Date.now(),
          kind,
          method,
          url: '',
          host: '',
          site: '',
          because: { rule: 'default' },
          route: 'companion',
          filter: 'off',
          cache: 'off',
          attempts: [],
          status: null,
          bytesUp: 0,
          bytesDown: 0,
          fault: undefined,
          blockedBy: undefined,
        }) as ExchangeDraft,
      firstByte: draft => void (draft.firstByteAfter = Date.now() - draft.startedAt),
      opened: draft => void opened.push({ ...draft } as Exchange),
      finish: draft => {
        exchanges.push({ ...draft, took: Date.now() - draft.startedAt } as Exchange);
        for (const wake of waiting) wake();
      },
    },
    limits,
    partition: 'site',
    registrableDomain: host => host,
    comesFromUs: () => false,
    now: Date.now,
    era: {},
    ...options.rooms,
  };
  const listener = await listen({
    host: '127.0.0.1',
    port: 0,
    limits: () => limits,
    control: options.control ?? NO_CONTROL,
    entrance: () => rooms.entrance,
    walk: { request: incoming => proxyRequest(incoming, rooms), tunnel: incoming => openTunnel(incoming, rooms) },
    interval,
  });
  return {
    port: listener.port,
    rooms,
    listener,
    exchanges,
    opened,
    exchange: (index = exchanges.length) =>
      new Promise((resolve, reject) => {
        const look = () => {
          if (exchanges.length <= index) return;
          clearTimeout(timer);
          waiting.delete(look);
          resolve(exchanges[index]!);
        };
        const timer = setTimeout(() => reject(new Error(`exchange ${index} did not end`)), 5_000);
        waiting.add(look);
        look();
      }),
    async [Symbol.asyncDispose]() {
      await listener.close(0);
      pool.close();
    },
  };
}
