// The command line as a client of the companion that runs: found by its runtime file, let in by the token in it.
import { WebSocket } from 'ws';
import {
  CONTROL_PATH,
  type ClientRequest,
  type CompanionMessage,
  type Hello,
  type Reply,
  SUBPROTOCOL,
  TOKEN_PREFIX,
} from '../../shared/control.ts';
import { formatEndpoint } from '../../shared/endpoint.ts';
import { runningCompanion } from '../control/state-folder.ts';
import { CannotReach } from './cannot-reach.ts';

export interface ControlLink {
  readonly hello: Hello;
  /** Rejects with the companion's sentence when it refuses. */
  request(message: ClientRequest): Promise<Reply>;
  /** Hears what is not a reply. */
  onMessage: (message: CompanionMessage) => void;
  /** Resolves when the link has ended. */
  readonly ended: Promise<void>;
  close(): void;
}

/** Connects to the companion of this state folder. Throws CannotReach. */
export function ask(stateFolder: string, config: string | undefined): Promise<ControlLink> {
  const running = runningCompanion(stateFolder);
  const how = `start it with \`detour start${config === undefined ? '' : ` --config ${config}`}\` (or \`npm start\`)`;
  if (running === null || running.port === 0) throw new CannotReach(`the companion does not run; ${how}.`);
  const url = `ws://${formatEndpoint({ host: running.host, port: running.port })}${CONTROL_PATH}`;
  const socket = new WebSocket(url, [SUBPROTOCOL, TOKEN_PREFIX + running.token], {
    perMessageDeflate: false,
    handshakeTimeout: 3_000,
  });
  return new Promise((resolve, reject) => {
    let lastId = 0;
    const waiting = new Map<number, { resolve: (reply: Reply) => void; reject: (error: Error) => void }>();
    socket.on('error', error =>
      reject(
        new CannotReach(
          `the companion (pid ${running.pid}) does not answer on port ${running.port}: ${error.message}; ${how}.`,
        ),
      ),
    );
    const ended = new Promise<void>(end =>
      socket.once('close', () => {
        reject(new CannotReach('the companion closed the link before it said hello.'));
        for (const one of waiting.values()) one.reject(new CannotReach('the companion has ended.'));
        end();
      }),
    );
    const link: ControlLink = {
      hello: undefined as never,
      request(message) {
        const id = ++lastId;
        return new Promise<Reply>((answer, refuse) => {
          if (socket.readyState !== socket.OPEN) return refuse(new CannotReach('the companion has ended.'));
          waiting.set(id, { resolve: answer, reject: refuse });
          socket.send(JSON.stringify({ ...message, id }));
        });
      },
      onMessage: () => {},
      ended,
      close: () => socket.terminate(),
    };
    socket.on('message', data => {
      const message = JSON.parse(String(data)) as CompanionMessage;
      if (message.type === 'hello') {
        (link as { hello: Hello }).hello = message;
        resolve(link);
      } else if ('id' in message && waiting.has(message.id)) {
        const one = waiting.get(message.id)!;
        waiting.delete(message.id);
        if (message.type === 'refused') one.reject(new Error(message.message));
        else one.resolve(message);
      } else link.onMessage(message);
    });
  });
}

/** Runs one request and prints what comes of it; a refusal is a fault in what was given. */
export async function once(link: ControlLink, message: ClientRequest, show: (reply: Reply) => string): Promise<number> {
  try {
    process.stdout.write(show(await link.request(message)));
    return 0;
  } catch (error) {
    if (error instanceof CannotReach) throw error;
    process.stderr.write(`detour: ${(error as Error).message}\n`);
    return 1;
  } finally {
    link.close();
  }
}
