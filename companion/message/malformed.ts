// What a parser throws: the kind of fault without an endpoint, which whoever reads the message knows and adds.
import type { FaultKind } from '../../shared/fault.ts';

/** A message that is not valid, not finished, or larger than is allowed. */
export class Malformed extends Error {
  readonly kind: FaultKind;
  readonly detail: string | undefined;

  constructor(kind: FaultKind, detail?: string) {
    // Its reader knows where it stood; the stack would cost more than the parsing did, and under attack there are many.
    const { stackTraceLimit } = Error;
    Error.stackTraceLimit = 0;
    super(detail ?? kind);
    Error.stackTraceLimit = stackTraceLimit;
    this.name = 'Malformed';
    this.kind = kind;
    this.detail = detail;
  }
}
