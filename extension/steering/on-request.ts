// Firefox asks a listener for every request. The answer is synchronous once the table is there; before that, requests wait for it; and
// whatever goes wrong is answered by a closed port, as a listener that throws would mean: go direct.
import type { Proxy as BrowserProxy } from 'webextension-polyfill';
import { openTable, type OpenTable } from '../../shared/decision/compile-table.ts';
import type { Milliseconds } from '../../shared/units.ts';
import type { SavedSteering } from '../settings/settings.ts';
import type { SteeringAdapter } from './steering.ts';

type ProxyAnswer = { type: 'http'; host: string; port: number } | undefined;

/** Nothing listens there (discard): a request sent there fails, and goes nowhere else. */
const CLOSED: ProxyAnswer = { type: 'http', host: '127.0.0.1', port: 9 };
const HOLD_AT_MOST: Milliseconds = 10_000;

/** What to steer by, or null: leave every request alone. */
interface Rule {
  readonly table: OpenTable;
  readonly proxy: NonNullable<ProxyAnswer>;
}

/** The listener's part: pure but for what it is told by `hold`, `use`. */
export class RequestSteering {
  private rule: Rule | null = null;
  private broken = false;
  private restored: Promise<void> | null = null;

  /** Requests wait until this is over; when it fails or takes too long, everything is answered by a closed port until `use`. */
  hold(restored: Promise<void>, atMost: Milliseconds = HOLD_AT_MOST): void {
    let late: ReturnType<typeof setTimeout>;
    const tooLate = new Promise<never>((_, reject) => {
      late = setTimeout(() => reject(new Error('The table was not restored in time.')), atMost);
    });
    this.restored = Promise.race([restored, tooLate])
      .catch(() => this.close())
      .then(() => {
        clearTimeout(late);
        this.restored = null;
      });
  }

  /** What to steer by is lost: answers everything by a closed port until `use`. */
  close(): void {
    this.rule = null;
    this.broken = true;
  }

  /** Pending while requests wait. */
  get ready(): Promise<void> | null {
    return this.restored;
  }

  use(steering: SavedSteering | null): void {
    this.rule = steering && {
      table: openTable(steering.table),
      proxy: { type: 'http', host: steering.proxy.host, port: steering.proxy.port },
    };
    this.broken = false;
  }

  /** For proxy.onRequest. */
  answer(url: string): ProxyAnswer | Promise<ProxyAnswer> {
    if (this.restored) return this.restored.then(() => this.decide(url));
    return this.decide(url);
  }

  /** Whether a host goes to the companion. */
  steers(host: string): boolean {
    return this.rule !== null && this.rule.table.lookup(host) !== 'direct';
  }

  /** Whether pages of a host may not reach this machine and its network. */
  confines(host: string): boolean {
    return this.rule !== null && this.rule.table.confines(host);
  }

  private decide(url: string): ProxyAnswer {
    try {
      if (this.broken) return CLOSED;
      if (this.rule === null) return undefined;
      return this.rule.table.lookup(new URL(url).hostname) === 'direct' ? undefined : this.rule.proxy;
    } catch {
      return CLOSED;
    }
  }
}

/** Registers the listener (at the top level of the background page) and gives back the adapter. */
export function makeRequestSteering(
  proxy: BrowserProxy.Static,
  steering: RequestSteering,
  pacMode: () => boolean,
): SteeringAdapter {
  proxy.onRequest.addListener(details => steering.answer(details.url) as never, { urls: ['<all_urls>'] });
  let pacUrl: string | null = null;
  return {
    dialect: 'table',
    async apply(saved) {
      // The listener stays as the guard in PAC mode too: a PAC that cannot be fetched means direct there.
      steering.use(saved);
      const wanted = pacMode() ? `${saved.pacUrl}#${saved.hash}` : null;
      if (wanted === pacUrl) return;
      if (wanted) await proxy.settings.set({ value: { proxyType: 'autoConfig', autoConfigUrl: wanted } });
      else await proxy.settings.clear({});
      pacUrl = wanted;
    },
    async clear() {
      steering.use(null);
      try {
        await proxy.settings.clear({});
      } catch (error) {
        // Without the permission for private windows there is nothing of ours to clear.
        const { levelOfControl } = await proxy.settings.get({});
        if (levelOfControl === 'controlled_by_this_extension') throw error;
      }
      pacUrl = null;
    },
    watch({ changed, failed }) {
      proxy.settings.onChange.addListener(() => changed());
      proxy.onError.addListener(error => failed((error as unknown as Error).message));
    },
    async takenBy() {
      if (!pacMode()) return null;
      const { levelOfControl } = await proxy.settings.get({});
      if (levelOfControl === 'controlled_by_other_extensions') return 'Another extension controls the proxy setting.';
      return levelOfControl === 'not_controllable' ? 'A policy controls the proxy setting.' : null;
    },
  };
}
