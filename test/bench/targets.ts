// What the bench must show: a line for every figure that was promised, against whom, and by how much.

export interface Target {
  /** The row of the report that it is about. */
  readonly row: string;
  /** `best` is the best true peer of that row; others are named. `own` is another row of ours, `figure` nobody: the ratio is the figure itself. */
  readonly against: 'best' | 'squid' | 'trafficserver' | 'wall' | 'own' | 'figure';
  /** Ours divided by theirs: at least so much where more is better, at most where less is. */
  readonly ratio: number;
  /** The row of ours. */
  readonly own?: string;
  /** As it was promised. */
  readonly words: string;
}

/** Differences below this share are ties: a shared machine does not tell them. */
export const TIE = 0.15;

export const TARGETS: readonly Target[] = [
  { row: 'hit-1k', against: 'trafficserver', ratio: 1.8, words: 'hit-1k ≥ 1.8x trafficserver' },
  { row: 'hit-1k', against: 'squid', ratio: 2.3, words: 'hit-1k ≥ 2.3x squid' },
  { row: 'hit-many', against: 'trafficserver', ratio: 2, words: 'hits of 1,000 URLs ≥ 2x trafficserver' },
  {
    row: 'hit-304',
    against: 'own',
    own: 'hit-1k',
    ratio: 1,
    words: 'a hit that is a 304 no slower than one that is a 200',
  },
  { row: 'hit-1m', against: 'trafficserver', ratio: 0.8, words: 'hits of 1 MiB ≥ 0.8x trafficserver' },
  { row: 'hit-1m', against: 'squid', ratio: 5, words: 'hits of 1 MiB ≥ 5x squid' },
  { row: 'miss-1k', against: 'best', ratio: 1.4, words: 'miss-1k ≥ 1.4x best' },
  { row: 'miss-1k', against: 'squid', ratio: 2.3, words: 'miss-1k ≥ 2.3x squid' },
  { row: 'tunnel-down', against: 'best', ratio: 1.35, words: 'tunnel down ≥ 1.35x best' },
  {
    row: 'tunnel-up',
    against: 'best',
    ratio: 1.1,
    words: 'tunnel up ≥ 1.1x best with adopted handles, ≥ 0.7x on the fallback',
  },
  { row: 'tunnel-setups', against: 'best', ratio: 0.8, words: 'tunnel set-ups ≥ 0.8x best' },
  { row: 'tunnel-setups', against: 'squid', ratio: 1.05, words: 'tunnel set-ups ≥ 1.05x squid' },
  { row: 'hit-latency', against: 'trafficserver', ratio: 0.85, words: 'added p50 of a hit ≤ 0.85x trafficserver' },
  { row: 'hit-p99', against: 'trafficserver', ratio: 1, words: 'p99 of a hit ≤ 1x trafficserver' },
  { row: 'miss-latency', against: 'best', ratio: 1, words: 'added p50 of a miss ≤ 1x best' },
  { row: 'tunnel-latency', against: 'best', ratio: 1.15, words: 'added p50 of a round trip ≤ 1.15x best' },
  { row: 'connect-latency', against: 'best', ratio: 1.25, words: 'added p50 of a CONNECT ≤ 1.25x best' },
  { row: 'hit-1000', against: 'best', ratio: 2.2, words: '1,000 connections ≥ 2.2x best' },
  { row: 'hit-1000-p99', against: 'best', ratio: 1, words: '1,000 connections: p99 no worse' },
  { row: 'hit-4000', against: 'best', ratio: 2, words: '4,000 connections ≥ 2x best' },
  { row: 'hit-4000-p99', against: 'best', ratio: 1, words: '4,000 connections: p99 no worse' },
  { row: 'kept-memory', against: 'wall', ratio: 1.3, words: 'a kept answer of 1 KiB ≤ 1.3x the memory of the wall' },
  { row: 'kept-memory', against: 'figure', ratio: 2_600 / 1_024, words: 'a kept answer of 1 KiB ≤ 2.6 KB all told' },
  { row: 'idle-tunnel', against: 'squid', ratio: 0.65, words: 'an idle tunnel ≤ 0.65x the memory of squid' },
  { row: 'parent-miss', against: 'best', ratio: 1.3, words: 'miss through one http parent ≥ 1.3x best' },
  { row: 'parent-bulk', against: 'best', ratio: 1.3, words: 'bulk through one http parent ≥ 1.3x best' },
  { row: 'parent-setups', against: 'best', ratio: 0.75, words: 'set-ups through one http parent ≥ 0.75x best' },
  { row: 'socks-miss', against: 'best', ratio: 1.3, words: 'miss through one socks5 parent ≥ 1.3x best' },
  { row: 'socks-bulk', against: 'best', ratio: 2, words: 'bulk through one socks5 parent ≥ 2x best' },
  { row: 'socks-setups', against: 'best', ratio: 0.75, words: 'set-ups through one socks5 parent ≥ 0.75x best' },
  { row: 'fallback', against: 'figure', ratio: 1, words: "fallback ≤ 1 ms over the proxies' own answer times" },
  { row: 'fallback-connect', against: 'figure', ratio: 1, words: 'the same for CONNECT' },
  {
    row: 'first-served',
    against: 'wall',
    ratio: 1.4,
    words: 'start to first served request ≤ 1.4x a bare Node forwarder',
  },
  { row: 'first-served', against: 'squid', ratio: 1.6, words: 'start to first served request ≤ 1.6x squid' },
  { row: 'idle-memory', against: 'wall', ratio: 1.3, words: 'idle memory without lists ≤ 1.3x a bare Node forwarder' },
];
