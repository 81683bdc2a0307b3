// What the auto routes have learnt of sites, to be looked at, forgotten and set.
import { useState } from 'preact/hooks';
import type { RouteState, SiteWay } from '../../shared/ways.ts';
import type { Hands } from './field-view.tsx';

const MOST_SHOWN = 200;

export function Memory({
  sites,
  routes,
  hands,
}: {
  sites: readonly SiteWay[];
  routes: readonly RouteState[];
  hands: Hands;
}) {
  const [site, setSite] = useState('');
  const [way, setWay] = useState<SiteWay['way']>('chains');
  const [error, setError] = useState<string | null>(null);
  if (sites.length === 0 && !routes.some(({ form }) => form.pick === 'auto')) return null;
  return (
    <article class="card" data-testid="memory" aria-label="What auto routes have learnt">
      <h3>What auto routes have learnt</h3>
      {sites.length === 0 ? (
        <p class="hint">Nothing yet: every site goes direct first.</p>
      ) : (
        <ul class="learnt">
          {sites.slice(0, MOST_SHOWN).map(one => (
            <li key={`${one.route} ${one.site}`}>
              <b>{one.site}</b>
              <span class="grow">
                {one.way === 'direct' ? 'direct' : 'by the chains'} on {one.route}
                {one.byHand ? ', set by hand' : one.sign === undefined ? '' : `, after ${one.sign}`}
              </span>
              <button
                type="button"
                class="quiet"
                aria-label={`Forget ${one.site}`}
                onClick={() => void hands.edit({ type: 'set-site-way', site: one.site, route: one.route, way: null })}
              >
                Forget
              </button>
            </li>
          ))}
        </ul>
      )}
      {sites.length > MOST_SHOWN && <p class="hint">and {sites.length - MOST_SHOWN} more: detour route memory</p>}
      <form
        class="inline"
        onSubmit={event => {
          event.preventDefault();
          void hands.edit({ type: 'set-site-way', site: site.trim(), way }).then(answer => {
            setError(answer.ok ? null : answer.message);
            if (answer.ok) setSite('');
          });
        }}
      >
        <input
          aria-label="Site"
          placeholder="example.com"
          value={site}
          onInput={event => setSite(event.currentTarget.value)}
        />
        <select
          aria-label="Its way"
          value={way}
          onChange={event => setWay(event.currentTarget.value as SiteWay['way'])}
        >
          <option value="chains">by the chains</option>
          <option value="direct">direct</option>
        </select>
        <button type="submit" class="quiet" disabled={site.trim() === ''}>
          Set
        </button>
      </form>
      {error !== null && (
        <p class="error" role="alert">
          {error}
        </p>
      )}
    </article>
  );
}
