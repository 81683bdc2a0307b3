// Regular expressions over host names that cost a look at each character and no more, whatever they say: the safe part of the notation is compiled to a
// table of states (a deterministic automaton), which is also what the browser's dialects carry. There are no back-references and no looking around;
// capital letters mean the small ones.

/** What names are made of; whatever else a host may hold is one more symbol. */
const ALPHABET = 'abcdefghijklmnopqrstuvwxyz0123456789-_.';
const OTHER = ALPHABET.length;
const ALL = (1n << BigInt(OTHER + 1)) - 1n;
const DIGITS = setOf('0123456789');
const WORD = DIGITS | setOf('abcdefghijklmnopqrstuvwxyz_');
const MAX_SOURCE = 1_000;
const MAX_DEPTH = 50;
const MAX_REPEATS = 253;
/** Of the automaton before it is made deterministic, and after. */
const MAX_STEPS = 4_000;
const MAX_STATES = 512;

/** A compiled expression, as JSON carries it. */
export interface NameRegex {
  /** The class of each symbol of the alphabet, as a character from "0" on. */
  readonly classes: string;
  /** Classes in all. */
  readonly width: number;
  /** Where a state goes with a class: `next[state * width + class]`. It begins in 0. */
  readonly next: readonly number[];
  /** A character a state: 0 not found yet, 1 found if the name ends here, 2 found, 3 never. */
  readonly ends: string;
}

/** The alphabet as the PAC has to know it. */
export const NAME_ALPHABET = ALPHABET;

type Node =
  | { readonly is: 'set'; readonly set: bigint }
  | { readonly is: 'row' | 'choice'; readonly parts: readonly Node[] }
  | { readonly is: 'repeat'; readonly part: Node; readonly least: number; readonly most: number }
  | { readonly is: 'begin' | 'end' };

/** Compiles an expression; a sentence where it cannot be. */
export function compileNameRegex(source: string): NameRegex | string {
  try {
    return determined(new Steps(parse(source)));
  } catch (error) {
    if (error instanceof Unfit) return `"${shorten(source)}" ${error.message}`;
    throw error;
  }
}

/** Whether it is found in a name. */
export function isFoundIn(regex: NameRegex, name: string): boolean {
  const { classes, width, next, ends } = regex;
  let state = 0;
  for (let i = 0; i < name.length; i++) {
    const end = ends.charCodeAt(state);
    if (end >= 50) return end === 50;
    const code = name.charCodeAt(i);
    const symbol = code < 128 ? SYMBOLS[code]! : OTHER;
    state = next[state * width + classes.charCodeAt(symbol) - 48]!;
  }
  const end = ends.charCodeAt(state);
  return end === 49 || end === 50;
}

/**
 * The same expression over whole http and https URLs, in the notation of RE2, which browsers' own rules have. Null where it has no short form.
 */
export function urlRegexOf(source: string): string | null {
  const tree = parse(source);
  const branches = tree.is === 'choice' ? tree.parts : [tree];
  const written: string[] = [];
  for (const branch of branches) {
    const parts = branch.is === 'row' ? branch.parts : [branch];
    const isAnchored = parts[0]?.is === 'begin';
    const rest = isAnchored ? parts.slice(1) : parts;
    if (rest.some(part => holdsBegin(part))) return null;
    written.push(`${isAnchored ? '' : '[^/:?#]*'}${rest.map(write).join('')}`);
  }
  const whole = `^https?://(?:${written.join('|')})`;
  // Browsers take no expression that needs much memory, and with one none at all.
  return whole.length > 200 || /\{\d*,?\d{2}/.test(whole) ? null : whole;
}

const SYMBOLS = Uint8Array.from({ length: 128 }, (_, code) => {
  const at = ALPHABET.indexOf(String.fromCharCode(code).toLowerCase());
  return at < 0 ? OTHER : at;
});

class Unfit extends Error {}

function shorten(text: string): string {
  return text.length > 60 ? `${text.slice(0, 60)}…` : text;
}

function setOf(letters: string): bigint {
  let set = 0n;
  for (const letter of letters) set |= 1n << BigInt(ALPHABET.indexOf(letter));
  return set;
}

// Reading ----------------------------------------------------------------------------------------------------------------------------

function parse(source: string): Node {
  if (source.length > MAX_SOURCE) throw new Unfit(`is longer than ${MAX_SOURCE} characters`);
  if (source === '') throw new Unfit('is empty');
  const text = source.toLowerCase();
  let at = 0;
  let depth = 0;

  const choice = (): Node => {
    if (++depth > MAX_DEPTH) throw new Unfit(`is nested more than ${MAX_DEPTH} levels deep`);
    const parts = [row()];
    while (text[at] === '|') {
      at++;
      parts.push(row());
    }
    depth--;
    return parts.length === 1 ? parts[0]! : { is: 'choice', parts };
  };
  const row = (): Node => {
    const parts: Node[] = [];
    while (at < text.length && text[at] !== '|' && text[at] !== ')') parts.push(repeated(one()));
    return parts.length === 1 ? parts[0]! : { is: 'row', parts };
  };
  const repeated = (part: Node): Node => {
    const match = /^(?:[*+?]|\{(\d{1,4})(,(\d{0,4}))?\})\??/.exec(text.slice(at, at + 14));
    if (!match) return part;
    if (part.is === 'begin' || part.is === 'end') throw new Unfit('repeats an anchor');
    at += match[0].length;
    if (/^(?:[*+?]|\{\d)/.test(text.slice(at, at + 2))) throw new Unfit('has two repetitions in a row');
    const sign = match[0][0];
    const least = sign === '{' ? Number(match[1]) : sign === '+' ? 1 : 0;
    const most =
      sign === '?'
        ? 1
        : sign !== '{'
          ? Infinity
          : match[2] === undefined
            ? least
            : match[3]
              ? Number(match[3])
              : Infinity;
    if (least > MAX_REPEATS || (most !== Infinity && most > MAX_REPEATS) || most < least)
      throw new Unfit(`has a repetition that is none, or of more than ${MAX_REPEATS}`);
    return { is: 'repeat', part, least, most };
  };
  const one = (): Node => {
    const letter = text[at++]!;
    switch (letter) {
      case '^':
        return { is: 'begin' };
      case '$':
        return { is: 'end' };
      case '.':
        return { is: 'set', set: ALL };
      case '(': {
        if (text[at] === '?') {
          if (text.slice(at, at + 2) !== '?:') throw new Unfit('looks around or names a group, which is not read here');
          at += 2;
        }
        const inside = choice();
        if (text[at++] !== ')') throw new Unfit('has a "(" that is never closed');
        return inside;
      }
      case '[':
        return { is: 'set', set: classOf() };
      case '\\':
        return { is: 'set', set: escaped(false) };
      case '*':
      case '+':
      case '?':
        throw new Unfit(`repeats nothing with "${letter}"`);
      default:
        return { is: 'set', set: literal(letter) };
    }
  };
  const literal = (letter: string): bigint => {
    if (!ALPHABET.includes(letter)) throw new Unfit(`has a "${letter}", which no host name holds`);
    return setOf(letter);
  };
  const escaped = (inClass: boolean): bigint => {
    const letter = text[at++];
    if (letter === undefined) throw new Unfit('ends with a backslash');
    // Capital letters are gone from `text`, and mean the opposite here.
    const isOpposite = source[at - 1] !== letter;
    if (letter === 'd') return isOpposite ? ALL & ~DIGITS : DIGITS;
    if (letter === 'w') return isOpposite ? ALL & ~WORD : WORD;
    if (letter === 's') return isOpposite ? ALL : 0n;
    if (/[a-z0-9]/.test(letter)) throw new Unfit(`has "\\${letter}", which is not read here`);
    return inClass ? maybe(letter) : literal(letter);
  };
  const maybe = (letter: string) => (ALPHABET.includes(letter) ? setOf(letter) : 0n);
  const classOf = (): bigint => {
    const isNegated = text[at] === '^';
    if (isNegated) at++;
    let set = 0n;
    for (let isFirst = true; text[at] !== ']' || isFirst; isFirst = false) {
      const letter = text[at];
      if (letter === undefined) throw new Unfit('has a "[" that is never closed');
      if (letter === ']' && isFirst) throw new Unfit('has an empty class "[]"');
      at++;
      if (letter === '\\') {
        set |= escaped(true);
        continue;
      }
      if (text[at] === '-' && text[at + 1] !== undefined && text[at + 1] !== ']' && text[at + 1] !== '\\') {
        const last = text[at + 1]!;
        if (last < letter) throw new Unfit(`has a range "${letter}-${last}" that goes backwards`);
        for (const one of ALPHABET) if (one >= letter && one <= last) set |= setOf(one);
        at += 2;
      } else set |= maybe(letter);
    }
    at++;
    return isNegated ? ALL & ~set : set;
  };

  const tree = choice();
  if (at < text.length) throw new Unfit('has a ")" that is never opened');
  return tree;
}

function holdsBegin(node: Node): boolean {
  switch (node.is) {
    case 'begin':
      return true;
    case 'repeat':
      return holdsBegin(node.part);
    case 'row':
    case 'choice':
      return node.parts.some(holdsBegin);
    default:
      return false;
  }
}

function write(node: Node): string {
  switch (node.is) {
    case 'set': {
      const isWide = (node.set & (1n << BigInt(OTHER))) !== 0n;
      const letters = [...ALPHABET]
        .filter(letter => ((node.set & setOf(letter)) !== 0n) !== isWide)
        .map(letter => (letter === '-' ? '\\-' : letter))
        .join('');
      return isWide ? `[^/:?#${letters}]` : letters === '' ? '[^\\x00-\\x{10ffff}]' : `[${letters}]`;
    }
    case 'row':
      return node.parts.map(write).join('');
    case 'choice':
      return `(?:${node.parts.map(write).join('|')})`;
    case 'repeat':
      return `(?:${write(node.part)}){${node.least},${node.most === Infinity ? '' : node.most}}`;
    case 'begin':
      return '';
    case 'end':
      return '(?:[/:?#]|$)';
  }
}

// Compiling --------------------------------------------------------------------------------------------------------------------------

/** The automaton that tries all ways at once: steps with one set each, and free ones between them. */
class Steps {
  readonly sets: bigint[] = [];
  readonly after: number[] = [];
  readonly free: number[][] = [];
  readonly anchors: ('begin' | 'end' | undefined)[] = [];
  readonly first: number;
  readonly last: number;

  constructor(tree: Node) {
    this.last = this.step();
    this.first = this.build(tree, this.last);
  }

  private step(): number {
    if (this.free.length >= MAX_STEPS) throw new Unfit('is too large');
    this.free.push([]);
    this.sets.push(0n);
    this.after.push(-1);
    this.anchors.push(undefined);
    return this.free.length - 1;
  }

  /** Where to begin, so that it ends in `to`. */
  private build(node: Node, to: number): number {
    switch (node.is) {
      case 'set': {
        const step = this.step();
        this.sets[step] = node.set;
        this.after[step] = to;
        return step;
      }
      case 'begin':
      case 'end': {
        const step = this.step();
        this.anchors[step] = node.is;
        this.after[step] = to;
        return step;
      }
      case 'row':
        return node.parts.reduceRight((then, part) => this.build(part, then), to);
      case 'choice': {
        const step = this.step();
        for (const part of node.parts) this.free[step]!.push(this.build(part, to));
        return step;
      }
      case 'repeat': {
        let then = to;
        if (node.most === Infinity) {
          then = this.step();
          this.free[then]!.push(this.build(node.part, then), to);
        } else
          for (let i = node.least; i < node.most; i++) {
            const step = this.step();
            this.free[step]!.push(this.build(node.part, then), to);
            then = step;
          }
        for (let i = 0; i < node.least; i++) then = this.build(node.part, then);
        return then;
      }
    }
  }

  /** All steps that are reached freely from these. */
  reached(from: readonly number[], atBegin: boolean, atEnd: boolean): number[] {
    const found = new Set<number>();
    const open = [...from];
    for (let step = open.pop(); step !== undefined; step = open.pop()) {
      if (found.has(step)) continue;
      found.add(step);
      open.push(...this.free[step]!);
      const anchor = this.anchors[step];
      if ((anchor === 'begin' && atBegin) || (anchor === 'end' && atEnd)) open.push(this.after[step]!);
    }
    return [...found].sort((a, b) => a - b);
  }
}

function determined(steps: Steps): NameRegex {
  const { classes, masks } = classesOf(steps.sets);
  const anywhere = steps.reached([steps.first], false, false);
  const states: number[][] = [];
  const known = new Map<string, number>();
  const next: number[] = [];
  let ends = '';
  const stateOf = (set: number[]): number => {
    const isFound = set.includes(steps.last);
    // Once found it stays found.
    const key = isFound ? 'found' : set.join();
    const there = known.get(key);
    if (there !== undefined) return there;
    if (states.length >= MAX_STATES) throw new Unfit('is too large');
    known.set(key, states.length);
    ends += isFound ? '2' : steps.reached(set, states.length === 0, true).includes(steps.last) ? '1' : '0';
    states.push(set);
    return states.length - 1;
  };
  stateOf(steps.reached([steps.first], true, false));
  for (let state = 0; state < states.length; state++) {
    for (const mask of masks) {
      if (ends[state] === '2') {
        next.push(state);
        continue;
      }
      const moved = states[state]!.filter(step => (steps.sets[step]! & mask) !== 0n).map(step => steps.after[step]!);
      next.push(stateOf([...new Set([...steps.reached(moved, false, false), ...anywhere])].sort((a, b) => a - b)));
    }
  }
  return { classes, width: masks.length, next, ends: withDeadEnds(ends, next, masks.length) };
}

/** Symbols that no set tells apart are one class. */
function classesOf(sets: readonly bigint[]): { classes: string; masks: bigint[] } {
  const distinct = [...new Set(sets)];
  const byMembership = new Map<string, number>();
  const masks: bigint[] = [];
  let classes = '';
  for (let symbol = 0; symbol <= OTHER; symbol++) {
    const bit = 1n << BigInt(symbol);
    const membership = distinct.map(set => ((set & bit) === 0n ? '0' : '1')).join('');
    let one = byMembership.get(membership);
    if (one === undefined) {
      one = masks.length;
      byMembership.set(membership, one);
      masks.push(0n);
    }
    masks[one]! |= bit;
    classes += String.fromCharCode(48 + one);
  }
  return { classes, masks };
}

/** States from which nothing is found any more say so. */
function withDeadEnds(ends: string, next: readonly number[], width: number): string {
  return [...ends]
    .map((end, state) =>
      end === '0' && next.slice(state * width, (state + 1) * width).every(to => to === state) ? '3' : end,
    )
    .join('');
}
