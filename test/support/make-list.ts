// A long list of made-up hosts, the same for the same seed. The mean length of a host is 14 characters, its last label included.

const TOPS = ['com', 'com', 'com', 'com', 'org', 'net', 'de', 'io', 'test', 'co.uk', 'info', 'fr'];
const LETTERS = 'etaoinshrdlucmfwypvbgkjqxz0123456789-';

/** So many different hosts (mulberry32). */
export function makeHosts(count: number, seed = 1): string[] {
  let state = seed;
  const random = () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  const hosts = new Set<string>();
  while (hosts.size < count) {
    const length = 6 + Math.floor(random() * 9);
    let name = '';
    for (let i = 0; i < length; i++) name += LETTERS[Math.floor(random() * (i === 0 || i === length - 1 ? 26 : 37))];
    hosts.add(`${name}.${TOPS[Math.floor(random() * TOPS.length)]}`);
  }
  return [...hosts];
}
