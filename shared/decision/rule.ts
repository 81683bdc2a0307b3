// The words of a decision: what a rule is made of, and what deciding gives back.

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
  | { readonly kind: 'cidr'; readonly address: string; readonly prefix: number };

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
  readonly entries: readonly ListEntry[];
}

export interface ListEntry {
  readonly matcher: Matcher;
  /** Line in the file, from 1. */
  readonly line: number;
  /** An exception line of the list (adblock `@@`), acting as allow. */
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
  readonly path?: string | undefined;
}
