// A client that comes by SOCKS5, through socks5 hops.
import { BROKEN_FLIGHTS, CUT_BODIES, NOBODY_LISTENS, SOCKS5_ANSWERS } from './signals.ts';
import { describeArm } from './world.ts';

describeArm('socks5', [NOBODY_LISTENS, ...SOCKS5_ANSWERS, ...BROKEN_FLIGHTS.slice(0, 2), ...CUT_BODIES.slice(0, 2)]);
