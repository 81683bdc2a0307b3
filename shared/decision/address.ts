// Addresses as numbers, for ranges. Takes hosts in normal form (shared/endpoint.ts) and gives them back.

/** How far apart the two families are kept: bits of an IPv4 address, of an IPv6 one. */
export const ADDRESS_BITS = { 4: 32, 6: 128 } as const;
export type Family = 4 | 6;

/** The family of an address in normal form. */
export function familyOf(address: string): Family {
  return address.includes(':') ? 6 : 4;
}

/** The number of an IPv4 address in normal form, 0 to 2^32 - 1. */
export function numberOfIPv4(address: string): number {
  let number = 0;
  let part = 0;
  for (let i = 0; i < address.length; i++) {
    const code = address.charCodeAt(i);
    if (code === 46) {
      number = number * 256 + part;
      part = 0;
    } else part = part * 10 + code - 48;
  }
  return number * 256 + part;
}

/** The number of an IPv6 address in normal form (no brackets), 0 to 2^128 - 1. */
export function numberOfIPv6(address: string): bigint {
  const [head = '', tail] = address.split('::');
  const before = head === '' ? [] : head.split(':');
  const after = tail === undefined || tail === '' ? [] : tail.split(':');
  const gap = tail === undefined ? [] : Array<string>(8 - before.length - after.length).fill('0');
  return BigInt(`0x${[...before, ...gap, ...after].map(group => group.padStart(4, '0')).join('')}`);
}

/** The number of an address of either family. */
export function numberOf(address: string): bigint {
  return familyOf(address) === 6 ? numberOfIPv6(address) : BigInt(numberOfIPv4(address));
}

/** As many hex digits as the family has (8 or 32), so that texts compare as their numbers do. */
export function hexOf(family: Family, number: bigint): string {
  return number.toString(16).padStart(ADDRESS_BITS[family] / 4, '0');
}

/** The first and the last address of a range. */
export function boundsOf(address: string, prefix: number): { family: Family; first: bigint; last: bigint } {
  const family = familyOf(address);
  const free = BigInt(ADDRESS_BITS[family] - prefix);
  const first = (numberOf(address) >> free) << free;
  return { family, first, last: first + (1n << free) - 1n };
}
