// A named way out in the file: its chains, and how one of them is chosen.
import * as v from 'valibot';
import { described, strict } from './words.ts';

/** Routes that every configuration has. */
export const BUILT_IN_ROUTES = ['companion', 'block'] as const;

/** A named way out. `chains` are tried in order; `else` absent = closed. */
export interface Route {
  readonly chains: readonly (readonly string[])[];
  readonly else?: 'companion' | undefined;
  readonly isolate?: 'site' | undefined;
  /** Behind hops, private ranges may be asked for by address. */
  readonly private: boolean;
}

const chain = v.pipe(
  v.array(
    v.string('is not the name of a hop'),
    'is not a chain: write the names of its hops in brackets, as in [office, squid]',
  ),
  v.maxLength(8, 'has more than 8 hops'),
);
const chains = v.pipe(
  v.array(chain, 'is not a list of chains: write [[hop], [hop, hop]]'),
  v.minLength(1, 'has no chain'),
  v.maxLength(32, 'has more than 32 chains'),
);
const LongRoute = strict(
  {
    chains: described(chains, 'The chains in the order they are tried; a chain lists its hops in order.'),
    else: v.optional(
      described(
        v.literal('companion', 'can only be companion'),
        'companion: an open route. Absent: closed, it fails when all its chains fail.',
      ),
    ),
    isolate: v.optional(
      described(
        v.literal('site', 'can only be site'),
        'site: every site gets its own credentials toward the last hop (reserved).',
      ),
    ),
    private: v.optional(
      described(v.boolean('is not true or false'), 'Private addresses may be asked for behind the hops.'),
      false,
    ),
  },
  'is not a route: write its chains like [[office], [squid, tor]], or a map with chains',
);
const ShortRoute = v.pipe(
  chains,
  v.transform((list): Route => ({ chains: list, private: false })),
);
export const RouteSchema = v.lazy(input =>
  Array.isArray(input) ? ShortRoute : (LongRoute as v.GenericSchema<unknown, Route>),
) as v.GenericSchema<unknown, Route>;
