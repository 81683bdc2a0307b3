// PAC text in an engine of its own, fed as browsers feed it: the URL without user information, the host as the URL spells it (or as a
// person typed it, for engines that do not normalise).
import vm from 'node:vm';

/** What FindProxyForURL answers for a URL. Brackets are taken off IPv6 hosts where `bare` is set (browsers differ). */
export function openPac(text: string): (url: string, bare?: boolean, typed?: string) => string {
  const context = vm.createContext(Object.create(null));
  vm.runInContext(text, context, { filename: 'proxy.pac' });
  const find = vm.runInContext('FindProxyForURL', context) as (url: string, host: string) => string;
  return (url, bare = false, typed = new URL(url).hostname) => find(url, bare ? typed.replace(/^\[|\]$/g, '') : typed);
}
