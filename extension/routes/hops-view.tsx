// The hops of the file: a list, one more by its URL or by a form, changes, tests. No password ever comes here; one that is typed goes to the companion.
import type { ComponentChildren } from 'preact';
import { useState } from 'preact/hooks';
import type { ChainTest, HopState, WaysState } from '../../shared/ways.ts';
import type { Answer, Problems } from '../control/messages.ts';
import { Bars } from './bars-view.tsx';
import { Field, type Hands } from './field-view.tsx';
import {
  addressOf,
  barsOf,
  fieldsFor,
  hopHealth,
  type HopField,
  hopOf,
  type HopTyped,
  nameFor,
  otherProblems,
  problemAt,
  saysOf,
  sparkOf,
  typedOf,
} from './routes-state.ts';

export function Hops({ ways, url, hands }: { ways: WaysState; url: string | undefined; hands: Hands }) {
  return (
    <>
      <div class="title">
        <h2 id="hops-title">Hops</h2>
        <p class="hint">Proxies that chains are made of.</p>
      </div>
      <NewHop ways={ways} url={url} hands={hands} />
      {ways.hops.length === 0 && <p class="hint">The file has no hop yet.</p>}
      {ways.hops.map(hop => (
        <HopCard key={hop.name} hop={hop} ways={ways} url={url} hands={hands} />
      ))}
    </>
  );
}

function HopCard({ hop, ways, url, hands }: { hop: HopState; ways: WaysState; url: string | undefined; hands: Hands }) {
  const [isOpen, setOpen] = useState(false);
  const { name, form, password, usedBy } = hop;
  const { button, result } = useTest(name, url, hands);
  const fares = hopHealth(hop);
  const spark = sparkOf(hop);
  const login = [
    form.username,
    password === null ? null : password === 'file' ? 'password' : 'password kept elsewhere',
  ];
  return (
    <article class="card hop" data-testid={`hop-${name}`} aria-label={`Hop ${name}`}>
      <header>
        <div class="grow">
          <h3>
            {name} <span class="kind">{form.kind}</span>
          </h3>
          <p class="hint">
            {[addressOf(hop), ...login].filter(Boolean).join(' · ')}
            {fares !== null && (
              <span class="fares" data-state={hop.health[0]!.state}>
                {fares}
              </span>
            )}
            {spark !== null && (
              <span class="spark" title={spark.says}>
                <span class="unseen">{spark.says}</span>
                {spark.bars.map((bar, i) => (
                  <i key={i} data-failed={bar === null} style={{ height: `${bar ?? 100}%` }} />
                ))}
              </span>
            )}
          </p>
        </div>
        {button}
        <button type="button" class="quiet" aria-expanded={isOpen} onClick={() => setOpen(!isOpen)}>
          {isOpen ? 'Done' : 'Edit'}
        </button>
      </header>
      {result}
      {isOpen && (
        <HopEditor key={JSON.stringify([form, password, hop.passphrase])} kinds={ways.kinds} was={hop} hands={hands}>
          <button
            type="button"
            class="quiet danger"
            disabled={usedBy.length > 0}
            title={usedBy.length > 0 ? `In ${usedBy.join(', ')}` : undefined}
            onClick={() => void hands.edit({ type: 'remove-hop', name })}
          >
            Remove the hop
          </button>
        </HopEditor>
      )}
    </article>
  );
}

/** A test of one hop, by its name or URL: the button, and what came of it. */
function useTest(hop: string, url: string | undefined, hands: Hands) {
  const [isBusy, setBusy] = useState(false);
  const [found, setFound] = useState<ChainTest[] | string | null>(null);
  const run = async () => {
    setBusy(true);
    setFound(null);
    setFound(await hands.test({ type: 'test-hop', hop, url }));
    setBusy(false);
  };
  return {
    forget: () => setFound(null),
    button: (
      <button
        type="button"
        class="quiet"
        aria-label={hop === '' ? 'Test' : `Test ${hop.includes('://') ? 'it' : hop}`}
        aria-busy={isBusy}
        disabled={hop === ''}
        onClick={() => void run()}
      >
        {isBusy ? 'Testing…' : 'Test'}
      </button>
    ),
    result:
      typeof found === 'string' ? (
        <p class="error" role="alert">
          {found}
        </p>
      ) : found === null ? null : (
        <Bars bars={barsOf(found, saysOf)} />
      ),
  };
}

function NewHop({ ways, url, hands }: { ways: WaysState; url: string | undefined; hands: Hands }) {
  const [written, setWritten] = useState('');
  const [name, setName] = useState('');
  const [byForm, setByForm] = useState(false);
  const [problems, setProblems] = useState<Problems>([]);
  const { button, result, forget } = useTest(written.trim(), url, hands);
  const proposed = nameFor(
    written,
    ways.hops.map(hop => hop.name),
  );
  const add = async () => {
    const answer = await hands.edit({
      type: 'set-hop',
      name: name.trim() || proposed,
      hop: written.trim(),
      isNew: true,
    });
    setProblems(answer.ok ? [] : (answer.problems ?? []));
    if (!answer.ok) return;
    setWritten('');
    setName('');
    forget();
  };
  if (byForm) {
    return (
      <article class="card" aria-label="New hop">
        <h3>New hop</h3>
        <HopEditor kinds={ways.kinds} was={null} hands={hands} done={() => setByForm(false)}>
          <button type="button" class="quiet" onClick={() => setByForm(false)}>
            By its URL instead
          </button>
        </HopEditor>
      </article>
    );
  }
  return (
    <form
      class="card new hop"
      onSubmit={event => {
        event.preventDefault();
        void add();
      }}
    >
      <Field
        id="new-hop"
        label="New hop, as one line"
        wide
        problem={problemAt(problems, '') ?? otherProblems(problems, ['', 'name'])}
      >
        <input
          id="new-hop"
          data-testid="new-hop"
          autocomplete="off"
          spellcheck={false}
          placeholder="socks5://me:password@host:1080"
          value={written}
          onInput={event => {
            setWritten(event.currentTarget.value);
            setProblems([]);
            forget();
          }}
        />
      </Field>
      <Field id="new-hop-name" label="Name" problem={problemAt(problems, 'name')}>
        <input
          id="new-hop-name"
          data-testid="new-hop-name"
          maxLength={64}
          placeholder={written.trim() === '' ? 'office' : proposed}
          value={name}
          onInput={event => setName(event.currentTarget.value)}
        />
      </Field>
      <div class="buttons">
        {button}
        <button type="submit" class="primary" data-testid="add-hop" disabled={written.trim() === ''}>
          Add hop
        </button>
        <button type="button" class="quiet" data-testid="by-form" onClick={() => setByForm(true)}>
          By form
        </button>
      </div>
      {result}
    </form>
  );
}

function HopEditor({
  kinds,
  was,
  hands,
  done,
  children,
}: {
  kinds: readonly string[];
  was: HopState | null;
  hands: Hands;
  done?: () => void;
  children: ComponentChildren;
}) {
  const [typed, setTyped] = useState<HopTyped>(() => (was === null ? { kind: 'socks5' } : typedOf(was)));
  const [name, setName] = useState(was?.name ?? '');
  const [cleared, setCleared] = useState<readonly string[]>([]);
  const [problems, setProblems] = useState<Problems>([]);
  const kind = String(typed['kind']);
  const fields = fieldsFor(kind);
  const put = (field: string, value: string | boolean) => setTyped({ ...typed, [field]: value });
  const save = async () => {
    const hop = hopOf(typed, was, cleared);
    let answer: Answer = await hands.edit({
      type: 'set-hop',
      name: was?.name ?? name.trim(),
      hop,
      isNew: was === null,
    });
    if (answer.ok && was !== null && name.trim() !== was.name)
      answer = await hands.edit({ type: 'rename-hop', name: was.name, to: name.trim() });
    setProblems(answer.ok ? [] : (answer.problems ?? []));
    if (answer.ok) done?.();
  };
  const id = (field: string) => `${was?.name ?? 'new'}-hop-${field}`;
  const draw = (field: HopField) => (
    <TypedField
      key={field.name}
      id={id(field.name)}
      field={field}
      value={typed[field.name]}
      kept={keptOf(field.name, was)}
      isCleared={cleared.includes(field.name)}
      clear={yes => setCleared(yes ? [...cleared, field.name] : cleared.filter(one => one !== field.name))}
      problem={problemAt(problems, field.name)}
      put={value => put(field.name, value)}
    />
  );
  const shown = ['name', 'kind', ...fields.map(field => field.name)];
  const left = otherProblems(problems, shown);
  const isMoreWrong = fields.some(field => field.more && problemAt(problems, field.name) !== null);
  return (
    <form
      class="settings"
      autocomplete="off"
      onSubmit={event => {
        event.preventDefault();
        void save();
      }}
    >
      <Field id={id('name')} label="Name" problem={problemAt(problems, 'name')}>
        <input id={id('name')} maxLength={64} value={name} onInput={event => setName(event.currentTarget.value)} />
      </Field>
      <Field id={id('kind')} label="Kind" problem={problemAt(problems, 'kind')}>
        <select id={id('kind')} value={kind} onChange={event => put('kind', event.currentTarget.value)}>
          {kinds.map(one => (
            <option key={one} value={one}>
              {one}
            </option>
          ))}
        </select>
      </Field>
      {fields.filter(field => !field.more).map(draw)}
      <details class="more" open={isMoreWrong}>
        <summary>More</summary>
        <div class="settings">{fields.filter(field => field.more).map(draw)}</div>
      </details>
      {left !== null && (
        <p class="error" role="alert">
          {left}
        </p>
      )}
      <div class="buttons">
        <button type="submit" class="primary" disabled={name.trim() === ''}>
          {was === null ? 'Add hop' : 'Save'}
        </button>
        {children}
      </div>
    </form>
  );
}

/** What is written of a secret: null = nothing. */
function keptOf(field: string, was: HopState | null): 'file' | 'elsewhere' | null {
  if (was === null) return null;
  return field === 'password' ? was.password : field === 'ssh.passphrase' ? was.passphrase : null;
}

function TypedField({
  id,
  field,
  value,
  kept,
  isCleared,
  clear,
  problem,
  put,
}: {
  id: string;
  field: HopField;
  value: string | boolean | undefined;
  kept: 'file' | 'elsewhere' | null;
  isCleared: boolean;
  clear: (yes: boolean) => void;
  problem: string | null;
  put: (value: string | boolean) => void;
}) {
  const { label, hint, kind, choices } = field;
  if (kind === 'check') {
    return (
      <label class="tick">
        <input type="checkbox" checked={value === true} onChange={event => put(event.currentTarget.checked)} />
        <span>{label}</span>
      </label>
    );
  }
  const text = typeof value === 'string' ? value : '';
  return (
    <Field id={id} label={label} problem={problem}>
      {kind === 'choice' ? (
        <select id={id} value={text || choices![0]} onChange={event => put(event.currentTarget.value)}>
          {choices!.map(one => (
            <option key={one} value={one}>
              {one}
            </option>
          ))}
        </select>
      ) : (
        <input
          {...(kind === 'password'
            ? { type: 'password', autocomplete: 'new-password' }
            : { type: 'text', autocomplete: 'off' })}
          id={id}
          inputMode={kind === 'number' ? 'numeric' : undefined}
          spellcheck={false}
          placeholder={
            kept === null ? hint : isCleared ? 'none' : kept === 'file' ? 'unchanged' : 'unchanged, kept elsewhere'
          }
          value={text}
          onInput={event => put(event.currentTarget.value)}
        />
      )}
      {kept !== null && (
        <label class="tick">
          <input type="checkbox" checked={isCleared} onChange={event => clear(event.currentTarget.checked)} />
          <span>Clear it</span>
        </label>
      )}
    </Field>
  );
}
