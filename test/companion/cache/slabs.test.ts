// Slots in pages: nobody's bytes are overwritten, whoever moves is told, and what is free is given back.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { MAX_SLOT, offsetOf, type Page, Slabs, type Tenant } from '../../../companion/cache/slabs.ts';

interface Lodger extends Tenant {
  readonly size: number;
  readonly mark: number;
}

function lodger(slabs: Slabs, size: number, mark: number): Lodger {
  const one: Lodger = { page: null as Page | null, slot: 0, size, mark };
  slabs.rent(one, size);
  const at = offsetOf(one);
  one.page!.bytes.fill(mark, at, at + size);
  return one;
}

function isWhole({ page, slot, size, mark }: Lodger): boolean {
  const at = offsetOf({ page, slot });
  return page!.bytes.subarray(at, at + size).every(byte => byte === mark);
}

test('whatever comes and goes in whatever order, everybody keeps his own bytes', () => {
  const step = fc.record({ size: fc.integer({ min: 1, max: MAX_SLOT }), leaves: fc.nat() });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 300 }), steps => {
      const slabs = new Slabs();
      const inside: Lodger[] = [];
      for (const [index, { size, leaves }] of steps.entries()) {
        inside.push(lodger(slabs, size, index % 251));
        if (leaves % 3 > 0) {
          const [gone] = inside.splice(leaves % inside.length, 1);
          slabs.release(gone!);
          expect(gone!.page).toBeNull();
        }
      }
      expect(inside.every(isWhole)).toBe(true);
      expect(slabs.inUse).toBe(inside.reduce((sum, one) => sum + slabs.slotSize(one.size), 0));
      expect(slabs.inUse).toBeLessThanOrEqual(slabs.memory);
    }),
    { numRuns: 200 },
  );
});

test('pages that are thinly let are moved together: free slots of a class never take much more than a page', () => {
  const slabs = new Slabs();
  const all = Array.from({ length: 5_000 }, (_, i) => lodger(slabs, 1_200, i % 251));
  const full = slabs.memory;
  const left = all.filter((_, i) => i % 10 === 0);
  for (const one of all) if (!left.includes(one)) slabs.release(one);
  expect(left.every(isWhole)).toBe(true);
  // Some of the pages are kept for what comes next.
  expect(slabs.memory).toBeLessThan(full / 10 + 20 * 64 * 1024);
  for (const one of left) slabs.release(one);
  expect([slabs.inUse, slabs.memory <= 17 * 64 * 1024]).toEqual([0, true]);
});

test('a slot is seldom more than an eighth larger than what lies in it; only the largest are more', () => {
  const slabs = new Slabs();
  for (let size = 100; size <= MAX_SLOT; size += 7) {
    const slot = slabs.slotSize(size);
    expect(slot).toBeGreaterThanOrEqual(size);
    if (size >= 128) expect(slot / size, `${size}`).toBeLessThan(size < 4_096 ? 1.15 : 1.35);
  }
  expect(slabs.slotSize(MAX_SLOT + 1)).toBe(0);
});

test('a page serves another size once it is empty', () => {
  const slabs = new Slabs();
  const small = Array.from({ length: 400 }, (_, i) => lodger(slabs, 300, i % 251));
  const before = slabs.memory;
  for (const one of small) slabs.release(one);
  Array.from({ length: 50 }, (_, i) => lodger(slabs, 1_200, i));
  expect(slabs.memory).toBe(before);
});
