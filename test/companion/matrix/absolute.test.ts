// An http target asked for through an http hop in absolute-form: the hop's answer and the origin's come by the same way.
import { ABSOLUTE_ANSWERS, CUT_BODIES, NOBODY_LISTENS } from './signals.ts';
import { describeArm } from './world.ts';

describeArm('absolute', [NOBODY_LISTENS, ...ABSOLUTE_ANSWERS, ...CUT_BODIES]);
