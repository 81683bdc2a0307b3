// Wiring of the settings page: the route editor, the pairing, the port, and in Firefox the choice of how it steers.
import { render } from 'preact';
import browser from 'webextension-polyfill';
import { type Answer, type View, WATCH_PORT, type Wish } from '../../control/messages.ts';
import { LINK_WORDS } from '../../popup/popup-state.ts';
import { Ways } from '../../routes/routes-view.tsx';
import { readSnapshot, type Snapshot } from '../../settings/settings.ts';

const ask = (wish: Wish) => browser.runtime.sendMessage(wish) as Promise<Answer>;
const MOST_SHOWN = 100;
const isFirefox = import.meta.env.FIREFOX;
const privateAccess = await browser.extension.isAllowedIncognitoAccess();

function Options({ snapshot }: { snapshot: Snapshot }) {
  const { settings, link, state } = snapshot;
  const others = (
    <>
      <section class="card">
        <h2>Companion</h2>
        <label class="row">
          <span>Port</span>
          <input
            class="port"
            data-testid="port"
            inputMode="numeric"
            defaultValue={String(settings.port)}
            onChange={event => {
              const port = Number(event.currentTarget.value);
              if (Number.isInteger(port) && port > 0 && port < 65_536) void ask({ wish: 'port', port });
              else event.currentTarget.value = String(settings.port);
            }}
          />
        </label>
        <div class="row">
          <p class="hint">
            {settings.paired
              ? `Paired. The file has ${state?.sites.length === 1 ? 'one site' : `${state?.sites.length || 'no'} sites`}.`
              : 'Not paired: open the popup and type the code.'}
          </p>
          {settings.paired && (
            <button type="button" class="quiet" data-testid="forget" onClick={() => void ask({ wish: 'forget' })}>
              Forget the pairing
            </button>
          )}
        </div>
      </section>
      {state !== null && state.sites.length > 0 && (
        <section class="card">
          <h2>Sites</h2>
          <ul class="sites" data-testid="sites">
            {state.sites.slice(0, MOST_SHOWN).map(({ site, route, local }) => (
              <li key={site}>
                <b>{site}</b>
                <span class="grow">
                  {route === 'off' ? 'not steered' : route}
                  {local === true && ', may reach your local network'}
                </span>
                <button
                  type="button"
                  class="quiet"
                  aria-label={`Remove ${site}`}
                  disabled={link !== 'up'}
                  onClick={() => void ask({ wish: 'set-site', site, route: null })}
                >
                  Remove
                </button>
              </li>
            ))}
          </ul>
          {state.sites.length > MOST_SHOWN && (
            <p class="hint">and {state.sites.length - MOST_SHOWN} more in the file.</p>
          )}
        </section>
      )}
      {isFirefox && (
        <section class="card">
          <h2>How Firefox steers</h2>
          <div class="row">
            <p class="hint" id="pac-label">
              Use the companion's PAC in Firefox's proxy settings, with the request listener as guard.
              {!privateAccess && ' Needs "Run in Private Windows" for this extension.'}
            </p>
            <button
              type="button"
              role="switch"
              class="switch"
              data-testid="pac-mode"
              aria-checked={settings.pacMode}
              aria-labelledby="pac-label"
              disabled={!privateAccess}
              onClick={() => void ask({ wish: 'pac-mode', on: !settings.pacMode })}
            >
              <span />
            </button>
          </div>
        </section>
      )}
    </>
  );
  return (
    <main>
      <header>
        <h1>Detour settings</h1>
        <output class="link" data-testid="link" data-state={link}>
          {LINK_WORDS[link]}
        </output>
      </header>
      {settings.paired ? (
        <Ways isUp={link === 'up'} revision={state?.revision ?? null} ask={ask}>
          {others}
        </Ways>
      ) : (
        <div class="others">{others}</div>
      )}
      <p class="hint">
        Sites, routes and rules are in one file; <code>detour check</code> reads it and <code>npm start</code> says
        where it is. Detour {browser.runtime.getManifest().version}
        {snapshot.companionVersion !== null && `, companion ${snapshot.companionVersion}`}.
      </p>
    </main>
  );
}

const draw = (snapshot: Snapshot) => render(<Options snapshot={snapshot} />, document.getElementById('app')!);

const known = await readSnapshot();
if (known) draw(known);

function follow(): void {
  const port = browser.runtime.connect({ name: `${WATCH_PORT}-1` });
  port.onMessage.addListener(view => draw((view as View).snapshot));
  port.onDisconnect.addListener(() => setTimeout(follow, 200));
}
follow();
