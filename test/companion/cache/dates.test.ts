import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { formatHttpDate, parseHttpDate } from '../../../companion/cache/dates.ts';

const NOW = Date.UTC(2026, 10, 24, 9, 0, 0);
const AT = Date.UTC(1994, 10, 6, 8, 49, 37);

describe('HTTP dates', () => {
  test.for([
    'Sun, 06 Nov 1994 08:49:37 GMT',
    'Sunday, 06-Nov-94 08:49:37 GMT',
    'Sun Nov  6 08:49:37 1994',
    'sun, 06 NOV 1994 08:49:37 gmt',
  ])('%s is one of the three forms', text => expect(parseHttpDate(text, NOW)).toBe(AT));

  test.for([
    '',
    '0',
    '-1',
    '1994-11-06T08:49:37Z',
    'Sun, 6 Nov 1994 08:49:37 GMT',
    'Sun, 06 Nov 1994 08:49:37',
    'Sun, 06 Nov 1994 08:49:37 UTC',
    'Sun, 06 Nov 1994 08:49:37 +0000',
    'Sun, 06 Nov 94 08:49:37 GMT',
    'Sun, 06  Nov 1994 08:49:37 GMT',
    'Sun,06 Nov 1994 08:49:37 GMT',
    'Sun, 06-Nov-1994 08:49:37 GMT',
    '06 Nov 1994 08:49:37 GMT',
    'Son, 06 Nov 1994 08:49:37 GMT',
    'Sun, 31 Feb 1994 08:49:37 GMT',
    'Sun, 00 Nov 1994 08:49:37 GMT',
    'Sun, 06 Nov 1994 24:00:00 GMT',
    'Sun, 06 Nov 1994 08:60:37 GMT',
    'Sun, 06 Nov 1994 8:49:37 GMT',
    'Sun Nov 06 08:49:37 1994 GMT',
    'Sun Nov 6 08:49:37 1994',
    'Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT',
  ])('"%s" is not', text => expect(parseHttpDate(text, NOW)).toBeNull());

  test('a two-digit year is at most 50 years ahead', () => {
    expect(parseHttpDate('Tuesday, 24-Nov-76 09:00:00 GMT', NOW)).toBe(Date.UTC(2076, 10, 24, 9));
    expect(parseHttpDate('Tuesday, 24-Nov-76 09:00:01 GMT', NOW)).toBe(Date.UTC(1976, 10, 24, 9, 0, 1));
    expect(parseHttpDate('Friday, 31-Dec-99 23:59:59 GMT', NOW)).toBe(Date.UTC(1999, 11, 31, 23, 59, 59));
    expect(parseHttpDate('Friday, 01-Jan-00 00:00:00 GMT', Date.UTC(2099, 5))).toBe(Date.UTC(2100, 0, 1));
  });

  test('any moment comes back as it was written', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 253_402_300_799 }), seconds => {
        expect(parseHttpDate(formatHttpDate(seconds * 1000), NOW)).toBe(seconds * 1000);
      }),
    );
  });

  test('no text makes it throw', () => {
    fc.assert(fc.property(fc.string(), text => void parseHttpDate(text, NOW)));
  });
});
