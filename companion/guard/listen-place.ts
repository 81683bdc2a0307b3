// Where the companion may listen: on this machine only. A proxy that other machines reach is an open proxy until it asks for a password.
import type { Config } from '../../shared/config.ts';

/** What is wrong with `listen`, at its place in the file. A name could lead anywhere, so of names `localhost` alone will do. */
export function findOpenListener({ listen }: Pick<Config, 'listen'>): { path: ['listen']; message: string }[] {
  const { host } = listen;
  if (host === 'localhost' || host === '::1' || /^127\.\d+\.\d+\.\d+$/.test(host)) return [];
  return [
    {
      path: ['listen'],
      message: `"${host}" would open the proxy to other machines, and Detour does not ask them for a password yet: listen on 127.0.0.1, [::1] or localhost`,
    },
  ];
}
