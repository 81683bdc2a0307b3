// Replays made traces through policies of admission and eviction, and says what part of requests and of bytes each would have answered.
// `node test/trace/replay.ts [--requests N]` prints the tables of docs/cache.md.
import { parseArgs } from 'node:util';
import type { Bytes } from '../../shared/units.ts';
import { MiB } from '../../shared/units.ts';
import { type MakePolicy, lru, POLICIES } from './policies.ts';
import { behindBrowsers, browsingTrace, scanTrace, type Trace, zipfTrace } from './traces.ts';

export interface Rates {
  /** Of requests, 0 to 1. */
  readonly hits: number;
  /** Of their bytes. */
  readonly bytes: number;
}

/** What a cache of this capacity answers. The first fifth only warms it. `partitioned`: each site has copies of its own. */
export function replay(trace: Trace, make: MakePolicy, capacity: Bytes, partitioned = false): Rates {
  const policy = make(capacity);
  const { object, size, site } = trace;
  const from = Math.floor(object.length / 5);
  let [hits, bytesHit, bytes] = [0, 0, 0];
  const keys = partitioned ? new Map<number, number>() : null;
  for (let i = 0; i < object.length; i++) {
    const which = object[i]!;
    let key = which;
    if (keys !== null) {
      const own = site[i]! * size.length + which;
      key = keys.get(own) ?? keys.set(own, keys.size).size - 1;
    }
    const hit = policy.ask(key, size[which]!);
    if (i < from) continue;
    bytes += size[which]!;
    if (!hit) continue;
    hits++;
    bytesHit += size[which]!;
  }
  return { hits: hits / (object.length - from), bytes: bytesHit / bytes };
}

const CAPACITIES = [16, 64, 256, 1024].map(one => one * MiB);
const percent = (part: number) => (100 * part).toFixed(1);

function tables(requests: number): void {
  const browsing = browsingTrace(requests);
  const household = behindBrowsers(browsingTrace(3 * requests), lru, 3, 256 * MiB);
  for (const trace of [zipfTrace(requests), scanTrace(requests), browsing, household]) {
    const total = trace.size.reduce((sum, one) => sum + one, 0) / MiB;
    console.log(
      `\n${trace.name}: ${trace.object.length} requests for ${trace.size.length} objects of ${Math.round(total)} MiB\n`,
    );
    console.log(
      `| hit rate / byte hit rate, % | ${CAPACITIES.map(one => `${one / MiB} MiB`).join(' | ')} | without bound |`,
    );
    console.log(`| --- |${' --- |'.repeat(CAPACITIES.length + 1)}`);
    for (const [name, make] of Object.entries(POLICIES)) {
      const cells = [...CAPACITIES, 2 ** 50].map(capacity => {
        // A policy that never has to choose is any policy.
        const { hits, bytes } = replay(trace, capacity < 2 ** 50 ? make : lru, capacity);
        return `${percent(hits)} / ${percent(bytes)}`;
      });
      console.log(`| ${name} | ${cells.join(' | ')} |`);
    }
    if (!trace.name.startsWith('browsing')) continue;
    for (const partitioned of [true, false]) {
      const cells = [...CAPACITIES, 2 ** 50].map(capacity => {
        const { hits, bytes } = replay(trace, lru, capacity, partitioned);
        return `${percent(hits)} / ${percent(bytes)}`;
      });
      console.log(`| LRU, partition: ${partitioned ? 'site' : 'none'} | ${cells.join(' | ')} |`);
    }
  }
}

if (import.meta.main) {
  const { values } = parseArgs({ options: { requests: { type: 'string', default: '1000000' } } });
  tables(Number(values.requests));
}
