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

test('what cannot be read becomes the defaults, which steer nothing', () => {
  for (const stored of [
    undefined,
    null,
    7,
    {},
    { version: 99 },
    { version: 2, port: 'x' },
    { version: 2, port: 70_000 },
  ]) {
    expect(migrate(stored), JSON.stringify(stored)).toEqual(DEFAULT_SETTINGS);
  }
  expect(DEFAULT_SETTINGS).toMatchObject({ token: null, confirmed: false });
});
