// Hits are put together in memory that is used again: who reads slowly must get his own bytes all the same.
import { expect, test } from 'vitest';
import { createCache } from '../../../companion/cache/cache.ts';
import { cacheLimits } from '../../support/cache-limits.ts';
import { startOrigin } from '../../support/origin.ts';
import { connectRaw } from '../../support/raw-client.ts';
import { steered } from '../../support/steered.ts';
import { startProxy } from '../../support/with-proxy.ts';

test('who does not read while others are served gets every byte of his own answers', async () => {
  await using origin = await startOrigin((request, response) => {
    response.setHeader('Cache-Control', 'max-age=60');
    response.end(request.url!.at(-1)!.repeat(15_000));
  });
  const cache = createCache(cacheLimits({ memory: 4 * 1024 ** 2, entry: 1024 ** 2, collapse: 'off', collapseWait: 1 }));
  await using proxy = await startProxy({ rooms: { cache, decide: () => steered() } });
  const text = (n: number) => `GET ${origin.url(`/${n}`)} HTTP/1.1\r\nHost: x\r\n\r\n`;
  await using quick = await connectRaw(proxy.port);
  for (let n = 0; n < 10; n++) {
    quick.write(text(n));
    await quick.readAnswer();
  }
  await using slow = await connectRaw(proxy.port);
  slow.socket.pause();
  const many = 600;
  for (let i = 0; i < many; i++) slow.write(text(i % 10));
  for (let i = 0; i < 100; i++) {
    quick.write(text(i % 10));
    const answer = await quick.readAnswer();
    expect([answer.headers['cache-status'], answer.text === String(i % 10).repeat(15_000)]).toEqual([
      expect.stringContaining('hit'),
      true,
    ]);
  }
  slow.socket.resume();
  for (let i = 0; i < many; i++) expect((await slow.readAnswer()).text === String(i % 10).repeat(15_000)).toBe(true);
});
