// TLS to a hop of kind https, over whatever stands already: a first leg, a tunnel, another hop's TLS. Always verified; there is no setting against it.
// Node's TLS takes the connection over below JavaScript, also where it is TLS itself, so that bytes and back-pressure stay there.
import type { X509Certificate } from 'node:crypto';
import type { SecureContext } from 'node:tls';
import { isAddress } from '../../shared/endpoint.ts';
import { Fault, type FaultOptions } from '../../shared/fault.ts';
import type { Milliseconds } from '../../shared/units.ts';
import type { NamedHop } from '../rooms.ts';
import { nodeSocket, type Socket } from '../sockets/socket.ts';
import { tlsFaultOf } from '../sockets/tls-fault.ts';
import { endpointOf, hopFault } from './handshake.ts';

/** A session is taken up again only so long: then the certificate is looked at anew. */
const SESSION_LIFETIME: Milliseconds = 600_000;

/** What is made once for a hop of the file in force. */
interface Prepared {
  readonly context: SecureContext;
  session: Buffer | null;
  sessionSince: Milliseconds;
}
const prepared = new WeakMap<NamedHop, Prepared>();

function prepare(hop: NamedHop): Prepared {
  let one = prepared.get(hop);
  if (one === undefined) {
    const { ca, cert, key } = hop.tls ?? {};
    // Not by import: a start without such a hop need not load it.
    const { createSecureContext } = process.getBuiltinModule('node:tls');
    const context = createSecureContext({ ca, cert, key, minVersion: 'TLSv1.2' });
    prepared.set(hop, (one = { context, session: null, sessionSince: 0 }));
  }
  return one;
}

/**
 * Begins TLS on a connection to `hop`. Tells `succeed` of the secured one (paused), or `fail` of why there is none: tls_certificate_error,
 * tls_alert_received, tls_protocol_error, connection_terminated. Gives back how to break it off. `now` is a steady clock.
 */
export function beginTls(
  below: Socket,
  hop: NamedHop,
  now: Milliseconds,
  succeed: (secure: Socket) => void,
  fail: (fault: Fault) => void,
): () => void {
  const blame: FaultOptions = { hop: hop.name, target: endpointOf(hop) };
  const { servername, pin } = hop.tls ?? {};
  const name = servername ?? hop.host;
  const one = prepare(hop);
  if (below.destroyed) {
    fail(new Fault('connection_terminated', { ...blame, detail: 'in the TLS handshake' }));
    return () => {};
  }
  const { connect } = process.getBuiltinModule('node:tls');
  const secure = connect({
    socket: nodeSocket(below),
    secureContext: one.context,
    // Also the name that the certificate is held to.
    host: name,
    servername: isAddress(name) ? undefined : name,
    ALPNProtocols: ['http/1.1'],
    session: one.session !== null && now - one.sessionSince < SESSION_LIFETIME ? one.session : undefined,
    rejectUnauthorized: true,
  });
  // Node's own refuses where the handle is not the bare one.
  secure.resetAndDestroy = () => {
    below.resetAndDestroy();
    secure.destroy();
    return secure;
  };
  const onError = (error: Error) => {
    // What is wrong may be the session.
    one.session = null;
    fail(
      tlsFaultOf(error, blame) ??
        new Fault('connection_terminated', { ...blame, detail: 'in the TLS handshake', cause: error }),
    );
  };
  const onClose = () => fail(new Fault('connection_terminated', { ...blame, detail: 'in the TLS handshake' }));
  const onSession = (session: Buffer) => {
    if (one.session === null) one.sessionSince = now;
    one.session = session;
  };
  const stop = () => {
    secure.off('close', onClose).off('error', onError);
    // Between two owners, and after a failure, it must not bring the process down.
    secure.on('error', () => {});
  };
  secure.on('session', onSession).on('error', onError).on('close', onClose);
  secure.once('secureConnect', () => {
    stop();
    // A session that is taken up again is of a certificate that has been looked at.
    if (pin !== undefined && !secure.isSessionReused() && !hasKey(secure.getPeerX509Certificate(), pin)) {
      one.session = null;
      secure.off('session', onSession);
      fail(hopFault('tls_certificate_error', hop, 'its public key is not the one that the file pins'));
      secure.destroy();
      return;
    }
    secure.pause();
    succeed(secure);
  });
  return () => {
    stop();
    secure.destroy();
    below.destroy();
  };
}

function hasKey(certificate: X509Certificate | undefined, pin: string): boolean {
  if (certificate === undefined) return false;
  const key = certificate.publicKey.export({ type: 'spki', format: 'der' });
  return `sha256/${process.getBuiltinModule('node:crypto').hash('sha256', key, 'base64')}` === pin;
}
