// When routes are asked through; what asking finds is at the end, with the whole companion.
import { expect, test } from 'vitest';
import { makeActiveChecks, PAUSED_AFTER } from '../../../companion/route/active-check.ts';
import { resolveRoutes } from '../../../companion/route/resolve.ts';
import { ROUTE_DEFAULTS, type Route } from '../../../shared/config/routes.ts';
import { startClock } from '../../support/clock.ts';

const check = { url: 'http://check.test/', status: 204, every: 0.001, jitter: 0 };
const hops = {
  a: { kind: 'http', host: '192.0.2.1', port: 1 },
  b: { kind: 'http', host: '192.0.2.1', port: 2 },
} as const;
const routesOf = (routes: Record<string, Partial<Route> & Pick<Route, 'chains'>>) => [
  ...resolveRoutes({
    hops,
    routes: Object.fromEntries(Object.entries(routes).map(([name, route]) => [name, { ...ROUTE_DEFAULTS, ...route }])),
  }).values(),
];

/** Keeps what is asked; each question ends when the test has seen it. */
function start() {
  const clock = startClock();
  const asked: string[] = [];
  let wake = () => {};
  const checks = makeActiveChecks({
    now: clock.now,
    random: () => 0,
    ask: (chain, _check, route) => {
      asked.push(`${route.name} ${chain.key}`);
      wake();
      return new Promise(resolve => setImmediate(resolve));
    },
  });
  const until = async (count: number) => {
    while (asked.length < count) await new Promise<void>(resolve => (wake = resolve));
  };
  return { clock, asked, checks, until, [Symbol.dispose]: () => checks.close() };
}

test('every chain in turn, again and again, and nobody of a route without a check', async () => {
  using all = start();
  all.checks.follow(routesOf({ r: { chains: [['a'], ['b']], check }, silent: { chains: [['a']] } }));
  await all.until(4);
  expect(all.asked.slice(0, 4)).toEqual(['r a', 'r b', 'r a', 'r b']);
});

test('a route that nobody uses is left alone until somebody does, also by a route that it is part of', async () => {
  using all = start();
  all.checks.follow(
    routesOf({ inner: { chains: [['a']], check: { ...check, every: 60 } }, outer: { chains: ['inner', ['b']] } }),
  );
  all.clock.advance(PAUSED_AFTER * 60_000 + 1);
  // The first check is due at once, finds that nobody came, and waits.
  await new Promise(resolve => setTimeout(resolve, 20));
  expect(all.asked).toEqual([]);
  all.checks.used('other');
  all.checks.used('outer');
  await all.until(1);
  expect(all.asked).toEqual(['inner a']);
});

test('a changed file ends the checks of what is gone, and leaves the time of what is as it was', async () => {
  using all = start();
  const kept = { chains: [['a']], check } satisfies Partial<Route>;
  all.checks.follow(routesOf({ kept, gone: { chains: [['b']], check } }));
  await all.until(2);
  all.checks.follow(routesOf({ kept }));
  const before = all.asked.length;
  await all.until(before + 5);
  // One that was under way may still have been told.
  expect(all.asked.slice(before + 1)).not.toContain('gone b');
});
