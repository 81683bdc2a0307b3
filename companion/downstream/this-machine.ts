import type { Socket } from '../sockets/socket.ts';

/** Whether an address is this machine's own to itself (loopback). */
export function isThisMachine(address: string): boolean {
  return address.startsWith('127.') || address === '::1' || address.startsWith('::ffff:127.');
}

/** Whether what is at the other side of a socket is on this machine: by loopback, or from one of its addresses to the same. */
export function isFromHere({ remoteAddress, localAddress }: Pick<Socket, 'remoteAddress' | 'localAddress'>): boolean {
  return remoteAddress !== undefined && (isThisMachine(remoteAddress) || remoteAddress === localAddress);
}
