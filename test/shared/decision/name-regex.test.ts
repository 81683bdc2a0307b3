import fc from 'fast-check';
import { expect, test } from 'vitest';
import { compileNameRegex, isFoundIn, type NameRegex, urlRegexOf } from '../../../shared/decision/name-regex.ts';

const SYMBOLS = ['a', 'b', 'w', '0', '-', '\\.', '.', '[ab]', '[^a]', '[a-c0-9]', '[^.]', '\\d', '\\w', '\\W'];
const source = fc.letrec<{ any: string; one: string }>(tie => ({
  one: fc.oneof(
    { weight: 6, arbitrary: fc.constantFrom(...SYMBOLS) },
    { weight: 1, arbitrary: tie('any').map(inside => `(?:${inside})`) },
  ),
  any: fc.oneof(
    { maxDepth: 4 },
    tie('one'),
    fc
      .tuple(tie('one'), fc.constantFrom('', '*', '+', '?', '{2}', '{1,3}', '{2,}', '*?'))
      .map(([part, repeat]) => part + repeat),
    fc.tuple(tie('any'), tie('any')).map(([a, b]) => a + b),
    fc.tuple(tie('any'), tie('any')).map(([a, b]) => `(${a}|${b})`),
    tie('any').map(inside => `^${inside}`),
    tie('any').map(inside => `${inside}$`),
  ),
})).any;
const name = fc
  .array(fc.constantFrom('a', 'b', 'c', 'w', '0', '9', '-', '_', '.'), { maxLength: 10 })
  .map(letters => letters.join(''));

test('an expression finds what JavaScript finds, in one pass', () => {
  fc.assert(
    fc.property(source, fc.array(name, { minLength: 1, maxLength: 8 }), (written, names) => {
      const compiled = compileNameRegex(written);
      if (typeof compiled === 'string') return;
      for (const one of names)
        expect(isFoundIn(compiled, one), `${written} in ${one}`).toBe(new RegExp(written).test(one));
    }),
    { numRuns: 3_000 },
  );
});

test('what makes other engines stand still takes no longer than any', () => {
  for (const written of ['^(a+)+$', '(a|a)*b$', '^(\\w*)*\\d$', '(.*a){8}$']) {
    const compiled = compileNameRegex(written);
    expect(typeof compiled === 'object' || compiled.includes('too large'), written).toBe(true);
    if (typeof compiled === 'object') expect(isFoundIn(compiled, `${'a'.repeat(250)}-`)).toBe(false);
  }
  expect(compileNameRegex('.*a.{20}')).toContain('too large');
  expect(compileNameRegex('(a{200}){200}')).toContain('too large');
});

test.each([
  ['(?=a)', 'looks around'],
  ['(?<x>a)', 'looks around'],
  ['(a)\\1', '"\\1", which is not read'],
  ['a\\b', '"\\b", which is not read'],
  ['(a', 'never closed'],
  ['a)', 'never opened'],
  ['[a', 'never closed'],
  ['*a', 'repeats nothing'],
  ['a**', 'two repetitions'],
  ['a/b', '"/", which no host name holds'],
  ['a{3,2}', 'repetition that is none'],
  ['[z-a]', 'backwards'],
  ['', 'empty'],
  ['('.repeat(60) + ')'.repeat(60), 'nested'],
])('%s is refused with a sentence', (written, words) => {
  expect(compileNameRegex(written)).toContain(words);
});

test('capital letters mean the small ones, and a class keeps to the alphabet of names', () => {
  const compiled = compileNameRegex('^AD[0-9]+\\.[^\\/]+$') as NameRegex;
  expect(isFoundIn(compiled, 'ad17.example.com')).toBe(true);
  expect(isFoundIn(compiled, 'bad17.example.com')).toBe(false);
});

test('over URLs it says the same of the host, and nothing of the rest', () => {
  for (const [written, host, found] of [
    ['^ad[0-9]+\\.', 'ad1.example.com', true],
    ['^ad[0-9]+\\.', 'x.ad1.example.com', false],
    ['ads', 'x.myads.test', true],
    ['\\.de$', 'x.de', true],
    ['\\.de$', 'x.de.com', false],
    ['^(www|m)\\.x', 'm.x.test', true],
  ] as const) {
    const whole = new RegExp(urlRegexOf(written)!);
    for (const rest of ['/', '/ads.de/', ':8080/'])
      expect(whole.test(`https://${host}${rest}`), `${written} ${host}${rest}`).toBe(found);
    expect(whole.test('https://other.test/ad1.x?ads=m.x.de')).toBe(false);
  }
});
