// Traces of requests as a cache would see them: made, not recorded, from the same seed the same. Three kinds: popularity by Zipf alone, the same with a
// scan through what nobody asks for twice, and people who browse: sites, pages, what the pages of a site share, and what sites share.
import type { Bytes } from '../../shared/units.ts';
import { Random } from '../fuzz/random.ts';
import type { MakePolicy } from './policies.ts';

/** One request a place. An object keeps its size. */
export interface Trace {
  readonly name: string;
  /** Which object: a number of its own for each. */
  readonly object: Int32Array;
  /** The size of each object's answer, by its number. */
  readonly size: Int32Array;
  /** The site whose page asked. */
  readonly site: Int32Array;
}

/** Numbers from 0 to below `count`, the first the most likely: 1 / rank^exponent. */
export class Zipf {
  private readonly sums: Float64Array;

  constructor(count: number, exponent: number) {
    this.sums = new Float64Array(count);
    let sum = 0;
    for (let i = 0; i < count; i++) this.sums[i] = sum += (i + 1) ** -exponent;
  }

  draw(random: Random): number {
    const { sums } = this;
    const wanted = (random.below(2 ** 31) / 2 ** 31) * sums[sums.length - 1]!;
    let [low, high] = [0, sums.length - 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (sums[middle]! > wanted) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}

/**
 * A size as answers have them: most are some KiB, a few are MiB (a log-normal body with a Pareto tail, as measured of web objects again and again since
 * Barford and Crovella, 1998; median and mean are those of the HTTP Archive's reports: some 6 and 40 KiB).
 */
export function drawSize(random: Random): Bytes {
  const uniform = () => (random.below(2 ** 30) + 1) / 2 ** 30;
  if (random.oneIn(50)) return Math.min(64 * 1024 * 1024, Math.round(128 * 1024 * uniform() ** (-1 / 1.2)));
  const normal = Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
  return Math.max(64, Math.round(6 * 1024 * Math.exp(1.4 * normal)));
}

class Builder {
  readonly random = new Random();
  private readonly object: number[] = [];
  private readonly size: number[] = [];
  private readonly site: number[] = [];

  constructor(seed: number) {
    this.random.restart(seed, 0);
  }

  get length(): number {
    return this.object.length;
  }

  newObject(size = drawSize(this.random)): number {
    return this.size.push(size) - 1;
  }

  newObjects(count: number): number[] {
    return Array.from({ length: count }, () => this.newObject());
  }

  ask(object: number, site: number): void {
    this.object.push(object);
    this.site.push(site);
  }

  build(name: string): Trace {
    const { object, size, site } = this;
    return { name, object: Int32Array.from(object), size: Int32Array.from(size), site: Int32Array.from(site) };
  }
}

/** Every request by itself, as popular objects are. */
export function zipfTrace(requests: number, seed = 1): Trace {
  const builder = new Builder(seed);
  const objects = builder.newObjects(Math.ceil(requests / 8));
  const popularity = new Zipf(objects.length, 0.85);
  while (builder.length < requests) builder.ask(objects[popularity.draw(builder.random)]!, 0);
  return builder.build('Zipf 0.85');
}

/** The same, and four times a long row of objects that are asked for once: a gallery, a crawler, a backup. */
export function scanTrace(requests: number, seed = 2): Trace {
  const builder = new Builder(seed);
  const objects = builder.newObjects(Math.ceil(requests / 10));
  const popularity = new Zipf(objects.length, 0.85);
  const every = Math.ceil(requests / 4);
  while (builder.length < requests) {
    if (builder.length % every >= (every * 3) / 5) builder.ask(builder.newObject(), 1);
    else builder.ask(objects[popularity.draw(builder.random)]!, 0);
  }
  return builder.build('Zipf with scans');
}

interface Page {
  readonly objects: readonly number[];
}

interface Site {
  readonly shared: readonly number[];
  readonly pages: readonly Page[];
  readonly favourite: Zipf;
  /** What it takes from others: fonts, libraries, players. */
  readonly foreign: readonly number[];
}

/** What comes through when so many browsers, a session each in turn, have caches of their own in front. */
export function behindBrowsers(trace: Trace, make: MakePolicy, browsers: number, capacity: Bytes): Trace {
  const caches = Array.from({ length: browsers }, () => make(capacity));
  const [object, site]: [number[], number[]] = [[], []];
  let turn = 0;
  for (let i = 0; i < trace.object.length; i++) {
    if (i > 0 && trace.site[i] !== trace.site[i - 1]) turn = (turn * 5 + trace.site[i]! + 1) % browsers;
    const which = trace.object[i]!;
    if (caches[turn]!.ask(which, trace.size[which]!)) continue;
    object.push(which);
    site.push(trace.site[i]!);
  }
  const name = `${trace.name}, behind ${browsers} browsers with caches of their own`;
  return { name, object: Int32Array.from(object), size: trace.size, site: Int32Array.from(site) };
}

/** A household that browses: it returns to the sites it likes, reads some pages there, and now and then sees a site only once. */
export function browsingTrace(requests: number, seed = 3): Trace {
  const builder = new Builder(seed);
  const { random } = builder;
  const foreign = builder.newObjects(600);
  const known = new Zipf(foreign.length, 1);
  const newSite = (): Site => {
    const pages = 5 + random.below(60);
    return {
      shared: builder.newObjects(8 + random.below(30)),
      pages: Array.from({ length: pages }, () => ({ objects: builder.newObjects(3 + random.below(25)) })),
      favourite: new Zipf(pages, 0.9),
      foreign: Array.from({ length: 4 + random.below(12) }, () => foreign[known.draw(random)]!),
    };
  };
  const sites = Array.from({ length: 1_500 }, newSite);
  const liked = new Zipf(sites.length, 1);
  let strangers = sites.length;
  while (builder.length < requests) {
    const strange = random.oneIn(5);
    const number = strange ? strangers++ : liked.draw(random);
    const site = strange ? newSite() : sites[number]!;
    for (let pages = 1 + random.below(8); pages > 0; pages--) {
      const page = site.pages[site.favourite.draw(random)]!;
      for (const part of [site.shared, page.objects, site.foreign])
        for (const object of part) builder.ask(object, number);
      // A front page has something new on it each time.
      if (random.oneIn(2)) builder.ask(builder.newObject(), number);
    }
  }
  return builder.build('browsing');
}
