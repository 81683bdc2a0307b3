// The last guard against loops: a hop may lead back here and strip every mark on the way. A request in a loop is under way many times over with the
// very same head, so a bound on that ends it. Legs of our own need no such bound: our own addresses are refused at every dial.
import type { Endpoint } from '../../shared/endpoint.ts';
import { Fault } from '../../shared/fault.ts';

export class IdenticalHeads {
  private readonly bound: () => number;
  private readonly underWay = new Map<string, number>();

  /** The bound is asked for anew every time, so that a changed file takes effect. */
  constructor(bound: () => number) {
    this.bound = bound;
  }

  /** Counts a head as it goes out to a hop, until `leave`. Throws Fault proxy_loop_detected when it is under way too often already. */
  enter(head: string, target: Endpoint): void {
    const count = this.underWay.get(head) ?? 0;
    if (count >= this.bound()) {
      throw new Fault('proxy_loop_detected', { target, detail: `the same request is under way ${count} times` });
    }
    this.underWay.set(head, count + 1);
  }

  /** It has been answered, or has failed. Once for every `enter` that did not throw. */
  leave(head: string): void {
    const count = this.underWay.get(head)!;
    if (count === 1) this.underWay.delete(head);
    else this.underWay.set(head, count - 1);
  }
}
