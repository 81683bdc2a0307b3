// What is known of chains and sites, beginning with nothing, on a clock of the test's.
import type { ResolvedRoute } from '../../companion/rooms.ts';
import { type Knowledge, makeKnowledge } from '../../companion/route/knowledge.ts';
import { makeSiteMemory } from '../../companion/route/site-memory.ts';

export function knowledgeOf(now: () => number, routes: readonly ResolvedRoute[] = []): Knowledge {
  const sites = makeSiteMemory({ now, saved: [], changed: () => {} });
  return makeKnowledge({ now, wallClock: now, sites, routeOf: name => routes.find(route => route.name === name) });
}
