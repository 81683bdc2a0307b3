// The rows of `signatures:` as a person writes them.
import { expect, test } from 'vitest';
import * as v from 'valibot';
import { ConfigSchema } from '../../shared/config.ts';

const parse = (...signatures: unknown[]) => v.safeParse(ConfigSchema, { signatures });

test('a row says how the no of a proxy looks; texts are compared without regard to case', () => {
  const row = { name: 'corp', status: [403], field: 'X-Corp-Block', match: 'Denied' };
  expect(parse(row)).toMatchObject({
    success: true,
    output: { signatures: [{ ...row, field: 'x-corp-block', match: 'denied', who: 'proxy' }] },
  });
  expect(parse({ name: 'page', status: [200, 403], page: 'Blocked by', who: 'proxy', sign: 'portal' }).success).toBe(
    true,
  );
  expect(v.parse(ConfigSchema, {}).signatures).toEqual([]);
});

test.each([
  [{ name: 'x', status: [403] }, 'says neither a field nor a page to know it by'],
  [{ name: 'x', status: [403], page: 'p', match: 'm' }, 'has a match, but no field to look in'],
  [{ name: 'x', status: [], field: 'a' }, 'has no status'],
  [{ name: 'x', status: [403], field: 'a b' }, 'is not the name of a field, like X-Corp-Block'],
  [{ name: 'x', status: [403], field: 'a', who: 'me' }, 'is neither proxy nor origin'],
  [{ name: 'x', status: [403], page: '' }, 'is empty'],
])('%j %s', (row, message) => {
  expect(parse(row).issues?.map(issue => issue.message)).toContain(message);
});
