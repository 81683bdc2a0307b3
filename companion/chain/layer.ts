// What a kind of hop does to a connection: it gets the one that stands and gives back the next. Most only converse on it (handshake.ts) and the
// connection stays the same; TLS and SSH put another one over it.
import type { Endpoint } from '../../shared/endpoint.ts';
import type { Milliseconds } from '../../shared/units.ts';
import type { Chain, NamedHop, Try } from '../rooms.ts';
import type { Socket } from '../sockets/socket.ts';
import type { Handshake } from './handshake.ts';
import type { Login } from './isolation.ts';

/** A connection as far as it goes: paused, and nobody listens to it. */
export interface Standing {
  readonly socket: Socket;
  /** Bytes that have been read of it already. */
  readonly rest: Buffer;
}

/** What a layer is given beside the connection. */
export interface LayerWork {
  readonly hop: NamedHop;
  /** The hop's place in the chain. */
  readonly chain: Chain;
  readonly place: number;
  /** On the clock of `now`. */
  readonly deadline: Milliseconds;
  readonly now: () => Milliseconds;
  readonly signal: AbortSignal;
  /** Where a login for the site is to be used instead of the hop's own. */
  readonly siteLogin?: Login | undefined;
  /** The Via member of CONNECT requests; null = none. */
  readonly via: string | null;
  /** How far the try is: a layer sets it before each step that may fail. */
  readonly one: Pick<Try, 'stage' | 'steps'>;
  /** Notes that the hop is reached: a step of the try. */
  stood(): void;
  /** Dials what comes before the hop: a connection to it, for as long as the signal (that of all who wait for it) does not call it off. */
  way(signal: AbortSignal): Promise<Standing>;
  /** Carries a conversation out on a connection. Throws the fault of the hop, late or not. */
  converse(over: Standing, handshake: Handshake): Promise<Standing>;
}

/**
 * One kind of hop. What throws leaves the connection to be destroyed by the caller, who destroys the one that it gave in. A connection that a layer
 * gives back takes the one below it with it when it is destroyed.
 */
export interface Layer {
  /** Done before the hop is asked anything, also where it only takes requests in absolute-form; absent = nothing. */
  readonly enter?: (over: Standing, work: LayerWork) => Promise<Standing>;
  /** Asks the hop for `wanted`. */
  readonly reach?: (over: Standing, wanted: Endpoint, work: LayerWork) => Promise<Standing>;
  /**
   * Instead of these two: a way to `wanted` through a session with the hop that carries many connections. It keeps sessions, and makes one by `way` where
   * none stands. Asked of the last hops first. The steps of the try to this hop are its own to note.
   */
  readonly shared?: (wanted: Endpoint, work: LayerWork) => Promise<Standing>;
}
