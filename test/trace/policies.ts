// Ways to decide what stays, each as a cache of keys and sizes without bodies. LRU is the product's own library; the others are as in their papers.
import { LRUCache } from 'lru-cache';
import { FrequencySketch } from '../../companion/cache/frequency-sketch.ts';
import type { Bytes } from '../../shared/units.ts';

export interface Policy {
  /** Asks for a key: whether it is there. Where it is not, it is offered. */
  ask(key: number, size: Bytes): boolean;
}

export type MakePolicy = (capacity: Bytes) => Policy;

/** The least recently used goes. */
export const lru: MakePolicy = capacity => {
  const kept = new LRUCache<number, Bytes>({ maxSize: capacity, sizeCalculation: size => size });
  return {
    ask(key, size) {
      if (kept.get(key) !== undefined) return true;
      kept.set(key, size);
      return false;
    },
  };
};

/**
 * W-TinyLFU (Einziger, Friedman and Manes, 2017): a part of the room is LRU without a door, for what is new and soon asked for again. From there a thing
 * comes into the rest only where it has been asked for more often than each of those who would have to go for it (by their sizes, until there is room:
 * "early victims" in Einziger et al., Lightweight robust size aware cache management, 2021).
 */
export const windowTinyLfu =
  (share: number): MakePolicy =>
  capacity =>
    windowed(capacity, share);

function windowed(capacity: Bytes, share: number): Policy {
  const sketch = new FrequencySketch(Math.max(1024, Math.ceil(capacity / 8_192)));
  const most = Math.floor(capacity * (1 - share));
  const main = new LRUCache<number, Bytes>({ maxSize: most, sizeCalculation: size => size });
  const admit = (key: number, size: Bytes): void => {
    if (size > most) return;
    let room = most - main.calculatedSize;
    if (room < size) {
      const frequency = sketch.estimate(key);
      for (const [victim, held] of main.rentries() as Iterable<[number, Bytes]>) {
        if (sketch.estimate(victim) >= frequency) return;
        if ((room += held) >= size) break;
      }
    }
    main.set(key, size);
  };
  const window = new LRUCache<number, Bytes>({
    maxSize: Math.ceil(capacity * share),
    sizeCalculation: size => size,
    dispose: (size, key, reason) => {
      if (reason === 'evict') admit(key, size);
    },
  });
  return {
    ask(key, size) {
      sketch.seen(key);
      if (window.get(key) !== undefined || main.get(key) !== undefined) return true;
      if (size > capacity * share) admit(key, size);
      else window.set(key, size);
      return false;
    },
  };
}

/** Two queues, both least recently used first: who was never asked for again goes first, as long as they have more than a fifth of the room. */
export const twoQueues: MakePolicy = capacity => {
  const once = new Map<number, Bytes>();
  const again = new Map<number, Bytes>();
  let [onceSize, againSize] = [0, 0];
  return {
    ask(key, size) {
      if (once.delete(key)) {
        onceSize -= size;
        again.set(key, size);
        againSize += size;
        return true;
      }
      if (again.delete(key)) {
        again.set(key, size);
        return true;
      }
      if (size > capacity) return false;
      while (onceSize + againSize + size > capacity) {
        const fromOnce = again.size === 0 || onceSize > capacity / 5;
        const queue = fromOnce ? once : again;
        const [victim, held] = queue.entries().next().value!;
        queue.delete(victim);
        if (fromOnce) onceSize -= held;
        else againSize -= held;
      }
      once.set(key, size);
      onceSize += size;
      return false;
    },
  };
};

/** S3-FIFO (Yang et al., 2023): a small queue for what is new, a large one for what was asked for again, and the ghosts of the small one. */
export const s3Fifo: MakePolicy = capacity => {
  const small = new Map<number, Bytes>();
  const main = new Map<number, Bytes>();
  const ghosts = new Map<number, true>();
  const hits = new Map<number, number>();
  const used = { small: 0, main: 0 };
  const toMain = (key: number, size: Bytes): void => {
    main.set(key, size);
    used.main += size;
  };
  const evictSmall = (): void => {
    const [key, size] = small.entries().next().value!;
    small.delete(key);
    used.small -= size;
    if ((hits.get(key) ?? 0) > 0) {
      hits.set(key, 0);
      toMain(key, size);
      return;
    }
    hits.delete(key);
    ghosts.set(key, true);
    if (ghosts.size > main.size + 1_000) ghosts.delete(ghosts.keys().next().value!);
  };
  const evictMain = (): void => {
    const [key, size] = main.entries().next().value!;
    main.delete(key);
    const more = hits.get(key) ?? 0;
    if (more > 0) {
      hits.set(key, more - 1);
      main.set(key, size);
      return;
    }
    used.main -= size;
    hits.delete(key);
  };
  return {
    ask(key, size) {
      if (small.has(key) || main.has(key)) {
        hits.set(key, Math.min(3, (hits.get(key) ?? 0) + 1));
        return true;
      }
      if (size > capacity) return false;
      while (used.small + used.main + size > capacity) {
        if (small.size > 0 && (used.small > capacity / 10 || main.size === 0)) evictSmall();
        else evictMain();
      }
      hits.set(key, 0);
      if (ghosts.delete(key)) toMain(key, size);
      else {
        small.set(key, size);
        used.small += size;
      }
      return false;
    },
  };
};

/** SIEVE (Zhang et al., 2024): one queue and a hand that passes over what was asked for since it came by. */
export const sieve: MakePolicy = capacity => {
  interface Node {
    readonly key: number;
    readonly size: Bytes;
    visited: boolean;
    older: Node | null;
    newer: Node | null;
  }
  const nodes = new Map<number, Node>();
  let newest: Node | null = null;
  let oldest: Node | null = null;
  let hand: Node | null = null;
  const room = { used: 0 };
  const evict = (): void => {
    let node = hand ?? oldest!;
    while (node.visited) {
      node.visited = false;
      node = node.newer ?? oldest!;
    }
    hand = node.newer;
    if (node.newer === null) newest = node.older;
    else node.newer.older = node.older;
    if (node.older === null) oldest = node.newer;
    else node.older.newer = node.newer;
    nodes.delete(node.key);
    room.used -= node.size;
  };
  return {
    ask(key, size) {
      const found = nodes.get(key);
      if (found) {
        found.visited = true;
        return true;
      }
      if (size > capacity) return false;
      while (room.used + size > capacity) evict();
      const node: Node = { key, size, visited: false, older: newest, newer: null };
      if (newest !== null) newest.newer = node;
      newest = node;
      oldest ??= node;
      nodes.set(key, node);
      room.used += size;
      return false;
    },
  };
};

export const POLICIES: Readonly<Record<string, MakePolicy>> = {
  LRU: lru,
  'W-TinyLFU, window 1 %': windowTinyLfu(0.01),
  'W-TinyLFU, window 20 %': windowTinyLfu(0.2),
  'two queues': twoQueues,
  'S3-FIFO': s3Fifo,
  SIEVE: sieve,
};
