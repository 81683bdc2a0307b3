// What is being asked for behind hits (RFC 5861 §3), so that it is not asked for behind each of them. By its place in the store: what lies on the disk is
// another object with each lookup.
import type { EpochMilliseconds, Milliseconds } from '../../shared/units.ts';
import type { Entry } from './store.ts';

/** What is asked for behind a hit is not asked for again for so long. */
const AGAIN_AFTER: Milliseconds = 30_000;
/** Beyond so many the oldest is forgotten, and may be asked for twice. */
const REMEMBERED = 1_000;

type Place = Pick<Entry, 'url' | 'space' | 'selection'>;

export class Refreshing {
  private readonly since = new Map<string, EpochMilliseconds>();

  /** Whether it is to be asked for now; it then counts as being asked for. */
  begins(place: Place, now: EpochMilliseconds): boolean {
    const since = this.since.get(keyOf(place));
    // A clock that has been set back tells nothing.
    if (since !== undefined && now >= since && now - since < AGAIN_AFTER) return false;
    this.goesOn(place, now);
    return true;
  }

  /** Its answer is coming. */
  goesOn(place: Place, now: EpochMilliseconds): void {
    const key = keyOf(place);
    this.since.delete(key);
    if (this.since.size >= REMEMBERED) this.since.delete(this.since.keys().next().value!);
    this.since.set(key, now);
  }

  ended(place: Place): void {
    this.since.delete(keyOf(place));
  }
}

function keyOf({ url, space, selection }: Place): string {
  return selection === null ? `${url}\n${space}` : JSON.stringify([url, space, selection]);
}
