// The link to the companion: pairs, connects, connects again, speaks shared/control. It steers nothing and stores nothing.
import {
  CLOSE_UNPAIRED,
  CLOSE_WRONG_VERSION,
  CODE_PREFIX,
  CONTROL_PATH,
  type ClientRequest,
  type CompanionMessage,
  type Hello,
  type Reply,
  KEEPALIVE_INTERVAL,
  PROTOCOL_VERSION,
  SUBPROTOCOL,
  TOKEN_PREFIX,
} from '../../shared/control.ts';

/** How the link stands. not-found: nothing answers on the port. not-paired: something does, and does not know us. */
export type LinkState = 'connecting' | 'up' | 'not-found' | 'not-paired' | 'wrong-version';

type Event = Exclude<CompanionMessage, { id: number } | Hello>;

export interface ControlClientParts {
  /** Where to connect, and by which token; asked anew at each attempt. Token null = not paired. */
  readonly where: () => { port: number; token: string | null };
  /** The link has changed. */
  onLink(link: LinkState): void;
  onHello(hello: Hello): void;
  onEvent(event: Event): void;
  /** What answered speaks another version of the control link: its own version, for showing. */
  onWrongVersion(version: string): void;
  /** The companion has taken the pairing back. */
  onUnpaired(): void;
}

const FIRST_WAIT = 500;
const LONGEST_WAIT = 30_000;
/** A reply that takes longer does not come. */
const REPLY_WITHIN = 10_000;
const CONNECT_WITHIN = 5_000;
/** A person looks at the link now: silence is told soon. */
const CHECK_WITHIN = 1_200;

/** The companion has said no, perhaps to single fields of what was asked for. */
export class Refused extends Error {
  readonly problems: Problems | undefined;

  constructor(message: string, problems: Problems | undefined) {
    super(message);
    this.problems = problems;
  }
}
type Problems = Extract<Reply, { type: 'refused' }>['problems'];

interface Pairing {
  resolve: () => void;
  reject: (error: Error) => void;
}

export class ControlClient {
  link: LinkState = 'connecting';
  private readonly parts: ControlClientParts;
  private socket: WebSocket | null = null;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private keepalive: ReturnType<typeof setInterval> | undefined;
  private wait = FIRST_WAIT;
  private lastId = 0;
  private readonly verdicts = new Set<(link: LinkState) => void>();
  private readonly waiting = new Map<number, { resolve: (reply: Reply) => void; reject: (error: Error) => void }>();

  constructor(parts: ControlClientParts) {
    this.parts = parts;
  }

  /** Connects now where no link is up or on its way; resolves with how the link then stands. */
  async attempt(): Promise<LinkState> {
    if (this.link === 'up' && this.socket !== null) return 'up';
    const verdict = new Promise<LinkState>(resolve => {
      this.verdicts.add(resolve);
      setTimeout(() => this.verdicts.delete(resolve) && resolve(this.link), CONNECT_WITHIN);
    });
    this.connect();
    return verdict;
  }

  /** Finds out at once whether a link that seems up still is. */
  check(): void {
    if (this.link === 'up') this.ask({ type: 'site', host: 'localhost' }, CHECK_WITHIN).catch(() => undefined);
  }

  /** Connects now where no link is up or on its way. */
  connect(): void {
    if (this.socket !== null) return;
    clearTimeout(this.timer);
    const { port, token } = this.parts.where();
    if (token === null) {
      void this.probe(port);
      return;
    }
    this.open(port, `${TOKEN_PREFIX}${token}`, null);
  }

  /** Pairs by a code; resolves once the link is up. Rejects with a sentence for a person. */
  pair(port: number, code: string): Promise<void> {
    this.drop();
    return new Promise((resolve, reject) => {
      this.open(port, `${CODE_PREFIX}${code}`, { resolve, reject });
    });
  }

  /** Asks the companion; rejects with its sentence when it refuses, and when no link is up. One that stays silent is taken for gone. */
  async ask(request: ClientRequest, within = REPLY_WITHIN): Promise<Reply> {
    const { socket } = this;
    if (socket === null || this.link !== 'up') throw new Error('The companion is not connected.');
    const id = ++this.lastId;
    const reply = await new Promise<Reply>((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      setTimeout(() => {
        if (!this.waiting.delete(id)) return;
        reject(new Error('The companion did not answer in time.'));
        this.abandon(socket);
      }, within);
      socket.send(JSON.stringify({ ...request, id }));
    });
    if (reply.type === 'refused') throw new Refused(reply.message, reply.problems);
    return reply;
  }

  /** Ends the link and stays away until `connect`. */
  drop(): void {
    clearTimeout(this.timer);
    const { socket } = this;
    this.socket = null;
    this.over(socket);
    socket?.close();
    this.say('connecting');
  }

  /** A socket whose other end is silent closes only after a minute; here it is over now. */
  private abandon(socket: WebSocket): void {
    if (this.socket !== socket) return;
    this.socket = null;
    this.over(socket);
    socket.close();
    this.say('not-found');
    this.later();
  }

  private open(port: number, secret: string, pairing: Pairing | null): void {
    const socket = new WebSocket(`ws://127.0.0.1:${port}${CONTROL_PATH}`, [SUBPROTOCOL, secret]);
    this.socket = socket;
    const late = setTimeout(() => socket.close(), CONNECT_WITHIN);
    let greeted = false;
    socket.onmessage = ({ data }) => {
      const message = JSON.parse(String(data)) as CompanionMessage;
      if (message.type === 'hello') {
        clearTimeout(late);
        greeted = true;
        if (message.protocol !== PROTOCOL_VERSION) {
          this.parts.onWrongVersion(message.version);
          this.say('wrong-version');
          pairing?.reject(new Error(`The companion (${message.version}) speaks another version of the control link.`));
          return socket.close();
        }
        this.wait = FIRST_WAIT;
        this.keepalive = setInterval(() => socket.send(JSON.stringify({ type: 'alive', id: 0 })), KEEPALIVE_INTERVAL);
        this.say('up');
        this.parts.onHello(message);
        pairing?.resolve();
      } else if ('id' in message) {
        this.waiting.get(message.id)?.resolve(message);
        this.waiting.delete(message.id);
      } else this.parts.onEvent(message);
    };
    socket.onclose = ({ code }) => {
      clearTimeout(late);
      if (this.socket !== socket) {
        pairing?.reject(new Error('Another attempt took its place.'));
        return;
      }
      this.socket = null;
      this.over(socket);
      if (pairing && !greeted) {
        void this.probe(port).then(link =>
          pairing.reject(
            new Error(
              link === 'not-found'
                ? `Nothing answers on port ${port}. Is the companion running?`
                : 'The code was not accepted. It holds for five minutes and five tries; `detour pair` prints a new one.',
            ),
          ),
        );
        return;
      }
      if (code === CLOSE_UNPAIRED) {
        this.parts.onUnpaired();
        this.say('not-paired');
        return;
      }
      if (code === CLOSE_WRONG_VERSION || this.link === 'wrong-version') {
        this.say('wrong-version');
        this.later();
        return;
      }
      // One that knew us a moment ago and still answers is on its way out or in again: the next attempt tells.
      void this.probe(port, greeted ? 'connecting' : 'not-paired');
      this.later();
    };
  }

  /** Tells a companion that is away from one that does not know us: a WebSocket that fails tells neither. */
  private async probe(port: number, answered: LinkState = 'not-paired'): Promise<LinkState> {
    let link: LinkState;
    try {
      await fetch(`http://127.0.0.1:${port}/`, { cache: 'no-store', signal: AbortSignal.timeout(1_500) });
      link = answered;
    } catch {
      link = 'not-found';
    }
    // A slow verdict must not speak over a link that came up meanwhile.
    if (this.link !== 'up' || this.socket === null) this.say(link);
    return link;
  }

  private later(): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.connect(), this.wait * (0.8 + 0.4 * Math.random()));
    this.wait = Math.min(LONGEST_WAIT, this.wait * 2);
  }

  private over(socket: WebSocket | null): void {
    clearInterval(this.keepalive);
    if (socket === null) return;
    for (const { reject } of this.waiting.values()) reject(new Error('The companion is gone.'));
    this.waiting.clear();
  }

  private say(link: LinkState): void {
    const changed = link !== this.link;
    this.link = link;
    if (link !== 'connecting') {
      for (const resolve of this.verdicts) resolve(link);
      this.verdicts.clear();
    }
    if (changed) this.parts.onLink(link);
  }
}
