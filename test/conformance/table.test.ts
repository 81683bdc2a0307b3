// Holds docs/conformance.md to the tests that there are.
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { conformanceDocument, DOCUMENT, openNumbers } from './table.ts';

test('every number has a test that runs, or a reason', () => {
  expect(openNumbers()).toEqual([]);
});

test('the document says what the tests say (npm run conformance writes it)', () => {
  expect(readFileSync(DOCUMENT, 'utf8')).toBe(conformanceDocument());
});

test('a number that nothing shows is open, and a test that sleeps shows nothing', () => {
  expect(openNumbers(new Map())).toContain('A1');
  const asleep = new Map([['A1', [{ name: 'A1: x', file: 'x', asleep: true }]]]);
  expect(openNumbers(asleep)).toContain('A1');
  const awake = new Map([['A1', [{ name: 'A1: x', file: 'x', asleep: false }]]]);
  expect(openNumbers(awake)).not.toContain('A1');
});
