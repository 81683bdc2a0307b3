// Ranges of addresses, asked whether an address is in one. What node:net has for this (BlockList) does the same and is the measure in the tests, but each of
// its ranges is made by a call into the system's half of Node, and what it makes cannot be part of a snapshot (seen in Node 24).

/** An IPv4 address as a number, an IPv6 address as its eight groups. */
type Parsed = number | Uint16Array;

/** Whether a text is an address within; text that is no address is not. An IPv4-mapped IPv6 address is the IPv4 address that it reaches. */
export interface AddressRanges {
  has(address: string): boolean;
}

/**
 * The ranges, each as `address/prefix` in normal form. `embedded`: an IPv4 range is also meant where it is carried inside a NAT64 (RFC 6052), 6to4 (RFC 3056)
 * or SIIT (RFC 2765 §2.1) address. Throws where a range is none.
 */
export function addressRanges(ranges: readonly string[], embedded: boolean): AddressRanges {
  const four: (readonly [network: number, prefix: number])[] = [];
  const six: (readonly [network: Uint16Array, prefix: number])[] = [];
  for (const range of ranges) {
    const slash = range.lastIndexOf('/');
    const prefix = Number(range.slice(slash + 1));
    const network = parse(range.slice(0, slash));
    if (network === null || slash < 0 || !(prefix >= 0 && prefix <= (typeof network === 'number' ? 32 : 128)))
      throw new RangeError(`${range} is no range of addresses`);
    if (typeof network !== 'number') {
      six.push([network, prefix]);
      continue;
    }
    four.push([network, prefix]);
    if (!embedded) continue;
    const [high, low] = [network >>> 16, network & 0xffff];
    six.push([Uint16Array.of(0x64, 0xff9b, 0, 0, 0, 0, high, low), 96 + prefix]);
    six.push([Uint16Array.of(0x2002, high, low, 0, 0, 0, 0, 0), 16 + prefix]);
    six.push([Uint16Array.of(0, 0, 0, 0, 0xffff, 0, high, low), 96 + prefix]);
  }
  return {
    has(address) {
      const parsed = parse(address);
      if (parsed === null) return false;
      if (typeof parsed === 'number')
        return four.some(([network, prefix]) => prefix === 0 || (parsed ^ network) >>> (32 - prefix) === 0);
      return six.some(([network, prefix]) => sharesPrefix(parsed, network, prefix));
    },
  };
}

function sharesPrefix(one: Uint16Array, other: Uint16Array, prefix: number): boolean {
  const whole = prefix >> 4;
  for (let i = 0; i < whole; i++) if (one[i] !== other[i]) return false;
  const rest = prefix & 15;
  return rest === 0 || (one[whole]! ^ other[whole]!) >>> (16 - rest) === 0;
}

/** Null for what is no address. IPv4-mapped IPv6 comes back as IPv4. */
function parse(text: string): Parsed | null {
  if (!text.includes(':')) return parseFour(text);
  const [before, after, more] = text.split('::');
  if (before === undefined || more !== undefined) return null;
  const head = parseGroups(before);
  const tail = after === undefined ? [] : parseGroups(after);
  if (head === null || tail === null) return null;
  const left = 8 - head.length - tail.length;
  if (after === undefined ? left !== 0 : left < 1) return null;
  const groups = new Uint16Array(8);
  groups.set(head);
  groups.set(tail, 8 - tail.length);
  const isMapped = groups[5] === 0xffff && groups.subarray(0, 5).every(group => group === 0);
  return isMapped ? ((groups[6]! << 16) | groups[7]!) >>> 0 : groups;
}

/** The groups of one side of `::`; the last may be an IPv4 address, which is two. */
function parseGroups(text: string): number[] | null {
  if (text === '') return [];
  const groups: number[] = [];
  const parts = text.split(':');
  if (parts.length > 8) return null;
  for (const [i, part] of parts.entries()) {
    if (part.includes('.')) {
      const four = i === parts.length - 1 ? parseFour(part) : null;
      if (four === null) return null;
      groups.push(four >>> 16, four & 0xffff);
    } else {
      if (!/^[0-9a-f]{1,4}$/i.test(part)) return null;
      groups.push(Number.parseInt(part, 16));
    }
  }
  return groups;
}

function parseFour(text: string): number | null {
  const parts = text.split('.');
  if (parts.length !== 4) return null;
  let address = 0;
  for (const part of parts) {
    if (!/^(?:0|[1-9]\d{0,2})$/.test(part) || Number(part) > 255) return null;
    address = address * 256 + Number(part);
  }
  return address;
}
