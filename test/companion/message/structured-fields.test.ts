import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  type BareItem,
  type Item,
  parseDictionary,
  parseList,
  serializeItem,
  serializeList,
  stringItem,
  Token,
} from '../../../companion/message/structured-fields.ts';

const plain = (items: readonly Item[] | null) =>
  items?.map(({ value, params }) => [
    value instanceof Token ? `token ${value.name}` : value,
    Object.fromEntries(params),
  ]);

describe('a structured list', () => {
  test('of Proxy-Status members comes apart', () => {
    expect(
      plain(
        parseList('proxy.example; error=http_request_denied; received-status=403, "detour";details="a \\"b\\", c";x'),
      ),
    ).toEqual([
      ['token proxy.example', { error: new Token('http_request_denied'), 'received-status': 403 }],
      ['detour', { details: 'a "b", c', x: true }],
    ]);
  });

  test('may hold inner lists, decimals, booleans and bytes', () => {
    expect(plain(parseList('("a" b;q=1.5);z=?0, :aGk=:, -3'))).toMatchObject([
      [[{ value: 'a' }, { value: new Token('b') }], { z: false }],
      [Buffer.from('hi'), {}],
      [-3, {}],
    ]);
    expect(plain(parseList(''))).toEqual([]);
  });

  test.each(['a,', 'a b', '"a', '"ä"', 'a;B=1', 'a;=1', '1.', '1.2345', '?2', ':a', '(a', 'a,,b', ';a'])(
    'is none: %j',
    text => {
      expect(parseList(text)).toBeNull();
    },
  );

  test('reads back as it was written', () => {
    const bare: fc.Arbitrary<BareItem> = fc.oneof(
      fc.stringMatching(/^[\x20-\x7e]{0,12}$/),
      fc.integer({ min: -1e12, max: 1e12 }),
      fc.boolean(),
      fc.stringMatching(/^[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]{0,8}$/).map(name => new Token(name)),
    );
    const item = fc.record({
      value: bare,
      params: fc
        .dictionary(fc.stringMatching(/^[a-z*][a-z0-9_.*-]{0,5}$/), bare)
        .map(all => new Map(Object.entries(all))),
    });
    fc.assert(
      fc.property(fc.array(item), items => {
        expect(plain(parseList(serializeList(items)))).toEqual(plain(items));
      }),
      { numRuns: 300 },
    );
  });

  test('is written without what a string cannot hold', () => {
    expect(stringItem('a "b" \\ ü\n')).toBe('"a \\"b\\" \\\\ ??"');
    expect(serializeItem({ value: new Token('a'), params: new Map<string, BareItem>([['b', true]]) })).toBe('a;b');
  });
});

describe('a dictionary', () => {
  test('is read, with flags, parameters and the last of two', () => {
    const read = parseDictionary('max-age=60, no-store;a=1,  public ,max-age=5;b, x="y", l=(1 2)');
    expect([...read!].map(([key, { value }]) => [key, Array.isArray(value) ? value.length : value])).toEqual([
      ['no-store', true],
      ['public', true],
      ['max-age', 5],
      ['x', 'y'],
      ['l', 2],
    ]);
    expect(read!.get('no-store')!.params.get('a')).toBe(1);
    expect(parseDictionary('')!.size).toBe(0);
    expect(parseDictionary('a=?0')!.get('a')!.value).toBe(false);
  });

  test.each(['Max-Age=60', 'a=', 'a b', 'a,', ',a', 'a=1 b', 'a="', '1', 'a=(1', 'a;'])('is none: %j', text => {
    expect(parseDictionary(text)).toBeNull();
  });
});
