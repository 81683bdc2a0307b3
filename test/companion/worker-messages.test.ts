import { deserialize, serialize } from 'node:v8';
import { expect, test } from 'vitest';
import * as v from 'valibot';
import { pack, unpack } from '../../companion/worker-messages.ts';
import type { RuleList } from '../../shared/decision/rule.ts';
import { ruleTableOf } from '../../shared/decision/rule-table.ts';
import { ConfigSchema } from '../../shared/config.ts';

const list = (name: string, host: string): RuleList => ({
  action: { do: 'block' },
  name,
  id: `lists.${name}`,
  table: ruleTableOf([{ matcher: { kind: 'suffix', host }, line: 1 }]),
});

test('a list travels once: later it is known by its place, also where it has moved or does something else now', () => {
  const config = v.parse(ConfigSchema, {
    hops: { gone: 'socks5://127.0.0.1:1080' },
    guard: { allow: ['127.0.0.0/8'] },
    sites: { 'a.test': 'companion' },
  });
  const travel = <T>(value: T): T => deserialize(serialize(value)) as T;
  const first = { rules: [], lists: [list('a', 'a.test'), list('b', 'b.test')] };
  const sent = travel(pack(1, { config, source: first, tls: null, hops: {} }, null));
  expect(sent.config).toEqual(config);
  const arrived = unpack(sent, null);
  expect(arrived).toEqual(first);

  const [a, b] = first.lists as [RuleList, RuleList];
  const second = { rules: [], lists: [list('new', 'c.test'), { ...b, rank: 3 }, a] };
  const again = travel(pack(2, { config, source: second, tls: null, hops: {} }, first));
  expect(again.lists.map(({ table }) => table)).toEqual([second.lists[0]!.table, 1, 0]);
  const arrivedAgain = unpack(again, arrived);
  expect(arrivedAgain).toEqual(second);
  expect(arrivedAgain.lists[1]!.table).toBe(arrived.lists[1]!.table);
});
