// A decision as most tests of the walk need it: by the route that dials itself, nothing filtered, cached by the standard.
import type { CacheMode } from '../../shared/decision/rule.ts';
import type { SteeredDecision } from '../../companion/notes.ts';

export function steered(cache: CacheMode = 'standard'): SteeredDecision {
  return { steered: true, route: 'companion', filter: 'off', cache, inspect: false, because: { rule: 'default' } };
}
