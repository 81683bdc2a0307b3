// What the extension remembers, in storage.local alone: a token must never travel with a sync account.
import browser from 'webextension-polyfill';
import type { ConfigState, Steering } from '../../shared/control.ts';
import type { Endpoint } from '../../shared/endpoint.ts';
import type { LinkState } from '../control/control-client.ts';
import type { SavedTabs } from '../tabs/tab-traffic.ts';
import { migrate, type Settings } from './migrations.ts';

/** The last steering that was applied: what holds while the companion is away. */
export interface SavedSteering extends Steering {
  readonly proxy: Endpoint;
  readonly pacUrl: string;
}

/** What the popup paints at once, before anyone has answered. */
export interface Snapshot {
  readonly link: LinkState;
  readonly state: ConfigState | null;
  readonly settings: Omit<Settings, 'token'> & { readonly paired: boolean };
  /** Who else holds the proxy setting, in words; null when nobody does. */
  readonly taken: string | null;
  /** Why what should be steered is not, or not as it should be; null when all is well. */
  readonly fault: string | null;
  /** The registrable domains of hosts that were asked for lately. */
  readonly sites: Readonly<Record<string, string>>;
  /** The routes by which entries went before they were turned off. */
  readonly lastRoutes: Readonly<Record<string, string>>;
  /** Version of the companion, when it is another than is understood. */
  readonly companionVersion: string | null;
}

export async function readSettings(): Promise<Settings> {
  return migrate((await browser.storage.local.get('settings'))['settings']);
}

export async function writeSettings(settings: Settings): Promise<void> {
  await browser.storage.local.set({ settings });
}

export async function readSteering(): Promise<SavedSteering | null> {
  const { steering } = await browser.storage.local.get('steering');
  return (steering as SavedSteering | undefined) ?? null;
}

export async function writeSteering(steering: SavedSteering | null): Promise<void> {
  if (steering) await browser.storage.local.set({ steering });
  else await browser.storage.local.remove('steering');
}

/** What the tabs did, as long as the browser runs. Firefox keeps its background page, and so needs it for the popup's first paint alone. */
export async function readTabs(): Promise<SavedTabs> {
  return ((await session().get('tabs'))['tabs'] as SavedTabs | undefined) ?? [];
}

export async function writeTabs(tabs: SavedTabs): Promise<void> {
  await session().set({ tabs });
}

// The polyfill's types do not have it; both browsers do (Chromium 102, Firefox 115).
const session = () => (browser.storage as unknown as { session: typeof browser.storage.local }).session;

export async function readSnapshot(): Promise<Snapshot | null> {
  const { snapshot } = await browser.storage.local.get('snapshot');
  return (snapshot as Snapshot | undefined) ?? null;
}

export async function writeSnapshot(snapshot: Snapshot): Promise<void> {
  await browser.storage.local.set({ snapshot });
}
