// What was stored by older versions, made into what this one reads. Pure; each step has a test that holds a real old value.
import * as v from 'valibot';

export const SETTINGS_VERSION = 2;

export const Settings = v.object({
  version: v.literal(SETTINGS_VERSION),
  /** Where the companion listens, on this machine. */
  port: v.optional(v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(65_535)), 8228),
  /** Given by the companion when it was paired. */
  token: v.optional(v.nullable(v.string()), null),
  /** The person has said "Use these": nothing is steered before. */
  confirmed: v.optional(v.boolean(), false),
  /** The master switch. */
  master: v.optional(v.boolean(), true),
  /** Firefox: the companion's PAC in the proxy settings, with the listener as guard. */
  pacMode: v.optional(v.boolean(), false),
});
export type Settings = v.InferOutput<typeof Settings>;

export const DEFAULT_SETTINGS: Settings = v.parse(Settings, { version: SETTINGS_VERSION });

/**
 * Reads whatever is stored; nothing stored is the defaults: not paired, nothing steered. Throws for what cannot be read, as the saved steering must then
 * stay closed; but a master switch that says off is off, whatever else is broken.
 */
export function migrate(stored: unknown): Settings {
  let value = stored as Record<string, unknown> | undefined;
  // Version 1 (first builds) called the master switch `enabled`.
  if (value?.['version'] === 1) {
    const { enabled, ...rest } = value;
    value = { ...rest, version: 2, master: enabled !== false };
  }
  if (value === undefined) return DEFAULT_SETTINGS;
  const parsed = v.safeParse(Settings, value);
  if (parsed.success) return parsed.output;
  if (value?.['master'] === false) return { ...DEFAULT_SETTINGS, master: false };
  throw new Error('The stored settings cannot be read.');
}
