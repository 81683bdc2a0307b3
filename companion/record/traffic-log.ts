// The bounded recent past: the last exchanges in a ring, counters per site, and followers who never slow the walk down.
// It keeps and hands out; times and redaction belong to others.
import { LRUCache } from 'lru-cache';
import { couldBeCached, type Exchange, isFromCache, isHit, type SiteCounts } from '../../shared/exchange.ts';

/** Sites whose counters are kept; the one unseen for longest goes first. */
const COUNTED_SITES = 4_096;
/** Exchanges that wait for a slow follower; beyond it the oldest are dropped. */
const FOLLOWER_QUEUE = 1_000;

/** Takes exchanges in batches; the next batch waits until its promise is fulfilled. `missed` were dropped before this batch. */
export type Deliver = (batch: readonly Exchange[], missed: number) => void | Promise<void>;

/** Counters of a site that was never seen. */
export function noCounts(): SiteCounts {
  return { requests: 0, lookups: 0, cached: 0, blocked: 0, failed: 0, bytesUp: 0, bytesDown: 0, bytesSaved: 0 };
}

export class TrafficLog {
  private readonly ring: (Exchange | undefined)[];
  private written = 0;
  /** Open tunnels by id, with the place they have in the ring. */
  private readonly open = new Map<number, { exchange: Exchange; place: number }>();
  private readonly sites = new LRUCache<string, SiteCounts>({ max: COUNTED_SITES });
  private readonly all = noCounts();
  private readonly followers = new Set<Follower>();

  /** @param capacity exchanges remembered. */
  constructor(capacity: number) {
    this.ring = Array.from({ length: capacity });
  }

  /** A tunnel stands: it is shown from now on, and grows until `add` ends it. */
  opened(exchange: Exchange): void {
    this.open.set(exchange.id, { exchange, place: this.write(exchange) });
    this.tell({ ...exchange });
  }

  /** Bytes have gone through a tunnel that stands. */
  moved(exchange: Exchange): void {
    if (this.open.has(exchange.id)) this.tell({ ...exchange });
  }

  /** An exchange has ended. */
  add(exchange: Exchange): void {
    const known = this.open.get(exchange.id);
    if (known) this.open.delete(exchange.id);
    if (!known || known.place + this.ring.length <= this.written) this.write(exchange);
    let counts = this.sites.get(exchange.site);
    if (!counts) this.sites.set(exchange.site, (counts = noCounts()));
    count(counts, exchange);
    count(this.all, exchange);
    this.tell(exchange);
  }

  /** The last `most` exchanges, oldest first. */
  recent(most: number): Exchange[] {
    const { ring } = this;
    const kept = Math.min(most, this.written, ring.length);
    return Array.from({ length: kept }, (_, i) => ring[(this.written - kept + i) % ring.length]!);
  }

  /** Counters of a site (a registrable domain), its open tunnels among them. */
  counts(site: string): SiteCounts {
    const counts = { ...(this.sites.peek(site) ?? noCounts()) };
    for (const { exchange } of this.open.values()) if (exchange.site === site) count(counts, exchange);
    return counts;
  }

  /** Counters of everything that has ended. */
  totals(): SiteCounts {
    return { ...this.all };
  }

  /** Delivers the last `recent` exchanges and then all that follow, until the returned function is called. */
  follow(recent: number, deliver: Deliver): () => void {
    const follower = new Follower(deliver, this.recent(recent));
    this.followers.add(follower);
    return () => {
      this.followers.delete(follower);
      follower.stop();
    };
  }

  /** Changes how many exchanges are remembered; the latest stay. */
  resize(capacity: number): void {
    if (capacity === this.ring.length) return;
    const kept = this.recent(capacity);
    this.ring.length = 0;
    this.ring.length = capacity;
    this.written = 0;
    const opened = new Map([...this.open.values()].map(one => [one.exchange, one]));
    for (const one of opened.values()) one.place = -capacity;
    for (const exchange of kept) {
      const place = this.write(exchange);
      const one = opened.get(exchange);
      if (one) one.place = place;
    }
  }

  private write(exchange: Exchange): number {
    this.ring[this.written % this.ring.length] = exchange;
    return this.written++;
  }

  private tell(exchange: Exchange): void {
    for (const follower of this.followers) follower.take(exchange);
  }
}

function count(counts: SiteCounts, exchange: Exchange): void {
  counts.requests++;
  if (couldBeCached(exchange.cacheStatus)) counts.lookups++;
  if (isHit(exchange.cacheStatus)) counts.cached++;
  if (isFromCache(exchange.cacheStatus)) counts.bytesSaved += exchange.bytesDown;
  if (exchange.blockedBy) counts.blocked++;
  else if (exchange.fault !== undefined && exchange.fault !== 'downstream_gone') counts.failed++;
  counts.bytesUp += exchange.bytesUp;
  counts.bytesDown += exchange.bytesDown;
}

/** One who follows. What ends within one turn of the event loop comes as one batch. */
class Follower {
  private readonly deliver: Deliver;
  private queue: Exchange[];
  private missed = 0;
  private delivering = false;
  private stopped = false;

  constructor(deliver: Deliver, first: Exchange[]) {
    this.deliver = deliver;
    this.queue = first;
    if (first.length > 0) this.begin();
  }

  take(exchange: Exchange): void {
    if (this.queue.length >= FOLLOWER_QUEUE) {
      this.queue.splice(0, FOLLOWER_QUEUE / 2);
      this.missed += FOLLOWER_QUEUE / 2;
    }
    this.queue.push(exchange);
    this.begin();
  }

  stop(): void {
    this.stopped = true;
    this.queue = [];
  }

  private begin(): void {
    if (this.delivering) return;
    this.delivering = true;
    setImmediate(() => void this.run());
  }

  private async run(): Promise<void> {
    try {
      while (this.queue.length > 0 && !this.stopped) {
        const batch = this.queue;
        const missed = this.missed;
        this.queue = [];
        this.missed = 0;
        await this.deliver(batch, missed);
      }
    } catch {
      this.stop(); // A follower that fails is one that has gone.
    } finally {
      this.delivering = false;
    }
  }
}
