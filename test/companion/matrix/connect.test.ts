// A CONNECT through an http hop: until its 200 the client has not been told anything, and nothing of the target has been touched.
import { BROKEN_FLIGHTS, CONNECT_ANSWERS, CUT_BODIES, NOBODY_LISTENS } from './signals.ts';
import { describeArm } from './world.ts';

describeArm('connect', [NOBODY_LISTENS, ...CONNECT_ANSWERS, ...BROKEN_FLIGHTS, ...CUT_BODIES.slice(0, 2)]);
