// Structured fields (RFC 9651) as far as Proxy-Status, Cache-Status and targeted cache control need them: lists and dictionaries of items with
// parameters; lists are written too.

/** A token, told apart from a string of the same letters. */
export class Token {
  readonly name: string;

  constructor(name: string) {
    this.name = name;
  }

  toString(): string {
    return this.name;
  }
}

export type BareItem = string | number | boolean | Token | Uint8Array;
export type Parameters = ReadonlyMap<string, BareItem>;

export interface Item {
  readonly value: BareItem | readonly Item[];
  readonly params: Parameters;
}

const TOKEN = /[A-Za-z*][!#$%&'*+\-.^_`|~0-9A-Za-z:/]*/y;
const KEY = /[a-z*][a-z0-9_\-.*]*/y;
const NUMBER = /-?(?:\d{1,12}\.\d{1,3}|\d{1,15})(?![\d.])/y;
const STRING = /"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"/y;
const BINARY = /:([A-Za-z0-9+/]*={0,2}):/y;

/** Members of a list, or null where the text is no list (RFC 9651 §4.2.1): a field that does not parse is ignored whole. */
export function parseList(text: string): readonly Item[] | null {
  const reader = new Reader(text);
  const members: Item[] = [];
  reader.skip(' ');
  if (reader.ended) return members;
  while (true) {
    const member = reader.member();
    if (member === null) return null;
    members.push(member);
    reader.skip(' \t');
    if (reader.ended) return members;
    if (!reader.take(',')) return null;
    reader.skip(' \t');
    if (reader.ended) return null;
  }
}

/** Members of a dictionary, or null where the text is none (RFC 9651 §4.2.2). Of a key that comes twice the last counts. */
export function parseDictionary(text: string): ReadonlyMap<string, Item> | null {
  const reader = new Reader(text);
  const members = new Map<string, Item>();
  reader.skip(' ');
  if (reader.ended) return members;
  while (true) {
    const key = reader.key();
    const member = key === null ? null : reader.take('=') ? reader.member() : reader.flag();
    if (member === null) return null;
    members.delete(key!);
    members.set(key!, member);
    reader.skip(' \t');
    if (reader.ended) return members;
    if (!reader.take(',')) return null;
    reader.skip(' \t');
    if (reader.ended) return null;
  }
}

class Reader {
  private at = 0;
  private readonly text: string;

  constructor(text: string) {
    this.text = text;
  }

  get ended(): boolean {
    return this.at >= this.text.length;
  }

  skip(characters: string): void {
    while (!this.ended && characters.includes(this.text[this.at]!)) this.at++;
  }

  take(character: string): boolean {
    if (this.text[this.at] !== character) return false;
    this.at++;
    return true;
  }

  member(): Item | null {
    if (!this.take('(')) return this.item();
    const items: Item[] = [];
    while (true) {
      this.skip(' ');
      if (this.take(')')) break;
      const item = this.item();
      if (item === null || this.ended || !' )'.includes(this.text[this.at]!)) return null;
      items.push(item);
    }
    const params = this.parameters();
    return params && { value: items, params };
  }

  key(): string | null {
    return this.match(KEY)?.[0] ?? null;
  }

  /** A dictionary's member without a value: true, perhaps with parameters. */
  flag(): Item | null {
    const params = this.parameters();
    return params && { value: true, params };
  }

  private item(): Item | null {
    const value = this.bareItem();
    if (value === null) return null;
    const params = this.parameters();
    return params && { value, params };
  }

  private parameters(): Parameters | null {
    const params = new Map<string, BareItem>();
    while (this.take(';')) {
      this.skip(' ');
      const key = this.match(KEY)?.[0];
      if (key === undefined) return null;
      const value = this.take('=') ? this.bareItem() : true;
      if (value === null) return null;
      params.delete(key);
      params.set(key, value);
    }
    return params;
  }

  private bareItem(): BareItem | null {
    const first = this.text[this.at];
    if (first === undefined) return null;
    if (first === '"') return this.match(STRING)?.[1]!.replace(/\\(.)/g, '$1') ?? null;
    if (first === '?') {
      const value = this.text[this.at + 1];
      if (value !== '0' && value !== '1') return null;
      this.at += 2;
      return value === '1';
    }
    if (first === ':') {
      const encoded = this.match(BINARY)?.[1];
      return encoded === undefined ? null : Buffer.from(encoded, 'base64');
    }
    if (first === '-' || (first >= '0' && first <= '9')) {
      const digits = this.match(NUMBER)?.[0];
      return digits === undefined ? null : Number(digits);
    }
    const token = this.match(TOKEN)?.[0];
    return token === undefined ? null : new Token(token);
  }

  private match(pattern: RegExp): RegExpExecArray | null {
    pattern.lastIndex = this.at;
    const found = pattern.exec(this.text);
    if (found) this.at = pattern.lastIndex;
    return found;
  }
}

/** Text as a string item; what a string cannot hold (controls, anything beyond ASCII) becomes `?`. */
export function stringItem(text: string): string {
  return `"${text.replace(/[^\x20-\x7e]/g, '?').replace(/["\\]/g, '\\$&')}"`;
}

/** One item with its parameters, as text. Strings are written as strings, Tokens as tokens, numbers as integers or decimals. */
export function serializeItem(item: Item): string {
  const value = Array.isArray(item.value)
    ? `(${(item.value as readonly Item[]).map(serializeItem).join(' ')})`
    : bare(item.value as BareItem);
  let text = value;
  for (const [key, parameter] of item.params) text += parameter === true ? `;${key}` : `;${key}=${bare(parameter)}`;
  return text;
}

/** A list as a field value. */
export function serializeList(items: readonly Item[]): string {
  return items.map(serializeItem).join(', ');
}

function bare(value: BareItem): string {
  if (value instanceof Token) return value.name;
  if (value instanceof Uint8Array) return `:${Buffer.from(value).toString('base64')}:`;
  if (typeof value === 'string') return stringItem(value);
  if (typeof value === 'boolean') return value ? '?1' : '?0';
  return Number.isInteger(value) ? String(value) : String(Math.round(value * 1000) / 1000);
}
