// Holds a connection of this machine, unread, until it is known whether the user's own program has made it.
import type { Socket } from 'node:net';
import type { OwnerCheck } from '../rooms.ts';

/** `enter` hears of the socket if it may enter and is still there; else it is closed without a byte. */
export function throughOwnerDoor(socket: Socket, check: OwnerCheck, enter: () => void): void {
  const { remoteAddress, remotePort, localAddress, localPort } = socket;
  if (!remoteAddress || !remotePort || !localAddress || !localPort) {
    socket.destroy();
    return;
  }
  const onError = () => socket.destroy();
  socket.on('error', onError);
  check.ask({ remoteAddress, remotePort, localAddress, localPort }, isMine => {
    if (socket.destroyed) return;
    if (!isMine) {
      socket.destroy();
      return;
    }
    socket.off('error', onError);
    enter();
  });
}
