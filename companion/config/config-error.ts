// What is wrong with the file, each with its place, as a person reads it: `detour.yaml:12:5: hops.office: …`.

/** One fault of the file. Line and column count from 1; absent where the file as a whole is at fault. */
export interface ConfigProblem {
  readonly line?: number | undefined;
  readonly column?: number | undefined;
  readonly message: string;
}

/** No more problems than this are told of one file. */
export const MAX_PROBLEMS = 20;

/** The file cannot be used. `message` holds a line for every problem; `problems` the same in parts. */
export class ConfigError extends Error {
  readonly fileName: string;
  readonly problems: readonly ConfigProblem[];

  constructor(fileName: string, problems: readonly ConfigProblem[], cause?: unknown) {
    super(problems.map(problem => formatProblem(fileName, problem)).join('\n'), { cause });
    this.name = 'ConfigError';
    this.fileName = fileName;
    this.problems = problems;
  }

  /** One line: the first problem, and how many more there are. */
  get summary(): string {
    const [first, ...more] = this.problems;
    if (!first) return `${this.fileName}: cannot be used`;
    return formatProblem(this.fileName, first) + (more.length > 0 ? ` (and ${more.length} more)` : '');
  }
}

/** `detour.yaml:12:5: hops.office: "70000" is not a port`. A user name and password in a URL never come through. */
export function formatProblem(fileName: string, problem: ConfigProblem): string {
  const place = problem.line === undefined ? '' : `:${problem.line}:${problem.column ?? 1}`;
  return `${fileName}${place}: ${redact(problem.message)}`;
}

// Keys and values are quoted in sentences; a hop's URL in a wrong place would bring its password along.
const redact = (message: string) => message.replace(/:\/\/(?!user:password@)[^\s"]*@/g, '://…@');
