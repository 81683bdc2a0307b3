import { expect, test } from 'vitest';
import { textOf } from '../../../companion/cli/lists.ts';

test('a list is a line: what it gives, what of it is unread, how old it is; and below it what went wrong', () => {
  const common = { format: 'hosts', does: 'work', unread: 0, fetched: false, checkedAt: null };
  expect(
    textOf(
      [
        { ...common, name: 'a.txt', entries: 1 },
        { ...common, name: 'https://x.test/', format: 'clash', entries: 20, unread: 2, fetched: true, checkedAt: 0 },
        {
          ...common,
          name: 'https://y.test/\x1b[2J',
          does: 'block',
          entries: 0,
          fetched: true,
          error: 'is answered with 404',
        },
      ],
      3 * 3_600_000,
    ),
  ).toBe(
    'a.txt  hosts, work: 1 entry\n' +
      'https://x.test/  clash, work: 20 entries, 2 lines unread, fetched 3 h ago\n' +
      'https://y.test/·[2J  hosts, block: 0 entries, not fetched yet\n    is answered with 404\n',
  );
  expect(textOf([], 0)).toBe('The file has no lists.\n');
});
