// How often something has been asked for lately, for very many things in little memory: TinyLFU's count-min sketch (Einziger, Friedman and Manes,
// "TinyLFU: A Highly Efficient Cache Admission Policy", 2017). Four counters of four bits a thing; all are halved from time to time, so that what was
// popular once does not stay so for ever.

/** Counters go up to here. */
const MOST = 15;
/** All counters are halved after so many times as many calls as there are things. */
const SAMPLE = 10;

export class FrequencySketch {
  /** Two counters a byte, four rows in one array. */
  private readonly counters: Uint8Array;
  private readonly mask: number;
  private readonly sample: number;
  private seenSince = 0;

  /** For so many things at once; the sketch takes two to four bytes each. */
  constructor(things: number) {
    const row = 2 ** Math.ceil(Math.log2(Math.max(64, things)));
    this.counters = new Uint8Array(row * 2);
    this.mask = row - 1;
    this.sample = SAMPLE * row;
  }

  /** It was asked for. `hash`: any 32 bits that belong to it. */
  seen(hash: number): void {
    let grew = false;
    for (let row = 0; row < 4; row++) {
      const at = this.place(hash, row);
      const shift = (at & 1) << 2;
      const byte = this.counters[at >> 1]!;
      if (((byte >> shift) & MOST) === MOST) continue;
      this.counters[at >> 1] = byte + (1 << shift);
      grew = true;
    }
    if (grew && ++this.seenSince >= this.sample) this.halve();
  }

  /** How often, up to 15: never less than it was (since the last halving), seldom more. */
  estimate(hash: number): number {
    let least = MOST;
    for (let row = 0; row < 4; row++) {
      const at = this.place(hash, row);
      least = Math.min(least, (this.counters[at >> 1]! >> ((at & 1) << 2)) & MOST);
    }
    return least;
  }

  private place(hash: number, row: number): number {
    let mixed = Math.imul(hash ^ SEEDS[row]!, 0x85eb_ca6b);
    mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2_ae35);
    return row * (this.mask + 1) + ((mixed ^ (mixed >>> 16)) & this.mask);
  }

  private halve(): void {
    const { counters } = this;
    for (let i = 0; i < counters.length; i++) counters[i] = (counters[i]! >> 1) & 0x77;
    this.seenSince >>= 1;
  }
}

const SEEDS = [0x9e37_79b9, 0x7f4a_7c15, 0xf39c_c060, 0x5ced_c834] as const;
