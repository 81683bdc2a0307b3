// What every kind of hop has to offer: a conversation of bytes in, bytes out. The socket is dial.ts's.
import type { Endpoint } from '../../shared/endpoint.ts';
import { Fault, type FaultKind } from '../../shared/fault.ts';
import type { NamedHop } from '../rooms.ts';

/** How far a handshake is: introducing ourselves and logging in, or asking for the tunnel. */
export type HandshakeStage = 'greeting' | 'tunnel';

/** What follows from the bytes so far. */
export interface HandshakeStep {
  /** To be sent now. */
  readonly send?: Buffer;
  /** Bytes that this step did not use. */
  readonly rest: Buffer;
  /** The tunnel stands; `rest` is its first bytes. */
  readonly stands: boolean;
}

/** Asks one hop for a tunnel. It holds the state of one conversation; bytes and time are bounded by its caller too. */
export interface Handshake {
  readonly stage: HandshakeStage;
  /** To be sent first. */
  readonly opening: Buffer;
  /** All unused bytes so far → the next step. Throws the fault when the hop says no or makes no sense. */
  read(bytes: Buffer): HandshakeStep | 'need-more';
}

/** A fault to be blamed on a hop that was asked for `wanted`. */
export function hopFault(
  kind: FaultKind,
  hop: NamedHop,
  detail?: string,
  receivedStatus?: number,
  cause?: unknown,
): Fault {
  return new Fault(kind, { hop: hop.name, target: endpointOf(hop), detail, receivedStatus, cause });
}

/** The hop's endpoint alone: nothing made from it can leak a password. */
export function endpointOf(hop: NamedHop): Endpoint {
  return { host: hop.host, port: hop.port };
}

/** Text of a hop in our own sentences: printable ASCII only, and not much of it. */
export function quotable(text: string): string {
  return text
    .replace(/[^\x20-\x7e]+/g, ' ')
    .trim()
    .slice(0, 80);
}
