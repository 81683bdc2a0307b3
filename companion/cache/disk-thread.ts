// The thread that writes (disk-writer.ts), as the store sees it: started with the first message, ended when it has had nothing to do for a while, for it
// takes 18 MB, and started again with the next.
import { extname } from 'node:path';
import type { Worker } from 'node:worker_threads';
import type { Bytes, Milliseconds } from '../../shared/units.ts';
import type { FromWriter, ToWriter, WriterStart } from './disk-messages.ts';

const IDLE_AFTER: Milliseconds = 60_000;
const TIME_TO_CLOSE: Milliseconds = 5_000;

/** The thread's file stands beside this one, in the sources and in the bundle. */
const WRITER = new URL(`./disk-writer${extname(import.meta.url)}`, import.meta.url);

export interface ThreadOptions {
  readonly start: () => WriterStart;
  readonly idleAfter: Milliseconds | undefined;
  /** Whether anything is still to come of it. */
  readonly isBusy: () => boolean;
  readonly hear: (message: Exclude<FromWriter, { type: 'closed' }>) => void;
  /** It has ended by itself, and what it was given is lost. */
  readonly lost: (why: string) => void;
}

export class WriterThread {
  private readonly options: ThreadOptions;
  private thread: Worker | null = null;
  private idle: NodeJS.Timeout | undefined;
  private closed: (() => void) | null = null;

  constructor(options: ThreadOptions) {
    this.options = options;
  }

  post(message: ToWriter): void {
    clearTimeout(this.idle);
    this.idle = setTimeout(this.end, this.options.idleAfter ?? IDLE_AFTER).unref();
    this.thread ??= this.start();
    this.thread.postMessage(message);
  }

  /** A thread that is started later hears of it then. */
  setLimit(limit: Bytes): void {
    this.thread?.postMessage({ type: 'limit', limit } satisfies ToWriter);
  }

  /** Lets it finish what it has been given, for a few seconds. */
  async close(): Promise<void> {
    clearTimeout(this.idle);
    const { thread } = this;
    if (thread === null) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.closed = resolve;
    const late = setTimeout(resolve, TIME_TO_CLOSE);
    thread.ref();
    thread.postMessage({ type: 'close' } satisfies ToWriter);
    await promise;
    clearTimeout(late);
    this.thread = null;
    thread.removeAllListeners();
    thread.on('error', () => {});
    await thread.terminate();
  }

  private readonly end = (): void => {
    const { thread } = this;
    if (thread === null || this.closed !== null) return;
    if (this.options.isBusy()) {
      this.idle?.refresh();
      return;
    }
    this.thread = null;
    thread.postMessage({ type: 'close' } satisfies ToWriter);
  };

  private start(): Worker {
    const { Worker: Thread } = process.getBuiltinModule('node:worker_threads');
    const thread = new Thread(WRITER, {
      workerData: this.options.start(),
      resourceLimits: { maxYoungGenerationSizeMb: 8, maxOldGenerationSizeMb: 64 },
    });
    thread.unref();
    thread.on('message', (message: FromWriter) => {
      // One that was let go may still say what it has done.
      if (this.thread !== thread && message.type !== 'done') return;
      if (message.type === 'closed') this.closed?.();
      else this.options.hear(message);
    });
    const ended = (why: string) => {
      if (this.thread !== thread) return;
      this.thread = null;
      this.closed?.();
      this.options.lost(why);
    };
    thread.on('error', error => ended(error.message));
    thread.on('exit', () => ended('its thread has ended'));
    return thread;
  }
}
