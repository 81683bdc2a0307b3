// What the extension's own pages and its background say to each other.
import type { ClientRequest, Reply } from '../../shared/control.ts';
import type { CacheMode } from '../../shared/decision/rule.ts';
import type { SiteCounts } from '../../shared/exchange.ts';
import type { Snapshot } from '../settings/settings.ts';
import type { TabCounts } from '../tabs/tab-traffic.ts';

/** Name of the port by which a popup watches a tab. */
export const WATCH_PORT = 'watch-tab:';

/** How the tab in front of the person goes. */
export interface TabView {
  /** Empty where the page is none that could be steered. */
  readonly host: string;
  /** Registrable domain; the host itself until the companion has said. */
  readonly site: string;
  /** What the switch changes: the entry of the file that decides, or else the site. */
  readonly entry: string;
  /** Null while nobody knows. */
  readonly steered: boolean | null;
  readonly blocked: boolean;
  /** The route it goes by now, or null. */
  readonly route: string | null;
  /** Whether its pages may reach this machine and its network; null where nothing was taken from them. */
  readonly local: boolean | null;
  /** How its answers are cached; null where it is not steered. */
  readonly cache: CacheMode | null;
  /** Counters of the site since the companion's start; null until it has told. */
  readonly siteCounts: SiteCounts | null;
  /** Why, in the words of the file: `sites.example.com`. */
  readonly because: string | null;
  readonly counts: TabCounts;
}

/** Pushed to a popup whenever something changes. */
export interface View {
  readonly snapshot: Snapshot;
  readonly tab: TabView;
}

/** What the settings page asks of hops and routes; it goes to the companion as it is. */
export type WaysRequest = Extract<
  ClientRequest,
  {
    type:
      | 'ways'
      | 'test-route'
      | 'test-hop'
      | 'pin-route'
      | 'unpin-route'
      | 'site-ways'
      | 'set-site-way'
      | 'set-hop'
      | 'remove-hop'
      | 'rename-hop'
      | 'set-route'
      | 'remove-route'
      | 'rename-route';
  }
>;

/** Asked by a page; answered by `Answer`. */
export type Wish =
  | { readonly wish: 'pair'; readonly port: number; readonly code: string }
  | { readonly wish: 'use-these' }
  /** Route `off`: not steered, whatever a wider entry or a list says. Null: the entry leaves the file. */
  | { readonly wish: 'set-site'; readonly site: string; readonly route: string | null }
  /** Whether pages of a site that is on may reach this machine and its network. */
  | { readonly wish: 'set-local'; readonly site: string; readonly local: boolean }
  /** How the answers of a site that is on are cached. */
  | { readonly wish: 'set-cache'; readonly site: string; readonly mode: CacheMode }
  /** Forgets what is stored of a site. */
  | { readonly wish: 'clear-cache'; readonly site: string }
  | { readonly wish: 'ways'; readonly request: WaysRequest }
  | { readonly wish: 'master'; readonly on: boolean }
  | { readonly wish: 'pac-mode'; readonly on: boolean }
  | { readonly wish: 'port'; readonly port: number }
  /** Type a code again; what is steered stays closed until then. */
  | { readonly wish: 'pair-again' }
  /** Drops the pairing and steers nothing any more. */
  | { readonly wish: 'forget' }
  | { readonly wish: 'retry' };

/** `said`: what came of it, where that is worth a sentence. `reply`: the companion's own, to the wish `ways`. */
export type Answer =
  | { readonly ok: true; readonly said?: string | undefined; readonly reply?: Reply | undefined }
  | { readonly ok: false; readonly message: string; readonly problems?: Problems | undefined };
/** What is wrong with which field. */
export type Problems = readonly { readonly field: string; readonly message: string }[];
