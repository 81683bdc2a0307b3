// Ranges of addresses. The measure is node:net's BlockList, which reads addresses and compares their bits in the system's way.
import { BlockList } from 'node:net';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { addressRanges } from '../../../companion/guard/address-ranges.ts';

const group = fc.oneof(fc.constant(0), fc.constant(0xffff), fc.integer({ min: 0, max: 0xffff }));
const groups = fc.array(group, { minLength: 8, maxLength: 8 });
const four = fc.array(fc.integer({ min: 0, max: 255 }), { minLength: 4, maxLength: 4 }).map(bytes => bytes.join('.'));

/** Spelled in full, with one run left out, or with an IPv4 address at its end. */
const six = fc
  .tuple(groups, fc.nat({ max: 6 }), fc.nat({ max: 6 }), fc.boolean())
  .map(([all, from, length, dotted]) => {
    const tail = [all[6]! >> 8, all[6]! & 255, all[7]! >> 8, all[7]! & 255].join('.');
    const texts = all.map(one => one.toString(16));
    if (length === 0) return dotted ? [...texts.slice(0, 6), tail].join(':') : texts.join(':');
    return `${texts.slice(0, from).join(':')}::${texts.slice(Math.min(8, from + length)).join(':')}`;
  });

/** A range, and an address that differs from it in few bits, so that both answers come up. */
const rangeAndAddress = fc.oneof(
  fc
    .tuple(four, fc.integer({ min: 0, max: 32 }), fc.oneof(four, fc.nat({ max: 31 })))
    .map(([address, prefix, other]) => ({
      range: [address, prefix] as const,
      asked: typeof other === 'string' ? other : flipFour(address, other),
    })),
  fc
    .tuple(groups, fc.integer({ min: 0, max: 128 }), fc.oneof(six, fc.nat({ max: 127 })))
    .map(([all, prefix, other]) => ({
      range: [spell(all), prefix] as const,
      asked:
        typeof other === 'string'
          ? other
          : spell(all.map((one, i) => (i === other >> 4 ? one ^ (1 << (other & 15)) : one))),
    })),
);

const spell = (all: readonly number[]) => all.map(one => one.toString(16)).join(':');
const flipFour = (address: string, bit: number) =>
  address
    .split('.')
    .map((byte, i) => (i === bit >> 3 ? Number(byte) ^ (1 << (bit & 7)) : byte))
    .join('.');
const familyOf = (address: string) => (address.includes(':') ? 'ipv6' : 'ipv4');

test('an address is in a range exactly when BlockList says so', () => {
  const isMapped = (address: string) => addressRanges(['0.0.0.0/0'], false).has(address) && address.includes(':');
  fc.assert(
    fc.property(rangeAndAddress, ({ range: [network, prefix], asked }) => {
      // A range of IPv4-mapped addresses is one of IPv6 to BlockList; the file's ranges are in normal form, where there are none.
      fc.pre(!isMapped(network));
      const list = new BlockList();
      list.addSubnet(network, prefix, familyOf(network));
      // To BlockList an IPv4-mapped address is of both families.
      fc.pre(!(isMapped(asked) && network.includes(':')));
      expect(addressRanges([`${network}/${prefix}`], false).has(asked)).toBe(list.check(asked, familyOf(asked)));
    }),
    { numRuns: 3_000 },
  );
});

test('what is no address is in no range, however wide', () => {
  const all = addressRanges(['0.0.0.0/0', '::/0'], true);
  const texts = [
    '',
    '1',
    '1.2.3',
    '1.2.3.4.5',
    '1.2.3.256',
    '01.2.3.4',
    '1.2.3.4 ',
    '0x7f.0.0.1',
    '1.2.3.-4',
    'localhost',
    ':',
    ':::',
    '1:2:3:4:5:6:7',
    '1:2:3:4:5:6:7:8:9',
  ];
  texts.push(
    '1::2::3',
    '::12345',
    '::g',
    '1:2:3:4:5:6:7::8',
    '::1.2.3',
    '::1.2.3.4:5',
    'fe80::1%eth0',
    '[::1]',
    '1:2:3:4:5:6:7:1.2.3.4',
  );
  for (const text of texts) expect([text, all.has(text)]).toEqual([text, false]);
  for (const text of ['0.0.0.0', '255.255.255.255', '::', '::1', '1::', '::ffff:1.2.3.4', 'FFFF::'])
    expect([text, all.has(text)]).toEqual([text, true]);
});

test('an IPv4 range is meant where it is embedded, only where that is asked for', () => {
  for (const embedded of [true, false]) {
    const ranges = addressRanges(['10.0.0.0/8'], embedded);
    expect(ranges.has('10.255.0.1')).toBe(true);
    expect(ranges.has('11.0.0.1')).toBe(false);
    expect(ranges.has('::ffff:a01:203')).toBe(true);
    for (const text of ['64:ff9b::a01:203', '2002:a01:203::1', '::ffff:0:a01:203'])
      expect(ranges.has(text)).toBe(embedded);
    for (const text of ['64:ff9b::b01:203', '2002:b01:203::1', '::ffff:0:b01:203'])
      expect(ranges.has(text)).toBe(false);
  }
});

test('a range that is none is refused', () => {
  for (const text of ['10.0.0.0', '10.0.0.0/33', '::/129', '10.0.0/8', 'host/8', '10.0.0.0/x', '10.0.0.0/-1'])
    expect(() => addressRanges([text], false)).toThrow(RangeError);
});
