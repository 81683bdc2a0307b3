// A login of its own for every site, toward a last hop that keeps logins apart (Tor's IsolateSOCKSAuth, and proxies that give each name an exit of its own).
import { createHmac } from 'node:crypto';
import type { NamedHop } from '../rooms.ts';

/** What a hop is told instead of the name and password of the file. */
export interface Login {
  readonly username: string;
  readonly password: string;
}

/** The login of the site of a host. */
export type Isolation = (hop: NamedHop, host: string) => Login;

/** Stands in a user name where the site's own part goes. */
const PLACE = '{site}';

/**
 * Logins by a keyed hash of the site: the same for every host of it as long as `secret` is (a start), and without the secret they say neither which site
 * they are of nor whether two starts went to the same one.
 */
export function makeIsolation(secret: string, siteOf: (host: string) => string): Isolation {
  return (hop, host) => {
    const digest = createHmac('sha256', secret).update(siteOf(host)).digest();
    const name = digest.toString('base64url', 0, 16);
    const { username, password = '' } = hop;
    if (username?.includes(PLACE)) return { username: username.replace(PLACE, name), password };
    return { username: name, password: digest.toString('base64url', 16) };
  };
}
