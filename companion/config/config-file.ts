// The one file, in: text → configuration and rules, or every fault of it with line and column. Out: see config-edit.ts.
import * as v from 'valibot';
import { type Config, ConfigSchema } from '../../shared/config.ts';
import { parseMatcher } from '../../shared/decision/parse-matcher.ts';
import { allSteps } from '../../shared/steps.ts';
import type { Rule } from '../../shared/decision/rule.ts';
import { ConfigError, type ConfigProblem, MAX_PROBLEMS } from './config-error.ts';
import { formatPath, type Path, type YamlSource, yamlSteps } from './yaml-source.ts';

/** A file that is in order. */
export interface ParsedConfig {
  readonly config: Config;
  /** Hand-written rules in file order: sites, then rules. */
  readonly rules: readonly Rule[];
  /** The text that this was read from. */
  readonly text: string;
  /** The way back to lines and columns. */
  readonly document: YamlSource;
}

/** What is wrong with a configuration that reads well, at a path in it. */
export interface PathProblem {
  readonly path: Path;
  readonly message: string;
}

/** What another room knows to be wrong with a configuration, such as a hop that is the companion itself. */
export type Judge = (config: Config) => readonly PathProblem[];

/**
 * Reads the file's text; an empty one means all defaults. `fileName` stands at the head of every problem.
 * Throws ConfigError with everything that is wrong, at most 20 problems, in the order of the file.
 */
export function parseConfig(text: string, fileName: string, judges: readonly Judge[] = []): ParsedConfig {
  return allSteps(configSteps(text, fileName, judges));
}

/** The same in steps of some milliseconds. */
export function* configSteps(
  text: string,
  fileName: string,
  judges: readonly Judge[] = [],
): Generator<undefined, ParsedConfig> {
  const document = yield* yamlSteps(text, fileName);
  const problems = [...document.problems];
  const parsed = v.safeParse(ConfigSchema, document.value ?? {});
  if (parsed.success && problems.length === 0) {
    const config = parsed.output;
    judgeConfig({ config, document }, fileName, judges);
    return { config, rules: rulesOf(config), text, document };
  }
  for (const issue of (parsed.issues ?? []).slice(0, MAX_PROBLEMS * 10)) problems.push(problemOf(issue, document));
  throw new ConfigError(fileName, inFileOrder(problems).slice(0, MAX_PROBLEMS));
}

/** Throws ConfigError with what the judges find wrong, now. */
export function judgeConfig(
  { config, document }: Pick<ParsedConfig, 'config' | 'document'>,
  fileName: string,
  judges: readonly Judge[],
): void {
  const judged = judges.flatMap(judge => judge(config));
  if (judged.length > 0) throw placed(judged, fileName, document);
}

/** Problems known by their paths, with line and column. */
export function placed(problems: readonly PathProblem[], fileName: string, document: YamlSource): ConfigError {
  const withPlaces = problems.slice(0, MAX_PROBLEMS).map(({ path, message }) => {
    const { line, column, path: found } = document.locate(path, 'value');
    return { line, column, message: `${formatPath(found)}: ${message}` };
  });
  return new ConfigError(fileName, inFileOrder(withPlaces));
}

/** The hand-written rules of a configuration, each with the place it stands at: `sites.example.com`, `rules[3]`. */
export function rulesOf(config: Config): Rule[] {
  const rules: Rule[] = [];
  for (const [site, { action, rank }] of Object.entries(config.sites)) {
    const matcher = parseMatcher(site);
    if (typeof matcher !== 'string') rules.push({ matcher, action, rank, id: `sites.${site}` });
  }
  for (const [i, { matcher, when, action, rank }] of config.rules.entries()) {
    // In a tunnel nobody sees a path: where the route is closed, no part of the host may go another way.
    const wholeHost = when?.path !== undefined && action.do === 'route' && isClosed(config, action.route);
    rules.push({ matcher, when: wholeHost ? { ...when, wholeHost } : when, action, rank, id: `rules[${i}]` });
  }
  return rules;
}

/** Whether no chain of a route is the companion's own connection. */
function isClosed(config: Config, name: string): boolean {
  const route = Object.hasOwn(config.routes, name) ? config.routes[name]! : null;
  if (route === null || route.else !== undefined || route.pick === 'auto') return false;
  return route.chains.every(chain => (typeof chain === 'string' ? isClosed(config, chain) : chain.length > 0));
}

function problemOf(issue: v.BaseIssue<unknown>, document: YamlSource): ConfigProblem {
  const path = (issue.path ?? []).map(item => item.key as string | number);
  const at = issue.path?.at(-1)?.origin === 'key' ? 'key' : 'value';
  const { line, column, path: found } = document.locate(path, at);
  const message = sentenceOf(issue);
  // An unknown or missing key is named by the sentence itself: before it stands the map that it is (not) in.
  const named = /^(unknown key|needs) /.test(message) ? found.slice(0, path.length - 1) : found;
  return { line, column, message: named.length === 0 ? message : `${formatPath(named)}: ${message}` };
}

function sentenceOf(issue: v.BaseIssue<unknown>): string {
  if (issue.input === null && issue.kind === 'schema') return `has no value${hintOf(issue.message)}`;
  // valibot's own sentences repeat the value.
  return issue.message.startsWith('Invalid ') ? `is not ${issue.expected ?? 'valid'}` : issue.message;
}

/** "is not a hop: write …" → ": write …". */
function hintOf(message: string): string {
  const colon = message.indexOf(': ');
  return colon < 0 ? '' : message.slice(colon);
}

function inFileOrder(problems: ConfigProblem[]): ConfigProblem[] {
  return problems.sort((a, b) => (a.line ?? 0) - (b.line ?? 0) || (a.column ?? 0) - (b.column ?? 0));
}
