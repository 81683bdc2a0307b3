// YAML text in, a plain value out, and the way back from any place in the value to its line and column.
// The text is somebody's hand work or somebody's attack: size, depth, aliases and nodes are bounded, duplicate keys refused.
import {
  Composer,
  CST,
  type Document,
  isAlias,
  isMap,
  isScalar,
  isSeq,
  Lexer,
  type Pair,
  Parser,
  Scalar,
  type YAMLError,
} from 'yaml';
import { allSteps } from '../../shared/steps.ts';
import { type Bytes, MiB } from '../../shared/units.ts';
import { ConfigError, type ConfigProblem, MAX_PROBLEMS } from './config-error.ts';

/** The largest file that is read. */
export const MAX_CONFIG_SIZE: Bytes = 4 * MiB;
const MAX_DEPTH = 32;
/** Of the tokens in one step. */
const LEXEMES = 1_000;
/** Values in the whole file, counting again what aliases repeat. */
const MAX_VALUES = 200_000;

/** Keys and indices from the root to a value. */
export type Path = readonly (string | number)[];

/** Keys and indices as they stand in sentences: `routes.work[0][1]`. */
export function formatPath(path: Path): string {
  return path.map((key, i) => (typeof key === 'number' ? `[${key}]` : i === 0 ? key : `.${key}`)).join('');
}

/** A place in the text. */
export interface Position {
  readonly line: number;
  readonly column: number;
}

/** Text that has been read, with its nodes. Offsets in nodes are offsets in `body`. */
export interface YamlSource {
  readonly value: unknown;
  /** The text without its byte order mark. */
  readonly body: string;
  readonly document: Document;
  /** Duplicate keys and the like: the value is whole, yet not to be used. */
  readonly problems: readonly ConfigProblem[];
  /**
   * Where a value (or, `at` = key, its key) stands, and the path that was found. Keys that a short form leaves out are passed over, so
   * `sites.example.com.route` leads to `work` in `example.com: work`.
   */
  locate(path: Path, at: 'key' | 'value'): Position & { path: Path };
}

/** Reads YAML 1.2 (core schema). Throws as yamlSteps does. */
export function readYaml(text: string, fileName: string): YamlSource {
  return allSteps(yamlSteps(text, fileName));
}

/** The same in steps of some milliseconds. Throws ConfigError where it is not YAML, or more of it than a configuration has. */
export function* yamlSteps(text: string, fileName: string): Generator<undefined, YamlSource> {
  const body = text.startsWith('\uFEFF') ? text.slice(1) : text;
  const fail = (problems: readonly ConfigProblem[]): never => {
    throw new ConfigError(fileName, problems);
  };
  if (body.length > MAX_CONFIG_SIZE) fail([{ message: 'is larger than 4 MiB; put many hosts in a list file' }]);
  const positionOf = linesOf(body);
  const at = (offset: number, message: string): ConfigProblem => ({ ...positionOf(offset), message });

  const { tokens, strayAliases, openQuote, tooDeepAt } = yield* tokenize(body);
  if (tooDeepAt !== null) fail([at(tooDeepAt, `is nested more than ${MAX_DEPTH} levels deep`)]);
  if (strayAliases.length > 0) {
    // The rest of the grammar reads differently around these, so nothing else is said of the file.
    fail(strayAliases.slice(0, MAX_PROBLEMS).map(({ offset, name }) => at(offset, aboutStar(name))));
  }
  if (openQuote !== null) fail([at(openQuote, 'is not valid YAML: this quote is never closed')]);
  yield;
  const openBracket = findOpenBracket(tokens);
  if (openBracket !== null) {
    fail([
      at(openBracket, `is not valid YAML: this ${body[openBracket]} is never closed, or what it holds is not indented`),
    ]);
  }

  const [document, another] = [
    ...new Composer({
      version: '1.2',
      schema: 'core',
      merge: false,
      uniqueKeys: false,
      keepSourceTokens: true,
    }).compose(tokens, true, body.length),
  ] as (Document | undefined)[];
  if (another) fail([at(another.range?.[0] ?? 0, 'is a second document; the file holds one')]);
  if (document!.errors.length > 0) {
    // One fault brings others along on its line.
    const byLine = new Map<number, ConfigProblem>();
    for (const error of document!.errors) {
      const problem = at(error.pos[0], `is not valid YAML: ${sentenceOf(error)}`);
      if (byLine.size < MAX_PROBLEMS && !byLine.has(problem.line!)) byLine.set(problem.line!, problem);
    }
    fail([...byLine.values()]);
  }

  yield;
  const problems: ConfigProblem[] = [];
  const complain = (offset: number, message: string) => {
    if (problems.length < MAX_PROBLEMS) problems.push(at(offset, message));
  };
  const value = valueOf(document!, positionOf, complain);
  yield;
  return {
    value,
    body,
    document: document!,
    problems,
    locate: (path, where) => {
      const found = follow(document!, path, where);
      return { ...positionOf(found.offset), path: found.path };
    },
  };
}

/** The pair of a key as written; the first where there are several. */
export function pairOf(map: { items: readonly Pair[] }, key: string): Pair | undefined {
  return map.items.find(pair => keyText(pair.key) === key);
}

/** A key as a person reads it: `127.1` stays as written though YAML takes it for a number. Null where it is no scalar or empty. */
export function keyText(key: unknown): string | null {
  if (!isScalar(key)) return null;
  if (key.type === Scalar.PLAIN) return key.source === undefined || key.source === '' ? null : key.source;
  return String(key.value);
}

interface Tokens {
  readonly tokens: CST.Token[];
  /** Aliases that no anchor stands for: a bare star, or `*.example.com`. */
  readonly strayAliases: { offset: number; name: string }[];
  readonly openQuote: number | null;
  readonly tooDeepAt: number | null;
}

function* tokenize(body: string): Generator<undefined, Tokens> {
  const parser = new Parser();
  const tokens: CST.Token[] = [];
  const anchors = new Set<string>();
  const aliases: { offset: number; name: string }[] = [];
  let openQuote: number | null = null;
  let lexemes = 0;
  for (const lexeme of new Lexer().lex(body)) {
    if (++lexemes % LEXEMES === 0) yield;
    const { offset } = parser;
    switch (CST.tokenType(lexeme)) {
      case 'anchor':
        anchors.add(lexeme.slice(1));
        break;
      case 'alias':
        aliases.push({ offset, name: lexeme.slice(1) });
        break;
      case 'single-quoted-scalar':
      case 'double-quoted-scalar':
        if (lexeme.length < 2 || !lexeme.endsWith(lexeme[0]!)) openQuote ??= offset;
        break;
    }
    for (const token of parser.next(lexeme)) tokens.push(token);
    // The parser's stack holds a collection and its item for every level.
    if (parser.stack.length > MAX_DEPTH * 2) return { tokens, strayAliases: [], openQuote, tooDeepAt: offset };
  }
  for (const token of parser.end()) tokens.push(token);
  // `*: work` is read as an alias named ":", so the colon is not of the name that was meant.
  const strayAliases = aliases
    .filter(({ name }) => !anchors.has(name))
    .map(({ offset, name }) => ({ offset, name: name.endsWith(':') ? name.slice(0, -1) : name }));
  return { tokens, strayAliases, openQuote, tooDeepAt: null };
}

function aboutStar(name: string): string {
  const host = name.replace(/^\.+/, '');
  const instead = host === '' || host.includes('*') ? '.example.com' : `.${host}`;
  return `*${name} is an alias in YAML, not a wildcard: write ${instead} for subdomains only, ${instead.slice(1)} for all of it, or quote a * that is meant`;
}

/** Offset of the innermost flow collection that has no end, or null. */
function findOpenBracket(tokens: readonly CST.Token[]): number | null {
  for (const token of tokens) {
    if (token.type !== 'document' || !token.value) continue;
    const found = openIn(token.value);
    if (found !== null) return found;
  }
  return null;
}

function openIn(token: CST.Token): number | null {
  if (!('items' in token)) return null;
  for (const item of token.items) {
    for (const part of [item.key, item.value]) {
      const found = part ? openIn(part) : null;
      if (found !== null) return found;
    }
  }
  const isOpen = token.type === 'flow-collection' && !token.end.some(end => /^flow-(map|seq)-end$/.test(end.type));
  return isOpen ? token.start.offset : null;
}

/** The library's sentences, where they quote the text, are put otherwise: it may be a password. */
function sentenceOf(error: YAMLError): string {
  switch (error.code) {
    case 'BAD_DQ_ESCAPE':
      return 'a backslash in double quotes begins no known escape; use single quotes';
    case 'UNEXPECTED_TOKEN':
      return 'something stands here that does not belong';
    case 'TAG_RESOLVE_FAILED':
      return 'tags (a word after !) have no meaning here';
    case 'BAD_SCALAR_START':
      return 'a value that begins with this sign must be quoted';
    case 'BLOCK_AS_IMPLICIT_KEY':
      return 'a second "key: value" on one line; start a new line, or quote a value that has ": " in it';
    case 'TAB_AS_INDENT':
      return 'a tab cannot indent; use spaces';
    case 'MULTILINE_IMPLICIT_KEY':
    case 'KEY_OVER_1024_CHARS':
      return 'a key must stand on one line, with its colon';
    case 'BAD_ALIAS':
      return 'an alias or anchor without a usable name';
    case 'BAD_DIRECTIVE':
      return 'a directive (a line that begins with %) that has no meaning here';
    case 'MISSING_CHAR':
      return error.message === 'Implicit map keys need to be followed by map values'
        ? 'a colon and a space are missing behind this key'
        : lowerFirst(error.message);
    default:
      return lowerFirst(error.message);
  }
}

const lowerFirst = (sentence: string) => sentence.slice(0, 1).toLowerCase() + sentence.slice(1);

/** Nodes to plain values. Maps have no prototype, so that no key means anything by itself. */
function valueOf(
  document: Document,
  positionOf: (offset: number) => Position,
  complain: (offset: number, message: string) => void,
): unknown {
  let left = MAX_VALUES;
  const walk = (node: unknown, path: Path): unknown => {
    if (--left < 0 || path.length > MAX_DEPTH) {
      if (left !== -Infinity) complain(offsetOf(node), 'holds too much: aliases repeat it beyond measure');
      left = -Infinity;
      return null;
    }
    if (isAlias(node)) return walk(node.resolve(document), [...path, '*']);
    if (isScalar(node)) return node.value;
    if (isSeq(node)) return node.items.map((item, i) => walk(item, [...path, i]));
    if (!isMap(node)) return null;
    const map = Object.create(null) as Record<string, unknown>;
    const firstAt = new Map<string, number>();
    for (const pair of node.items) {
      const key = keyText(pair.key);
      const offset = offsetOf(pair.key) || offsetOf(node);
      if (key === null) complain(offset, 'has an entry without a plain key');
      else if (key === '__proto__') complain(offset, '"__proto__" cannot be a key');
      else if (firstAt.has(key)) {
        const { line } = positionOf(firstAt.get(key)!);
        complain(offset, `${formatPath([...path, key])}: duplicate key, first at line ${line}`);
      } else {
        firstAt.set(key, offset);
        map[key] = walk(pair.value, [...path, key]);
      }
      if (left < 0) break;
    }
    return map;
  };
  return walk(document.contents, []);
}

function follow(document: Document, path: Path, where: 'key' | 'value'): { offset: number; path: Path } {
  let node: unknown = document.contents;
  let offset = offsetOf(node);
  const found: (string | number)[] = [];
  const steps = path.length;
  for (const [i, step] of path.entries()) {
    if (isAlias(node)) node = node.resolve(document);
    if (isSeq(node)) {
      if (typeof step === 'string') continue; // chains, in the short form of a route
      if (!(step in node.items)) break;
      node = node.items[step];
      offset = offsetOf(node);
    } else if (isMap(node)) {
      const pair = pairOf(node as { items: readonly Pair[] }, String(step));
      if (!pair) break;
      node = pair.value;
      const empty = node === null || (isScalar(node) && node.value === null && !node.source);
      offset = offsetOf(empty || (where === 'key' && i === steps - 1) ? pair.key : node);
    } else break; // route, in the short form of a site
    found.push(step);
  }
  return { offset, path: found };
}

function offsetOf(node: unknown): number {
  return (node as { range?: [number, number, number] | null } | null)?.range?.[0] ?? 0;
}

/** Line and column of an offset. */
function linesOf(body: string): (offset: number) => Position {
  const starts = [0];
  for (let end = body.indexOf('\n'); end >= 0; end = body.indexOf('\n', end + 1)) starts.push(end + 1);
  return offset => {
    let low = 0;
    let high = starts.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (starts[middle]! <= offset) low = middle;
      else high = middle - 1;
    }
    return { line: low + 1, column: offset - starts[low]! + 1 };
  };
}
