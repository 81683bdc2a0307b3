/** The value of Proxy-Authorization for this hop alone (RFC 7617), or null where it has no user name. */
export function basicAuthorization(hop: {
  readonly username?: string | undefined;
  readonly password?: string | undefined;
}): string | null {
  if (hop.username === undefined) return null;
  return `Basic ${Buffer.from(`${hop.username}:${hop.password ?? ''}`, 'utf8').toString('base64')}`;
}
