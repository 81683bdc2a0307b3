// What the rooms use of a socket: Node's own has it, and so has the lean one (lean-socket.ts), which costs half as much.
import type { Socket as NodeSocket } from 'node:net';

/** A TCP connection (or what looks like one, such as TLS over it). */
export type Socket = Pick<
  NodeSocket,
  | 'on'
  | 'once'
  | 'off'
  | 'pause'
  | 'resume'
  | 'read'
  | 'write'
  | 'end'
  | 'destroy'
  | 'resetAndDestroy'
  | 'cork'
  | 'uncork'
  | 'setNoDelay'
  | 'remoteAddress'
  | 'remotePort'
  | 'localAddress'
  | 'localPort'
  | 'destroyed'
  | 'closed'
  | 'writable'
  | 'writableNeedDrain'
  | 'writableLength'
  | 'readableLength'
  | 'readableEnded'
  | 'allowHalfOpen'
>;

/** The same connection as a socket of Node's, for its TLS, for ws, for another process. The lean one is spent by it. */
export function nodeSocket(socket: Socket): NodeSocket {
  return 'toNode' in socket ? (socket as unknown as { toNode(): NodeSocket }).toNode() : (socket as NodeSocket);
}
