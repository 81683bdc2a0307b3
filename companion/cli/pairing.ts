// `detour pair`, `detour clients`, `detour unpair NAME`.
import { type ControlLink, once } from './ask.ts';
import { codeText } from './code-text.ts';

export function pairCode(link: ControlLink): Promise<number> {
  const { port } = link.hello.proxy;
  return once(link, { type: 'pair' }, reply => (reply.type === 'code' ? `${codeText(reply.code, port)}\n` : ''));
}

export function listClients(link: ControlLink): Promise<number> {
  return once(link, { type: 'clients' }, reply => {
    if (reply.type !== 'clients') return '';
    if (reply.clients.length === 0) return 'No browser is paired. `detour pair` prints a code.\n';
    return reply.clients
      .map(
        ({ name, origin, pairedAt, connected }) =>
          `${name.padEnd(14)} ${connected ? 'connected' : 'away     '}  paired ${new Date(pairedAt).toISOString().slice(0, 10)}  ${origin}\n`,
      )
      .join('');
  });
}

export function unpairClient(link: ControlLink, name: string): Promise<number> {
  return once(link, { type: 'unpair', name }, () => `${name} is not paired any more.\n`);
}
