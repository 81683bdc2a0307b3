import { style } from './style.ts';

/** The code as it is shown, with what to do with it. */
export function codeText(code: string, port: number): string {
  return `Pairing code  ${style('bold', `${code.slice(0, 3)} ${code.slice(3)}`)}   (port ${port}; once, within five minutes)`;
}
