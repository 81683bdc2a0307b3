// Changing text at the source ranges of its YAML nodes, so that comments, order and layout survive. What an edit means is said by config-edit.ts and
// edit-ways.ts; they read the text again, and anything but the intended difference refuses the edit.
import { isDeepStrictEqual } from 'node:util';
import {
  type CST,
  type Document,
  isAlias,
  isCollection,
  isMap,
  isScalar,
  isSeq,
  type Node,
  type Pair,
  Scalar,
  type YAMLMap,
  type YAMLSeq,
} from 'yaml';
import { ConfigError } from './config-error.ts';
import { type ParsedConfig, parseConfig } from './config-file.ts';
import { pairOf, type YamlSource } from './yaml-source.ts';

/** What is wrong with one field of what was asked for: `port`, `chains[0]`; '' = with all of it. */
export interface FieldProblem {
  readonly field: string;
  readonly message: string;
}

/** The edit cannot be made; the sentence says why. The text is as it was. */
export class EditError extends Error {
  readonly problems: readonly FieldProblem[];

  constructor(message: string, cause?: unknown, problems: readonly FieldProblem[] = []) {
    super(message, { cause });
    this.name = 'EditError';
    this.problems = problems;
  }
}

/** What is said where nothing better can be. */
export const byHand = (cause?: unknown) =>
  new EditError('The file is written in a way that this change cannot be made to; make it by hand.', cause);

/** The edited text, read. Throws EditError where it is not in order any more. */
export function reread(editing: Editing, text: string, fileName: string): ParsedConfig {
  const mark = text.startsWith('\uFEFF') ? '\uFEFF' : '';
  try {
    return parseConfig(mark + editing.result(), fileName);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    const tooMany = error.problems.find(problem => problem.message.includes('sites and rules by hand'));
    throw tooMany
      ? new EditError(`The file would hold ${tooMany.message.replace(/^sites: /, '')}.`, error)
      : byHand(error);
  }
}

/** A word as YAML reads it back: quoted where a plain one would be a number, a truth value or something else. */
export function formatScalar(text: string): string {
  const plain = /^[\p{L}\p{N}_.=][\p{L}\p{N}_.=/-]*$/u.test(text);
  const other = /^(?:null|true|false|[-+]?\.inf|\.nan|[-+]?(?:0x[0-9a-f]+|0o[0-7]+|\d*\.?\d*(?:e[-+]?\d+)?))$/i.test(
    text,
  );
  return plain && !other ? text : JSON.stringify(text);
}

/** A value as it is read out of YAML. */
export type Plain = string | number | boolean | null | readonly Plain[] | { readonly [key: string]: Plain };

/** A plain word, or the URL of a proxy, as people write it; anything else in quotes. */
const URL_WORD = /^[a-z][a-z0-9+.-]*:\/\/[\w.~%!$'*+@:/?=;()-]*[\w/]$/i;

/** The value on one line. */
export function formatFlow(value: Plain): string {
  if (typeof value === 'string') return URL_WORD.test(value) ? value : formatScalar(value);
  if (Array.isArray(value)) return `[${value.map(formatFlow).join(', ')}]`;
  if (typeof value !== 'object' || value === null) return String(value);
  const pairs = Object.entries(value as Record<string, Plain>).map(
    ([key, inner]) => `${formatScalar(key)}: ${formatFlow(inner)}`,
  );
  return pairs.length === 0 ? '{}' : `{ ${pairs.join(', ')} }`;
}

interface Splice {
  readonly from: number;
  readonly to: number;
  readonly text: string;
}

type FlowToken = CST.FlowCollection;

/** One edit in the making. */
export class Editing {
  readonly #body: string;
  readonly #document: Document;
  readonly #root: YAMLMap | null;
  readonly #eol: string;
  readonly #splices: Splice[] = [];

  constructor({ document }: { readonly document: YamlSource }) {
    this.#body = document.body;
    this.#document = document.document;
    const { contents } = document.document;
    this.#root = isMap(contents) ? contents : null;
    if (!this.#root && isScalar(contents) && contents.source) throw byHand(); // a document that says `null`
    const newline = this.#body.indexOf('\n');
    this.#eol = newline > 0 && this.#body[newline - 1] === '\r' ? '\r\n' : '\n';
  }

  /** The text with the splices made. */
  result(): string {
    let text = this.#body;
    for (const { from, to, text: put } of this.#splices.toSorted((a, b) => b.from - a.from)) {
      text = text.slice(0, from) + put + text.slice(to);
    }
    return text;
  }

  addToMap(section: string, key: string, value: Plain): void {
    this.#add(section, `${formatScalar(key)}: ${formatFlow(value)}`, '', '{', '}');
  }

  addToList(section: string, item: string): void {
    this.#add(section, item, '- ', '[', ']');
  }

  setInMap(section: string, key: string, value: string): void {
    const pair = this.#pair(section, key).pair;
    let node = pair.value as Node | null;
    if (isMap(node)) node = (pairOf(node as never, 'route')?.value as Node | null) ?? null;
    if (!node?.range || !(isScalar(node) || isAlias(node))) throw byHand();
    const [from, to] = node.range;
    const isBlock = isScalar(node) && (node.type === Scalar.BLOCK_FOLDED || node.type === Scalar.BLOCK_LITERAL);
    this.#splices.push({ from, to, text: formatScalar(value) + (isBlock ? this.#eol : '') });
  }

  /** Sets one key of an entry's long form; a short form (the value of `short`) is made into a long one. */
  setInEntry(section: string, entry: string, short: string, key: string, value: string): void {
    const node = this.#pair(section, entry).pair.value as Node | null;
    if (isMap(node)) {
      const there = pairOf(node as never, key);
      if (there) return this.#replace(there.value as Node | null, value);
      if (node.flow) return this.#addToFlow(node, `${key}: ${value}`);
      const last = node.items.at(-1)!;
      return this.#insertLineAfter(endOf(last), `${this.#indentOf(startOf(last))}${key}: ${value}`);
    }
    const [from, to] = isScalar(node) && node.range ? node.range : [0, 0];
    this.#replace(node, `{ ${short}: ${this.#body.slice(from, to)}, ${key}: ${value} }`);
  }

  /**
   * Brings the value of an entry nearer to `after` by one change, which touches no more than it must. Gives back false where it is that already: call
   * it on the text as it has become until then.
   */
  approach(section: string, entry: string, after: Plain): boolean {
    return this.#approach(this.#pair(section, entry).pair.value as Node | null, after);
  }

  #approach(node: Node | null, after: Plain): boolean {
    if (node !== null && isDeepStrictEqual(this.#plainOf(node), after)) return false;
    if (isMap(node) && isPlainMap(after) && Object.keys(after).length > 0 && node.items.length > 0) {
      for (const pair of node.items) {
        const key = String(this.#plainOf(pair.key as Node));
        if (Object.hasOwn(after, key)) {
          if (pair.value === null && after[key] === null) continue;
          if (this.#approach(pair.value as Node | null, after[key]!)) return true;
        } else if (node.items.length > 1) {
          this.#removePair(node, pair as Pair);
          return true;
        }
      }
      const missing = Object.keys(after).find(key => !pairOf(node as never, key));
      if (missing !== undefined) {
        const entry = `${formatScalar(missing)}: ${formatFlow(after[missing]!)}`;
        if (node.flow) this.#addToFlow(node, entry);
        else {
          const last = node.items.at(-1)!;
          this.#insertLineAfter(endOf(last), `${this.#indentOf(startOf(last))}${entry}`);
        }
        return true;
      }
    } else if (isSeq(node) && Array.isArray(after) && after.length > 0 && node.items.length > 0) {
      return this.#approachList(node, after as readonly Plain[]);
    }
    this.#replaceWhole(node, formatFlow(after));
    return true;
  }

  #approachList(list: YAMLSeq, after: readonly Plain[]): boolean {
    const items = list.items as Node[];
    const before = items.map(item => this.#plainOf(item));
    const same = (i: number, j: number) => isDeepStrictEqual(before[i], after[j]);
    let head = 0;
    while (head < before.length && head < after.length && same(head, head)) head++;
    let tail = 0;
    while (
      tail < before.length - head &&
      tail < after.length - head &&
      same(before.length - 1 - tail, after.length - 1 - tail)
    )
      tail++;
    const old = items.slice(head, items.length - tail);
    const wanted = after.slice(head, after.length - tail);
    if (old.length === wanted.length && old.length === 1) return this.#approach(old[0]!, wanted[0]!);
    if (!list.flow) {
      const chunks = this.#linesOf(list);
      const indent = this.#indentOf(dashOf(list));
      const reused = new Set<number>();
      const lines = wanted.map(value => {
        const i = before.findIndex(
          (one, at) => at >= head && at < items.length - tail && !reused.has(at) && isDeepStrictEqual(one, value),
        );
        if (i < 0) return `${indent}- ${formatFlow(value)}`;
        reused.add(i);
        return this.#body.slice(chunks[i]!.from, chunks[i]!.to);
      });
      if (old.length === 0) {
        const [at, text] =
          head === 0
            ? [chunks[0]!.from, `${lines.join(this.#eol)}${this.#eol}`]
            : [chunks[head - 1]!.to, `${this.#eol}${lines.join(this.#eol)}`];
        this.#splices.push({ from: at, to: at, text });
      } else {
        const from = chunks[head]!.from;
        const to = chunks[items.length - tail - 1]!.to;
        // Without lines in their place, the line end goes, too.
        const end = lines.length === 0 ? Math.min(this.#body.length, to + this.#eol.length) : to;
        this.#splices.push({ from, to: end, text: lines.join(this.#eol) });
      }
      return true;
    }
    if (old.length === 0) {
      if (head === items.length) for (const value of wanted.slice(0, 1)) this.#addToFlow(list, formatFlow(value));
      else {
        const at = rangeOf(items[head])[0];
        this.#splices.push({ from: at, to: at, text: wanted.map(value => `${formatFlow(value)}, `).join('') });
      }
      return true;
    }
    if (wanted.length === 0) {
      const [from, to] = [rangeOf(items[head])[0], endOf(items[head]!)];
      this.#removeFromFlow(list.srcToken as FlowToken, head, from, to);
      return true;
    }
    const [from, to] = [rangeOf(old[0])[0], endOf(old.at(-1)!)];
    const replaced = this.#body.slice(from, to);
    if (/#/.test(replaced) && replaced.includes('\n')) throw byHand();
    const gap = replaced.includes('\n')
      ? `,${this.#eol}${/^[ \t]*/.exec(this.#body.slice(this.#lineStart(from)))![0]}`
      : ', ';
    this.#splices.push({ from, to, text: wanted.map(formatFlow).join(gap) });
    return true;
  }

  /** The lines of each item of a block list, from those of comments above it to the end of its last line. */
  #linesOf(list: YAMLSeq): { from: number; to: number }[] {
    const token = list.srcToken as CST.BlockSequence;
    const dashes = token.items.flatMap(({ start, value }) => {
      const dash = start.find(({ type }) => type === 'seq-item-ind');
      return dash && value ? [dash.offset] : [];
    });
    if (dashes.length !== list.items.length) throw byHand();
    let above = this.#lineStart(dashes[0]!);
    return dashes.map((dash, i) => {
      this.#indentOf(dash);
      const from = i === 0 ? this.#lineStart(dash) : above;
      const to = this.#lineEnd(endOf(list.items[i] as Node));
      above = Math.min(this.#body.length, to + 1);
      return { from, to: this.#eol === '\r\n' && this.#body[to - 1] === '\r' ? to - 1 : to };
    });
  }

  /** Calls an entry by another name. */
  renameKey(section: string, key: string, to: string): void {
    const [from, end] = rangeOf(this.#pair(section, key).pair.key);
    this.#splices.push({ from, to: end, text: formatScalar(to) });
  }

  /** Puts another word for each that `names` picks, by its place in the file. */
  replaceWords(names: (path: readonly (string | number)[], word: string) => boolean, to: string): void {
    const walk = (node: unknown, path: readonly (string | number)[]): void => {
      if (isMap(node))
        for (const pair of node.items) walk(pair.value, [...path, String(this.#plainOf(pair.key as Node))]);
      else if (isSeq(node)) node.items.forEach((item, i) => walk(item, [...path, i]));
      else if (isScalar(node) && typeof node.value === 'string' && names(path, node.value))
        this.#replace(node, formatScalar(to));
    };
    walk(this.#root, []);
  }

  #plainOf(node: Node | null): unknown {
    return readNode(node, this.#document);
  }

  #replaceWhole(node: Node | null, text: string): void {
    if (!node?.range) throw byHand();
    const to = endOf(node);
    const before = this.#body.slice(this.#lineStart(node.range[0]), node.range[0]);
    // What stands in lines of its own below its key comes up to it.
    if (isCollection(node) && !node.flow) {
      if (!/^[ \t]*$/.test(before)) throw byHand();
      const start = this.#body.slice(0, node.range[0]).search(/\s*$/);
      if (this.#body[start - 1] !== ':' || this.#body.slice(node.range[0], to).includes('#')) throw byHand();
      this.#splices.push({ from: start, to, text: ` ${text}` });
      return;
    }
    const isBlock = isScalar(node) && (node.type === Scalar.BLOCK_FOLDED || node.type === Scalar.BLOCK_LITERAL);
    if (isBlock) throw byHand();
    const bare = node.range[0] === node.range[1];
    this.#splices.push({ from: node.range[0], to, text: bare ? ` ${text}` : text });
  }

  #replace(node: Node | null, text: string): void {
    if (!isScalar(node) || !node.range || node.type === Scalar.BLOCK_FOLDED || node.type === Scalar.BLOCK_LITERAL)
      throw byHand();
    this.#splices.push({ from: node.range[0], to: node.range[1], text });
  }

  removeFromMap(section: string, key: string): void {
    const { map, pair } = this.#pair(section, key);
    this.#removePair(map, pair);
  }

  #removePair(map: YAMLMap, pair: Pair): void {
    const from = startOf(pair);
    const to = endOf(pair);
    const index = map.items.indexOf(pair as never);
    if (map.flow) this.#removeFromFlow(map.srcToken as FlowToken, index, from, to);
    else if (/^[ \t]*(\?[ \t]+)?$/.test(this.#body.slice(this.#lineStart(from), from))) this.#removeLines(from, to);
    else throw byHand();
  }

  #pair(section: string, key: string): { map: YAMLMap; pair: Pair } {
    const map = this.#root && pairOf(this.#root as never, section)?.value;
    if (!isMap(map)) throw byHand();
    const pair = pairOf(map as never, key);
    if (!pair) throw byHand();
    return { map, pair };
  }

  /** Adds an entry at the end of a section, making the section where there is none. `mark` stands before it in block style. */
  #add(section: string, entry: string, mark: string, open: string, close: string): void {
    const root = this.#root;
    const pair = root ? pairOf(root as never, section) : undefined;
    if (!pair) {
      if (root?.flow) return this.#addToFlow(root, `${section}: ${open} ${entry} ${close}`);
      const indent = root ? this.#indentOf(startOf(root.items[0]!)) : '';
      const lines = `${indent}${section}:${this.#eol}${indent}${this.#step()}${mark}${entry}`;
      return this.#appendLines(lines);
    }
    const node = pair.value as Node | null;
    if (isEmpty(node)) {
      const bare = !node?.range || node.range[0] === node.range[1];
      const colon = colonOf(pair);
      if (root!.flow) {
        if (!bare && isCollection(node)) return this.#addToFlow(node, entry);
        const [from, to] = bare ? [colon, colon] : node!.range!;
        this.#splices.push({ from, to, text: `${bare ? ' ' : ''}${open} ${entry} ${close}` });
        return;
      }
      if (!bare && this.#body.slice(node!.range![0], node!.range![1]).includes('#')) {
        return this.#addToFlow(node as YAMLMap | YAMLSeq, entry);
      }
      let end = colon;
      if (!bare) {
        const [valueStart, valueEnd] = node!.range!;
        const from = /^[ \t]*$/.test(this.#body.slice(colon, valueStart)) ? colon : valueStart;
        this.#splices.push({ from, to: valueEnd, text: '' });
        end = valueEnd;
      }
      const indent = this.#indentOf(startOf(root!.items[0]!)) + this.#step();
      return this.#insertLineAfter(end, `${indent}${mark}${entry}`);
    }
    if (!isMap(node) && !isSeq(node)) throw byHand();
    if (node.flow) return this.#addToFlow(node, entry);
    const last = node.items.at(-1) as Pair | Node;
    const first = isSeq(node) ? dashOf(node) : startOf(last as Pair);
    this.#insertLineAfter(endOf(last), `${this.#indentOf(first)}${mark}${entry}`);
  }

  #addToFlow(collection: YAMLMap | YAMLSeq, entry: string): void {
    const token = collection.srcToken as FlowToken;
    const last = collection.items.at(-1) as Pair | Node | undefined;
    if (!last) {
      const at = token.start.offset + 1;
      this.#splices.push({ from: at, to: at, text: ` ${entry}${/\s/.test(this.#body[at] ?? '') ? '' : ' '}` });
      return;
    }
    const start = isSeq(collection) ? rangeOf(last as Node)[0] : startOf(last as Pair);
    const end = endOf(last);
    const afterLast = token.items[collection.items.length]?.start.find(({ type }) => type === 'comma');
    const closing = token.end.find(({ type }) => type === 'flow-map-end' || type === 'flow-seq-end')!;
    const put = afterLast ? afterLast.offset + 1 : end;
    const indent = this.#body.slice(this.#lineStart(start), start);
    if (/^[ \t]*$/.test(indent) && closing.offset > this.#lineEnd(put)) {
      if (!afterLast) this.#splices.push({ from: end, to: end, text: ',' });
      this.#insertLineAfter(put, `${indent}${entry}${afterLast ? ',' : ''}`);
    } else {
      this.#splices.push({ from: put, to: put, text: afterLast ? ` ${entry},` : `, ${entry}` });
    }
  }

  #removeFromFlow(token: FlowToken, index: number, from: number, to: number): void {
    const commaOf = (item?: CST.CollectionItem) => item?.start.find(({ type }) => type === 'comma')?.offset;
    const own = commaOf(token.items[index]);
    const next = commaOf(token.items[index + 1]);
    const before = this.#body.slice(this.#lineStart(from), from);
    const behind = this.#body.slice(to, this.#lineEnd(to));
    const aloneOnItsLines = /^[ \t]*$/.test(before) && /^[ \t]*,?[ \t]*(#.*)?\r?$/.test(behind);
    if (aloneOnItsLines && (next === undefined || next < this.#lineEnd(to))) this.#removeLines(from, to);
    else if (next !== undefined) {
      const gap = /^[ \t]*/.exec(this.#body.slice(next + 1))![0].length;
      this.#splices.push({ from, to: next + 1 + gap, text: '' });
    } else if (own !== undefined) {
      if (/^[ \t]*$/.test(this.#body.slice(own + 1, from))) this.#splices.push({ from: own, to, text: '' });
      else this.#splices.push({ from: own, to: own + 1, text: '' }, { from, to, text: '' });
    } else {
      const gap = /[ \t]*$/.exec(before)![0].length;
      this.#splices.push({ from: from - gap, to, text: '' });
    }
  }

  #removeLines(from: number, to: number): void {
    const start = this.#lineStart(from);
    const end = this.#lineEnd(to);
    if (end < this.#body.length) return void this.#splices.push({ from: start, to: end + 1, text: '' });
    // The last line has no newline: neither has the one that becomes the last.
    const newline = start === 0 ? 0 : this.#body[start - 2] === '\r' ? 2 : 1;
    this.#splices.push({ from: start - newline, to: end, text: '' });
  }

  #insertLineAfter(offset: number, line: string): void {
    const end = this.#lineEnd(offset);
    if (end === this.#body.length) this.#splices.push({ from: end, to: end, text: this.#eol + line });
    else this.#splices.push({ from: end + 1, to: end + 1, text: line + this.#eol });
  }

  #appendLines(lines: string): void {
    const end = this.#body.length;
    if (end === 0 || this.#body.endsWith('\n')) this.#splices.push({ from: end, to: end, text: lines + this.#eol });
    else this.#splices.push({ from: end, to: end, text: this.#eol + lines });
  }

  #lineStart(offset: number): number {
    return offset === 0 ? 0 : this.#body.lastIndexOf('\n', offset - 1) + 1;
  }

  /** Offset of the newline, or of the end of the text. */
  #lineEnd(offset: number): number {
    const newline = this.#body.indexOf('\n', offset);
    return newline < 0 ? this.#body.length : newline;
  }

  #indentOf(offset: number): string {
    const before = this.#body.slice(this.#lineStart(offset), offset);
    if (!/^[ \t]*(\?[ \t]+)?$/.test(before)) throw byHand();
    return /^[ \t]*/.exec(before)![0];
  }

  /** How far this file indents a section's entries. */
  #step(): string {
    for (const { value } of this.#root?.items ?? []) {
      if (!isMap(value) || value.flow || value.items.length === 0) continue;
      const step = this.#indentOf(startOf(value.items[0]!)).slice(
        this.#indentOf(startOf(this.#root!.items[0]!)).length,
      );
      if (step !== '') return step;
    }
    return '  ';
  }
}

function isPlainMap(value: Plain): value is { readonly [key: string]: Plain } {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** What a node says, aliases resolved. */
function readNode(node: Node | null, document: Document): unknown {
  if (isMap(node)) {
    const pairs = node.items.map(({ key, value }) => [
      String(readNode(key as Node, document)),
      readNode(value as Node | null, document),
    ]);
    return Object.fromEntries(pairs);
  }
  if (isSeq(node)) return node.items.map(item => readNode(item as Node, document));
  if (isAlias(node)) return readNode((node.resolve(document) as Node | undefined) ?? null, document);
  return isScalar(node) ? node.value : null;
}

function isEmpty(node: Node | null): boolean {
  return node === null || (isScalar(node) && node.value === null) || (isCollection(node) && node.items.length === 0);
}

function rangeOf(node: unknown): [number, number, number] {
  const range = (node as Node | null)?.range;
  if (!range) throw byHand();
  return range;
}

function startOf(pair: Pair): number {
  return rangeOf(pair.key)[0];
}

/** Where the colon of a pair ends. */
function colonOf(pair: Pair): number {
  const colon = pair.srcToken?.sep?.find(({ type }) => type === 'map-value-ind');
  if (!colon) throw byHand();
  return colon.offset + 1;
}

/** Where the last dash of a block list stands. */
function dashOf(list: YAMLSeq): number {
  const item = (list.srcToken as CST.BlockSequence | undefined)?.items.findLast(({ value }) => value);
  const dash = item?.start.find(({ type }) => type === 'seq-item-ind');
  if (!dash) throw byHand();
  return dash.offset;
}

/** Where what is written of an entry ends. (The range of a block collection runs on over comments that follow.) */
function endOf(entry: Pair | Node): number {
  if ('key' in entry) {
    const value = entry.value as Node | null;
    const bare = !value?.range || (isScalar(value) && value.range[0] === value.range[1]);
    return bare ? colonOf(entry) : endOf(value);
  }
  if (isCollection(entry) && !entry.flow && entry.items.length > 0) return endOf(entry.items.at(-1) as Pair | Node);
  const end = rangeOf(entry)[1];
  const isBlock = isScalar(entry) && (entry.type === Scalar.BLOCK_FOLDED || entry.type === Scalar.BLOCK_LITERAL);
  return isBlock ? end - 1 : end;
}
