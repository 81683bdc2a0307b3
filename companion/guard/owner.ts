// Keeps other users of the same machine out (`guard.owner: on`): who has the other end of a connection is asked of Linux, once for each connection, on
// a thread of its own. Whatever goes wrong, or takes too long, is a no.
import { accessSync, constants } from 'node:fs';
import { endianness } from 'node:os';
import { extname } from 'node:path';
import type { Worker } from 'node:worker_threads';
import type { Config } from '../../shared/config.ts';
import type { Milliseconds } from '../../shared/units.ts';
import type { OwnerCheck, SocketEnds } from '../rooms.ts';
import { type ConfigComplaint, plain } from './acl.ts';
import type { OwnerAnswer, OwnerQuestion } from './owner-reader.ts';

/** An answer must have come after so long. */
const WITHIN: Milliseconds = 5_000;
/** While the system lists sockets they come and go, and one may be passed over: it is looked for so often. */
const LOOKS = 3;

/** The thread's file stands beside this one, in the sources and in the bundle. */
const READER = new URL(`./owner-reader${extname(import.meta.url)}`, import.meta.url);

interface Asked {
  readonly texts: readonly string[];
  readonly tell: (isMine: boolean) => void;
  looks: number;
}

/** Where this system cannot say whose a connection is, `owner: on` is an error and not an empty promise. */
export function findOwnerUnknown({ guard }: Pick<Config, 'guard'>, platform = process.platform): ConfigComplaint[] {
  if (guard.owner === 'off') return [];
  let why = `this system (${platform}) does not tell`;
  if (platform === 'linux') {
    try {
      accessSync('/proc/net/tcp', constants.R_OK);
      return [];
    } catch {
      why = '/proc/net/tcp cannot be read here, which would tell';
    }
  }
  const message = `cannot be on: ${why} whose a connection is. Ask for a password instead: users: { NAME: PASSWORD }`;
  return [{ path: ['guard', 'owner'], message }];
}

/** Lets those in whose user id is `mine`. The thread begins with the first question, and keeps no process alive. */
export function makeOwnerCheck(mine: number, within = WITHIN): OwnerCheck & { close(): void } {
  let thread: Worker | null = null;
  let asked: Asked[] = [];
  let underway: Asked[] = [];
  let late: NodeJS.Timeout | undefined;

  function refuseAll(): void {
    const all = [...underway, ...asked];
    underway = [];
    asked = [];
    stop();
    for (const one of all) one.tell(false);
  }

  function stop(): void {
    clearTimeout(late);
    const old = thread;
    thread = null;
    old?.removeAllListeners();
    // Nobody hears of an error of a thread that is going.
    old?.on('error', () => {});
    void old?.terminate();
  }

  function start(): Worker {
    const { Worker: Thread } = process.getBuiltinModule('node:worker_threads');
    const worker = new Thread(READER, { resourceLimits: { maxYoungGenerationSizeMb: 4, maxOldGenerationSizeMb: 64 } });
    worker.unref();
    worker.on('message', answered);
    worker.on('error', refuseAll);
    worker.on('exit', refuseAll);
    return worker;
  }

  function askNext(): void {
    if (underway.length > 0 || asked.length === 0) return;
    thread ??= start();
    underway = asked;
    asked = [];
    late = setTimeout(refuseAll, within);
    const question: OwnerQuestion = underway.map(one => one.texts);
    thread.postMessage(question);
  }

  function answered(answer: OwnerAnswer): void {
    clearTimeout(late);
    const told = underway;
    underway = [];
    for (const [i, one] of told.entries()) {
      const owner = answer[i] ?? null;
      if (owner === null && ++one.looks < LOOKS) asked.push(one);
      else one.tell(owner === mine);
    }
    askNext();
  }

  return {
    ask(ends, tell) {
      asked.push({ texts: listedAs(ends), tell, looks: 0 });
      askNext();
    },
    close: refuseAll,
  };
}

const isLittle = endianness() === 'LE';

/** How the client's end of our connection stands in the system's listing. IPv4 may be spoken over a socket of IPv6, and is then listed there. */
export function listedAs({ remoteAddress, remotePort, localAddress, localPort }: SocketEnds): string[] {
  const [remote, local] = [plain(remoteAddress), plain(localAddress)];
  const of = (client: string, our: string) => `${client}:${portText(remotePort)} ${our}:${portText(localPort)}`;
  if (remote.includes(':') || local.includes(':')) return [of(words(bytesOf6(remote)), words(bytesOf6(local)))];
  const mapped = (address: string) => words([...MAPPED, ...bytesOf4(address)]);
  return [of(words(bytesOf4(remote)), words(bytesOf4(local))), of(mapped(remote), mapped(local))];
}

const MAPPED = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255];
const hex = (value: number, digits: number) => value.toString(16).toUpperCase().padStart(digits, '0');
const portText = (port: number) => hex(port, 4);
const bytesOf4 = (address: string) => address.split('.').map(Number);

function bytesOf6(address: string): number[] {
  const [before, after] = address.split('::') as [string, string | undefined];
  const groups = (text: string) => (text === '' ? [] : text.split(':'));
  const [head, tail] = [groups(before), groups(after ?? '')];
  const all =
    after === undefined ? head : [...head, ...Array<string>(8 - head.length - tail.length).fill('0'), ...tail];
  return all.flatMap(group => [parseInt(group, 16) >> 8, parseInt(group, 16) & 255]);
}

/** The kernel prints words of 32 bits as its processor reads them. */
function words(bytes: readonly number[]): string {
  let text = '';
  for (let i = 0; i < bytes.length; i += 4) {
    const word = bytes.slice(i, i + 4);
    if (isLittle) word.reverse();
    for (const byte of word) text += hex(byte, 2);
  }
  return text;
}
