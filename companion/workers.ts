// The workers as processes (node:cluster): starts them, tells them what is in force, takes in what they did, passes on what one finds out to the others,
// and replaces those that end. They share the port; which of them gets a connection is said in docs/workers.md.
import type { Cluster, Worker as ClusterWorker } from 'node:cluster';
import { createServer, type Socket } from 'node:net';
import type { Endpoint } from '../shared/endpoint.ts';
import type { Milliseconds } from '../shared/units.ts';
import type { Intake } from './record/intake.ts';
import type { InForce, News } from './worker.ts';
import {
  type Answers,
  type DatedNews,
  type FromWorker,
  holdsAlways,
  holdsUnder,
  pack,
  type Question,
  type SentConfig,
  type ToWorker,
} from './worker-messages.ts';

/** A worker that takes longer to put a configuration in force is ended and replaced. */
const TIME_TO_OBEY: Milliseconds = 10_000;
/** A process that takes longer to listen is given up. */
const TIME_TO_START: Milliseconds = 30_000;
/** So long a worker is waited for that is asked something. */
const TIME_TO_ANSWER: Milliseconds = 1_000;
/** After the drain a worker has so long to say its last words. */
const TIME_TO_END: Milliseconds = 2_000;
/** Messages that may wait for a worker which takes none; beyond it the worker is taken for lost. */
const MAX_UNHEARD = 5_000;
/** So many ends within a minute are made good at once; after that it takes longer each time. */
const QUICK_REPLACEMENTS = 3;
const LONGEST_DELAY: Milliseconds = 30_000;

export interface WorkersParts {
  readonly count: number;
  /** Where they listen, with the real port. */
  readonly at: Endpoint;
  /** Of the loop mark: all workers know each other's requests when they come back. */
  readonly pseudonym: string;
  /** The logins of sites are the same whichever of them a request comes to. */
  readonly isolationSecret: string;
  /** They share what is on the disk. */
  readonly cacheFolder: string;
  /** The records of one more process. */
  readonly openIntake: () => Intake;
  /** One of them has a connection for the control room. */
  readonly adopt: (socket: Socket, read: Buffer) => void;
  /** One of them has found something out that holds under what is in force now. */
  readonly hear: (news: News) => void;
  readonly remembered: () => readonly News[];
  readonly say: (message: string, kind: 'warning' | 'news') => void;
}

export interface Workers {
  /** Fulfilled when all of them go by it. One that does not obey in time is ended first. */
  putInForce(next: InForce): Promise<void>;
  /** The companion has found something out itself. */
  tell(news: News): void;
  /** What each of them says to it. One that does not answer in time is left out; where the question changes something it is ended as in putInForce. */
  ask<A extends Question['ask']>(question: Extract<Question, { ask: A }>): Promise<Answers[A][]>;
  /** Lets exchanges end within `drain`; then the processes end. */
  close(drain: Milliseconds): Promise<void>;
}

/** A port of this address that is free: `wanted.port`, or any where that is 0. Rejects with the system's error. */
export function findPort(wanted: Endpoint): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen({ host: wanted.host, port: wanted.port }, () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
}

/** Resolves when all of them listen. Rejects when one cannot; none is left then. */
export async function startWorkers(first: InForce, parts: WorkersParts): Promise<Workers> {
  // Its types know it as a default export only.
  const cluster = process.getBuiltinModule('node:cluster') as unknown as Cluster;
  // Every worker accepts by itself: this process, which has other things to do, is not on the way of a connection, and one costs 0.6 of the CPU.
  cluster.schedulingPolicy = cluster.SCHED_NONE;
  // A worker is made of the files: in a snapshot Node's cluster is that of a primary.
  const execArgv = process.execArgv.filter(option => !option.startsWith('--snapshot-blob'));
  cluster.setupPrimary({ exec: process.argv[1], execArgv, args: ['worker'], serialization: 'advanced' });
  const members = new Set<Member>();
  let current = first;
  let revision = 1;
  let closing = false;
  let lastQuestion = 0;
  const ends: number[] = [];
  const timers = new Set<NodeJS.Timeout>();

  const told = (news: readonly DatedNews[], from: Member) => {
    const fresh = news.filter(one => holdsUnder(one, revision));
    if (fresh.length === 0) return;
    for (const one of fresh) parts.hear(one.news);
    for (const other of members) if (other !== from) other.send({ type: 'news', all: fresh });
  };

  const add = (): Member => {
    const member: Member = new Member(cluster.fork(), parts, told);
    members.add(member);
    member.send({
      type: 'begin',
      sent: pack(revision, current, null),
      at: parts.at,
      pseudonym: parts.pseudonym,
      isolationSecret: parts.isolationSecret,
      cacheFolder: parts.cacheFolder,
      remembered: parts.remembered(),
    });
    void member.ended.then(how => {
      members.delete(member);
      if (!closing && member.hasListened) replace(`Worker ${member.pid} has ended (${how})`);
    });
    return member;
  };

  const replace = (what: string) => {
    const now = performance.now();
    ends.push(now);
    while (ends[0]! < now - 60_000) ends.shift();
    const over = ends.length - QUICK_REPLACEMENTS;
    const delay = over <= 0 ? 0 : Math.min(LONGEST_DELAY, 1_000 * 2 ** (over - 1));
    parts.say(`${what}; another takes its place${delay === 0 ? '' : ` in ${delay / 1_000} s`}.`, 'warning');
    const timer = setTimeout(() => {
      timers.delete(timer);
      const member = add();
      member.listening.then(
        () => parts.say(`Worker ${member.pid} listens.`, 'news'),
        (error: Error) => {
          member.kill();
          if (!closing) replace(`A worker could not start (${error.message})`);
        },
      );
    }, delay);
    timers.add(timer);
  };

  const killAll = async () => {
    closing = true;
    for (const member of members) member.kill();
    await Promise.all([...members].map(member => member.ended));
  };

  try {
    await Promise.all(Array.from({ length: parts.count }, () => add().listening));
  } catch (error) {
    await killAll();
    throw error;
  }

  return {
    async putInForce(next) {
      const sent = pack(++revision, next, current.source);
      current = next;
      await Promise.all([...members].map(member => member.putInForce(sent)));
    },
    tell(news) {
      const dated = { revision: holdsAlways(news) ? null : revision, news };
      for (const member of members) member.send({ type: 'news', all: [dated] });
    },
    async ask<A extends Question['ask']>(question: Extract<Question, { ask: A }>) {
      const id = ++lastQuestion;
      const answers = await Promise.all([...members].map(member => member.ask(id, question)));
      return answers.filter(answer => answer !== undefined) as Answers[A][];
    },
    async close(drain) {
      closing = true;
      for (const timer of timers) clearTimeout(timer);
      const late = setTimeout(() => {
        for (const member of members) member.kill();
      }, drain + TIME_TO_END);
      for (const member of members) {
        if (member.hasListened) member.send({ type: 'close', drain });
        else member.kill();
      }
      await Promise.all([...members].map(member => member.ended));
      clearTimeout(late);
    },
  };
}

/** One worker's process. */
class Member {
  readonly pid: number;
  hasListened = false;
  /** Rejects when it ends before. */
  readonly listening: Promise<void>;
  /** How it ended, when it has and all that it said has been heard. */
  readonly ended: Promise<string>;
  private readonly worker: ClusterWorker;
  private readonly questions = new Map<number, (answer: Answers[Question['ask']] | undefined) => void>();
  /** Who waits until a revision is in force here. */
  private readonly waiting = new Map<number, () => void>();
  private missed = 0;
  private unheard = 0;

  constructor(worker: ClusterWorker, parts: WorkersParts, told: (news: readonly DatedNews[], from: Member) => void) {
    this.worker = worker;
    this.pid = worker.process.pid!;
    const intake = parts.openIntake();
    const listening = Promise.withResolvers<void>();
    const ended = Promise.withResolvers<string>();
    this.listening = listening.promise;
    this.ended = ended.promise;
    this.listening.catch(() => {});
    const slow = setTimeout(() => {
      listening.reject(new Error(`it did not listen within ${TIME_TO_START / 1_000} s`));
      this.kill();
    }, TIME_TO_START);

    worker.on('error', () => {}); // A message that can no longer be sent: its end is told below.
    worker.on('message', (message: FromWorker, socket?: Socket) => {
      switch (message.type) {
        case 'listening':
          clearTimeout(slow);
          this.hasListened = true;
          listening.resolve();
          return;
        case 'cannot-listen':
          listening.reject(
            Object.assign(new Error(message.message), {
              code: message.code,
              syscall: 'listen',
              address: parts.at.host,
              port: parts.at.port,
            }),
          );
          return;
        case 'in-force':
          this.waiting.get(message.revision)?.();
          return;
        case 'happened': {
          const news: DatedNews[] = [];
          for (const one of message.batch) {
            if (one.what === 'news') news.push(one);
            else intake[one.what](one.exchange);
          }
          if (news.length > 0) told(news, this);
          if (message.missed > 0 && this.missed === 0) {
            parts.say(`Worker ${this.pid} is faster than the log: some exchanges are missing from it.`, 'warning');
          }
          this.missed += message.missed;
          return;
        }
        case 'answer':
          this.questions.get(message.id)?.(message.answer);
          return;
        case 'warning':
          parts.say(message.message, 'warning');
          return;
        case 'knock':
          if (!socket) return;
          // It may break before it has an owner: the control room opens only once the port does.
          socket.on('error', () => {});
          parts.adopt(socket, Buffer.from(message.read));
          return;
        case 'closed':
          worker.process.disconnect();
          return;
        default:
      }
    });

    // Both, in either order: what it said last may still be on its way when it has ended.
    let how = '';
    let left = 2;
    const gone = () => {
      if (--left > 0) return;
      clearTimeout(slow);
      intake.gone();
      listening.reject(new Error(`it ended: ${how}`));
      for (const answer of this.questions.values()) answer(undefined);
      ended.resolve(how);
    };
    worker.on('disconnect', gone);
    worker.on('exit', (code: number, signal: string) => {
      how = signal || `exit code ${code}`;
      gone();
    });
  }

  send(message: ToWorker): void {
    if (!this.worker.isConnected()) return;
    if (++this.unheard > MAX_UNHEARD) return this.kill();
    this.worker.process.send(message, () => this.unheard--);
  }

  kill(): void {
    this.worker.process.kill('SIGKILL');
  }

  /** Fulfilled when it goes by it, or has ended. */
  async putInForce(sent: SentConfig): Promise<void> {
    const done = Promise.withResolvers<void>();
    this.waiting.set(sent.revision, done.resolve);
    const late = setTimeout(() => this.kill(), TIME_TO_OBEY);
    this.send({ type: 'put-in-force', sent });
    await Promise.race([done.promise, this.ended]);
    clearTimeout(late);
    this.waiting.delete(sent.revision);
  }

  /** Undefined where it has not answered in time, or has ended. */
  async ask(id: number, question: Question): Promise<Answers[Question['ask']] | undefined> {
    const answer = Promise.withResolvers<Answers[Question['ask']] | undefined>();
    const changes = question.ask === 'purge' || question.ask === 'pin';
    this.questions.set(id, answer.resolve);
    const late = setTimeout(
      () => (changes ? this.kill() : answer.resolve(undefined)),
      changes ? TIME_TO_OBEY : TIME_TO_ANSWER,
    );
    this.send({ type: 'ask', id, question });
    const given = await answer.promise;
    clearTimeout(late);
    this.questions.delete(id);
    return given;
  }
}
