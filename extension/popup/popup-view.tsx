// The popup as it is drawn. It asks for nothing itself: a view comes in, wishes go out.
import { useState } from 'preact/hooks';
import type { CacheMode } from '../../shared/decision/rule.ts';
import type { Attempt } from '../../shared/exchange.ts';
import { chainText, ladderText, outcomeText, STAGES, whoText } from '../../shared/ladder.ts';
import { formatBytes } from '../../shared/units.ts';
import type { Answer, View, Wish } from '../control/messages.ts';
import type { Incident } from '../tabs/tab-traffic.ts';
import { CACHE_MODES, LINK_WORDS, type Main, type Screen, screenOf } from './popup-state.ts';

interface Props {
  readonly view: View;
  readonly ask: (wish: Wish) => Promise<Answer>;
  readonly openOptions: () => void;
  /** Loads the tab again. */
  readonly reload: () => void;
}

export function Popup({ view, ask, openOptions, reload }: Props) {
  const [wantedRoute, chooseRoute] = useState<string | null>(null);
  const { snapshot } = view;
  const screen = screenOf(view, wantedRoute);
  return (
    <main>
      <header>
        <h1>Detour</h1>
        <output class="link" data-testid="link" data-state={snapshot.link}>
          {LINK_WORDS[snapshot.link]}
        </output>
      </header>
      {snapshot.taken !== null && (
        <p class="notice" role="alert" data-testid="taken">
          {snapshot.taken}
        </p>
      )}
      {snapshot.fault !== null && (
        <p class="notice" role="alert" data-testid="fault">
          {snapshot.fault}
        </p>
      )}
      {screen.screen === 'pair' && (
        <Pair found={screen.found} closed={screen.closed} port={snapshot.settings.port} ask={ask} />
      )}
      {screen.screen === 'use-these' && <UseThese screen={screen} ask={ask} />}
      {screen.screen === 'wrong-version' && <WrongVersion version={screen.version} ask={ask} />}
      {screen.screen === 'main' && (
        <Site main={screen} view={view} ask={ask} chooseRoute={chooseRoute} reload={reload} />
      )}
      <footer>
        <Master on={snapshot.settings.master} ask={ask} />
        <button type="button" class="quiet" onClick={openOptions}>
          Settings
        </button>
      </footer>
    </main>
  );
}

function Site({
  main,
  view,
  ask,
  chooseRoute,
  reload,
}: {
  main: Main;
  view: View;
  ask: Props['ask'];
  chooseRoute: (route: string) => void;
  reload: Props['reload'];
}) {
  const [busy, setBusy] = useState(false);
  const [changed, setChanged] = useState(false);
  const [said, setSaid] = useState<string | null>(null);
  const [error, setError] = useState<string | null>(null);
  const { link, state } = view.snapshot;
  const carryOut = async (wanted: Wish) => {
    if (busy) return;
    setBusy(true);
    setError(null);
    setSaid(null);
    const answer = await ask(wanted);
    setBusy(false);
    setChanged(answer.ok);
    if (!answer.ok) setError(answer.message);
    else if (answer.said !== undefined) setSaid(answer.said);
  };
  const wish = (route: string) => carryOut({ wish: 'set-site', site: main.entry, route });
  if (main.notSteerable !== null) {
    return (
      <section class="card">
        <p class="hint">{main.notSteerable}</p>
      </section>
    );
  }
  return (
    <>
      <section class="card" data-on={main.on && view.snapshot.settings.master} data-blocked={main.blocked}>
        <div class="row">
          <p class="host" data-testid="site" title={main.before + main.site}>
            <span>{main.before}</span>
            <strong>{main.site}</strong>
          </p>
          <Switch
            name="site-switch"
            large
            on={main.on}
            busy={busy}
            label={`Steer ${main.entry}`}
            disabled={main.disabled}
            flip={() => void wish(main.on ? 'off' : main.route)}
          />
        </div>
        <div class="row said">
          <p class="hint" data-testid="hint">
            {main.hint}
          </p>
          {changed && !busy && !main.disabled && (
            <button type="button" class="quiet" data-testid="reload" onClick={reload}>
              Reload page
            </button>
          )}
        </div>
        <label class="row route">
          <span>Route</span>
          <select
            data-testid="route"
            value={main.route}
            disabled={main.disabled}
            onChange={event => {
              const { value } = event.currentTarget;
              chooseRoute(value);
              if (main.on) void wish(value);
            }}
          >
            {main.routes.map(route => (
              <option key={route} value={route}>
                {route}
              </option>
            ))}
          </select>
        </label>
        {main.local !== null && (
          <LocalNetwork
            on={main.local}
            site={main.entry}
            disabled={main.disabled}
            busy={busy}
            flip={local => void carryOut({ wish: 'set-local', site: main.entry, local })}
          />
        )}
        {main.cache !== null && (
          <Cache
            cache={main.cache}
            said={said}
            disabled={main.disabled}
            choose={mode => void carryOut({ wish: 'set-cache', site: main.entry, mode })}
            clear={() => void carryOut({ wish: 'clear-cache', site: main.site })}
          />
        )}
        {error !== null && (
          <p class="error" role="alert">
            {error}
          </p>
        )}
      </section>
      {link === 'not-found' && <NotFound port={view.snapshot.settings.port} ask={ask} />}
      {link === 'not-paired' && <NotPaired port={view.snapshot.settings.port} ask={ask} />}
      {state?.problem !== undefined && (
        <p class="notice" role="alert">
          The file has a fault; the last good one is in force. {state.problem}
        </p>
      )}
      <Counts view={view} />
      <Incidents incidents={view.tab.counts.incidents} />
    </>
  );
}

function Switch(props: {
  /** By which tests find it. */
  name: string;
  large?: boolean;
  on: boolean;
  busy: boolean;
  label: string;
  disabled?: boolean;
  flip: () => void;
}) {
  return (
    <button
      type="button"
      role="switch"
      class={props.large ? 'switch large' : 'switch'}
      data-testid={props.name}
      aria-checked={props.on}
      aria-busy={props.busy}
      aria-label={props.label}
      disabled={props.disabled}
      onClick={props.flip}
    >
      <span />
    </button>
  );
}

/** What steering takes from a page for its safety, and how to give it back. */
function LocalNetwork({
  on,
  site,
  disabled,
  busy,
  flip,
}: {
  on: boolean;
  site: string;
  disabled: boolean;
  busy: boolean;
  flip: (on: boolean) => void;
}) {
  return (
    <div class="row local">
      <p class="hint" data-testid="local-hint">
        <b>Local network</b>
        {on
          ? ' Its pages can reach programs on this computer and devices on your network, without asking.'
          : ' Its pages cannot reach programs on this computer or devices on your network.'}
      </p>
      <Switch
        name="local-switch"
        on={on}
        busy={busy}
        label={`Let pages of ${site} reach the local network`}
        disabled={disabled}
        flip={() => flip(!on)}
      />
    </div>
  );
}

/** How the answers of the site are cached, what came of it, and how to begin anew. */
function Cache({
  cache,
  said,
  disabled,
  choose,
  clear,
}: {
  cache: NonNullable<Main['cache']>;
  said: string | null;
  disabled: boolean;
  choose: (mode: CacheMode) => void;
  clear: () => void;
}) {
  return (
    <>
      <label class="row route">
        <span>Cache</span>
        <select
          data-testid="cache-mode"
          value={cache.mode}
          disabled={disabled}
          onChange={event => choose(event.currentTarget.value as CacheMode)}
        >
          {CACHE_MODES.map(([mode, name]) => (
            <option key={mode} value={mode}>
              {name}
            </option>
          ))}
        </select>
      </label>
      <div class="row">
        <output class="hint" data-testid="cache-figures">
          {cache.figures} {said}
        </output>
        <button
          type="button"
          class="quiet"
          data-testid="clear-cache"
          title="Clear cached copies of this site"
          disabled={disabled}
          onClick={clear}
        >
          Clear copies
        </button>
      </div>
    </>
  );
}

function Counts({ view }: { view: View }) {
  const { counts } = view.tab;
  const cells = [
    ['requests', 'Requests', counts.requests],
    ['cached', 'Cached', counts.cached],
    ['blocked', 'Blocked', counts.blocked],
    ['bytes', 'Received', formatBytes(counts.bytes)],
  ] as const;
  return (
    <dl class="counts" aria-label="This tab">
      {cells.map(([name, label, value]) => (
        <div key={name}>
          <dd data-testid={`count-${name}`}>{value}</dd>
          <dt>{label}</dt>
        </div>
      ))}
    </dl>
  );
}

function Incidents({ incidents }: { incidents: readonly Incident[] }) {
  const blocked = incidents.filter(incident => incident.blockedBy);
  const tried = incidents.filter(incident => !incident.blockedBy);
  return (
    <>
      {blocked.length > 0 && (
        <section class="list" data-testid="blocked" aria-label="Blocked">
          <h2>Blocked</h2>
          <ul>
            {blocked.map(({ host, blockedBy }) => (
              <li key={host}>
                <b>{host}</b> by <code>{blockedBy!.rule}</code>
                {blockedBy!.list !== undefined && ` (${blockedBy!.list}, line ${blockedBy!.line})`}
              </li>
            ))}
          </ul>
        </section>
      )}
      {tried.length > 0 && (
        <section class="list" data-testid="ladder" aria-label="Ways that were tried">
          <h2>Ways tried</h2>
          {tried.slice(0, 3).map((incident, i) => (
            <Ladder key={incident.host + incident.sentence} incident={incident} open={i === 0} />
          ))}
        </section>
      )}
    </>
  );
}

/** One exchange that did not get through at once: every chain that was tried, and what came of it. */
function Ladder({ incident, open }: { incident: Incident; open: boolean }) {
  const { host, sentence, attempts } = incident;
  return (
    <details open={open}>
      <summary>
        <b>{host}</b>
        <span>{attempts.length === 0 ? 'not sent' : ladderText(attempts)}</span>
      </summary>
      {sentence !== undefined && <p>{sentence}</p>}
      <ol>
        {attempts.map((attempt, i) => (
          <Rung key={i} attempt={attempt} />
        ))}
      </ol>
    </details>
  );
}

function Rung({ attempt }: { attempt: Attempt }) {
  const { chain, outcome, stage, verdict, reason, took } = attempt;
  const isOk = outcome === 'ok';
  const about = [
    outcomeText(attempt),
    !isOk && (STAGES[stage] ?? stage),
    !isOk && verdict !== undefined && whoText(verdict),
  ].filter(Boolean);
  return (
    <li class={isOk ? 'ok' : 'no'}>
      <span>{chainText(chain, ' → ')}</span>
      <span>{Math.round(took)} ms</span>
      <small>{about.join(' · ')}</small>
      {reason !== undefined && <small class="reason">{reason}</small>}
    </li>
  );
}

function Pair({ found, closed, port, ask }: { found: boolean; closed: boolean; port: number; ask: Props['ask'] }) {
  const [error, setError] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    const form = new FormData(event.currentTarget as HTMLFormElement);
    const code = String(form.get('code')).replace(/\D/g, '');
    const wanted = Number(form.get('port'));
    if (code.length !== 6) return setError('The code has six digits.');
    if (!Number.isInteger(wanted) || wanted < 1 || wanted > 65_535)
      return setError('The port is a number from 1 to 65535.');
    setBusy(true);
    setError(null);
    const answer = await ask({ wish: 'pair', code, port: wanted });
    setBusy(false);
    if (!answer.ok) setError(answer.message);
  };
  return (
    <form class="card" data-testid="pair-form" onSubmit={event => void submit(event as unknown as SubmitEvent)}>
      <h2>Pair with the companion</h2>
      {closed && (
        <p class="hint" data-testid="closed">
          The companion no longer knows this browser. Sites that were on stay closed until you pair again or turn Detour
          off.
        </p>
      )}
      {found ? (
        <p class="hint">
          It printed a six-digit code in the terminal when it started. A new one: <code>detour pair</code>
        </p>
      ) : (
        <p class="hint">
          The companion was not found. Start it in a terminal, then type the code that it prints: <code>npm start</code>
        </p>
      )}
      <div class="row">
        <label class="grow">
          <span>Code</span>
          <input
            name="code"
            data-testid="code"
            inputMode="numeric"
            autocomplete="off"
            placeholder="123 456"
            maxLength={7}
          />
        </label>
        <label>
          <span>Port</span>
          <input
            name="port"
            data-testid="port"
            inputMode="numeric"
            defaultValue={String(port)}
            maxLength={5}
            class="port"
          />
        </label>
      </div>
      {error !== null && (
        <p class="error" role="alert" data-testid="pair-error">
          {error}
        </p>
      )}
      <button type="submit" class="primary" data-testid="pair" disabled={busy}>
        {busy ? 'Pairing…' : 'Pair'}
      </button>
    </form>
  );
}

function UseThese({ screen, ask }: { screen: Screen & { screen: 'use-these' }; ask: Props['ask'] }) {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<string | null>(null);
  return (
    <section class="card" data-testid="use-these">
      <h2>Paired. Use these here?</h2>
      {screen.sites.length + screen.rules + screen.lists.length === 0 ? (
        <p class="hint">The file has no sites yet. Nothing is steered until you turn a site on.</p>
      ) : (
        <>
          <p class="hint">The file has these. From now on this browser would send them to the companion:</p>
          <ul class="sites">
            {screen.sites.slice(0, 8).map(({ site, route, local }) => (
              <li key={site}>
                <b>{site}</b> <span>{route === 'off' ? 'not steered' : route}</span>
                {local === true && <span>, may reach your local network</span>}
              </li>
            ))}
            {screen.lists.map(({ file, route }) => (
              <li key={file}>
                <b>all hosts of {file}</b> <span>{route === 'off' ? 'not steered' : route}</span>
              </li>
            ))}
            {screen.rules > 0 && (
              <li>
                <b>what {screen.rules === 1 ? 'one rule' : `${screen.rules} rules`} of yours name</b>
              </li>
            )}
          </ul>
          {screen.sites.length > 8 && <p class="hint">and {screen.sites.length - 8} more.</p>}
        </>
      )}
      {screen.routes.length > 0 && <p class="hint">Routes: {screen.routes.join(', ')}</p>}
      <button
        type="button"
        class="primary"
        data-testid="use-these-button"
        disabled={busy}
        onClick={() => {
          setBusy(true);
          void ask({ wish: 'use-these' }).then(answer => {
            setBusy(false);
            setError(answer.ok ? null : answer.message);
          });
        }}
      >
        Use these
      </button>
      {error !== null && (
        <p class="error" role="alert">
          {error}
        </p>
      )}
    </section>
  );
}

function NotFound({ port, ask }: { port: number; ask: Props['ask'] }) {
  return (
    <div class="notice row" data-testid="not-found">
      <p>
        Nothing answers on port {port}. Start the companion in a terminal: <code>npm start</code>
      </p>
      <Retry ask={ask} />
    </div>
  );
}

function Retry({ ask }: { ask: Props['ask'] }) {
  const [busy, setBusy] = useState(false);
  return (
    <button
      type="button"
      class="quiet"
      data-testid="retry"
      aria-disabled={busy}
      onClick={() => {
        if (busy) return;
        setBusy(true);
        void ask({ wish: 'retry' }).finally(() => setBusy(false));
      }}
    >
      Try again
    </button>
  );
}

function NotPaired({ port, ask }: { port: number; ask: Props['ask'] }) {
  return (
    <div class="notice row" data-testid="not-paired">
      <p>What answers on port {port} does not know this browser. Was it unpaired, or is it another program?</p>
      <button type="button" class="quiet" data-testid="pair-again" onClick={() => void ask({ wish: 'pair-again' })}>
        Pair again
      </button>
    </div>
  );
}

function WrongVersion({ version, ask }: { version: string | null; ask: Props['ask'] }) {
  return (
    <section class="card" data-testid="wrong-version">
      <h2>Another version</h2>
      <p class="hint">
        The companion{version === null ? '' : ` (${version})`} speaks another version of the control link. Update both
        from the same folder, then load the extension again.
      </p>
      <Retry ask={ask} />
    </section>
  );
}

function Master({ on, ask }: { on: boolean; ask: Props['ask'] }) {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<string | null>(null);
  return (
    <div class="master">
      <Switch
        name="master"
        on={on}
        busy={busy}
        label="Detour, for every site"
        flip={() => {
          if (busy) return;
          setBusy(true);
          void ask({ wish: 'master', on: !on }).then(answer => {
            setBusy(false);
            setError(answer.ok ? null : answer.message);
          });
        }}
      />
      <span>
        Detour {on ? 'on' : 'off'}
        {error !== null && <span role="alert">: {error}</span>}
      </span>
    </div>
  );
}
