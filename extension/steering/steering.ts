// What steers: one shape for both browsers. The adapters are pac-settings.ts (Chromium) and on-request.ts (Firefox).
import type { SavedSteering } from '../settings/settings.ts';

export interface SteeringAdapter {
  /** What the companion should compile for this browser. */
  readonly dialect: 'pac' | 'table';
  /** Steers by this from the next request on. Same hash, same setting: nothing is done. */
  apply(steering: SavedSteering): Promise<void>;
  /** The next `apply` sets everything again: what is there may be another version's. */
  anew?(): void;
  /** Takes back every setting made; the browser goes its own way, as before. */
  clear(): Promise<void>;
  /** Tells when someone else changes the proxy setting, and when the browser cannot use it (its own error text). */
  watch(told: { changed(): void; failed(error: string): void }): void;
  /** Who else holds the browser's proxy setting, in words; null when nobody does. */
  takenBy(): Promise<string | null>;
}
