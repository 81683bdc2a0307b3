// The same behind another hop, which behaves: the blame falls on the one that said no, and the other goes on being used.
import { ABSOLUTE_ANSWERS, BROKEN_FLIGHTS, CUT_BODIES, SOCKS5_ANSWERS } from './signals.ts';
import { describeArm } from './world.ts';

const few = /^(?:403 with X-Squid|407|closes|resets$|403 without|502 with )/;
describeArm('two hops, absolute', [
  ...ABSOLUTE_ANSWERS.filter(signal => few.test(signal.name)),
  ...CUT_BODIES.slice(0, 1),
]);
const some = /wrong|reply [25]|greeting|^resets$/;
describeArm('two hops, connect', [
  ...SOCKS5_ANSWERS.filter(signal => some.test(signal.name)),
  ...BROKEN_FLIGHTS.slice(0, 2),
  ...CUT_BODIES.slice(0, 1),
]);
