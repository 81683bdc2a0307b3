// Long work is written as steps (generators), so that who must not stand still can do something else between two of them.

/** What comes out in the end; all steps at once. */
export function allSteps<T>(steps: Generator<undefined, T>): T {
  for (;;) {
    const step = steps.next();
    if (step.done) return step.value;
  }
}
