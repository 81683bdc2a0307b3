import { expect, test } from 'vitest';
import { makeIntakes } from '../../../companion/record/intake.ts';
import { TrafficLog } from '../../../companion/record/traffic-log.ts';
import type { Exchange } from '../../../shared/exchange.ts';

const exchange = (id: number, more: Partial<Exchange> = {}): Exchange => ({
  id,
  startedAt: 1_000,
  kind: 'connect',
  method: 'CONNECT',
  url: 'site.test:443',
  host: 'site.test',
  site: 'site.test',
  because: { rule: 'default' },
  route: 'companion',
  filter: 'off',
  cache: 'off',
  attempts: [],
  status: 200,
  bytesUp: 0,
  bytesDown: 0,
  ...more,
});

function recording() {
  const log = new TrafficLog(10);
  const openIntake = makeIntakes({
    opened: one => log.opened(one),
    moved: one => log.moved(one),
    ended: one => log.add(one),
    now: () => 5_000,
  });
  return { log, openIntake };
}

test('exchanges of several processes get one row of numbers, whatever their own are', () => {
  const { log, openIntake } = recording();
  const [one, two] = [openIntake(), openIntake()];
  one.ended(exchange(1));
  two.ended(exchange(1));
  one.ended(exchange(2));
  expect(log.recent(10).map(({ id }) => id)).toEqual([1, 2, 3]);
});

test('a tunnel keeps its number to its end, and stands in the log once', () => {
  const { log, openIntake } = recording();
  const [one, two] = [openIntake(), openIntake()];
  one.opened(exchange(7));
  two.opened(exchange(7));
  one.ended(exchange(7, { bytesDown: 70, took: 3 }));
  expect(log.recent(10)).toMatchObject([
    { id: 1, bytesDown: 70, took: 3 },
    { id: 2, bytesDown: 0 },
  ]);
  expect(log.counts('site.test')).toMatchObject({ requests: 2, bytesDown: 70 });
});

test('the tunnels of a process that is gone have ended, and are said to have failed', () => {
  const { log, openIntake } = recording();
  const intake = openIntake();
  intake.opened(exchange(1));
  intake.opened(exchange(2));
  intake.ended(exchange(2, { took: 1 }));
  intake.gone();
  intake.gone();
  expect(log.recent(10)).toMatchObject([
    { id: 1, took: 4_000, fault: 'proxy_internal_error' },
    { id: 2, took: 1 },
  ]);
  expect(log.counts('site.test')).toMatchObject({ requests: 2, failed: 1 });
});

test('the bytes of an open tunnel are seen while it stands, whichever process carries it', () => {
  const { log, openIntake } = recording();
  const [one, two] = [openIntake(), openIntake()];
  two.opened(exchange(1, { took: undefined, bytesDown: 0 }));
  one.opened(exchange(1, { took: undefined, bytesDown: 0 }));
  one.moved(exchange(1, { took: undefined, bytesUp: 3, bytesDown: 9 }));
  one.moved(exchange(7, { bytesDown: 100 }));
  expect(log.recent(5).map(({ id, bytesUp, bytesDown }) => [id, bytesUp, bytesDown])).toEqual([
    [1, 0, 0],
    [2, 3, 9],
  ]);
});
