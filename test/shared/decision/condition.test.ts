import { expect, test } from 'vitest';
import { formatCondition, holds, minuteOfWeek, parseTimes } from '../../../shared/decision/condition.ts';
import { compileMatcher, decide, decideForCompanion } from '../../../shared/decision/decide.ts';
import type { Action, Condition, Rule } from '../../../shared/decision/rule.ts';

const at = (day: number, hour: number, minute = 0) => day * 1_440 + hour * 60 + minute;
const during = (text: string, minute: number) => holds({ times: parseTimes(text) as never }, { minute });

test('times are of the local week, over midnight and over the end of the week too', () => {
  expect(during('Mon-Fri 08:00-18:00', at(1, 8))).toBe(true);
  expect(during('Mon-Fri 08:00-18:00', at(5, 17, 59))).toBe(true);
  expect(during('Mon-Fri 08:00-18:00', at(5, 18))).toBe(false);
  expect(during('Mon-Fri 08:00-18:00', at(0, 12))).toBe(false);
  expect(during('Sat 22:00-06:00', at(0, 5, 59))).toBe(true);
  expect(during('Sat 22:00-06:00', at(6, 5))).toBe(false);
  expect(during('22:00-06:00', at(3, 2))).toBe(true);
  expect(during('Sat,Sun', at(0, 0))).toBe(true);
  expect(during('Fri-Mon 12:00-24:00; Wed', at(0, 23, 59))).toBe(true);
  expect(during('Fri-Mon 12:00-24:00; Wed', at(2, 13))).toBe(false);
  expect(minuteOfWeek(new Date(2026, 10, 24, 13, 5))).toBe(at(2, 13, 5));
});

test.each(['', 'Mon-', '8-18', '25:00-26:00', '08:00-08:00', 'Mon 08:61-09:00', 'Someday', 'Mon-Tue-Wed'])(
  '"%s" is no time',
  text => expect(parseTimes(text)).toContain('write it like'),
);

const route = (name: string): Action => ({
  do: 'route',
  route: name,
  filter: 'standard',
  cache: 'standard',
  inspect: false,
});
const matcherOf = (...rules: [when: Condition | undefined, name: string][]) =>
  compileMatcher({
    rules: rules.map(([when, name], i): Rule => ({
      matcher: { kind: 'suffix', host: 'example.com' },
      when,
      action: route(name),
      id: `rules[${i}]`,
    })),
    lists: [],
  });

test('what a rule looks at is not remembered for what it does not fit', () => {
  const matcher = matcherOf(
    [undefined, 'any'],
    [{ ports: [{ from: 8_080, to: 8_090 }] }, 'port'],
    [{ path: '/api/' }, 'path'],
  );
  const ask = (port: number, path?: string) =>
    decideForCompanion(matcher, { scheme: 'http', host: 'www.example.com', port, path }, 'companion').route;
  expect([ask(80, '/'), ask(8_085, '/'), ask(80, '/api/x'), ask(80, '/'), ask(8_085, '/api/')]).toEqual([
    'any',
    'port',
    'path',
    'any',
    'path',
  ]);
  expect(matcher.decidedForCompanion.byHost.size).toBe(0);
  expect(decide(matcher, { host: 'example.com', port: 8_081 })).toMatchObject({
    because: { text: `example.com ${formatCondition({ ports: [{ from: 8_080, to: 8_090 }] })}` },
  });
});

test('in a tunnel a path rule counts for the whole host where its route is closed, and not at all otherwise', () => {
  const tunnel = { scheme: 'https', host: 'example.com', port: 443 };
  const closed = matcherOf([undefined, 'any'], [{ path: '/api/', wholeHost: true }, 'closed']);
  expect(decide(closed, tunnel)).toMatchObject({ route: 'closed' });
  const open = matcherOf([undefined, 'any'], [{ path: '/api/' }, 'open']);
  expect(decide(open, tunnel)).toMatchObject({ route: 'any' });
});
