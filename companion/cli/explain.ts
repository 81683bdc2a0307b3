// `detour explain URL`.
import { type ControlLink, once } from './ask.ts';
import { shown, style } from './style.ts';

export function explainUrl(link: ControlLink, url: string): Promise<number> {
  return once(link, { type: 'explain', url }, reply => {
    if (reply.type !== 'explained') return '';
    const { explanation } = reply;
    return `${style('bold', explanation.url)}\n${explanation.steps.map(step => `  ${shown(step)}\n`).join('')}`;
  });
}
