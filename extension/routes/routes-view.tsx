// The route editor of the settings page: routes with their chains, tests of them, pins. Everything goes through the companion, which owns the file.
import type { ComponentChildren } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import { chainText } from '../../shared/ladder.ts';
import type { ChainTest, RouteForm, RouteState, SiteWay, WaysState } from '../../shared/ways.ts';
import type { Answer, Problems, WaysRequest, Wish } from '../control/messages.ts';
import { Bars } from './bars-view.tsx';
import { Field, type Hands } from './field-view.tsx';
import { Hops } from './hops-view.tsx';
import { Memory } from './memory-view.tsx';
import {
  aboutRoute,
  barsOf,
  groupsFor,
  healthText,
  memberOf,
  moved,
  otherProblems,
  PICKS,
  pinText,
  problemAt,
  type RouteFields,
  routeFields,
  saysOf,
  withChains,
  withHop,
  withHopMoved,
  withoutHop,
  withSettings,
} from './routes-state.ts';

/** How often what is shown is asked for anew, in milliseconds. */
const REFRESH = 5_000;

/** Routes and hops. `revision` changes with the file. */
export function Ways({
  isUp,
  revision,
  ask,
  children,
}: {
  isUp: boolean;
  revision: number | null;
  ask: (wish: Wish) => Promise<Answer>;
  /** What stands below the hops. */
  children: ComponentChildren;
}) {
  const [ways, setWays] = useState<WaysState | null>(null);
  const [sites, setSites] = useState<readonly SiteWay[]>([]);
  const [notice, setNotice] = useState<string | null>(null);
  const [checkUrl, setCheckUrl] = useState(() => localStorage.getItem('check-url') ?? '');
  const shown = useRef<WaysState | null>(null);
  const editing = useRef(0);

  const request = async (wanted: WaysRequest): Promise<Answer> => ask({ wish: 'ways', request: wanted });
  const load = async () => {
    const [told, remembered] = await Promise.all([request({ type: 'ways' }), request({ type: 'site-ways' })]);
    if (told.ok && told.reply?.type === 'ways') {
      const before = shown.current;
      shown.current = told.reply.ways;
      setWays(told.reply.ways);
      const isOther = before !== null && entriesOf(before) !== entriesOf(told.reply.ways);
      if (isOther && editing.current === 0) setNotice('The file was changed elsewhere. This is what it says now.');
    }
    if (remembered.ok && remembered.reply?.type === 'site-ways') setSites(remembered.reply.sites);
  };
  useEffect(() => {
    if (!isUp) return;
    void load();
    // How hops and chains fare changes without the file.
    const timer = setInterval(() => {
      if (document.visibilityState === 'visible' && editing.current === 0) void load();
    }, REFRESH);
    return () => clearInterval(timer);
  }, [isUp, revision]);

  const hands: Hands = {
    async edit(wanted) {
      editing.current++;
      setNotice(null);
      const known = shown.current?.revision;
      const isEdit = /^(?:set|remove|rename)-(?:hop|route)$/.test(wanted.type);
      const answer = await request(isEdit ? ({ ...wanted, revision: known } as WaysRequest) : wanted);
      await load();
      editing.current--;
      if (!answer.ok && (answer.problems ?? []).length === 0) setNotice(answer.message);
      return answer;
    },
    async test(wanted) {
      const answer = await request(wanted);
      if (!answer.ok) return answer.message;
      return answer.reply?.type === 'tested' ? [...answer.reply.test.chains] : 'The companion said nothing.';
    },
  };

  if (ways === null) {
    return (
      <>
        {!isUp && <p class="hint">Routes and hops are shown when the companion is back.</p>}
        <div class="others">{children}</div>
      </>
    );
  }
  const url = checkUrl.trim() === '' ? undefined : checkUrl.trim();
  return (
    <>
      {notice !== null && (
        <p class="notice" role="alert" data-testid="ways-notice">
          {notice}
        </p>
      )}
      <div class="columns">
        <fieldset class="column" disabled={!isUp} aria-labelledby="routes-title">
          <div class="title">
            <h2 id="routes-title">Routes</h2>
            <p class="hint">
              Chains of hops, tried from the top. Drag a chain by its handle, or use the arrow keys on it.
            </p>
          </div>
          <label class="check">
            <span>Check URL for tests</span>
            <input
              data-testid="check-url"
              type="url"
              placeholder="https://… a page that says who asks"
              value={checkUrl}
              onInput={event => {
                setCheckUrl(event.currentTarget.value);
                localStorage.setItem('check-url', event.currentTarget.value);
              }}
            />
            <small>Asked for only when you test. Without one, a test builds the chain and asks nobody beyond it.</small>
          </label>
          {ways.routes.map(route => (
            <RouteCard key={route.name} route={route} ways={ways} url={url} hands={hands} />
          ))}
          <NewRoute ways={ways} hands={hands} />
          <Memory sites={sites} routes={ways.routes} hands={hands} />
        </fieldset>
        <div class="column">
          <fieldset class="column" disabled={!isUp} aria-labelledby="hops-title">
            <Hops ways={ways} url={url} hands={hands} />
          </fieldset>
          {children}
        </div>
      </div>
    </>
  );
}

const entriesOf = ({ hops, routes }: WaysState) => JSON.stringify([hops, routes.map(({ name, form }) => [name, form])]);

function RouteCard({
  route,
  ways,
  url,
  hands,
}: {
  route: RouteState;
  ways: WaysState;
  url: string | undefined;
  hands: Hands;
}) {
  const [isOpen, setOpen] = useState(false);
  const [tests, setTests] = useState<readonly ChainTest[]>([]);
  const [testing, setTesting] = useState(0);
  const [error, setError] = useState<string | null>(null);
  const { name, form } = route;
  const change = async (wanted: RouteForm) => {
    if (JSON.stringify(wanted) === JSON.stringify(form)) return;
    const answer = await hands.edit({ type: 'set-route', name, route: wanted });
    setError(answer.ok ? null : answer.message);
  };
  const test = async () => {
    setTests([]);
    setError(null);
    const chains = route.chains.filter(chain => chain.length > 0 || url !== undefined || form.check?.url !== undefined);
    if (chains.length === 0) return setError('This route has no hop: type a check URL to test it.');
    setTesting(chains.length);
    // A question for each chain, so that each is shown as soon as it is known.
    await Promise.all(
      chains.map(async chain => {
        const found = await hands.test({ type: 'test-route', route: name, chain: [...chain], url });
        setTesting(left => left - 1);
        if (typeof found === 'string') setError(found);
        else setTests(known => inOrder([...known, ...found], chains));
      }),
    );
    setTesting(0);
  };
  return (
    <article class="card route" data-testid={`route-${name}`} aria-label={`Route ${name}`}>
      <header>
        <div class="grow">
          <h3>{name}</h3>
          <p class="hint">{aboutRoute(route).join(' · ')}</p>
        </div>
        <button
          type="button"
          class="quiet"
          data-testid={`test-${name}`}
          aria-busy={testing > 0}
          onClick={() => void test()}
        >
          {testing > 0 ? 'Testing…' : 'Test'}
        </button>
        <button
          type="button"
          class="quiet"
          aria-expanded={isOpen}
          data-testid={`edit-${name}`}
          onClick={() => setOpen(!isOpen)}
        >
          {isOpen ? 'Done' : 'Edit'}
        </button>
      </header>
      <Chains route={route} ways={ways} isOpen={isOpen} change={wanted => void change(wanted)} hands={hands} />
      {error !== null && (
        <p class="error" role="alert">
          {error}
        </p>
      )}
      {tests.length > 0 && <Bars bars={barsOf(tests, saysOf)} />}
      {isOpen && <Settings key={JSON.stringify(form)} route={route} hands={hands} />}
    </article>
  );
}

function inOrder(tests: readonly ChainTest[], chains: readonly (readonly string[])[]): readonly ChainTest[] {
  const place = ({ chain }: ChainTest) => chains.findIndex(other => chainText(other) === chainText(chain));
  return [...tests].sort((a, b) => place(a) - place(b));
}

/** The chains of a route, to be put in order. */
function Chains({
  route: { name, form, pin, health },
  ways,
  isOpen,
  change,
  hands,
}: {
  route: RouteState;
  ways: WaysState;
  isOpen: boolean;
  change: (form: RouteForm) => void;
  hands: Hands;
}) {
  const [dragged, drag] = useState<number | null>(null);
  const [over, setOver] = useState<number | null>(null);
  const list = useRef<HTMLOListElement>(null);
  /** The chain that the keyboard has moved: its handle keeps the focus at its new place. */
  const followed = useRef<number | null>(null);
  const { chains } = form;
  useEffect(() => {
    if (followed.current !== null)
      list.current?.querySelectorAll<HTMLElement>('button.grip')[followed.current]?.focus();
    followed.current = null;
  }, [JSON.stringify(chains)]);
  const put = (from: number, to: number) => change(withChains(form, moved(chains, from, to)));
  const groups = groupsFor(name, ways.routes);
  return (
    <ol class="chains" ref={list}>
      {form.pick === 'auto' && (
        <li class="chain last">
          <span class="grip" aria-hidden="true" />
          <span class="pills">
            <span class="pill companion">companion</span>
          </span>
          <span class="fares">first, where a site is not blocked</span>
        </li>
      )}
      {chains.map((member, i) => {
        const text = typeof member === 'string' ? `the route ${member}` : chainText(member);
        const known = typeof member === 'string' ? undefined : health.find(({ chain }) => same(chain, member));
        const isPinned = pin !== null && typeof member !== 'string' && same(pin.chain, member);
        const says = healthText(known);
        return (
          // Dragging is for the mouse; the arrow keys of the handle do the same.
          // oxlint-disable-next-line jsx-a11y/no-noninteractive-element-interactions
          <li
            key={`${i} ${text}`}
            class="chain"
            data-over={over === i && dragged !== null && dragged !== i}
            data-dragged={dragged === i}
            draggable
            onDragStart={event => {
              event.dataTransfer?.setData('text/plain', text);
              drag(i);
            }}
            onDragEnd={() => {
              drag(null);
              setOver(null);
            }}
            onDragOver={event => {
              if (dragged === null) return;
              event.preventDefault();
              setOver(i);
            }}
            onDrop={event => {
              event.preventDefault();
              if (dragged !== null) put(dragged, i);
              drag(null);
              setOver(null);
            }}
          >
            <button
              type="button"
              class="grip"
              aria-label={`Chain ${i + 1}, ${text}: move it with the arrow keys`}
              title="Drag, or arrow keys"
              onKeyDown={event => {
                const step = event.key === 'ArrowUp' ? -1 : event.key === 'ArrowDown' ? 1 : 0;
                if (step === 0) return;
                event.preventDefault();
                if (i + step < 0 || i + step >= chains.length) return;
                followed.current = i + step;
                put(i, i + step);
              }}
            >
              <span aria-hidden="true">⠿</span>
            </button>
            <ol class="pills" aria-label={`Chain ${i + 1}`}>
              {typeof member === 'string' ? (
                <li>
                  <span class="pill group">
                    <small>route</small> {member}
                  </span>
                </li>
              ) : member.length === 0 ? (
                <li>
                  <span class="pill companion">companion</span>
                </li>
              ) : (
                member.map((hop, j) => (
                  <li key={`${j} ${hop}`}>
                    <span class="pill">
                      {isOpen && j > 0 && (
                        <button
                          type="button"
                          class="front"
                          aria-label={`${hop} earlier in chain ${i + 1}`}
                          onClick={() => change(withHopMoved(form, i, j, j - 1))}
                        >
                          ‹
                        </button>
                      )}
                      {hop}
                      {isOpen && (
                        <button
                          type="button"
                          aria-label={`Take ${hop} out of chain ${i + 1}`}
                          onClick={() => change(withoutHop(form, i, j))}
                        >
                          ×
                        </button>
                      )}
                    </span>
                  </li>
                ))
              )}
              {isOpen && typeof member !== 'string' && (
                <li class="adds">
                  <select
                    aria-label={`Add a hop to chain ${i + 1}`}
                    data-testid={`add-hop-${name}-${i + 1}`}
                    value=""
                    onChange={event => {
                      const { value } = event.currentTarget;
                      event.currentTarget.value = '';
                      if (value !== '') change(withHop(form, i, value));
                    }}
                  >
                    <option value="">+ hop</option>
                    {ways.hops.map(hop => (
                      <option key={hop.name} value={hop.name}>
                        {hop.name}
                      </option>
                    ))}
                  </select>
                </li>
              )}
            </ol>
            <span class="fares" data-state={known?.state ?? 'unknown'} title={known?.reason}>
              {isPinned ? pinText(pin) : says}
            </span>
            {isOpen && (
              <span class="tools">
                <button
                  type="button"
                  class="tool"
                  aria-label={`Chain ${i + 1} up`}
                  disabled={i === 0}
                  onClick={() => put(i, i - 1)}
                >
                  ↑
                </button>
                <button
                  type="button"
                  class="tool"
                  aria-label={`Chain ${i + 1} down`}
                  disabled={i === chains.length - 1}
                  onClick={() => put(i, i + 1)}
                >
                  ↓
                </button>
                {typeof member !== 'string' && chains.length > 1 && (
                  <button
                    type="button"
                    class="tool word"
                    aria-pressed={isPinned}
                    aria-label={`${isPinned ? 'Unpin' : 'Pin 2 h'}, chain ${i + 1}`}
                    title={isPinned ? 'Unpin' : 'This chain and no other, for two hours'}
                    onClick={() =>
                      void hands.edit(
                        isPinned
                          ? { type: 'unpin-route', route: name }
                          : { type: 'pin-route', route: name, chain: [...member], for: 7_200 },
                      )
                    }
                  >
                    {isPinned ? 'Unpin' : 'Pin 2 h'}
                  </button>
                )}
                <button
                  type="button"
                  class="tool"
                  aria-label={`Remove chain ${i + 1}`}
                  disabled={chains.length === 1}
                  onClick={() =>
                    change(
                      withChains(
                        form,
                        chains.filter((_, j) => j !== i),
                      ),
                    )
                  }
                >
                  ×
                </button>
              </span>
            )}
          </li>
        );
      })}
      {form.else === 'companion' && (
        <li class="chain last">
          <span class="grip" aria-hidden="true" />
          <span class="pills">
            <span class="pill companion">companion</span>
          </span>
          <span class="fares">when all fail</span>
        </li>
      )}
      {isOpen && (
        <li class="chain adds">
          <select
            aria-label={`Add a chain to ${name}`}
            data-testid={`add-chain-${name}`}
            value=""
            onChange={event => {
              const { value } = event.currentTarget;
              event.currentTarget.value = '';
              if (value !== '') change(withChains(form, [...chains, memberOf(value)]));
            }}
          >
            <option value="">+ Add a chain that begins with…</option>
            {ways.hops.map(hop => (
              <option key={hop.name} value={`hop:${hop.name}`}>
                {hop.name}
              </option>
            ))}
            {groups.map(group => (
              <option key={group} value={`route:${group}`}>
                the chains of the route {group}
              </option>
            ))}
            <option value="companion">companion (no hop)</option>
          </select>
        </li>
      )}
    </ol>
  );
}

const same = (a: readonly string[], b: readonly string[]) => chainText(a) === chainText(b) && a.length === b.length;

function Settings({ route: { name, form, usedBy }, hands }: { route: RouteState; hands: Hands }) {
  const [fields, setFields] = useState<RouteFields>(() => routeFields(form));
  const [newName, setName] = useState(name);
  const [problems, setProblems] = useState<Problems>([]);
  const put = (part: Partial<RouteFields>) => setFields({ ...fields, ...part });
  const isChanged = JSON.stringify(fields) !== JSON.stringify(routeFields(form)) || newName !== name;
  const save = async () => {
    const wanted = withSettings(form, fields);
    let answer: Answer = { ok: true };
    if (JSON.stringify(wanted) !== JSON.stringify(form))
      answer = await hands.edit({ type: 'set-route', name, route: wanted });
    if (answer.ok && newName !== name) answer = await hands.edit({ type: 'rename-route', name, to: newName });
    setProblems(answer.ok ? [] : (answer.problems ?? []));
  };
  const id = (field: string) => `${name}-${field}`;
  return (
    <form
      class="settings"
      onSubmit={event => {
        event.preventDefault();
        void save();
      }}
    >
      <Field id={id('name')} label="Name" problem={problemAt(problems, 'name')}>
        <input id={id('name')} value={newName} maxLength={64} onInput={event => setName(event.currentTarget.value)} />
      </Field>
      <Field id={id('privacy')} label="At least class" problem={problemAt(problems, 'floor.privacy')}>
        <input
          id={id('privacy')}
          inputMode="numeric"
          placeholder="none"
          value={fields.privacy}
          onInput={event => put({ privacy: event.currentTarget.value })}
        />
      </Field>
      <Field id={id('hops')} label="At least hops" problem={problemAt(problems, 'floor.hops')}>
        <input
          id={id('hops')}
          inputMode="numeric"
          placeholder="none"
          value={fields.hops}
          onInput={event => put({ hops: event.currentTarget.value })}
        />
      </Field>
      <Field id={id('pick')} label="Which chain" wide problem={problemAt(problems, 'pick')}>
        <select id={id('pick')} value={fields.pick} onChange={event => put({ pick: event.currentTarget.value })}>
          {PICKS.map(([pick, says]) => (
            <option key={pick} value={pick}>
              {says}
            </option>
          ))}
        </select>
      </Field>
      {fields.pick === 'latency' && (
        <Field id={id('tolerance')} label="Tolerance, ms" problem={problemAt(problems, 'tolerance')}>
          <input
            id={id('tolerance')}
            inputMode="numeric"
            placeholder="50"
            value={fields.tolerance}
            onInput={event => put({ tolerance: event.currentTarget.value })}
          />
        </Field>
      )}
      <Field id={id('check')} label="Asked for from time to time (health)" wide problem={problemAt(problems, 'check')}>
        <input
          id={id('check')}
          placeholder="nothing: health is learnt from your own traffic"
          value={fields.checkUrl}
          onInput={event => put({ checkUrl: event.currentTarget.value })}
        />
      </Field>
      <label class="tick">
        <input type="checkbox" checked={fields.open} onChange={event => put({ open: event.currentTarget.checked })} />
        <span>When all chains fail, the companion connects itself (open)</span>
      </label>
      {problemAt(problems, 'else') !== null && <p class="error">{problemAt(problems, 'else')}</p>}
      <label class="tick">
        <input
          type="checkbox"
          checked={fields.isolate}
          onChange={event => put({ isolate: event.currentTarget.checked })}
        />
        <span>Every site by its own credentials toward the last hop (Tor)</span>
      </label>
      {otherProblems(problems, ['name', 'pick', 'tolerance', 'floor.privacy', 'floor.hops', 'check', 'else']) !==
        null && (
        <p class="error" role="alert">
          {otherProblems(problems, ['name', 'pick', 'tolerance', 'floor.privacy', 'floor.hops', 'check', 'else'])}
        </p>
      )}
      <div class="buttons">
        <button type="submit" class="primary" disabled={!isChanged}>
          Save
        </button>
        <button
          type="button"
          class="quiet danger"
          disabled={usedBy.length > 0}
          title={usedBy.length > 0 ? `Used by ${usedBy.join(', ')}` : undefined}
          onClick={() => void hands.edit({ type: 'remove-route', name })}
        >
          Remove the route
        </button>
      </div>
    </form>
  );
}

function NewRoute({ ways, hands }: { ways: WaysState; hands: Hands }) {
  const [name, setName] = useState('');
  const [first, setFirst] = useState('');
  const [problems, setProblems] = useState<Problems>([]);
  const chosen = first === '' ? (ways.hops[0] ? `hop:${ways.hops[0].name}` : 'companion') : first;
  return (
    <form
      class="card new"
      onSubmit={event => {
        event.preventDefault();
        const route = { chains: [memberOf(chosen)] } as RouteForm;
        void hands.edit({ type: 'set-route', name: name.trim(), route, isNew: true }).then(answer => {
          setProblems(answer.ok ? [] : (answer.problems ?? []));
          if (answer.ok) setName('');
        });
      }}
    >
      <Field
        id="new-route"
        label="New route"
        problem={problemAt(problems, 'name') ?? otherProblems(problems, ['name'])}
      >
        <input
          id="new-route"
          data-testid="new-route"
          placeholder="work"
          maxLength={64}
          value={name}
          onInput={event => setName(event.currentTarget.value)}
        />
      </Field>
      <Field id="new-route-first" label="Begins with" problem={null}>
        <select
          id="new-route-first"
          data-testid="new-route-first"
          value={chosen}
          onChange={event => setFirst(event.currentTarget.value)}
        >
          {ways.hops.map(hop => (
            <option key={hop.name} value={`hop:${hop.name}`}>
              {hop.name}
            </option>
          ))}
          <option value="companion">companion (no hop)</option>
        </select>
      </Field>
      <button type="submit" class="primary" data-testid="add-route" disabled={name.trim() === ''}>
        Add route
      </button>
    </form>
  );
}
