// The words of a decision: what a rule is made of, and what deciding gives back.
import type { RuleTable } from './rule-table.ts';

export type RouteName = string;
/** off: lists do not block here; standard: block lists apply. (strict is reserved.) */
export type FilterLevel = 'off' | 'standard' | 'strict';
/**
 * off: nothing is looked up or stored; standard: RFC 9111; aggressive: what may be kept is fresh for longer, reloads or not; offline-first: what is
 * stored is served at any age, and asked for behind it.
 */
export type CacheMode = 'off' | 'standard' | 'aggressive' | 'offline-first';

/** What a rule looks at. Hosts are in normal form (shared/endpoint.ts). */
export type Matcher =
  | { readonly kind: 'exact'; readonly host: string }
  /** The host and its subdomains: what a bare domain means. */
  | { readonly kind: 'suffix'; readonly host: string }
  /** Its subdomains only: `.example.com`. */
  | { readonly kind: 'subdomains'; readonly host: string }
  /** An address range; matches where the URL's host is an address. `address` is in normal form. */
  | { readonly kind: 'cidr'; readonly address: string; readonly prefix: number }
  /** Every name that has this text in it, in small letters. Addresses have no name. */
  | { readonly kind: 'keyword'; readonly text: string }
  /** Every name in which this expression is found (see name-regex.ts). */
  | { readonly kind: 'regex'; readonly source: string };

/** What has to hold beside the host. What is not known of a target does not hold. */
export interface Condition {
  readonly ports?: readonly { readonly from: number; readonly to: number }[] | undefined;
  /** The beginning of the path. */
  readonly path?: string | undefined;
  readonly times?: readonly TimeSpan[] | undefined;
  /** Of an address range: names that lead there count, too, where the companion finds that out. */
  readonly resolved?: boolean | undefined;
  /** In a tunnel nobody sees a path: the rule then counts for the whole host. */
  readonly wholeHost?: boolean | undefined;
}

/** Of the local week. Where `to` is not after `from`, it ends on the next day. */
export interface TimeSpan {
  /** Bit 0 is Sunday: the days on which it begins. */
  readonly days: number;
  /** Minutes of the day; `to` is not part of it. */
  readonly from: number;
  readonly to: number;
}

/** What a rule does with what it matches. */
export type Action =
  /** Send it by this route. */
  | {
      readonly do: 'route';
      readonly route: RouteName;
      readonly filter: FilterLevel;
      readonly cache: CacheMode;
      readonly inspect: boolean;
      /** Its pages may reach this machine and its network; absent: they may not. */
      readonly local?: true | undefined;
    }
  /** Not steered: the browser goes its own way. */
  | { readonly do: 'off' }
  | { readonly do: 'block' }
  /** Lets through what a block rule or list of lesser rank would stop; says nothing of steering. */
  | { readonly do: 'allow' };

/** One hand-written rule (from sites or rules). */
export interface Rule {
  readonly matcher: Matcher;
  readonly when?: Condition | undefined;
  readonly action: Action;
  /** Given by hand; smaller wins. Absent: by how specific the matcher is. */
  readonly rank?: number | undefined;
  /** Where it stands: `sites.example.com`, `rules[3]`. */
  readonly id: string;
}

/** A list file's content, already parsed: many hosts, one action. */
export interface RuleList {
  readonly action: Action;
  readonly rank?: number | undefined;
  /** The file's name as written in the configuration. */
  readonly name: string;
  /** `lists[0]`. */
  readonly id: string;
  readonly table: RuleTable;
}

export interface ListEntry {
  readonly matcher: Matcher;
  readonly when?: Condition | undefined;
  /** Line in the file, from 1. */
  readonly line: number;
  /** An exception of the list (`@@`): acts as allow in a list that blocks, as off in one that routes. */
  readonly allow?: boolean | undefined;
}

/** Everything the one matcher is compiled from, in file order: sites, then rules, then lists. */
export interface RuleSource {
  readonly rules: readonly Rule[];
  readonly lists: readonly RuleList[];
}

/** Why a decision fell as it did, in words that lead a person to the line. */
export interface Because {
  /** `sites.example.com`, `rules[3]`, `lists[0]`, or `default`. */
  readonly rule: string;
  /** The matcher as written, or for a list its line. */
  readonly text?: string | undefined;
  readonly list?: string | undefined;
  readonly line?: number | undefined;
}

export type Decision =
  | { readonly steered: false; readonly because: Because }
  | {
      readonly steered: true;
      /** `block` when blockedBy is set. */
      readonly route: RouteName;
      readonly filter: FilterLevel;
      readonly cache: CacheMode;
      readonly inspect: boolean;
      readonly local?: true | undefined;
      readonly because: Because;
      readonly blockedBy?: Because | undefined;
      /** The allow rule that overruled a block, when one did. */
      readonly allowedBy?: Because | undefined;
    };

/** What is asked for, as far as a dialect can see it. `host` in normal form. */
export interface DecisionTarget {
  readonly scheme: string;
  readonly host: string;
  readonly port: number;
  /** Absent in a tunnel. */
  readonly path?: string | undefined;
  /** Of a name, where it has been looked up. */
  readonly addresses?: readonly string[] | undefined;
  /** Minute of the local week, from Sunday 00:00; needed only where a rule looks at the time. */
  readonly minute?: number | undefined;
}
