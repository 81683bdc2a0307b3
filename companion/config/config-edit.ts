// Edits by the popup: each changes only the lines it concerns. The text is spliced at the source ranges of its nodes, so comments,
// order and layout survive; then it is read again, and anything but the intended difference refuses the edit.
import { isDeepStrictEqual } from 'node:util';
import {
  type CST,
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
import { BUILT_IN_ROUTES } from '../../shared/config/routes.ts';
import type { Config } from '../../shared/config.ts';
import type { ConfigRule, Site } from '../../shared/config/rules.ts';
import { formatMatcher, parseMatcher } from '../../shared/decision/parse-matcher.ts';
import type { Action, CacheMode } from '../../shared/decision/rule.ts';
import { ConfigError } from './config-error.ts';
import { type ParsedConfig, parseConfig } from './config-file.ts';
import { pairOf } from './yaml-source.ts';

/** The edit cannot be made; the sentence says why. The text is as it was. */
export class EditError extends Error {
  constructor(message: string, cause?: unknown) {
    super(message, { cause });
    this.name = 'EditError';
  }
}

/**
 * Turns a site on by a route (or `block`), off (`off`), or takes its entry away (null); gives back the new text of the file. `site` is
 * in the notation of the file; an entry of another spelling that means the same is the one that is changed.
 * Throws ConfigError where the text is not in order before the edit, EditError where the edit is refused.
 */
export function setSite(text: string, site: string, route: string | null, fileName = 'detour.yaml'): string {
  const before = parseConfig(text, fileName);
  const wanted = normalSite(site);
  const { routes } = before.config;
  const known = route === null || route === 'off' || isBuiltIn(route) || Object.hasOwn(routes, route);
  if (!known) throw new EditError(`There is no route "${route}" in the file.`);
  const written = Object.keys(before.config.sites).find(key => normalSite(key) === wanted);
  const was = written === undefined ? undefined : before.config.sites[written]!;
  if ((was === undefined ? null : routeOfSite(was)) === route) return text;

  const editing = new Editing(before);
  if (written === undefined) editing.addToMap('sites', site, route!);
  else if (route === null) editing.removeFromMap('sites', written);
  else editing.setInMap('sites', written, route);
  const after = reread(editing, text, fileName);

  const sites = Object.entries(before.config.sites);
  const expected =
    written === undefined
      ? [...sites, [site, after.config.sites[site]] as const]
      : route === null
        ? sites.filter(([key]) => key !== written)
        : sites.map(([key, value]) => [key, key === written ? after.config.sites[key] : value] as const);
  const changed = route === null ? undefined : after.config.sites[written ?? site];
  const took =
    route === null || (changed !== undefined && routeOfSite(changed) === route && changed.rank === was?.rank);
  // Keys are compared as sets: an object puts keys like "10" first.
  const asMeant = took && sameEntries(after.config.sites, expected) && sameBut('sites', before.config, after.config);
  if (!asMeant) throw byHand();
  return after.text;
}

/**
 * Lets the pages of a steered site reach this machine and its network, or no longer; gives back the new text of the file.
 * Throws ConfigError where the text is not in order before the edit, EditError where the edit is refused.
 */
export function setLocal(text: string, site: string, local: boolean, fileName = 'detour.yaml'): string {
  return setInSite(text, site, 'local', String(local), fileName, ({ local: _, ...action }) =>
    local ? { ...action, local } : action,
  );
}

/** How the answers of a steered site are cached; for the rest as setLocal. */
export function setCacheMode(text: string, site: string, cache: CacheMode, fileName = 'detour.yaml'): string {
  return setInSite(text, site, 'cache', cache, fileName, action => ({ ...action, cache }));
}

type Steered = Extract<Action, { do: 'route' }>;

/** Sets one key of a site that is steered, unless what it does would stay the same. */
function setInSite(
  text: string,
  site: string,
  key: string,
  value: string,
  fileName: string,
  change: (action: Steered) => Steered,
): string {
  const before = parseConfig(text, fileName);
  const wanted = normalSite(site);
  const written = Object.keys(before.config.sites).find(key => normalSite(key) === wanted);
  const was = written === undefined ? undefined : before.config.sites[written]!;
  if (written === undefined || was?.action.do !== 'route')
    throw new EditError(`The file steers no site "${site}": turn it on first.`);
  const action = change(was.action);
  if (isDeepStrictEqual(action, was.action)) return text;
  const editing = new Editing(before);
  editing.setInEntry('sites', written, 'route', key, value);
  const after = reread(editing, text, fileName);
  const changed = after.config.sites[written];
  const took = isDeepStrictEqual(changed?.action, action) && changed?.rank === was.rank;
  const expected = Object.entries(before.config.sites).map(
    ([key, value]) => [key, key === written ? changed : value] as const,
  );
  if (!took || !sameEntries(after.config.sites, expected) || !sameBut('sites', before.config, after.config))
    throw byHand();
  return after.text;
}

/**
 * Adds `{ host: …, allow: true }` at the end of the rules, unless such a rule stands there already; gives back the new text.
 * Throws ConfigError where the text is not in order before the edit, EditError where the edit is refused.
 */
export function addAllowRule(text: string, host: string, fileName = 'detour.yaml'): string {
  const before = parseConfig(text, fileName);
  const matcher = parseMatcher(host);
  if (typeof matcher === 'string') throw new EditError(`${matcher}.`);
  const rule: ConfigRule = { matcher, rank: undefined, action: { do: 'allow' } };
  if (before.config.rules.some(other => isDeepStrictEqual(other, rule))) return text;
  const editing = new Editing(before);
  editing.addToList('rules', `{ host: ${formatScalar(host)}, allow: true }`);
  const after = reread(editing, text, fileName);
  const asMeant =
    isDeepStrictEqual(after.config.rules, [...before.config.rules, rule]) &&
    sameBut('rules', before.config, after.config);
  if (!asMeant) throw byHand();
  return after.text;
}

/** The route that a site goes by, or `off` or `block`. */
export function routeOfSite({ action }: Site): string {
  return action.do === 'route' ? action.route : action.do;
}

const isBuiltIn = (route: string) => (BUILT_IN_ROUTES as readonly string[]).includes(route);

function normalSite(site: string): string {
  const matcher = parseMatcher(site);
  if (typeof matcher === 'string') throw new EditError(`${matcher}.`);
  return formatMatcher(matcher);
}

const byHand = (cause?: unknown) =>
  new EditError('The file is written in a way that this change cannot be made to; make it by hand.', cause);

function reread(editing: Editing, text: string, fileName: string): ParsedConfig {
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

function sameEntries(sites: Config['sites'], expected: readonly (readonly [string, Site | undefined])[]): boolean {
  return isDeepStrictEqual(sites, Object.fromEntries(expected)) && Object.keys(sites).length === expected.length;
}

function sameBut(section: 'sites' | 'rules', before: Config, after: Config): boolean {
  return isDeepStrictEqual({ ...before, [section]: null }, { ...after, [section]: null });
}

/** A word as YAML reads it back: quoted where a plain one would be a number, a truth value or something else. */
export function formatScalar(text: string): string {
  const plain = /^[\p{L}\p{N}_.=][\p{L}\p{N}_.=/-]*$/u.test(text);
  const other = /^(?:null|true|false|[-+]?\.inf|\.nan|[-+]?(?:0x[0-9a-f]+|0o[0-7]+|\d*\.?\d*(?:e[-+]?\d+)?))$/i.test(
    text,
  );
  return plain && !other ? text : JSON.stringify(text);
}

interface Splice {
  readonly from: number;
  readonly to: number;
  readonly text: string;
}

type FlowToken = CST.FlowCollection;

/** One edit in the making. */
class Editing {
  readonly #body: string;
  readonly #root: YAMLMap | null;
  readonly #eol: string;
  readonly #splices: Splice[] = [];

  constructor({ document }: ParsedConfig) {
    this.#body = document.body;
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

  addToMap(section: string, key: string, value: string): void {
    this.#add(section, `${formatScalar(key)}: ${formatScalar(value)}`, '', '{', '}');
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

  #replace(node: Node | null, text: string): void {
    if (!isScalar(node) || !node.range || node.type === Scalar.BLOCK_FOLDED || node.type === Scalar.BLOCK_LITERAL)
      throw byHand();
    this.#splices.push({ from: node.range[0], to: node.range[1], text });
  }

  removeFromMap(section: string, key: string): void {
    const { map, pair, index } = this.#pair(section, key);
    const from = startOf(pair);
    const to = endOf(pair);
    if (map.flow) this.#removeFromFlow(map.srcToken as FlowToken, index, from, to);
    else if (/^[ \t]*(\?[ \t]+)?$/.test(this.#body.slice(this.#lineStart(from), from))) this.#removeLines(from, to);
    else throw byHand();
  }

  #pair(section: string, key: string): { map: YAMLMap; pair: Pair; index: number } {
    const map = this.#root && pairOf(this.#root as never, section)?.value;
    if (!isMap(map)) throw byHand();
    const pair = pairOf(map as never, key);
    if (!pair) throw byHand();
    return { map, pair, index: map.items.indexOf(pair as never) };
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
