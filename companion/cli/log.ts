// `detour log`: the traffic as it goes by, a line an exchange, with the ladder below where more than one way was tried.
import type { Exchange } from '../../shared/exchange.ts';
import { ladderText } from '../../shared/ladder.ts';
import type { ControlLink } from './ask.ts';
import { style } from './style.ts';

/** Follows until the companion ends or the person has seen enough. */
export async function followLog(link: ControlLink, recent: number, json: boolean): Promise<number> {
  // A standing tunnel comes again and again with its bytes so far: for a terminal, once is enough.
  const standing = new Set<number>();
  link.onMessage = message => {
    if (message.type !== 'exchange') return;
    const { exchange } = message;
    if (json) return void process.stdout.write(`${JSON.stringify(exchange)}\n`);
    if (exchange.took !== undefined) standing.delete(exchange.id);
    else if (standing.has(exchange.id)) return;
    else standing.add(exchange.id);
    process.stdout.write(logLines(exchange));
  };
  process.once('SIGINT', () => link.close());
  await link.request({ type: 'follow', recent });
  await link.ended;
  return 0;
}

/** One exchange for the terminal. */
export function logLines(exchange: Exchange): string {
  const { status, blockedBy, cacheStatus, attempts } = exchange;
  const time = new Date(exchange.startedAt).toTimeString().slice(0, 8);
  const shown = blockedBy
    ? style('red', 'blocked')
    : exchange.took === undefined
      ? style('cyan', 'open   ')
      : statusText(status);
  const details = [
    blockedBy && `by ${blockedBy.list ? `${blockedBy.list}:${blockedBy.line}` : blockedBy.rule}`,
    !blockedBy && `via ${attempts.at(-1)?.chain.join('>') || 'companion'}`,
    cacheStatus,
    exchange.took !== undefined && `${Math.round(exchange.took)} ms`,
    `${exchange.bytesDown} B`,
    `(${exchange.because.rule})`,
  ].filter(Boolean);
  let text = `${style('dim', time)} ${shown} ${exchange.method.padEnd(7)} ${plain(exchange.url)} ${style('dim', details.join(' · '))}\n`;
  if (exchange.sentence !== undefined) text += `         ${plain(exchange.sentence)}\n`;
  if (attempts.length > 1) text += `         ${plain(ladderText(attempts))}\n`;
  return text;
}

/** Text from the network without what a terminal would obey. */
function plain(text: string): string {
  return text.replace(/[\u0000-\u001f\u007f-\u009f]/g, '·');
}

function statusText(status: number | null): string {
  if (status === null) return style('dim', 'gone   ');
  const text = String(status).padEnd(7);
  return status < 400 ? style('green', text) : style('yellow', text);
}
