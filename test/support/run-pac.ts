// PAC text in an engine of its own, fed as browsers feed it: the URL without user information, the host as the URL spells it.
import vm from 'node:vm';

/** What FindProxyForURL answers for a URL. Brackets are taken off IPv6 hosts where `bare` is set (browsers differ). */
export function openPac(text: string): (url: string, bare?: boolean) => string {
  const context = vm.createContext(Object.create(null));
  vm.runInContext(text, context, { filename: 'proxy.pac' });
  const find = vm.runInContext('FindProxyForURL', context) as (url: string, host: string) => string;
  return (url, bare = false) => {
    const { hostname } = new URL(url);
    return find(url, bare ? hostname.replace(/^\[|\]$/g, '') : hostname);
  };
}
