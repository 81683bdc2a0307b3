// Chromium steers by a PAC script in its proxy setting. Mandatory, so that a script that cannot run blocks rather than goes direct; it stays
// in force while the worker sleeps and while the companion is away.
import type { SteeringTable } from '../../shared/decision/compile-table.ts';
import { type LocalNetworkGuard, noLongerConfined } from './local-network-guard.ts';
import type { SteeringAdapter } from './steering.ts';

/** As much of chrome.proxy as is used; a test hands in its own. */
export interface ProxySettings {
  get(details: object): Promise<{ levelOfControl: string; value?: { pacScript?: { data?: string } } }>;
  set(details: { scope: 'regular'; value: object }): Promise<void>;
  clear(details: { scope: 'regular' }): Promise<void>;
  onChange: { addListener(listener: () => void): void };
}

/** chrome.proxy.onProxyError. */
export interface ProxyErrors {
  addListener(listener: (details: { error: string; details?: string }) => void): void;
}

/** `protect` takes back the reach that steering would give a page; it is in force before the PAC is, and as long as the one before. */
export function makePacSteering(
  settings: ProxySettings,
  errors: ProxyErrors,
  protect: LocalNetworkGuard,
): SteeringAdapter {
  let last: SteeringTable | null = null;
  let isAnew = false;
  return {
    dialect: 'pac',
    async apply(steering) {
      const data = steering.pac ?? '';
      const now = await settings.get({});
      const isSet = now.levelOfControl === 'controlled_by_this_extension' && now.value?.pacScript?.data === data;
      const leaving = last === null ? [] : noLongerConfined(last, steering.table);
      if (!isSet || isAnew) {
        await protect(steering.table, leaving);
        if (!isSet)
          await settings.set({ scope: 'regular', value: { mode: 'pac_script', pacScript: { data, mandatory: true } } });
        if (leaving.length > 0) await protect(steering.table);
        isAnew = false;
      }
      last = steering.table;
    },
    anew() {
      isAnew = true;
    },
    async clear() {
      await settings.clear({ scope: 'regular' });
      await protect(null);
      last = null;
    },
    watch({ changed, failed }) {
      settings.onChange.addListener(() => changed());
      errors.addListener(({ error, details }) => failed(details ? `${error} (${details})` : error));
    },
    async takenBy() {
      const { levelOfControl } = await settings.get({});
      if (levelOfControl === 'controlled_by_other_extensions')
        return 'Another extension controls the proxy setting. Turn it off, or Detour cannot steer.';
      if (levelOfControl === 'not_controllable')
        return 'A policy or a command-line switch controls the proxy setting, so Detour cannot steer.';
      return null;
    },
  };
}
