// Colour where a person looks at a terminal that has it.
import { styleText } from 'node:util';

type Format = Parameters<typeof styleText>[0];

/** The text in that style; plain where the output is no terminal, or NO_COLOR says so. */
export function style(format: Format, text: string): string {
  return process.stdout.isTTY && !process.env['NO_COLOR'] ? styleText(format, text) : text;
}
