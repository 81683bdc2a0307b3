// Tells by its first byte what a client speaks (HTTP begins with a token or an empty line, SOCKS with its version).

export type Protocol = 'http' | 'socks4' | 'socks5' | 'unknown';

/** What the first byte of a connection says. */
export function protocolOf(firstByte: number): Protocol {
  if ((firstByte >= 65 && firstByte <= 90) || (firstByte >= 97 && firstByte <= 122)) return 'http';
  if (firstByte === 13) return 'http';
  if (firstByte === 5) return 'socks5';
  if (firstByte === 4) return 'socks4';
  // The rest of what a token may begin with: no method does, so the parser says the no.
  return firstByte > 32 && firstByte < 127 ? 'http' : 'unknown';
}

/** All that anyone learns who does not ask as a proxy's client does: a web page that tries the port must not see what answers there. */
export const BARE_400 = 'HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n';
