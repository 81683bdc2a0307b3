// How the extension is built: one source, a Chromium MV3 and a Firefox MV2 bundle.
import { defineConfig } from 'wxt';

export default defineConfig({
  srcDir: 'extension',
  publicDir: 'extension/public',
  imports: false,
  vite: () => ({ oxc: { jsx: { runtime: 'automatic', importSource: 'preact' } } }) as never,
  manifest: ({ browser }) => ({
    name: 'Detour',
    description: 'Choose, site by site, how your browser reaches the web.',
    permissions:
      browser === 'firefox'
        ? ['proxy', 'storage', 'unlimitedStorage', 'tabs', 'webRequest', 'webRequestBlocking', 'dns', 'alarms']
        : [
            'proxy',
            'storage',
            'unlimitedStorage',
            'tabs',
            'webRequest',
            'declarativeNetRequestWithHostAccess',
            'alarms',
          ],
    host_permissions: ['<all_urls>'],
    ...(browser === 'firefox'
      ? {
          browser_specific_settings: {
            gecko: {
              id: 'detour@detour.example',
              strict_min_version: '140.0',
              data_collection_permissions: { required: ['none'] },
            },
          },
        }
      : {
          minimum_chrome_version: '140',
          // Fixes the ID of the unpacked extension, whatever folder it is loaded from. The private half was thrown away.
          key: 'MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAvgvlgSiKTh6hsccxleCdfujpn1HxkQJ5Hut8pM26o1a7RSnyXIHdn+/osSiwtdtv9pg/EU6itLPK3l6X7yMHNVpJke9jXsXkQjCDFj9eO9xzlUn3JU7PCF1NJQ8lNvHa9kWgaHKz4FnNE4g8mvinWfUTpIzrfQxjsGXIoMPKDx+lWqvsroqXm06HWZ7I4Tz+kCCEiTMvNa1CDTaed0narx5c8VNLpV6cdDNldeT9DAzx+MrB5exkzvv/dlSDMMjWx4GezWW+Ay6wClvFjmNkmfVTkvchHkiIw4KO/BcVxIY2gsB9WrD2brTrOiwfUp1BO85uoY0KTWT4VgX7tRbYcQIDAQAB',
        }),
  }),
});
