import { expect, test } from 'vitest';
import { DEFAULT_SETTINGS, migrate, SETTINGS_VERSION } from '../../extension/settings/migrations.ts';

test('what version 1 stored is read: its switch was called enabled', () => {
  expect(migrate({ version: 1, port: 9000, token: 'abc', confirmed: true, enabled: false })).toEqual({
    version: SETTINGS_VERSION,
    port: 9000,
    token: 'abc',
    confirmed: true,
    master: false,
    pacMode: false,
  });
});

test('what cannot be read is no licence to steer by defaults', () => {
  for (const stored of [null, 7, {}, { version: 99 }, { version: 2, port: 'x' }, { version: 2, port: 70_000 }]) {
    expect(() => migrate(stored), JSON.stringify(stored)).toThrow('cannot be read');
  }
});

test('a master switch that is off stays off, whatever else is broken', () => {
  expect(migrate({ version: 99, port: 'x', master: false })).toEqual({ ...DEFAULT_SETTINGS, master: false });
});

test('nothing stored is the defaults, which steer nothing', () => {
  expect(migrate(undefined)).toEqual(DEFAULT_SETTINGS);
  expect(DEFAULT_SETTINGS).toMatchObject({ token: null, confirmed: false });
});
