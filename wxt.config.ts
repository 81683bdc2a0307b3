// How the extension is built: one source, a Chromium MV3 and a Firefox MV2 bundle.
import { defineConfig } from 'wxt';

export default defineConfig({
  srcDir: 'extension',
  imports: false,
  vite: () => ({ oxc: { jsx: { runtime: 'automatic', importSource: 'preact' } } }) as never,
  manifest: ({ browser }) => ({
    name: 'Detour',
    description: 'Choose, site by site, how your browser reaches the web.',
    permissions:
      browser === 'firefox'
        ? ['proxy', 'storage', 'tabs', 'webRequest', 'webRequestBlocking', 'dns', 'alarms']
        : ['proxy', 'storage', 'tabs', 'webRequest', 'declarativeNetRequestWithHostAccess', 'alarms'],
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
      : { minimum_chrome_version: '140' }),
  }),
});
