// The words that the schema of the file is written in: text, sizes, times, ports, hosts, maps of named entries, and what each says when it is not that.
import * as v from 'valibot';
import { parseMatcher } from '../decision/parse-matcher.ts';
import { type Endpoint, isAddress, normalizeHost, parseEndpoint, parsePort } from '../endpoint.ts';
import { type Bytes, GiB, KiB, MiB } from '../units.ts';

/** So many times a sentence asks "did you mean", which costs more than to say no. */
export const MAX_HINTS = 20;

export const described = <T extends v.GenericSchema>(schema: T, text: string) => v.pipe(schema, v.description(text));

export const isMap = (input: unknown): input is Record<string, unknown> =>
  typeof input === 'object' && input !== null && !Array.isArray(input);

/** Takes a complaint about the whole file; `keys` are the way to what it is about (its value, or its key). */
export type Complain = (message: string, origin: 'key' | 'value', ...keys: [string, ...(string | number)[]]) => void;

/** A map of exactly these keys. (valibot's strictObject tells of one unknown key only, and takes a list for a map.) */
export const strict = <E extends v.ObjectEntries>(
  entries: E,
  otherwise = 'is not a map: write its keys below it, one a line',
) =>
  v.pipe(
    v.custom<Record<string, unknown>>(isMap, otherwise),
    v.looseObject(entries, issue => `needs ${String(issue.path?.at(-1)?.key)}`),
    v.rawCheck(({ dataset, addIssue }) => {
      const input = dataset.value as Record<string, unknown>;
      let unknown = 0;
      for (const key in input) {
        if (Object.hasOwn(entries, key)) continue;
        if (++unknown > MAX_HINTS) break;
        const meant = nearest(key, Object.keys(entries));
        addIssue({
          message: `unknown key "${key}"${meant === null ? '' : ` (did you mean ${meant}?)`}`,
          path: [{ type: 'object', origin: 'key', input, key, value: input[key] }],
        });
      }
    }),
  ) as unknown as v.GenericSchema<unknown, v.InferOutput<v.ObjectSchema<E, undefined>>>;

/** The candidate that differs from `word` by a slip of the fingers, or null. */
export function nearest(word: string, candidates: readonly string[]): string | null {
  if (word.length < 3 || word.length > 40) return null;
  let best: string | null = null;
  let least = Math.max(1, Math.floor(word.length / 3)) + 1;
  for (const candidate of candidates) {
    const distance = editDistance(word.toLowerCase(), candidate.toLowerCase());
    if (distance < least) [best, least] = [candidate, distance];
  }
  return best;
}

// Levenshtein's, with two neighbours swapped counted as one slip.
function editDistance(a: string, b: string): number {
  let before: number[] = [];
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      let cost = Math.min(next[j - 1]! + 1, row[j]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1));
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) cost = Math.min(cost, before[j - 2]! + 1);
      next.push(cost);
    }
    [before, row] = [row, next];
  }
  return row[b.length]!;
}

export const text = (otherwise = 'is not text: put it in quotes') => v.string(otherwise);
export const count = (least: number, most: number) =>
  v.pipe(
    v.number('is not a whole number'),
    v.safeInteger('is not a whole number'),
    v.minValue(least, `must be at least ${least}`),
    v.maxValue(most, `must be at most ${most}`),
  );

export const bytes = v.lazy(input =>
  typeof input === 'number'
    ? v.pipe(v.number(), v.safeInteger('is not a whole number of bytes'), v.minValue(0, 'is negative'))
    : v.pipe(
        v.string('is not a size: write a number of bytes or, for example, 64MiB'),
        v.rawTransform<string, Bytes>(({ dataset, addIssue, NEVER }) => {
          const match = /^(\d+(?:\.\d+)?)\s*(B|KiB|MiB|GiB|kB|KB|MB|GB)?$/.exec(dataset.value.trim());
          if (!match) {
            addIssue({ message: `"${dataset.value}" is not a size: write a number of bytes or, for example, 64MiB` });
            return NEVER;
          }
          const unit = { B: 1, KiB, MiB, GiB, kB: 1e3, KB: 1e3, MB: 1e6, GB: 1e9 }[match[2] ?? 'B']!;
          return Math.round(Number(match[1]) * unit);
        }),
      ),
);

export const processes = v.lazy(input =>
  typeof input === 'number' ? count(1, 64) : v.literal('auto', 'is neither a number of processes nor auto'),
) as v.GenericSchema<unknown, number | 'auto'>;

export const name = v.pipe(
  text(),
  v.regex(/^[\p{L}\p{N}_][\p{L}\p{N}_.-]{0,63}$/u, 'is not a name: letters, digits, "_", "-" and ".", at most 64'),
);

export const seconds = v.pipe(
  v.number('is not a number of seconds'),
  v.minValue(0.05, 'is too short'),
  v.maxValue(86_400, 'is longer than a day'),
);
export const port = v.pipe(
  v.number('is not a port number'),
  v.integer('is not a port number'),
  v.minValue(1, 'is not a port: ports go from 1 to 65535'),
  v.maxValue(65_535, 'is not a port: ports go from 1 to 65535'),
);
export const host = v.pipe(
  v.string('is not a host name or address'),
  v.rawTransform<string, string>(({ dataset, addIssue, NEVER }) => {
    const normal = normalizeHost(dataset.value);
    if (normal === null) {
      addIssue({ message: `"${dataset.value}" is not a host name or address` });
      return NEVER;
    }
    return normal;
  }),
);

export const endpoint = v.pipe(
  v.string('is not host:port'),
  v.rawTransform<string, Endpoint>(({ dataset, addIssue, NEVER }) => {
    const colon = dataset.value.lastIndexOf(':');
    const portText = dataset.value.slice(colon + 1);
    if (colon > 0 && portText === '0' && normalizeHost(dataset.value.slice(0, colon)) !== null) {
      return { host: normalizeHost(dataset.value.slice(0, colon))!, port: 0 };
    }
    const parsed = parseEndpoint(dataset.value);
    if (!parsed) {
      const what =
        colon > 0 && parsePort(portText) === null
          ? `"${portText}" is not a port: ports go from 1 to 65535`
          : `"${dataset.value}" is not host:port`;
      addIssue({ message: what });
      return NEVER;
    }
    return parsed;
  }),
);

export const credential = v.pipe(text(), v.maxBytes(255, 'is longer than 255 bytes'));

/** Neither a share of another machine nor a URL; a drive letter is no scheme. */
export const localPath = v.pipe(
  text(),
  v.nonEmpty('is empty'),
  v.check(path => !/^([\\/]{2}|[a-z][a-z0-9+.-]+:)/i.test(path), 'is not a path on this machine'),
);

/** Inclusive. */
export interface PortRange {
  readonly from: number;
  readonly to: number;
}

export const portRange = v.lazy(input =>
  typeof input === 'number'
    ? v.pipe(
        port,
        v.transform((n): PortRange => ({ from: n, to: n })),
      )
    : v.pipe(
        v.string('is not a port or a range like 1024-65535'),
        v.rawTransform<string, PortRange>(({ dataset, addIssue, NEVER }) => {
          const [a, b, more] = dataset.value.split('-').map(part => parsePort(part.trim()));
          const from = a ?? null;
          const to = b === undefined ? from : b;
          if (from === null || to === null || more !== undefined || from > to) {
            addIssue({ message: `"${dataset.value}" is not a port or a range like 1024-65535` });
            return NEVER;
          }
          return { from, to };
        }),
      ),
) as v.GenericSchema<unknown, PortRange>;

/** An address range in normal form. */
export interface Cidr {
  readonly address: string;
  readonly prefix: number;
}

export const cidr = v.pipe(
  v.string('is not an address range'),
  v.rawTransform<string, Cidr>(({ dataset, addIssue, NEVER }) => {
    const parsed = parseMatcher(dataset.value);
    if (typeof parsed === 'string' || (parsed.kind !== 'cidr' && !isAddress(parsed.host))) {
      addIssue({ message: `"${dataset.value}" is not an address range like 127.0.0.0/8` });
      return NEVER;
    }
    return parsed.kind === 'cidr'
      ? { address: parsed.address, prefix: parsed.prefix }
      : { address: parsed.host, prefix: parsed.host.includes(':') ? 128 : 32 };
  }),
);

/** A map of freely named entries, in file order. valibot's own record would drop the hosts `constructor` and `prototype` without a word. */
export const mapOf = <T>(key: v.GenericSchema<string, string>, value: v.GenericSchema<unknown, T>, what: string) => {
  const entry = v.record(key, value as v.GenericSchema<never, T>);
  const readEntries: (typeof entry)['~run'] = (dataset, config) => {
    const input = dataset.value as Record<string, unknown>;
    const entries: [string, unknown][] = [];
    const issues: v.BaseIssue<unknown>[] = [];
    let typed = true;
    for (const [written, inside] of Object.entries(input)) {
      const results = [key['~run']({ value: written }, config), value['~run']({ value: inside }, config)] as const;
      for (const [i, result] of results.entries()) {
        const item = { type: 'object', origin: i === 0 ? 'key' : 'value', input, key: written, value: inside } as const;
        for (const issue of result.issues ?? [])
          issues.push({ ...issue, path: [item, ...(i === 0 ? [] : (issue.path ?? []))] } as v.BaseIssue<unknown>);
        if (!result.typed) typed = false;
      }
      if (results[0].typed) entries.push([results[0].value, results[1].value]);
    }
    const read = { typed, value: Object.fromEntries(entries), issues: issues.length > 0 ? issues : undefined };
    return read as ReturnType<(typeof entry)['~run']>;
  };
  return v.pipe(v.custom<Record<string, unknown>>(isMap, `is not a map of ${what}`), {
    ...entry,
    '~run': readEntries,
  }) as unknown as v.GenericSchema<Record<string, unknown>, Record<string, T>>;
};

export const onOrOff = v.picklist(['on', 'off'], 'is not on or off');

export const file = v.pipe(text('is not a path'), v.nonEmpty('is empty'));

export const timeToLive = v.pipe(
  v.number('is not a number of seconds'),
  v.minValue(0, 'is negative'),
  v.maxValue(604_800, 'is longer than a week'),
);
