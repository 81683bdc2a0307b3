// What browsers steer by, made of the matcher in force: both dialects with their hashes. A long list's is made in slices, beside traffic.
import type { Steering } from '../shared/control.ts';
import { compilePac } from '../shared/decision/compile-pac.ts';
import { compileTable } from '../shared/decision/compile-table.ts';
import { verdictSteps } from '../shared/decision/compile-verdicts.ts';
import type { CompiledMatcher } from '../shared/decision/decide.ts';
import { hashOf } from '../shared/decision/hash.ts';
import type { Endpoint } from '../shared/endpoint.ts';
import { allSteps } from '../shared/steps.ts';
import { inSlices } from './message/in-slices.ts';

type Dialect = 'pac' | 'table';

export interface SteeringMaker {
  /** By this matcher; at once, where it was not prepared. */
  of(matcher: CompiledMatcher, dialect: Dialect): Steering;
  /** Makes what will be asked for, if anybody has asked before. */
  prepare(matcher: CompiledMatcher): Promise<void>;
}

/** `here` is where browsers reach the companion. */
export function makeSteering(here: Endpoint): SteeringMaker {
  let made: { matcher: CompiledMatcher; by: Record<Dialect, Steering> } | null = null;
  return {
    of(matcher, dialect) {
      if (made?.matcher !== matcher) made = { matcher, by: allSteps(steeringSteps(matcher, here)) };
      return made.by[dialect];
    },
    async prepare(matcher) {
      if (made !== null) made = { matcher, by: await inSlices(steeringSteps(matcher, here)) };
    },
  };
}

function* steeringSteps(matcher: CompiledMatcher, here: Endpoint): Generator<undefined, Record<Dialect, Steering>> {
  yield* verdictSteps(matcher);
  const table = compileTable(matcher);
  yield;
  const pac = compilePac(matcher, here);
  yield;
  const hash = hashOf(pac);
  yield;
  const text = JSON.stringify([table, here]);
  yield;
  return { pac: { hash, pac, table }, table: { hash: hashOf(text), table } };
}
