// What is known of chains and sites, beginning with nothing, on a clock of the test's.
import type { ResolvedRoute } from '../../companion/rooms.ts';
import { type Knowledge, type KnowledgeParts, makeKnowledge } from '../../companion/route/knowledge.ts';
import { makeSiteMemory } from '../../companion/route/site-memory.ts';

export function knowledgeOf(
  now: () => number,
  routes: readonly ResolvedRoute[] = [],
  tell?: KnowledgeParts['tell'],
  sites = makeSiteMemory({ now, saved: [], changed: () => {} }),
): Knowledge {
  const routeOf = (name: string) => routes.find(route => route.name === name);
  return makeKnowledge({ now, wallClock: now, sites, routeOf, tell });
}
