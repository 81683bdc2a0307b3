// Holds a connection of this machine, unread, until it is known whether the user's own program has made it.
import type { Socket } from '../sockets/socket.ts';
import type { OwnerCheck } from '../rooms.ts';

/** `tell` hears whether the socket, if it is still there, may enter; if not, it has been closed without a byte. */
export function throughOwnerDoor(socket: Socket, check: OwnerCheck, tell: (isMine: boolean) => void): void {
  const { remoteAddress, remotePort, localAddress, localPort } = socket;
  if (!remoteAddress || !remotePort || !localAddress || !localPort) {
    socket.destroy();
    return;
  }
  const onError = () => socket.destroy();
  socket.on('error', onError);
  check.ask({ remoteAddress, remotePort, localAddress, localPort }, isMine => {
    if (socket.destroyed) return;
    if (isMine) socket.off('error', onError);
    else socket.destroy();
    tell(isMine);
  });
}
