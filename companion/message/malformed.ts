// What a parser throws: the kind of fault without an endpoint, which whoever reads the message knows and adds.
import type { FaultKind } from '../../shared/fault.ts';

/** A message that is not valid, not finished, or larger than is allowed. */
export class Malformed extends Error {
  readonly kind: FaultKind;
  readonly detail: string | undefined;

  constructor(kind: FaultKind, detail?: string) {
    super(detail ?? kind);
    this.name = 'Malformed';
    this.kind = kind;
    this.detail = detail;
  }
}
