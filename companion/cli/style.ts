// Colour where a person looks at a terminal that has it.
import { styleText } from 'node:util';

type Format = Parameters<typeof styleText>[0];

/** The text in that style; plain where the output is no terminal, or NO_COLOR says so. */
export function style(format: Format, text: string): string {
  return process.stdout.isTTY && !process.env['NO_COLOR'] ? styleText(format, text) : text;
}

/** Text that others have had a hand in (a line of a list, the answer of a hop), without what a terminal would obey; line ends stay. */
export function shown(text: string): string {
  return text.replace(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g, '·');
}
