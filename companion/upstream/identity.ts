// What of a request stays here: fields that tell the origin who asks, by which way, or with which proxy credentials.

/** Fields that speak of the way a request took or of who sent it, beside the hop-by-hop ones. `Proxy` is the httpoxy field. */
const IDENTITY: ReadonlySet<string> = new Set([
  'proxy',
  'forwarded',
  'via',
  'x-real-ip',
  'x-client-ip',
  'x-cluster-client-ip',
  'true-client-ip',
  'client-ip',
  'x-proxyuser-ip',
]);

/** Whether a field (its name in lower case) would give the browser, or Detour, away. */
export function tellsIdentity(lowerName: string): boolean {
  return IDENTITY.has(lowerName) || lowerName.startsWith('x-forwarded');
}
