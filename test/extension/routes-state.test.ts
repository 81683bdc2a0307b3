// The route editor without a browser: what a click makes of a route, what a form makes of a hop, what a test looks like.
import { describe, expect, test } from 'vitest';
import {
  aboutRoute,
  addressOf,
  barsOf,
  fieldsFor,
  groupsFor,
  healthText,
  hopHealth,
  hopOf,
  memberOf,
  moved,
  nameFor,
  otherProblems,
  pinText,
  problemAt,
  routeFields,
  saysOf,
  sparkOf,
  typedOf,
  withChains,
  withHop,
  withHopMoved,
  withoutHop,
  withSettings,
} from '../../extension/routes/routes-state.ts';
import type { ChainHealth, ChainTest, HopState, RouteForm } from '../../shared/ways.ts';

const WORK: RouteForm = { chains: [['office'], ['squid', 'tor'], 'far'], else: 'companion' };

describe('a route', () => {
  test('has its chains moved, from the top to the end and nowhere else', () => {
    expect(moved(['a', 'b', 'c'], 0, 2)).toEqual(['b', 'c', 'a']);
    expect(moved(['a', 'b', 'c'], 2, 0)).toEqual(['c', 'a', 'b']);
    expect(moved(['a', 'b'], 0, -1)).toEqual(['a', 'b']);
    expect(moved(['a', 'b'], 1, 2)).toEqual(['a', 'b']);
    expect(withChains(WORK, moved(WORK.chains, 1, 0))).toEqual({
      ...WORK,
      chains: [['squid', 'tor'], ['office'], 'far'],
    });
  });

  test('gets hops and loses them; a chain without hops goes, lest it become the companion itself', () => {
    expect(withHop(WORK, 0, 'tor').chains[0]).toEqual(['office', 'tor']);
    expect(withHop(WORK, 2, 'tor')).toEqual(WORK);
    expect(withoutHop(WORK, 1, 0).chains).toEqual([['office'], ['tor'], 'far']);
    expect(withoutHop(WORK, 0, 0).chains).toEqual([['squid', 'tor'], 'far']);
    expect(withHopMoved(WORK, 1, 1, 0).chains[1]).toEqual(['tor', 'squid']);
    expect(memberOf('hop:office')).toEqual(['office']);
    expect(memberOf('route:far')).toBe('far');
    expect(memberOf('companion')).toEqual([]);
  });

  test('may have the routes as groups that do not lead back to it', () => {
    const routes = [
      { name: 'a', form: { chains: ['b'] } },
      { name: 'b', form: { chains: [['x'], 'c'] } },
      { name: 'c', form: { chains: [['x']] } },
      { name: 'd', form: { chains: [['x']] } },
    ];
    expect(groupsFor('c', routes)).toEqual(['d']);
    expect(groupsFor('a', routes)).toEqual(['b', 'c', 'd']);
    expect(groupsFor('d', routes)).toEqual(['a', 'b', 'c']);
  });

  test('keeps what its settings do not speak of, and loses what is set back', () => {
    const form: RouteForm = {
      chains: [['a']],
      pick: 'latency',
      tolerance: 20,
      floor: { privacy: 2 },
      check: { url: 'http://a/', every: 60 },
      buffer: 10,
    };
    expect(withSettings(form, routeFields(form))).toEqual(form);
    expect(
      withSettings(form, { ...routeFields(form), pick: 'order', open: true, privacy: '', hops: '2', checkUrl: ' ' }),
    ).toEqual({ chains: [['a']], buffer: 10, else: 'companion', floor: { hops: 2 } });
    expect(withSettings(form, { ...routeFields(form), checkUrl: 'http://b/' }).check).toEqual({
      url: 'http://b/',
      every: 60,
    });
  });

  test('says what it is', () => {
    expect(aboutRoute({ form: WORK, usedBy: [] })).toEqual([
      'In order',
      'open: else the companion itself',
      'not used yet',
    ]);
    expect(
      aboutRoute({
        form: { chains: [['a']], pick: 'race', floor: { privacy: 1, hops: 2 }, isolate: 'site' },
        usedBy: ['sites.a.test', 'rules[1]', 'default'],
      }),
    ).toEqual([
      'Race',
      'closed',
      'at least class 1, 2 hops',
      'every site apart',
      'used by a.test, rules[1] and 1 more',
    ]);
  });
});

describe('a hop', () => {
  const was: HopState = {
    name: 'sec',
    form: {
      kind: 'https',
      host: 'a.example',
      port: 443,
      username: 'me',
      headers: { 'X-Team': null },
      tls: { pin: 'sha256/x' },
    },
    port: 443,
    password: 'file',
    passphrase: null,
    usedBy: [],
    health: [],
  };

  test('fills the form without its password, and comes out of it as it was', () => {
    const typed = typedOf(was);
    expect(typed).toMatchObject({ kind: 'https', host: 'a.example', port: '443', password: '', 'tls.pin': 'sha256/x' });
    expect(hopOf(typed, was)).toEqual(was.form);
  });

  test('has a password where one is typed, and none where it is cleared', () => {
    const typed = typedOf(was);
    expect(hopOf({ ...typed, password: ' a b ' }, was).password).toBe(' a b ');
    expect(hopOf(typed, was, ['password']).password).toBeNull();
    expect(hopOf({ ...typed, password: 'new' }, was, ['password']).password).toBe('new');
  });

  test('has what its kind has, and what is left empty is not said', () => {
    expect(
      hopOf({ kind: 'ssh', host: ' b.example ', port: '', username: 'u', 'ssh.agent': true, 'ssh.key': 'k' }, null),
    ).toEqual({
      kind: 'ssh',
      host: 'b.example',
      username: 'u',
      ssh: { agent: true, key: 'k' },
    });
    // From https to socks5: TLS and headers stay behind.
    expect(hopOf({ ...typedOf(was), kind: 'socks5' }, was)).toEqual({
      kind: 'socks5',
      host: 'a.example',
      port: 443,
      username: 'me',
    });
    expect(hopOf({ kind: 'http', host: 'a', auth: 'auto', form: 'connect' }, null)).toEqual({
      kind: 'http',
      host: 'a',
      form: 'connect',
    });
    expect(fieldsFor('socks4a').some(({ name }) => name === 'password')).toBe(false);
    for (const kind of ['http', 'https', 'socks4a', 'socks5', 'ssh', 'tor'])
      expect(
        fieldsFor(kind)
          .slice(0, 2)
          .map(({ name }) => name),
      ).toEqual(['host', 'port']);
    expect(addressOf({ form: { kind: 'tor' }, port: 9050 })).toBe('127.0.0.1:9050');
    expect(addressOf({ form: { kind: 'http', host: '::1' }, port: 1 })).toBe('[::1]:1');
  });

  test.each([
    ['socks5://me:pw@gw.office.example:1080', [], 'office'],
    ['http://squid.example', ['squid'], 'squid2'],
    ['http://127.0.0.1:3128', [], 'http'],
    ['socks5://[::1]:1', [], 'socks5'],
    ['tor://', ['tor'], 'tor2'],
    ['', [], 'hop'],
  ])('by the URL %s is called by its host', (url, taken, name) => {
    expect(nameFor(url, taken)).toBe(name);
  });
});

test('what is wrong stands at its field, and what has none is said apart', () => {
  const problems = [
    { field: 'port', message: 'is not a port' },
    { field: 'tls.cert', message: 'has only one of cert and key' },
    { field: 'chains[0][1]', message: 'there is no hop "x"' },
    { field: '', message: 'the file is read-only' },
  ];
  expect(problemAt(problems, 'port')).toBe('Is not a port.');
  expect(problemAt(problems, 'tls')).toBe('Has only one of cert and key.');
  expect(problemAt(problems, 'host')).toBeNull();
  expect(otherProblems(problems, ['port', 'tls'])).toBe('Chains[0][1] there is no hop "x". The file is read-only.');
  expect(otherProblems(problems, ['port', 'tls', 'chains', ''])).toBeNull();
});

test('a test is drawn to one scale, hop by hop, and what no hop took is the answer', () => {
  const tests: ChainTest[] = [
    {
      chain: ['bad'],
      outcome: 'hop_refused',
      stage: 'tunnel',
      reason: 'No.',
      hops: [{ hop: 'bad', at: 'a:1', took: 5 }],
      took: 20,
    },
    {
      chain: ['a', 'b'],
      outcome: 'ok',
      stage: 'response',
      hops: [
        { hop: 'a', at: 'a:1', took: 10 },
        { hop: 'b', at: 'b:1', took: 20 },
        { hop: null, at: 'o:80', took: 30 },
      ],
      took: 100,
      status: 200,
      exit: '192.0.2.1',
    },
    { chain: [], outcome: 'connection_timeout', stage: 'connect', hops: [], took: 0 },
  ];
  const [bad, good, none] = barsOf(tests, saysOf);
  expect(bad).toMatchObject({ ok: false, says: 'refused (policy), 20 ms', reason: 'No.', exit: null });
  expect(bad!.segments.map(({ label, width }) => [label, width])).toEqual([
    ['bad', 5],
    ['waited', 15],
  ]);
  expect(good).toMatchObject({ ok: true, chain: 'a → b', says: 'answered 200, 100 ms', exit: '192.0.2.1' });
  expect(good!.segments.map(({ label, took, width }) => [label, took, width])).toEqual([
    ['a', '10 ms', 10],
    ['b', '20 ms', 20],
    ['to the site', '30 ms', 30],
    ['answer', '40 ms', 40],
  ]);
  expect(none).toMatchObject({
    chain: 'companion',
    says: 'timed out, 0 ms',
    segments: [{ label: 'waited', width: 0 }],
  });
});

test('health is a word or two, with the last connections as bars', () => {
  const health = (chain: string[], more: Partial<ChainHealth>): ChainHealth => ({
    chain,
    state: 'up',
    latency: 12,
    failures: 0,
    ...more,
  });
  expect(healthText(undefined)).toBeNull();
  expect(healthText(health(['a'], { state: 'unknown' }))).toBeNull();
  expect(healthText(health(['a'], {}))).toBe('up, 12 ms');
  expect(healthText(health(['a'], { state: 'down', failures: 3 }))).toBe('down, failed 3 times');
  const of = (state: 'up' | 'down', took: (number | null)[]): Pick<HopState, 'health'> => ({
    health: [
      { behind: [], state, latency: 12, failures: 1, history: took.map(one => ({ at: 1, outcome: 'ok', took: one })) },
    ],
  });
  expect(hopHealth({ health: [] })).toBeNull();
  expect(hopHealth(of('up', []))).toBe('up, 12 ms');
  expect(sparkOf(of('up', [5]))).toBeNull();
  expect(sparkOf(of('up', [10, null, 20, 0.1]))).toEqual({
    bars: [50, null, 100, 12],
    says: 'The last 4 connections: 1 failed, the slowest in 20 ms',
  });
  expect(pinText({ chain: ['a'], until: null })).toBe('pinned');
  expect(pinText({ chain: ['a'], until: 0 })).toMatch(/^pinned until \d\d:\d\d$/);
});
