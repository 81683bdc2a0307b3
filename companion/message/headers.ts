// Field lines in the order they came, with names as written and in lower case side by side, so that nobody folds case twice.

/** Three strings a line, flat: name as written, name in lower case, value. */
export class Fields {
  private readonly lines: string[];

  constructor(lines: string[] = []) {
    this.lines = lines;
  }

  /** From name/value pairs: `Fields.of('Content-Type', 'text/html', …)`. */
  static of(...pairs: string[]): Fields {
    const fields = new Fields();
    for (let i = 0; i + 1 < pairs.length; i += 2) fields.append(pairs[i]!, pairs[i + 1]!);
    return fields;
  }

  /** Number of field lines. */
  get length(): number {
    return this.lines.length / 3;
  }

  /** The flat lines themselves (name, lower-case name, value, …), for loops that run on every message. Not to be changed. */
  get flat(): readonly string[] {
    return this.lines;
  }

  nameAt(index: number): string {
    return this.lines[index * 3]!;
  }

  lowerNameAt(index: number): string {
    return this.lines[index * 3 + 1]!;
  }

  valueAt(index: number): string {
    return this.lines[index * 3 + 2]!;
  }

  /** The combined value (lines joined by `, `, RFC 9110 §5.2), or undefined. `lower` must be in lower case. */
  get(lower: string): string | undefined {
    const { lines } = this;
    let found: string | undefined;
    for (let i = 1; i < lines.length; i += 3) {
      if (lines[i] === lower) found = found === undefined ? lines[i + 1]! : `${found}, ${lines[i + 1]!}`;
    }
    return found;
  }

  has(lower: string): boolean {
    const { lines } = this;
    for (let i = 1; i < lines.length; i += 3) if (lines[i] === lower) return true;
    return false;
  }

  /** The values of every line of that name, in order. */
  all(lower: string): string[] {
    const { lines } = this;
    const values: string[] = [];
    for (let i = 1; i < lines.length; i += 3) if (lines[i] === lower) values.push(lines[i + 1]!);
    return values;
  }

  /** Adds a line at the end. `lower` may be given by a caller that knows it. */
  append(name: string, value: string, lower: string = name.toLowerCase()): this {
    this.lines.push(name, lower, value);
    return this;
  }

  /** Replaces the first line of that name and drops the others, or adds one. */
  set(name: string, value: string): this {
    const lower = name.toLowerCase();
    const { lines } = this;
    for (let i = 1; i < lines.length; i += 3) {
      if (lines[i] !== lower) continue;
      lines[i - 1] = name;
      lines[i + 1] = value;
      this.deleteFrom(lower, i + 2);
      return this;
    }
    return this.append(name, value, lower);
  }

  /** Drops every line of that name. */
  delete(lower: string): this {
    return this.deleteFrom(lower, 0);
  }

  copy(): Fields {
    return new Fields(this.lines.slice());
  }

  private deleteFrom(lower: string, start: number): this {
    const { lines } = this;
    let kept = start;
    for (let i = start; i < lines.length; i += 3) {
      if (lines[i + 1] === lower) continue;
      if (kept !== i) {
        lines[kept] = lines[i]!;
        lines[kept + 1] = lines[i + 1]!;
        lines[kept + 2] = lines[i + 2]!;
      }
      kept += 3;
    }
    lines.length = kept;
    return this;
  }
}
