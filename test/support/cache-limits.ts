// The limits of a cache in a test: small, for one who asks alone, and else what the file says by itself.
import * as v from 'valibot';
import type { CacheLimits } from '../../companion/cache/cache.ts';
import { ConfigSchema } from '../../shared/config.ts';
import { KiB, MiB } from '../../shared/units.ts';

const SMALL = {
  ...v.parse(ConfigSchema, {}).cache,
  memory: MiB,
  entry: 64 * KiB,
  finish: 0,
  collapse: 'off',
  cookies: true,
} as const;

/** Memory for 1 MiB, bodies up to 64 KiB, nothing is shared while it comes; with `more` otherwise. */
export function cacheLimits(more: Partial<CacheLimits> = {}): CacheLimits {
  return { ...SMALL, ...more };
}
