// A worker as a process of its own: does what the companion's process says over the channel between them, and tells it what happened. It ends with that
// process, however that ends.
import type { Socket } from 'node:net';
import { makeLoopMark } from './chain/http-connect.ts';
import { hostsOf, mayEnter } from './control/handshake.ts';
import { explain } from './explain.ts';
import { reachableAt } from './guard/listen-place.ts';
import { nodeSocket } from './sockets/socket.ts';
import type { ControlElsewhere } from './rooms.ts';
import { compile, makeWorker, type Worker } from './worker.ts';
import { type FromWorker, holdsUnder, type Question, type ToWorker, unpack } from './worker-messages.ts';
import { makeOutbox } from './worker-outbox.ts';

/** Sockets on their way to the control room. */
const MAX_KNOCKING = 64;

/** Serves until the companion's process says goodbye or is gone; the process ends then, and this never resolves. */
export function runWorker(): Promise<never> {
  // Signals of a terminal or a service manager reach every process: the companion's own says what they mean.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {});
  process.on('disconnect', () => process.exit(0));
  // Somebody who started us may have taken the channel for one that need not be waited for.
  process.channel?.ref();
  let serve: ((message: ToWorker) => void) | null = null;
  process.on('message', (message: ToWorker) => {
    if (message.type === 'begin') serve = begin(message);
    else serve?.(message);
  });
  return new Promise(() => {});
}

function say(message: FromWorker, socket?: Socket, sent: () => void = () => {}): void {
  // With the channel closed we are about to end.
  if (process.connected) process.send!(message, socket, {}, sent);
}

function begin({
  sent,
  at,
  pseudonym,
  isolationSecret,
  cacheFolder,
  remembered,
}: ToWorker & { type: 'begin' }): (message: ToWorker) => void {
  let { revision } = sent;
  const here = reachableAt(at);
  const outbox = makeOutbox((batch, missed, taken) => say({ type: 'happened', batch, missed }, undefined, taken));
  const worker: Worker = makeWorker(compile(sent.config, unpack(sent, null), sent.tls, sent.hops), {
    at: () => at,
    mark: makeLoopMark(pseudonym),
    isolationSecret,
    control: controlElsewhere(hostsOf(here.host, here.port)),
    opened: exchange => outbox.record({ what: 'opened', exchange: { ...exchange } }),
    moved: exchange => outbox.record({ what: 'moved', exchange: { ...exchange } }),
    ended: exchange => outbox.record({ what: 'ended', exchange }),
    tell: news => outbox.tell(news, revision),
    warn: message => say({ type: 'warning', message }),
    now: Date.now,
    cacheFolder,
  });
  for (const news of remembered) worker.hear(news);
  worker.listen(at).then(
    () => say({ type: 'listening' }),
    ({ message, code }: NodeJS.ErrnoException) => say({ type: 'cannot-listen', message, code }),
  );

  const answer = async (question: Question) => {
    if (question.ask !== 'explain') return worker.cacheOffice.answer(question, Date.now());
    try {
      return explain(question.url, worker.furnished, here, Date.now());
    } catch {
      return null; // The companion has found the same, and says so.
    }
  };

  return message => {
    switch (message.type) {
      case 'put-in-force':
        worker.putInForce(
          compile(
            message.sent.config,
            unpack(message.sent, worker.furnished.source),
            message.sent.tls,
            message.sent.hops,
          ),
        );
        ({ revision } = message.sent);
        say({ type: 'in-force', revision });
        return;
      case 'news':
        for (const dated of message.all) if (holdsUnder(dated, revision)) worker.hear(dated.news);
        return;
      case 'ask':
        void answer(message.question).then(given => say({ type: 'answer', id: message.id, answer: given }));
        return;
      case 'close':
        void worker
          .close(message.drain)
          .then(outbox.empty)
          .then(() => say({ type: 'closed' }));
        return;
      default:
    }
  };
}

/** The control room is with the companion: whoever may enter is brought there, socket and all. */
function controlElsewhere(hosts: ReadonlySet<string>): ControlElsewhere {
  let knocking = 0;
  return {
    mayEnter: (head, socket) =>
      !(socket instanceof process.getBuiltinModule('node:tls').TLSSocket) &&
      knocking < MAX_KNOCKING &&
      mayEnter(head, hosts),
    handOver(socket, read) {
      knocking++;
      const sent = nodeSocket(socket);
      sent.on('error', () => {});
      // Otherwise Node lets the server wait for the socket's end over there before it closes.
      (sent as { server?: unknown }).server = null;
      say({ type: 'knock', read }, sent, () => {
        knocking--;
        sent.destroy();
      });
    },
  };
}
