// What a hop in the file only points to: passwords kept elsewhere, certificates and keys. All of it is read when the file is loaded, so that a
// connection waits for none of it; what cannot be read is told by its place in the file, and never with a word of what was read.
import { constants } from 'node:fs';
import * as fs from 'node:fs/promises';
import type { Hop, HopSsh, HopTls, Secret, WrittenHop } from '../../shared/config/hops.ts';
import type { Bytes, Milliseconds } from '../../shared/units.ts';

/** What a program that tells a secret may take. */
const COMMAND_TIME: Milliseconds = 10_000;
/** What it may print, and the size of a file that is read for a hop. */
const MAX_SECRET_FILE: Bytes = 1024 * 1024;
/** Of the secret itself: RFC 1929 has one byte for its length. */
const MAX_SECRET: Bytes = 255;
/** Programs that run at once. */
const MAX_COMMANDS = 8;

/** Where something is wrong, as a path in the file. */
export interface HopProblem {
  readonly path: readonly string[];
  readonly message: string;
}

export interface HopSources {
  /** What a path in the file means. */
  readonly pathOf: (written: string) => string;
  /** Where programs are run; null: none is, and what they or the environment would tell is taken to be right (`detour check`). */
  readonly folder: string | null;
  readonly env: NodeJS.ProcessEnv;
  /** What programs have told before, by their words: these are not asked again. */
  readonly told?: ReadonlyMap<string, string> | undefined;
  readonly warn: (message: string) => void;
}

/** What came of reading. */
export interface HopsRead {
  readonly hops: Readonly<Record<string, Hop>>;
  readonly problems: readonly HopProblem[];
  /** For the next time. */
  readonly told: ReadonlyMap<string, string>;
}

/** The hops with all that the file only points to, and what is wrong with that. Never rejects for what is wrong. */
export async function readHops(written: Readonly<Record<string, WrittenHop>>, sources: HopSources): Promise<HopsRead> {
  const reading = new Reading(sources);
  const hops = await Promise.all(
    Object.entries(written).map(async ([name, hop]): Promise<[string, Hop]> => [name, await reading.hop(name, hop)]),
  );
  return { hops: Object.fromEntries(hops), problems: reading.problems, told: reading.told };
}

/** The files that hops are made from, as they are written: whoever follows the file follows these too. */
export function filesOfHops(hops: Readonly<Record<string, WrittenHop>>): readonly string[] {
  const files = new Set<string | undefined>();
  for (const { password, tls, ssh } of Object.values(hops)) {
    for (const secret of [password, ssh?.passphrase])
      if (typeof secret === 'object' && 'file' in secret) files.add(secret.file);
    files.add(tls?.ca).add(tls?.cert).add(tls?.key).add(ssh?.key).add(ssh?.knownHosts);
  }
  files.delete(undefined);
  return [...files] as string[];
}

class Reading {
  readonly problems: HopProblem[] = [];
  readonly told = new Map<string, string>();
  private readonly sources: HopSources;
  private readonly files = new Map<string, Promise<{ text: string; isOpen: boolean }>>();
  private running = 0;
  private readonly waiting: (() => void)[] = [];

  constructor(sources: HopSources) {
    this.sources = sources;
  }

  async hop(name: string, hop: WrittenHop): Promise<Hop> {
    const { password, tls, ssh } = hop;
    // As nearly all are.
    if (typeof password !== 'object' && tls === undefined && ssh === undefined) return hop as Hop;
    const at = ['hops', name];
    const [word, secure, login] = await Promise.all([
      this.secret(password, [...at, 'password']),
      tls && this.tls(tls, [...at, 'tls']),
      ssh && this.ssh(ssh, [...at, 'ssh']),
    ]);
    return { ...hop, password: word, tls: secure, ssh: login };
  }

  private async tls(tls: HopTls, at: readonly string[]): Promise<HopTls> {
    const before = this.problems.length;
    const [ca, cert, key] = await Promise.all([
      this.file(tls.ca, [...at, 'ca'], false),
      this.file(tls.cert, [...at, 'cert'], false),
      this.file(tls.key, [...at, 'key'], true),
    ]);
    if (this.problems.length === before) {
      // Not by import: a start without certificates need not load them.
      const { X509Certificate } = process.getBuiltinModule('node:crypto');
      const { createSecureContext } = process.getBuiltinModule('node:tls');
      try {
        // Of a bundle, the first.
        if (ca !== undefined) void new X509Certificate(ca).subject;
      } catch {
        this.problem([...at, 'ca'], 'is no certificate (PEM)');
      }
      try {
        if (cert !== undefined) createSecureContext({ cert, key });
      } catch (error) {
        this.problem([...at, 'cert'], `is no certificate with its key (${(error as Error).message})`);
      }
    }
    return { ...tls, ca, cert, key };
  }

  private async ssh(ssh: HopSsh<Secret>, at: readonly string[]): Promise<HopSsh> {
    const [key, passphrase, knownHosts] = await Promise.all([
      this.file(ssh.key, [...at, 'key'], true),
      this.secret(ssh.passphrase, [...at, 'passphrase']),
      this.file(ssh.knownHosts, [...at, 'knownHosts'], false),
    ]);
    return { ...ssh, key, passphrase, knownHosts };
  }

  private async secret(secret: Secret | undefined, at: readonly string[]): Promise<string | undefined> {
    if (typeof secret !== 'object') return secret;
    if ('env' in secret && secret.env !== undefined && this.sources.folder !== null) {
      const text = this.sources.env[secret.env];
      if (text === undefined) return this.problem([...at, 'env'], `${secret.env} is not set in the environment`);
      return this.checked(text, [...at, 'env']);
    }
    if ('file' in secret && secret.file !== undefined) {
      const text = await this.file(secret.file, [...at, 'file'], true);
      return text === undefined ? undefined : this.checked(firstLine(text), [...at, 'file']);
    }
    if ('command' in secret && this.sources.folder !== null) {
      const text = await this.command(secret.command, [...at, 'command']);
      return text === undefined ? undefined : this.checked(text, [...at, 'command']);
    }
    return '';
  }

  private checked(text: string, at: readonly string[]): string | undefined {
    if (text === '') return this.problem(at, 'tells an empty secret');
    if (Buffer.byteLength(text) > MAX_SECRET) return this.problem(at, `tells a secret longer than ${MAX_SECRET} bytes`);
    return text;
  }

  private problem(path: readonly string[], message: string): undefined {
    this.problems.push({ path, message });
  }

  private async file(
    written: string | undefined,
    at: readonly string[],
    isSecret: boolean,
  ): Promise<string | undefined> {
    if (written === undefined) return undefined;
    const path = this.sources.pathOf(written);
    let reading = this.files.get(path);
    if (reading === undefined) this.files.set(path, (reading = readSmall(path)));
    try {
      const { text, isOpen } = await reading;
      if (isSecret && isOpen)
        this.sources.warn(`${path} can be read by others (${at.join('.')}): chmod 600 ends that.`);
      return text;
    } catch (error) {
      return this.problem(at, (error as Error).message);
    }
  }

  private async command(words: readonly string[], at: readonly string[]): Promise<string | undefined> {
    const key = JSON.stringify(words);
    const before = this.sources.told?.get(key);
    if (before !== undefined) {
      this.told.set(key, before);
      return before;
    }
    if (this.running >= MAX_COMMANDS) await new Promise<void>(resolve => this.waiting.push(resolve));
    this.running++;
    try {
      const told = await run(words, this.sources.folder!, this.sources.env);
      if ('problem' in told) return this.problem(at, told.problem);
      const line = firstLine(told.text);
      this.told.set(key, line);
      return line;
    } finally {
      this.running--;
      this.waiting.shift()?.();
    }
  }
}

const firstLine = (text: string) => /^[^\r\n]*/.exec(text)![0];

/** The text of a small plain file, and whether others can read it. Throws an Error whose message is for a person. */
async function readSmall(path: string): Promise<{ text: string; isOpen: boolean }> {
  let file: fs.FileHandle | null = null;
  try {
    // Non-blocking, so that a pipe in its place does not hang the load.
    file = await fs.open(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0));
    const stat = await file.stat();
    if (!stat.isFile()) throw new Error('is not a plain file');
    if (stat.size > MAX_SECRET_FILE) throw new Error('is larger than 1 MiB');
    const text = await file.readFile('utf8');
    return { text, isOpen: process.platform !== 'win32' && (stat.mode & 0o077) !== 0 };
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === undefined) throw error;
    throw new Error(code === 'ENOENT' ? 'does not exist' : `cannot be read (${code})`, { cause: error });
  } finally {
    await file?.close();
  }
}

/** What a program prints, or why it told nothing. No shell reads its words; what it says to stderr is thrown away, since it may be about the secret. */
function run(
  [program, ...args]: readonly string[],
  cwd: string,
  env: NodeJS.ProcessEnv,
): Promise<{ text: string } | { problem: string }> {
  const { spawn } = process.getBuiltinModule('node:child_process');
  return new Promise(resolve => {
    const child = spawn(program!, args, {
      cwd,
      env,
      stdio: ['ignore', 'pipe', 'ignore'],
      shell: false,
      windowsHide: true,
    });
    const pieces: Buffer[] = [];
    let size = 0;
    let stopped: string | null = null;
    const stop = (why: string) => {
      stopped ??= why;
      child.kill('SIGKILL');
      // What it has started may hold the pipe open.
      child.stdout.destroy();
      resolve({ problem: stopped });
    };
    const timer = setTimeout(() => stop(`took longer than ${COMMAND_TIME / 1000} s`), COMMAND_TIME);
    child.stdout.on('data', (chunk: Buffer) => {
      size += chunk.length;
      if (size > MAX_SECRET_FILE) stop('prints more than 1 MiB');
      else pieces.push(chunk);
    });
    child.once('error', (error: NodeJS.ErrnoException) => {
      clearTimeout(timer);
      resolve({
        problem: error.code === 'ENOENT' ? 'names a program that does not exist' : `cannot be run (${error.code})`,
      });
    });
    child.once('close', (code, signal) => {
      clearTimeout(timer);
      if (code === 0) resolve({ text: Buffer.concat(pieces).toString('utf8') });
      else resolve({ problem: stopped ?? (code === null ? `was ended by ${signal}` : `ended with exit code ${code}`) });
    });
  });
}
