// An http target through a socks5 hop: once the tunnel stands the request is in it, and what broke there may have been heard.
import { BROKEN_FLIGHTS, CUT_BODIES, NOBODY_LISTENS, SOCKS5_ANSWERS } from './signals.ts';
import { describeArm } from './world.ts';

const SHORT = SOCKS5_ANSWERS.filter(signal => /no method|wrong|reply [125]|resets$/.test(signal.name));
describeArm('socks5, http', [NOBODY_LISTENS, ...SHORT, ...BROKEN_FLIGHTS, ...CUT_BODIES]);
