// What the browser's two dialects need of the matcher: for every host a rule names, what becomes of it and what becomes of its subdomains.
// Any other host shares all its matching rules with "a subdomain of its nearest named parent", so two verdicts a name say everything.
// Names are packed in strings: one string a top label, length and first character, names side by side without separators (each one
// character shorter, as the first is in the key). A look-up is a native search in one short string: nothing to split, nothing to keep.
import { isAddress } from '../endpoint.ts';
import { type CompiledMatcher, decide, decideAmong } from './decide.ts';
import type { Decision } from './rule.ts';

export const DIRECT = 0;
export const STEERED = 1;
export const BLOCKED = 2;
export type Verdict = typeof DIRECT | typeof STEERED | typeof BLOCKED;

/** Three times the verdict of the host itself, plus that of its subdomains. */
export type Code = number;

/** JSON data; the PAC and the table both carry it. */
export interface Verdicts {
  /** Code → bucket (see bucketOf) → names. */
  readonly names: Readonly<Record<Code, Readonly<Record<string, string>>>>;
  /** Single addresses that rules name, in normal form. */
  readonly addresses: Readonly<Record<string, Verdict>>;
  /** Address, prefix, verdict; the longest prefix first. */
  readonly ranges: readonly (readonly [address: string, prefix: number, verdict: Verdict])[];
}

/** A host cut into its last label and what stands before it ("@" where nothing does). */
export function splitTop(host: string): readonly [top: string, name: string] {
  const dot = host.lastIndexOf('.');
  return dot < 0 ? [host, '@'] : [host.slice(dot + 1), host.slice(0, dot)];
}

/** Key of the string that a name stands in. */
export function bucketOf(top: string, name: string): string {
  return `${top} ${name.length}${name[0]}`;
}

function verdictOf(decision: Decision): Verdict {
  return !decision.steered ? DIRECT : decision.blockedBy ? BLOCKED : STEERED;
}

/** Compiles the verdicts of every host and range that a rule names. Deterministic: the same rules give the same data. */
export function compileVerdicts(matcher: CompiledMatcher): Verdicts {
  const named = new Map<string, Code>();
  const addresses: Record<string, Verdict> = {};
  for (const map of [matcher.exact, matcher.suffix, matcher.subdomains]) {
    for (const host of map.keys()) {
      if (named.has(host)) continue;
      if (isAddress(host)) addresses[host] = verdictOf(decide(matcher, { host }));
      // "*" stands in no name, so this subdomain is named by no rule of its own.
      else
        named.set(host, 3 * verdictOf(decide(matcher, { host })) + verdictOf(decide(matcher, { host: `*.${host}` })));
    }
  }
  const buckets = new Map<Code, Map<string, string[]>>();
  for (const [host, code] of named) {
    if (isSaidByParent(named, host, code)) continue;
    const [top, name] = splitTop(host);
    let group = buckets.get(code);
    if (!group) buckets.set(code, (group = new Map()));
    const bucket = bucketOf(top, name);
    const there = group.get(bucket);
    if (there) there.push(name.slice(1));
    else group.set(bucket, [name.slice(1)]);
  }
  const names: Record<Code, Record<string, string>> = {};
  for (const code of [...buckets.keys()].sort()) {
    const group = buckets.get(code)!;
    names[code] = Object.fromEntries(
      [...group.keys()].sort().map(bucket => [bucket, group.get(bucket)!.sort().join('')]),
    );
  }
  const ranges = matcher.ranges.map(range => {
    const { address, prefix } = range.matcher;
    const around = matcher.ranges.filter(
      other =>
        other.matcher.address.includes(':') === address.includes(':') &&
        other.shift >= range.shift &&
        range.bits >> (other.shift - range.shift) === other.bits,
    );
    return [
      address,
      prefix,
      verdictOf(
        decideAmong(
          matcher,
          around.map(one => one.index),
        ),
      ),
    ] as const;
  });
  return { names, addresses, ranges: ranges.sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1)) };
}

/** Whether the nearest named parent (or, without one, the default) says the same of this host and of all below it. */
function isSaidByParent(named: ReadonlyMap<string, Code>, host: string, code: Code): boolean {
  for (let dot = host.indexOf('.'); dot >= 0; dot = host.indexOf('.', dot + 1)) {
    const parent = named.get(host.slice(dot + 1));
    if (parent !== undefined) return code === 4 * (parent % 3);
  }
  return code === 0;
}
