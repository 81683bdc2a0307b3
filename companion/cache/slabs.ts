// Memory for many small answers outside of the JavaScript heap, where the collector would look at each again and again and every string has a head of
// its own. Pages of one size are cut into slots of one size class each; a page that has become empty serves any class again, and where free slots of a
// class would fill a page, its emptiest page is moved together. Whoever has a slot is told where it is now, so nobody may keep a view of it.
import type { Bytes } from '../../shared/units.ts';

/** What a page is. */
const PAGE: Bytes = 64 * 1024;
/** Pages are cut from blocks: so large ones the system gives and takes back by themselves, and nothing short-lived lies between them. */
const BLOCK: Bytes = 16 * PAGE;
/** The largest slot. */
export const MAX_SLOT: Bytes = PAGE / 3 - ((PAGE / 3) % 8);
/** The smallest slot; each power of two above it is cut into so many classes, so that little is lost. */
const MIN_SLOT: Bytes = 128;
const STEPS = 16;
/** Empty pages that are kept for what comes next. */
const SPARE_PAGES = 16;

/** Whoever has a slot. */
export interface Tenant {
  page: Page | null;
  slot: number;
}

interface SizeClass {
  readonly size: Bytes;
  readonly slots: number;
  /** Pages with a free slot. */
  readonly open: Page[];
  pages: number;
  free: number;
}

/** A page of slots. `bytes` and `halves` are the same memory. */
export interface Page {
  readonly slabs: Slabs;
  readonly bytes: Buffer;
  readonly halves: Uint16Array;
  sizeClass: SizeClass;
  tenants: (Tenant | null)[];
  /** Slots that are free, the next one last. */
  free: number[];
  /** Its place among those of its class with a free slot; -1: it has none. */
  openAt: number;
}

const SIZES: readonly Bytes[] = sizesOfClasses();

function sizesOfClasses(): Bytes[] {
  const sizes: Bytes[] = [];
  for (let base = MIN_SLOT; ; base *= 2) {
    for (let step = 0; step < STEPS; step++) {
      const size = base + (base / STEPS) * step;
      // As large as so many of a page can be: nothing is left over at its end.
      const fitted = Math.floor(PAGE / Math.floor(PAGE / size) / 8) * 8;
      if (fitted > MAX_SLOT) return sizes.at(-1) === MAX_SLOT ? sizes : [...sizes, MAX_SLOT];
      if (fitted > (sizes.at(-1) ?? 0)) sizes.push(fitted);
    }
  }
}

export class Slabs {
  private readonly classes: (SizeClass | undefined)[] = [];
  private readonly spare: Page[] = [];
  /** What pages are being cut from. */
  private block: ArrayBuffer | null = null;
  private cut: Bytes = 0;
  private used: Bytes = 0;
  private pages = 0;

  /** What the pages take, with their free slots. */
  get memory(): Bytes {
    return this.pages * PAGE;
  }

  /** What the slots in use take. */
  get inUse(): Bytes {
    return this.used;
  }

  /** The size of the slot that so many bytes would have; 0: they are too many. */
  slotSize(size: Bytes): Bytes {
    return size > MAX_SLOT ? 0 : SIZES[classOf(size)]!;
  }

  /** Gives the tenant a slot of at least `size` bytes: its page, and the offset in it as `offsetOf` says. `size` at most MAX_SLOT. */
  rent(tenant: Tenant, size: Bytes): void {
    const index = classOf(size);
    const sizeClass = (this.classes[index] ??= {
      size: SIZES[index]!,
      slots: Math.floor(PAGE / SIZES[index]!),
      open: [],
      pages: 0,
      free: 0,
    });
    this.place(tenant, sizeClass.open.at(-1) ?? this.newPage(sizeClass));
    sizeClass.free--;
    this.used += sizeClass.size;
  }

  /** The tenant's slot is free again. */
  release(tenant: Tenant): void {
    const { page, slot } = tenant;
    if (page === null) return;
    tenant.page = null;
    const { sizeClass } = page;
    this.used -= sizeClass.size;
    sizeClass.free++;
    this.vacate(page, slot);
    // So many free slots that a page can be spared, and some to go on with.
    if (sizeClass.free > sizeClass.slots + (sizeClass.slots >> 2) + 1) this.moveTogether(sizeClass);
  }

  private place(tenant: Tenant, page: Page): void {
    const slot = page.free.pop()!;
    page.tenants[slot] = tenant;
    tenant.page = page;
    tenant.slot = slot;
    if (page.free.length === 0) close(page);
  }

  private vacate(page: Page, slot: number): void {
    const { sizeClass } = page;
    page.tenants[slot] = null;
    page.free.push(slot);
    if (page.openAt === -1) page.openAt = sizeClass.open.push(page) - 1;
    if (page.free.length === sizeClass.slots) this.retire(page);
  }

  private newPage(sizeClass: SizeClass): Page {
    let page = this.spare.pop();
    if (page === undefined) {
      this.pages++;
      if (this.block === null || this.cut === this.block.byteLength) {
        this.block = new ArrayBuffer(BLOCK);
        this.cut = 0;
      }
      const bytes = Buffer.from(this.block, this.cut, PAGE);
      const halves = new Uint16Array(this.block, this.cut, PAGE / 2);
      this.cut += PAGE;
      page = { slabs: this, bytes, halves, sizeClass, tenants: [], free: [], openAt: -1 };
    }
    page.sizeClass = sizeClass;
    page.tenants = Array.from({ length: sizeClass.slots }, () => null);
    page.free = Array.from({ length: sizeClass.slots }, (_, i) => sizeClass.slots - 1 - i);
    page.openAt = sizeClass.open.push(page) - 1;
    sizeClass.pages++;
    sizeClass.free += sizeClass.slots;
    return page;
  }

  /** An empty page leaves its class. */
  private retire(page: Page): void {
    const { sizeClass } = page;
    close(page);
    sizeClass.pages--;
    sizeClass.free -= sizeClass.slots;
    if (this.spare.length < SPARE_PAGES) this.spare.push(page);
    else this.pages--;
  }

  /** The tenants of the emptiest page move into the others of its class. */
  private moveTogether(sizeClass: SizeClass): void {
    let emptiest: Page | null = null;
    for (const page of sizeClass.open) {
      if (emptiest === null || page.free.length > emptiest.free.length) emptiest = page;
    }
    if (emptiest === null) return;
    const { tenants, bytes } = emptiest;
    close(emptiest);
    const { size } = sizeClass;
    for (let slot = 0; slot < tenants.length; slot++) {
      const tenant = tenants[slot];
      if (tenant === null || tenant === undefined) continue;
      const to = sizeClass.open.at(-1);
      if (to === undefined) throw new Error('no room to move together');
      this.place(tenant, to);
      bytes.copy(to.bytes, tenant.slot * size, slot * size, (slot + 1) * size);
    }
    this.retire(emptiest);
  }
}

/** Where in its page a tenant's slot begins. */
export function offsetOf(tenant: Tenant): number {
  return tenant.slot * tenant.page!.sizeClass.size;
}

/** The page has no free slot to give, as far as its class goes. */
function close(page: Page): void {
  if (page.openAt === -1) return;
  const { open } = page.sizeClass;
  const last = open.pop()!;
  if (last !== page) {
    open[page.openAt] = last;
    last.openAt = page.openAt;
  }
  page.openAt = -1;
}

function classOf(size: Bytes): number {
  let low = 0;
  let high = SIZES.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (SIZES[middle]! < size) low = middle + 1;
    else high = middle;
  }
  return low;
}
