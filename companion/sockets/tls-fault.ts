// What Node and OpenSSL say of a TLS connection, as faults in our words.
import { Fault, type FaultKind, type FaultOptions } from '../../shared/fault.ts';

/** What is wrong with a certificate, in words; by OpenSSL's and Node's codes. */
const CERTIFICATE_ERRORS: Readonly<Record<string, string>> = {
  CERT_HAS_EXPIRED: 'it has expired',
  CERT_NOT_YET_VALID: 'it is not valid yet',
  CERT_REVOKED: 'it has been revoked',
  ERR_TLS_CERT_ALTNAME_INVALID: 'it is for another name',
  HOSTNAME_MISMATCH: 'it is for another name',
  DEPTH_ZERO_SELF_SIGNED_CERT: 'nobody but itself vouches for it',
  SELF_SIGNED_CERT_IN_CHAIN: 'an unknown authority vouches for it',
  UNABLE_TO_GET_ISSUER_CERT: 'an unknown authority vouches for it',
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: 'an unknown authority vouches for it',
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: 'an unknown authority vouches for it, or it does not send its whole chain',
  CERT_UNTRUSTED: 'its authority is not to be trusted',
  CERT_REJECTED: 'its authority is not to be trusted for this',
  CERT_CHAIN_TOO_LONG: 'its chain is too long',
  PATH_LENGTH_EXCEEDED: 'its chain is too long',
  INVALID_CA: 'a certificate of its chain is of no authority',
  INVALID_PURPOSE: 'it is not for servers',
  CERT_SIGNATURE_FAILURE: 'its signature is wrong',
  UNABLE_TO_DECRYPT_CERT_SIGNATURE: 'its signature is wrong',
  EE_KEY_TOO_SMALL: 'its key is too small',
  CA_KEY_TOO_SMALL: 'the key of its authority is too small',
  CA_MD_TOO_WEAK: 'it is signed by a hash that is too weak',
};

/** Where an error is one of TLS: what it says, in our words. Else null. */
export function tlsFaultOf(error: unknown, blame: FaultOptions): Fault | null {
  const code = error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : '';
  const made = (kind: FaultKind, detail: string) => new Fault(kind, { ...blame, detail, cause: error });
  if (Object.hasOwn(CERTIFICATE_ERRORS, code)) return made('tls_certificate_error', CERTIFICATE_ERRORS[code]!);
  if (!code.startsWith('ERR_SSL_') && code !== 'EPROTO') return null;
  const { reason = '' } = error as { reason?: string };
  if (/alert/i.test(reason) || code.includes('_ALERT_')) {
    const alert = reason.replace(/^.*\balert\b\s*/i, '').replace(/^number\s*/, '');
    const hint = /CERTIFICATE_REQUIRED|HANDSHAKE_FAILURE|BAD_CERTIFICATE|UNKNOWN_CA/.test(code)
      ? '; it may ask for a client certificate'
      : '';
    return made('tls_alert_received', quotable(`alert: ${alert || reason}`) + hint);
  }
  if (
    code === 'ERR_SSL_WRONG_VERSION_NUMBER' ||
    code === 'ERR_SSL_PACKET_LENGTH_TOO_LONG' ||
    code === 'ERR_SSL_HTTP_REQUEST'
  )
    return made('tls_protocol_error', 'it does not speak TLS there');
  return made('tls_protocol_error', quotable(reason || code));
}

/** OpenSSL's own words: printable, and not many of them. */
function quotable(text: string): string {
  return text.replace(/[^\x20-\x7e]+/g, ' ').slice(0, 80);
}
