// How many connections fit into the open files that a system allows.
import { expect, test } from 'vitest';
import * as v from 'valibot';
import { fitToOpenFiles, openFilesAllowed } from '../../../companion/config/open-files.ts';
import { ConfigSchema } from '../../../shared/config.ts';

const { limits } = v.parse(ConfigSchema, {});

test.each([
  [Infinity, 4_096, 1_024],
  [1_000_000, 4_096, 1_024],
  [1_024, 424, 128],
  [256, 88, 32],
  [10, 16, 1],
])('A92: with %d files there are %d connections and %d idle ones upstream', (allowed, connections, pool) => {
  const fitted = fitToOpenFiles(limits, allowed);
  expect(fitted.limits).toEqual({ ...limits, connections, pool });
  expect(fitted.warning === null).toBe(connections === limits.connections);
});

test('what the file says holds where it is less', () => {
  const few = { ...limits, connections: 10, pool: 5 };
  expect(fitToOpenFiles(few, 1_024)).toEqual({ limits: few, warning: null });
});

test('this system says how many it allows, where it has /proc', () => {
  expect(openFilesAllowed()).toBeGreaterThan(100);
});
