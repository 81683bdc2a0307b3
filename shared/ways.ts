// Hops and routes as the control link speaks of them: what goes out (never a password), what comes in as a wish to change the file, and what a test found.
// The keys of a form are those of the file; the file's own schema says what may stand in them.
import * as v from 'valibot';
import type { HopTrace } from './exchange.ts';
import type { FaultKind } from './fault.ts';
import type { EpochMilliseconds, Milliseconds } from './units.ts';

const short = v.pipe(v.string(), v.maxLength(300));
const path = v.pipe(v.string(), v.maxLength(4096));
const number = v.number();

/**
 * A hop as it shall be. What is not named leaves the file; but a password or passphrase that is absent stays as it is written (null: it goes), and so
 * does the value of a header that is null. Passwords are text here: one that comes from a command, the environment or a file is written by hand.
 */
export const HopForm = v.strictObject({
  kind: short,
  host: v.optional(short),
  port: v.optional(number),
  username: v.optional(short),
  password: v.optional(v.nullable(short)),
  auth: v.optional(short),
  form: v.optional(short),
  headers: v.optional(v.pipe(v.record(short, v.nullable(path)), v.maxEntries(32))),
  bind: v.optional(short),
  tls: v.optional(
    v.strictObject({
      ca: v.optional(path),
      cert: v.optional(path),
      key: v.optional(path),
      servername: v.optional(short),
      pin: v.optional(short),
    }),
  ),
  ssh: v.optional(
    v.strictObject({
      key: v.optional(path),
      passphrase: v.optional(v.nullable(short)),
      agent: v.optional(v.boolean()),
      knownHosts: v.optional(path),
      hostKey: v.optional(short),
    }),
  ),
  privacy: v.optional(number),
});
export type HopForm = v.InferOutput<typeof HopForm>;

/** A chain by the names of its hops, or the name of a route that stands in its place. */
const Member = v.union([v.pipe(v.array(short), v.maxLength(16)), short]);

/** A route as it shall be, whole: what is not named leaves the file. */
export const RouteForm = v.strictObject({
  chains: v.pipe(v.array(Member), v.maxLength(64)),
  pick: v.optional(short),
  tolerance: v.optional(number),
  else: v.optional(short),
  isolate: v.optional(short),
  private: v.optional(v.boolean()),
  floor: v.optional(v.strictObject({ privacy: v.optional(number), hops: v.optional(number) })),
  check: v.optional(
    v.strictObject({
      url: v.optional(path),
      status: v.optional(number),
      every: v.optional(number),
      jitter: v.optional(number),
    }),
  ),
  unknown: v.optional(short),
  refused: v.optional(short),
  buffer: v.optional(v.union([number, short])),
});
export type RouteForm = v.InferOutput<typeof RouteForm>;

/** Where a secret stands. */
export type SecretPlace = 'file' | 'elsewhere';

/** How a hop has fared lately, where it comes behind these others. */
export interface HopHealth {
  readonly behind: readonly string[];
  readonly state: 'up' | 'down' | 'probing';
  /** To connect and be let in; null: not known. */
  readonly latency: Milliseconds | null;
  /** Failures in a row. */
  readonly failures: number;
  /** Connections, the oldest first; `took` null: it failed. */
  readonly history: readonly {
    readonly at: EpochMilliseconds;
    readonly outcome: 'ok' | FaultKind;
    readonly took: Milliseconds | null;
  }[];
}

/** A hop of the file, without its secrets: those of `form` are absent, its headers have null for their values. */
export interface HopState {
  readonly name: string;
  readonly form: HopForm;
  /** The port it is reached at, also where the file leaves it to the kind. */
  readonly port: number;
  /** Null: it has none. `elsewhere`: a command, the environment or another file gives it. */
  readonly password: SecretPlace | null;
  readonly passphrase: SecretPlace | null;
  /** The routes that name it. */
  readonly usedBy: readonly string[];
  /** Of each place in a chain that anything is known of; by itself first. */
  readonly health: readonly HopHealth[];
}

/** How a chain has fared lately. */
export interface ChainHealth {
  readonly chain: readonly string[];
  readonly state: 'up' | 'down' | 'probing' | 'unknown';
  /** Until the chain stands; null: not known. */
  readonly latency: Milliseconds | null;
  /** Failures in a row. */
  readonly failures: number;
  /** The last one. */
  readonly failedAt?: EpochMilliseconds | undefined;
  readonly reason?: string | undefined;
  /** What `check` of the route found, the last time. */
  readonly check?:
    | {
        readonly at: EpochMilliseconds;
        readonly ok: boolean;
        readonly took: Milliseconds;
        readonly status?: number | undefined;
        /** The address that the answer says it was asked from. */
        readonly exit?: string | undefined;
        readonly reason?: string | undefined;
      }
    | undefined;
}

/** A chain that was chosen by hand: no other of its route is tried. */
export interface Pin {
  readonly chain: readonly string[];
  /** Null: until it is unpinned. */
  readonly until: EpochMilliseconds | null;
}

/** A route of the file. */
export interface RouteState {
  readonly name: string;
  readonly form: RouteForm;
  /** Every chain with those of the routes it names, in the order of the file; an empty one is the companion itself. */
  readonly chains: readonly (readonly string[])[];
  readonly pin: Pin | null;
  /** Of the chains that anything is known of. */
  readonly health: readonly ChainHealth[];
  /** The sites, routes, lists and settings that name it, as they stand in the file: `sites.example.com`; the first of them. */
  readonly usedBy: readonly string[];
}

export interface WaysState {
  /** Goes up with every change that is in force, as in ConfigState. */
  readonly revision: number;
  readonly hops: readonly HopState[];
  readonly routes: readonly RouteState[];
  /** The kinds of hop that the companion knows. */
  readonly kinds: readonly string[];
}

/** What a test of one chain found. */
export interface ChainTest {
  readonly chain: readonly string[];
  readonly outcome: 'ok' | FaultKind;
  /** Where it ended, as in Attempt. */
  readonly stage: string;
  /** The sentence of the fault. */
  readonly reason?: string | undefined;
  readonly hops: readonly HopTrace[];
  /** To the head of the answer; without a URL until the chain stood. */
  readonly took: Milliseconds;
  /** Of the answer of the check URL; absent where none was asked. */
  readonly status?: number | undefined;
  /** The address that the check URL says it was asked from, where it says one. */
  readonly exit?: string | undefined;
}

/** What a test of a hop or of the chains of a route found. */
export interface WaysTest {
  /** What was asked for; null: nothing, the chains were built and that is all. */
  readonly url: string | null;
  readonly chains: readonly ChainTest[];
}

/** How the `pick: auto` routes reach a site. */
export interface SiteWay {
  readonly site: string;
  readonly route: string;
  /** `direct`: the companion connects itself first; `chains`: the chains of the route come first. */
  readonly way: 'direct' | 'chains';
  /** Set by a person: it neither fades nor is corrected. */
  readonly byHand: boolean;
  readonly since: EpochMilliseconds;
  /** When it is forgotten unless it shows again; null: never. */
  readonly until: EpochMilliseconds | null;
  /** The sign of blocking that it was learnt from. */
  readonly sign?: string | undefined;
}
