// What follows from the head of a request alone: where it goes, by which rule and route, and for whom it is cached. Found out once for a head that comes
// again and again (message/known-heads.ts), in the rooms of one era.
import type { ConfigCache } from '../shared/config.ts';
import type { Decision, DecisionTarget } from '../shared/decision/rule.ts';
import { formatHost } from '../shared/endpoint.ts';
import { Fault } from '../shared/fault.ts';
import { isExpectationKnown, upgradeOf } from './downstream/duties.ts';
import type { RequestHead } from './message/message.ts';
import type { CacheRequest, ResolvedRoute } from './rooms.ts';

/** A decision for what has come to the companion: always with a route, the default one where no rule steers. */
export type SteeredDecision = Decision & { readonly steered: true };

/** What notes are made by. */
export interface Era {
  /** The one matcher; what no rule names gets the default route, because `default`. */
  readonly decide: (target: DecisionTarget) => SteeredDecision;
  readonly routeOf: (decision: SteeredDecision) => ResolvedRoute;
  /** Whether the cache keeps sites apart. */
  readonly partition: ConfigCache['partition'];
  /** The registrable domain of a host, or the host itself. */
  readonly registrableDomain: (host: string) => string;
  /** Whatever is known of a request in this era holds in no other. */
  readonly era: object;
}

/** The same head has the same notes again, so the cache may know the request by itself. */
export interface Notes {
  readonly era: object;
  /** In normal form, without fragment. */
  readonly url: string;
  readonly host: string;
  readonly port: number;
  readonly path: string;
  readonly site: string;
  /** The site of the page that asked. */
  readonly fromSite: string | undefined;
  readonly decision: SteeredDecision;
  readonly route: ResolvedRoute;
  readonly isExpectationKnown: boolean;
  /** The protocols that the client would change to; null: none. */
  readonly upgrade: string | null;
  /** As the cache sees it. */
  readonly request: CacheRequest;
}

/** The notes on a request in absolute-form: those there are, or new ones. */
export function notesOf(head: RequestHead, era: Era): Notes {
  const known = head.notes as Notes | undefined;
  if (known?.era === era.era) return known;
  const made = madeNotes(head, era);
  head.notes = made;
  return made;
}

function madeNotes(head: RequestHead, era: Era): Notes {
  if (head.target.form !== 'absolute') throw new Fault('proxy_internal_error');
  const { host, port, path } = head.target;
  const url = urlOf(host, port, path);
  const site = era.registrableDomain(host);
  const fromSite = pageSite(head, era);
  const decision = era.decide({ scheme: 'http', host, port, path });
  const route = era.routeOf(decision);
  return {
    era: era.era,
    url,
    host,
    port,
    path,
    site,
    fromSite,
    decision,
    route,
    isExpectationKnown: isExpectationKnown(head),
    upgrade: upgradeOf(head),
    request: {
      head,
      url,
      site,
      route: decision.blockedBy === undefined ? route.name : '',
      partition: era.partition === 'none' ? '' : partitionOf(head, site, fromSite),
      behindHops: route.behindHops,
      decision,
    },
  };
}

/** The same request under another decision. */
export function decidedAnew(notes: Notes, decision: SteeredDecision, era: Era): Notes {
  if (decision === notes.decision) return notes;
  const route = era.routeOf(decision);
  const { head, url, site, partition } = notes.request;
  const name = decision.blockedBy === undefined ? route.name : '';
  return {
    ...notes,
    decision,
    route,
    request: { head, url, site, partition, route: name, behindHops: route.behindHops, decision },
  };
}

/** An http URL in the form in which rules, log and cache know it. `path` with its query; `*` for the server itself. */
export function urlOf(host: string, port: number, path: string): string {
  return `http://${formatHost(host)}${port === 80 ? '' : `:${port}`}${path === '*' ? '' : path}`;
}

/** The registrable domain of the page that asked, by Referer or Origin. */
function pageSite(head: RequestHead, era: Era): string | undefined {
  const page = head.fields.get('referer') ?? head.fields.get('origin');
  if (page === undefined) return undefined;
  const host = /^https?:\/\/(?:[^/?#@]*@)?(\[[0-9a-f:.]+\]|[^/?#:@]+)/i.exec(page)?.[1];
  if (host === undefined) return undefined;
  return era.registrableDomain(host.startsWith('[') ? host.slice(1, -1) : host.toLowerCase());
}

/** Whose cache: the page's; for a navigation the target's own; else nobody's in particular. */
function partitionOf(head: RequestHead, site: string, fromSite: string | undefined): string {
  const mode = head.fields.get('sec-fetch-mode');
  // Browsers send Sec-Fetch-* only to https and localhost; over plain http a navigation shows by this.
  const navigates = mode === undefined ? head.fields.has('upgrade-insecure-requests') : mode === 'navigate';
  return navigates ? site : (fromSite ?? '');
}
