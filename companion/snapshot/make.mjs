// Makes the companion's start snapshot, `.output/companion/detour.blob` (snapshot.ts says what it is for). It fits the Node that made it, with the
// same options for V8, on the same kind of processor, in the same place: bootstrap.mjs makes another where one of these changes.
import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';

export const SNAPSHOT = '.output/companion/detour.blob';
/** How a Node ends that cannot take up a snapshot: by its word for it, or by a fault. Node's option for it names the file, which is the other way to notice. */
const NODE_REFUSES = 14;
const FAULTS = new Set(['SIGSEGV', 'SIGABRT', 'SIGTRAP', 'SIGILL', 'SIGBUS']);

/**
 * Where a snapshot is made: elsewhere it has not been tried.
 * @param {string} platform
 */
export const hasSnapshots = platform => platform === 'linux';

/**
 * The arguments of Node for a companion: with the snapshot, where there is one.
 * @param {readonly string[]} args options for Node, and its script @param {string} root @param {NodeJS.ProcessEnv} env
 */
export function withSnapshot(args, root, env = process.env) {
  // Sockets are chosen when modules are loaded.
  if (env['DETOUR_SOCKETS'] !== undefined || !existsSync(path.join(root, SNAPSHOT))) return [...args];
  return [`--snapshot-blob=${path.join(root, SNAPSHOT)}`, ...args];
}

/**
 * Whether a process ended as one that could not take up its snapshot.
 * @param {number | null} code @param {string | null} signal
 */
export const couldNotLoad = (code, signal) => code === NODE_REFUSES || (signal !== null && FAULTS.has(signal));

/**
 * Makes the snapshot and tries it; throws when either fails, and leaves none then.
 * @param {(file: string, args: string[]) => Promise<unknown>} run runs a program; rejects unless it ends well
 * @param {string} node @param {readonly string[]} options for V8, those of the start @param {string} root of the sources
 * @param {string} folder where the bundle is
 */
export async function makeSnapshot(run, node, options, root, folder = path.join(root, path.dirname(SNAPSHOT))) {
  const blob = path.join(folder, path.basename(SNAPSHOT));
  const made = `${blob}.new`;
  rmSync(blob, { force: true });
  try {
    const rolldown = path.join(root, 'node_modules', 'rolldown', 'bin', 'cli.mjs');
    await run(node, [rolldown, '-c', path.join(root, 'rolldown.snapshot.config.ts'), '-d', folder]);
    const builder = path.join(folder, 'snapshot.cjs');
    await run(node, [...options, '--snapshot-blob', made, '--build-snapshot', builder]);
    writeFileSync(made, withoutCodeOfNode(readFileSync(made)));
    await run(node, [...options, `--snapshot-blob=${made}`, path.join(folder, 'detour.cjs'), 'version']);
    renameSync(made, blob);
  } finally {
    rmSync(made, { force: true });
  }
}

/**
 * The snapshot without the compiled code of all of Node's modules that ends it: 4 MB to read and to keep at every start, of which ours needs nothing, for what
 * it uses is compiled in the heap. (Node has an option to leave it out, which leaves out the compiled functions of the heap as well.) A snapshot that does not
 * end in such a list is given back as it is.
 * @param {Buffer} snapshot @returns {Buffer}
 */
export function withoutCodeOfNode(snapshot) {
  const at = codeOfNode(snapshot);
  if (at < 0) return snapshot;
  const rest = Buffer.from(snapshot.subarray(0, at + 8));
  rest.writeBigUInt64LE(0n, at); // a list of none
  return rest;
}

/** The longest name of a module of Node's. */
const LONGEST = 100;

/**
 * Where the list begins: a number, and so many pairs of a name and bytes, each led by its length, to the very end. -1 = nowhere.
 * @param {Buffer} snapshot
 */
function codeOfNode(snapshot) {
  const number = (/** @type {number} */ at) =>
    at + 8 <= snapshot.length ? Number(snapshot.readBigUInt64LE(at)) : Infinity;
  for (let at = snapshot.length - 8; at >= 0; at--) {
    // Most places are sorted out by two of the bytes.
    if (snapshot[at + 2] !== 0 || snapshot[at + 10] !== 0) continue;
    const count = number(at);
    if (count < 50 || count > 5_000) continue;
    let end = at + 8;
    for (let i = 0; i < count && end < snapshot.length; i++) {
      const name = number(end);
      if (name === 0 || name > LONGEST) end = Infinity;
      else end += 8 + name;
      end += 8 + number(end);
    }
    if (end === snapshot.length) return at;
  }
  return -1;
}
