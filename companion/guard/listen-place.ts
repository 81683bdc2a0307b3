// Where the companion may listen: on this machine only, unless the file opens it to others in so many words and says who they are. A proxy that
// anyone reaches is an open proxy, and those are found within hours.
import type { Cidr } from '../../shared/config/words.ts';
import type { Config } from '../../shared/config.ts';
import { type Endpoint, formatHost } from '../../shared/endpoint.ts';
import type { ConfigComplaint } from './acl.ts';

/** Without TLS a network has to be named, and one this wide names nobody. (10.0.0.0/8 and fc00::/7 are the widest private ones.) */
const isWide = ({ address, prefix }: Cidr) => prefix < (address.includes(':') ? 7 : 8);

/**
 * What is wrong with `listen`, at its place in the file. `at` is where the companion listens now, which a changed file must still be good for.
 */
export function findOpenListener({ listen, guard }: Pick<Config, 'listen' | 'guard'>, at = listen): ConfigComplaint[] {
  const open = isOpen(at) ? at : isOpen(listen) ? listen : null;
  if (open === null) return [];
  const missing: string[] = [];
  if (!guard.otherMachines) missing.push('otherMachines: true');
  if (Object.keys(guard.users ?? {}).length === 0) missing.push('users: { NAME: PASSWORD }');
  if (guard.tls === null) {
    if (guard.clients.length === 0) missing.push('clients: [192.168.1.0/24] (the networks that may enter)');
    else if (guard.clients.some(isWide))
      missing.push('tls: { cert: FILE, key: FILE } (or smaller networks in clients)');
  }
  if (missing.length === 0) return [];
  return [
    {
      path: ['listen'],
      message: `"${formatHost(open.host)}" opens the proxy to other machines, and for that the section guard also needs ${missing.join(', ')}; or listen on 127.0.0.1`,
    },
  ];
}

/** Whether other machines may reach what listens there. A name could lead anywhere, so of names `localhost` alone counts as this machine. */
export function isOpen({ host }: Endpoint): boolean {
  return host !== 'localhost' && host !== '::1' && !/^127\.\d+\.\d+\.\d+$/.test(host);
}

/** The address at which this machine's own programs reach a companion that listens there: 0.0.0.0 and :: are every address, and so none. */
export function reachableAt(listen: Endpoint): Endpoint {
  return listen.host === '0.0.0.0'
    ? { ...listen, host: '127.0.0.1' }
    : listen.host === '::'
      ? { ...listen, host: '::1' }
      : listen;
}
