import { describe, expect, test } from 'vitest';
import type { View } from '../../extension/control/messages.ts';
import { clearedText, entryOf, figuresText, reasonAgainst, screenOf } from '../../extension/popup/popup-state.ts';
import { DEFAULT_SETTINGS } from '../../extension/settings/migrations.ts';
import { formatBytes } from '../../shared/units.ts';
import { NO_COUNTS } from '../../extension/tabs/tab-traffic.ts';

function view(
  change: {
    link?: View['snapshot']['link'];
    settings?: object;
    tab?: Partial<View['tab']>;
    state?: object | null;
  } = {},
): View {
  const { token: _token, ...rest } = DEFAULT_SETTINGS;
  return {
    snapshot: {
      link: change.link ?? 'up',
      state:
        change.state === null
          ? null
          : {
              revision: 1,
              sites: [{ site: 'example.com', route: 'work' }],
              routes: ['companion', 'work'],
              rules: 0,
              lists: [],
              default: 'companion',
              ...change.state,
            },
      settings: { ...rest, confirmed: true, paired: true, ...change.settings },
      taken: null,
      fault: null,
      sites: {},
      lastRoutes: {},
      companionVersion: '0.1.0',
    },
    tab: {
      host: 'www.example.com',
      site: 'example.com',
      entry: 'example.com',
      steered: true,
      blocked: false,
      route: 'work',
      local: false,
      cache: 'standard',
      siteCounts: null,
      because: 'sites.example.com',
      counts: NO_COUNTS,
      ...change.tab,
    },
  };
}

test('a host called like a part of an object has no route of before', () => {
  const there = view({
    tab: { host: 'constructor', site: 'constructor', entry: 'constructor', steered: false, route: null },
  });
  expect(screenOf(there, null)).toMatchObject({ screen: 'main', site: 'constructor', route: 'companion' });
});

test('a site that is on shows its registrable domain apart, its route, and a switch that can be used', () => {
  expect(screenOf(view(), null)).toMatchObject({
    screen: 'main',
    before: 'www.',
    site: 'example.com',
    on: true,
    disabled: false,
    route: 'work',
  });
});

test('before pairing there is the pairing screen, and it knows whether a companion was found', () => {
  expect(screenOf(view({ link: 'not-found', settings: { paired: false, confirmed: false } }), null)).toEqual({
    screen: 'pair',
    found: false,
    closed: false,
  });
  expect(screenOf(view({ link: 'not-paired', settings: { paired: false, confirmed: false } }), null)).toEqual({
    screen: 'pair',
    found: true,
    closed: false,
  });
});

test('when the companion has taken the pairing back, the pairing screen says that sites stay closed', () => {
  expect(screenOf(view({ settings: { paired: false } }), null)).toMatchObject({ screen: 'pair', closed: true });
  expect(screenOf(view({ settings: { paired: false, master: false } }), null)).toMatchObject({ closed: false });
});

test('while the link is only being made the switch can be used and nothing is said to be away', () => {
  expect(screenOf(view({ link: 'connecting' }), null)).toMatchObject({
    disabled: false,
    hint: 'On. Its subdomains go along.',
  });
});

test('the switch changes the entry that decides, but none that is wider than the site', () => {
  const state = { revision: 1, sites: [], routes: [], default: 'companion', rules: 0, lists: [] };
  const of = (because: string | null, ...sites: string[]) =>
    entryOf('a.static.example.com', 'example.com', because, {
      ...state,
      sites: sites.map(site => ({ site, route: 'work' })),
    });
  expect(of('sites.static.example.com')).toBe('static.example.com');
  expect(of('sites.=a.static.example.com')).toBe('=a.static.example.com');
  expect(of('sites..example.com')).toBe('.example.com');
  expect(of('sites.com')).toBe('example.com');
  expect(of('lists[0] (work.txt, line 3)', 'static.example.com')).toBe('example.com');
  // Before the companion has said, the file's sites are gone through as it would.
  expect(of(null, 'example.com', '.static.example.com')).toBe('.static.example.com');
  expect(of(null, 'com')).toBe('example.com');
  expect(of(null)).toBe('example.com');
});

test('after pairing the file is shown before anything is steered', () => {
  expect(screenOf(view({ settings: { confirmed: false } }), null)).toEqual({
    screen: 'use-these',
    sites: [{ site: 'example.com', route: 'work' }],
    routes: ['work'],
    rules: 0,
    lists: [],
  });
});

test('another version is said before anything else', () => {
  expect(screenOf(view({ link: 'wrong-version', settings: { paired: false } }), null)).toEqual({
    screen: 'wrong-version',
    version: '0.1.0',
  });
});

test('with the companion away the site switch is greyed', () => {
  expect(screenOf(view({ link: 'not-found' }), null)).toMatchObject({
    screen: 'main',
    on: true,
    disabled: true,
    hint: expect.stringContaining('away'),
  });
});

test('with Detour off the site switch is greyed and the hint says so', () => {
  expect(screenOf(view({ settings: { master: false } }), null)).toMatchObject({
    disabled: true,
    hint: expect.stringContaining('off'),
  });
});

test('a route chosen while the site is off is the one it will be turned on by', () => {
  const off = { steered: false, route: null, because: 'default' };
  expect(screenOf(view({ tab: off }), 'work')).toMatchObject({ on: false, route: 'work' });
  expect(screenOf(view({ tab: off }), null)).toMatchObject({ on: false, route: 'companion' });
});

test('a site that is turned on again goes by the route that it had, while there is one of that name', () => {
  const shown = view({ tab: { steered: false, route: null, because: 'sites.example.com' } });
  const again = (route: string): View => ({
    ...shown,
    snapshot: { ...shown.snapshot, lastRoutes: { 'example.com': route } },
  });
  expect(screenOf(again('work'), null)).toMatchObject({ on: false, route: 'work' });
  expect(screenOf(again('gone'), null)).toMatchObject({ on: false, route: 'companion' });
});

test('a site on by a list or a wider rule says by which', () => {
  expect(screenOf(view({ tab: { because: 'lists[0] (work.txt, line 3)' } }), null)).toMatchObject({
    hint: 'On, by lists[0] (work.txt, line 3).',
  });
});

test('a blocked site names its rule and has no switch to press', () => {
  expect(screenOf(view({ tab: { steered: false, blocked: true, because: 'rules[0]' } }), null)).toMatchObject({
    blocked: true,
    disabled: true,
    hint: 'Blocked by rules[0].',
  });
});

test('pages that no browser sends through a proxy say why', () => {
  for (const host of ['', 'localhost', 'app.localhost', '127.0.0.1', '[::1]'])
    expect(reasonAgainst(host), host).not.toBeNull();
  for (const host of ['example.com', '10.0.0.1', 'localhost.example']) expect(reasonAgainst(host), host).toBeNull();
});

test('bytes are written for people', () => {
  expect([0, 999, 1_000, 9_949, 12_345, 999_400, 999_600, 1_500_000, 2.5e9].map(formatBytes)).toEqual([
    '0 B',
    '999 B',
    '1.0 kB',
    '9.9 kB',
    '12 kB',
    '999 kB',
    '1.0 MB',
    '1.5 MB',
    '2.5 GB',
  ]);
});

describe('the cache of a site', () => {
  const counts = {
    requests: 9,
    lookups: 6,
    cached: 4,
    blocked: 0,
    failed: 0,
    bytesUp: 100,
    bytesDown: 9_000,
    bytesSaved: 4_100,
  };

  test('shows its mode and what came of it where the entry of the file decides', () => {
    expect(screenOf(view({ tab: { cache: 'aggressive', siteCounts: counts } }), null)).toMatchObject({
      cache: { mode: 'aggressive', figures: '67\u00a0% of 6 from the cache, 4.1\u00a0kB saved.' },
    });
    expect(screenOf(view({ tab: { because: 'lists[0] (work.txt, line 3)' } }), null)).toMatchObject({ cache: null });
    expect(screenOf(view({ tab: { steered: false } }), null)).toMatchObject({ cache: null });
  });

  test('says what is not there', () => {
    expect(screenOf(view(), null)).toMatchObject({ cache: { mode: 'standard', figures: null } });
    expect(figuresText({ ...counts, lookups: 0, cached: 0, bytesSaved: 0 })).toBe(
      'Nothing of it could be cached yet. What comes by https cannot be.',
    );
  });

  test('says how many copies were cleared', () => {
    expect([0, 1, 12].map(clearedText)).toEqual([
      'There were no cached copies.',
      'One cached copy cleared.',
      '12 cached copies cleared.',
    ]);
  });
});
